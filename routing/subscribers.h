/* SPDX-License-Identifier: Apache-2.0 */
/*
 * subscribers.h - one shard's subscriptions: by filter id for delivery, by owner for sessions.
 *
 * Keeps the shard's interest in the shared tree right: the first subscription of a kind to a filter
 * appears there, the last one goes.
 *
 * Threads    the owning shard only (RCU online).
 * Ownership  owners are opaque 64-bit ids, never 0. A struct sub belongs to the table; it is valid
 * until subscribers_remove(). Cursors    a pinned filter_subs keeps the positions of its entries:
 * removals leave NULL behind, additions go to the end. That is what lets a delivery to 100,000
 * subscribers pause and go on. Errors     SUBS_NOMEM leaves everything as it was.
 */
#ifndef NOCTULE_ROUTING_SUBSCRIBERS_H
#define NOCTULE_ROUTING_SUBSCRIBERS_H

#include "routing/tree.h"

struct sub_options {
    uint8_t qos;
    bool no_local;
    bool retain_as_published;
    bool durable; /* the owner's session is durable: the filter's interest is TREE_DURABLE */
    bool shared;  /* a member of a group, under its full text; shares.h counts it */
    uint8_t retain_handling;
    uint32_t id; /* v5 subscription identifier, 0: none */
};

struct filter_subs; /* all of this shard's subscribers to one filter */

/* 48 bytes, a size class of its allocator: there are millions. */
struct sub {
    struct filter_subs *filter;
    struct sub *owner_next, *owner_prev; /* the owner's own list, head in struct sub_owner */
    uint64_t owner;
    uint64_t floor : 48; /* live retained messages up to this number are left to the replay */
    uint64_t qos : 2;    /* this and the next: as in struct sub_options */
    uint64_t no_local : 1;
    uint64_t retain_as_published : 1;
    uint64_t durable : 1;
    uint64_t shared : 1;
    uint32_t pos; /* in the filter's array */
    uint32_t id;  /* v5 subscription identifier, 0: none */
};
#define SUB_FLOOR_MAX (((uint64_t)1 << 48) - 1)

/* Embedded in the owner; zeroed at first. */
struct sub_owner {
    struct sub *first;
    uint32_t count;
};

enum subs_rc {
    SUBS_NEW,
    SUBS_REPLACED, /* same owner, same filter: options replaced, position and list kept */
    SUBS_NOMEM,
};

/*
 * A hint that is a subscription, by bits: 0 set (a place has it clear), 1-2 QoS, 3 retain as
 * published, 4-47 the owner's, 48-59 which of the counters of changes is its filter's, 63 no local.
 */
#define HINT_SUB      UINT64_C(1)
#define HINT_OWNER    UINT64_C(0x0000fffffffffff0) /* others' subscriptions are not made hints of */
#define HINT_COUNTER  48u
#define HINT_COUNTERS 4096u
static inline uint64_t hint_owner(uint64_t h)
{
    return h & HINT_OWNER;
}
static inline uint8_t hint_qos(uint64_t h)
{
    return h >> 1 & 3;
}
static inline bool hint_retains_as_published(uint64_t h)
{
    return (h >> 3 & 1) != 0;
}
static inline bool hint_is_no_local(uint64_t h)
{
    return h >> 63 != 0;
}

struct subscribers;

struct subscribers *subscribers_create(struct tree *t, unsigned shard, uint64_t seed);
/* Also ends the shard's interest in the tree. No pins are left; the owners' lists are void
 * afterwards. */
void subscribers_destroy(struct subscribers *s);

enum subs_rc subscribers_put(struct subscribers *s, struct sub_owner *list, uint64_t owner,
                             const char *filter, size_t n, const struct sub_options *o,
                             struct sub **out) __attribute__((warn_unused_result));
struct sub *subscribers_find(const struct subscribers *s, uint64_t owner, const char *filter,
                             size_t n);
void subscribers_remove(struct subscribers *s, struct sub_owner *list, struct sub *sub);

/* ---- delivery ---- */
struct filter_subs *subscribers_of_filter(struct subscribers *s, uint64_t filter_id); /* or NULL */
/*
 * For n filters, with as few waits for memory as for one; out[i] belongs to ids[i], as does
 * hints[i]: 0, or what was put there for the same id by this shard before; it says where to look.
 */
void subscribers_of_filters(struct subscribers *s, const uint64_t *ids, uint64_t *hints, uint32_t n,
                            struct filter_subs **out);
/*
 * Hints can also say all of it: that each of the filters has one subscription, without an
 * identifier, and what that is (hint_owner() and so on), so that neither is looked at.
 * subscribers_learn() makes such hints of the filters found (none NULL), if that is so of all;
 * subscribers_know() tells whether they are such and hold: none of these filters has got or lost a
 * subscription or a pin since. The numbers of retained messages are not in them.
 */
void subscribers_learn(const struct subscribers *s, struct filter_subs *const *found,
                       uint64_t *hints, uint32_t n, uint32_t *stamp);
bool subscribers_know(const struct subscribers *s, const uint64_t *hints, uint32_t n,
                      uint32_t stamp);
/* For who knows that these will be asked for a while later: what is known by hints is fetched, one
 * step after the other, with a while between them. */
enum subs_fetch { SUBS_FETCH_FILTER, SUBS_FETCH_SUB, SUBS_FETCH_OWNER };
void subscribers_fetch(const struct subscribers *s, const uint64_t *ids, const uint64_t *hints,
                       uint32_t n, enum subs_fetch step, void (*owner)(uint64_t owner));
struct sub *subscribers_of_owner(const struct subscribers *s, uint64_t owner, uint64_t filter_id);

/* Positions in use (live subscriptions, plus holes while pinned; none when nobody is left); entries
 * may be NULL while pinned. */
size_t filter_subs_end(const struct filter_subs *f);
struct sub *filter_subs_at(const struct filter_subs *f, size_t pos);
uint64_t filter_subs_id(const struct filter_subs *f);
void filter_subs_pin(struct subscribers *s, struct filter_subs *f);
bool filter_subs_is_pinned(const struct filter_subs *f);
/* The last unpin closes the holes; f may be gone afterwards when no subscription is left. */
void filter_subs_unpin(struct subscribers *s, struct filter_subs *f);

/* The filter's text; returns its bytes (cut to cap). */
size_t sub_filter_text(const struct sub *sub, char *buf, size_t cap);

size_t subscribers_count(const struct subscribers *s);
size_t subscribers_bytes(const struct subscribers *s);

#endif
