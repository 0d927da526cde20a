# SPDX-License-Identifier: Apache-2.0
"""What survives: the broker is stopped or killed and started again over the same store.

The tests of Restart run four times: MQTT 3.1.1 and 5.0, orderly stop and SIGKILL.
"""

import os
import shutil
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from durable import DurableBroker  # noqa: E402
from wire import *  # noqa: E402,F403

SCALE = float(os.environ.get("NOCTULE_LOAD_SCALE", "1"))
NOT_DURABLE = IS_MOSQUITTO  # the whole file is about our store
SETTLED = 0.3 * SLOW  # for what may be written after the answer
EXPIRY = 3600


def durable(b, client_id, version, present=False, expiry=EXPIRY, more=(), **fields):
    """Connects a session that outlives its connection."""
    if version == 5:
        fields["props"] = props((0x11, expiry), *more)
    return b.connect(client_id, version, clean=False, present=present, **fields)


def sub5(c, *filters, ident=None):
    """SUBSCRIBE of 5.0 with a subscription identifier."""
    pid = c.pid()
    c.send(subscribe(pid, *filters, version=5, props=props((0x0B, ident)) if ident else b"\0"))
    got = c.expect_type(SUBACK)
    assert got.codes == [o & 3 for _, o in filters], got
    return c


def value(got, ident):
    found = [v for i, v in got.props if i == ident]
    return found[0] if found else None


@unittest.skipIf(NOT_DURABLE, "noctule only")
class Durable:
    version = 4
    how = "stop"

    def durable(self, b, client_id, present=False, **fields):
        return durable(b, client_id, self.version, present, **fields)

    def plain(self, b, client_id="", **fields):
        return b.connect(client_id, self.version, **fields)

    def again(self, b, **options):
        return b.again(self.how, **options)

    def payloads(self, c, n):
        return [m.payload.decode() for m in c.take(n)]


