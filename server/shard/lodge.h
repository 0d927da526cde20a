/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lodge.h - shards with little to do share one thread.
 *
 * Two threads that wake each other for single messages pay more for that than for the messages. So
 * a shard whose load fits beside that of shard 0 lodges there: its own thread sleeps, and the
 * thread of shard 0, the host, takes its turns as well. When the host's thread gets busy, its
 * guests go home. Nothing moves but the thread: a shard keeps its clients, its mailbox and its
 * epoll set.
 *
 *     home   -> asked   its own thread, which then waits and does not touch the shard any more
 *     asked  -> away    the host, when it reads the mail: from now on it alone runs the shard
 *     asked  -> home    its own thread, when it has to stop and the host has not come to it
 *     away   -> home    the host, which does not touch the shard any more
 *
 * `place` moves under `lock`, so whoever comes to own the shard has seen all that the owner before
 * did. While asked nobody runs the shard; its mailbox is awake, and the host is woken by the mail.
 *
 * Waiting: the guest's epoll set is in the host's, so that events there wake the host; before the
 * host sleeps it arms its own mailbox and each guest's (mailbox_prepare_sleep), after it wakes all
 * are awake again. So mail between shards of one thread never costs a wake-up, and mail from
 * elsewhere never misses one.
 *
 * Threads    lodge_look(), lodge_end(): the thread that runs the shard. lodge_stop(): any.
 */
#ifndef NOCTULE_SHARD_LODGE_H
#define NOCTULE_SHARD_LODGE_H

#include <stdbool.h>
#include <stdint.h>

struct shard;

/* ---- when: pure ---- */

/* What a thread did since `since_ms`. Loads are in thousandths of a processor. */
struct lodge_gauge {
    int64_t since_ms;
    int64_t cpu_ns;   /* of the thread, then */
    uint32_t waits;   /* for events, of any kind */
    uint32_t sleeps;  /* of these, with nothing to do */
    uint32_t pressed; /* periods in a row with long turns */
    int32_t calm;     /* a guest's: periods in a row in which lodging was possible; negative: not
                       * before.    A host's: those in which only one shard had work */
};

#define LODGE_PERIOD_MS 16

void lodge_gauge_begin(struct lodge_gauge *g, int64_t now_ms, int64_t cpu_ns);
/* The load since the last call, and a new period begins. *pressed: what it did would go faster on
 * several threads, since wake-ups are little of it. */
uint32_t lodge_gauge_end(struct lodge_gauge *g, int64_t now_ms, int64_t cpu_ns, bool *pressed);
/* At the end of a period of a shard at home: true: it should lodge. */
bool lodge_fits(struct lodge_gauge *g, uint32_t load, uint32_t host_load);
/* At the end of a period of a host: true: its guests should go home. */
bool lodge_is_full(uint32_t load, bool pressed);
/* Likewise: true: for some time at most one of the shards on this thread had work, and does better
 * on its own, with one epoll set to wait for instead of two. */
bool lodge_is_lonely(struct lodge_gauge *g, unsigned active);
/* Of a shard that had so many turns while its thread waited so often. */
bool lodge_is_active(uint32_t turns, uint32_t waits);
/* It comes home: it does not ask again at once. */
void lodge_gauge_sent_home(struct lodge_gauge *g, bool full);

/* ---- who ---- */

bool lodge_init(struct shard *sh); /* false: no memory */
void lodge_fini(struct shard *sh);
/* After every turn. Returns when the shard is to be run by its own thread. */
void lodge_look(struct shard *sh);
/* The host's thread ends: its guests go home. */
void lodge_end(struct shard *sh);
/* A guest that has to stop goes home. */
void lodge_send_home(struct shard *host, unsigned guest);
/* Its `stop` was set: a thread that waits to be let in sees it. */
void lodge_stop(struct shard *sh);

#endif
