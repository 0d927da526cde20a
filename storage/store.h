/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h - the broker's durable state, as the rest of the broker sees it: sessions, subscriptions,
 * queued messages, QoS 2 steps, retained messages, wills.
 *
 * Changes are handed over in units. A unit is never split: all of it is kept, or none. Units of one
 * thread are kept in the order they were submitted. What was reported ST_OK survives whatever the
 * store promises to survive; what was not may or may not be there.
 *
 * Threads    store_submit(): any. unit->done(), done_all(): a thread of the store's; they must only
 * hand over.
 *
 * Ownership  a unit and everything its operations point to are the store's until done() or
 * done_all(), of which one is called exactly once for it; a unit that store_submit() did not accept
 * never left the caller.
 *
 * Blocking   store_open*(), store_load(), store_backup() and store_close() only.
 *
 * Failure    ST_NOSPACE fails its unit and leaves the rest. ST_IO is final: every later unit
 * reports it.
 *
 * Order      an operation has its effect behind those submitted before it. Two freedoms are used:
 * an entry's body is put in the same unit as the entry (a body that no entry of its unit refers to
 * is not kept), and what is submitted for a session that was ended, or never put, is dropped, a
 * will excepted (that of a session that is not kept).
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
    ST_SESSION_PUT,  /* session, name (client id), number (expiry, s), flags (the caller's),
                        expires (when it was disconnected; 0: it is connected) */
    ST_SESSION_END,  /* session: with all that belongs to it */
    ST_SUB_PUT,      /* session, name (filter), flags (options), number (subscription id) */
    ST_SUB_DEL,      /* session, name */
    ST_BODY_PUT,     /* body, name (topic), data (payload), props, flags, expires */
    ST_ENTRY_PUT,    /* session, seq, body, packet_id (0: none yet), flags, number, expires,
                        group (0: none) */
    ST_ENTRY_STEP,   /* session, seq, packet_id, flags: id given out, PUBREC received */
    ST_ENTRY_DEL,    /* session, seq */
    ST_INBOUND_PUT,  /* session, packet_id: QoS 2 id received */
    ST_INBOUND_DEL,  /* session, packet_id: released */
    ST_RETAINED_PUT, /* seq (retained number), name, data, props, flags, number, expires */
    ST_RETAINED_DEL, /* seq, name */
    ST_WILL_PUT,     /* session, name, data, props, flags, number (delay, s), expires */
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
    uint32_t group;   /* entries only; see store_group() */
    uint64_t session; /* a session's id in the store, never used again */
    uint64_t seq;
    uint64_t body;      /* a body's id, never used again */
    int64_t expires_ms; /* CLOCK_BOOTTIME; 0: never */
    struct store_bytes name, data, props;
};

/* What stands for a shared subscription's text in ST_ENTRY_PUT; never 0. */
uint32_t store_group(const void *text, size_t n);

struct store_unit {
    struct store_unit *next;  /* the store's */
    struct store_unit *ahead; /* the store's: of its chain, some before it; or NULL */
    void (*done)(struct store_unit *u, enum store_rc rc);
    struct store_op *ops; /* may be NULL when nops is 0: then done() marks a place in the order */
    uint32_t nops;
    int64_t due_ms; /* the store's */
    /* Not NULL: called instead of done(), with a list (by `next`, in the order of submission) of
     * units that have the same done_all and the same answer: as many as stood side by side. */
    void (*done_all)(struct store_unit *list, enum store_rc rc);
};

struct store;

/*
 * The store of `persistence false`: keeps nothing beyond the process. delay_ms makes it answer that
 * much later, as a slow disk would.
 */
enum store_rc store_open_memory(unsigned delay_ms, struct store **out)
    __attribute__((warn_unused_result));
/* Answers what it has taken, then ends; nobody may be submitting any more. NULL is fine; *s becomes
 * NULL, which is a closed store for everything below: it takes nothing (ST_CLOSED) and keeps
 * nothing. What its last answers cause may still come and ask. */
void store_close(struct store **s);

/*
 * False: the store keeps nothing and answers at once, so nobody needs to hand it anything; what
 * would be a unit may be taken as done. Constant while the store is open.
 */
bool store_keeps(const struct store *s);

enum store_rc store_submit(struct store *s, struct store_unit *u)
    __attribute__((warn_unused_result));

