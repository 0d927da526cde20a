/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/props.h"
#include "tests/unit/codec/hex.h"

/*
 * Table 2-4 of the standard once more, in its own words, to be held against the codec's: one valid
 * value for each property, the places that have it (first letters below), and a value out of range
 * if there is one.
 */
static const char place_letters[] = "cwkpasSudA"; /* in the order of enum prop_place */

static const struct {
    unsigned id;
    const char *value;
    const char *places;
    const char *bad;
} properties[] = {
    {0x01, "01", "pw", "02"},
    {0x02, "00000010", "pw", NULL},
    {0x03, "0004 'text'", "pw", NULL},
    {0x08, "0003 'r/t'", "pw", NULL},
    {0x09, "0003 00ff80", "pw", NULL},
    {0x0b, "8001", "ps", "00"},
    {0x11, "ffffffff", "ckd", NULL},
    {0x12, "0002 'id'", "k", NULL},
    {0x13, "003c", "k", NULL},
    {0x15, "0005 'SCRAM'", "ckA", NULL},
    {0x16, "0002 00ff", "ckA", NULL},
    {0x17, "00", "c", "02"},
    {0x18, "0000000a", "w", NULL},
    {0x19, "01", "c", "ff"},
    {0x1a, "0002 'ri'", "k", NULL},
    {0x1c, "0004 'host'", "kd", NULL},
    {0x1f, "0003 'why'", "kaSdA", NULL},
    {0x21, "0001", "ck", "0000"},
    {0x22, "0000", "ck", NULL},
    {0x23, "0001", "p", NULL}, /* alias 0 has a code of its own, 0x94: the shard answers it */
    {0x24, "00", "k", "02"},
    {0x25, "01", "k", "02"},
    {0x26, "0001 'k' 0001 'v'", "cwkpasSudA", NULL},
    {0x27, "00000001", "ck", "00000000"},
    {0x28, "01", "k", "02"},
    {0x29, "00", "k", "02"},
    {0x2a, "01", "k", "80"},
};

#define PROPERTIES_NR (sizeof(properties) / sizeof(properties[0]))

static size_t add(uint8_t *p, unsigned id, const char *value)
{
    struct bytes b = bytes_of(value);
    const size_t n = b.n;

    p[0] = (uint8_t)id;
    memcpy(p + 1, b.p, n);
    bytes_free(&b);
    return 1 + n;
}

/* Decodes what lies in p (below 128 bytes) as one block, in a block of memory of its own size. */
static enum dec_rc decode_block(struct props *out, const uint8_t *p, size_t n, unsigned place)
{
    struct bytes b = bytes_copy(NULL, n + 1);
    const char *why = NULL;
    size_t used;
    enum dec_rc rc;

    b.p[0] = (uint8_t)n;
    memcpy(b.p + 1, p, n);
    rc = props_decode(out, bytes_span(b), (enum prop_place)place, &used, &why);
    CU_ASSERT_EQUAL(rc == DEC_OK, why == NULL);
    if (rc == DEC_OK) {
        CU_ASSERT_EQUAL(used, n + 1);
    }
    bytes_free(&b);
    return rc;
}

static bool is_place(const char *places, unsigned place)
{
    return strchr(places, place_letters[place]) != NULL;
}

/* A method in front, where the data would be refused without. */
static size_t add_needed(uint8_t *p, unsigned id)
{
    return id == PROP_AUTH_DATA ? add(p, PROP_AUTH_METHOD, "0001 'm'") : 0;
}

static void test_places(void)
{
    for (size_t i = 0; i < PROPERTIES_NR; i++) {
        for (unsigned place = PROPS_CONNECT; place <= PROPS_AUTH; place++) {
            const bool ok = is_place(properties[i].places, place);
            uint8_t block[64];
            struct props got;
            size_t n = add_needed(block, properties[i].id);

            n += add(block + n, properties[i].id, properties[i].value);
            CHECK(properties[i].value,
                  decode_block(&got, block, n, place) == (ok ? DEC_OK : DEC_MALFORMED));
            CHECK(properties[i].value, !ok || props_has(&got, (enum mqtt_prop)properties[i].id));
        }
    }
}

