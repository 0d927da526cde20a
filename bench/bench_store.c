/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_store [--dir DIR] [--ms MS] [--flight N] [--load NAME] [--start N] [--queued N] - the
 * durable store's engine: two threads submit publishes (a body of 100 bytes and one entry) and keep
 * so many in flight each; one JSON line for each number in flight and each workload, or for one of
 * them:
 *
 *     dense    nothing meets its removal in its batch: each message is removed 2000 publishes later
 *     drained  removed as soon as it is acknowledged
 *     kept     never removed: every message reaches the B-trees
 *     bare     LMDB alone: as many bytes as `kept` writes, appended in as many transactions in
 *              pieces of 2000 bytes: what the bytes cost, whatever a message is
 *     bare_each  likewise, but a value for each message, appended one after the other: what
 * somebody pays who just puts messages into LMDB bare_log   likewise, and as many are removed at
 * the other end in the same transaction, 16 MB behind: nothing can only be appended to
 *
 * The bare ones come with `kept`, whose messages and commits they repeat; none of them gives an
 * answer to another thread or can be asked for a session's messages.
 *
 * cpu_us is that of the whole process for each message, submitting threads and fold included;
 * store_cpu_us is without the submitting threads, whose messages cost something as well. --start N:
 * time and memory to open and load N sessions, N subscriptions and N retained messages. --queued N:
 * memory with N queued messages.
 */
#include "bench/micro.h"
#include "storage/store.h"

#include <fcntl.h>
#include <ftw.h>
#include <lmdb.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS  2
#define SESSIONS 10000u
#define PAYLOAD  100u
#define LATER    2000u
#define CHAIN    64u /* units at most in one hand-over */
#define BUCKETS  80u

enum workload { DENSE, DRAINED, KEPT };
static const char *const names[] = {"dense", "drained", "kept"};

struct message {
    struct store_unit unit;
    struct store_op ops[3];
    struct thread *thread;
    struct message *next; /* free list */
    double sent_ns;
};

struct removal {
    uint64_t session, seq;
};

struct thread {
    struct store *store;
    enum workload load;
    unsigned index, flight;
    struct message *all;
    struct store_chain chain;       /* to be handed over together, as a broker's turn does */
    double chain_ns;                /* when it was begun: latency counts from there */
    _Atomic(struct message *) back; /* answered, newest first */
    _Atomic int waiting;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    uint64_t next_body, step, acked;
    uint64_t *seqs; /* of its sessions */
    uint64_t first_session;
    struct removal *old; /* ring of what is to be removed later */
    uint64_t published, removed;
    uint64_t histogram[BUCKETS]; /* of latencies, see note_latency() */
    double cpu_ns;               /* of the submitting thread */
    _Atomic bool *stop;
};

static char payload[PAYLOAD];

static double process_cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* A list of messages, by `next`, back to the thread they are from. */
static void give_back(struct thread *t, struct message *first, struct message *last)
{
    struct message *old = atomic_load_explicit(&t->back, memory_order_relaxed);

    do {
        last->next = old;
    } while (!atomic_compare_exchange_weak(&t->back, &old, first));
    if (old == NULL && atomic_load(&t->waiting) != 0) {
        pthread_mutex_lock(&t->lock);
        pthread_cond_signal(&t->cond);
        pthread_mutex_unlock(&t->lock);
    }
}

/* As a broker would: one hand-over to each thread for a commit. */
static void done_all(struct store_unit *u, enum store_rc rc)
{
    struct message *first[THREADS] = {NULL};
    struct message *last[THREADS] = {NULL};

    MICRO_NEED(rc == ST_OK);
    while (u != NULL) {
        struct message *m = (struct message *)u;
        const unsigned i = m->thread->index;
        u = u->next;
        m->next = first[i];
        first[i] = m;
        last[i] = last[i] == NULL ? m : last[i];
    }
    for (unsigned i = 0; i < THREADS; i++) {
        if (first[i] != NULL) {
            give_back(first[i]->thread, first[i], last[i]);
        }
    }
}

