/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/match_cache.h"

#include "routing/rcu.h"
#include "tests/support/unit.h"
#include "tests/unit/routing/same_match.h"
#include "tests/unit/routing/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fixture {
    struct tree *tree;
    struct match_cache *cache;
};

static struct fixture begin(size_t max_slots)
{
    struct fixture f = {.tree = tree_create()};

    f.cache = match_cache_create(f.tree, max_slots, 0, 17);
    UNIT_NEED(f.tree != NULL && f.cache != NULL);
    rcu_register();
    return f;
}

static void end(struct fixture *f)
{
    match_cache_destroy(f->cache);
    rcu_unregister();
    tree_destroy(f->tree);
}

static struct match *get(const struct fixture *f, const char *topic)
{
    struct match *m = match_cache_get(f->cache, topic, strlen(topic));

    UNIT_NEED(m != NULL);
    return m;
}

static void expect_stats(const struct fixture *f, uint64_t hits, uint64_t misses, uint64_t stale)
{
    struct match_cache_stats st;

    match_cache_stats(f->cache, &st);
    CU_ASSERT_EQUAL(st.hits, hits);
    CU_ASSERT_EQUAL(st.misses, misses);
    CU_ASSERT_EQUAL(st.stale, stale);
}

static void test_hit_and_stale(void)
{
    struct fixture f = begin(64);
    struct match *first = get(&f, "a/b");
    struct match *kept;
    uint64_t id;

    CU_ASSERT_PTR_EQUAL(get(&f, "a/b"), first);
    expect_stats(&f, 1, 1, 0);
    UNIT_NEED(tree_set(f.tree, "x/y", 3, 0, TREE_PLAIN, &id) != NULL);
    CU_ASSERT_PTR_EQUAL(get(&f, "a/b"), first); /* somebody else's subscription */
    expect_stats(&f, 2, 1, 0);
    match_ref(first, 1);
    kept = first;
    UNIT_NEED(tree_set(f.tree, "a/+", 3, 0, TREE_PLAIN, &id) != NULL);
    CU_ASSERT_EQUAL(get(&f, "a/b")->ntargets, 1);
    expect_stats(&f, 2, 1, 1);
    CU_ASSERT_EQUAL(kept->ntargets, 0); /* what was kept is as it was */
    match_unref(kept);
    CU_ASSERT_EQUAL(match_ids(get(&f, "a/b"))[0], id);
    expect_stats(&f, 3, 1, 1);
    end(&f);
}

/* One topic is the beginning of another; both hash to anything. */
static void test_text_is_compared(void)
{
    struct fixture f = begin(8); /* one set */
    uint64_t id;

    UNIT_NEED(tree_set(f.tree, "a", 1, 0, TREE_PLAIN, &id) != NULL);
    CU_ASSERT_EQUAL(get(&f, "a")->ntargets, 1);
    CU_ASSERT_EQUAL(get(&f, "ab")->ntargets, 0);
    CU_ASSERT_EQUAL(get(&f, "a")->ntargets, 1);
    CU_ASSERT_EQUAL(get(&f, "ab")->ntargets, 0);
    expect_stats(&f, 2, 2, 0);
    end(&f);
}

static void test_long_topics(void)
{
    struct fixture f = begin(64);
    char topic[514];
    uint64_t id;

    memset(topic, 'x', sizeof(topic));
    UNIT_NEED(tree_set(f.tree, topic, 513, 0, TREE_PLAIN, &id) != NULL);
    topic[513] = '\0';
    CU_ASSERT_EQUAL(get(&f, topic)->ntargets, 1);
    CU_ASSERT_EQUAL(get(&f, topic)->ntargets, 1);
    expect_stats(&f, 0, 2, 0);
    topic[512] = '\0';
    CU_ASSERT_EQUAL(get(&f, topic)->ntargets, 0);
    CU_ASSERT_EQUAL(get(&f, topic)->ntargets, 0);
    expect_stats(&f, 1, 3, 0);
    end(&f);
}

