/* SPDX-License-Identifier: Apache-2.0 */
/* The durable store as a whole: what was acknowledged is there after a stop and after a crash. */
#include "storage/bytes.h"
#include "storage/check.h"
#include "storage/durable.h"
#include "storage/queue.h"
#include "tests/support/store_model.h"
#include "tests/support/store_need.h"
#include "tests/support/tmpdir.h"
#include "tests/support/unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct store_options small(const struct tmpdir *t)
{
    return (struct store_options){.dir = t->path,
                                  .state_map = 1u << 30,
                                  .journal_map = 1u << 28,
                                  .fold_records = 300,
                                  .fold_slice = 17,
                                  .ballast = 1u << 20};
}

static void test_model_through_restarts(void)
{
    struct tmpdir t;
    struct model *m = model_create(1);

    tmpdir_make(&t);
    for (unsigned round = 0; round < 6; round++) {
        struct store_options o = small(&t);
        o.fold_records = round % 2 == 0 ? 300 : 1000000;
        struct store *s = store_need(&o);
        const uint32_t n = model_made(m);

        CU_ASSERT_EQUAL(model_check(m, s, n, n), n);
        model_run(m, s, 1500, 1 + round * 20);
        CU_ASSERT_EQUAL(model_failed(m), 0);
        store_close(&s);
    }
    model_destroy(m);
    tmpdir_remove(&t);
}

/* Pages while records are unfolded, being folded, and folded. */
static void test_pages_merge(void)
{
    struct tmpdir t;
    struct model *m = model_create(2);
    struct store_options o;
    struct store *s;
    struct store_stats st;

    tmpdir_make(&t);
    o = small(&t);
    s = store_need(&o);
    for (unsigned i = 0; i < 200; i++) {
        model_run(m, s, 40, 40);
        CU_ASSERT_TRUE(model_check_queues(m, s));
    }
    store_stats(s, &st);
    CU_ASSERT(st.folds > 10);
    CU_ASSERT(st.annihilated > 0);
    store_close(&s);
    model_destroy(m);
    tmpdir_remove(&t);
}

/* ---- kill -9 ---- */

static void share_ack(void *arg, uint32_t index)
{
    atomic_store((_Atomic uint32_t *)arg, index);
}

_Noreturn static void run_child(const struct store_options *o, struct model *m,
                                _Atomic uint32_t *acked)
{
    struct store *s = store_need(o);

    model_on_ack(m, share_ack, acked);
    for (;;) {
        model_run(m, s, 50, 20);
    }
}

/* The child makes the same units as this process, from the same model, until it is killed. */
static void kill_once(struct model *m, const struct store_options *o, _Atomic uint32_t *acked,
                      unsigned ms)
{
    pid_t pid;
    struct store *s;
    int status;
    int64_t k;
    uint32_t last;

    fflush(NULL);
    atomic_store(acked, model_made(m));
    pid = fork();
    UNIT_NEED(pid >= 0);
    if (pid == 0) {
        run_child(o, m, acked);
    }
    nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    last = atomic_load(acked);
    while (model_made(m) < last + 100) {
        model_next(m);
    }
    s = store_need(o);
    k = model_check(m, s, last, model_made(m));
    CU_ASSERT(k >= last);
    model_cut(m, k < 0 ? last : (uint32_t)k);
    store_close(&s);
}

static void test_kills(void)
{
    struct tmpdir t;
    struct model *m = model_create(3);
    struct store_options o;
    _Atomic uint32_t *acked =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    UNIT_NEED(acked != MAP_FAILED);
    tmpdir_make(&t);
    o = small(&t);
    /* How many there are depends on the machine; a slow one gets more tries, and longer ones. */
    for (unsigned i = 0; i < 15 || (model_made(m) <= 100 && i < 100); i++) {
        kill_once(m, &o, acked, (10 + i * 7 % 60) * (1 + i / 15));
    }
    CU_ASSERT(model_made(m) > 100);
    munmap(acked, 4096);
    model_destroy(m);
    tmpdir_remove(&t);
}

struct seen {
    unsigned sessions, subs, inbound, wills, retained;
    struct store_session last;
};

static bool see_session(void *arg, const struct store_session *s)
{
    ((struct seen *)arg)->sessions++;
    ((struct seen *)arg)->last = *s;
    return true;
}