/* Four buckets to a power of two. */
static void note_latency(struct thread *t, double us)
{
    const uint64_t v = us < 4 ? 4 : (uint64_t)us;
    const unsigned top = 63u - (unsigned)__builtin_clzll(v);
    const unsigned b = (top - 2) * 4 + (unsigned)(v >> (top - 2) & 3);

    t->histogram[b < BUCKETS ? b : BUCKETS - 1]++;
}

static double bucket_us(unsigned b)
{
    return (double)((4ull + b % 4) << b / 4);
}

static struct store_op del_op(struct removal r)
{
    return (struct store_op){.kind = ST_ENTRY_DEL, .session = r.session, .seq = r.seq};
}

static void hand_over(struct thread *t)
{
    if (t->chain.n > 0) {
        MICRO_NEED(store_submit_chain(t->store, &t->chain) == ST_OK);
        t->chain = (struct store_chain){.n = 0};
    }
}

static void publish(struct thread *t, struct message *m)
{
    const uint64_t i = t->step++ % (SESSIONS / THREADS);
    const uint64_t session = t->first_session + i;
    const uint64_t body = t->next_body++;
    const uint64_t seq = ++t->seqs[i];

    m->ops[0] = (struct store_op){.kind = ST_BODY_PUT,
                                  .body = body,
                                  .name = {"site/device/state", 17},
                                  .data = {payload, PAYLOAD}};
    m->ops[1] = (struct store_op){
        .kind = ST_ENTRY_PUT, .session = session, .seq = seq, .body = body, .flags = 1};
    m->unit.nops = 2;
    if (t->load != KEPT) {
        const uint64_t later = t->load == DENSE ? LATER + t->flight : t->flight;
        if (t->published >= later) {
            m->ops[2] = del_op(t->old[(t->published - later) % (LATER * 4)]);
            m->unit.nops = 3;
        }
        t->old[t->published % (LATER * 4)] = (struct removal){session, seq};
    }
    t->published++;
    if (t->chain.n == 0) { /* the clock once for what is handed over together */
        t->chain_ns = micro_now_ns();
    }
    m->sent_ns = t->chain_ns;
    store_chain_add(&t->chain, &m->unit);
    if (t->chain.n == CHAIN) {
        hand_over(t);
    }
}

static struct message *wait_back(struct thread *t)
{
    struct message *m = atomic_exchange(&t->back, NULL);

    while (m == NULL) {
        pthread_mutex_lock(&t->lock);
        atomic_store(&t->waiting, 1);
        while (atomic_load(&t->back) == NULL) {
            pthread_cond_wait(&t->cond, &t->lock);
        }
        atomic_store(&t->waiting, 0);
        pthread_mutex_unlock(&t->lock);
        m = atomic_exchange(&t->back, NULL);
    }
    return m;
}

static void *submitter(void *arg)
{
    struct thread *t = arg;
    unsigned out = 0;

    for (unsigned i = 0; i < t->flight; i++, out++) {
        publish(t, &t->all[i]);
    }
    hand_over(t);
    while (out > 0) {
        struct message *m = wait_back(t);
        const double now = micro_now_ns();
        while (m != NULL) {
            struct message *next = m->next;
            t->acked++;
            out--;
            note_latency(t, (now - m->sent_ns) / 1e3);
            if (!atomic_load_explicit(t->stop, memory_order_relaxed)) {
                publish(t, m);
                out++;
            }
            m = next;
        }
        hand_over(t);
    }
    t->cpu_ns = micro_cpu_ns();
    return NULL;
}

/* ---- set-up ---- */

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *ftw)
{
    (void)st;
    (void)what;
    (void)ftw;
    return remove(path);
}

