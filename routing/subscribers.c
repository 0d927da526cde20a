/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two tables: filter id -> filter_subs for delivery, (owner, filter id) -> sub for overlap and
 * lookup. An owner's and a filter's subscriptions are linked both ways, so that one of 100,000 goes
 * in a step.
 */
#include "routing/subscribers.h"

#include "routing/table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENT_BITS 8u
#define TOGETHER     16u /* lookups whose waits overlap; about as many a core can have */

/* 48 bytes, without gaps between them in a slab: there are millions. First what a delivery reads.
 */
struct filter_subs {
    uint64_t id; /* 0: of nobody, in the free list */
    union {
        struct sub *one; /* cap 1 */
        struct sub **many;
        struct filter_subs *next_free; /* id 0 */
    } u;
    uint32_t cap;
    uint32_t end;  /* positions in use */
    uint32_t live; /* of those not NULL */
    uint32_t pins;
    struct tree_node *node; /* valid while live > 0 */
    uint32_t durable;       /* of the live ones */
    uint32_t indexed : 1;   /* its entries are in by_owner */
    uint32_t place : 31;    /* where it is, from 1 on */
};
static_assert(sizeof(struct filter_subs) == 48, "table.h wants 16 bytes' alignment");

/* Filters come from slabs, so that a place, unlike a pointer, can be looked at when its filter has
 * gone: hints are places. */
#define SLAB      255u /* with what is behind them just below 12 KiB, a size of the allocator */
#define PLACE_MAX 0x7fffffffu
struct slab {
    struct filter_subs filters[SLAB];
    struct filter_subs *free; /* NULL: full, and not among the roomy ones */
    struct slab *next, *prev; /* roomy */
    uint32_t used;
    uint32_t index; /* in s->slabs */
};

/* Up to so many entries are looked through; beyond, the owner's is found in by_owner. */
#define INDEX_ABOVE 8u

struct subscribers {
    struct tree *tree;
    unsigned shard;
    uint64_t seed;
    struct table by_filter;
    struct table by_owner;
    struct filter_subs *last; /* found last: messages come in runs of one topic; NULL: none */
    struct slab **slabs;      /* NULL: given back */
    uint32_t nslabs, slabs_cap, ngaps;
    struct slab *roomy;
    size_t count;
    size_t bytes; /* without the tables */
    uint32_t
        changes[HINT_COUNTERS]; /* of filters, by their ids: only compared for being the same */
};

/* ---- the two tables ---- */

static uint64_t filter_hash(const struct subscribers *s, uint64_t id)
{
    return table_mix(id ^ s->seed);
}

static bool filter_eq(const void *p, const void *key)
{
    return ((const struct filter_subs *)p)->id == *(const uint64_t *)key;
}

struct owner_key {
    uint64_t owner, id;
};

static uint64_t owner_hash(const struct subscribers *s, uint64_t owner, uint64_t id)
{
    return table_mix(table_mix(owner ^ s->seed) + id);
}

static bool owner_eq(const void *p, const void *key)
{
    const struct sub *sub = p;
    const struct owner_key *k = key;

    return sub->owner == k->owner && sub->filter->id == k->id;
}

static struct filter_subs *find_filter(const struct subscribers *s, uint64_t filter_id)
{
    return table_find(&s->by_filter, filter_hash(s, filter_id), filter_eq, &filter_id);
}

struct filter_subs *subscribers_of_filter(struct subscribers *s, uint64_t filter_id)
{
    struct filter_subs *f = s->last;

    if (f == NULL || f->id != filter_id) {
        f = find_filter(s, filter_id);
        s->last = f;
    }
    return f;
}

/* ---- hints ---- */

/* 0: not known. */
static uint32_t place_of_hint(uint64_t hint)
{
    return (hint & HINT_SUB) != 0 ? 0 : (uint32_t)(hint >> 1);
}

/* The filter at a place, if it is there still. */
static struct filter_subs *at_place(const struct subscribers *s, uint64_t hint, uint64_t id)
{
    uint32_t place = place_of_hint(hint);
    struct slab *slab = place == 0 ? NULL : s->slabs[(place - 1) / SLAB];
    struct filter_subs *f = slab == NULL ? NULL : &slab->filters[(place - 1) % SLAB];

    return f != NULL && f->id == id ? f : NULL;
}

