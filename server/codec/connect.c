/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/connect.h"

#include "server/codec/fields.h"
#include "server/codec/reason.h"

#define LEVEL_BRIDGE 0x80u

#define FLAG_RESERVED    0x01u
#define FLAG_CLEAN       0x02u
#define FLAG_WILL        0x04u
#define FLAG_WILL_QOS    0x18u
#define FLAG_WILL_RETAIN 0x20u
#define FLAG_PASSWORD    0x40u
#define FLAG_USERNAME    0x80u

#define WILL_QOS_SHIFT 3

/* Protocol name and level: which version is spoken. */
static enum dec_rc decode_protocol(struct connect *out, struct cursor *c, const char **why)
{
    struct span name;
    uint8_t level = 0;
    bool is_31;

    if (!cur_bin(c, &name)) {
        return dec_fail(DEC_MALFORMED, why, "protocol name cut short");
    }
    is_31 = span_eq(name, span_str("MQIsdp"));
    if (!is_31 && !span_eq(name, span_str("MQTT"))) {
        return dec_fail(DEC_BAD_PROTOCOL_NAME, why,
                        "protocol name is not MQTT"); /* [MQTT-3.1.2-1] */
    }
    if (!cur_u8(c, &level)) {
        return dec_fail(DEC_MALFORMED, why, "no protocol level");
    }
    out->bridge = (level & LEVEL_BRIDGE) != 0 && level != (LEVEL_BRIDGE | MQTT_5);
    if (out->bridge) {
        level &= (uint8_t)~LEVEL_BRIDGE;
    }
    if (is_31 ? level != MQTT_3_1 : level != MQTT_3_1_1 && level != MQTT_5) {
        out->bridge = false;
        out->version = is_31 ? MQTT_3_1 : MQTT_3_1_1;
        return dec_fail(DEC_UNSUPPORTED_VERSION, why,
                        "protocol level not supported"); /* [MQTT-3.1.2-2] */
    }
    out->version = (enum mqtt_version)level;
    return DEC_OK;
}

static enum dec_rc check_will_flags(uint8_t flags, const char **why)
{
    if ((flags & FLAG_WILL_QOS) == FLAG_WILL_QOS) {
        return dec_fail(DEC_MALFORMED, why, "will QoS 3"); /* [MQTT-3.1.2-12] */
    }
    if (!(flags & FLAG_WILL) && flags & (FLAG_WILL_QOS | FLAG_WILL_RETAIN)) {
        return dec_fail(DEC_PROTOCOL, why, "will flags without a will"); /* [MQTT-3.1.2-11,13] */
    }
    return DEC_OK;
}

static enum dec_rc decode_flags(struct connect *out, struct cursor *c, const char **why)
{
    uint8_t flags = 0;

    if (!cur_u8(c, &flags)) {
        return dec_fail(DEC_MALFORMED, why, "no connect flags");
    }
    /* 3.1 does not use the bit, and does not say that it is 0. */
    if (flags & FLAG_RESERVED && out->version != MQTT_3_1) {
        return dec_fail(DEC_MALFORMED, why, "reserved connect flag"); /* [MQTT-3.1.2-3] */
    }
    if ((flags & (FLAG_PASSWORD | FLAG_USERNAME)) == FLAG_PASSWORD && out->version != MQTT_5) {
        return dec_fail(DEC_PROTOCOL, why,
                        "password without user name"); /* [MQTT-3.1.2-22] of 3.1.1 */
    }
    out->clean = (flags & FLAG_CLEAN) != 0;
    out->has_will = (flags & FLAG_WILL) != 0;
    out->has_username = (flags & FLAG_USERNAME) != 0;
    out->has_password = (flags & FLAG_PASSWORD) != 0;
    out->will.qos = (uint8_t)((flags & FLAG_WILL_QOS) >> WILL_QOS_SHIFT);
    out->will.retain = (flags & FLAG_WILL_RETAIN) != 0;
    return check_will_flags(flags, why);
}

static enum dec_rc decode_will(struct connect *out, struct cursor *c, const char **why)
{
    struct connect_will *w = &out->will;
    enum dec_rc rc = DEC_OK;

