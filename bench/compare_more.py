# SPDX-License-Identifier: Apache-2.0
"""Figures that are no share of mosquitto's cost: what a second shard, more connections, more filters, a hot topic and
the disk add to noctule's own, and latency and durable rate beside mosquitto's.

Each group is a function that measures and returns its findings; a finding says its figures and its target.
"""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from compare_report import median
from compare_rows import plain

CPU = ("broker_cpu_us",)
SCHED_SETATTR = 314  # x86-64
ROUNDS_OF_TOPICS = 5  # times as long: 100,000 topics have to come round a few times before a cache can know them
TRIES = 8  # for a pair whose ends are in different shards
ROUNDS_OF_LATENCY = 15  # at least: one p99 may be ten times another of the same broker, and of the relay as well


def get(result, path):
    for key in path:
        result = None if result is None else result.get(key)
    return result


def finding(group, what, figures, target, good):
    """good: None when a run failed its checks."""
    return {"group": group, "finding": what, "figures": figures, "target": target, "pass": bool(good),
            "failed": good is None}


def ratio(a, b):
    return None if a is None or not b else a / b


def at_most(value, bound):
    return None if value is None else value <= bound


def figures_of(**named):
    """Named figures for a finding; those that failed as text."""
    return {name.replace("_", " "): "failed" if v is None else v for name, v in named.items()}


def run(o, broker, arguments, seconds=None):
    words = arguments.split() + (["-s", str(seconds)] if seconds else [])
    result = o.programs.load(broker, words)
    sys.stderr.write("  %s: %s us\n" % (" ".join(words), get(result, CPU)))
    return result


def rounds(o, one, least=1):
    """Medians over the rounds of what one() returns: a dict of figures, None where a run failed."""
    all_ = [one() for _ in range(max(o.rounds, least))]
    return {name: median([r[name] for r in all_]) for name in all_[0]}


def warmed(o, broker, arguments):
    run(o, broker, arguments, 0.3)
    return get(run(o, broker, arguments, o.seconds), CPU)


# ---- shards ----

def shard_cpu(broker):
    return {name: ns for name, ns in broker.threads_cpu_ns().items() if name.startswith("shard-")}


