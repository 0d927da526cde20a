/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/retained.h"

#include "routing/topic.h"
#include "tests/support/unit.h"
#include "tests/unit/routing/words.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct retained *create(unsigned stripes)
{
    struct retained *r = retained_create(stripes, 0, 0, 12345);

    UNIT_NEED(r != NULL);
    return r;
}

static enum retained_rc put_expiring(struct retained *r, const char *topic, const char *payload,
                                     int64_t expires_ms)
{
    size_t n = strlen(topic);
    struct message *m = message_create(topic, n, payload, strlen(payload), NULL, 0);
    struct retained_stripe *s;
    enum retained_rc rc;

    UNIT_NEED(m != NULL);
    s = retained_lock(r, topic, n);
    m->number = retained_take_number(s);
    m->expires_ms = expires_ms;
    rc = retained_put(s, m);
    retained_unlock(s);
    message_unref(m);
    return rc;
}

static enum retained_rc put(struct retained *r, const char *topic, const char *payload)
{
    return put_expiring(r, topic, payload, 0);
}

/* Everything a filter replays now, in steps of `max`; unsorted. Returns how many there were in all.
 */
static size_t replay(struct retained *r, const char *filter, uint64_t up_to, int64_t now_ms,
                     size_t max, struct message **out, size_t cap)
{
    struct retained_cursor *c = retained_cursor_create(filter, strlen(filter), up_to);
    size_t n = 0;
    bool done = false;

    UNIT_NEED(c != NULL);
    for (int calls = 0; !done; calls++) {
        struct message *some[64];
        size_t got;

        UNIT_NEED(max <= 64 && calls < 100000);
        got = retained_next(r, c, now_ms, some, max, &done);
        CU_ASSERT(got <= max);
        for (size_t i = 0; i < got; i++) {
            UNIT_NEED(n < cap);
            out[n++] = some[i];
        }
    }
    retained_cursor_destroy(c);
    return n;
}

static size_t count(struct retained *r, const char *filter)
{
    static struct message *out[100000];
    size_t n = replay(r, filter, UINT64_MAX, 0, 64, out, 100000);

    for (size_t i = 0; i < n; i++) {
        message_unref(out[i]);
    }
    return n;
}

static void test_set_change_clear(void)
{
    struct retained *r = create(4);
    struct retained_stats st;
    struct message *out[2];

    CU_ASSERT_EQUAL(put(r, "a", ""), RETAINED_NOTHING);
    CU_ASSERT_EQUAL(put(r, "a", "one"), RETAINED_SET);
    CU_ASSERT_EQUAL(put(r, "a", "three"), RETAINED_CHANGED);
    CU_ASSERT_EQUAL(put(r, "b", "x"), RETAINED_SET);
    retained_stats(r, &st);
    CU_ASSERT_EQUAL(st.count, 2);
    CU_ASSERT_EQUAL(st.bytes, 2 * sizeof(struct message) + 3 + 5 + 3 + 1);
    UNIT_NEED(replay(r, "a", UINT64_MAX, 0, 2, out, 2) == 1);
    CU_ASSERT_EQUAL(memcmp(message_payload(out[0]), "three", 5), 0);
    CU_ASSERT_EQUAL(put(r, "a", ""), RETAINED_CLEARED);
    CU_ASSERT_EQUAL(memcmp(message_payload(out[0]), "three", 5), 0); /* ours still */
    message_unref(out[0]);
    CU_ASSERT_EQUAL(count(r, "a"), 0);
    CU_ASSERT_EQUAL(put(r, "b", ""), RETAINED_CLEARED);
    retained_stats(r, &st);
    CU_ASSERT(st.count == 0 && st.bytes == 0);
    CU_ASSERT_EQUAL(retained_counter(r), 6);
    CU_ASSERT_EQUAL(put(r, "left", "for destroy"), RETAINED_SET);
    retained_destroy(r);
    retained_destroy(NULL);
}

