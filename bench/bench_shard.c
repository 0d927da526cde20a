/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_shard [BATCHES | --counts] - what a message costs in a shard: its own code, turned on this
 * thread, with clients on socket pairs and a clock that stands still.
 *
 * A batch is written by the clients, then the shards turn until they have no work, then the clients
 * read and acknowledge, until all has come. Only the turns count, system calls included in the time
 * and left out of the instructions. Nothing is left to chance, so the same build takes the same
 * steps each time.
 */
#include "bench/micro.h"
#include "server/base/cursor.h"
#include "server/config.h"

/* For turn(): the same code as in a broker, without its thread. */
#include "server/shard/shard.c"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SHARDS  2u
#define PAYLOAD 64u
#define IN_CAP  (256u * 1024u)
#define WARM    30u /* batches until pools, tables and the allocator's caches have their size */

static const char config_text[] = "listener 1883\n"
                                  "allow_anonymous true\n"
                                  "max_queued_messages 0\n"
                                  "max_inflight_messages 0\n"
                                  "sys_interval 0\n"
                                  "shards 2\n"
                                  "log_dest none\n";

/* ---- the broker ---- */

struct bench {
    struct broker_shared shared;
    struct shard *shards[SHARDS];
    struct listener listener;
    struct config *config;
    uint64_t stamp;
    unsigned next_client;
};

static int64_t still(void *arg)
{
    (void)arg;
    return 1000000;
}

static const struct clock clock_still = {still, NULL};

static void bench_init(struct bench *b)
{
    struct broker_shared *s = &b->shared;
    char err[256];

    MICRO_NEED(config_parse(config_text, strlen(config_text), "bench", NULL, &b->config, err,
                            sizeof(err)) == 0);
    atomic_init(&s->config, b->config);
    atomic_init(&b->listener.conf, &b->config->listeners[0]);
    s->clock = &clock_still;
    s->hash_key = MICRO_SEED;
    s->tree = tree_create();
    s->retained = retained_create(64, 0, 0, MICRO_SEED);
    s->shards = b->shards;
    s->nshards = SHARDS;
    MICRO_NEED(s->tree != NULL && s->retained != NULL);
    s->shares = shares_create(s->tree, SHARDS);
    MICRO_NEED(s->shares != NULL && store_open_memory(0, &s->store) == ST_OK);
    for (unsigned i = 0; i < SHARDS; i++) {
        b->shards[i] = shard_create(s, i);
        MICRO_NEED(b->shards[i] != NULL);
    }
}

static bool has_work(const struct shard *sh)
{
    struct pollfd fd = {.fd = sh->loop.epoll_fd, .events = POLLIN};

    return sh->work_left || sh->post.inbox != NULL || post_depth(&sh->post) > 0 ||
           poll(&fd, 1, 0) > 0;
}

static void turn_once(void *arg, unsigned n)
{
    (void)n;
    turn(arg);
}

/* What these turns cost goes to the case that runs. */
static void turn_all(struct bench *b)
{
    bool again = true;

    while (again) {
        again = false;
        for (unsigned i = 0; i < SHARDS; i++) {
            if (has_work(b->shards[i])) {
                micro_timed(turn_once, b->shards[i], 1);
                again = true;
            }
        }
    }
}

static void bench_fini(struct bench *b)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        shard_close_clients(b->shards[i], RC_SERVER_SHUTTING_DOWN);
    }
    for (unsigned i = 0; i < SHARDS; i++) {
        shard_forget_store(b->shards[i]);
        shard_drain_mail(b->shards[i]);
    }
    store_close(&b->shared.store);
    for (unsigned i = 0; i < SHARDS; i++) {
        shard_destroy(b->shards[i]);
    }
    shares_destroy(b->shared.shares);
    retained_destroy(b->shared.retained);
    rcu_unregister();
    tree_destroy(b->shared.tree);
    config_free(&b->config);
}

/* ---- clients ---- */

struct bytes {
    uint8_t *p;
    size_t n, cap;
};

struct remote {
    int fd;
    enum mqtt_version version;
    struct bytes in, out;
    unsigned connacks, subacks, messages, done; /* packets that came; done: PUBACK and PUBCOMP */
};

static uint8_t *room(struct bytes *b, size_t n)
{
    if (b->cap - b->n < n) {
        b->cap = (b->n + n) * 2;
        b->p = realloc(b->p, b->cap);
        MICRO_NEED(b->p != NULL);
    }
    return b->p + b->n;
}

