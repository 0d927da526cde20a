# SPDX-License-Identifier: Apache-2.0
"""A disk that fills up: new durable work is refused, nothing acknowledged is lost, a drain makes room again."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from wire import *  # noqa: E402,F403

PAYLOAD = b"x" * 8000
WINDOW = 100
EXPIRY = props((0x11, 3600))


def reason_of(ack):
    return ack.body[2] if len(ack.body) > 2 else 0


def can_mount():
    return os.geteuid() == 0 and shutil.which("mount") is not None


@unittest.skipIf(IS_MOSQUITTO, "noctule only")
@unittest.skipUnless(can_mount(), "needs root, to mount a small file system")
class FullDisk(unittest.TestCase):
    SIZE = "190m"

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="noctule-full-")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + self.SIZE, "tmpfs", self.dir]).returncode != 0:
            os.rmdir(self.dir)
            self.skipTest("mount is not allowed here")

    def tearDown(self):
        subprocess.run(["umount", self.dir], check=True)
        os.rmdir(self.dir)

    def fill(self, p, limit):
        """Publishes until some are refused; the number accepted. Reasons other than 0 and 0x97 fail."""
        accepted = refused = sent = 0
        while refused < 3 * WINDOW and sent < limit:
            p.send(*[publish("full/t", PAYLOAD, 1, i + 1, version=5) for i in range(WINDOW)])
            sent += WINDOW
            for _ in range(WINDOW):
                reason = reason_of(p.expect_type(PUBACK, timeout=20 * SLOW))
                self.assertIn(reason, (0, 0x97))
                accepted += reason == 0
                refused += reason == 0x97
        self.assertGreater(refused, 0, "the disk did not fill")
        return accepted

    def test_refuses_drains_recovers(self):
        config = "persistence true\npersistence_location %s\nmax_queued_bytes 0\n" % self.dir
        with Broker(config) as b:
            s = b.connect("keeper", 5, clean=False, props=EXPIRY).subscribe(("full/#", 1))
            s.disconnect()
            p = b.connect("filler", 5)
            accepted = self.fill(p, 40000)
            p.expect_nothing()  # still connected, and served
            s = b.connect("keeper", 5, clean=False, present=True, props=EXPIRY)
            for _ in range(accepted):
                s.send(puback(s.expect_type(PUBLISH, timeout=10 * SLOW).pid))
            s.expect_nothing()

            def taken():
                p.send(publish("full/t", b"again", 1, 1, version=5))
                return reason_of(p.expect_type(PUBACK, timeout=5 * SLOW)) == 0

            wait_until(taken, "messages are taken again", timeout=20)
            s.settle(s.expect_publish("full/t", "again"))
            b.stop()
        # and nothing was left behind that a restart would bring back
        with Broker(config) as b:
            b.connect("keeper", 5, clean=False, present=True, props=EXPIRY).expect_nothing()


@unittest.skipIf(IS_MOSQUITTO, "noctule only")
@unittest.skipUnless(can_mount(), "needs root, to mount a small file system")
class SmallDisk(unittest.TestCase):
    """What is held back goes with the size of the file system; what is there and what is needed is said."""

    SIZE = "50m"
    setUp, tearDown, fill = FullDisk.setUp, FullDisk.tearDown, FullDisk.fill

    def config(self, more=""):
        return "persistence true\npersistence_location %s\nmax_queued_bytes 0\n%s" % (self.dir, more)

    def test_serves_and_says(self):
        with Broker(self.config()) as b:
            self.assertRegex(b.log(), r"%s: \d+ MB free, 8 MB held back" % self.dir)
            s = b.connect("s", 5, clean=False, props=EXPIRY).subscribe(("full/#", 1))
            s.disconnect()
            p = b.connect("p", 5)
            accepted = self.fill(p, 20000)
            self.assertGreater(accepted * len(PAYLOAD), 8 << 20)  # some use of the disk was made
            wait_until(lambda: re.search(r"data.mdb: no space left: \d+ MB free, \d+ MB needed", b.log()), "it is said", 10)
            self.assertIn("messages are refused: ", b.log())
            s = b.connect("s", 5, clean=False, present=True, props=EXPIRY)
            for _ in range(accepted):
                s.send(puback(s.expect_type(PUBLISH, timeout=10 * SLOW).pid))
            wait_until(lambda: "there is room again" in b.log(), "that it is over as well", 30)

    def test_key(self):
        """More asked for than there is: it starts, says so, and refuses."""
        with Broker(self.config("persistence_reserve 40M")) as b:
            wait_until(lambda: re.search(r"no space left: \d+ MB free, 4\d MB needed", b.log()), "it is said", 10)
            b.connect("s", 5, clean=False, props=EXPIRY).subscribe(("full/#", 1)).disconnect()
            p = b.connect("p", 5)
            p.send(publish("full/t", b"x", 1, 1, version=5))
            self.assertEqual(reason_of(p.expect_type(PUBACK)), 0x97)

    def test_old_publisher(self):
        """3.1.1: nothing can be said, so it is unread, and closed ten seconds after its first refused message."""
        with Broker(self.config("persistence_reserve 40M")) as b:
            b.connect("s", clean=False).subscribe(("full/#", 1)).disconnect()
            p = b.connect("old")
            begin = time.monotonic()
            p.send(publish("full/t", b"x", 1, 1))
            p.expect_closed(25 * SLOW)
            self.assertGreater(time.monotonic() - begin, 8)


if __name__ == "__main__":
    main()
