/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start: store, tree and index, shards, listeners, acceptors, housekeeper. Stop: the reverse; the
 * shards' last mail is handled on the main thread, when no other thread is left.
 */
#include "server/setup.h"

#include "routing/rcu.h"
#include "server/admin.h"
#include "server/base/mem.h"
#include "server/base/rng.h"
#include "server/net/acceptor.h"
#include "server/shard/restore.h"
#include "server/shard/shard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define RETAINED_STRIPES      64
#define HOUSEKEEPING_MS       50
#define HOUSEKEEPING_IDLE_MS  100
#define HOUSEKEEPING_HEADROOM ((uint64_t)1 << 30) /* bytes below memory_limit */
#define EXPIRE_MS             1000
#define EXPIRE_PER_ROUND      1000
#define STORE_PACE_US         500 /* between commits while little is going on */
#define QUIET_ROUNDS          3
#define DRAIN_ROUNDS          10000
#define EXIT_STORE_FAILED     74 /* EX_IOERR */
#define EXIT_SETUP_FAILED     1

struct broker {
    struct broker_shared shared;
    struct listener *listeners;
    size_t nlisteners;
    struct acceptor **acceptors;
    struct metrics *acceptor_metrics;
    unsigned nacceptors;
    _Atomic uint64_t stamp;
    _Atomic uint32_t pending;
    struct admin *admin; /* the housekeeper's */
    pthread_t housekeeper;
    bool has_housekeeper;
    pthread_mutex_t lock; /* with `wake`, for housekeeping's waits */
    pthread_cond_t wake;
    bool stopping;
    _Atomic int exit_code; /* relaxed: read after the threads have ended */
};

/* ---- housekeeping: slow looks at the whole, away from the shards ---- */

static void watch_memory(struct broker *br, uint64_t in_use)
{
    const struct config *cfg = atomic_load_explicit(&br->shared.config, memory_order_acquire);
    bool over = in_use > cfg->memory_limit;

    /* relaxed: a hint, nothing is published with it. */
    if (over != atomic_load_explicit(&br->shared.memory_pressure, memory_order_relaxed)) {
        atomic_store_explicit(&br->shared.memory_pressure, over, memory_order_relaxed);
        log_limited(br->shared.log, LOGL_WARNING, LOGR_MEMORY,
                    over ? "memory_limit reached: publishers are held back"
                         : "memory use is below memory_limit again");
    }
}

/* A store that has failed for good: nothing more is acknowledged, and the process ends with its own
 * code. */
static void watch_store(struct broker *br)
{
    if (store_health(br->shared.store) != ST_IO ||
        atomic_load_explicit(&br->exit_code, memory_order_relaxed) != 0) {
        return;
    }
    log_error(br->shared.log, "the store has failed, stopping: %s",
              store_trouble(br->shared.store));
    atomic_store_explicit(&br->exit_code, EXIT_STORE_FAILED, memory_order_relaxed);
    kill(getpid(), SIGTERM);
}

/* Far below the limit there is no hurry: looking costs some tens of microseconds. */
static long round_ms(const struct broker *br, uint64_t in_use)
{
    const struct config *cfg = atomic_load_explicit(&br->shared.config, memory_order_acquire);

    return in_use + HOUSEKEEPING_HEADROOM < cfg->memory_limit ? HOUSEKEEPING_IDLE_MS
                                                              : HOUSEKEEPING_MS;
}

static bool housekeeping_wait(struct broker *br, long ms)
{
    struct timespec until;
    bool go_on;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ms * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_mutex_lock(&br->lock);
    if (!br->stopping) {
        pthread_cond_timedwait(&br->wake, &br->lock, &until);
    }
    go_on = !br->stopping;
    pthread_mutex_unlock(&br->lock);
    return go_on;
}

static void *housekeep(void *arg)
{
    struct broker *br = arg;
    int64_t expire_ms = 0;
    uint64_t in_use = mem_in_use();

    while (housekeeping_wait(br, round_ms(br, in_use))) {
        int64_t now_ms = clock_now_ms(br->shared.clock);

        in_use = mem_in_use();

        watch_memory(br, in_use);
        watch_store(br);
        admin_run(br->admin, in_use);
        if (now_ms >= expire_ms) {
            expire_ms = now_ms + EXPIRE_MS;
            (void)retained_expire(br->shared.retained, now_ms, EXPIRE_PER_ROUND);
            mem_give_back();
        }
    }
    return NULL;
}

