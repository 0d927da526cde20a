/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/state.h"

#include "storage/bytes.h"
#include "storage/crc32c.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>

#define LENGTH     4u                 /* of the whole, before the first piece's bytes */
#define HAS_SUMS   0x80000000u        /* in it: its pieces have checksums, */
#define HEAD       (LENGTH + ROW_SUM) /* the first one's behind the length, others' in front */
#define FIRST_PART (PIECE_MAX - HEAD)
#define NEXT_PART  (PIECE_MAX - ROW_SUM)
#define TABLES     9u
#define FIRST_DBI  2u /* LMDB's own two have the numbers before it */

uint8_t *scratch_room(struct scratch *s, size_t n)
{
    if (n > s->cap) {
        size_t cap = s->cap * 2 > n ? s->cap * 2 : n + 4096;
        uint8_t *p = realloc(s->p, cap);
        if (p == NULL) {
            return NULL;
        }
        s->p = p;
        s->cap = cap;
    }
    return s->p;
}

void scratch_free(struct scratch *s)
{
    free(s->p);
    *s = (struct scratch){0};
}

/* Checksums have the tables' numbers in them, so these are part of the format: LMDB gives them in
 * the order in which tables are opened. */
int state_tables(struct state *s, MDB_txn *txn, unsigned flags)
{
    const struct {
        const char *name;
        MDB_dbi *dbi;
    } tables[TABLES - 1] = {
        {"meta", &s->meta},     {"sessions", &s->sessions}, {"subs", &s->subs},
        {"bodies", &s->bodies}, {"retained", &s->retained}, {"wills", &s->wills},
        {"queue", &s->queue},   {"inbound", &s->inbound},
    };

    int rc;

    s->name_mask = UINT64_MAX;
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        rc = mdb_dbi_open(txn, tables[i].name, flags, tables[i].dbi);
        if (rc != 0) {
            return rc;
        }
        assert(*tables[i].dbi == FIRST_DBI + i);
    }
    rc = mdb_dbi_open(txn, "times", flags, &s->times);
    if (rc == MDB_NOTFOUND) {
        s->times = 0;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- checksums ---- */

uint32_t row_sum(MDB_dbi dbi, MDB_val key, const void *value, size_t n)
{
    const uint8_t table = (uint8_t)dbi;
    const uint32_t of_key = crc32c(crc32c(0, &table, 1), key.mv_data, key.mv_size);

    return crc32c(of_key, value, n);
}

bool row_is_valid(MDB_dbi dbi, MDB_val key, MDB_val val)
{
    const uint8_t *p = val.mv_data;

    return val.mv_size >= ROW_SUM &&
           row_sum(dbi, key, p, val.mv_size - ROW_SUM) == get_le32(p + val.mv_size - ROW_SUM);
}

void row_seal(MDB_dbi dbi, MDB_val key, uint8_t *p, size_t n)
{
    put_le32(p + n, row_sum(dbi, key, p, n));
}

#define ROWS_SIZE ((TABLES - 1) * 8u)

static MDB_val rows_key(void)
{
    static const char rows[] = "rows";

    return (MDB_val){sizeof(rows) - 1, (void *)(uintptr_t)rows};
}

/* Of all tables but `meta` itself, in the order of their numbers. */
static int count_rows(const struct state *s, MDB_txn *txn, uint8_t *p)
{
    const MDB_dbi dbis[TABLES - 1] = {s->sessions, s->subs,  s->bodies,  s->retained,
                                      s->wills,    s->queue, s->inbound, s->times};
    int rc = 0;

    for (size_t i = 0; i < TABLES - 1 && rc == 0; i++) {
        MDB_stat st = {0};
        rc = dbis[i] == 0 ? 0 : mdb_stat(txn, dbis[i], &st);
        put_le64(p + i * 8, st.ms_entries);
    }
    return rc;
}

int state_put_rows(struct state *s, MDB_txn *txn)
{
    uint8_t b[ROWS_SIZE + ROW_SUM];
    MDB_val key = rows_key();
    MDB_val val = {sizeof(b), b};
    int rc = count_rows(s, txn, b);

    row_seal(s->meta, key, b, ROWS_SIZE);
    return rc != 0 ? rc : mdb_put(txn, s->meta, &key, &val, 0);
}

int state_check_rows(const struct state *s, MDB_txn *txn)
{
    uint8_t b[ROWS_SIZE];
    MDB_val key = rows_key();
    MDB_val val;
    int rc = mdb_get(txn, s->meta, &key, &val);

    if (rc == 0 && (val.mv_size != ROWS_SIZE + ROW_SUM || !row_is_valid(s->meta, key, val))) {
        rc = MDB_CORRUPTED;
    }
    rc = rc != 0 ? rc : count_rows(s, txn, b);
    return rc == 0 && memcmp(b, val.mv_data, sizeof(b)) != 0 ? MDB_CORRUPTED : rc;
}

/* ---- meta ---- */

int meta_get(MDB_txn *txn, MDB_dbi meta, const char *key, void *value, size_t n)
{
    MDB_val k = {strlen(key), (void *)(uintptr_t)key};
    MDB_val v;
    int rc = mdb_get(txn, meta, &k, &v);

    if (rc == 0 && v.mv_size != n) {
        rc = MDB_CORRUPTED;
    }
    if (rc == 0) {
        memcpy(value, v.mv_data, n);
    }
    return rc;
}

int meta_put(MDB_txn *txn, MDB_dbi meta, const char *key, const void *value, size_t n)
{
    MDB_val k = {strlen(key), (void *)(uintptr_t)key};
    MDB_val v = {n, (void *)(uintptr_t)value};

    return mdb_put(txn, meta, &k, &v, 0);
}

int meta_get_u64(MDB_txn *txn, MDB_dbi meta, const char *key, uint64_t *out)
{
    MDB_val k = {strlen(key), (void *)(uintptr_t)key};
    MDB_val v;
    int rc = mdb_get(txn, meta, &k, &v);

    if (rc == 0 && v.mv_size != 8 && (v.mv_size != 8 + ROW_SUM || !row_is_valid(meta, k, v))) {
        rc = MDB_CORRUPTED;
    }
    if (rc == 0) {
        *out = get_le64(v.mv_data);
    }
    return rc;
}

int meta_put_u64(MDB_txn *txn, MDB_dbi meta, const char *key, uint64_t v)
{
    const MDB_val k = {strlen(key), (void *)(uintptr_t)key};
    uint8_t b[8 + ROW_SUM];

    put_le64(b, v);
    row_seal(meta, k, b, 8);
    return meta_put(txn, meta, key, b, sizeof(b));
}

int meta_put_version(MDB_txn *txn, MDB_dbi meta)
{
    uint8_t b[4];

    put_le32(b, STORE_VERSION);
    return meta_put(txn, meta, "version", b, sizeof(b));
}

/* ---- objects ---- */

struct piece_key {
    uint8_t b[OBJECT_KEY + 4];
    size_t kn;
};

static MDB_val piece_key(struct piece_key *pk, const uint8_t *k, size_t kn, uint32_t piece)
{
    memcpy(pk->b, k, kn);
    put_be32(pk->b + kn, piece);
    pk->kn = kn;
    return (MDB_val){kn + 4, pk->b};
}

/* The pieces of an object, as one version or another cuts them. */
struct cut {
    size_t whole; /* bytes of the object */
    bool sealed;
};

static size_t head_of(const struct cut *c, uint32_t piece)
{
    return (piece == 0 ? LENGTH : 0) + (c->sealed ? ROW_SUM : 0);
}

static uint32_t pieces_of(const struct cut *c)
{
    const size_t part = PIECE_MAX - head_of(c, 1);

    return (uint32_t)((c->whole + LENGTH + part - 1) / part);
}

/* Of a first piece: over the length and the bytes. */
static uint32_t sum_of_first(MDB_dbi dbi, MDB_val key, const uint8_t *p, size_t n)
{
    return crc32c(row_sum(dbi, key, p, LENGTH), p + HEAD, n - HEAD);
}

/* The bytes of a piece, of a valid row. */
static int open_piece(MDB_dbi dbi, MDB_val key, MDB_val v, const struct cut *c, uint32_t piece,
                      MDB_val *bytes)
{
    const uint8_t *p = v.mv_data;
    const size_t head = head_of(c, piece);

    if (v.mv_size < head || v.mv_size > PIECE_MAX ||
        (c->sealed && piece == 0 && sum_of_first(dbi, key, p, v.mv_size) != get_le32(p + LENGTH)) ||
        (c->sealed && piece > 0 &&
         row_sum(dbi, key, p + ROW_SUM, v.mv_size - ROW_SUM) != get_le32(p))) {
        return MDB_CORRUPTED;
    }
    *bytes = (MDB_val){v.mv_size - head, (uint8_t *)v.mv_data + head};
    return 0;
}

static int open_first(MDB_dbi dbi, MDB_val key, MDB_val v, struct cut *c, MDB_val *bytes)
{
    uint32_t length;

    if (v.mv_size < LENGTH) {
        return MDB_CORRUPTED;
    }
    length = get_le32(v.mv_data);
    *c = (struct cut){length & ~HAS_SUMS, (length & HAS_SUMS) != 0};
    return open_piece(dbi, key, v, c, 0, bytes);
}

bool piece_is_valid(MDB_dbi dbi, MDB_val key, MDB_val val, bool sealed)
{
    const uint8_t *p = val.mv_data;
    struct cut c = {.sealed = true};
    MDB_val bytes;

    if (key.mv_size < 4 || val.mv_size == 0 || val.mv_size > PIECE_MAX) {
        return false;
    }
    if (get_be32((uint8_t *)key.mv_data + key.mv_size - 4) == 0) {
        return open_first(dbi, key, val, &c, &bytes) == 0 && (c.sealed || !sealed);
    }
    return !sealed ||
           (val.mv_size > ROW_SUM && open_piece(dbi, key, val, &c, 1, &bytes) == 0 && p != NULL);
}

static int first_piece(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, MDB_val *bytes,
                       struct cut *c)
{
    struct piece_key pk;
    MDB_val key = piece_key(&pk, k, kn, 0);
    MDB_val v;
    int rc = mdb_get(txn, dbi, &key, &v);

    return rc != 0 ? rc : open_first(dbi, key, v, c, bytes);
}

/* The pieces behind the first, which is in v, gathered in s. */
static int gather(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, MDB_val v, struct cut c,
                  struct scratch *s, MDB_val *out)
{
    uint8_t *buf;
    size_t have = 0;

    if (v.mv_size == c.whole) {
        *out = v;
        return 0;
    }
    if (v.mv_size != PIECE_MAX - head_of(&c, 0)) {
        return MDB_CORRUPTED;
    }
    buf = scratch_room(s, c.whole);
    if (buf == NULL) {
        return ENOMEM;
    }
    for (uint32_t piece = 1; v.mv_size <= c.whole - have; piece++) {
        struct piece_key pk;
        MDB_val key;
        memcpy(buf + have, v.mv_data, v.mv_size);
        have += v.mv_size;
        if (have == c.whole) {
            *out = (MDB_val){c.whole, buf};
            return 0;
        }
        key = piece_key(&pk, k, kn, piece);
        if (mdb_get(txn, dbi, &key, &v) != 0 || open_piece(dbi, key, v, &c, piece, &v) != 0 ||
            v.mv_size == 0) {
            return MDB_CORRUPTED;
        }
    }
    return MDB_CORRUPTED;
}

int object_get(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, struct scratch *s,
               MDB_val *out)
{
    struct cut c;
    MDB_val v;
    int rc = first_piece(txn, dbi, k, kn, &v, &c);

    return rc != 0 ? rc : gather(txn, dbi, k, kn, v, c, s, out);
}

static int put_first(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, const uint8_t *whole,
                     size_t n, bool appending)
{
    const size_t part = n < FIRST_PART ? n : FIRST_PART;
    struct piece_key pk;
    MDB_val key = piece_key(&pk, k, kn, 0);
    MDB_val v = {HEAD + part, NULL};
    int rc = mdb_put(txn, dbi, &key, &v, MDB_RESERVE | (appending ? MDB_APPEND : 0u));
    uint8_t *p = v.mv_data;

    if (rc == 0) {
        put_le32(p, (uint32_t)n | HAS_SUMS);
        memcpy(p + HEAD, whole, part);
        put_le32(p + LENGTH, sum_of_first(dbi, key, p, v.mv_size));
    }
    return rc;
}

static int put_piece(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, uint32_t piece,
                     const uint8_t *bytes, size_t n, unsigned flags)
{
    struct piece_key pk;
    MDB_val key = piece_key(&pk, k, kn, piece);
    MDB_val v = {ROW_SUM + n, NULL};
    int rc = mdb_put(txn, dbi, &key, &v, MDB_RESERVE | flags);
    uint8_t *p = v.mv_data;

    if (rc == 0) {
        put_le32(p, row_sum(dbi, key, bytes, n));
        memcpy(p + ROW_SUM, bytes, n);
    }
    return rc;
}

static int del_pieces(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, uint32_t from,
                      uint32_t to)
{
    for (uint32_t piece = from; piece < to; piece++) {
        struct piece_key pk;
        MDB_val key = piece_key(&pk, k, kn, piece);
        int rc = mdb_del(txn, dbi, &key, NULL);
        if (rc != 0) {
            return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
        }
    }
    return 0;
}

int object_put(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, const uint8_t *whole,
               size_t n, bool appending)
{
    const struct cut c = {n, true};
    const uint32_t pieces = pieces_of(&c);
    struct cut old;
    MDB_val v;
    int rc = 0;

    if (!appending) {
        rc = first_piece(txn, dbi, k, kn, &v, &old);
        if (rc == 0 && pieces_of(&old) > pieces) {
            rc = del_pieces(txn, dbi, k, kn, pieces, pieces_of(&old));
        } else if (rc == MDB_NOTFOUND) {
            rc = 0;
        }
    }
    if (rc == 0) {
        rc = put_first(txn, dbi, k, kn, whole, n, appending);
    }
    for (uint32_t piece = 1; rc == 0 && piece < pieces; piece++) {
        const size_t at = FIRST_PART + (size_t)(piece - 1) * NEXT_PART;
        /* Appended, two pieces fill a page; put, every one would take a page. */
        rc = put_piece(txn, dbi, k, kn, piece, whole + at, n - at < NEXT_PART ? n - at : NEXT_PART,
                       appending ? MDB_APPEND : 0u);
    }
    return rc;
}

static int peek(MDB_cursor *cur, MDB_val *key, struct cut *c, MDB_val *bytes)
{
    MDB_val v;
    int rc = mdb_cursor_get(cur, key, &v, MDB_SET);

    return rc != 0 ? rc : open_first(mdb_cursor_dbi(cur), *key, v, c, bytes);
}

int object_peek(MDB_cursor *cur, const uint8_t *k, size_t kn, MDB_val *first)
{
    struct piece_key pk;
    MDB_val key = piece_key(&pk, k, kn, 0);
    struct cut c;

    return peek(cur, &key, &c, first);
}

/* An object without checksums keeps its form: it is the next object_put() that gives it the new. */
int object_patch(MDB_cursor *cur, const uint8_t *k, size_t kn, const uint8_t *head, size_t n)
{
    uint8_t copy[PIECE_MAX];
    struct piece_key pk;
    MDB_val key = piece_key(&pk, k, kn, 0);
    struct cut c;
    MDB_val v;
    size_t before;
    int rc = peek(cur, &key, &c, &v);

    if (rc == 0 && v.mv_size < n) {
        rc = MDB_CORRUPTED;
    }
    if (rc != 0) {
        return rc;
    }
    before = head_of(&c, 0);
    memcpy(copy, (uint8_t *)v.mv_data - before, before + v.mv_size);
    memcpy(copy + before, head, n);
    v = (MDB_val){before + v.mv_size, copy};
    if (c.sealed) {
        put_le32(copy + LENGTH, sum_of_first(mdb_cursor_dbi(cur), key, copy, v.mv_size));
    }
    return mdb_cursor_put(cur, &key, &v, 0);
}

int object_del(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn)
{
    struct cut c;
    MDB_val v;
    int rc = first_piece(txn, dbi, k, kn, &v, &c);

    return rc != 0 ? rc : del_pieces(txn, dbi, k, kn, 0, pieces_of(&c));
}

/* Another piece where an object should begin is the rest of one that is lost. */
static bool is_first(MDB_val key, size_t kn)
{
    return key.mv_size == kn + 4 && get_be32((uint8_t *)key.mv_data + kn) == 0;
}

int object_next_first(MDB_cursor *cur, uint8_t *k, size_t kn, MDB_val *first, size_t *whole_n,
                      bool *started)
{
    struct piece_key pk;
    MDB_val key = piece_key(&pk, k, kn, 0);
    struct cut c;
    MDB_val v;
    int rc;

    rc = mdb_cursor_get(cur, &key, &v, *started ? MDB_NEXT : MDB_SET_RANGE);
    if (rc == 0 && *started && !is_first(key, kn) && key.mv_size == kn + 4 &&
        memcmp(key.mv_data, k, kn) == 0) {
        /* Further pieces of the last one may fill many pages: not through, but over them. */
        key = piece_key(&pk, k, kn, UINT32_MAX);
        rc = mdb_cursor_get(cur, &key, &v, MDB_SET_RANGE);
    }
    *started = true;
    if (rc != 0) {
        return rc;
    }
    if (!is_first(key, kn)) {
        return MDB_CORRUPTED;
    }
    memcpy(k, key.mv_data, kn);
    rc = open_first(mdb_cursor_dbi(cur), key, v, &c, first);
    *whole_n = rc == 0 ? c.whole : 0;
    return rc;
}

int object_rest(MDB_cursor *cur, const uint8_t *k, size_t kn, MDB_val first, size_t whole_n,
                struct scratch *s, MDB_val *whole)
{
    MDB_val key;
    MDB_val row;
    int rc = mdb_cursor_get(cur, &key, &row, MDB_GET_CURRENT);
    const struct cut c = {whole_n, rc == 0 && (get_le32(row.mv_data) & HAS_SUMS) != 0};

    return rc != 0 ? rc
                   : gather(mdb_cursor_txn(cur), mdb_cursor_dbi(cur), k, kn, first, c, s, whole);
}

int object_next(MDB_cursor *cur, uint8_t *k, size_t kn, struct scratch *s, MDB_val *whole,
                bool *started)
{
    MDB_val first;
    size_t n;
    int rc = object_next_first(cur, k, kn, &first, &n, started);

    return rc != 0 ? rc : object_rest(cur, k, kn, first, n, s, whole);
}

/* ---- names ---- */

struct named {
    MDB_dbi dbi;
    uint8_t k[OBJECT_KEY]; /* the counter is the last byte */
    size_t kn;
};

static struct named named_sub(const struct state *s, uint64_t session, struct store_bytes name)
{
    struct named n = {.dbi = s->subs, .kn = SUB_KEY};

    put_be64(n.k, session);
    put_be64(n.k + 8, XXH3_64bits(name.p, name.n) & s->name_mask);
    return n;
}

static struct named named_retained(const struct state *s, struct store_bytes name)
{
    struct named n = {.dbi = s->retained, .kn = RETAINED_KEY};
    XXH128_hash_t h = XXH3_128bits(name.p, name.n);

    put_be64(n.k, h.high64 & s->name_mask);
    put_be64(n.k + 8, h.low64 & s->name_mask);
    return n;
}

/* 0: n is the key of this name. MDB_NOTFOUND: n is the first free one. */
static int named_find(MDB_txn *txn, struct named *n, struct store_bytes name, struct scratch *tmp)
{
    for (unsigned counter = 0; counter < 256; counter++) {
        struct store_op op;
        const uint8_t *p;
        MDB_val whole;
        int rc;

        n->k[n->kn - 1] = (uint8_t)counter;
        rc = object_get(txn, n->dbi, n->k, n->kn, tmp, &whole);
        if (rc != 0) {
            return rc;
        }
        p = whole.mv_data;
        if (!record_decode(&p, p + whole.mv_size, &op)) {
            return MDB_CORRUPTED;
        }
        if (op.name.n == name.n && (name.n == 0 || memcmp(op.name.p, name.p, name.n) == 0)) {
            return 0;
        }
    }
    return MDB_KEYEXIST; /* 256 names of one hash */
}

static int named_put(MDB_txn *txn, struct named *n, const struct store_op *op, struct scratch *tmp)
{
    const size_t size = record_size(op);
    uint8_t *buf;
    int rc = named_find(txn, n, op->name, tmp);

    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }
    buf = scratch_room(tmp, size);
    if (buf == NULL) {
        return ENOMEM;
    }
    record_encode(buf, op);
    return object_put(txn, n->dbi, n->k, n->kn, buf, size, false);
}

