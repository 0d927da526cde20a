/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/loop.h"

#include <unistd.h>

bool loop_init(struct loop *lp)
{
    lp->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return lp->epoll_fd >= 0;
}

void loop_fini(struct loop *lp)
{
    if (lp->epoll_fd >= 0) {
        close(lp->epoll_fd);
        lp->epoll_fd = -1;
    }
}

bool loop_add(struct loop *lp, int fd, uint32_t events, void *tag)
{
    struct epoll_event ev = {.events = events, .data.ptr = tag};

    return epoll_ctl(lp->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0;
}

void loop_del(struct loop *lp, int fd)
{
    epoll_ctl(lp->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

int loop_wait(struct loop *lp, int timeout_ms)
{
    int n = epoll_wait(lp->epoll_fd, lp->events, LOOP_EVENTS, timeout_ms);

    return n < 0 ? 0 : n;
}

int loop_look(struct loop *lp, int n)
{
    n = epoll_wait(lp->epoll_fd, lp->events, n < LOOP_EVENTS ? n : LOOP_EVENTS, 0);
    return n < 0 ? 0 : n;
}
