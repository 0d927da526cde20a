/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.h - the seam between store.h and the two stores behind it: memory.c (keeps nothing) and
 * durable.c. Functions that are NULL stand for a store that holds nothing.
 */
#ifndef NOCTULE_STORAGE_OPS_H
#define NOCTULE_STORAGE_OPS_H

#include "storage/store.h"

struct store_ops {
    void (*close)(struct store *s);
    bool (*keeps)(const struct store *s);
    enum store_rc (*submit)(struct store *s, const struct store_chain *c);
    void (*stats)(struct store *s, struct store_stats *out);
    uint64_t (*first_free_id)(const struct store *s);
    enum store_rc (*load)(struct store *s, const struct store_load *l);
    enum store_rc (*read)(struct store *s, struct store_page *p);
    enum store_rc (*fetch)(struct store *s, struct store_fetch *f);
    enum store_rc (*backup)(struct store *s, const char *to_dir, char *err, size_t cap);
    enum store_rc (*health)(const struct store *s);
    const char *(*trouble)(const struct store *s);
};

struct store {
    const struct store_ops *ops;
};

#endif
