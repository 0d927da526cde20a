/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that fail: the n-th write or sync, no space, read only; files that are damaged; two
 * processes on one store. The functions that LMDB writes with are interposed here.
 */
#include "storage/check.h"
#include "tests/support/store_model.h"
#include "tests/support/store_need.h"
#include "tests/support/tmpdir.h"
#include "tests/support/unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- interposed ---- */

static _Atomic long writes_left = -1; /* the one that finds 0 fails; below: none does */
static _Atomic long syncs_left = -1;
static _Atomic int fault_errno = EIO;

static bool fails(_Atomic long *left)
{
    if (atomic_load(left) < 0) {
        return false;
    }
    return atomic_fetch_sub(left, 1) == 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (fails(&writes_left)) {
        errno = atomic_load(&fault_errno);
        return -1;
    }
    return REAL(pwrite)(fd, p, n, at);
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
    if (fails(&writes_left)) {
        errno = atomic_load(&fault_errno);
        return -1;
    }
    return REAL(writev)(fd, iov, count);
}

int fdatasync(int fd)
{
    if (fails(&syncs_left)) {
        errno = atomic_load(&fault_errno);
        return -1;
    }
    return REAL(fdatasync)(fd);
}

/* ---- helpers ---- */

static struct store_options small(const char *dir)
{
    return (struct store_options){.dir = dir,
                                  .state_map = 1u << 28,
                                  .journal_map = 1u << 27,
                                  .fold_records = 200,
                                  .fold_slice = 31,
                                  .ballast = 65536};
}

/* The store must be refused, with a message that has this in it. */
static void refused(const char *dir, const char *words)
{
    const struct store_options o = small(dir);
    char err[512];
    struct store *s;

    CU_ASSERT_NOT_EQUAL(store_open(&o, &s, err, sizeof(err)), ST_OK);
    CU_ASSERT_PTR_NULL(s);
    if (strstr(err, words) == NULL) {
        fprintf(stderr, "'%s' has no '%s'\n", err, words);
        CU_FAIL("message");
    }
    store_close(&s);
}

struct wait {
    struct store_unit unit;
    _Atomic int rc;
};

static void wait_done(struct store_unit *u, enum store_rc rc)
{
    atomic_store(&((struct wait *)u)->rc, (int)rc);
}

static enum store_rc submit_wait(struct store *s, struct store_op *ops, uint32_t n)
{
    struct wait w = {.unit = {.done = wait_done, .ops = ops, .nops = n}, .rc = -1};

