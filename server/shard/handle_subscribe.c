/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SUBSCRIBE and UNSUBSCRIBE.
 *
 * A packet may hold 100,000 filters. When the turn's budget runs out in the middle, what was done
 * is kept with the connection (struct sub_progress) and the same packet is gone on with in the next
 * turn.
 */
#include "server/shard/ticket.h"

#include <stdlib.h>

#include "routing/topic.h"

struct sub_progress {
    struct subscribe packet; /* decoded when it was begun; only values of it are used later */
    size_t offset;           /* in the packet's body, of the filters not handled yet */
    size_t done;             /* filters handled; codes[] has as many */
    struct ticket *ticket;   /* NULL: nothing to store */
    struct replay *replays, **replays_last;
    uint8_t codes[];
};

void sub_progress_free(struct sub_progress *p)
{
    if (p == NULL) {
        return;
    }
    replay_cancel_list(p->replays);
    if (p->ticket != NULL) { /* what was done is kept all the same; nobody waits for the answer */
        ticket_finish(&p->ticket->part[0]);
    }
    free(p);
}

static bool begin(struct shard *sh, struct link *l, const struct subscribe *s, struct span body)
{
    struct sub_progress *p = calloc(1, sizeof(*p) + s->count);

    if (p == NULL) {
        return false;
    }
    p->packet = *s;
    p->offset = (size_t)(s->rest.p - body.p);
    p->replays_last = &p->replays;
    if (sh->keeps && l->client->stored) {
        p->ticket = ticket_create(sh, 1, 2);
        if (p->ticket == NULL) {
            free(p);
            return false;
        }
    }
    l->progress = p;
    return true;
}

static void answer(struct shard *sh, struct link *l, enum mqtt_type type, uint16_t packet_id,
                   size_t count)
{
    struct sub_progress *p = l->progress;
    struct ack_slot *s = link_slot(sh, l, type, packet_id, RC_SUCCESS, p->codes, count);
    struct ticket *t = p->ticket;

    if (s == NULL) {
        return; /* being closed; the progress goes with the link */
    }
    s->replays = p->replays;
    l->progress = NULL;
    free(p);
    if (t != NULL) {
        link_slot_wait(sh, l, s, t);
        ticket_finish(&t->part[0]);
    } else {
        link_slot_ready(sh, s);
    }
}

/* A filter as it is kept: the text with the listener's mount point, and for a shared one the part
 * behind the group. */
struct placed {
    struct span text;   /* "$share/group/" included */
    struct span filter; /* what topics are matched against */
    bool shared;
};

/* How a filter that cannot be used is answered. */
enum place_rc {
    PLACE_OK,
    PLACE_INVALID,
    PLACE_UNUSABLE, /* valid as it was sent, but not with the mount point */
};

/* Takes the text apart and checks it, as it was sent and as it is used; buf has TOPIC_TEXT_MAX
 * bytes. */
static enum place_rc place(const struct shard *sh, const struct link *l, struct span text,
                           char *buf, struct placed *out)
{
    const char *mount = listener_conf(l->listener)->mount_point;
    size_t mount_n = mount == NULL ? 0 : strlen(mount);
    const char *group;
    const char *filter;
    size_t group_n;
    size_t filter_n;
    size_t head; /* "$share/group/" */

    if (!topic_split_shared((const char *)text.p, text.n, &out->shared, &group, &group_n, &filter,
                            &filter_n) &&
        out->shared) {
        return PLACE_INVALID;
    }
    if (!out->shared) {
        filter = (const char *)text.p;
        filter_n = text.n;
    }
    if (!topic_filter_is_valid(filter, filter_n, sh->cfg->max_topic_levels)) {
        return PLACE_INVALID;
    }
    if (text.n + mount_n > TOPIC_MAX) {
        return PLACE_UNUSABLE;
    }
    head = text.n - filter_n;
    out->text = text;
    if (mount_n > 0) {
        memcpy(buf, text.p, head);
        memcpy(buf + head, mount, mount_n);
        memcpy(buf + head + mount_n, filter, filter_n);
        out->text = span_of(buf, text.n + mount_n);
    }
    out->filter = span_of(out->text.p + head, out->text.n - head);
    if (mount_n > 0 && !topic_filter_is_valid((const char *)out->filter.p, out->filter.n,
                                              sh->cfg->max_topic_levels)) {
        return PLACE_UNUSABLE; /* "#" behind a mount point that does not end with '/' */
    }
    return PLACE_OK;
}

static uint8_t failure(const struct link *l, enum mqtt_reason reason)
{
    return l->version == MQTT_5 ? (uint8_t)reason : SUBACK3_FAILURE;
}

static void record_sub(struct ticket *t, const struct client *c, const struct sub_options *o,
                       struct span filter)
{
    struct store_op *op = t == NULL ? NULL : ticket_op(&t->part[0], ST_SUB_PUT);

