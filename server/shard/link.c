/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection after its CONNECT: packets in, answers in order, output, and its end.
 *
 * Ends are never acted on where they are noticed: link_close() only notes the reason, since the
 * noticing may be deep in a delivery or in a packet of this very connection. link_reap() does the
 * work at the end of the turn.
 */
#include "server/shard/ticket.h"

#include <errno.h>
#include <stdlib.h>

#define HEAR_OUT_MS (2 * PAUSE_MAX_MS) /* a pause is over by then, and what is behind it read */

#include "routing/topic.h"
#include "server/codec/reason.h"

_Static_assert(READ_SCRATCH >= CONN_SCRATCH, "what conn_keep() keeps has room behind it there");
_Static_assert(TOPIC_TEXT_MAX > TOPIC_MAX, "a topic or filter with its mount point fits");

/* ---- lists ---- */

void link_ready(struct shard *sh, struct link *l)
{
    if (l->is_ready || l->state != LINK_OPEN || l->is_paused) {
        return;
    }
    l->is_ready = true;
    l->ready_next = NULL;
    *sh->ready_last = l;
    sh->ready_last = &l->ready_next;
    sh->nready++;
}

void link_dirty(struct shard *sh, struct link *l)
{
    if (!l->is_dirty) {
        l->is_dirty = true;
        l->dirty_next = sh->dirty;
        sh->dirty = l;
        sh->ndirty++;
    }
}

void link_pause(struct shard *sh, struct link *l, int64_t until_ms)
{
    if (l->is_paused) {
        return;
    }
    l->is_paused = true;
    l->pause_until_ms = until_ms;
    l->paused_next = sh->paused;
    sh->paused = l;
}

/* ---- keep alive ---- */

/* Modulo 2^32 ms: the timer looks more often than that. */
static int64_t silent_ms(const struct shard *sh, const struct link *l)
{
    return (uint32_t)sh->now_ms - l->last_rx_ms;
}

/* Its silence is ours: it is not read. */
static bool is_kept_waiting(const struct link *l)
{
    return l->is_paused || l->state != LINK_OPEN || l->nacks >= PENDING_ACKS;
}

/* Where we are late ourselves, timers come first, and what it sent lies in its socket: looked at
 * once more. False: that was done. */
static bool look_once_more(struct shard *sh, struct link *l)
{
    if (l->last_look && !l->is_ready) {
        return false;
    }
    l->last_look = true;
    l->readable = true;
    link_ready(sh, l);
    timer_set(&sh->wheel, &l->timer, sh->now_ms + TIMER_TICK_MS);
    return true;
}

static void keepalive_timer(void *owner, struct timer *t)
{
    struct shard *sh = owner;
    struct link *l = (struct link *)((char *)t - offsetof(struct link, timer));
    int64_t deadline;

    if (l->state == LINK_LINGERING) {
        link_free(sh, l);
        return;
    }
    if (l->is_taken) {
        takeover_expire(sh, l);
        return;
    }
    if (l->conn.broken) {
        l->hung_up = true;
        link_close(sh, l, RC_SUCCESS, NULL);
        return;
    }
    deadline = sh->now_ms - silent_ms(sh, l) + l->keep_alive_ms;
    if (is_kept_waiting(l)) { /* the clock stands still */
        deadline = sh->now_ms + l->keep_alive_ms;
    }
    if (sh->now_ms <
        deadline) { /* heard from meanwhile: the timer was not moved for every packet */
        l->last_look = false;
        timer_set(&sh->wheel, &l->timer, deadline);
        return;
    }
    if (look_once_more(sh, l)) {
        return;
    }
    shard_count(sh, METRIC_KEEPALIVE_TIMEOUTS, 1);
    log_limited(sh->b->log, LOGL_NOTICE, LOGR_TIMEOUT,
                "client " CLIENT_FMT " exceeded its keep alive", CLIENT_ARGS(l->client));
    link_close(sh, l, RC_KEEP_ALIVE_TIMEOUT, NULL); /* [MQTT-3.1.2-24] */
}

void link_touch_keepalive(struct shard *sh, struct link *l)
{
    l->last_rx_ms = (uint32_t)sh->now_ms;
    if (l->keep_alive_ms != 0 && !l->is_taken && !l->conn.broken) { /* else the timer is theirs */
        timer_set(&sh->wheel, &l->timer, sh->now_ms + l->keep_alive_ms);
    }
}

