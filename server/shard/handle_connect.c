/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection arrives with its CONNECT: take over, resume or begin the session, then CONNACK.
 *
 * CONNACK of a durable session, or of one that ends a stored session, leaves when the store has it;
 * nothing is read from the connection before.
 */
#include "server/shard/ticket.h"

#include <stdlib.h>

#include "routing/topic.h"

#define CONNACK_MAX 512u

/* A stored session that is not resumed. */
static void discard(struct shard *sh, struct client *c)
{
    shard_count(sh, METRIC_CLIENTS_DISCONNECTED, -1);
    will_publish(sh, c); /* its delay ends with the session [MQTT-3.1.3-9] */
    client_end(sh, c);
}

static bool is_durable(const struct connect *c)
{
    return c->version == MQTT_5 ? c->props.session_expiry_s > 0 : !c->clean;
}

static uint32_t expiry_of(const struct shard *sh, const struct connect *c)
{
    uint64_t limit = sh->cfg->persistent_client_expiration;

    if (c->version != MQTT_5) {
        return MQTT_SESSION_NEVER_EXPIRES;
    }
    if (limit != 0 && c->props.session_expiry_s > limit) {
        return (uint32_t)limit;
    }
    return c->props.session_expiry_s;
}

static bool setup_v5(struct shard *sh, struct link *l, const struct connect *c)
{
    const struct listener_config *lc = listener_conf(l->listener);
    struct link5 *v5 = calloc(1, sizeof(*v5));
    uint32_t out_max = c->props.topic_alias_maximum;

    if (v5 == NULL) {
        return false;
    }
    l->v5 = v5;
    v5->alias_in_max = (uint16_t)lc->max_topic_alias;
    v5->receive_maximum =
        props_has(&c->props, PROP_RECEIVE_MAXIMUM) ? c->props.receive_maximum : UINT16_MAX;
    v5->max_packet = c->props.maximum_packet_size;
    v5->in_max_packet = sh->cfg->max_packet_size;
    v5->in_receive_maximum = (uint16_t)sh->cfg->max_inflight_messages;
    v5->in_max_qos = (uint8_t)lc->max_qos;
    v5->in_retain = sh->cfg->retain_available;
    if (out_max > lc->max_topic_alias_broker) {
        out_max = lc->max_topic_alias_broker;
    }
    if (out_max > 0) {
        v5->alias_out_max = (uint16_t)out_max;
        v5->alias_out_cap = 4;
        while (v5->alias_out_cap < out_max * 2) {
            v5->alias_out_cap *= 2;
        }
        v5->alias_out = calloc(v5->alias_out_cap, sizeof(*v5->alias_out));
        if (v5->alias_out == NULL) {
            v5->alias_out_cap = 0;
            v5->alias_out_max = 0;
            return false;
        }
    }
    return true;
}

static void adopt(struct shard *sh, struct client *c, struct link *l, const struct handover *h)
{
    const struct connect *con = &h->connect;

    c->link = l;
    l->client = c;
    c->stamp = h->stamp;
    c->version = (uint8_t)con->version;
    c->bridge = con->bridge;
    c->durable = is_durable(con);
    c->expiry_s = expiry_of(sh, con);
    c->stored = c->stored || c->durable;
    l->plain_out = listener_conf(l->listener)->mount_point == NULL &&
                   (l->v5 == NULL || (l->v5->alias_out == NULL && l->v5->max_packet == 0));
    shard_count(sh, METRIC_CLIENTS_CONNECTED, 1);
    share_set_online(sh, c, true);
}

static void say_connected(struct shard *sh, const struct link *l, const struct handover *h)
{
    char peer[PEER_TEXT];
    static const char *const names[] = {[MQTT_3_1] = "p1", [MQTT_3_1_1] = "p2", [MQTT_5] = "p5"};

    if (!sh->cfg->connection_messages || !log_enabled(sh->b->log, LOGL_NOTICE)) {
        return;
    }
    peer_text(&h->peer, peer);
    log_limited(sh->b->log, LOGL_NOTICE, LOGR_CONNECTION,
                "new client connected from %s as " CLIENT_FMT " (%s, c%d, k%u%s%.*s%s)", peer,
                CLIENT_ARGS(l->client), names[h->connect.version], h->connect.clean,
                h->connect.keep_alive_s, h->connect.has_username ? ", u'" : "",
                (int)h->connect.username.n, (const char *)h->connect.username.p,
                h->connect.has_username ? "'" : "");
}

