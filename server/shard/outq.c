/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on their way to one session.
 *
 * Happy path: a message gets the next packet id, stands last in flight, is sent, and goes when its
 * last acknowledgement comes. When the window or the socket is full it waits in the queue, without
 * an id.
 *
 * In flight is one list in the order of sending. `resend` points to the first message there that
 * the present connection has not seen: after a reconnect that is the first of all, and the same
 * pump that sends new messages sends the old ones again, with DUP and the same ids, PUBREL where
 * PUBREC had come [MQTT-4.4.0-1].
 *
 * Failure modes: the queue is at its limit - the new message is dropped, counted, and said once
 * for each session, with the total when the session ends; no memory - the same, counted apart; a
 * message the client cannot take - dropped, counts as delivered.
 */
#include "server/shard/ticket.h"

#include <stdlib.h>

#define IDS_FIRST 16u
#define IDS_MAX   65536u

static const struct {
    uint16_t next; /* bits of the states that may follow */
} moves[OUT_STATES] = {
    [OUT_QUEUED] = {1u << OUT_WAIT_STORE | 1u << OUT_WAIT_PUBACK | 1u << OUT_WAIT_PUBREC},
    [OUT_WAIT_STORE] = {1u << OUT_WAIT_PUBREC},
    [OUT_WAIT_PUBACK] = {0},
    [OUT_WAIT_PUBREC] = {1u << OUT_WAIT_PUBCOMP},
    [OUT_WAIT_PUBCOMP] = {0},
};

void outq_move_to(struct out_msg *o, enum out_state s)
{
    assert((moves[o->state].next >> s) & 1u);
    o->state = (uint8_t)s;
}

/* ---- lists ---- */

void out_list_append(struct out_list *l, struct out_msg *o)
{
    o->next = NULL;
    o->prev = l->last;
    if (l->last != NULL) {
        l->last->next = o;
    } else {
        l->first = o;
    }
    l->last = o;
    l->count++;
}

static void list_prepend(struct out_list *l, struct out_msg *o)
{
    o->prev = NULL;
    o->next = l->first;
    if (l->first != NULL) {
        l->first->prev = o;
    } else {
        l->last = o;
    }
    l->first = o;
    l->count++;
}

void out_list_remove(struct out_list *l, struct out_msg *o)
{
    if (o->prev != NULL) {
        o->prev->next = o->next;
    } else {
        l->first = o->next;
    }
    if (o->next != NULL) {
        o->next->prev = o->prev;
    } else {
        l->last = o->prev;
    }
    l->count--;
}

/* Ours, or the client's receive maximum where that is less [MQTT-3.3.4-9]. */
static void set_window(const struct shard *sh, const struct client *c)
{
    c->out->window = sh->cfg->max_inflight_messages;
    if (c->link != NULL && c->link->v5 != NULL && c->link->v5->receive_maximum < c->out->window) {
        c->out->window = c->link->v5->receive_maximum;
    }
}

struct outq *outq_of(struct shard *sh, struct client *c)
{
    if (c->out == NULL) {
        c->out = calloc(1, sizeof(*c->out));
        if (c->out != NULL) {
            stale_init(c);
            set_window(sh, c);
        }
    }
    return c->out;
}

/* ---- packet ids ---- */

static bool ids_grow(struct outq *q)
{
    uint32_t cap = q->cap == 0 ? IDS_FIRST : q->cap * 2;
    struct out_msg **by_id = calloc(cap, sizeof(*by_id));

    if (by_id == NULL) {
        return false;
    }
    /* What differs modulo cap differs modulo 2 cap: no collisions. */
    for (struct out_msg *o = q->inflight.first; o != NULL; o = o->next) {
        by_id[o->packet_id & (cap - 1)] = o;
    }
    free(q->by_id);
    q->by_id = by_id;
    q->cap = cap;
    return true;
}

/* The next free id, in the order of numbers [MQTT-2.2.1-3]; one in use is never given out. 0: no
 * memory or none left. */
static uint16_t take_id(struct outq *q, struct out_msg *o)
{
    uint32_t usable = q->cap == IDS_MAX ? IDS_MAX - 1 : q->cap; /* there is no id 0 */
    uint16_t id = q->last_id;

    if (q->inflight.count >= usable && (q->cap == IDS_MAX || !ids_grow(q))) {
        return 0;
    }
    do {
        id++;
    } while (id == 0 || q->by_id[id & (q->cap - 1)] != NULL);
    q->by_id[id & (q->cap - 1)] = o;
    q->last_id = id;
    o->packet_id = id;
    return id;
}

