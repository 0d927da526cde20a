/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fold.h - inside of the fold: what fold.c (the whole) and fold_queue.c (entries) share.
 *
 * Threads    the fold's, and before the threads run the one that starts them.
 */
#ifndef NOCTULE_STORAGE_FOLD_H
#define NOCTULE_STORAGE_FOLD_H

#include "storage/durable.h"
#include "storage/queue.h"

#define FOLD_IDS_MAX 65536u /* QoS 2 ids of a session */

struct delta {
    uint64_t key;
    int64_t n;
};

/* Changes to counts, applied with the slice: those of one key meet there. */
struct deltas {
    struct delta *v;
    size_t n, cap;
};

struct fold {
    struct durable *d;
    struct state *s;
    struct gen *g;
    uint32_t nsessions; /* of it that have something to be done */
    MDB_txn *txn;
    MDB_cursor *queue, *sessions, *body; /* on their tables */
    uint32_t ops;                        /* of this slice */
    size_t bytes;
    uint32_t removable;          /* entries of ended sessions that this fold may still remove */
    bool repeated;               /* a fold with these bounds was interrupted */
    struct deltas bodies, times; /* by body; by second */
    uint64_t dropped;
    struct scratch tmp, key;
    uint64_t seen[FOLD_IDS_MAX / 64]; /* QoS 2 ids of the session at hand; 0 between two */
};

/* Ends the slice and begins the next one: what lies before is there after a crash. */
int fold_next_slice(struct fold *f);
bool fold_slice_full(const struct fold *f);
int deltas_add(struct deltas *d, uint64_t key, int n);

/* ---- fold_queue.c ---- */

/* Whether the body goes with its entry: nobody else has it, and it is small enough. */
bool fold_is_inline(const struct gen_body *b);
int fold_get_head(struct fold *f, uint64_t session, struct session_head *h);
/* The record of the session with what the entries of this slice made of it. look: its first seq may
 * be another. */
int fold_put_head(struct fold *f, uint64_t session, struct session_head *h, bool look);
/* What the generation has of the session's entries. */
int fold_entries(struct fold *f, const struct gen_session *gs);
/* Entries go with their counts, to the end of the slice at most; *more: some are left. */
int fold_remove_entries(struct fold *f, uint64_t session, struct session_head *h, bool *more);

#endif