/* The highest counter moves into the gap, so that a search may end at the first free one. */
static int named_del(MDB_txn *txn, struct named *n, struct store_bytes name, struct scratch *tmp)
{
    struct named last = *n;
    MDB_val whole;
    int rc = named_find(txn, n, name, tmp);

    if (rc != 0) {
        return rc;
    }
    last = *n;
    do {
        last.k[last.kn - 1]++;
        rc = last.k[last.kn - 1] == 0 ? MDB_NOTFOUND
                                      : object_get(txn, last.dbi, last.k, last.kn, tmp, &whole);
    } while (rc == 0);
    last.k[last.kn - 1]--;
    if (rc == MDB_NOTFOUND && last.k[last.kn - 1] != n->k[n->kn - 1]) {
        rc = object_get(txn, last.dbi, last.k, last.kn, tmp, &whole);
        if (rc == 0 && whole.mv_data != tmp->p) { /* a view into a page that the put may change */
            uint8_t *buf = scratch_room(tmp, whole.mv_size);
            if (buf == NULL) {
                return ENOMEM;
            }
            memcpy(buf, whole.mv_data, whole.mv_size);
            whole.mv_data = buf;
        }
        if (rc == 0) {
            rc = object_put(txn, n->dbi, n->k, n->kn, whole.mv_data, whole.mv_size, false);
        }
    } else if (rc == MDB_NOTFOUND) {
        rc = 0;
    }
    return rc != 0 ? rc : object_del(txn, last.dbi, last.k, last.kn);
}

