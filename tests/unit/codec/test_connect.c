/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/connect.h"
#include "server/codec/frame.h"
#include "tests/unit/codec/hex.h"

#define HEAD4 "0004 'MQTT' 04 "
#define HEAD5 "0004 'MQTT' 05 "
#define HEAD3 "0006 'MQIsdp' 03 "

static const struct {
    const char *body;
    enum dec_rc rc;
    unsigned version; /* 0: not known */
} connects[] = {
    {HEAD4 "02 003c 0003 'abc'", DEC_OK, 4},
    {HEAD3 "02 003c 0003 'abc'", DEC_OK, 3},
    {HEAD5 "02 003c 00 0003 'abc'", DEC_OK, 5},
    {HEAD4 "00 0000 0000", DEC_OK, 4}, /* whether an empty id will do is not a question of form */
    {"0004 'MQTT' 84 02 003c 0003 'abc'", DEC_OK, 4},
    {"0006 'MQIsdp' 83 02 003c 0003 'abc'", DEC_OK, 3},
    /* protocol name and level */
    {"0004 'MQTT' 85 02 003c 00 0003 'abc'", DEC_UNSUPPORTED_VERSION, 4},
    {"0004 'MQTT' 03 02 003c 0003 'abc'", DEC_UNSUPPORTED_VERSION, 4},
    {"0004 'MQTT' 83 02 003c 0003 'abc'", DEC_UNSUPPORTED_VERSION, 4},
    {"0004 'MQTT' 06 02 003c 0003 'abc'", DEC_UNSUPPORTED_VERSION, 4},
    {"0004 'MQTT' 00", DEC_UNSUPPORTED_VERSION, 4},
    {"0004 'MQTT' 80", DEC_UNSUPPORTED_VERSION, 4},
    {"0004 'MQTT' ff", DEC_UNSUPPORTED_VERSION, 4},
    {"0006 'MQIsdp' 04 02 003c 0003 'abc'", DEC_UNSUPPORTED_VERSION, 3},
    {"0006 'MQIsdp' 84 02 003c 0003 'abc'", DEC_UNSUPPORTED_VERSION, 3},
    {"0004 'mqtt' 04 02 003c 0003 'abc'", DEC_BAD_PROTOCOL_NAME, 0},
    {"0006 'MQISDP' 03 02 003c 0003 'abc'", DEC_BAD_PROTOCOL_NAME, 0},
    {"0005 'MQTT2' 04 02 003c 0003 'abc'", DEC_BAD_PROTOCOL_NAME, 0},
    {"0003 'MQT' 04", DEC_BAD_PROTOCOL_NAME, 0},
    {"0000 04", DEC_BAD_PROTOCOL_NAME, 0},
    {"0004 'MQT'", DEC_MALFORMED, 0},
    {"", DEC_MALFORMED, 0},
    /* connect flags */
    {HEAD4 "03 003c 0003 'abc'", DEC_MALFORMED, 4},
    {HEAD5 "03 003c 00 0003 'abc'", DEC_MALFORMED, 5},
    {HEAD3 "03 003c 0003 'abc'", DEC_OK, 3},
    {HEAD4 "1e 003c 0003 'abc' 0001 'w' 0000", DEC_MALFORMED, 4},
    {HEAD3 "1e 003c 0003 'abc' 0001 'w' 0000", DEC_MALFORMED, 3},
    {HEAD5 "1a 003c 00 0003 'abc'", DEC_MALFORMED, 5},
    {HEAD4 "0a 003c 0003 'abc'", DEC_PROTOCOL, 4},
    {HEAD4 "12 003c 0003 'abc'", DEC_PROTOCOL, 4},
    {HEAD4 "22 003c 0003 'abc'", DEC_PROTOCOL, 4},
    {HEAD5 "22 003c 00 0003 'abc'", DEC_PROTOCOL, 5},
    {HEAD3 "42 003c 0003 'abc' 0001 'p'", DEC_PROTOCOL, 3},
    {HEAD4 "42 003c 0003 'abc' 0001 'p'", DEC_PROTOCOL, 4},
    {HEAD5 "42 003c 00 0003 'abc' 0001 'p'", DEC_OK, 5},
    /* client id */
    {HEAD4 "02 003c 0003 'a' 00 'c'", DEC_MALFORMED, 4},
    {HEAD4 "02 003c 0003 eda080", DEC_MALFORMED, 4},
    {HEAD4 "02 003c 0002 c3a4", DEC_OK, 4},
    /* will */
    {HEAD4 "06 003c 0001 'c' 0003 'w/t' 0002 'hi'", DEC_OK, 4},
    {HEAD4 "06 003c 0001 'c' 0003 'w/t' 0002 00ff", DEC_OK, 4},
    {HEAD4 "06 003c 0001 'c' 0003 'w/t' 0000", DEC_OK, 4},
    {HEAD4 "06 003c 0001 'c' 0000 0002 'hi'", DEC_TOPIC_NAME, 4},
    {HEAD4 "06 003c 0001 'c' 0003 'w/+' 0002 'hi'", DEC_TOPIC_NAME, 4},
    {HEAD5 "06 003c 00 0001 'c' 00 0003 'w/#' 0002 'hi'", DEC_TOPIC_NAME, 5},
    {HEAD5 "06 003c 00 0001 'c' 00 0001 00 0002 'hi'", DEC_MALFORMED, 5},
    {HEAD4 "06 003c 0001 'c' 0001 ff 0002 'hi'", DEC_MALFORMED, 4},
    {HEAD5 "06 003c 00 0001 'c' 05 18 0000000a 0001 'w' 0000", DEC_OK, 5},
    {HEAD5 "06 003c 00 0001 'c' 0a 18 0000000a 18 0000000a 0001 'w' 0000", DEC_PROTOCOL, 5},
    {HEAD5 "06 003c 00 0001 'c' 03 23 0001 0001 'w' 0000", DEC_MALFORMED, 5},
    {HEAD5 "06 003c 00 0001 'c' 04 08 0001 '#' 0001 'w' 0000", DEC_TOPIC_NAME, 5},
    /* user name and password */
    {HEAD4 "c2 003c 0001 'c' 0004 'user' 0002 00ff", DEC_OK, 4},
    {HEAD4 "82 003c 0001 'c' 0004 'user'", DEC_OK, 4},
    {HEAD4 "82 003c 0001 'c' 0000", DEC_OK, 4},
    {HEAD4 "82 003c 0001 'c' 0001 ff", DEC_MALFORMED, 4},
    {HEAD4 "82 003c 0001 'c' 0001 00", DEC_MALFORMED, 4},
    {HEAD4 "82 003c 0001 'c'", DEC_MALFORMED, 4},
    {HEAD4 "c2 003c 0001 'c' 0001 'u'", DEC_MALFORMED, 4},
    {HEAD3 "82 003c 0001 'c'", DEC_OK, 3}, /* announced and missing: valid in 3.1 */
    {HEAD3 "c2 003c 0001 'c' 0001 'u'", DEC_OK, 3},
    {HEAD3 "c2 003c 0001 'c' 0001 'u' 0002 'p'", DEC_MALFORMED, 3},
    {HEAD3 "82 003c 0001 'c' 00", DEC_MALFORMED, 3},
    /* something behind the end */
    {HEAD4 "02 003c 0003 'abc' 00", DEC_MALFORMED, 4},
    {HEAD3 "02 003c 0003 'abc' 00", DEC_MALFORMED, 3},
    {HEAD5 "02 003c 00 0003 'abc' 0001 'u'", DEC_MALFORMED, 5},
    /* properties */
    {HEAD5 "02 003c 05 11 0000000a 0001 'c'", DEC_OK, 5},
    {HEAD5 "02 003c 03 21 0000 0001 'c'", DEC_PROTOCOL, 5},
    {HEAD5 "02 003c 05 27 00000000 0001 'c'", DEC_PROTOCOL, 5},
    {HEAD5 "02 003c 02 17 02 0001 'c'", DEC_PROTOCOL, 5},
    {HEAD5 "02 003c 06 21 0001 21 0001 0001 'c'", DEC_PROTOCOL, 5},
    {HEAD5 "02 003c 04 16 0001 'd' 0001 'c'", DEC_PROTOCOL, 5},
    {HEAD5 "02 003c 08 15 0001 'm' 16 0001 'd' 0001 'c'", DEC_OK, 5},
    {HEAD5 "02 003c 02 24 01 0001 'c'", DEC_MALFORMED, 5},
    {HEAD5 "02 003c 7f 0001 'c'", DEC_MALFORMED, 5},
};

