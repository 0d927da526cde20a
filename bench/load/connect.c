/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connect.c - connections that come and go: CONNECT, CONNACK, DISCONNECT, the broker's close,
 * again.
 *
 * -n of them are under way at any time, each with a client id of its own that it keeps. With
 * --durable its session stays, and has to be there from the second time on; without, it must never
 * be. Latency counts from the connect() call to the CONNACK.
 */
#include <errno.h>
#include <stdlib.h>

#include "bench/load/common.h"

#define OPENED_AT_ONCE 64u /* at the start, so that the listen queue does not overflow */

struct visitor {
    uint64_t opened_ns;
    bool seen; /* was connected before */
};

struct lobby {
    struct herd herd;
    struct visitor *visitors; /* as the herd's clients */
    uint32_t open;            /* between connect() and the broker's close */
    bool closing;             /* nobody comes again */
};

static struct lobby *lobby_of(struct client *c)
{
    return (struct lobby *)((char *)c->owner - offsetof(struct lobby, herd));
}

static void enter(struct lobby *l, struct client *c)
{
    struct run *run = l->herd.run;

    l->visitors[c - l->herd.clients].opened_ns = clock_ns();
    if (!client_open(c, &run->loop, &run->address)) {
        die("cannot connect: %s", strerror(errno));
    }
    l->open++;
}

static void visitor_connected(struct client *c, bool session_present)
{
    struct lobby *l = lobby_of(c);
    struct visitor *v = &l->visitors[c - l->herd.clients];
    struct run *run = l->herd.run;

    if (c->version != MQTT_3_1 && session_present != (v->seen && !c->clean)) {
        run_fail(run, "%s: session present is %d", c->id, session_present);
    }
    v->seen = true;
    histogram_add(&run->r.latency, clock_ns() - v->opened_ns);
    client_disconnect(c);
}

static void visitor_closed(struct client *c, const char *why)
{
    struct lobby *l = lobby_of(c);
    struct run *run = l->herd.run;

    if (why != NULL) {
        herd_wrong(c, why);
        return;
    }
    l->open--;
    run_event(run);
    if (!run->over) {
        run->r.done++;
    }
    if (!l->closing && run->r.failures == 0) {
        enter(l, c);
    }
}

static void visitor_message(struct client *c, const struct publish *m)
{
    (void)m;
    herd_wrong(c, "a message to one who subscribed to nothing");
}

static const struct client_ops visitor_ops = {.connected = visitor_connected,
                                              .subscribed = herd_none,
                                              .message = visitor_message,
                                              .acked = herd_none,
                                              .closed = visitor_closed,
                                              .wrong = herd_wrong};

/* --- the run --- */

static void open_all(struct lobby *l)
{
    for (uint32_t i = 0; i < l->herd.n; i++) {
        enter(l, &l->herd.clients[i]);
        if ((i + 1) % OPENED_AT_ONCE == 0) {
            run_turn(l->herd.run, 1000000u);
        }
    }
}

static void turn(struct lobby *l)
{
    struct run *run = l->herd.run;

    run_turn(run, 10000000u);
    if (run_is_stuck(run)) {
        run_fail(run, "%u connections wait for the broker, and nothing came for %.0f s", l->open,
                 run->o->timeout_s);
    }
}

static void leave_all(struct lobby *l)
{
    l->closing = true;
    run_event(l->herd.run);
    while (l->open > 0 && l->herd.run->r.failures == 0) {
        turn(l);
    }
}

/* The sessions of --durable end: one more round, with clean session. */
static void discard_sessions(struct lobby *l)
{
    herd_forget(&l->herd, true);
    l->closing = false;
    open_all(l);
    leave_all(l);
}

void connect_run(struct run *run)
{
    struct lobby l = {.closing = false};
    uint64_t end;

    herd_init(&l.herd, run, run->o->clients, "c", &visitor_ops);
    l.visitors = calloc(l.herd.n, sizeof(*l.visitors));
    if (l.visitors == NULL) {
        die("out of memory");
    }
    progress_phase(&run->progress, "running", "connects", &run->r.done);
    run->r.connections = l.herd.n;
    run_measure_begin(run);
    end = clock_ns() + (uint64_t)(run->o->seconds * 1e9);
    run_event(run);
    open_all(&l);
    while (run->r.failures == 0 && run->loop.now_ns < end) {
        turn(&l);
    }
    run_measure_end(run);
    leave_all(&l);
    if (run->o->durable && run->r.failures == 0) {
        discard_sessions(&l);
    }
    herd_fini(&l.herd);
    free(l.visitors);
}
