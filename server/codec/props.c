/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table says for each property its type, where it may stand, which values it may have and which
 * member of struct props takes it [MQTT 5.0, table 2-4]. Decoding and walking read the table; there
 * is no code per property.
 */
#include "server/codec/props.h"

#include "server/codec/fields.h"

enum prop_type {
    TYPE_NONE, /* no such identifier */
    TYPE_BYTE,
    TYPE_U16,
    TYPE_U32,
    TYPE_VARINT,
    TYPE_STRING,
    TYPE_TOPIC, /* a string that is a topic name [MQTT-3.3.2-14] */
    TYPE_BINARY,
    TYPE_PAIR,
};

enum prop_range {
    RANGE_ANY,
    RANGE_BOOL,     /* 0 or 1 */
    RANGE_POSITIVE, /* not 0 */
};

struct prop_rule {
    uint8_t type;
    uint8_t range;
    uint16_t member; /* offset in struct props of a member as wide as the type; not for TYPE_PAIR */
    uint16_t places; /* bit (1 << enum prop_place) */
    uint16_t repeat; /* places where it may stand more than once */
};

#define IN(place)  (1u << PROPS_##place)
#define EVERYWHERE 0x3ffu
#define AT(name)   offsetof(struct props, name)

_Static_assert(PROPS_AUTH == 9, "EVERYWHERE has a bit for each place");

static const struct prop_rule rules[] = {
    [PROP_PAYLOAD_FORMAT] = {TYPE_BYTE, RANGE_BOOL, AT(payload_format), IN(PUBLISH) | IN(WILL), 0},
    [PROP_MESSAGE_EXPIRY] = {TYPE_U32, RANGE_ANY, AT(message_expiry_s), IN(PUBLISH) | IN(WILL), 0},
    [PROP_CONTENT_TYPE] = {TYPE_STRING, RANGE_ANY, AT(content_type), IN(PUBLISH) | IN(WILL), 0},
    [PROP_RESPONSE_TOPIC] = {TYPE_TOPIC, RANGE_ANY, AT(response_topic), IN(PUBLISH) | IN(WILL), 0},
    [PROP_CORRELATION_DATA] = {TYPE_BINARY, RANGE_ANY, AT(correlation_data), IN(PUBLISH) | IN(WILL),
                               0},
    [PROP_SUBSCRIPTION_ID] = {TYPE_VARINT, RANGE_POSITIVE, AT(subscription_id),
                              IN(PUBLISH) | IN(SUBSCRIBE), IN(PUBLISH)},
    [PROP_SESSION_EXPIRY] = {TYPE_U32, RANGE_ANY, AT(session_expiry_s),
                             IN(CONNECT) | IN(CONNACK) | IN(DISCONNECT), 0},
    [PROP_ASSIGNED_CLIENT_ID] = {TYPE_STRING, RANGE_ANY, AT(assigned_client_id), IN(CONNACK), 0},
    [PROP_SERVER_KEEP_ALIVE] = {TYPE_U16, RANGE_ANY, AT(server_keep_alive_s), IN(CONNACK), 0},
    [PROP_AUTH_METHOD] = {TYPE_STRING, RANGE_ANY, AT(auth_method),
                          IN(CONNECT) | IN(CONNACK) | IN(AUTH), 0},
    [PROP_AUTH_DATA] = {TYPE_BINARY, RANGE_ANY, AT(auth_data), IN(CONNECT) | IN(CONNACK) | IN(AUTH),
                        0},
    [PROP_REQUEST_PROBLEM_INFO] = {TYPE_BYTE, RANGE_BOOL, AT(request_problem_info), IN(CONNECT), 0},
    [PROP_WILL_DELAY] = {TYPE_U32, RANGE_ANY, AT(will_delay_s), IN(WILL), 0},
    [PROP_REQUEST_RESPONSE_INFO] = {TYPE_BYTE, RANGE_BOOL, AT(request_response_info), IN(CONNECT),
                                    0},
    [PROP_RESPONSE_INFO] = {TYPE_STRING, RANGE_ANY, AT(response_info), IN(CONNACK), 0},
    [PROP_SERVER_REFERENCE] = {TYPE_STRING, RANGE_ANY, AT(server_reference),
                               IN(CONNACK) | IN(DISCONNECT), 0},
    [PROP_REASON_STRING] = {TYPE_STRING, RANGE_ANY, AT(reason_string),
                            IN(CONNACK) | IN(PUBACK) | IN(SUBACK) | IN(DISCONNECT) | IN(AUTH), 0},
    [PROP_RECEIVE_MAXIMUM] = {TYPE_U16, RANGE_POSITIVE, AT(receive_maximum),
                              IN(CONNECT) | IN(CONNACK), 0},
    [PROP_TOPIC_ALIAS_MAXIMUM] = {TYPE_U16, RANGE_ANY, AT(topic_alias_maximum),
                                  IN(CONNECT) | IN(CONNACK), 0},
    [PROP_TOPIC_ALIAS] = {TYPE_U16, RANGE_ANY, AT(topic_alias), IN(PUBLISH), 0},
    [PROP_MAXIMUM_QOS] = {TYPE_BYTE, RANGE_BOOL, AT(maximum_qos), IN(CONNACK), 0},
    [PROP_RETAIN_AVAILABLE] = {TYPE_BYTE, RANGE_BOOL, AT(retain_available), IN(CONNACK), 0},
    [PROP_USER_PROPERTY] = {TYPE_PAIR, RANGE_ANY, 0, EVERYWHERE, EVERYWHERE},
    [PROP_MAXIMUM_PACKET_SIZE] = {TYPE_U32, RANGE_POSITIVE, AT(maximum_packet_size),
                                  IN(CONNECT) | IN(CONNACK), 0},
    [PROP_WILDCARD_AVAILABLE] = {TYPE_BYTE, RANGE_BOOL, AT(wildcard_available), IN(CONNACK), 0},
    [PROP_SUBSCRIPTION_ID_AVAILABLE] = {TYPE_BYTE, RANGE_BOOL, AT(subscription_id_available),
                                        IN(CONNACK), 0},
    [PROP_SHARED_AVAILABLE] = {TYPE_BYTE, RANGE_BOOL, AT(shared_available), IN(CONNACK), 0},
};

