/* SPDX-License-Identifier: Apache-2.0 */
#include "server/load_average.h"

#include <math.h>

static const struct {
    const char *name;
    double seconds;
} windows[LOAD_WINDOWS] = {{"1min", 60.0}, {"5min", 300.0}, {"15min", 900.0}};

void load_average_update(struct load_average *l, uint64_t count, double dt_s)
{
    double rate;

    if (!(dt_s > 0.0)) {
        return;
    }
    rate = (double)(count - l->last) * 60.0 / dt_s; /* the difference is right over a wrap, too */
    l->last = count;
    for (unsigned i = 0; i < LOAD_WINDOWS; i++) {
        double stays = exp(-dt_s / windows[i].seconds);
        l->per_minute[i] = rate + stays * (l->per_minute[i] - rate);
    }
}

const char *load_average_window(unsigned window)
{
    return windows[window].name;
}
