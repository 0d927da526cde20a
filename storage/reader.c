/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader thread: pages of queues and retained messages, so that a cold page of a file stalls
 * nobody else.
 *
 * A request goes through the store thread's intake, behind the units of its submitter; when those
 * are committed and in the current generation, it comes here. The generations are referenced first
 * and the read transaction begins second: what a fold commits in between is then seen twice, which
 * merging forgives, and never missed. Removals and steps win over what `state` has.
 *
 * A read transaction lasts for one page: one held open would make the file grow.
 */
#include "storage/bytes.h"
#include "storage/durable.h"
#include "storage/guard.h"
#include "storage/queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct found {
    struct queue_entry v;
    const struct gen_body *born; /* NULL: the body is in `state` */
};

struct page {
    struct durable *d;
    struct store_page *p;
    struct gen *folding, *cur;
    MDB_txn *txn;
    MDB_cursor *queue;
    bool started;
    struct queue_row row; /* under the cursor, from the entry behind `state` on */
    bool in_state;        /* `state` has a next entry: */
    struct found state;   /* this one */
    struct scratch memory, tmp;
    size_t used;
    uint32_t cap; /* entries */
};

/* ---- the three sources ---- */

/* MDB_NOTFOUND: the session has no more rows. */
static int next_row(struct page *pg)
{
    const uint64_t session = pg->p->session;
    MDB_val key;
    MDB_val val;
    int rc = pg->started ? mdb_cursor_get(pg->queue, &key, &val, MDB_NEXT)
                         : queue_find(pg->queue, session, pg->p->from_seq, &key, &val);

    pg->started = true;
    if (rc == 0 && !queue_row_open(&pg->row, pg->d->state.queue, key, val)) {
        rc = MDB_CORRUPTED;
    }
    return rc == 0 && pg->row.session != session ? MDB_NOTFOUND : rc;
}

