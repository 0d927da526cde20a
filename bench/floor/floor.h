/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor.h - a relay without logic: what sockets alone cost when messages travel as noctule-bench
 * sends them.
 *
 * It reads what comes and hands it on as it is. Of MQTT it knows the fixed header, the topic, and
 * how to answer so that a client is content; it keeps no packet identifiers, no sessions, no
 * wildcards but a last level `+`, and trusts everybody. (So several publishers to one subscriber
 * are beyond it at QoS 2: their identifiers collide there.) Every touched connection is written
 * once a turn, which is the cheapest way known to use epoll; a broker's figure is its ratio to this
 * one's.
 *
 * Threads    one.
 *
 * Ownership  the relay has its peers and routes; a route is never freed: a peer may keep it.
 *
 * Failure    out of memory ends the program.
 */
#ifndef NOCTULE_BENCH_FLOOR_H
#define NOCTULE_BENCH_FLOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/codec/mqtt.h"

struct bytes {
    uint8_t *p;
    size_t n, cap;
};

/* Who gets what is published to one topic. */
struct route {
    struct route *next; /* in its bucket */
    struct peer **peers;
    size_t n, cap;
    size_t filter_n;
    char filter[];
};

struct peer {
    int fd;
    bool dirty;   /* on the list of those with output */
    bool blocked; /* the socket is full: its next EPOLLOUT edge goes on */
    bool closing;
    enum mqtt_version version;
    struct bytes out;   /* to be written, from `sent` on */
    size_t sent;        /* bytes of out */
    struct bytes tail;  /* start of a packet that is not whole yet */
    struct route *in;   /* it subscribed to; NULL: to nothing */
    struct route *to;   /* it published to last; NULL: not looked for yet */
    struct bytes topic; /* of that */
    struct peer *dirty_next, *closing_next;
};

#define ROUTES 4096u /* buckets */

struct relay {
    int epoll_fd, listen_fd;
    struct peer *dirty, *closing;
    struct bytes scratch; /* what was read, behind the tail of its peer */
    struct route *routes[ROUTES];
};

/* Room for n more bytes at the end; the caller adds to n what it used. */
uint8_t *bytes_room(struct bytes *b, size_t n);
void bytes_put(struct bytes *b, const void *p, size_t n);

/* Bytes to write at the end of the turn. */
void peer_put(struct relay *r, struct peer *p, const void *bytes, size_t n);
/* At the end of the turn, after its output. */
void peer_close(struct relay *r, struct peer *p);

/* Hands on and answers the whole packets at the start of `in`; returns their bytes. */
size_t packets(struct relay *r, struct peer *p, const uint8_t *in, size_t n);
/* The peer goes: nothing is handed to it any more. */
void packets_forget(struct peer *p);

#endif
