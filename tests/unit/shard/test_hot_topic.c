/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deliveries that take more than a turn. One shard with 100,000 subscribers of one topic that is
 * published without pause: the other clients' messages still arrive in time. And subscribers that
 * go and come while a message is on its way to them.
 *
 * The subscribers are connections without a socket, whose transport swallows what is written, since
 * no process has so many descriptors; the clients that are timed have socket pairs.
 */
#include "tests/unit/shard/fixture.h"

#define PAIRS   10u
#define TURNS   800u
#define SAMPLES (PAIRS * TURNS)
#define MESSAGE 15u /* bytes of one to "hot" */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SUBSCRIBERS 5000u /* they stretch time and memory */
#define WORST_MS    1000.0
#else
#define SUBSCRIBERS 100000u
#define WORST_MS    50.0
#endif

/* ---- the transport ---- */

static _Atomic uint64_t swallowed; /* relaxed: a count for the end */

static ssize_t nothing_read(struct conn *c, void *p, size_t n)
{
    (void)c;
    (void)p;
    (void)n;
    errno = EAGAIN;
    return -1;
}

static ssize_t swallow(struct conn *c, const struct iovec *iov, int n)
{
    size_t sum = 0;

    (void)c;
    for (int i = 0; i < n; i++) {
        sum += iov[i].iov_len;
    }
    atomic_fetch_add_explicit(&swallowed, sum, memory_order_relaxed);
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
    .writev = swallow,
    .has_pending = never_pending,
    .shutdown = no_end,
    .fini = no_end,
};

/* ---- clients with sockets ---- */

/* A client that publishes to itself, one message at a time. */
struct pinger {
    int fd;
    char topic[16];
    uint8_t in[256];
    size_t n;
    double sent_ms;
};

struct samples {
    double *ms;
    size_t n;
};

