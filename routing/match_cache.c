/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets of eight slots, two cache lines, the most recently used slot first. The table doubles when
 * that is shown to pay: what is thrown out leaves its hash in a shadow, and when a quarter as many
 * misses as there are slots would have been hits in a larger table, it grows. The shadow is small
 * and keeps samples: one topic in four for what comes back soon, and so few of another kind that
 * they stay for as many evictions as the largest table has slots.
 */
#include "routing/match_cache.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define WAYS       8u
#define FIRST_SETS 8u
#define LONGEST    512u
#define SHADOW     512u /* of each kind */
#define NEAR_BITS  2u   /* sampled: one in four */
#define WIDE_SETS  512u

struct slot {
    uint64_t hash;
    struct match *match; /* one reference; NULL: free, and so are those behind it */
};

struct set {
    _Alignas(128) struct slot slots[WAYS];
};

struct match_cache {
    const struct tree *tree;
    uint64_t seed;
    struct set *sets;
    size_t nsets, max_slots, filters_each;
    size_t regrets;     /* misses that a larger table would have avoided, extrapolated */
    struct match *lent; /* what the last get lent without keeping it; one reference */
    struct match *last; /* what the last get found: publishers send several to one topic */
    uint64_t mark;      /* moves when `last` does, never 0 */
    struct match_cache_stats stats;
    uint32_t near[SHADOW], far[SHADOW]; /* hashes thrown out; 0: none */
};

/* The largest power of two that is not above n, and at least 1. */
static size_t power_below(size_t n)
{
    return n < 2 ? 1 : (size_t)1 << (63 - __builtin_clzll(n));
}

/* The power of two nearest to n, by ratio, and at least 1. */
static size_t power_near(size_t n)
{
    return power_below(n + n / 2);
}

/* How many sets it may have by now. Half as many as there are topics in turn would be no half of
 * the gain: sets that are too full throw out all that comes, since the oldest is asked for next. */
static size_t most_sets(const struct match_cache *c)
{
    size_t most = c->max_slots;
    struct tree_stats st;

    if (c->filters_each != 0) {
        tree_stats(c->tree, &st);
        most = st.filters / c->filters_each > most ? st.filters / c->filters_each : most;
        most = most > MATCH_CACHE_MOST ? MATCH_CACHE_MOST : most;
    }
    return power_near(most / WAYS);
}

static struct set *sets_create(size_t n)
{
    struct set *sets = aligned_alloc(_Alignof(struct set), n * sizeof(*sets));

    if (sets != NULL) {
        memset(sets, 0, n * sizeof(*sets));
    }
    return sets;
}

struct match_cache *match_cache_create(const struct tree *t, size_t max_slots, size_t filters,
                                       uint64_t seed)
{
    struct match_cache *c = calloc(1, sizeof(*c));

    if (c == NULL) {
        return NULL;
    }
    c->tree = t;
    c->mark = 1;
    c->seed = seed;
    c->max_slots = max_slots;
    c->filters_each = filters;
    c->nsets = power_below(max_slots / WAYS);
    c->nsets = c->nsets < FIRST_SETS ? c->nsets : FIRST_SETS;
    c->sets = sets_create(c->nsets);
    if (c->sets == NULL) {
        free(c);
        return NULL;
    }
    return c;
}

static void drop(struct match *m)
{
    if (m != NULL) {
        match_unref(m);
    }
}

void match_cache_destroy(struct match_cache *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->nsets * WAYS; i++) {
        drop(c->sets[i / WAYS].slots[i % WAYS].match);
    }
    drop(c->lent);
    free(c->sets);
    free(c);
}

static struct set *set_of(const struct match_cache *c, uint64_t hash)
{
    return &c->sets[hash & (c->nsets - 1)];
}

/* One more bit of the hash parts each set in two; the order within is kept. */
static void grow(struct match_cache *c)
{
    struct set *bigger;
    uint8_t fill[2];

    c->regrets = 0;
    if (c->nsets >= most_sets(c)) {
        return;
    }
    bigger = sets_create(c->nsets * 2);
    if (bigger == NULL) {
        return; /* tried again after as many regrets */
    }
    for (size_t i = 0; i < c->nsets; i++) {
        fill[0] = fill[1] = 0;
        for (unsigned w = 0; w < WAYS && c->sets[i].slots[w].match != NULL; w++) {
            struct slot s = c->sets[i].slots[w];
            unsigned upper = (s.hash & c->nsets) != 0;

            bigger[i + upper * c->nsets].slots[fill[upper]++] = s;
        }
    }
    free(c->sets);
    c->sets = bigger;
    c->nsets *= 2;
}

/* ---- the shadow ---- */

/* Samples so few that the shadow outlasts twice the largest table's slots. */
static unsigned far_bits(const struct match_cache *c)
{
    size_t each = 2 * most_sets(c) * WAYS / SHADOW;

    return each < 2 ? 0 : 63 - (unsigned)__builtin_clzll(each);
}

/* Is one of 2^bits. */
static bool is_sampled(uint64_t part, unsigned bits)
{
    return (part & ((1u << bits) - 1)) == 0;
}

static void remember(struct match_cache *c, uint64_t hash)
{
    uint32_t *near = &c->near[(hash >> 32) % SHADOW];
    uint32_t *far = &c->far[(hash >> 32) % SHADOW];

    *near = is_sampled(hash >> 62, NEAR_BITS) ? (uint32_t)hash | 1 : *near;
    *far = is_sampled(hash >> 44, far_bits(c)) ? (uint32_t)hash | 1 : *far;
}

