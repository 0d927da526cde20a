/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/batch.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define NONE UINT32_MAX

/* What an operation is about; operations with the same subject and key meet. */
enum subject {
    ABOUT_SESSION,
    ABOUT_SUB,
    ABOUT_BODY,
    ABOUT_ENTRY,
    ABOUT_INBOUND,
    ABOUT_RETAINED,
    ABOUT_WILL
};

static const uint8_t subjects[ST_OP_KINDS] = {
    [ST_SESSION_PUT] = ABOUT_SESSION,   [ST_SESSION_END] = ABOUT_SESSION,
    [ST_SUB_PUT] = ABOUT_SUB,           [ST_SUB_DEL] = ABOUT_SUB,
    [ST_BODY_PUT] = ABOUT_BODY,         [ST_ENTRY_PUT] = ABOUT_ENTRY,
    [ST_ENTRY_STEP] = ABOUT_ENTRY,      [ST_ENTRY_DEL] = ABOUT_ENTRY,
    [ST_INBOUND_PUT] = ABOUT_INBOUND,   [ST_INBOUND_DEL] = ABOUT_INBOUND,
    [ST_RETAINED_PUT] = ABOUT_RETAINED, [ST_RETAINED_DEL] = ABOUT_RETAINED,
    [ST_WILL_PUT] = ABOUT_WILL,         [ST_WILL_DEL] = ABOUT_WILL,
};

void batch_fini(struct batch *b)
{
    free(b->items);
    free(b->table);
    free(b->left);
    *b = (struct batch){0};
}

void batch_reset(struct batch *b)
{
    if (b->n > b->table_cap / 8) {
        memset(b->table, 0, b->table_cap * sizeof(*b->table));
    } else { /* a table that has grown once must not cost every small batch */
        for (uint32_t i = 0; i < b->n; i++) {
            b->table[b->items[i].slot] = (struct batch_slot){0};
        }
    }
    b->n = 0;
    b->dead = 0;
    b->bytes = 0;
    memset(b->kinds, 0, sizeof(b->kinds));
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    return x ^ (x >> 29);
}

static uint64_t key_hash(const struct store_op *op)
{
    const uint64_t s = op->session * 0x9e3779b97f4a7c15u + subjects[op->kind];

    switch ((enum subject)subjects[op->kind]) {
    case ABOUT_ENTRY:
        return mix(s ^ mix(op->seq));
    case ABOUT_INBOUND:
        return mix(s ^ mix(op->packet_id));
    case ABOUT_SUB:
        return mix(s ^ XXH3_64bits(op->name.p, op->name.n));
    case ABOUT_RETAINED:
        return XXH3_64bits(op->name.p, op->name.n);
    case ABOUT_BODY:
    case ABOUT_SESSION:
    case ABOUT_WILL:
        break;
    }
    return mix(s);
}

static bool same_name(const struct store_op *a, const struct store_op *b)
{
    return a->name.n == b->name.n &&
           (a->name.n == 0 || memcmp(a->name.p, b->name.p, a->name.n) == 0);
}

static bool same_key(const struct store_op *a, const struct store_op *b)
{
    if (subjects[a->kind] != subjects[b->kind]) {
        return false;
    }
    switch ((enum subject)subjects[a->kind]) {
    case ABOUT_ENTRY:
        return a->session == b->session && a->seq == b->seq;
    case ABOUT_INBOUND:
        return a->session == b->session && a->packet_id == b->packet_id;
    case ABOUT_SUB:
        return a->session == b->session && same_name(a, b);
    case ABOUT_RETAINED:
        return same_name(a, b);
    case ABOUT_BODY:
    case ABOUT_SESSION:
    case ABOUT_WILL:
        break;
    }
    return a->session == b->session;
}

static uint32_t slot_of(const struct batch *b, const struct store_op *op, uint32_t tag)
{
    uint32_t i = tag & (b->table_cap - 1);

    while (b->table[i].item != 0 &&
           (b->table[i].tag != tag || !same_key(b->items[b->table[i].item - 1].op, op))) {
        i = (i + 1) & (b->table_cap - 1);
    }
    return i;
}

static bool table_room(struct batch *b, uint32_t items)
{
    uint32_t cap = b->table_cap == 0 ? 256 : b->table_cap;
    struct batch_slot *t;

    while (cap < items * 2) {
        cap *= 2;
    }
    if (cap == b->table_cap) {
        return true;
    }
    t = calloc(cap + 1, sizeof(*t)); /* one more for what has no key */
    if (t == NULL) {
        return false;
    }
    free(b->table);
    b->table = t;
    b->table_cap = cap;
    for (uint32_t i = 0; i < b->n; i++) {
        struct batch_item *it = &b->items[i];
        it->slot = cap;
        if (it->op->kind != ST_BODY_PUT) {
            it->slot = slot_of(b, it->op, it->tag);
            /* The newest of a key stands last. */
            b->table[it->slot] = (struct batch_slot){i + 1, it->tag};
        }
    }
    return true;
}

static bool room(struct batch *b, uint32_t more)
{
    if (more > UINT32_MAX / 4 - b->n) {
        return false;
    }
    if (b->n + more > b->cap) {
        const uint32_t cap = (b->n + more) * 2;
        struct batch_item *v = realloc(b->items, cap * sizeof(*v));
        if (v == NULL) {
            return false;
        }
        b->items = v;
        b->cap = cap;
    }
    return table_room(b, b->n + more);
}

static void kill_item(struct batch *b, uint32_t i)
{
    struct batch_item *it = &b->items[i];

    if (!it->dead) {
        it->dead = true;
        b->dead++;
        if (it->op->kind == ST_ENTRY_PUT && it->body != NONE && --b->items[it->body].live == 0) {
            b->dead++; /* the body goes with its last entry */
        }
    }
}

