/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/env.h"

#include "storage/guard.h"
#include "storage/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define MIN_MAP     (1u << 20)
#define MAX_TABLES  16
#define SLACK_PAGES 64                   /* LMDB need not write the last pages it counts */
#define STOP_PAGES  8                    /* more than the mark of an orderly stop takes */
#define STEPS       16                   /* in which the ballast is reserved */
#define BALLAST_MAX (UINT64_C(64) << 20) /* where none is asked for: this, or */
#define BALLAST_OF  50                   /* of the file system one part in so many, */
#define BALLAST_MIN (UINT64_C(4) << 20)  /* and this at least */
#define KEEP_PAGES  64 /* what an environment needs to get at pages of its own that are free */

enum store_rc env_rc(int rc)
{
    switch (rc) {
    case 0:
        return ST_OK;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case ENOSPC:
    case EDQUOT:
        return ST_NOSPACE;
    case ENOMEM:
        return ST_NOMEM;
    default:
        return ST_IO;
    }
}

static bool sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    const int why = errno;

    if (fd >= 0) {
        close(fd);
    }
    errno = why;
    return ok;
}

/* A directory that a power cut may take away again is no place for what was acknowledged. */
static bool make_dir(const char *dir, char *err, size_t cap)
{
    char *copy;
    bool ok;

    if (mkdir(dir, 0750) != 0) {
        if (errno == EEXIST) {
            return true;
        }
        snprintf(err, cap, "%s: %s", dir, strerror(errno));
        return false;
    }
    copy = strdup(dir);
    ok = copy != NULL && sync_dir(dirname(copy));
    if (!ok) {
        snprintf(err, cap, "%s: cannot be synced: %s", dir, strerror(errno));
    }
    free(copy);
    return ok;
}

/*
 * LMDB found pages that contradict each other, in the middle of a transaction that cannot be left:
 * there is no way on from here. At once, since nothing may be acknowledged any more.
 */
static void damaged(MDB_env *mdb, const char *what)
{
    const struct env *e = mdb_env_get_userctx(mdb);

    fprintf(stderr, "%s: damaged: %s\n", e->file, what);
    _exit(e->serving ? EXIT_DAMAGED : EXIT_DAMAGED_AT_START);
}

static int try_open(struct env *e, const char *dir, uint64_t map)
{
    int rc = mdb_env_create(&e->mdb);

    if (rc != 0) {
        e->mdb = NULL;
        return rc;
    }
    mdb_env_set_userctx(e->mdb, e);
    mdb_env_set_assert(e->mdb, damaged);
    rc = mdb_env_set_mapsize(e->mdb, map);
    if (rc == 0) {
        rc = mdb_env_set_maxdbs(e->mdb, MAX_TABLES);
    }
    if (rc == 0) {
        rc = mdb_env_open(e->mdb, dir, MDB_NOTLS, 0640);
    }
    if (rc != 0) {
        mdb_env_close(e->mdb);
        e->mdb = NULL;
    }
    return rc;
}

static const char *why(int rc)
{
    switch (rc) {
    case MDB_INVALID:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
        return "damaged: not a valid LMDB file";
    case MDB_VERSION_MISMATCH:
        return "written by another version of LMDB, or damaged";
    default:
        return mdb_strerror(rc);
    }
}

static uint64_t end_of_pages(struct env *e)
{
    MDB_envinfo info;
    MDB_stat st;

    mdb_env_info(e->mdb, &info);
    mdb_env_stat(e->mdb, &st);
    return ((uint64_t)info.me_last_pgno + 1) * st.ms_psize;
}

static void cut_off(const struct env *e, uint64_t end, char *err, size_t cap)
{
    snprintf(err, cap, "%s: damaged: %llu bytes long instead of %llu", e->file,
             (unsigned long long)e->short_size, (unsigned long long)end);
}

/* A page beyond the end of the file is a SIGBUS when it is read. */
static bool check_length(struct env *e, char *err, size_t cap)
{
    const uint64_t end = end_of_pages(e);
    struct stat st;
    int fd;

    mdb_env_get_fd(e->mdb, &fd);
    if (fstat(fd, &st) != 0) {
        snprintf(err, cap, "%s: %s", e->file, strerror(errno));
        return false;
    }
    if ((uint64_t)st.st_size >= end) {
        return true;
    }
    e->short_size = (uint64_t)st.st_size;
    if ((uint64_t)st.st_size + SLACK_PAGES * 4096u < end || ftruncate(fd, (off_t)end) != 0) {
        cut_off(e, end, err, cap);
        return false;
    }
    e->padded = true;
    return true;
}

