/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/ack.h"
#include "server/codec/frame.h"
#include "server/codec/reason.h"
#include "tests/unit/codec/hex.h"

static const struct {
    const char *body;
    enum mqtt_type type;
    enum mqtt_version v;
    enum dec_rc rc;
    uint16_t packet_id;
    uint8_t reason;
} acks[] = {
    {"0001", MQTT_PUBACK, MQTT_3_1, DEC_OK, 1, 0},
    {"ffff", MQTT_PUBACK, MQTT_3_1_1, DEC_OK, 65535, 0},
    {"1234", MQTT_PUBREC, MQTT_3_1_1, DEC_OK, 0x1234, 0},
    {"1234", MQTT_PUBREL, MQTT_3_1_1, DEC_OK, 0x1234, 0},
    {"1234", MQTT_PUBCOMP, MQTT_3_1_1, DEC_OK, 0x1234, 0},
    {"1234", MQTT_PUBACK, MQTT_5, DEC_OK, 0x1234, 0},
    {"1234 10", MQTT_PUBACK, MQTT_5, DEC_OK, 0x1234, 0x10},
    {"1234 92", MQTT_PUBREL, MQTT_5, DEC_OK, 0x1234, 0x92},
    {"1234 92", MQTT_PUBCOMP, MQTT_5, DEC_OK, 0x1234, 0x92},
    {"1234 00 00", MQTT_PUBREC, MQTT_5, DEC_OK, 0x1234, 0},
    {"1234 97 05 1f 0002 'no'", MQTT_PUBREC, MQTT_5, DEC_OK, 0x1234, 0x97},
    {"1234 00 0e 26 0001 'k' 0001 'v' 26 0001 'k' 0001 'v'", MQTT_PUBACK, MQTT_5, DEC_OK, 0x1234,
     0},
    /* packet identifier 0, or cut short */
    {"0000", MQTT_PUBACK, MQTT_3_1_1, DEC_PROTOCOL, 0, 0},
    {"0000", MQTT_PUBREL, MQTT_5, DEC_PROTOCOL, 0, 0},
    {"", MQTT_PUBACK, MQTT_3_1_1, DEC_MALFORMED, 0, 0},
    {"12", MQTT_PUBCOMP, MQTT_5, DEC_MALFORMED, 0, 0},
    /* 3.x has nothing behind it */
    {"1234 00", MQTT_PUBACK, MQTT_3_1, DEC_MALFORMED, 0x1234, 0},
    {"1234 00", MQTT_PUBACK, MQTT_3_1_1, DEC_MALFORMED, 0x1234, 0},
    {"1234 00 00", MQTT_PUBREL, MQTT_3_1_1, DEC_MALFORMED, 0x1234, 0},
    /* properties: not theirs, cut short, something behind them */
    {"1234 00 02 01 00", MQTT_PUBACK, MQTT_5, DEC_MALFORMED, 0x1234, 0},
    {"1234 00 06 1f 0002 'no'", MQTT_PUBACK, MQTT_5, DEC_MALFORMED, 0x1234, 0},
    {"1234 00 05 1f 0002 'no' 00", MQTT_PUBACK, MQTT_5, DEC_MALFORMED, 0x1234, 0},
    {"1234 00 00 00", MQTT_PUBREL, MQTT_5, DEC_MALFORMED, 0x1234, 0},
    {"1234 00 8000", MQTT_PUBREL, MQTT_5, DEC_MALFORMED, 0x1234, 0},
    {"1234 00 0a 1f 0002 'no' 1f 0002 'no'", MQTT_PUBCOMP, MQTT_5, DEC_PROTOCOL, 0x1234, 0},
};

static void test_decode(void)
{
    for (size_t i = 0; i < sizeof(acks) / sizeof(acks[0]); i++) {
        struct bytes body = bytes_of(acks[i].body);
        const char *why = NULL;
        struct ack a;

        CHECK(acks[i].body,
              ack_decode(&a, bytes_span(body), acks[i].type, acks[i].v, &why) == acks[i].rc);
        CHECK(acks[i].body, a.packet_id == acks[i].packet_id);
        CHECK(acks[i].body, acks[i].rc != DEC_OK || a.reason == acks[i].reason);
        CHECK(acks[i].body, (why != NULL) == (acks[i].rc != DEC_OK));
        bytes_free(&body);
    }
}

/* Reason codes of PUBACK and PUBREC (3.4.2.1, 3.5.2.1), of PUBREL and PUBCOMP (3.6.2.1, 3.7.2.1).
 */
static bool is_listed(enum mqtt_type type, unsigned reason)
{
    switch (reason) {
    case 0x00:
        return true;
    case 0x10:
    case 0x80:
    case 0x83:
    case 0x87:
    case 0x90:
    case 0x91:
    case 0x97:
    case 0x99:
        return type == MQTT_PUBACK || type == MQTT_PUBREC;
    case 0x92:
        return type == MQTT_PUBREL || type == MQTT_PUBCOMP;
    default:
        return false;
    }
}