/* What a delivery reads first of a filter's subscriptions. */
static void fetch_sub(const struct filter_subs *f)
{
    if (f != NULL && f->cap == 1) { /* which may lie across two lines */
        __builtin_prefetch(&f->u.one->owner);
        __builtin_prefetch(&f->u.one->id);
    } else if (f != NULL) {
        __builtin_prefetch(f->u.many);
    }
}

static void fetch_filter(const struct subscribers *s, uint32_t place)
{
    const struct slab *slab = place == 0 ? NULL : s->slabs[(place - 1) / SLAB];

    if (slab != NULL) {
        __builtin_prefetch(&slab->filters[(place - 1) % SLAB].id);
        __builtin_prefetch(&slab->filters[(place - 1) % SLAB].pins);
    }
}

void subscribers_fetch(const struct subscribers *s, const uint64_t *ids, const uint64_t *hints,
                       uint32_t n, enum subs_fetch step, void (*owner)(uint64_t owner))
{
    const struct filter_subs *f;

    for (uint32_t i = 0; i < n; i++) {
        if ((hints[i] & HINT_SUB) != 0) {
            if (step == SUBS_FETCH_OWNER) {
                owner(hint_owner(hints[i]));
            }
            continue;
        }
        switch (step) {
        case SUBS_FETCH_FILTER:
            fetch_filter(s, place_of_hint(hints[i]));
            break;
        case SUBS_FETCH_SUB:
            fetch_sub(at_place(s, hints[i], ids[i]));
            break;
        case SUBS_FETCH_OWNER:
            f = at_place(s, hints[i], ids[i]);
            if (f != NULL && f->cap == 1 && f->end == 1) {
                owner(f->u.one->owner);
            }
            break;
        }
    }
}

/* Three passes over a handful: slots, then what they point to, then the subscriptions behind. */
static void find_together(const struct subscribers *s, const uint64_t *ids, uint64_t *hints,
                          uint32_t n, struct filter_subs **out)
{
    for (uint32_t i = 0; i < n; i++) {
        table_fetch_slot(&s->by_filter, filter_hash(s, ids[i]));
    }
    for (uint32_t i = 0; i < n; i++) {
        table_fetch_item(&s->by_filter, filter_hash(s, ids[i]));
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = find_filter(s, ids[i]);
        hints[i] = out[i] == NULL ? 0 : (uint64_t)out[i]->place << 1;
        fetch_sub(out[i]);
    }
}

void subscribers_of_filters(struct subscribers *s, const uint64_t *ids, uint64_t *hints, uint32_t n,
                            struct filter_subs **out)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        out[i] = at_place(s, hints[i], ids[i]);
        if (out[i] == NULL) {
            break;
        }
    }
    for (; i < n; i += TOGETHER) {
        find_together(s, ids + i, hints + i, n - i < TOGETHER ? n - i : TOGETHER, out + i);
    }
}

static uint32_t counter_of(uint64_t filter_id)
{
    return (uint32_t)filter_id % HINT_COUNTERS;
}

/* What hints say of the filter holds no more. */
static void changed(struct subscribers *s, const struct filter_subs *f)
{
    s->changes[counter_of(f->id)]++;
}

static bool can_be_hint(const struct filter_subs *f)
{
    const struct sub *sub = f->end == 1 && f->pins == 0 ? filter_subs_at(f, 0) : NULL;

    return sub != NULL && sub->id == 0 && (sub->owner & ~HINT_OWNER) == 0;
}

static uint64_t hint_of(const struct filter_subs *f)
{
    const struct sub *sub = filter_subs_at(f, 0);

    return HINT_SUB | (uint64_t)sub->qos << 1 | (uint64_t)sub->retain_as_published << 3 |
           sub->owner | (uint64_t)counter_of(f->id) << HINT_COUNTER | (uint64_t)sub->no_local << 63;
}

/* Of the filters' counters; each only grows. */
static uint32_t sum_of_changes(const struct subscribers *s, const uint64_t *hints, uint32_t n)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        sum += s->changes[hints[i] >> HINT_COUNTER & (HINT_COUNTERS - 1)];
    }
    return sum;
}