static bool see_sub(void *arg, uint64_t session, struct store_bytes filter, uint8_t flags,
                    uint32_t sub_id)
{
    (void)session;
    (void)filter;
    (void)flags;
    (void)sub_id;
    ((struct seen *)arg)->subs++;
    return true;
}

static bool see_inbound(void *arg, uint64_t session, uint16_t packet_id)
{
    (void)session;
    (void)packet_id;
    ((struct seen *)arg)->inbound++;
    return true;
}

static bool see_will(void *arg, const struct store_op *op)
{
    (void)op;
    ((struct seen *)arg)->wills++;
    return true;
}

static struct seen load(struct store *s)
{
    struct seen seen = {0};
    const struct store_load l = {.arg = &seen,
                                 .session = see_session,
                                 .sub = see_sub,
                                 .inbound = see_inbound,
                                 .will = see_will};

    CU_ASSERT_EQUAL(store_load(s, &l), ST_OK);
    return seen;
}

/* Everything of a session goes with it, wherever the slices of the fold fall. */
static void test_session_end(void)
{
    for (uint32_t slice = 1; slice <= 24; slice++) {
        struct tmpdir t;
        struct store_options o;
        struct store_op end = {.kind = ST_SESSION_END, .session = 1};
        struct store *s;
        struct seen seen;
        char err[256];

        tmpdir_make(&t);
        o = small(&t);
        o.fold_slice = slice;
        for (int round = 0; round < 2; round++) {
            s = store_need(&o);
            if (round == 0) {
                struct store_op ops[] = {
                    {.kind = ST_SESSION_PUT, .session = 1, .name = {"c", 1}},
                    {.kind = ST_SUB_PUT, .session = 1, .name = {"a", 1}},
                    {.kind = ST_SUB_PUT, .session = 1, .name = {"b", 1}},
                    {.kind = ST_SUB_PUT, .session = 1, .name = {"c", 1}},
                    {.kind = ST_INBOUND_PUT, .session = 1, .packet_id = 1},
                    {.kind = ST_INBOUND_PUT, .session = 1, .packet_id = 2},
                    {.kind = ST_WILL_PUT, .session = 1, .name = {"w", 1}},
                    {.kind = ST_BODY_PUT, .body = 9, .name = {"t", 1}},
                    {.kind = ST_ENTRY_PUT, .session = 1, .seq = 1, .body = 9},
                    {.kind = ST_ENTRY_PUT, .session = 1, .seq = 2, .body = 9},
                    {.kind = ST_ENTRY_PUT, .session = 1, .seq = 3, .body = 9},
                };
                submit_ok(s, ops, sizeof(ops) / sizeof(ops[0]));
            } else {
                seen = load(s);
                CU_ASSERT(seen.sessions == 1 && seen.subs == 3 && seen.inbound == 2);
                CU_ASSERT(seen.wills == 1 && seen.last.count == 3 && seen.last.next_seq == 4);
                CU_ASSERT(store_first_free_id(s) == 10);
                submit_ok(s, &end, 1);
            }
            store_close(&s);
            CU_ASSERT_EQUAL(check_store(t.path, NULL, NULL, err, sizeof(err)), 0);
        }
        s = store_need(&o);
        seen = load(s);
        CU_ASSERT(seen.sessions == 0 && seen.subs == 0 && seen.inbound == 0 && seen.wills == 0);
        store_close(&s);
        tmpdir_remove(&t);
    }
}

static uint64_t queued(const char *dir)
{
    struct durable *d;
    char err[256];
    MDB_cursor *cur;
    MDB_txn *txn;
    MDB_val key;
    MDB_val val;
    uint64_t n = 0;

    UNIT_NEED(durable_attach(dir, &d, err, sizeof(err)) == ST_OK);
    UNIT_NEED(mdb_txn_begin(d->state.env.mdb, NULL, MDB_RDONLY, &txn) == 0);
    UNIT_NEED(mdb_cursor_open(txn, d->state.queue, &cur) == 0);
    while (mdb_cursor_get(cur, &key, &val, MDB_NEXT) == 0) {
        struct queue_row r;
        struct queue_entry e;
        UNIT_NEED(queue_row_open(&r, d->state.queue, key, val));
        while (queue_row_next(&r, &e) == 0) {
            n++;
        }
    }
    mdb_cursor_close(cur);
    mdb_txn_abort(txn);
    durable_detach(d);
    return n;
}

