/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - noctule-bench: drives a broker with many clients and checks every message that comes
 * back.
 *
 * Exit code: 0 all checks held, 1 one failed, 2 wrong use or no way to start.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/load/bench.h"

static const char help[] =
    "Usage: noctule-bench SCENARIO [options]\n"
    "\n"
    "Scenarios\n"
    "  p2p      -n pairs: publisher i to subscriber i\n"
    "  fanout   -P publishers (1), each message to -S subscribers\n"
    "  fanin    -P publishers to -S subscribers (1)\n"
    "  shared   -P publishers (10) to -S members (8) of -g shared groups (1): each message once "
    "to\n"
    "           each group; fails when some member of a group gets less than 90 % of another\n"
    "  idle     -n connections that do nothing: memory for each (needs --pid)\n"
    "  chaos    a mixed load whose clients come, go, resume and take each other over\n"
    "\n"
    "Every message carries its run, publisher, number and time; every number is checked at every\n"
    "receiver: nothing lost, doubled, out of order or misdelivered. Closed loop: a publisher has "
    "at most\n"
    "--window messages that are unacknowledged or that a receiver has not got yet.\n"
    "\n"
    "  -h, --host HOST      name, address or path of a unix socket (127.0.0.1)\n"
    "  -p, --port PORT      1883\n"
    "  -V, --version V      3 (3.1), 4 (3.1.1, default), 5 (5.0)\n"
    "  -q, --qos Q          0, 1, 2 (0)\n"
    "  -n, --clients N      pairs or connections (1)\n"
    "  -P, --publishers N   -S, --subscribers N\n"
    "  -g, --groups G       members are dealt out over them\n"
    "  -w, --window W       (50)\n"
    "  -l, --payload BYTES  at least 24 (64)\n"
    "  -c, --count N        messages per publisher instead of a time\n"
    "  -s, --seconds T      (5)\n"
    "      --alias N        5.0: topic aliases, up to N each way; publishers then have N + 2 "
    "topics\n"
    "      --properties     5.0: every message carries content type, user properties, correlation\n"
    "                       data and expiry, subscriptions an identifier; all are checked\n"
    "  -r, --rate R         chaos: messages per second and publisher (200)\n"
    "      --timeout T      give up after T seconds without progress (10)\n"
    "      --seed N         chaos: the same decisions again (from the clock)\n"
    "      --pid PID        the broker's process: CPU, memory, context switches\n"
    "      --durable        sessions outlive their connections (clean_session=false)\n"
    "      --offline        p2p, fanout, fanin: receivers are durable and not connected; a "
    "message\n"
    "                       is through when it is acknowledged\n"
    "      --json           one JSON object instead of text\n"
    "  -v, --verbose\n"
    "\n"
    "Example: noctule-bench p2p -n 50 -q 1 -w 50 -s 5 --pid $(pidof noctule)\n";

static const struct option long_options[] = {{"host", required_argument, NULL, 'h'},
                                             {"port", required_argument, NULL, 'p'},
                                             {"version", required_argument, NULL, 'V'},
                                             {"qos", required_argument, NULL, 'q'},
                                             {"clients", required_argument, NULL, 'n'},
                                             {"publishers", required_argument, NULL, 'P'},
                                             {"subscribers", required_argument, NULL, 'S'},
                                             {"groups", required_argument, NULL, 'g'},
                                             {"window", required_argument, NULL, 'w'},
                                             {"payload", required_argument, NULL, 'l'},
                                             {"count", required_argument, NULL, 'c'},
                                             {"seconds", required_argument, NULL, 's'},
                                             {"rate", required_argument, NULL, 'r'},
                                             {"timeout", required_argument, NULL, 't'},
                                             {"seed", required_argument, NULL, 'e'},
                                             {"pid", required_argument, NULL, 'i'},
                                             {"alias", required_argument, NULL, 'a'},
                                             {"properties", no_argument, NULL, 'o'},
                                             {"durable", no_argument, NULL, 'd'},
                                             {"offline", no_argument, NULL, 'f'},
                                             {"json", no_argument, NULL, 'j'},
                                             {"verbose", no_argument, NULL, 'v'},
                                             {"help", no_argument, NULL, '?'},
                                             {NULL, 0, NULL, 0}};

static uint64_t number(const char *text, uint64_t min, uint64_t max)
{
    char *end;
    uint64_t v;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || v < min || v > max) {
        die("%s: a number from %llu to %llu is wanted", text, (unsigned long long)min,
            (unsigned long long)max);
    }
    return v;
}

static double real(const char *text)
{
    char *end;
    double v = strtod(text, &end);

    if (*end != '\0' || end == text || !(v > 0)) {
        die("%s: a number above 0 is wanted", text);
    }
    return v;
}

