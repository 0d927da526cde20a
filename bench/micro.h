/* SPDX-License-Identifier: Apache-2.0 */
/*
 * micro.h - what the benchmarks share: a clock, instructions retired (where the kernel lets us
 * count), random numbers from a fixed seed. Every benchmark prints one JSON line. With --counts it
 * does a small fixed amount of work in cases, which bench/counts runs under callgrind.
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

/* The optimizer has to believe that *p is read and changed here: nothing moves out of a loop. */
static inline void micro_keep(void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

#define MICRO_NEED(cond)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* True for a program called with --counts alone. */
bool micro_wants_counts(int argc, char **argv);

/* Instructions of this thread in user mode; -1 where they cannot be counted. */
int micro_count_open(void);
double micro_count_read(int fd); /* 0 for fd -1 */

/* ---- cases: one figure each, in the one JSON line of a program ---- */

/* {"bench": NAME, "cases": {CASE: {"ops": N, "ns": X, "instructions": Y}, ...}} with both per
 * operation; instructions only where the kernel lets us count. */
void micro_begin(const char *bench);
void micro_end(void);

/* Runs `run`, which calls micro_timed() for the parts that count; they are ops operations in all.
 */
void micro_case(const char *name, unsigned ops, void (*run)(void *arg, unsigned ops), void *arg);
/* Time and instructions of fn(arg, n) go to the case that runs. bench/counts finds it by its name.
 */
void micro_timed(void (*fn)(void *arg, unsigned n), void *arg, unsigned n);
/* A case all of which counts. */
void micro_simple(const char *name, unsigned ops, void (*fn)(void *arg, unsigned ops), void *arg);

/* Bytes the allocator has handed out, its rounding included; 0 where that is not known. */
size_t micro_heap_bytes(void);

#endif
