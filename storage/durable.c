/* SPDX-License-Identifier: Apache-2.0 */
/* The durable store: opening, closing, and what its threads have in common. */
#include "storage/durable.h"

#include "storage/guard.h"
#include "storage/salvage.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STACK (256 * 1024)
#define SPARE_FOLDS                                                                                \
    3 /* times what starts a fold: with its index a generation is twice its records */

void durable_log(const struct durable *d, int level, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    if (d->o.log == NULL) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    d->o.log(d->o.log_arg, level, text);
}

/* What can be done about a message that says what is damaged. */
static void tell_remedy(const char *dir, char *text, size_t cap)
{
    const size_t n = strlen(text);

    if (strstr(text, ": damaged: ") != NULL) {
        snprintf(
            text + n, cap - n,
            "; 'noctule-store check --repair %s' saves what can be saved and says what is lost",
            dir);
    }
}

void durable_fail(struct durable *d, const char *file, int rc)
{
    /* seq_cst, once: the store and fold threads may fail at the same time. */
    if (atomic_exchange(&d->failing, true)) {
        return;
    }
    if (rc == MDB_CORRUPTED || rc == MDB_NOTFOUND || rc == MDB_PAGE_NOTFOUND) {
        snprintf(d->trouble, sizeof(d->trouble), "%s: damaged: a record is not as it was written",
                 file);
        tell_remedy(d->o.dir, d->trouble, sizeof(d->trouble));
    } else {
        snprintf(d->trouble, sizeof(d->trouble), "%s: %s", file, mdb_strerror(rc));
    }
    /* release: partner of the acquire in durable_health(), which publishes `trouble`. */
    atomic_store_explicit(&d->failed, ST_IO, memory_order_release);
    durable_log(d, LOG_LEVEL_WARNING, "%s; nothing more is acknowledged", d->trouble);
}

enum store_rc durable_health(const struct durable *d)
{
    if (atomic_load_explicit(&d->failed, memory_order_acquire) != ST_OK) {
        return ST_IO;
    }
    if (env_is_low(&d->journal.env) || env_is_low(&d->state.env) ||
        atomic_load_explicit(&d->no_space, memory_order_relaxed) != 0) {
        return ST_NOSPACE;
    }
    return ST_OK;
}

/* What a record takes in `state`, at most: a page for a piece of an object; keys and counts. */
#define NEED_BYTES(bytes)     ((bytes)*2)
#define NEED_RECORDS(records) ((records)*64)

void durable_top_up_state(struct durable *d)
{
    uint64_t bytes;
    uint64_t records;

    pthread_mutex_lock(&d->gens_lock);
    bytes = d->cur->bytes + (d->folding == NULL ? 0 : d->folding->bytes);
    records = d->cur->records + (d->folding == NULL ? 0 : d->folding->records);
    pthread_mutex_unlock(&d->gens_lock);
    env_top_up(&d->state.env, NEED_BYTES(bytes) + NEED_RECORDS(records));
}

#define MB(bytes) ((unsigned long long)((bytes) >> 20))

void durable_tell_room(struct durable *d)
{
    const bool low = env_is_low(&d->journal.env) || env_is_low(&d->state.env);
    struct env *e = env_is_low(&d->journal.env) ? &d->journal.env : &d->state.env;
    uint64_t has;
    uint64_t needs;

    if (low == d->said_low) {
        return;
    }
    d->said_low = low;
    env_room(e, &has, &needs);
    if (low) {
        durable_log(d, LOG_LEVEL_WARNING,
                    "%s: %llu MB free, %llu MB needed: what has to be stored is refused", e->full,
                    MB(has), MB(needs));
    } else {
        durable_log(d, LOG_LEVEL_NOTICE, "%s: there is room again, %llu MB free", e->file, MB(has));
    }
}

void durable_tell_reserve(struct durable *d)
{
    uint64_t has;
    uint64_t needs;

    env_room(&d->state.env, &has, &needs);
    durable_log(d, LOG_LEVEL_INFO,
                "%s: %llu MB free, %llu MB held back for when the disk is full "
                "(persistence_reserve, twice)",
                d->o.dir, MB(has), MB(d->journal.env.ballast + d->state.env.ballast));
    durable_tell_room(d);
}

