/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/scenario.h"

#include "bench/load/crew.h"

#define TAKES_FLOW (TAKES_RATE | TAKES_LOCKSTEP | TAKES_ALIASES | TAKES_PROPERTIES | TAKES_OFFLINE)

/* clang-format off */
static const struct scenario scenarios[] = {
    {.name = "p2p",
     .run = flow_run,
     .takes = TAKES_FLOW | TAKES_WORKERS,
     .defaults = {.clients = 1},
     .help = "-n pairs (1): publisher i to subscriber i"},
    {.name = "fanout",
     .run = flow_run,
     .takes = TAKES_FLOW | TAKES_WORKERS,
     .defaults = {.publishers = 1, .subscribers = 200},
     .help = "-P publishers (1), each message to all -S subscribers (200)"},
    {.name = "fanin",
     .run = flow_run,
     .takes = TAKES_FLOW,
     .defaults = {.publishers = 100, .subscribers = 1},
     .help = "-P publishers (100) to -S subscribers (1)"},
    {.name = "shared",
     .run = shared_run,
     .takes = TAKES_RATE | TAKES_ALIASES | TAKES_PROPERTIES,
     .defaults = {.publishers = 10, .subscribers = 8, .groups = 1},
     .help = "-P publishers (10) to -S members (8) of -g shared groups (1): each message once\n"
            "to each group; fails when some member of a group gets less than 90 % of another"},
    {.name = "wild",
     .run = wild_run,
     .takes = TAKES_RATE | TAKES_LOCKSTEP | TAKES_PROPERTIES,
     .defaults = {.publishers = 10, .subscribers = 500, .filters = 50000, .matches = 10},
     .help = "-P publishers (10) to a population of --filters (50000), exact and with wildcards,\n"
            "on -S clients (500); each message matches --matches (10) of them on as many clients"},
    {.name = "retained",
     .run = retained_run,
     .defaults = {.publishers = 10, .topics = 10000, .qos = 1},
     .help = "-P publishers (10) set --topics retained messages (10000), new clients get them all\n"
            "with # and with +; all are cleared, and a new client gets none"},
    {.name = "durable",
     .run = durable_run,
     .takes = TAKES_PROPERTIES,
     .defaults = {.publishers = 10, .subscribers = 100, .messages = 50000, .fan = 1, .qos = 1},
     .help = "-P publishers (10) fill the queues of -S offline durable sessions (100) with\n"
            "--messages in all, each to --fan of them; then all come back and drain theirs"},
    {.name = "churn",
     .run = churn_run,
     .takes = TAKES_RATE | TAKES_PROPERTIES,
     .defaults = {.clients = 50, .filters = 10, .publishers = 10, .rate = 1000},
     .unit = "change",
     .help = "-n clients (50) subscribe to --filters each (10) and unsubscribe, as fast as the\n"
            "answers come, beside -P steady pairs (10) at --rate (1000) that are checked"},
    {.name = "connect",
     .run = connect_run,
     .takes = TAKES_WORKERS,
     .defaults = {.clients = 50},
     .unit = "connect",
     .help = "-n connections at any time (50): CONNECT, CONNACK, DISCONNECT, the broker's\n"
            "close, and again; with --durable the sessions stay and are resumed"},
    {.name = "idle",
     .run = idle_run,
     .takes = TAKES_WORKERS,
     .defaults = {.clients = 1000},
     .conclude = idle_conclude,
     .help = "-n connections that do nothing (1000): memory for each (needs --pid)"},
    {.name = "chaos",
     .run = chaos_run,
     .defaults = {.clients = 20, .rate = 200},
     .help = "a mixed load whose clients come, go, resume and take each other over"},
};
/* clang-format on */

#define PER_WORKER 18000u /* connections, below the usual limit of 20,000 descriptors */
#define PER_SOURCE 28000u /* connections, below the usual 28,232 ephemeral ports */

#define SCENARIOS (sizeof(scenarios) / sizeof(scenarios[0]))

const struct scenario *scenario_find(const char *name)
{
    for (size_t i = 0; i < SCENARIOS; i++) {
        if (strcmp(scenarios[i].name, name) == 0) {
            return &scenarios[i];
        }
    }
    die("no scenario named %s; --help lists them", name);
}

static void set_default(uint32_t *value, uint32_t fallback)
{
    if (*value == 0) {
        *value = fallback;
    }
}

