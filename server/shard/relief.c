/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory stays short: the connection that holds most of it and does not read goes.
 *
 * Pressure begins a round: from then on each connection has to show that it reads, by bytes that
 * leave. A second later all sessions are looked at, a slice of the table in each turn, and the one
 * whose end would give back most is closed. If all of them read, time may be all it takes: another
 * round begins. After long it is the one that reads least.
 *
 * A round is a number that moves: nobody has to be told of it. A connection carries the round in
 * which bytes of it left last; one that was left over from ROUNDS rounds ago counts as reading for
 * this one, and is found in the next.
 */
#include "server/shard/internal.h"

#define RELIEF_MS      250
#define READERS_MAX_MS 10000 /* short of memory for so long, even readers are closed */
#define LOOK_BUCKETS   4096u /* of the table of sessions, in a turn */

/* What the end of its connection gives back: the queue of a session that stays stays as well, but
 * for what may go to disk. */
static size_t weight(const struct shard *sh, const struct client *c)
{
    const struct outq *q = c->out;

    if (c->link == NULL) {
        return 0;
    }
    if (q == NULL || (c->durable && !sh->spills)) {
        return c->link->conn.out_n;
    }
    if (!c->stored) { /* the payload of what is in flight is not held */
        return c->link->conn.out_n + q->bytes - q->inflight_bytes;
    }
    return c->link->conn.out_n + q->bytes - (c->durable ? q->disk.bytes : 0);
}

static void begin_round(struct shard *sh)
{
    struct relief *r = &sh->relief;

    r->round = (r->round + 1u) & (RELIEF_ROUNDS - 1u);
    r->round_since_ms = sh->now_ms;
}

static void begin_look(struct shard *sh)
{
    struct relief *r = &sh->relief;

    r->looking = true;
    r->though_it_reads = sh->now_ms - r->since_ms >= READERS_MAX_MS;
    r->walk = (struct clients_walk){0};
    r->worst = 0;
    r->most = sh->cfg->output_buffer_limit;
}

static bool may_go(const struct shard *sh, const struct client *c)
{
    return c->link != NULL &&
           (sh->relief.though_it_reads || c->link->moved_round != sh->relief.round);
}

/* A slice of the table. True: that was the last. */
static bool look(struct shard *sh)
{
    struct relief *r = &sh->relief;
    struct client *c;

    for (unsigned i = 0; i < LOOK_BUCKETS; i++) {
        if (!clients_walk_next(sh, &r->walk, &c)) {
            return true;
        }
        for (; c != NULL; c = c->hash_next) {
            if (may_go(sh, c) && weight(sh, c) >= r->most) {
                r->most = weight(sh, c);
                r->worst = c->uid;
                r->worst_hash = c->id_hash;
            }
        }
    }
    return false;
}

/* NULL: nobody holds much, or who did has gone meanwhile. */
static struct client *found(const struct shard *sh)
{
    const struct relief *r = &sh->relief;

    if (r->worst == 0) {
        return NULL;
    }
    for (struct client *c = clients_of_hash(sh, r->worst_hash); c != NULL; c = c->hash_next) {
        if (c->uid == r->worst && may_go(sh, c)) {
            return c;
        }
    }
    return NULL;
}

static void act(struct shard *sh)
{
    struct client *worst = found(sh);

    if (worst == NULL) {
        begin_round(sh);
        return;
    }
    shard_count(sh, METRIC_SLOW_CONSUMERS_CLOSED, 1);
    log_limited(sh->b->log, LOGL_WARNING, LOGR_SLOW_CONSUMER,
                "memory_limit reached: closing the slowest consumer, client " CLIENT_FMT,
                CLIENT_ARGS(worst));
    link_close(sh, worst->link, RC_QUOTA_EXCEEDED, NULL);
}

static bool is_due(const struct shard *sh)
{
    const struct relief *r = &sh->relief;

    return sh->now_ms - r->round_since_ms >= PAUSE_MAX_MS && sh->now_ms >= r->next_ms;
}

bool relief_run(struct shard *sh)
{
    struct relief *r = &sh->relief;

    if (!atomic_load_explicit(&sh->b->memory_pressure, memory_order_relaxed)) {
        r->since_ms = 0;
        r->looking = false;
        return false;
    }
    if (r->since_ms == 0) {
        r->since_ms = sh->now_ms;
        begin_round(sh);
    }
    if (!r->looking && is_due(sh)) {
        r->next_ms = sh->now_ms + RELIEF_MS;
        begin_look(sh);
    }
    if (!r->looking) {
        return false;
    }
    if (look(sh)) {
        r->looking = false;
        act(sh);
    }
    return r->looking;
}
