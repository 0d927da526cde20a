/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Happy path: accept, read, decode CONNECT, take the connection out of this epoll, stamp it, give
 * it away.
 *
 * Failure modes: no descriptors or memory - the listening sockets leave the epoll for a while, so
 * that a full backlog does not spin, and come back when the kernel takes them; silence -
 * connections wait in a list in order of their deadlines, which are all the same time after accept;
 * a refused CONNECT - its CONNACK is sent, our direction closed, and the rest read away for a
 * moment so that the answer is not lost to a reset.
 */
#include "server/net/acceptor.h"

#include "server/base/rng.h"
#include "server/base/sys_topic.h"
#include "server/codec/frame.h"
#include "server/codec/utf8.h"
#include "server/net/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SCRATCH         65536u
#define ACCEPT_PER_TURN 64
#define PAUSE_MS        250  /* accepting rests when descriptors are out */
#define LINGER_MS       1000 /* the peer's time to read a refusal */

_Static_assert(SCRATCH >= CONN_SCRATCH, "what conn_keep() keeps has room behind it there");

struct pending {
    struct conn conn;
    struct pending *next, *prev;
    int64_t deadline_ms;
    struct listener *listener;
    struct peer peer;
    bool lingering; /* answered and shut down; reads are thrown away */
};

struct accept_fd {
    struct listener *listener;
    int fd;
    bool watched; /* in the epoll */
};

struct acceptor {
    struct acceptor_env env;
    const struct config *config; /* of this turn */
    struct loop loop;
    int wake_fd;
    pthread_t thread;
    _Atomic bool stop; /* release by stop(), acquire by the thread; the eventfd wakes it */
    struct accept_fd *fds;
    size_t nfds;
    bool accepting; /* it should be: sockets that are not watched are tried again */
    bool deaf;      /* some could not be watched; said */
    bool failing;   /* accept() fails for want of something; said */
    int64_t paused_until_ms;
    int64_t now_ms;
    struct pending waiting, lingering; /* list heads, in order of deadlines */
    uint8_t scratch[SCRATCH];
};

void peer_text(const struct peer *p, char out[PEER_TEXT])
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (p->family == AF_INET) {
        inet_ntop(AF_INET, &p->addr.v4, host, sizeof(host));
        snprintf(out, PEER_TEXT, "%s:%u", host, p->port);
    } else if (p->family == AF_INET6) {
        inet_ntop(AF_INET6, &p->addr.v6, host, sizeof(host));
        snprintf(out, PEER_TEXT, "[%s]:%u", host, p->port);
    } else {
        snprintf(out, PEER_TEXT, "unix");
    }
}

static void peer_from(struct peer *p, const struct sockaddr_storage *sa)
{
    p->family = sa->ss_family;
    if (sa->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
        p->addr.v4 = in->sin_addr;
        p->port = ntohs(in->sin_port);
    } else if (sa->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;
        p->addr.v6 = in6->sin6_addr;
        p->port = ntohs(in6->sin6_port);
    }
}

void handover_free(struct handover *h)
{
    if (h == NULL) {
        return;
    }
    conn_fini(&h->conn);
    free(h->bytes);
    free(h);
}

void handover_drop(struct handover *h)
{
    /* relaxed: counts for a limit. */
    atomic_fetch_sub_explicit(&h->listener->connections, 1, memory_order_relaxed);
    handover_free(h);
}

/* ---- pending connections ---- */

static void pending_list_add(struct pending *head, struct pending *p)
{
    p->next = head;
    p->prev = head->prev;
    head->prev->next = p;
    head->prev = p;
}

static void pending_list_del(struct pending *p)
{
    p->prev->next = p->next;
    p->next->prev = p->prev;
}

/* Forgets a pending connection; its descriptor is closed unless it was moved into a handover. */
static void pending_free(struct acceptor *a, struct pending *p)
{
    pending_list_del(p);
    if (p->conn.fd >= 0) {
        /* relaxed: counts for a limit. */
        atomic_fetch_sub_explicit(&p->listener->connections, 1, memory_order_relaxed);
    }
    atomic_fetch_sub_explicit(a->env.pending, 1, memory_order_relaxed);
    conn_fini(&p->conn);
    free(p);
}

