/* SPDX-License-Identifier: Apache-2.0 */
/* pace.h against publishers and a disk in virtual time. */
#include "tests/support/unit.h"

#include "storage/pace.h"

#include <stdlib.h>
#include <string.h>

#define PACE_US  500
#define UNITS    100000u
#define ROOM     (UNITS * 2)
#define AFTER_US 60  /* from an answer to the first that is sent for it, */
#define EACH_NS  800 /* and to the next one */

/* A store that takes what has come, and those who send to it. */
struct world {
    struct pace pace;
    bool fixed; /* commits only keep their distance: what pace.h is compared with */
    int64_t now, commit_us;
    /* Units under way to the store: when each arrives, in order. */
    int64_t at[ROOM];
    size_t first, n;
    /* What came of it. */
    uint64_t commits, answered;
    int64_t waited; /* by all units together, from arrival to answer */
};

static size_t arrived(const struct world *w, int64_t now)
{
    size_t n = 0;

    while (w->first + n < w->n && w->at[w->first + n] <= now) {
        n++;
    }
    return n;
}

/* The next commit begins: at what is there, or at the first who comes. */
static void gather(struct world *w, const struct pace_wait *p)
{
    const int64_t end = w->now + p->us;

    if (p->us > 0) {
        const size_t last = w->first + (size_t)p->units - 1;
        const bool there = p->units <= w->n - w->first && w->at[last] <= end;
        if (!there) {
            w->now = end;
        } else if (w->at[last] > w->now) {
            w->now = w->at[last];
        }
        pace_waited(&w->pace, there);
    }
    if (w->first < w->n && w->at[w->first] > w->now) {
        w->now = w->at[w->first];
    }
}

/* One commit; returns how many it answers. */
static size_t commit(struct world *w)
{
    const int64_t began = w->now;
    const size_t units = arrived(w, began);

    w->now += w->commit_us;
    for (size_t i = 0; i < units; i++) {
        w->waited += w->now - w->at[w->first++];
    }
    w->commits++;
    w->answered += units;
    return units;
}

