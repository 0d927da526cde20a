/* SPDX-License-Identifier: Apache-2.0 */
/*
 * packets.c - just enough MQTT: PUBLISH travels on as it came, a run of them to one topic in one
 * piece; everything else is answered without looking anything up.
 */
#include <stdlib.h>
#include <string.h>

#include "bench/floor/floor.h"
#include "server/codec/ack.h"
#include "server/codec/connect.h"
#include "server/codec/frame.h"
#include "server/codec/subscribe.h"

/* --- who gets what --- */

static struct route **bucket_of(struct relay *r, struct span filter)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

    for (size_t i = 0; i < filter.n; i++) {
        h = (h ^ filter.p[i]) * 0x100000001b3u;
    }
    return &r->routes[(h ^ h >> 32) % ROUTES];
}

static struct route *route_find(struct relay *r, struct span filter)
{
    struct route *at = *bucket_of(r, filter);

    while (at != NULL && !span_eq(span_of(at->filter, at->filter_n), filter)) {
        at = at->next;
    }
    return at;
}

static struct route *route_get(struct relay *r, struct span filter)
{
    struct route *at = route_find(r, filter);
    struct route **bucket = bucket_of(r, filter);

    if (at != NULL) {
        return at;
    }
    at = calloc(1, sizeof(*at) + filter.n);
    if (at == NULL) {
        abort();
    }
    memcpy(at->filter, filter.p, filter.n);
    at->filter_n = filter.n;
    at->next = *bucket;
    *bucket = at;
    return at;
}

static void route_add(struct route *at, struct peer *p)
{
    if (at->n == at->cap) {
        at->cap = at->cap == 0 ? 4 : at->cap * 2;
        at->peers = realloc(at->peers, at->cap * sizeof(struct peer *));
        if (at->peers == NULL) {
            abort();
        }
    }
    at->peers[at->n++] = p;
    p->in = at;
}

void packets_forget(struct peer *p)
{
    struct route *at = p->in;

    for (size_t i = 0; at != NULL && i < at->n; i++) {
        if (at->peers[i] == p) {
            at->peers[i] = at->peers[--at->n];
            return;
        }
    }
}

/* The same topic with + for its last level. */
static struct route *route_of_level(struct relay *r, struct span topic)
{
    uint8_t filter[256];
    size_t n = topic.n;

    while (n > 0 && topic.p[n - 1] != '/') {
        n--;
    }
    if (n + 1 > sizeof(filter)) {
        return NULL;
    }
    memcpy(filter, topic.p, n);
    filter[n] = '+';
    return route_find(r, span_of(filter, n + 1));
}

/* NULL: nobody subscribed. Publishers stay with their topic, so that this is hardly ever looked up.
 */
static struct route *route_to(struct relay *r, struct peer *p, struct span topic)
{
    if (p->to != NULL && span_eq(span_of(p->topic.p, p->topic.n), topic)) {
        return p->to;
    }
    p->topic.n = 0;
    bytes_put(&p->topic, topic.p, topic.n);
    p->to = route_find(r, topic);
    if (p->to == NULL) {
        p->to = route_of_level(r, topic);
    }
    return p->to;
}

/* --- packets --- */

/* Messages that lie one behind the other and go the same way. */
struct way {
    struct route *to;
    const uint8_t *from, *end;
};

static void hand_on(struct relay *r, struct way *w)
{
    for (size_t i = 0; w->to != NULL && i < w->to->n; i++) {
        peer_put(r, w->to->peers[i], w->from, (size_t)(w->end - w->from));
    }
    w->to = NULL;
}

static void answer(struct relay *r, struct peer *p, enum mqtt_type type, const uint8_t *id)
{
    const uint8_t packet[] = {(uint8_t)(type << 4 | (type == MQTT_PUBREL ? 2 : 0)), 2, id[0],
                              id[1]};

    peer_put(r, p, packet, sizeof(packet));
}

/* False: it makes no sense. */
static bool on_publish(struct relay *r, struct peer *p, const struct frame *f, struct way *w)
{
    const uint8_t *at = f->body.p;
    size_t topic_n = f->body.n < 2 ? SIZE_MAX : (size_t)(at[0] << 8 | at[1]);
    unsigned qos = (f->flags >> 1) & 3u;
    struct route *to;

    if (f->body.n < 4 || topic_n > f->body.n - 4) {
        return false;
    }
    to = route_to(r, p, span_of(at + 2, topic_n));
    if (to != w->to) {
        hand_on(r, w);
        w->to = to;
        w->from = f->body.p - (f->total - f->body.n);
    }
    w->end = f->body.p + f->body.n;
    if (qos > 0) {
        answer(r, p, qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, at + 2 + topic_n);
    }
    return true;
}

static bool on_connect(struct relay *r, struct peer *p, const struct frame *f)
{
    struct connect c;
    const char *why;
    uint8_t out[16];
    size_t n;

    if (connect_decode(&c, f->body, &why) != DEC_OK) {
        return false;
    }
    p->version = c.version;
    n = c.version == MQTT_5 ? connack5_encode(out, sizeof(out), false, RC_SUCCESS, SPAN_NULL)
                            : connack3_encode(out, sizeof(out), false, CONNACK3_ACCEPTED);
    peer_put(r, p, out, n);
    return true;
}

/* One filter for each peer and no second one: that is all the scenarios need. */
static bool on_subscribe(struct relay *r, struct peer *p, const struct frame *f)
{
    struct subscribe s;
    struct subscribe_item item;
    const char *why;
    uint8_t out[16];

    if (subscribe_decode(&s, f->body, p->version, &why) != DEC_OK || s.count != 1 ||
        p->in != NULL || !subscribe_next(&s, &item)) {
        return false;
    }
    route_add(route_get(r, item.filter), p);
    peer_put(r, p, out,
             suback_encode(out, sizeof(out), p->version, s.packet_id, SPAN_NULL, &item.qos, 1));
    return true;
}

/* False: the connection ends. */
static bool on_packet(struct relay *r, struct peer *p, const struct frame *f, struct way *w)
{
    static const uint8_t pingresp[] = {MQTT_PINGRESP << 4, 0};

    switch (f->type) {
    case MQTT_PUBLISH:
        return on_publish(r, p, f, w);
    case MQTT_PUBACK:
    case MQTT_PUBCOMP:
        return true;
    case MQTT_PUBREC:
    case MQTT_PUBREL:
        if (f->body.n < 2) {
            return false;
        }
        answer(r, p, f->type == MQTT_PUBREC ? MQTT_PUBREL : MQTT_PUBCOMP, f->body.p);
        return true;
    case MQTT_CONNECT:
        return on_connect(r, p, f);
    case MQTT_SUBSCRIBE:
        return on_subscribe(r, p, f);
    case MQTT_PINGREQ:
        peer_put(r, p, pingresp, sizeof(pingresp));
        return true;
    default:
        return false;
    }
}

size_t packets(struct relay *r, struct peer *p, const uint8_t *in, size_t n)
{
    struct way w = {.to = NULL};
    struct frame f;
    size_t used = 0;
    const char *why;

    while (!p->closing && used < n) {
        enum frame_rc rc = frame_next(span_of(in + used, n - used), SIZE_MAX, &f, &why);

        if (rc == FRAME_NEED_MORE) {
            break;
        }
        if (rc != FRAME_OK || !on_packet(r, p, &f, &w)) {
            peer_close(r, p);
            break;
        }
        used += f.total;
    }
    hand_on(r, &w);
    return used;
}