    UNIT_NEED(store_submit(s, &w.unit) == ST_OK);
    while (atomic_load(&w.rc) < 0) {
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    return (enum store_rc)atomic_load(&w.rc);
}

/* ---- the n-th failure ---- */

/* True: the failure was reached. Nothing acknowledged may be missing afterwards. */
static bool fail_once(uint64_t seed, _Atomic long *which, long n)
{
    struct tmpdir t;
    struct model *m = model_create(seed);
    struct store_options o;
    struct store *s;
    enum store_rc health;
    bool reached;

    tmpdir_make(&t);
    o = small(t.path);
    s = store_need(&o);
    atomic_store(which, n);
    model_run(m, s, 600, 25);
    health = store_health(s);
    reached = atomic_load(which) < 0;
    if (reached && health == ST_IO) {
        struct store_op op = {.kind = ST_RETAINED_PUT, .seq = 1, .name = {"t", 1}};
        CU_ASSERT_EQUAL(submit_wait(s, &op, 1), ST_IO); /* final */
        CU_ASSERT(strstr(store_trouble(s), "data.mdb") != NULL);
    } else if (!reached) {
        CU_ASSERT_EQUAL(health, ST_OK);
        CU_ASSERT_EQUAL(model_failed(m), 0);
    }
    store_close(&s);
    atomic_store(which, -1);
    s = store_need(&o);
    CU_ASSERT(model_check(m, s, model_acked(m), model_made(m)) >= 0);
    store_close(&s);
    model_destroy(m);
    tmpdir_remove(&t);
    return reached;
}

static void test_failing_writes(void)
{
    unsigned reached = 0;

    for (long n = 0; n < 40; n++) {
        reached += fail_once(10 + (uint64_t)n, &writes_left, n * n / 2);
    }
    CU_ASSERT(reached > 20);
}

static void test_failing_syncs(void)
{
    unsigned reached = 0;

    for (long n = 0; n < 30; n++) {
        reached += fail_once(60 + (uint64_t)n, &syncs_left, n * 2);
    }
    CU_ASSERT(reached > 20);
}

/* No room fails its own unit and nothing else. */
static void test_no_space_fails_its_unit(void)
{
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    struct store_op a = {.kind = ST_RETAINED_PUT, .seq = 1, .name = {"a", 1}};
    struct store_op b = {.kind = ST_RETAINED_PUT, .seq = 2, .name = {"b", 1}};
    long lines;
    char err[256];

    tmpdir_make(&t);
    o = small(t.path);
    s = store_need(&o);
    atomic_store(&fault_errno, ENOSPC);
    atomic_store(&writes_left, 0);
    CU_ASSERT_EQUAL(submit_wait(s, &a, 1), ST_NOSPACE);
    CU_ASSERT_EQUAL(store_health(s), ST_NOSPACE);
    CU_ASSERT_EQUAL(submit_wait(s, &b, 1), ST_OK);
    CU_ASSERT_EQUAL(store_health(s), ST_OK);
    store_close(&s);
    atomic_store(&fault_errno, EIO);
    lines = check_store(t.path, NULL, NULL, err, sizeof(err));
    CU_ASSERT_EQUAL(lines, 0);
    tmpdir_remove(&t);
}

/* ---- full and read-only file systems ---- */

static bool mount_small(const char *dir, const char *size)
{
    if (mount("tmpfs", dir, "tmpfs", 0, size) != 0) {
        fprintf(stderr, "skipped: a tmpfs cannot be mounted here: %s\n", strerror(errno));
        return false;
    }
    return true;
}

/* Fills the store until it refuses; the entries made. */
static uint64_t fill(struct store *s, char *payload, size_t n)
{
    uint64_t i = 0;

    while (store_health(s) == ST_OK && i < 100000) {
        struct store_op ops[2] = {
            {.kind = ST_BODY_PUT, .body = 100 + i, .name = {"t", 1}, .data = {payload, n}},
            {.kind = ST_ENTRY_PUT, .session = 1, .seq = i + 1, .body = 100 + i}};
        if (submit_wait(s, ops, 2) == ST_OK) {
            i++;
        }
    }
    return i;
}

static void test_full_disk(void)
{
    static char payload[4000];
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    struct store_op put = {.kind = ST_SESSION_PUT, .session = 1, .name = {"c", 1}};
    uint64_t made;
    uint64_t removed = 0;
    char err[256];

    tmpdir_make(&t);
    if (!mount_small(t.path, "size=16m")) {
        tmpdir_remove(&t);
        return;
    }
    o = small(t.path);
    o.ballast = 2u << 20;
    s = store_need(&o);
    CU_ASSERT_EQUAL(submit_wait(s, &put, 1), ST_OK);
    made = fill(s, payload, sizeof(payload));
    CU_ASSERT(made > 200 && made < 100000);
    CU_ASSERT_EQUAL(store_health(s), ST_NOSPACE);
    CU_ASSERT(strstr(store_trouble(s), "data.mdb") != NULL);
    for (uint64_t i = 0; i < made; i++) { /* the ballast is for this */
        struct store_op del = {.kind = ST_ENTRY_DEL, .session = 1, .seq = i + 1};
        removed += submit_wait(s, &del, 1) == ST_OK;
    }
    CU_ASSERT_EQUAL(removed, made);
    store_close(&s);
    CU_ASSERT_EQUAL(check_store(t.path, NULL, NULL, err, sizeof(err)), 0);
    s = store_need(&o); /* its own pages are free again, once the journal has been trimmed */
    for (unsigned i = 0; i < 500 && store_health(s) != ST_OK; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    CU_ASSERT_EQUAL(store_health(s), ST_OK);
    CU_ASSERT(fill(s, payload, sizeof(payload)) > 100);
    store_close(&s);
    umount2(t.path, MNT_DETACH);
    tmpdir_remove(&t);
}

/* Every page that the file system still has goes to somebody else. */
static void fill_file_system(const char *dir)
{
    static char page[4096];
    char path[600];
    int fd;

    snprintf(path, sizeof(path), "%s/somebody-else", dir);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    UNIT_NEED(fd >= 0);
    while (write(fd, page, sizeof(page)) == (ssize_t)sizeof(page)) {}
    close(fd);
}

/* A child fills the store, then the file system, and is killed. The entries acknowledged. */
static uint64_t fill_and_die(const struct store_options *o, size_t payload_n)
{
    static char payload[20000];
    struct store_op put = {.kind = ST_SESSION_PUT, .session = 1, .name = {"c", 1}};
    uint64_t made = 0;
    int fds[2];
    int status;
    pid_t pid;

    UNIT_NEED(pipe(fds) == 0);
    fflush(NULL);
    pid = fork();
    UNIT_NEED(pid >= 0);
    if (pid == 0) {
        struct store *s = store_need(o);

        if (submit_wait(s, &put, 1) == ST_OK) {
            made = fill(s, payload, payload_n);
        }
        fill_file_system(o->dir);
        UNIT_NEED(write(fds[1], &made, sizeof(made)) == (ssize_t)sizeof(made));
        raise(SIGKILL);
    }
    close(fds[1]);
    UNIT_NEED(read(fds[0], &made, sizeof(made)) == (ssize_t)sizeof(made));
    close(fds[0]);
    UNIT_NEED(waitpid(pid, &status, 0) == pid);
    return made;
}

/* Nothing is left to write to but what the store has held back: it opens, can be emptied, and takes
 * work again, as often as it is filled. */
static void full_to_the_last_page(uint64_t fold_records, size_t payload_n)
{
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    char err[256];

    tmpdir_make(&t);
    if (!mount_small(t.path, "size=24m")) {
        tmpdir_remove(&t);
        return;
    }
    o = small(t.path);
    o.ballast = 2u << 20;
    o.fold_records = fold_records;
    for (unsigned round = 0; round < 3; round++) {
        const uint64_t made = fill_and_die(&o, payload_n);
        uint64_t removed = 0;

        CU_ASSERT(made > 100 && made < 100000);
        s = store_need(&o);
        for (uint64_t i = 0; i < made; i++) {
            struct store_op del = {.kind = ST_ENTRY_DEL, .session = 1, .seq = i + 1};
            removed += submit_wait(s, &del, 1) == ST_OK;
        }
        CU_ASSERT_EQUAL(removed, made);
        for (unsigned i = 0; i < 500 && store_health(s) != ST_OK; i++) {
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        }
        CU_ASSERT_EQUAL(store_health(s), ST_OK);
        store_close(&s);
        CU_ASSERT_EQUAL(check_store(t.path, NULL, NULL, err, sizeof(err)), 0);
    }
    umount2(t.path, MNT_DETACH);
    tmpdir_remove(&t);
}

static void test_full_to_the_last_page(void)
{
    full_to_the_last_page(50, 4000);
    full_to_the_last_page(200, 2500);
    full_to_the_last_page(400, 20000);
    full_to_the_last_page(100000, 2000);
}

static void test_read_only(void)
{
    struct tmpdir t;
    struct store_options o;
    struct store *s;

    tmpdir_make(&t);
    if (!mount_small(t.path, "size=16m")) {
        tmpdir_remove(&t);
        return;
    }
    o = small(t.path);
    s = store_need(&o);
    store_close(&s);
    UNIT_NEED(mount("tmpfs", t.path, "tmpfs", MS_REMOUNT | MS_RDONLY, "size=16m") == 0);
    refused(t.path, "Read-only file system");
    umount2(t.path, MNT_DETACH);
    tmpdir_remove(&t);
}

/* ---- damage ---- */

static void path_of(char *out, size_t cap, const struct tmpdir *t, const char *env)
{
    snprintf(out, cap, "%s/%s/data.mdb", t->path, env);
}

/* A closed store with something in it. */
static void make_store(struct tmpdir *t)
{
    struct model *m = model_create(5);
    struct store_options o;
    struct store *s;

    tmpdir_make(t);
    o = small(t->path);
    s = store_need(&o);
    model_run(m, s, 2000, 50);
    store_close(&s);
    model_destroy(m);
}

static void test_damaged_files(void)
{
    static const char *const envs[] = {"journal", "state"};
    char garbage[8192];

    memset(garbage, 0x5a, sizeof(garbage));
    for (unsigned i = 0; i < 2; i++) {
        struct tmpdir t;
        char path[700];
        struct stat st;

        make_store(&t);
        path_of(path, sizeof(path), &t, envs[i]);
        UNIT_NEED(stat(path, &st) == 0);
        tmpdir_write(path, garbage, sizeof(garbage)); /* no LMDB file */
        refused(t.path, path);
        refused(t.path, "damaged");
        tmpdir_write(path, garbage, 0); /* emptied: never a silent new start */
        refused(t.path, path);
        refused(t.path, "damaged");
        tmpdir_remove(&t);

        make_store(&t);
        path_of(path, sizeof(path), &t, envs[i]);
        UNIT_NEED(truncate(path, 12288) == 0); /* cut off */
        CU_ASSERT(st.st_size > 3 * 12288);
        refused(t.path, path);
        refused(t.path, "damaged");
        tmpdir_remove(&t);
    }
}

/* Half a store is a damaged one, at every start; what a first start left half done is none. */
static void test_missing_files(void)
{
    static const char *const envs[] = {"journal", "state"};

    for (unsigned i = 0; i < 4; i++) {
        struct tmpdir t;
        char path[700];

        make_store(&t);
        path_of(path, sizeof(path), &t, envs[i % 2]);
        UNIT_NEED(i < 2 ? unlink(path) == 0 : truncate(path, 0) == 0);
        for (unsigned start = 0; start < 2; start++) {
            refused(t.path, path);
            refused(t.path, "damaged");
        }
        tmpdir_remove(&t);
    }
}

/* Every number of writes of a first start that came to the disk. */
static void test_first_start_cut_off(void)
{
    bool reached = true;

    for (long n = 0; reached; n++) {
        struct tmpdir t;
        struct store_options o;
        struct store *s;
        char err[512];

        tmpdir_make(&t);
        o = small(t.path);
        atomic_store(&writes_left, n);
        if (store_open(&o, &s, err, sizeof(err)) == ST_OK) {
            store_close(&s);
        }
        reached = atomic_load(&writes_left) < 0;
        atomic_store(&writes_left, -1);
        s = store_need(&o);
        store_close(&s);
        CU_ASSERT_EQUAL(check_store(t.path, NULL, NULL, err, sizeof(err)), 0);
        tmpdir_remove(&t);
        UNIT_NEED(n < 1000);
    }
}

/* Some pages short: a crash may leave that, an orderly stop does not. */
static void test_a_little_short(void)
{
    static const char *const envs[] = {"journal", "state"};

    for (unsigned i = 0; i < 2; i++) {
        struct tmpdir t;
        char path[700];
        struct stat st;
        struct stat after;

        make_store(&t);
        path_of(path, sizeof(path), &t, envs[i]);
        UNIT_NEED(stat(path, &st) == 0);
        UNIT_NEED(truncate(path, st.st_size - 20 * 4096) == 0);
        for (unsigned start = 0; start < 2; start++) {
            refused(t.path, path);
            UNIT_NEED(stat(path, &after) == 0);
            CU_ASSERT_EQUAL(after.st_size, st.st_size - 20 * 4096);
        }
        tmpdir_remove(&t);
    }
}

/* To the end, and closes it. */
static void read_all(int fd, char *text, size_t cap)
{
    size_t have = 0;
    ssize_t n;

    while (have + 1 < cap && (n = read(fd, text + have, cap - 1 - have)) > 0) {
        have += (size_t)n;
    }
    text[have] = '\0';
    close(fd);
}

/* A child opens the store; its status, and that it named the file where it ended by itself. */
static int status_of_open(const char *dir, const char *path)
{
    int fds[2];
    int status;
    char text[1024];
    pid_t pid;

    UNIT_NEED(pipe(fds) == 0);
    fflush(NULL);
    pid = fork();
    UNIT_NEED(pid >= 0);
    if (pid == 0) {
        const struct store_options o = small(dir);
        struct store *s;
        char err[512];

        dup2(fds[1], STDERR_FILENO);
        if (store_open(&o, &s, err, sizeof(err)) != ST_OK) {
            fprintf(stderr, "%s\n", err);
            _exit(1);
        }
        _exit(0);
    }
    close(fds[1]);
    read_all(fds[0], text, sizeof(text));
    UNIT_NEED(waitpid(pid, &status, 0) == pid);
    CU_ASSERT(strstr(text, path) != NULL && strstr(text, "damaged") != NULL);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Behind whole meta pages, pages that lead nowhere, in several ways. */
static void test_garbage_pages(void)
{
    static const char *const envs[] = {"journal", "state"};
    static const int fill[] = {0x00, 0x01, 0x03, 0x5a, 0xa5, 0xff};

    for (unsigned i = 0; i < 2 * sizeof(fill) / sizeof(fill[0]); i++) {
        struct tmpdir t;
        char path[700];
        unsigned char *p;
        size_t n;

        make_store(&t);
        path_of(path, sizeof(path), &t, envs[i % 2]);
        p = tmpdir_read(path, &n);
        UNIT_NEED(p != NULL && n > 8192);
        memset(p + 8192, fill[i / 2], n - 8192);
        tmpdir_write(path, p, n);
        free(p);
        CU_ASSERT_EQUAL(status_of_open(t.path, path), 1);
        tmpdir_remove(&t);
    }
}

/* The file shrinks under the running store: the reader's page is a SIGBUS. */
static void test_unreadable_page(void)
{
    struct tmpdir t;
    char path[700];
    int fds[2];
    int status;
    char text[1024];
    pid_t pid;

    make_store(&t);
    path_of(path, sizeof(path), &t, "state");
    UNIT_NEED(pipe(fds) == 0);
    fflush(NULL);
    pid = fork();
    UNIT_NEED(pid >= 0);
    if (pid == 0) {
        const struct store_options o = small(t.path);
        struct store *s = store_need(&o);
        const struct store_load all = {.arg = NULL};

        dup2(fds[1], STDERR_FILENO);
        _exit(truncate(path, 8192) == 0 && store_load(s, &all) == ST_OK ? 0 : 2);
    }
    close(fds[1]);
    read_all(fds[0], text, sizeof(text));
    UNIT_NEED(waitpid(pid, &status, 0) == pid);
    CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 74);
    CU_ASSERT(strstr(text, path) != NULL && strstr(text, "damaged") != NULL);
    tmpdir_remove(&t);
}

static void test_files_of_two_stores(void)
{
    struct tmpdir a;
    struct tmpdir b;
    char from[700];
    char to[700];

    make_store(&a);
    make_store(&b);
    path_of(from, sizeof(from), &a, "journal");
    path_of(to, sizeof(to), &b, "journal");
    UNIT_NEED(rename(from, to) == 0);
    refused(b.path, "do not belong together");
    tmpdir_remove(&a);
    tmpdir_remove(&b);
}

static void count_line(void *arg, const char *line)
{
    (void)line;
    ++*(unsigned *)arg;
}

/* Takes the first record out of one table, behind the store's back. */
static void take_first(const struct tmpdir *t, const char *table)
{
    char dir[700];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_cursor *cur;
    MDB_val k;
    MDB_val v;

    snprintf(dir, sizeof(dir), "%s/state", t->path);
    UNIT_NEED(mdb_env_create(&env) == 0 && mdb_env_set_maxdbs(env, 16) == 0);
    UNIT_NEED(mdb_env_open(env, dir, 0, 0640) == 0 && mdb_txn_begin(env, NULL, 0, &txn) == 0);
    UNIT_NEED(mdb_dbi_open(txn, table, 0, &dbi) == 0 && mdb_cursor_open(txn, dbi, &cur) == 0);
    UNIT_NEED(mdb_cursor_get(cur, &k, &v, MDB_FIRST) == 0 && mdb_cursor_del(cur, 0) == 0);
    mdb_cursor_close(cur);
    UNIT_NEED(mdb_txn_commit(txn) == 0);
    mdb_env_close(env);
}

static void test_checker_finds(void)
{
    static const char *const tables[] = {"sessions", "bodies", "queue"};
    char err[256];

    for (unsigned i = 0; i < 3; i++) {
        struct tmpdir t;
        unsigned lines = 0;
        long n;

        make_store(&t);
        CU_ASSERT_EQUAL(check_store(t.path, count_line, &lines, err, sizeof(err)), 0);
        CU_ASSERT_EQUAL(check_dump(t.path, count_line, &lines, err, sizeof(err)), 0);
        CU_ASSERT(lines > 30);
        lines = 0;
        take_first(&t, tables[i]);
        n = check_store(t.path, count_line, &lines, err, sizeof(err));
        CU_ASSERT(n > 0 && lines == (unsigned)n);
        tmpdir_remove(&t);
    }
}

/* A store whose journal has groups that are not folded: its process was killed. */
static void make_killed(struct tmpdir *t)
{
    struct store_options o;
    pid_t pid;
    int status;

    tmpdir_make(t);
    o = small(t->path);
    o.fold_records = 1000000;
    fflush(NULL);
    pid = fork();
    UNIT_NEED(pid >= 0);
    if (pid == 0) {
        struct store *s = store_need(&o);
        struct store_op op = {
            .kind = ST_RETAINED_PUT, .seq = 1, .name = {"findme/topic", 12}, .data = {"x", 1}};
        for (int i = 0; i < 5; i++) {
            submit_wait(s, &op, 1);
        }
        raise(SIGKILL);
    }
    waitpid(pid, &status, 0);
    UNIT_NEED(WIFSIGNALED(status));
}

static void test_damaged_group(void)
{
    struct tmpdir t;
    char path[700];
    unsigned char *p;
    size_t n;
    unsigned hits = 0;

    make_killed(&t);
    path_of(path, sizeof(path), &t, "journal");
    p = tmpdir_read(path, &n);
    UNIT_NEED(p != NULL);
    for (size_t i = 0; i + 12 < n; i++) {
        if (memcmp(p + i, "findme", 6) == 0) {
            p[i] ^= 1;
            hits++;
        }
    }
    CU_ASSERT(hits >= 5);
    tmpdir_write(path, p, n);
    free(p);
    refused(t.path, "checksum");
    refused(t.path, path);
    tmpdir_remove(&t);
}

/* The lock goes with the process that held it. */
static void test_two_processes(void)
{
    struct tmpdir t;
    struct store_options o;
    struct store *s;
    int status;
    pid_t pid;
    char err[256];

    make_killed(&t);
    o = small(t.path);
    s = store_need(&o);
    fflush(NULL);
    pid = fork();
    UNIT_NEED(pid >= 0);
    if (pid == 0) {
        struct store *other;
        const bool ok = store_open(&o, &other, err, sizeof(err)) != ST_OK &&
                        strstr(err, "in use by another process") != NULL &&
                        check_store(t.path, NULL, NULL, err, sizeof(err)) == -1;
        _exit(ok ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    store_close(&s);
    tmpdir_remove(&t);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(failing_writes)
    UNIT_TEST(failing_syncs)
    UNIT_TEST(no_space_fails_its_unit)
    UNIT_TEST(full_disk)
    UNIT_TEST(full_to_the_last_page)
    UNIT_TEST(read_only)
    UNIT_TEST(damaged_files)
    UNIT_TEST(missing_files)
    UNIT_TEST(first_start_cut_off)
    UNIT_TEST(a_little_short)
    UNIT_TEST(garbage_pages)
    UNIT_TEST(unreadable_page)
    UNIT_TEST(files_of_two_stores)
    UNIT_TEST(checker_finds)
    UNIT_TEST(damaged_group)
    UNIT_TEST(two_processes)
UNIT_TESTS_END
