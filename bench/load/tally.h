/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tally.h - how far all receivers are with one publisher's numbers, when each number goes to the
 * same count of receivers, not always to the same ones.
 *
 * A counter for each number of a window. Whether a receiver may get a number, and only once, is
 * judged before it is added here.
 *
 * Failure    out of memory ends the program.
 */
#ifndef NOCTULE_BENCH_TALLY_H
#define NOCTULE_BENCH_TALLY_H

#include <stdbool.h>
#include <stdint.h>

struct tally {
    uint64_t base;      /* the lowest number that some receiver has not got */
    uint64_t mask;      /* size of the ring - 1 */
    uint32_t *came;     /* ring: how many receivers got base .. base + mask */
    uint32_t receivers; /* of each number */
};

void tally_init(struct tally *t, uint32_t window, uint32_t receivers);
void tally_fini(struct tally *t);
/* One receiver got number seq; true when base moved. Numbers outside of the window count nowhere.
 */
bool tally_add(struct tally *t, uint64_t seq);

#endif
