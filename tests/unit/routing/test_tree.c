/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/tree.h"

#include "routing/rcu.h"
#include "routing/topic.h"
#include "tests/support/unit.h"
#include "tests/unit/routing/same_match.h"
#include "tests/unit/routing/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tree_node *set(struct tree *t, const char *filter, unsigned shard, unsigned kinds)
{
    uint64_t id = 0;
    struct tree_node *n = tree_set(t, filter, strlen(filter), shard, kinds, &id);

    UNIT_NEED(n != NULL && id != 0);
    return n;
}

static uint64_t id_of(const struct tree *t, const char *filter)
{
    uint64_t id = 0;

    (void)tree_find(t, filter, strlen(filter), &id);
    return id;
}

static uint64_t generation(const struct tree *t, const char *topic)
{
    return tree_generation(t, topic, strlen(topic));
}

static size_t match_count(const struct tree *t, const char *topic)
{
    struct match *m = tree_match(t, topic, strlen(topic));
    size_t n = 0;

    UNIT_NEED(m != NULL);
    for (uint32_t i = 0; i < m->ntargets; i++) {
        n += m->targets[i].count;
    }
    match_unref(m);
    return n;
}

static struct tree *begin(void)
{
    struct tree *t = tree_create();

    UNIT_NEED(t != NULL);
    rcu_register();
    return t;
}

static void end(struct tree *t)
{
    rcu_unregister();
    tree_destroy(t);
}

static void test_empty(void)
{
    struct tree *t = begin();
    struct match *m = tree_match(t, "a/b", 3);
    struct tree_stats st;
    uint64_t id = 0;

    UNIT_NEED(m != NULL);
    CU_ASSERT_EQUAL(m->ntargets, 0);
    CU_ASSERT_EQUAL(m->refs, 1);
    match_unref(m);
    CU_ASSERT_PTR_NULL(tree_find(t, "a", 1, &id));
    CU_ASSERT_PTR_NULL(tree_find(t, "+", 1, &id));
    tree_stats(t, &st);
    CU_ASSERT(st.filters == 0 && st.nodes == 0 && st.bytes > 0);
    end(t);
    tree_destroy(NULL);
}

/* One topic, overlapping filters of two shards: ids grouped by shard, kinds united. */
static void test_overlap(void)
{
    struct tree *t = begin();
    struct match *m;

    set(t, "a/b", 7, TREE_PLAIN);
    set(t, "a/+", 7, TREE_DURABLE);
    set(t, "a/#", 3, TREE_SHARED);
    set(t, "#", 7, TREE_PLAIN);
    set(t, "a/b/c", 3, TREE_DURABLE);
    m = tree_match(t, "a/b", 3);
    UNIT_NEED(m != NULL && m->ntargets == 2);
    CU_ASSERT(m->targets[0].shard == 3 && m->targets[0].count == 1);
    CU_ASSERT_EQUAL(m->targets[0].kinds, TREE_SHARED);
    CU_ASSERT_EQUAL(match_ids(m)[m->targets[0].first], id_of(t, "a/#"));
    CU_ASSERT(m->targets[1].shard == 7 && m->targets[1].count == 3);
    CU_ASSERT_EQUAL(m->targets[1].kinds, TREE_PLAIN | TREE_DURABLE);
    CU_ASSERT_EQUAL(m->targets[0].first + m->targets[0].count, m->targets[1].first);
    match_ref(m, 1);
    match_unref(m);
    match_unref(m);
    end(t);
}

static void test_dollar_topics(void) /* [MQTT-4.7.2-1] */
{
    struct tree *t = begin();

    set(t, "#", 0, TREE_PLAIN);
    set(t, "+/x", 0, TREE_PLAIN);
    set(t, "+/#", 0, TREE_PLAIN);
    CU_ASSERT_EQUAL(match_count(t, "$SYS/x"), 0);
    CU_ASSERT_EQUAL(match_count(t, "a/x"), 3);
    set(t, "$SYS/#", 0, TREE_PLAIN);
    set(t, "$SYS/+", 0, TREE_PLAIN);
    CU_ASSERT_EQUAL(match_count(t, "$SYS/x"), 2);
    CU_ASSERT_EQUAL(match_count(t, "$SYS"), 1);
    CU_ASSERT_EQUAL(match_count(t, "a/$SYS"), 2);
    end(t);
}

