/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - the broker's log: formatted by the caller, written by one thread.
 *
 * A line goes into a bounded ring under a mutex that is held for one memcpy; the log thread adds
 * the time stamp and writes to the destinations, where it may block (a pipe nobody reads, a slow
 * disk). Then the ring fills, further lines are dropped and counted, and the count is logged later:
 * the caller never waits for a destination. Control characters are replaced by '?', since client
 * ids and topics come from the peer.
 *
 * Threads    log_write() and log_enabled(): any. log_reopen(), log_set_levels(): any.
 *            log_open(): before other threads know the log. log_close(): when nobody logs any more.
 * Ownership  log_open() copies what it needs of the options. A NULL struct log * is legal and
 * silent. Blocking   only log_open() (opens the file) and log_close() (at most about two seconds).
 * Failure    log_open() says why; afterwards a failed write loses its lines, which are counted.
 */
#ifndef NOCTULE_BASE_LOG_H
#define NOCTULE_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One bit each, so that log_type may name any set of them. */
enum log_level {
    LOGL_ERROR = 1 << 0,       /* the broker cannot do what it promised */
    LOGL_WARNING = 1 << 1,     /* an operator should look */
    LOGL_NOTICE = 1 << 2,      /* clients that come, go, or break rules */
    LOGL_INFO = 1 << 3,        /* start, stop, listeners, settings */
    LOGL_DEBUG = 1 << 4,       /* every packet */
    LOGL_SUBSCRIBE = 1 << 5,   /* each subscription made */
    LOGL_UNSUBSCRIBE = 1 << 6, /* each subscription ended */
};
#define LOGL_DEFAULT ((unsigned)(LOGL_ERROR | LOGL_WARNING | LOGL_NOTICE | LOGL_INFO))
#define LOGL_ALL     0x7fu

/* Lines of one reason are limited to LOG_LINES_PER_SECOND; what is left out is counted and said. */
enum log_reason {
    LOGR_NONE,          /* no limit */
    LOGR_CLIENT_ERROR,  /* a client broke the protocol */
    LOGR_REFUSED,       /* a connection or a client was refused */
    LOGR_TIMEOUT,       /* a client was silent for too long */
    LOGR_CONNECTION,    /* connection_messages */
    LOGR_FD_LIMIT,      /* out of file descriptors */
    LOGR_QUEUE_FULL,    /* messages dropped at a session's limit */
    LOGR_MEMORY,        /* memory budget reached, allocation failed */
    LOGR_SLOW_CONSUMER, /* a client that does not read */
    LOGR_STORE,         /* the store is slow or refuses */
    LOGR_NET,           /* accept, read or write failed for a reason of ours */
    LOGR_NR
};
#define LOG_LINES_PER_SECOND 10

enum log_dest {
    LOG_TO_STDERR = 1 << 0,
    LOG_TO_STDOUT = 1 << 1,
    LOG_TO_SYSLOG = 1 << 2,
    LOG_TO_FILE = 1 << 3,
};

struct log_options {
    unsigned dests;               /* set of enum log_dest; 0: nothing is written */
    unsigned levels;              /* set of enum log_level */
    const char *file;             /* for LOG_TO_FILE */
    bool timestamp;               /* not for syslog, which has its own */
    const char *timestamp_format; /* strftime; NULL: seconds since 1970 */
    int facility;                 /* syslog's, e.g. LOG_DAEMON */
};

struct log_thread;
struct log {
    _Atomic unsigned levels;   /* what log_enabled() lets through */
    struct log_thread *thread; /* private to log.c */
};

/* 0, or -1 with a sentence in err. *out is NULL then. */
int log_open(struct log **out, const struct log_options *options, char *err, size_t cap)
    __attribute__((warn_unused_result));

/* Opens the log file anew, after a rotation; the log thread does it soon. If that fails, the old
 * file stays. */
void log_reopen(struct log *l);

void log_set_levels(struct log *l, unsigned levels);

/* Writes what is in the ring, for at most about two seconds, and frees. Sets *l to NULL. */
void log_close(struct log **l);

/* Lines lost so far because nobody took them. */
uint64_t log_dropped(struct log *l);

/* errno may be shown by %m. Longer lines than about 1000 bytes are cut. */
void log_write(struct log *l, enum log_level level, enum log_reason reason, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static inline bool log_enabled(struct log *l, enum log_level level)
{
    /* relaxed: a changed level may be seen a little later; nothing else depends on it. */
    return l != NULL &&
           (atomic_load_explicit(&l->levels, memory_order_relaxed) & (unsigned)level) != 0;
}

/* The arguments are evaluated only if the level is enabled. */
#define log_limited(l, level, reason, ...)                                                         \
    do {                                                                                           \
        if (log_enabled((l), (level))) {                                                           \
            log_write((l), (level), (reason), __VA_ARGS__);                                        \
        }                                                                                          \
    } while (0)
#define log_error(l, ...)       log_limited(l, LOGL_ERROR, LOGR_NONE, __VA_ARGS__)
#define log_warning(l, ...)     log_limited(l, LOGL_WARNING, LOGR_NONE, __VA_ARGS__)
#define log_notice(l, ...)      log_limited(l, LOGL_NOTICE, LOGR_NONE, __VA_ARGS__)
#define log_info(l, ...)        log_limited(l, LOGL_INFO, LOGR_NONE, __VA_ARGS__)
#define log_debug(l, ...)       log_limited(l, LOGL_DEBUG, LOGR_NONE, __VA_ARGS__)
#define log_subscribe(l, ...)   log_limited(l, LOGL_SUBSCRIBE, LOGR_NONE, __VA_ARGS__)
#define log_unsubscribe(l, ...) log_limited(l, LOGL_UNSUBSCRIBE, LOGR_NONE, __VA_ARGS__)

#endif
