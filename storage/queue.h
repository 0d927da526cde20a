/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue.h - rows of the table `queue`: runs of a session's entries, with the bodies that are theirs
 * alone. FORMAT.md, "state", has the form; rows of one entry, as versions 1 and 2 wrote them, are
 * read, too.
 *
 * Threads    none of its own; a cursor's transaction belongs to one thread.  Errors  LMDB's codes;
 * MDB_CORRUPTED for bytes that are not as they should be.
 */
#ifndef NOCTULE_STORAGE_QUEUE_H
#define NOCTULE_STORAGE_QUEUE_H

#include "storage/state.h"

#define QUEUE_KEY  16u
#define ENTRY_HEAD 42u /* before an entry's body, if it has that with it */
/*
 * A row's value, at most: what LMDB keeps on a page of its own when it is above half a page. One
 * page never has to be looked for as several in a row have, so it does not fragment (PIECE_MAX);
 * and rows that fill their page do not leave half of others empty, as those do of which two would
 * fit and that come in order, but not at the end of the table.
 */
#define QUEUE_ROW_MAX 4080u
#define QUEUE_RUN_MAX (QUEUE_ROW_MAX - ROW_SUM) /* of entries that are written */

struct queue_entry {
    uint64_t seq;
    uint64_t body;
    int64_t expires_ms; /* wall clock */
    uint32_t number;
    uint32_t size;  /* of the body */
    uint32_t group; /* 0: none */
    uint16_t packet_id;
    uint8_t flags, step;
    uint16_t record_n;     /* 0: the body is in `bodies`; else its record is here, */
    const uint8_t *record; /* a view into the row */
};

/* A row that is being read: as long as its bytes. */
struct queue_row {
    uint64_t session;
    uint64_t seq; /* of the key: no entry's is below */
    const uint8_t *p, *end;
    bool single; /* as versions 1 and 2 wrote it */
    bool sealed; /* it had a checksum, which is not in p..end any more */
};

void queue_key(uint8_t *k, uint64_t session, uint64_t seq); /* QUEUE_KEY bytes */
/* Views that LMDB gave, not copies: a row's place on disk is checked as well as its bytes. queue:
 * the table. False: not a valid row of it. */
bool queue_row_open(struct queue_row *r, MDB_dbi queue, MDB_val key, MDB_val val);
/* The same for bytes that lie elsewhere. */
bool queue_row_parse(struct queue_row *r, MDB_dbi queue, MDB_val key, MDB_val val);
/* The next entry; MDB_NOTFOUND: that was the last. */
int queue_row_next(struct queue_row *r, struct queue_entry *e);

static inline size_t queue_entry_size(const struct queue_entry *e)
{
    return ENTRY_HEAD + e->record_n;
}
/* Writes queue_entry_size() bytes; the end of them. */
uint8_t *queue_entry_put(uint8_t *p, const struct queue_entry *e);
/* Makes a row of the n bytes of entries at p, behind which there is room for ROW_SUM more; its
 * size. */
size_t queue_row_seal(MDB_dbi queue, MDB_val key, uint8_t *p, size_t n);

/*
 * The cursor on the row in which the entry would be: the session's last with a key of at most seq,
 * else its first. MDB_NOTFOUND: it has no rows.
 */
int queue_find(MDB_cursor *cur, uint64_t session, uint64_t seq, MDB_val *key, MDB_val *val);

#endif
