/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of a durable session beyond what memory should hold.
 *
 * In order of seq: in flight, queue (memory), [from, to) on disk only, fresh (memory, not reported
 * by the store yet). While anything is on disk or fresh, new entries go behind it. A fresh entry
 * that is reported and has nothing before it but the disk becomes part of the disk; with nothing on
 * disk and a client that reads it joins the queue.
 *
 * With a connection, pages are read whenever the queue runs low: the store's reader answers by
 * mail. A page never reaches beyond `to`, since only what was reported is certain to be seen by it,
 * and is not asked for while messages of shared groups are being handed on, which it might show.
 * Without a connection everything reported leaves memory, from the end forwards, so that what stays
 * is always a beginning.
 */
#include "server/shard/ticket.h"

#include <stdlib.h>

#define QUEUE_MEMORY                                                                               \
    1024u /* messages in the queue of a connected client before the rest goes to disk */
#define PAGE_ENTRIES 512u /* the largest page; the next one is asked for at half of it */
#define PAGE_LEAST   32u
#define PAGE_BYTES   512u   /* of bodies, for each entry asked for */
#define PLENTY       65536u /* messages in memory from which on pages are smaller */

struct page_mail {
    struct post_item mail;
    struct store_page page;
    struct shard *shard;
    struct client *client; /* NULL: the session has ended meanwhile */
    uint64_t to;           /* what had been reported when it was asked for: all of that is in it */
    bool sweeps;           /* it is looked through for what has expired */
};

static bool is_connected(const struct client *c)
{
    return c->link != NULL && c->link->state == LINK_OPEN;
}

bool spill_is_wanted(const struct shard *sh, const struct client *c)
{
    const struct outq *q = c->out;

    if (!sh->spills) {
        return false;
    }
    return !is_connected(c) || (q != NULL && (q->disk.count > 0 || q->disk.fresh.first != NULL ||
                                              q->queue.count >= QUEUE_MEMORY));
}

/* Drops the message from memory; its entry stays. Off its list already. */
static void to_disk(struct shard *sh, struct outq *q, struct out_msg *o)
{
    struct spill *d = &q->disk;

    d->count++;
    d->bytes += o->bytes;
    if (o->packet_id != 0) {
        d->inflight = true;
        q->inflight_bytes -= o->payload;
    }
    o->payload = 0;
    o->bytes = 0; /* stays accounted, as the disk's */
    o->packet_id = 0;
    shard_count(sh, METRIC_QUEUED_MESSAGES, 1); /* outq_destroy() takes one off */
    outq_destroy(sh, q, o);
}

void spill_settle(struct shard *sh, struct client *c)
{
    struct outq *q = c->out;

    while (q->disk.fresh.first != NULL && q->disk.fresh.first->wait == NULL) {
        struct out_msg *o = q->disk.fresh.first;

        out_list_remove(&q->disk.fresh, o);
        if (q->disk.count == 0 && is_connected(c) && q->queue.count < QUEUE_MEMORY) {
            out_list_append(&q->queue, o);
            continue;
        }
        if (q->disk.count == 0) {
            q->disk.from = o->seq;
        }
        q->disk.to = o->seq + 1;
        q->disk.late_count++;
        q->disk.late_bytes += o->bytes;
        to_disk(sh, q, o);
    }
}

/* From the end of a list to its front, as far as it is reported and joins what is on disk. False:
 * it does not all. */
static bool spill_list(struct shard *sh, struct outq *q, struct out_list *l)
{
    while (l->last != NULL) {
        struct out_msg *o = l->last;

        if (o->seq == 0 || o->wait != NULL) {
            return false; /* only in memory */
        }
        if (q->disk.count == 0) {
            q->disk.to = o->seq + 1;
        }
        q->disk.from = o->seq;
        if (l == &q->inflight) {
            outq_leave_flight(q, o);
        } else {
            out_list_remove(l, o);
        }
        to_disk(sh, q, o);
    }
    return true;
}

void spill_detached(struct shard *sh, struct client *c)
{
    struct outq *q = c->out;

    if (q->disk.count == 0 && q->disk.fresh.first != NULL) {
        return; /* what is not reported stands before it: settled when it is */
    }
    if (spill_list(sh, q, &q->queue)) {
        (void)spill_list(sh, q, &q->inflight);
    }
}

/* ---- reading back ---- */

static void page_arrived(struct shard *sh, struct post_item *m);

/* On the store's thread. */
static void page_done(struct store_page *p)
{
    struct page_mail *m = (struct page_mail *)((char *)p - offsetof(struct page_mail, page));

    m->mail.fn = page_arrived;
    post_deliver(&m->shard->post, &m->mail);
}

