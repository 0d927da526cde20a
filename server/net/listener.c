/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/listener.h"

#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096 /* the kernel cuts it to net.core.somaxconn */

static int fail(char *err, size_t cap, const char *what, const char *where)
{
    snprintf(err, cap, "%s %s: %s", what, where, strerror(errno));
    return -1;
}

/* What stands at its path: one left by an earlier run goes; anything else of that name is not ours
 * to remove, least of all the socket of a broker that lives. False: err. */
static bool clear_path(const struct sockaddr_un *sa, char *err, size_t cap)
{
    struct stat st;
    int fd;
    bool is_alive;

    if (lstat(sa->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        return true; /* bind() says what it is */
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        fail(err, cap, "cannot make a unix socket for", sa->sun_path);
        return false;
    }
    is_alive = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno == EAGAIN;
    close(fd);
    if (is_alive) {
        snprintf(err, cap, "unix socket %s: another process listens on it", sa->sun_path);
        return false;
    }
    unlink(sa->sun_path);
    return true;
}

static int open_unix(struct listener *l, struct log *log, char *err, size_t cap)
{
    const char *path = listener_conf(l)->unix_path;
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof(sa.sun_path)) {
        snprintf(err, cap, "unix socket path too long: %s", path);
        return -1;
    }
    memcpy(sa.sun_path, path, strlen(path));
    if (!clear_path(&sa, err, cap)) {
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return fail(err, cap, "cannot make a unix socket for", path);
    }
    if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(fd, BACKLOG) != 0) {
        fail(err, cap, "cannot listen on", path);
        close(fd);
        return -1;
    }
    l->fds[l->nfds++] = fd;
    l->unix_path = strdup(path);
    log_info(log, "listening on unix socket %s", path);
    return 0;
}

static bool set_options(int fd, const struct addrinfo *ai, const struct listener_config *conf,
                        const struct config *config)
{
    int on = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (ai->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (config->set_tcp_nodelay) { /* accepted sockets inherit it */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    return conf->bind_interface == NULL ||
           setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, conf->bind_interface,
                      (socklen_t)strlen(conf->bind_interface)) == 0;
}

static int open_address(struct listener *l, const struct addrinfo *ai, const struct config *config,
                        char *name, size_t name_cap)
{
    char host[NI_MAXHOST] = "?";
    char port[NI_MAXSERV] = "?";
    int fd;

    getnameinfo(ai->ai_addr, ai->ai_addrlen, host, sizeof(host), port, sizeof(port),
                NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(name, name_cap, ai->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    if (!set_options(fd, ai, listener_conf(l), config) ||
        bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int open_tcp(struct listener *l, const struct config *config, struct log *log, char *err,
                    size_t cap)
{
    const struct listener_config *conf = listener_conf(l);
    struct addrinfo hints = {.ai_family = conf->socket_domain, .ai_socktype = SOCK_STREAM};
    struct addrinfo *all = NULL;
    char port[8];
    char name[NI_MAXHOST + NI_MAXSERV + 4] = "";
    int rc;
    int why = 0;

    /* Without an address: everywhere, but only the loopback when no listener was asked for. */
    hints.ai_flags = conf->address == NULL && config->local_only ? 0 : AI_PASSIVE;
    snprintf(port, sizeof(port), "%u", (unsigned)conf->port);
    rc = getaddrinfo(conf->address, port, &hints, &all);
    if (rc != 0) {
        snprintf(err, cap, "cannot resolve listener address %s: %s",
                 conf->address == NULL ? "" : conf->address, gai_strerror(rc));
        return -1;
    }
    for (struct addrinfo *ai = all; ai != NULL && l->nfds < LISTENER_FDS; ai = ai->ai_next) {
        int fd = open_address(l, ai, config, name, sizeof(name));
        if (fd >= 0) {
            l->fds[l->nfds++] = fd;
            log_info(log, "listening on %s", name);
        } else if (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL) {
            /* A family the machine does not have is no error as long as another one works. */
            fail(err, cap, "cannot listen on", name);
            freeaddrinfo(all);
            return -1;
        } else {
            why = errno;
        }
    }
    freeaddrinfo(all);
    if (l->nfds == 0) {
        errno = why;
        return fail(err, cap, "cannot listen on", name);
    }
    return 0;
}

int listener_open(struct listener *l, const struct listener_config *conf, unsigned index,
                  const struct config *config, struct log *log, char *err, size_t cap)
{
    int rc;

    *l = (struct listener){.index = index};
    atomic_init(&l->conf, conf);
    rc = conf->unix_path != NULL ? open_unix(l, log, err, cap) : open_tcp(l, config, log, err, cap);
    if (rc != 0) {
        listener_close(l);
    }
    return rc;
}

void listener_close(struct listener *l)
{
    while (l->nfds > 0) {
        close(l->fds[--l->nfds]);
    }
    if (l->unix_path != NULL) {
        unlink(l->unix_path);
        free(l->unix_path);
        l->unix_path = NULL;
    }
}
