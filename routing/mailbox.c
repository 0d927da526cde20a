/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The happy path: producers push onto `head` (newest first), the consumer takes the whole list and
 * turns it round. Nobody ever waits for anybody, also when a producer is preempted in the middle of
 * a push: its items are either on the list or not yet.
 *
 * Sleep and wake-up are the classic pair of "store mine, then load yours", both seq_cst:
 *
 *     consumer    asleep = 1;   look at head  (not empty: do not sleep)
 *     producer    push on head; look at asleep (1: exchange for 0, the winner writes the eventfd)
 *
 * In the single order of seq_cst operations one of the two comes first, so either the consumer sees
 * the item or the producer sees the sleeper. A wake-up that comes late, when the consumer went on
 * by itself, leaves the eventfd readable and costs one turn for nothing. None is lost: the item was
 * pushed before, and the consumer looks at head again before every sleep.
 */
#include "routing/mailbox.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

bool mailbox_init(struct mailbox *mb)
{
    atomic_init(&mb->head, NULL);
    atomic_init(&mb->pushed, 0);
    atomic_init(&mb->asleep, 0);
    atomic_init(&mb->taken_pub, 0);
    mb->taken = 0;
    mb->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return mb->event_fd >= 0;
}

void mailbox_fini(struct mailbox *mb)
{
    if (mb->event_fd >= 0) {
        (void)close(mb->event_fd);
        mb->event_fd = -1;
    }
}

static void wake(struct mailbox *mb)
{
    const uint64_t one = 1;
    ssize_t rc;

    /* seq_cst: partner of prepare_sleep()'s store. A plain load first: mostly nobody sleeps and the
     * line stays shared. */
    if (atomic_load_explicit(&mb->asleep, memory_order_seq_cst) == 0 ||
        atomic_exchange_explicit(&mb->asleep, 0, memory_order_seq_cst) == 0) {
        return;
    }
    do {
        rc = write(mb->event_fd, &one, sizeof(one));
    } while (rc < 0 &&
             errno == EINTR); /* EAGAIN: 2^64 - 2 unread wake-ups, readable all the same */
}

/* `newest` ... `oldest` are linked already; `oldest` gets what was there as its next. */
static void push_linked(struct mailbox *mb, struct mail *newest, struct mail *oldest, size_t n)
{
    struct mail *was = atomic_load_explicit(&mb->head, memory_order_relaxed);

    /* Counted before it can be taken, so that `pushed` is never behind `taken_pub`; relaxed: the
     * exchange below publishes it to the consumer, whose release of taken_pub publishes it to those
     * who look. */
    atomic_fetch_add_explicit(&mb->pushed, n, memory_order_relaxed);
    do {
        oldest->next = was;
        /* seq_cst on success: releases the items to take()'s acquire, and is the producer's half of
         * the pair in the comment on top. Relaxed on failure: `was` is only compared. */
    } while (!atomic_compare_exchange_weak_explicit(&mb->head, &was, newest, memory_order_seq_cst,
                                                    memory_order_relaxed));
    wake(mb);
}

void mailbox_push(struct mailbox *mb, struct mail *item)
{
    push_linked(mb, item, item, 1);
}

/* Turns the n links from `from` on round; returns the former last. The former first's next is NULL.
 */
static struct mail *reverse(struct mail *from, size_t n)
{
    struct mail *done = NULL;

    while (n-- > 0) {
        struct mail *next = from->next;

        from->next = done;
        done = from;
        from = next;
    }
    return done;
}

void mailbox_push_chain(struct mailbox *mb, struct mail *oldest, struct mail *newest, size_t n)
{
    /* The list runs newest first, the chain oldest first: it is turned here, while the pusher has
     * its items in the cache, and back by take(). */
    (void)reverse(oldest, n);
    push_linked(mb, newest, oldest, n);
}

struct mail *mailbox_take(struct mailbox *mb, size_t *n)
{
    struct mail *from;
    struct mail *done = NULL;
    size_t count = 0;

    *n = 0;
    /* Relaxed peek: an empty mailbox costs no exclusive access to the line. */
    if (atomic_load_explicit(&mb->head, memory_order_relaxed) == NULL) {
        return NULL;
    }
    /* Acquire: partner of the pushes' release. */
    from = atomic_exchange_explicit(&mb->head, NULL, memory_order_acquire);
    while (from != NULL) {
        struct mail *next = from->next;

        from->next = done;
        done = from;
        from = next;
        count++;
    }
    mb->taken += count;
    /* Release: partner of mailbox_depth()'s acquire. */
    atomic_store_explicit(&mb->taken_pub, mb->taken, memory_order_release);
    *n = count;
    return done;
}

bool mailbox_prepare_sleep(struct mailbox *mb)
{
    /* Both seq_cst: partner of push_linked()'s exchange and wake()'s load. */
    atomic_store_explicit(&mb->asleep, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&mb->head, memory_order_seq_cst) == NULL) {
        return true;
    }
    atomic_store_explicit(&mb->asleep, 0, memory_order_relaxed);
    return false;
}

void mailbox_awake(struct mailbox *mb, bool readable)
{
    uint64_t count;
    ssize_t rc;

    /* Relaxed: a producer that still sees 1 writes one wake-up too many, which is harmless. */
    atomic_store_explicit(&mb->asleep, 0, memory_order_relaxed);
    if (!readable) {
        return;
    }
    do {
        rc = read(mb->event_fd, &count, sizeof(count));
    } while (rc < 0 && errno == EINTR); /* EAGAIN: drained before */
}

size_t mailbox_depth(const struct mailbox *mb)
{
    /* Acquire first: what was taken was pushed, so the later load of `pushed` cannot be the smaller
     * one. */
    uint64_t taken = atomic_load_explicit(&mb->taken_pub, memory_order_acquire);

    return (size_t)(atomic_load_explicit(&mb->pushed, memory_order_relaxed) - taken);
}
