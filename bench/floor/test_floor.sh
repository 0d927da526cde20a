#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The relay is good enough a broker for every row it stands beside: noctule-bench's checks hold.
#
#   test_floor.sh BENCH_FLOOR NOCTULE_BENCH
set -euo pipefail

coproc RELAY { exec "$1" 0; }
relay=$RELAY_PID
trap 'kill $relay' EXIT
read -r port <&"${RELAY[0]}"

for qos in 0 1 2; do
    "$2" p2p -p "$port" -n 20 -q $qos -w 20 -c 200 --pid $relay
    "$2" p2p -p "$port" -n 3 -q $qos -w 20 -c 200 -V 5 --json
    "$2" fanout -p "$port" -P 1 -S 50 -q $qos -w 20 -c 100
done
for qos in 0 1; do # at QoS 2 publishers would need packet identifiers of the relay's own
    "$2" fanin -p "$port" -P 50 -q $qos -w 20 -c 100
done
"$2" fanout -p "$port" -S 20 -q 1 -w 5 -c 50 --lockstep
"$2" p2p -p "$port" -n 10 -q 1 -s 0.5 --rate 2000
"$2" connect -p "$port" -n 20 -s 0.5
"$2" p2p -p "$port" -n 2 -q 1 -w 3 -c 20 -l 300000