static int by_time(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a;
    const int64_t y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* Those who were answered send again, one after the other. */
static void send_again(struct world *w, size_t units)
{
    for (size_t i = 0; i < units && w->n < ROOM; i++) {
        w->at[w->n++] = w->now + AFTER_US + (int64_t)i * EACH_NS / 1000;
    }
    qsort(w->at + w->first, w->n - w->first, sizeof(w->at[0]), by_time);
}

static struct pace_wait after(struct world *w, size_t units)
{
    const struct pace_batch b = {
        .units = units, .left = arrived(w, w->now), .us = w->commit_us, .commit_us = w->commit_us};

    if (w->fixed) {
        return (struct pace_wait){.units = UINT64_MAX, .us = units < 4 ? 0 : PACE_US - b.us};
    }
    return pace_next(&w->pace, &b, PACE_US);
}

/* So many in flight all the time, at the beginning in two halves. */
static void closed_loop(struct world *w, size_t flight, size_t units)
{
    const uint64_t end = w->answered + units;

    send_again(w, flight / 2);
    w->now = w->n > 0 ? w->at[w->n - 1] : 0;
    send_again(w, flight - flight / 2);
    while (w->answered < end) {
        const size_t n = commit(w);
        const struct pace_wait p = after(w, n);
        send_again(w, n);
        gather(w, &p);
    }
}

static void open_loop(struct world *w, uint64_t a_second)
{
    for (size_t i = 0; i < UNITS; i++) {
        w->at[i] = (int64_t)(i * 1000000 / a_second);
    }
    w->n = UNITS;
    while (w->first < w->n) {
        const struct pace_wait p = after(w, commit(w));
        gather(w, &p);
    }
}

static struct world *world(int64_t commit_us, bool fixed)
{
    struct world *w = calloc(1, sizeof(*w));

    UNIT_NEED(w != NULL);
    w->commit_us = commit_us;
    w->fixed = fixed;
    return w;
}

static double per_commit(const struct world *w)
{
    return (double)w->answered / (double)w->commits;
}

static double latency(const struct world *w)
{
    return (double)w->waited / (double)w->answered;
}

/* ---- tests ---- */

/* Two cohorts become one: nearly all in flight are in each commit, and nobody waits much longer for
 * that. */
static void test_cohorts_join(void)
{
    static const size_t flights[] = {4, 10, 50, 80, 320, 500, 800};
    static const int64_t disks[] = {120, 250, 500, 2000, 8000};

    for (size_t i = 0; i < sizeof(flights) / sizeof(flights[0]); i++) {
        for (size_t k = 0; k < sizeof(disks) / sizeof(disks[0]); k++) {
            struct world *w = world(disks[k], false);
            struct world *fixed = world(disks[k], true);
            closed_loop(w, flights[i], UNITS / 2);
            closed_loop(fixed, flights[i], UNITS / 2);
            CU_ASSERT(per_commit(w) > 0.85 * (double)flights[i]);
            CU_ASSERT(latency(w) < 1.3 * latency(fixed));
            free(w);
            free(fixed);
        }
    }
}

/* More in flight than come in time: no fewer in a commit than at a fixed distance. */
static void test_too_many_to_wait_for(void)
{
    static const size_t flights[] = {2500, 5000, 20000};

    for (size_t i = 0; i < sizeof(flights) / sizeof(flights[0]); i++) {
        struct world *w = world(120, false);
        struct world *fixed = world(120, true);
        closed_loop(w, flights[i], UNITS);
        closed_loop(fixed, flights[i], UNITS);
        CU_ASSERT(per_commit(w) > 0.95 * per_commit(fixed));
        CU_ASSERT(latency(w) < 1.5 * latency(fixed));
        free(w);
        free(fixed);
    }
}

/* Who does not wait for answers is not answered later than at a fixed distance. */
static void test_open_loop(void)
{
    static const uint64_t rates[] = {500, 2000, 5000, 30000, 100000, 400000};
    static const int64_t disks[] = {50, 120, 250, 500, 2000};

    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        for (size_t k = 0; k < sizeof(disks) / sizeof(disks[0]); k++) {
            struct world *w = world(disks[k], false);
            struct world *fixed = world(disks[k], true);
            open_loop(w, rates[i]);
            open_loop(fixed, rates[i]);
            CU_ASSERT(latency(w) < 1.05 * latency(fixed));
            free(w);
            free(fixed);
        }
    }
}

static void test_few_do_not_wait(void)
{
    for (size_t flight = 1; flight < 4; flight++) {
        struct world *w = world(120, false);
        closed_loop(w, flight, 1000);
        CU_ASSERT(latency(w) <= 2.0 * 120);
        free(w);
    }
}

/* When most have gone, the others are not made to wait for them for long. */
static void test_they_go(void)
{
    struct world *w = world(120, false);
    int64_t waited;

    closed_loop(w, 500, UNITS / 2);
    w->first = w->n; /* none of them sends again */
    waited = w->waited;
    closed_loop(w, 10, 4000);
    CU_ASSERT((double)(w->waited - waited) / 4000 < 250);
    free(w);
}

static void test_no_pace(void)
{
    const struct pace_batch b = {.units = 100, .left = 100, .us = 10, .commit_us = 10};
    struct pace p = {0};

    for (unsigned i = 0; i < 10; i++) {
        CU_ASSERT_EQUAL(pace_next(&p, &b, 0).us, 0);
    }
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(cohorts_join)
    UNIT_TEST(too_many_to_wait_for)
    UNIT_TEST(open_loop)
    UNIT_TEST(few_do_not_wait)
    UNIT_TEST(they_go)
    UNIT_TEST(no_pace)
UNIT_TESTS_END
