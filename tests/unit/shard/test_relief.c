/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work that grows with the number of sessions or connections, and still has to fit into turns: the
 * look for who holds memory, and the end of many connections at once.
 */
#include "tests/unit/shard/fixture.h"

#define LIMIT 4096u /* output_buffer_limit */

/* ---- a transport that takes nothing, and a clock of our own ---- */

static ssize_t nothing_read(struct conn *c, void *p, size_t n)
{
    (void)c;
    (void)p;
    (void)n;
    errno = EAGAIN;
    return -1;
}

static bool takes_output = true;

static ssize_t write_or_block(struct conn *c, const struct iovec *iov, int n)
{
    size_t sum = 0;

    (void)c;
    for (int i = 0; i < n; i++) {
        sum += iov[i].iov_len;
    }
    if (!takes_output) {
        errno = EAGAIN;
        return -1;
    }
    return (ssize_t)sum;
}

static bool never_pending(const struct conn *c)
{
    (void)c;
    return false;
}

static void no_end(struct conn *c)
{
    (void)c;
}

static const struct transport transport_sink = {
    .name = "sink",
    .read = nothing_read,
    .writev = write_or_block,
    .has_pending = never_pending,
    .shutdown = no_end,
    .fini = no_end,
};

static int64_t now_ms = 1000000;

static int64_t my_now(void *arg)
{
    (void)arg;
    return now_ms;
}

static const struct clock my_clock = {.now_ms = my_now};

/* ---- sessions ---- */

/* To come with the next turns. */
static void give_many(struct fixture *f, unsigned first, unsigned n)
{
    char id[16];

    for (unsigned i = first; i < first + n; i++) {
        (void)snprintf(id, sizeof(id), "r%u", i);
        give(f, -1, &transport_sink, id, NULL);
    }
}

static void open_with(struct fixture *f, unsigned n)
{
    open_shards(f, 1);
    f->config->output_buffer_limit = LIMIT;
    takes_output = true;
    for (unsigned i = 0; i < n; i += 1000) {
        give_many(f, i, n - i < 1000 ? n - i : 1000);
        take_turn(f->shards[0], 0);
    }
    take_turn(f->shards[0], 0);
    UNIT_NEED(f->shards[0]->clients_n == n);
}

static struct client *session(struct fixture *f, unsigned i)
{
    char id[16];

    (void)snprintf(id, sizeof(id), "r%u", i);
    return client_find(f->shards[0], span_str(id));
}

/* Its connection holds so much that does not leave. */
static void hold(struct fixture *f, unsigned i, size_t n)
{
    struct client *c = session(f, i);
    uint8_t *bytes = calloc(1, n);

    UNIT_NEED(c != NULL && bytes != NULL && conn_out_copy(&c->link->conn, bytes, n));
    free(bytes);
}

static void press(struct fixture *f, bool on)
{
    atomic_store(&f->shared.memory_pressure, on);
}

static uint32_t buckets_before(const struct shard *sh, const struct clients_walk *w)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < w->segment; i++) {
        n += sh->clients[i].cap;
    }
    return w->segment < CLIENT_SEGMENTS && w->cap == sh->clients[w->segment].cap ? n + w->at : n;
}

/* ---- tests ---- */

/* All sessions are looked at, never more than a slice in one turn, and the worst goes. */
static void test_slices(void)
{
    enum { SESSIONS = 20000 };
    struct fixture f;
    struct shard *sh;
    unsigned turns = 0;
    uint32_t at = 0;

    open_with(&f, SESSIONS);
    sh = f.shards[0];
    f.shared.clock = &my_clock;
    takes_output = false;
    hold(&f, 7, LIMIT * 2);
    hold(&f, 4711, LIMIT * 3);
    hold(&f, 19999, LIMIT - 1);
    press(&f, true);
    take_turn(sh, 0); /* the round begins */
    CU_ASSERT_FALSE(sh->relief.looking);
    now_ms += PAUSE_MAX_MS;
    do {
        take_turn(sh, 0);
        turns++;
        CU_ASSERT(buckets_before(sh, &sh->relief.walk) - at <= 4096);
        at = buckets_before(sh, &sh->relief.walk);
        CU_ASSERT(!sh->relief.looking || sh->work_left); /* no waiting in between */
    } while (sh->relief.looking && turns < 1000);
    CU_ASSERT(turns >= SESSIONS / 4096);
    CU_ASSERT_EQUAL(at, buckets_before(sh, &(struct clients_walk){.segment = CLIENT_SEGMENTS}));
    CU_ASSERT_PTR_NULL(session(&f, 4711));
    CU_ASSERT_PTR_NOT_NULL(session(&f, 7));
    CU_ASSERT_EQUAL(metric_get(&sh->metrics, METRIC_SLOW_CONSUMERS_CLOSED), 1);
    press(&f, false);
    take_turn(sh, 0);
    CU_ASSERT_EQUAL(sh->relief.since_ms, 0);
    close_shards(&f);
}

/* Who reads is left alone, until the pressure has lasted long; who had gone when all were seen is
 * not looked up. */
