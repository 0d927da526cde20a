/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eight bytes at a time while they are plain: ASCII, and none of the characters looked for. Only a
 * word that holds something else is gone through character by character. Nearly all topics are
 * plain throughout, and take one test per eight bytes.
 */
#include "server/codec/utf8.h"

#define ONES  0x0101010101010101u
#define HIGHS 0x8080808080808080u

_Static_assert((('+' ^ '#') & '#') == 0 && ('#' | ('+' ^ '#')) == '+', "'+' is '#' and one bit");

/*
 * Whether all eight bytes are ASCII and none is looked for. A byte from ' ' to '~' has no high bit
 * once ' ' is taken off, nor when as much is added as keeps '~' just below it; every other has, and
 * the lowest of them before any borrow or carry comes about. In a word of such bytes (w ^ c) - ONES
 * raises a high bit in the lowest that equals c; '+' and '#' differ in one bit. So the sum of all
 * tests is 0 exactly if no byte is hit.
 */
static inline bool word_is_plain(uint64_t w, unsigned look)
{
    uint64_t hit = w;

    if (look & UTF8_CONTROL) { /* U+0000 among them */
        const uint64_t above = w - ONES * ' ';

        hit = above | (above + ONES * (0x7f - ('~' - ' ')));
    }
    if (look & UTF8_WILDCARD) {
        hit |= ((w | ONES * ('+' ^ '#')) ^ (ONES * '+')) - ONES;
    }
    return (hit & HIGHS) == 0;
}

static inline uint64_t load8(const uint8_t *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof(w));
    return w;
}

/* 1 to 7 bytes as one word, some of them twice: the order does not matter to word_is_plain(). */
static inline uint64_t load_short(const uint8_t *p, size_t n)
{
    uint32_t first;
    uint32_t last;

    if (n >= 4) {
        memcpy(&first, p, sizeof(first));
        memcpy(&last, p + n - sizeof(last), sizeof(last));
        return (uint64_t)first << 32 | last;
    }
    return (ONES * ' ') << 24 | (uint64_t)p[0] << 16 | (uint64_t)p[n / 2] << 8 | p[n - 1];
}

static inline bool is_tail(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return false;
        }
    }
    return true;
}

/*
 * Bytes of the character at p, which is not ASCII, 0 if there is none; n > 0. The bounds of the
 * second byte keep out overlong forms (E0, F0), surrogates (ED) and what lies above U+10FFFF (F4):
 * Unicode, table 3-7.
 */
static size_t char_size(const uint8_t *p, size_t n)
{
    const uint8_t c = p[0];
    uint8_t least = 0x80;
    uint8_t most = 0xbf;
    size_t size;

    if (c < 0xc2 || c > 0xf4) {
        return 0;
    }
    size = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (c == 0xe0) {
        least = 0xa0;
    } else if (c == 0xed) {
        most = 0x9f;
    } else if (c == 0xf0) {
        least = 0x90;
    } else if (c == 0xf4) {
        most = 0x8f;
    }
    if (n < size || p[1] < least || p[1] > most || !is_tail(p + 2, size - 2)) {
        return 0;
    }
    return size;
}

static inline unsigned class_of_ascii(uint8_t c)
{
    if (c > '+' && c < 0x7f) {
        return 0; /* nearly all */
    }
    if (c < ' ' || c == 0x7f) {
        return c == 0 ? UTF8_NUL : UTF8_CONTROL;
    }
    return c == '+' || c == '#' ? UTF8_WILDCARD : 0;
}

/* U+FDD0 to U+FDEF, and the last two code points of each plane. */
static bool is_noncharacter(const uint8_t *p, size_t n)
{
    if (n == 3) {
        return p[0] == 0xef &&
               ((p[1] == 0xb7 && p[2] >= 0x90 && p[2] <= 0xaf) || (p[1] == 0xbf && p[2] >= 0xbe));
    }
    return n == 4 && (p[1] & 0x0f) == 0x0f && p[2] == 0xbf && p[3] >= 0xbe;
}

/* Of a whole character of n bytes, two at least. */
static unsigned class_of(const uint8_t *p, size_t n)
{
    return (n == 2 && p[0] == 0xc2 && p[1] < 0xa0) || is_noncharacter(p, n) ? UTF8_CONTROL : 0;
}

/* Characters from *at on, until at least `until` is reached. */
static unsigned scan_chars(const uint8_t **at, const uint8_t *until, const uint8_t *end)
{
    const uint8_t *p = *at;
    unsigned found = 0;

    while (p < until) {
        size_t n;

        if (*p < 0x80) {
            found |= class_of_ascii(*p++);
            continue;
        }
        n = char_size(p, (size_t)(end - p));
        if (n == 0) {
            *at = end;
            return found | UTF8_ILL_FORMED;
        }
        found |= class_of(p, n);
        p += n;
    }
    *at = p;
    return found;
}

/* From a word that is not plain on. Of its own, so that who meets none saves no registers for it.
 */
static __attribute__((noinline)) unsigned scan_rest(const uint8_t *p, const uint8_t *end,
                                                    unsigned look)
{
    unsigned found = 0;

    while (end - p >= 8) {
        if (word_is_plain(load8(p), look)) {
            p += 8;
        } else {
            found |= scan_chars(&p, p + 8, end);
        }
    }
    return found | scan_chars(&p, end, end);
}

/* Inlined, so that each caller has a loop with the tests for what it looks for, and no others. */
static inline __attribute__((always_inline)) unsigned scan(struct span s, unsigned look)
{
    const uint8_t *p = s.p;
    const uint8_t *end;

    if (s.n == 0) {
        return 0;
    }
    end = p + s.n;
    if (s.n < 8) {
        return word_is_plain(load_short(p, s.n), look) ? 0 : scan_rest(p, end, look);
    }
    for (; end - p >= 8; p += 8) {
        if (!word_is_plain(load8(p), look)) {
            return scan_rest(p, end, look);
        }
    }
    /* The last word reaches back over bytes that were seen already. */
    return word_is_plain(load8(end - 8), look) ? 0 : scan_rest(p, end, look);
}

bool utf8_is_valid(struct span s)
{
    return (scan(s, UTF8_CONTROL) & (UTF8_ILL_FORMED | UTF8_NUL)) == 0;
}

bool utf8_is_valid_payload(struct span s)
{
    return (scan(s, 0) & UTF8_ILL_FORMED) == 0;
}

unsigned utf8_scan_text(struct span s)
{
    return scan(s, UTF8_CONTROL) & ~UTF8_WILDCARD;
}

unsigned utf8_scan(struct span s)
{
    return scan(s, UTF8_CONTROL | UTF8_WILDCARD);
}
