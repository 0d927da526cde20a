/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/subscribe.h"

#include <limits.h>

#include "server/codec/fields.h"
#include "server/codec/reason.h"

#define OPTION_QOS       0x03u
#define OPTION_NO_LOCAL  0x04u
#define OPTION_RAP       0x08u
#define OPTION_HANDLING  0x30u
#define OPTION_RESERVED5 0xc0u
#define OPTION_RESERVED3 0xfcu

/* SUBACK, UNSUBACK [MQTT-3.9.3-2], [MQTT-3.11.3-2]; 3.x knows the former only. */
static bool all_allowed(struct span codes, enum mqtt_type type, enum mqtt_version v)
{
    unsigned in_all = UINT_MAX; /* packets that may carry each of them */
    bool granted = true;

    if (v == MQTT_5) {
        for (size_t i = 0; i < codes.n; i++) {
            in_all &= reason_packets[codes.p[i]];
        }
        return (in_all >> type & 1u) != 0;
    }
    for (size_t i = 0; i < codes.n; i++) {
        granted &= codes.p[i] <= 2 || codes.p[i] == SUBACK3_FAILURE;
    }
    return granted;
}

static enum dec_rc check_filter(struct span s, bool *has_controls, const char **why)
{
    unsigned found;

    if (s.n == 0) {
        return dec_fail(DEC_TOPIC_FILTER, why, "empty topic filter"); /* [MQTT-4.7.3-1] */
    }
    found = utf8_scan(s);
    if (found & UTF8_ILL_FORMED) {
        return dec_fail(DEC_MALFORMED, why, "topic filter is not UTF-8"); /* [MQTT-3.8.3-1] */
    }
    if (found & UTF8_NUL) {
        return dec_fail(DEC_MALFORMED, why, "U+0000 in a topic filter"); /* [MQTT-1.5.4-2] */
    }
    *has_controls |= (found & UTF8_CONTROL) != 0;
    return DEC_OK;
}

static enum dec_rc check_options(uint8_t options, enum mqtt_version v, const char **why)
{
    if (options & (v == MQTT_5 ? OPTION_RESERVED5 : OPTION_RESERVED3)) {
        return dec_fail(DEC_MALFORMED, why,
                        "reserved bits in the subscription options"); /* [MQTT-3.8.3-5] */
    }
    if ((options & OPTION_QOS) == 3) {
        return dec_fail(DEC_PROTOCOL, why, "subscription with QoS 3"); /* [MQTT 5.0, 3.8.3.1] */
    }
    if ((options & OPTION_HANDLING) == OPTION_HANDLING) {
        return dec_fail(DEC_PROTOCOL, why, "subscription with retain handling 3");
    }
    return DEC_OK;
}

static enum dec_rc check_item(struct subscribe *out, struct cursor *c, enum mqtt_version v,
                              const char **why)
{
    struct span filter;
    uint8_t options = 0;
    enum dec_rc rc;

    if (!cur_bin(c, &filter)) {
        return dec_fail(DEC_MALFORMED, why, "topic filter cut short");
    }
    if (out->options && !cur_u8(c, &options)) {
        return dec_fail(DEC_MALFORMED, why, "no subscription options behind a filter");
    }
    rc = check_filter(filter, &out->has_controls, why);
    return rc == DEC_OK ? check_options(options, v, why) : rc;
}

static enum dec_rc decode(struct subscribe *out, struct span body, enum mqtt_version v,
                          enum prop_place place, const char **why)
{
    struct cursor c = cur_of(body);
    enum dec_rc rc;

    *out = (struct subscribe){.options = place == PROPS_SUBSCRIBE};
    rc = cur_packet_id(&c, &out->packet_id, why);
    if (rc == DEC_OK && v == MQTT_5) {
        rc = cur_props(&c, &out->props, place, why);
        out->has_controls = out->props.has_controls;
    }
    if (rc != DEC_OK) {
        return rc;
    }
    out->rest = span_of(c.p, cur_left(&c));
    if (cur_at_end(&c)) {
        return dec_fail(DEC_PROTOCOL, why, "no topic filter"); /* [MQTT-3.8.3-2], [MQTT-3.10.3-2] */
    }
    while (rc == DEC_OK && !cur_at_end(&c)) {
        rc = check_item(out, &c, v, why);
        out->count++;
    }
    return rc;
}

enum dec_rc subscribe_decode(struct subscribe *out, struct span body, enum mqtt_version v,
                             const char **why)
{
    return decode(out, body, v, PROPS_SUBSCRIBE, why);
}

enum dec_rc unsubscribe_decode(struct subscribe *out, struct span body, enum mqtt_version v,
                               const char **why)
{
    return decode(out, body, v, PROPS_UNSUBSCRIBE, why);
}

bool subscribe_next(struct subscribe *s, struct subscribe_item *out)
{
    struct cursor c = cur_of(s->rest);
    uint8_t options = 0;

    *out = (struct subscribe_item){0};
    if (!cur_bin(&c, &out->filter) || (s->options && !cur_u8(&c, &options))) {
        return false;
    }
    out->qos = options & OPTION_QOS;
    out->no_local = (options & OPTION_NO_LOCAL) != 0;
    out->retain_as_published = (options & OPTION_RAP) != 0;
    out->retain_handling = (uint8_t)((options & OPTION_HANDLING) >> 4);
    s->rest = cur_rest(&c);
    return true;
}