static void test_connect_decode(void)
{
    for (size_t i = 0; i < sizeof(connects) / sizeof(connects[0]); i++) {
        const char *row = connects[i].body;
        struct bytes body = bytes_of(row);
        const char *why = NULL;
        struct connect c;

        CHECK(row, connect_decode(&c, bytes_span(body), &why) == connects[i].rc);
        CHECK(row, (unsigned)c.version == connects[i].version);
        CHECK(row, (why == NULL) == (connects[i].rc == DEC_OK));
        bytes_free(&body);
    }
}

static void test_connect_fields(void)
{
    struct bytes body = bytes_of(HEAD5 "ee 1234 06 22 000a 21 0005 0003 'abc' 05 18 0000000a "
                                       "0003 'w/t' 0002 'hi' 0004 'user' 0002 00ff");
    const char *why = NULL;
    struct connect c;

    CU_ASSERT_EQUAL(connect_decode(&c, bytes_span(body), &why), DEC_OK);
    CU_ASSERT_EQUAL(c.version, MQTT_5);
    CU_ASSERT_FALSE(c.bridge);
    CU_ASSERT_TRUE(c.clean && c.has_will && c.has_username && c.has_password);
    CU_ASSERT_EQUAL(c.keep_alive_s, 0x1234);
    CU_ASSERT_EQUAL(c.props.topic_alias_maximum, 10);
    CU_ASSERT_EQUAL(c.props.receive_maximum, 5);
    CU_ASSERT_TRUE(bytes_are(c.client_id, "'abc'"));
    CU_ASSERT_EQUAL(c.will.qos, 1);
    CU_ASSERT_TRUE(c.will.retain);
    CU_ASSERT_EQUAL(c.will.props.will_delay_s, 10);
    CU_ASSERT_TRUE(bytes_are(c.will.topic, "'w/t'"));
    CU_ASSERT_TRUE(bytes_are(c.will.payload, "'hi'"));
    CU_ASSERT_TRUE(bytes_are(c.username, "'user'"));
    CU_ASSERT_TRUE(bytes_are(c.password, "00ff"));
    bytes_free(&body);
}

