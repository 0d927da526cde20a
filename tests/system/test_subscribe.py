# SPDX-License-Identifier: Apache-2.0
"""Topics and filters, SUBSCRIBE and UNSUBSCRIBE."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403


class TopicNames(BrokerTest):
    def refuse(self, topic, qos=0):
        c = self.connect()
        c.try_send(publish(topic, "x", qos, 1))
        c.expect_closed()
        c.close()

    def test_illegal(self):
        """[MQTT-3.3.2-2, 4.7.3-1, 4.7.3-2, 1.5.3-1]"""
        for topic in ("", "a/+", "+", "#", "a/#", "a+b", "a#", b"a\0b", b"\xed\xa0\x80", b"a\xff", b"\xc3"):
            with self.subTest(topic=topic):
                self.refuse(topic)
                self.refuse(topic, 1)

    def test_legal(self):
        """[MQTT-4.7.3-4, 4.7.1-1] each delivered exactly where it belongs."""
        topics = ("/", "//", "/a", "a/", "a//b", " ", "a b", "A", "ä/€/𝄞", "a$b", "x" * 1000,
                  "\ufeffbom", "/" * 100)
        s = self.connect()
        for t in topics:
            s.subscribe((t, 0))
        p = self.connect()
        for t in topics:
            with self.subTest(topic=t):
                p.publish(t, "x")
                s.expect_publish(t, "x")
        s.expect_nothing()

    def test_longest(self):
        """65,535 bytes."""
        topic = "x" * 65535
        s = self.connect().subscribe((topic, 1))
        self.connect().publish(topic, "x", 1)
        s.settle(s.expect_publish(topic, "x", 1))

    def test_levels(self):
        """A name with more than 200 separators ends the connection, 200 do not."""
        s = self.connect().subscribe(("/" * 200, 0))
        self.connect().publish("/" * 200, "x", 1)
        s.expect_publish("/" * 200, "x")
        for levels in (201, 1000, 65535):
            with self.subTest(levels=levels):
                self.refuse("/" * levels, 1)

    def test_levels_of_filters(self):
        c = self.connect().subscribe(("/" * 200, 0))
        self.assertTrue(c.is_alive())
        for levels in (201, 1000, 65535):
            with self.subTest(levels=levels):
                c = self.connect()
                c.try_send(subscribe(1, ("/" * levels, 0)))
                c.expect_closed()


class Filters(BrokerTest):
    MATCH = (("a/b", "a/b"), ("a/+", "a/b"), ("+/b", "a/b"), ("+/+", "a/b"), ("#", "a/b"), ("a/#", "a/b"),
             ("a/b/#", "a/b"), ("a/+/c", "a/b/c"), ("+", "a"), ("/+", "/a"), ("+/", "a/"), ("+/+", "/a"),
             ("a/+/b", "a//b"), ("#", "/"), ("a/#", "a"), ("a/#", "a/"), ("+/#", "a"), ("/#", "/"),
             ("$x/#", "$x/a"), ("$x/+", "$x/a"), ("ä/+", "ä/€"))
    MISS = (("a/b", "a/B"), ("a/+", "a"), ("a/+", "a/b/c"), ("+", "a/b"), ("+", "/a"), ("a/b/#", "a"),
            ("/a", "a"), ("a", "a/"), ("#", "$x/a"), ("+/a", "$x/a"), ("+", "$x"), ("a/+/c", "a/c"))

    def test_match(self):
        """[MQTT-4.7.1, 4.7.2]"""
        s, p = self.connect(), self.connect()
        for f, t in self.MATCH:
            with self.subTest(filter=f, topic=t):
                s.subscribe((f, 0))
                p.publish(t, "x", 1)
                s.expect_publish(t, "x")
                s.unsubscribe(f)

    def test_miss(self):
        """[MQTT-4.7.2-1] and what does not match."""
        s, p = self.connect(), self.connect()
        for f, t in self.MISS:
            with self.subTest(filter=f, topic=t):
                s.subscribe((f, 0))
                p.publish(t, "x", 1)
                s.send(pingreq())
                s.expect(pingresp())
                s.unsubscribe(f)

    def test_malformed(self):
        """[MQTT-4.7.3-1..2, 1.5.3-1..2] the connection ends."""
        for f in ("", b"a\0", b"\xed\xa0\x80", b"\xff", b"a/\xc3"):
            with self.subTest(filter=f):
                c = self.connect()
                c.try_send(subscribe(1, (f, 0)))
                c.expect_closed()

    def test_misplaced_wildcards(self):
        """[MQTT-4.7.1-2, 4.7.1-3] a protocol violation ends the connection [MQTT-4.8.0-1]."""
        for f in ("#/a", "a/#/b", "a#", "a/b#", "#b", "a+", "+a", "a/+b", "a/b+/c", "++", "+#", "#+", "##"):
            with self.subTest(filter=f):
                c = self.connect()
                c.try_send(subscribe(1, ("mis/ok", 0), (f, 0)))
                c.expect_closed()

    def test_all_matching_subscribers(self):
        """Over all shards, each once."""
        subs = [self.connect("all-%d" % i).subscribe((f, 0))
                for i, f in enumerate(("all/x", "all/+", "all/#", "+/x", "all/x", "all/+/#"))]
        self.connect().publish("all/x", "1")
        for s in subs:
            s.expect_publish("all/x", "1")
            s.expect_nothing(0.05)


class Subscribe(BrokerTest):
    def test_codes_in_order(self):
        """[MQTT-3.8.4-1, 3.8.4-5, 3.9.3-1]"""
        c = self.connect()
        c.send(subscribe(0x1234, ("c/a", 2), ("c/b", 0), ("c/c", 1), ("c/a/+", 2), ("c/#", 1)))
        c.expect(suback(0x1234, 2, 0, 1, 2, 1))

    def test_many_filters(self):
        c = self.connect()
        filters = [("many/%d" % i, i % 3) for i in range(2000)]
        c.send(subscribe(9, *filters))
        c.expect(suback(9, *(o for _, o in filters)))
        self.connect().publish("many/1999", "x", 1).publish("many/0", "y", 1)
        self.assertEqual([m.payload for m in c.take(2)], [b"x", b"y"])

    def test_illegal(self):
        """[MQTT-3.8.1-1, 3.8.3-3, 3-8.3-4, 2.3.1-1]"""
        for name, data in (("flags 0", b"\x80" + subscribe(1, ("a", 0))[1:]),
                           ("no filter", packet(0x82, u16(1))),
                           ("QoS 3", subscribe(1, ("a", 3))),
                           ("reserved bits", subscribe(1, ("a", 0x04))),
                           ("reserved bits", subscribe(1, ("a", 0x80))),
                           ("identifier 0", subscribe(0, ("a", 0))),
                           ("no identifier", packet(0x82, b"")),
                           ("no option", packet(0x82, u16(1) + field("a"))),
                           ("second one bad", subscribe(1, ("a", 0), (b"\xff", 0)))):
            with self.subTest(name):
                c = self.connect()
                c.try_send(data)
                c.expect_closed()

    def test_again_replaces_the_qos(self):
        """[MQTT-3.8.4-3]"""
        s = self.connect().subscribe(("again/t", 0))
        p = self.connect().publish("again/t", "0", 2)
        s.settle(s.expect_publish(qos=0))
        s.subscribe(("again/t", 2))
        p.publish("again/t", "2", 2)
        s.settle(s.expect_publish(payload="2", qos=2))
        s.subscribe(("again/t", 1))
        p.publish("again/t", "1", 2)
        s.settle(s.expect_publish(payload="1", qos=1))
        s.expect_nothing()

    @deviates("one copy for each matching subscription")
    def test_overlapping(self):
        """[MQTT-3.3.5-1] one copy, at the highest QoS."""
        s = self.connect().subscribe(("ov/#", 0), ("ov/+", 2), ("ov/t", 1))
        p = self.connect()
        for qos in (2, 1, 0):
            p.publish("ov/t", "x", qos)
            s.settle(s.expect_publish("ov/t", "x", qos))
        s.expect_nothing()

    def test_between_messages_of_one_topic(self):
        """Whatever changes between two messages of a topic holds for the second, on every shard."""
        p = self.connect()

        def both(*expected):
            """Twice, since the second may be sent to whom the first was; expected: (client, QoS or None)"""
            for payload in ("1", "2"):
                p.publish("btw/a/b", payload, 2)
                for c, qos in expected:
                    if qos is not None:
                        c.settle(c.expect_publish("btw/a/b", payload, qos))
            for c, _ in expected:
                c.send(pingreq())
                c.expect(pingresp())

        for i in range(6):
            with self.subTest(i):
                a, b = self.connect("btw-a%d" % i), self.connect("btw-b%d" % i)
                a.subscribe(("btw/a/b", 1), ("btw/a/+", 0))
                both((a, 1), (b, None))
                a.subscribe(("btw/a/+", 2))
                both((a, 2), (b, None))
                b.subscribe(("btw/+/b", 0))
                both((a, 2), (b, 0))
                b.subscribe(("btw/a/b", 1))
                both((a, 2), (b, 1))
                a.unsubscribe("btw/a/+")
                both((a, 1), (b, 1))
                a.unsubscribe("btw/a/b")
                both((a, None), (b, 1))
                a.subscribe(("btw/a/b", 0))
                both((a, 0), (b, 1))
                b.disconnect()
                both((a, 0))
                a.disconnect()
                both()

    def test_same_filter_twice_in_one_packet(self):
        c = self.connect()
        c.send(subscribe(3, ("tw/t", 0), ("tw/t", 1)))
        c.expect(suback(3, 0, 1))
        self.connect().publish("tw/t", "x", 1)
        c.settle(c.expect_publish(qos=1))
        c.expect_nothing()

    def test_takes_effect_with_suback(self):
        """What another client publishes after SUBACK arrives, from every shard."""
        ps = [self.connect() for _ in range(6)]
        for i in range(30):
            s = self.connect("effect-%d" % i).subscribe(("effect/%d" % i, 0))
            ps[i % 6].publish("effect/%d" % i, "x")
            s.expect_publish("effect/%d" % i, "x")


class Unsubscribe(BrokerTest):
    def test_unsuback(self):
        """[MQTT-3.10.4-4, 3.10.4-5] also for filters nobody had."""
        c = self.connect().subscribe(("u/a", 1), ("u/b", 1))
        c.send(unsubscribe(0x4321, "u/a", "u/none", "u/b"))
        c.expect(unsuback(0x4321))
        c.send(unsubscribe(5, "u/a"))
        c.expect(unsuback(5))
        self.connect().publish("u/a", "x", 1).publish("u/b", "x", 1)
        c.expect_nothing()

    def test_compares_text(self):
        """[MQTT-3.10.4-1] no matching: exactly that filter."""
        s = self.connect().subscribe(("text/a", 0))
        s.unsubscribe("text/+", "text/#", "#")
        self.connect().publish("text/a", "x")
        s.expect_publish("text/a", "x")

    def test_keeps_the_others(self):
        s = self.connect().subscribe(("keep/+", 0), ("keep/a", 1))
        s.unsubscribe("keep/a")
        self.connect().publish("keep/a", "x", 1)
        s.expect_publish("keep/a", "x", 0)
        s.expect_nothing()

    def test_others_keep_theirs(self):
        a, b = self.connect().subscribe(("oth/t", 0)), self.connect().subscribe(("oth/t", 0))
        a.unsubscribe("oth/t")
        self.connect().publish("oth/t", "x")
        b.expect_publish("oth/t", "x")
        a.expect_nothing()

    def test_finishes_what_is_in_flight(self):
        """[MQTT-3.10.4-3]"""
        s = self.connect("fin", clean=False).subscribe(("fin/t", 2))
        self.connect().publish("fin/t", "x", 2)
        got = s.expect_publish()
        s.unsubscribe("fin/t").close()
        s = self.connect("fin", clean=False, present=True)
        self.assertEqual(s.expect_publish(payload="x", dup=True).pid, got.pid)
        s.settle(got)

    def test_illegal(self):
        """[MQTT-3.10.1-1, 3.10.3-2, 2.3.1-1]"""
        for name, data in (("flags", b"\xA0" + unsubscribe(1, "a")[1:]), ("none", packet(0xA2, u16(1))),
                           ("identifier 0", unsubscribe(0, "a")), ("cut", packet(0xA2, u16(1) + b"\0\x05a")),
                           ("empty", unsubscribe(1, "")), ("bad UTF-8", unsubscribe(1, b"\xff"))):
            with self.subTest(name):
                c = self.connect()
                c.try_send(data)
                c.expect_closed()

    def test_durable(self):
        s = self.connect("udur", clean=False).subscribe(("udur/a", 1), ("udur/b", 1))
        s.unsubscribe("udur/a").disconnect()
        self.connect().publish("udur/a", "x", 1).publish("udur/b", "y", 1)
        s = self.connect("udur", clean=False, present=True)
        s.settle(s.expect_publish("udur/b", "y"))
        s.expect_nothing()


class Bridge(BrokerTest):
    """The high bit of the level: another broker's bridge."""

    def bridge(self, version=4, **fields):
        c = self.client(version)
        c.send(connect("bridge-%d" % version, version=version, level=0x80 | version, **fields))
        c.expect_type(CONNACK)
        return c

    def test_own_messages_do_not_come_back(self):
        for version in (3, 4):
            c = self.bridge(version).subscribe(("br/#", 1))
            other = self.connect().subscribe(("br/t", 1))
            c.publish("br/t", "x", 1).publish("br/t", "y", 0)
            self.assertEqual([m.payload for m in other.take(2)], [b"x", b"y"])
            c.expect_nothing()
            other.unsubscribe("br/t")
            other.publish("br/t", "z", 1)
            c.settle(c.expect_publish("br/t", "z", 1))
            c.unsubscribe("br/#")

    def test_retain_flag_is_kept(self):
        c = self.bridge().subscribe(("brr/t", 1))
        p = self.connect().publish("brr/t", "x", 1, retain=True)
        c.settle(c.expect_publish("brr/t", "x", 1, retain=True))
        p.publish("brr/t", "y", 1, retain=False)
        c.settle(c.expect_publish("brr/t", "y", 1, retain=False))
        p.publish("brr/t", "", 1, retain=True)


class System(BrokerTest):
    def test_clients_cannot_publish_below_sys(self):
        """Not delivered and not retained; the answer comes all the same in 3.1.1."""
        s = self.connect().subscribe(("$SYS/forged/#", 0))
        p = self.connect()
        p.publish("$SYS/forged/a", "x", 1, retain=True).publish("$SYS/forged/b", "x", 0)
        p.publish("$SYS/forged/c", "x", 2)
        self.assertTrue(p.is_alive())
        s.expect_nothing()
        self.connect().subscribe(("$SYS/forged/#", 0)).expect_nothing()

    def test_other_dollar_topics_are_the_clients(self):
        s = self.connect().subscribe(("$mine/a", 0))
        self.connect().publish("$mine/a", "x")
        s.expect_publish("$mine/a", "x")


if __name__ == "__main__":
    main()
