/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fold of entries: what a generation says of a session's queue is merged into its rows.
 *
 * A row is a run of entries up to QUEUE_ROW_MAX bytes. The one in which the next change falls is
 * read, its entries and the changes go through a merge by seq, and what comes out is written: the
 * first row under the old key, what does not fit in it any more behind it. New entries are usually
 * behind all others: then the last row is filled up and whole rows follow.
 *
 * A body that no other entry has goes with its entry. Nobody can refer to it later: a body is put
 * in the unit of its entries (store.h), a unit is in one group and a group in one generation, and
 * whoever hands a message on to another session puts its body anew, under an id of its own.
 * Whether a body goes with its entry depends on the generation only, so a fold that is done again
 * does the same; and where an older program was interrupted that had put it in `bodies`, the fold
 * takes it from there (see put_body() in fold.c).
 *
 * A slice may end behind every change: the row at hand is written first, and read again by the
 * next one.
 */
#include "storage/bytes.h"
#include "storage/fold.h"

#include <string.h>

bool fold_is_inline(const struct gen_body *b)
{
    return b->live == 1 && (size_t)(b->end - b->record) <= PIECE_MAX - ENTRY_HEAD;
}

/* ---- the session's record ---- */

int fold_get_head(struct fold *f, uint64_t session, struct session_head *h)
{
    uint8_t k[8];
    MDB_val first;
    int rc;

    put_be64(k, session);
    rc = object_peek(f->sessions, k, sizeof(k), &first);
    return rc == 0 && !session_head_get(first, h) ? MDB_CORRUPTED : rc;
}

/* The first entry of the row under the cursor. */
static int first_of(struct fold *f, MDB_val key, MDB_val val, struct queue_entry *e)
{
    struct queue_row r;
    int rc = queue_row_open(&r, f->s->queue, key, val) ? queue_row_next(&r, e) : MDB_CORRUPTED;

    return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc; /* a row has at least one */
}

static int look_for_first(struct fold *f, uint64_t session, struct session_head *h)
{
    struct queue_entry e;
    MDB_val key;
    MDB_val val;
    int rc = queue_find(f->queue, session, 0, &key, &val);

    if (rc == MDB_NOTFOUND) {
        h->first_seq = h->next_seq;
        return 0;
    }
    rc = rc != 0 ? rc : first_of(f, key, val, &e);
    if (rc == 0) {
        h->first_seq = e.seq;
    }
    return rc;
}

int fold_put_head(struct fold *f, uint64_t session, struct session_head *h, bool look)
{
    uint8_t head[SESSION_HEAD];
    uint8_t k[8];
    int rc = look ? look_for_first(f, session, h) : 0;

    if (rc != 0) {
        return rc;
    }
    session_head_put(head, h);
    put_be64(k, session);
    return object_patch(f->sessions, k, sizeof(k), head, sizeof(head));
}

/* ---- counts ---- */

/* when_s of an entry that has its body with it. */
static uint32_t when_of(const struct queue_entry *e)
{
    return record_body_when(e->record, e->record + e->record_n);
}

static int count_in(struct fold *f, struct session_head *h, const struct queue_entry *e,
                    const struct gen_body *born)
{
    h->first_seq = h->count == 0 || e->seq < h->first_seq ? e->seq : h->first_seq;
    h->count++;
    h->bytes += e->size;
    if (e->record_n > 0) {
        return deltas_add(&f->times, when_of(e), 1);
    }
    return born == NULL ? deltas_add(&f->bodies, e->body, 1) : 0;
}

static int count_out(struct fold *f, struct session_head *h, const struct queue_entry *e)
{
    h->count -= h->count > 0;
    h->bytes -= h->bytes < e->size ? h->bytes : e->size;
    return e->record_n > 0 ? deltas_add(&f->times, when_of(e), -1)
                           : deltas_add(&f->bodies, e->body, -1);
}

/* ---- a row that is being written anew ---- */

struct merge {
    struct fold *f;
    uint64_t session;
    struct session_head head;
    bool look; /* for the first seq: the first entry is gone, or there was none */
    bool open;
    bool has_next;     /* there is a row behind it, */
    uint64_t next_seq; /* with this key: changes from there on are its */
    /* What was there. */
    uint8_t in[QUEUE_ROW_MAX];
    struct queue_row old;
    struct queue_entry at; /* its next entry */
    bool has_old;          /* there is one */
    bool replaces;         /* the row under `key` is the old one */
    bool changed;          /* what is in `out` is not what is in the old row */
    /* What will be. */
    uint64_t key;
    size_t n;
    uint8_t out[QUEUE_ROW_MAX]; /* the checksum behind QUEUE_RUN_MAX of it */
};

