/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/pace.h"

#define PACE_UNITS 4     /* in flight, from which on waiting gathers more */
#define COHORT_US  1000  /* for which a cohort is waited for, or for a commit's time, */
#define COHORT_MAX 20000 /* up to this */
#define LATE_SHARE 16    /* one unit of so many may miss the commit */
#define RUN_MAX    64    /* commits that wait for the cohort until one does not, to compare */
#define SKIP_MAX   255

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Longer every time. */
static void in_vain(struct pace *p, uint32_t *n)
{
    *n = *n * 2 + 1 < SKIP_MAX ? *n * 2 + 1 : SKIP_MAX;
    p->skip = *n;
    p->run = 0;
}

/* What a commit found in flight. */
static void note_flight(struct pace *p, uint64_t now)
{
    p->flight -= p->flight / 8;
    p->flight = now > p->flight ? now : p->flight;
    if (!p->whole) {
        p->base -= p->base / 4;
        p->base = now > p->base ? now : p->base;
    } else if (now > p->base + p->base / 4 + 1) {
        in_vain(p, &p->grown);
    } else if (++p->run == RUN_MAX) {
        p->run = 0;
        p->skip = 1;
        p->grown = 0;
    }
}

struct pace_wait pace_next(struct pace *p, const struct pace_batch *b, uint32_t pace_us)
{
    int64_t paced;
    int64_t whole;

    note_flight(p, b->units + b->left);
    p->whole = false;
    if (pace_us == 0 || p->flight < PACE_UNITS) {
        return (struct pace_wait){0};
    }
    paced = larger(pace_us - b->us, 0);
    whole = larger(COHORT_US, b->commit_us < COHORT_MAX ? b->commit_us : COHORT_MAX);
    if (p->skip > 0) {
        p->skip--;
        paced = b->units < PACE_UNITS ? 0 : paced;
    } else {
        p->whole = true;
        paced = whole > paced ? whole : paced;
    }
    return (struct pace_wait){.units = p->flight - p->flight / LATE_SHARE, .us = paced};
}

void pace_waited(struct pace *p, bool there)
{
    if (!p->whole) {
        return;
    }
    if (there) {
        p->missed = 0;
    } else {
        in_vain(p, &p->missed);
    }
}