bool env_is_whole(struct env *e, char *err, size_t cap)
{
    if (e->padded) {
        cut_off(e, end_of_pages(e), err, cap);
    }
    return !e->padded;
}

void env_unpad(struct env *e)
{
    int fd;

    if (e->padded) {
        mdb_env_get_fd(e->mdb, &fd);
        e->padded = ftruncate(fd, (off_t)e->short_size) != 0;
    }
}

bool env_make_whole(struct env *e)
{
    const uint64_t size = end_of_pages(e) + STOP_PAGES * 4096u;
    struct stat st;
    int fd;

    mdb_env_get_fd(e->mdb, &fd);
    if (fstat(fd, &st) != 0) {
        return false;
    }
    return (uint64_t)st.st_size >= size ||
           (pwrite(fd, "", 1, (off_t)size - 1) == 1 && fdatasync(fd) == 0);
}

static bool is_fresh(struct env *e)
{
    MDB_envinfo info;

    mdb_env_info(e->mdb, &info);
    return info.me_last_txnid == 0;
}

static uint64_t usual_ballast(const char *dir)
{
    struct statvfs v;
    uint64_t part = BALLAST_MAX;

    if (statvfs(dir, &v) == 0) {
        part = (uint64_t)v.f_blocks * v.f_frsize / BALLAST_OF;
    }
    part = part < BALLAST_MIN ? BALLAST_MIN : part;
    return part > BALLAST_MAX ? BALLAST_MAX : part;
}

enum store_rc env_open(struct env *e, const char *dir, uint64_t map, uint64_t ballast, bool *fresh,
                       char *err, size_t cap)
{
    int dead;
    int rc;

    *e = (struct env){.ballast = ballast, .room = PTHREAD_MUTEX_INITIALIZER};
    if (asprintf(&e->file, "%s/data.mdb", dir) < 0) {
        e->file = NULL;
        snprintf(err, cap, "out of memory");
        return ST_NOMEM;
    }
    if (asprintf(&e->full, "%s: no space left", e->file) < 0) {
        e->full = NULL;
        snprintf(err, cap, "out of memory");
        return ST_NOMEM;
    }
    if (!make_dir(dir, err, cap)) {
        return ST_IO;
    }
    if (e->ballast == 0) {
        e->ballast = usual_ballast(dir);
    }
    rc = pages_check(e->file, NULL, err, cap);
    if (rc != 0) {
        return env_rc(rc);
    }
    rc = try_open(e, dir, map);
    while (rc == ENOMEM && map / 2 >= MIN_MAP) {
        map /= 2;
        rc = try_open(e, dir, map);
    }
    if (rc != 0) {
        snprintf(err, cap, "%s: %s", e->file, why(rc));
        return rc == ENOMEM ? ST_NOMEM : ST_IO;
    }
    if (!sync_dir(dir)) {
        snprintf(err, cap, "%s: cannot be synced: %s", dir, strerror(errno));
        return ST_IO;
    }
    mdb_reader_check(e->mdb, &dead);
    *fresh = is_fresh(e);
    return check_length(e, err, cap) ? ST_OK : ST_IO;
}

void env_close(struct env *e)
{
    if (e->mdb != NULL) {
        mdb_env_close(e->mdb);
        e->mdb = NULL;
    }
    free(e->file);
    e->file = NULL;
    free(e->full);
    e->full = NULL;
}

/* ---- ballast ---- */

static uint64_t free_bytes(struct env *e)
{
    MDB_txn *txn;
    MDB_cursor *cur;
    MDB_val key;
    MDB_val val;
    uint64_t pages = 0;

    if (mdb_txn_begin(e->mdb, NULL, MDB_RDONLY, &txn) != 0) {
        return 0;
    }
    if (mdb_cursor_open(txn, 0, &cur) == 0) { /* table 0: lists of free pages, their number first */
        while (mdb_cursor_get(cur, &key, &val, MDB_NEXT) == 0) {
            size_t n;
            memcpy(&n, val.mv_data, sizeof(n));
            pages += n;
        }
        mdb_cursor_close(cur);
    }
    mdb_txn_abort(txn);
    return pages * 4096;
}

/* Bytes that the file has allocated past its last page. */
static uint64_t reserve(int fd, uint64_t end)
{
    struct stat st;

    if (fstat(fd, &st) != 0 || (uint64_t)st.st_blocks * 512 < end) {
        return 0;
    }
    return (uint64_t)st.st_blocks * 512 - end;
}

