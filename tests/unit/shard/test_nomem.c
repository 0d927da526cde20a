/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The n-th allocation of the shards fails, n = 1, 2, ... until a run stays clean: two versions of
 * the protocol, durable and clean sessions on three shards, publishes of each QoS across them,
 * takeover, shared groups, retained messages, a will, ends of sessions and connections, and a
 * restart of the broker. Whatever fails, nothing that was acknowledged is lost, a message of QoS 2
 * comes once to those whose sessions last, and one connection ends at most.
 *
 * NOCTULE_NOMEM=all tries every n, NOCTULE_NOMEM=17 that one; else a part of them is tried, another
 * one each time.
 */
#define SHARDS 3u

#include "server/shard/restore.h"
#include "server/shard/ticket.h"
#include "tests/support/tmpdir.h"
#include "tests/unit/shard/user.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#define WAIT_MS     60000
#define PATIENCE_MS 5000 /* before a message is called lost */
#define STRIDE      12u
#define WINDOW      3u
#define USERS       (sizeof(((struct world *)0)->all) / sizeof(struct user))

/* Who must get a message, by its topic, when it is published. */
struct due {
    bool to[8];
    bool to_group;
};

struct world {
    struct fixture f;
    struct tmpdir dir;
    union {
        struct user all[8];
        struct {
            struct user plain;   /* publishes; clean, 3.1.1 */
            struct user lasting; /* publishes; durable, 5.0 */
            struct user a;       /* durable, 3.1.1: two filters that overlap */
            struct user b;       /* durable, 5.0: likewise, with identifiers */
            struct user c;       /* clean, 3.1.1 */
            struct user d;       /* clean, 5.0, with a will; then absent */
            struct user s0, s1;  /* durable: a shared group over two shards */
        };
    };
    unsigned published;
    struct due due[MESSAGES];
    bool is_once[MESSAGES]; /* QoS 2 from who has a session */
};

/* ---- turns ---- */

static void round_once(struct world *w)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *sh = w->f.shards[i];
        take_turn(sh, loop_wait(&sh->loop, 0));
        rcu_quiescent();
    }
    for (unsigned i = 0; i < USERS; i++) {
        user_look(&w->all[i], &w->f);
    }
}

/* What it has on disk is coming. */
static bool reads_back(struct world *w, const struct user *u)
{
    struct shard *sh = w->f.shards[broker_shard_of(&w->f.shared, span_str(u->id))];
    const struct client *c = client_find(sh, span_str(u->id));

    return c != NULL && c->link != NULL && c->out != NULL &&
           (c->out->disk.page != NULL || c->out->disk.count > 0);
}

static bool is_quiet(struct world *w)
{
    struct store_stats stats;

    for (unsigned i = 0; i < USERS; i++) {
        if (!user_is_done(&w->all[i]) || reads_back(w, &w->all[i])) {
            return false;
        }
    }
    for (unsigned i = 0; i < SHARDS; i++) {
        const struct shard *sh = w->f.shards[i];
        if (shard_has_mail(sh) || sh->work_left || sh->held != NULL || sh->lazy != NULL ||
            sh->chain.n > 0 || sh->paused != NULL || sh->replays != NULL) {
            return false;
        }
    }
    store_stats(w->f.shared.store, &stats);
    return stats.pending == 0;
}

/* Until everything that was asked for is answered and nothing moves. */
static void settle(struct world *w)
{
    const int64_t until = clock_now_ms(&clock_system) + WAIT_MS;
    unsigned quiet = 0;

    while (quiet < 4) {
        round_once(w);
        quiet = is_quiet(w) ? quiet + 1 : 0;
        UNIT_NEED(clock_now_ms(&clock_system) < until);
    }
}

/* ---- the ledger ---- */

static bool subscribes(const struct user *u, const char *filter)
{
    for (unsigned i = 0; i < USER_SUBS; i++) {
        if (u->subs[i].state == SUB_THERE && strcmp(u->subs[i].filter, filter) == 0) {
            return true;
        }
    }
    return false;
}