static void clear(const char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct store *open_store(const char *dir)
{
    const struct store_options o = {.dir = dir, .pace_us = 500};
    struct store *s;
    char err[512];

    if (store_open(&o, &s, err, sizeof(err)) != ST_OK) {
        fprintf(stderr, "%s\n", err);
        exit(1);
    }
    return s;
}

struct wait {
    struct store_unit unit;
    _Atomic bool done;
};

static void wait_done(struct store_unit *u, enum store_rc rc)
{
    MICRO_NEED(rc == ST_OK);
    atomic_store(&((struct wait *)u)->done, true);
}

static void submit_ops(struct store *s, struct store_op *ops, uint32_t n)
{
    struct wait w = {.unit = {.done = wait_done, .ops = ops, .nops = n}};

    MICRO_NEED(store_submit(s, &w.unit) == ST_OK);
    while (!atomic_load(&w.done)) {
        sched_yield();
    }
}

/* Sessions 1..n, in units of 1000. */
static void make_sessions(struct store *s, uint64_t n)
{
    static char text[1000][32];
    static struct store_op ops[1000];

    for (uint64_t i = 0; i < n;) {
        uint32_t k = 0;
        for (; k < 1000 && i < n; k++, i++) {
            const int len =
                snprintf(text[k], sizeof(text[k]), "client-%llu", (unsigned long long)i);
            ops[k] = (struct store_op){.kind = ST_SESSION_PUT,
                                       .session = i + 1,
                                       .name = {text[k], (size_t)len},
                                       .number = 3600};
        }
        submit_ops(s, ops, k);
    }
}

/* ---- bare LMDB ---- */

/* One of the bare workloads: as many batches with as many bytes as the store's had. */
struct bare {
    const char *name;
    bool each; /* a value for each message instead of pieces of 2000 bytes */
    bool trim; /* a log: what is BARE_KEPT behind is removed in the same transaction */
};
static const struct bare bares[] = {
    {.name = "bare"},
    {.name = "bare_each", .each = true},
    {.name = "bare_log", .each = true, .trim = true},
};
#define BARE_KEPT (16u << 20) /* bytes; as much as starts a fold of the store */

struct bare_run {
    MDB_env *env;
    MDB_dbi dbi;
    double value;        /* bytes of a value */
    uint64_t key, first; /* the next one, and the oldest that is left */
    uint64_t keep;       /* values; 0: all */
};

static void bare_append(struct bare_run *r, MDB_cursor *cur, size_t n)
{
    static char bytes[4096];
    MDB_val k = {sizeof(r->key), &r->key};
    MDB_val v = {n, bytes};

    MICRO_NEED(mdb_cursor_put(cur, &k, &v, MDB_APPEND) == 0);
    r->key++;
}

static void bare_commit(struct bare_run *r, double bytes)
{
    MDB_txn *txn;
    MDB_cursor *cur;

    MICRO_NEED(mdb_txn_begin(r->env, NULL, 0, &txn) == 0);
    MICRO_NEED(mdb_cursor_open(txn, r->dbi, &cur) == 0);
    for (; bytes >= 1; bytes -= r->value) {
        bare_append(r, cur, (size_t)(bytes < r->value ? bytes : r->value));
    }
    while (r->keep > 0 && r->key - r->first > r->keep) {
        MDB_val k;
        MDB_val v;
        MICRO_NEED(mdb_cursor_get(cur, &k, &v, MDB_FIRST) == 0 && mdb_cursor_del(cur, 0) == 0);
        r->first++;
    }
    mdb_cursor_close(cur);
    MICRO_NEED(mdb_txn_commit(txn) == 0);
}

static void bare_open(struct bare_run *r, const char *dir)
{
    MDB_txn *txn;

    clear(dir);
    mkdir(dir, 0750);
    MICRO_NEED(mdb_env_create(&r->env) == 0 && mdb_env_set_mapsize(r->env, 16ull << 30) == 0);
    MICRO_NEED(mdb_env_open(r->env, dir, MDB_NOTLS, 0640) == 0);
    MICRO_NEED(mdb_txn_begin(r->env, NULL, 0, &txn) == 0);
    MICRO_NEED(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &r->dbi) == 0 && mdb_txn_commit(txn) == 0);
}

