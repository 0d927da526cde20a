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

/* Of a message of these parts; 0: there is no such message. */
static size_t size_of(size_t topic_n, size_t payload_n, size_t props_n)
{
    size_t size = sizeof(struct message) + 2 + topic_n;

    if (topic_n > UINT16_MAX || payload_n > UINT32_MAX || props_n > UINT32_MAX ||
        __builtin_add_overflow(size, payload_n, &size) ||
        __builtin_add_overflow(size, props_n, &size)) {
        return 0;
    }
    return size;
}

static struct message *fill(void *at, bool lent, const void *topic, size_t topic_n,
                            const void *payload, size_t payload_n, const void *props,
                            size_t props_n)
{
    struct message *m = at;
    uint8_t *to;

    *m = (struct message){
        .topic_n = (uint16_t)topic_n,
        .payload_n = (uint32_t)payload_n,
        .props_n = (uint32_t)props_n,
        .lent = lent,
    };
    atomic_init(&m->refs, 1);
    m->data[0] = (uint8_t)(topic_n >> 8);
    m->data[1] = (uint8_t)topic_n;
    to = append(m->data + 2, topic, topic_n);
    to = append(to, payload, payload_n);
    append(to, props, props_n);
    return m;
}

struct message *message_create(const void *topic, size_t topic_n, const void *payload,
                               size_t payload_n, const void *props, size_t props_n)
{
    const size_t size = size_of(topic_n, payload_n, props_n);
    void *at = size == 0 ? NULL : malloc(size);

    return at == NULL ? NULL : fill(at, false, topic, topic_n, payload, payload_n, props, props_n);
}

struct message *message_lend(void *at, size_t room, const void *topic, size_t topic_n,
                             const void *payload, size_t payload_n, const void *props,
                             size_t props_n)
{
    const size_t size = size_of(topic_n, payload_n, props_n);

    return size == 0 || size > room
               ? NULL
               : fill(at, true, topic, topic_n, payload, payload_n, props, props_n);
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

static struct message *copy_to(void *at, const struct message *m, size_t size, bool lent)
{
    const size_t after = offsetof(struct message, payload_n);
    const size_t rest = offsetof(struct message, number);
    struct message *copy = at;

    /* Not the count, which is first: others may have m as well, and change it. In two pieces, for
     * the larger one to be aligned. */
    memcpy((char *)at + after, (const char *)m + after, rest - after);
    memcpy((char *)at + rest, (const char *)m + rest, size - rest);
    atomic_init(&copy->refs, 1);
    copy->lent = lent;
    return copy;
}

struct message *message_lend_copy(void *at, const struct message *m)
{
    return copy_to(at, m, message_size(m), true);
}

struct message *message_copy(const struct message *m)
{
    const size_t size = message_size(m);
    void *at = malloc(size);

    return at == NULL ? NULL : copy_to(at, m, size, false);
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
