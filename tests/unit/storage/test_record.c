/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/crc32c.h"
#include "storage/record.h"
#include "tests/support/unit.h"

#include <stdlib.h>
#include <string.h>

static struct store_op sample(enum store_op_kind kind)
{
    return (struct store_op){
        .kind = kind,
        .flags = 0xa5,
        .packet_id = 0xfffe,
        .number = 0xfffffffe,
        .session = UINT64_MAX,
        .seq = 128,
        .body = 1ull << 35,
        .expires_ms = 1700000000123,
        .name = {"a/name", 6},
        .data = {"payload\0with zero", 17},
        .props = {"", 0},
    };
}

static bool same_bytes(struct store_bytes a, struct store_bytes b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* What a kind does not have is zero after decoding. */
static bool same(const struct store_op *want, const struct store_op *got)
{
    return want->kind == got->kind && (got->flags == 0 || got->flags == want->flags) &&
           (got->packet_id == 0 || got->packet_id == want->packet_id) &&
           (got->number == 0 || got->number == want->number) &&
           (got->session == 0 || got->session == want->session) &&
           (got->seq == 0 || got->seq == want->seq) &&
           (got->body == 0 || got->body == want->body) &&
           (got->expires_ms == 0 || got->expires_ms == want->expires_ms) &&
           (got->name.p == NULL || same_bytes(got->name, want->name)) &&
           (got->data.p == NULL || same_bytes(got->data, want->data)) &&
           (got->props.p == NULL || same_bytes(got->props, want->props));
}

static void test_round_trip(void)
{
    for (int k = 0; k < ST_OP_KINDS; k++) {
        const struct store_op op = sample((enum store_op_kind)k);
        const size_t n = record_size(&op);
        uint8_t *buf = malloc(n);
        const uint8_t *p = buf;
        struct store_op got;

        UNIT_NEED(buf != NULL);
        CU_ASSERT_PTR_EQUAL(record_encode(buf, &op), buf + n);
        CU_ASSERT_TRUE(record_decode(&p, buf + n, &got));
        CU_ASSERT_PTR_EQUAL(p, buf + n);
        CU_ASSERT_TRUE(same(&op, &got));
        free(buf);
    }
}

/* The fields that each kind has to bring back, by the table in FORMAT.md. */
static void test_fields(void)
{
    const struct store_op op = sample(ST_ENTRY_PUT);
    const struct store_op will = sample(ST_WILL_PUT);
    uint8_t buf[128];
    const uint8_t *p = buf;
    struct store_op got;

    CU_ASSERT_TRUE(record_decode(&p, record_encode(buf, &op), &got));
    CU_ASSERT(got.packet_id == 0xfffe && got.number == 0xfffffffe && got.session == UINT64_MAX);
    CU_ASSERT(got.seq == 128 && got.body == 1ull << 35 && got.expires_ms == op.expires_ms);
    CU_ASSERT(got.flags == 0xa5 && got.name.n == 0);
    p = buf;
    CU_ASSERT_TRUE(record_decode(&p, record_encode(buf, &will), &got));
    CU_ASSERT(got.name.n == 6 && got.data.n == 17 && got.number == 0xfffffffe && got.seq == 0);
}

static void test_every_truncation(void)
{
    for (int k = 0; k < ST_OP_KINDS; k++) {
        const struct store_op op = sample((enum store_op_kind)k);
        const size_t n = record_size(&op);

        for (size_t cut = 0; cut < n; cut++) {
            uint8_t *whole = malloc(n);
            uint8_t *part = malloc(cut + 1);
            const uint8_t *p = part;
            struct store_op got;

            UNIT_NEED(whole != NULL && part != NULL);
            record_encode(whole, &op);
            memcpy(part, whole, cut);
            CU_ASSERT_FALSE(record_decode(&p, part + cut, &got));
            CU_ASSERT_PTR_EQUAL(p, part);
            free(whole);
            free(part);
        }
    }
}

static bool decodes(const uint8_t *bytes, size_t n)
{
    const uint8_t *p = bytes;
    struct store_op op;

    return record_decode(&p, bytes + n, &op);
}

static void test_refuses(void)
{
    const uint8_t kind_0[] = {0, 1};
    const uint8_t kind_15[] = {15, 1};
    const uint8_t plain[] = {2, 1};           /* session end, session 1 */
    const uint8_t longer[] = {2, 0x81, 0x00}; /* the same, one byte longer than it has to be */
    const uint8_t ten[] = {2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    const uint8_t more[] = {2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    const uint8_t number[] = {3, 0, 0xff, 0xff, 0xff, 0xff, 0x10, 1, 0}; /* above 2^32 - 1 */
    const uint8_t name[] = {4, 1, 0xff, 0xff, 0xff, 0x7f};               /* longer than the rest */

    CU_ASSERT_FALSE(decodes(kind_0, sizeof(kind_0)));
    CU_ASSERT_FALSE(decodes(kind_15, sizeof(kind_15)));
    CU_ASSERT_TRUE(decodes(plain, sizeof(plain)));
    CU_ASSERT_FALSE(decodes(longer, sizeof(longer)));
    CU_ASSERT_TRUE(decodes(ten, sizeof(ten)));
    CU_ASSERT_FALSE(decodes(more, sizeof(more)));
    CU_ASSERT_FALSE(decodes(number, sizeof(number)));
    CU_ASSERT_FALSE(decodes(name, sizeof(name)));
}

static void test_groups(void)
{
    uint8_t buf[GROUP_HEADER + 11];
    const struct group g = {
        .number = 7, .free_id = 99, .wall_ms = 123456789, .length = sizeof(buf), .records = 3};
    struct group got;

    memcpy(buf + GROUP_HEADER, "hello world", 11);
    group_seal(buf, &g);
    CU_ASSERT_EQUAL(group_length(buf), sizeof(buf));
    CU_ASSERT_TRUE(group_open(buf, sizeof(buf), &got));
    CU_ASSERT(got.number == 7 && got.free_id == 99 && got.wall_ms == 123456789);
    CU_ASSERT(got.length == sizeof(buf) && got.records == 3);
    for (size_t i = 0; i < sizeof(buf); i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            buf[i] = (uint8_t)(buf[i] ^ 1u << bit);
            CU_ASSERT_FALSE(group_open(buf, sizeof(buf), &got));
            buf[i] = (uint8_t)(buf[i] ^ 1u << bit);
        }
        CU_ASSERT_FALSE(group_open(buf, i, &got));
    }
}

static void test_crc(void)
{
    static uint8_t large[40000];
    uint8_t bytes[300];

    CU_ASSERT_EQUAL(crc32c(0, "123456789", 9), 0xe3069283);
    CU_ASSERT_EQUAL(crc32c_portable(0, "123456789", 9), 0xe3069283);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 31 + 7);
    }
    for (size_t n = 0; n <= sizeof(bytes); n++) {
        CU_ASSERT_EQUAL(crc32c(0, bytes, n), crc32c_portable(0, bytes, n));
        CU_ASSERT_EQUAL(crc32c(crc32c(0, bytes, n / 3), bytes + n / 3, n - n / 3),
                        crc32c(0, bytes, n));
    }
    for (size_t i = 0; i < sizeof(large); i++) {
        large[i] = (uint8_t)(i * i >> 3 ^ i);
    }
    for (size_t n = 12280; n < sizeof(large); n += n < 12300 ? 1 : 1777) { /* several at a time */
        CU_ASSERT_EQUAL(crc32c(77, large, n), crc32c_portable(77, large, n));
    }
}

