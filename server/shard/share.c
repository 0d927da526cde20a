/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared subscriptions: one member of a group gets the message.
 *
 * Happy path: the publishing shard picks the shard whose turn it is, that shard picks the member
 * whose turn it is there: connected ones with room first, then connected ones, then sessions
 * without a connection.
 *
 * Failure modes: no member here when the message arrives, or none connected while another shard has
 * one - it goes on to a shard it has not been to, at most once round; nobody left - dropped,
 * counted. What was not sent when its member goes, and QoS 1 in flight when its session ends, comes
 * through share_move() [MQTT-4.8.2-4 ff.]. What an ending session has on disk only is read in
 * pages; each message moves in one unit. Until the store has answered all of these, the session
 * stands there as one that is leaving: without a client id, so that its client may have a new one,
 * and found again by the next start.
 *
 * Another shard hands such a unit to the store. Until it is answered, a page of the session could
 * show the message again; so none is asked for meanwhile.
 */
#include "server/shard/ticket.h"

#include <stdlib.h>

#include "routing/topic.h"

struct share_delivery {
    struct post_item mail;
    struct message *msg; /* a reference */
    uint64_t group;
    struct ticket_part *part;
    bool own;     /* pushed by this very shard: counted in self_pending */
    bool tried[]; /* by shard */
};

static void share_mail(struct shard *sh, struct post_item *m);

static struct share_delivery *delivery_for(const struct shard *sh, struct message *m,
                                           uint64_t group, struct ticket_part *part)
{
    struct share_delivery *d = calloc(1, sizeof(*d) + sh->b->nshards * sizeof(bool));

    if (d != NULL) {
        d->mail.fn = share_mail;
        d->msg = m;
        d->group = group;
        d->part = part;
        message_ref(m, 1);
    }
    return d;
}

static void finish(struct share_delivery *d)
{
    if (d->part != NULL) {
        ticket_finish(d->part);
    }
    message_unref(d->msg);
    free(d);
}

static void send_to(struct shard *sh, struct share_delivery *d, unsigned shard)
{
    struct shard *to = sh->b->shards[shard];

    if (d->part != NULL) {
        d->part->shard = to;
    }
    d->own = to == sh;
    sh->self_pending += d->own;
    post_send(&sh->post, &to->post, &d->mail);
}

/* ---- picking a member ---- */

enum wish {
    IDLE_MEMBER,   /* connected, and would be sent it at once */
    ONLINE_MEMBER, /* connected */
    ANY_MEMBER,
};

static struct client *owner_of(const struct sub *s)
{
    return (struct client *)(uintptr_t)
        s->owner; // NOLINT(performance-no-int-to-ptr): owners are our clients
}

static bool suits(const struct shard *sh, const struct sub *s, const struct message *m, enum wish w)
{
    const struct client *c = owner_of(s);

    if (c->dying || (m->origin == c->uid && s->no_local)) {
        return false;
    }
    switch (w) {
    case IDLE_MEMBER:
        return outq_is_idle(sh, c);
    case ONLINE_MEMBER:
        return c->link != NULL && outq_has_room(sh, c, m);
    case ANY_MEMBER:
        return outq_has_room(sh, c, m);
    }
    return false;
}

static struct sub *pick_member(const struct shard *sh, struct filter_subs *f, uint32_t turn,
                               const struct message *m, enum wish most)
{
    size_t n = filter_subs_end(f);
    size_t first = n == 0 ? 0 : turn % n;

    for (enum wish w = IDLE_MEMBER; w <= most; w++) {
        for (size_t i = 0; i < n; i++) {
            struct sub *s = filter_subs_at(f, (first + i) % n);
            if (s != NULL && suits(sh, s, m, w)) {
                return s;
            }
        }
    }
    return NULL;
}

/* Gives it to one of ours; false: nobody here. */
static bool give(struct shard *sh, const struct share_delivery *d, uint32_t turn, enum wish most)
{
    struct filter_subs *f = subscribers_of_filter(sh->subs, d->group);
    struct delivery as = {.msg = d->msg, .part = d->part};
    struct copy c;
    struct sub *s;

    if (f == NULL) {
        return false;
    }
    s = pick_member(sh, f, turn, d->msg, most);
    if (s == NULL) {
        return false;
    }
    c = (struct copy){.client = owner_of(s),
                      .group = d->group,
                      .qos = delivery_qos(sh, s->qos, d->msg),
                      .retain = d->msg->retain && s->retain_as_published,
                      .nids = s->id != 0,
                      .id = s->id};
    sh->budget--;
    outq_offer(sh, &as, d->msg, &c);
    if (d->part != NULL) {
        ticket_took(d->part, 1, as.dropped);
    }
    return true;
}

