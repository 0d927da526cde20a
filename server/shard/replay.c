/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retained messages for new subscriptions, in slices: after their SUBACK, as fast as the client
 * takes them.
 *
 * A client with replays to come has a set, which is the shard's to go round: one step of its first
 * replay at a time. So a client with 100,000 of them is one entry there, and one that does not read
 * costs one look a turn.
 */
#include "server/shard/internal.h"

#include <stdlib.h>

#define QUEUE_HIGH 64u /* messages waiting in the session before its replays rest */
#define BATCH      32u
#define STEPS      64 /* of a turn, over all clients; most find few messages */
#define LOOK_COST  7  /* of a turn: a look at all stripes takes as long as so many copies */

struct replay {
    struct replay *next;
    struct retained_cursor *cursor;
    uint64_t filter_id;
    uint32_t sub_id;
    uint8_t qos;
};

struct replay_set {
    struct replay_set *next; /* in the shard's list */
    struct client *client;   /* NULL: the session has ended */
    struct replay *first, **last;
};

/* Most filters find nothing; that is seen here, so that no replay waits for its turn to see it. */
static bool finds_nothing(struct shard *sh, struct retained_cursor **c, const char *filter,
                          size_t n, uint64_t floor)
{
    struct message *m;
    bool done;

    if (retained_next(sh->b->retained, *c, sh->now_ms, &m, 1, &done) == 0) {
        return done;
    }
    message_unref(m);
    retained_cursor_destroy(*c); /* from the start again, when it is its turn */
    *c = retained_cursor_create(filter, n, floor);
    return false;
}

bool replay_create(struct shard *sh, struct sub *sub, struct replay **out)
{
    char *filter = (char *)sh->scratch + READ_SCRATCH;
    size_t n = sub_filter_text(sub, filter, TOPIC_TEXT_MAX);
    struct retained_cursor *c = retained_cursor_create(filter, n, sub->floor);
    struct replay *r;

    *out = NULL;
    sh->budget -= LOOK_COST;
    if (c != NULL && finds_nothing(sh, &c, filter, n, sub->floor)) {
        retained_cursor_destroy(c);
        return true;
    }
    r = c == NULL ? NULL : calloc(1, sizeof(*r));
    if (r == NULL) {
        retained_cursor_destroy(c);
        return false;
    }
    r->cursor = c;
    r->filter_id = filter_subs_id(sub->filter);
    r->sub_id = sub->id;
    r->qos = sub->qos;
    *out = r;
    return true;
}

static void replay_free(struct replay *r)
{
    retained_cursor_destroy(r->cursor);
    free(r);
}

void replay_append(struct replay ***last, struct replay *r)
{
    **last = r;
    *last = &r->next;
}

void replay_cancel_list(struct replay *list)
{
    while (list != NULL) {
        struct replay *next = list->next;
        replay_free(list);
        list = next;
    }
}

static void set_append(struct shard *sh, struct replay_set *s)
{
    s->next = NULL;
    *sh->replays_last = s;
    sh->replays_last = &s->next;
}

static struct replay_set *set_of(struct shard *sh, struct client *c)
{
    struct replay_set *s = c->replays;

    if (s == NULL) {
        s = calloc(1, sizeof(*s));
        if (s != NULL) {
            s->client = c;
            s->last = &s->first;
            c->replays = s;
            set_append(sh, s);
        }
    }
    return s;
}

void replay_start(struct shard *sh, struct client *c, struct replay *list)
{
    struct replay_set *s;

    if (list == NULL) {
        return;
    }
    s = set_of(sh, c);
    if (s == NULL) {
        shard_count(sh, METRIC_DROPPED_MEMORY, 1);
        replay_cancel_list(list);
        return;
    }
    *s->last = list;
    while (*s->last != NULL) {
        s->last = &(*s->last)->next;
    }
}

void replay_forget(struct client *c)
{
    if (c->replays != NULL) { /* freed when its turn comes */
        replay_cancel_list(c->replays->first);
        c->replays->first = NULL;
        c->replays->client = NULL;
        c->replays = NULL;
    }
}

static bool has_room(const struct shard *sh, const struct client *c)
{
    return c->link != NULL && c->link->state == LINK_OPEN && !link_is_full(sh, c->link) &&
           (c->out == NULL || c->out->queue.count < QUEUE_HIGH);
}

/* One batch of the first replay of the set, which goes when it is over. */
static void step(struct shard *sh, struct replay_set *s)
{
    struct replay *r = s->first;
    struct message *batch[BATCH];
    bool done = true;
    size_t n = 0;

    sh->budget--;
    /* An UNSUBSCRIBE meanwhile ends it. */
    if (subscribers_of_owner(sh->subs, (uintptr_t)s->client, r->filter_id) != NULL) {
        n = retained_next(sh->b->retained, r->cursor, sh->now_ms, batch, BATCH, &done);
    }
    for (size_t i = 0; i < n; i++) {
        struct copy c = {.client = s->client,
                         .qos = r->qos < batch[i]->qos ? r->qos : batch[i]->qos,
                         .retain = true, /* [MQTT-3.3.1-8] */
                         .nids = r->sub_id != 0,
                         .id = r->sub_id};
        sh->epoch++;
        sh->budget--;
        outq_offer(sh, NULL, batch[i], &c);
        message_unref(batch[i]);
    }
    if (done) {
        s->first = r->next;
        if (s->first == NULL) {
            s->last = &s->first;
        }
        replay_free(r);
    }
}

/* Steps of one set as far as it goes; *left counts them down. True: it could go on. */
static bool run_set(struct shard *sh, struct replay_set *s, int *left)
{
    while (s->first != NULL && has_room(sh, s->client)) {
        if (*left == 0 || sh->budget <= 0) {
            return true;
        }
        (*left)--;
        step(sh, s);
    }
    return false;
}

bool replay_run(struct shard *sh)
{
    struct replay_set *list = sh->replays;
    int left = STEPS;
    bool more = false;

    sh->replays = NULL;
    sh->replays_last = &sh->replays;
    while (list != NULL) {
        struct replay_set *s = list;

        list = s->next;
        if (s->client != NULL && s->first != NULL) {
            more = run_set(sh, s, &left) || more;
        }
        if (s->first != NULL) {
            set_append(sh, s);
            continue;
        }
        if (s->client != NULL) {
            s->client->replays = NULL;
        }
        free(s);
    }
    return more;
}

void replay_fini(struct shard *sh)
{
    while (sh->replays != NULL) {
        struct replay_set *s = sh->replays;
        sh->replays = s->next;
        replay_cancel_list(s->first);
        free(s);
    }
}
