/* SPDX-License-Identifier: Apache-2.0 */
/*
 * track.h - what one receiver has seen of one publisher's numbers, and what may come next.
 *
 * The rule for messages of QoS 1 and 2 within a session: every number comes, in order. A QoS 1
 * message may come again when a session was resumed (the receiver's: then with DUP; or the
 * publisher's); the repetition starts at some earlier number and goes on from there without gaps
 * [MQTT-4.6.0-1]. QoS 2 never repeats. QoS 0 may have gaps where the receiver was away, and is in
 * order.
 */
#ifndef NOCTULE_BENCH_TRACK_H
#define NOCTULE_BENCH_TRACK_H

#include <stdbool.h>
#include <stdint.h>

struct track {
    uint64_t last; /* number after the one that came last */
    uint64_t top;  /* number after the highest that came: all below came, but for QoS 0 */
};

enum track_rc {
    TRACK_NEW,
    TRACK_REPEATED,  /* allowed */
    TRACK_LOST,      /* numbers were left out */
    TRACK_DOUBLED,   /* came again without a reason */
    TRACK_REORDERED, /* a repetition that does not follow on */
};

struct track_rule {
    bool gaps_allowed;      /* QoS 0 to a receiver that was away */
    bool dup;               /* QoS 1 with DUP: may be any number that came before */
    bool publisher_resumed; /* QoS 1: the publisher may have sent a run of numbers again */
};

/* Judges number seq and moves on to it. */
enum track_rc track_step(struct track *t, uint64_t seq, struct track_rule rule);
const char *track_text(enum track_rc rc);

#endif
