/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.h - one run: its options, what it found, and the scenarios.
 */
#ifndef NOCTULE_BENCH_BENCH_H
#define NOCTULE_BENCH_BENCH_H

#include "bench/load/client.h"
#include "bench/load/histogram.h"
#include "bench/load/options.h"
#include "bench/load/progress.h"
#include "bench/load/usage.h"

#define MAX_COMPLAINTS 20

/* What a run found. Scenarios fill it in, report.c prints it. */
struct result {
    uint64_t sent;
    uint64_t delivered; /* PUBLISH packets received */
    uint64_t repeated;  /* deliveries the standard allows to happen again (QoS 1 with DUP or after a
                           resume) */
    uint64_t failures;
    uint64_t done; /* what a scenario counts that is not about messages: connects, changes */
    double seconds;
    double rate_reached; /* open loop: messages sent per second */
    struct usage before;
    struct usage after;
    uint64_t own_cpu_ns;
    uint64_t sent_by_alias; /* messages whose topic was an alias alone */
    uint64_t received_by_alias;
    uint32_t connections;
    struct histogram latency;
};

struct drive;
struct crew;

struct run {
    const struct options *o;
    struct result r;
    struct loop loop;
    struct address address;
    uint32_t
        id; /* stamped into payloads and topics: an earlier run's messages are misdelivered ones */
    uint64_t last_event_ns; /* progress of any kind; see run_is_stuck() */
    uint64_t settled_ns;    /* waited at the ends of phases; not in r.seconds */
    bool over;              /* what is measured has ended */
    struct drive *drive;    /* while publishers send */
    struct crew *crew;      /* one of several processes: crew.h; else NULL */
    uint32_t worker;        /* its number */
    uint32_t meetings;      /* of the crew that this worker was at */
    uint32_t first_client;  /* added to the numbers in client ids */
    struct progress progress;
    uint64_t answers; /* calls of herd_up() */
    char notes[4096]; /* scenario's own figures, as JSON members: ,"name":1 */
};

/* Counts a failed check and says so (the first few). */
void run_fail(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Adds a figure of the scenario's own. */
void run_note(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Start and end of what is measured. */
void run_measure_begin(struct run *run);
void run_measure_end(struct run *run);
/* One turn of the loop, with progress shown. */
void run_turn(struct run *run, uint64_t timeout_ns);
/* From here on something has to happen every --timeout seconds ... */
static inline void run_event(struct run *run)
{
    run->last_event_ns = run->loop.now_ns;
}
/* ... and this is whether it did not. */
bool run_is_stuck(const struct run *run);

/* A part of a run that is measured for itself. */
struct phase {
    struct usage before;
    struct usage after;
    uint64_t begin_ns;
    uint64_t end_ns;
};
void phase_begin(struct phase *ph, struct run *run);
/* The time ends here; the broker's CPU is read when it has had a moment to finish. */
void phase_end(struct phase *ph, struct run *run);
/* ,"name":{...}: n of them (unit in the singular), how fast, and what each cost; latency may be
 * NULL. */
void phase_note(const struct phase *ph, struct run *run, const char *name, const char *unit,
                uint64_t n, const struct histogram *latency);
/* Growth of the broker's anonymous memory, for each of n things; 0 without --pid. */
double phase_memory(const struct phase *ph, const struct run *run, uint64_t n);

void flow_run(struct run *run); /* p2p, fanout, fanin */
void shared_run(struct run *run);
void wild_run(struct run *run);
void retained_run(struct run *run);
void durable_run(struct run *run);
void churn_run(struct run *run);
void connect_run(struct run *run);
void idle_run(struct run *run);
void idle_conclude(struct run *run);
void chaos_run(struct run *run);

/* {"p50":...} in microseconds. */
void latency_json(char *out, size_t cap, const struct histogram *h);
/* unit: what r.done counts, where that is what a run is about; else NULL. */
void report_print(struct run *run, const char *unit);

#endif