/* A message whose id was given out before a restart; false: no memory. */
static bool place_id(struct outq *q, struct out_msg *o, uint16_t packet_id)
{
    while (q->cap == 0 || q->by_id[packet_id & (q->cap - 1)] != NULL) {
        if (q->cap == IDS_MAX || !ids_grow(q)) {
            return false;
        }
    }
    q->by_id[packet_id & (q->cap - 1)] = o;
    o->packet_id = packet_id;
    q->last_id = packet_id;
    return true;
}

struct out_msg *outq_find(struct client *c, uint16_t packet_id)
{
    struct out_msg *o;

    if (c->out == NULL || c->out->cap == 0) {
        return NULL;
    }
    o = c->out->by_id[packet_id & (c->out->cap - 1)];
    return o != NULL && o->packet_id == packet_id ? o : NULL;
}

/* ---- messages ---- */

static void account(struct shard *sh, struct outq *q, struct out_msg *o, size_t bytes)
{
    o->bytes = (uint32_t)(bytes > UINT32_MAX ? UINT32_MAX : bytes);
    q->bytes += o->bytes;
    shard_count(sh, METRIC_QUEUED_MESSAGES, 1);
    shard_count(sh, METRIC_QUEUED_BYTES, o->bytes);
}

static void unaccount_bytes(struct shard *sh, struct outq *q, struct out_msg *o)
{
    q->bytes -= o->bytes;
    if (o->packet_id != 0) {
        q->inflight_bytes -= o->payload;
    }
    shard_count(sh, METRIC_QUEUED_BYTES, -(int64_t)o->bytes);
    o->bytes = 0;
    o->payload = 0;
}

/* ---- a message under way ---- */

/* As many as are kept for the next ones: none where a sanitizer has to see who uses them after
 * their end. */
#ifdef __SANITIZE_ADDRESS__
#define SPARE_MAX 0u
#else
#define SPARE_MAX 4096u
#endif

static struct out_msg *take(struct shard *sh)
{
    struct out_msg *o = sh->spare;

    if (o == NULL) {
        o = calloc(1, sizeof(*o));
        sh->nmessages += o != NULL;
        return o;
    }
    sh->spare = o->next;
    sh->nspare--;
    sh->nmessages++;
    *o = (struct out_msg){0};
    return o;
}

static void put_back(struct shard *sh, struct out_msg *o)
{
    sh->nmessages--;
    if (sh->nspare + 1 > SPARE_MAX) {
        free(o);
        return;
    }
    o->next = sh->spare;
    sh->spare = o;
    sh->nspare++;
}

void outq_free_spare(struct shard *sh)
{
    while (sh->spare != NULL) {
        struct out_msg *next = sh->spare->next;
        free(sh->spare);
        sh->spare = next;
    }
}

struct out_msg *outq_create(struct shard *sh, struct outq *q, const struct encode *e)
{
    struct out_msg *o = take(sh);

    if (o == NULL) {
        return NULL;
    }
    if (e->nids > 0 || e->group != 0) {
        o->extra = malloc(sizeof(*o->extra) + e->nids * sizeof(uint32_t));
        if (o->extra == NULL) {
            put_back(sh, o);
            return NULL;
        }
        o->extra->group = e->group;
        o->extra->nids = e->nids;
        if (e->nids > 0) {
            memcpy(o->extra->ids, e->ids, e->nids * sizeof(uint32_t));
        }
    }
    o->qos = e->qos;
    o->retain = e->retain;
    o->payload = e->msg->payload_n;
    account(sh, q, o, sizeof(*o) + message_size(e->msg));
    return o;
}

bool outq_hold(struct out_msg *o, const struct encode *e)
{
    struct message *m = e->of == NULL ? e->msg : delivery_own(e->of);

    if (m == NULL) {
        return false;
    }
    if (e->of != NULL && e->of->spare > 0) {
        e->of->spare--;
    } else {
        message_ref(m, 1);
    }
    o->msg = m;
    return true;
}

/* Off both lists already. */
void outq_destroy(struct shard *sh, struct outq *q, struct out_msg *o)
{
    unaccount_bytes(sh, q, o);
    shard_count(sh, METRIC_QUEUED_MESSAGES, -1);
    ticket_forget(o);
    if (o->msg != NULL) {
        message_unref(o->msg);
    }
    if (o->extra != NULL) {
        free(o->extra);
    }
    put_back(sh, o);
}

void outq_leave_flight(struct outq *q, struct out_msg *o)
{
    if (q->resend == o) {
        q->resend = o->next;
    }
    if (o->counted) {
        q->counted--;
    }
    q->by_id[o->packet_id & (q->cap - 1)] = NULL;
    out_list_remove(&q->inflight, o);
}