void subscribers_learn(const struct subscribers *s, struct filter_subs *const *found,
                       uint64_t *hints, uint32_t n, uint32_t *stamp)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!can_be_hint(found[i])) {
            return;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        hints[i] = hint_of(found[i]);
    }
    *stamp = sum_of_changes(s, hints, n);
}

bool subscribers_know(const struct subscribers *s, const uint64_t *hints, uint32_t n,
                      uint32_t stamp)
{
    /* All of them are, or none. */
    return n > 0 && (hints[0] & HINT_SUB) != 0 && sum_of_changes(s, hints, n) == stamp;
}

/* ---- the subscriptions of a filter ---- */

static struct sub **entries(struct filter_subs *f)
{
    return f->cap == 1 ? &f->u.one : f->u.many;
}

static struct sub *find_in(const struct subscribers *s, struct filter_subs *f, uint64_t owner)
{
    struct owner_key key = {owner, f->id};
    struct sub **e = entries(f);

    if (f->indexed) {
        return table_find(&s->by_owner, owner_hash(s, owner, f->id), owner_eq, &key);
    }
    for (uint32_t i = 0; i < f->end; i++) {
        if (e[i] != NULL && e[i]->owner == owner) {
            return e[i];
        }
    }
    return NULL;
}

struct sub *subscribers_of_owner(const struct subscribers *s, uint64_t owner, uint64_t filter_id)
{
    struct filter_subs *f = find_filter(s, filter_id);

    return f == NULL ? NULL : find_in(s, f, owner);
}

struct sub *subscribers_find(const struct subscribers *s, uint64_t owner, const char *filter,
                             size_t n)
{
    uint64_t id;

    return tree_find(s->tree, filter, n, &id) == NULL ? NULL : subscribers_of_owner(s, owner, id);
}

/* Enters all of a filter that has outgrown the look through its array; false: no memory. */
static bool index_all(struct subscribers *s, struct filter_subs *f)
{
    struct sub **e = entries(f);
    uint32_t i;

    for (i = 0; i < f->end; i++) {
        if (e[i] != NULL && !table_put(&s->by_owner, owner_hash(s, e[i]->owner, f->id), e[i])) {
            break;
        }
    }
    f->indexed = i == f->end;
    while (!f->indexed && i-- > 0) {
        if (e[i] != NULL) {
            table_remove(&s->by_owner, owner_hash(s, e[i]->owner, f->id), e[i]);
        }
    }
    return f->indexed;
}

/* ---- the array of one filter ---- */

static size_t array_bytes(uint32_t cap)
{
    return cap == 1 ? 0 : cap * sizeof(struct sub *);
}

/* Room for cap > 1 entries; a single one goes from its place in f to an array. */
static bool set_capacity(struct subscribers *s, struct filter_subs *f, uint32_t cap)
{
    size_t size = (size_t)cap * sizeof(struct sub *);
    struct sub **many;

    if (f->cap == 1) {
        many = malloc(size);
        if (many != NULL) {
            many[0] = f->u.one;
        }
    } else {
        many = realloc(f->u.many, size);
    }
    if (many == NULL) {
        return false;
    }
    s->bytes += array_bytes(cap) - array_bytes(f->cap);
    f->u.many = many;
    f->cap = cap;
    return true;
}

static void place(struct filter_subs *f, uint32_t pos, struct sub *sub)
{
    entries(f)[pos] = sub;
    sub->pos = pos;
}

static void append(struct subscribers *s, struct filter_subs *f, struct sub *sub)
{
    assert(f->end < f->cap);
    place(f, f->end++, sub);
    f->live++;
    f->durable += sub->durable;
    changed(s, f);
}

/* Halves what is three quarters empty. A failed realloc() leaves it as it is. */
static void shrink(struct subscribers *s, struct filter_subs *f)
{
    if (f->cap >= 8 && f->end <= f->cap / 4) {
        (void)set_capacity(s, f, f->cap / 2);
    }
}

static void drop_from_array(struct subscribers *s, struct filter_subs *f, struct sub *sub)
{
    changed(s, f);
    f->live--;
    f->durable -= sub->durable;
    entries(f)[sub->pos] = NULL;
    if (f->pins > 0) {
        return; /* somebody holds a position: a hole */
    }
    f->end--;
    if (sub->pos != f->end) {
        place(f, sub->pos, entries(f)[f->end]);
    }
    shrink(s, f);
}

