/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tickets on their way: parts that go to another shard together, and answers that come together,
 * when there are more of them than a turn takes; and parts for so many sessions that their delivery
 * pauses.
 */
#include "tests/unit/shard/fixture.h"

#include "tests/support/tmpdir.h"

/* For its lists. */
#include "server/shard/ticket.c"

#define MESSAGES 3000u
#define PAYLOAD  8u

struct bench {
    struct fixture f;
    struct tmpdir dir;
    int publisher; /* of shard 0 */
    uint8_t in[256];
    size_t in_n;
    unsigned acked; /* PUBACKs, in the order of their packet ids */
};

static void set_up(struct bench *b)
{
    char id[32];

    *b = (struct bench){0};
    tmpdir_make(&b->dir);
    open_shards_in(&b->f, 2, b->dir.path);
    id_of(&b->f, 0, 0, id, sizeof(id));
    b->publisher = connect_pair(&b->f, id, NULL);
}

static void tear_down(struct bench *b)
{
    close(b->publisher);
    close_shards(&b->f);
    tmpdir_remove(&b->dir);
}

static void one_turn(struct shard *sh)
{
    take_turn(sh, loop_wait(&sh->loop, 0));
}

/* A session of shard 1 without a connection. */
static struct client *absent(struct bench *b, unsigned k, const char *filter)
{
    struct shard *sh = b->f.shards[1];
    struct client *c;
    struct store_op *op;
    char id[32];

    id_of(&b->f, 1, k, id, sizeof(id));
    c = client_create(sh, span_str(id));
    UNIT_NEED(c != NULL);
    c->durable = true;
    c->stored = true;
    c->version = MQTT_3_1_1;
    op = ticket_lazy_named(sh, ST_SESSION_PUT, c->id, c->id_n);
    UNIT_NEED(op != NULL);
    op->session = client_session(c);
    UNIT_NEED(subscription_restore(sh, c, span_str(filter), 1, 0));
    return c;
}