static void refuse(struct acceptor *a, struct pending *p, const uint8_t *answer, size_t n,
                   const char *why)
{
    char peer[PEER_TEXT];
    size_t written;

    metric_add(a->env.metrics, METRIC_CONNECT_REFUSED, 1);
    if (log_enabled(a->env.log, LOGL_NOTICE)) {
        peer_text(&p->peer, peer);
        log_limited(a->env.log, LOGL_NOTICE, LOGR_REFUSED, "connection from %s refused: %s", peer,
                    why);
    }
    if (n == 0 || !conn_out_copy(&p->conn, answer, n) ||
        conn_flush(&p->conn, &written) != CONN_OK) {
        pending_free(a, p);
        return;
    }
    metric_add(a->env.metrics, METRIC_BYTES_SENT, (int64_t)written);
    p->conn.tr->shutdown(&p->conn);
    conn_drop_tail(&p->conn);
    pending_list_del(p);
    p->lingering = true;
    p->deadline_ms = a->now_ms + LINGER_MS;
    pending_list_add(&a->lingering, p);
}

/* What its client takes no packet of [MQTT-3.1.2-24]: closed without a CONNACK. */
static bool takes(const struct connect *c, size_t n)
{
    return c->props.maximum_packet_size == 0 || n <= c->props.maximum_packet_size;
}

static void refuse_with(struct acceptor *a, struct pending *p, const struct connect *c,
                        enum mqtt3_connack rc3, enum mqtt_reason rc5, const char *why)
{
    uint8_t answer[16];
    size_t n = c->version == MQTT_5 ? connack5_encode(answer, sizeof(answer), false, rc5, SPAN_NULL)
                                    : connack3_encode(answer, sizeof(answer), false, rc3);

    refuse(a, p, answer, takes(c, n) ? n : 0, why);
}

/* ---- CONNECT ---- */

/* 3.x has no return code for it: closed without a CONNACK [MQTT-3.2.2-6 of 3.1.1]. */
static void refuse_v5(struct acceptor *a, struct pending *p, const struct connect *c,
                      enum mqtt_reason reason, const char *why)
{
    if (c->version == MQTT_5) {
        refuse_with(a, p, c, CONNACK3_SERVER_UNAVAILABLE, reason, why);
    } else {
        refuse(a, p, NULL, 0, why);
    }
}

static bool prefix_is_allowed(const char *prefixes, struct span id)
{
    size_t n;

    if (prefixes == NULL) {
        return true;
    }
    n = strlen(prefixes);
    return id.n >= n && memcmp(id.p, prefixes, n) == 0;
}

