/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conn.h - one connection as two byte streams: input with the tail of a partial packet, output
 * queue.
 *
 * Idle connections hold no buffers. Input is read into the owner thread's scratch buffer and parsed
 * there; only what a packet is short of stays with the connection. Output gathers in chunks and
 * leaves by one write.
 *
 * Threads    the one that owns it (acceptor, then shard).
 * Ownership  embedded; conn_fini() closes the descriptor and frees the buffers.
 * Errors     false / CONN_NOMEM: no memory, end the connection.
 */
#ifndef NOCTULE_NET_CONN_H
#define NOCTULE_NET_CONN_H

#include "server/base/check.h"
#include "server/base/span.h"

#include <sys/types.h>
#include <sys/uio.h>

struct conn;

/* How bytes travel. TCP and unix sockets share one; TLS and WebSocket bring their own. */
struct transport {
    const char *name;
    /* As read(2) and writev(2): bytes, 0 at the end, -1 with errno (EAGAIN: wait). */
    ssize_t (*read)(struct conn *c, void *p, size_t n);
    ssize_t (*writev)(struct conn *c, const struct iovec *iov, int n);
    /* Bytes decoded and held by the transport, which epoll does not tell about. */
    bool (*has_pending)(const struct conn *c);
    /* Says goodbye and ends our direction; the peer's may still be read. */
    void (*shutdown)(struct conn *c);
    void (*fini)(struct conn *c);
};

extern const struct transport transport_tcp;

/* Bytes: a scratch buffer has as many at least. What is kept of a packet that fits is short of it,
 * so that there is room behind its copy. */
#define CONN_SCRATCH 65536u

struct out_chunk {
    struct out_chunk *next;
    const uint8_t *p; /* data[], or borrowed bytes kept alive by `owner` */
    uint32_t off;     /* bytes written already */
    uint32_t n;       /* bytes in all */
    uint32_t cap;     /* of data[]; 0: borrowed */
    void (*release)(void *owner);
    void *owner;
    uint8_t data[];
};

struct conn {
    const struct transport *tr;
    void *tr_state; /* the transport's own */
    int fd;
    bool ended; /* an event said that the peer has ended its direction or that there is an error */
    bool blocked;        /* the socket took less than all; its next EPOLLOUT edge goes on */
    bool broken;         /* a write failed: nothing can be sent any more, what came can be read */
    uint8_t first_level; /* size of the output's first chunk: what left at once lately fits */
    uint32_t tail_n, tail_cap;
    uint8_t *tail; /* start of a packet that is not whole yet */
    struct out_chunk *out_first, *out_last;
    size_t out_n; /* bytes queued and not written */
};

void conn_init(struct conn *c, int fd, const struct transport *tr);
void conn_fini(struct conn *c);

enum conn_rc {
    CONN_OK,
    CONN_AGAIN, /* nothing to read; socket full */
    CONN_EOF,
    CONN_ERROR, /* errno */
    CONN_NOMEM,
};

/*
 * One read. *in becomes all there is to parse, kept tail first; it lies in scratch (of cap bytes)
 * or in the connection and is valid until conn_keep(). *got: bytes new from the socket. *drained:
 * the socket is empty, wait for the next edge. Each read is followed by a conn_keep(): a tail that
 * fills for want of it is CONN_NOMEM.
 */
enum conn_rc conn_read(struct conn *c, uint8_t *scratch, size_t cap, struct span *in, size_t *got,
                       bool *drained);
/* What is kept will not be parsed. */
void conn_drop_tail(struct conn *c);
/* One read whose bytes nobody will parse: the tail goes, what comes is counted in *got and gone. */
enum conn_rc conn_discard(struct conn *c, uint8_t *scratch, size_t cap, size_t *got);
/* What is to parse without reading: the kept tail. */
struct span conn_kept(const struct conn *c);
/* Keeps `rest`, the unparsed end of the last *in. want: the whole size of the packet it starts, 0
 * if not known. */
bool conn_keep(struct conn *c, struct span rest, size_t want) __attribute__((warn_unused_result));

uint8_t *conn_out_more(struct conn *c, size_t n); /* for conn_out_room() */
/* Room for n contiguous bytes at the end of the output; NULL: no memory. conn_out_add() takes them
 * as written. */
static inline uint8_t *conn_out_room(struct conn *c, size_t n)
{
    struct out_chunk *last = c->out_last;

    return last != NULL && last->cap >= last->n + n ? last->data + last->n : conn_out_more(c, n);
}
static inline void conn_out_add(struct conn *c, size_t n)
{
    check(c->out_last != NULL && c->out_last->n + n <= c->out_last->cap);
    c->out_last->n += (uint32_t)n;
    c->out_n += n;
}
bool conn_out_copy(struct conn *c, const void *p, size_t n) __attribute__((warn_unused_result));
/* Queues bytes that belong to somebody else; release(owner) when they are written or given up. */
bool conn_out_borrow(struct conn *c, const void *p, size_t n, void (*release)(void *owner),
                     void *owner) __attribute__((warn_unused_result));

/* Writes what the socket takes: CONN_OK when all is out, CONN_AGAIN when blocked, CONN_ERROR: the
 * output is given up. */
enum conn_rc conn_flush(struct conn *c, size_t *written);

#endif
