/* SPDX-License-Identifier: Apache-2.0 */
/*
 * powerfail.c - what a power cut at any moment leaves, under the real journal, fold and replay
 * code.
 *
 *     sim_powerfail [--seed N] [--images N] [--units N] [--between] [--nosync]
 *
 * The functions with which LMDB writes are interposed: every write to the two data files and every
 * completed sync goes into a trace, and so does every acknowledgement. Then, at random moments of
 * the trace, images are built: what was synced is there; of the rest all, nothing, single writes,
 * pages, 512-byte sectors, or only the last write, so writes are dropped, torn and reordered. Each
 * image is opened, has to hold a prefix of the units that reaches to the last one acknowledged
 * before that moment, passes the checker, and is used again and compared once more.
 *
 * --between makes no dice: an image behind every single commit of either file (so between any two
 * groups of the journal, and between any two slices of a fold), and one before it, when all of it
 * but the page that makes it valid had been written.
 *
 * --nosync is the control: LMDB is told not to sync, and the same images must be found bad.
 *
 * Exit status: 0: as it should be; 1: an image was bad (with --nosync: none was).
 */
#include "storage/check.h"
#include "storage/store.h"
#include "tests/support/store_model.h"
#include "tests/support/tmpdir.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FILES 2

enum what { WRITE, SYNC, ACK };

struct event {
    enum what what;
    int file;
    uint64_t at; /* WRITE: offset. ACK: index of the unit */
    size_t n;    /* WRITE: bytes. SYNC: events before it began */
    bool direct; /* WRITE: through a descriptor with O_DSYNC: durable by itself */
    unsigned char *data;
};

static struct trace {
    pthread_mutex_t lock;
    _Atomic bool on; /* written while the store is idle, read without the lock */
    bool nosync;
    dev_t dev;
    ino_t ino[FILES];
    struct event *v;
    size_t n, cap;
} trace = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const char *const names[FILES] = {"journal", "state"};

static void need(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        abort();
    }
}

/* ---- interposed ---- */

static int file_of(int fd)
{
    struct stat st;

    if (!trace.on || fstat(fd, &st) != 0) {
        return -1;
    }
    for (int i = 0; i < FILES; i++) {
        if (st.st_dev == trace.dev && st.st_ino == trace.ino[i]) {
            return i;
        }
    }
    return -1;
}

static void append(struct event e)
{
    if (trace.n == trace.cap) {
        trace.cap = trace.cap == 0 ? 4096 : trace.cap * 2;
        trace.v = realloc(trace.v, trace.cap * sizeof(*trace.v));
        need(trace.v != NULL, "trace");
    }
    trace.v[trace.n++] = e;
}

static void note_write(int fd, int file, const void *p, size_t n, off_t at)
{
    struct event e = {.what = WRITE, .file = file, .at = (uint64_t)at, .n = n};

    e.direct = (fcntl(fd, F_GETFL) & O_DSYNC) != 0 && !trace.nosync;
    e.data = malloc(n);
    need(e.data != NULL, "trace");
    memcpy(e.data, p, n);
    append(e);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    const __typeof__(&pwrite) real = REAL(pwrite);
    int file;
    ssize_t rc;

    pthread_mutex_lock(&trace.lock);
    file = file_of(fd);
    rc = real(fd, p, n, at);
    if (file >= 0 && rc > 0) {
        note_write(fd, file, p, (size_t)rc, at);
    }
    pthread_mutex_unlock(&trace.lock);
    return rc;
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
    const __typeof__(&writev) real = REAL(writev);
    off_t at;
    int file;
    ssize_t rc;

    pthread_mutex_lock(&trace.lock);
    file = file_of(fd);
    at = file >= 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    rc = real(fd, iov, count);
    for (int i = 0; file >= 0 && i < count && rc > 0; i++) {
        note_write(fd, file, iov[i].iov_base, iov[i].iov_len, at);
        at += (off_t)iov[i].iov_len;
    }
    pthread_mutex_unlock(&trace.lock);
    return rc;
}

ssize_t write(int fd, const void *p, size_t n)
{
    const __typeof__(&write) real = REAL(write);
    int file;
    off_t at;
    ssize_t rc;

    if (!trace.on) {
        return real(fd, p, n);
    }
    pthread_mutex_lock(&trace.lock);
    file = file_of(fd);
    at = file >= 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    rc = real(fd, p, n);
    if (file >= 0 && rc > 0) {
        note_write(fd, file, p, (size_t)rc, at);
    }
    pthread_mutex_unlock(&trace.lock);
    return rc;
}

