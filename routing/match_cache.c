/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets of four slots, a cache line each, the most recently used slot first. The table doubles when
 * that is shown to pay: what is thrown out leaves its hash (of one topic in sixteen) in a shadow,
 * and as soon as as many misses as there are slots would have been hits in a larger table, it
 * grows.
 */
#include "routing/match_cache.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define WAYS        4u
#define FIRST_SETS  16u
#define LONGEST     512u
#define SAMPLE_BITS 4u

struct cached {
    struct match *match; /* one reference; its generation is the one compared */
    uint64_t gen_key;
    uint16_t topic_n;
    char topic[];
};

struct slot {
    uint64_t hash;
    struct cached *cached; /* NULL: free, and so are those behind it */
};

struct set {
    _Alignas(64) struct slot slots[WAYS];
};

struct match_cache {
    const struct tree *tree;
    uint64_t seed;
    struct set *sets;
    uint32_t
        *shadow; /* hashes thrown out, WAYS for each set; NULL: no memory or no room to grow into */
    size_t nsets, max_sets;
    size_t regrets;      /* misses that a larger table would have avoided, extrapolated */
    struct match *lent;  /* what the last get lent without keeping it; one reference */
    struct cached *last; /* what the last get found: publishers send several to one topic */
    struct match_cache_stats stats;
};

static size_t sets_for(size_t max_slots)
{
    size_t sets = 1;

    while (sets * 2 * WAYS <= max_slots) {
        sets *= 2;
    }
    return sets;
}

static uint32_t *shadow_create(const struct match_cache *c)
{
    return c->nsets < c->max_sets ? calloc(c->nsets * WAYS, sizeof(uint32_t)) : NULL;
}

static struct set *sets_create(size_t n)
{
    struct set *sets = aligned_alloc(_Alignof(struct set), n * sizeof(*sets));

    if (sets != NULL) {
        memset(sets, 0, n * sizeof(*sets));
    }
    return sets;
}

struct match_cache *match_cache_create(const struct tree *t, size_t max_slots, uint64_t seed)
{
    struct match_cache *c = calloc(1, sizeof(*c));

    if (c == NULL) {
        return NULL;
    }
    *c = (struct match_cache){.tree = t, .seed = seed, .max_sets = sets_for(max_slots)};
    c->nsets = c->max_sets < FIRST_SETS ? c->max_sets : FIRST_SETS;
    c->sets = sets_create(c->nsets);
    if (c->sets == NULL) {
        free(c);
        return NULL;
    }
    c->shadow = shadow_create(c);
    return c;
}

static void cached_free(struct cached *e)
{
    if (e != NULL) {
        match_unref(e->match);
        free(e);
    }
}

void match_cache_destroy(struct match_cache *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->nsets * WAYS; i++) {
        cached_free(c->sets[i / WAYS].slots[i % WAYS].cached);
    }
    if (c->lent != NULL) {
        match_unref(c->lent);
    }
    free(c->shadow);
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
    struct set *bigger = sets_create(c->nsets * 2);
    uint8_t fill[2];

    c->regrets = 0;
    if (bigger == NULL) {
        return; /* tried again after as many regrets */
    }
    for (size_t i = 0; i < c->nsets; i++) {
        fill[0] = fill[1] = 0;
        for (unsigned w = 0; w < WAYS && c->sets[i].slots[w].cached != NULL; w++) {
            struct slot s = c->sets[i].slots[w];
            unsigned upper = (s.hash & c->nsets) != 0;

            bigger[i + upper * c->nsets].slots[fill[upper]++] = s;
        }
    }
    free(c->sets);
    free(c->shadow);
    c->sets = bigger;
    c->nsets *= 2;
    c->shadow = shadow_create(c);
}

static bool is_sampled(uint64_t hash)
{
    return hash >> (64 - SAMPLE_BITS) == 0;
}

static uint32_t *shadow_of(const struct match_cache *c, uint64_t hash)
{
    return &c->shadow[(hash >> 24) & (c->nsets * WAYS - 1)];
}

/* A topic is not in the table: was it, not long ago? */
static void note_miss(struct match_cache *c, uint64_t hash)
{
    if (c->shadow == NULL || !is_sampled(hash) || *shadow_of(c, hash) != (uint32_t)hash) {
        return;
    }
    *shadow_of(c, hash) = 0;
    c->regrets += 1u << SAMPLE_BITS;
    if (c->regrets >= c->nsets * WAYS) {
        grow(c);
    }
}

static void evict(struct match_cache *c, const struct slot *s)
{
    if (s->cached == c->last) {
        c->last = NULL;
    }
    if (s->cached != NULL && c->shadow != NULL && is_sampled(s->hash)) {
        *shadow_of(c, s->hash) = (uint32_t)s->hash;
    }
    cached_free(s->cached);
}

static void to_front(struct set *set, unsigned way)
{
    struct slot s = set->slots[way];

    memmove(&set->slots[1], &set->slots[0], way * sizeof(s));
    set->slots[0] = s;
}

static struct cached *lookup(const struct match_cache *c, uint64_t hash, const char *topic,
                             size_t n)
{
    struct set *set = set_of(c, hash);

    for (unsigned w = 0; w < WAYS && set->slots[w].cached != NULL; w++) {
        struct cached *e = set->slots[w].cached;

        if (set->slots[w].hash == hash && e->topic_n == n && memcmp(e->topic, topic, n) == 0) {
            if (w > 0) {
                to_front(set, w);
            }
            return e;
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

/* Without memory for it the match is lent all the same. */
static struct match *keep(struct match_cache *c, uint64_t hash, const char *topic, size_t n,
                          struct match *m)
{
    struct cached *e = malloc(sizeof(*e) + n);
    struct set *set = set_of(c, hash);

    if (e == NULL) {
        return lend(c, m);
    }
    *e = (struct cached){m, tree_generation_key(c->tree, topic, n), (uint16_t)n};
    memcpy(e->topic, topic, n);
    evict(c, &set->slots[WAYS - 1]);
    set->slots[WAYS - 1] = (struct slot){hash, e};
    to_front(set, WAYS - 1);
    return m;
}

static bool is_valid(const struct match_cache *c, const struct cached *e)
{
    return tree_generation_at(c->tree, e->gen_key) == e->match->generation;
}

struct match *match_cache_get(struct match_cache *c, const char *topic, size_t n)
{
    uint64_t hash;
    struct cached *e = c->last;
    struct match *m;

    if (e != NULL && e->topic_n == n && memcmp(e->topic, topic, n) == 0 && is_valid(c, e)) {
        c->stats.hits++;
        return e->match;
    }
    if (n > LONGEST) {
        m = tree_match(c->tree, topic, n);
        c->stats.misses++;
        return m == NULL ? NULL : lend(c, m);
    }
    hash = XXH3_64bits_withSeed(topic, n, c->seed);
    e = lookup(c, hash, topic, n);
    c->last = e;
    if (e != NULL && is_valid(c, e)) {
        c->stats.hits++;
        return e->match;
    }
    m = tree_match(c->tree, topic, n);
    if (e != NULL) {
        c->stats.stale++;
        if (m != NULL) {
            match_unref(e->match);
            e->match = m;
        }
        return m;
    }
    c->stats.misses++;
    note_miss(c, hash);
    return m == NULL ? NULL : keep(c, hash, topic, n, m);
}

void match_cache_stats(const struct match_cache *c, struct match_cache_stats *out)
{
    *out = c->stats;
}