static void publish(struct world *w, struct user *from, struct user_pub p)
{
    const unsigned number = w->published++;
    struct due *due = &w->due[number];

    for (unsigned i = 0; i < USERS; i++) {
        const struct user *u = &w->all[i];
        due->to[i] = p.qos > 0 && u->durable && p.topic[0] != 's' &&
                     subscribes(u, p.topic[0] == 't' ? "t/#" : "r/#");
    }
    due->to_group = p.qos > 0 && p.topic[0] == 's';
    w->is_once[number] = p.qos == 2 && from == &w->lasting;
    user_publish(from, number, p);
}

static const struct user_pub *pub_of(const struct world *w, unsigned number)
{
    const struct user_pub *p = &w->lasting.pubs[number];

    return p->topic != NULL ? p : &w->plain.pubs[number];
}

/* It did not come to somebody who had to get it; who: as text. */
static bool is_lost(const struct world *w, unsigned number, const char **who)
{
    const struct user_pub *p = pub_of(w, number);
    const struct due *due = &w->due[number];

    for (unsigned i = 0; p->acked && i < USERS; i++) {
        if (due->to[i] && w->all[i].got[number] == 0) {
            *who = w->all[i].id;
            return true;
        }
    }
    *who = "the group";
    return p->acked && due->to_group && w->s0.got[number] + w->s1.got[number] == 0;
}

static bool any_is_lost(const struct world *w)
{
    const char *who;

    for (unsigned i = 0; i < w->published; i++) {
        if (is_lost(w, i, &who)) {
            return true;
        }
    }
    return false;
}

static void check_message(const struct world *w, unsigned number)
{
    const struct user_pub *p = pub_of(w, number);
    const char *who;

    CU_ASSERT(p->qos == 0 || p->acked || p->refused);
    if (is_lost(w, number, &who)) {
        fprintf(stderr, "message %u (%s) did not come to %s\n", number, p->topic, who);
        CU_FAIL("an acknowledged message is lost");
    }
    for (unsigned i = 0; i < USERS && w->is_once[number]; i++) {
        if (w->due[number].to[i] && w->all[i].got[number] > 1) {
            fprintf(stderr, "message %u (%s) came twice to %s\n", number, p->topic, w->all[i].id);
            CU_FAIL("a message of QoS 2 came twice");
        }
    }
}

/* ---- the scenario ---- */

static void name(struct world *w, struct user *u, unsigned shard, bool durable,
                 enum mqtt_version version)
{
    id_of(&w->f, shard, (unsigned)(u - w->all), u->id, sizeof(u->id));
    u->fd = -1;
    u->version = version;
    u->durable = durable;
    u->clean = !durable;
    u->stays = true;
}

static void open_broker(struct world *w)
{
    open_shards_in(&w->f, SHARDS, w->dir.path);
    w->f.config->max_inflight_messages = WINDOW;
    w->f.config->retained_memory_size = 1024;
    w->f.config->persistence = true;
}

static void open_world(struct world *w)
{
    memset(w, 0, sizeof(*w));
    if (access("/dev/shm", W_OK) == 0) { /* hundreds of stores: the disk is not what is tested */
        (void)setenv("TMPDIR", "/dev/shm", 0);
    }
    tmpdir_make(&w->dir);
    open_broker(w);
    name(w, &w->plain, 0, false, MQTT_3_1_1);
    name(w, &w->lasting, 1, true, MQTT_5);
    name(w, &w->a, 0, true, MQTT_3_1_1);
    name(w, &w->b, 1, true, MQTT_5);
    name(w, &w->c, 1, false, MQTT_3_1_1);
    name(w, &w->d, 2, false, MQTT_5);
    name(w, &w->s0, 0, true, MQTT_3_1_1);
    name(w, &w->s1, 2, true, MQTT_5);
    w->d.will = "t/will";
    w->a.subs[0] = (struct user_sub){.filter = "t/#", .qos = 2};
    w->a.subs[1] = (struct user_sub){.filter = "t/+", .qos = 1};
    w->a.subs[2] = (struct user_sub){.filter = "r/#", .qos = 2};
    w->b.subs[0] = (struct user_sub){.filter = "t/#", .qos = 2, .id = 7};
    w->b.subs[1] = (struct user_sub){.filter = "t/+", .qos = 2, .id = 8};
    w->c.subs[0] = (struct user_sub){.filter = "t/#", .qos = 1};
    w->d.subs[0] = (struct user_sub){.filter = "r/#", .qos = 1};
    w->s0.subs[0] = (struct user_sub){.filter = "$share/g/s", .qos = 2};
    w->s1.subs[0] = (struct user_sub){.filter = "$share/g/s", .qos = 2};
}

