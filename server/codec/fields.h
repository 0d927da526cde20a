/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fields.h - what the packet files of the codec share; not for others.
 *
 * Reading goes through a cursor; writing through a pointer that each put_*() returns moved on.
 * Writers are unchecked: every encoder first computes its size with packet_size() and compares it
 * with the room.
 */
#ifndef NOCTULE_CODEC_FIELDS_H
#define NOCTULE_CODEC_FIELDS_H

#include "server/base/cursor.h"
#include "server/codec/frame.h"
#include "server/codec/props.h"
#include "server/codec/utf8.h"

#define STRING_MAX 65535u /* bytes: two bytes of length */

static inline enum dec_rc dec_fail(enum dec_rc rc, const char **why, const char *text)
{
    *why = text;
    return rc;
}

/* Whether MQTT allows it at all; *has_controls becomes true for what a server may refuse [1.5.4].
 */
static inline bool text_check(struct span s, bool *has_controls)
{
    const unsigned found = utf8_scan_text(s);

    if (found == 0) {
        return true;
    }
    *has_controls |= (found & UTF8_CONTROL) != 0;
    return (found & (UTF8_ILL_FORMED | UTF8_NUL)) == 0;
}

static inline bool cur_utf8(struct cursor *c, struct span *out, bool *has_controls)
{
    return cur_bin(c, out) && text_check(*out, has_controls);
}

/* A packet identifier; 0 is never one [MQTT-2.2.1-3]. */
static inline enum dec_rc cur_packet_id(struct cursor *c, uint16_t *out, const char **why)
{
    if (!cur_u16(c, out)) {
        return dec_fail(DEC_MALFORMED, why, "packet identifier cut short");
    }
    if (*out == 0) {
        return dec_fail(DEC_PROTOCOL, why, "packet identifier 0");
    }
    return DEC_OK;
}

/* *out is zeroed already, which is what the usual empty block means. */
static inline enum dec_rc cur_props(struct cursor *c, struct props *out, enum prop_place place,
                                    const char **why)
{
    size_t used = 0;
    enum dec_rc rc;

    if (!cur_at_end(c) && *c->p == 0) {
        c->p++;
        return DEC_OK;
    }
    rc = props_decode(out, span_of(c->p, cur_left(c)), place, &used, why);
    c->p += used;
    return rc;
}

/* Properties that are the last thing in their packet. */
static inline enum dec_rc cur_last_props(struct cursor *c, struct props *out, enum prop_place place,
                                         const char **why)
{
    const enum dec_rc rc = cur_props(c, out, place, why);

    if (rc == DEC_OK && !cur_at_end(c)) {
        return dec_fail(DEC_MALFORMED, why, "bytes behind the properties");
    }
    return rc;
}

/* Of a topic name: UTF-8, no U+0000, no wildcards. An empty one is the caller's to judge, and so
 * are control characters. */
static inline enum dec_rc topic_name_check(struct span s, bool *has_controls, const char **why)
{
    const unsigned found = utf8_scan(s);

    if (found == 0) {
        return DEC_OK;
    }
    if (found & UTF8_ILL_FORMED) {
        return dec_fail(DEC_MALFORMED, why, "topic name is not UTF-8");
    }
    if (found & UTF8_NUL) {
        return dec_fail(DEC_MALFORMED, why, "U+0000 in a topic name"); /* [MQTT-1.5.4-2] */
    }
    *has_controls |= (found & UTF8_CONTROL) != 0;
    if (!(found & UTF8_WILDCARD)) {
        return DEC_OK;
    }
    return dec_fail(DEC_TOPIC_NAME, why, "wildcard in a topic name");
}

static inline uint8_t *put_u8(uint8_t *p, uint8_t v)
{
    *p = v;
    return p + 1;
}

static inline uint8_t *put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
    return p + 2;
}

static inline uint8_t *put_u32(uint8_t *p, uint32_t v)
{
    return put_u16(put_u16(p, (uint16_t)(v >> 16)), (uint16_t)v);
}

static inline uint8_t *put_raw(uint8_t *p, struct span s)
{
    if (s.n > 0) { /* memcpy() must not be given NULL, even for nothing */
        memcpy(p, s.p, s.n);
    }
    return p + s.n;
}

static inline uint8_t *put_bin(uint8_t *p, struct span s)
{
    check(s.n <= STRING_MAX); /* the encoder has looked */
    return put_raw(put_u16(p, (uint16_t)s.n), s);
}

/* A property block: its length, then the encoded properties. */
static inline uint8_t *put_props(uint8_t *p, struct span props)
{
    return put_raw(p + varint_put(p, (uint32_t)props.n), props);
}

static inline size_t props_size(struct span props)
{
    return varint_size((uint32_t)props.n) + props.n;
}

/* Whole packet for this much behind the fixed header; SIZE_MAX when no packet holds it. */
static inline size_t packet_size(size_t remaining)
{
    if (remaining > MQTT_MAX_REMAINING_LENGTH) {
        return SIZE_MAX;
    }
    return 1 + varint_size((uint32_t)remaining) + remaining;
}

#endif
