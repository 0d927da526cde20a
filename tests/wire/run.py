#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs packets written as data against the real process. README.md describes the files.

    run.py                              every file
    run.py v5-connect.txt               one file; v5 and v311 stand for all files of a version
    run.py v5-connect.txt 3.1.2-3       the lines of one statement (MQTT-3.1.2-3 will do), or of one name
    run.py -v ...                       print every test, and the packets of those that fail
    run.py --list [FILE...]             what there is
    run.py --table | --check-table      the table of README.md: print, or compare with the file
"""

import argparse
import concurrent.futures
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "system", "lib"))
sys.path.insert(0, HERE)
from broker import Broker  # noqa: E402
from wire import NAMES, QUIET, TIMEOUT, Client, Closed, Silence  # noqa: E402
import script  # noqa: E402
import table  # noqa: E402

THREADS = 40  # tests at a time against one broker: most of them wait


class Failure(Exception):
    pass


def show(data):
    name = NAMES[data[0] >> 4] if data else "?"
    text = data.hex(" ") if len(data) <= 80 else "%s ... (%d bytes)" % (data[:80].hex(" "), len(data))
    printable = "".join(chr(b) if 32 <= b < 127 else "." for b in data[:80])
    return "%-11s %s   |%s|" % (name, text, printable)


class Run:
    """One test: its connections, its captures, what was said."""

    def __init__(self, scr, test, broker):
        self.scr, self.test, self.broker = scr, test, broker
        self.conns, self.env, self.history = {}, {}, []

    def note(self, conn, arrow, what):
        self.history.append("%s %s %s" % (conn, arrow, what))

    def run(self):
        try:
            for step in self.test.steps:
                self.step = step
                getattr(self, "do_" + step.verb)(step)
        finally:
            for c in self.conns.values():
                c.close()

    # what a step does

    def conn(self, name):
        if name not in self.conns:
            self.conns[name] = Client(self.broker.addresses[0])
            self.note(name, "--", "opened")
        return self.conns[name]

    def nodes(self, text):
        return self.scr.nodes(text, self.test.unique)

    def do_wait(self, step):
        time.sleep(float(step.text))

    def do_send(self, step, size=None):
        data = script.encode(self.nodes(step.text), self.env)
        c = self.conn(step.conn)
        self.note(step.conn, "->", show(data))
        if size is None:
            c.try_send(data)
            return
        for at in range(0, len(data), size):
            c.try_send(data[at:at + size])
            time.sleep(0.002)

    def do_drip(self, step):
        self.do_send(step, 1)

    def receive(self, conn):
        try:
            got = self.conn(conn).recv(TIMEOUT).raw
        except Closed as e:
            self.note(conn, "<-", str(e))
            raise Failure("expected a packet, but: %s" % e)
        except Silence as e:
            raise Failure("expected a packet: %s" % e)
        self.note(conn, "<-", show(got))
        return got

    def do_recv(self, step):
        wanted = self.nodes(step.text)
        got = self.receive(step.conn)
        self.env["conn"] = step.conn
        for env in script.match(wanted, got, self.env):
            self.env = env
            return
        raise Failure("got  %s\n  want %s" % (show(got), self.wanted(wanted)))

    def wanted(self, nodes):
        try:
            return show(script.encode(nodes, self.env))
        except script.ScriptError:
            return "%s with captures %s" % (
                self.step.text, {k: v[1].hex() for k, v in self.env.items() if k != "conn"})

    def do_any(self, step):
        patterns = [self.nodes(p) for p in step.text.split(" ; ")]
        packets = [self.receive(step.conn) for _ in patterns]
        self.env["conn"] = step.conn
        env = script.match_set(patterns, packets, self.env)
        if env is None:
            raise Failure("got  %s\n  want, in any order, %s" % (
                "\n       ".join(show(p) for p in packets), step.text))
        self.env = env

    def do_quiet(self, step):
        seconds = float(step.text) if step.text else QUIET
        try:
            got = self.conn(step.conn).recv(seconds)
        except Silence:
            return
        except Closed as e:
            raise Failure("expected silence, but: %s" % e)
        self.note(step.conn, "<-", show(got.raw))
        raise Failure("expected silence, got %s" % show(got.raw))

    def do_closed(self, step):
        try:
            got = self.conn(step.conn).recv(TIMEOUT)
        except Closed as e:
            self.note(step.conn, "--", "closed by the broker")
            if "part of a packet" in str(e):
                raise Failure(str(e))
            self.do_close(step)
            return
        except Silence:
            raise Failure("expected a close, the connection is open and silent")
        self.note(step.conn, "<-", show(got.raw))
        raise Failure("expected a close, got %s" % show(got.raw))

    def do_close(self, step):
        self.conns.pop(step.conn).close()
        self.note(step.conn, "--", "close")

    def do_reset(self, step):
        self.conns.pop(step.conn).reset()
        self.note(step.conn, "--", "reset")


class Judge:
    """Counts, and prints what fails as it fails."""

    def __init__(self, verbose):
        self.verbose, self.passed, self.failed = verbose, 0, []

    def run(self, scr, test, broker):
        r = Run(scr, test, broker)
        try:
            r.run()
        except Exception as e:  # whatever it is, it is this test's
            self.fail(test, r, e)
            return
        self.passed += 1
        if self.verbose:
            print("ok    %r" % test, flush=True)

    def fail(self, test, r, why):
        self.failed.append(test)
        text = ["FAILED %r" % test, "  %s:%d: %s" % (os.path.basename(test.path), r.step.line, r.step),
                "  %s" % why]
        text += ["    " + line for line in (r.history if self.verbose else r.history[-8:])]
        sys.stdout.write("\n".join(text) + "\n")  # one write: tests run at the same time
        sys.stdout.flush()


def broker_for(config):
    return Broker("\n".join(config.general),
                  ["\n".join(["listener {port} 127.0.0.1"] + config.listener)], config.anonymous)


def run_tests(scr, tests, judge):
    """Each configuration's tests against a broker of their own. False: a broker ended badly."""
    fine = True
    for name in sorted({t.config for t in tests}):
        config = scr.configs[name]
        mine = [t for t in tests if t.config == name]
        try:
            with broker_for(config) as b:
                if config.serial:
                    for t in mine:
                        judge.run(scr, t, b)
                else:
                    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
                        list(pool.map(lambda t: judge.run(scr, t, b), mine))
                if not b.is_running():
                    raise AssertionError("the broker died")
        except AssertionError as e:
            print("BROKER (%s): %s" % (name, e), flush=True)
            fine = False
    return fine


