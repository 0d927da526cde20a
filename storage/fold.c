/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fold: a frozen generation into `state`, sorted, in slices of synced transactions.
 *
 * Happy path: the first slice writes the generation's bounds (`folding`); sessions, bodies that
 * several entries have, entries (fold_queue.c), QoS 2 ids, subscriptions, retained messages, wills,
 * ends of sessions follow; the last slice writes `folded`. Then the journal may be trimmed.
 *
 * A crash between two slices: the next start folds exactly the same groups again (the bounds are
 * kept), and each step may be done twice; FORMAT.md, "Consistency", has the rules. Only with the
 * same bounds is what vanished the same, too: an entry that a first, interrupted fold has put must
 * not be taken for one that was born and removed within a longer generation.
 *
 * A generation is frozen a little before the fold is due and rests until then (durable.h). An entry
 * that is removed meanwhile, as those in flight at that moment are, is taken out of it instead of
 * being put now and removed by the next fold. After a crash it may be in there again, and its
 * removal in the groups behind it: that is an entry like others.
 *
 * A session that ends with more entries than a slice takes is marked as ended, and its entries go
 * later, a slice at a time while no fold is due: neither what comes next nor a start waits for
 * millions of removals.
 *
 * No room: tried again every second in smaller slices (pages that one transaction replaces are free
 * for the next but one), journal and generation stay. A failed write or sync is final.
 */
#include "storage/fold.h"

#include "storage/bytes.h"
#include "storage/guard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SLICE_BYTES (4u << 20)
#define TELL_US     2000000 /* a recovery says so often how far it is */

/* ---- slices ---- */

static int begin(struct fold *f)
{
    int rc = mdb_txn_begin(f->s->env.mdb, NULL, 0, &f->txn);

    if (rc != 0) {
        f->txn = NULL;
        return rc;
    }
    f->ops = 0;
    f->bytes = 0;
    rc = mdb_cursor_open(f->txn, f->s->queue, &f->queue);
    rc = rc != 0 ? rc : mdb_cursor_open(f->txn, f->s->sessions, &f->sessions);
    return rc != 0 ? rc : mdb_cursor_open(f->txn, f->s->bodies, &f->body);
}

static int by_key(const void *a, const void *b)
{
    const struct delta *x = a;
    const struct delta *y = b;

    return x->key < y->key ? -1 : x->key > y->key;
}

static int apply_to_body(struct fold *f, uint64_t body, int64_t n)
{
    uint8_t k[8];
    uint8_t head[BODY_HEAD];
    uint32_t count;
    MDB_val first;
    int rc;

    put_be64(k, body);
    rc = object_peek(f->body, k, sizeof(k), &first);
    if (rc == MDB_NOTFOUND) {
        return 0; /* an entry without a body; the checker names it */
    }
    if (rc == 0 && first.mv_size < BODY_HEAD) {
        rc = MDB_CORRUPTED;
    }
    if (rc != 0 || n == 0) {
        return rc;
    }
    count = get_le32(first.mv_data);
    if ((int64_t)count + n <= 0) {
        return object_del(f->txn, f->s->bodies, k, sizeof(k));
    }
    put_le32(head, (uint32_t)((int64_t)count + n));
    return object_patch(f->body, k, sizeof(k), head, sizeof(head));
}

static int apply_to_time(struct fold *f, uint64_t when_s, int64_t n)
{
    return n == 0 ? 0 : state_count_time(f->s, f->txn, (uint32_t)when_s, n);
}

/* All changes to one count meet, and they come in the order of their pages. */
static int apply(struct fold *f, struct deltas *d,
                 int (*fn)(struct fold *f, uint64_t key, int64_t n))
{
    int rc = 0;

    if (d->n > 1) {
        qsort(d->v, d->n, sizeof(*d->v), by_key);
    }
    for (size_t i = 0; i < d->n && rc == 0;) {
        const uint64_t key = d->v[i].key;
        int64_t n = 0;
        for (; i < d->n && d->v[i].key == key; i++) {
            n += d->v[i].n;
        }
        rc = fn(f, key, n);
    }
    d->n = 0;
    return rc;
}

