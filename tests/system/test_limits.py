# SPDX-License-Identifier: Apache-2.0
"""Clients that would hurt: large, slow, silent, too many. The others are served, and memory stays small."""

import os
import re
import select
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403


class Large(BrokerTest):
    def test_announced_and_not_sent(self):
        """200 MB of remaining length cost what has arrived, not what was announced."""
        before = self.broker.status_kb("VmRSS")
        cs = [self.connect() for _ in range(5)]
        for c in cs:
            c.send(b"\x30" + varint(200 * 1000 * 1000) + field("big/t") + bytes(100000))
        time.sleep(0.5)
        self.assertLess(self.broker.status_kb("VmRSS") - before, 16 * 1024 * SLOW)
        self.assertTrue(self.connect().is_alive())

    def test_announced_before_connect(self):
        before = self.broker.status_kb("VmRSS")
        for first in (b"\x10", b"\x30"):
            c = self.client()
            c.try_send(first + varint(200 * 1000 * 1000))
            for _ in range(20):
                if not c.try_send(bytes(50000)):
                    break
        time.sleep(0.3)
        self.assertLess(self.broker.status_kb("VmRSS") - before, 16 * 1024 * SLOW)

    def test_sent_slowly(self):
        """A byte now and then inside a packet: the packet is whole in the end."""
        s = self.connect().subscribe(("slow/in", 0))
        c = self.connect()
        c.send_pieces(publish("slow/in", "0123456789"), 1, 0.02)
        s.expect_publish("slow/in", "0123456789")

    def test_packets_cut_everywhere(self):
        """Sizes of segments do not matter."""
        s = self.connect().subscribe(("cut/in", 1))
        c = self.connect()
        stream = b"".join(publish("cut/in", "%d" % i, i % 2, i + 1) for i in range(50)) + pingreq()
        for size in (1, 2, 3, 7, 64):
            c.send_pieces(stream, size)
            while c.recv().type != PINGRESP:
                pass
            numbers = [int(m.payload) for m in s.take(50)]  # QoS 0 may overtake a full window
            self.assertEqual([n for n in numbers if n % 2 == 0], list(range(0, 50, 2)))
            self.assertEqual([n for n in numbers if n % 2 == 1], list(range(1, 50, 2)))


class TakesLong(BrokerTest):
    """A packet that takes longer than the keep alive to arrive; a new kilobyte now and then is a sign of life."""

    def test_arrives(self):
        s = self.connect().subscribe(("long/t", 1))
        for version in (4, 5):
            c = self.connect("long-%d" % version, version, keepalive=2)
            data = publish("long/t", bytes(20000), 1, 7, version=version)
            begin = time.monotonic()
            for at in range(0, len(data), 2100):
                c.send(data[at:at + 2100])
                time.sleep(0.45)
            self.assertGreater(time.monotonic() - begin, 3)  # 1.5 times the keep alive
            self.assertEqual(c.expect_type(PUBACK).pid, 7)
            s.settle(s.expect_publish("long/t"))

    def test_too_little(self):
        """Less than a kilobyte in all of the keep alive's time is silence, however large the packet is."""
        for version in (4, 5):
            c = self.connect("crawl-%d" % version, version, keepalive=1)
            c.send(publish("long/t", bytes(100000), 1, 7, version=version)[:3000])
            with self.assertRaises(Closed):
                for _ in range(100):
                    c.try_send(bytes(50))
                    try:
                        c.recv(0.2)  # of 5.0, DISCONNECT
                    except Silence:
                        pass


class ClientsMaximum(BrokerTest):
    """A client's Maximum Packet Size holds for every answer to its CONNECT [MQTT-3.1.2-24]."""

    def answer(self, most, **fields):
        with self.client(5) as c:
            c.send(connect("max", version=5, props=props((0x27, most), *fields.pop("more", ())), **fields))
            try:
                return c.recv().raw
            except Closed:
                return b""

    def test_connack(self):
        for most in (1, 2, 3, 4):
            self.assertEqual(self.answer(most), b"", most)
        for most in (5, 10):
            self.assertEqual(self.answer(most), b"\x20\x03\x00\x95\x00", most)
        self.assertEqual(self.answer(100)[3], 0)

    def test_refusal(self):
        method = ((0x15, "none-such"),)
        for most in (1, 4):
            self.assertEqual(self.answer(most, more=method), b"")
            self.assertEqual(self.answer(most, will=Will("$SYS/x", "w")), b"")
        self.assertEqual(self.answer(5, more=method), b"\x20\x03\x00\x8c\x00")


