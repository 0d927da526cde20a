/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three steps: rows and groups are read from the damaged files (take_state, take_journal), the
 * groups are folded into the new state (replay), and the new state is made to agree with itself
 * (salvage_tables.c), which is where losses are told session by session.
 */
#include "storage/salvage.h"

#include "storage/bytes.h"
#include "storage/fold.h"
#include "storage/guard.h"
#include "storage/pages.h"
#include "storage/salvage_tables.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PUTS 20000u /* rows in a transaction */

struct piece {
    uint64_t key;
    uint8_t *p;
    size_t n;
    bool orphan;
};

struct group_found {
    uint64_t number;
    uint8_t *p;
    uint32_t n;
};

struct salvage {
    struct tables t; /* what the steps share; t.d is the new store, NULL: only look */
    const char *dir;
    unsigned puts;
    int rc;
    bool damaged, journal_damaged;
    uint64_t cut_off;
    /* The first piece of the object at hand: the others have checksums if it has one. */
    uint8_t object[OBJECT_KEY];
    size_t object_n;
    bool sealed;
    uint8_t id[STORE_ID];
    bool has_id;
    struct recover_marks m;
    unsigned marks; /* found, as bits */
    bool has_rows;
    uint64_t had[SALVAGE_TABLES], got[SALVAGE_TABLES];
    struct piece *pieces;
    size_t npieces, pieces_cap;
    struct group_found *groups;
    size_t ngroups;
};

typedef unsigned long long ull;

/* ---- rows of `state` ---- */

/* In the order of their numbers, which are part of checksums; the first is 3. */
static const struct {
    const char *name;
    size_t key; /* of a row */
} tables[SALVAGE_TABLES] = {{"sessions", 12},
                            {"subs", SUB_KEY + 4},
                            {"bodies", 12},
                            {"retained", RETAINED_KEY + 4},
                            {"wills", 12},
                            {"queue", QUEUE_KEY},
                            {"inbound", INBOUND_KEY},
                            {"times", 4}};
enum { META_DBI = 2, FIRST_DBI = 3 };

static const char *const mark_names[] = {"folded", "folding", "free_id", "newest", "stopped"};

static uint64_t *mark_of(struct recover_marks *m, unsigned i)
{
    uint64_t *const at[] = {&m->folded, &m->folding, &m->free_id, &m->newest, &m->stopped};

    return at[i];
}

static bool is_named(MDB_val key, const char *name)
{
    return key.mv_size == strlen(name) && memcmp(key.mv_data, name, key.mv_size) == 0;
}

/* False: not valid. */
static bool take_meta(struct salvage *sv, MDB_val key, MDB_val val)
{
    const uint8_t *p = val.mv_data;

    if (is_named(key, "version")) {
        return val.mv_size == 4 && get_le32(p) > 0 && get_le32(p) <= STORE_VERSION;
    }
    if (is_named(key, "id")) {
        sv->has_id = val.mv_size == STORE_ID;
        memcpy(sv->id, p, sv->has_id ? STORE_ID : 0);
        return sv->has_id;
    }
    if (is_named(key, "rows")) {
        sv->has_rows =
            val.mv_size == SALVAGE_TABLES * 8 + ROW_SUM && row_is_valid(META_DBI, key, val);
        for (unsigned i = 0; sv->has_rows && i < SALVAGE_TABLES; i++) {
            sv->had[i] = get_le64(p + (size_t)i * 8);
        }
        return sv->has_rows;
    }
    for (unsigned i = 0; i < 5; i++) {
        if (is_named(key, mark_names[i]) &&
            (val.mv_size == 8 ||
             (val.mv_size == 8 + ROW_SUM && row_is_valid(META_DBI, key, val)))) {
            *mark_of(&sv->m, i) = get_le64(p);
            sv->marks |= 1u << i;
            return true;
        }
    }
    return false;
}

/* Whether the row may be put into the table as it is; a piece of an object of an older version is
 * judged with its object. */