/* Fills holes from the end: touches as many subscriptions as there are holes, not all of them. */
static void close_holes(struct filter_subs *f)
{
    struct sub **e = entries(f);

    for (uint32_t i = 0; f->end > f->live && i < f->live; i++) {
        if (e[i] != NULL) {
            continue;
        }
        while (e[f->end - 1] == NULL) {
            f->end--;
        }
        place(f, i, e[--f->end]);
    }
    f->end = f->live;
}

size_t filter_subs_end(const struct filter_subs *f)
{
    return f->live == 0 ? 0 : f->end;
}

struct sub *filter_subs_at(const struct filter_subs *f, size_t pos)
{
    return f->cap == 1 ? f->u.one : f->u.many[pos];
}

uint64_t filter_subs_id(const struct filter_subs *f)
{
    return f->id;
}

/* ---- interest in the tree ---- */

static unsigned kinds_of(uint32_t live, uint32_t durable)
{
    return (durable > 0 ? TREE_DURABLE : 0u) | (durable < live ? TREE_PLAIN : 0u);
}

static unsigned kinds_of_one(const struct sub_options *o)
{
    return o->durable ? TREE_DURABLE : TREE_PLAIN;
}

/* The tree hears only of a change; it needs no memory where the shard had an interest. */
static void update_interest(struct subscribers *s, struct filter_subs *f, unsigned was)
{
    unsigned is = kinds_of(f->live, f->durable);

    if (is != was) {
        bool ok = tree_change(s->tree, f->node, s->shard, is);

        assert(ok);
        (void)ok;
    }
}

/* ---- places ---- */

static void roomy_link(struct subscribers *s, struct slab *b)
{
    b->prev = NULL;
    b->next = s->roomy;
    if (s->roomy != NULL) {
        s->roomy->prev = b;
    }
    s->roomy = b;
}

static void roomy_unlink(struct subscribers *s, struct slab *b)
{
    if (b->next != NULL) {
        b->next->prev = b->prev;
    }
    if (b->prev != NULL) {
        b->prev->next = b->next;
    } else {
        s->roomy = b->next;
    }
}

/* Where a slab goes: a gap, or the end. False: no memory. */
static bool slab_index(struct subscribers *s, uint32_t *at)
{
    struct slab **more;

    *at = s->nslabs;
    if (s->ngaps > 0) {
        for (*at = 0; s->slabs[*at] != NULL; ++*at) {}
        return true;
    }
    if (s->nslabs == s->slabs_cap) {
        more = realloc(s->slabs, (s->slabs_cap * 2u + 4u) * sizeof(struct slab *));
        if (more == NULL) {
            return false;
        }
        s->bytes += (s->slabs_cap + 4u) * sizeof(struct slab *);
        s->slabs = more;
        s->slabs_cap = s->slabs_cap * 2 + 4;
    }
    return true;
}

static bool slab_add(struct subscribers *s)
{
    struct slab *b = calloc(1, sizeof(*b));

    if (b == NULL || !slab_index(s, &b->index)) {
        free(b);
        return false;
    }
    for (uint32_t i = SLAB; i-- > 0;) {
        b->filters[i].place = (b->index * SLAB + i + 1) & PLACE_MAX;
        b->filters[i].u.next_free = b->free;
        b->free = &b->filters[i];
    }
    if (b->index == s->nslabs) {
        s->nslabs++;
    } else {
        s->ngaps--;
    }
    s->slabs[b->index] = b;
    s->bytes += sizeof(*b);
    roomy_link(s, b);
    return true;
}

static void slab_free(struct subscribers *s, struct slab *b)
{
    roomy_unlink(s, b);
    s->slabs[b->index] = NULL;
    s->ngaps++;
    s->bytes -= sizeof(*b);
    free(b);
}

static struct filter_subs *place_take(struct subscribers *s)
{
    struct slab *b;
    struct filter_subs *f;

    if (s->roomy == NULL && !slab_add(s)) {
        return NULL;
    }
    b = s->roomy;
    f = b->free;
    b->free = f->u.next_free;
    b->used++;
    if (b->free == NULL) {
        roomy_unlink(s, b);
    }
    *f = (struct filter_subs){.cap = 1, .place = f->place};
    return f;
}

/* What stands empty goes, but for the last one with room: a lone filter that comes and goes costs
 * no allocation. */
