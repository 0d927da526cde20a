/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/seqset.h"

#include <stdlib.h>

#include "bench/load/loop.h"

void seqset_init(struct seqset *s, uint32_t window)
{
    *s = (struct seqset){.size = 64};
    while (s->size < window) {
        s->size *= 2;
    }
    s->bits = calloc(s->size / 64, sizeof(*s->bits));
    if (s->bits == NULL) {
        die("out of memory");
    }
}

void seqset_fini(struct seqset *s)
{
    free(s->bits);
    s->bits = NULL;
}

static uint64_t *word_of(const struct seqset *s, uint64_t seq)
{
    return &s->bits[(seq & (s->size - 1)) / 64];
}

static uint64_t bit_of(uint64_t seq)
{
    return (uint64_t)1 << (seq & 63u);
}

enum seqset_rc seqset_add(struct seqset *s, uint64_t seq)
{
    if (seq < s->base) {
        return SEQSET_DOUBLED;
    }
    if (seq - s->base >= s->size) {
        return SEQSET_AHEAD;
    }
    if (*word_of(s, seq) & bit_of(seq)) {
        return SEQSET_DOUBLED;
    }
    *word_of(s, seq) |= bit_of(seq);
    while (*word_of(s, s->base) & bit_of(s->base)) {
        *word_of(s, s->base) &= ~bit_of(s->base);
        s->base++;
    }
    return SEQSET_NEW;
}

void spread_add(struct spread *s, uint64_t messages)
{
    s->min = s->n == 0 || messages < s->min ? messages : s->min;
    s->max = messages > s->max ? messages : s->max;
    s->sum += messages;
    s->n++;
}

double spread_ratio(const struct spread *s)
{
    return s->max > 0 ? (double)s->min / (double)s->max : 1;
}

bool spread_is_judged(const struct spread *s)
{
    return s->n > 0 && s->sum / s->n >= SPREAD_MIN_EACH;
}

bool spread_is_fair(const struct spread *s)
{
    return spread_ratio(s) >= SPREAD_LIMIT;
}
