/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wild.c - a large population of subscriptions, exact and with wildcards, and who gets what of it.
 *
 * Topics are bench/RUN/xN/yN/zN. --matches filters match topic N and no other: they are of the
 * kinds below in turn, on as many clients, and each filter belongs to one topic. So the receivers
 * of a message are computed, and each client knows the next number due from each publisher; a
 * message too many, too few or out of order is none that is due.
 *
 * Connections stand before the first SUBSCRIBE, so that the growth of the broker's memory from then
 * on is that of its subscriptions.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/common.h"
#include "bench/load/course.h"
#include "bench/load/tally.h"

#define N NUMBER_MARK

static const char *const kinds[] = {
    "x" N "/y" N "/z" N, /* the topic itself */
    "x" N "/+/z" N,      "x" N "/y" N "/#",
    "+/y" N "/z" N,      "x" N "/y" N "/+",
    "x" N "/#",          "x" N "/+/+",
    "+/y" N "/#",        "+/+/z" N,
    "x" N "/+/#",        "x" N "/y" N "/z" N "/#",
    "+/y" N "/+",
};

#define KINDS      (sizeof(kinds) / sizeof(kinds[0]))
#define FILTER_MAX 64u

struct wild {
    struct herd publishers;
    struct herd receivers;
    struct courses courses;
    struct tally *came; /* [publisher] */
    uint32_t *filters;  /* sorted by receiver */
    uint32_t *first;    /* [receiver + 1]: its part of .filters */
    uint32_t *next;     /* [receiver]: the first that it has not subscribed to */
    uint32_t filters_n; /* a multiple of --matches */
    uint32_t topics_n;  /* that have filters */
    uint32_t published; /* topics that are published to ... */
    uint32_t stride;    /* ... one in so many */
};

static struct wild *wild_of_receiver(struct client *c)
{
    return (struct wild *)((char *)c->owner - offsetof(struct wild, receivers));
}

/* --- who gets what --- */

/* The client that has filter f. Those of a topic are consecutive, and so are their clients, but for
 * a step at each round, without which a client would get filters of few kinds only. With
 * --same-receivers all topics of a publisher belong to the same clients. */
static uint32_t owner_of(const struct wild *w, uint32_t f)
{
    const struct options *o = w->receivers.run->o;
    uint32_t n = w->receivers.n;
    uint32_t topic = f / o->matches;

    if (o->same_receivers) {
        return (topic / w->stride % o->publishers * o->matches + f % o->matches) % n;
    }
    return o->matches < n ? (f + f / n) % n : f % n;
}

static uint32_t receiver_of(const void *context, uint32_t topic, uint32_t k)
{
    const struct wild *w = context;

    return owner_of(w, topic * w->receivers.run->o->matches + k);
}

static const struct stream *stream_of(const void *context, uint32_t publisher)
{
    const struct wild *w = context;

    return &w->publishers.clients[publisher].stream;
}

static void filter_name(const struct wild *w, char out[FILTER_MAX], uint32_t f)
{
    const struct run *run = w->receivers.run;
    char pattern[FILTER_MAX];

    snprintf(pattern, sizeof(pattern), "bench/%08x/%s", run->id, kinds[f % KINDS]);
    number_name(out, FILTER_MAX, pattern, f / run->o->matches);
}

/* Sorts the filters by their owner. */
static void deal_filters(struct wild *w)
{
    uint32_t n = w->receivers.n;

    for (uint32_t f = 0; f < w->filters_n; f++) {
        w->first[owner_of(w, f) + 1]++;
    }
    for (uint32_t r = 0; r < n; r++) {
        w->first[r + 1] += w->first[r];
        w->next[r] = w->first[r];
    }
    for (uint32_t f = 0; f < w->filters_n; f++) {
        w->filters[w->next[owner_of(w, f)]++] = f;
    }
    memcpy(w->next, w->first, n * sizeof(*w->next));
}

/* --- receivers --- */

static void subscribe_more(struct wild *w, struct client *c)
{
    uint32_t at = (uint32_t)(c - w->receivers.clients);
    char text[FILTERS_MAX][FILTER_MAX];
    const char *filters[FILTERS_MAX];
    uint32_t n = 0;

    for (; n < FILTERS_MAX && w->next[at] < w->first[at + 1]; n++) {
        filter_name(w, text[n], w->filters[w->next[at]++]);
        filters[n] = text[n];
    }
    herd_run(c)->r.done += n;
    if (n == 0) {
        herd_up(c->owner);
    } else {
        client_subscribe(c, filters, n, herd_run(c)->o->qos);
    }
}

static void receiver_connected(struct client *c, bool session_present)
{
    (void)session_present;
    c->subscription_id = herd_run(c)->o->properties ? 1 : 0;
    herd_up(c->owner);
}

static void receiver_subscribed(struct client *c)
{
    run_event(herd_run(c));
    subscribe_more(wild_of_receiver(c), c);
}

