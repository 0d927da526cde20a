/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One publish to everybody interested: matched once, one mailbox item per interested shard, this
 * shard's own subscribers served at once.
 *
 * Retained messages take their number, change the index and go to all shards, this one included, by
 * mail under their stripe's lock, so that index and wire agree on who was last. Until such mail of
 * ours has come back, what is published here goes to our own subscribers by mail as well: one
 * publisher's messages travel in one queue.
 */
#include "server/shard/ticket.h"

#include "server/base/sys_topic.h"

#include <stdlib.h>

/* The message is to be kept: no longer one that is lent. False: no memory. */
static bool own(struct route *r)
{
    if (r->msg->lent) {
        struct message *m = message_copy(r->msg);

        if (m == NULL) {
            return false;
        }
        r->msg = m;
    }
    return true;
}

void route_drop(struct route *r)
{
    if (r->msg != NULL && !r->msg->lent) {
        message_unref(r->msg);
    }
    r->msg = NULL;
}

/* Groups may come and go between two looks: the number seen first is a bound for the second. */
static uint32_t count_groups(const struct shard *sh, const struct match *match,
                             const struct match_target *t)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        for (struct share_group *g =
                 shares_of_filter(sh->b->shares, match_ids(match)[t->first + i]);
             g != NULL; g = shares_next(g)) {
            n++;
        }
    }
    return n;
}

/* Its publisher can be told that no session had room for it, which the receivers' shards know. */
static bool asks(const struct route *r)
{
    return r->link != NULL && r->link->version == MQTT_5 && r->msg->qos > 0 &&
           r->msg->number == 0 && !r->link->lazy_acks;
}

/* What has to be on disk before the publisher gets its answer; NULL in *out: nothing. False: no
 * memory. */
static bool ticket_for(struct shard *sh, struct route *r, const struct match *match,
                       struct ticket **out)
{
    const struct message *m = r->msg;
    bool inbound = sh->keeps && m->qos == 2 && r->publisher != NULL && r->publisher->stored;
    uint32_t nparts = 1;
    uint32_t nops = 0; /* as in fill_origin() */

    *out = NULL;
    if (!sh->keeps && !asks(r)) {
        return true;
    }
    if (m->qos == 0 && r->will_of == 0 && !sh->cfg->queue_qos0_messages) {
        return true;
    }
    for (uint32_t i = 0; i < match->ntargets; i++) {
        nparts += match->targets[i].shard == TREE_GROUPS
                      ? count_groups(sh, match, &match->targets[i])
                      : (match->targets[i].kinds & TREE_DURABLE) != 0;
    }
    if (nparts == 1 && (!sh->keeps || (!inbound && m->number == 0 && r->will_of == 0))) {
        return true; /* nobody durable: no entry, and the disk is not touched */
    }
    /* Decided here once, before anything is pushed. The broker's own wills are always taken. */
    if (r->link != NULL && store_health(sh->b->store) != ST_OK) {
        r->refused = m->qos > 0;
        return m->qos == 0; /* that is queued in memory, or not at all */
    }
    if (!own(r)) {
        return false;
    }
    if (inbound) {
        ticket_before_inbound(sh, client_session(r->publisher), r->packet_id);
    }
    nops += nparts > 1;
    nops += inbound;
    nops += r->will_of != 0;
    *out = ticket_create(sh, nparts, nops);
    if (*out != NULL) {
        (*out)->only_asks = !sh->keeps;
    }
    return *out != NULL;
}

static struct store_bytes bytes_of(const void *p, size_t n)
{
    return (struct store_bytes){p, n};
}

