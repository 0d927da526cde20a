/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scenario.h - the table of scenarios: what each is called, does, takes, and its defaults.
 */
#ifndef NOCTULE_BENCH_SCENARIO_H
#define NOCTULE_BENCH_SCENARIO_H

#include <stdio.h>

#include "bench/load/bench.h"

#define QOS_UNSET 255u

enum takes {
    TAKES_RATE = 1,
    TAKES_LOCKSTEP = 2,
    TAKES_ALIASES = 4,
    TAKES_PROPERTIES = 8,
    TAKES_OFFLINE = 16,
    TAKES_WORKERS = 32,
};

struct scenario {
    const char *name;
    void (*run)(struct run *run);
    unsigned takes;
    struct options defaults;           /* counts only; 0: the scenario has no such number */
    const char *help;                  /* lines */
    const char *unit;                  /* of r.done, where that is what a run is about */
    void (*conclude)(struct run *run); /* NULL, or adds its notes in the end */
};

/* Ends the program when there is none of that name. */
const struct scenario *scenario_find(const char *name);
/* How many connections a run needs. */
uint64_t scenario_connections(const struct options *o);
/* Fills in the defaults and refuses what the scenario does not take. */
void scenario_complete(struct options *o);
void scenario_print_help(FILE *f);

#endif
