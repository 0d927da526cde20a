/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packet ids of QoS 2 messages received and not released yet [MQTT-4.3.3-10]: while an id is
 * here, a PUBLISH with it is a repeat. Open addressing with backward shift, since most sessions
 * have none and few have many.
 */
#include "server/shard/ticket.h"

#include <stdlib.h>

static uint32_t home(const struct idset_slots *t, uint16_t packet_id)
{
    return (packet_id * 2654435761u) >> 16 & (t->cap - 1);
}

struct in_id *idset_find(const struct idset *s, uint16_t packet_id)
{
    struct idset_slots *t = s->slots;

    if (t == NULL) {
        return NULL;
    }
    for (uint32_t i = home(t, packet_id);; i = (i + 1) & (t->cap - 1)) {
        if (t->at[i].packet_id == packet_id) {
            return &t->at[i];
        }
        if (t->at[i].packet_id == 0) {
            return NULL;
        }
    }
}

static struct in_id *place(struct idset_slots *t, struct in_id e)
{
    uint32_t i = home(t, e.packet_id);

    while (t->at[i].packet_id != 0) {
        i = (i + 1) & (t->cap - 1);
    }
    t->at[i] = e;
    t->count++;
    return &t->at[i];
}

static bool grow(struct idset *s)
{
    struct idset_slots *t = s->slots;
    uint32_t cap = t == NULL ? 8 : t->cap * 2;
    struct idset_slots *bigger = calloc(1, sizeof(*bigger) + cap * sizeof(bigger->at[0]));

    if (bigger == NULL) {
        return false;
    }
    bigger->cap = cap;
    for (uint32_t i = 0; t != NULL && i < t->cap; i++) {
        if (t->at[i].packet_id != 0) {
            place(bigger, t->at[i]);
        }
    }
    free(t);
    s->slots = bigger;
    return true;
}

struct in_id *idset_add(struct idset *s, uint16_t packet_id)
{
    uint32_t n = idset_count(s);

    assert(packet_id != 0 && idset_find(s, packet_id) == NULL);
    if ((s->slots == NULL || n + n / 2 >= s->slots->cap) && !grow(s)) {
        return NULL;
    }
    return place(s->slots, (struct in_id){packet_id, NULL});
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
    struct idset_slots *t = s->slots;
    uint32_t hole;

    if (e == NULL) {
        return;
    }
    let_go(e);
    hole = (uint32_t)(e - t->at);
    t->count--;
    for (uint32_t i = (hole + 1) & (t->cap - 1); t->at[i].packet_id != 0;
         i = (i + 1) & (t->cap - 1)) {
        /* May move back if its home is not between the hole and here. */
        uint32_t h = home(t, t->at[i].packet_id);
        if (((i - h) & (t->cap - 1)) >= ((i - hole) & (t->cap - 1))) {
            t->at[hole] = t->at[i];
            hole = i;
        }
    }
    t->at[hole] = (struct in_id){0, NULL};
    if (t->count == 0) {
        idset_free(s);
    }
}

void idset_free(struct idset *s)
{
    struct idset_slots *t = s->slots;

    for (uint32_t i = 0; t != NULL && i < t->cap; i++) {
        if (t->at[i].packet_id != 0) {
            let_go(&t->at[i]);
        }
    }
    free(t);
    s->slots = NULL;
}