    if (out->version == MQTT_5) {
        rc = cur_props(c, &w->props, PROPS_WILL, why);
    }
    if (rc != DEC_OK) {
        return rc;
    }
    if (!cur_bin(c, &w->topic) || !cur_bin(c, &w->payload)) {
        return dec_fail(DEC_MALFORMED, why, "will cut short");
    }
    if (w->topic.n == 0) {
        return dec_fail(DEC_TOPIC_NAME, why, "empty will topic"); /* [MQTT-4.7.3-1] */
    }
    out->has_controls |= w->props.has_controls;
    return topic_name_check(w->topic, &out->has_controls, why);
}

static enum dec_rc decode_login(struct connect *out, struct cursor *c, const char **why)
{
    /* "The Remaining Length field takes precedence over the User Name flag": absent is fine
     * [MQTT 3.1, 3.1]. */
    if (out->version == MQTT_3_1) {
        out->has_username = out->has_username && !cur_at_end(c);
    }
    if (out->has_username && !cur_utf8(c, &out->username, &out->has_controls)) {
        return dec_fail(DEC_MALFORMED, why,
                        "user name cut short or not UTF-8"); /* [MQTT-3.1.3-11] */
    }
    if (out->version == MQTT_3_1) {
        out->has_password = out->has_password && !cur_at_end(c);
    }
    if (out->has_password && !cur_bin(c, &out->password)) {
        return dec_fail(DEC_MALFORMED, why, "password cut short");
    }
    return DEC_OK;
}

static enum dec_rc decode_payload(struct connect *out, struct cursor *c, const char **why)
{
    enum dec_rc rc = DEC_OK;

    if (!cur_utf8(c, &out->client_id, &out->has_controls)) {
        return dec_fail(DEC_MALFORMED, why,
                        "client id cut short or not UTF-8"); /* [MQTT-3.1.3-4] */
    }
    if (out->has_will) {
        rc = decode_will(out, c, why);
    }
    if (rc == DEC_OK) {
        rc = decode_login(out, c, why);
    }
    if (rc == DEC_OK && !cur_at_end(c)) {
        return dec_fail(DEC_MALFORMED, why, "bytes behind the last field");
    }
    return rc;
}

enum dec_rc connect_decode(struct connect *out, struct span body, const char **why)
{
    struct cursor c = cur_of(body);
    enum dec_rc rc;

    *out = (struct connect){0};
    rc = decode_protocol(out, &c, why);
    if (rc == DEC_OK) {
        rc = decode_flags(out, &c, why);
    }
    if (rc == DEC_OK && !cur_u16(&c, &out->keep_alive_s)) {
        return dec_fail(DEC_MALFORMED, why, "keep alive cut short");
    }
    if (rc == DEC_OK && out->version == MQTT_5) {
        rc = cur_props(&c, &out->props, PROPS_CONNECT, why);
        out->has_controls = out->props.has_controls;
    }
    return rc == DEC_OK ? decode_payload(out, &c, why) : rc;
}

static bool is_sendable(const struct connect *c)
{
    return c->client_id.n <= STRING_MAX && c->will.topic.n <= STRING_MAX &&
           c->will.payload.n <= STRING_MAX && c->username.n <= STRING_MAX &&
           c->password.n <= STRING_MAX;
}

static size_t connect_remaining(const struct connect *c)
{
    /* Name with its length, level, flags, keep alive. */
    size_t n = 2 + (c->version == MQTT_3_1 ? 6u : 4u) + 1 + 1 + 2;

    n += 2 + c->client_id.n;
    if (c->version == MQTT_5) {
        n += props_size(c->props.raw) + (c->has_will ? props_size(c->will.props.raw) : 0);
    }
    if (c->has_will) {
        n += 2 + c->will.topic.n + 2 + c->will.payload.n;
    }
    if (c->has_username) {
        n += 2 + c->username.n;
    }
    if (c->has_password) {
        n += 2 + c->password.n;
    }
    return n;
}