static void queue_many(struct store *s, uint64_t session, uint32_t n)
{
    struct store_op session_op = {.kind = ST_SESSION_PUT, .session = session, .name = {"c", 1}};

    submit_ok(s, &session_op, 1);
    for (uint32_t i = 1; i <= n; i++) {
        struct store_op ops[] = {
            {.kind = ST_BODY_PUT, .body = session * 100000 + i, .name = {"t", 1}},
            {.kind = ST_ENTRY_PUT, .session = session, .seq = i, .body = session * 100000 + i}};
        submit_ok(s, ops, 2);
    }
}

/* The end of a session with a long queue: nobody waits for the removals, over any number of starts.
 */
static void test_session_end_later(void)
{
    enum { MANY = 700, LEFT = 5 };
    struct store_op end = {.kind = ST_SESSION_END, .session = 1};
    struct store_op late = {.kind = ST_ENTRY_DEL, .session = 1, .seq = 3};
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    struct seen seen;
    uint64_t left;
    uint64_t before = MANY + LEFT + 1;
    char err[256];

    tmpdir_make(&t);
    o = small(&t);
    o.fold_slice = 3;
    s = store_need(&o);
    queue_many(s, 1, MANY);
    queue_many(s, 2, LEFT);
    store_close(&s);
    s = store_need(&o);
    submit_ok(s, &end, 1);
    submit_ok(s, &late, 1); /* came after its end */
    store_close(&s);        /* folds the end, and does not stay for the removals */
    for (unsigned round = 0; (left = queued(t.path)) > LEFT; round++) {
        UNIT_NEED(round < 1000);
        CU_ASSERT(round > 0 || left > MANY / 2);
        CU_ASSERT(left < before); /* each run does a part */
        CU_ASSERT_EQUAL(check_store(t.path, NULL, NULL, err, sizeof(err)), 0);
        before = left;
        s = store_need(&o);
        seen = load(s);
        CU_ASSERT(seen.sessions == 1 && seen.last.session == 2 && seen.last.count == LEFT);
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        store_close(&s);
    }
    CU_ASSERT_EQUAL(check_store(t.path, NULL, NULL, err, sizeof(err)), 0);
    tmpdir_remove(&t);
}

static void set_version(const char *dir, uint8_t version)
{
    const uint8_t b[4] = {version, 0, 0, 0};
    struct durable *d;
    char err[256];
    MDB_txn *txn;

    UNIT_NEED(durable_attach(dir, &d, err, sizeof(err)) == ST_OK);
    UNIT_NEED(mdb_txn_begin(d->state.env.mdb, NULL, 0, &txn) == 0);
    UNIT_NEED(meta_put(txn, d->state.meta, "version", b, sizeof(b)) == 0);
    UNIT_NEED(mdb_txn_commit(txn) == 0);
    durable_detach(d);
}

/* Older ones are read; what is newer is refused, and told. */
static void test_versions(void)
{
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    char err[256];

    tmpdir_make(&t);
    o = small(&t);
    s = store_need(&o);
    queue_many(s, 1, 3);
    store_close(&s);
    set_version(t.path, 1);
    s = store_need(&o);
    CU_ASSERT_EQUAL(load(s).last.count, 3);
    store_close(&s);
    set_version(t.path, STORE_VERSION + 1);
    CU_ASSERT_EQUAL(store_open(&o, &s, err, sizeof(err)), ST_IO);
    CU_ASSERT(strstr(err, t.path) != NULL && strstr(err, "another version") != NULL);
    tmpdir_remove(&t);
}

/* ---- version 3: no checksums ---- */

static void put_raw(MDB_txn *txn, MDB_dbi dbi, MDB_val key, const void *p, size_t n)
{
    MDB_val val = {n, (void *)(uintptr_t)p};

    UNIT_NEED(mdb_put(txn, dbi, &key, &val, 0) == 0);
}

