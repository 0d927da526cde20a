# SPDX-License-Identifier: Apache-2.0
"""Queues of sessions: what they cost in memory, what is dropped, what a publisher is told of it, and in which order they come."""

import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from durable import DurableBroker  # noqa: E402
from wire import *  # noqa: E402,F403

MB = 1024  # of status_kb()
PLAIN = SLOW == 1
EXPIRY, SESSION_EXPIRY = 0x02, 0x11


def sys_value(broker, name):
    with broker.client() as c:
        c.connect("").subscribe(("$SYS/broker/" + name, 0))
        return int(c.expect_publish().payload)


class CutOff(unittest.TestCase):
    """Sessions that lose their connection in the middle of a burst leave nothing in memory: it is on disk."""

    @unittest.skipIf(not PLAIN, "a sanitizer keeps what was freed")
    def test_thousand(self):
        n, each, size = 1000, 40, 2000
        with DurableBroker("sys_interval 1\nmax_queued_bytes 0\nmax_inflight_messages 20", sync_us=5000) as b:
            cs = []
            for i in range(n):
                c = b.client()
                cs.append(c.connect("cut-%d" % i, clean=False))
                c.send(subscribe(1, ("cut/#", 1)))
            for c in cs:
                c.expect_type(SUBACK)
            base = sys_value(b, "heap/current")
            p = b.connect("burst")
            p.send(*(publish("cut/%d" % k, bytes(size), 1, k + 1) for k in range(each)))
            for c in cs:  # a network that breaks, while most has not been reported by the store
                c.reset()
            for k in range(each):
                p.expect_type(PUBACK, 30)
            wait_until(lambda: sys_value(b, "noctule/queued/messages") == n * each, "all are queued", 30)
            # In memory each of the 40,000 would be a structure of a hundred bytes at least.
            wait_until(lambda: sys_value(b, "heap/current") - base < 2 << 20, "they have left memory", 30)
            c = b.connect("cut-7", clean=False, present=True)
            self.assertEqual([m.topic for m in c.take(each)], ["cut/%d" % k for k in range(each)])

    def test_each_comes_back(self):
        """Nothing is lost or out of order by leaving memory."""
        with DurableBroker("max_inflight_messages 5", sync_us=10000) as b:
            b.connect("one", clean=False).subscribe(("one/#", 1)).disconnect()
            p = b.connect("p")
            for round_ in range(6):
                c = b.connect("one", clean=False, present=True)
                p.send(*(publish("one/t", "%d" % k, 1, k + 1) for k in range(60)))
                c.reset()
                for k in range(60):
                    p.expect_type(PUBACK, 20 * SLOW)
                c = b.connect("one", clean=False, present=True)
                seen = []
                while len(seen) < 60:
                    for m in c.take(1, 20 * SLOW):
                        if int(m.payload) not in seen:
                            seen.append(int(m.payload))
                self.assertEqual(seen, list(range(60)), round_)
                c.disconnect()


class NotReading(BrokerTest):
    """output_buffer_limit is what waits for a connection at any QoS; more of QoS 0 is dropped and counted."""

    config = "sys_interval 1\noutput_buffer_limit 64k\nmax_queued_messages 0"

    @unittest.skipIf(not PLAIN, "a sanitizer keeps what was freed")
    def test_qos0(self):
        stuck = [self.client(rcvbuf=4096).connect("stuck-%d" % i, keepalive=0) for i in range(2)]
        for i, c in enumerate(stuck):
            c.subscribe(("nr/%d" % i, 0))
        good = self.connect("good").subscribe(("nr/+", 0), ("end", 1))
        p = self.connect("p")
        base = self.broker.status_kb("RssAnon")
        for at in range(60):
            p.send(*(publish("nr/%d" % i, bytes(50000)) for i in range(2) for _ in range(20)))
            good.take(40, 20)
        # 60 MB to each of them; the kernel takes some, the broker keeps no more than twice 64 kB and a message.
        self.assertLess(self.broker.status_kb("RssAnon") - base, 8 * MB)
        wait_until(lambda: sys_value(self.broker, "noctule/dropped/output_full") > 500, "drops are counted", 10)
        self.assertTrue(good.is_alive())

    def test_comes_in_order_when_it_reads(self):
        """What was not dropped comes, nothing twice, and new messages follow."""
        c = self.client(rcvbuf=4096).connect("later", keepalive=0).subscribe(("la/#", 0))
        p = self.connect("p2")
        n = 3000
        for at in range(0, n, 100):
            p.send(*(publish("la/t", b"%06d" % k + bytes(5000)) for k in range(at, at + 100)))
        p.publish("x", "x", 1)  # all of them are through
        seen = []
        while not seen or self.more(c):
            seen.append(int(c.expect_publish().payload[:6]))
        self.assertEqual(seen, sorted(set(seen)))
        self.assertLess(len(seen), n)
        p.publish("la/t", b"%06d" % n, 0)
        self.assertEqual(int(c.expect_publish(timeout=TIMEOUT).payload), n)

    def more(self, c):
        try:
            got = c.recv(0.5 * SLOW)
        except Silence:
            return False
        c.buf[:0] = got.raw
        return True


