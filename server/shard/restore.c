/* SPDX-License-Identifier: Apache-2.0 */
#include "server/shard/restore.h"

#include "server/shard/ticket.h"

#include <stdlib.h>

#define WILL_GRACE_MS 10000 /* after a restart a will waits at least so long for its client */

/* Sessions by the store's id, while loading. */
struct entry {
    uint64_t session; /* 0: empty */
    struct client *client;
    struct shard *shard;
    int64_t disconnected_ms;
    int64_t will_ms;
};

struct restore {
    struct broker_shared *b;
    struct restored *sum;
    struct entry *table; /* open addressing, power of two */
    uint64_t cap, n;
    uint64_t last_retained;
};

static struct entry *find(const struct restore *r, uint64_t session)
{
    uint64_t i;

    if (r->cap == 0) {
        return NULL;
    }
    i = session * 0x9E3779B97F4A7C15u;
    for (i >>= 20;; i++) {
        struct entry *e = &r->table[i & (r->cap - 1)];
        if (e->session == session || e->session == 0) {
            return e;
        }
    }
}

static bool grow(struct restore *r)
{
    struct restore bigger = {.cap = r->cap == 0 ? 1024 : r->cap * 2};

    bigger.table = calloc(bigger.cap, sizeof(*bigger.table));
    if (bigger.table == NULL) {
        return false;
    }
    for (uint64_t i = 0; i < r->cap; i++) {
        if (r->table[i].session != 0) {
            *find(&bigger, r->table[i].session) = r->table[i];
        }
    }
    free(r->table);
    r->table = bigger.table;
    r->cap = bigger.cap;
    return true;
}

static struct entry *known(const struct restore *r, uint64_t session)
{
    struct entry *e = find(r, session);

    return e == NULL || e->session == 0 ? NULL : e;
}

/* The books of what is on disk; nothing of it is read before the client comes. */
static bool set_queue(struct shard *sh, struct client *c, const struct store_session *s)
{
    struct outq *q;

    if (s->count == 0 && s->next_seq <= 1) {
        return true;
    }
    q = outq_of(sh, c);
    if (q == NULL) {
        return false;
    }
    q->next_seq = s->next_seq == 0 ? 0 : s->next_seq - 1;
    if (s->count > 0) {
        q->disk.from = s->first_seq;
        q->disk.to = s->next_seq;
        q->disk.count = s->count;
        q->disk.bytes = s->bytes + s->count * sizeof(struct out_msg);
        q->disk.inflight = true;
        /* It was connected when the broker ended: its packet ids may not all have reached the disk.
         */
        q->disk.maybe_sent_to = (s->flags & SESSION_CONNECTED) != 0 ? s->next_seq : 0;
        q->bytes = q->disk.bytes;
        shard_count(sh, METRIC_QUEUED_MESSAGES, (int64_t)s->count);
        shard_count(sh, METRIC_QUEUED_BYTES, (int64_t)q->disk.bytes);
    }
    return true;
}

static bool add_session(void *arg, const struct store_session *s)
{
    struct restore *r = arg;
    struct span id = span_of(s->client_id.p, s->client_id.n);
    struct shard *sh = r->b->shards[broker_shard_of(r->b, id)];
    struct client *c;

    if (r->n * 2 >= r->cap && !grow(r)) {
        return false;
    }
    c = client_create(sh, id);
    if (c == NULL) {
        return false;
    }
    c->uid = s->session;
    c->stored = true;
    c->durable = true;
    c->version = s->flags & (uint8_t)~SESSION_CONNECTED;
    c->expiry_s = s->expiry_s;
    if (!set_queue(sh, c, s)) {
        return false;
    }
    *find(r, s->session) = (struct entry){.session = s->session,
                                          .client = c,
                                          .shard = sh,
                                          .disconnected_ms = s->disconnected_ms,
                                          .will_ms = INT64_MAX};
    r->n++;
    r->sum->sessions++;
    r->sum->queued += s->count;
    return true;
}