static bool is_row(unsigned table, MDB_val key, MDB_val val, bool sealed)
{
    const MDB_dbi dbi = FIRST_DBI + table;
    struct queue_row r;
    uint64_t n;
    struct state s = {.inbound = dbi, .times = dbi};

    if (val.mv_data == NULL || key.mv_size != tables[table].key) {
        return false;
    }
    switch (table) {
    case SALVAGE_QUEUE:
        return queue_row_parse(&r, dbi, key, val) && (r.sealed || !sealed);
    case SALVAGE_INBOUND:
        return inbound_is_valid(&s, key, val) && (val.mv_size > 0 || !sealed);
    case SALVAGE_TIMES:
        return time_get(&s, key, val, &n);
    default:
        return piece_is_valid(dbi, key, val, sealed);
    }
}

/* Rows of a tree, in their order. */
static bool is_next_row(struct salvage *sv, unsigned table, MDB_val key, MDB_val val)
{
    const bool of_object = table < SALVAGE_QUEUE && key.mv_size == tables[table].key;
    const size_t n = key.mv_size - 4;
    bool good;

    if (!of_object) {
        return is_row(table, key, val, false);
    }
    if (get_be32((const uint8_t *)key.mv_data + n) == 0) {
        good = is_row(table, key, val, false);
        memcpy(sv->object, key.mv_data, n);
        sv->object_n = n;
        sv->sealed = !good || is_row(table, key, val, true);
        return good;
    }
    return n == sv->object_n && memcmp(sv->object, key.mv_data, n) == 0 &&
           is_row(table, key, val, sv->sealed);
}

static int put_row(struct salvage *sv, unsigned table, MDB_val key, MDB_val val, bool orphan)
{
    int rc = 0;

    if (sv->t.d == NULL || table == SALVAGE_TIMES) { /* they are counted anew */
        return 0;
    }
    if (sv->t.txn == NULL) {
        rc = mdb_txn_begin(sv->t.d->state.env.mdb, NULL, 0, &sv->t.txn);
    }
    if (rc == 0) {
        rc = mdb_put(sv->t.txn, FIRST_DBI + table, &key, &val, orphan ? MDB_NOOVERWRITE : 0);
        rc = rc == MDB_KEYEXIST ? 0 : rc;
    }
    if (rc == 0 && ++sv->puts % PUTS == 0) {
        rc = env_commit(sv->t.txn);
        sv->t.txn = NULL;
    }
    return rc;
}

static void take_into(struct salvage *sv, unsigned table, MDB_val key, MDB_val val, bool orphan)
{
    sv->got[table]++;
    sv->rc = sv->rc != 0 ? sv->rc : put_row(sv, table, key, val, orphan);
}

/* A page of no tree: its rows' checksums say where they belong. */
static void take_orphan(struct salvage *sv, MDB_val key, MDB_val val)
{
    for (unsigned i = 0; i < SALVAGE_TABLES; i++) {
        if (is_row(i, key, val, true)) {
            take_into(sv, i, key, val, true);
            return;
        }
    }
    if (val.mv_data != NULL) {
        (void)take_meta(sv, key, val);
    }
}

static void state_row(void *arg, const char *table, MDB_val key, MDB_val val)
{
    struct salvage *sv = arg;

    if (table == NULL) {
        take_orphan(sv, key, val);
        return;
    }
    if (strcmp(table, "meta") == 0) {
        if (val.mv_data == NULL || !take_meta(sv, key, val)) {
            sv->damaged = true;
            tables_say(&sv->t, "state: a record of `meta` is damaged");
        }
        return;
    }
    for (unsigned i = 0; i < SALVAGE_TABLES; i++) {
        if (strcmp(table, tables[i].name) == 0) {
            if (is_next_row(sv, i, key, val)) {
                take_into(sv, i, key, val, false);
            } else {
                sv->damaged = true;
                tables_lost_row(&sv->t, i, key);
            }
            return;
        }
    }
}

static void state_damage(void *arg, const char *table, const char *what, MDB_val from, MDB_val to)
{
    struct salvage *sv = arg;

    sv->damaged = true;
    tables_say(&sv->t, "%s", what);
    for (unsigned i = 0; i < SALVAGE_TABLES; i++) {
        if (strcmp(table, tables[i].name) == 0) {
            tables_lost_range(&sv->t, i, from, to);
        }
    }
}