static uint8_t connect_flags(const struct connect *c)
{
    unsigned flags = 0;

    flags |= c->clean ? FLAG_CLEAN : 0;
    if (c->has_will) {
        flags |= FLAG_WILL | (unsigned)c->will.qos << WILL_QOS_SHIFT;
        flags |= c->will.retain ? FLAG_WILL_RETAIN : 0;
    }
    flags |= c->has_username ? FLAG_USERNAME : 0;
    flags |= c->has_password ? FLAG_PASSWORD : 0;
    return (uint8_t)flags;
}

size_t connect_encode(uint8_t *p, size_t cap, const struct connect *c)
{
    const size_t remaining = connect_remaining(c);
    uint8_t *q = p;

    if (!is_sendable(c) || packet_size(remaining) > cap) {
        return 0;
    }
    q += frame_put_header(q, MQTT_CONNECT << 4, (uint32_t)remaining);
    q = put_bin(q, span_str(c->version == MQTT_3_1 ? "MQIsdp" : "MQTT"));
    q = put_u8(q, (uint8_t)(c->version | (c->bridge ? LEVEL_BRIDGE : 0)));
    q = put_u8(q, connect_flags(c));
    q = put_u16(q, c->keep_alive_s);
    q = c->version == MQTT_5 ? put_props(q, c->props.raw) : q;
    q = put_bin(q, c->client_id);
    if (c->has_will) {
        q = c->version == MQTT_5 ? put_props(q, c->will.props.raw) : q;
        q = put_bin(put_bin(q, c->will.topic), c->will.payload);
    }
    q = c->has_username ? put_bin(q, c->username) : q;
    q = c->has_password ? put_bin(q, c->password) : q;
    return (size_t)(q - p);
}

size_t connack3_encode(uint8_t *p, size_t cap, bool session_present, enum mqtt3_connack rc)
{
    check(rc <= CONNACK3_NOT_AUTHORIZED);
    if (cap < 4) {
        return 0;
    }
    p[0] = MQTT_CONNACK << 4;
    p[1] = 2;
    p[2] = session_present && rc == CONNACK3_ACCEPTED; /* [MQTT-3.2.2-4] of 3.1.1 */
    p[3] = (uint8_t)rc;
    return 4;
}

size_t connack5_encode(uint8_t *p, size_t cap, bool session_present, enum mqtt_reason rc,
                       struct span props)
{
    const size_t remaining = 2 + props_size(props);
    uint8_t *q = p;

    check(reason_is_allowed(MQTT_CONNACK, (uint8_t)rc));
    if (packet_size(remaining) > cap) {
        return 0;
    }
    q += frame_put_header(q, MQTT_CONNACK << 4, (uint32_t)remaining);
    q = put_u8(q, session_present && rc == RC_SUCCESS); /* [MQTT-3.2.2-6] */
    q = put_u8(q, (uint8_t)rc);
    q = put_props(q, props);
    return (size_t)(q - p);
}

static enum dec_rc check_connack(const struct connack *a, uint8_t flags, enum mqtt_version v,
                                 const char **why)
{
    if (flags > 1 && v != MQTT_3_1) {
        return dec_fail(DEC_MALFORMED, why, "reserved acknowledge flags"); /* [MQTT-3.2.2-1] */
    }
    if (v == MQTT_5 ? !reason_is_allowed(MQTT_CONNACK, a->reason) /* [MQTT-3.2.2-8] */
                    : a->reason > CONNACK3_NOT_AUTHORIZED) {
        return dec_fail(DEC_PROTOCOL, why, "reason code not of CONNACK");
    }
    if (a->session_present && a->reason != RC_SUCCESS) {
        return dec_fail(DEC_PROTOCOL, why, "session present in a refusal"); /* [MQTT-3.2.2-6] */
    }
    return DEC_OK;
}