/* ---- the answers that wait ---- */

static struct ack_slot *first_ack(const struct link *l)
{
    return l->acks_last == NULL ? NULL : l->acks_last->next;
}

static void append_ack(struct link *l, struct ack_slot *s)
{
    if (l->acks_last == NULL) {
        s->next = s;
    } else {
        s->next = l->acks_last->next;
        l->acks_last->next = s;
    }
    l->acks_last = s;
    l->nacks++;
}

static struct ack_slot *take_ack(struct link *l)
{
    struct ack_slot *s = first_ack(l);

    if (s == l->acks_last) {
        l->acks_last = NULL;
    } else {
        l->acks_last->next = s->next;
    }
    l->nacks--;
    return s;
}

/* ---- life ---- */

struct link *link_create(struct shard *sh, struct handover *h)
{
    struct link *l = calloc(1, sizeof(*l));

    if (l == NULL) {
        return NULL;
    }
    l->conn = h->conn;
    h->conn = (struct conn){.fd = -1};
    l->listener = h->listener;
    l->version = h->connect.version & 7u;
    l->timer.fn = keepalive_timer;
    l->last_rx_ms = (uint32_t)sh->now_ms;
    l->state = LINK_CONNECTING;
    l->lazy_acks = listener_conf(l->listener)->durability == CONFIG_DURABILITY_MEMORY;
    l->readable = true;
    l->keep_alive_ms = h->connect.keep_alive_s * 1500u;
    return l;
}

void link_drop_acks(struct shard *sh, struct link *l)
{
    while (l->acks_last != NULL) {
        struct ack_slot *s = take_ack(l);

        if (l->client != NULL) { /* a durable session gets them on its next connection */
            replay_start(sh, l->client, s->replays);
        } else {
            replay_cancel_list(s->replays);
        }
        s->replays = NULL;
        if (s->ready) {
            free(s);
        } else {
            s->link = NULL; /* its ticket still points to it and frees it */
        }
    }
}

static void link5_free(struct link5 *v5)
{
    if (v5 == NULL) {
        return;
    }
    for (uint32_t i = 0; v5->alias_in != NULL && i < v5->alias_in_max; i++) {
        free(v5->alias_in[i]);
    }
    for (uint32_t i = 0; i < v5->alias_out_cap; i++) {
        free(v5->alias_out[i].topic);
    }
    free(v5->alias_in);
    free(v5->alias_out);
    free(v5);
}

static void leave_lingering(struct shard *sh, struct link *l)
{
    if (l->linger_prev != NULL) {
        l->linger_prev->linger_next = l->linger_next;
    } else {
        sh->lingering = l->linger_next;
    }
    if (l->linger_next != NULL) {
        l->linger_next->linger_prev = l->linger_prev;
    }
}

void link_forget(struct link *l)
{
    assert(l->state == LINK_GONE && l->conn.fd < 0);
    if (!l->is_ready && !l->is_dirty) {
        free(l);
    }
}

void link_free(struct shard *sh, struct link *l)
{
    assert(l->state != LINK_GONE && !l->is_paused && !l->is_taken);
    timer_cancel(&sh->wheel, &l->timer);
    if (l->state == LINK_LINGERING) {
        leave_lingering(sh, l);
    }
    link_drop_acks(sh, l);
    sub_progress_free(l->progress);
    link5_free(l->v5);
    conn_fini(&l->conn); /* also takes it out of the epoll: nobody else has the descriptor */
    /* relaxed: counts for a limit. */
    atomic_fetch_sub_explicit(&l->listener->connections, 1, memory_order_relaxed);
    /* Looking for it in lists of thousands, once for each of thousands that end, would stop the
     * turn. */
    l->state = LINK_GONE;
    link_forget(l);
}

void link_close(struct shard *sh, struct link *l, enum mqtt_reason reason, const char *why)
{
    if (l->state == LINK_CLOSING || l->state == LINK_LINGERING) {
        return;
    }
    if (why != NULL) {
        log_limited(sh->b->log, LOGL_NOTICE, LOGR_CLIENT_ERROR,
                    "client " CLIENT_FMT " disconnected: %s",
                    l->client == NULL ? 1 : (int)l->client->id_n,
                    l->client == NULL ? "?" : l->client->id, why);
    }
    if (l->is_taken) {
        takeover_release(sh, l);
    }
    l->state = LINK_CLOSING;
    l->reason = (uint8_t)reason;
    l->doomed_next = sh->doomed;
    sh->doomed = l;
}