/* Units that are handed over together, which costs as much as one. Zeroed it is empty. */
#define STORE_AHEAD 4u
struct store_chain {
    struct store_unit *newest, *oldest; /* by `next`, the newest first */
    struct store_unit *recent[STORE_AHEAD];
    uint32_t n;
};

static inline void store_chain_add(struct store_chain *c, struct store_unit *u)
{
    struct store_unit **recent = &c->recent[c->n++ % STORE_AHEAD];

    u->next = c->newest;
    u->ahead = *recent; /* so that the store can ask its cache for several at once */
    *recent = u;
    c->newest = u;
    c->oldest = c->oldest == NULL ? u : c->oldest;
}

/*
 * All units of the chain, as if submitted in the order they were added, with nobody's between them.
 * The caller forgets the chain; not ST_OK: none has left the caller, and they are linked as they
 * were.
 */
enum store_rc store_submit_chain(struct store *s, const struct store_chain *c)
    __attribute__((warn_unused_result));

/* ---- the durable store ---- */

/* 0 means the default in all but pace_us. */
struct store_options {
    const char *dir; /* holds the environments journal/ and state/; made if missing, mode 0750 */
    uint64_t
        state_map; /* bytes of address space reserved (1 TB); halved while the kernel refuses */
    uint64_t journal_map;  /* 64 GB */
    uint64_t fold_bytes;   /* journal size that starts a fold (16 MB; kept in memory until then) */
    uint64_t fold_records; /* likewise records (1 M) */
    uint32_t fold_ms;      /* or age (30 s) */
    uint32_t pace_us;      /* commits of several units begin at least this far apart, unless all
                              who were in flight lately are there */
    uint32_t fold_slice;   /* operations in one transaction of a fold (10,000) */
    uint64_t ballast;      /* bytes of disk held back in each environment (64 MB or 2 % of the file
                              system, whichever is less, 4 MB at least) */
    bool serve_damaged;    /* reads all of a store, and repairs a damaged one; else it is refused */
    int64_t (*boot_ms)(void); /* CLOCK_BOOTTIME; NULL: the system's. Operations speak this clock */
    int64_t (*wall_ms)(void); /* the clock on disk; NULL: the system's */
    void (*log)(void *arg, int level,
                const char *text); /* progress, warnings; may be NULL; any thread */
    void *log_arg;
};

/*
 * Opens or makes the store, replays what the last run left, starts the threads. On failure *out is
 * NULL and err says which file and why (damaged, of a newer version, locked by another process:
 * never a silent new start).
 */
enum store_rc store_open(const struct store_options *o, struct store **out, char *err, size_t cap)
    __attribute__((warn_unused_result));

/* One id above every session, body and unit the store knows or has known. */
uint64_t store_first_free_id(const struct store *s);

struct store_session {
    uint64_t session;
    struct store_bytes client_id;
    uint32_t expiry_s;
    uint8_t flags;           /* of ST_SESSION_PUT */
    int64_t disconnected_ms; /* CLOCK_BOOTTIME, may be negative; of the crash or stop for those then
                                connected */
    uint64_t next_seq;       /* one above the highest seq that left a trace */
    uint64_t first_seq;      /* of the oldest entry; next_seq if there is none */
    uint64_t count;          /* entries */
    uint64_t bytes;          /* of their bodies */
};

/* What is to come, or a little more. */
struct store_totals {
    uint64_t sessions, subs, retained;
};

/* Everything but the queues, once, before the first submit. A callback that returns false ends it
 * with ST_NOMEM. Views are valid during the call. Sessions come in ascending order, then what
 * belongs to them: subscriptions, QoS 2 ids and wills, each kind in ascending order of sessions. */
struct store_load {
    void *arg;
    void (*totals)(void *arg, const struct store_totals *t); /* before all others; may be NULL */
    bool (*session)(void *arg, const struct store_session *s);
    bool (*sub)(void *arg, uint64_t session, struct store_bytes filter, uint8_t flags,
                uint32_t sub_id);
    bool (*inbound)(void *arg, uint64_t session, uint16_t packet_id);
    bool (*will)(void *arg, const struct store_op *will);         /* as ST_WILL_PUT had it */
    bool (*retained)(void *arg, const struct store_op *retained); /* as ST_RETAINED_PUT had it */
    /* Retained messages with so many bytes of data and props may come with data.p NULL and data.n
     * their number; then they are not read. 0: all come whole. */
    uint64_t retained_cut;
};
enum store_rc store_load(struct store *s, const struct store_load *l)
    __attribute__((warn_unused_result));

