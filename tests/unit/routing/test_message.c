/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/message.h"

#include "tests/support/unit.h"

#include <pthread.h>
#include <string.h>

static void test_layout(void)
{
    struct message *m = message_create("a/b", 3, "hello", 5, "\x01\x00", 2);

    UNIT_NEED(m != NULL);
    CU_ASSERT_EQUAL(memcmp(m->data, "\0\3a/bhello\1\0", 12), 0); /* what 3.1.1 sends at QoS 0 */
    CU_ASSERT_EQUAL(memcmp(message_topic(m), "a/b", 3), 0);
    CU_ASSERT_EQUAL(memcmp(message_payload(m), "hello", 5), 0);
    CU_ASSERT_EQUAL(memcmp(message_props(m), "\1\0", 2), 0);
    CU_ASSERT_EQUAL(message_size(m), sizeof(*m) + 12);
    CU_ASSERT_EQUAL(m->refs, 1);
    CU_ASSERT(m->qos == 0 && !m->retain && m->number == 0 && m->body_id == 0);
    CU_ASSERT(m->origin == 0 && m->expires_ms == 0);
    message_unref(m);
}

static void test_empty_parts(void)
{
    struct message *m = message_create("t", 1, NULL, 0, NULL, 0);

    UNIT_NEED(m != NULL);
    CU_ASSERT(m->payload_n == 0 && m->props_n == 0 && m->topic_n == 1);
    CU_ASSERT_PTR_EQUAL(message_props(m), message_payload(m));
    message_unref(m);
}

static void test_sizes(void)
{
    static char topic[65536];
    struct message *m = message_create(topic, 65535, "x", 1, NULL, 0);

    UNIT_NEED(m != NULL);
    CU_ASSERT_EQUAL(m->data[0], 0xff);
    CU_ASSERT_EQUAL(m->data[1], 0xff);
    CU_ASSERT_EQUAL(message_payload(m)[0], 'x');
    message_unref(m);
    /* refused before anything is read or allocated */
    CU_ASSERT_PTR_NULL(message_create(topic, 65536, "x", 1, NULL, 0));
    CU_ASSERT_PTR_NULL(message_create(topic, 1, "x", (size_t)UINT32_MAX + 1, NULL, 0));
    CU_ASSERT_PTR_NULL(message_create(topic, 1, "x", 1, "y", (size_t)UINT32_MAX + 1));
    CU_ASSERT_PTR_NULL(message_create(topic, 1, "x", SIZE_MAX, "y", 1));
}

/* In a buffer of ours, and from there to where it stays. */
static void test_lent(void)
{
    _Alignas(8) uint8_t at[sizeof(struct message) + 12];
    _Alignas(8) uint8_t other[sizeof(at)];
    struct message *m;
    struct message *kept;

    CU_ASSERT_PTR_NULL(message_lend(at, sizeof(at) - 1, "a/b", 3, "hello", 5, "\1", 2));
    CU_ASSERT_PTR_NULL(message_lend(at, sizeof(at), "a/b", 3, "hello", SIZE_MAX, "", 0));
    m = message_lend(at, sizeof(at), "a/b", 3, "hello", 5, "\1", 2);
    UNIT_NEED(m != NULL);
    CU_ASSERT(m->lent);
    CU_ASSERT_EQUAL(memcmp(m->data, "\0\3a/bhello\1\0", 12), 0);
    m->qos = 2;
    m->origin = 7;
    m = message_lend_copy(other, m);
    CU_ASSERT(m->lent);
    memset(at, 0xff, sizeof(at));
    kept = message_copy(m);
    UNIT_NEED(kept != NULL);
    memset(other, 0xff, sizeof(other));
    CU_ASSERT(!kept->lent && kept->refs == 1 && kept->qos == 2 && kept->origin == 7);
    CU_ASSERT_EQUAL(message_size(kept), sizeof(at));
    CU_ASSERT_EQUAL(memcmp(kept->data, "\0\3a/bhello\1\0", 12), 0);
    message_unref(kept);
}

/* Answers m's address when all was right: CUnit's assertions are for one thread. */
static void *drop_some(void *arg)
{
    struct message *m = arg;
    bool ok = true;

    for (int i = 0; i < 1000; i++) {
        ok = ok && message_payload(m)[0] == 'p';
        message_ref(m, 2);
        message_unref(m);
        message_unref(m);
    }
    message_unref(m);
    return ok ? arg : NULL;
}

static void test_several_at_once(void)
{
    struct message *m = message_create("t", 1, "p", 1, NULL, 0);

    UNIT_NEED(m != NULL);
    message_ref(m, 5);
    message_unref_many(m, 2);
    CU_ASSERT_EQUAL(m->refs, 4);
    message_unref(m);
    CU_ASSERT_EQUAL(m->refs, 3);
    message_unref_many(m, 3); /* a leak is the sanitizer's to find */
}

/* The last of several threads frees: leaks and races are the sanitizers' to find. */
static void test_last_one_frees(void)
{
    struct message *m = message_create("t", 1, "p", 1, NULL, 0);
    pthread_t threads[4];

    UNIT_NEED(m != NULL);
    message_ref(m, 4);
    for (int i = 0; i < 4; i++) {
        UNIT_NEED(pthread_create(&threads[i], NULL, drop_some, m) == 0);
    }
    message_unref(m);
    for (int i = 0; i < 4; i++) {
        void *ok = NULL;

        pthread_join(threads[i], &ok);
        CU_ASSERT_PTR_NOT_NULL(ok);
    }
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(layout)
    UNIT_TEST(lent)
    UNIT_TEST(empty_parts)
    UNIT_TEST(sizes)
    UNIT_TEST(several_at_once)
    UNIT_TEST(last_one_frees)
UNIT_TESTS_END