/* Settings and rights that can be judged without a session. True: refused and answered. */
static bool refuse_by_rules(struct acceptor *a, struct pending *p, const struct connect *c)
{
    const struct listener_config *lc = listener_conf(p->listener);
    const struct config *cfg = a->config;
    enum mqtt_version v = c->version;

    if ((lc->accept_protocol_versions & (1u << v)) == 0) {
        refuse_with(a, p, c, CONNACK3_BAD_PROTOCOL_VERSION, RC_UNSUPPORTED_PROTOCOL_VERSION,
                    "protocol version not accepted on this listener");
    } else if (!c->has_username && !lc->allow_anonymous) {
        refuse_with(a, p, c, CONNACK3_NOT_AUTHORIZED, RC_NOT_AUTHORIZED,
                    "anonymous clients are not allowed");
    } else if (c->has_username && !lc->allow_anonymous) {
        /* Nothing here could check the password, so nobody can be let in by name. */
        refuse_with(a, p, c, CONNACK3_BAD_USER_NAME_OR_PASSWORD, RC_BAD_USER_NAME_OR_PASSWORD,
                    "no way to check user names is configured");
    } else if (v == MQTT_5 && props_has(&c->props, PROP_AUTH_METHOD)) {
        refuse_with(a, p, c, CONNACK3_NOT_AUTHORIZED, RC_BAD_AUTHENTICATION_METHOD,
                    "no enhanced authentication method is configured");
    } else if (v != MQTT_5 && cfg->max_keepalive != 0 &&
               (c->keep_alive_s == 0 || c->keep_alive_s > cfg->max_keepalive)) {
        refuse_with(a, p, c, CONNACK3_ID_REJECTED, RC_SUCCESS, "keep alive above max_keepalive");
    } else if (c->has_will && c->will.qos > lc->max_qos) {
        refuse_v5(a, p, c, RC_QOS_NOT_SUPPORTED, "will QoS above the listener's max_qos");
    } else if (c->has_will && cfg->message_size_limit != 0 &&
               c->will.payload.n > cfg->message_size_limit) {
        refuse_with(a, p, c, CONNACK3_NOT_AUTHORIZED, RC_QUOTA_EXCEEDED,
                    "will above message_size_limit");
    } else if (c->has_will && lc->mount_point == NULL &&
               (sys_topic_is_reserved(c->will.topic) ||
                sys_topic_begins(c->will.topic, "$CONTROL/"))) {
        refuse_with(a, p, c, CONNACK3_NOT_AUTHORIZED, RC_NOT_AUTHORIZED,
                    "will to a reserved topic");
    } else if (c->has_will && c->will.retain && !cfg->retain_available) {
        refuse_v5(a, p, c, RC_RETAIN_NOT_SUPPORTED, "retained will, but retain_available is false");
    } else {
        return false;
    }
    return true;
}

/* The client id to use: the client's, its user name, or one made here. False: refused. */
static bool choose_id(struct acceptor *a, struct pending *p, const struct connect *c,
                      struct span *id, bool *assign)
{
    const struct listener_config *lc = listener_conf(p->listener);

    *assign = false;
    *id = c->client_id;
    if (lc->use_username_as_clientid) {
        if (!c->has_username || c->username.n == 0) {
            refuse_with(a, p, c, CONNACK3_BAD_USER_NAME_OR_PASSWORD, RC_BAD_USER_NAME_OR_PASSWORD,
                        "no user name to use as client id");
            return false;
        }
        *id = c->username;
    }
    if (id->n == 0) {
        /* 3.1 has no empty ids; 3.1.1 only with clean session [MQTT-3.1.3-8]. */
        if (c->version == MQTT_3_1 || (c->version == MQTT_3_1_1 && !c->clean) ||
            !lc->allow_zero_length_clientid) {
            refuse_with(a, p, c, CONNACK3_ID_REJECTED, RC_CLIENT_ID_NOT_VALID,
                        "client id of no length");
            return false;
        }
        *assign = true;
        return true;
    }
    return true;
}

static struct handover *handover_create(struct acceptor *a, struct pending *p,
                                        const struct connect *c, struct span id, bool assign)
{
    const char *prefix = listener_conf(p->listener)->auto_id_prefix;
    size_t prefix_n = prefix == NULL ? 0 : strlen(prefix);
    size_t id_n = assign ? prefix_n + RNG_UUID_SIZE : 0;
    struct handover *h = malloc(sizeof(*h) + id_n);

    (void)a;
    if (h == NULL) {
        return NULL;
    }
    *h = (struct handover){.conn = {.fd = -1},
                           .listener = p->listener,
                           .peer = p->peer,
                           .connect = *c,
                           .id_assigned = assign,
                           .client_id = id};
    if (assign) {
        if (prefix_n > 0) {
            memcpy(h->id, prefix, prefix_n);
        }
        rng_uuid(h->id + prefix_n);
        h->client_id = span_of(h->id, prefix_n + RNG_UUID_SIZE - 1);
    }
    return h;
}

/* in: all bytes of the connection, starting with a whole CONNECT of connect_n bytes. */
static void hand_over(struct acceptor *a, struct pending *p, const struct connect *c,
                      struct span in, size_t connect_n)
{
    struct span id;
    bool assign;
    struct handover *h;
    struct connect moved;
    const char *why = NULL;
    struct frame f;

