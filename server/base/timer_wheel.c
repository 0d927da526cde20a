/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Level l holds ticks that differ from the present one first in bit group l (6 bits each). When the
 * present tick enters a slot of a higher level, that slot's timers are put in again, now lower.
 */
#include "server/base/timer_wheel.h"

#include "server/base/check.h"
#include <limits.h>

#define SLOT_BITS 6
#define SLOT_MASK (TIMER_SLOTS - 1)

static void list_init(struct timer *head)
{
    head->next = head;
    head->prev = head;
}

static void list_add(struct timer *head, struct timer *t)
{
    t->next = head;
    t->prev = head->prev;
    head->prev->next = t;
    head->prev = t;
}

static void list_del(struct timer *t)
{
    check(t->prev->next == t && t->next->prev == t);
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->next = NULL;
    t->prev = NULL;
}

void timer_wheel_init(struct timer_wheel *w, int64_t now_ms)
{
    for (int l = 0; l < TIMER_LEVELS; l++) {
        for (int s = 0; s < TIMER_SLOTS; s++) {
            list_init(&w->slot[l][s]);
        }
        w->used[l] = 0;
    }
    list_init(&w->due);
    w->tick = now_ms / TIMER_TICK_MS;
    w->count = 0;
}

static void place(struct timer_wheel *w, struct timer *t)
{
    /* Rounded up: a timer never fires early. */
    int64_t tick = (t->deadline_ms + TIMER_TICK_MS - 1) / TIMER_TICK_MS;
    int64_t range = (int64_t)1 << (SLOT_BITS * TIMER_LEVELS);
    unsigned level = 0;
    unsigned slot;

    if (tick <= w->tick) {
        list_add(&w->due, t);
        return;
    }
    if (tick - w->tick >= range) {
        tick = w->tick + range - 1;
    }
    while (level + 1 < TIMER_LEVELS &&
           (tick >> (SLOT_BITS * (level + 1))) != (w->tick >> (SLOT_BITS * (level + 1)))) {
        level++;
    }
    slot = (unsigned)(tick >> (SLOT_BITS * level)) & SLOT_MASK;
    /* The present tick's slot was emptied when it was entered: nobody would look there in time. */
    check(level == TIMER_LEVELS - 1 ||
          slot != ((unsigned)(w->tick >> (SLOT_BITS * level)) & SLOT_MASK));
    list_add(&w->slot[level][slot], t);
    w->used[level] |= (uint64_t)1 << slot;
}

void timer_set(struct timer_wheel *w, struct timer *t, int64_t deadline_ms)
{
    check(t->fn != NULL);
    if (timer_is_set(t)) {
        list_del(t);
    } else {
        w->count++;
    }
    t->deadline_ms = deadline_ms;
    place(w, t);
}

void timer_cancel(struct timer_wheel *w, struct timer *t)
{
    if (timer_is_set(t)) {
        check(w->count > 0);
        list_del(t);
        w->count--;
    }
}

/* Moves a slot's timers to where they belong now. */
static void spill(struct timer_wheel *w, unsigned level, unsigned slot)
{
    struct timer *head = &w->slot[level][slot];
    struct timer batch;

    w->used[level] &= ~((uint64_t)1 << slot);
    if (head->next == head) {
        return;
    }
    /* Taken off first: with the range's clamp a timer may belong into this very slot again. */
    batch = *head;
    batch.next->prev = &batch;
    batch.prev->next = &batch;
    list_init(head);
    while (batch.next != &batch) {
        struct timer *t = batch.next;
        list_del(t);
        place(w, t);
    }
}

static void step(struct timer_wheel *w)
{
    w->tick++;
    for (unsigned l = TIMER_LEVELS; l-- > 1;) {
        int64_t low = ((int64_t)1 << (SLOT_BITS * l)) - 1;
        if ((w->tick & low) == 0) {
            spill(w, l, (unsigned)(w->tick >> (SLOT_BITS * l)) & SLOT_MASK);
        }
    }
    spill(w, 0, (unsigned)w->tick & SLOT_MASK);
}

/*
 * The next tick at which a slot has to be looked at. The lowest level with anything ahead has the
 * earliest: a level holds only ticks that share all higher bits with the present one. The top level
 * may have wrapped.
 */
static int64_t next_tick(const struct timer_wheel *w)
{
    for (unsigned l = 0; l < TIMER_LEVELS; l++) {
        unsigned bits = SLOT_BITS * l;
        unsigned at = (unsigned)(w->tick >> bits) & SLOT_MASK;
        uint64_t ahead = at == SLOT_MASK ? 0 : w->used[l] >> (at + 1);

        if (ahead != 0) {
            return ((w->tick >> bits) + 1 + __builtin_ctzll(ahead)) << bits;
        }
        if (l == TIMER_LEVELS - 1 && w->used[l] != 0) {
            return ((w->tick >> bits) + TIMER_SLOTS - at + (unsigned)__builtin_ctzll(w->used[l]))
                   << bits;
        }
    }
    return w->tick + TIMER_SLOTS;
}

bool timer_wheel_advance(struct timer_wheel *w, int64_t now_ms, void *owner, size_t max)
{
    int64_t target = now_ms / TIMER_TICK_MS;

    if (w->count == 0) {
        if (target > w->tick) {
            w->tick = target;
        }
        return false;
    }
    while (w->tick < target) {
        int64_t next = next_tick(w);
        check(next > w->tick);
        if (next > target) {
            w->tick = target;
            break;
        }
        w->tick = next - 1;
        step(w);
    }
    while (w->due.next != &w->due && max > 0) {
        struct timer *t = w->due.next;
        list_del(t);
        w->count--;
        max--;
        t->fn(owner, t);
    }
    return w->due.next != &w->due;
}

int timer_wheel_wait_ms(const struct timer_wheel *w, int64_t now_ms)
{
    int64_t wait;

    if (w->count == 0) {
        return -1;
    }
    if (w->due.next != &w->due) {
        return 0;
    }
    wait = next_tick(w) * TIMER_TICK_MS - now_ms;
    if (wait < 0) {
        return 0;
    }
    return wait > INT_MAX ? INT_MAX : (int)wait;
}
