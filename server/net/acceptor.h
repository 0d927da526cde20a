/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acceptor.h - a thread that owns connections until their CONNECT is decoded and accepted.
 *
 * All that is slow or hostile happens here: silent and half-open connections, storms, bad CONNECTs.
 * A connection leaves the acceptor's epoll before it is handed over, once.
 *
 * Threads    acceptor_start/stop: setup. give() runs on the acceptor's thread.
 * Errors     acceptor_start(): false with errno.
 */
#ifndef NOCTULE_NET_ACCEPTOR_H
#define NOCTULE_NET_ACCEPTOR_H

#include "server/base/clock.h"
#include "server/base/metrics.h"
#include "server/net/handover.h"

struct acceptor;

struct acceptor_env {
    struct listener *listeners;
    size_t nlisteners;
    const struct config *_Atomic *config; /* the broker's; acquire */
    struct log *log;
    const struct clock *clock;
    struct metrics *metrics;   /* this acceptor's own block */
    _Atomic uint64_t *stamp;   /* the process-wide order of CONNECTs */
    _Atomic uint32_t *pending; /* connections in all acceptors */
    void (*give)(void *arg, struct handover *h);
    void *give_arg;
    unsigned index;
};

bool acceptor_start(struct acceptor **out, const struct acceptor_env *env);
/* Closes what is pending; NULL is fine. */
void acceptor_stop(struct acceptor **a);

#endif
