#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# noctule-store as a user meets it:  test_noctule_store.sh NOCTULE-STORE PROGRAM-THAT-MAKES-A-STORE
set -uo pipefail

tool=$1
maker=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

expect() # status words command...
{
    local status=$1 words=$2 got
    shift 2
    "$@" > "$dir/out" 2>&1
    got=$?
    if [[ $got -ne $status ]] || { [[ -n $words ]] && ! grep -q -- "$words" "$dir/out"; }; then
        echo "status $got instead of $status, or no '$words': $*"
        head -n 5 "$dir/out"
        failed=1
    fi
}

expect 2 'usage:' "$tool"
expect 2 'usage:' "$tool" check
expect 2 'usage:' "$tool" frobnicate "$dir"
expect 0 'usage:' "$tool" --help
expect 3 'No such file' "$tool" check "$dir/none"
[[ ! -e $dir/none ]] || { echo "looking made a store"; failed=1; }

"$maker" "$dir/store" || { echo "no store"; exit 1; }
expect 0 ': 0 breaches' "$tool" check "$dir/store"
expect 0 'name="client' "$tool" dump "$dir/store"
expect 0 '' "$tool" backup "$dir/store" "$dir/copy"
expect 3 'exists' "$tool" backup "$dir/store" "$dir/copy"
expect 0 ': 0 breaches' "$tool" check "$dir/copy"
expect 0 'is compacted' "$tool" compact "$dir/store/"
expect 0 ': 0 breaches' "$tool" check "$dir/store"
"$tool" dump "$dir/copy" > "$dir/a" && "$tool" dump "$dir/store" > "$dir/b" && "$tool" dump "$dir/store.before" > "$dir/c"
cmp "$dir/a" "$dir/b" && cmp "$dir/b" "$dir/c" || failed=1
before=$(stat -c %s "$dir/store.before/state/data.mdb")
after=$(stat -c %s "$dir/store/state/data.mdb")
[[ $after -le $before ]] || { echo "compacting made it larger: $before, $after"; failed=1; }
truncate -s 12288 "$dir/copy/state/data.mdb"
expect 3 'damaged' "$tool" check "$dir/copy"
exec 9> "$dir/store/lock"
flock 9
expect 3 'in use by another process' "$tool" check "$dir/store"
exit $failed