class Tells:
    """A publisher of 5.0 hears 0x97 when every session that its message was for had no room; else it was taken."""

    def codes(self, p, topic, qos, n):
        out = []
        for k in range(n):
            p.send(publish(topic, "%d" % k, qos, k + 1, version=5))
            got = p.expect_type(PUBACK if qos == 1 else PUBREC)
            code = got.body[2] if len(got.body) > 2 else 0
            out.append(code)
            if qos == 2 and code < 0x80:
                p.send(pubrel(k + 1))
                p.expect_type(PUBCOMP)
        return out

    def test_only_receiver(self):
        for qos in (1, 2):
            for i in range(6):  # publisher and receiver on the same shard and on others
                name = "r%d-%d" % (qos, i)
                self.connect(name, clean=False).subscribe((name, qos)).disconnect()
                p = self.connect("p%d-%d" % (qos, i), 5)
                self.assertEqual(self.codes(p, name, qos, 5), [0, 0, 0, 0x97, 0x97], (qos, i))
                c = self.connect(name, clean=False, present=True)
                self.assertEqual([m.payload for m in c.take(3)], [b"0", b"1", b"2"])
                c.disconnect()
                # An identifier that was refused is free: the next message under it is no repeat.
                self.assertEqual(self.codes(p, name, qos, 4), [0, 0, 0, 0x97])

    def test_one_of_two(self):
        for i in range(6):
            self.connect("full-%d" % i, clean=False).subscribe(("two/%d" % i, 1)).disconnect()
            other = self.connect("other-%d" % i).subscribe(("two/%d" % i, 1))
            p = self.connect("pt-%d" % i, 5)
            for k, code in enumerate((0, 0, 0, 0, 0)):
                self.assertEqual(self.codes(p, "two/%d" % i, 1, 1), [code])
                other.settle(other.expect_publish("two/%d" % i))

    def test_not_for_3_1_1(self):
        self.connect("old", clean=False).subscribe(("old/t", 1)).disconnect()
        p = self.connect("po")
        for k in range(5):
            p.publish("old/t", "%d" % k, 1)

    def test_retained_is_taken(self):
        """It is kept, whoever had no room."""
        self.connect("ret", clean=False).subscribe(("ret/t", 1)).disconnect()
        p = self.connect("pr", 5)
        self.codes(p, "ret/t", 1, 3)
        p.send(publish("ret/t", "kept", 1, 9, retain=True, version=5))
        got = p.expect_type(PUBACK)
        self.assertEqual((got.pid, len(got.body)), (9, 2))
        self.connect("late").subscribe(("ret/t", 0)).expect_publish("ret/t", "kept", retain=True)

    def test_group(self):
        for i in range(3):
            name = "g%d" % i
            self.connect(name, clean=False).subscribe(("$share/%s/%s" % (name, name), 1)).disconnect()
            p = self.connect("pg%d" % i, 5)
            self.assertEqual(self.codes(p, name, 1, 5), [0, 0, 0, 0x97, 0x97], i)


class Told(BrokerTest, Tells):
    config = "max_queued_messages 3\nmax_inflight_messages 2\nshards 3"


class ToldDurable(BrokerTest, Tells):
    """Likewise with a store, where a refusal takes back what the publish would have kept."""

    config = Told.config

    @classmethod
    def setUpClass(cls):
        cls.broker = DurableBroker(cls.config)