    if (op != NULL) {
        op->session = client_session(c);
        op->name = ticket_bytes(&t->part[0], filter.p, filter.n);
        op->number = o->id;
        op->flags = (uint8_t)(o->qos | o->no_local << 2 | o->retain_as_published << 3 |
                              o->retain_handling << 4);
    }
}

/* Whether this subscription gets retained messages now [MQTT-3.3.1-9 ff.]. */
static bool wants_replay(const struct shard *sh, const struct sub_options *o, bool is_new)
{
    return sh->cfg->retain_available &&
           (o->retain_handling == 0 || (o->retain_handling == 1 && is_new));
}

static bool add_replay(struct shard *sh, struct sub *sub, struct sub_progress *p)
{
    struct replay *r;

    /* After the subscription is in the tree (seq_cst in both): see retained.h. */
    sub->floor = retained_counter(sh->b->retained) & SUB_FLOOR_MAX; /* never that many */
    if (!replay_create(sh, sub, &r)) {
        return false;
    }
    if (r != NULL) {
        replay_append(&p->replays_last, r);
    }
    return true;
}

/* 3.x clients have no code for it: a malformed filter ends the connection, as they know it from
 * their brokers. */
static uint8_t invalid_filter(struct shard *sh, struct link *l, enum place_rc rc)
{
    if (l->version != MQTT_5 && rc == PLACE_INVALID) {
        handle_malformed(sh, l, DEC_TOPIC_FILTER, "invalid topic filter");
    }
    return failure(l, RC_TOPIC_FILTER_INVALID);
}

static struct sub_options options_of(const struct link *l, const struct subscribe *s,
                                     const struct subscribe_item *item, const struct placed *at)
{
    const struct client *c = l->client;
    uint8_t max_qos = (uint8_t)listener_conf(l->listener)->max_qos;

    return (struct sub_options){.qos = item->qos < max_qos ? item->qos : max_qos,
                                .no_local = item->no_local || (c->bridge && !at->shared),
                                .retain_as_published = item->retain_as_published || c->bridge,
                                .retain_handling = item->retain_handling,
                                .durable = c->durable,
                                .shared = at->shared,
                                .id = s->props.subscription_id};
}

/* What follows when a subscription is there that was not, or is there again. False: no memory. */
static bool settle(struct shard *sh, struct client *c, struct sub *sub, const struct sub_options *o,
                   const struct placed *at, bool is_new, struct sub_progress *p)
{
    if (is_new) {
        shard_count(sh, METRIC_SUBSCRIPTIONS, 1);
    }
    if (at->shared) { /* no retained messages [MQTT-3.8.4-4 of 5.0, 4.8.2] */
        return !is_new || share_join(sh, c, sub, at->filter);
    }
    return !wants_replay(sh, o, is_new) || add_replay(sh, sub, p);
}

static uint8_t subscribe_one(struct shard *sh, struct link *l, const struct subscribe *s,
                             const struct subscribe_item *item, struct sub_progress *p)
{
    struct client *c = l->client;
    uint32_t max = sh->cfg->max_subscriptions_per_client;
    struct sub_options o;
    enum place_rc placed;
    struct placed at;
    struct sub *sub;
    enum subs_rc rc;

    placed = place(sh, l, item->filter, (char *)sh->scratch + READ_SCRATCH, &at);
    if (placed != PLACE_OK) {
        return invalid_filter(sh, l, placed);
    }
    if (at.shared && item->no_local) { /* [MQTT-3.8.3-4] */
        handle_malformed(sh, l, DEC_PROTOCOL, "no local in a shared subscription");
        return RC_PROTOCOL_ERROR;
    }
    if (max != 0 && c->subs.count >= max &&
        subscribers_find(sh->subs, (uintptr_t)c, (const char *)at.text.p, at.text.n) == NULL) {
        return failure(l, RC_QUOTA_EXCEEDED);
    }
    o = options_of(l, s, item, &at);
    rc = subscribers_put(sh->subs, &c->subs, (uintptr_t)c, (const char *)at.text.p, at.text.n, &o,
                         &sub);
    if (rc == SUBS_NOMEM) {
        return failure(l, RC_UNSPECIFIED_ERROR);
    }
    if (!settle(sh, c, sub, &o, &at, rc == SUBS_NEW, p)) {
        if (rc == SUBS_NEW) {
            share_remove_sub(sh, c, sub);
        }
        return failure(l, RC_UNSPECIFIED_ERROR);
    }
    record_sub(p->ticket, c, &o, at.text);
    log_subscribe(sh->b->log, "%.*s %u %.*s", CLIENT_ARGS(c), o.qos, (int)at.text.n,
                  (const char *)at.text.p);
    return o.qos;
}

