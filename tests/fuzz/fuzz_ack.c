/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte of version (bits 0, 1) and type (bits 2, 3: PUBACK, PUBREC, PUBREL, PUBCOMP), then the
 * body. What is accepted and encoded again, in the short form where that will do, decodes to the
 * same.
 */
#include "server/codec/ack.h"
#include "server/codec/frame.h"
#include "tests/fuzz/fuzz.h"

static void check_again(const struct ack *a, enum mqtt_type type, enum mqtt_version v,
                        size_t body_n)
{
    const size_t cap = MQTT_MAX_FIXED_HEADER + ACK_MAX + body_n;
    uint8_t *room = fuzz_room(cap);
    const char *why = NULL;
    struct ack again;
    struct frame f;
    const size_t n = a->props.n == 0
                         ? ack_encode(room, type, v, a->packet_id, a->reason)
                         : ack_encode_props(room, cap, type, a->packet_id, a->reason, a->props);

    FUZZ_CHECK(frame_next(span_of(room, n), n, &f, &why) == FRAME_OK);
    FUZZ_CHECK(f.type == type && f.total == n && f.body.n <= body_n);
    FUZZ_CHECK(ack_decode(&again, f.body, type, v, &why) == DEC_OK);
    FUZZ_CHECK(again.packet_id == a->packet_id && again.reason == a->reason);
    FUZZ_CHECK(span_eq(again.props, a->props));
    free(room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span body;
    enum mqtt_version v;
    enum mqtt_type type;
    struct ack a;
    const char *why = NULL;
    enum dec_rc rc;

    if (size < 1) {
        return 0;
    }
    body = span_of(data + 1, size - 1);
    v = fuzz_version(data[0]);
    type = (enum mqtt_type)(MQTT_PUBACK + (data[0] >> 2 & 3));
    rc = ack_decode(&a, body, type, v, &why);
    FUZZ_CHECK((rc == DEC_OK) == (why == NULL));
    FUZZ_CHECK(rc == DEC_OK || rc == DEC_MALFORMED || rc == DEC_PROTOCOL);
    if (rc == DEC_OK) {
        FUZZ_CHECK(a.packet_id != 0 && (v == MQTT_5 || (size == 3 && a.reason == 0)));
        fuzz_check_view(a.props, body);
        check_again(&a, type, v, body.n);
    }
    return 0;
}