/* On the shard that was picked. Owns d. */
static void deliver(struct shard *sh, struct share_delivery *d)
{
    struct share_group *g = shares_find(sh->b->shares, d->group);
    uint32_t turn;
    unsigned next;

    if (g == NULL) { /* its last member has left */
        shard_count(sh, METRIC_DROPPED_NO_MEMBER, 1);
        finish(d);
        return;
    }
    turn = shares_turn(g, sh->index); /* one for both tries: two would skip every other member */
    if (give(sh, d, turn, ONLINE_MEMBER)) {
        finish(d);
        return;
    }
    d->tried[sh->index] = true;
    if (shares_pick_other(g, d->tried, true, &next)) { /* online before offline */
        send_to(sh, d, next);
        return;
    }
    if (give(sh, d, turn, ANY_MEMBER)) {
        finish(d);
        return;
    }
    if (shares_pick_other(g, d->tried, false, &next)) {
        send_to(sh, d, next);
        return;
    }
    shard_count(sh, METRIC_DROPPED_NO_MEMBER, 1);
    if (d->part != NULL) {
        ticket_took(d->part, 1, 1); /* there are members, and none has room */
    }
    finish(d);
}

static void share_mail(struct shard *sh, struct post_item *m)
{
    struct share_delivery *d = (struct share_delivery *)m;

    if (d->own) {
        d->own = false;
        sh->self_pending--;
    }
    deliver(sh, d);
}

bool share_dispatch(struct shard *sh, struct share_group *g, struct message *m,
                    struct ticket_part *part, bool own_by_mail)
{
    struct share_delivery *d = delivery_for(sh, m, share_group_id(g), part);
    unsigned shard = sh->index;

    if (d == NULL) {
        return false;
    }
    if (!shares_pick(g, &shard)) {
        shard_count(sh, METRIC_DROPPED_NO_MEMBER, 1);
        if (part != NULL) {
            part->shard = sh;
        }
        finish(d);
        return true;
    }
    if (shard == sh->index && !own_by_mail) {
        if (part != NULL) {
            part->shard = sh;
        }
        deliver(sh, d);
    } else {
        send_to(sh, d, shard);
    }
    return true;
}

/* ---- members that go ---- */

bool share_has_others_online(const struct shard *sh, const struct client *c, uint64_t group)
{
    struct share_group *g = shares_find(sh->b->shares, group);
    struct filter_subs *f = g == NULL ? NULL : subscribers_of_filter(sh->subs, group);

    if (g == NULL) {
        return false;
    }
    if (shares_online_elsewhere(g, sh->index)) {
        return true;
    }
    for (size_t i = 0; f != NULL && i < filter_subs_end(f); i++) {
        const struct sub *s = filter_subs_at(f, i);
        if (s != NULL && owner_of(s) != c && owner_of(s)->link != NULL) {
            return true;
        }
    }
    return false;
}

/* The same content under a body id of its own: it is stored anew, with its new entry. */
static struct message *copy_of(struct shard *sh, const struct message *m)
{
    struct message *copy = message_create(message_topic(m), m->topic_n, message_payload(m),
                                          m->payload_n, message_props(m), m->props_n);

    if (copy != NULL) {
        copy->qos = m->qos;
        copy->retain = m->retain;
        copy->origin = m->origin;
        copy->expires_ms = m->expires_ms;
        copy->body_id = shard_body_id(sh);
    }
    return copy;
}

/*
 * What a stored session hands on. Its end takes all its entries away, so it is stored behind the
 * last of these: a crash between the two would lose a message.
 */
struct share_moves {
    uint64_t session;
    struct client *client;   /* NULL: it has ended */
    struct leaving *waiting; /* for its first page, until nothing is pending */
    uint32_t pending;        /* moves that are not answered yet */
    uint32_t refs;           /* of these, its queue, pages to come, share_end()'s */
    bool ends;               /* the last one to go stores the end */
    bool left;               /* a move was refused: its entry is on disk, in no list of ours */
};

static void leaving_begin(struct shard *sh, struct leaving *l);

/* A stored session has it already, or gets it. NULL: no memory. */
static struct share_moves *moves_of(struct client *c)
{
    struct outq *q = c->out;

