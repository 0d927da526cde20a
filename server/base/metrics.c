/* SPDX-License-Identifier: Apache-2.0 */
#include "server/base/metrics.h"

static const struct {
    const char *name;
    const char *help;
} table[METRIC_NR] = {
#define X(name, text) {#name, text},
    METRICS(X)
#undef X
};

const char *metric_name(enum metric which)
{
    return table[which].name;
}

const char *metric_help(enum metric which)
{
    return table[which].help;
}