static void connect_all(struct world *w)
{
    for (unsigned i = 0; i < USERS; i++) {
        user_connect(&w->all[i], &w->f);
    }
    settle(w);
}

static void subscribe_all(struct world *w)
{
    for (unsigned i = 0; i < USERS; i++) {
        for (unsigned k = 0; k < USER_SUBS; k++) {
            if (w->all[i].subs[k].filter != NULL && w->all[i].subs[k].filter[0] != 'r') {
                user_want(&w->all[i], k, SUB_WANTED);
            }
        }
    }
    settle(w);
}

static void publish_each(struct world *w, const char *topic)
{
    for (uint8_t qos = 0; qos <= 2; qos++) {
        publish(w, &w->plain, (struct user_pub){.topic = topic, .qos = qos});
        publish(w, &w->lasting, (struct user_pub){.topic = topic, .qos = qos});
    }
    publish(w, &w->lasting, (struct user_pub){.topic = topic, .qos = 1, .large = true});
    settle(w);
}

static void retain(struct world *w)
{
    publish(w, &w->plain, (struct user_pub){.topic = "r/1", .qos = 1, .retain = true});
    publish(w, &w->lasting,
            (struct user_pub){.topic = "r/2", .qos = 2, .retain = true, .large = true});
    settle(w);
    user_want(&w->a, 2, SUB_WANTED);
    user_want(&w->d, 0, SUB_WANTED);
    settle(w);
}

static void publish_shared(struct world *w, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        publish(w, i % 2 == 0 ? &w->plain : &w->lasting,
                (struct user_pub){.topic = "s", .qos = (uint8_t)(1 + i % 2)});
    }
    settle(w);
}

/* s0 comes with a session, or with an end of it. */
static void come(struct world *w, bool durable)
{
    w->s0.clean = !durable;
    w->s0.durable = durable;
    user_connect(&w->s0, &w->f);
    settle(w);
}

/* A member with a full window goes, then its session ends; a session ends that has all on disk; a
 * member with a full window unsubscribes. */
static void shared(struct world *w)
{
    w->s0.mute = true;
    user_leave(&w->s1);
    settle(w);
    publish_shared(w, WINDOW + 3);
    user_connect(&w->s1, &w->f);
    settle(w);
    user_leave(&w->s0);
    settle(w);
    w->s0.mute = false;
    come(w, false);
    user_leave(&w->s0);
    come(w, true);
    user_leave(&w->s0);
    user_leave(&w->s1);
    settle(w);
    publish_shared(w, 6);
    come(w, false);
    publish_shared(w, 2);
    user_leave(&w->s0);
    come(w, true);
    w->s0.mute = true;
    publish_shared(w, WINDOW + 3);
    user_connect(&w->s1, &w->f);
    settle(w);
    user_want(&w->s0, 0, SUB_UNWANTED);
    w->s0.mute = false;
    settle(w);
}

/* Messages wait in memory behind the window, QoS 2 among them for the record of their ids. */
static void lag(struct world *w)
{
    w->a.mute = true;
    for (unsigned i = 0; i < 2 * WINDOW + 2; i++) {
        publish(w, i % 2 == 0 ? &w->plain : &w->lasting,
                (struct user_pub){.topic = "t/2", .qos = i < 2 ? 1 : 2});
        if (i % 4 == 3) { /* the publisher's own window */
            settle(w);
        }
    }
    w->a.mute = false;
    user_connect(&w->a, &w->f);
    settle(w);
}

