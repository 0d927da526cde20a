/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/journal.h"

#include "storage/guard.h"
#include "storage/record.h"
#include "storage/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRIM_AT_LEAST 64   /* pieces in a commit, and twice as many as it appends */
#define TRIM_ALONE    2048 /* in a commit that appends nothing */

static MDB_val key_of(const uint64_t *key)
{
    return (MDB_val){sizeof(*key), (void *)(uintptr_t)key};
}

static size_t pieces_of(size_t n)
{
    return (n + PIECE_MAX - 1) / PIECE_MAX;
}

static int append_pieces(MDB_cursor *cur, uint64_t key, const uint8_t *group, size_t n)
{
    int rc = 0;

    for (size_t at = 0; rc == 0 && at < n; at += PIECE_MAX, key++) {
        MDB_val k = key_of(&key);
        MDB_val v = {n - at < PIECE_MAX ? n - at : PIECE_MAX, (void *)(uintptr_t)(group + at)};
        rc = mdb_cursor_put(cur, &k, &v, MDB_APPEND);
    }
    return rc;
}

/* Whole groups only, so that the log always starts with the first piece of one. */
static int trim(MDB_cursor *cur, uint64_t to, size_t budget, bool *more)
{
    size_t left = 0; /* pieces of the group being removed */

    *more = false;
    for (size_t done = 0;; done++, left--) {
        MDB_val k;
        MDB_val v;
        uint64_t key;
        int rc = mdb_cursor_get(cur, &k, &v, MDB_FIRST);

        if (rc != 0) {
            return rc == MDB_NOTFOUND ? 0 : rc;
        }
        memcpy(&key, k.mv_data, sizeof(key));
        if (left == 0) {
            *more = key < to;
            if (key >= to || done >= budget) {
                return 0;
            }
            left = v.mv_size < GROUP_HEADER ? 0 : pieces_of(group_length(v.mv_data));
            if (left == 0) {
                return MDB_CORRUPTED;
            }
        }
        rc = mdb_cursor_del(cur, 0);
        if (rc != 0) {
            return rc;
        }
    }
}

static int append(struct journal *j, const uint8_t *group, size_t n, uint64_t trim_to,
                  bool *trim_more)
{
    MDB_txn *txn;
    MDB_cursor *cur;
    int rc = mdb_txn_begin(j->env.mdb, NULL, 0, &txn);

    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_open(txn, j->log, &cur);
    if (rc == 0) {
        rc = append_pieces(cur, j->next_key, group, n);
        if (rc == 0 && j->old && n > 0) {
            rc = meta_put_version(txn, j->meta);
        }
        if (rc == 0 && trim_to > 0) {
            const size_t budget = n == 0 ? TRIM_ALONE : TRIM_AT_LEAST + 2 * pieces_of(n);
            rc = trim(cur, trim_to, budget, trim_more);
        }
        mdb_cursor_close(cur);
    }
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = env_commit(txn);
    if (rc == 0) {
        j->next_key += pieces_of(n);
        j->old = j->old && n == 0;
    }
    return rc;
}

int journal_append(struct journal *j, const uint8_t *group, size_t n, uint64_t trim_to,
                   bool *trim_more)
{
    const char *was = guard_enter(j->env.file);
    const int rc = append(j, group, n, trim_to, trim_more);

    (void)guard_enter(was);
    return rc;
}

/* ---- reading back ---- */

struct scan {
    MDB_cursor *cur;
    uint64_t after;
    uint64_t expected; /* number of the next group; 0: any up to after + 1 */
    uint64_t key;      /* of the piece at hand */
    MDB_val piece;
    char *what;
    size_t cap;
};

static int damaged(struct scan *s, const char *how)
{
    snprintf(s->what, s->cap, "the group at %llu %s", (unsigned long long)s->key, how);
    return MDB_CORRUPTED;
}

static int next_piece(struct scan *s, bool inside)
{
    MDB_val k;
    int rc = mdb_cursor_get(s->cur, &k, &s->piece, MDB_NEXT);
    uint64_t key;

    if (rc == MDB_NOTFOUND && inside) {
        return damaged(s, "is cut off");
    }
    if (rc != 0) {
        return rc;
    }
    memcpy(&key, k.mv_data, sizeof(key));
    if (inside && key != s->key + 1) {
        return damaged(s, "has a gap");
    }
    s->key = key;
    return 0;
}

/* The group that starts with the piece at hand, in *buf. */
static int read_group(struct scan *s, uint8_t **buf, struct group *g)
{
    const uint32_t n = s->piece.mv_size < GROUP_HEADER ? 0 : group_length(s->piece.mv_data);
    size_t have = 0;

    *buf = NULL;
    if (n == 0) {
        return damaged(s, "has no header");
    }
    *buf = malloc(n);
    if (*buf == NULL) {
        return ENOMEM;
    }
    for (;;) {
        int rc;
        if (s->piece.mv_size > n - have) {
            return damaged(s, "is too long");
        }
        memcpy(*buf + have, s->piece.mv_data, s->piece.mv_size);
        have += s->piece.mv_size;
        if (have == n) {
            break;
        }
        rc = next_piece(s, true);
        if (rc != 0) {
            return rc;
        }
    }
    return group_open(*buf, n, g) ? 0 : damaged(s, "has a wrong checksum");
}

static int scan_groups(struct scan *s, journal_fn fn, void *arg)
{
    int rc = next_piece(s, false);

    while (rc == 0) {
        uint8_t *buf;
        struct group g;

        rc = read_group(s, &buf, &g);
        if (rc == 0 && (s->expected != 0 ? g.number != s->expected : g.number > s->after + 1)) {
            rc = damaged(s, "is not the one that comes next");
        }
        if (rc != 0) {
            free(buf);
            return rc;
        }
        s->expected = g.number + 1;
        if (g.number <= s->after) {
            free(buf); /* folded, not trimmed yet */
        } else if (!fn(arg, buf, g.length, s->key + 1)) {
            return ENOMEM;
        }
        rc = next_piece(s, false);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int journal_scan(struct journal *j, uint64_t after, journal_fn fn, void *arg, char *what,
                 size_t cap)
{
    struct scan s = {.after = after, .what = what, .cap = cap};
    MDB_txn *txn;
    int rc = mdb_txn_begin(j->env.mdb, NULL, MDB_RDONLY, &txn);

    what[0] = '\0';
    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_open(txn, j->log, &s.cur);
    if (rc == 0) {
        rc = scan_groups(&s, fn, arg);
        mdb_cursor_close(s.cur);
    }
    mdb_txn_abort(txn);
    if (rc == 0) {
        j->next_key = s.key + 1;
    }
    return rc;
}
