# SPDX-License-Identifier: Apache-2.0
"""Figures of several rounds as a table and as JSON."""

import datetime
import os
import platform
import statistics

from compare_brokers import version

HEAD = ("work", "mosquitto", "noctule", "share", "target", "", "floor", "share")
LINE = "| %-43s | %10s | %10s | %8s | %8s | %4s | %10s | %8s |"


def median(values):
    """None unless every round has its value."""
    return statistics.median(values) if values and None not in values else None


def in_unit(v, unit):
    return "" if v is None else "%.0f B" % v if unit == "B" else "%.2f us" % v


def percent(part, whole):
    return "" if part is None or not whole else "%.1f %%" % (100 * part / whole)


def cpu_model():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def describe(programs, rounds, seconds):
    """Where and how: part of every result."""
    return {"date": str(datetime.date.today()), "noctule": version(programs.noctule, "--version"),
            "mosquitto": version(programs.mosquitto, "-h"), "kernel": platform.release(), "cpu": cpu_model(),
            "cpus": os.cpu_count(), "rounds": rounds, "seconds": seconds,
            "settings": "64-byte payload, loopback TCP, TCP_NODELAY, no limits" +
                        (", noctule: " + programs.noctule_lines if programs.noctule_lines else "")}


def row_of(figure, rounds):
    """rounds: {broker: [value of each round]}"""
    medians = {who: median(values) for who, values in rounds.items()}
    theirs, ours = medians["mosquitto"], medians["noctule"]
    share = ours / theirs if ours is not None and theirs else None
    return {"row": figure.name, "unit": figure.unit, "mosquitto": theirs, "noctule": ours,
            "floor": medians.get("floor") if figure.floor else None, "share": share, "target": figure.target,
            "pass": share is not None and share <= figure.target, "failed": ours is None or theirs is None,
            "rounds": rounds}


def verdict(row):
    return "fail" if row["failed"] else "pass" if row["pass"] else "MISS"


def text_line(row):
    unit = row["unit"]
    return LINE % (row["row"], in_unit(row["mosquitto"], unit) or "failed", in_unit(row["noctule"], unit) or "failed",
                   percent(row["share"], 1), "%g %%" % (100 * row["target"]), verdict(row),
                   in_unit(row["floor"], unit), percent(row["floor"], row["mosquitto"]))


def title(about):
    return ("%(date)s: %(noctule)s and %(mosquitto)s, %(cpu)s, %(cpus)d CPUs, Linux %(kernel)s; %(settings)s; medians "
            "of %(rounds)d rounds of %(seconds)g s" % about)


def print_table(about, rows):
    print(title(about) + ". us: broker CPU per delivered message, fan-outs per delivery; share: of mosquitto's.\n")
    print(LINE % HEAD)
    print("|" + "|".join("-" * n for n in (45, 12, 12, 10, 10, 6, 12, 10)) + "|")
    for row in rows:
        print(text_line(row))
    print("\n%d of %d within their target" % (sum(r["pass"] for r in rows), len(rows)))


def print_findings(about, findings):
    print(title(about) + ".\n")
    for f in findings:
        print("%-8s %s" % (f["group"], f["finding"]))
        for name, v in f["figures"].items():
            print("             %-44s %s" % (name, v if isinstance(v, str) else "%.4g" % v))
        print("             target: %s: %s" % (f["target"], "pass" if f["pass"] else "MISS"))