/* Fixed header, packet identifier and properties, which all four packets begin with; NULL: no room.
 */
static uint8_t *put_head(uint8_t *p, size_t cap, uint8_t first, enum mqtt_version v,
                         uint16_t packet_id, struct span props, size_t behind)
{
    const size_t remaining = 2 + (v == MQTT_5 ? props_size(props) : 0) + behind;

    if (packet_size(remaining) > cap) {
        return NULL;
    }
    check(packet_id != 0); /* [MQTT-2.2.1-3] */
    p += frame_put_header(p, first, (uint32_t)remaining);
    p = put_u16(p, packet_id);
    return v == MQTT_5 ? put_props(p, props) : p;
}

size_t suback_encode(uint8_t *p, size_t cap, enum mqtt_version v, uint16_t packet_id,
                     struct span props, const uint8_t *codes, size_t n)
{
    uint8_t *q = put_head(p, cap, MQTT_SUBACK << 4, v, packet_id, props, n);

    check(all_allowed(span_of(codes, n), MQTT_SUBACK, v));
    return q == NULL ? 0 : (size_t)(put_raw(q, span_of(codes, n)) - p);
}

size_t unsuback_encode(uint8_t *p, size_t cap, enum mqtt_version v, uint16_t packet_id,
                       struct span props, const uint8_t *codes, size_t n)
{
    const size_t behind = v == MQTT_5 ? n : 0;
    uint8_t *q = put_head(p, cap, MQTT_UNSUBACK << 4, v, packet_id, props, behind);

    check(all_allowed(span_of(codes, behind), MQTT_UNSUBACK, v));
    return q == NULL ? 0 : (size_t)(put_raw(q, span_of(codes, behind)) - p);
}

static uint8_t options_of(const struct subscribe_item *item, enum mqtt_version v)
{
    if (v != MQTT_5) {
        return item->qos;
    }
    return (uint8_t)(item->qos | (item->no_local ? OPTION_NO_LOCAL : 0u) |
                     (item->retain_as_published ? OPTION_RAP : 0u) |
                     (unsigned)item->retain_handling << 4);
}

static size_t encode(uint8_t *p, size_t cap, uint8_t first, enum mqtt_version v, uint16_t packet_id,
                     struct span props, const struct subscribe_item *items, size_t n)
{
    const bool has_options = first >> 4 == MQTT_SUBSCRIBE;
    size_t behind = 0;
    uint8_t *q;

    for (size_t i = 0; i < n; i++) {
        if (items[i].filter.n > STRING_MAX) {
            return 0;
        }
        behind += 2 + items[i].filter.n + (has_options ? 1u : 0u);
    }
    q = put_head(p, cap, first, v, packet_id, props, behind);
    if (q == NULL) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        q = put_bin(q, items[i].filter);
        if (has_options) {
            q = put_u8(q, options_of(&items[i], v));
        }
    }
    return (size_t)(q - p);
}

size_t subscribe_encode(uint8_t *p, size_t cap, enum mqtt_version v, uint16_t packet_id,
                        struct span props, const struct subscribe_item *items, size_t n)
{
    return encode(p, cap, MQTT_SUBSCRIBE << 4 | 2, v, packet_id, props, items, n);
}

size_t unsubscribe_encode(uint8_t *p, size_t cap, enum mqtt_version v, uint16_t packet_id,
                          struct span props, const struct subscribe_item *items, size_t n)
{
    return encode(p, cap, MQTT_UNSUBSCRIBE << 4 | 2, v, packet_id, props, items, n);
}

/* has_codes: this version's packet carries them. */
static enum dec_rc decode_answer(struct suback *out, struct span body, enum mqtt_version v,
                                 enum mqtt_type type, bool has_codes, const char **why)
{
    struct cursor c = cur_of(body);
    enum dec_rc rc;

    *out = (struct suback){0};
    rc = cur_packet_id(&c, &out->packet_id, why);
    if (rc == DEC_OK && v == MQTT_5) {
        rc = cur_props(&c, &out->props, PROPS_SUBACK, why);
    }
    if (rc != DEC_OK) {
        return rc;
    }
    out->codes = cur_rest(&c);
    if (has_codes && out->codes.n == 0) {
        return dec_fail(DEC_PROTOCOL, why, "an answer without reason codes");
    }
    if (!has_codes && out->codes.n > 0) {
        return dec_fail(DEC_MALFORMED, why, "bytes behind the packet identifier");
    }
    if (!all_allowed(out->codes, type, v)) {
        return dec_fail(DEC_PROTOCOL, why, "reason code not of this answer");
    }
    return DEC_OK;
}

enum dec_rc suback_decode(struct suback *out, struct span body, enum mqtt_version v,
                          const char **why)
{
    return decode_answer(out, body, v, MQTT_SUBACK, true, why);
}

enum dec_rc unsuback_decode(struct suback *out, struct span body, enum mqtt_version v,
                            const char **why)
{
    return decode_answer(out, body, v, MQTT_UNSUBACK, v == MQTT_5, why);
}
