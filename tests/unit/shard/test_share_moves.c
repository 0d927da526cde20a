/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a member of a shared group has not been sent goes to another one when it leaves, in a unit
 * that the other's shard hands to the store. Here that shard has not come to it yet when the member
 * is back, or its session ends: nobody may be shown the message on disk meanwhile, and the other
 * member gets it once.
 */
#include "tests/unit/shard/fixture.h"

#include "tests/support/tmpdir.h"

#define WINDOW  20u /* sent before anything is acknowledged */
#define SHARED  (WINDOW + 5u)
#define PAYLOAD 8u

/* A client that acknowledges all it gets, if `acks`. */
struct user {
    int fd;
    bool acks;
    uint8_t in[4096];
    size_t in_n;
    unsigned publishes, subacks, connacks;
    unsigned got[SHARED + 2]; /* by the number in the payload */
};

struct bench {
    struct fixture f;
    struct tmpdir dir;
    struct user publisher, member, other; /* of the shards 0, 1, 0 */
    char id[32];                          /* the member's */
};

static void answer(const struct user *p, uint8_t type, struct span packet_id)
{
    const uint8_t bytes[] = {type, 2, packet_id.p[0], packet_id.p[1]};

    if (p->acks) {
        UNIT_NEED(send(p->fd, bytes, sizeof(bytes), MSG_NOSIGNAL) == (ssize_t)sizeof(bytes));
    }
}

static void got_publish(struct user *p, const struct frame *f)
{
    const size_t topic = 2 + (size_t)f->body.p[1];
    const struct span packet_id = span_of(f->body.p + topic, 2);
    const unsigned qos = f->flags >> 1 & 3;
    char text[PAYLOAD + 1] = {0};
    unsigned number;

    UNIT_NEED(f->body.n == topic + 2 + PAYLOAD && qos > 0);
    memcpy(text, f->body.p + topic + 2, PAYLOAD);
    number = (unsigned)strtoul(text, NULL, 10);
    UNIT_NEED(number >= 1 && number <= SHARED + 1);
    p->publishes++;
    p->got[number]++;
    answer(p, qos == 2 ? 0x50 : 0x40, packet_id);
}

static void look(struct user *p)
{
    ssize_t got = p->fd < 0 ? 0 : recv(p->fd, p->in + p->in_n, sizeof(p->in) - p->in_n, 0);
    const char *why;
    struct frame f;
    size_t at = 0;

    UNIT_NEED(got >= 0 || errno == EAGAIN);
    p->in_n += got > 0 ? (size_t)got : 0;
    while (frame_next(span_of(p->in + at, p->in_n - at), sizeof(p->in), &f, &why) == FRAME_OK) {
        at += f.total;
        p->connacks += f.type == MQTT_CONNACK;
        p->subacks += f.type == MQTT_SUBACK;
        if (f.type == MQTT_PUBLISH) {
            got_publish(p, &f);
        } else if (f.type == MQTT_PUBREL) {
            answer(p, 0x70, f.body);
        }
    }
    memmove(p->in, p->in + at, p->in_n - at);
    p->in_n -= at;
}

static void one_turn(struct bench *b, unsigned shard)
{
    struct shard *sh = b->f.shards[shard];

    take_turn(sh, loop_wait(&sh->loop, 0));
    look(&b->publisher);
    look(&b->member);
    look(&b->other);
}

/* Both shards' turns until the number is reached. */
static void turns_until(struct bench *b, const unsigned *number, unsigned n)
{
    for (int64_t until = clock_now_ms(&clock_system) + 60000; *number < n;) {
        one_turn(b, 0);
        one_turn(b, 1);
        UNIT_NEED(clock_now_ms(&clock_system) < until);
    }
}

static void turns_for(struct bench *b, bool both, int64_t ms)
{
    for (int64_t until = clock_now_ms(&clock_system) + ms; clock_now_ms(&clock_system) < until;) {
        if (both) {
            one_turn(b, 0);
        }
        one_turn(b, 1);
        (void)poll(NULL, 0, 1);
    }
}