class Restart(Durable):

    # sessions

    def test_session_present(self):
        """[MQTT-3.2.2-2] for those stored, connected or not; not for clean ones."""
        with DurableBroker() as b:
            self.durable(b, "off").disconnect()
            on = self.durable(b, "on")
            clean = self.plain(b, "clean")
            self.again(b)
            self.durable(b, "off", present=True)
            self.durable(b, "on", present=True)
            self.durable(b, "clean", present=False)
            on.close(), clean.close()

    def test_twice(self):
        """A restart after a restart, with nothing between."""
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("t", 1)).disconnect()
            self.plain(b).publish("t", "x", 1)
            self.again(b)
            self.again(b)
            self.again(b)
            c = self.durable(b, "s", present=True)
            self.assertEqual(self.payloads(c, 1), ["x"])
            c.expect_nothing()

    def test_clean_start_ends_the_session_for_good(self):
        """[MQTT-3.1.2-4]"""
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("t", 1)).disconnect()
            self.plain(b).publish("t", "x", 1)
            self.plain(b, "s").close()
            self.again(b)
            c = self.durable(b, "s", present=False)
            self.plain(b).publish("t", "y", 1)
            c.expect_nothing()

    def test_new_session_after_clean_start(self):
        """The second session of the name has nothing of the first."""
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("old", 1), ("both", 1)).disconnect()
            self.plain(b).publish("old", "x", 1).publish("both", "x", 1)
            self.plain(b, "s").disconnect()
            self.durable(b, "s").subscribe(("new", 1), ("both", 1)).disconnect()
            self.plain(b).publish("new", "1", 1).publish("both", "2", 1)
            self.again(b)
            c = self.durable(b, "s", present=True)
            self.assertEqual(sorted(self.payloads(c, 2)), ["1", "2"])
            self.plain(b).publish("old", "y", 1)
            c.expect_nothing()

    def test_takeover(self):
        with DurableBroker() as b:
            first = self.durable(b, "s").subscribe(("t", 1))
            second = self.durable(b, "s", present=True)
            first.expect_closed()
            self.plain(b).publish("t", "x", 1)
            second.expect_publish("t", "x", 1)
            self.again(b)
            c = self.durable(b, "s", present=True)
            c.settle(c.expect_publish("t", "x", 1, dup=True))
            c.expect_nothing()

    # subscriptions

    def test_subscriptions_keep_their_qos(self):
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("q/0", 0), ("q/1", 1), ("q/2", 2), ("w/#", 1), ("+/x", 2))
            self.again(b)
            c = self.durable(b, "s", present=True)
            p = self.plain(b)
            for topic, qos in (("q/0", 0), ("q/1", 1), ("q/2", 2), ("w/a/b", 1), ("a/x", 2)):
                p.publish(topic, "m", 2)
                c.settle(c.expect_publish(topic, "m", qos))
            p.publish("q/3", "m", 2)
            c.expect_nothing()

    def test_subscription_replaced(self):
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("t", 2)).subscribe(("t", 0)).subscribe(("t", 1))
            self.again(b)
            c = self.durable(b, "s", present=True)
            self.plain(b).publish("t", "m", 2)
            c.settle(c.expect_publish("t", "m", 1))
            c.expect_nothing()

    def test_unsubscribe_stays(self):
        with DurableBroker() as b:
            c = self.durable(b, "s").subscribe(("a", 1), ("b", 1), ("c", 1))
            c.unsubscribe("a", "c")
            c.unsubscribe("b")
            c.subscribe(("c", 1))
            self.again(b)
            c = self.durable(b, "s", present=True)
            p = self.plain(b)
            for topic in "abc":
                p.publish(topic, topic, 1)
            c.settle(c.expect_publish("c"))
            c.expect_nothing()

    def test_unsubscribe_of_an_older_run_stays(self):
        """The subscription is in the tables of an earlier start, its end in the journal of this one."""
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("a", 1), ("b", 1)).disconnect()
            self.again(b)
            self.durable(b, "s", present=True).unsubscribe("a").disconnect()
            self.again(b)
            self.again(b)
            c = self.durable(b, "s", present=True)
            self.plain(b).publish("a", "a", 1).publish("b", "b", 1)
            c.settle(c.expect_publish("b"))
            c.expect_nothing()

    def test_many_subscriptions(self):
        with DurableBroker() as b:
            c = self.durable(b, "s")
            for at in range(0, 1000, 100):
                c.subscribe(*[("many/%d" % i, i % 3) for i in range(at, at + 100)])
            self.again(b)
            c = self.durable(b, "s", present=True)
            p = self.plain(b)
            for i in range(0, 1000, 7):
                p.publish("many/%d" % i, "m", 2)
                c.settle(c.expect_publish("many/%d" % i, "m", i % 3))

    def test_shared_group(self):
        with DurableBroker() as b:
            for name in ("a", "b"):
                self.durable(b, name).subscribe(("$share/g/t", 1))
            self.again(b)
            members = [self.durable(b, name, present=True) for name in ("a", "b")]
            p = self.plain(b)
            for i in range(10):
                p.publish("t", str(i), 1)
            got = []
            deadline = time.monotonic() + TIMEOUT
            while len(got) < 10 and time.monotonic() < deadline:
                for m in members:
                    try:
                        got.append(m.settle(m.recv(0.05)).payload.decode())
                    except Silence:
                        pass
            self.assertEqual(sorted(got, key=int), [str(i) for i in range(10)])
            for m in members:
                m.expect_nothing()

    # queues

    def test_queue_in_order(self):
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("q/#", 2)).disconnect()
            p = self.plain(b)
            for i in range(60):
                p.publish("q/t", str(i), 1 + i % 2)
            self.again(b)
            c = self.durable(b, "s", present=True)
            got = c.take(60)
            self.assertEqual([m.payload.decode() for m in got], [str(i) for i in range(60)])
            self.assertEqual([m.qos for m in got], [1 + i % 2 for i in range(60)])
            self.assertFalse(any(m.dup for m in got), "sent for the first time")
            c.expect_nothing()

    def test_new_messages_behind_old_ones(self):
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("t", 1)).disconnect()
            for i in range(3):
                p = self.plain(b)
                for k in range(10):
                    p.publish("t", "%d" % (10 * i + k), 1)
                self.again(b)
            c = self.durable(b, "s", present=True)
            self.plain(b).publish("t", "30", 1)
            self.assertEqual(self.payloads(c, 31), [str(i) for i in range(31)])
            c.expect_nothing()

    def test_drained_is_gone(self):
        """Acknowledged and stored (lazily): not delivered again."""
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("t", 2)).disconnect()
            p = self.plain(b)
            for i in range(20):
                p.publish("t", str(i), 1 + i % 2)
            self.again(b)
            c = self.durable(b, "s", present=True)
            c.take(20)
            c.is_alive()
            c.disconnect()
            time.sleep(SETTLED)
            self.again(b)
            self.durable(b, "s", present=True).expect_nothing()

    def test_part_drained(self):
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("t", 1)).disconnect()
            p = self.plain(b)
            for i in range(20):
                p.publish("t", str(i), 1)
            self.again(b)
            c = self.durable(b, "s", present=True)
            got = [c.expect_publish("t", str(i)) for i in range(20)]
            c.send(*(puback(m.pid) for m in got[:12]))
            c.is_alive()
            c.close()
            time.sleep(SETTLED)
            self.again(b)
            c = self.durable(b, "s", present=True)
            for m in got[12:]:
                again = c.settle(c.expect_publish("t", m.payload, 1, dup=True))
                self.assertEqual(again.pid, m.pid)
            c.expect_nothing()

    def test_one_body_for_many(self):
        """A message for ten sessions, drained by some of them before the restart and by some after."""
        with DurableBroker() as b:
            for i in range(10):
                self.durable(b, "s%d" % i).subscribe(("t", 1)).disconnect()
            self.plain(b).publish("t", "x" * 5000, 1)
            for i in range(5):
                c = self.durable(b, "s%d" % i, present=True)
                c.settle(c.expect_publish("t"))
                c.disconnect()
            time.sleep(SETTLED)
            self.again(b)
            for i in range(10):
                c = self.durable(b, "s%d" % i, present=True)
                if i >= 5:
                    c.settle(c.expect_publish("t", "x" * 5000))
                c.expect_nothing(0.05 * SLOW)

    def test_empty_and_large_payloads(self):
        sizes = (0, 1, 1999, 2000, 2001, 70000, 1 << 20)
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("t", 1)).disconnect()
            p = self.plain(b)
            for n in sizes:
                p.publish("t", bytes([n % 251]) * n, 1)
            self.again(b)
            c = self.durable(b, "s", present=True)
            for n in sizes:
                got = c.settle(c.expect_publish("t"))
                self.assertEqual(got.payload, bytes([n % 251]) * n)

    # packet identifiers and steps, outbound

    def test_qos_1_unacknowledged(self):
        """[MQTT-4.4.0-1] [MQTT-3.3.1-1] same order, same identifiers, DUP."""
        with DurableBroker() as b:
            c = self.durable(b, "s").subscribe(("t", 1))
            p = self.plain(b)
            for i in range(5):
                p.publish("t", str(i), 1)
            got = [c.expect_publish("t", str(i), 1, dup=False) for i in range(5)]
            time.sleep(SETTLED)
            self.again(b)
            c = self.durable(b, "s", present=True)
            for m in got:
                again = c.expect_publish("t", m.payload, 1, dup=True)
                self.assertEqual(again.pid, m.pid)
            self.plain(b).publish("t", "new", 1)
            new = c.expect_publish("t", "new", 1, dup=False)
            self.assertNotIn(new.pid, [m.pid for m in got])

    def test_qos_1_acknowledged_out_of_order(self):
        with DurableBroker() as b:
            c = self.durable(b, "s").subscribe(("t", 1))
            p = self.plain(b)
            for i in range(5):
                p.publish("t", str(i), 1)
            got = [c.expect_publish("t", str(i), 1) for i in range(5)]
            c.send(puback(got[3].pid), puback(got[1].pid))
            c.is_alive()
            time.sleep(SETTLED)
            self.again(b)
            c = self.durable(b, "s", present=True)
            for i in (0, 2, 4):
                again = c.settle(c.expect_publish("t", str(i), 1, dup=True))
                self.assertEqual(again.pid, got[i].pid)
            c.expect_nothing()

    def test_qos_2_id_is_kept(self):
        """The identifier is on disk before PUBLISH leaves: a crash at any time repeats it with DUP."""
        with DurableBroker() as b:
            c = self.durable(b, "s").subscribe(("t", 2))
            p = self.plain(b)
            for i in range(5):
                p.publish("t", str(i), 2)
            got = [c.expect_publish("t", str(i), 2, dup=False) for i in range(5)]
            self.again(b)
            c = self.durable(b, "s", present=True)
            for m in got:
                again = c.expect_publish("t", m.payload, 2, dup=True)
                self.assertEqual(again.pid, m.pid)
            c.send(*(pubrec(m.pid) for m in got))
            c.expect(*(pubrel(m.pid) for m in got))
            c.send(*(pubcomp(m.pid) for m in got))
            c.expect_nothing()

    def test_qos_2_released(self):
        """[MQTT-4.3.3-6] PUBREL seen: PUBREL after the restart, PUBLISH never again."""
        with DurableBroker() as b:
            c = self.durable(b, "s").subscribe(("t", 2))
            p = self.plain(b)
            for i in range(4):
                p.publish("t", str(i), 2)
            got = [c.expect_publish("t", str(i), 2) for i in range(4)]
            c.send(pubrec(got[0].pid), pubrec(got[1].pid))
            c.expect(pubrel(got[0].pid), pubrel(got[1].pid))
            for _ in range(2):  # and after a second restart
                self.again(b)
                c = self.durable(b, "s", present=True)
                came = [c.recv() for _ in range(4)]
                self.assertEqual([m.pid for m in came if m.type == PUBREL], [m.pid for m in got[:2]])
                self.assertEqual([(m.pid, m.payload, m.dup) for m in came if m.type == PUBLISH],
                                 [(m.pid, m.payload, True) for m in got[2:]])
                c.expect_nothing(0.1 * SLOW)
            c.send(*(pubcomp(m.pid) for m in got[:2]))
            c.send(*(pubrec(m.pid) for m in got[2:]))
            c.expect(*(pubrel(m.pid) for m in got[2:]))
            c.send(*(pubcomp(m.pid) for m in got[2:]))
            c.is_alive()
            c.close()
            time.sleep(SETTLED)
            self.again(b)
            self.durable(b, "s", present=True).expect_nothing()

    def test_qos_2_pubrec_sent(self):
        """PUBREC sent, nothing seen: PUBLISH under the same identifier with DUP, or PUBREL."""
        with DurableBroker() as b:
            c = self.durable(b, "s").subscribe(("t", 2))
            self.plain(b).publish("t", "x", 2)
            got = c.expect_publish("t", "x", 2)
            c.send(pubrec(got.pid))
            self.again(b)
            c = self.durable(b, "s", present=True)
            came = c.recv()
            if came.type == PUBLISH:
                self.assertEqual((came.pid, came.dup), (got.pid, True))
                c.send(pubrec(got.pid))
                came = c.recv()
            self.assertEqual(came.raw, pubrel(got.pid))
            c.send(pubcomp(got.pid))
            c.expect_nothing()

    def test_ids_in_use_are_not_given_out(self):
        """More messages than identifiers taken before the restart: none is used twice."""
        with DurableBroker() as b:
            c = self.durable(b, "s").subscribe(("t", 2))
            p = self.plain(b)
            for i in range(10):
                p.publish("t", "old", 2)
            old = [c.expect_publish("t").pid for _ in range(10)]
            c.send(*(pubrec(i) for i in old))
            c.expect(*(pubrel(i) for i in old))
            self.again(b)
            c = self.durable(b, "s", present=True)
            c.expect(*(pubrel(i) for i in old))
            p = self.plain(b)
            for i in range(30):
                p.publish("t", "new", 1)
            new = [c.expect_publish("t", "new").pid for _ in range(30)]
            self.assertFalse(set(old) & set(new))

    # inbound QoS 2

    def test_inbound_id_is_kept(self):
        """[MQTT-4.3.3-10] a repeated PUBLISH after the restart is not delivered again."""
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("t", 2)).disconnect()
            p = self.durable(b, "p")
            p.send(publish("t", "once", 2, 7, version=self.version))
            self.assertEqual(p.expect_type(PUBREC).pid, 7)
            self.again(b)
            p = self.durable(b, "p", present=True)
            p.send(publish("t", "once", 2, 7, dup=True, version=self.version))
            self.assertEqual(p.expect_type(PUBREC).pid, 7)
            p.send(pubrel(7))
            p.expect(pubcomp(7))
            c = self.durable(b, "s", present=True)
            self.assertEqual(self.payloads(c, 1), ["once"])
            c.expect_nothing()

    def test_inbound_release(self):
        """PUBREL alone after the restart; then the identifier is free for another message."""
        with DurableBroker() as b:
            self.durable(b, "s").subscribe(("t", 2)).disconnect()
            p = self.durable(b, "p")
            p.send(publish("t", "1", 2, 7, version=self.version))
            p.expect_type(PUBREC)
            self.again(b)
            p = self.durable(b, "p", present=True)
            p.send(pubrel(7))
            p.expect(pubcomp(7))
            self.again(b)
            p = self.durable(b, "p", present=True)
            p.send(publish("t", "2", 2, 7, version=self.version))
            p.expect_type(PUBREC)
            p.send(pubrel(7))
            p.expect(pubcomp(7))
            c = self.durable(b, "s", present=True)
            self.assertEqual(self.payloads(c, 2), ["1", "2"])
            c.expect_nothing()

    def test_inbound_release_again(self):
        """PUBCOMP lost: PUBREL again is answered."""
        with DurableBroker() as b:
            p = self.durable(b, "p")
            p.publish("t", "1", 2)
            self.again(b)
            p = self.durable(b, "p", present=True)
            p.send(pubrel(1))
            self.assertEqual(p.expect_type(PUBCOMP).pid, 1)

    # retained

    def test_retained(self):
        with DurableBroker() as b:
            p = self.plain(b)
            for qos in (1, 2):
                p.publish("r/set/%d" % qos, "v", qos, retain=True)
                for text in ("1", "2", "3"):
                    p.publish("r/replaced/%d" % qos, text, qos, retain=True)
                p.publish("r/cleared/%d" % qos, "v", qos, retain=True)
                p.publish("r/cleared/%d" % qos, "", qos, retain=True)
            self.again(b)
            c = self.plain(b).subscribe(("r/#", 2))
            self.assertEqual(sorted((m.topic, m.payload, m.qos, m.retain) for m in c.take(4)), [
                ("r/replaced/1", b"3", 1, True), ("r/replaced/2", b"3", 2, True),
                ("r/set/1", b"v", 1, True), ("r/set/2", b"v", 2, True)])
            c.expect_nothing()

    def test_retained_of_an_older_run(self):
        """Replaced and cleared after a restart."""
        with DurableBroker() as b:
            p = self.plain(b)
            for topic in "abc":
                p.publish(topic, "old", 1, retain=True)
            self.again(b)
            self.plain(b).publish("a", "", 1, retain=True).publish("b", "new", 1, retain=True)
            self.again(b)
            self.again(b)
            c = self.plain(b).subscribe(("+", 1))
            self.assertEqual(sorted((m.topic, m.payload) for m in c.take(2)), [("b", b"new"), ("c", b"old")])
            c.expect_nothing()

    def test_retained_qos_0(self):
        """Journalled lazily: there after the moment that takes."""
        with DurableBroker() as b:
            p = self.plain(b).publish("r0", "v", 0, retain=True)
            p.is_alive()
            time.sleep(SETTLED)
            self.again(b)
            self.plain(b).subscribe(("r0", 0)).expect_publish("r0", "v", 0, retain=True)

    def test_thousands_retained(self):
        n = 4000
        with DurableBroker() as b:
            p = self.plain(b)
            for at in range(0, n, 500):
                p.send(*(publish("many/%d/t" % i, "v%d" % i, 1, i + 1, retain=True, version=self.version)
                         for i in range(at, at + 500)))
                for _ in range(500):
                    p.expect_type(PUBACK)
            self.again(b)
            c = self.plain(b).subscribe(("many/#", 0))
            got = {}
            for _ in range(n):
                m = c.expect_publish(retain=True)
                got[m.topic] = m.payload
            c.expect_nothing()
            self.assertEqual(got, {"many/%d/t" % i: b"v%d" % i for i in range(n)})

    def test_retained_of_a_large_size(self):
        with DurableBroker() as b:
            self.plain(b).publish("big", "x" * 300000, 1, retain=True)
            self.again(b)
            c = self.plain(b).subscribe(("big", 1))
            self.assertEqual(c.settle(c.expect_publish("big")).payload, b"x" * 300000)


