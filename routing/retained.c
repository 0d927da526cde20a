/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topics are spread over the stripes by the hash of the whole topic, so that writers seldom meet; a
 * replay with a wildcard visits the stripes one after the other.
 *
 * A replay walks by judging one topic at a time: it matches, or the filter says which is the
 * smallest text above it that could, and the walk seeks there. In the order of topic_set.h the next
 * text after T is "T/", everything below T lies before T followed by a zero byte (which no topic
 * has), and the topics that begin with '$' lie before "%".
 */
#include "routing/retained.h"

#include "routing/topic_set.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define STEPS_LOCKED   256   /* topics judged while a stripe is locked */
#define STEPS_CALL     1024  /* and by one call */
#define LEAVES_LOCKED  16u   /* leaves looked at for expired messages while a stripe is locked */
#define LEAVES_CALL    1024u /* and by one call */
#define EXPIRED_LOCKED 64u
#define FETCH_AHEAD    4u /* messages asked for before their turn */

struct retained_stripe {
    _Alignas(64) pthread_mutex_t lock;
    struct retained *all;
    struct topic_set set;
    struct message *old; /* replaced under the lock; its reference is dropped after it */
};

/* relaxed: limits and metrics, nothing is published through them */
struct totals {
    _Atomic uint64_t count, bytes;
};

struct retained {
    uint64_t seed;
    _Atomic uint64_t max_count, max_bytes; /* relaxed: a limit may come a moment late */
    unsigned nstripes;
    void (*expired)(void *arg, struct message *m); /* constant, like its argument; may be NULL */
    void *expired_arg;
    pthread_mutex_t sweep_lock; /* of the two below; never taken inside a stripe's */
    unsigned sweep_stripe;
    uint32_t sweep_leaf;
    _Alignas(64) _Atomic uint64_t counter;
    struct totals of_clients;
    struct totals own; /* of the broker itself: no limits */
    struct retained_stripe stripes[];
};

/* ---- life ---- */

struct retained *retained_create(unsigned nstripes, uint64_t max_count, uint64_t max_bytes,
                                 uint64_t seed)
{
    size_t size = sizeof(struct retained) + nstripes * sizeof(struct retained_stripe);
    struct retained *r;

    assert(nstripes > 0 && (nstripes & (nstripes - 1)) == 0);
    r = aligned_alloc(_Alignof(struct retained), size);
    if (r == NULL) {
        return NULL;
    }
    memset(r, 0, size);
    r->seed = seed;
    retained_set_limits(r, max_count, max_bytes);
    r->nstripes = nstripes;
    pthread_mutex_init(&r->sweep_lock, NULL); /* cannot fail without attributes */
    for (unsigned i = 0; i < nstripes; i++) {
        r->stripes[i].all = r;
        pthread_mutex_init(&r->stripes[i].lock, NULL);
    }
    return r;
}

void retained_set_limits(struct retained *r, uint64_t max_count, uint64_t max_bytes)
{
    atomic_store_explicit(&r->max_count, max_count, memory_order_relaxed);
    atomic_store_explicit(&r->max_bytes, max_bytes, memory_order_relaxed);
}

static void stripe_fini(struct retained_stripe *s)
{
    struct topic_pos p = {0, 0};
    struct message *m;

    while ((m = topic_set_at(&s->set, &p)) != NULL) {
        message_unref(m);
        p.at++;
    }
    topic_set_fini(&s->set);
    pthread_mutex_destroy(&s->lock);
}

void retained_destroy(struct retained *r)
{
    if (r == NULL) {
        return;
    }
    for (unsigned i = 0; i < r->nstripes; i++) {
        stripe_fini(&r->stripes[i]);
    }
    pthread_mutex_destroy(&r->sweep_lock);
    free(r);
}

/* ---- one topic ---- */

static uint64_t hash_of(const struct retained *r, const char *topic, size_t n)
{
    return XXH3_64bits_withSeed(topic, n, r->seed);
}

static unsigned stripe_of(const struct retained *r, uint64_t hash)
{
    return (unsigned)(hash & (r->nstripes - 1));
}