static void test_twice(void)
{
    for (size_t i = 0; i < PROPERTIES_NR; i++) {
        for (unsigned place = PROPS_CONNECT; place <= PROPS_AUTH; place++) {
            const unsigned id = properties[i].id;
            const bool repeats =
                id == PROP_USER_PROPERTY || (id == PROP_SUBSCRIPTION_ID && place == PROPS_PUBLISH);
            uint8_t block[128];
            struct props got;
            size_t n = add_needed(block, id);

            if (!is_place(properties[i].places, place)) {
                continue;
            }
            n += add(block + n, id, properties[i].value);
            n += add(block + n, id, properties[i].value);
            CHECK(properties[i].value,
                  decode_block(&got, block, n, place) == (repeats ? DEC_OK : DEC_PROTOCOL));
        }
    }
}

static void test_ranges(void)
{
    unsigned tried = 0;

    for (size_t i = 0; i < PROPERTIES_NR; i++) {
        for (unsigned place = PROPS_CONNECT; place <= PROPS_AUTH; place++) {
            uint8_t block[64];
            struct props got;

            if (properties[i].bad != NULL && is_place(properties[i].places, place)) {
                const size_t n = add(block, properties[i].id, properties[i].bad);

                CHECK(properties[i].bad, decode_block(&got, block, n, place) == DEC_PROTOCOL);
                tried++;
            }
        }
    }
    CU_ASSERT_EQUAL(tried, 15);
}

/* Each property cut at every byte, the block's length saying so. */
static void test_cut_short(void)
{
    for (size_t i = 0; i < PROPERTIES_NR; i++) {
        const unsigned place =
            (unsigned)(strchr(place_letters, properties[i].places[0]) - place_letters);
        uint8_t block[64];
        const size_t whole = add(block, properties[i].id, properties[i].value);

        for (size_t n = 1; n < whole; n++) {
            struct props got;

            CHECK(properties[i].value, decode_block(&got, block, n, place) == DEC_MALFORMED);
        }
    }
}

static void test_unknown(void)
{
    for (unsigned id = 0; id < 256; id++) {
        bool known = false;

        for (size_t i = 0; i < PROPERTIES_NR; i++) {
            known = known || properties[i].id == id;
        }
        for (unsigned place = PROPS_CONNECT; !known && place <= PROPS_AUTH; place++) {
            uint8_t block[8] = {0};
            struct props got;

            block[0] = (uint8_t)id;
            CU_ASSERT_EQUAL(decode_block(&got, block, sizeof(block), place), DEC_MALFORMED);
        }
    }
}

