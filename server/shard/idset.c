/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packet ids of QoS 2 messages received and not released yet [MQTT-4.3.3-10]: while an id is
 * here, a PUBLISH with it is a repeat. Open addressing with backward shift, since most sessions
 * have none and few have many.
 */
#include "server/shard/ticket.h"

#include <stdlib.h>

static uint32_t home(const struct idset *s, uint16_t packet_id)
{
    return (packet_id * 2654435761u) >> 16 & (s->cap - 1);
}

struct in_id *idset_find(const struct idset *s, uint16_t packet_id)
{
    if (s->count == 0) {
        return NULL;
    }
    for (uint32_t i = home(s, packet_id);; i = (i + 1) & (s->cap - 1)) {
        if (s->slots[i].packet_id == packet_id) {
            return &s->slots[i];
        }
        if (s->slots[i].packet_id == 0) {
            return NULL;
        }
    }
}

static struct in_id *place(struct idset *s, struct in_id e)
{
    uint32_t i = home(s, e.packet_id);

    while (s->slots[i].packet_id != 0) {
        i = (i + 1) & (s->cap - 1);
    }
    s->slots[i] = e;
    return &s->slots[i];
}

static bool grow(struct idset *s)
{
    struct idset bigger = {.cap = s->cap == 0 ? 8 : s->cap * 2, .count = s->count};

    bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
    if (bigger.slots == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < s->cap; i++) {
        if (s->slots[i].packet_id != 0) {
            place(&bigger, s->slots[i]);
        }
    }
    free(s->slots);
    *s = bigger;
    return true;
}

struct in_id *idset_add(struct idset *s, uint16_t packet_id)
{
    assert(packet_id != 0 && idset_find(s, packet_id) == NULL);
    if (s->count + s->count / 2 >= s->cap && !grow(s)) {
        return NULL;
    }
    s->count++;
    return place(s, (struct in_id){packet_id, NULL});
}

/* The ticket must not look for an entry that has gone. */
static void let_go(struct in_id *e)
{
    if (e->ticket != NULL) {
        e->ticket->inbound = NULL;
        e->ticket = NULL;
    }
}

void idset_remove(struct idset *s, uint16_t packet_id)
{
    struct in_id *e = idset_find(s, packet_id);
    uint32_t hole;

    if (e == NULL) {
        return;
    }
    let_go(e);
    hole = (uint32_t)(e - s->slots);
    s->count--;
    for (uint32_t i = (hole + 1) & (s->cap - 1); s->slots[i].packet_id != 0;
         i = (i + 1) & (s->cap - 1)) {
        /* May move back if its home is not between the hole and here. */
        uint32_t h = home(s, s->slots[i].packet_id);
        if (((i - h) & (s->cap - 1)) >= ((i - hole) & (s->cap - 1))) {
            s->slots[hole] = s->slots[i];
            hole = i;
        }
    }
    s->slots[hole] = (struct in_id){0, NULL};
    if (s->count == 0) {
        free(s->slots);
        *s = (struct idset){0};
    }
}

void idset_free(struct idset *s)
{
    for (uint32_t i = 0; i < s->cap; i++) {
        if (s->slots[i].packet_id != 0) {
            let_go(&s->slots[i]);
        }
    }
    free(s->slots);
    *s = (struct idset){0};
}
