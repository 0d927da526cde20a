/* SPDX-License-Identifier: Apache-2.0 */
#include "server/shard/ticket.h"

#include <stdlib.h>

#define LAZY_MAX 512u /* operations of one turn's lazy ticket */

struct ticket_copy {
    struct ticket_copy *next;
    uint8_t data[];
};

static void ticket_done(struct store_unit *u, enum store_rc rc);
static void part_answered(struct shard *sh, struct shard_mail *m);

struct ticket *ticket_create(struct shard *origin, uint32_t nparts)
{
    struct ticket *t = calloc(1, sizeof(*t) + nparts * sizeof(t->part[0]));

    if (t == NULL) {
        return NULL;
    }
    t->unit.done = ticket_done;
    t->nparts = nparts;
    atomic_init(&t->parts, nparts);
    atomic_init(&t->refs, nparts + 1);
    for (uint32_t i = 0; i < nparts; i++) {
        t->part[i].ticket = t;
        t->part[i].shard = origin;
    }
    return t;
}

static void ticket_fail(struct ticket *t)
{
    /* relaxed: read by the shard that finishes last, ordered by `parts`. */
    atomic_store_explicit(&t->failed, true, memory_order_relaxed);
}

static struct store_op *op_append(struct store_op **ops, uint32_t *n, uint32_t *cap)
{
    if (*n == *cap) {
        uint32_t more = *cap == 0 ? 4 : *cap * 2;
        struct store_op *p = realloc(*ops, more * sizeof(*p));
        if (p == NULL) {
            return NULL;
        }
        *ops = p;
        *cap = more;
    }
    return &(*ops)[(*n)++];
}

struct store_op *ticket_op(struct ticket_part *p, enum store_op_kind kind)
{
    struct store_op *op = op_append(&p->ops, &p->nops, &p->cap);

    if (op == NULL) {
        ticket_fail(p->ticket);
        return NULL;
    }
    *op = (struct store_op){.kind = kind};
    return op;
}

struct store_bytes ticket_bytes(struct ticket_part *p, const void *data, size_t n)
{
    struct ticket_copy *c = malloc(sizeof(*c) + n);

    if (c == NULL) {
        ticket_fail(p->ticket);
        return (struct store_bytes){NULL, 0};
    }
    if (n > 0) {
        memcpy(c->data, data, n);
    }
    c->next = p->copies;
    p->copies = c;
    return (struct store_bytes){c->data, n};
}

void ticket_body(struct ticket_part *p, const struct message *m)
{
    struct store_op *op = ticket_op(p, ST_BODY_PUT);

    if (op != NULL) {
        op->body = m->body_id;
        op->name = (struct store_bytes){message_topic(m), m->topic_n};
        op->data = (struct store_bytes){message_payload(m), m->payload_n};
        op->props = (struct store_bytes){message_props(m), m->props_n};
        op->expires_ms = m->expires_ms;
        op->flags = m->qos;
    }
}

/* All parts' operations in one array: the first part's, so that the body stands before its entries.
 */
static bool gather(struct ticket *t)
{
    struct ticket_part *first = &t->part[0];

    for (uint32_t i = 1; i < t->nparts; i++) {
        for (uint32_t j = 0; j < t->part[i].nops; j++) {
            struct store_op *op = op_append(&first->ops, &first->nops, &first->cap);
            if (op == NULL) {
                return false;
            }
            *op = t->part[i].ops[j];
        }
    }
    t->unit.ops = first->ops;
    t->unit.nops = first->nops;
    return true;
}

/* Hands the answer to every shard with a part. The store's thread, or the last shard when it was
 * not submitted. */
static void answer(struct ticket *t, enum store_rc rc)
{
    uint32_t n = t->nparts;

    t->rc = rc;
    for (uint32_t i = 0; i < n; i++) {
        t->part[i].mail.fn = part_answered;
    }
    for (uint32_t i = 0; i < n; i++) {
        shard_push_now(t->part[i].shard, &t->part[i].mail);
    }
}

static void ticket_done(struct store_unit *u, enum store_rc rc)
{
    answer((struct ticket *)u, rc);
}

static void copies_free(struct ticket_copy *c)
{
    while (c != NULL) {
        struct ticket_copy *next = c->next;
        free(c);
        c = next;
    }
}

static void ticket_free(struct ticket *t)
{
    for (uint32_t i = 0; i < t->nparts; i++) {
        free(t->part[i].ops);
        free(t->part[i].late);
        copies_free(t->part[i].copies);
        if (t->part[i].msg != NULL) {
            message_unref(t->part[i].msg);
        }
    }
    free(t);
}

static void ticket_unref(struct ticket *t)
{
    /* acq_rel: whoever frees has seen what the others did with it. */
    if (atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1) {
        ticket_free(t);
    }
}

