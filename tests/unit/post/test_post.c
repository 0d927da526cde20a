/* SPDX-License-Identifier: Apache-2.0 */
#include "server/post/post.h"

#include "tests/support/unit.h"

#include <pthread.h>

#define OFFICES 3u
#define LETTERS 6u

struct letter {
    struct post_item item; /* first */
    unsigned number;
};

static void read_letter(struct shard *sh, struct post_item *item)
{
    (void)sh;
    (void)item;
}

static unsigned number_of(const struct post_item *item)
{
    return ((const struct letter *)item)->number;
}

static struct post offices[OFFICES];
static struct letter letters[LETTERS];

static void open_offices(void)
{
    for (unsigned i = 0; i < OFFICES; i++) {
        UNIT_NEED(post_init(&offices[i], i, OFFICES));
    }
    for (unsigned i = 0; i < LETTERS; i++) {
        letters[i] = (struct letter){.item.fn = read_letter, .number = i};
    }
}

static void close_offices(void)
{
    for (unsigned i = 0; i < OFFICES; i++) {
        post_fini(&offices[i]);
    }
}

/* The next letters of an office are these. */
static void expect(struct post *p, const unsigned *numbers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        UNIT_NEED(p->inbox != NULL || post_fetch(p));
        CU_ASSERT_EQUAL(number_of(post_take(p)), numbers[i]);
    }
    CU_ASSERT_PTR_NULL(p->inbox);
    CU_ASSERT_FALSE(post_fetch(p));
}

static void test_order(void)
{
    open_offices();
    for (unsigned i = 0; i < 4; i++) {
        post_send(&offices[0], &offices[1], &letters[i].item);
    }
    post_send(&offices[0], &offices[0], &letters[4].item); /* to itself as well */
    CU_ASSERT_EQUAL(post_depth(&offices[1]), 0);           /* nothing has left yet */
    CU_ASSERT_FALSE(post_fetch(&offices[1]));
    for (unsigned i = 0; i < OFFICES; i++) {
        post_flush(&offices[0], &offices[i]);
    }
    CU_ASSERT_EQUAL(post_depth(&offices[1]), 4);
    expect(&offices[0], (const unsigned[]){4}, 1);
    expect(&offices[1], (const unsigned[]){0, 1, 2, 3}, 4);
    expect(&offices[2], NULL, 0);
    post_flush(&offices[0], &offices[1]); /* nothing is left to push again */
    expect(&offices[1], NULL, 0);
    close_offices();
}

static void test_deliver_at_once(void)
{
    open_offices();
    post_send(&offices[0], &offices[1], &letters[0].item);
    post_deliver(&offices[1], &letters[1].item);
    expect(&offices[1], (const unsigned[]){1}, 1);
    post_flush(&offices[0], &offices[1]);
    expect(&offices[1], (const unsigned[]){0}, 1);
    close_offices();
}

/* Work that is put back is the next again, before what came with it and after it. */
static void test_put_back(void)
{
    struct post *p = &offices[1];
    struct post_item *first;

    open_offices();
    post_deliver(p, &letters[0].item);
    post_deliver(p, &letters[1].item);
    UNIT_NEED(post_fetch(p));
    first = post_take(p);
    post_deliver(p, &letters[2].item);
    post_put_back(p, first);
    expect(p, (const unsigned[]){0, 1, 2}, 3);
    close_offices();
}

/* What stands for many may grow only while it is the last of its bundle, and counts for all. */
static void test_growing(void)
{
    int run = 0;
    struct post *from = &offices[0];
    struct post *to = &offices[1];

    open_offices();
    CU_ASSERT_PTR_NULL(post_growing(from, to));
    post_send(from, to, &letters[0].item);
    CU_ASSERT_PTR_NULL(post_growing(from, to));
    post_grow(from, to, &run);
    CU_ASSERT_PTR_EQUAL(post_growing(from, to), &run);
    CU_ASSERT_PTR_NULL(post_growing(from, &offices[2]));
    post_count_more(from, to);
    post_count_more(from, to);
    post_send(from, &offices[2], &letters[1].item); /* somebody else's bundle */
    CU_ASSERT_PTR_EQUAL(post_growing(from, to), &run);
    post_send(from, to, &letters[2].item);
    CU_ASSERT_PTR_NULL(post_growing(from, to)); /* no longer the last */
    post_grow(from, to, &run);
    post_flush(from, to);
    CU_ASSERT_PTR_NULL(post_growing(from, to)); /* it has left */
    CU_ASSERT_EQUAL(post_depth(to), 4);
    expect(to, (const unsigned[]){0, 2}, 2);
    CU_ASSERT_EQUAL(post_depth(to), 2); /* taken, but not delivered */
    post_count_done(to, 0);
    post_count_done(to, 2);
    CU_ASSERT_EQUAL(post_depth(to), 0);
    close_offices();
}

static void test_half_made(void)
{
    struct post p = {.index = 0};

    post_fini(&p);
    UNIT_NEED(post_init(&p, 0, 1));
    post_fini(&p);
    post_fini(&p);
}

#define SENDERS 2u
#define EACH    20000u

static struct letter crowd[SENDERS][EACH];

static void *send_all(void *arg)
{
    struct post *from = arg;
    const unsigned who = from->index - 1;

    for (unsigned i = 0; i < EACH; i++) {
        crowd[who][i] = (struct letter){.item.fn = read_letter, .number = who * EACH + i};
        post_send(from, &offices[0], &crowd[who][i].item);
        if (i % 7 == 0) {
            post_flush(from, &offices[0]);
        }
    }
    post_flush(from, &offices[0]);
    return NULL;
}

/* Two senders at once: nothing is lost, and each one's letters come in their order. */
static void test_senders(void)
{
    pthread_t threads[SENDERS];
    unsigned next[SENDERS] = {0};
    unsigned got = 0;

    open_offices();
    for (unsigned i = 0; i < SENDERS; i++) {
        UNIT_NEED(pthread_create(&threads[i], NULL, send_all, &offices[i + 1]) == 0);
    }
    while (got < SENDERS * EACH) {
        while (offices[0].inbox != NULL || post_fetch(&offices[0])) {
            const unsigned number = number_of(post_take(&offices[0]));
            CU_ASSERT_EQUAL(number % EACH, next[number / EACH]);
            next[number / EACH]++;
            got++;
        }
    }
    for (unsigned i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
        CU_ASSERT_EQUAL(next[i], EACH);
    }
    CU_ASSERT_FALSE(post_fetch(&offices[0]));
    close_offices();
}

UNIT_TESTS = {
    UNIT_TEST(order)
    UNIT_TEST(deliver_at_once)
    UNIT_TEST(put_back)
    UNIT_TEST(growing)
    UNIT_TEST(half_made)
    UNIT_TEST(senders)
UNIT_TESTS_END
