# SPDX-License-Identifier: Apache-2.0
"""The table statement -> tests of README.md, made of the statements-*.txt files and of the tests."""

import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
BEGIN, END = "<!-- table: run.py --write-table -->\n", "<!-- end of the table -->\n"
VERSIONS = (("MQTT 5.0", "statements-v5.txt", "v5"), ("MQTT 3.1.1", "statements-v311.txt", "v311"))


def statements(name):
    """[(number, what, reason why not tested or "")] in the order of the file."""
    out = []
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        for line in f:
            line = line.strip()
            if line and not line.startswith("#"):
                number, what, reason = ([p.strip() for p in line.split("|")] + [""])[:3]
                out.append((number, what, reason))
    return out


def tests_of(scr, prefix):
    out = {}
    for t in scr.tests:
        if os.path.basename(t.path).startswith(prefix):
            for i in t.ids:
                out.setdefault(i, []).append(t)
    return out


def problems(listed, tests, prefix):
    numbers = [s[0] for s in listed]
    out = ["%s: %s is listed twice" % (prefix, n) for n in sorted(set(numbers)) if numbers.count(n) > 1]
    out += ["%s: %s is tested but not listed" % (prefix, n) for n in sorted(set(tests) - set(numbers))]
    for number, _, reason in listed:
        if number not in tests and not reason:
            out.append("%s: %s has neither a test nor a reason" % (prefix, number))
        if number in tests and reason:
            out.append("%s: %s has a test and a reason why there is none" % (prefix, number))
    return out


def counts(listed, tests):
    return "%d statements, %d with a test, %d without; %d tests." % (
        len(listed), len(set(tests)), len(listed) - len(set(tests)),
        len({id(t) for ts in tests.values() for t in ts}))


def part(title, listed, tests):
    out = ["### " + title, "", counts(listed, tests), "", "| statement | what | tests |", "|---|---|---|"]
    for number, what, _ in listed:
        if number in tests:
            names = {}
            for t in tests[number]:
                names.setdefault(os.path.basename(t.path), []).append(t.name)
            cell = "; ".join("%s: %s" % (f, ", ".join(n)) for f, n in names.items())
            out.append("| %s | %s | %s |" % (number, what, cell))
    out += ["", "Not tested here:", "", "| statement | what | why |", "|---|---|---|"]
    out += ["| %s | %s | %s |" % s for s in listed if s[2]]
    return "\n".join(out) + "\n\n"


def build(scr):
    text, bad = "", []
    for title, name, prefix in VERSIONS:
        listed, tests = statements(name), tests_of(scr, prefix)
        bad += problems(listed, tests, prefix)
        text += part(title, listed, tests)
    return text, bad


def main(scr, args):
    text, bad = build(scr)
    path = os.path.join(HERE, "README.md")
    with open(path, encoding="utf-8") as f:
        readme = f.read()
    old = re.search(re.escape(BEGIN) + "(.*?)" + re.escape(END), readme, re.S)
    if args.table:
        print(text)
    elif args.write_table:
        if old is None:
            bad.append("README.md has no place for the table")
        else:
            with open(path, "w", encoding="utf-8") as f:
                f.write(readme[:old.start(1)] + text + readme[old.end(1):])
    elif old is None or old.group(1) != text:
        bad.append("the table in README.md is stale: run.py --write-table")
    for line in bad:
        print(line)
    return 1 if bad else 0
