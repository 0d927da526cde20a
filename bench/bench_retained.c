/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_retained [TOPICS | --counts] - the retained index: time to set, replace, look up and
 * replay; memory beside the messages themselves.
 */
#include "bench/micro.h"
#include "routing/retained.h"

#include <string.h>

#define STRIPES 64u
#define LOOKS   500000u

static struct message *make(uint64_t i)
{
    char text[64];
    size_t n = (size_t)snprintf(text, sizeof(text), "site%llu/dev%llu/state",
                                (unsigned long long)(i % 1000), (unsigned long long)i);
    struct message *m = message_create(text, n, "12345678", 8, NULL, 0);

    MICRO_NEED(m != NULL);
    return m;
}

static void put(struct retained *r, struct message *m, enum retained_rc expected)
{
    struct retained_stripe *s = retained_lock(r, message_topic(m), m->topic_n);

    m->number = retained_take_number(s);
    MICRO_NEED(retained_put(s, m) == expected);
    retained_unlock(s);
}

/* Everything that matches; the wall time of the longest call goes to *worst. */
static size_t replay(struct retained *r, const char *filter, size_t n, double *worst)
{
    struct retained_cursor *c = retained_cursor_create(filter, n, UINT64_MAX);
    size_t total = 0;
    bool done = false;

    MICRO_NEED(c != NULL);
    while (!done) {
        struct message *out[64];
        double t = micro_now_ns();
        size_t got = retained_next(r, c, 0, out, 64, &done);

        t = micro_now_ns() - t;
        *worst = t > *worst ? t : *worst;
        for (size_t i = 0; i < got; i++) {
            message_unref(out[i]);
        }
        total += got;
    }
    retained_cursor_destroy(c);
    return total;
}

/* ---- --counts ---- */

#define COUNTED 4000u

struct counted {
    struct retained *index;
    struct message *all[COUNTED];
};

static void count_set(void *arg, unsigned n)
{
    struct counted *c = arg;

    for (unsigned i = 0; i < n; i++) {
        put(c->index, c->all[i], RETAINED_SET);
    }
}

static void count_replace(void *arg, unsigned n)
{
    struct counted *c = arg;

    for (unsigned i = 0; i < n; i++) {
        put(c->index, c->all[i], RETAINED_CHANGED);
    }
}

static void count_exact(void *arg, unsigned n)
{
    struct counted *c = arg;
    double ignored = 0;

    for (unsigned i = 0; i < n; i++) {
        const struct message *m = c->all[i];

        MICRO_NEED(replay(c->index, message_topic(m), m->topic_n, &ignored) == 1);
    }
}

static void count_all(void *arg, unsigned n)
{
    double ignored = 0;

    MICRO_NEED(replay(((struct counted *)arg)->index, "#", 1, &ignored) == n);
}

static int counts(void)
{
    static struct counted c;
    uint64_t rng = MICRO_SEED;

    c.index = retained_create(STRIPES, 0, 0, MICRO_SEED);
    MICRO_NEED(c.index != NULL);
    for (unsigned i = 0; i < COUNTED; i++) {
        c.all[i] = make((uint64_t)i * 7919 % COUNTED + micro_random(&rng) % 1000 * COUNTED);
    }
    micro_begin("retained");
    micro_simple("set", COUNTED, count_set, &c);
    micro_simple("replace", COUNTED, count_replace, &c);
    micro_simple("replay_exact", COUNTED, count_exact, &c);
    micro_simple("replay_all", COUNTED, count_all, &c);
    micro_end();
    for (unsigned i = 0; i < COUNTED; i++) {
        message_unref(c.all[i]);
    }
    retained_destroy(c.index);
    return 0;
}

static int measure(uint64_t topics)
{
    struct retained *r = retained_create(STRIPES, 0, 0, MICRO_SEED);
    struct message **all = calloc(topics, sizeof(*all));
    uint64_t rng = MICRO_SEED;
    size_t heap;
    double set_ns;
    double change_ns;
    double exact_ns;
    double all_ns;
    double site_us;
    double worst = 0;
    double ignored = 0;

    MICRO_NEED(r != NULL && all != NULL && topics > 1000);
    for (uint64_t i = 0; i < topics; i++) {
        all[i] = make(i);
    }
    for (uint64_t i = topics - 1; i > 0; i--) { /* they come in no order */
        uint64_t k = micro_random(&rng) % (i + 1);
        struct message *m = all[i];

        all[i] = all[k];
        all[k] = m;
    }
    heap = micro_heap_bytes();
    set_ns = micro_now_ns();
    for (uint64_t i = 0; i < topics; i++) {
        put(r, all[i], RETAINED_SET);
    }
    set_ns = (micro_now_ns() - set_ns) / (double)topics;
    heap = micro_heap_bytes() - heap;
    change_ns = micro_now_ns();
    for (unsigned i = 0; i < LOOKS; i++) {
        put(r, all[micro_random(&rng) % topics], RETAINED_CHANGED);
    }
    change_ns = (micro_now_ns() - change_ns) / LOOKS;
    exact_ns = micro_now_ns();
    for (unsigned i = 0; i < LOOKS; i++) {
        const struct message *m = all[micro_random(&rng) % topics];

        MICRO_NEED(replay(r, message_topic(m), m->topic_n, &ignored) == 1);
    }
    exact_ns = (micro_now_ns() - exact_ns) / LOOKS;
    all_ns = micro_now_ns();
    MICRO_NEED(replay(r, "#", 1, &worst) == topics);
    all_ns = (micro_now_ns() - all_ns) / (double)topics;
    site_us = micro_now_ns();
    MICRO_NEED(replay(r, "site7/+/state", 13, &worst) == (topics + 992) / 1000);
    site_us = (micro_now_ns() - site_us) / 1e3;
    printf("{\"bench\": \"retained\", \"topics\": %llu, \"index_bytes_per_topic\": %.1f, "
           "\"set_ns\": %.0f, "
           "\"replace_ns\": %.0f, \"replay_exact_ns\": %.0f, \"replay_all_ns_each\": %.0f, "
           "\"replay_site_us\": %.0f, \"longest_call_us\": %.0f}\n",
           (unsigned long long)topics, (double)heap / (double)topics, set_ns, change_ns, exact_ns,
           all_ns, site_us, worst / 1e3);
    for (uint64_t i = 0; i < topics; i++) {
        message_unref(all[i]);
    }
    free(all);
    retained_destroy(r);
    return 0;
}

int main(int argc, char **argv)
{
    if (micro_wants_counts(argc, argv)) {
        return counts();
    }
    return measure(argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000);
}
