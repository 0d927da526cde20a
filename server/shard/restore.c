/* SPDX-License-Identifier: Apache-2.0 */
#include "server/shard/restore.h"

#include "server/shard/ticket.h"

#include <stdlib.h>

#define PROGRESS_MS    2000    /* a start that takes longer says so often how far it is */
#define RETAINED_BATCH 262144u /* retained messages that go into the index together */
#define PROGRESS_EVERY 16384u  /* records between two looks at the clock */

/* A session of the store, while loading. */
struct entry {
    uint64_t session;
    struct client *client;
    struct shard *shard;
    struct restored_times times;
};

struct restore {
    struct broker_shared *b;
    struct restored *sum;
    struct entry *v; /* ascending, as the store gives them */
    uint64_t cap, n;
    uint64_t at; /* of the session that was found last: what belongs to them comes in their order */
    struct message **batch; /* retained, each with a reference of ours; RETAINED_BATCH of room */
    size_t nbatch;
    uint64_t last_retained;
    uint64_t cut; /* retained messages with so many bytes stay on disk */
    uint64_t records, expected;
    int64_t told_ms;
};

/* One more record; says now and then how far it is. */
static void note_progress(struct restore *r)
{
    int64_t now_ms;

    if (++r->records % PROGRESS_EVERY != 0) {
        return;
    }
    now_ms = clock_now_ms(r->b->clock);
    if (now_ms - r->told_ms >= PROGRESS_MS) {
        r->told_ms = now_ms;
        log_info(r->b->log, "store: %llu of %llu records loaded", (unsigned long long)r->records,
                 (unsigned long long)r->expected);
    }
}

static bool grow(struct restore *r, uint64_t cap)
{
    struct entry *bigger = realloc(r->v, cap * sizeof(*bigger));

    if (bigger == NULL) {
        return false;
    }
    r->v = bigger;
    r->cap = cap;
    return true;
}

/* NULL: the session has ended, something of it was left. */
static struct entry *known(struct restore *r, uint64_t session)
{
    uint64_t lo = 0;
    uint64_t hi = r->n;

    for (unsigned near = 0; near < 2 && r->at < r->n; near++, r->at++) {
        if (r->v[r->at].session == session) {
            return &r->v[r->at];
        }
    }
    while (lo < hi) {
        const uint64_t mid = lo + (hi - lo) / 2;
        if (r->v[mid].session < session) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    r->at = lo;
    return lo < r->n && r->v[lo].session == session ? &r->v[lo] : NULL;
}

/* Tables get their size at once: growing would touch each session several times. */
static void expect(void *arg, const struct store_totals *t)
{
    struct restore *r = arg;
    const uint64_t each = t->sessions / r->b->nshards;

    r->expected = t->sessions + t->subs + t->retained;
    for (unsigned i = 0; i < r->b->nshards; i++) {
        clients_reserve(r->b->shards[i], each);
    }
    (void)grow(r, t->sessions > 0 ? t->sessions : 1); /* else it grows as they come */
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
        if (sh->cfg->max_queued_messages != 0 && s->count >= sh->cfg->max_queued_messages) {
            stale_note(sh, c, sh->now_ms + 1); /* what fills it may have expired */
        }
    }
    return true;
}

static bool add_session(void *arg, const struct store_session *s)
{
    struct restore *r = arg;
    struct span id = span_of(s->client_id.p, s->client_id.n);
    struct shard *sh = r->b->shards[broker_shard_of(r->b, id)];
    struct client *c;

    note_progress(r);
    if (r->n == r->cap && !grow(r, r->cap < 512 ? 1024 : r->cap * 2)) {
        return false;
    }
    c = client_create(sh, id);
    if (c == NULL) {
        return false;
    }
    c->uid = s->session;
    c->stored = true;
    c->durable = true;
    c->version = s->flags & SESSION_VERSION;
    c->expiry_s = s->expiry_s;
    if (!set_queue(sh, c, s)) {
        return false;
    }
    r->v[r->n++] = (struct entry){.session = s->session,
                                  .client = c,
                                  .shard = sh,
                                  .times = {.disconnected_ms = s->disconnected_ms,
                                            .will_ms = INT64_MAX,
                                            .leaving = (s->flags & SESSION_LEAVING) != 0,
                                            .was_connected = (s->flags & SESSION_CONNECTED) != 0}};
    r->sum->sessions++;
    r->sum->queued += s->count;
    return true;
}

