/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/shares.h"

#include "routing/rcu.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#define BUCKETS 4096u

struct share_count {
    /* relaxed: a pick made on an old count is put right by the shard that gets it. */
    _Atomic uint32_t members;
    _Atomic uint32_t online;
    uint32_t turn; /* the shard's own */
};

struct share_group {
    struct rcu_item rcu;
    /* Links of the two tables: release when published, acquire when followed. */
    _Atomic(struct share_group *) next_by_filter;
    _Atomic(struct share_group *) next_by_id;
    struct tree_node *node; /* of the filter; our interest keeps it */
    uint64_t filter_id;
    uint64_t id;
    uint64_t total;        /* members in all shards; under the lock */
    _Atomic uint64_t turn; /* relaxed: only the sequence counts */
    unsigned nshards;
    struct share_count count[];
};

struct shares {
    struct tree *tree;
    unsigned nshards;
    pthread_mutex_t lock; /* changes */
    _Atomic size_t members;
    _Atomic(struct share_group *) by_filter[BUCKETS];
    _Atomic(struct share_group *) by_id[BUCKETS];
};

static _Atomic(struct share_group *) *filter_bucket(struct shares *s, uint64_t filter_id)
{
    return &s->by_filter[filter_id % BUCKETS];
}

static _Atomic(struct share_group *) *id_bucket(struct shares *s, uint64_t id)
{
    return &s->by_id[id % BUCKETS];
}

struct shares *shares_create(struct tree *t, unsigned nshards)
{
    struct shares *s = calloc(1, sizeof(*s));

    if (s == NULL) {
        return NULL;
    }
    s->tree = t;
    s->nshards = nshards;
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void shares_destroy(struct shares *s)
{
    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        struct share_group *g = atomic_load_explicit(&s->by_id[i], memory_order_acquire);
        while (g != NULL) {
            struct share_group *next = atomic_load_explicit(&g->next_by_id, memory_order_acquire);
            free(g);
            g = next;
        }
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- reading ---- */

struct share_group *shares_find(const struct shares *s, uint64_t group_id)
{
    struct share_group *g = atomic_load_explicit(id_bucket((struct shares *)(uintptr_t)s, group_id),
                                                 memory_order_acquire);

    while (g != NULL && g->id != group_id) {
        g = atomic_load_explicit(&g->next_by_id, memory_order_acquire);
    }
    return g;
}

static struct share_group *with_filter(struct share_group *g, uint64_t filter_id)
{
    while (g != NULL && g->filter_id != filter_id) {
        g = atomic_load_explicit(&g->next_by_filter, memory_order_acquire);
    }
    return g;
}

struct share_group *shares_of_filter(const struct shares *s, uint64_t filter_id)
{
    return with_filter(atomic_load_explicit(filter_bucket((struct shares *)(uintptr_t)s, filter_id),
                                            memory_order_acquire),
                       filter_id);
}

struct share_group *shares_next(const struct share_group *g)
{
    return with_filter(atomic_load_explicit(&((struct share_group *)(uintptr_t)g)->next_by_filter,
                                            memory_order_acquire),
                       g->filter_id);
}

uint64_t share_group_id(const struct share_group *g)
{
    return g->id;
}

size_t shares_count(const struct shares *s)
{
    return atomic_load_explicit(&((struct shares *)(uintptr_t)s)->members, memory_order_relaxed);
}

/* ---- picking ---- */

static uint32_t count_of(const struct share_group *g, unsigned shard, bool online)
{
    struct share_count *c = (struct share_count *)(uintptr_t)&g->count[shard];

    return atomic_load_explicit(online ? &c->online : &c->members, memory_order_relaxed);
}

static uint64_t sum(const struct share_group *g, bool online)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < g->nshards; i++) {
        n += count_of(g, i, online);
    }
    return n;
}

bool shares_pick(struct share_group *g, unsigned *shard)
{
    bool online = true;
    uint64_t n = sum(g, true);
    uint64_t at;

    if (n == 0) {
        online = false;
        n = sum(g, false);
    }
    if (n == 0) {
        return false;
    }
    at = atomic_fetch_add_explicit(&g->turn, 1, memory_order_relaxed) % n;
    for (unsigned i = 0; i < g->nshards; i++) {
        uint32_t here = count_of(g, i, online);
        if (at < here) {
            *shard = i;
            return true;
        }
        at -= here;
    }
    return shares_pick_other(g, NULL, online, shard); /* the counts have changed meanwhile */
}

