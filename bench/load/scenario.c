/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/scenario.h"

#define TAKES_FLOW (TAKES_RATE | TAKES_LOCKSTEP | TAKES_ALIASES | TAKES_PROPERTIES | TAKES_OFFLINE)

/* clang-format off */
static const struct scenario scenarios[] = {
    {"p2p", flow_run, TAKES_FLOW,
     {.clients = 1},
     "-n pairs: publisher i to subscriber i"},
    {"fanout", flow_run, TAKES_FLOW,
     {.publishers = 1, .subscribers = 200},
     "-P publishers (1), each message to all -S subscribers (200)"},
    {"fanin", flow_run, TAKES_FLOW,
     {.publishers = 100, .subscribers = 1},
     "-P publishers (100) to -S subscribers (1)"},
    {"shared", shared_run, TAKES_RATE | TAKES_ALIASES | TAKES_PROPERTIES,
     {.publishers = 10, .subscribers = 8, .groups = 1},
     "-P publishers (10) to -S members (8) of -g shared groups (1): each message once\n"
     "to each group; fails when some member of a group gets less than 90 % of another"},
    {"wild", wild_run, TAKES_RATE | TAKES_LOCKSTEP | TAKES_PROPERTIES,
     {.publishers = 10, .subscribers = 500, .filters = 50000, .matches = 10},
     "-P publishers (10) to a population of --filters (50000), exact and with wildcards,\n"
     "on -S clients (500); each message matches --matches (10) of them on as many clients"},
    {"retained", retained_run, 0,
     {.publishers = 10, .topics = 10000, .qos = 1},
     "-P publishers (10) set --topics retained messages (10000), new clients get them all\n"
     "with # and with +; all are cleared, and a new client gets none"},
    {"durable", durable_run, TAKES_PROPERTIES,
     {.publishers = 10, .subscribers = 100, .messages = 50000, .fan = 1, .qos = 1},
     "-P publishers (10) fill the queues of -S offline durable sessions (100) with\n"
     "--messages in all, each to --fan of them; then all come back and drain theirs"},
    {"churn", churn_run, TAKES_RATE | TAKES_PROPERTIES,
     {.clients = 50, .filters = 10, .publishers = 10, .rate = 1000},
     "-n clients (50) subscribe to --filters each (10) and unsubscribe, as fast as the\n"
     "answers come, beside -P steady pairs (10) at --rate (1000) that are checked"},
    {"connect", connect_run, 0,
     {.clients = 50},
     "-n connections at any time (50): CONNECT, CONNACK, DISCONNECT, the broker's\n"
     "close, and again; with --durable the sessions stay and are resumed"},
    {"idle", idle_run, 0,
     {.clients = 1000},
     "-n connections that do nothing (1000): memory for each (needs --pid)"},
    {"chaos", chaos_run, 0,
     {.clients = 20, .rate = 200},
     "a mixed load whose clients come, go, resume and take each other over"},
};
/* clang-format on */

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
