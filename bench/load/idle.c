/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idle.c - connections that do nothing: what each costs the broker in memory.
 */
#include "bench/load/bench.h"
#include "bench/load/herd.h"

static void on_connected(struct client *c, bool session_present)
{
    (void)session_present;
    herd_up(c->owner);
}

static void on_none(struct client *c)
{
    (void)c;
}

static void on_message(struct client *c, const struct publish *m)
{
    (void)m;
    run_fail(((struct herd *)c->owner)->run, "%s: a message to one who subscribed to nothing",
             c->id);
}

static void on_wrong(struct client *c, const char *what)
{
    run_fail(((struct herd *)c->owner)->run, "%s: %s", c->id, what);
}

static void on_closed(struct client *c, const char *why)
{
    if (why != NULL) {
        on_wrong(c, why);
    }
}

static const struct client_ops idle_ops = {.connected = on_connected,
                                           .subscribed = on_none,
                                           .message = on_message,
                                           .acked = on_none,
                                           .closed = on_closed,
                                           .wrong = on_wrong};

void idle_conclude(struct run *run)
{
    const struct result *r = &run->r;
    double growth = (double)r->after.anonymous_kb - (double)r->before.anonymous_kb;

    run_note(run, ",\"bytes_per_connection\":%.0f",
             r->connections > 0 ? growth * 1024.0 / r->connections : 0);
}

void idle_run(struct run *run)
{
    struct herd h;

    herd_init(&h, run, run->o->clients, "idle", &idle_ops);
    run_measure_begin(run);
    herd_connect(&h);
    loop_linger(&run->loop, 500);
    run_measure_end(run);
    run->r.connections = h.up;
    if (run->o->durable) {
        herd_discard(&h);
    }
    herd_fini(&h);
}