/* What an acknowledgement means here, for $SYS. */
static const char *durability_text(const struct broker *br)
{
    const struct config *cfg = atomic_load_explicit(&br->shared.config, memory_order_acquire);

    return cfg->persistence && cfg->durability == CONFIG_DURABILITY_DISK ? "disk" : "memory";
}

static bool start_housekeeper(struct broker *br)
{
    struct admin_env env = {.shared = &br->shared,
                            .acceptors = br->acceptor_metrics,
                            .nacceptors = br->nacceptors,
                            .durability = durability_text(br)};
    pthread_attr_t attr;
    int rc;

    br->admin = admin_create(&env);
    if (br->admin == NULL) {
        errno = ENOMEM;
        return false;
    }
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 128 * 1024);
    rc = pthread_create(&br->housekeeper, &attr, housekeep, br);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        errno = rc;
        return false;
    }
    br->has_housekeeper = true;
    pthread_setname_np(br->housekeeper, "housekeeper");
    return true;
}

static void stop_housekeeper(struct broker *br)
{
    if (!br->has_housekeeper) {
        return;
    }
    pthread_mutex_lock(&br->lock);
    br->stopping = true;
    pthread_cond_signal(&br->wake);
    pthread_mutex_unlock(&br->lock);
    pthread_join(br->housekeeper, NULL);
}

/* ---- start ---- */

static void give(void *arg, struct handover *h)
{
    struct broker_shared *b = arg;

    shard_give(b->shards[broker_shard_of(b, h->client_id)], h);
}

static void log_store(void *arg, int level, const char *text)
{
    struct log *log = arg;

    if (level <= LOG_ERR) {
        log_error(log, "store: %s", text);
    } else if (level == LOG_WARNING) {
        log_warning(log, "store: %s", text);
    } else {
        log_info(log, "store: %s", text);
    }
}

/* These say why, if they fail: errno is somebody else's by the time they return. */

static bool open_store(struct broker *br, const struct config *config)
{
    struct broker_shared *b = &br->shared;
    struct store_options o = {.dir = config->persistence_location,
                              .pace_us = STORE_PACE_US,
                              .serve_damaged = config->serve_damaged,
                              .ballast = config->persistence_reserve,
                              .log = log_store,
                              .log_arg = b->log};
    char err[1024] = "out of memory";

    if (!config->persistence) {
        if (store_open_memory(config->store_delay, &b->store) == ST_OK) {
            return true;
        }
        log_error(b->log, "cannot open the store: %s", err);
        return false;
    }
    if (o.dir == NULL) {
        o.dir = ".";
    }
    if (store_open(&o, &b->store, err, sizeof(err)) != ST_OK) {
        log_error(b->log, "cannot open the store: %s", err);
        return false;
    }
    atomic_store_explicit(&b->next_id, store_first_free_id(b->store), memory_order_relaxed);
    return true;
}

static bool restore(struct broker *br)
{
    struct restored r;
    enum store_rc rc;

    rcu_register(); /* this thread writes the shards' tables before they run */
    rc = shards_restore(&br->shared, &r);
    rcu_unregister();
    if (rc != ST_OK) {
        log_error(br->shared.log, "cannot load the store: %s",
                  rc == ST_NOMEM ? "out of memory" : store_trouble(br->shared.store));
        return false;
    }
    if (r.sessions + r.retained > 0) {
        log_info(br->shared.log,
                 "store: %llu sessions with %llu subscriptions and %llu queued messages, %llu "
                 "retained messages",
                 (unsigned long long)r.sessions, (unsigned long long)r.subs,
                 (unsigned long long)r.queued, (unsigned long long)r.retained);
    }
    return true;
}

