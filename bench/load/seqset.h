/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seqset.h - numbers that come exactly once but in no order, as those of one publisher to a shared
 * group; and how evenly they fell on the group's members.
 *
 * Memory is a bit for each number of a window: the closed loop sends no number that is a window
 * ahead of the lowest one missing.
 *
 * Failure    out of memory ends the program.
 */
#ifndef NOCTULE_BENCH_SEQSET_H
#define NOCTULE_BENCH_SEQSET_H

#include <stdbool.h>
#include <stdint.h>

struct seqset {
    uint64_t base;  /* the lowest number that has not come */
    uint64_t *bits; /* ring: those of base .. base + size - 1 that came */
    uint32_t size;  /* a power of two, at least 64 */
};

void seqset_init(struct seqset *s, uint32_t window);
void seqset_fini(struct seqset *s);

enum seqset_rc {
    SEQSET_NEW,
    SEQSET_DOUBLED,
    SEQSET_AHEAD, /* further than a window: was never sent */
};
enum seqset_rc seqset_add(struct seqset *s, uint64_t seq);

/* How many messages each member of one group got. */
struct spread {
    uint64_t min;
    uint64_t max;
    uint64_t sum;
    uint32_t n; /* members */
};
void spread_add(struct spread *s, uint64_t messages);
/* min / max; 1 for a group that got nothing. */
double spread_ratio(const struct spread *s);

/* Below that many messages for each member on average the start of each turn decides, not the
 * rule: not judged. */
#define SPREAD_MIN_EACH 100u
#define SPREAD_LIMIT    0.9
bool spread_is_judged(const struct spread *s);
bool spread_is_fair(const struct spread *s);

#endif
