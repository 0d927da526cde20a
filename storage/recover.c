/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start: both environments opened and checked against each other, the journal above the
 * folded-to number folded, everything but queues and bodies handed out once.
 *
 * The groups of a fold that was interrupted make a generation of their own, with the bounds that
 * the fold had (see fold.c); the others come in generations of the usual size.
 *
 * A disk that is full to the last page: the folds write to the ballast of `state`, which is as
 * large as what the journal can hold for it, then to that of the journal.
 */
#include "storage/bytes.h"
#include "storage/durable.h"
#include "storage/guard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

int64_t recover_time(const struct durable *d, int64_t wall_ms)
{
    int64_t t;

    if (wall_ms == 0) {
        return 0;
    }
    t = wall_ms - d->clock;
    return t == 0 ? 1 : t; /* 0 means never */
}

/* ---- opening ---- */

/* *old: older than what this program writes. */
static int check_version(MDB_txn *txn, MDB_dbi meta, const char *file, bool *old, char *err,
                         size_t cap)
{
    uint8_t b[4];
    int rc = meta_get(txn, meta, "version", b, sizeof(b));

    if (rc != 0) {
        snprintf(err, cap, "%s: damaged: no version in it", file);
    } else if (get_le32(b) == 0 || get_le32(b) > STORE_VERSION) {
        snprintf(err, cap,
                 "%s: written by another version of this program (format %u, known: up to %u)",
                 file, get_le32(b), STORE_VERSION);
        rc = MDB_VERSION_MISMATCH;
    }
    *old = rc == 0 && get_le32(b) < STORE_VERSION;
    return rc;
}

static int put_version(MDB_txn *txn, MDB_dbi meta, const uint8_t *id)
{
    int rc = meta_put_version(txn, meta);

    return rc != 0 ? rc : meta_put(txn, meta, "id", id, STORE_ID);
}

static int journal_tables(struct journal *j, MDB_txn *txn, unsigned flags)
{
    int rc = mdb_dbi_open(txn, "meta", flags, &j->meta);

    return rc != 0 ? rc : mdb_dbi_open(txn, "log", flags | MDB_INTEGERKEY, &j->log);
}

int recover_marks(struct durable *d, MDB_txn *txn, struct recover_marks *m)
{
    const MDB_dbi meta = d->state.meta;
    int rc;

    rc = meta_get_u64(txn, meta, "folded", &m->folded);
    rc = rc != 0 ? rc : meta_get_u64(txn, meta, "folding", &m->folding);
    rc = rc != 0 ? rc : meta_get_u64(txn, meta, "free_id", &m->free_id);
    rc = rc != 0 ? rc : meta_get_u64(txn, meta, "newest", &m->newest);
    rc = rc != 0 ? rc : meta_get_u64(txn, meta, "stopped", &m->stopped);
    return rc;
}

static int read_marks(struct durable *d, struct recover_marks *m)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(d->state.env.mdb, NULL, MDB_RDONLY, &txn);

    if (rc == 0) {
        rc = recover_marks(d, txn, m);
        mdb_txn_abort(txn);
    }
    return rc;
}

/* With the id of the state, which is there. */
static int make_journal(struct durable *d)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(d->journal.env.mdb, NULL, 0, &txn);

    if (rc != 0) {
        return rc;
    }
    rc = journal_tables(&d->journal, txn, MDB_CREATE);
    if (rc == 0) {
        rc = put_version(txn, d->journal.meta, d->id);
    }
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return env_commit(txn);
}

static const char *const marks[] = {"folded", "folding", "free_id", "newest", "stopped"};
#define MARKS (sizeof(marks) / sizeof(marks[0]))

static int make_state(struct durable *d)
{
    MDB_txn *txn;
    int rc;

    if (getrandom(d->id, sizeof(d->id), 0) != (ssize_t)sizeof(d->id)) {
        return EIO;
    }
    rc = mdb_txn_begin(d->state.env.mdb, NULL, 0, &txn);
    if (rc != 0) {
        return rc;
    }
    rc = state_tables(&d->state, txn, MDB_CREATE);
    if (rc == 0) {
        rc = put_version(txn, d->state.meta, d->id);
    }
    for (size_t i = 0; rc == 0 && i < MARKS; i++) {
        rc = meta_put_u64(txn, d->state.meta, marks[i], 0);
    }
    rc = rc != 0 ? rc : state_put_rows(&d->state, txn);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return env_commit(txn);
}

