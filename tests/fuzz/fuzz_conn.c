/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole connections: an acceptor and two shards in one thread, with a clock and sockets of the
 * input's. The first byte chooses the configuration; then come commands, each a byte of what (high
 * four bits), how (two bits) and which of the latest four connections (two bits), and its operands:
 *
 *     0, 1  a connection opens; how: the listener       9   a byte: a read gives 2^k bytes at most
 *     2-6   a byte n: n bytes come                      10  a byte n: 256 n bytes can be written
 *     7     two bytes n: n bytes come                   11  the peer ends its direction
 *     8     bytes v, n: 8192 n bytes of value v come    12  the peer resets
 *     13    a byte n: 100 n ms go by                    14  turns without news, 15 with an event
 *
 * After each command the rules of all buffers hold, and what the broker writes is whole packets of
 * its own. At last all peers are gone, and a new client is served.
 */
#include "server/config.h"
#include "server/shard/shard.c"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_acceptor.h"

#include <fcntl.h>

static bool add_to_loop(struct loop *lp, int fd, uint32_t events, void *tag)
{
    (void)events;
    return fuzz_loop_add(lp, fd, tag);
}
#define loop_add add_to_loop
#include "server/shard/handle_connect.c"
#undef loop_add

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(HAS_ASAN)
#include <sanitizer/asan_interface.h>
#define IS_ROOM(p, n) (__asan_region_is_poisoned(p, n) == NULL)
#else
#define IS_ROOM(p, n) ((p) != NULL || (n) == 0)
#endif

#define SHARDS       2u
#define LINES        24u
#define INPUT_MAX    (6u << 20) /* bytes that come over all connections */
#define KEPT         4096u
#define PIECE_LEAST  8192u /* of very much: else a single input takes for ever */
#define TURNS_AT_END 40u

/* ---- configurations ---- */

static const char *const texts[] = {
    "listener 1883\nlistener 1884\nmount_point m/\nmax_qos 1\nmax_topic_alias 2\n",
    "listener 1883\nlistener 1884\nallow_zero_length_clientid false\nmax_packet_size 2000000\n"
    "max_inflight_messages 2\nmax_queued_messages 5\noutput_buffer_limit 4096\n",
    "listener 1883\nlistener 1884\naccept_protocol_versions 5\nmax_keepalive 100\n"
    "max_connect_size 300\nmessage_size_limit 1000\nmax_subscriptions_per_client 3\n",
    "listener 1883\nlistener 1884\nuse_username_as_clientid true\nmax_topic_levels 3\n"
    "max_retained_messages 2\npersistent_client_expiration 1m\nretain_available false\n",
};
#define CONFIGS (sizeof(texts) / sizeof(texts[0]))

static const struct config *config_at(size_t i)
{
    static struct config *parsed[CONFIGS];
    char text[1024];
    char err[256] = "";

    if (parsed[i] == NULL) {
        int n =
            snprintf(text, sizeof(text),
                     "allow_anonymous true\nshards 2\nsys_interval 0\nlog_dest none\n%s", texts[i]);
        if (config_parse(text, (size_t)n, "fuzz", NULL, &parsed[i], err, sizeof(err)) != 0) {
            fprintf(stderr, "%s\n", err);
            abort();
        }
    }
    return parsed[i];
}

/* ---- the world ---- */

/* One connection from outside. */
struct line {
    int fd;
    bool is_open; /* the broker has it */
    bool is_new;  /* its owner is told of what is there when it gets to know it, as by epoll */
    void *owner;  /* who is told of events: the acceptor, or a shard's loop; NULL: nobody */
    void *tag;    /* as what */
    uint8_t *in;  /* came and not read: [in_at, in_n) */
    size_t in_n, in_at;
    size_t piece; /* a read gives so much at most */
    size_t room;  /* so much can be written still */
    bool fin, reset;
    uint8_t head[MQTT_MAX_FIXED_HEADER]; /* of the packet being written by the broker */
    size_t head_n;
    size_t body_left;
    uint8_t *kept; /* not NULL: what was written, KEPT bytes at most */
    size_t kept_n;
};