class StopV3(unittest.TestCase, Restart):
    version, how = 4, "stop"


class KillV3(unittest.TestCase, Restart):
    version, how = 4, "kill"


class StopV5(unittest.TestCase, Restart):
    version, how = 5, "stop"


class KillV5(unittest.TestCase, Restart):
    version, how = 5, "kill"


class Properties(Durable):
    """What only MQTT 5.0 has."""

    version = 5

    def test_subscription_options(self):
        """No local, retain as published, retain handling."""
        with DurableBroker() as b:
            c = durable(b, "s", 5).subscribe(("nl", 1 | 4), ("rap", 1 | 8), ("plain", 1))
            self.again(b)
            c = durable(b, "s", 5, present=True)
            c.publish("nl", "own", 0)
            c.publish("plain", "own", 0)
            c.expect_publish("plain", "own")
            p = self.plain(b)
            p.publish("nl", "other", 1)
            c.settle(c.expect_publish("nl", "other"))
            p.publish("rap", "x", 1, retain=True)
            c.settle(c.expect_publish("rap", "x", retain=True))
            p.publish("plain", "x", 1, retain=True)
            c.settle(c.expect_publish("plain", "x", retain=False))
            c.expect_nothing()

    def test_retain_handling(self):
        """1: no retained messages to a subscription that existed before the restart."""
        with DurableBroker() as b:
            self.plain(b).publish("rh", "x", 1, retain=True)
            c = durable(b, "s", 5).subscribe(("rh", 1 | 16))
            c.settle(c.expect_publish("rh", retain=True))
            c.disconnect()
            time.sleep(SETTLED)
            self.again(b)
            c = durable(b, "s", 5, present=True)
            c.subscribe(("rh", 1 | 16))
            c.expect_nothing()
            c.subscribe(("rh", 1))
            c.expect_publish("rh", retain=True)

    def test_subscription_ids(self):
        with DurableBroker() as b:
            c = durable(b, "s", 5)
            sub5(c, ("a/#", 1), ident=7)
            sub5(c, ("a/b", 1), ident=268435455)
            sub5(c, ("c", 1))
            p = self.plain(b)
            c.close()
            p.publish("a/b", "queued", 1)
            self.again(b)
            c = durable(b, "s", 5, present=True)
            self.plain(b).publish("a/b", "live", 1).publish("c", "none", 1)
            ids = {}
            for _ in range(3):
                m = c.settle(c.expect_publish())
                ids.setdefault(m.payload, set()).update(v for i, v in m.props if i == 0x0B)
            self.assertEqual(ids, {b"queued": {7, 268435455}, b"live": {7, 268435455}, b"none": set()})
            c.expect_nothing()

    def test_message_properties(self):
        """Those that travel: all of them, in order, beside the remaining expiry."""
        sent = [(0x01, 1), (0x03, b"text/plain"), (0x08, b"answer/here"), (0x09, b"\0\1corr"),
                (0x26, ("k", "1")), (0x26, ("k", "2")), (0x26, ("", ""))]
        with DurableBroker() as b:
            durable(b, "s", 5).subscribe(("t", 1)).disconnect()
            p = self.plain(b)
            p.send(publish("t", "x", 1, 1, version=5, props=props(*sent, (0x02, 600))),
                   publish("r", "x", 1, 2, retain=True, version=5, props=props(*sent, (0x02, 600))))
            p.expect_type(PUBACK), p.expect_type(PUBACK)
            self.again(b)
            time.sleep(1.1)
            c = durable(b, "s", 5, present=True)
            r = self.plain(b).subscribe(("r", 1))
            for m in (c.settle(c.expect_publish("t", "x")), r.settle(r.expect_publish("r", "x"))):
                self.assertEqual([(i, v) for i, v in m.props if i != 0x02], sent)
                self.assertIn(value(m, 0x02), range(600 - 10 * int(SLOW), 600))

    def test_messages_that_expired(self):
        """[MQTT-3.3.2-5] while the broker was down, and while the session was away."""
        with DurableBroker() as b:
            durable(b, "s", 5).subscribe(("t", 2)).disconnect()
            p = self.plain(b)
            for i, expiry in enumerate((1, 600, 2, None, 1)):
                block = props((0x02, expiry)) if expiry else b"\0"
                p.send(publish("t", str(i), 1, i + 1, version=5, props=block))
                p.expect_type(PUBACK)
                p.send(publish("ret/%d" % i, str(i), 1, i + 1, retain=True, version=5, props=block))
                p.expect_type(PUBACK)
            b.end(self.how)
            time.sleep(2.5)
            b.start()
            c = durable(b, "s", 5, present=True)
            self.assertEqual(self.payloads(c, 2), ["1", "3"])
            c.expect_nothing()
            r = self.plain(b).subscribe(("ret/#", 1))
            self.assertEqual(sorted(self.payloads(r, 2)), ["1", "3"])
            r.expect_nothing()

    def test_session_expiry(self):
        """[MQTT-3.1.2-23] runs while the broker is down."""
        with DurableBroker() as b:
            durable(b, "short", 5, expiry=1).subscribe(("t", 1)).disconnect()
            durable(b, "long", 5, expiry=600).subscribe(("t", 1)).disconnect()
            durable(b, "never", 5, expiry=0xFFFFFFFF).subscribe(("t", 1)).disconnect()
            time.sleep(SETTLED)
            self.plain(b).publish("t", "x", 1)
            b.end(self.how)
            time.sleep(2.2)
            b.start()
            c = durable(b, "short", 5, present=False)
            c.expect_nothing()
            for name in ("long", "never"):
                c = durable(b, name, 5, present=True)
                c.settle(c.expect_publish("t", "x"))

    def test_session_expiry_of_one_connected(self):
        """Connected at the end of the broker: disconnected then; it expires after the restart."""
        with DurableBroker() as b:
            durable(b, "s", 5, expiry=2).subscribe(("t", 1))
            self.again(b)
            durable(b, "s", 5, expiry=2, present=True).close()
            time.sleep(3 * SLOW)
            durable(b, "s", 5, expiry=2, present=False)

    def test_session_expiry_over_two_crashes(self):
        """The clock of one that was connected begins at the first crash, whatever comes later."""
        with DurableBroker() as b:
            keep = [durable(b, "s", 5, expiry=3).subscribe(("t", 1)),
                    durable(b, "never", 5, expiry=0xFFFFFFFF).subscribe(("t", 1))]
            b.again(self.how)
            for c in keep:
                c.close()
            for _ in range(3):
                time.sleep(2 * SLOW if SLOW == 1 else 1)
                b.again(self.how)
            time.sleep(1 * SLOW)
            durable(b, "s", 5, present=False)
            durable(b, "never", 5, present=True)

    def test_session_expiry_after_takeover(self):
        """The session lasts from the end of the second connection on, not of the first."""
        with DurableBroker() as b:
            durable(b, "s", 5, expiry=2)
            c = durable(b, "s", 5, expiry=2, present=True)
            time.sleep(3)
            self.again(b)
            durable(b, "s", 5, expiry=2, present=True).close()
            c.close()

    def test_expiry_changed_by_disconnect(self):
        """[MQTT-3.14.2-2] 0 at DISCONNECT ends it, another value is kept."""
        with DurableBroker() as b:
            for name, expiry in (("ends", 0), ("shorter", 1), ("longer", 600)):
                c = durable(b, name, 5, expiry=60)
                c.send(packet(0xE0, b"\0" + props((0x11, expiry))))
                c.expect_closed()
            time.sleep(SETTLED)
            b.end(self.how)
            time.sleep(2.2)
            b.start()
            durable(b, "ends", 5, present=False)
            durable(b, "shorter", 5, present=False)
            durable(b, "longer", 5, present=True)

    def test_expiry_zero_is_not_stored(self):
        with DurableBroker() as b:
            durable(b, "s", 5, expiry=0).subscribe(("t", 1))
            self.again(b)
            durable(b, "s", 5, present=False)

    def test_receive_maximum_after_restart(self):
        """[MQTT-3.3.4-9] what is resumed counts against the new receive maximum."""
        with DurableBroker() as b:
            c = durable(b, "s", 5).subscribe(("t", 1))
            p = self.plain(b)
            for i in range(10):
                p.publish("t", str(i), 1)
            for i in range(10):
                c.expect_publish("t", str(i))
            time.sleep(SETTLED)
            self.again(b)
            c = durable(b, "s", 5, present=True, more=[(0x21, 3)])
            first = [c.expect_publish("t", str(i), dup=True) for i in range(3)]
            c.expect_nothing()
            c.send(puback(first[0].pid))
            c.expect_publish("t", "3", dup=True)


