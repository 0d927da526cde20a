/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/common.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/crew.h"
#include "bench/load/extras.h"

#define TOPIC_MAX 64u

void publisher_stream(struct client *c, struct run *run, uint32_t i)
{
    const struct options *o = run->o;
    const struct stream_form form = {.version = o->version,
                                     .qos = o->qos,
                                     .properties = o->properties,
                                     .aliases = o->aliases,
                                     .payload_n = o->payload_n};
    uint32_t n = o->aliases > 0 ? o->aliases + 2u : 1;
    char(*text)[TOPIC_MAX] = calloc(n, sizeof(*text));
    const char **topics = calloc(n, sizeof(*topics));

    if (text == NULL || topics == NULL) {
        die("out of memory");
    }
    for (uint32_t k = 0; k < n; k++) {
        int used = snprintf(text[k], TOPIC_MAX, "bench/%08x/%u", run->id, i);

        if (o->aliases > 0) {
            snprintf(text[k] + used, TOPIC_MAX - (size_t)used, "/%u", k);
        }
        topics[k] = text[k];
    }
    stream_init(&c->stream, &form, topics, n, i, run->id);
    free(topics);
    free(text);
}

void publisher_filter(char *out, size_t cap, const struct run *run, uint32_t i)
{
    const char *topics = run->o->aliases > 0 ? "/+" : "";

    if (i == ALL_PUBLISHERS) {
        snprintf(out, cap, "bench/%08x/+%s", run->id, topics);
    } else {
        snprintf(out, cap, "bench/%08x/%u%s", run->id, i, topics);
    }
}

struct run *herd_run(struct client *c)
{
    return ((struct herd *)c->owner)->run;
}

void herd_wrong(struct client *c, const char *what)
{
    run_fail(herd_run(c), "%s: %s", c->id, what);
}

void herd_closed(struct client *c, const char *why)
{
    if (why != NULL) {
        herd_wrong(c, why);
    }
}

void herd_none(struct client *c)
{
    (void)c;
}

static void publisher_connected(struct client *c, bool session_present)
{
    (void)session_present;
    herd_up(c->owner);
}

static void publisher_message(struct client *c, const struct publish *m)
{
    (void)m;
    herd_wrong(c, "a message to one who subscribed to nothing");
}

static void publisher_acked(struct client *c)
{
    struct stream *s = &c->stream;
    struct run *run = herd_run(c);

    drive_acked(c);
    if (s->sent_ns != NULL && s->timed < s->done) { /* not a PUBREC */
        s->timed = s->done;
        run->r.done++;
        histogram_add(&run->r.latency, run->loop.now_ns - stream_acked_sent_ns(s));
    }
}

const struct client_ops herd_publisher_ops = {.connected = publisher_connected,
                                              .subscribed = herd_none,
                                              .message = publisher_message,
                                              .acked = publisher_acked,
                                              .closed = herd_closed,
                                              .wrong = herd_wrong};

void message_check(struct run *run, const struct client *c, const struct publish *m,
                   const struct stamp *s, struct stream *from)
{
    struct span topic = stream_topic_of(from, s->seq);

    if (m->qos != run->o->qos || m->retain != c->wants_retain ||
        m->payload.n != run->o->payload_n) {
        run_fail(run, "%s: QoS %u, retain %d, %zu bytes", c->id, m->qos, m->retain, m->payload.n);
    }
    if (!span_eq(m->topic, topic)) {
        run_fail(run, "%s: topic %.*s, sent to %.*s", c->id, (int)m->topic.n,
                 (const char *)m->topic.p, (int)topic.n, (const char *)topic.p);
    }
    if (run->o->properties) {
        const struct extras_want want = {
            .publisher = s->publisher,
            .seq = s->seq,
            .age_s = (uint32_t)((run->loop.now_ns - s->time_ns) / 1000000000u),
            .subscription_id = c->subscription_id};
        const char *wrong = extras_judge(m, &want);

        if (wrong != NULL) {
            run_fail(run, "%s: publisher %u number %" PRIu64 ": %s", c->id, s->publisher, s->seq,
                     wrong);
        }
    }
}

bool message_stamp(const struct herd *publishers, struct client *c, const struct publish *m,
                   struct stamp *s)
{
    struct run *run = herd_run(c);

    if (!stamp_read(s, m->payload)) {
        herd_wrong(c, "payload damaged");
        return false;
    }
    if (s->run != run->id || s->publisher >= publishers->n) {
        run_fail(run, "%s: misdelivered, from run %08x publisher %u", c->id, s->run, s->publisher);
        return false;
    }
    return true;
}

bool message_on_course(const struct courses *courses, const struct herd *publishers,
                       struct client *c, const struct publish *m, struct stamp *s)
{
    const struct herd *receivers = c->owner;
    struct run *run = herd_run(c);
    struct course *course;

    if (!message_stamp(publishers, c, m, s)) {
        return false;
    }
    course = courses_at(courses, (uint32_t)(c - receivers->clients), s->publisher);
    if (s->seq != course_due(course)) {
        run_fail(run, "%s: publisher %u: number %" PRIu64 " came, %" PRIu64 " expected", c->id,
                 s->publisher, s->seq, course_due(course));
        return false;
    }
    course_step(course);
    message_check(run, c, m, s, &publishers->clients[s->publisher].stream);
    return true;
}

void run_delivered(struct run *run, const struct stamp *s)
{
    run->r.delivered++;
    run_event(run);
    histogram_add(&run->r.latency, run->loop.now_ns - s->time_ns);
}

/* --- the run --- */

bool herd_pair_up(struct herd *receivers, struct herd *publishers)
{
    struct run *run = receivers->run;

    herd_connect(receivers);
    herd_connect(publishers);
    run->r.connections = publishers->up + receivers->up;
    return run->r.failures == 0;
}

void herd_drive(const struct drive_plan *plan)
{
    struct run *run = plan->publishers->run;

    progress_phase(&run->progress, "running", "messages received", &run->r.delivered);
    run_measure_begin(run);
    drive_run(run, plan);
    crew_end(run);
    run_measure_end(run);
    loop_linger(&run->loop, LINGER_MS);
}

/* How often an alias stood for a topic, each way. */
static void count_aliases(struct run *run, const struct herd *receivers,
                          const struct herd *publishers)
{
    for (uint32_t i = 0; i < publishers->n; i++) {
        run->r.sent_by_alias += publishers->clients[i].stream.by_alias;
    }
    for (uint32_t i = 0; i < receivers->n; i++) {
        run->r.received_by_alias += receivers->clients[i].aliases.used;
    }
}

void herd_pair_end(struct herd *receivers, struct herd *publishers)
{
    struct run *run = receivers->run;

    count_aliases(run, receivers, publishers);
    if (run->o->durable && run->r.failures == 0) {
        herd_discard(receivers);
        herd_discard(publishers);
    }
    for (uint32_t i = 0; i < publishers->n; i++) {
        client_close(&publishers->clients[i], true);
    }
    for (uint32_t i = 0; i < receivers->n; i++) {
        client_close(&receivers->clients[i], true);
    }
}
