/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load_average.h - how fast a counter goes, averaged over 1, 5 and 15 minutes. Pure.
 *
 * The values are per minute, as in mosquitto's $SYS/broker/load topics: after an interval of dt
 * seconds the average moves towards the interval's own rate by 1 - exp(-dt / window).
 */
#ifndef NOCTULE_LOAD_AVERAGE_H
#define NOCTULE_LOAD_AVERAGE_H

#include <stdint.h>

#define LOAD_WINDOWS 3 /* 1, 5, 15 minutes */

struct load_average {
    uint64_t last; /* the counter when it was looked at; may wrap */
    double per_minute[LOAD_WINDOWS];
};

/* The counter stands at `count`, dt_s seconds after the last look; with dt_s <= 0 nothing happens.
 */
void load_average_update(struct load_average *l, uint64_t count, double dt_s);

/* "1min", "5min", "15min". */
const char *load_average_window(unsigned window);

#endif