/* ---- groups of `journal` ---- */

static void journal_row(void *arg, const char *table, MDB_val key, MDB_val val)
{
    struct salvage *sv = arg;
    struct piece *at;

    if (table != NULL && strcmp(table, "log") != 0) {
        if (is_named(key, "id") && val.mv_size == STORE_ID && !sv->has_id) {
            memcpy(sv->id, val.mv_data, STORE_ID);
            sv->has_id = true;
        }
        return;
    }
    if (val.mv_data == NULL || key.mv_size != 8 || val.mv_size > PIECE_MAX) {
        sv->journal_damaged = sv->journal_damaged || table != NULL;
        return;
    }
    if (sv->npieces == sv->pieces_cap) {
        const size_t cap = sv->pieces_cap * 2 + 1024;
        struct piece *v = realloc(sv->pieces, cap * sizeof(*v));
        if (v == NULL) {
            sv->rc = ENOMEM;
            return;
        }
        sv->pieces = v;
        sv->pieces_cap = cap;
    }
    at = &sv->pieces[sv->npieces];
    *at = (struct piece){.p = malloc(val.mv_size + 1), .n = val.mv_size, .orphan = table == NULL};
    if (at->p == NULL) {
        sv->rc = ENOMEM;
        return;
    }
    memcpy(&at->key, key.mv_data, 8);
    memcpy(at->p, val.mv_data, val.mv_size);
    sv->npieces++;
}

static void journal_damage(void *arg, const char *table, const char *what, MDB_val from, MDB_val to)
{
    struct salvage *sv = arg;

    (void)table;
    (void)from;
    (void)to;
    sv->damaged = sv->journal_damaged = true;
    tables_say(&sv->t, "%s", what);
}

/* Those of trees before orphans of the same key. */
static int by_key(const void *a, const void *b)
{
    const struct piece *x = a;
    const struct piece *y = b;

    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    return (int)x->orphan - (int)y->orphan;
}

static void drop_doubles(struct salvage *sv)
{
    size_t n = 0;

    if (sv->npieces > 1) {
        qsort(sv->pieces, sv->npieces, sizeof(*sv->pieces), by_key);
    }
    for (size_t i = 0; i < sv->npieces; i++) {
        if (n > 0 && sv->pieces[n - 1].key == sv->pieces[i].key) {
            free(sv->pieces[i].p);
        } else {
            sv->pieces[n++] = sv->pieces[i];
        }
    }
    sv->npieces = n;
}

/* The group whose first piece is the i-th; how many pieces it has, 0: it is not whole. */
static size_t join(struct salvage *sv, size_t i, struct group_found *out)
{
    const struct piece *first = &sv->pieces[i];
    const uint32_t n = first->n < GROUP_HEADER ? 0 : group_length(first->p);
    struct group g;
    size_t have = 0;
    size_t at = i;
    uint8_t *p = n == 0 || n / PIECE_MAX > sv->npieces ? NULL : malloc(n);

    for (; p != NULL && have < n && at < sv->npieces; at++) {
        if (sv->pieces[at].key != first->key + (at - i) || sv->pieces[at].n > n - have) {
            break;
        }
        memcpy(p + have, sv->pieces[at].p, sv->pieces[at].n);
        have += sv->pieces[at].n;
    }
    if (p == NULL || have != n || !group_open(p, n, &g)) {
        free(p);
        return 0;
    }
    *out = (struct group_found){g.number, p, n};
    return at - i;
}

static int join_all(struct salvage *sv)
{
    sv->groups = malloc((sv->npieces + 1) * sizeof(*sv->groups));
    if (sv->groups == NULL) {
        return ENOMEM;
    }
    for (size_t i = 0; i < sv->npieces;) {
        struct group_found *g = &sv->groups[sv->ngroups];
        const size_t n = join(sv, i, g);
        sv->journal_damaged = sv->journal_damaged || (n == 0 && !sv->pieces[i].orphan);
        i += n == 0 ? 1 : n;
        if (n > 0 && sv->ngroups > 0 && g->number <= g[-1].number) {
            free(g->p); /* of an older run */
        } else {
            sv->ngroups += n > 0;
        }
    }
    return 0;
}

