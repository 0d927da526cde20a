# SPDX-License-Identifier: Apache-2.0
"""CONNECT of 3.1 and 3.1.1: every flag and field, sessions, takeover, keep alive."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403
import wire  # noqa: E402


class Form(BrokerTest):
    """What is accepted, and what is closed without a CONNACK."""

    def refuse(self, data):
        c = self.client()
        c.try_send(data)
        c.expect_closed()
        c.close()

    def test_both_versions_and_bridge_bit(self):
        for version, level in ((3, 3), (4, 4), (3, 0x83), (4, 0x84)):
            with self.subTest(level=hex(level)):
                c = self.client()
                c.send(connect("lv%d" % level, version=version, level=level))
                c.expect(connack())
                self.assertTrue(c.is_alive())

    def test_wrong_protocol_name(self):
        """[MQTT-3.1.2-1] closed without CONNACK."""
        for name in ("MQTX", "mqtt", "", "MQTTT", "MQIsdP", "HTTP"):
            with self.subTest(name=name):
                self.refuse(connect("wrong-name", name=name))

    def test_unknown_level(self):
        """[MQTT-3.1.2-2] CONNACK 1, then close."""
        for name, level in (("MQTT", 0), ("MQTT", 3), ("MQTT", 6), ("MQTT", 127), ("MQIsdp", 4),
                            ("MQIsdp", 2)):
            with self.subTest(name=name, level=level):
                c = self.client()
                c.send(connect("level", name=name, level=level))
                c.expect(connack(1))
                c.expect_closed()

    def test_reserved_flag(self):
        """[MQTT-3.1.2-3]"""
        self.refuse(connect("flag", flags=0x03))

    def test_fixed_header_flags(self):
        for first in (0x11, 0x12, 0x18, 0x1F):
            self.refuse(bytes([first]) + connect("flags")[1:])

    def test_fixed_header_flags_of_3_1(self):
        """3.1 does not use them, and does not say that they are 0."""
        for first in (0x11, 0x12, 0x18, 0x1F):
            c = self.client(3)
            c.send(bytes([first]) + connect("flags31", version=3)[1:])
            self.assertEqual(c.expect_type(CONNACK).body[1], 0)
            self.assertTrue(c.is_alive())

    def test_will_flags(self):
        """[MQTT-3.1.2-11, 13, 14, 15]"""
        will = Will("w", "gone")
        for name, flags, has_will in (("QoS 3", 0x1E, True), ("QoS without will", 0x0A, False),
                                      ("retain without will", 0x22, False)):
            with self.subTest(name):
                self.refuse(connect("will", will=will if has_will else None, flags=flags))

    def test_will_topic(self):
        for topic in ("", "a/#", "a/+/b", b"a\0b", b"a\xed\xa0\x80", b"\xff"):
            with self.subTest(topic=topic):
                self.refuse(connect("will", will=Will(topic, "gone")))

    def test_will_payload_may_be_empty(self):
        self.connect(will=Will("a/b", ""))

    def test_password_without_username(self):
        """[MQTT-3.1.2-22]"""
        self.refuse(connect("pw", password="secret"))

    def test_flags_without_fields(self):
        """[MQTT-3.1.3-1] the fields stand in order, and they are there."""
        for flags in (0x82, 0xC2, 0x06):
            with self.subTest(flags=hex(flags)):
                self.refuse(connect("missing", flags=flags))

    def test_trailing_bytes(self):
        for tail in (b"\0", b"\0\x01x", b"some more"):
            self.refuse(connect("tail", tail=tail))

    def test_field_without_flag(self):
        """A user name behind the client id without its flag is a trailing field."""
        self.refuse(connect("field", username="u", flags=0x02))

    def test_cut_anywhere(self):
        body = connect("cut", will=Will("w", "x"), username="u", password="p")[2:]
        for n in range(len(body)):
            with self.subTest(bytes=n):
                self.refuse(packet(0x10, body[:n]))

    def test_strings(self):
        """[MQTT-1.5.3-1, 2] no surrogates, no U+0000, well-formed."""
        for bad in (b"a\0b", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xc3", b"\xc0\xaf", b"\xf5\x80\x80\x80"):
            with self.subTest(bad=bad):
                self.refuse(connect(bad))
        for bad in (b"a\0b", b"\xed\xa0\x80", b"\xc3"):
            with self.subTest(user=bad):
                self.refuse(connect("u", username=bad))

    def test_length_of_five_bytes(self):
        self.refuse(b"\x10\x80\x80\x80\x80\x01")

    @deviates("accepts a length that is not the shortest")
    def test_length_not_shortest(self):
        data = connect("longer")
        self.refuse(bytes([0x10, data[1] | 0x80, 0x00]) + data[2:])

    def test_first_packet_is_not_connect(self):
        """[MQTT-3.1.0-1]"""
        for data in (connack(), publish("a", "b"), publish("a", "b", 1, 1), puback(1), pubrec(1), pubrel(1),
                     pubcomp(1), subscribe(1, ("a", 0)), suback(1, 0), unsubscribe(1, "a"), unsuback(1),
                     pingreq(), pingresp(), disconnect(), b"\0\0", b"\xF0\0"):
            with self.subTest(NAMES[data[0] >> 4]):
                self.refuse(data)

    @deviates("the will is replaced before the error is seen, and never sent")
    def test_second_connect(self):
        """[MQTT-3.1.0-2] protocol error: closed, and the will goes out."""
        w = self.connect().subscribe(("second/will", 0))
        c = self.connect("second", will=Will("second/will", "gone"))
        c.send(connect("second"))
        c.expect_closed()
        w.expect_publish("second/will", "gone")

    def test_in_pieces(self):
        c = self.client()
        c.send_pieces(connect("pieces", will=Will("w", "x"), username="u", password="p"))
        c.expect(connack())

    def test_with_more_behind_it(self):
        """What stands behind CONNECT in the same segment is served in order."""
        c = self.client()
        c.send(connect("more"), subscribe(7, ("more/t", 1)), publish("more/t", "x", 1, 9), pingreq())
        c.expect(connack(), suback(7, 1))
        rest = [c.recv().raw for _ in range(3)]
        self.assertCountEqual(rest, [publish("more/t", "x", 1, 1), puback(9), pingresp()])

    def test_disconnect_right_behind_connect(self):
        c = self.client()
        c.send(connect("short"), disconnect())
        c.expect(connack())
        c.expect_closed()

    def test_long_client_id(self):
        for n in (24, 200, 10000):
            self.connect("i" * n)
        for odd in ("a b", "ä€𝄞", "a/b#+$", "x" * 23):
            self.connect(odd)


class EmptyId(BrokerTest):
    def test_clean(self):
        """[MQTT-3.1.3-6, 7] two clients without an id are two clients."""
        a = self.connect("", clean=True)
        b = self.connect("", clean=True)
        self.assertTrue(a.is_alive() and b.is_alive())

    def test_not_clean(self):
        """[MQTT-3.1.3-8] CONNACK 2, then close."""
        c = self.client()
        c.send(connect("", clean=False))
        c.expect(connack(2))
        c.expect_closed()

    def test_version_3_1(self):
        """3.1 has no empty client id."""
        c = self.client(3)
        c.send(connect("", version=3))
        c.expect(connack(2))
        c.expect_closed()


class Session(BrokerTest):
    def test_present(self):
        """[MQTT-3.2.2-1..3]"""
        self.connect("sp", clean=False).disconnect()
        self.connect("sp", clean=False, present=True).disconnect()
        self.connect("sp", clean=True, present=False).disconnect()
        self.connect("sp", clean=False, present=False).disconnect()
        self.connect("sp", clean=True).disconnect()

    def test_not_present_for_3_1(self):
        """The flag's byte is reserved in 3.1."""
        for _ in range(2):
            c = self.client(3)
            c.send(connect("sp3", version=3, clean=False))
            c.expect(connack(0))
            c.disconnect()

    def test_kept_over_versions(self):
        c = self.connect("mixed", version=3, clean=False)
        c.subscribe(("mixed/t", 1)).disconnect()
        c = self.connect("mixed", version=4, clean=False, present=True)
        self.connect().publish("mixed/t", "x", 1)
        c.settle(c.expect_publish("mixed/t", "x", 1))

    def test_subscriptions_kept(self):
        for end in ("disconnect", "close", "reset"):
            c = self.connect("kept-" + end, clean=False).subscribe(("kept/" + end, 2))
            getattr(c, end)()
            p = self.connect().publish("kept/" + end, "x", 2)
            c = self.connect("kept-" + end, clean=False, present=True)
            self.assertEqual(c.take(1)[0].payload, b"x")
            p.publish("kept/" + end, "y", 1)
            c.settle(c.expect_publish("kept/" + end, "y", 1, dup=False))

    def test_clean_ends_the_stored_one(self):
        """[MQTT-3.1.2-6] neither subscriptions nor queue are left."""
        self.connect("clean", clean=False).subscribe(("clean/t", 1)).disconnect()
        p = self.connect().publish("clean/t", "old", 1)
        c = self.connect("clean", clean=True)
        p.publish("clean/t", "new", 1)
        c.expect_nothing()
        c.disconnect()
        self.connect("clean", clean=False, present=False).expect_nothing()


