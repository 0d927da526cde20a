/* SPDX-License-Identifier: Apache-2.0 */
/*
 * salvage_tables.h - inside of the salvage: the tables of the new state made to agree with each
 * other, and what is lost told by whose it was.
 */
#ifndef NOCTULE_STORAGE_SALVAGE_TABLES_H
#define NOCTULE_STORAGE_SALVAGE_TABLES_H

#include "storage/durable.h"
#include "storage/queue.h"
#include "storage/salvage.h"

enum {
    SALVAGE_SESSIONS,
    SALVAGE_SUBS,
    SALVAGE_BODIES,
    SALVAGE_RETAINED,
    SALVAGE_WILLS,
    SALVAGE_QUEUE,
    SALVAGE_INBOUND,
    SALVAGE_TIMES,
    SALVAGE_TABLES
};

struct lost_rows { /* of sessions from..to, in a table */
    unsigned table;
    uint64_t from, to;
};

struct saved_session {
    uint64_t session;
    char *client; /* as text */
    struct session_head head;
    uint64_t count, bytes, first, last;
};

struct saved_body {
    uint64_t body;
    uint32_t count, refs;
};

struct tables {
    struct durable *d;
    MDB_txn *txn;
    check_line_fn fn;
    void *arg;
    struct salvage_loss *loss;
    struct lost_rows *lost;
    size_t nlost, lost_cap;
    struct saved_session *sessions;
    size_t nsessions, sessions_cap;
    struct saved_body *bodies;
    size_t nbodies, bodies_cap;
    uint64_t unknown, unknown_messages; /* of whom the entries at hand are, which nobody has */
    struct scratch tmp;
};

void tables_say(struct tables *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A row that is damaged; rows between two keys. */
void tables_lost_row(struct tables *t, unsigned table, MDB_val key);
void tables_lost_range(struct tables *t, unsigned table, MDB_val from, MDB_val to);
/* LMDB's codes. */
int tables_agree(struct tables *t);
void tables_fini(struct tables *t);

#endif
