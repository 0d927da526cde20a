/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte of version (bits 0, 1) and kind (bit 2: UNSUBSCRIBE), then the body. What is accepted
 * walks to its end, and its filters and options encode to the same bytes.
 */
#include "server/codec/frame.h"
#include "server/codec/subscribe.h"
#include "tests/fuzz/fuzz.h"

static struct subscribe_item *walk(struct subscribe s, struct span body)
{
    struct subscribe_item *items = calloc(s.count, sizeof(*items));
    struct subscribe_item past;

    FUZZ_CHECK(items != NULL && s.count > 0);
    for (size_t i = 0; i < s.count; i++) {
        FUZZ_CHECK(subscribe_next(&s, &items[i]));
        FUZZ_CHECK(items[i].filter.n > 0 && items[i].qos <= 2 && items[i].retain_handling <= 2);
        fuzz_check_view(items[i].filter, body);
    }
    FUZZ_CHECK(!subscribe_next(&s, &past));
    return items;
}

static void check_again(const struct subscribe *s, const struct subscribe_item *items,
                        struct span body, enum mqtt_version v)
{
    const size_t cap = body.n + MQTT_MAX_FIXED_HEADER;
    uint8_t *room = fuzz_room(cap);
    const char *why = NULL;
    struct frame f;
    const size_t n = (s->options ? subscribe_encode : unsubscribe_encode)(
        room, cap, v, s->packet_id, s->props.raw, items, s->count);

    FUZZ_CHECK(frame_next(span_of(room, n), n, &f, &why) == FRAME_OK);
    FUZZ_CHECK(f.type == (s->options ? MQTT_SUBSCRIBE : MQTT_UNSUBSCRIBE));
    FUZZ_CHECK(span_eq(f.body, body));
    free(room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span body;
    enum mqtt_version v;
    struct subscribe s;
    const char *why = NULL;
    enum dec_rc rc;

    if (size < 1) {
        return 0;
    }
    body = span_of(data + 1, size - 1);
    v = fuzz_version(data[0]);
    rc = (data[0] & 4 ? unsubscribe_decode : subscribe_decode)(&s, body, v, &why);
    FUZZ_CHECK((rc == DEC_OK) == (why == NULL));
    FUZZ_CHECK(rc == DEC_OK || rc == DEC_MALFORMED || rc == DEC_PROTOCOL || rc == DEC_TOPIC_FILTER);
    if (rc == DEC_OK) {
        struct subscribe_item *items = walk(s, body);

        FUZZ_CHECK(s.packet_id != 0 && s.options == ((data[0] & 4) == 0));
        check_again(&s, items, body, v);
        free(items);
    }
    return 0;
}
