/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timer_wheel.h - per-shard timers: hierarchical wheel, O(1) set and cancel, intrusive.
 *
 * Resolution is TIMER_TICK_MS; a timer never fires early and at most one tick (plus the caller's
 * own delay) late. Deadlines beyond the wheel's range wait in its last slots and are put in again
 * when those turn.
 *
 * Threads    one owner.
 * Ownership  timers are embedded in what they belong to; cancel before freeing. Zeroed is "not
 * set".
 */
#ifndef NOCTULE_BASE_TIMER_WHEEL_H
#define NOCTULE_BASE_TIMER_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TIMER_TICK_MS 8
#define TIMER_LEVELS  5
#define TIMER_SLOTS   64

struct timer {
    struct timer *next, *prev; /* NULL when not set */
    int64_t deadline_ms;
    void (*fn)(void *owner,
               struct timer *t); /* set by the user; the timer is off when it is called */
};

struct timer_wheel {
    struct timer slot[TIMER_LEVELS][TIMER_SLOTS]; /* list heads */
    uint64_t used[TIMER_LEVELS];                  /* bit per slot that may hold something */
    struct timer due;                             /* past or present deadlines */
    int64_t tick;                                 /* ticks done since time 0 of the clock */
    size_t count;
};

void timer_wheel_init(struct timer_wheel *w, int64_t now_ms);

/* Sets or moves. A deadline in the past fires at the next advance. */
void timer_set(struct timer_wheel *w, struct timer *t, int64_t deadline_ms);
void timer_cancel(struct timer_wheel *w, struct timer *t);
static inline bool timer_is_set(const struct timer *t)
{
    return t->next != NULL;
}

/* Fires up to max timers due at now_ms with fn(owner, t); true when more are due. */
bool timer_wheel_advance(struct timer_wheel *w, int64_t now_ms, void *owner, size_t max);

/* Milliseconds until something may be due (0: now, -1: no timer); may be early, never late. */
int timer_wheel_wait_ms(const struct timer_wheel *w, int64_t now_ms);

#endif