static void publish(const struct bench *b, const char *topic, unsigned number)
{
    uint8_t bytes[64];
    char text[16];
    struct publish m = {.topic = span_str(topic), .qos = 2, .packet_id = (uint16_t)number};
    size_t id_at;
    size_t n;

    (void)snprintf(text, sizeof(text), "%08u", number);
    m.payload = span_of(text, PAYLOAD);
    n = publish_encode_head(bytes, &m, SPAN_NULL, MQTT_3_1_1, &id_at);
    memcpy(bytes + n, text, PAYLOAD);
    n += PAYLOAD;
    UNIT_NEED(send(b->publisher.fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
}

/* The member has a window of messages in flight that it does not acknowledge, five more of the
 * group and one of its own behind them, all on disk. Then it goes, and only its shard notices. */
static void set_up(struct bench *b)
{
    const struct subscribe_item items[] = {{.filter = span_str("$share/g/t"), .qos = 2},
                                           {.filter = span_str("own"), .qos = 2}};
    char id[32];

    *b = (struct bench){.publisher.fd = -1, .member.fd = -1, .other.fd = -1};
    tmpdir_make(&b->dir);
    open_shards_in(&b->f, 2, b->dir.path);
    b->f.config->max_inflight_messages = WINDOW;
    id_of(&b->f, 1, 0, b->id, sizeof(b->id));
    b->member.fd = connect_session(&b->f, b->id, false, items, 2);
    turns_until(b, &b->member.subacks, 1);
    id_of(&b->f, 0, 1, id, sizeof(id));
    b->publisher.fd = connect_session(&b->f, id, true, NULL, 0);
    for (unsigned i = 1; i <= SHARED; i++) {
        publish(b, "t", i);
    }
    publish(b, "own", SHARED + 1);
    turns_until(b, &b->member.publishes, WINDOW);
    turns_for(b, true, 50); /* until the others are on disk as well */
    UNIT_NEED(b->member.publishes == WINDOW);
    id_of(&b->f, 0, 2, id, sizeof(id));
    b->other.acks = true;
    b->other.fd = connect_session(&b->f, id, false, items, 1);
    turns_until(b, &b->other.subacks, 1);
    close(b->member.fd);
    b->member = (struct user){.fd = -1, .acks = true};
    for (unsigned i = 0; i < 3; i++) {
        one_turn(b, 1);
    }
}

static void tear_down(struct bench *b)
{
    close(b->publisher.fd);
    close(b->member.fd);
    close(b->other.fd);
    close_shards(&b->f);
    tmpdir_remove(&b->dir);
}

/* Those of the group that were not sent: the other one has each once. */
static void check_moved(const struct bench *b)
{
    for (unsigned i = 1; i <= SHARED; i++) {
        CU_ASSERT_EQUAL(b->other.got[i], i > WINDOW);
    }
}

static void test_member_comes_back(void)
{
    struct bench b;

    set_up(&b);
    b.member.fd = connect_session(&b.f, b.id, false, NULL, 0);
    turns_for(&b, false, 200);
    CU_ASSERT_EQUAL(b.member.connacks, 1);
    turns_until(&b, &b.member.publishes, WINDOW + 1);
    turns_for(&b, true, 100);
    check_moved(&b);
    for (unsigned i = 1; i <= SHARED + 1; i++) {
        CU_ASSERT_EQUAL(b.member.got[i], i <= WINDOW || i == SHARED + 1);
    }
    tear_down(&b);
}

static void test_session_ends(void)
{
    struct bench b;

    set_up(&b);
    b.member.fd = connect_session(&b.f, b.id, true, NULL, 0);
    turns_for(&b, false, 200);
    turns_until(&b, &b.member.connacks, 1);
    turns_until(&b, &b.other.publishes, SHARED - WINDOW);
    turns_for(&b, true, 200);
    check_moved(&b);
    CU_ASSERT_EQUAL(b.member.publishes, 0);
    tear_down(&b);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(member_comes_back)
    UNIT_TEST(session_ends)
UNIT_TESTS_END
