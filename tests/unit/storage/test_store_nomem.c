/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The n-th allocation of the store fails, on any of its threads, for n = 1, 2, 3 ... until a run
 * comes to no n-th one: submitting and folding, reading, recovery, loading. Whatever failed, what
 * was acknowledged is there afterwards, and of what was not all of a unit or nothing.
 *
 * Built twice: LMDB is linked dynamically, and its allocations fail in the second program only, see
 * tests/support/fault_lmdb.c.
 */
#include "storage/check.h"
#include "storage/store.h"
#include "tests/support/fault.h"
#include "tests/support/store_need.h"
#include "tests/support/tmpdir.h"
#include "tests/support/unit.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SESSIONS 3u
#define UNITS    60u
#define OPS      4u
#define PAYLOAD  3000u /* two pieces */
#define WIDE     1000u
#define MOST     5000u /* allocations of one run, by far */

#ifndef LMDB_FAILS
#define LMDB_FAILS 0
#endif

static struct store_options small(const char *dir)
{
    return (struct store_options){.dir = dir,
                                  .state_map = 1u << 28,
                                  .journal_map = 1u << 27,
                                  .fold_records = 100,
                                  .fold_slice = 31,
                                  .ballast = 65536};
}

static void sleep_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}

/* ---- the work: units that are whole or not there, which can be seen in three places ---- */

struct work {
    struct store_unit unit;
    struct store_op ops[OPS];
    char topic[16];
    _Atomic int rc; /* -1: not answered; seq_cst */
};

struct works {
    char payload[PAYLOAD];
    struct work w[UNITS];
};

static void work_done(struct store_unit *u, enum store_rc rc)
{
    atomic_store(&((struct work *)u)->rc, (int)rc);
}

static uint64_t session_of(uint32_t i)
{
    return 1 + i % SESSIONS;
}

/* A message to one session, a retained message and a subscription. */
static void fill(struct works *ws, uint32_t i)
{
    struct work *w = &ws->w[i];
    const struct store_bytes data = {ws->payload, PAYLOAD};
    struct store_bytes name;

    snprintf(w->topic, sizeof(w->topic), "t/%u", i);
    name = (struct store_bytes){w->topic, strlen(w->topic)};
    w->ops[0] = (struct store_op){.kind = ST_BODY_PUT, .body = 100 + i, .name = name, .data = data};
    w->ops[1] = (struct store_op){
        .kind = ST_ENTRY_PUT, .session = session_of(i), .seq = 1 + i, .body = 100 + i};
    w->ops[2] =
        (struct store_op){.kind = ST_RETAINED_PUT, .seq = 1 + i, .name = name, .data = data};
    w->ops[3] = (struct store_op){.kind = ST_SUB_PUT, .session = session_of(i), .name = name};
    w->unit = (struct store_unit){.done = work_done, .ops = w->ops, .nops = OPS};
    atomic_store(&w->rc, -1);
}

static struct works *works_create(void)
{
    struct works *ws = calloc(1, sizeof(*ws));

    UNIT_NEED(ws != NULL);
    memset(ws->payload, 'p', PAYLOAD);
    for (uint32_t i = 0; i < UNITS; i++) {
        fill(ws, i);
    }
    return ws;
}

static int wait_for(struct work *w)
{
    while (atomic_load(&w->rc) < 0) {
        sleep_a_little();
    }
    return atomic_load(&w->rc);
}

static void put_sessions(struct store *s)
{
    struct work w = {.rc = -1};

    for (uint32_t i = 0; i < SESSIONS; i++) {
        w.ops[i] = (struct store_op){.kind = ST_SESSION_PUT, .session = 1 + i, .name = {"c", 1}};
    }
    w.unit = (struct store_unit){.done = work_done, .ops = w.ops, .nops = SESSIONS};
    UNIT_NEED(store_submit(s, &w.unit) == ST_OK);
    UNIT_NEED(wait_for(&w) == ST_OK);
}

/* One at a time, so that each has a commit, and with it allocations, of its own. */
static void submit_all(struct store *s, struct works *ws)
{
    for (uint32_t i = 0; i < UNITS; i++) {
        UNIT_NEED(store_submit(s, &ws->w[i].unit) == ST_OK);
        wait_for(&ws->w[i]);
    }
}

/* Removals of what is not there, more of them than the batch has had room for. */
static int submit_wide(struct store *s)
{
    static struct store_op ops[WIDE];
    struct work w = {.rc = -1};

    for (uint32_t i = 0; i < WIDE; i++) {
        ops[i] = (struct store_op){.kind = ST_ENTRY_DEL, .session = 1, .seq = 1000 + i};
    }
    w.unit = (struct store_unit){.done = work_done, .ops = ops, .nops = WIDE};
    UNIT_NEED(store_submit(s, &w.unit) == ST_OK);
    return wait_for(&w);
}

/* ---- what is there ---- */

struct seen {
    uint8_t entry[UNITS], retained[UNITS], sub[UNITS];
};