static struct world {
    struct broker_shared shared;
    struct shard *shards[SHARDS];
    struct listener listeners[2];
    struct acceptor *acceptor;
    struct metrics metrics;
    _Atomic uint64_t stamp;
    _Atomic uint32_t pending;
    int64_t now_ms;
    struct line lines[LINES];
    unsigned nlines;
    size_t came;
} w;

static int64_t world_ms(void *arg)
{
    (void)arg;
    return w.now_ms;
}

static const struct clock world_clock = {world_ms, NULL};

static struct line *line_of(int fd)
{
    for (unsigned i = 0; i < w.nlines; i++) {
        if (w.lines[i].is_open && w.lines[i].fd == fd) {
            return &w.lines[i];
        }
    }
    abort();
}

bool fuzz_loop_add(void *owner, int fd, void *tag)
{
    struct line *l = line_of(fd);

    l->owner = owner;
    l->tag = tag;
    l->is_new = true;
    return true;
}

void fuzz_loop_del(int fd)
{
    line_of(fd)->owner = NULL;
}

/* ---- the transport ---- */

static ssize_t line_read(struct conn *c, void *p, size_t n)
{
    struct line *l = c->tr_state;
    size_t left = l->in_n - l->in_at;
    size_t piece = left > (1u << 16) && l->piece < PIECE_LEAST ? PIECE_LEAST : l->piece;

    FUZZ_CHECK(n > 0 && IS_ROOM(p, n)); /* all of it, however little comes */
    if (l->reset) {
        errno = ECONNRESET;
        return -1;
    }
    if (left == 0 && !l->fin) {
        errno = EAGAIN;
        return -1;
    }
    n = n < left ? n : left;
    n = n < piece ? n : piece;
    if (n > 0) {
        memcpy(p, l->in + l->in_at, n);
    }
    l->in_at += n;
    return (ssize_t)n;
}

static bool is_of_a_broker(uint8_t first)
{
    switch ((enum mqtt_type)(first >> 4)) {
    case MQTT_CONNACK:
    case MQTT_PUBLISH:
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
    case MQTT_PINGRESP:
    case MQTT_DISCONNECT:
        return true;
    default:
        return false;
    }
}

/* What the broker writes is packets, one behind the other. */
static void check_output(struct line *l, const uint8_t *p, size_t n)
{
    while (n > 0) {
        size_t step = n < l->body_left ? n : l->body_left;
        struct frame f;
        const char *why = NULL;
        enum frame_rc rc;

        l->body_left -= step;
        p += step;
        n -= step;
        if (n == 0) {
            return;
        }
        FUZZ_CHECK(l->head_n < sizeof(l->head));
        l->head[l->head_n++] = *p++;
        n--;
        rc = frame_next(span_of(l->head, l->head_n), SIZE_MAX, &f, &why);
        FUZZ_CHECK(rc != FRAME_MALFORMED && is_of_a_broker(l->head[0]));
        if (rc == FRAME_OK || f.total > 0) {
            l->body_left = f.total - l->head_n;
            l->head_n = 0;
        }
    }
}

static ssize_t line_writev(struct conn *c, const struct iovec *iov, int n)
{
    struct line *l = c->tr_state;
    size_t sum = 0;

    if (l->reset) {
        errno = EPIPE;
        return -1;
    }
    for (int i = 0; i < n && l->room > 0; i++) {
        size_t take = iov[i].iov_len < l->room ? iov[i].iov_len : l->room;
        check_output(l, iov[i].iov_base, take);
        if (l->kept != NULL && l->kept_n + take <= KEPT) {
            memcpy(l->kept + l->kept_n, iov[i].iov_base, take);
            l->kept_n += take;
        }
        l->room -= take;
        sum += take;
    }
    if (sum == 0) {
        errno = EAGAIN;
        return -1;
    }
    return (ssize_t)sum;
}

static bool line_has_pending(const struct conn *c)
{
    (void)c;
    return false;
}

static void line_shutdown(struct conn *c)
{
    (void)c;
}

static void line_fini(struct conn *c)
{
    struct line *l = c->tr_state;

    l->is_open = false;
    l->owner = NULL;
}

