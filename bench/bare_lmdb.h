/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bare_lmdb.h - what bench_store measures the store against: LMDB alone, an append-only table with
 * integer keys, default sync as the store's.
 *
 * Threads    one at a time.  Errors  end the program.
 */
#ifndef NOCTULE_BENCH_BARE_LMDB_H
#define NOCTULE_BENCH_BARE_LMDB_H

#include <lmdb.h>
#include <stddef.h>
#include <stdint.h>

struct bare {
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *txn; /* between begin and commit */
    MDB_cursor *cur;
    uint64_t key, first; /* the next one, and the oldest that is left */
};

/* In an empty folder. */
void bare_open(struct bare *b, const char *dir);
void bare_close(struct bare *b);

void bare_begin(struct bare *b);
void bare_append(struct bare *b, const void *value, size_t n);
/* All but the newest `keep` values go. */
void bare_trim(struct bare *b, uint64_t keep);
void bare_commit(struct bare *b);

#endif
