/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NOCTULE_TESTS_SAME_MATCH_H
#define NOCTULE_TESTS_SAME_MATCH_H

#include "routing/tree.h"

/* Targets alike, and the same ids in the same order. */
static inline bool same_match(const struct match *a, const struct match *b)
{
    if (a->ntargets != b->ntargets) {
        return false;
    }
    for (uint32_t t = 0; t < a->ntargets; t++) {
        const struct match_target *x = &a->targets[t];
        const struct match_target *y = &b->targets[t];

        if (x->shard != y->shard || x->kinds != y->kinds || x->first != y->first ||
            x->count != y->count) {
            return false;
        }
        for (uint32_t i = x->first; i < x->first + x->count; i++) {
            if (match_ids(a)[i] != match_ids(b)[i]) {
                return false;
            }
        }
    }
    return true;
}

#endif
