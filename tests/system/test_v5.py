# SPDX-License-Identifier: Apache-2.0
"""MQTT 5.0 over time and over several clients: expiry, wills, flow control, aliases, takeover, shared subscriptions.

What one packet and its answer show is in tests/wire.
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403

EXPIRES, CONTENT_TYPE, SESSION_EXPIRY, WILL_DELAY = 0x02, 0x03, 0x11, 0x18
RECEIVE_MAXIMUM, ALIAS_MAXIMUM, ALIAS, USER, MAX_PACKET = 0x21, 0x22, 0x23, 0x26, 0x27
NEVER = 0xFFFFFFFF


def v5(test, client_id=None, *pairs, **fields):
    return test.connect(client_id, version=5, props=props(*pairs), **fields)


def leave(c, *pairs, reason=0):
    """DISCONNECT with a reason and properties; the connection is closed when this returns."""
    c.send(packet(0xE0, bytes([reason]) + props(*pairs)))
    c.expect_closed()
    c.close()


def expect_reason(c, reason, timeout=TIMEOUT):
    """DISCONNECT with this reason, then the close; acknowledgements before it are passed over."""
    while True:
        got = c.recv(timeout)
        if got.type not in (PUBACK, PUBREC, PUBCOMP):
            break
    if got.type != DISCONNECT or got.body[:1] != bytes([reason]):
        raise AssertionError("got %r, expected DISCONNECT 0x%02X" % (got, reason))
    try:
        got = c.recv(timeout)
    except Closed:
        return
    raise AssertionError("got %r behind DISCONNECT" % got)


def error_ack(first, pid, reason=0x80):
    return packet(first, u16(pid) + bytes([reason]))


def of(found, ident):
    """The one value of a property, None without it."""
    values = [v for i, v in found if i == ident]
    if len(values) > 1:
        raise AssertionError("property 0x%02X %d times" % (ident, len(values)))
    return values[0] if values else None


def received(c, quiet=None):
    """All PUBLISH that come until it is quiet, without an answer."""
    out = []
    while True:
        try:
            out.append(c.expect_type(PUBLISH, QUIET if quiet is None else quiet))
        except Silence:
            return out


class SessionExpiry(BrokerTest):
    config = "shards 4"

    def left(self, client_id, seconds, lost=False):
        """A session with a subscription and a message, without a connection."""
        c = v5(self, client_id, (SESSION_EXPIRY, seconds)).subscribe(("se/" + client_id, 1))
        if lost:
            c.reset()
            self.connect(version=5).is_alive()
        else:
            c.disconnect()
        v5(self).publish("se/" + client_id, "kept", 1)

    def back(self, client_id, present, *pairs):
        c = v5(self, client_id, *pairs, clean=False, present=present)
        if present:
            c.settle(c.expect_publish(payload="kept"))
        else:
            c.expect_nothing()
        return c

    def test_resume_before(self):
        self.left("before", 30)
        self.back("before", True, (SESSION_EXPIRY, 30))

    def test_lost_connection(self):
        self.left("lost", 30, lost=True)
        self.back("lost", True)

    def test_gone_after(self):
        self.left("after", 1)
        time.sleep(2.2)
        self.back("after", False)

    def test_never(self):
        self.left("never", NEVER)
        time.sleep(1.2)
        self.back("never", True)

    def test_zero_and_none(self):
        self.left("zero", 0)
        self.back("zero", False)
        v5(self, "none").disconnect()
        v5(self, "none", clean=False, present=False)

    def test_clock_starts_at_the_end(self):
        c = v5(self, "runs", (SESSION_EXPIRY, 1))
        time.sleep(2.2)
        c.disconnect()
        v5(self, "runs", (SESSION_EXPIRY, 1), clean=False, present=True)

    def test_shorter_at_disconnect(self):
        c = v5(self, "short", (SESSION_EXPIRY, 100))
        leave(c, (SESSION_EXPIRY, 0))
        v5(self, "short", clean=False, present=False)
        c = v5(self, "short", (SESSION_EXPIRY, 100))
        leave(c, (SESSION_EXPIRY, 1))
        c = v5(self, "short", (SESSION_EXPIRY, 100), clean=False, present=True)
        leave(c, (SESSION_EXPIRY, 1))
        time.sleep(2.2)
        v5(self, "short", clean=False, present=False)

    def test_longer_at_disconnect(self):
        c = v5(self, "long", (SESSION_EXPIRY, 1))
        leave(c, (SESSION_EXPIRY, 100))
        time.sleep(2.2)
        v5(self, "long", clean=False, present=True)

    def test_not_from_zero(self):
        """[MQTT-3.14.2-2]"""
        c = v5(self, "fromzero")
        c.send(packet(0xE0, b"\0" + props((SESSION_EXPIRY, 10))))
        expect_reason(c, 0x82)
        v5(self, "fromzero", clean=False, present=False)

    def test_new_value_at_reconnect(self):
        self.left("renew", 100)
        self.back("renew", True).disconnect()  # expiry 0 from now on
        self.back("renew", False)

    def test_resumed_by_the_other_version(self):
        """A session belongs to the client id: 3.1.1 with clean session false finds it, and back."""
        self.left("other", 100)
        c = self.connect("other", version=4, clean=False, present=True)
        c.settle(c.expect_publish(payload="kept"))
        c.disconnect()
        v5(self, "other", clean=False, present=True)


class WillDelay(BrokerTest):
    config = "shards 4"

    def watch(self):
        return v5(self, "watch-" + self.name[5:]).subscribe(("wd/" + self.name, 1))

    def dying(self, client_id, delay, expiry, qos=1, more=(), **fields):
        will = Will("wd/" + self.name, "gone", qos, props=props((WILL_DELAY, delay), *more))
        return v5(self, client_id, (SESSION_EXPIRY, expiry), will=will, **fields)

    def test_at_delay(self):
        w = self.watch()
        begin = time.monotonic()
        self.dying("wd-a", 2, 60).reset()
        w.expect_publish(payload="gone", qos=1, timeout=3.5 * SLOW)
        self.assertGreater(time.monotonic() - begin, 1.9)

    def test_cancelled_by_resume(self):
        w = self.watch()
        self.dying("wd-b", 1, 60).reset()
        v5(self, "wd-b", (SESSION_EXPIRY, 60), clean=False, present=True)
        w.expect_nothing(2.0)

    def test_resume_has_its_own(self):
        """The will of the new CONNECT counts, once."""
        w = self.watch()
        self.dying("wd-c", 1, 60).reset()
        self.dying("wd-c", 1, 60, clean=False, present=True).reset()
        w.settle(w.expect_publish(payload="gone", timeout=2.5 * SLOW))
        w.expect_nothing(1.5)

    def test_not_by_clean_start(self):
        """The session ends, and with it the delay."""
        w = self.watch()
        self.dying("wd-d", 30, 60).reset()
        v5(self, "wd-d", clean=True)
        w.settle(w.expect_publish(payload="gone", timeout=1.0 * SLOW))
        w.expect_nothing()

    def test_ended_by_session_end(self):
        w = self.watch()
        begin = time.monotonic()
        self.dying("wd-e", 30, 1).reset()
        w.settle(w.expect_publish(payload="gone", timeout=2.5 * SLOW))
        self.assertGreater(time.monotonic() - begin, 0.9)
        w.expect_nothing()

    def test_no_session_no_delay(self):
        w = self.watch()
        self.dying("wd-f", 30, 0).reset()
        w.expect_publish(payload="gone", timeout=1.0 * SLOW)

    def test_disconnect_with_will(self):
        w = self.watch()
        leave(self.dying("wd-g", 0, 60), reason=4)
        w.settle(w.expect_publish(payload="gone", timeout=1.0 * SLOW))
        leave(self.dying("wd-g", 1, 60), reason=4)
        w.expect_nothing(0.6)
        w.settle(w.expect_publish(payload="gone", timeout=2.0 * SLOW))
        leave(self.dying("wd-g", 30, 60), (SESSION_EXPIRY, 0), reason=4)
        w.settle(w.expect_publish(payload="gone", timeout=1.0 * SLOW))
        leave(self.dying("wd-g", 0, 60))
        w.expect_nothing()

    def test_takeover(self):
        """Resumed: a delayed will is not sent, one without delay is. Clean start: it is sent."""
        w = self.watch()
        self.dying("wd-h", 1, 60)
        v5(self, "wd-h", (SESSION_EXPIRY, 60), clean=False, present=True)
        w.expect_nothing(1.6)
        self.dying("wd-i", 0, 60)
        v5(self, "wd-i", (SESSION_EXPIRY, 60), clean=False, present=True)
        w.settle(w.expect_publish(payload="gone", timeout=1.0 * SLOW))
        self.dying("wd-j", 30, 60)
        v5(self, "wd-j", (SESSION_EXPIRY, 60), clean=True)
        w.settle(w.expect_publish(payload="gone", timeout=1.0 * SLOW))
        w.expect_nothing()

    def test_properties(self):
        """The will's properties travel with it, its expiry counts from publication."""
        w = self.watch()
        more = ((EXPIRES, 20), (CONTENT_TYPE, "text/x"), (USER, ("a", "1")), (USER, ("a", "2")))
        self.dying("wd-k", 2, 60, more=more).reset()
        got = w.expect_publish(payload="gone", timeout=3.5 * SLOW)
        self.assertEqual(got.props, [(CONTENT_TYPE, b"text/x"), (USER, ("a", "1")), (USER, ("a", "2")),
                                     (EXPIRES, 20)])

    def test_protocol_error(self):
        w = self.watch()
        c = self.dying("wd-l", 0, 60)
        c.send(packet(0x30, field("a/+")))
        w.expect_publish(payload="gone", timeout=1.0 * SLOW)


