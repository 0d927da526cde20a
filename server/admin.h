/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.h - what the broker tells about itself: the retained topics below $SYS/broker.
 *
 * The topics are rows of a table in admin.c, with mosquitto's names where it has them; those of our
 * own are below $SYS/broker/noctule. Every sys_interval seconds the values that have changed are
 * published through one shard, so that a subscriber sees them in order.
 *
 * Threads    one, the housekeeper; admin_create() and admin_destroy() while it does not run.
 * Ownership  everything in admin_env is borrowed until admin_destroy().
 * Errors     NULL: no memory. A value that finds no memory is published at the next interval.
 */
#ifndef NOCTULE_ADMIN_H
#define NOCTULE_ADMIN_H

#include "server/base/metrics.h"
#include "server/shard/broker.h"

struct admin;

struct admin_env {
    struct broker_shared *shared;
    const struct metrics *acceptors; /* one block for each acceptor */
    unsigned nacceptors;
    const char *durability; /* "memory" or "disk" */
};

struct admin *admin_create(const struct admin_env *env);
void admin_destroy(struct admin *a); /* NULL is fine */

/* To be called several times a second; publishes when it is time. in_use: mem_in_use(). */
void admin_run(struct admin *a, uint64_t in_use);

#endif