static const struct transport transport_line = {"line",           line_read,     line_writev,
                                                line_has_pending, line_shutdown, line_fini};

/* ---- rules ---- */

void fuzz_conn_check(const struct conn *c, size_t scratch, bool may_be_full)
{
    size_t out = 0;

    FUZZ_CHECK(c->tail_n <= c->tail_cap && (c->tail == NULL) == (c->tail_cap == 0));
    /* It is read on: into the tail's room, or beside its copy in the scratch buffer. */
    FUZZ_CHECK(may_be_full || c->tail_n < c->tail_cap || c->tail_n < scratch);
    FUZZ_CHECK(IS_ROOM(c->tail, c->tail_cap));
    for (const struct out_chunk *ch = c->out_first; ch != NULL; ch = ch->next) {
        FUZZ_CHECK(ch->off <= ch->n && (ch->release != NULL || ch->n <= ch->cap));
        FUZZ_CHECK((ch->next == NULL) == (ch == c->out_last));
        out += ch->n - ch->off;
    }
    FUZZ_CHECK(out == c->out_n);
}

static void check_shard(const struct shard *sh)
{
    struct clients_walk walk = {0};
    struct client *c;

    while (clients_walk_next(sh, &walk, &c)) {
        for (; c != NULL; c = c->hash_next) {
            if (c->link != NULL) {
                FUZZ_CHECK(c->link->client == c && c->link->state != LINK_LINGERING);
                fuzz_conn_check(&c->link->conn, READ_SCRATCH, c->link->unparsed);
            }
        }
    }
    for (const struct link *l = sh->lingering; l != NULL; l = l->linger_next) {
        FUZZ_CHECK(l->state == LINK_LINGERING && l->client == NULL && l->conn.tail == NULL);
        fuzz_conn_check(&l->conn, READ_SCRATCH, false);
    }
}

static void check_world(void)
{
    fuzz_acceptor_check(w.acceptor);
    for (unsigned i = 0; i < SHARDS; i++) {
        check_shard(w.shards[i]);
    }
}

/* ---- memory that readers may still see ---- */

/* There is one thread: what it has seen is over when it says so, and is freed then, not by liburcu
 * some time later. In the place of routing/rcu.c. */
static struct rcu_item *deferred;

void rcu_defer(struct rcu_item *item, void (*fn)(struct rcu_item *))
{
    item->fn = fn;
    item->opaque[0] = deferred;
    deferred = item;
}

void rcu_drain(void)
{
    while (deferred != NULL) {
        struct rcu_item *item = deferred;
        deferred = item->opaque[0];
        item->fn(item);
    }
}

void rcu_quiescent(void)
{
    rcu_drain();
}

void rcu_register(void)
{
}
void rcu_unregister(void)
{
}
void rcu_offline(void)
{
}
void rcu_online(void)
{
}

/* ---- turns ---- */

static uint32_t events_of(const struct line *l)
{
    uint32_t events = EPOLLIN | (l->room > 0 ? (uint32_t)EPOLLOUT : 0);

    return events | (l->fin ? (uint32_t)EPOLLRDHUP : 0) | (l->reset ? (uint32_t)EPOLLHUP : 0);
}

/* An edge: whoever has it is told once. */
static void tell(struct line *l)
{
    if (l->owner == NULL) {
        return;
    }
    if (l->owner == w.acceptor) {
        fuzz_acceptor_event(w.acceptor, l->tag, events_of(l));
        return;
    }
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *sh = w.shards[i];
        if (l->owner == &sh->loop) {
            sh->loop.events[0] = (struct epoll_event){events_of(l), {.ptr = l->tag}};
            take_turn(sh, 1);
            return;
        }
    }
}

static void turns(unsigned n)
{
    for (; n > 0; n--) {
        for (unsigned i = 0; i < w.nlines; i++) {
            if (w.lines[i].is_new) {
                w.lines[i].is_new = false;
                tell(&w.lines[i]);
            }
        }
        fuzz_acceptor_turn(w.acceptor);
        for (unsigned i = 0; i < SHARDS; i++) {
            take_turn(w.shards[i], 0);
        }
        rcu_quiescent();
    }
}

