# SPDX-License-Identifier: Apache-2.0
"""Peers that mean harm, or are badly broken. The broker stays up and small, and serves the others.

Memory is the process's resident size. Under sanitizers everything is smaller and bounds are wider.
"""

import multiprocessing
import os
import random
import resource
import select
import socket
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from noise import mutate  # noqa: E402
from wire import *  # noqa: E402,F403

MB = 1024  # of status_kb()
PLAIN = SLOW == 1
USER, SESSION_EXPIRY, RECEIVE_MAXIMUM = 0x26, 0x11, 0x21


def bound(kb):
    """A bound on memory; AddressSanitizer keeps up to 256 MB of what was freed."""
    return kb if PLAIN else kb * 4 + 300 * MB


def scaled(n):
    return n if PLAIN else max(1, n // 8)


def sys_value(broker, name, timeout=None):
    """A value below $SYS/broker, as the next round shows it."""
    with broker.client() as c:
        c.connect("").subscribe(("$SYS/broker/" + name, 0))
        return int(c.expect_publish(timeout=TIMEOUT if timeout is None else timeout).payload)


class Pinger:
    """Another process: clients that, in turn, send themselves a message and keep the times."""

    CLIENTS = 8  # on every shard there is one

    def __init__(self, address):
        self.address = address
        here, there = multiprocessing.Pipe()
        self.pipe = here
        self.process = multiprocessing.get_context("fork").Process(target=self.run, args=(there,))
        self.process.start()
        if self.pipe.recv() != "ready":
            raise AssertionError("pinger did not connect")

    def ping(self, c, topic, n):
        begin = time.monotonic()
        c.send(publish(topic, "%d" % n, 1, n % 65535 + 1))
        ack = got = None
        while ack is None or got is None:
            p = c.recv(10 * SLOW)
            if p.type == PUBACK:
                ack = p
            else:
                got = c.settle(p)
        if got.payload != b"%d" % n:
            raise AssertionError("ping %d, got %r" % (n, got))
        return time.monotonic() - begin

    def run(self, pipe):
        times, wrong = [], None
        try:
            cs = [wire.Client(self.address).connect("pinger-%d" % i, keepalive=0).subscribe(("ping/%d" % i, 1))
                  for i in range(self.CLIENTS)]
            pipe.send("ready")
            n = 0
            while not pipe.poll(0.002):
                n += 1
                i = n % self.CLIENTS
                times.append(self.ping(cs[i], "ping/%d" % i, n))
            for c in cs:
                c.disconnect()
        except (AssertionError, OSError) as e:
            wrong = "%s: %s" % (type(e).__name__, e)
        pipe.send((times, wrong))

    def stop(self):
        """The round trips in seconds, sorted."""
        self.pipe.send("stop")
        times, wrong = self.pipe.recv()
        self.process.join()
        if wrong:
            raise AssertionError("a client beside: %s, after %d round trips" % (wrong, len(times)))
        return sorted(times)


class Abuse:
    """What several classes below need; the first look at memory is after a client was served."""

    def rss(self):
        return self.broker.status_kb("VmRSS")

    def base(self):
        self.connect().is_alive()
        return self.rss()

    def assert_grew_less(self, base, kb):
        grown = self.rss() - base
        self.assertLess(grown, bound(kb), "%d kB more" % grown)

    def assert_served(self, times, limit=0.1):
        """Two outliers may be the machine's, if they are small."""
        self.assertGreater(len(times), 4)
        if PLAIN:
            self.assertLess(times[-3], limit, times[-10:])
            self.assertLess(times[-1], limit * 2.5, times[-10:])


class HalfOpen(BrokerTest, Abuse):
    config = "connect_timeout 2"

    def test_slow_connect(self):
        """A byte now and then does not prolong the time for CONNECT."""
        c = self.client()
        begin = time.monotonic()
        data = connect("slow", username="u" * 100)
        with self.assertRaises(Closed):
            for at in range(len(data)):
                c.try_send(data[at:at + 1])
                try:
                    c.recv(0.3)
                except Silence:
                    pass
        self.assertTrue(1.5 < time.monotonic() - begin < 2 + 3 * SLOW)

    def test_half_connect(self):
        cs = [self.client() for _ in range(20)]
        for i, c in enumerate(cs):
            c.send(connect("half")[:i % 15])
        for c in cs:
            c.expect_closed(2 + 3 * SLOW)

    def test_half_packet(self):
        """A packet that never ends does not replace a packet for the keep alive [MQTT-3.1.2-22]."""
        for version in (4, 5):
            c = self.connect("trickle-%d" % version, version, keepalive=1)
            data = publish("tr/t", bytes(100), version=version)
            begin = time.monotonic()
            with self.assertRaises(Closed):
                for at in range(len(data)):
                    c.try_send(data[at:at + 1])
                    try:
                        c.recv(0.2)
                    except Silence:
                        pass
            self.assertLess(time.monotonic() - begin, 2 + 2 * SLOW)

    def test_half_closed(self):
        """A client that shuts its sending side has gone."""
        c = self.connect("hc").subscribe(("hc/t", 0))
        c.sock.shutdown(socket.SHUT_WR)
        c.expect_closed()

    def test_byte_a_second_of_many(self):
        """Connections that trickle cost the others nothing."""
        cs = [self.connect("tm-%d" % i, keepalive=0) for i in range(scaled(200))]
        data = publish("tm/t", bytes(60000))
        base = self.base()
        pinger = Pinger(self.broker.addresses[0])
        for at in range(20):
            for c in cs:
                c.send(data[at:at + 1])
            time.sleep(0.05)
        self.assert_served(pinger.stop())
        self.assert_grew_less(base, 8 * MB)


class Lingering(BrokerTest, Abuse):
    """A connection that has been ended is still read for a moment. What its peer sends then is counted and thrown away,
    also behind a large packet that it had begun."""

    config = "acceptors 1"
    FLOOD = 4 << 20  # more than any buffer of a connection

    def begin_large(self, name, **fields):
        c = self.connect(name, **fields)
        c.send(b"\x30" + varint(200000000) + field("lg/t"), bytes(1200000))
        return c

    def flood(self, c):
        """All at once, within the second for which the broker lingers."""
        c.try_send(bytes(self.FLOOD))

    def test_keepalive(self):
        for version in (4, 5):
            c = self.begin_large("lg-k", version=version, keepalive=1)
            if version == 5:
                c.expect_type(14, timeout=TIMEOUT)  # DISCONNECT 0x8D
            else:
                with self.assertRaises(Closed):
                    c.recv(TIMEOUT)
            self.flood(c)
            self.connect("lg-other").is_alive()

    def test_takeover(self):
        for version in (4, 5):
            c = self.begin_large("lg-t", version=version)
            self.connect("lg-t", version)
            self.flood(c)
            self.connect("lg-other").is_alive()

    def test_refused(self):
        """The same before CONNECT: who goes on sending behind a refusal does not keep the acceptor from others."""
        ends = [self.client() for _ in range(4)]
        for c in ends:
            c.send(packet(0x10, field("MQTT") + b"\x09\x02\x00\x3c" + field("lg-r")))
            self.assertEqual(c.recv(TIMEOUT).first, 0x20)
        for c in ends:
            self.flood(c)
            self.connect("lg-other").is_alive()

    def test_refused_large(self):
        """A whole CONNECT that is larger than what an acceptor reads at once, refused for its 3.x id of no length."""
        for payload in (10, 65000):
            c = self.client()
            c.send(connect("", clean=False, username="u" * 65000, password=bytes(65000), will=Will("lg/w", bytes(payload))))
            self.assertEqual(c.recv(TIMEOUT).raw, connack(2))
            c.try_send(bytes(100))
            self.flood(c)
            self.connect("lg-other").is_alive()


class BeforeConnect(BrokerTest, Abuse):
    config = "max_connect_size 4096\nconnect_timeout 5"

    def flood(self, first, chunk, most=4 << 20):
        """Sends until refused; how much was taken."""
        c = self.client()
        c.sock.settimeout(1.0 * SLOW)
        sent = 0
        if not c.try_send(first):
            return 0
        while sent < most:
            if not c.try_send(chunk):
                break
            sent += len(chunk)
        return sent

    def test_no_mqtt(self):
        """Bytes without end: closed at the first that can be no CONNECT."""
        base = self.base()
        noise = random.Random(3).randbytes(65536)
        for first in (b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\0\1\0", b"\0" * 100, b"\xff" * 100, b"\x80" * 9):
            self.assertLess(self.flood(first, noise), 4 << 20, first)
        self.assert_grew_less(base, 4 * MB)

    def test_connect_too_large(self):
        """Refused by its announced length, before it comes."""
        base = self.base()
        for length in (4096, 100000, 268435455):
            c = self.client()
            c.send(b"\x10" + varint(length) + b"\0\4MQTT\4\2")
            try:
                self.assertEqual(c.recv(2.0 * SLOW).type, CONNACK)
                c.expect_closed(2.0 * SLOW)
            except Closed:
                pass
        self.assertLess(self.flood(b"\x10" + varint(268435455), bytes(65536)), 4 << 20)
        self.assert_grew_less(base, 4 * MB)
        self.connect("x" * 2000).is_alive()

    def test_endless_length(self):
        for data in (b"\x10\xff\xff\xff\xff\xff\xff", b"\x10\x80\x80\x80\x80\x80\0"):
            c = self.client()
            c.send(data)
            c.expect_closed(2.0 * SLOW)
        self.assertLess(self.flood(b"\x10", b"\xff" * 65536), 4 << 20)

    def test_other_packets_first(self):
        """[MQTT-3.1.0-1], without an answer."""
        for first in list(range(0x20, 0x100, 0x10)) + [0x00, 0x11, 0x1f, 0x82, 0x62, 0xa2]:
            c = self.client()
            c.send(bytes([first, 2, 0, 0]))
            c.expect_closed(2.0 * SLOW)

    def test_pipelined_behind_connect(self):
        """As much as one likes may follow CONNECT at once; it is handled, or not read."""
        s = self.connect("reader").subscribe(("pl/t", 0))
        c = self.client()
        c.send(connect("pl"), publish("pl/t", "x") * 5000, pingreq())
        c.expect(connack(), pingresp())
        for _ in range(5000):
            s.expect_publish("pl/t", "x")


class Silent(unittest.TestCase, Abuse):
    """Connections that never speak."""

    def crowd(self, b, n):
        cs = []
        try:
            while len(cs) < n:
                s = socket.socket(socket.AF_INET)
                cs.append(s)
                s.settimeout(20 * SLOW)
                s.connect(b.addresses[0])
        except OSError:
            for s in cs:
                s.close()
            raise
        return cs

    def test_ten_thousand(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        n = min(scaled(10000), hard - 200)
        with Broker("connect_timeout 4\nsys_interval 1", nofile=hard) as b:
            self.broker = b
            with b.client() as c:
                c.connect("first").is_alive()
            base, fds, rss = self.rss(), b.fds(), []
            for _ in range(2):
                pinger = Pinger(b.addresses[0])
                begin = time.monotonic()
                cs = self.crowd(b, n)
                wait_until(lambda: b.fds() > fds + n * 0.9 or time.monotonic() - begin > 4, "accepted", 10)
                rss.append(self.rss())
                wait_until(lambda: b.fds() <= fds + 5 + Pinger.CLIENTS, "all closed after connect_timeout", 20)
                self.assert_served(pinger.stop(), 0.25)
                for s in cs:
                    s.close()
            self.assert_grew_less(base, 16 * MB)
            self.assertLess(rss[0] - base, bound(16 * MB))
            self.assertLess(rss[1] - rss[0], bound(2 * MB))
            wait_until(lambda: sys_value(b, "noctule/connect/timeout") >= 2 * n * 0.9, "counted")
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Announced(BrokerTest, Abuse):
    def test_not_sent(self):
        """256 MB announced by each of fifty, nothing of it sent, then a little."""
        cs = [self.connect("an-%d" % i, 4 + i % 2, keepalive=0) for i in range(50)]
        base = self.base()
        for c in cs:
            c.send(b"\x30" + varint(268435455))
        self.assertTrue(self.connect().is_alive())
        self.assert_grew_less(base, 2 * MB)
        for c in cs:
            c.send(field("big/t") + bytes(30000))
        self.assertTrue(self.connect().is_alive())
        time.sleep(0.2)
        self.assert_grew_less(base, 8 * MB)
        for c in cs:
            c.reset()
        wait_until(lambda: self.rss() - base < bound(8 * MB), "memory is free again")

    def test_subscribe_announced(self):
        cs = [self.connect("as-%d" % i, keepalive=0) for i in range(50)]
        base = self.base()
        for c in cs:
            c.send(b"\x82" + varint(268435455) + b"\0\1" + (field("a/b") + b"\0") * 100)
        self.assertTrue(self.connect().is_alive())
        self.assert_grew_less(base, 8 * MB)


class Topics(BrokerTest, Abuse):
    config = "sys_interval 1"

    def test_longest(self):
        """65,535 bytes: nothing wrong with them."""
        for version in (4, 5):
            for topic in ("t" * 65535, "l/" * 100 + "t" * 65335, "\u20ac" * 21845):
                s = self.connect(version=version).subscribe((topic, 1))
                self.connect(version=version).publish(topic, "x", 1, retain=True)
                s.settle(s.expect_publish(topic, "x"))
                late = self.connect(version=version).subscribe(("#", 0))
                late.expect_publish(topic, "x", retain=True)
                self.connect(version=version).publish(topic, "", 1, retain=True)
                for c in (s, late):
                    c.reset()

    def test_longest_strings(self):
        """65,535 bytes of client id, will topic, user name and password in one CONNECT."""
        c = self.client()
        c.send(connect("i" * 65535, will=Will("w" * 65535, b"x" * 60000)))
        self.assertEqual(c.expect_type(CONNACK).body[1], 0)
        w = self.connect().subscribe(("w" * 65535, 0))
        c.reset()
        w.expect_publish("w" * 65535)

    def test_long_shared(self):
        """A group and a filter that fill a string."""
        for version in (4, 5):
            c = self.connect(version=version)
            c.subscribe(("$share/" + "%d" % version * 30000 + "/" + "f" * 35527, 1))
            self.connect().publish("f" * 35527, "x", 1)
            c.settle(c.expect_publish("f" * 35527, "x"))
            c.disconnect()

    def test_levels(self):
        """200 separators are allowed, more are refused, whatever packet they come in."""
        good, bad, worst = "/".join("a" * 201), "/".join("a" * 202), "/" * 65535
        s = self.connect(version=5).subscribe((good, 1))
        self.connect().publish(good, "x", 1)
        s.settle(s.expect_publish(good, "x"))
        for topic in (bad, worst):
            c = self.connect(version=5)
            pid = c.pid()
            c.send(subscribe(pid, (topic, 0), ("fine", 0), (topic[:-1] + "#", 0), version=5))
            codes = c.expect_type(SUBACK).codes
            self.assertTrue(codes[0] >= 0x80 and codes[1] == 0 and codes[2] >= 0x80, codes)
            self.assertTrue(c.is_alive())
            c.send(publish(topic, "x", 1, 7, version=5))
            got = c.recv()
            self.assertIn((got.type, got.body[2 if got.type == PUBACK else 0]),
                          ((PUBACK, 0x90), (DISCONNECT, 0x90), (PUBACK, 0x97)))
            old = self.connect()
            old.send(publish(topic, "x", 1, 1))
            try:
                old.expect_type(PUBACK)
            except Closed:
                pass
            c = self.client(5)
            c.send(connect("lw", 5, will=Will(topic, b"x")))
            try:
                got = c.expect_type(CONNACK)
                self.assertGreaterEqual(got.body[1], 0x80)
            except Closed:
                pass

    def test_tree_shrinks(self):
        """Deep filters by the thousand: bounded, and gone with the client."""
        base = self.base()
        for _ in range(3):
            c = self.connect("deep", keepalive=0)
            for i in range(scaled(1000)):
                c.send(subscribe(i % 65535 + 1, ("%d/" % i + "b/" * 197 + "c", 0)))
            for _ in range(scaled(1000)):
                c.expect_type(SUBACK)
            self.assert_grew_less(base, 64 * MB)
            c.reset()
        wait_until(lambda: sys_value(self.broker, "subscriptions/count") < 10, "subscriptions gone", 10)
        self.assert_grew_less(base, 64 * MB)

    def test_wildcards_explode(self):
        """2^10 filters that all match one topic: one copy, soon."""
        c = self.connect("explode")
        filters = []
        for bits in range(1024):
            filters.append("/".join("+" if bits >> i & 1 else "x" for i in range(10)))
        for at in range(0, 1024, 64):
            c.subscribe(*((f, 1) for f in filters[at:at + 64]))
        begin = time.monotonic()
        p = self.connect()
        for i in range(20):
            p.publish("/".join("x" * 10), "%d" % i, 1)
        self.assertEqual([m.payload for m in c.take(20)], [b"%d" % i for i in range(20)])
        c.expect_nothing()
        self.assertLess(time.monotonic() - begin, 1.0 * SLOW + QUIET)


class Subscriptions(BrokerTest, Abuse):
    """100,000 by one client."""

    config = "sys_interval 1"
    N = scaled(100000)

    def hammer(self, packets):
        """Sends SUBSCRIBEs, then leaves; the others' round trips meanwhile."""
        base = self.base()
        pinger = Pinger(self.broker.addresses[0])
        c = self.connect("many", keepalive=0)
        sender = threading.Thread(target=c.send, args=packets)
        sender.start()
        codes = 0
        while codes < self.N:
            codes += len(c.expect_type(SUBACK, 30 * SLOW).codes)
        sender.join()
        wait_until(lambda: sys_value(self.broker, "subscriptions/count") >= self.N, "counted", 5)
        self.assert_grew_less(base, 100 * MB)
        self.connect().publish("m/%d/x" % (self.N - 1), "last", 1)
        c.settle(c.expect_publish("m/%d/x" % (self.N - 1), "last"))
        c.reset()
        wait_until(lambda: sys_value(self.broker, "subscriptions/count") < 10, "subscriptions gone", 10)
        self.assert_served(pinger.stop())

    def filters(self, begin, end):
        return [("m/%d/+" % i, i % 3) for i in range(begin, end)]

    def test_one_packet(self):
        self.hammer([subscribe(1, *self.filters(0, self.N))])

    def test_few_packets(self):
        self.hammer([subscribe(i + 1, *self.filters(i * 1000, min(self.N, (i + 1) * 1000)))
                     for i in range((self.N + 999) // 1000)])

    def test_many_packets(self):
        self.hammer([b"".join(subscribe(i % 65535 + 1, *self.filters(i, i + 1)) for i in range(self.N))])

    def test_again_and_off(self):
        """The same filters again and again stay what they are; UNSUBSCRIBE of all in one packet."""
        c = self.connect("again", keepalive=0)
        n = self.N // 5
        pinger = Pinger(self.broker.addresses[0])
        for _ in range(3):
            c.send(subscribe(1, *self.filters(0, n)))
            self.assertEqual(len(c.expect_type(SUBACK, 20 * SLOW).codes), n)
        count = sys_value(self.broker, "subscriptions/count")
        self.assertLess(count, n + 20)
        c.send(unsubscribe(2, *(f for f, _ in self.filters(0, n))))
        c.expect(unsuback(2), timeout=20 * SLOW)
        self.assert_served(pinger.stop())
        wait_until(lambda: sys_value(self.broker, "subscriptions/count") < 20, "gone", 5)


class NeverReads(BrokerTest, Abuse):
    config = "sys_interval 1\nmax_queued_messages 100\noutput_buffer_limit 64k\nmax_inflight_messages 20"

    def lazy(self, n, qos, version=4):
        cs = []
        for i in range(n):
            c = self.client(version, rcvbuf=2048)
            cs.append(c.connect("lazy-%d-%d" % (qos, i), keepalive=0).subscribe(("nr/t", qos)))
        return cs

    def flood(self, qos):
        lazy = self.lazy(40, qos)
        good = self.connect("good-%d" % qos).subscribe(("nr/t", qos))
        base = self.base()
        pinger = Pinger(self.broker.addresses[0])
        p = self.connect("flooder-%d" % qos)
        n, got = 2000 if PLAIN else 800, 0  # above what the sockets hold
        for at in range(0, n, 10):
            p.send(*(publish("nr/t", b"%06d" % (at + i) + bytes(10000), qos, i + 1 if qos else None)
                     for i in range(10)))
            for m in good.take(10):
                self.assertEqual(int(m.payload[:6]), got)
                got += 1
            for _ in range(10 if qos else 0):
                p.expect_type(PUBACK)
        # 40 x (a buffer of 64 kB and one message more, or the queue: shared messages, counted once)
        self.assert_grew_less(base, 16 * MB)
        self.assert_served(pinger.stop())
        wait_until(lambda: sys_value(self.broker, "publish/messages/dropped") > 0, "dropped is counted", 5)
        for c in lazy:
            c.reset()
        self.assertTrue(good.is_alive())

    def test_qos0(self):
        self.flood(0)

    def test_qos1(self):
        self.flood(1)

    def test_retained_replay(self):
        """Retained messages for those that do not read are not all held for each."""
        p = self.connect("rr")
        n = scaled(400)
        for i in range(n):
            p.publish("nr/ret/%d" % i, bytes(10000), 0, retain=True)
        self.assertTrue(p.is_alive())
        base = self.base()
        cs = [self.client(rcvbuf=2048).connect("rr-%d" % i, keepalive=0) for i in range(50)]
        for c in cs:
            c.send(subscribe(1, ("nr/ret/#", 1)))
        time.sleep(0.5)
        self.assert_grew_less(base, 16 * MB)
        late = self.connect().subscribe(("nr/ret/#", 0))
        for _ in range(n):
            late.expect_type(PUBLISH)
        for c in cs:
            c.reset()
        for i in range(n):
            p.send(publish("nr/ret/%d" % i, b"", 0, retain=True))
        self.assertTrue(p.is_alive())


class Loops(BrokerTest, Abuse):
    """Clients that publish what they receive."""

    config = "sys_interval 1\noutput_buffer_limit 256k"
    SECONDS = 3.0

    def echo(self, c, swaps, copies, stop):
        """Sends back what comes, with the topic swapped; packets are of one size."""
        size, buf = len(publish("lo/1", "0123456789")), b""
        c.sock.settimeout(0.2)
        c.echoed = 0
        while not stop.is_set():
            try:
                buf += c.sock.recv(65536)
            except socket.timeout:
                continue
            except OSError:
                return
            whole = len(buf) // size * size
            out = buf[:whole]
            for a, b in swaps:
                out = out.replace(a, b)
            buf = buf[whole:]
            try:
                c.sock.settimeout(2.0)
                c.sock.sendall(out * copies)
                c.echoed += len(out) // size
                c.sock.settimeout(0.2)
            except OSError:
                return

    def run_loop(self, specs, copies, seeds):
        """specs: [(filter, swaps)] per client."""
        stop = threading.Event()
        cs, threads = [], []
        base = self.base()
        for i, (filters, swaps) in enumerate(specs):
            c = self.connect("loop-%d" % i, keepalive=0).subscribe(*((f, 0) for f in filters))
            cs.append(c)
            threads.append(threading.Thread(target=self.echo, args=(c, swaps, copies, stop)))
        pinger = Pinger(self.broker.addresses[0])
        for t in threads:
            t.start()
        self.connect("seed").send(publish("lo/1", "0123456789") * seeds)
        most = 0
        end = time.monotonic() + self.SECONDS
        while time.monotonic() < end:
            time.sleep(0.1)
            most = max(most, self.rss() - base)
        stop.set()
        times = pinger.stop()
        for c in cs:
            c.sock.shutdown(socket.SHUT_RDWR)
        for t in threads:
            t.join()
        self.assertLess(most, bound(48 * MB))
        if PLAIN:
            self.assertLess(times[len(times) // 2], 0.05)
            self.assertLess(times[-3], 0.5)
        return sum(c.echoed for c in cs)

    def test_two(self):
        """Each sends to the other what it gets."""
        n = self.run_loop([(["lo/1"], [(b"lo/1", b"lo/2")]), (["lo/2"], [(b"lo/2", b"lo/1")])], 1, 500)
        self.assertGreater(n, 2000)

    def test_own(self):
        """A client that hears itself."""
        self.assertGreater(self.run_loop([(["lo/1"], [])], 1, 500), 1000)

    def test_doubling(self):
        """Every message comes back twice, for as long as there is room: bounded by what is dropped."""
        self.assertGreater(self.run_loop([(["lo/1"], []), (["lo/1"], [])], 2, 100), 2000)


class Bombs(BrokerTest, Abuse):
    PROPS = 65536

    def test_publish(self):
        """64k user properties: passed on whole and in order, not multiplied in memory."""
        block = props(*((USER, ("k%d" % (i % 10), "v")) for i in range(self.PROPS)))
        s = self.connect("bomb-s", 5).subscribe(("bo/t", 1))
        old = self.connect("bomb-o", 4).subscribe(("bo/t", 1))
        p = self.connect("bomb-p", 5)
        base = self.base()
        for i in range(10):
            begin = time.monotonic()
            p.send(publish("bo/t", "x", 1, i + 1, version=5, props=block))
            m = s.settle(s.expect_publish("bo/t", "x"))
            if i == 0:
                self.assertEqual(m.props, parse_props(block, 0)[0])
            self.assertEqual(len(m.props), self.PROPS)
            old.settle(old.expect_publish("bo/t", "x"))
            self.assertEqual(p.expect_type(PUBACK).pid, i + 1)
            self.assertLess(time.monotonic() - begin, 2.0 * SLOW)
        self.assert_grew_less(base, 16 * MB)

    def test_retained_bombs(self):
        block = props(*((USER, ("", "")) for i in range(self.PROPS)))
        p = self.connect("rb", 5)
        base = self.base()
        for i in range(50):  # one topic: what is replaced is freed
            p.send(publish("bo/r", "x", 1, 1, retain=True, version=5, props=block))
            p.expect_type(PUBACK)
        self.assert_grew_less(base, 8 * MB)
        p.publish("bo/r", "", 1, retain=True)

    def test_connect(self):
        """Above max_connect_size refused by length, below it just a CONNECT."""
        base = self.base()
        block = props(*((USER, ("k", "v")) for i in range(self.PROPS)))
        for _ in range(10):
            c = self.client(5)
            c.try_send(connect("bo", 5, props=block))
            try:
                self.assertGreaterEqual(c.expect_type(CONNACK).body[1], 0x80)
                c.expect_closed()
            except Closed:
                pass
        block = props(*((USER, ("k", "v")) for i in range(30000)))
        for i in range(20):
            self.connect("ok-%d" % i, 5, props=block,
                         will=Will("w", b"x", props=props((USER, ("a", "b"))))).disconnect()
        self.assert_grew_less(base, 8 * MB)

    def test_others(self):
        """SUBSCRIBE, UNSUBSCRIBE, PUBACK, DISCONNECT."""
        base = self.base()
        block = props(*((USER, ("k", "v")) for i in range(self.PROPS)))
        c = self.connect("oth", 5)
        for _ in range(5):
            c.send(subscribe(1, ("bo/o", 1), version=5, props=block))
            self.assertEqual(c.expect_type(SUBACK).codes, [1])
            c.publish("bo/none", "x", 1)
            self.connect("oth-p", 5).publish("bo/o", "x", 1)
            m = c.expect_publish("bo/o")
            c.send(packet(0x40, u16(m.pid) + b"\0" + block))
            c.send(unsubscribe(2, "bo/o", version=5, props=block))
            self.assertEqual(c.expect_type(UNSUBACK).pid, 2)
        self.assertTrue(c.is_alive())
        c.send(packet(0xE0, b"\0" + block))
        c.expect_closed()
        self.assert_grew_less(base, 8 * MB)


class PacketIds(BrokerTest, Abuse):
    """All 65,535 of them in use."""

    config = "max_inflight_messages 65535\nmax_queued_messages 0\nmax_inflight_bytes 0"
    ALL = 65535

    def pub(self, topic, n, qos=1):
        p = self.connect("pub-" + topic.replace("/", "-"))
        for at in range(0, n, 1000):
            p.send(*(publish(topic, "%d" % i, qos, i % 1000 + 1) for i in range(at, min(n, at + 1000))))
            for _ in range(min(n, at + 1000) - at):
                p.expect_type(PUBACK)

    def exhaust(self, version):
        topic = "id/%d" % version
        fields = {"props": props((RECEIVE_MAXIMUM, 65535))} if version == 5 else {}
        c = self.connect("ids-%d" % version, version, keepalive=0, **fields).subscribe((topic, 1))
        base = self.base()
        self.pub(topic, self.ALL + 10)
        got = [c.expect_type(PUBLISH) for _ in range(self.ALL)]
        self.assertEqual({m.pid for m in got}, set(range(1, self.ALL + 1)))
        self.assertEqual([int(m.payload) for m in got], list(range(self.ALL)))
        c.expect_nothing()
        self.assertTrue(c.is_alive())
        for i, m in enumerate((got[40000], got[0], got[-1])):
            c.send(puback(m.pid))
            new = c.expect_publish(payload="%d" % (self.ALL + i))
            self.assertEqual(new.pid, m.pid)
            got[got.index(m)] = new
        self.assert_grew_less(base, 48 * MB)
        c.send(b"".join(puback(m.pid) for m in got))
        for i in range(7):
            c.settle(c.expect_publish(payload="%d" % (self.ALL + 3 + i)))
        c.publish("done", "x", 1)
        c.expect_nothing()

    def test_out_v3(self):
        self.exhaust(4)

    def test_out_v5(self):
        self.exhaust(5)

    def test_in(self):
        """QoS 2 messages that are never released: each id once, repeats are no new messages."""
        for version in (4, 5):
            topic = "in/%d" % version
            s = self.connect("in-s-%d" % version).subscribe((topic, 0))
            c = self.connect("in-%d" % version, version, keepalive=0)
            base = self.base()
            for again in (False, True):
                for at in range(1, self.ALL + 1, 5000):
                    ids = range(at, min(self.ALL + 1, at + 5000))
                    c.send(*(publish(topic, "x", 2, i, dup=again, version=version) for i in ids))
                    for i in ids:
                        self.assertEqual(c.expect_type(PUBREC).pid, i)
                    if not again:
                        for i in ids:
                            s.expect_publish(topic, "x")
            s.expect_nothing()
            self.assert_grew_less(base, 8 * MB)
            c.send(*(pubrel(i) for i in range(1, self.ALL + 1)))
            for i in range(1, self.ALL + 1):
                self.assertEqual(c.expect_type(PUBCOMP).pid, i)
            c.send(publish(topic, "new", 2, 77, version=version))
            s.expect_publish(topic, "new")


class MemoryLimit(BrokerTest, Abuse):
    """memory_limit: publishers are held back, then refused; what is over recovers."""

    config = "sys_interval 1\nmemory_limit 24M\nmax_queued_messages 0\nmax_queued_bytes 0"

    def fill(self, p, client_id, most=120 << 20):
        """Publishes for the absent until a v5 publisher is refused; how many bytes were taken."""
        taken = 0
        while taken < most:
            p.send(*(publish("ml/" + client_id, bytes(10000), 1, i + 1, version=5) for i in range(10)))
            for _ in range(10):
                got = p.expect_type(PUBACK, 10 * SLOW)
                if len(got.body) > 2 and got.body[2] == 0x97:
                    return taken
                taken += 10000
        return taken

    def absent(self, client_id):
        c = self.connect(client_id, 5, props=props((SESSION_EXPIRY, 1000)))
        c.subscribe(("ml/" + client_id, 1)).disconnect()

    @unittest.skipIf(not PLAIN, "a sanitizer's shadow is no part of the budget, its quarantine is")
    def test_held_back_and_refused(self):
        self.absent("a")
        base = self.base()
        p = self.connect("filler", 5)
        begin = time.monotonic()
        taken = self.fill(p, "a")
        # The limit is looked at every 50 ms: as much as comes meanwhile is above it.
        self.assertTrue(10 << 20 < taken < 60 << 20, taken)
        self.assertGreater(time.monotonic() - begin, 0.5)  # was left unread for a while first
        self.assert_grew_less(base, 72 * MB)
        wait_until(lambda: sys_value(self.broker, "noctule/publish/paused") > 0, "paused is counted")

        # QoS 0 is dropped and counted, and small things go on: pings, subscriptions, acknowledgements.
        s = self.connect("ml-s", 5).subscribe(("ml/zero", 0))
        dropped = sys_value(self.broker, "noctule/dropped/memory")
        for _ in range(20):
            p.send(publish("ml/zero", "x", 0, version=5))
        p.send(pingreq())
        while p.recv(25 * SLOW).type != PINGRESP:
            pass
        s.expect_nothing()
        self.assertTrue(s.is_alive())
        time.sleep(1.2)
        self.assertGreaterEqual(sys_value(self.broker, "noctule/dropped/memory"), dropped + 20)

        # A 3.1.1 publisher has no way to be told: not answered, closed in the end.
        old = self.connect("ml-old")
        old.send(publish("ml/a", bytes(10000), 1, 1))
        old.expect_closed(10 * SLOW)

        # The session goes, and with it the pressure.
        self.connect("a", 5, clean=True).disconnect()
        time.sleep(0.3)
        s.subscribe(("ml/again", 1))
        p.send(publish("ml/again", "y", 1, 99, version=5))
        got = p.expect_type(PUBACK, 5 * SLOW)
        self.assertEqual((got.pid, len(got.body)), (99, 2))
        s.settle(s.expect_publish("ml/again", "y"))

    @unittest.skipIf(not PLAIN, "as above")
    def test_reader_relieves(self):
        """The session's own client comes back and reads: no message that was acknowledged is lost."""
        self.absent("b")
        p = self.connect("filler-b", 5)
        n = self.fill(p, "b") // 10000
        c = self.connect("b", 5, clean=False, present=True)
        self.assertGreaterEqual(len(c.take(n)), n)
        wait_until(lambda: self.accepted(p), "publishes are taken again", 5)

    @unittest.skipIf(not PLAIN, "as above")
    def test_who_does_not_read_is_closed(self):
        """Full buffers of many connections: those that take nothing go, one at a time; a reader stays."""
        lazy = [self.client(rcvbuf=2048).connect("ml-lazy-%d" % i, keepalive=0) for i in range(50)]
        for i, c in enumerate(lazy):
            c.subscribe(("ml/z/%d" % i, 1))
        good = self.connect("ml-good").subscribe(("ml/z/0", 0), ("ml/after", 1))
        p = self.connect("ml-flood", 5)
        slow = sys_value(self.broker, "noctule/clients/slow")
        deadline = time.monotonic() + 60 * SLOW
        while sys_value(self.broker, "noctule/clients/slow") == slow:
            self.assertLess(time.monotonic(), deadline, "nobody was closed")
            # A message of its own for each: of one for all there would be one copy.
            for _ in range(20):
                p.send(*(publish("ml/z/%d" % i, bytes(10000), 1, i + 1, version=5) for i in range(50)))
                for _ in range(50):  # refused from some point on
                    p.expect_type(PUBACK, 10 * SLOW)
            while select.select([good.sock], [], [], 0.05)[0]:
                good.expect_publish("ml/z/0")
        wait_until(lambda: self.accepted(p), "publishes are taken again", 40)
        p.send(publish("ml/after", "z", 1, 9, version=5))
        got = good.expect_type(PUBLISH)
        while got.topic == "ml/z/0":
            got = good.expect_type(PUBLISH)
        self.assertEqual(got.topic, "ml/after")
        for c in lazy:
            c.reset()

    def accepted(self, p):
        p.send(publish("ml/x", "y", 1, 5, version=5))
        got = p.recv(5 * SLOW)
        return got.type == PUBACK and got.body[2:3] != b"\x97"


class Garbage(BrokerTest, Abuse):
    """Random bytes, and valid packets with something wrong: no crash, no connection that stays."""

    config = "sys_interval 1\nmax_queued_messages 100\nmax_retained_messages 1000\npersistent_client_expiration 1h"
    SEED = 20260501
    AT_ONCE = 50

    def finish(self, batch):
        """All of a batch end when their sending side is shut, or before."""
        for c in batch:
            try:
                c.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        deadline = time.monotonic() + 10 * SLOW
        for c in batch:
            while True:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([c.sock], [], [], left)[0]:
                    self.fail("a connection stayed")
                try:
                    if not c.sock.recv(1 << 16):
                        break
                except OSError:
                    break
            c.close()
        self.clients = [c for c in self.clients if c not in batch]

    def run_all(self, inputs):
        """inputs: byte strings, each for a connection of its own."""
        base, fds = self.base(), self.broker.fds()
        batch = []
        for data in inputs:
            c = self.client()
            c.sock.settimeout(2.0 * SLOW)
            c.try_send(data)
            batch.append(c)
            if len(batch) == self.AT_ONCE:
                self.finish(batch)
                batch = []
                self.assertTrue(self.broker.is_running(), self.broker.log()[-3000:])
        self.finish(batch)
        wait_until(lambda: self.broker.fds() <= fds, "descriptors are free")
        self.assert_grew_less(base, 64 * MB)
        self.assertTrue(self.connect().is_alive())

    def corpus(self, version):
        """A session's worth of valid packets behind CONNECT."""
        v = {"version": version}
        some = props((USER, ("k", "v")), (0x02, 5)) if version == 5 else b"\0"
        subs = props((0x0B, 7)) if version == 5 else b"\0"
        return [
            publish("g/a", "payload", 0, **v), publish("g/a", "payload", 1, 1, **v),
            publish("g/b", "payload", 2, 2, **v), publish("g/r", "kept", 1, 3, retain=True, **v),
            publish("g/p", b"\0\1", 1, 4, version=version, props=some), pubrel(2), puback(1), pubrec(9), pubcomp(9),
            subscribe(5, ("g/#", 2), ("$share/s/g/+", 1), version=version, props=subs),
            unsubscribe(6, "g/#", "x/+", **v), pingreq(), subscribe(7, ("$SYS/#", 0), **v),
        ] + ([packet(0xE0, b"\4" + props((SESSION_EXPIRY, 1))), packet(0xF0, b"\x18" + props((0x15, "m")))]
             if version == 5 else [disconnect()])

    def head(self, rng, version):
        fields = {"clean": rng.random() < 0.7}
        if rng.random() < 0.5:
            fields["will"] = Will("g/will", b"w", rng.randrange(3), rng.random() < 0.5)
        if rng.random() < 0.3:
            fields["username"], fields["password"] = "u", b"p"
        return connect("g-%d" % rng.randrange(20), version, keepalive=rng.choice((0, 1, 60)), **fields)

    def test_noise(self):
        rng = random.Random(self.SEED)
        self.run_all(rng.randbytes(rng.randrange(1, 400)) for _ in range(scaled(1000)))

    def test_noise_behind_connect(self):
        rng = random.Random(self.SEED + 1)
        self.run_all(self.head(rng, rng.choice((3, 4, 5))) + rng.randbytes(rng.randrange(1, 400))
                     for _ in range(scaled(1500)))

    def test_mutated_connect(self):
        rng = random.Random(self.SEED + 2)
        self.run_all(mutate(rng, self.head(rng, rng.choice((3, 4, 5)))) + pingreq()
                     for _ in range(scaled(1500)))

    def test_mutated_packets(self):
        """A valid start, then packets of which some are wrong."""
        rng = random.Random(self.SEED + 3)

        def one():
            version = rng.choice((3, 4, 5, 5))
            parts = rng.sample(self.corpus(version), rng.randrange(1, 10))
            at = rng.randrange(len(parts))
            parts[at] = mutate(rng, parts[at])
            return self.head(rng, version) + b"".join(parts)

        self.run_all(one() for _ in range(scaled(3000)))

    def test_versions_mixed(self):
        """Valid packets of the wrong version."""
        rng = random.Random(self.SEED + 4)

        def one():
            version = rng.choice((3, 4, 5))
            return self.head(rng, version) + b"".join(rng.sample(self.corpus(rng.choice((4, 5))), 5))

        self.run_all(one() for _ in range(scaled(1000)))


if __name__ == "__main__":
    main()
