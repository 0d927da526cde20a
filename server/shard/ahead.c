/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking ahead: what the messages behind this one will need is fetched while this one is handled.
 *
 * With a million filters a message waits for memory a dozen times, one wait after the other: the
 * topic's place in the match cache, its match, and for each filter that matches the table's slot,
 * the filter's subscribers, the subscription, the client. Here the packets that stand in the read
 * buffer, and the deliveries that other shards have sent, go through these steps one step a
 * message: each asks for what the step before has brought. Nothing is changed or decided; what is
 * guessed wrong costs time only. Small brokers have it all at hand, and are not looked ahead in.
 */
#include "server/shard/internal.h"

#define WIDE_SUBS  4096u /* subscriptions that have no place in the processor's nearer caches */
#define FILTERS    16u   /* of a match, that are fetched */
#define MATCH_SIZE 192u  /* bytes: ten filters and a topic */

/* What is done for a message when so many more have come into sight. */
enum step {
    STEP_SEEN,
    STEP_MATCH,
    STEP_FILTER, /* this and the next two: enum subs_fetch */
    STEP_SUB,
    STEP_CLIENT,
    STEPS,
};
_Static_assert(STEPS == AHEAD, "a message is handled after the last step");

/* ---- of a match, one step after the other ---- */

static void fetch_client(uint64_t owner)
{
    const char *client = (const char *)(uintptr_t)owner; // NOLINT(performance-no-int-to-ptr)

    __builtin_prefetch(client);
    __builtin_prefetch(client + 64);
}

static void fetch_target(struct shard *sh, const struct match *m, const struct match_target *t,
                         enum step step)
{
    uint32_t n = t->count < FILTERS ? t->count : FILTERS;

    subscribers_fetch(sh->subs, match_ids(m) + t->first, m->hints + t->first, n,
                      (enum subs_fetch)(step - STEP_FILTER), fetch_client);
}

static void fetch_match(const struct match *m)
{
    for (size_t i = 0; i < MATCH_SIZE; i += 64) {
        __builtin_prefetch((const char *)m + i);
    }
}

/* ---- packets ---- */

bool ahead_is_worthwhile(const struct shard *sh)
{
    return match_cache_is_wide(sh->cache);
}

/* The topic of a PUBLISH; nothing of any other packet, or of what is no whole packet. */
static struct span topic_of(const struct frame *f)
{
    size_t n;

    if (f->type != MQTT_PUBLISH || f->body.n < 2) {
        return SPAN_NULL;
    }
    n = (size_t)f->body.p[0] << 8 | f->body.p[1];
    return n > f->body.n - 2 ? SPAN_NULL : span_of(f->body.p + 2, n);
}

static struct span next_topic(struct ahead *a)
{
    struct frame f;
    const char *why;

    if (a->left.n == 0 || frame_next(a->left, CONFIG_MAX_PACKET, &f, &why) != FRAME_OK) {
        a->left.n = 0;
        return SPAN_NULL;
    }
    a->left = span_of(a->left.p + f.total, a->left.n - f.total);
    return topic_of(&f);
}

/* The next packet joins; 0 for one that needs nothing. */
static uint64_t enter(const struct shard *sh, struct ahead *a)
{
    struct span t = next_topic(a);
    bool same = t.n == a->topic.n && t.n > 0 && memcmp(t.p, a->topic.p, t.n) == 0;

    a->topic = t;
    return t.n == 0 || same ? 0 : match_cache_fetch(sh->cache, (const char *)t.p, t.n);
}

static void fetch_for(struct shard *sh, uint64_t hash, enum step step)
{
    const struct match *m = hash == 0 ? NULL : match_cache_peek(sh->cache, hash);

    if (m == NULL) {
        return;
    }
    if (step == STEP_MATCH) {
        fetch_match(m);
        return;
    }
    for (uint32_t i = 0; i < m->ntargets; i++) {
        if (m->targets[i].shard == sh->index) {
            fetch_target(sh, m, &m->targets[i], step);
        }
    }
}

void ahead_step(struct shard *sh, struct ahead *a)
{
    a->hash[a->n % AHEAD] = enter(sh, a);
    for (unsigned step = STEP_MATCH; step < STEPS; step++) {
        fetch_for(sh, a->hash[(a->n + AHEAD - step) % AHEAD], (enum step)step);
    }
    a->n++;
}

void ahead_begin(struct shard *sh, struct ahead *a, struct span in)
{
    *a = (struct ahead){.left = in};
    for (unsigned i = 0; i < AHEAD; i++) {
        ahead_step(sh, a);
    }
}

/* ---- mail ---- */

bool ahead_of_mail_is_worthwhile(const struct shard *sh)
{
    return subscribers_count(sh->subs) >= WIDE_SUBS;
}

/* Of a delivery or a run; false: neither. */
static bool look_into(const struct mail *mail, const struct match **match, uint32_t *target,
                      const struct message **msg)
{
    const struct delivery *d = (const struct delivery *)mail;
    const struct run *r = (const struct run *)mail;

    if (mail != NULL && d->mail.fn == deliver_mail) {
        *match = d->match;
        *target = d->target;
        *msg = d->msg;
        return true;
    }
    if (mail != NULL && r->mail.fn == run_mail) {
        *match = r->match;
        *target = r->target;
        *msg = (const struct message *)(const void *)(r->data + r->at);
        return true;
    }
    return false;
}

static void fetch_for_mail(struct shard *sh, const struct mail *mail, enum step step)
{
    const struct match *match;
    const struct message *msg;
    uint32_t target;

    if (!look_into(mail, &match, &target, &msg)) {
        return;
    }
    if (step == STEP_MATCH) {
        __builtin_prefetch(msg);
        __builtin_prefetch((const char *)msg + 64);
        fetch_match(match);
    } else {
        fetch_target(sh, match, &match->targets[target], step);
    }
}

static void see(struct ahead_mail *a, const struct mail *mail)
{
    __builtin_prefetch(mail);
    __builtin_prefetch((const char *)mail + 64);
    a->last = mail;
    a->mail[a->n % AHEAD] = mail;
}

void ahead_mail_step(struct shard *sh, struct ahead_mail *a)
{
    see(a, a->last == NULL ? NULL : a->last->next);
    for (unsigned step = STEP_MATCH; step < STEPS; step++) {
        fetch_for_mail(sh, a->mail[(a->n + AHEAD - step) % AHEAD], (enum step)step);
    }
    a->n++;
}

void ahead_mail_begin(struct shard *sh, struct ahead_mail *a, const struct mail *first)
{
    *a = (struct ahead_mail){0};
    see(a, first);
    a->n++;
    for (unsigned i = 1; i < AHEAD; i++) {
        ahead_mail_step(sh, a);
    }
}