/* 3.1: what was announced and is not there was not announced. */
static void test_missing_login_31(void)
{
    struct bytes none = bytes_of(HEAD3 "c2 003c 0001 'c'");
    struct bytes user = bytes_of(HEAD3 "c2 003c 0001 'c' 0001 'u'");
    const char *why = NULL;
    struct connect c;

    CU_ASSERT_EQUAL(connect_decode(&c, bytes_span(none), &why), DEC_OK);
    CU_ASSERT_FALSE(c.has_username);
    CU_ASSERT_FALSE(c.has_password);
    CU_ASSERT_EQUAL(connect_decode(&c, bytes_span(user), &why), DEC_OK);
    CU_ASSERT_TRUE(c.has_username);
    CU_ASSERT_FALSE(c.has_password);
    CU_ASSERT_TRUE(bytes_are(c.username, "'u'"));
    bytes_free(&none);
    bytes_free(&user);
}

static void test_bridge(void)
{
    struct bytes plain = bytes_of(HEAD4 "02 003c 0001 'c'");
    struct bytes bridge = bytes_of("0004 'MQTT' 84 02 003c 0001 'c'");
    const char *why = NULL;
    struct connect c;

    CU_ASSERT_EQUAL(connect_decode(&c, bytes_span(bridge), &why), DEC_OK);
    CU_ASSERT_TRUE(c.bridge);
    CU_ASSERT_EQUAL(connect_decode(&c, bytes_span(plain), &why), DEC_OK);
    CU_ASSERT_FALSE(c.bridge);
    bytes_free(&plain);
    bytes_free(&bridge);
}

static enum dec_rc decode_connect(struct span body, enum mqtt_version v, const char **why)
{
    struct connect c;

    (void)v;
    return connect_decode(&c, body, why);
}

static void test_connect_prefixes(void)
{
    static const size_t login_31[] = {25, 28, SIZE_MAX}; /* before user name and password */

    check_prefixes(HEAD4 "c6 003c 0003 'abc' 0003 'w/t' 0002 'hi' 0001 'u' 0001 'p'", MQTT_3_1_1,
                   decode_connect, no_prefix);
    check_prefixes(HEAD3 "c6 003c 0001 'c' 0003 'w/t' 0003 'msg' 0001 'u' 0001 'p'", MQTT_3_1,
                   decode_connect, login_31);
    check_prefixes(HEAD5 "c6 003c 0c 21 0005 26 0002 'k1' 0002 'v1' 0001 'c' 05 18 00000001 "
                         "0003 'w/t' 0002 'hi' 0001 'u' 0001 'p'",
                   MQTT_5, decode_connect, no_prefix);
}

