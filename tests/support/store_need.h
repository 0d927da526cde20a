/* SPDX-License-Identifier: Apache-2.0 */
/* store_need.h - a store that has to open: its words and the end of the process otherwise. */
#ifndef NOCTULE_TESTS_STORE_NEED_H
#define NOCTULE_TESTS_STORE_NEED_H

#include "storage/store.h"
#include "tests/support/unit.h"

#include <stdio.h>

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

#endif
