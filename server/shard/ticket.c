/* SPDX-License-Identifier: Apache-2.0 */
#include "server/shard/ticket.h"

#include <stdlib.h>

#define LAZY_MAX       512u /* operations of one turn's changes */
#define CHAIN_MAX      64u  /* units gathered, before the store may begin with them */
#define HOLD_MS        4    /* for which a ticket may be held */
#define HOLD_LEVEL_MAX 14u  /* after so many failures in a row one of 2^14 tickets is tried */

/*
 * Of a held ticket. Its origin sets DUE, who finishes last FINISHED: whoever finds the other one
 * set hands it over. VANISHED excludes both: it is set while DUE is not, and nobody hands over
 * after it.
 */
enum { FINISHED = 1u << 0, DUE = 1u << 1, VANISHED = 1u << 2, CHAINED = 1u << 3 };

#define ONE_LIVE ((uint64_t)1 << 32)

/* What came of a ticket's message: a session had no room for it; one took it. */
enum { DROPPED = 1u << 0, TAKEN = 1u << 1 };

struct ticket_copy {
    struct ticket_copy *next;
    uint8_t data[];
};

struct ticket_slots {
    uint32_t n, cap;
    struct ack_slot *v[];
};

static void tickets_done(struct store_unit *list, enum store_rc rc);
static void parts_answered(struct shard *sh, struct post_item *m);

struct ticket_lates {
    uint32_t n, cap;
    struct ticket_late v[];
};

/* ---- memory ---- */

/*
 * Tickets of the usual size are kept for the next ones. The store's thread has looked at every line
 * of them, maybe on another core: a line that has to be fetched from there to be written keeps all
 * writes behind it waiting, up to the next locked operation, which waits as well. So the one after
 * next is fetched while the next one is used.
 */
#define SPARE_PARTS 2u
#define SPARE_OPS   2u
#define SPARE_BYTES                                                                                \
    (sizeof(struct ticket) + SPARE_PARTS * sizeof(struct ticket_part) +                            \
     SPARE_OPS * sizeof(struct store_op))

/* None where a sanitizer has to see who uses them after their end. */
#ifdef __SANITIZE_ADDRESS__
#define SPARE_MAX 0u
#else
#define SPARE_MAX 512u
#endif

static struct ticket *next_spare(const struct ticket *t)
{
    return (struct ticket *)t->unit.next;
}

static struct ticket *take_spare(struct shard *sh)
{
    struct ticket *t = sh->spare_tickets;

    if (t == NULL) {
        return malloc(SPARE_BYTES);
    }
    sh->spare_tickets = next_spare(t);
    sh->nspare_tickets--;
    for (size_t i = 0; sh->spare_tickets != NULL && i < SPARE_BYTES; i += 64) {
        __builtin_prefetch((const char *)sh->spare_tickets + i, 1);
    }
    return t;
}

/* sh: NULL on a thread that makes none. */
static void put_spare(struct shard *sh, struct ticket *t)
{
    if (sh == NULL || sh->nspare_tickets + 1 > SPARE_MAX) {
        free(t);
        return;
    }
    t->unit.next = (struct store_unit *)sh->spare_tickets;
    sh->spare_tickets = t;
    sh->nspare_tickets++;
}

void ticket_free_spare(struct shard *sh)
{
    while (sh->spare_tickets != NULL) {
        struct ticket *t = sh->spare_tickets;
        sh->spare_tickets = next_spare(t);
        free(t);
    }
}

struct ticket *ticket_create(struct shard *origin, uint32_t nparts, uint32_t nops)
{
    const size_t head = sizeof(struct ticket) + nparts * sizeof(struct ticket_part);
    const uint32_t all = nops + nparts - 1;
    const bool is_usual = nparts == SPARE_PARTS && all == SPARE_OPS;
    struct ticket *t = is_usual ? take_spare(origin) : malloc(head + all * sizeof(struct store_op));
    struct store_op *ops;

    if (t == NULL) {
        return NULL;
    }
    memset(t, 0, head);
    t->unit.done_all = tickets_done;
    t->nparts = nparts;
    t->is_usual = is_usual;
    atomic_init(&t->open, nparts);
    atomic_init(&t->refs, 1); /* the answer */
    ops = (struct store_op *)(void *)((char *)t + head);
    for (uint32_t i = 0; i < nparts; i++) {
        struct ticket_part *p = &t->part[i];
        p->ticket = t;
        p->shard = origin;
        p->ops = ops;
        p->in_place = true;
        p->cap = i == 0 ? nops : 1;
        ops += p->cap;
    }
    return t;
}

void ticket_refuse(struct ticket_part *p)
{
    assert(p->ticket != p->shard->lazy); /* others' answers wait for that */
    /* relaxed: read by the shard that finishes last, ordered by `open`. */
    atomic_store_explicit(&p->ticket->failed, true, memory_order_relaxed);
}

