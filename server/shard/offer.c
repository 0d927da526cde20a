/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A new message is offered to a session: sent at once, queued behind what waits, or dropped.
 */
#include "server/shard/ticket.h"

/* d: NULL for replays. */
static void drop(struct shard *sh, struct delivery *d, struct client *c, enum metric why)
{
    shard_count(sh, why, 1);
    if (d != NULL) {
        d->dropped++;
    }
    if (c->out != NULL) {
        c->out->dropped++;
    }
    if (!c->queue_told) {
        c->queue_told = true;
        log_limited(sh->b->log, LOGL_NOTICE, LOGR_QUEUE_FULL,
                    "client " CLIENT_FMT ": messages are being dropped: %s", CLIENT_ARGS(c),
                    metric_help(why));
    }
}

bool outq_is_idle(const struct shard *sh, const struct client *c)
{
    const struct outq *q = c->out;

    return outq_can_send(sh, c) &&
           (q == NULL ||
            (q->queue.first == NULL && !spill_is_wanted(sh, c) && outq_flight_has_room(sh, q)));
}

static bool has_room(const struct shard *sh, const struct outq *q, const struct message *m)
{
    const struct config *cfg = sh->cfg;

    uint64_t n = q->queue.count + q->disk.fresh.count + q->disk.count;

    return (cfg->max_queued_messages == 0 || n < cfg->max_queued_messages) &&
           (cfg->max_queued_bytes == 0 ||
            q->bytes + sizeof(struct out_msg) + message_size(m) <= cfg->max_queued_bytes);
}

bool outq_has_room(const struct shard *sh, const struct client *c, const struct message *m)
{
    return c->out == NULL || has_room(sh, c->out, m);
}

/* What has expired makes room first. */
static bool queue_has_room(struct shard *sh, struct client *c, const struct message *m)
{
    return has_room(sh, c->out, m) || (stale_make_room(sh, c) && has_room(sh, c->out, m));
}

/* The entry and, where it has one, its packet id, in the publish's ticket. False: no memory, and
 * the ticket is refused. */
static bool record_entry(struct shard *sh, struct client *c, struct out_msg *o,
                         struct ticket_part *part)
{
    struct store_op *op;

    o->seq = ++c->out->next_seq;
    op = ticket_op(part, ST_ENTRY_PUT);
    if (op == NULL || !ticket_wait(part, c, o)) {
        return false;
    }
    op->session = client_session(c);
    op->seq = o->seq;
    op->body = o->msg->body_id;
    op->packet_id = o->packet_id;
    op->flags = (uint8_t)(o->qos | (o->retain ? 4 : 0));
    op->number = o->extra == NULL || o->extra->nids == 0 ? 0
                 : o->extra->nids > 1                    ? SUB_IDS_SEVERAL
                                                         : o->extra->ids[0];
    op->expires_ms = o->msg->expires_ms;
    op->group = o->extra == NULL || o->extra->group == 0 ? 0 : share_mark(sh, c, o->extra->group);
    if (o->qos == 2 && o->packet_id != 0) {
        outq_move_to(o, OUT_WAIT_STORE);
    }
    return true;
}

/* The part that records it for this session; NULL: it is not to be recorded. */
static struct ticket_part *part_for(const struct shard *sh, const struct delivery *d,
                                    const struct client *c)
{
    return sh->keeps && c->durable && c->stored && d != NULL ? d->part : NULL;
}

/* There is no memory for it. It is refused where it is to be recorded, and where another member of
 * the group, which may be durable, would have got it. */
static void lose(struct shard *sh, struct delivery *d, struct client *c, const struct encode *e)
{
    drop(sh, d, c, METRIC_DROPPED_MEMORY);
    if (d != NULL && d->part != NULL && (part_for(sh, d, c) != NULL || e->group != 0)) {
        ticket_refuse(d->part);
    }
}

/* A place for the message: in flight (*direct), or for a list. NULL: no memory. */
static struct out_msg *make_room(struct shard *sh, struct client *c, struct encode *e, bool *direct,
                                 bool *at_once, struct ticket_part *part)
{
    struct outq *q = c->out;
    struct out_msg *o = outq_create(sh, q, e);

    if (o == NULL) {
        return NULL;
    }
    if (*direct && !outq_enter_flight(q, o)) {
        *direct = false;
        link_dirty(sh, c->link); /* no memory, or no id: tried again at the end of the turn */
    }
    /* The usual case: last in flight, and the first this connection has not seen. */
    *at_once = *direct && q->resend == o && q->counted < q->window;
    if ((!(*at_once && outq_goes_once(c, e->group)) && !outq_hold(o, e)) ||
        (part != NULL && !record_entry(sh, c, o, part))) {
        if (*direct) {
            outq_leave_flight(q, o);
        }
        outq_destroy(sh, q, o);
        return NULL;
    }
    return o;
}

