/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fixture.h - real shards in a test program, with clients on socket pairs or without a socket. It
 * includes shard.c, for turn(), and handle_connect.c: include it once in a program.
 */
#ifndef NOCTULE_TESTS_SHARD_FIXTURE_H
#define NOCTULE_TESTS_SHARD_FIXTURE_H

#include "server/config.h"
#include "tests/support/unit.h"

/* For turn(). */
#include "server/shard/shard.c"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Connections without a descriptor have nothing to wait for. */
static bool loop_add_if_any(struct loop *lp, int fd, uint32_t events, void *tag)
{
    return fd < 0 || loop_add(lp, fd, events, tag);
}
#define loop_add loop_add_if_any
#include "server/shard/handle_connect.c"
#undef loop_add

static const char config_text[] = "listener 1883\n"
                                  "allow_anonymous true\n"
                                  "shards 1\n"
                                  "sys_interval 0\n"
                                  "max_queued_messages 0\n"
                                  "log_dest none\n";

/* ---- the broker ---- */

#ifndef SHARDS
#define SHARDS 2u /* for those that no thread turns */
#endif

struct fixture {
    struct broker_shared shared;
    struct shard *shards[SHARDS];
    struct listener listener;
    struct config *config;
    uint64_t stamp;
};

/* The store becomes the fixture's. */
static void open_shards_on(struct fixture *f, unsigned n, struct store *store)
{
    struct broker_shared *s = &f->shared;
    char err[256];

    *f = (struct fixture){0};
    UNIT_NEED(config_parse(config_text, strlen(config_text), "test", NULL, &f->config, err,
                           sizeof(err)) == 0);
    atomic_init(&s->config, f->config);
    atomic_init(&f->listener.conf, &f->config->listeners[0]);
    s->clock = &clock_system;
    s->tree = tree_create();
    s->retained = retained_create(64, 0, 0, 1);
    s->shards = f->shards;
    s->nshards = n;
    rcu_register();
    UNIT_NEED(s->tree != NULL && s->retained != NULL);
    s->shares = shares_create(s->tree, n);
    UNIT_NEED(s->shares != NULL);
    s->store = store;
    for (unsigned i = 0; i < n; i++) {
        f->shards[i] = shard_create(s, i);
        UNIT_NEED(f->shards[i] != NULL);
    }
}

static inline void open_shards(struct fixture *f, unsigned n)
{
    struct store *store;

    UNIT_NEED(store_open_memory(0, &store) == ST_OK);
    open_shards_on(f, n, store);
}

/* Whose store is in the folder. */
static inline void open_shards_in(struct fixture *f, unsigned n, const char *dir)
{
    const struct store_options o = {.dir = dir, .pace_us = 0, .ballast = 65536};
    struct store *store;
    char err[256];

    UNIT_NEED(store_open(&o, &store, err, sizeof(err)) == ST_OK);
    open_shards_on(f, n, store);
    atomic_store(&f->shared.next_id, store_first_free_id(store));
    for (unsigned i = 0; i < n; i++) {
        f->shards[i]->spills = true;
    }
}

static void close_shards(struct fixture *f)
{
    for (unsigned i = 0; i < f->shared.nshards; i++) {
        shard_drain_mail(f->shards[i]); /* connections on their way */
        shard_close_clients(f->shards[i], RC_SERVER_SHUTTING_DOWN);
        shard_forget_store(f->shards[i]);
        shard_drain_mail(f->shards[i]);
    }
    store_close(&f->shared.store);
    for (unsigned i = 0; i < f->shared.nshards; i++) { /* its last answers */
        while (shard_has_mail(f->shards[i])) {
            shard_drain_mail(f->shards[i]);
        }
    }
    for (unsigned i = 0; i < f->shared.nshards; i++) {
        shard_destroy(f->shards[i]);
    }
    shares_destroy(f->shared.shares);
    retained_destroy(f->shared.retained);
    rcu_unregister();
    tree_destroy(f->shared.tree);
    config_free(&f->config);
}

/* A client whose first bytes are these, a CONNECT first; to the shard of its id. */
static void give_bytes(struct fixture *f, int fd, const struct transport *tr, const uint8_t *bytes,
                       size_t n)
{
    struct handover *h = calloc(1, sizeof(*h));
    const char *why;
    struct frame frame;

    UNIT_NEED(h != NULL);
    h->bytes = malloc(n);
    UNIT_NEED(h->bytes != NULL);
    memcpy(h->bytes, bytes, n);
    h->bytes_n = n;
    UNIT_NEED(frame_next(span_of(h->bytes, n), n, &frame, &why) == FRAME_OK);
    h->connect_n = frame.total;
    UNIT_NEED(connect_decode(&h->connect, frame.body, &why) == DEC_OK);
    h->client_id = h->connect.client_id;
    h->listener = &f->listener;
    h->peer.family = AF_UNIX;
    h->stamp = ++f->stamp;
    atomic_fetch_add_explicit(&f->listener.connections, 1, memory_order_relaxed);
    conn_init(&h->conn, fd, tr);
    shard_give(f->shards[broker_shard_of(&f->shared, h->client_id)], h);
}

/* A client whose CONNECT is followed by a SUBSCRIBE, unless n is 0. */
static inline void give_session(struct fixture *f, int fd, const struct transport *tr,
                                const char *id, bool clean, const struct subscribe_item *items,
                                size_t n)
{
    struct connect c = {.version = MQTT_3_1_1, .clean = clean, .client_id = span_str(id)};
    uint8_t bytes[256];
    size_t at = connect_encode(bytes, 128, &c);

    if (n > 0) {
        at += subscribe_encode(bytes + at, 128, MQTT_3_1_1, 1, SPAN_NULL, items, n);
    }
    give_bytes(f, fd, tr, bytes, at);
}

/* A clean session; filter may be NULL. */
static inline void give(struct fixture *f, int fd, const struct transport *tr, const char *id,
                        const char *filter)
{
    const struct subscribe_item item = {.filter = span_str(filter == NULL ? "" : filter)};

    give_session(f, fd, tr, id, true, &item, filter != NULL);
}

/* ---- clients ---- */

/* The client's end of its connection. */
static inline int connect_session(struct fixture *f, const char *id, bool clean,
                                  const struct subscribe_item *items, size_t n)
{
    int pair[2];

    UNIT_NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    give_session(f, pair[0], &transport_tcp, id, clean, items, n);
    return pair[1];
}

static inline int connect_pair(struct fixture *f, const char *id, const char *filter)
{
    const struct subscribe_item item = {.filter = span_str(filter == NULL ? "" : filter)};

    return connect_session(f, id, true, &item, filter != NULL);
}

static inline size_t message(uint8_t *p, const char *topic)
{
    struct publish m = {.topic = span_str(topic), .payload = span_str("payload.")};
    size_t id_at;
    size_t n = publish_encode_head(p, &m, SPAN_NULL, MQTT_3_1_1, &id_at);

    memcpy(p + n, m.payload.p, m.payload.n);
    return n + m.payload.n;
}

/* The k-th client id that belongs to the shard. */
static inline void id_of(const struct fixture *f, unsigned shard, unsigned k, char *id, size_t cap)
{
    for (unsigned i = 0;; i++) {
        (void)snprintf(id, cap, "c%u-%u", k, i);
        if (broker_shard_of(&f->shared, span_str(id)) == shard) {
            return;
        }
    }
}

#endif
