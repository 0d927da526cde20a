/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A filter is a path of nodes, one per level. Literal children are found in one hash table by
 * (parent, label); '+' and '#' children hang on their parent directly, since matching asks for both
 * at every node.
 *
 * Readers take no lock: every link is published with release and followed with acquire; what is
 * unlinked is freed after the readers of that moment are through. A node lives while it has
 * interest or children. Dead nodes are gathered on a list and go with one deferred free for all
 * that died meanwhile, so that dying needs no memory.
 */
#include "routing/tree.h"

#include "routing/rcu.h"
#include "routing/table.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#define SEGMENT_BITS                                                                               \
    11u /* 2048 segments: at 1 M nodes one has 1024 slots, copied in some microseconds */
#define GEN_FIRST     4096u
#define GEN_TWO       16384u
#define INLINE_SHARDS 4u
#define STACK_LEVELS  48u
#define TOGETHER      8u
#define STACK_HITS    64u

struct tree_node {
    /*
     * Who is interested. 0: nobody. Lowest bit 1: up to four entries of 12 bits from bit 4 on,
     * shard << 3 | kinds, kinds 0 for a free one. Else a pointer to struct interests. Read once,
     * acquire; written under the lock, release.
     */
    _Atomic uint64_t interest;
    _Atomic(struct tree_node *) plus, hash; /* children "+" and "#" */
    struct tree_node *parent;               /* NULL: the root */
    uint64_t id;                            /* never used again */
    struct tree_node *next_dead;            /* writer's */
    _Atomic uint32_t literals;              /* children in the table; 0 spares readers the look */
    uint16_t label_n;
    char label[];
};

/* More than INLINE_SHARDS shards. Entries change in place, so that ending an interest needs no
 * memory. */
struct interests {
    struct rcu_item rcu;
    uint32_t n;
    _Atomic uint16_t entries[]; /* shard << 3 | kinds; 0: free */
};

struct tree {
    pthread_mutex_t lock; /* everything below it is the lock holder's to change */
    struct table nodes;   /* literal children by (parent id, label) */
    struct tree_node *root;
    uint64_t seed;
    uint64_t next_id;
    struct tree_node *dead;   /* unlinked since the burial under way began */
    struct tree_node *graves; /* freed when its grace period is over */
    bool burying;
    struct rcu_item burial;
    _Atomic uint64_t nfilters, nnodes, nbytes, table_bytes; /* relaxed: for metrics */
    /* Generations; they only grow. See tree_generation(). */
    _Atomic uint64_t gen_wild;
    _Atomic uint64_t gen_first[GEN_FIRST];
    _Atomic uint64_t gen_two[GEN_TWO];
};

/* ---- labels and nodes ---- */

struct label {
    const char *p;
    uint64_t hash;
    uint16_t n;
};

/* The level that starts at p; *p becomes the start of the next one, or NULL after the last. */
static struct label next_label(uint64_t seed, const char **p, const char *end)
{
    const char *start = *p;
    const char *slash = memchr(start, '/', (size_t)(end - start));
    size_t n = (size_t)((slash == NULL ? end : slash) - start);

    *p = slash == NULL ? NULL : slash + 1;
    return (struct label){start, XXH3_64bits_withSeed(start, n, seed), (uint16_t)n};
}

static bool label_is(const struct label *l, char c)
{
    return l->n == 1 && l->p[0] == c;
}

struct child_key {
    const struct tree_node *parent;
    const struct label *label;
};

static uint64_t child_hash(const struct tree_node *parent, const struct label *l)
{
    /* Never 0, by a bit that the table does not use. */
    return table_mix(l->hash ^ (parent->id * 0x9e3779b97f4a7c15u)) | UINT64_C(1) << 32;
}

static bool child_eq(const void *p, const void *key)
{
    const struct tree_node *n = p;
    const struct child_key *k = key;

    return n->parent == k->parent && n->label_n == k->label->n &&
           memcmp(n->label, k->label->p, n->label_n) == 0;
}

static struct tree_node *literal_child(const struct tree *t, const struct tree_node *parent,
                                       const struct label *l)
{
    struct child_key key = {parent, l};

    /* Relaxed: a reader that has to see a child has synchronized with its making by a generation.
     */
    if (atomic_load_explicit(&parent->literals, memory_order_relaxed) == 0) {
        return NULL;
    }
    return table_find(&t->nodes, child_hash(parent, l), child_eq, &key);
}