void handle_malformed(struct shard *sh, struct link *l, enum dec_rc rc, const char *why)
{
    enum mqtt_reason reason = RC_MALFORMED_PACKET;

    switch (rc) {
    case DEC_OK:
    case DEC_MALFORMED:
        break;
    case DEC_PROTOCOL:
    case DEC_UNSUPPORTED_VERSION:
    case DEC_BAD_PROTOCOL_NAME:
        reason = RC_PROTOCOL_ERROR;
        break;
    case DEC_TOPIC_FILTER:
        reason = RC_TOPIC_FILTER_INVALID;
        break;
    case DEC_TOPIC_NAME:
        reason = RC_TOPIC_NAME_INVALID;
        break;
    }
    shard_count(sh, METRIC_PROTOCOL_ERRORS, 1);
    link_close(sh, l, reason, why == NULL ? "malformed packet" : why);
}

bool mount_topic(struct shard *sh, const struct link *l, struct span topic, struct span *out)
{
    const char *mount = listener_conf(l->listener)->mount_point;
    const size_t n = mount == NULL ? 0 : strlen(mount);
    uint8_t *buf = sh->scratch + READ_SCRATCH;

    *out = topic;
    if (n + topic.n > TOPIC_MAX) {
        return false;
    }
    if (n > 0) {
        memcpy(buf, mount, n);
        memcpy(buf + n, topic.p, topic.n);
        *out = span_of(buf, n + topic.n);
    }
    return true;
}

bool handle_controls(struct shard *sh, struct link *l)
{
    if (sh->cfg->accept_control_characters) {
        return false;
    }
    handle_malformed(sh, l, DEC_MALFORMED, "control characters in a string");
    return true;
}

/* CONNACK knows fewer reasons than DISCONNECT [MQTT 5.0, 3.2.2.2]. */
static enum mqtt_reason connack_reason(enum mqtt_reason r)
{
    switch (r) {
    case RC_SERVER_SHUTTING_DOWN:
        return RC_SERVER_UNAVAILABLE;
    case RC_SESSION_TAKEN_OVER: /* it has no word for that: closed without an answer */
        return RC_SUCCESS;
    default:
        return r;
    }
}

/* v5 hears why [MQTT-4.13.1-1]; CONNACK takes the place of DISCONNECT before it was sent. */
static void say_goodbye(struct shard *sh, struct link *l)
{
    enum mqtt_reason reason = l->opened ? (enum mqtt_reason)l->reason : connack_reason(l->reason);
    uint8_t bye[16];
    size_t n;

    if (l->version != MQTT_5 || reason == RC_SUCCESS || l->hung_up) {
        return;
    }
    n = l->opened ? disconnect5_encode(bye, sizeof(bye), reason, SPAN_NULL)
                  : connack5_encode(bye, sizeof(bye), false, reason, SPAN_NULL);
    if (!link_too_large(l, n) && conn_out_copy(&l->conn, bye, n)) { /* [MQTT-3.1.2-24] */
        shard_count(sh, METRIC_MESSAGES_SENT, 1);
    }
}

void link_reap(struct shard *sh, struct link *l)
{
    struct client *c = l->client;
    size_t written = 0;
    bool flushed;

    assert(l->state == LINK_CLOSING && !l->is_paused);
    timer_cancel(&sh->wheel, &l->timer);
    say_goodbye(sh, l);
    flushed = !l->hung_up && conn_flush(&l->conn, &written) == CONN_OK;
    shard_count(sh, METRIC_BYTES_SENT, (int64_t)written);
    link_drop_acks(sh, l);
    sub_progress_free(l->progress);
    l->progress = NULL;
    if (c != NULL) {
        l->client = NULL;
        c->link = NULL;
        client_detach(sh, c, !l->orderly);
    }
    if (!flushed || l->said_goodbye) {
        link_free(sh, l);
        return;
    }
    /* Our last words must not be lost to a reset: end our direction and let the peer read. */
    l->conn.tr->shutdown(&l->conn);
    conn_drop_tail(&l->conn);
    l->state = LINK_LINGERING;
    l->linger_next = sh->lingering;
    l->linger_prev = NULL;
    if (sh->lingering != NULL) {
        sh->lingering->linger_prev = l;
    }
    sh->lingering = l;
    timer_set(&sh->wheel, &l->timer, sh->now_ms + LINGER_MS);
}

