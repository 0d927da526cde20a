# SPDX-License-Identifier: Apache-2.0
"""The disk from outside: who waits for it, who never touches it, what happens when it cannot be written.

And queues that are longer than memory should be.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from durable import DurableBroker  # noqa: E402
from wire import *  # noqa: E402,F403

SCALE = float(os.environ.get("NOCTULE_LOAD_SCALE", "1"))


def session(b, client_id, present=False):
    return b.connect(client_id, 4, clean=False, present=present)


def counters(b, *names):
    """Of $SYS/broker/noctule/store; sys_interval is 1."""
    topics = ["$SYS/broker/noctule/store/" + name for name in names]
    with b.client(4) as c:
        c.connect().subscribe(*((t, 0) for t in topics))
        found = {}
        end = time.monotonic() + 1.5  # a round of $SYS, so that none is older than this call
        while time.monotonic() < end or len(found) < len(topics):
            try:
                m = c.expect_publish(timeout=0.1 if len(found) == len(topics) else 5 * SLOW)
                found[m.topic] = int(m.payload)
            except Silence:
                pass
        return [found[t] for t in topics]


@unittest.skipIf(IS_MOSQUITTO, "noctule only")
class NothingWaits(unittest.TestCase):
    """A shard never waits for the disk: its other clients do not feel how slow that is."""

    SYNC = 0.15 * SLOW
    PING = 250

    def setUp(self):
        self.stop = threading.Event()
        self.failed = []
        self.threads = []
        self.acks = []     # seconds
        self.drained = 0

    def in_background(self, work, *args):
        def run():
            try:
                work(*args)
            except Exception as e:  # told by the main thread
                self.failed.append(e)

        t = threading.Thread(target=run)
        self.threads.append(t)
        t.start()

    def store_much(self, b, name):
        """Durable work of every kind, one commit after the other."""
        p = b.connect(name, 4)
        n = 0
        while not self.stop.is_set():
            n += 1
            begin = time.monotonic()
            p.publish("queued/%d" % (n % 3), "x" * 2000, 1 + n % 2, retain=n % 5 == 0)
            self.acks.append(time.monotonic() - begin)
            if n % 4 == 0:
                session(b, "%s-%d" % (name, n)).subscribe(("other/#", 1)).disconnect()

    def drain(self, c):
        while not self.stop.is_set():
            try:
                c.settle(c.expect_publish(timeout=0.2))
                self.drained += 1
            except Silence:
                pass

    def latencies(self, b):
        s = b.connect("s", 4).subscribe(("live/#", 0))
        p = b.connect("p", 4)
        found = []
        for i in range(self.PING):
            begin = time.monotonic()
            p.send(publish("live/%d" % (i % 10), "x" * 50))
            s.expect_publish("live/%d" % (i % 10))
            found.append(time.monotonic() - begin)
            time.sleep(0.004)
        return sorted(found)

    def test_qos_0_beside_a_slow_disk(self):
        with DurableBroker("max_queued_messages 0", shards=1) as b:
            session(b, "away").subscribe(("queued/#", 2)).disconnect()
            session(b, "reader").subscribe(("queued/#", 1)).disconnect()
            p = b.connect("filler", 4)
            for _ in range(10):
                p.send(*(publish("queued/1", "y" * 1000, 1, i + 1) for i in range(300)))
                p.expect(*(puback(i + 1) for i in range(300)), timeout=20 * SLOW)
            b.again("stop", sync_us=int(self.SYNC * 1e6))
            reader = session(b, "reader", present=True)  # its CONNACK waits for syncs, what it reads does not
            for i in range(3):
                self.in_background(self.store_much, b, "w%d" % i)
            self.in_background(self.drain, reader)
            try:
                found = self.latencies(b)
            finally:
                self.stop.set()
                for t in self.threads:
                    t.join()
            for e in self.failed:
                raise e
            p99 = found[len(found) * 99 // 100]
            print("p50 %.1f ms, p99 %.1f ms; acknowledgements from disk: median %.0f ms, %d of them; %d drained" % (
                1e3 * found[len(found) // 2], 1e3 * p99, 1e3 * statistics.median(self.acks), len(self.acks),
                self.drained))
            self.assertGreater(len(self.acks), 2)
            self.assertGreater(statistics.median(self.acks), self.SYNC, "the disk was not slow")
            self.assertGreater(self.drained, 100)  # far more than there were syncs
            self.assertLess(p99, self.SYNC / 3)


@unittest.skipIf(IS_MOSQUITTO, "noctule only")
class Untouched(unittest.TestCase):
    """What no durable session, retained flag or will touches never touches the store."""

    NAMES = ("commits", "records", "journal/written")

    def work(self, b):
        subs = [b.connect("c%d" % i, 4 + i % 2).subscribe(("t/#", 2), ("$share/g/s", 1)) for i in range(4)]
        p = b.connect("p", 5)
        for i in range(150):
            p.publish("t/%d" % (i % 7), "x" * 100, i % 3)
            p.publish("s", "x", 1)
        for s in subs:
            s.close()
        p.disconnect()

    def test_counters(self):
        with DurableBroker("sys_interval 1") as b:
            before = counters(b, *self.NAMES)
            files = b.files()
            self.work(b)
            self.assertEqual(counters(b, *self.NAMES), before)
            self.assertEqual(b.files(), files)
            # and the counters do count
            session(b, "durable").subscribe(("t/1", 1)).disconnect()
            b.connect().publish("t/1", "x", 1)
            after = counters(b, *self.NAMES)
            for name, x, y in zip(self.NAMES, before, after):
                self.assertGreater(y, x, name)

    @staticmethod
    def target(broker, fd):
        try:
            return os.readlink("/proc/%d/fd/%s" % (broker.pid, fd))
        except FileNotFoundError:  # a connection that was closed meanwhile
            return ""

    @unittest.skipUnless(shutil.which("strace"), "needs strace")
    def test_system_calls(self):
        """No write, sync or cut of a file of the store, by any thread."""
        with DurableBroker() as b:
            store_fds = [fd for fd in os.listdir("/proc/%d/fd" % b.pid) if self.target(b, fd).startswith(b.store)]
            self.assertGreaterEqual(len(store_fds), 2)
            trace = os.path.join(b.dir, "trace")
            s = subprocess.Popen(["strace", "-f", "-q", "-o", trace, "-p", str(b.pid), "-e",
                                  "trace=pwrite64,pwritev,fsync,fdatasync,msync,ftruncate,fallocate"],
                                 stderr=subprocess.PIPE)
            try:
                time.sleep(0.5 * SLOW)
                if s.poll() is not None:
                    self.skipTest("strace: " + s.stderr.read().decode())
                self.work(b)
                with open(trace) as f:
                    untouched = f.read()
                session(b, "durable").subscribe(("t/1", 1)).disconnect()
                with open(trace) as f:
                    touched = f.read()
            finally:
                s.terminate()
                s.wait()
                s.stderr.close()
            self.assertEqual(untouched, "")
            self.assertIn("fdatasync", touched, "strace sees nothing")


@unittest.skipIf(IS_MOSQUITTO, "noctule only")
class LongRecovery(unittest.TestCase):
    """A start that takes a while says how far it is."""

    def test_progress_in_the_log(self):
        with DurableBroker("max_queued_messages 0") as b:
            session(b, "s").subscribe(("q", 1)).disconnect()
            p = b.connect("p", 4)
            for _ in range(30):
                p.send(*(publish("q", "x", 1, i + 1) for i in range(1000)))
                p.expect(*(puback(i + 1) for i in range(1000)), timeout=20 * SLOW)
            b.again("kill", sync_us=600000)  # slices of 10,000 changes, two syncs each
            told = [line for line in b.log().split("\n") if "changes folded so far" in line]
            self.assertGreater(b.ready_s, 2)
            self.assertGreater(len(told), 0, b.log()[-2000:])
            self.assertLess(len(told), b.ready_s)


def can_mount():
    return os.geteuid() == 0 and shutil.which("mount") is not None


@unittest.skipIf(IS_MOSQUITTO, "noctule only")
@unittest.skipUnless(can_mount(), "needs root, to mount")
class ReadOnly(unittest.TestCase):
    """A disk that cannot be written: an exit code and a message that names the file, nothing else."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="noctule-ro-")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", self.dir]).returncode != 0:
            os.rmdir(self.dir)
            self.skipTest("mount is not allowed here")

    def tearDown(self):
        subprocess.run(["umount", "-l", self.dir], check=True)
        os.rmdir(self.dir)

    def refused(self):
        port = Port()
        self.addCleanup(port.release)
        code, text = run_broken("user root\nlistener %d 127.0.0.1\nallow_anonymous true\npersistence true\n"
                                "persistence_location %s\n" % (port.number, self.dir), args=["-v"])
        self.assertEqual(code, 1, text)
        self.assertIn(self.dir + "/", text)
        self.assertIn("Read-only file system", text)

    def remount(self, how):
        subprocess.run(["mount", "-o", "remount," + how, self.dir], check=True)

    def test_new(self):
        self.remount("ro")
        self.refused()
        self.assertEqual(os.listdir(self.dir), [])

    def test_in_use_before(self):
        with DurableBroker(location=self.dir) as b:
            session(b, "s").subscribe(("t", 1)).disconnect()
            b.connect().publish("t", "x", 1)
        self.remount("ro")
        self.refused()
        self.remount("rw")
        with DurableBroker(location=self.dir) as b:  # and it is all there
            c = session(b, "s", present=True)
            c.settle(c.expect_publish("t", "x"))


