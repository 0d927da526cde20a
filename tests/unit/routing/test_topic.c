/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/topic.h"

#include "tests/support/unit.h"

#include <stdlib.h>
#include <string.h>

static bool name_ok(const char *t)
{
    return topic_name_is_valid(t, strlen(t), 200);
}

static bool filter_ok(const char *f)
{
    return topic_filter_is_valid(f, strlen(f), 200);
}

static bool match(const char *filter, const char *topic)
{
    return topic_matches(filter, strlen(filter), topic, strlen(topic));
}

static void test_names(void)
{
    CU_ASSERT_TRUE(name_ok("a"));
    CU_ASSERT_TRUE(name_ok("/"));
    CU_ASSERT_TRUE(name_ok("a//b/"));
    CU_ASSERT_TRUE(name_ok("$SYS/x y"));
    CU_ASSERT_FALSE(name_ok(""));
    CU_ASSERT_FALSE(name_ok("a/+"));
    CU_ASSERT_FALSE(name_ok("a+b"));
    CU_ASSERT_FALSE(name_ok("#"));
    CU_ASSERT_FALSE(topic_name_is_valid("a\0b", 3, 200));
}

static void test_filters(void)
{
    CU_ASSERT_TRUE(filter_ok("#"));
    CU_ASSERT_TRUE(filter_ok("+"));
    CU_ASSERT_TRUE(filter_ok("+/+/#"));
    CU_ASSERT_TRUE(filter_ok("/#"));
    CU_ASSERT_TRUE(filter_ok("/+"));
    CU_ASSERT_TRUE(filter_ok("a/+/b"));
    CU_ASSERT_TRUE(filter_ok("+//"));
    CU_ASSERT_FALSE(filter_ok(""));
    CU_ASSERT_FALSE(filter_ok("a#"));
    CU_ASSERT_FALSE(filter_ok("a/#/b"));
    CU_ASSERT_FALSE(filter_ok("#/"));
    CU_ASSERT_FALSE(filter_ok("##"));
    CU_ASSERT_FALSE(filter_ok("a+"));
    CU_ASSERT_FALSE(filter_ok("+a"));
    CU_ASSERT_FALSE(filter_ok("++"));
    CU_ASSERT_FALSE(filter_ok("+#"));
    CU_ASSERT_FALSE(filter_ok("a/b+/c"));
    CU_ASSERT_FALSE(topic_filter_is_valid("\0", 1, 200));
}

static void test_limits(void)
{
    char *t = malloc(65536);

    UNIT_NEED(t != NULL);
    memset(t, 'x', 65536);
    CU_ASSERT_TRUE(topic_name_is_valid(t, 65535, 1));
    CU_ASSERT_FALSE(topic_name_is_valid(t, 65536, 1));
    CU_ASSERT_TRUE(topic_filter_is_valid(t, 65535, 1));
    CU_ASSERT_FALSE(topic_filter_is_valid(t, 65536, 1));
    memset(t, '/', 65536);
    CU_ASSERT_TRUE(topic_name_is_valid(t, 65535, 65535));
    CU_ASSERT_FALSE(topic_name_is_valid(t, 65535, 65534));
    CU_ASSERT_TRUE(topic_filter_is_valid(t, 200, 200));
    CU_ASSERT_FALSE(topic_filter_is_valid(t, 201, 200));
    CU_ASSERT_TRUE(topic_filter_is_valid("a/#", 3, 1));
    CU_ASSERT_FALSE(topic_filter_is_valid("a/b/#", 5, 1));
    free(t);
}

static void test_matching(void)
{
    CU_ASSERT_TRUE(match("a/b", "a/b"));
    CU_ASSERT_FALSE(match("a/b", "a/bc"));
    CU_ASSERT_FALSE(match("a/bc", "a/b"));
    CU_ASSERT_FALSE(match("a/b", "a/B"));
    CU_ASSERT_TRUE(match("sport/#", "sport")); /* [MQTT-4.7.1-2] */
    CU_ASSERT_TRUE(match("sport/#", "sport/"));
    CU_ASSERT_TRUE(match("sport/#", "sport/tennis/player"));
    CU_ASSERT_FALSE(match("sport/#", "sports"));
    CU_ASSERT_TRUE(match("sport/+", "sport/"));
    CU_ASSERT_FALSE(match("sport/+", "sport")); /* [MQTT-4.7.1-3] */
    CU_ASSERT_FALSE(match("sport/+", "sport/a/b"));
    CU_ASSERT_TRUE(match("+/+", "/finance"));
    CU_ASSERT_TRUE(match("/+", "/finance"));
    CU_ASSERT_FALSE(match("+", "/finance"));
    CU_ASSERT_TRUE(match("#", "/"));
    CU_ASSERT_TRUE(match("+/#", "a"));
    CU_ASSERT_FALSE(match("+/+/#", "a"));
    CU_ASSERT_TRUE(match("a/+/c", "a//c"));
    CU_ASSERT_TRUE(match("a/", "a/"));
    CU_ASSERT_FALSE(match("a/", "a"));
    CU_ASSERT_FALSE(match("a", "a/"));
}

