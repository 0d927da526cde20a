/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/frame.h"

#include "server/base/check.h"

#define FLAGS(bits) (1u << (bits))
#define ANY_FLAGS   0xffffu
/* 3.1 says of bits that are not used: "x"; a repeated PUBREL, SUBSCRIBE or UNSUBSCRIBE carries DUP
 * there. */
#define QOS1_FLAGS_31 (FLAGS(2) | FLAGS(3) | FLAGS(10) | FLAGS(11))

/* For each type the set of flags it may have, as a bit mask. Type 0 has none. */
static const uint16_t flags_allowed[16] = {
    [MQTT_RESERVED] = 0,        [MQTT_CONNECT] = FLAGS(0),
    [MQTT_CONNACK] = FLAGS(0),  [MQTT_PUBLISH] = ANY_FLAGS, /* publish_decode() looks at them */
    [MQTT_PUBACK] = FLAGS(0),   [MQTT_PUBREC] = FLAGS(0),
    [MQTT_PUBREL] = FLAGS(2),                                  /* [MQTT-3.6.1-1] */
    [MQTT_PUBCOMP] = FLAGS(0),  [MQTT_SUBSCRIBE] = FLAGS(2),   /* [MQTT-3.8.1-1] */
    [MQTT_SUBACK] = FLAGS(0),   [MQTT_UNSUBSCRIBE] = FLAGS(2), /* [MQTT-3.10.1-1] */
    [MQTT_UNSUBACK] = FLAGS(0), [MQTT_PINGREQ] = FLAGS(0),
    [MQTT_PINGRESP] = FLAGS(0), [MQTT_DISCONNECT] = FLAGS(0), /* [MQTT-3.14.1-1] */
    [MQTT_AUTH] = FLAGS(0),                                   /* [MQTT-3.15.1-1] */
};

static const uint16_t flags_allowed_31[16] = {
    [MQTT_RESERVED] = 0,
    [MQTT_CONNECT] = ANY_FLAGS,
    [MQTT_CONNACK] = ANY_FLAGS,
    [MQTT_PUBLISH] = ANY_FLAGS,
    [MQTT_PUBACK] = ANY_FLAGS,
    [MQTT_PUBREC] = ANY_FLAGS,
    [MQTT_PUBREL] = QOS1_FLAGS_31,
    [MQTT_PUBCOMP] = ANY_FLAGS,
    [MQTT_SUBSCRIBE] = QOS1_FLAGS_31,
    [MQTT_SUBACK] = ANY_FLAGS,
    [MQTT_UNSUBSCRIBE] = QOS1_FLAGS_31,
    [MQTT_UNSUBACK] = ANY_FLAGS,
    [MQTT_PINGREQ] = ANY_FLAGS,
    [MQTT_PINGRESP] = ANY_FLAGS,
    [MQTT_DISCONNECT] = ANY_FLAGS,
    [MQTT_AUTH] = 0, /* the type is reserved in 3.x */
};

static enum frame_rc malformed(const char **why, const char *text)
{
    *why = text;
    return FRAME_MALFORMED;
}

/* The remaining length from in.p[1] on; *header becomes the bytes of the fixed header. */
static inline enum frame_rc read_length(struct span in, uint32_t *remaining, size_t *header,
                                        const char **why)
{
    uint32_t v = 0;

    for (size_t i = 1; i < in.n && i < MQTT_MAX_FIXED_HEADER; i++) {
        const uint8_t b = in.p[i];

        v |= (uint32_t)(b & 0x7fu) << (7 * (i - 1));
        if (b < 0x80) {
            if (b == 0 && i > 1) {
                return malformed(why, "remaining length is not in its shortest form");
            }
            *remaining = v;
            *header = i + 1;
            return FRAME_OK;
        }
    }
    if (in.n >= MQTT_MAX_FIXED_HEADER) {
        return malformed(why, "remaining length takes more than four bytes");
    }
    return FRAME_NEED_MORE;
}

static inline enum frame_rc next(struct span in, size_t max_total, const uint16_t *allowed,
                                 struct frame *out, const char **why)
{
    enum frame_rc rc;
    uint32_t remaining = 0;
    size_t header = 0;

    *out = (struct frame){.type = MQTT_RESERVED};
    if (in.n == 0) {
        return FRAME_NEED_MORE;
    }
    out->type = (enum mqtt_type)(in.p[0] >> 4);
    out->flags = in.p[0] & 0x0fu;
    if (!(allowed[out->type] >> out->flags & 1u)) {
        return malformed(why, allowed[out->type] == 0 ? "reserved packet type"
                                                      : "reserved flags in the fixed header");
    }
    rc = read_length(in, &remaining, &header, why);
    if (rc != FRAME_OK) {
        return rc;
    }
    out->total = header + remaining;
    if (remaining != 0 && (out->type == MQTT_PINGREQ || out->type == MQTT_PINGRESP)) {
        return malformed(why, "PINGREQ or PINGRESP that is not empty");
    }
    if (out->total > max_total) {
        *why = "packet too large";
        return FRAME_TOO_LARGE;
    }
    if (out->total > in.n) {
        return FRAME_NEED_MORE;
    }
    check(header >= 2 && header <= MQTT_MAX_FIXED_HEADER && header + remaining == out->total);
    out->body = span_of(in.p + header, remaining);
    return FRAME_OK;
}

enum frame_rc frame_next(struct span in, size_t max_total, struct frame *out, const char **why)
{
    return next(in, max_total, flags_allowed, out, why);
}

enum frame_rc frame_next_31(struct span in, size_t max_total, struct frame *out, const char **why)
{
    return next(in, max_total, flags_allowed_31, out, why);
}

size_t frame_put_header(uint8_t *p, uint8_t first_byte, uint32_t remaining)
{
    check(remaining <= MQTT_MAX_REMAINING_LENGTH);
    check(((unsigned)flags_allowed[first_byte >> 4] >> (first_byte & 0x0f) & 1u) != 0);
    p[0] = first_byte;
    return 1 + varint_put(p + 1, remaining);
}

size_t varint_size(uint32_t v)
{
    return 1u + (v > 0x7fu) + (v > 0x3fffu) + (v > 0x1fffffu);
}

size_t varint_put(uint8_t *p, uint32_t v)
{
    size_t n = 0;

    check(v <= MQTT_MAX_REMAINING_LENGTH); /* four bytes hold no more */
    while (v > 0x7f && n < 3) {
        p[n++] = (uint8_t)(v | 0x80u);
        v >>= 7;
    }
    p[n++] = (uint8_t)(v & 0x7fu);
    return n;
}