class Announced(unittest.TestCase):
    """A reload that lowers limits is for new connections of 5.0: what CONNACK announced holds."""

    def reload(self, b, c, **keys):
        """The keys as given; done when a new connection sees them."""
        with open(b.conf_path) as f:
            lines = [line for line in f.read().splitlines() if line.split()[0] not in keys]
        at = next(i for i, line in enumerate(lines) if line.startswith("listener"))
        for key, value in keys.items():
            lines.insert(len(lines) if key == "max_qos" else at, "%s %s" % (key, value))
        with open(b.conf_path, "w") as f:
            f.write("\n".join(lines) + "\n")
        b.signal(signal.SIGHUP)

    def test_lowered(self):
        with Broker("max_inflight_messages 50\nmax_packet_size 5000") as b:
            s = b.connect("s").subscribe(("an/#", 0))
            c = b.connect("c", 5)
            self.reload(b, c, max_inflight_messages=3, max_packet_size=200, max_topic_alias=0)
            wait_until(lambda: (0x27, 200) in self.pairs(b), "the new limits are announced")
            # Twenty at once, none of them released: as many as were announced.
            c.send(*(publish("an/%d" % i, "x", 2, i, version=5) for i in range(1, 21)))
            for i in range(1, 21):
                self.assertEqual(c.expect_type(PUBREC).pid, i)
            c.send(publish("an/large", bytes(4000), 0, version=5))
            c.send(publish("an/alias", "x", 0, version=5, props=props((0x23, 1))))
            seen = [s.expect_publish().topic for _ in range(22)]
            self.assertEqual(seen[-2:], ["an/large", "an/alias"])
            self.assertTrue(c.is_alive())
            # For a new one the new limits hold.
            n = b.connect("n", 5)
            n.send(publish("an/large", bytes(4000), 0, version=5))
            self.assertEqual(n.expect_type(DISCONNECT).body[0], 0x95)

    def pairs(self, b):
        with b.client(5) as c:
            c.send(connect("", version=5))
            body = c.expect_type(CONNACK).body
        return parse_props(body, 2)[0]

    def test_retain_and_qos(self):
        """Accepted as announced; what is retained is not kept any more."""
        with Broker("retain_available true") as b:
            s = b.connect("s").subscribe(("an/#", 2))
            c = b.connect("c", 5)
            self.reload(b, c, retain_available="false", max_qos=0)
            wait_until(lambda: (0x25, 0) in self.pairs(b), "the new limits are announced")
            c.send(publish("an/r", "x", 1, 1, retain=True, version=5))
            self.assertEqual(c.expect_type(PUBACK).pid, 1)
            s.settle(s.expect_publish("an/r", "x"))
            b.connect("late").subscribe(("an/r", 0)).expect_nothing()


class Slow(BrokerTest):
    config = "max_queued_messages 1000"

    def test_one_that_reads_a_byte_a_second(self):
        """and one that never reads; the third gets all, soon."""
        lazy = self.client(rcvbuf=2048).connect("lazy", keepalive=0).subscribe(("sl/t", 0))
        dead = self.client(rcvbuf=2048).connect("dead", keepalive=0).subscribe(("sl/t", 1))
        good = self.connect("good").subscribe(("sl/t", 1))
        p = self.connect("pub")
        begin = time.monotonic()
        got = 0
        for at in range(0, 3000, 100):
            p.send(*(publish("sl/t", b"%05d" % (at + i) + bytes(4000), 1, i + 1) for i in range(100)))
            for _ in range(100):
                p.expect_type(PUBACK)
            for m in good.take(100):
                self.assertEqual(int(m.payload[:5]), got)
                got += 1
            if at % 1000 == 0:
                lazy.sock.recv(1)
        self.assertLess(time.monotonic() - begin, 8 * SLOW)
        self.assertTrue(good.is_alive())
        self.assertLess(self.broker.status_kb("VmRSS"), 128 * 1024 * SLOW)
        lazy.reset()
        dead.reset()
        self.assertTrue(good.is_alive())

    def test_publisher_that_does_not_read_its_acks(self):
        """Its PUBACKs must not make the broker grow; others are served."""
        p = self.client(rcvbuf=2048).connect("noacks", keepalive=0)
        p.sock.settimeout(0.2)
        data = b"".join(publish("na/t", "x", 1, i + 1) for i in range(1000))
        try:
            for _ in range(1000):
                p.sock.sendall(data)
        except OSError:
            pass  # the broker reads no more, or has closed
        other = self.connect().subscribe(("other/t", 1))
        self.connect().publish("other/t", "x", 1)
        other.settle(other.expect_publish("other/t", "x"))
        self.assertLess(self.broker.status_kb("VmRSS"), 128 * 1024 * SLOW)


