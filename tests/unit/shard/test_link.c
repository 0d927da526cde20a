/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ends of connections that are nobody's decision: what a client had sent before is handled, and
 * nobody is taken for silent whose bytes lie unread.
 */
#include "tests/unit/shard/fixture.h"

static int64_t now_ms; /* begins where the shards' timers do */

static int64_t my_now(void *arg)
{
    (void)arg;
    return now_ms;
}

static const struct clock my_clock = {.now_ms = my_now};

static void a_turn(struct fixture *f)
{
    struct shard *sh = f->shards[0];

    take_turn(sh, loop_wait(&sh->loop, 0));
}

static void pass(struct fixture *f, int64_t ms)
{
    for (int64_t end = now_ms + ms; now_ms < end; now_ms += TIMER_TICK_MS) {
        a_turn(f);
    }
}

static void open_quiet(struct fixture *f)
{
    open_shards(f, 1);
    now_ms = f->shards[0]->now_ms;
    f->shared.clock = &my_clock;
}

static struct link *link_of(const struct fixture *f, const char *id)
{
    const struct client *c = client_find(f->shards[0], span_str(id));

    return c == NULL ? NULL : c->link;
}

static uint64_t count(const struct fixture *f, enum metric which)
{
    return metric_get(&f->shards[0]->metrics, which);
}

static int connect_to(struct fixture *f, const char *id)
{
    const int fd = connect_pair(f, id, NULL);

    a_turn(f);
    return fd;
}

static void put(int fd, const void *p, size_t n)
{
    UNIT_NEED(send(fd, p, n, MSG_NOSIGNAL) == (ssize_t)n);
}

static void put_message(int fd)
{
    uint8_t p[128];

    put(fd, p, message(p, "t"));
}

/* ---- a write that fails ---- */

/* Something is written to the connection before it has been read. */
static void write_first(struct fixture *f, struct link *l)
{
    UNIT_NEED(conn_out_copy(&l->conn, "\xd0\x00", 2));
    link_dirty(f->shards[0], l);
    flush_dirty(f->shards[0]);
}

/* Its client wrote, said goodbye and closed; ours to it meets a closed socket first. */
static void test_write_fails(void)
{
    struct fixture f;
    struct link *l;
    int fd;

    open_quiet(&f);
    fd = connect_to(&f, "a");
    l = link_of(&f, "a");
    put_message(fd);
    put_message(fd);
    put(fd, "\xe0\x00", 2);
    close(fd);
    write_first(&f, l);
    CU_ASSERT_PTR_EQUAL(link_of(&f, "a"), l);
    CU_ASSERT_EQUAL(l->conn.out_n, 0);
    a_turn(&f);
    CU_ASSERT_EQUAL(count(&f, METRIC_PUBLISH_RECEIVED), 2);
    CU_ASSERT_PTR_NULL(link_of(&f, "a"));
    close_shards(&f);
}

/* Without a goodbye: the end of the socket is the end. */
static void test_write_fails_at_the_end(void)
{
    struct fixture f;
    int fd;

    open_quiet(&f);
    fd = connect_to(&f, "a");
    put_message(fd);
    close(fd);
    write_first(&f, link_of(&f, "a"));
    a_turn(&f);
    a_turn(&f);
    CU_ASSERT_EQUAL(count(&f, METRIC_PUBLISH_RECEIVED), 1);
    CU_ASSERT_PTR_NULL(link_of(&f, "a"));
    close_shards(&f);
}

static ssize_t no_memory(struct conn *c, const struct iovec *iov, int n)
{
    (void)c;
    (void)iov;
    (void)n;
    errno = ENOMEM;
    return -1;
}

