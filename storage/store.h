/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h - the broker's durable state, as the rest of the broker sees it: sessions, subscriptions,
 * queued messages, QoS 2 steps, retained messages, wills.
 *
 * Changes are handed over in units. A unit is never split: all of it is kept, or none. Units of one
 * thread are kept in the order they were submitted. What was reported ST_OK survives whatever the
 * store promises to survive; what was not may or may not be there.
 *
 * Threads    store_submit(): any. unit->done(): a thread of the store's; it must only hand over.
 * Ownership  a unit and everything its operations point to are the store's until done(), which is
 * called exactly once; a unit that store_submit() did not accept never left the caller. Blocking
 * store_open_*() and store_close() only. Failure    ST_NOSPACE fails its unit and leaves the rest.
 * ST_IO is final: every later unit reports it.
 */
#ifndef NOCTULE_STORAGE_STORE_H
#define NOCTULE_STORAGE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum store_rc {
    ST_OK,
    ST_CLOSED,  /* being closed: nothing more is taken */
    ST_NOSPACE, /* map or disk full */
    ST_IO,      /* a write or sync failed */
    ST_NOMEM,
};

/* What is kept, one operation each. The comment names the fields that count. */
enum store_op_kind {
    ST_SESSION_PUT,  /* session, name (client id), number (expiry, s) */
    ST_SESSION_END,  /* session: with all that belongs to it */
    ST_SUB_PUT,      /* session, name (filter), flags (options), number (subscription id) */
    ST_SUB_DEL,      /* session, name */
    ST_BODY_PUT,     /* body, name (topic), data (payload), props */
    ST_ENTRY_PUT,    /* session, seq, body, packet_id (0: none yet), flags, number, expires */
    ST_ENTRY_STEP,   /* session, seq, packet_id, flags: id given out, PUBREC received */
    ST_ENTRY_DEL,    /* session, seq, body */
    ST_INBOUND_PUT,  /* session, packet_id: QoS 2 id received */
    ST_INBOUND_DEL,  /* session, packet_id: released */
    ST_RETAINED_PUT, /* seq (retained number), name, data, props, flags, expires */
    ST_RETAINED_DEL, /* seq, name */
    ST_WILL_PUT,     /* session, name, data, props, flags, number (delay, s) */
    ST_WILL_DEL,     /* session */
    ST_OP_KINDS,
};

struct store_bytes {
    const void *p;
    size_t n;
};

struct store_op {
    enum store_op_kind kind;
    uint8_t flags;
    uint16_t packet_id;
    uint32_t number;
    uint64_t session; /* a session's id in the store, never used again */
    uint64_t seq;
    uint64_t body;      /* a body's id, never used again */
    int64_t expires_ms; /* CLOCK_BOOTTIME; 0: never */
    struct store_bytes name, data, props;
};

struct store_unit {
    struct store_unit *next; /* the store's */
    void (*done)(struct store_unit *u, enum store_rc rc);
    struct store_op *ops; /* may be NULL when nops is 0: then done() marks a place in the order */
    uint32_t nops;
    int64_t due_ms; /* the store's */
};

struct store;

/*
 * The store of `persistence false`: keeps nothing beyond the process. delay_ms makes it answer that
 * much later, as a slow disk would.
 */
enum store_rc store_open_memory(unsigned delay_ms, struct store **out)
    __attribute__((warn_unused_result));
/* Answers what it has taken, then ends. NULL is fine; *s becomes NULL. */
void store_close(struct store **s);

/*
 * False: the store keeps nothing and answers at once, so nobody needs to hand it anything; what
 * would be a unit may be taken as done. Constant while the store is open.
 */
bool store_keeps(const struct store *s);

enum store_rc store_submit(struct store *s, struct store_unit *u)
    __attribute__((warn_unused_result));

struct store_stats {
    uint64_t units;
    uint64_t ops[ST_OP_KINDS];
    uint64_t pending; /* units taken and not answered yet */
};
void store_stats(struct store *s, struct store_stats *out);

#endif