/* The origin's part: the body, if anybody may keep an entry of it, and the publisher's QoS 2 id. */
static void fill_origin(struct ticket *t, const struct route *r)
{
    struct ticket_part *p = &t->part[0];
    struct message *m = r->msg;
    struct store_op *op;

    if (t->unsent && r->link != NULL) { /* just made of a packet, and not retained */
        message_ref_unshared(m);
    } else {
        message_ref(m, 1);
    }
    p->msg = m;
    if (t->only_asks) {
        return;
    }
    if (t->nparts > 1) {
        ticket_body(p, m);
    }
    if (r->will_of != 0) {
        op = ticket_op(p, ST_WILL_DEL);
        if (op != NULL) {
            op->session = r->will_of;
        }
    }
    if (m->qos == 2 && r->publisher != NULL && r->publisher->stored) {
        op = ticket_op(p, ST_INBOUND_PUT);
        if (op != NULL) {
            op->session = client_session(r->publisher);
            op->packet_id = r->packet_id;
        }
    }
}

/* The retained record, before the ticket of its publish, in the order of numbers (under the
 * stripe's lock). False: no memory. */
static bool keep_retained(struct shard *sh, struct message *m)
{
    struct ticket *t;
    struct store_op *op;

    if (!sh->keeps || sys_topic_begins(span_of(message_topic(m), m->topic_n), SYS_TOPIC_PREFIX)) {
        return true; /* $SYS is never stored */
    }
    t = ticket_create(sh, 1, 1);
    if (t == NULL) {
        return false;
    }
    op = ticket_op(&t->part[0], m->payload_n == 0 ? ST_RETAINED_DEL : ST_RETAINED_PUT);
    if (op != NULL) {
        message_ref(m, 1);
        t->part[0].msg = m;
        op->seq = m->number;
        op->number = 0;
        op->name = bytes_of(message_topic(m), m->topic_n);
        op->data = bytes_of(message_payload(m), m->payload_n);
        op->props = bytes_of(message_props(m), m->props_n);
        op->flags = m->qos;
        op->expires_ms = m->expires_ms;
        t->retained = m->payload_n > 0 && kept_on_disk(sh, m);
    }
    ticket_finish(&t->part[0]);
    return op != NULL;
}

/* Into the index, and to the store. t: of its publish, NULL: none. */
static void retain(struct shard *sh, struct retained_stripe *stripe, struct message *m,
                   struct ticket *t)
{
    struct ticket_part *part = t == NULL ? NULL : &t->part[0];

    switch (retained_put(stripe, m)) {
    case RETAINED_SET:
    case RETAINED_CHANGED:
    case RETAINED_CLEARED:
    case RETAINED_NOTHING:
        if (!keep_retained(sh, m)) {
            delivery_lost(sh, part, 1);
        }
        break;
    case RETAINED_FULL:
        part = NULL; /* the limits are known: taken, and not retained */
        __attribute__((fallthrough));
    case RETAINED_NOMEM:
        delivery_lost(sh, part, 1);
        log_limited(sh->b->log, LOGL_WARNING, LOGR_MEMORY,
                    "a retained message was not kept: max_retained_messages, "
                    "max_retained_bytes or memory");
        break;
    }
}

static void answer_later(struct shard *sh, struct route *r, struct ticket *t)
{
    struct in_id *e;

    if (r->msg->qos == 0 || (r->link != NULL && r->link->lazy_acks)) {
        return; /* not acknowledged, or at once; the store follows */
    }
    r->ticketed = true;
    t->may_decline = asks(r);
    if (r->link != NULL) {
        t->comes_again = true;
        t->slot = link_slot(sh, r->link, r->msg->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, r->packet_id,
                            r->matched ? RC_SUCCESS : RC_NO_MATCHING_SUBSCRIBERS, NULL, 0);
    }
    e = r->msg->qos == 2 && r->publisher != NULL ? idset_find(&r->publisher->in_ids, r->packet_id)
                                                 : NULL;
    if (e != NULL) { /* a repeat of it has to wait as well */
        e->ticket = t;
        t->inbound = &r->publisher->in_ids;
        t->inbound_id = r->packet_id;
    }
}

/* A part that goes nowhere; NULL is fine. */
static void finish_part(struct shard *sh, struct ticket_part *part)
{
    if (part != NULL) {
        part->shard = sh;
        ticket_finish(part);
    }
}

