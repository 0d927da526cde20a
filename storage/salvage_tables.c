/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/salvage_tables.h"

#include "storage/bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLD 1000u /* sessions of which rows may be lost, at most, for each damage */

typedef unsigned long long ull;

static const char *const things[SALVAGE_TABLES] = {
    "its record",        "subscriptions", "messages that several sessions share",
    "retained messages", "its will",      "queued messages",
    "ids of QoS 2",      "times"};

void tables_say(struct tables *t, const char *fmt, ...)
{
    char line[1024];
    va_list ap;

    if (t->fn == NULL) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    t->fn(t->arg, line);
}

/* Room for one more; false: no memory. */
static bool grow(void *list, size_t n, size_t *cap, size_t size)
{
    void **v = list;
    void *p;

    if (n < *cap) {
        return true;
    }
    p = realloc(*v, (*cap * 2 + 256) * size);
    if (p != NULL) {
        *v = p;
        *cap = *cap * 2 + 256;
    }
    return p != NULL;
}

static bool is_of_sessions(unsigned table)
{
    return table != SALVAGE_BODIES && table != SALVAGE_RETAINED && table != SALVAGE_TIMES;
}

static uint64_t session_of(MDB_val key, uint64_t otherwise)
{
    return key.mv_size >= 8 ? get_be64(key.mv_data) : otherwise;
}

void tables_lost_range(struct tables *t, unsigned table, MDB_val from, MDB_val to)
{
    if (is_of_sessions(table) && grow(&t->lost, t->nlost, &t->lost_cap, sizeof(*t->lost))) {
        t->lost[t->nlost++] =
            (struct lost_rows){table, session_of(from, 0), session_of(to, UINT64_MAX)};
    }
}

void tables_lost_row(struct tables *t, unsigned table, MDB_val key)
{
    if (is_of_sessions(table)) {
        tables_say(t, "state: a row of session %llu is damaged: %s", (ull)session_of(key, 0),
                   things[table]);
    } else {
        tables_say(t, "state: a row is damaged: %s", things[table]);
    }
    tables_lost_range(t, table, key, key);
}

void tables_fini(struct tables *t)
{
    for (size_t i = 0; i < t->nsessions; i++) {
        free(t->sessions[i].client);
    }
    free(t->sessions);
    free(t->bodies);
    free(t->lost);
    scratch_free(&t->tmp);
}

static struct saved_session *find_session(struct tables *t, uint64_t session)
{
    size_t lo = 0;
    size_t hi = t->nsessions;

    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        if (t->sessions[mid].session < session) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < t->nsessions && t->sessions[lo].session == session ? &t->sessions[lo] : NULL;
}

static struct saved_body *find_body(struct tables *t, uint64_t body)
{
    size_t lo = 0;
    size_t hi = t->nbodies;

    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        if (t->bodies[mid].body < body) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < t->nbodies && t->bodies[lo].body == body ? &t->bodies[lo] : NULL;
}

/* ---- objects ---- */

/* 1: it stays; 0: it goes; -1: no memory. */
typedef int (*object_fn)(struct tables *t, const uint8_t *k, MDB_val whole);

struct cleaning {
    struct tables *t;
    MDB_dbi dbi;
    size_t kn;
    object_fn fn;
    uint8_t good[OBJECT_KEY]; /* the object that pieces may belong to */
    bool has_good;
    uint64_t bad; /* objects */
};

/* 1: the row stays; 0: it goes; -1: no memory. */
static int judge(struct cleaning *c, MDB_val key)
{
    uint8_t k[OBJECT_KEY];
    MDB_val whole;
    int keep;
    int rc;

    if (key.mv_size != c->kn + 4) {
        return 0;
    }
    memcpy(k, key.mv_data, c->kn);
    if (get_be32((uint8_t *)key.mv_data + c->kn) != 0) {
        return c->has_good && memcmp(c->good, k, c->kn) == 0;
    }
    rc = object_get(c->t->txn, c->dbi, k, c->kn, &c->t->tmp, &whole);
    keep = rc == 0 ? c->fn(c->t, k, whole) : rc == ENOMEM ? -1 : 0;
    c->has_good = keep == 1;
    memcpy(c->good, k, c->kn);
    if (keep == 0 && rc != 0) {
        tables_lost_row(c->t, c->dbi - 3, key);
    }
    c->bad += keep == 0;
    return keep;
}

