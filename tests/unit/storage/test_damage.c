/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores that are damaged in one place each: a bit, 16 bytes, a page, two pages that have changed
 * places, a file that is cut. Each is opened by a process of its own, which reads all there is:
 * that is everything that was there, or the process says what is damaged. It does not end by a
 * signal, and nothing is missing without a word.
 *
 * NOCTULE_DAMAGES (how many of each store), NOCTULE_DAMAGE_SEED.
 */
#include "storage/check.h"
#include "tests/support/store_need.h"
#include "tests/support/tmpdir.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#define SESSIONS 40u
#define DAMAGES  100u /* of each store, where nobody wants more */
#define SECONDS  60u  /* for one process: it hangs */
#define PAGE     4096u

/* ---- what is served, as lines ---- */

struct lines {
    uint64_t *v; /* their hashes */
    size_t n, cap;
    bool lost; /* something could not be read, and that was told */
};

static void add_line(struct lines *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add_line(struct lines *l, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (l->n == l->cap) {
        l->cap = l->cap * 2 + 1024;
        l->v = realloc(l->v, l->cap * sizeof(*l->v));
        UNIT_NEED(l->v != NULL);
    }
    l->v[l->n++] = XXH3_64bits(text, (size_t)n);
}

static unsigned long long hash(struct store_bytes b)
{
    return XXH3_64bits(b.p, b.n);
}

struct served {
    struct lines lines;
    uint64_t sessions[SESSIONS + 1];
    size_t nsessions;
};

static bool see_session(void *arg, const struct store_session *s)
{
    struct served *v = arg;

    add_line(&v->lines, "session %llu %llx %u %u %llu %llu", (unsigned long long)s->session,
             hash(s->client_id), s->flags, s->expiry_s, (unsigned long long)s->count,
             (unsigned long long)s->bytes);
    UNIT_NEED(v->nsessions < SESSIONS + 1);
    v->sessions[v->nsessions++] = s->session;
    return true;
}

static bool see_sub(void *arg, uint64_t session, struct store_bytes filter, uint8_t flags,
                    uint32_t id)
{
    add_line(arg, "sub %llu %llx %u %u", (unsigned long long)session, hash(filter), flags, id);
    return true;
}

static bool see_inbound(void *arg, uint64_t session, uint16_t id)
{
    add_line(arg, "inbound %llu %u", (unsigned long long)session, id);
    return true;
}

static bool see_named(void *arg, const struct store_op *op)
{
    add_line(arg, "%d %llu %llx %llx %llx %llu", op->kind, (unsigned long long)op->session,
             hash(op->name), hash(op->data), hash(op->props), (unsigned long long)op->seq);
    return true;
}

struct read_wait {
    struct store_page page;
    _Atomic bool done;
};

static void read_done(struct store_page *p)
{
    atomic_store(&((struct read_wait *)p)->done, true);
}

/* False: it could not be read. */
static bool read_queue(struct store *s, uint64_t session, struct lines *l)
{
    uint64_t from = 0;
    bool more = true;

    while (more) {
        struct read_wait w = {.page = {.done = read_done,
                                       .session = session,
                                       .from_seq = from,
                                       .max_entries = 50,
                                       .max_bytes = 1u << 20}};
        UNIT_NEED(store_read(s, &w.page) == ST_OK);
        while (!atomic_load(&w.done)) {
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        }
        if (w.page.rc != ST_OK) {
            return false;
        }
        for (uint32_t i = 0; i < w.page.n; i++) {
            const struct store_entry *e = &w.page.entries[i];
            add_line(l, "message %llu %llu %llx %llx %u %u", (unsigned long long)session,
                     (unsigned long long)e->seq, hash(e->name), hash(e->data), e->packet_id,
                     e->step);
            from = e->seq + 1;
        }
        more = w.page.more;
        store_page_free(&w.page);
    }
    return true;
}

enum verdict { SERVED, REFUSED, FAILED_LATER, NO_WORD, MISSING };

static enum verdict serve(const struct store_options *o, struct lines *out)
{
    struct served v = {0};
    const struct store_load load = {.arg = &v,
                                    .session = see_session,
                                    .sub = see_sub,
                                    .inbound = see_inbound,
                                    .will = see_named,
                                    .retained = see_named};
    struct store *s;
    char err[600] = "";
    enum verdict verdict = SERVED;

    if (store_open(o, &s, err, sizeof(err)) != ST_OK) {
        puts(err);
        return strstr(err, o->dir) != NULL ? REFUSED : NO_WORD;
    }
    if (store_load(s, &load) != ST_OK) {
        verdict = store_trouble(s)[0] != '\0' ? REFUSED : NO_WORD;
    }
    for (size_t i = 0; verdict == SERVED && i < v.nsessions; i++) {
        if (!read_queue(s, v.sessions[i], &v.lines)) {
            verdict = store_health(s) == ST_IO ? FAILED_LATER : NO_WORD;
        }
    }
    if (verdict != SERVED) {
        puts(store_trouble(s));
    }
    store_close(&s);
    *out = v.lines;
    return verdict;
}

/* ---- a store with something of everything ---- */

static struct store_options small(const char *dir)
{
    return (struct store_options){.dir = dir,
                                  .state_map = 1u << 28,
                                  .journal_map = 1u << 27,
                                  .fold_records = 400,
                                  .fold_slice = 100,
                                  .ballast = 65536};
}

static char text[20000];

static void put_session(struct store *s, uint64_t id)
{
    char client[32];
    char filter[3][32];
    struct store_op ops[8];
    uint32_t n = 0;

    snprintf(client, sizeof(client), "client-%llu", (unsigned long long)id);
    ops[n++] = (struct store_op){.kind = ST_SESSION_PUT,
                                 .session = id,
                                 .flags = 4,
                                 .number = 3600,
                                 .name = {client, strlen(client)}};
    for (unsigned i = 0; i < 3; i++) {
        snprintf(filter[i], sizeof(filter[i]), "f/%llu/%u/#", (unsigned long long)id, i);
        ops[n++] = (struct store_op){.kind = ST_SUB_PUT,
                                     .session = id,
                                     .flags = 1,
                                     .number = i,
                                     .name = {filter[i], strlen(filter[i])}};
    }
    for (uint16_t i = 1; i < 3; i++) {
        ops[n++] = (struct store_op){
            .kind = ST_INBOUND_PUT, .session = id, .packet_id = (uint16_t)(i * 100 + id)};
    }
    if (id % 2 == 0) {
        ops[n++] = (struct store_op){.kind = ST_WILL_PUT,
                                     .session = id,
                                     .number = 5,
                                     .name = {client, 6},
                                     .data = {text, 90}};
    }
    submit_ok(s, ops, n);
}

static void put_message(struct store *s, uint64_t id, uint64_t seq)
{
    const uint64_t body = id * 1000 + seq;
    const bool shared = id % 5 == 0 && id < SESSIONS;
    struct store_op ops[3] = {
        {.kind = ST_BODY_PUT,
         .body = body,
         .name = {"a/topic", 7},
         .data = {text + seq % 7, seq % 23 == 0 ? 9000 : 20 + seq * 7 % 300}},
        {.kind = ST_ENTRY_PUT, .session = id, .seq = seq, .body = body, .flags = 1},
        {.kind = ST_ENTRY_PUT, .session = id + 1, .seq = 1000 + seq, .body = body, .flags = 1}};

    submit_ok(s, ops, shared ? 3 : 2);
}

static void put_retained(struct store *s, unsigned i)
{
    char name[32];
    struct store_op op = {.kind = ST_RETAINED_PUT, .seq = i + 1, .flags = 1};

    snprintf(name, sizeof(name), "kept/%u", i);
    op.name = (struct store_bytes){name, strlen(name)};
    op.data = (struct store_bytes){text, i % 10 == 0 ? 7000 : 10 + i};
    submit_ok(s, &op, 1);
}

static void fill(struct store *s)
{
    for (uint64_t id = 1; id <= SESSIONS; id++) {
        put_session(s, id);
    }
    for (unsigned i = 0; i < 120; i++) {
        put_retained(s, i);
    }
    for (uint64_t seq = 1; seq <= 60; seq++) {
        for (uint64_t id = 1; id <= SESSIONS; id += 1 + seq % 3) {
            put_message(s, id, seq);
        }
    }
}

/* A process of its own, which is killed, or closes the store. */
static void make_store(const char *dir, bool killed)
{
    const struct store_options o = small(dir);
    const pid_t pid = fork();
    int status;

    UNIT_NEED(pid >= 0);
    if (pid == 0) {
        struct store *s = store_need(&o);
        for (size_t i = 0; i < sizeof(text); i++) {
            text[i] = (char)('a' + i * i % 23);
        }
        fill(s);
        if (killed) {
            raise(SIGKILL);
        }
        store_close(&s);
        _exit(0);
    }
    UNIT_NEED(waitpid(pid, &status, 0) == pid && (killed || status == 0));
}

/* ---- damages ---- */

static uint64_t random_state;

static uint64_t rnd(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

static void scramble(unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        p[i] = (unsigned char)rnd(256);
    }
}

enum { BIT, BYTES, A_PAGE, EXCHANGE, CUT, KINDS };
static const char *const kinds[] = {"a bit", "16 bytes", "a page", "two pages", "cut"};

/* The bytes that are left. */
static size_t damage(unsigned char *p, size_t n, unsigned kind)
{
    const size_t pages = n / PAGE;
    const size_t a = rnd(pages) * PAGE;
    const size_t b = rnd(pages) * PAGE;
    unsigned char page[PAGE];

    switch (kind) {
    case BIT:
        p[rnd(n)] ^= (unsigned char)(1u << rnd(8));
        break;
    case BYTES:
        scramble(p + rnd(n - 16), 16);
        break;
    case A_PAGE:
        scramble(p + a, PAGE);
        break;
    case EXCHANGE:
        memcpy(page, p + a, PAGE);
        memcpy(p + a, p + b, PAGE);
        memcpy(p + b, page, PAGE);
        break;
    default:
        return rnd(n);
    }
    return n;
}

struct original {
    unsigned char *file[2];
    size_t n[2];
};
static const char *const envs[2] = {"journal", "state"};

static void write_store(const char *dir, const struct original *from, unsigned damaged,
                        const unsigned char *p, size_t n)
{
    for (unsigned i = 0; i < 2; i++) {
        char path[700];
        snprintf(path, sizeof(path), "%s/%s", dir, envs[i]);
        UNIT_NEED(mkdir(path, 0700) == 0);
        snprintf(path, sizeof(path), "%s/%s/data.mdb", dir, envs[i]);
        tmpdir_write(path, i == damaged ? p : from->file[i], i == damaged ? n : from->n[i]);
    }
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static bool same(struct lines *a, struct lines *b)
{
    if (a->n == 0 || b->n == 0) {
        return a->n == b->n;
    }
    qsort(a->v, a->n, sizeof(*a->v), by_value);
    qsort(b->v, b->n, sizeof(*b->v), by_value);
    return a->n == b->n && memcmp(a->v, b->v, a->n * sizeof(*a->v)) == 0;
}

static int in_child(const char *dir, struct lines *want)
{
    const struct store_options o = small(dir);
    struct lines got = {0};
    enum verdict v;

    alarm(SECONDS);
    v = serve(&o, &got);
    if (v == SERVED && !same(&got, want)) {
        v = MISSING;
    }
    return v == SERVED ? 0 : 100 + (int)v;
}

/* ---- the same, where what can be served is served ---- */

static void say_line(void *arg, const char *line)
{
    (void)arg;
    puts(line);
}

static void log_line(void *arg, int level, const char *line)
{
    (void)level;
    say_line(arg, line);
}

static size_t missing(struct lines *want, struct lines *got)
{
    size_t n = 0;

    (void)same(want, got); /* sorts */
    for (size_t i = 0, j = 0; i < want->n; i++) {
        while (j < got->n && got->v[j] < want->v[i]) {
            j++;
        }
        n += j == got->n || got->v[j] != want->v[i];
    }
    return n;
}

/* Opened once more, all that is there keeps the rules; and what is missing was told. */
static int in_child_serving(const char *dir, struct lines *want)
{
    struct store_options o = small(dir);
    struct lines got = {0};
    enum verdict v;
    struct store *s;
    struct store_stats st;
    char err[1024];
    size_t n;

    o.serve_damaged = true;
    o.log = log_line;
    alarm(SECONDS);
    if (store_open(&o, &s, err, sizeof(err)) != ST_OK) {
        puts(err);
        return 100 + (int)(strstr(err, dir) != NULL ? REFUSED : NO_WORD);
    }
    store_stats(s, &st);
    store_close(&s);
    v = serve(&o, &got);
    if (v != SERVED) {
        return 110 + (int)v;
    }
    if (got.n == 0) {
        return 122; /* that is not worth a start */
    }
    n = missing(want, &got);
    printf("%zu lines are missing, %llu told\n", n, (unsigned long long)st.lost);
    if (n > 0 && st.lost == 0) {
        return 120;
    }
    return check_store(dir, say_line, NULL, err, sizeof(err)) == 0 ? 0 : 121;
}

/* 0: all was served; the status of the process, or minus its signal. */
static int try_store(const char *dir, struct lines *want, bool serving)
{
    const pid_t pid = fork();
    int status;

    UNIT_NEED(pid >= 0);
    if (pid == 0) {
        char path[700];
        snprintf(path, sizeof(path), "%s/said", dir);
        UNIT_NEED(freopen(path, "w", stdout) != NULL && freopen(path, "a", stderr) != NULL);
        status = serving ? in_child_serving(dir, want) : in_child(dir, want);
        fflush(NULL);
        _exit(status);
    }
    UNIT_NEED(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static bool said_something(const char *dir)
{
    char path[700];
    unsigned char *p;
    size_t n = 0;

    snprintf(path, sizeof(path), "%s/said", dir);
    p = tmpdir_read(path, &n);
    free(p);
    return n > 1;
}

static void print_said(const char *dir)
{
    char path[700];
    unsigned char *p;
    size_t n = 0;

    snprintf(path, sizeof(path), "%s/said", dir);
    p = tmpdir_read(path, &n);
    fprintf(stderr, "%.*s\n", (int)(n < 2000 ? n : 2000),
            p == NULL ? "" : (const char *)p + (n < 2000 ? 0 : n - 2000)); /* its end */
    free(p);
}

static bool is_good(const char *dir, int status)
{
    return status == 0 || ((status == 1 || status == 74 || status == 100 + REFUSED ||
                            status == 100 + FAILED_LATER) &&
                           said_something(dir));
}

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text_of = getenv(name);

    return text_of == NULL ? otherwise : strtoull(text_of, NULL, 10);
}

static size_t first_of(const unsigned char *a, const unsigned char *b, size_t n)
{
    size_t i = 0;

    while (i < n && a[i] == b[i]) {
        i++;
    }
    return i;
}

static void damage_once(const struct original *from, struct lines *want, uint64_t seed,
                        bool serving, unsigned *served)
{
    struct tmpdir t;
    unsigned env;
    unsigned kind;
    unsigned char *p;
    size_t n;
    int status;

    random_state = seed * 0x9e3779b97f4a7c15u + 1;
    (void)rnd(2);
    env = rnd(4) > 0; /* most of it is in `state` */
    kind = (unsigned)rnd(KINDS);
    tmpdir_make(&t);
    p = malloc(from->n[env]);
    UNIT_NEED(p != NULL);
    memcpy(p, from->file[env], from->n[env]);
    n = damage(p, from->n[env], kind);
    write_store(t.path, from, env, p, n);
    status = try_store(t.path, want, serving);
    *served += status == 0;
    if (!is_good(t.path, status) || (serving && status != 0 && getenv("NOCTULE_DAMAGE_SAY"))) {
        fprintf(stderr, "seed %llu: %s of %s: status %d, first at %zu\n", (unsigned long long)seed,
                kinds[kind], envs[env], status, first_of(p, from->file[env], n));
        print_said(t.path);
        CU_FAIL("a damaged store");
    }
    free(p);
    tmpdir_remove(&t);
}

static void damage_many(bool killed, bool serving)
{
    const uint64_t first = number("NOCTULE_DAMAGE_SEED", 1);
    const uint64_t count = number("NOCTULE_DAMAGES", DAMAGES);
    struct original from;
    struct lines want = {0};
    struct store_options o;
    struct tmpdir t;
    unsigned served = 0;

    tmpdir_make(&t);
    make_store(t.path, killed);
    for (unsigned i = 0; i < 2; i++) {
        char path[700];
        snprintf(path, sizeof(path), "%s/%s/data.mdb", t.path, envs[i]);
        from.file[i] = tmpdir_read(path, &from.n[i]);
        UNIT_NEED(from.file[i] != NULL);
    }
    o = small(t.path);
    UNIT_NEED(serve(&o, &want) == SERVED && want.n > 1000);
    for (uint64_t i = 0; i < count; i++) {
        damage_once(&from, &want, first + i, serving, &served);
    }
    printf("%llu damages: %u served all\n", (unsigned long long)count, served);
    CU_ASSERT(count < 20 ||
              (served > 0 && (serving || served < count))); /* free pages, and others */
    if (getenv("NOCTULE_DAMAGE_KEEP") != NULL) {
        rename(t.path, getenv("NOCTULE_DAMAGE_KEEP"));
    }
    free(from.file[0]);
    free(from.file[1]);
    free(want.v);
    tmpdir_remove(&t);
}

static void test_closed(void)
{
    damage_many(false, false);
}

static void test_killed(void)
{
    damage_many(true, false);
}

static void test_closed_serving(void)
{
    damage_many(false, true);
}

static void test_killed_serving(void)
{
    damage_many(true, true);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(closed)
    UNIT_TEST(killed)
    UNIT_TEST(closed_serving)
    UNIT_TEST(killed_serving)
UNIT_TESTS_END