static void test_limits(void)
{
    size_t one = sizeof(struct message) + 3 + 4;
    struct retained *r = retained_create(2, 3, 3 * one + 2, 1);
    struct retained_stats st;

    UNIT_NEED(r != NULL);
    CU_ASSERT_EQUAL(put(r, "a", "1234"), RETAINED_SET);
    CU_ASSERT_EQUAL(put(r, "b", "1234"), RETAINED_SET);
    CU_ASSERT_EQUAL(put(r, "c", "1234567"), RETAINED_FULL); /* bytes */
    CU_ASSERT_EQUAL(put(r, "c", "1234"), RETAINED_SET);
    CU_ASSERT_EQUAL(put(r, "d", ""), RETAINED_NOTHING);
    CU_ASSERT_EQUAL(put(r, "a", "1234567"), RETAINED_FULL);
    CU_ASSERT_EQUAL(put(r, "a", "123456"), RETAINED_CHANGED); /* to the last byte */
    CU_ASSERT_EQUAL(put(r, "b", "1"), RETAINED_CHANGED);
    CU_ASSERT_EQUAL(put(r, "d", "1"), RETAINED_FULL); /* count */
    retained_stats(r, &st);
    CU_ASSERT_EQUAL(st.count, 3);
    CU_ASSERT_EQUAL(st.bytes, 3 * one + 2 - 3);
    CU_ASSERT_EQUAL(put(r, "b", ""), RETAINED_CLEARED);
    CU_ASSERT_EQUAL(put(r, "d", "1"), RETAINED_SET);
    retained_destroy(r);
}

static void test_filters(void)
{
    static const char *const topics[] = {"a",     "a/b",   "a/b/c", "a/c",     "ab",   "/",  "/a",
                                         "b/x/c", "b/y/c", "b/y/d", "$SYS/up", "$SYS", "a/", "a/b!",
                                         "%x",    "#x",    "b",     "a//c",    "a!",   "b/x"};
    struct retained *r = create(8);

    for (size_t i = 0; i < sizeof(topics) / sizeof(*topics); i++) {
        CU_ASSERT_EQUAL(put(r, topics[i], "x"), RETAINED_SET);
    }
    CU_ASSERT_EQUAL(count(r, "#"), 18); /* [MQTT-4.7.2-1]: without $SYS and $SYS/up */
    CU_ASSERT_EQUAL(count(r, "a/#"), 7);
    CU_ASSERT_EQUAL(count(r, "a/+"), 4);
    CU_ASSERT_EQUAL(count(r, "+"), 6);
    CU_ASSERT_EQUAL(count(r, "+/+"), 7);
    CU_ASSERT_EQUAL(count(r, "b/+/c"), 2);
    CU_ASSERT_EQUAL(count(r, "+/+/c"), 4);
    CU_ASSERT_EQUAL(count(r, "$SYS/#"), 2);
    CU_ASSERT_EQUAL(count(r, "$SYS/+"), 1);
    CU_ASSERT_EQUAL(count(r, "+/up"), 0);
    CU_ASSERT_EQUAL(count(r, "/+"), 2);
    CU_ASSERT_EQUAL(count(r, "a/b"), 1);
    CU_ASSERT_EQUAL(count(r, "a/x"), 0);
    CU_ASSERT_EQUAL(count(r, "x/#"), 0);
    retained_destroy(r);
}

static void test_numbers_and_expiry(void)
{
    struct retained *r = create(2);
    struct message *out[4];

    CU_ASSERT_EQUAL(put(r, "n/1", "x"), RETAINED_SET);
    CU_ASSERT_EQUAL(put_expiring(r, "n/2", "x", 1000), RETAINED_SET);
    CU_ASSERT_EQUAL(put(r, "n/3", "x"), RETAINED_SET);
    CU_ASSERT_EQUAL(retained_counter(r), 3);
    UNIT_NEED(replay(r, "n/#", 2, 999, 4, out, 4) == 2); /* the third is left to the live path */
    message_unref(out[0]);
    message_unref(out[1]);
    UNIT_NEED(replay(r, "n/#", 3, 1000, 4, out, 4) == 2); /* the second has expired */
    message_unref(out[0]);
    message_unref(out[1]);
    CU_ASSERT_EQUAL(retained_expire(r, 999, 10), 0);
    CU_ASSERT_EQUAL(retained_expire(r, 1000, 10), 1);
    CU_ASSERT_EQUAL(count(r, "n/#"), 2);
    retained_destroy(r);
}