static void run_bare(const char *dir, const struct bare *b, unsigned flight, uint64_t messages,
                     uint64_t commits, double bytes)
{
    struct bare_run r = {.key = 1, .first = 1};
    double wall;
    double cpu;

    r.value = b->each ? bytes / (double)messages : 2000;
    r.keep = b->trim ? (uint64_t)(BARE_KEPT / r.value) : 0;
    bare_open(&r, dir);
    bare_commit(&r, r.value * (double)r.keep); /* a log that has been there for a while */
    wall = micro_now_ns();
    cpu = process_cpu_ns();
    for (uint64_t i = 0; i < commits; i++) {
        bare_commit(&r, bytes / (double)commits);
    }
    cpu = process_cpu_ns() - cpu;
    wall = micro_now_ns() - wall;
    mdb_env_close(r.env);
    clear(dir);
    printf("{\"bench\": \"store\", \"workload\": \"%s\", \"in_flight\": %u, \"messages\": %llu, "
           "\"per_second\": %.0f, \"cpu_us\": %.3f, \"per_commit\": %.1f, \"bytes_each\": %.0f}\n",
           b->name, flight, (unsigned long long)messages, (double)messages / wall * 1e9,
           cpu / 1e3 / (double)messages, (double)messages / (double)commits,
           bytes / (double)messages);
    fflush(stdout);
}

/* ---- one cell ---- */

static double percentile(const struct thread *t, double p)
{
    uint64_t total = 0;
    uint64_t seen = 0;

    for (unsigned i = 0; i < THREADS; i++) {
        for (unsigned b = 0; b < BUCKETS; b++) {
            total += t[i].histogram[b];
        }
    }
    for (unsigned b = 0; b < BUCKETS; b++) {
        for (unsigned i = 0; i < THREADS; i++) {
            seen += t[i].histogram[b];
        }
        if ((double)seen >= (double)total * p) {
            return bucket_us(b);
        }
    }
    return bucket_us(BUCKETS);
}

static void thread_init(struct thread *t, struct store *s, enum workload load, unsigned flight,
                        unsigned i, _Atomic bool *stop)
{
    *t = (struct thread){.store = s, .load = load, .index = i, .flight = flight, .stop = stop};
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->cond, NULL);
    t->all = calloc(flight, sizeof(*t->all));
    t->seqs = calloc(SESSIONS, sizeof(*t->seqs));
    t->old = calloc(LATER * 4, sizeof(*t->old));
    MICRO_NEED(t->all != NULL && t->seqs != NULL && t->old != NULL);
    t->first_session = 1 + i * (SESSIONS / THREADS);
    t->next_body = 1000000 + i * 1000000000000u;
    for (unsigned k = 0; k < flight; k++) {
        t->all[k].thread = t;
        t->all[k].unit.done_all = done_all;
        t->all[k].unit.ops = t->all[k].ops;
    }
}