int state_sub_put(struct state *s, MDB_txn *txn, const struct store_op *op, struct scratch *tmp)
{
    struct named n = named_sub(s, op->session, op->name);

    return named_put(txn, &n, op, tmp);
}

int state_sub_del(struct state *s, MDB_txn *txn, uint64_t session, struct store_bytes name,
                  struct scratch *tmp)
{
    struct named n = named_sub(s, session, name);

    return named_del(txn, &n, name, tmp);
}

int state_retained_put(struct state *s, MDB_txn *txn, const struct store_op *op,
                       struct scratch *tmp)
{
    struct named n = named_retained(s, op->name);

    return named_put(txn, &n, op, tmp);
}

int state_retained_del(struct state *s, MDB_txn *txn, struct store_bytes name, struct scratch *tmp)
{
    struct named n = named_retained(s, name);

    return named_del(txn, &n, name, tmp);
}

int state_retained_get(struct state *s, MDB_txn *txn, struct store_bytes name, struct scratch *tmp,
                       struct store_op *op)
{
    struct named n = named_retained(s, name);
    const uint8_t *p;
    MDB_val whole;
    int rc = named_find(txn, &n, name, tmp);

    rc = rc != 0 ? rc : object_get(txn, n.dbi, n.k, n.kn, tmp, &whole);
    if (rc != 0) {
        return rc;
    }
    p = whole.mv_data;
    return record_decode(&p, p + whole.mv_size, op) && op->kind == ST_RETAINED_PUT ? 0
                                                                                   : MDB_CORRUPTED;
}