static int next_old(struct merge *m)
{
    int rc = queue_row_next(&m->old, &m->at);

    m->has_old = rc == 0;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int load_row(struct merge *m, MDB_val key, MDB_val val)
{
    if (!queue_row_open(&m->old, m->f->s->queue, key, val)) {
        return MDB_CORRUPTED;
    }
    memcpy(m->in, val.mv_data, val.mv_size); /* the page may change under a view */
    m->old.end = m->in + (m->old.end - m->old.p);
    m->old.p = m->in;
    m->key = m->old.seq;
    m->replaces = true;
    return next_old(m);
}

/* The row in which the change falls, or none. */
static int open_row(struct merge *m, uint64_t seq)
{
    MDB_val key;
    MDB_val val;
    int rc = queue_find(m->f->queue, m->session, seq, &key, &val);

    m->open = true;
    m->has_next = m->has_old = m->replaces = m->changed = false;
    m->n = 0;
    if (rc == 0 && get_be64((uint8_t *)key.mv_data + 8) <= seq) {
        rc = load_row(m, key, val);
        rc = rc != 0 ? rc : mdb_cursor_get(m->f->queue, &key, &val, MDB_NEXT);
    }
    if (rc == 0 && key.mv_size == QUEUE_KEY && get_be64(key.mv_data) == m->session) {
        m->has_next = true;
        m->next_seq = get_be64((uint8_t *)key.mv_data + 8);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int remove_row(struct merge *m, MDB_val *key)
{
    MDB_val val;
    int rc = mdb_cursor_get(m->f->queue, key, &val, MDB_SET);

    return rc != 0 ? rc : mdb_cursor_del(m->f->queue, 0);
}

static int write_row(struct merge *m)
{
    uint8_t k[QUEUE_KEY];
    MDB_val key = {sizeof(k), k};
    MDB_val val = {m->n, m->out};
    int rc = 0;

    queue_key(k, m->session, m->key);
    if (m->n > 0 && (m->changed || m->has_old)) {
        val.mv_size = queue_row_seal(m->f->s->queue, key, m->out, m->n);
        rc = mdb_cursor_put(m->f->queue, &key, &val, 0);
        m->f->bytes += m->n;
    } else if (m->n == 0 && m->replaces) {
        rc = remove_row(m, &key);
    }
    m->n = 0;
    m->replaces = false;
    m->changed = true; /* what follows is not there yet */
    return rc;
}

static int emit(struct merge *m, const struct queue_entry *e)
{
    int rc = 0;

    if (m->n + queue_entry_size(e) > QUEUE_RUN_MAX) {
        rc = write_row(m);
    }
    if (rc == 0 && m->n == 0 && !m->replaces) {
        m->key = e->seq;
    }
    if (rc == 0) {
        m->n = (size_t)(queue_entry_put(m->out + m->n, e) - m->out);
    }
    return rc;
}

/* The old entries below seq as they are. */
static int emit_old(struct merge *m, uint64_t seq)
{
    int rc = 0;

    while (rc == 0 && m->has_old && m->at.seq < seq) {
        rc = emit(m, &m->at);
        rc = rc != 0 ? rc : next_old(m);
    }
    return rc;
}

static int close_row(struct merge *m)
{
    int rc = 0;

    while (rc == 0 && m->has_old) {
        rc = emit(m, &m->at);
        rc = rc != 0 ? rc : next_old(m);
    }
    m->open = false;
    return rc != 0 ? rc : write_row(m);
}

/* ---- changes ---- */

static struct queue_entry entry_of(const struct gen_entry *e)
{
    struct queue_entry v = {
        .seq = e->seq,
        .body = e->body,
        .expires_ms = e->expires_ms,
        .number = e->number,
        .group = e->group,
        .size = e->born == NULL ? 0 : e->born->size,
        .packet_id = e->packet_id,
        .flags = e->flags,
        .step = e->step,
    };

    if (e->born != NULL && fold_is_inline(e->born)) {
        v.record = e->born->record;
        v.record_n = (uint16_t)(e->born->end - e->born->record);
    }
    return v;
}

/* One that an interrupted fold has put: all but the counts is absolute. */
static int put_again(struct merge *m, const struct queue_entry *v)
{
    const bool had = m->at.record_n > 0;
    int rc = next_old(m);

    if (rc == 0 && !had && v->record_n > 0) { /* an older program's */
        rc = deltas_add(&m->f->times, when_of(v), 1);
    }
    return rc != 0 ? rc : emit(m, v);
}

static int merge_put(struct merge *m, const struct gen_entry *e)
{
    const struct queue_entry v = entry_of(e);
    const bool again = m->has_old && m->at.seq == e->seq;
    int rc;

    if (again) {
        m->changed = true;
        return put_again(m, &v);
    }
    rc = emit(m, &v);
    m->changed = true; /* behind emit(), which may have written what came before */
    return rc != 0 ? rc : count_in(m->f, &m->head, &v, e->born);
}

/* A removal or a step of an entry that is older than the generation; it may be gone. */
static int merge_change(struct merge *m, const struct gen_entry *e)
{
    int rc;

    if (!m->has_old || m->at.seq != e->seq) {
        return 0;
    }
    m->changed = true;
    if (e->what == GEN_DEL) {
        m->look = m->look || m->at.seq <= m->head.first_seq;
        rc = count_out(m->f, &m->head, &m->at);
        return rc != 0 ? rc : next_old(m);
    }
    m->at.packet_id = e->packet_id;
    m->at.step = e->step;
    return 0;
}

static int merge_entry(struct merge *m, const struct gen_entry *e)
{
    int rc = 0;

    if (m->open && m->has_next && e->seq >= m->next_seq) {
        rc = close_row(m);
    }
    if (rc == 0 && !m->open) {
        rc = open_row(m, e->seq);
    }
    rc = rc != 0 ? rc : emit_old(m, e->seq);
    if (rc == 0) {
        rc = e->what == GEN_PUT ? merge_put(m, e) : merge_change(m, e);
    }
    return rc;
}

/* The counts go with the entries they count. */
static int end_slice(struct merge *m)
{
    int rc = m->open ? close_row(m) : 0;

    rc = rc != 0 ? rc : fold_put_head(m->f, m->session, &m->head, m->look);
    return rc != 0 ? rc : fold_next_slice(m->f);
}

static int fold_entry(struct merge *m, const struct gen_entry *e)
{
    int rc;

    if (e->what == GEN_PUT && e->seq >= m->head.next_seq) {
        m->head.next_seq = e->seq + 1;
    }
    if (e->what == GEN_PUT && e->dead) {
        return 0;
    }
    rc = merge_entry(m, e);
    m->f->ops++;
    return rc == 0 && fold_slice_full(m->f) ? end_slice(m) : rc;
}

static bool has_live(const struct gen_session *gs)
{
    return gs->live > 0 || gs->olds.n > 0;
}

/* Changes of older entries and new entries, in the order of seq. */
static int merge_all(struct merge *m, const struct gen_session *gs)
{
    uint32_t old = 0;
    uint32_t put = 0;
    int rc = 0;

    while (rc == 0 && (old < gs->olds.n || put < gs->puts.n)) {
        if (put == gs->puts.n || (old < gs->olds.n && gs->olds.v[old].seq <= gs->puts.v[put].seq)) {
            rc = fold_entry(m, &gs->olds.v[old++]);
        } else {
            rc = fold_entry(m, &gs->puts.v[put++]);
        }
    }
    return rc;
}

int fold_entries(struct fold *f, const struct gen_session *gs)
{
    struct merge m;
    int rc;

    if (gs->skip || !has_live(gs)) {
        return 0;
    }
    m.f = f; /* the rest when a row is opened: not all of it for each session */
    m.session = gs->session;
    m.open = false;
    rc = fold_get_head(f, gs->session, &m.head);
    m.look = rc == 0 && m.head.count == 0; /* what is to come may be removed as well */
    rc = rc != 0 ? rc : merge_all(&m, gs);
    if (rc == 0 && m.open) {
        rc = close_row(&m);
    }
    return rc != 0 ? rc : fold_put_head(f, gs->session, &m.head, m.look);
}

/* ---- ends ---- */

/* The row under the cursor, with its entries' counts. */
static int remove_whole(struct fold *f, struct session_head *h, MDB_val key, MDB_val val)
{
    struct queue_row r;
    struct queue_entry e;
    int rc = queue_row_open(&r, f->s->queue, key, val) ? 0 : MDB_CORRUPTED;

    while (rc == 0 && (rc = queue_row_next(&r, &e)) == 0) {
        rc = count_out(f, h, &e);
        f->ops++;
    }
    f->bytes += val.mv_size;
    return rc == MDB_NOTFOUND ? mdb_cursor_del(f->queue, 0) : rc;
}

int fold_remove_entries(struct fold *f, uint64_t session, struct session_head *h, bool *more)
{
    int rc = 0;

    *more = false;
    while (rc == 0) {
        MDB_val key;
        MDB_val val;

        rc = queue_find(f->queue, session, 0, &key, &val);
        if (rc == 0 && fold_slice_full(f)) {
            *more = true;
            return fold_put_head(f, session, h, true);
        }
        rc = rc != 0 ? rc : remove_whole(f, h, key, val);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}