/* The socket lives, but nothing can be sent: what comes is heard for a moment, not for ever. */
static void test_write_fails_on_a_living_socket(void)
{
    struct fixture f;
    struct transport tr = transport_tcp;
    struct link *l;
    int fd;

    open_quiet(&f);
    tr.writev = no_memory;
    fd = connect_to(&f, "a");
    l = link_of(&f, "a");
    l->conn.tr = &tr;
    for (unsigned i = 0; i < 1000 && link_of(&f, "a") != NULL; i++) {
        put_message(fd);
        write_first(&f, l); /* again and again */
        pass(&f, 20);
    }
    CU_ASSERT_PTR_NULL(link_of(&f, "a"));
    CU_ASSERT(count(&f, METRIC_PUBLISH_RECEIVED) > 1);
    CU_ASSERT(count(&f, METRIC_PUBLISH_RECEIVED) < 200);
    close(fd);
    close_shards(&f);
}

/* ---- keep alive ---- */

static struct link *connect_alive(struct fixture *f, const char *id, int *fd)
{
    struct link *l;

    *fd = connect_to(f, id);
    l = link_of(f, id);
    l->keep_alive_ms = 1500;
    link_touch_keepalive(f->shards[0], l);
    return l;
}

/* The thread had no processor for longer than the keep alive: what came meanwhile counts, also that
 * of a connection that is not among the events of the turn. */
static void test_stalled(void)
{
    struct fixture f;
    int speaks;
    int silent;

    open_quiet(&f);
    (void)connect_alive(&f, "speaks", &speaks);
    (void)connect_alive(&f, "silent", &silent);
    put(speaks, "\xc0\x00", 2);
    now_ms += 60000;
    take_turn(f.shards[0], 0);
    CU_ASSERT_PTR_NOT_NULL(link_of(&f, "speaks"));
    pass(&f, 100);
    CU_ASSERT_PTR_NOT_NULL(link_of(&f, "speaks"));
    CU_ASSERT_PTR_NULL(link_of(&f, "silent"));
    CU_ASSERT_EQUAL(count(&f, METRIC_KEEPALIVE_TIMEOUTS), 1);
    pass(&f, 1600);
    CU_ASSERT_PTR_NULL(link_of(&f, "speaks"));
    CU_ASSERT_EQUAL(count(&f, METRIC_KEEPALIVE_TIMEOUTS), 2);
    close(speaks);
    close(silent);
    close_shards(&f);
}

/* Kept from being read since the store owes it answers: the silence is ours. */
static void test_answers_wait(void)
{
    struct fixture f;
    struct link *l;
    int fd;

    open_quiet(&f);
    l = connect_alive(&f, "a", &fd);
    l->nacks = PENDING_ACKS;
    pass(&f, 5000);
    CU_ASSERT_PTR_EQUAL(link_of(&f, "a"), l);
    l->nacks = 0;
    pass(&f, 3200);
    CU_ASSERT_PTR_NULL(link_of(&f, "a"));
    close(fd);
    close_shards(&f);
}

/* Less than a kilobyte in all of the keep alive's time is silence, in however small pieces. */
static void test_dribble(void)
{
    struct fixture f;
    const int64_t tick = TIMER_TICK_MS;
    int64_t begin;
    int fd;

    open_quiet(&f);
    (void)connect_alive(&f, "a", &fd);
    put(fd, "\x30\xff\xff\x03", 4);
    begin = now_ms;
    for (int64_t at = begin; link_of(&f, "a") != NULL && now_ms - begin < 60000; now_ms += tick) {
        if (now_ms - at >= 5 * tick) {
            at = now_ms;
            (void)send(fd, "x", 1, MSG_NOSIGNAL);
        }
        a_turn(&f);
    }
    CU_ASSERT(now_ms - begin < 3000);
    close(fd);
    close_shards(&f);
}

UNIT_TESTS = {
    UNIT_TEST(write_fails)
    UNIT_TEST(write_fails_at_the_end)
    UNIT_TEST(write_fails_on_a_living_socket)
    UNIT_TEST(stalled)
    UNIT_TEST(answers_wait)
    UNIT_TEST(dribble)
UNIT_TESTS_END
