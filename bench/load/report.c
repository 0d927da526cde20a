/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "bench/load/bench.h"

void run_fail(struct run *run, const char *format, ...)
{
    va_list args;

    run->r.failures++;
    if (run->r.failures > MAX_COMPLAINTS) {
        return;
    }
    va_start(args, format);
    fputs("FAILED: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

void run_measure_begin(struct run *run)
{
    if (run->o->pid != 0 && !usage_read(&run->r.before, run->o->pid)) {
        die("cannot read /proc/%d", (int)run->o->pid);
    }
    run->r.own_cpu_ns = usage_own_cpu_ns();
    run->r.seconds = (double)clock_ns() / 1e9;
}

void run_measure_end(struct run *run)
{
    run->r.seconds = (double)clock_ns() / 1e9 - run->r.seconds;
    run->r.own_cpu_ns = usage_own_cpu_ns() - run->r.own_cpu_ns;
    if (run->o->pid != 0 && !usage_read(&run->r.after, run->o->pid)) {
        run_fail(run, "the broker is gone");
        run->r.after = run->r.before;
    }
}

static double per(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static void print_json(const struct run *run)
{
    const struct options *o = run->o;
    const struct result *r = &run->r;
    double delivered = (double)r->delivered;

    printf("{\"scenario\":\"%s\",\"version\":%d,\"qos\":%u,\"publishers\":%u,\"subscribers\":%u,"
           "\"window\":%u,\"payload\":%u,\"connections\":%u,\"seconds\":%.3f,\"sent\":%" PRIu64
           ",\"delivered\":%" PRIu64 ",\"repeated\":%" PRIu64 ",\"failures\":%" PRIu64
           ",\"per_second\":%.0f,\"generator_cpu_us\":%.3f",
           o->scenario, (int)o->version, o->qos, o->publishers, o->subscribers, o->window,
           o->payload_n, r->connections, r->seconds, r->sent, r->delivered, r->repeated,
           r->failures, per(delivered, r->seconds), per((double)r->own_cpu_ns / 1e3, delivered));
    if (r->latency.n > 0) {
        printf(",\"latency_us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p99.9\":%.1f}",
               (double)histogram_at(&r->latency, 0.5) / 1e3,
               (double)histogram_at(&r->latency, 0.9) / 1e3,
               (double)histogram_at(&r->latency, 0.99) / 1e3,
               (double)histogram_at(&r->latency, 0.999) / 1e3);
    }
    if (o->pid != 0) {
        uint64_t cpu = r->after.cpu_ns - r->before.cpu_ns;
        uint64_t switches = r->after.switches - r->before.switches;

        printf(",\"broker_cpu_s\":%.3f,\"broker_cpu_us\":%.3f,\"broker_switches\":%" PRIu64
               ",\"broker_rss_kb\":%" PRIu64 ",\"broker_max_rss_kb\":%" PRIu64,
               (double)cpu / 1e9, per((double)cpu / 1e3, delivered), switches, r->after.rss_kb,
               r->after.max_rss_kb);
    }
    printf("%s}\n", r->notes);
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
    printf("  generator: %.3f us CPU per delivered message%s%s\n",
           per((double)r->own_cpu_ns / 1e3, delivered), r->notes[0] != '\0' ? "; " : "",
           r->notes[0] != '\0' ? r->notes + 1 : "");
    printf("  verified: %" PRIu64 " failures, %" PRIu64 " allowed repetitions\n", r->failures,
           r->repeated);
}

void report_print(const struct run *run)
{
    if (run->o->json) {
        print_json(run);
    } else {
        print_text(run);
    }
}
