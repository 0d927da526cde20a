/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/state.h"

#include "storage/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>

#define LENGTH 4u /* before the first piece's bytes */

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

int state_tables(struct state *s, MDB_txn *txn, unsigned flags)
{
    const struct {
        const char *name;
        MDB_dbi *dbi;
    } tables[] = {
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
    }
    rc = mdb_dbi_open(txn, "times", flags, &s->times);
    if (rc == MDB_NOTFOUND) {
        s->times = 0;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
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
    uint8_t b[8];
    int rc = meta_get(txn, meta, key, b, sizeof(b));

    if (rc == 0) {
        *out = get_le64(b);
    }
    return rc;
}

int meta_put_u64(MDB_txn *txn, MDB_dbi meta, const char *key, uint64_t v)
{
    uint8_t b[8];

    put_le64(b, v);
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

static uint32_t pieces_of(size_t whole)
{
    return (uint32_t)((whole + LENGTH + PIECE_MAX - 1) / PIECE_MAX);
}

static int first_piece(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, MDB_val *v,
                       size_t *whole)
{
    struct piece_key pk;
    MDB_val key = piece_key(&pk, k, kn, 0);
    int rc = mdb_get(txn, dbi, &key, v);

    if (rc == 0 && v->mv_size < LENGTH) {
        rc = MDB_CORRUPTED;
    }
    if (rc == 0) {
        *whole = get_le32(v->mv_data);
    }
    return rc;
}

/* The pieces behind the first, which is in v, gathered in s. */
static int gather(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, MDB_val v, size_t whole,
                  struct scratch *s, MDB_val *out)
{
    uint8_t *buf;
    size_t have = 0;

    if (v.mv_size - LENGTH == whole) {
        *out = (MDB_val){whole, (uint8_t *)v.mv_data + LENGTH};
        return 0;
    }
    if (v.mv_size != PIECE_MAX || (buf = scratch_room(s, whole)) == NULL) {
        return v.mv_size != PIECE_MAX ? MDB_CORRUPTED : ENOMEM;
    }
    v = (MDB_val){v.mv_size - LENGTH, (uint8_t *)v.mv_data + LENGTH};
    for (uint32_t piece = 1; v.mv_size <= whole - have; piece++) {
        struct piece_key pk;
        MDB_val key;
        memcpy(buf + have, v.mv_data, v.mv_size);
        have += v.mv_size;
        if (have == whole) {
            *out = (MDB_val){whole, buf};
            return 0;
        }
        key = piece_key(&pk, k, kn, piece);
        if (mdb_get(txn, dbi, &key, &v) != 0 || v.mv_size == 0) {
            return MDB_CORRUPTED;
        }
    }
    return MDB_CORRUPTED;
}

int object_get(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, struct scratch *s,
               MDB_val *out)
{
    size_t whole;
    MDB_val v;
    int rc = first_piece(txn, dbi, k, kn, &v, &whole);

    return rc != 0 ? rc : gather(txn, dbi, k, kn, v, whole, s, out);
}

static int put_first(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn, const uint8_t *whole,
                     size_t n, bool appending)
{
    const size_t part = n < PIECE_MAX - LENGTH ? n : PIECE_MAX - LENGTH;
    struct piece_key pk;
    MDB_val key = piece_key(&pk, k, kn, 0);
    MDB_val v = {LENGTH + part, NULL};
    int rc = mdb_put(txn, dbi, &key, &v, MDB_RESERVE | (appending ? MDB_APPEND : 0u));

    if (rc == 0) {
        put_le32(v.mv_data, (uint32_t)n);
        memcpy((uint8_t *)v.mv_data + LENGTH, whole, part);
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
    const uint32_t pieces = pieces_of(n);
    size_t old = 0;
    MDB_val v;
    int rc = 0;

    if (!appending) {
        rc = first_piece(txn, dbi, k, kn, &v, &old);
        if (rc == 0 && pieces_of(old) > pieces) {
            rc = del_pieces(txn, dbi, k, kn, pieces, pieces_of(old));
        } else if (rc == MDB_NOTFOUND) {
            rc = 0;
        }
    }
    if (rc == 0) {
        rc = put_first(txn, dbi, k, kn, whole, n, appending);
    }
    for (uint32_t piece = 1; rc == 0 && piece < pieces; piece++) {
        const size_t at = (size_t)piece * PIECE_MAX - LENGTH;
        struct piece_key pk;
        MDB_val key = piece_key(&pk, k, kn, piece);
        v = (MDB_val){n - at < PIECE_MAX ? n - at : PIECE_MAX, (void *)(uintptr_t)(whole + at)};
        /* Appended, two pieces fill a page; put, every one would take a page. */
        rc = mdb_put(txn, dbi, &key, &v, appending ? MDB_APPEND : 0u);
    }
    return rc;
}

int object_peek(MDB_cursor *cur, const uint8_t *k, size_t kn, MDB_val *first)
{
    struct piece_key pk;
    MDB_val key = piece_key(&pk, k, kn, 0);
    int rc = mdb_cursor_get(cur, &key, first, MDB_SET);

    if (rc == 0 && first->mv_size < LENGTH) {
        rc = MDB_CORRUPTED;
    }
    if (rc == 0) {
        *first = (MDB_val){first->mv_size - LENGTH, (uint8_t *)first->mv_data + LENGTH};
    }
    return rc;
}

int object_patch(MDB_cursor *cur, const uint8_t *k, size_t kn, const uint8_t *head, size_t n)
{
    uint8_t copy[PIECE_MAX];
    struct piece_key pk;
    MDB_val key;
    MDB_val v;
    int rc = object_peek(cur, k, kn, &v);

    if (rc == 0 && (v.mv_size < n || v.mv_size > PIECE_MAX - LENGTH)) {
        rc = MDB_CORRUPTED;
    }
    if (rc != 0) {
        return rc;
    }
    memcpy(copy, (uint8_t *)v.mv_data - LENGTH, LENGTH + v.mv_size);
    memcpy(copy + LENGTH, head, n);
    v = (MDB_val){LENGTH + v.mv_size, copy};
    key = piece_key(&pk, k, kn, 0);
    return mdb_cursor_put(cur, &key, &v, 0);
}

int object_del(MDB_txn *txn, MDB_dbi dbi, const uint8_t *k, size_t kn)
{
    size_t whole;
    MDB_val v;
    int rc = first_piece(txn, dbi, k, kn, &v, &whole);

    return rc != 0 ? rc : del_pieces(txn, dbi, k, kn, 0, pieces_of(whole));
}

int object_next_first(MDB_cursor *cur, uint8_t *k, size_t kn, MDB_val *first, size_t *whole_n,
                      bool *started)
{
    struct piece_key pk;
    MDB_val key = piece_key(&pk, k, kn, 0);
    MDB_val v;
    int rc;

    rc = mdb_cursor_get(cur, &key, &v, *started ? MDB_NEXT : MDB_SET_RANGE);
    if (rc == 0 && *started && key.mv_size == kn + 4 &&
        get_be32((uint8_t *)key.mv_data + kn) != 0) {
        /* Further pieces of the last one may fill many pages: not through, but over them. */
        key = piece_key(&pk, k, kn, UINT32_MAX);
        rc = mdb_cursor_get(cur, &key, &v, MDB_SET_RANGE);
    }
    *started = true;
    while (rc == 0 && key.mv_size == kn + 4 && get_be32((uint8_t *)key.mv_data + kn) != 0) {
        rc = mdb_cursor_get(cur, &key, &v, MDB_NEXT); /* begun in the middle of one */
    }
    if (rc != 0) {
        return rc;
    }
    if (key.mv_size != kn + 4 || v.mv_size < LENGTH) {
        return MDB_CORRUPTED;
    }
    memcpy(k, key.mv_data, kn);
    *whole_n = get_le32(v.mv_data);
    *first = (MDB_val){v.mv_size - LENGTH, (uint8_t *)v.mv_data + LENGTH};
    return 0;
}

int object_rest(MDB_cursor *cur, const uint8_t *k, size_t kn, MDB_val first, size_t whole_n,
                struct scratch *s, MDB_val *whole)
{
    const MDB_val v = {first.mv_size + LENGTH, (uint8_t *)first.mv_data - LENGTH};

    return gather(mdb_cursor_txn(cur), mdb_cursor_dbi(cur), k, kn, v, whole_n, s, whole);
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

/* ---- times ---- */

int state_count_time(struct state *s, MDB_txn *txn, uint32_t when_s, int64_t n)
{
    uint8_t k[4];
    uint8_t b[8];
    MDB_val key = {sizeof(k), k};
    MDB_val val;
    int64_t count = 0;
    int rc;

    put_be32(k, when_s);
    rc = mdb_get(txn, s->times, &key, &val);
    if (rc == 0 && val.mv_size != sizeof(b)) {
        return MDB_CORRUPTED;
    }
    if (rc == 0) {
        count = (int64_t)get_le64(val.mv_data);
    } else if (rc != MDB_NOTFOUND) {
        return rc;
    }
    if (count + n <= 0) {
        return rc == 0 ? mdb_del(txn, s->times, &key, NULL) : 0;
    }
    put_le64(b, (uint64_t)(count + n));
    val = (MDB_val){sizeof(b), b};
    return mdb_put(txn, s->times, &key, &val, 0);
}

/* Of the entries that have their body with them. */
static int oldest_time(struct state *s, MDB_txn *txn, uint32_t *when_s)
{
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    int rc = s->times == 0 ? MDB_NOTFOUND : mdb_cursor_open(txn, s->times, &cur);

    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_get(cur, &key, &val, MDB_FIRST);
    mdb_cursor_close(cur);
    if (rc == 0 && key.mv_size != 4) {
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
