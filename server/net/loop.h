/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - waiting for file descriptors: the small interface that epoll is behind.
 *
 * Connections are registered once, edge triggered for both directions; nothing is changed per
 * write. Threads    one owner per loop.
 */
#ifndef NOCTULE_NET_LOOP_H
#define NOCTULE_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#define LOOP_EVENTS 256

struct loop {
    int epoll_fd;
    struct epoll_event events[LOOP_EVENTS];
};

/* Edge triggered, both directions: what a connection is registered with. */
#define LOOP_CONN ((uint32_t)(EPOLLIN | EPOLLOUT | EPOLLRDHUP) | (uint32_t)EPOLLET)
/* Of an event: the peer's direction has ended, or an error is to be read. */
#define LOOP_ENDED ((uint32_t)(EPOLLRDHUP | EPOLLHUP | EPOLLERR))
/* Level triggered reading, and for listening sockets shared by several threads: wake one of them.
 */
#define LOOP_READ   ((uint32_t)EPOLLIN)
#define LOOP_ACCEPT ((uint32_t)(EPOLLIN | EPOLLEXCLUSIVE))

bool loop_init(struct loop *lp); /* false: errno */
void loop_fini(struct loop *lp);
bool loop_add(struct loop *lp, int fd, uint32_t events, void *tag);
void loop_del(struct loop *lp, int fd);
/* Waits at most timeout_ms (-1: for ever); the number of events, 0 also when interrupted. */
int loop_wait(struct loop *lp, int timeout_ms);
/* Looks for at most n of them, without waiting. */
int loop_look(struct loop *lp, int n);

#endif