/* The writes that had been made when it began are durable when it has ended. */
static int traced_sync(int fd, int (*real)(int))
{
    size_t begun;
    int file;
    int rc;

    pthread_mutex_lock(&trace.lock);
    file = file_of(fd);
    begun = trace.n;
    pthread_mutex_unlock(&trace.lock);
    rc = real(fd);
    if (file >= 0 && rc == 0) {
        pthread_mutex_lock(&trace.lock);
        append((struct event){.what = SYNC, .file = file, .n = begun});
        pthread_mutex_unlock(&trace.lock);
    }
    return rc;
}

int fdatasync(int fd)
{
    const __typeof__(&fdatasync) real = REAL(fdatasync);

    return traced_sync(fd, real);
}

int fsync(int fd)
{
    const __typeof__(&fsync) real = REAL(fsync);

    return traced_sync(fd, real);
}

/* The engine maps nothing writable; a file that is cut or synced by msync would escape the trace.
 */
int msync(void *p, size_t n, int flags)
{
    (void)p;
    (void)n;
    (void)flags;
    need(!trace.on, "msync");
    return 0;
}

int ftruncate(int fd, off_t n)
{
    const __typeof__(&ftruncate) real = REAL(ftruncate);

    need(file_of(fd) < 0, "ftruncate of a data file");
    return real(fd, n);
}

int __real_mdb_env_open(MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode);
int __wrap_mdb_env_open(MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode);

int __wrap_mdb_env_open(MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode)
{
    return __real_mdb_env_open(env, path, flags | (trace.nosync ? MDB_NOSYNC : 0u), mode);
}

/* ---- the run that is traced ---- */

static uint32_t fold_records = 400;
static uint32_t fold_slice = 23;

static struct store_options options(const char *dir)
{
    return (struct store_options){.dir = dir,
                                  .state_map = 1u << 28,
                                  .journal_map = 1u << 28,
                                  .fold_records = fold_records,
                                  .fold_bytes = 1u << 20,
                                  .fold_slice = fold_slice,
                                  .ballast = 65536};
}

static void on_ack(void *arg, uint32_t index)
{
    (void)arg;
    pthread_mutex_lock(&trace.lock);
    append((struct event){.what = ACK, .at = index});
    pthread_mutex_unlock(&trace.lock);
}

struct base {
    unsigned char *p;
    size_t n;
};

static void path_of(char *out, size_t cap, const char *dir, int file)
{
    snprintf(out, cap, "%s/%s/data.mdb", dir, names[file]);
}

/* The files as they are before the trace begins; both environments are idle and synced. */
static void start_trace(const char *dir, struct base base[FILES])
{
    for (int i = 0; i < FILES; i++) {
        char path[700];
        struct stat st;

        path_of(path, sizeof(path), dir, i);
        need(stat(path, &st) == 0, path);
        trace.dev = st.st_dev;
        trace.ino[i] = st.st_ino;
        base[i].p = tmpdir_read(path, &base[i].n);
        need(base[i].p != NULL, path);
    }
    pthread_mutex_lock(&trace.lock);
    trace.on = true;
    pthread_mutex_unlock(&trace.lock);
}

static void run_traced(const char *dir, struct model *m, struct base base[FILES], uint32_t units)
{
    const struct store_options o = options(dir);
    struct store *s;
    char err[512];

    if (store_open(&o, &s, err, sizeof(err)) != ST_OK) {
        fprintf(stderr, "%s\n", err);
        abort();
    }
    start_trace(dir, base);
    model_on_ack(m, on_ack, NULL);
    for (uint32_t done = 0; done < units; done += 100) {
        model_run(m, s, 100, 1u << (done / 100 % 7));
    }
    store_close(&s);
    pthread_mutex_lock(&trace.lock);
    trace.on = false;
    pthread_mutex_unlock(&trace.lock);
    model_on_ack(m, NULL, NULL);
}

/* ---- images ---- */

enum policy { NONE, ALL, PER_WRITE, PER_PAGE, PER_SECTOR, LAST, POLICIES };
static const char *const policy_names[POLICIES] = {"nothing", "all",     "writes",
                                                   "pages",   "sectors", "the last"};