def all_files():
    return sorted(n for n in os.listdir(HERE)
                  if n.endswith(".txt") and n.startswith(("v5", "v311")))


def find(name):
    return name if os.path.exists(name) else os.path.join(HERE, name)


def load(files):
    scr = script.Script()
    scr.load(os.path.join(HERE, "macros.txt"))
    for name in files:
        scr.load(find(name))
    return scr


def select_tests(scr, words):
    wanted = [w[5:] if w.startswith("MQTT-") else w for w in words]
    if not wanted:
        return scr.tests
    return [t for t in scr.tests if t.name in wanted or set(t.ids) & set(wanted)]


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("-v", "--verbose", action="store_true")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--table", action="store_true")
    ap.add_argument("--check-table", action="store_true")
    ap.add_argument("--write-table", action="store_true", help="put the table into README.md")
    ap.add_argument("words", nargs="*", help="files (.txt), statements, names of tests")
    args = ap.parse_args()
    files = [w for w in args.words if w.endswith(".txt")]
    files += [n for w in args.words if w in ("v5", "v311") for n in all_files() if n.startswith(w + "-")]
    words = [w for w in args.words if w not in ("v5", "v311") and not w.endswith(".txt")]
    scr = load(files or all_files())
    if args.table or args.check_table or args.write_table:
        return table.main(scr, args)
    tests = select_tests(scr, words)
    if not tests:
        print("no such test")
        return 2
    if args.list:
        for t in tests:
            print(t)
        return 0
    begin = time.monotonic()
    judge = Judge(args.verbose)
    fine = run_tests(scr, tests, judge)
    print("%d passed, %d failed, %.1f s" % (judge.passed, len(judge.failed), time.monotonic() - begin))
    return 0 if fine and not judge.failed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except script.ScriptError as e:
        print(e)
        sys.exit(2)
