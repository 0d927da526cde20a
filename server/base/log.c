/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.c - see log.h.
 *
 * Happy path: log_write() formats on its own stack, appends a record (header, text) to the ring and
 * wakes the thread if it sleeps. The thread copies records out, renders them into a chunk of at
 * most PIPE_BUF bytes per descriptor and writes that, so lines of several writers of one pipe stay
 * whole.
 *
 * Failure modes: ring full - the line is counted in `dropped`, and the thread says so as soon as it
 * has written something again. A destination that does not take bytes - the thread polls it, so
 * that log_close() can end the wait. A thread that hangs in write() all the same (another process
 * filled the pipe between poll and write) is left behind by log_close(), memory included.
 */
#include "server/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define RING_SIZE    ((size_t)128 * 1024)
#define LINE_MAX_LEN ((size_t)1024)
#define STACK_SIZE   ((size_t)256 * 1024)
#define CLOSE_MS     2000
#define POLL_MS      100

static const char *const reason_names[LOGR_NR] = {
    [LOGR_NONE] = "",
    [LOGR_CLIENT_ERROR] = "client error",
    [LOGR_REFUSED] = "refused",
    [LOGR_TIMEOUT] = "timeout",
    [LOGR_CONNECTION] = "connection",
    [LOGR_FD_LIMIT] = "file descriptors",
    [LOGR_QUEUE_FULL] = "queue full",
    [LOGR_MEMORY] = "memory",
    [LOGR_SLOW_CONSUMER] = "slow consumer",
    [LOGR_STORE] = "store",
    [LOGR_NET] = "network",
};

struct record {
    int64_t time_s;
    uint32_t level;
    uint32_t len; /* bytes of text behind the header */
};

struct limit {
    /* Second of the window in the upper half, lines asked for in it below. relaxed: only counts. */
    _Atomic uint64_t window;
    /* Lines left out and not yet reported. relaxed: only a count; its text is made by who takes it.
     */
    _Atomic uint64_t left_out;
};

struct log_thread {
    struct log head;
    pthread_t thread;
    pthread_mutex_t lock; /* of everything down to `closing` */
    pthread_cond_t wake;
    uint8_t *ring;
    size_t start; /* of the oldest record, below RING_SIZE */
    size_t used;  /* bytes of whole records */
    uint64_t dropped;
    uint64_t dropped_said;
    bool sleeping;
    bool reopen;
    bool limited; /* some left_out is to be reported when its second is over */
    /* release in log_close() with acquire in the thread: deadline_ms is there when closing is seen,
     * also where the thread looks without the lock, between polls. */
    _Atomic bool closing;
    int64_t deadline_ms; /* of closing */
    struct limit limits[LOGR_NR];
    /* The thread's own from here on. */
    unsigned dests;
    bool timestamp;
    char *timestamp_format;
    char *file;
    int file_fd;
    uint64_t lost; /* lines a destination refused */
};

struct chunk { /* rendered lines on their way to one round of writes */
    size_t n;
    size_t lines;
    char p[PIPE_BUF];
};

static int64_t mono_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* --- the ring, under the lock --- */

static void ring_copy_in(struct log_thread *t, size_t at, const void *src, size_t n)
{
    size_t first;

    at %= RING_SIZE;
    first = n < RING_SIZE - at ? n : RING_SIZE - at;
    memcpy(t->ring + at, src, first);
    memcpy(t->ring, (const uint8_t *)src + first, n - first);
}

static void ring_copy_out(const struct log_thread *t, size_t at, void *dst, size_t n)
{
    size_t first;

    at %= RING_SIZE;
    first = n < RING_SIZE - at ? n : RING_SIZE - at;
    memcpy(dst, t->ring + at, first);
    memcpy((uint8_t *)dst + first, t->ring, n - first);
}

static bool ring_push(struct log_thread *t, const struct record *r, const char *text)
{
    size_t need = sizeof(*r) + r->len;

    if (RING_SIZE - t->used < need) {
        t->dropped++;
        return false;
    }
    ring_copy_in(t, t->start + t->used, r, sizeof(*r));
    ring_copy_in(t, t->start + t->used + sizeof(*r), text, r->len);
    t->used += need;
    return true;
}

static bool ring_pop(struct log_thread *t, struct record *r, char *text)
{
    if (t->used == 0) {
        return false;
    }
    ring_copy_out(t, t->start, r, sizeof(*r));
    ring_copy_out(t, t->start + sizeof(*r), text, r->len);
    t->start = (t->start + sizeof(*r) + r->len) % RING_SIZE;
    t->used -= sizeof(*r) + r->len;
    return true;
}

/* --- the caller's side --- */