static size_t encode_connect(uint8_t *p, size_t cap, const void *what)
{
    return connect_encode(p, cap, what);
}

static void test_connect_encode(void)
{
    struct connect c = {.version = MQTT_3_1_1, .keep_alive_s = 60, .client_id = span_str("abc")};
    struct bytes props = bytes_of("21 0005");
    struct bytes will_props = bytes_of("18 0000000a");

    check_encode("100f 0004 'MQTT' 04 00 003c 0003 'abc'", encode_connect, &c);
    c.clean = true;
    c.bridge = true;
    check_encode("100f 0004 'MQTT' 84 02 003c 0003 'abc'", encode_connect, &c);
    c.version = MQTT_3_1;
    check_encode("1011 0006 'MQIsdp' 83 02 003c 0003 'abc'", encode_connect, &c);
    c.bridge = false;
    c.version = MQTT_5;
    check_encode("1010 0004 'MQTT' 05 02 003c 00 0003 'abc'", encode_connect, &c);
    c.props.raw = bytes_span(props);
    c.has_will = c.has_username = c.has_password = true;
    c.will = (struct connect_will){.topic = span_str("w"),
                                   .payload = span_str("hi"),
                                   .qos = 2,
                                   .retain = true,
                                   .props.raw = bytes_span(will_props)};
    c.username = span_str("u");
    c.password = span_str("pw");
    check_encode("1027 0004 'MQTT' 05 f6 003c 03 21 0005 0003 'abc' 05 18 0000000a 0001 'w' "
                 "0002 'hi' 0001 'u' 0002 'pw'",
                 encode_connect, &c);
    bytes_free(&props);
    bytes_free(&will_props);
}

/* Strings of the greatest length go; one byte more is refused, whatever the room. */
static void test_connect_encode_limits(void)
{
    struct bytes longest = bytes_fill(65536, 'x');
    struct bytes room = bytes_fill(6 * 65536, 0);
    struct connect c = {
        .version = MQTT_5, .has_will = true, .has_username = true, .has_password = true};
    struct span *const strings[] = {&c.client_id, &c.will.topic, &c.will.payload, &c.username,
                                    &c.password};
    const char *why = NULL;
    struct connect got;
    struct frame f;
    size_t n;

    for (size_t i = 0; i < 5; i++) {
        *strings[i] = span_of(longest.p, 65535);
    }
    n = connect_encode(room.p, room.n, &c);
    CU_ASSERT_EQUAL(n, 4 + 12 + 5 * 65537);
    CU_ASSERT_EQUAL(frame_next(span_of(room.p, n), n, &f, &why), FRAME_OK);
    CU_ASSERT_EQUAL(connect_decode(&got, f.body, &why), DEC_OK);
    for (size_t i = 0; i < 5; i++) {
        strings[i]->n = 65536;
        CU_ASSERT_EQUAL(connect_encode(room.p, room.n, &c), 0);
        strings[i]->n = 65535;
    }
    bytes_free(&longest);
    bytes_free(&room);
}

