/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mailbox.h - a lock-free queue of many producers into one shard, with its wake-up.
 *
 * A push is one compare-exchange onto a list (newest first); the consumer takes the whole list by
 * one exchange and reverses it. Items of one producer keep their order. The eventfd is written only
 * when the consumer sleeps, by the one producer that wins the exchange of the `asleep` flag.
 *
 * Threads    push: any.  take, prepare_sleep, awake: the consumer.
 * Ownership  items are the pusher's until pushed, the consumer's afterwards; links are intrusive.
 * Errors     none: a push cannot fail and allocates nothing.
 */
#ifndef NOCTULE_ROUTING_MAILBOX_H
#define NOCTULE_ROUTING_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mail {
    struct mail *next;
};

struct mailbox {
    _Alignas(64) _Atomic(struct mail *) head;
    _Atomic uint64_t pushed; /* items ever pushed; same line as head, which the push owns anyway */
    _Alignas(64) _Atomic int asleep;
    int event_fd;               /* owned; readable when the consumer was asleep and mail came */
    uint64_t taken;             /* consumer's: items ever taken */
    _Atomic uint64_t taken_pub; /* the same for producers that look at the depth */
};

/* false: no eventfd to be had (errno says why). */
bool mailbox_init(struct mailbox *mb);
void mailbox_fini(struct mailbox *mb);

void mailbox_push(struct mailbox *mb, struct mail *item);
/* A chain in order oldest -> newest, linked by `next` (newest->next is ignored), n items: one
 * exchange. */
void mailbox_push_chain(struct mailbox *mb, struct mail *oldest, struct mail *newest, size_t n);

/* Everything there, oldest first, NULL-terminated; NULL when empty. *n becomes the number of items.
 */
struct mail *mailbox_take(struct mailbox *mb, size_t *n);

/* True: nothing is there and producers will write the eventfd from now on. False: mail is there, do
 * not wait. */
bool mailbox_prepare_sleep(struct mailbox *mb);
/* After waiting (or deciding not to): stop wake-ups, and drain the eventfd if it was `readable`. */
void mailbox_awake(struct mailbox *mb, bool readable);

/* Items pushed and not taken yet, as seen by any thread; may lag. */
size_t mailbox_depth(const struct mailbox *mb);

#endif