/* The will's properties, its expiry (which counts from its publication) behind them. */
static struct store_bytes will_props(struct ticket_part *p, const struct will *w)
{
    size_t n = w->msg->props_n;
    uint8_t *props = ticket_room(p, n + WILL_EXPIRY_BYTES);

    if (props == NULL) {
        return (struct store_bytes){NULL, 0};
    }
    memcpy(props, message_props(w->msg), n);
    if (w->expires) {
        n += prop_put_u32(props + n, PROP_MESSAGE_EXPIRY, w->expiry_s);
    }
    return (struct store_bytes){props, n};
}

static void fill_will(struct ticket_part *p, struct store_op *op, const struct client *c)
{
    const struct message *m = c->will->msg;
    struct store_op will = {
        .kind = ST_WILL_PUT,
        .session = c->uid,
        .number = c->will->delay_s,
        .flags = (uint8_t)(m->qos | (m->retain ? 4 : 0) | (c->will->expires ? 8 : 0))};

    will.name = ticket_bytes(p, message_topic(m), m->topic_n);
    will.data = ticket_bytes(p, message_payload(m), m->payload_n);
    will.props = will_props(p, c->will);
    *op = will;
}

static void keep_will(struct ticket_part *p, const struct client *c)
{
    struct store_op *op = ticket_op(p, c->will == NULL ? ST_WILL_DEL : ST_WILL_PUT);

    if (op == NULL) {
        return;
    }
    if (c->will != NULL) {
        fill_will(p, op, c);
    } else {
        op->session = c->uid;
    }
}

/* The will of a clean session: nobody waits for it. False: no memory. */
static bool keep_clean_will(struct shard *sh, const struct client *c)
{
    struct ticket *t;
    bool ok;

    if (!sh->keeps) {
        return true;
    }
    t = ticket_create(sh, 1, 1);
    if (t == NULL) {
        return false;
    }
    keep_will(&t->part[0], c);
    ok = !ticket_is_refused(t);
    ticket_finish(&t->part[0]);
    return ok;
}

/* A stored session that this CONNECT ends. */
struct ended {
    uint64_t session;          /* 0: none */
    struct share_moves *moves; /* a reference; NULL: none */
    bool leaving;              /* what it has through shared groups goes first */
};

/* What CONNACK has to wait for; NULL: nothing, or (*ok false) no memory. */
static struct ticket *ticket_for(struct shard *sh, const struct client *c, struct ended ended,
                                 bool *ok)
{
    struct ticket *t;
    struct store_op *op;

    *ok = true;
    if (!sh->keeps || (!c->durable && ended.session == 0)) {
        return NULL;
    }
    t = ticket_create(sh, 1, 2);
    if (t == NULL) {
        *ok = false;
        return NULL;
    }
    if (ended.session != 0) {
        op = ticket_op(&t->part[0], ST_SESSION_END);
        if (op != NULL) {
            share_end_op(op, ended.session, ended.leaving);
        }
    }
    if (c->durable) {
        op = ticket_op(&t->part[0], ST_SESSION_PUT);
        if (op != NULL) {
            op->session = client_session(c);
            op->name = ticket_bytes(&t->part[0], c->id, c->id_n);
            op->number = c->expiry_s;
            op->flags = (uint8_t)(c->version | SESSION_CONNECTED);
        }
        keep_will(&t->part[0], c);
    }
    if (ticket_is_refused(t)) {
        ticket_finish(&t->part[0]);
        *ok = false;
        return NULL;
    }
    return t;
}