static void test_hash_parent(void) /* [MQTT-4.7.1-2] */
{
    struct tree *t = begin();

    set(t, "sport/#", 0, TREE_PLAIN);
    set(t, "sport/+/#", 0, TREE_PLAIN);
    CU_ASSERT_EQUAL(match_count(t, "sport"), 1);
    CU_ASSERT_EQUAL(match_count(t, "sport/"), 2);
    CU_ASSERT_EQUAL(match_count(t, "sport/a"), 2);
    CU_ASSERT_EQUAL(match_count(t, "sport/a/b/c"), 2);
    CU_ASSERT_EQUAL(match_count(t, "sports"), 0);
    end(t);
}

static void test_text(void)
{
    static const char *const filters[] = {"a", "a/+/b/#", "/", "//", "#", "$SYS/x", "a//b", "+/"};
    struct tree *t = begin();
    char buf[32];

    for (size_t i = 0; i < sizeof(filters) / sizeof(*filters); i++) {
        struct tree_node *n = set(t, filters[i], 0, TREE_PLAIN);
        size_t len = strlen(filters[i]);

        memset(buf, '?', sizeof(buf));
        CU_ASSERT_EQUAL(tree_node_text(n, buf, sizeof(buf)), len);
        CU_ASSERT_EQUAL(memcmp(buf, filters[i], len), 0);
        CU_ASSERT_EQUAL(buf[len], '?');
        memset(buf, '?', sizeof(buf));
        CU_ASSERT_EQUAL(tree_node_text(n, buf, len - 1), len); /* cut */
        CU_ASSERT_EQUAL(memcmp(buf, filters[i], len - 1), 0);
        CU_ASSERT_EQUAL(buf[len - 1], '?');
        CU_ASSERT_EQUAL(tree_node_text(n, NULL, 0), len);
    }
    end(t);
}

/* An id is never used again: not while its node is there, not after it was freed and made again. */
static void test_ids(void)
{
    struct tree *t = begin();
    uint64_t last = 0;
    uint64_t id;

    for (int i = 0; i < 100; i++) {
        struct tree_node *n = tree_set(t, "a/b", 3, 1, TREE_PLAIN, &id);

        UNIT_NEED(n != NULL);
        CU_ASSERT(id > last);
        CU_ASSERT_EQUAL(id_of(t, "a/b"), id);
        last = id;
        CU_ASSERT_TRUE(tree_change(t, n, 1, 0));
        CU_ASSERT_EQUAL(id_of(t, "a/b"), 0);
        rcu_quiescent();
    }
    set(t, "a/b", 1, TREE_PLAIN);
    id = id_of(t, "a/b");
    set(t, "a/b", 2, TREE_PLAIN);
    CU_ASSERT_EQUAL(id_of(t, "a/b"), id);
    end(t);
}

/* What nobody needs goes, upwards to where somebody does; what is needed stays. */
static void test_pruning(void)
{
    struct tree *t = begin();
    struct tree_node *deep = set(t, "a/b/+/c/#", 0, TREE_PLAIN);
    struct tree_node *mid = set(t, "a/b", 0, TREE_PLAIN);
    struct tree_stats st;

    tree_stats(t, &st);
    CU_ASSERT(st.filters == 2 && st.nodes == 5);
    CU_ASSERT_TRUE(tree_change(t, mid, 0, 0)); /* stays as a way to the deep one */
    CU_ASSERT_EQUAL(match_count(t, "a/b"), 0);
    CU_ASSERT_EQUAL(match_count(t, "a/b/x/c"), 1);
    mid = set(t, "a/b", 0, TREE_PLAIN);
    CU_ASSERT_TRUE(tree_change(t, deep, 0, 0));
    CU_ASSERT_EQUAL(match_count(t, "a/b/x/c"), 0);
    CU_ASSERT_EQUAL(match_count(t, "a/b"), 1);
    rcu_offline();
    rcu_drain();
    rcu_drain(); /* a burial may have had another behind it */
    rcu_online();
    tree_stats(t, &st);
    CU_ASSERT(st.filters == 1 && st.nodes == 2);
    CU_ASSERT_TRUE(tree_change(t, mid, 0, 0));
    rcu_offline();
    rcu_drain();
    rcu_drain();
    rcu_online();
    tree_stats(t, &st);
    CU_ASSERT(st.filters == 0 && st.nodes == 0);
    end(t);
}

