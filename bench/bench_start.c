/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_start --broker PATH [options] - how long the whole broker takes to start over a store.
 *
 * Fills a store through storage/store.h, starts the broker over it with a unix socket as its only
 * listener and prints one JSON line: wall clock and CPU of the process until it listens, and its
 * memory then (anonymous memory is the broker's; pages of mapped files are the page cache's).
 *
 *     --sessions N  --subs N  --retained N    what is in the store (1000 each); subscriptions are
 *                                             dealt out over the sessions, one filter each
 *     --queued N      messages of 48 bytes, dealt out over (at most) 1000 of the sessions
 *     --killed        the filling process ends without closing the store, as after SIGKILL
 *     --shards N      of the broker (2)
 *     --rounds N      starts over the same store, one JSON line each (1)
 *     --limit-us X    exit status 1 if the median costs more CPU than X us for each session
 *                     (with its share of the rest), 20 ms for the empty broker aside
 *     --dir DIR       holds the store and stays; without it a folder in /tmp that goes
 */
#include "bench/micro.h"
#include "storage/store.h"

#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNIT           1000u /* operations in one unit */
#define QUEUE_SESSIONS 1000u
#define FIRST_BODY     1000000000u
#define EMPTY_MS       20.0
#define ROUNDS_MAX     64u
#define READY_S        600.0

struct run {
    const char *broker;
    char dir[400];
    bool keep, killed;
    uint64_t sessions, subs, retained, queued;
    unsigned shards, rounds;
    double limit_us;
};

struct started {
    double wall_ms, cpu_ms;
    long anon_kb, file_kb;
};

/* ---- filling ---- */

struct filler {
    struct store_unit unit;
    struct store *store;
    struct store_op ops[UNIT];
    char text[UNIT][48];
    uint32_t n;
    _Atomic bool answered; /* seq_cst: only the store's answer matters, not its cost */
};

static void filler_done(struct store_unit *u, enum store_rc rc)
{
    MICRO_NEED(rc == ST_OK);
    atomic_store(&((struct filler *)u)->answered, true);
}

static void filler_flush(struct filler *f)
{
    if (f->n == 0) {
        return;
    }
    f->unit = (struct store_unit){.done = filler_done, .ops = f->ops, .nops = f->n};
    atomic_store(&f->answered, false);
    MICRO_NEED(store_submit(f->store, &f->unit) == ST_OK);
    while (!atomic_load(&f->answered)) {
        sched_yield();
    }
    f->n = 0;
}

static struct store_op *filler_add(struct filler *f, enum store_op_kind kind)
{
    struct store_op *op;

    if (f->n == UNIT) {
        filler_flush(f);
    }
    op = &f->ops[f->n++];
    *op = (struct store_op){.kind = kind};
    return op;
}

/* The operation that was added last gets a name of its own: PLANT/KIND NUMBER/TAIL. */
static void filler_name(struct filler *f, const char *kind, const char *tail, uint64_t i)
{
    char *text = f->text[f->n - 1];
    const int len = snprintf(text, sizeof(f->text[0]), "plant%llu/%s%llu%s",
                             (unsigned long long)(i % 1000), kind, (unsigned long long)i, tail);

    f->ops[f->n - 1].name = (struct store_bytes){text, (size_t)len};
}

static void fill_sessions(struct filler *f, const struct run *r)
{
    for (uint64_t i = 0; i < r->sessions; i++) {
        struct store_op *op = filler_add(f, ST_SESSION_PUT);
        op->session = i + 1;
        op->number = UINT32_MAX; /* never expires */
        op->flags = 5;           /* the version */
        op->expires_ms = 1;
        filler_name(f, "client", "", i);
    }
    for (uint64_t i = 0; i < r->subs && r->sessions > 0; i++) {
        struct store_op *op = filler_add(f, ST_SUB_PUT);
        op->session = i % r->sessions + 1;
        op->flags = 1;
        filler_name(f, "device", "/command", i);
    }
}

static void fill_retained(struct filler *f, const struct run *r)
{
    static const char payload[] =
        "{\"temperature\": 21.5, \"humidity\": 40, \"battery\": 97, \"n\": 0}";

    for (uint64_t i = 0; i < r->retained; i++) {
        struct store_op *op = filler_add(f, ST_RETAINED_PUT);
        op->seq = i + 1;
        op->data = (struct store_bytes){payload, sizeof(payload) - 1};
        op->flags = 1;
        filler_name(f, "device", "/state", i);
    }
}

