/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_codec [OPERATIONS | --counts] - packets as a broker meets them, decoded and encoded:
 * PUBLISH of 3.1.1 and 5.0 (64 bytes of payload), CONNECT, SUBSCRIBE of ten filters,
 * acknowledgements, and a stream of PUBLISH packets split into frames.
 */
#include "bench/micro.h"
#include "server/codec/ack.h"
#include "server/codec/connect.h"
#include "server/codec/frame.h"
#include "server/codec/publish.h"
#include "server/codec/subscribe.h"

#include <string.h>

#define PAYLOAD 64u
#define FILTERS 10u
#define STREAM  256u /* packets */

/* One packet: what encoding makes and decoding reads. */
struct packet {
    enum mqtt_version version;
    struct publish publish;
    struct connect connect;
    struct span props;
    uint8_t props_bytes[256];
    uint8_t bytes[1024];
    size_t n;
    struct frame frame;
};

static uint8_t payload[PAYLOAD];

static void frame(struct packet *p)
{
    const char *why;

    MICRO_NEED(frame_next(span_of(p->bytes, p->n), sizeof(p->bytes), &p->frame, &why) == FRAME_OK);
    MICRO_NEED(p->frame.total == p->n);
}

/* --- PUBLISH --- */

static void publish_encode(void *arg, unsigned n)
{
    struct packet *p = arg;
    const struct publish *m = &p->publish;
    size_t id_at;

    for (unsigned i = 0; i < n; i++) {
        size_t size;
        size_t head;

        micro_keep(p);
        size = publish_size(p->version, m->qos, m->topic.n, p->props.n, m->payload.n);
        head = publish_encode_head(p->bytes, m, p->props, p->version, &id_at);
        MICRO_NEED(head + m->payload.n == size);
        memcpy(p->bytes + head, m->payload.p, m->payload.n);
        p->n = size;
    }
}

static void publish_read(void *arg, unsigned n)
{
    struct packet *p = arg;
    struct publish m;
    const char *why;

    for (unsigned i = 0; i < n; i++) {
        micro_keep(p);
        MICRO_NEED(publish_decode(&m, p->frame.body, p->frame.flags, p->version, false, &why) ==
                   DEC_OK);
        MICRO_NEED(m.payload.n == PAYLOAD);
    }
}

/* What an application adds: text type, expiry, two user properties. */
static void add_props(struct packet *p)
{
    uint8_t *at = p->props_bytes;
    size_t n = prop_put_byte(at, PROP_PAYLOAD_FORMAT, 0);

    n += prop_put_u32(at + n, PROP_MESSAGE_EXPIRY, 3600);
    n += prop_put_string(at + n, PROP_CONTENT_TYPE, span_str("application/cbor"));
    n += prop_put_pair(at + n, span_str("site"), span_str("berlin-7"));
    n += prop_put_pair(at + n, span_str("trace"), span_str("4bf92f3577b34da6"));
    p->props = span_of(at, n);
}

static void publish_cases(const char *write, const char *read, enum mqtt_version v, uint8_t qos,
                          bool props, unsigned ops)
{
    struct packet p = {.version = v,
                       .publish = {.topic = span_str("site17/building3/device2281/temperature"),
                                   .payload = span_of(payload, PAYLOAD),
                                   .packet_id = qos > 0 ? 4711 : 0,
                                   .qos = qos}};

    if (props) {
        add_props(&p);
    }
    micro_simple(write, ops, publish_encode, &p);
    frame(&p);
    micro_simple(read, ops, publish_read, &p);
}

/* --- CONNECT --- */

static void connect_write(void *arg, unsigned n)
{
    struct packet *p = arg;

    for (unsigned i = 0; i < n; i++) {
        micro_keep(p);
        p->n = connect_encode(p->bytes, sizeof(p->bytes), &p->connect);
        MICRO_NEED(p->n > 0);
    }
}

static void connect_read(void *arg, unsigned n)
{
    struct packet *p = arg;
    struct connect c;
    const char *why;

    for (unsigned i = 0; i < n; i++) {
        micro_keep(p);
        MICRO_NEED(connect_decode(&c, p->frame.body, &why) == DEC_OK);
        MICRO_NEED(c.has_will && c.has_password);
    }
}

static void connect_cases(const char *write, const char *read, enum mqtt_version v, unsigned ops)
{
    struct packet p = {.connect = {.version = v,
                                   .has_will = true,
                                   .has_username = true,
                                   .has_password = true,
                                   .keep_alive_s = 60,
                                   .client_id = span_str("device-2281-berlin"),
                                   .username = span_str("device-2281"),
                                   .password = span_str("correct horse battery"),
                                   .will = {.topic = span_str("site17/device2281/state"),
                                            .payload = span_str("offline"),
                                            .qos = 1,
                                            .retain = true}}};
    size_t n = prop_put_u32(p.props_bytes, PROP_SESSION_EXPIRY, 86400);

    n += prop_put_u16(p.props_bytes + n, PROP_RECEIVE_MAXIMUM, 100);
    if (v == MQTT_5) {
        p.connect.props.raw = span_of(p.props_bytes, n);
    }
    micro_simple(write, ops, connect_write, &p);
    frame(&p);
    micro_simple(read, ops, connect_read, &p);
}