void ticket_took(struct ticket_part *p, uint32_t given, uint32_t dropped)
{
    struct ticket *t = p->ticket;

    /* relaxed: ordered by `open`. Who took it outweighs who did not: a store may overwrite DROPPED,
     * and DROPPED never TAKEN. */
    if (given > dropped) {
        atomic_store_explicit(&t->took, TAKEN, memory_order_relaxed);
    } else if (dropped > 0) {
        atomic_fetch_or_explicit(&t->took, DROPPED, memory_order_relaxed);
    }
}

/* All parts are finished: sessions were interested, and none had room. */
static bool is_declined(const struct ticket *t)
{
    /* relaxed: ordered by `open`, and for the answer by its mail. */
    return t->may_decline && atomic_load_explicit(&t->took, memory_order_relaxed) == DROPPED;
}

bool ticket_is_refused(const struct ticket *t)
{
    return atomic_load_explicit(&t->failed, memory_order_relaxed);
}

static bool ops_grow(struct ticket_part *p)
{
    const uint32_t cap = p->cap < 2 ? 4 : p->cap * 2;
    struct store_op *ops = realloc(p->in_place ? NULL : p->ops, cap * sizeof(*ops));

    if (ops == NULL) {
        return false;
    }
    if (p->in_place) {
        memcpy(ops, p->ops, p->nops * sizeof(*ops));
        p->in_place = false;
    }
    p->ops = ops;
    p->cap = cap;
    return true;
}

static struct store_op *op_append(struct ticket_part *p)
{
    if (p->nops == p->cap && !ops_grow(p)) {
        return NULL;
    }
    return &p->ops[p->nops++];
}

struct store_op *ticket_op(struct ticket_part *p, enum store_op_kind kind)
{
    struct store_op *op = op_append(p);

    if (op == NULL) {
        ticket_refuse(p);
        return NULL;
    }
    *op = (struct store_op){.kind = kind};
    return op;
}

/* NULL: no memory. */
static void *copy_room(struct ticket *t, size_t n)
{
    struct ticket_copy *c = malloc(sizeof(*c) + n);

    if (c == NULL) {
        return NULL;
    }
    c->next = t->copies;
    t->copies = c;
    t->has_more = true;
    return c->data;
}

void *ticket_room(struct ticket_part *p, size_t n)
{
    void *room;

    assert(p == &p->ticket->part[0]);
    room = copy_room(p->ticket, n);
    if (room == NULL) {
        ticket_refuse(p);
    }
    return room;
}

struct store_bytes ticket_bytes(struct ticket_part *p, const void *data, size_t n)
{
    void *copy = ticket_room(p, n);

