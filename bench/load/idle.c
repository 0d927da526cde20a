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

static void on_closed(struct client *c, const char *why)
{
    run_fail(((struct herd *)c->owner)->run, "%s: %s", c->id, why);
}

static const struct client_ops idle_ops = {.connected = on_connected,
                                           .subscribed = on_none,
                                           .message = on_message,
                                           .acked = on_none,
                                           .closed = on_closed,
                                           .wrong = on_closed};

void idle_run(struct run *run)
{
    const struct options *o = run->o;
    struct herd h;
    double each = 0;

    herd_init(&h, run, o->clients, "idle", &idle_ops);
    run_measure_begin(run);
    herd_connect(&h);
    loop_linger(&run->loop, 500);
    run_measure_end(run);
    run->r.connections = h.up;
    if (o->pid != 0 && h.up > 0) {
        each = ((double)run->r.after.anonymous_kb - (double)run->r.before.anonymous_kb) * 1024.0 /
               h.up;
    }
    run_note(run, ",\"bytes_per_connection\":%.0f", each);
    herd_fini(&h);
}