static void remote_send(struct remote *p)
{
    if (p->out.n > 0) {
        MICRO_NEED(send(p->fd, p->out.p, p->out.n, MSG_NOSIGNAL) == (ssize_t)p->out.n);
        p->out.n = 0;
    }
}

static void put_ack(struct remote *p, enum mqtt_type type, uint16_t id)
{
    p->out.n += ack_encode(room(&p->out, ACK_MAX), type, p->version, id, RC_SUCCESS);
}

static void on_message(struct remote *p, const struct frame *f)
{
    struct publish m;
    const char *why;

    MICRO_NEED(publish_decode(&m, f->body, f->flags, p->version, true, &why) == DEC_OK);
    MICRO_NEED(m.payload.n == PAYLOAD);
    p->messages++;
    if (m.qos > 0) {
        put_ack(p, m.qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, m.packet_id);
    }
}

static void on_packet(struct remote *p, const struct frame *f)
{
    struct cursor body = cur_of(f->body);
    uint16_t id = 0;

    (void)cur_u16(&body, &id);
    switch (f->type) {
    case MQTT_CONNACK:
        p->connacks++;
        return;
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        p->subacks++;
        return;
    case MQTT_PUBLISH:
        on_message(p, f);
        return;
    case MQTT_PUBREC:
        put_ack(p, MQTT_PUBREL, id);
        return;
    case MQTT_PUBREL:
        put_ack(p, MQTT_PUBCOMP, id);
        return;
    default:
        MICRO_NEED(f->type == MQTT_PUBACK || f->type == MQTT_PUBCOMP);
        p->done++;
    }
}

/* Reads what there is, answers it. */
static void remote_serve(struct remote *p)
{
    const char *why;
    struct frame f;
    size_t at = 0;
    ssize_t got;

    while ((got = recv(p->fd, room(&p->in, IN_CAP), IN_CAP, 0)) > 0) {
        p->in.n += (size_t)got;
    }
    while (frame_next(span_of(p->in.p + at, p->in.n - at), SIZE_MAX, &f, &why) == FRAME_OK) {
        on_packet(p, &f);
        at += f.total;
    }
    memmove(p->in.p, p->in.p + at, p->in.n - at);
    p->in.n -= at;
    remote_send(p);
}

static void serve(struct remote *peers, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        remote_serve(&peers[i]);
    }
}

/* A client id that belongs to this shard. */
static size_t name_for(struct bench *b, unsigned shard, char *id, size_t cap)
{
    size_t n;

    do {
        n = (size_t)snprintf(id, cap, "client-%u", b->next_client++);
    } while (broker_shard_of(&b->shared, span_of(id, n)) != shard);
    return n;
}

static struct handover *handover_for(struct bench *b, int fd, const struct connect *c)
{
    struct handover *h = calloc(1, sizeof(*h));
    const char *why;
    struct frame f;

    MICRO_NEED(h != NULL);
    h->bytes = malloc(256);
    MICRO_NEED(h->bytes != NULL);
    h->bytes_n = h->connect_n = connect_encode(h->bytes, 256, c);
    MICRO_NEED(frame_next(span_of(h->bytes, h->bytes_n), 256, &f, &why) == FRAME_OK);
    MICRO_NEED(connect_decode(&h->connect, f.body, &why) == DEC_OK);
    h->client_id = h->connect.client_id;
    h->listener = &b->listener;
    h->peer.family = AF_UNIX;
    h->stamp = ++b->stamp;
    atomic_fetch_add_explicit(&b->listener.connections, 1, memory_order_relaxed);
    conn_init(&h->conn, fd, &transport_tcp);
    return h;
}

static void remote_open(struct bench *b, struct remote *p, unsigned shard, enum mqtt_version v)
{
    char id[32];
    struct connect c = {.version = v, .clean = true, .keep_alive_s = 60};
    int pair[2];

    c.client_id = span_of(id, name_for(b, shard, id, sizeof(id)));
    MICRO_NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    *p = (struct remote){.fd = pair[1], .version = v};
    shard_give(b->shards[shard], handover_for(b, pair[0], &c));
}

static void remote_subscribe(struct remote *p, const char *filter, uint8_t qos)
{
    struct subscribe_item item = {.filter = span_str(filter), .qos = qos};

    p->out.n += subscribe_encode(room(&p->out, 256), 256, p->version, 1, SPAN_NULL, &item, 1);
    remote_send(p);
}

static void remotes_free(struct remote *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        close(p[i].fd);
        free(p[i].in.p);
        free(p[i].out.p);
    }
    free(p);
}

/* ---- messages ---- */