@unittest.skipIf(IS_MOSQUITTO, "noctule only")
class LongQueues(unittest.TestCase):
    """Many small messages for many sessions without a connection: on disk, a body once for all of them."""

    SESSIONS = 100
    N = max(21000, int(150000 * SCALE)) // 3000 * 3000
    ROOM_KB = 45 * 1024  # of memory: what is not folded yet, whatever the number

    def fill(self, b, p, first, last):
        """Messages first ... last-1 of all, dealt out over the sessions. The most memory seen on the way, kB."""
        most = 0
        for at in range(first, last, 1000):
            p.send(*(publish("q/%d" % (i % self.SESSIONS), "%010d" % i + "x" * 30, 1, i - at + 1)
                     for i in range(at, at + 1000)))
            p.expect(*(puback(i + 1) for i in range(1000)), timeout=20 * SLOW)
            most = max(most, b.status_kb("RssAnon"))
        return most

    def drain(self, b, k):
        c = session(b, "s%d" % k, present=True)
        for i in range(k, self.N, self.SESSIONS):
            m = c.settle(c.expect_publish("q/%d" % k, timeout=10 * SLOW))
            self.assertEqual(m.payload[:10], b"%010d" % i)
        m = c.settle(c.expect_publish("all", timeout=5 * SLOW))
        self.assertEqual(len(m.payload), 100000)
        c.expect_nothing(0.1)

    def test_memory_and_order(self):
        with DurableBroker("max_queued_messages 0\nmax_queued_bytes 0\nsys_interval 1") as b:
            for k in range(self.SESSIONS):
                session(b, "s%d" % k).subscribe(("q/%d" % k, 1), ("all", 1)).disconnect()
            p = b.connect("p", 4)
            begin = b.status_kb("RssAnon")
            third = self.N // 3
            first = self.fill(b, p, 0, third)
            most = self.fill(b, p, third, self.N)
            written, = counters(b, "journal/written")
            p.publish("all", "y" * 100000, 1)
            once = counters(b, "journal/written")[0] - written
            b.again("kill")
            begun = b.status_kb("RssAnon")
            most_drained = 0
            for k in (0, self.SESSIONS // 2, self.SESSIONS - 1):
                self.drain(b, k)
                most_drained = max(most_drained, b.status_kb("RssAnon"))
            print("%d queued: %d kB, at first %d, after the start %d, while drained %d; %d bytes for a body of "
                  "100000 in %d queues" % (self.N, most - begin, first - begin, begun, most_drained, once,
                                           self.SESSIONS))
            self.assertLess(once, 150000)
            if SLOW == 1:  # sanitizers hold freed memory back
                self.assertLess(most - begin, self.ROOM_KB)
                self.assertLess(begun, self.ROOM_KB)
                self.assertLess(most_drained, self.ROOM_KB)


if __name__ == "__main__":
    main()
