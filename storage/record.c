/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/record.h"

#include "storage/bytes.h"
#include "storage/crc32c.h"

#define GROUP_MAGIC 0x3147514eu /* "NQG1" */

/* The fields of a record, in the order in which they are written. */
enum {
    F_FLAGS = 1u << 0,
    F_PACKET_ID = 1u << 1,
    F_NUMBER = 1u << 2,
    F_SESSION = 1u << 3,
    F_SEQ = 1u << 4,
    F_BODY = 1u << 5,
    F_EXPIRES = 1u << 6,
    F_NAME = 1u << 7,
    F_PROPS = 1u << 8,
    F_DATA = 1u << 9,
    F_GROUP = 1u << 10,
};

/* The bytes on disk are kind + 1: the order of the enum is the format. */
_Static_assert(ST_SESSION_PUT == 0 && ST_SUB_PUT == 2 && ST_BODY_PUT == 4 && ST_ENTRY_PUT == 5 &&
                   ST_INBOUND_PUT == 8 && ST_RETAINED_PUT == 10 && ST_WILL_PUT == 12 &&
                   ST_OP_KINDS == 14,
               "a new kind needs a byte of its own and is a new version of the format");

/* Forms that later versions have added. */
enum { ENTRY_OF_GROUP = 15, BODY_WITH_TIME = 16, FORMS };

static const struct {
    uint8_t kind; /* enum store_op_kind */
    uint16_t fields;
} forms[FORMS] = {
    [ST_SESSION_PUT + 1] = {ST_SESSION_PUT, F_FLAGS | F_NUMBER | F_SESSION | F_EXPIRES | F_NAME},
    [ST_SESSION_END + 1] = {ST_SESSION_END, F_SESSION},
    [ST_SUB_PUT + 1] = {ST_SUB_PUT, F_FLAGS | F_NUMBER | F_SESSION | F_NAME},
    [ST_SUB_DEL + 1] = {ST_SUB_DEL, F_SESSION | F_NAME},
    [ST_BODY_PUT + 1] = {ST_BODY_PUT, F_FLAGS | F_BODY | F_EXPIRES | F_NAME | F_PROPS | F_DATA},
    [ST_ENTRY_PUT + 1] = {ST_ENTRY_PUT, F_FLAGS | F_PACKET_ID | F_NUMBER | F_SESSION | F_SEQ |
                                            F_BODY | F_EXPIRES},
    [ST_ENTRY_STEP + 1] = {ST_ENTRY_STEP, F_FLAGS | F_PACKET_ID | F_SESSION | F_SEQ},
    [ST_ENTRY_DEL + 1] = {ST_ENTRY_DEL, F_SESSION | F_SEQ},
    [ST_INBOUND_PUT + 1] = {ST_INBOUND_PUT, F_PACKET_ID | F_SESSION},
    [ST_INBOUND_DEL + 1] = {ST_INBOUND_DEL, F_PACKET_ID | F_SESSION},
    [ST_RETAINED_PUT + 1] = {ST_RETAINED_PUT,
                             F_FLAGS | F_NUMBER | F_SEQ | F_EXPIRES | F_NAME | F_PROPS | F_DATA},
    [ST_RETAINED_DEL + 1] = {ST_RETAINED_DEL, F_SEQ | F_NAME},
    [ST_WILL_PUT + 1] = {ST_WILL_PUT,
                         F_FLAGS | F_NUMBER | F_SESSION | F_EXPIRES | F_NAME | F_PROPS | F_DATA},
    [ST_WILL_DEL + 1] = {ST_WILL_DEL, F_SESSION},
    [ENTRY_OF_GROUP] = {ST_ENTRY_PUT, F_FLAGS | F_PACKET_ID | F_GROUP | F_NUMBER | F_SESSION |
                                          F_SEQ | F_BODY | F_EXPIRES},
    [BODY_WITH_TIME] = {ST_BODY_PUT,
                        F_FLAGS | F_NUMBER | F_BODY | F_EXPIRES | F_NAME | F_PROPS | F_DATA},
};

/* The byte under which an operation is written. */
static unsigned form_of(const struct store_op *op)
{
    if (op->kind == ST_BODY_PUT) {
        return BODY_WITH_TIME;
    }
    return op->kind == ST_ENTRY_PUT && op->group != 0 ? ENTRY_OF_GROUP : op->kind + 1u;
}