static const struct {
    const char *hex;
    enum prop_place place;
    enum dec_rc rc;
} blocks[] = {
    {"00", PROPS_CONNECT, DEC_OK},
    {"00 ff", PROPS_CONNECT, DEC_OK}, /* what is behind the block is not its concern */
    {"", PROPS_CONNECT, DEC_MALFORMED},
    {"80", PROPS_CONNECT, DEC_MALFORMED},
    {"8000", PROPS_CONNECT, DEC_MALFORMED},
    {"ffffffff", PROPS_CONNECT, DEC_MALFORMED},
    {"ffffffff7f", PROPS_CONNECT, DEC_MALFORMED},
    {"01", PROPS_CONNECT, DEC_MALFORMED},
    {"03 21 0001", PROPS_CONNECT, DEC_OK},
    {"8300 21 0001", PROPS_CONNECT, DEC_MALFORMED},
    {"02 21 0001", PROPS_CONNECT, DEC_MALFORMED},
    {"04 21 0001", PROPS_CONNECT, DEC_MALFORMED},
    {"04 a100 0001", PROPS_CONNECT, DEC_MALFORMED}, /* identifier not in its shortest form */
    /* strings */
    {"07 26 0001 80 0001 'v'", PROPS_CONNECT, DEC_MALFORMED},
    {"07 26 0001 'k' 0001 80", PROPS_CONNECT, DEC_MALFORMED},
    {"07 26 0001 00 0001 'v'", PROPS_CONNECT, DEC_MALFORMED},
    {"07 26 0001 'k' 0001 00", PROPS_CONNECT, DEC_MALFORMED},
    {"05 26 0000 0000", PROPS_CONNECT, DEC_OK},
    {"06 03 0003 eda080", PROPS_PUBLISH, DEC_MALFORMED},
    {"04 03 0001 00", PROPS_PUBLISH, DEC_MALFORMED},
    {"03 03 0000", PROPS_PUBLISH, DEC_OK},
    {"04 09 0001 00", PROPS_PUBLISH, DEC_OK}, /* binary */
    {"04 1f 0001 c0", PROPS_PUBACK, DEC_MALFORMED},
    {"04 12 0001 c0", PROPS_CONNACK, DEC_MALFORMED},
    {"04 15 0001 c0", PROPS_AUTH, DEC_MALFORMED},
    {"04 1a 0001 c0", PROPS_CONNACK, DEC_MALFORMED},
    {"04 1c 0001 c0", PROPS_DISCONNECT, DEC_MALFORMED},
    /* response topic: a topic name */
    {"06 08 0003 'a/+'", PROPS_PUBLISH, DEC_TOPIC_NAME},
    {"06 08 0003 'a/#'", PROPS_WILL, DEC_TOPIC_NAME},
    {"03 08 0000", PROPS_PUBLISH, DEC_TOPIC_NAME},
    {"04 08 0001 00", PROPS_PUBLISH, DEC_MALFORMED},
    {"04 08 0001 c0", PROPS_PUBLISH, DEC_MALFORMED},
    /* authentication */
    {"04 16 0001 'd'", PROPS_CONNECT, DEC_PROTOCOL},
    {"04 16 0001 'd'", PROPS_AUTH, DEC_PROTOCOL},
    {"08 16 0001 'd' 15 0001 'm'", PROPS_CONNECT, DEC_OK},
    {"04 15 0001 'm'", PROPS_CONNECT, DEC_OK},
    /* subscription identifiers */
    {"05 0b ffffff7f", PROPS_SUBSCRIBE, DEC_OK},
    {"05 0b ffffffff", PROPS_SUBSCRIBE, DEC_MALFORMED},
    {"06 0b ffffffff 01", PROPS_SUBSCRIBE, DEC_MALFORMED},
    {"03 0b 8000", PROPS_SUBSCRIBE, DEC_MALFORMED},
    {"03 0b 8100", PROPS_SUBSCRIBE, DEC_MALFORMED},
    {"04 0b 01 0b 00", PROPS_PUBLISH, DEC_PROTOCOL},
};

static void test_blocks(void)
{
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        struct bytes in = bytes_of(blocks[i].hex);
        struct props got;
        const char *why = NULL;
        size_t used = 99;

        CHECK(blocks[i].hex,
              props_decode(&got, bytes_span(in), blocks[i].place, &used, &why) == blocks[i].rc);
        CHECK(blocks[i].hex, (why == NULL) == (blocks[i].rc == DEC_OK));
        CHECK(blocks[i].hex, used <= in.n);
        bytes_free(&in);
    }
}

