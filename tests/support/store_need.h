/* SPDX-License-Identifier: Apache-2.0 */
/* store_need.h - a store that has to open (its words and the end of the process otherwise), and one
 * unit that it has to take. */
#ifndef NOCTULE_TESTS_STORE_NEED_H
#define NOCTULE_TESTS_STORE_NEED_H

#include "storage/store.h"
#include "tests/support/unit.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

static inline struct store *store_need(const struct store_options *o)
{
    struct store *s;
    char err[512];

    if (store_open(o, &s, err, sizeof(err)) != ST_OK) {
        fprintf(stderr, "%s\n", err);
        UNIT_NEED(false);
    }
    return s;
}

struct need_answer {
    struct store_unit unit;
    _Atomic int rc;
};

static inline void need_answered(struct store_unit *u, enum store_rc rc)
{
    atomic_store(&((struct need_answer *)u)->rc, (int)rc);
}

/* Waits for the answer. */
static inline void submit_ok(struct store *s, struct store_op *ops, uint32_t n)
{
    struct need_answer a = {.unit = {.done = need_answered, .ops = ops, .nops = n}, .rc = -1};

    UNIT_NEED(store_submit(s, &a.unit) == ST_OK);
    while (atomic_load(&a.rc) < 0) {
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    CU_ASSERT_EQUAL(atomic_load(&a.rc), ST_OK);
}

#endif
