/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree.h - the one topic tree of filters: which shards have an interest in a topic.
 *
 * A filter node has a 64-bit id that is never used again and a short list of (shard, kinds). Who
 * subscribes is the shards' own business (subscribers.h). The tree is read under RCU by every shard
 * and changed under one lock that is held for one filter at a time. Generations, hashed by the
 * first levels, move only when a (filter, shard, kind) appears or goes; match_cache.h rests on
 * them.
 *
 * Fences     tree_set() moves the generation after the change (seq_cst); a publisher that reads the
 *            generations after storing a retained message (seq_cst) therefore either sees the new
 *            interest, or its message is older than the subscriber's look at the retained counter.
 * Threads    any registered with rcu.h. tree_match/tree_find: inside a read (not quiescent, not
 * offline). Ownership  a node stays valid for a shard while that shard has an interest in it; else
 * for one read. Blocking   tree_set(): one mutex; no waiting for readers under it (deferred frees).
 * Errors     NULL/false: no memory; the tree is unchanged.
 */
#ifndef NOCTULE_ROUTING_TREE_H
#define NOCTULE_ROUTING_TREE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TREE_MAX_SHARDS 320u /* a multiple of 64 */
#define TREE_GROUPS                                                                                \
    256u /* stands for the shared groups of a filter, in the place of a shard: shares.h */

/* Kinds of interest, as bits. */
enum {
    TREE_PLAIN = 1,
    TREE_DURABLE = 2, /* at least one durable session: a publish there carries a ticket */
    TREE_SHARED = 4,  /* TREE_GROUPS only: there are shared subscriptions to this filter */
};

struct tree;
struct tree_node;

struct tree *tree_create(void);
void tree_destroy(struct tree *t); /* no readers left; calls rcu_drain() */

/*
 * Sets the kinds (bits) `shard` has in `filter`, creating the node where there is none. Call with
 * kinds != 0. The filter is valid (topic.h). *id becomes the filter's id. NULL: no memory.
 */
struct tree_node *tree_set(struct tree *t, const char *filter, size_t n, unsigned shard,
                           unsigned kinds, uint64_t *id);
/*
 * Changes the kinds at a node where `shard` has an interest; 0 ends it and may free the node later.
 * Needs no memory there, so it answers true.
 */
bool tree_change(struct tree *t, struct tree_node *node, unsigned shard, unsigned kinds);

/* The node of exactly this filter with any interest at all, or NULL. */
struct tree_node *tree_find(const struct tree *t, const char *filter, size_t n, uint64_t *id);

/* Rebuilds the filter's text (not NUL-terminated); returns its bytes, which may exceed cap (then
 * cut). */
size_t tree_node_text(const struct tree_node *node, char *buf, size_t cap);

/* ---- matching ---- */

struct match_target {
    uint16_t shard;
    uint8_t kinds;  /* union of the kinds of its filters */
    uint32_t first; /* of the match's ids, */
    uint32_t count; /* so many */
    uint32_t stamp; /* its own to use, and nobody else's: says whether its hints still hold */
};

/* Everyone interested in one topic, and its text; immutable, counted, one allocation: in its first
 * lines what is read each time, the ids last. */
struct match {
    _Atomic uint32_t refs;
    uint32_t ntargets;
    uint64_t generation;     /* of tree_generation() before the match was made, */
    uint64_t generation_key; /* and where it is */
    uint64_t *hints; /* one for each id, 0 at first: its target's to use, and nobody else's */
    uint32_t nids;
    uint32_t topic_n; /* bytes */
    struct match_target targets[];
};

/* Not NUL-terminated. */
static inline const char *match_topic(const struct match *m)
{
    return (const char *)(m->hints + m->nids);
}

/* Filter ids, grouped by target. */
static inline const uint64_t *match_ids(const struct match *m)
{
    return m->hints + m->nids + (m->topic_n + 7) / 8;
}

/* A fresh match for a valid topic name, refs 1; also when nobody matches (ntargets 0). NULL: no
 * memory. */
struct match *tree_match(const struct tree *t, const char *topic, size_t n);
/* One that names one filter of one shard, and no topic; not for a cache. NULL: no memory. */
struct match *match_of_filter(unsigned shard, unsigned kinds, uint64_t id);
void match_ref(struct match *m, uint32_t n);
void match_unref(struct match *m);

/*
 * A number that changes whenever the match of this topic may have: the sum of the (growing)
 * generations of the topic's first levels, of first level alone, and of filters that begin with a
 * wildcard.
 */
uint64_t tree_generation(const struct tree *t, const char *topic, size_t n);

/* The same in two steps: where a topic's generations are (never changes), and their sum now. */
uint64_t tree_generation_key(const struct tree *t, const char *topic, size_t n);
uint64_t tree_generation_at(const struct tree *t, uint64_t key);

/* For metrics: filters with any interest, nodes in all, bytes taken. Relaxed, any thread. */
struct tree_stats {
    uint64_t filters;
    uint64_t nodes;
    uint64_t bytes;
};
void tree_stats(const struct tree *t, struct tree_stats *out);

#endif