static size_t varint_size(uint64_t v)
{
    size_t n = 1;

    while (v >= 0x80) {
        v >>= 7;
        n++;
    }
    return n;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

/* False: cut off, above max, or longer than it has to be. */
static bool get_varint(const uint8_t **p, const uint8_t *end, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t b;
        if (*p == end) {
            return false;
        }
        b = *(*p)++;
        if (shift == 63 && b > 1) {
            return false;
        }
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            *out = v;
            return v <= max && (b != 0 || shift == 0);
        }
    }
    return false;
}

static size_t bytes_size(const struct store_bytes *b)
{
    return varint_size(b->n) + b->n;
}

static uint8_t *put_bytes(uint8_t *p, const struct store_bytes *b)
{
    p = put_varint(p, b->n);
    if (b->n > 0) {
        memcpy(p, b->p, b->n);
    }
    return p + b->n;
}

static bool get_bytes(const uint8_t **p, const uint8_t *end, struct store_bytes *out)
{
    uint64_t n;

    if (!get_varint(p, end, UINT32_MAX, &n) || n > (size_t)(end - *p)) {
        return false;
    }
    *out = (struct store_bytes){*p, (size_t)n};
    *p += n;
    return true;
}

size_t record_size(const struct store_op *op)
{
    const unsigned f = forms[form_of(op)].fields;

    return 1 + ((f & F_GROUP) != 0 ? 4u : 0u) + ((f & F_FLAGS) != 0 ? 1u : 0u) +
           ((f & F_PACKET_ID) != 0 ? 2u : 0u) +
           ((f & F_NUMBER) != 0 ? varint_size(op->number) : 0) +
           ((f & F_SESSION) != 0 ? varint_size(op->session) : 0) +
           ((f & F_SEQ) != 0 ? varint_size(op->seq) : 0) +
           ((f & F_BODY) != 0 ? varint_size(op->body) : 0) +
           ((f & F_EXPIRES) != 0 ? varint_size((uint64_t)op->expires_ms) : 0) +
           ((f & F_NAME) != 0 ? bytes_size(&op->name) : 0) +
           ((f & F_PROPS) != 0 ? bytes_size(&op->props) : 0) +
           ((f & F_DATA) != 0 ? bytes_size(&op->data) : 0);
}

/* Where the fields are known, the questions for them go away. */
static inline __attribute__((always_inline)) uint8_t *put_fields(uint8_t *p,
                                                                 const struct store_op *op,
                                                                 unsigned f, uint32_t number,
                                                                 int64_t expires_ms)
{
    if ((f & F_FLAGS) != 0) {
        *p++ = op->flags;
    }
    if ((f & F_PACKET_ID) != 0) {
        put_le16(p, op->packet_id);
        p += 2;
    }
    if ((f & F_GROUP) != 0) {
        put_le32(p, op->group);
        p += 4;
    }
    if ((f & F_NUMBER) != 0) {
        p = put_varint(p, number);
    }
    if ((f & F_SESSION) != 0) {
        p = put_varint(p, op->session);
    }
    if ((f & F_SEQ) != 0) {
        p = put_varint(p, op->seq);
    }
    if ((f & F_BODY) != 0) {
        p = put_varint(p, op->body);
    }
    if ((f & F_EXPIRES) != 0) {
        p = put_varint(p, (uint64_t)expires_ms);
    }
    if ((f & F_NAME) != 0) {
        p = put_bytes(p, &op->name);
    }
    if ((f & F_PROPS) != 0) {
        p = put_bytes(p, &op->props);
    }
    return (f & F_DATA) != 0 ? put_bytes(p, &op->data) : p;
}

uint8_t *record_encode_as(uint8_t *p, const struct store_op *op, uint32_t number,
                          int64_t expires_ms)
{
    const unsigned form = form_of(op);

    *p++ = (uint8_t)form;
    switch (form) { /* those of every message */
    case BODY_WITH_TIME:
        return put_fields(p, op, forms[BODY_WITH_TIME].fields, number, expires_ms);
    case ST_ENTRY_PUT + 1:
        return put_fields(p, op, forms[ST_ENTRY_PUT + 1].fields, number, expires_ms);
    case ST_ENTRY_DEL + 1:
        return put_fields(p, op, forms[ST_ENTRY_DEL + 1].fields, number, expires_ms);
    default:
        return put_fields(p, op, forms[form].fields, number, expires_ms);
    }
}

uint8_t *record_encode(uint8_t *p, const struct store_op *op)
{
    return record_encode_as(p, op, op->number, op->expires_ms);
}

