/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/subscribers.h"

#include "routing/rcu.h"
#include "tests/support/unit.h"
#include "tests/unit/routing/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fixture {
    struct tree *tree;
    struct subscribers *subs;
};

static const struct sub_options plain = {.qos = 1};
static const struct sub_options durable = {.qos = 2, .durable = true};

static struct fixture begin(void)
{
    struct fixture f = {.tree = tree_create()};

    UNIT_NEED(f.tree != NULL);
    f.subs = subscribers_create(f.tree, 5, 77);
    UNIT_NEED(f.subs != NULL);
    rcu_register();
    return f;
}

static void end(struct fixture *f)
{
    struct tree_stats st;

    subscribers_destroy(f->subs);
    tree_stats(f->tree, &st);
    CU_ASSERT_EQUAL(st.filters, 0);
    rcu_unregister();
    tree_destroy(f->tree);
}

static struct sub *put(struct fixture *f, struct sub_owner *list, uint64_t owner,
                       const char *filter, const struct sub_options *o, enum subs_rc expected)
{
    struct sub *sub = NULL;

    CU_ASSERT_EQUAL(subscribers_put(f->subs, list, owner, filter, strlen(filter), o, &sub),
                    expected);
    UNIT_NEED(sub != NULL);
    return sub;
}

static struct sub *find(const struct fixture *f, uint64_t owner, const char *filter)
{
    return subscribers_find(f->subs, owner, filter, strlen(filter));
}

/* The kinds this shard has in the tree for a topic. */
static unsigned kinds(const struct fixture *f, const char *topic)
{
    struct match *m = tree_match(f->tree, topic, strlen(topic));
    unsigned k = 0;

    UNIT_NEED(m != NULL);
    CU_ASSERT(m->ntargets <= 1);
    if (m->ntargets == 1) {
        CU_ASSERT_EQUAL(m->targets[0].shard, 5);
        k = m->targets[0].kinds;
    }
    match_unref(m);
    return k;
}

static struct filter_subs *filter_of(const struct fixture *f, const char *filter)
{
    uint64_t id;

    if (tree_find(f->tree, filter, strlen(filter), &id) == NULL) {
        return NULL;
    }
    return subscribers_of_filter(f->subs, id);
}

static void test_put_and_replace(void)
{
    struct fixture f = begin();
    struct sub_owner a = {0};
    struct sub_owner b = {0};
    struct sub *s1 = put(&f, &a, 1, "x/+", &plain, SUBS_NEW);
    struct sub *s2 = put(&f, &b, 2, "x/+", &plain, SUBS_NEW);
    struct sub_options o = {.qos = 2, .no_local = true, .id = 9};
    char text[8];

    CU_ASSERT(s1 != s2 && s1->filter == s2->filter);
    CU_ASSERT(s1->pos == 0 && s2->pos == 1 && s1->owner == 1 && s1->floor == 0);
    s1->floor = 99;
    CU_ASSERT_PTR_EQUAL(put(&f, &a, 1, "x/+", &o, SUBS_REPLACED), s1);
    CU_ASSERT(s1->qos == 2 && s1->no_local && s1->id == 9 && s1->pos == 0);
    CU_ASSERT_EQUAL(s1->floor, 99);
    CU_ASSERT(a.count == 1 && a.first == s1);
    CU_ASSERT_EQUAL(subscribers_count(f.subs), 2);
    CU_ASSERT_PTR_EQUAL(find(&f, 1, "x/+"), s1);
    CU_ASSERT_PTR_EQUAL(find(&f, 2, "x/+"), s2);
    CU_ASSERT_PTR_NULL(find(&f, 3, "x/+"));
    CU_ASSERT_PTR_NULL(find(&f, 1, "x/#"));
    CU_ASSERT_EQUAL(sub_filter_text(s1, text, sizeof(text)), 3);
    CU_ASSERT_EQUAL(memcmp(text, "x/+", 3), 0);
    CU_ASSERT_EQUAL(sub_filter_text(s1, text, 2), 2);
    end(&f);
}

