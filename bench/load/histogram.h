/* SPDX-License-Identifier: Apache-2.0 */
/*
 * histogram.h - latencies in log-linear buckets: 32 per power of two, so 3 % apart.
 */
#ifndef NOCTULE_BENCH_HISTOGRAM_H
#define NOCTULE_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB 32u

struct histogram {
    uint64_t n;
    uint64_t bucket[60 * HISTOGRAM_SUB];
};

static inline void histogram_add(struct histogram *h, uint64_t v)
{
    unsigned shift = v < HISTOGRAM_SUB ? 0 : 58u - (unsigned)__builtin_clzll(v);

    h->bucket[shift * HISTOGRAM_SUB + (v >> shift)]++;
    h->n++;
}

static inline void histogram_merge(struct histogram *h, const struct histogram *other)
{
    for (unsigned i = 0; i < sizeof(h->bucket) / sizeof(h->bucket[0]); i++) {
        h->bucket[i] += other->bucket[i];
    }
    h->n += other->n;
}

/* Upper end of the bucket below which `share` (0..1) of the values lie. */
static inline uint64_t histogram_at(const struct histogram *h, double share)
{
    uint64_t want = (uint64_t)((double)h->n * share);
    uint64_t seen = 0;

    for (unsigned i = 0; i < sizeof(h->bucket) / sizeof(h->bucket[0]); i++) {
        seen += h->bucket[i];
        if (h->bucket[i] > 0 && seen >= want) {
            unsigned shift = i < 2 * HISTOGRAM_SUB ? 0 : i / HISTOGRAM_SUB - 1;

            return ((uint64_t)(i - shift * HISTOGRAM_SUB) + 1) << shift;
        }
    }
    return 0;
}

#endif
