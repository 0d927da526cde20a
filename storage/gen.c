/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/gen.h"

#include "storage/state.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define ARRAY_LEAST 4u

/* For as long as the generation lives; not zeroed. */
static void *alloc(struct gen *g, struct block **list, size_t size)
{
    struct block *b = *list;
    void *p;

    if (b == NULL || b->used + size > b->size) {
        b = spare_take(g->spare, SPARE_SMALL);
        if (b == NULL) {
            return NULL;
        }
        b->next = *list;
        if (b->next != NULL) {
            b->next->newer = b;
        }
        *list = b;
    }
    p = b->data + b->used;
    b->used += size;
    return p;
}

struct gen *gen_create(struct spare *spare)
{
    struct gen *g = calloc(1, sizeof(*g));

    if (g != NULL) {
        atomic_init(&g->refs, 1);
        g->spare = spare;
    }
    return g;
}

void gen_ref(struct gen *g)
{
    /* relaxed: whoever refers to it already keeps it alive. */
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
}

static bool is_own(const struct gen_entries *e)
{
    return e->cap > ARRAY_LEAST << (GEN_ARRAYS - 1);
}

static void free_own(struct gen *g)
{
    for (uint32_t i = 0; i < g->sessions_cap && g->own > 0; i++) {
        const struct gen_session *s = g->sessions[i].s;
        if (s != NULL) {
            free(is_own(&s->puts) ? s->puts.v : NULL);
            free(is_own(&s->olds) ? s->olds.v : NULL);
            free(s->inbound);
        }
    }
}