/* As version 3 cut them: 4 bytes of length, then 2000 bytes in a piece. */
static void strip_objects(MDB_txn *txn, MDB_dbi dbi, size_t kn)
{
    struct scratch tmp = {0};
    uint8_t k[OBJECT_KEY + 4] = {0};
    bool started = false;
    MDB_cursor *cur;
    MDB_val whole;

    UNIT_NEED(mdb_cursor_open(txn, dbi, &cur) == 0);
    while (object_next(cur, k, kn, &tmp, &whole, &started) == 0) {
        const size_t n = whole.mv_size + 4;
        uint8_t *p = malloc(n);
        uint32_t piece = 0;
        UNIT_NEED(p != NULL);
        put_le32(p, (uint32_t)whole.mv_size);
        memcpy(p + 4, whole.mv_data, whole.mv_size);
        UNIT_NEED(object_del(txn, dbi, k, kn) == 0);
        for (size_t at = 0; at < n; at += PIECE_MAX, piece++) {
            put_be32(k + kn, piece);
            put_raw(txn, dbi, (MDB_val){kn + 4, k}, p + at,
                    n - at < PIECE_MAX ? n - at : PIECE_MAX);
        }
        free(p);
        mdb_cursor_close(cur); /* behind what was written */
        UNIT_NEED(mdb_cursor_open(txn, dbi, &cur) == 0);
        for (size_t i = kn; i > 0 && ++k[i - 1] == 0; i--) {}
        started = false;
    }
    mdb_cursor_close(cur);
    scratch_free(&tmp);
}

/* Rows without the checksum at their end; of runs also without the bit that tells of it. */
static void strip_rows(MDB_txn *txn, MDB_dbi dbi, bool runs)
{
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    uint8_t p[QUEUE_ROW_MAX];
    uint8_t k[QUEUE_KEY];

    UNIT_NEED(mdb_cursor_open(txn, dbi, &cur) == 0);
    while (mdb_cursor_get(cur, &key, &val, MDB_NEXT) == 0) {
        UNIT_NEED(val.mv_size <= sizeof(p));
        /* What is written may move behind the cursor, which comes to it again then. */
        if (runs ? (((const uint8_t *)val.mv_data)[7] & 0x80) == 0 : val.mv_size % 8 != ROW_SUM) {
            continue;
        }
        memcpy(k, key.mv_data, key.mv_size); /* what is written moves the page's rows */
        key.mv_data = k;
        memcpy(p, val.mv_data, val.mv_size);
        p[7] &= runs ? 0x7f : 0xff;
        val = (MDB_val){val.mv_size - ROW_SUM, p};
        UNIT_NEED(mdb_cursor_put(cur, &key, &val, MDB_CURRENT) == 0);
    }
    mdb_cursor_close(cur);
}

static void make_version_3(const char *dir)
{
    static const char *const marks[] = {"folded", "folding", "free_id", "newest", "stopped"};
    const uint8_t version[4] = {3};
    MDB_val rows = {4, (void *)(uintptr_t) "rows"};
    struct durable *d;
    char err[256];
    MDB_txn *txn;

    UNIT_NEED(durable_attach(dir, &d, err, sizeof(err)) == ST_OK);
    UNIT_NEED(mdb_txn_begin(d->state.env.mdb, NULL, 0, &txn) == 0);
    strip_objects(txn, d->state.sessions, 8);
    strip_objects(txn, d->state.subs, SUB_KEY);
    strip_objects(txn, d->state.bodies, 8);
    strip_objects(txn, d->state.retained, RETAINED_KEY);
    strip_objects(txn, d->state.wills, 8);
    strip_rows(txn, d->state.queue, true);
    strip_rows(txn, d->state.inbound, false);
    strip_rows(txn, d->state.times, false);
    for (size_t i = 0; i < 5; i++) {
        uint8_t b[8];
        uint64_t v;
        UNIT_NEED(meta_get_u64(txn, d->state.meta, marks[i], &v) == 0);
        put_le64(b, v);
        UNIT_NEED(meta_put(txn, d->state.meta, marks[i], b, sizeof(b)) == 0);
    }
    UNIT_NEED(mdb_del(txn, d->state.meta, &rows, NULL) == 0);
    UNIT_NEED(meta_put(txn, d->state.meta, "version", version, sizeof(version)) == 0);
    UNIT_NEED(mdb_txn_commit(txn) == 0);
    durable_detach(d);
}