class MessageExpiry(BrokerTest):
    config = "shards 4"

    def pub(self, topic, payload, seconds, qos=1, retain=False):
        c = v5(self)
        c.send(publish(topic, payload, qos, 1 if qos else None, retain, version=5,
                       props=props((EXPIRES, seconds))))
        if qos == 1:
            c.expect_type(PUBACK)
        self.assertTrue(c.is_alive())

    def test_queued(self):
        """Counted down for the absent, in whole seconds; dropped when over."""
        v5(self, "q", (SESSION_EXPIRY, 60)).subscribe(("me/q", 1)).disconnect()
        self.connect("q3", clean=False).subscribe(("me/q", 1)).disconnect()
        self.pub("me/q", "long", 20)
        self.pub("me/q", "short", 1)
        v5(self).publish("me/q", "forever", 1)
        time.sleep(2.3)
        c = v5(self, "q", clean=False, present=True)
        got = c.take(2)
        self.assertEqual([m.payload for m in got], [b"long", b"forever"])
        self.assertIn(of(got[0].props, EXPIRES), (17, 18))
        self.assertIsNone(of(got[1].props, EXPIRES))
        c.expect_nothing()
        c = self.connect("q3", clean=False, present=True)
        self.assertEqual([m.payload for m in c.take(2)], [b"long", b"forever"])
        c.expect_nothing()

    def test_retained(self):
        self.pub("me/r/long", "x", 20, retain=True)
        self.pub("me/r/short", "x", 1, retain=True)
        time.sleep(2.3)
        c = v5(self).subscribe(("me/r/#", 0))
        got = c.expect_publish("me/r/long", retain=True)
        self.assertIn(of(got.props, EXPIRES), (17, 18))
        c.expect_nothing()

    def test_at_once(self):
        c = v5(self).subscribe(("me/o", 0))
        self.pub("me/o", "x", 20)
        self.assertIn(of(c.expect_publish("me/o").props, EXPIRES), (19, 20))

    def test_behind_a_full_window(self):
        """What was not sent expires also while the client is connected; what was sent does not."""
        c = v5(self, "w", (RECEIVE_MAXIMUM, 1)).subscribe(("me/w", 1))
        for text in ("first", "second"):
            self.pub("me/w", text, 1)
        self.pub("me/w", "third", 30)
        first = c.expect_publish(payload="first")
        time.sleep(2.3)
        c.settle(first)
        got = c.settle(c.expect_publish(payload="third"))
        self.assertIn(of(got.props, EXPIRES), (27, 28))
        c.expect_nothing()

    def test_zero(self):
        """Of no use to the absent; a connected subscriber may get it or not."""
        v5(self, "z", (SESSION_EXPIRY, 60)).subscribe(("me/z", 1)).disconnect()
        self.pub("me/z", "x", 0)
        time.sleep(1.0)
        v5(self, "z", clean=False, present=True).expect_nothing()