/* Their messages go to disk, and come back from there. */
static void be_absent(struct world *w)
{
    user_leave(&w->a);
    user_leave(&w->b);
    settle(w);
    publish_each(w, "t/3");
    user_connect(&w->a, &w->f);
    user_connect(&w->b, &w->f);
    settle(w);
}

static void leave_and_end(struct world *w)
{
    static const uint8_t expiry_0[] = {0xe0, 7, 0, 5, PROP_SESSION_EXPIRY, 0, 0, 0, 0};

    user_leave(&w->d); /* its will is sent */
    settle(w);
    user_want(&w->b, 1, SUB_UNWANTED);
    settle(w);
    user_leave(&w->a);
    user_leave(&w->b);
    settle(w);
    publish_each(w, "t/4"); /* for the next start */
    w->lasting.stays = false;
    user_send(&w->lasting, expiry_0, sizeof(expiry_0));
    for (unsigned i = 0; i < 10; i++) {
        round_once(w);
    }
    user_leave(&w->lasting);
    settle(w);
}

static void play(struct world *w)
{
    connect_all(w);
    subscribe_all(w);
    publish_each(w, "t/1");
    user_connect(&w->a, &w->f); /* takes over */
    user_connect(&w->plain, &w->f);
    publish_each(w, "t/2");
    retain(w);
    publish_each(w, "s");
    shared(w);
    lag(w);
    be_absent(w);
    leave_and_end(w);
}

/* ---- a run ---- */

static bool holds_messages(const struct world *w)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < SHARDS; i++) {
        n += w->f.shards[i]->nmessages;
    }
    return n > 0;
}

static void check_shards(const struct world *w)
{
    int64_t queued = 0;
    int64_t bytes = 0;

    for (unsigned i = 0; i < SHARDS; i++) {
        const struct metrics *m = shard_metrics(w->f.shards[i]);
        queued += (int64_t)metric_get(m, METRIC_QUEUED_MESSAGES);
        bytes += (int64_t)metric_get(m, METRIC_QUEUED_BYTES);
    }
    CU_ASSERT(!holds_messages(w));
    CU_ASSERT_EQUAL(queued, 0);
    CU_ASSERT_EQUAL(bytes, 0);
}

/* What the store's threads read comes when it comes. */
static void await_messages(struct world *w)
{
    const int64_t until = clock_now_ms(&clock_system) + PATIENCE_MS;

    while ((any_is_lost(w) || holds_messages(w)) && clock_now_ms(&clock_system) < until) {
        (void)poll(NULL, 0, 2);
        settle(w);
    }
}

static void check_ends(const struct world *w)
{
    unsigned ends = 0;

    for (unsigned i = 0; i < USERS; i++) {
        ends += w->all[i].ends;
    }
    CU_ASSERT(ends <= 1);
}

static void restart(struct world *w)
{
    struct restored sum;

    for (unsigned i = 0; i < USERS; i++) {
        user_leave(&w->all[i]);
    }
    settle(w);
    close_shards(&w->f);
    open_broker(w);
    UNIT_NEED(shards_restore(&w->f.shared, &sum) == ST_OK);
    for (unsigned i = 0; i < USERS; i++) {
        if (&w->all[i] != &w->lasting) {
            user_connect(&w->all[i], &w->f);
        }
    }
    settle(w);
    await_messages(w);
}

static void check_world(const struct world *w)
{
    for (unsigned i = 0; i < w->published; i++) {
        check_message(w, i);
    }
    check_shards(w);
}

static void close_world(struct world *w)
{
    for (unsigned i = 0; i < USERS; i++) {
        user_leave(&w->all[i]);
    }
    close_shards(&w->f);
    tmpdir_remove(&w->dir);
}

/* Whether an allocation was failed. */
static bool run_with(unsigned n)
{
    static struct world w;
    const unsigned failures = CU_get_number_of_failures();
    bool failed;

    open_world(&w);
    fault_set(n);
    play(&w);
    failed = fault_clear();
    check_ends(&w);
    restart(&w);
    check_world(&w);
    close_world(&w);
#ifdef __SANITIZE_ADDRESS__
    CU_ASSERT(__lsan_do_recoverable_leak_check() == 0);
#endif
    if (CU_get_number_of_failures() != failures) {
        fprintf(stderr, "NOCTULE_NOMEM=%u\n", n);
    }
    return failed;
}

