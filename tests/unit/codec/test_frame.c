/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/frame.h"
#include "tests/unit/codec/hex.h"

#include <stdlib.h>

#define NO_LIMIT SIZE_MAX

static const struct {
    const char *in;
    size_t max_total;
    enum frame_rc rc;
    enum mqtt_type type;
    size_t total;
    const char *body;
} frames[] = {
    /* whole packets, also with the next one behind */
    {"c000", NO_LIMIT, FRAME_OK, MQTT_PINGREQ, 2, ""},
    {"c000 c000", NO_LIMIT, FRAME_OK, MQTT_PINGREQ, 2, ""},
    {"d000", NO_LIMIT, FRAME_OK, MQTT_PINGRESP, 2, ""},
    {"e000", NO_LIMIT, FRAME_OK, MQTT_DISCONNECT, 2, ""},
    {"4002 0001 ff", NO_LIMIT, FRAME_OK, MQTT_PUBACK, 4, "0001"},
    {"3a05 0001 'a' 0007", NO_LIMIT, FRAME_OK, MQTT_PUBLISH, 7, "0001 'a' 0007"},
    {"6202 0001", 4, FRAME_OK, MQTT_PUBREL, 4, "0001"},
    {"f000", NO_LIMIT, FRAME_OK, MQTT_AUTH, 2, ""},
    /* not all there yet */
    {"", NO_LIMIT, FRAME_NEED_MORE, MQTT_RESERVED, 0, ""},
    {"30", NO_LIMIT, FRAME_NEED_MORE, MQTT_PUBLISH, 0, ""},
    {"3080", NO_LIMIT, FRAME_NEED_MORE, MQTT_PUBLISH, 0, ""},
    {"308080", NO_LIMIT, FRAME_NEED_MORE, MQTT_PUBLISH, 0, ""},
    {"30808080", NO_LIMIT, FRAME_NEED_MORE, MQTT_PUBLISH, 0, ""},
    {"3080808001", NO_LIMIT, FRAME_NEED_MORE, MQTT_PUBLISH, 2097157, ""},
    {"30ffffff7f", NO_LIMIT, FRAME_NEED_MORE, MQTT_PUBLISH, 268435460, ""},
    {"4002", NO_LIMIT, FRAME_NEED_MORE, MQTT_PUBACK, 4, ""},
    {"4002 00", NO_LIMIT, FRAME_NEED_MORE, MQTT_PUBACK, 4, ""},
    /* the limit counts the fixed header, and acts before the body is there */
    {"4002 0001", 3, FRAME_TOO_LARGE, MQTT_PUBACK, 4, ""},
    {"3064", 101, FRAME_TOO_LARGE, MQTT_PUBLISH, 102, ""},
    {"3064", 102, FRAME_NEED_MORE, MQTT_PUBLISH, 102, ""},
    {"30ffffff7f", 268435459, FRAME_TOO_LARGE, MQTT_PUBLISH, 268435460, ""},
    {"30ffffff7f", 268435460, FRAME_NEED_MORE, MQTT_PUBLISH, 268435460, ""},
    /* lengths: a fifth byte; a form that is not the shortest */
    {"30ffffffff", NO_LIMIT, FRAME_MALFORMED, MQTT_PUBLISH, 0, ""},
    {"3080808080", NO_LIMIT, FRAME_MALFORMED, MQTT_PUBLISH, 0, ""},
    {"308080808001", NO_LIMIT, FRAME_MALFORMED, MQTT_PUBLISH, 0, ""},
    {"308000", NO_LIMIT, FRAME_MALFORMED, MQTT_PUBLISH, 0, ""},
    {"40820000 01", NO_LIMIT, FRAME_MALFORMED, MQTT_PUBACK, 0, ""},
    {"30ff8000", NO_LIMIT, FRAME_MALFORMED, MQTT_PUBLISH, 0, ""},
    {"30ffff8000", NO_LIMIT, FRAME_MALFORMED, MQTT_PUBLISH, 0, ""},
    /* errors that the first bytes show */
    {"00", NO_LIMIT, FRAME_MALFORMED, MQTT_RESERVED, 0, ""},
    {"80", NO_LIMIT, FRAME_MALFORMED, MQTT_SUBSCRIBE, 0, ""},
    {"11", NO_LIMIT, FRAME_MALFORMED, MQTT_CONNECT, 0, ""},
    {"c001", NO_LIMIT, FRAME_MALFORMED, MQTT_PINGREQ, 3, ""},
    {"d001 00", NO_LIMIT, FRAME_MALFORMED, MQTT_PINGRESP, 3, ""},
};

static void test_frames(void)
{
    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        struct bytes in = bytes_of(frames[i].in);
        struct frame f;
        const char *why = NULL;
        const enum frame_rc rc = frame_next(bytes_span(in), frames[i].max_total, &f, &why);

        CHECK(frames[i].in, rc == frames[i].rc);
        CHECK(frames[i].in, f.type == frames[i].type);
        CHECK(frames[i].in, f.total == frames[i].total);
        CHECK(frames[i].in, f.flags == (in.n > 0 ? in.p[0] & 0x0f : 0));
        CHECK(frames[i].in, bytes_are(f.body, frames[i].body));
        CHECK(frames[i].in, span_within(f.body, bytes_span(in)));
        CHECK(frames[i].in, (why != NULL) == (rc == FRAME_MALFORMED || rc == FRAME_TOO_LARGE));
        bytes_free(&in);
    }
}

