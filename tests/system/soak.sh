#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The chaos load for a long time: tests/system/soak.sh SECONDS [build folder]
# Ends with 1 when a check fails, the broker reports a sanitizer's finding, or its memory has doubled
# between the first tenth and the end.
set -eu
seconds=${1:?usage: soak.sh SECONDS [build folder]}
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${2:-$root/build/dev}
export NOCTULE_BIN="${NOCTULE_BIN:-$build/bin/noctule}" NOCTULE_BENCH="${NOCTULE_BENCH:-$build/bin/noctule-bench}"
exec /usr/bin/python3 "$root/tests/system/soak.py" "$seconds"