/* Nothing is lost on the way from version 3, whatever is written meanwhile. */
static void test_version_3(void)
{
    struct model *m = model_create(31);
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    char err[256];

    tmpdir_make(&t);
    o = small(&t);
    for (unsigned round = 0; round < 3; round++) {
        s = store_need(&o);
        CU_ASSERT_EQUAL(model_check(m, s, model_made(m), model_made(m)), model_made(m));
        model_run(m, s, 1500, 50);
        store_close(&s);
        make_version_3(t.path);
        CU_ASSERT_EQUAL(check_store(t.path, NULL, NULL, err, sizeof(err)), 0);
        s = store_need(&o);
        CU_ASSERT_EQUAL(model_check(m, s, model_made(m), model_made(m)), model_made(m));
        CU_ASSERT_TRUE(model_check_queues(m, s));
        model_run(m, s, 500, 50);
        store_close(&s);
        CU_ASSERT_EQUAL(check_store(t.path, NULL, NULL, err, sizeof(err)), 0);
    }
    model_destroy(m);
    tmpdir_remove(&t);
}

/* ---- retained messages ---- */

struct fetch_wait {
    struct store_fetch fetch;
    _Atomic bool done;
};

static void fetch_done(struct store_fetch *f)
{
    atomic_store(&((struct fetch_wait *)f)->done, true);
}

