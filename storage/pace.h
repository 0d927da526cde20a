/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pace.h - when the next commit begins. Pure: no clock, no thread.
 *
 * Publishers with a bounded number in flight come in cohorts: those whom a commit answers send
 * again together. Left alone, one cohort gathers while the other is in a commit, and for ever two
 * commits are made where one would do, each cohort waiting for both. So a commit waits until nearly
 * as many units have come as were in flight lately: then hardly anybody is left who could join.
 *
 * Where publishers do not wait for their answers there is no such number: what is in flight grows
 * with every wait. That is seen (a commit that waited finds more in flight than those that did not,
 * or the number does not come in time), and then commits only keep their distance, pace_us; after
 * ever more of these the cohort is looked for again.
 *
 * Few units are not waited for at all: one or two who wait for each answer are answered as fast as
 * the disk can.
 */
#ifndef NOCTULE_STORAGE_PACE_H
#define NOCTULE_STORAGE_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* The store thread's; zeroed is fine. */
struct pace {
    uint64_t flight; /* units in flight lately */
    uint64_t base;   /* the same, of commits that did not wait for a cohort */
    uint32_t skip;   /* so many commits do not wait for the cohort */
    uint32_t missed; /* so many the last time it did not come in time, */
    uint32_t grown;  /* or what was in flight grew with the wait */
    uint32_t run;    /* so many have waited for it since they last did not */
    bool whole;      /* the wait under way is for the cohort */
};

/* A batch that has been answered. */
struct pace_batch {
    uint64_t units;
    uint64_t left;     /* units that came meanwhile, before the answers left */
    int64_t us;        /* since it was begun */
    int64_t commit_us; /* of that, the disk's */
};

/* Begin when so many units are there, or so much later; us 0: at once. */
struct pace_wait {
    uint64_t units;
    int64_t us;
};

/* pace_us: the least distance between the beginnings of two commits; 0: nothing is waited for. */
struct pace_wait pace_next(struct pace *p, const struct pace_batch *b, uint32_t pace_us);
/* How that wait ended: the units were there, or not. */
void pace_waited(struct pace *p, bool there);

#endif