#define RULES_NR (sizeof(rules) / sizeof(rules[0]))

_Static_assert(RULES_NR <= 64, "struct props.present has a bit for each identifier");

/* Reads identifier and value, of whatever place and range; false: cut short, or no such identifier.
 */
static bool read_item(struct cursor *c, struct prop_item *out)
{
    uint8_t id = 0;
    uint8_t u8 = 0;
    uint16_t u16 = 0;
    bool ok = false;

    /* An identifier is a variable byte integer, but none takes more than one byte. */
    if (!cur_u8(c, &id) || id >= RULES_NR) {
        return false;
    }
    out->id = (enum mqtt_prop)id;
    switch ((enum prop_type)rules[id].type) {
    case TYPE_NONE:
        break;
    case TYPE_BYTE:
        ok = cur_u8(c, &u8);
        out->number = u8;
        break;
    case TYPE_U16:
        ok = cur_u16(c, &u16);
        out->number = u16;
        break;
    case TYPE_U32:
        ok = cur_u32(c, &out->number);
        break;
    case TYPE_VARINT:
        ok = cur_varint(c, &out->number);
        break;
    case TYPE_STRING:
    case TYPE_TOPIC:
    case TYPE_BINARY:
        ok = cur_bin(c, &out->value);
        break;
    case TYPE_PAIR:
        ok = cur_bin(c, &out->key) && cur_bin(c, &out->value);
        break;
    }
    return ok;
}

static enum dec_rc check_text(struct props *out, const struct prop_rule *rule,
                              const struct prop_item *item, const char **why)
{
    if (rule->type == TYPE_TOPIC) {
        return item->value.n == 0 ? dec_fail(DEC_TOPIC_NAME, why, "empty response topic")
                                  : topic_name_check(item->value, &out->has_controls, why);
    }
    if (rule->type == TYPE_STRING || rule->type == TYPE_PAIR) {
        if (!text_check(item->value, &out->has_controls) ||
            !text_check(item->key, &out->has_controls)) {
            return dec_fail(DEC_MALFORMED, why, "string property is not UTF-8");
        }
    }
    return DEC_OK;
}

static bool is_in_range(const struct prop_rule *rule, uint32_t number)
{
    return rule->range == RANGE_ANY || (rule->range == RANGE_BOOL ? number <= 1 : number != 0);
}

