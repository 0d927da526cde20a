/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define EVENTS   256
#define READ_CAP (256u * 1024u)

_Noreturn void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("noctule-bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

uint64_t clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint8_t *bytes_room(struct bytes *b, size_t n)
{
    if (b->n + n > b->cap) {
        size_t cap = b->cap == 0 ? 512 : b->cap;

        while (cap < b->n + n) {
            cap *= 2;
        }
        b->p = realloc(b->p, cap);
        if (b->p == NULL) {
            die("out of memory");
        }
        b->cap = cap;
    }
    return b->p + b->n;
}

void bytes_free(struct bytes *b)
{
    free(b->p);
    *b = (struct bytes){NULL, 0, 0};
}

void loop_init(struct loop *l)
{
    *l = (struct loop){.epoll_fd = epoll_create1(EPOLL_CLOEXEC), .now_ns = clock_ns()};
    /* Sleep as long as asked for: the default slack of 50 us is more than a message takes. */
    (void)prctl(PR_SET_TIMERSLACK, 1);
    l->read_cap = READ_CAP;
    l->read_buf = malloc(l->read_cap);
    if (l->epoll_fd < 0 || l->read_buf == NULL) {
        die("cannot start: %s", strerror(errno));
    }
}

void loop_fini(struct loop *l)
{
    close(l->epoll_fd);
    free(l->read_buf);
}

static void mark_dirty(struct conn *c)
{
    if (!c->dirty) {
        c->dirty = true;
        c->dirty_next = c->loop->dirty;
        c->loop->dirty = c;
    }
}

uint8_t *conn_room(struct conn *c, size_t n)
{
    mark_dirty(c);
    return bytes_room(&c->out, n);
}

bool address_parse(struct address *out, const char *host, unsigned port)
{
    char service[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;

    *out = (struct address){.n = 0};
    if (host[0] == '/') {
        struct sockaddr_un *un = (struct sockaddr_un *)&out->sa;

        if (strlen(host) >= sizeof(un->sun_path)) {
            return false;
        }
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, host, strlen(host) + 1);
        out->n = sizeof(*un);
        return true;
    }
    snprintf(service, sizeof(service), "%u", port & 0xffffu);
    if (getaddrinfo(host, service, &hints, &found) != 0) {
        return false;
    }
    memcpy(&out->sa, found->ai_addr, found->ai_addrlen);
    out->n = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

static void watch(struct conn *c, int op, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};

    if (epoll_ctl(c->loop->epoll_fd, op, c->fd, &e) != 0) {
        die("epoll_ctl: %s", strerror(errno));
    }
}

void loop_set_sources(struct loop *l, uint32_t sources, uint32_t first)
{
    l->sources = sources > 1 ? sources : 0;
    l->next_source = first;
}

/* The port is found at connect(), so that it has to be free for this destination only. */
static bool bind_source(struct loop *l, int fd)
{
    int one = 1;
    uint32_t host = INADDR_LOOPBACK + l->next_source++ % l->sources;
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};

    return setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) == 0 &&
           bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0;
}

static void conn_init(struct conn *c, struct loop *l, const struct conn_ops *ops)
{
    c->loop = l;
    c->ops = ops;
    c->waits_for_out = false;
    c->discard = false;
    c->sent = c->out.n = c->tail.n = 0;
}

void conn_adopt(struct conn *c, struct loop *l, int fd, const struct conn_ops *ops)
{
    c->fd = fd;
    conn_init(c, l, ops);
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

bool conn_open(struct conn *c, struct loop *l, const struct address *to, const struct conn_ops *ops)
{
    int one = 1;

    c->fd = socket(to->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        return false;
    }
    if (to->sa.ss_family != AF_UNIX) {
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    conn_init(c, l, ops);
    if ((l->sources > 0 && !bind_source(l, c->fd)) ||
        (connect(c->fd, (const struct sockaddr *)&to->sa, to->n) != 0 && errno != EINPROGRESS)) {
        close(c->fd);
        c->fd = -1;
        return false;
    }
    /* Where the handshake is done already (loopback), the first bytes leave with the next flush;
     * else that flush gets EAGAIN and asks for EPOLLOUT. */
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    ops->opened(c);
    return true;
}

void conn_close(struct conn *c, bool reset)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};

    if (c->fd < 0) {
        return;
    }
    if (reset) {
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    }
    close(c->fd);
    c->fd = -1;
    c->sent = 0;
    bytes_free(&c->out);
    bytes_free(&c->tail);
}

