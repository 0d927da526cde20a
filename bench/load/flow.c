/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow.c - publishers to subscribers with every number checked: p2p, fanout, fanin.
 *
 * Receivers get each publisher's numbers 0, 1, 2 ... without gap or
 * repetition: nobody reconnects here, so QoS 0 and 1 are as strict as QoS 2.
 *
 * --offline: the receivers' durable sessions lose their connections first, and what is measured is
 * how the broker takes messages for them: a message is through when it is acknowledged. In the end
 * the sessions are discarded with what they have.
 */
#include "bench/load/flow.h"

#include <inttypes.h>
#include <stdlib.h>

#include "bench/load/crew.h"
#include "bench/load/tally.h"

/* A client's owner is its herd, which lies in the flow. */
static struct flow *flow_of_subscriber(struct client *c)
{
    return (struct flow *)((char *)c->owner - offsetof(struct flow, subscribers));
}

/* --- subscribers --- */

static void sub_connected(struct client *c, bool session_present)
{
    struct flow *f = flow_of_subscriber(c);
    struct run *run = herd_run(c);
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
    struct run *run = herd_run(c);
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
    struct run *run = herd_run(c);
    struct stamp s;

    if (!stamp_read(&s, m->payload)) {
        herd_wrong(c, "payload damaged");
        return;
    }
    if (!check(f, c, &s, m)) {
        return;
    }
    if (f->receivers == 1 || tally_add(&f->came[s.publisher], s.seq)) {
        f->moved = true;
        drive_moved(run, s.publisher);
    }
    run_delivered(run, &s);
}

static const struct client_ops sub_ops = {.connected = sub_connected,
                                          .subscribed = sub_subscribed,
                                          .message = sub_message,
                                          .acked = herd_none,
                                          .closed = herd_closed,
                                          .wrong = herd_wrong};

/* --- the run --- */

/* --offline: acknowledged is all there is. */
static uint64_t acknowledged(const void *context, uint32_t publisher)
{
    const struct flow *f = context;

    return f->publishers.clients[publisher].stream.done;
}

void flow_init(struct flow *f, struct run *run, bool pairs)
{
    const struct options *o = run->o;

    *f = (struct flow){.pairs = pairs};
    f->receivers = f->pairs ? 1 : o->subscribers;
    f->next = calloc((size_t)o->subscribers * (f->pairs ? 1 : o->publishers), sizeof(*f->next));
    f->came = calloc(o->publishers, sizeof(*f->came));
    if (f->next == NULL || f->came == NULL) {
        die("out of memory");
    }
    for (uint32_t i = 0; f->receivers > 1 && i < o->publishers; i++) {
        tally_init(&f->came[i], drive_window(o), f->receivers);
    }
    herd_init(&f->publishers, run, o->publishers, "p", &herd_publisher_ops);
    herd_init(&f->subscribers, run, o->subscribers, "s", &sub_ops);
    for (uint32_t i = 0; i < o->publishers; i++) {
        publisher_stream(&f->publishers.clients[i], run, i);
        if (o->offline) {
            stream_keep_times(&f->publishers.clients[i].stream, drive_window(o));
        }
    }
}

void flow_fini(struct flow *f)
{
    for (uint32_t i = 0; i < f->publishers.n; i++) {
        tally_fini(&f->came[i]);
    }
    herd_fini(&f->publishers);
    herd_fini(&f->subscribers);
    free(f->next);
    free(f->came);
}

uint64_t flow_through(const void *context, uint32_t publisher)
{
    const struct flow *f = context;

    uint64_t mine = f->receivers == 1 ? f->next[publisher] : f->came[publisher].base;
    uint64_t others = f->pairs ? mine : crew_through(f->publishers.run, publisher);

    return mine < others ? mine : others;
}

/* Every turn's end tells worker 0, who publishes, how far the receivers of this one are. */
static void receive_only(struct flow *f, struct run *run)
{
    run_event(run);
    while (run->r.failures == 0 && !crew_has_ended(run)) {
        run_turn(run, 10000000u);
        if (f->moved) {
            f->moved = false;
            for (uint32_t p = 0; p < f->publishers.n; p++) {
                crew_set_through(run, p, f->receivers == 1 ? f->next[p] : f->came[p].base);
            }
            crew_poke(run);
        }
        if (run_is_stuck(run)) {
            run_fail(run, "no message for %.0f s: something is lost", run->o->timeout_s);
        }
    }
}

/* A worker of a fanout that has receivers only. */
static void flow_receive(struct flow *f, struct run *run)
{
    herd_connect(&f->subscribers);
    run->r.connections = f->subscribers.up;
    if (run->r.failures == 0) {
        progress_phase(&run->progress, "running", "messages received", &run->r.delivered);
        run_measure_begin(run);
        receive_only(f, run);
        run_measure_end(run);
        loop_linger(&run->loop, LINGER_MS);
        run->r.seconds = 0; /* worker 0's counts */
    }
    herd_pair_end(&f->subscribers, &f->publishers);
}

static void flow_publish(struct flow *f, struct run *run)
{
    bool offline = run->o->offline;
    const struct drive_plan plan = {.publishers = &f->publishers,
                                    .through = offline ? acknowledged : flow_through,
                                    .context = f,
                                    .count = run->o->count};

    if (herd_pair_up(&f->subscribers, &f->publishers)) {
        if (offline) {
            herd_disconnect(&f->subscribers);
        }
        herd_drive(&plan);
    }
    if (offline) {
        run->r.delivered = run->r.done;
        herd_discard(&f->subscribers);
    }
    herd_pair_end(&f->subscribers, &f->publishers);
}

void flow_run(struct run *run)
{
    struct flow f;
    bool pairs = strcmp(run->o->scenario, "p2p") == 0;

    flow_init(&f, run, pairs);
    if (!pairs && crew_is_receiver(run)) {
        flow_receive(&f, run);
    } else {
        if (!pairs) {
            crew_listen(run);
        }
        flow_publish(&f, run);
    }
    flow_fini(&f);
}
