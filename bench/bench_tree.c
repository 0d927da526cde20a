/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_tree [FILTERS | --counts] - one shard's subscriptions in the topic tree, one subscriber
 * each: time and memory per subscription, the longest single put, and what a match costs with and
 * without the cache.
 */
#include "bench/micro.h"
#include "routing/match_cache.h"
#include "routing/rcu.h"
#include "routing/subscribers.h"

#include <string.h>

#define TOPICS 1000000u
#define HOT    4096u /* topics that fit the cache */

struct figures {
    double put_ns, put_worst_ns, remove_ns;
    double bytes_each;
    double match_ns, match_instructions, match_ids;
    double hot_ns, hot_instructions;
    double cached_ns, cached_instructions;
};

/* Like a plant's: site/.../device/sensor, some filters with a wildcard. */
static size_t filter_text(uint64_t i, char *buf, size_t cap)
{
    static const char *const ends[] = {"state", "temp", "cmd/+", "#"};

    return (size_t)snprintf(buf, cap, "site%llu/dev%llu/%s", (unsigned long long)(i % 1000),
                            (unsigned long long)(i / 4), ends[i % 4]);
}

static size_t topic_text(uint64_t i, char *buf, size_t cap)
{
    static const char *const ends[] = {"state", "temp", "cmd/on", "log"};

    return (size_t)snprintf(buf, cap, "site%llu/dev%llu/%s", (unsigned long long)(i % 1000),
                            (unsigned long long)(i / 4), ends[i % 4]);
}

static void fill(struct subscribers *s, struct sub_owner *owner, uint64_t filters, bool time_each,
                 struct figures *f)
{
    const struct sub_options o = {.qos = 1};
    char text[64];

    for (uint64_t i = 0; i < filters; i++) {
        size_t n = filter_text(i, text, sizeof(text));
        double t = time_each ? micro_cpu_ns() : 0;
        struct sub *sub;

        MICRO_NEED(subscribers_put(s, owner, 1, text, n, &o, &sub) == SUBS_NEW);
        t = time_each ? micro_cpu_ns() - t : 0;
        f->put_worst_ns = t > f->put_worst_ns ? t : f->put_worst_ns;
        if (i % 64 == 0) {
            rcu_quiescent();
        }
    }
}

static void empty(struct subscribers *s, struct sub_owner *owner)
{
    while (owner->first != NULL) {
        subscribers_remove(s, owner, owner->first);
        if (owner->count % 64 == 0) {
            rcu_quiescent();
        }
    }
}

static void settle(void)
{
    rcu_offline();
    rcu_drain();
    rcu_drain();
    rcu_online();
}

/* Twice: the first time on the whole, the second time one by one, since the clock takes its time as
 * well. */
static void put_all(struct subscribers *s, struct sub_owner *owner, uint64_t filters,
                    struct figures *f)
{
    size_t heap = micro_heap_bytes();
    double begin = micro_cpu_ns();

    fill(s, owner, filters, false, f);
    f->put_ns = (micro_cpu_ns() - begin) / (double)filters;
    settle();
    f->bytes_each = (double)(micro_heap_bytes() - heap) / (double)filters;
    begin = micro_cpu_ns();
    empty(s, owner);
    f->remove_ns = (micro_cpu_ns() - begin) / (double)filters;
    settle();
    fill(s, owner, filters, true, f);
    settle();
}

struct topic {
    char text[60];
    uint32_t n;
};

static struct topic *make_topics(uint64_t filters)
{
    struct topic *t = calloc(TOPICS, sizeof(*t));
    uint64_t rng = MICRO_SEED;

    MICRO_NEED(t != NULL);
    for (unsigned i = 0; i < TOPICS; i++) {
        t[i].n = (uint32_t)topic_text(micro_random(&rng) % filters, t[i].text, sizeof(t[i].text));
    }
    return t;
}

/* Nanoseconds and instructions for each of n matches, over the first `among` topics again and
 * again. */
static void match_each(const struct tree *tree, const struct topic *t, unsigned among, unsigned n,
                       double *ns, double *instructions, double *ids)
{
    int fd = micro_count_open();
    double count = micro_count_read(fd);
    double begin = micro_cpu_ns();
    uint64_t found = 0;

    for (unsigned i = 0; i < n; i++) {
        struct match *m = tree_match(tree, t[i % among].text, t[i % among].n);

        MICRO_NEED(m != NULL);
        found += m->ntargets > 0 ? m->targets[0].count : 0;
        match_unref(m);
    }
    *ns = (micro_cpu_ns() - begin) / n;
    *instructions = (micro_count_read(fd) - count) / n;
    *ids = (double)found / n;
}

