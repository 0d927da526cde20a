# SPDX-License-Identifier: Apache-2.0
"""The $SYS topics: complete, plausible after known traffic, as often as sys_interval says, out of '#''s reach."""

import os
import re
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from durable import DurableBroker  # noqa: E402
from wire import *  # noqa: E402,F403

AVERAGES = ["load/%s/%s" % (what, window) for window in ("1min", "5min", "15min") for what in (
    "messages/received", "messages/sent", "publish/dropped", "publish/received", "publish/sent",
    "bytes/received", "bytes/sent", "sockets", "connections")]
COMMON = AVERAGES + [
    "version", "uptime", "clients/total", "clients/connected", "clients/disconnected", "clients/active",
    "clients/inactive", "clients/maximum", "clients/expired", "messages/received", "messages/sent",
    "messages/stored", "store/messages/count", "store/messages/bytes", "subscriptions/count",
    "shared_subscriptions/count", "retained messages/count", "publish/messages/received",
    "publish/messages/sent", "publish/messages/dropped", "publish/bytes/received", "publish/bytes/sent",
    "bytes/received", "bytes/sent", "heap/current", "heap/maximum"]
OWN = ["store/durability"] + ["noctule/" + name for name in (
    "dropped/queue_full", "dropped/output_full", "dropped/memory", "dropped/too_large", "dropped/no_member", "dropped/expired",
    "sockets/refused", "sockets/failed", "connect/timeout", "connect/refused", "clients/taken_over",
    "clients/keepalive", "clients/protocol_error", "clients/slow", "publish/paused", "wills/sent",
    "queued/messages", "queued/bytes", "store/units")]
STORE = ["noctule/store/" + name for name in (
    "commits", "records", "messages", "annihilated", "pending", "oldest", "commit/p50_us", "commit/p99_us",
    "journal/written", "journal/bytes", "lost", "journal/records", "folds", "fold/last_us",
    "health")]
RATIOS = ["noctule/store/commit/records", "noctule/store/commit/messages"]
HISTOGRAM = ["noctule/store/commit/below_us/%s" % n for n in [1 << i for i in range(6, 24)] + ["all"]]
PREFIX = "$SYS/broker/"


def values(c, quiet=0.3):
    """What a fresh client reads: {name: text}. quiet is less than the interval, or there is no end."""
    c.subscribe(("$SYS/#", 0))
    found = {}
    while True:
        try:
            m = c.expect_type(PUBLISH, quiet)
        except Silence:
            return found
        # The retained one: a round meanwhile would count this very subscription.
        found.setdefault(m.topic[len(PREFIX):], m.payload.decode())


