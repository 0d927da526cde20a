/* SPDX-License-Identifier: Apache-2.0 */
/*
 * durable.h - inside of the durable store: what its three threads share.
 *
 *     submit ──> intake ──> store thread ──> journal ──> generation `cur` ──> done()
 *                                                          │ frozen as `folding`
 *                           fold thread  ──> state <───────┘
 *     read   ──> intake ──> (behind its units) ──> reader thread: cur + folding + state ──> done()
 *
 * Threads and locks
 *     intake      lock-free list; `wake_lock` only around sleeping and waking the store thread
 *     gens_lock   cur, folding, trim_to, and the inside of cur, and of folding while it rests;
 *                 held for a batch or a page, never over I/O
 *     read_lock   the reader's lists
 *     stats_lock  counters
 *
 * No thread holds two of them; spare.h has a lock of its own, taken last. Environments: only the
 * store thread writes to `journal`, only the fold thread to `state`.
 */
#ifndef NOCTULE_STORAGE_DURABLE_H
#define NOCTULE_STORAGE_DURABLE_H

#include "storage/batch.h"
#include "storage/gen.h"
#include "storage/journal.h"
#include "storage/ops.h"
#include "storage/pace.h"
#include "storage/state.h"

#include <pthread.h>

struct durable {
    struct store base;
    struct store_options o; /* with defaults filled in; o.dir is a copy */
    int lock_fd;
    uint8_t id[STORE_ID];
    struct state state;
    struct journal journal;
    /* Constant after open: disk time = CLOCK_BOOTTIME + clock. */
    int64_t clock;
    int64_t crash_ms; /* wall clock: when the last run ended, for sessions that were connected */
    uint64_t first_free_id;
    uint32_t opened_s; /* wall clock: stands for times that version 1 did not keep */
    /* Until the threads run: how far the recovery is. */
    bool recovering; /* until the threads start */
    uint64_t recovered;
    int64_t told_us;

    _Alignas(64) _Atomic(struct store_unit *) intake; /* newest first; seq_cst with `wake_at` */
    _Atomic uint64_t pending; /* units not answered; seq_cst with `wake_at` where it grows */
    /* AWAKE, or the store thread sleeps and is to be woken when `pending` reaches it. */
    _Alignas(64) _Atomic uint64_t wake_at;
    _Atomic bool closing; /* seq_cst: seen by every submit after store_close() began */
    pthread_mutex_t wake_lock;
    pthread_cond_t wake;

    /* The store thread's own. */
    struct batch batch;
    struct store_unit *waiting, **waiting_last; /* taken from intake, oldest first */
    uint64_t next_group;
    struct pace pace;
    int64_t commit_us; /* of the last one */

    struct spare spare; /* of the generations */
    pthread_mutex_t gens_lock;
    pthread_cond_t fold_wake; /* for the fold thread */
    struct gen *cur, *folding;
    /*
     * `folding` is frozen and not begun: it is full but for what comes until the fold begins, and
     * what was in flight when it was frozen is removed meanwhile, without ever being folded.
     */
    bool resting;
    uint32_t slice;            /* operations in a transaction of a fold; fewer when room is short */
    uint64_t trim_to;          /* journal keys below belong to folded groups */
    bool said_low;             /* that there is no room; the store's thread */
    uint32_t folding_oldest_s; /* gen_oldest_s() of `folding`, before it was frozen */
    unsigned fold_paused;      /* backups under way */
    bool fold_busy;
    bool fold_stop;  /* fold what is there, then end */
    uint64_t *ended; /* sessions whose entries are to be removed, when no fold is due */
    size_t ended_at, nended, ended_cap;
    pthread_cond_t folded; /* signalled after every fold */

    pthread_mutex_t read_lock;
    pthread_cond_t read_wake;
    struct store_page *reads, **reads_last;
    struct store_fetch *fetches, **fetches_last;
    bool read_stop;

    /* Written once, from ST_OK, before `failed`; release/acquire publishes trouble. */
    _Atomic int failed;
    _Atomic bool failing; /* who sets it writes trouble */
    char trouble[1024];
    _Atomic int no_space; /* a group or fold that found no room; relaxed */

    pthread_mutex_t stats_lock;
    struct store_stats stats;
    double fold_rate; /* records a second; stats_lock */

    bool has_store, has_fold, has_reader;
    pthread_t store_thread, fold_thread, reader_thread;
};

#define AWAKE    UINT64_MAX /* durable.wake_at */
#define ALIVE_MS 5000       /* the store says at least this often that it is alive */

void durable_log(const struct durable *d, int level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* A write or sync failed: final. */
void durable_fail(struct durable *d, const char *file, int mdb_rc);
enum store_rc durable_health(const struct durable *d);
/* Has room held back in `state` for what is not folded yet. Not under gens_lock. */
void durable_top_up_state(struct durable *d);
/* The store's thread, or before it runs: says when there is no room any more, and when there is
 * again. */
void durable_tell_room(struct durable *d);
/* Likewise at the start: what there is. */
void durable_tell_reserve(struct durable *d);
int64_t durable_mono_us(void);
/* The lock and both environments of a store that is there, and no threads: for check.h. */
enum store_rc durable_attach(const char *dir, struct durable **out, char *err, size_t cap);
/* The same of a new one in a directory that is made. */
enum store_rc durable_make(const char *dir, struct durable **out, char *err, size_t cap);
void durable_detach(struct durable *d);
/* For store_options.log; as syslog's. */
enum { LOG_LEVEL_WARNING = 4, LOG_LEVEL_NOTICE = 5, LOG_LEVEL_INFO = 6 };

/* writer.c */
void *writer_thread(void *durable);
enum store_rc writer_submit(struct store *s, const struct store_chain *c);

/* fold.c */
void *fold_thread(void *durable);
/* Holding gens_lock: the fold thread has something to do because of what came. */
bool fold_has_enough(const struct durable *d);
/* Folds a frozen generation; may be done again after a failure or crash. LMDB's code. */
int fold_generation(struct durable *d, struct gen *g);
/* Its session_head says that it has ended: its entries go when there is time. Any thread. */
void durable_sweep_later(struct durable *d, uint64_t session);
/* The next try comes in smaller slices; false: they are the smallest already. */
bool fold_smaller(struct durable *d);

/* reader.c */
void *reader_thread(void *durable);
enum store_rc reader_read(struct store *s, struct store_page *p);
enum store_rc reader_fetch(struct store *s, struct store_fetch *f);

/* recover.c: before the threads start */
struct recover_marks { /* the numbers in `meta` of `state` */
    uint64_t folded, folding, free_id, newest, stopped;
};
int recover_marks(struct durable *d, MDB_txn *txn, struct recover_marks *m);
/* Opens both environments, makes what is missing, checks that they belong together. */
enum store_rc recover_attach(struct durable *d, char *err, size_t cap);
enum store_rc recover_open(struct durable *d, char *err, size_t cap);
enum store_rc recover_load(struct store *s, const struct store_load *l);
/* Disk time -> CLOCK_BOOTTIME; 0 stays 0. */
int64_t recover_time(const struct durable *d, int64_t wall_ms);

/* backup.c */
enum store_rc backup_run(struct store *s, const char *to_dir, char *err, size_t cap);

#endif