static void cached_each(const struct tree *tree, const struct topic *t, struct figures *f)
{
    struct match_cache *c = match_cache_create(tree, HOT * 4, 0, MICRO_SEED);
    int fd = micro_count_open();
    unsigned n = 0;
    double begin;
    double count;

    MICRO_NEED(c != NULL);
    for (unsigned i = 0; i < HOT * 64; i++) { /* until it has grown */
        MICRO_NEED(match_cache_get(c, t[i % HOT].text, t[i % HOT].n) != NULL);
    }
    count = micro_count_read(fd);
    begin = micro_cpu_ns();
    for (; n < TOPICS * 4; n++) {
        MICRO_NEED(match_cache_get(c, t[n % HOT].text, t[n % HOT].n) != NULL);
    }
    f->cached_ns = (micro_cpu_ns() - begin) / n;
    f->cached_instructions = (micro_count_read(fd) - count) / n;
    match_cache_destroy(c);
}

/* ---- --counts ---- */

#define COUNTED 4000u /* filters */

struct counted {
    struct tree *tree;
    struct subscribers *subs;
    struct sub_owner owner;
    struct match_cache *cache;
    struct topic *topics;
};

static void count_put(void *arg, unsigned n)
{
    struct counted *c = arg;
    struct figures f = {0};

    fill(c->subs, &c->owner, n, false, &f);
}

static void count_remove(void *arg, unsigned n)
{
    struct counted *c = arg;

    MICRO_NEED(c->owner.count == n);
    empty(c->subs, &c->owner);
}

static void count_match(void *arg, unsigned n)
{
    const struct counted *c = arg;

    for (unsigned i = 0; i < n; i++) {
        struct match *m = tree_match(c->tree, c->topics[i].text, c->topics[i].n);

        MICRO_NEED(m != NULL);
        match_unref(m);
    }
}

static void count_cached(void *arg, unsigned n)
{
    const struct counted *c = arg;

    for (unsigned i = 0; i < n; i++) {
        const struct topic *t = &c->topics[i % 256];

        MICRO_NEED(match_cache_get(c->cache, t->text, t->n) != NULL);
    }
}

static int counts(void)
{
    struct counted c = {.tree = tree_create(), .topics = make_topics(COUNTED)};

    MICRO_NEED(c.tree != NULL);
    c.subs = subscribers_create(c.tree, 0, MICRO_SEED);
    c.cache = match_cache_create(c.tree, 1024, 0, MICRO_SEED);
    MICRO_NEED(c.subs != NULL && c.cache != NULL);
    rcu_register();
    micro_begin("tree");
    micro_simple("put", COUNTED, count_put, &c);
    micro_simple("match", COUNTED, count_match, &c);
    count_cached(&c, 256 * 64); /* until it has grown */
    micro_simple("match_cached", COUNTED, count_cached, &c);
    micro_simple("remove", COUNTED, count_remove, &c);
    micro_end();
    match_cache_destroy(c.cache);
    subscribers_destroy(c.subs);
    rcu_unregister();
    tree_destroy(c.tree);
    free(c.topics);
    return 0;
}

static int measure(uint64_t filters)
{
    struct tree *tree = tree_create();
    struct subscribers *s = subscribers_create(tree, 0, MICRO_SEED);
    struct sub_owner owner = {0};
    struct figures f = {0};
    struct tree_stats st;
    struct topic *t;
    double hot_ids;

    MICRO_NEED(filters > 0 && tree != NULL && s != NULL);
    rcu_register();
    put_all(s, &owner, filters, &f);
    tree_stats(tree, &st);
    t = make_topics(filters);
    match_each(tree, t, TOPICS, TOPICS, &f.match_ns, &f.match_instructions, &f.match_ids);
    match_each(tree, t, HOT, TOPICS, &f.hot_ns, &f.hot_instructions, &hot_ids);
    cached_each(tree, t, &f);
    printf("{\"bench\": \"tree\", \"filters\": %llu, \"nodes\": %llu, \"bytes_per_subscription\": "
           "%.1f, "
           "\"tree_bytes_per_node\": %.1f, \"put_ns\": %.0f, \"put_worst_us\": %.0f, "
           "\"remove_ns\": %.0f, "
           "\"match_cold_ns\": %.0f, \"match_cold_instructions\": %.0f, \"ids_per_match\": %.2f, "
           "\"match_hot_ns\": %.0f, \"match_hot_instructions\": %.0f, \"match_cached_ns\": %.1f, "
           "\"match_cached_instructions\": %.0f}\n",
           (unsigned long long)filters, (unsigned long long)st.nodes, f.bytes_each,
           (double)st.bytes / (double)st.nodes, f.put_ns, f.put_worst_ns / 1e3, f.remove_ns,
           f.match_ns, f.match_instructions, f.match_ids, f.hot_ns, f.hot_instructions, f.cached_ns,
           f.cached_instructions);
    free(t);
    subscribers_destroy(s);
    rcu_unregister();
    tree_destroy(tree);
    return 0;
}

int main(int argc, char **argv)
{
    if (micro_wants_counts(argc, argv)) {
        return counts();
    }
    return measure(argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000);
}