void gen_unref(struct gen *g)
{
    if (g == NULL || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    free_own(g);
    for (uint32_t i = 0; i < g->ngroups; i++) {
        free(g->groups[i]);
    }
    spare_give(g->spare, g->bodies);
    spare_give(g->spare, g->pool);
    spare_give(g->spare, g->texts);
    if (g->nsessions >= g->sessions_cap / 8) {
        spare_give_table(g->spare, g->sessions, g->sessions_cap * sizeof(*g->sessions));
    } else { /* far too large for what came */
        free(g->sessions);
    }
    free(g->groups);
    free(g->named);
    free(g->named_tags);
    free(g);
}

/* ---- sessions ---- */

static struct gen_session_slot *session_slot(struct gen_session_slot *t, uint32_t cap,
                                             uint64_t session, uint32_t hash)
{
    uint32_t i = hash & (cap - 1);

    while (t[i].s != NULL && t[i].session != session) {
        i = (i + 1) & (cap - 1);
    }
    return &t[i];
}

static struct gen_session *find(const struct gen *g, uint64_t session, uint32_t hash)
{
    return g->sessions_cap == 0 ? NULL
                                : session_slot(g->sessions, g->sessions_cap, session, hash)->s;
}

const struct gen_session *gen_find(const struct gen *g, uint64_t session)
{
    return find(g, session, gen_hash(session));
}

static bool sessions_grow(struct gen *g)
{
    size_t bytes = (g->sessions_cap == 0 ? 64 : g->sessions_cap * 2) * sizeof(*g->sessions);
    struct gen_session_slot *t = NULL;
    uint32_t cap;

    if (g->sessions_cap == 0) {
        t = spare_take_table(g->spare, &bytes);
    }
    if (t == NULL) {
        t = malloc(bytes);
        if (t == NULL) {
            return false;
        }
        memset(t, 0, bytes); /* not calloc(): a page is looked at before it is written to */
    }
    cap = (uint32_t)(bytes / sizeof(*t));
    for (uint32_t i = 0; i < g->sessions_cap; i++) {
        if (g->sessions[i].s != NULL) {
            const uint64_t session = g->sessions[i].session;
            *session_slot(t, cap, session, gen_hash(session)) = g->sessions[i];
        }
    }
    free(g->sessions);
    g->sessions = t;
    g->sessions_cap = cap;
    return true;
}

static struct gen_session *session_need(struct gen *g, uint64_t session, uint32_t hash)
{
    struct gen_session_slot *slot;

    if (g->nsessions >= g->sessions_cap / 4 * 3 && !sessions_grow(g)) {
        return NULL;
    }
    slot = session_slot(g->sessions, g->sessions_cap, session, hash);
    if (slot->s == NULL) {
        struct gen_session *s = alloc(g, &g->pool, sizeof(*s));
        if (s == NULL) {
            return NULL;
        }
        *s = (struct gen_session){.session = session};
        *slot = (struct gen_session_slot){session, s};
        g->nsessions++;
    }
    return slot->s;
}

/* ---- entries ---- */

uint32_t gen_lower(const struct gen_entries *e, uint64_t seq)
{
    uint32_t lo = 0;
    uint32_t hi = e->n;

    if (e->n == 0 || e->v[e->n - 1].seq < seq) {
        return e->n; /* the usual case: seqs rise */
    }
    while (lo < hi) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (e->v[mid].seq < seq) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* Arrays of up to 1024 entries lie in blocks; one that grows leaves its place to others. */
static struct gen_entry *array_take(struct gen *g, unsigned size)
{
    void *p = g->arrays[size];

    if (p == NULL) {
        return alloc(g, &g->pool, (ARRAY_LEAST << size) * sizeof(struct gen_entry));
    }
    memcpy(&g->arrays[size], p, sizeof(void *));
    return p;
}

static void array_give(struct gen *g, unsigned size, struct gen_entry *v)
{
    memcpy(v, &g->arrays[size], sizeof(void *));
    g->arrays[size] = v;
}

static unsigned array_size(uint32_t cap)
{
    return (unsigned)__builtin_ctz(cap / ARRAY_LEAST);
}

static bool entries_grow(struct gen *g, struct gen_entries *e)
{
    const uint32_t cap = e->cap == 0 ? ARRAY_LEAST : e->cap * 2;
    const bool own = array_size(cap) >= GEN_ARRAYS;
    struct gen_entry *v;

    if (is_own(e)) {
        v = realloc(e->v, cap * sizeof(*v));
    } else {
        v = own ? malloc(cap * sizeof(*v)) : array_take(g, array_size(cap));
        if (v != NULL && e->n > 0) {
            memcpy(v, e->v, e->n * sizeof(*v));
            array_give(g, array_size(e->cap), e->v);
        }
        g->own += v != NULL && own;
    }
    if (v == NULL) {
        return false;
    }
    e->v = v;
    e->cap = cap;
    return true;
}

/* The entry with this seq; *made: it is new, zeroed but for seq. */
static struct gen_entry *entry_need(struct gen *g, struct gen_entries *e, uint64_t seq, bool *made)
{
    const uint32_t at = gen_lower(e, seq);

    *made = at == e->n || e->v[at].seq != seq;
    if (!*made) {
        return &e->v[at];
    }
    if (e->n == e->cap && !entries_grow(g, e)) {
        return NULL;
    }
    if (at < e->n) {
        memmove(&e->v[at + 1], &e->v[at], (e->n - at) * sizeof(*e->v));
    }
    e->n++;
    e->v[at] = (struct gen_entry){.seq = seq};
    return &e->v[at];
}

static struct gen_entry *born_here(struct gen_session *s, uint64_t seq)
{
    struct gen_entries *e = &s->puts;
    uint32_t at = e->hint;

    if (at >= e->n || e->v[at].seq != seq) {
        at = gen_lower(e, seq);
        if (at == e->n || e->v[at].seq != seq) {
            return NULL;
        }
    }
    e->hint = at + 1;
    return &e->v[at];
}

/* What it takes to add an operation to a generation, beside it. */
struct adding {
    struct gen *g;
    struct gen *resting;   /* or NULL */
    struct gen_body *last; /* the body that came last */
    int64_t clock;
};

static bool add_put(struct adding *a, struct gen_session *s, const struct store_op *op)
{
    bool made;
    struct gen_entry *e = entry_need(a->g, &s->puts, op->seq, &made);

    if (e == NULL || !made) { /* never used again: a second one changes nothing */
        return e != NULL;
    }
    s->live++;
    e->what = GEN_PUT;
    e->body = op->body;
    e->expires_ms = gen_time(op->expires_ms, a->clock);
    e->number = op->number;
    e->group = op->group;
    e->packet_id = op->packet_id;
    e->flags = op->flags;
    e->born = a->last != NULL && a->last->id == op->body ? a->last : NULL;
    if (e->born != NULL) {
        e->born->live++;
    }
    return true;
}

static void kill_entry(struct gen_session *s, struct gen_entry *e)
{
    e->dead = true;
    s->live--;
    if (e->born != NULL) {
        e->born->live--;
    }
}

/*
 * Only where a body goes with it: of a body with several entries the interrupted fold of a
 * generation that is read back from the journal, where this has not happened, has to find the same
 * count.
 */
static bool dies_at_rest(const struct gen *resting, const struct store_op *op, uint32_t hash)
{
    struct gen_session *s = resting == NULL ? NULL : find(resting, op->session, hash);
    struct gen_entry *e = s == NULL ? NULL : born_here(s, op->seq);

    if (e == NULL || e->dead || e->born == NULL || e->born->live != 1) {
        return false;
    }
    kill_entry(s, e);
    return true;
}

static bool has_change(const struct gen_entries *e, uint64_t seq)
{
    const uint32_t at = gen_lower(e, seq);

    return at < e->n && e->v[at].seq == seq;
}

static bool add_change(struct adding *a, struct gen_session *s, const struct store_op *op,
                       uint32_t hash)
{
    struct gen_entry *e = born_here(s, op->seq);
    bool made;

    if (e == NULL) {
        if (op->kind == ST_ENTRY_DEL && dies_at_rest(a->resting, op, hash) &&
            !has_change(&s->olds, op->seq)) {
            return true;
        }
        e = entry_need(a->g, &s->olds, op->seq, &made);
        if (e == NULL) {
            return false;
        }
        if (op->kind == ST_ENTRY_DEL) {
            e->what = GEN_DEL;
        } else if (made) {
            e->what = GEN_STEP;
        }
    } else if (op->kind == ST_ENTRY_DEL && !e->dead) {
        kill_entry(s, e);
    }
    if (op->kind == ST_ENTRY_STEP) {
        e->packet_id = op->packet_id;
        e->step = op->flags;
    }
    return true;
}

static bool add_inbound(struct gen *g, struct gen_session *s, const struct store_op *op)
{
    if (s->ninbound == s->inbound_cap) {
        const uint32_t cap = s->inbound_cap == 0 ? 8 : s->inbound_cap * 2;
        uint32_t *v = realloc(s->inbound, cap * sizeof(*v));
        if (v == NULL) {
            return false;
        }
        g->own += s->inbound_cap == 0;
        s->inbound = v;
        s->inbound_cap = cap;
    }
    s->inbound[s->ninbound++] = (uint32_t)op->packet_id << 1 | (op->kind == ST_INBOUND_DEL);
    return true;
}

/* ---- names ---- */

static bool same_name(const struct gen_named *n, const struct store_op *op)
{
    const uint8_t *p = n->record;
    struct store_op old;

    return record_decode(&p, n->end, &old) && old.name.n == op->name.n &&
           (op->name.n == 0 || memcmp(old.name.p, op->name.p, op->name.n) == 0);
}

static uint32_t named_tag(enum store_op_kind kind, uint64_t session, uint64_t hash)
{
    return gen_hash(hash ^ session * 0x9e3779b97f4a7c15u ^ (uint64_t)kind);
}

static bool named_grow(struct gen *g)
{
    const uint32_t cap = g->named_cap == 0 ? 64 : g->named_cap * 2;
    struct gen_named **t = calloc(cap, sizeof(struct gen_named *));
    uint32_t *tags = calloc(cap, sizeof(*tags));

    if (t == NULL || tags == NULL) {
        free(t);
        free(tags);
        return false;
    }
    for (uint32_t i = 0; i < g->named_cap; i++) {
        if (g->named[i] != NULL) {
            uint32_t at = g->named_tags[i] & (cap - 1);
            while (t[at] != NULL) {
                at = (at + 1) & (cap - 1);
            }
            t[at] = g->named[i];
            tags[at] = g->named_tags[i];
        }
    }
    free(g->named);
    free(g->named_tags);
    g->named = t;
    g->named_tags = tags;
    g->named_cap = cap;
    return true;
}

/* kind: the PUT's. */
static bool add_named(struct gen *g, const struct store_op *op, enum store_op_kind kind,
                      const uint8_t *record, const uint8_t *end)
{
    const uint64_t hash = XXH3_64bits(op->name.p, op->name.n);
    const bool by_name = kind == ST_SUB_PUT || kind == ST_RETAINED_PUT;
    /* A will has one key for all its names. */
    const uint32_t tag = named_tag(kind, op->session, kind == ST_WILL_PUT ? 0 : hash);
    struct gen_named *n;
    uint32_t at;

    if (g->nnamed >= g->named_cap / 2 && !named_grow(g)) {
        return false;
    }
    at = tag & (g->named_cap - 1);
    for (; (n = g->named[at]) != NULL; at = (at + 1) & (g->named_cap - 1)) {
        if (g->named_tags[at] == tag && n->kind == kind && n->session == op->session &&
            (kind == ST_WILL_PUT || n->hash == hash) && (!by_name || same_name(n, op))) {
            break;
        }
    }
    if (n == NULL) {
        n = alloc(g, &g->pool, sizeof(*n));
        if (n == NULL) {
            return false;
        }
        n->kind = kind;
        n->session = op->session;
        n->hash = kind == ST_WILL_PUT ? 0 : hash;
        g->named[at] = n;
        g->named_tags[at] = tag;
        g->nnamed++;
    }
    n->record = record;
    n->end = end;
    n->del = op->kind != kind;
    return true;
}

bool gen_find_retained(const struct gen *g, struct store_bytes name, struct gen_named *out)
{
    const struct store_op op = {.kind = ST_RETAINED_PUT, .name = name};
    const uint64_t hash = XXH3_64bits(name.p, name.n);
    const uint32_t tag = named_tag(op.kind, 0, hash);
    const uint32_t mask = g->named_cap - 1;
    const struct gen_named *n = NULL;

    if (g->named_cap == 0) {
        return false;
    }
    for (uint32_t at = tag & mask; (n = g->named[at]) != NULL; at = (at + 1) & mask) {
        if (g->named_tags[at] == tag && n->kind == op.kind && n->hash == hash &&
            same_name(n, &op)) {
            *out = *n;
            return true;
        }
    }
    return false;
}

/* ---- groups ---- */

static struct gen_body *add_body(struct gen *g, const struct store_op *op, const uint8_t *record,
                                 const uint8_t *end)
{
    struct gen_body *b = alloc(g, &g->bodies, sizeof(*b));

    if (b != NULL) {
        *b = (struct gen_body){.id = op->body, .record = record, .end = end, .size = body_size(op)};
        g->nbodies++;
        g->oldest = g->oldest == NULL ? g->bodies : g->oldest;
    }
    return b;
}

static bool add_of_session(struct adding *a, const struct store_op *op, const uint8_t *record,
                           const uint8_t *end, uint32_t hash)
{
    struct gen_session *s = session_need(a->g, op->session, hash);

    if (s == NULL) {
        return false;
    }
    switch (op->kind) {
    case ST_SESSION_PUT:
        s->record = record;
        s->end = end;
        return true;
    case ST_SESSION_END:
        s->ended = true;
        return true;
    case ST_ENTRY_PUT:
        return add_put(a, s, op);
    case ST_ENTRY_STEP:
    case ST_ENTRY_DEL:
        return add_change(a, s, op, hash);
    case ST_SUB_PUT:
    case ST_SUB_DEL:
        return add_named(a->g, op, ST_SUB_PUT, record, end);
    case ST_INBOUND_PUT:
    case ST_INBOUND_DEL:
        return add_inbound(a->g, s, op);
    case ST_BODY_PUT:
    case ST_RETAINED_PUT:
    case ST_RETAINED_DEL:
    case ST_WILL_PUT:
    case ST_WILL_DEL:
    case ST_OP_KINDS:
        break;
    }
    return true;
}

/* hash: gen_hash() of its session. False: no memory. */
static bool add_op(struct adding *a, const struct store_op *op, const uint8_t *record,
                   const uint8_t *end, uint32_t hash)
{
    switch (op->kind) {
    case ST_BODY_PUT:
        a->last = add_body(a->g, op, record, end);
        return a->last != NULL;
    case ST_RETAINED_PUT:
    case ST_RETAINED_DEL:
        return add_named(a->g, op, ST_RETAINED_PUT, record, end);
    case ST_WILL_PUT:
    case ST_WILL_DEL:
        return add_named(a->g, op, ST_WILL_PUT, record, end);
    case ST_SESSION_PUT:
    case ST_SESSION_END:
    case ST_SUB_PUT:
    case ST_SUB_DEL:
    case ST_ENTRY_PUT:
    case ST_ENTRY_STEP:
    case ST_ENTRY_DEL:
    case ST_INBOUND_PUT:
    case ST_INBOUND_DEL:
    case ST_OP_KINDS:
        break;
    }
    return add_of_session(a, op, record, end, hash);
}

static enum gen_rc add_records(struct gen *g, const uint8_t *p, const uint8_t *end,
                               uint32_t expected)
{
    struct adding a = {.g = g};
    uint32_t n = 0;

    for (; p != end; n++) {
        const uint8_t *record = p;
        struct store_op op;

        if (!record_decode(&p, end, &op)) {
            return GEN_BAD;
        }
        if (!add_op(&a, &op, record, p, gen_hash(op.session))) {
            return GEN_NOMEM;
        }
    }
    return n == expected ? GEN_OK : GEN_BAD;
}

/*
 * Sessions lie scattered: an entry's costs three misses one behind the other (its place in the
 * table, the session, its last entries). They are asked for in time, each by the one before it.
 */
#define AHEAD 8u

static void look_ahead(const struct gen *g, const struct gen_op *ops, uint32_t i, uint32_t n)
{
    const uint32_t mask = g->sessions_cap - 1;
    const struct gen_session_slot *slot;

    if (g->sessions_cap == 0) {
        return;
    }
    if (i + 3 * AHEAD < n) {
        __builtin_prefetch(&g->sessions[ops[i + 3 * AHEAD].hash & mask]);
    }
    if (i + 2 * AHEAD < n) {
        slot = &g->sessions[ops[i + 2 * AHEAD].hash & mask];
        __builtin_prefetch(slot->s);
    }
    if (i + AHEAD < n) {
        slot = &g->sessions[ops[i + AHEAD].hash & mask];
        if (slot->s != NULL && slot->s->puts.n > 0) {
            const struct gen_entries *e = &slot->s->puts;
            const bool del = ops[i + AHEAD].op->kind == ST_ENTRY_DEL && e->hint < e->n;
            __builtin_prefetch(&e->v[del ? e->hint : e->n - 1]);
        }
    }
}

static enum gen_rc add_ops(struct adding *a, const uint8_t *buf, uint32_t n,
                           const struct gen_op *ops, uint32_t nops)
{
    for (uint32_t i = 0; i < nops; i++) {
        const uint32_t next = i + 1 < nops ? ops[i + 1].at : n;

        look_ahead(a->g, ops, i, nops);
        if (!add_op(a, ops[i].op, buf + ops[i].at, buf + next, ops[i].hash)) {
            return GEN_NOMEM;
        }
    }
    return GEN_OK;
}

static bool keep_buffer(struct gen *g, uint8_t *buf)
{
    if (g->ngroups == g->groups_cap) {
        const uint32_t cap = g->groups_cap == 0 ? 16 : g->groups_cap * 2;
        uint8_t **v = realloc(g->groups, cap * sizeof(*v));
        if (v == NULL) {
            free(buf);
            return false;
        }
        g->groups = v;
        g->groups_cap = cap;
    }
    g->groups[g->ngroups++] = buf;
    return true;
}

static void note_group(struct gen *g, const uint8_t *buf, uint32_t n, uint64_t next_key,
                       struct group *group)
{
    group_peek(buf, group);
    if (g->last == 0) {
        g->first = group->number;
    }
    g->last = group->number;
    g->free_id = group->free_id;
    g->wall_ms = group->wall_ms;
    g->next_key = next_key;
    g->bytes += n;
    g->records += group->records;
}

enum gen_rc gen_add(struct gen *g, uint8_t *buf, uint32_t n, uint64_t next_key)
{
    struct group group;
    enum gen_rc rc;

    if (!keep_buffer(g, buf)) {
        return GEN_NOMEM;
    }
    note_group(g, buf, n, next_key, &group);
    rc = add_records(g, buf + GROUP_HEADER, buf + n, group.records);
    g->partial = rc != GEN_OK;
    return rc;
}

uint8_t *gen_room(struct gen *g, size_t n)
{
    struct block *b = g->texts;

    if (b == NULL || b->size - b->used < n) {
        b = spare_take(g->spare, n > SPARE_LARGE ? n : SPARE_LARGE);
        if (b == NULL) {
            return NULL;
        }
        b->next = g->texts;
        g->texts = b;
    }
    return b->data + b->used;
}

enum gen_rc gen_add_ops(struct gen *g, const uint8_t *buf, uint32_t n, uint64_t next_key,
                        const struct gen_op *ops, int64_t clock, struct gen *resting)
{
    struct adding a = {.g = g, .resting = resting, .clock = clock};
    uint8_t *room = gen_room(g, n);
    struct group group;
    enum gen_rc rc;

    if (room == NULL) {
        return GEN_NOMEM;
    }
    if (room != buf) { /* the one it was encoded for has been frozen meanwhile */
        memcpy(room, buf, n);
    }
    g->texts->used += n;
    note_group(g, room, n, next_key, &group);
    rc = add_ops(&a, room, n, ops, group.records);
    g->partial = rc != GEN_OK;
    return rc;
}

/* A body without entries gets none any more, so that nobody has to look at it again. */
uint32_t gen_oldest_s(struct gen *g)
{
    while (g->oldest != NULL) {
        for (; g->oldest_at < g->oldest->used; g->oldest_at += sizeof(struct gen_body)) {
            const struct gen_body *b =
                (const struct gen_body *)(const void *)(g->oldest->data + g->oldest_at);
            const uint8_t *p = b->record;
            struct store_op op;

            if (b->live > 0) {
                return record_decode(&p, b->end, &op) ? op.number : 0;
            }
        }
        if (g->oldest->newer == NULL) {
            break;
        }
        g->oldest = g->oldest->newer;
        g->oldest_at = 0;
    }
    return 0;
}

void gen_each_body(struct gen *g, void (*fn)(void *arg, struct gen_body *b), void *arg)
{
    for (struct block *c = g->bodies; c != NULL; c = c->next) {
        for (size_t at = 0; at < c->used; at += sizeof(struct gen_body)) {
            fn(arg, (struct gen_body *)(void *)(c->data + at));
        }
    }
}