static uint32_t number_of(struct store_bytes name)
{
    char text[16] = "";
    unsigned i = UNITS;

    UNIT_NEED(name.n < sizeof(text));
    memcpy(text, name.p, name.n);
    UNIT_NEED(sscanf(text, "t/%u", &i) == 1 && i < UNITS);
    return i;
}

static bool see_sub(void *arg, uint64_t session, struct store_bytes filter, uint8_t flags,
                    uint32_t id)
{
    (void)flags;
    (void)id;
    CU_ASSERT_EQUAL(session, session_of(number_of(filter)));
    ((struct seen *)arg)->sub[number_of(filter)]++;
    return true;
}

static bool see_retained(void *arg, const struct store_op *op)
{
    CU_ASSERT_EQUAL(op->data.n, PAYLOAD);
    ((struct seen *)arg)->retained[number_of(op->name)]++;
    return true;
}

struct asked {
    struct store_page page;
    _Atomic bool there;
};

static void page_done(struct store_page *p)
{
    atomic_store(&((struct asked *)p)->there, true);
}

static enum store_rc ask(struct store *s, struct asked *a, uint64_t session)
{
    *a = (struct asked){.page = {.done = page_done,
                                 .session = session,
                                 .from_seq = 1,
                                 .max_entries = UNITS,
                                 .max_bytes = 1u << 20}};
    UNIT_NEED(store_read(s, &a->page) == ST_OK);
    while (!atomic_load(&a->there)) {
        sleep_a_little();
    }
    return a->page.rc;
}

static void see_queues(struct store *s, struct seen *seen)
{
    for (uint64_t session = 1; session <= SESSIONS; session++) {
        struct asked a;

        UNIT_NEED(ask(s, &a, session) == ST_OK);
        CU_ASSERT_FALSE(a.page.more);
        for (uint32_t i = 0; i < a.page.n; i++) {
            const struct store_entry *e = &a.page.entries[i];
            CU_ASSERT_EQUAL(e->seq, 1 + number_of(e->name));
            CU_ASSERT_EQUAL(e->data.n, PAYLOAD);
            seen->entry[number_of(e->name)]++;
        }
        store_page_free(&a.page);
    }
}

/* Opens it without failures, compares, closes it, lets the checker look. */
static void verify(const struct store_options *o, struct works *ws)
{
    struct seen seen = {.entry = {0}};
    const struct store_load load = {.arg = &seen, .sub = see_sub, .retained = see_retained};
    struct store *s = store_need(o);
    char err[512];

    UNIT_NEED(store_load(s, &load) == ST_OK);
    see_queues(s, &seen);
    for (uint32_t i = 0; i < UNITS; i++) {
        CU_ASSERT(seen.entry[i] <= 1);
        CU_ASSERT_EQUAL(seen.entry[i], seen.retained[i]);
        CU_ASSERT_EQUAL(seen.entry[i], seen.sub[i]);
        CU_ASSERT(atomic_load(&ws->w[i].rc) != ST_OK || seen.entry[i] == 1);
        CU_ASSERT(atomic_load(&ws->w[i].rc) != ST_NOMEM || seen.entry[i] == 0);
    }
    store_close(&s);
    CU_ASSERT_EQUAL(check_store(o->dir, NULL, NULL, err, sizeof(err)), 0);
}

/* ---- submitting and folding ---- */

static unsigned count_rc(struct works *ws, int rc)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < UNITS; i++) {
        n += atomic_load(&ws->w[i].rc) == rc;
    }
    return n;
}

/* True: the n-th allocation was reached. Folds run while units come, and at the close. */
static bool submit_once(unsigned n, unsigned *nomem, unsigned *io)
{
    struct works *ws = works_create();
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    bool reached;

    tmpdir_make(&t);
    o = small(t.path);
    s = store_need(&o);
    put_sessions(s);
    fault_set_others(n);
    *nomem += submit_wide(s) == ST_NOMEM;
    submit_all(s, ws);
    if (count_rc(ws, ST_IO) > 0) { /* the index of what is on disk is not whole: final */
        CU_ASSERT_EQUAL(store_health(s), ST_IO);
        CU_ASSERT(store_trouble(s)[0] != '\0');
    }
    store_close(&s);
    reached = fault_clear();
    *nomem += count_rc(ws, ST_NOMEM);
    *io += count_rc(ws, ST_IO) > 0;
    CU_ASSERT(reached || count_rc(ws, ST_OK) == UNITS);
    verify(&o, ws);
    tmpdir_remove(&t);
    free(ws);
    return reached;
}

static void test_submit_and_fold(void)
{
    unsigned nomem = 0;
    unsigned io = 0;
    unsigned n = 1;

    while (submit_once(n, &nomem, &io)) {
        UNIT_NEED(++n < MOST);
    }
    CU_ASSERT(n > 16);              /* blocks, index, commit, fold */
    CU_ASSERT(nomem > 0 && io > 0); /* both kinds were met */
}

/* ---- reading ---- */

static void wait_for_fold(struct store *s)
{
    struct store_stats st;

    for (store_stats(s, &st); st.folds == 0; store_stats(s, &st)) {
        sleep_a_little();
    }
}

