/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store thread: group commit.
 *
 * Happy path: take what came in, let vanish what meets its removal (batch.c), append what is left
 * to the journal as one transaction, add it to the current generation, answer every unit in order.
 * While a commit runs the next batch gathers; when it begins says pace.h: so that those whom one
 * commit answered are in the next one together. The submitter that brings what it waits for wakes
 * the store thread. The more the backlog of the fold grows, the longer it waits. A batch of which
 * nothing is left needs no commit.
 *
 * Failures: no room fails the batch's units (ST_NOSPACE) and nothing has changed. A failed write or
 * sync is final: these units and all later ones get ST_IO, and nothing is written any more.
 */
#include "storage/durable.h"
#include "storage/slice.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BATCH_OPS   65536u
#define BATCH_BYTES (4u << 20)
#define IDLE_MS     ALIVE_MS /* how often a sleeping store thread looks up */
#define SHORT_MS    200      /* the same when room is short */

/* ---- intake ---- */

/* Not from under the lock: who is woken needs it. Taken all the same, since the sleeper looks at
 * what is there and goes to sleep under it. */
static void wake_writer(struct durable *d)
{
    pthread_mutex_lock(&d->wake_lock);
    pthread_mutex_unlock(&d->wake_lock);
    pthread_cond_signal(&d->wake);
}

enum store_rc writer_submit(struct store *s, const struct store_chain *c)
{
    struct durable *d = (struct durable *)s;
    struct store_unit *old;
    uint64_t n;
    uint64_t at;

    /* Only a courtesy: store_close() comes after the last submit. */
    if (atomic_load(&d->closing)) {
        return ST_CLOSED;
    }
    /* All seq_cst, partners of sleep_until(): either the sleeper finds the units, or this thread
     * finds what the sleeper waits for. */
    n = atomic_fetch_add(&d->pending, c->n) + c->n;
    old = atomic_load_explicit(&d->intake, memory_order_relaxed);
    do {
        c->oldest->next = old;
    } while (!atomic_compare_exchange_weak(&d->intake, &old, c->newest));
    at = atomic_load(&d->wake_at);
    if (n >= at && atomic_compare_exchange_strong(&d->wake_at, &at, AWAKE)) {
        wake_writer(d);
    }
    return ST_OK;
}

static void take(struct durable *d)
{
    struct store_unit *u = atomic_exchange(&d->intake, NULL);
    struct store_unit *oldest = NULL;
    struct store_unit *newest = u;

    while (u != NULL) {
        struct store_unit *next = u->next;
        if (u->ahead != NULL) { /* another core's work until now */
            __builtin_prefetch(u->ahead);
        }
        if (u->nops > 0) {
            __builtin_prefetch(u->ops);
            __builtin_prefetch(u->ops + (u->nops > 1));
        }
        u->next = oldest;
        oldest = u;
        u = next;
    }
    if (oldest != NULL) {
        *d->waiting_last = oldest;
        d->waiting_last = &newest->next;
    }
}

static bool has_come(struct durable *d, uint64_t units)
{
    return atomic_load(&d->intake) != NULL && atomic_load(&d->pending) >= units;
}

/* Until so many units are there, for so long at most. A submitter counts its unit before the unit
 * is there: one more that is being submitted may be missed, and comes with the next batch. */
static void sleep_until(struct durable *d, uint64_t units, int64_t us)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += us / 1000000;
    ts.tv_nsec += us % 1000000 * 1000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&d->wake_lock);
    atomic_store(&d->wake_at, units);
    while (!has_come(d, units) && !atomic_load(&d->closing)) {
        if (pthread_cond_timedwait(&d->wake, &d->wake_lock, &ts) == ETIMEDOUT) {
            break;
        }
        atomic_store(&d->wake_at, units);
    }
    atomic_store(&d->wake_at, AWAKE);
    pthread_mutex_unlock(&d->wake_lock);
}

/* ---- pace ---- */