class QueuedQos0(unittest.TestCase):
    """queue_qos0_messages: QoS 0 for who is away has its place among the others, on disk as well."""

    KEYS = "queue_qos0_messages true"

    def mixed(self, p, topic, n, first=0):
        """QoS 0, 1, 2, 0, 1, 2 ... under rising numbers."""
        for k in range(first, first + n):
            p.publish(topic, "%d" % k, k % 3)

    def numbers(self, c, n):
        return [(int(m.payload), m.qos) for m in c.take(n, TIMEOUT)]

    def expected(self, n, first=0):
        return [(k, k % 3) for k in range(first, first + n)]

    def test_in_order(self):
        with DurableBroker(self.KEYS) as b:
            b.connect("s", clean=False).subscribe(("q/#", 2)).disconnect()
            self.mixed(b.connect("p"), "q/t", 60)
            c = b.connect("s", clean=False, present=True)
            self.assertEqual(self.numbers(c, 60), self.expected(60))
            c.expect_nothing()

    def test_over_a_stop(self):
        with DurableBroker(self.KEYS) as b:
            b.connect("s", clean=False).subscribe(("q/#", 2)).disconnect()
            self.mixed(b.connect("p"), "q/t", 60)
            b.again("stop")
            self.mixed(b.connect("p"), "q/t", 30, 60)
            c = b.connect("s", clean=False, present=True)
            self.assertEqual(self.numbers(c, 90), self.expected(90))
            c.disconnect()
            b.again("stop")
            b.connect("s", clean=False, present=True).expect_nothing()

    def test_beside_the_window(self):
        """A connected session whose queue waits for acknowledgements: QoS 0 does not overtake there either."""
        with DurableBroker(self.KEYS + "\nmax_inflight_messages 3") as b:
            c = b.connect("s", clean=False).subscribe(("q/#", 1))
            p = b.connect("p")
            for k in range(30):
                p.publish("q/t", "%d" % k, k % 2)
            self.assertEqual([int(m.payload) for m in c.take(30)], list(range(30)))

    def test_kill(self):
        """At most once: what may have been sent before a kill is not sent again; QoS 1 is."""
        with DurableBroker(self.KEYS) as b:
            b.connect("s", clean=False).subscribe(("q/#", 1)).disconnect()
            p = b.connect("p")
            for k in range(20):
                p.publish("q/t", "%d" % k, k % 2)
            time.sleep(0.3)
            c = b.connect("s", clean=False, present=True)
            for _ in range(20):
                c.expect_type(PUBLISH)
            b.again("kill")
            c = b.connect("s", clean=False, present=True)
            seen = [m for m in c.take(10)]
            self.assertEqual({m.qos for m in seen}, {1})
            c.expect_nothing()

    def test_in_memory(self):
        with Broker(self.KEYS) as b:
            b.connect("s", clean=False).subscribe(("q/#", 2)).disconnect()
            self.mixed(b.connect("p"), "q/t", 30)
            c = b.connect("s", clean=False, present=True)
            self.assertEqual(self.numbers(c, 30), self.expected(30))


class Expires:
    """Messages that expire while their session is away leave its queue, and are counted no more."""

    KEYS = "sys_interval 1\nmax_queued_messages 20\n"

    def publish(self, p, first, n, expiry=None):
        """The codes of the answers."""
        out = []
        for k in range(first, first + n):
            p.send(publish("ex/t", "%d" % k, 1, k + 1, version=5,
                           props=props((EXPIRY, expiry)) if expiry else props()))
            got = p.expect_type(PUBACK)
            out.append(got.body[2] if len(got.body) > 2 else 0)
        return out

    def queued(self, b):
        return sys_value(b, "noctule/queued/messages")

    def test_room_for_the_living(self):
        with self.broker() as b:
            b.connect("s", clean=False).subscribe(("ex/#", 1)).disconnect()
            p = b.connect("p", 5)
            self.assertEqual(self.publish(p, 0, 20, 1), [0] * 20)
            self.assertEqual(self.publish(p, 20, 1), [0x97])
            time.sleep(2)  # $SYS tells of the second before
            wait_until(lambda: self.queued(b) == 0, "they are gone by time", 10)
            wait_until(lambda: sys_value(b, "store/messages/count") == sys_value(b, "retained messages/count"),
                       "in every count", 10)
            self.assertEqual(self.publish(p, 30, 20), [0] * 20)
            c = b.connect("s", clean=False, present=True)
            self.assertEqual([int(m.payload) for m in c.take(20)], list(range(30, 50)))
            c.expect_nothing()

    def test_some_of_many(self):
        """What lives among them stays, in its order."""
        with self.broker() as b:
            b.connect("s", clean=False).subscribe(("ex/#", 1)).disconnect()
            p = b.connect("p", 5)
            for k in range(20):
                self.publish(p, k, 1, (1, None, 100)[k % 3])
            wait_until(lambda: self.queued(b) == 13, "a third is gone", 10)
            c = b.connect("s", clean=False, present=True)
            self.assertEqual([int(m.payload) for m in c.take(13)], [k for k in range(20) if k % 3])
            c.expect_nothing()

    def test_connected_and_stuck(self):
        """Behind a full window as well, when room is asked for."""
        with self.broker("max_inflight_messages 2") as b:
            c = b.connect("s").subscribe(("ex/#", 1))
            p = b.connect("p", 5)
            self.assertEqual(self.publish(p, 0, 22, 1), [0] * 22)
            time.sleep(1.5)
            self.assertEqual(self.publish(p, 30, 20), [0] * 20)
            got = [int(m.payload) for m in c.take(22)]
            self.assertEqual(got, [0, 1] + list(range(30, 50)))