static unsigned kinds_of_shard(const struct tree *t, const char *topic, unsigned shard)
{
    struct match *m = tree_match(t, topic, strlen(topic));
    unsigned kinds = 0;

    UNIT_NEED(m != NULL);
    for (uint32_t i = 0; i < m->ntargets; i++) {
        kinds |= m->targets[i].shard == shard ? m->targets[i].kinds : 0;
    }
    match_unref(m);
    return kinds;
}

/* From one shard to 256 and back, past the step from the word to the array in both directions. */
static void test_many_shards(void)
{
    struct tree *t = begin();
    struct tree_node *n = NULL;

    for (unsigned s = 0; s < TREE_MAX_SHARDS; s++) {
        n = set(t, "x", s, 1 + s % 7);
        CU_ASSERT_EQUAL(match_count(t, "x"), s + 1);
        CU_ASSERT_EQUAL(kinds_of_shard(t, "x", s), 1 + s % 7);
    }
    for (unsigned s = 0; s < TREE_MAX_SHARDS; s++) {
        CU_ASSERT_EQUAL(kinds_of_shard(t, "x", s), 1 + s % 7);
        CU_ASSERT_TRUE(tree_change(t, n, s, 7 - s % 7));
        CU_ASSERT_EQUAL(kinds_of_shard(t, "x", s), 7 - s % 7);
    }
    for (unsigned s = TREE_MAX_SHARDS; s-- > 0;) {
        CU_ASSERT_EQUAL(match_count(t, "x"), s + 1);
        CU_ASSERT_EQUAL(kinds_of_shard(t, "x", s), 7 - s % 7);
        CU_ASSERT_TRUE(tree_change(t, n, s, 0));
        CU_ASSERT_EQUAL(kinds_of_shard(t, "x", s), 0);
        rcu_quiescent();
    }
    CU_ASSERT_EQUAL(id_of(t, "x"), 0);
    end(t);
}

/* Changes at `filter` move the generation of `topic` exactly if `moves`. */
static void expect_moves(const char *filter, const char *topic, bool moves)
{
    struct tree *t = begin();
    uint64_t was = generation(t, topic);
    struct tree_node *n = set(t, filter, 0, TREE_PLAIN);
    uint64_t is = generation(t, topic);

    CU_ASSERT_EQUAL(is != was, moves);
    set(t, filter, 0, TREE_PLAIN); /* the same again: nothing appears */
    CU_ASSERT_TRUE(tree_change(t, n, 0, TREE_PLAIN));
    CU_ASSERT_EQUAL(generation(t, topic), is);
    set(t, filter, 1, TREE_PLAIN); /* another shard */
    CU_ASSERT_EQUAL(generation(t, topic) != is, moves);
    is = generation(t, topic);
    set(t, filter, 0, TREE_PLAIN | TREE_DURABLE); /* another kind */
    CU_ASSERT_EQUAL(generation(t, topic) != is, moves);
    is = generation(t, topic);
    CU_ASSERT_TRUE(tree_change(t, n, 1, 0));
    CU_ASSERT_EQUAL(generation(t, topic) != is, moves);
    end(t);
}

static void test_generations(void)
{
    expect_moves("a", "a", true);
    expect_moves("a/#", "a", true);
    expect_moves("a/b", "a/b", true);
    expect_moves("a/b/#", "a/b", true);
    expect_moves("a/b/+/c", "a/b/x/c", true);
    expect_moves("a/+", "a/b", true);
    expect_moves("a/+/c", "a/b/c", true);
    expect_moves("a/#", "a/b/c/d", true);
    expect_moves("+", "a", true);
    expect_moves("#", "a/b/c", true);
    expect_moves("+/b", "a/b", true);
    expect_moves("/", "/", true);
    expect_moves("a/", "a/", true);
    expect_moves("$SYS/+", "$SYS/x", true);
    /* and not where it need not (hashes of so few labels hardly meet by chance) */
    expect_moves("b", "a", false);
    expect_moves("a/b", "a", false);
    expect_moves("a", "a/b", false);
    expect_moves("a/c", "a/b", false);
    expect_moves("b/#", "a/b", false);
    expect_moves("a/", "a", false);
    expect_moves("#", "$SYS/x", false);
}