class Tree(BrokerTest):
    config = "sys_interval 1"

    def test_names(self):
        """As a user reads them."""
        time.sleep(1.0 * SLOW)
        done = subprocess.run(["mosquitto_sub", "-h", "127.0.0.1", "-p", str(self.broker.port), "-t", "$SYS/#", "-v", "-W",
                               str(int(2 * SLOW))], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        found = {}
        for line in done.stdout.decode().splitlines():
            name = re.match(r"\$SYS/broker/(retained messages/count|\S+) (.+)", line)
            self.assertTrue(name, line)
            found[name.group(1)] = name.group(2)
        self.assertEqual(sorted(set(COMMON) - set(found)), [])
        if IS_MOSQUITTO:
            return
        self.assertEqual(sorted(found), sorted(COMMON + OWN))
        self.assertRegex(found["version"], r"^noctule version \d+\.\d+")
        self.assertRegex(found["uptime"], r"^\d+ seconds$")
        self.assertIn(found["store/durability"], ("memory", "disk"))
        for name, text in found.items():
            if name in AVERAGES:
                self.assertRegex(text, r"^\d+\.\d\d$", name)
            elif name not in ("version", "uptime", "store/durability"):
                self.assertRegex(text, r"^\d+$", name)  # no gauge below zero

    @ours("our manual")
    def test_manual(self):
        """Each topic stands in noctule(8)."""
        with open(os.path.join(ROOT, "packaging", "man", "noctule.8")) as f:
            page = f.read()
        for name in COMMON + OWN + STORE:
            self.assertIn("\n.B %s\n" % re.sub(r"/\d+min$", "", name), page)

    def test_not_by_wildcard(self):
        c = self.connect().subscribe(("#", 0), ("+/broker/uptime", 0), ("+/+/+", 0))
        c.expect_nothing(1.5)
        c.unsubscribe("#")
        c.subscribe(("$SYS/broker/uptime", 0))
        m = c.expect_publish("$SYS/broker/uptime")
        self.assertTrue(m.retain)
        self.assertFalse(c.expect_publish("$SYS/broker/uptime").retain)

    def test_only_what_changed(self):
        c = self.connect()
        values(c, 0.2)
        seen = [c.expect_type(PUBLISH, 3 * SLOW).topic for _ in range(30)]
        self.assertIn(PREFIX + "uptime", seen)
        for name in ("version", "store/durability", "clients/expired", "noctule/wills/sent"):
            self.assertNotIn(PREFIX + name, seen)


class Values(BrokerTest):
    config = "sys_interval 1\nmax_queued_messages 5\nmax_inflight_messages 5"

    def test_traffic(self):
        """Known traffic shows in every counter, exactly where that is possible."""
        watch = self.connect("watch")
        before = self.settled(watch)
        ends = []
        for i in range(4):
            ends.append(self.connect("reader-%d" % i).subscribe(("tr/#", 1)))
        ends.append(self.connect("shared-1").subscribe(("$share/g/other", 1)))
        self.connect("keeper", clean=False).subscribe(("kept/#", 1)).disconnect()
        p = self.connect("writer")
        for i in range(10):
            p.publish("tr/a", bytes(100), 1)
        for i in range(30):
            p.publish("kept/a", bytes(50), 1)
        p.publish("kept/r", b"x", 1, retain=True)
        for c in ends[:4]:
            c.take(10)
        after = self.settled(watch)

        def more(name):
            return int(after[name]) - int(before[name])

        self.assertEqual(more("clients/connected"), 6)
        self.assertEqual(more("clients/active"), 6)
        self.assertEqual(more("clients/disconnected"), 1)
        self.assertEqual(more("clients/inactive"), 1)
        self.assertEqual(more("clients/total"), 7)
        self.assertGreaterEqual(int(after["clients/maximum"]), 7)
        self.assertEqual(more("retained messages/count"), 1)
        self.assertEqual(more("publish/messages/received"), 41)
        self.assertEqual(more("publish/bytes/received"), 10 * 100 + 30 * 50 + 1)
        self.assertGreaterEqual(more("publish/messages/sent"), 40)
        self.assertGreaterEqual(more("messages/received"), 41 + 7 + 6 + 40)
        self.assertGreaterEqual(more("messages/sent"), 40 + 41 + 7 + 6)
        self.assertGreater(more("bytes/received"), 10 * 110 + 30 * 60)
        self.assertGreater(more("bytes/sent"), 40 * 110)
        self.assertGreaterEqual(more("publish/messages/dropped"), 16)
        self.assertGreater(float(after["load/connections/1min"]), 5.0)
        self.assertGreater(float(after["load/publish/received/1min"]), 30.0)
        self.assertGreater(float(after["load/publish/received/1min"]),
                           float(after["load/publish/received/5min"]))
        self.assertGreater(float(after["load/publish/received/5min"]),
                           float(after["load/publish/received/15min"]))
        if IS_MOSQUITTO:
            return
        self.assertEqual(more("shared_subscriptions/count"), 1)
        self.assertEqual(more("subscriptions/count"), 6)
        self.assertEqual(more("noctule/dropped/queue_full"), more("publish/messages/dropped"))
        kept = 31 - more("noctule/dropped/queue_full")
        self.assertEqual(more("noctule/queued/messages"), kept)
        self.assertEqual(more("store/messages/count"), kept + 1)
        self.assertEqual(after["messages/stored"], after["store/messages/count"])
        for c in ends:
            c.disconnect()
        self.connect("keeper", clean=True).disconnect()
        said = "client keeper: its session has ended, %d messages were dropped" % more("noctule/dropped/queue_full")
        wait_until(lambda: said in self.broker.log(), said)
        self.assertEqual(self.broker.log().count("client keeper: messages are being dropped"), 1)
        p.publish("kept/r", b"", 1, retain=True)
        p.disconnect()
        end = self.settled(watch)
        for name in ("clients/total", "subscriptions/count", "shared_subscriptions/count",
                     "retained messages/count", "noctule/queued/messages", "noctule/queued/bytes"):
            self.assertEqual(end[name], before[name], name)

    def settled(self, c):
        """After a whole interval without traffic; the watcher is the same client each time."""
        time.sleep(2.2)
        found = values(c)
        c.send(unsubscribe(9, "$SYS/#"))
        while c.recv().type != UNSUBACK:
            pass
        # The watcher's own subscription and packets are in the later one only.
        return dict(found)


class Off(BrokerTest):
    config = "sys_interval 0"

    def test_off(self):
        c = self.connect().subscribe(("$SYS/#", 0))
        c.expect_nothing(1.5)


@ours("max_retained_messages")
class Limit(unittest.TestCase):
    def test_the_limit_is_exact(self):
        """With and without $SYS topics; a reload changes it, a restart keeps what is there."""
        for interval in (0, 1):
            with Broker("sys_interval %d\nmax_retained_messages 10\npersistence true\npersistence_location {dir}/db" % interval,
                        start=False) as b:
                os.mkdir(os.path.join(b.dir, "db"))
                b.start()

                def kept(n):
                    c = b.connect("x")
                    for i in range(n):
                        c.publish("own/%d" % i, "x", 1, retain=True)
                    c.close()
                    s = b.connect("y").subscribe(("own/#", 0))
                    s.send(pingreq())
                    got = []
                    while not got or got[-1].type == PUBLISH:
                        got.append(s.recv())
                    s.expect_nothing()
                    s.close()
                    return len(got) - 1

                self.assertEqual(kept(25), 10)
                self.limit(b, 10, 12)
                wait_until(lambda: kept(25) == 12, "the new limit")
                self.limit(b, 12, 5)
                b.restart()
                self.assertEqual(kept(5), 12)

    def limit(self, b, old, new):
        with open(b.conf_path) as f:
            text = f.read()
        with open(b.conf_path, "w") as f:
            f.write(text.replace("max_retained_messages %d\n" % old, "max_retained_messages %d\n" % new))
        b.signal(1)


@ours("a packet that takes several turns")
class Retries(unittest.TestCase):
    """A packet that waits, or is handled in pieces, was received once."""

    def check(self, b, name, wanted):
        """The last word of the topic, once it does not change any more."""
        c = b.connect("watch").subscribe(("$SYS/broker/" + name, 0))
        value = None
        try:
            while True:
                value = int(c.expect_publish("$SYS/broker/" + name, timeout=2.5 * SLOW).payload)
        except Silence:
            self.assertEqual(value, wanted)
        c.close()

    def test_large_subscribe(self):
        with Broker("sys_interval 1") as b:
            c = b.connect("x")
            filters = ["f/%d" % i for i in range(60000)]
            c.send(subscribe(1, *((f, 0) for f in filters)))
            self.assertEqual(len(c.expect_type(SUBACK).body), 2 + 60000)
            c.send(unsubscribe(2, *filters))
            c.expect_type(UNSUBACK)
            self.check(b, "messages/received", 3 + 2)  # these, and two of who asks
            c.close()

    def test_publisher_that_is_paused(self):
        """memory_limit is below what the broker takes: each publisher waits before it is refused."""
        with Broker("sys_interval 1\nmemory_limit 1") as b:
            sent, refused = 0, 0
            c = b.connect("x", version=5)
            while refused < 2:
                sent += 1
                c.send(publish("p", "12345", 1, sent, version=5))
                refused += c.expect_type(PUBACK).body[2:3] == b"\x97"
            self.check(b, "messages/received", 1 + sent + 2)
            self.check(b, "publish/messages/received", sent)
            self.check(b, "publish/bytes/received", sent * 5)
            c.close()


class Soon(unittest.TestCase):
    @ours("mosquitto publishes at its first tick")
    def test_within_a_second(self):
        with Broker("sys_interval 600") as b:
            c = b.connect("x")
            begin = time.monotonic()
            c.subscribe(("$SYS/broker/version", 0))
            c.expect_publish("$SYS/broker/version")
            self.assertLess(time.monotonic() - begin, 1.0 * SLOW)
            c.close()

    @ours("max_retained_messages")
    def test_beside_the_limit(self):
        """They take nothing of the clients' share of retained messages."""
        with Broker("sys_interval 1\nmax_retained_messages 10") as b:
            c = b.connect("x")
            time.sleep(0.5)
            for i in range(10):
                c.publish("own/%d" % i, "x", 1, retain=True)
            s = b.connect("y").subscribe(("own/#", 0))
            for i in range(10):
                s.expect_publish(payload="x")
            names = set(values(b.connect("z")))
            self.assertEqual(names, set(COMMON + OWN))
            c.close()
            s.close()

    @ours("sys_interval is read again")
    def test_reload(self):
        with Broker("sys_interval 0") as b:
            c = b.connect("x").subscribe(("$SYS/broker/uptime", 0))
            c.expect_nothing(0.5)
            with open(b.conf_path) as f:
                text = f.read()
            with open(b.conf_path, "w") as f:
                f.write(text.replace("sys_interval 0", "sys_interval 1"))
            b.signal(1)
            c.expect_publish("$SYS/broker/uptime")
            c.expect_publish("$SYS/broker/uptime")
            c.close()

    @ours("a figure for ours")
    @unittest.skipIf(SLOW > 1, "a figure without sanitizers")
    def test_idle_is_idle(self):
        with Broker("sys_interval 1") as b:
            time.sleep(1)
            before = b.cpu_s()
            time.sleep(4)
            self.assertLess(b.cpu_s() - before, 0.08)  # 2 % of a core, ten times as often as usual

    @ours("its own topics")
    def test_store(self):
        """With persistence there is more to tell; what was acknowledged has been counted."""
        with DurableBroker("sys_interval 1") as b:
            watch = b.connect("watch")
            time.sleep(1.0 * SLOW)
            before = values(watch)
            self.assertEqual(sorted(before), sorted(COMMON + OWN + STORE + RATIOS + HISTOGRAM))
            for name in STORE[:-1] + HISTOGRAM:
                self.assertRegex(before[name], r"^\d+$", name)
            watch.close()
            b.connect("s", 4, clean=False).subscribe(("t", 1)).disconnect()
            p = b.connect("p")
            for i in range(20):
                p.publish("t", b"x" * 200, 1)
            time.sleep(2.0 * SLOW)
            after = values(b.connect("z"))

            def more(name):
                return int(after["noctule/store/" + name]) - int(before["noctule/store/" + name])

            self.assertEqual(more("messages"), 20)
            self.assertIn(more("commits"), range(22, 25))  # session, subscription, each message; lazily the end
            self.assertIn(more("records"), range(42, 46))  # a message is two: body and entry
            self.assertEqual(more("annihilated"), 0)
            self.assertGreater(more("journal/written"), 20 * 200)
            self.assertEqual(more("journal/bytes"), more("journal/written"))
            self.assertEqual(more("journal/records"), more("records"))
            self.assertEqual(after["noctule/store/pending"], "0")
            self.assertEqual(after["noctule/store/folds"], "0")
            self.assertEqual(after["noctule/store/health"], "ok")
            p50, p99 = (int(after["noctule/store/commit/%s_us" % p]) for p in ("p50", "p99"))
            self.assertTrue(0 < p50 <= p99 < 10e6, (p50, p99))
            counts = [int(after[name]) for name in HISTOGRAM]
            self.assertEqual(counts, sorted(counts))
            self.assertEqual(counts[-1], int(after["noctule/store/commits"]))
            self.assertIn(int(after["noctule/store/oldest"]), range(1, 60))
            for name in RATIOS:
                self.assertRegex(after[name], r"^\d+\.\d\d$")
            self.assertGreaterEqual(float(after["noctule/store/commit/records"]), 1)


if __name__ == "__main__":
    main()
