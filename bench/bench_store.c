/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_store [--dir DIR] [--ms MS] [--flight N] [--load NAME] [--sessions N] [--start N]
 * [--queued N] - the durable store's engine: two threads submit publishes (a body of 100 bytes and
 * one entry) and keep so many in flight each; one JSON line for each number in flight and each
 * workload, or for one of them:
 *
 *     dense    nothing meets its removal in its batch: each message is removed 2000 publishes later
 *     drained  removed as soon as it is acknowledged
 *     kept     never removed: every message reaches the B-trees, in the queues of 10,000 sessions
 *              (--sessions)
 *     bare     LMDB alone: as many bytes as `kept` writes, appended in as many transactions in
 *              pieces of 2000 bytes: what the bytes cost, whatever a message is
 *     bare_each    likewise, but a value for each message, appended one after the other
 *     bare_log     likewise, and as many are removed at the other end in the same transaction, 16
 *                  MB behind: nothing can only be appended to
 *     bare_served  a value for each message, for the same two threads: they hand their messages to
 *                  a thread that waits until as many are there as a commit of `kept` had, appends
 *                  them, commits and answers. The batches then come about as the store's do
 *
 * The bare ones come with `kept`, whose messages and commits they repeat. None of them can be asked
 * for a session's messages.
 *
 * cpu_us is that of the whole process for each message, submitting threads and fold included;
 * store_cpu_us is without the submitting threads, whose messages cost something as well. --start N:
 * time and memory to open and load N sessions, N subscriptions and N retained messages. --queued N:
 * memory with N queued messages.
 */
#include "bench/bare_lmdb.h"
#include "bench/micro.h"
#include "storage/slice.h"
#include "storage/store.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS 2
#define PAYLOAD 100u
#define LATER   2000u
#define CHAIN   64u /* units at most in one hand-over */
#define BUCKETS 80u

enum workload { DENSE, DRAINED, KEPT };
static const char *const names[] = {"dense", "drained", "kept"};

static uint64_t nsessions = 10000;

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
    struct store *store;   /* or */
    struct served *served; /* who takes its units */
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

static void served_submit(struct served *s, const struct store_chain *c);

static void hand_over(struct thread *t)
{
    if (t->chain.n > 0) {
        if (t->served != NULL) {
            served_submit(t->served, &t->chain);
        } else {
            MICRO_NEED(store_submit_chain(t->store, &t->chain) == ST_OK);
        }
        t->chain = (struct store_chain){.n = 0};
    }
}

static void publish(struct thread *t, struct message *m)
{
    const uint64_t i = t->step++ % (nsessions / THREADS);
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

/* ---- the threads ---- */

static void thread_init(struct thread *t, unsigned i, _Atomic bool *stop)
{
    t->index = i;
    t->stop = stop;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->cond, NULL);
    t->all = calloc(t->flight, sizeof(*t->all));
    t->seqs = calloc(nsessions, sizeof(*t->seqs));
    t->old = calloc(LATER * 4, sizeof(*t->old));
    MICRO_NEED(t->all != NULL && t->seqs != NULL && t->old != NULL);
    t->first_session = 1 + i * (nsessions / THREADS);
    t->next_body = 1000000 + i * 1000000000000u;
    for (unsigned k = 0; k < t->flight; k++) {
        t->all[k].thread = t;
        t->all[k].unit.done_all = done_all;
        t->all[k].unit.ops = t->all[k].ops;
    }
}

/* The threads, and what they did together. Whoever answers may still look at a thread that has
 * ended, so it outlives the store. */
struct team {
    struct thread t[THREADS];
    uint64_t acked;
    double wall_ns;
    double submit_ns; /* CPU of the submitting threads */
    uint64_t histogram[BUCKETS];
};

/* like: what all threads have alike. */
static void team_run(struct team *o, struct thread like, unsigned ms)
{
    pthread_t th[THREADS];
    _Atomic bool stop = false;

    *o = (struct team){.wall_ns = micro_now_ns()};
    for (unsigned i = 0; i < THREADS; i++) {
        o->t[i] = like;
        thread_init(&o->t[i], i, &stop);
        MICRO_NEED(pthread_create(&th[i], NULL, submitter, &o->t[i]) == 0);
    }
    usleep(ms * 1000);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(th[i], NULL);
        o->acked += o->t[i].acked;
        o->submit_ns += o->t[i].cpu_ns;
        for (unsigned b = 0; b < BUCKETS; b++) {
            o->histogram[b] += o->t[i].histogram[b];
        }
    }
    o->wall_ns = micro_now_ns() - o->wall_ns;
}

/* Nobody answers any more. */
static void team_free(struct team *o)
{
    for (unsigned i = 0; i < THREADS; i++) {
        free(o->t[i].all);
        free(o->t[i].seqs);
        free(o->t[i].old);
    }
}

