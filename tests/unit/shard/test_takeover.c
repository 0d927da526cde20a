/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CONNECT whose client id has a connection: what the older one had sent is handled first, however
 * late we are, and who goes on sending does not keep the newer one waiting.
 */
#include "tests/unit/shard/fixture.h"

#include "tests/support/tmpdir.h"

static int64_t now_ms; /* begins where the shards' timers do */

static int64_t my_now(void *arg)
{
    (void)arg;
    return now_ms;
}

static const struct clock my_clock = {.now_ms = my_now};

/* ---- what is looked at ---- */

static struct link *link_of(const struct fixture *f, const char *id)
{
    const struct client *c = client_find(f->shards[0], span_str(id));

    return c == NULL ? NULL : c->link;
}

static uint64_t count(const struct fixture *f, enum metric which)
{
    return metric_get(&f->shards[0]->metrics, which);
}

static uint64_t published(const struct fixture *f)
{
    return count(f, METRIC_PUBLISH_RECEIVED);
}

/* ---- what happens ---- */

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

static int connect_to(struct fixture *f, const char *id)
{
    const int fd = connect_pair(f, id, NULL);

    a_turn(f);
    return fd;
}

/* False: the other end is closed, or full. */
static bool put(int fd, const void *p, size_t n)
{
    return send(fd, p, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool send_message(int fd, const char *topic)
{
    uint8_t p[128];

    return put(fd, p, message(p, topic));
}

static bool send_disconnect(int fd)
{
    return put(fd, "\xe0\x00", 2);
}

static bool has_ended(int fd)
{
    char p[256];
    ssize_t n;

    do {
        n = read(fd, p, sizeof(p));
    } while (n > 0);
    return n == 0;
}

/* ---- tests ---- */

/* Nothing to read: no waiting. */
static void test_idle(void)
{
    struct fixture f;
    int fds[2];

    open_quiet(&f);
    fds[0] = connect_to(&f, "a");
    fds[1] = connect_pair(&f, "a", NULL);
    for (int i = 0; i < 4; i++) { /* the clock stands still */
        a_turn(&f);
    }
    CU_ASSERT(has_ended(fds[0]));
    CU_ASSERT_FALSE(has_ended(fds[1]));
    CU_ASSERT_EQUAL(count(&f, METRIC_CLIENTS_TAKEN_OVER), 1);
    close(fds[0]);
    close(fds[1]);
    close_shards(&f);
}

/* The peer's kernel had more than ours took at once, and our turn is late: with the event, and when
 * others filled the list of events. */
static void late(bool noticed)
{
    struct fixture f;
    int fds[2];

    open_quiet(&f);
    fds[0] = connect_to(&f, "a");
    UNIT_NEED(send_message(fds[0], "t"));
    fds[1] = connect_pair(&f, "a", NULL);
    a_turn(&f);
    CU_ASSERT_EQUAL(published(&f), 1);
    UNIT_NEED(send_message(fds[0], "t"));
    UNIT_NEED(send_disconnect(fds[0]));
    now_ms += 500;
    if (noticed) {
        a_turn(&f);
    } else {
        take_turn(f.shards[0], 0);
    }
    pass(&f, 100);
    CU_ASSERT_EQUAL(published(&f), 2);
    CU_ASSERT_EQUAL(count(&f, METRIC_CLIENTS_TAKEN_OVER), 0); /* it had said goodbye */
    CU_ASSERT(has_ended(fds[0]));
    CU_ASSERT_FALSE(has_ended(fds[1]));
    close(fds[0]);
    close(fds[1]);
    close_shards(&f);
}

static void test_late(void)
{
    late(true);
}

static void test_late_and_unnoticed(void)
{
    late(false);
}

/* The thread had no processor for longer than a takeover lasts, before it could read. */
static void test_stalled(void)
{
    struct fixture f;
    int fds[2];

    open_quiet(&f);
    fds[0] = connect_to(&f, "a");
    UNIT_NEED(send_message(fds[0], "t"));
    UNIT_NEED(send_disconnect(fds[0]));
    fds[1] = connect_pair(&f, "a", NULL);
    f.shards[0]->budget = 10;
    (void)read_mail(f.shards[0]);
    CU_ASSERT(link_of(&f, "a")->is_taken);
    now_ms += 60000;
    take_turn(f.shards[0], 0);
    pass(&f, 100);
    CU_ASSERT_EQUAL(published(&f), 1);
    CU_ASSERT_EQUAL(count(&f, METRIC_CLIENTS_TAKEN_OVER), 0);
    CU_ASSERT_FALSE(has_ended(fds[1]));
    close(fds[0]);
    close(fds[1]);
    close_shards(&f);
}

/* A publisher that memory_limit has paused is heard to its end. */
static void test_paused(void)
{
    struct fixture f;
    int fds[2];

    open_quiet(&f);
    fds[0] = connect_to(&f, "a");
    atomic_store(&f.shared.memory_pressure, true);
    UNIT_NEED(send_message(fds[0], "t"));
    UNIT_NEED(send_disconnect(fds[0]));
    fds[1] = connect_pair(&f, "a", NULL);
    a_turn(&f);
    CU_ASSERT(link_of(&f, "a")->is_paused);
    pass(&f, (int64_t)PAUSE_MAX_MS + 500);
    CU_ASSERT_EQUAL(published(&f), 1);
    CU_ASSERT_EQUAL(count(&f, METRIC_CLIENTS_TAKEN_OVER), 0);
    CU_ASSERT_FALSE(has_ended(fds[1]));
    close(fds[0]);
    close(fds[1]);
    close_shards(&f);
}

/* The middle of a packet: its other half may be on the way, but not for ever. */
static void test_half_a_packet(void)
{
    struct fixture f;
    int fds[2];
    uint8_t p[128];
    const size_t n = message(p, "t");

    open_quiet(&f);
    fds[0] = connect_to(&f, "a");
    UNIT_NEED(put(fds[0], p, 5));
    a_turn(&f);
    fds[1] = connect_pair(&f, "a", NULL);
    for (int i = 0; i < 4; i++) { /* no time passes */
        a_turn(&f);
    }
    UNIT_NEED(put(fds[0], p + 5, n - 5));
    a_turn(&f);
    CU_ASSERT_EQUAL(published(&f), 1);
    UNIT_NEED(put(fds[0], p, 5));
    pass(&f, 100);
    CU_ASSERT(has_ended(fds[0]));
    CU_ASSERT_FALSE(has_ended(fds[1]));
    CU_ASSERT_EQUAL(count(&f, METRIC_CLIENTS_TAKEN_OVER), 1);
    close(fds[0]);
    close(fds[1]);
    close_shards(&f);
}

static void flood(int fd, const uint8_t *p, size_t n)
{
    while (send(fd, p, n, MSG_NOSIGNAL) > 0) {}
}

/* Full sockets in each turn: it ends by bytes or by time, whichever is first. */
static void flooded(int64_t ms_a_turn)
{
    struct fixture f;
    struct link *old;
    int fds[2];
    int64_t begin;
    unsigned turns = 0;
    static uint8_t packets[64][1024] = {{0}};

    for (size_t i = 0; i < 64; i++) { /* QoS 0 to "t" */
        memcpy(packets[i], "\x30\xfd\x07\0\1t", 6);
    }
    open_quiet(&f);
    fds[0] = connect_to(&f, "a");
    old = link_of(&f, "a");
    fds[1] = connect_pair(&f, "a", NULL);
    begin = now_ms;
    while (link_of(&f, "a") == old && turns < 100000) {
        flood(fds[0], packets[0], sizeof(packets));
        a_turn(&f);
        now_ms += ms_a_turn;
        turns++;
    }
    a_turn(&f);
    CU_ASSERT(turns < 100000);
    CU_ASSERT(now_ms - begin <= 3000 || turns <= 66);
    CU_ASSERT(count(&f, METRIC_BYTES_RECEIVED) <= 17 << 20);
    CU_ASSERT_FALSE(has_ended(fds[1]));
    close(fds[0]);
    close(fds[1]);
    close_shards(&f);
}

static void test_flood(void)
{
    flooded(0);
}

static void test_flood_of_slow_turns(void)
{
    flooded(400);
}

/* Never silent for long: over after its time. */
static void test_trickle(void)
{
    struct fixture f;
    struct link *old;
    int fds[2];
    int64_t begin;

    open_quiet(&f);
    fds[0] = connect_to(&f, "a");
    old = link_of(&f, "a");
    fds[1] = connect_pair(&f, "a", NULL);
    begin = now_ms;
    while (link_of(&f, "a") == old && now_ms - begin < 60000) {
        (void)send_message(fds[0], "t");
        a_turn(&f);
        now_ms += TIMER_TICK_MS;
    }
    CU_ASSERT(now_ms - begin <= 2100);
    CU_ASSERT_EQUAL(count(&f, METRIC_CLIENTS_TAKEN_OVER), 1);
    close(fds[0]);
    close(fds[1]);
    close_shards(&f);
}

/* Several wait: in the order of their CONNECTs, not of their mail, each is heard, the last stays.
 */
static void test_order(void)
{
    enum { N = 5 };
    static const uint64_t stamps[N] = {40, 20, 50, 10, 30};
    struct fixture f;
    int fds[N + 1];
    int sub;
    uint8_t in[512];
    ssize_t n;
    char seen[N + 1] = "";

    open_quiet(&f);
    sub = connect_pair(&f, "sub", "#");
    fds[N] = connect_to(&f, "a");
    for (unsigned i = 0; i < N; i++) {
        const char topic[2] = {(char)('0' + stamps[i] / 10), 0};
        f.stamp = stamps[i] - 1;
        fds[i] = connect_pair(&f, "a", NULL);
        UNIT_NEED(send_message(fds[i], topic));
    }
    pass(&f, 500);
    n = read(sub, in, sizeof(in));
    for (ssize_t i = 0; i + 4 < n; i++) { /* 30 0b 00 01 TOPIC payload. */
        if (in[i] == 0x30 && in[i + 2] == 0 && in[i + 3] == 1) {
            strncat(seen, (const char *)&in[i + 4], 1);
        }
    }
    CU_ASSERT_STRING_EQUAL(seen, "12345");
    CU_ASSERT_EQUAL(client_find(f.shards[0], span_str("a"))->stamp, 50);
    for (unsigned i = 0; i <= N; i++) {
        CU_ASSERT_EQUAL(has_ended(fds[i]), i == N || stamps[i] != 50);
        close(fds[i]);
    }
    close(sub);
    close_shards(&f);
}

/* Those that wait when the shard ends, or whose old connection does for a reason of its own. */
static void test_ends_meanwhile(void)
{
    struct fixture f;
    int fds[4];

    open_quiet(&f);
    fds[0] = connect_to(&f, "a");
    fds[1] = connect_pair(&f, "a", NULL);
    f.shards[0]->budget = 10;
    (void)read_mail(f.shards[0]);
    link_close(f.shards[0], link_of(&f, "a"), RC_QUOTA_EXCEEDED, NULL);
    fds[2] = connect_pair(&f, "a", NULL); /* comes to a connection that is closed already */
    a_turn(&f);
    pass(&f, 100);
    CU_ASSERT(has_ended(fds[0]) && has_ended(fds[1]));
    CU_ASSERT_FALSE(has_ended(fds[2]));
    fds[3] = connect_pair(&f, "a", NULL);
    f.shards[0]->budget = 10;
    (void)read_mail(f.shards[0]);
    CU_ASSERT(link_of(&f, "a")->is_taken);
    close_shards(&f);
    CU_ASSERT(has_ended(fds[3]));
    CU_ASSERT_EQUAL(atomic_load(&f.listener.connections), 0);
    for (unsigned i = 0; i < 4; i++) {
        close(fds[i]);
    }
}

/* Until the store owes no answer. */
static void settle(struct fixture *f)
{
    struct store_stats st;

    for (unsigned quiet = 0; quiet < 3;) {
        a_turn(f);
        store_stats(f->shared.store, &st);
        quiet = st.pending == 0 ? quiet + 1 : 0;
        usleep(1000);
    }
}

/* The older CONNACK waits for the store still: it opens, is heard, and ends. */
static void test_connecting(void)
{
    struct tmpdir dir;
    struct fixture f;
    int fds[2];

    tmpdir_make(&dir);
    open_shards_in(&f, 1, dir.path);
    fds[0] = connect_session(&f, "a", false, NULL, 0);
    UNIT_NEED(send_message(fds[0], "t"));
    UNIT_NEED(send_disconnect(fds[0]));
    fds[1] = connect_session(&f, "a", false, NULL, 0);
    f.shards[0]->budget = 10;
    (void)read_mail(f.shards[0]);
    CU_ASSERT_EQUAL(link_of(&f, "a")->state, LINK_CONNECTING);
    CU_ASSERT(link_of(&f, "a")->is_taken);
    f.shared.clock = &my_clock; /* for a store that takes longer than a takeover */
    now_ms = clock_now_ms(&clock_system) + 5000;
    for (unsigned i = 0; i < 5000 && !has_ended(fds[0]); i++) {
        a_turn(&f);
        usleep(1000);
    }
    CU_ASSERT_EQUAL(published(&f), 1);
    CU_ASSERT_EQUAL(count(&f, METRIC_CLIENTS_TAKEN_OVER), 0);
    CU_ASSERT_FALSE(has_ended(fds[1]));
    settle(&f);
    close(fds[0]);
    close(fds[1]);
    close_shards(&f);
    tmpdir_remove(&dir);
}

UNIT_TESTS = {
    UNIT_TEST(idle)
    UNIT_TEST(late)
    UNIT_TEST(late_and_unnoticed)
    UNIT_TEST(stalled)
    UNIT_TEST(paused)
    UNIT_TEST(half_a_packet)
    UNIT_TEST(flood)
    UNIT_TEST(flood_of_slow_turns)
    UNIT_TEST(trickle)
    UNIT_TEST(order)
    UNIT_TEST(ends_meanwhile)
    UNIT_TEST(connecting)
UNIT_TESTS_END
