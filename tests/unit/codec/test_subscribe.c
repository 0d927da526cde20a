/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/frame.h"
#include "server/codec/subscribe.h"
#include "tests/unit/codec/hex.h"

static const struct {
    const char *body;
    enum mqtt_version v;
    enum dec_rc rc;
    size_t count;
} subscribes[] = {
    {"0001 0003 'a/b' 00", MQTT_3_1, DEC_OK, 1},
    {"0001 0003 'a/b' 02", MQTT_3_1_1, DEC_OK, 1},
    {"ffff 0003 'a/+' 01 0001 '#' 00 0003 '+/b' 02", MQTT_3_1_1, DEC_OK, 3},
    {"0001 00 0003 'a/b' 00", MQTT_5, DEC_OK, 1},
    {"0001 02 0b 01 0003 'a/b' 2e 0001 'c' 1d", MQTT_5, DEC_OK, 2},
    /* packet identifier */
    {"", MQTT_3_1_1, DEC_MALFORMED, 0},
    {"00", MQTT_3_1_1, DEC_MALFORMED, 0},
    {"0000 0003 'a/b' 00", MQTT_3_1_1, DEC_PROTOCOL, 0},
    {"0000 00 0003 'a/b' 00", MQTT_5, DEC_PROTOCOL, 0},
    /* no filter [MQTT-3.8.3-2] */
    {"0001", MQTT_3_1_1, DEC_PROTOCOL, 0},
    {"0001 00", MQTT_5, DEC_PROTOCOL, 0},
    {"0001", MQTT_5, DEC_MALFORMED, 0},
    /* filters */
    {"0001 0000 00", MQTT_3_1_1, DEC_TOPIC_FILTER, 0},
    {"0001 00 0000 00", MQTT_5, DEC_TOPIC_FILTER, 0},
    {"0001 0003 'a' 00 'b' 00", MQTT_3_1_1, DEC_MALFORMED, 0},
    {"0001 00 0003 'a' 00 'b' 00", MQTT_5, DEC_MALFORMED, 0},
    {"0001 0003 eda080 00", MQTT_3_1_1, DEC_MALFORMED, 0},
    {"0001 00 0001 ff 00", MQTT_5, DEC_MALFORMED, 0},
    {"0001 00 0001 'a' 00 0001 ff 00", MQTT_5, DEC_MALFORMED, 0},
    {"0001 0004 'a/b' 00", MQTT_3_1_1, DEC_MALFORMED, 0},
    {"0001 0003 'a/b'", MQTT_3_1_1, DEC_MALFORMED, 0},
    {"0001 0003 'a/b' 00 00", MQTT_3_1_1, DEC_MALFORMED, 0},
    /* properties */
    {"0001 02 0b 00 0001 'a' 00", MQTT_5, DEC_PROTOCOL, 0},
    {"0001 04 0b 01 0b 02 0001 'a' 00", MQTT_5, DEC_PROTOCOL, 0},
    {"0001 07 26 0001 'k' 0001 'v' 0001 'a' 00", MQTT_5, DEC_OK, 1},
    {"0001 02 01 01 0001 'a' 00", MQTT_5, DEC_MALFORMED, 0},
    {"0001 7f 0001 'a' 00", MQTT_5, DEC_MALFORMED, 0},
};

static void test_decode(void)
{
    for (size_t i = 0; i < sizeof(subscribes) / sizeof(subscribes[0]); i++) {
        const char *row = subscribes[i].body;
        struct bytes body = bytes_of(row);
        const char *why = NULL;
        struct subscribe s;
        const enum dec_rc rc = subscribe_decode(&s, bytes_span(body), subscribes[i].v, &why);

        CHECK(row, rc == subscribes[i].rc);
        CHECK(row, rc != DEC_OK || s.count == subscribes[i].count);
        CHECK(row, (why == NULL) == (rc == DEC_OK));
        bytes_free(&body);
    }
}