/* Of this thread: what else the machine does is not this shard's doing. */
static double cpu_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void ping(struct pinger *p)
{
    uint8_t bytes[64];
    size_t n = message(bytes, p->topic);

    p->sent_ms = cpu_ms();
    UNIT_NEED(send(p->fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
}

static void serve(struct pinger *p, struct samples *s)
{
    ssize_t got = recv(p->fd, p->in + p->n, sizeof(p->in) - p->n, 0);
    const char *why;
    struct frame f;
    size_t at = 0;

    UNIT_NEED(got > 0 || errno == EAGAIN);
    p->n += got > 0 ? (size_t)got : 0;
    while (frame_next(span_of(p->in + at, p->n - at), 256, &f, &why) == FRAME_OK) {
        at += f.total;
        if (f.type == MQTT_PUBLISH) {
            UNIT_NEED(s->n < SAMPLES);
            s->ms[s->n++] = cpu_ms() - p->sent_ms;
            ping(p);
        }
    }
    memmove(p->in, p->in + at, p->n - at);
    p->n -= at;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The topic is never without a message to deliver. */
static void flood(const struct shard *sh, int fd)
{
    uint8_t bytes[64];
    size_t n = message(bytes, "hot");

    if (sh->jobs == NULL || sh->jobs->job_next == NULL) {
        UNIT_NEED(send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
    }
}

static void subscribe(struct fixture *f, unsigned shard, unsigned from, unsigned n)
{
    uint64_t wanted = metric_get(shard_metrics(f->shards[shard]), METRIC_SUBSCRIPTIONS) + n;
    char id[32];

    for (unsigned k = from; k < from + n; k++) {
        id_of(f, shard, k, id, sizeof(id));
        give(f, -1, &transport_sink, id, "hot");
    }
    while (metric_get(shard_metrics(f->shards[shard]), METRIC_SUBSCRIPTIONS) < wanted) {
        turn(f->shards[shard]);
    }
}

static void test_others_are_served(void)
{
    static struct pinger pingers[PAIRS];
    struct fixture f;
    struct samples s = {.ms = malloc(SAMPLES * sizeof(double))};
    uint64_t delivered;
    int hot;

    UNIT_NEED(s.ms != NULL);
    open_shards(&f, 1);
    for (unsigned i = 0; i < PAIRS; i++) {
        (void)snprintf(pingers[i].topic, sizeof(pingers[i].topic), "own/%u", i);
        pingers[i].fd = connect_pair(&f, pingers[i].topic, pingers[i].topic);
    }
    hot = connect_pair(&f, "publisher", NULL);
    subscribe(&f, 0, 0, SUBSCRIBERS);
    delivered = atomic_load_explicit(&swallowed, memory_order_relaxed);
    for (unsigned i = 0; i < PAIRS; i++) {
        ping(&pingers[i]);
    }
    for (unsigned k = 0; k < TURNS; k++) {
        flood(f.shards[0], hot);
        turn(f.shards[0]);
        for (unsigned i = 0; i < PAIRS; i++) {
            serve(&pingers[i], &s);
        }
    }
    delivered = (atomic_load_explicit(&swallowed, memory_order_relaxed) - delivered) / MESSAGE;
    qsort(s.ms, s.n, sizeof(double), by_value);
    UNIT_NEED(s.n > 100);
    printf("%zu round trips beside %llu deliveries: p50 %.2f ms of CPU, p99 %.2f, worst %.2f\n",
           s.n, (unsigned long long)delivered, s.ms[s.n / 2], s.ms[s.n * 99 / 100], s.ms[s.n - 1]);
    CU_ASSERT(s.ms[s.n * 99 / 100] < WORST_MS);
    CU_ASSERT(delivered > TURNS * (uint64_t)TURN_JOBS / 2); /* it was hot */
    close(hot);
    for (unsigned i = 0; i < PAIRS; i++) {
        close(pingers[i].fd);
    }
    close_shards(&f);
    free(s.ms);
}

/* ---- subscribers that go and come ---- */

static void leave(struct fixture *f, unsigned shard, unsigned from, unsigned n)
{
    char id[32];

    for (unsigned k = from; k < from + n; k++) {
        struct client *c;
        id_of(f, shard, k, id, sizeof(id));
        c = client_find(f->shards[shard], span_str(id));
        UNIT_NEED(c != NULL && c->link != NULL);
        link_close(f->shards[shard], c->link, RC_SUCCESS, NULL);
    }
    reap_doomed(f->shards[shard]);
    while (client_bury(f->shards[shard])) {}
}

#define MANY (4u * TURN_JOBS)

/*
 * All of shard 0 leave while a message is on its way through them, and some come back; shard 1
 * keeps the filter and so its id. The message is not for those who came later, and the next one is.
 */
static void test_subscribers_go_and_come(void)
{
    struct fixture f;
    char id[32];
    uint8_t bytes[64];
    size_t n = message(bytes, "hot");
    uint64_t before;
    int publisher;

    open_shards(&f, 2);
    subscribe(&f, 1, 0, 1);
    subscribe(&f, 0, 0, MANY);
    for (unsigned k = MANY; k < MANY + 3; k++) {
        id_of(&f, 0, k, id, sizeof(id));
        give(&f, -1, &transport_sink, id, NULL);
    }
    id_of(&f, 0, MANY + 10, id, sizeof(id));
    publisher = connect_pair(&f, id, NULL);
    turn(f.shards[0]);
    before = atomic_load_explicit(&swallowed, memory_order_relaxed);
    UNIT_NEED(send(publisher, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
    turn(f.shards[0]);
    UNIT_NEED(f.shards[0]->jobs != NULL); /* under way */
    leave(&f, 0, 0, MANY);
    for (unsigned k = MANY; k < MANY + 3; k++) { /* in the same turn */
        id_of(&f, 0, k, id, sizeof(id));
        UNIT_NEED(subscription_restore(f.shards[0], client_find(f.shards[0], span_str(id)),
                                       span_str("hot"), 0, 0));
    }
    UNIT_NEED(f.shards[0]->jobs != NULL);
    while (f.shards[0]->jobs != NULL) {
        turn(f.shards[0]);
    }
    before = atomic_load_explicit(&swallowed, memory_order_relaxed) - before;
    CU_ASSERT(before > 0 && before < MANY * n);
    before = atomic_load_explicit(&swallowed, memory_order_relaxed);
    UNIT_NEED(send(publisher, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
    turn(f.shards[0]);
    turn(f.shards[0]);
    CU_ASSERT_EQUAL(atomic_load_explicit(&swallowed, memory_order_relaxed) - before, 3 * n);
    close(publisher);
    close_shards(&f);
}

/* To another shard, whose subscribers take several turns: what they get outlives what it came in.
 */
static void test_many_on_another_shard(void)
{
    struct fixture f;
    char id[32];
    uint8_t bytes[64];
    size_t n = message(bytes, "hot");
    uint64_t before;
    int publisher;

    open_shards(&f, 2);
    subscribe(&f, 1, 0, MANY);
    id_of(&f, 0, 0, id, sizeof(id));
    publisher = connect_pair(&f, id, NULL);
    turn(f.shards[0]);
    before = atomic_load_explicit(&swallowed, memory_order_relaxed);
    UNIT_NEED(send(publisher, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
    UNIT_NEED(send(publisher, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
    turn(f.shards[0]);
    turn(f.shards[1]);
    UNIT_NEED(f.shards[1]->jobs != NULL);
    while (f.shards[1]->jobs != NULL) {
        turn(f.shards[1]);
    }
    CU_ASSERT_EQUAL(atomic_load_explicit(&swallowed, memory_order_relaxed) - before,
                    2ull * MANY * n);
    close(publisher);
    close_shards(&f);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(others_are_served)
    UNIT_TEST(subscribers_go_and_come)
    UNIT_TEST(many_on_another_shard)
UNIT_TESTS_END