void outq_free(struct shard *sh, struct client *c)
{
    struct outq *q = c->out;

    if (q == NULL) {
        return;
    }
    while (q->inflight.first != NULL) {
        struct out_msg *o = q->inflight.first;
        outq_leave_flight(q, o);
        outq_destroy(sh, q, o);
    }
    while (q->queue.first != NULL) {
        struct out_msg *o = q->queue.first;
        out_list_remove(&q->queue, o);
        outq_destroy(sh, q, o);
    }
    spill_free(sh, c);
    timer_cancel(&sh->wheel, &q->stale.timer);
    share_forget(sh, c);
    free(q->by_id);
    free(q);
    c->out = NULL;
}

/* ---- sending ---- */

bool outq_can_send(const struct shard *sh, const struct client *c)
{
    return c->link != NULL && c->link->state == LINK_OPEN && !link_is_full(sh, c->link);
}

static bool has_expired(const struct shard *sh, const struct out_msg *o)
{
    return o->msg != NULL && o->msg->expires_ms != 0 && o->msg->expires_ms <= sh->now_ms;
}

static struct encode encode_of(const struct out_msg *o)
{
    return (struct encode){.msg = o->msg,
                           .ids = o->extra == NULL ? NULL : o->extra->ids,
                           .nids = o->extra == NULL ? 0 : o->extra->nids,
                           .packet_id = o->packet_id,
                           .qos = o->qos,
                           .retain = o->retain,
                           .dup = o->sent};
}

/* Whether its content is needed no more once it is sent: the session ends with this connection, so
 * it is never sent again, and no group has another member for it. */
bool outq_goes_once(const struct client *c, uint64_t group)
{
    return !c->stored && group == 0;
}

static void let_go(const struct client *c, struct out_msg *o)
{
    if (outq_goes_once(c, o->extra == NULL ? 0 : o->extra->group)) {
        message_unref(o->msg);
        o->msg = NULL;
    }
}

/* What waits cannot go on, and nothing may come to try again: its client comes again. */
static bool starve(struct shard *sh, const struct client *c)
{
    link_close(sh, c->link, RC_UNSPECIFIED_ERROR, "out of memory");
    return false;
}

/* Sends one message in flight; false: stop (no memory, the link is being closed). */
static bool send_one(struct shard *sh, struct client *c, struct out_msg *o)
{
    struct outq *q = c->out;
    struct encode e = encode_of(o);

    switch (encode_publish(sh, c->link, &e)) {
    case ENCODE_OK:
        o->sent = true;
        o->counted = true;
        q->counted++;
        q->resend = o->next;
        let_go(c, o);
        return true;
    case ENCODE_DROPPED:
        outq_done(sh, c, o);
        return true;
    case ENCODE_NOMEM:
        break;
    }
    return false;
}

/* Sends what stands in flight and this connection has not seen. False: cannot go on now. */
static bool pump_flight(struct shard *sh, struct client *c)
{
    struct outq *q = c->out;

    while (q->resend != NULL && outq_can_send(sh, c)) {
        struct out_msg *o = q->resend;

        if (o->state == OUT_WAIT_STORE) {
            return false; /* all behind it wait too: the order stays */
        }
        if (o->state == OUT_WAIT_PUBCOMP) {
            q->resend = o->next;
            link_ack(sh, c->link, MQTT_PUBREL, o->packet_id, RC_SUCCESS);
            continue;
        }
        if (!o->sent && has_expired(sh, o)) {
            shard_count(sh, METRIC_DROPPED_EXPIRED, 1);
            outq_done(sh, c, o);
            continue;
        }
        if (q->counted >= q->window) {
            return false;
        }
        if (!send_one(sh, c, o)) {
            return false;
        }
    }
    return q->resend == NULL;
}

/*
 * A packet id goes into the entry's record; a QoS 2 message waits for that before it is sent.
 * False: that cannot be asked for now (QoS 1 goes on without: a crash sends it again under another
 * id, as at-least-once allows).
 */
static bool record_id(struct shard *sh, struct client *c, struct out_msg *o)
{
    struct store_op *op;

    if (!sh->keeps || o->seq == 0) {
        return true;
    }
    op = ticket_lazy(sh, ST_ENTRY_STEP);
    if (op == NULL) {
        return o->qos < 2;
    }
    op->session = client_session(c);
    op->seq = o->seq;
    op->packet_id = o->packet_id;
    if (o->qos == 2) {
        if (!ticket_lazy_wait(sh, c, o)) {
            return false;
        }
        outq_move_to(o, OUT_WAIT_STORE);
    }
    return true;
}

