/* SPDX-License-Identifier: Apache-2.0 */
#include "server/base/clock.h"

#include <stddef.h>
#include <time.h>

static int64_t system_now_ms(void *arg)
{
    struct timespec ts;

    (void)arg;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

const struct clock clock_system = {system_now_ms, NULL};
