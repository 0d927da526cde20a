/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.h - a line once a second for whoever looks on: only when standard error is a terminal.
 */
#ifndef NOCTULE_BENCH_PROGRESS_H
#define NOCTULE_BENCH_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *phase;     /* static text */
    const char *unit;      /* static text: what is counted */
    const uint64_t *count; /* borrowed */
    uint64_t begin_ns;
    uint64_t next_ns; /* when the next line is due; UINT64_MAX: nobody looks on */
    uint64_t last;    /* count at the last line */
    bool shown;       /* a line stands there that has to be wiped */
};

void progress_init(struct progress *p);
/* What is shown from now on. */
void progress_phase(struct progress *p, const char *phase, const char *unit, const uint64_t *count);
void progress_show(struct progress *p, uint64_t now_ns);
/* Before other output. */
void progress_wipe(struct progress *p);

static inline void progress_tick(struct progress *p, uint64_t now_ns)
{
    if (now_ns >= p->next_ns) {
        progress_show(p, now_ns);
    }
}

#endif
