/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages from shard to shard: they travel as copies in a buffer that ends when it was gone
 * through, so whatever is kept of them has to be a copy again - for a session whose window or
 * whose socket is full, for a fan-out that pauses. Both shards are turned by the test.
 */
#include "tests/support/fault.h"
#include "tests/unit/shard/fixture.h"

#define TOPIC   "a/b"
#define ROUNDS  40u
#define LARGE   1500u /* bytes of a payload that does not travel in a run */
#define PAYLOAD 2000u

/* A client of the test: what it has received is checked as it comes. */
struct party {
    int fd;
    uint8_t *in;
    size_t n, cap;
    uint32_t next; /* number that has to come next */
    uint32_t acks; /* PUBACKs that have come */
    bool answers;  /* QoS 1 with PUBACK */
    bool may_skip; /* messages may have been dropped */
    bool subscribed;
};

/* ---- messages: number, then bytes that follow from it ---- */

static size_t payload_size(uint32_t number)
{
    return number % 7 == 3 ? LARGE : 4 + number % 200;
}

static void fill(uint8_t *p, uint32_t number)
{
    for (size_t i = 4; i < payload_size(number); i++) {
        p[i] = (uint8_t)(number + i);
    }
    memcpy(p, &number, 4);
}

static void publish(const struct party *p, uint32_t number, uint8_t qos)
{
    uint8_t payload[PAYLOAD];
    uint8_t bytes[PAYLOAD + 64];
    struct publish m = {.topic = span_str(TOPIC),
                        .payload = span_of(payload, payload_size(number)),
                        .packet_id = (uint16_t)(number + 1),
                        .qos = qos};
    size_t id_at;
    size_t n = publish_encode_head(bytes, &m, SPAN_NULL, MQTT_3_1_1, &id_at);

    fill(payload, number);
    memcpy(bytes + n, payload, m.payload.n);
    n += m.payload.n;
    UNIT_NEED(send(p->fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
}

static void take_publish(struct party *p, const struct frame *f)
{
    uint8_t wanted[PAYLOAD];
    struct publish m;
    const char *why;
    uint32_t number;

    UNIT_NEED(publish_decode(&m, f->body, f->flags, MQTT_3_1_1, true, &why) == DEC_OK);
    UNIT_NEED(m.payload.n >= 4);
    memcpy(&number, m.payload.p, 4);
    CU_ASSERT(p->may_skip ? number >= p->next : number == p->next);
    p->next = number + 1;
    fill(wanted, number);
    UNIT_NEED(m.payload.n == payload_size(number));
    CU_ASSERT(memcmp(m.payload.p, wanted, m.payload.n) == 0);
    if (p->answers && m.qos == 1) {
        uint8_t ack[8];
        size_t n = ack_encode(ack, MQTT_PUBACK, MQTT_3_1_1, m.packet_id, RC_SUCCESS);
        UNIT_NEED(send(p->fd, ack, n, MSG_NOSIGNAL) == (ssize_t)n);
    }
}

static void take(struct party *p)
{
    ssize_t got = recv(p->fd, p->in + p->n, p->cap - p->n, 0);
    const char *why;
    struct frame f;
    size_t at = 0;

    UNIT_NEED(got > 0 || errno == EAGAIN);
    p->n += got > 0 ? (size_t)got : 0;
    while (frame_next(span_of(p->in + at, p->n - at), PAYLOAD + 64, &f, &why) == FRAME_OK) {
        at += f.total;
        if (f.type == MQTT_PUBLISH) {
            take_publish(p, &f);
        }
        p->acks += f.type == MQTT_PUBACK;
        p->subscribed = p->subscribed || f.type == MQTT_SUBACK;
    }
    memmove(p->in, p->in + at, p->n - at);
    p->n -= at;
}

/* ---- set-up ---- */

struct world {
    struct fixture f;
    struct party from; /* on shard 0 */
    struct party to;   /* on shard 1, with QoS 1 */
};

/* turn() would wait where nothing is to be done. */
static void look(struct shard *sh)
{
    take_turn(sh, loop_wait(&sh->loop, 0));
    rcu_quiescent();
}

static void turn_both(struct world *w)
{
    look(w->f.shards[0]);
    look(w->f.shards[1]);
}

static void party_open(struct world *w, struct party *p, unsigned shard)
{
    char id[32];

    id_of(&w->f, shard, 0, id, sizeof(id));
    *p = (struct party){.fd = connect_pair(&w->f, id, NULL), .cap = 1u << 20, .answers = true};
    p->in = malloc(p->cap);
    UNIT_NEED(p->in != NULL);
}

static void party_close(struct party *p)
{
    close(p->fd);
    free(p->in);
}

static void open_world(struct world *w)
{
    struct subscribe_item item = {.filter = span_str(TOPIC), .qos = 1};
    uint8_t bytes[64];
    size_t n = subscribe_encode(bytes, sizeof(bytes), MQTT_3_1_1, 1, SPAN_NULL, &item, 1);

    open_shards(&w->f, 2);
    w->f.config->max_queued_messages = 0;
    party_open(w, &w->from, 0);
    party_open(w, &w->to, 1);
    UNIT_NEED(send(w->to.fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
    while (!w->to.subscribed) {
        turn_both(w);
        take(&w->to);
    }
}

static void close_world(struct world *w)
{
    close_shards(&w->f);
    party_close(&w->from);
    party_close(&w->to);
}

static void settle(struct world *w)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        turn_both(w);
        take(&w->from);
        take(&w->to);
    }
}

/* ---- tests ---- */

/* The window has room for all: nothing is kept. Large ones among the small stay in their place. */
static void test_in_order(void)
{
    struct world w;
    uint32_t n = 0;

    open_world(&w);
    for (unsigned k = 0; k < ROUNDS; k++) {
        for (unsigned i = 0; i < 1 + k % 19; i++) { /* fits max_inflight_messages */
            publish(&w.from, n++, 1);
        }
        turn_both(&w);
        take(&w.to);
        take(&w.from);
    }
    settle(&w);
    CU_ASSERT_EQUAL(w.to.next, n);
    CU_ASSERT_EQUAL(w.from.acks, n);
    CU_ASSERT_EQUAL(w.f.shards[1]->nmessages, 0);
    close_world(&w);
}

/* A window of two: most messages wait in the session, long after their run has ended. */
static void test_window_is_full(void)
{
    struct world w;
    uint32_t n = 0;

    open_world(&w);
    w.f.config->max_inflight_messages = 2;
    for (unsigned k = 0; k < 4; k++) {
        for (unsigned i = 0; i < 60; i++) {
            publish(&w.from, n++, 1);
        }
        turn_both(&w);
    }
    CU_ASSERT(w.f.shards[1]->nmessages > 200);
    while (w.to.next < n) {
        uint32_t before = w.to.next;
        settle(&w);
        UNIT_NEED(w.to.next > before);
    }
    settle(&w);
    CU_ASSERT_EQUAL(w.from.acks, n);
    CU_ASSERT_EQUAL(w.f.shards[1]->nmessages, 0);
    close_world(&w);
}

static uint64_t dropped_here(const struct world *w)
{
    return metric_get(shard_metrics(w->f.shards[1]), METRIC_DROPPED_OUTPUT_FULL);
}

/* QoS 0 to who does not read: what fits into the socket and the output, in order, and no more. */
static void test_socket_is_full(void)
{
    enum { LIMIT = 4096, BURST = 50 };
    struct world w;
    uint32_t n = 0;

    open_world(&w);
    w.f.config->output_buffer_limit = LIMIT;
    while (dropped_here(&w) < 500) {
        for (unsigned i = 0; i < BURST; i++) {
            publish(&w.from, n++, 0);
        }
        turn_both(&w);
        CU_ASSERT(w.f.shards[1]->nmessages == 0); /* none waits in the session */
        UNIT_NEED(n < 100000);
    }
    n -= (uint32_t)dropped_here(&w);
    while (w.to.next < n) {
        uint32_t before = w.to.next;
        settle(&w);
        UNIT_NEED(w.to.next > before);
    }
    CU_ASSERT_EQUAL(w.to.next, n);
    close_world(&w);
}

/* The connection ends with messages in flight, some of them let go and some not sent. */
static void test_receiver_goes(void)
{
    struct world w;

    open_world(&w);
    w.f.config->max_inflight_messages = 5;
    w.to.answers = false;
    for (uint32_t n = 0; n < 50; n++) {
        publish(&w.from, n, 1);
    }
    settle(&w);
    CU_ASSERT_EQUAL(w.f.shards[1]->nmessages, 50);
    CU_ASSERT_EQUAL(w.to.next, 5);
    UNIT_NEED(shutdown(w.to.fd, SHUT_RDWR) == 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        turn_both(&w);
    }
    CU_ASSERT_EQUAL(w.f.shards[1]->nmessages, 0);
    CU_ASSERT_EQUAL(metric_get(shard_metrics(w.f.shards[1]), METRIC_QUEUED_BYTES), 0);
    close_world(&w);
}

/* Without memory on either side messages may be dropped; those that come are right, and none stays
 * behind. */
static bool with_failure(unsigned n, unsigned shard)
{
    struct world w;
    uint64_t dropped;
    uint32_t came;
    bool failed;

    open_world(&w);
    w.f.config->max_inflight_messages = 2;
    w.to.may_skip = true;
    turn_both(&w);
    for (uint32_t k = 0; k < 12; k++) {
        publish(&w.from, k, 1);
    }
    if (shard == 1) {
        look(w.f.shards[0]);
    }
    fault_set(n);
    look(w.f.shards[shard]);
    failed = fault_clear();
    settle(&w);
    dropped = metric_get(shard_metrics(w.f.shards[0]), METRIC_DROPPED_MEMORY) +
              metric_get(shard_metrics(w.f.shards[1]), METRIC_DROPPED_MEMORY);
    came = w.to.next;
    CU_ASSERT(failed || (came == 12 && dropped == 0));
    CU_ASSERT_EQUAL(w.f.shards[1]->nmessages, 0);
    close_world(&w);
    return failed;
}

static void test_without_memory(void)
{
    unsigned n[2] = {1, 1};

    for (unsigned shard = 0; shard < 2; shard++) {
        while (with_failure(n[shard], shard)) {
            n[shard]++;
        }
        CU_ASSERT(n[shard] > 3); /* it did come to allocations */
    }
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(in_order)
    UNIT_TEST(window_is_full)
    UNIT_TEST(socket_is_full)
    UNIT_TEST(receiver_goes)
    UNIT_TEST(without_memory)
UNIT_TESTS_END
