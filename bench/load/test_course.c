/* SPDX-License-Identifier: Apache-2.0 */
/* Computed receivers: which numbers are due at whom, and how far all are. */
#include <stdio.h>

#include "bench/load/client.h"
#include "bench/load/course.h"
#include "bench/load/tally.h"
#include "tests/support/unit.h"

#define RECEIVERS  7u
#define PUBLISHERS 3u
#define TOPICS     10u
#define EACH       4u

struct world {
    struct stream streams[PUBLISHERS];
};

static const struct stream *stream_of(const void *context, uint32_t publisher)
{
    return &((const struct world *)context)->streams[publisher];
}

static uint32_t receiver_of(const void *context, uint32_t topic, uint32_t k)
{
    (void)context;
    return (topic * 2 + k) % RECEIVERS;
}

/* Publisher p has the topics p, p + 3 ... */
static void world_init(struct world *w, struct courses *cs)
{
    const struct courses_form form = {.receivers = RECEIVERS,
                                      .publishers = PUBLISHERS,
                                      .each = EACH,
                                      .stream = stream_of,
                                      .receiver = receiver_of,
                                      .context = w};

    for (uint32_t p = 0; p < PUBLISHERS; p++) {
        w->streams[p] = (struct stream){
            .topics_n = (TOPICS + PUBLISHERS - 1 - p) / PUBLISHERS,
            .numbers = {.first = p, .step = PUBLISHERS, .all = TOPICS, .places = 1}};
    }
    courses_init(cs, &form);
}

static bool gets(const struct world *w, uint32_t publisher, uint64_t seq, uint32_t receiver)
{
    for (uint32_t k = 0; k < EACH; k++) {
        if (receiver_of(w, stream_number_of(&w->streams[publisher], seq), k) == receiver) {
            return true;
        }
    }
    return false;
}

static void test_every_number_is_due_where_it_goes(void)
{
    struct world w;
    struct courses cs;

    world_init(&w, &cs);
    for (uint32_t r = 0; r < RECEIVERS; r++) {
        for (uint32_t p = 0; p < PUBLISHERS; p++) {
            struct course *c = courses_at(&cs, r, p);

            for (uint64_t seq = 0; seq < 50; seq++) {
                CU_ASSERT_EQUAL(course_due(c) == seq, gets(&w, p, seq, r));
                if (course_due(c) == seq) {
                    course_step(c);
                }
            }
        }
    }
    courses_fini(&cs);
}

static void test_nothing_is_due_without_a_topic(void)
{
    const struct course none = {.cycle = 5};

    CU_ASSERT_EQUAL(course_due(&none), UINT64_MAX);
}

static void test_tally_waits_for_all(void)
{
    struct tally t;

    tally_init(&t, 3, 2); /* room for 4 */
    CU_ASSERT_FALSE(tally_add(&t, 0));
    CU_ASSERT_FALSE(tally_add(&t, 1));
    CU_ASSERT_FALSE(tally_add(&t, 1));
    CU_ASSERT_EQUAL(t.base, 0); /* 1 came everywhere, 0 did not */
    CU_ASSERT_TRUE(tally_add(&t, 0));
    CU_ASSERT_EQUAL(t.base, 2);
    CU_ASSERT_FALSE(tally_add(&t, 5));
    CU_ASSERT_FALSE(tally_add(&t, 2));
    CU_ASSERT_TRUE(tally_add(&t, 2));
    CU_ASSERT_EQUAL(t.base, 3);
    tally_fini(&t);
}

static void test_tally_ignores_what_was_never_sent(void)
{
    struct tally t;

    tally_init(&t, 4, 1);
    CU_ASSERT_FALSE(tally_add(&t, 4));
    CU_ASSERT_FALSE(tally_add(&t, UINT64_MAX));
    CU_ASSERT_TRUE(tally_add(&t, 0));
    CU_ASSERT_FALSE(tally_add(&t, 0));
    CU_ASSERT_EQUAL(t.base, 1);
    tally_fini(&t);
}

static void test_number_names(void)
{
    char out[64];

    number_name(out, sizeof(out), "a/x" NUMBER_MARK "/+/z" NUMBER_MARK "/#", 1203);
    CU_ASSERT_STRING_EQUAL(out, "a/x00001203/+/z00001203/#");
    number_name(out, sizeof(out), "plain", 7);
    CU_ASSERT_STRING_EQUAL(out, "plain");
}

/* The topic in a stream's head follows the number. */
static void test_number_streams(void)
{
    const struct stream_form form = {.version = MQTT_5, .qos = 1, .payload_n = 64};
    const struct stream_numbers numbers = {.first = 3, .step = 4, .all = 10};
    struct stream s;
    const char *const names[] = {"t/00000003/x", "t/00000007/x", "t/00000001/x", "t/00000003/x"};

    stream_init_numbers(&s, &form, "t/" NUMBER_MARK "/x", numbers, 3, 0, 1);
    for (uint64_t seq = 0; seq < 4; seq++) {
        CU_ASSERT_TRUE(span_eq(stream_topic_of(&s, seq), span_str(names[seq])));
    }
    stream_fini(&s);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(every_number_is_due_where_it_goes)
    UNIT_TEST(nothing_is_due_without_a_topic)
    UNIT_TEST(tally_waits_for_all)
    UNIT_TEST(tally_ignores_what_was_never_sent)
    UNIT_TEST(number_names)
    UNIT_TEST(number_streams)
UNIT_TESTS_END