static void test_walk(void)
{
    struct bytes body = bytes_of("1234 02 0b 05 0003 'a/+' 2e 0001 '#' 11");
    const char *why = NULL;
    struct subscribe_item item;
    struct subscribe s;

    CU_ASSERT_EQUAL(subscribe_decode(&s, bytes_span(body), MQTT_5, &why), DEC_OK);
    CU_ASSERT_EQUAL(s.packet_id, 0x1234);
    CU_ASSERT_EQUAL(s.props.subscription_id, 5);
    CU_ASSERT_TRUE(subscribe_next(&s, &item));
    CU_ASSERT_TRUE(bytes_are(item.filter, "'a/+'"));
    CU_ASSERT_EQUAL(item.qos, 2);
    CU_ASSERT_TRUE(item.no_local && item.retain_as_published);
    CU_ASSERT_EQUAL(item.retain_handling, 2);
    CU_ASSERT_TRUE(subscribe_next(&s, &item));
    CU_ASSERT_TRUE(bytes_are(item.filter, "'#'"));
    CU_ASSERT_EQUAL(item.qos, 1);
    CU_ASSERT_FALSE(item.no_local || item.retain_as_published);
    CU_ASSERT_EQUAL(item.retain_handling, 1);
    CU_ASSERT_FALSE(subscribe_next(&s, &item));
    CU_ASSERT_FALSE(subscribe_next(&s, &item));
    CU_ASSERT_EQUAL(s.count, 2);
    bytes_free(&body);
}

/* Every option byte: 3.x has the QoS alone; 5.0 reserves two bits and the value 3 twice. */
static void test_options(void)
{
    for (unsigned o = 0; o < 256; o++) {
        const uint8_t body3[] = {0, 1, 0, 1, 'a', (uint8_t)o};
        const uint8_t body5[] = {0, 1, 0, 0, 1, 'a', (uint8_t)o};
        const bool ok5 = (o & 0xc0) == 0 && (o & 3) != 3 && (o >> 4 & 3) != 3;
        const enum dec_rc rc3 = o < 3 ? DEC_OK : o == 3 ? DEC_PROTOCOL : DEC_MALFORMED;
        const enum dec_rc rc5 = ok5 ? DEC_OK : (o & 0xc0) != 0 ? DEC_MALFORMED : DEC_PROTOCOL;
        const char *why = NULL;
        struct subscribe_item item;
        struct subscribe s;

        CU_ASSERT_EQUAL(subscribe_decode(&s, span_of(body3, 6), MQTT_3_1, &why), rc3);
        CU_ASSERT_EQUAL(subscribe_decode(&s, span_of(body3, 6), MQTT_3_1_1, &why), rc3);
        CU_ASSERT_EQUAL(subscribe_decode(&s, span_of(body5, 7), MQTT_5, &why), rc5);
        if (ok5) {
            CU_ASSERT_TRUE(subscribe_next(&s, &item));
            CU_ASSERT_TRUE(item.qos == (o & 3) && item.retain_handling == (o >> 4 & 3));
            CU_ASSERT_TRUE(item.no_local == ((o & 4) != 0));
            CU_ASSERT_TRUE(item.retain_as_published == ((o & 8) != 0));
        }
    }
}

static const struct {
    const char *body;
    enum mqtt_version v;
    enum dec_rc rc;
    size_t count;
} unsubscribes[] = {
    {"0001 0003 'a/b'", MQTT_3_1, DEC_OK, 1},
    {"0001 0003 'a/b' 0001 '#'", MQTT_3_1_1, DEC_OK, 2},
    {"0001 00 0003 'a/b'", MQTT_5, DEC_OK, 1},
    {"0001 07 26 0001 'k' 0001 'v' 0003 'a/b'", MQTT_5, DEC_OK, 1},
    {"0000 0003 'a/b'", MQTT_3_1_1, DEC_PROTOCOL, 0},
    {"0001", MQTT_3_1_1, DEC_PROTOCOL, 0},
    {"0001 00", MQTT_5, DEC_PROTOCOL, 0},
    {"0001 0000", MQTT_3_1_1, DEC_TOPIC_FILTER, 0},
    {"0001 00 0001 00", MQTT_5, DEC_MALFORMED, 0},
    {"0001 0001 80", MQTT_3_1_1, DEC_MALFORMED, 0},
    {"0001 0003 'a/b' 00", MQTT_3_1_1, DEC_MALFORMED, 0},
    {"0001 02 0b 01 0003 'a/b'", MQTT_5, DEC_MALFORMED, 0},
    {"0001 02", MQTT_5, DEC_MALFORMED, 0},
};