int deltas_add(struct deltas *d, uint64_t key, int n)
{
    if (d->n > 0 && d->v[d->n - 1].key == key) {
        d->v[d->n - 1].n += n;
        return 0;
    }
    if (d->n == d->cap) {
        const size_t cap = d->cap == 0 ? 1024 : d->cap * 2;
        struct delta *v = realloc(d->v, cap * sizeof(*v));
        if (v == NULL) {
            return ENOMEM;
        }
        d->v = v;
        d->cap = cap;
    }
    d->v[d->n++] = (struct delta){key, n};
    return 0;
}

/* Before the threads run: somebody waits for the start. */
static void tell_progress(struct fold *f)
{
    struct durable *d = f->d;
    const int64_t now = durable_mono_us();

    if (!d->recovering) {
        return;
    }
    d->recovered += f->ops;
    if (now - d->told_us >= TELL_US) {
        d->told_us = now;
        durable_log(d, LOG_LEVEL_NOTICE, "recovery: %llu changes folded so far",
                    (unsigned long long)d->recovered);
    }
}

static int end_slice(struct fold *f)
{
    int rc = apply(f, &f->bodies, apply_to_body);

    rc = rc != 0 ? rc : apply(f, &f->times, apply_to_time);
    rc = rc != 0 ? rc : state_put_rows(f->s, f->txn);
    if (rc != 0) {
        return rc;
    }
    mdb_cursor_close(f->queue);
    mdb_cursor_close(f->sessions);
    mdb_cursor_close(f->body);
    rc = env_commit(f->txn);
    f->txn = NULL;
    if (rc == 0) {
        durable_top_up_state(f->d);
        tell_progress(f);
    }
    return rc;
}

bool fold_slice_full(const struct fold *f)
{
    const uint64_t bytes = (uint64_t)SLICE_BYTES * f->d->slice / f->d->o.fold_slice;

    return f->ops >= f->d->slice || f->bytes >= bytes;
}

int fold_next_slice(struct fold *f)
{
    int rc = end_slice(f);

    return rc != 0 ? rc : begin(f);
}

/* After every operation: a slice ends between two of them. */
static int step(struct fold *f, size_t bytes)
{
    f->ops++;
    f->bytes += bytes;
    return fold_slice_full(f) ? fold_next_slice(f) : 0;
}

/* ---- sessions ---- */

static int by_session(const void *a, const void *b)
{
    const struct gen_session *x = *(struct gen_session *const *)a;
    const struct gen_session *y = *(struct gen_session *const *)b;

    return x->session < y->session ? -1 : x->session > y->session;
}

/* All that came for it has vanished again. */
static bool is_idle(const struct gen_session *gs)
{
    return gs->live == 0 && gs->olds.n == 0 && gs->ninbound == 0 && gs->record == NULL &&
           !gs->ended;
}

/* The generation's sessions in the order of their ids, as far as there is something to do for them;
 * names ask for their sessions. NULL: no memory. */
static struct gen_session **sorted_sessions(struct gen *g, uint32_t *count)
{
    struct gen_session **v = malloc((g->nsessions + 1u) * sizeof(struct gen_session *));
    uint32_t n = 0;

    for (uint32_t i = 0; v != NULL && i < g->sessions_cap; i++) {
        struct gen_session *gs = g->sessions[i].s;
        if (gs != NULL && (g->nnamed > 0 || !is_idle(gs))) {
            v[n++] = gs;
        }
    }
    if (n > 1) {
        qsort(v, n, sizeof(struct gen_session *), by_session);
    }
    *count = n;
    return v;
}

static void forget_bodies(const struct gen_session *gs)
{
    for (uint32_t i = 0; i < gs->puts.n; i++) {
        const struct gen_entry *e = &gs->puts.v[i];
        if (!e->dead && e->born != NULL) {
            e->born->live--;
        }
    }
}

/*
 * Which sessions there are. What came for one that ended, or that nobody knows, is left out, and
 * its bodies do not count it. The same on every try: the fold makes or ends no session without
 * saying so in the generation. `live` is changed once only: a second try finds `skip` set.
 */
