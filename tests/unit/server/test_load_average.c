/* SPDX-License-Identifier: Apache-2.0 */
#include "server/load_average.h"
#include "tests/support/unit.h"

#include <math.h>

static void run(struct load_average *l, uint64_t *count, uint64_t per_look, double dt_s,
                double for_s)
{
    for (double t = 0; t < for_s; t += dt_s) {
        *count += per_look;
        load_average_update(l, *count, dt_s);
    }
}

/* A rate that stays is what all windows show in the end, whatever the interval. */
static void test_steady_rate(void)
{
    static const double intervals[] = {0.5, 10, 60, 600};

    for (unsigned i = 0; i < 4; i++) {
        struct load_average l = {0};
        uint64_t count = 0;
        run(&l, &count, (uint64_t)(intervals[i] * 20), intervals[i], 20000); /* 20/s: 1200/min */
        for (unsigned w = 0; w < LOAD_WINDOWS; w++) {
            CU_ASSERT_DOUBLE_EQUAL(l.per_minute[w], 1200, 0.01);
        }
    }
}

/* After one window of a steady rate an average that began at zero has 1 - 1/e of it. */
static void test_windows(void)
{
    static const double seconds[LOAD_WINDOWS] = {60, 300, 900};

    for (unsigned w = 0; w < LOAD_WINDOWS; w++) {
        struct load_average l = {0};
        uint64_t count = 0;
        run(&l, &count, 100, 10, seconds[w]); /* 600/min */
        CU_ASSERT_DOUBLE_EQUAL(l.per_minute[w], 600 * (1 - exp(-1)), 0.01);
    }
}

static void test_decay(void)
{
    struct load_average l = {.last = 5, .per_minute = {100, 100, 100}};

    load_average_update(&l, 5, 60);
    CU_ASSERT_DOUBLE_EQUAL(l.per_minute[0], 100 * exp(-1), 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(l.per_minute[1], 100 * exp(-0.2), 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(l.per_minute[2], 100 * exp(-60.0 / 900.0), 1e-9);
}

/* Two short looks are worth as much as one long one over the same time without a change. */
static void test_interval_does_not_matter(void)
{
    struct load_average a = {.per_minute = {7, 8, 9}};
    struct load_average b = a;

    load_average_update(&a, 0, 5);
    load_average_update(&a, 0, 5);
    load_average_update(&b, 0, 10);
    for (unsigned w = 0; w < LOAD_WINDOWS; w++) {
        CU_ASSERT_DOUBLE_EQUAL(a.per_minute[w], b.per_minute[w], 1e-9);
    }
}

static void test_wrap(void)
{
    struct load_average l = {.last = UINT64_MAX - 4};

    load_average_update(&l, 5, 60); /* ten */
    CU_ASSERT_DOUBLE_EQUAL(l.per_minute[0], 10 * (1 - exp(-1)), 1e-9);
}

/* A clock that stands, or goes back, changes nothing: what was counted belongs to the next look. */
static void test_no_time(void)
{
    struct load_average l = {.last = 10, .per_minute = {3, 3, 3}};

    load_average_update(&l, 20, 0);
    load_average_update(&l, 20, -1);
    CU_ASSERT_EQUAL(l.last, 10);
    CU_ASSERT_DOUBLE_EQUAL(l.per_minute[0], 3, 0);
    load_average_update(&l, 20, 60);
    CU_ASSERT_DOUBLE_EQUAL(l.per_minute[0], 10 + exp(-1) * (3 - 10), 1e-9);
}

static void test_names(void)
{
    CU_ASSERT_STRING_EQUAL(load_average_window(0), "1min");
    CU_ASSERT_STRING_EQUAL(load_average_window(1), "5min");
    CU_ASSERT_STRING_EQUAL(load_average_window(2), "15min");
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(steady_rate)
    UNIT_TEST(windows)
    UNIT_TEST(decay)
    UNIT_TEST(interval_does_not_matter)
    UNIT_TEST(wrap)
    UNIT_TEST(no_time)
    UNIT_TEST(names)
UNIT_TESTS_END