void ticket_finish(struct ticket_part *p)
{
    struct ticket *t = p->ticket;
    struct store *store = p->shard->b->store;
    enum store_rc rc;

    /* acq_rel: releases this part's operations to the last one, who acquires them all. */
    if (atomic_fetch_sub_explicit(&t->parts, 1, memory_order_acq_rel) != 1) {
        return;
    }
    if (atomic_load_explicit(&t->failed, memory_order_relaxed) || !gather(t)) {
        rc = ST_NOMEM;
    } else {
        shard_count(p->shard, METRIC_STORE_UNITS, 1);
        rc = p->shard->keeps ? store_submit(store, &t->unit) : ST_CLOSED;
    }
    if (rc != ST_OK) {
        answer(t, rc);
    }
    /* Behind the submit: who sees it may hand over removals of these entries (acquire in
     * ticket_entry_del()). */
    atomic_store_explicit(&t->submitted, true, memory_order_release);
    ticket_unref(t);
}

/* ---- waiting messages ---- */

bool ticket_wait(struct ticket_part *p, struct client *c, struct out_msg *o)
{
    struct out_wait *w = malloc(sizeof(*w));

    if (w == NULL) {
        ticket_fail(p->ticket);
        return false;
    }
    *w = (struct out_wait){.next = p->waiting, .part = p, .client = c, .out = o};
    if (p->waiting != NULL) {
        p->waiting->prev = w;
    }
    p->waiting = w;
    o->wait = w;
    return true;
}

void ticket_forget(struct out_msg *o)
{
    struct out_wait *w = o->wait;

    if (w == NULL) {
        return;
    }
    if (w->prev != NULL) {
        w->prev->next = w->next;
    } else {
        w->part->waiting = w->next;
    }
    if (w->next != NULL) {
        w->next->prev = w->prev;
    }
    o->wait = NULL;
    free(w);
}

/* ---- changes nobody waits for ---- */

struct store_op *ticket_lazy(struct shard *sh, enum store_op_kind kind)
{
    if (!sh->keeps) {
        return NULL;
    }
    if (sh->lazy != NULL && sh->lazy->part[0].nops >= LAZY_MAX) {
        ticket_flush_lazy(sh);
    }
    if (sh->lazy == NULL) {
        sh->lazy = ticket_create(sh, 1);
    }
    return sh->lazy == NULL ? NULL : ticket_op(&sh->lazy->part[0], kind);
}

void ticket_flush_lazy(struct shard *sh)
{
    struct ticket *t = sh->lazy;

    if (t != NULL) {
        sh->lazy = NULL;
        ticket_finish(&t->part[0]);
    }
}

void ticket_entry_del(struct shard *sh, const struct client *c, struct out_msg *o)
{
    struct store_op del = {.kind = ST_ENTRY_DEL, .session = client_session(c), .seq = o->seq};
    struct ticket_part *p = o->wait == NULL ? NULL : o->wait->part;
    struct store_op *op;

    if (!sh->keeps || o->seq == 0) {
        return;
    }
    /* Its ticket has not been handed over: behind it, when the answer comes. */
    if (p != NULL && !atomic_load_explicit(&p->ticket->submitted, memory_order_acquire)) {
        op = op_append(&p->late, &p->nlate, &p->late_cap);
    } else {
        op = ticket_lazy(sh, ST_ENTRY_DEL);
    }
    if (op != NULL) { /* else an entry too many on disk: delivered again after a crash, with DUP */
        *op = del;
    }
}

/* ---- the answer, on each part's shard ---- */

static void origin_answered(struct shard *sh, struct ticket *t)
{
    if (t->inbound != NULL) {
        struct in_id *e = idset_find(t->inbound, t->inbound_id);
        assert(e != NULL && e->ticket == t);
        e->ticket = NULL;
    }
    if (t->slot == NULL) {
        return;
    }
    if (t->rc == ST_OK) {
        link_slot_ready(sh, t->slot);
    } else {
        link_slot_failed(sh, t->slot);
    }
}

static void part_answered(struct shard *sh, struct shard_mail *m)
{
    struct ticket_part *p = (struct ticket_part *)m;
    struct ticket *t = p->ticket;

    if (p == &t->part[0]) {
        origin_answered(sh, t);
    }
    while (p->waiting != NULL) {
        struct out_msg *o = p->waiting->out;
        struct client *c = p->waiting->client;
        ticket_forget(o);
        outq_stored(sh, c, o);
    }
    for (uint32_t i = 0; i < p->nlate; i++) {
        struct store_op *op = ticket_lazy(sh, p->late[i].kind);
        if (op != NULL) {
            *op = p->late[i];
        }
    }
    ticket_unref(t);
}
