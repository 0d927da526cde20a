# SPDX-License-Identifier: Apache-2.0
"""See soak.sh: rounds of the chaos load against one broker, each with a seed of its own."""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import *  # noqa: E402,F403
from test_load import BENCH, CONFIG  # noqa: E402

ROUND = 20.0


def soak(seconds):
    begin = time.monotonic()
    early = None
    with Broker(CONFIG + "store_delay 2\n", args=()) as b:
        while time.monotonic() - begin < seconds:
            left = max(2.0, seconds - (time.monotonic() - begin))
            subprocess.run([BENCH, "chaos", "--port", str(b.port), "--pid", str(b.pid), "--timeout",
                            str(20 * SLOW), "--seconds", str(min(ROUND, left))], check=True)
            kb = b.status_kb("VmRSS")
            if early is None and time.monotonic() - begin > seconds / 10:
                early = kb
            print("after %.0f s: %d kB" % (time.monotonic() - begin, kb), flush=True)
        if early is not None and kb > 2 * early + 16384:
            raise AssertionError("memory went from %d kB to %d kB" % (early, kb))
    print("soak: %.0f s without a fault" % (time.monotonic() - begin))


if __name__ == "__main__":
    soak(float(sys.argv[1]))
