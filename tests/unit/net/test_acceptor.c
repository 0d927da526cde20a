/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/acceptor.h"

#include "server/config.h"
#include "tests/support/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- epoll_ctl() that fails for a while ---- */

static _Atomic int adds_to_fail;
static _Atomic unsigned adds_failed;

int __real_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev);
int __wrap_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev);

int __wrap_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
    /* Only listening sockets have this flag. */
    if (op == EPOLL_CTL_ADD && (ev->events & EPOLLEXCLUSIVE) != 0 &&
        atomic_load(&adds_to_fail) > 0) {
        atomic_fetch_sub(&adds_to_fail, 1);
        atomic_fetch_add(&adds_failed, 1);
        errno = ENOSPC;
        return -1;
    }
    return __real_epoll_ctl(epfd, op, fd, ev);
}

/* ---- an acceptor on a listener of its own ---- */

struct office {
    struct config *config;
    const struct config *_Atomic current;
    struct listener listener;
    struct metrics metrics;
    _Atomic uint64_t stamp;
    _Atomic uint32_t pending;
    _Atomic unsigned given;
    struct acceptor *acceptor;
};

static void count_given(void *arg, struct handover *h)
{
    struct office *o = arg;

    atomic_fetch_sub(&o->listener.connections, 1);
    handover_free(h);
    atomic_fetch_add(&o->given, 1);
}

static char folder[] = "/tmp/noctule-acceptor-XXXXXX";
static char path[64];

static bool open_office(struct office *o, const char *keys)
{
    char text[256];
    struct acceptor_env env;
    char err[256];

    memset(o, 0, sizeof(*o));
    UNIT_NEED(mkdtemp(folder) != NULL);
    (void)snprintf(path, sizeof(path), "%s/socket", folder);
    (void)snprintf(text, sizeof(text), "listener 0 %s\nallow_anonymous true\n%s\n", path, keys);
    UNIT_NEED(config_parse(text, strlen(text), "test", NULL, &o->config, err, sizeof(err)) == 0);
    atomic_init(&o->current, o->config);
    UNIT_NEED(listener_open(&o->listener, &o->config->listeners[0], 0, o->config, NULL, err,
                            sizeof(err)) == 0);
    env = (struct acceptor_env){.listeners = &o->listener,
                                .nlisteners = 1,
                                .config = &o->current,
                                .clock = &clock_system,
                                .metrics = &o->metrics,
                                .stamp = &o->stamp,
                                .pending = &o->pending,
                                .give = count_given,
                                .give_arg = o};
    return acceptor_start(&o->acceptor, &env);
}

static void close_office(struct office *o)
{
    acceptor_stop(&o->acceptor);
    listener_close(&o->listener);
    config_free(&o->config);
    rmdir(folder);
}

/* ---- clients ---- */

static int call(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    UNIT_NEED(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    return fd;
}

static void say_connect(int fd)
{
    static const uint8_t bytes[] = {0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 1, 'a'};

    UNIT_NEED(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) == (ssize_t)sizeof(bytes));
}

#define UNTIL(cond)                                                                                \
    for (unsigned tries = 0; !(cond) && tries < 3000; tries++) {                                   \
        usleep(10000);                                                                             \
    }                                                                                              \
    CU_ASSERT_TRUE(cond)

/* ---- tests ---- */

static void test_gives_what_connects(void)
{
    struct office o;
    int fd;

    UNIT_NEED(open_office(&o, ""));
    fd = call();
    say_connect(fd);
    UNTIL(atomic_load(&o.given) == 1);
    close(fd);
    close_office(&o);
}

/* Who cannot wait for connections does not start. */
static void test_deaf_from_the_start(void)
{
    struct office o;

    atomic_store(&adds_to_fail, 1);
    CU_ASSERT_FALSE(open_office(&o, ""));
    CU_ASSERT_EQUAL(errno, ENOSPC);
    close_office(&o);
}

/* Accepting rested, and the kernel did not take the sockets back at once. */
static void test_hears_again(void)
{
    struct office o;
    int silent;
    int waiting;

    UNIT_NEED(open_office(&o, "max_connections_pending 1"));
    silent = call();
    UNTIL(atomic_load(&o.pending) == 1);
    atomic_store(&adds_to_fail, 3);
    waiting = call(); /* one too many: accepting rests */
    say_connect(waiting);
    UNTIL(atomic_load(&adds_failed) == 3);
    CU_ASSERT_EQUAL(atomic_load(&o.given), 0);
    close(silent);
    UNTIL(atomic_load(&o.given) == 1);
    close(waiting);
    close_office(&o);
}

UNIT_TESTS = {
    UNIT_TEST(gives_what_connects)
    UNIT_TEST(deaf_from_the_start)
    UNIT_TEST(hears_again)
UNIT_TESTS_END
