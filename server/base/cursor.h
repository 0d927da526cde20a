/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cursor.h - reads forward through a span, never past its end.
 *
 * Every reader answers false, and leaves cursor and result as they were, when what it wants is not
 * all there. Numbers are big-endian, as MQTT has them. Strings with rules of their own (UTF-8) are
 * the codec's.
 *
 * Ownership  spans read are views into what the cursor was made of.
 */
#ifndef NOCTULE_BASE_CURSOR_H
#define NOCTULE_BASE_CURSOR_H

#include "server/base/span.h"

#include "server/base/check.h"

struct cursor {
    const uint8_t *p;   /* next byte */
    const uint8_t *end; /* behind the last one */
};

static inline struct cursor cur_of(struct span s)
{
    /* Not NULL even for SPAN_NULL: arithmetic on a null pointer is undefined, with 0 as well. */
    const uint8_t *p = s.p != NULL ? s.p : (const uint8_t *)"";

    check(s.p != NULL || s.n == 0);
    return (struct cursor){p, p + s.n};
}

static inline size_t cur_left(const struct cursor *c)
{
    check(c->p <= c->end);
    return (size_t)(c->end - c->p);
}

static inline bool cur_at_end(const struct cursor *c)
{
    return c->p == c->end;
}

static inline bool cur_u8(struct cursor *c, uint8_t *out)
{
    if (cur_left(c) < 1) {
        return false;
    }
    *out = *c->p++;
    return true;
}

static inline bool cur_u16(struct cursor *c, uint16_t *out)
{
    if (cur_left(c) < 2) {
        return false;
    }
    *out = (uint16_t)(c->p[0] << 8 | c->p[1]);
    c->p += 2;
    return true;
}

static inline bool cur_u32(struct cursor *c, uint32_t *out)
{
    if (cur_left(c) < 4) {
        return false;
    }
    *out = (uint32_t)c->p[0] << 24 | (uint32_t)c->p[1] << 16 | (uint32_t)c->p[2] << 8 | c->p[3];
    c->p += 4;
    return true;
}

/* Variable byte integer, 1-4 bytes; false also for more, or for one that is not the shortest
 * [MQTT-1.5.5-1]. */
static inline bool cur_varint(struct cursor *c, uint32_t *out)
{
    const size_t left = cur_left(c);
    uint32_t v = 0;

    for (size_t i = 0; i < 4 && i < left; i++) {
        const uint8_t b = c->p[i];

        v |= (uint32_t)(b & 0x7fu) << (7 * i);
        if (b < 0x80) {
            if (b == 0 && i > 0) {
                return false;
            }
            c->p += i + 1;
            *out = v;
            return true;
        }
    }
    return false;
}

static inline bool cur_take(struct cursor *c, size_t n, struct span *out)
{
    if (cur_left(c) < n) {
        return false;
    }
    *out = span_of(c->p, n);
    c->p += n;
    return true;
}

/* Binary data: two bytes of length, then as many. */
static inline bool cur_bin(struct cursor *c, struct span *out)
{
    struct cursor ahead = *c;
    uint16_t n;

    if (!cur_u16(&ahead, &n) || !cur_take(&ahead, n, out)) {
        return false;
    }
    *c = ahead;
    return true;
}

/* All that is left; the cursor is at its end afterwards. */
static inline struct span cur_rest(struct cursor *c)
{
    const struct span rest = span_of(c->p, cur_left(c));

    c->p = c->end;
    return rest;
}

#endif
