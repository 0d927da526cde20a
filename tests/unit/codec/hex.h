/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hex.h - packets as text, and the checks that every decoder and encoder gets.
 *
 * Text is hex digits, spaces between them as one likes, and 'strings' in quotes:
 *
 *     "0004 'MQTT' 05 02 003c 00 0003 'abc'"
 *
 * Bytes lie in a block of their own of exactly their size, so that AddressSanitizer sees the first
 * byte read or written past the end.
 */
#ifndef NOCTULE_TESTS_UNIT_CODEC_HEX_H
#define NOCTULE_TESTS_UNIT_CODEC_HEX_H

#include "server/base/span.h"
#include "server/codec/dec.h"
#include "server/codec/mqtt.h"
#include "tests/support/unit.h"

/* CU_ASSERT for a row of a table: says which one. */
#define CHECK(row, cond) check_row((cond), __FILE__, __LINE__, (row), #cond)
void check_row(bool ok, const char *file, int line, const char *row, const char *what);

struct bytes {
    uint8_t *p;
    size_t n;
};

struct bytes bytes_of(const char *hex);           /* ends the process if it is no hex */
struct bytes bytes_copy(const void *p, size_t n); /* n may be 0 */
struct bytes bytes_fill(size_t n, uint8_t value);
void bytes_free(struct bytes *b);
struct span bytes_span(struct bytes b);
bool bytes_are(struct span s, const char *hex);

/* Whether `part` lies within `whole`; an empty one always does. */
bool span_within(struct span part, struct span whole);

/*
 * Gives every proper prefix of `hex` to `decode`. It must be refused, with a reason, unless its
 * length is in `ok`, a list that ends with SIZE_MAX.
 */
typedef enum dec_rc (*decode_fn)(struct span body, enum mqtt_version v, const char **why);
void check_prefixes(const char *hex, enum mqtt_version v, decode_fn decode, const size_t *ok);
extern const size_t no_prefix[];

/*
 * Calls `encode` with every room from 0 up to what `hex` takes: it must answer 0 and write nothing
 * until the room suffices, then give those bytes.
 */
typedef size_t (*encode_fn)(uint8_t *p, size_t cap, const void *what);
void check_encode(const char *hex, encode_fn encode, const void *what);

#endif
