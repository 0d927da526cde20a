/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte of version (bits 0, 1), sender (bit 2) and fixed header flags (bits 4-7), then the body of
 * a PUBLISH. There is one encoding of a message: what is accepted encodes to the same bytes.
 */
#include "server/codec/frame.h"
#include "server/codec/publish.h"
#include "tests/fuzz/fuzz.h"

static void check_message(const struct publish *m, struct span body, bool from_server)
{
    fuzz_check_view(m->topic, body);
    fuzz_check_view(m->payload, body);
    fuzz_check_view(m->props.raw, body);
    FUZZ_CHECK(m->qos <= 2 && (m->qos > 0 || !m->dup));
    FUZZ_CHECK((m->qos > 0) == (m->packet_id > 0));
    FUZZ_CHECK(m->topic.n > 0 || props_has(&m->props, PROP_TOPIC_ALIAS));
    FUZZ_CHECK(from_server || !props_has(&m->props, PROP_SUBSCRIPTION_ID));
    for (size_t i = 0; i < m->topic.n; i++) {
        FUZZ_CHECK(m->topic.p[i] != 0 && m->topic.p[i] != '+' && m->topic.p[i] != '#');
    }
}

static void check_again(const struct publish *m, struct span body, enum mqtt_version v)
{
    const size_t n = publish_size(v, m->qos, m->topic.n, m->props.raw.n, m->payload.n);
    const size_t head_n = n - m->payload.n;
    uint8_t *head = fuzz_room(head_n);
    struct frame f;
    const char *why = NULL;
    size_t at = 0;

    FUZZ_CHECK(publish_encode_head(head, m, m->props.raw, v, &at) == head_n);
    FUZZ_CHECK(n > body.n && head_n > n - body.n);
    FUZZ_CHECK(memcmp(head + n - body.n, body.p, head_n - (n - body.n)) == 0);
    FUZZ_CHECK((at > 0) == (m->qos > 0));
    FUZZ_CHECK(at == 0 || (head[at] << 8 | head[at + 1]) == m->packet_id);
    frame_next(span_of(head, head_n), n, &f, &why);
    FUZZ_CHECK(f.type == MQTT_PUBLISH && f.total == n);
    free(head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span body;
    enum mqtt_version v;
    struct publish m;
    const char *why = NULL;
    enum dec_rc rc;
    bool from_server;

    if (size < 1) {
        return 0;
    }
    body = span_of(data + 1, size - 1);
    v = fuzz_version(data[0]);
    from_server = (data[0] & 4) != 0;
    rc = publish_decode(&m, body, data[0] >> 4, v, from_server, &why);
    FUZZ_CHECK((rc == DEC_OK) == (why == NULL));
    FUZZ_CHECK(rc == DEC_OK || rc == DEC_MALFORMED || rc == DEC_PROTOCOL || rc == DEC_TOPIC_NAME);
    if (rc == DEC_OK) {
        check_message(&m, body, from_server);
        check_again(&m, body, v);
    }
    return 0;
}
