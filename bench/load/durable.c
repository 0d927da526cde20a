/* SPDX-License-Identifier: Apache-2.0 */
/*
 * durable.c - queues of durable sessions that are away: filled, then drained.
 *
 * The sessions subscribe and leave. Publishers, in a closed loop over acknowledgements, send
 * --messages in all, each to --fan of the sessions: topic t goes to sessions t, t-1 .. t-fan+1, and
 * publishers go round all topics, each from a place of its own. Then all sessions come back at
 * once: each has to be there, and to bring every message of its topics once and in each publisher's
 * order. In the end the sessions are discarded, so that a broker is left as it was found.
 *
 * The broker's CPU of a phase is read 0.2 s after its end: what it does behind its answers counts.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/common.h"
#include "bench/load/course.h"

enum step { SETTING_UP, FILLING, DRAINING, DISCARDING };

struct durable {
    struct herd publishers;
    struct herd sessions;
    struct courses courses;
    uint32_t *subscribed; /* [session]: filters that have their SUBACK */
    char pattern[40];     /* of topics */
    enum step step;
};

static struct durable *durable_of_session(struct client *c)
{
    return (struct durable *)((char *)c->owner - offsetof(struct durable, sessions));
}

/* --- who gets what --- */

static uint32_t receiver_of(const void *context, uint32_t topic, uint32_t k)
{
    const struct durable *d = context;

    return (topic + d->sessions.n - k) % d->sessions.n;
}

static const struct stream *stream_of(const void *context, uint32_t publisher)
{
    const struct durable *d = context;

    return &d->publishers.clients[publisher].stream;
}

/* --- sessions --- */

static void subscribe_more(struct durable *d, struct client *c)
{
    uint32_t at = (uint32_t)(c - d->sessions.clients);
    uint32_t fan = herd_run(c)->o->fan;
    char text[FILTERS_MAX][sizeof(d->pattern)];
    const char *filters[FILTERS_MAX];
    uint32_t n = 0;

    for (; n < FILTERS_MAX && d->subscribed[at] < fan; n++) {
        uint32_t topic = (at + d->subscribed[at]++) % d->sessions.n;

        number_name(text[n], sizeof(text[n]), d->pattern, topic);
        filters[n] = text[n];
    }
    if (n == 0) {
        herd_up(c->owner);
    } else {
        client_subscribe(c, filters, n, herd_run(c)->o->qos);
    }
}

static void session_connected(struct client *c, bool session_present)
{
    struct durable *d = durable_of_session(c);

    if (c->version != MQTT_3_1 && session_present != (d->step == DRAINING)) {
        run_fail(herd_run(c), "%s: session present is %d", c->id, session_present);
    }
    if (d->step == SETTING_UP) {
        c->subscription_id = herd_run(c)->o->properties ? 1 : 0;
        subscribe_more(d, c);
    } else {
        herd_up(c->owner);
    }
}

static void session_subscribed(struct client *c)
{
    run_event(herd_run(c));
    subscribe_more(durable_of_session(c), c);
}

static void session_message(struct client *c, const struct publish *m)
{
    struct durable *d = durable_of_session(c);
    struct run *run = herd_run(c);
    struct stamp s;

    if (d->step != DRAINING) {
        run_fail(run, "%s: misdelivered, before it came back for its queue", c->id);
        return;
    }
    if (!message_on_course(&d->courses, &d->publishers, c, m, &s)) {
        return;
    }
    run->r.delivered++;
    run_event(run);
}

static const struct client_ops session_ops = {.connected = session_connected,
                                              .subscribed = session_subscribed,
                                              .message = session_message,
                                              .acked = herd_none,
                                              .closed = herd_closed,
                                              .wrong = herd_wrong};

/* --- publishers --- */

/* Nobody is there to receive: acknowledged is all there is. */
static uint64_t through(const void *context, uint32_t publisher)
{
    return stream_of(context, publisher)->done;
}

