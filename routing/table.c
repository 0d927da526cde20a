/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/table.h"

#include <stdlib.h>

#define FIRST_BYTES 64u
#define MOST_SLOTS  (1u << 20) /* the hash bits that a slot keeps */

bool table_init(struct table *t, unsigned bits)
{
    size_t n = (size_t)1 << bits;

    *t = (struct table){.bits = bits};
    t->segments = calloc(n, sizeof(*t->segments));
    if (t->segments == NULL) {
        return false;
    }
    t->bytes = n * sizeof(*t->segments);
    return true;
}

/* The writer reads what it wrote itself: relaxed. */
static struct table_array *segment(const struct table *t, size_t i)
{
    return atomic_load_explicit(&t->segments[i], memory_order_relaxed);
}

void table_fini(struct table *t)
{
    for (size_t i = 0; t->segments != NULL && i < (size_t)1 << t->bits; i++) {
        free(segment(t, i));
    }
    free(t->segments);
    *t = (struct table){0};
}

static size_t array_bytes(uint32_t nslots)
{
    return sizeof(struct table_array) + nslots * sizeof(uint64_t);
}

static struct table_array *array_create(uint32_t nslots)
{
    struct table_array *a = calloc(1, array_bytes(nslots));

    if (a != NULL) {
        a->n = nslots;
    }
    return a;
}

static void array_free(struct rcu_item *item)
{
    free(item); /* the item comes first */
}

/* Puts a word where it belongs; tombstones are filled again. Readers beside us see the word or not.
 */
static void array_put(struct table_array *a, uint64_t word)
{
    uint32_t i = table_home(word, a->n);
    uint64_t slot;

    while ((slot = atomic_load_explicit(&a->slots[i], memory_order_relaxed)) > TABLE_TOMB) {
        i = table_next(i, a->n);
    }
    a->used += slot == TABLE_EMPTY;
    a->live++;
    /* Release: partner of table_find()'s acquire. */
    atomic_store_explicit(&a->slots[i], word, memory_order_release);
}

/*
 * The slots of the smallest array in which `live` pointers take at most three fifths. Arrays take
 * 64, 96, 128, 192, ... bytes, which are sizes that allocators have.
 */
static uint32_t slots_for(uint32_t live)
{
    size_t power = FIRST_BYTES;
    size_t bytes = FIRST_BYTES;

    while ((bytes - sizeof(struct table_array)) / sizeof(uint64_t) * 3 < (size_t)live * 5) {
        power = bytes > power ? power * 2 : power;
        bytes = bytes == power ? power + power / 2 : power;
    }
    return (uint32_t)((bytes - sizeof(struct table_array)) / sizeof(uint64_t));
}

/* The same pointers in an array of the right size, without tombstones. */
static bool rebuild(struct table *t, size_t seg)
{
    struct table_array *old = segment(t, seg);
    uint32_t nslots = slots_for(old == NULL ? 0 : old->live + 1);
    struct table_array *a;

    if (nslots > MOST_SLOTS) {
        return false;
    }
    a = array_create(nslots);
    if (a == NULL) {
        return false;
    }
    for (uint32_t i = 0; old != NULL && i < old->n; i++) {
        uint64_t word = atomic_load_explicit(&old->slots[i], memory_order_relaxed);

        if (word > TABLE_TOMB) {
            array_put(a, word);
        }
    }
    t->bytes += array_bytes(nslots);
    /* Release: partner of table_segment()'s acquire. Readers still in the old array find what was
     * there when it was left, which is valid for as long as their read lasts. */
    atomic_store_explicit(&t->segments[seg], a, memory_order_release);
    if (old != NULL) {
        t->bytes -= array_bytes(old->n);
        rcu_defer(&old->rcu, array_free);
    }
    return true;
}

/* At most three quarters are used, so probes are short and always end. */
static bool is_full(const struct table_array *a)
{
    return a == NULL || (a->used + 1) * 4 > a->n * 3;
}

bool table_put(struct table *t, uint64_t hash, void *p)
{
    size_t seg = hash >> (64 - t->bits);

    if (((uintptr_t)p & TABLE_TAG) != 0) {
        abort(); /* a pointer with more than 48 bits: nothing here would work */
    }
    if (is_full(segment(t, seg)) && !rebuild(t, seg)) {
        return false;
    }
    array_put(segment(t, seg), (uint64_t)(uintptr_t)p | table_tag(hash));
    return true;
}

/* A segment that is mostly air gives it back; when there is no memory for that, it stays. */
static void shrink(struct table *t, size_t seg)
{
    struct table_array *a = segment(t, seg);

    if (array_bytes(a->n) <= FIRST_BYTES) {
        return; /* a lone pointer that comes and goes costs no allocation */
    }
    if (a->live == 0) {
        /* Relaxed: nothing behind NULL to publish. */
        atomic_store_explicit(&t->segments[seg], NULL, memory_order_relaxed);
        t->bytes -= array_bytes(a->n);
        rcu_defer(&a->rcu, array_free);
    } else if (a->live * 8 < a->n) {
        (void)rebuild(t, seg);
    }
}

/*
 * Empties slot i. Where the next slot is empty no probe goes on from here, and no tombstone is
 * needed; nor are those before it. Relaxed stores: a reader that sees the pointer still may use it
 * until its read ends.
 */
static void clear(struct table_array *a, uint32_t i)
{
    uint32_t next = table_next(i, a->n);

    atomic_store_explicit(&a->slots[i], TABLE_TOMB, memory_order_relaxed);
    a->live--;
    if (atomic_load_explicit(&a->slots[next], memory_order_relaxed) != TABLE_EMPTY) {
        return;
    }
    while (atomic_load_explicit(&a->slots[i], memory_order_relaxed) == TABLE_TOMB) {
        atomic_store_explicit(&a->slots[i], TABLE_EMPTY, memory_order_relaxed);
        a->used--;
        i = i == 0 ? a->n - 1 : i - 1;
    }
}

void table_remove(struct table *t, uint64_t hash, const void *p)
{
    size_t seg = hash >> (64 - t->bits);
    struct table_array *a = segment(t, seg);
    uint64_t word = (uint64_t)(uintptr_t)p | table_tag(hash);
    uint32_t i = table_home(word, a->n);

    while (atomic_load_explicit(&a->slots[i], memory_order_relaxed) != word) {
        i = table_next(i, a->n);
    }
    clear(a, i);
    shrink(t, seg);
}

void table_each(const struct table *t, void (*fn)(void *arg, void *p), void *arg)
{
    for (size_t s = 0; s < (size_t)1 << t->bits; s++) {
        const struct table_array *a = segment(t, s);

        for (uint32_t i = 0; a != NULL && i < a->n; i++) {
            uint64_t slot = atomic_load_explicit(&a->slots[i], memory_order_relaxed);

            if (slot > TABLE_TOMB) {
                fn(arg, table_pointer(slot));
            }
        }
    }
}
