/* SPDX-License-Identifier: Apache-2.0 */
/*
 * message.h - one application message: a single allocation, immutable once shared, atomically
 * counted.
 *
 * Layout behind the struct: two bytes of topic length (big endian), topic, payload, properties - so
 * that "length, topic, payload" is what MQTT 3.1.1 puts on the wire for QoS 0, in one piece.
 *
 * Threads    any, after message_create(); fields are written only before the message is shared.
 * Ownership  counted references. message_unref() of the last one frees.
 */
#ifndef NOCTULE_ROUTING_MESSAGE_H
#define NOCTULE_ROUTING_MESSAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct message {
    _Atomic uint32_t refs;
    uint32_t payload_n; /* bytes */
    uint32_t props_n;   /* bytes of v5 properties to pass on, encoded, in order of arrival, expiry
                           left out */
    uint16_t topic_n;   /* bytes */
    uint8_t qos;        /* as published */
    bool retain : 1;    /* as published */
    bool is_stub : 1; /* of a retained message whose payload and properties are in the store only */
    bool is_own : 1;  /* the broker's, not a client's: the limits of retained.h do not count it */
    bool lent : 1;    /* lies in somebody's buffer, see message_lend() */
    uint64_t number;  /* retained number, taken under the stripe's lock; 0: not retained */
    union {
        uint64_t body_id; /* the store's id for the body; 0: not stored */
        uint64_t stub_n;  /* of a stub: bytes of payload and properties in the store */
    };
    uint64_t origin;    /* opaque id of the publisher (no local); 0: none */
    int64_t expires_ms; /* CLOCK_BOOTTIME; 0: never */
    uint8_t data[];     /* topic length, topic, payload, properties */
};

/* NULL: no memory. refs is 1; qos, retain, number, ids and expiry are 0 and the caller's to set
 * before sharing. */
struct message *message_create(const void *topic, size_t topic_n, const void *payload,
                               size_t payload_n, const void *props, size_t props_n);

/* What stays in memory of a retained message whose payload and properties, body_n bytes, are in the
 * store: topic, number, expiry; the last two are the caller's to set. */
struct message *message_create_stub(const void *topic, size_t topic_n, uint64_t body_n);

/*
 * A message in a buffer of the caller's, which is aligned to 8 bytes. It is not counted, and ends
 * with the buffer: who needs it longer makes a message_copy() of it. NULL: it takes more than
 * `room` bytes.
 */
struct message *message_lend(void *at, size_t room, const void *topic, size_t topic_n,
                             const void *payload, size_t payload_n, const void *props,
                             size_t props_n);
/* Likewise a copy; there is room for message_size() bytes. */
struct message *message_lend_copy(void *at, const struct message *m);
/* A message of its own, with one reference. NULL: no memory. */
struct message *message_copy(const struct message *m);

void message_ref(struct message *m, uint32_t n);
/* By who has the only reference, before anybody else knows m. */
static inline void message_ref_unshared(struct message *m)
{
    /* relaxed: what hands m on publishes it. */
    atomic_store_explicit(&m->refs, 2, memory_order_relaxed);
}
void message_unref(struct message *m);
void message_unref_many(struct message *m, uint32_t n); /* n of them at once; n > 0 */

static inline const char *message_topic(const struct message *m)
{
    return (const char *)m->data + 2;
}
static inline const uint8_t *message_payload(const struct message *m)
{
    return m->data + 2 + m->topic_n;
}
static inline const uint8_t *message_props(const struct message *m)
{
    return m->data + 2 + m->topic_n + m->payload_n;
}
/* Bytes of memory the message takes: what limits and budgets count. */
static inline size_t message_size_of(size_t topic_n, size_t payload_n, size_t props_n)
{
    return sizeof(struct message) + 2 + topic_n + payload_n + props_n;
}
static inline size_t message_size(const struct message *m)
{
    return message_size_of(m->topic_n, m->payload_n, m->props_n);
}

#endif
