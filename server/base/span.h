/* SPDX-License-Identifier: Apache-2.0 */
/*
 * span.h - a borrowed run of bytes.
 *
 * Ownership  none: a span lives as long as what it points into; who hands one out says how long.
 */
#ifndef NOCTULE_BASE_SPAN_H
#define NOCTULE_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
    const uint8_t *p; /* may be NULL only when n is 0 */
    size_t n;         /* bytes */
};

#define SPAN_NULL ((struct span){NULL, 0})

static inline struct span span_of(const void *p, size_t n)
{
    return (struct span){(const uint8_t *)p, n};
}

static inline struct span span_str(const char *s)
{
    return (struct span){(const uint8_t *)s, strlen(s)};
}

static inline bool span_eq(struct span a, struct span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

#endif
