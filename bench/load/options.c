/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/client.h"
#include "bench/load/crew.h"

enum kind { TEXT, WHOLE, REAL, FLAG };

struct rule {
    const char *name;
    char letter; /* 0: none */
    enum kind kind;
    size_t at;   /* within struct options */
    size_t size; /* WHOLE */
    uint64_t min;
    uint64_t max;
    const char *argument;
    const char *help; /* further lines are indented by print_rule() */
};

#define AT(field) offsetof(struct options, field), sizeof(((struct options *)0)->field)
#define MILLION   1000000u

/* clang-format off */
static const struct rule rules[] = {
    {"host", 'h', TEXT, AT(host), 0, 0, "HOST", "name, address or path of a unix socket (127.0.0.1)"},
    {"port", 'p', WHOLE, AT(port), 1, 65535, "PORT", "1883"},
    {"version", 'V', WHOLE, AT(version), MQTT_3_1, MQTT_5, "V", "3 (3.1), 4 (3.1.1, default), 5 (5.0)"},
    {"qos", 'q', WHOLE, AT(qos), 0, 2, "Q", "0, 1, 2 (0; durable: 1)"},
    {"clients", 'n', WHOLE, AT(clients), 1, MILLION, "N", "pairs or connections"},
    {"publishers", 'P', WHOLE, AT(publishers), 1, MILLION, "N", ""},
    {"subscribers", 'S', WHOLE, AT(subscribers), 1, MILLION, "N", ""},
    {"groups", 'g', WHOLE, AT(groups), 1, MILLION, "G", "shared: members are dealt out over them (1)"},
    {"filters", 'F', WHOLE, AT(filters), 1, 10 * MILLION, "N", "wild: in all (50000); churn: of each client (10)"},
    {"matches", 'm', WHOLE, AT(matches), 1, MILLION, "M", "wild: receivers of each message (10)"},
    {"topics", 0, WHOLE, AT(topics), 1, 10 * MILLION, "N",
     "retained: messages (10000); wild: so many topics are published to (all)"},
    {"same-receivers", 0, FLAG, AT(same_receivers), 0, 0, NULL,
     "wild: all topics of a publisher go to the same clients"},
    {"fan", 0, WHOLE, AT(fan), 1, MILLION, "K", "durable: sessions that get each message (1)"},
    {"messages", 0, WHOLE, AT(messages), 1, UINT32_MAX, "N", "durable: messages in all (50000)"},
    {"window", 'w', WHOLE, AT(window), 1, 60000, "W", "messages of a publisher that are not through (50)"},
    {"lockstep", 0, FLAG, AT(lockstep), 0, 0, NULL,
     "all publishers send a window, and the next one when all is through"},
    {"rate", 'r', REAL, AT(rate), 0, 0, "R",
     "open loop: R messages a second in all, evenly spaced; latency counts\n"
     "from the time a message was meant to be sent. chaos: of each publisher"},
    {"payload", 'l', WHOLE, AT(payload_n), STAMP_MIN, 16u << 20, "BYTES", "at least 24 (64)"},
    {"count", 'c', WHOLE, AT(count), 1, UINT32_MAX, "N", "messages per publisher instead of a time"},
    {"seconds", 's', REAL, AT(seconds), 0, 0, "T", "(5)"},
    {"durable", 0, FLAG, AT(durable), 0, 0, NULL, "sessions outlive their connections (clean_session=false)"},
    {"offline", 0, FLAG, AT(offline), 0, 0, NULL,
     "p2p, fanout, fanin: receivers are durable and not connected; a message is\n"
     "through when it is acknowledged, and latency is that of acknowledgements"},
    {"alias", 0, WHOLE, AT(aliases), 1, 1000, "N",
     "5.0: topic aliases, up to N each way; publishers then have N + 2 topics"},
    {"properties", 0, FLAG, AT(properties), 0, 0, NULL,
     "5.0: every message carries content type, user properties, correlation\n"
     "data and expiry, subscriptions an identifier; all are checked"},
    {"workers", 0, WHOLE, AT(workers), 1, WORKERS_MAX, "N",
     "p2p, fanout, connect, idle: processes that share the connections (one\n"
     "for each 18,000)"},
    {"sources", 0, WHOLE, AT(sources), 1, 250, "N",
     "source addresses 127.0.0.1 .. N, to a broker in 127.0.0.0/8 (one for\n"
     "each 28,000 connections)"},
    {"pid", 0, WHOLE, AT(pid), 1, INT32_MAX, "PID", "the broker's process: CPU, memory, context switches"},
    {"timeout", 0, REAL, AT(timeout_s), 0, 0, "T", "give up after T seconds without progress (10)"},
    {"seed", 0, WHOLE, AT(seed), 1, UINT64_MAX / 2, "N", "chaos: the same decisions again (from the clock)"},
    {"json", 0, FLAG, AT(json), 0, 0, NULL, "one JSON object on one line instead of text"},
    {"verbose", 'v', FLAG, AT(verbose), 0, 0, NULL, ""},
    {"help", 0, FLAG, 0, 0, 0, 0, NULL, ""},
};
/* clang-format on */

#define LONG_KEY 256 /* above every letter */
#define RULES    (sizeof(rules) / sizeof(rules[0]))