static void place_give(struct subscribers *s, struct filter_subs *f)
{
    struct slab *b = s->slabs[(f->place - 1) / SLAB];

    if (b->free == NULL) {
        roomy_link(s, b);
    }
    f->id = 0;
    f->u.next_free = b->free;
    b->free = f;
    if (--b->used == 0 && (b->next != NULL || b->prev != NULL)) {
        slab_free(s, b);
    }
}

/* ---- filters coming and going ---- */

static void filter_free(struct subscribers *s, struct filter_subs *f)
{
    s->bytes -= array_bytes(f->cap);
    if (f->cap > 1) {
        free(f->u.many);
    }
    place_give(s, f);
}

/* A filter new to this shard, with the interest it begins with. */
static struct filter_subs *filter_begin(struct subscribers *s, const char *filter, size_t n,
                                        unsigned kinds)
{
    struct filter_subs *f = place_take(s);

    if (f == NULL) {
        return NULL;
    }
    f->node = tree_set(s->tree, filter, n, s->shard, kinds, &f->id);
    if (f->node == NULL) {
        place_give(s, f);
        return NULL;
    }
    if (!table_put(&s->by_filter, filter_hash(s, f->id), f)) {
        (void)tree_change(s->tree, f->node, s->shard, 0);
        place_give(s, f);
        return NULL;
    }
    return f;
}

/*
 * Nobody subscribes any more. While somebody holds a pin f stays, out of reach of new
 * subscriptions: they get a filter_subs of their own, since by then the node may be gone and made
 * again under another id.
 */
static void filter_end(struct subscribers *s, struct filter_subs *f)
{
    (void)tree_change(s->tree, f->node, s->shard, 0);
    f->node = NULL;
    table_remove(&s->by_filter, filter_hash(s, f->id), f);
    if (s->last == f) {
        s->last = NULL;
    }
    if (f->pins == 0) {
        filter_free(s, f);
    }
}

bool filter_subs_is_pinned(const struct filter_subs *f)
{
    return f->pins > 0;
}

void filter_subs_pin(struct subscribers *s, struct filter_subs *f)
{
    f->pins++;
    changed(s, f);
}

void filter_subs_unpin(struct subscribers *s, struct filter_subs *f)
{
    assert(f->pins > 0);
    if (--f->pins > 0) {
        return;
    }
    if (f->live == 0) {
        filter_free(s, f);
        return;
    }
    close_holes(f);
    shrink(s, f);
}

/* ---- subscriptions ---- */

static void link_owner(struct sub_owner *list, struct sub *sub)
{
    sub->owner_prev = NULL;
    sub->owner_next = list->first;
    if (list->first != NULL) {
        list->first->owner_prev = sub;
    }
    list->first = sub;
    list->count++;
}

static void unlink_owner(struct sub_owner *list, struct sub *sub)
{
    if (sub->owner_next != NULL) {
        sub->owner_next->owner_prev = sub->owner_prev;
    }
    if (sub->owner_prev != NULL) {
        sub->owner_prev->owner_next = sub->owner_next;
    } else {
        assert(list->first == sub);
        list->first = sub->owner_next;
    }
    list->count--;
}

static void set_options(struct sub *sub, const struct sub_options *o)
{
    assert(o->qos <= 2);
    sub->qos = o->qos & 3u;
    sub->no_local = o->no_local;
    sub->retain_as_published = o->retain_as_published;
    sub->durable = o->durable;
    sub->shared = o->shared;
    sub->id = o->id;
}

static void replace(struct subscribers *s, struct sub *sub, const struct sub_options *o)
{
    struct filter_subs *f = sub->filter;
    unsigned was = kinds_of(f->live, f->durable);

    f->durable = f->durable - sub->durable + o->durable;
    set_options(sub, o);
    changed(s, f);
    update_interest(s, f, was);
}

/* Room in f's array, and a place in the owners' table where f has one; false leaves both as they
 * were. */
static bool enter(struct subscribers *s, struct filter_subs *f, struct sub *sub)
{
    if (f->end == f->cap && !set_capacity(s, f, f->cap < 4 ? f->cap * 2 : f->cap + f->cap / 2)) {
        return false;
    }
    sub->filter = f;
    if (f->end >= INDEX_ABOVE && !f->indexed && !index_all(s, f)) {
        return false;
    }
    return !f->indexed || table_put(&s->by_owner, owner_hash(s, sub->owner, f->id), sub);
}

