/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/herd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define AT_ONCE       64u /* connections being opened */
#define CLOSE_WAIT_NS 1000000000u

void herd_init(struct herd *h, struct run *run, uint32_t n, const char *prefix,
               const struct client_ops *ops)
{
    *h = (struct herd){.run = run, .n = n};
    h->clients = calloc(n, sizeof(*h->clients));
    h->ids = calloc(n, sizeof(*h->ids));
    if (h->clients == NULL || h->ids == NULL) {
        die("out of memory");
    }
    for (uint32_t i = 0; i < n; i++) {
        struct client *c = &h->clients[i];

        snprintf(h->ids[i], sizeof(h->ids[i]), "%.8s-%08x-%u", prefix, run->id,
                 run->first_client + i);
        *c = (struct client){.ops = ops,
                             .owner = h,
                             .id = h->ids[i],
                             .version = run->o->version,
                             .clean = !run->o->durable};
        c->aliases.max = run->o->aliases;
        c->conn.fd = -1;
    }
}

void herd_await(struct herd *h)
{
    struct run *run = h->run;

    run_event(run);
    while (h->up < h->n && run->r.failures == 0) {
        run_turn(run, 100000000u);
        if (run_is_stuck(run)) {
            run_fail(run, "only %u of %u got their answer", h->up, h->n);
        }
    }
}

void herd_forget(struct herd *h, bool clean)
{
    h->opened = h->up = 0;
    for (uint32_t i = 0; i < h->n; i++) {
        h->clients[i].clean = clean;
    }
}

void herd_disconnect(struct herd *h)
{
    struct run *run = h->run;
    uint64_t end = clock_ns() + CLOSE_WAIT_NS;
    uint32_t open = h->n;

    for (uint32_t i = 0; i < h->n; i++) {
        if (h->clients[i].state == CLIENT_UP) {
            client_disconnect(&h->clients[i]);
        }
    }
    while (open > 0 && clock_ns() < end) {
        run_turn(run, 10000000u);
        open = 0;
        for (uint32_t i = 0; i < h->n; i++) {
            open += h->clients[i].state == CLIENT_LEAVING;
        }
    }
    for (uint32_t i = 0; i < h->n; i++) {
        client_close(&h->clients[i], true);
    }
}

void herd_discard(struct herd *h)
{
    if (h->opened == 0) {
        return;
    }
    herd_disconnect(h);
    herd_forget(h, true);
    if (h->run->r.failures == 0) {
        herd_connect(h);
        herd_disconnect(h);
    }
}

void herd_fini(struct herd *h)
{
    for (uint32_t i = 0; i < h->n; i++) {
        client_fini(&h->clients[i]);
    }
    free(h->clients);
    free(h->ids);
}

void herd_up(struct herd *h)
{
    h->up++;
    h->run->answers++;
    run_event(h->run);
}

void herd_connect(struct herd *h)
{
    struct run *run = h->run;

    run->last_event_ns = run->loop.now_ns = clock_ns();
    if (run->progress.count == NULL) {
        progress_phase(&run->progress, "connecting", "connections", &run->answers);
    }
    while (h->up < h->n) {
        while (h->opened < h->n && h->opened - h->up < AT_ONCE) {
            if (!client_open(&h->clients[h->opened], &run->loop, &run->address)) {
                die("cannot connect: %s", strerror(errno));
            }
            h->opened++;
        }
        run_turn(run, 100000000u);
        if (run->r.failures > 0) {
            return;
        }
        if (run_is_stuck(run)) {
            run_fail(run, "only %u of %u connections are up", h->up, h->n);
            return;
        }
    }
}
