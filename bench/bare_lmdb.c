/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bare_lmdb.h"

#include "bench/micro.h"

void bare_open(struct bare *b, const char *dir)
{
    MDB_txn *txn;

    *b = (struct bare){.key = 1, .first = 1};
    MICRO_NEED(mdb_env_create(&b->env) == 0 && mdb_env_set_mapsize(b->env, 16ull << 30) == 0);
    MICRO_NEED(mdb_env_open(b->env, dir, MDB_NOTLS, 0640) == 0);
    MICRO_NEED(mdb_txn_begin(b->env, NULL, 0, &txn) == 0);
    MICRO_NEED(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &b->dbi) == 0 && mdb_txn_commit(txn) == 0);
}

void bare_close(struct bare *b)
{
    mdb_env_close(b->env);
}

void bare_begin(struct bare *b)
{
    MICRO_NEED(mdb_txn_begin(b->env, NULL, 0, &b->txn) == 0);
    MICRO_NEED(mdb_cursor_open(b->txn, b->dbi, &b->cur) == 0);
}

void bare_append(struct bare *b, const void *value, size_t n)
{
    MDB_val k = {sizeof(b->key), &b->key};
    MDB_val v = {n, (void *)(uintptr_t)value};

    MICRO_NEED(mdb_cursor_put(b->cur, &k, &v, MDB_APPEND) == 0);
    b->key++;
}

void bare_trim(struct bare *b, uint64_t keep)
{
    while (b->key - b->first > keep) {
        MDB_val k;
        MDB_val v;
        MICRO_NEED(mdb_cursor_get(b->cur, &k, &v, MDB_FIRST) == 0);
        MICRO_NEED(mdb_cursor_del(b->cur, 0) == 0);
        b->first++;
    }
}

void bare_commit(struct bare *b)
{
    mdb_cursor_close(b->cur);
    MICRO_NEED(mdb_txn_commit(b->txn) == 0);
}