class Takeover(BrokerTest):
    def test_old_connection_is_closed(self):
        """[MQTT-3.1.4-2]"""
        for clean in (True, False):
            a = self.connect("over-%d" % clean, clean=clean)
            b = self.connect("over-%d" % clean, clean=clean, present=not clean)
            a.expect_closed()
            self.assertTrue(b.is_alive())

    def test_session_is_kept(self):
        a = self.connect("keeps", clean=False).subscribe(("keeps/t", 1))
        p = self.connect().publish("keeps/t", "1", 1)
        first = a.expect_publish("keeps/t", "1", 1, dup=False)
        b = self.connect("keeps", clean=False, present=True)
        a.expect_closed()
        again = b.expect_publish("keeps/t", "1", 1, dup=True)
        self.assertEqual(again.pid, first.pid)
        b.settle(again)
        p.publish("keeps/t", "2", 1)
        b.settle(b.expect_publish("keeps/t", "2", 1, dup=False))

    def test_will_of_the_old_one(self):
        w = self.connect().subscribe(("tw/+", 0))
        self.connect("tw", will=Will("tw/old", "gone"))
        b = self.connect("tw", will=Will("tw/new", "gone"))
        w.expect_publish("tw/old", "gone")
        w.expect_nothing()
        b.disconnect()
        w.expect_nothing()

    def test_many_in_a_row(self):
        """One survives, and it is one that is answered."""
        cs = []
        for _ in range(30):
            c = self.client()
            c.send(connect("race", clean=False))
            cs.append(c)
        alive = 0
        for c in cs:
            try:
                got = c.recv()
                self.assertEqual((got.type, got.body[1]), (CONNACK, 0))
                c.send(pingreq())
                c.expect(pingresp())
                alive += 1
            except (Closed, OSError):
                pass
        survivors = 0
        for c in cs:
            try:
                c.expect_nothing(0.02)
                survivors += 1
            except (Closed, OSError):
                pass
        self.assertEqual(survivors, 1)

    def test_over_listeners_and_versions(self):
        a = self.connect("lv", version=3)
        self.connect("lv", version=4)
        a.expect_closed()