class ReceiveMaximum(BrokerTest):
    config = "shards 4\nmax_inflight_messages 5"

    def flood(self, topic, n, qos):
        p = v5(self)
        for i in range(n):
            p.publish(topic, "%d" % i, qos)

    def test_out_qos1(self):
        c = v5(self, None, (RECEIVE_MAXIMUM, 3)).subscribe(("rm/1", 1))
        self.flood("rm/1", 10, 1)
        got = received(c)
        self.assertEqual(len(got), 3)
        for i in range(7):
            c.settle(got.pop(0))
            got.append(c.expect_publish(payload="%d" % (i + 3)))
            c.expect_nothing(0.02)

    def test_broker_has_its_own_limit(self):
        """max_inflight_messages 5; a client that takes more gets five."""
        c = v5(self, None, (RECEIVE_MAXIMUM, 100)).subscribe(("rm/own", 1))
        self.flood("rm/own", 10, 1)
        self.assertEqual(len(received(c)), 5)

    def test_out_qos2(self):
        """A place is free at PUBCOMP, not at PUBREC; at a PUBREC with an error at once."""
        c = v5(self, None, (RECEIVE_MAXIMUM, 2)).subscribe(("rm/2", 2))
        self.flood("rm/2", 5, 2)
        a, b = received(c)
        c.send(pubrec(a.pid))
        c.expect(pubrel(a.pid))
        c.expect_nothing()
        c.send(pubcomp(a.pid))
        third = c.expect_publish(payload="2")
        c.expect_nothing(0.05)
        c.send(error_ack(0x50, b.pid))
        fourth = c.expect_publish(payload="3")
        c.expect_nothing()
        c.settle(third)
        c.expect_publish(payload="4")
        self.assertNotIn(fourth.pid, (third.pid,))

    def test_error_puback_frees(self):
        c = v5(self, None, (RECEIVE_MAXIMUM, 1)).subscribe(("rm/e", 1))
        self.flood("rm/e", 3, 1)
        for i in range(3):
            got = c.expect_publish(payload="%d" % i)
            c.send(error_ack(0x40, got.pid, 0x97))
        c.expect_nothing()

    def test_others_not_delayed(self):
        """[MQTT-3.3.4-8] and answers."""
        c = v5(self, None, (RECEIVE_MAXIMUM, 1)).subscribe(("rm/d", 1))
        self.flood("rm/d", 2, 1)
        self.assertEqual(len(received(c)), 1)
        self.assertTrue(c.is_alive())
        c.subscribe(("rm/other", 0))
        c.publish("nobody/here", "x", 2)

    def test_reconnect_with_less(self):
        """The new number also holds for what is repeated."""
        c = v5(self, "less", (RECEIVE_MAXIMUM, 5), (SESSION_EXPIRY, 60)).subscribe(("rm/less", 1))
        self.flood("rm/less", 8, 1)
        first = received(c)
        self.assertEqual(len(first), 5)
        c.reset()
        c = v5(self, "less", (RECEIVE_MAXIMUM, 2), (SESSION_EXPIRY, 60), clean=False, present=True)
        got = received(c)
        self.assertEqual([(m.pid, m.dup, m.payload) for m in got],
                         [(m.pid, True, m.payload) for m in first[:2]])
        for i in range(6):
            c.settle(got.pop(0))
            got.append(c.expect_publish(payload="%d" % (i + 2)))
            self.assertEqual(got[-1].dup, i + 2 < 5)
            c.expect_nothing(0.02)
        c.reset()
        c = v5(self, "less", (RECEIVE_MAXIMUM, 4), clean=False, present=True)
        self.assertEqual([m.payload for m in c.take(2)], [b"6", b"7"])
        c.expect_nothing()

    def test_reconnect_qos2(self):
        """PUBRELs are repeated at once, and do not count: they are no PUBLISH of this connection [4.9]."""
        c = v5(self, "less2", (RECEIVE_MAXIMUM, 4), (SESSION_EXPIRY, 60)).subscribe(("rm/less2", 2))
        self.flood("rm/less2", 6, 2)
        a, b, d, e = received(c)
        c.send(pubrec(a.pid))
        c.expect(pubrel(a.pid))
        c.reset()
        c = v5(self, "less2", (RECEIVE_MAXIMUM, 2), (SESSION_EXPIRY, 60), clean=False, present=True)
        c.expect(pubrel(a.pid))
        for old in (b, d):
            self.assertEqual(c.expect_publish(payload=old.payload, dup=True).pid, old.pid)
        c.expect_nothing()
        c.settle(b)
        self.assertEqual(c.expect_publish(payload="3", dup=True).pid, e.pid)
        c.expect_nothing()
        c.send(pubcomp(a.pid), pubrec(d.pid), pubrec(e.pid))
        left = []
        while len(left) < 2:
            got = c.recv()
            if got.type == PUBLISH:
                left.append(got.payload)
                c.send(pubrec(got.pid))
            else:
                self.assertEqual(got.type, PUBREL)
                c.send(pubcomp(got.pid))
        self.assertEqual(left, [b"4", b"5"])

    def test_in(self):
        """The broker's own maximum: announced, kept, broken with 0x93; errors do not use it up."""
        c = self.client(5)
        c.send(connect("in", version=5))
        found, _ = parse_props(c.expect_type(CONNACK).body, 2)
        self.assertEqual(of(found, RECEIVE_MAXIMUM), 5)
        for round_ in range(3):
            for pid in range(1, 6):
                c.send(publish("rm/in", "x", 2, pid, version=5))
                self.assertEqual(c.expect_type(PUBREC).pid, pid)
            for pid in range(1, 6):
                c.send(pubrel(pid))
                c.expect_type(PUBCOMP)
        for pid in range(1, 21):
            c.send(publish("$SYS/no", "x", 2, pid, version=5))
            got = c.expect_type(PUBREC)
            self.assertEqual(got.body[2], 0x87)
        for pid in range(1, 6):
            c.send(publish("rm/in", "x", 2, pid, version=5))
            c.expect_type(PUBREC)
        c.send(publish("rm/in", "x", 0, version=5))  # does not count
        c.send(publish("rm/in", "again", 2, 3, dup=True, version=5))  # nor does a repeat
        self.assertEqual(c.expect_type(PUBREC).pid, 3)
        c.send(publish("rm/in", "x", 2, 6, version=5))
        expect_reason(c, 0x93)