int64_t durable_mono_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int64_t system_ms(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int64_t system_boot_ms(void)
{
    return system_ms(CLOCK_BOOTTIME);
}

static int64_t system_wall_ms(void)
{
    return system_ms(CLOCK_REALTIME);
}

static void fill_in(struct store_options *o)
{
    o->state_map = o->state_map == 0 ? 1ull << 40 : o->state_map;
    o->journal_map = o->journal_map == 0 ? 64ull << 30 : o->journal_map;
    o->fold_bytes = o->fold_bytes == 0 ? 16u << 20 : o->fold_bytes;
    o->fold_records = o->fold_records == 0 ? 1000000 : o->fold_records;
    o->fold_ms = o->fold_ms == 0 ? 30000 : o->fold_ms;
    o->fold_slice = o->fold_slice == 0 ? 10000 : o->fold_slice;
    o->boot_ms = o->boot_ms == NULL ? system_boot_ms : o->boot_ms;
    o->wall_ms = o->wall_ms == NULL ? system_wall_ms : o->wall_ms;
}

/* ---- threads ---- */

static bool start(pthread_t *t, const char *name, void *(*fn)(void *), struct durable *d)
{
    pthread_attr_t attr;
    bool ok;

    if (pthread_attr_init(&attr) != 0) {
        return false;
    }
    pthread_attr_setstacksize(&attr, STACK);
    ok = pthread_create(t, &attr, fn, d) == 0;
    pthread_attr_destroy(&attr);
    if (ok) {
        pthread_setname_np(*t, name);
    }
    return ok;
}

static bool start_threads(struct durable *d)
{
    d->recovering = false;
    d->has_reader = start(&d->reader_thread, "store-reader", reader_thread, d);
    d->has_fold = d->has_reader && start(&d->fold_thread, "store-fold", fold_thread, d);
    d->has_store = d->has_fold && start(&d->store_thread, "store", writer_thread, d);
    return d->has_store;
}

/* In this order: what the store thread still takes is folded, what it still answers is read. */
static void stop_threads(struct durable *d)
{
    atomic_store(&d->closing, true);
    pthread_mutex_lock(&d->wake_lock);
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->wake_lock);
    if (d->has_store) {
        pthread_join(d->store_thread, NULL);
    }
    pthread_mutex_lock(&d->read_lock);
    d->read_stop = true;
    pthread_cond_signal(&d->read_wake);
    pthread_mutex_unlock(&d->read_lock);
    if (d->has_reader) {
        pthread_join(d->reader_thread, NULL);
    }
    pthread_mutex_lock(&d->gens_lock);
    d->fold_stop = true;
    pthread_cond_signal(&d->fold_wake);
    pthread_mutex_unlock(&d->gens_lock);
    if (d->has_fold) {
        pthread_join(d->fold_thread, NULL);
    }
}

/* An orderly stop: sessions that are connected now were connected until now. */
static void mark_stopped(struct durable *d)
{
    const int64_t now = d->o.boot_ms() + d->clock;
    MDB_txn *txn;

    if (!d->has_store || durable_health(d) == ST_IO) {
        return;
    }
    /* Where a fold is left to do, or no room, the start will be as after a crash at this moment. */
    (void)futimens(d->lock_fd, NULL);
    if (d->folding != NULL || d->cur->last != 0 || !env_make_whole(&d->journal.env) ||
        !env_make_whole(&d->state.env) || mdb_txn_begin(d->state.env.mdb, NULL, 0, &txn) != 0) {
        return;
    }
    if (meta_put_u64(txn, d->state.meta, "stopped", (uint64_t)now) != 0 ||
        meta_put_u64(txn, d->state.meta, "newest", (uint64_t)now) != 0) {
        mdb_txn_abort(txn);
    } else if (env_commit(txn) != 0) {
        durable_log(d, LOG_LEVEL_WARNING, "%s: the stop could not be written", d->state.env.file);
    }
}

