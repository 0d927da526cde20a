/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/rcu.h"

#include "tests/support/unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

struct thing {
    struct rcu_item rcu;
    int value;
    _Atomic int *freed;
};

static void thing_free(struct rcu_item *item)
{
    struct thing *x = (struct thing *)item;

    x->value = -1;
    atomic_fetch_add(x->freed, 1);
    free(x);
}

static struct thing *thing_create(int value, _Atomic int *freed)
{
    struct thing *x = malloc(sizeof(*x));

    UNIT_NEED(x != NULL);
    x->value = value;
    x->freed = freed;
    return x;
}

static void test_drain_runs_all(void)
{
    _Atomic int freed = 0;

    for (int i = 0; i < 1000; i++) {
        rcu_defer(&thing_create(i, &freed)->rcu, thing_free);
    }
    rcu_drain();
    CU_ASSERT_EQUAL(atomic_load(&freed), 1000);
}

/* From every state a thread can be in. */
static void test_defer_in_any_state(void)
{
    _Atomic int freed = 0;

    rcu_defer(&thing_create(1, &freed)->rcu, thing_free);
    rcu_register();
    rcu_defer(&thing_create(2, &freed)->rcu, thing_free);
    rcu_quiescent();
    rcu_offline();
    rcu_defer(&thing_create(3, &freed)->rcu, thing_free);
    rcu_drain();
    CU_ASSERT_EQUAL(atomic_load(&freed), 3);
    rcu_online();
    rcu_defer(&thing_create(4, &freed)->rcu, thing_free);
    rcu_unregister();
    rcu_drain();
    CU_ASSERT_EQUAL(atomic_load(&freed), 4);
}

struct held {
    _Atomic int freed;
    _Atomic int step; /* 1: the reader is online, 2: it may say so */
};

static void *holding_reader(void *arg)
{
    struct held *h = arg;

    rcu_register();
    atomic_store(&h->step, 1);
    while (atomic_load(&h->step) != 2) {
        usleep(1000);
    }
    rcu_quiescent();
    rcu_unregister();
    return NULL;
}

/* Nothing is freed while a reader that was there has not been quiescent. */
static void test_reader_holds_frees(void)
{
    struct held h = {0, 0};
    pthread_t reader;

    UNIT_NEED(pthread_create(&reader, NULL, holding_reader, &h) == 0);
    while (atomic_load(&h.step) != 1) {
        usleep(1000);
    }
    rcu_defer(&thing_create(1, &h.freed)->rcu, thing_free);
    usleep(100000);
    CU_ASSERT_EQUAL(atomic_load(&h.freed), 0);
    atomic_store(&h.step, 2);
    rcu_drain();
    CU_ASSERT_EQUAL(atomic_load(&h.freed), 1);
    pthread_join(reader, NULL);
}

static _Atomic int again_freed;

static void defer_again(struct rcu_item *item)
{
    rcu_defer(item, thing_free);
}

static void test_defer_in_callback(void)
{
    rcu_defer(&thing_create(1, &again_freed)->rcu, defer_again);
    rcu_drain();
    rcu_drain();
    CU_ASSERT_EQUAL(atomic_load(&again_freed), 1);
}

struct shared {
    _Atomic(struct thing *) now;
    _Atomic int freed;
    _Atomic bool stop;
    _Atomic int bad;
};

static void *reader(void *arg)
{
    struct shared *s = arg;

    rcu_register();
    while (!atomic_load(&s->stop)) {
        for (int i = 0; i < 50; i++) {
            struct thing *x = atomic_load_explicit(&s->now, memory_order_acquire);

            if (x->value < 0) {
                atomic_store(&s->bad, 1);
            }
        }
        rcu_quiescent();
    }
    rcu_offline();
    rcu_online();
    rcu_unregister();
    return NULL;
}

/* Readers with a writer that replaces: for ThreadSanitizer and AddressSanitizer. */
static void test_readers_and_writer(void)
{
    struct shared s = {0};
    pthread_t readers[3];

    atomic_store(&s.now, thing_create(0, &s.freed));
    for (int i = 0; i < 3; i++) {
        UNIT_NEED(pthread_create(&readers[i], NULL, reader, &s) == 0);
    }
    for (int i = 1; i <= 20000; i++) {
        struct thing *old =
            atomic_exchange_explicit(&s.now, thing_create(i, &s.freed), memory_order_acq_rel);

        rcu_defer(&old->rcu, thing_free);
    }
    atomic_store(&s.stop, true);
    for (int i = 0; i < 3; i++) {
        pthread_join(readers[i], NULL);
    }
    rcu_drain();
    CU_ASSERT_EQUAL(atomic_load(&s.freed), 20000);
    CU_ASSERT_EQUAL(atomic_load(&s.bad), 0);
    free(atomic_load(&s.now));
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(drain_runs_all)
    UNIT_TEST(defer_in_any_state)
    UNIT_TEST(reader_holds_frees)
    UNIT_TEST(defer_in_callback)
    UNIT_TEST(readers_and_writer)
UNIT_TESTS_END