static bool add_sub(void *arg, uint64_t session, struct store_bytes filter, uint8_t flags,
                    uint32_t sub_id)
{
    struct restore *r = arg;
    struct entry *e = known(r, session);

    note_progress(r);
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
    const int64_t grace_ms = (int64_t)first->cfg->will_grace * 1000;
    struct will *w = will_from(op);
    int64_t due;

    if (w == NULL) {
        return false;
    }
    r->sum->wills++;
    if (e == NULL) { /* its session was clean and has ended: sent, after the same grace */
        if (will_orphan(first, w, op->session, first->now_ms + grace_ms)) {
            return true;
        }
        will_free(&w);
        return false;
    }
    will_free(&e->client->will);
    e->client->will = w;
    due = e->times.disconnected_ms + (int64_t)op->number * 1000;
    e->times.will_ms = e->shard->now_ms + grace_ms;
    e->times.will_ms = due > e->times.will_ms ? due : e->times.will_ms;
    return true;
}

/* The references that were gathered go over to the index. */
static bool flush_retained(struct restore *r)
{
    bool ok = retained_put_all(r->b->retained, r->batch, r->nbatch);

    for (size_t i = 0; i < r->nbatch; i++) {
        message_unref(r->batch[i]);
    }
    r->nbatch = 0;
    return ok;
}

/* Above the size that stays in memory, only a stub. */
static struct message *retained_from(const struct restore *r, const struct store_op *op)
{
    const uint64_t body_n = (uint64_t)op->data.n + op->props.n;
    struct message *m;

    if (body_n < r->cut) {
        return message_of(op);
    }
    m = message_create_stub(op->name.p, op->name.n, body_n);
    if (m != NULL) {
        m->qos = op->flags & 3;
        m->expires_ms = op->expires_ms;
    }
    return m;
}

static bool add_retained(void *arg, const struct store_op *op)
{
    struct restore *r = arg;
    struct message *m;

    note_progress(r);
    if (r->batch == NULL) {
        r->batch = malloc(RETAINED_BATCH * sizeof(struct message *));
    }
    m = r->batch == NULL ? NULL : retained_from(r, op);
    if (m == NULL) {
        return false;
    }
    m->retain = true;
    m->number = op->seq;
    r->batch[r->nbatch++] = m;
    if (op->seq > r->last_retained) {
        r->last_retained = op->seq;
    }
    r->sum->retained++;
    return r->nbatch < RETAINED_BATCH || flush_retained(r);
}

enum store_rc shards_restore(struct broker_shared *b, struct restored *out)
{
    struct restore r = {.b = b, .sum = out, .told_ms = clock_now_ms(b->clock)};
    struct store_load load = {.arg = &r,
                              .totals = expect,
                              .session = add_session,
                              .sub = add_sub,
                              .inbound = add_inbound,
                              .will = add_will,
                              .retained = add_retained};
    const struct config *cfg = atomic_load_explicit(&b->config, memory_order_acquire);
    enum store_rc rc;

    *out = (struct restored){0};
    r.cut = cfg->retained_memory_size + 1;
    load.retained_cut = r.cut;
    retained_on_expiry(b->retained, kept_expired, b);
    rc = store_load(b->store, &load);
    if (r.batch != NULL && !flush_retained(&r) && rc == ST_OK) {
        rc = ST_NOMEM;
    }
    /* Of a part nothing may be concluded, and nothing stored: a session whose end goes on would
     * seem to have nothing to hand on. */
    for (uint64_t i = 0; rc == ST_OK && i < r.n; i++) {
        client_restored(r.v[i].shard, r.v[i].client, &r.v[i].times);
    }
    for (unsigned i = 0; i < b->nshards; i++) {
        ticket_flush_lazy(b->shards[i]); /* a shard may sleep long before its first turn ends */
    }
    retained_go_on_from(b->retained, r.last_retained);
    free(r.batch);
    free(r.v);
    return rc;
}
