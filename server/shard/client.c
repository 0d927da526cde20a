/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions of this shard: their beginning, their end, and their time without a connection.
 *
 * A session that ends leaves the table at once, so that its id is free; its subscriptions, which
 * may be very many, are removed in slices of later turns (the dying list).
 */
#include "server/shard/ticket.h"

#include <stdlib.h>

struct client *client_create(struct shard *sh, struct span id)
{
    struct client *c = calloc(1, offsetof(struct client, id) + id.n);

    if (c == NULL) {
        return NULL;
    }
    memcpy(c->id, id.p, id.n);
    c->id_n = (uint16_t)id.n;
    if (!clients_put(sh, c)) {
        free(c);
        return NULL;
    }
    c->uid = broker_new_id(sh->b);
    c->timer.fn = client_timer;
    return c;
}

static void tell_dropped(struct shard *sh, const struct client *c)
{
    if (c->out != NULL && c->out->dropped > 0) {
        log_limited(sh->b->log, LOGL_NOTICE, LOGR_QUEUE_FULL,
                    "client " CLIENT_FMT ": its session has ended, %llu messages were dropped",
                    CLIENT_ARGS(c), (unsigned long long)c->out->dropped);
    }
}

/* What a session holds besides its subscriptions. */
static void release(struct shard *sh, struct client *c)
{
    timer_cancel(&sh->wheel, &c->timer);
    outq_move_shared(sh, c, true);
    replay_forget(c);
    tell_dropped(sh, c);
    outq_free(sh, c);
    idset_free(&c->in_ids);
    will_free(&c->will);
}

void client_end(struct shard *sh, struct client *c)
{
    assert(c->link == NULL && !c->dying);
    c->dying = true; /* gets nothing more, not even what it gives back now */
    release(sh, c);
    clients_remove(sh, c);
    c->hash_next = sh->dying;
    sh->dying = c;
}

bool client_bury(struct shard *sh)
{
    uint32_t left = TURN_SUBS;

    while (sh->dying != NULL) {
        struct client *c = sh->dying;
        while (c->subs.first != NULL) {
            if (left-- == 0) {
                return true;
            }
            share_remove_sub(sh, c, c->subs.first);
        }
        sh->dying = c->hash_next;
        free(c);
    }
    return false;
}

/* ---- without a connection ---- */

void client_keep_end(struct shard *sh, uint64_t session, bool leaving)
{
    struct store_op *op = ticket_lazy(sh, ST_SESSION_END);

    if (op != NULL) {
        share_end_op(op, session, leaving);
    }
}

static void keep_end(struct shard *sh, struct client *c)
{
    struct share_moves *moves;
    bool leaving;

    if (!c->stored) {
        return;
    }
    moves = share_end(sh, c, &leaving);
    client_keep_end(sh, client_session(c), leaving);
    share_unref(sh, moves);
}

/* A will that is not wanted any more: lazily, after a crash it is sent. */
static void forget_will(struct shard *sh, const struct client *c)
{
    struct store_op *op = ticket_lazy(sh, ST_WILL_DEL);

    if (op != NULL) {
        op->session = c->uid;
    }
}

/* When it was disconnected: lazily, after a crash the session lasts longer. */
static void keep_detached(struct shard *sh, const struct client *c, int64_t since_ms)
{
    struct store_op *op;

    if (!c->stored) {
        return;
    }
    op = ticket_lazy_named(sh, ST_SESSION_PUT, c->id, c->id_n);
    if (op != NULL) {
        op->session = client_session(c);
        op->number = c->expiry_s;
        /* What an earlier crash left in doubt stays so until it is delivered. */
        op->flags = (uint8_t)(c->version | (outq_is_doubtful(c) ? SESSION_CONNECTED : 0u));
        op->expires_ms = since_ms != 0 ? since_ms : -1; /* 0 stands for connected */
    }
}

static void expire(struct shard *sh, struct client *c)
{
    shard_count(sh, METRIC_CLIENTS_DISCONNECTED, -1);
    shard_count(sh, METRIC_CLIENTS_EXPIRED, 1);
    will_publish(sh, c); /* at the latest with the session's end [MQTT-3.1.3-9] */
    keep_end(sh, c);
    client_end(sh, c);
}

/* The next thing to happen to a session without a connection: its will, or its end. */
static void arm(struct shard *sh, struct client *c, int64_t will_ms)
{
    int64_t at = c->expires_ms;

    if (c->will != NULL && will_ms < at) {
        at = will_ms;
    }
    if (at != INT64_MAX) {
        timer_set(&sh->wheel, &c->timer, at);
    }
}

void client_timer(void *owner, struct timer *t)
{
    struct shard *sh = owner;
    struct client *c = (struct client *)((char *)t - offsetof(struct client, timer));

    assert(c->link == NULL);
    if (sh->now_ms >= c->expires_ms) {
        expire(sh, c);
        return;
    }
    will_publish(sh, c);
    arm(sh, c, INT64_MAX);
}

static int64_t session_end_ms(const struct shard *sh, const struct client *c, int64_t since_ms)
{
    uint64_t limit = sh->cfg->persistent_client_expiration;
    uint64_t s = c->expiry_s == MQTT_SESSION_NEVER_EXPIRES ? 0 : c->expiry_s;

    if (s == 0 && limit == 0) {
        return INT64_MAX;
    }
    if (s == 0 || (limit != 0 && limit < s)) {
        s = limit;
    }
    return since_ms + (int64_t)s * 1000;
}

void client_restored(struct shard *sh, struct client *c, const struct restored_times *t)
{
    if (t->leaving) { /* it was not done with that when the broker ended */
        keep_end(sh, c);
        client_end(sh, c);
        return;
    }
    shard_count(sh, METRIC_CLIENTS_DISCONNECTED, 1);
    c->expires_ms = session_end_ms(sh, c, t->disconnected_ms);
    arm(sh, c, t->will_ms);
    /* The store calls it connected still, and would take the next crash for its end. */
    if (t->was_connected && (c->expires_ms != INT64_MAX || c->will != NULL)) {
        keep_detached(sh, c, t->disconnected_ms);
    }
}

void client_detach(struct shard *sh, struct client *c, bool publish_will)
{
    int64_t will_ms = sh->now_ms;

    shard_count(sh, METRIC_CLIENTS_CONNECTED, -1);
    share_set_online(sh, c, false);
    if (!publish_will) {
        if (c->will != NULL) {
            forget_will(sh, c);
        }
        will_free(&c->will);
    } else if (c->will != NULL) {
        will_ms += (int64_t)c->will->delay_s * 1000;
    }
    if (!c->durable) {
        will_publish(sh,
                     c); /* a session that ends now does not wait for the delay [MQTT-3.1.3-9] */
        keep_end(sh, c); /* one that was durable until its DISCONNECT */
        client_end(sh, c);
        return;
    }
    shard_count(sh, METRIC_CLIENTS_DISCONNECTED, 1);
    outq_move_shared(sh, c, false);
    outq_detached(sh, c);
    keep_detached(sh, c, sh->now_ms);
    c->expires_ms = session_end_ms(sh, c, sh->now_ms);
    if (will_ms <= sh->now_ms) {
        will_publish(sh, c);
    }
    arm(sh, c, will_ms);
}
