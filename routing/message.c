/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/message.h"

#include <stdlib.h>
#include <string.h>

static uint8_t *append(uint8_t *to, const void *from, size_t n)
{
    if (n > 0) { /* from may be NULL */
        memcpy(to, from, n);
    }
    return to + n;
}

struct message *message_create(const void *topic, size_t topic_n, const void *payload,
                               size_t payload_n, const void *props, size_t props_n)
{
    size_t size = sizeof(struct message) + 2 + topic_n;
    struct message *m;
    uint8_t *to;

    if (topic_n > UINT16_MAX || payload_n > UINT32_MAX || props_n > UINT32_MAX ||
        __builtin_add_overflow(size, payload_n, &size) ||
        __builtin_add_overflow(size, props_n, &size)) {
        return NULL;
    }
    m = malloc(size);
    if (m == NULL) {
        return NULL;
    }
    *m = (struct message){
        .topic_n = (uint16_t)topic_n,
        .payload_n = (uint32_t)payload_n,
        .props_n = (uint32_t)props_n,
    };
    atomic_init(&m->refs, 1);
    m->data[0] = (uint8_t)(topic_n >> 8);
    m->data[1] = (uint8_t)topic_n;
    to = append(m->data + 2, topic, topic_n);
    to = append(to, payload, payload_n);
    append(to, props, props_n);
    return m;
}

struct message *message_create_stub(const void *topic, size_t topic_n, uint64_t body_n)
{
    struct message *m = message_create(topic, topic_n, NULL, 0, NULL, 0);

    if (m != NULL) {
        m->retain = true;
        m->is_stub = true;
        m->stub_n = body_n;
    }
    return m;
}

void message_ref(struct message *m, uint32_t n)
{
    /* Relaxed: the caller holds a reference already, so the count cannot reach zero meanwhile. */
    atomic_fetch_add_explicit(&m->refs, n, memory_order_relaxed);
}

void message_unref_many(struct message *m, uint32_t n)
{
    /* As in message_unref(). */
    if (atomic_load_explicit(&m->refs, memory_order_acquire) == n ||
        atomic_fetch_sub_explicit(&m->refs, n, memory_order_acq_rel) == n) {
        free(m);
    }
}

void message_unref(struct message *m)
{
    /* Release: our last reads come before whoever frees. Acquire: the one that frees comes after
     * everyone's. Who finds 1 has the only reference, and nobody can take another: no need to write
     * it. */
    if (atomic_load_explicit(&m->refs, memory_order_acquire) == 1 ||
        atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1) {
        free(m);
    }
}