static void test_null_input(void)
{
    struct frame f;
    const char *why = NULL;

    CU_ASSERT_EQUAL(frame_next(SPAN_NULL, NO_LIMIT, &f, &why), FRAME_NEED_MORE);
    CU_ASSERT_EQUAL(f.total, 0);
}

/* First bytes that 3.1.1 and 5.0 allow, from the standards' table 2.2. */
static bool is_first_byte(unsigned b)
{
    static const uint8_t others[] = {0x10, 0x20, 0x40, 0x50, 0x62, 0x70, 0x82,
                                     0x90, 0xa2, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0};

    return b >> 4 == MQTT_PUBLISH || memchr(others, (int)b, sizeof(others)) != NULL;
}

static void test_flags(void)
{
    for (unsigned b = 0; b < 256; b++) {
        const uint8_t first = (uint8_t)b;
        const uint8_t empty[2] = {first, 0};
        struct frame f;
        const char *why = NULL;

        CU_ASSERT_EQUAL(frame_next(span_of(&first, 1), NO_LIMIT, &f, &why),
                        is_first_byte(b) ? FRAME_NEED_MORE : FRAME_MALFORMED);
        CU_ASSERT_EQUAL(frame_next(span_of(empty, 2), NO_LIMIT, &f, &why),
                        is_first_byte(b) ? FRAME_OK : FRAME_MALFORMED);
    }
}

/* 3.1: PUBREL, SUBSCRIBE and UNSUBSCRIBE have QoS 1 and may have DUP; all else is not looked at. */
static void test_flags_31(void)
{
    for (unsigned b = 0; b < 256; b++) {
        const unsigned type = b >> 4;
        const uint8_t first = (uint8_t)b;
        const bool qos1 = type == MQTT_PUBREL || type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE;
        const bool ok = type != MQTT_RESERVED && type != MQTT_AUTH && (!qos1 || (b & 6) == 2);
        struct frame f;
        const char *why = NULL;

        CU_ASSERT_EQUAL(frame_next_31(span_of(&first, 1), NO_LIMIT, &f, &why),
                        ok ? FRAME_NEED_MORE : FRAME_MALFORMED);
    }
}

static const struct {
    uint32_t value;
    const char *hex;
} varints[] = {
    {0, "00"},
    {1, "01"},
    {127, "7f"},
    {128, "8001"},
    {16383, "ff7f"},
    {16384, "808001"},
    {2097151, "ffff7f"},
    {2097152, "80808001"},
    {268435454, "feffff7f"},
    {268435455, "ffffff7f"},
};

static void test_varint(void)
{
    for (size_t i = 0; i < sizeof(varints) / sizeof(varints[0]); i++) {
        struct bytes expected = bytes_of(varints[i].hex);
        struct bytes room = bytes_fill(expected.n, 0xa5);

        CHECK(varints[i].hex, varint_size(varints[i].value) == expected.n);
        CHECK(varints[i].hex, varint_put(room.p, varints[i].value) == expected.n);
        CHECK(varints[i].hex, memcmp(room.p, expected.p, expected.n) == 0);
        bytes_free(&room);
        bytes_free(&expected);
    }
}

/* Header written and read back, with everything but the body's last byte, and with all of it. */
static void test_boundary_lengths(void)
{
    for (size_t i = 0; i < sizeof(varints) / sizeof(varints[0]); i++) {
        const uint32_t n = varints[i].value;
        uint8_t *packet = calloc(1, MQTT_MAX_FIXED_HEADER + (size_t)n);
        struct frame f;
        const char *why = NULL;
        size_t header;

        UNIT_NEED(packet != NULL);
        header = frame_put_header(packet, 0x30, n);
        CU_ASSERT_EQUAL(header, 1 + varint_size(n));
        CU_ASSERT_EQUAL(frame_next(span_of(packet, header + n), header + n, &f, &why), FRAME_OK);
        CU_ASSERT_EQUAL(f.total, header + n);
        CU_ASSERT_EQUAL(f.body.n, n);
        CU_ASSERT_PTR_EQUAL(f.body.p, packet + header);
        if (n > 0) {
            CU_ASSERT_EQUAL(frame_next(span_of(packet, header + n - 1), header + n, &f, &why),
                            FRAME_NEED_MORE);
            CU_ASSERT_EQUAL(f.total, header + n);
        }
        free(packet);
    }
}

/* Every prefix of a packet asks for more and never for less than there is. */
static void test_prefixes(void)
{
    struct bytes whole = bytes_fill(2 + 200 + 1, 'x');
    const size_t header = frame_put_header(whole.p, 0x30, 200);

    UNIT_NEED(header + 200 == whole.n);
    for (size_t n = 0; n < whole.n; n++) {
        struct bytes part = bytes_copy(whole.p, n);
        struct frame f;
        const char *why = NULL;

        CU_ASSERT_EQUAL(frame_next(bytes_span(part), 203, &f, &why), FRAME_NEED_MORE);
        CU_ASSERT_EQUAL(f.total, n < header ? 0 : whole.n);
        bytes_free(&part);
    }
    bytes_free(&whole);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(frames)
    UNIT_TEST(null_input)
    UNIT_TEST(flags)
    UNIT_TEST(flags_31)
    UNIT_TEST(varint)
    UNIT_TEST(boundary_lengths)
    UNIT_TEST(prefixes)
UNIT_TESTS_END