static void publish(const struct bench *b, const char *topic, uint16_t packet_id)
{
    uint8_t bytes[64];
    char text[16];
    struct publish m = {.topic = span_str(topic), .qos = 1, .packet_id = packet_id};
    size_t id_at;
    size_t n;

    (void)snprintf(text, sizeof(text), "%08u", packet_id);
    m.payload = span_of(text, PAYLOAD);
    n = publish_encode_head(bytes, &m, SPAN_NULL, MQTT_3_1_1, &id_at);
    memcpy(bytes + n, text, PAYLOAD);
    n += PAYLOAD;
    UNIT_NEED(send(b->publisher, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
}

static void read_acks(struct bench *b)
{
    ssize_t got = recv(b->publisher, b->in + b->in_n, sizeof(b->in) - b->in_n, 0);
    const char *why;
    struct frame f;
    size_t at = 0;

    UNIT_NEED(got > 0 || errno == EAGAIN);
    b->in_n += got > 0 ? (size_t)got : 0;
    while (frame_next(span_of(b->in + at, b->in_n - at), 256, &f, &why) == FRAME_OK) {
        at += f.total;
        if (f.type == MQTT_PUBACK) {
            b->acked++;
            UNIT_NEED((unsigned)(f.body.p[0] << 8 | f.body.p[1]) == b->acked);
        }
    }
    memmove(b->in, b->in + at, b->in_n - at);
    b->in_n -= at;
}

/* Turns, until all of the publisher's first n messages are acknowledged. */
static void settle(struct bench *b, unsigned n)
{
    for (int64_t until = clock_now_ms(&clock_system) + 60000; b->acked < n;) {
        one_turn(b->f.shards[0]);
        one_turn(b->f.shards[1]);
        read_acks(b);
        UNIT_NEED(clock_now_ms(&clock_system) < until);
    }
}

/* ---- what the store has ---- */

struct asked {
    struct store_page page;
    _Atomic bool there; /* release by the store's thread, acquire by ours */
};

static void page_is_there(struct store_page *p)
{
    atomic_store_explicit(&((struct asked *)p)->there, true, memory_order_release);
}

/* Its queue holds the messages 1 .. n in their order. */
static void check_queue(struct bench *b, const struct client *c, unsigned n)
{
    struct asked a = {.page = {.done = page_is_there,
                               .session = client_session(c),
                               .max_entries = n + 1,
                               .max_bytes = (size_t)1 << 20}};

    UNIT_NEED(store_read(b->f.shared.store, &a.page) == ST_OK);
    while (!atomic_load_explicit(&a.there, memory_order_acquire)) {
        (void)poll(NULL, 0, 1);
    }
    UNIT_NEED(a.page.rc == ST_OK);
    CU_ASSERT_EQUAL(a.page.n, n);
    for (unsigned i = 0; i < a.page.n; i++) {
        char text[16];
        (void)snprintf(text, sizeof(text), "%08u", i + 1);
        CU_ASSERT(a.page.entries[i].data.n == PAYLOAD &&
                  memcmp(a.page.entries[i].data.p, text, PAYLOAD) == 0);
    }
    store_page_free(&a.page);
}

/* ---- tests ---- */

static void test_parts_cross_together(void)
{
    struct bench b;
    struct client *c;
    struct shard *to;
    unsigned sent = 0;

    set_up(&b);
    to = b.f.shards[1];
    c = absent(&b, 0, "t");
    while (metric_get(shard_metrics(b.f.shards[0]), METRIC_PUBLISH_RECEIVED) < MESSAGES) {
        for (unsigned i = 0; i < 200 && sent < MESSAGES; i++) {
            publish(&b, "t", (uint16_t)++sent);
        }
        one_turn(b.f.shards[0]);
    }
    CU_ASSERT(mailbox_depth(&to->post.mailbox) < MESSAGES / 10);
    CU_ASSERT_EQUAL(post_depth(&to->post), MESSAGES);
    one_turn(to);
    UNIT_NEED(c->out != NULL);
    CU_ASSERT_EQUAL(c->out->next_seq, TURN_JOBS + TURN_MAIL); /* in the middle of a list */
    CU_ASSERT(to->post.inbox != NULL);
    while (c->out->next_seq < MESSAGES) {
        one_turn(to);
    }
    CU_ASSERT_EQUAL(atomic_load(&to->post.more), 0);
    settle(&b, MESSAGES);
    CU_ASSERT_EQUAL(c->out->disk.count, MESSAGES);
    check_queue(&b, c, MESSAGES);
    tear_down(&b);
}

#define MANY        (COLLECT_ALL + 100u)
#define COLLECT_ALL 1024u /* subscriptions that are looked at in one go */

static void test_part_of_many_sessions(void)
{
    static struct client *clients[MANY];
    struct bench b;

    set_up(&b);
    for (unsigned k = 0; k < MANY; k++) {
        clients[k] = absent(&b, k, "t");
    }
    for (uint16_t i = 1; i <= 3; i++) {
        publish(&b, "t", i);
    }
    while (metric_get(shard_metrics(b.f.shards[0]), METRIC_PUBLISH_RECEIVED) < 3) {
        one_turn(b.f.shards[0]);
    }
    one_turn(b.f.shards[1]);
    CU_ASSERT(b.f.shards[1]->jobs != NULL && b.f.shards[1]->post.inbox != NULL);
    one_turn(b.f.shards[1]); /* the last one comes while the one before it is under way */
    CU_ASSERT(b.f.shards[1]->jobs != NULL && b.f.shards[1]->jobs->job_next != NULL);
    settle(&b, 3);
    CU_ASSERT(b.f.shards[1]->jobs == NULL);
    for (unsigned k = 0; k < MANY; k += 100) {
        check_queue(&b, clients[k], 3);
    }
    tear_down(&b);
}

#define ANSWERS (TURN_ANSWERS + 10u)

/* One by one, but no more than so many in a turn; other mail waits behind them. */
static void test_answers_come_together(void)
{
    static struct ticket *tickets[ANSWERS];
    struct part_list l;
    struct bench b;
    struct shard *sh;

    set_up(&b);
    sh = b.f.shards[1];
    for (unsigned i = 0; i < ANSWERS; i++) {
        tickets[i] = ticket_create(sh, 1, 0);
        UNIT_NEED(tickets[i] != NULL);
        atomic_store(&tickets[i]->refs, 2); /* theirs, and ours to look */
        if (i == 0) {
            part_list_begin(&l, &tickets[i]->part[0]);
        } else {
            part_list_add(&l, &tickets[i]->part[0]);
        }
    }
    l.first->mail.fn = parts_answered;
    post_deliver(&sh->post, &l.first->mail);
    one_turn(sh);
    CU_ASSERT_EQUAL(atomic_load(&tickets[TURN_ANSWERS - 1]->refs), 1);
    CU_ASSERT_EQUAL(atomic_load(&tickets[TURN_ANSWERS]->refs), 2);
    one_turn(sh);
    for (unsigned i = 0; i < ANSWERS; i++) {
        CU_ASSERT_EQUAL(atomic_load(&tickets[i]->refs), 1);
        ticket_unref(sh, tickets[i]);
    }
    tear_down(&b);
}

/* Tickets of the usual size are kept for the next ones. */
static void test_spare_tickets(void)
{
    struct bench b;
    struct client *c;

    set_up(&b);
    c = absent(&b, 0, "t");
    for (uint16_t i = 1; i <= 20; i++) {
        publish(&b, "t", i);
        settle(&b, i);
    }
    check_queue(&b, c, 20);
    /* One at a time: whoever frees one has it for the next. */
    CU_ASSERT(b.f.shards[0]->nspare_tickets + b.f.shards[1]->nspare_tickets <= 20);
#ifndef __SANITIZE_ADDRESS__
    CU_ASSERT(b.f.shards[0]->nspare_tickets + b.f.shards[1]->nspare_tickets > 0);
#endif
    tear_down(&b);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(parts_cross_together)
    UNIT_TEST(part_of_many_sessions)
    UNIT_TEST(answers_come_together)
    UNIT_TEST(spare_tickets)
UNIT_TESTS_END