/* Topics "r/0" ... "r/4": their bodies' sizes, their numbers; 0: not there. */
static void expect_kept(struct store *s, const size_t *size, const uint64_t *seq)
{
    static const char names[5][4] = {"r/0", "r/1", "r/2", "r/3", "r/4"};
    struct store_kept kept[5];
    struct fetch_wait w = {.fetch = {.done = fetch_done, .kept = kept, .n = 5}};

    for (int i = 0; i < 5; i++) {
        kept[i] = (struct store_kept){.name = {names[i], 3}};
    }
    UNIT_NEED(store_fetch_retained(s, &w.fetch) == ST_OK);
    while (!atomic_load(&w.done)) {
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    CU_ASSERT_EQUAL(w.fetch.rc, ST_OK);
    for (int i = 0; i < 5; i++) {
        CU_ASSERT_EQUAL(kept[i].found, seq[i] != 0);
        if (kept[i].found) {
            const char *p = kept[i].data.p;
            CU_ASSERT(kept[i].seq == seq[i] && kept[i].data.n == size[i] && kept[i].flags == 1);
            CU_ASSERT(kept[i].props.n == 2 && memcmp(kept[i].props.p, "pp", 2) == 0);
            CU_ASSERT(kept[i].expires_ms == 0);
            for (size_t at = 0; at < kept[i].data.n; at++) {
                UNIT_NEED(p[at] == (char)('a' + i));
            }
        }
    }
    store_fetch_free(&w.fetch);
}

static void put_kept(struct store *s, int topic, size_t n, uint64_t seq)
{
    static char data[70000];
    char name[4] = {'r', '/', (char)('0' + topic), '\0'};
    struct store_op op = {.kind = n == 0 ? ST_RETAINED_DEL : ST_RETAINED_PUT,
                          .flags = 1,
                          .seq = seq,
                          .name = {name, 3},
                          .props = {"pp", 2},
                          .data = {data, n}};

    memset(data, 'a' + topic, n);
    submit_ok(s, &op, 1);
}

struct cut_seen {
    unsigned whole, cut;
    size_t bytes;
};

static bool on_cut(void *arg, const struct store_op *op)
{
    struct cut_seen *seen = arg;

    seen->whole += op->data.p != NULL;
    seen->cut += op->data.p == NULL;
    seen->bytes += op->data.n;
    return true;
}

/* Bodies by topic, from the generation and from the tables, the newest wins; and a load without
 * them. */
static void test_retained_bodies(void)
{
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    struct cut_seen seen = {0};
    const struct store_load l = {.arg = &seen, .retained = on_cut, .retained_cut = 1000};

    tmpdir_make(&t);
    o = small(&t);
    s = store_need(&o);
    for (int i = 0; i < 4; i++) {
        put_kept(s, i, i == 0 ? 10 : (size_t)i * 20000, (uint64_t)i + 1);
    }
    expect_kept(s, (size_t[]){10, 20000, 40000, 60000, 0}, (uint64_t[]){1, 2, 3, 4, 0});
    store_close(&s);
    s = store_need(&o);
    CU_ASSERT_EQUAL(store_load(s, &l), ST_OK);
    CU_ASSERT(seen.whole == 1 && seen.cut == 3 && seen.bytes == 120010);
    expect_kept(s, (size_t[]){10, 20000, 40000, 60000, 0}, (uint64_t[]){1, 2, 3, 4, 0});
    put_kept(s, 1, 0, 5);
    put_kept(s, 2, 100, 6);
    put_kept(s, 4, 3000, 7);
    expect_kept(s, (size_t[]){10, 0, 100, 60000, 3000}, (uint64_t[]){1, 0, 6, 4, 7});
    store_close(&s);
    s = store_need(&o);
    expect_kept(s, (size_t[]){10, 0, 100, 60000, 3000}, (uint64_t[]){1, 0, 6, 4, 7});
    store_close(&s);
    tmpdir_remove(&t);
}

/* What everything vanished of is answered without a commit. */
static void test_no_commit_for_nothing(void)
{
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    struct store_stats st;
    struct store_op ops[] = {{.kind = ST_BODY_PUT, .body = 9, .name = {"t", 1}},
                             {.kind = ST_ENTRY_PUT, .session = 1, .seq = 1, .body = 9},
                             {.kind = ST_ENTRY_DEL, .session = 1, .seq = 1}};

    tmpdir_make(&t);
    o = small(&t);
    s = store_need(&o);
    submit_ok(s, ops, 3);
    submit_ok(s, NULL, 0);
    store_stats(s, &st);
    CU_ASSERT(st.units == 2 && st.commits == 0 && st.records == 0 && st.annihilated == 3);
    store_close(&s);
    tmpdir_remove(&t);
}

/* ---- answers to many at once ---- */

struct together {
    struct store_unit unit;
    struct store_op op;
    unsigned number;
};

static struct {
    _Atomic unsigned next; /* number of the unit whose answer comes next */
    unsigned calls, longest, wrong;
} order;

static void in_order(struct store_unit *u, enum store_rc rc)
{
    const unsigned next = atomic_load(&order.next);

    order.wrong += rc != ST_OK || ((struct together *)u)->number != next;
    atomic_store(&order.next, next + 1);
}

static void all_in_order(struct store_unit *list, enum store_rc rc)
{
    unsigned n = 0;

    for (struct store_unit *next; list != NULL; list = next, n++) {
        next = list->next;
        order.wrong += list->done_all != all_in_order;
        in_order(list, rc);
        list->done_all = NULL; /* its owner's again */
    }
    order.calls++;
    order.longest = n > order.longest ? n : order.longest;
}

static void hand_over(struct store *s, struct store_chain *c)
{
    UNIT_NEED(store_submit_chain(s, c) == ST_OK);
    *c = (struct store_chain){.n = 0};
}

/* Units are submitted in chains of up to `longest`. Two of three want to be answered together, the
 * third by itself: all in their order. */
static void answer_all(unsigned longest, uint32_t pace_us)
{
    enum { N = 30000 };
    struct store_chain c = {.n = 0};
    struct tmpdir t;
    struct store_options o;
    struct together *v = calloc(N, sizeof(*v));
    struct store *s;

    UNIT_NEED(v != NULL);
    tmpdir_make(&t);
    o = small(&t);
    o.pace_us = pace_us;
    s = store_need(&o);
    memset(&order, 0, sizeof(order));
    for (unsigned i = 0; i < N; i++) {
        v[i] = (struct together){
            .unit = {.ops = &v[i].op, .nops = 1},
            .op = {.kind = ST_SESSION_PUT, .session = 1 + i % 7, .name = {"s", 1}, .number = i},
            .number = i};
        if (i % 3 == 0 && i % 1000 < 100) {
            v[i].unit.done = in_order;
        } else {
            v[i].unit.done_all = all_in_order;
        }
        if (longest == 1) {
            UNIT_NEED(store_submit(s, &v[i].unit) == ST_OK);
            continue;
        }
        store_chain_add(&c, &v[i].unit);
        if (c.n > i % longest || i == N - 1) {
            hand_over(s, &c);
        }
    }
    while (atomic_load(&order.next) < N) {
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    store_close(&s);
    CU_ASSERT_EQUAL(order.wrong, 0);
    CU_ASSERT(order.longest >= 2 && order.longest < 1000);
    CU_ASSERT(order.calls >= N / 1000);
    free(v);
    tmpdir_remove(&t);
}

static void test_answers_together(void)
{
    answer_all(1, 0);
}

static void test_chains(void)
{
    answer_all(97, 0);
    answer_all(300, 200);
}

/* ---- memory ---- */

static long anonymous_kb(void)
{
    char line[128];
    long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");

    UNIT_NEED(f != NULL);
    while (kb == 0 && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "RssAnon:", 8) == 0) {
            kb = strtol(line + 8, NULL, 10);
        }
    }
    fclose(f);
    return kb;
}

