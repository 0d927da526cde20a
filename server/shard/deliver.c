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

/* ---- no memory ---- */

void delivery_lost(struct shard *sh, struct ticket_part *part, uint32_t n)
{
    shard_count(sh, METRIC_DROPPED_MEMORY, n);
    if (part != NULL) {
        ticket_refuse(part);
    }
}

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

uint8_t delivery_qos(const struct shard *sh, uint8_t granted, const struct message *m)
{
    if (sh->cfg->upgrade_outgoing_qos) {
        return granted;
    }
    return granted < m->qos ? granted : m->qos; /* [MQTT-3.8.4-8] */
}

static struct copy copy_of(const struct shard *sh, const struct sub *s, const struct message *m)
{
    return (struct copy){.client = client_of(s),
                         .qos = delivery_qos(sh, s->qos, m),
                         .retain = m->retain && s->retain_as_published,
                         .nids = s->id != 0,
                         .id = s->id};
}

static struct client *client_of_hint(uint64_t h)
{
    return (struct client *)(uintptr_t)hint_owner(
        h); // NOLINT(performance-no-int-to-ptr): owners are our clients
}

static bool hint_wants(uint64_t h, const struct message *m)
{
    return !hint_is_no_local(h) || client_of_hint(h)->uid != m->origin; /* [MQTT-3.8.3-3] */
}

static struct copy copy_of_hint(const struct shard *sh, uint64_t h, const struct message *m)
{
    return (struct copy){.client = client_of_hint(h),
                         .qos = delivery_qos(sh, hint_qos(h), m),
                         .retain = m->retain && hint_retains_as_published(h)};
}

/* Another subscription of the same session: highest QoS, all identifiers. ids_at has room for max
 * more. */
static void merge(struct shard *sh, const struct delivery *d, struct copy *c, const struct copy *s,
                  uint32_t max)
{
    if (s->qos > c->qos) {
        c->qos = s->qos;
    }
    c->retain = c->retain || s->retain;
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
            delivery_lost(sh, d->part, 1); /* as it should be; it goes with one of them */
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
    d->given++;
    outq_offer(sh, d, d->msg, c);
}

/* ---- few subscribers ---- */

/* False: no memory. */
static bool collect_begin(struct shard *sh, const struct delivery *d, uint32_t total)
{
    if (!copies_room(sh, total)) {
        delivery_lost(sh, d->part, total);
        return false;
    }
    sh->mark++;
    sh->ids_n = 0;
    return true;
}

/* The copy of one subscription joins the n that are there, or the one that its session has. */
static void collect_one(struct shard *sh, const struct delivery *d, const struct copy *one,
                        uint32_t *n, uint32_t nf)
{
    struct client *c = one->client;

    if (nf > 1 && c->mark == sh->mark) {
        merge(sh, d, &sh->copies[c->collected], one, nf);
        return;
    }
    c->mark = sh->mark;
    c->collected = *n;
    sh->copies[(*n)++] = *one;
}

static void give_collected(struct shard *sh, struct delivery *d, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        give(sh, d, &sh->copies[i]);
    }
}

static void collect(struct shard *sh, struct delivery *d, struct filter_subs *const *f, uint32_t nf,
                    uint32_t total)
{
    uint32_t n = 0;

    if (!collect_begin(sh, d, total)) {
        return;
    }
    for (uint32_t i = 0; i < nf; i++) {
        size_t end = filter_subs_end(f[i]);
        for (size_t pos = 0; pos < end; pos++) {
            struct sub *s = filter_subs_at(f[i], pos);
            if (s != NULL && wants(s, d->msg)) {
                struct copy one = copy_of(sh, s, d->msg);
                collect_one(sh, d, &one, &n, nf);
            }
        }
    }
    give_collected(sh, d, n);
}

/* Who is the only one takes over the message, if there is anything to take over. */
static void hand_on(struct delivery *d)
{
    if (d->owns) {
        d->owns = false;
        d->spare = 1;
    }
}

