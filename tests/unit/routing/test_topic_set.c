/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/topic_set.h"

#include "tests/support/unit.h"
#include "tests/unit/routing/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const char *a, const char *b)
{
    int ab = topic_compare(a, strlen(a), b, strlen(b));
    int ba = topic_compare(b, strlen(b), a, strlen(a));

    CU_ASSERT_EQUAL((ab > 0) - (ab < 0), (ba < 0) - (ba > 0));
    return (ab > 0) - (ab < 0);
}

/* A topic, everything below it, and only then what merely begins with the same letters. */
static void test_order(void)
{
    static const char *const sorted[] = {
        "/",         "//a",        "a",         "a/",        "a//",  "a/a",     "a/a/a", "a/a!",
        "a/aa",      "a/b",        "a\x01",     "a!",        "a!/b", "a.b",     "aa",    "abcdefgh",
        "abcdefgh/", "abcdefgh/x", "abcdefgh!", "abcdefghi", "\x7f", "\xc3\xa4"};
    size_t n = sizeof(sorted) / sizeof(*sorted);

    for (size_t i = 0; i < n; i++) {
        CU_ASSERT_EQUAL(compare(sorted[i], sorted[i]), 0);
        for (size_t k = i + 1; k < n; k++) {
            CU_ASSERT_EQUAL(compare(sorted[i], sorted[k]), -1);
        }
    }
}

/* A key in two parts is the text put together, wherever it is cut. */
static void test_key_parts(void)
{
    uint64_t rng = 4;
    char a[WORDS_MAX];
    char b[WORDS_MAX];

    for (int i = 0; i < 20000; i++) {
        size_t an = words_text(&rng, false, a);
        size_t bn = words_text(&rng, false, b);
        size_t cut = words_below(&rng, (uint32_t)an + 1);
        struct topic_key k = {a, a + cut, cut, an - cut};
        int parts = topic_key_compare(&k, b, bn);

        CU_ASSERT_EQUAL((parts > 0) - (parts < 0), compare(a, b));
    }
}

/* Not a good hash on purpose: several topics of a leaf share their byte. */
static uint64_t hash(const char *t, size_t n)
{
    return (uint64_t)(unsigned char)t[n - 1] << 56;
}

static struct message *message(const char *topic, size_t n)
{
    struct message *m = message_create(topic, n, "x", 1, NULL, 0);

    UNIT_NEED(m != NULL);
    return m;
}

static struct message *lookup(const struct topic_set *s, const char *t, size_t n,
                              struct topic_pos *p)
{
    return topic_set_find(s, hash(t, n), t, n, p);
}

/* All entries in ascending order; their number. */
static size_t check_order(const struct topic_set *s)
{
    struct topic_pos p = {0, 0};
    const struct message *last = NULL;
    const struct message *m;
    size_t n = 0;

    for (; (m = topic_set_at(s, &p)) != NULL; p.at++, n++) {
        if (last != NULL) {
            CU_ASSERT(topic_compare(message_topic(last), last->topic_n, message_topic(m),
                                    m->topic_n) < 0);
        }
        last = m;
    }
    return n;
}

static void fini(struct topic_set *s)
{
    struct topic_pos p = {0, 0};
    struct message *m;

    for (; (m = topic_set_at(s, &p)) != NULL; p.at++) {
        message_unref(m);
    }
    topic_set_fini(s);
}

#define TEXTS 3000u