static int next_in_state(struct page *pg)
{
    int rc;

    do {
        rc = pg->row.p == NULL ? MDB_NOTFOUND : queue_row_next(&pg->row, &pg->state.v);
        while (rc == MDB_NOTFOUND && (rc = next_row(pg)) == 0) {
            rc = queue_row_next(&pg->row, &pg->state.v);
        }
    } while (rc == 0 && pg->state.v.seq < pg->p->from_seq);
    pg->in_state = rc == 0;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static void from_entry(struct found *f, const struct gen_entry *e)
{
    *f = (struct found){
        .born = e->born,
        .v = {.seq = e->seq,
              .body = e->body,
              .expires_ms = e->expires_ms,
              .number = e->number,
              .group = e->group,
              .packet_id = e->packet_id,
              .flags = e->flags,
              .step = e->step},
    };
}

/* The first living entry of a generation with this seq or above. */
static bool next_in_gen(const struct gen *g, uint64_t session, uint64_t seq, struct found *f)
{
    const struct gen_session *s = g == NULL ? NULL : gen_find(g, session);

    if (s == NULL) {
        return false;
    }
    for (uint32_t i = gen_lower(&s->puts, seq); i < s->puts.n; i++) {
        if (!s->puts.v[i].dead) {
            from_entry(f, &s->puts.v[i]);
            return true;
        }
    }
    return false;
}

/* What a newer generation says of an older entry; false: it is removed. */
static bool overlay(const struct gen *g, uint64_t session, struct found *f)
{
    const struct gen_session *s = g == NULL ? NULL : gen_find(g, session);
    uint32_t i;

    if (s == NULL) {
        return true;
    }
    i = gen_lower(&s->olds, f->v.seq);
    if (i == s->olds.n || s->olds.v[i].seq != f->v.seq) {
        return true;
    }
    if (s->olds.v[i].what == GEN_DEL) {
        return false;
    }
    f->v.packet_id = s->olds.v[i].packet_id;
    f->v.step = s->olds.v[i].step;
    return true;
}

static bool has_ended(const struct gen *g, uint64_t session)
{
    const struct gen_session *s = g == NULL ? NULL : gen_find(g, session);

    return s != NULL && s->ended;
}

/* ---- the page ---- */

static bool copy(struct page *pg, struct store_bytes *b)
{
    uint8_t *p = scratch_room(&pg->memory, pg->used + b->n);

    if (p == NULL) {
        return false;
    }
    if (b->n > 0) {
        memcpy(p + pg->used, b->p, b->n);
    }
    b->p = NULL; /* set when the buffer moves no more */
    pg->used += b->n;
    return true;
}

static bool room_for_entry(struct page *pg)
{
    struct store_page *p = pg->p;

    if (p->n == pg->cap) {
        const uint32_t cap = pg->cap == 0 ? 16 : pg->cap * 2;
        struct store_entry *v = realloc(p->entries, cap * sizeof(*v));
        if (v == NULL) {
            return false;
        }
        p->entries = v;
        pg->cap = cap;
    }
    return true;
}

static int get_body(struct page *pg, const struct found *f, struct store_op *op)
{
    uint8_t k[8];
    uint32_t count;
    MDB_val whole;
    int rc;

    if (f->born != NULL) {
        const uint8_t *p = f->born->record;
        return record_decode(&p, f->born->end, op) ? 0 : MDB_CORRUPTED;
    }
    if (f->v.record_n > 0) {
        const uint8_t *p = f->v.record;
        return record_decode(&p, p + f->v.record_n, op) ? 0 : MDB_CORRUPTED;
    }
    put_be64(k, f->v.body);
    rc = object_get(pg->txn, pg->d->state.bodies, k, sizeof(k), &pg->tmp, &whole);
    return rc == 0 && !body_view(whole, &count, op) ? MDB_CORRUPTED : rc;
}

static int add_entry(struct page *pg, const struct found *f)
{
    struct store_page *p = pg->p;
    struct store_entry *e;
    struct store_op body;
    int rc = get_body(pg, f, &body);

    if (rc == MDB_NOTFOUND || rc == MDB_CORRUPTED) {
        durable_log(pg->d, LOG_LEVEL_WARNING, "%s: message %llu of session %llu has no %sbody",
                    pg->d->state.env.file, (unsigned long long)f->v.seq,
                    (unsigned long long)p->session, rc == MDB_NOTFOUND ? "" : "valid ");
        return MDB_CORRUPTED;
    }
    if (rc == 0 && p->n > 0 && pg->used + body_size(&body) > p->max_bytes) {
        p->more = true;
        return 0;
    }
    if (rc != 0 || !room_for_entry(pg) || !copy(pg, &body.name) || !copy(pg, &body.props) ||
        !copy(pg, &body.data)) {
        return rc != 0 ? rc : ENOMEM;
    }
    e = &p->entries[p->n++];
    *e = (struct store_entry){
        .seq = f->v.seq,
        .body = f->v.body,
        .number = f->v.number,
        .group = f->v.group,
        .packet_id = f->v.packet_id,
        .flags = f->v.flags,
        .step = f->v.step,
        .expires_ms = recover_time(pg->d, f->v.expires_ms),
        .name = body.name,
        .data = body.data,
        .props = body.props,
    };
    return 0;
}

/* The entry with the lowest seq of at least `seq`; false: none left. *skip: it is removed. */
static bool pick(struct page *pg, uint64_t seq, struct found *out, bool *skip)
{
    const uint64_t session = pg->p->session;
    struct found a;
    struct found b;
    bool in_a;
    bool in_b;

    *skip = false;
    pthread_mutex_lock(&pg->d->gens_lock);
    in_a = next_in_gen(pg->folding, session, seq, &a); /* it may be resting */
    in_b = next_in_gen(pg->cur, session, seq, &b);
    if (in_b && (!in_a || b.v.seq <= a.v.seq) && (!pg->in_state || b.v.seq <= pg->state.v.seq)) {
        *out = b;
    } else if (in_a && (!pg->in_state || a.v.seq <= pg->state.v.seq)) {
        *out = a;
        *skip = !overlay(pg->cur, session, out);
    } else if (pg->in_state) {
        *out = pg->state;
        *skip = !overlay(pg->folding, session, out) || !overlay(pg->cur, session, out);
    } else {
        in_b = false;
        in_a = false;
    }
    pthread_mutex_unlock(&pg->d->gens_lock);
    return in_a || in_b || pg->in_state;
}

/* The session's record says which entry is the first: rows whose keys are damaged may stand where
 * nobody looks for them. */
static int check_first(struct page *pg)
{
    struct session_head h;
    MDB_cursor *cur;
    uint8_t k[8];
    MDB_val first;
    int rc = mdb_cursor_open(pg->txn, pg->d->state.sessions, &cur);

    if (rc != 0) {
        return rc;
    }
    put_be64(k, pg->p->session);
    rc = object_peek(cur, k, sizeof(k), &first);
    mdb_cursor_close(cur);
    if (rc != 0) {
        return rc == MDB_NOTFOUND ? 0 : rc;
    }
    return !session_head_get(first, &h) ||
                   (h.count > 0 && h.first_seq >= pg->p->from_seq &&
                    (!pg->in_state || pg->state.v.seq > h.first_seq))
               ? MDB_CORRUPTED
               : 0;
}

static int fill(struct page *pg)
{
    struct store_page *p = pg->p;
    uint64_t seq = p->from_seq;
    struct found f;
    bool skip;
    int rc = next_in_state(pg);

    rc = rc != 0 ? rc : check_first(pg);

    while (rc == 0 && !p->more && pick(pg, seq, &f, &skip)) {
        if (!skip && p->n >= p->max_entries && p->n > 0) {
            p->more = true;
            break;
        }
        if (!skip) {
            rc = add_entry(pg, &f);
        }
        seq = f.v.seq + 1;
        if (rc == 0 && pg->in_state && pg->state.v.seq <= f.v.seq) {
            rc = next_in_state(pg);
        }
        if (seq == 0) {
            break;
        }
    }
    return rc;
}

static void place_views(struct store_page *p, const uint8_t *at)
{
    for (uint32_t i = 0; i < p->n; i++) {
        struct store_entry *e = &p->entries[i];
        e->name.p = at;
        at += e->name.n;
        e->props.p = at;
        at += e->props.n;
        e->data.p = at;
        at += e->data.n;
    }
}

static void hold_gens(struct durable *d, struct gen **cur, struct gen **folding)
{
    pthread_mutex_lock(&d->gens_lock);
    *cur = d->cur;
    gen_ref(*cur);
    *folding = d->folding;
    if (*folding != NULL) {
        gen_ref(*folding);
    }
    pthread_mutex_unlock(&d->gens_lock);
}

/* What cannot be read is lost, whoever asked for it: nothing may be acknowledged on top of that. */
static enum store_rc failed_read(struct durable *d, int rc)
{
    if (env_rc(rc) == ST_IO) {
        durable_fail(d, d->state.env.file, rc);
    }
    return env_rc(rc);
}

static enum store_rc read_page(struct durable *d, struct store_page *p)
{
    struct page pg = {.d = d, .p = p};
    bool ended;
    int rc;

    hold_gens(d, &pg.cur, &pg.folding);
    ended = has_ended(pg.folding, p->session);
    pthread_mutex_lock(&d->gens_lock);
    ended = ended || has_ended(pg.cur, p->session);
    pthread_mutex_unlock(&d->gens_lock);
    rc = ended ? 0 : mdb_txn_begin(d->state.env.mdb, NULL, MDB_RDONLY, &pg.txn);
    if (rc == 0 && !ended) {
        rc = mdb_cursor_open(pg.txn, d->state.queue, &pg.queue);
        if (rc == 0) {
            rc = fill(&pg);
            mdb_cursor_close(pg.queue);
        }
        mdb_txn_abort(pg.txn);
    }
    gen_unref(pg.cur);
    gen_unref(pg.folding);
    scratch_free(&pg.tmp);
    p->memory = pg.memory.p;
    if (rc != 0) {
        store_page_free(p);
        p->more = false;
        return failed_read(d, rc);
    }
    place_views(p, p->memory);
    return ST_OK;
}

/* ---- retained messages ---- */

struct fetching {
    struct durable *d;
    struct gen *folding, *cur;
    MDB_txn *txn;
    struct scratch memory, tmp;
    size_t used;
};

/* The newest record of the topic; MDB_NOTFOUND: there is none. */
static int find_kept(struct fetching *ft, struct store_bytes name, struct store_op *op)
{
    struct gen_named n;
    const uint8_t *p;
    bool is_there;

    pthread_mutex_lock(&ft->d->gens_lock);
    is_there = gen_find_retained(ft->cur, name, &n);
    pthread_mutex_unlock(&ft->d->gens_lock);
    if (!is_there && ft->folding != NULL) {
        is_there = gen_find_retained(ft->folding, name, &n);
    }
    if (!is_there) {
        return state_retained_get(&ft->d->state, ft->txn, name, &ft->tmp, op);
    }
    p = n.record; /* the generation's, which we hold */
    if (n.del) {
        return MDB_NOTFOUND;
    }
    return record_decode(&p, n.end, op) ? 0 : MDB_CORRUPTED;
}

static int fetch_one(struct fetching *ft, struct store_kept *k)
{
    struct store_op op;
    int rc = find_kept(ft, k->name, &op);
    uint8_t *p;

    k->found = rc == 0;
    if (rc != 0) {
        return rc == MDB_NOTFOUND ? 0 : rc;
    }
    p = scratch_room(&ft->memory, ft->used + op.props.n + op.data.n);
    if (p == NULL) {
        return ENOMEM;
    }
    k->flags = op.flags;
    k->seq = op.seq;
    k->expires_ms = recover_time(ft->d, op.expires_ms);
    k->props = (struct store_bytes){NULL, op.props.n}; /* placed when the buffer moves no more */
    k->data = (struct store_bytes){NULL, op.data.n};
    if (op.props.n > 0) {
        memcpy(p + ft->used, op.props.p, op.props.n);
    }
    if (op.data.n > 0) {
        memcpy(p + ft->used + op.props.n, op.data.p, op.data.n);
    }
    ft->used += op.props.n + op.data.n;
    return 0;
}

static void place_kept(struct store_fetch *f, const uint8_t *at)
{
    for (uint32_t i = 0; i < f->n; i++) {
        struct store_kept *k = &f->kept[i];
        if (k->found) {
            k->props.p = at;
            k->data.p = at + k->props.n;
            at += k->props.n + k->data.n;
        }
    }
}

static enum store_rc fetch_kept(struct durable *d, struct store_fetch *f)
{
    struct fetching ft = {.d = d};
    int rc;

    hold_gens(d, &ft.cur, &ft.folding);
    rc = mdb_txn_begin(d->state.env.mdb, NULL, MDB_RDONLY, &ft.txn);
    if (rc == 0) {
        for (uint32_t i = 0; i < f->n && rc == 0; i++) {
            rc = fetch_one(&ft, &f->kept[i]);
        }
        mdb_txn_abort(ft.txn);
    }
    gen_unref(ft.cur);
    gen_unref(ft.folding);
    scratch_free(&ft.tmp);
    f->memory = ft.memory.p;
    if (rc != 0) {
        store_fetch_free(f);
        return failed_read(d, rc);
    }
    place_kept(f, f->memory);
    return ST_OK;
}

enum store_rc reader_fetch(struct store *s, struct store_fetch *f)
{
    struct durable *d = (struct durable *)s;
    enum store_rc rc = ST_CLOSED;

    f->next = NULL;
    pthread_mutex_lock(&d->read_lock);
    if (!d->read_stop) {
        *d->fetches_last = f;
        d->fetches_last = &f->next;
        pthread_cond_signal(&d->read_wake);
        rc = ST_OK;
    }
    pthread_mutex_unlock(&d->read_lock);
    return rc;
}

/* ---- the thread ---- */

/* The request's place in the order has been reached. */
static void placed(struct store_unit *u, enum store_rc rc)
{
    struct store_page *p =
        (struct store_page *)(void *)((char *)u - offsetof(struct store_page, unit));
    struct durable *d = p->memory; /* lent until the answer */

    p->memory = NULL;
    p->next = NULL;
    if (rc != ST_OK) {
        p->rc = rc;
        p->done(p);
        return;
    }
    pthread_mutex_lock(&d->read_lock);
    *d->reads_last = p;
    d->reads_last = &p->next;
    pthread_cond_signal(&d->read_wake);
    pthread_mutex_unlock(&d->read_lock);
}

enum store_rc reader_read(struct store *s, struct store_page *p)
{
    enum store_rc rc;

    p->unit = (struct store_unit){.done = placed};
    p->memory = s;
    rc = store_submit(s, &p->unit);
    if (rc != ST_OK) {
        p->memory = NULL;
    }
    return rc;
}

/* The first of the list; NULL: none. Under the lock. */
static struct store_page *next_read(struct durable *d)
{
    struct store_page *p = d->reads;

    if (p != NULL) {
        d->reads = p->next;
        d->reads_last = d->reads == NULL ? &d->reads : d->reads_last;
    }
    return p;
}

static struct store_fetch *next_fetch(struct durable *d)
{
    struct store_fetch *f = d->fetches;

    if (f != NULL) {
        d->fetches = f->next;
        d->fetches_last = d->fetches == NULL ? &d->fetches : d->fetches_last;
    }
    return f;
}

/* One of each kind in turn. */
void *reader_thread(void *arg)
{
    struct durable *d = arg;

    pthread_mutex_lock(&d->read_lock);
    for (;;) {
        struct store_page *p = next_read(d);
        struct store_fetch *f = next_fetch(d);

        if (p == NULL && f == NULL) {
            if (d->read_stop) {
                break;
            }
            pthread_cond_wait(&d->read_wake, &d->read_lock);
            continue;
        }
        pthread_mutex_unlock(&d->read_lock);
        if (p != NULL) {
            (void)guard_enter(d->state.env.file);
            p->rc = read_page(d, p);
            (void)guard_enter(NULL);
            p->done(p);
        }
        if (f != NULL) {
            (void)guard_enter(d->state.env.file);
            f->rc = fetch_kept(d, f);
            (void)guard_enter(NULL);
            f->done(f);
        }
        pthread_mutex_lock(&d->read_lock);
    }
    pthread_mutex_unlock(&d->read_lock);
    return NULL;
}
