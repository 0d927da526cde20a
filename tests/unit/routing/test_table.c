/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/table.h"

#include "tests/support/unit.h"
#include "tests/unit/routing/words.h"

#include <stdlib.h>

#define KEYS 5000u

struct entry {
    uint64_t key;
    char pad[8]; /* malloc aligns 16 bytes to 16 */
};

static bool entry_eq(const void *p, const void *key)
{
    return ((const struct entry *)p)->key == *(const uint64_t *)key;
}

static struct entry *look(const struct table *t, uint64_t hash, uint64_t key)
{
    return table_find(t, hash, entry_eq, &key);
}

static void add(struct table *t, uint64_t hash, uint64_t key)
{
    struct entry *e = malloc(sizeof(*e));

    UNIT_NEED(e != NULL);
    e->key = key;
    CU_ASSERT(table_put(t, hash, e));
}

static void take(struct table *t, uint64_t hash, uint64_t key)
{
    struct entry *e = look(t, hash, key);

    table_remove(t, hash, e);
    free(e);
}

static void count_each(void *arg, void *p)
{
    (void)p;
    ++*(size_t *)arg;
}

static void free_each(void *arg, void *p)
{
    (void)arg;
    free(p);
}

/* Random keys come and go; after each step the table agrees with an array of flags. */
static void run_model(uint64_t (*hash)(uint64_t key), unsigned bits, uint32_t nkeys, int steps)
{
    static bool there[KEYS];
    struct table t;
    uint64_t rng = 7;
    size_t live = 0;
    size_t seen = 0;

    memset(there, 0, sizeof(there));
    UNIT_NEED(table_init(&t, bits));
    for (int i = 0; i < steps; i++) {
        uint64_t k = words_below(&rng, nkeys);

        CU_ASSERT_EQUAL(look(&t, hash(k), k) != NULL, there[k]);
        if (there[k]) {
            take(&t, hash(k), k);
        } else {
            add(&t, hash(k), k);
        }
        there[k] = !there[k];
        live += there[k] ? 1 : (size_t)-1;
        CU_ASSERT_EQUAL(look(&t, hash(k), k) != NULL, there[k]);
    }
    for (uint64_t k = 0; k < nkeys; k++) {
        CU_ASSERT_EQUAL(look(&t, hash(k), k) != NULL, there[k]);
    }
    table_each(&t, count_each, &seen);
    CU_ASSERT_EQUAL(seen, live);
    table_each(&t, free_each, NULL);
    table_fini(&t);
    rcu_drain();
}

static void test_model(void)
{
    run_model(table_mix, 4, KEYS, 100000);
}

static uint64_t poor_hash(uint64_t key)
{
    return key % 3; /* one segment, three places, every tag shared by thousands */
}

static void test_collisions(void)
{
    run_model(poor_hash, 4, 300, 20000);
}

/* What goes away gives its memory back. */
static void test_shrinks(void)
{
    struct table t;
    size_t full;

    UNIT_NEED(table_init(&t, 4));
    for (uint64_t k = 0; k < 100000; k++) {
        add(&t, table_mix(k), k);
    }
    full = t.bytes;
    CU_ASSERT(full < 100000 * 22); /* at least three eighths used */
    for (uint64_t k = 0; k < 100000; k++) {
        take(&t, table_mix(k), k);
    }
    CU_ASSERT(t.bytes < full / 100);
    table_fini(&t);
    rcu_drain();
}

/* 20 bits of hash are kept: more slots than that in a segment are refused, and what is there stays.
 */
static void test_segment_limit(void)
{
    static struct entry e;
    struct entry *aligned = aligned_alloc(16, sizeof(e));
    struct table t;
    uint64_t n = 0;

    UNIT_NEED(aligned != NULL && table_init(&t, 1));
    aligned->key = 5;
    while (table_put(&t, table_mix(n) >> 1, aligned)) {
        n++;
    }
    CU_ASSERT(n > 500000 && n < 1u << 20);
    CU_ASSERT_PTR_EQUAL(look(&t, table_mix(3) >> 1, 5), aligned);
    table_fini(&t);
    free(aligned);
    rcu_drain();
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(model)
    UNIT_TEST(collisions)
    UNIT_TEST(shrinks)
    UNIT_TEST(segment_limit)
UNIT_TESTS_END