class StopProperties(unittest.TestCase, Properties):
    how = "stop"


class KillProperties(unittest.TestCase, Properties):
    how = "kill"


class Wills(Durable):
    GRACE = 10

    def test_all(self):
        """One run for all of them, since they take their ten seconds: who is sent when."""
        with DurableBroker() as b:
            durable(b, "watch", 5).subscribe(("will/#", 1)).disconnect()

            def will(name, version, delay=None, **fields):
                block = props((0x18, delay)) if delay is not None else b"\0"
                return Will("will/" + name, name, 1, props=block, **fields)

            keep = [
                durable(b, "v3", 4, will=will("v3", 4)),
                durable(b, "v5", 5, will=will("v5", 5, 0)),
                durable(b, "back", 5, will=will("back", 5, 5)),
                durable(b, "back3", 4, will=will("back3", 4)),
                durable(b, "later", 5, will=will("later", 5, 14)),
                b.connect("clean3", 4, will=will("clean3", 4)),
                b.connect("clean5", 5, will=will("clean5", 5, 30)),
                durable(b, "kept", 4, will=will("kept", 4, retain=True)),
            ]
            durable(b, "done3", 4, will=will("done3", 4)).disconnect()
            durable(b, "done5", 5, will=will("done5", 5, 5)).disconnect()
            b.connect("doneclean", 4, will=will("doneclean", 4)).disconnect()
            gone = durable(b, "gone", 5, will=will("gone", 5, 12))  # its delay has begun before the crash
            gone.close()
            # connected again without a will: the first one must not come back
            durable(b, "without", 5, will=will("without", 5, 5)).close()
            durable(b, "without", 5, present=True)
            # taken over: the new connection's will is the one that counts
            for name, delay in (("taken", 60), ("taken0", 0)):
                durable(b, name, 5, will=Will("replaced/" + name, "x", 1, props=props((0x18, delay))))
                keep.append(durable(b, name, 5, present=True, will=will(name, 5, 0)))
            time.sleep(SETTLED)
            down = time.monotonic()
            b.end("kill")
            for c in keep:
                c.close()
            b.start()
            up = time.monotonic()
            w = durable(b, "watch", 5, present=True)
            durable(b, "back", 5, present=True)
            durable(b, "back3", 4, present=True)
            came = {}
            while time.monotonic() < up + 16 + 2 * SLOW:
                try:
                    m = w.settle(w.expect_publish(timeout=0.2))
                except Silence:
                    continue
                self.assertNotIn(m.topic, came, "sent twice")
                came[m.topic] = time.monotonic()
            # A clean session ends with its connection, and its will goes with it, delayed or not.
            self.assertEqual(sorted(came), ["will/" + name for name in (
                "clean3", "clean5", "gone", "kept", "later", "taken", "taken0", "v3",
                "v5")])
            for topic, at in came.items():
                due = {"will/later": 14, "will/gone": 12}.get(topic, self.GRACE)
                self.assertGreater(at, down + due - SETTLED - 0.5, topic)
                self.assertLess(at, up + due + 2 * SLOW, topic)
            r = b.connect().subscribe(("will/#", 1))
            r.expect_publish("will/kept", "kept", retain=True)
            b.again("kill")  # what was sent is not sent again
            w2 = durable(b, "watch", 5, present=True)
            w2.expect_nothing((self.GRACE + 1) * SLOW)