static const char examples[] =
    "\n"
    "Examples\n"
    "  noctule-bench p2p -n 50 -q 1 --pid $(pidof noctule)\n"
    "  noctule-bench p2p -n 100 -q 1 --rate 20000             latency at a given load\n"
    "  noctule-bench fanout -S 200 -q 1 -w 20 --lockstep\n"
    "  noctule-bench durable -q 1 --pid $(pidof noctule)      offline queues, filled and drained\n"
    "  noctule-bench wild -F 1000000 -S 1000 -m 10            a million subscriptions\n"
    "  noctule-bench connect -n 50 -h /run/mosquitto.sock     over a unix socket\n"
    "  noctule-bench fanout -p 1884 --pid $(pidof mosquitto)  another broker, without queue "
    "limits\n"
    "\n"
    "Exit code: 0 all checks held, 1 one failed, 2 wrong use or no way to start.\n";

/* --- help --- */

static void print_rule(FILE *f, const struct rule *r)
{
    char head[64];
    const char *text = r->help;

    snprintf(head, sizeof(head), "  %c%c%s --%s%s%s", r->letter != 0 ? '-' : ' ',
             r->letter != 0 ? r->letter : ' ', r->letter != 0 ? "," : " ", r->name,
             r->argument != NULL ? " " : "", r->argument != NULL ? r->argument : "");
    while (true) {
        size_t n = strcspn(text, "\n");

        fprintf(f, "%-26s %.*s\n", head, (int)n, text);
        if (text[n] == '\0') {
            return;
        }
        text += n + 1;
        head[0] = '\0';
    }
}

static void print_help(FILE *f)
{
    fputs("Usage: noctule-bench SCENARIO [options]\n\nScenarios\n", f);
    scenario_print_help(f);
    fputs(
        "\n"
        "Every message carries its run, publisher, number and time; every number is checked at\n"
        "every receiver: nothing lost, doubled, out of order or misdelivered. Closed loop unless\n"
        "--rate is given: a publisher has at most --window messages that are not acknowledged or\n"
        "that a receiver has not got yet.\n\nOptions\n",
        f);
    for (size_t i = 0; i < RULES; i++) {
        print_rule(f, &rules[i]);
    }
    fputs(examples, f);
}

/* --- values --- */

static uint64_t number(const char *name, const char *text, uint64_t min, uint64_t max)
{
    char *end;
    uint64_t v;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || text[0] == '-' || v < min || v > max) {
        die("--%s %s: a number from %llu to %llu is wanted", name, text, (unsigned long long)min,
            (unsigned long long)max);
    }
    return v;
}

static double real(const char *name, const char *text)
{
    char *end;
    double v = strtod(text, &end);

    if (*end != '\0' || end == text || !(v > 0)) {
        die("--%s %s: a number above 0 is wanted", name, text);
    }
    return v;
}

/* number() has seen to it that the value fits. */
static void put_whole(void *field, size_t size, uint64_t v)
{
    if (size == sizeof(uint8_t)) {
        *(uint8_t *)field = (uint8_t)v;
    } else if (size == sizeof(uint16_t)) {
        *(uint16_t *)field = (uint16_t)v;
    } else if (size == sizeof(uint32_t)) {
        *(uint32_t *)field = (uint32_t)v;
    } else {
        *(uint64_t *)field = v;
    }
}

static void set_option(struct options *o, const struct rule *r, const char *text)
{
    void *field = (char *)o + r->at;

    switch (r->kind) {
    case TEXT:
        *(const char **)field = text;
        return;
    case WHOLE:
        put_whole(field, r->size, number(r->name, text, r->min, r->max));
        return;
    case REAL:
        *(double *)field = real(r->name, text);
        return;
    case FLAG:
        *(bool *)field = true;
        return;
    }
}

/* --- the line --- */

/* getopt's answer for rule i is its letter, or i + LONG_KEY. */
static const struct rule *rule_of(int key)
{
    for (size_t i = 0; i < RULES; i++) {
        if (key == (int)i + LONG_KEY || (rules[i].letter != 0 && key == rules[i].letter)) {
            return &rules[i];
        }
    }
    return NULL;
}

static void getopt_tables(struct option *longs, char *shorts)
{
    for (size_t i = 0; i < RULES; i++) {
        int takes = rules[i].kind == FLAG ? no_argument : required_argument;

        longs[i] = (struct option){rules[i].name, takes, NULL, (int)i + LONG_KEY};
        if (rules[i].letter != 0) {
            *shorts++ = rules[i].letter;
            if (takes == required_argument) {
                *shorts++ = ':';
            }
        }
    }
    longs[RULES] = (struct option){NULL, 0, NULL, 0};
    *shorts = '\0';
}

void options_parse(struct options *o, int argc, char **argv)
{
    struct option longs[RULES + 1];
    char shorts[RULES * 2 + 1];
    int key;

    *o = (struct options){.host = "127.0.0.1",
                          .port = 1883,
                          .version = MQTT_3_1_1,
                          .qos = QOS_UNSET,
                          .payload_n = 64,
                          .seconds = 5,
                          .timeout_s = 10,
                          .seed = clock_ns()};
    getopt_tables(longs, shorts);
    while ((key = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        const struct rule *r = rule_of(key);

        if (r != NULL && strcmp(r->name, "help") == 0) {
            print_help(stdout);
            exit(0);
        }
        if (r == NULL) {
            fputs("noctule-bench --help lists the options\n", stderr);
            exit(2);
        }
        set_option(o, r, optarg);
    }
    if (optind + 1 != argc) {
        fputs("noctule-bench: one scenario is wanted; --help lists them\n", stderr);
        exit(2);
    }
    o->scenario = argv[optind];
    scenario_complete(o);
}