def crossing_pair(o, broker, arguments):
    """CPU of a pair whose ends are in different shards: client ids are dealt out by a secret hash, so tried until both
    shards' threads have work. Shards with little to do share a thread; then half of the pairs tried have crossed, and
    the figure is the median of the dearer half."""
    tried = []
    for _ in range(TRIES):
        before = shard_cpu(broker)
        cpu = get(run(o, broker, arguments, o.seconds / 2), CPU)
        worked = sorted(ns - before[name] for name, ns in shard_cpu(broker).items())
        if cpu is None or worked[0] * 10 > worked[-1]:
            return cpu
        tried.append(cpu)
    return statistics.median(sorted(tried)[TRIES // 2:])


def crossing(o):
    def one(arguments):
        with o.programs.start("noctule", lines="shards 1\n") as alone, \
             o.programs.start("noctule", lines="shards 2\n") as two:
            return {"alone": warmed(o, alone, arguments), "crossing": crossing_pair(o, two, arguments)}

    found = []
    for what, arguments in (("1 pair, QoS 1, window 50", "p2p -n 1 -q 1 -w 50"),
                            ("1 pair, QoS 0, window 1000", "p2p -n 1 -q 0 -w 1000")):
        m = rounds(o, lambda: one(arguments))
        by = ratio(m["crossing"], m["alone"])
        found.append(finding("shards", what + ": from shard to shard beside one shard alone, us of CPU per message",
                             figures_of(one_shard=m["alone"], two_shards_crossing=m["crossing"], ratio=by),
                             "at most 1.2x", at_most(by, 1.2)))
    return found + without_waking(o) + half_crossing(o)


def without_waking(o):
    """All of 50 pairs crossing, both shards turned by one thread: the way through the mailbox alone."""
    def one():
        done = subprocess.run([o.programs.bench_shard, "300"], stdout=subprocess.PIPE, check=True)
        cases = json.loads(done.stdout)["cases"]
        return {"one": cases["pairs50_qos1"]["ns"] / 1e3, "crossing": cases["pairs50_qos1_crossing"]["ns"] / 1e3}

    m = rounds(o, one)
    by = ratio(m["crossing"], m["one"])
    return [finding("shards", "50 pairs, QoS 1, all crossing, ten messages each at a time, nobody woken (bench_shard)",
                    figures_of(one_shard=m["one"], two_shards_crossing=m["crossing"], ratio=by), "at most 1.2x",
                    at_most(by, 1.2))]


def half_crossing(o):
    """With 50 pairs about half of them cross."""
    def one():
        with o.programs.start("noctule", lines="shards 1\n") as alone, \
             o.programs.start("noctule", lines="shards 2\n") as two:
            return {"alone": warmed(o, alone, "p2p -n 50 -q 1 -w 50"),
                    "two": warmed(o, two, "p2p -n 50 -q 1 -w 50")}

    m = rounds(o, one)
    by = ratio(m["two"], m["alone"])
    return [finding("shards", "50 pairs, QoS 1, window 50: two shards, about half crossing, beside one shard",
                    figures_of(one_shard=m["alone"], two_shards=m["two"], ratio=by), "at most 1.2x", at_most(by, 1.2))]


# ---- latency ----

def latency(o):
    found = []
    for qos in (0, 1):
        load = "p2p -n 50 -q %d -w %%d" % qos
        with o.programs.start("mosquitto") as theirs:
            most = median([get(run(o, theirs, load % 50, o.seconds / 2), ("per_second",)) for _ in range(3)])
        if most is None:
            found.append(finding("latency", "QoS %d" % qos, {}, "mosquitto's maximum rate", None))
            continue
        found.append(at_half(o, qos, load % 1000, most))
    return found


def at_half(o, qos, load, most):
    arguments = load + " --rate %d" % (most / 2)

    def p99(who):
        with o.programs.start(who) as broker:
            run(o, broker, arguments, 0.3)
            return get(run(o, broker, arguments, o.seconds), ("latency_us", "p99"))

    m = rounds(o, lambda: {who: p99(who) for who in ("mosquitto", "noctule", "floor")}, ROUNDS_OF_LATENCY)
    failed = None in m.values()
    return finding("latency", "50 pairs, QoS %d, open loop at half of mosquitto's maximum rate: p99 in us, medians of "
                   "%d rounds" % (qos, max(o.rounds, ROUNDS_OF_LATENCY)),
                   figures_of(rate=most / 2, mosquitto=m["mosquitto"], noctule=m["noctule"],
                              relay_without_logic=m["floor"]), "not above mosquitto's",
                   None if failed else m["noctule"] <= m["mosquitto"])


# ---- flat cost ----

def flat(o):
    few, many = "p2p -n 50 -q 1 -w 10", "p2p -n 9500 -q 1 -w 10"
    few_open, many_open = "p2p -n 50 -q 1 --rate 20000", "p2p -n 9500 -q 1 --rate 20000"
    floor = {"few (relay without logic)": ("floor", few), "many (relay without logic)": ("floor", many)}
    wild = "wild --filters %d -S 100 -P 10 --matches 10 -q 0 -w 50"
    return [grown(o, "100 and 19,000 connections, all of them busy, QoS 1, window 10",
                  {"few": ("noctule", few), "many": ("noctule", many), **floor}),
            grown(o, "100 and 19,000 connections, 20,000 messages a second over all of them, QoS 1, open loop",
                  {"few": ("noctule", few_open), "many": ("noctule", many_open),
                   "few (relay without logic)": ("floor", few_open), "many (relay without logic)": ("floor", many_open)}),
            beside_idle(o),
            grown(o, "100 and 1,000,000 filters on 100 clients, 10 matches, QoS 0, window 50, the same 10 topics",
                  {"few": ("noctule", wild % 100), "many": ("noctule", wild % 1000000 + " --topics 10")}),
            grown(o, "10,000 and 1,000,000 filters, each message to the next of all 1,000 or 100,000 topics, so that none "
                  "comes twice in a window, receivers the same (beside them 100 filters, where each comes five times)",
                  {"100 filters": ("noctule", wild % 100), "few": ("noctule", wild % 10000 + " --same-receivers"),
                   "many": ("noctule", wild % 1000000 + " --same-receivers")}, ROUNDS_OF_TOPICS),
            grown(o, "likewise, each message to other receivers, so that each is written to alone",
                  {"100 filters": ("noctule", wild % 100), "few": ("noctule", wild % 10000),
                   "many": ("noctule", wild % 1000000)}, ROUNDS_OF_TOPICS)]


def grown(o, what, loads, times=1):
    """times: how much longer than usual the runs are."""
    def one():
        found = {}
        for name, (who, arguments) in loads.items():
            with o.programs.start(who) as broker:
                found[name] = get(run(o, broker, arguments, o.seconds * times), CPU)
        return found

    return flat_finding(what, rounds(o, one))


def flat_finding(what, m):
    """Where the relay without logic was measured too, its growth is the sockets' own: no broker can be below it."""
    by = ratio(m["many"], m["few"])
    figures = {**figures_of(**m), **figures_of(ratio=by)}
    target, bound = "at most 1.5x", 1.5
    if "few (relay without logic)" in m:
        relay = ratio(m["many (relay without logic)"], m["few (relay without logic)"])
        figures.update(figures_of(ratio_of_the_relay=relay))
        target, bound = target + ", or as the relay", None if relay is None else max(bound, relay)
    return finding("flat", what + ": us of CPU per message", figures, target,
                   None if bound is None else at_most(by, bound))


# ---- beside a crowd ----

class Crowd:
    """Another load on the same broker; `ok` afterwards: its checks held."""

    def __init__(self, o, broker, arguments, connections):
        words = arguments.split() + ["-s", str(o.seconds + 3)]
        self.process = subprocess.Popen(o.programs.command(broker, words), stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        broker.wait_for_connections(connections)
        time.sleep(1)  # for their SUBSCRIBEs

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ok = self.process.wait() == 0


def beside_idle(o):
    """50 busy pairs alone, and beside 18,800 connections that send ten messages a second in all."""
    def one():
        found = {}
        with o.programs.start("noctule") as broker:
            found["few"] = warmed(o, broker, "p2p -n 50 -q 1 -w 10")
            with Crowd(o, broker, "p2p -n 9400 -q 1 --rate 10", 18800) as crowd:
                many = get(run(o, broker, "p2p -n 50 -q 1 -w 10", o.seconds), CPU)
            found["many"] = many if crowd.ok else None
        return found

    return flat_finding("50 busy pairs alone and beside 18,800 connections that are all but idle", rounds(o, one))


def hot(o):
    """One topic with 18,000 subscribers in one shard; ten other pairs measure how long they wait."""
    def one():
        with o.programs.start("noctule", lines="shards 1\n") as broker:
            with Crowd(o, broker, "fanout -P 1 -S 18000 -q 0 -w 1", 18000) as crowd:
                others = run(o, broker, "p2p -n 10 -q 1 -w 100 --rate 500", o.seconds)
        return {"p99": get(others, ("latency_us", "p99")) if crowd.ok else None}

    p99 = rounds(o, one)["p99"]
    return [finding("hot", "a topic with 18,000 subscribers in the only shard: p99 of ten other pairs, in us",
                    figures_of(p99=p99), "below 50 ms", None if p99 is None else p99 < 50000)]


# ---- the disk ----

class SchedAttr(ctypes.Structure):
    """struct sched_attr of sched_setattr(2)"""
    _fields_ = [("size", ctypes.c_uint32), ("policy", ctypes.c_uint32), ("flags", ctypes.c_uint64),
                ("nice", ctypes.c_int32), ("priority", ctypes.c_uint32), ("runtime", ctypes.c_uint64),
                ("deadline", ctypes.c_uint64), ("period", ctypes.c_uint64)]


def short_slice():
    """As the store's threads do: else a flush on a busy machine waits for a tick, 4 ms."""
    attr = SchedAttr(size=ctypes.sizeof(SchedAttr), runtime=100000)
    ctypes.CDLL(None).syscall(SCHED_SETATTR, 0, ctypes.byref(attr), 0)


def commit_us(folder):
    """What two flushes cost, which is what a commit is at least: p50 of 500."""
    times = []
    short_slice()
    with tempfile.TemporaryFile(dir=folder) as f:
        for i in range(500):
            begin = time.perf_counter()
            for _ in range(2):
                os.pwrite(f.fileno(), bytes(4096), i * 4096)
                os.fdatasync(f.fileno())
            times.append(1e6 * (time.perf_counter() - begin))
    return statistics.median(times)


def with_and_without(o, arguments, path):
    """The figure of noctule with persistence true and false, interleaved."""
    def one():
        found = {}
        for name, stored in (("disk", True), ("memory", False)):
            with o.programs.start("noctule", stored) as broker:
                found[name] = get(run(o, broker, arguments), path)
        return found

    return rounds(o, one)


def added(o, what, arguments, path, bound):
    m = with_and_without(o, arguments, path)
    more = None if None in m.values() else m["disk"] - m["memory"]
    return finding("durability", what + ": CPU that the disk adds, us per acknowledged message",
                   figures_of(persistence_true=m["disk"], persistence_false=m["memory"], added=more),
                   "at most %g us" % bound, at_most(more, bound))


def beside_mosquitto(o):
    def one():
        found = {}
        for who in ("mosquitto", "noctule"):
            with o.programs.start(who, True) as broker:
                found[who] = get(run(o, broker, "durable -S 100 -P 10 -q 1 -w 128 --messages 200000"), ("fill", "rate"))
        return found

    m = rounds(o, one)
    failed = None in m.values()
    return finding("durability", "acknowledged durable messages per second, 10 publishers, 128 in flight each; "
                   "mosquitto's are in memory only", figures_of(mosquitto=m["mosquitto"], noctule=m["noctule"]),
                   "more than mosquitto's", None if failed else m["noctule"] > m["mosquitto"])


def one_in_flight(o):
    def one():
        with o.programs.start("noctule", True) as broker:
            flush = commit_us(broker.dir)
            result = run(o, broker, "p2p -n 1 -q 1 -w 1 --offline", o.seconds)
        return {"flush": flush, "p50": get(result, ("latency_us", "p50"))}

    m = rounds(o, one)
    by = ratio(m["p50"], m["flush"])
    return finding("durability", "one publisher, one in flight, offline session: acknowledgement p50 beside a commit "
                   "of the disk (two writes, two flushes), us",
                   figures_of(commit=m["flush"], acknowledgement=m["p50"], ratio=by), "within 2 commits",
                   at_most(by, 2))


def durability(o):
    return [added(o, "10 publishers to 100 offline sessions, 128 in flight each",
                  "durable -S 100 -P 10 -q 1 -w 128 --messages 200000", ("fill", "cpu_us_per_message"), 1.5),
            added(o, "10 online durable pairs, 128 in flight each", "p2p -n 10 -q 1 -w 128 --durable -s %g" % o.seconds,
                  CPU, 0.4),
            one_in_flight(o), beside_mosquitto(o)]


GROUPS = {"shards": crossing, "latency": latency, "flat": flat, "hot": hot, "durability": durability}


def measure_groups(o):
    found = []
    for name, group in GROUPS.items():
        if plain(o.rows) in name:
            sys.stderr.write(name + "\n")
            found += group(o)
    return found