/* ---- answers ---- */

static void emit(struct shard *sh, struct link *l, struct ack_slot *s)
{
    uint8_t small[256];
    uint8_t *p = small;
    size_t cap = s->ncodes + 32;
    size_t n = 0;

    switch ((enum mqtt_type)s->type) {
    case MQTT_CONNACK:
        connect_completed(sh, s);
        return;
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        if (cap > sizeof(small)) {
            p = malloc(cap);
        }
        if (p == NULL) {
            link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
            return;
        }
        n = s->type == MQTT_SUBACK
                ? suback_encode(p, cap, l->version, s->packet_id, SPAN_NULL, s->codes, s->ncodes)
                : unsuback_encode(p, cap, l->version, s->packet_id, SPAN_NULL, s->codes, s->ncodes);
        break;
    default:
        n = ack_encode(p, s->type, l->version, s->packet_id, s->reason);
        break;
    }
    if (link_too_large(l, n)) { /* [MQTT-3.1.2-24] */
        link_close(sh, l, RC_PACKET_TOO_LARGE, "answer above the client's maximum packet size");
    } else if (!conn_out_copy(&l->conn, p, n)) {
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
    }
    if (p != small) {
        free(p);
    }
    shard_count(sh, METRIC_MESSAGES_SENT, 1);
    link_dirty(sh, l);
}

static void answered(struct link *l, uint8_t type, uint8_t reason)
{
    /* The client's quota: freed by PUBACK, PUBCOMP and by a PUBREC that refuses [MQTT-4.9.0-2]. */
    if (l->v5 != NULL && l->v5->inbound > 0 &&
        (type == MQTT_PUBACK || type == MQTT_PUBCOMP || (type == MQTT_PUBREC && reason >= 0x80))) {
        l->v5->inbound--;
    }
}

static void emit_ready(struct shard *sh, struct link *l)
{
    while (l->acks_last != NULL && first_ack(l)->ready) {
        struct ack_slot *s = take_ack(l);

        if (l->state == LINK_OPEN || s->type == MQTT_CONNACK) {
            answered(l, s->type, s->reason);
            emit(sh, l, s);
        }
        replay_start(sh, l->client, s->replays);
        free(s);
    }
    if ((l->readable || l->unparsed) && l->nacks < PENDING_ACKS) {
        link_ready(sh, l);
    }
}

struct ack_slot *link_slot(struct shard *sh, struct link *l, enum mqtt_type type,
                           uint16_t packet_id, enum mqtt_reason reason, const uint8_t *codes,
                           size_t ncodes)
{
    struct ack_slot *s = malloc(sizeof(*s) + ncodes);

    if (s == NULL) {
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        return NULL;
    }
    *s = (struct ack_slot){.link = l,
                           .type = (uint8_t)type,
                           .reason = (uint8_t)reason,
                           .packet_id = packet_id,
                           .ncodes = (uint32_t)ncodes,
                           .held = l->acks_last == NULL ? 0 : l->acks_last->held};
    if (ncodes > 0) {
        memcpy(s->codes, codes, ncodes);
    }
    append_ack(l, s);
    return s;
}

void link_slot_wait(struct shard *sh, struct link *l, struct ack_slot *s, struct ticket *t)
{
    if (s == NULL) {
        return; /* no memory: being closed */
    }
    if (l->lazy_acks) {
        link_slot_ready(sh, s);
    } else {
        t->slot = s;
    }
}

void link_slot_ready(struct shard *sh, struct ack_slot *s)
{
    if (s->link == NULL) {
        free(s);
        return;
    }
    s->ready = true;
    emit_ready(sh, s->link);
}

void link_slot_failed(struct shard *sh, struct ack_slot *s)
{
    if (s->link == NULL) {
        free(s);
        return;
    }
    /* Never acknowledged: the client keeps the message and sends it again on its next connection.
     */
    s->ready = true;
    if (s->type == MQTT_CONNACK) {
        s->link->orderly = true; /* its CONNECT was not taken, nor was the will */
    }
    link_close(sh, s->link, RC_IMPLEMENTATION_SPECIFIC, "the store did not take a change");
}