static void fill_queues(struct filler *f, const struct run *r)
{
    static const char payload[] = "{\"command\": \"set\", \"target\": 1, \"value\": 2345}";
    const uint64_t over = r->sessions < QUEUE_SESSIONS ? r->sessions : QUEUE_SESSIONS;

    for (uint64_t i = 0; i < r->queued && over > 0; i++) {
        struct store_op *op;
        if (f->n + 2 > UNIT) {
            filler_flush(f); /* a body stands in the unit of its entry */
        }
        op = filler_add(f, ST_BODY_PUT);
        op->body = FIRST_BODY + i;
        op->name = (struct store_bytes){"plant/device/command", 20};
        op->data = (struct store_bytes){payload, sizeof(payload) - 1};
        op->flags = 1;
        op = filler_add(f, ST_ENTRY_PUT);
        op->session = i % over + 1;
        op->seq = i / over + 1;
        op->body = FIRST_BODY + i;
        op->flags = 1;
    }
}

static void fill(const struct run *r, const char *store)
{
    static struct filler f;
    const struct store_options o = {.dir = store};
    char err[512];

    if (store_open(&o, &f.store, err, sizeof(err)) != ST_OK) {
        fprintf(stderr, "%s\n", err);
        exit(1);
    }
    fill_sessions(&f, r);
    fill_retained(&f, r);
    fill_queues(&f, r);
    filler_flush(&f);
    if (r->killed) {
        _exit(0);
    }
    store_close(&f.store);
    exit(0);
}

/* In a process of its own, so that it may end without closing and leaves no memory behind. */
static void fill_apart(const struct run *r, const char *store)
{
    int status;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    MICRO_NEED(pid >= 0);
    if (pid == 0) {
        fill(r, store);
    }
    MICRO_NEED(waitpid(pid, &status, 0) == pid && status == 0);
}

/* ---- starting ---- */

static void write_conf(const struct run *r, const char *path)
{
    FILE *out = fopen(path, "w");

    MICRO_NEED(out != NULL);
    fprintf(out,
            "%sshards %u\nallow_anonymous true\npersistence true\npersistence_location %s/store\n"
            "max_queued_messages 0\nmax_retained_messages 0\nmax_retained_bytes 0\n"
            "log_dest file %s/log\nlistener 0 %s/socket\n",
            geteuid() == 0 ? "user root\n" : "", r->shards, r->dir, r->dir, r->dir);
    MICRO_NEED(fclose(out) == 0);
}

static bool is_listening(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bool yes;

    MICRO_NEED(fd >= 0 && strlen(path) < sizeof(a.sun_path));
    memcpy(a.sun_path, path, strlen(path));
    yes = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
    close(fd);
    return yes;
}

static long status_kb(pid_t pid, const char *name)
{
    char path[64];
    char line[128];
    long kb = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    f = fopen(path, "r");
    MICRO_NEED(f != NULL);
    while (fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
            kb = strtol(line + strlen(name) + 1, NULL, 10);
            break;
        }
    }
    fclose(f);
    return kb;
}

static double cpu_ms(pid_t pid)
{
    struct timespec ts;
    clockid_t clock;

    MICRO_NEED(clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &ts) == 0);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static struct started start(const struct run *r, const char *conf, const char *sock)
{
    const double begin = micro_now_ns();
    struct started s;
    int status;
    pid_t pid;

    (void)unlink(sock);
    pid = fork();
    MICRO_NEED(pid >= 0);
    if (pid == 0) {
        execl(r->broker, r->broker, "-c", conf, (char *)NULL);
        perror(r->broker);
        _exit(127);
    }
    while (!is_listening(sock)) {
        if (waitpid(pid, &status, WNOHANG) != 0 || micro_now_ns() - begin > READY_S * 1e9) {
            fprintf(stderr, "%s does not start; see %s/log\n", r->broker, r->dir);
            (void)kill(pid, SIGKILL);
            exit(1);
        }
        usleep(1000);
    }
    s.cpu_ms = cpu_ms(pid);
    s.wall_ms = (micro_now_ns() - begin) / 1e6;
    s.anon_kb = status_kb(pid, "RssAnon");
    s.file_kb = status_kb(pid, "RssFile");
    /* The last start ends the way a broker ends; the others leave the store as they found it. */
    MICRO_NEED(kill(pid, SIGTERM) == 0);
    MICRO_NEED(waitpid(pid, &status, 0) == pid);
    if (status != 0) {
        fprintf(stderr, "%s ended with status %#x; see %s/log\n", r->broker, (unsigned)status,
                r->dir);
        exit(1);
    }
    return s;
}