class WillsOverKill(unittest.TestCase, Wills):
    pass


class WillGrace(unittest.TestCase):
    def came(self, grace):
        """Which of two wills come after a kill."""
        with DurableBroker("will_grace %d" % grace) as b:
            durable(b, "watch", 5).subscribe(("will/#", 1)).disconnect()
            keep = [durable(b, name, 4, will=Will("will/" + name, "x", 1)) for name in "ab"]
            b.again("kill")
            for c in keep:
                c.close()
            w = durable(b, "watch", 5, present=True)
            got = set()
            while len(got) < 2:
                try:
                    got.add(w.settle(w.expect_publish(timeout=11 if grace > 11 else TIMEOUT)).topic)
                except Silence:
                    break
            w.close()
            return got

    def test_will_grace(self):
        self.assertEqual(self.came(1), {"will/a", "will/b"})
        self.assertEqual(self.came(0), {"will/a", "will/b"})
        self.assertEqual(self.came(3600), set())


class WillsOverStop(unittest.TestCase, Durable):
    def test_wills(self):
        """Not after DISCONNECT; of those connected at an orderly stop each at most once, and not before
        its delay; none of one that has come back."""
        with DurableBroker() as b:
            durable(b, "watch", 5).subscribe(("will/#", 1)).disconnect()
            durable(b, "done", 4, will=Will("will/done", "x", 1)).disconnect()
            durable(b, "back", 5, will=Will("will/back", "x", 1, props=props((0x18, 60))))
            durable(b, "gone", 5, will=Will("will/gone", "x", 1, props=props((0x18, 12)))).close()
            time.sleep(SETTLED)
            down = time.monotonic()
            b.again("stop")
            w = durable(b, "watch", 5, present=True)
            durable(b, "back", 5, present=True)
            m = w.settle(w.expect_publish("will/gone", timeout=15 * SLOW))
            self.assertGreater(time.monotonic(), down + 11.5 - SETTLED)
            self.assertEqual(m.topic, "will/gone")
            w.expect_nothing(2 * SLOW)


