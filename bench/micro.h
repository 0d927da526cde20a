/* SPDX-License-Identifier: Apache-2.0 */
/*
 * micro.h - what the benchmarks share: a clock, instructions retired (where the kernel lets us
 * count), random numbers from a fixed seed. Every benchmark prints one JSON line.
 */
#ifndef NOCTULE_MICRO_H
#define NOCTULE_MICRO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MICRO_SEED 20240229u

static inline double micro_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* CPU time of this thread. */
static inline double micro_cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* splitmix64 */
static inline uint64_t micro_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#define MICRO_NEED(cond)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Instructions of this thread in user mode; -1 where they cannot be counted. */
int micro_count_open(void);
double micro_count_read(int fd); /* 0 for fd -1 */

/* Bytes the allocator has handed out, its rounding included; 0 where that is not known. */
size_t micro_heap_bytes(void);

#endif
