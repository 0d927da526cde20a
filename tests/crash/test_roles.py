# SPDX-License-Identifier: Apache-2.0
"""Every check of the ledger can fail: histories that never happened, and what the roles say about them.

Each test tells a history that is right up to its last step; the step is one violation, of one kind.
"""

import os
import random
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import wire  # noqa: E402
from peer import Peer, Violation  # noqa: E402
from roles import (ALIVE_S, Churner, Member, Mourner, Observer, Publisher, Retainer, Sleeper, Subscriber,  # noqa: E402
                   Team, Watcher)


class FakeWorld:
    """What roles want of World; nothing is sent anywhere."""

    def __init__(self):
        self.rng = random.Random(1)
        self.streams = {}
        self.mourners = {}
        self.trace = []
        self.heavy = 0
        self.pause_max = 0.5
        self.published = self.received = self.repeats = self.silent_repeats = 0
        self.first_silent = None
        self.is_stopping = False
        self.follows_s = 0.5
        self.died_at = time.monotonic()

    def note(self, *what):
        pass

    def register(self, peer):
        pass

    unregister = modify = register


class Histories(unittest.TestCase):
    def setUp(self):
        self.world = FakeWorld()

    def violates(self, kind, call, *args):
        with self.assertRaises(Violation) as caught:
            call(*args)
        self.assertEqual(caught.exception.kind, kind, str(caught.exception))

    def with_streams(self, *publishers):
        for p in publishers:
            self.world.streams.update(p.by_topic)
        return publishers[0]


class Subscribers(Histories):
    def setUp(self):
        super().setUp()
        self.p = Publisher(self.world, "p", 5)
        self.m = Publisher(self.world, "m", 5, in_memory=True)
        self.with_streams(self.p, self.m)
        for stream in self.world.streams.values():
            stream.sent = 100
        self.s = Subscriber(self.world, "s", 4, 2)

    def gets(self, topic, seq, qos, dup=False, expiry=0, age=0.0, s=None, properties=()):
        (s or self.s).on_message(topic, b"%d %.3f %d x" % (seq, time.time() - age, expiry), qos, dup, properties)

    def test_in_order(self):
        for seq in range(1, 30):
            self.gets("led/p/2", seq, 2)
        self.assertEqual(self.s.total, 29)

    def test_gap(self):
        self.gets("led/p/1", 1, 1)
        self.violates("loss", self.gets, "led/p/1", 3, 1)

    def test_gap_at_the_begin(self):
        self.violates("loss", self.gets, "led/p/2", 2, 2)

    def test_twice(self):
        self.gets("led/p/2", 1, 2)
        self.gets("led/p/2", 2, 2)
        self.violates("twice", self.gets, "led/p/2", 1, 2, True)

    def test_repeat_at_qos_1(self):
        """With DUP it is fine; without it the run is condemned in its end."""
        self.gets("led/p/1", 1, 1)
        self.gets("led/p/1", 1, 1, True)
        self.assertIsNone(self.world.first_silent)
        self.gets("led/p/1", 1, 1)
        self.assertEqual(self.world.first_silent.kind, "protocol")

    def test_repeat_of_the_publisher(self):
        self.p.by_topic["led/p/1"].resent[1] = time.time()
        self.gets("led/p/1", 1, 1)
        self.gets("led/p/1", 1, 1)
        self.assertIsNone(self.world.first_silent)

    def test_order_on_one_connection(self):
        """A QoS 2 stream taken at QoS 1: repeats are allowed, but not out of order on one connection."""
        s = Subscriber(self.world, "s1", 4, 1)
        self.gets("led/p/2", 1, 1, s=s)
        self.gets("led/p/2", 2, 1, s=s)
        self.violates("order", self.gets, "led/p/2", 1, 1, True, 0, 0.0, s)

    def test_wrong_qos(self):
        self.violates("protocol", self.gets, "led/p/2", 1, 1)

    def test_never_sent(self):
        self.violates("protocol", self.gets, "led/p/2", 101, 2)

    def test_expired(self):
        s = Subscriber(self.world, "s5", 5, 2)
        self.gets("exp/p", 1, 1, False, 2, 0.0, s, [(0x02, 2)])
        self.violates("revived", self.gets, "exp/p", 7, 1, False, 2, 30.0, s, [(0x02, 0)])

    def test_expiry_not_counted_down(self):
        s = Subscriber(self.world, "s5", 5, 2)
        self.violates("protocol", self.gets, "led/p/2", 1, 2, False, 3600, 100.0, s,
                      [(0x26, ("seq", "1")), (0x02, 9000)])

    def test_expiry_lost(self):
        s = Subscriber(self.world, "s5", 5, 2)
        self.violates("protocol", self.gets, "exp/p", 1, 1, False, 2, 0.0, s)

    def test_user_property_lost(self):
        s = Subscriber(self.world, "s5", 5, 2)
        self.violates("protocol", self.gets, "led/p/2", 1, 2, False, 3600, 0.0, s, [(0x02, 3600)])

    def test_memory_may_lose_what_was_recent(self):
        stream = self.m.by_topic["mem/m/1"]
        for seq in range(1, 51):
            stream.promise(seq, 100.0 if seq <= 40 else 109.9)
        stream.sent = 55
        stream.kill(110.0, 0.5)
        self.assertEqual(stream.lost, [(40, 55)])
        for seq in range(1, 42):
            self.gets("mem/m/1", seq, 1)
        stream.sent = 60
        self.gets("mem/m/1", 56, 1)

    def test_memory_may_not_lose_more(self):
        stream = self.m.by_topic["mem/m/1"]
        for seq in range(1, 51):
            stream.promise(seq, 100.0 if seq <= 40 else 109.9)
        stream.sent = 55
        stream.kill(110.0, 0.5)
        for seq in range(1, 40):
            self.gets("mem/m/1", seq, 1)
        self.violates("loss", self.gets, "mem/m/1", 41, 1)

    def test_memory_without_a_kill(self):
        self.gets("mem/m/1", 1, 1)
        self.violates("loss", self.gets, "mem/m/1", 3, 1)


