/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/frame.h"
#include "server/codec/publish.h"
#include "tests/unit/codec/hex.h"

#define CLIENT false
#define SERVER true

static const struct {
    const char *body;
    uint8_t flags;
    enum mqtt_version v;
    bool from_server;
    enum dec_rc rc;
    const char *topic;
    const char *payload;
} packets[] = {
    {"0003 'a/b' 'hello'", 0, MQTT_3_1_1, CLIENT, DEC_OK, "'a/b'", "'hello'"},
    {"0003 'a/b'", 0, MQTT_3_1_1, CLIENT, DEC_OK, "'a/b'", ""},
    {"0003 'a/b' 0001 'hello'", 2, MQTT_3_1_1, CLIENT, DEC_OK, "'a/b'", "'hello'"},
    {"0003 'a/b' 0001 'hello'", 4, MQTT_3_1, CLIENT, DEC_OK, "'a/b'", "'hello'"},
    {"0003 'a/b' 0001", 0xa, MQTT_3_1_1, CLIENT, DEC_OK, "'a/b'", ""},
    {"0003 'a/b' 0001", 0xd, MQTT_5, CLIENT, DEC_MALFORMED, "'a/b'", ""}, /* no property length */
    {"0003 'a/b' 0001 00", 0xd, MQTT_5, CLIENT, DEC_OK, "'a/b'", ""},
    {"0003 'a/b' 00 0000", 1, MQTT_5, CLIENT, DEC_OK, "'a/b'", "0000"},
    {"0001 ' ' 'x'", 0, MQTT_3_1_1, CLIENT, DEC_OK, "' '", "'x'"},
    {"0001 '/' 'x'", 0, MQTT_3_1_1, CLIENT, DEC_OK, "'/'", "'x'"},
    {"0004 '$SYS' 'x'", 0, MQTT_3_1_1, CLIENT, DEC_OK, "'$SYS'", "'x'"},
    /* flags: QoS 3 [MQTT-3.3.1-4], DUP with QoS 0 [MQTT-3.3.1-2] */
    {"0001 'a' 0001", 6, MQTT_3_1, CLIENT, DEC_MALFORMED, "", ""},
    {"0001 'a' 0001", 7, MQTT_3_1_1, CLIENT, DEC_MALFORMED, "", ""},
    {"0001 'a' 0001 00", 0xe, MQTT_5, CLIENT, DEC_MALFORMED, "", ""},
    {"0001 'a'", 8, MQTT_3_1_1, CLIENT, DEC_MALFORMED, "", ""},
    {"0001 'a' 00", 9, MQTT_5, CLIENT, DEC_MALFORMED, "", ""},
    {"0001 'a'", 8, MQTT_3_1, CLIENT, DEC_OK, "'a'", ""},
    /* packet identifier */
    {"0001 'a' 0000", 2, MQTT_3_1_1, CLIENT, DEC_PROTOCOL, "'a'", ""},
    {"0001 'a' 0000 00", 4, MQTT_5, CLIENT, DEC_PROTOCOL, "'a'", ""},
    {"0001 'a' ffff 00", 4, MQTT_5, CLIENT, DEC_OK, "'a'", ""},
    {"0001 'a' 01", 2, MQTT_3_1_1, CLIENT, DEC_MALFORMED, "'a'", ""},
    /* topic */
    {"", 0, MQTT_3_1_1, CLIENT, DEC_MALFORMED, "", ""},
    {"00", 0, MQTT_3_1_1, CLIENT, DEC_MALFORMED, "", ""},
    {"0002 'a'", 0, MQTT_3_1_1, CLIENT, DEC_MALFORMED, "", ""},
    {"0000", 0, MQTT_3_1, CLIENT, DEC_TOPIC_NAME, "", ""},
    {"0000 'x'", 0, MQTT_3_1_1, CLIENT, DEC_TOPIC_NAME, "", ""},
    {"0000 00 'x'", 0, MQTT_5, CLIENT, DEC_PROTOCOL, "", ""},
    {"0000 03 23 0001 'x'", 0, MQTT_5, CLIENT, DEC_OK, "", "'x'"},
    {"0001 'a' 03 23 0001 'x'", 0, MQTT_5, CLIENT, DEC_OK, "'a'", "'x'"},
    {"0000 03 23 0000 'x'", 0, MQTT_5, CLIENT, DEC_OK, "",
     "'x'"}, /* alias 0: the shard's to refuse */
    {"0003 'a/+'", 0, MQTT_3_1_1, CLIENT, DEC_TOPIC_NAME, "'a/+'", ""},
    {"0003 'a/#' 00", 0, MQTT_5, CLIENT, DEC_TOPIC_NAME, "'a/#'", ""},
    {"000a 'abcdefgh+i' 00", 0, MQTT_5, CLIENT, DEC_TOPIC_NAME, "'abcdefgh+i'", ""},
    {"0003 'a' 00 'b'", 0, MQTT_3_1_1, CLIENT, DEC_MALFORMED, "'a' 00 'b'", ""},
    {"0003 eda080", 0, MQTT_3_1_1, CLIENT, DEC_MALFORMED, "eda080", ""},
    {"0002 c080 00", 0, MQTT_5, CLIENT, DEC_MALFORMED, "c080", ""},
    {"0002 '+' ff", 0, MQTT_3_1_1, CLIENT, DEC_MALFORMED, "'+' ff", ""},
    /* properties */
    {"0001 'a' 02 01 01 'x'", 0, MQTT_5, CLIENT, DEC_OK, "'a'", "'x'"},
    {"0001 'a' 02 01 02 'x'", 0, MQTT_5, CLIENT, DEC_PROTOCOL, "'a'", ""},
    {"0001 'a' 05 08 0002 'r+' 'x'", 0, MQTT_5, CLIENT, DEC_TOPIC_NAME, "'a'", ""},
    {"0001 'a' 05 11 00000001", 0, MQTT_5, CLIENT, DEC_MALFORMED, "'a'", ""},
    {"0001 'a' 05 01", 0, MQTT_5, CLIENT, DEC_MALFORMED, "'a'", ""},
    /* subscription identifiers come from servers only [MQTT-3.3.4-6] */
    {"0001 'a' 02 0b 01", 0, MQTT_5, CLIENT, DEC_PROTOCOL, "'a'", ""},
    {"0001 'a' 02 0b 01", 0, MQTT_5, SERVER, DEC_OK, "'a'", ""},
    {"0001 'a' 04 0b 01 0b 02", 0, MQTT_5, SERVER, DEC_OK, "'a'", ""},
    {"0001 'a' 02 0b 00", 0, MQTT_5, SERVER, DEC_PROTOCOL, "'a'", ""},
    {"0003 'a/+' 00", 0, MQTT_5, SERVER, DEC_TOPIC_NAME, "'a/+'", ""},
};