static void test_expire_all(void)
{
    struct retained *r = create(8);
    struct retained_stats st;
    char topic[32];
    size_t gone = 0;

    for (int i = 0; i < 5000; i++) {
        (void)snprintf(topic, sizeof(topic), "e/%d", i);
        CU_ASSERT_EQUAL(put_expiring(r, topic, "x", i % 2 == 0 ? 0 : 10 + i), RETAINED_SET);
    }
    CU_ASSERT_EQUAL(retained_expire(r, 9, 100), 0);
    for (int calls = 0; calls < 300; calls++) {
        size_t n = retained_expire(r, 5010, 100);

        CU_ASSERT(n <= 100);
        gone += n;
    }
    CU_ASSERT_EQUAL(gone, 2500);
    retained_stats(r, &st);
    CU_ASSERT_EQUAL(st.count, 2500);
    CU_ASSERT_EQUAL(count(r, "e/+"), 2500);
    retained_destroy(r);
}

/* ---- against a list ---- */

#define TOPICS 600u

struct model {
    char text[TOPICS][WORDS_MAX];
    bool there[TOPICS];
    bool stable[TOPICS]; /* there since the replay began, untouched */
    unsigned times[TOPICS];
    unsigned n;
};

static unsigned model_index(struct model *m, const char *topic, size_t n)
{
    for (unsigned i = 0; i < m->n; i++) {
        if (strlen(m->text[i]) == n && memcmp(m->text[i], topic, n) == 0) {
            return i;
        }
    }
    return TOPICS;
}

static void model_texts(struct model *m, uint64_t *rng)
{
    while (m->n < TOPICS) {
        char text[WORDS_MAX];
        size_t n = words_text(rng, false, text);

        if (model_index(m, text, n) == TOPICS) {
            memcpy(m->text[m->n++], text, n + 1);
        }
    }
}

static void model_change(struct model *m, struct retained *r, uint64_t *rng)
{
    unsigned i = words_below(rng, m->n);
    bool set = words_below(rng, 2) == 0;
    enum retained_rc rc = put(r, m->text[i], set ? "x" : "");

    CU_ASSERT_EQUAL(rc, set ? (m->there[i] ? RETAINED_CHANGED : RETAINED_SET)
                            : (m->there[i] ? RETAINED_CLEARED : RETAINED_NOTHING));
    m->there[i] = set;
    m->stable[i] = false;
}

static void note(struct model *m, const char *filter, struct message **out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned k = model_index(m, message_topic(out[i]), out[i]->topic_n);

        UNIT_NEED(k < m->n);
        m->times[k]++;
        CU_ASSERT_TRUE(topic_matches(filter, strlen(filter), m->text[k], strlen(m->text[k])));
        message_unref(out[i]);
    }
}

/* What was there all the time came once if it matches; nothing came twice. */
static unsigned count_wrong(const struct model *m, const char *filter, size_t n)
{
    unsigned wrong = 0;

    for (unsigned i = 0; i < m->n; i++) {
        unsigned wanted = topic_matches(filter, n, m->text[i], strlen(m->text[i])) ? 1 : 0;

        wrong += m->times[i] > 1 || (m->stable[i] && m->times[i] != wanted);
    }
    return wrong;
}

/* One replay; in between `changes` random changes after each step. */
static void check_replay(struct model *m, struct retained *r, uint64_t *rng, size_t step,
                         unsigned changes)
{
    char filter[WORDS_MAX];
    size_t n = words_text(rng, true, filter);
    struct retained_cursor *c = retained_cursor_create(filter, n, retained_counter(r));
    bool done = false;

    UNIT_NEED(c != NULL);
    memset(m->times, 0, sizeof(m->times));
    memcpy(m->stable, m->there, sizeof(m->there));
    while (!done) {
        struct message *out[16];

        note(m, filter, out, retained_next(r, c, 0, out, step, &done));
        for (unsigned i = 0; i < changes; i++) {
            model_change(m, r, rng);
        }
    }
    retained_cursor_destroy(c);
    CU_ASSERT_EQUAL(count_wrong(m, filter, n), 0);
}

static void run_model(unsigned stripes)
{
    static struct model m;
    struct retained *r = create(stripes);
    uint64_t rng = 1000 + stripes;

    memset(&m, 0, sizeof(m));
    model_texts(&m, &rng);
    for (int i = 0; i < 800; i++) {
        model_change(&m, r, &rng);
        model_change(&m, r, &rng);
        check_replay(&m, r, &rng, 1 + words_below(&rng, 16), 0);
    }
    for (int i = 0; i < 800; i++) {
        check_replay(&m, r, &rng, 1 + words_below(&rng, 16), 1 + words_below(&rng, 8));
    }
    retained_destroy(r);
}

