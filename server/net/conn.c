/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define CHUNK_HEADER  48u
#define CHUNK_FIRST   (512u - CHUNK_HEADER)
#define CHUNK_MAX     (32768u - CHUNK_HEADER) /* what jemalloc keeps for the thread */
#define CHUNK_LEVELS  6u /* a first chunk has 512 bytes to 16 KiB, by powers of two */
#define IOV_PER_WRITE 64

void conn_init(struct conn *c, int fd, const struct transport *tr)
{
    *c = (struct conn){.tr = tr, .fd = fd};
}

static void chunk_free(struct out_chunk *ch)
{
    if (ch->release != NULL) {
        ch->release(ch->owner);
    }
    free(ch);
}

void conn_drop_tail(struct conn *c)
{
    free(c->tail);
    c->tail = NULL;
    c->tail_n = 0;
    c->tail_cap = 0;
}

static void drop_output(struct conn *c)
{
    while (c->out_first != NULL) {
        struct out_chunk *next = c->out_first->next;
        chunk_free(c->out_first);
        c->out_first = next;
    }
    c->out_last = NULL;
    c->out_n = 0;
}

void conn_fini(struct conn *c)
{
    drop_output(c);
    conn_drop_tail(c);
    if (c->fd >= 0) {
        c->tr->fini(c);
        close(c->fd);
        c->fd = -1;
    }
}

static enum conn_rc read_some(struct conn *c, uint8_t *p, size_t n, size_t *got)
{
    ssize_t r;

    do {
        r = c->tr->read(c, p, n);
    } while (r < 0 && errno == EINTR);
    if (r > 0) {
        *got = (size_t)r;
        return CONN_OK;
    }
    if (r == 0) {
        return CONN_EOF;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK ? CONN_AGAIN : CONN_ERROR;
}

enum conn_rc conn_read(struct conn *c, uint8_t *scratch, size_t cap, struct span *in, size_t *got,
                       bool *drained)
{
    uint8_t *at;
    size_t room;
    enum conn_rc rc;

    *got = 0;
    assert(c->tail_n <= c->tail_cap);
    if (c->tail_cap > c->tail_n) { /* a large packet gathers in the connection itself */
        at = c->tail;
        room = c->tail_cap - c->tail_n;
    } else {
        /* The tail is short of the scratch buffer by conn_keep()'s choice; who reads on without
         * conn_keep() would fill it. Checked in every build: what follows writes there. */
        if (c->tail_n >= cap) {
            *drained = false;
            return CONN_NOMEM;
        }
        if (c->tail_n > 0) {
            memcpy(scratch, c->tail, c->tail_n);
        }
        at = scratch;
        room = cap - c->tail_n;
    }
    rc = read_some(c, at + c->tail_n, room, got);
    /* On a stream a short read says that the socket is empty [epoll(7)]; not that nothing follows
     * when the end has been told of already, since no further event will tell of it again. */
    *drained = rc != CONN_OK || (*got < room && !c->ended && !c->tr->has_pending(c));
    if (rc != CONN_OK) {
        return rc;
    }
    check(*got <= room);
    *in = span_of(at, c->tail_n + *got);
    if (at == c->tail) {
        c->tail_n += (uint32_t)*got;
    }
    return CONN_OK;
}

struct span conn_kept(const struct conn *c)
{
    return span_of(c->tail, c->tail_n);
}

enum conn_rc conn_discard(struct conn *c, uint8_t *scratch, size_t cap, size_t *got)
{
    *got = 0;
    conn_drop_tail(c);
    return read_some(c, scratch, cap, got);
}

/* Room grows with what has come, never with what was announced. */
static size_t tail_room(size_t n, size_t want)
{
    size_t cap;

    if (want <= CONN_SCRATCH) {
        return n; /* small packets: finished in the scratch buffer */
    }
    cap = n < CONN_SCRATCH ? CONN_SCRATCH : n * 2;
    return cap < want ? cap : want;
}

bool conn_keep(struct conn *c, struct span rest, size_t want)
{
    size_t cap;
    uint8_t *p;

    check(want == 0 || rest.n < want); /* a whole packet would have been used */
    if (rest.n == 0) {
        conn_drop_tail(c);
        return true;
    }
    cap = tail_room(rest.n, want);
    if (rest.p == c->tail && rest.n == c->tail_n && cap <= c->tail_cap) {
        return true; /* nothing was used, and nothing more is needed */
    }
    if (rest.p == c->tail && c->tail_cap >= cap && c->tail_cap > rest.n) {
        c->tail_n = (uint32_t)rest.n;
        return true;
    }
    if (rest.p == c->tail && cap > c->tail_cap) {
        p = realloc(c->tail, cap);
        if (p == NULL) {
            return false;
        }
        c->tail = p;
        c->tail_n = (uint32_t)rest.n;
        c->tail_cap = (uint32_t)cap;
        return true;
    }
    p = malloc(cap);
    if (p == NULL) {
        return false;
    }
    memcpy(p, rest.p, rest.n);
    free(c->tail);
    c->tail = p;
    c->tail_n = (uint32_t)rest.n;
    c->tail_cap = (uint32_t)cap;
    return true;
}

_Static_assert(sizeof(struct out_chunk) == CHUNK_HEADER, "what chunks of a power of two leave");

static struct out_chunk *chunk_add(struct conn *c, size_t cap)
{
    struct out_chunk *ch = malloc(sizeof(*ch) + cap);

