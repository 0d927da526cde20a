/* SPDX-License-Identifier: Apache-2.0 */
/*
 * user.h - a client as MQTT wants it, on a socket pair of a fixture: it acknowledges what it gets,
 * takes a QoS 2 message once, and when its connection ends it comes back, sends again what was not
 * acknowledged and subscribes again where it has no SUBACK. It allocates nothing.
 */
#ifndef NOCTULE_TESTS_SHARD_USER_H
#define NOCTULE_TESTS_SHARD_USER_H

#include "tests/support/fault.h"
#include "tests/unit/shard/fixture.h"

#define MESSAGES   128u /* numbers of a run; packet ids are numbers + 1 */
#define USER_SUBS  4u
#define USER_IDS   256u
#define USER_LARGE 6000u /* bytes of a large payload */

enum user_sub_state { SUB_NONE, SUB_WANTED, SUB_THERE, SUB_UNWANTED };

struct user_sub {
    const char *filter;
    uint8_t qos;
    uint8_t id; /* v5 subscription identifier; 0: none */
    enum user_sub_state state;
};

/* A message on its way to the broker. */
struct user_pub {
    const char *topic;
    uint8_t qos;
    bool retain;
    bool large;
    bool pending;  /* not acknowledged */
    bool received; /* PUBREC has come */
    bool acked;    /* PUBACK, PUBREC: it is the broker's */
    bool refused;  /* likewise, with a reason of 0x80 and above */
};

struct user {
    char id[32];
    enum mqtt_version version;
    bool clean;
    bool durable;
    const char *will; /* its topic; NULL: none */
    bool stays;       /* comes back when its connection ends */
    bool mute;        /* acknowledges nothing */
    int fd;           /* -1: not connected */
    bool open;        /* CONNACK has come */
    bool had_session; /* the broker has kept it at some time */
    unsigned ends;    /* of connections, by the broker, that were to stay */
    struct user_sub subs[USER_SUBS];
    struct user_pub pubs[MESSAGES];
    unsigned got[MESSAGES];
    bool ids[USER_IDS]; /* QoS 2, not released */
    uint8_t in[USER_LARGE * 4];
    size_t in_n;
};

/* ---- out ---- */

static void user_send(struct user *u, const void *p, size_t n)
{
    if (u->fd >= 0 && send(u->fd, p, n, MSG_NOSIGNAL) != (ssize_t)n) {
        UNIT_NEED(errno == EPIPE || errno == ECONNRESET); /* its end is seen when it is read */
    }
}

static void user_ack(struct user *u, enum mqtt_type type, uint16_t packet_id)
{
    uint8_t bytes[8];

    user_send(u, bytes, ack_encode(bytes, type, u->version, packet_id, RC_SUCCESS));
}

static void user_send_publish(struct user *u, unsigned number, bool dup)
{
    static uint8_t bytes[USER_LARGE + 128];
    static uint8_t payload[USER_LARGE];
    const struct user_pub *p = &u->pubs[number];
    struct publish m = {.topic = span_str(p->topic),
                        .payload = span_of(payload, p->large ? USER_LARGE : 4),
                        .packet_id = (uint16_t)(p->qos > 0 ? number + 1 : 0),
                        .qos = p->qos,
                        .dup = dup && p->qos > 0,
                        .retain = p->retain};
    size_t id_at;
    size_t n = publish_encode_head(bytes, &m, SPAN_NULL, u->version, &id_at);

    memcpy(payload, &number, sizeof(number));
    memcpy(bytes + n, payload, m.payload.n);
    user_send(u, bytes, n + m.payload.n);
}

static inline void user_publish(struct user *u, unsigned number, struct user_pub p)
{
    UNIT_NEED(number < MESSAGES);
    u->pubs[number] = p;
    u->pubs[number].pending = p.qos > 0;
    if (u->open) {
        user_send_publish(u, number, false);
    }
}

