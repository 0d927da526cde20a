/* SPDX-License-Identifier: Apache-2.0 */
/* Exactly once, in any order within a window; and what counts as fair. */
#include "bench/load/seqset.h"
#include "tests/support/unit.h"

static void test_any_order(void)
{
    struct seqset s;

    seqset_init(&s, 100);
    CU_ASSERT_EQUAL(s.size, 128);
    /* Backwards within each window, over the ring's end many times. */
    for (uint64_t from = 0; from < 100000; from += 100) {
        for (uint64_t i = 100; i-- > 0;) {
            CU_ASSERT_EQUAL(s.base, from);
            CU_ASSERT_EQUAL(seqset_add(&s, from + i), SEQSET_NEW);
        }
        CU_ASSERT_EQUAL(s.base, from + 100);
    }
    seqset_fini(&s);
}

static void test_doubled(void)
{
    struct seqset s;

    seqset_init(&s, 64);
    CU_ASSERT_EQUAL(seqset_add(&s, 0), SEQSET_NEW);
    CU_ASSERT_EQUAL(seqset_add(&s, 0), SEQSET_DOUBLED); /* below the base */
    CU_ASSERT_EQUAL(seqset_add(&s, 5), SEQSET_NEW);
    CU_ASSERT_EQUAL(seqset_add(&s, 5), SEQSET_DOUBLED); /* above it */
    CU_ASSERT_EQUAL(s.base, 1);
    seqset_fini(&s);
}

static void test_missing_holds_the_base(void)
{
    struct seqset s;

    seqset_init(&s, 64);
    for (uint64_t i = 0; i < 64; i++) {
        if (i != 3) {
            CU_ASSERT_EQUAL(seqset_add(&s, i), SEQSET_NEW);
        }
    }
    CU_ASSERT_EQUAL(s.base, 3);
    CU_ASSERT_EQUAL(seqset_add(&s, 3), SEQSET_NEW);
    CU_ASSERT_EQUAL(s.base, 64);
    seqset_fini(&s);
}

static void test_ahead(void)
{
    struct seqset s;

    seqset_init(&s, 1);
    CU_ASSERT_EQUAL(seqset_add(&s, 64), SEQSET_AHEAD);
    CU_ASSERT_EQUAL(seqset_add(&s, 63), SEQSET_NEW);
    CU_ASSERT_EQUAL(seqset_add(&s, UINT64_MAX), SEQSET_AHEAD);
    seqset_fini(&s);
}

static struct spread spread_of(uint64_t a, uint64_t b, uint64_t c)
{
    struct spread s = {.n = 0};

    spread_add(&s, a);
    spread_add(&s, b);
    spread_add(&s, c);
    return s;
}

static void test_fairness(void)
{
    struct spread fair = spread_of(1000, 900, 950);
    struct spread unfair = spread_of(1000, 950, 899);
    struct spread starved = spread_of(300, 0, 300);
    struct spread few = spread_of(99, 99, 100);
    struct spread nothing = spread_of(0, 0, 0);

    CU_ASSERT(spread_is_judged(&fair) && spread_is_fair(&fair));
    CU_ASSERT(spread_is_judged(&unfair) && !spread_is_fair(&unfair));
    CU_ASSERT(spread_is_judged(&starved) && !spread_is_fair(&starved));
    CU_ASSERT(!spread_is_judged(&few) && !spread_is_judged(&nothing));
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(any_order)
    UNIT_TEST(doubled)
    UNIT_TEST(missing_holds_the_base)
    UNIT_TEST(ahead)
    UNIT_TEST(fairness)
UNIT_TESTS_END
