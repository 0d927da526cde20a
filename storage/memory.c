/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The in-memory store: what `persistence false` uses and what tests use as a slow disk. The
 * sessions themselves live in the shards, so there is nothing to keep here; units are counted and
 * answered in their order.
 */
#include "storage/ops.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct memory {
    struct store base;
    unsigned delay_ms;
    bool has_thread;
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    struct store_unit *first;
    struct store_unit **last;
    bool closing;
    struct store_stats stats;
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void wait_until(struct memory *s, int64_t due_ms)
{
    struct timespec ts = {.tv_sec = due_ms / 1000, .tv_nsec = (due_ms % 1000) * 1000000};

    pthread_cond_timedwait(&s->work, &s->lock, &ts);
}

static void *answer(void *arg)
{
    struct memory *s = arg;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        struct store_unit *u = s->first;

        if (u == NULL) {
            if (s->closing) {
                break;
            }
            pthread_cond_wait(&s->work, &s->lock);
            continue;
        }
        if (!s->closing && u->due_ms > now_ms()) {
            wait_until(s, u->due_ms);
            continue;
        }
        s->first = u->next;
        if (s->first == NULL) {
            s->last = &s->first;
        }
        pthread_mutex_unlock(&s->lock);
        if (u->done_all != NULL) {
            u->next = NULL;
            u->done_all(u, ST_OK);
        } else {
            u->done(u, ST_OK);
        }
        pthread_mutex_lock(&s->lock);
        s->stats.pending--;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static enum store_rc start_thread(struct memory *s)
{
    pthread_attr_t attr;
    int rc;

    if (pthread_attr_init(&attr) != 0) {
        return ST_NOMEM;
    }
    pthread_attr_setstacksize(&attr, 128 * 1024);
    rc = pthread_create(&s->thread, &attr, answer, s);
    pthread_attr_destroy(&attr);
    s->has_thread = rc == 0;
    return rc == 0 ? ST_OK : ST_NOMEM;
}

static void memory_close(struct store *base)
{
    struct memory *s = (struct memory *)base;

    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    if (s->has_thread) {
        pthread_join(s->thread, NULL);
    }
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static bool memory_keeps(const struct store *base)
{
    return ((const struct memory *)base)->delay_ms > 0;
}

static void take(struct memory *s, struct store_unit *u, int64_t due_ms)
{
    u->due_ms = due_ms;
    s->stats.units++;
    s->stats.pending++;
    for (uint32_t i = 0; i < u->nops; i++) {
        s->stats.ops[u->ops[i].kind]++;
    }
}

static enum store_rc memory_submit(struct store *base, const struct store_chain *c)
{
    struct memory *s = (struct memory *)base;
    const int64_t due_ms = now_ms() + s->delay_ms;
    struct store_unit *u = c->newest;
    struct store_unit *list = NULL; /* turned round */

    pthread_mutex_lock(&s->lock);
    if (s->closing || !s->has_thread) {
        pthread_mutex_unlock(&s->lock);
        return ST_CLOSED;
    }
    while (u != NULL) {
        struct store_unit *next = u->next;
        take(s, u, due_ms);
        u->next = list;
        list = u;
        u = next;
    }
    *s->last = list;
    s->last = &c->newest->next;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    return ST_OK;
}

static void memory_stats(struct store *base, struct store_stats *out)
{
    struct memory *s = (struct memory *)base;

    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    pthread_mutex_unlock(&s->lock);
}

static const struct store_ops memory_ops = {
    .close = memory_close,
    .keeps = memory_keeps,
    .submit = memory_submit,
    .stats = memory_stats,
};

enum store_rc store_open_memory(unsigned delay_ms, struct store **out)
{
    struct memory *s = calloc(1, sizeof(*s));
    pthread_condattr_t attr;
    enum store_rc rc = ST_OK;

    if (s == NULL) {
        return ST_NOMEM;
    }
    s->base.ops = &memory_ops;
    s->delay_ms = delay_ms;
    s->last = &s->first;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->work, &attr);
    pthread_condattr_destroy(&attr);
    if (delay_ms > 0) {
        rc = start_thread(s);
    }
    if (rc != ST_OK) {
        memory_close(&s->base);
        return rc;
    }
    *out = &s->base;
    return ST_OK;
}