@unittest.skipIf(NOT_DURABLE, "noctule only")
class Shards(unittest.TestCase):
    def test_number_of_shards_changes(self):
        """1, 4, 3: every session is found, wherever it lives now."""
        n = 24
        with DurableBroker(shards=1) as b:
            for i in range(n):
                version = 4 + i % 2
                c = durable(b, "s%d" % i, version).subscribe(("all/#", 2), ("own/%d" % i, 1))
                if i % 3:
                    c.disconnect()
            p = durable(b, "p", 4)
            p.send(publish("all/in", "in", 2, 9))
            p.expect(pubrec(9))
            for i in range(n):
                p.publish("own/%d" % i, "0", 1)
            p.publish("keep", "retained", 1, retain=True)
            b.again("kill", shards=4)
            p = durable(b, "p", 4, present=True)
            p.send(publish("all/in", "in", 2, 9, dup=True), pubrel(9))
            p.expect(pubrec(9), pubcomp(9))
            for i in range(n):
                p.publish("own/%d" % i, "1", 1)
            b.again("stop", shards=3)
            p = durable(b, "p", 4, present=True)
            for i in range(n):
                p.publish("own/%d" % i, "2", 1)
            for i in range(n):
                c = durable(b, "s%d" % i, 4 + i % 2, present=True)
                got = c.take(4)
                self.assertEqual([m.payload for m in got if m.topic == "all/in"], [b"in"])
                self.assertEqual([m.payload for m in got if m.topic == "own/%d" % i], [b"0", b"1", b"2"])
                c.expect_nothing(0.02 * SLOW)
                c.disconnect()
            b.connect().subscribe(("keep", 1)).expect_publish("keep", "retained")

    def test_shared_group_over_shards(self):
        """Members on several shards, queued for, shards changed: each message once."""
        with DurableBroker(shards=4) as b:
            for i in range(6):
                durable(b, "m%d" % i, 5).subscribe(("$share/g/t", 1)).disconnect()
            p = b.connect()
            for i in range(30):
                p.publish("t", str(i), 1)
            b.again("kill", shards=2)
            p = b.connect()
            for i in range(30, 40):
                p.publish("t", str(i), 1)
            got = []
            for i in range(6):
                c = durable(b, "m%d" % i, 5, present=True)
                try:
                    while True:
                        got.append(int(c.settle(c.expect_publish("t", timeout=QUIET)).payload))
                except Silence:
                    pass
            self.assertEqual(sorted(got), list(range(40)))


