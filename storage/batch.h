/* SPDX-License-Identifier: Apache-2.0 */
/*
 * batch.h - the units of one commit: what vanishes among them, and the group that is left.
 *
 * An entry that is put and removed in the batch vanishes with its steps, and a body with its
 * last entry. Of operations on a subscription, session, retained message, will or QoS 2 id
 * only the last is left; a removal always is, since `state` may hold an older value.
 *
 * Threads    the store thread.  Ownership  units are borrowed until the batch is reset.
 */
#ifndef NOCTULE_STORAGE_BATCH_H
#define NOCTULE_STORAGE_BATCH_H

#include "storage/record.h"

struct batch_item {
    const struct store_op *op;
    uint32_t prev; /* the item before it with the same key, or NONE */
    uint32_t next; /* entry: the next one of its body. Body: its first entry */
    uint32_t live; /* body: entries of its unit that are not dead */
    uint32_t body; /* entry: the item of its body, or NONE */
    uint32_t slot; /* its place in the table */
    bool dead;
};

struct batch {
    struct batch_item *items;
    uint32_t n, cap;
    uint32_t *table; /* item + 1, by key; open addressing */
    uint32_t table_cap;
    uint32_t dead;
    uint64_t free_id; /* above every session and body seen so far, also in earlier batches */
};

void batch_fini(struct batch *b); /* zeroed is fine */
void batch_reset(struct batch *b);
/* False: no memory; the unit is not in the batch. */
bool batch_add(struct batch *b, const struct store_unit *u) __attribute__((warn_unused_result));

/*
 * What is left as a sealed group, in *buf (malloc'd, the caller's). g->number and g->wall_ms are
 * given, the rest is filled in; nothing left: g->records 0 and *buf NULL. clock: what is
 * to be added to the times of operations. ST_NOSPACE: larger than a group may be.
 */
enum store_rc batch_seal(struct batch *b, int64_t clock, struct group *g, uint8_t **buf)
    __attribute__((warn_unused_result));

#endif