    if (ch == NULL) {
        return NULL;
    }
    *ch = (struct out_chunk){.p = ch->data, .cap = (uint32_t)cap};
    if (c->out_last == NULL) {
        c->out_first = ch;
    } else {
        c->out_last->next = ch;
    }
    c->out_last = ch;
    return ch;
}

static size_t first_cap(unsigned level)
{
    return ((size_t)512 << level) - CHUNK_HEADER;
}

/* So many copied bytes have left at once: the next output finds room in one piece. Who sends less
 * from now on has a smaller one each time. */
static void learn_size(struct conn *c, size_t n)
{
    if (c->first_level > 0 && n <= first_cap(c->first_level - 1u)) {
        c->first_level--;
    }
    while (c->first_level + 1u < CHUNK_LEVELS && n > first_cap(c->first_level)) {
        c->first_level++;
    }
}

uint8_t *conn_out_more(struct conn *c, size_t n)
{
    struct out_chunk *last = c->out_last;
    size_t cap = first_cap(c->first_level);

    if (last != NULL) { /* grows with the output: few chunks, and small ones for small answers */
        cap = last->cap * 4u + 160u;
        cap = cap < CHUNK_FIRST ? CHUNK_FIRST : cap;
        cap = cap > CHUNK_MAX ? CHUNK_MAX : cap;
    }
    last = chunk_add(c, n > cap ? n : cap);
    return last == NULL ? NULL : last->data;
}

bool conn_out_copy(struct conn *c, const void *p, size_t n)
{
    uint8_t *at = conn_out_room(c, n);

    if (at == NULL) {
        return false;
    }
    memcpy(at, p, n);
    conn_out_add(c, n);
    return true;
}

bool conn_out_borrow(struct conn *c, const void *p, size_t n, void (*release)(void *owner),
                     void *owner)
{
    struct out_chunk *ch = chunk_add(c, 0);

    if (ch == NULL) {
        return false;
    }
    ch->p = p;
    ch->n = (uint32_t)n;
    ch->release = release;
    ch->owner = owner;
    c->out_n += n;
    return true;
}

static void consume(struct conn *c, size_t n)
{
    assert(n <= c->out_n);
    c->out_n -= n;
    while (c->out_first != NULL) {
        struct out_chunk *ch = c->out_first;
        size_t left = ch->n - ch->off;
        if (n < left) {
            ch->off += (uint32_t)n;
            return;
        }
        check(ch->off <= ch->n);
        n -= left;
        c->out_first = ch->next;
        if (c->out_first == NULL) {
            c->out_last = NULL;
        }
        chunk_free(ch);
    }
}

enum conn_rc conn_flush(struct conn *c, size_t *written)
{
    struct iovec iov[IOV_PER_WRITE];

    *written = 0;
    while (c->out_n > 0) {
        int n = 0;
        size_t asked = 0;
        size_t own = 0;
        ssize_t w;

        for (struct out_chunk *ch = c->out_first; ch != NULL && n < IOV_PER_WRITE; ch = ch->next) {
            iov[n].iov_base = (void *)(uintptr_t)(ch->p + ch->off);
            iov[n].iov_len = ch->n - ch->off;
            asked += iov[n].iov_len;
            own += ch->release == NULL ? iov[n].iov_len : 0;
            n++;
        }
        w = c->tr->writev(c, iov, n);
        if (w < 0 && errno == EINTR) {
            continue;
        }
        if (w < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            c->blocked = true;
            return CONN_AGAIN;
        }
        if (w < 0) {
            drop_output(c);
            c->blocked = false;
            c->broken = true;
            return CONN_ERROR;
        }
        *written += (size_t)w;
        consume(c, (size_t)w);
        if ((size_t)w == asked) {
            learn_size(c, own);
        }
        /* Short: full. Asking again only costs a call, but it also arms the edge for sure. */
    }
    c->blocked = false;
    return CONN_OK;
}