static void run_cell(const char *dir, enum workload load, unsigned flight, unsigned ms)
{
    struct thread t[THREADS];
    pthread_t th[THREADS];
    _Atomic bool stop = false;
    struct store_stats before;
    struct store_stats after;
    struct store *s;
    uint64_t acked = 0;
    double wall;
    double cpu;
    double submit_ns = 0;

    clear(dir);
    s = open_store(dir);
    make_sessions(s, SESSIONS);
    store_stats(s, &before);
    wall = micro_now_ns();
    cpu = process_cpu_ns();
    for (unsigned i = 0; i < THREADS; i++) {
        thread_init(&t[i], s, load, flight, i, &stop);
        MICRO_NEED(pthread_create(&th[i], NULL, submitter, &t[i]) == 0);
    }
    usleep(ms * 1000);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(th[i], NULL);
        acked += t[i].acked;
        submit_ns += t[i].cpu_ns;
    }
    wall = micro_now_ns() - wall;
    store_stats(s, &after);
    store_close(&s); /* folds the rest: that is part of the price */
    cpu = process_cpu_ns() - cpu;
    printf("{\"bench\": \"store\", \"workload\": \"%s\", \"in_flight\": %u, \"messages\": %llu, "
           "\"per_second\": %.0f, \"cpu_us\": %.3f, \"store_cpu_us\": %.3f, \"p50_us\": %.0f, "
           "\"p99_us\": %.0f, "
           "\"per_commit\": %.1f, \"folds\": %llu, \"annihilated\": %llu, \"bytes_each\": %.0f}\n",
           names[load], flight, (unsigned long long)acked, (double)acked / wall * 1e9,
           cpu / 1e3 / (double)acked, (cpu - submit_ns) / 1e3 / (double)acked, percentile(t, 0.5),
           percentile(t, 0.99), (double)acked / (double)(after.commits - before.commits),
           (unsigned long long)(after.folds - before.folds), (unsigned long long)after.annihilated,
           (double)(after.journal_written - before.journal_written) / (double)acked);
    fflush(stdout);
    for (unsigned i = 0; i < THREADS; i++) {
        free(t[i].all);
        free(t[i].seqs);
        free(t[i].old);
    }
    if (load == KEPT) {
        for (size_t i = 0; i < sizeof(bares) / sizeof(bares[0]); i++) {
            run_bare(dir, &bares[i], flight, acked, after.commits - before.commits,
                     (double)(after.journal_written - before.journal_written));
        }
    }
    clear(dir);
}

/* ---- start and memory ---- */

static long resident_kb(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    MICRO_NEED(f != NULL && fscanf(f, "%*d %ld %*d", &pages) >= 0);
    MICRO_NEED(fclose(f) == 0);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Anonymous memory: pages of a mapped file are the page cache's. */
static long anonymous_kb(void)
{
    char line[128];
    long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");

    MICRO_NEED(f != NULL);
    while (fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "RssAnon: %ld", &kb) == 1) {
            break;
        }
    }
    fclose(f);
    return kb;
}

struct loaded {
    uint64_t sessions, subs, retained;
};

static bool on_session(void *arg, const struct store_session *s)
{
    (void)s;
    ((struct loaded *)arg)->sessions++;
    return true;
}

static bool on_sub(void *arg, uint64_t session, struct store_bytes filter, uint8_t flags,
                   uint32_t sub_id)
{
    (void)session;
    (void)filter;
    (void)flags;
    (void)sub_id;
    ((struct loaded *)arg)->subs++;
    return true;
}

static bool on_retained(void *arg, const struct store_op *op)
{
    (void)op;
    ((struct loaded *)arg)->retained++;
    return true;
}

static void make_more(struct store *s, uint64_t n, bool retained)
{
    static char text[1000][64];
    static struct store_op ops[1000];

    for (uint64_t i = 0; i < n;) {
        uint32_t k = 0;
        for (; k < 1000 && i < n; k++, i++) {
            const int len = snprintf(text[k], sizeof(text[k]), "site%llu/dev%llu/state",
                                     (unsigned long long)(i % 1000), (unsigned long long)i);
            ops[k] = (struct store_op){.kind = retained ? ST_RETAINED_PUT : ST_SUB_PUT,
                                       .session = retained ? 0 : i + 1,
                                       .seq = i + 1,
                                       .name = {text[k], (size_t)len},
                                       .data = {payload, retained ? PAYLOAD : 0}};
        }
        submit_ops(s, ops, k);
    }
}