/* Random topics come, change and go, in numbers that split and join leaves. */
static void test_against_flags(void)
{
    static char texts[TEXTS][WORDS_MAX];
    static bool there[TEXTS];
    struct topic_set s = {0};
    uint64_t rng = 31;
    size_t count = 0;

    for (unsigned i = 0; i < TEXTS; i++) {
        size_t n = words_text(&rng, false, texts[i]);

        (void)snprintf(texts[i] + n, WORDS_MAX - n, "%s%u", i % 2 == 0 ? "/" : "", i);
    }
    for (int round = 0; round < 60000; round++) {
        /* waves: mostly adding, mostly removing */
        bool adding = words_below(&rng, 10) < (round / 10000 % 2 == 0 ? 8u : 2u);
        unsigned i = words_below(&rng, TEXTS);
        size_t n = strlen(texts[i]);
        struct topic_pos p;
        struct message *m = lookup(&s, texts[i], n, &p);

        CU_ASSERT_EQUAL(m != NULL, there[i]);
        if (there[i] && !adding) {
            topic_set_remove(&s, p);
            message_unref(m);
            there[i] = false;
            count--;
        } else if (there[i]) {
            topic_set_replace(&s, p, message(texts[i], n));
            message_unref(m);
        } else if (adding) {
            CU_ASSERT_TRUE(topic_set_add(&s, hash(texts[i], n), message(texts[i], n)));
            there[i] = true;
            count++;
        }
        if (round % 1000 == 0) {
            CU_ASSERT_EQUAL(check_order(&s), count);
        }
    }
    CU_ASSERT_EQUAL(check_order(&s), count);
    fini(&s);
}

static void test_seek(void)
{
    static char texts[TEXTS][16];
    struct topic_set s = {0};
    uint64_t rng = 8;
    char probe[16];

    for (unsigned i = 0; i < TEXTS; i++) {
        (void)snprintf(texts[i], sizeof(texts[i]), "%06u", i * 10);
        CU_ASSERT_TRUE(topic_set_add(&s, hash(texts[i], 6), message(texts[i], 6)));
    }
    for (int i = 0; i < 5000; i++) {
        unsigned v = words_below(&rng, TEXTS * 10);
        struct topic_key k = {probe, "", 6, 0};
        struct topic_pos p;
        const struct message *m;

        (void)snprintf(probe, sizeof(probe), "%06u", v);
        p = topic_set_seek(&s, &k);
        m = topic_set_at(&s, &p);
        if (v > (TEXTS - 1) * 10) {
            CU_ASSERT_PTR_NULL(m);
        } else {
            UNIT_NEED(m != NULL);
            CU_ASSERT_EQUAL(memcmp(message_topic(m), texts[(v + 9) / 10], 6), 0);
        }
    }
    /* ascending topics leave full leaves behind */
    CU_ASSERT(s.bytes < TEXTS * 11);
    fini(&s);
}

/* What the set costs beside the messages, topics coming in no order. */
static void test_overhead(void)
{
    struct topic_set s = {0};
    uint64_t rng = 1;
    char text[40];

    for (int i = 0; i < 50000; i++) {
        size_t n = (size_t)snprintf(text, sizeof(text), "plant/%llu/line/%d",
                                    (unsigned long long)(words_next(&rng) % 1000000), i);

        CU_ASSERT_TRUE(topic_set_add(&s, hash(text, n), message(text, n)));
    }
    CU_ASSERT(s.bytes < 50000 * 20u);
    fini(&s);
    CU_ASSERT(s.bytes == 0 && s.n == 0);
}

static void test_expire(void)
{
    struct topic_set s = {0};
    struct message *out[50];
    uint32_t at = 0;
    size_t gone = 0;
    char text[16];

    for (int i = 0; i < 1000; i++) {
        struct message *m;

        (void)snprintf(text, sizeof(text), "%04d", i);
        m = message(text, 4);
        m->expires_ms = i % 3 == 0 ? 0 : i;
        CU_ASSERT_TRUE(topic_set_add(&s, hash(text, 4), m));
    }
    for (int calls = 0; at < s.n; calls++) {
        uint32_t leaves = 3;
        size_t n = topic_set_expire(&s, &at, &leaves, 500, out, 50);

        UNIT_NEED(calls < 100);
        for (size_t i = 0; i < n; i++) {
            CU_ASSERT(out[i]->expires_ms > 0 && out[i]->expires_ms <= 500);
            message_unref(out[i]);
        }
        gone += n;
    }
    CU_ASSERT_EQUAL(gone, 500 - 166); /* of 1..500 those that are no multiple of 3 */
    CU_ASSERT_EQUAL(check_order(&s), 1000 - gone);
    fini(&s);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(order)
    UNIT_TEST(key_parts)
    UNIT_TEST(against_flags)
    UNIT_TEST(seek)
    UNIT_TEST(overhead)
    UNIT_TEST(expire)
UNIT_TESTS_END