enum out_state outq_wait_state(const struct out_msg *o)
{
    return o->qos == 1 ? OUT_WAIT_PUBACK : OUT_WAIT_PUBREC;
}

bool outq_enter_flight(struct outq *q, struct out_msg *o)
{
    if (take_id(q, o) == 0) {
        return false;
    }
    out_list_append(&q->inflight, o);
    q->inflight_bytes += o->payload;
    if (q->resend == NULL) {
        q->resend = o;
    }
    return true;
}

bool outq_put_inflight(struct outq *q, struct out_msg *o, uint16_t packet_id, bool received)
{
    if (!place_id(q, o, packet_id)) {
        return false;
    }
    out_list_append(&q->inflight, o);
    q->inflight_bytes += o->payload;
    o->sent = true; /* it may have been: DUP */
    outq_move_to(o, outq_wait_state(o));
    if (received) {
        outq_move_to(o, OUT_WAIT_PUBCOMP);
    }
    if (q->resend == NULL) {
        q->resend = o;
    }
    return true;
}

bool outq_flight_has_room(const struct shard *sh, const struct outq *q)
{
    return q->inflight.count < q->window &&
           (sh->cfg->max_inflight_bytes == 0 || q->inflight.count == 0 ||
            q->inflight_bytes < sh->cfg->max_inflight_bytes);
}

static void send_qos0(struct shard *sh, struct client *c, struct out_msg *o)
{
    struct encode e = encode_of(o);

    (void)encode_publish(sh, c->link, &e); /* what cannot be sent is gone: QoS 0 */
    ticket_entry_del(sh, c, o);
    outq_destroy(sh, c->out, o);
}

void outq_discard(struct shard *sh, struct client *c, struct out_list *l, struct out_msg *o)
{
    out_list_remove(l, o);
    ticket_entry_del(sh, c, o);
    outq_destroy(sh, c->out, o);
}

void outq_unsubscribed(struct client *c)
{
    if (c->out != NULL) {
        c->out->doubtful = c->out->queue.count + c->out->disk.fresh.count + c->out->disk.count;
    }
}

/* One of the client's subscriptions matches it still. What cannot be told is wanted. */
static bool is_wanted(struct shard *sh, const struct client *c, const struct out_msg *o)
{
    const uint64_t group = o->extra == NULL ? 0 : o->extra->group;
    struct match *match;

    if (group != 0) { /* one that other members should have, but could not be handed on, stays */
        return shares_find(sh->b->shares, group) != NULL;
    }
    match = match_cache_get(sh->cache, message_topic(o->msg), o->msg->topic_n);
    for (uint32_t t = 0; match != NULL && t < match->ntargets; t++) {
        const struct match_target *target = &match->targets[t];
        for (uint32_t i = 0; target->shard == sh->index && i < target->count; i++) {
            if (subscribers_of_owner(sh->subs, (uintptr_t)c, match_ids(match)[target->first + i]) !=
                NULL) {
                return true;
            }
        }
    }
    return match == NULL;
}

/* Moves the first of the queue on; false: it has to stay. */
static bool pump_queue(struct shard *sh, struct client *c)
{
    struct outq *q = c->out;
    struct out_msg *o = q->queue.first;

    if (has_expired(sh, o)) {
        shard_count(sh, METRIC_DROPPED_EXPIRED, 1);
        outq_discard(sh, c, &q->queue, o);
        return true;
    }
    if (q->doubtful > 0 && !is_wanted(sh, c, o)) {
        outq_discard(sh, c, &q->queue, o);
        q->doubtful--;
        return true;
    }
    if (o->qos == 0) {
        if (sh->cfg->queue_qos0_messages && q->resend != NULL) {
            return false; /* it does not overtake what waits for the store */
        }
        out_list_remove(&q->queue, o);
        send_qos0(sh, c, o);
        q->doubtful -= q->doubtful > 0;
        return true;
    }
    if (!outq_flight_has_room(sh, q) || (sh->keeps && o->wait != NULL)) {
        return false;
    }
    out_list_remove(&q->queue, o);
    if (!outq_enter_flight(q, o)) {
        list_prepend(&q->queue, o);
        return starve(sh, c);
    }
    if (!record_id(sh, c, o)) {
        outq_leave_flight(q, o);
        q->inflight_bytes -= o->payload;
        o->packet_id = 0;
        list_prepend(&q->queue, o);
        return starve(sh, c);
    }
    if (o->state == OUT_QUEUED) {
        outq_move_to(o, outq_wait_state(o));
    }
    q->doubtful -= q->doubtful > 0;
    return true;
}