/* Handles of tables stay valid only when the transaction that opened them commits. */
static int open_state_tables(struct durable *d, char *err, size_t cap)
{
    struct state *s = &d->state;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env.mdb, NULL, MDB_RDONLY, &txn);

    if (rc != 0) {
        return rc;
    }
    rc = state_tables(s, txn, 0);
    if (rc == 0) {
        rc = check_version(txn, s->meta, s->env.file, &s->old, err, cap);
    }
    if (rc == 0 && s->times == 0 && !s->old) {
        rc = MDB_NOTFOUND;
    }
    if (rc == 0) {
        rc = meta_get(txn, s->meta, "id", d->id, sizeof(d->id));
    }
    mdb_txn_commit(txn);
    return rc;
}

static int open_journal_tables(struct durable *d, char *err, size_t cap)
{
    struct journal *j = &d->journal;
    uint8_t id[STORE_ID];
    MDB_txn *txn;
    int rc = mdb_txn_begin(j->env.mdb, NULL, MDB_RDONLY, &txn);

    if (rc != 0) {
        return rc;
    }
    rc = journal_tables(j, txn, 0);
    if (rc == 0) {
        rc = check_version(txn, j->meta, j->env.file, &j->old, err, cap);
    }
    if (rc == 0) {
        rc = meta_get(txn, j->meta, "id", id, sizeof(id));
    }
    if (rc == 0 && memcmp(id, d->id, sizeof(id)) != 0) {
        snprintf(err, cap, "%s and %s do not belong together", d->state.env.file, j->env.file);
        rc = MDB_INVALID;
    }
    mdb_txn_commit(txn);
    return rc;
}

static enum store_rc explain(const char *file, int rc, char *err, size_t cap)
{
    const bool damaged = rc == MDB_NOTFOUND || rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND ||
                         rc == MDB_BAD_DBI || rc == MDB_INCOMPATIBLE;

    if (rc != 0 && err[0] == '\0') {
        snprintf(err, cap, "%s: %s%s", file, damaged ? "damaged: " : "",
                 rc == MDB_NOTFOUND ? "a table or record is missing" : mdb_strerror(rc));
    }
    return env_rc(rc);
}

static enum store_rc is_lost(const struct env *e, const struct env *other, char *err, size_t cap)
{
    snprintf(err, cap, "%s: damaged: it is empty or was missing, and %s is there", e->file,
             other->file);
    return ST_IO;
}

/* The state is made first and the journal second: a journal without a state has lost it, and so has
 * a state that was in use without a journal. Anything less is a first start that was cut off. */
static enum store_rc open_pair(struct durable *d, bool no_journal, bool no_state, char *err,
                               size_t cap)
{
    struct env *journal = &d->journal.env;
    struct env *state = &d->state.env;
    struct recover_marks m = {0};
    int rc;

    if (no_state && !no_journal) {
        return is_lost(state, journal, err, cap);
    }
    rc = no_state ? make_state(d) : open_state_tables(d, err, cap);
    if (rc == 0 && no_journal) {
        rc = read_marks(d, &m);
    }
    if (rc != 0) {
        return explain(state->file, rc, err, cap);
    }
    if (no_journal && m.newest != 0) { /* the last thing a first start writes */
        return is_lost(journal, state, err, cap);
    }
    rc = no_journal ? make_journal(d) : open_journal_tables(d, err, cap);
    return explain(journal->file, rc, err, cap);
}

/* After an orderly stop nothing may be missing at the end of a file. */
static enum store_rc check_whole(struct durable *d, char *err, size_t cap)
{
    struct recover_marks m;
    int rc;

    if (!d->journal.env.padded && !d->state.env.padded) {
        return ST_OK;
    }
    rc = read_marks(d, &m);
    if (rc != 0) {
        return explain(d->state.env.file, rc, err, cap);
    }
    return m.stopped == 0 || (env_is_whole(&d->journal.env, err, cap) &&
                              env_is_whole(&d->state.env, err, cap))
               ? ST_OK
               : ST_IO;
}

enum store_rc recover_attach(struct durable *d, char *err, size_t cap)
{
    char *dir;
    bool no_journal;
    bool no_state;
    enum store_rc rc;