static void test_decode(void)
{
    for (size_t i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
        const char *row = packets[i].body;
        struct bytes body = bytes_of(row);
        const char *why = NULL;
        struct publish m;
        const enum dec_rc rc = publish_decode(&m, bytes_span(body), packets[i].flags, packets[i].v,
                                              packets[i].from_server, &why);

        CHECK(row, rc == packets[i].rc);
        CHECK(row, (why == NULL) == (rc == DEC_OK));
        CHECK(row, bytes_are(m.topic, packets[i].topic));
        CHECK(row, bytes_are(m.payload, packets[i].payload));
        CHECK(row, m.qos == (packets[i].flags >> 1 & 3));
        CHECK(row, m.retain == ((packets[i].flags & 1) != 0));
        CHECK(row, rc != DEC_OK || m.dup == ((packets[i].flags & 8) != 0 && m.qos > 0));
        CHECK(row, rc != DEC_OK || (m.packet_id != 0) == (m.qos > 0));
        CHECK(row, span_within(m.topic, bytes_span(body)));
        CHECK(row, span_within(m.payload, bytes_span(body)));
        bytes_free(&body);
    }
}

static void test_fields(void)
{
    struct bytes body =
        bytes_of("0003 'a/b' 1234 11 02 0000003c 09 0002 0001 26 0001 'k' 0001 'v' 'x'");
    const char *why = NULL;
    struct publish m;

    CU_ASSERT_EQUAL(publish_decode(&m, bytes_span(body), 0xb, MQTT_5, CLIENT, &why), DEC_OK);
    CU_ASSERT_EQUAL(m.packet_id, 0x1234);
    CU_ASSERT_EQUAL(m.qos, 1);
    CU_ASSERT_TRUE(m.dup);
    CU_ASSERT_TRUE(m.retain);
    CU_ASSERT_EQUAL(m.props.message_expiry_s, 60);
    CU_ASSERT_TRUE(bytes_are(m.props.correlation_data, "0001"));
    CU_ASSERT_EQUAL(m.props.raw.n, 17);
    CU_ASSERT_TRUE(bytes_are(m.payload, "'x'"));
    bytes_free(&body);
}

static enum dec_rc decode_qos0(struct span body, enum mqtt_version v, const char **why)
{
    struct publish m;

    return publish_decode(&m, body, 0, v, CLIENT, why);
}

static enum dec_rc decode_qos1(struct span body, enum mqtt_version v, const char **why)
{
    struct publish m;

    return publish_decode(&m, body, 2, v, CLIENT, why);
}

