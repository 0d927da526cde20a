/* SPDX-License-Identifier: Apache-2.0 */
/*
 * herd.h - many alike clients, connected a few at a time so that the listen queue does not
 * overflow.
 */
#ifndef NOCTULE_BENCH_HERD_H
#define NOCTULE_BENCH_HERD_H

#include "bench/load/bench.h"

struct herd {
    struct run *run;
    struct client *clients;
    char (*ids)[32];
    uint32_t n;
    uint32_t opened;
    uint32_t up; /* counted by herd_up() */
};

/* Client ids are PREFIX-RUN-NUMBER; owner is the herd, clean session is set unless --durable. */
void herd_init(struct herd *h, struct run *run, uint32_t n, const char *prefix,
               const struct client_ops *ops);
void herd_fini(struct herd *h);
/* Opens all and waits until each has called herd_up(); gives up after the time-out, as a failure.
 */
void herd_connect(struct herd *h);
/* Waits until so many called herd_up() as there are; gives up likewise. */
void herd_await(struct herd *h);
/* All have left: DISCONNECT, and the broker's close, or ours when that takes a second. closed() is
 * called with NULL. */
void herd_disconnect(struct herd *h);
/* Ready for herd_connect() again, with clean session set or not. */
void herd_forget(struct herd *h, bool clean);
/* The sessions end, and the connections: once more with clean session where no check has failed. */
void herd_discard(struct herd *h);
/* From a callback: one more client is where herd_connect() waits for it. */
void herd_up(struct herd *h);

#endif