/* ---- both ---- */

static int look_at(struct salvage *sv, const char *env, const struct pages_visit *visit, char *err,
                   size_t cap)
{
    char path[4096];
    int rc;

    snprintf(path, sizeof(path), "%s/%s/data.mdb", sv->dir, env);
    if (access(path, F_OK) != 0) {
        sv->damaged = true;
        tables_say(&sv->t, "%s is missing", path);
        return 0;
    }
    rc = pages_check(path, visit, err, cap);
    sv->damaged = sv->damaged || rc == MDB_CORRUPTED;
    return rc == MDB_CORRUPTED ? 0 : rc;
}

/* Groups that are missing between those that are there and those that are folded. */
static uint64_t missing_groups(const struct salvage *sv)
{
    uint64_t expected = sv->m.folded + 1;
    uint64_t missing = 0;

    for (size_t i = 0; i < sv->ngroups; i++) {
        if (sv->groups[i].number >= expected) {
            missing += sv->groups[i].number - expected;
            expected = sv->groups[i].number + 1;
        }
    }
    return missing + (sv->m.folding >= expected ? sv->m.folding + 1 - expected : 0);
}

/* Without the numbers of `meta` the whole journal is folded again, which does no harm. */
static void guess_marks(struct salvage *sv)
{
    if ((sv->marks & 3) != 3 || sv->m.folding < sv->m.folded) {
        sv->damaged = true;
        sv->m.folded = sv->ngroups > 0 ? sv->groups[0].number - 1 : sv->m.folded;
        sv->m.folding = sv->m.folded;
    }
}

static int take_all(struct salvage *sv, char *err, size_t cap)
{
    const struct pages_visit state = {
        .arg = sv, .row = state_row, .damage = state_damage, .cut_off = &sv->cut_off, .all = true};
    const struct pages_visit journal = {.arg = sv,
                                        .row = journal_row,
                                        .damage = journal_damage,
                                        .cut_off = &sv->cut_off,
                                        .stale = true, /* a group tells its number */
                                        .all = true};
    int rc = look_at(sv, "state", &state, err, cap);

    if (rc == 0) {
        const bool before = sv->damaged;
        rc = look_at(sv, "journal", &journal, err, cap);
        sv->journal_damaged = sv->journal_damaged || sv->damaged != before;
    }
    if (rc == 0 && sv->rc == 0) {
        drop_doubles(sv);
        rc = join_all(sv);
        sv->damaged = sv->damaged || sv->journal_damaged;
        guess_marks(sv);
    }
    for (unsigned i = 0; i < SALVAGE_TABLES && sv->has_rows; i++) {
        sv->damaged = sv->damaged || sv->had[i] != sv->got[i];
    }
    sv->damaged = sv->damaged || missing_groups(sv) > 0;
    if (sv->cut_off > 0 && sv->m.stopped != 0) { /* a crash may do that, an orderly stop does not */
        sv->damaged = true;
        tables_say(&sv->t, "a file was cut off: %llu bytes that nobody used are missing",
                   (ull)sv->cut_off);
    }
    return rc != 0 ? rc : sv->rc;
}

/* ---- into the new store ---- */

static int write_marks(struct salvage *sv)
{
    struct state *s = &sv->t.d->state;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env.mdb, NULL, 0, &txn);

    if (rc != 0) {
        return rc;
    }
    for (unsigned i = 0; i < 5 && rc == 0; i++) {
        rc = meta_put_u64(txn, s->meta, mark_names[i], *mark_of(&sv->m, i));
    }
    rc = rc != 0 || !sv->has_id ? rc : meta_put(txn, s->meta, "id", sv->id, STORE_ID);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return env_commit(txn);
}

static int write_journal_id(struct salvage *sv)
{
    struct journal *j = &sv->t.d->journal;
    MDB_txn *txn;
    int rc = mdb_txn_begin(j->env.mdb, NULL, 0, &txn);

    if (rc != 0) {
        return rc;
    }
    rc = meta_put(txn, j->meta, "id", sv->has_id ? sv->id : sv->t.d->id, STORE_ID);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return env_commit(txn);
}

