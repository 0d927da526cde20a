/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - one epoll loop and its connections: byte streams with one read and one write per turn.
 *
 * Threads    one. Nothing here blocks but loop_turn() and loop_turn_ns().
 * Ownership  a conn is embedded in its owner, which keeps it until conn_close() and the end of the
 *            turn.
 * Failure    out of memory ends the program: a generator without memory has nothing to measure.
 */
#ifndef NOCTULE_BENCH_LOOP_H
#define NOCTULE_BENCH_LOOP_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "server/base/span.h"

struct conn;

struct conn_ops {
    /* Within conn_open(): what is put now leaves as soon as the TCP connection stands. */
    void (*opened)(struct conn *c);
    /* Bytes received; returns how many were consumed, the rest is shown again with what follows. */
    size_t (*bytes)(struct conn *c, struct span in);
    void (*closed)(struct conn *c,
                   const char *why); /* by the peer or an error; fd is gone already */
};

struct bytes {
    uint8_t *p;
    size_t n;
    size_t cap;
};

struct conn {
    int fd;             /* -1: closed */
    bool discard;       /* read and drop: only the end is of interest */
    bool waits_for_out; /* the socket is full; EPOLLOUT is asked for */
    bool dirty;         /* on the loop's list of those with output */
    size_t sent;        /* bytes of out written already */
    struct bytes out;   /* what waits for the end of the turn */
    struct bytes tail;  /* start of a packet that is not whole yet */
    struct conn *dirty_next;
    const struct conn_ops *ops;
    struct loop *loop;
};

struct address {
    struct sockaddr_storage sa;
    socklen_t n;
};

struct loop {
    int epoll_fd;
    uint64_t now_ns;      /* CLOCK_MONOTONIC at the last wake-up or read */
    struct conn *dirty;   /* connections with output */
    uint32_t sources;     /* connections leave from 127.0.0.1 .. in turn; 0: the kernel's choice */
    uint32_t next_source; /* counts the connections */
    uint8_t *read_buf;
    size_t read_cap;
};

void loop_init(struct loop *l);
void loop_fini(struct loop *l);
/* Connections of 127.0.0.0/8 leave from so many addresses in turn, beginning with number `first`:
 * a source address has about 28,000 ports for one destination. 1: the kernel chooses. */
void loop_set_sources(struct loop *l, uint32_t sources, uint32_t first);

/* Writes what was put, waits at most so long, serves what is ready, writes the output of every
 * connection touched. */
void loop_turn(struct loop *l, unsigned timeout_ms);
void loop_turn_ns(struct loop *l, uint64_t timeout_ns);
/* Turns for a while, whatever comes. */
void loop_linger(struct loop *l, unsigned ms);
/* Writes what was put since the last turn. */
void loop_flush(struct loop *l);

uint64_t clock_ns(void);

/* HOST:PORT, [V6]:PORT or a path; false when it cannot be understood. */
bool address_parse(struct address *out, const char *host, unsigned port);

/* Starts to connect and calls opened(). false: refused at once (errno). */
bool conn_open(struct conn *c, struct loop *l, const struct address *to,
               const struct conn_ops *ops);
/* A connected stream socket that is there already; opened() is not called. */
void conn_adopt(struct conn *c, struct loop *l, int fd, const struct conn_ops *ops);
/* Ends it without a call of closed(). reset: by RST instead of FIN; what was not written yet is
 * lost. */
void conn_close(struct conn *c, bool reset);
/* Room for n more bytes of output; the caller adds what it wrote to c->out.n. */
uint8_t *conn_room(struct conn *c, size_t n);

void bytes_free(struct bytes *b);
uint8_t *bytes_room(struct bytes *b, size_t n);
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
