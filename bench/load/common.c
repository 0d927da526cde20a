/* SPDX-License-Identifier: Apache-2.0 */
/* common.c - what the closed-loop scenarios share: topics, streams, the look of a message. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/bench.h"
#include "bench/load/extras.h"
#include "bench/load/herd.h"

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

uint32_t publisher_window(const struct client *c, const struct run *run)
{
    uint32_t window = run->o->window;

    return run->o->qos > 0 && c->receive_max < window ? c->receive_max : window;
}

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

void run_linger(struct run *run)
{
    uint64_t end = clock_ns() + 100u * 1000000u;

    while (clock_ns() < end) {
        loop_turn(&run->loop, 10);
    }
}

void note_aliases(struct run *run, const struct herd *publishers, const struct herd *subscribers)
{
    size_t used = strlen(run->r.notes);
    uint64_t in = 0;
    uint64_t out = 0;

    if (run->o->aliases == 0) {
        return;
    }
    for (uint32_t i = 0; i < publishers->n; i++) {
        in += publishers->clients[i].stream.by_alias;
    }
    for (uint32_t i = 0; i < subscribers->n; i++) {
        out += subscribers->clients[i].aliases.used;
    }
    snprintf(run->r.notes + used, sizeof(run->r.notes) - used,
             ",\"sent_by_alias\":%" PRIu64 ",\"received_by_alias\":%" PRIu64, in, out);
}
