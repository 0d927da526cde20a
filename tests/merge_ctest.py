#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes one ctest folder out of the tests of several build folders, so that one run ends with one total.

usage: merge_ctest.py OUT NAME=BUILD_FOLDER[:LABEL|LABEL...] ...

Each test keeps its command and properties and is renamed to NAME:test. With labels, only the tests that
have one of them are taken; a test labelled `asan` or `tsan` counts for the folder of that name as well.
"""
import json
import os
import subprocess
import sys


def tests_of(folder):
    out = subprocess.run(["ctest", "--test-dir", folder, "--show-only=json-v1"],
                         check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)["tests"]


def quote(text):
    """A bracket argument: nothing in it is special to CMake."""
    equals = "="
    while "]" + equals + "]" in text:
        equals += "="
    return f"[{equals}[{text}]{equals}]"


def value_of(prop):
    value = prop["value"]
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, list):
        return ";".join(str(v).replace(";", "\\;") for v in value)
    return str(value)


def properties(test):
    """Only what a test of ours may need; a fixture's name stays, so folders must not share one."""
    known = {"ENVIRONMENT", "LABELS", "PASS_REGULAR_EXPRESSION", "PROCESSORS", "RESOURCE_LOCK", "RUN_SERIAL",
             "SKIP_RETURN_CODE", "TIMEOUT", "WILL_FAIL", "WORKING_DIRECTORY"}
    found = {p["name"]: value_of(p) for p in test.get("properties", [])}
    unknown = set(found) - known
    if unknown:
        sys.exit(f"merge_ctest.py: {test['name']}: teach me {', '.join(sorted(unknown))}")
    return found


def lines_of(name, folder, labels):
    count = 0
    for test in tests_of(folder):
        props = properties(test)
        mine = set(props.get("LABELS", "").split(";"))
        if labels and not mine & (labels | {name}):
            continue
        if "command" not in test:
            sys.exit(f"merge_ctest.py: {test['name']} of {folder} has not been built")
        full = quote(f"{name}:{test['name']}")
        yield f"add_test({full} {' '.join(quote(arg) for arg in test['command'])})"
        for key, value in sorted(props.items()):
            yield f"set_tests_properties({full} PROPERTIES {key} {quote(value)})"
        count += 1
    if count == 0:
        sys.exit(f"merge_ctest.py: no test in {folder}")


def main():
    out = sys.argv[1]
    lines = []
    for part in sys.argv[2:]:
        name, _, rest = part.partition("=")
        folder, _, labels = rest.partition(":")
        lines += lines_of(name, folder, set(filter(None, labels.split("|"))))
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "CTestTestfile.cmake"), "w") as f:
        f.write("\n".join(lines) + "\n")


main()
