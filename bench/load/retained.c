/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retained.c - many retained messages: set, replayed to new subscribers, cleared.
 *
 * Publishers set --topics messages, one each. A new client subscribes to all of them with `#` and
 * has to get each exactly once, as it was sent and with the retain flag; another one with `+`. Then
 * each is cleared, and a third client must get none.
 *
 * With QoS 0 nothing says that a message was taken: a publisher asks for a PINGRESP after each
 * window, which comes when the broker has seen what was sent before.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/common.h"

struct retained {
    struct herd publishers;
    struct herd reader; /* one client */
    uint64_t *pinged;   /* [publisher]: its messages before the last PINGREQ */
    uint64_t *ponged;   /* [publisher]: those before the last PINGRESP */
    uint64_t *came;     /* a bit for each topic */
    uint64_t came_n;
    const char *wildcard; /* the reader's */
    bool subscribed;
    bool cleared;
    char pattern[40];
};

static struct retained *retained_of_reader(struct client *c)
{
    return (struct retained *)((char *)c->owner - offsetof(struct retained, reader));
}

static struct retained *retained_of_publisher(struct client *c)
{
    return (struct retained *)((char *)c->owner - offsetof(struct retained, publishers));
}

/* --- publishers --- */

static void publisher_ponged(struct client *c)
{
    struct retained *t = retained_of_publisher(c);

    t->ponged[c->stream.publisher] = t->pinged[c->stream.publisher];
    drive_acked(c);
}

static void ask_for_pong(const void *context, uint32_t publisher)
{
    const struct retained *t = context;
    struct client *c = &t->publishers.clients[publisher];

    t->pinged[publisher] = c->stream.next;
    client_ping(c);
}

static uint64_t ponged(const void *context, uint32_t publisher)
{
    return ((const struct retained *)context)->ponged[publisher];
}

static uint64_t acknowledged(const void *context, uint32_t publisher)
{
    return ((const struct retained *)context)->publishers.clients[publisher].stream.done;
}

/* payload_n 0: clears. */
static void publisher_init(struct retained *t, struct run *run, uint32_t i, uint32_t payload_n)
{
    const struct options *o = run->o;
    struct stream *s = &t->publishers.clients[i].stream;
    const struct stream_form form = {
        .version = o->version, .qos = o->qos, .retain = true, .payload_n = payload_n};
    const struct stream_numbers numbers = {.first = i, .step = o->publishers, .all = o->topics};

    stream_init_numbers(s, &form, t->pattern, numbers,
                        (o->topics + o->publishers - 1 - i) / o->publishers, i, run->id);
    if (o->qos > 0) {
        stream_keep_times(s, o->window);
    }
}

/* --- the reader --- */

static void reader_connected(struct client *c, bool session_present)
{
    struct retained *t = retained_of_reader(c);
    struct run *run = herd_run(c);
    char filter[40];
    const char *filters[1] = {filter};

    (void)session_present;
    snprintf(filter, sizeof(filter), "bench/%08x/%s", run->id, t->wildcard);
    client_subscribe(c, filters, 1, run->o->qos);
    client_ping(c); /* its answer comes behind the replay, or at least behind SUBACK */
    herd_up(c->owner);
}

static void reader_subscribed(struct client *c)
{
    retained_of_reader(c)->subscribed = true;
}

/* The topic's number where this message may come, else UINT32_MAX. */
static uint32_t judge(struct retained *t, struct client *c, const struct publish *m)
{
    struct run *run = herd_run(c);
    struct stream *from;
    struct stamp s;

    if (t->cleared) {
        run_fail(run, "%s: %.*s came again after it was cleared", c->id, (int)m->topic.n,
                 (const char *)m->topic.p);
        return UINT32_MAX;
    }
    if (!stamp_read(&s, m->payload)) {
        herd_wrong(c, "payload damaged");
        return UINT32_MAX;
    }
    if (s.run != run->id || s.publisher >= t->publishers.n ||
        s.seq >= t->publishers.clients[s.publisher].stream.next) {
        run_fail(run, "%s: misdelivered, from run %08x publisher %u number %" PRIu64, c->id, s.run,
                 s.publisher, s.seq);
        return UINT32_MAX;
    }
    from = &t->publishers.clients[s.publisher].stream;
    message_check(run, c, m, &s, from);
    return stream_number_of(from, s.seq);
}

static void reader_message(struct client *c, const struct publish *m)
{
    struct retained *t = retained_of_reader(c);
    uint32_t topic = judge(t, c, m);
    uint64_t bit = (uint64_t)1 << (topic & 63u);

    if (topic == UINT32_MAX) {
        return;
    }
    if (t->came[topic / 64] & bit) {
        run_fail(herd_run(c), "%s: %.*s came twice", c->id, (int)m->topic.n,
                 (const char *)m->topic.p);
        return;
    }
    t->came[topic / 64] |= bit;
    t->came_n++;
    herd_run(c)->r.delivered++;
    run_event(herd_run(c));
}

