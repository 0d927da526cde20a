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
 * Happy path: ticket_create, ticket_op..., ticket_finish(part) by every shard, done_all() on the
 * store's thread, mail to each shard that waits for something, last one frees. Parts go to a shard
 * and come back as lists, one item of mail for many: each points to one some places behind it, so
 * that what another core wrote is fetched before its turn.
 *
 * Failure: what has to be recorded and cannot be, for want of memory, wherever that is noticed,
 * refuses the ticket (ticket_refuse()). It is finished all the same, never submitted, and its
 * answer never leaves (link_slot_failed): who waits for it loses the connection and sends again. So
 * what was not sent yet goes from the queues (outq_refused()). The turn's changes are many
 * clients' and are never refused: an operation that cannot be added is left out alone.
 *
 * Held tickets: a QoS 1 message that all its receivers acknowledge soon needs no disk. Its ticket
 * stays with its origin for a moment (ticket_hold), in the order of publishing; when the last of
 * its entries is acknowledged first, it vanishes: the answer leaves, the store never hears of it.
 * It is handed over as soon as a part says that somebody will not acknowledge soon, when its time
 * is over, or when a later ticket of the same publisher is not held. Who is told by `state`, which
 * decides between the origin (due), the last to finish and the last acknowledgement (vanished).
 *
 * Changes of one shard and turn (lazy): removals nobody waits for, and the QoS 2 steps whose
 * answers do, share one unit, handed over at the turn's end.
 *
 * Chains: units go to the store together, one hand-over for a turn. What may wait for that are only
 * units of bodies and new entries (is_plain()); any other goes at once, with those before it. So a
 * shard's units keep their order, and of different shards' only a plain one may come to the store
 * later than it was finished. That is safe, since what it has to come before waits for it as well:
 *   - removals and steps of its entries: ticket_entry_del() looks whether its chain has left; other
 *     steps follow its answer;
 *   - pages of a queue and the spilling of messages, which rely on what was answered only;
 *   - the end of a session takes its entries, wherever they stand.
 * What has to come before it (the session's record, its subscriptions, releases of QoS 2 ids) is
 * not plain, so it has left when the shard that made it goes on.
 *
 * Threads    a part belongs to its shard from creation (mail orders the hand-over) until
 * ticket_finish(); the fields behind "the shard's own" throughout.
 */
#ifndef NOCTULE_SHARD_TICKET_H
#define NOCTULE_SHARD_TICKET_H

#include "server/shard/internal.h"

struct ticket_copy;  /* bytes that operations point to */
struct ticket_slots; /* answers that wait, beyond the first */

/* An entry that went before its ticket was answered: its removal goes behind it. */
struct ticket_late {
    uint64_t session, seq;
    struct ticket *move; /* the unit that moves it to another session; NULL: a removal alone */
};

struct ticket_lates; /* more of them */

/* Two lines of the processor's cache: parts go from core to core, twice for each message. */
struct ticket_part {
    union {
        struct post_item mail;     /* for a list of parts, in the first one of it */
        struct ticket_part *ahead; /* in the others: one that stands some places behind it */
    };
    struct ticket *ticket;
    struct shard *shard;
    struct store_op *ops; /* in the ticket's own memory while they fit there */
    uint32_t nops, cap;
    uint32_t nlive; /* entries that vanish when they are acknowledged */
    bool in_place;  /* ops */
    bool quiet;     /* nobody here waits for the answer */
    bool late_here; /* `late` is in use */
    bool is_more;   /* on its way in a list, not as the first: post_count_more() was told */
    /* The shard's own: messages of this part that are not reported durable yet. */
    struct out_wait *waiting;
    struct message *msg;      /* the first part's: a reference that operations point into; may be
                                 NULL. Others: that message, or NULL */
    struct ticket_part *next; /* in a list */
    /* The shard's own but for `way`, one after the other: */
    union {
        struct {
            struct message *msg; /* a reference */
            uint64_t filter;     /* who subscribes to it gets the message */
        } way;                   /* before its shard has it, see ticket_send() */
        struct out_wait wait;    /* the first of `waiting`, .part NULL: free */
        struct ticket_late late; /* a removal that came too early */
    };
    struct ticket_lates *lates; /* more of these */
};

struct ticket {
    struct store_unit unit;
    /* Parts to be finished, and above them (<< 32) entries not acknowledged; acq_rel: who brings it
     * to 0, or the parts, sees all operations. */
    _Atomic uint64_t open;
    /* Mails under way, and of a held ticket who finishes last; acq_rel: the last one frees. */
    _Atomic uint32_t refs;
    _Atomic uint32_t state; /* bits, see ticket.c; acq_rel */
    _Atomic bool failed;    /* relaxed; ordered by `open` */
    _Atomic bool urgent;    /* relaxed; ordered by `open`: somebody will not acknowledge soon */
    _Atomic uint8_t took;   /* likewise: bits, see ticket_took() */
    bool holds;             /* it may vanish */
    bool unsent;            /* until its origin has finished no other shard has it */
    uint8_t rc;             /* enum store_rc; written by done_all(), read after the mail */
    uint32_t nparts;
    /* The origin's: */
    uint16_t inbound_id;
    bool retained : 1;         /* its message is a retained one that need not stay in memory */
    bool only_asks : 1;        /* what came of its message; there is nothing to store */
    bool may_decline : 1;      /* its publisher can be told that no session took the message */
    bool has_more : 1;         /* slots or copies */
    bool is_usual : 1;         /* in size: kept for the next one */
    bool comes_again : 1;      /* its message, if the store does not take it; set before any part
                                  is sent */
    struct shard *by;          /* by whom it is handed over, */
    uint64_t chain;            /* and in which of its chains; ordered by `state` */
    struct ack_slot *slot;     /* the answer that waits */
    struct idset *inbound;     /* whose entry `inbound_id` waits for this; NULL: none */
    struct share_moves *moves; /* whose message it hands on; NULL: none */
    /* What few tickets have: */
    struct ticket_slots *slots; /* more answers */
    struct ticket_copy *copies;
    struct post_item hint; /* to the origin of a held ticket: it is urgent */
    bool is_held;          /* in the shard's list */
    uint32_t number;       /* counts the shard's held tickets */
    int64_t held_ms;       /* since when */
    struct ticket *held_next, *held_prev;
    struct ticket_part part[]; /* [0] is the origin's */
};

_Static_assert(sizeof(struct ticket_part) == 128, "parts fill lines of the cache");
_Static_assert(sizeof(struct ticket) == 192, "likewise");
_Static_assert(sizeof(((struct ticket_part *)0)->way) <= offsetof(struct out_wait, part),
               "a part on its way has nothing that waits");

/* With room for nops operations of the origin's part, and one of each other: more need memory of
 * their own. NULL: no memory. part[1..] need their shard set before they are sent. */
struct ticket *ticket_create(struct shard *origin, uint32_t nparts, uint32_t nops);

void ticket_free_spare(struct shard *sh); /* at the shard's end */

/* Something of the part cannot be recorded, or not be delivered: nothing of the ticket is. */
void ticket_refuse(struct ticket_part *p);
/* What came of the message here: it was offered to so many sessions, of which some had no room. */
void ticket_took(struct ticket_part *p, uint32_t given, uint32_t dropped);
bool ticket_is_refused(const struct ticket *t);
/* Appends an operation to a part; NULL: no memory (the ticket is refused). */
struct store_op *ticket_op(struct ticket_part *p, enum store_op_kind kind);
/* Bytes kept for as long as the ticket lives; p is the origin's. No memory: NULL, refused. */
void *ticket_room(struct ticket_part *p, size_t n);
struct store_bytes ticket_bytes(struct ticket_part *p, const void *data, size_t n);

/* The body of m, which the part has to hold a reference to. */
void ticket_body(struct ticket_part *p, const struct message *m);

/* The part is complete; p must not be touched afterwards by this shard, except through its mail. */
void ticket_finish(struct ticket_part *p);

/*
 * The part to its shard, which delivers m to the subscribers of one filter and finishes it. The
 * reference to m is the caller's no more. Parts that follow each other to one shard go together, as
 * one item of mail.
 */
void ticket_send(struct shard *sh, struct ticket_part *p, struct message *m, uint64_t filter);

/* The message's entry belongs to this part: it waits until the store has answered. False: no
 * memory (the ticket is refused). */
bool ticket_wait(struct ticket_part *p, struct client *c, struct out_msg *o);
/* The message goes before its entry was reported: out of the list. */
void ticket_forget(struct out_msg *o);

/* ---- held tickets ---- */

/* Before anything is sent, for every ticket of a publish, in their order: may_vanish ones, whose
 * answer waits in t->slot, are held if that has paid for this publisher lately. */
void ticket_hold(struct shard *sh, struct ticket *t, uint64_t publisher, bool may_vanish);
/* An entry of this part will not be acknowledged soon: its session is away, or it waits. */
void ticket_urgent(struct ticket_part *p);
/* The message's entry goes for another reason than its acknowledgement: its ticket cannot vanish.
 */
void ticket_keep(const struct out_msg *o);
/* There is memory for ticket_move(). */
bool ticket_may_move(const struct out_msg *o);
/*
 * The message moves to another session. `move` takes its entry away and puts the new one; its first
 * part is finished here, behind the answer to the ticket that puts the entry, so that a crash finds
 * one of both. ticket_keep() has been called: that ticket does not vanish. The message waits no
 * more.
 */
void ticket_move(struct out_msg *o, struct ticket *move);
/* Answers what has vanished in this turn. */
void ticket_run_gone(struct shard *sh);
/* Hands over what has been held for long enough. */
void ticket_expire(struct shard *sh);
/* Milliseconds until there is something to expire; -1: nothing is held. */
int ticket_wait_ms(const struct shard *sh);
/* Hands over all that is held, and the turn's changes. */
void ticket_flush(struct shard *sh);

/* ---- the turn's changes ---- */

/* An operation handed over at the turn's end. NULL: no memory, or a store that keeps nothing. */
struct store_op *ticket_lazy(struct shard *sh, enum store_op_kind kind);
/* Likewise, with a copy of the name. */
struct store_op *ticket_lazy_named(struct shard *sh, enum store_op_kind kind, const void *name,
                                   size_t n);
/* The message waits for the operation just added. False: no memory, the operation is gone. */
bool ticket_lazy_wait(struct shard *sh, struct client *c, struct out_msg *o);
/* The answer leaves when the operation just added is durable; s may be NULL. */
void ticket_lazy_slot(struct shard *sh, struct link *l, struct ack_slot *s);
/* Hands over what the shard has gathered. */
void ticket_flush_chain(struct shard *sh);
/* The same with the changes. */
void ticket_flush_lazy(struct shard *sh);

/* The QoS 2 id is released by one of the turn's changes; an INBOUND_PUT of the same id elsewhere
 * has to go behind it: ticket_before_inbound() sees to that. */
void ticket_released(struct shard *sh, uint64_t session, uint16_t packet_id);
void ticket_before_inbound(struct shard *sh, uint64_t session, uint16_t packet_id);

/* Removes a message's entry from the store, behind its ticket. */
void ticket_entry_del(struct shard *sh, const struct client *c, struct out_msg *o);

#endif
