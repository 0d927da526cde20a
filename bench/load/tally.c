/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/tally.h"

#include <stdlib.h>

#include "bench/load/loop.h"

void tally_init(struct tally *t, uint32_t window, uint32_t receivers)
{
    uint64_t size = 1;

    while (size < window) {
        size *= 2;
    }
    *t = (struct tally){.mask = size - 1, .receivers = receivers};
    t->came = calloc(size, sizeof(*t->came));
    if (t->came == NULL) {
        die("out of memory");
    }
}

void tally_fini(struct tally *t)
{
    free(t->came);
    t->came = NULL;
}

bool tally_add(struct tally *t, uint64_t seq)
{
    uint64_t base = t->base;

    if (seq - base > t->mask || ++t->came[seq & t->mask] != t->receivers) {
        return false;
    }
    while (t->came[t->base & t->mask] == t->receivers) {
        t->came[t->base++ & t->mask] = 0;
    }
    return t->base != base;
}