/* 300,000 queued messages of 100 bytes, 40 MB of them, are not in memory; `bench_store --queued
 * 10000000` is the same at full size. */
static void test_queues_stay_on_disk(void)
{
    static char payload[100];
    static struct store_op ops[400];
    struct tmpdir t;
    struct store_options o;
    struct store_op put = {.kind = ST_SESSION_PUT, .session = 1, .name = {"c", 1}};
    struct store *s;
    struct seen seen;
    long before;

    tmpdir_make(&t);
    o = small(&t);
    o.fold_records = 40000;
    o.fold_slice = 10000;
    s = store_need(&o);
    submit_ok(s, &put, 1);
    before = anonymous_kb();
    for (uint64_t i = 0; i < 300000; i += 200) {
        for (uint64_t k = 0; k < 200; k++) {
            ops[2 * k] = (struct store_op){.kind = ST_BODY_PUT,
                                           .body = 10 + i + k,
                                           .name = {"t", 1},
                                           .data = {payload, sizeof(payload)}};
            ops[2 * k + 1] = (struct store_op){
                .kind = ST_ENTRY_PUT, .session = 1, .seq = 1 + i + k, .body = 10 + i + k};
        }
        submit_ok(s, ops, 400);
    }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CU_ASSERT(anonymous_kb() - before < 32 * 1024); /* sanitizers keep what was freed */
#else
    (void)before;
#endif
    store_close(&s);
    s = store_need(&o);
    seen = load(s);
    CU_ASSERT(seen.last.count == 300000 && seen.last.first_seq == 1);
    CU_ASSERT(seen.last.next_seq == 300001 && seen.last.bytes == 300000 * 101);
    store_close(&s);
    tmpdir_remove(&t);
}

/* ---- clocks ---- */

static _Atomic int64_t boot, wall;

static int64_t boot_ms(void)
{
    return atomic_load(&boot);
}

static int64_t wall_ms(void)
{
    return atomic_load(&wall);
}

static struct seen at(const struct store_options *o, int64_t boot_at, int64_t wall_at,
                      struct store_op *op)
{
    struct store *s;
    struct seen seen;

    atomic_store(&boot, boot_at);
    atomic_store(&wall, wall_at);
    s = store_need(o);
    seen = load(s);
    if (op != NULL) {
        submit_ok(s, op, 1);
    }
    store_close(&s);
    return seen;
}

/* Times go to disk by the wall clock and come back by this boot's; one that is set back stands. */
static void test_clocks(void)
{
    struct tmpdir t;
    struct store_options o;
    struct store_op connected = {.kind = ST_SESSION_PUT, .session = 1, .name = {"c", 1}};
    struct store_op gone = {
        .kind = ST_SESSION_PUT, .session = 1, .name = {"c", 1}, .expires_ms = 4000};
    struct seen seen;

    tmpdir_make(&t);
    o = small(&t);
    o.boot_ms = boot_ms;
    o.wall_ms = wall_ms;
    at(&o, 1000, 1000000, &connected);
    /* Rebooted, 60 s later: it was connected until the stop. */
    seen = at(&o, 500, 1060000, NULL);
    CU_ASSERT_EQUAL(seen.last.disconnected_ms, 500 - 60000);
    at(&o, 5000, 1100000, &gone); /* disconnected a second before */
    seen = at(&o, 100000, 1200000, NULL);
    CU_ASSERT_EQUAL(seen.last.disconnected_ms, 100000 - 101000);
    /* The clock is an hour behind: no time counts as passed since the last stop. */
    seen = at(&o, 700, 1200000 - 3600000, NULL);
    CU_ASSERT_EQUAL(seen.last.disconnected_ms, 700 - 101000);
    tmpdir_remove(&t);
}