/* An entry's removal takes what came before it in the batch; its put and itself, if that is there.
 */
static void add_entry_del(struct batch *b, uint32_t i)
{
    for (uint32_t at = b->items[i].prev; at != NONE; at = b->items[at].prev) {
        kill_item(b, at);
        if (b->items[at].op->kind == ST_ENTRY_PUT) {
            kill_item(b, i);
        }
    }
}

/* The last one wins; but nothing comes after an end, and a step does not undo a put. */
static void meet(struct batch *b, uint32_t before, uint32_t i)
{
    const enum store_op_kind kind = b->items[before].op->kind;

    if (kind == ST_SESSION_END || kind == ST_ENTRY_DEL) {
        kill_item(b, i);
    } else if (kind != ST_ENTRY_PUT) {
        kill_item(b, before);
    }
}

static void link_body(struct batch *b, uint32_t start, uint32_t i, uint32_t *last_body)
{
    const uint64_t id = b->items[i].op->body;
    uint32_t at = *last_body;

    if (at == NONE || b->items[at].op->body != id) { /* a unit with several bodies */
        for (at = i; at > start; at--) {
            const struct store_op *op = b->items[at - 1].op;
            if (op->kind == ST_BODY_PUT && op->body == id) {
                break;
            }
        }
        if (at == start) {
            return; /* a body of another unit */
        }
        at--;
        *last_body = at;
    }
    b->items[i].body = at;
    b->items[i].next = b->items[at].next;
    b->items[at].next = i;
    b->items[at].live++;
}

static void add_item(struct batch *b, uint32_t start, uint32_t *last_body,
                     const struct store_op *op)
{
    const uint32_t i = b->n++;
    struct batch_item *it = &b->items[i];

    *it = (struct batch_item){.op = op, .prev = NONE, .next = NONE, .body = NONE};
    b->bytes += batch_record_max(op);
    b->kinds[op->kind]++;
    b->free_id = op->session >= b->free_id ? op->session + 1 : b->free_id;
    b->free_id = op->body >= b->free_id ? op->body + 1 : b->free_id;
    if (op->kind == ST_BODY_PUT) {
        it->slot = b->table_cap; /* nobody looks for it by key: the place behind the table */
        *last_body = i;
        return;
    }
    it->tag = (uint32_t)key_hash(op);
    it->slot = slot_of(b, op, it->tag);
    it->prev = b->table[it->slot].item - 1; /* 0 - 1 is NONE */
    b->table[it->slot] = (struct batch_slot){i + 1, it->tag};
    if (op->kind == ST_ENTRY_PUT) {
        link_body(b, start, i, last_body);
    } else if (op->kind == ST_ENTRY_DEL) {
        add_entry_del(b, i);
    } else if (it->prev != NONE) {
        meet(b, it->prev, i);
    }
}

bool batch_add(struct batch *b, const struct store_unit *u)
{
    const uint32_t start = b->n;
    uint32_t last_body = NONE;

    if (!room(b, u->nops)) {
        return false;
    }
    for (uint32_t i = 0; i < u->nops; i++) {
        add_item(b, start, &last_body, &u->ops[i]);
    }
    return true;
}

/* ---- the group ---- */

struct sink {
    uint8_t *start, *p;
    struct gen_op *left;
    uint32_t records;
    uint32_t now_s; /* wall clock: when the bodies were published */
    int64_t clock;
};

static void emit(struct sink *s, const struct store_op *op)
{
    const uint32_t number = op->kind == ST_BODY_PUT ? s->now_s : op->number;

    s->left[s->records++] = (struct gen_op){op, (uint32_t)(s->p - s->start), gen_hash(op->session)};
    s->p = record_encode_as(s->p, op, number, gen_time(op->expires_ms, s->clock));
}

static void emit_all(const struct batch *b, struct sink *s)
{
    for (uint32_t i = 0; i < b->n; i++) {
        const struct batch_item *it = &b->items[i];

        if (it->op->kind == ST_BODY_PUT) {
            if (it->live == 0) {
                continue;
            }
            emit(s, it->op);
            for (uint32_t e = it->next; e != NONE; e = b->items[e].next) {
                if (!b->items[e].dead) {
                    emit(s, b->items[e].op);
                }
            }
        } else if (!it->dead && (it->op->kind != ST_ENTRY_PUT || it->body == NONE)) {
            emit(s, it->op);
        }
    }
}

static bool seal_room(struct batch *b)
{
    if (b->left_cap < b->n) {
        free(b->left);
        b->left = malloc(b->cap * sizeof(*b->left));
        b->left_cap = b->left == NULL ? 0 : b->cap;
    }
    return b->left != NULL;
}

enum store_rc batch_seal(struct batch *b, int64_t clock, struct group *g, uint8_t *buf)
{
    struct sink s = {.now_s = (uint32_t)(g->wall_ms / 1000), .clock = clock};

    g->records = 0;
    g->free_id = b->free_id;
    if (b->n == 0) {
        return ST_OK;
    }
    if (b->bytes > GROUP_MAX - GROUP_HEADER) {
        return ST_NOSPACE;
    }
    if (!seal_room(b)) {
        return ST_NOMEM;
    }
    s.start = buf;
    s.p = buf + GROUP_HEADER;
    s.left = b->left;
    emit_all(b, &s);
    g->records = s.records;
    if (s.records > 0) {
        g->length = (uint32_t)(s.p - s.start);
        group_seal(buf, g);
    }
    return ST_OK;
}
