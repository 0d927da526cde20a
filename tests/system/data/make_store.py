#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a store for test_format.py with the broker at hand: sessions that never expire, part of it folded at an
orderly stop, part of it in the journal of a process that was killed.

    NOCTULE_BIN=OLD/bin/noctule tests/system/data/make_store.py tests/system/data/store-v1.tar.gz

For a format that is to be kept readable: run with the last program that writes it.
"""

import os
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from durable import DurableBroker  # noqa: E402
from wire import *  # noqa: E402,F403

FOREVER = props((0x11, 0xFFFFFFFF))


def fill(b, tag):
    with b.connect("s-" + tag, 4, clean=False) as c:
        c.subscribe(("q/" + tag, 1), ("two/x", 1))
        for i in (1, 2):
            b.connect().publish("q/" + tag, "sent-%d" % i, 1)
            c.expect_publish("q/" + tag)  # and no PUBACK
    with b.connect("g-" + tag, 5, clean=False, props=FOREVER) as c:
        c.subscribe(("$share/g-%s/shared/%s" % (tag, tag), 1))
    p = b.connect()
    for i in range(4):
        p.publish("q/" + tag, "queued-%d" % i, 1)
    for i in range(3):
        p.publish("shared/" + tag, "shared-%d" % i, 1)
    p.publish("two/x", "second", 1)
    p.publish("r/" + tag, "small", 1, retain=True)
    p.publish("r/big/" + tag, b"B" * 5000, 1, retain=True)


def main(path):
    with DurableBroker() as b:
        fill(b, "a")
        b.again("stop")
        fill(b, "b")
        b.end("kill")
        with tarfile.open(path, "w:gz") as t:
            for file, _, _ in b.files():
                t.add(file, os.path.relpath(file, b.dir))


if __name__ == "__main__":
    main(sys.argv[1])