static void test_unsubscribe_decode(void)
{
    for (size_t i = 0; i < sizeof(unsubscribes) / sizeof(unsubscribes[0]); i++) {
        const char *row = unsubscribes[i].body;
        struct bytes body = bytes_of(row);
        const char *why = NULL;
        struct subscribe_item item;
        struct subscribe s;
        const enum dec_rc rc = unsubscribe_decode(&s, bytes_span(body), unsubscribes[i].v, &why);
        size_t walked = 0;

        CHECK(row, rc == unsubscribes[i].rc);
        CHECK(row, (why == NULL) == (rc == DEC_OK));
        while (rc == DEC_OK && subscribe_next(&s, &item)) {
            CHECK(row, span_within(item.filter, bytes_span(body)));
            walked++;
        }
        CHECK(row, walked == unsubscribes[i].count);
        CHECK(row, rc != DEC_OK || s.count == walked);
        bytes_free(&body);
    }
}

static enum dec_rc decode_subscribe(struct span body, enum mqtt_version v, const char **why)
{
    struct subscribe s;

    return subscribe_decode(&s, body, v, why);
}

static enum dec_rc decode_unsubscribe(struct span body, enum mqtt_version v, const char **why)
{
    struct subscribe s;

    return unsubscribe_decode(&s, body, v, why);
}

static enum dec_rc decode_suback(struct span body, enum mqtt_version v, const char **why)
{
    struct suback s;

    return suback_decode(&s, body, v, why);
}

static enum dec_rc decode_unsuback(struct span body, enum mqtt_version v, const char **why)
{
    struct suback s;

    return unsuback_decode(&s, body, v, why);
}

/* A cut between two filters leaves a packet of the first alone. */
static void test_prefixes(void)
{
    static const size_t first8[] = {8, SIZE_MAX};
    static const size_t first7[] = {7, SIZE_MAX};
    static const size_t first16[] = {16, SIZE_MAX};
    static const size_t codes4[] = {4, SIZE_MAX};

    check_prefixes("0001 0003 'a/b' 00 0002 'cd' 01", MQTT_3_1_1, decode_subscribe, first8);
    check_prefixes("0001 07 26 0001 'k' 0001 'v' 0003 'a/b' 00 0002 'cd' 01", MQTT_5,
                   decode_subscribe, first16);
    check_prefixes("0001 0003 'a/b' 0002 'cd'", MQTT_3_1_1, decode_unsubscribe, first7);
    check_prefixes("0001 02 80", MQTT_3_1_1, decode_suback, (const size_t[]){3, SIZE_MAX});
    check_prefixes("0001 00 02 80", MQTT_5, decode_suback, codes4);
    check_prefixes("0001 05 1f 0002 'no' 11", MQTT_5, decode_unsuback, no_prefix);
    check_prefixes("0001", MQTT_3_1_1, decode_unsuback, no_prefix);
}

/* What an encoder under check_encode() is to encode. */
struct parts {
    enum mqtt_version v;
    struct span props;
    const struct subscribe_item *items;
    const uint8_t *codes;
    size_t n;
};

static size_t encode_subscribe(uint8_t *p, size_t cap, const void *what)
{
    const struct parts *a = what;

    return subscribe_encode(p, cap, a->v, 0x1234, a->props, a->items, a->n);
}

static size_t encode_unsubscribe(uint8_t *p, size_t cap, const void *what)
{
    const struct parts *a = what;

    return unsubscribe_encode(p, cap, a->v, 0x1234, a->props, a->items, a->n);
}

static size_t encode_suback(uint8_t *p, size_t cap, const void *what)
{
    const struct parts *a = what;

    return suback_encode(p, cap, a->v, 0x1234, a->props, a->codes, a->n);
}

static size_t encode_unsuback(uint8_t *p, size_t cap, const void *what)
{
    const struct parts *a = what;

    return unsuback_encode(p, cap, a->v, 0x1234, a->props, a->codes, a->n);
}

