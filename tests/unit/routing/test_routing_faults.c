/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fails the n-th allocation for n = 1, 2, ... until a run comes through: each failure is reported,
 * nothing has changed after it, and (AddressSanitizer) nothing leaks.
 */
#include "routing/match_cache.h"
#include "routing/rcu.h"
#include "routing/retained.h"
#include "routing/subscribers.h"
#include "tests/support/fault.h"
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONG_FILTER "a/b/+/c/d/e/f/g/#"

static struct tree *tree_begin(void)
{
    struct tree *t = tree_create();

    UNIT_NEED(t != NULL);
    rcu_register();
    return t;
}

static void tree_end(struct tree *t)
{
    rcu_unregister();
    tree_destroy(t);
}

static void expect_tree(const struct tree *t, uint64_t filters, uint64_t nodes)
{
    struct tree_stats st;

    tree_stats(t, &st);
    CU_ASSERT_EQUAL(st.filters, filters);
    CU_ASSERT_EQUAL(st.nodes, nodes);
}

/* Nodes freed so far are gone. */
static void settle(void)
{
    rcu_offline();
    rcu_drain();
    rcu_drain();
    rcu_online();
}

static void test_tree_create(void)
{
    for (unsigned n = 1;; n++) {
        struct tree *t;

        fault_set(n);
        t = tree_create();
        if (!fault_clear()) {
            CU_ASSERT(t != NULL && n > 2);
            tree_destroy(t);
            return;
        }
        CU_ASSERT_PTR_NULL(t);
    }
}

static void test_tree_set(void)
{
    struct tree *t = tree_begin();
    uint64_t was = tree_generation(t, "a/b", 3);
    uint64_t id;
    struct tree_node *node;
    unsigned n = 0;

    do {
        fault_set(++n);
        node = tree_set(t, LONG_FILTER, strlen(LONG_FILTER), 0, TREE_PLAIN, &id);
        if (fault_clear()) {
            CU_ASSERT_PTR_NULL(node);
            CU_ASSERT_EQUAL(tree_generation(t, "a/b", 3), was);
            CU_ASSERT_PTR_NULL(tree_find(t, LONG_FILTER, strlen(LONG_FILTER), &id));
            settle();
            expect_tree(t, 0, 0);
        }
    } while (node == NULL);
    CU_ASSERT(n > 9); /* nine nodes and some arrays */
    expect_tree(t, 1, 9);
    tree_end(t);
}

/* The step from the word to the array, and from array to larger array. */
static void test_tree_many_shards(void)
{
    struct tree *t = tree_begin();
    unsigned failed = 0;
    struct tree_node *node = NULL;

    for (unsigned s = 0; s < 20; s++) {
        uint64_t id;

        fault_set(1);
        node = tree_set(t, "x", 1, s, TREE_PLAIN, &id);
        if (fault_clear()) {
            struct match *m = tree_match(t, "x", 1);

            failed++;
            CU_ASSERT_PTR_NULL(node);
            UNIT_NEED(m != NULL);
            CU_ASSERT_EQUAL(m->ntargets, s);
            match_unref(m);
            node = tree_set(t, "x", 1, s, TREE_PLAIN, &id);
        }
        UNIT_NEED(node != NULL);
    }
    CU_ASSERT_EQUAL(failed, 4); /* the node, and at 5, 9, 17 */
    fault_set_from(1);          /* what goes needs nothing */
    for (unsigned s = 0; s < 20; s++) {
        CU_ASSERT_TRUE(tree_change(t, node, s, TREE_DURABLE));
    }
    for (unsigned s = 0; s < 20; s++) {
        CU_ASSERT_TRUE(tree_change(t, node, s, 0));
    }
    (void)fault_clear();
    settle();
    expect_tree(t, 0, 0);
    tree_end(t);
}

/* Needs memory for many levels, for many hits (twice) and for the match. */
static void test_match(void)
{
    struct tree *t = tree_begin();
    char topic[] =
        "x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/"
        "x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x";
    uint64_t id;
    unsigned n = 0;
    struct match *m;

    for (unsigned s = 0; s < 200; s++) {
        UNIT_NEED(tree_set(t, "x/#", 3, s, TREE_PLAIN, &id) != NULL);
    }
    do {
        fault_set(++n);
        m = tree_match(t, topic, strlen(topic));
        CU_ASSERT_EQUAL(fault_clear(), m == NULL);
    } while (m == NULL);
    CU_ASSERT_EQUAL(n, 5);
    CU_ASSERT_EQUAL(m->ntargets, 200);
    match_unref(m);
    tree_end(t);
}

static void test_match_cache(void)
{
    struct tree *t = tree_begin();
    struct match_cache *c = NULL;
    struct match *m;
    unsigned n;

    for (n = 1; c == NULL; n++) {
        fault_set(n);
        c = match_cache_create(t, 1024, 0, 1);
        CU_ASSERT(fault_clear() || c != NULL);
    }
    CU_ASSERT(n >= 3);
    fault_set(1);
    CU_ASSERT_PTR_NULL(match_cache_get(c, "a", 1)); /* the match is all it needs memory for */
    CU_ASSERT_TRUE(fault_clear());
    m = match_cache_get(c, "a", 1);
    CU_ASSERT_PTR_EQUAL(match_cache_get(c, "a", 1), m);
    match_cache_destroy(c);
    tree_end(t);
}

/* Growing fails for good: the cache stays small and works. */
static void test_match_cache_growth(void)
{
    struct tree *t = tree_begin();
    struct match_cache *c = match_cache_create(t, 1u << 16, 0, 1);
    char topic[16];

    UNIT_NEED(c != NULL);
    for (unsigned round = 0; round < 20000; round++) {
        size_t n = (size_t)snprintf(topic, sizeof(topic), "t/%u", round % 1000);

        fault_set(2); /* after the match comes the table */
        CU_ASSERT_PTR_NOT_NULL(match_cache_get(c, topic, n));
        (void)fault_clear();
    }
    match_cache_destroy(c);
    tree_end(t);
}