    if (asprintf(&dir, "%s/journal", d->o.dir) < 0) {
        return ST_NOMEM;
    }
    rc = env_open(&d->journal.env, dir, d->o.journal_map, d->o.ballast, &no_journal, err, cap);
    free(dir);
    if (rc != ST_OK) {
        return rc;
    }
    if (asprintf(&dir, "%s/state", d->o.dir) < 0) {
        return ST_NOMEM;
    }
    rc = env_open(&d->state.env, dir, d->o.state_map, d->o.ballast, &no_state, err, cap);
    free(dir);
    rc = rc != ST_OK ? rc : open_pair(d, no_journal, no_state, err, cap);
    rc = rc != ST_OK ? rc : check_whole(d, err, cap);
    if (rc != ST_OK) { /* the next start is to find the same */
        env_unpad(&d->journal.env);
        env_unpad(&d->state.env);
    }
    return rc;
}

/* ---- replay ---- */

struct replay {
    struct durable *d;
    struct recover_marks m;
    struct gen *g;
    uint64_t last; /* group seen last */
    uint64_t groups;
    uint64_t records;
    int64_t began_us;
    int rc; /* LMDB's, of a fold */
    bool bad;
};

/*
 * A full disk: smaller slices do with less, and the journal has a ballast that it does not need
 * before something is taken again. False: there is nothing left to try.
 */
static bool make_room(struct durable *d)
{
    const bool smaller = fold_smaller(d);

    if (smaller) {
        durable_log(d, LOG_LEVEL_NOTICE,
                    "recovery: the disk is full: smaller steps, and the ballast of the journal");
        env_give_back(&d->journal.env);
    }
    return smaller;
}

static int fold_with_room(struct durable *d, struct gen *g)
{
    int rc;

    do {
        rc = fold_generation(d, g);
    } while (env_rc(rc) == ST_NOSPACE && make_room(d));
    d->slice = d->o.fold_slice;
    return rc;
}

static bool fold_now(struct replay *r)
{
    const int64_t t = durable_mono_us();

    if (r->g == NULL || r->g->last == 0) {
        return true;
    }
    r->records += r->g->records;
    r->rc = fold_with_room(r->d, r->g);
    if (t - r->began_us > 200000) { /* a long one says how far it is */
        durable_log(r->d, LOG_LEVEL_NOTICE, "recovery: %llu records of %llu groups replayed",
                    (unsigned long long)r->records, (unsigned long long)r->groups);
    }
    gen_unref(r->g);
    r->g = NULL;
    return r->rc == 0;
}

static bool replay_group(void *arg, uint8_t *buf, uint32_t n, uint64_t next_key)
{
    struct replay *r = arg;
    enum gen_rc rc;

    if (r->g == NULL) {
        r->g = gen_create(&r->d->spare);
        if (r->g == NULL) {
            free(buf);
            return false;
        }
    }
    rc = gen_add(r->g, buf, n, next_key);
    r->bad = rc == GEN_BAD;
    if (rc != GEN_OK) {
        return false;
    }
    r->last = r->g->last;
    r->groups++;
    r->m.free_id = r->g->free_id > r->m.free_id ? r->g->free_id : r->m.free_id;
    if (r->g->wall_ms > (int64_t)r->m.newest) {
        r->m.newest = (uint64_t)r->g->wall_ms;
    }
    if (r->last < r->m.folding) {
        return true; /* the interrupted fold's groups stay together */
    }
    if (r->last == r->m.folding || r->g->bytes >= r->d->o.fold_bytes ||
        r->g->records >= r->d->o.fold_records) {
        return fold_now(r);
    }
    return true;
}

static enum store_rc replay(struct replay *r, char *err, size_t cap)
{
    struct durable *d = r->d;
    char what[128];
    int rc = journal_scan(&d->journal, r->m.folded, replay_group, r, what, sizeof(what));

    if (rc == 0 && r->last < r->m.folding && r->m.folding > r->m.folded) {
        snprintf(what, sizeof(what), "the groups up to %llu, being folded, are not all there",
                 (unsigned long long)r->m.folding);
        rc = MDB_CORRUPTED;
    }
    if (rc == 0) {
        fold_now(r);
    }
    gen_unref(r->g);
    r->g = NULL;
    if (r->rc != 0) {
        snprintf(err, cap, "%s: recovery: %s", d->state.env.file, mdb_strerror(r->rc));
        return env_rc(r->rc);
    }
    if (rc == MDB_CORRUPTED || r->bad) {
        snprintf(err, cap, "%s: damaged: %s", d->journal.env.file,
                 r->bad ? "a group has no valid records" : what);
        return ST_IO;
    }
    if (rc == 0 && r->groups > 0) {
        durable_log(d, LOG_LEVEL_INFO, "recovery: %llu records of %llu groups in %lld ms",
                    (unsigned long long)r->records, (unsigned long long)r->groups,
                    (long long)((durable_mono_us() - r->began_us) / 1000));
    }
    return explain(d->journal.env.file, rc, err, cap);
}