static void test_values_of_connack(void)
{
    struct bytes in =
        bytes_of("3f 11 00000e10 21 0400 24 01 25 00 27 00010000 12 0002 'id' 22 000a "
                 "1f 0001 'r' 28 01 29 00 2a 01 13 003c 1a 0002 'ri' 1c 0001 's' "
                 "15 0001 'm' 16 0002 0001 26 0001 'k' 0001 'v'");
    const char *why = NULL;
    struct props p;
    size_t used;

    UNIT_NEED(in.n == 0x3f + 1);
    CU_ASSERT_EQUAL(props_decode(&p, bytes_span(in), PROPS_CONNACK, &used, &why), DEC_OK);
    CU_ASSERT_EQUAL(used, in.n);
    CU_ASSERT_EQUAL(p.session_expiry_s, 3600);
    CU_ASSERT_EQUAL(p.receive_maximum, 1024);
    CU_ASSERT_EQUAL(p.maximum_qos, 1);
    CU_ASSERT_EQUAL(p.retain_available, 0);
    CU_ASSERT_EQUAL(p.maximum_packet_size, 65536);
    CU_ASSERT_EQUAL(p.topic_alias_maximum, 10);
    CU_ASSERT_EQUAL(p.wildcard_available, 1);
    CU_ASSERT_EQUAL(p.subscription_id_available, 0);
    CU_ASSERT_EQUAL(p.shared_available, 1);
    CU_ASSERT_EQUAL(p.server_keep_alive_s, 60);
    CU_ASSERT_TRUE(bytes_are(p.assigned_client_id, "'id'"));
    CU_ASSERT_TRUE(bytes_are(p.reason_string, "'r'"));
    CU_ASSERT_TRUE(bytes_are(p.response_info, "'ri'"));
    CU_ASSERT_TRUE(bytes_are(p.server_reference, "'s'"));
    CU_ASSERT_TRUE(bytes_are(p.auth_method, "'m'"));
    CU_ASSERT_TRUE(bytes_are(p.auth_data, "0001"));
    CU_ASSERT_PTR_EQUAL(p.raw.p, in.p + 1);
    CU_ASSERT_EQUAL(p.raw.n, in.n - 1);
    bytes_free(&in);
}

static void test_values_of_others(void)
{
    struct bytes will = bytes_of("0f 18 0000000a 02 00000014 01 01 03 0000");
    struct bytes publish = bytes_of("12 0b 05 0b 8001 23 0007 08 0001 'r' 09 0003 010203");
    struct bytes connect = bytes_of("06 17 00 19 01 17 01");
    const char *why = NULL;
    struct props p;
    size_t used;

    CU_ASSERT_EQUAL(props_decode(&p, bytes_span(will), PROPS_WILL, &used, &why), DEC_OK);
    CU_ASSERT_EQUAL(p.will_delay_s, 10);
    CU_ASSERT_EQUAL(p.message_expiry_s, 20);
    CU_ASSERT_EQUAL(p.payload_format, 1);
    CU_ASSERT_TRUE(props_has(&p, PROP_CONTENT_TYPE));
    CU_ASSERT_FALSE(props_has(&p, PROP_RESPONSE_TOPIC));
    CU_ASSERT_EQUAL(props_decode(&p, bytes_span(publish), PROPS_PUBLISH, &used, &why), DEC_OK);
    CU_ASSERT_EQUAL(p.subscription_id, 5); /* the first of two */
    CU_ASSERT_EQUAL(p.topic_alias, 7);
    CU_ASSERT_TRUE(bytes_are(p.response_topic, "'r'"));
    CU_ASSERT_TRUE(bytes_are(p.correlation_data, "010203"));
    CU_ASSERT_EQUAL(p.will_delay_s, 0); /* nothing of the call before */
    CU_ASSERT_EQUAL(props_decode(&p, bytes_span(connect), PROPS_CONNECT, &used, &why),
                    DEC_PROTOCOL);
    CU_ASSERT_EQUAL(p.request_problem_info, 0);
    CU_ASSERT_EQUAL(p.request_response_info, 1);
    bytes_free(&will);
    bytes_free(&publish);
    bytes_free(&connect);
}

static void test_walk(void)
{
    struct bytes raw =
        bytes_of("26 0001 'k' 0002 'v1' 01 01 0b 8001 26 0001 'k' 0002 'v2' 02 00000010 23 0102 "
                 "09 0002 00ff 08 0001 'r'");
    static const struct {
        unsigned id;
        const char *whole;
        const char *key;
        const char *value;
        uint32_t number;
    } expected[] = {
        {0x26, "26 0001 'k' 0002 'v1'", "'k'", "'v1'", 0},
        {0x01, "01 01", "", "", 1},
        {0x0b, "0b 8001", "", "", 128},
        {0x26, "26 0001 'k' 0002 'v2'", "'k'", "'v2'", 0},
        {0x02, "02 00000010", "", "", 16},
        {0x23, "23 0102", "", "", 0x102},
        {0x09, "09 0002 00ff", "", "00ff", 0},
        {0x08, "08 0001 'r'", "", "'r'", 0},
    };
    struct prop_item item;
    size_t at = 0;

    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        CHECK(expected[i].whole, props_next(bytes_span(raw), &at, &item));
        CHECK(expected[i].whole, item.id == expected[i].id);
        CHECK(expected[i].whole, bytes_are(item.whole, expected[i].whole));
        CHECK(expected[i].whole, bytes_are(item.key, expected[i].key));
        CHECK(expected[i].whole, bytes_are(item.value, expected[i].value));
        CHECK(expected[i].whole, item.number == expected[i].number);
    }
    CU_ASSERT_FALSE(props_next(bytes_span(raw), &at, &item));
    CU_ASSERT_EQUAL(at, raw.n);
    at = 0;
    CU_ASSERT_FALSE(props_next(SPAN_NULL, &at, &item));
    bytes_free(&raw);
}