static void test_readers(void)
{
    struct fixture f;
    struct shard *sh;

    open_with(&f, 100);
    sh = f.shards[0];
    f.shared.clock = &my_clock;
    takes_output = false;
    hold(&f, 7, LIMIT * 2);
    press(&f, true);
    take_turn(sh, 0);
    for (unsigned i = 0; i < 9; i++) { /* bytes leave in each round */
        now_ms += PAUSE_MAX_MS;
        session(&f, 7)->link->moved_round = sh->relief.round & (RELIEF_ROUNDS - 1u);
        take_turn(sh, 0);
        UNIT_NEED(session(&f, 7) != NULL);
    }
    now_ms += 2 * PAUSE_MAX_MS;
    session(&f, 7)->link->moved_round = sh->relief.round & (RELIEF_ROUNDS - 1u);
    take_turn(sh, 0);
    CU_ASSERT_PTR_NULL(session(&f, 7));
    close_shards(&f);
}

/* A table that grows in the middle of a look: nobody is missed. */
static void test_table_grows(void)
{
    enum { SESSIONS = 20000 };
    struct fixture f;
    struct shard *sh;
    unsigned turns = 0;

    open_with(&f, SESSIONS);
    sh = f.shards[0];
    f.shared.clock = &my_clock;
    takes_output = false;
    hold(&f, 5, LIMIT * 2);
    press(&f, true);
    take_turn(sh, 0);
    now_ms += PAUSE_MAX_MS;
    do {
        give_many(&f, SESSIONS + turns * 4000, 4000);
        take_turn(sh, 0);
    } while (sh->relief.looking && ++turns < 1000);
    UNIT_NEED(turns > 1);
    CU_ASSERT_PTR_NULL(session(&f, 5));
    CU_ASSERT_EQUAL(metric_get(&sh->metrics, METRIC_SLOW_CONSUMERS_CLOSED), 1);
    close_shards(&f);
}

/* However many sessions there are, a new one moves few of them. */
static void test_growth_moves_few(void)
{
    enum { SESSIONS = 200000 };
    struct fixture f;
    struct shard *sh;
    struct clients_walk walk = {0};
    struct client *c;
    uint32_t caps[CLIENT_SEGMENTS] = {0};
    uint32_t seen = 0;
    uint32_t most = 0;
    char id[16];

    open_shards(&f, 1);
    sh = f.shards[0];
    for (unsigned i = 0; i < SESSIONS; i++) {
        uint32_t moved = 0;

        (void)snprintf(id, sizeof(id), "r%u", i);
        UNIT_NEED(client_create(sh, span_str(id)) != NULL);
        for (unsigned k = 0; k < CLIENT_SEGMENTS; k++) {
            moved += sh->clients[k].cap != caps[k] ? sh->clients[k].n : 0;
            caps[k] = sh->clients[k].cap;
        }
        most = moved > most ? moved : most;
    }
    CU_ASSERT(most <= SESSIONS / 128);
    CU_ASSERT_EQUAL(sh->clients_n, SESSIONS);
    while (clients_walk_next(sh, &walk, &c)) {
        for (; c != NULL; c = c->hash_next) {
            seen++;
        }
    }
    CU_ASSERT_EQUAL(seen, SESSIONS);
    for (unsigned i = 0; i < SESSIONS; i += 7) {
        CU_ASSERT_PTR_NOT_NULL(session(&f, i));
    }
    close_shards(&f);
}

/* Of this thread. */
static double cpu_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

/* CPU for the end of n connections; in_lists: they are all ready and written to, and half of them
 * left unread. */
static double end_of(unsigned n, bool in_lists)
{
    struct fixture f;
    struct shard *sh;
    double begin;

    open_with(&f, n);
    sh = f.shards[0];
    for (unsigned i = 0; in_lists && i < n; i++) {
        struct link *l = session(&f, i)->link;
        link_ready(sh, l);
        link_dirty(sh, l);
        if (i % 2 == 0) {
            link_pause(sh, l, INT64_MAX);
        }
    }
    begin = cpu_ms();
    shard_close_clients(sh, RC_SERVER_SHUTTING_DOWN);
    begin = cpu_ms() - begin;
    CU_ASSERT_EQUAL(atomic_load(&f.listener.connections), 0);
    take_turn(sh, 0); /* takes what is left of them off the lists */
    CU_ASSERT(sh->ready == NULL && sh->dirty == NULL && sh->paused == NULL);
    close_shards(&f);
    return begin;
}

/* Lists of the turn make no difference. Looked for in each, it was a hundred times as much. */
static void test_many_ends(void)
{
    const double alone = end_of(20000, false);
    const double in_lists = end_of(20000, true);

    CU_ASSERT(in_lists < alone * 10);
}

UNIT_TESTS = {
    UNIT_TEST(slices)
    UNIT_TEST(readers)
    UNIT_TEST(table_grows)
    UNIT_TEST(growth_moves_few)
    UNIT_TEST(many_ends)
UNIT_TESTS_END
