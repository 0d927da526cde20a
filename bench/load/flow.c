/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow.c - publishers to subscribers with every number checked: p2p, fanout, fanin.
 *
 * A message counts against its publisher's window until it is acknowledged (QoS > 0) and until
 * every receiver has it. Receivers get each publisher's numbers 0, 1, 2 ... without gap or
 * repetition: nobody reconnects here, so QoS 0 and 1 are as strict as QoS 2.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "bench/load/bench.h"
#include "bench/load/herd.h"

struct flow {
    struct herd publishers;
    struct herd subscribers;
    bool pairs;
    uint32_t receivers; /* of each message */
    uint64_t *next;     /* [subscriber][publisher], pairs: [subscriber]; the number expected */
    uint64_t *received; /* [publisher]: deliveries over all receivers */
    uint64_t limit;     /* numbers up to this are sent */
};

/* A client's owner is its herd, which lies in the flow. */
static struct flow *flow_of_subscriber(struct client *c)
{
    return (struct flow *)((char *)c->owner - offsetof(struct flow, subscribers));
}

static struct run *run_of(struct client *c)
{
    return ((struct herd *)c->owner)->run;
}

static void on_wrong(struct client *c, const char *what)
{
    run_fail(run_of(c), "%s: %s", c->id, what);
}

static void on_none(struct client *c)
{
    (void)c;
}

/* --- publishers --- */

static void pub_connected(struct client *c, bool session_present)
{
    (void)session_present;
    herd_up(c->owner);
}

static void pub_message(struct client *c, const struct publish *m)
{
    (void)m;
    on_wrong(c, "a message to one who subscribed to nothing");
}

static const struct client_ops pub_ops = {pub_connected, on_none,  pub_message,
                                          on_none,       on_wrong, on_wrong};

/* --- subscribers --- */

static void sub_connected(struct client *c, bool session_present)
{
    struct flow *f = flow_of_subscriber(c);
    struct run *run = run_of(c);
    uint32_t at = (uint32_t)(c - f->subscribers.clients);
    char filter[64];
    const char *filters[1] = {filter};

    (void)session_present;
    publisher_filter(filter, sizeof(filter), run, f->pairs ? at : ALL_PUBLISHERS);
    c->subscription_id = run->o->properties ? at + 1 : 0;
    client_subscribe(c, filters, 1, run->o->qos);
}

static void sub_subscribed(struct client *c)
{
    herd_up(c->owner);
}

/* True when message s of publisher p is what this subscriber has to get now. */
static bool check(struct flow *f, struct client *c, const struct stamp *s, const struct publish *m)
{
    struct run *run = run_of(c);
    uint32_t at = (uint32_t)(c - f->subscribers.clients);
    uint64_t *next;

    if (s->run != run->id || s->publisher >= f->publishers.n || (f->pairs && s->publisher != at)) {
        run_fail(run, "%s: misdelivered, from run %08x publisher %u", c->id, s->run, s->publisher);
        return false;
    }
    next = &f->next[f->pairs ? at : (size_t)at * f->publishers.n + s->publisher];
    if (s->seq != *next) {
        run_fail(run, "%s: publisher %u: number %" PRIu64 " came, %" PRIu64 " expected%s", c->id,
                 s->publisher, s->seq, *next, m->dup ? " (DUP)" : "");
        *next = s->seq;
    }
    (*next)++;
    message_check(run, c, m, s, &f->publishers.clients[s->publisher].stream);
    return true;
}

static void sub_message(struct client *c, const struct publish *m)
{
    struct flow *f = flow_of_subscriber(c);
    struct run *run = run_of(c);
    struct stamp s;

    if (!stamp_read(&s, m->payload)) {
        on_wrong(c, "payload damaged");
        return;
    }
    if (!check(f, c, &s, m)) {
        return;
    }
    f->received[s.publisher]++;
    run->r.delivered++;
    run->last_event_ns = run->loop.now_ns;
    histogram_add(&run->r.latency, run->loop.now_ns - s.time_ns);
}

static const struct client_ops sub_ops = {sub_connected, sub_subscribed, sub_message,
                                          on_none,       on_wrong,       on_wrong};

/* --- the run --- */

static void flow_init(struct flow *f, struct run *run)
{
    const struct options *o = run->o;

    *f = (struct flow){.pairs = strcmp(o->scenario, "p2p") == 0, .limit = o->count};
    f->receivers = f->pairs ? 1 : o->subscribers;
    f->next = calloc((size_t)o->subscribers * (f->pairs ? 1 : o->publishers), sizeof(*f->next));
    f->received = calloc(o->publishers, sizeof(*f->received));
    if (f->next == NULL || f->received == NULL) {
        die("out of memory");
    }
    herd_init(&f->publishers, run, o->publishers, "p", &pub_ops);
    herd_init(&f->subscribers, run, o->subscribers, "s", &sub_ops);
    for (uint32_t i = 0; i < o->publishers; i++) {
        publisher_stream(&f->publishers.clients[i], run, i);
    }
}

static void flow_fini(struct flow *f)
{
    herd_fini(&f->publishers);
    herd_fini(&f->subscribers);
    free(f->next);
    free(f->received);
}

/* Fills every window; true when all that was sent is acknowledged and received. */
static bool flow_send(struct flow *f, struct run *run, bool more)
{
    bool all_through = true;

    for (uint32_t i = 0; i < f->publishers.n; i++) {
        struct client *c = &f->publishers.clients[i];
        struct stream *s = &c->stream;
        uint64_t through = f->received[i] / f->receivers;
        uint64_t end = (s->done < through ? s->done : through) + publisher_window(c, run);

        if (more && c->conn.fd >= 0) {
            if (f->limit != 0 && end > f->limit) {
                end = f->limit;
            }
            while (s->next < end) {
                client_publish(c);
            }
        }
        if (s->done < s->next || f->received[i] < s->next * f->receivers) {
            all_through = false;
        }
    }
    loop_flush(&run->loop);
    return all_through;
}

static void flow_loop(struct flow *f, struct run *run)
{
    uint64_t end = clock_ns() + (uint64_t)(run->o->seconds * 1e9);
    uint64_t patience = (uint64_t)(run->o->timeout_s * 1e9);
    bool more = true;

    run->last_event_ns = clock_ns();
    while (run->r.failures == 0) {
        bool through = flow_send(f, run, more);

        if (through && (!more || f->limit != 0)) {
            break;
        }
        loop_turn(&run->loop, 100);
        more = f->limit != 0 || run->loop.now_ns < end;
        if (run->loop.now_ns - run->last_event_ns > patience) {
            run_fail(run, "no message for %.0f s: something is lost", run->o->timeout_s);
        }
    }
}

void flow_run(struct run *run)
{
    struct flow f;

    flow_init(&f, run);
    herd_connect(&f.subscribers);
    herd_connect(&f.publishers);
    run->r.connections = f.publishers.up + f.subscribers.up;
    if (run->r.failures == 0) {
        run_measure_begin(run);
        flow_loop(&f, run);
        run_measure_end(run);
        run_linger(run);
    }
    note_aliases(run, &f.publishers, &f.subscribers);
    for (uint32_t i = 0; i < f.publishers.n; i++) {
        run->r.sent += f.publishers.clients[i].stream.next;
        client_close(&f.publishers.clients[i], true);
    }
    for (uint32_t i = 0; i < f.subscribers.n; i++) {
        client_close(&f.subscribers.clients[i], true);
    }
    flow_fini(&f);
}