    if (refuse_by_rules(a, p, c) || !choose_id(a, p, c, &id, &assign)) {
        return;
    }
    h = handover_create(a, p, c, id, assign);
    if (h != NULL) {
        h->bytes = malloc(in.n);
    }
    if (h == NULL || h->bytes == NULL) {
        handover_free(h);
        refuse_with(a, p, c, CONNACK3_SERVER_UNAVAILABLE, RC_SERVER_UNAVAILABLE, "out of memory");
        return;
    }
    if (!prefix_is_allowed(a->config->clientid_prefixes,
                           h->client_id)) { /* also of one made here */
        handover_free(h);
        refuse_with(a, p, c, CONNACK3_NOT_AUTHORIZED, RC_NOT_AUTHORIZED,
                    "client id does not begin with clientid_prefixes");
        return;
    }
    memcpy(h->bytes, in.p, in.n);
    h->bytes_n = in.n;
    h->connect_n = connect_n;
    /* The views have to point into the bytes that travel: decoded again there. */
    if (frame_next_31(span_of(h->bytes, connect_n), connect_n, &f, &why) != FRAME_OK ||
        connect_decode(&moved, f.body, &why) != DEC_OK) {
        abort(); /* the same bytes decoded a moment ago */
    }
    h->connect = moved;
    if (!assign) {
        h->client_id = id.p == c->client_id.p ? moved.client_id : moved.username;
    }
    /* Out of this epoll first: the shard's must be the only one that reports it. */
    loop_del(&a->loop, p->conn.fd);
    h->conn = p->conn;
    conn_drop_tail(&h->conn);
    p->conn = (struct conn){.fd = -1};
    /* relaxed: only the order of the values counts; the mailbox orders everything else. */
    h->stamp = atomic_fetch_add_explicit(a->env.stamp, 1, memory_order_relaxed) + 1;
    pending_free(a, p);
    a->env.give(a->env.give_arg, h);
}

static void refuse_decoded(struct acceptor *a, struct pending *p, enum dec_rc rc,
                           const struct connect *c, const char *why)
{
    uint8_t answer[16];
    size_t n = 0;

    switch (rc) {
    case DEC_UNSUPPORTED_VERSION:
        /* Levels of the time before 5 (and unknown ones) understand the return code [MQTT-3.1.2-2
         * of 3.1.1]. */
        n = connack3_encode(answer, sizeof(answer), false, CONNACK3_BAD_PROTOCOL_VERSION);
        break;
    case DEC_MALFORMED:
        if (c->version == MQTT_5) {
            n = connack5_encode(answer, sizeof(answer), false, RC_MALFORMED_PACKET, SPAN_NULL);
        }
        break;
    case DEC_PROTOCOL:
        if (c->version == MQTT_5) {
            n = connack5_encode(answer, sizeof(answer), false, RC_PROTOCOL_ERROR, SPAN_NULL);
        }
        break;
    case DEC_TOPIC_FILTER:
    case DEC_TOPIC_NAME:
        if (c->version == MQTT_5) {
            n = connack5_encode(answer, sizeof(answer), false, RC_TOPIC_NAME_INVALID, SPAN_NULL);
        }
        break;
    case DEC_BAD_PROTOCOL_NAME: /* closed without an answer: who knows what speaks there */
    case DEC_OK:
        break;
    }
    refuse(a, p, answer, takes(c, n) ? n : 0, why == NULL ? "malformed CONNECT" : why);
}

/* It is a packet like any other, too. */
static size_t max_connect(const struct config *cfg)
{
    return cfg->max_packet_size != 0 && cfg->max_packet_size < cfg->max_connect_size
               ? cfg->max_packet_size
               : cfg->max_connect_size;
}

