#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""bench/counts can fail: a baseline 20 % lower, a case it does not know, one that has gone.

usage: test_counts.py BUILD_FOLDER
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = sys.argv.pop() if len(sys.argv) > 1 else os.path.join(os.path.dirname(HERE), "build", "release")
CASE = "timers.run_out"


class CanFail(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="noctule-counts-")
        cls.path = os.path.join(cls.folder.name, "counts.json")
        cls.counts(cls, "--update")
        with open(cls.path) as f:
            cls.true = json.load(f)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def counts(self, *more):
        done = subprocess.run([os.path.join(HERE, "counts"), "--build", BUILD, "--only", "timers", "--baseline",
                               self.path] + list(more), stdout=subprocess.PIPE, universal_newlines=True)
        return done.returncode, done.stdout

    def against(self, baseline):
        with open(self.path, "w") as f:
            json.dump(baseline, f)
        return self.counts()

    def test_the_same_again_passes(self):
        code, text = self.against(self.true)
        self.assertEqual((code, text), (0, "%d cases, 0 failed\n" % len(self.true)))

    def test_a_fifth_more_than_the_baseline_fails(self):
        code, text = self.against({**self.true, CASE: self.true[CASE] * 0.8})
        self.assertEqual(code, 1)
        self.assertIn("FAILED " + CASE, text)
        self.assertIn("1 failed", text)

    def test_a_fifth_less_asks_for_an_update(self):
        code, text = self.against({**self.true, CASE: self.true[CASE] * 1.25})
        self.assertEqual(code, 0)
        self.assertIn(CASE, text)
        self.assertIn("--update", text)

    def test_a_case_without_baseline_fails(self):
        code, text = self.against({k: v for k, v in self.true.items() if k != CASE})
        self.assertEqual(code, 1)
        self.assertIn(CASE + " is not in the baseline", text)

    def test_a_baseline_without_its_case_fails(self):
        code, text = self.against({**self.true, "timers.gone": 7})
        self.assertEqual(code, 1)
        self.assertIn("timers.gone is in the baseline only", text)


if __name__ == "__main__":
    unittest.main()