static int clean(struct cleaning *c)
{
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    int rc = mdb_cursor_open(c->t->txn, c->dbi, &cur);

    if (rc != 0) {
        return rc;
    }
    while ((rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) == 0) {
        const int keep = judge(c, key);
        rc = keep < 0 ? ENOMEM : keep == 0 ? mdb_cursor_del(cur, 0) : 0;
        if (rc != 0) {
            break;
        }
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int clean_objects(struct tables *t, MDB_dbi dbi, size_t kn, object_fn fn, uint64_t *lost)
{
    struct cleaning c = {.t = t, .dbi = dbi, .kn = kn, .fn = fn};
    const int rc = clean(&c);

    *lost += c.bad;
    return rc;
}

static bool decode(MDB_val whole, enum store_op_kind kind, struct store_op *op)
{
    const uint8_t *p = whole.mv_data;
    const uint8_t *end = p + whole.mv_size;

    return record_decode(&p, end, op) && p == end && op->kind == kind;
}

static int see_session(struct tables *t, const uint8_t *k, MDB_val whole)
{
    struct saved_session s = {.session = get_be64(k)};
    struct store_op op;
    char client[1024];

    if (!session_view(whole, &s.head, &op) || op.session != s.session) {
        return 0;
    }
    check_quote(client, sizeof(client), op.name);
    s.client = strdup(client);
    if (s.client == NULL || !grow(&t->sessions, t->nsessions, &t->sessions_cap, sizeof(s))) {
        free(s.client);
        return -1;
    }
    t->sessions[t->nsessions++] = s;
    return 1;
}

static int see_body(struct tables *t, const uint8_t *k, MDB_val whole)
{
    struct saved_body b = {.body = get_be64(k)};
    struct store_op op;

    if (!body_view(whole, &b.count, &op) || op.body != b.body) {
        return 0;
    }
    if (!grow(&t->bodies, t->nbodies, &t->bodies_cap, sizeof(b))) {
        return -1;
    }
    t->bodies[t->nbodies++] = b;
    return 1;
}

static int see_sub(struct tables *t, const uint8_t *k, MDB_val whole)
{
    struct store_op op;

    if (!decode(whole, ST_SUB_PUT, &op) || op.session != get_be64(k)) {
        return 0;
    }
    if (find_session(t, op.session) == NULL) {
        char filter[1024];
        check_quote(filter, sizeof(filter), op.name);
        tables_say(t, "session %llu: its subscription to \"%s\" is lost with it", (ull)op.session,
                   filter);
        return 0;
    }
    return 1;
}

static int see_retained(struct tables *t, const uint8_t *k, MDB_val whole)
{
    struct store_op op;

    (void)t;
    (void)k;
    return decode(whole, ST_RETAINED_PUT, &op);
}

static int see_will(struct tables *t, const uint8_t *k, MDB_val whole)
{
    struct store_op op;

    (void)t;
    return decode(whole, ST_WILL_PUT, &op) && op.session == get_be64(k);
}

/* ---- queues ---- */

struct times {
    uint32_t *v;
    size_t n, cap;
};

/* 1: the entry stays; 0: it has lost its body; -1: no memory. */
static int see_entry(struct tables *t, struct times *times, struct saved_session *s,
                     const struct queue_entry *e)
{
    struct saved_body *b = e->record_n > 0 ? NULL : find_body(t, e->body);

    if (e->record_n == 0 && b == NULL) {
        return 0;
    }
    if (b != NULL) {
        b->refs++;
    } else {
        if (!grow(&times->v, times->n, &times->cap, sizeof(*times->v))) {
            return -1;
        }
        times->v[times->n++] = record_body_when(e->record, e->record + e->record_n);
    }
    s->first = s->count == 0 ? e->seq : s->first;
    s->last = e->seq;
    s->count++;
    s->bytes += e->size;
    return 1;
}

/* The row under the cursor without the entries that have lost their bodies. */
static int see_row(struct tables *t, struct times *times, MDB_cursor *cur, MDB_val key, MDB_val val)
{
    uint8_t out[QUEUE_ROW_MAX + ROW_SUM];
    uint8_t k[QUEUE_KEY];
    uint8_t in[QUEUE_ROW_MAX];
    const MDB_dbi dbi = t->d->state.queue;
    struct saved_session *s;
    struct queue_row r;
    struct queue_entry e;
    uint8_t *end = out;
    uint64_t dropped = 0;
    uint64_t entries = 0;
    int rc = 0;

    memcpy(in, val.mv_data, val.mv_size); /* what is written may be on the same page */
    memcpy(k, key.mv_data, sizeof(k));
    key.mv_data = k;
    val.mv_data = in;
    if (!queue_row_parse(&r, dbi, key, val)) {
        return mdb_cursor_del(cur, 0); /* all were valid when they were put here */
    }
    s = find_session(t, r.session);
    while (s != NULL && (rc = queue_row_next(&r, &e)) == 0) {
        const int keep = see_entry(t, times, s, &e);
        if (keep < 0) {
            return ENOMEM;
        }
        entries++;
        dropped += keep == 0;
        end = keep == 1 ? queue_entry_put(end, &e) : end;
    }
    if (s == NULL) {
        while (queue_row_next(&r, &e) == 0) {
            t->loss->messages++;
        }
        tables_say(t, "session %llu: queued messages are lost with it", (ull)r.session);
        return mdb_cursor_del(cur, 0);
    }
    if (dropped == 0 && rc == MDB_NOTFOUND) {
        return 0;
    }
    if (end == out) {
        return mdb_cursor_del(cur, 0);
    }
    val = (MDB_val){queue_row_seal(dbi, key, out, (size_t)(end - out)), out};
    return mdb_cursor_put(cur, &key, &val, MDB_CURRENT);
}

static int see_queue(struct tables *t, struct times *times)
{
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    int rc = mdb_cursor_open(t->txn, t->d->state.queue, &cur);

    if (rc != 0) {
        return rc;
    }
    while ((rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) == 0) {
        rc = see_row(t, times, cur, key, val);
        if (rc != 0) {
            break;
        }
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int see_inbound(struct tables *t)
{
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    int rc = mdb_cursor_open(t->txn, t->d->state.inbound, &cur);

    if (rc != 0) {
        return rc;
    }
    while ((rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) == 0) {
        const uint64_t session = session_of(key, 0);
        if (find_session(t, session) == NULL) {
            t->loss->inbound++;
            tables_say(t, "session %llu: an id of QoS 2 is lost with it", (ull)session);
            rc = mdb_cursor_del(cur, 0);
            if (rc != 0) {
                break;
            }
        }
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- counts ---- */

static int put_head(struct tables *t, MDB_cursor *cur, struct saved_session *s)
{
    struct session_head h = s->head;
    uint8_t head[SESSION_HEAD];
    uint8_t k[8];

    if (h.count > s->count) {
        t->loss->messages += h.count - s->count;
        tables_say(t, "session %llu (client id \"%s\"): %llu of %llu queued messages are lost",
                   (ull)s->session, s->client, (ull)(h.count - s->count), (ull)h.count);
    }
    if (!session_has_ended(&h) && s->count > 0 && h.next_seq <= s->last) {
        h.next_seq = s->last + 1;
    }
    h.count = s->count;
    h.bytes = s->bytes;
    h.first_seq = s->count > 0 ? s->first : h.next_seq;
    session_head_put(head, &h);
    put_be64(k, s->session);
    return object_patch(cur, k, sizeof(k), head, sizeof(head));
}

static int put_body_count(struct tables *t, MDB_cursor *cur, const struct saved_body *b)
{
    uint8_t head[BODY_HEAD];
    uint8_t k[8];

    put_be64(k, b->body);
    put_le32(head, b->refs);
    if (b->refs == 0) {
        return object_del(t->txn, t->d->state.bodies, k, sizeof(k));
    }
    return b->refs == b->count ? 0 : object_patch(cur, k, sizeof(k), head, sizeof(head));
}

static int put_counts(struct tables *t)
{
    MDB_cursor *sessions;
    MDB_cursor *bodies;
    int rc = mdb_cursor_open(t->txn, t->d->state.sessions, &sessions);

    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_open(t->txn, t->d->state.bodies, &bodies);
    for (size_t i = 0; i < t->nsessions && rc == 0; i++) {
        rc = put_head(t, sessions, &t->sessions[i]);
    }
    for (size_t i = 0; i < t->nbodies && rc == 0; i++) {
        rc = put_body_count(t, bodies, &t->bodies[i]);
    }
    return rc; /* the cursors go with the transaction */
}

static int by_time(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a;
    const uint32_t y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static int put_times(struct tables *t, struct times *times)
{
    int rc = mdb_drop(t->txn, t->d->state.times, 0);

    if (times->n > 1) {
        qsort(times->v, times->n, sizeof(*times->v), by_time);
    }
    for (size_t i = 0; i < times->n && rc == 0;) {
        size_t n = 1;
        while (i + n < times->n && times->v[i + n] == times->v[i]) {
            n++;
        }
        rc = state_count_time(&t->d->state, t->txn, times->v[i], (int64_t)n);
        i += n;
    }
    return rc;
}

/* ---- what may be lost besides ---- */

/* Rows of lost pages are of sessions between two keys; queues have told of theirs. */
static void tell_range(struct tables *t, const struct lost_rows *r)
{
    unsigned told = 0;

    if (r->table == SALVAGE_QUEUE) {
        return;
    }
    for (size_t i = 0; i < t->nsessions && told < TOLD; i++) {
        const struct saved_session *s = &t->sessions[i];
        if (s->session >= r->from && s->session <= r->to && r->table != SALVAGE_SESSIONS) {
            tables_say(t, "session %llu (client id \"%s\"): may have lost %s", (ull)s->session,
                       s->client, things[r->table]);
            told++;
        }
    }
    if (r->table == SALVAGE_SESSIONS) {
        if (r->from == r->to) {
            tables_say(t, "session %llu is lost, with all it had", (ull)r->from);
        } else {
            tables_say(t, "sessions between %llu and %llu are lost, with all they had",
                       (ull)r->from, (ull)r->to);
        }
        t->loss->sessions++;
    }
}

static int agree(struct tables *t, struct times *times)
{
    const struct state *s = &t->d->state;
    struct salvage_loss *l = t->loss;
    uint64_t bodies = 0;
    uint64_t sessions = 0;
    int rc = clean_objects(t, s->sessions, 8, see_session, &sessions);

    rc = rc != 0 ? rc : clean_objects(t, s->bodies, 8, see_body, &bodies);
    rc = rc != 0 ? rc : see_queue(t, times);
    rc = rc != 0 ? rc : see_inbound(t);
    rc = rc != 0 ? rc : clean_objects(t, s->subs, SUB_KEY, see_sub, &l->subs);
    rc = rc != 0 ? rc : clean_objects(t, s->retained, RETAINED_KEY, see_retained, &l->retained);
    rc = rc != 0 ? rc : clean_objects(t, s->wills, 8, see_will, &l->wills);
    rc = rc != 0 ? rc : put_counts(t);
    rc = rc != 0 ? rc : put_times(t, times);
    return rc != 0 ? rc : state_put_rows(&t->d->state, t->txn);
}

int tables_agree(struct tables *t)
{
    struct times times = {0};
    int rc = mdb_txn_begin(t->d->state.env.mdb, NULL, 0, &t->txn);

    if (rc != 0) {
        t->txn = NULL;
        return rc;
    }
    rc = agree(t, &times);
    free(times.v);
    if (rc == 0) {
        rc = env_commit(t->txn);
        t->txn = NULL;
    }
    for (size_t i = 0; i < t->nlost && rc == 0; i++) {
        tell_range(t, &t->lost[i]);
    }
    return rc;
}