static void test_encode(void)
{
    struct bytes props = bytes_of("0b 05");
    const struct subscribe_item items[] = {
        {.filter = span_str("a/+"),
         .qos = 2,
         .no_local = true,
         .retain_as_published = true,
         .retain_handling = 2},
        {.filter = span_str("#"), .qos = 1},
    };
    const uint8_t codes[] = {0x02, 0x80};
    const uint8_t gone[] = {0x11, 0x80};
    const struct parts v3 = {MQTT_3_1_1, bytes_span(props), items, codes, 2};
    const struct parts v5 = {MQTT_5, SPAN_NULL, items, codes, 2};
    const struct parts v5p = {MQTT_5, bytes_span(props), items, codes, 2};
    const struct parts un5 = {MQTT_5, SPAN_NULL, items, gone, 2};
    const struct parts un5p = {MQTT_5, bytes_span(props), items, gone, 2};
    const struct {
        const char *hex;
        encode_fn encode;
        const struct parts *parts;
    } rows[] = {
        {"820c 1234 0003 'a/+' 02 0001 '#' 01", encode_subscribe, &v3},
        {"820d 1234 00 0003 'a/+' 2e 0001 '#' 01", encode_subscribe, &v5},
        {"820f 1234 02 0b 05 0003 'a/+' 2e 0001 '#' 01", encode_subscribe, &v5p},
        {"a20a 1234 0003 'a/+' 0001 '#'", encode_unsubscribe, &v3},
        {"a20b 1234 00 0003 'a/+' 0001 '#'", encode_unsubscribe, &v5},
        {"9004 1234 02 80", encode_suback, &v3},
        {"9005 1234 00 02 80", encode_suback, &v5},
        {"9007 1234 02 0b 05 02 80", encode_suback, &v5p},
        {"b002 1234", encode_unsuback, &v3},
        {"b005 1234 00 11 80", encode_unsuback, &un5},
        {"b007 1234 02 0b 05 11 80", encode_unsuback, &un5p},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        check_encode(rows[i].hex, rows[i].encode, rows[i].parts);
    }
    bytes_free(&props);
}

static void test_too_long_filter(void)
{
    struct bytes filter = bytes_fill(65536, 'f');
    struct bytes room = bytes_fill(70000, 0);
    struct subscribe_item item = {.filter = bytes_span(filter)};

    CU_ASSERT_EQUAL(subscribe_encode(room.p, room.n, MQTT_5, 1, SPAN_NULL, &item, 1), 0);
    CU_ASSERT_EQUAL(unsubscribe_encode(room.p, room.n, MQTT_5, 1, SPAN_NULL, &item, 1), 0);
    item.filter.n = 65535;
    CU_ASSERT_EQUAL(subscribe_encode(room.p, room.n, MQTT_5, 1, SPAN_NULL, &item, 1),
                    4 + 2 + 1 + 65538);
    bytes_free(&filter);
    bytes_free(&room);
}

/* Packets whose lengths take one to four bytes; the answer counts as many codes as there were
 * filters. */
static void round_trip(enum mqtt_version v, size_t count)
{
    struct bytes items = bytes_copy(NULL, count * sizeof(struct subscribe_item));
    struct bytes codes = bytes_fill(count, 1);
    struct bytes room = bytes_fill(count * 8 + 16, 0);
    struct subscribe_item *item = (struct subscribe_item *)(void *)items.p;
    const char *why = NULL;
    struct subscribe_item got;
    struct subscribe s;
    struct suback a;
    struct frame f;
    size_t walked = 0;
    size_t n;

    for (size_t i = 0; i < count; i++) {
        item[i] = (struct subscribe_item){.filter = span_str("a/+/b"), .qos = (uint8_t)(i % 3)};
    }
    n = subscribe_encode(room.p, room.n, v, 7, SPAN_NULL, item, count);
    CU_ASSERT_EQUAL(frame_next(span_of(room.p, n), n, &f, &why), FRAME_OK);
    CU_ASSERT_EQUAL(subscribe_decode(&s, f.body, v, &why), DEC_OK);
    CU_ASSERT_EQUAL(s.count, count);
    while (subscribe_next(&s, &got) && got.qos == walked % 3 && got.filter.n == 5) {
        walked++;
    }
    CU_ASSERT_EQUAL(walked, count);
    n = suback_encode(room.p, room.n, v, 7, SPAN_NULL, codes.p, count);
    CU_ASSERT_EQUAL(frame_next(span_of(room.p, n), n, &f, &why), FRAME_OK);
    CU_ASSERT_EQUAL(suback_decode(&a, f.body, v, &why), DEC_OK);
    CU_ASSERT_TRUE(a.packet_id == 7 && span_eq(a.codes, bytes_span(codes)));
    bytes_free(&items);
    bytes_free(&codes);
    bytes_free(&room);
}

