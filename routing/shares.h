/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shares.h - groups of shared subscriptions over all shards: who has members, and whose turn it is.
 *
 * A member's subscription lives in its shard's subscribers table under its full text
 * "$share/group/filter"; that text's filter id is the group's id. Here stands, for each filter with
 * groups, how many members each shard has and how many of them are connected, so that a publishing
 * shard can pick one: in turn over connected members, over all members when none is connected. The
 * shard picked then takes the turn among its own.
 *
 * The filter itself has an interest of TREE_GROUPS in the tree while it has a group, so that a
 * match names it.
 *
 * Threads    shares_join/leave: any (a mutex, briefly). shares_online, shares_pick: any.
 * shares_of_filter, shares_next, shares_find: within an RCU read; what they give is valid until its
 * end. Ownership  a group lives while it has members; a member's shard may keep the pointer that
 * long. Errors     NULL: no memory.
 */
#ifndef NOCTULE_ROUTING_SHARES_H
#define NOCTULE_ROUTING_SHARES_H

#include "routing/tree.h"

struct shares;
struct share_group;

struct shares *shares_create(struct tree *t, unsigned nshards);
void shares_destroy(struct shares *s); /* no readers left */

/* One member more in this shard, not connected yet. filter: the part behind the group's name. */
struct share_group *shares_join(struct shares *s, uint64_t group_id, const char *filter, size_t n,
                                unsigned shard);
/* One less; it was counted as not connected. g may be gone afterwards. */
void shares_leave(struct shares *s, struct share_group *g, unsigned shard);
/* A member connects (+1) or its connection ends (-1). */
void shares_online(struct share_group *g, unsigned shard, int change);

/* The groups of a filter: first and next; NULL at the end. */
struct share_group *shares_of_filter(const struct shares *s, uint64_t filter_id);
struct share_group *shares_next(const struct share_group *g);
struct share_group *shares_find(const struct shares *s, uint64_t group_id);
uint64_t share_group_id(const struct share_group *g);

/* The shard whose turn it is; false: the group has no member at present. */
bool shares_pick(struct share_group *g, unsigned *shard);
/* Likewise, but none of the shards marked in `tried`; only those with connected members if
 * `online`. */
bool shares_pick_other(const struct share_group *g, const bool *tried, bool online,
                       unsigned *shard);
/* Whether another shard than this has a connected member. */
bool shares_online_elsewhere(const struct share_group *g, unsigned shard);

/* A number that goes up with every call, for the turn among one shard's members. Only by that
 * shard. */
uint32_t shares_turn(struct share_group *g, unsigned shard);

size_t shares_count(const struct shares *s); /* members in all */

#endif