void outq_pump(struct shard *sh, struct client *c)
{
    struct outq *q = c->out;

    if (q == NULL || (q->resend == NULL && q->queue.first == NULL && q->disk.count == 0)) {
        return; /* nothing waits */
    }
    (void)pump_flight(sh, c);
    while (q->queue.first != NULL && outq_can_send(sh, c) && pump_queue(sh, c)) {
        (void)pump_flight(sh, c);
    }
    spill_read(sh, c);
}

void outq_detached(struct shard *sh, struct client *c)
{
    if (sh->spills && c->out != NULL && c->stored) {
        spill_detached(sh, c);
    }
}

static bool is_empty(const struct outq *q)
{
    return q->inflight.first == NULL && q->queue.first == NULL && q->disk.count == 0 &&
           q->disk.fresh.first == NULL;
}

bool outq_is_doubtful(const struct client *c)
{
    return c->out != NULL && c->out->disk.maybe_sent_to != 0 && !is_empty(c->out);
}

bool outq_is_loading(const struct client *c)
{
    return c->out != NULL && c->out->disk.inflight;
}

void outq_connected(struct shard *sh, struct client *c)
{
    struct outq *q = c->out;

    if (q == NULL) {
        return;
    }
    set_window(sh, c);
    q->counted = 0;
    for (struct out_msg *o = q->inflight.first; o != NULL; o = o->next) {
        o->counted = false;
    }
    q->resend = q->inflight.first;
    outq_pump(sh, c);
}

/* ---- acknowledgements ---- */

/* Acknowledgements come in the order of sending: the next one's message is at hand when it is
 * needed. */
static void prefetch_next(const struct out_msg *o)
{
    const struct out_msg *next = o->next;

    if (next != NULL) {
        __builtin_prefetch(next->msg);
        __builtin_prefetch(next->next);
    }
}

void outq_done(struct shard *sh, struct client *c, struct out_msg *o)
{
    struct outq *q = c->out;

    prefetch_next(o);
    outq_leave_flight(q, o);
    ticket_entry_del(sh, c, o);
    outq_destroy(sh, q, o);
}

void outq_received(struct shard *sh, struct client *c, struct out_msg *o)
{
    const bool kept = sh->keeps && o->seq != 0;
    struct store_op *op = kept ? ticket_lazy(sh, ST_ENTRY_STEP) : NULL;

    if (kept && op == NULL) { /* it is sent again, and PUBREC comes again */
        (void)starve(sh, c);
        return;
    }
    outq_move_to(o, OUT_WAIT_PUBCOMP);
    unaccount_bytes(sh, c->out, o);
    if (o->msg != NULL) {
        message_unref(o->msg);
        o->msg = NULL;
    }
    if (!kept) {
        link_ack(sh, c->link, MQTT_PUBREL, o->packet_id, RC_SUCCESS);
        return;
    }
    /* The step has to be on disk before PUBREL: else a crash would send the PUBLISH again. */
    op->session = client_session(c);
    op->seq = o->seq;
    op->packet_id = o->packet_id;
    op->flags = 1;
    ticket_lazy_slot(sh, c->link,
                     link_slot(sh, c->link, MQTT_PUBREL, o->packet_id, RC_SUCCESS, NULL, 0));
}

void outq_stored(struct shard *sh, struct client *c, struct out_msg *o)
{
    if (o->state == OUT_WAIT_STORE) {
        outq_move_to(o, OUT_WAIT_PUBREC);
    }
    spill_settle(sh, c);
    if (c->link == NULL) {
        outq_detached(sh, c); /* what was kept in memory for this one */
    } else {
        outq_pump(sh, c);
    }
}

void outq_refused(struct shard *sh, struct client *c, struct out_msg *o, bool comes_again)
{
    struct outq *q = c->out;
    const bool flies = o->packet_id != 0;
    /* Those are in the order of their numbers, behind all others. */
    const bool is_fresh =
        !flies && q->disk.fresh.first != NULL && o->seq >= q->disk.fresh.first->seq;
    struct out_list *l = is_fresh ? &q->disk.fresh : &q->queue;

    o->seq = 0; /* the store has no entry of it */
    if (comes_again && !o->sent) {
        if (flies) {
            outq_leave_flight(q, o);
        } else {
            out_list_remove(l, o);
        }
        outq_destroy(sh, q, o);
    } else if (is_fresh) { /* never part of the disk: it does not wait for what is there */
        out_list_remove(l, o);
        out_list_append(&q->queue, o);
    } else if (o->state == OUT_WAIT_STORE) {
        outq_move_to(o, OUT_WAIT_PUBREC);
    }
    spill_settle(sh, c);
    outq_pump(sh, c);
}
