# SPDX-License-Identifier: Apache-2.0
"""Retained messages."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403


class Retained(BrokerTest):
    def test_set_and_replay(self):
        """[MQTT-3.3.1-6, 3.3.1-8] retain flag 1 on replay, the publisher's QoS at most."""
        p = self.connect()
        for qos in (0, 1, 2):
            p.publish("r/%d" % qos, "v%d" % qos, qos, retain=True)
            p.is_alive()
            for granted in (0, 1, 2):
                s = self.connect().subscribe(("r/%d" % qos, granted))
                s.settle(s.expect_publish("r/%d" % qos, "v%d" % qos, min(qos, granted), retain=True, dup=False))
                s.expect_nothing(0.05)

    def test_live_delivery_has_no_flag(self):
        """[MQTT-3.3.1-9]"""
        s = self.connect().subscribe(("live/t", 1))
        self.connect().publish("live/t", "x", 1, retain=True)
        s.settle(s.expect_publish("live/t", "x", retain=False))
        s.expect_nothing()

    def test_replace(self):
        """[MQTT-3.3.1-5] the last one only."""
        p = self.connect()
        for i in range(5):
            p.publish("rep/t", "%d" % i, i % 3, retain=True)
        p.is_alive()
        s = self.connect().subscribe(("rep/t", 2))
        s.settle(s.expect_publish("rep/t", "4", retain=True))
        s.expect_nothing()

    def test_not_retained_does_not_replace(self):
        """[MQTT-3.3.1-12]"""
        p = self.connect().publish("plain/t", "kept", 1, retain=True)
        p.publish("plain/t", "passing", 1).publish("plain/t", "", 1)
        s = self.connect().subscribe(("plain/t", 0))
        s.expect_publish("plain/t", "kept", retain=True)
        s.expect_nothing()

    def test_clear(self):
        """[MQTT-3.3.1-10, 3.3.1-11] by an empty payload, which is delivered as a message."""
        live = self.connect().subscribe(("clr/t", 0))
        p = self.connect().publish("clr/t", "x", 1, retain=True)
        live.expect_publish("clr/t", "x", retain=False)
        p.publish("clr/t", "", 1, retain=True)
        live.expect_publish("clr/t", "", retain=False)
        self.connect().subscribe(("clr/t", 0)).expect_nothing()
        p.publish("clr/none", "", 1, retain=True)
        self.connect().subscribe(("clr/#", 0)).expect_nothing()

    def test_wildcards(self):
        p = self.connect()
        topics = ["wild/a", "wild/b", "wild/b/c", "wild", "/wild", "wild/"]
        for t in topics:
            p.publish(t, t, 1, retain=True)
        for f, want in (("wild/+", {"wild/a", "wild/b", "wild/"}), ("wild/#", set(topics) - {"/wild"}),
                        ("+/b/#", {"wild/b", "wild/b/c"}), ("/+", {"/wild"}), ("wild/+/c", {"wild/b/c"}),
                        ("wild/b", {"wild/b"}), ("wild/x", set())):
            with self.subTest(filter=f):
                s = self.connect().subscribe((f, 0))
                got = [s.expect_publish(retain=True) for _ in want]
                self.assertEqual({g.topic for g in got}, want)
                self.assertTrue(all(g.payload.decode() == g.topic for g in got))
                s.expect_nothing(0.05)
        for t in topics:
            p.publish(t, "", 1, retain=True)

    def test_dollar_topics_need_their_name(self):
        p = self.connect().publish("$dollar/r", "x", 1, retain=True)
        s = self.connect().subscribe(("#", 0))
        for got in iter(lambda: self.next_or_none(s), None):
            self.assertFalse(got.topic.startswith("$"), got)
        s = self.connect().subscribe(("$dollar/+", 0))
        s.expect_publish("$dollar/r", "x", retain=True)
        p.publish("$dollar/r", "", 1, retain=True)

    def next_or_none(self, c):
        try:
            return c.recv(0.2)
        except Silence:
            return None

    def test_subscribe_again_replays_again(self):
        """[MQTT-3.8.4-3]"""
        self.connect().publish("twice/t", "x", 1, retain=True)
        s = self.connect()
        for qos in (0, 1, 1):
            s.subscribe(("twice/t", qos))
            s.settle(s.expect_publish("twice/t", "x", qos, retain=True))
        s.expect_nothing()

    def test_resumed_session_replays_nothing(self):
        """Only a SUBSCRIBE replays."""
        self.connect().publish("res/t", "x", 1, retain=True)
        s = self.connect("res", clean=False).subscribe(("res/t", 1))
        s.settle(s.expect_publish("res/t", "x", retain=True))
        s.disconnect()
        self.connect("res", clean=False, present=True).expect_nothing()

    def test_replay_follows_suback_or_not_but_comes(self):
        """Several filters in one packet: each replays its own."""
        p = self.connect()
        for i in range(4):
            p.publish("multi/%d" % i, "%d" % i, 1, retain=True)
        s = self.connect()
        s.send(subscribe(1, ("multi/0", 0), ("multi/1", 1), ("multi/2", 2), ("multi/x", 0)))
        got = [s.recv() for _ in range(4)]
        self.assertEqual([g.raw for g in got if g.type == SUBACK], [suback(1, 0, 1, 2, 0)])
        self.assertEqual({(g.topic, g.qos, g.retain) for g in got if g.type == PUBLISH},
                         {("multi/0", 0, True), ("multi/1", 1, True), ("multi/2", 1, True)})

    def test_many(self):
        """2000 topics replayed on one filter, complete and in bounded turns; others are served meanwhile."""
        p = self.connect()
        p.send(*(publish("lots/%d" % i, "%d" % i, 1, i + 1, retain=True) for i in range(2000)))
        for _ in range(2000):
            p.expect_type(PUBACK)
        s = self.connect().subscribe(("lots/+", 0))
        got = [s.expect_publish(retain=True) for _ in range(2000)]
        self.assertEqual({g.topic for g in got}, {"lots/%d" % i for i in range(2000)})
        s.expect_nothing()

    def test_queued_for_the_absent(self):
        """A retained publish reaches a durable session that is away as an ordinary message."""
        self.connect("absent", clean=False).subscribe(("absent/t", 1)).disconnect()
        self.connect().publish("absent/t", "x", 1, retain=True)
        s = self.connect("absent", clean=False, present=True)
        s.settle(s.expect_publish("absent/t", "x", retain=False))
        s.expect_nothing()

    def test_large(self):
        data = os.urandom(1 << 20)
        self.connect().publish("large/t", data, 1, retain=True)
        s = self.connect().subscribe(("large/t", 1))
        s.settle(s.expect_publish("large/t", data, retain=True))
        self.connect().publish("large/t", "", 1, retain=True)

    def test_3_1(self):
        p = self.connect(version=3).publish("old/t", "x", 1, retain=True)
        s = self.connect(version=3).subscribe(("old/t", 1))
        s.settle(s.expect_publish("old/t", "x", retain=True))
        p.publish("old/t", "", 1, retain=True)


if __name__ == "__main__":
    main()