static void conn_lost(struct conn *c, const char *why)
{
    conn_close(c, false);
    c->ops->closed(c, why);
}

static void conn_flush(struct conn *c)
{
    while (c->sent < c->out.n) {
        ssize_t n = send(c->fd, c->out.p + c->sent, c->out.n - c->sent, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            if (!c->waits_for_out) {
                c->waits_for_out = true;
                watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            }
            return;
        }
        if (n < 0) {
            conn_lost(c, strerror(errno));
            return;
        }
        c->sent += (size_t)n;
    }
    c->sent = c->out.n = 0;
    if (c->waits_for_out) {
        c->waits_for_out = false;
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
}

void loop_flush(struct loop *l)
{
    while (l->dirty != NULL) {
        struct conn *c = l->dirty;

        l->dirty = c->dirty_next;
        c->dirty = false;
        if (c->fd >= 0) {
            conn_flush(c);
        }
    }
}

/* The tail of the last read goes in front, so that a packet is always contiguous. */
static void conn_read(struct conn *c)
{
    struct loop *l = c->loop;
    size_t kept = c->tail.n;
    size_t used;
    ssize_t n;

    if (kept + READ_CAP > l->read_cap) {
        l->read_cap = (kept + READ_CAP) * 2;
        l->read_buf = realloc(l->read_buf, l->read_cap);
        if (l->read_buf == NULL) {
            die("out of memory");
        }
    }
    if (kept > 0) {
        memcpy(l->read_buf, c->tail.p, kept);
        c->tail.n = 0;
    }
    n = recv(c->fd, l->read_buf + kept, READ_CAP, 0);
    if (n <= 0) {
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            c->tail.n = kept;
            return;
        }
        conn_lost(c, n == 0 ? "closed by the broker" : strerror(errno));
        return;
    }
    if (c->discard) {
        return;
    }
    l->now_ns = clock_ns(); /* a turn of many connections takes longer than a message */
    used = c->ops->bytes(c, (struct span){l->read_buf, kept + (size_t)n});
    kept += (size_t)n;
    if (c->fd >= 0 && used < kept) {
        memcpy(bytes_room(&c->tail, kept - used), l->read_buf + used, kept - used);
        c->tail.n = kept - used;
    }
}

static void conn_event(struct conn *c, uint32_t events)
{
    if (c->fd < 0) {
        return; /* closed earlier in this turn */
    }
    if (events & EPOLLOUT) {
        mark_dirty(c);
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        conn_read(c);
    }
}

/* Kernels before 5.11 wait whole milliseconds. */
static int wait_for_events(struct loop *l, struct epoll_event *events, uint64_t timeout_ns)
{
    const struct timespec t = {(time_t)(timeout_ns / 1000000000u),
                               (long)(timeout_ns % 1000000000u)};
    int n = epoll_pwait2(l->epoll_fd, events, EVENTS, &t, NULL);

    if (n < 0 && errno == ENOSYS) {
        n = epoll_wait(l->epoll_fd, events, EVENTS, (int)((timeout_ns + 999999) / 1000000u));
    }
    return n;
}

void loop_turn_ns(struct loop *l, uint64_t timeout_ns)
{
    struct epoll_event events[EVENTS];
    int n;

    loop_flush(l);
    n = wait_for_events(l, events, timeout_ns);
    l->now_ns = clock_ns();
    for (int i = 0; i < n; i++) {
        conn_event(events[i].data.ptr, events[i].events);
    }
    loop_flush(l);
}

void loop_turn(struct loop *l, unsigned timeout_ms)
{
    loop_turn_ns(l, (uint64_t)timeout_ms * 1000000u);
}

void loop_linger(struct loop *l, unsigned ms)
{
    for (uint64_t end = clock_ns() + (uint64_t)ms * 1000000u; clock_ns() < end;) {
        loop_turn(l, 10);
    }
}