/* ---- sessions, bodies ---- */

void session_head_put(uint8_t *p, const struct session_head *h)
{
    put_le64(p, h->next_seq);
    put_le64(p + 8, h->first_seq);
    put_le64(p + 16, h->count);
    put_le64(p + 24, h->bytes);
}

bool session_head_get(MDB_val first, struct session_head *h)
{
    const uint8_t *p = first.mv_data;

    if (first.mv_size < SESSION_HEAD) {
        return false;
    }
    *h = (struct session_head){get_le64(p), get_le64(p + 8), get_le64(p + 16), get_le64(p + 24)};
    return true;
}

bool session_view(MDB_val whole, struct session_head *h, struct store_op *op)
{
    const uint8_t *p = whole.mv_data;
    const uint8_t *end = p + whole.mv_size;

    if (!session_head_get(whole, h)) {
        return false;
    }
    p += SESSION_HEAD;
    return record_decode(&p, end, op) && op->kind == ST_SESSION_PUT && p == end;
}

bool body_view(MDB_val whole, uint32_t *count, struct store_op *op)
{
    const uint8_t *p = whole.mv_data;
    const uint8_t *end = p + whole.mv_size;

    if (whole.mv_size < BODY_HEAD) {
        return false;
    }
    *count = get_le32(p);
    p += BODY_HEAD;
    return record_decode(&p, end, op) && op->kind == ST_BODY_PUT && p == end;
}

