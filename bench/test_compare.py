#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""bench/compare: what it makes of figures, and one short row for real.

usage: test_compare.py BUILD_FOLDER
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ET

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = sys.argv.pop() if len(sys.argv) > 1 else os.path.join(os.path.dirname(HERE), "build", "release")
sys.path.insert(0, HERE)

import compare_chart  # noqa: E402
import compare_report  # noqa: E402
import compare_rows  # noqa: E402

ABOUT = {"date": "2026-01-01", "noctule": "noctule 1", "mosquitto": "mosquitto 2", "kernel": "6.1", "cpu": "a < b",
         "cpus": 2, "rounds": 3, "seconds": 5.0, "settings": "none"}
FIGURE = compare_rows.Figure("work", ("broker_cpu_us",), "us", 0.5, True)


def row(theirs, ours, floor=(1, 1, 1)):
    return compare_report.row_of(FIGURE, {"mosquitto": list(theirs), "noctule": list(ours), "floor": list(floor)})


class Rows(unittest.TestCase):
    def test_medians_and_share(self):
        r = row((10, 99, 9), (4, 5, 1))
        self.assertEqual((r["mosquitto"], r["noctule"], r["share"]), (10, 4, 0.4))
        self.assertEqual(compare_report.verdict(r), "pass")

    def test_above_the_target_is_a_miss(self):
        self.assertEqual(compare_report.verdict(row((10, 10, 10), (5.1, 5.1, 5.1))), "MISS")

    def test_one_failed_round_fails_the_row(self):
        r = row((10, 10, 10), (4, None, 4))
        self.assertEqual((r["share"], r["failed"], compare_report.verdict(r)), (None, True, "fail"))

    def test_values_are_found_by_path(self):
        deep = FIGURE._replace(path=("fill", "cpu"))
        self.assertEqual(compare_rows.value({"fill": {"cpu": 3}}, deep), 3)
        self.assertIsNone(compare_rows.value({}, deep))
        self.assertIsNone(compare_rows.value(None, deep))

    def test_rows_are_found_by_a_part_of_their_name(self):
        self.assertEqual(len(compare_rows.select("")), len(compare_rows.ROWS))
        self.assertEqual(len(compare_rows.select("qos2")), 1)
        self.assertEqual(compare_rows.select("no such row"), [])


class Chart(unittest.TestCase):
    def test_every_row_has_its_bar_in_the_colour_of_its_verdict(self):
        rows = [row((10,), (2,)), row((10,), (9,)), row((10,), (None,))]
        svg = ET.fromstring(compare_chart.draw(ABOUT, rows))
        bars = [e for e in svg if e.tag.endswith("rect") and e.get("x") == "%.1f" % compare_chart.LEFT and
                e.get("height") == "%.1f" % compare_chart.BAR]
        self.assertEqual([b.get("fill") for b in bars], [compare_chart.OURS, compare_chart.MISSED])
        self.assertAlmostEqual(float(bars[1].get("width")) / float(bars[0].get("width")), 4.5, 1)
        words = [e.text for e in svg if e.tag.endswith("text")]
        self.assertIn("20.0 %", words)
        self.assertIn("failed", words)


class Run(unittest.TestCase):
    def test_one_short_row(self):
        with tempfile.TemporaryDirectory(prefix="noctule-compare-") as folder:
            found, chart = os.path.join(folder, "found.json"), os.path.join(folder, "chart.svg")
            done = subprocess.run([os.path.join(HERE, "compare"), "--build", BUILD, "--rounds", "1", "--seconds", "0.2",
                                   "--rows", "50 pairs QoS 1 window 50", "--json", found, "--svg", chart],
                                  stdout=subprocess.PIPE, universal_newlines=True)
            self.assertEqual(done.returncode, 0, done.stdout)
            with open(found) as f:
                rows = json.load(f)["rows"]
            self.assertEqual(len(rows), 2)  # 3.1.1 and 5.0
            for r in rows:
                self.assertTrue(0 < r["floor"] and 0 < r["noctule"] and 0 < r["mosquitto"], r)
            ET.parse(chart)


if __name__ == "__main__":
    unittest.main()
