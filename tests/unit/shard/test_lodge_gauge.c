/* SPDX-License-Identifier: Apache-2.0 */
/* When shards share a thread: loads and the decision, without any thread. */
#include "server/shard/lodge.h"
#include "tests/support/unit.h"

#define MS 1000000 /* in ns */

static void test_load(void)
{
    struct lodge_gauge g = {0};
    bool pressed;

    lodge_gauge_begin(&g, 1000, 50 * MS);
    g.waits = g.sleeps = 100;
    CU_ASSERT_EQUAL(lodge_gauge_end(&g, 1020, 55 * MS, &pressed), 250);
    CU_ASSERT_FALSE(pressed);
    CU_ASSERT_EQUAL(g.waits, 0);
    CU_ASSERT_EQUAL(lodge_gauge_end(&g, 1036, 71 * MS, &pressed), 1000); /* since the last one */
    CU_ASSERT_EQUAL(lodge_gauge_end(&g, 3601036, 72 * MS, &pressed), 0); /* an hour of nothing */
    CU_ASSERT_EQUAL(lodge_gauge_end(&g, 3601036, 73 * MS, &pressed), 0); /* no time passed */
}

static bool is_pressed(uint32_t sleeps, int64_t cpu_ms)
{
    struct lodge_gauge g = {0};
    bool pressed = false;

    for (int64_t i = 1; i <= 6; i++) {
        CU_ASSERT_FALSE(pressed); /* it has to last */
        g.waits = g.sleeps = sleeps;
        (void)lodge_gauge_end(&g, 100 * i, cpu_ms * i * MS, &pressed);
    }
    return pressed;
}

/* In 100 ms. */
static void test_pressed(void)
{
    CU_ASSERT_TRUE(is_pressed(0, 40)); /* somebody else has the processor, work has no end */
    CU_ASSERT_TRUE(is_pressed(300, 40));
    CU_ASSERT_FALSE(is_pressed(600, 40));  /* 67 us: a second thread gains less than its wake-ups cost */
    CU_ASSERT_FALSE(is_pressed(4000, 40)); /* 10 us for each wake-up */
    CU_ASSERT_FALSE(is_pressed(2, 10));    /* next to nothing to do, in few long turns */
}

/* Periods until it asks, at most n; 0: never. */
static unsigned asks_after(struct lodge_gauge *g, uint32_t load, uint32_t host_load, unsigned n)
{
    for (unsigned i = 1; i <= n; i++) {
        if (lodge_fits(g, load, host_load)) {
            return i;
        }
    }
    return 0;
}

static void test_fits(void)
{
    struct lodge_gauge g = {0};

    CU_ASSERT_EQUAL(asks_after(&g, 0, 0, 1000), 3);
    CU_ASSERT_EQUAL(asks_after(&g, 200, 200, 1000), 3);
    CU_ASSERT_EQUAL(asks_after(&g, 400, 300, 1000), 0);
    CU_ASSERT_EQUAL(asks_after(&g, 0, 900, 1000), 0);
    CU_ASSERT_EQUAL(asks_after(&g, 900, 0, 1000), 0);
}

/* One period of work in between, and it counts from the beginning. */
static void test_has_to_last(void)
{
    struct lodge_gauge g = {0};

    CU_ASSERT_EQUAL(asks_after(&g, 100, 100, 2), 0);
    CU_ASSERT_EQUAL(asks_after(&g, 500, 500, 1), 0);
    CU_ASSERT_EQUAL(asks_after(&g, 100, 100, 2), 0);
    CU_ASSERT_EQUAL(asks_after(&g, 100, 100, 1), 1);
}

static void test_sent_home(void)
{
    struct lodge_gauge g = {0};
    unsigned periods;

    lodge_gauge_sent_home(&g, true);
    periods = asks_after(&g, 0, 0, 1000);
    CU_ASSERT(periods * LODGE_PERIOD_MS >= 500 && periods * LODGE_PERIOD_MS <= 1000);
    lodge_gauge_sent_home(&g, false);
    CU_ASSERT(asks_after(&g, 0, 0, 1000) < periods);
    CU_ASSERT_EQUAL(asks_after(&g, 0, 0, 1000), 3);
}

/* A guest that has its host's thread to itself, or a host whose guest has nothing to do. */
static void test_lonely(void)
{
    struct lodge_gauge g = {0};

    CU_ASSERT_FALSE(lodge_is_lonely(&g, 1));
    CU_ASSERT_FALSE(lodge_is_lonely(&g, 1));
    CU_ASSERT_FALSE(lodge_is_lonely(&g, 2)); /* it has to last */
    CU_ASSERT_FALSE(lodge_is_lonely(&g, 1));
    CU_ASSERT_FALSE(lodge_is_lonely(&g, 0));
    CU_ASSERT_TRUE(lodge_is_lonely(&g, 1));
    CU_ASSERT_TRUE(lodge_is_active(10, 100));
    CU_ASSERT_FALSE(lodge_is_active(1, 100));
    CU_ASSERT_FALSE(lodge_is_active(0, 0));
}

/* What just fits does not fill, even if it cost a little more together than apart. */
static void test_no_back_and_forth(void)
{
    struct lodge_gauge g = {0};
    uint32_t most = 0;

    for (uint32_t load = 0; load <= 1000; load++) {
        if (asks_after(&g, load, 0, 3) != 0) {
            most = load;
        }
    }
    CU_ASSERT(most > 300);
    CU_ASSERT_FALSE(lodge_is_full(most * 6 / 5, false));
    CU_ASSERT_TRUE(lodge_is_full(900, false));
    CU_ASSERT_TRUE(lodge_is_full(most, true));
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(load)
    UNIT_TEST(pressed)
    UNIT_TEST(fits)
    UNIT_TEST(has_to_last)
    UNIT_TEST(sent_home)
    UNIT_TEST(lonely)
    UNIT_TEST(no_back_and_forth)
UNIT_TESTS_END