    assert(c->stored);
    if (q->moves == NULL) {
        q->moves = malloc(sizeof(*q->moves));
        if (q->moves != NULL) {
            *q->moves = (struct share_moves){.session = client_session(c), .client = c, .refs = 1};
        }
    }
    return q->moves;
}

bool share_is_moving(const struct client *c)
{
    return c->out->moves != NULL && c->out->moves->pending > 0;
}

void share_forget(struct shard *sh, struct client *c)
{
    if (c->out->moves != NULL) {
        c->out->moves->client = NULL;
        share_unref(sh, c->out->moves);
        c->out->moves = NULL;
    }
}

void share_unref(struct shard *sh, struct share_moves *mv)
{
    struct store_op *op;

    if (mv == NULL || --mv->refs > 0) {
        return;
    }
    op = mv->ends ? ticket_lazy(sh, ST_SESSION_END) : NULL;
    if (op != NULL) {
        op->session = mv->session;
    }
    free(mv);
}

static void let_go(struct shard *sh, struct share_moves *mv, bool done)
{
    mv->ends = mv->ends && done; /* else the next start goes on with it */
    share_unref(sh, mv);
}

void share_moved(struct shard *sh, struct share_moves *mv, bool stored)
{
    struct leaving *l = mv->waiting;

    mv->left = mv->left || !stored;
    if (--mv->pending == 0 && l != NULL) {
        mv->waiting = NULL;
        leaving_begin(sh, l);
    } else if (mv->pending == 0 && mv->client != NULL) {
        spill_read(sh, mv->client);
    }
    let_go(sh, mv, stored);
}

/* The old entry (seq 0: none) goes and the new one comes in one unit. mv: NULL, or the session's.
 * NULL: no memory. */
static struct ticket *ticket_for_move(struct shard *sh, struct share_moves *mv, uint64_t session,
                                      uint64_t seq, struct message *m)
{
    struct ticket *t = ticket_create(sh, 2, 2);
    struct store_op *op;

    if (t == NULL) {
        return NULL;
    }
    t->moves = mv;
    if (mv != NULL) {
        mv->refs++;
        mv->pending++;
    }
    message_ref(m, 1);
    t->part[0].msg = m;
    ticket_body(&t->part[0], m);
    op = seq == 0 ? NULL : ticket_op(&t->part[0], ST_ENTRY_DEL);
    if (op != NULL) {
        op->session = session;
        op->seq = seq;
    }
    return t;
}

/* The move does not happen. */
static void cancel_move(struct shard *sh, struct ticket *t)
{
    ticket_refuse(&t->part[0]);
    t->part[1].shard = sh;
    ticket_finish(&t->part[1]);
    ticket_finish(&t->part[0]);
}

/* The message on its way as a copy, its entry in one unit with it. False: no memory. */
static bool move_kept(struct shard *sh, struct client *c, struct out_msg *o, struct share_group *g)
{
    const bool reported = o->wait == NULL || o->seq == 0;
    struct share_moves *mv = c->stored ? moves_of(c) : NULL;
    struct message *m;
    struct ticket *t;
    bool sent;

    if ((c->stored && mv == NULL) || (!reported && !ticket_may_move(o))) {
        return false;
    }
    m = copy_of(sh, o->msg);
    t = m == NULL ? NULL : ticket_for_move(sh, mv, client_session(c), o->seq, m);
    /* By mail always: this runs in the middle of a session's end. */
    sent = t != NULL && share_dispatch(sh, g, m, &t->part[1], true);
    if (m != NULL) {
        message_unref(m);
    }
    if (!sent) {
        if (t != NULL) {
            cancel_move(sh, t);
        }
        return false;
    }
    if (reported) {
        ticket_finish(&t->part[0]);
    } else {
        ticket_move(o, t);
    }
    o->seq = 0; /* its entry goes with the move */
    return true;
}

bool share_move(struct shard *sh, struct client *c, struct out_msg *o)
{
    struct share_group *g = shares_find(sh->b->shares, o->extra->group);

    if (g == NULL || sh->ending) {
        shard_count(sh, METRIC_DROPPED_NO_MEMBER, 1);
        return true;
    }
    if (sh->keeps && o->qos > 0 ? move_kept(sh, c, o, g)
                                : share_dispatch(sh, g, o->msg, NULL, true)) {
        return true;
    }
    if (c->out->moves != NULL) {
        c->out->moves->ends = false; /* the next start goes on with it */
    }
    if (c->dying && o->seq == 0) { /* and nobody with what is not stored */
        shard_count(sh, METRIC_DROPPED_MEMORY, 1);
    }
    return false;
}