/* Every combination of flags, in each version: encoded, framed and decoded it is the same. */
static void test_connect_round_trips(void)
{
    struct bytes room = bytes_fill(256, 0);

    for (unsigned i = 0; i < 3 * 192; i++) {
        const struct connect c = {
            .version = (enum mqtt_version)(3 + i / 192),
            .bridge = i / 192 < 2 && (i & 1) != 0,
            .clean = (i & 2) != 0,
            .has_will = (i & 4) != 0,
            .has_username = (i & 8) != 0,
            .has_password = (i & 24) == 24,
            .keep_alive_s = (uint16_t)(i * 101),
            .client_id = span_str("id"),
            .username = span_str((i & 8) != 0 ? "name" : ""),
            .password = span_str((i & 24) == 24 ? "pass" : ""),
            .will = {.topic = span_str((i & 4) != 0 ? "w" : ""),
                     .payload = span_str((i & 4) != 0 ? "payload" : ""),
                     .qos = (i & 4) != 0 ? (uint8_t)(i % 192 / 64) : 0,
                     .retain = (i & 36) == 36},
        };
        const size_t n = connect_encode(room.p, room.n, &c);
        const char *why = NULL;
        struct connect got;
        struct frame f;

        CU_ASSERT_EQUAL(frame_next(span_of(room.p, n), n, &f, &why), FRAME_OK);
        CU_ASSERT_EQUAL(f.type, MQTT_CONNECT);
        CU_ASSERT_EQUAL(connect_decode(&got, f.body, &why), DEC_OK);
        CU_ASSERT_EQUAL(got.version, c.version);
        CU_ASSERT_TRUE(got.bridge == c.bridge && got.clean == c.clean);
        CU_ASSERT_TRUE(got.has_will == c.has_will && got.will.retain == c.will.retain);
        CU_ASSERT_TRUE(got.has_username == c.has_username && got.has_password == c.has_password);
        CU_ASSERT_TRUE(got.will.qos == c.will.qos && got.keep_alive_s == c.keep_alive_s);
        CU_ASSERT_TRUE(span_eq(got.client_id, c.client_id) && span_eq(got.username, c.username));
        CU_ASSERT_TRUE(span_eq(got.will.topic, c.will.topic));
        CU_ASSERT_TRUE(span_eq(got.will.payload, c.will.payload));
        CU_ASSERT_TRUE(span_eq(got.password, c.password));
    }
    bytes_free(&room);
}

/* A type of answer that has a reason code and properties. */
struct answer {
    uint8_t reason;
    bool session_present;
    struct span props;
};

static size_t encode_connack3(uint8_t *p, size_t cap, const void *what)
{
    const struct answer *a = what;

    return connack3_encode(p, cap, a->session_present, (enum mqtt3_connack)a->reason);
}

static size_t encode_connack5(uint8_t *p, size_t cap, const void *what)
{
    const struct answer *a = what;

    return connack5_encode(p, cap, a->session_present, (enum mqtt_reason)a->reason, a->props);
}

static size_t encode_disconnect(uint8_t *p, size_t cap, const void *what)
{
    const struct answer *a = what;

    return disconnect5_encode(p, cap, (enum mqtt_reason)a->reason, a->props);
}

static size_t encode_auth(uint8_t *p, size_t cap, const void *what)
{
    const struct answer *a = what;

    return auth_encode(p, cap, (enum mqtt_reason)a->reason, a->props);
}

static void test_answers_encode(void)
{
    struct bytes props = bytes_of("1f 0002 'no'");
    const struct span s = bytes_span(props);
    const struct {
        encode_fn encode;
        const char *hex;
        struct answer answer;
    } rows[] = {
        {encode_connack3, "2002 00 00", {0, false, s}},
        {encode_connack3, "2002 01 00", {0, true, s}},
        {encode_connack3, "2002 00 05", {5, true, s}}, /* no session in a refusal */
        {encode_connack5, "2003 00 00 00", {0, false, SPAN_NULL}},
        {encode_connack5, "2003 01 00 00", {0, true, SPAN_NULL}},
        {encode_connack5, "2003 00 87 00", {0x87, true, SPAN_NULL}},
        {encode_connack5, "2008 00 87 05 1f 0002 'no'", {0x87, false, s}},
        {encode_disconnect, "e000", {0, false, SPAN_NULL}},
        {encode_disconnect, "e001 8e", {0x8e, false, SPAN_NULL}},
        {encode_disconnect, "e007 00 05 1f 0002 'no'", {0, false, s}},
        {encode_disconnect, "e007 82 05 1f 0002 'no'", {0x82, false, s}},
        {encode_auth, "f000", {0, false, SPAN_NULL}},
        {encode_auth, "f002 18 00", {0x18, false, SPAN_NULL}},
        {encode_auth, "f007 18 05 1f 0002 'no'", {0x18, false, s}},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        check_encode(rows[i].hex, rows[i].encode, &rows[i].answer);
    }
    bytes_free(&props);
}