class PacketSize(BrokerTest):
    config = "shards 4\nmax_packet_size 2000"

    def test_out(self):
        """Not sent, and it counts as delivered; others get it."""
        small = v5(self, "small", (MAX_PACKET, 100)).subscribe(("ps/o", 1))
        other = v5(self, "other").subscribe(("ps/o", 1))
        p = v5(self)
        for size in (10, 500, 11, 86, 12):
            p.publish("ps/o", bytes(size), 1)
        self.assertEqual([len(m.payload) for m in small.take(4)], [10, 11, 86, 12])
        small.expect_nothing()
        self.assertEqual([len(m.payload) for m in other.take(5)], [10, 500, 11, 86, 12])

    def test_exact(self):
        """One byte decides: 2 + 2 + 4 + 2 + 1 bytes and the payload."""
        c = v5(self, None, (MAX_PACKET, 60)).subscribe(("ps/e", 1))
        p = v5(self)
        p.publish("ps/e", bytes(49), 1)
        p.publish("ps/e", bytes(50), 1)
        self.assertEqual(len(c.settle(c.expect_publish()).raw), 60)
        c.expect_nothing()

    def test_window_not_used_up(self):
        c = v5(self, None, (MAX_PACKET, 100), (RECEIVE_MAXIMUM, 1)).subscribe(("ps/w", 1))
        p = v5(self)
        for size in (300, 300, 1, 300, 2):
            p.publish("ps/w", bytes(size), 1)
        self.assertEqual([len(m.payload) for m in c.take(2)], [1, 2])

    def test_retained_and_queued(self):
        p = v5(self)
        p.publish("ps/r/large", bytes(500), 1, retain=True)
        p.publish("ps/r/small", bytes(5), 1, retain=True)
        c = v5(self, "rq", (MAX_PACKET, 100), (SESSION_EXPIRY, 60)).subscribe(("ps/r/#", 1))
        c.settle(c.expect_publish("ps/r/small", retain=True))
        c.expect_nothing()
        c.disconnect()
        for size in (500, 6):
            p.publish("ps/r/live", bytes(size), 1)
        c = v5(self, "rq", (MAX_PACKET, 100), (SESSION_EXPIRY, 60), clean=False, present=True)
        self.assertEqual([len(m.payload) for m in c.take(1)], [6])
        c.expect_nothing()
        c.disconnect()
        for size in (500, 7):
            p.publish("ps/r/live", bytes(size), 1)
        c = v5(self, "rq", clean=False, present=True)  # no maximum now
        self.assertEqual([len(m.payload) for m in c.take(2)], [500, 7])

    def test_in(self):
        c = self.client(5)
        c.send(connect("in", version=5))
        found, _ = parse_props(c.expect_type(CONNACK).body, 2)
        self.assertEqual(of(found, MAX_PACKET), 2000)
        whole = publish("ps/i", bytes(2000 - 10), 0, version=5)
        self.assertEqual(len(whole), 2000)
        c.send(whole)
        self.assertTrue(c.is_alive())
        c.send(publish("ps/i", bytes(2000 - 9), 0, version=5))
        expect_reason(c, 0x95)