static void test_against_list(void)
{
    run_model(1);
    run_model(16);
}

/* The work of a call is bounded, and a filter that matches little does not look at much. */
static void test_bounded(void)
{
    struct retained *r = create(1);
    struct message *out[64];
    struct retained_cursor *c;
    bool done = false;
    unsigned calls = 0;
    char topic[32];

    for (int i = 0; i < 20000; i++) {
        (void)snprintf(topic, sizeof(topic), "s/%d/v%d", i, i % 10);
        CU_ASSERT_EQUAL(put(r, topic, "x"), RETAINED_SET);
    }
    c = retained_cursor_create("+/+/none", 8, UINT64_MAX); /* looks at each first two levels */
    UNIT_NEED(c != NULL);
    for (; !done; calls++) {
        CU_ASSERT_EQUAL(retained_next(r, c, 0, out, 64, &done), 0);
    }
    CU_ASSERT(calls >= 20 && calls < 200);
    retained_cursor_destroy(c);
    c = retained_cursor_create("s/7/+", 5, UINT64_MAX);
    UNIT_NEED(c != NULL);
    CU_ASSERT_EQUAL(retained_next(r, c, 0, out, 64, &done), 1); /* in one call, out of 20,000 */
    CU_ASSERT_TRUE(done);
    message_unref(out[0]);
    retained_cursor_destroy(c);
    retained_destroy(r);
}

/* ---- threads ---- */

#define WRITERS 3u
#define WRITES  6000u

struct writer {
    struct retained *r;
    unsigned me;
};

static void *write_some(void *arg)
{
    struct writer *w = arg;
    uint64_t rng = w->me;
    char topic[32];

    for (unsigned i = 0; i < WRITES; i++) {
        (void)snprintf(topic, sizeof(topic), "w/%u/%u", words_below(&rng, 20),
                       words_below(&rng, 50));
        (void)put(w->r, topic, words_below(&rng, 3) == 0 ? "" : "payload");
        if (i % 64 == 0) {
            (void)retained_expire(w->r, 1, 10);
        }
    }
    return NULL;
}