static struct sub *add(struct subscribers *s, struct filter_subs *f, uint64_t owner,
                       const char *filter, size_t n, const struct sub_options *o)
{
    struct sub *sub = calloc(1, sizeof(*sub));
    bool is_new = f == NULL;
    unsigned was;

    if (sub == NULL) {
        return NULL;
    }
    sub->owner = owner;
    set_options(sub, o);
    if (is_new) {
        f = filter_begin(s, filter, n, kinds_of_one(o));
    }
    if (f == NULL || !enter(s, f, sub)) {
        if (f != NULL && is_new) {
            filter_end(s, f);
        }
        free(sub);
        return NULL;
    }
    was = is_new ? kinds_of_one(o) : kinds_of(f->live, f->durable);
    append(s, f, sub);
    update_interest(s, f, was);
    return sub;
}

enum subs_rc subscribers_put(struct subscribers *s, struct sub_owner *list, uint64_t owner,
                             const char *filter, size_t n, const struct sub_options *o,
                             struct sub **out)
{
    struct filter_subs *f = NULL;
    struct sub *sub = NULL;
    uint64_t id;

    assert(owner != 0);
    if (tree_find(s->tree, filter, n, &id) != NULL) {
        f = find_filter(s, id);
        sub = f == NULL ? NULL : find_in(s, f, owner);
    }
    if (sub != NULL) {
        replace(s, sub, o);
        *out = sub;
        return SUBS_REPLACED;
    }
    sub = add(s, f, owner, filter, n, o);
    if (sub == NULL) {
        return SUBS_NOMEM;
    }
    link_owner(list, sub);
    s->count++;
    s->bytes += sizeof(*sub);
    *out = sub;
    return SUBS_NEW;
}

void subscribers_remove(struct subscribers *s, struct sub_owner *list, struct sub *sub)
{
    struct filter_subs *f = sub->filter;
    unsigned was = kinds_of(f->live, f->durable);

    if (f->indexed) {
        table_remove(&s->by_owner, owner_hash(s, sub->owner, f->id), sub);
    }
    unlink_owner(list, sub);
    drop_from_array(s, f, sub);
    if (f->live == 0) {
        filter_end(s, f);
    } else {
        update_interest(s, f, was);
    }
    free(sub);
    s->count--;
    s->bytes -= sizeof(*sub);
}

size_t sub_filter_text(const struct sub *sub, char *buf, size_t cap)
{
    size_t n = tree_node_text(sub->filter->node, buf, cap);

    return n < cap ? n : cap;
}

/* ---- life ---- */

struct subscribers *subscribers_create(struct tree *t, unsigned shard, uint64_t seed)
{
    struct subscribers *s = calloc(1, sizeof(*s));

    if (s == NULL) {
        return NULL;
    }
    s->tree = t;
    s->shard = shard;
    s->seed = seed;
    if (!table_init(&s->by_filter, SEGMENT_BITS) || !table_init(&s->by_owner, SEGMENT_BITS)) {
        subscribers_destroy(s);
        return NULL;
    }
    return s;
}

static void destroy_filter(void *arg, void *p)
{
    struct subscribers *s = arg;
    struct filter_subs *f = p;

    for (uint32_t i = 0; i < f->end; i++) {
        free(entries(f)[i]);
    }
    (void)tree_change(s->tree, f->node, s->shard, 0);
    filter_free(s, f);
}

void subscribers_destroy(struct subscribers *s)
{
    if (s == NULL) {
        return;
    }
    if (s->by_filter.segments != NULL) {
        table_each(&s->by_filter, destroy_filter, s);
        table_fini(&s->by_filter);
    }
    if (s->by_owner.segments != NULL) {
        table_fini(&s->by_owner);
    }
    while (s->roomy != NULL) {
        slab_free(s, s->roomy);
    }
    free(s->slabs);
    free(s);
}

size_t subscribers_count(const struct subscribers *s)
{
    return s->count;
}

size_t subscribers_bytes(const struct subscribers *s)
{
    return sizeof(*s) + s->bytes + s->by_filter.bytes + s->by_owner.bytes;
}