static void test_delivery_lookup(void)
{
    struct fixture f = begin();
    struct sub_owner a = {0};
    struct sub_owner b = {0};
    struct sub *s1 = put(&f, &a, 1, "x/+", &plain, SUBS_NEW);
    struct filter_subs *fs;
    struct match *m;

    put(&f, &b, 2, "x/y", &plain, SUBS_NEW);
    m = tree_match(f.tree, "x/q", 3);
    UNIT_NEED(m != NULL && m->ntargets == 1 && m->targets[0].count == 1);
    fs = subscribers_of_filter(f.subs, match_ids(m)[0]);
    UNIT_NEED(fs != NULL);
    CU_ASSERT_EQUAL(filter_subs_id(fs), match_ids(m)[0]);
    CU_ASSERT_EQUAL(filter_subs_end(fs), 1);
    CU_ASSERT_PTR_EQUAL(filter_subs_at(fs, 0), s1);
    CU_ASSERT_PTR_EQUAL(subscribers_of_owner(f.subs, 1, match_ids(m)[0]), s1);
    CU_ASSERT_PTR_NULL(subscribers_of_owner(f.subs, 2, match_ids(m)[0]));
    subscribers_remove(f.subs, &a, s1);
    CU_ASSERT_PTR_NULL(subscribers_of_filter(f.subs, match_ids(m)[0])); /* simply skipped */
    CU_ASSERT(a.first == NULL && a.count == 0);
    match_unref(m);
    end(&f);
}

static void note_owner(uint64_t owner)
{
    CU_ASSERT(owner >= 1);
}

/*
 * 1000 filters, found by id and then by hint; a hint whose filter has gone, whose place somebody
 * else has or whose memory was given back leads nowhere.
 */
static void test_hints(void)
{
    enum { N = 1000 };
    struct fixture f = begin();
    struct sub_owner o = {0};
    uint64_t ids[N];
    uint64_t hints[N] = {0};
    struct filter_subs *first[N];
    struct filter_subs *again[N];
    struct sub *subs[N];
    char text[16];

    for (unsigned i = 0; i < N; i++) {
        (void)snprintf(text, sizeof(text), "f/%u", i);
        subs[i] = put(&f, &o, i + 1, text, &plain, SUBS_NEW);
        ids[i] = filter_subs_id(subs[i]->filter);
    }
    subscribers_of_filters(f.subs, ids, hints, N, first);
    subscribers_of_filters(f.subs, ids, hints, N, again);
    for (unsigned i = 0; i < N; i++) {
        CU_ASSERT_PTR_EQUAL(first[i], subs[i]->filter);
        CU_ASSERT_PTR_EQUAL(again[i], first[i]);
        CU_ASSERT(hints[i] != 0);
    }
    for (unsigned step = SUBS_FETCH_FILTER; step <= SUBS_FETCH_OWNER; step++) {
        subscribers_fetch(f.subs, ids, hints, N, (enum subs_fetch)step, note_owner);
    }
    for (unsigned i = 0; i < N; i++) { /* all but the first ten and every hundredth */
        if (i >= 10 && i % 100 != 0) {
            subscribers_remove(f.subs, &o, subs[i]);
        }
    }
    for (unsigned i = 0; i < 300; i++) { /* others in some of their places */
        (void)snprintf(text, sizeof(text), "g/%u", i);
        put(&f, &o, i + 1, text, &plain, SUBS_NEW);
    }
    subscribers_of_filters(f.subs, ids, hints, N, again);
    for (unsigned i = 0; i < N; i++) {
        CU_ASSERT_PTR_EQUAL(again[i], i >= 10 && i % 100 != 0 ? NULL : first[i]);
    }
    end(&f);
}

#define OWNER(n) ((n)*UINT64_C(0x10)) /* as pointers are */

static bool learn(struct fixture *f, const uint64_t *ids, uint64_t *hints, uint32_t n,
                  uint32_t *stamp)
{
    struct filter_subs *found[4];

    subscribers_of_filters(f->subs, ids, hints, n, found);
    subscribers_learn(f->subs, found, hints, n, stamp);
    return subscribers_know(f->subs, hints, n, *stamp);
}