/* Writers and replays at once; a topic that nobody touches is in every replay, once. */
static void test_writers_and_replays(void)
{
    struct retained *r = create(4);
    struct writer w[WRITERS];
    pthread_t threads[WRITERS];
    static struct message *out[2000];
    struct retained_stats st;

    CU_ASSERT_EQUAL(put(r, "w/7/still", "x"), RETAINED_SET);
    for (unsigned i = 0; i < WRITERS; i++) {
        w[i] = (struct writer){r, i};
        UNIT_NEED(pthread_create(&threads[i], NULL, write_some, &w[i]) == 0);
    }
    for (int round = 0; round < 200; round++) {
        unsigned still = 0;
        uint64_t up_to = retained_counter(r);
        size_t n = replay(r, round % 2 == 0 ? "w/#" : "w/7/+", up_to, 0, 16, out, 2000);

        for (size_t i = 0; i < n; i++) {
            CU_ASSERT(out[i]->number <= up_to);
            still += out[i]->topic_n == 9 && memcmp(message_topic(out[i]), "w/7/still", 9) == 0;
            message_unref(out[i]);
        }
        CU_ASSERT_EQUAL(still, 1);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    CU_ASSERT_EQUAL(retained_counter(r), 1 + WRITERS * WRITES);
    retained_stats(r, &st);
    CU_ASSERT_EQUAL(st.count, count(r, "#"));
    retained_destroy(r);
}

/* 65,535 bytes and as many levels. */
static void test_long_topics(void)
{
    struct retained *r = create(1);
    char *t = malloc(65536);
    struct message *out[4];
    size_t n;

    UNIT_NEED(t != NULL);
    memset(t, '/', 65535);
    t[65535] = '\0';
    CU_ASSERT_EQUAL(put(r, t, "x"), RETAINED_SET);
    t[65534] = '!';
    CU_ASSERT_EQUAL(put(r, t, "x"), RETAINED_SET);
    CU_ASSERT_EQUAL(count(r, "#"), 2);
    CU_ASSERT_EQUAL(count(r, "+/#"), 2);
    CU_ASSERT_EQUAL(count(r, "+/+"), 0);
    CU_ASSERT_EQUAL(count(r, t), 1);
    t[65534] = '+';
    n = replay(r, t, UINT64_MAX, 0, 4, out, 4);
    CU_ASSERT_EQUAL(n, 1); /* the other one has a level more */
    for (size_t i = 0; i < n; i++) {
        message_unref(out[i]);
    }
    free(t);
    retained_destroy(r);
}

/* Many at once: each topic has the last of its messages, whatever the stripes. */
static void test_put_all(void)
{
    enum { MESSAGES = 3000, SITES = 700 };
    static struct message *v[MESSAGES];
    struct retained *r = create(16);
    struct message *got[2];

    for (unsigned i = 0; i < MESSAGES; i++) {
        char topic[32];
        char payload[16];
        int n = snprintf(topic, sizeof(topic), "site/%u/state", i % SITES);
        int len = snprintf(payload, sizeof(payload), "%u", i);

        v[i] = message_create(topic, (size_t)n, payload, (size_t)len, NULL, 0);
        UNIT_NEED(v[i] != NULL);
        v[i]->number = i + 1;
    }
    CU_ASSERT(retained_put_all(r, v, MESSAGES));
    for (unsigned i = 0; i < MESSAGES; i++) {
        message_unref(v[i]);
    }
    CU_ASSERT_EQUAL(count(r, "#"), SITES);
    for (unsigned i = 0; i < SITES; i++) {
        const unsigned last = i + (MESSAGES - 1 - i) / SITES * SITES;
        char topic[32];

        snprintf(topic, sizeof(topic), "site/%u/state", i);
        UNIT_NEED(replay(r, topic, UINT64_MAX, 0, 64, got, 2) == 1);
        CU_ASSERT_EQUAL(got[0]->number, last + 1);
        message_unref(got[0]);
    }
    CU_ASSERT(retained_put_all(r, NULL, 0));
    retained_destroy(r);
}

/* Of a class of its own: the broker's. */
static enum retained_rc put_own(struct retained *r, const char *topic, const char *text)
{
    struct message *m = message_create(topic, strlen(topic), text, strlen(text), NULL, 0);
    struct retained_stripe *s;
    enum retained_rc rc;

    UNIT_NEED(m != NULL);
    m->is_own = true;
    s = retained_lock(r, topic, strlen(topic));
    m->number = retained_take_number(s);
    rc = retained_put(s, m);
    retained_unlock(s);
    message_unref(m);
    return rc;
}

static void test_limits_are_for_clients(void)
{
    struct retained *r = retained_create(2, 2, 0, 1);
    struct retained_stats st;

    UNIT_NEED(r != NULL);
    CU_ASSERT_EQUAL(put_own(r, "$SYS/1", "x"), RETAINED_SET);
    CU_ASSERT_EQUAL(put_own(r, "$SYS/2", "x"), RETAINED_SET);
    CU_ASSERT_EQUAL(put(r, "a", "1"), RETAINED_SET);
    CU_ASSERT_EQUAL(put(r, "b", "1"), RETAINED_SET);
    CU_ASSERT_EQUAL(put(r, "c", "1"), RETAINED_FULL);
    CU_ASSERT_EQUAL(put_own(r, "$SYS/3", "x"), RETAINED_SET);
    retained_stats(r, &st);
    CU_ASSERT_EQUAL(st.count, 5);
    CU_ASSERT_EQUAL(put(r, "$SYS/3", "theirs"), RETAINED_FULL); /* one more of the clients' */
    CU_ASSERT_EQUAL(put_own(r, "b", "ours"), RETAINED_CHANGED);
    CU_ASSERT_EQUAL(put(r, "c", "1"), RETAINED_SET); /* b is not theirs any more */
    CU_ASSERT_EQUAL(put(r, "d", "1"), RETAINED_FULL);
    CU_ASSERT_EQUAL(put(r, "b", ""), RETAINED_CLEARED);
    CU_ASSERT_EQUAL(put(r, "d", "1"), RETAINED_FULL);
    retained_stats(r, &st);
    CU_ASSERT_EQUAL(st.count, 5);
    retained_destroy(r);
}

static void test_other_limits(void)
{
    struct retained *r = retained_create(2, 3, 0, 1);
    struct message *old = message_create("e", 1, "1", 1, NULL, 0);

    UNIT_NEED(r != NULL && old != NULL);
    CU_ASSERT_EQUAL(put(r, "a", "1"), RETAINED_SET);
    CU_ASSERT_EQUAL(put(r, "b", "1"), RETAINED_SET);
    CU_ASSERT_EQUAL(put(r, "c", "1"), RETAINED_SET);
    CU_ASSERT_EQUAL(put(r, "d", "1"), RETAINED_FULL);
    retained_set_limits(r, 4, 0);
    CU_ASSERT_EQUAL(put(r, "d", "1"), RETAINED_SET);
    retained_set_limits(r, 2, 1);
    CU_ASSERT_EQUAL(put(r, "a", "2"),
                    RETAINED_CHANGED); /* what is there stays, and may be replaced */
    CU_ASSERT_EQUAL(put(r, "a", "22"), RETAINED_FULL);
    CU_ASSERT_EQUAL(put(r, "b", ""), RETAINED_CLEARED);
    CU_ASSERT_EQUAL(put(r, "b", "1"), RETAINED_FULL);
    old->number = 99;
    CU_ASSERT(retained_put_all(r, &old, 1)); /* it was there before */
    CU_ASSERT(retained_is_current(r, old));
    message_unref(old);
    retained_destroy(r);
}

static void note_expired(void *arg, struct message *m)
{
    CU_ASSERT_EQUAL(m->expires_ms, 1000);
    ++*(unsigned *)arg;
}

/* A stub stands for the whole: found, counted, replaced, expired alike. */
static void test_stubs(void)
{
    struct retained *r = retained_create(4, 0, 2000, 1);
    char big[501];
    struct message *out[4];
    struct retained_stats whole;
    struct retained_stats st;
    unsigned expired = 0;

    UNIT_NEED(r != NULL);
    memset(big, 'x', 500);
    big[500] = '\0';
    retained_on_expiry(r, note_expired, &expired);
    CU_ASSERT_EQUAL(put(r, "s/1", big), RETAINED_SET);
    CU_ASSERT_EQUAL(put_expiring(r, "s/2", big, 1000), RETAINED_SET);
    retained_stats(r, &whole);
    UNIT_NEED(replay(r, "s/#", 99, 0, 4, out, 4) == 2);
    for (int i = 0; i < 2; i++) {
        retained_move_out(r, out[i]);
        CU_ASSERT(retained_is_current(r, out[i])); /* by number */
        message_unref(out[i]);
    }
    retained_stats(r, &st);
    CU_ASSERT(st.count == 2 && st.bytes == whole.bytes);
    UNIT_NEED(replay(r, "s/#", 99, 0, 4, out, 4) == 2);
    for (int i = 0; i < 2; i++) {
        CU_ASSERT(out[i]->is_stub && out[i]->stub_n == 500 && out[i]->number > 0);
        CU_ASSERT_EQUAL(out[i]->payload_n, 0);
    }
    CU_ASSERT_EQUAL(put(r, "s/1", "y"), RETAINED_CHANGED);
    for (int i = 0; i < 2; i++) { /* one has been replaced: it is not moved out again */
        const bool first = message_topic(out[i])[2] == '1';
        CU_ASSERT_EQUAL(retained_is_current(r, out[i]), !first);
        retained_move_out(r, out[i]);
        message_unref(out[i]);
    }
    UNIT_NEED(replay(r, "s/1", 99, 0, 4, out, 4) == 1);
    CU_ASSERT(!out[0]->is_stub && out[0]->payload_n == 1);
    message_unref(out[0]);
    CU_ASSERT_EQUAL(retained_expire(r, 1000, 10), 1);
    CU_ASSERT_EQUAL(expired, 1);
    CU_ASSERT_EQUAL(put(r, "s/1", ""), RETAINED_CLEARED);
    retained_stats(r, &st);
    CU_ASSERT(st.count == 0 && st.bytes == 0);
    retained_destroy(r);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(set_change_clear)
    UNIT_TEST(limits)
    UNIT_TEST(limits_are_for_clients)
    UNIT_TEST(other_limits)
    UNIT_TEST(filters)
    UNIT_TEST(numbers_and_expiry)
    UNIT_TEST(expire_all)
    UNIT_TEST(against_list)
    UNIT_TEST(bounded)
    UNIT_TEST(writers_and_replays)
    UNIT_TEST(long_topics)
    UNIT_TEST(put_all)
    UNIT_TEST(stubs)
UNIT_TESTS_END