class Budget(BrokerTest):
    """memory_limit holds all queues together, whatever the limits of each are."""

    config = "memory_limit 24M\nmax_queued_messages 0\nmax_queued_bytes 0"
    FLOOD = 120  # MB

    @ours("mosquitto's memory_limit counts everything it allocates, and ends what it is doing")
    def test_flood_for_the_absent(self):
        for i in range(4):
            self.connect("absent-%d" % i, clean=False).subscribe(("flood/%d" % i, 1)).disconnect()
        before = self.broker.status_kb("VmRSS")
        for i in range(4):
            p = self.connect("flooder-%d" % i)
            p.sock.settimeout(2.0 * SLOW)
            data = publish("flood/%d" % i, bytes(10000), 1, 1) * 100
            try:
                for _ in range(self.FLOOD // 4):
                    p.sock.sendall(data)
                    while select.select([p.sock], [], [], 0)[0]:
                        if not p.sock.recv(1 << 16):
                            raise OSError("closed")
            except OSError:
                pass  # not read any more, or disconnected
            p.close()
        self.assertLess(self.broker.status_kb("VmRSS") - before, 64 * 1024 * SLOW)
        for i in range(4):  # the end of the sessions frees their queues
            self.connect("absent-%d" % i, clean=True).disconnect()
        s = self.connect().subscribe(("calm/t", 1))
        self.connect().publish("calm/t", "x", 1)
        s.settle(s.expect_publish("calm/t", "x"))


class Descriptors(unittest.TestCase):
    LINE = re.compile(r"(?i)(too many open files|file descriptor)")

    def open_until_silent(self, b, most):
        """Clients until one gets no CONNACK; returns those served, and the one waiting."""
        served = []
        for i in range(most):
            c = b.client()
            c.try_send(connect("fd-%d" % i, keepalive=0))
            try:
                c.expect(connack(), timeout=1.0 * SLOW)
            except (Silence, Closed):
                return served, c
            served.append(c)
        self.fail("%d clients with few descriptors" % most)

    def test_out_of_descriptors(self):
        """The listener pauses, says so once, does not spin, and goes on when connections end."""
        with Broker("shards 1\nacceptors 1", nofile=60) as b:
            said = len(self.LINE.findall(b.log()))
            served, waiting = self.open_until_silent(b, 100)
            self.assertGreater(len(served), 10)
            more = [b.client() for _ in range(3)]
            before = b.cpu_s()
            time.sleep(1.5)
            self.assertLess(b.cpu_s() - before, 0.3 * SLOW)
            self.assertTrue(served[0].is_alive() and served[-1].is_alive())
            if not IS_MOSQUITTO:
                self.assertIn(len(self.LINE.findall(b.log())) - said, (1, 2))
            for c in served[1:8]:
                c.disconnect()
            if not IS_MOSQUITTO:  # mosquitto has closed them
                waiting.expect(connack(), timeout=5 * SLOW)
                for c in more:
                    c.connect("more-%d" % more.index(c))
            wait_until(lambda: self.can_connect(b), "new clients are served again")
            for c in served + more + [waiting]:
                c.close()

    def can_connect(self, b):
        with b.client() as c:
            c.try_send(connect("again"))
            try:
                return c.recv(1.0).type == CONNACK
            except (Closed, Silence, OSError):
                return False


class Pending(BrokerTest):
    """Many connections that say nothing do not keep others out."""

    config = "connect_timeout 2"

    def test_silent_crowd(self):
        crowd = []
        for _ in range(400):
            crowd.append(self.broker.client())
        c = self.connect()
        begin = time.monotonic()
        self.assertTrue(c.is_alive())
        self.assertLess(time.monotonic() - begin, 1.0 * SLOW)
        for x in crowd:
            x.close()
        self.assertTrue(self.connect().is_alive())


class Storm(BrokerTest):
    def test_connects_from_many_threads(self):
        """Connections made and ended all at once: none is lost, none stays."""
        failures = []
        before = self.broker.fds()

        def work(n):
            try:
                for i in range(60):
                    c = self.broker.connect("storm-%d-%d" % (n, i))
                    if i % 3 == 0:
                        c.is_alive()
                    c.reset() if i % 2 else c.disconnect()
            except (AssertionError, OSError) as e:
                failures.append(e)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])
        # A few of the broker's own may be opened by threads that were just starting.
        wait_until(lambda: self.broker.fds() <= before + 5, "descriptors freed")


if __name__ == "__main__":
    main()
