/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte of version (bits 0, 1) and kind (bit 2: AUTH), then the body of a DISCONNECT or AUTH. What
 * is accepted and encoded again, in the short form where that will do, decodes to the same.
 */
#include "server/codec/connect.h"
#include "server/codec/frame.h"
#include "tests/fuzz/fuzz.h"

typedef size_t (*encode_fn)(uint8_t *p, size_t cap, enum mqtt_reason reason, struct span props);

/* The two packets look alike; so one of them can stand for both. */
static enum dec_rc decode(struct disconnect *out, struct span body, enum mqtt_type type,
                          enum mqtt_version v, const char **why)
{
    struct auth a = {.reason = RC_SUCCESS};
    enum dec_rc rc;

    if (type == MQTT_DISCONNECT) {
        return disconnect_decode(out, body, v, why);
    }
    rc = auth_decode(&a, body, why);
    *out = (struct disconnect){.reason = a.reason, .props = a.props};
    return rc;
}

static void check_again(const struct disconnect *d, enum mqtt_type type, size_t body_n)
{
    const encode_fn encode = type == MQTT_DISCONNECT ? disconnect5_encode : auth_encode;
    const size_t cap =
        MQTT_MAX_FIXED_HEADER + 1 + body_n; /* a property length may have been left out */
    uint8_t *room = fuzz_room(cap);
    const size_t n = encode(room, cap, d->reason, d->props.raw);
    struct disconnect again;
    const char *why = NULL;
    struct frame f;

    FUZZ_CHECK(frame_next(span_of(room, n), n, &f, &why) == FRAME_OK);
    FUZZ_CHECK(f.type == type && f.total == n);
    FUZZ_CHECK(decode(&again, f.body, type, MQTT_5, &why) == DEC_OK);
    FUZZ_CHECK(again.reason == d->reason && span_eq(again.props.raw, d->props.raw));
    free(room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct disconnect d;
    struct span body;
    enum mqtt_version v;
    enum mqtt_type type;
    const char *why = NULL;
    enum dec_rc rc;

    if (size < 1) {
        return 0;
    }
    body = span_of(data + 1, size - 1);
    v = fuzz_version(data[0]);
    type = data[0] & 4 ? MQTT_AUTH : MQTT_DISCONNECT;
    rc = decode(&d, body, type, v, &why);
    FUZZ_CHECK((rc == DEC_OK) == (why == NULL));
    FUZZ_CHECK(rc == DEC_OK || rc == DEC_MALFORMED || rc == DEC_PROTOCOL);
    if (rc == DEC_OK) {
        FUZZ_CHECK(type == MQTT_AUTH || v == MQTT_5 || body.n == 0);
        fuzz_check_view(d.props.raw, body);
        check_again(&d, type, body.n);
    }
    return 0;
}
