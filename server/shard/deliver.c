/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One message to the subscribers of this shard.
 *
 * A session gets one copy at the highest QoS of its matching subscriptions, with all their
 * identifiers [COMPAT]. Few subscribers: they are collected first, each session marked, then
 * served. Many: filter by filter behind a cursor, a session being served at the first of the
 * filters it is in, so that the work can pause between any two.
 *
 * Order: what is paused is a job. While any filter of a later message has a job, that message
 * becomes a job behind it; other messages pass. So one topic stays in order, and a hot one does not
 * stop the rest.
 */
#include "server/shard/ticket.h"

#include <stdlib.h>

#define COLLECT_MAX 1024u /* subscriptions looked at in one go */
#define FILTERS_MAX 64u   /* matching filters held on the stack */

/* ---- scratch ---- */

static bool copies_room(struct shard *sh, uint32_t n)
{
    if (n > sh->copies_cap) {
        uint32_t cap = n < 64 ? 64 : n * 2;
        struct copy *p = realloc(sh->copies, cap * sizeof(*p));
        if (p == NULL) {
            return false;
        }
        sh->copies = p;
        sh->copies_cap = cap;
    }
    return true;
}

bool shard_ids_room(struct shard *sh, uint32_t n)
{
    if (n > sh->ids_cap) {
        uint32_t cap = n < 256 ? 256 : n * 2;
        uint32_t *p = realloc(sh->ids, cap * sizeof(*p));
        if (p == NULL) {
            return false;
        }
        sh->ids = p;
        sh->ids_cap = cap;
    }
    return true;
}

/* ---- one subscription's share ---- */

static struct client *client_of(const struct sub *s)
{
    return (struct client *)(uintptr_t)
        s->owner; // NOLINT(performance-no-int-to-ptr): owners are our clients
}

static bool wants(const struct sub *s, const struct message *m)
{
    if (m->number != 0 && m->number <= s->floor) {
        return false; /* the replay brings it */
    }
    return !s->no_local || client_of(s)->uid != m->origin; /* [MQTT-3.8.3-3] */
}

static uint8_t qos_for(const struct shard *sh, const struct sub *s, const struct message *m)
{
    if (sh->cfg->upgrade_outgoing_qos) {
        return s->qos;
    }
    return s->qos < m->qos ? s->qos : m->qos; /* [MQTT-3.8.4-8] */
}

static struct copy copy_of(const struct shard *sh, const struct sub *s, const struct message *m)
{
    return (struct copy){.client = client_of(s),
                         .qos = qos_for(sh, s, m),
                         .retain = m->retain && s->retain_as_published,
                         .nids = s->id != 0,
                         .id = s->id};
}

/* Another subscription of the same session: highest QoS, all identifiers. ids_at has room for max
 * more. */
static void merge(struct shard *sh, struct copy *c, const struct sub *s, const struct message *m,
                  uint32_t max)
{
    uint8_t qos = qos_for(sh, s, m);

    if (qos > c->qos) {
        c->qos = qos;
    }
    c->retain = c->retain || (m->retain && s->retain_as_published);
    if (s->id == 0) {
        return;
    }
    if (c->nids == 0) {
        c->id = s->id;
        c->nids = 1;
        return;
    }
    if (c->nids == 1) { /* a run of its own in the scratch, long enough for all filters */
        if (!shard_ids_room(sh, sh->ids_n + max)) {
            return;
        }
        c->ids_at = sh->ids_n;
        sh->ids_n += max;
        sh->ids[c->ids_at] = c->id;
    }
    sh->ids[c->ids_at + c->nids++] = s->id;
}

static void give(struct shard *sh, struct delivery *d, const struct copy *c)
{
    sh->budget--;
    outq_offer(sh, d, d->msg, c);
}

/* ---- few subscribers ---- */