/* Three filters with a subscription each are known until one of them changes, whatever it is. */
static void test_known(void)
{
    static const struct sub_options second = {
        .qos = 2, .no_local = true, .retain_as_published = true};
    static const struct sub_options identified = {.qos = 1, .id = 7};
    struct fixture f = begin();
    struct sub_owner o = {0};
    struct sub_owner other = {0};
    struct sub *subs[3];
    uint64_t ids[3];
    uint64_t hints[3] = {0};
    uint32_t stamp = 0;
    struct filter_subs *fs;

    subs[0] = put(&f, &o, OWNER(1), "a/b", &plain, SUBS_NEW);
    subs[1] = put(&f, &o, HINT_OWNER, "a/+", &second, SUBS_NEW);
    subs[2] = put(&f, &o, OWNER(3), "a/#", &durable, SUBS_NEW);
    for (unsigned i = 0; i < 3; i++) {
        ids[i] = filter_subs_id(subs[i]->filter);
    }
    CU_ASSERT_FALSE(subscribers_know(f.subs, hints, 3, stamp));
    CU_ASSERT_TRUE(learn(&f, ids, hints, 3, &stamp));
    CU_ASSERT(hint_owner(hints[0]) == OWNER(1) && hint_owner(hints[1]) == HINT_OWNER);
    CU_ASSERT(hint_qos(hints[0]) == 1 && hint_qos(hints[1]) == 2 && hint_qos(hints[2]) == 2);
    CU_ASSERT(!hint_is_no_local(hints[0]) && hint_is_no_local(hints[1]));
    CU_ASSERT(!hint_retains_as_published(hints[0]) && hint_retains_as_published(hints[1]));
    put(&f, &o, OWNER(9), "a/c", &plain, SUBS_NEW); /* has to do with none of them */
    CU_ASSERT_TRUE(subscribers_know(f.subs, hints, 3, stamp));

    put(&f, &o, OWNER(1), "a/b", &second, SUBS_REPLACED);
    CU_ASSERT_FALSE(subscribers_know(f.subs, hints, 3, stamp));
    CU_ASSERT_TRUE(learn(&f, ids, hints, 3, &stamp));
    CU_ASSERT(hint_qos(hints[0]) == 2 && hint_is_no_local(hints[0]));

    put(&f, &o, OWNER(1), "a/b", &identified, SUBS_REPLACED); /* too much to say */
    CU_ASSERT_FALSE(learn(&f, ids, hints, 3, &stamp));
    put(&f, &o, OWNER(1), "a/b", &plain, SUBS_REPLACED);
    CU_ASSERT_TRUE(learn(&f, ids, hints, 3, &stamp));

    subs[0] = put(&f, &other, OWNER(2), "a/#", &plain, SUBS_NEW); /* two of them */
    CU_ASSERT_FALSE(learn(&f, ids, hints, 3, &stamp));
    subscribers_remove(f.subs, &other, subs[0]);
    CU_ASSERT_TRUE(learn(&f, ids, hints, 3, &stamp));

    fs = filter_of(&f, "a/+");
    UNIT_NEED(fs != NULL);
    CU_ASSERT_TRUE(learn(&f, ids, hints, 2, &stamp));
    filter_subs_pin(f.subs, fs);
    CU_ASSERT_FALSE(subscribers_know(f.subs, hints, 2, stamp));
    CU_ASSERT_FALSE(learn(&f, ids, hints, 2, &stamp));
    filter_subs_unpin(f.subs, fs);
    CU_ASSERT_TRUE(learn(&f, ids, hints, 2, &stamp));

    subscribers_remove(f.subs, &o, subs[1]);
    CU_ASSERT_FALSE(subscribers_know(f.subs, hints, 2, stamp));
    put(&f, &o, OWNER(5), "a/+", &plain, SUBS_NEW); /* another filter by now */
    CU_ASSERT_FALSE(subscribers_know(f.subs, hints, 2, stamp));

    subs[0] = put(&f, &other, HINT_OWNER + 0x10, "far", &plain, SUBS_NEW); /* no room for it */
    ids[0] = filter_subs_id(subs[0]->filter);
    CU_ASSERT_FALSE(learn(&f, ids, hints, 1, &stamp));
    end(&f);
}

/* Slabs of filters that have gone are given back; hints into them lead nowhere. */
static void test_slabs_are_given_back(void)
{
    struct fixture f = begin();
    struct sub_owner o = {0};
    size_t few;
    char text[16];
    struct filter_subs *found;
    uint64_t id = 0;
    uint64_t hint = 0;

    put(&f, &o, 1, "stays", &plain, SUBS_NEW);
    few = subscribers_bytes(f.subs);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 5000; i++) {
            (void)snprintf(text, sizeof(text), "f/%u", i);
            put(&f, &o, 2, text, &plain, SUBS_NEW);
        }
        CU_ASSERT(subscribers_bytes(f.subs) > few + 5000u * (sizeof(struct sub) + 48));
        id = filter_subs_id(o.first->filter);
        hint = 0;
        subscribers_of_filters(f.subs, &id, &hint, 1, &found);
        CU_ASSERT_PTR_EQUAL(found, o.first->filter);
        while (o.count > 1) {
            subscribers_remove(f.subs, &o, o.first);
            rcu_quiescent();
        }
        CU_ASSERT(subscribers_bytes(f.subs) < few + 50000);
        for (unsigned step = SUBS_FETCH_FILTER; step <= SUBS_FETCH_OWNER; step++) {
            subscribers_fetch(f.subs, &id, &hint, 1, (enum subs_fetch)step, note_owner);
        }
        subscribers_of_filters(f.subs, &id, &hint, 1, &found);
        CU_ASSERT_PTR_NULL(found);
    }
    end(&f);
}

