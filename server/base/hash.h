/* SPDX-License-Identifier: Apache-2.0 */
/* hash.h - keyed 64-bit hash (XXH3 with a random seed): peers must not be able to aim at one bucket
 * or shard. */
#ifndef NOCTULE_BASE_HASH_H
#define NOCTULE_BASE_HASH_H

#include "server/base/span.h"

#include <xxhash.h>

static inline uint64_t hash_span(struct span s, uint64_t key)
{
    return XXH3_64bits_withSeed(s.p, s.n, key);
}

#endif
