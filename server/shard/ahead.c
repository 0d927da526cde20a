/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking ahead: what the messages behind this one will need is fetched while this one is handled.
 *
 * With a million filters a message waits for memory a dozen times, one wait after the other: the
 * topic's place in the match cache, its match, and for each filter that matches what the match does
 * not know of it: the filter's subscribers, the subscription; then the client. Here the packets
 * that stand in the read buffer go through these steps, some of them together, before the first of
 * them is handled; the deliveries that other shards have sent, which are a list, one step a
 * message. Each step asks for what the step before has brought. Nothing is changed or decided; what
 * is guessed wrong costs time only. Small brokers have it all at hand, and are not looked ahead in.
 */
#include "server/shard/internal.h"

#define WIDE_SUBS  4096u /* subscriptions that have no place in the processor's nearer caches */
#define FILTERS    16u   /* of a match, that are fetched */
#define MATCH_SIZE 192u  /* bytes: all but the ids, with ten filters and a topic */
#define TOGETHER   16u   /* packets: about as many fetches as a core can have under way */
#define FEW        2u    /* receivers, whose connections are fetched as well */

/* What is done for a message of the mail when so many more have come into sight. */
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

static void fetch_lines(const void *p, unsigned lines)
{
    for (unsigned i = 0; i < lines; i++) {
        __builtin_prefetch((const char *)p + i * 64u);
    }
}

static void fetch_client(uint64_t owner)
{
    fetch_lines((const void *)(uintptr_t)owner, 2); // NOLINT(performance-no-int-to-ptr)
}

/* Of clients that are there: the hints hold. */
static void fetch_connections(const uint64_t *hints, uint32_t n)
{
    for (uint32_t i = 0; i < n && n <= FEW; i++) {
        const struct client *c = (const struct client *)(uintptr_t)hint_owner(
            hints[i]); // NOLINT(performance-no-int-to-ptr)

        fetch_lines(c->link, 3);
        fetch_lines(c->out, 2);
    }
}

/* What is known needs two steps, the rest three. */
static void fetch_target(struct shard *sh, const struct match *m, const struct match_target *t,
                         enum step step)
{
    uint32_t n = t->count < FILTERS ? t->count : FILTERS;
    const uint64_t *hints = m->hints + t->first;

    if (!subscribers_know(sh->subs, hints, t->count, t->stamp)) {
        subscribers_fetch(sh->subs, match_ids(m) + t->first, hints, n,
                          (enum subs_fetch)(step - STEP_FILTER), fetch_client);
    } else if (step == STEP_FILTER) {
        subscribers_fetch(sh->subs, NULL, hints, n, SUBS_FETCH_OWNER, fetch_client);
    } else if (step == STEP_SUB) {
        fetch_connections(hints, t->count);
    }
}

static void fetch_match(const struct match *m)
{
    fetch_lines(m, MATCH_SIZE / 64u);
}

/* ---- packets ---- */

bool ahead_is_worthwhile(const struct shard *sh)
{
    return match_cache_is_wide(sh->cache);
}

/* What packets of the buffer need that stand one behind the other. */
struct group {
    uint64_t hash[TOGETHER];
    const struct match *match[TOGETHER];
    unsigned nmatches;
};

static bool next_packet(struct ahead *a, struct frame *f)
{
    const char *why;

    if (a->left.n == 0 || frame_next(a->left, CONFIG_MAX_PACKET, f, &why) != FRAME_OK) {
        a->left.n = 0;
        return false;
    }
    a->left = span_of(a->left.p + f->total, a->left.n - f->total);
    return true;
}

static void note_topic(const struct shard *sh, struct ahead *a, struct span body, struct group *g)
{
    size_t n = (size_t)body.p[0] << 8 | body.p[1];
    struct span t = n > body.n - 2 ? SPAN_NULL : span_of(body.p + 2, n);
    bool same = t.n == a->topic.n && t.n > 0 && memcmp(t.p, a->topic.p, t.n) == 0;

    a->topic = t;
    if (t.n > 0 && !same) {
        g->hash[g->nmatches++] = match_cache_fetch(sh->cache, (const char *)t.p, t.n);
    }
}

/* Returns how many packets it has looked at. */
static unsigned gather(const struct shard *sh, struct ahead *a, struct group *g)
{
    unsigned n = 0;
    struct frame f;

    for (; n < TOGETHER && next_packet(a, &f); n++) {
        if (f.body.n >= 2 && f.type == MQTT_PUBLISH) {
            note_topic(sh, a, f.body, g);
        }
    }
    return n;
}

/* Nothing comes between the steps: what the cache has stays there. */
static void fetch_matches(const struct shard *sh, struct group *g)
{
    unsigned n = 0;

    for (unsigned i = 0; i < g->nmatches; i++) {
        const struct match *m = match_cache_peek(sh->cache, g->hash[i]);

        if (m != NULL) {
            fetch_match(m);
            g->match[n++] = m;
        }
    }
    g->nmatches = n;
}

static void fetch_own_target(struct shard *sh, const struct match *m, enum step step)
{
    for (uint32_t i = 0; i < m->ntargets; i++) {
        if (m->targets[i].shard == sh->index) {
            fetch_target(sh, m, &m->targets[i], step);
        }
    }
}

static void fetch_topics(struct shard *sh, struct group *g)
{
    fetch_matches(sh, g);
    for (unsigned step = STEP_FILTER; step <= STEP_CLIENT; step++) {
        for (unsigned i = 0; i < g->nmatches; i++) {
            fetch_own_target(sh, g->match[i], (enum step)step);
        }
    }
}

void ahead_begin(struct ahead *a, struct span in)
{
    *a = (struct ahead){.left = in};
}

void ahead_step(struct shard *sh, struct ahead *a)
{
    struct group g;

    if (a->seen > 0) {
        a->seen--;
        return;
    }
    g.nmatches = 0;
    a->seen = gather(sh, a, &g);
    a->seen -= a->seen > 0; /* the one that is about to be handled */
    if (g.nmatches > 0) {
        fetch_topics(sh, &g);
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