static void happens(struct line *l)
{
    tell(l);
    turns(2);
    check_world();
}

/* ---- commands ---- */

static struct line *open_line(unsigned listener)
{
    struct line *l = &w.lines[w.nlines++];

    *l = (struct line){.piece = SIZE_MAX, .room = SIZE_MAX, .is_open = true};
    l->fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    FUZZ_CHECK(l->fd >= 0);
    fuzz_acceptor_take(w.acceptor, &w.listeners[listener], l->fd, &transport_line, l);
    return l;
}

/* Room for n bytes that come. NULL: enough have. */
static uint8_t *come(struct line *l, size_t n)
{
    uint8_t *at;

    if (l->fin || l->reset || !l->is_open || w.came + n > INPUT_MAX) {
        return NULL;
    }
    if (l->in_at > 0) {
        memmove(l->in, l->in + l->in_at, l->in_n - l->in_at);
    }
    l->in_n -= l->in_at;
    l->in_at = 0;
    l->in = realloc(l->in, l->in_n + n + 1);
    FUZZ_CHECK(l->in != NULL);
    at = l->in + l->in_n;
    l->in_n += n;
    w.came += n;
    return at;
}

static void bytes_come(struct line *l, const uint8_t *p, size_t n)
{
    uint8_t *at = n == 0 ? NULL : come(l, n);

    if (at != NULL) {
        memcpy(at, p, n);
    }
}

static void fill_comes(struct line *l, uint8_t value, size_t n)
{
    uint8_t *at = come(l, n);

    if (at != NULL) {
        memset(at, value, n);
    }
}

/* The rest of the input; what is not there is zero. */
struct input {
    const uint8_t *p;
    size_t n;
};

static unsigned next_byte(struct input *in)
{
    if (in->n == 0) {
        return 0;
    }
    in->n--;
    return *in->p++;
}

static void next_bytes(struct input *in, size_t n, struct line *l)
{
    n = n < in->n ? n : in->n;
    bytes_come(l, in->p, n);
    in->p += n;
    in->n -= n;
}

static void command(struct input *in, unsigned what, unsigned how, struct line *l)
{
    unsigned n;

    switch (what) {
    case 7:
        n = next_byte(in) << 8;
        next_bytes(in, n | next_byte(in), l);
        break;
    case 8:
        n = next_byte(in);
        fill_comes(l, (uint8_t)n, (size_t)next_byte(in) << 13);
        break;
    case 9:
        l->piece = (size_t)1 << (next_byte(in) & 31);
        break;
    case 10:
        n = next_byte(in);
        l->room = n == 255 ? SIZE_MAX : (size_t)n << 8;
        break;
    case 11:
        l->fin = true;
        break;
    case 12:
        l->reset = true;
        break;
    case 13:
        w.now_ms += 100 * (int64_t)next_byte(in);
        turns(2);
        check_world();
        return;
    case 14:
        turns(1u << how);
        check_world();
        return;
    case 15:
        break;
    default:
        next_bytes(in, next_byte(in), l);
    }
    happens(l);
}

static void obey(struct input *in)
{
    while (in->n > 0) {
        unsigned b = next_byte(in);
        unsigned back = b & 3u;

        if (b >> 4 < 2) {
            if (w.nlines + 1 < LINES) { /* the last one is for the end */
                open_line(b >> 2 & 1u);
            }
        } else if (w.nlines > back) {
            command(in, b >> 4, b >> 2 & 3u, &w.lines[w.nlines - 1 - back]);
        }
    }
}

/* ---- begin and end ---- */

static void give(void *arg, struct handover *h)
{
    (void)arg;
    shard_give(w.shards[broker_shard_of(&w.shared, h->client_id)], h);
}

