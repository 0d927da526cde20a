/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/mailbox.h"

#include "tests/support/unit.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct letter {
    struct mail mail; /* first */
    unsigned from;
    unsigned number;
};

static unsigned number_of(const struct mail *m)
{
    return ((const struct letter *)m)->number;
}

static bool is_readable(const struct mailbox *mb, int timeout_ms)
{
    struct pollfd p = {.fd = mb->event_fd, .events = POLLIN};

    return poll(&p, 1, timeout_ms) == 1;
}

/* The numbers from `first` on, in order. */
static void expect_run(struct mail *m, size_t n, unsigned first)
{
    size_t seen = 0;

    for (; m != NULL; m = m->next, seen++) {
        CU_ASSERT_EQUAL(number_of(m), first + seen);
    }
    CU_ASSERT_EQUAL(seen, n);
}

static void test_order(void)
{
    struct letter l[5] = {0};
    struct mailbox mb;
    size_t n = 7;

    UNIT_NEED(mailbox_init(&mb));
    CU_ASSERT_PTR_NULL(mailbox_take(&mb, &n));
    CU_ASSERT_EQUAL(n, 0);
    for (unsigned i = 0; i < 5; i++) {
        l[i].number = i;
        mailbox_push(&mb, &l[i].mail);
        CU_ASSERT_EQUAL(mailbox_depth(&mb), i + 1);
    }
    expect_run(mailbox_take(&mb, &n), 5, 0);
    CU_ASSERT_EQUAL(n, 5);
    CU_ASSERT_EQUAL(mailbox_depth(&mb), 0);
    CU_ASSERT_PTR_NULL(mailbox_take(&mb, &n));
    mailbox_fini(&mb);
}

/* Single, chain of three (its end pointing anywhere), chain of one, single: one order. */
static void test_chain(void)
{
    struct letter l[6] = {0};
    struct mailbox mb;
    struct mail *m;
    size_t n;

    UNIT_NEED(mailbox_init(&mb));
    for (unsigned i = 0; i < 6; i++) {
        l[i].number = i;
        l[i].mail.next = i < 5 ? &l[i + 1].mail : &l[0].mail;
    }
    mailbox_push(&mb, &l[0].mail);
    mailbox_push_chain(&mb, &l[1].mail, &l[3].mail, 3);
    mailbox_push_chain(&mb, &l[4].mail, &l[4].mail, 1);
    mailbox_push(&mb, &l[5].mail);
    CU_ASSERT_EQUAL(mailbox_depth(&mb), 6);
    m = mailbox_take(&mb, &n);
    CU_ASSERT_EQUAL(n, 6);
    expect_run(m, 6, 0);
    mailbox_fini(&mb);
}

static void test_eventfd_only_when_asleep(void)
{
    struct letter l[4] = {0};
    struct mailbox mb;
    size_t n;

    UNIT_NEED(mailbox_init(&mb));
    mailbox_push(&mb, &l[0].mail);
    CU_ASSERT_FALSE(is_readable(&mb, 0));
    CU_ASSERT_FALSE(mailbox_prepare_sleep(&mb)); /* mail is there */
    CU_ASSERT_PTR_NOT_NULL(mailbox_take(&mb, &n));
    mailbox_push(&mb, &l[1].mail);
    CU_ASSERT_FALSE(is_readable(&mb, 0)); /* the refused sleep has left nothing behind */
    CU_ASSERT_PTR_NOT_NULL(mailbox_take(&mb, &n));

    CU_ASSERT_TRUE(mailbox_prepare_sleep(&mb));
    mailbox_push(&mb, &l[2].mail);
    mailbox_push(&mb, &l[3].mail);
    CU_ASSERT_TRUE(is_readable(&mb, 0));
    mailbox_awake(&mb, true);
    CU_ASSERT_FALSE(is_readable(&mb, 0));
    CU_ASSERT_PTR_NOT_NULL(mailbox_take(&mb, &n));
    CU_ASSERT_EQUAL(n, 2);

    CU_ASSERT_TRUE(mailbox_prepare_sleep(&mb));
    mailbox_awake(&mb, false); /* a socket woke us */
    mailbox_push(&mb, &l[0].mail);
    CU_ASSERT_FALSE(is_readable(&mb, 0));
    mailbox_awake(&mb, true); /* drained already: no harm */
    mailbox_fini(&mb);
}

#define PRODUCERS 4u
#define LETTERS   30000u

struct producer {
    struct mailbox *mb;
    struct letter *letters;
    unsigned from;
};