static void set_option(struct options *o, int key, const char *v)
{
    switch (key) {
    case 'h':
        o->host = v;
        return;
    case 'p':
        o->port = (unsigned)number(v, 1, 65535);
        return;
    case 'V':
        o->version = (enum mqtt_version)number(v, MQTT_3_1, MQTT_5);
        return;
    case 'q':
        o->qos = (uint8_t)number(v, 0, 2);
        return;
    case 'n':
        o->clients = (uint32_t)number(v, 1, 1000000);
        return;
    case 'P':
        o->publishers = (uint32_t)number(v, 1, 100000);
        return;
    case 'S':
        o->subscribers = (uint32_t)number(v, 1, 100000);
        return;
    case 'g':
        o->groups = (uint32_t)number(v, 1, 100000);
        return;
    case 'w':
        o->window = (uint32_t)number(v, 1, 60000);
        return;
    case 'l':
        o->payload_n = (uint32_t)number(v, STAMP_MIN, 16u << 20);
        return;
    case 'c':
        o->count = number(v, 1, UINT64_MAX / 2);
        return;
    case 's':
        o->seconds = real(v);
        return;
    case 'r':
        o->rate = real(v);
        return;
    case 't':
        o->timeout_s = real(v);
        return;
    case 'e':
        o->seed = number(v, 1, UINT64_MAX / 2);
        return;
    case 'i':
        o->pid = (pid_t)number(v, 1, INT32_MAX);
        return;
    case 'a':
        o->aliases = (uint16_t)number(v, 1, 1000);
        return;
    case 'o':
        o->properties = true;
        return;
    case 'd':
        o->durable = true;
        return;
    case 'f':
        o->durable = o->offline = true;
        return;
    case 'j':
        o->json = true;
        return;
    case 'v':
        o->verbose = true;
        return;
    default:
        fputs(help, stderr);
        exit(2);
    }
}

static void parse(struct options *o, int argc, char **argv)
{
    int key;

    *o = (struct options){.host = "127.0.0.1",
                          .port = 1883,
                          .version = MQTT_3_1_1,
                          .clients = 1,
                          .groups = 1,
                          .window = 50,
                          .payload_n = 64,
                          .seconds = 5,
                          .rate = 200,
                          .timeout_s = 10,
                          .seed = clock_ns()};
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(help, stdout);
        exit(0);
    }
    while ((key = getopt_long(argc, argv, "h:p:V:q:n:P:S:g:w:l:c:s:r:v", long_options, NULL)) !=
           -1) {
        set_option(o, key, optarg);
    }
    if (optind + 1 != argc) {
        fputs(help, stderr);
        exit(2);
    }
    o->scenario = argv[optind];
    if ((o->aliases > 0 || o->properties) && o->version != MQTT_5) {
        die("--alias and --properties need --version 5");
    }
    if (o->offline && o->qos == 0) {
        die("--offline needs --qos 1 or 2: nothing tells when a message of QoS 0 was taken");
    }
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static const struct scenario {
    const char *name;
    void (*run)(struct run *run);
    bool takes_v5; /* --alias and --properties */
} scenarios[] = {{"p2p", flow_run, true},   {"fanout", flow_run, true},
                 {"fanin", flow_run, true}, {"shared", shared_run, true},
                 {"idle", idle_run, false}, {"chaos", chaos_run, false}};

static const struct scenario *scenario_find(const char *name)
{
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        if (strcmp(scenarios[i].name, name) == 0) {
            return &scenarios[i];
        }
    }
    die("no scenario named %s; --help lists them", name);
}

/* Who publishes and who receives, where the options leave it open. */
static void set_roles(struct options *o)
{
    if (strcmp(o->scenario, "p2p") == 0) {
        o->publishers = o->subscribers = o->clients;
    } else if (strcmp(o->scenario, "fanout") == 0) {
        o->publishers = o->publishers == 0 ? 1 : o->publishers;
        o->subscribers = o->subscribers == 0 ? 200 : o->subscribers;
    } else if (strcmp(o->scenario, "fanin") == 0) {
        o->publishers = o->publishers == 0 ? 100 : o->publishers;
        o->subscribers = o->subscribers == 0 ? 1 : o->subscribers;
    } else if (strcmp(o->scenario, "shared") == 0) {
        o->publishers = o->publishers == 0 ? 10 : o->publishers;
        o->subscribers = o->subscribers == 0 ? 8 : o->subscribers;
        if (o->groups > o->subscribers) {
            die("more groups than members");
        }
    }
}

int main(int argc, char **argv)
{
    static struct run run;
    struct options o;
    const struct scenario *s;

    parse(&o, argc, argv);
    s = scenario_find(o.scenario);
    if ((o.aliases > 0 || o.properties) && !s->takes_v5) {
        die("%s: --alias and --properties are not for it", o.scenario);
    }
    if (o.offline && s->run != flow_run) {
        die("%s: --offline is not for it", o.scenario);
    }
    set_roles(&o);
    raise_descriptor_limit();
    run.o = &o;
    run.id = (uint32_t)(clock_ns() ^ ((uint64_t)getpid() << 16));
    if (!address_parse(&run.address, o.host, o.port)) {
        die("%s: no such address", o.host);
    }
    loop_init(&run.loop);
    s->run(&run);
    loop_fini(&run.loop);
    report_print(&run);
    return run.r.failures > 0 ? 1 : 0;
}
