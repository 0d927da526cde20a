# SPDX-License-Identifier: Apache-2.0
"""Retained messages whose bodies are on disk only: what replays give, what they cost, what is left of them."""

import os
import random
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from durable import DurableBroker  # noqa: E402
from wire import *  # noqa: E402,F403

SCALE = float(os.environ.get("NOCTULE_LOAD_SCALE", "1"))
STORE_TOOL = os.path.join(os.path.dirname(BIN), "noctule-store")


def body(topic, version, size):
    """Says of itself what it is, all over."""
    unit = ("%s=%d;" % (topic, version)).encode()
    return (unit * (size // len(unit) + 1))[:max(size, len(unit))]


def pour(c, messages, window=64):
    """Publishes at QoS 1, retained; waits for all acknowledgements."""
    unanswered = 0
    for topic, payload in messages:
        c.send(publish(topic, payload, 1, c.pid(), True, version=c.version))
        unanswered += 1
        if unanswered >= window:
            c.expect_type(PUBACK, 30 * SLOW)
            unanswered -= 1
    for _ in range(unanswered):
        c.expect_type(PUBACK, 30 * SLOW)


def replay(c, n, *filters):
    c.subscribe(*filters)
    return [c.expect_type(PUBLISH, 30 * SLOW) for _ in range(n)]


@unittest.skipIf(IS_MOSQUITTO, "noctule only")
class RetainedOnDisk(unittest.TestCase):

    def sizes(self, n=300):
        rng = random.Random(7)
        return {"d/%d/%d" % (i % 7, i): rng.choice((1, 50, 1000, 1024, 1025, 2000, 5000, 70000)) for i in range(n)}

    def check(self, got, want):
        """Each topic once, with its whole body."""
        self.assertEqual(sorted(m.topic for m in got), sorted(want))
        for m in got:
            self.assertEqual(m.payload, want[m.topic])
            self.assertTrue(m.retain)

    def test_replay(self):
        """Small and large ones side by side, to several clients at once, before and behind restarts."""
        want = {t: body(t, 1, n) for t, n in self.sizes().items()}
        with DurableBroker() as b:
            pour(b.connect(), want.items())
            for how in ("stop", "kill", None):
                clients = [b.connect(version=v) for v in (4, 5, 4)]
                for c in clients:
                    c.send(subscribe(1, ("d/#", 1), version=c.version))
                orders = []
                for c in clients:
                    c.expect_type(SUBACK)
                    got = c.take(len(want), 30 * SLOW)
                    c.expect_nothing()
                    self.check(got, want)
                    orders.append([m.topic for m in got])
                self.assertEqual(orders[0], orders[1])
                self.assertEqual(orders[0], orders[2])
                for c in clients:
                    c.close()
                if how:
                    b.again(how)

    def test_all_on_disk(self):
        want = {t: body(t, 1, n) for t, n in self.sizes(100).items()}
        with DurableBroker("retained_memory_size 0") as b:
            pour(b.connect(), want.items())
            b.again("kill")
            c = b.connect()
            self.check(replay(c, len(want), ("d/#", 0)), want)
            self.check(replay(c, 1, ("d/3/3", 0)), {"d/3/3": want["d/3/3"]})
            b.connect().publish("d/3/3", b"", 1, True)
            c.expect_publish("d/3/3", b"")
            c.subscribe(("d/3/3", 0)).expect_nothing()

    def test_properties(self):
        """They leave memory with the payload, and come back with it."""
        user = props((0x26, ("key", "v" * 3000)), (0x03, "text/plain"))
        with DurableBroker() as b:
            p = b.connect(version=5)
            p.send(publish("p", b"x", 1, 1, True, version=5, props=user))
            p.expect_type(PUBACK)
            b.again("stop")
            got = replay(b.connect(version=5), 1, ("p", 1))[0]
            self.assertEqual(got.payload, b"x")
            self.assertIn((0x03, "text/plain"), [(i, v.decode() if isinstance(v, bytes) else v)
                                                 for i, v in got.props])
            self.assertIn(0x26, [i for i, _ in got.props])

    def test_replaced_meanwhile(self):
        """A reader so slow that what it waits for is replaced and cleared: nothing missed, nothing old after new."""
        topics = ["r/%d" % i for i in range(120)]
        with DurableBroker() as b:
            p = b.connect()
            pour(p, [(t, body(t, 1, 30000)) for t in topics])
            slow = b.client(rcvbuf=4096).connect()
            slow.send(subscribe(1, ("r/#", 1)))
            slow.expect_type(SUBACK)
            for round_ in range(2, 5):
                pour(p, [(t, body(t, round_, 30000)) for t in topics])
            pour(p, [(t, b"") for t in topics[::3]])
            p.publish("r/end", b"end", 1)
            last, cleared, retained = {}, set(), {}
            while True:
                m = slow.settle(slow.expect_type(PUBLISH, 30 * SLOW))
                if m.topic == "r/end":
                    break
                if not m.payload:
                    cleared.add(m.topic)
                    continue
                self.assertNotIn(m.topic, cleared, "a body after its removal")
                version = int(m.payload.split(b"=")[1].split(b";")[0])
                self.assertEqual(m.payload, body(m.topic, version, 30000))
                self.assertGreater(version, last.get(m.topic, 0), m.topic)
                last[m.topic] = version
                retained[m.topic] = retained.get(m.topic, 0) + m.retain
            self.assertEqual(cleared, set(topics[::3]))
            self.assertTrue(all(last[t] == 4 for t in topics), last)
            self.assertTrue(all(n <= 1 for n in retained.values()), retained)

    def test_left_meanwhile(self):
        """UNSUBSCRIBE, a lost connection, the end of a session while bodies are being read."""
        topics = ["l/%d" % i for i in range(200)]
        with DurableBroker() as b:
            pour(b.connect(), [(t, body(t, 1, 20000)) for t in topics])
            for i in range(30):
                c = b.client(rcvbuf=4096).connect("left-%d" % i, clean=i % 3 > 0)
                c.send(subscribe(1, ("l/#", i % 3)))
                if i % 2:
                    c.send(unsubscribe(2, "l/#"))
                time.sleep(0.002 * (i % 5))
                c.reset()
            c = b.connect()
            got = replay(c, len(topics), ("l/#", 0))
            self.check(got, {t: body(t, 1, 20000) for t in topics})

    def dump(self, b):
        return subprocess.run([STORE_TOOL, "dump", b.store], check=True, capture_output=True, text=True).stdout

    def test_expired_ones_leave_the_store(self):
        expiry = props((0x02, 1))
        with DurableBroker() as b:
            p = b.connect(version=5)
            for i in range(20):
                p.send(publish("e/%d" % i, body("e", 1, 10 if i % 2 else 5000), 1, p.pid(), True, version=5,
                               props=expiry))
                p.expect_type(PUBACK)
            p.publish("stays", b"x" * 5000, 1, True)
            time.sleep(1.2)
            wait_until(lambda: [m.payload for m in replay(b.connect(), 1, (
                "$SYS/broker/retained messages/count", 0))], "count")
            time.sleep(2.5 * SLOW)  # the housekeeper's rounds
            b.stop()
            text = self.dump(b)
            self.assertIn("stays", text)
            self.assertNotIn("e/1", text)
            b.start()
            c = b.connect()
            self.check(replay(c, 1, ("#", 0)), {"stays": b"x" * 5000})
            c.expect_nothing()

    def heap_kb(self, b):
        c = b.connect()
        got = replay(c, 1, ("$SYS/broker/heap/current", 0))[0]
        c.close()
        return int(got.payload) >> 10

    @unittest.skipIf(SLOW > 1, "sanitizers take memory of their own")
    def test_memory(self):
        """10,000 of 64 KB cost less than 20 MB, as they come and after a restart."""
        n = max(300, int(10000 * SCALE))
        allowed_kb = 20 << 10
        with DurableBroker("sys_interval 1") as b:
            before = b.status_kb("RssAnon")
            time.sleep(1.1)
            heap = self.heap_kb(b)
            p = b.connect()
            pour(p, (("m/%d" % i, body("m/%d" % i, 1, 65536)) for i in range(n)), window=16)
            p.close()
            # what is not folded yet is in memory as well, for 30 s; after that malloc may keep pages for itself
            wait_until(lambda: self.heap_kb(b) - heap < allowed_kb, "%d KB more" % (self.heap_kb(b) - heap), 45)
            here = self.heap_kb(b) - heap
            b.again("stop")
            after = b.status_kb("RssAnon") - before
            print("%d retained messages of 64 KB: %d KB, %d KB after a restart" % (n, here, after))
            self.assertLess(after, allowed_kb)
            c = b.connect()
            for i in range(0, n, max(1, n // 50)):
                got = replay(c, 1, ("m/%d" % i, 0))[0]
                self.assertEqual(got.payload, body("m/%d" % i, 1, 65536))


if __name__ == "__main__":
    main()