static void publisher_init(struct durable *d, struct run *run, uint32_t i)
{
    const struct options *o = run->o;
    const struct stream_form form = {.version = o->version,
                                     .qos = o->qos,
                                     .properties = o->properties,
                                     .payload_n = o->payload_n};
    const struct stream_numbers numbers = {
        .first = (uint32_t)((uint64_t)i * o->subscribers / o->publishers),
        .step = 1,
        .all = o->subscribers};
    struct stream *s = &d->publishers.clients[i].stream;

    stream_init_numbers(s, &form, d->pattern, numbers, o->subscribers, i, run->id);
    stream_keep_times(s, o->window);
}

/* --- the run --- */

static void durable_init(struct durable *d, struct run *run)
{
    const struct options *o = run->o;
    struct courses_form form = {.receivers = o->subscribers,
                                .publishers = o->publishers,
                                .each = o->fan,
                                .stream = stream_of,
                                .receiver = receiver_of,
                                .context = d};

    *d = (struct durable){.step = SETTING_UP};
    d->subscribed = calloc(o->subscribers, sizeof(*d->subscribed));
    if (d->subscribed == NULL) {
        die("out of memory");
    }
    snprintf(d->pattern, sizeof(d->pattern), "bench/%08x/" NUMBER_MARK, run->id);
    herd_init(&d->publishers, run, o->publishers, "p", &herd_publisher_ops);
    herd_init(&d->sessions, run, o->subscribers, "s", &session_ops);
    herd_forget(&d->sessions, false);
    for (uint32_t i = 0; i < o->publishers; i++) {
        publisher_init(d, run, i);
    }
    courses_init(&d->courses, &form);
}

static void durable_fini(struct durable *d)
{
    herd_fini(&d->publishers);
    herd_fini(&d->sessions);
    courses_fini(&d->courses);
    free(d->subscribed);
}

/* --messages in all, rounded up so that all publishers send the same. */
static void fill(struct durable *d, struct run *run)
{
    const struct options *o = run->o;
    const struct drive_plan plan = {.publishers = &d->publishers,
                                    .through = through,
                                    .context = d,
                                    .count = (o->messages + o->publishers - 1) / o->publishers};
    struct phase ph;

    d->step = FILLING;
    progress_phase(&run->progress, "filling", "messages acknowledged", &run->r.done);
    phase_begin(&ph, run);
    drive_run(run, &plan);
    phase_end(&ph, run);
    phase_note(&ph, run, "fill", "message", run->r.done, &run->r.latency);
}

static void report_missing(const struct durable *d, struct run *run)
{
    for (uint32_t s = 0; s < d->sessions.n; s++) {
        for (uint32_t p = 0; p < d->publishers.n; p++) {
            uint64_t due = course_due(courses_at(&d->courses, s, p));

            if (due < d->publishers.clients[p].stream.next) {
                run_fail(run, "session %u: publisher %u: number %" PRIu64 " never came", s, p, due);
            }
        }
    }
}

static void drain(struct durable *d, struct run *run)
{
    uint64_t want = run->r.sent * run->o->fan;
    struct phase ph;

    d->step = DRAINING;
    herd_forget(&d->sessions, false);
    progress_phase(&run->progress, "draining", "messages received", &run->r.delivered);
    phase_begin(&ph, run);
    herd_connect(&d->sessions);
    while (run->r.failures == 0 && run->r.delivered < want && !run_is_stuck(run)) {
        run_turn(run, 100000000u);
    }
    phase_end(&ph, run);
    phase_note(&ph, run, "drain", "message", run->r.delivered, NULL);
    if (run->r.failures == 0) {
        report_missing(d, run);
    }
}

void durable_run(struct run *run)
{
    struct durable d;

    durable_init(&d, run);
    if (herd_pair_up(&d.sessions, &d.publishers)) {
        herd_disconnect(&d.sessions);
        run_measure_begin(run);
        fill(&d, run);
        if (run->r.failures == 0) {
            drain(&d, run);
        }
        run_measure_end(run);
    }
    d.step = DISCARDING;
    herd_discard(&d.sessions);
    herd_pair_end(&d.sessions, &d.publishers);
    durable_fini(&d);
}
