# SPDX-License-Identifier: Apache-2.0
"""A client that writes, closes and connects again at once under its id: nothing of what it wrote is lost.

What lies in the old socket when the new CONNECT comes is handled first: messages, and a DISCONNECT with what it says
about will and session. `test_takeover.py --rounds N` takes N rounds in each test instead of the few that CI can afford.
"""

import os
import random
import socket
import struct
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403

SESSION_EXPIRY, WILL_DELAY = 0x11, 0x18
ROUNDS = 150
if "--rounds" in sys.argv:
    ROUNDS = int(sys.argv.pop(sys.argv.index("--rounds") + 1))
    sys.argv.remove("--rounds")


def disconnect5(expiry=None, reason=0):
    if expiry is None:
        return packet(0xE0, bytes([reason])) if reason else disconnect()
    return packet(0xE0, bytes([reason]) + props((SESSION_EXPIRY, expiry)))


class Rounds:
    """Ids that fall to all shards, connections that are left to the kernel as soon as they are written."""

    IDS = 16

    def write_and_go(self, client_id, *parts, version=4, wait=True, **fields):
        """CONNECT and more, then close without reading on."""
        with self.client(version) as c:
            c.send(connect(client_id, version=version, **fields))
            if wait:
                c.expect_type(CONNACK)
            c.send(*parts)

    def back(self, client_id, version=4, **fields):
        """At once, and away again in order."""
        c = self.client(version)
        c.send(connect(client_id, version=version, **fields))
        ack = c.expect_type(CONNACK)
        c.send(disconnect())
        c.close()
        return ack

    def pid(self, n):
        """Never one whose flow was cut off lately: a session that goes on would take it for a repeat."""
        return n % 60000 + 1

    def all_of(self, sub, topic, n):
        """What was published under numbers 0 .. n-1 comes, each once but for repeats at QoS 1."""
        seen = set()
        while len(seen) < n:
            for m in sub.take(1):
                seen.add((m.topic, m.payload))