/* When thousands of sessions come back at once, each gets less at a time. */
static uint32_t page_entries(const struct shard *sh)
{
    uint32_t n = PAGE_ENTRIES;

    for (uint64_t many = PLENTY; sh->nmessages >= many && n > PAGE_LEAST; many *= 2) {
        n /= 4;
    }
    return n;
}

/* NULL: no memory. */
static struct page_mail *page_create(struct shard *sh, struct client *c, uint64_t from,
                                     uint32_t entries)
{
    struct page_mail *m = calloc(1, sizeof(*m));

    if (m != NULL) {
        m->shard = sh;
        m->client = c;
        m->page = (struct store_page){.done = page_done,
                                      .session = client_session(c),
                                      .from_seq = from,
                                      .max_entries = entries,
                                      .max_bytes = entries * PAGE_BYTES};
        m->to = c->out->disk.to;
    }
    return m;
}

/* Owns m. False: the store does not answer. */
static bool page_ask(struct shard *sh, struct client *c, struct page_mail *m)
{
    const uint32_t entries = m->page.max_entries;

    ticket_flush_lazy(sh); /* so that the page sees what this shard has removed */
    if (store_read(sh->b->store, &m->page) != ST_OK) {
        free(m);
        return false;
    }
    sh->nmessages += entries; /* until they are here, or are not */
    c->out->disk.page = m;
    return true;
}

void spill_read(struct shard *sh, struct client *c)
{
    struct outq *q = c->out;
    const uint32_t entries = page_entries(sh);
    struct page_mail *m;

    if (!sh->spills || q->disk.count == 0 || q->disk.page != NULL ||
        q->queue.count >= entries / 2 || !is_connected(c) || share_is_moving(c)) {
        return;
    }
    m = page_create(sh, c, q->disk.from, entries);
    if (m == NULL) { /* nothing may come to ask again: its client comes again */
        link_close(sh, c->link, RC_UNSPECIFIED_ERROR, "out of memory");
        return;
    }
    if (page_ask(sh, c, m)) {
        q->disk.late_count = 0;
        q->disk.late_bytes = 0;
    }
}

bool spill_sweep(struct shard *sh, struct client *c, uint64_t from)
{
    struct page_mail *m;

    if (!sh->spills || c->out->disk.page != NULL || share_is_moving(c)) {
        return false;
    }
    m = page_create(sh, c, from, page_entries(sh));
    if (m == NULL) {
        return false;
    }
    m->sweeps = true;
    return page_ask(sh, c, m);
}

struct message *spill_message(const struct store_entry *e)
{
    struct message *m =
        message_create(e->name.p, e->name.n, e->data.p, e->data.n, e->props.p, e->props.n);

    if (m != NULL) {
        m->qos = e->flags & 3;
        m->body_id = e->body;
        m->expires_ms = e->expires_ms;
    }
    return m;
}

/* The subscription identifiers of a message that matched several subscriptions, as they are now:
 * *n into the shard's scratch. False: no memory. */
static bool several_ids(struct shard *sh, const struct client *c, const struct message *m,
                        uint32_t *n)
{
    struct match *match = match_cache_get(sh->cache, message_topic(m), m->topic_n);

    *n = 0;
    for (uint32_t t = 0; match != NULL && t < match->ntargets; t++) {
        const struct match_target *target = &match->targets[t];
        if (target->shard != sh->index) {
            continue;
        }
        if (!shard_ids_room(sh, target->count)) {
            return false;
        }
        for (uint32_t i = 0; i < target->count; i++) {
            struct sub *s =
                subscribers_of_owner(sh->subs, (uintptr_t)c, match_ids(match)[target->first + i]);
            if (s != NULL && s->id != 0) {
                sh->ids[(*n)++] = s->id;
            }
        }
    }
    return match != NULL;
}

/* It is not on disk any more, and was accounted while it was. */
static void unaccount_entry(struct shard *sh, struct outq *q, uint64_t bytes)
{
    bytes = bytes < q->disk.bytes ? bytes : q->disk.bytes;
    q->disk.bytes -= bytes;
    q->bytes -= bytes;
    shard_count(sh, METRIC_QUEUED_BYTES, -(int64_t)bytes);
    shard_count(sh, METRIC_QUEUED_MESSAGES, -1);
}

void spill_drop_entry(struct shard *sh, struct client *c, const struct store_entry *e)
{
    struct store_op *op = ticket_lazy(sh, ST_ENTRY_DEL);

    if (op != NULL) { /* else it is found again, and dropped then */
        op->session = client_session(c);
        op->seq = e->seq;
    }
    unaccount_entry(sh, c->out,
                    sizeof(struct out_msg) + message_size_of(e->name.n, e->data.n, e->props.n));
}