bool inbound_is_valid(const struct state *s, MDB_val key, MDB_val val)
{
    return key.mv_size == INBOUND_KEY &&
           (val.mv_size == 0 || (val.mv_size == ROW_SUM && row_is_valid(s->inbound, key, val)));
}

/* ---- times ---- */

bool time_get(const struct state *s, MDB_val key, MDB_val val, uint64_t *n)
{
    if (key.mv_size != 4 ||
        (val.mv_size != 8 && (val.mv_size != 8 + ROW_SUM || !row_is_valid(s->times, key, val)))) {
        return false;
    }
    *n = get_le64(val.mv_data);
    return true;
}

int state_count_time(struct state *s, MDB_txn *txn, uint32_t when_s, int64_t n)
{
    uint8_t k[4];
    uint8_t b[8 + ROW_SUM];
    MDB_val key = {sizeof(k), k};
    MDB_val val;
    uint64_t there = 0;
    int64_t count;
    int rc;

    put_be32(k, when_s);
    rc = mdb_get(txn, s->times, &key, &val);
    if (rc == 0 && !time_get(s, key, val, &there)) {
        return MDB_CORRUPTED;
    }
    count = (int64_t)there;
    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }
    if (count + n <= 0) {
        return rc == 0 ? mdb_del(txn, s->times, &key, NULL) : 0;
    }
    put_le64(b, (uint64_t)(count + n));
    row_seal(s->times, key, b, 8);
    val = (MDB_val){sizeof(b), b};
    return mdb_put(txn, s->times, &key, &val, 0);
}