/* Cut within the payload, or at its start, a PUBLISH is still one. */
static void test_prefixes(void)
{
    static const size_t payload5[] = {5, 6, SIZE_MAX};
    static const size_t payload7[] = {7, 8, SIZE_MAX};
    static const size_t payload15[] = {15, SIZE_MAX};

    check_prefixes("0003 'a/b' 'xy'", MQTT_3_1_1, decode_qos0, payload5);
    check_prefixes("0003 'a/b' 0001 'xy'", MQTT_3_1_1, decode_qos1, payload7);
    check_prefixes("0003 'a/b' 0001 07 26 0001 'k' 0001 'v' 'x'", MQTT_5, decode_qos1, payload15);
}

static const struct {
    enum mqtt_version v;
    uint8_t qos;
    bool dup;
    bool retain;
    const char *props;
    const char *hex;
    size_t packet_id_at;
} encoded[] = {
    {MQTT_3_1, 0, false, false, "", "3008 0003 'a/b' 'xyz'", 0},
    {MQTT_3_1_1, 0, false, true, "", "3108 0003 'a/b' 'xyz'", 0},
    {MQTT_3_1_1, 1, false, false, "", "320a 0003 'a/b' 1234 'xyz'", 7},
    {MQTT_3_1_1, 2, true, true, "", "3d0a 0003 'a/b' 1234 'xyz'", 7},
    {MQTT_3_1_1, 1, false, false, "01 01", "320a 0003 'a/b' 1234 'xyz'", 7},
    {MQTT_5, 0, false, false, "", "3009 0003 'a/b' 00 'xyz'", 0},
    {MQTT_5, 1, true, false, "", "3a0b 0003 'a/b' 1234 00 'xyz'", 7},
    {MQTT_5, 2, false, false, "01 01", "340d 0003 'a/b' 1234 02 01 01 'xyz'", 7},
};

static void test_encode(void)
{
    for (size_t i = 0; i < sizeof(encoded) / sizeof(encoded[0]); i++) {
        const char *row = encoded[i].hex;
        struct bytes props = bytes_of(encoded[i].props);
        const struct publish m = {.topic = span_str("a/b"),
                                  .payload = span_str("xyz"),
                                  .packet_id = 0x1234,
                                  .qos = encoded[i].qos,
                                  .dup = encoded[i].dup,
                                  .retain = encoded[i].retain};
        const size_t n = publish_size(encoded[i].v, m.qos, 3, props.n, 3);
        struct bytes room = bytes_fill(n, 0);
        size_t at = 99;
        const size_t head = publish_encode_head(room.p, &m, bytes_span(props), encoded[i].v, &at);

        CHECK(row, head == n - 3);
        CHECK(row, at == encoded[i].packet_id_at);
        memcpy(room.p + head, "xyz", 3);
        CHECK(row, bytes_are(bytes_span(room), row));
        bytes_free(&room);
        bytes_free(&props);
    }
}

static void check_same(const struct publish *a, const struct publish *b, bool v5)
{
    CU_ASSERT_TRUE(span_eq(a->topic, b->topic));
    CU_ASSERT_TRUE(span_eq(a->payload, b->payload));
    CU_ASSERT_EQUAL(a->qos, b->qos);
    CU_ASSERT_EQUAL(a->dup, b->dup);
    CU_ASSERT_EQUAL(a->retain, b->retain);
    CU_ASSERT_EQUAL(a->qos > 0 ? a->packet_id : 0, b->packet_id);
    CU_ASSERT_TRUE(!v5 || span_eq(a->props.raw, b->props.raw));
}

/* Head and payload together, framed, decoded: the same message, whatever version, flags and size.
 */
static void round_trip(const struct publish *m, enum mqtt_version v)
{
    const size_t n = publish_size(v, m->qos, m->topic.n, m->props.raw.n, m->payload.n);
    struct bytes room = bytes_copy(NULL, n);
    const char *why = NULL;
    struct publish got;
    struct frame f;
    size_t at;
    const size_t head = publish_encode_head(room.p, m, m->props.raw, v, &at);

    CU_ASSERT_EQUAL(head + m->payload.n, n);
    memcpy(room.p + head, m->payload.p, m->payload.n);
    CU_ASSERT_EQUAL(frame_next(bytes_span(room), n, &f, &why), FRAME_OK);
    CU_ASSERT_EQUAL(f.total, n);
    CU_ASSERT_EQUAL(publish_decode(&got, f.body, f.flags, v, CLIENT, &why), DEC_OK);
    check_same(m, &got, v == MQTT_5);
    CU_ASSERT_TRUE(m->qos == 0 || (room.p[at] << 8 | room.p[at + 1]) == m->packet_id);
    bytes_free(&room);
}