static uint8_t unsubscribe_one(struct shard *sh, struct link *l, const struct subscribe_item *item,
                               struct sub_progress *p)
{
    struct client *c = l->client;
    enum place_rc placed;
    struct placed at;
    struct sub *sub;
    struct store_op *op;
    uint64_t group;

    placed = place(sh, l, item->filter, (char *)sh->scratch + READ_SCRATCH, &at);
    if (placed != PLACE_OK) {
        return invalid_filter(sh, l, placed);
    }
    sub = subscribers_find(sh->subs, (uintptr_t)c, (const char *)at.text.p, at.text.n);
    if (sub == NULL) {
        return RC_NO_SUBSCRIPTION_EXISTED;
    }
    group = sub->shared ? filter_subs_id(sub->filter) : 0;
    share_remove_sub(sh, c, sub);
    if (group != 0) {
        outq_move_group(sh, c, group); /* what stays, for want of another member, is still sent */
    } else {
        outq_unsubscribed(c);
    }
    op = p->ticket == NULL ? NULL : ticket_op(&p->ticket->part[0], ST_SUB_DEL);
    if (op != NULL) {
        op->session = client_session(c);
        op->name = ticket_bytes(&p->ticket->part[0], at.text.p, at.text.n);
    }
    log_unsubscribe(sh->b->log, "%.*s %.*s", CLIENT_ARGS(c), (int)at.text.n,
                    (const char *)at.text.p);
    return RC_SUCCESS;
}

bool subscription_restore(struct shard *sh, struct client *c, struct span text, uint8_t flags,
                          uint32_t id)
{
    struct sub_options o = {.qos = flags & 3,
                            .no_local = (flags & 4) != 0,
                            .retain_as_published = (flags & 8) != 0,
                            .retain_handling = flags >> 4 & 3,
                            .durable = true,
                            .id = id};
    const char *group;
    const char *filter;
    size_t group_n;
    size_t filter_n;
    struct sub *sub;
    enum subs_rc rc;

    if (topic_split_shared((const char *)text.p, text.n, &o.shared, &group, &group_n, &filter,
                           &filter_n) &&
        !o.shared) {
        filter = NULL;
    }
    rc = subscribers_put(sh->subs, &c->subs, (uintptr_t)c, (const char *)text.p, text.n, &o, &sub);
    if (rc != SUBS_NEW) {
        return rc == SUBS_REPLACED;
    }
    shard_count(sh, METRIC_SUBSCRIPTIONS, 1);
    if (o.shared && !share_join(sh, c, sub, span_of(filter, filter_n))) {
        sub->shared = false; /* it did not join */
        share_remove_sub(sh, c, sub);
        return false;
    }
    return true;
}

/* Works through the packet as far as the budget goes; answers at its end. */
static void work(struct shard *sh, struct link *l, struct span body, enum mqtt_type answer_type)
{
    struct sub_progress *p = l->progress;
    struct subscribe s = p->packet;
    struct subscribe_item item;

    /* The same bytes, but perhaps not in the same place as in the turn before. */
    assert(p->offset <= body.n);
    s.rest = span_of(body.p + p->offset, body.n - p->offset);
    while (sh->budget > 0 && subscribe_next(&s, &item)) {
        sh->budget--;
        assert(p->done < p->packet.count);
        p->codes[p->done++] = answer_type == MQTT_SUBACK ? subscribe_one(sh, l, &s, &item, p)
                                                         : unsubscribe_one(sh, l, &item, p);
    }
    if (p->done == p->packet.count) {
        answer(sh, l, answer_type, p->packet.packet_id, p->packet.count);
        return;
    }
    p->offset = (size_t)(s.rest.p - body.p); /* l->progress stays: this packet comes again */
}

typedef enum dec_rc (*decode_fn)(struct subscribe *out, struct span body, enum mqtt_version v,
                                 const char **why);

static void handle(struct shard *sh, struct link *l, struct span body, decode_fn decode,
                   enum mqtt_type answer_type)
{
    struct subscribe s;
    const char *why = NULL;
    enum dec_rc rc;

    if (l->progress == NULL) {
        rc = decode(&s, body, l->version, &why);
        if (rc != DEC_OK) {
            handle_malformed(sh, l, rc, why);
            return;
        }
        if (s.has_controls && handle_controls(sh, l)) {
            return;
        }
        if (!begin(sh, l, &s, body)) {
            link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
            return;
        }
    }
    work(sh, l, body, answer_type);
}

void handle_subscribe(struct shard *sh, struct link *l, struct span body)
{
    handle(sh, l, body, subscribe_decode, MQTT_SUBACK);
}

void handle_unsubscribe(struct shard *sh, struct link *l, struct span body)
{
    handle(sh, l, body, unsubscribe_decode, MQTT_UNSUBACK);
}