/* ---- against a list ---- */

#define MODEL_MAX  400u
#define MODEL_ROOM 8u /* shards */

struct model {
    char filter[MODEL_MAX][WORDS_MAX];
    uint8_t kinds[MODEL_MAX][MODEL_ROOM];
    struct tree_node *node[MODEL_MAX];
    unsigned n;
};

static unsigned model_find(struct model *m, const char *filter)
{
    for (unsigned i = 0; i < m->n; i++) {
        if (strcmp(m->filter[i], filter) == 0) {
            return i;
        }
    }
    UNIT_NEED(m->n < MODEL_MAX);
    strcpy(m->filter[m->n], filter);
    return m->n++;
}

static bool model_has(const struct model *m, unsigned i)
{
    for (unsigned s = 0; s < MODEL_ROOM; s++) {
        if (m->kinds[i][s] != 0) {
            return true;
        }
    }
    return false;
}

static void random_change(struct tree *t, struct model *m, uint64_t *rng)
{
    char filter[WORDS_MAX];
    size_t n = words_text(rng, true, filter);
    unsigned i = m->n < MODEL_MAX - 1 ? model_find(m, filter) : words_below(rng, m->n);
    unsigned s = words_below(rng, MODEL_ROOM);
    uint64_t id;

    n = strlen(m->filter[i]);
    if (m->kinds[i][s] != 0 && words_below(rng, 3) > 0) {
        m->kinds[i][s] = (uint8_t)(words_below(rng, 3) == 0 ? words_below(rng, 8) : 0);
        CU_ASSERT_TRUE(tree_change(t, m->node[i], s, m->kinds[i][s]));
    } else {
        m->kinds[i][s] = (uint8_t)(1 + words_below(rng, 7));
        m->node[i] = tree_set(t, m->filter[i], n, s, m->kinds[i][s], &id);
    }
    CU_ASSERT_EQUAL(tree_find(t, m->filter[i], n, &id) != NULL, model_has(m, i));
    if (model_has(m, i)) {
        CU_ASSERT_PTR_EQUAL(tree_find(t, m->filter[i], n, &id), m->node[i]);
    }
}

static bool target_has(const struct match *m, const struct match_target *to, uint64_t id)
{
    unsigned times = 0;

    for (uint32_t i = 0; i < to->count; i++) {
        times += match_ids(m)[to->first + i] == id;
    }
    CU_ASSERT(times <= 1);
    return times == 1;
}

static void check_match(const struct tree *t, const struct model *m, const char *topic)
{
    struct match *got = tree_match(t, topic, strlen(topic));
    uint32_t target = 0;

    UNIT_NEED(got != NULL);
    for (unsigned s = 0; s < MODEL_ROOM; s++) {
        uint32_t count = 0;
        unsigned kinds = 0;

        for (unsigned i = 0; i < m->n; i++) {
            if (m->kinds[i][s] == 0 ||
                !topic_matches(m->filter[i], strlen(m->filter[i]), topic, strlen(topic))) {
                continue;
            }
            count++;
            kinds |= m->kinds[i][s];
            CU_ASSERT(target < got->ntargets && got->targets[target].shard == s);
            if (target < got->ntargets) {
                CU_ASSERT_TRUE(target_has(got, &got->targets[target], id_of(t, m->filter[i])));
            }
        }
        if (count > 0 && target < got->ntargets) {
            CU_ASSERT_EQUAL(got->targets[target].count, count);
            CU_ASSERT_EQUAL(got->targets[target].kinds, kinds);
            target++;
        }
    }
    CU_ASSERT_EQUAL(got->ntargets, target);
    match_unref(got);
}

static void test_against_list(void)
{
    static struct model m;
    struct tree *t = begin();
    uint64_t rng = 42;
    char topic[WORDS_MAX];
    struct tree_stats st;

    for (int i = 0; i < 6000; i++) {
        random_change(t, &m, &rng);
        words_text(&rng, false, topic);
        check_match(t, &m, topic);
        rcu_quiescent();
    }
    for (unsigned i = 0; i < m.n; i++) {
        for (unsigned s = 0; s < MODEL_ROOM; s++) {
            if (m.kinds[i][s] != 0) {
                CU_ASSERT_TRUE(tree_change(t, m.node[i], s, 0));
            }
        }
    }
    rcu_offline();
    rcu_drain();
    rcu_drain();
    rcu_online();
    tree_stats(t, &st);
    CU_ASSERT(st.filters == 0 && st.nodes == 0);
    end(t);
}