static double percentile(const struct team *o, double p)
{
    uint64_t seen = 0;

    for (unsigned b = 0; b < BUCKETS; b++) {
        seen += o->histogram[b];
        if ((double)seen >= (double)o->acked * p) {
            return bucket_us(b);
        }
    }
    return bucket_us(BUCKETS);
}

/* The part of a line that all workloads with threads have. */
static void print_outcome(const char *name, unsigned flight, const struct team *o, double cpu_ns)
{
    const double n = (double)o->acked;

    printf("{\"bench\": \"store\", \"workload\": \"%s\", \"in_flight\": %u, \"messages\": %llu, "
           "\"per_second\": %.0f, \"cpu_us\": %.3f, \"store_cpu_us\": %.3f, \"p50_us\": %.0f, "
           "\"p99_us\": %.0f, ",
           name, flight, (unsigned long long)o->acked, n / o->wall_ns * 1e9, cpu_ns / 1e3 / n,
           (cpu_ns - o->submit_ns) / 1e3 / n, percentile(o, 0.5), percentile(o, 0.99));
}

/* ---- bare LMDB ---- */

/* What is to be repeated: as many batches with as many bytes as the store's had. */
struct repeat {
    const char *dir;
    unsigned flight;
    uint64_t messages, commits;
    double bytes;
};

struct bare_load {
    const char *name;
    bool each; /* a value for each message instead of pieces of 2000 bytes */
    bool trim; /* a log: what is BARE_KEPT behind is removed in the same transaction */
};
static const struct bare_load bare_loads[] = {
    {.name = "bare"},
    {.name = "bare_each", .each = true},
    {.name = "bare_log", .each = true, .trim = true},
};
#define BARE_KEPT (16u << 20) /* bytes; as much as starts a fold of the store */

static void start_anew(struct bare *b, const char *dir)
{
    clear(dir);
    mkdir(dir, 0750);
    bare_open(b, dir);
}

static void bare_batch(struct bare *b, double bytes, double value, uint64_t keep)
{
    static char zeroes[4096];

    bare_begin(b);
    for (; bytes >= 1; bytes -= value) {
        bare_append(b, zeroes, (size_t)(bytes < value ? bytes : value));
    }
    if (keep > 0) {
        bare_trim(b, keep);
    }
    bare_commit(b);
}

static void run_bare(const struct bare_load *load, const struct repeat *r)
{
    const double value = load->each ? r->bytes / (double)r->messages : 2000;
    const uint64_t keep = load->trim ? (uint64_t)(BARE_KEPT / value) : 0;
    const double n = (double)r->messages;
    struct bare b;
    double wall;
    double cpu;

    start_anew(&b, r->dir);
    bare_batch(&b, value * (double)keep, value, 0); /* a log that has been there for a while */
    wall = micro_now_ns();
    cpu = process_cpu_ns();
    for (uint64_t i = 0; i < r->commits; i++) {
        bare_batch(&b, r->bytes / (double)r->commits, value, keep);
    }
    cpu = process_cpu_ns() - cpu;
    wall = micro_now_ns() - wall;
    bare_close(&b);
    printf("{\"bench\": \"store\", \"workload\": \"%s\", \"in_flight\": %u, \"messages\": %llu, "
           "\"per_second\": %.0f, \"cpu_us\": %.3f, \"per_commit\": %.1f, \"bytes_each\": %.0f}\n",
           load->name, r->flight, (unsigned long long)r->messages, n / wall * 1e9, cpu / 1e3 / n,
           n / (double)r->commits, r->bytes / n);
    fflush(stdout);
}

/* ---- bare LMDB with somebody to serve ---- */

struct served {
    struct bare bare;
    pthread_t thread;
    size_t value;    /* bytes of a message */
    uint64_t enough; /* messages that a commit waits for, a millisecond at most */
    uint64_t commits;
    pthread_mutex_t lock; /* around the rest */
    pthread_cond_t cond;
    struct store_unit *newest;
    uint64_t pending;
    bool stop;
};

static void served_submit(struct served *s, const struct store_chain *c)
{
    bool wake;

    pthread_mutex_lock(&s->lock);
    c->oldest->next = s->newest;
    s->newest = c->newest;
    wake = s->pending < s->enough && s->pending + c->n >= s->enough;
    s->pending += c->n;
    pthread_mutex_unlock(&s->lock);
    if (wake) {
        pthread_cond_signal(&s->cond);
    }
}

static void served_wait(struct served *s)
{
    struct timespec ts;

    while (!s->stop && s->pending < s->enough) {
        clock_gettime(CLOCK_REALTIME, &ts);
        ts.tv_nsec += 1000000;
        ts.tv_sec += ts.tv_nsec / 1000000000;
        ts.tv_nsec %= 1000000000;
        if (pthread_cond_timedwait(&s->cond, &s->lock, &ts) == ETIMEDOUT && s->pending > 0) {
            break;
        }
    }
}