static bool get_small(const uint8_t **p, const uint8_t *end, struct store_op *op, unsigned f)
{
    uint64_t v;

    if ((f & F_FLAGS) != 0) {
        if (*p == end) {
            return false;
        }
        op->flags = *(*p)++;
    }
    if ((f & F_PACKET_ID) != 0) {
        if (end - *p < 2) {
            return false;
        }
        op->packet_id = get_le16(*p);
        *p += 2;
    }
    if ((f & F_GROUP) != 0) {
        if (end - *p < 4 || get_le32(*p) == 0) {
            return false;
        }
        op->group = get_le32(*p);
        *p += 4;
    }
    if ((f & F_NUMBER) != 0) {
        if (!get_varint(p, end, UINT32_MAX, &v)) {
            return false;
        }
        op->number = (uint32_t)v;
    }
    return true;
}

static bool get_large(const uint8_t **p, const uint8_t *end, struct store_op *op, unsigned f)
{
    uint64_t v;

    if (((f & F_SESSION) != 0 && !get_varint(p, end, UINT64_MAX, &op->session)) ||
        ((f & F_SEQ) != 0 && !get_varint(p, end, UINT64_MAX, &op->seq)) ||
        ((f & F_BODY) != 0 && !get_varint(p, end, UINT64_MAX, &op->body))) {
        return false;
    }
    if ((f & F_EXPIRES) != 0) {
        if (!get_varint(p, end, UINT64_MAX, &v)) {
            return false;
        }
        op->expires_ms = (int64_t)v;
    }
    return true;
}

/* All but the data, where f has it. */
static bool decode_head(const uint8_t **at, const uint8_t *end, struct store_op *op,
                        unsigned *fields_of)
{
    const uint8_t *p = *at;
    unsigned f;

    if (p == end || *p == 0 || *p >= FORMS) {
        return false;
    }
    f = forms[*p].fields;
    *op = (struct store_op){.kind = (enum store_op_kind)forms[*p++].kind};
    if (!get_small(&p, end, op, f) || !get_large(&p, end, op, f) ||
        ((f & F_NAME) != 0 && !get_bytes(&p, end, &op->name)) ||
        ((f & F_PROPS) != 0 && !get_bytes(&p, end, &op->props))) {
        return false;
    }
    *at = p;
    *fields_of = f;
    return true;
}

bool record_decode(const uint8_t **at, const uint8_t *end, struct store_op *op)
{
    const uint8_t *p = *at;
    unsigned f;

    if (!decode_head(&p, end, op, &f) || ((f & F_DATA) != 0 && !get_bytes(&p, end, &op->data))) {
        return false;
    }
    *at = p;
    return true;
}

bool record_decode_cut(const uint8_t *p, const uint8_t *end, struct store_op *op)
{
    uint64_t n;
    unsigned f;

    if (!decode_head(&p, end, op, &f) || (f & F_DATA) == 0 ||
        !get_varint(&p, end, UINT32_MAX, &n)) {
        return false;
    }
    op->data = (struct store_bytes){n <= (size_t)(end - p) ? p : NULL, (size_t)n};
    return true;
}

uint32_t record_body_when(const uint8_t *p, const uint8_t *end)
{
    uint64_t v;

    if (end - p < 3 || *p != BODY_WITH_TIME) {
        return 0;
    }
    p += 2; /* the form and the flags */
    return get_varint(&p, end, UINT32_MAX, &v) ? (uint32_t)v : 0;
}

/* ---- groups ---- */

void group_seal(uint8_t *buf, const struct group *g)
{
    put_le32(buf, GROUP_MAGIC);
    put_le32(buf + 8, g->length);
    put_le32(buf + 12, g->records);
    put_le64(buf + 16, g->number);
    put_le64(buf + 24, (uint64_t)g->wall_ms);
    put_le64(buf + 32, g->free_id);
    put_le32(buf + 4, crc32c(0, buf + 8, g->length - 8));
}

uint32_t group_length(const uint8_t *header)
{
    const uint32_t n = get_le32(header + 8);

    return get_le32(header) == GROUP_MAGIC && n >= GROUP_HEADER && n <= GROUP_MAX ? n : 0;
}

void group_peek(const uint8_t *buf, struct group *g)
{
    *g = (struct group){
        .length = get_le32(buf + 8),
        .records = get_le32(buf + 12),
        .number = get_le64(buf + 16),
        .wall_ms = (int64_t)get_le64(buf + 24),
        .free_id = get_le64(buf + 32),
    };
}

bool group_open(const uint8_t *buf, size_t n, struct group *g)
{
    if (n < GROUP_HEADER || group_length(buf) != n ||
        get_le32(buf + 4) != crc32c(0, buf + 8, n - 8)) {
        return false;
    }
    group_peek(buf, g);
    return true;
}
