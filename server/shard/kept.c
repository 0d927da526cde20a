/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retained messages whose bodies are in the store.
 *
 * Happy path: the message goes into the index whole, its record to the store; when that is reported
 * durable a stub takes its place (part_answered() in ticket.c). Replays have the body read
 * (replay.c). Expired ones leave the index and then the store, under the stripe's lock: a newer
 * message of the topic comes to the store behind the removal.
 *
 * Failure modes: the store refuses the record - the body stays in memory; no memory for a removal -
 * the record stays, and expires again after the next start.
 */
#include "server/shard/internal.h"

#include <stdlib.h>

bool kept_on_disk(const struct shard *sh, const struct message *m)
{
    return sh->spills && (uint64_t)m->payload_n + m->props_n > sh->cfg->retained_memory_size;
}

struct removal {
    struct store_unit unit;
    struct store_op op;
    struct message *msg; /* the operation points into it */
};

static void removal_done(struct store_unit *u, enum store_rc rc)
{
    struct removal *r = (struct removal *)u;

    (void)rc; /* refused: as without memory */
    message_unref(r->msg);
    free(r);
}

void kept_expired(void *broker, struct message *m)
{
    struct broker_shared *b = broker;
    struct removal *r = store_keeps(b->store) ? malloc(sizeof(*r)) : NULL;

    if (r == NULL) {
        return;
    }
    *r = (struct removal){
        .unit = {.done = removal_done, .ops = &r->op, .nops = 1},
        .op = {.kind = ST_RETAINED_DEL, .seq = m->number, .name = {message_topic(m), m->topic_n}},
        .msg = m};
    message_ref(m, 1);
    if (store_submit(b->store, &r->unit) != ST_OK) {
        removal_done(&r->unit, ST_CLOSED);
    }
}