/* Sends to one target. Allocates, so it may fail: then the target's subscribers miss it, counted.
 */
static void send_to(struct shard *sh, struct route *r, struct match *match, uint32_t target,
                    struct ticket_part *part)
{
    struct shard *to = sh->b->shards[match->targets[target].shard];
    struct delivery *d;

    if (part == NULL && to != sh && run_takes(r->msg)) {
        if (!run_send(sh, to, r->msg, match, target)) {
            shard_count(sh, METRIC_DROPPED_MEMORY, 1);
        }
        return;
    }
    if (part != NULL && to != sh && match->targets[target].count == 1) {
        struct message *m = r->msg; /* its own: it has a ticket */

        if (match->ntargets == 1) {
            r->msg = NULL;
        } else {
            message_ref(m, 1);
        }
        ticket_send(sh, part, m, match_ids(match)[match->targets[target].first]);
        return;
    }
    d = own(r) ? delivery_create(r->msg, match, target, part) : NULL;
    if (d == NULL) {
        delivery_lost(sh, part, 1);
        finish_part(sh, part);
        return;
    }
    if (to == sh) {
        d->own = true;
        sh->self_pending++;
    }
    post_send(&sh->post, &to->post, &d->mail);
}

/* What came of the message where no part of a ticket says it. */
static void note_took(struct route *r, struct ticket *t, uint32_t given, uint32_t dropped)
{
    if (t != NULL) {
        ticket_took(&t->part[0], given, dropped);
    }
    r->taken = r->taken || given > dropped;
    r->dropped = r->dropped || dropped > 0;
}

/* One member of each group [MQTT-4.8.2-3 ff.]. */
static void send_groups(struct shard *sh, struct route *r, const struct match *match,
                        const struct match_target *target, struct ticket *t, uint32_t *next_part,
                        bool own_by_mail)
{
    if (!own(r)) {
        assert(t == NULL); /* else it is our own already */
        delivery_lost(sh, NULL, 1);
        return;
    }
    for (uint32_t i = 0; i < target->count; i++) {
        for (struct share_group *g =
                 shares_of_filter(sh->b->shares, match_ids(match)[target->first + i]);
             g != NULL; g = shares_next(g)) {
            struct ticket_part *part = NULL;
            if (t != NULL) {
                if (*next_part == t->nparts) {
                    return; /* a group younger than the ticket */
                }
                part = &t->part[(*next_part)++];
            }
            if (!share_dispatch(sh, g, r->msg, part, own_by_mail)) {
                delivery_lost(sh, part, 1);
                finish_part(sh, part);
            }
        }
    }
}

/* Parts that found no taker, since a group went between two looks. */
static void finish_rest(struct shard *sh, struct ticket *t, uint32_t next_part)
{
    for (; t != NULL && next_part < t->nparts; next_part++) {
        finish_part(sh, &t->part[next_part]);
    }
}

static void send_all(struct shard *sh, struct route *r, struct match *match, struct ticket *t,
                     bool own_by_mail)
{
    const struct match_target *groups = NULL;
    uint32_t next_part = 1;
    struct ticket_part *own_part = NULL;
    bool has_own = false;
    uint32_t own_target = 0;

    for (uint32_t i = 0; i < match->ntargets; i++) {
        const struct match_target *target = &match->targets[i];
        struct ticket_part *part = NULL;

        if (target->shard == TREE_GROUPS) {
            groups = target;
            continue;
        }
        if (t != NULL && (target->kinds & TREE_DURABLE) != 0) {
            part = &t->part[next_part++];
            part->shard = sh->b->shards[target->shard];
        }
        if (target->shard != sh->index || own_by_mail) {
            send_to(sh, r, match, i, part);
            if (part == NULL) { /* nobody waits for what comes of it there */
                note_took(r, t, 1, 0);
            }
        } else {
            has_own = true;
            own_target = i;
            own_part = part;
        }
    }
    if (groups != NULL) { /* after the others have their parts: what is left is theirs */
        send_groups(sh, r, match, groups, t, &next_part, own_by_mail);
        if (t == NULL) {
            note_took(r, NULL, 1, 0); /* nobody waits for what comes of it */
        }
    }
    finish_rest(sh, t, next_part);
    if (has_own) { /* last: what others have to do starts meanwhile */
        struct delivery d = {.msg = r->msg,
                             .match = match,
                             .target = own_target,
                             .part = own_part,
                             .owns = !r->msg->lent};
        r->msg = NULL;
        deliver_now(sh, &d);
        if (own_part == NULL) {
            note_took(r, t, d.given, d.dropped);
        }
        delivery_unref(&d);
    }
}