static void sleep_us(int64_t us)
{
    struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

    clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

/* What is not folded yet, as a multiple of what starts a fold. */
static double backlog(struct durable *d)
{
    uint64_t bytes;
    uint64_t records;
    double a;
    double b;

    pthread_mutex_lock(&d->gens_lock);
    bytes = d->cur->bytes + (d->folding == NULL ? 0 : d->folding->bytes);
    records = d->cur->records + (d->folding == NULL ? 0 : d->folding->records);
    pthread_mutex_unlock(&d->gens_lock);
    a = (double)bytes / (double)d->o.fold_bytes;
    b = (double)records / (double)d->o.fold_records;
    return a > b ? a : b;
}

/*
 * Above one fold's worth of backlog commits are stretched: at the middle they go in at the rate at
 * which folds take them out, at four times they stop. No wall, so no long stall.
 */
static void slow_down(struct durable *d, uint32_t records)
{
    double left = 1;

    while (left > 0 && !atomic_load(&d->closing) && durable_health(d) == ST_OK) {
        const double x = backlog(d);
        double us;

        if (x <= 1) {
            return;
        }
        pthread_mutex_lock(&d->stats_lock);
        us = (double)records / d->fold_rate * 1e6;
        pthread_mutex_unlock(&d->stats_lock);
        us = x >= 3.99 ? 1e9 : us * (x - 1) / (4 - x) * left;
        if (us > 20000) { /* look again: the fold may have ended */
            left *= 1 - 20000 / us;
            us = 20000;
        } else {
            left = 0;
        }
        if (us >= 50) {
            sleep_us((int64_t)us);
        }
    }
}

/* left: units that came before the batch's answers left. */
static void keep_pace(struct durable *d, uint32_t units, uint64_t left, int64_t began_us)
{
    const struct pace_batch b = {.units = units,
                                 .left = left,
                                 .us = durable_mono_us() - began_us,
                                 .commit_us = d->commit_us};
    const struct pace_wait w = pace_next(&d->pace, &b, d->o.pace_us);

    if (w.us > 0 && !atomic_load(&d->closing)) {
        sleep_until(d, w.units, w.us);
        pace_waited(&d->pace, atomic_load_explicit(&d->pending, memory_order_relaxed) >= w.units);
    }
}

/* ---- a batch ---- */

static size_t unit_bytes(const struct store_unit *u)
{
    size_t n = 0;

    for (uint32_t i = 0; i < u->nops; i++) {
        n += batch_record_max(&u->ops[i]);
    }
    return n;
}

/* The units of the next commit, out of `waiting`, at least one; *rc of the first when it cannot be
 * taken. */
static struct store_unit *gather(struct durable *d, uint32_t *units, enum store_rc *rc)
{
    struct store_unit *first = d->waiting;
    struct store_unit **end = &d->waiting;

    batch_reset(&d->batch);
    *units = 0;
    *rc = ST_OK;
    while (*end != NULL && d->batch.n < BATCH_OPS && d->batch.bytes < BATCH_BYTES) {
        if (*units > 0 && d->batch.bytes + unit_bytes(*end) > BATCH_BYTES) {
            break; /* a large one goes alone */
        }
        if (!batch_add(&d->batch, *end)) {
            if (*units > 0) {
                break;
            }
            *rc = ST_NOMEM;
            end = &(*end)->next;
            ++*units;
            break;
        }
        ++*units;
        end = &(*end)->next;
    }
    d->waiting = *end;
    *end = NULL;
    if (d->waiting == NULL) {
        d->waiting_last = &d->waiting;
    }
    return first;
}

static int64_t disk_now(const struct durable *d)
{
    return d->o.boot_ms() + d->clock;
}

static uint64_t trim_point(struct durable *d)
{
    uint64_t to;

    pthread_mutex_lock(&d->gens_lock);
    to = d->trim_to;
    pthread_mutex_unlock(&d->gens_lock);
    return to;
}

static void count_commit(struct durable *d, const struct group *g, int64_t us)
{
    unsigned bucket = 0;

    while (bucket < STORE_BUCKETS - 1 && us >= (int64_t)2 << bucket) {
        bucket++;
    }
    pthread_mutex_lock(&d->stats_lock);
    d->stats.commits++;
    d->stats.records += g->records;
    d->stats.journal_written += g->length;
    d->stats.commit_us[bucket]++;
    pthread_mutex_unlock(&d->stats_lock);
}

static void to_generation(struct durable *d, const uint8_t *buf, uint32_t n)
{
    enum gen_rc rc;
    bool fold;

    pthread_mutex_lock(&d->gens_lock);
    fold = d->cur->last == 0; /* its age counts from now on */
    if (fold) {
        d->cur->born_ms = durable_mono_us() / 1000;
    }
    rc = gen_add_ops(d->cur, buf, n, d->journal.next_key, d->batch.left, d->clock,
                     d->resting ? d->folding : NULL);
    if (fold || fold_has_enough(d)) {
        pthread_cond_signal(&d->fold_wake);
    }
    pthread_mutex_unlock(&d->gens_lock);
    if (rc != GEN_OK) { /* it is on disk, and what we know of it is not whole any more */
        durable_fail(d, "memory for the journal's index", ENOMEM);
    }
}

/* Where the group is encoded: in the current generation, which stays until *holder is given back.
 */
static uint8_t *group_room(struct durable *d, struct gen **holder)
{
    uint8_t *room;

    pthread_mutex_lock(&d->gens_lock);
    *holder = d->cur;
    gen_ref(*holder);
    room = gen_room(*holder, batch_group_max(&d->batch));
    pthread_mutex_unlock(&d->gens_lock);
    return room;
}

static enum store_rc append(struct durable *d, const uint8_t *buf, const struct group *g)
{
    const int64_t began = durable_mono_us();
    bool more = false;
    int mrc = journal_append(&d->journal, buf, g->length, trim_point(d), &more);
    enum store_rc rc = env_rc(mrc);

    if (rc == ST_IO) {
        durable_fail(d, d->journal.env.file, mrc);
        return rc;
    }
    atomic_store_explicit(&d->no_space, rc == ST_NOSPACE, memory_order_relaxed);
    if (rc == ST_OK) {
        d->next_group++;
        d->commit_us = durable_mono_us() - began;
        count_commit(d, g, d->commit_us);
    }
    return rc;
}

/* What is left of the batch into the journal. */
static enum store_rc commit(struct durable *d)
{
    struct group g = {.number = d->next_group, .wall_ms = disk_now(d)};
    struct gen *holder;
    uint8_t *buf = group_room(d, &holder);
    enum store_rc rc = buf == NULL ? ST_NOMEM : batch_seal(&d->batch, d->clock, &g, buf);

    if (rc == ST_OK && g.records > 0) {
        rc = append(d, buf, &g);
        if (rc == ST_OK) {
            to_generation(d, buf, g.length);
            env_top_up(&d->journal.env, 0);
            durable_top_up_state(d);
            durable_tell_room(d);
            rc = atomic_load_explicit(&d->failed, memory_order_acquire) != ST_OK ? ST_IO : ST_OK;
        }
    }
    gen_unref(holder);
    return rc;
}

static void count_units(struct durable *d, uint32_t units)
{
    pthread_mutex_lock(&d->stats_lock);
    d->stats.annihilated += d->batch.dead;
    d->stats.units += units;
    for (unsigned i = 0; i < ST_OP_KINDS; i++) {
        d->stats.ops[i] += d->batch.kinds[i];
    }
    pthread_mutex_unlock(&d->stats_lock);
}

/* Answers the units from the first one on that go together; returns the rest. */
static struct store_unit *answer_some(struct durable *d, struct store_unit *list, enum store_rc rc)
{
    struct store_unit *last = list;
    struct store_unit *rest;
    uint64_t n = 1;

    while (list->done_all != NULL && last->next != NULL && last->next->done_all == list->done_all) {
        last = last->next;
        n++;
    }
    rest = last->next; /* what is answered may be freed */
    last->next = NULL;
    if (list->done_all != NULL) {
        list->done_all(list, rc);
    } else {
        list->done(list, rc);
    }
    /* Behind it, release: who reads 0 (acquire) finds everything handed over. */
    atomic_fetch_sub_explicit(&d->pending, n, memory_order_release);
    return rest;
}

static void answer(struct durable *d, struct store_unit *u, enum store_rc rc)
{
    while (u != NULL) {
        u = answer_some(d, u, rc);
    }
}

static void run_batch(struct durable *d)
{
    const int64_t began = durable_mono_us();
    uint32_t units;
    uint64_t left;
    enum store_rc rc;
    struct store_unit *list = gather(d, &units, &rc);
    const uint32_t records = d->batch.n;

    if (atomic_load_explicit(&d->failed, memory_order_acquire) != ST_OK) {
        rc = ST_IO;
    } else if (rc == ST_OK) {
        rc = commit(d);
    }
    count_units(d, units);
    left = atomic_load_explicit(&d->pending, memory_order_relaxed) - units;
    answer(d, list, rc);
    slow_down(d, records);
    if (d->waiting == NULL) {
        keep_pace(d, units, left, began);
    }
}

/* What the journal still holds of folded groups goes with later commits; when none come, by itself.
 */
static void idle(struct durable *d)
{
    uint64_t to;
    bool more = true;
    int rc = 0;

    d->pace = (struct pace){0};
    spare_empty(&d->spare);
    if (durable_health(d) == ST_IO) {
        return;
    }
    /* The lock's modification time tells the next start when this one was last alive. */
    (void)futimens(d->lock_fd, NULL);
    env_top_up(&d->journal.env, 0);
    durable_top_up_state(d);
    durable_tell_room(d);
    to = trim_point(d);
    if (to == 0) {
        return;
    }
    while (more && rc == 0 && atomic_load(&d->intake) == NULL && !atomic_load(&d->closing)) {
        rc = journal_append(&d->journal, NULL, 0, to, &more);
    }
    if (env_rc(rc) == ST_IO) {
        durable_fail(d, d->journal.env.file, rc);
    } else if (rc == 0) {
        pthread_mutex_lock(&d->gens_lock);
        if (!more && d->trim_to == to) {
            d->trim_to = 0; /* all gone: do not look again until the next fold */
        }
        pthread_mutex_unlock(&d->gens_lock);
    }
}

void *writer_thread(void *arg)
{
    struct durable *d = arg;

    thread_short_slice();
    idle(d); /* what the last run has folded and not trimmed */
    for (;;) {
        take(d);
        if (d->waiting != NULL) {
            run_batch(d);
        } else if (atomic_load(&d->closing)) {
            take(d); /* what came while `closing` was set */
            if (d->waiting == NULL) {
                break;
            }
        } else {
            const int64_t began = durable_mono_us();
            const int64_t ms = durable_health(d) == ST_OK ? IDLE_MS : SHORT_MS;
            sleep_until(d, 1, ms * 1000);
            if (durable_mono_us() - began >= ms * 1000 - 1000) {
                idle(d);
            }
        }
    }
    return NULL;
}
