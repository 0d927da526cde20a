/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "bench/load/bench.h"

/* What costs are spread over: messages received, or what r.done counts. */
struct share {
    const char *unit; /* singular */
    double n;
};

static double per(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static double us(const struct histogram *h, double share)
{
    return (double)histogram_at(h, share) / 1e3;
}

static double broker_cpu_us(const struct result *r)
{
    return (double)(r->after.cpu_ns - r->before.cpu_ns) / 1e3;
}

static uint64_t broker_switches(const struct result *r)
{
    return r->after.switches - r->before.switches;
}

/* --- JSON --- */

void latency_json(char *out, size_t cap, const struct histogram *h)
{
    snprintf(out, cap, "{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p99.9\":%.1f}", us(h, 0.5),
             us(h, 0.9), us(h, 0.99), us(h, 0.999));
}

static void print_json_head(const struct options *o, const struct result *r)
{
    double delivered = (double)r->delivered;

    printf("{\"scenario\":\"%s\",\"version\":%d,\"qos\":%u,\"publishers\":%u,\"subscribers\":%u,"
           "\"window\":%u,\"payload\":%u,\"connections\":%u,\"seconds\":%.3f,\"sent\":%" PRIu64
           ",\"delivered\":%" PRIu64 ",\"repeated\":%" PRIu64 ",\"failures\":%" PRIu64
           ",\"per_second\":%.0f,\"generator_cpu_us\":%.3f",
           o->scenario, (int)o->version, o->qos, o->publishers, o->subscribers, o->window,
           o->payload_n, r->connections, r->seconds, r->sent, r->delivered, r->repeated,
           r->failures, per(delivered, r->seconds), per((double)r->own_cpu_ns / 1e3, delivered));
}

static void print_json(const struct run *run, const struct share *s)
{
    const struct options *o = run->o;
    const struct result *r = &run->r;
    char text[128];

    print_json_head(o, r);
    if (o->workers > 1) {
        printf(",\"workers\":%u", o->workers);
    }
    if (o->rate > 0) {
        printf(",\"rate_wanted\":%.0f,\"rate_reached\":%.0f", o->rate, r->rate_reached);
    }
    if (o->aliases > 0) {
        printf(",\"sent_by_alias\":%" PRIu64 ",\"received_by_alias\":%" PRIu64, r->sent_by_alias,
               r->received_by_alias);
    }
    if (r->latency.n > 0) {
        latency_json(text, sizeof(text), &r->latency);
        printf(",\"latency_us\":%s", text);
    }
    if (s->unit != NULL) {
        printf(",\"%ss\":%.0f,\"%ss_per_second\":%.0f,\"generator_cpu_us_per_%s\":%.3f", s->unit,
               s->n, s->unit, per(s->n, r->seconds), s->unit,
               per((double)r->own_cpu_ns / 1e3, s->n));
    }
    if (o->pid != 0) {
        printf(",\"broker_cpu_s\":%.3f,\"broker_cpu_us\":%.3f,\"broker_switches\":%" PRIu64
               ",\"broker_rss_kb\":%" PRIu64 ",\"broker_max_rss_kb\":%" PRIu64,
               broker_cpu_us(r) / 1e6, per(broker_cpu_us(r), (double)r->delivered),
               broker_switches(r), r->after.rss_kb, r->after.max_rss_kb);
        if (s->unit != NULL) {
            printf(",\"cpu_us_per_%s\":%.3f", s->unit, per(broker_cpu_us(r), s->n));
        }
    }
    printf("%s}\n", run->notes);
}

/* --- text --- */

static bool is_object(const char *member)
{
    const char *colon = strchr(member, ':');

    return colon != NULL && colon[1] == '{';
}

/* JSON members, read aloud: an object at the outermost level gets a line of its own. */
static void print_notes(const char *notes)
{
    unsigned depth = 0;

    if (notes[0] == '\0') {
        return;
    }
    printf("  ");
    for (const char *p = notes + 1; *p != '\0'; p++) {
        if (*p == '{') {
            printf(depth++ == 0 ? "" : "(");
        } else if (*p == '}') {
            printf(--depth == 0 ? "" : ")");
        } else if (*p == ',') {
            printf("%s", depth == 0 && (p[-1] == '}' || is_object(p + 1)) ? "\n  " : ", ");
        } else if (*p != '"') {
            putchar(*p == ':' || *p == '_' ? ' ' : *p);
        }
    }
    printf("\n");
}

static void print_work(const struct options *o, const struct result *r, const struct share *s)
{
    printf("%s qos %u: %u connections", o->scenario, o->qos, r->connections);
    if (o->workers > 1) {
        printf(" of %u processes", o->workers);
    }
    if (r->sent > 0) {
        printf(", %" PRIu64 " sent, %" PRIu64 " delivered in %.2f s = %.0f/s", r->sent,
               r->delivered, r->seconds, per((double)r->delivered, r->seconds));
    }
    if (s->unit != NULL) {
        printf(", %.0f %ss in %.2f s = %.0f/s", s->n, s->unit, r->seconds, per(s->n, r->seconds));
    }
    printf("\n");
}

static void print_broker(const struct result *r, double n, const char *unit)
{
    printf("  broker: ");
    if (n > 0) {
        printf("%.3f us CPU per %s, ", broker_cpu_us(r) / n, unit);
    }
    printf("%.0f %% of a core, ", per(broker_cpu_us(r), r->seconds * 1e4));
    if (n > 0) {
        printf("%.3f context switches per %s, ", (double)broker_switches(r) / n, unit);
    }
    printf("%" PRIu64 " kB (max %" PRIu64 " kB)\n", r->after.rss_kb, r->after.max_rss_kb);
}

static void print_text(const struct run *run, const struct share *s)
{
    const struct options *o = run->o;
    const struct result *r = &run->r;
    const char *unit = s->unit != NULL ? s->unit : "delivered message";

    print_work(o, r, s);
    if (o->rate > 0) {
        printf("  rate: %.0f/s of %.0f/s\n", r->rate_reached, o->rate);
    }
    if (r->latency.n > 0) {
        printf("  latency us: p50 %.0f, p90 %.0f, p99 %.0f, p99.9 %.0f\n", us(&r->latency, 0.5),
               us(&r->latency, 0.9), us(&r->latency, 0.99), us(&r->latency, 0.999));
    }
    if (o->pid != 0) {
        print_broker(r, s->n, unit);
    }
    if (s->n > 0) {
        printf("  generator: %.3f us CPU per %s\n", (double)r->own_cpu_ns / 1e3 / s->n, unit);
    }
    if (o->aliases > 0) {
        printf("  topics by alias alone: %" PRIu64 " sent, %" PRIu64 " received\n",
               r->sent_by_alias, r->received_by_alias);
    }
    print_notes(run->notes);
    printf("  verified: %" PRIu64 " failures, %" PRIu64 " allowed repetitions\n", r->failures,
           r->repeated);
}

void report_print(struct run *run, const char *unit)
{
    const struct share s = {unit, (double)(unit != NULL ? run->r.done : run->r.delivered)};

    progress_wipe(&run->progress);
    if (run->o->json) {
        print_json(run, &s);
    } else {
        print_text(run, &s);
    }
}
