#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The long run: tests/crash/run.sh [KILLS] [SEED]   (300 kills take about ten minutes)
# Then the control, which has to be caught. NOCTULE_BIN names the broker; without it the release build is taken.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
kills=${1:-300}
export PYTHONDONTWRITEBYTECODE=1

if [[ -z ${NOCTULE_BIN:-} ]]; then
    if [[ ! -e $root/build/release/build.ninja ]]; then
        (cd "$root" && cmake --preset release)
    fi
    cmake --build "$root/build/release" --target noctule -j "$(nproc)"
    export NOCTULE_BIN=$root/build/release/bin/noctule
fi
/usr/bin/python3 "$here/ledger.py" --kills "$kills" ${2:+--seed "$2"}
/usr/bin/python3 "$here/ledger.py" --kills 20 --control ${2:+--seed "$2"}
