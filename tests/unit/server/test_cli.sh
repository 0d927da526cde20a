#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The command line of the real program, as far as nothing listens.
#
#   test_cli.sh NOCTULE ROOT TEST
set -euo pipefail

noctule=$1
root=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail()
{
    echo "$*" >&2
    exit 1
}

expect() # code command...: stdout and stderr go to out and err
{
    local want=$1 code=0
    shift
    "$@" > "$scratch/out" 2> "$scratch/err" || code=$?
    [[ $code -eq $want ]] || fail "$*: exit $code instead of $want: $(cat "$scratch/err")"
}

said() # out|err text
{
    grep -qF -- "$2" "$scratch/$1" || fail "'$2' is not in $1: $(cat "$scratch/$1")"
}

test_help()
{
    expect 0 "$noctule" -h
    said out 'usage: noctule [-c FILE] [-p PORT]'
    expect 0 "$noctule" --version
    grep -qE '^noctule [0-9]+\.[0-9]+\.[0-9]+$' "$scratch/out" || fail "no version"
}

test_misuse()
{
    expect 1 "$noctule" --nonsense
    said err 'usage: noctule'
    expect 1 "$noctule" extra
    said err "'extra': no such option"
    local port
    for port in 0 65536 x 1x '' -1; do
        expect 1 "$noctule" --test-config -p "$port"
        said err 'is not a port number'
    done
    expect 1 "$noctule" --test-config -p 1 -p 2 -p 3 -p 4 -p 5 -p 6 -p 7 -p 8 -p 9 -p 10 -p 11
    said err 'at most 10 ports'
}

test_test_config()
{
    expect 0 "$noctule" --test-config
    printf 'listener 1883\nretry_interval 3\n' > "$scratch/good"
    expect 0 "$noctule" --test-config -c "$scratch/good"
    said err 'retry_interval: accepted without effect'
    printf 'listener 1883\npassword_file /x\n' > "$scratch/bad"
    expect 1 "$noctule" --test-config -c "$scratch/bad"
    said err "$scratch/bad:2: password_file: this version has no logins"
    expect 1 "$noctule" -c "$scratch/bad"
    said err "$scratch/bad:2: password_file"
    expect 1 "$noctule" -c "$scratch/missing"
    said err "$scratch/missing: No such file or directory"
}

test_packaged_config()
{
    mkdir "$scratch/conf.d"
    sed "s|^include_dir .*|include_dir $scratch/conf.d|" "$root/packaging/noctule.conf" > "$scratch/conf"
    expect 0 "$noctule" --test-config -c "$scratch/conf"
}

test_manual()
{
    "$noctule" --config-reference > "$scratch/reference"
    cmake -DFRAME="$root/packaging/man/noctule.conf.5.in" -DREFERENCE="$scratch/reference" \
        -DOUT="$scratch/noctule.conf.5" -P "$root/packaging/man/generate.cmake"
    grep -q 'max_inflight_messages' "$scratch/noctule.conf.5" || fail "the keys are not in the page"
    if ! command -v man > /dev/null || ! command -v groff > /dev/null; then
        echo "man or groff is not installed: the pages are not formatted"
        return
    fi
    local page
    for page in "$scratch/noctule.conf.5" "$root/packaging/man/noctule.8"; do
        LC_ALL=C.UTF-8 MANWIDTH=100 man --warnings -E UTF-8 -l "$page" > "$scratch/text" 2> "$scratch/err"
        [[ ! -s $scratch/err ]] || fail "$page: $(cat "$scratch/err")"
        [[ -s $scratch/text ]] || fail "$page: empty"
    done
}

# A log file that cannot be opened ends the start; in the background as well, where the parent has to tell.
test_failed_start()
{
    printf 'log_dest file /nonexistent/log\n' > "$scratch/conf"
    expect 1 "$noctule" -c "$scratch/conf"
    said err '/nonexistent/log: No such file or directory'
    expect 1 "$noctule" -d -c "$scratch/conf"
    said err '/nonexistent/log: No such file or directory'
}

"test_$3"
