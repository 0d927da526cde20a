/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rcu.h - quiescent-state RCU, one thin wrapper around liburcu-qsbr with marks for ThreadSanitizer.
 *
 * Threads    every reader thread registers itself, says rcu_quiescent() once a turn outside of any
 * read, and goes offline around anything that may block (epoll_wait).  Between two quiescent states
 *            everything reached by an atomic acquire load stays valid.
 * Blocking   rcu_defer() never waits for readers; its callbacks run on liburcu's own thread.
 *            rcu_drain() waits for all deferred frees and belongs to the end of the process and to
 * tests.
 */
#ifndef NOCTULE_ROUTING_RCU_H
#define NOCTULE_ROUTING_RCU_H

#include <stddef.h>

/* Embedded in what is to be freed; opaque storage for liburcu's rcu_head. */
struct rcu_item {
    void *opaque[2];
    void (*fn)(struct rcu_item *);
};

void rcu_register(void);
void rcu_unregister(void);
void rcu_quiescent(void);
void rcu_offline(void);
void rcu_online(void);

/* Calls fn(item) after every reader has passed a quiescent state. Callable by registered threads
 * and others. */
void rcu_defer(struct rcu_item *item, void (*fn)(struct rcu_item *));

/* Runs every callback deferred so far. The caller must be offline or not registered. */
void rcu_drain(void);

#endif