class Identifiers(Histories):
    """peer.py: what a client checks of its own flows."""

    def setUp(self):
        super().setUp()
        self.peer = Peer(self.world, "x", 4)

    def publish(self, pid, payload, dup):
        packet = wire.publish("t", payload, 2, pid, dup=dup)
        self.peer._publish(packet[0], packet[2:])

    def test_id_not_released_carries_another(self):
        self.publish(7, b"1 a", False)
        self.publish(7, b"1 a", True)
        self.violates("twice", self.publish, 7, b"2 b", True)

    def test_repeat_without_dup(self):
        self.publish(7, b"1 a", False)
        self.violates("twice", self.publish, 7, b"1 a", False)

    def test_acks_out_of_order(self):
        for qos, kind in ((1, wire.PUBACK), (2, wire.PUBREC)):
            first = self.peer.publish("t", b"1", qos, 1)
            second = self.peer.publish("t", b"2", qos, 2)
            self.violates("order", self.peer._answer, kind, wire.u16(second.pid))
            self.peer._answer(kind, wire.u16(first.pid))

    def test_ack_for_nothing(self):
        self.violates("protocol", self.peer._answer, wire.PUBACK, wire.u16(9))
        self.violates("protocol", self.peer._answer, wire.PUBCOMP, wire.u16(9))

    def test_session_gone(self):
        self.peer._connack(b"\0\0")
        self.violates("loss", self.peer._connack, b"\0\0")


class Retained(Histories):
    def setUp(self):
        super().setUp()
        self.r = Retainer(self.world, "r", 4)
        self.topic = "ret/r/0"
        ops = self.r.ops[self.topic]
        ops.extend([(1, False), (2, False), (3, True), (4, False)])

    def acknowledge(self, seq):
        out = type("Out", (), {"topic": self.topic, "seq": seq})
        self.r.on_promise(out)

    def test_acknowledged_or_later(self):
        self.acknowledge(2)
        for payload in (b"2 y", None, b"4 y"):  # 3 clears
            self.r.check(self.topic, payload)

    def test_older(self):
        self.acknowledge(2)
        self.violates("loss", self.r.check, self.topic, b"1 y")

    def test_gone(self):
        self.acknowledge(4)
        self.violates("loss", self.r.check, self.topic, None)

    def test_clear_comes_back(self):
        self.acknowledge(3)
        self.r.check(self.topic, None)
        self.violates("loss", self.r.check, self.topic, b"2 y")

    def test_never_sent(self):
        self.violates("protocol", self.r.check, self.topic, b"9 y")


class Races(Histories):
    def setUp(self):
        super().setUp()
        self.o = Observer(self.world, "o", 5)
        self.o.on_message("race/0", b"r0 1", 2, False, ())
        self.o.on_message("race/0", b"r1 1", 2, False, ())

    def test_agree(self):
        self.o.check({"race/0": b"r1 1"})

    def test_retained_differs(self):
        self.violates("order", self.o.check, {"race/0": b"r0 1"})

    def test_retained_is_gone(self):
        self.violates("order", self.o.check, {})

    def test_twice(self):
        self.violates("twice", self.o.on_message, "race/0", b"r0 1", 2, False, ())

    def test_gap(self):
        self.violates("loss", self.o.on_message, "race/0", b"r0 3", 2, False, ())

    def test_lacks(self):
        r = Retainer(self.world, "r0", 4)
        r.races["race/0"] = 1
        self.assertEqual(self.o.lacks([r]), [])
        r.races["race/1"] = 1
        self.assertEqual(self.o.lacks([r]), [("race/1", "r0")])


