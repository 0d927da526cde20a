/* SPDX-License-Identifier: Apache-2.0 */
#include "server/shard/lodge.h"

#include "routing/rcu.h"
#include "server/shard/internal.h"

#include <stdlib.h>
#include <time.h>

static int64_t thread_cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- life ---- */

bool lodge_init(struct shard *sh)
{
    struct lodge *lg = &sh->lodge;

    lg->guests = calloc(sh->b->nshards, sizeof(struct shard *));
    if (lg->guests == NULL) {
        return false;
    }
    pthread_mutex_init(&lg->lock, NULL);
    pthread_cond_init(&lg->moved, NULL);
    return true;
}

void lodge_fini(struct shard *sh)
{
    if (sh->lodge.guests != NULL) {
        pthread_mutex_destroy(&sh->lodge.lock);
        pthread_cond_destroy(&sh->lodge.moved);
        free(sh->lodge.guests);
    }
}

/* ---- the host ---- */

/* On the host's thread. Its guest may have gone home meanwhile: it had to stop. */
static void let_in(struct shard *host, struct shard_mail *m)
{
    struct shard *sh = (struct shard *)((char *)m - offsetof(struct shard, lodge.ask));
    struct lodge *lg = &sh->lodge;

    pthread_mutex_lock(&lg->lock);
    lg->asking = false;
    if (lg->place == LODGE_ASKED) {
        if (loop_add(&host->loop, sh->loop.epoll_fd, LOOP_READ, shard_tag(sh))) {
            lg->place = LODGE_AWAY;
            lg->has_events = true; /* also its mail: to be looked at */
            host->lodge.guests[host->lodge.nguests++] = sh;
        } else {
            lg->place = LODGE_HOME;
            pthread_cond_signal(&lg->moved);
        }
    }
    pthread_mutex_unlock(&lg->lock);
}

void lodge_send_home(struct shard *host, unsigned guest)
{
    struct shard *sh = host->lodge.guests[guest];
    struct lodge *lg = &sh->lodge;

    loop_del(&host->loop, sh->loop.epoll_fd);
    host->lodge.guests[guest] = host->lodge.guests[--host->lodge.nguests];
    pthread_mutex_lock(&lg->lock);
    lg->place = LODGE_HOME;
    pthread_cond_signal(&lg->moved);
    pthread_mutex_unlock(&lg->lock);
}

void lodge_end(struct shard *sh)
{
    while (sh->lodge.nguests > 0) {
        lodge_send_home(sh, 0);
    }
}

/* ---- the guest ---- */

void lodge_stop(struct shard *sh)
{
    pthread_mutex_lock(&sh->lodge.lock);
    pthread_cond_signal(&sh->lodge.moved);
    pthread_mutex_unlock(&sh->lodge.lock);
}

/* Returns when the shard is its own thread's again. */
static void stay_away(struct shard *sh)
{
    struct lodge *lg = &sh->lodge;

    pthread_mutex_lock(&lg->lock);
    while (lg->place != LODGE_HOME) {
        if (lg->place == LODGE_ASKED && atomic_load_explicit(&sh->stop, memory_order_acquire)) {
            lg->place = LODGE_HOME;
            break;
        }
        pthread_cond_wait(&lg->moved, &lg->lock);
    }
    pthread_mutex_unlock(&lg->lock);
}

static void lodge(struct shard *sh)
{
    struct lodge *lg = &sh->lodge;
    struct shard *host = sh->b->shards[0];
    bool ask;

    pthread_mutex_lock(&lg->lock);
    ask = !lg->asking; /* the mail of an earlier time is under way when the host is about to end */
    if (ask) {
        lg->asking = true;
        lg->place = LODGE_ASKED;
    }
    pthread_mutex_unlock(&lg->lock);
    if (!ask) {
        return;
    }
    rcu_offline();
    lg->ask.fn = let_in;
    shard_push_now(host, &lg->ask);
    stay_away(sh);
    rcu_online();
    lodge_gauge_sent_home(&lg->gauge);
    lodge_gauge_begin(&lg->gauge, sh->now_ms, thread_cpu_ns());
}

void lodge_look(struct shard *sh)
{
    struct lodge_gauge *g = &sh->lodge.gauge;
    bool pressed;
    uint32_t load;

    if (sh->now_ms - g->since_ms < LODGE_PERIOD_MS || sh->b->nshards == 1) {
        return;
    }
    load = lodge_gauge_end(g, sh->now_ms, thread_cpu_ns(), &pressed);
    if (sh->index == 0) {
        atomic_store_explicit(&sh->lodge.load, load, memory_order_relaxed);
        if (sh->lodge.nguests > 0 && lodge_is_full(load, pressed)) {
            lodge_end(sh);
        }
        return;
    }
    if (lodge_fits(g, load,
                   atomic_load_explicit(&sh->b->shards[0]->lodge.load, memory_order_relaxed))) {
        lodge(sh);
    }
}
