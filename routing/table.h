/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.h - a hash table of pointers that grows in small steps and is read without locks.
 *
 * 2^bits segments, each an open-addressed array that grows on its own, so no growth touches more
 * than a 2^-bits part. A slot is one word: the pointer, and 20 bits of its hash in the bits a
 * pointer does not use (the upper 16 and the lowest 4). Growing copies words and never touches what
 * they point to; a probe looks at what it points to only when the 20 bits agree. Removal leaves a
 * tombstone.
 *
 * Threads    table_find: any, inside an RCU read, beside one writer. The rest: the writer.
 * Ownership  what the pointers point to is the caller's, and outlives the reads that may have found
 * it. Errors     table_put: no memory, or more than 2^20 slots in a segment; the table is
 * unchanged.
 */
#ifndef NOCTULE_ROUTING_TABLE_H
#define NOCTULE_ROUTING_TABLE_H

#include "routing/rcu.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table_array {
    struct rcu_item rcu;
    uint32_t n;    /* slots */
    uint32_t used; /* writer's: slots that are not empty, tombstones included */
    uint32_t live; /* writer's: pointers */
    _Atomic uint64_t slots[];
};

struct table {
    _Atomic(struct table_array *) *segments; /* NULL: nothing was ever there */
    unsigned bits;
    size_t bytes; /* writer's: memory taken */
};

#define TABLE_TAG_HIGH 0xffff000000000000u
#define TABLE_TAG_LOW  0xfu
#define TABLE_TAG      (TABLE_TAG_HIGH | TABLE_TAG_LOW)
#define TABLE_EMPTY    0u
#define TABLE_TOMB     1u /* no pointer has its bits all 0 */

bool table_init(struct table *t, unsigned bits);
/* No readers left. What the pointers point to stays. */
void table_fini(struct table *t);

/* p is aligned to 16 (all of malloc's 16 bytes or more are) and was not there. */
bool table_put(struct table *t, uint64_t hash, void *p) __attribute__((warn_unused_result));
/* p is there. */
void table_remove(struct table *t, uint64_t hash, const void *p);

/* Calls fn for every pointer; fn must not change the table, but may free what it is given. */
void table_each(const struct table *t, void (*fn)(void *arg, void *p), void *arg);

/* The finalizer of MurmurHash3: spreads a key with structure over all 64 bits. */
static inline uint64_t table_mix(uint64_t h)
{
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 33);
}

/* The segment comes from the hash's upper bits; the tag, and with it the place in the array, from
 * its lower 20. */
static inline uint64_t table_tag(uint64_t hash)
{
    return (hash << 48) | ((hash >> 16) & TABLE_TAG_LOW);
}

/* The tag's 20 bits scaled to n slots: any n will do, so that arrays can fill the allocator's
 * sizes. */
static inline uint32_t table_home(uint64_t slot, uint32_t n)
{
    uint32_t bits = (uint32_t)(slot >> 48) << 4 | (uint32_t)(slot & TABLE_TAG_LOW);

    return (uint32_t)(((uint64_t)bits * n) >> 20);
}

static inline uint32_t table_next(uint32_t i, uint32_t n)
{
    return i + 1 == n ? 0 : i + 1;
}

static inline void *table_pointer(uint64_t slot)
{
    return (void *)(uintptr_t)(slot & ~(uint64_t)TABLE_TAG);
}

static inline const struct table_array *table_segment(const struct table *t, uint64_t hash)
{
    /* Acquire: partner of the release that publishes a grown array with all its slots. */
    return atomic_load_explicit(&t->segments[hash >> (64 - t->bits)], memory_order_acquire);
}

typedef bool (*table_eq_fn)(const void *p, const void *key);

/* The pointer with this hash for which eq(pointer, key), or NULL. Inline, so that eq is a direct
 * call. */
static inline void *table_find(const struct table *t, uint64_t hash, table_eq_fn eq,
                               const void *key)
{
    const struct table_array *a = table_segment(t, hash);
    uint64_t tag = table_tag(hash);
    uint64_t slot;

    if (a == NULL) {
        return NULL;
    }
    for (uint32_t i = table_home(tag, a->n);; i = table_next(i, a->n)) {
        /* Acquire: partner of table_put()'s release, for what the pointer points to. There is
         * always an empty slot, also while the writer fills others. */
        slot = atomic_load_explicit(&a->slots[i], memory_order_acquire);
        if (slot == TABLE_EMPTY) {
            return NULL;
        }
        if ((slot & TABLE_TAG) == tag && slot != TABLE_TOMB && eq(table_pointer(slot), key)) {
            return table_pointer(slot);
        }
    }
}

/*
 * For several lookups at once: first the slots of all are fetched, then what they point to, then
 * each is found where it is by now. Each step reads only what the one before has asked for.
 */
static inline void table_fetch_slot(const struct table *t, uint64_t hash)
{
    const struct table_array *a = table_segment(t, hash);

    if (a != NULL) {
        __builtin_prefetch((const void *)&a->slots[table_home(table_tag(hash), a->n)]);
    }
}

/* The first pointer with this hash, which is nearly always the one looked for. */
static inline void table_fetch_item(const struct table *t, uint64_t hash)
{
    const struct table_array *a = table_segment(t, hash);
    uint64_t tag = table_tag(hash);
    uint64_t slot;

    if (a == NULL) {
        return;
    }
    for (uint32_t i = table_home(tag, a->n);; i = table_next(i, a->n)) {
        /* Relaxed: only asked for, not looked at. */
        slot = atomic_load_explicit(&a->slots[i], memory_order_relaxed);
        if (slot == TABLE_EMPTY) {
            return;
        }
        if ((slot & TABLE_TAG) == tag && slot != TABLE_TOMB) {
            __builtin_prefetch(table_pointer(slot));
            return;
        }
    }
}

#endif