static const struct {
    const char *body;
    enum mqtt_version v;
    enum dec_rc rc;
} connacks[] = {
    {"00 00", MQTT_3_1, DEC_OK},
    {"01 00", MQTT_3_1, DEC_OK}, /* the byte is reserved there, not 0 */
    {"ff 00", MQTT_3_1, DEC_OK},
    {"01 00", MQTT_3_1_1, DEC_OK},
    {"00 05", MQTT_3_1_1, DEC_OK},
    {"02 00", MQTT_3_1_1, DEC_MALFORMED},
    {"81 00 00", MQTT_5, DEC_MALFORMED},
    {"00 06", MQTT_3_1_1, DEC_PROTOCOL},
    {"01 05", MQTT_3_1_1, DEC_PROTOCOL},
    {"01 87 00", MQTT_5, DEC_PROTOCOL},
    {"00 00 00", MQTT_3_1_1, DEC_MALFORMED},
    {"00 00 00", MQTT_3_1, DEC_MALFORMED},
    {"00", MQTT_3_1_1, DEC_MALFORMED},
    {"00 00", MQTT_5, DEC_MALFORMED},
    {"00 00 00", MQTT_5, DEC_OK},
    {"00 00 00 00", MQTT_5, DEC_MALFORMED},
    {"01 00 03 21 0400", MQTT_5, DEC_OK},
    {"00 87 05 1f 0002 'no'", MQTT_5, DEC_OK},
    {"00 00 03 21 0000", MQTT_5, DEC_PROTOCOL},
    {"00 00 03 23 0001", MQTT_5, DEC_MALFORMED},
};

static void test_connack_decode(void)
{
    for (size_t i = 0; i < sizeof(connacks) / sizeof(connacks[0]); i++) {
        const char *row = connacks[i].body;
        struct bytes body = bytes_of(row);
        const char *why = NULL;
        struct connack a;

        CHECK(row, connack_decode(&a, bytes_span(body), connacks[i].v, &why) == connacks[i].rc);
        CHECK(row, (why == NULL) == (connacks[i].rc == DEC_OK));
        if (connacks[i].rc == DEC_OK) {
            CHECK(row, a.reason == body.p[1]);
            CHECK(row, a.session_present == (connacks[i].v != MQTT_3_1 && body.p[0] == 1));
        }
        bytes_free(&body);
    }
}

static enum dec_rc decode_connack(struct span body, enum mqtt_version v, const char **why)
{
    struct connack a;

    return connack_decode(&a, body, v, why);
}

static enum dec_rc decode_disconnect(struct span body, enum mqtt_version v, const char **why)
{
    struct disconnect d;

    return disconnect_decode(&d, body, v, why);
}

static enum dec_rc decode_auth(struct span body, enum mqtt_version v, const char **why)
{
    struct auth a;

    (void)v;
    return auth_decode(&a, body, why);
}

static void test_answers_prefixes(void)
{
    static const size_t short_disconnect[] = {0, 1, SIZE_MAX};
    static const size_t short_auth[] = {0, SIZE_MAX};

    check_prefixes("00 05", MQTT_3_1_1, decode_connack, no_prefix);
    check_prefixes("00 00 0a 21 0400 26 0001 'k' 0001 'v'", MQTT_5, decode_connack, no_prefix);
    check_prefixes("82 0a 1f 0002 'no' 11 00000001", MQTT_5, decode_disconnect, short_disconnect);
    check_prefixes("18 0b 15 0002 'me' 16 0003 000102", MQTT_5, decode_auth, short_auth);
}

/* The lists of 3.2.2.2, 3.14.2.1 (both sides) and 3.15.2.1, typed from the standard. */
static const char connack_list[] = "00 80818283848586878889 8a8c 90959799 9a9b9c9d9f";
static const char disconnect_list[] = "00 04 80818283 87898b 8d8e8f90 939495969798999a9b9c9d9e9f "
                                      "a0a1a2";
static const char auth_list[] = "00 1819";

static bool is_on(const char *list, unsigned reason)
{
    struct bytes b = bytes_of(list);
    const bool found = memchr(b.p, (int)reason, b.n) != NULL;

    bytes_free(&b);
    return found;
}

