/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock.h - time, passed in so that tests can run it.
 *
 * Running time is CLOCK_BOOTTIME in milliseconds: it goes on while the machine sleeps and never
 * jumps. Threads    any, if the implementation behind the struct is.
 */
#ifndef NOCTULE_BASE_CLOCK_H
#define NOCTULE_BASE_CLOCK_H

#include <stdint.h>

struct clock {
    int64_t (*now_ms)(void *arg); /* CLOCK_BOOTTIME, milliseconds */
    void *arg;
};

/* The machine's own clock. */
extern const struct clock clock_system;

static inline int64_t clock_now_ms(const struct clock *c)
{
    return c->now_ms(c->arg);
}

#endif