static void test_scenario(void)
{
    const char *which = getenv("NOCTULE_NOMEM");
    const bool all = which != NULL && strcmp(which, "all") == 0;
    unsigned n = all ? 1 : 1 + (unsigned)getpid() % STRIDE;

    if (which != NULL && !all) {
        (void)run_with((unsigned)strtoul(which, NULL, 10));
        return;
    }
    while (run_with(n)) {
        n += all ? 1 : STRIDE;
    }
    fprintf(stderr, "%u allocations\n", n);
    CU_ASSERT(n > 300);
}

/* ---- a start without memory ---- */

/* Whether an allocation was failed. */
static bool restore_with(struct world *w, unsigned n)
{
    struct restored sum;
    bool failed;
    enum store_rc rc;

    open_broker(w);
    fault_set(n);
    rc = shards_restore(&w->f.shared, &sum);
    failed = fault_clear();
    CU_ASSERT(rc == ST_OK || (failed && rc == ST_NOMEM));
    close_shards(&w->f);
    return failed;
}

/* It fails, or goes without; and the next start finds everything. */
static void test_restore(void)
{
    static struct world w;
    unsigned n = 1;

    open_world(&w);
    play(&w);
    for (unsigned i = 0; i < USERS; i++) {
        user_leave(&w.all[i]);
    }
    settle(&w);
    close_shards(&w.f);
    while (restore_with(&w, n)) {
        n++;
    }
    CU_ASSERT(n > 20);
    open_broker(&w);
    restart(&w);
    check_world(&w);
    close_world(&w);
}

/* ---- a fan-out that pauses ---- */

#define CROWD 2000u /* more than a turn serves */

static struct client *absent(struct fixture *f, unsigned k, bool also_others)
{
    struct shard *sh = f->shards[1];
    struct client *c;
    struct store_op *op;
    char id[32];

    id_of(f, 1, 1000 + k, id, sizeof(id));
    c = client_create(sh, span_str(id));
    UNIT_NEED(c != NULL);
    c->durable = true;
    c->stored = true;
    c->version = MQTT_3_1_1;
    op = ticket_lazy(sh, ST_SESSION_PUT);
    UNIT_NEED(op != NULL);
    op->session = client_session(c);
    UNIT_NEED(subscription_restore(sh, c, span_str("t/#"), 1, 0));
    UNIT_NEED(!also_others || k % 100 != 0 || subscription_restore(sh, c, span_str("t/+"), 1, 0));
    return c;
}

