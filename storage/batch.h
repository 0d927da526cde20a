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

#include "storage/gen.h"

#define BATCH_RECORD_MAX 96u /* a record's bytes without name, payload and properties, at most */

/* In the table: an item's number + 1 (0: empty), and its tag. */
struct batch_slot {
    uint32_t item;
    uint32_t tag;
};

struct batch_item {
    const struct store_op *op;
    uint32_t tag;  /* of its key: what differs here has another key */
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
    struct batch_slot *table; /* by key; open addressing */
    uint32_t table_cap;
    uint32_t dead;
    size_t bytes;                /* at most so many as records */
    uint32_t kinds[ST_OP_KINDS]; /* operations, counted */
    uint64_t free_id; /* above every session and body seen so far, also in earlier batches */
    /* Made by batch_seal(): what is left, in the order of its records. */
    struct gen_op *left;
    uint32_t left_cap;
};

/* Bytes of an operation's record, at most. */
static inline size_t batch_record_max(const struct store_op *op)
{
    return BATCH_RECORD_MAX + op->name.n + op->data.n + op->props.n;
}

void batch_fini(struct batch *b); /* zeroed is fine */
void batch_reset(struct batch *b);
/* False: no memory; the unit is not in the batch. */
bool batch_add(struct batch *b, const struct store_unit *u) __attribute__((warn_unused_result));

/* Bytes of the batch as a group, at most. */
static inline size_t batch_group_max(const struct batch *b)
{
    return b->bytes + GROUP_HEADER;
}

/*
 * What is left as a sealed group, in buf (batch_group_max() bytes), and in b->left, until the next
 * operation on the batch. g->number and g->wall_ms are given, the rest is filled in; nothing left:
 * g->records 0. clock: what is to be added to the times of operations. ST_NOSPACE: larger than a
 * group may be.
 */
enum store_rc batch_seal(struct batch *b, int64_t clock, struct group *g, uint8_t *buf)
    __attribute__((warn_unused_result));

#endif
