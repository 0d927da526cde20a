/* SPDX-License-Identifier: Apache-2.0 */
/*
 * common.h - what the scenarios with publishers share: topics, the look of a message, the run from
 * the first connection to the last DISCONNECT.
 *
 * Clients belong to a herd of publishers and a herd of receivers; a client's owner is its herd.
 */
#ifndef NOCTULE_BENCH_COMMON_H
#define NOCTULE_BENCH_COMMON_H

#include "bench/load/course.h"
#include "bench/load/drive.h"
#include "bench/load/herd.h"

/* Publisher i's stream: topic bench/RUN/i, under --alias bench/RUN/i/k with more topics than
 * aliases, so that both kinds of message take turns. */
void publisher_stream(struct client *c, struct run *run, uint32_t i);
/* A filter for publisher i, or for all. */
#define ALL_PUBLISHERS UINT32_MAX
void publisher_filter(char *out, size_t cap, const struct run *run, uint32_t i);

struct run *herd_run(struct client *c);
/* For client_ops: a failed check; nothing. */
void herd_wrong(struct client *c, const char *what);
void herd_none(struct client *c);
/* For client_ops.closed: a failed check unless it was asked for. */
void herd_closed(struct client *c, const char *why);
/* Publishers, who receive nothing. Where their streams keep times, the run's latency is that of the
 * acknowledgements, and r.done counts them. */
extern const struct client_ops herd_publisher_ops;

/* Counts a failed check where a message, its number aside, is not what was sent. */
void message_check(struct run *run, const struct client *c, const struct publish *m,
                   const struct stamp *s, struct stream *from);
/* Whose message it is. Counts a failed check and answers false where the payload is damaged, or of
 * another run or nobody of these publishers. */
bool message_stamp(const struct herd *publishers, struct client *c, const struct publish *m,
                   struct stamp *s);
/* The same, and it has to be the number due to this receiver; then the next one is, and the message
 * has been checked. */
bool message_on_course(const struct courses *courses, const struct herd *publishers,
                       struct client *c, const struct publish *m, struct stamp *s);
/* Counts a message that came. */
void run_delivered(struct run *run, const struct stamp *s);

#define LINGER_MS 100u /* after the end of a run: what comes then is doubled */

/* Connects all, receivers first; false: that failed. */
bool herd_pair_up(struct herd *receivers, struct herd *publishers);
/* Drives the publishers and measures it, then waits a little: what comes after everything has come
 * is doubled. */
void herd_drive(const struct drive_plan *plan);
/* Says goodbye; sessions of --durable end. */
void herd_pair_end(struct herd *receivers, struct herd *publishers);

#endif