enum dec_rc connack_decode(struct connack *out, struct span body, enum mqtt_version v,
                           const char **why)
{
    struct cursor c = cur_of(body);
    uint8_t flags = 0;
    enum dec_rc rc;

    *out = (struct connack){0};
    if (!cur_u8(&c, &flags) || !cur_u8(&c, &out->reason)) {
        return dec_fail(DEC_MALFORMED, why, "CONNACK cut short");
    }
    out->session_present = v != MQTT_3_1 && flags == 1;
    rc = check_connack(out, flags, v, why);
    if (rc == DEC_OK && v == MQTT_5) {
        return cur_last_props(&c, &out->props, PROPS_CONNACK, why);
    }
    if (rc == DEC_OK && !cur_at_end(&c)) {
        return dec_fail(DEC_MALFORMED, why, "bytes behind the return code");
    }
    return rc;
}

/*
 * Reason code and properties, as DISCONNECT and AUTH have them; 0 without either takes the 2-byte
 * form. Behind another reason a DISCONNECT without properties leaves out their length too [MQTT
 * 5.0, 3.14.2.2.1]; AUTH may not [3.15.2.1].
 */
static size_t encode_reason(uint8_t *p, size_t cap, enum mqtt_type type, enum mqtt_reason reason,
                            struct span props)
{
    const bool is_empty = reason == RC_SUCCESS && props.n == 0;
    const bool has_length = props.n > 0 || type == MQTT_AUTH;
    const size_t remaining = is_empty ? 0 : 1 + (has_length ? props_size(props) : 0);
    uint8_t *q = p;

    check(reason_is_allowed(type, (uint8_t)reason)); /* [MQTT-3.14.2-1], [MQTT-3.15.2-1] */
    if (packet_size(remaining) > cap) {
        return 0;
    }
    q += frame_put_header(q, (uint8_t)(type << 4), (uint32_t)remaining);
    if (!is_empty) {
        q = put_u8(q, (uint8_t)reason);
        q = has_length ? put_props(q, props) : q;
    }
    return (size_t)(q - p);
}

enum dec_rc disconnect_decode(struct disconnect *out, struct span body, enum mqtt_version v,
                              const char **why)
{
    struct cursor c = cur_of(body);
    uint8_t reason = 0;

    *out = (struct disconnect){0};
    if (!cur_u8(&c, &reason)) {
        return DEC_OK;
    }
    if (v != MQTT_5) {
        return dec_fail(DEC_MALFORMED, why, "DISCONNECT that is not empty");
    }
    if (!reason_is_allowed(MQTT_DISCONNECT, reason)) {
        return dec_fail(DEC_PROTOCOL, why, "reason code not of DISCONNECT");
    }
    out->reason = (enum mqtt_reason)reason;
    /* A length below 2 stands for no properties [MQTT 5.0, 3.14.2.2.1]. */
    return cur_at_end(&c) ? DEC_OK : cur_last_props(&c, &out->props, PROPS_DISCONNECT, why);
}

size_t disconnect5_encode(uint8_t *p, size_t cap, enum mqtt_reason reason, struct span props)
{
    return encode_reason(p, cap, MQTT_DISCONNECT, reason, props);
}

enum dec_rc auth_decode(struct auth *out, struct span body, const char **why)
{
    struct cursor c = cur_of(body);
    uint8_t reason = 0;
    enum dec_rc rc;

    *out = (struct auth){0};
    /* Reason code and properties may be left out together only [MQTT 5.0, 3.15.2.1]. */
    if (!cur_u8(&c, &reason)) {
        return DEC_OK;
    }
    if (!reason_is_allowed(MQTT_AUTH, reason)) {
        return dec_fail(DEC_PROTOCOL, why, "reason code not of AUTH");
    }
    out->reason = (enum mqtt_reason)reason;
    rc = cur_last_props(&c, &out->props, PROPS_AUTH, why);
    if (rc == DEC_OK && !props_has(&out->props, PROP_AUTH_METHOD)) {
        return dec_fail(DEC_PROTOCOL, why, "AUTH without a method"); /* 3.15.2.2.2 */
    }
    return rc;
}

size_t auth_encode(uint8_t *p, size_t cap, enum mqtt_reason reason, struct span props)
{
    return encode_reason(p, cap, MQTT_AUTH, reason, props);
}