/* Of the entries that have their body with them. */
static int oldest_time(struct state *s, MDB_txn *txn, uint32_t *when_s)
{
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    uint64_t n;
    int rc = s->times == 0 ? MDB_NOTFOUND : mdb_cursor_open(txn, s->times, &cur);

    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_get(cur, &key, &val, MDB_FIRST);
    mdb_cursor_close(cur);
    if (rc == 0 && !time_get(s, key, val, &n)) {
        rc = MDB_CORRUPTED;
    }
    if (rc == 0) {
        *when_s = get_be32(key.mv_data);
    }
    return rc;
}

/* Of those in `bodies`. */
static int oldest_body(struct state *s, MDB_txn *txn, uint32_t *when_s)
{
    uint8_t k[OBJECT_KEY] = {0};
    struct scratch tmp = {0};
    bool started = false;
    struct store_op op = {0};
    uint32_t count;
    MDB_cursor *cur;
    MDB_val v;
    size_t n;
    int rc = mdb_cursor_open(txn, s->bodies, &cur);

    if (rc != 0) {
        return rc;
    }
    rc = object_next_first(cur, k, 8, &v, &n, &started);
    if (rc == 0 &&
        (v.mv_size < BODY_HEAD || !record_decode_cut((uint8_t *)v.mv_data + BODY_HEAD,
                                                     (uint8_t *)v.mv_data + v.mv_size, &op))) {
        rc = object_rest(cur, k, 8, v, n, &tmp, &v); /* a topic too long for the first piece */
        rc = rc == 0 && !body_view(v, &count, &op) ? MDB_CORRUPTED : rc;
    }
    mdb_cursor_close(cur);
    scratch_free(&tmp);
    *when_s = op.number;
    return rc;
}

int state_oldest_s(struct state *s, MDB_txn *txn, uint32_t *when_s)
{
    uint32_t in_times = 0;
    int rc = oldest_body(s, txn, when_s);
    int rc_times;

    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }
    rc_times = oldest_time(s, txn, &in_times);
    if (rc_times == 0 && (rc != 0 || in_times < *when_s)) {
        *when_s = in_times;
    }
    return rc_times == MDB_NOTFOUND ? rc : rc_times;
}

uint32_t body_size(const struct store_op *body)
{
    return (uint32_t)(body->name.n + body->props.n + body->data.n);
}