static int classify(struct fold *f, struct gen_session *gs)
{
    struct session_head h = {.next_seq = 1};
    int rc = 0;

    if (gs->skip) {
        return 0;
    }
    if (!gs->ended && gs->record == NULL) {
        rc = fold_get_head(f, gs->session, &h);
        rc = rc == 0 && session_has_ended(&h) ? MDB_NOTFOUND : rc;
    }
    if (gs->ended || rc == MDB_NOTFOUND) {
        f->dropped += gs->ended ? 0 : gs->puts.n + gs->olds.n;
        gs->skip = true;
        forget_bodies(gs);
        rc = 0;
    }
    return rc;
}

static int put_session(struct fold *f, const struct gen_session *gs)
{
    struct session_head h = {.next_seq = 1, .first_seq = 1};
    const uint8_t *p = gs->record;
    struct store_op old;
    struct store_op op;
    uint8_t k[8];
    MDB_val whole;
    uint8_t *buf;
    size_t n;
    int rc;

    if (gs->record == NULL || gs->skip) {
        return 0;
    }
    put_be64(k, gs->session);
    rc = object_get(f->txn, f->s->sessions, k, sizeof(k), &f->tmp, &whole);
    if (rc == 0 && !session_view(whole, &h, &old)) {
        rc = MDB_CORRUPTED;
    }
    if ((rc != 0 && rc != MDB_NOTFOUND) || !record_decode(&p, gs->end, &op)) {
        return rc != 0 ? rc : MDB_CORRUPTED;
    }
    n = SESSION_HEAD + record_size(&op);
    buf = scratch_room(&f->tmp, n);
    if (buf == NULL) {
        return ENOMEM;
    }
    session_head_put(buf, &h);
    record_encode(buf + SESSION_HEAD, &op);
    rc = object_put(f->txn, f->s->sessions, k, sizeof(k), buf, n, false);
    return rc != 0 ? rc : step(f, n);
}

/* ---- QoS 2 ids ---- */