/*
 * When the last run ended. It told that it was alive only so often, so it may have ended that much
 * later: sessions that were connected then rather last a little longer than promised than less.
 */
static int64_t last_alive(const struct durable *d, const struct recover_marks *m)
{
    const int64_t now = d->o.wall_ms();
    struct stat st;
    int64_t t = (int64_t)m->newest;

    if (m->stopped != 0) {
        return (int64_t)m->stopped;
    }
    if (fstat(d->lock_fd, &st) == 0) {
        const int64_t touched = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
        t = touched > t ? touched : t;
    }
    if (t < now) {
        t = now - t < ALIVE_MS ? now : t + ALIVE_MS;
    }
    return t;
}

/* The table that older versions lack, empty as long as the store is of theirs. */
static int make_times(struct durable *d)
{
    struct state *s = &d->state;
    MDB_txn *txn;
    int rc = s->times != 0 ? 0 : mdb_txn_begin(s->env.mdb, NULL, 0, &txn);

    if (rc != 0 || s->times != 0) {
        return rc;
    }
    rc = mdb_dbi_open(txn, "times", MDB_CREATE, &s->times);
    if (rc != 0) {
        mdb_txn_abort(txn);
    } else {
        rc = env_commit(txn);
    }
    s->times = rc != 0 ? 0 : s->times;
    return rc;
}

/* What an older version lacks outside of rows, which get the new form when they are written. A
 * program that does not know that must not read them. */
static int write_new_version(struct state *s, MDB_txn *txn)
{
    int rc = meta_put_version(txn, s->meta);

    for (size_t i = 0; rc == 0 && i < MARKS; i++) {
        uint64_t v;
        rc = meta_get_u64(txn, s->meta, marks[i], &v);
        rc = rc != 0 ? rc : meta_put_u64(txn, s->meta, marks[i], v);
    }
    return rc != 0 ? rc : state_put_rows(s, txn);
}

static int upgrade(struct durable *d)
{
    MDB_txn *txn;
    int rc = make_times(d);

    if (rc != 0 || !d->state.old) {
        return rc;
    }
    rc = mdb_txn_begin(d->state.env.mdb, NULL, 0, &txn);
    if (rc != 0) {
        return rc;
    }
    rc = write_new_version(&d->state, txn);
    if (rc != 0) {
        mdb_txn_abort(txn);
    } else {
        rc = env_commit(txn);
    }
    d->state.old = rc != 0;
    return rc;
}

static int check_rows(struct durable *d, char *err, size_t cap)
{
    MDB_txn *txn;
    int rc = d->state.old ? 0 : mdb_txn_begin(d->state.env.mdb, NULL, MDB_RDONLY, &txn);

    if (rc == 0 && !d->state.old) {
        rc = state_check_rows(&d->state, txn);
        mdb_txn_abort(txn);
    }
    if (rc == MDB_CORRUPTED) {
        snprintf(err, cap, "%s: damaged: a table has not the rows that it had", d->state.env.file);
    }
    return rc;
}

static int mark_running(struct durable *d, int64_t now)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(d->state.env.mdb, NULL, 0, &txn);

    if (rc != 0) {
        return rc;
    }
    rc = meta_put_u64(txn, d->state.meta, "stopped", 0);
    rc = rc != 0 ? rc : meta_put_u64(txn, d->state.meta, "newest", (uint64_t)now);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return env_commit(txn);
}

/* A clock behind what has been written stands still until it has caught up. */
static void set_clock(struct durable *d, const struct recover_marks *m)
{
    int64_t now = d->o.wall_ms();

    d->crash_ms = last_alive(d, m);
    if (now < (int64_t)m->newest) {
        durable_log(d, LOG_LEVEL_WARNING,
                    "the clock is %lld s behind the store; no time counts as passed",
                    (long long)(((int64_t)m->newest - now) / 1000));
        now = (int64_t)m->newest;
    }
    d->crash_ms = d->crash_ms == 0 || d->crash_ms > now ? now : d->crash_ms;
    d->clock = now - d->o.boot_ms();
}

