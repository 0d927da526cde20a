/* SPDX-License-Identifier: Apache-2.0 */
/* The body of a CONNECT. Encoded again it frames, and decodes to the same. */
#include "server/codec/connect.h"
#include "server/codec/frame.h"
#include "tests/fuzz/fuzz.h"

static void check_views(const struct connect *c, struct span body)
{
    fuzz_check_view(c->client_id, body);
    fuzz_check_view(c->username, body);
    fuzz_check_view(c->password, body);
    fuzz_check_view(c->will.topic, body);
    fuzz_check_view(c->will.payload, body);
    fuzz_check_view(c->props.raw, body);
    fuzz_check_view(c->will.props.raw, body);
}

static void check_same(const struct connect *a, const struct connect *b)
{
    FUZZ_CHECK(a->version == b->version && a->bridge == b->bridge && a->clean == b->clean);
    FUZZ_CHECK(a->has_will == b->has_will && a->has_username == b->has_username);
    FUZZ_CHECK(a->has_password == b->has_password && a->keep_alive_s == b->keep_alive_s);
    FUZZ_CHECK(a->will.qos == b->will.qos && a->will.retain == b->will.retain);
    FUZZ_CHECK(span_eq(a->client_id, b->client_id));
    FUZZ_CHECK(span_eq(a->username, b->username));
    FUZZ_CHECK(span_eq(a->password, b->password));
    FUZZ_CHECK(span_eq(a->will.topic, b->will.topic));
    FUZZ_CHECK(span_eq(a->will.payload, b->will.payload));
    FUZZ_CHECK(span_eq(a->props.raw, b->props.raw));
    FUZZ_CHECK(span_eq(a->will.props.raw, b->will.props.raw));
    FUZZ_CHECK(a->props.present == b->props.present);
}

static void check_again(const struct connect *c, size_t body_n)
{
    const size_t cap = MQTT_MAX_FIXED_HEADER + body_n;
    uint8_t *room = fuzz_room(cap);
    const size_t n = connect_encode(room, cap, c);
    const char *why = NULL;
    struct connect again;
    struct frame f;

    FUZZ_CHECK(n > 0);
    FUZZ_CHECK(frame_next(span_of(room, n), n, &f, &why) == FRAME_OK);
    FUZZ_CHECK(f.type == MQTT_CONNECT && f.total == n);
    FUZZ_CHECK(connect_decode(&again, f.body, &why) == DEC_OK);
    check_same(c, &again);
    free(room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct span body = span_of(data, size);
    const char *why = NULL;
    struct connect c;
    const enum dec_rc rc = connect_decode(&c, body, &why);

    FUZZ_CHECK((rc == DEC_OK) == (why == NULL));
    FUZZ_CHECK(rc != DEC_UNSUPPORTED_VERSION || c.version == MQTT_3_1 || c.version == MQTT_3_1_1);
    FUZZ_CHECK(rc != DEC_TOPIC_FILTER);
    if (rc == DEC_OK) {
        FUZZ_CHECK(c.version == MQTT_3_1 || c.version == MQTT_3_1_1 || c.version == MQTT_5);
        check_views(&c, body);
        check_again(&c, size);
    }
    return 0;
}
