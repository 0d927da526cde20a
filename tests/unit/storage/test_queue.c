/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of queues: their form, which bodies are in them, what changes make of them, older ones. */
#include "storage/queue.h"

#include "storage/bytes.h"
#include "storage/check.h"
#include "storage/durable.h"
#include "tests/support/store_need.h"
#include "tests/support/tmpdir.h"
#include "tests/support/unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- the form ---- */

static MDB_val key_of(uint8_t *k, uint64_t session, uint64_t seq)
{
    queue_key(k, session, seq);
    return (MDB_val){QUEUE_KEY, k};
}

static bool same_entry(const struct queue_entry *a, const struct queue_entry *b)
{
    return a->seq == b->seq && a->body == b->body && a->expires_ms == b->expires_ms &&
           a->number == b->number && a->size == b->size && a->group == b->group &&
           a->packet_id == b->packet_id && a->flags == b->flags && a->step == b->step &&
           a->record_n == b->record_n &&
           (a->record_n == 0 || memcmp(a->record, b->record, a->record_n) == 0);
}

static void test_rows(void)
{
    const struct queue_entry a = {.seq = 7,
                                  .body = 1ull << 63,
                                  .expires_ms = -5,
                                  .number = UINT32_MAX,
                                  .size = 70000,
                                  .group = 0x80000001u,
                                  .packet_id = 65535,
                                  .flags = 255,
                                  .step = 1};
    const struct queue_entry b = {
        .seq = 9, .body = 3, .record = (const uint8_t *)"record", .record_n = 6};
    uint8_t k[QUEUE_KEY];
    uint8_t room[200];
    uint8_t *end = queue_entry_put(queue_entry_put(room, &a), &b);
    const size_t n = (size_t)(end - room);
    struct queue_row r;
    struct queue_entry e;

    CU_ASSERT_EQUAL(n, 2 * ENTRY_HEAD + 6);
    UNIT_NEED(queue_row_parse(&r, 7, key_of(k, 4, 7), (MDB_val){n, room}));
    CU_ASSERT(r.session == 4 && r.seq == 7);
    CU_ASSERT(queue_row_next(&r, &e) == 0 && same_entry(&e, &a));
    CU_ASSERT(queue_row_next(&r, &e) == 0 && same_entry(&e, &b));
    CU_ASSERT_EQUAL(queue_row_next(&r, &e), MDB_NOTFOUND);
    for (size_t cut = 0; cut < n; cut++) { /* never read beyond, and never taken for whole */
        uint8_t *part = malloc(cut + 1);
        int rc = MDB_CORRUPTED;
        UNIT_NEED(part != NULL);
        memcpy(part, room, cut);
        if (cut != ENTRY_HEAD && cut != 28 && cut != 32 &&
            queue_row_parse(&r, 7, key_of(k, 4, 7), (MDB_val){cut, part})) {
            while ((rc = queue_row_next(&r, &e)) == 0) {}
        }
        CU_ASSERT_EQUAL(rc, MDB_CORRUPTED);
        free(part);
    }
    UNIT_NEED(queue_row_parse(&r, 7, key_of(k, 4, 8), (MDB_val){n, room}));
    CU_ASSERT_EQUAL(queue_row_next(&r, &e), MDB_CORRUPTED); /* below its key */
    CU_ASSERT_FALSE(queue_row_parse(&r, 7, (MDB_val){15, k}, (MDB_val){n, room}));
}

/* As versions 1 and 2 wrote it; the bytes written. */
static size_t put_single(uint8_t *p, const struct queue_entry *e)
{
    put_le64(p, e->body);
    put_le64(p + 8, (uint64_t)e->expires_ms);
    put_le32(p + 16, e->number);
    put_le32(p + 20, e->size);
    put_le16(p + 24, e->packet_id);
    p[26] = e->flags;
    p[27] = e->step;
    put_le32(p + 28, e->group);
    return e->group == 0 ? 28 : 32;
}

