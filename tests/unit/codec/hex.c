/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/codec/hex.h"

#include <stdio.h>
#include <stdlib.h>

const size_t no_prefix[] = {SIZE_MAX};

void check_row(bool ok, const char *file, int line, const char *row, const char *what)
{
    if (!ok) {
        printf("\n    failed for %s: %s", row, what);
    }
    CU_assertImplementation(ok, (unsigned)line, what, file, "", CU_FALSE);
}

static unsigned nibble(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = memchr(digits, c, sizeof(digits) - 1);

    UNIT_NEED(at != NULL);
    return (unsigned)(at - digits);
}

/* Writes to p unless it is NULL; returns the bytes. */
static size_t parse(const char *hex, uint8_t *p)
{
    size_t n = 0;
    bool quoted = false;

    for (const char *s = hex; *s != '\0'; s++) {
        uint8_t value;

        if (*s == '\'') {
            quoted = !quoted;
            continue;
        }
        if (!quoted && *s == ' ') {
            continue;
        }
        value = (uint8_t)*s;
        if (!quoted) {
            value = (uint8_t)(nibble(s[0]) << 4);
            s++;
            value = (uint8_t)(value | nibble(s[0]));
        }
        if (p != NULL) {
            p[n] = value;
        }
        n++;
    }
    return n;
}

struct bytes bytes_copy(const void *p, size_t n)
{
    struct bytes b = {malloc(n), n};

    UNIT_NEED(b.p != NULL || n == 0);
    if (n > 0 && p != NULL) {
        memcpy(b.p, p, n);
    }
    return b;
}

struct bytes bytes_of(const char *hex)
{
    struct bytes b = bytes_copy(NULL, parse(hex, NULL));

    parse(hex, b.p);
    return b;
}

struct bytes bytes_fill(size_t n, uint8_t value)
{
    struct bytes b = bytes_copy(NULL, n);

    if (n > 0) {
        memset(b.p, value, n);
    }
    return b;
}

void bytes_free(struct bytes *b)
{
    free(b->p);
    *b = (struct bytes){NULL, 0};
}

struct span bytes_span(struct bytes b)
{
    return span_of(b.p, b.n);
}

bool bytes_are(struct span s, const char *hex)
{
    struct bytes b = bytes_of(hex);
    const bool same = span_eq(s, bytes_span(b));

    bytes_free(&b);
    return same;
}

bool span_within(struct span part, struct span whole)
{
    return part.n == 0 || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

static bool is_listed(size_t n, const size_t *list)
{
    while (*list != SIZE_MAX && *list != n) {
        list++;
    }
    return *list == n;
}

void check_prefixes(const char *hex, enum mqtt_version v, decode_fn decode, const size_t *ok)
{
    struct bytes whole = bytes_of(hex);

    for (size_t n = 0; n <= whole.n; n++) {
        struct bytes part = bytes_copy(whole.p, n);
        const char *why = NULL;
        const enum dec_rc rc = decode(bytes_span(part), v, &why);
        const bool expected = n == whole.n || is_listed(n, ok);

        if ((rc == DEC_OK) != expected) {
            printf("\n    the first %zu bytes:", n);
        }
        CHECK(hex, (rc == DEC_OK) == expected);
        CHECK(hex, rc == DEC_OK || why != NULL);
        bytes_free(&part);
    }
    bytes_free(&whole);
}

void check_encode(const char *hex, encode_fn encode, const void *what)
{
    struct bytes expected = bytes_of(hex);

    for (size_t cap = 0; cap <= expected.n + 1; cap++) {
        struct bytes room = bytes_fill(cap, 0xa5);
        const size_t n = encode(room.p, cap, what);

        if (cap < expected.n) {
            CHECK(hex, n == 0);
            CHECK(hex, cap == 0 || room.p[0] == 0xa5);
        } else {
            CHECK(hex, n == expected.n);
            CHECK(hex, memcmp(room.p, expected.p, expected.n) == 0);
        }
        bytes_free(&room);
    }
    bytes_free(&expected);
}
