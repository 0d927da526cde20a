# SPDX-License-Identifier: Apache-2.0
"""What waits for the store and what does not: the store in memory with a delay that can be seen."""

import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403

DELAY = 0.3 * SLOW
SOON = 0.2 * SLOW


class Delay(BrokerTest):
    config = "store_delay %d" % (DELAY * 1000)

    @classmethod
    def setUpClass(cls):
        if IS_MOSQUITTO:
            raise unittest.SkipTest("noctule only: store_delay")
        super().setUpClass()

    def after(self, begin, least=DELAY, most=None):
        took = time.monotonic() - begin
        self.assertGreaterEqual(took, least - 0.02)
        if most is not None:
            self.assertLess(took, most)

    def durable(self, name, *filters):
        """A durable session with subscriptions, connected."""
        return self.connect(name, clean=False).subscribe(*filters)

    def test_connack_and_suback_of_a_durable_session(self):
        begin = time.monotonic()
        c = self.connect("dur", clean=False)
        self.after(begin)
        begin = time.monotonic()
        c.subscribe(("dur/t", 1))
        self.after(begin)
        begin = time.monotonic()
        c.unsubscribe("dur/t")
        self.after(begin)

    def test_clean_session_does_not_wait(self):
        begin = time.monotonic()
        self.connect("cl").subscribe(("cl/t", 1)).unsubscribe("cl/t")
        self.after(begin, 0, SOON)

    def test_connack_that_ends_a_stored_session(self):
        self.durable("ended", ("ended/t", 1)).disconnect()
        begin = time.monotonic()
        self.connect("ended", clean=True)
        self.after(begin)

    def test_qos_1_with_durable_interest(self):
        """PUBACK after the delay; PINGRESP does not wait."""
        self.durable("d1", ("d1/t", 1))
        p = self.connect()
        begin = time.monotonic()
        p.send(publish("d1/t", "x", 1, 7), pingreq())
        p.expect(pingresp())
        self.after(begin, 0, SOON)
        p.expect(puback(7))
        self.after(begin)

    def test_offline_interest_counts(self):
        self.durable("d1o", ("d1o/+", 1)).disconnect()
        p = self.connect()
        begin = time.monotonic()
        p.publish("d1o/t", "x", 1)
        self.after(begin)

    def test_qos_1_without_durable_interest(self):
        s = self.connect().subscribe(("nd/t", 1))
        p = self.connect()
        begin = time.monotonic()
        p.publish("nd/t", "x", 1).publish("nd/nobody", "x", 1)
        s.settle(s.expect_publish("nd/t"))
        self.after(begin, 0, SOON)

    def test_qos_0_does_not_wait(self):
        s = self.durable("d0", ("d0/t", 1))
        begin = time.monotonic()
        self.connect().publish("d0/t", "x", 0)
        s.expect_publish("d0/t", "x", 0)
        self.after(begin, 0, SOON)

    def test_pubacks_stay_in_order(self):
        """[MQTT-4.6.0-2] one that need not wait stands behind one that has to."""
        self.durable("ord", ("ord/durable", 1))
        p = self.connect()
        begin = time.monotonic()
        p.send(publish("ord/durable", "x", 1, 1), publish("ord/free", "x", 1, 2),
               publish("ord/durable", "x", 1, 3), publish("ord/free", "x", 1, 4), pingreq())
        p.expect(pingresp(), puback(1), puback(2), puback(3), puback(4))
        self.after(begin, DELAY, 2 * DELAY + SOON)

    def test_many_share_a_delay(self):
        """Grouped: a hundred in flight do not take a hundred delays."""
        self.durable("grp", ("grp/t", 1))
        p = self.connect()
        begin = time.monotonic()
        p.send(*(publish("grp/t", "x", 1, i + 1) for i in range(100)))
        p.expect(*(puback(i + 1) for i in range(100)))
        self.after(begin, DELAY, 3 * DELAY + SOON)

    def test_qos_2_of_a_durable_publisher(self):
        """PUBREC and PUBCOMP each wait: the identifier is stored, then released."""
        p = self.connect("d2p", clean=False)
        begin = time.monotonic()
        p.send(publish("d2p/t", "x", 2, 7))
        p.expect(pubrec(7))
        self.after(begin)
        begin = time.monotonic()
        p.send(pubrel(7))
        p.expect(pubcomp(7))
        self.after(begin)

    def test_qos_2_without_anything_durable(self):
        p = self.connect()
        begin = time.monotonic()
        p.publish("f2/t", "x", 2)
        self.after(begin, 0, SOON)

    def test_qos_2_to_a_durable_session(self):
        """The identifier is stored before PUBLISH leaves, the step before PUBREL."""
        s = self.durable("d2s", ("d2s/t", 2))
        p = self.connect()
        begin = time.monotonic()
        p.send(publish("d2s/t", "x", 2, 1), pubrel(1))
        got = s.expect_publish("d2s/t", "x", 2)
        self.after(begin)
        begin = time.monotonic()
        s.send(pubrec(got.pid))
        s.expect(pubrel(got.pid))
        self.after(begin)
        s.send(pubcomp(got.pid))

    def test_retained(self):
        """The PUBACK of a retained publish waits, with or without subscribers; also that of clearing."""
        p = self.connect()
        for payload in ("x", ""):
            begin = time.monotonic()
            p.publish("ret/t", payload, 1, retain=True)
            self.after(begin)

    def test_publisher_that_left(self):
        """Its answer has nowhere to go; the message arrives."""
        self.durable("left", ("left/t", 1)).disconnect()
        p = self.connect("leaver")
        p.send(publish("left/t", "x", 1, 7), pingreq())
        p.expect(pingresp())
        p.reset()
        p = self.connect("leaver")
        p.expect_nothing(2 * DELAY)  # no PUBACK of an older connection
        s = self.connect("left", clean=False, present=True)
        s.settle(s.expect_publish("left/t", "x"))

    def test_takeover_meanwhile(self):
        """A second CONNECT while the first waits for its CONNACK."""
        a, b = self.client(), self.client()
        a.send(connect("tw", clean=False))
        time.sleep(0.05)
        b.send(connect("tw", clean=False))
        try:
            a.expect_type(CONNACK)
        except Closed:
            pass
        else:
            a.expect_closed()
        got = b.expect_type(CONNACK)
        self.assertEqual(got.body[1], 0)
        self.assertTrue(b.is_alive())


if __name__ == "__main__":
    main()