static void single_filter(struct shard *sh, struct delivery *d, struct filter_subs *f)
{
    size_t end = filter_subs_end(f);

    if (end == 1) {
        hand_on(d);
    } else if (end > 1 && d->msg->qos > 0 && !d->msg->lent) { /* counted once for all of them */
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

/* ---- the same subscribers as before ---- */

/* The subscriptions, where the match knows them: one for each filter. */
static const uint64_t *known_subs(const struct shard *sh, const struct delivery *d, uint32_t *n)
{
    const struct match_target *t = &d->match->targets[d->target];
    const uint64_t *hints = d->match->hints + t->first;

    *n = t->count;
    return d->msg->number == 0 && subscribers_know(sh->subs, hints, t->count, t->stamp) ? hints
                                                                                        : NULL;
}

static void give_known(struct shard *sh, struct delivery *d, const uint64_t *hints, uint32_t n)
{
    uint32_t collected = 0;

    if (n == 1) {
        hand_on(d);
        if (hint_wants(hints[0], d->msg)) {
            struct copy c = copy_of_hint(sh, hints[0], d->msg);
            give(sh, d, &c);
        }
        return;
    }
    if (!collect_begin(sh, d, n)) {
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (hint_wants(hints[i], d->msg)) {
            struct copy one = copy_of_hint(sh, hints[i], d->msg);
            collect_one(sh, d, &one, &collected, n);
        }
    }
    give_collected(sh, d, collected);
}

/* All filters of the target, in their order. Not from a retained message: none of them asks. */
static void learn_subs(const struct shard *sh, struct delivery *d, struct filter_subs *const *f)
{
    struct match_target *t = &d->match->targets[d->target];

    if (d->msg->number != 0) {
        return;
    }
    subscribers_learn(sh->subs, f, d->match->hints + t->first, t->count, &t->stamp);
}

/* ---- many subscribers ---- */

static const uint64_t *filter_ids(const struct delivery *d, uint32_t *n)
{
    const struct match_target *t = &d->match->targets[d->target];

    *n = t->count;
    return match_ids(d->match) + t->first;
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
        delivery_lost(sh, d->part, 1);
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        d->pinned[i] = subscribers_of_filter(sh->subs, ids[i]);
        if (d->pinned[i] != NULL) {
            filter_subs_pin(sh->subs, d->pinned[i]);
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
        struct copy more;
        struct sub *other = k == i ? NULL : subscribers_of_owner(sh->subs, s->owner, ids[k]);
        if (other == NULL || !wants(other, d->msg)) {
            continue;
        }
        if (k < i) {
            return;
        }
        more = copy_of(sh, other, d->msg);
        merge(sh, d, &c, &more, n);
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

struct message *delivery_own(struct delivery *d)
{
    struct message *m = d->msg;

    if (m->lent) {
        m = message_copy(m);
        if (m == NULL) {
            return NULL;
        }
        d->msg = m;
        d->owns = true;
    }
    return m;
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
        ticket_took(d->part, d->given, d->dropped);
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
    uint64_t *hints = d->match->hints + d->match->targets[d->target].first;
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

/* Served in one go, and nobody of an earlier message waits there. */
static bool is_short(const struct filter_subs *f)
{
    return !filter_subs_is_pinned(f) && filter_subs_end(f) <= COLLECT_MAX;
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
        if (found.n == d->match->targets[d->target].count) {
            learn_subs(sh, d, found.f);
        }
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

/* Likewise; the usual cases are who got the last message of this match, and one filter with few
 * subscribers. */
static bool deliver_or_pause(struct shard *sh, struct delivery *d)
{
    uint32_t n;
    const uint64_t *known = known_subs(sh, d, &n);
    struct filter_subs *f;

    if (known != NULL) {
        give_known(sh, d, known, n);
        return true;
    }
    if (n == 1) {
        f = subscribers_of_filter(sh->subs, *filter_ids(d, &n));
        if (f == NULL) {
            return true;
        }
        if (is_short(f)) {
            learn_subs(sh, d, &f);
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
    job = delivery_own(d) == NULL ? NULL : delivery_create(d->msg, d->match, d->target, d->part);
    if (job == NULL) { /* the rest of the subscribers cannot be remembered */
        delivery_lost(sh, d->part, 1);
        unpin_all(sh, d);
        part_done(d);
        return;
    }
    job->filter = d->filter;
    job->pos = d->pos;
    job->end = d->end;
    job->pinned = d->pinned;
    job->given = d->given;
    job->dropped = d->dropped;
    d->given++; /* who asks now does not know all yet */
    job_append(sh, job);
}

void deliver_part(struct shard *sh, struct ticket_part *p)
{
    struct delivery d = {.msg = p->way.msg, .part = p, .owns = true};
    const uint64_t id = p->way.filter;
    struct filter_subs *f = subscribers_of_filter(sh->subs, id);

    if (f == NULL) {
        part_done(&d);
    } else if (is_short(f)) {
        single_filter(sh, &d, f);
        part_done(&d);
    } else {
        d.match = match_of_filter(sh->index, TREE_DURABLE, id);
        if (d.match == NULL) {
            delivery_lost(sh, p, 1);
            part_done(&d);
        } else {
            deliver_now(sh, &d);
            match_unref(d.match);
        }
    }
    delivery_unref(&d);
}

void deliver_mail(struct shard *sh, struct post_item *m)
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

#define RUN_FIRST 512u  /* bytes of a run at least, header and all */
#define RUN_MAX   8192u /* at most: the allocator's small sizes */

/* Bytes from a message to the next. */
static uint32_t stride(const struct message *m)
{
    return ((uint32_t)message_size(m) + 7u) & ~7u;
}

void run_mail(struct shard *sh, struct post_item *mail)
{
    struct run *r = (struct run *)mail;

    while (r->at < r->used) {
        struct delivery d = {.msg = (struct message *)(void *)(r->data + r->at),
                             .match = r->match,
                             .target = r->target};

        if (sh->budget <= 0) { /* goes on next turn, before what came behind it */
            post_put_back(&sh->post, mail);
            return;
        }
        r->at += stride(d.msg);
        deliver_now(sh, &d);
        delivery_unref(&d);
    }
    post_count_done(&sh->post, r->n - 1);
    match_unref(r->match);
    free(r);
}

static struct run *run_create(struct match *match, uint32_t target, uint32_t size)
{
    struct run *r = malloc(size);

    if (r != NULL) {
        *r = (struct run){.mail.fn = run_mail,
                          .match = match,
                          .target = target,
                          .cap = size - (uint32_t)sizeof(*r)};
        match_ref(match, 1);
    }
    return r;
}

bool run_takes(const struct message *m)
{
    return message_size(m) <= LENT_MAX;
}

static void run_add(struct onward *on, const struct message *m)
{
    struct run *r = on->run;
    const uint32_t n = stride(m);
    uint8_t *at = r->data + r->used;

    /* The next one's place, which the other processor has had: it would be waited for. */
    for (uint32_t i = 0; i < n + 64; i += 64) {
        __builtin_prefetch(at + n + i, 1);
    }
    (void)message_lend_copy(at, m);
    r->used += n;
    r->n++;
    on->bytes += n;
}

/* Of the first run of a match: room for as many bytes as the match before it needed; for less each
 * time where that is less. */
static uint32_t first_size(struct onward *on)
{
    uint32_t size = on->size < RUN_FIRST ? RUN_FIRST : on->size;
    const uint32_t need = on->bytes + (uint32_t)sizeof(struct run);

    if (size > RUN_FIRST && need <= size / 2) {
        size /= 2;
    }
    while (size < RUN_MAX && need > size) {
        size *= 2;
    }
    on->size = size;
    on->bytes = 0;
    return size;
}

static bool run_begin(struct shard *sh, struct shard *to, struct match *match, uint32_t target,
                      uint32_t size)
{
    struct run *r = run_create(match, target, size);

    if (r == NULL) {
        return false;
    }
    post_send(&sh->post, &to->post, &r->mail);
    sh->onward[to->index].run = r;
    post_grow(&sh->post, &to->post, r);
    return true;
}

bool run_send(struct shard *sh, struct shard *to, const struct message *m, struct match *match,
              uint32_t target)
{
    struct onward *on = &sh->onward[to->index];
    struct run *r = post_growing(&sh->post, &to->post) == on->run ? on->run : NULL;
    uint32_t size;

    if (r != NULL && r->match == match && r->target == target) {
        if (r->cap - r->used >= stride(m)) {
            post_count_more(&sh->post, &to->post);
            run_add(on, m);
            return true;
        }
        size = (r->cap + (uint32_t)sizeof(*r)) * 2;
        size = size > RUN_MAX ? RUN_MAX : size;
    } else {
        size = first_size(on);
    }
    while (size - sizeof(*r) < stride(m)) {
        size *= 2;
    }
    if (!run_begin(sh, to, match, target, size)) {
        return false;
    }
    run_add(on, m);
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