static bool start_shards(struct broker *br, const struct config *config)
{
    struct broker_shared *b = &br->shared;

    b->shards = calloc(config->shards, sizeof(struct shard *));
    if (b->shards == NULL) {
        log_error(b->log, "cannot start shards: out of memory");
        return false;
    }
    b->nshards = config->shards;
    /* All exist before the first runs: each may push to each. */
    for (unsigned i = 0; i < b->nshards; i++) {
        b->shards[i] = shard_create(b, i);
        if (b->shards[i] == NULL) {
            log_error(b->log, "cannot start shards: %m");
            return false;
        }
    }
    if (!restore(br)) {
        return false;
    }
    for (unsigned i = 0; i < b->nshards; i++) {
        if (!shard_start(b->shards[i])) {
            log_error(b->log, "cannot start the thread of a shard: %m");
            return false;
        }
    }
    return true;
}

static bool open_listeners(struct broker *br, const struct config *config)
{
    char err[512];
    size_t open = 0;

    br->listeners = calloc(config->nlisteners, sizeof(*br->listeners));
    if (br->listeners == NULL) {
        log_error(br->shared.log, "cannot listen: out of memory");
        return false;
    }
    for (size_t i = 0; i < config->nlisteners; i++) {
        br->nlisteners++;
        if (listener_open(&br->listeners[i], &config->listeners[i], (unsigned)i, config,
                          br->shared.log, err, sizeof(err)) == 0) {
            open++;
        } else if (config->listeners[i].optional) {
            log_warning(br->shared.log, "%s", err); /* one half of the loopback pair */
        } else {
            log_error(br->shared.log, "%s", err);
            return false;
        }
    }
    if (open == 0) {
        log_error(br->shared.log, "no listener could be opened");
    }
    return open > 0;
}

static bool start_acceptors(struct broker *br, const struct config *config)
{
    br->acceptors = calloc(config->acceptors, sizeof(struct acceptor *));
    br->acceptor_metrics =
        aligned_alloc(64, config->acceptors * ((sizeof(struct metrics) + 63) / 64 * 64));
    if (br->acceptors == NULL || br->acceptor_metrics == NULL) {
        return false;
    }
    memset(br->acceptor_metrics, 0, config->acceptors * sizeof(struct metrics));
    for (unsigned i = 0; i < config->acceptors; i++) {
        struct acceptor_env env = {.listeners = br->listeners,
                                   .nlisteners = br->nlisteners,
                                   .config = &br->shared.config,
                                   .log = br->shared.log,
                                   .clock = br->shared.clock,
                                   .metrics = &br->acceptor_metrics[i],
                                   .stamp = &br->stamp,
                                   .pending = &br->pending,
                                   .give = give,
                                   .give_arg = &br->shared,
                                   .index = i};
        if (!acceptor_start(&br->acceptors[i], &env)) {
            return false;
        }
        br->nacceptors++;
    }
    return true;
}

static bool make_shared(struct broker *br, const struct config *config, struct log *log)
{
    struct broker_shared *b = &br->shared;

    atomic_init(&b->config, config);
    b->log = log;
    b->clock = &clock_system;
    b->hash_key = rng_u64();
    b->tree = tree_create();
    b->retained = retained_create(RETAINED_STRIPES, config->max_retained_messages,
                                  config->max_retained_bytes, rng_u64());
    b->shares = b->tree == NULL ? NULL : shares_create(b->tree, config->shards);
    return b->tree != NULL && b->retained != NULL && b->shares != NULL;
}

static void init_waiting(struct broker *br)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&br->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&br->wake, &attr);
    pthread_condattr_destroy(&attr);
}

int setup_start(const struct config *config, struct log *log, struct broker **out)
{
    struct broker *br = calloc(1, sizeof(*br));

    *out = NULL;
    if (br == NULL) {
        log_error(log, "out of memory");
        return EXIT_SETUP_FAILED;
    }
    init_waiting(br);
    if (!make_shared(br, config, log)) {
        log_error(log, "cannot start: out of memory");
        goto fail;
    }
    if (!open_store(br, config) || !start_shards(br, config) || !open_listeners(br, config)) {
        goto fail; /* they have said why */
    }
    if (!start_acceptors(br, config) || !start_housekeeper(br)) {
        log_error(log, "cannot start threads: %m");
        goto fail;
    }
    *out = br;
    return 0;
fail:
    (void)setup_stop(br);
    return EXIT_SETUP_FAILED;
}

