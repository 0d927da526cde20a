/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/track.h"

enum track_rc track_step(struct track *t, uint64_t seq, struct track_rule rule)
{
    uint64_t last = t->last;

    t->last = seq + 1;
    if (seq >= t->top) {
        bool follows = seq == t->top && last == t->top;
        uint64_t gap = seq - t->top;

        t->top = seq + 1;
        if (follows || (gap > 0 && rule.gaps_allowed)) {
            return TRACK_NEW;
        }
        /* A repetition stopped short of the top: nothing is lost, but the order is. */
        return gap > 0 ? TRACK_LOST : TRACK_REORDERED;
    }
    /* The second: it goes on with a repetition that was allowed. */
    if (rule.dup || seq == last) {
        return TRACK_REPEATED;
    }
    if (!rule.publisher_resumed) {
        return TRACK_DOUBLED;
    }
    return seq < last ? TRACK_REPEATED : TRACK_REORDERED;
}

const char *track_text(enum track_rc rc)
{
    switch (rc) {
    case TRACK_NEW:
        return "new";
    case TRACK_REPEATED:
        return "repeated";
    case TRACK_LOST:
        return "lost";
    case TRACK_DOUBLED:
        return "doubled";
    case TRACK_REORDERED:
        return "reordered";
    }
    return "";
}