static void durable_close(struct store *s)
{
    struct durable *d = (struct durable *)s;

    stop_threads(d);
    mark_stopped(d);
    gen_unref(d->cur);
    gen_unref(d->folding);
    spare_fini(&d->spare);
    free(d->ended);
    batch_fini(&d->batch);
    env_close(&d->journal.env);
    env_close(&d->state.env);
    if (d->lock_fd >= 0) {
        close(d->lock_fd);
    }
    pthread_cond_destroy(&d->wake);
    pthread_cond_destroy(&d->fold_wake);
    pthread_cond_destroy(&d->folded);
    pthread_cond_destroy(&d->read_wake);
    pthread_mutex_destroy(&d->wake_lock);
    pthread_mutex_destroy(&d->gens_lock);
    pthread_mutex_destroy(&d->read_lock);
    pthread_mutex_destroy(&d->stats_lock);
    free((void *)(uintptr_t)d->o.dir);
    free(d);
}

/* ---- small ones ---- */

static bool durable_keeps(const struct store *s)
{
    (void)s;
    return true;
}

static uint64_t durable_first_free_id(const struct store *s)
{
    return ((const struct durable *)s)->first_free_id;
}

static enum store_rc health_op(const struct store *s)
{
    return durable_health((const struct durable *)s);
}

static const char *trouble_op(const struct store *s)
{
    const struct durable *d = (const struct durable *)s;

    switch (durable_health(d)) {
    case ST_IO:
        return d->trouble;
    case ST_NOSPACE:
        return env_is_low(&d->journal.env) ? d->journal.env.full : d->state.env.full;
    case ST_OK:
    case ST_CLOSED:
    case ST_NOMEM:
        break;
    }
    return "";
}

/* in_gens: of what is not folded; 0: none. */
static void oldest_message(struct durable *d, uint32_t in_gens, struct store_stats *out)
{
    const int64_t now_s = (d->o.boot_ms() + d->clock) / 1000;
    uint32_t oldest = in_gens;
    uint32_t in_state;
    const char *was = guard_enter(d->state.env.file);
    MDB_txn *txn;
    int rc = mdb_txn_begin(d->state.env.mdb, NULL, MDB_RDONLY, &txn);

    if (rc == 0) {
        rc = state_oldest_s(&d->state, txn, &in_state);
        mdb_txn_abort(txn);
    }
    (void)guard_enter(was);
    if (rc == 0) {
        in_state = in_state == 0 ? d->opened_s : in_state;
        oldest = oldest == 0 || in_state < oldest ? in_state : oldest;
    }
    out->has_oldest = oldest != 0;
    out->oldest_s = oldest != 0 && now_s > oldest ? (uint64_t)(now_s - oldest) : 0;
}

static void durable_stats(struct store *s, struct store_stats *out)
{
    struct durable *d = (struct durable *)s;
    uint64_t bytes;
    uint64_t records;
    uint32_t oldest;

    pthread_mutex_lock(&d->gens_lock);
    bytes = d->cur->bytes + (d->folding == NULL ? 0 : d->folding->bytes);
    records = d->cur->records + (d->folding == NULL ? 0 : d->folding->records);
    oldest = d->folding == NULL ? 0 : d->folding_oldest_s;
    oldest = oldest == 0 ? gen_oldest_s(d->cur) : oldest;
    pthread_mutex_unlock(&d->gens_lock);
    pthread_mutex_lock(&d->stats_lock);
    *out = d->stats;
    pthread_mutex_unlock(&d->stats_lock);
    out->journal_bytes = bytes;
    out->journal_records = records;
    out->pending = atomic_load_explicit(&d->pending, memory_order_acquire);
    out->health = durable_health(d);
    out->refusing = out->health != ST_OK;
    oldest_message(d, oldest, out);
}

static const struct store_ops durable_ops = {
    .close = durable_close,
    .keeps = durable_keeps,
    .submit = writer_submit,
    .stats = durable_stats,
    .first_free_id = durable_first_free_id,
    .load = recover_load,
    .read = reader_read,
    .fetch = reader_fetch,
    .backup = backup_run,
    .health = health_op,
    .trouble = trouble_op,
};

static void init_locks(struct durable *d)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&d->wake, &attr);
    pthread_cond_init(&d->fold_wake, &attr);
    pthread_cond_init(&d->folded, &attr);
    pthread_cond_init(&d->read_wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&d->wake_lock, NULL);
    pthread_mutex_init(&d->gens_lock, NULL);
    pthread_mutex_init(&d->read_lock, NULL);
    pthread_mutex_init(&d->stats_lock, NULL);
}

static struct durable *create(const struct store_options *o)
{
    struct durable *d = aligned_alloc(64, (sizeof(*d) + 63) / 64 * 64);