static void test_round_trips(void)
{
    static const size_t counts[] = {1, 15, 16, 125, 126, 2047, 2048, 16381, 16382, 262144};

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        round_trip(MQTT_3_1, counts[i]);
        round_trip(MQTT_3_1_1, counts[i]);
        round_trip(MQTT_5, counts[i]);
    }
}

static const struct {
    const char *body;
    enum mqtt_version v;
    bool unsub;
    enum dec_rc rc;
} answers[] = {
    {"0001 00", MQTT_3_1, false, DEC_OK},
    {"0001 00 01 02 80", MQTT_3_1_1, false, DEC_OK},
    {"0001 03", MQTT_3_1_1, false, DEC_PROTOCOL},
    {"0001 87", MQTT_3_1_1, false, DEC_PROTOCOL},
    {"0001", MQTT_3_1_1, false, DEC_PROTOCOL},
    {"0000 00", MQTT_3_1_1, false, DEC_PROTOCOL},
    {"00", MQTT_3_1_1, false, DEC_MALFORMED},
    {"0001 00 01", MQTT_5, false, DEC_OK},
    {"0001 05 1f 0002 'no' 87", MQTT_5, false, DEC_OK},
    {"0001 00", MQTT_5, false, DEC_PROTOCOL},
    {"0001 02 0b 01 00", MQTT_5, false, DEC_MALFORMED},
    {"0001", MQTT_3_1, true, DEC_OK},
    {"0001", MQTT_3_1_1, true, DEC_OK},
    {"0001 00", MQTT_3_1_1, true, DEC_MALFORMED},
    {"0000", MQTT_3_1_1, true, DEC_PROTOCOL},
    {"0001 00 00 11", MQTT_5, true, DEC_OK},
    {"0001 00", MQTT_5, true, DEC_PROTOCOL},
    {"0001", MQTT_5, true, DEC_MALFORMED},
};

static void test_answers_decode(void)
{
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        const char *row = answers[i].body;
        struct bytes body = bytes_of(row);
        const char *why = NULL;
        const enum dec_rc rc = (answers[i].unsub ? decode_unsuback : decode_suback)(
            bytes_span(body), answers[i].v, &why);

        CHECK(row, rc == answers[i].rc);
        CHECK(row, (why == NULL) == (rc == DEC_OK));
        bytes_free(&body);
    }
}

/* The lists of 3.9.3 and 3.11.3. */
static void test_reason_codes(void)
{
    struct bytes sub = bytes_of("00 01 02 80 83 87 8f 91 97 9e a1 a2");
    struct bytes unsub = bytes_of("00 11 80 83 87 8f 91");

    for (unsigned code = 0; code < 256; code++) {
        const uint8_t body[] = {0, 1, 0, 0, (uint8_t)code};
        const char *why = NULL;

        CU_ASSERT_EQUAL(decode_suback(span_of(body, 5), MQTT_5, &why),
                        memchr(sub.p, (int)code, sub.n) != NULL ? DEC_OK : DEC_PROTOCOL);
        CU_ASSERT_EQUAL(decode_unsuback(span_of(body, 5), MQTT_5, &why),
                        memchr(unsub.p, (int)code, unsub.n) != NULL ? DEC_OK : DEC_PROTOCOL);
    }
    bytes_free(&sub);
    bytes_free(&unsub);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(decode)
    UNIT_TEST(walk)
    UNIT_TEST(options)
    UNIT_TEST(unsubscribe_decode)
    UNIT_TEST(prefixes)
    UNIT_TEST(encode)
    UNIT_TEST(too_long_filter)
    UNIT_TEST(round_trips)
    UNIT_TEST(answers_decode)
    UNIT_TEST(reason_codes)
UNIT_TESTS_END