static void fill_in(struct options *o, const struct options *d)
{
    set_default(&o->clients, d->clients);
    set_default(&o->publishers, d->publishers);
    set_default(&o->subscribers, d->subscribers);
    set_default(&o->groups, d->groups);
    set_default(&o->filters, d->filters);
    set_default(&o->matches, d->matches);
    set_default(&o->topics, d->topics);
    set_default(&o->fan, d->fan);
    set_default(&o->window, 50);
    o->messages = o->messages == 0 ? d->messages : o->messages;
    o->rate = o->rate > 0 ? o->rate : d->rate;
    o->qos = o->qos == QOS_UNSET ? d->qos : o->qos;
    if (strcmp(o->scenario, "p2p") == 0) {
        o->publishers = o->clients;
    }
    if (strcmp(o->scenario, "p2p") == 0 || strcmp(o->scenario, "churn") == 0) {
        o->subscribers = o->publishers; /* pairs */
    }
}

static void refuse(const struct scenario *s, unsigned takes, bool given, const char *option)
{
    if (given && !(s->takes & takes)) {
        die("%s: %s is not for it", s->name, option);
    }
}

uint64_t scenario_connections(const struct options *o)
{
    return (uint64_t)o->clients * (strcmp(o->scenario, "p2p") == 0 ? 0 : 1) + o->publishers +
           o->subscribers;
}

/* As many processes and source addresses as the connections ask for. */
static void spread(struct options *o, const struct scenario *s)
{
    uint64_t n = scenario_connections(o);

    if (o->workers == 0) {
        o->workers = s->takes & TAKES_WORKERS ? (uint32_t)((n + PER_WORKER - 1) / PER_WORKER) : 1;
    }
    if (o->sources == 0) {
        o->sources = o->host[0] == '/' ? 1 : (uint32_t)((n + PER_SOURCE - 1) / PER_SOURCE);
    }
    if (o->workers > WORKERS_MAX) {
        die("more than %u processes", WORKERS_MAX);
    }
    if (o->workers > 1 && (o->offline || o->workers > o->clients + o->subscribers)) {
        die("--workers: %s", o->offline ? "not with --offline" : "more than connections");
    }
}

static void at_most_subscribers(const struct options *o, uint32_t n, const char *option)
{
    if (n > o->subscribers) {
        die("%s %u is more than there are subscribers (%u)", option, n, o->subscribers);
    }
}

void scenario_complete(struct options *o)
{
    const struct scenario *s = scenario_find(o->scenario);

    refuse(s, TAKES_RATE, o->rate > 0 && s->defaults.rate <= 0, "--rate");
    refuse(s, TAKES_LOCKSTEP, o->lockstep, "--lockstep");
    refuse(s, TAKES_ALIASES, o->aliases > 0, "--alias");
    refuse(s, TAKES_OFFLINE, o->offline, "--offline");
    refuse(s, TAKES_WORKERS, o->workers > 1, "--workers");
    refuse(s, TAKES_PROPERTIES, o->properties, "--properties");
    if ((o->aliases > 0 || o->properties) && o->version != MQTT_5) {
        die("--alias and --properties need --version 5");
    }
    if (o->lockstep && o->rate > 0) {
        die("--lockstep is a closed loop, --rate an open one");
    }
    fill_in(o, &s->defaults);
    if (o->offline && o->qos == 0) {
        die("--offline needs --qos 1 or 2: nothing tells when a message of QoS 0 was taken");
    }
    o->durable |= o->offline;
    if (s->run == durable_run && o->qos == 0) {
        die("durable: messages of QoS 0 need not be kept for a session that is away");
    }
    at_most_subscribers(o, o->groups, "--groups");
    at_most_subscribers(o, o->fan, "--fan");
    at_most_subscribers(o, o->matches, "--matches");
    spread(o, s);
}

static void print_lines(FILE *f, const char *name, const char *text)
{
    while (true) {
        size_t n = strcspn(text, "\n");

        fprintf(f, "  %-9s %.*s\n", name, (int)n, text);
        if (text[n] == '\0') {
            return;
        }
        text += n + 1;
        name = "";
    }
}

void scenario_print_help(FILE *f)
{
    for (size_t i = 0; i < SCENARIOS; i++) {
        print_lines(f, scenarios[i].name, scenarios[i].help);
    }
}
