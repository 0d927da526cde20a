# SPDX-License-Identifier: Apache-2.0
"""Messages of shared groups that lie in the stored queue of a member whose session ends: to the other members,
whatever happens meanwhile."""

import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from durable import DurableBroker  # noqa: E402
from wire import *  # noqa: E402,F403

N = 60


@unittest.skipIf(IS_MOSQUITTO, "noctule only")
class SharedOnDisk(unittest.TestCase):

    def durable(self, b, name, present=False, expiry=3600, version=5):
        if version == 5:
            return b.connect(name, 5, clean=False, present=present, props=props((0x11, expiry)))
        return b.connect(name, 4, clean=False, present=present)

    def fill(self, b, qos=1, expiry=3600, filters=("$share/g/w/#",), n=N):
        """Two members without a connection; the messages lie in both of their queues."""
        for name in ("a", "b"):
            c = self.durable(b, name, expiry=expiry if name == "a" else 3600)
            for f in filters:
                c.subscribe((f, qos))
            c.disconnect() if expiry > 2 else c.close()
        p = b.connect()
        for i in range(n):
            p.publish("w/%d" % (i % 5), "%d" % i, qos)
        p.close()

    def all_of(self, c, n=N, quiet=1.0):
        """What comes until nothing more does."""
        got = []
        deadline = time.monotonic() + 20 * SLOW
        while time.monotonic() < deadline:
            try:
                m = c.recv(quiet * SLOW if len(got) >= n else 10 * SLOW)
            except Silence:
                break
            if m.type == PUBREL:
                c.send(pubcomp(m.pid))
                continue
            got.append(m.payload.decode())
            c.send(puback(m.pid) if m.qos == 1 else pubrec(m.pid))
        return got

    def complete(self, got, n=N):
        self.assertEqual(sorted(got, key=int), [str(i) for i in range(n)])

    def test_members_without_connection_take_turns(self):
        with DurableBroker() as b:
            for i in range(4):  # on one shard or on two
                self.fill(b, filters=("$share/%d/w/#" % i,))
                for name in ("a", "b"):
                    c = self.durable(b, name, present=True)
                    self.assertEqual(len(self.all_of(c, N // 2, quiet=0.3)), N // 2)
                    c.close()
                    b.connect(name).close()
                b.again("stop")

    def test_clean_start(self):
        for qos in (1, 2):
            with DurableBroker() as b:
                self.fill(b, qos)
                b.connect("a").close()
                self.complete(self.all_of(self.durable(b, "b", present=True)))

    def test_restarts_between(self):
        """The group is found again by what the record says, in the tables and in the journal."""
        for how in ("stop", "kill"):
            with DurableBroker() as b:
                self.fill(b)
                b.again(how)
                b.connect("a").close()
                b.again(how)
                self.complete(self.all_of(self.durable(b, "b", present=True)))

    def test_expiry(self):
        with DurableBroker() as b:
            self.fill(b, expiry=2)
            c = self.durable(b, "b", present=True)
            self.complete(self.all_of(c, quiet=3.0))

    def test_loaded_and_lost(self):
        """Read back by a member that takes nothing and goes: what it was not sent goes on at once."""
        with DurableBroker("max_inflight_messages 5") as b:
            self.fill(b)
            other = self.durable(b, "b", present=True)
            mine = self.all_of(other, N // 2)
            c = self.durable(b, "a", present=True)
            c.recv()
            time.sleep(0.3 * SLOW)
            c.reset()
            rest = self.all_of(other, N // 2 - 5)
            self.assertEqual(len(set(mine + rest)), len(mine + rest))
            self.assertGreaterEqual(len(mine + rest), N - 5)

    def test_killed_meanwhile(self):
        """CONNACK says that the session has ended; where the hand-over stands then is another matter."""
        for sync_us, delay in ((1000, 0), (1000, 0.002), (1000, 0.005), (1000, 0.01), (1000, 0.03),
                               (15000, 0.03), (15000, 0.06), (15000, 0.1), (15000, 0.15)):
            with DurableBroker(sync_us=0) as b:
                self.fill(b, n=400)
                b.again("stop", sync_us=sync_us)
                c = b.connect("a")
                time.sleep(delay)
                b.again("kill", sync_us=0)
                self.durable(b, "a", present=False).close()
                self.complete(self.all_of(self.durable(b, "b", present=True), 400), 400)
                c.close()

    def test_several_groups(self):
        """Each message stays in its group; what came through no group goes with the session."""
        with DurableBroker() as b:
            a = self.durable(b, "a").subscribe(("$share/g/w/#", 1), ("$share/h/v/#", 1), ("own", 1))
            a.disconnect()
            for name, f in (("b", "$share/g/w/#"), ("c", "$share/h/v/#")):
                self.durable(b, name).subscribe((f, 1)).disconnect()
            p = b.connect()
            for i in range(20):
                p.publish("w/x", "%d" % i, 1).publish("v/x", "%d" % i, 1).publish("own", "own", 1)
            b.connect("a").close()
            for name in ("b", "c"):
                self.complete(self.all_of(self.durable(b, name, present=True), 20), 20)

    def test_nobody_left(self):
        with DurableBroker("sys_interval 1") as b:
            c = self.durable(b, "a").subscribe(("$share/g/w/#", 1))
            c.disconnect()
            p = b.connect()
            for i in range(20):
                p.publish("w/x", "%d" % i, 1)
            b.connect("a").close()
            b.again("stop")
            c = self.durable(b, "a", present=False)
            c.expect_nothing()


if __name__ == "__main__":
    main()
