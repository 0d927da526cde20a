/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shards that move from thread to thread all the time, each millisecond if they can: no message
 * and no wake-up is lost meanwhile, paused work goes on, and a stop ends it in any state.
 */
#include "server/shard/lodge.h"

#include <stdatomic.h>

static _Atomic unsigned moves; /* relaxed: a count for the end */

/* A host gets rid of its guests every third time it looks. */
static bool is_full_now(void)
{
    return atomic_fetch_add_explicit(&moves, 1, memory_order_relaxed) % 3 == 2;
}

#undef LODGE_PERIOD_MS
#define LODGE_PERIOD_MS                1
#define lodge_gauge_sent_home(g, full) ((void)(g), (void)(full))
#define lodge_fits(g, load, host)      ((void)(load), (void)(host), true)
#define lodge_is_full(load, pressed)   ((void)(load), (void)(pressed), is_full_now())
#include "server/shard/lodge.c"
#undef lodge_fits
#undef lodge_is_full
#undef lodge_gauge_sent_home

#include "tests/unit/shard/fixture.h"

#define PAIRS   4u
#define WAIT_MS 20000 /* for a message: longer than any machine takes, less than for ever */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROUNDS 600u
#define STARTS 30u
#else
#define ROUNDS 2000u
#define STARTS 100u
#endif

struct receiver {
    int fd;
    uint8_t in[512];
    size_t n;
    unsigned publishes, subacks;
};

struct pair {
    int publisher;
    char topic[16];
    struct receiver subscriber;
};

static void read_packets(struct receiver *p)
{
    ssize_t got = recv(p->fd, p->in + p->n, sizeof(p->in) - p->n, 0);
    const char *why;
    struct frame f;
    size_t at = 0;

    UNIT_NEED(got > 0 || errno == EAGAIN);
    p->n += got > 0 ? (size_t)got : 0;
    while (frame_next(span_of(p->in + at, p->n - at), 256, &f, &why) == FRAME_OK) {
        at += f.total;
        p->publishes += f.type == MQTT_PUBLISH;
        p->subacks += f.type == MQTT_SUBACK;
    }
    memmove(p->in, p->in + at, p->n - at);
    p->n -= at;
}

static void wait_for(struct receiver *p, const unsigned *count, unsigned wanted)
{
    struct pollfd fd = {.fd = p->fd, .events = POLLIN};

    while (*count < wanted) {
        UNIT_NEED(poll(&fd, 1, WAIT_MS) == 1); /* else a wake-up was lost */
        read_packets(p);
    }
}

/* All four ways: within a shard and across. */
static void connect_pairs(struct fixture *f, struct pair *pairs)
{
    char id[32];

    for (unsigned i = 0; i < PAIRS; i++) {
        struct pair *p = &pairs[i];
        *p = (struct pair){0};
        (void)snprintf(p->topic, sizeof(p->topic), "pair/%u", i);
        id_of(f, i % 2, i, id, sizeof(id));
        p->subscriber.fd = connect_pair(f, id, p->topic);
        id_of(f, i / 2, i + PAIRS, id, sizeof(id));
        p->publisher = connect_pair(f, id, NULL);
        wait_for(&p->subscriber, &p->subscriber.subacks, 1);
    }
}

static void publish(const struct pair *p)
{
    uint8_t bytes[64];
    size_t n = message(bytes, p->topic);

    UNIT_NEED(send(p->publisher, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
}

static void start_shards(struct fixture *f)
{
    open_shards(f, SHARDS);
    rcu_offline();
    for (unsigned i = 0; i < SHARDS; i++) {
        UNIT_NEED(shard_start(f->shards[i]));
    }
}

static void stop_shards(struct fixture *f, unsigned first)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        shard_ask_to_stop(f->shards[(first + i) % SHARDS]);
    }
    for (unsigned i = 0; i < SHARDS; i++) {
        shard_join(f->shards[i]);
        CU_ASSERT_EQUAL(f->shards[i]->lodge.nguests, 0);
        CU_ASSERT_EQUAL(f->shards[i]->lodge.place, LODGE_HOME);
    }
    rcu_online();
    close_shards(f);
}

static void close_pairs(struct pair *pairs)
{
    for (unsigned i = 0; i < PAIRS; i++) {
        close(pairs[i].publisher);
        close(pairs[i].subscriber.fd);
    }
}

static void pause_us(unsigned us)
{
    struct timespec ts = {0, (long)us * 1000};

    (void)nanosleep(&ts, NULL);
}

/* Mail of a thread that is no shard's, to shards that sleep. */
static void publish_from_outside(struct fixture *f, const struct pair *p, unsigned shard)
{
    struct message *m = message_create(p->topic, strlen(p->topic), "outside.", 8, NULL, 0);

    UNIT_NEED(m != NULL);
    shard_publish(f->shards[shard], m);
}

static void test_nothing_is_lost(void)
{
    static struct pair pairs[PAIRS];
    struct fixture f;

    start_shards(&f);
    connect_pairs(&f, pairs);
    for (unsigned k = 1; k <= ROUNDS; k++) {
        for (unsigned i = 0; i < PAIRS; i++) {
            if (k % 3 == 0) {
                publish_from_outside(&f, &pairs[i], 1);
            } else {
                publish(&pairs[i]);
            }
        }
        for (unsigned i = 0; i < PAIRS; i++) {
            wait_for(&pairs[i].subscriber, &pairs[i].subscriber.publishes, k);
        }
        pause_us(k % 8 == 0 ? 50 * (k % 64) : 0);
    }
    printf("%u rounds, %u looks of a host with a guest\n", ROUNDS,
           atomic_load_explicit(&moves, memory_order_relaxed));
    CU_ASSERT(atomic_load_explicit(&moves, memory_order_relaxed) > 30);
    stop_shards(&f, 0);
    close_pairs(pairs);
}

/* At home, asking, away, on the way home: whatever the moment finds. */
static void test_stops_in_any_state(void)
{
    static struct pair pairs[PAIRS];
    struct fixture f;

    for (unsigned k = 0; k < STARTS; k++) {
        start_shards(&f);
        connect_pairs(&f, pairs);
        for (unsigned i = 0; i < k % 7; i++) {
            publish(&pairs[i % PAIRS]);
            pause_us(100 * (k % 16));
        }
        stop_shards(&f, k % 2);
        close_pairs(pairs);
    }
    CU_PASS("no stop waits for ever");
}

/* Who sends without reading its answers is paused by the clock alone; a guest's clock runs, also
 * when its host never sleeps. */
static bool is_due(struct shard *guest, int64_t later_ms)
{
    guest->lodge.turn_ms = guest->now_ms;
    guest->now_ms += later_ms;
    return has_turn(guest);
}

static void test_a_guest_has_its_time(void)
{
    struct fixture f;
    struct link l = {.pause_until_ms = INT64_MAX};

    open_shards(&f, SHARDS);
    CU_ASSERT_FALSE(is_due(f.shards[1], 0));
    f.shards[1]->paused = &l;
    CU_ASSERT_FALSE(is_due(f.shards[1], 1));
    CU_ASSERT_TRUE(is_due(f.shards[1], TIMER_TICK_MS));
    f.shards[1]->paused = NULL;
    f.shards[1]->work_left = true;
    CU_ASSERT_TRUE(is_due(f.shards[1], 0));
    f.shards[1]->work_left = false;
    close_shards(&f);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(nothing_is_lost)
    UNIT_TEST(stops_in_any_state)
    UNIT_TEST(a_guest_has_its_time)
UNIT_TESTS_END