/* ---- members that go, and what they have on disk ---- */

uint32_t share_mark(struct shard *sh, const struct client *c, uint64_t group)
{
    const struct sub *s = subscribers_of_owner(sh->subs, (uintptr_t)c, group);
    char *text = (char *)sh->scratch + READ_SCRATCH;

    return s == NULL ? 0 : store_group(text, sub_filter_text(s, text, TOPIC_TEXT_MAX));
}

uint64_t share_of_mark(struct shard *sh, const struct client *c, uint32_t mark)
{
    uint64_t group = 0;

    for (const struct sub *s = c->nshared == 0 ? NULL : c->subs.first; s != NULL;
         s = s->owner_next) {
        const uint64_t id = filter_subs_id(s->filter);
        if (s->shared && share_mark(sh, c, id) == mark) {
            if (group != 0) {
                return 0; /* two that look the same */
            }
            group = id;
        }
    }
    return group;
}

#define LEAVING_ENTRIES 64u
#define LEAVING_BYTES   (256u * 1024u)

struct membership {
    uint32_t mark; /* 0: not to be told from another */
    uint64_t group;
};

/* A session that has ended, page by page. */
struct leaving {
    struct post_item mail;
    struct store_page page;
    struct shard *shard;
    struct share_moves *moves;
    uint64_t from, to; /* what is on disk only */
    uint32_t n;
    struct membership of[];
};

static void leaving_page(struct shard *sh, struct post_item *m);

/* On the store's thread. */
static void leaving_done(struct store_page *p)
{
    struct leaving *l = (struct leaving *)((char *)p - offsetof(struct leaving, page));

    l->mail.fn = leaving_page;
    post_deliver(&l->shard->post, &l->mail);
}

static bool leaving_ask(struct shard *sh, struct leaving *l, uint64_t from)
{
    l->page = (struct store_page){.done = leaving_done,
                                  .session = l->moves->session,
                                  .from_seq = from,
                                  .max_entries = LEAVING_ENTRIES,
                                  .max_bytes = LEAVING_BYTES};
    ticket_flush_lazy(sh);
    return store_read(sh->b->store, &l->page) == ST_OK;
}

/* done: all pages have been seen; else the next start goes on with it. */
static void leaving_end(struct shard *sh, struct leaving *l, bool done)
{
    let_go(sh, l->moves, done);
    free(l);
}

static struct share_group *group_of(const struct shard *sh, const struct leaving *l, uint32_t mark)
{
    struct share_group *g = NULL;

    for (uint32_t i = 0; i < l->n && mark != 0; i++) {
        if (l->of[i].mark == mark) {
            if (g != NULL) {
                return NULL; /* two that look the same */
            }
            g = shares_find(sh->b->shares, l->of[i].group);
        }
    }
    return g;
}

/* A QoS 2 message that has a packet id may have been sent, and then never moves [MQTT-4.8.2-5]. */
static void move_stored(struct shard *sh, const struct leaving *l, const struct store_entry *e)
{
    struct share_group *g = group_of(sh, l, e->group);
    const bool may_move = (e->flags & 3) < 2 || e->packet_id == 0;
    struct message *m;
    struct ticket *t;

    if (e->group == 0 || !may_move || (e->expires_ms != 0 && e->expires_ms <= sh->now_ms)) {
        return;
    }
    if (g == NULL) {
        shard_count(sh, METRIC_DROPPED_NO_MEMBER, 1);
        return;
    }
    m = spill_message(e);
    if (m == NULL) {
        l->moves->ends = false; /* the next start goes on with it */
        return;
    }
    m->retain = (e->flags & 4) != 0;
    m->body_id = shard_body_id(sh); /* its body is another: the old one goes with the session */
    t = ticket_for_move(sh, l->moves, l->moves->session, e->seq, m);
    if (t != NULL && share_dispatch(sh, g, m, &t->part[1], true)) {
        ticket_finish(&t->part[0]);
    } else {
        l->moves->ends = false; /* likewise */
        if (t != NULL) {
            cancel_move(sh, t);
        }
    }
    message_unref(m);
}

