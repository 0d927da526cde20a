/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.h - one run: its options, what it found, and the scenarios.
 */
#ifndef NOCTULE_BENCH_BENCH_H
#define NOCTULE_BENCH_BENCH_H

#include "bench/load/client.h"
#include "bench/load/histogram.h"
#include "bench/load/usage.h"

struct options {
    const char *scenario;
    const char *host; /* name, address, or the path of a unix socket */
    unsigned port;
    enum mqtt_version version;
    uint8_t qos;
    uint32_t publishers;
    uint32_t subscribers;
    uint32_t clients; /* p2p: pairs; idle: connections */
    uint32_t window;  /* messages per publisher that are not through yet */
    uint32_t payload_n;
    uint64_t count; /* messages per publisher; 0: by time */
    double seconds;
    double rate;      /* chaos: messages per second and publisher */
    double timeout_s; /* silence after which a run is given up */
    uint64_t seed;
    pid_t pid;        /* of the broker, 0: not measured */
    uint32_t groups;  /* shared */
    uint16_t aliases; /* topic aliases per publisher, and offered to the broker */
    bool properties;  /* extras.h on every message */
    bool durable;     /* clients have durable sessions */
    bool offline;     /* p2p, fanout, fanin: receivers' sessions have no connections */
    bool json;
    bool verbose;
};

#define MAX_COMPLAINTS 20

/* What a run found. Scenarios fill it in, report.c prints it. */
struct result {
    uint64_t sent;
    uint64_t delivered; /* PUBLISH packets received */
    uint64_t repeated;  /* deliveries the standard allows to happen again (QoS 1 with DUP or after a
                           resume) */
    uint64_t failures;
    double seconds;
    struct usage before;
    struct usage after;
    uint64_t own_cpu_ns;
    uint32_t connections;
    struct histogram latency;
    char notes[512]; /* scenario's own figures, as JSON members: ,"name":1 */
};

struct run {
    const struct options *o;
    struct result r;
    struct loop loop;
    struct address address;
    uint32_t
        id; /* stamped into payloads and topics: an earlier run's messages are misdelivered ones */
    uint64_t last_event_ns;
};

/* Counts a failed check and says so (the first few). */
void run_fail(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Start and end of what is measured. */
void run_measure_begin(struct run *run);
void run_measure_end(struct run *run);

void flow_run(struct run *run); /* p2p, fanout, fanin */
void shared_run(struct run *run);
void idle_run(struct run *run);
void chaos_run(struct run *run);

void report_print(const struct run *run);

#endif