/*
 * 47 subscriptions of 16 owners, each put failing in every way it can before it succeeds; to three
 * filters, so that each gets more subscribers than are found by looking through them.
 */
static void test_subscribers(void)
{
    struct tree *t = tree_begin();
    struct subscribers *s = NULL;
    struct sub_owner lists[16] = {0};
    unsigned failures = 0;

    for (unsigned n = 1; s == NULL; n++) {
        fault_set(n);
        s = subscribers_create(t, 1, 1);
        CU_ASSERT(fault_clear() || s != NULL);
    }
    for (unsigned i = 0; i < 47; i++) {
        unsigned o = i % 16;
        struct sub_options opts = {.durable = i % 3 == 0};
        char filter[32];
        size_t len = (size_t)snprintf(filter, sizeof(filter), "f/%u/+", i % 3);
        enum subs_rc rc = SUBS_NOMEM;
        struct sub *sub;

        for (unsigned n = 1; rc == SUBS_NOMEM; n++) {
            struct sub *had = subscribers_find(s, o + 1, filter, len);
            uint64_t id = 0;
            bool known = tree_find(t, filter, len, &id) != NULL;

            fault_set(n);
            rc = subscribers_put(s, &lists[o], o + 1, filter, len, &opts, &sub);
            (void)fault_clear();
            if (rc != SUBS_NOMEM) {
                CU_ASSERT_EQUAL(rc, had == NULL ? SUBS_NEW : SUBS_REPLACED);
                break;
            }
            failures++;
            CU_ASSERT_PTR_NULL(had);
            CU_ASSERT_PTR_NULL(subscribers_find(s, o + 1, filter, len));
            CU_ASSERT_EQUAL(subscribers_count(s), i);
            CU_ASSERT_EQUAL(lists[o].count, i / 16);
            CU_ASSERT_EQUAL(tree_find(t, filter, len, &id) != NULL, known);
        }
    }
    CU_ASSERT(failures > 60);
    fault_set_from(1); /* leaving needs nothing */
    for (unsigned o = 0; o < 16; o++) {
        while (lists[o].first != NULL) {
            subscribers_remove(s, &lists[o], lists[o].first);
        }
    }
    (void)fault_clear();
    CU_ASSERT_EQUAL(subscribers_count(s), 0);
    settle();
    expect_tree(t, 0, 0);
    subscribers_destroy(s);
    tree_end(t);
}

static size_t count_retained(struct retained *r)
{
    struct retained_cursor *c = retained_cursor_create("#", 1, UINT64_MAX);
    struct message *out[8];
    bool done = false;
    size_t n = 0;

    UNIT_NEED(c != NULL);
    while (!done) {
        size_t got = retained_next(r, c, 0, out, 8, &done);

        for (size_t i = 0; i < got; i++) {
            message_unref(out[i]);
        }
        n += got;
    }
    retained_cursor_destroy(c);
    return n;
}

static enum retained_rc put(struct retained *r, struct message *m)
{
    struct retained_stripe *s = retained_lock(r, message_topic(m), m->topic_n);
    enum retained_rc rc;

    m->number = retained_take_number(s);
    rc = retained_put(s, m);
    retained_unlock(s);
    return rc;
}

static void test_retained(void)
{
    struct retained *r = NULL;
    unsigned failures = 0;
    struct retained_stats st;

    for (unsigned n = 1; r == NULL; n++) {
        fault_set(n);
        r = retained_create(2, 0, 0, 1);
        CU_ASSERT(fault_clear() || r != NULL);
    }
    for (unsigned i = 0; i < 1000; i++) {
        char topic[32];
        size_t len = (size_t)snprintf(topic, sizeof(topic), "r/%u", i * 7919u % 1000u);
        struct message *m = message_create(topic, len, "x", 1, NULL, 0);
        enum retained_rc rc = RETAINED_NOMEM;

        UNIT_NEED(m != NULL);
        for (unsigned n = 1; rc == RETAINED_NOMEM; n++) {
            fault_set(n);
            rc = put(r, m);
            (void)fault_clear();
            if (rc == RETAINED_NOMEM) {
                failures++;
                retained_stats(r, &st);
                CU_ASSERT(st.count == i && count_retained(r) == i && m->refs == 1);
            }
        }
        CU_ASSERT_EQUAL(rc, RETAINED_SET);
        fault_set_from(1); /* replacing needs nothing */
        CU_ASSERT_EQUAL(put(r, m), RETAINED_CHANGED);
        (void)fault_clear();
        message_unref(m);
    }
    CU_ASSERT(failures > 20);
    CU_ASSERT_EQUAL(count_retained(r), 1000);
    fault_set(1);
    CU_ASSERT_PTR_NULL(retained_cursor_create("#", 1, 1));
    CU_ASSERT_TRUE(fault_clear());
    retained_destroy(r);
}

static void test_message(void)
{
    fault_set(1);
    CU_ASSERT_PTR_NULL(message_create("t", 1, "p", 1, NULL, 0));
    CU_ASSERT_TRUE(fault_clear());
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(tree_create)
    UNIT_TEST(tree_set)
    UNIT_TEST(tree_many_shards)
    UNIT_TEST(match)
    UNIT_TEST(match_cache)
    UNIT_TEST(match_cache_growth)
    UNIT_TEST(subscribers)
    UNIT_TEST(retained)
    UNIT_TEST(message)
UNIT_TESTS_END