/* Plain while anybody is, durable while anybody is, and gone with the last one. */
static void test_kinds(void)
{
    struct fixture f = begin();
    struct sub_owner o[3] = {0};
    struct sub *s[3];
    uint64_t gen;

    s[0] = put(&f, &o[0], 1, "t", &plain, SUBS_NEW);
    CU_ASSERT_EQUAL(kinds(&f, "t"), TREE_PLAIN);
    s[1] = put(&f, &o[1], 2, "t", &durable, SUBS_NEW);
    CU_ASSERT_EQUAL(kinds(&f, "t"), TREE_PLAIN | TREE_DURABLE);
    gen = tree_generation(f.tree, "t", 1);
    s[2] = put(&f, &o[2], 3, "t", &durable, SUBS_NEW);
    subscribers_remove(f.subs, &o[2], s[2]);
    CU_ASSERT_EQUAL(tree_generation(f.tree, "t", 1), gen); /* no kind came or went */
    put(&f, &o[0], 1, "t", &durable, SUBS_REPLACED);
    CU_ASSERT_EQUAL(kinds(&f, "t"), TREE_DURABLE);
    put(&f, &o[1], 2, "t", &plain, SUBS_REPLACED);
    CU_ASSERT_EQUAL(kinds(&f, "t"), TREE_PLAIN | TREE_DURABLE);
    subscribers_remove(f.subs, &o[0], s[0]);
    CU_ASSERT_EQUAL(kinds(&f, "t"), TREE_PLAIN);
    subscribers_remove(f.subs, &o[1], s[1]);
    CU_ASSERT_EQUAL(kinds(&f, "t"), 0);
    CU_ASSERT_EQUAL(subscribers_count(f.subs), 0);
    end(&f);
}

/* A pinned filter keeps positions; the last unpin closes the holes. */
static void test_pins(void)
{
    struct fixture f = begin();
    struct sub_owner o[6] = {0};
    struct sub *s[6];
    struct filter_subs *fs;

    for (uint64_t i = 0; i < 5; i++) {
        s[i] = put(&f, &o[i], i + 1, "t", &plain, SUBS_NEW);
    }
    fs = filter_of(&f, "t");
    UNIT_NEED(fs != NULL);
    filter_subs_pin(f.subs, fs);
    filter_subs_pin(f.subs, fs);
    subscribers_remove(f.subs, &o[1], s[1]);
    subscribers_remove(f.subs, &o[4], s[4]);
    CU_ASSERT_EQUAL(filter_subs_end(fs), 5);
    CU_ASSERT_PTR_NULL(filter_subs_at(fs, 1));
    CU_ASSERT_PTR_NULL(filter_subs_at(fs, 4));
    CU_ASSERT_PTR_EQUAL(filter_subs_at(fs, 3), s[3]);
    s[5] = put(&f, &o[5], 6, "t", &plain, SUBS_NEW);
    CU_ASSERT_PTR_EQUAL(filter_subs_at(fs, 5), s[5]); /* at the end */
    filter_subs_unpin(f.subs, fs);
    CU_ASSERT_EQUAL(filter_subs_end(fs), 6);
    filter_subs_unpin(f.subs, fs);
    CU_ASSERT_EQUAL(filter_subs_end(fs), 4);
    for (uint32_t i = 0; i < 4; i++) {
        UNIT_NEED(filter_subs_at(fs, i) != NULL);
        CU_ASSERT_EQUAL(filter_subs_at(fs, i)->pos, i);
    }
    subscribers_remove(f.subs, &o[5], s[5]);
    CU_ASSERT_EQUAL(filter_subs_end(fs), 3);
    end(&f);
}

/* The last subscription goes while a delivery is paused: the interest goes at once, the memory with
 * the pin. */
