/* SPDX-License-Identifier: Apache-2.0 */
/* Readers and writers of one tree at once, with nodes freed under way: above all for
 * ThreadSanitizer. */
#include "routing/match_cache.h"
#include "routing/rcu.h"
#include "routing/subscribers.h"
#include "routing/topic.h"
#include "tests/support/unit.h"
#include "tests/unit/routing/words.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 4000

struct room {
    struct tree *tree;
    uint64_t stable_id; /* of "a/+", shard 0, there all the time */
    _Atomic bool stop;
    _Atomic unsigned bad;
    _Atomic unsigned matches;
};

static bool has_id(const struct match *m, uint64_t id)
{
    for (uint32_t t = 0; t < m->ntargets; t++) {
        for (uint32_t i = 0; i < m->targets[t].count; i++) {
            if (match_ids(m)[m->targets[t].first + i] == id) {
                return true;
            }
        }
    }
    return false;
}

static void *reader(void *arg)
{
    struct room *r = arg;
    struct match_cache *cache = match_cache_create(r->tree, 256, 0, 5);
    uint64_t rng = 3;
    char text[WORDS_MAX];

    rcu_register();
    while (!atomic_load(&r->stop)) {
        for (int i = 0; i < 20; i++) {
            size_t n = words_text(&rng, false, text);
            struct match *m = match_cache_get(cache, text, n);
            bool wanted = topic_matches("a/+", 3, text, n);

            if (m == NULL || has_id(m, r->stable_id) != wanted) {
                atomic_fetch_add(&r->bad, 1);
            }
            atomic_fetch_add(&r->matches, 1);
        }
        rcu_quiescent();
    }
    rcu_unregister();
    match_cache_destroy(cache);
    return NULL;
}

#define CROWDED 6u
static const char *const crowded[CROWDED] = {"a", "b", "+", "#", "b/+", "a/#"};

/* Three more shards at filters that come up often: with the writers' the lists go to arrays and
 * back. */
static void crowd(struct tree *t, struct tree_node **nodes, unsigned kinds)
{
    for (unsigned i = 0; i < CROWDED * 3; i++) {
        const char *filter = crowded[i % CROWDED];
        uint64_t id;

        if (kinds == 0) {
            (void)tree_change(t, nodes[i], 10 + i / CROWDED, 0);
        } else {
            nodes[i] = tree_set(t, filter, strlen(filter), 10 + i / CROWDED, kinds, &id);
            UNIT_NEED(nodes[i] != NULL);
        }
    }
}

struct writer {
    struct room *room;
    unsigned shard;
};

static size_t random_filter(uint64_t *rng, char *text)
{
    if (words_below(rng, 2) == 0) {
        strcpy(text, crowded[words_below(rng, CROWDED)]);
        return strlen(text);
    }
    return words_text(rng, true, text);
}

/* A shard that subscribes and unsubscribes at random. */
static void *writer(void *arg)
{
    struct writer *w = arg;
    struct subscribers *s = subscribers_create(w->room->tree, w->shard, 9);
    struct sub_owner owners[3] = {0};
    uint64_t rng = w->shard;
    char text[WORDS_MAX];

    rcu_register();
    for (int i = 0; s != NULL && i < ROUNDS; i++) {
        uint32_t o = words_below(&rng, 3);
        size_t n = random_filter(&rng, text);
        struct sub_options opts = {.durable = words_below(&rng, 2) == 0};
        struct sub *sub = subscribers_find(s, o + 1, text, n);

        if (sub != NULL && words_below(&rng, 4) > 0) {
            subscribers_remove(s, &owners[o], sub);
        } else if (subscribers_put(s, &owners[o], o + 1, text, n, &opts, &sub) == SUBS_NOMEM) {
            atomic_fetch_add(&w->room->bad, 1);
        } else if (subscribers_find(s, o + 1, text, n) != sub ||
                   sub_filter_text(sub, text, sizeof(text)) != n) {
            atomic_fetch_add(&w->room->bad, 1);
        }
        rcu_quiescent();
    }
    subscribers_destroy(s);
    rcu_unregister();
    return NULL;
}

