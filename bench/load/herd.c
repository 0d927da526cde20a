/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/herd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define AT_ONCE 64u /* connections being opened */

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

        snprintf(h->ids[i], sizeof(h->ids[i]), "%.8s-%08x-%u", prefix, run->id, i);
        *c = (struct client){.ops = ops,
                             .owner = h,
                             .id = h->ids[i],
                             .version = run->o->version,
                             .clean = !run->o->durable};
        c->aliases.max = run->o->aliases;
        c->conn.fd = -1;
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
    h->run->last_event_ns = h->run->loop.now_ns;
}

void herd_connect(struct herd *h)
{
    struct run *run = h->run;
    uint64_t patience = (uint64_t)(run->o->timeout_s * 1e9);

    run->last_event_ns = clock_ns();
    while (h->up < h->n) {
        while (h->opened < h->n && h->opened - h->up < AT_ONCE) {
            if (!client_open(&h->clients[h->opened], &run->loop, &run->address)) {
                die("cannot connect: %s", strerror(errno));
            }
            h->opened++;
        }
        loop_turn(&run->loop, 100);
        if (run->r.failures > 0) {
            return;
        }
        if (run->loop.now_ns - run->last_event_ns > patience) {
            run_fail(run, "only %u of %u connections are up", h->up, h->n);
            return;
        }
    }
}