/* True: the connection still waits for more. */
static bool parse(struct acceptor *a, struct pending *p, struct span in)
{
    struct frame f;
    struct connect c;
    const char *why = NULL;
    enum dec_rc rc;

    /* Judged by its first byte: a flood of something else must not be gathered first
     * [MQTT-3.1.0-1]. */
    if (in.n > 0 && (in.p[0] >> 4) != MQTT_CONNECT) {
        refuse(a, p, NULL, 0, "first packet is not a CONNECT");
        return false;
    }
    /* Which version speaks is known behind the header only, and 3.1 does not use its flags. */
    switch (frame_next_31(in, max_connect(a->config), &f, &why)) {
    case FRAME_NEED_MORE:
        if (!conn_keep(&p->conn, in, f.total)) {
            pending_free(a, p);
            return false;
        }
        return true;
    case FRAME_TOO_LARGE:
        refuse(a, p, NULL, 0, "CONNECT larger than max_connect_size or max_packet_size");
        return false;
    case FRAME_MALFORMED:
        refuse(a, p, NULL, 0, why);
        return false;
    case FRAME_OK:
        break;
    }
    metric_add(a->env.metrics, METRIC_MESSAGES_RECEIVED, 1);
    rc = connect_decode(&c, f.body, &why);
    if (rc == DEC_OK && f.flags != 0 && c.version != MQTT_3_1) {
        refuse(a, p, NULL, 0, "reserved flags in the header of CONNECT"); /* [MQTT-2.1.3-1] */
        return false;
    }
    if (rc == DEC_OK && c.has_controls && !a->config->accept_control_characters) {
        rc = DEC_MALFORMED;
        why = "control characters in a string";
    }
    if (rc != DEC_OK) {
        refuse_decoded(a, p, rc, &c, why);
        return false;
    }
    hand_over(a, p, &c, in, f.total);
    return false;
}

/* Once for each event: who sends without end must not keep the others waiting. */
static void linger(struct acceptor *a, struct pending *p)
{
    size_t got;
    enum conn_rc rc = conn_discard(&p->conn, a->scratch, SCRATCH, &got);

    metric_add(a->env.metrics, METRIC_BYTES_RECEIVED, (int64_t)got);
    if (rc == CONN_EOF || rc == CONN_ERROR) {
        pending_free(a, p);
    }
}

static void pending_ready(struct acceptor *a, struct pending *p)
{
    while (!p->lingering) {
        struct span in;
        size_t got;
        bool drained;
        enum conn_rc rc = conn_read(&p->conn, a->scratch, SCRATCH, &in, &got, &drained);

        metric_add(a->env.metrics, METRIC_BYTES_RECEIVED, (int64_t)got);
        if (rc == CONN_AGAIN) {
            return;
        }
        if (rc != CONN_OK) { /* a port probe, or a peer that gave up */
            pending_free(a, p);
            return;
        }
        if (!parse(a, p, in) || drained) {
            return;
        }
    }
    linger(a, p);
}

/* ---- accepting ---- */

/* False: errno; it is not watched. */
static bool watch(struct acceptor *a, struct accept_fd *af)
{
    af->watched = af->watched || loop_add(&a->loop, af->fd, LOOP_ACCEPT, af);
    return af->watched;
}

/* False: the kernel did not take all of them (errno). turn() tries again. */
static bool begin_accepting(struct acceptor *a)
{
    bool all = true;
    int why = 0;

    a->accepting = true;
    for (size_t i = 0; i < a->nfds; i++) {
        if (!watch(a, &a->fds[i])) {
            why = errno;
            all = false;
        }
    }
    if (!all && !a->deaf) {
        errno = why;
        log_limited(a->env.log, LOGL_ERROR, LOGR_NET,
                    "cannot wait for connections: %m; tried again until it works");
    }
    a->deaf = !all;
    a->paused_until_ms = a->now_ms + PAUSE_MS;
    errno = why;
    return all;
}

static void pause_accepting(struct acceptor *a)
{
    a->paused_until_ms = a->now_ms + PAUSE_MS;
    a->accepting = false;
    for (size_t i = 0; i < a->nfds; i++) {
        if (a->fds[i].watched) {
            loop_del(&a->loop, a->fds[i].fd);
            a->fds[i].watched = false;
        }
    }
}