/* Publisher i sends to topic i; subscribers take their turn over the topics, or all take all. */
struct flow {
    struct bench *b;
    unsigned publishers, subscribers, batch;
    unsigned receivers; /* of each message */
    unsigned sub_shard; /* publishers are on shard 0 */
    uint8_t qos;
    enum mqtt_version version;
    bool retain;
    struct remote *peers; /* publishers, then subscribers */
    uint16_t id;
};

static void put_message(struct flow *f, unsigned i, uint16_t id)
{
    char topic[32];
    uint8_t payload[PAYLOAD] = {0};
    struct publish m = {.payload = span_of(payload, PAYLOAD),
                        .packet_id = f->qos > 0 ? id : 0,
                        .qos = f->qos,
                        .retain = f->retain};
    struct bytes *out = &f->peers[i].out;
    uint8_t *p = room(out, 256);
    size_t id_at;

    m.topic = span_of(topic, (size_t)snprintf(topic, sizeof(topic), "bench/site/%u", i));
    out->n += publish_encode_head(p, &m, SPAN_NULL, f->version, &id_at);
    memcpy(room(out, PAYLOAD), payload, PAYLOAD);
    out->n += PAYLOAD;
}

static unsigned count(const struct flow *f, bool messages)
{
    unsigned n = 0;

    for (unsigned i = 0; i < f->publishers + f->subscribers; i++) {
        n += messages ? f->peers[i].messages : f->peers[i].done;
    }
    return n;
}

/* Batches of messages, each through before the next; ops: deliveries in all. */
static void run_flow(void *arg, unsigned ops)
{
    struct flow *f = arg;
    unsigned per_batch = f->publishers * f->batch * f->receivers;
    unsigned messages = count(f, true);
    unsigned done = count(f, false);

    for (unsigned k = 0; k < ops / per_batch; k++) {
        for (unsigned i = 0; i < f->publishers; i++) {
            for (unsigned j = 0; j < f->batch; j++) {
                put_message(f, i, (uint16_t)(f->id + j + 1));
            }
            remote_send(&f->peers[i]);
        }
        f->id = (uint16_t)((f->id + f->batch) % 30000);
        messages += per_batch;
        done += f->qos > 0 ? f->publishers * f->batch : 0;
        do {
            turn_all(f->b);
            serve(f->peers, f->publishers + f->subscribers);
        } while (count(f, true) < messages || count(f, false) < done);
        turn_all(f->b); /* the receivers' acknowledgements */
        MICRO_NEED(count(f, true) == messages && count(f, false) == done);
    }
}

static void flow_open(struct flow *f)
{
    unsigned n = f->publishers + f->subscribers;

    f->peers = calloc(n, sizeof(*f->peers));
    MICRO_NEED(f->peers != NULL);
    for (unsigned i = 0; i < n; i++) {
        remote_open(f->b, &f->peers[i], i < f->publishers ? 0 : f->sub_shard, f->version);
    }
    turn_all(f->b);
    for (unsigned i = 0; i < f->subscribers; i++) {
        char filter[32];

        snprintf(filter, sizeof(filter), "bench/site/%u", i % f->publishers);
        remote_subscribe(&f->peers[f->publishers + i],
                         f->receivers == f->subscribers ? "bench/site/+" : filter, f->qos);
    }
    turn_all(f->b);
    serve(f->peers, n);
    for (unsigned i = 0; i < n; i++) {
        MICRO_NEED(f->peers[i].connacks == 1);
        MICRO_NEED(f->peers[i].subacks == (i < f->publishers ? 0 : 1));
    }
}

static void flow_case(struct bench *b, const char *name, struct flow f, unsigned batches)
{
    unsigned per_batch = f.publishers * f.batch * f.receivers;

    f.b = b;
    f.version = f.version == 0 ? MQTT_3_1_1 : f.version;
    flow_open(&f);
    run_flow(&f, WARM * per_batch);
    micro_case(name, batches * per_batch, run_flow, &f);
    remotes_free(f.peers, f.publishers + f.subscribers);
    turn_all(b);
}

/* ---- connections and subscriptions ---- */

#define AT_ONCE 50u

/* CONNECT as handed over, CONNACK, DISCONNECT, close: without the acceptor's part. */
static void run_connects(void *arg, unsigned ops)
{
    struct bench *b = arg;

    for (unsigned k = 0; k < ops / AT_ONCE; k++) {
        struct remote *p = calloc(AT_ONCE, sizeof(*p));
        static const uint8_t disconnect[] = {MQTT_DISCONNECT << 4, 0};

        MICRO_NEED(p != NULL);
        for (unsigned i = 0; i < AT_ONCE; i++) {
            remote_open(b, &p[i], 0, MQTT_3_1_1);
        }
        turn_all(b);
        for (unsigned i = 0; i < AT_ONCE; i++) {
            remote_serve(&p[i]);
            MICRO_NEED(p[i].connacks == 1);
            memcpy(room(&p[i].out, 2), disconnect, 2);
            p[i].out.n = 2;
            remote_send(&p[i]);
        }
        turn_all(b);
        remotes_free(p, AT_ONCE);
    }
}