static void test_round_trips(void)
{
    static const size_t sizes[] = {0,     1,     114,   115,     116,     127,     128,    129,
                                   16360, 16383, 16384, 2097130, 2097151, 2097152, 2097160};
    struct bytes props = bytes_of("26 0001 'k' 0001 'v' 02 00000001");
    struct bytes payload = bytes_fill(2097160, 'p');
    struct publish m = {.topic = span_str("some/topic"), .packet_id = 0xfffe};

    for (enum mqtt_version v = MQTT_3_1; v <= MQTT_5; v++) {
        for (unsigned flags = 0; flags < 12; flags++) {
            for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                m.qos = (uint8_t)(flags >> 2);
                m.dup = m.qos > 0 && (flags & 1) != 0;
                m.retain = (flags & 2) != 0;
                m.payload = span_of(payload.p, sizes[i]);
                m.props.raw = i % 2 == 0 ? bytes_span(props) : SPAN_NULL;
                round_trip(&m, v);
            }
        }
    }
    bytes_free(&payload);
    bytes_free(&props);
}

static void test_longest_topic(void)
{
    struct bytes topic = bytes_fill(65535, 't');
    struct publish m = {
        .topic = bytes_span(topic), .payload = span_str("x"), .qos = 1, .packet_id = 1};

    round_trip(&m, MQTT_3_1_1);
    round_trip(&m, MQTT_5);
    bytes_free(&topic);
}

/* Remaining lengths around each change of size of the fixed header; and more than a packet holds.
 */
static void test_size(void)
{
    CU_ASSERT_EQUAL(publish_size(MQTT_3_1_1, 0, 3, 0, 0), 2 + 5);
    CU_ASSERT_EQUAL(publish_size(MQTT_3_1_1, 0, 3, 0, 122), 2 + 127);
    CU_ASSERT_EQUAL(publish_size(MQTT_3_1_1, 0, 3, 0, 123), 3 + 128);
    CU_ASSERT_EQUAL(publish_size(MQTT_3_1_1, 1, 3, 0, 121), 3 + 128);
    CU_ASSERT_EQUAL(publish_size(MQTT_5, 0, 3, 0, 121), 2 + 127);
    CU_ASSERT_EQUAL(publish_size(MQTT_5, 0, 3, 127, 0), 3 + 133);
    CU_ASSERT_EQUAL(publish_size(MQTT_5, 0, 3, 128, 0), 3 + 135);
    CU_ASSERT_EQUAL(publish_size(MQTT_3_1_1, 0, 3, 0, 16378), 3 + 16383);
    CU_ASSERT_EQUAL(publish_size(MQTT_3_1_1, 0, 3, 0, 16379), 4 + 16384);
    CU_ASSERT_EQUAL(publish_size(MQTT_3_1_1, 0, 3, 0, 2097146), 4 + 2097151);
    CU_ASSERT_EQUAL(publish_size(MQTT_3_1_1, 0, 3, 0, 2097147), 5 + 2097152);
    CU_ASSERT_EQUAL(publish_size(MQTT_3_1_1, 0, 3, 0, 268435450), 5 + 268435455);
    CU_ASSERT_EQUAL(publish_size(MQTT_3_1_1, 0, 3, 0, 268435451), SIZE_MAX);
    CU_ASSERT_EQUAL(publish_size(MQTT_5, 0, 3, 0, 268435450), SIZE_MAX);
}

/* Only an equal topic is taken without a look; every other one is judged as ever. */
static void test_known_topic(void)
{
    const struct span known = span_str("a/b");
    struct bytes body;
    struct publish m;
    const char *why;

    for (size_t i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
        enum dec_rc rc;

        if (packets[i].from_server) {
            continue;
        }
        body = bytes_of(packets[i].body);
        rc =
            publish_decode_known(&m, bytes_span(body), packets[i].flags, packets[i].v, known, &why);
        CU_ASSERT_EQUAL(rc, packets[i].rc);
        CU_ASSERT_EQUAL(m.topic_known, m.topic.n == 3 && memcmp(m.topic.p, "a/b", 3) == 0);
        bytes_free(&body);
    }
    body = bytes_of("0003 'a/+'"); /* whoever says that it is valid is believed */
    CU_ASSERT_EQUAL(
        publish_decode_known(&m, bytes_span(body), 0, MQTT_3_1_1, span_str("a/+"), &why), DEC_OK);
    CU_ASSERT_TRUE(m.topic_known);
    CU_ASSERT_EQUAL(publish_decode(&m, bytes_span(body), 0, MQTT_3_1_1, CLIENT, &why),
                    DEC_TOPIC_NAME);
    CU_ASSERT_FALSE(m.topic_known);
    bytes_free(&body);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(decode)
    UNIT_TEST(known_topic)
    UNIT_TEST(fields)
    UNIT_TEST(prefixes)
    UNIT_TEST(encode)
    UNIT_TEST(round_trips)
    UNIT_TEST(longest_topic)
    UNIT_TEST(size)
UNIT_TESTS_END