static void test_readers_and_writers(void)
{
    struct tree_node *nodes[CROWDED * 3];
    struct room r = {0};
    struct writer w[3];
    pthread_t readers[2];
    pthread_t writers[3];
    struct tree_stats st;

    r.tree = tree_create();
    UNIT_NEED(r.tree != NULL);
    UNIT_NEED(tree_set(r.tree, "a/+", 3, 0, TREE_PLAIN, &r.stable_id) != NULL);
    crowd(r.tree, nodes, TREE_SHARED);
    for (unsigned i = 0; i < 2; i++) {
        UNIT_NEED(pthread_create(&readers[i], NULL, reader, &r) == 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        w[i] = (struct writer){&r, i + 1};
        UNIT_NEED(pthread_create(&writers[i], NULL, writer, &w[i]) == 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(writers[i], NULL);
    }
    atomic_store(&r.stop, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(readers[i], NULL);
    }
    crowd(r.tree, nodes, 0);
    CU_ASSERT_EQUAL(atomic_load(&r.bad), 0);
    CU_ASSERT(atomic_load(&r.matches) > 0);
    rcu_drain();
    rcu_drain();
    tree_stats(r.tree, &st);
    CU_ASSERT(st.filters == 1 && st.nodes == 2);
    tree_destroy(r.tree);
}

struct fence {
    struct tree *tree;
    _Atomic uint64_t counter; /* stands for the retained counter */
    _Atomic int go, ready;
    uint64_t seen_counter;
    struct tree_node *node;
};

static void *subscribe_then_look(void *arg)
{
    struct fence *f = arg;
    uint64_t id;

    rcu_register();
    atomic_store(&f->ready, 1);
    while (atomic_load(&f->go) == 0) {}
    f->node = tree_set(f->tree, "r/x", 3, 0, TREE_PLAIN, &id);
    f->seen_counter = atomic_load_explicit(&f->counter, memory_order_seq_cst);
    rcu_unregister();
    return NULL;
}

/* The publisher's side: true if it saw the subscription, through a cache that knows the topic
 * without it. */
static bool publish(struct fence *f, struct match_cache *cache, int delay)
{
    UNIT_NEED(match_cache_get(cache, "r/x", 3)->ntargets == 0);
    while (atomic_load(&f->ready) == 0) {}
    atomic_store(&f->go, 1);
    for (int i = 0; i < delay; i++) {
        (void)tree_generation(f->tree, "y", 1);
    }
    atomic_fetch_add_explicit(&f->counter, 1, memory_order_seq_cst);
    return match_cache_get(cache, "r/x", 3)->ntargets == 1;
}

/* The fence of tree.h: a retained publish that does not see the subscription is seen by its replay.
 */
static void test_publish_meets_subscribe(void)
{
    struct fence f = {.tree = tree_create()};
    struct match_cache *cache = match_cache_create(f.tree, 64, 0, 1);

    UNIT_NEED(f.tree != NULL && cache != NULL);
    for (int round = 0; round < 500; round++) {
        pthread_t other;
        bool matched;

        atomic_store(&f.counter, 0);
        atomic_store(&f.ready, 0);
        atomic_store(&f.go, 0);
        UNIT_NEED(pthread_create(&other, NULL, subscribe_then_look, &f) == 0);
        rcu_register();
        matched = publish(&f, cache, round % 32);
        rcu_unregister();
        pthread_join(other, NULL);
        CU_ASSERT(matched || f.seen_counter == 1);
        rcu_register();
        CU_ASSERT_TRUE(tree_change(f.tree, f.node, 0, 0));
        rcu_unregister();
    }
    match_cache_destroy(cache);
    tree_destroy(f.tree);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(readers_and_writers)
    UNIT_TEST(publish_meets_subscribe)
UNIT_TESTS_END
