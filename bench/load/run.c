/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - what every scenario uses of its run: complaints, figures, measuring.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "bench/load/crew.h"

#define SETTLE_MS 200u /* what a broker still does then for what it has answered */

void run_fail(struct run *run, const char *format, ...)
{
    char text[512];
    va_list args;

    run->r.failures++;
    if (run->r.failures > MAX_COMPLAINTS) {
        return;
    }
    progress_wipe(&run->progress);
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fprintf(stderr, "FAILED: %s\n", text); /* one write: workers share the terminal */
}

void run_note(struct run *run, const char *format, ...)
{
    size_t used = strlen(run->notes);
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(run->notes + used, sizeof(run->notes) - used, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(run->notes) - used) {
        die("too many figures");
    }
}

void run_turn(struct run *run, uint64_t timeout_ns)
{
    loop_turn_ns(&run->loop, timeout_ns);
    crew_tell(run);
    progress_tick(&run->progress, run->loop.now_ns);
}

bool run_is_stuck(const struct run *run)
{
    return run->loop.now_ns - run->last_event_ns > (uint64_t)(run->o->timeout_s * 1e9);
}

static void read_usage(struct run *run, struct usage *out)
{
    if (run->o->pid != 0 && !usage_read(out, run->o->pid)) {
        run_fail(run, "the broker is gone");
    }
}

void run_measure_begin(struct run *run)
{
    run->settled_ns = 0;
    crew_meet(run);
    if (run->o->pid != 0 && !usage_read(&run->r.before, run->o->pid)) {
        die("cannot read /proc/%d", (int)run->o->pid);
    }
    run->r.own_cpu_ns = usage_own_cpu_ns();
    run->r.seconds = (double)clock_ns() / 1e9;
}

void run_measure_end(struct run *run)
{
    run->r.seconds = (double)(clock_ns() - run->settled_ns) / 1e9 - run->r.seconds;
    run->r.own_cpu_ns = usage_own_cpu_ns() - run->r.own_cpu_ns;
    crew_meet(run);
    run->r.after = run->r.before;
    read_usage(run, &run->r.after);
    run->over = true;
}

/* --- phases --- */

void phase_begin(struct phase *ph, struct run *run)
{
    *ph = (struct phase){.begin_ns = 0};
    read_usage(run, &ph->before);
    ph->after = ph->before;
    ph->begin_ns = clock_ns();
}

void phase_end(struct phase *ph, struct run *run)
{
    ph->end_ns = clock_ns();
    loop_linger(&run->loop, SETTLE_MS);
    read_usage(run, &ph->after);
    run->settled_ns += clock_ns() - ph->end_ns;
}

void phase_note(const struct phase *ph, struct run *run, const char *name, const char *unit,
                uint64_t n, const struct histogram *latency)
{
    char text[128];
    double seconds = (double)(ph->end_ns - ph->begin_ns) / 1e9;
    double each = n > 0 ? 1.0 / (double)n : 0;

    run_note(run, ",\"%s\":{\"%ss\":%" PRIu64 ",\"seconds\":%.3f,\"rate\":%.0f", name, unit, n,
             seconds, seconds > 0 ? (double)n / seconds : 0);
    if (run->o->pid != 0) {
        run_note(run, ",\"cpu_us_per_%s\":%.3f,\"switches_per_%s\":%.4f", unit,
                 (double)(ph->after.cpu_ns - ph->before.cpu_ns) / 1e3 * each, unit,
                 (double)(ph->after.switches - ph->before.switches) * each);
    }
    if (latency != NULL && latency->n > 0) {
        latency_json(text, sizeof(text), latency);
        run_note(run, ",\"latency_us\":%s", text);
    }
    run_note(run, "}");
}

double phase_memory(const struct phase *ph, const struct run *run, uint64_t n)
{
    if (run->o->pid == 0 || n == 0) {
        return 0;
    }
    return ((double)ph->after.anonymous_kb - (double)ph->before.anonymous_kb) * 1024.0 / (double)n;
}