static uint64_t disk_has(int fd)
{
    struct statvfs v;

    return fstatvfs(fd, &v) != 0 ? UINT64_MAX / 2 : (uint64_t)v.f_bavail * v.f_frsize;
}

static int64_t mono_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * Allocates [from, to) as far as that goes; 0 or errno. In steps, from the front, always the same
 * ones: some file systems (tmpfs) give up all of what a failing call covers, whoever allocated it.
 */
static int allocate(int fd, uint64_t from, uint64_t to, uint64_t step)
{
    for (uint64_t at = from; at < to;) {
        const uint64_t next = (at / step + 1) * step;
        if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)(next - at)) != 0) {
            return errno;
        }
        at = next;
    }
    return 0;
}

static uint64_t step_of(const struct env *e)
{
    return (e->ballast / STEPS + 4096) & ~(uint64_t)4095;
}

/* Under the lock. */
static void top_up(struct env *e, uint64_t end, uint64_t need)
{
    bool low;
    int fd;
    int err;

    mdb_env_get_fd(e->mdb, &fd);
    err = allocate(fd, e->reserved_to > end ? e->reserved_to : end, end + e->ballast + need,
                   step_of(e));
    if (err == 0) {
        low = false;
    } else if (err == ENOSPC || err == EDQUOT || err == EFBIG) {
        /* What is left of the ballast, and after draining pages of its own that are free again. */
        low = free_bytes(e) + reserve(fd, end) < e->ballast / 4 * 3 + need;
    } else {
        low = disk_has(fd) < e->ballast + need; /* this file system cannot reserve */
    }
    e->has = disk_has(fd) + reserve(fd, end) + (low ? free_bytes(e) : 0);
    e->needs = e->ballast + need;
    /* Free pages of its own may go any time: then it looks again after every commit. */
    e->reserved_to = err == 0 ? end + e->ballast + need : 0;
    e->retry_ms = mono_ms() + 500;
    atomic_store_explicit(&e->low, low, memory_order_relaxed);
}

void env_top_up(struct env *e, uint64_t need)
{
    const uint64_t end = end_of_pages(e);

    pthread_mutex_lock(&e->room);
    if (env_is_low(e) ? mono_ms() >= e->retry_ms
                      : e->reserved_to < end + e->ballast / 4 * 3 + need) {
        top_up(e, end, need);
    }
    pthread_mutex_unlock(&e->room);
}

void env_give_back(struct env *e)
{
    const uint64_t end = end_of_pages(e);
    struct stat st;
    int fd;

    mdb_env_get_fd(e->mdb, &fd);
    pthread_mutex_lock(&e->room);
    /* A file that gets the length it has loses what it was allocated beyond. */
    if (fstat(fd, &st) == 0 && ftruncate(fd, st.st_size) == 0) {
        (void)allocate(fd, end, end + KEEP_PAGES * 4096u, 4096);
    }
    e->reserved_to = 0;
    pthread_mutex_unlock(&e->room);
}

/* A write that a full disk cut short sets no errno; one that failed does. */
int env_commit(MDB_txn *txn)
{
    int rc;

    errno = 0;
    rc = mdb_txn_commit(txn);
    return rc == EIO && errno == 0 ? ENOSPC : rc;
}

void env_room(struct env *e, uint64_t *has, uint64_t *needs)
{
    pthread_mutex_lock(&e->room);
    *has = e->has;
    *needs = e->needs;
    pthread_mutex_unlock(&e->room);
}

bool env_is_low(const struct env *e)
{
    return atomic_load_explicit(&e->low, memory_order_relaxed);
}

/* ---- lock ---- */

void env_lock_sign(int fd)
{
    char pid[32];
    int n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());

    /* Only for the message a second process gives; the lock holds without it. */
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
        return;
    }
}

int env_lock(const char *dir, char *err, size_t cap)
{
    char *path;
    char pid[32] = "";
    int fd;

    if (!make_dir(dir, err, cap)) {
        return -1;
    }
    if (asprintf(&path, "%s/lock", dir) < 0) {
        snprintf(err, cap, "out of memory");
        return -1;
    }
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0) {
        snprintf(err, cap, "%s: %s", path, strerror(errno));
    } else if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno != EWOULDBLOCK) {
        snprintf(err, cap, "%s: cannot be locked: %s", path, strerror(errno));
        close(fd);
        fd = -1;
    } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);
        pid[n > 0 ? n : 0] = '\0';
        snprintf(err, cap, "%s: the store is in use by another process (%.*s)", path,
                 (int)strcspn(pid, "\n"), pid);
        close(fd);
        fd = -1;
    }
    free(path);
    return fd;
}