static void test_old_rows(void)
{
    for (uint32_t group = 0; group < 2; group++) {
        const struct queue_entry want = {.seq = 12,
                                         .body = 5,
                                         .expires_ms = 6,
                                         .number = 7,
                                         .size = 8,
                                         .group = group,
                                         .packet_id = 9,
                                         .flags = 2,
                                         .step = 1};
        uint8_t k[QUEUE_KEY];
        uint8_t room[32];
        const size_t n = put_single(room, &want);
        struct queue_row r;
        struct queue_entry e;

        UNIT_NEED(queue_row_parse(&r, 7, key_of(k, 4, 12), (MDB_val){n, room}));
        CU_ASSERT(queue_row_next(&r, &e) == 0 && same_entry(&e, &want));
        CU_ASSERT_EQUAL(queue_row_next(&r, &e), MDB_NOTFOUND);
    }
}

/* The seq of the key found, 0: none. */
static uint64_t find(MDB_cursor *cur, uint64_t session, uint64_t seq)
{
    MDB_val key;
    MDB_val val;
    int rc = queue_find(cur, session, seq, &key, &val);

    CU_ASSERT(rc == 0 || rc == MDB_NOTFOUND);
    if (rc != 0) {
        return 0;
    }
    CU_ASSERT_EQUAL(get_be64(key.mv_data), session);
    return get_be64((uint8_t *)key.mv_data + 8);
}

static void test_find(void)
{
    static const uint64_t rows[][2] = {{2, 5}, {2, 10}, {4, 7}, {6, 1}};
    struct tmpdir t;
    struct state s = {0};
    MDB_txn *txn;
    MDB_cursor *cur;
    char err[256];
    bool fresh;

    tmpdir_make(&t);
    UNIT_NEED(env_open(&s.env, t.path, 1u << 28, 65536, &fresh, err, sizeof(err)) == ST_OK);
    UNIT_NEED(mdb_txn_begin(s.env.mdb, NULL, 0, &txn) == 0);
    UNIT_NEED(state_tables(&s, txn, MDB_CREATE) == 0);
    UNIT_NEED(mdb_cursor_open(txn, s.queue, &cur) == 0);
    CU_ASSERT_EQUAL(find(cur, 2, 0), 0);
    for (size_t i = 0; i < 4; i++) {
        uint8_t k[QUEUE_KEY];
        MDB_val key = key_of(k, rows[i][0], rows[i][1]);
        MDB_val val = {QUEUE_KEY, k}; /* any bytes */
        UNIT_NEED(mdb_cursor_put(cur, &key, &val, 0) == 0);
    }
    CU_ASSERT_EQUAL(find(cur, 1, 0), 0);
    CU_ASSERT_EQUAL(find(cur, 1, UINT64_MAX), 0);
    CU_ASSERT_EQUAL(find(cur, 2, 0), 5); /* the very first */
    CU_ASSERT_EQUAL(find(cur, 2, 5), 5);
    CU_ASSERT_EQUAL(find(cur, 2, 9), 5);
    CU_ASSERT_EQUAL(find(cur, 2, 10), 10);
    CU_ASSERT_EQUAL(find(cur, 2, UINT64_MAX), 10);
    CU_ASSERT_EQUAL(find(cur, 3, 0), 0);
    CU_ASSERT_EQUAL(find(cur, 4, 6), 7);
    CU_ASSERT_EQUAL(find(cur, 4, 8), 7);
    CU_ASSERT_EQUAL(find(cur, 6, 0), 1);
    CU_ASSERT_EQUAL(find(cur, 6, UINT64_MAX), 1); /* the very last */
    CU_ASSERT_EQUAL(find(cur, 7, 0), 0);
    mdb_cursor_close(cur);
    mdb_txn_abort(txn);
    env_close(&s.env);
    tmpdir_remove(&t);
}

/* ---- through the store ---- */

static struct store_options small(const struct tmpdir *t, uint32_t slice)
{
    return (struct store_options){.dir = t->path,
                                  .state_map = 1u << 30,
                                  .journal_map = 1u << 28,
                                  .fold_slice = slice,
                                  .ballast = 1u << 20};
}

/* The payload of the entry: up to 6000 bytes, others for each. */
static const char *payload(uint64_t seq)
{
    static char bytes[7000];

    for (size_t i = 0; bytes[1] == 0 && i < sizeof(bytes); i++) {
        bytes[i] = (char)(i * 7 + i / 251);
    }
    return bytes + seq % 1000;
}