class ExpireInMemory(unittest.TestCase, Expires):
    def broker(self, more=""):
        return Broker(self.KEYS + more)


class ExpireOnDisk(unittest.TestCase, Expires):
    def broker(self, more=""):
        return DurableBroker(self.KEYS + more)

    def test_over_a_restart(self):
        """A queue that was full when the broker ended: what it holds is not known until it is looked at."""
        with self.broker() as b:
            b.connect("s", clean=False).subscribe(("ex/#", 1)).disconnect()
            self.publish(b.connect("p", 5), 0, 20, 2)
            b.again("stop")
            wait_until(lambda: self.queued(b) == 0, "they are gone", 20)
            self.assertEqual(self.publish(b.connect("p", 5), 30, 20), [0] * 20)
            b.again("kill")
            c = b.connect("s", clean=False, present=True)
            self.assertEqual([int(m.payload) for m in c.take(20)], list(range(30, 50)))


class Unsubscribed(unittest.TestCase):
    """What waits behind the window for a subscription that ends is not sent, unless another one matches it."""

    def check(self, b, clean):
        c = b.connect("s", clean=clean).subscribe(("un/#", 1), ("un/both/+", 1), ("other", 1))
        p = b.connect("p")
        p.publish("un/a", "first", 1).publish("un/a", "second", 1)  # fill the window
        for k in range(4):
            p.publish("un/a", "%d" % k, 1).publish("un/both/x", "%d" % k, 1).publish("other", "%d" % k, 1)
        window = [c.expect_publish("un/a") for _ in range(2)]
        c.send(unsubscribe(9, "un/#"))
        c.expect(unsuback(9))
        for m in window:
            c.send(puback(m.pid))
        got = [(m.topic, m.payload) for m in c.take(8)]
        self.assertEqual(got, [(t, b"%d" % k) for k in range(4) for t in ("un/both/x", "other")])
        c.expect_nothing()
        p.publish("other", "new", 1)
        c.settle(c.expect_publish("other", "new"))

    def test_in_memory(self):
        with Broker("max_inflight_messages 2") as b:
            self.check(b, True)
            self.check(b, False)

    def test_durable(self):
        with DurableBroker("max_inflight_messages 2") as b:
            self.check(b, False)

    def test_on_disk(self):
        """The session is away while they are queued, and unsubscribes before it has read them."""
        with DurableBroker("max_inflight_messages 1") as b:
            b.connect("s", clean=False).subscribe(("un/#", 1), ("other", 1)).disconnect()
            p = b.connect("p")
            for k in range(600):
                p.publish("un/a" if k % 2 else "other", "%d" % k, 1)
            c = b.connect("s", clean=False, present=True)
            first = c.expect_publish("other", "0")
            c.send(unsubscribe(9, "un/#"))
            while True:
                m = c.recv()
                if m.type == UNSUBACK:
                    break
                c.send(puback(m.pid))
            c.send(puback(first.pid))
            got = [int(m.payload) for m in c.take(290)]
            self.assertTrue(all(k % 2 == 0 for k in got[5:]), got[:10])


class Upgraded(BrokerTest):
    config = "upgrade_outgoing_qos true"

    def test_retained(self):
        """Retained messages as well come at the QoS of the subscription."""
        self.connect().publish("up/r", "x", 0, retain=True)
        for qos in (1, 2):
            c = self.connect().subscribe(("up/r", qos))
            c.settle(c.expect_publish("up/r", "x", qos, retain=True))


if __name__ == "__main__":
    main()