static void test_pinned_to_the_end(void)
{
    struct fixture f = begin();
    struct sub_owner a = {0};
    struct sub *s = put(&f, &a, 1, "t", &plain, SUBS_NEW);
    struct filter_subs *old = filter_of(&f, "t");
    struct filter_subs *now;

    UNIT_NEED(old != NULL);
    filter_subs_pin(f.subs, old);
    subscribers_remove(f.subs, &a, s);
    CU_ASSERT_EQUAL(kinds(&f, "t"), 0);
    CU_ASSERT_PTR_NULL(subscribers_of_filter(f.subs, filter_subs_id(old)));
    CU_ASSERT_EQUAL(filter_subs_end(old), 0); /* nobody is left */
    CU_ASSERT_PTR_NULL(filter_subs_at(old, 0));
    s = put(&f, &a, 1, "t", &plain, SUBS_NEW); /* again: a filter_subs of its own */
    now = filter_of(&f, "t");
    CU_ASSERT(now != NULL && now != old);
    CU_ASSERT_PTR_EQUAL(filter_subs_at(now, 0), s);
    CU_ASSERT_PTR_NULL(filter_subs_at(old, 0));
    filter_subs_unpin(f.subs, old);
    CU_ASSERT_PTR_EQUAL(find(&f, 1, "t"), s);
    end(&f);
}

/* The same while another shard keeps the node, and with it the id, alive. */
static void test_pinned_with_another_shard(void)
{
    struct fixture f = begin();
    struct sub_owner a = {0};
    struct sub *s;
    struct filter_subs *old;
    struct tree_node *n;
    uint64_t id;

    n = tree_set(f.tree, "t", 1, 9, TREE_PLAIN, &id);
    UNIT_NEED(n != NULL);
    s = put(&f, &a, 1, "t", &plain, SUBS_NEW);
    old = filter_of(&f, "t");
    UNIT_NEED(old != NULL);
    CU_ASSERT_EQUAL(filter_subs_id(old), id);
    filter_subs_pin(f.subs, old);
    subscribers_remove(f.subs, &a, s);
    s = put(&f, &a, 1, "t", &plain, SUBS_NEW);
    CU_ASSERT_PTR_NOT_EQUAL(filter_of(&f, "t"), old);
    CU_ASSERT_PTR_EQUAL(subscribers_of_owner(f.subs, 1, id), s);
    filter_subs_unpin(f.subs, old);
    CU_ASSERT_PTR_EQUAL(filter_subs_at(filter_of(&f, "t"), 0), s);
    CU_ASSERT_TRUE(tree_change(f.tree, n, 9, 0));
    end(&f);
}

static bool list_is_sound(const struct sub_owner *list, uint64_t owner)
{
    const struct sub *prev = NULL;
    uint32_t n = 0;

    for (const struct sub *s = list->first; s != NULL; prev = s, s = s->owner_next, n++) {
        if (s->owner_prev != prev || s->owner != owner || filter_subs_at(s->filter, s->pos) != s) {
            return false;
        }
    }
    return n == list->count;
}

#define OWNERS  20
#define FILTERS 60u

/* Random subscriptions, removals, pins: lists, positions and the tree agree with a table of
 * options. */