class Messages(BrokerTest, Rounds):
    config = "shards 4\nmax_queued_messages 0"

    def rounds(self, qos, each, version=4, **fields):
        sub = self.connect("sub-%d-%d-%d" % (qos, each, version)).subscribe(("tk/#", 2))
        for i in range(ROUNDS):
            client_id = "m%d-%d" % (qos, i % self.IDS)
            topic = "tk/%d/%d/%d" % (version, qos, i)
            self.write_and_go(client_id, *(
                publish(topic, "%d" % k, qos, self.pid(i * each + k) if qos else None, version=version)
                for k in range(each)), version=version, **fields)
            self.back(client_id, version, **fields)
            self.all_of(sub, topic, each)
        sub.close()

    def test_qos0(self):
        self.rounds(0, 1)

    def test_qos1(self):
        self.rounds(1, 1, 5)

    def test_qos2(self):
        self.rounds(2, 1)

    def test_bursts(self):
        for qos in (0, 1, 2):
            self.rounds(qos, 20, 4 + qos % 2)

    def test_durable(self):
        for qos in (0, 1, 2):
            self.rounds(qos, 5, 4, clean=False)

    def test_not_waiting_for_connack(self):
        """Several connections at once under one id: each is heard, in the order of their CONNECTs."""
        sub = self.connect("sub-pipe").subscribe(("pipe/#", 0))
        for i in range(ROUNDS // 2):
            for k in range(6):
                self.write_and_go("p%d" % (i % self.IDS), publish("pipe/%d" % i, "%d" % k), wait=False)
            self.all_of(sub, "pipe/%d" % i, 6)

    def test_large(self):
        """More than one read, and a packet cut in two by the end of a buffer."""
        sub = self.connect("sub-large").subscribe(("large/#", 0))
        for i in range(5):
            self.write_and_go("large", *(publish("large/%d" % i, b"%d" % k + bytes(70000)) for k in range(12)))
            self.back("large")
            self.all_of(sub, "large/%d" % i, 12)


class OnDisk(BrokerTest, Rounds):
    """Answers wait for the disk, that to an older CONNECT as well."""

    config = "shards 4\npersistence true\npersistence_location {dir}/"

    def test_messages(self):
        sub = self.connect("sub-disk", clean=False).subscribe(("td/#", 2))
        for i in range(ROUNDS // 2):
            qos = i % 3
            client_id = "d%d" % (i % self.IDS)
            parts = [publish("td/%d" % i, "%d" % k, qos, self.pid(i * 5 + k) if qos else None) for k in range(5)]
            for wait in (True, False):
                self.write_and_go(client_id, *parts[:3], clean=False, wait=wait)
                self.write_and_go(client_id, *parts[3:], clean=False, wait=False)
            self.back(client_id, clean=False)
            self.all_of(sub, "td/%d" % i, 5)

    def test_goodbye_behind_connect(self):
        """DISCONNECT in the same segment as CONNECT: no will, and what it says about the session."""
        sub = self.connect("sub-bye").subscribe(("tb/#", 0))
        for i in range(ROUNDS // 2):
            client_id = "b%d" % (i % self.IDS)
            for expiry, present in ((0, False), (100, True)):
                self.write_and_go(client_id, disconnect5(expiry), version=5, clean=True, wait=False,
                                  will=Will("tb/%d" % i, "w"), props=props((SESSION_EXPIRY, 50)))
                ack = self.back(client_id, 5, clean=False, props=props((SESSION_EXPIRY, 50)))
                self.assertEqual(ack.body[0], present, (i, expiry))
        sub.expect_nothing()


class AnyEnd(unittest.TestCase, Rounds):
    """Every way to go, over TCP and unix sockets, a fresh seed each time.

    Not more is written than the broker's kernel takes at once where the client's forgets the rest: it does when it
    resets, and it resets when something lies unread at close().
    """

    def go(self, c, how):
        if how == "reset":
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half":  # closed when the next one is connected
            c.sock.shutdown(socket.SHUT_WR)
        else:
            c.close()

    def one(self, b, rng, i):
        """Writes, goes, is back; the number of messages, and whether it had said goodbye."""
        how = rng.choice(("close", "reset", "half"))
        qos = rng.randrange(3)
        size, n = rng.choice((5, 100, 1000)), rng.choice((1, 5, 20, 300))
        whole = how == "half" or (how == "close" and qos == 0)
        if not whole:
            n = min(n, 60000 // (size + 20))
        bye = rng.random() < 0.5
        client_id = "any%d" % rng.randrange(8)
        c = Client(rng.choice(b.addresses))
        c.send(connect(client_id, clean=rng.random() < 0.5, will=Will("any-will/%d" % i, "w")))
        if whole or rng.random() < 0.5:
            c.expect_type(CONNACK)
        c.send(*(publish("any/%d" % i, b"%d " % k + bytes(size), qos, self.pid(i * 300 + k) if qos else None)
                 for k in range(n)), *([disconnect()] if bye else []))
        self.go(c, how)
        with Client(rng.choice(b.addresses)) as back:
            back.send(connect(client_id, clean=rng.random() < 0.5))
            back.expect_type(CONNACK)
            back.send(disconnect())
        c.close()
        return n, bye

    def rounds(self, config):
        seed = random.SystemRandom().randrange(1 << 32)
        rng = random.Random(seed)
        with self.subTest(seed=seed), Broker(config, ["listener {port} 127.0.0.1", "listener 0 {dir}/s"]) as b:
            sub = b.connect("sub-any", clean=False).subscribe(("any/#", 1), ("any-will/#", 1))
            seen, wills = set(), set()
            for i in range(ROUNDS):
                n, bye = self.one(b, rng, i)
                wills |= set() if bye else {"any-will/%d" % i}
                while sum(topic == "any/%d" % i for topic, _ in seen) < n:
                    seen |= {(m.topic, m.payload) for m in sub.take(1)}
                seen = {(topic, payload) for topic, payload in seen if topic.startswith("any-will")}
            while seen < {(topic, b"w") for topic in wills}:
                seen |= {(m.topic, m.payload) for m in sub.take(1)}
            sub.expect_nothing(0.2)
            self.assertEqual(seen, {(topic, b"w") for topic in wills})

    def test_memory(self):
        self.rounds("shards 4\nmax_queued_messages 0")

    def test_disk(self):
        self.rounds("shards 4\npersistence true\npersistence_location {dir}/")


class Ends(BrokerTest, Rounds):
    config = "shards 4"

    def test_disconnect_deletes_the_will(self):
        sub = self.connect("sub-will").subscribe(("will/#", 0))
        for version in (4, 5):
            for i in range(ROUNDS):
                client_id = "w%d" % (i % self.IDS)
                self.write_and_go(client_id, disconnect(), version=version, will=Will("will/%d" % i, "w"))
                self.back(client_id, version)
        sub.expect_nothing()
        self.assertTrue(sub.is_alive())

    def test_no_disconnect_sends_the_will(self):
        sub = self.connect("sub-will2").subscribe(("will2/#", 0))
        for i in range(ROUNDS):
            client_id = "v%d" % (i % self.IDS)
            self.write_and_go(client_id, will=Will("will2/%d" % i, "w"))
            self.back(client_id)
        self.all_of_wills(sub, ROUNDS)

    def all_of_wills(self, sub, n):
        self.assertEqual({sub.expect_publish(timeout=TIMEOUT).topic for _ in range(n)},
                         {"will2/%d" % i for i in range(n)})

    def test_disconnect_with_will(self):
        """Reason 4: the will is sent, though the client said goodbye."""
        sub = self.connect("sub-will3").subscribe(("will3/#", 0))
        for i in range(20):
            self.write_and_go("x%d" % i, disconnect5(reason=4), version=5, will=Will("will3/%d" % i, "w"))
            self.back("x%d" % i, 5)
            sub.expect_publish("will3/%d" % i, "w")

    def test_expiry_of_disconnect(self):
        """DISCONNECT ends the session (0), keeps it (100), or says nothing."""
        for i in range(ROUNDS):
            for expiry, present in ((0, False), (100, True), (None, True)):
                client_id = "e%d-%s" % (i % self.IDS, expiry)
                self.write_and_go(client_id, disconnect5(expiry), version=5, clean=True,
                                  props=props((SESSION_EXPIRY, 50)))
                ack = self.back(client_id, 5, clean=False, props=props((SESSION_EXPIRY, 50)))
                self.assertEqual(ack.body[0], present, (i, expiry))

    def test_subscriptions_count(self):
        """A SUBSCRIBE in the old socket belongs to the session that goes on."""
        for i in range(ROUNDS // 3):
            client_id = "s%d" % (i % self.IDS)
            self.write_and_go(client_id, subscribe(1, ("sc/%d" % i, 1)), clean=False)
            with self.client() as c:
                c.send(connect(client_id, clean=False))
                self.assertEqual(c.expect_type(CONNACK).body[0], 1)
                c.send(publish("sc/%d" % i, "x", 1, 9))
                c.settle(c.expect_publish("sc/%d" % i, "x"))


class ClosedWhileWrittenTo(BrokerTest, Rounds):
    """The broker's writes meet a closed socket before its reads: what lies there counts all the same."""

    config = "shards 4\nmax_queued_messages 0"

    def test_last_words(self):
        sub = self.connect("sub-lw").subscribe(("lw/#", 0), ("will4/#", 0))
        busy = self.connect("busy")
        stop = threading.Event()

        def publish_on():
            data = b"".join(publish("busy/t", bytes(200)) for _ in range(20))
            while not stop.is_set():
                busy.sock.sendall(data)
                time.sleep(0.0005)

        thread = threading.Thread(target=publish_on)
        thread.start()
        try:
            for i in range(ROUNDS * 2):
                with self.client() as c:
                    c.send(connect("lw%d" % (i % self.IDS), will=Will("will4/%d" % i, "w")))
                    c.expect_type(CONNACK)
                    c.send(subscribe(1, ("busy/#", 0)))
                    time.sleep(0.001)
                    c.send(*(publish("lw/%d" % i, "%d" % k) for k in range(20)), disconnect())
                seen = [sub.expect_publish(timeout=TIMEOUT).topic for _ in range(20)]
                self.assertEqual(seen, ["lw/%d" % i] * 20)
        finally:
            stop.set()
            thread.join()
        sub.expect_nothing()


class Hostile(BrokerTest, Rounds):
    config = "shards 2"

    def test_flood_does_not_delay(self):
        """A peer that goes on sending over the old connection: what it sends later does not count."""
        old = self.connect("flood")
        data = b"".join(publish("fl/x", bytes(1000)) for _ in range(1000))
        old.sock.setblocking(False)
        for _ in range(5):
            stop = time.monotonic() + 0.1
            while time.monotonic() < stop:
                try:
                    old.sock.send(data)
                except BlockingIOError:
                    pass
            c = self.client()
            c.send(connect("flood"))
            c.expect_type(CONNACK)
            old.close()
            old = c
            old.sock.setblocking(False)

    def test_half_a_packet(self):
        """The rest never comes: the new connection does not wait for it."""
        for version in (4, 5):
            old = self.connect("half", version)
            old.send(publish("h/t", bytes(100000), version=version)[:50000])
            self.connect("half", version).is_alive()

    def test_unread_output(self):
        """An old connection whose client does not read, with more waiting for it than it is read for."""
        sub = self.client(rcvbuf=4096).connect("deaf", clean=False).subscribe(("deaf/#", 0))
        p = self.connect("loud")
        for _ in range(40):
            p.send(*(publish("deaf/t", bytes(50000)) for _ in range(20)))
        p.send(pingreq())
        p.expect_type(PINGRESP)
        sub.send(publish("last/words", "x"))
        c = self.connect("deaf", clean=True)
        self.assertTrue(c.is_alive())

    def test_many_at_once(self):
        """Hundreds of connections of one id: the last one stays, the others are closed."""
        socks = []
        for i in range(300):
            c = self.client()
            c.send(connect("crowd", clean=False))
            socks.append(c)
        self.assertEqual(socks[-1].expect_type(CONNACK).type, CONNACK)
        for c in socks[:-1]:
            with self.assertRaises(Closed):
                while True:
                    c.recv(TIMEOUT)
        self.assertTrue(socks[-1].is_alive())

    def test_out_of_order(self):
        """A client that is taken over in the middle of a flow of QoS 2 goes on with it."""
        for i in range(50):
            client_id = "q%d" % i
            self.write_and_go(client_id, publish("q/t", "x", 2, 7), pubrel(7), publish("q/t", "y", 2, 8), clean=False)
            with self.client() as c:
                c.send(connect(client_id, clean=False))
                c.expect_type(CONNACK)
                c.send(publish("q/t", "y", 2, 8, dup=True))
                self.assertEqual(c.expect_type(PUBREC).pid, 8)
                c.send(pubrel(8), pubrel(7))
                self.assertEqual([c.expect_type(PUBCOMP).pid for _ in range(2)], [8, 7])


if __name__ == "__main__":
    main()