/* Session 1's entry `seq`, of a body with as many bytes of payload; and, for fan 2, session 2's. */
static uint32_t publish(struct store_op *ops, uint64_t seq, size_t size, unsigned fan)
{
    const uint64_t body = 10000 + seq;

    ops[0] = (struct store_op){
        .kind = ST_BODY_PUT, .body = body, .name = {"t", 1}, .data = {payload(seq), size}};
    for (unsigned i = 1; i <= fan; i++) {
        ops[i] = (struct store_op){.kind = ST_ENTRY_PUT,
                                   .session = i,
                                   .seq = seq,
                                   .body = body,
                                   .number = (uint32_t)seq * 3,
                                   .group = seq % 2 == 0 ? 77 : 0,
                                   .flags = 2};
    }
    return fan + 1;
}

static void make_sessions(struct store *s)
{
    struct store_op ops[] = {{.kind = ST_SESSION_PUT, .session = 1, .name = {"a", 1}},
                             {.kind = ST_SESSION_PUT, .session = 2, .name = {"b", 1}}};

    submit_ok(s, ops, 2);
}

struct read_wait {
    struct store_page page;
    _Atomic bool done;
};

static void read_done(struct store_page *p)
{
    atomic_store(&((struct read_wait *)(void *)p)->done, true);
}

static void read_page(struct store *s, struct read_wait *w, uint64_t session, uint64_t from,
                      uint32_t max)
{
    *w = (struct read_wait){.page = {.done = read_done,
                                     .session = session,
                                     .from_seq = from,
                                     .max_entries = max,
                                     .max_bytes = 1u << 20}};
    UNIT_NEED(store_read(s, &w->page) == ST_OK);
    while (!atomic_load(&w->done)) {
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    CU_ASSERT_EQUAL(w->page.rc, ST_OK);
}

#define SEQS 400u

/* What session 1's queue has to be: there[seq], step[seq] and the payload's size. */
struct expected {
    bool there[SEQS];
    uint8_t step[SEQS];
    uint16_t packet_id[SEQS];
    size_t size[SEQS];
};

static bool right(const struct store_entry *e, const struct expected *x)
{
    return e->seq < SEQS && x->there[e->seq] && e->body == 10000 + e->seq &&
           e->number == (uint32_t)e->seq * 3 && e->group == (e->seq % 2 == 0 ? 77u : 0u) &&
           e->flags == 2 && e->step == x->step[e->seq] && e->packet_id == x->packet_id[e->seq] &&
           e->data.n == x->size[e->seq] && memcmp(e->data.p, payload(e->seq), e->data.n) == 0 &&
           e->name.n == 1 && e->props.n == 0;
}

/* In pages of different lengths, each from where the one before it ended. */
static void expect_queue(struct store *s, const struct expected *x)
{
    uint64_t seq = 0;
    uint32_t max = 1;

    for (bool more = true; more; max = max * 3 % 50 + 1) {
        struct read_wait w;

        read_page(s, &w, 1, seq, max);
        for (uint32_t i = 0; i < w.page.n; i++) {
            while (seq < SEQS && !x->there[seq]) {
                seq++;
            }
            CU_ASSERT(w.page.entries[i].seq == seq && right(&w.page.entries[i], x));
            seq++;
        }
        more = w.page.more;
        store_page_free(&w.page);
    }
    for (; seq < SEQS; seq++) {
        CU_ASSERT_FALSE(x->there[seq]);
    }
}

struct tables {
    size_t queue, bodies, times;
};

static struct tables tables_of(const struct tmpdir *t)
{
    struct durable *d;
    char err[256];
    MDB_stat st[3];
    MDB_txn *txn;

    UNIT_NEED(durable_attach(t->path, &d, err, sizeof(err)) == ST_OK);
    UNIT_NEED(mdb_txn_begin(d->state.env.mdb, NULL, MDB_RDONLY, &txn) == 0);
    UNIT_NEED(mdb_stat(txn, d->state.queue, &st[0]) == 0 &&
              mdb_stat(txn, d->state.bodies, &st[1]) == 0 &&
              mdb_stat(txn, d->state.times, &st[2]) == 0);
    mdb_txn_abort(txn);
    durable_detach(d);
    return (struct tables){st[0].ms_entries, st[1].ms_entries, st[2].ms_entries};
}

static void say(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "check: %s\n", line);
}