@unittest.skipIf(NOT_DURABLE, "noctule only")
class Queue(unittest.TestCase):
    """More than memory should hold: on disk."""

    N = max(2000, int(20000 * SCALE))
    SIZE = 12000

    def anonymous_kb(self, b):
        return b.status_kb("RssAnon")

    def test_large_queue(self):
        with DurableBroker("max_queued_bytes 1073741824") as b:
            durable(b, "s", 4).subscribe(("big/#", 1)).disconnect()
            p = b.connect("p", 4)
            before = self.anonymous_kb(b)
            most = 0
            pad = "x" * (self.SIZE - 10)
            for at in range(0, self.N, 100):
                p.send(*(publish("big/t", "%010d" % i + pad, 1, i - at + 1) for i in range(at, at + 100)))
                p.expect(*(puback(i + 1) for i in range(100)), timeout=20 * SLOW)
                most = max(most, self.anonymous_kb(b))
            size_kb = self.N * self.SIZE // 1024
            if SLOW == 1:  # sanitizers hold freed memory back
                self.assertLess(most - before, size_kb * 6 // 10, "growth while %d kB are queued" % size_kb)
            begin = time.monotonic()
            b.again("kill")
            self.assertLess(time.monotonic() - begin, 8 * SLOW)
            start = self.anonymous_kb(b)
            c = durable(b, "s", 4, present=True)
            most = 0
            for i in range(self.N):
                m = c.expect_publish("big/t", timeout=10 * SLOW)
                self.assertEqual(m.payload[:10], b"%010d" % i)
                c.send(puback(m.pid))
                if i % 500 == 0:
                    most = max(most, self.anonymous_kb(b))
            c.expect_nothing()
            if SLOW == 1:
                self.assertLess(start, size_kb // 4, "memory after the start")
                self.assertLess(most - start, size_kb * 6 // 10, "memory while it drains")

    def test_many_small(self):
        """Drained in part, restart, more queued behind, drained: in order, nothing missing."""
        n = max(3000, int(20000 * SCALE))
        with DurableBroker() as b:
            durable(b, "s", 5).subscribe(("t", 1)).disconnect()
            sent = 0
            seen = 0
            for _ in range(3):
                p = b.connect("p", 4)
                for at in range(sent, sent + n // 3, 200):
                    p.send(*(publish("t", str(i), 1, i % 60000 + 1) for i in range(at, at + 200)))
                    p.expect(*(puback(i % 60000 + 1) for i in range(at, at + 200)), timeout=20 * SLOW)
                    sent = at + 200
                c = durable(b, "s", 5, present=True)
                take = (sent - seen) // 2
                for i in range(take):
                    m = c.settle(c.expect_publish("t", str(seen + i)))
                c.send(disconnect())
                while True:  # what is in flight by now is repeated later
                    try:
                        c.recv()
                    except Closed:
                        break
                seen += take
                time.sleep(SETTLED)
                b.again("kill")
            c = durable(b, "s", 5, present=True)
            for i in range(seen, sent):
                c.settle(c.expect_publish("t", str(i)))
            c.expect_nothing()


@unittest.skipIf(NOT_DURABLE, "noctule only")
class Files(unittest.TestCase):
    """The directory: locked, damaged, not needed."""

    def conf(self, store, persistence="true"):
        port = Port()
        self.addCleanup(port.release)
        return "user root\nlistener %d 127.0.0.1\nallow_anonymous true\npersistence %s\n" \
            "persistence_location %s\n" % (port.number, persistence, store)

    def test_second_broker_refuses(self):
        with DurableBroker() as b:
            durable(b, "s", 4).subscribe(("t", 1)).disconnect()
            code, text = run_broken(self.conf(b.store), args=["-v"])
            self.assertEqual(code, 1, text)
            self.assertIn(b.store, text)
            self.assertRegex(text.lower(), "lock|in use|another")
            b.connect().publish("t", "x", 1)
            b.again("stop")
            c = durable(b, "s", 4, present=True)
            c.settle(c.expect_publish("t", "x"))

    def filled(self):
        b = DurableBroker()
        durable(b, "s", 4).subscribe(("t", 1)).disconnect()
        p = b.connect()
        for i in range(200):
            p.publish("t", "x" * 500, 1)
            p.publish("r/%d" % i, "x" * 100, 1, retain=True)
        p.close()
        b.again("stop")
        b.stop()
        return b

    def damaged(self, name, damage):
        b = self.filled()
        try:
            path = os.path.join(b.store, name, "data.mdb")
            with open(path, "r+b") as f:
                damage(f, os.path.getsize(path))
            code, text = run_broken(self.conf(b.store), args=["-v"])
            self.assertEqual(code, 1, "%s: %s" % (name, text))
            self.assertIn(os.path.join(b.store, name), text)
            # the same directory without persistence: nobody looks at it
            before = b.files()
            with Broker("persistence false\npersistence_location %s" % b.store) as other:
                other.connect("s", 4, clean=False, present=False).subscribe(("t", 1))
                other.connect().publish("t", "x", 1, retain=True)
            self.assertEqual(b.files(), before)
        finally:
            b.close()

    def test_garbage(self):
        for name in ("journal", "state"):
            with self.subTest(name):
                self.damaged(name, lambda f, n: f.write(b"\xA5" * 16384))

    def test_garbage_behind_the_header(self):
        """Both meta pages are whole, what they lead to is not."""
        def damage(f, n):
            f.seek(8192)
            f.write(b"\xA5" * (n - 8192))

        for name in ("journal", "state"):
            with self.subTest(name):
                self.damaged(name, damage)

    def test_cut(self):
        """Cut behind its two meta pages; LMDB alone would die of SIGBUS."""
        for name in ("journal", "state"):
            with self.subTest(name):
                self.damaged(name, lambda f, n: f.truncate(8192))

    def test_empty_file(self):
        for name in ("journal", "state"):
            with self.subTest(name):
                self.damaged(name, lambda f, n: f.truncate(0))

    def test_one_missing(self):
        """Half a store is a damaged one, not a new one."""
        for name in ("journal", "state"):
            with self.subTest(name):
                b = self.filled()
                try:
                    shutil.rmtree(os.path.join(b.store, name))
                    code, text = run_broken(self.conf(b.store), args=["-v"])
                    self.assertEqual(code, 1, "%s: %s" % (name, text))
                    self.assertIn(os.path.join(b.store, name), text)
                finally:
                    b.close()

    def test_not_a_directory(self):
        folder = tempfile.mkdtemp(prefix="noctule-test-")
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "file")
        with open(path, "w") as f:
            f.write("x")
        code, text = run_broken(self.conf(path), args=["-v"])
        self.assertEqual(code, 1, text)
        self.assertIn(path, text)

    def test_untouched_without_durable_work(self):
        """Clean sessions, QoS 0 to 2, shared and plain, no retained messages, no wills: no write."""
        with DurableBroker("sys_interval 1") as b:
            time.sleep(1.0 * SLOW)  # what the start writes
            before = b.files()
            subs = [b.connect("c%d" % i, 4 + i % 2).subscribe(("t/#", 2), ("$share/g/s", 1))
                    for i in range(6)]
            p = b.connect("p", 4)
            for i in range(300):
                p.publish("t/%d" % (i % 7), "x" * 100, i % 3)
            for s in subs:
                s.take(300, timeout=10 * SLOW)
                s.unsubscribe("$share/g/s")
            subs[0].disconnect()
            for s in subs[1:]:
                s.close()
            p.close()
            time.sleep(1.5)  # rounds of $SYS are not stored either
            self.assertEqual(b.files(), before)

    def test_sys_is_not_stored(self):
        with DurableBroker("sys_interval 1") as b:
            b.connect().subscribe(("$SYS/broker/uptime", 0)).expect_publish(timeout=12 * SLOW)
            time.sleep(1.0 * SLOW)
            before = b.files()
            time.sleep(2.5)
            self.assertEqual(b.files(), before)


@unittest.skipIf(NOT_DURABLE, "noctule only")
class Level(unittest.TestCase):
    """What acknowledgements wait for, on a disk whose syncs take their time."""

    DELAY = 0.4 * SLOW
    SOON = 0.25 * SLOW

    def durability(self, b):
        c = b.connect().subscribe(("$SYS/broker/store/durability", 0))
        return c.expect_publish(timeout=12 * SLOW).payload.decode()

    def seconds(self, call):
        begin = time.monotonic()
        call()
        return time.monotonic() - begin

    def test_disk(self):
        with DurableBroker("sys_interval 1", sync_us=int(self.DELAY * 1e6)) as b:
            c = b.client(4)
            self.assertGreater(self.seconds(lambda: c.connect("s", clean=False)), self.DELAY - 0.02)
            self.assertGreater(self.seconds(lambda: c.subscribe(("t", 1))), self.DELAY - 0.02)
            p = b.connect()
            self.assertGreater(self.seconds(lambda: p.publish("t", "x", 1)), self.DELAY - 0.02)
            self.assertGreater(self.seconds(lambda: p.publish("r", "x", 1, retain=True)), self.DELAY - 0.02)
            p.send(publish("t", "x", 1, 9))
            self.assertLess(self.seconds(p.is_alive), self.SOON, "PINGRESP waits for nothing")
            self.assertEqual(self.durability(b), "disk")

    def test_acknowledged_by_all(self):
        """QoS 1 needs no disk when all receivers, whatever their shards, have it at once; else it waits."""
        with DurableBroker("shards 3", sync_us=int(self.DELAY * 1e6)) as b:
            subs = [durable(b, "s%d" % i, 4 + i % 2).subscribe(("t", 1)) for i in range(6)]
            p = b.connect("p", 4)

            def send(text, pid, silent=None):
                begin = time.monotonic()
                p.send(publish("t", text, 1, pid))
                got = [c.expect_publish("t", text) for c in subs]
                for c, m in zip(subs, got):
                    if c is not silent:
                        c.send(puback(m.pid))
                p.expect(puback(pid), timeout=20 * SLOW)
                return time.monotonic() - begin, got

            self.assertLess(min(send(str(i), i + 1)[0] for i in range(5)), self.SOON)
            for i in range(5, 8):  # the first is held, the others are not tried so soon
                took, got = send(str(i), i + 1, silent=subs[3])
                self.assertGreater(took, self.DELAY - 0.05)
                last = got[3]
            time.sleep(3 * self.DELAY)  # removals follow
            b.again("kill", sync_us=0)
            c = durable(b, "s3", 5, present=True)
            for i in range(5, 8):
                m = c.expect_publish("t", str(i))
                self.assertTrue(m.dup)
            self.assertEqual(m.pid, last.pid)
            c.expect_nothing()
            for i in (0, 1, 2, 4, 5):
                durable(b, "s%d" % i, 4, present=True).expect_nothing(0.05)

    def test_order_when_one_is_held(self):
        """Held while its receiver is there, the next ones while it is away: in order after a crash."""
        with DurableBroker("shards 3") as b:
            p = b.connect("p", 4)
            for k in range(6):
                c = durable(b, "s%d" % k, 4).subscribe(("t%d" % k, 1))
                p.send(*(publish("t%d" % k, str(i), 1, 10 * k + i + 1) for i in range(3)))
                c.expect_publish("t%d" % k, "0")
                c.close()
                p.send(*(publish("t%d" % k, str(i), 1, 10 * k + i + 1) for i in range(3, 6)))
                p.expect(*(puback(10 * k + i + 1) for i in range(6)), timeout=20 * SLOW)
            b.again("kill")
            for k in range(6):
                c = durable(b, "s%d" % k, 4, present=True)
                for i in range(6):
                    c.settle(c.expect_publish("t%d" % k, str(i)))
                c.expect_nothing(0.05)

    def test_memory(self):
        with DurableBroker("sys_interval 1\ndurability memory", sync_us=int(self.DELAY * 1e6)) as b:
            c = b.client(4)
            self.assertLess(self.seconds(lambda: c.connect("s", clean=False)), self.SOON)
            self.assertLess(self.seconds(lambda: c.subscribe(("t", 1), ("q", 2))), self.SOON)
            p = b.connect()
            for i in range(4):
                self.assertLess(self.seconds(lambda: p.publish("t", str(i), 1)), self.SOON)
            self.assertLess(self.seconds(lambda: p.publish("q", "4", 2)), self.SOON)
            self.assertLess(self.seconds(lambda: p.publish("r", "x", 1, retain=True)), self.SOON)
            self.assertEqual(self.durability(b), "memory")
            c.close()
            time.sleep(3 * self.DELAY)
            b.again("kill", sync_us=0)  # the journal has followed
            c = durable(b, "s", 4, present=True)
            self.assertEqual(sorted(m.payload for m in c.take(5)), [b"0", b"1", b"2", b"3", b"4"])

    def test_memory_loses(self):
        """The test of the test: acknowledged, killed at once, gone. The same with disk is kept."""
        for level, kept in (("memory", False), ("disk", True)):
            with self.subTest(level), DurableBroker("durability " + level) as b:
                durable(b, "s", 4).subscribe(("t", 1)).disconnect()
                time.sleep(SETTLED)
                b.again("stop", sync_us=int(self.DELAY * 1e6))
                b.connect().publish("t", "x", 1)
                b.again("kill", sync_us=0)
                c = durable(b, "s", 4, present=True)
                if kept:
                    c.settle(c.expect_publish("t", "x"))
                c.expect_nothing()

    def test_stop_waits_for_the_journal(self):
        """An orderly stop loses nothing at either level."""
        with DurableBroker("durability memory", sync_us=int(self.DELAY * 1e6)) as b:
            durable(b, "s", 4).subscribe(("t", 1)).disconnect()
            p = b.connect()
            for i in range(20):
                p.publish("t", str(i), 1)
            b.again("stop", sync_us=0)
            c = durable(b, "s", 4, present=True)
            self.assertEqual([m.payload for m in c.take(20)], [b"%d" % i for i in range(20)])

    def test_listeners(self):
        """Each listener has its level; a disk listener's answers wait beside a memory listener's."""
        with DurableBroker("", sync_us=int(self.DELAY * 1e6), listeners=[
                "listener {port} 127.0.0.1",
                "listener {port} 127.0.0.1\nlistener_durability memory"]) as b:
            durable(b, "s", 4).subscribe(("t", 1)).disconnect()
            disk, memory = b.connect("d", 4, 0), b.connect("m", 4, 1)
            self.assertGreater(self.seconds(lambda: disk.publish("t", "1", 1)), self.DELAY - 0.02)
            self.assertLess(self.seconds(lambda: memory.publish("t", "2", 1)), self.SOON)

    def test_without_persistence(self):
        with Broker("persistence false\nsys_interval 1") as b:
            self.assertEqual(self.durability(b), "memory")


if __name__ == "__main__":
    main()