struct retained_stripe *retained_lock(struct retained *r, const char *topic, size_t n)
{
    struct retained_stripe *s = &r->stripes[stripe_of(r, hash_of(r, topic, n))];

    pthread_mutex_lock(&s->lock);
    return s;
}

void retained_unlock(struct retained_stripe *s)
{
    struct message *old = s->old;

    s->old = NULL;
    pthread_mutex_unlock(&s->lock);
    if (old != NULL) {
        message_unref(old); /* freeing a large payload takes a while: not under the lock */
    }
}

uint64_t retained_take_number(struct retained_stripe *s)
{
    /* seq_cst: partner of retained_counter() and, through it, of tree_set(): see tree.h, "Fences".
     */
    return atomic_fetch_add_explicit(&s->all->counter, 1, memory_order_seq_cst) + 1;
}

void retained_go_on_from(struct retained *r, uint64_t number)
{
    if (atomic_load_explicit(&r->counter, memory_order_seq_cst) < number) {
        atomic_store_explicit(&r->counter, number, memory_order_seq_cst);
    }
}

uint64_t retained_counter(const struct retained *r)
{
    /* seq_cst: partner of retained_take_number(). */
    return atomic_load_explicit(&r->counter, memory_order_seq_cst);
}

/* Adds to a total unless that would exceed max (0: no limit). */
static bool reserve(_Atomic uint64_t *total, uint64_t add, uint64_t max)
{
    uint64_t was = atomic_load_explicit(total, memory_order_relaxed);

    do {
        if (max != 0 && (add > max || was > max - add)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(total, &was, was + add, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

static void release(_Atomic uint64_t *total, uint64_t n)
{
    atomic_fetch_sub_explicit(total, n, memory_order_relaxed);
}

/* What limits count: of a stub also what is in the store. */
static size_t size_of(const struct message *m)
{
    return message_size(m) + (m->is_stub ? m->stub_n : 0);
}

static struct totals *totals_of(struct retained *r, const struct message *m)
{
    return m->is_own ? &r->own : &r->of_clients;
}

/* Counts so much more for m; false: a limit is in the way. */
static bool charge(struct retained *r, const struct message *m, uint64_t count, uint64_t bytes,
                   bool limited)
{
    struct totals *t = totals_of(r, m);
    const bool limits = limited && !m->is_own;
    uint64_t max_count = limits ? atomic_load_explicit(&r->max_count, memory_order_relaxed) : 0;
    uint64_t max_bytes = limits ? atomic_load_explicit(&r->max_bytes, memory_order_relaxed) : 0;

    /* Nothing more is always allowed, also above a limit that was lowered. */
    if (count > 0 && !reserve(&t->count, count, max_count)) {
        return false;
    }
    if (bytes > 0 && !reserve(&t->bytes, bytes, max_bytes)) {
        release(&t->count, count);
        return false;
    }
    return true;
}

static void discharge(struct retained *r, const struct message *m)
{
    release(&totals_of(r, m)->count, 1);
    release(&totals_of(r, m)->bytes, size_of(m));
}

/* The index gives its reference up when the stripe is unlocked. */
static void drop_later(struct retained_stripe *s, struct message *m)
{
    if (s->old != NULL) {
        message_unref(s->old);
    }
    s->old = m;
}

static enum retained_rc clear_topic(struct retained_stripe *s, struct topic_pos p,
                                    struct message *old)
{
    if (old == NULL) {
        return RETAINED_NOTHING;
    }
    topic_set_remove(&s->set, p);
    discharge(s->all, old);
    drop_later(s, old);
    return RETAINED_CLEARED;
}

static enum retained_rc change_topic(struct retained_stripe *s, struct topic_pos p,
                                     struct message *old, struct message *m, bool limited)
{
    const bool moves = old->is_own != m->is_own;
    size_t was = moves ? 0 : size_of(old);
    size_t is = size_of(m);

    if (is > was && !charge(s->all, m, moves, is - was, limited)) {
        return RETAINED_FULL;
    }
    if (moves) {
        discharge(s->all, old);
    } else if (is < was) {
        release(&totals_of(s->all, m)->bytes, was - is);
    }
    message_ref(m, 1);
    topic_set_replace(&s->set, p, m);
    drop_later(s, old);
    return RETAINED_CHANGED;
}

static enum retained_rc add_topic(struct retained_stripe *s, uint64_t hash, struct message *m,
                                  bool limited)
{
    if (!charge(s->all, m, 1, size_of(m), limited)) {
        return RETAINED_FULL;
    }
    if (!topic_set_add(&s->set, hash, m)) {
        discharge(s->all, m);
        return RETAINED_NOMEM;
    }
    message_ref(m, 1);
    return RETAINED_SET;
}

/* What the topic of m has, under the stripe's lock; NULL: nothing. *p: where. */
static struct message *find_topic(const struct retained_stripe *s, const struct message *m,
                                  uint64_t *hash, struct topic_pos *p)
{
    *hash = hash_of(s->all, message_topic(m), m->topic_n);
    return topic_set_find(&s->set, *hash, message_topic(m), m->topic_n, p);
}

static enum retained_rc put(struct retained_stripe *s, struct message *m, bool limited)
{
    uint64_t hash;
    struct topic_pos p = {0, 0};
    struct message *old = find_topic(s, m, &hash, &p);

    if (m->payload_n == 0 && !m->is_stub) {
        return clear_topic(s, p, old);
    }
    return old != NULL ? change_topic(s, p, old, m, limited) : add_topic(s, hash, m, limited);
}

enum retained_rc retained_put(struct retained_stripe *s, struct message *m)
{
    return put(s, m, true);
}

static unsigned stripe_of_message(const struct retained *r, const struct message *m)
{
    return stripe_of(r, hash_of(r, message_topic(m), m->topic_n));
}

/* v in the order of its stripes, which end at ends[]; `to` has room for as many. */
static void group_by_stripe(const struct retained *r, struct message *const *v, size_t n,
                            struct message **to, size_t *ends)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        ends[stripe_of_message(r, v[i])]++;
    }
    for (unsigned i = 0; i < r->nstripes; i++) {
        const size_t count = ends[i];
        ends[i] = at; /* where it begins, until all of it is there */
        at += count;
    }
    for (size_t i = 0; i < n; i++) {
        to[ends[stripe_of_message(r, v[i])]++] = v[i];
    }
}

static bool put_group(struct retained_stripe *s, struct message **v, size_t n)
{
    bool ok = true;

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < n && ok; i++) {
        if (i + FETCH_AHEAD < n) {
            __builtin_prefetch(v[i + FETCH_AHEAD]);
            __builtin_prefetch(message_topic(v[i + FETCH_AHEAD]));
        }
        ok = put(s, v[i], false) != RETAINED_NOMEM;
    }
    retained_unlock(s);
    return ok;
}

bool retained_put_all(struct retained *r, struct message **v, size_t n)
{
    size_t *ends = calloc(r->nstripes, sizeof(*ends));
    struct message **grouped = malloc((n > 0 ? n : 1) * sizeof(struct message *));
    bool ok = ends != NULL && grouped != NULL;
    size_t begin = 0;

    if (ok) {
        group_by_stripe(r, v, n, grouped, ends);
    }
    for (unsigned i = 0; ok && i < r->nstripes; i++) {
        ok = put_group(&r->stripes[i], grouped + begin, ends[i] - begin);
        begin = ends[i];
    }
    free(grouped);
    free(ends);
    return ok;
}

void retained_move_out(struct retained *r, struct message *m)
{
    struct message *stub = m->is_stub ? NULL
                                      : message_create_stub(message_topic(m), m->topic_n,
                                                            (uint64_t)m->payload_n + m->props_n);
    struct retained_stripe *s;
    struct topic_pos p;
    uint64_t hash;

    if (stub == NULL) {
        return;
    }
    stub->qos = m->qos;
    stub->number = m->number;
    stub->is_own = m->is_own;
    stub->expires_ms = m->expires_ms;
    s = retained_lock(r, message_topic(m), m->topic_n);
    if (find_topic(s, m, &hash, &p) == m) {
        topic_set_replace(&s->set, p, stub); /* our reference becomes the index's */
        drop_later(s, m);
        stub = NULL;
    }
    retained_unlock(s);
    if (stub != NULL) {
        message_unref(stub);
    }
}

bool retained_is_current(struct retained *r, const struct message *m)
{
    struct retained_stripe *s = retained_lock(r, message_topic(m), m->topic_n);
    struct topic_pos p;
    uint64_t hash;
    const struct message *now = find_topic(s, m, &hash, &p);
    const bool is = now != NULL && now->number == m->number;

    retained_unlock(s);
    return is;
}

/* ---- replay: where to look next ---- */

/* The text `prefix_n` bytes of base's topic, then suffix. */
struct place {
    struct message *base;
    size_t prefix_n;
    const char *suffix; /* part of the filter, or static */
    size_t suffix_n;
};

struct retained_cursor {
    uint64_t up_to;
    unsigned stripe; /* the one under way */
    bool is_exact;   /* no wildcard: one topic to look up */
    bool is_begun;   /* `place` is set */
    size_t literal;  /* bytes up to the first level with a wildcard */
    struct place
        place; /* a reference of our own keeps place.base, whose text is the place reached */
    size_t n;
    char filter[];
};

static struct topic_key place_key(const struct place *p)
{
    return (struct topic_key){
        .a = p->base == NULL ? "" : message_topic(p->base),
        .b = p->suffix,
        .an = p->prefix_n,
        .bn = p->suffix_n,
    };
}

static const char *level_end(const char *p, const char *end)
{
    const char *slash = memchr(p, '/', (size_t)(end - p));

    return slash == NULL ? end : slash;
}

static bool is_wild(const char *level, const char *end)
{
    return level < end && (*level == '+' || *level == '#');
}

/*
 * Where the literal text from this level on ends: what every match has to have here. Before a '+'
 * that is behind the '/', before a '#' in front of it, since "a/#" matches "a" as well
 * [MQTT-4.7.1-2].
 */
static const char *literal_end(const char *level, const char *end)
{
    const char *at = level;

    while (!is_wild(level, end)) {
        at = level_end(level, end);
        if (at == end) {
            return at;
        }
        level = at + 1;
    }
    return level < end && *level == '+' ? level : at;
}

static struct place first_place(const struct retained_cursor *c)
{
    return (struct place){.suffix = c->filter, .suffix_n = c->literal};
}

static struct place after_prefix(struct message *m, size_t prefix_n, const char *suffix, size_t n)
{
    return (struct place){m, prefix_n, suffix, n};
}

enum verdict { MATCHES, LOOK_AT, NO_MORE };

/* Nothing more below the last '+' that could differ: on to its next value, if there is a '+'. */
static enum verdict next_value(struct message *m, const char *plus_end, struct place *next)
{
    if (plus_end == NULL) {
        return NO_MORE;
    }
    *next = after_prefix(m, (size_t)(plus_end - message_topic(m)), "\0", 1);
    return LOOK_AT;
}

/*
 * Compares m's topic with the filter level by level. LOOK_AT: *next is the smallest text above the
 * topic that may match.
 */
static enum verdict judge(const struct retained_cursor *c, struct message *m, struct place *next)
{
    const char *topic = message_topic(m);
    const char *t = topic;
    const char *t_end = topic + m->topic_n;
    const char *f = c->filter;
    const char *f_end = f + c->n;
    const char *plus_end = NULL; /* in the topic: where the level of the last '+' ends */

    if (is_wild(f, f_end) && *t == '$') {
        *next = after_prefix(NULL, 0, "%", 1); /* [MQTT-4.7.2-1] */
        return LOOK_AT;
    }
    for (;; f++, t++) {
        const char *fe = level_end(f, f_end);
        const char *te = level_end(t, t_end);

        if (f < f_end && *f == '#') {
            return MATCHES;
        }
        if (f < f_end && *f == '+') {
            plus_end = te;
        } else {
            int order = topic_compare(f, (size_t)(fe - f), t, (size_t)(te - t));

            if (order > 0) { /* the filter's level lies ahead; with its '/', if it has one */
                size_t slash = t > topic;

                *next = after_prefix(m, (size_t)(t - topic) - slash, f - slash,
                                     (size_t)(literal_end(f, f_end) - f) + slash);
                return LOOK_AT;
            }
            if (order < 0) {
                return next_value(m, plus_end, next);
            }
        }
        if (te == t_end && (fe == f_end || (f_end - fe == 2 && fe[1] == '#'))) {
            return MATCHES;
        }
        if (fe == f_end) { /* the topic goes on below what the filter ends with */
            return next_value(m, plus_end, next);
        }
        if (te == t_end) { /* the filter goes on below this topic */
            *next = after_prefix(m, m->topic_n, fe, (size_t)(literal_end(fe + 1, f_end) - fe));
            return LOOK_AT;
        }
        f = fe;
        t = te;
    }
}

/* ---- replay: the walk ---- */

struct retained_cursor *retained_cursor_create(const char *filter, size_t n, uint64_t up_to_number)
{
    struct retained_cursor *c = malloc(sizeof(*c) + n);

    if (c == NULL) {
        return NULL;
    }
    *c = (struct retained_cursor){.up_to = up_to_number, .n = n};
    memcpy(c->filter, filter, n);
    c->literal = (size_t)(literal_end(c->filter, c->filter + n) - c->filter);
    c->is_exact = memchr(filter, '+', n) == NULL && memchr(filter, '#', n) == NULL;
    return c;
}

void retained_cursor_destroy(struct retained_cursor *c)
{
    if (c == NULL) {
        return;
    }
    if (c->place.base != NULL) {
        message_unref(c->place.base);
    }
    free(c);
}

/* What one call has gathered, and how much it may still do. */
struct replay {
    const struct retained_cursor *cursor;
    int64_t now_ms;
    struct message **out;
    size_t n, max;
    int steps;
};

static void gather(struct replay *y, struct message *m)
{
    if (m->number <= y->cursor->up_to && (m->expires_ms == 0 || m->expires_ms > y->now_ms)) {
        message_ref(m, 1);
        y->out[y->n++] = m;
    }
}

/* The position of `next` when m at p is below it: mostly the neighbour. */
static struct topic_pos advance(const struct topic_set *set, struct topic_pos p,
                                const struct place *next)
{
    struct topic_key k = place_key(next);
    struct message *m;

    p.at++;
    m = topic_set_at(set, &p);
    if (m == NULL || topic_key_compare(&k, message_topic(m), m->topic_n) <= 0) {
        return p;
    }
    return topic_set_seek(set, &k);
}

/* Under the stripe's lock. True: the stripe is through. False: *place is where to go on. */
static bool walk(struct replay *y, const struct topic_set *set, struct place *place)
{
    struct topic_key k = place_key(place);
    struct topic_pos p = topic_set_seek(set, &k);
    struct message *m;
    int locked = STEPS_LOCKED;

    while ((m = topic_set_at(set, &p)) != NULL) {
        /* A step is about as long as the topic: count the endless ones as several. */
        int cost = 1 + m->topic_n / 256;

        if (y->n == y->max || locked <= 0 || y->steps <= 0) {
            return false;
        }
        locked -= cost;
        y->steps -= cost;
        switch (judge(y->cursor, m, place)) {
        case MATCHES:
            gather(y, m);
            *place = after_prefix(m, m->topic_n, "/", 1);
            p.at++;
            break;
        case LOOK_AT:
            p = advance(set, p, place);
            break;
        case NO_MORE:
            return true;
        }
    }
    return true;
}

/* Goes on in the cursor's stripe; the cursor's reference moves along with its place. */
static bool walk_stripe(struct replay *y, struct retained *r, struct retained_cursor *c)
{
    struct retained_stripe *s = &r->stripes[c->stripe];
    struct place place = c->place;
    struct message *was = c->place.base;
    bool through;

    pthread_mutex_lock(&s->lock);
    through = walk(y, &s->set, &place);
    if (through) {
        place = first_place(c);
    } else if (place.base != NULL) {
        message_ref(place.base, 1); /* in the index or ours already, so still there */
    }
    pthread_mutex_unlock(&s->lock);
    if (was != NULL) {
        message_unref(was);
    }
    c->place = place;
    return through;
}

/* A filter without wildcards is a topic. */
static void look_up(struct replay *y, struct retained *r, struct retained_cursor *c)
{
    uint64_t hash = hash_of(r, c->filter, c->n);
    struct retained_stripe *s = &r->stripes[stripe_of(r, hash)];
    struct topic_pos p;
    struct message *m;

    pthread_mutex_lock(&s->lock);
    m = topic_set_find(&s->set, hash, c->filter, c->n, &p);
    if (m != NULL) {
        gather(y, m);
    }
    pthread_mutex_unlock(&s->lock);
    c->stripe = r->nstripes;
}

size_t retained_next(struct retained *r, struct retained_cursor *c, int64_t now_ms,
                     struct message **out, size_t max, bool *done)
{
    struct replay y = {c, now_ms, out, 0, max, STEPS_CALL};

    if (!c->is_begun) {
        c->is_begun = true;
        c->place = first_place(c);
    }
    while (c->stripe < r->nstripes && y.n < max && y.steps > 0) {
        if (c->is_exact) {
            look_up(&y, r, c);
        } else if (walk_stripe(&y, r, c)) {
            c->stripe++;
            y.steps--; /* an empty stripe is a step as well */
        }
    }
    *done = c->stripe == r->nstripes;
    return y.n;
}

/* ---- expiry ---- */

/* A few leaves of the stripe the sweep is at; returns how many messages went. Under the sweep's
 * lock. */
static size_t sweep(struct retained *r, int64_t now_ms, size_t max, uint32_t *budget)
{
    struct retained_stripe *s = &r->stripes[r->sweep_stripe];
    struct message *gone[EXPIRED_LOCKED];
    uint32_t leaves = LEAVES_LOCKED;
    bool at_end;
    size_t n;

    pthread_mutex_lock(&s->lock);
    n = topic_set_expire(&s->set, &r->sweep_leaf, &leaves, now_ms, gone,
                         max < EXPIRED_LOCKED ? max : EXPIRED_LOCKED);
    at_end = r->sweep_leaf >= s->set.n;
    for (size_t i = 0; i < n && r->expired != NULL; i++) {
        r->expired(r->expired_arg, gone[i]);
    }
    pthread_mutex_unlock(&s->lock);
    if (at_end) {
        r->sweep_stripe = (r->sweep_stripe + 1) & (r->nstripes - 1);
        r->sweep_leaf = 0;
    }
    *budget -= LEAVES_LOCKED - leaves + 1;
    for (size_t i = 0; i < n; i++) {
        discharge(r, gone[i]);
        message_unref(gone[i]);
    }
    return n;
}

void retained_on_expiry(struct retained *r, void (*fn)(void *arg, struct message *m), void *arg)
{
    r->expired = fn;
    r->expired_arg = arg;
}

size_t retained_expire(struct retained *r, int64_t now_ms, size_t max)
{
    uint32_t budget = LEAVES_CALL;
    unsigned visited = 0;
    size_t n = 0;

    pthread_mutex_lock(&r->sweep_lock);
    while (n < max && visited < r->nstripes && budget > LEAVES_LOCKED) {
        unsigned at = r->sweep_stripe;

        n += sweep(r, now_ms, max - n, &budget);
        visited += r->sweep_stripe != at || r->sweep_leaf == 0;
    }
    pthread_mutex_unlock(&r->sweep_lock);
    return n;
}

void retained_stats(const struct retained *r, struct retained_stats *out)
{
    out->count = atomic_load_explicit(&r->of_clients.count, memory_order_relaxed) +
                 atomic_load_explicit(&r->own.count, memory_order_relaxed);
    out->bytes = atomic_load_explicit(&r->of_clients.bytes, memory_order_relaxed) +
                 atomic_load_explicit(&r->own.bytes, memory_order_relaxed);
}