/* How many messages each has: all the same. */
static uint64_t crowd_has(struct client *const *crowd)
{
    uint64_t least = UINT64_MAX;
    uint64_t most = 0;

    for (unsigned k = 0; k < CROWD; k++) {
        const struct outq *q = crowd[k]->out;
        const uint64_t n =
            q == NULL ? 0
                      : q->queue.count + q->inflight.count + q->disk.fresh.count + q->disk.count;
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    CU_ASSERT_EQUAL(least, most);
    return least;
}

/* Whether an allocation was failed. */
static bool fan_out_with(struct world *w, struct client *const *crowd, unsigned number, unsigned n)
{
    const unsigned ends = w->plain.ends;
    const uint64_t had = crowd_has(crowd);
    uint64_t has;
    bool failed;

    fault_set(n);
    for (unsigned i = 0; i < 2; i++) { /* the second one waits behind the first */
        user_publish(&w->plain, number + i, (struct user_pub){.topic = "t/1", .qos = 1});
    }
    settle(w);
    failed = fault_clear();
    CU_ASSERT(w->plain.ends <= ends + 1);
    CU_ASSERT(w->plain.pubs[number].acked && w->plain.pubs[number + 1].acked);
    /* What one did not get is taken back from all before it comes again; what all have may come
     * again, if only the answer was lost. */
    has = crowd_has(crowd);
    CU_ASSERT(has >= had + 2 && has <= had + 4);
    return failed;
}

static void fan_out(bool also_others)
{
    static struct world w;
    static struct client *crowd[CROWD];
    unsigned published = 0;
    unsigned n = 1;

    open_world(&w);
    for (unsigned k = 0; k < CROWD; k++) {
        crowd[k] = absent(&w.f, k, also_others);
    }
    user_connect(&w.plain, &w.f);
    settle(&w);
    while (published < MESSAGES - 2 && fan_out_with(&w, crowd, published, n)) {
        published += 2;
        n += n < 16 ? 1 : 211;
    }
    CU_ASSERT(n > 3000);
    user_leave(&w.plain);
    close_world(&w);
}

/* Queues that are full cost no memory: what is left is what the pause needs. If there is none, the
 * rest of the crowd is not looked at, and the publisher must not hear that all is well. */
static void pause_with(bool also_others)
{
    static struct world w;
    bool failed = true;
    unsigned refused = 0;

    open_world(&w);
    for (unsigned k = 0; k < CROWD; k++) {
        (void)absent(&w.f, k, also_others);
    }
    w.f.config->max_queued_messages = 1;
    user_connect(&w.plain, &w.f);
    user_publish(&w.plain, 0, (struct user_pub){.topic = "t/1", .qos = 1});
    settle(&w);
    for (unsigned n = 1; failed; n++) {
        const struct metrics *m = shard_metrics(w.f.shards[1]);
        const uint64_t lost = metric_get(m, METRIC_DROPPED_MEMORY);
        const unsigned ends = w.plain.ends;

        fault_set(n);
        user_publish(&w.plain, 0, (struct user_pub){.topic = "t/1", .qos = 1});
        settle(&w);
        failed = fault_clear();
        CU_ASSERT(metric_get(m, METRIC_DROPPED_MEMORY) == lost || w.plain.ends == ends + 1);
        refused += metric_get(m, METRIC_DROPPED_MEMORY) != lost;
    }
    CU_ASSERT(refused >= (also_others ? 1u : 3u)); /* the pins; the job and its match */
    user_leave(&w.plain);
    close_world(&w);
}

static void test_pause(void)
{
    pause_with(false);
    pause_with(true);
}

static void test_fan_out(void)
{
    fan_out(false);
}

static void test_fan_out_of_filters(void)
{
    fan_out(true);
}

/* ---- changes that share a unit ---- */

/* Two publishers wait for the release of their ids, and a third one's end is noted with them. */
static bool share_unit_with(struct world *w, unsigned n)
{
    const unsigned ends = w->a.ends + w->b.ends;
    bool failed;

    w->a.mute = true;
    w->b.mute = true;
    user_publish(&w->a, 0, (struct user_pub){.topic = "x", .qos = 2});
    user_publish(&w->b, 0, (struct user_pub){.topic = "x", .qos = 2});
    while (!w->a.pubs[0].received || !w->b.pubs[0].received) {
        round_once(w);
    }
    w->a.mute = false;
    w->b.mute = false;
    user_ack(&w->a, MQTT_PUBREL, 1);
    user_ack(&w->b, MQTT_PUBREL, 1);
    user_leave(&w->s0);
    fault_set(n);
    for (unsigned i = 0; i < 3; i++) {
        round_once(w);
    }
    failed = fault_clear();
    settle(w);
    CU_ASSERT(w->a.ends + w->b.ends <= ends + 1);
    user_connect(&w->s0, &w->f);
    settle(w);
    return failed;
}

static void test_shared_unit(void)
{
    static struct world w;
    unsigned n = 1;

    open_world(&w);
    name(&w, &w.b, 0, true, MQTT_3_1_1); /* all of one shard */
    user_connect(&w.a, &w.f);
    user_connect(&w.b, &w.f);
    user_connect(&w.s0, &w.f);
    settle(&w);
    while (share_unit_with(&w, n)) {
        n++;
    }
    CU_ASSERT(n > 4);
    close_world(&w);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(scenario)
    UNIT_TEST(restore)
    UNIT_TEST(fan_out)
    UNIT_TEST(fan_out_of_filters)
    UNIT_TEST(pause)
    UNIT_TEST(shared_unit)
UNIT_TESTS_END
