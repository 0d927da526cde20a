/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.h - what the command line asks for. One table holds names, ranges and help.
 */
#ifndef NOCTULE_BENCH_OPTIONS_H
#define NOCTULE_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "server/codec/mqtt.h"

/* Counts that were left out are 0 until the scenario's own are filled in. */
struct options {
    const char *scenario;
    const char *host; /* name, address, or the path of a unix socket */
    uint32_t port;
    enum mqtt_version version;
    uint8_t qos;
    uint32_t publishers;
    uint32_t subscribers;
    uint32_t clients; /* p2p: pairs; idle, connect, churn: connections */
    uint32_t window;  /* messages per publisher that are not through yet */
    uint32_t payload_n;
    uint32_t groups;   /* shared */
    uint32_t filters;  /* wild: in all; churn: each client's */
    uint32_t matches;  /* wild: receivers of a message */
    uint32_t fan;      /* durable: sessions that get a message */
    uint32_t topics;   /* retained; wild: so many are published to, 0: all */
    uint32_t workers;  /* processes, 0: as many as the connections need */
    uint32_t sources;  /* source addresses, 0: likewise */
    uint16_t aliases;  /* topic aliases per publisher, and offered to the broker */
    pid_t pid;         /* of the broker, 0: not measured */
    uint64_t count;    /* messages per publisher; 0: by time */
    uint64_t messages; /* durable: in all */
    uint64_t seed;
    double seconds;
    double rate;      /* messages per second in all, 0: closed loop; chaos: of each publisher */
    double timeout_s; /* silence after which a run is given up */
    bool lockstep;    /* a window is sent when the one before is through */
    bool same_receivers; /* wild: all topics of a publisher go to the same clients */
    bool properties;  /* extras.h on every message */
    bool durable;     /* clients have durable sessions */
    bool offline;     /* receivers' sessions have no connections */
    bool json;
    bool verbose;
};

/* Prints what is wrong, or the help, and ends the program where the line is not usable. */
void options_parse(struct options *o, int argc, char **argv);

#endif
