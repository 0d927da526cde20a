/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shard.h - one thread that owns the clients of its partitions: connections, sessions, timers.
 *
 * A turn: ready sockets, mailbox, timers, unfinished work, one write per touched connection. A turn
 * is bounded; what is left goes on in the next. Nothing in it waits but epoll.
 *
 * Threads    shard_create/start/stop/destroy: setup. shard_give(): any. shard_metrics(): any.
 * Errors     shard_create(), shard_start(): NULL/false with errno.
 */
#ifndef NOCTULE_SHARD_SHARD_H
#define NOCTULE_SHARD_SHARD_H

#include "server/base/metrics.h"
#include "server/net/handover.h"
#include "server/shard/broker.h"

struct shard *shard_create(struct broker_shared *b, unsigned index);
bool shard_start(struct shard *sh);

/* Ends in two steps, so that no shard pushes into one that is gone: all are asked, then all are
 * joined. */
void shard_ask_to_stop(struct shard *sh);
void shard_join(struct shard *sh);
void shard_destroy(struct shard *sh); /* NULL is fine */

/* After all shards were joined: closes the connections with a word to v5 clients; no wills. */
void shard_close_clients(struct shard *sh, enum mqtt_reason reason);
/* Handles the mail that is left: connections on their way, deliveries, answers of the store. */
void shard_drain_mail(struct shard *sh);
/* Some is there. It says so truly when nobody else runs: pushes of other threads may lag. */
bool shard_has_mail(const struct shard *sh);
/* From now on nothing is handed to the store or on to other sessions; the store may be closed. */
void shard_forget_store(struct shard *sh);

/* Hands over a connection; takes ownership of h. */
void shard_give(struct shard *sh, struct handover *h);

/* Publishes on the shard's thread, from any thread; consumes the reference. For messages of the
 * broker's own ($SYS). */
void shard_publish(struct shard *sh, struct message *m);

const struct metrics *shard_metrics(const struct shard *sh);

#endif
