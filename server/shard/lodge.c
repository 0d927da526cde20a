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
static void let_in(struct shard *host, struct post_item *m)
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
            lg->was_full = true;
            pthread_cond_signal(&lg->moved);
        }
    }
    pthread_mutex_unlock(&lg->lock);
}

static void send_home(struct shard *host, unsigned guest, bool full)
{
    struct shard *sh = host->lodge.guests[guest];
    struct lodge *lg = &sh->lodge;

    loop_del(&host->loop, sh->loop.epoll_fd);
    host->lodge.guests[guest] = host->lodge.guests[--host->lodge.nguests];
    pthread_mutex_lock(&lg->lock);
    lg->place = LODGE_HOME;
    lg->was_full = full;
    pthread_cond_signal(&lg->moved);
    pthread_mutex_unlock(&lg->lock);
}

static void send_all_home(struct shard *host, bool full)
{
    while (host->lodge.nguests > 0) {
        send_home(host, 0, full);
    }
}

void lodge_send_home(struct shard *host, unsigned guest)
{
    send_home(host, guest, false);
}

void lodge_end(struct shard *sh)
{
    send_all_home(sh, false);
}

/* Of its own and its guests, those that had work in this period; the next one begins. */
static unsigned count_active(struct shard *host, uint32_t waits)
{
    unsigned n = lodge_is_active(host->lodge.turns, waits);

    host->lodge.turns = 0;
    for (unsigned i = 0; i < host->lodge.nguests; i++) {
        struct lodge *lg = &host->lodge.guests[i]->lodge;
        n += lodge_is_active(lg->turns, waits);
        lg->turns = 0;
    }
    return n;
}

static void look_at_guests(struct shard *host, uint32_t load, bool pressed, uint32_t waits)
{
    const unsigned active = count_active(host, waits);

    if (lodge_is_full(load, pressed)) {
        send_all_home(host, true);
    } else if (lodge_is_lonely(&host->lodge.gauge, active)) {
        send_all_home(host, false);
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
    post_deliver(&host->post, &lg->ask);
    stay_away(sh);
    rcu_online();
    lodge_gauge_sent_home(&lg->gauge, lg->was_full);
    lodge_gauge_begin(&lg->gauge, sh->now_ms, thread_cpu_ns());
}

void lodge_look(struct shard *sh)
{
    struct lodge_gauge *g = &sh->lodge.gauge;
    const uint32_t waits = g->waits;
    bool pressed;
    uint32_t load;

    if (sh->now_ms - g->since_ms < LODGE_PERIOD_MS || sh->b->nshards == 1) {
        return;
    }
    load = lodge_gauge_end(g, sh->now_ms, thread_cpu_ns(), &pressed);
    if (sh->index == 0) {
        atomic_store_explicit(&sh->lodge.load, load, memory_order_relaxed);
        if (sh->lodge.nguests > 0) {
            look_at_guests(sh, load, pressed, waits);
        }
        return;
    }
    if (lodge_fits(g, load,
                   atomic_load_explicit(&sh->b->shards[0]->lodge.load, memory_order_relaxed))) {
        lodge(sh);
    }
}