static const struct client_ops reader_ops = {.connected = reader_connected,
                                             .subscribed = reader_subscribed,
                                             .message = reader_message,
                                             .acked = herd_none,
                                             .closed = herd_closed,
                                             .wrong = herd_wrong,
                                             .ponged = herd_none};

/* --- the run --- */

static void retained_init(struct retained *t, struct run *run, const struct client_ops *publisher)
{
    const struct options *o = run->o;

    *t = (struct retained){.wildcard = "#"};
    t->pinged = calloc(o->publishers, sizeof(*t->pinged));
    t->ponged = calloc(o->publishers, sizeof(*t->ponged));
    t->came = calloc(o->topics / 64 + 1, sizeof(*t->came));
    if (t->pinged == NULL || t->ponged == NULL || t->came == NULL) {
        die("out of memory");
    }
    snprintf(t->pattern, sizeof(t->pattern), "bench/%08x/" NUMBER_MARK, run->id);
    herd_init(&t->publishers, run, o->publishers, "p", publisher);
    herd_init(&t->reader, run, 1, "r", &reader_ops);
    t->reader.clients[0].wants_retain = true;
    for (uint32_t i = 0; i < o->publishers; i++) {
        publisher_init(t, run, i, o->payload_n);
    }
}

static void retained_fini(struct retained *t)
{
    herd_fini(&t->publishers);
    herd_fini(&t->reader);
    free(t->pinged);
    free(t->ponged);
    free(t->came);
}

/* One message to each topic. */
static void publish_all(struct retained *t, struct run *run, const char *name)
{
    const struct options *o = run->o;
    const struct drive_plan plan = {.publishers = &t->publishers,
                                    .through = o->qos > 0 ? acknowledged : ponged,
                                    .sent = o->qos > 0 ? NULL : ask_for_pong,
                                    .context = t,
                                    .rounds = 1};
    bool is_set = !t->cleared;
    struct phase ph;

    progress_phase(&run->progress, name, "messages sent", &run->r.sent);
    phase_begin(&ph, run);
    drive_run(run, &plan);
    phase_end(&ph, run);
    if (is_set && o->pid != 0) {
        run_note(run, ",\"memory_per_retained\":%.0f", phase_memory(&ph, run, o->topics));
    }
    phase_note(&ph, run, name, "message", o->topics, is_set ? &run->r.latency : NULL);
}

static void clear_all(struct retained *t, struct run *run)
{
    t->cleared = true;
    for (uint32_t i = 0; i < t->publishers.n; i++) {
        stream_fini(&t->publishers.clients[i].stream);
        t->ponged[i] = 0;
        publisher_init(t, run, i, 0);
    }
    publish_all(t, run, "clear");
}

static void report_missing(const struct retained *t, struct run *run, const char *name)
{
    for (uint32_t i = 0; i < run->o->topics; i++) {
        if (!(t->came[i / 64] >> (i & 63u) & 1u)) {
            run_fail(run, "%s: the message of topic %08u never came", name, i);
        }
    }
}

/* want: messages that have to come, each once. */
static void replay(struct retained *t, struct run *run, const char *name, const char *wildcard,
                   uint64_t want)
{
    struct phase ph;

    t->wildcard = wildcard;
    t->subscribed = false;
    t->came_n = 0;
    memset(t->came, 0, (run->o->topics / 64 + 1) * sizeof(*t->came));
    herd_forget(&t->reader, true);
    progress_phase(&run->progress, name, "messages received", &run->r.delivered);
    phase_begin(&ph, run);
    herd_connect(&t->reader);
    while (run->r.failures == 0 && (t->came_n < want || !t->subscribed) && !run_is_stuck(run)) {
        run_turn(run, 100000000u);
    }
    phase_end(&ph, run); /* what comes twice, or though it was cleared, comes in this time */
    if (run->r.failures == 0 && want > 0) {
        report_missing(t, run, name);
    }
    if (want > 0) {
        phase_note(&ph, run, name, "message", t->came_n, NULL);
    }
    herd_disconnect(&t->reader);
}

void retained_run(struct run *run)
{
    struct client_ops publisher_ops = herd_publisher_ops;
    uint64_t topics = run->o->topics;
    struct retained t;

    publisher_ops.ponged = publisher_ponged;
    retained_init(&t, run, &publisher_ops);
    herd_connect(&t.publishers);
    run->r.connections = t.publishers.up + 1;
    loop_linger(&run->loop, 300); /* what the connections leave behind is not the messages' */
    run_measure_begin(run);
    if (run->r.failures == 0) {
        publish_all(&t, run, "set");
        replay(&t, run, "replay", "#", topics);
    }
    if (run->r.failures == 0) {
        replay(&t, run, "replay_plus", "+", topics);
    }
    if (t.publishers.up == t.publishers.n) {
        clear_all(&t, run); /* also after a failure: nothing is left behind */
    }
    if (run->r.failures == 0) {
        replay(&t, run, "replay of nothing", "#", 0);
    }
    run_measure_end(run);
    herd_pair_end(&t.reader, &t.publishers);
    retained_fini(&t);
}