/* One queued message as it stands in the store. */
struct store_entry {
    uint64_t seq;
    uint64_t body;
    uint32_t number; /* subscription id */
    uint32_t group;  /* 0: it came through no shared group */
    uint16_t packet_id;
    uint8_t flags; /* of ST_ENTRY_PUT */
    uint8_t step;  /* flags of the last ST_ENTRY_STEP: bit 0: PUBREC received */
    int64_t expires_ms;
    struct store_bytes name, data, props; /* the body; valid until the page is freed */
};

/* A page of a session's queue: request and answer in one. */
struct store_page {
    struct store_page *next;            /* the store's */
    void (*done)(struct store_page *p); /* a thread of the store's; must only hand over */
    uint64_t session;
    uint64_t from_seq;    /* entries with this seq or above, in order, */
    uint32_t max_entries; /* at most so many */
    size_t max_bytes;     /* and about so many bytes of bodies (one is always given) */
    /* the answer */
    enum store_rc rc;
    bool more;
    uint32_t n;
    struct store_entry *entries; /* owned by the page */
    void *memory;                /* likewise */
    struct store_unit unit;      /* the store's: its place in the order */
};
/* Sees every unit that was submitted before it by the same thread. done() is called exactly once.
 */
enum store_rc store_read(struct store *s, struct store_page *p) __attribute__((warn_unused_result));
void store_page_free(struct store_page *p); /* the answer's memory; p itself is the caller's */

/* A retained message as it stands in the store. */
struct store_kept {
    struct store_bytes name; /* the question; the caller's until done() */
    bool found;
    uint8_t flags; /* as ST_RETAINED_PUT had it, like the rest */
    uint64_t seq;
    int64_t expires_ms;
    struct store_bytes data, props; /* valid until the fetch is freed */
};

/* Retained messages by their topics: request and answer in one. */
struct store_fetch {
    struct store_fetch *next;            /* the store's */
    void (*done)(struct store_fetch *f); /* a thread of the store's; must only hand over */
    struct store_kept *kept;             /* the caller's */
    uint32_t n;
    enum store_rc rc; /* the answer, with `found` and the rest of each */
    void *memory;     /* owned by the fetch */
};
/* Sees all that was reported ST_OK before, and may see more. done() is called exactly once. */
enum store_rc store_fetch_retained(struct store *s, struct store_fetch *f)
    __attribute__((warn_unused_result));
void store_fetch_free(struct store_fetch *f); /* the answer's memory; f itself is the caller's */

/* Ends folding for a backup and goes on again; see noctule-store. */
enum store_rc store_backup(struct store *s, const char *to_dir, char *err, size_t cap);

#define STORE_BUCKETS 24

struct store_stats {
    uint64_t units;
    uint64_t ops[ST_OP_KINDS];
    uint64_t pending; /* units taken whose done() has not returned yet */
    uint64_t commits;
    uint64_t records;       /* written to the journal */
    uint64_t annihilated;   /* records that met their removal before the disk */
    uint64_t journal_bytes; /* not folded yet */
    uint64_t journal_records;
    uint64_t folds;
    uint64_t fold_us;                  /* the last one */
    uint64_t commit_us[STORE_BUCKETS]; /* bucket i counts commits of [2^i, 2^(i+1)) us */
    bool refusing;                     /* below the watermark or failed: see store_health() */
    enum store_rc health;
    uint64_t journal_written; /* bytes, ever */
    uint64_t dropped;         /* operations of sessions that were not there */
    uint64_t lost;     /* what this start could not save of a damaged store, in things told */
    bool has_oldest;   /* a message is queued on disk; */
    uint64_t oldest_s; /* so long ago the oldest one was published. What was removed of folded
                          queues counts until its removal is folded */
};
void store_stats(struct store *s, struct store_stats *out);

/*
 * For admission, any thread, cheap. ST_OK; ST_NOSPACE: the disk is below the watermark, new work is
 * to be refused, removals are taken; ST_IO: the store has failed for good.
 */
enum store_rc store_health(const struct store *s);
/* The file that failed and why, for ST_IO and ST_NOSPACE; "" otherwise. Valid while s is open. */
const char *store_trouble(const struct store *s);

#endif