static void receiver_message(struct client *c, const struct publish *m)
{
    struct wild *w = wild_of_receiver(c);
    struct run *run = herd_run(c);
    struct stamp s;

    if (!message_on_course(&w->courses, &w->publishers, c, m, &s)) {
        return;
    }
    if (tally_add(&w->came[s.publisher], s.seq)) {
        drive_moved(run, s.publisher);
    }
    run_delivered(run, &s);
}

static const struct client_ops receiver_ops = {.connected = receiver_connected,
                                               .subscribed = receiver_subscribed,
                                               .message = receiver_message,
                                               .acked = herd_none,
                                               .closed = herd_closed,
                                               .wrong = herd_wrong};

/* --- the run --- */

static void size_up(struct wild *w, const struct options *o)
{
    w->topics_n = o->filters / o->matches;
    w->filters_n = w->topics_n * o->matches;
    w->published = o->topics == 0 || o->topics > w->topics_n ? w->topics_n : o->topics;
    if (w->published < o->publishers) {
        die("wild: --filters / --matches = %u topics, fewer than publishers", w->published);
    }
    w->stride = w->topics_n / w->published;
    w->first = calloc(o->subscribers + 1u, sizeof(*w->first));
    w->next = calloc(o->subscribers, sizeof(*w->next));
    w->filters = calloc(w->filters_n, sizeof(*w->filters));
    w->came = calloc(o->publishers, sizeof(*w->came));
    if (w->first == NULL || w->next == NULL || w->filters == NULL || w->came == NULL) {
        die("out of memory");
    }
}

/* Every publisher has topics of its own: one in so many as there are publishers. */
static void publisher_init(struct wild *w, struct run *run, uint32_t i)
{
    const struct options *o = run->o;
    const struct stream_form form = {.version = o->version,
                                     .qos = o->qos,
                                     .properties = o->properties,
                                     .payload_n = o->payload_n};
    const struct stream_numbers numbers = {
        .first = i * w->stride, .step = o->publishers * w->stride, .all = w->topics_n};
    char pattern[FILTER_MAX];

    snprintf(pattern, sizeof(pattern), "bench/%08x/%s", run->id, kinds[0]);
    stream_init_numbers(&w->publishers.clients[i].stream, &form, pattern, numbers,
                        (w->published + o->publishers - 1 - i) / o->publishers, i, run->id);
    tally_init(&w->came[i], drive_window(o), o->matches);
}

static void wild_init(struct wild *w, struct run *run)
{
    const struct options *o = run->o;
    const struct courses_form form = {.receivers = o->subscribers,
                                      .publishers = o->publishers,
                                      .each = o->matches,
                                      .stream = stream_of,
                                      .receiver = receiver_of,
                                      .context = w};

    *w = (struct wild){.stride = 1};
    size_up(w, o);
    herd_init(&w->publishers, run, o->publishers, "p", &herd_publisher_ops);
    herd_init(&w->receivers, run, o->subscribers, "s", &receiver_ops);
    for (uint32_t i = 0; i < o->publishers; i++) {
        publisher_init(w, run, i);
    }
    deal_filters(w);
    courses_init(&w->courses, &form);
}

static void wild_fini(struct wild *w)
{
    for (uint32_t i = 0; i < w->publishers.n; i++) {
        tally_fini(&w->came[i]);
    }
    herd_fini(&w->publishers);
    herd_fini(&w->receivers);
    courses_fini(&w->courses);
    free(w->came);
    free(w->filters);
    free(w->first);
    free(w->next);
}

static uint64_t through(const void *context, uint32_t publisher)
{
    return ((const struct wild *)context)->came[publisher].base;
}

static void subscribe_all(struct wild *w, struct run *run)
{
    struct phase ph;

    loop_linger(&run->loop, 300); /* what the connections leave behind is not the subscriptions' */
    w->receivers.up = 0;
    progress_phase(&run->progress, "subscribing", "filters", &run->r.done);
    phase_begin(&ph, run);
    for (uint32_t i = 0; i < w->receivers.n; i++) {
        subscribe_more(w, &w->receivers.clients[i]);
    }
    herd_await(&w->receivers);
    phase_end(&ph, run);
    run_note(run, ",\"filters\":%u,\"matches\":%u,\"topics\":%u", w->filters_n, run->o->matches,
             w->published);
    if (run->o->pid != 0) {
        run_note(run, ",\"memory_per_subscription\":%.0f", phase_memory(&ph, run, w->filters_n));
    }
    phase_note(&ph, run, "subscribe", "filter", w->filters_n, NULL);
}

void wild_run(struct run *run)
{
    struct wild w;
    const struct drive_plan plan = {
        .publishers = &w.publishers, .through = through, .context = &w, .count = run->o->count};

    wild_init(&w, run);
    if (herd_pair_up(&w.receivers, &w.publishers)) {
        subscribe_all(&w, run);
    }
    if (run->r.failures == 0) {
        herd_drive(&plan);
    }
    herd_pair_end(&w.receivers, &w.publishers);
    wild_fini(&w);
}