class Aliases(BrokerTest):
    config = "shards 4"

    def test_in(self):
        s = v5(self).subscribe(("al/#", 0))
        c = v5(self)
        for topic, alias, seen in (("al/a", 1, "al/a"), ("", 1, "al/a"), ("al/b", 10, "al/b"), ("", 10, "al/b"),
                                   ("", 1, "al/a"), ("al/c", 1, "al/c"), ("", 1, "al/c"), ("", 10, "al/b"),
                                   ("al/d", None, "al/d")):
            c.send(publish(topic, "x", version=5, props=props((ALIAS, alias)) if alias else b"\0"))
            got = s.expect_publish(seen)
            self.assertIsNone(of(got.props, ALIAS))

    def test_in_refused_publish_sets_it(self):
        """An alias stands although the message was refused."""
        s = v5(self).subscribe(("al/ok", 0))
        c = v5(self)
        c.send(publish("al/ok", b"\xff\xfe", 1, 1, version=5, props=props((ALIAS, 2), (0x01, 1))))
        self.assertEqual(c.expect_type(PUBACK).body[2], 0x99)
        c.send(publish("", "x", version=5, props=props((ALIAS, 2))))
        s.expect_publish("al/ok", "x")

    def test_in_wrong(self):
        for alias, reason in ((0, 0x94), (11, 0x94), (65535, 0x94)):
            c = v5(self)
            c.send(publish("al/a", "x", version=5, props=props((ALIAS, alias))))
            expect_reason(c, reason)
        c = v5(self)
        c.send(publish("", "x", version=5, props=props((ALIAS, 3))))
        expect_reason(c, 0x82)
        c = v5(self)
        c.send(publish("", "x", version=5))
        expect_reason(c, 0x82)

    def test_in_ends_with_the_connection(self):
        c = v5(self, "al-e", (SESSION_EXPIRY, 60))
        c.send(publish("al/a", "x", version=5, props=props((ALIAS, 1))))
        c.disconnect()
        c = v5(self, "al-e", (SESSION_EXPIRY, 60), clean=False, present=True)
        c.send(publish("", "x", version=5, props=props((ALIAS, 1))))
        expect_reason(c, 0x82)

    def resolve(self, known, m, most):
        alias = of(m.props, ALIAS)
        if alias is not None:
            self.assertTrue(1 <= alias <= most, alias)
            if m.topic:
                known[alias] = m.topic
            return known[alias]
        self.assertNotEqual(m.topic, "")
        return m.topic

    def test_out(self):
        for most in (0, 1, 3, 65535):
            known = {}
            c = v5(self, None, (ALIAS_MAXIMUM, most)).subscribe(("al/out/#", 1))
            p = v5(self)
            short = 0
            for i in range(60):
                topic = "al/out/%d" % (i * i % 7)
                p.publish(topic, "%d" % i, 1)
                m = c.settle(c.expect_publish(payload="%d" % i))
                self.assertEqual(self.resolve(known, m, most), topic)
                short += m.topic == ""
            self.assertEqual(short > 0, most > 0)
            c.disconnect()

    def test_out_not_over_connections(self):
        """What is repeated comes with its topic."""
        c = v5(self, "al-r", (ALIAS_MAXIMUM, 5), (SESSION_EXPIRY, 60)).subscribe(("al/r", 1))
        p = v5(self)
        for i in range(4):
            p.publish("al/r", "%d" % i, 1)
        known = {}
        self.assertEqual([self.resolve(known, m, 5) for m in received(c)], ["al/r"] * 4)
        c.reset()
        c = v5(self, "al-r", (ALIAS_MAXIMUM, 2), clean=False, present=True)
        known = {}
        self.assertEqual([self.resolve(known, m, 2) for m in c.take(4)], ["al/r"] * 4)


