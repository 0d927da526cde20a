#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The runner's own tests: wrong expectations are caught, expressions mean what README.md says."""

import contextlib
import io
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import run  # noqa: E402
import script  # noqa: E402
import table  # noqa: E402

run.TIMEOUT = 1.0  # the wrong ones wait for what never comes


class AgainstTheBroker(unittest.TestCase):
    def test_right_passes_and_wrong_fails(self):
        scr = run.load(["self-test.txt"])
        judge, out = run.Judge(False), io.StringIO()
        with contextlib.redirect_stdout(out):
            fine = run.run_tests(scr, scr.tests, judge)
        self.assertTrue(fine, out.getvalue())
        failed = sorted(t.name for t in judge.failed)
        self.assertEqual(failed, sorted(t.name for t in scr.tests if t.name.startswith("wrong-")),
                         out.getvalue())
        self.assertEqual(judge.passed, sum(t.name.startswith("right-") for t in scr.tests))
        for name in failed:  # the failing line, what was said
            self.assertRegex(out.getvalue(), r"FAILED \S*self-test.txt:\d+ %s \(0.0-2\)\n  self-test.txt:\d+: a "
                             % name)
        self.assertIn("<- CONNACK     20 09 00 00 06", out.getvalue())


class Expressions(unittest.TestCase):
    macros = {"TWO": (2, "$2 [$1]"), "NEST": (1, 'TWO("$1", 0F)')}

    def nodes(self, text):
        return script.Parser(text, self.macros, "u1").parse()

    def bytes(self, text, env=None):
        return script.encode(self.nodes(text), env or {}).hex()

    def matches(self, text, data):
        for env in script.match(self.nodes(text), bytes.fromhex(data), {"conn": "a"}):
            return env
        return None

    def test_bytes(self):
        self.assertEqual(self.bytes("30 0A0b"), "300a0b")
        self.assertEqual(self.bytes("\"%/t\" '%' \"\""), "0004" + b"u1/t".hex() + b"u1".hex() + "0000")
        self.assertEqual(self.bytes('"\\x00\\xC3\\xA9" "é"'), "000300c3a9" + "0002c3a9")
        self.assertEqual(self.bytes("[00 {} <0102>]"), "06" + "0000" + "00020102")
        self.assertEqual(self.bytes("[200x(00)]"), "c801" + "00" * 200)
        self.assertEqual(self.bytes("TWO(\"a,)\", FF) NEST(b)"), "ff" + "05" + "0003612c29" + "0f03000162")
        self.assertEqual(self.bytes("@p", {"p": ("a", b"\1\2")}), "0102")

    def test_patterns(self):
        self.assertIsNotNone(self.matches("?? 01..03 *", "ff02"))
        self.assertIsNone(self.matches("01..03", "04"))
        self.assertIsNone(self.matches("01", "0101"))
        self.assertIsNotNone(self.matches("[* 05] 06", "02040506"))
        self.assertIsNone(self.matches("[* 05] 06", "02040606"))
        self.assertIsNone(self.matches("[05]", "0205"))
        self.assertEqual(self.matches("@p @@s", "00070001ff"), {"conn": "a", "p": ("a", b"\0\7"),
                                                               "s": ("a", b"\0\1\xff")})
        self.assertIsNone(self.matches("@p", "0000"))
        self.assertIsNone(self.matches("@p @q", "00010001"))
        self.assertIsNone(self.matches("@p @p", "00010002"))

    def test_set(self):
        patterns = [self.nodes(p) for p in ("01 @p", "?? 0002")]
        packets = [b"\1\0\2", b"\1\0\1"]
        self.assertEqual(script.match_set(patterns, packets, {})["p"][1], b"\0\1")
        self.assertIsNone(script.match_set(patterns, [b"\1\0\2", b"\2\0\1"], {}))

    def test_mistakes(self):
        for text in ("[00", '"abc', "0", "zz", "TWO(1)", "NONE()", "01..0203", "TWO(1, 2"):
            with self.assertRaises(script.ScriptError, msg=text):
                self.nodes(text)
        with self.assertRaises(script.ScriptError):
            script.encode(self.nodes("??"), {})


class Files(unittest.TestCase):
    def load(self, text):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "v5-x.txt")
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            return script.Script().load(path)

    def test_a_file(self):
        scr = self.load("def A(1) 01 $1\ndo bb(1) send A($1) ;; recv 02\n"
                        "MQTT-3.1.2-3, 4.13.1-1: name # why\n    a bb(03) # here\n    wait 0.5\n    b closed\n")
        test = scr.tests[0]
        self.assertEqual((test.ids, test.name, test.line), (["3.1.2-3", "4.13.1-1"], "name", 3))
        self.assertEqual([(s.conn, s.verb, s.text) for s in test.steps],
                         [("a", "send", "A(03)"), ("a", "recv", "02"), (None, "wait", "0.5"),
                          ("b", "closed", "")])

    def test_mistakes(self):
        for text in ("  a send 00\n", "what is this\n", "1.1-1: t\n    a fetch 00\n", "1.1-1: t @no\n",
                     "1.1-1: t\n1.1-2: t\n", "1.1-1: t\n    a closed 00\n", "1.1-1: t\n    a none()\n"):
            with self.assertRaises(script.ScriptError, msg=text):
                self.load(text)

    def test_table_finds_what_is_missing(self):
        listed = [("1.1-1", "a", ""), ("1.1-2", "b", ""), ("1.1-3", "c", "why"), ("1.1-4", "d", "why")]
        bad = table.problems(listed, {"1.1-1": [], "1.1-4": [], "1.1-5": []}, "v5")
        self.assertEqual(sorted(b.split()[1] for b in bad), ["1.1-2", "1.1-4", "1.1-5"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
