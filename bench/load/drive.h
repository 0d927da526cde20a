/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drive.h - what makes publishers send.
 *
 * Closed loop: a publisher has at most --window messages that are not acknowledged or not through
 * (through: every receiver has it). With --lockstep all publishers send a window together, and the
 * next one when all of all of them is through.
 * Open loop (--rate): message k of the whole run is due at k / rate, from publisher k modulo their
 * number, and is stamped with that time whenever it leaves; only packet identifiers and the
 * broker's receive maximum can hold it up.
 *
 * A turn costs what has happened: only publishers are looked at that got an acknowledgement, whose
 * messages came, or whose next message is due.
 */
#ifndef NOCTULE_BENCH_DRIVE_H
#define NOCTULE_BENCH_DRIVE_H

#include "bench/load/herd.h"

struct drive_plan {
    struct herd *publishers;
    /* The numbers of a publisher below it came everywhere. */
    uint64_t (*through)(const void *context, uint32_t publisher);
    /* NULL, or told after a publisher has sent what it may. */
    void (*sent)(const void *context, uint32_t publisher);
    const void *context;
    uint64_t count;  /* messages of each publisher; 0: --seconds long ... */
    uint64_t rounds; /* ... or so many messages to each of its topics */
};

/* So many messages of a publisher may be under way at most: what tallies and rings of times have
 * room for. */
uint32_t drive_window(const struct options *o);
/* Publishes until all is sent, acknowledged and through, or a check fails. */
void drive_run(struct run *run, const struct drive_plan *plan);
/* While it runs, by who receives: more of this publisher's messages are through. */
void drive_moved(struct run *run, uint32_t publisher);
/* For publishers' client_ops: an acknowledgement came. */
void drive_acked(struct client *c);

#endif
