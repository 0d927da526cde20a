/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - bench_floor PORT: the relay's connections. One turn reads every ready socket until it
 * is empty, then writes every touched one once.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/floor/floor.h"

#define EVENTS   256
#define READ_MIN 65536u

uint8_t *bytes_room(struct bytes *b, size_t n)
{
    if (b->cap - b->n < n) {
        b->cap = (b->n + n) * 2;
        b->p = realloc(b->p, b->cap);
        if (b->p == NULL) {
            abort();
        }
    }
    return b->p + b->n;
}

void bytes_put(struct bytes *b, const void *p, size_t n)
{
    if (n > 0) {
        memcpy(bytes_room(b, n), p, n);
        b->n += n;
    }
}

/* --- output --- */

static void mark_dirty(struct relay *r, struct peer *p)
{
    if (!p->dirty) {
        p->dirty = true;
        p->dirty_next = r->dirty;
        r->dirty = p;
    }
}

void peer_put(struct relay *r, struct peer *p, const void *bytes, size_t n)
{
    bytes_put(&p->out, bytes, n);
    mark_dirty(r, p);
}

void peer_close(struct relay *r, struct peer *p)
{
    if (!p->closing) {
        p->closing = true;
        p->closing_next = r->closing;
        r->closing = p;
    }
}

static void peer_write(struct relay *r, struct peer *p)
{
    ssize_t n = send(p->fd, p->out.p + p->sent, p->out.n - p->sent, MSG_NOSIGNAL);

    if (n < 0 && errno != EAGAIN) {
        peer_close(r, p);
        return;
    }
    p->sent += n > 0 ? (size_t)n : 0;
    if (p->sent == p->out.n) {
        p->sent = p->out.n = 0;
    } else {
        p->blocked = true;
    }
}

static void write_all(struct relay *r)
{
    while (r->dirty != NULL) {
        struct peer *p = r->dirty;

        r->dirty = p->dirty_next;
        p->dirty = false;
        if (!p->blocked && p->sent < p->out.n) {
            peer_write(r, p);
        }
    }
}

static void close_all(struct relay *r)
{
    while (r->closing != NULL) {
        struct peer *p = r->closing;

        r->closing = p->closing_next;
        packets_forget(p);
        close(p->fd);
        free(p->out.p);
        free(p->tail.p);
        free(p->topic.p);
        free(p);
    }
}

/* --- input --- */

static void read_peer(struct relay *r, struct peer *p)
{
    struct bytes *in = &r->scratch;
    ssize_t got;
    size_t asked;
    size_t used;

    do {
        in->n = 0;
        bytes_put(in, p->tail.p, p->tail.n);
        bytes_room(in, READ_MIN);
        asked = in->cap - in->n;
        got = recv(p->fd, in->p + in->n, asked, 0);
        if (got <= 0) {
            if (got == 0 || errno != EAGAIN) {
                peer_close(r, p);
            }
            return;
        }
        in->n += (size_t)got;
        used = packets(r, p, in->p, in->n);
        p->tail.n = 0;
        bytes_put(&p->tail, in->p + used, in->n - used);
    } while ((size_t)got == asked && !p->closing);
}

static void accept_all(struct relay *r)
{
    const int on = 1;
    int fd;

    while ((fd = accept4(r->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct peer *p = calloc(1, sizeof(*p));
        struct epoll_event ev = {.events = (uint32_t)(EPOLLIN | EPOLLOUT | EPOLLRDHUP) |
                                           (uint32_t)EPOLLET,
                                 .data.ptr = p};

        if (p == NULL) {
            abort();
        }
        p->fd = fd;
        p->version = MQTT_3_1_1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0) {
            abort();
        }
    }
}

static void on_event(struct relay *r, const struct epoll_event *ev)
{
    struct peer *p = ev->data.ptr;

    if (p == NULL) {
        accept_all(r);
        return;
    }
    if ((ev->events & EPOLLOUT) != 0 && p->blocked) {
        p->blocked = false;
        mark_dirty(r, p);
    }
    if ((ev->events & (uint32_t)(EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        read_peer(r, p);
    }
    if ((ev->events & (uint32_t)EPOLLRDHUP) != 0) {
        peer_close(r, p);
    }
}

static void turn(struct relay *r)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(r->epoll_fd, events, EVENTS, -1);

    for (int i = 0; i < n; i++) {
        on_event(r, &events[i]);
    }
    write_all(r);
    close_all(r);
}

/* --- start --- */

static bool listen_at(struct relay *r, uint16_t port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event ev = {.events = EPOLLIN};
    socklen_t n = sizeof(at);
    const int on = 1;

    r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    r->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (r->epoll_fd < 0 || r->listen_fd < 0 ||
        setsockopt(r->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(r->listen_fd, (struct sockaddr *)&at, sizeof(at)) != 0 ||
        listen(r->listen_fd, SOMAXCONN) != 0 ||
        epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, r->listen_fd, &ev) != 0 ||
        getsockname(r->listen_fd, (struct sockaddr *)&at, &n) != 0) {
        return false;
    }
    printf("%u\n", ntohs(at.sin_port));
    fflush(stdout);
    return true;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    static struct relay relay;
    char *end = NULL;
    unsigned long port = argc == 2 ? strtoul(argv[1], &end, 10) : 65536;

    if (port > 65535 || *end != '\0') {
        fputs("usage: bench_floor PORT, on the loopback; 0: a free one, which is printed\n",
              stderr);
        return 2;
    }
    raise_descriptor_limit();
    if (!listen_at(&relay, (uint16_t)port)) {
        perror("bench_floor");
        return 1;
    }
    for (;;) {
        turn(&relay);
    }
}
