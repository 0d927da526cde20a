/* SPDX-License-Identifier: Apache-2.0 */
/*
 * match_cache.h - one shard's cache: topic -> match.
 *
 * Threads    the owning shard only, inside an RCU read.
 * Ownership  match_cache_get() lends the match until the next call; match_ref() to keep it.
 * Memory     8-way sets, grown by doubling while it pays, up to a bound in slots; topics longer
 * than 512 bytes are not cached but still matched.
 */
#ifndef NOCTULE_ROUTING_MATCH_CACHE_H
#define NOCTULE_ROUTING_MATCH_CACHE_H

#include "routing/tree.h"

struct match_cache;

/*
 * The bound: max_slots, or where that is more, one slot for each `filters` filters in the tree
 * (0: never), at most MATCH_CACHE_MOST.
 */
struct match_cache *match_cache_create(const struct tree *t, size_t max_slots, size_t filters,
                                       uint64_t seed);
#define MATCH_CACHE_MOST ((size_t)1 << 18)
void match_cache_destroy(struct match_cache *c);

/* NULL: no memory. Never stale: compares generations on every hit. */
struct match *match_cache_get(struct match_cache *c, const char *topic, size_t n);

/* For who asks for one topic several times and knows that it is the same: the mark stands for what
 * the last get found. match_cache_again() lends the same as another get would, or NULL where it
 * has to be asked: another topic came between, or the match is not valid any more. */
uint64_t match_cache_mark(const struct match_cache *c);
struct match *match_cache_again(struct match_cache *c, uint64_t mark);

/*
 * For who will ask later: fetch asks for the place of a topic, and answers its hash; peek looks
 * there for its match (NULL: not known; valid until the next get, and maybe stale). Nothing
 * changes.
 */
uint64_t match_cache_fetch(const struct match_cache *c, const char *topic, size_t n);
const struct match *match_cache_peek(const struct match_cache *c, uint64_t hash);
/* So many topics are in it that they have no place in the processor's nearer caches. */
bool match_cache_is_wide(const struct match_cache *c);

struct match_cache_stats {
    uint64_t hits;
    uint64_t misses;
    uint64_t stale;
};
void match_cache_stats(const struct match_cache *c, struct match_cache_stats *out);

#endif
