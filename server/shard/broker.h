/* SPDX-License-Identifier: Apache-2.0 */
/*
 * broker.h - what all shards share: the short list of things that are global and mutable.
 *
 * Ownership  setup.c makes and ends it; shards borrow.
 */
#ifndef NOCTULE_SHARD_BROKER_H
#define NOCTULE_SHARD_BROKER_H

#include "routing/retained.h"
#include "routing/shares.h"
#include "routing/tree.h"
#include "server/base/clock.h"
#include "server/base/hash.h"
#include "server/base/log.h"
#include "server/config.h"
#include "storage/store.h"

#define PARTITIONS 256u

struct shard;

struct broker_shared {
    const struct config
        *_Atomic config; /* replaced by a reload (release), read once a turn (acquire) */
    struct tree *tree;
    struct retained *retained;
    struct shares *shares;
    struct store *store;
    struct log *log;
    const struct clock *clock;
    struct shard **shards;
    unsigned nshards;
    uint64_t hash_key; /* client id -> partition */
    _Atomic uint64_t
        next_id; /* sessions, bodies, clients: never used again; relaxed, only unique */
    _Atomic bool memory_pressure; /* above memory_limit; relaxed: a hint that may lag */
};

static inline unsigned broker_shard_of(const struct broker_shared *b, struct span client_id)
{
    uint64_t partition = hash_span(client_id, b->hash_key) % PARTITIONS;

    return (unsigned)(partition % b->nshards);
}

/* The first of n ids that follow each other. */
static inline uint64_t broker_new_ids(struct broker_shared *b, uint64_t n)
{
    return atomic_fetch_add_explicit(&b->next_id, n, memory_order_relaxed) + 1;
}

static inline uint64_t broker_new_id(struct broker_shared *b)
{
    return broker_new_ids(b, 1);
}

#endif
