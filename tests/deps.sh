#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The include rules: who may know whom. Includes are written from the root, so the path shows the arrow.
#
#   tests/deps.sh [ROOT]       checks the tree (default: this one); prints each breach, exit 1 if there is any
#   tests/deps.sh --self-test  plants breaches in a scratch tree and checks that each one is found
set -euo pipefail

# Folder -> what its files may include, as an extended regular expression. The longest folder wins.
# server/config.h is plain read-only values, so net and shard may see it; the parser behind it they may not.
declare -A may=(
    [routing]='routing/'
    [storage]='storage/'
    [server/base]='server/base/'
    [server/codec]='server/(base|codec)/'
    [server/net]='server/(base|codec|net)/|server/config\.h$'
    [server/auth]='server/(base|codec|auth)/|server/config\.h$'
    [server/post]='server/(base|post)/|routing/mailbox\.h$'
    [server/shard]='server/(base|codec|net|auth|post|shard)/|(routing|storage)/|server/config\.h$'
    [server]='server/|routing/|storage/|noctule_version\.h$'
)

# System headers that only some folders may use.
declare -A only=(
    ['lmdb\.h']='storage'
    ['urcu.*']='routing'
    ['openssl/.*']='server/net|server/auth'
    ['sys/(socket|epoll|un)\.h|netinet/.*|netdb\.h']='server/base|server/net|server/shard|server'
)

breach()
{
    echo "$1: $2"
    breaches=$((breaches + 1))
}

check_quoted() # root folder file header
{
    if [[ $4 == *..* || $4 != */* && $4 != noctule_version.h ]]; then
        breach "$3" "\"$4\" is not written from the root"
    elif [[ ! $4 =~ ^(${may[$2]}) ]]; then
        breach "$3" "$2 may not include \"$4\""
    elif [[ $4 != noctule_version.h && ! -e $1/$4 ]]; then
        breach "$3" "\"$4\" does not exist"
    fi
}

check_system() # folder file header
{
    local pattern
    for pattern in "${!only[@]}"; do
        if [[ $3 =~ ^($pattern)$ && ! $1 =~ ^(${only[$pattern]})$ ]]; then
            breach "$2" "$1 may not include <$3>"
        fi
    done
}

check_tree() # root
{
    local root=$1 file folder header
    breaches=0
    files=0
    while IFS= read -r -d '' file; do
        files=$((files + 1))
        folder=$(dirname "${file#"$root"/}")
        while [[ -z ${may[$folder]:-} ]]; do
            folder=$(dirname "$folder")
        done
        while IFS= read -r header; do
            check_quoted "$root" "$folder" "${file#"$root"/}" "$header"
        done < <(sed -nE 's/^[ \t]*#[ \t]*include[ \t]*"([^"]+)".*/\1/p' "$file")
        while IFS= read -r header; do
            check_system "$folder" "${file#"$root"/}" "$header"
        done < <(sed -nE 's/^[ \t]*#[ \t]*include[ \t]*<([^>]+)>.*/\1/p' "$file")
    done < <(find "$root/server" "$root/routing" "$root/storage" -name '*.[ch]' -print0)
    echo "$files files, $breaches breaches"
    [[ $files -gt 0 && $breaches -eq 0 ]]
}

plant() # file line: one breach in an otherwise clean tree
{
    rm -rf "${scratch:?}/tree"
    mkdir -p "$scratch"/tree/{routing,storage,server/{base,codec,net,auth,post,shard}}
    touch "$scratch"/tree/{routing/tree.h,routing/mailbox.h,storage/store.h,server/config.h,server/config_parser.h}
    touch "$scratch"/tree/server/{base/span.h,post/post.h,codec/frame.h,net/conn.h,auth/acl.h,shard/shard.h}
    echo "$2" > "$scratch/tree/$1"
}

must_fail() # file line
{
    plant "$1" "$2"
    if check_tree "$scratch/tree" > "$scratch/out" || ! grep -q "^$1: " "$scratch/out"; then
        echo "not found: $2 in $1"
        exit 1
    fi
}

must_pass() # file line
{
    plant "$1" "$2"
    if ! check_tree "$scratch/tree" > "$scratch/out"; then
        echo "wrongly found: $2 in $1"
        exit 1
    fi
}

self_test()
{
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    must_fail routing/a.c '#include "server/base/span.h"'
    must_fail routing/a.c '#include "storage/store.h"'
    must_fail routing/a.c '  #  include  <sys/socket.h>'
    must_fail storage/a.h '#include "routing/tree.h"'
    must_fail storage/a.c '#include <urcu/urcu-qsbr.h>'
    must_fail server/base/a.c '#include "server/codec/frame.h"'
    must_fail server/codec/a.c '#include "server/net/conn.h"'
    must_fail server/codec/a.c '#include "server/config.h"'
    must_fail server/net/a.c '#include "routing/tree.h"'
    must_fail server/net/a.c '#include "server/shard/shard.h"'
    must_fail server/auth/a.c '#include "server/shard/shard.h"'
    must_fail server/post/a.c '#include "routing/tree.h"'
    must_fail server/post/a.c '#include "server/shard/shard.h"'
    must_fail server/net/a.c '#include "server/post/post.h"'
    must_fail server/shard/a.c '#include "server/config_parser.h"'
    must_fail server/shard/a.c '#include <lmdb.h>'
    must_fail server/shard/a.c '#include "../net/conn.h"'
    must_fail server/shard/a.c '#include "shard.h"'
    must_fail server/a.c '#include "routing/gone.h"'
    must_pass routing/a.c '#include "routing/tree.h"'
    must_pass storage/a.c '#include <lmdb.h>'
    must_pass server/net/a.c '#include "server/config.h"'
    must_pass server/post/a.c '#include "routing/mailbox.h"'
    must_pass server/shard/a.c '#include "routing/tree.h"'
    must_pass server/a.c '#include "server/shard/shard.h"'
    echo "the planted breaches are found"
}

if [[ ${1:-} == --self-test ]]; then
    self_test
else
    check_tree "$(cd "${1:-$(dirname "$0")/..}" && pwd)"
fi