/* A generation that has not moved means that the match is the same. */
static void test_generation_covers_matches(void)
{
    static struct model m;
    static char topics[40][WORDS_MAX];
    static struct match *before[40];
    struct tree *t = begin();
    uint64_t rng = 11;
    unsigned unmoved = 0;

    for (unsigned i = 0; i < 40; i++) {
        size_t n = words_text(&rng, false, topics[i]);

        before[i] = tree_match(t, topics[i], n);
        UNIT_NEED(before[i] != NULL);
    }
    for (int round = 0; round < 1500; round++) {
        random_change(t, &m, &rng);
        for (unsigned i = 0; i < 40; i++) {
            struct match *now = tree_match(t, topics[i], strlen(topics[i]));

            UNIT_NEED(now != NULL);
            if (now->generation == before[i]->generation) {
                unmoved++;
                CU_ASSERT_TRUE(same_match(now, before[i]));
            }
            match_unref(before[i]);
            before[i] = now;
        }
        rcu_quiescent();
    }
    CU_ASSERT(unmoved > 1500u * 40 / 4);
    for (unsigned i = 0; i < 40; i++) {
        match_unref(before[i]);
    }
    end(t);
}

/* 65,535 levels, as topic and as filter: no recursion anywhere. */
static void test_deep(void)
{
    struct tree *t = begin();
    char *deep = malloc(65535);
    char *text = malloc(65535);
    struct tree_node *n;
    uint64_t id;
    struct match *m;

    UNIT_NEED(deep != NULL && text != NULL);
    memset(deep, '/', 65535);
    set(t, "#", 0, TREE_PLAIN);
    n = tree_set(t, deep, 65535, 0, TREE_PLAIN, &id);
    UNIT_NEED(n != NULL);
    m = tree_match(t, deep, 65535);
    UNIT_NEED(m != NULL && m->ntargets == 1);
    CU_ASSERT_EQUAL(m->targets[0].count, 2);
    match_unref(m);
    CU_ASSERT_EQUAL(tree_node_text(n, text, 65535), 65535);
    CU_ASSERT_EQUAL(memcmp(text, deep, 65535), 0);
    CU_ASSERT_TRUE(tree_change(t, n, 0, 0));
    n = tree_set(t, deep, 65535, 0, TREE_PLAIN, &id); /* left for tree_destroy() */
    UNIT_NEED(n != NULL);
    memset(deep, '+', 65535);
    for (size_t i = 1; i < 65535; i += 2) {
        deep[i] = '/';
    }
    n = tree_set(t, deep, 65535, 0, TREE_PLAIN, &id);
    UNIT_NEED(n != NULL);
    memset(deep, '/', 65535);
    m = tree_match(t, deep, 32767);
    UNIT_NEED(m != NULL && m->ntargets == 1);
    CU_ASSERT_EQUAL(m->targets[0].count, 2);
    match_unref(m);
    free(deep);
    free(text);
    end(t);
}

/* More hits than the stack has room for. */
static void test_wide(void)
{
    struct tree *t = begin();
    char filter[32];

    for (unsigned bits = 0; bits < 256; bits++) {
        size_t n = 0;

        for (unsigned i = 0; i < 8; i++) {
            filter[n++] = bits & (1u << i) ? '+' : 'x';
            filter[n++] = i == 7 ? '\0' : '/';
        }
        set(t, filter, bits % 3, TREE_PLAIN);
    }
    CU_ASSERT_EQUAL(match_count(t, "x/x/x/x/x/x/x/x"), 256);
    CU_ASSERT_EQUAL(match_count(t, "y/x/x/x/x/x/x/x"), 128);
    end(t);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(empty)
    UNIT_TEST(overlap)
    UNIT_TEST(dollar_topics)
    UNIT_TEST(hash_parent)
    UNIT_TEST(text)
    UNIT_TEST(ids)
    UNIT_TEST(pruning)
    UNIT_TEST(many_shards)
    UNIT_TEST(generations)
    UNIT_TEST(against_list)
    UNIT_TEST(generation_covers_matches)
    UNIT_TEST(deep)
    UNIT_TEST(wide)
UNIT_TESTS_END