static void test_reason_codes(void)
{
    for (unsigned type = MQTT_PUBACK; type <= MQTT_PUBCOMP; type++) {
        for (unsigned reason = 0; reason < 256; reason++) {
            const uint8_t body[3] = {0, 1, (uint8_t)reason};
            const bool ok = is_listed((enum mqtt_type)type, reason);
            const char *why = NULL;
            struct ack a;

            CU_ASSERT_EQUAL(ack_decode(&a, span_of(body, 3), (enum mqtt_type)type, MQTT_5, &why),
                            ok ? DEC_OK : DEC_PROTOCOL);
            CU_ASSERT_EQUAL(a.reason, ok ? reason : 0);
            CU_ASSERT_EQUAL(reason_is_allowed((enum mqtt_type)type, (uint8_t)reason), ok);
        }
    }
}

static enum dec_rc decode_puback(struct span body, enum mqtt_version v, const char **why)
{
    struct ack a;

    return ack_decode(&a, body, MQTT_PUBACK, v, why);
}

static void test_prefixes(void)
{
    static const size_t short_forms[] = {2, 3, SIZE_MAX};

    check_prefixes("0001", MQTT_3_1, decode_puback, no_prefix);
    check_prefixes("0001", MQTT_3_1_1, decode_puback, no_prefix);
    check_prefixes("0001 87 0e 1f 0004 'nope' 26 0001 'k' 0001 'v'", MQTT_5, decode_puback,
                   short_forms);
}

static const struct {
    enum mqtt_type type;
    enum mqtt_version v;
    enum mqtt_reason reason;
    const char *hex;
} encoded[] = {
    {MQTT_PUBACK, MQTT_3_1, RC_SUCCESS, "4002 1234"},
    {MQTT_PUBREC, MQTT_3_1_1, RC_SUCCESS, "5002 1234"},
    {MQTT_PUBREL, MQTT_3_1_1, RC_SUCCESS, "6202 1234"},
    {MQTT_PUBCOMP, MQTT_3_1_1, RC_SUCCESS, "7002 1234"},
    {MQTT_PUBACK, MQTT_5, RC_SUCCESS, "4002 1234"},
    {MQTT_PUBREL, MQTT_5, RC_SUCCESS, "6202 1234"},
    {MQTT_PUBACK, MQTT_5, RC_NO_MATCHING_SUBSCRIBERS, "4003 1234 10"},
    {MQTT_PUBREC, MQTT_5, RC_QUOTA_EXCEEDED, "5003 1234 97"},
    {MQTT_PUBREL, MQTT_5, RC_PACKET_ID_NOT_FOUND, "6203 1234 92"},
    {MQTT_PUBCOMP, MQTT_5, RC_PACKET_ID_NOT_FOUND, "7003 1234 92"},
    {MQTT_PUBACK, MQTT_3_1_1, RC_NOT_AUTHORIZED, "4002 1234"}, /* 3.x has no place for it */
};

static void test_encode(void)
{
    for (size_t i = 0; i < sizeof(encoded) / sizeof(encoded[0]); i++) {
        struct bytes room = bytes_fill(ACK_MAX, 0);
        const size_t n =
            ack_encode(room.p, encoded[i].type, encoded[i].v, 0x1234, encoded[i].reason);
        struct frame f;
        struct ack a;
        const char *why = NULL;

        CHECK(encoded[i].hex, bytes_are(span_of(room.p, n), encoded[i].hex));
        CHECK(encoded[i].hex, frame_next(span_of(room.p, n), ACK_MAX, &f, &why) == FRAME_OK);
        CHECK(encoded[i].hex, f.type == encoded[i].type);
        CHECK(encoded[i].hex, ack_decode(&a, f.body, f.type, encoded[i].v, &why) == DEC_OK);
        CHECK(encoded[i].hex, a.packet_id == 0x1234);
        CHECK(encoded[i].hex, a.reason == (encoded[i].v == MQTT_5 ? encoded[i].reason : 0));
        bytes_free(&room);
    }
}

static size_t encode_with_props(uint8_t *p, size_t cap, const void *what)
{
    return ack_encode_props(p, cap, MQTT_PUBREL, 7, RC_PACKET_ID_NOT_FOUND,
                            *(const struct span *)what);
}

static void test_encode_props(void)
{
    static const struct span none = {NULL, 0};
    struct bytes props = bytes_of("1f 0002 'no' 26 0001 'k' 0001 'v'");
    const struct span s = bytes_span(props);

    check_encode("6204 0007 92 00", encode_with_props, &none);
    check_encode("6210 0007 92 0c 1f 0002 'no' 26 0001 'k' 0001 'v'", encode_with_props, &s);
    bytes_free(&props);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(decode)
    UNIT_TEST(reason_codes)
    UNIT_TEST(prefixes)
    UNIT_TEST(encode)
    UNIT_TEST(encode_props)
UNIT_TESTS_END