/* Packet ids of SUBSCRIBE and UNSUBSCRIBE are above those of messages, by the subscription. */
static void user_send_sub(struct user *u, unsigned i)
{
    const struct user_sub *s = &u->subs[i];
    struct subscribe_item item = {.qos = s->qos};
    uint8_t props[2] = {PROP_SUBSCRIPTION_ID, s->id};
    uint8_t bytes[128];
    const uint16_t packet_id = (uint16_t)(1000 + i);

    item.filter = span_str(s->filter == NULL ? "" : s->filter);
    if (s->state == SUB_WANTED) {
        user_send(u, bytes,
                  subscribe_encode(bytes, sizeof(bytes), u->version, packet_id,
                                   span_of(props, s->id == 0 ? 0 : 2), &item, 1));
    } else if (s->state == SUB_UNWANTED) {
        user_send(
            u, bytes,
            unsubscribe_encode(bytes, sizeof(bytes), u->version, packet_id, SPAN_NULL, &item, 1));
    }
}

static inline void user_want(struct user *u, unsigned i, enum user_sub_state state)
{
    u->subs[i].state = state;
    if (u->open) {
        user_send_sub(u, i);
    }
}

static void user_connect(struct user *u, struct fixture *f)
{
    struct connect c = {.version = u->version, .clean = u->clean, .client_id = span_str(u->id)};
    uint8_t props[8];
    uint8_t bytes[256];
    int pair[2];

    if (u->version == MQTT_5 && u->durable) {
        c.props.raw = span_of(props, prop_put_u32(props, PROP_SESSION_EXPIRY, 3600));
    }
    if (u->will != NULL) {
        c.has_will = true;
        c.will = (struct connect_will){
            .topic = span_str(u->will), .payload = span_str("will"), .qos = 1};
    }
    fault_hold(true);
    UNIT_NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    give_bytes(f, pair[0], &transport_tcp, bytes, connect_encode(bytes, sizeof(bytes), &c));
    fault_hold(false);
    if (u->fd >= 0) {
        close(u->fd); /* takes over */
    }
    u->fd = pair[1];
    u->open = false;
    u->in_n = 0;
}

static inline void user_leave(struct user *u)
{
    if (u->fd >= 0) {
        close(u->fd);
    }
    u->fd = -1;
    u->open = false;
    u->in_n = 0;
}

/* ---- in ---- */

static void user_opened(struct user *u, bool present)
{
    u->open = true;
    CU_ASSERT(present || !u->had_session || u->clean);
    u->had_session = u->durable;
    for (unsigned i = 0; i < USER_IDS && !present; i++) {
        u->ids[i] = false;
    }
    for (unsigned i = 0; i < MESSAGES; i++) {
        struct user_pub *p = &u->pubs[i];
        if (p->pending && p->received && present) {
            user_ack(u, MQTT_PUBREL, (uint16_t)(i + 1));
        } else if (p->pending && p->received) {
            p->pending = false; /* it was taken; its session has gone */
        } else if (p->pending) {
            user_send_publish(u, i, present);
        }
    }
    for (unsigned i = 0; i < USER_SUBS; i++) {
        if (u->subs[i].state == SUB_THERE && !present) {
            u->subs[i].state = SUB_WANTED;
        }
        user_send_sub(u, i);
    }
}

static void user_got_message(struct user *u, const struct frame *f)
{
    struct publish m;
    const char *why;
    unsigned number;

    UNIT_NEED(publish_decode(&m, f->body, f->flags, u->version, true, &why) == DEC_OK);
    if (m.payload.n == 4 && memcmp(m.payload.p, "will", 4) == 0) {
        number = MESSAGES - 1;
    } else {
        UNIT_NEED(m.payload.n == 4 || m.payload.n == USER_LARGE);
        memcpy(&number, m.payload.p, sizeof(number));
    }
    UNIT_NEED(number < MESSAGES && m.packet_id < USER_IDS);
    if (m.qos < 2 || !u->ids[m.packet_id]) {
        u->got[number]++;
    }
    if (m.qos == 2) {
        u->ids[m.packet_id] = true;
    }
    if (m.qos > 0 && !u->mute) {
        user_ack(u, m.qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, m.packet_id);
    }
}