/* ---- backup ---- */

static void test_backup_while_running(void)
{
    struct tmpdir t;
    struct tmpdir b;
    char to[600];
    char err[256];
    struct model *m = model_create(9);
    struct store_options o;
    struct store *s;
    uint32_t acked;

    tmpdir_make(&t);
    tmpdir_make(&b);
    o = small(&t);
    s = store_need(&o);
    model_run(m, s, 2000, 50);
    acked = model_acked(m);
    snprintf(to, sizeof(to), "%s/copy", b.path);
    CU_ASSERT_EQUAL(store_backup(s, to, err, sizeof(err)), ST_OK);
    CU_ASSERT_NOT_EQUAL(store_backup(s, to, err, sizeof(err)), ST_OK); /* it is there */
    model_run(m, s, 500, 50);
    store_close(&s);
    CU_ASSERT_EQUAL(check_store(to, NULL, NULL, err, sizeof(err)), 0);
    o.dir = to;
    s = store_need(&o);
    CU_ASSERT_EQUAL(model_check(m, s, acked, acked), acked);
    store_close(&s);
    model_destroy(m);
    tmpdir_remove(&t);
    tmpdir_remove(&b);
}

static void expect_oldest(struct store *s, bool has, uint64_t age_s)
{
    struct store_stats st;

    store_stats(s, &st);
    CU_ASSERT_EQUAL(st.has_oldest, has);
    CU_ASSERT_EQUAL(st.oldest_s, age_s);
}

/* The age of the oldest queued message: in the generation, in the tables, over a restart. */
static void test_oldest(void)
{
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    struct store_op session = {.kind = ST_SESSION_PUT, .session = 1, .name = {"c", 1}};

    tmpdir_make(&t);
    o = small(&t);
    o.boot_ms = boot_ms;
    o.wall_ms = wall_ms;
    atomic_store(&boot, 1000000);
    atomic_store(&wall, 5000000);
    s = store_need(&o);
    submit_ok(s, &session, 1);
    expect_oldest(s, false, 0);
    for (uint64_t i = 1; i <= 3; i++) {
        struct store_op ops[] = {{.kind = ST_BODY_PUT, .body = i + 10, .name = {"t", 1}},
                                 {.kind = ST_ENTRY_PUT, .session = 1, .seq = i, .body = i + 10}};
        submit_ok(s, ops, 2);
        atomic_fetch_add(&boot, 10000);
    }
    expect_oldest(s, true, 30);
    for (uint64_t i = 1; i <= 3; i++) {
        struct store_op del = {.kind = ST_ENTRY_DEL, .session = 1, .seq = i};
        expect_oldest(s, true, 40 - i * 10);
        if (i < 3) {
            submit_ok(s, &del, 1);
        }
    }
    store_close(&s); /* the third is folded */
    atomic_store(&boot, 100000);
    atomic_store(&wall, 5000000 + 90000); /* 70 s after it was published */
    s = store_need(&o);
    expect_oldest(s, true, 70);
    submit_ok(s, &(struct store_op){.kind = ST_ENTRY_DEL, .session = 1, .seq = 3}, 1);
    store_close(&s);
    s = store_need(&o);
    expect_oldest(s, false, 0);
    store_close(&s);
    tmpdir_remove(&t);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(model_through_restarts)
    UNIT_TEST(pages_merge)
    UNIT_TEST(kills)
    UNIT_TEST(session_end)
    UNIT_TEST(session_end_later)
    UNIT_TEST(versions)
    UNIT_TEST(version_3)
    UNIT_TEST(retained_bodies)
    UNIT_TEST(no_commit_for_nothing)
    UNIT_TEST(answers_together)
    UNIT_TEST(chains)
    UNIT_TEST(queues_stay_on_disk)
    UNIT_TEST(clocks)
    UNIT_TEST(oldest)
    UNIT_TEST(backup_while_running)
UNIT_TESTS_END