static void check_ok(const struct tmpdir *t)
{
    char err[256];

    CU_ASSERT_EQUAL(check_store(t->path, say, NULL, err, sizeof(err)), 0);
}

/* Bytes of a record of publish() beyond its payload, whose length takes two. */
static size_t record_more(void)
{
    struct store_op ops[3];

    publish(ops, 1, 1900, 1);
    ops[0].number = (uint32_t)time(NULL); /* of five bytes until 2106 */
    return record_size(&ops[0]) - 1900;
}

/* A body goes with its entry up to 2000 bytes of both, and when it has one entry only. */
static void test_which_bodies(void)
{
    const size_t limit = PIECE_MAX - ENTRY_HEAD - record_more();

    for (unsigned fan = 1; fan <= 2; fan++) {
        for (size_t size = limit - 2; size <= limit + 2; size++) {
            struct store_op ops[3];
            struct store_op del[2] = {{.kind = ST_ENTRY_DEL, .session = 1, .seq = 1},
                                      {.kind = ST_ENTRY_DEL, .session = 2, .seq = 1}};
            struct expected x = {.there = {[1] = true}, .size = {[1] = size}};
            struct tmpdir t;
            struct store_options o;
            struct store *s;
            struct tables n;

            tmpdir_make(&t);
            o = small(&t, 1000);
            s = store_need(&o);
            make_sessions(s);
            submit_ok(s, ops, publish(ops, 1, size, fan));
            store_close(&s);
            check_ok(&t);
            n = tables_of(&t);
            CU_ASSERT_EQUAL(n.queue, fan);
            CU_ASSERT_EQUAL(n.bodies == 0, fan == 1 && size <= limit);
            CU_ASSERT_EQUAL(n.times == 1, fan == 1 && size <= limit);
            s = store_need(&o);
            expect_queue(s, &x);
            submit_ok(s, del, fan);
            x.there[1] = false;
            expect_queue(s, &x);
            store_close(&s);
            check_ok(&t);
            n = tables_of(&t);
            CU_ASSERT(n.queue == 0 && n.bodies == 0 && n.times == 0);
            tmpdir_remove(&t);
        }
    }
}

/* Two entries are born and one dies before the fold: the other has the body to itself. */
static void test_last_of_two(void)
{
    struct store_op ops[3];
    struct store_op del = {.kind = ST_ENTRY_DEL, .session = 2, .seq = 5};
    struct expected x = {.there = {[5] = true}, .size = {[5] = 100}};
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    struct tables n;

    tmpdir_make(&t);
    o = small(&t, 1000);
    s = store_need(&o);
    make_sessions(s);
    submit_ok(s, ops, publish(ops, 5, 100, 2));
    submit_ok(s, &del, 1);
    store_close(&s);
    check_ok(&t);
    n = tables_of(&t);
    CU_ASSERT(n.queue == 1 && n.bodies == 0 && n.times == 1);
    s = store_need(&o);
    expect_queue(s, &x);
    store_close(&s);
    tmpdir_remove(&t);
}

static size_t size_of(uint64_t seq)
{
    return seq % 9 == 0 ? 1800 : seq % 31 == 0 ? 5000 : 20 + seq % 80;
}

static void put_seqs(struct store *s, struct expected *x, uint64_t from, uint64_t to, uint64_t by)
{
    struct store_op ops[3];

    for (uint64_t seq = from; seq < to; seq += by) {
        x->there[seq] = true;
        x->size[seq] = size_of(seq);
        submit_ok(s, ops, publish(ops, seq, size_of(seq), seq % 13 == 0 ? 2 : 1));
    }
}

static void del_seqs(struct store *s, struct expected *x, uint64_t from, uint64_t to, uint64_t by)
{
    for (uint64_t seq = from; seq < to; seq += by) {
        struct store_op op = {.kind = ST_ENTRY_DEL, .session = 1, .seq = seq};
        x->there[seq] = false;
        submit_ok(s, &op, 1);
    }
}