class Takeover(BrokerTest):
    config = "shards 4"
    listeners = ["listener {port} 127.0.0.1", "listener 0 {dir}/s"]

    def test_across_listeners(self):
        old = v5(self, "to", (SESSION_EXPIRY, 60)).subscribe(("to/t", 1))
        for which in (1, 0, 1):
            new = v5(self, "to", (SESSION_EXPIRY, 60), which=which, clean=False, present=True)
            expect_reason(old, 0x8E)
            v5(self).publish("to/t", "x", 1)
            new.settle(new.expect_publish("to/t", "x"))
            self.assertTrue(new.is_alive())  # its PUBACK was read
            old = new

    def test_versions(self):
        old = self.connect("tv", version=4)
        new = v5(self, "tv", which=1)
        old.expect_closed()
        newer = self.connect("tv", version=4)
        expect_reason(new, 0x8E)
        self.assertTrue(newer.is_alive())

    def test_in_flight_goes_over(self):
        old = v5(self, "tf", (SESSION_EXPIRY, 60)).subscribe(("to/f", 2))
        p = v5(self)
        for i in range(3):
            p.publish("to/f", "%d" % i, 2)
        first = received(old)
        new = v5(self, "tf", which=1, clean=False, present=True)
        expect_reason(old, 0x8E)
        for m in first:
            got = new.expect_publish(payload=m.payload, dup=True)
            self.assertEqual(got.pid, m.pid)

    def test_many_at_once(self):
        """The same id from everywhere: one is left, and it works."""
        cs = [self.client(5, i % 2) for i in range(40)]
        for c in cs:
            c.send(connect("tm", version=5))
        alive = 0
        for c in cs:
            try:
                self.assertEqual(c.recv().type, CONNACK)
                c.is_alive()
                alive += 1
            except (Closed, OSError):
                pass
        deadline = time.monotonic() + 3 * SLOW
        while alive != 1 and time.monotonic() < deadline:
            alive = 0
            for c in cs:
                try:
                    c.is_alive()
                    alive += 1
                except (Closed, OSError):
                    pass
        self.assertEqual(alive, 1)