static void leaving_page(struct shard *sh, struct post_item *m)
{
    struct leaving *l = (struct leaving *)m;
    const struct store_page *p = &l->page;
    uint64_t next = p->from_seq;
    bool more = p->more && p->n > 0;

    if (sh->ending || p->rc != ST_OK) {
        store_page_free(&l->page);
        leaving_end(sh, l, false);
        return;
    }
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->entries[i].seq >= l->to) { /* was in memory, and has moved from there */
            more = false;
            break;
        }
        move_stored(sh, l, &p->entries[i]);
        next = p->entries[i].seq + 1;
    }
    sh->budget -= p->n;
    store_page_free(&l->page);
    if (!more || !leaving_ask(sh, l, next)) {
        leaving_end(sh, l, !more);
    }
}

static void leaving_begin(struct shard *sh, struct leaving *l)
{
    if (sh->ending || !leaving_ask(sh, l, l->from)) {
        leaving_end(sh, l, false);
    }
}

/* What is on disk only, in pages. */
static void move_stored_pages(struct shard *sh, const struct client *c, struct share_moves *mv)
{
    struct leaving *l = malloc(sizeof(*l) + c->nshared * sizeof(l->of[0]));

    if (l == NULL) {
        mv->ends = false; /* the next start goes on with it */
        return;
    }
    mv->refs++;
    *l = (struct leaving){.shard = sh,
                          .moves = mv,
                          .from = mv->left ? 0 : c->out->disk.from,
                          .to = mv->left ? c->out->next_seq + 1 : c->out->disk.to};
    for (const struct sub *s = c->subs.first; s != NULL && l->n < c->nshared; s = s->owner_next) {
        if (s->shared) {
            const uint64_t id = filter_subs_id(s->filter);
            l->of[l->n++] = (struct membership){share_mark(sh, c, id), id};
        }
    }
    if (mv->pending > 0) {
        mv->waiting = l;
    } else {
        leaving_begin(sh, l);
    }
}

struct share_moves *share_end(struct shard *sh, struct client *c, bool *leaving)
{
    struct outq *q = c->out;
    struct share_moves *mv;
    bool in_memory;
    bool on_disk;

    *leaving = false;
    if (!sh->spills || sh->ending || !c->stored || q == NULL) {
        return NULL;
    }
    in_memory = c->nshared > 0 && q->inflight.count + q->queue.count + q->disk.fresh.count > 0;
    on_disk = c->nshared > 0 && (q->disk.count > 0 || (q->moves != NULL && q->moves->left));
    *leaving = in_memory || on_disk || (q->moves != NULL && q->moves->refs > 1);
    if (!*leaving) {
        return NULL; /* all that has been handed on is answered */
    }
    mv = moves_of(c);
    if (mv == NULL) {
        return NULL; /* no memory: the next start goes on with it */
    }
    mv->ends = true;
    mv->refs++;
    if (on_disk) {
        move_stored_pages(sh, c, mv);
    }
    return mv;
}

void share_end_op(struct store_op *op, uint64_t session, bool leaving)
{
    if (!leaving) {
        *op = (struct store_op){.kind = ST_SESSION_END, .session = session};
        return;
    }
    *op = (struct store_op){.kind = ST_SESSION_PUT,
                            .session = session,
                            .flags = SESSION_LEAVING,
                            .expires_ms = -1}; /* long ago; 0 stands for connected */
}

/* ---- membership ---- */

bool share_join(struct shard *sh, struct client *c, struct sub *sub, struct span filter)
{
    struct share_group *g = shares_join(sh->b->shares, filter_subs_id(sub->filter),
                                        (const char *)filter.p, filter.n, sh->index);

    if (g == NULL) {
        sub->shared = false; /* it did not join, and has nothing to leave */
        return false;
    }
    c->nshared++;
    if (c->link != NULL) {
        shares_online(g, sh->index, 1);
    }
    return true;
}

void share_set_online(struct shard *sh, struct client *c, bool online)
{
    if (c->nshared == 0) {
        return;
    }
    for (struct sub *s = c->subs.first; s != NULL; s = s->owner_next) {
        if (s->shared) {
            shares_online(shares_find(sh->b->shares, filter_subs_id(s->filter)), sh->index,
                          online ? 1 : -1);
        }
    }
}

void share_remove_sub(struct shard *sh, struct client *c, struct sub *sub)
{
    if (sub->shared) {
        struct share_group *g = shares_find(sh->b->shares, filter_subs_id(sub->filter));
        if (c->link != NULL) {
            shares_online(g, sh->index, -1);
        }
        shares_leave(sh->b->shares, g, sh->index);
        c->nshared--;
    }
    subscribers_remove(sh->subs, &c->subs, sub);
    shard_count(sh, METRIC_SUBSCRIPTIONS, -1);
}
