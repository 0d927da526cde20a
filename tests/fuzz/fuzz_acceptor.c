/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/fuzz_acceptor.h"

#include "server/net/loop.h"
#include "tests/fuzz/fuzz.h"

#define loop_add(lp, fd, events, tag) fuzz_loop_add(a, fd, tag)
#define loop_del(lp, fd)              fuzz_loop_del(fd)
#include "server/net/acceptor.c"
#undef loop_add
#undef loop_del

struct acceptor *fuzz_acceptor_create(const struct acceptor_env *env)
{
    struct acceptor *a = calloc(1, sizeof(*a));

    FUZZ_CHECK(a != NULL);
    a->env = *env;
    a->wake_fd = -1;
    a->loop.epoll_fd = -1;
    a->waiting.next = a->waiting.prev = &a->waiting;
    a->lingering.next = a->lingering.prev = &a->lingering;
    fuzz_acceptor_turn(a);
    return a;
}

void fuzz_acceptor_destroy(struct acceptor *a)
{
    while (a->waiting.next != &a->waiting) {
        pending_free(a, a->waiting.next);
    }
    while (a->lingering.next != &a->lingering) {
        pending_free(a, a->lingering.next);
    }
    acceptor_free(a);
}

void fuzz_acceptor_take(struct acceptor *a, struct listener *l, int fd, const struct transport *tr,
                        void *tr_state)
{
    const struct sockaddr_storage sa = {.ss_family = AF_UNIX};

    FUZZ_CHECK(reserve(a->env.pending, a->config->max_connections_pending));
    take(a, l, fd, &sa);
    a->waiting.prev->conn.tr = tr;
    a->waiting.prev->conn.tr_state = tr_state;
}

void fuzz_acceptor_event(struct acceptor *a, void *tag, uint32_t events)
{
    note_end(tag, events);
    pending_ready(a, tag);
}

void fuzz_acceptor_turn(struct acceptor *a)
{
    a->now_ms = clock_now_ms(a->env.clock);
    a->config = atomic_load_explicit(a->env.config, memory_order_acquire);
    expire_list(a, &a->waiting);
    expire_list(a, &a->lingering);
}

void fuzz_acceptor_check(const struct acceptor *a)
{
    for (const struct pending *p = a->waiting.next; p != &a->waiting; p = p->next) {
        FUZZ_CHECK(!p->lingering);
        fuzz_conn_check(&p->conn, SCRATCH, false);
    }
    for (const struct pending *p = a->lingering.next; p != &a->lingering; p = p->next) {
        FUZZ_CHECK(p->lingering && p->conn.tail == NULL);
        fuzz_conn_check(&p->conn, SCRATCH, false);
    }
}