/* Clients choose what stands in many a line: nothing of it may steer a terminal. C0 controls and
 * DEL are one byte, C1 controls (U+0080 to U+009F) two in UTF-8. */
static void clean(char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char b = (unsigned char)s[i];

        if (b < 0x20 || b == 0x7f) {
            s[i] = '?';
        } else if (b == 0xc2 && i + 1 < n && ((unsigned char)s[i + 1] & 0xe0u) == 0x80) {
            s[i] = s[i + 1] = '?';
        }
    }
}

static void push_line(struct log_thread *t, enum log_level level, char *text, size_t n)
{
    struct record r = {.time_s = (int64_t)time(NULL), .level = level, .len = (uint32_t)n};
    bool wake;

    clean(text, n);
    pthread_mutex_lock(&t->lock);
    wake = ring_push(t, &r, text) && t->sleeping;
    t->sleeping = t->sleeping && !wake;
    pthread_mutex_unlock(&t->lock);
    if (wake) {
        pthread_cond_signal(&t->wake);
    }
}

/* Reports what was left out of a reason so far, in a line of its own. */
static void push_left_out(struct log_thread *t, enum log_reason reason)
{
    uint64_t n = atomic_exchange_explicit(&t->limits[reason].left_out, 0, memory_order_relaxed);
    char text[96];
    int len;

    if (n > 0) {
        len = snprintf(text, sizeof(text), "%llu similar lines left out (%s)",
                       (unsigned long long)n, reason_names[reason]);
        push_line(t, LOGL_NOTICE, text, (size_t)len);
    }
}

/* The thread must look again when the second is over, even if no further line ever comes. */
static void note_limited(struct log_thread *t)
{
    pthread_mutex_lock(&t->lock);
    t->limited = true;
    pthread_mutex_unlock(&t->lock);
    pthread_cond_signal(&t->wake);
}

static bool limit_passes(struct log_thread *t, enum log_reason reason)
{
    struct limit *lim = &t->limits[reason];
    uint64_t now = (uint64_t)(mono_ms() / 1000) << 32;
    uint64_t old = atomic_load_explicit(&lim->window, memory_order_relaxed);
    uint64_t next;

    do {
        next = (old & ~(uint64_t)UINT32_MAX) == now ? old + 1 : (now | 1);
        if ((next & UINT32_MAX) == 0) {
            next = old; /* four billion lines in a second: stay at the end */
        }
    } while (!atomic_compare_exchange_weak_explicit(&lim->window, &old, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    if ((next & UINT32_MAX) == 1) {
        push_left_out(t, reason);
    }
    if ((next & UINT32_MAX) <= LOG_LINES_PER_SECOND) {
        return true;
    }
    if (atomic_fetch_add_explicit(&lim->left_out, 1, memory_order_relaxed) == 0) {
        note_limited(t);
    }
    return false;
}

void log_write(struct log *l, enum log_level level, enum log_reason reason, const char *fmt, ...)
{
    int saved = errno;
    char text[LINE_MAX_LEN];
    va_list ap;
    int n;

    if (!log_enabled(l, level) || (reason != LOGR_NONE && !limit_passes(l->thread, reason))) {
        errno = saved;
        return;
    }
    errno = saved; /* for %m */
    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof(text)) {
        n = (int)sizeof(text) - 1;
        memcpy(text + n - 3, "...", 3);
    }
    if (n > 0) {
        push_line(l->thread, level, text, (size_t)n);
    }
    errno = saved;
}

/* --- the thread's side --- */

static bool closing_late(struct log_thread *t)
{
    return atomic_load_explicit(&t->closing, memory_order_acquire) && mono_ms() > t->deadline_ms;
}

/* False when the destination is broken or, while closing, does not take the bytes in time. */
static bool write_all(struct log_thread *t, int fd, const char *p, size_t n)
{
    while (n > 0) {
        struct pollfd pfd = {.fd = fd, .events = POLLOUT};
        ssize_t w;

        if (poll(&pfd, 1, POLL_MS) <= 0) {
            if (closing_late(t)) {
                return false;
            }
            continue;
        }
        w = write(fd, p, n);
        if (w < 0 && errno != EINTR && errno != EAGAIN) {
            return false;
        }
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        }
    }
    return true;
}

static void chunk_flush(struct log_thread *t, struct chunk *c)
{
    static const struct {
        enum log_dest dest;
        int fd; /* -1: the file's */
    } outs[] = {{LOG_TO_STDERR, STDERR_FILENO}, {LOG_TO_STDOUT, STDOUT_FILENO}, {LOG_TO_FILE, -1}};

    for (size_t i = 0; c->n > 0 && i < sizeof(outs) / sizeof(outs[0]); i++) {
        int fd = outs[i].fd < 0 ? t->file_fd : outs[i].fd;

        if ((t->dests & outs[i].dest) != 0 && !write_all(t, fd, c->p, c->n)) {
            t->lost += c->lines;
        }
    }
    c->n = 0;
    c->lines = 0;
}