static void open_and_load(const char *dir, const char *what, uint64_t n)
{
    struct loaded l = {0};
    const struct store_load load = {
        .arg = &l, .session = on_session, .sub = on_sub, .retained = on_retained};
    double wall = micro_now_ns();
    double cpu = process_cpu_ns();
    struct store *s = open_store(dir);

    MICRO_NEED(store_load(s, &load) == ST_OK);
    cpu = process_cpu_ns() - cpu;
    wall = micro_now_ns() - wall;
    printf("{\"bench\": \"store\", \"start\": \"%s\", \"n\": %llu, \"sessions\": %llu, \"subs\": "
           "%llu, \"retained\": %llu, \"seconds\": %.3f, \"cpu_s\": %.3f, \"anonymous_kb\": %ld, "
           "\"resident_kb\": %ld}\n",
           what, (unsigned long long)n, (unsigned long long)l.sessions, (unsigned long long)l.subs,
           (unsigned long long)l.retained, wall / 1e9, cpu / 1e9, anonymous_kb(), resident_kb());
    fflush(stdout);
    store_close(&s);
}

static void run_start(const char *dir, uint64_t n)
{
    struct store *s;

    clear(dir);
    s = open_store(dir);
    make_sessions(s, n);
    make_more(s, n, false);
    make_more(s, n, true);
    store_close(&s);
    open_and_load(dir, "sessions, subscriptions, retained", n);
    clear(dir);
}

static void run_queued(const char *dir, uint64_t n)
{
    static struct store_op ops[200];
    struct store *s;
    long peak = 0;

    clear(dir);
    s = open_store(dir);
    make_sessions(s, SESSIONS);
    for (uint64_t i = 0; i < n;) {
        uint32_t k = 0;
        for (; k < 200 && i < n; k += 2, i++) {
            ops[k] = (struct store_op){.kind = ST_BODY_PUT,
                                       .body = 1000000 + i,
                                       .name = {"site/device/state", 17},
                                       .data = {payload, PAYLOAD}};
            ops[k + 1] = (struct store_op){.kind = ST_ENTRY_PUT,
                                           .session = 1 + i % SESSIONS,
                                           .seq = 1 + i / SESSIONS,
                                           .body = 1000000 + i,
                                           .flags = 1};
        }
        submit_ops(s, ops, k);
        if (i % 20000 == 0) {
            const long now = anonymous_kb();
            peak = now > peak ? now : peak;
        }
    }
    printf("{\"bench\": \"store\", \"queued\": %llu, \"anonymous_peak_kb\": %ld, "
           "\"anonymous_kb\": %ld}\n",
           (unsigned long long)n, peak, anonymous_kb());
    fflush(stdout);
    store_close(&s);
    open_and_load(dir, "queued", n);
    clear(dir);
}

int main(int argc, char **argv)
{
    static const unsigned flights[] = {1, 8, 32, 128, 512, 2048};
    char dir[512] = "/tmp/noctule-bench-store-XXXXXX";
    unsigned ms = 3000;
    uint64_t start = 0;
    uint64_t queued = 0;
    unsigned flight = 0;
    const char *load = NULL;
    bool made = true;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--dir") == 0) {
            snprintf(dir, sizeof(dir), "%s", argv[i + 1]);
            made = false;
        } else if (strcmp(argv[i], "--ms") == 0) {
            ms = (unsigned)strtoul(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--flight") == 0) {
            flight = (unsigned)strtoul(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--load") == 0) {
            load = argv[i + 1];
        } else if (strcmp(argv[i], "--start") == 0) {
            start = strtoull(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--queued") == 0) {
            queued = strtoull(argv[i + 1], NULL, 10);
        }
    }
    memset(payload, 'x', sizeof(payload));
    MICRO_NEED(!made || mkdtemp(dir) != NULL);
    if (start > 0) {
        run_start(dir, start);
    } else if (queued > 0) {
        run_queued(dir, queued);
    } else {
        for (unsigned i = 0; i < sizeof(flights) / sizeof(flights[0]); i++) {
            for (int w = DENSE; w <= KEPT; w++) {
                if ((flight == 0 || flight == flights[i]) &&
                    (load == NULL || strcmp(load, names[w]) == 0)) {
                    run_cell(dir, (enum workload)w, flights[i], ms);
                }
            }
        }
    }
    return 0;
}
