/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_timers [TIMERS | --counts] - the timer wheel as a shard uses it: keep-alives of so many
 * connections set, moved by traffic, cancelled, and fired when they run out.
 */
#include "bench/micro.h"
#include "server/base/timer_wheel.h"

#define KEEP_ALIVE_MS 90000
#define SPREAD_MS     60000

struct timers {
    struct timer_wheel wheel;
    struct timer *all;
    unsigned n;
    uint64_t rng;
    int64_t now_ms;
    unsigned fired;
};

static void fire(void *owner, struct timer *t)
{
    (void)t;
    ((struct timers *)owner)->fired++;
}

static int64_t deadline(struct timers *t)
{
    return t->now_ms + KEEP_ALIVE_MS + (int64_t)(micro_random(&t->rng) % SPREAD_MS);
}

static void set(void *arg, unsigned n)
{
    struct timers *t = arg;

    for (unsigned i = 0; i < n; i++) {
        timer_set(&t->wheel, &t->all[i], deadline(t));
    }
}

/* Packets of any connection. */
static void move(void *arg, unsigned n)
{
    struct timers *t = arg;

    for (unsigned i = 0; i < n; i++) {
        timer_set(&t->wheel, &t->all[micro_random(&t->rng) % t->n], deadline(t));
    }
}

static void cancel(void *arg, unsigned n)
{
    struct timers *t = arg;

    for (unsigned i = 0; i < n; i++) {
        timer_cancel(&t->wheel, &t->all[i]);
    }
}

/* Until the last one has fired, tick by tick. */
static void run_out(void *arg, unsigned n)
{
    struct timers *t = arg;

    t->fired = 0;
    while (t->fired < n) {
        int wait = timer_wheel_wait_ms(&t->wheel, t->now_ms);

        MICRO_NEED(wait >= 0);
        t->now_ms += wait > 0 ? wait : 1;
        while (timer_wheel_advance(&t->wheel, t->now_ms, t, 4096)) {}
    }
}

/* A turn of a shard with nothing due. */
static void look(void *arg, unsigned n)
{
    struct timers *t = arg;

    for (unsigned i = 0; i < n; i++) {
        MICRO_NEED(timer_wheel_wait_ms(&t->wheel, t->now_ms) > 0);
        MICRO_NEED(!timer_wheel_advance(&t->wheel, t->now_ms, t, 4096));
    }
}

int main(int argc, char **argv)
{
    unsigned n = micro_wants_counts(argc, argv) ? 5000
                 : argc > 1                     ? (unsigned)strtoul(argv[1], NULL, 10)
                                                : 1000000;
    struct timers t = {.n = n, .rng = MICRO_SEED, .now_ms = 123456789};

    MICRO_NEED(n > 0);
    t.all = calloc(n, sizeof(*t.all));
    MICRO_NEED(t.all != NULL);
    for (unsigned i = 0; i < n; i++) {
        t.all[i].fn = fire;
    }
    timer_wheel_init(&t.wheel, t.now_ms);
    micro_begin("timers");
    micro_simple("set", n, set, &t);
    micro_simple("move", 4 * n, move, &t);
    micro_simple("look", n, look, &t);
    micro_simple("cancel", n, cancel, &t);
    set(&t, n);
    micro_simple("run_out", n, run_out, &t);
    micro_end();
    MICRO_NEED(t.fired == n && t.wheel.count == 0);
    free(t.all);
    return 0;
}
