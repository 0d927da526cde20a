/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "bench/load/bench.h"

static double per(double a, double b)
{
    return b > 0 ? a / b : 0;
}

void latency_json(char *out, size_t cap, const struct histogram *h)
{
    snprintf(out, cap, "{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p99.9\":%.1f}",
             (double)histogram_at(h, 0.5) / 1e3, (double)histogram_at(h, 0.9) / 1e3,
             (double)histogram_at(h, 0.99) / 1e3, (double)histogram_at(h, 0.999) / 1e3);
}

static void print_json(const struct run *run)
{
    const struct options *o = run->o;
    const struct result *r = &run->r;
    double delivered = (double)r->delivered;
    char text[128];

    printf("{\"scenario\":\"%s\",\"version\":%d,\"qos\":%u,\"publishers\":%u,\"subscribers\":%u,"
           "\"window\":%u,\"payload\":%u,\"connections\":%u,\"seconds\":%.3f,\"sent\":%" PRIu64
           ",\"delivered\":%" PRIu64 ",\"repeated\":%" PRIu64 ",\"failures\":%" PRIu64
           ",\"per_second\":%.0f,\"generator_cpu_us\":%.3f",
           o->scenario, (int)o->version, o->qos, o->publishers, o->subscribers, o->window,
           o->payload_n, r->connections, r->seconds, r->sent, r->delivered, r->repeated,
           r->failures, per(delivered, r->seconds), per((double)r->own_cpu_ns / 1e3, delivered));
    if (o->rate > 0) {
        printf(",\"rate_wanted\":%.0f,\"rate_reached\":%.0f", o->rate, r->rate_reached);
    }
    if (r->latency.n > 0) {
        latency_json(text, sizeof(text), &r->latency);
        printf(",\"latency_us\":%s", text);
    }
    if (o->pid != 0) {
        uint64_t cpu = r->after.cpu_ns - r->before.cpu_ns;
        uint64_t switches = r->after.switches - r->before.switches;

        printf(",\"broker_cpu_s\":%.3f,\"broker_cpu_us\":%.3f,\"broker_switches\":%" PRIu64
               ",\"broker_rss_kb\":%" PRIu64 ",\"broker_max_rss_kb\":%" PRIu64,
               (double)cpu / 1e9, per((double)cpu / 1e3, delivered), switches, r->after.rss_kb,
               r->after.max_rss_kb);
    }
    printf("%s}\n", run->notes);
}

static void print_text(const struct run *run)
{
    const struct options *o = run->o;
    const struct result *r = &run->r;
    double delivered = (double)r->delivered;

    printf("%s qos %u: %u connections, %" PRIu64 " sent, %" PRIu64
           " delivered in %.2f s = %.0f/s\n",
           o->scenario, o->qos, r->connections, r->sent, r->delivered, r->seconds,
           per(delivered, r->seconds));
    if (o->rate > 0) {
        printf("  rate: %.0f/s of %.0f/s\n", r->rate_reached, o->rate);
    }
    if (r->latency.n > 0) {
        printf("  latency us: p50 %.0f, p90 %.0f, p99 %.0f, p99.9 %.0f\n",
               (double)histogram_at(&r->latency, 0.5) / 1e3,
               (double)histogram_at(&r->latency, 0.9) / 1e3,
               (double)histogram_at(&r->latency, 0.99) / 1e3,
               (double)histogram_at(&r->latency, 0.999) / 1e3);
    }
    if (o->pid != 0) {
        double cpu_us = (double)(r->after.cpu_ns - r->before.cpu_ns) / 1e3;

        printf("  broker: %.3f us CPU per delivered message, %.0f %% of a core, %.3f context "
               "switches per "
               "message, %" PRIu64 " kB (max %" PRIu64 " kB)\n",
               per(cpu_us, delivered), per(cpu_us, r->seconds * 1e4),
               per((double)(r->after.switches - r->before.switches), delivered), r->after.rss_kb,
               r->after.max_rss_kb);
    }
    printf("  generator: %.3f us CPU per delivered message\n",
           per((double)r->own_cpu_ns / 1e3, delivered));
    if (run->notes[0] != '\0') {
        printf("  %s\n", run->notes + 1);
    }
    printf("  verified: %" PRIu64 " failures, %" PRIu64 " allowed repetitions\n", r->failures,
           r->repeated);
}

void report_print(struct run *run)
{
    progress_wipe(&run->progress);
    if (run->o->json) {
        print_json(run);
    } else {
        print_text(run);
    }
}