static int fold(struct salvage *sv, struct gen **g)
{
    int rc = *g == NULL ? 0 : fold_generation(sv->t.d, *g);

    gen_unref(*g);
    *g = NULL;
    return rc;
}

/* Those of an interrupted fold together, as the fold had them. */
static int replay(struct salvage *sv)
{
    struct gen *g = NULL;
    int rc = 0;

    for (size_t i = 0; i < sv->ngroups && rc == 0; i++) {
        struct group_found *f = &sv->groups[i];
        if (f->number <= sv->m.folded) {
            continue;
        }
        g = g == NULL ? gen_create(&sv->t.d->spare) : g;
        rc = g == NULL ? ENOMEM : gen_add(g, f->p, f->n, 0) == GEN_OK ? 0 : MDB_CORRUPTED;
        f->p = g == NULL ? f->p : NULL; /* the generation's in every case */
        if (rc == 0 &&
            (i + 1 == sv->ngroups || (f->number <= sv->m.folding && f[1].number > sv->m.folding) ||
             (f->number > sv->m.folding && g->bytes >= sv->t.d->o.fold_bytes))) {
            rc = fold(sv, &g);
        }
    }
    gen_unref(g);
    return rc;
}

static void tell_totals(struct salvage *sv)
{
    const uint64_t groups = missing_groups(sv);

    for (unsigned i = 0; i < SALVAGE_TABLES && sv->has_rows; i++) {
        if (sv->had[i] > sv->got[i] && i != SALVAGE_TIMES) {
            sv->t.loss->rows += sv->had[i] - sv->got[i];
            tables_say(&sv->t, "%llu of %llu rows of `%s` are lost", (ull)(sv->had[i] - sv->got[i]),
                       (ull)sv->had[i], tables[i].name);
        }
    }
    if (!sv->has_rows) {
        tables_say(&sv->t, "how many rows the tables had is not known: more may be lost");
        sv->t.loss->rows++;
    }
    if (groups > 0) {
        tables_say(&sv->t, "%llu groups of the journal are lost: what they held is not known",
                   (ull)groups);
        sv->t.loss->groups += groups;
    }
    if (sv->journal_damaged && sv->m.stopped == 0) {
        tables_say(&sv->t, "the journal is damaged: what came last, behind group %llu, may be lost",
                   (ull)(sv->ngroups > 0 ? sv->groups[sv->ngroups - 1].number : sv->m.folded));
        sv->t.loss->groups++;
    }
}

/* ---- the new in the place of the old ---- */

static bool exchange(const char *dir, const char *part, const char *env)
{
    char a[4096];
    char b[4096];

    snprintf(a, sizeof(a), "%s/%s", dir, env);
    snprintf(b, sizeof(b), "%s/%s", part, env);
    if (access(a, F_OK) != 0) {
        return rename(b, a) == 0;
    }
    if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0) {
        return true;
    }
    snprintf(b, sizeof(b), "%s/%s.damaged", part, env); /* a file system that cannot exchange */
    if (rename(a, b) != 0) {
        return false;
    }
    snprintf(b, sizeof(b), "%s/%s", part, env);
    return rename(b, a) == 0;
}

static bool sync_dir(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool ok = fd >= 0 && fsync(fd) == 0;

    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* A name that nothing has yet. */
static void name_kept(const char *dir, char *out, size_t cap)
{
    const time_t now = time(NULL);
    struct tm tm;
    char when[32];

    gmtime_r(&now, &tm);
    strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm);
    snprintf(out, cap, "%s/damaged-%s", dir, when);
    for (unsigned i = 2; access(out, F_OK) == 0; i++) {
        snprintf(out, cap, "%s/damaged-%s-%u", dir, when, i);
    }
}

