# SPDX-License-Identifier: Apache-2.0
"""Wills: when they are sent, when not, and how."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403


class Wills(BrokerTest):
    def watch(self, topic, qos=2):
        return self.connect("%.10s-watch" % self.name).subscribe((topic, qos))

    def test_on_abnormal_close(self):
        """[MQTT-3.1.2-8] FIN and RST without DISCONNECT."""
        w = self.watch("will/end/+")
        for end in ("close", "reset"):
            c = self.connect(will=Will("will/end/" + end, "gone"))
            getattr(c, end)()
            w.settle(w.expect_publish("will/end/" + end, "gone", 0, retain=False))
        w.expect_nothing()

    def test_not_on_disconnect(self):
        """[MQTT-3.1.2-10]"""
        w = self.watch("will/no")
        for version in (3, 4):
            self.connect(version=version, will=Will("will/no", "gone")).disconnect()
        c = self.connect(will=Will("will/no", "gone"))
        c.send(disconnect())
        c.close()
        w.expect_nothing()

    def test_on_protocol_error(self):
        """[MQTT-4.8.0-1] the broker's own close counts."""
        w = self.watch("will/err/+")
        for i, data in enumerate((b"\0\0", publish("a/#", "x"), subscribe(1, ("a", 3)), b"\x36\0",
                                  b"\xC0\x80\x80\x80\x80\x01")):
            c = self.connect(will=Will("will/err/%d" % i, "gone"))
            c.try_send(data)
            c.expect_closed()
            w.expect_publish("will/err/%d" % i, "gone")

    def test_not_after_a_packet_behind_disconnect(self):
        """What stands behind DISCONNECT is not looked at [MQTT-3.14.4-2]."""
        w = self.watch("will/behind/#")
        c = self.connect(will=Will("will/behind/w", "gone"))
        c.try_send(disconnect() + publish("will/behind/p", "x"))
        c.expect_closed()
        w.expect_nothing()

    def test_qos_and_retain(self):
        """[MQTT-3.1.2-16, 17]"""
        w = self.watch("will/q/+")
        for qos in (0, 1, 2):
            for retain in (False, True):
                topic = "will/q/%d%d" % (qos, retain)
                self.connect(will=Will(topic, "gone", qos, retain)).reset()
                w.settle(w.expect_publish(topic, "gone", qos, retain=False))
                s = self.connect().subscribe((topic, 2))
                if retain:
                    s.settle(s.expect_publish(topic, "gone", qos, retain=True))
                s.expect_nothing(0.05)
                if retain:
                    self.connect().publish(topic, "", 1, retain=True)
                    w.settle(w.expect_publish(topic, ""))

    def test_empty_retained_will_clears(self):
        p = self.connect().publish("will/clear", "x", 1, retain=True)
        w = self.watch("will/clear")
        w.settle(w.expect_publish(retain=True))
        self.connect(will=Will("will/clear", "", 0, True)).reset()
        w.expect_publish("will/clear", "", retain=False)
        self.connect().subscribe(("will/clear", 0)).expect_nothing()
        p.is_alive()

    def test_of_a_durable_session(self):
        """Sent once, at the end of the connection; the session stays."""
        w = self.watch("will/dur")
        c = self.connect("dur", clean=False, will=Will("will/dur", "gone", 1))
        c.reset()
        w.settle(w.expect_publish("will/dur", "gone", 1))
        c = self.connect("dur", clean=False, present=True)
        c.reset()
        w.expect_nothing()

    def test_to_the_durable_absent(self):
        self.connect("abs", clean=False).subscribe(("will/abs", 1)).disconnect()
        w = self.watch("will/abs")
        self.connect(will=Will("will/abs", "gone", 1)).reset()
        w.settle(w.expect_publish("will/abs"))
        s = self.connect("abs", clean=False, present=True)
        self.assertEqual(s.take(1)[0].payload, b"gone")

    def test_new_will_with_each_connection(self):
        w = self.watch("will/each/+")
        self.connect("each", will=Will("will/each/1", "gone")).disconnect()
        self.connect("each", will=Will("will/each/2", "gone")).reset()
        w.expect_publish("will/each/2", "gone")
        self.connect("each").reset()
        w.expect_nothing()

    def test_to_oneself_is_no_use(self):
        """The one who left does not get it, also not when it is back clean."""
        c = self.connect("self").subscribe(("will/self", 0))
        c.close()
        self.connect("self", will=Will("will/self", "gone")).reset()
        self.connect("self").expect_nothing()

    def test_large(self):
        w = self.watch("will/large")
        data = os.urandom(65535)
        self.connect(will=Will("will/large", data, 1)).reset()
        w.settle(w.expect_publish("will/large", data, 1))

    def test_many_at_once(self):
        w = self.watch("will/many/+", 0)
        cs = [self.connect("many-%d" % i, will=Will("will/many/%d" % i, "gone")) for i in range(100)]
        for c in cs:
            c.reset()
        self.assertEqual({w.expect_publish().topic for _ in cs}, {"will/many/%d" % i for i in range(100)})
        w.expect_nothing()

    def test_not_to_sys(self):
        """As a client's own publish: not delivered."""
        w = self.connect().subscribe(("$SYS/will/#", 0))
        c = self.client()
        c.send(connect("wsys", will=Will("$SYS/will/x", "gone")))
        try:
            c.recv()
            c.reset()
        except Closed:
            pass
        w.expect_nothing()


if __name__ == "__main__":
    main()