static uint64_t rng;
static unsigned long tried; /* images */

static uint64_t roll(uint64_t below)
{
    uint64_t z = (rng += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

struct image {
    unsigned char *p;
    size_t n, cap;
};

static void put(struct image *im, const unsigned char *data, uint64_t at, size_t n)
{
    if (at + n > im->cap) {
        const size_t cap = (at + n) * 2;
        im->p = realloc(im->p, cap);
        need(im->p != NULL, "image");
        memset(im->p + im->cap, 0, cap - im->cap);
        im->cap = cap;
    }
    memcpy(im->p + at, data, n);
    im->n = at + n > im->n ? at + n : im->n;
}

static void put_torn(struct image *im, const struct event *e, size_t unit)
{
    for (size_t at = 0; at < e->n; at += unit) {
        if (roll(2) == 0) {
            put(im, e->data + at, e->at + at, e->n - at < unit ? e->n - at : unit);
        }
    }
}

/* Events before which all writes to the file are durable, as of moment t. */
static size_t synced_to(int file, size_t t)
{
    size_t to = 0;

    for (size_t i = 0; i < t; i++) {
        const struct event *e = &trace.v[i];
        if (e->what == SYNC && e->file == file && e->n > to) {
            to = e->n;
        }
    }
    return to;
}

static void build(struct image *im, const struct base *base, int file, size_t t, enum policy p)
{
    const size_t durable = synced_to(file, t);
    size_t last = SIZE_MAX;

    *im = (struct image){0};
    put(im, base->p, 0, base->n);
    for (size_t i = 0; i < t; i++) {
        if (trace.v[i].what == WRITE && trace.v[i].file == file) {
            last = i;
        }
    }
    for (size_t i = 0; i < t; i++) {
        const struct event *e = &trace.v[i];
        if (e->what != WRITE || e->file != file) {
            continue;
        }
        if (i < durable || e->direct || p == ALL || (p == PER_WRITE && roll(2) == 0) ||
            (p == LAST && i == last)) {
            put(im, e->data, e->at, e->n);
        } else if (p == PER_PAGE || p == PER_SECTOR) {
            put_torn(im, e, p == PER_PAGE ? 4096 : 512);
        }
    }
}

static uint32_t acked_at(size_t t)
{
    uint32_t n = 0;

    for (size_t i = 0; i < t; i++) {
        n = trace.v[i].what == ACK ? (uint32_t)trace.v[i].at : n;
    }
    return n;
}

static void say(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "check: %s\n", line);
}

/* 0: good. In a process of its own: a damaged file may end it. */
static int verify(const char *dir, struct model *m, uint32_t acked)
{
    const struct store_options o = options(dir);
    struct store *s;
    char err[512];
    int64_t k;

    alarm(60);
    if (store_open(&o, &s, err, sizeof(err)) != ST_OK) {
        fprintf(stderr, "open: %s\n", err);
        return 1;
    }
    k = model_check(m, s, acked, model_made(m));
    if (k < 0) {
        return 2;
    }
    model_cut(m, (uint32_t)k);
    model_run(m, s, 120, 30);
    if (model_failed(m) > 0 || !model_check_queues(m, s)) {
        return 3;
    }
    store_close(&s);
    if (check_store(dir, say, NULL, err, sizeof(err)) != 0) {
        fprintf(stderr, "check: %s\n", err);
        return 4;
    }
    if (store_open(&o, &s, err, sizeof(err)) != ST_OK ||
        model_check(m, s, model_made(m), model_made(m)) != model_made(m)) {
        return 5;
    }
    store_close(&s);
    return 0;
}

static bool try_image(const struct base base[FILES], struct model *m, size_t t, enum policy p)
{
    struct tmpdir dir;
    char path[700];
    int status = 0;
    pid_t pid;

    tried++;
    tmpdir_make(&dir);
    for (int i = 0; i < FILES; i++) {
        struct image im;
        snprintf(path, sizeof(path), "%s/%s", dir.path, names[i]);
        need(mkdir(path, 0750) == 0, path);
        path_of(path, sizeof(path), dir.path, i);
        build(&im, &base[i], i, t, p);
        tmpdir_write(path, im.p, im.n);
        free(im.p);
    }
    fflush(NULL);
    pid = fork();
    need(pid >= 0, "fork");
    if (pid == 0) {
        _exit(verify(dir.path, m, acked_at(t)));
    }
    need(waitpid(pid, &status, 0) == pid, "waitpid");
    tmpdir_remove(&dir);
    if (status != 0) {
        fprintf(stderr, "image at event %zu of %zu, of unsynced writes %s: %s %d\n", t, trace.n,
                policy_names[p], WIFSIGNALED(status) ? "signal" : "step",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    return status == 0;
}

struct plan {
    uint64_t seed;
    unsigned long images;
    uint32_t units;
    bool between, nosync;
};

/* At random moments. Returns how many were bad. */
static unsigned long try_random(const struct base base[FILES], struct model *m,
                                unsigned long images)
{
    unsigned long bad = 0;

    for (unsigned long i = 0; i < images; i++) {
        bad += !try_image(base, m, roll(trace.n + 1), (enum policy)(i % POLICIES));
    }
    return bad;
}

/* A commit is the write of a meta page, which is durable by itself. */
static unsigned long try_between(const struct base base[FILES], struct model *m)
{
    unsigned long commits[FILES] = {0};
    unsigned long bad = 0;

    for (size_t i = 0; i < trace.n; i++) {
        if (trace.v[i].what == WRITE && trace.v[i].direct) {
            commits[trace.v[i].file]++;
            bad += !try_image(base, m, i, ALL);
            bad += !try_image(base, m, i + 1, NONE);
        }
    }
    printf("between: %lu commits of the journal, %lu of the state\n", commits[0], commits[1]);
    need(commits[0] > 0 && commits[1] > 0, "no commit was seen");
    return bad;
}

static struct plan read_plan(int argc, char **argv)
{
    struct plan p = {.seed = (uint64_t)time(NULL), .images = 150};

    for (int i = 1; i < argc; i++) {
        const bool more = i + 1 < argc;
        if (strcmp(argv[i], "--nosync") == 0) {
            p.nosync = true;
        } else if (strcmp(argv[i], "--between") == 0) {
            p.between = true;
        } else if (strcmp(argv[i], "--seed") == 0 && more) {
            p.seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--images") == 0 && more) {
            p.images = strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--units") == 0 && more) {
            p.units = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else {
            fprintf(stderr,
                    "usage: %s [--seed N] [--images N] [--units N] [--between] [--nosync]\n",
                    argv[0]);
            exit(2);
        }
    }
    if (p.units == 0) {
        p.units = p.images < 400 ? 2000 : 6000;
    }
    return p;
}

static void count_events(unsigned long counts[3])
{
    for (size_t i = 0; i < trace.n; i++) {
        counts[trace.v[i].what]++;
    }
}

static void free_trace(struct base base[FILES])
{
    for (size_t i = 0; i < trace.n; i++) {
        free(trace.v[i].data);
    }
    free(trace.v);
    for (int i = 0; i < FILES; i++) {
        free(base[i].p);
    }
}

int main(int argc, char **argv)
{
    const struct plan p = read_plan(argc, argv);
    struct model *m = model_create(p.seed);
    unsigned long counts[3] = {0};
    struct base base[FILES];
    struct tmpdir dir;
    unsigned long bad;

    rng = p.seed;
    trace.nosync = p.nosync;
    if (p.between) { /* many folds of many slices */
        fold_records = 150;
        fold_slice = 5;
    }
    if (getenv("TMPDIR") == NULL && access("/dev/shm", R_OK | W_OK | X_OK) == 0) {
        setenv("TMPDIR", "/dev/shm", 1); /* what is recorded is the same, and syncs take no time */
    }
    tmpdir_make(&dir);
    run_traced(dir.path, m, base, p.units);
    tmpdir_remove(&dir);
    count_events(counts);
    trace.nosync = false; /* the writer may have been told so; whoever opens the images is sound */
    bad = p.between ? try_between(base, m) : try_random(base, m, p.images);
    printf("seed %llu: %lu writes, %lu syncs, %lu acknowledged; %lu images, %lu bad\n",
           (unsigned long long)p.seed, counts[WRITE], counts[SYNC], counts[ACK], tried, bad);
    free_trace(base);
    model_destroy(m);
    return (bad > 0) == p.nosync ? 0 : 1;
}