static void accept_failed(struct acceptor *a)
{
    switch (errno) {
    case EAGAIN:
    case EINTR:
    case ECONNABORTED:
        return;
    default:
        metric_add(a->env.metrics, METRIC_ACCEPT_FAILED, 1);
        if (!a->failing) { /* said once, until it works again */
            a->failing = true;
            log_limited(
                a->env.log, LOGL_ERROR, LOGR_FD_LIMIT,
                "cannot accept connections: %m; listening sockets rest until it works again");
        }
        pause_accepting(a);
    }
}

/* Counts one more unless there are max (0: no limit). Acceptors race, and none may pass it.
 * relaxed: only a limit rests on these numbers. */
static bool reserve(_Atomic uint32_t *count, uint32_t max)
{
    uint32_t n = atomic_load_explicit(count, memory_order_relaxed);

    do {
        if (max != 0 && n >= max) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(count, &n, n + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

static void release(_Atomic uint32_t *count)
{
    atomic_fetch_sub_explicit(count, 1, memory_order_relaxed);
}

/* Counted as pending already. */
static void take(struct acceptor *a, struct listener *l, int fd, const struct sockaddr_storage *sa)
{
    struct pending *p = NULL;

    metric_add(a->env.metrics, METRIC_SOCKETS_OPENED, 1);
    a->failing = false;
    if (reserve(&l->connections, listener_conf(l)->max_connections)) {
        p = calloc(1, sizeof(*p));
        if (p == NULL) {
            release(&l->connections);
        }
    }
    if (p == NULL) {
        release(a->env.pending);
        metric_add(a->env.metrics, METRIC_SOCKETS_REFUSED, 1);
        log_limited(a->env.log, LOGL_NOTICE, LOGR_REFUSED,
                    "connection refused: max_connections reached or out of memory");
        close(fd);
        return;
    }
    conn_init(&p->conn, fd, &transport_tcp);
    p->listener = l;
    p->deadline_ms = a->now_ms + (int64_t)a->config->connect_timeout * 1000;
    peer_from(&p->peer, sa);
    pending_list_add(&a->waiting, p);
    if (!loop_add(&a->loop, fd, LOOP_CONN, p)) {
        log_limited(a->env.log, LOGL_ERROR, LOGR_NET, "cannot watch a connection: %m");
        pending_free(a, p);
    }
}

static void accept_some(struct acceptor *a, struct accept_fd *af)
{
    for (int i = 0; i < ACCEPT_PER_TURN; i++) {
        struct sockaddr_storage sa = {0};
        socklen_t n = sizeof(sa);
        int fd;

        if (!reserve(a->env.pending, a->config->max_connections_pending)) {
            log_limited(a->env.log, LOGL_WARNING, LOGR_REFUSED,
                        "max_connections_pending reached: accepting rests");
            pause_accepting(a);
            return;
        }
        fd = accept4(af->fd, (struct sockaddr *)&sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            release(a->env.pending);
            accept_failed(a);
            return;
        }
        take(a, af->listener, fd, &sa);
    }
}

/* ---- the thread ---- */

static void expire_list(struct acceptor *a, struct pending *head)
{
    while (head->next != head && head->next->deadline_ms <= a->now_ms) {
        if (!head->next->lingering) {
            metric_add(a->env.metrics, METRIC_CONNECT_TIMEOUT, 1);
            log_limited(a->env.log, LOGL_NOTICE, LOGR_TIMEOUT,
                        "connection closed: no CONNECT within connect_timeout");
        }
        pending_free(a, head->next);
    }
}

static int wait_ms(const struct acceptor *a)
{
    int64_t until = INT64_MAX;

    if (a->waiting.next != &a->waiting) {
        until = a->waiting.next->deadline_ms;
    }
    if (a->lingering.next != &a->lingering && a->lingering.next->deadline_ms < until) {
        until = a->lingering.next->deadline_ms;
    }
    if ((!a->accepting || a->deaf) && a->paused_until_ms < until) {
        until = a->paused_until_ms;
    }
    if (until == INT64_MAX) {
        return -1;
    }
    return until <= a->now_ms ? 0 : (int)(until - a->now_ms);
}

static void note_end(struct pending *p, uint32_t events)
{
    if ((events & LOOP_ENDED) != 0) {
        p->conn.ended = true;
    }
}

static void turn(struct acceptor *a)
{
    int n = loop_wait(&a->loop, wait_ms(a));

    a->now_ms = clock_now_ms(a->env.clock);
    a->config = atomic_load_explicit(a->env.config, memory_order_acquire);
    for (int i = 0; i < n; i++) {
        void *tag = a->loop.events[i].data.ptr;
        if (tag == a) {
            continue; /* the wake-up; `stop` says why */
        }
        if (tag >= (void *)a->fds && tag < (void *)(a->fds + a->nfds)) {
            if (a->accepting) {
                accept_some(a, tag);
            }
        } else {
            note_end(tag, a->loop.events[i].events);
            pending_ready(a, tag);
        }
    }
    expire_list(a, &a->waiting);
    expire_list(a, &a->lingering);
    if ((!a->accepting || a->deaf) && a->now_ms >= a->paused_until_ms) {
        (void)begin_accepting(a);
    }
}

static void *run(void *arg)
{
    struct acceptor *a = arg;

    while (!atomic_load_explicit(&a->stop, memory_order_acquire)) {
        turn(a);
    }
    while (a->waiting.next != &a->waiting) {
        pending_free(a, a->waiting.next);
    }
    while (a->lingering.next != &a->lingering) {
        pending_free(a, a->lingering.next);
    }
    return NULL;
}

static bool gather_fds(struct acceptor *a)
{
    for (size_t i = 0; i < a->env.nlisteners; i++) {
        a->nfds += a->env.listeners[i].nfds;
    }
    a->fds = calloc(a->nfds, sizeof(*a->fds));
    if (a->fds == NULL) {
        return false;
    }
    a->nfds = 0;
    for (size_t i = 0; i < a->env.nlisteners; i++) {
        for (unsigned j = 0; j < a->env.listeners[i].nfds; j++) {
            a->fds[a->nfds++] = (struct accept_fd){.listener = &a->env.listeners[i],
                                                   .fd = a->env.listeners[i].fds[j]};
        }
    }
    return true;
}

/* errno stays: it says why there is no acceptor. */
static void acceptor_free(struct acceptor *a)
{
    const int why = errno;

    if (a->wake_fd >= 0) {
        close(a->wake_fd);
    }
    loop_fini(&a->loop);
    free(a->fds);
    free(a);
    errno = why;
}

bool acceptor_start(struct acceptor **out, const struct acceptor_env *env)
{
    struct acceptor *a = calloc(1, sizeof(*a));
    pthread_attr_t attr;
    int rc;

    if (a == NULL) {
        return false;
    }
    a->env = *env;
    a->wake_fd = -1;
    a->loop.epoll_fd = -1;
    a->waiting.next = a->waiting.prev = &a->waiting;
    a->lingering.next = a->lingering.prev = &a->lingering;
    a->now_ms = clock_now_ms(env->clock);
    if (!gather_fds(a) || !loop_init(&a->loop)) {
        acceptor_free(a);
        return false;
    }
    a->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (a->wake_fd < 0 || !loop_add(&a->loop, a->wake_fd, LOOP_READ, a)) {
        acceptor_free(a);
        return false;
    }
    if (!begin_accepting(a)) {
        acceptor_free(a);
        return false;
    }
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    rc = pthread_create(&a->thread, &attr, run, a);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        errno = rc;
        acceptor_free(a);
        return false;
    }
    pthread_setname_np(a->thread, "acceptor");
    *out = a;
    return true;
}

void acceptor_stop(struct acceptor **ap)
{
    struct acceptor *a = *ap;
    uint64_t one = 1;

    if (a == NULL) {
        return;
    }
    atomic_store_explicit(&a->stop, true, memory_order_release);
    if (write(a->wake_fd, &one, sizeof(one)) < 0) {
        /* the counter is full: readable anyway */
    }
    pthread_join(a->thread, NULL);
    acceptor_free(a);
    *ap = NULL;
}