static void step_seqs(struct store *s, struct expected *x, uint64_t from, uint64_t to, uint64_t by)
{
    for (uint64_t seq = from; seq < to; seq += by) {
        struct store_op op = {.kind = ST_ENTRY_STEP,
                              .session = 1,
                              .seq = seq,
                              .packet_id = (uint16_t)(seq + 7),
                              .flags = 1};
        if (x->there[seq]) {
            x->step[seq] = 1;
            x->packet_id[seq] = (uint16_t)(seq + 7);
        }
        submit_ok(s, &op, 1);
    }
}

/* Each fold changes what the ones before it have written, in all places, wherever slices end. */
static void test_changes(void)
{
    static const uint32_t slices[] = {1, 2, 7, 40, 10000};

    for (size_t i = 0; i < 5; i++) {
        struct expected x = {0};
        struct tmpdir t;
        struct store_options o;
        struct store *s;

        tmpdir_make(&t);
        o = small(&t, slices[i]);
        for (unsigned round = 0; round < 7; round++) {
            s = store_need(&o);
            expect_queue(s, &x);
            if (round == 0) {
                make_sessions(s);
                put_seqs(s, &x, 2, 240, 2); /* tickets end in any order: odd ones later */
            } else if (round == 1) {
                put_seqs(s, &x, 1, 60, 2); /* between, and before all others */
                put_seqs(s, &x, 240, 300, 1);
            } else if (round == 2) {
                step_seqs(s, &x, 3, 399, 4); /* some that are not there */
                del_seqs(s, &x, 100, 200, 4);
            } else if (round == 3) {
                put_seqs(s, &x, 101, 200, 2);
                del_seqs(s, &x, 1, 70, 1);
                step_seqs(s, &x, 230, 240, 2);
                put_seqs(s, &x, 300, 303, 1);
            } else if (round == 4) {
                del_seqs(s, &x, 130, 131, 1);
                put_seqs(s, &x, 390, 395, 1);
            } else if (round == 5) {
                del_seqs(s, &x, 71, 399, 3);
            } else {
                del_seqs(s, &x, 1, 399, 1);
            }
            expect_queue(s, &x);
            store_close(&s);
            check_ok(&t);
        }
        s = store_need(&o);
        expect_queue(s, &x);
        submit_ok(s, &(struct store_op){.kind = ST_SESSION_END, .session = 2}, 1);
        store_close(&s);
        while (tables_of(&t).queue > 0) { /* what the session has left goes when there is time */
            s = store_need(&o);
            CU_ASSERT_EQUAL(store_load(s, &(struct store_load){0}), ST_OK); /* finds it */
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
            store_close(&s);
        }
        check_ok(&t);
        CU_ASSERT(tables_of(&t).bodies == 0 && tables_of(&t).times == 0);
        tmpdir_remove(&t);
    }
}

/* One entry in each fold: a session's last row is filled up instead of many being made. */
static void test_rows_fill_up(void)
{
    struct expected x = {0};
    struct tmpdir t;
    struct store_options o;
    struct store *s;

    tmpdir_make(&t);
    o = small(&t, 10000);
    for (uint64_t seq = 1; seq < 40; seq++) {
        struct store_op ops[3];
        s = store_need(&o);
        if (seq == 1) {
            make_sessions(s);
        }
        submit_ok(s, ops, publish(ops, seq, 100, 1));
        x.there[seq] = true;
        x.size[seq] = 100;
        store_close(&s);
    }
    CU_ASSERT(tables_of(&t).queue == 2); /* 39 times 167 bytes */
    s = store_need(&o);
    expect_queue(s, &x);
    store_close(&s);
    check_ok(&t);
    tmpdir_remove(&t);
}

/* ---- a fold that version 2 began ---- */

enum { OLD_ENTRIES = 12 };