    if (copy == NULL) {
        return (struct store_bytes){NULL, 0};
    }
    if (n > 0) {
        memcpy(copy, data, n);
    }
    return (struct store_bytes){copy, n};
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
static bool gather_copies(struct ticket *t)
{
    struct ticket_part *first = &t->part[0];

    for (uint32_t i = 1; i < t->nparts; i++) {
        for (uint32_t j = 0; j < t->part[i].nops; j++) {
            struct store_op *op = op_append(first);
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

/* The same; mostly they stand side by side already. The first part's are in the unit: the part
 * itself may be in another core's cache. */
static bool gather(struct ticket *t)
{
    uint32_t n = t->unit.nops;

    for (uint32_t i = 1; i < t->nparts; i++) {
        const struct ticket_part *p = &t->part[i];
        if (p->nops > 0 && p->ops != t->unit.ops + n) {
            return gather_copies(t);
        }
        n += p->nops;
    }
    t->unit.nops = n;
    return true;
}

/* ---- the end of a ticket ---- */

static void copies_free(struct ticket_copy *c)
{
    while (c != NULL) {
        struct ticket_copy *next = c->next;
        free(c);
        c = next;
    }
}

/* sh: whose thread this is, or NULL. */
static void ticket_free(struct shard *sh, struct ticket *t)
{
    for (uint32_t i = 0; i < t->nparts; i++) {
        struct ticket_part *p = &t->part[i];
        if (!p->in_place) {
            free(p->ops);
        }
        free(p->lates);
    }
    if (t->part[0].msg != NULL) {
        message_unref(t->part[0].msg);
    }
    if (t->has_more) {
        free(t->slots);
        copies_free(t->copies);
    }
    if (t->is_usual) {
        put_spare(sh, t);
    } else {
        free(t);
    }
}

static void ticket_unref(struct shard *sh, struct ticket *t)
{
    /* acq_rel: whoever frees has seen what the others did with it. Who finds 1 (acquire) is the
     * only one left: no need to write it. */
    if (atomic_load_explicit(&t->refs, memory_order_acquire) == 1 ||
        atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1) {
        ticket_free(sh, t);
    }
}

/* ---- lists of parts ---- */

static void part_list_begin(struct part_list *l, struct ticket_part *p)
{
    p->next = NULL;
    l->first = l->last = l->recent[0] = p;
    l->n = 1;
}

static void part_list_add(struct part_list *l, struct ticket_part *p)
{
    struct ticket_part **recent = &l->recent[l->n++ % PARTS_AHEAD];

    p->next = NULL;
    p->ahead = NULL;
    if (l->n > PARTS_AHEAD + 1) { /* the first one's place is its mail's */
        (*recent)->ahead = p;
    }
    *recent = p;
    l->last->next = p;
    l->last = p;
}

/* p's turn is next: those behind it were another core's work until now. */
static void prefetch_ahead(const struct ticket_part *p, bool is_first)
{
    if (!is_first && p->ahead != NULL) {
        __builtin_prefetch(p->ahead, 1);
        __builtin_prefetch((const char *)p->ahead + 64, 1);
    }
    if (p->next != NULL) {
        __builtin_prefetch(p->next->ticket, 1);
        __builtin_prefetch(&p->next->ticket->refs, 1);
    }
}

/* The list from p on goes on next turn, before what came behind it. */
static void next_turn(struct shard *sh, struct ticket_part *p,
                      void (*fn)(struct shard *sh, struct post_item *m))
{
    p->mail.fn = fn;
    post_put_back(&sh->post, &p->mail);
}

/* ---- the answer, on its way to the shards ---- */

/* For each shard its parts, in order: one item of mail. */
struct answers {
    struct part_list to[CONFIG_MAX_SHARDS]; /* set only for those in `used` */
    bool has[CONFIG_MAX_SHARDS];
    struct shard *used[CONFIG_MAX_SHARDS];
    unsigned nused;
};

static void answers_add(struct answers *a, struct ticket_part *p)
{
    struct shard *sh = p->shard;
    const unsigned i = sh->index;

    if (a->has[i]) {
        part_list_add(&a->to[i], p);
        return;
    }
    a->has[i] = true;
    a->used[a->nused++] = sh;
    part_list_begin(&a->to[i], p);
    p->mail.fn = parts_answered;
}

static void answers_push(struct answers *a)
{
    for (unsigned k = 0; k < a->nused; k++) {
        struct shard *sh = a->used[k];
        post_deliver(&sh->post, &a->to[sh->index].first->mail);
    }
}

/* To every shard with a part that waits; one mail to the origin stands for all of its parts. */
static void answer(struct ticket *t, enum store_rc rc, struct answers *a)
{
    const struct shard *origin = t->part[0].shard;
    bool to_origin = !t->part[0].quiet;
    uint32_t mails = 0;

    t->rc = (uint8_t)rc;
    for (uint32_t i = 1; i < t->nparts; i++) {
        const struct ticket_part *p = &t->part[i];
        to_origin = to_origin || (!p->quiet && p->shard == origin);
        mails += !p->quiet && p->shard != origin;
    }
    mails += to_origin;
    if (mails == 0) {
        ticket_unref(NULL, t);
        return;
    }
    if (mails > 1) { /* relaxed: the mails publish it */
        atomic_fetch_add_explicit(&t->refs, mails - 1, memory_order_relaxed);
    }
    if (to_origin) {
        answers_add(a, &t->part[0]);
    }
    for (uint32_t i = 1; i < t->nparts && mails > (uint32_t)to_origin; i++) {
        struct ticket_part *p = &t->part[i];
        if (!p->quiet && p->shard != origin) {
            answers_add(a, p);
        }
    }
}

/* On the store's thread: one push to each shard for all of a commit. */
static void tickets_done(struct store_unit *list, enum store_rc rc)
{
    struct answers a;

    a.nused = 0;
    memset(a.has, 0, sizeof(a.has));
    while (list != NULL) {
        struct ticket *t = (struct ticket *)list;
        list = list->next;
        answer(t, rc, &a);
    }
    answers_push(&a);
}

/* Answers what the store does not take: newest first, as in a chain. */
static void refuse(struct store_unit *u, enum store_rc rc)
{
    struct store_unit *list = NULL;

    while (u != NULL) {
        struct store_unit *next = u->next;
        u->next = list;
        list = u;
        u = next;
    }
    tickets_done(list, rc);
}

void ticket_flush_chain(struct shard *sh)
{
    const struct store_chain c = sh->chain;
    enum store_rc rc;

    if (c.n == 0) {
        return;
    }
    sh->chain = (struct store_chain){.newest = NULL};
    rc = store_submit_chain(sh->b->store, &c);
    if (rc != ST_OK) {
        refuse(c.newest, rc);
    }
    /* Behind the submit: who sees it may hand over removals of entries in it (acquire in
     * ticket_entry_del()). */
    atomic_fetch_add_explicit(&sh->chains, 1, memory_order_release);
}

/* Nothing but bodies and new entries: it may wait for the end of the turn. */
static bool is_plain(const struct store_unit *u)
{
    for (uint32_t i = 0; i < u->nops; i++) {
        if (u->ops[i].kind != ST_BODY_PUT && u->ops[i].kind != ST_ENTRY_PUT) {
            return false;
        }
    }
    return true;
}

/* Hands the ticket to the store, with others; or answers it when that cannot be. It may be gone
 * afterwards. */
static void submit(struct ticket *t, struct shard *sh)
{
    enum store_rc rc = ST_OK;

    if (ticket_is_refused(t) || !gather(t)) {
        rc = ST_NOMEM;
    } else if (!t->only_asks) {
        if (is_declined(t)) {
            t->unit.nops = 0; /* a QoS 2 id whose PUBREC refuses is not held [MQTT-4.3.3] */
        }
        shard_count(sh, METRIC_STORE_UNITS, 1);
        rc = sh->keeps ? ST_OK : ST_CLOSED;
    }
    t->by = sh;
    /* relaxed: our own. */
    t->chain = atomic_load_explicit(&sh->chains, memory_order_relaxed);
    /* release: publishes the two to the acquire in ticket_entry_del(). One that is not held has no
     * other bits, and nobody else sets any. */
    if (t->holds) {
        atomic_fetch_or_explicit(&t->state, CHAINED, memory_order_release);
    } else {
        atomic_store_explicit(&t->state, CHAINED, memory_order_release);
    }
    if (rc != ST_OK || t->only_asks) {
        t->unit.next = NULL;
        tickets_done(&t->unit, rc);
        return;
    }
    store_chain_add(&sh->chain, &t->unit);
    if (sh->chain.n >= CHAIN_MAX || !is_plain(&t->unit)) {
        ticket_flush_chain(sh);
    }
}

/* ---- held tickets ---- */

static void list_remove(struct shard *sh, struct ticket *t)
{
    if (t->held_prev != NULL) {
        t->held_prev->held_next = t->held_next;
    } else {
        sh->held = t->held_next;
    }
    if (t->held_next != NULL) {
        t->held_next->held_prev = t->held_prev;
    } else {
        sh->held_last = t->held_prev;
    }
    t->is_held = false;
}

static void list_append(struct shard *sh, struct ticket *t)
{
    t->held_next = NULL;
    t->held_prev = sh->held_last;
    if (sh->held_last != NULL) {
        sh->held_last->held_next = t;
    } else {
        sh->held = t;
    }
    sh->held_last = t;
    t->is_held = true;
}

/* What is known of a publisher: nothing, if another one has had its place meanwhile. */
static struct hold_memo *memo_of(struct shard *sh, uint64_t publisher)
{
    struct hold_memo *m = &sh->memos[publisher % (sizeof(sh->memos) / sizeof(sh->memos[0]))];

    if (m->publisher != (uint32_t)publisher) {
        *m = (struct hold_memo){.publisher = (uint32_t)publisher};
    }
    return m;
}

static void memo_note(struct shard *sh, const struct ticket *t, bool vanished)
{
    const struct link *l = t->slot == NULL ? NULL : t->slot->link;
    struct hold_memo *m;

    if (l == NULL || l->client == NULL) {
        return;
    }
    m = memo_of(sh, l->client->uid);
    if (vanished) {
        m->level = m->level > 0 ? (uint8_t)(m->level - 1) : 0;
    } else if (m->skip == 0) { /* once for all that were held together */
        m->level = m->level < HOLD_LEVEL_MAX ? (uint8_t)(m->level + 1) : m->level;
        m->skip = (uint16_t)(1u << m->level);
    }
}

/* It is not held any longer. */
static void release(struct shard *sh, struct ticket *t)
{
    uint32_t old;

    list_remove(sh, t);
    old = atomic_fetch_or_explicit(&t->state, DUE, memory_order_acq_rel);
    if ((old & VANISHED) != 0) {
        return; /* the word of it is on its way */
    }
    memo_note(sh, t, false);
    if ((old & FINISHED) != 0) {
        submit(t, sh); /* its answer comes to this very thread: it is there until then */
    }
}

static void release_to(struct shard *sh, uint32_t number)
{
    while (sh->held != NULL && (int32_t)(sh->held->number - number) <= 0) {
        release(sh, sh->held);
    }
}

void ticket_hold(struct shard *sh, struct ticket *t, uint64_t publisher, bool may_vanish)
{
    struct hold_memo *m = memo_of(sh, publisher);

    if (t->slot == NULL) {
        return; /* answered at once: none of its tickets is held */
    }
    if (!may_vanish || m->skip > 0) {
        m->skip = (uint16_t)(m->skip - (may_vanish && m->skip > 0));
        if (t->slot->held != 0) {
            release_to(sh, t->slot->held);
        }
        return;
    }
    sh->held_number += sh->held_number == UINT32_MAX ? 2 : 1; /* 0 is none */
    t->holds = true;
    /* relaxed: nobody else has it yet. */
    atomic_store_explicit(&t->refs, 2, memory_order_relaxed);
    t->number = t->slot->held = sh->held_number;
    t->held_ms = sh->now_ms;
    list_append(sh, t);
}

void ticket_urgent(struct ticket_part *p)
{
    atomic_store_explicit(&p->ticket->urgent, true, memory_order_relaxed);
}

void ticket_keep(const struct out_msg *o)
{
    if (o->wait != NULL) {
        /* relaxed: this entry is live still, so nobody finds 0 meanwhile. */
        atomic_fetch_add_explicit(&o->wait->part->ticket->open, ONE_LIVE, memory_order_relaxed);
    }
}

static void origin_answered(struct shard *sh, struct ticket *t);

static void gone(struct shard *sh, struct ticket *t)
{
    if (t->is_held) {
        list_remove(sh, t);
    }
    memo_note(sh, t, true);
    t->rc = ST_OK;
    origin_answered(sh, t);
    ticket_unref(sh, t);
}

static void gone_mail(struct shard *sh, struct post_item *m)
{
    gone(sh, ((struct ticket_part *)m)->ticket);
}

/* All parts are finished and no entry is left. */
static void vanish(struct shard *sh, struct ticket *t)
{
    uint32_t state = atomic_load_explicit(&t->state, memory_order_relaxed);

    if (ticket_is_refused(t)) {
        return; /* an entry may be missing in the count; it is answered as failed */
    }
    do {
        if ((state & DUE) != 0) {
            return; /* too late: the removals follow its answer */
        }
    } while (!atomic_compare_exchange_weak_explicit(&t->state, &state, state | VANISHED,
                                                    memory_order_acq_rel, memory_order_relaxed));
    if (t->part[0].shard != sh) {
        t->part[0].mail.fn = gone_mail;
        post_send(&sh->post, &t->part[0].shard->post, &t->part[0].mail);
        return;
    }
    /* Not from within a packet or delivery: answered behind it, in this turn. */
    if (t->is_held) {
        list_remove(sh, t);
    }
    t->held_next = NULL;
    if (sh->gone == NULL) {
        sh->gone = t;
    } else {
        sh->gone_last->held_next = t;
    }
    sh->gone_last = t;
}

void ticket_run_gone(struct shard *sh)
{
    while (sh->gone != NULL) {
        struct ticket *t = sh->gone;
        sh->gone = t->held_next;
        gone(sh, t);
    }
}

static void hint_mail(struct shard *sh, struct post_item *m)
{
    struct ticket *t = (struct ticket *)((char *)m - offsetof(struct ticket, hint));

    if (t->is_held) {
        release_to(sh, t->number);
    }
    ticket_unref(sh, t);
}

/* By who finished last. empty: no entry is left. */
static void held_finished(struct shard *sh, struct ticket *t, bool empty)
{
    const uint32_t old = atomic_fetch_or_explicit(&t->state, FINISHED, memory_order_acq_rel);

    if ((old & VANISHED) != 0) {
        return;
    }
    if ((old & DUE) != 0) {
        submit(t, sh);
    } else if (empty) {
        vanish(sh, t);
    } else if (atomic_load_explicit(&t->urgent, memory_order_relaxed)) {
        if (t->part[0].shard == sh) {
            release_to(sh, t->number);
        } else {
            atomic_fetch_add_explicit(&t->refs, 1,
                                      memory_order_relaxed); /* the mail publishes it */
            t->hint.fn = hint_mail;
            post_send(&sh->post, &t->part[0].shard->post, &t->hint);
        }
    }
}

void ticket_expire(struct shard *sh)
{
    while (sh->held != NULL && sh->now_ms - sh->held->held_ms >= HOLD_MS) {
        release(sh, sh->held);
    }
}

int ticket_wait_ms(const struct shard *sh)
{
    int64_t left;

    if (sh->held == NULL) {
        return -1;
    }
    left = sh->held->held_ms + HOLD_MS - sh->now_ms;
    return left < 0 ? 0 : (int)left;
}

void ticket_flush(struct shard *sh)
{
    while (sh->held != NULL) {
        release(sh, sh->held);
    }
    ticket_flush_lazy(sh);
}

/* ---- finishing ---- */

/* Nobody waits for the answer here. */
static bool is_quiet(const struct ticket_part *p)
{
    const struct ticket *t = p->ticket;

    return p->waiting == NULL && !p->late_here && p->lates == NULL &&
           (p != &t->part[0] || (t->slot == NULL && t->slots == NULL && t->inbound == NULL &&
                                 t->moves == NULL && !t->retained));
}

/* p is finished; answers what is open then. */
static uint64_t open_change(struct ticket *t, const struct ticket_part *p)
{
    const uint64_t change = (t->holds ? p->nlive * ONE_LIVE : 0) - 1;
    uint64_t open;

    if (t->unsent) { /* relaxed: nobody else has it yet */
        t->unsent = p != &t->part[0];
        open = atomic_load_explicit(&t->open, memory_order_relaxed) + change;
        atomic_store_explicit(&t->open, open, memory_order_relaxed);
        return open;
    }
    /* acq_rel: releases this part's operations to the last one, who acquires them all. */
    return atomic_fetch_add_explicit(&t->open, change, memory_order_acq_rel) + change;
}

void ticket_finish(struct ticket_part *p)
{
    struct ticket *t = p->ticket;
    struct shard *sh = p->shard;
    uint64_t open;

    p->quiet = is_quiet(p);
    if (p == &t->part[0]) {
        t->unit.ops = p->ops;
        t->unit.nops = p->nops;
    }
    open = open_change(t, p);
    if ((uint32_t)open != 0) {
        return;
    }
    if (t->holds) {
        held_finished(sh, t, open == 0);
        ticket_unref(sh, t);
    } else {
        submit(t, sh);
    }
}

/* ---- parts on their way to their shard ---- */

static void parts_mail(struct shard *sh, struct post_item *m)
{
    struct ticket_part *p = (struct ticket_part *)m;
    uint32_t more = 0; /* that were counted beyond their item */
    bool is_first = true;

    while (p != NULL) {
        struct ticket_part *next = p->next;

        if (sh->budget <= 0) {
            next_turn(sh, p, parts_mail);
            break;
        }
        prefetch_ahead(p, is_first);
        is_first = false;
        if (next != NULL) {
            __builtin_prefetch(next->way.msg);
        }
        more += p->is_more;
        deliver_part(sh, p);
        p = next;
    }
    post_count_done(&sh->post, more);
}

void ticket_send(struct shard *sh, struct ticket_part *p, struct message *m, uint64_t filter)
{
    struct part_list *parts = &sh->onward[p->shard->index].parts;

    p->msg = m;
    p->way.msg = m;
    p->way.filter = filter;
    if (post_growing(&sh->post, &p->shard->post) == parts) {
        p->is_more = true;
        post_count_more(&sh->post, &p->shard->post);
        part_list_add(parts, p);
        return;
    }
    p->mail.fn = parts_mail;
    part_list_begin(parts, p);
    post_send(&sh->post, &p->shard->post, &p->mail);
    post_grow(&sh->post, &p->shard->post, parts);
}

/* ---- waiting messages ---- */

/* False: no memory. */
static bool wait_add(struct ticket_part *p, struct client *c, struct out_msg *o)
{
    struct out_wait *w = !p->late_here && p->wait.part == NULL ? &p->wait : malloc(sizeof(*w));

    if (w == NULL) {
        return false;
    }
    *w = (struct out_wait){.next = p->waiting, .part = p, .client = c, .out = o};
    if (p->waiting != NULL) {
        p->waiting->prev = w;
    }
    p->waiting = w;
    p->nlive++;
    o->wait = w;
    return true;
}

bool ticket_wait(struct ticket_part *p, struct client *c, struct out_msg *o)
{
    if (!wait_add(p, c, o)) {
        ticket_refuse(p);
        return false;
    }
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
    if (w == &w->part->wait) {
        w->part = NULL;
    } else {
        free(w);
    }
}

/* ---- the turn's changes ---- */

struct store_op *ticket_lazy(struct shard *sh, enum store_op_kind kind)
{
    struct store_op *op;

    if (!sh->keeps) {
        return NULL;
    }
    if (sh->lazy != NULL && sh->lazy->part[0].nops >= LAZY_MAX) {
        ticket_flush_lazy(sh);
    }
    if (sh->lazy == NULL) {
        sh->lazy = ticket_create(sh, 1, sh->lazy_n < 4 ? 4 : sh->lazy_n);
    }
    op = sh->lazy == NULL ? NULL : op_append(&sh->lazy->part[0]);
    if (op != NULL) {
        *op = (struct store_op){.kind = kind};
    }
    return op;
}

struct store_op *ticket_lazy_named(struct shard *sh, enum store_op_kind kind, const void *name,
                                   size_t n)
{
    struct store_op *op = ticket_lazy(sh, kind);
    void *copy;

    if (op == NULL) {
        return NULL;
    }
    copy = copy_room(sh->lazy, n);
    if (copy == NULL) {
        sh->lazy->part[0].nops--; /* without it; the others stay */
        return NULL;
    }
    memcpy(copy, name, n);
    op->name = (struct store_bytes){copy, n};
    return op;
}

bool ticket_lazy_wait(struct shard *sh, struct client *c, struct out_msg *o)
{
    if (!wait_add(&sh->lazy->part[0], c, o)) {
        sh->lazy->part[0].nops--; /* likewise */
        return false;
    }
    return true;
}

static bool slots_room(struct ticket *t)
{
    struct ticket_slots *s = t->slots;

    if (s == NULL || s->n == s->cap) {
        const uint32_t cap = s == NULL ? 8 : s->cap * 2;
        struct ticket_slots *more = realloc(s, sizeof(*s) + cap * sizeof(s->v[0]));
        if (more == NULL) {
            return false;
        }
        more->n = s == NULL ? 0 : more->n;
        more->cap = cap;
        t->slots = more;
        t->has_more = true;
    }
    return true;
}

void ticket_lazy_slot(struct shard *sh, struct link *l, struct ack_slot *s)
{
    struct ticket *t = sh->lazy;

    if (s == NULL) {
        return; /* no memory: being closed */
    }
    if (l->lazy_acks) {
        link_slot_ready(sh, s);
    } else if (t->slot == NULL) {
        t->slot = s;
    } else if (slots_room(t)) {
        t->slots->v[t->slots->n++] = s;
    } else {
        link_slot_failed(sh, s);
    }
}

void ticket_flush_lazy(struct shard *sh)
{
    struct ticket *t = sh->lazy;

    if (t != NULL) {
        sh->lazy = NULL;
        sh->lazy_n = t->part[0].nops;
        memset(sh->released, 0, sizeof(sh->released));
        ticket_finish(&t->part[0]);
    }
    ticket_flush_chain(sh);
}

/* A bit for an id: another one may share it, which costs a unit of its own at most. */
static uint64_t *released_bit(struct shard *sh, uint64_t session, uint16_t packet_id, uint64_t *bit)
{
    const uint32_t h =
        (uint32_t)(session * 0x9e3779b9u + packet_id) % (uint32_t)(sizeof(sh->released) * 8);

    *bit = (uint64_t)1 << h % 64;
    return &sh->released[h / 64];
}

void ticket_released(struct shard *sh, uint64_t session, uint16_t packet_id)
{
    uint64_t bit;
    uint64_t *word = released_bit(sh, session, packet_id, &bit);

    *word |= bit;
}

void ticket_before_inbound(struct shard *sh, uint64_t session, uint16_t packet_id)
{
    uint64_t bit;

    if ((*released_bit(sh, session, packet_id, &bit) & bit) != 0) {
        ticket_flush_lazy(sh);
    }
}

static void lazy_del(struct shard *sh, uint64_t session, uint64_t seq)
{
    struct store_op *op = ticket_lazy(sh, ST_ENTRY_DEL);

    if (op != NULL) { /* else an entry too many on disk: delivered again after a crash, with DUP */
        op->session = session;
        op->seq = seq;
    }
}

/* Room for something behind the ticket of o, when o waits no more. False: no memory. */
static bool late_room(const struct out_msg *o)
{
    struct ticket_part *p = o->wait->part;
    struct ticket_lates *l = p->lates;

    /* Its own place, or one that is free already. */
    if (o->wait == &p->wait || (!p->late_here && p->wait.part == NULL)) {
        return true;
    }
    if (l == NULL || l->n == l->cap) {
        const uint32_t cap = l == NULL ? 4 : l->cap * 2;
        struct ticket_lates *more = realloc(l, sizeof(*l) + cap * sizeof(l->v[0]));
        if (more == NULL) {
            return false;
        }
        more->n = l == NULL ? 0 : more->n;
        more->cap = cap;
        p->lates = more;
    }
    return true;
}

/* late_room() has said yes. The message waits no more. */
static void late_add(struct out_msg *o, struct ticket_late what)
{
    struct ticket_part *p = o->wait->part;

    ticket_forget(o); /* first: that may make the place for it */
    if (!p->late_here && p->wait.part == NULL) {
        p->late_here = true;
        p->late = what;
    } else {
        assert(p->lates != NULL && p->lates->n < p->lates->cap);
        p->lates->v[p->lates->n++] = what;
    }
}

static void run_late(struct shard *sh, const struct ticket_late *late)
{
    if (late->move != NULL) {
        ticket_finish(&late->move->part[0]);
    } else {
        lazy_del(sh, late->session, late->seq);
    }
}

/* Its ticket is with the store, or in our own chain: what we hand over comes behind it. */
static bool is_before_us(const struct shard *sh, struct ticket *t)
{
    if ((atomic_load_explicit(&t->state, memory_order_acquire) & CHAINED) == 0) {
        return false;
    }
    /* acquire: partner of ticket_flush_chain(). */
    return t->by == sh || atomic_load_explicit(&t->by->chains, memory_order_acquire) > t->chain;
}

void ticket_entry_del(struct shard *sh, const struct client *c, struct out_msg *o)
{
    struct ticket_part *p = o->wait == NULL ? NULL : o->wait->part;
    struct ticket *t = p == NULL ? NULL : p->ticket;

    if (!sh->keeps || o->seq == 0) {
        return;
    }
    if (t == NULL || is_before_us(sh, t)) {
        lazy_del(sh, client_session(c), o->seq);
        return;
    }
    /* Its ticket has not been handed over: behind it, when the answer comes; or both vanish. No
     * memory: as in lazy_del(). */
    if (late_room(o)) {
        late_add(o, (struct ticket_late){.session = client_session(c), .seq = o->seq});
    } else {
        ticket_forget(o);
    }
    if (t->holds &&
        atomic_fetch_sub_explicit(&t->open, ONE_LIVE, memory_order_acq_rel) == ONE_LIVE) {
        vanish(sh, t);
    }
}

bool ticket_may_move(const struct out_msg *o)
{
    return late_room(o);
}

void ticket_move(struct out_msg *o, struct ticket *move)
{
    late_add(o, (struct ticket_late){.move = move});
}

/* ---- the answer, on each part's shard ---- */

static void slot_answered(struct shard *sh, struct ack_slot *s, enum store_rc rc)
{
    if (rc == ST_OK) {
        link_slot_ready(sh, s);
    } else {
        link_slot_failed(sh, s);
    }
}

static void origin_answered(struct shard *sh, struct ticket *t)
{
    const bool declined = t->rc == ST_OK && is_declined(t);

    if (t->inbound != NULL) {
        struct in_id *e = idset_find(t->inbound, t->inbound_id);
        assert(e != NULL && e->ticket == t);
        if (t->rc == ST_OK && !declined) {
            e->ticket = NULL;
        } else { /* the next PUBLISH of that id is no repeat: nothing was taken */
            idset_remove(t->inbound, t->inbound_id);
        }
    }
    if (t->retained && t->rc == ST_OK) {
        retained_move_out(sh->b->retained, t->part[0].msg);
    }
    if (t->moves != NULL) {
        share_moved(sh, t->moves, t->rc == ST_OK);
    }
    if (t->slot != NULL) {
        if (declined) {
            t->slot->reason = RC_QUOTA_EXCEEDED;
        }
        slot_answered(sh, t->slot, (enum store_rc)t->rc);
    }
    for (uint32_t i = 0; t->slots != NULL && i < t->slots->n; i++) {
        slot_answered(sh, t->slots->v[i], (enum store_rc)t->rc);
    }
}

static void part_stored(struct shard *sh, struct ticket_part *p)
{
    const struct ticket *t = p->ticket;
    /* The first part's are steps of entries that the store has. */
    const bool refused = t->rc != ST_OK && p != &t->part[0];

    while (p->waiting != NULL) {
        struct out_msg *o = p->waiting->out;
        struct client *c = p->waiting->client;
        ticket_forget(o);
        if (refused) {
            outq_refused(sh, c, o, t->comes_again);
        } else {
            outq_stored(sh, c, o);
        }
    }
    if (p->late_here) {
        run_late(sh, &p->late);
    }
    for (uint32_t i = 0; p->lates != NULL && i < p->lates->n; i++) {
        run_late(sh, &p->lates->v[i]);
    }
}

static void part_answered(struct shard *sh, struct ticket_part *p)
{
    struct ticket *t = p->ticket;

    if (p != &t->part[0]) {
        part_stored(sh, p);
    } else {
        origin_answered(sh, t);
        for (uint32_t i = 0; i < t->nparts; i++) { /* all of the origin's */
            if (t->part[i].shard == sh) {
                part_stored(sh, &t->part[i]);
            }
        }
    }
    ticket_unref(sh, t);
}

static void parts_answered(struct shard *sh, struct post_item *m)
{
    struct ticket_part *p = (struct ticket_part *)m;
    bool is_first = true;
    uint32_t n = 0;

    while (p != NULL) {
        struct ticket_part *next = p->next; /* it may be freed */

        if (n++ == TURN_ANSWERS) {
            next_turn(sh, p, parts_answered);
            sh->budget = sh->budget < 0 ? sh->budget : 0; /* no more mail now */
            return;
        }

        prefetch_ahead(p, is_first);
        is_first = false;
        if (next != NULL && next->waiting != NULL) {
            __builtin_prefetch(next->waiting->out, 1);
            __builtin_prefetch(next->msg, 1);
        }
        part_answered(sh, p);
        p = next;
    }
}