/* Sends what stands last in flight, as the only one that this connection has not seen. */
static void send_new(struct shard *sh, struct client *c, struct out_msg *o, struct encode *e)
{
    struct outq *q = c->out;

    e->packet_id = o->packet_id;
    switch (encode_publish(sh, c->link, e)) {
    case ENCODE_OK:
        o->sent = true;
        o->counted = true;
        q->counted++;
        q->resend = NULL;
        break;
    case ENCODE_DROPPED:
        outq_done(sh, c, o);
        break;
    case ENCODE_NOMEM:
        break;
    }
}

static void offer_acknowledged(struct shard *sh, struct delivery *d, struct client *c,
                               struct encode *e)
{
    struct ticket_part *part = part_for(sh, d, c);
    struct outq *q = outq_of(sh, c);
    bool behind;
    bool direct;
    bool at_once;
    struct out_msg *o;

    if (q == NULL) {
        lose(sh, d, c, e);
        return;
    }
    behind = part != NULL && spill_is_wanted(sh, c);
    direct =
        !behind && q->queue.first == NULL && outq_can_send(sh, c) && outq_flight_has_room(sh, q);
    if (!direct && !queue_has_room(sh, c, e->msg)) {
        drop(sh, d, c, METRIC_DROPPED_QUEUE_FULL);
        return;
    }
    o = make_room(sh, c, e, &direct, &at_once, part);
    if (o == NULL) {
        lose(sh, d, c, e);
        return;
    }
    if (!direct) {
        out_list_append(behind ? &q->disk.fresh : &q->queue, o);
        stale_note(sh, c, o->msg->expires_ms);
    }
    if (direct && o->state == OUT_QUEUED) {
        outq_move_to(o, outq_wait_state(o));
    }
    if (at_once && o->state != OUT_WAIT_STORE) {
        send_new(sh, c, o, e);
    } else if (part != NULL) {
        ticket_urgent(part);
    }
}

/* Whether it would overtake messages that wait for their turn. Where QoS 0 is queued it has its
 * place among them; else it has none: it waits for no window. */
static bool waits_in_line(const struct shard *sh, const struct client *c)
{
    const struct outq *q = c->out;

    return sh->cfg->queue_qos0_messages && q != NULL &&
           (q->queue.first != NULL || q->resend != NULL || q->disk.fresh.first != NULL ||
            q->disk.count > 0);
}

/* Into the queue, which is what queue_qos0_messages asks for: for who is away, and for who does not
 * read. */
static void queue_qos0(struct shard *sh, struct delivery *d, struct client *c,
                       const struct encode *e)
{
    struct ticket_part *part = part_for(sh, d, c);
    const bool behind = part != NULL && spill_is_wanted(sh, c);
    struct outq *q = outq_of(sh, c);
    struct out_msg *o;

    if (q != NULL && !queue_has_room(sh, c, e->msg)) {
        drop(sh, d, c, METRIC_DROPPED_QUEUE_FULL);
        return;
    }
    o = q == NULL ? NULL : outq_create(sh, q, e);
    if (o != NULL && (!outq_hold(o, e) || (part != NULL && !record_entry(sh, c, o, part)))) {
        outq_destroy(sh, q, o);
        o = NULL;
    }
    if (o == NULL) {
        lose(sh, d, c, e);
        return;
    }
    out_list_append(behind ? &q->disk.fresh : &q->queue, o);
    stale_note(sh, c, o->msg->expires_ms);
}

static void offer_qos0(struct shard *sh, struct delivery *d, struct client *c,
                       const struct encode *e)
{
    if (!waits_in_line(sh, c) && outq_can_send(sh, c)) {
        (void)encode_publish(sh, c->link, e);
    } else if (sh->cfg->queue_qos0_messages) {
        queue_qos0(sh, d, c, e);
    } else if (c->link != NULL) { /* its output is full; who is not there gets no QoS 0 at all */
        drop(sh, d, c, METRIC_DROPPED_OUTPUT_FULL);
    }
}

void outq_offer(struct shard *sh, struct delivery *d, struct message *m, const struct copy *copy)
{
    struct client *c = copy->client;
    struct encode e = {.msg = m,
                       .of = d,
                       .ids = copy->nids > 1 ? sh->ids + copy->ids_at : &copy->id,
                       .nids = copy->nids,
                       .group = copy->group,
                       .qos = copy->qos,
                       .retain = copy->retain};

    if (c->dying) {
        return; /* its subscriptions are being removed in slices */
    }
    if (e.qos == 0) {
        offer_qos0(sh, d, c, &e);
    } else {
        offer_acknowledged(sh, d, c, &e);
    }
}