/* Acquire: partner of link_child()'s release. */
static struct tree_node *wild_child(_Atomic(struct tree_node *) const *link)
{
    return atomic_load_explicit(link, memory_order_acquire);
}

/* The child of exactly this label, wildcards taken as such. */
static struct tree_node *filter_child(const struct tree *t, const struct tree_node *parent,
                                      const struct label *l)
{
    if (label_is(l, '+')) {
        return wild_child(&parent->plus);
    }
    if (label_is(l, '#')) {
        return wild_child(&parent->hash);
    }
    return literal_child(t, parent, l);
}

static size_t rounded(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

static void count_bytes(struct tree *t, size_t n)
{
    atomic_fetch_add_explicit(&t->nbytes, rounded(n), memory_order_relaxed);
}

static void uncount_bytes(struct tree *t, size_t n)
{
    atomic_fetch_sub_explicit(&t->nbytes, rounded(n), memory_order_relaxed);
}

static size_t node_bytes(const struct tree_node *n)
{
    return offsetof(struct tree_node, label) + n->label_n;
}

static struct tree_node *node_create(struct tree *t, struct tree_node *parent,
                                     const struct label *l)
{
    struct tree_node *n = malloc(offsetof(struct tree_node, label) + l->n);

    if (n == NULL) {
        return NULL;
    }
    memset(n, 0, offsetof(struct tree_node, label)); /* the label may end before sizeof(*n) */
    n->parent = parent;
    n->id = t->next_id++;
    n->label_n = l->n;
    memcpy(n->label, l->p, l->n);
    count_bytes(t, node_bytes(n));
    atomic_fetch_add_explicit(&t->nnodes, 1, memory_order_relaxed);
    return n;
}

static void node_free(struct tree *t, struct tree_node *n)
{
    uncount_bytes(t, node_bytes(n));
    atomic_fetch_sub_explicit(&t->nnodes, 1, memory_order_relaxed);
    free(n);
}

/* Makes a child and publishes it, without interest yet. Under the lock. */
static struct tree_node *link_child(struct tree *t, struct tree_node *parent, const struct label *l)
{
    struct tree_node *n = node_create(t, parent, l);

    if (n == NULL) {
        return NULL;
    }
    if (label_is(l, '+')) {
        atomic_store_explicit(&parent->plus, n, memory_order_release);
    } else if (label_is(l, '#')) {
        atomic_store_explicit(&parent->hash, n, memory_order_release);
    } else if (table_put(&t->nodes, child_hash(parent, l), n)) {
        atomic_fetch_add_explicit(&parent->literals, 1, memory_order_relaxed);
    } else {
        node_free(t, n);
        return NULL;
    }
    return n;
}

static void unlink_child(struct tree *t, struct tree_node *n)
{
    struct tree_node *parent = n->parent;
    struct label l = {n->label, XXH3_64bits_withSeed(n->label, n->label_n, t->seed), n->label_n};

    /* Relaxed: nothing is published; the readers of this moment are waited for. */
    if (label_is(&l, '+')) {
        atomic_store_explicit(&parent->plus, NULL, memory_order_relaxed);
    } else if (label_is(&l, '#')) {
        atomic_store_explicit(&parent->hash, NULL, memory_order_relaxed);
    } else {
        table_remove(&t->nodes, child_hash(parent, &l), n);
        atomic_fetch_sub_explicit(&parent->literals, 1, memory_order_relaxed);
    }
}

/* ---- the dead ---- */

static void burial_over(struct rcu_item *item);

static void begin_burial(struct tree *t)
{
    t->graves = t->dead;
    t->dead = NULL;
    t->burying = t->graves != NULL;
    if (t->burying) {
        rcu_defer(&t->burial, burial_over);
    }
}

static void burial_over(struct rcu_item *item)
{
    struct tree *t = (struct tree *)((char *)item - offsetof(struct tree, burial));
    struct tree_node *n;

    while ((n = t->graves) != NULL) { /* ours alone while a burial is under way */
        t->graves = n->next_dead;
        node_free(t, n);
    }
    pthread_mutex_lock(&t->lock);
    begin_burial(t);
    pthread_mutex_unlock(&t->lock);
}

static bool is_needed(const struct tree_node *n)
{
    return n->parent == NULL || atomic_load_explicit(&n->interest, memory_order_relaxed) != 0 ||
           atomic_load_explicit(&n->literals, memory_order_relaxed) != 0 ||
           atomic_load_explicit(&n->plus, memory_order_relaxed) != NULL ||
           atomic_load_explicit(&n->hash, memory_order_relaxed) != NULL;
}

/* Unlinks n, then its parent, and so on upwards, as far as they are of no use. */
static void prune(struct tree *t, struct tree_node *n)
{
    while (!is_needed(n)) {
        struct tree_node *parent = n->parent;

        unlink_child(t, n);
        n->next_dead = t->dead;
        t->dead = n;
        n = parent;
    }
    if (!t->burying) {
        begin_burial(t);
    }
}

/* ---- interest ---- */

#define ENTRY_BITS  12u
#define ENTRY_MASK  0xfffu
#define ENTRY_KINDS 7u
#define WORD_INLINE 1u

static unsigned entry_of(unsigned shard, unsigned kinds)
{
    return kinds == 0 ? 0 : shard << 3 | kinds;
}

static unsigned inline_shift(unsigned i)
{
    return 4 + i * ENTRY_BITS;
}

static unsigned inline_entry(uint64_t word, unsigned i)
{
    return (unsigned)(word >> inline_shift(i)) & ENTRY_MASK;
}

static struct interests *interests_of(uint64_t word)
{
    return (struct interests *)(uintptr_t)word;
}

static bool is_inline(uint64_t word)
{
    return word == 0 || (word & WORD_INLINE) != 0;
}

static unsigned slots_of(uint64_t word)
{
    return is_inline(word) ? INLINE_SHARDS : interests_of(word)->n;
}

/* Acquire: partner of the release in write_interest(), for an entry that was changed in place. */
static unsigned entry_at(uint64_t word, unsigned i)
{
    return is_inline(word)
               ? inline_entry(word, i)
               : atomic_load_explicit(&interests_of(word)->entries[i], memory_order_acquire);
}

static size_t interests_bytes(uint32_t n)
{
    return sizeof(struct interests) + n * sizeof(uint16_t);
}

static void interests_free(struct rcu_item *item)
{
    free(item); /* the item comes first */
}

/* The slot of `shard`, or a free one (its kinds are 0 then), or slots_of(word). */
static unsigned find_slot(uint64_t word, unsigned shard)
{
    unsigned n = slots_of(word);
    unsigned free_slot = n;

    for (unsigned i = 0; i < n; i++) {
        unsigned e = entry_at(word, i);

        if (e == 0 && free_slot == n) {
            free_slot = i;
        } else if (e != 0 && e >> 3 == shard) {
            return i;
        }
    }
    return free_slot;
}

static unsigned kinds_at(uint64_t word, unsigned slot)
{
    return slot == slots_of(word) ? 0 : entry_at(word, slot) & ENTRY_KINDS;
}

static void drop_interests(struct tree *t, uint64_t word)
{
    if (!is_inline(word)) {
        uncount_bytes(t, interests_bytes(interests_of(word)->n));
        rcu_defer(&interests_of(word)->rcu, interests_free);
    }
}

/* All slots are taken: the same in an array of twice as many. */
static bool grow_interest(struct tree *t, struct tree_node *node, uint64_t *word)
{
    unsigned n = slots_of(*word);
    struct interests *in = malloc(interests_bytes(n * 2));

    if (in == NULL) {
        return false;
    }
    *in = (struct interests){.n = n * 2};
    for (unsigned i = 0; i < n * 2; i++) {
        atomic_init(&in->entries[i], (uint16_t)(i < n ? entry_at(*word, i) : 0));
    }
    count_bytes(t, interests_bytes(in->n));
    /* Release: partner of the readers' acquire of node->interest. */
    atomic_store_explicit(&node->interest, (uint64_t)(uintptr_t)in, memory_order_release);
    drop_interests(t, *word);
    *word = (uint64_t)(uintptr_t)in;
    return true;
}

/* Few are left in an array: back into the word, with one slot to spare against going back and
 * forth. */
static void shrink_interest(struct tree *t, struct tree_node *node, uint64_t word)
{
    uint64_t packed = WORD_INLINE;
    unsigned used = 0;

    for (unsigned i = 0; i < slots_of(word); i++) {
        unsigned e = entry_at(word, i);

        if (e != 0 && ++used == INLINE_SHARDS) {
            return;
        }
        packed |= e == 0 ? 0 : (uint64_t)e << inline_shift(used - 1);
    }
    atomic_store_explicit(&node->interest, used == 0 ? 0 : packed, memory_order_release);
    drop_interests(t, word);
}

static void write_interest(struct tree *t, struct tree_node *node, uint64_t word, unsigned slot,
                           unsigned entry)
{
    if (!is_inline(word)) {
        /* Release: partner of entry_at(). */
        atomic_store_explicit(&interests_of(word)->entries[slot], (uint16_t)entry,
                              memory_order_release);
        if (entry == 0) {
            shrink_interest(t, node, word);
        }
        return;
    }
    word &= ~((uint64_t)ENTRY_MASK << inline_shift(slot));
    word |= (uint64_t)entry << inline_shift(slot) | WORD_INLINE;
    /* Release: partner of the readers' acquire of node->interest. */
    atomic_store_explicit(&node->interest, word == WORD_INLINE ? 0 : word, memory_order_release);
}

/* ---- generations ---- */

#define END_OF_TOPIC 0x5bd1e9955bd1e995u /* stands for the second level where there is none */
#define KEY_NO_WILD                                                                                \
    (UINT64_C(1) << 63) /* '$': filters that begin with a wildcard do not matter                   \
                         */

static uint32_t gen_first_at(uint64_t first)
{
    return (uint32_t)(table_mix(first) % GEN_FIRST);
}

static uint32_t gen_two_at(uint64_t first, uint64_t second)
{
    return (uint32_t)(table_mix(first * 31 + second) % GEN_TWO);
}

static bool node_is_wild(const struct tree_node *n)
{
    return n->label_n == 1 && (n->label[0] == '+' || n->label[0] == '#');
}

static uint64_t label_hash(const struct tree *t, const struct tree_node *n)
{
    return XXH3_64bits_withSeed(n->label, n->label_n, t->seed);
}

/*
 * The one counter that stands for a node's filter; every topic the filter matches has it in its
 * sum. "L1/#" counts among those of L1 alone, since it matches "L1" as well as everything below.
 */
static _Atomic uint64_t *node_generation(struct tree *t, const struct tree_node *node)
{
    const struct tree_node *first = node;
    const struct tree_node *second = NULL;

    while (first->parent->parent != NULL) {
        second = first;
        first = first->parent;
    }
    if (node_is_wild(first)) {
        return &t->gen_wild;
    }
    if (second != NULL && node_is_wild(second)) {
        return &t->gen_first[gen_first_at(label_hash(t, first))];
    }
    return &t->gen_two[gen_two_at(label_hash(t, first),
                                  second == NULL ? END_OF_TOPIC : label_hash(t, second))];
}

static uint64_t generation_key(uint64_t first, uint64_t second, bool is_dollar)
{
    uint64_t key = (uint64_t)gen_first_at(first) << 32 | gen_two_at(first, second);

    return is_dollar ? key | KEY_NO_WILD : key;
}

uint64_t tree_generation_key(const struct tree *t, const char *topic, size_t n)
{
    const char *p = topic;
    uint64_t first = next_label(t->seed, &p, topic + n).hash;
    uint64_t second = p == NULL ? END_OF_TOPIC : next_label(t->seed, &p, topic + n).hash;

    return generation_key(first, second, n > 0 && topic[0] == '$');
}

uint64_t tree_generation_at(const struct tree *t, uint64_t key)
{
    /* seq_cst: partner of change()'s; see "Fences" in the header. As the counters only grow, two
     * equal sums mean that none of them moved. */
    uint64_t sum =
        atomic_load_explicit(&t->gen_first[(key >> 32) % GEN_FIRST], memory_order_seq_cst) +
        atomic_load_explicit(&t->gen_two[(uint32_t)key % GEN_TWO], memory_order_seq_cst);

    if ((key & KEY_NO_WILD) == 0) {
        sum += atomic_load_explicit(&t->gen_wild, memory_order_seq_cst);
    }
    return sum;
}

uint64_t tree_generation(const struct tree *t, const char *topic, size_t n)
{
    return tree_generation_at(t, tree_generation_key(t, topic, n));
}

/* ---- changes ---- */

/* Under the lock. false: no memory, possible only where the shard had no interest. */
static bool change(struct tree *t, struct tree_node *node, unsigned shard, unsigned kinds)
{
    uint64_t word = atomic_load_explicit(&node->interest, memory_order_relaxed);
    unsigned slot = find_slot(word, shard);
    bool was_filter = word != 0;
    bool is_filter;

    if (kinds_at(word, slot) == kinds) {
        return true;
    }
    if (slot == slots_of(word) && !grow_interest(t, node, &word)) {
        return false;
    }
    write_interest(t, node, word, slot, entry_of(shard, kinds));
    is_filter = atomic_load_explicit(&node->interest, memory_order_relaxed) != 0;
    if (was_filter != is_filter) {
        atomic_fetch_add_explicit(&t->nfilters, is_filter ? 1 : (uint64_t)-1, memory_order_relaxed);
    }
    /* seq_cst, after the change: whoever reads this generation or a later one sees the change; and
     * it comes before the caller's look at the retained counter in the one order of all seq_cst
     * operations. */
    atomic_fetch_add_explicit(node_generation(t, node), 1, memory_order_seq_cst);
    return true;
}

static void unlock(struct tree *t)
{
    atomic_store_explicit(&t->table_bytes, t->nodes.bytes, memory_order_relaxed);
    pthread_mutex_unlock(&t->lock);
}

/* The filter's node, made where missing. NULL: no memory, nothing is left behind. */
static struct tree_node *reach(struct tree *t, const char *filter, size_t n)
{
    struct tree_node *node = t->root;

    for (const char *p = filter; p != NULL;) {
        struct label l = next_label(t->seed, &p, filter + n);
        struct tree_node *child = filter_child(t, node, &l);

        if (child == NULL) {
            child = link_child(t, node, &l);
        }
        if (child == NULL) {
            prune(t, node);
            return NULL;
        }
        node = child;
    }
    return node;
}

struct tree_node *tree_set(struct tree *t, const char *filter, size_t n, unsigned shard,
                           unsigned kinds, uint64_t *id)
{
    struct tree_node *node;

    assert(shard < TREE_MAX_SHARDS && kinds != 0 && kinds <= ENTRY_KINDS);
    pthread_mutex_lock(&t->lock);
    node = reach(t, filter, n);
    if (node != NULL && !change(t, node, shard, kinds)) {
        node = NULL; /* the list was full: it is no new node, and stays */
    }
    if (node != NULL) {
        *id = node->id;
    }
    unlock(t);
    return node;
}

bool tree_change(struct tree *t, struct tree_node *node, unsigned shard, unsigned kinds)
{
    bool ok;

    assert(shard < TREE_MAX_SHARDS && kinds <= ENTRY_KINDS);
    pthread_mutex_lock(&t->lock);
    ok = change(t, node, shard, kinds);
    prune(t, node);
    unlock(t);
    return ok;
}

struct tree_node *tree_find(const struct tree *t, const char *filter, size_t n, uint64_t *id)
{
    struct tree_node *node = t->root;

    for (const char *p = filter; p != NULL && node != NULL;) {
        struct label l = next_label(t->seed, &p, filter + n);

        node = filter_child(t, node, &l);
    }
    /* Acquire: partner of write_interest(). */
    if (node == NULL || atomic_load_explicit(&node->interest, memory_order_acquire) == 0) {
        return NULL;
    }
    *id = node->id;
    return node;
}

/* Copies what of [at, at + n) lies below cap. */
static void put_text(char *buf, size_t cap, size_t at, const char *text, size_t n)
{
    if (at < cap) {
        memcpy(buf + at, text, n < cap - at ? n : cap - at);
    }
}

size_t tree_node_text(const struct tree_node *node, char *buf, size_t cap)
{
    size_t total = 0;
    size_t at;

    for (const struct tree_node *n = node; n->parent != NULL; n = n->parent) {
        total += n->label_n + (size_t)(n->parent->parent != NULL);
    }
    at = total;
    for (const struct tree_node *n = node; n->parent != NULL; n = n->parent) {
        at -= n->label_n;
        put_text(buf, cap, at, n->label, n->label_n);
        if (n->parent->parent != NULL) {
            put_text(buf, cap, --at, "/", 1);
        }
    }
    return total;
}

/* ---- matching ---- */

struct hit {
    uint64_t id;
    uint32_t entry; /* shard << 3 | kinds */
};

struct step {
    const struct tree_node *node;
    uint32_t level; /* of the topic, to be compared with node's children */
};

/*
 * A walk over every node whose filter may match, depth first with a stack of our own. Up to
 * `together` nodes of one level are visited at a time, so that their waits for memory overlap. A
 * node leaves at most two children behind, and all that is deeper goes first: a level other than
 * the deepest never holds more than `together`, the deepest twice as many.
 */
struct search {
    const struct tree *tree;
    struct label *labels; /* the topic's levels, hashed once */
    struct step *stack;
    struct hit *hits;
    void *big; /* labels and stack where the topic has many levels */
    size_t nlabels, nhits, hits_cap, depth, stack_cap;
    uint32_t together;
    bool is_dollar; /* filters that begin with a wildcard do not match [MQTT-4.7.2-1] */
    struct label label_room[STACK_LEVELS];
    struct step stack_room[(STACK_LEVELS + 2) * TOGETHER];
    struct hit hit_room[STACK_HITS];
};

static size_t count_levels(const char *topic, size_t n)
{
    size_t levels = 1;

    for (const char *p = topic; (p = memchr(p, '/', (size_t)(topic + n - p))) != NULL; p++) {
        levels++;
    }
    return levels;
}

static bool search_init(struct search *s, const struct tree *t, const char *topic, size_t n)
{
    const char *p = topic;
    size_t levels = count_levels(topic, n);

    s->tree = t;
    s->labels = s->label_room;
    s->stack = s->stack_room;
    s->hits = s->hit_room;
    s->big = NULL;
    s->nhits = 0;
    s->hits_cap = STACK_HITS;
    s->nlabels = levels;
    s->depth = 0;
    s->stack_cap = sizeof(s->stack_room) / sizeof(s->stack_room[0]);
    s->together = TOGETHER;
    s->is_dollar = n > 0 && topic[0] == '$';
    if (levels > STACK_LEVELS) {
        s->together = 1;
        s->big = malloc(levels * sizeof(*s->labels) + (levels + 2) * sizeof(*s->stack));
        if (s->big == NULL) {
            return false;
        }
        s->labels = s->big;
        s->stack = (struct step *)(void *)(s->labels + levels);
        s->stack_cap = levels + 2;
    }
    for (size_t i = 0; i < levels; i++) {
        s->labels[i] = next_label(t->seed, &p, topic + n);
    }
    return true;
}

static void search_fini(struct search *s)
{
    free(s->big);
    if (s->hits != s->hit_room) {
        free(s->hits);
    }
}

static bool grow_hits(struct search *s)
{
    bool on_stack = s->hits == s->hit_room;
    struct hit *more = realloc(on_stack ? NULL : s->hits, s->hits_cap * 2 * sizeof(*more));

    if (more == NULL) {
        return false;
    }
    if (on_stack) {
        memcpy(more, s->hits, s->nhits * sizeof(*more));
    }
    s->hits = more;
    s->hits_cap *= 2;
    return true;
}

/* Everyone interested in this very filter. */
static bool hit_node(struct search *s, const struct tree_node *n)
{
    /* Acquire: partner of write_interest(). One load, so that the list does not change under us. */
    uint64_t word = atomic_load_explicit(&n->interest, memory_order_acquire);

    for (unsigned i = 0; word != 0 && i < slots_of(word); i++) {
        unsigned entry = entry_at(word, i);

        if (entry == 0) {
            continue;
        }
        if (s->nhits == s->hits_cap && !grow_hits(s)) {
            return false;
        }
        s->hits[s->nhits++] = (struct hit){n->id, entry};
    }
    return true;
}

/* What a visit to a node asks for, between asking and having. */
struct visit {
    struct step at;
    const struct tree_node *plus, *hash;
    uint64_t literal; /* hash of the literal child; 0: there is none */
};

/* The node's own line is there: what else it needs is asked for, unless nothing could be done
 * meanwhile. */
static void visit_begin(const struct search *s, struct visit *v, struct step at, bool alone)
{
    bool wild = !s->is_dollar || at.level > 0;

    v->at = at;
    v->plus = v->hash = NULL;
    v->literal = 0;
    if (wild) {
        v->hash = wild_child(&at.node->hash);
        v->plus = wild_child(&at.node->plus);
        __builtin_prefetch(v->hash);
        __builtin_prefetch(v->plus);
    }
    /* Relaxed: as in literal_child(). */
    if (at.level < s->nlabels &&
        atomic_load_explicit(&at.node->literals, memory_order_relaxed) != 0) {
        v->literal = child_hash(at.node, &s->labels[at.level]);
        if (!alone) {
            table_fetch_slot(&s->tree->nodes, v->literal);
        }
    }
}

static void push(struct search *s, const struct tree_node *node, uint32_t level)
{
    if (node != NULL) {
        assert(s->depth < s->stack_cap && level <= s->nlabels);
        s->stack[s->depth++] = (struct step){node, level};
    }
}

/* False: no memory. */
static bool visit_end(struct search *s, const struct visit *v)
{
    struct child_key key;

    /* '#' stands for its parent's level as well [MQTT-4.7.1-2]. */
    if (v->hash != NULL && !hit_node(s, v->hash)) {
        return false;
    }
    if (v->at.level == s->nlabels) {
        return hit_node(s, v->at.node);
    }
    push(s, v->plus, v->at.level + 1);
    if (v->literal != 0) {
        key = (struct child_key){v->at.node, &s->labels[v->at.level]};
        push(s, table_find(&s->tree->nodes, v->literal, child_eq, &key), v->at.level + 1);
    }
    return true;
}

/* Nodes of one level, up to s->together of them, the deepest first. */
static uint32_t take_wave(struct search *s, struct visit *v)
{
    uint32_t level = s->stack[s->depth - 1].level;
    bool alone = s->depth == 1;
    uint32_t n = 0;

    while (n < s->together && s->depth > 0 && s->stack[s->depth - 1].level == level) {
        visit_begin(s, &v[n++], s->stack[--s->depth], alone);
    }
    return n;
}

static bool search_run(struct search *s)
{
    struct visit v[TOGETHER];

    push(s, s->tree->root, 0);
    while (s->depth > 0) {
        uint32_t n = take_wave(s, v);

        for (uint32_t i = 0; n > 1 && i < n; i++) {
            if (v[i].literal != 0) {
                table_fetch_item(&s->tree->nodes, v[i].literal);
            }
        }
        for (uint32_t i = 0; i < n; i++) {
            if (!visit_end(s, &v[i])) {
                return false;
            }
        }
    }
    return true;
}

/* Hits per shard, only the shards seen being initialised. */
struct tally {
    uint64_t seen[TREE_MAX_SHARDS / 64];
    uint32_t count[TREE_MAX_SHARDS];
    uint8_t kinds[TREE_MAX_SHARDS];
    uint32_t nshards;
};

static void tally_hit(struct tally *y, unsigned entry)
{
    unsigned shard = entry >> 3;
    uint64_t bit = UINT64_C(1) << (shard % 64);

    if ((y->seen[shard / 64] & bit) == 0) {
        y->seen[shard / 64] |= bit;
        y->count[shard] = 0;
        y->kinds[shard] = 0;
        y->nshards++;
    }
    y->count[shard]++;
    y->kinds[shard] |= (uint8_t)(entry & ENTRY_KINDS);
}

static struct match *match_alloc(uint32_t ntargets, size_t nids, const char *topic, size_t n)
{
    size_t head = offsetof(struct match, targets) + ntargets * sizeof(struct match_target);
    size_t text = (n + 7) & ~(size_t)7;
    struct match *m;

    head = (head + 7) & ~(size_t)7; /* behind the targets hints, the topic, and ids */
    m = malloc(head + 2 * nids * sizeof(uint64_t) + text);
    if (m == NULL) {
        return NULL;
    }
    m->ntargets = ntargets;
    m->nids = (uint32_t)nids;
    m->hints = (uint64_t *)(void *)((char *)m + head);
    memset(m->hints, 0, nids * sizeof(*m->hints));
    memcpy(m->hints + nids, topic, n);
    m->topic_n = (uint32_t)n;
    atomic_init(&m->refs, 1);
    return m;
}

/* The targets in order of their shards; count[] turns into where each shard's next id goes. */
static void fill_targets(struct match *m, struct tally *y)
{
    struct match_target *to = m->targets;
    uint32_t first = 0;

    for (unsigned w = 0; w < TREE_MAX_SHARDS / 64; w++) {
        for (uint64_t bits = y->seen[w]; bits != 0; bits &= bits - 1) {
            unsigned shard = w * 64 + (unsigned)__builtin_ctzll(bits);
            uint32_t count = y->count[shard];

            *to++ = (struct match_target){(uint16_t)shard, y->kinds[shard], first, count, 0};
            y->count[shard] = first;
            first += count;
        }
    }
}

static struct match *build(const struct hit *hits, size_t n, const char *topic, size_t topic_n)
{
    struct tally y;
    struct match *m;
    uint64_t *ids;

    memset(y.seen, 0, sizeof(y.seen));
    y.nshards = 0;
    for (size_t i = 0; i < n; i++) {
        tally_hit(&y, hits[i].entry);
    }
    m = match_alloc(y.nshards, n, topic, topic_n);
    if (m == NULL) {
        return NULL;
    }
    fill_targets(m, &y);
    ids = m->hints + (match_ids(m) - m->hints);
    for (size_t i = 0; i < n; i++) {
        ids[y.count[hits[i].entry >> 3]++] = hits[i].id;
    }
    return m;
}

static uint64_t search_key(const struct search *s)
{
    uint64_t second = s->nlabels > 1 ? s->labels[1].hash : END_OF_TOPIC;

    return generation_key(s->labels[0].hash, second, s->is_dollar);
}

struct match *tree_match(const struct tree *t, const char *topic, size_t n)
{
    struct match *m = NULL;
    uint64_t generation = 0;
    uint64_t key = 0;
    struct search s;

    if (search_init(&s, t, topic, n)) {
        /* Before the walk: a change in between makes the match look old; a match that misses it
         * never looks new. */
        key = search_key(&s);
        generation = tree_generation_at(t, key);
        if (search_run(&s)) {
            m = build(s.hits, s.nhits, topic, n);
        }
    }
    search_fini(&s);
    if (m != NULL) {
        m->generation = generation;
        m->generation_key = key;
    }
    return m;
}

struct match *match_of_filter(unsigned shard, unsigned kinds, uint64_t id)
{
    struct match *m = match_alloc(1, 1, "", 0);

    if (m != NULL) {
        m->targets[0] =
            (struct match_target){.shard = (uint16_t)shard, .kinds = (uint8_t)kinds, .count = 1};
        m->hints[match_ids(m) - m->hints] = id;
        m->generation = 0;
        m->generation_key = 0;
    }
    return m;
}

void match_ref(struct match *m, uint32_t n)
{
    /* Relaxed: the caller holds a reference already. */
    atomic_fetch_add_explicit(&m->refs, n, memory_order_relaxed);
}

void match_unref(struct match *m)
{
    /* Release: our last reads come before whoever frees. Acquire: the one that frees comes after
     * everyone's. */
    if (atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1) {
        free(m);
    }
}

/* ---- life ---- */

struct tree *tree_create(void)
{
    static const struct label none = {"", 0, 0};
    struct tree *t = calloc(1, sizeof(*t));

    if (t == NULL) {
        return NULL;
    }
    pthread_mutex_init(&t->lock, NULL); /* cannot fail without attributes */
    t->next_id = 1;
    /* Labels come from strangers: a seed of our own keeps them from choosing our collisions. */
    if (getrandom(&t->seed, sizeof(t->seed), 0) != (ssize_t)sizeof(t->seed) ||
        !table_init(&t->nodes, SEGMENT_BITS)) {
        goto fail;
    }
    t->root = node_create(t, NULL, &none);
    if (t->root == NULL) {
        goto fail;
    }
    atomic_store_explicit(&t->table_bytes, t->nodes.bytes, memory_order_relaxed);
    return t;
fail:
    tree_destroy(t);
    return NULL;
}

/* Burials may follow one another. */
static void wait_for_burials(struct tree *t)
{
    bool burying;

    do {
        rcu_drain();
        pthread_mutex_lock(&t->lock);
        burying = t->burying;
        pthread_mutex_unlock(&t->lock);
    } while (burying);
}

static void bury_now(void *arg, void *p)
{
    struct tree *t = arg;
    struct tree_node *n = p;

    n->next_dead = t->graves;
    t->graves = n;
}

static void bury_link(struct tree *t, _Atomic(struct tree_node *) *link)
{
    struct tree_node *n = atomic_load_explicit(link, memory_order_relaxed);

    if (n != NULL) {
        bury_now(t, n);
    }
}

void tree_destroy(struct tree *t)
{
    struct tree_node *n;

    if (t == NULL) {
        return;
    }
    wait_for_burials(t);
    if (t->root != NULL) {
        bury_now(t, t->root);
        table_each(&t->nodes, bury_now, t);
    }
    while ((n = t->graves) != NULL) {
        uint64_t word = atomic_load_explicit(&n->interest, memory_order_relaxed);

        t->graves = n->next_dead;
        bury_link(t, &n->plus);
        bury_link(t, &n->hash);
        if (!is_inline(word)) {
            free(interests_of(word));
        }
        free(n);
    }
    if (t->nodes.segments != NULL) {
        table_fini(&t->nodes);
    }
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void tree_stats(const struct tree *t, struct tree_stats *out)
{
    out->filters = atomic_load_explicit(&t->nfilters, memory_order_relaxed);
    /* The root is nobody's filter. */
    out->nodes = atomic_load_explicit(&t->nnodes, memory_order_relaxed) - 1;
    out->bytes = sizeof(*t) + atomic_load_explicit(&t->nbytes, memory_order_relaxed) +
                 atomic_load_explicit(&t->table_bytes, memory_order_relaxed);
}