static void test_dollar(void) /* [MQTT-4.7.2-1] */
{
    CU_ASSERT_FALSE(match("#", "$SYS/x"));
    CU_ASSERT_FALSE(match("+/x", "$SYS/x"));
    CU_ASSERT_FALSE(match("+", "$SYS"));
    CU_ASSERT_TRUE(match("$SYS/#", "$SYS/x"));
    CU_ASSERT_TRUE(match("$SYS/#", "$SYS"));
    CU_ASSERT_TRUE(match("$SYS/+", "$SYS/x"));
    CU_ASSERT_TRUE(match("#", "a/$SYS"));
}

static void test_shared(void) /* [MQTT-4.8.2-1,2] */
{
    static const char *const bad[] = {"$share/",    "$share//f",    "$share/g",   "$share/g/",
                                      "$share/+/f", "$share/a#b/f", "$share/a+/f"};
    const char *group;
    const char *filter;
    size_t gn;
    size_t fn;
    bool shared;

    CU_ASSERT_TRUE(topic_split_shared("$share/g/a/+/#", 14, &shared, &group, &gn, &filter, &fn));
    CU_ASSERT_TRUE(shared);
    CU_ASSERT(gn == 1 && group[0] == 'g');
    CU_ASSERT(fn == 5 && memcmp(filter, "a/+/#", 5) == 0);
    CU_ASSERT_TRUE(topic_split_shared("$share/g//", 10, &shared, &group, &gn, &filter, &fn));
    CU_ASSERT(shared && fn == 1 && filter[0] == '/');
    CU_ASSERT_TRUE(topic_split_shared("$shared/g/a", 11, &shared, &group, &gn, &filter, &fn));
    CU_ASSERT(!shared && fn == 11 && gn == 0);
    CU_ASSERT_TRUE(topic_split_shared("$share", 6, &shared, &group, &gn, &filter, &fn));
    CU_ASSERT_FALSE(shared);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        CU_ASSERT_FALSE(
            topic_split_shared(bad[i], strlen(bad[i]), &shared, &group, &gn, &filter, &fn));
        CU_ASSERT_TRUE(shared);
    }
}

/* Whatever stands where, and however long the name is: it is looked at in words. */
static void test_name_by_places(void)
{
    static const char forbidden[] = {'+', '#', '\0'};
    char t[40];

    for (size_t n = 1; n <= sizeof(t); n++) {
        memset(t, 'a', n);
        CU_ASSERT_TRUE(topic_name_is_valid(t, n, 1));
        for (size_t i = 0; i < n; i++) {
            for (size_t k = 0; k < sizeof(forbidden); k++) {
                t[i] = forbidden[k];
                CU_ASSERT_FALSE(topic_name_is_valid(t, n, 200));
                CU_ASSERT_TRUE(topic_name_is_valid(t, i, 1) || i == 0); /* behind the end */
            }
            t[i] = (char)(i % 2 == 0 ? 0xff : '/' + 1);
            CU_ASSERT_TRUE(topic_name_is_valid(t, n, 1));
            t[i] = 'a';
        }
        memset(t, '/', n);
        CU_ASSERT_TRUE(topic_name_is_valid(t, n, (unsigned)n));
        CU_ASSERT_FALSE(topic_name_is_valid(t, n, (unsigned)n - 1));
    }
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(name_by_places)
    UNIT_TEST(names)
    UNIT_TEST(filters)
    UNIT_TEST(limits)
    UNIT_TEST(matching)
    UNIT_TEST(dollar)
    UNIT_TEST(shared)
UNIT_TESTS_END
