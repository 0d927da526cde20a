# SPDX-License-Identifier: Apache-2.0
"""QoS 0, 1 and 2 both ways: flows, resumption, order, windows, queues, packet identifiers."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403


class Inbound(BrokerTest):
    """The client publishes."""

    def test_qos_0_has_no_answer(self):
        s = self.connect().subscribe(("in/0", 0))
        p = self.connect()
        p.send(publish("in/0", "x"), pingreq())
        p.expect(pingresp())
        s.expect(publish("in/0", "x"))

    def test_qos_1(self):
        """[MQTT-4.3.2-2] any identifier but 0."""
        s = self.connect().subscribe(("in/1", 1))
        p = self.connect()
        for pid in (1, 2, 0x0100, 0x7FFF, 0xFFFF):
            p.send(publish("in/1", "m%d" % pid, 1, pid))
            p.expect(puback(pid))
            s.settle(s.expect_publish("in/1", "m%d" % pid, 1, False, False))

    def test_qos_2(self):
        """[MQTT-4.3.3-2]"""
        s = self.connect().subscribe(("in/2", 2))
        p = self.connect()
        for pid in (1, 0xFFFF):
            p.send(publish("in/2", "m%d" % pid, 2, pid))
            p.expect(pubrec(pid))
            p.send(pubrel(pid))
            p.expect(pubcomp(pid))
            s.settle(s.expect_publish("in/2", "m%d" % pid, 2, False, False))
        s.expect_nothing()

    def test_qos_2_repetition_is_suppressed(self):
        """Until PUBREL the same identifier is the same message; after it a new one."""
        s = self.connect().subscribe(("in/dup", 0))
        p = self.connect()
        p.send(publish("in/dup", "one", 2, 5), publish("in/dup", "one", 2, 5, dup=True))
        p.expect(pubrec(5), pubrec(5))
        p.send(pubrel(5), publish("in/dup", "two", 2, 5))
        p.expect(pubcomp(5), pubrec(5))
        p.send(pubrel(5))
        p.expect(pubcomp(5))
        self.assertEqual([m.payload for m in (s.recv(), s.recv())], [b"one", b"two"])
        s.expect_nothing()

    def test_qos_2_repetition_over_a_reconnect(self):
        s = self.connect().subscribe(("in/redo", 0))
        p = self.connect("redo", clean=False)
        p.send(publish("in/redo", "one", 2, 5))
        p.expect(pubrec(5))
        p.reset()
        p = self.connect("redo", clean=False, present=True)
        p.send(publish("in/redo", "one", 2, 5, dup=True))
        p.expect(pubrec(5))
        p.send(pubrel(5))
        p.expect(pubcomp(5))
        s.expect_publish("in/redo", "one")
        s.expect_nothing()

    def test_qos_2_released_after_a_reconnect(self):
        s = self.connect().subscribe(("in/rel", 0))
        p = self.connect("rel", clean=False)
        p.send(publish("in/rel", "one", 2, 5))
        p.expect(pubrec(5))
        p.close()
        p = self.connect("rel", clean=False, present=True)
        p.send(pubrel(5))
        p.expect(pubcomp(5))
        p.send(publish("in/rel", "two", 2, 5))
        p.expect(pubrec(5))
        p.send(pubrel(5))
        p.expect(pubcomp(5))
        self.assertEqual([m.payload for m in (s.recv(), s.recv())], [b"one", b"two"])

    def test_qos_1_repetition_is_delivered(self):
        """DUP of QoS 1 is not looked at [MQTT-3.3.1-3]."""
        s = self.connect().subscribe(("in/again", 0))
        p = self.connect()
        p.send(publish("in/again", "x", 1, 5), publish("in/again", "x", 1, 5, dup=True))
        p.expect(puback(5), puback(5))
        s.expect_publish("in/again", "x", dup=False)
        s.expect_publish("in/again", "x", dup=False)

    def test_pubrel_for_unknown(self):
        p = self.connect()
        p.send(pubrel(77))
        p.expect(pubcomp(77))

    def test_acks_for_unknown_are_ignored(self):
        p = self.connect()
        p.send(puback(7), pubcomp(9), pingreq())
        p.expect(pingresp())

    def test_pubrec_for_unknown(self):
        """Answered with PUBREL, so that the other side can end its flow."""
        p = self.connect()
        p.send(pubrec(8))
        p.expect(pubrel(8))
        p.send(pubcomp(8))
        self.assertTrue(p.is_alive())

    def test_illegal(self):
        """[MQTT-3.3.1-4, 3.3.1-2, 2.3.1-1, 2.2.2-2]"""
        for name, data in (("QoS 3", b"\x36" + publish("a", "x", 2, 1)[1:]),
                           ("identifier 0", publish("a", "x", 1, 0)),
                           ("identifier 0 of QoS 2", publish("a", "x", 2, 0)),
                           ("no identifier", packet(0x32, field("a"))),
                           ("half an identifier", packet(0x32, field("a") + b"\0")),
                           ("PUBREL flags", b"\x60\x02\0\x01"),
                           ("PUBACK too short", b"\x40\x01\0"), ("PUBREL of nothing", b"\x62\0"),
                           ("DISCONNECT flags", b"\xE1\0"), ("CONNACK", connack()), ("type 0", b"\0\0"),
                           ("AUTH", b"\xF0\0")):
            with self.subTest(name):
                c = self.connect()
                c.try_send(data)
                c.expect_closed()

    @deviates("accepts flags and bodies where none may be, and packets only servers send")
    def test_illegal_too(self):
        for name, data in (("PUBACK flags", b"\x42\x02\0\x01"),
                           ("PINGREQ with a body", b"\xC0\x01x"), ("PINGREQ flags", b"\xC1\0"),
                           ("SUBACK", suback(1, 0)), ("UNSUBACK", unsuback(1)), ("PINGRESP", pingresp()),
                           ("DUP with QoS 0", publish("a", "x", 0, dup=True)),
                           ("PUBACK too long", b"\x40\x03\0\x01\0"), ("PUBREC too long", b"\x50\x03\0\x01\0"),
                           ("PUBREL too long", b"\x62\x03\0\x01\0"), ("PUBCOMP too long", b"\x70\x03\0\x01\0"),
                           ("DISCONNECT with a body", b"\xE0\x01\0")):
            with self.subTest(name):
                c = self.connect()
                c.try_send(data)
                c.expect_closed()


class Outbound(BrokerTest):
    """The client subscribes."""

    def test_qos_is_the_lower_one(self):
        """[MQTT-3.8.4-6]"""
        p = self.connect()
        for granted in (0, 1, 2):
            s = self.connect().subscribe(("out/%d" % granted, granted))
            for sent in (0, 1, 2):
                p.publish("out/%d" % granted, "q%d" % sent, sent)
                s.settle(s.expect_publish(payload="q%d" % sent, qos=min(sent, granted)))
            s.expect_nothing(0.05)

    def test_flow_of_qos_2(self):
        s = self.connect().subscribe(("flow/2", 2))
        self.connect().publish("flow/2", "x", 2)
        got = s.expect_publish("flow/2", "x", 2, dup=False)
        s.expect_nothing(0.1)
        s.send(pubrec(got.pid))
        s.expect(pubrel(got.pid))
        s.send(pubrec(got.pid))  # again: its PUBREL may have been lost
        s.expect(pubrel(got.pid))
        s.send(pubcomp(got.pid))
        self.assertTrue(s.is_alive())

    def test_own_messages_come_back(self):
        c = self.connect().subscribe(("self/t", 1))
        c.send(publish("self/t", "x", 1, 3))
        got = [c.recv(), c.recv()]
        self.assertCountEqual([g.type for g in got], [PUBACK, PUBLISH])

    def order(self, qos):
        s = self.connect().subscribe(("order/%d" % qos, 2))
        p = self.connect()
        p.send(*(publish("order/%d" % qos, "%d" % i, qos, i + 1) for i in range(500)))
        if qos == 2:
            p.expect(*(pubrec(i + 1) for i in range(500)))
            p.send(*(pubrel(i + 1) for i in range(500)))
        self.assertEqual([int(m.payload) for m in s.take(500)], list(range(500)))

    def test_order(self):
        """[MQTT-4.6.0-6] one publisher, one topic, one QoS: as sent."""
        self.order(0)
        self.order(1)

    @deviates("acknowledges QoS 2 messages over its limit of 20 at a time, and drops them")
    def test_order_of_qos_2(self):
        self.order(2)

    def test_order_over_topics_and_qos(self):
        """One publisher to one subscriber travels in one line, here within one QoS of delivery."""
        s = self.connect().subscribe(("line/#", 0))
        p = self.connect()
        p.send(*(publish("line/%d" % (i % 7), "%d" % i, i % 2, i + 1) for i in range(400)))
        self.assertEqual([int(m.payload) for m in s.take(400)], list(range(400)))

    def test_acks_come_in_order(self):
        """[MQTT-4.6.0-2, 3, 4]"""
        p = self.connect()
        p.send(*(publish("acks/1", "x", 1, i) for i in range(1, 301)))
        p.expect(*(puback(i) for i in range(1, 301)))
        p.send(*(publish("acks/2", "x", 2, i) for i in range(1, 301)))
        p.expect(*(pubrec(i) for i in range(1, 301)))
        p.send(*(pubrel(i) for i in range(1, 301)))
        p.expect(*(pubcomp(i) for i in range(1, 301)))

    def test_payloads(self):
        s = self.connect().subscribe(("size/t", 1))
        p = self.connect()
        for n in (0, 1, 127, 128, 16384, 65536, 1 << 20):
            data = os.urandom(n)
            p.publish("size/t", data, 1)
            s.settle(s.expect_publish("size/t", data, 1))


class Resume(BrokerTest):
    """A durable session over the end of its connection."""

    def pair(self, name, qos):
        s = self.connect(name, clean=False).subscribe((name + "/t", qos))
        return s, self.connect()

    def test_qos_1_repeated(self):
        """[MQTT-4.4.0-1] DUP, same identifiers, same order; what was acknowledged is not repeated."""
        for end in ("close", "reset", "disconnect"):
            name = "r1-" + end
            s, p = self.pair(name, 1)
            for i in range(6):
                p.publish(name + "/t", "%d" % i, 1)
            got = [s.expect_publish() for _ in range(6)]
            self.assertEqual(len({g.pid for g in got}), 6)
            s.send(puback(got[0].pid), puback(got[1].pid))
            s.is_alive()
            getattr(s, end)()
            s = self.connect(name, clean=False, present=True)
            for g in got[2:]:
                again = s.expect_publish(payload=g.payload, qos=1, dup=True)
                self.assertEqual(again.pid, g.pid)
                s.send(puback(g.pid))
            s.expect_nothing()
            p.publish(name + "/t", "new", 1)
            s.settle(s.expect_publish(payload="new", dup=False))

    def test_qos_1_repeated_every_time(self):
        s, p = self.pair("every", 1)
        p.publish("every/t", "x", 1)
        pid = s.expect_publish(dup=False).pid
        for _ in range(3):
            s.close()
            s = self.connect("every", clean=False, present=True)
            self.assertEqual(s.expect_publish(payload="x", dup=True).pid, pid)
        s.send(puback(pid))
        s.is_alive()
        s.close()
        self.connect("every", clean=False, present=True).expect_nothing()

    def test_qos_2_resumed_at_each_step(self):
        """PUBLISH with DUP before PUBREC, PUBREL after it, nothing after PUBCOMP."""
        s, p = self.pair("step", 2)
        for i in range(4):
            p.publish("step/t", "%d" % i, 2)
        got = [s.expect_publish(qos=2, dup=False) for _ in range(4)]
        s.send(pubrec(got[0].pid), pubrec(got[1].pid))
        s.expect(pubrel(got[0].pid), pubrel(got[1].pid))
        s.send(pubcomp(got[0].pid))
        s.is_alive()
        s.reset()
        s = self.connect("step", clean=False, present=True)
        again = [s.recv() for _ in range(3)]
        rels = [g.pid for g in again if g.type == PUBREL]
        pubs = [(g.pid, g.payload, g.dup, g.qos) for g in again if g.type == PUBLISH]
        self.assertEqual(rels, [got[1].pid])
        self.assertEqual(pubs, [(g.pid, g.payload, True, 2) for g in got[2:]])
        s.send(pubcomp(got[1].pid), pubrec(got[2].pid), pubrec(got[3].pid))
        s.expect(pubrel(got[2].pid), pubrel(got[3].pid))
        s.send(pubcomp(got[2].pid), pubcomp(got[3].pid))
        s.is_alive()
        s.close()
        self.connect("step", clean=False, present=True).expect_nothing()

    def test_clean_session_repeats_nothing(self):
        s = self.connect("norepeat").subscribe(("norepeat/t", 1))
        self.connect().publish("norepeat/t", "x", 1)
        s.expect_publish()
        s.reset()
        self.connect("norepeat").expect_nothing()

    def test_queued_while_away(self):
        s, p = self.pair("away", 2)
        s.disconnect()
        for i in range(60):
            p.publish("away/t", "%d" % i, 1 + i % 2)
        s = self.connect("away", clean=False, present=True)
        got = s.take(60)
        self.assertEqual([int(m.payload) for m in got], list(range(60)))
        self.assertEqual([m.qos for m in got], [1 + i % 2 for i in range(60)])
        self.assertFalse(any(m.dup for m in got))

    def test_qos_0_is_not_queued(self):
        s, p = self.pair("away0", 2)
        s.disconnect()
        p.publish("away0/t", "lost", 0).publish("away0/t", "kept", 1)
        s = self.connect("away0", clean=False, present=True)
        s.settle(s.expect_publish(payload="kept"))
        s.expect_nothing()

    def test_queued_behind_what_is_in_flight(self):
        """Resumed first, then what came meanwhile."""
        s, p = self.pair("mix", 1)
        p.publish("mix/t", "0", 1).publish("mix/t", "1", 1)
        s.expect_publish(payload="0")
        s.expect_publish(payload="1")
        s.close()
        time.sleep(0.2 * SLOW)  # else it may be sent to the connection that is ending, and then again with DUP
        p.publish("mix/t", "2", 1)
        s = self.connect("mix", clean=False, present=True)
        self.assertEqual([(m.payload, m.dup) for m in s.take(3)],
                         [(b"0", True), (b"1", True), (b"2", False)])


class Window(BrokerTest):
    config = "max_inflight_messages 3"

    @deviates("one more is sent after the first acknowledgement")
    def test_qos_1(self):
        s = self.connect().subscribe(("w/1", 1))
        p = self.connect()
        for i in range(8):
            p.publish("w/1", "%d" % i, 1)
        got = [s.expect_publish(payload="%d" % i) for i in range(3)]
        s.expect_nothing()
        for i in range(3, 8):
            s.send(puback(got[i - 3].pid))
            got.append(s.expect_publish(payload="%d" % i))
            s.expect_nothing(0.05)

    @deviates("one more is sent after the first acknowledgement")
    def test_qos_2_until_pubcomp(self):
        s = self.connect().subscribe(("w/2", 2))
        p = self.connect()
        for i in range(5):
            p.publish("w/2", "%d" % i, 2)
        got = [s.expect_publish(payload="%d" % i) for i in range(3)]
        s.send(pubrec(got[0].pid))
        s.expect(pubrel(got[0].pid))
        s.expect_nothing()
        s.send(pubcomp(got[0].pid))
        s.expect_publish(payload="3")
        s.expect_nothing()

    def test_qos_0_comes_in_the_end(self):
        """It may stand behind those that wait (their order is kept), or pass them."""
        s = self.connect().subscribe(("w/0/#", 1))
        p = self.connect()
        for i in range(5):
            p.publish("w/0/a", "%d" % i, 1)
        p.publish("w/0/b", "now", 0)
        got = s.take(6)
        self.assertEqual([m.payload for m in got if m.qos == 1], [b"%d" % i for i in range(5)])
        self.assertEqual([m.payload for m in got if m.qos == 0], [b"now"])

    def test_after_a_reconnect(self):
        s = self.connect("w-again", clean=False).subscribe(("w/again", 1))
        p = self.connect()
        for i in range(6):
            p.publish("w/again", "%d" % i, 1)
        for i in range(3):
            s.expect_publish(payload="%d" % i)
        s.reset()
        s = self.connect("w-again", clean=False, present=True)
        got = [s.expect_publish(payload="%d" % i, dup=True) for i in range(3)]
        s.expect_nothing()
        s.send(puback(got[0].pid))
        s.expect_publish(payload="3", dup=False)


class Queue(BrokerTest):
    config = "max_inflight_messages 2\nmax_queued_messages 5"

    def test_offline(self):
        """The newest ones are dropped; their publisher is answered all the same."""
        self.connect("q-off", clean=False).subscribe(("q/off", 1)).disconnect()
        p = self.connect()
        for i in range(20):
            p.publish("q/off", "%d" % i, 1)
        s = self.connect("q-off", clean=False, present=True)
        self.assertEqual([int(m.payload) for m in s.take(5)], list(range(5)))
        s.expect_nothing()
        p.publish("q/off", "after", 1)
        s.settle(s.expect_publish(payload="after"))

    def test_online(self):
        """Two in flight and five waiting."""
        s = self.connect().subscribe(("q/on", 1))
        p = self.connect()
        for i in range(20):
            p.publish("q/on", "%d" % i, 1)
        self.assertEqual([int(m.payload) for m in s.take(7)], list(range(7)))
        s.expect_nothing()


class QueueBytes(BrokerTest):
    config = "max_queued_messages 0\nmax_queued_bytes 10000"

    def test_bytes(self):
        self.connect("q-bytes", clean=False).subscribe(("q/bytes", 1)).disconnect()
        p = self.connect()
        for i in range(30):
            p.publish("q/bytes", b"%02d" % i + bytes(998), 1)
        s = self.connect("q-bytes", clean=False, present=True)
        numbers = []
        try:
            while True:
                numbers.append(int(s.take(1, 0.5)[0].payload[:2]))
        except Silence:
            pass
        self.assertEqual(numbers, list(range(len(numbers))))
        self.assertTrue(7 <= len(numbers) <= 11, numbers)


class PacketIds(BrokerTest):
    config = "max_inflight_messages 0\nmax_queued_messages 0\nmax_queued_bytes 0"

    @deviates("gives identifiers out again that are in use")
    def test_exhaustion(self):
        """65,535 in flight, no identifier twice, the rest waits [MQTT-2.3.1-4]."""
        s = self.connect(keepalive=0).subscribe(("ids", 1))
        p = self.connect(keepalive=0)
        total, batch = 65600, 2000
        got = []
        for at in range(0, total, batch):
            n = min(batch, total - at)
            p.send(*(publish("ids", "%d" % (at + i), 1, i + 1) for i in range(n)))
            for i in range(n):
                p.expect_type(PUBACK)
            while len(got) < min(at + n, 65535):
                got.append(s.expect_publish(dup=False))
        self.assertEqual(len({g.pid for g in got}), 65535)
        self.assertEqual([int(g.payload) for g in got], list(range(65535)))
        s.expect_nothing()
        s.send(puback(got[4711].pid))
        late = s.expect_publish(payload="65535")
        self.assertEqual(late.pid, got[4711].pid)
        s.expect_nothing()

    @deviates("gives identifiers out again that are in use")
    def test_reused_after_wrap(self):
        """A long stream with a few in flight: never one that is in use."""
        s = self.connect().subscribe(("wrap", 1))
        p = self.connect()
        s_held = None
        for round_ in range(70):
            p.send(*(publish("wrap", "x", 1, i + 1) for i in range(1000)))
            for i in range(1000):
                p.expect_type(PUBACK)
            acks = []
            for i in range(1000):
                got = s.recv()
                if s_held is None:
                    s_held = got.pid  # stays unacknowledged over the wrap
                else:
                    self.assertNotEqual(got.pid, s_held)
                    self.assertNotEqual(got.pid, 0)
                    acks.append(puback(got.pid))
            s.send(*acks)


if __name__ == "__main__":
    main()
