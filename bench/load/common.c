/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/common.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

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

const struct client_ops herd_publisher_ops = {publisher_connected, herd_none,  publisher_message,
                                              herd_none,           herd_wrong, herd_wrong};

void message_check(struct run *run, const struct client *c, const struct publish *m,
                   const struct stamp *s, const struct stream *from)
{
    struct span topic = stream_topic_of(from, s->seq);

    if (m->qos != run->o->qos || m->retain || m->payload.n != run->o->payload_n) {
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

void run_delivered(struct run *run, const struct stamp *s)
{
    run->r.delivered++;
    run->last_event_ns = run->loop.now_ns;
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

static uint32_t window_of(const struct client *c, const struct options *o)
{
    return o->qos > 0 && c->receive_max < o->window ? c->receive_max : o->window;
}

/* Fills the publisher's window; true when all it sent is acknowledged and through. */
static bool publisher_send(struct client *c, const struct options *o, uint64_t through, bool more)
{
    struct stream *s = &c->stream;
    uint64_t end = (s->done < through ? s->done : through) + window_of(c, o);

    if (o->count != 0 && end > o->count) {
        end = o->count;
    }
    while (more && c->conn.fd >= 0 && s->next < end) {
        client_publish(c);
    }
    return s->done == s->next && through == s->next;
}

static bool all_send(struct herd *publishers, through_fn through, const void *context, bool more)
{
    struct run *run = publishers->run;
    bool all = true;

    for (uint32_t i = 0; i < publishers->n; i++) {
        if (!publisher_send(&publishers->clients[i], run->o, through(context, i), more)) {
            all = false;
        }
    }
    loop_flush(&run->loop);
    return all;
}

static void send_and_receive(struct herd *publishers, through_fn through, const void *context)
{
    struct run *run = publishers->run;
    uint64_t end = clock_ns() + (uint64_t)(run->o->seconds * 1e9);
    uint64_t patience = (uint64_t)(run->o->timeout_s * 1e9);
    bool by_count = run->o->count != 0;
    bool more = true;

    run->last_event_ns = clock_ns();
    while (run->r.failures == 0) {
        bool all = all_send(publishers, through, context, more);

        if (all && (!more || by_count)) {
            break;
        }
        loop_turn(&run->loop, 100);
        more = by_count || run->loop.now_ns < end;
        if (run->loop.now_ns - run->last_event_ns > patience) {
            run_fail(run, "no message for %.0f s: something is lost", run->o->timeout_s);
        }
    }
}

static void linger(struct run *run)
{
    uint64_t end = clock_ns() + 100u * 1000000u;

    while (clock_ns() < end) {
        loop_turn(&run->loop, 10);
    }
}

void closed_loop(struct herd *publishers, through_fn through, const void *context)
{
    struct run *run = publishers->run;

    run_measure_begin(run);
    send_and_receive(publishers, through, context);
    run_measure_end(run);
    linger(run);
}

/* How often an alias stood for a topic, each way. */
static void note_aliases(struct run *run, const struct herd *receivers,
                         const struct herd *publishers)
{
    size_t used = strlen(run->r.notes);
    uint64_t sent = 0;
    uint64_t received = 0;

    for (uint32_t i = 0; i < publishers->n; i++) {
        sent += publishers->clients[i].stream.by_alias;
    }
    for (uint32_t i = 0; i < receivers->n; i++) {
        received += receivers->clients[i].aliases.used;
    }
    snprintf(run->r.notes + used, sizeof(run->r.notes) - used,
             ",\"sent_by_alias\":%" PRIu64 ",\"received_by_alias\":%" PRIu64, sent, received);
}

void herd_pair_end(struct herd *receivers, struct herd *publishers)
{
    struct run *run = receivers->run;

    if (run->o->aliases > 0) {
        note_aliases(run, receivers, publishers);
    }
    for (uint32_t i = 0; i < publishers->n; i++) {
        run->r.sent += publishers->clients[i].stream.next;
        client_close(&publishers->clients[i], true);
    }
    for (uint32_t i = 0; i < receivers->n; i++) {
        client_close(&receivers->clients[i], true);
    }
}
