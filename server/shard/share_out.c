/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages that came to a session through a shared group and go to another member: those not sent
 * when it leaves, and of a session that ends also QoS 1 in flight [MQTT-4.8.2-4 ff.].
 */
#include "server/shard/ticket.h"

static bool may_move(const struct out_msg *o, bool session_ends)
{
    if (o->extra == NULL || o->extra->group == 0 || o->msg == NULL) {
        return false;
    }
    /* QoS 2 once sent never moves [MQTT-4.8.2-5]; QoS 1 in flight when its session ends
     * [MQTT-4.8.2-4]. */
    return !o->sent || (session_ends && o->qos == 1);
}

/* Moves one message of a list on; it is gone afterwards, if there is memory. */
static void move_on(struct shard *sh, struct client *c, struct out_list *l, struct out_msg *o)
{
    struct outq *q = c->out;

    ticket_keep(o); /* before its ticket vanishes as if it had been acknowledged */
    if (!share_move(sh, c, o)) {
        return;
    }
    if (l == &q->inflight) {
        outq_done(sh, c, o);
        return;
    }
    out_list_remove(l, o);
    ticket_entry_del(sh, c, o);
    outq_destroy(sh, q, o);
}

static void move_list(struct shard *sh, struct client *c, struct out_list *l, bool session_ends)
{
    struct out_msg *next;

    for (struct out_msg *o = l->first; o != NULL; o = next) {
        next = o->next;
        if (may_move(o, session_ends) &&
            (session_ends || share_has_others_online(sh, c, o->extra->group))) {
            move_on(sh, c, l, o);
        }
    }
}

void outq_move_shared(struct shard *sh, struct client *c, bool session_ends)
{
    if (c->out != NULL && c->nshared > 0 && !sh->ending) {
        move_list(sh, c, &c->out->inflight, session_ends);
        move_list(sh, c, &c->out->queue, session_ends);
        move_list(sh, c, &c->out->disk.fresh, session_ends);
    }
}

void outq_move_group(struct shard *sh, struct client *c, uint64_t group)
{
    struct out_list *lists[2];
    struct out_msg *next;

    if (c->out == NULL || shares_find(sh->b->shares, group) == NULL) {
        return; /* nobody else: it stays with the client */
    }
    lists[0] = &c->out->inflight;
    lists[1] = &c->out->queue;
    for (int i = 0; i < 2; i++) {
        for (struct out_msg *o = lists[i]->first; o != NULL; o = next) {
            next = o->next;
            if (may_move(o, false) && o->extra->group == group) {
                move_on(sh, c, lists[i], o);
            }
        }
    }
}