/* A store whose process was killed before anything was folded. */
static void make_killed(const struct tmpdir *t)
{
    const struct store_options o = small(t, 3);
    int status;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    UNIT_NEED(pid >= 0);
    if (pid == 0) {
        struct store *s = store_need(&o);
        make_sessions(s);
        for (uint64_t seq = 1; seq <= OLD_ENTRIES; seq++) {
            struct store_op ops[3];
            submit_ok(s, ops, publish(ops, seq, size_of(seq), seq % 5 == 0 ? 2 : 1));
        }
        raise(SIGKILL);
    }
    UNIT_NEED(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
}

static void put_old_session(struct state *st, MDB_txn *txn, uint64_t session, uint64_t entries)
{
    const struct store_op op = {
        .kind = ST_SESSION_PUT, .session = session, .name = {session == 1 ? "a" : "b", 1}};
    struct session_head h = {.next_seq = entries + 1, .first_seq = 1, .count = entries, .bytes = 0};
    uint8_t room[SESSION_HEAD + 64];
    uint8_t k[8];

    for (uint64_t seq = 1; seq <= entries; seq++) {
        h.bytes += size_of(seq) + 1;
    }
    session_head_put(room, &h);
    record_encode(room + SESSION_HEAD, &op);
    put_be64(k, session);
    UNIT_NEED(object_put(txn, st->sessions, k, 8, room, SESSION_HEAD + record_size(&op), false) ==
              0);
}

static void put_old_body(struct state *st, MDB_txn *txn, uint64_t seq)
{
    static uint8_t room[7000];
    struct store_op ops[3];
    uint8_t k[8];

    publish(ops, seq, size_of(seq), 1);
    ops[0].number = 1700000000;
    put_le32(room, seq % 5 == 0 ? 2 : 1);
    record_encode(room + BODY_HEAD, &ops[0]);
    put_be64(k, ops[0].body);
    UNIT_NEED(object_put(txn, st->bodies, k, 8, room, BODY_HEAD + record_size(&ops[0]), false) ==
              0);
}

static void put_old_entry(struct state *st, MDB_txn *txn, uint64_t seq)
{
    const struct queue_entry e = {.seq = seq,
                                  .body = 10000 + seq,
                                  .number = (uint32_t)seq * 3,
                                  .size = (uint32_t)size_of(seq) + 1,
                                  .group = seq % 2 == 0 ? 77 : 0,
                                  .flags = 2};
    uint8_t k[QUEUE_KEY];
    uint8_t room[32];
    MDB_val key = key_of(k, 1, seq);
    MDB_val val = {put_single(room, &e), room};

    UNIT_NEED(mdb_put(txn, st->queue, &key, &val, 0) == 0);
}

/* As far as version 2 had come with the groups of the journal: so many bodies, so many entries. */
static void fold_as_version_2(const struct tmpdir *t, uint64_t bodies, uint64_t entries)
{
    const uint8_t version[4] = {2, 0, 0, 0};
    struct durable *d;
    char err[256];
    MDB_txn *txn;
    MDB_stat log;

    UNIT_NEED(durable_attach(t->path, &d, err, sizeof(err)) == ST_OK);
    UNIT_NEED(mdb_txn_begin(d->journal.env.mdb, NULL, MDB_RDONLY, &txn) == 0);
    UNIT_NEED(mdb_stat(txn, d->journal.log, &log) == 0);
    mdb_txn_abort(txn);
    UNIT_NEED(mdb_txn_begin(d->state.env.mdb, NULL, 0, &txn) == 0);
    UNIT_NEED(meta_put(txn, d->state.meta, "version", version, sizeof(version)) == 0);
    /* Each group was committed by itself: the last one's number. */
    UNIT_NEED(meta_put_u64(txn, d->state.meta, "folding", 1 + OLD_ENTRIES) == 0);
    put_old_session(&d->state, txn, 1, entries);
    put_old_session(&d->state, txn, 2, 0);
    for (uint64_t seq = 1; seq <= bodies; seq++) {
        put_old_body(&d->state, txn, seq);
    }
    for (uint64_t seq = 1; seq <= entries; seq++) {
        put_old_entry(&d->state, txn, seq);
    }
    UNIT_NEED(mdb_drop(txn, d->state.times, 1) == 0);
    UNIT_NEED(mdb_txn_commit(txn) == 0);
    CU_ASSERT(log.ms_entries >= 1 + OLD_ENTRIES);
    durable_detach(d);
}

/* The fold is done again in the new form: nothing is left of the old one, nothing counts twice. */
static void test_old_fold_goes_on(void)
{
    for (uint64_t at = 0; at <= 2 * (uint64_t)OLD_ENTRIES; at++) {
        const uint64_t bodies = at < OLD_ENTRIES ? at : OLD_ENTRIES;
        struct expected x = {0};
        struct tmpdir t;
        struct store_options o;
        struct store *s;
        struct tables n;

        tmpdir_make(&t);
        o = small(&t, 3);
        make_killed(&t);
        fold_as_version_2(&t, bodies, at - bodies);
        check_ok(&t);
        for (uint64_t seq = 1; seq <= OLD_ENTRIES; seq++) {
            x.there[seq] = true;
            x.size[seq] = size_of(seq);
        }
        s = store_need(&o);
        expect_queue(s, &x);
        store_close(&s);
        check_ok(&t);
        n = tables_of(&t);
        CU_ASSERT(n.bodies == 2 && n.times >= 1); /* of those with two entries */
        s = store_need(&o);
        del_seqs(s, &x, 1, OLD_ENTRIES + 1, 1);
        store_close(&s);
        check_ok(&t);
        CU_ASSERT_EQUAL(tables_of(&t).times, 0);
        tmpdir_remove(&t);
    }
}

/* ---- the checker ---- */

static long breaches;

static void count_breach(void *arg, const char *line)
{
    (void)arg;
    (void)line;
    breaches++;
}

/* Changes one byte of the first row of a table behind the store's back. */
static void spoil(const struct tmpdir *t, bool times, size_t at)
{
    struct durable *d;
    char err[256];
    MDB_cursor *cur;
    MDB_txn *txn;
    uint8_t room[QUEUE_ROW_MAX];
    MDB_val k;
    MDB_val v;

    UNIT_NEED(durable_attach(t->path, &d, err, sizeof(err)) == ST_OK);
    UNIT_NEED(mdb_txn_begin(d->state.env.mdb, NULL, 0, &txn) == 0);
    UNIT_NEED(mdb_cursor_open(txn, times ? d->state.times : d->state.queue, &cur) == 0);
    UNIT_NEED(mdb_cursor_get(cur, &k, &v, MDB_FIRST) == 0 && v.mv_size <= sizeof(room));
    memcpy(room, v.mv_data, v.mv_size);
    room[at]++;
    v.mv_data = room;
    UNIT_NEED(mdb_cursor_put(cur, &k, &v, MDB_CURRENT) == 0);
    mdb_cursor_close(cur);
    UNIT_NEED(mdb_txn_commit(txn) == 0);
    durable_detach(d);
}

/* A count of a second; of an entry its seq, body, size and length, and of its body the form. */
static void test_checker_finds(void)
{
    static const size_t at[] = {0, 0, 8, 28, 40, ENTRY_HEAD};

    for (unsigned i = 0; i < 6; i++) {
        struct tmpdir t;
        struct store_options o;
        struct store *s;
        struct store_op ops[3];
        char err[256];

        tmpdir_make(&t);
        o = small(&t, 100);
        s = store_need(&o);
        make_sessions(s);
        for (uint64_t seq = 1; seq < 4; seq++) {
            submit_ok(s, ops, publish(ops, seq, 50, 1));
        }
        store_close(&s);
        check_ok(&t);
        spoil(&t, i == 0, at[i]);
        breaches = 0;
        CU_ASSERT(check_store(t.path, count_breach, NULL, err, sizeof(err)) == breaches);
        CU_ASSERT(breaches > 0);
        CU_ASSERT_EQUAL(check_dump(t.path, count_breach, NULL, err, sizeof(err)), 0);
        tmpdir_remove(&t);
    }
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(rows)
    UNIT_TEST(old_rows)
    UNIT_TEST(find)
    UNIT_TEST(which_bodies)
    UNIT_TEST(last_of_two)
    UNIT_TEST(changes)
    UNIT_TEST(rows_fill_up)
    UNIT_TEST(old_fold_goes_on)
    UNIT_TEST(checker_finds)
UNIT_TESTS_END