/* What was put is what the property table of a standard's reader gets; and the sizes promised. */
static void test_put(void)
{
    uint8_t b[64];

    CU_ASSERT_TRUE(bytes_are(span_of(b, prop_put_byte(b, PROP_MAXIMUM_QOS, 1)), "24 01"));
    CU_ASSERT_TRUE(bytes_are(span_of(b, prop_put_u16(b, PROP_TOPIC_ALIAS, 0x1234)), "23 1234"));
    CU_ASSERT_TRUE(
        bytes_are(span_of(b, prop_put_u32(b, PROP_MESSAGE_EXPIRY, 0x12345678)), "02 12345678"));
    CU_ASSERT_TRUE(
        bytes_are(span_of(b, prop_put_varint(b, PROP_SUBSCRIPTION_ID, 268435455)), "0b ffffff7f"));
    CU_ASSERT_TRUE(bytes_are(span_of(b, prop_put_varint(b, PROP_SUBSCRIPTION_ID, 127)), "0b 7f"));
    CU_ASSERT_TRUE(bytes_are(span_of(b, prop_put_string(b, PROP_CONTENT_TYPE, span_str("text"))),
                             "03 0004 'text'"));
    CU_ASSERT_TRUE(
        bytes_are(span_of(b, prop_put_string(b, PROP_CONTENT_TYPE, SPAN_NULL)), "03 0000"));
    CU_ASSERT_TRUE(bytes_are(span_of(b, prop_put_pair(b, span_str("k"), span_str("value"))),
                             "26 0001 'k' 0005 'value'"));
    CU_ASSERT_TRUE(bytes_are(span_of(b, prop_put_pair(b, SPAN_NULL, SPAN_NULL)), "26 0000 0000"));
}

/* A value of 65535 bytes, the longest there is; and one that claims a byte more than the block has.
 */
static void test_longest_string(void)
{
    struct bytes value = bytes_fill(65535, 'v');
    struct bytes in = bytes_copy(NULL, 3 + 3 + value.n);
    const char *why = NULL;
    struct props p;
    size_t used;

    memcpy(in.p, "\x82\x80\x04", 3);
    CU_ASSERT_EQUAL(prop_put_string(in.p + 3, PROP_REASON_STRING, bytes_span(value)), 3 + value.n);
    CU_ASSERT_EQUAL(props_decode(&p, bytes_span(in), PROPS_PUBACK, &used, &why), DEC_OK);
    CU_ASSERT_EQUAL(used, in.n);
    CU_ASSERT_TRUE(span_eq(p.reason_string, bytes_span(value)));
    in.p[0] = 0x81;
    CU_ASSERT_EQUAL(props_decode(&p, bytes_span(in), PROPS_PUBACK, &used, &why), DEC_MALFORMED);
    bytes_free(&in);
    bytes_free(&value);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(places)
    UNIT_TEST(twice)
    UNIT_TEST(ranges)
    UNIT_TEST(cut_short)
    UNIT_TEST(unknown)
    UNIT_TEST(blocks)
    UNIT_TEST(values_of_connack)
    UNIT_TEST(values_of_others)
    UNIT_TEST(walk)
    UNIT_TEST(put)
    UNIT_TEST(longest_string)
UNIT_TESTS_END