static void store(struct props *out, const struct prop_rule *rule, const struct prop_item *item)
{
    char *member = (char *)out + rule->member;

    switch ((enum prop_type)rule->type) {
    case TYPE_BYTE:
        *(uint8_t *)member = (uint8_t)item->number;
        break;
    case TYPE_U16:
        *(uint16_t *)(void *)member = (uint16_t)item->number;
        break;
    case TYPE_U32:
    case TYPE_VARINT:
        *(uint32_t *)(void *)member = item->number;
        break;
    case TYPE_STRING:
    case TYPE_TOPIC:
    case TYPE_BINARY:
        *(struct span *)(void *)member = item->value;
        break;
    case TYPE_PAIR:
    case TYPE_NONE:
        break;
    }
}

static enum dec_rc decode_item(struct props *out, struct cursor *c, unsigned place,
                               const char **why)
{
    const struct prop_rule *rule;
    struct prop_item item = {0};
    enum dec_rc rc;
    bool again;

    if (!read_item(c, &item)) {
        return dec_fail(DEC_MALFORMED, why, "unknown property, or one cut short");
    }
    rule = &rules[item.id];
    if (!(rule->places >> place & 1u)) {
        return dec_fail(DEC_MALFORMED, why, "property not allowed in this packet");
    }
    again = props_has(out, item.id);
    if (again && !(rule->repeat >> place & 1u)) {
        return dec_fail(DEC_PROTOCOL, why, "property given twice");
    }
    if (!is_in_range(rule, item.number)) {
        return dec_fail(DEC_PROTOCOL, why, "property value out of range");
    }
    rc = check_text(out, rule, &item, why);
    if (rc == DEC_OK) {
        out->present |= UINT64_C(1) << item.id;
        if (!again) {
            store(out, rule, &item);
        }
    }
    return rc;
}

enum dec_rc props_decode(struct props *out, struct span in, enum prop_place place, size_t *used,
                         const char **why)
{
    struct cursor c = cur_of(in);
    uint32_t length = 0;

    *out = (struct props){0};
    *used = 0;
    if (!cur_varint(&c, &length) || !cur_take(&c, length, &out->raw)) {
        return dec_fail(DEC_MALFORMED, why, "bad property length");
    }
    *used = in.n - cur_left(&c);
    if (length == 0) {
        return DEC_OK;
    }
    c = cur_of(out->raw);
    while (!cur_at_end(&c)) {
        const enum dec_rc rc = decode_item(out, &c, place, why);

        if (rc != DEC_OK) {
            return rc;
        }
    }
    if (props_has(out, PROP_AUTH_DATA) && !props_has(out, PROP_AUTH_METHOD)) {
        return dec_fail(DEC_PROTOCOL, why, "authentication data without a method");
    }
    return DEC_OK;
}

bool props_next(struct span raw, size_t *at, struct prop_item *out)
{
    struct cursor c;

    if (*at >= raw.n) {
        return false;
    }
    c = cur_of(span_of(raw.p + *at, raw.n - *at));
    *out = (struct prop_item){0};
    out->whole.p = c.p;
    if (!read_item(&c, out)) {
        return false;
    }
    out->whole.n = (size_t)(c.p - out->whole.p);
    *at += out->whole.n;
    return true;
}

size_t prop_put_byte(uint8_t *p, enum mqtt_prop id, uint8_t v)
{
    p[0] = (uint8_t)id;
    p[1] = v;
    return 2;
}

size_t prop_put_u16(uint8_t *p, enum mqtt_prop id, uint16_t v)
{
    p[0] = (uint8_t)id;
    put_u16(p + 1, v);
    return 3;
}

size_t prop_put_u32(uint8_t *p, enum mqtt_prop id, uint32_t v)
{
    p[0] = (uint8_t)id;
    put_u32(p + 1, v);
    return 5;
}

size_t prop_put_varint(uint8_t *p, enum mqtt_prop id, uint32_t v)
{
    p[0] = (uint8_t)id;
    return 1 + varint_put(p + 1, v);
}

size_t prop_put_string(uint8_t *p, enum mqtt_prop id, struct span s)
{
    p[0] = (uint8_t)id;
    put_bin(p + 1, s);
    return 3 + s.n;
}

size_t prop_put_pair(uint8_t *p, struct span key, struct span value)
{
    p[0] = PROP_USER_PROPERTY;
    put_bin(put_bin(p + 1, key), value);
    return 5 + key.n + value.n;
}