static int by_number(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a;
    const uint32_t y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* The last word on each id, in the order of ids; ids has room for all. */
static uint32_t last_inbound(struct fold *f, const struct gen_session *gs, uint32_t *ids)
{
    uint32_t n = 0;

    for (uint32_t i = gs->ninbound; i-- > 0;) {
        const uint32_t id = gs->inbound[i] >> 1;
        if ((f->seen[id / 64] >> id % 64 & 1) == 0) {
            f->seen[id / 64] |= (uint64_t)1 << id % 64;
            ids[n++] = gs->inbound[i];
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        f->seen[ids[i] >> 1 >> 6] = 0;
    }
    qsort(ids, n, sizeof(*ids), by_number);
    return n;
}

static int put_inbound(struct fold *f, uint64_t session, uint32_t what)
{
    uint8_t b[INBOUND_KEY];
    uint8_t sum[ROW_SUM];
    MDB_val key = {sizeof(b), b};
    MDB_val val = {sizeof(sum), sum};
    int rc;

    put_be64(b, session);
    put_be16(b + 8, (uint16_t)(what >> 1));
    row_seal(f->s->inbound, key, sum, 0);
    rc = (what & 1) != 0 ? mdb_del(f->txn, f->s->inbound, &key, NULL)
                         : mdb_put(f->txn, f->s->inbound, &key, &val, 0);
    if (rc == MDB_NOTFOUND) {
        rc = 0; /* a removal is always kept; often there was nothing to remove */
    }
    return rc != 0 ? rc : step(f, sizeof(b));
}

static int fold_inbound(struct fold *f, const struct gen_session *gs)
{
    uint32_t *ids;
    uint32_t n;
    int rc = 0;

    if (gs->ninbound == 0) {
        return 0;
    }
    ids = malloc((gs->ninbound < FOLD_IDS_MAX ? gs->ninbound : FOLD_IDS_MAX) * sizeof(*ids));
    if (ids == NULL) {
        return ENOMEM;
    }
    n = last_inbound(f, gs, ids);
    f->dropped += gs->skip ? n : 0;
    for (uint32_t i = 0; i < n && !gs->skip && rc == 0; i++) {
        rc = put_inbound(f, gs->session, ids[i]);
    }
    free(ids);
    return rc;
}

/* ---- named: subscriptions, retained messages, wills ---- */

static int by_name(const void *a, const void *b)
{
    const struct gen_named *x = *(struct gen_named *const *)a;
    const struct gen_named *y = *(struct gen_named *const *)b;

    if (x->kind != y->kind) {
        return x->kind < y->kind ? -1 : 1;
    }
    if (x->session != y->session) {
        return x->session < y->session ? -1 : 1;
    }
    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static int put_will(struct fold *f, const struct gen_named *n, const struct store_op *op)
{
    const size_t size = record_size(op);
    uint8_t k[8];
    uint8_t *buf;

    put_be64(k, n->session);
    if (n->del) {
        return object_del(f->txn, f->s->wills, k, sizeof(k));
    }
    buf = scratch_room(&f->tmp, size);
    if (buf == NULL) {
        return ENOMEM;
    }
    record_encode(buf, op);
    return object_put(f->txn, f->s->wills, k, sizeof(k), buf, size, false);
}

static int put_named(struct fold *f, const struct gen_named *n)
{
    const struct gen_session *gs = gen_find(f->g, n->session);
    const uint8_t *p = n->record;
    struct store_op op;
    int rc;

    if (!record_decode(&p, n->end, &op)) {
        return MDB_CORRUPTED;
    }
    if (n->kind != ST_RETAINED_PUT && gs != NULL &&
        (n->kind == ST_WILL_PUT ? gs->ended : gs->skip)) {
        f->dropped++;
        return 0;
    }
    if (n->kind == ST_SUB_PUT) {
        rc = n->del ? state_sub_del(f->s, f->txn, n->session, op.name, &f->tmp)
                    : state_sub_put(f->s, f->txn, &op, &f->tmp);
    } else if (n->kind == ST_WILL_PUT) {
        rc = put_will(f, n, &op);
    } else {
        rc = n->del ? state_retained_del(f->s, f->txn, op.name, &f->tmp)
                    : state_retained_put(f->s, f->txn, &op, &f->tmp);
    }
    if (rc == MDB_NOTFOUND) {
        rc = 0; /* a removal is always kept; often there was nothing to remove */
    }
    return rc != 0 ? rc : step(f, (size_t)(p - n->record));
}

static int fold_named(struct fold *f)
{
    struct gen *g = f->g;
    struct gen_named **v = malloc((g->nnamed + 1u) * sizeof(struct gen_named *));
    uint32_t n = 0;
    int rc = 0;

    if (v == NULL) {
        return ENOMEM;
    }
    for (uint32_t i = 0; i < g->named_cap; i++) {
        if (g->named[i] != NULL) {
            v[n++] = g->named[i];
        }
    }
    qsort(v, n, sizeof(struct gen_named *), by_name);
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        rc = put_named(f, v[i]);
    }
    free(v);
    return rc;
}

/* ---- bodies ---- */

struct body_list {
    struct gen_body **v;
    uint32_t n;
    bool all;
};

/* Those that go with their entries only where an interrupted fold may have left them here. */
static void collect_body(void *arg, struct gen_body *b)
{
    struct body_list *l = arg;

    if (b->live > 0 && (l->all || !fold_is_inline(b))) {
        l->v[l->n++] = b;
    }
}

static int by_body(const void *a, const void *b)
{
    const struct gen_body *x = *(struct gen_body *const *)a;
    const struct gen_body *y = *(struct gen_body *const *)b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static int put_body(struct fold *f, const struct gen_body *b)
{
    const uint8_t *p = b->record;
    struct store_op op;
    uint8_t k[8];
    MDB_val whole;
    uint8_t *buf;
    size_t n;
    int rc;

    if (!record_decode(&p, b->end, &op)) {
        return MDB_CORRUPTED;
    }
    put_be64(k, b->id);
    if (fold_is_inline(b)) {
        rc = object_del(f->txn, f->s->bodies, k, sizeof(k)); /* version 2 put it here */
        return rc != 0 && rc != MDB_NOTFOUND ? rc : step(f, 0);
    }
    n = BODY_HEAD + (size_t)(p - b->record);
    buf = scratch_room(&f->tmp, n);
    if (buf == NULL) {
        return ENOMEM;
    }
    put_le32(buf, b->live);
    memcpy(buf + BODY_HEAD, b->record, n - BODY_HEAD);
    rc = object_put(f->txn, f->s->bodies, k, sizeof(k), buf, n, true);
    if (rc == MDB_KEYEXIST) { /* not the last one, or there already: then it stays */
        rc = object_get(f->txn, f->s->bodies, k, sizeof(k), &f->key, &whole);
        if (rc == MDB_NOTFOUND) {
            rc = object_put(f->txn, f->s->bodies, k, sizeof(k), buf, n, false);
        }
    }
    return rc != 0 ? rc : step(f, n);
}

static int fold_bodies(struct fold *f)
{
    struct body_list l = {malloc((f->g->nbodies + 1u) * sizeof(struct gen_body *)), 0, f->repeated};
    int rc = 0;

    if (l.v == NULL) {
        return ENOMEM;
    }
    gen_each_body(f->g, collect_body, &l);
    qsort(l.v, l.n, sizeof(struct gen_body *), by_body);
    for (uint32_t i = 0; i < l.n && rc == 0; i++) {
        rc = put_body(f, l.v[i]);
    }
    free(l.v);
    return rc;
}

/* ---- ends ---- */

/* Removes keys that begin with the session, to the end of the slice at most; *more: some may be
 * left. */
static int del_some(struct fold *f, MDB_dbi dbi, const uint8_t *prefix, bool *more)
{
    MDB_val key = {8, (void *)(uintptr_t)prefix};
    MDB_val val;
    MDB_cursor *cur;
    int rc = mdb_cursor_open(f->txn, dbi, &cur);

    *more = false;
    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE);
    while (rc == 0 && key.mv_size >= 8 && memcmp(key.mv_data, prefix, 8) == 0) {
        if (fold_slice_full(f)) {
            *more = true;
            break;
        }
        rc = mdb_cursor_del(cur, 0);
        f->ops++;
        if (rc == 0) {
            rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT); /* the one behind the removed */
        }
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int del_prefix(struct fold *f, MDB_dbi dbi, uint64_t session)
{
    uint8_t b[8];
    bool more;
    int rc;

    put_be64(b, session);
    rc = del_some(f, dbi, b, &more);
    while (rc == 0 && more) {
        rc = fold_next_slice(f);
        if (rc == 0) {
            rc = del_some(f, dbi, b, &more);
        }
    }
    return rc;
}

/* From here on only its entries are left. */
static int mark_ended(struct fold *f, uint64_t session, struct session_head *h)
{
    int rc;

    h->next_seq = 0;
    rc = fold_put_head(f, session, h, true);
    if (rc == 0) {
        durable_sweep_later(f->d, session);
    }
    return rc;
}

/* *later: there are too many for this fold. */
static int end_entries(struct fold *f, uint64_t session, bool *later)
{
    struct session_head h;
    bool more = true;
    int rc = fold_get_head(f, session, &h);

    *later = false;
    if (rc == 0 && (h.count > f->removable || session_has_ended(&h))) {
        *later = true;
        return session_has_ended(&h) ? 0 : mark_ended(f, session, &h);
    }
    f->removable -= rc == 0 ? (uint32_t)h.count : 0;
    while (rc == 0 && more) {
        rc = fold_remove_entries(f, session, &h, &more);
        if (rc == 0 && more) {
            rc = fold_next_slice(f);
        }
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int remove_session(struct fold *f, uint64_t session)
{
    uint8_t k[8];
    int rc;

    put_be64(k, session);
    rc = object_del(f->txn, f->s->sessions, k, sizeof(k));
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int end_session(struct fold *f, const struct gen_session *gs)
{
    bool later;
    uint8_t k[8];
    int rc;

    if (!gs->ended) {
        return 0;
    }
    rc = del_prefix(f, f->s->subs, gs->session);
    if (rc == 0) {
        rc = del_prefix(f, f->s->inbound, gs->session);
    }
    put_be64(k, gs->session);
    if (rc == 0) {
        rc = object_del(f->txn, f->s->wills, k, sizeof(k));
        rc = rc == MDB_NOTFOUND ? 0 : rc;
    }
    rc = rc != 0 ? rc : end_entries(f, gs->session, &later);
    if (rc == 0 && !later) {
        rc = remove_session(f, gs->session);
    }
    return rc != 0 ? rc : step(f, 0);
}

/* ---- what ended sessions have left ---- */

static void free_room(struct fold *f)
{
    free(f->bodies.v);
    free(f->times.v);
    scratch_free(&f->tmp);
    scratch_free(&f->key);
}

void durable_sweep_later(struct durable *d, uint64_t session)
{
    pthread_mutex_lock(&d->gens_lock);
    if (d->nended == d->ended_cap) {
        const size_t cap = d->ended_cap == 0 ? 16 : d->ended_cap * 2;
        uint64_t *v = realloc(d->ended, cap * sizeof(*v));
        if (v != NULL) {
            d->ended = v;
            d->ended_cap = cap;
        }
    }
    if (d->nended < d->ended_cap) { /* else the next start finds it */
        d->ended[d->nended++] = session;
        pthread_cond_signal(&d->fold_wake);
    }
    pthread_mutex_unlock(&d->gens_lock);
}

/* One slice. *more: entries are left. A session that is not there, or lives, is none of ours. */
static int sweep(struct fold *f, uint64_t session, bool *more)
{
    struct session_head h;
    int rc = begin(f);

    *more = false;
    rc = rc != 0 ? rc : fold_get_head(f, session, &h);
    if (rc == 0 && session_has_ended(&h)) {
        rc = fold_remove_entries(f, session, &h, more);
        rc = rc != 0 || *more ? rc : remove_session(f, session);
    }
    rc = rc == MDB_NOTFOUND ? 0 : rc;
    return rc != 0 ? rc : end_slice(f);
}

static void wait_until_ms(struct durable *d, int64_t due_ms)
{
    struct timespec ts = {.tv_sec = due_ms / 1000, .tv_nsec = due_ms % 1000 * 1000000};

    pthread_cond_timedwait(&d->fold_wake, &d->gens_lock, &ts);
}

/* Holding gens_lock, which is given up meanwhile. One slice of the first ended session. */
static void sweep_once(struct durable *d)
{
    const uint64_t session = d->ended[d->ended_at];
    struct fold f = {.d = d, .s = &d->state};
    bool more = true;
    int rc;

    d->fold_busy = true;
    pthread_mutex_unlock(&d->gens_lock);
    (void)guard_enter(d->state.env.file);
    rc = sweep(&f, session, &more);
    if (f.txn != NULL) {
        mdb_txn_abort(f.txn);
    }
    (void)guard_enter(NULL);
    free_room(&f);
    pthread_mutex_lock(&d->gens_lock);
    d->fold_busy = false;
    pthread_cond_broadcast(&d->folded);
    if (rc == 0) {
        if (d->slice != d->o.fold_slice) { /* there was no room */
            d->slice = d->o.fold_slice;
            atomic_store_explicit(&d->no_space, 0, memory_order_relaxed);
        }
        d->ended_at += !more;
        if (d->ended_at == d->nended) {
            d->ended_at = d->nended = 0;
        }
    } else if (env_rc(rc) == ST_IO) {
        durable_fail(d, d->state.env.file, rc);
    } else {
        atomic_store_explicit(&d->no_space, 1, memory_order_relaxed);
        (void)fold_smaller(d);
        wait_until_ms(d, durable_mono_us() / 1000 + 1000);
    }
}

/* ---- the whole ---- */

static int each_session(struct fold *f, struct gen_session **v,
                        int (*fn)(struct fold *f, const struct gen_session *gs))
{
    int rc = 0;

    for (uint32_t i = 0; i < f->nsessions && rc == 0; i++) {
        rc = fn(f, v[i]);
    }
    return rc;
}

static int put_folded(struct fold *f)
{
    int rc = meta_put_u64(f->txn, f->s->meta, "folded", f->g->last);

    if (rc == 0) {
        rc = meta_put_u64(f->txn, f->s->meta, "free_id", f->g->free_id);
    }
    return rc != 0 ? rc : meta_put_u64(f->txn, f->s->meta, "newest", (uint64_t)f->g->wall_ms);
}

static int begin_all(struct fold *f)
{
    uint64_t folded;
    uint64_t folding;
    int rc = begin(f);

    rc = rc != 0 ? rc : meta_get_u64(f->txn, f->s->meta, "folded", &folded);
    rc = rc != 0 ? rc : meta_get_u64(f->txn, f->s->meta, "folding", &folding);
    f->repeated = rc == 0 && folding > folded;
    return rc;
}

static int fold_all(struct fold *f, struct gen_session **v)
{
    int rc = begin_all(f);

    for (uint32_t i = 0; i < f->nsessions && rc == 0; i++) {
        rc = classify(f, v[i]);
    }
    if (rc == 0) {
        rc = meta_put_u64(f->txn, f->s->meta, "folding", f->g->last);
    }
    if (rc == 0) {
        rc = each_session(f, v, put_session);
    }
    if (rc == 0) {
        rc = fold_bodies(f);
    }
    if (rc == 0) {
        rc = each_session(f, v, fold_entries);
    }
    if (rc == 0) {
        rc = each_session(f, v, fold_inbound);
    }
    if (rc == 0) {
        rc = fold_named(f);
    }
    if (rc == 0) {
        rc = each_session(f, v, end_session);
    }
    if (rc == 0) {
        rc = put_folded(f);
    }
    return rc != 0 ? rc : end_slice(f);
}

int fold_generation(struct durable *d, struct gen *g)
{
    struct fold f = {.d = d, .s = &d->state, .g = g, .removable = d->o.fold_slice};
    const char *was = guard_enter(d->state.env.file);
    struct gen_session **v = sorted_sessions(g, &f.nsessions);
    int rc = v == NULL ? ENOMEM : fold_all(&f, v);

    if (f.txn != NULL) {
        mdb_txn_abort(f.txn);
    }
    (void)guard_enter(was);
    free(v);
    free_room(&f);
    if (rc == 0 && f.dropped > 0) {
        pthread_mutex_lock(&d->stats_lock);
        d->stats.dropped += f.dropped;
        pthread_mutex_unlock(&d->stats_lock);
    }
    return rc;
}

bool fold_smaller(struct durable *d)
{
    const uint32_t least = d->o.fold_slice < 16 ? d->o.fold_slice : 16;

    if (d->slice == least) {
        return false;
    }
    d->slice = d->slice / 8 > least ? d->slice / 8 : least;
    return true;
}

/* ---- the thread ---- */

#define REST_SHARE 8 /* of what starts a fold comes while the generation rests */

static bool is_more(const struct durable *d, uint64_t bytes, uint64_t records, unsigned less)
{
    return bytes >= d->o.fold_bytes - d->o.fold_bytes / REST_SHARE * less ||
           records >= d->o.fold_records - d->o.fold_records / REST_SHARE * less;
}

bool fold_has_enough(const struct durable *d)
{
    const struct gen *before = d->resting ? d->folding : NULL;

    return before == NULL
               ? is_more(d, d->cur->bytes, d->cur->records, 1)
               : is_more(d, before->bytes + d->cur->bytes, before->records + d->cur->records, 0);
}

/* Holding gens_lock: whether the current generation is to be folded; *due_ms when to look again. */
static bool is_due(const struct durable *d, int64_t *due_ms)
{
    const int64_t now = durable_mono_us() / 1000;
    const enum store_rc health = durable_health(d);
    /* Short of room, removals have to reach the tables soon: they are what gives pages back. */
    const int64_t age = health == ST_NOSPACE && d->o.fold_ms > 1000 ? 1000 : d->o.fold_ms;

    *due_ms = now + (health == ST_NOSPACE ? 1000 : 60000);
    if (d->cur->last == 0 || d->cur->partial || d->fold_paused > 0 || health == ST_IO) {
        return false;
    }
    if (d->fold_stop || fold_has_enough(d)) {
        return true;
    }
    *due_ms = d->cur->born_ms + age < now + 1000 ? d->cur->born_ms + age : now + 1000;
    return d->cur->born_ms + age <= now;
}

static void count_fold(struct durable *d, const struct gen *g, int64_t us)
{
    const double rate = (double)g->records * 1e6 / (double)(us > 0 ? us : 1);

    pthread_mutex_lock(&d->stats_lock);
    d->stats.folds++;
    d->stats.fold_us = (uint64_t)us;
    if (g->records > 1000) { /* a small one says nothing of a large one */
        d->fold_rate += (rate - d->fold_rate) / 2;
    }
    pthread_mutex_unlock(&d->stats_lock);
}

static bool has_rested(const struct durable *d, int64_t until_ms)
{
    const enum store_rc health = durable_health(d);

    if (d->fold_stop || health == ST_IO) {
        return true;
    }
    return d->fold_paused == 0 &&
           (health != ST_OK || fold_has_enough(d) || durable_mono_us() / 1000 >= until_ms);
}

/* Holding gens_lock, which is given up meanwhile. Until the fold begins; false: it must not any
 * more.
 */
static bool rest(struct durable *d)
{
    const int64_t until_ms = d->folding->born_ms + d->o.fold_ms;

    d->resting = true;
    while (!has_rested(d, until_ms)) {
        const int64_t soon_ms = durable_mono_us() / 1000 + 1000;
        wait_until_ms(d, d->fold_paused > 0 || until_ms > soon_ms ? soon_ms : until_ms);
    }
    d->resting = false;
    return durable_health(d) != ST_IO;
}

/* Holding gens_lock. One fold, with as many tries as it takes; false: given up. */
static bool fold_once(struct durable *d)
{
    struct gen *next = gen_create(&d->spare);
    int64_t began;
    int rc;

    if (next == NULL) {
        wait_until_ms(d, durable_mono_us() / 1000 + 1000);
        return !d->fold_stop;
    }
    d->folding = d->cur;
    d->folding_oldest_s = gen_oldest_s(d->cur);
    d->cur = next;
    if (!rest(d)) {
        return false;
    }
    d->fold_busy = true;
    began = durable_mono_us();
    for (;;) {
        pthread_mutex_unlock(&d->gens_lock);
        rc = fold_generation(d, d->folding);
        if (rc == 0) {
            count_fold(d, d->folding, durable_mono_us() - began);
        }
        pthread_mutex_lock(&d->gens_lock);
        if (rc == 0 || env_rc(rc) == ST_IO || d->fold_stop) {
            break;
        }
        atomic_store_explicit(&d->no_space, 1, memory_order_relaxed);
        (void)fold_smaller(d);
        wait_until_ms(d, durable_mono_us() / 1000 + 1000);
    }
    d->slice = d->o.fold_slice;
    d->fold_busy = false;
    if (rc == 0) {
        atomic_store_explicit(&d->no_space, 0, memory_order_relaxed);
        d->trim_to = d->folding->next_key;
        gen_unref(d->folding);
        d->folding = NULL;
    } else if (env_rc(rc) == ST_IO) {
        durable_fail(d, d->state.env.file, rc);
    }
    pthread_cond_broadcast(&d->folded);
    return rc == 0;
}

void *fold_thread(void *arg)
{
    struct durable *d = arg;
    int64_t due_ms;

    pthread_mutex_lock(&d->gens_lock);
    for (;;) {
        if (is_due(d, &due_ms)) {
            if (!fold_once(d)) {
                break;
            }
        } else if (d->fold_stop) {
            break;
        } else if (d->ended_at < d->nended && d->fold_paused == 0 && durable_health(d) != ST_IO) {
            sweep_once(d);
        } else {
            wait_until_ms(d, due_ms);
            if (env_is_low(&d->state.env)) {
                pthread_mutex_unlock(&d->gens_lock);
                durable_top_up_state(d);
                pthread_mutex_lock(&d->gens_lock);
            }
        }
    }
    pthread_mutex_unlock(&d->gens_lock);
    return NULL;
}