/* --- SUBSCRIBE --- */

static void subscribe_read(void *arg, unsigned n)
{
    struct packet *p = arg;
    const char *why;

    for (unsigned i = 0; i < n; i++) {
        struct subscribe s;
        struct subscribe_item item;
        unsigned found = 0;

        micro_keep(p);
        MICRO_NEED(subscribe_decode(&s, p->frame.body, p->version, &why) == DEC_OK);
        while (subscribe_next(&s, &item)) {
            found++;
        }
        MICRO_NEED(found == FILTERS);
    }
}

static void suback_write(void *arg, unsigned n)
{
    struct packet *p = arg;
    const uint8_t codes[FILTERS] = {1, 1, 1, 1, 1, 0, 0, 0, 2, 2};

    for (unsigned i = 0; i < n; i++) {
        micro_keep(p);
        MICRO_NEED(suback_encode(p->bytes, sizeof(p->bytes), p->version, 7, SPAN_NULL, codes,
                                 FILTERS) > FILTERS);
    }
}

static void subscribe_cases(const char *read, const char *write, enum mqtt_version v, unsigned ops)
{
    struct subscribe_item items[FILTERS];
    char text[FILTERS][48];
    struct packet p = {.version = v};

    for (unsigned i = 0; i < FILTERS; i++) {
        snprintf(text[i], sizeof(text[i]), "site%u/+/device%u/#", i, i * 977);
        items[i] = (struct subscribe_item){.filter = span_str(text[i]), .qos = 1};
    }
    p.n = subscribe_encode(p.bytes, sizeof(p.bytes), v, 7, SPAN_NULL, items, FILTERS);
    frame(&p);
    micro_simple(read, ops, subscribe_read, &p);
    micro_simple(write, ops, suback_write, &p);
}

/* --- acknowledgements, frames --- */

static void ack_write(void *arg, unsigned n)
{
    struct packet *p = arg;

    for (unsigned i = 0; i < n; i++) {
        micro_keep(p);
        p->n = ack_encode(p->bytes, MQTT_PUBACK, p->version, (uint16_t)(i | 1), RC_SUCCESS);
        MICRO_NEED(p->n == 4);
    }
}

static void ack_read(void *arg, unsigned n)
{
    struct packet *p = arg;
    struct ack a;
    const char *why;

    for (unsigned i = 0; i < n; i++) {
        micro_keep(p);
        MICRO_NEED(ack_decode(&a, p->frame.body, MQTT_PUBACK, p->version, &why) == DEC_OK);
    }
}

static void ack_cases(unsigned ops)
{
    struct packet p = {.version = MQTT_5};

    micro_simple("puback_encode", ops, ack_write, &p);
    frame(&p);
    micro_simple("puback_decode", ops, ack_read, &p);
}

struct stream {
    uint8_t *bytes;
    size_t n;
};

static void split(void *arg, unsigned n)
{
    struct stream *s = arg;
    const char *why;
    struct frame f;
    size_t at = 0;

    for (unsigned i = 0; i < n; i++) {
        micro_keep(s);
        MICRO_NEED(frame_next(span_of(s->bytes + at, s->n - at), 1u << 20, &f, &why) == FRAME_OK);
        at += f.total;
        at = at == s->n ? 0 : at;
    }
}

/* Every fourth of them longer than one byte of length can say. */
static void split_case(unsigned ops)
{
    struct stream s = {.bytes = calloc(STREAM, 512)};

    MICRO_NEED(s.bytes != NULL);
    for (unsigned i = 0; i < STREAM; i++) {
        uint32_t body = i % 4 == 3 ? 400 : 100;

        s.n += frame_put_header(s.bytes + s.n, MQTT_PUBLISH << 4, body) + body;
    }
    micro_simple("frame_split", ops, split, &s);
    free(s.bytes);
}

int main(int argc, char **argv)
{
    unsigned ops = micro_wants_counts(argc, argv) ? 2000
                   : argc > 1                     ? (unsigned)strtoul(argv[1], NULL, 10)
                                                  : 2000000;

    MICRO_NEED(ops > 0);
    memset(payload, 'x', sizeof(payload));
    micro_begin("codec");
    publish_cases("publish4_qos0_encode", "publish4_qos0_decode", MQTT_3_1_1, 0, false, ops);
    publish_cases("publish4_qos1_encode", "publish4_qos1_decode", MQTT_3_1_1, 1, false, ops);
    publish_cases("publish5_encode", "publish5_decode", MQTT_5, 1, false, ops);
    publish_cases("publish5_props_encode", "publish5_props_decode", MQTT_5, 1, true, ops);
    connect_cases("connect4_encode", "connect4_decode", MQTT_3_1_1, ops);
    connect_cases("connect5_encode", "connect5_decode", MQTT_5, ops);
    subscribe_cases("subscribe4_decode", "suback4_encode", MQTT_3_1_1, ops / 4 + 1);
    subscribe_cases("subscribe5_decode", "suback5_encode", MQTT_5, ops / 4 + 1);
    ack_cases(ops);
    split_case(ops);
    micro_end();
    return 0;
}