static bool add_sub(void *arg, uint64_t session, struct store_bytes filter, uint8_t flags,
                    uint32_t sub_id)
{
    struct restore *r = arg;
    struct entry *e = known(r, session);

    if (e == NULL) {
        return true;
    }
    r->sum->subs++;
    return subscription_restore(e->shard, e->client, span_of(filter.p, filter.n), flags, sub_id);
}

static bool add_inbound(void *arg, uint64_t session, uint16_t packet_id)
{
    struct entry *e = known(arg, session);

    return e == NULL || packet_id == 0 || idset_find(&e->client->in_ids, packet_id) != NULL ||
           idset_add(&e->client->in_ids, packet_id) != NULL;
}

static struct message *message_of(const struct store_op *op)
{
    struct message *m =
        message_create(op->name.p, op->name.n, op->data.p, op->data.n, op->props.p, op->props.n);

    if (m != NULL) {
        m->qos = op->flags & 3;
        m->expires_ms = op->expires_ms;
    }
    return m;
}

/* The will with its expiry, which stands behind its properties: see will_props(). NULL: no memory.
 */
static struct will *will_from(const struct store_op *op)
{
    struct will *w = calloc(1, sizeof(*w));
    struct store_op content = *op;

    if (w == NULL) {
        return NULL;
    }
    w->delay_s = op->number;
    w->expires = (op->flags & 8) != 0 && op->props.n >= WILL_EXPIRY_BYTES;
    if (w->expires) {
        const uint8_t *p = (const uint8_t *)op->props.p + op->props.n - 4;
        w->expiry_s = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        content.props.n -= WILL_EXPIRY_BYTES;
    }
    w->msg = message_of(&content);
    if (w->msg == NULL) {
        will_free(&w);
        return NULL;
    }
    w->msg->expires_ms = 0;
    w->msg->retain = (op->flags & 4) != 0;
    return w;
}

static bool add_will(void *arg, const struct store_op *op)
{
    struct restore *r = arg;
    struct entry *e = known(r, op->session);
    struct shard *first = r->b->shards[0];
    struct will *w = will_from(op);
    int64_t due;

    if (w == NULL) {
        return false;
    }
    r->sum->wills++;
    if (e == NULL) { /* its session was clean and has ended: sent, after the same grace */
        if (will_orphan(first, w, op->session, first->now_ms + WILL_GRACE_MS)) {
            return true;
        }
        will_free(&w);
        return false;
    }
    will_free(&e->client->will);
    e->client->will = w;
    due = e->disconnected_ms + (int64_t)op->number * 1000;
    e->will_ms = e->shard->now_ms + WILL_GRACE_MS;
    e->will_ms = due > e->will_ms ? due : e->will_ms;
    return true;
}

static bool add_retained(void *arg, const struct store_op *op)
{
    struct restore *r = arg;
    struct message *m = message_of(op);
    struct retained_stripe *s;
    enum retained_rc rc;

    if (m == NULL) {
        return false;
    }
    m->retain = true;
    m->number = op->seq;
    s = retained_lock(r->b->retained, message_topic(m), m->topic_n);
    rc = retained_put(s, m);
    retained_unlock(s);
    message_unref(m);
    if (op->seq > r->last_retained) {
        r->last_retained = op->seq;
    }
    r->sum->retained++;
    return rc != RETAINED_NOMEM;
}

enum store_rc shards_restore(struct broker_shared *b, struct restored *out)
{
    struct restore r = {.b = b, .sum = out};
    struct store_load load = {.arg = &r,
                              .session = add_session,
                              .sub = add_sub,
                              .inbound = add_inbound,
                              .will = add_will,
                              .retained = add_retained};
    enum store_rc rc;

    *out = (struct restored){0};
    rc = store_load(b->store, &load);
    for (uint64_t i = 0; i < r.cap; i++) {
        struct entry *e = &r.table[i];
        if (e->session != 0) {
            client_restored(e->shard, e->client, e->disconnected_ms, e->will_ms);
        }
    }
    retained_go_on_from(b->retained, r.last_retained);
    free(r.table);
    return rc;
}
