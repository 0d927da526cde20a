/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/load/loop.h"

#define SECOND_NS 1000000000u

void progress_init(struct progress *p)
{
    uint64_t now = clock_ns();

    *p = (struct progress){.phase = "connecting", .unit = "", .begin_ns = now};
    p->next_ns = isatty(STDERR_FILENO) ? now + SECOND_NS : UINT64_MAX;
}

void progress_phase(struct progress *p, const char *phase, const char *unit, const uint64_t *count)
{
    p->phase = phase;
    p->unit = unit;
    p->count = count;
    p->last = *count;
}

void progress_show(struct progress *p, uint64_t now_ns)
{
    uint64_t n = p->count != NULL ? *p->count : 0;
    double passed = (double)(now_ns - p->next_ns + SECOND_NS) / 1e9;

    fprintf(stderr, "\r\033[K%4.0f s  %s", (double)(now_ns - p->begin_ns) / 1e9, p->phase);
    if (p->count != NULL) {
        fprintf(stderr, ": %" PRIu64 " %s, %.0f/s", n, p->unit, (double)(n - p->last) / passed);
    }
    fflush(stderr);
    p->last = n;
    p->next_ns = now_ns + SECOND_NS;
    p->shown = true;
}

void progress_wipe(struct progress *p)
{
    if (p->shown) {
        fputs("\r\033[K", stderr);
        p->shown = false;
    }
}