/* All that is there, the oldest first; NULL: it is to stop. */
static struct store_unit *served_take(struct served *s)
{
    struct store_unit *oldest = NULL;
    struct store_unit *u;

    pthread_mutex_lock(&s->lock);
    served_wait(s);
    u = s->newest;
    s->newest = NULL;
    s->pending = 0;
    pthread_mutex_unlock(&s->lock);
    while (u != NULL) {
        struct store_unit *next = u->next;
        if (u->ahead != NULL) { /* as the store does: another core's work until now */
            __builtin_prefetch(u->ahead);
        }
        __builtin_prefetch(&u->ops->data);
        u->next = oldest;
        oldest = u;
        u = next;
    }
    return oldest;
}

static void *serve(void *arg)
{
    struct served *s = arg;
    struct store_unit *list;
    char value[4096] = {0};

    thread_short_slice(); /* as the store does */
    while ((list = served_take(s)) != NULL) {
        bare_begin(&s->bare);
        for (const struct store_unit *u = list; u != NULL; u = u->next) {
            memcpy(value, u->ops->data.p, u->ops->data.n);
            bare_append(&s->bare, value, s->value);
        }
        bare_commit(&s->bare);
        s->commits++;
        done_all(list, ST_OK);
    }
    return NULL;
}

static void run_served(const struct repeat *r, unsigned ms)
{
    /* Some are always under way, as with the store; at least one, or it would not wait. */
    const uint64_t enough = r->messages * 98 / (r->commits * 100);
    struct served s = {.value = (size_t)(r->bytes / (double)r->messages),
                       .enough = enough > 0 ? enough : 1};
    const struct thread like = {.served = &s, .load = KEPT, .flight = r->flight};
    struct team o;
    double cpu;

    start_anew(&s.bare, r->dir);
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.cond, NULL);
    cpu = process_cpu_ns();
    MICRO_NEED(pthread_create(&s.thread, NULL, serve, &s) == 0);
    team_run(&o, like, ms);
    pthread_mutex_lock(&s.lock);
    s.stop = true;
    pthread_cond_signal(&s.cond);
    pthread_mutex_unlock(&s.lock);
    pthread_join(s.thread, NULL);
    bare_close(&s.bare);
    cpu = process_cpu_ns() - cpu;
    print_outcome("bare_served", r->flight, &o, cpu);
    printf("\"per_commit\": %.1f, \"bytes_each\": %zu}\n", (double)o.acked / (double)s.commits,
           s.value);
    fflush(stdout);
    team_free(&o);
}

/* ---- one cell ---- */

static void run_cell(const char *dir, enum workload load, unsigned flight, unsigned ms)
{
    struct store_stats before;
    struct store_stats after;
    struct repeat r = {.dir = dir, .flight = flight};
    struct team o;
    struct store *s;
    double cpu;

    clear(dir);
    s = open_store(dir);
    make_sessions(s, nsessions);
    store_stats(s, &before);
    cpu = process_cpu_ns();
    team_run(&o, (struct thread){.store = s, .load = load, .flight = flight}, ms);
    store_stats(s, &after);
    store_close(&s); /* folds the rest: that is part of the price */
    cpu = process_cpu_ns() - cpu;
    r.messages = o.acked;
    r.commits = after.commits - before.commits;
    r.bytes = (double)(after.journal_written - before.journal_written);
    print_outcome(names[load], flight, &o, cpu);
    printf("\"per_commit\": %.1f, \"folds\": %llu, \"annihilated\": %llu, \"bytes_each\": %.0f}\n",
           (double)o.acked / (double)r.commits, (unsigned long long)(after.folds - before.folds),
           (unsigned long long)after.annihilated, r.bytes / (double)o.acked);
    fflush(stdout);
    team_free(&o);
    if (load == KEPT) {
        run_served(&r, ms);
        for (size_t i = 0; i < sizeof(bare_loads) / sizeof(bare_loads[0]); i++) {
            run_bare(&bare_loads[i], &r);
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
    make_sessions(s, nsessions);
    for (uint64_t i = 0; i < n;) {
        uint32_t k = 0;
        for (; k < 200 && i < n; k += 2, i++) {
            ops[k] = (struct store_op){.kind = ST_BODY_PUT,
                                       .body = 1000000 + i,
                                       .name = {"site/device/state", 17},
                                       .data = {payload, PAYLOAD}};
            ops[k + 1] = (struct store_op){.kind = ST_ENTRY_PUT,
                                           .session = 1 + i % nsessions,
                                           .seq = 1 + i / nsessions,
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
        } else if (strcmp(argv[i], "--sessions") == 0) {
            nsessions = strtoull(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--start") == 0) {
            start = strtoull(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--queued") == 0) {
            queued = strtoull(argv[i + 1], NULL, 10);
        }
    }
    memset(payload, 'x', sizeof(payload));
    MICRO_NEED(nsessions >= THREADS);
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