static bool forget(uint32_t *shadow, uint64_t hash)
{
    uint32_t *at = &shadow[(hash >> 32) % SHADOW];
    bool was = *at == ((uint32_t)hash | 1);

    *at = was ? 0 : *at;
    return was;
}

/* A topic is not in the table: was it, not long ago? */
static void note_miss(struct match_cache *c, uint64_t hash)
{
    size_t near = forget(c->near, hash) ? (size_t)1 << NEAR_BITS : 0;
    size_t far = forget(c->far, hash) ? (size_t)1 << far_bits(c) : 0;

    c->regrets += near > far ? near : far;
    if (c->regrets >= c->nsets * WAYS / 4) {
        grow(c);
    }
}

/* Also when it looks the same: another topic's match may lie where this one's was. */
static void set_last(struct match_cache *c, struct match *m)
{
    c->last = m;
    c->mark++;
}

static void evict(struct match_cache *c, const struct slot *s)
{
    if (s->match == NULL) {
        return;
    }
    if (s->match == c->last) {
        set_last(c, NULL);
    }
    remember(c, s->hash);
    match_unref(s->match);
}

/* ---- finding ---- */

static void to_front(struct set *set, unsigned way)
{
    struct slot s = set->slots[way];

    memmove(&set->slots[1], &set->slots[0], way * sizeof(s));
    set->slots[0] = s;
}

static bool is_of(const struct match *m, const char *topic, size_t n)
{
    return m->topic_n == n && memcmp(match_topic(m), topic, n) == 0;
}

/* Its slot, now the first of its set; NULL: not there. */
static struct slot *lookup(const struct match_cache *c, uint64_t hash, const char *topic, size_t n)
{
    struct set *set = set_of(c, hash);

    for (unsigned w = 0; w < WAYS && set->slots[w].match != NULL; w++) {
        if (set->slots[w].hash == hash && is_of(set->slots[w].match, topic, n)) {
            if (w > 0) {
                to_front(set, w);
            }
            return &set->slots[0];
        }
    }
    return NULL;
}

static struct match *lend(struct match_cache *c, struct match *m)
{
    if (c->lent != NULL) {
        match_unref(c->lent);
    }
    c->lent = m;
    return m;
}

static struct match *keep(struct match_cache *c, uint64_t hash, struct match *m)
{
    struct set *set = set_of(c, hash);

    evict(c, &set->slots[WAYS - 1]);
    set->slots[WAYS - 1] = (struct slot){hash, m};
    to_front(set, WAYS - 1);
    set_last(c, m);
    return m;
}

static bool is_valid(const struct match_cache *c, const struct match *m)
{
    return tree_generation_at(c->tree, m->generation_key) == m->generation;
}

static struct match *uncached(struct match_cache *c, const char *topic, size_t n)
{
    struct match *m = tree_match(c->tree, topic, n);

    set_last(c, NULL);
    c->stats.misses++;
    return m == NULL ? NULL : lend(c, m);
}

static uint64_t hash_of(const struct match_cache *c, const char *topic, size_t n)
{
    return XXH3_64bits_withSeed(topic, n, c->seed);
}

/* Not what was found last. */
static struct match *get_other(struct match_cache *c, const char *topic, size_t n)
{
    uint64_t hash = hash_of(c, topic, n);
    struct slot *s = lookup(c, hash, topic, n);
    struct match *m;

    if (s != NULL && is_valid(c, s->match)) {
        c->stats.hits++;
        set_last(c, s->match);
        return s->match;
    }
    set_last(c, NULL); /* until there is memory for it */
    m = tree_match(c->tree, topic, n);
    if (s == NULL) {
        c->stats.misses++;
        note_miss(c, hash);
        return m == NULL ? NULL : keep(c, hash, m);
    }
    c->stats.stale++;
    if (m != NULL) {
        match_unref(s->match);
        s->match = m;
        set_last(c, m);
    }
    return m;
}

struct match *match_cache_get(struct match_cache *c, const char *topic, size_t n)
{
    struct match *last = c->last;

    if (last != NULL && is_of(last, topic, n) && is_valid(c, last)) {
        c->stats.hits++;
        return last;
    }
    return n > LONGEST ? uncached(c, topic, n) : get_other(c, topic, n);
}

uint64_t match_cache_mark(const struct match_cache *c)
{
    return c->mark;
}

struct match *match_cache_again(struct match_cache *c, uint64_t mark)
{
    if (mark != c->mark || c->last == NULL || !is_valid(c, c->last)) {
        return NULL;
    }
    c->stats.hits++;
    return c->last;
}

/* ---- ahead of a get ---- */

uint64_t match_cache_fetch(const struct match_cache *c, const char *topic, size_t n)
{
    uint64_t hash = hash_of(c, topic, n);

    __builtin_prefetch(&set_of(c, hash)->slots[0]);
    __builtin_prefetch(&set_of(c, hash)->slots[WAYS / 2]);
    return hash;
}

const struct match *match_cache_peek(const struct match_cache *c, uint64_t hash)
{
    const struct set *set = set_of(c, hash);

    for (unsigned w = 0; w < WAYS; w++) {
        const struct match *m = set->slots[w].match;

        if (m != NULL && set->slots[w].hash == hash) {
            return m;
        }
    }
    return NULL;
}

bool match_cache_is_wide(const struct match_cache *c)
{
    return c->nsets >= WIDE_SETS;
}

void match_cache_stats(const struct match_cache *c, struct match_cache_stats *out)
{
    *out = c->stats;
}
