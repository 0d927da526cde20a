# SPDX-License-Identifier: Apache-2.0
"""The rows: what is done, which figures it gives, and what noctule's may be at most as a share of mosquitto's."""

import collections

# path: of the value in the generator's JSON. target: share of mosquitto's figure. floor: beside a relay without logic.
Figure = collections.namedtuple("Figure", "name path unit target floor")
# seconds: takes -s. warm: a short run before gives tables and pools their size; not where memory is measured. stored:
# persistence true for both.
Work = collections.namedtuple("Work", "arguments figures seconds warm stored")


def cpu(name, arguments, target, floor=True):
    return Work(arguments.split(), [Figure(name, ("broker_cpu_us",), "us", target, floor)], True, True, False)


ROWS = [
    cpu("1 pair, QoS 0, window 1000", "p2p -n 1 -q 0 -w 1000", 0.06),
    cpu("50 pairs, QoS 0, window 50", "p2p -n 50 -q 0 -w 50", 0.04),
    cpu("50 pairs, QoS 1, window 50", "p2p -n 50 -q 1 -w 50", 0.035),
    cpu("50 pairs, QoS 2, window 50", "p2p -n 50 -q 2 -w 50", 0.03),
    cpu("50 pairs, QoS 1, window 50, v5", "p2p -n 50 -q 1 -w 50 -V 5", 0.035),
    cpu("500 pairs, QoS 1, window 1", "p2p -n 500 -q 1 -w 1", 0.85),
    cpu("100 pairs, QoS 1, 20,000/s open loop", "p2p -n 100 -q 1 -w 1000 --rate 20000", 0.92),
    cpu("1 to 200, QoS 0, window 50", "fanout -P 1 -S 200 -q 0 -w 50", 0.08),
    cpu("1 to 200, QoS 1, window 20, lockstep", "fanout -P 1 -S 200 -q 1 -w 20 --lockstep", 0.08),
    cpu("100 to 1, QoS 1, window 20, lockstep", "fanin -P 100 -S 1 -q 1 -w 20 --lockstep", 0.04),
    Work("wild --filters 50000 -S 500 -P 10 --matches 10 -q 0 -w 50".split(),
         [Figure("50k filters, 500 clients, 10 matches, QoS 0", ("broker_cpu_us",), "us", 0.20, False),
          Figure("memory per subscription (50k filters)", ("memory_per_subscription",), "B", 0.40, False)],
         True, False, False),
    Work("connect -n 50".split(),
         [Figure("connect + disconnect", ("cpu_us_per_connect",), "us", 1.10, True)], True, True, False),
    Work("durable -S 100 -P 10 -q 1 -w 50 --messages 200000".split(),
         [Figure("QoS 1 to 100 offline durable sessions", ("fill", "cpu_us_per_message"), "us", 0.25, False),
          Figure("their drain on reconnect", ("drain", "cpu_us_per_message"), "us", 0.20, False)], False, False, True),
    Work("idle -n 15000".split(),
         [Figure("memory per idle connection", ("bytes_per_connection",), "B", 0.70, False)], False, False, False),
    Work("retained --topics 100000 -q 1".split(),
         [Figure("memory per retained message", ("memory_per_retained",), "B", 0.60, False)], False, False, False),
]


def brokers_of(work):
    return ("mosquitto", "noctule", "floor") if any(f.floor for f in work.figures) else ("mosquitto", "noctule")


def value(result, figure):
    """None for a failed run."""
    for key in figure.path:
        if result is None:
            return None
        result = result.get(key)
    return result


def plain(text):
    return text.lower().replace(" ", "").replace(",", "")


def select(text):
    """Rows with a figure whose name contains the text: "QoS 1" and "qos1" are the same."""
    return [w for w in ROWS if any(plain(text) in plain(f.name) for f in w.figures)]
