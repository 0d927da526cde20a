/* SPDX-License-Identifier: Apache-2.0 */
/*
 * match_cache.h - one shard's cache: topic -> match.
 *
 * Threads    the owning shard only, inside an RCU read.
 * Ownership  match_cache_get() lends the match until the next call; match_ref() to keep it.
 * Memory     fixed number of slots (4-way sets, grown by doubling while it pays, at most
 * max_slots); topics longer than 512 bytes are not cached but still matched.
 */
#ifndef NOCTULE_ROUTING_MATCH_CACHE_H
#define NOCTULE_ROUTING_MATCH_CACHE_H

#include "routing/tree.h"

struct match_cache;

struct match_cache *match_cache_create(const struct tree *t, size_t max_slots, uint64_t seed);
void match_cache_destroy(struct match_cache *c);

/* NULL: no memory. Never stale: compares generations on every hit. */
struct match *match_cache_get(struct match_cache *c, const char *topic, size_t n);

struct match_cache_stats {
    uint64_t hits;
    uint64_t misses;
    uint64_t stale;
};
void match_cache_stats(const struct match_cache *c, struct match_cache_stats *out);

#endif