class Shared(BrokerTest):
    config = "shards 4"

    def member(self, client_id=None, topic=None, qos=1, version=5, pairs=(), group="g"):
        fields = {"props": props(*pairs)} if version == 5 else {}
        c = self.connect(client_id, version=version, **fields)
        return c.subscribe(("$share/%s/%s" % (group, topic or "sh/" + self.name), qos))

    def publish(self, n, qos=1, topic=None, first=0):
        p = v5(self)
        for i in range(first, first + n):
            p.publish(topic or "sh/" + self.name, "%d" % i, qos)

    def drain(self, members, n):
        """Messages of each, acknowledged, until there are n in all; then nothing more comes."""
        got = [[] for _ in members]
        deadline = time.monotonic() + 10 * SLOW
        while sum(map(len, got)) < n and time.monotonic() < deadline:
            for c, mine in zip(members, got):
                try:
                    while True:
                        m = c.recv(0.01)
                        if m.type == PUBLISH:
                            mine.append(m)
                            if m.qos == 1:
                                c.send(puback(m.pid))
                            elif m.qos == 2:
                                c.send(pubrec(m.pid))
                        elif m.type == PUBREL:
                            c.send(pubcomp(m.pid))
                except Silence:
                    pass
        for c in members:
            try:
                m = c.recv(0.1)
                while m.type == PUBREL:
                    c.send(pubcomp(m.pid))
                    m = c.recv(0.1)
                raise AssertionError("more than %d: %r" % (n, m))
            except Silence:
                pass
        self.assertEqual(sum(map(len, got)), n)
        return [[int(m.payload) for m in mine] for mine in got]

    def test_fair(self):
        """Eight members on four shards, equal within 10 %; each message once."""
        for qos, n in ((0, 800), (1, 800), (2, 400)):
            topic = "sh/fair/%d" % qos
            members = [self.member("fair-%d-%d" % (qos, i), topic, qos) for i in range(8)]
            self.publish(n, qos, topic)
            got = self.drain(members, n)
            self.assertEqual(sorted(sum(got, [])), list(range(n)))
            for mine in got:
                self.assertLessEqual(abs(len(mine) - n / 8), n / 80, [len(x) for x in got])
                self.assertEqual(mine, sorted(mine))  # order per member
            for c in members:
                c.disconnect()

    def test_fair_over_publishers(self):
        members = [self.member("fp-%d" % i) for i in range(8)]
        publishers = [v5(self) for _ in range(8)]
        for i in range(800):
            publishers[i % 8].send(publish("sh/" + self.name, "%d" % i, 0, version=5))
        counts = [len(x) for x in self.drain(members, 800)]
        for n in counts:
            self.assertLessEqual(abs(n - 100), 10, counts)

    def test_uneven_shards(self):
        """Fair over members, not over shards: a joined and a left member change the shares."""
        members = [self.member("us-%d" % i) for i in range(3)]
        self.publish(300)
        self.assertTrue(all(abs(len(x) - 100) <= 10 for x in self.drain(members, 300)))
        members.append(self.member("us-3"))
        self.publish(400)
        self.assertTrue(all(abs(len(x) - 100) <= 10 for x in self.drain(members, 400)))
        members.pop(0).disconnect()
        self.publish(300)
        self.assertTrue(all(abs(len(x) - 100) <= 10 for x in self.drain(members, 300)))

    def test_online_before_offline(self):
        for i in range(4):
            self.member("off-%d" % i, pairs=((SESSION_EXPIRY, 60),)).disconnect()
        online = self.member("on-1")
        self.publish(40)
        self.assertEqual(self.drain([online], 40), [list(range(40))])

    def test_nobody_online(self):
        """Kept by the stored sessions of members, and given to those that come back."""
        for i in range(4):
            self.member("no-%d" % i, pairs=((SESSION_EXPIRY, 60),)).disconnect()
        self.publish(40)
        back = [v5(self, "no-%d" % i, clean=False, present=True) for i in range(4)]
        got = self.drain(back, 40)
        self.assertEqual(sorted(sum(got, [])), list(range(40)))

    def test_unsent_move(self):
        """A member whose connection ends gives back what it was not sent; what was sent stays its own."""
        slow = self.member("slow", pairs=((SESSION_EXPIRY, 60), (RECEIVE_MAXIMUM, 1)))
        other = self.member("other")
        self.publish(20)
        first = received(slow)
        self.assertEqual(len(first), 1)
        slow.reset()
        got = self.drain([other], 19)
        sent = int(first[0].payload)
        self.assertEqual(sorted(got[0]), [i for i in range(20) if i != sent])
        slow = v5(self, "slow", clean=False, present=True)
        self.assertEqual([(m.payload, m.dup) for m in slow.take(1)], [(first[0].payload, True)])
        slow.expect_nothing()

    def test_unsubscribe_with_unsent(self):
        """What is in flight is completed; the rest goes to either, once."""
        slow = self.member("slow-u", pairs=((RECEIVE_MAXIMUM, 1),))
        other = self.member("other-u")
        self.publish(20)
        first = received(slow)
        self.assertEqual(len(first), 1)
        slow.unsubscribe("$share/g/sh/" + self.name)
        slow.settle(first[0])
        got = self.drain([slow, other], 19)
        self.assertEqual(sorted(got[0] + got[1] + [int(first[0].payload)]), list(range(20)))
        self.publish(5, first=20)
        self.assertEqual([len(x) for x in self.drain([slow, other], 5)], [0, 5])

    def test_session_end_qos1(self):
        """In flight and not acknowledged: sent to another member [MQTT-4.8.2-5]."""
        dying = self.member("dying-1")
        other = self.member("other-1")
        self.publish(20)
        held = received(dying)
        self.assertGreater(len(held), 5)
        for m in held[:3]:
            dying.send(puback(m.pid))
        self.assertTrue(dying.is_alive())
        dying.reset()
        got = self.drain([other], 17)
        self.assertEqual(sorted(got[0] + [int(m.payload) for m in held[:3]]), list(range(20)))

    def test_session_end_by_expiry(self):
        dying = self.member("dying-x", pairs=((SESSION_EXPIRY, 1),))
        other = self.member("other-x")
        self.publish(10)
        held = received(dying)
        dying.reset()
        early = received(other)  # its own half
        self.assertEqual(len(early) + len(held), 10)
        for m in early:
            other.settle(m)
        time.sleep(1.5)
        got = self.drain([other], len(held))
        self.assertEqual(sorted(got[0]), sorted(int(m.payload) for m in held))

    def test_qos2_never_moves(self):
        """Sent once to a member: it is its own until its session ends, and gone then [MQTT-4.8.2-4]."""
        owner = self.member("owner-2", qos=2, pairs=((SESSION_EXPIRY, 60),))
        other = self.member("other-2", qos=2)
        self.publish(10, 2)
        held = received(owner)
        self.assertEqual(len(held), 5)
        rest = self.drain([other], 5)
        self.assertEqual(sorted(rest[0] + [int(m.payload) for m in held]), list(range(10)))
        owner.send(pubrec(held[0].pid))
        owner.expect(pubrel(held[0].pid))
        owner.reset()
        other.expect_nothing()
        owner = v5(self, "owner-2", (SESSION_EXPIRY, 60), clean=False, present=True)
        owner.expect(pubrel(held[0].pid))
        for m in held[1:]:
            self.assertEqual(owner.expect_publish(payload=m.payload, dup=True).pid, m.pid)
        leave(owner, (SESSION_EXPIRY, 0))
        other.expect_nothing(0.5)

    def test_refused_is_dropped(self):
        """PUBACK or PUBREC of 0x80 and above: not sent to anybody again [MQTT-4.8.2-6]."""
        for qos, first in ((1, 0x40), (2, 0x50)):
            topic = "sh/refused/%d" % qos
            picky = self.member("picky-%d" % qos, topic, qos)
            other = self.member("other-%d" % qos, topic, qos)
            self.publish(10, qos, topic)
            held = received(picky)
            for m in held:
                picky.send(error_ack(first, m.pid, 0x83))
            self.drain([other], 10 - len(held))
            picky.expect_nothing()
            picky.reset()
            other.expect_nothing()

    def test_no_retained(self):
        v5(self).publish("sh/ret", "kept", 1, retain=True)
        for version in (4, 5):
            c = self.member("ret-%d" % version, "sh/ret", version=version)
            c.subscribe(("$share/h/sh/#", 1))
            c.expect_nothing()

    def test_v311_members(self):
        """In one group with 5.0; also clean_session=false."""
        members = [self.member("old-%d" % i, version=4) for i in range(4)]
        members += [self.member("new-%d" % i, version=5) for i in range(4)]
        self.publish(400)
        got = self.drain(members, 400)
        self.assertEqual(sorted(sum(got, [])), list(range(400)))
        for mine in got:
            self.assertLessEqual(abs(len(mine) - 50), 5, [len(x) for x in got])
        for c in members:
            c.disconnect()
        c = self.connect("old-durable", clean=False)
        c.subscribe(("$share/g/sh/" + self.name, 1)).disconnect()
        self.publish(5)
        self.assertEqual(self.drain([self.connect("old-durable", clean=False, present=True)], 5),
                         [list(range(5))])

    def test_groups_and_plain(self):
        """Each group has one copy, a plain subscriber has its own, also one that is a member too."""
        a = [self.member("ga-%d" % i, group="a") for i in range(3)]
        b = [self.member("gb-%d" % i, group="b") for i in range(2)]
        both = self.member("gc", group="c")
        both.subscribe(("sh/" + self.name, 1))
        plain = v5(self).subscribe(("sh/+", 1))
        self.publish(30)
        for members in (a, b, [plain]):
            self.assertEqual(sorted(sum(self.drain(members, 30), [])), list(range(30)))
        self.assertEqual(sorted(sum(self.drain([both], 60), [])), sorted(list(range(30)) * 2))

    def test_overlapping_filters(self):
        """Groups of the same name with other filters are other groups."""
        a = self.member("ov-a", "sh/ov/+")
        b = self.member("ov-b", "sh/ov/#")
        self.publish(10, topic="sh/ov/x")
        self.assertEqual([len(x) for x in self.drain([a, b], 20)], [10, 10])

    def test_unsubscribe(self):
        a, b = self.member("un-a"), self.member("un-b")
        self.publish(10)
        self.assertEqual([len(x) for x in self.drain([a, b], 10)], [5, 5])
        a.unsubscribe("$share/g/sh/" + self.name)
        self.publish(10)
        self.assertEqual([len(x) for x in self.drain([a, b], 10)], [0, 10])
        b.unsubscribe("$share/g/sh/" + self.name)
        p = v5(self)
        p.send(publish("sh/" + self.name, "x", 1, 1, version=5))
        self.assertEqual(p.expect_type(PUBACK).body[2:3], b"\x10")

    def test_slow_member(self):
        """One that acknowledges nothing holds its window, others go on; nothing is lost."""
        stuck = self.member("stuck", pairs=((RECEIVE_MAXIMUM, 5),))
        good = [self.member("good-%d" % i) for i in range(3)]
        self.publish(200)
        held = received(stuck)
        self.assertEqual(len(held), 5)
        n = 200 - len(held)
        got = [[] for _ in good]
        deadline = time.monotonic() + 3 * SLOW
        while sum(map(len, got)) < 150 and time.monotonic() < deadline:
            for c, mine in zip(good, got):
                for m in received(c, 0.02):
                    c.send(puback(m.pid))
                    mine.append(int(m.payload))
        self.assertGreaterEqual(sum(map(len, got)), 150)
        stuck.reset()
        rest = self.drain(good, n + 5 - sum(map(len, got)))
        self.assertEqual(sorted(sum(got, []) + sum(rest, [])), list(range(200)))


if __name__ == "__main__":
    main()