struct churn {
    struct bench *b;
    struct remote peer;
};

/* One filter in, one out, AT_ONCE packets in flight. */
static void run_churn(void *arg, unsigned ops)
{
    struct churn *c = arg;
    struct remote *p = &c->peer;

    for (unsigned k = 0; k < ops / AT_ONCE; k++) {
        unsigned before = p->subacks;

        for (unsigned i = 0; i < AT_ONCE; i++) {
            char filter[48];
            struct subscribe_item item = {.qos = 1};

            snprintf(filter, sizeof(filter), "site%u/+/device%u/#", i % 7, i / 2);
            item.filter = span_str(filter);
            p->out.n += i % 2 == 0 ? subscribe_encode(room(&p->out, 256), 256, p->version, 1,
                                                      SPAN_NULL, &item, 1)
                                   : unsubscribe_encode(room(&p->out, 256), 256, p->version, 1,
                                                        SPAN_NULL, &item, 1);
        }
        remote_send(p);
        turn_all(c->b);
        remote_serve(p);
        MICRO_NEED(p->subacks == before + AT_ONCE);
    }
}

static void churn_case(struct bench *b, unsigned batches)
{
    struct churn c = {.b = b};

    remote_open(b, &c.peer, 0, MQTT_3_1_1);
    turn_all(b);
    remote_serve(&c.peer);
    run_churn(&c, AT_ONCE);
    micro_case("subscribe_unsubscribe", batches * AT_ONCE, run_churn, &c);
    close(c.peer.fd);
    free(c.peer.in.p);
    free(c.peer.out.p);
    turn_all(b);
}

/* clang-format off */
static const struct {
    const char *name;
    struct flow flow;
} flows[] = {
    {"pair_qos0", {.publishers = 1, .subscribers = 1, .receivers = 1, .batch = 50}},
    {"pair_qos1", {.publishers = 1, .subscribers = 1, .receivers = 1, .batch = 50, .qos = 1}},
    {"pair_qos2", {.publishers = 1, .subscribers = 1, .receivers = 1, .batch = 50, .qos = 2}},
    {"pair_qos1_v5", {.publishers = 1, .subscribers = 1, .receivers = 1, .batch = 50, .qos = 1,
                      .version = MQTT_5}},
    {"pair_qos1_retained", {.publishers = 1, .subscribers = 1, .receivers = 1, .batch = 50,
                            .qos = 1, .retain = true}},
    {"pair_qos1_crossing", {.publishers = 1, .subscribers = 1, .receivers = 1, .batch = 50,
                            .qos = 1, .sub_shard = 1}},
    {"pairs50_qos1_window1", {.publishers = 50, .subscribers = 50, .receivers = 1, .batch = 1,
                              .qos = 1}},
    {"pairs50_qos1_crossing", {.publishers = 50, .subscribers = 50, .receivers = 1, .batch = 10,
                               .qos = 1, .sub_shard = 1}},
    {"pairs50_qos1", {.publishers = 50, .subscribers = 50, .receivers = 1, .batch = 10, .qos = 1}},
    {"fanin20_qos1", {.publishers = 20, .subscribers = 1, .receivers = 1, .batch = 5, .qos = 1}},
    {"fanout100_qos0", {.publishers = 1, .subscribers = 100, .receivers = 100, .batch = 10}},
    {"fanout100_qos1", {.publishers = 1, .subscribers = 100, .receivers = 100, .batch = 10,
                        .qos = 1}},
};
/* clang-format on */

int main(int argc, char **argv)
{
    static struct bench b;
    unsigned n = micro_wants_counts(argc, argv) ? 20
                 : argc > 1                     ? (unsigned)strtoul(argv[1], NULL, 10)
                                                : 1000;

    MICRO_NEED(n > 0);
    rcu_register();
    bench_init(&b);
    micro_begin("shard");
    for (size_t i = 0; i < sizeof(flows) / sizeof(flows[0]); i++) {
        flow_case(&b, flows[i].name, flows[i].flow, n);
    }
    micro_case("connect_disconnect", n * AT_ONCE, run_connects, &b);
    churn_case(&b, n);
    micro_end();
    bench_fini(&b);
    return 0;
}
