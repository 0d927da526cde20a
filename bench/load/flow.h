/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow.h - publishers and subscribers between whom every number is checked: each for itself as p2p,
 * fanout and fanin, and as pairs beside other work.
 */
#ifndef NOCTULE_BENCH_FLOW_H
#define NOCTULE_BENCH_FLOW_H

#include "bench/load/common.h"

struct tally;

struct flow {
    struct herd publishers;
    struct herd subscribers;
    bool pairs;         /* subscriber i gets publisher i's, else everybody everything */
    uint32_t receivers; /* of each message */
    uint64_t *next;     /* [subscriber][publisher], pairs: [subscriber]; the number expected */
    bool moved;         /* something came everywhere since this was last cleared */
    struct tally *came; /* [publisher], when a message has several receivers */
};

/* As many of each as the options say. The flow stays in place: clients point to it. */
void flow_init(struct flow *f, struct run *run, bool pairs);
void flow_fini(struct flow *f);
/* For drive_plan; context is the flow. */
uint64_t flow_through(const void *context, uint32_t publisher);

#endif