static enum store_rc open_and_replay(struct durable *d, char *err, size_t cap)
{
    struct replay r = {.d = d, .began_us = durable_mono_us()};
    enum store_rc rc = recover_attach(d, err, cap);
    int mrc;

    d->recovering = true;
    d->told_us = r.began_us;
    if (rc != ST_OK) {
        return rc;
    }
    mrc = check_rows(d, err, cap);
    mrc = mrc != 0 ? mrc : upgrade(d);
    if (env_rc(mrc) == ST_NOSPACE) {
        env_give_back(&d->journal.env);
        mrc = upgrade(d);
    }
    mrc = mrc != 0 ? mrc : read_marks(d, &r.m);
    if (mrc != 0) {
        return explain(d->state.env.file, mrc, err, cap);
    }
    r.last = r.m.folded;
    rc = replay(&r, err, cap);
    if (rc != ST_OK) {
        return rc;
    }
    set_clock(d, &r.m);
    env_lock_sign(d->lock_fd);
    d->next_group = r.last + 1;
    d->batch.free_id = r.m.free_id > 0 ? r.m.free_id : 1;
    d->first_free_id = d->batch.free_id;
    d->opened_s = (uint32_t)((d->o.boot_ms() + d->clock) / 1000);
    d->trim_to = d->journal.next_key;
    mrc = mark_running(d, d->o.boot_ms() + d->clock);
    if (env_rc(mrc) == ST_NOSPACE) {
        env_give_back(&d->journal.env);
        mrc = mark_running(d, d->o.boot_ms() + d->clock);
    }
    if (mrc == 0) {
        env_top_up(&d->state.env, 0);
        env_top_up(&d->journal.env, 0);
        durable_tell_reserve(d);
    }
    return explain(d->state.env.file, mrc, err, cap);
}

enum store_rc recover_open(struct durable *d, char *err, size_t cap)
{
    const char *was = guard_enter(d->o.dir);
    const enum store_rc rc = open_and_replay(d, err, cap);

    (void)guard_enter(was);
    return rc;
}

/* ---- load ---- */

struct load {
    struct durable *d;
    const struct store_load *l;
    MDB_txn *txn;
    struct scratch tmp;
};

static bool load_session(struct load *ld, const uint8_t *k, MDB_val whole, int *rc)
{
    struct session_head h;
    struct store_session s;
    struct store_op op;

    if (!session_view(whole, &h, &op)) {
        *rc = MDB_CORRUPTED;
        return true;
    }
    if (session_has_ended(&h)) {
        durable_sweep_later(ld->d, get_be64(k));
        return true;
    }
    s = (struct store_session){
        .session = get_be64(k),
        .client_id = op.name,
        .expiry_s = op.number,
        .flags = op.flags,
        .disconnected_ms =
            recover_time(ld->d, op.expires_ms == 0 ? ld->d->crash_ms : op.expires_ms),
        .next_seq = h.next_seq,
        .first_seq = h.first_seq,
        .count = h.count,
        .bytes = h.bytes,
    };
    return ld->l->session == NULL || ld->l->session(ld->l->arg, &s);
}

static bool load_op(struct load *ld, MDB_val whole, enum store_op_kind kind, int *rc)
{
    const uint8_t *p = whole.mv_data;
    const struct store_load *l = ld->l;
    struct store_op op;

    if (!record_decode(&p, p + whole.mv_size, &op) || op.kind != kind) {
        *rc = MDB_CORRUPTED;
        return true;
    }
    op.expires_ms = recover_time(ld->d, op.expires_ms);
    if (kind == ST_SUB_PUT) {
        return l->sub == NULL || l->sub(l->arg, op.session, op.name, op.flags, op.number);
    }
    if (kind == ST_WILL_PUT) {
        return l->will == NULL || l->will(l->arg, &op);
    }
    return l->retained == NULL || l->retained(l->arg, &op);
}

