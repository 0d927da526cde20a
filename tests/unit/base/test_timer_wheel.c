/* SPDX-License-Identifier: Apache-2.0 */
#include "server/base/timer_wheel.h"
#include "tests/support/unit.h"

#include <stdlib.h>
#include <string.h>

#define MANY 20000

struct probe {
    struct timer timer;
    int64_t fired_ms; /* 0: not yet */
};

static int64_t now_ms;

static void fire(void *owner, struct timer *t)
{
    (*(size_t *)owner)++;
    ((struct probe *)t)->fired_ms = now_ms;
}

static void test_never_early_and_hardly_late(void)
{
    static const int64_t spans[] = {10, 500, 33000, 5000000, 400000000};
    struct probe *p = calloc(MANY, sizeof(*p));
    struct timer_wheel w;
    size_t fired = 0;
    size_t wrong = 0;

    UNIT_NEED(p != NULL);
    srand(7);
    now_ms = 1234567;
    timer_wheel_init(&w, now_ms);
    for (size_t i = 0; i < MANY; i++) {
        p[i].timer.fn = fire;
        timer_set(&w, &p[i].timer, now_ms + rand() % spans[i % 5]);
    }
    while (fired < MANY) {
        int wait = timer_wheel_wait_ms(&w, now_ms);
        CU_ASSERT_NOT_EQUAL_FATAL(wait, -1);
        now_ms += wait > 0 ? wait : 1;
        while (timer_wheel_advance(&w, now_ms, &fired, 100)) {
        }
    }
    for (size_t i = 0; i < MANY; i++) {
        int64_t late = p[i].fired_ms - p[i].timer.deadline_ms;
        wrong += late < 0 || late > TIMER_TICK_MS;
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(timer_wheel_wait_ms(&w, now_ms), -1);
    free(p);
}

static void test_cancel_and_move(void)
{
    struct probe a = {.timer.fn = fire};
    struct probe b = {.timer.fn = fire};
    struct timer_wheel w;
    size_t fired = 0;

    now_ms = 0;
    timer_wheel_init(&w, now_ms);
    timer_set(&w, &a.timer, 100);
    timer_set(&w, &b.timer, 100);
    timer_cancel(&w, &a.timer);
    timer_cancel(&w, &a.timer); /* twice is fine */
    timer_set(&w, &b.timer, 50000);
    CU_ASSERT_FALSE(timer_is_set(&a.timer));
    now_ms = 49999;
    timer_wheel_advance(&w, now_ms, &fired, 10);
    CU_ASSERT_EQUAL(fired, 0);
    now_ms = 50008;
    timer_wheel_advance(&w, now_ms, &fired, 10);
    CU_ASSERT_EQUAL(fired, 1);
    CU_ASSERT_EQUAL(b.fired_ms, 50008);
}

static void test_beyond_the_range(void)
{
    /* 64^5 ticks of 8 ms are 99 days: half a year has to be put in again on the way. */
    int64_t half_year = (int64_t)180 * 86400 * 1000;
    struct probe a = {.timer.fn = fire};
    struct timer_wheel w;
    size_t fired = 0;

    now_ms = 1000;
    timer_wheel_init(&w, now_ms);
    timer_set(&w, &a.timer, now_ms + half_year);
    while (fired == 0) {
        int wait = timer_wheel_wait_ms(&w, now_ms);
        CU_ASSERT_FATAL(wait >= 0);
        now_ms += wait > 0 ? wait : 1;
        timer_wheel_advance(&w, now_ms, &fired, 10);
    }
    CU_ASSERT(a.fired_ms >= 1000 + half_year);
    CU_ASSERT(a.fired_ms <= 1000 + half_year + TIMER_TICK_MS);
}

static void rearm(void *owner, struct timer *t)
{
    fire(owner, t);
    timer_set(*(struct timer_wheel **)((char *)owner + sizeof(size_t)), t, now_ms + 20);
}

static void test_rearm_in_callback(void)
{
    struct timer_wheel w;
    struct {
        size_t fired;
        struct timer_wheel *w;
    } owner = {0, &w};
    struct probe a = {.timer.fn = rearm};

    now_ms = 5;
    timer_wheel_init(&w, now_ms);
    timer_set(&w, &a.timer, 10);
    for (; now_ms < 1000; now_ms++) {
        timer_wheel_advance(&w, now_ms, &owner, 10);
    }
    CU_ASSERT(owner.fired >= 1000 / (20 + TIMER_TICK_MS) && owner.fired <= 50);
}

UNIT_TESTS = {
    UNIT_TEST(never_early_and_hardly_late)
    UNIT_TEST(cancel_and_move)
    UNIT_TEST(beyond_the_range)
    UNIT_TEST(rearm_in_callback)
UNIT_TESTS_END
