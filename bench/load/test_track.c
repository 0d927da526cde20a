/* SPDX-License-Identifier: Apache-2.0 */
/* The checker has to be able to fail: what each rule lets pass and what it does not. */
#include "bench/load/histogram.h"
#include "bench/load/track.h"
#include "tests/support/unit.h"

static const struct track_rule strict = {.gaps_allowed = false};
static const struct track_rule gaps = {.gaps_allowed = true};
static const struct track_rule dup = {.dup = true};
static const struct track_rule resumed = {.publisher_resumed = true};

/* Numbers 0 .. n-1 without a fault. */
static struct track after(uint64_t n)
{
    struct track t = {0, 0};

    for (uint64_t i = 0; i < n; i++) {
        CU_ASSERT_EQUAL(track_step(&t, i, strict), TRACK_NEW);
    }
    return t;
}

static void test_strict(void)
{
    struct track t = after(5);

    CU_ASSERT_EQUAL(track_step(&t, 4, strict), TRACK_DOUBLED);
    t = after(5);
    CU_ASSERT_EQUAL(track_step(&t, 6, strict), TRACK_LOST);
    t = after(5);
    CU_ASSERT_EQUAL(track_step(&t, 0, strict), TRACK_DOUBLED);
}

static void test_first_number_counts(void)
{
    struct track t = {0, 0};

    CU_ASSERT_EQUAL(track_step(&t, 1, strict), TRACK_LOST);
}

static void test_gaps(void)
{
    struct track t = after(5);

    CU_ASSERT_EQUAL(track_step(&t, 9, gaps), TRACK_NEW);
    CU_ASSERT_EQUAL(track_step(&t, 10, gaps), TRACK_NEW);
    CU_ASSERT_EQUAL(track_step(&t, 8, gaps), TRACK_DOUBLED);
}

static void test_dup_starts_anywhere(void)
{
    struct track t = after(8);

    CU_ASSERT_EQUAL(track_step(&t, 5, dup), TRACK_REPEATED);
    CU_ASSERT_EQUAL(track_step(&t, 7, dup), TRACK_REPEATED);
    CU_ASSERT_EQUAL(track_step(&t, 8, strict), TRACK_NEW);
    CU_ASSERT_EQUAL(track_step(&t, 10, dup), TRACK_LOST);
}

static void test_resumed_goes_on_in_order(void)
{
    struct track t = after(8);

    CU_ASSERT_EQUAL(track_step(&t, 5, resumed), TRACK_REPEATED);
    CU_ASSERT_EQUAL(track_step(&t, 6, resumed), TRACK_REPEATED);
    CU_ASSERT_EQUAL(track_step(&t, 7, resumed), TRACK_REPEATED);
    CU_ASSERT_EQUAL(track_step(&t, 8, resumed), TRACK_NEW);
    t = after(8);
    CU_ASSERT_EQUAL(track_step(&t, 5, resumed), TRACK_REPEATED);
    CU_ASSERT_EQUAL(track_step(&t, 7, resumed), TRACK_REORDERED);
    t = after(8);
    CU_ASSERT_EQUAL(track_step(&t, 5, resumed), TRACK_REPEATED);
    CU_ASSERT_EQUAL(track_step(&t, 8, resumed), TRACK_REORDERED);
}

static void test_histogram(void)
{
    static struct histogram h;

    for (uint64_t v = 1; v <= 100000; v++) {
        histogram_add(&h, v);
    }
    CU_ASSERT_EQUAL(h.n, 100000);
    for (unsigned percent = 10; percent < 100; percent += 10) {
        double got = (double)histogram_at(&h, percent / 100.0);

        CU_ASSERT(got >= percent * 1000.0 && got <= percent * 1000.0 * 1.04);
    }
    histogram_add(&h, UINT64_MAX); /* stays inside the table */
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(strict)
    UNIT_TEST(first_number_counts)
    UNIT_TEST(gaps)
    UNIT_TEST(dup_starts_anywhere)
    UNIT_TEST(resumed_goes_on_in_order)
    UNIT_TEST(histogram)
UNIT_TESTS_END
