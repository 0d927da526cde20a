/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ticket.h - one unit for the store, gathered by one or several shards, and whoever waits for it.
 *
 * A publish with durable interest makes a ticket with a part for itself and one for every shard
 * with durable subscribers. Each shard adds its operations and finishes its part; the last one
 * hands the whole to the store, which never splits it. The store's answer goes to every shard with
 * a part: the origin's answer (slot) may leave then, and messages that waited for their entry may
 * be sent. A change that concerns one shard is a ticket of one part.
 *
 * Happy path: ticket_create, ticket_op..., ticket_finish(part) by every shard, done() on the
 * store's thread, mail to each part's shard, last one frees. Failure: no memory for an operation
 * marks the ticket failed; it is finished all the same, never submitted, and its answer never
 * leaves (link_slot_failed).
 *
 * Threads    a part belongs to its shard from creation (mail orders the hand-over) until
 * ticket_finish(); the fields behind "after" belong to it again when its mail comes back.
 */
#ifndef NOCTULE_SHARD_TICKET_H
#define NOCTULE_SHARD_TICKET_H

#include "server/shard/internal.h"

struct ticket_copy; /* bytes that operations point to */

struct ticket_part {
    struct shard_mail mail; /* comes back with the answer */
    struct ticket *ticket;
    struct shard *shard;
    struct store_op *ops;
    uint32_t nops, cap;
    struct ticket_copy *copies;
    struct message *msg; /* a reference that operations point into; may be NULL */
    /* The shard's own throughout: */
    struct out_wait *waiting; /* messages of this part that are not reported durable yet */
    struct store_op *late;    /* removals of its entries that came before the ticket was answered */
    uint32_t nlate, late_cap;
};

struct ticket {
    struct store_unit unit;
    _Atomic uint32_t parts; /* to be finished; acq_rel: the last one sees all operations */
    _Atomic uint32_t
        refs; /* parts not answered, and the shard that submits; acq_rel: the last one frees */
    _Atomic bool
        submitted; /* release behind store_submit(); acquire by who removes one of its entries */
    _Atomic bool failed;   /* relaxed; ordered by `parts` */
    enum store_rc rc;      /* written by done(), read after the mail */
    struct ack_slot *slot; /* the origin's: the answer that waits */
    struct idset *inbound; /* the origin's: whose entry `inbound_id` waits for this; NULL: none */
    uint16_t inbound_id;
    uint32_t nparts;
    struct ticket_part part[]; /* [0] is the origin's */
};

/* NULL: no memory. part[1..] need their shard set before they are sent. */
struct ticket *ticket_create(struct shard *origin, uint32_t nparts);

/* Appends an operation to a part; NULL: no memory (the ticket is failed). */
struct store_op *ticket_op(struct ticket_part *p, enum store_op_kind kind);
/* Bytes kept for as long as the ticket lives. */
struct store_bytes ticket_bytes(struct ticket_part *p, const void *data, size_t n);

/* The body of m, which the part has to hold a reference to. */
void ticket_body(struct ticket_part *p, const struct message *m);

/* The part is complete; p must not be touched afterwards by this shard, except through its mail. */
void ticket_finish(struct ticket_part *p);

/* The message's entry belongs to this part: it waits until the store has answered. False: no
 * memory. */
bool ticket_wait(struct ticket_part *p, struct client *c, struct out_msg *o);
/* The message goes before its entry was reported: out of the list. */
void ticket_forget(struct out_msg *o);

/* An operation that nobody waits for; handed over at the turn's end. NULL: no memory, or a store
 * that keeps nothing. */
struct store_op *ticket_lazy(struct shard *sh, enum store_op_kind kind);
void ticket_flush_lazy(struct shard *sh);

/* Removes a message's entry from the store, behind its ticket. */
void ticket_entry_del(struct shard *sh, const struct client *c, struct out_msg *o);

#endif
