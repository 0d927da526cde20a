/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage.h - what a process (the broker) has used, from /proc.
 *
 * CPU comes from schedstat (nanoseconds, summed over the threads alive), else from stat (clock
 * ticks).
 */
#ifndef NOCTULE_BENCH_USAGE_H
#define NOCTULE_BENCH_USAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct usage {
    uint64_t cpu_ns;
    uint64_t switches; /* context switches, both kinds, all threads */
    uint64_t rss_kb;
    uint64_t max_rss_kb;
    uint64_t anonymous_kb; /* RssAnon: without the program's own pages */
};

/* false: no such process, or not readable. */
bool usage_read(struct usage *out, pid_t pid);
/* CPU time of this process. */
uint64_t usage_own_cpu_ns(void);

#endif
