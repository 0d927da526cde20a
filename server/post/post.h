/* SPDX-License-Identifier: Apache-2.0 */
/*
 * post.h - mail between shards.
 *
 * A shard sends items to others; those of one turn are bundled for each receiver and pushed into
 * its mailbox as one chain, so a turn costs a compare-exchange and at most one wake-up for each
 * receiver. Items of one sender arrive in the order of sending. An item says itself what its
 * receiver does with it.
 *
 * An item may stand for many messages. While it is the last of its bundle its sender may add to it
 * (post_growing()), and counts what it stands for beyond the one item (post_count_more()), so that
 * the receiver's depth tells the truth.
 *
 * Threads    post_deliver(), post_depth(): any. Everything else: the thread that runs the shard.
 * Ownership  an item is the sender's until post_send() or post_deliver(), then the receiver's;
 * links are intrusive. Errors     only post_init() can fail.
 */
#ifndef NOCTULE_POST_POST_H
#define NOCTULE_POST_POST_H

#include "routing/mailbox.h"

struct shard;

struct post_item {
    struct mail mail;
    void (*fn)(struct shard *sh, struct post_item *item); /* on the receiver's thread; owns item */
};

/* What was sent to one shard in this turn. */
struct post_bundle {
    struct mail *first, *last; /* first NULL: nothing, and last says nothing */
    size_t n;
    size_t more;   /* messages that these items stand for, beyond n */
    void *growing; /* what its sender knows the last item by; NULL: nobody adds to it */
};

struct post {
    struct mailbox mailbox;
    _Alignas(64) _Atomic size_t more; /* messages in items sent here, beyond the mailbox's items and
                                         not delivered yet; relaxed: a bound for back-pressure */
    _Alignas(64) struct mail *inbox;  /* taken from the mailbox, not handled yet */
    struct post_bundle *bundles;      /* owned; one for each shard, by index */
    unsigned index;                   /* of the shard it belongs to */
};

/* For one of n shards. False: no memory or no descriptor, nothing is held. */
bool post_init(struct post *p, unsigned index, unsigned n) __attribute__((warn_unused_result));
/* Also of one that is all zeroes, or half made. What lies in it must have been handled. */
void post_fini(struct post *p);

/* At the turn's end, or when post_flush() comes before it. */
void post_send(struct post *from, const struct post *to, struct post_item *item);
/* At once. */
void post_deliver(struct post *to, struct post_item *item);
/* Pushes what was sent to this shard so far. */
void post_flush(struct post *from, struct post *to);

/* The inbox is empty: what has come meanwhile. False: nothing. */
bool post_fetch(struct post *p);
/* The next item of the inbox, in the order of arrival. */
struct post_item *post_take(struct post *p);
/* An item whose work is not done: it is the next one again, before what came behind it. */
void post_put_back(struct post *p, struct post_item *item);

/* Messages under way to it, as seen by any thread; may lag. */
size_t post_depth(const struct post *p);

static inline struct post_bundle *post_bundle(struct post *from, const struct post *to)
{
    return &from->bundles[to->index];
}

/* What the sender named by post_grow(), if nothing has been sent there since. */
static inline void *post_growing(struct post *from, const struct post *to)
{
    return post_bundle(from, to)->growing;
}

/* The item just sent may be added to. what: not NULL. */
static inline void post_grow(struct post *from, const struct post *to, void *what)
{
    post_bundle(from, to)->growing = what;
}

/* The last item sent there stands for one message more. */
static inline void post_count_more(struct post *from, const struct post *to)
{
    post_bundle(from, to)->more++;
}

/* So many of those that were counted have been delivered. */
static inline void post_count_done(struct post *p, size_t n)
{
    if (n > 0) { /* relaxed: see `more` */
        atomic_fetch_sub_explicit(&p->more, n, memory_order_relaxed);
    }
}

#endif
