/* SPDX-License-Identifier: Apache-2.0 */
/* Plain stream sockets: TCP over IPv4 and IPv6, and unix sockets. */
#include "server/net/conn.h"

#include <sys/socket.h>
#include <unistd.h>

static ssize_t tcp_read(struct conn *c, void *p, size_t n)
{
    return recv(c->fd, p, n, 0);
}

static ssize_t tcp_writev(struct conn *c, const struct iovec *iov, int n)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n};

    if (n == 1) {
        return send(c->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
    }
    return sendmsg(c->fd, &m, MSG_NOSIGNAL);
}

static bool tcp_has_pending(const struct conn *c)
{
    (void)c;
    return false;
}

static void tcp_shutdown(struct conn *c)
{
    shutdown(c->fd, SHUT_WR);
}

static void tcp_fini(struct conn *c)
{
    (void)c;
}

const struct transport transport_tcp = {"tcp",           tcp_read,     tcp_writev,
                                        tcp_has_pending, tcp_shutdown, tcp_fini};