static bool take_place(struct salvage *sv, const char *part, char *err, size_t cap)
{
    char kept[4096];

    name_kept(sv->dir, kept, sizeof(kept));
    if (!exchange(sv->dir, part, "state") || !sync_dir(sv->dir) ||
        !exchange(sv->dir, part, "journal") || rename(part, kept) != 0 || !sync_dir(sv->dir)) {
        snprintf(err, cap, "%s: cannot take its new files: %s", sv->dir, strerror(errno));
        return false;
    }
    tables_say(&sv->t, "the damaged files are in %s", kept);
    return true;
}

/* What a salvage that was interrupted has left may be the damaged files: it is kept as well. */
static bool make_place(const char *dir, const char *part, char *err, size_t cap)
{
    char kept[4096];

    name_kept(dir, kept, sizeof(kept));
    if ((access(part, F_OK) == 0 && rename(part, kept) != 0) || mkdir(part, 0750) != 0) {
        snprintf(err, cap, "%s: %s", part, strerror(errno));
        return false;
    }
    return true;
}

static void free_all(struct salvage *sv)
{
    for (size_t i = 0; i < sv->npieces; i++) {
        free(sv->pieces[i].p);
    }
    for (size_t i = 0; i < sv->ngroups; i++) {
        free(sv->groups[i].p);
    }
    free(sv->pieces);
    free(sv->groups);
    tables_fini(&sv->t);
    if (sv->t.d != NULL) {
        durable_detach(sv->t.d);
    }
}

int salvage_look(const char *dir, check_line_fn fn, void *arg, char *err, size_t cap)
{
    struct salvage_loss loss = {0};
    struct salvage sv = {.dir = dir, .t = {.fn = fn, .arg = arg, .loss = &loss}};
    const char *was = guard_enter(dir);
    int rc = take_all(&sv, err, cap);

    (void)guard_enter(was);
    if (rc != 0) {
        snprintf(err, cap, "%s: %s", dir, mdb_strerror(rc));
    }
    free_all(&sv);
    return rc != 0 ? -1 : sv.damaged;
}

/* An empty store in the place of one that was not is no repair. */
static bool is_worthless(const struct salvage *sv)
{
    const bool had = !sv->has_rows || sv->had[SALVAGE_SESSIONS] + sv->had[SALVAGE_RETAINED] > 0;

    return had && sv->t.nsessions == 0 && sv->got[SALVAGE_RETAINED] == 0;
}

static int fill_new(struct salvage *sv, char *err, size_t cap)
{
    int rc = take_all(sv, err, cap);

    if (rc == 0 && sv->t.txn != NULL) {
        rc = env_commit(sv->t.txn);
        sv->t.txn = NULL;
    }
    rc = rc != 0 ? rc : write_marks(sv);
    rc = rc != 0 ? rc : write_journal_id(sv);
    if (rc == 0) {
        tell_totals(sv);
        rc = replay(sv);
    }
    rc = rc != 0 ? rc : tables_agree(&sv->t);
    if (rc == 0 && is_worthless(sv)) {
        snprintf(err, cap, "%s: nothing can be saved of it", sv->dir);
        rc = ENOENT;
    }
    return rc;
}

bool salvage_run(const char *dir, check_line_fn fn, void *arg, struct salvage_loss *loss, char *err,
                 size_t cap)
{
    struct salvage sv = {.dir = dir, .t = {.fn = fn, .arg = arg, .loss = loss}};
    const char *was = guard_enter(dir);
    char part[4096];
    bool ok;
    int rc;

    *loss = (struct salvage_loss){0};
    err[0] = '\0';
    snprintf(part, sizeof(part), "%s/repairing", dir);
    ok = make_place(dir, part, err, cap) && durable_make(part, &sv.t.d, err, cap) == ST_OK;
    if (ok) {
        rc = fill_new(&sv, err, cap);
        ok = rc == 0;
        if (!ok && (rc != ENOENT || err[0] == '\0')) {
            snprintf(err, cap, "%s: cannot be repaired: %s", dir, mdb_strerror(rc));
        }
    }
    if (sv.t.txn != NULL) {
        mdb_txn_abort(sv.t.txn);
    }
    free_all(&sv);
    (void)guard_enter(was);
    return ok && take_place(&sv, part, err, cap);
}