static void test_against_table(void)
{
    static char texts[FILTERS][WORDS_MAX];
    static bool there[OWNERS][FILTERS];
    static bool is_durable[OWNERS][FILTERS];
    struct fixture f = begin();
    struct sub_owner lists[OWNERS] = {0};
    struct filter_subs *pinned = NULL;
    uint64_t rng = 99;
    unsigned count = 0;

    for (unsigned i = 0; i < FILTERS; i++) {
        char text[WORDS_MAX];

        words_text(&rng, true, text);
        (void)snprintf(texts[i], WORDS_MAX, "%u/%.40s", i, text); /* no two alike */
    }
    for (int round = 0; round < 30000; round++) {
        unsigned o = words_below(&rng, OWNERS);
        unsigned i = words_below(&rng, FILTERS);
        unsigned wanted = 0;
        struct sub_options opts = {.durable = words_below(&rng, 2) == 0};
        uint64_t id;
        struct tree_node *node;

        if (there[o][i] && words_below(&rng, 3) > 0) {
            subscribers_remove(f.subs, &lists[o], find(&f, o + 1, texts[i]));
            there[o][i] = false;
            count--;
        } else {
            put(&f, &lists[o], o + 1, texts[i], &opts, there[o][i] ? SUBS_REPLACED : SUBS_NEW);
            count += !there[o][i];
            there[o][i] = true;
            is_durable[o][i] = opts.durable;
        }
        for (unsigned k = 0; k < OWNERS; k++) {
            CU_ASSERT_EQUAL(find(&f, k + 1, texts[i]) != NULL, there[k][i]);
            wanted |= !there[k][i] ? 0u : is_durable[k][i] ? TREE_DURABLE : TREE_PLAIN;
        }
        node = tree_find(f.tree, texts[i], strlen(texts[i]), &id);
        CU_ASSERT_EQUAL(node != NULL, wanted != 0);
        if (strpbrk(texts[i], "+#") == NULL && wanted != 0) {
            CU_ASSERT((kinds(&f, texts[i]) & wanted) == wanted);
        }
        CU_ASSERT_EQUAL(subscribers_count(f.subs), count);
        CU_ASSERT_TRUE(list_is_sound(&lists[o], o + 1));
        if (pinned == NULL && node != NULL && words_below(&rng, 20) == 0) {
            pinned = subscribers_of_filter(f.subs, id);
            filter_subs_pin(f.subs, pinned);
        } else if (pinned != NULL && words_below(&rng, 50) == 0) {
            filter_subs_unpin(f.subs, pinned);
            pinned = NULL;
        }
        rcu_quiescent();
    }
    if (pinned != NULL) {
        filter_subs_unpin(f.subs, pinned);
    }
    for (unsigned o = 0; o < OWNERS; o++) {
        while (lists[o].first != NULL) {
            subscribers_remove(f.subs, &lists[o], lists[o].first);
        }
        CU_ASSERT_EQUAL(lists[o].count, 0);
    }
    CU_ASSERT_EQUAL(subscribers_count(f.subs), 0);
    end(&f);
}

#define MANY 100000u

/* 100,000 of one filter, then of one owner: each step constant, so the whole is done in a moment.
 */
static void test_many(void)
{
    struct fixture f = begin();
    struct sub_owner *lists = calloc(MANY, sizeof(*lists));
    struct sub_owner one = {0};
    size_t empty = subscribers_bytes(f.subs);
    char filter[32];

    UNIT_NEED(lists != NULL);
    for (uint64_t i = 0; i < MANY; i++) {
        put(&f, &lists[i], i + 1, "hot", &plain, SUBS_NEW);
    }
    CU_ASSERT_EQUAL(filter_subs_end(filter_of(&f, "hot")), MANY);
    for (unsigned i = 0; i < MANY; i++) {
        unsigned k = i * 7919u % MANY; /* in no order */

        subscribers_remove(f.subs, &lists[k], lists[k].first);
    }
    CU_ASSERT_EQUAL(subscribers_count(f.subs), 0);
    for (unsigned i = 0; i < MANY; i++) {
        (void)snprintf(filter, sizeof(filter), "device/%u/state", i);
        put(&f, &one, 1, filter, &durable, SUBS_NEW);
    }
    CU_ASSERT_EQUAL(one.count, MANY);
    CU_ASSERT(subscribers_bytes(f.subs) < MANY * 160u);
    while (one.first != NULL) {
        subscribers_remove(f.subs, &one, one.first);
        rcu_quiescent();
    }
    CU_ASSERT(subscribers_bytes(f.subs) < empty + MANY); /* small pieces of tables stay */
    free(lists);
    end(&f);
}

/* The whole shard goes with subscriptions still there. */
static void test_destroy(void)
{
    struct fixture f = begin();
    struct sub_owner a = {0};
    struct sub_owner b = {0};

    put(&f, &a, 1, "x", &plain, SUBS_NEW);
    put(&f, &b, 2, "x", &durable, SUBS_NEW);
    put(&f, &a, 1, "y/#", &plain, SUBS_NEW);
    end(&f);
    subscribers_destroy(NULL);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(put_and_replace)
    UNIT_TEST(delivery_lookup)
    UNIT_TEST(hints)
    UNIT_TEST(known)
    UNIT_TEST(slabs_are_given_back)
    UNIT_TEST(kinds)
    UNIT_TEST(pins)
    UNIT_TEST(pinned_to_the_end)
    UNIT_TEST(pinned_with_another_shard)
    UNIT_TEST(against_table)
    UNIT_TEST(many)
    UNIT_TEST(destroy)
UNIT_TESTS_END
