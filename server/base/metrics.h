/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.h - counters of one thread, read by any.
 *
 * Every thread that counts owns one block; a reader sums the blocks. Gauges count up and down.
 * Threads    metric_add(): the block's owner only. metric_get(): any; values may lag.
 */
#ifndef NOCTULE_BASE_METRICS_H
#define NOCTULE_BASE_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* X(name, text): text is what the metric counts. */
#define METRICS(X)                                                                                 \
    X(SOCKETS_OPENED, "connections accepted")                                                      \
    X(SOCKETS_REFUSED, "connections closed at accept: limits")                                     \
    X(ACCEPT_FAILED, "accept() failures: descriptors, memory")                                     \
    X(CONNECT_TIMEOUT, "connections without a CONNECT in time")                                    \
    X(CONNECT_REFUSED, "CONNECTs answered with an error")                                          \
    X(CLIENTS_CONNECTED, "clients connected (gauge)")                                              \
    X(CLIENTS_DISCONNECTED, "stored sessions without a connection (gauge)")                        \
    X(CLIENTS_EXPIRED, "sessions ended by their expiry")                                           \
    X(CLIENTS_TAKEN_OVER, "connections taken over by a newer one")                                 \
    X(BYTES_RECEIVED, "bytes read from clients")                                                   \
    X(BYTES_SENT, "bytes written to clients")                                                      \
    X(MESSAGES_RECEIVED, "control packets received")                                               \
    X(MESSAGES_SENT, "control packets sent")                                                       \
    X(PUBLISH_RECEIVED, "PUBLISH packets received")                                                \
    X(PUBLISH_SENT, "PUBLISH packets sent")                                                        \
    X(PUBLISH_BYTES_RECEIVED, "payload bytes received")                                            \
    X(PUBLISH_BYTES_SENT, "payload bytes sent")                                                    \
    X(DROPPED_QUEUE_FULL, "messages dropped: session queue at its limit")                          \
    X(DROPPED_OUTPUT_FULL, "messages dropped: QoS 0, and their reader does not read")              \
    X(DROPPED_MEMORY, "messages dropped or refused: memory limit")                                 \
    X(DROPPED_TOO_LARGE, "messages dropped: above the client's packet size")                       \
    X(DROPPED_NO_MEMBER, "messages dropped: no member of their shared group left")                 \
    X(REFUSED_STORE, "messages refused: the store has no room")                                    \
    X(DROPPED_EXPIRED, "messages dropped: expired")                                                \
    X(PAUSED_MEMORY, "times a publisher was not read because of the memory limit")                 \
    X(SLOW_CONSUMERS_CLOSED, "connections closed as slowest consumer at the memory limit")         \
    X(QUEUED_MESSAGES, "messages queued or in flight in sessions (gauge)")                         \
    X(QUEUED_BYTES, "bytes of those messages (gauge)")                                             \
    X(SUBSCRIPTIONS, "subscriptions (gauge)")                                                      \
    X(PROTOCOL_ERRORS, "connections closed for malformed or illegal packets")                      \
    X(KEEPALIVE_TIMEOUTS, "connections closed for silence")                                        \
    X(WILLS_SENT, "will messages published")                                                       \
    X(STORE_UNITS, "units handed to the store")

enum metric {
#define X(name, text) METRIC_##name,
    METRICS(X)
#undef X
        METRIC_NR
};

struct metrics {
    _Alignas(64) _Atomic uint64_t v[METRIC_NR];
};

/* One writer: a plain read and write, both relaxed; readers only want some recent value. */
static inline void metric_add(struct metrics *m, enum metric which, int64_t n)
{
    uint64_t v = atomic_load_explicit(&m->v[which], memory_order_relaxed);
    atomic_store_explicit(&m->v[which], v + (uint64_t)n, memory_order_relaxed);
}

static inline uint64_t metric_get(const struct metrics *m, enum metric which)
{
    return atomic_load_explicit(&m->v[which], memory_order_relaxed);
}

/* Short name ("PUBLISH_SENT") and what it counts. */
const char *metric_name(enum metric which);
const char *metric_help(enum metric which);

#endif
