/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alias.h - the topic aliases a broker uses towards one client: what it set, and what it meant.
 *
 * Aliases belong to a connection: forgotten at each new one [MQTT-3.3.2-7].
 *
 * Ownership  names are copied; what alias_resolve() gives lives until the alias is set again.
 */
#ifndef NOCTULE_BENCH_ALIAS_H
#define NOCTULE_BENCH_ALIAS_H

#include "server/codec/publish.h"

struct alias_table {
    struct span *names; /* [alias - 1], made when needed */
    uint16_t max;       /* what the client announces, 0: none */
    uint64_t used;      /* messages that came with the alias alone */
};

/* Puts the topic meant into m->topic. NULL, or what is wrong: alias 0 or above the maximum
 * [MQTT-3.1.2-26, -27], one that was not set [MQTT-3.3.2-8 to -12]. */
const char *alias_resolve(struct alias_table *t, struct publish *m);
/* A new connection, or the end: max stays. */
void alias_forget(struct alias_table *t);

#endif