static void test_read(void)
{
    struct works *ws = works_create();
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    unsigned n;

    tmpdir_make(&t);
    o = small(t.path);
    o.fold_records = UNITS * OPS / 3 * 2; /* one fold: some in `state`, some not yet */
    s = store_need(&o);
    put_sessions(s);
    submit_all(s, ws);
    wait_for_fold(s); /* else it may be the fold that is failed */
    for (n = 1; n < MOST; n++) {
        struct asked a;
        enum store_rc rc;
        bool reached;

        fault_set_others(n);
        rc = ask(s, &a, 1);
        reached = fault_clear();
        if (rc == ST_OK) {
            CU_ASSERT_EQUAL(a.page.n, UNITS / SESSIONS);
        } else {
            CU_ASSERT(reached);
            CU_ASSERT_EQUAL(rc, ST_NOMEM);
            CU_ASSERT(a.page.n == 0 && a.page.entries == NULL && a.page.memory == NULL);
        }
        store_page_free(&a.page);
        CU_ASSERT_EQUAL(ask(s, &a, 1), ST_OK); /* the next one is none the worse */
        CU_ASSERT_EQUAL(a.page.n, UNITS / SESSIONS);
        store_page_free(&a.page);
        if (!reached) {
            break;
        }
    }
    CU_ASSERT(n > 3 && n < MOST);
    CU_ASSERT_EQUAL(store_health(s), ST_OK);
    store_close(&s);
    verify(&o, ws);
    tmpdir_remove(&t);
    free(ws);
}

/* ---- recovery ---- */

/* A store that was killed with all units in the journal and none in `state`. */
static void make_killed(const struct tmpdir *t, struct works *ws)
{
    struct store_options o = small(t->path);
    int status;
    pid_t pid;

    o.fold_records = 1000000;
    fflush(NULL);
    pid = fork();
    UNIT_NEED(pid >= 0);
    if (pid == 0) {
        struct store *s = store_need(&o);
        put_sessions(s);
        submit_all(s, ws);
        raise(SIGKILL);
    }
    UNIT_NEED(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    for (uint32_t i = 0; i < UNITS; i++) {
        atomic_store(&ws->w[i].rc, ST_OK); /* it would have ended otherwise */
    }
}

static void copy_store(const struct tmpdir *from, const struct tmpdir *to)
{
    static const char *const envs[] = {"journal", "state"};

    for (unsigned i = 0; i < 2; i++) {
        char path[700];
        unsigned char *p;
        size_t n;

        snprintf(path, sizeof(path), "%s/%s/data.mdb", from->path, envs[i]);
        p = tmpdir_read(path, &n);
        UNIT_NEED(p != NULL);
        snprintf(path, sizeof(path), "%s/%s", to->path, envs[i]);
        UNIT_NEED(mkdir(path, 0700) == 0);
        snprintf(path, sizeof(path), "%s/%s/data.mdb", to->path, envs[i]);
        tmpdir_write(path, p, n);
        free(p);
    }
}

static bool recover_once(const struct tmpdir *killed, struct works *ws, unsigned n)
{
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    char err[512];
    enum store_rc rc;
    bool reached;

    tmpdir_make(&t);
    copy_store(killed, &t);
    o = small(t.path);
    fault_set(n);
    rc = store_open(&o, &s, err, sizeof(err));
    reached = fault_clear();
    /* LMDB out of memory looks as if the kernel refused the map: the next try asks for half. */
    CU_ASSERT(rc == (reached ? ST_NOMEM : ST_OK) || (LMDB_FAILS && rc == ST_OK));
    if (rc != ST_OK) {
        CU_ASSERT_PTR_NULL(s);
        CU_ASSERT(err[0] != '\0');
    }
    store_close(&s);
    verify(&o, ws);
    tmpdir_remove(&t);
    return reached;
}

static void test_recovery(void)
{
    struct works *ws = works_create();
    struct tmpdir killed;
    unsigned n = 1;

    tmpdir_make(&killed);
    make_killed(&killed, ws);
    while (recover_once(&killed, ws, n)) {
        UNIT_NEED(++n < MOST);
    }
    CU_ASSERT(n > 50);
    tmpdir_remove(&killed);
    free(ws);
}

static void test_load(void)
{
    struct works *ws = works_create();
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    unsigned n;

    tmpdir_make(&t);
    o = small(t.path);
    s = store_need(&o);
    put_sessions(s);
    submit_all(s, ws);
    store_close(&s);
    s = store_need(&o);
    for (n = 1; n < MOST; n++) {
        struct seen seen = {.entry = {0}};
        const struct store_load load = {.arg = &seen, .sub = see_sub, .retained = see_retained};
        enum store_rc rc;
        bool reached;

        fault_set(n);
        rc = store_load(s, &load);
        reached = fault_clear();
        CU_ASSERT_EQUAL(rc, reached ? ST_NOMEM : ST_OK);
        if (!reached) {
            break;
        }
    }
    CU_ASSERT(n > 1 && n < MOST);
    store_close(&s);
    verify(&o, ws);
    tmpdir_remove(&t);
    free(ws);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(submit_and_fold)
    UNIT_TEST(read)
    UNIT_TEST(recovery)
    UNIT_TEST(load)
UNIT_TESTS_END