static void report(const struct run *r, const struct started *s)
{
    printf("{\"bench\": \"start\", \"sessions\": %llu, \"subs\": %llu, \"retained\": %llu, "
           "\"queued\": %llu, \"killed\": %s, \"shards\": %u, \"seconds\": %.3f, \"cpu_s\": %.3f, "
           "\"anonymous_kb\": %ld, \"mapped_kb\": %ld}\n",
           (unsigned long long)r->sessions, (unsigned long long)r->subs,
           (unsigned long long)r->retained, (unsigned long long)r->queued,
           r->killed ? "true" : "false", r->shards, s->wall_ms / 1e3, s->cpu_ms / 1e3, s->anon_kb,
           s->file_kb);
    fflush(stdout);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Exit status. */
static int judge(const struct run *r, double *cpu)
{
    double each_us;

    if (r->limit_us <= 0 || r->sessions == 0) {
        return 0;
    }
    qsort(cpu, r->rounds, sizeof(*cpu), compare);
    each_us = (cpu[r->rounds / 2] - EMPTY_MS) * 1e3 / (double)r->sessions;
    if (each_us > r->limit_us) {
        fprintf(stderr, "the start costs %.1f us for each session, at most %.1f are allowed\n",
                each_us, r->limit_us);
        return 1;
    }
    return 0;
}

static int measure(const struct run *r)
{
    char conf[420];
    char sock[420];
    char store[420];
    double cpu[ROUNDS_MAX];

    snprintf(conf, sizeof(conf), "%s/conf", r->dir);
    snprintf(sock, sizeof(sock), "%s/socket", r->dir);
    snprintf(store, sizeof(store), "%s/store", r->dir);
    MICRO_NEED(mkdir(store, 0750) == 0 || errno == EEXIST);
    fill_apart(r, store);
    write_conf(r, conf);
    for (unsigned i = 0; i < r->rounds; i++) {
        const struct started s = start(r, conf, sock);
        report(r, &s);
        cpu[i] = s.cpu_ms;
    }
    return judge(r, cpu);
}

/* ---- main ---- */

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *ftw)
{
    (void)st;
    (void)what;
    (void)ftw;
    return remove(path);
}

static void usage(const char *me)
{
    fprintf(stderr,
            "usage: %s --broker PATH [--sessions N] [--subs N] [--retained N] [--queued N] "
            "[--killed] [--shards N] [--rounds N] [--limit-us X] [--dir DIR]\n",
            me);
    exit(2);
}

static void read_options(struct run *r, int argc, char **argv)
{
    static const struct option options[] = {{"broker", required_argument, NULL, 'b'},
                                            {"sessions", required_argument, NULL, 's'},
                                            {"subs", required_argument, NULL, 'u'},
                                            {"retained", required_argument, NULL, 'r'},
                                            {"queued", required_argument, NULL, 'q'},
                                            {"killed", no_argument, NULL, 'k'},
                                            {"shards", required_argument, NULL, 'n'},
                                            {"rounds", required_argument, NULL, 'o'},
                                            {"limit-us", required_argument, NULL, 'l'},
                                            {"dir", required_argument, NULL, 'd'},
                                            {NULL, 0, NULL, 0}};
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'b':
            r->broker = optarg;
            break;
        case 's':
            r->sessions = strtoull(optarg, NULL, 10);
            break;
        case 'u':
            r->subs = strtoull(optarg, NULL, 10);
            break;
        case 'r':
            r->retained = strtoull(optarg, NULL, 10);
            break;
        case 'q':
            r->queued = strtoull(optarg, NULL, 10);
            break;
        case 'k':
            r->killed = true;
            break;
        case 'n':
            r->shards = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'o':
            r->rounds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'l':
            r->limit_us = strtod(optarg, NULL);
            break;
        case 'd':
            snprintf(r->dir, sizeof(r->dir), "%s", optarg);
            r->keep = true;
            break;
        default:
            usage(argv[0]);
        }
    }
    if (r->broker == NULL || optind < argc || r->rounds == 0 || r->rounds > ROUNDS_MAX) {
        usage(argv[0]);
    }
}

int main(int argc, char **argv)
{
    struct run r = {.dir = "/tmp/noctule-bench-start-XXXXXX",
                    .sessions = 1000,
                    .subs = 1000,
                    .retained = 1000,
                    .shards = 2,
                    .rounds = 1};
    int rc;

    read_options(&r, argc, argv);
    if (r.keep) {
        MICRO_NEED(mkdir(r.dir, 0750) == 0 || errno == EEXIST);
    } else {
        MICRO_NEED(mkdtemp(r.dir) != NULL);
    }
    rc = measure(&r);
    if (!r.keep) {
        nftw(r.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
    return rc;
}