/* Singles, chains, and pauses now and then so that the consumer falls asleep in between. */
static void *produce(void *arg)
{
    struct producer *p = arg;
    unsigned i = 0;

    while (i < LETTERS) {
        unsigned n = i % 7 == 0 ? 5 : 1;

        if (n > LETTERS - i) {
            n = LETTERS - i;
        }
        for (unsigned k = 0; k < n; k++) {
            p->letters[i + k].from = p->from;
            p->letters[i + k].number = i + k;
            p->letters[i + k].mail.next = k + 1 < n ? &p->letters[i + k + 1].mail : NULL;
        }
        if (n == 1) {
            mailbox_push(p->mb, &p->letters[i].mail);
        } else {
            mailbox_push_chain(p->mb, &p->letters[i].mail, &p->letters[i + n - 1].mail, n);
        }
        i += n;
        if (i % 500 < n) {
            usleep(50);
        }
    }
    return NULL;
}

struct reading {
    unsigned next[PRODUCERS];
    size_t total;
    unsigned disorder;
    unsigned lost_wakeups;
    unsigned sleeps;
};

static void read_all(struct mailbox *mb, struct reading *r)
{
    size_t n;
    size_t seen = 0;

    for (struct mail *m = mailbox_take(mb, &n); m != NULL; m = m->next, seen++) {
        const struct letter *l = (const struct letter *)m;

        r->disorder += l->number != r->next[l->from];
        r->next[l->from] = l->number + 1;
    }
    r->disorder += seen != n;
    r->total += n;
}

/* The consumer of a shard: sleeps whenever nothing is there. A wake-up that does not come in 5 s
 * was lost. */
static void consume(struct mailbox *mb, struct reading *r)
{
    while (r->total < (size_t)PRODUCERS * LETTERS) {
        bool readable = false;

        if (mailbox_prepare_sleep(mb)) {
            r->sleeps++;
            readable = is_readable(mb, 5000);
            if (!readable) {
                r->lost_wakeups++;
                return;
            }
        }
        mailbox_awake(mb, readable);
        read_all(mb, r);
    }
}

static void test_producers(void)
{
    struct producer p[PRODUCERS];
    pthread_t threads[PRODUCERS];
    struct reading r = {0};
    struct mailbox mb;

    UNIT_NEED(mailbox_init(&mb));
    for (unsigned i = 0; i < PRODUCERS; i++) {
        p[i] = (struct producer){&mb, calloc(LETTERS, sizeof(struct letter)), i};
        UNIT_NEED(p[i].letters != NULL);
        UNIT_NEED(pthread_create(&threads[i], NULL, produce, &p[i]) == 0);
    }
    consume(&mb, &r);
    for (unsigned i = 0; i < PRODUCERS; i++) {
        pthread_join(threads[i], NULL);
        free(p[i].letters);
    }
    CU_ASSERT_EQUAL(r.lost_wakeups, 0);
    CU_ASSERT_EQUAL(r.disorder, 0);
    CU_ASSERT_EQUAL(r.total, (size_t)PRODUCERS * LETTERS);
    CU_ASSERT(r.sleeps > 0);
    CU_ASSERT_EQUAL(mailbox_depth(&mb), 0);
    mailbox_fini(&mb);
}

struct pair {
    struct mailbox boxes[2];
    struct letter ball;
    unsigned me;
    unsigned lost;
};

#define ROUNDS 20000u

/* Waits for the ball, sleeping as a shard does; false: it never came. */
static bool wait_ball(struct mailbox *mb)
{
    size_t n;

    for (;;) {
        bool readable = false;

        if (mailbox_take(mb, &n) != NULL) {
            return true;
        }
        if (mailbox_prepare_sleep(mb)) {
            readable = is_readable(mb, 5000);
            if (!readable) {
                return false;
            }
        }
        mailbox_awake(mb, readable);
    }
}

static void *ping(void *arg)
{
    struct pair *p = arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (!wait_ball(&p->boxes[1])) {
            p->lost++;
            break;
        }
        mailbox_push(&p->boxes[0], &p->ball.mail);
    }
    return NULL;
}

/* One ball to and fro: every push meets a consumer that is falling asleep. */
static void test_no_wakeup_is_lost(void)
{
    static struct pair p;
    pthread_t other;
    unsigned lost = 0;

    UNIT_NEED(mailbox_init(&p.boxes[0]) && mailbox_init(&p.boxes[1]));
    UNIT_NEED(pthread_create(&other, NULL, ping, &p) == 0);
    for (unsigned i = 0; i < ROUNDS && lost == 0; i++) {
        mailbox_push(&p.boxes[1], &p.ball.mail);
        lost += !wait_ball(&p.boxes[0]);
    }
    pthread_join(other, NULL);
    CU_ASSERT_EQUAL(lost + p.lost, 0);
    mailbox_fini(&p.boxes[0]);
    mailbox_fini(&p.boxes[1]);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(order)
    UNIT_TEST(chain)
    UNIT_TEST(eventfd_only_when_asleep)
    UNIT_TEST(producers)
    UNIT_TEST(no_wakeup_is_lost)
UNIT_TESTS_END
