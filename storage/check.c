/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/check.h"

#include "storage/bytes.h"
#include "storage/durable.h"
#include "storage/guard.h"
#include "storage/queue.h"
#include "storage/salvage.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define LINES 100

struct session_seen {
    uint64_t session;
    struct session_head head;
    uint64_t count, bytes, first, last; /* of the entries in `queue` */
};

struct ref {
    uint64_t body;
    uint32_t size;
};

struct check {
    struct durable *d;
    MDB_txn *txn;
    check_line_fn fn;
    void *arg;
    long breaches;
    bool strict; /* no fold was under way: counts have to be right */
    struct session_seen *sessions;
    size_t nsessions, sessions_cap;
    struct ref *refs; /* one for each entry whose body is in `bodies` */
    size_t nrefs, refs_cap;
    uint32_t *times; /* of each of the others */
    size_t ntimes, times_cap;
    struct scratch tmp;
};

static void breach(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void breach(struct check *c, const char *fmt, ...)
{
    char line[512];
    va_list ap;

    if (c->breaches++ >= LINES) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    c->fn(c->arg, line);
}

typedef unsigned long long ull;

/* ---- every object of a table ---- */

typedef int (*object_fn)(struct check *c, const uint8_t *k, MDB_val whole);

static int each_object(struct check *c, MDB_dbi dbi, size_t kn, object_fn fn)
{
    uint8_t k[OBJECT_KEY] = {0};
    bool started = false;
    MDB_cursor *cur;
    int rc = mdb_cursor_open(c->txn, dbi, &cur);

    while (rc == 0) {
        MDB_val whole;
        rc = object_next(cur, k, kn, &c->tmp, &whole, &started);
        if (rc == MDB_CORRUPTED) {
            breach(c, "an object has lost a piece");
            rc = 0;
            continue;
        }
        if (rc == 0) {
            rc = fn(c, k, whole);
        }
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- rules ---- */

static int see_session(struct check *c, const uint8_t *k, MDB_val whole)
{
    struct session_seen s = {.session = get_be64(k)};
    struct store_op op;

    if (!session_view(whole, &s.head, &op) || op.session != s.session) {
        breach(c, "session %llu: no valid record", (ull)s.session);
        return 0;
    }
    if (c->nsessions == c->sessions_cap) {
        const size_t cap = c->sessions_cap == 0 ? 1024 : c->sessions_cap * 2;
        struct session_seen *v = realloc(c->sessions, cap * sizeof(*v));
        if (v == NULL) {
            return ENOMEM;
        }
        c->sessions = v;
        c->sessions_cap = cap;
    }
    c->sessions[c->nsessions++] = s;
    return 0;
}

static struct session_seen *session_of(struct check *c, uint64_t session)
{
    size_t lo = 0;
    size_t hi = c->nsessions;

    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        if (c->sessions[mid].session < session) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < c->nsessions && c->sessions[lo].session == session ? &c->sessions[lo] : NULL;
}

static int add_ref(struct check *c, const struct queue_entry *e)
{
    if (c->nrefs == c->refs_cap) {
        const size_t cap = c->refs_cap == 0 ? 4096 : c->refs_cap * 2;
        struct ref *p = realloc(c->refs, cap * sizeof(*p));
        if (p == NULL) {
            return ENOMEM;
        }
        c->refs = p;
        c->refs_cap = cap;
    }
    c->refs[c->nrefs++] = (struct ref){e->body, e->size};
    return 0;
}

static int add_time(struct check *c, uint32_t when_s)
{
    if (c->ntimes == c->times_cap) {
        const size_t cap = c->times_cap == 0 ? 4096 : c->times_cap * 2;
        uint32_t *p = realloc(c->times, cap * sizeof(*p));
        if (p == NULL) {
            return ENOMEM;
        }
        c->times = p;
        c->times_cap = cap;
    }
    c->times[c->ntimes++] = when_s;
    return 0;
}

/* An entry that has its body with it. */
static int see_inline(struct check *c, const struct queue_row *r, const struct queue_entry *e)
{
    const uint8_t *p = e->record;
    const uint8_t *end = p + e->record_n;
    struct store_op op;

    if (!record_decode(&p, end, &op) || p != end || op.kind != ST_BODY_PUT || op.body != e->body ||
        body_size(&op) != e->size) {
        breach(c, "entry %llu of session %llu: its body is not valid", (ull)e->seq,
               (ull)r->session);
    }
    return add_time(c, record_body_when(e->record, end));
}

static int see_entry(struct check *c, const struct queue_row *r, const struct queue_entry *e)
{
    struct session_seen *s = session_of(c, r->session);

    if (s == NULL) {
        breach(c, "entry %llu of session %llu: no such session", (ull)e->seq, (ull)r->session);
    } else {
        if (s->count > 0 && e->seq <= s->last) {
            breach(c, "entry %llu of session %llu stands behind entry %llu", (ull)e->seq,
                   (ull)r->session, (ull)s->last);
        }
        s->first = s->count == 0 ? e->seq : s->first;
        s->last = e->seq;
        s->count++;
        s->bytes += e->size;
    }
    return e->record_n > 0 ? see_inline(c, r, e) : add_ref(c, e);
}

static int see_row(struct check *c, MDB_val key, MDB_val val)
{
    struct queue_row r;
    struct queue_entry e;
    int rc = queue_row_open(&r, c->d->state.queue, key, val) ? 0 : MDB_CORRUPTED;

    while (rc == 0 && (rc = queue_row_next(&r, &e)) == 0) {
        rc = see_entry(c, &r, &e);
    }
    if (rc == MDB_CORRUPTED || val.mv_size > QUEUE_ROW_MAX) {
        breach(c, "a row of entries with a key of %zu and a value of %zu bytes is not valid",
               key.mv_size, val.mv_size);
    }
    return rc == ENOMEM ? rc : 0;
}

static int see_entries(struct check *c)
{
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    int rc = mdb_cursor_open(c->txn, c->d->state.queue, &cur);

    while (rc == 0) {
        rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT);
        if (rc == 0) {
            rc = see_row(c, key, val);
        }
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static void compare_heads(struct check *c)
{
    for (size_t i = 0; i < c->nsessions; i++) {
        const struct session_seen *s = &c->sessions[i];
        const struct session_head *h = &s->head;
        if (h->count != s->count || h->bytes != s->bytes ||
            h->first_seq != (s->count == 0 ? h->next_seq : s->first)) {
            breach(c,
                   "session %llu: says %llu entries, %llu bytes, first %llu; has %llu, %llu, %llu",
                   (ull)s->session, (ull)h->count, (ull)h->bytes, (ull)h->first_seq, (ull)s->count,
                   (ull)s->bytes, (ull)s->first);
        }
        if (s->count > 0 && !session_has_ended(h) && h->next_seq <= s->last) {
            breach(c, "session %llu: next seq %llu is not above %llu", (ull)s->session,
                   (ull)h->next_seq, (ull)s->last);
        }
    }
}

static int by_body(const void *a, const void *b)
{
    const struct ref *x = a;
    const struct ref *y = b;

    return x->body < y->body ? -1 : x->body > y->body;
}

/* Takes the references to this body out of the sorted list; how many there were. */
static uint64_t take_refs(struct check *c, uint64_t body, uint32_t size)
{
    size_t lo = 0;
    size_t hi = c->nrefs;
    uint64_t n = 0;

    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        if (c->refs[mid].body < body) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    for (; lo < c->nrefs && c->refs[lo].body == body; lo++, n++) {
        if (c->refs[lo].size != size) {
            breach(c, "an entry says that body %llu has %u bytes, it has %u", (ull)body,
                   c->refs[lo].size, size);
        }
        c->refs[lo].size = UINT32_MAX; /* it has its body */
    }
    return n;
}

static int see_body(struct check *c, const uint8_t *k, MDB_val whole)
{
    const uint64_t body = get_be64(k);
    struct store_op op;
    uint32_t count;
    uint64_t n;

    if (!body_view(whole, &count, &op) || op.body != body) {
        breach(c, "body %llu: no valid record", (ull)body);
        return 0;
    }
    if (c->strict) {
        n = take_refs(c, body, body_size(&op));
        if (n != count || n == 0) {
            breach(c, "body %llu: says %u entries, has %llu", (ull)body, count, (ull)n);
        }
    }
    return 0;
}

static void missing_bodies(struct check *c)
{
    for (size_t i = 0; i < c->nrefs; i++) {
        if (c->refs[i].size != UINT32_MAX) {
            breach(c, "an entry refers to body %llu, which is not there", (ull)c->refs[i].body);
        }
    }
}

static int by_time(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a;
    const uint32_t y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* How many of the sorted ones from *at on are of this second; those before it lack their row. */
static uint64_t take_times(struct check *c, size_t *at, uint64_t when)
{
    uint64_t n = 0;

    for (; *at < c->ntimes && c->times[*at] < when; ++*at) {
        if (*at == 0 || c->times[*at] != c->times[*at - 1]) {
            breach(c, "second %u: its entries are not counted", c->times[*at]);
        }
    }
    for (; *at < c->ntimes && c->times[*at] == when; ++*at) {
        n++;
    }
    return n;
}

/* Each second that entries have, with their number, in the order of the table. */
static int compare_times(struct check *c)
{
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    size_t i = 0;
    int rc =
        c->d->state.times == 0 ? MDB_NOTFOUND : mdb_cursor_open(c->txn, c->d->state.times, &cur);

    if (rc != 0) {
        return rc == MDB_NOTFOUND ? 0 : rc; /* an older version */
    }
    if (c->ntimes > 0) {
        qsort(c->times, c->ntimes, sizeof(*c->times), by_time);
    }
    while ((rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) == 0) {
        const uint32_t when = key.mv_size == 4 ? get_be32(key.mv_data) : 0;
        uint64_t n = 0;
        const bool valid = time_get(&c->d->state, key, val, &n);
        const uint64_t seen = take_times(c, &i, when);
        if (!valid || n != seen || n == 0) {
            breach(c, "second %u: says %llu entries, has %llu", when, (ull)n, (ull)seen);
        }
    }
    mdb_cursor_close(cur);
    take_times(c, &i, UINT64_MAX);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static bool decode(MDB_val whole, enum store_op_kind kind, struct store_op *op)
{
    const uint8_t *p = whole.mv_data;
    const uint8_t *end = p + whole.mv_size;

    return record_decode(&p, end, op) && p == end && op->kind == kind;
}

static int see_sub(struct check *c, const uint8_t *k, MDB_val whole)
{
    struct store_op op;

    if (!decode(whole, ST_SUB_PUT, &op) || op.session != get_be64(k) ||
        get_be64(k + 8) != (XXH3_64bits(op.name.p, op.name.n) & c->d->state.name_mask)) {
        breach(c, "a subscription of session %llu is not valid", (ull)get_be64(k));
    } else if (session_of(c, op.session) == NULL) {
        breach(c, "a subscription of session %llu: no such session", (ull)op.session);
    }
    return 0;
}

static int see_retained(struct check *c, const uint8_t *k, MDB_val whole)
{
    struct store_op op;
    XXH128_hash_t h;

    if (!decode(whole, ST_RETAINED_PUT, &op)) {
        breach(c, "a retained message is not valid");
        return 0;
    }
    h = XXH3_128bits(op.name.p, op.name.n);
    if (get_be64(k) != (h.high64 & c->d->state.name_mask) ||
        get_be64(k + 8) != (h.low64 & c->d->state.name_mask)) {
        breach(c, "retained message %llu stands under another topic's key", (ull)op.seq);
    }
    return 0;
}

static int see_will(struct check *c, const uint8_t *k, MDB_val whole)
{
    struct store_op op;

    if (!decode(whole, ST_WILL_PUT, &op) || op.session != get_be64(k)) {
        breach(c, "the will of session %llu is not valid", (ull)get_be64(k));
    }
    return 0;
}

static int see_inbound(struct check *c)
{
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    int rc = mdb_cursor_open(c->txn, c->d->state.inbound, &cur);

    while (rc == 0) {
        rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT);
        if (rc == 0 && (!inbound_is_valid(&c->d->state, key, val) ||
                        session_of(c, get_be64(key.mv_data)) == NULL)) {
            breach(c, "a QoS 2 id is not valid or of no session");
        }
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int check_tables(struct check *c)
{
    struct state *s = &c->d->state;
    int rc = each_object(c, s->sessions, 8, see_session);

    if (rc == 0) {
        rc = see_entries(c);
    }
    if (rc == 0 && c->nrefs > 0) {
        qsort(c->refs, c->nrefs, sizeof(*c->refs), by_body);
    }
    if (rc == 0) {
        rc = each_object(c, s->bodies, 8, see_body);
    }
    if (rc == 0 && c->strict) {
        compare_heads(c);
        missing_bodies(c);
        rc = compare_times(c);
    }
    if (rc == 0) {
        rc = each_object(c, s->subs, SUB_KEY, see_sub);
    }
    if (rc == 0) {
        rc = each_object(c, s->retained, RETAINED_KEY, see_retained);
    }
    if (rc == 0) {
        rc = each_object(c, s->wills, 8, see_will);
    }
    return rc != 0 ? rc : see_inbound(c);
}

static bool group_seen(void *arg, uint8_t *buf, uint32_t n, uint64_t next_key)
{
    struct check *c = arg;
    const uint8_t *p = buf + GROUP_HEADER;
    struct group g;
    struct store_op op;
    uint32_t records = 0;

    (void)next_key;
    group_peek(buf, &g);
    while (p != buf + n && record_decode(&p, buf + n, &op)) {
        records++;
    }
    if (p != buf + n || records != g.records) {
        breach(c, "journal: group %llu has no valid records", (ull)g.number);
    }
    free(buf);
    return true;
}

static int check_all(struct check *c)
{
    struct recover_marks m;
    char what[128];
    int rc = recover_marks(c->d, c->txn, &m);

    if (rc != 0) {
        breach(c, "state: numbers are missing in `meta`");
        return rc == MDB_NOTFOUND || rc == MDB_CORRUPTED ? 0 : rc;
    }
    if (m.folding < m.folded) {
        breach(c, "state: folding %llu is below folded %llu", (ull)m.folding, (ull)m.folded);
    }
    if (!c->d->state.old && state_check_rows(&c->d->state, c->txn) != 0) {
        breach(c, "state: a table has not the rows that it had");
    }
    c->strict = m.folding == m.folded;
    rc = check_tables(c);
    if (rc == 0) {
        rc = journal_scan(&c->d->journal, m.folded, group_seen, c, what, sizeof(what));
        if (rc == MDB_CORRUPTED) {
            breach(c, "journal: %s", what);
            rc = 0;
        }
    }
    return rc;
}

long check_store(const char *dir, check_line_fn fn, void *arg, char *err, size_t cap)
{
    struct check c = {.fn = fn, .arg = arg};
    int rc;

    if (durable_attach(dir, &c.d, err, cap) != ST_OK) {
        return -1;
    }
    rc = mdb_txn_begin(c.d->state.env.mdb, NULL, MDB_RDONLY, &c.txn);
    if (rc == 0) {
        rc = check_all(&c);
        mdb_txn_abort(c.txn);
    }
    if (rc != 0) {
        snprintf(err, cap, "%s: %s", dir, mdb_strerror(rc));
    }
    free(c.sessions);
    free(c.refs);
    free(c.times);
    scratch_free(&c.tmp);
    durable_detach(c.d);
    return rc != 0 ? -1 : c.breaches;
}

/* ---- dump ---- */

static const char *const kinds[ST_OP_KINDS] = {
    [ST_SESSION_PUT] = "session",   [ST_SESSION_END] = "session-end",
    [ST_SUB_PUT] = "subscription",  [ST_SUB_DEL] = "subscription-del",
    [ST_BODY_PUT] = "body",         [ST_ENTRY_PUT] = "entry",
    [ST_ENTRY_STEP] = "entry-step", [ST_ENTRY_DEL] = "entry-del",
    [ST_INBOUND_PUT] = "inbound",   [ST_INBOUND_DEL] = "inbound-del",
    [ST_RETAINED_PUT] = "retained", [ST_RETAINED_DEL] = "retained-del",
    [ST_WILL_PUT] = "will",         [ST_WILL_DEL] = "will-del",
};

void check_quote(char *out, size_t cap, struct store_bytes b)
{
    size_t n = 0;

    for (size_t i = 0; i < b.n && i < 200 && n + 5 < cap; i++) {
        const unsigned char ch = ((const unsigned char *)b.p)[i];
        if (ch >= 0x20 && ch < 0x7f && ch != '"' && ch != '\\') {
            out[n++] = (char)ch;
        } else {
            n += (size_t)snprintf(out + n, cap - n, "\\x%02x", ch);
        }
    }
    out[n] = '\0';
}

static void dump_op(struct check *c, const char *where, const struct store_op *op,
                    const char *extra)
{
    char name[1024];
    char line[2048];

    check_quote(name, sizeof(name), op->name);
    snprintf(line, sizeof(line),
             "%s %s session=%llu seq=%llu body=%llu id=%u flags=%u number=%u expires=%lld "
             "name=\"%s\" props=%zu payload=%zu%s",
             where, kinds[op->kind], (ull)op->session, (ull)op->seq, (ull)op->body, op->packet_id,
             op->flags, op->number, (long long)op->expires_ms, name, op->props.n, op->data.n,
             extra);
    c->fn(c->arg, line);
}

static int dump_session(struct check *c, const uint8_t *k, MDB_val whole)
{
    struct session_head h;
    struct store_op op;
    char extra[160];

    (void)k;
    if (session_view(whole, &h, &op)) {
        snprintf(extra, sizeof(extra), " next=%llu first=%llu count=%llu bytes=%llu",
                 (ull)h.next_seq, (ull)h.first_seq, (ull)h.count, (ull)h.bytes);
        dump_op(c, "state", &op, extra);
    }
    return 0;
}

static int dump_body(struct check *c, const uint8_t *k, MDB_val whole)
{
    struct store_op op;
    uint32_t count;
    char extra[32];

    (void)k;
    if (body_view(whole, &count, &op)) {
        snprintf(extra, sizeof(extra), " count=%u", count);
        dump_op(c, "state", &op, extra);
    }
    return 0;
}

static int dump_record(struct check *c, const uint8_t *k, MDB_val whole)
{
    const uint8_t *p = whole.mv_data;
    struct store_op op;

    (void)k;
    if (record_decode(&p, p + whole.mv_size, &op)) {
        dump_op(c, "state", &op, "");
    }
    return 0;
}

static int each_row(struct check *c, MDB_dbi dbi,
                    void (*fn)(struct check *c, MDB_val key, MDB_val val))
{
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    int rc = mdb_cursor_open(c->txn, dbi, &cur);

    if (rc != 0) {
        return rc;
    }
    while ((rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) == 0) {
        fn(c, key, val);
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static void dump_inbound(struct check *c, MDB_val key, MDB_val val)
{
    const uint8_t *k = key.mv_data;

    (void)val;
    if (key.mv_size == 10) {
        const struct store_op op = {
            .kind = ST_INBOUND_PUT, .session = get_be64(k), .packet_id = get_be16(k + 8)};
        dump_op(c, "state", &op, "");
    }
}

/* An entry, then its body, if that is there with it. */
static void dump_entry(struct check *c, uint64_t session, const struct queue_entry *e)
{
    const uint8_t *p = e->record;
    struct store_op op = {.kind = ST_ENTRY_PUT,
                          .session = session,
                          .seq = e->seq,
                          .body = e->body,
                          .packet_id = e->packet_id,
                          .flags = e->flags,
                          .number = e->number,
                          .expires_ms = e->expires_ms};
    char extra[32];

    snprintf(extra, sizeof(extra), " step=%u", e->step);
    dump_op(c, "state", &op, extra);
    if (e->record_n > 0 && record_decode(&p, p + e->record_n, &op)) {
        dump_op(c, "state", &op, " count=1");
    }
}

static void dump_row(struct check *c, MDB_val key, MDB_val val)
{
    struct queue_row r;
    struct queue_entry e;

    if (queue_row_open(&r, c->d->state.queue, key, val)) {
        while (queue_row_next(&r, &e) == 0) {
            dump_entry(c, r.session, &e);
        }
    }
}

static bool dump_group(void *arg, uint8_t *buf, uint32_t n, uint64_t next_key)
{
    struct check *c = arg;
    const uint8_t *p = buf + GROUP_HEADER;
    struct store_op op;
    struct group g;
    char where[48];

    (void)next_key;
    group_peek(buf, &g);
    snprintf(where, sizeof(where), "journal %llu", (ull)g.number);
    while (p != buf + n && record_decode(&p, buf + n, &op)) {
        dump_op(c, where, &op, "");
    }
    free(buf);
    return true;
}

static int dump_all(struct check *c, char *what, size_t cap)
{
    struct state *s = &c->d->state;
    struct recover_marks m = {0};
    char line[256];
    int rc = recover_marks(c->d, c->txn, &m);

    snprintf(line, sizeof(line),
             "meta folded=%llu folding=%llu free_id=%llu newest=%llu stopped=%llu", (ull)m.folded,
             (ull)m.folding, (ull)m.free_id, (ull)m.newest, (ull)m.stopped);
    c->fn(c->arg, line);
    rc = rc != 0 ? rc : each_object(c, s->sessions, 8, dump_session);
    rc = rc != 0 ? rc : each_object(c, s->subs, SUB_KEY, dump_record);
    rc = rc != 0 ? rc : each_row(c, s->queue, dump_row);
    rc = rc != 0 ? rc : each_object(c, s->bodies, 8, dump_body);
    rc = rc != 0 ? rc : each_row(c, s->inbound, dump_inbound);
    rc = rc != 0 ? rc : each_object(c, s->retained, RETAINED_KEY, dump_record);
    rc = rc != 0 ? rc : each_object(c, s->wills, 8, dump_record);
    return rc != 0 ? rc : journal_scan(&c->d->journal, m.folded, dump_group, c, what, cap);
}

int check_dump(const char *dir, check_line_fn fn, void *arg, char *err, size_t cap)
{
    struct check c = {.fn = fn, .arg = arg};
    char what[128] = "";
    int rc;

    if (durable_attach(dir, &c.d, err, cap) != ST_OK) {
        return -1;
    }
    rc = mdb_txn_begin(c.d->state.env.mdb, NULL, MDB_RDONLY, &c.txn);
    if (rc == 0) {
        rc = dump_all(&c, what, sizeof(what));
        mdb_txn_abort(c.txn);
    }
    if (rc != 0 || c.breaches > 0) {
        snprintf(err, cap, "%s: %s %s", dir, rc != 0 ? mdb_strerror(rc) : "not complete", what);
        rc = rc == 0 ? -1 : rc;
    }
    scratch_free(&c.tmp);
    durable_detach(c.d);
    return rc == 0 ? 0 : -1;
}

int check_repair(const char *dir, check_line_fn fn, void *arg, char *err, size_t cap)
{
    struct salvage_loss loss;
    int lock = -1;
    int rc;

    err[0] = '\0';
    if (access(dir, F_OK) == 0) {
        lock = env_lock(dir, err, cap);
    } else {
        snprintf(err, cap, "%s: %s", dir, strerror(errno));
    }
    if (lock < 0) {
        return -1;
    }
    guard_start();
    rc = salvage_look(dir, NULL, NULL, err, cap);
    if (rc == 1) {
        rc = salvage_run(dir, fn, arg, &loss, err, cap) ? 1 : -1;
    }
    close(lock);
    return rc;
}

int check_copy(const char *dir, const char *to, char *err, size_t cap)
{
    struct durable *d;
    enum store_rc rc;

    if (durable_attach(dir, &d, err, cap) != ST_OK) {
        return -1;
    }
    rc = backup_run(&d->base, to, err, cap);
    durable_detach(d);
    return rc == ST_OK ? 0 : -1;
}
