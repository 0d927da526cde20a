/* SPDX-License-Identifier: Apache-2.0 */
/* What the short decoder takes, the full one takes, too, and reads the same. */
#include "bench/load/plain.h"
#include "tests/support/unit.h"

#define PACKET_MAX 64u

static bool same(const struct publish *a, const struct publish *b)
{
    return span_eq(a->topic, b->topic) && span_eq(a->payload, b->payload) &&
           a->packet_id == b->packet_id && a->qos == b->qos && a->dup == b->dup &&
           a->retain == b->retain && a->props.present == b->props.present;
}

/* True when both took it, and the same way. */
static bool both(const uint8_t *p, size_t n, enum mqtt_version v)
{
    struct publish plain = {.qos = 0};
    struct publish full;
    struct frame f;
    const char *why = NULL;

    if (frame_next(span_of(p, n), PACKET_MAX, &f, &why) != FRAME_OK || f.type != MQTT_PUBLISH ||
        !plain_publish(&plain, &f, v)) {
        return false;
    }
    if (publish_decode(&full, f.body, f.flags, v, true, &why) != DEC_OK) {
        /* Only a topic of a wrong form may get through. */
        CU_ASSERT_TRUE(strstr(why, "opic") != NULL || strstr(why, "UTF-8") != NULL);
        return false;
    }
    CU_ASSERT_TRUE(same(&plain, &full));
    return true;
}

static size_t build(uint8_t *p, enum mqtt_version v, unsigned flags, const char *topic)
{
    const struct publish m = {.topic = span_str(topic),
                              .payload = span_str("payload"),
                              .packet_id = 0x1234,
                              .qos = (flags >> 1) & 3u,
                              .dup = flags & 8u,
                              .retain = flags & 1u};
    size_t id_at;
    size_t n = publish_encode_head(p, &m, SPAN_NULL, v, &id_at);

    memcpy(p + n, m.payload.p, m.payload.n);
    return n + m.payload.n;
}

static void test_takes_the_common_ones(void)
{
    static const unsigned flags[] = {0, 1, 2, 3, 4, 5, 10, 12, 13};
    uint8_t p[PACKET_MAX];

    for (unsigned v = MQTT_3_1; v <= MQTT_5; v++) {
        for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
            CU_ASSERT_TRUE(both(p, build(p, v, flags[i], "bench/1/2"), v));
        }
    }
}

/* Every byte of a packet with every value: taken rightly or left to the other one. */
static void test_any_byte_changed(void)
{
    uint8_t p[PACKET_MAX];
    unsigned taken = 0;
    unsigned left = 0;

    for (unsigned v = MQTT_3_1; v <= MQTT_5; v++) {
        for (unsigned flags = 0; flags < 6; flags += 2) {
            size_t n = build(p, v, flags, "a/b");

            for (size_t at = 0; at < n; at++) {
                uint8_t kept = p[at];

                for (unsigned byte = 0; byte < 256; byte++) {
                    p[at] = (uint8_t)byte;
                    if (both(p, n, v)) {
                        taken++;
                    } else {
                        left++;
                    }
                }
                p[at] = kept;
            }
        }
    }
    CU_ASSERT(taken > 10000 && left > 1000);
}

static void test_leaves_what_is_wrong(void)
{
    static const struct {
        const char *bytes;
        size_t n;
        enum mqtt_version v;
    } wrong[] = {
        {"\x36\x06\0\x01t\0\x01x", 8, MQTT_3_1_1},    /* QoS 3 */
        {"\x38\x04\0\x01tx", 6, MQTT_3_1_1},          /* DUP with QoS 0 */
        {"\x32\x06\0\x01t\0\0x", 8, MQTT_3_1_1},      /* identifier 0 */
        {"\x30\x02\0\0", 4, MQTT_3_1_1},              /* no topic */
        {"\x30\x03\0\x05t", 5, MQTT_3_1_1},           /* topic too long */
        {"\x32\x04\0\x01t\0", 6, MQTT_3_1_1},         /* half an identifier */
        {"\x30\x03\0\x01t", 5, MQTT_5},               /* properties missing */
        {"\x30\x07\0\x01t\x03\x23\0\x01", 9, MQTT_5}, /* with a property */
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct publish m = {.qos = 0};
        struct frame f;
        const char *why = NULL;

        UNIT_NEED(frame_next(span_of(wrong[i].bytes, wrong[i].n), PACKET_MAX, &f, &why) ==
                  FRAME_OK);
        CU_ASSERT_FALSE(plain_publish(&m, &f, wrong[i].v));
    }
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(takes_the_common_ones)
    UNIT_TEST(any_byte_changed)
    UNIT_TEST(leaves_what_is_wrong)
UNIT_TESTS_END
