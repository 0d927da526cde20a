/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients decode. A byte of version (bits 0, 1) and kind (bits 2, 3: CONNACK, SUBACK,
 * UNSUBACK), then the body. What is accepted encodes to the same bytes (but for the byte that 3.1
 * leaves open in CONNACK).
 */
#include "server/codec/connect.h"
#include "server/codec/frame.h"
#include "server/codec/subscribe.h"
#include "tests/fuzz/fuzz.h"

static void check_same(const uint8_t *p, size_t n, enum mqtt_type type, struct span body)
{
    const char *why = NULL;
    struct frame f;

    FUZZ_CHECK(frame_next(span_of(p, n), n, &f, &why) == FRAME_OK);
    FUZZ_CHECK(f.type == type && f.total == n);
    FUZZ_CHECK(span_eq(f.body, body));
}

static enum dec_rc try_connack(struct span body, enum mqtt_version v, const char **why)
{
    const size_t cap = body.n + MQTT_MAX_FIXED_HEADER;
    uint8_t *room = fuzz_room(cap);
    struct connack a;
    const enum dec_rc rc = connack_decode(&a, body, v, why);

    if (rc == DEC_OK) {
        const size_t n = v == MQTT_5 ? connack5_encode(room, cap, a.session_present,
                                                       (enum mqtt_reason)a.reason, a.props.raw)
                                     : connack3_encode(room, cap, a.session_present,
                                                       (enum mqtt3_connack)a.reason);

        fuzz_check_view(a.props.raw, body);
        FUZZ_CHECK(!a.session_present || (a.reason == 0 && v != MQTT_3_1));
        if (v == MQTT_3_1) {
            FUZZ_CHECK(n == 4 && room[3] == body.p[1]);
        } else {
            check_same(room, n, MQTT_CONNACK, body);
        }
    }
    free(room);
    return rc;
}

static enum dec_rc try_suback(struct span body, enum mqtt_version v, enum mqtt_type type,
                              const char **why)
{
    const bool unsub = type == MQTT_UNSUBACK;
    const size_t cap = body.n + MQTT_MAX_FIXED_HEADER;
    uint8_t *room = fuzz_room(cap);
    struct suback a;
    const enum dec_rc rc = (unsub ? unsuback_decode : suback_decode)(&a, body, v, why);

    if (rc == DEC_OK) {
        fuzz_check_view(a.props.raw, body);
        fuzz_check_view(a.codes, body);
        FUZZ_CHECK(a.packet_id != 0 && (a.codes.n > 0) != (unsub && v != MQTT_5));
        check_same(room,
                   (unsub ? unsuback_encode : suback_encode)(room, cap, v, a.packet_id, a.props.raw,
                                                             a.codes.p, a.codes.n),
                   type, body);
    }
    free(room);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span body;
    enum mqtt_version v;
    const char *why = NULL;
    enum dec_rc rc;

    if (size < 1) {
        return 0;
    }
    body = span_of(data + 1, size - 1);
    v = fuzz_version(data[0]);
    switch (data[0] >> 2 & 3) {
    case 0:
        rc = try_connack(body, v, &why);
        break;
    case 1:
        rc = try_suback(body, v, MQTT_SUBACK, &why);
        break;
    default:
        rc = try_suback(body, v, MQTT_UNSUBACK, &why);
        break;
    }
    FUZZ_CHECK((rc == DEC_OK) == (why == NULL));
    FUZZ_CHECK(rc == DEC_OK || rc == DEC_MALFORMED || rc == DEC_PROTOCOL);
    return 0;
}