static void test_reason_codes(void)
{
    for (unsigned reason = 0; reason < 256; reason++) {
        const uint8_t connack[3] = {0, (uint8_t)reason, 0};
        const uint8_t disconnect[1] = {(uint8_t)reason};
        const uint8_t auth[6] = {(uint8_t)reason, 4, PROP_AUTH_METHOD, 0, 1, 'm'};
        const char *why = NULL;

        CU_ASSERT_EQUAL(decode_connack(span_of(connack, 3), MQTT_5, &why),
                        is_on(connack_list, reason) ? DEC_OK : DEC_PROTOCOL);
        CU_ASSERT_EQUAL(decode_disconnect(span_of(disconnect, 1), MQTT_5, &why),
                        is_on(disconnect_list, reason) ? DEC_OK : DEC_PROTOCOL);
        CU_ASSERT_EQUAL(decode_auth(span_of(auth, 6), MQTT_5, &why),
                        is_on(auth_list, reason) ? DEC_OK : DEC_PROTOCOL);
    }
}

static const struct {
    const char *body;
    enum mqtt_version v;
    enum dec_rc rc;
    uint8_t reason;
} disconnects[] = {
    {"", MQTT_3_1, DEC_OK, 0},
    {"", MQTT_3_1_1, DEC_OK, 0},
    {"00", MQTT_3_1, DEC_MALFORMED, 0},
    {"00", MQTT_3_1_1, DEC_MALFORMED, 0},
    {"04 00", MQTT_3_1_1, DEC_MALFORMED, 0},
    {"", MQTT_5, DEC_OK, 0},
    {"04", MQTT_5, DEC_OK, 4},
    {"04 00", MQTT_5, DEC_OK, 4},
    {"00 05 11 0000000a", MQTT_5, DEC_OK, 0},
    {"00 05 11 0000000a 00", MQTT_5, DEC_MALFORMED, 0},
    {"00 00 00", MQTT_5, DEC_MALFORMED, 0},
    {"00 0a 11 0000000a 11 0000000a", MQTT_5, DEC_PROTOCOL, 0},
    {"00 03 21 0001", MQTT_5, DEC_MALFORMED, 0},
    {"01", MQTT_5, DEC_PROTOCOL, 0},
};

static void test_disconnect_decode(void)
{
    for (size_t i = 0; i < sizeof(disconnects) / sizeof(disconnects[0]); i++) {
        const char *row = disconnects[i].body;
        struct bytes body = bytes_of(row);
        const char *why = NULL;
        struct disconnect d;

        CHECK(row,
              disconnect_decode(&d, bytes_span(body), disconnects[i].v, &why) == disconnects[i].rc);
        CHECK(row, d.reason == disconnects[i].reason);
        CHECK(row, (why == NULL) == (disconnects[i].rc == DEC_OK));
        bytes_free(&body);
    }
}

static const struct {
    const char *body;
    enum dec_rc rc;
} auths[] = {
    {"", DEC_OK},
    {"18", DEC_MALFORMED}, /* reason code and properties go together */
    {"00", DEC_MALFORMED},
    {"18 04 15 0001 'm'", DEC_OK},
    {"19 08 15 0001 'm' 16 0001 'd'", DEC_OK},
    {"18 00", DEC_PROTOCOL}, /* a method is needed */
    {"18 04 16 0001 'd'", DEC_PROTOCOL},
    {"18 08 15 0001 'm' 15 0001 'm'", DEC_PROTOCOL},
    {"18 04 15 0001 'm' 00", DEC_MALFORMED},
    {"18 05 11 00000001", DEC_MALFORMED},
};

static void test_auth_decode(void)
{
    for (size_t i = 0; i < sizeof(auths) / sizeof(auths[0]); i++) {
        struct bytes body = bytes_of(auths[i].body);
        const char *why = NULL;
        struct auth a;

        CHECK(auths[i].body, auth_decode(&a, bytes_span(body), &why) == auths[i].rc);
        CHECK(auths[i].body, (why == NULL) == (auths[i].rc == DEC_OK));
        CHECK(auths[i].body, auths[i].rc != DEC_OK || a.reason == (body.n > 0 ? body.p[0] : 0));
        bytes_free(&body);
    }
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(connect_decode)
    UNIT_TEST(connect_fields)
    UNIT_TEST(missing_login_31)
    UNIT_TEST(bridge)
    UNIT_TEST(connect_prefixes)
    UNIT_TEST(connect_encode)
    UNIT_TEST(connect_encode_limits)
    UNIT_TEST(connect_round_trips)
    UNIT_TEST(answers_encode)
    UNIT_TEST(connack_decode)
    UNIT_TEST(answers_prefixes)
    UNIT_TEST(reason_codes)
    UNIT_TEST(disconnect_decode)
    UNIT_TEST(auth_decode)
UNIT_TESTS_END