static void user_got_answer(struct user *u, const struct frame *f)
{
    struct user_pub *p;
    struct ack a;
    const char *why;

    UNIT_NEED(ack_decode(&a, f->body, f->type, u->version, &why) == DEC_OK);
    UNIT_NEED(a.packet_id >= 1 && a.packet_id <= MESSAGES);
    p = &u->pubs[a.packet_id - 1];
    if (f->type == MQTT_PUBCOMP) {
        p->pending = false;
        return;
    }
    p->refused = a.reason >= RC_UNSPECIFIED_ERROR;
    p->acked = !p->refused;
    p->received = f->type == MQTT_PUBREC && !p->refused;
    p->pending = p->received;
    if (p->received && !u->mute) {
        user_ack(u, MQTT_PUBREL, a.packet_id);
    }
}

static void user_got_suback(struct user *u, const struct frame *f)
{
    const unsigned packet_id = (unsigned)(f->body.p[0] << 8 | f->body.p[1]);
    struct user_sub *s = &u->subs[packet_id - 1000];

    UNIT_NEED(packet_id >= 1000 && packet_id < 1000 + USER_SUBS);
    if (f->type == MQTT_UNSUBACK) {
        s->state = SUB_NONE;
    } else if (f->body.p[f->body.n - 1] < 0x80) {
        s->state = SUB_THERE;
    } else {
        user_send_sub(u, packet_id - 1000); /* once more */
    }
}

static void user_got(struct user *u, const struct frame *f)
{
    const unsigned packet_id = f->body.n < 2 ? 0 : (unsigned)(f->body.p[0] << 8 | f->body.p[1]);

    switch (f->type) {
    case MQTT_CONNACK:
        if (f->body.p[1] == 0) {
            user_opened(u, f->body.p[0] == 1);
        }
        break;
    case MQTT_PUBLISH:
        user_got_message(u, f);
        break;
    case MQTT_PUBREL:
        UNIT_NEED(packet_id < USER_IDS);
        u->ids[packet_id] = false;
        user_ack(u, MQTT_PUBCOMP, (uint16_t)packet_id);
        break;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBCOMP:
        user_got_answer(u, f);
        break;
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        user_got_suback(u, f);
        break;
    default:
        UNIT_NEED(f->type == MQTT_DISCONNECT);
        break;
    }
}

/* Reads what is there. */
static inline void user_look(struct user *u, struct fixture *f)
{
    ssize_t got = u->fd < 0 ? 0 : recv(u->fd, u->in + u->in_n, sizeof(u->in) - u->in_n, 0);
    const char *why;
    struct frame frame;
    size_t at = 0;

    if (u->fd < 0) {
        return;
    }
    UNIT_NEED(got >= 0 || errno == EAGAIN || errno == ECONNRESET);
    u->in_n += got > 0 ? (size_t)got : 0;
    while (u->fd >= 0 &&
           frame_next(span_of(u->in + at, u->in_n - at), sizeof(u->in), &frame, &why) == FRAME_OK) {
        at += frame.total;
        user_got(u, &frame);
    }
    memmove(u->in, u->in + at, u->in_n - at);
    u->in_n -= at;
    if (got == 0 || (got < 0 && errno == ECONNRESET)) {
        user_leave(u);
        if (u->stays) {
            u->ends++;
            user_connect(u, f);
        }
    }
}

/* Nothing of its own is under way. */
static inline bool user_is_done(const struct user *u)
{
    for (unsigned i = 0; i < MESSAGES && u->fd >= 0; i++) {
        if (u->pubs[i].pending) {
            return false;
        }
    }
    for (unsigned i = 0; i < USER_SUBS && u->fd >= 0; i++) {
        if (u->subs[i].state == SUB_WANTED || u->subs[i].state == SUB_UNWANTED) {
            return false;
        }
    }
    return u->fd < 0 || u->open;
}

#endif