bool shares_pick_other(const struct share_group *g, const bool *tried, bool online, unsigned *shard)
{
    for (unsigned i = 0; i < g->nshards; i++) {
        if ((tried == NULL || !tried[i]) && count_of(g, i, online) > 0) {
            *shard = i;
            return true;
        }
    }
    return false;
}

bool shares_online_elsewhere(const struct share_group *g, unsigned shard)
{
    for (unsigned i = 0; i < g->nshards; i++) {
        if (i != shard && count_of(g, i, true) > 0) {
            return true;
        }
    }
    return false;
}

uint32_t shares_turn(struct share_group *g, unsigned shard)
{
    return g->count[shard].turn++;
}

/* ---- changing ---- */

static struct share_group *group_create(struct shares *s, uint64_t id, const char *filter, size_t n)
{
    struct share_group *g = calloc(1, sizeof(*g) + s->nshards * sizeof(g->count[0]));

    if (g == NULL) {
        return NULL;
    }
    g->id = id;
    g->nshards = s->nshards;
    g->node = tree_set(s->tree, filter, n, TREE_GROUPS, TREE_SHARED, &g->filter_id);
    if (g->node == NULL) {
        free(g);
        return NULL;
    }
    atomic_init(&g->next_by_filter,
                atomic_load_explicit(filter_bucket(s, g->filter_id), memory_order_relaxed));
    atomic_init(&g->next_by_id, atomic_load_explicit(id_bucket(s, id), memory_order_relaxed));
    /* release: partner of the readers' acquire; the group is complete. */
    atomic_store_explicit(filter_bucket(s, g->filter_id), g, memory_order_release);
    atomic_store_explicit(id_bucket(s, id), g, memory_order_release);
    return g;
}

struct share_group *shares_join(struct shares *s, uint64_t group_id, const char *filter, size_t n,
                                unsigned shard)
{
    struct share_group *g;

    pthread_mutex_lock(&s->lock);
    g = shares_find(s, group_id);
    if (g == NULL) {
        g = group_create(s, group_id, filter, n);
    }
    if (g != NULL) {
        g->total++;
        atomic_fetch_add_explicit(&g->count[shard].members, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&s->members, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&s->lock);
    return g;
}

static void group_free(struct rcu_item *item)
{
    free((struct share_group *)item);
}

static void group_remove(struct shares *s, struct share_group *g)
{
    _Atomic(struct share_group *) *at = filter_bucket(s, g->filter_id);

    while (atomic_load_explicit(at, memory_order_relaxed) != g) {
        at = &atomic_load_explicit(at, memory_order_relaxed)->next_by_filter;
    }
    atomic_store_explicit(at, atomic_load_explicit(&g->next_by_filter, memory_order_relaxed),
                          memory_order_release);
    at = id_bucket(s, g->id);
    while (atomic_load_explicit(at, memory_order_relaxed) != g) {
        at = &atomic_load_explicit(at, memory_order_relaxed)->next_by_id;
    }
    atomic_store_explicit(at, atomic_load_explicit(&g->next_by_id, memory_order_relaxed),
                          memory_order_release);
    if (shares_of_filter(s, g->filter_id) == NULL) {
        tree_change(s->tree, g->node, TREE_GROUPS, 0);
    }
    /* Readers of this moment may still stand on it. */
    rcu_defer(&g->rcu, group_free);
}

void shares_leave(struct shares *s, struct share_group *g, unsigned shard)
{
    pthread_mutex_lock(&s->lock);
    atomic_fetch_sub_explicit(&g->count[shard].members, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&s->members, 1, memory_order_relaxed);
    if (--g->total == 0) {
        group_remove(s, g);
    }
    pthread_mutex_unlock(&s->lock);
}

void shares_online(struct share_group *g, unsigned shard, int change)
{
    if (change > 0) {
        atomic_fetch_add_explicit(&g->count[shard].online, 1, memory_order_relaxed);
    } else {
        atomic_fetch_sub_explicit(&g->count[shard].online, 1, memory_order_relaxed);
    }
}