/* One of the places where the shard keeps references. */
static struct match **routed_place(struct shard *sh, const struct match *match)
{
    const uintptr_t at = (uintptr_t)match / 64;

    return &sh->routed[(at ^ at / ROUTED) % ROUTED];
}

/* The match of a message, with a reference. Of several to one topic only the first asks the cache,
 * and of several that come again and again only the first counts a reference: the shard keeps that
 * one for the next. */
static struct match *match_for(struct shard *sh, const struct route *r)
{
    const struct message *m = r->msg;
    struct match *match = r->known ? match_cache_again(sh->cache, sh->known_mark) : NULL;

    if (match == NULL) {
        match = match_cache_get(sh->cache, message_topic(m), m->topic_n);
        sh->known_mark = r->known ? match_cache_mark(sh->cache) : sh->known_mark;
    }
    if (match != NULL && *routed_place(sh, match) == match) {
        *routed_place(sh, match) = NULL;
    } else if (match != NULL) {
        match_ref(match, 1); /* deliveries may ask the cache again */
    }
    return match;
}

static void keep_match(struct shard *sh, struct match *match)
{
    struct match **place = routed_place(sh, match);

    if (*place != NULL) {
        match_unref(*place);
    }
    *place = match;
}

static bool is_retained(const struct shard *sh, const struct message *m)
{
    return m->retain && sh->cfg->retain_available;
}

bool route_publish(struct shard *sh, struct route *r)
{
    struct message *m = r->msg;
    bool retained = is_retained(sh, m);
    struct retained_stripe *stripe = NULL;
    struct match *match;
    struct ticket *t = NULL;
    bool ok = false;

    r->retained = retained;
    if (retained) {
        stripe = retained_lock(sh->b->retained, message_topic(m), m->topic_n);
        m->number = retained_take_number(stripe);
    }
    /* Read after the number was taken: a subscriber that is not in this match replays it
     * [retained.h]. */
    match = match_for(sh, r);
    if (match == NULL) {
        goto out;
    }
    r->matched = match->ntargets > 0;
    if (!ticket_for(sh, r, match, &t)) {
        goto out;
    }
    m = r->msg;
    m->body_id = t != NULL && !t->only_asks && t->nparts > 1 ? shard_body_id(sh) : 0;
    if (retained) {
        retain(sh, stripe, m, t);
    }
    if (t != NULL) {
        t->unsent = !retained; /* else it leaves with the stripe's lock held */
        fill_origin(t, r);
        answer_later(sh, r, t);
        if (r->publisher != NULL) {
            ticket_hold(sh, t, r->publisher->uid,
                        m->qos == 1 && m->number == 0 && r->will_of == 0 && t->nparts > 1 &&
                            !t->only_asks);
        }
    }
    send_all(sh, r, match, t, retained || sh->self_pending > 0);
    ok = true;
out:
    if (match != NULL) {
        keep_match(sh, match);
    }
    if (retained) {
        /* What was pushed so far is on its way in this order; the rest of the outboxes may follow
         * later. */
        for (unsigned i = 0; ok && i < sh->b->nshards; i++) {
            post_flush(&sh->post, &sh->b->shards[i]->post);
        }
        retained_unlock(stripe);
    }
    if (t != NULL) {
        ticket_finish(&t->part[0]);
    }
    route_drop(r);
    return ok;
}