class KeepAlive(BrokerTest):
    def silence(self, c, begin, least, most):
        c.expect_closed(timeout=most)
        took = time.monotonic() - begin
        self.assertGreaterEqual(took, least)

    def test_closed_at_one_and_a_half(self):
        """[MQTT-3.1.2-24] with the will."""
        w = self.connect().subscribe(("ka/will", 0))
        c = self.connect(keepalive=1, will=Will("ka/will", "late"))
        self.silence(c, time.monotonic(), 1.3, 1.5 + 1.5 * SLOW)
        w.expect_publish("ka/will", "late")

    def test_any_packet_keeps_alive(self):
        c = self.connect(keepalive=1)
        for _ in range(7):
            time.sleep(0.5)
            c.send(publish("ka/any", "x"))
        self.assertTrue(c.is_alive())

    @deviates("messages sent to a client count for its keep alive")
    def test_received_messages_do_not(self):
        c = self.connect(keepalive=1).subscribe(("ka/in", 0))
        begin = time.monotonic()
        p = self.connect()
        try:
            while time.monotonic() - begin < 1.5 + 1.5 * SLOW:
                p.publish("ka/in", "x")
                c.expect_publish("ka/in", "x")
                time.sleep(0.1)
            self.fail("still connected")
        except (Closed, OSError):
            self.assertGreaterEqual(time.monotonic() - begin, 1.3)

    def test_zero_is_never(self):
        c = self.connect(keepalive=0)
        c.expect_nothing(2.0)
        self.assertTrue(c.is_alive())


class Stalled(unittest.TestCase):
    """A machine that was suspended, a broker without a processor: whoever spoke meanwhile is not taken for silent."""

    def test_pings_lie_unread(self):
        with Broker("shards 2") as b:
            clients = [b.connect("st%d" % i, keepalive=1) for i in range(40)]
            b.signal(signal.SIGSTOP)
            try:
                for _ in range(10):
                    time.sleep(0.25)
                    for c in clients:
                        c.send(pingreq())
            finally:
                b.signal(signal.SIGCONT)
            for c in clients:
                c.expect_type(PINGRESP)


class Silent(BrokerTest):
    config = "connect_timeout 1"

    @ours("connect_timeout")
    def test_nothing_sent(self):
        c = self.client()
        c.expect_closed(timeout=1.0 + 2.0 * SLOW)

    @ours("connect_timeout")
    def test_a_byte_now_and_then(self):
        """Half a CONNECT does not help, and bytes that trickle in do not either."""
        data = connect("trickle")
        a, b = self.client(), self.client()
        a.send(data[:-1])
        begin = time.monotonic()
        for i in range(30):
            if not b.try_send(data[i:i + 1]):
                break
            try:
                b.expect_nothing(0.1)
            except Closed:
                break
        self.assertLess(time.monotonic() - begin, 1.0 + 2.0 * SLOW)
        a.expect_closed(timeout=1.0)

    def test_port_probe_leaves_nothing(self):
        before = self.broker.fds()
        for _ in range(200):
            self.broker.client().close()
        # A few of the broker's own may be opened by threads that were just starting.
        wait_until(lambda: self.broker.fds() <= before + 5, "descriptors freed")
        self.assertTrue(self.connect().is_alive())


if __name__ == "__main__":
    main()
