# SPDX-License-Identifier: Apache-2.0
"""Whole connections at random, see connfuzz.py: four fixed seeds and one that is new each time, a minute in all under
AddressSanitizer and two seconds of each elsewhere. A failure names its seed: connfuzz.py 30 --seed N.
"""

import os
import random
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from broker import main, ours  # noqa: E402
from connfuzz import Fuzz  # noqa: E402

EACH_S = float(os.environ.get("NOCTULE_CONNFUZZ_S", "2"))


@ours("limits and listeners of ours")
class Connections(unittest.TestCase):
    def test_fixed_seeds(self):
        for seed in (3, 5, 6, 13):  # of one shard to three, with a store on disk and without
            with self.subTest(seed=seed):
                Fuzz(seed, EACH_S).run()

    def test_fresh_seed(self):
        Fuzz(random.SystemRandom().getrandbits(32), EACH_S).run()


if __name__ == "__main__":
    main()