int setup_reload(struct broker *br, const struct config *config)
{
    for (size_t i = 0; i < br->nlisteners && i < config->nlisteners; i++) {
        /* release: partner of the acquire in listener_conf(). */
        atomic_store_explicit(&br->listeners[i].conf, &config->listeners[i], memory_order_release);
    }
    retained_set_limits(br->shared.retained, config->max_retained_messages,
                        config->max_retained_bytes);
    /* release: partner of the acquire each thread does once a turn. */
    atomic_store_explicit(&br->shared.config, config, memory_order_release);
    return 0;
}

/* ---- stop ---- */

static void stop_acceptors(struct broker *br)
{
    for (unsigned i = 0; i < br->nacceptors; i++) {
        acceptor_stop(&br->acceptors[i]);
    }
    for (size_t i = 0; i < br->nlisteners; i++) {
        listener_close(&br->listeners[i]);
    }
}

typedef void (*shard_fn)(struct shard *sh);

static void each_shard(struct broker *br, shard_fn fn)
{
    for (unsigned i = 0; i < br->shared.nshards; i++) {
        if (br->shared.shards[i] != NULL) {
            fn(br->shared.shards[i]);
        }
    }
}

static void close_clients_shutdown(struct shard *sh)
{
    shard_close_clients(sh, RC_SERVER_SHUTTING_DOWN);
}

static void close_clients_failed(struct shard *sh)
{
    shard_close_clients(sh, RC_IMPLEMENTATION_SPECIFIC);
}

static bool have_mail(const struct broker *br)
{
    bool any = false;

    for (unsigned i = 0; i < br->shared.nshards; i++) {
        any = any || shard_has_mail(br->shared.shards[i]);
    }
    return any;
}

/*
 * Until the store has answered everything it was handed, and no mail is left that would hand it
 * more: an answer may cause another unit, so it has to be quiet for a few rounds.
 */
static void drain_shards(struct broker *br)
{
    struct store_stats st = {.pending = 0};
    unsigned quiet = 0;

    for (unsigned i = 0; i < DRAIN_ROUNDS && quiet < QUIET_ROUNDS; i++) {
        each_shard(br, shard_drain_mail);
        store_stats(br->shared.store, &st);
        quiet = st.pending == 0 && !have_mail(br) ? quiet + 1 : 0;
        if (st.pending > 0) {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
}

static void stop_shards(struct broker *br)
{
    bool complete = br->shared.nshards > 0;

    each_shard(br, shard_ask_to_stop);
    each_shard(br, shard_join);
    for (unsigned i = 0; i < br->shared.nshards; i++) {
        complete = complete && br->shared.shards[i] != NULL;
    }
    rcu_register(); /* this thread does the shards' last reads */
    if (complete) {
        drain_shards(br); /* connections on their way, deliveries, answers of the store */
        each_shard(br, atomic_load_explicit(&br->exit_code, memory_order_relaxed) != 0
                           ? close_clients_failed
                           : close_clients_shutdown);
        drain_shards(br);
        each_shard(br, shard_forget_store);
    }
    store_close(&br->shared.store); /* its threads hold shards as the place for their answers */
    if (complete) {
        drain_shards(br); /* the store's last answers, and what they are mail for */
    }
    each_shard(br, shard_destroy);
    rcu_unregister();
    free(br->shared.shards);
    br->shared.shards = NULL;
}

int setup_stop(struct broker *br)
{
    int exit_code;

    if (br == NULL) {
        return 0;
    }
    stop_acceptors(br);
    stop_housekeeper(br);
    stop_shards(br);
    rcu_drain();
    shares_destroy(br->shared.shares);
    if (br->shared.tree != NULL) {
        tree_destroy(br->shared.tree);
    }
    if (br->shared.retained != NULL) {
        retained_destroy(br->shared.retained);
    }
    rcu_drain();
    free(br->listeners);
    admin_destroy(br->admin);
    free(br->acceptors);
    free(br->acceptor_metrics);
    pthread_cond_destroy(&br->wake);
    pthread_mutex_destroy(&br->lock);
    exit_code = atomic_load_explicit(&br->exit_code, memory_order_relaxed);
    free(br);
    return exit_code;
}