    if (d == NULL) {
        return NULL;
    }
    memset(d, 0, sizeof(*d));
    d->base.ops = &durable_ops;
    d->o = *o;
    d->o.dir = strdup(o->dir);
    fill_in(&d->o);
    d->slice = d->o.fold_slice;
    d->lock_fd = -1;
    d->wake_at = AWAKE;
    d->waiting_last = &d->waiting;
    d->reads_last = &d->reads;
    d->fetches_last = &d->fetches;
    d->fold_rate = 200000; /* until the first fold has been timed */
    spare_init(&d->spare, SPARE_FOLDS * d->o.fold_bytes);
    d->cur = gen_create(&d->spare);
    init_locks(d);
    return d;
}

static void log_damage(void *arg, const char *line)
{
    durable_log(arg, LOG_LEVEL_WARNING, "%s", line);
}

static bool has_file(const char *dir, const char *env)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s/data.mdb", dir, env);
    return access(path, F_OK) == 0;
}

/* A damaged store is repaired before it is opened, where that is wanted. */
static bool look_for_damage(struct durable *d, char *err, size_t cap)
{
    struct salvage_loss l;
    int rc;

    if (!d->o.serve_damaged || (!has_file(d->o.dir, "state") && !has_file(d->o.dir, "journal"))) {
        return true;
    }
    rc = salvage_look(d->o.dir, NULL, NULL, err, cap);
    if (rc == 1) {
        durable_log(d, LOG_LEVEL_WARNING, "%s: damaged: what can be saved of it is served",
                    d->o.dir);
        rc = salvage_run(d->o.dir, log_damage, d, &l, err, cap) ? 0 : -1;
        d->stats.lost =
            l.sessions + l.messages + l.subs + l.inbound + l.wills + l.retained + l.groups + l.rows;
    }
    return rc == 0;
}

enum store_rc store_open(const struct store_options *o, struct store **out, char *err, size_t cap)
{
    struct durable *d = create(o);
    enum store_rc rc;

    *out = NULL;
    err[0] = '\0';
    if (d == NULL || d->o.dir == NULL || d->cur == NULL) {
        rc = ST_NOMEM;
        goto fail;
    }
    d->lock_fd = env_lock(d->o.dir, err, cap);
    if (d->lock_fd < 0) {
        rc = ST_IO;
        goto fail;
    }
    guard_start();
    rc = look_for_damage(d, err, cap) ? recover_open(d, err, cap) : ST_IO;
    if (rc == ST_OK && !start_threads(d)) {
        rc = ST_NOMEM;
    }
    if (rc != ST_OK) {
        goto fail;
    }
    guard_serve();
    d->journal.env.serving = true;
    d->state.env.serving = true;
    *out = &d->base;
    return ST_OK;
fail:
    if (err[0] == '\0') {
        snprintf(err, cap, "%s: out of memory or threads", o->dir);
    }
    tell_remedy(o->dir, err, cap);
    if (d != NULL) {
        durable_close(&d->base);
    }
    return rc;
}

enum store_rc durable_make(const char *dir, struct durable **out, char *err, size_t cap)
{
    const struct store_options o = {.dir = dir};
    struct durable *d;
    enum store_rc rc;

    d = create(&o);
    if (d == NULL || d->o.dir == NULL || d->cur == NULL) {
        snprintf(err, cap, "out of memory");
        rc = ST_NOMEM;
    } else {
        guard_start();
        d->lock_fd = env_lock(dir, err, cap);
        rc = d->lock_fd < 0 ? ST_IO : recover_attach(d, err, cap);
    }
    if (rc != ST_OK && d != NULL) {
        durable_close(&d->base);
        d = NULL;
    }
    *out = d;
    return rc;
}

enum store_rc durable_attach(const char *dir, struct durable **out, char *err, size_t cap)
{
    static const char *const files[] = {"journal", "state"};

    *out = NULL;
    err[0] = '\0';
    for (size_t i = 0; i < 2; i++) { /* whoever looks at a store must not make one */
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s/data.mdb", dir, files[i]);
        if (access(path, F_OK) != 0) {
            snprintf(err, cap, "%s: %s", path, strerror(errno));
            return ST_IO;
        }
    }
    return durable_make(dir, out, err, cap);
}

void durable_detach(struct durable *d)
{
    durable_close(&d->base);
}
