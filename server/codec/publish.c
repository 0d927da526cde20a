/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/publish.h"

#include "server/codec/fields.h"

#define FLAG_RETAIN 0x01u
#define FLAG_DUP    0x08u

static enum dec_rc check_flags(struct publish *out, enum mqtt_version v, const char **why)
{
    if (out->qos == 3) {
        return dec_fail(DEC_MALFORMED, why, "PUBLISH with QoS 3"); /* [MQTT-3.3.1-4] */
    }
    if (out->dup && out->qos == 0) {
        if (v != MQTT_3_1) {
            return dec_fail(DEC_MALFORMED, why, "DUP with QoS 0"); /* [MQTT-3.3.1-2] */
        }
        out->dup = false;
    }
    return DEC_OK;
}

/* What 5.0 has between packet identifier and payload, and what follows from it for the topic. */
static enum dec_rc decode_props(struct publish *out, struct cursor *c, bool from_server,
                                const char **why)
{
    const enum dec_rc rc = cur_props(c, &out->props, PROPS_PUBLISH, why);

    if (rc != DEC_OK) {
        return rc;
    }
    out->has_controls |= out->props.has_controls;
    if (!from_server && props_has(&out->props, PROP_SUBSCRIPTION_ID)) {
        return dec_fail(DEC_PROTOCOL, why,
                        "subscription identifier from a client"); /* [MQTT-3.3.4-6] */
    }
    if (out->topic.n == 0 && !props_has(&out->props, PROP_TOPIC_ALIAS)) {
        return dec_fail(DEC_PROTOCOL, why, "neither topic name nor topic alias"); /* 3.3.2.1 */
    }
    return DEC_OK;
}

static enum dec_rc decode(struct publish *out, struct span body, uint8_t flags, enum mqtt_version v,
                          bool from_server, struct span known, const char **why)
{
    struct cursor c = cur_of(body);
    enum dec_rc rc;

    *out = (struct publish){.qos = (flags >> 1) & 3u,
                            .dup = (flags & FLAG_DUP) != 0,
                            .retain = (flags & FLAG_RETAIN) != 0};
    rc = check_flags(out, v, why);
    if (rc != DEC_OK) {
        return rc;
    }
    if (!cur_bin(&c, &out->topic)) {
        return dec_fail(DEC_MALFORMED, why, "topic name cut short");
    }
    out->topic_known = known.n > 0 && span_eq(out->topic, known);
    rc = out->topic_known ? DEC_OK : topic_name_check(out->topic, &out->has_controls, why);
    if (rc == DEC_OK && out->qos > 0) {
        rc = cur_packet_id(&c, &out->packet_id, why);
    }
    if (rc == DEC_OK && v == MQTT_5) {
        rc = decode_props(out, &c, from_server, why);
    } else if (rc == DEC_OK && out->topic.n == 0) {
        rc = dec_fail(DEC_TOPIC_NAME, why, "empty topic name"); /* [MQTT-4.7.3-1] */
    }
    if (rc == DEC_OK) {
        out->payload = cur_rest(&c);
    }
    return rc;
}

enum dec_rc publish_decode(struct publish *out, struct span body, uint8_t flags,
                           enum mqtt_version v, bool from_server, const char **why)
{
    return decode(out, body, flags, v, from_server, SPAN_NULL, why);
}

enum dec_rc publish_decode_known(struct publish *out, struct span body, uint8_t flags,
                                 enum mqtt_version v, struct span known, const char **why)
{
    return decode(out, body, flags, v, false, known, why);
}

static size_t remaining_of(enum mqtt_version v, uint8_t qos, size_t topic_n, size_t props_n,
                           size_t payload_n)
{
    size_t n = 2 + topic_n + (qos > 0 ? 2u : 0u) + payload_n;

    if (v == MQTT_5) {
        n += varint_size((uint32_t)props_n) + props_n;
    }
    return n;
}

size_t publish_size(enum mqtt_version v, uint8_t qos, size_t topic_n, size_t props_n,
                    size_t payload_n)
{
    return packet_size(remaining_of(v, qos, topic_n, props_n, payload_n));
}

size_t publish_encode_head(uint8_t *p, const struct publish *m, struct span props,
                           enum mqtt_version v, size_t *packet_id_at)
{
    const uint8_t first = (uint8_t)(MQTT_PUBLISH << 4 | (m->dup ? FLAG_DUP : 0u) |
                                    (unsigned)m->qos << 1 | (m->retain ? FLAG_RETAIN : 0u));
    const size_t remaining = remaining_of(v, m->qos, m->topic.n, props.n, m->payload.n);
    uint8_t *q = p + frame_put_header(p, first, (uint32_t)remaining);

    check(m->qos <= 2 && !(m->qos == 0 && m->dup)); /* [MQTT-3.3.1-4], [MQTT-3.3.1-2] */
    q = put_bin(q, m->topic);
    *packet_id_at = 0;
    if (m->qos > 0) {
        *packet_id_at = (size_t)(q - p);
        q = put_u16(q, m->packet_id);
    }
    if (v == MQTT_5) {
        q = put_props(q, props);
    }
    check((size_t)(q - p) + m->payload.n == packet_size(remaining));
    return (size_t)(q - p);
}
