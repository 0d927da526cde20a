# SPDX-License-Identifier: Apache-2.0
"""Stores that older versions of the broker have left: data/store-v1.tar.gz and store-v2.tar.gz were written by those of
format 1 and 2, part of it folded, part of it in the journal of a process that was killed (data/make_store.py)."""

import os
import subprocess
import sys
import tarfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from durable import DurableBroker  # noqa: E402
from wire import *  # noqa: E402,F403

HERE = os.path.dirname(os.path.abspath(__file__))
STORE_TOOL = os.path.join(os.path.dirname(BIN), "noctule-store")


@unittest.skipIf(IS_MOSQUITTO, "noctule only")
class OldStores(unittest.TestCase):

    def unpacked(self, name, **options):
        b = DurableBroker(start=False, **options)
        with tarfile.open(os.path.join(HERE, "data", name)) as t:
            t.extractall(b.dir)
        return b

    def version_is(self, b, version):
        """In both files, as FORMAT.md has it in `meta`; an older page may be left behind."""
        return all(b"version" + bytes((version, 0, 0, 0)) in open(path, "rb").read() for path, _, _ in b.files())

    def resume(self, b, client_id, version, n, **fields):
        c = b.connect(client_id, version, clean=False, present=True, **fields)
        return [(m.topic, m.payload.decode(), m.dup, m.pid if m.dup else None) for m in c.take(n)]

    def goes_on(self, version):
        b = self.unpacked("store-v%d.tar.gz" % version)
        try:
            self.assertEqual(subprocess.run([STORE_TOOL, "check", b.store]).returncode, 0)
            self.assertTrue(self.version_is(b, version))
            b.start()
            for tag in "ab":
                queue = [("q/" + tag, "sent-%d" % i, True, i) for i in (1, 2)]
                queue += [("q/" + tag, "queued-%d" % i, False, None) for i in range(4)]
                queue += [("two/x", "second", False, None)] * (2 if tag == "a" else 1)
                self.assertEqual(self.resume(b, "s-" + tag, 4, len(queue)), queue)
                self.assertEqual([p for _, p, _, _ in self.resume(b, "g-" + tag, 5, 3,
                                                                  props=props((0x11, 3600)))],
                                 ["shared-%d" % i for i in range(3)])
            c = b.connect()
            c.subscribe(("r/#", 1))
            got = {m.topic: m.payload for m in c.take(4)}
            self.assertEqual(got, {"r/a": b"small", "r/b": b"small", "r/big/a": b"B" * 5000, "r/big/b": b"B" * 5000})
            b.connect().publish("q/a", "new", 1)
            b.again("stop")
            b.stop()
            self.assertTrue(self.version_is(b, 4))
            self.assertEqual(subprocess.run([STORE_TOOL, "check", b.store]).returncode, 0)
            b.start()
            self.assertEqual(self.resume(b, "s-a", 4, 1)[0][1], "new")
        finally:
            b.close()

    def test_version_1(self):
        self.goes_on(1)

    def test_version_2(self):
        self.goes_on(2)

    def test_no_record_no_version(self):
        """A file has the new version with the first record of the new form, not before."""
        b = self.unpacked("store-v2.tar.gz")
        try:
            b.start()
            b.stop()
            journal = [path for path, _, _ in b.files() if "journal" in path][0]
            self.assertIn(b"version\2\0\0\0", open(journal, "rb").read())
            self.assertNotIn(b"version\3\0\0\0", open(journal, "rb").read())
        finally:
            b.close()


if __name__ == "__main__":
    main()