void link_ack(struct shard *sh, struct link *l, enum mqtt_type type, uint16_t packet_id,
              enum mqtt_reason reason)
{
    struct ack_slot *s;
    uint8_t *p;

    if (l->acks_last != NULL) {                           /* in its turn */
        assert(reason_is_allowed(type, (uint8_t)reason)); /* else ack_encode() says so now */
        s = link_slot(sh, l, type, packet_id, reason, NULL, 0);
        if (s != NULL) {
            link_slot_ready(sh, s);
        }
        return;
    }
    p = conn_out_room(&l->conn, ACK_MAX);
    if (p == NULL) {
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        return;
    }
    answered(l, (uint8_t)type, (uint8_t)reason);
    conn_out_add(&l->conn, ack_encode(p, type, l->version, packet_id, reason));
    shard_count(sh, METRIC_MESSAGES_SENT, 1);
    link_dirty(sh, l);
}

/* ---- output ---- */

/* Nothing can be sent any more, mostly since the client has closed. What it had sent before is
 * handled still, a DISCONNECT perhaps; reading finds the end. */
static void hear_out(struct shard *sh, struct link *l, bool begins)
{
    if (begins && !l->is_taken) { /* in case the socket lives */
        timer_set(&sh->wheel, &l->timer, sh->now_ms + HEAR_OUT_MS);
    }
    l->readable = true;
    link_ready(sh, l);
}

void link_flush(struct shard *sh, struct link *l)
{
    const bool was_broken = l->conn.broken;
    size_t written;
    enum conn_rc rc = conn_flush(&l->conn, &written);

    if (written > 0) {
        l->moved_round = sh->relief.round & (RELIEF_ROUNDS - 1u);
    }
    shard_count(sh, METRIC_BYTES_SENT, (int64_t)written);
    if (rc == CONN_ERROR) {
        hear_out(sh, l, !was_broken);
        return;
    }
    if (l->client != NULL && !link_is_full(sh, l)) {
        outq_pump(sh, l->client);
    }
    if (l->readable || l->unparsed) {
        link_ready(sh, l); /* it may have been clogged */
    }
}

/* ---- input ---- */

static void handle_packet(struct shard *sh, struct link *l, const struct frame *f)
{
    switch (f->type) {
    case MQTT_PUBLISH:
        handle_publish(sh, l, f->body, f->flags);
        break;
    case MQTT_PUBACK:
        handle_puback(sh, l, f->body);
        break;
    case MQTT_PUBREC:
        handle_pubrec(sh, l, f->body);
        break;
    case MQTT_PUBREL:
        handle_pubrel(sh, l, f->body);
        break;
    case MQTT_PUBCOMP:
        handle_pubcomp(sh, l, f->body);
        break;
    case MQTT_SUBSCRIBE:
        handle_subscribe(sh, l, f->body);
        break;
    case MQTT_UNSUBSCRIBE:
        handle_unsubscribe(sh, l, f->body);
        break;
    case MQTT_PINGREQ:
        handle_pingreq(sh, l);
        break;
    case MQTT_DISCONNECT:
        handle_disconnect(sh, l, f->body);
        break;
    case MQTT_CONNECT: /* [MQTT-3.1.0-2] */
        handle_malformed(sh, l, DEC_PROTOCOL, "second CONNECT");
        break;
    case MQTT_AUTH: /* no method was agreed on in CONNECT [MQTT-4.12.1-1] */
    case MQTT_CONNACK:
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
    case MQTT_PINGRESP:
    case MQTT_RESERVED:
        handle_malformed(sh, l, DEC_PROTOCOL, "packet a client must not send");
        break;
    }
}

/* The largest packet it may send. */
static size_t max_packet(const struct shard *sh, const struct link *l)
{
    const uint32_t max = l->v5 == NULL ? sh->cfg->max_packet_size : l->v5->in_max_packet;

    return max != 0 ? max : CONFIG_MAX_PACKET;
}

static enum frame_rc next_frame(const struct shard *sh, const struct link *l, struct span in,
                                struct frame *f, const char **why)
{
    return l->version == MQTT_3_1 ? frame_next_31(in, max_packet(sh, l), f, why)
                                  : frame_next(in, max_packet(sh, l), f, why);
}

/* Output that only answers can have brought this far: its client sends and does not read. */
static bool is_clogged(const struct shard *sh, const struct link *l)
{
    return l->conn.blocked && l->conn.out_n >= CLOGGED_FACTOR * sh->cfg->output_buffer_limit;
}