/* Everything CONNACK has to say of v5, in the order peers use [COMPAT]. */
static size_t connack_props(struct shard *sh, const struct link *l, const struct handover *h,
                            uint8_t *p)
{
    const struct config *cfg = sh->cfg;
    size_t n = 0;

    if (cfg->max_keepalive != 0 &&
        (h->connect.keep_alive_s == 0 || h->connect.keep_alive_s > cfg->max_keepalive)) {
        n += prop_put_u16(p + n, PROP_SERVER_KEEP_ALIVE, (uint16_t)cfg->max_keepalive);
    }
    n += prop_put_u16(p + n, PROP_TOPIC_ALIAS_MAXIMUM, l->v5->alias_in_max);
    if (h->id_assigned) {
        n += prop_put_string(p + n, PROP_ASSIGNED_CLIENT_ID, client_id(l->client));
    }
    if (!l->v5->in_retain) {
        n += prop_put_byte(p + n, PROP_RETAIN_AVAILABLE, 0);
    }
    if (l->v5->in_max_packet != 0) {
        n += prop_put_u32(p + n, PROP_MAXIMUM_PACKET_SIZE, l->v5->in_max_packet);
    }
    n += prop_put_u16(p + n, PROP_RECEIVE_MAXIMUM, l->v5->in_receive_maximum);
    if (l->v5->in_max_qos < 2) {
        n += prop_put_byte(p + n, PROP_MAXIMUM_QOS, l->v5->in_max_qos);
    }
    if (l->client->expiry_s != h->connect.props.session_expiry_s) {
        n += prop_put_u32(p + n, PROP_SESSION_EXPIRY, l->client->expiry_s);
    }
    return n;
}

/* CONNACK as bytes, kept in its slot until it may leave. */
static struct ack_slot *connack_slot(struct shard *sh, struct link *l, const struct handover *h,
                                     bool present)
{
    size_t cap = CONNACK_MAX + l->client->id_n;
    uint8_t *p = malloc(cap * 2);
    struct ack_slot *s = NULL;
    size_t n;

    if (p == NULL) {
        return NULL;
    }
    if (l->version == MQTT_5) {
        n = connack_props(sh, l, h, p + cap);
        n = connack5_encode(p, cap, present, RC_SUCCESS, span_of(p + cap, n));
    } else {
        /* 3.1 has no session present; its byte is reserved. */
        n = connack3_encode(p, cap, present && l->version != MQTT_3_1, CONNACK3_ACCEPTED);
    }
    s = link_slot(sh, l, MQTT_CONNACK, 0, RC_SUCCESS, p, n);
    free(p);
    return s;
}

static uint32_t keep_alive_ms(const struct shard *sh, const struct connect *c)
{
    uint32_t s = c->keep_alive_s;

    if (sh->cfg->max_keepalive != 0 && (s == 0 || s > sh->cfg->max_keepalive)) {
        s = sh->cfg->max_keepalive;
    }
    return s * 1500u; /* one and a half times [MQTT-3.1.2-24] */
}

/* The session for this CONNECT; *present: an old one goes on. NULL: no memory. */
static struct client *session_for(struct shard *sh, const struct handover *h, bool *present,
                                  struct ended *ended)
{
    struct client *c = client_find(sh, h->client_id);

    *present = false;
    *ended = (struct ended){0};
    assert(c == NULL || c->link == NULL); /* a takeover is over */
    if (c != NULL && h->connect.clean) {
        ended->session = client_session(c);
        ended->moves = share_end(sh, c, &ended->leaving);
        discard(sh, c);
        c = NULL;
    }
    if (c != NULL) {
        *present = true;
        shard_count(sh, METRIC_CLIENTS_DISCONNECTED, -1);
        timer_cancel(&sh->wheel, &c->timer);
        will_free(&c->will); /* a resume cancels a will that waits [MQTT-3.1.3-9] */
        return c;
    }
    return client_create(sh, h->client_id);
}

/* Of the topic that is used, below the mount point. */
static bool will_is_valid(struct shard *sh, const struct link *l, const struct connect *con)
{
    struct span topic;

    return !con->has_will ||
           (mount_topic(sh, l, con->will.topic, &topic) &&
            topic_name_is_valid((const char *)topic.p, topic.n, sh->cfg->max_topic_levels));
}