static int syslog_priority(uint32_t level)
{
    switch (level) {
    case LOGL_ERROR:
        return LOG_ERR;
    case LOGL_WARNING:
        return LOG_WARNING;
    case LOGL_NOTICE:
        return LOG_NOTICE;
    case LOGL_DEBUG:
        return LOG_DEBUG;
    default:
        return LOG_INFO;
    }
}

static size_t render_time(const struct log_thread *t, int64_t time_s, char *out, size_t cap)
{
    time_t when = (time_t)time_s;
    struct tm tm;
    size_t n;

    if (!t->timestamp) {
        return 0;
    }
    if (t->timestamp_format == NULL || localtime_r(&when, &tm) == NULL) {
        return (size_t)snprintf(out, cap, "%lld: ", (long long)time_s);
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the operator's own format is the feature   \
                                                      */
    n = strftime(out, cap - 2, t->timestamp_format, &tm);
#pragma GCC diagnostic pop
    memcpy(out + n, ": ", 2);
    return n + 2;
}

static void emit(struct log_thread *t, struct chunk *c, const struct record *r, const char *text)
{
    char stamp[128];
    size_t n = render_time(t, r->time_s, stamp, sizeof(stamp));

    if ((t->dests & LOG_TO_SYSLOG) != 0) {
        syslog(syslog_priority(r->level), "%.*s", (int)r->len, text);
    }
    if (c->n + n + r->len + 1 > sizeof(c->p)) {
        chunk_flush(t, c);
    }
    memcpy(c->p + c->n, stamp, n);
    memcpy(c->p + c->n + n, text, r->len);
    c->p[c->n + n + r->len] = '\n';
    c->n += n + r->len + 1;
    c->lines++;
}

__attribute__((format(printf, 3, 4))) static void emit_own(struct log_thread *t, struct chunk *c,
                                                           const char *fmt, ...)
{
    struct record r = {.time_s = (int64_t)time(NULL), .level = LOGL_WARNING};
    char text[PATH_MAX / 2];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    r.len = (uint32_t)n < sizeof(text) ? (uint32_t)n : (uint32_t)sizeof(text) - 1;
    emit(t, c, &r, text);
}

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
}

static void reopen_file(struct log_thread *t, struct chunk *c)
{
    int fd;

    if ((t->dests & LOG_TO_FILE) == 0) {
        return;
    }
    chunk_flush(t, c); /* what was logged before belongs into the old file */
    fd = open_file(t->file);
    if (fd < 0) {
        emit_own(t, c, "log file %s: %s; the old one stays in use", t->file, strerror(errno));
        return;
    }
    close(t->file_fd);
    t->file_fd = fd;
}

static void say_dropped(struct log_thread *t, struct chunk *c)
{
    uint64_t n;

    pthread_mutex_lock(&t->lock);
    n = t->dropped + t->lost - t->dropped_said;
    t->dropped_said += n;
    pthread_mutex_unlock(&t->lock);
    if (n > 0) {
        emit_own(t, c, "%llu log lines dropped: nobody took them in time", (unsigned long long)n);
    }
}

/* Writes all there is. The chunk leaves when the ring is empty: a burst costs few system calls. */
static void drain(struct log_thread *t, struct chunk *c)
{
    struct record r;
    char text[LINE_MAX_LEN];
    bool more;

    do {
        pthread_mutex_lock(&t->lock);
        more = ring_pop(t, &r, text);
        pthread_mutex_unlock(&t->lock);
        if (more) {
            emit(t, c, &r, text);
        }
    } while (more && !closing_late(t));
    chunk_flush(t, c);
    say_dropped(t, c);
    chunk_flush(t, c);
}

static void push_all_left_out(struct log_thread *t)
{
    for (unsigned i = LOGR_NONE + 1; i < LOGR_NR; i++) {
        push_left_out(t, (enum log_reason)i);
    }
}

struct work {
    bool reopen;
    bool limited;
    bool closing;
};

/* Sleeps until there is something to do; at most a second if a reason is being limited. */
static struct work wait_work(struct log_thread *t)
{
    struct work w = {false, false, false};
    struct timespec until;
    int rc = 0;

    pthread_mutex_lock(&t->lock);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    while (t->used == 0 && !t->reopen && rc == 0 &&
           !atomic_load_explicit(&t->closing, memory_order_acquire)) {
        t->sleeping = true;
        if (t->limited) {
            rc = pthread_cond_timedwait(&t->wake, &t->lock, &until);
        } else {
            rc = pthread_cond_wait(&t->wake, &t->lock);
        }
    }
    t->sleeping = false;
    w.reopen = t->reopen;
    w.limited = rc != 0;
    w.closing = atomic_load_explicit(&t->closing, memory_order_acquire);
    t->reopen = false;
    t->limited = t->limited && !w.limited;
    pthread_mutex_unlock(&t->lock);
    return w;
}