static void collect(struct shard *sh, struct delivery *d, struct filter_subs *const *f, uint32_t nf,
                    uint32_t total)
{
    uint32_t n = 0;

    if (!copies_room(sh, total)) {
        shard_count(sh, METRIC_DROPPED_MEMORY, total);
        return;
    }
    sh->mark++;
    sh->ids_n = 0;
    for (uint32_t i = 0; i < nf; i++) {
        size_t end = filter_subs_end(f[i]);
        for (size_t pos = 0; pos < end; pos++) {
            struct sub *s = filter_subs_at(f[i], pos);
            struct client *c;
            if (s == NULL || !wants(s, d->msg)) {
                continue;
            }
            c = client_of(s);
            if (nf > 1 && c->mark == sh->mark) {
                merge(sh, &sh->copies[c->collected], s, d->msg, nf);
                continue;
            }
            c->mark = sh->mark;
            c->collected = n;
            sh->copies[n++] = copy_of(sh, s, d->msg);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        give(sh, d, &sh->copies[i]);
    }
}

static void single_filter(struct shard *sh, struct delivery *d, struct filter_subs *f)
{
    size_t end = filter_subs_end(f);

    if (end == 1 && d->owns) { /* who is the only one takes over the message */
        d->owns = false;
        d->spare = 1;
    } else if (end > 1 && d->msg->qos > 0) { /* counted once for all of them */
        message_ref(d->msg, (uint32_t)end);
        d->spare = (uint32_t)end;
    }
    for (size_t pos = 0; pos < end; pos++) {
        struct sub *s = filter_subs_at(f, pos);
        if (s != NULL && wants(s, d->msg)) {
            struct copy c = copy_of(sh, s, d->msg);
            give(sh, d, &c);
        }
    }
}

/* ---- many subscribers ---- */

static const uint64_t *filter_ids(const struct delivery *d, uint32_t *n)
{
    const struct match_target *t = &d->match->targets[d->target];

    *n = t->count;
    return d->match->ids + t->first;
}

/*
 * Keeps the subscriptions of all filters at their positions. By pointer, not by id: a filter whose
 * last subscription goes meanwhile is out of the table, and one that is subscribed to again is
 * another. False: no memory.
 */
static bool pin_all(struct shard *sh, struct delivery *d)
{
    uint32_t n;
    const uint64_t *ids = filter_ids(d, &n);

    d->pinned = malloc(n * sizeof(struct filter_subs *));
    if (d->pinned == NULL) {
        shard_count(sh, METRIC_DROPPED_MEMORY, 1);
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        d->pinned[i] = subscribers_of_filter(sh->subs, ids[i]);
        if (d->pinned[i] != NULL) {
            filter_subs_pin(d->pinned[i]);
        }
    }
    return true;
}

static void unpin_all(struct shard *sh, struct delivery *d)
{
    uint32_t n;

    (void)filter_ids(d, &n);
    for (uint32_t i = 0; d->pinned != NULL && i < n; i++) {
        if (d->pinned[i] != NULL) {
            filter_subs_unpin(sh->subs, d->pinned[i]);
        }
    }
    free(d->pinned);
    d->pinned = NULL;
}

/* Serves s's session if filter i is the first of the message's that it is in. */
static void give_first(struct shard *sh, struct delivery *d, const struct sub *s,
                       const uint64_t *ids, uint32_t i, uint32_t n)
{
    struct copy c = copy_of(sh, s, d->msg);

    for (uint32_t k = 0; k < n; k++) {
        struct sub *other = k == i ? NULL : subscribers_of_owner(sh->subs, s->owner, ids[k]);
        if (other == NULL || !wants(other, d->msg)) {
            continue;
        }
        if (k < i) {
            return;
        }
        merge(sh, &c, other, d->msg, n);
    }
    give(sh, d, &c);
}

/* Goes on at the cursor; true when all is done, false when the budget is used up. */
static bool run_cursor(struct shard *sh, struct delivery *d)
{
    uint32_t n;
    const uint64_t *ids = filter_ids(d, &n);

    for (; d->filter < n; d->filter++, d->pos = 0, d->end = 0) {
        struct filter_subs *f = d->pinned[d->filter];
        if (f == NULL) {
            continue;
        }
        if (d->end == 0) { /* who subscribes from now on is not among the receivers */
            d->end = (uint32_t)filter_subs_end(f);
        }
        while (d->pos < d->end) {
            struct sub *s;
            if (sh->budget <= 0) {
                return false;
            }
            s = filter_subs_at(f, d->pos++);
            if (s != NULL && wants(s, d->msg)) {
                sh->ids_n = 0;
                give_first(sh, d, s, ids, d->filter, n);
            }
        }
    }
    return true;
}

/* ---- deliveries ---- */

struct delivery *delivery_create(struct message *m, struct match *match, uint32_t target,
                                 struct ticket_part *part)
{
    struct delivery *d = malloc(sizeof(*d));

    if (d == NULL) {
        return NULL;
    }
    *d = (struct delivery){.mail.fn = deliver_mail,
                           .msg = m,
                           .match = match,
                           .target = target,
                           .part = part,
                           .owns = true};
    message_ref(m, 1);
    match_ref(match, 1);
    return d;
}

void delivery_unref(struct delivery *d)
{
    const uint32_t n = d->spare + d->owns;

    if (n > 0) {
        message_unref_many(d->msg, n);
    }
    d->spare = 0;
    d->owns = false;
}

void delivery_free(struct delivery *d)
{
    delivery_unref(d);
    match_unref(d->match);
    free(d);
}

static void part_done(const struct delivery *d)
{
    if (d->part != NULL) {
        ticket_finish(d->part);
    }
}

static void job_append(struct shard *sh, struct delivery *d)
{
    d->job_next = NULL;
    *sh->jobs_last = d;
    sh->jobs_last = &d->job_next;
}

/* Who is looked up for a delivery. */
struct found {
    struct filter_subs *f[FILTERS_MAX]; /* the first of them */
    uint32_t n;
    size_t total; /* subscriptions they hold */
    bool busy;    /* one of them has a job */
};

static void note_found(struct found *found, struct filter_subs *f)
{
    if (f == NULL) {
        return; /* gone since the match: skipped */
    }
    if (found->n < FILTERS_MAX) {
        found->f[found->n] = f;
    }
    found->n++;
    found->total += filter_subs_end(f);
    found->busy = found->busy || filter_subs_is_pinned(f);
}

/* The filters this shard still has. */
static void resolve(const struct shard *sh, const struct delivery *d, struct found *found)
{
    uint32_t n;
    const uint64_t *ids = filter_ids(d, &n);
    uint32_t *hints = d->match->hints + d->match->targets[d->target].first;
    struct filter_subs *f[FILTERS_MAX];

    found->n = 0;
    found->total = 0;
    found->busy = false;
    for (uint32_t at = 0; at < n; at += FILTERS_MAX) {
        uint32_t some = n - at < FILTERS_MAX ? n - at : FILTERS_MAX;

        subscribers_of_filters(sh->subs, ids + at, hints + at, some, f);
        for (uint32_t i = 0; i < some; i++) {
            note_found(found, f[i]);
        }
    }
}

/* True: done. False: has to go on later. */
static __attribute__((noinline)) bool deliver_to_any(struct shard *sh, struct delivery *d)
{
    struct found found;

    resolve(sh, d, &found);
    if (found.n == 0) {
        return true;
    }
    if (found.busy) {
        return !pin_all(sh, d); /* the next ones queue behind this one as well */
    }
    if (found.total <= COLLECT_MAX && found.n <= FILTERS_MAX) {
        if (found.n == 1) {
            single_filter(sh, d, found.f[0]);
        } else {
            collect(sh, d, found.f, found.n, (uint32_t)found.total);
        }
        return true;
    }
    if (pin_all(sh, d) && !run_cursor(sh, d)) {
        return false;
    }
    unpin_all(sh, d);
    return true;
}

/* Likewise; the usual case is one filter with few subscribers. */
static bool deliver_or_pause(struct shard *sh, struct delivery *d)
{
    const struct match_target *t = &d->match->targets[d->target];
    struct filter_subs *f;

    if (t->count == 1) {
        f = subscribers_of_filter(sh->subs, d->match->ids[t->first]);
        if (f == NULL) {
            return true;
        }
        if (!filter_subs_is_pinned(f) && filter_subs_end(f) <= COLLECT_MAX) {
            single_filter(sh, d, f);
            return true;
        }
    }
    return deliver_to_any(sh, d);
}

void deliver_now(struct shard *sh, struct delivery *d)
{
    struct delivery *job;

    if (deliver_or_pause(sh, d)) {
        part_done(d);
        return;
    }
    job = delivery_create(d->msg, d->match, d->target, d->part);
    if (job == NULL) { /* the rest of the subscribers cannot be remembered */
        shard_count(sh, METRIC_DROPPED_MEMORY, 1);
        unpin_all(sh, d);
        part_done(d);
        return;
    }
    job->filter = d->filter;
    job->pos = d->pos;
    job->end = d->end;
    job->pinned = d->pinned;
    job_append(sh, job);
}

void deliver_mail(struct shard *sh, struct shard_mail *m)
{
    struct delivery *d = (struct delivery *)m;

    if (d->own) {
        sh->self_pending--;
    }
    if (deliver_or_pause(sh, d)) {
        part_done(d);
        delivery_free(d);
    } else {
        job_append(sh, d);
    }
}

/* ---- runs ---- */

#define RUN_FIRST 3u  /* messages: with the header 64 bytes */
#define RUN_MAX   75u /* 640 */

static void run_mail(struct shard *sh, struct shard_mail *mail)
{
    struct run *r = (struct run *)mail;

    while (r->at < r->n) {
        struct delivery d = {
            .msg = r->msg[r->at], .match = r->match, .target = r->target, .owns = true};

        if (sh->budget <= 0) { /* goes on next turn, before what came behind it */
            mail->mail.next = sh->inbox;
            sh->inbox = &mail->mail;
            return;
        }
        r->at++;
        if (r->at + 1 < r->n) {
            message_prefetch(r->msg[r->at + 1]);
        }
        deliver_now(sh, &d);
        delivery_unref(&d);
    }
    if (r->n > 1) {
        atomic_fetch_sub_explicit(&sh->extra, r->n - 1, memory_order_relaxed);
    }
    match_unref(r->match);
    free(r);
}

static struct run *run_create(struct match *match, uint32_t target, uint32_t cap)
{
    struct run *r = malloc(sizeof(*r) + cap * sizeof(r->msg[0]));

    if (r != NULL) {
        *r = (struct run){.mail.fn = run_mail, .match = match, .target = target, .cap = cap};
        match_ref(match, 1);
    }
    return r;
}

bool run_send(struct shard *sh, struct shard *to, struct message *m, struct match *match,
              uint32_t target)
{
    struct outbox *box = &sh->outboxes[to->index];
    struct run *r = box->run;
    uint32_t cap = RUN_FIRST;

    if (r != NULL && r->match == match && r->target == target) {
        if (r->n < r->cap) {
            r->msg[r->n++] = m;
            box->extra++;
            return true;
        }
        cap = r->cap * 5 < RUN_MAX ? r->cap * 5 : RUN_MAX;
    }
    r = run_create(match, target, cap);
    if (r == NULL) {
        return false;
    }
    r->msg[r->n++] = m;
    shard_push(sh, to, &r->mail);
    box->run = r;
    return true;
}

/* ---- paused work ---- */

bool deliver_jobs(struct shard *sh)
{
    while (sh->jobs != NULL && sh->budget > 0) {
        struct delivery *d = sh->jobs;

        if (!run_cursor(sh, d)) {
            break;
        }
        sh->jobs = d->job_next;
        if (sh->jobs == NULL) {
            sh->jobs_last = &sh->jobs;
        }
        unpin_all(sh, d);
        part_done(d);
        delivery_free(d);
    }
    return sh->jobs != NULL;
}
