/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/ack.h"

#include "server/codec/fields.h"
#include "server/codec/reason.h"

static enum dec_rc decode_props(struct ack *out, struct cursor *c, const char **why)
{
    struct props props = {0};
    const enum dec_rc rc = cur_last_props(c, &props, PROPS_PUBACK, why);

    out->props = props.raw;
    return rc;
}

/* 5.0: a reason code may follow, and behind it properties. Without it: success [MQTT 5.0, 3.4.2.1].
 */
static enum dec_rc decode_reason(struct ack *out, struct cursor *c, enum mqtt_type type,
                                 const char **why)
{
    uint8_t reason = 0;

    if (!cur_u8(c, &reason)) {
        return DEC_OK;
    }
    if (!reason_is_allowed(type, reason)) {
        return dec_fail(DEC_PROTOCOL, why, "reason code not of this acknowledgement");
    }
    out->reason = (enum mqtt_reason)reason;
    if (cur_at_end(c)) {
        return DEC_OK;
    }
    return decode_props(out, c, why);
}

enum dec_rc ack_decode(struct ack *out, struct span body, enum mqtt_type type, enum mqtt_version v,
                       const char **why)
{
    struct cursor c = cur_of(body);
    enum dec_rc rc;

    *out = (struct ack){0};
    rc = cur_packet_id(&c, &out->packet_id, why);
    if (rc != DEC_OK || cur_at_end(&c)) {
        return rc;
    }
    if (v != MQTT_5) {
        return dec_fail(DEC_MALFORMED, why, "bytes behind the packet identifier");
    }
    return decode_reason(out, &c, type, why);
}

static uint8_t first_byte(enum mqtt_type type)
{
    return (uint8_t)(type << 4 | (type == MQTT_PUBREL ? 2u : 0u)); /* [MQTT-3.6.1-1] */
}

size_t ack_encode(uint8_t *p, enum mqtt_type type, enum mqtt_version v, uint16_t packet_id,
                  enum mqtt_reason reason)
{
    check(type >= MQTT_PUBACK && type <= MQTT_PUBCOMP && packet_id != 0); /* [MQTT-2.2.1-3] */
    p[0] = first_byte(type);
    p[1] = 2;
    put_u16(p + 2, packet_id);
    if (v != MQTT_5 || reason == RC_SUCCESS) {
        return 4;
    }
    check(reason_is_allowed(type, (uint8_t)reason));
    p[1] = 3;
    p[4] = (uint8_t)reason;
    return 5;
}

size_t ack_encode_props(uint8_t *p, size_t cap, enum mqtt_type type, uint16_t packet_id,
                        enum mqtt_reason reason, struct span props)
{
    const size_t remaining = 3 + props_size(props);
    uint8_t *q;

    check(reason_is_allowed(type, (uint8_t)reason) && packet_id != 0);
    if (packet_size(remaining) > cap) {
        return 0;
    }
    q = p + frame_put_header(p, first_byte(type), (uint32_t)remaining);
    q = put_u16(q, packet_id);
    q = put_u8(q, (uint8_t)reason);
    q = put_props(q, props);
    return (size_t)(q - p);
}
