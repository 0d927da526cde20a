/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gen.h - a generation: the groups that are in the journal and not in `state` yet, indexed.
 *
 * One generation takes the groups as they are committed; at a fold it is frozen and another one
 * begins. What was born and removed within it is marked dead and will not be folded. Under other
 * keys the last operation is what counts.
 *
 * Threads    the owner of the lock around it (durable.h) while it takes groups or rests. Then any
 * thread may read it without; only fields marked "fold's" change then, and only the fold thread
 * uses them.
 *
 * Ownership  counted; the buffers of its groups are its own and everything else points into them.
 * Its memory comes from blocks that the last reference leaves to the next generation (spare.h).
 */
#ifndef NOCTULE_STORAGE_GEN_H
#define NOCTULE_STORAGE_GEN_H

#include "storage/record.h"
#include "storage/spare.h"

#include <stdatomic.h>

struct gen_body {
    uint64_t id;
    const uint8_t *record, *end;
    uint32_t live; /* entries born with it that are not dead; fold's once frozen */
    uint32_t size; /* body_size() */
};

enum gen_what { GEN_PUT, GEN_STEP, GEN_DEL };

struct gen_entry {
    uint64_t seq;
    uint64_t body;
    int64_t expires_ms;    /* wall clock */
    struct gen_body *born; /* GEN_PUT: the body that came with it, or NULL */
    uint32_t number;
    uint32_t group;
    uint16_t packet_id;
    uint8_t flags, step;
    uint8_t what; /* GEN_STEP, GEN_DEL: of an entry of an older generation */
    bool dead;    /* GEN_PUT: removed within the generation, or while it rested (durable.h) */
};

struct gen_entries { /* in the order of seq */
    struct gen_entry *v;
    uint32_t n, cap;
    uint32_t hint; /* behind the one that was found last: queues are emptied in their order */
};

/* An operation of a group, where its record begins in the group's buffer, and gen_hash() of its
 * session. */
struct gen_op {
    const struct store_op *op;
    uint32_t at;
    uint32_t hash;
};

static inline uint32_t gen_hash(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    return (uint32_t)(x ^ (x >> 32));
}

struct gen_session {
    uint64_t session;
    const uint8_t *record, *end; /* the last ST_SESSION_PUT, or NULL */
    struct gen_entries puts;     /* GEN_PUT */
    struct gen_entries olds;     /* the others */
    uint32_t *inbound; /* what came for its QoS 2 ids, in order: the id << 1, + 1 for a removal */
    uint32_t ninbound, inbound_cap;
    uint32_t live; /* of `puts`, those that are not dead */
    bool ended;
    bool skip; /* fold's: there is no such session */
};

/* The last operation on a subscription, retained message or will. */
struct gen_named {
    uint64_t session;
    uint64_t hash; /* of the name */
    const uint8_t *record, *end;
    enum store_op_kind kind; /* the PUT's kind, for what it is about */
    bool del;
};

#define GEN_ARRAYS 9u /* sizes of arrays of entries that lie in blocks: 4, 8 ... 1024 */

/* The id stands beside the pointer: looking for one touches no other session. */
struct gen_session_slot {
    uint64_t session;
    struct gen_session *s; /* NULL: empty */
};

struct gen {
    _Atomic unsigned refs; /* acq_rel: who frees has seen what others did */
    uint64_t first, last;  /* groups; last 0: none */
    uint64_t free_id;
    int64_t wall_ms;   /* of the last group */
    int64_t born_ms;   /* monotonic: when the first group came */
    uint64_t next_key; /* of the journal, behind the last group */
    uint64_t bytes, records;
    bool partial; /* no memory for all of a group: folding it would split units */
    struct gen_session_slot *sessions; /* open addressing, by id */
    uint32_t nsessions, sessions_cap;
    struct gen_named **named; /* open addressing */
    uint32_t *named_tags;     /* beside them, of their hashes: others are told without a look */
    uint32_t nnamed, named_cap;
    uint32_t nbodies;
    struct spare *spare;  /* NULL: none */
    struct block *bodies; /* the newest first */
    struct block *oldest; /* bodies before this block's `oldest_at` have no entries any more */
    size_t oldest_at;
    struct block *pool;       /* of sessions, named, and arrays of entries */
    struct block *texts;      /* of groups; the newest first */
    void *arrays[GEN_ARRAYS]; /* that have grown out of their place: each begins with the next */
    uint32_t own;             /* arrays of sessions that are malloc'd */
    uint8_t **groups;         /* malloc'd: of gen_add() */
    uint32_t ngroups, groups_cap;
};

/* spare: outlives the generation; NULL is fine. */
struct gen *gen_create(struct spare *spare);
void gen_ref(struct gen *g);
void gen_unref(struct gen *g); /* NULL is fine */

enum gen_rc { GEN_OK, GEN_BAD, GEN_NOMEM };
/* Takes a group; buf (malloc'd) becomes the generation's in every case. Anything but GEN_OK leaves
 * the generation fit for gen_unref() only. */
enum gen_rc gen_add(struct gen *g, uint8_t *buf, uint32_t n, uint64_t next_key)
    __attribute__((warn_unused_result));
/* Room for a group of at most n bytes, for gen_add_ops(); until then nothing has been taken. NULL:
 * no memory. */
uint8_t *gen_room(struct gen *g, size_t n);
/*
 * The same without decoding what was encoded a moment ago: the group's operations, one for each
 * record in the order of the records. buf: what gen_room() gave, of this generation, or of another
 * one that is still there: then it is copied. clock: what the records' times have more than the
 * operations. resting: the generation before it, if that rests (see durable.h): an entry of that
 * one that this group removes, and that alone has its body, is gone without being folded.
 */
enum gen_rc gen_add_ops(struct gen *g, const uint8_t *buf, uint32_t n, uint64_t next_key,
                        const struct gen_op *ops, int64_t clock, struct gen *resting)
    __attribute__((warn_unused_result));

/* A time of an operation as it stands in its record. */
static inline int64_t gen_time(int64_t ms, int64_t clock)
{
    if (ms == 0) {
        return 0; /* never */
    }
    return ms + clock <= 0 ? 1 : ms + clock;
}

/* NULL: nothing about this session. */
const struct gen_session *gen_find(const struct gen *g, uint64_t session);
/* The last operation on this retained message, in *out; false: none. */
bool gen_find_retained(const struct gen *g, struct store_bytes name, struct gen_named *out);
/* Position of the first entry with this seq or above; e->n if there is none. */
uint32_t gen_lower(const struct gen_entries *e, uint64_t seq);
/* When the oldest body that has entries was published, wall clock s; 0: there is none. Not of a
 * frozen one. */
uint32_t gen_oldest_s(struct gen *g);
/* Calls fn for every body. */
void gen_each_body(struct gen *g, void (*fn)(void *arg, struct gen_body *b), void *arg);

#endif