static bool may_read(const struct shard *sh, const struct link *l)
{
    return l->state == LINK_OPEN && !l->is_paused && l->nacks < PENDING_ACKS &&
           (!is_clogged(sh, l) || l->is_taken); /* nobody reads there any more */
}

static bool may_parse(const struct shard *sh, const struct link *l)
{
    return sh->budget > 0 && may_read(sh, l);
}

/* Handles whole packets of `in`; *want becomes the size of the one it ends in. Returns the bytes
 * used. */
static size_t parse(struct shard *sh, struct link *l, struct span in, size_t *want)
{
    bool looks_ahead = ahead_is_worthwhile(sh);
    struct ahead ahead;
    size_t used = 0;

    *want = 0;
    if (looks_ahead) {
        ahead_begin(&ahead, in);
    }
    while (used < in.n && may_parse(sh, l)) {
        struct frame f;
        const char *why = NULL;

        switch (next_frame(sh, l, span_of(in.p + used, in.n - used), &f, &why)) {
        case FRAME_NEED_MORE:
            *want = f.total;
            return used;
        case FRAME_TOO_LARGE:
            shard_count(sh, METRIC_PROTOCOL_ERRORS, 1);
            link_close(sh, l, RC_PACKET_TOO_LARGE, "packet above max_packet_size");
            return used;
        case FRAME_MALFORMED:
            handle_malformed(sh, l, DEC_MALFORMED, why);
            return used;
        case FRAME_OK:
            break;
        }
        l->last_rx_ms = (uint32_t)sh->now_ms; /* [MQTT-3.1.2-24] */
        if (looks_ahead) {
            ahead_step(sh, &ahead);
        }
        handle_packet(sh, l, &f);
        if (l->is_paused || l->progress != NULL) {
            return used; /* not taken, or not to its end: the same packet again later */
        }
        shard_count(sh, METRIC_MESSAGES_RECEIVED, 1);
        used += f.total;
    }
    return used;
}

/* Handles the packets of `in` and keeps the rest. False: stop. */
static bool parse_span(struct shard *sh, struct link *l, struct span in)
{
    size_t want;
    size_t used = parse(sh, l, in, &want);

    if (l->state != LINK_OPEN) {
        return false;
    }
    l->unparsed = used < in.n && !may_parse(sh, l);
    if (!conn_keep(&l->conn, span_of(in.p + used, in.n - used), want)) {
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        return false;
    }
    return !l->unparsed;
}

/* A packet that takes long to arrive is a sign of life with each new kilobyte: else one that takes
 * longer than the keep alive could never come. */
#define LIFE_BYTES 1024u

static bool read_once(struct shard *sh, struct link *l, size_t *got)
{
    const uint32_t kept = l->conn.tail_n;
    struct span in;
    bool drained;
    enum conn_rc rc = conn_read(&l->conn, sh->scratch, READ_SCRATCH, &in, got, &drained);

    shard_count(sh, METRIC_BYTES_RECEIVED, (int64_t)*got);
    if (drained) {
        l->readable = false;
    }
    if (l->is_taken) {
        takeover_count(l, *got);
    }
    if (rc == CONN_OK) {
        const bool go_on = parse_span(sh, l, in);
        if (l->conn.tail_n / LIFE_BYTES > kept / LIFE_BYTES) {
            l->last_rx_ms = (uint32_t)sh->now_ms;
        }
        return go_on;
    }
    if (rc != CONN_AGAIN) {
        l->hung_up = true;
        link_close(sh, l, RC_SUCCESS, NULL);
    }
    return false;
}

bool link_parse(struct shard *sh, struct link *l)
{
    size_t total = 0;
    size_t got;

    if (l->unparsed && may_parse(sh, l) && !parse_span(sh, l, conn_kept(&l->conn))) {
        return may_read(sh, l);
    }
    while (l->readable && total < TURN_READ_BYTES && may_parse(sh, l) && read_once(sh, l, &got)) {
        total += got;
        if (l->is_taken && l->takers->left == 0) {
            break; /* more does not count */
        }
    }
    if (l->is_taken) {
        takeover_look(sh, l);
    }
    /* Unread bytes, or packets kept because the budget ran out. A pause or the store wake it
     * themselves. */
    return may_read(sh, l) && (l->readable || l->unparsed);
}