static bool begin_with(struct shard *sh, struct link *l, struct handover *h, struct ended *ended)
{
    const struct connect *con = &h->connect;
    struct client *c;
    struct ticket *t;
    struct ack_slot *s;
    bool present;
    bool ok;

    if (con->version == MQTT_5 && !setup_v5(sh, l, con)) {
        return false;
    }
    if (!will_is_valid(sh, l, con)) {
        shard_count(sh, METRIC_CONNECT_REFUSED, 1);
        link_close(sh, l, RC_TOPIC_NAME_INVALID, "invalid will topic");
        return true;
    }
    c = session_for(sh, h, &present, ended);
    if (c == NULL) {
        return false;
    }
    adopt(sh, c, l, h);
    if (con->has_will) {
        c->will = will_create(con, l);
        if (c->will == NULL || (!c->durable && !keep_clean_will(sh, c))) {
            return false;
        }
    }
    say_connected(sh, l, h);
    /* What the connection before has left to be written goes first: this CONNECT's records replace
     * it. */
    ticket_flush_lazy(sh);
    t = ticket_for(sh, c, *ended, &ok);
    s = ok ? connack_slot(sh, l, h, present) : NULL;
    if (s == NULL) {
        if (t != NULL) {
            ticket_refuse(&t->part[0]);
            ticket_finish(&t->part[0]);
        }
        return false;
    }
    if (t != NULL) {
        link_slot_wait(sh, l, s, t);
        ticket_finish(&t->part[0]);
    } else {
        link_slot_ready(sh, s);
    }
    return true;
}

static bool begin(struct shard *sh, struct link *l, struct handover *h)
{
    struct ended ended = {0};
    const bool ok = begin_with(sh, l, h, &ended);

    if (!ok) {
        l->orderly = true; /* this CONNECT was not taken, nor was its will */
        if (ended.session != 0) {
            client_keep_end(sh, ended.session, ended.leaving);
        }
    }
    share_unref(sh, ended.moves); /* its record is on its way */
    return ok;
}

struct link *handle_connect(struct shard *sh, struct handover *h)
{
    struct client *c = client_find(sh, h->client_id);
    struct link *l;

    if (c != NULL && c->stamp > h->stamp) {
        /* A CONNECT that was complete later has been here first: it would have taken over this one.
         */
        shard_count(sh, METRIC_CLIENTS_TAKEN_OVER, 1);
        handover_drop(h);
        return NULL;
    }
    if (c != NULL && c->link != NULL) {
        takeover_begin(sh, c->link, h);
        return NULL;
    }
    l = link_create(sh, h);
    if (l == NULL) {
        handover_drop(h);
        return NULL;
    }
    l->keep_alive_ms = keep_alive_ms(sh, &h->connect);
    assert(h->connect_n <= h->bytes_n && h->bytes_n - h->connect_n < READ_SCRATCH);
    if (!loop_add(&sh->loop, l->conn.fd, LOOP_CONN, l) ||
        !conn_keep(&l->conn, span_of(h->bytes + h->connect_n, h->bytes_n - h->connect_n), 0)) {
        log_limited(sh->b->log, LOGL_ERROR, LOGR_NET, "cannot take a connection: %m");
        link_free(sh, l);
        handover_free(h);
        return NULL;
    }
    l->unparsed = h->bytes_n > h->connect_n;
    if (!begin(sh, l, h)) {
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
    }
    handover_free(h);
    return l;
}

void connect_completed(struct shard *sh, struct ack_slot *s)
{
    struct link *l = s->link;

    if (l->state != LINK_CONNECTING) {
        return; /* ended meanwhile */
    }
    if (link_too_large(l, s->ncodes)) { /* [MQTT-3.1.2-24] */
        link_close(sh, l, RC_PACKET_TOO_LARGE, "CONNACK above the client's maximum packet size");
        return;
    }
    if (!conn_out_copy(&l->conn, s->codes, s->ncodes)) {
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        return;
    }
    shard_count(sh, METRIC_MESSAGES_SENT, 1);
    link_dirty(sh, l);
    l->state = LINK_OPEN;
    l->opened = true;
    link_touch_keepalive(sh, l);
    outq_connected(sh, l->client);
    link_ready(sh, l);
}