static void begin_world(const struct config *config)
{
    struct broker_shared *s = &w.shared;
    struct acceptor_env env = {.listeners = w.listeners,
                               .nlisteners = 2,
                               .config = &s->config,
                               .clock = &world_clock,
                               .metrics = &w.metrics,
                               .stamp = &w.stamp,
                               .pending = &w.pending,
                               .give = give};

    memset(&w, 0, sizeof(w));
    w.now_ms = 1000000;
    atomic_init(&s->config, config);
    for (unsigned i = 0; i < 2; i++) {
        atomic_init(&w.listeners[i].conf, &config->listeners[i]);
    }
    s->clock = &world_clock;
    s->tree = tree_create();
    s->retained = retained_create(64, config->max_retained_messages, config->max_retained_bytes, 1);
    s->shards = w.shards;
    s->nshards = SHARDS;
    FUZZ_CHECK(s->tree != NULL && s->retained != NULL);
    s->shares = shares_create(s->tree, SHARDS);
    FUZZ_CHECK(s->shares != NULL && store_open_memory(0, &s->store) == ST_OK);
    for (unsigned i = 0; i < SHARDS; i++) {
        w.shards[i] = shard_create(s, i);
        FUZZ_CHECK(w.shards[i] != NULL);
    }
    w.acceptor = fuzz_acceptor_create(&env);
}

static void end_world(void)
{
    fuzz_acceptor_destroy(w.acceptor);
    for (unsigned i = 0; i < SHARDS; i++) {
        shard_drain_mail(w.shards[i]);
        shard_close_clients(w.shards[i], RC_SERVER_SHUTTING_DOWN);
        shard_forget_store(w.shards[i]);
        shard_drain_mail(w.shards[i]);
    }
    store_close(&w.shared.store);
    for (unsigned i = 0; i < SHARDS; i++) {
        shard_destroy(w.shards[i]);
    }
    shares_destroy(w.shared.shares);
    retained_destroy(w.shared.retained);
    tree_destroy(w.shared.tree);
    for (unsigned i = 0; i < w.nlines; i++) {
        FUZZ_CHECK(!w.lines[i].is_open); /* with its descriptor */
        free(w.lines[i].in);
        free(w.lines[i].kept);
    }
    FUZZ_CHECK(w.pending == 0 && w.listeners[0].connections + w.listeners[1].connections == 0);
}

/* All peers are gone; of durable sessions nothing but time ends them. */
static void leave(void)
{
    for (unsigned i = 0; i < w.nlines; i++) {
        w.lines[i].reset = true;
        tell(&w.lines[i]);
    }
    turns(TURNS_AT_END);
    w.now_ms += 60000;
    turns(TURNS_AT_END);
    check_world();
}

static unsigned count_of(const struct line *l, enum mqtt_type type, const char *payload)
{
    struct span left = span_of(l->kept, l->kept_n);
    struct frame f;
    const char *why = NULL;
    unsigned n = 0;

    while (frame_next(left, SIZE_MAX, &f, &why) == FRAME_OK) {
        n += f.type == type && f.body.n >= strlen(payload) &&
             memcmp(f.body.p + f.body.n - strlen(payload), payload, strlen(payload)) == 0;
        left = span_of(left.p + f.total, left.n - f.total);
    }
    return n;
}

/* A client that is new and does nothing wrong. */
static void serve_another(void)
{
    static const uint8_t hello[] = "\x10\x18\0\x04MQTT\x05\x82\0\0\0\0\x04last\0\x05"
                                   "again" /* user: its id, see texts[] */
                                   "\x82\x0b\0\1\0\0\5watch\1"
                                   "\x32\x0d\0\5watch\0\7\0"
                                   "bye"
                                   "\xc0\0";
    struct line *l = open_line(0);

    l->kept = fuzz_room(KEPT);
    bytes_come(l, hello, sizeof(hello) - 1);
    happens(l);
    turns(TURNS_AT_END);
    FUZZ_CHECK(l->is_open);
    FUZZ_CHECK(count_of(l, MQTT_CONNACK, "") == 1 && count_of(l, MQTT_SUBACK, "\1") == 1);
    FUZZ_CHECK(count_of(l, MQTT_PUBACK, "") == 1 && count_of(l, MQTT_PINGRESP, "") == 1);
    FUZZ_CHECK(count_of(l, MQTT_PUBLISH, "bye") >= 1); /* perhaps a retained one before */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    if (size < 2) {
        return 0;
    }
    begin_world(config_at(next_byte(&in) % CONFIGS));
    obey(&in);
    leave();
    serve_another();
    end_world();
    return 0;
}