/* The least recently used of a set goes. */
static void test_eviction(void)
{
    static const char *const topics[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    struct fixture f = begin(8);

    for (unsigned i = 0; i < 8; i++) {
        get(&f, topics[i]);
    }
    get(&f, "a");
    get(&f, "i"); /* in b's place */
    expect_stats(&f, 1, 9, 0);
    get(&f, "a");
    for (unsigned i = 2; i < 8; i++) {
        get(&f, topics[i]);
    }
    get(&f, "i");
    expect_stats(&f, 9, 9, 0);
    get(&f, "b");
    expect_stats(&f, 9, 10, 0);
    end(&f);
}

/* Of the last of so many rounds of all topics; a slot for each `each` filters, of which there are
 * `filters`. */
static uint64_t hits_of_last_round(size_t max_slots, size_t each, unsigned filters, unsigned topics,
                                   unsigned rounds)
{
    struct fixture f = {.tree = tree_create()};
    struct match_cache_stats st;
    uint64_t before = 0;
    char topic[32];
    uint64_t id;

    f.cache = match_cache_create(f.tree, max_slots, each, 17);
    UNIT_NEED(f.tree != NULL && f.cache != NULL);
    rcu_register();
    for (unsigned i = 0; i < filters; i++) {
        int n = snprintf(topic, sizeof(topic), "filter/%u", i);

        UNIT_NEED(tree_set(f.tree, topic, (size_t)n, 0, TREE_PLAIN, &id) != NULL);
    }
    for (unsigned r = 0; r < rounds; r++) {
        match_cache_stats(f.cache, &st);
        before = st.hits;
        for (unsigned i = 0; i < topics; i++) {
            (void)snprintf(topic, sizeof(topic), "device/%u", i);
            get(&f, topic);
        }
        rcu_quiescent();
    }
    match_cache_stats(f.cache, &st);
    end(&f);
    return st.hits - before;
}

/* Topics that come round find the cache large enough after a while, also where they are many more
 * than it held at first; not beyond its limit. */
static void test_grows(void)
{
    CU_ASSERT(hits_of_last_round(1u << 16, 0, 0, 100, 20) > 98);
    CU_ASSERT(hits_of_last_round(1u << 16, 0, 0, 5000, 10) > 4800);
    CU_ASSERT(hits_of_last_round(1u << 16, 0, 0, 30000, 6) > 28000);
    CU_ASSERT(hits_of_last_round(1u << 8, 0, 0, 5000, 40) < 500);
}

/* The limit is that of the filters where they are many. */
static void test_limit_by_filters(void)
{
    CU_ASSERT(hits_of_last_round(1u << 8, 2, 16384, 3000, 20) > 2800);
    CU_ASSERT(hits_of_last_round(1u << 8, 64, 16384, 3000, 20) < 300);
}

/* What is looked up ahead is what a get finds then; looking changes nothing. */
static void test_ahead(void)
{
    struct fixture f = begin(64);
    uint64_t hash = match_cache_fetch(f.cache, "a/b", 3);
    struct match *m;

    CU_ASSERT_PTR_NULL(match_cache_peek(f.cache, hash));
    m = get(&f, "a/b");
    CU_ASSERT_PTR_EQUAL(match_cache_peek(f.cache, hash), m);
    CU_ASSERT_EQUAL(match_cache_fetch(f.cache, "a/b", 3), hash);
    CU_ASSERT_PTR_NULL(match_cache_peek(f.cache, match_cache_fetch(f.cache, "a/c", 3)));
    expect_stats(&f, 0, 1, 0);
    CU_ASSERT_FALSE(match_cache_is_wide(f.cache));
    end(&f);
}

/* Never stale: after every change each cached answer equals a fresh one. */
static void test_random_changes(void)
{
    struct fixture f = begin(64);
    struct tree_node *nodes[64] = {0};
    char texts[64][WORDS_MAX];
    char topic[WORDS_MAX];
    uint64_t rng = 23;
    uint64_t id;

    for (unsigned i = 0; i < 64; i++) {
        words_text(&rng, true, texts[i]);
    }
    for (int round = 0; round < 3000; round++) {
        unsigned i = words_below(&rng, 64);

        if (nodes[i] != NULL) {
            CU_ASSERT_TRUE(tree_change(f.tree, nodes[i], i, 0));
            nodes[i] = NULL;
        } else {
            nodes[i] = tree_set(f.tree, texts[i], strlen(texts[i]), i, TREE_PLAIN, &id);
        }
        for (int k = 0; k < 20; k++) {
            size_t n = words_text(&rng, false, topic);
            struct match *fresh = tree_match(f.tree, topic, n);
            struct match *cached = match_cache_get(f.cache, topic, n);

            UNIT_NEED(fresh != NULL && cached != NULL);
            CU_ASSERT_TRUE(same_match(cached, fresh));
            match_unref(fresh);
        }
        rcu_quiescent();
    }
    end(&f);
}

/* The mark of a topic holds until another one comes, its match changes or it is thrown out. */
static void test_again(void)
{
    struct fixture f = begin(4); /* one set */
    char long_topic[600];
    struct match *m;
    uint64_t mark;
    uint64_t id;

    CU_ASSERT_PTR_NULL(match_cache_again(f.cache, 0));
    CU_ASSERT_PTR_NULL(match_cache_again(f.cache, match_cache_mark(f.cache))); /* nothing yet */
    (void)get(&f, "a/b");
    m = get(&f, "a/b"); /* found, not only made */
    mark = match_cache_mark(f.cache);
    CU_ASSERT(mark != 0);
    CU_ASSERT_PTR_EQUAL(match_cache_again(f.cache, mark), m);
    CU_ASSERT_PTR_EQUAL(get(&f, "a/b"), m);
    CU_ASSERT_EQUAL(match_cache_mark(f.cache), mark);
    expect_stats(&f, 3, 1, 0);
    UNIT_NEED(tree_set(f.tree, "a/+", 3, 0, TREE_PLAIN, &id) != NULL);
    CU_ASSERT_PTR_NULL(match_cache_again(f.cache, mark));
    CU_ASSERT_EQUAL(get(&f, "a/b")->ntargets, 1);
    mark = match_cache_mark(f.cache);
    CU_ASSERT_PTR_EQUAL(match_cache_again(f.cache, mark), get(&f, "a/b"));
    (void)get(&f, "c");
    CU_ASSERT_PTR_NULL(match_cache_again(f.cache, mark));
    (void)get(&f, "a/b");
    CU_ASSERT_PTR_NULL(match_cache_again(f.cache, mark)); /* another one came between */
    mark = match_cache_mark(f.cache);
    memset(long_topic, 'l', sizeof(long_topic));
    UNIT_NEED(match_cache_get(f.cache, long_topic, sizeof(long_topic)) != NULL); /* not kept */
    CU_ASSERT_PTR_NULL(match_cache_again(f.cache, mark));
    CU_ASSERT_PTR_NULL(match_cache_again(f.cache, match_cache_mark(f.cache)));
    (void)get(&f, "a/b");
    mark = match_cache_mark(f.cache);
    for (int i = 0; i < 16; i++) { /* thrown out: its memory may be another topic's */
        char topic[2] = {(char)('d' + i), 0};
        (void)get(&f, topic);
        CU_ASSERT_PTR_NULL(match_cache_again(f.cache, mark));
    }
    end(&f);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(hit_and_stale)
    UNIT_TEST(text_is_compared)
    UNIT_TEST(long_topics)
    UNIT_TEST(eviction)
    UNIT_TEST(grows)
    UNIT_TEST(limit_by_filters)
    UNIT_TEST(ahead)
    UNIT_TEST(again)
    UNIT_TEST(random_changes)
UNIT_TESTS_END
