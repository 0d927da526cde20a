/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.h - at start: what the store has kept becomes sessions, subscriptions, wills and retained
 * messages.
 *
 * Threads    the main thread, after the shards were created and before any runs; registered with
 * rcu.h.
 */
#ifndef NOCTULE_SHARD_RESTORE_H
#define NOCTULE_SHARD_RESTORE_H

#include "server/shard/broker.h"

struct restored {
    uint64_t sessions, subs, retained, wills, queued;
};

/* ST_NOMEM, or what the store said. */
enum store_rc shards_restore(struct broker_shared *b, struct restored *out)
    __attribute__((warn_unused_result));

#endif