/* One entry back into memory; false: no memory, the rest stays on disk. */
static bool take_entry(struct shard *sh, struct client *c, const struct store_entry *e,
                       uint64_t group)
{
    struct outq *q = c->out;
    struct message *m = spill_message(e);
    uint32_t id = e->number;
    struct encode as = {.msg = m,
                        .ids = &id,
                        .group = group,
                        .nids = id != 0,
                        .qos = e->flags & 3,
                        .retain = (e->flags & 4) != 0};
    struct out_msg *o;
    bool ok = m != NULL;

    if (ok && id == SUB_IDS_SEVERAL) {
        ok = several_ids(sh, c, m, &as.nids);
        as.ids = sh->ids;
    }
    o = ok ? outq_create(sh, q, &as) : NULL;
    if (o != NULL) {
        (void)outq_hold(o, &as); /* it is not lent */
    }
    if (m != NULL) {
        message_unref(m); /* the entry holds it now */
    }
    if (o == NULL) {
        return false;
    }
    o->seq = e->seq;
    o->sent = o->qos == 1 && e->seq < q->disk.maybe_sent_to;
    if (e->packet_id == 0) {
        q->disk.inflight = false; /* ids are given out in order: there are no more */
        out_list_append(&q->queue, o);
    } else if (!outq_put_inflight(q, o, e->packet_id, (e->step & 1) != 0)) {
        outq_destroy(sh, q, o);
        return false;
    }
    unaccount_entry(sh, q, o->bytes);
    return true;
}

/* Everything before `from` has been read: on disk are `count` entries, and what rounding left in
 * the books goes. */
static void disk_begins(struct shard *sh, struct outq *q, uint64_t from, uint64_t count,
                        uint64_t bytes)
{
    int64_t more = (int64_t)(bytes - q->disk.bytes);

    shard_count(sh, METRIC_QUEUED_BYTES, more);
    shard_count(sh, METRIC_QUEUED_MESSAGES, (int64_t)(count - q->disk.count));
    q->bytes += (uint64_t)more;
    q->disk.bytes = bytes;
    q->disk.count = count;
    q->disk.inflight = false;
    q->disk.from = from;
}

static void take_page(struct shard *sh, struct client *c, const struct page_mail *pm)
{
    const struct store_page *p = &pm->page;
    struct outq *q = c->out;
    bool complete = !p->more;
    uint32_t mark = 0; /* of the group found last: most pages have one at most */
    uint64_t group = 0;

    for (uint32_t i = 0; i < p->n; i++) {
        const struct store_entry *e = &p->entries[i];
        if (e->seq >= pm->to) {
            complete = true; /* of later ones it may have some and not others */
            break;
        }
        if (e->group != mark) {
            mark = e->group;
            group = mark == 0 ? 0 : share_of_mark(sh, c, mark);
        }
        if ((e->flags & 3) == 0 && e->seq < q->disk.maybe_sent_to) {
            spill_drop_entry(sh, c, e); /* at most once: a crash may have come behind its sending */
        } else if (!take_entry(sh, c, e, group)) {
            return; /* no memory: asked for again from here */
        }
        q->disk.from = e->seq + 1;
        q->disk.count -= q->disk.count > 0;
    }
    if (complete || q->disk.from >= pm->to) {
        disk_begins(sh, q, pm->to, q->disk.late_count, q->disk.late_bytes);
    }
}

static void page_arrived(struct shard *sh, struct post_item *m)
{
    struct page_mail *pm = (struct page_mail *)m;
    struct client *c = pm->client;

    sh->nmessages -= pm->page.max_entries;
    if (c != NULL) {
        struct outq *q = c->out;
        q->disk.page = NULL;
        if (pm->page.rc != ST_OK) {
            log_limited(sh->b->log, LOGL_ERROR, LOGR_STORE,
                        "client " CLIENT_FMT ": its queue cannot be read from the store",
                        CLIENT_ARGS(c));
            if (c->link != NULL) {
                link_close(sh, c->link, RC_IMPLEMENTATION_SPECIFIC, NULL);
            }
        } else if (pm->sweeps) {
            stale_swept(sh, c, &pm->page, pm->to);
            outq_pump(sh, c); /* it may have come meanwhile */
        } else if (is_connected(c)) {
            if (pm->page.from_seq == q->disk.from) { /* else the connection has changed since */
                take_page(sh, c, pm);
            }
            spill_settle(sh, c);
            outq_pump(sh, c);
        }
    }
    store_page_free(&pm->page);
    free(pm);
}

void spill_free(struct shard *sh, struct client *c)
{
    struct outq *q = c->out;

    while (q->disk.fresh.first != NULL) {
        struct out_msg *o = q->disk.fresh.first;
        out_list_remove(&q->disk.fresh, o);
        outq_destroy(sh, q, o);
    }
    disk_begins(sh, q, q->disk.to, 0, 0);
    if (q->disk.page != NULL) {
        q->disk.page->client = NULL;
        q->disk.page = NULL;
    }
}