static int load_table(struct load *ld, MDB_dbi dbi, size_t key_n, enum store_op_kind kind)
{
    uint8_t k[OBJECT_KEY] = {0};
    bool started = false;
    MDB_cursor *cur;
    int rc = mdb_cursor_open(ld->txn, dbi, &cur);

    if (rc != 0) {
        return rc;
    }
    while (rc == 0) {
        MDB_val whole;
        bool go_on;
        rc = object_next(cur, k, key_n, &ld->tmp, &whole, &started);
        if (rc != 0) {
            break;
        }
        go_on = kind == ST_SESSION_PUT ? load_session(ld, k, whole, &rc)
                                       : load_op(ld, whole, kind, &rc);
        rc = go_on ? rc : ENOMEM;
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Large ones in their first piece only, where the caller can do without their bodies. */
static int load_retained(struct load *ld)
{
    uint8_t k[OBJECT_KEY] = {0};
    bool started = false;
    MDB_cursor *cur;
    int rc = mdb_cursor_open(ld->txn, ld->d->state.retained, &cur);

    if (rc != 0) {
        return rc;
    }
    while (rc == 0) {
        MDB_val v;
        size_t n;
        struct store_op op;

        rc = object_next_first(cur, k, RETAINED_KEY, &v, &n, &started);
        if (rc != 0) {
            break;
        }
        if (n > v.mv_size && ld->l->retained_cut > 0 && ld->l->retained != NULL &&
            record_decode_cut(v.mv_data, (uint8_t *)v.mv_data + v.mv_size, &op) &&
            op.data.n + op.props.n >= ld->l->retained_cut) {
            op.expires_ms = recover_time(ld->d, op.expires_ms);
            rc = ld->l->retained(ld->l->arg, &op) ? 0 : ENOMEM;
            continue;
        }
        rc = object_rest(cur, k, RETAINED_KEY, v, n, &ld->tmp, &v);
        if (rc == 0 && !load_op(ld, v, ST_RETAINED_PUT, &rc)) {
            rc = ENOMEM;
        }
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int load_inbound(struct load *ld)
{
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    int rc = ld->l->inbound == NULL ? 0 : mdb_cursor_open(ld->txn, ld->d->state.inbound, &cur);

    if (rc != 0 || ld->l->inbound == NULL) {
        return rc;
    }
    while ((rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) == 0) {
        const uint8_t *k = key.mv_data;
        if (!inbound_is_valid(&ld->d->state, key, val)) {
            rc = MDB_CORRUPTED;
            break;
        }
        if (!ld->l->inbound(ld->l->arg, get_be64(k), get_be16(k + 8))) {
            rc = ENOMEM;
            break;
        }
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Rows; an object of several pieces counts as several. */
static int rows_of(MDB_txn *txn, MDB_dbi dbi, uint64_t *n)
{
    MDB_stat st;
    int rc = mdb_stat(txn, dbi, &st);

    *n = rc == 0 ? st.ms_entries : 0;
    return rc;
}

static int load_totals(struct load *ld)
{
    const struct state *s = &ld->d->state;
    struct store_totals t;
    int rc = rows_of(ld->txn, s->sessions, &t.sessions);

    rc = rc != 0 ? rc : rows_of(ld->txn, s->subs, &t.subs);
    rc = rc != 0 ? rc : rows_of(ld->txn, s->retained, &t.retained);
    if (rc == 0 && ld->l->totals != NULL) {
        ld->l->totals(ld->l->arg, &t);
    }
    return rc;
}

static int load_all(struct load *ld)
{
    const struct state *s = &ld->d->state;
    int rc = load_totals(ld);

    rc = rc != 0 ? rc : load_table(ld, s->sessions, 8, ST_SESSION_PUT);
    rc = rc != 0 ? rc : load_table(ld, s->subs, SUB_KEY, ST_SUB_PUT);
    rc = rc != 0 ? rc : load_inbound(ld);
    rc = rc != 0 ? rc : load_table(ld, s->wills, 8, ST_WILL_PUT);
    return rc != 0 ? rc : load_retained(ld);
}

enum store_rc recover_load(struct store *s, const struct store_load *l)
{
    struct durable *d = (struct durable *)s;
    struct load ld = {.d = d, .l = l};
    const char *was = guard_enter(d->state.env.file);
    int rc = mdb_txn_begin(d->state.env.mdb, NULL, MDB_RDONLY, &ld.txn);

    if (rc == 0) {
        rc = load_all(&ld);
        mdb_txn_abort(ld.txn);
    }
    scratch_free(&ld.tmp);
    (void)guard_enter(was);
    if (env_rc(rc) == ST_IO) {
        durable_fail(d, d->state.env.file, rc);
    }
    return env_rc(rc);
}