class Subscriptions(Histories):
    def setUp(self):
        super().setUp()
        self.c = Churner(self.world, "c", 4)
        self.c.next_pid = 0

    def change(self, k, answered):
        while True:  # the dice choose k
            self.world.rng = random.Random(self.world.rng.random())
            again = random.Random()
            again.setstate(self.world.rng.getstate())
            if again.randrange(len(self.c.state)) == k:
                break
        self.c.next_at = 0
        self.c.generate()
        if answered:
            pid, _, subscribed = self.c.pending
            self.c.on_suback(wire.SUBACK if subscribed else wire.UNSUBACK, pid, b"\1")

    def probe(self, *found):
        self.c.on_up()
        self.c.owed = 1
        for k in found:
            self.c.on_message("churn/c/%d" % k, b"1", 1, False, ())
        self.c.on_message("churn/c/end", b"1", 1, False, ())

    def test_subscription_stays(self):
        self.change(2, True)
        self.probe(2)

    def test_subscription_gone(self):
        self.change(2, True)
        self.violates("loss", self.probe)

    def test_unsubscribe_comes_back(self):
        self.change(2, True)
        self.change(2, True)
        self.violates("revived", self.probe, 2)

    def test_unanswered_may_be_either(self):
        for found in ((), (2,)):
            self.c = Churner(self.world, "c", 4)
            self.change(2, False)
            self.probe(*found)


class Groups(Histories):
    def setUp(self):
        super().setUp()
        self.p = self.with_streams(Publisher(self.world, "p", 4))
        self.team = Team()
        self.a, self.b = (Member(self.world, name, 4, self.team) for name in "ab")
        for stream in self.p.streams:
            stream.sent = 3

    def gets(self, member, seq, qos):
        member.on_message("shr/p/%d" % qos, b"%d 0 0 x" % seq, qos, False, ())

    def missing(self):
        return sorted((s.topic, n) for s, n in self.team.missing(self.p.streams))

    def test_shared_out(self):
        for qos in (1, 2):
            self.gets(self.a, 1, qos)
            self.gets(self.b, 3, qos)
            self.gets(self.a, 2, qos)
        self.assertEqual(self.missing(), [])

    def test_qos_2_to_two_members(self):
        self.gets(self.a, 1, 2)
        self.violates("twice", self.gets, self.b, 1, 2)

    def test_qos_1_may_come_again(self):
        self.gets(self.a, 1, 1)
        self.gets(self.b, 1, 1)
        self.assertEqual(self.team.repeats, 1)

    def test_nobody_has_it(self):
        for seq in (1, 3):
            self.gets(self.a, seq, 1)
            self.gets(self.b, seq, 2)
        self.assertEqual(self.missing(), [("shr/p/1", 2), ("shr/p/2", 2)])

    def test_never_sent(self):
        self.violates("protocol", self.gets, self.a, 4, 2)


class Wills(Histories):
    def mourner(self, fate, delay=0, is_up=True):
        m = Mourner(self.world, "w0", fate, delay)
        self.world.mourners["w0"] = m
        m.known = is_up
        return m

    def comes(self):
        Watcher(self.world, "w", 4).on_message("will/w0", b"w0", 2, False, ())

    def test_connected(self):
        self.mourner("stays")
        self.violates("revived", self.comes)

    def test_after_the_crash(self):
        m = self.mourner("stays")
        m.on_death(True, False)
        self.comes()
        self.assertTrue(m.came)

    def test_twice(self):
        self.mourner("stays").on_death(True, False)
        self.comes()
        self.violates("twice", self.comes)

    def test_early(self):
        self.mourner("vanishes", 5).mourned(time.monotonic())
        self.violates("protocol", self.comes)

    def test_goodbye(self):
        m = self.mourner("goodbye")
        m.left_at = time.monotonic() - 60
        m.on_death(False, False)
        self.violates("revived", self.comes)

    def test_goodbye_just_before_the_crash(self):
        m = self.mourner("goodbye")
        m.left_at = time.monotonic()
        m.on_death(False, False)
        self.comes()

    def test_returned(self):
        m = self.mourner("returns", 3600)
        m.will = None
        m.on_up()
        m.on_death(False, False)
        self.violates("revived", self.comes)

    def test_never_answered(self):
        self.mourner("vanishes", is_up=False).on_death(True, False)
        self.comes()


class Sessions(Histories):
    def sleeper(self, expiry, left_s_ago, by_crash=False):
        x = Sleeper(self.world, "x", expiry)
        now = time.monotonic()
        x.known = x.answered = True
        x.asleep = (now - left_s_ago, now - left_s_ago + (ALIVE_S if by_crash else 0))
        x.opened_at = now
        return x

    def test_in_time(self):
        self.sleeper(3, 1).on_present(True)

    def test_gone_too_early(self):
        self.violates("loss", self.sleeper(3, 1).on_present, False)

    def test_there_too_long(self):
        self.violates("revived", self.sleeper(3, 30).on_present, True)

    def test_expired(self):
        self.sleeper(3, 30).on_present(False)

    def test_after_a_crash_a_little_longer(self):
        self.sleeper(1, 1 + ALIVE_S, True).on_present(True)
        self.violates("revived", self.sleeper(1, 30, True).on_present, True)


if __name__ == "__main__":
    unittest.main(verbosity=1)
