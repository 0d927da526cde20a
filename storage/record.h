/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.h - bytes <-> records and groups of records, as FORMAT.md has them. Pure.
 *
 * A record is one store_op. Times in a record are those on disk (wall clock, ms); callers convert.
 * Decoding trusts nothing: every length is checked against what is there.
 */
#ifndef NOCTULE_STORAGE_RECORD_H
#define NOCTULE_STORAGE_RECORD_H

#include "storage/store.h"

#define GROUP_HEADER 40u
#define GROUP_MAX    0x7fffffffu

/* Bytes that record_encode() will write. */
size_t record_size(const struct store_op *op);
/* Writes record_size() bytes; the end of them. */
uint8_t *record_encode(uint8_t *p, const struct store_op *op);
/* The same with another number and another time. */
uint8_t *record_encode_as(uint8_t *p, const struct store_op *op, uint32_t number,
                          int64_t expires_ms);
/*
 * One record from *p, which moves behind it. Views in *op point into the bytes. False: no valid
 * record is there; *p has not moved.
 */
bool record_decode(const uint8_t **p, const uint8_t *end, struct store_op *op)
    __attribute__((warn_unused_result));

/* Likewise of bytes that may end within `data`: then data.p is NULL and data.n what it should be.
 */
bool record_decode_cut(const uint8_t *p, const uint8_t *end, struct store_op *op)
    __attribute__((warn_unused_result));

/* When the body was published, wall clock s, of its record; 0: not known. */
uint32_t record_body_when(const uint8_t *p, const uint8_t *end);

struct group {
    uint64_t number;  /* consecutive, from 1 */
    uint64_t free_id; /* store_first_free_id() as of this group */
    int64_t wall_ms;  /* when it was written */
    uint32_t length;  /* with the header */
    uint32_t records;
};

/* Fills the header of a group whose records stand at buf + GROUP_HEADER; g->length counts both. */
void group_seal(uint8_t *buf, const struct group *g);
/* Length of the group that starts with these GROUP_HEADER bytes; 0: no group starts here. */
uint32_t group_length(const uint8_t *header);
/* The header of a group that was sealed here or has been checked. */
void group_peek(const uint8_t *buf, struct group *g);
/* Checks form and checksum of a whole group of n bytes. Its records are checked by decoding them.
 */
bool group_open(const uint8_t *buf, size_t n, struct group *g) __attribute__((warn_unused_result));

#endif
