/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.h - the folded tables, as FORMAT.md has them: objects in pieces, names under hashes, the
 * records of `meta`, times of publishing. queue.h has the entries.
 *
 * Threads    a transaction belongs to one thread at a time; write transactions exist on the fold
 * thread only, and before the threads start.  Errors  LMDB's codes; MDB_CORRUPTED for bytes that
 * are not as they should be.
 */
#ifndef NOCTULE_STORAGE_STATE_H
#define NOCTULE_STORAGE_STATE_H

#include "storage/env.h"
#include "storage/record.h"

#define STORE_VERSION 4u    /* and every older one is read */
#define PIECE_MAX     2000u /* above it LMDB takes overflow pages, which fragment */
#define STORE_ID      16u
#define ROW_SUM       4u /* bytes of a checksum */

struct state {
    struct env env;
    MDB_dbi meta, sessions, subs, bodies, retained, wills, queue, inbound;
    MDB_dbi times;      /* 0: an older version, which has none */
    bool old;           /* of an older version, until the start has made it one of this */
    uint64_t name_mask; /* of hashes of names; all ones but in tests of collisions */
};

/* A buffer that grows; zeroed is empty. */
struct scratch {
    uint8_t *p;
    size_t cap;
};
uint8_t *scratch_room(struct scratch *s, size_t n); /* NULL: no memory */
void scratch_free(struct scratch *s);

/* flags: MDB_CREATE or 0. */
int state_tables(struct state *s, MDB_txn *txn, unsigned flags);

/* ---- checksums ---- */

/* Of a row's key, and of the n bytes of its value, of which more may follow. dbi: its table, whose
 * number is part of it: a row that stands in another table is not valid there. */
uint32_t row_sum(MDB_dbi dbi, MDB_val key, const void *value, size_t n);
/* Whether the value ends with the checksum of what is before it. */
bool row_is_valid(MDB_dbi dbi, MDB_val key, MDB_val val);
/* Writes the checksum of the n bytes at p behind them. */
void row_seal(MDB_dbi dbi, MDB_val key, uint8_t *p, size_t n);

/* How many rows each table has. The numbers go to `meta` with every change, and tell when a table,
 * or a part of one, cannot be reached any more. MDB_CORRUPTED: they differ. */
int state_put_rows(struct state *s, MDB_txn *txn);
int state_check_rows(const struct state *s, MDB_txn *txn);

/* ---- meta ---- */

/* Records of a table `meta`, of either environment. MDB_NOTFOUND, MDB_CORRUPTED: other size. */
int meta_get(MDB_txn *txn, MDB_dbi meta, const char *key, void *value, size_t n);
int meta_put(MDB_txn *txn, MDB_dbi meta, const char *key, const void *value, size_t n);
/* With a checksum; one that an older version wrote has none. */
int meta_get_u64(MDB_txn *txn, MDB_dbi meta, const char *key, uint64_t *v);
int meta_put_u64(MDB_txn *txn, MDB_dbi meta, const char *key, uint64_t v);
int meta_put_version(MDB_txn *txn, MDB_dbi meta); /* STORE_VERSION */

/* ---- objects: K is a key of at most OBJECT_KEY bytes ---- */

#define OBJECT_KEY 24u

/* A view that is valid until the transaction ends or writes, or the scratch is used again. */
int object_get(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, struct scratch *s,
               MDB_val *whole);
/* appending: puts nothing and gives MDB_KEYEXIST where k is not above every key there. */
int object_put(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, const uint8_t *whole,
               size_t n, bool appending);
/* A row of a table of objects by itself. sealed: it must have a checksum; else a further piece of an
 * object of an older version is taken for valid. */
bool piece_is_valid(MDB_dbi dbi, MDB_val key, MDB_val val, bool sealed);
/* Its first bytes, a view: as many as there are, up to some 2000. With a cursor, here and below,
 * what comes in the order of keys is found without going down the tree. */
int object_peek(MDB_cursor *cur, const uint8_t *k, size_t kn, MDB_val *first);
/* Changes the first n bytes. */
int object_patch(MDB_cursor *cur, const uint8_t *k, size_t kn, const uint8_t *head, size_t n);
int object_del(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn);
/*
 * The next object at or behind the cursor's key *k (kn bytes; on return the key found). The cursor
 * is left on its first piece. n: bytes of K in this table.
 */
int object_next(MDB_cursor *cur, uint8_t *k, size_t n, struct scratch *s, MDB_val *whole,
                bool *started);
/* Likewise, but only its first piece: whole_n bytes belong to it, of which *first has the first. */
int object_next_first(MDB_cursor *cur, uint8_t *k, size_t n, MDB_val *first, size_t *whole_n,
                      bool *started);
/* The whole of the object that object_next_first() has found. */
int object_rest(MDB_cursor *cur, const uint8_t *k, size_t n, MDB_val first, size_t whole_n,
                struct scratch *s, MDB_val *whole);

/* ---- subscriptions and retained messages: found by name ---- */

/* prefix: session (subs) or nothing (retained). */
int state_sub_put(struct state *s, MDB_txn *txn, const struct store_op *op, struct scratch *tmp);
int state_sub_del(struct state *s, MDB_txn *txn, uint64_t session, struct store_bytes name,
                  struct scratch *tmp);
int state_retained_put(struct state *s, MDB_txn *txn, const struct store_op *op,
                       struct scratch *tmp);
int state_retained_del(struct state *s, MDB_txn *txn, struct store_bytes name, struct scratch *tmp);
/* Views in *op are valid until the transaction ends or writes, or the scratch is used again. */
int state_retained_get(struct state *s, MDB_txn *txn, struct store_bytes name, struct scratch *tmp,
                       struct store_op *op);

/* ---- sessions, bodies, times ---- */

#define SESSION_HEAD 32u
#define BODY_HEAD    4u
#define SUB_KEY      17u
#define RETAINED_KEY 17u
#define INBOUND_KEY  10u

struct session_head {
    uint64_t next_seq; /* 0: it has ended, and only entries are left, to be removed */
    uint64_t first_seq, count, bytes;
};
static inline bool session_has_ended(const struct session_head *h)
{
    return h->next_seq == 0;
}
void session_head_put(uint8_t *p, const struct session_head *h);
/* Of an object's first bytes. False: too short. */
bool session_head_get(MDB_val first, struct session_head *h);
/* False: too short or not a session's record. */
bool session_view(MDB_val whole, struct session_head *h, struct store_op *op);
bool body_view(MDB_val whole, uint32_t *count, struct store_op *op);

/* A row of `inbound`. */
bool inbound_is_valid(const struct state *s, MDB_val key, MDB_val val);

/* A row of `times`; false: not a valid one. */
bool time_get(const struct state *s, MDB_val key, MDB_val val, uint64_t *n);
/* n more (or fewer) entries that have their body with them were published in this second. */
int state_count_time(struct state *s, MDB_txn *txn, uint32_t when_s, int64_t n);
/* When the oldest message of all queues was published, wall clock s (0: not known); MDB_NOTFOUND:
 * they are empty. Ids of bodies rise with time: it is the first of them or of `times`. */
int state_oldest_s(struct state *s, MDB_txn *txn, uint32_t *when_s);

/* What counts as the size of a body. */
uint32_t body_size(const struct store_op *body);

#endif