static void *run(void *arg)
{
    struct log_thread *t = arg;
    struct chunk c = {.n = 0};
    struct work w;

    do {
        w = wait_work(t);
        if (w.limited || w.closing) {
            push_all_left_out(t);
        }
        if (w.reopen) {
            drain(t, &c);
            reopen_file(t, &c);
        }
        drain(t, &c);
    } while (!w.closing);
    return NULL;
}

/* --- opening and closing --- */

static void thread_free(struct log_thread *t)
{
    if (t != NULL) {
        if (t->file_fd >= 0) {
            close(t->file_fd);
        }
        free(t->file);
        free(t->timestamp_format);
        free(t->ring);
        free(t);
    }
}

static bool copy_options(struct log_thread *t, const struct log_options *o)
{
    t->dests = o->dests;
    t->timestamp = o->timestamp;
    if (o->timestamp_format != NULL) {
        t->timestamp_format = strdup(o->timestamp_format);
    }
    if (o->file != NULL) {
        t->file = strdup(o->file);
    }
    return (o->timestamp_format == NULL || t->timestamp_format != NULL) &&
           (o->file == NULL || t->file != NULL);
}

static int thread_start(struct log_thread *t)
{
    pthread_condattr_t cond;
    pthread_attr_t attr;
    sigset_t all;
    sigset_t old;
    int rc;

    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&cond);
    pthread_condattr_setclock(&cond, CLOCK_MONOTONIC);
    pthread_cond_init(&t->wake, &cond);
    pthread_condattr_destroy(&cond);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals, SIGPIPE too, are for the main thread */
    rc = pthread_create(&t->thread, &attr, run, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return rc;
}

int log_open(struct log **out, const struct log_options *options, char *err, size_t cap)
{
    struct log_thread *t = calloc(1, sizeof(*t));
    int rc;

    *out = NULL;
    if (t == NULL) {
        snprintf(err, cap, "log: out of memory");
        return -1;
    }
    t->file_fd = -1;
    t->head.thread = t;
    atomic_init(&t->head.levels, options->dests != 0 ? options->levels : 0);
    t->ring = malloc(RING_SIZE);
    if (t->ring == NULL || !copy_options(t, options)) {
        snprintf(err, cap, "log: out of memory");
        goto fail;
    }
    if ((t->dests & LOG_TO_FILE) != 0) {
        t->file_fd = open_file(t->file);
        if (t->file_fd < 0) {
            snprintf(err, cap, "log file %s: %s", t->file, strerror(errno));
            goto fail;
        }
    }
    if ((t->dests & LOG_TO_SYSLOG) != 0) {
        openlog("noctule", LOG_PID | LOG_NDELAY, options->facility);
    }
    rc = thread_start(t);
    if (rc != 0) {
        snprintf(err, cap, "log: thread: %s", strerror(rc));
        goto fail;
    }
    *out = &t->head;
    return 0;
fail:
    thread_free(t);
    return -1;
}

void log_reopen(struct log *l)
{
    if (l != NULL) {
        pthread_mutex_lock(&l->thread->lock);
        l->thread->reopen = true;
        pthread_mutex_unlock(&l->thread->lock);
        pthread_cond_signal(&l->thread->wake);
    }
}

void log_set_levels(struct log *l, unsigned levels)
{
    if (l != NULL) {
        atomic_store_explicit(&l->levels, levels, memory_order_relaxed);
    }
}

uint64_t log_dropped(struct log *l)
{
    uint64_t n = 0;

    if (l != NULL) {
        pthread_mutex_lock(&l->thread->lock);
        n = l->thread->dropped;
        pthread_mutex_unlock(&l->thread->lock);
    }
    return n;
}

void log_close(struct log **l)
{
    struct log_thread *t = *l == NULL ? NULL : (*l)->thread;
    struct timespec until;

    *l = NULL;
    if (t == NULL) {
        return;
    }
    pthread_mutex_lock(&t->lock);
    t->deadline_ms = mono_ms() + CLOSE_MS;
    atomic_store_explicit(&t->closing, true, memory_order_release);
    pthread_mutex_unlock(&t->lock);
    pthread_cond_signal(&t->wake);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CLOSE_MS / 1000 + 1;
    if (pthread_timedjoin_np(t->thread, NULL, &until) != 0) {
        pthread_detach(t->thread); /* hangs in write(); it may still touch its memory */
        return;
    }
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    thread_free(t);
}
