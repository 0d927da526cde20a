/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/store.h"
#include "tests/support/unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define THREADS 3
#define UNITS   200

struct probe {
    struct store_unit unit;
    struct store_op op;
    int thread;
    int number;
};

static _Atomic int answered;
static int last_of[THREADS]; /* written by the store's thread only */
static _Atomic int disorder;

static void done(struct store_unit *u, enum store_rc rc)
{
    struct probe *p = (struct probe *)u;

    if (rc != ST_OK || p->number != last_of[p->thread] + 1) {
        atomic_fetch_add(&disorder, 1);
    }
    last_of[p->thread] = p->number;
    atomic_fetch_add(&answered, 1);
}

static struct store *store;
static struct probe probes[THREADS][UNITS];

static void hand_over(const struct store_chain *c)
{
    if (store_submit_chain(store, c) != ST_OK) {
        atomic_fetch_add(&disorder, 1);
    }
}

/* Half of the units one by one, the others in chains. */
static void *submitter(void *arg)
{
    int t = *(int *)arg;
    struct store_chain c = {.n = 0};

    for (int i = 0; i < UNITS; i++) {
        struct probe *p = &probes[t][i];
        *p = (struct probe){.unit = {.done = done, .ops = &p->op, .nops = 1},
                            .op = {.kind = ST_ENTRY_PUT},
                            .thread = t,
                            .number = i + 1};
        if (i < UNITS / 2) {
            if (store_submit(store, &p->unit) != ST_OK) {
                atomic_fetch_add(&disorder, 1);
            }
            continue;
        }
        store_chain_add(&c, &p->unit);
        if (c.n == (uint32_t)(7 + t) || i == UNITS - 1) {
            hand_over(&c);
            c = (struct store_chain){.n = 0};
        }
    }
    return NULL;
}

static void test_answers_in_order(void)
{
    pthread_t th[THREADS];
    int ids[THREADS];
    struct store_stats st;

    UNIT_NEED(store_open_memory(5, &store) == ST_OK);
    CU_ASSERT_TRUE(store_keeps(store));
    for (int i = 0; i < THREADS; i++) {
        ids[i] = i;
        UNIT_NEED(pthread_create(&th[i], NULL, submitter, &ids[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(th[i], NULL);
    }
    store_stats(store, &st);
    CU_ASSERT_EQUAL(st.units, THREADS * UNITS);
    CU_ASSERT_EQUAL(st.ops[ST_ENTRY_PUT], THREADS * UNITS);
    store_close(&store); /* closing answers what was taken */
    CU_ASSERT_PTR_NULL(store);
    CU_ASSERT_EQUAL(atomic_load(&answered), THREADS * UNITS);
    CU_ASSERT_EQUAL(atomic_load(&disorder), 0);
}

static void test_waits_its_delay(void)
{
    struct probe p = {.unit = {.done = done}, .number = 1};
    struct timespec a;
    struct timespec b;
    int64_t ms;

    UNIT_NEED(store_open_memory(80, &store) == ST_OK);
    clock_gettime(CLOCK_MONOTONIC, &a);
    CU_ASSERT_EQUAL(store_submit(store, &p.unit), ST_OK);
    while (atomic_load(&answered) == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    ms = (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
    CU_ASSERT(ms >= 79);
    store_close(&store);
}

static void test_without_delay_keeps_nothing(void)
{
    struct probe p = {.unit = {.done = done}, .number = 1};
    struct probe q = {.unit = {.done = done}, .number = 2};
    struct store_chain c = {.n = 0};

    UNIT_NEED(store_open_memory(0, &store) == ST_OK);
    CU_ASSERT_FALSE(store_keeps(store));
    CU_ASSERT_EQUAL(store_submit(store, &p.unit), ST_CLOSED); /* never left the caller */
    store_chain_add(&c, &p.unit);
    store_chain_add(&c, &q.unit);
    CU_ASSERT_EQUAL(store_submit_chain(store, &c), ST_CLOSED);
    CU_ASSERT(c.newest == &q.unit && q.unit.next == &p.unit && p.unit.next == NULL);
    store_close(&store);
    store_close(&store); /* NULL is fine */
}

/* Mail that the store's last answers cause may still ask it: it takes nothing, and answers nothing.
 */
static void test_closed_takes_nothing(void)
{
    struct probe p = {.unit = {.done = done, .ops = &p.op, .nops = 1}};
    struct store_page page = {.session = 1};
    struct store_fetch fetch = {.n = 0};
    struct store_stats st = {.pending = 7};
    const int before = atomic_load(&answered);
    struct store *s;

    UNIT_NEED(store_open_memory(1, &s) == ST_OK);
    store_close(&s);
    CU_ASSERT_PTR_NULL(s);
    store_close(&s);
    CU_ASSERT_FALSE(store_keeps(s));
    CU_ASSERT_EQUAL(store_submit(s, &p.unit), ST_CLOSED);
    CU_ASSERT_EQUAL(store_read(s, &page), ST_CLOSED);
    CU_ASSERT(page.n == 0 && page.entries == NULL);
    store_page_free(&page);
    CU_ASSERT_EQUAL(store_fetch_retained(s, &fetch), ST_CLOSED);
    store_fetch_free(&fetch);
    CU_ASSERT_EQUAL(store_health(s), ST_CLOSED);
    CU_ASSERT_STRING_EQUAL(store_trouble(s), "");
    store_stats(s, &st);
    CU_ASSERT_EQUAL(st.pending, 0);
    CU_ASSERT_EQUAL(atomic_load(&answered), before);
}

UNIT_TESTS = {
    UNIT_TEST(answers_in_order)
    UNIT_TEST(waits_its_delay)
    UNIT_TEST(without_delay_keeps_nothing)
    UNIT_TEST(closed_takes_nothing)
UNIT_TESTS_END