/* Forms of version 2 beside those of version 1. */
static void test_versions(void)
{
    struct store_op op = sample(ST_ENTRY_PUT);
    struct store_op got;
    uint8_t buf[200];
    const uint8_t *p = buf;
    /* A body as version 1 wrote it: flags, body, expires, name, props, data. */
    static const uint8_t old_body[] = {5, 1, 9, 0, 1, 't', 0, 2, 'h', 'i'};
    static const uint8_t no_group[] = {15, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 9, 0};

    (void)record_encode(buf, &op);
    CU_ASSERT_EQUAL(buf[0], 6);
    op.group = 0x01020304;
    p = buf;
    CU_ASSERT_PTR_EQUAL(record_encode(buf, &op), buf + record_size(&op));
    CU_ASSERT_EQUAL(buf[0], 15);
    CU_ASSERT(record_decode(&p, buf + record_size(&op), &got));
    CU_ASSERT(got.kind == ST_ENTRY_PUT && got.group == op.group && same(&op, &got));

    op = sample(ST_BODY_PUT);
    (void)record_encode(buf, &op);
    CU_ASSERT_EQUAL(buf[0], 16);
    p = old_body;
    CU_ASSERT(record_decode(&p, old_body + sizeof(old_body), &got));
    CU_ASSERT(got.kind == ST_BODY_PUT && got.number == 0 && got.body == 9 && got.data.n == 2);
    p = no_group; /* 0 is never written */
    CU_ASSERT_FALSE(record_decode(&p, no_group + sizeof(no_group), &got));
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(round_trip)
    UNIT_TEST(fields)
    UNIT_TEST(every_truncation)
    UNIT_TEST(refuses)
    UNIT_TEST(groups)
    UNIT_TEST(crc)
    UNIT_TEST(versions)
UNIT_TESTS_END
