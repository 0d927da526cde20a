/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retained messages for a new subscription, in slices: after its SUBACK, as fast as the client
 * takes them.
 */
#include "server/shard/internal.h"

#include <stdlib.h>

#define QUEUE_HIGH 64u /* messages waiting in the session before its replays rest */
#define BATCH      32u

struct replay {
    struct replay *next;        /* of one SUBACK, then in the shard's list */
    struct replay *client_next; /* of one client */
    struct client *client;      /* NULL: cancelled */
    struct retained_cursor *cursor;
    uint64_t filter_id;
    uint32_t sub_id;
    uint8_t qos;
};

struct replay *replay_create(struct shard *sh, struct client *c, struct sub *sub)
{
    struct replay *r = calloc(1, sizeof(*r));
    char *filter = sh->b->retained == NULL ? NULL : malloc(TOPIC_TEXT_MAX);
    size_t n;

    if (r == NULL || filter == NULL) {
        goto fail;
    }
    n = sub_filter_text(sub, filter, TOPIC_TEXT_MAX);
    r->cursor = retained_cursor_create(filter, n, sub->floor);
    if (r->cursor == NULL) {
        goto fail;
    }
    free(filter);
    r->client = c;
    r->filter_id = filter_subs_id(sub->filter);
    r->sub_id = sub->opts.id;
    r->qos = sub->opts.qos;
    r->client_next = c->replays;
    c->replays = r;
    return r;
fail:
    free(filter);
    free(r);
    return NULL;
}

static void leave_client(struct replay *r)
{
    struct replay **at;

    if (r->client == NULL) {
        return;
    }
    at = &r->client->replays;
    while (*at != r) {
        at = &(*at)->client_next;
    }
    *at = r->client_next;
    r->client = NULL;
}

static void replay_free(struct replay *r)
{
    leave_client(r);
    retained_cursor_destroy(r->cursor);
    free(r);
}

void replay_append(struct replay ***last, struct replay *r)
{
    **last = r;
    *last = &r->next;
}

void replay_start(struct shard *sh, struct replay *list)
{
    if (list == NULL) {
        return;
    }
    *sh->replays_last = list;
    while (*sh->replays_last != NULL) {
        sh->replays_last = &(*sh->replays_last)->next;
    }
}

void replay_cancel_list(struct replay *list)
{
    while (list != NULL) {
        struct replay *next = list->next;
        replay_free(list);
        list = next;
    }
}

void replay_forget(struct shard *sh, struct client *c)
{
    (void)sh;
    /* Those in a list are freed when their turn comes. */
    while (c->replays != NULL) {
        leave_client(c->replays);
    }
}

static bool has_room(const struct shard *sh, const struct client *c)
{
    return c->link != NULL && !link_is_full(sh, c->link) &&
           (c->out == NULL || c->out->queue.count < QUEUE_HIGH);
}

/* One batch; true: this replay is over. */
static bool step(struct shard *sh, struct replay *r)
{
    struct message *batch[BATCH];
    bool done = false;
    size_t n;

    /* An UNSUBSCRIBE meanwhile ends it. */
    if (r->client == NULL ||
        subscribers_of_owner(sh->subs, (uint64_t)(uintptr_t)r->client, r->filter_id) == NULL) {
        return true;
    }
    n = retained_next(sh->b->retained, r->cursor, sh->now_ms, batch, BATCH, &done);
    for (size_t i = 0; i < n; i++) {
        struct copy c = {.client = r->client,
                         .qos = r->qos < batch[i]->qos ? r->qos : batch[i]->qos,
                         .retain = true, /* [MQTT-3.3.1-8] */
                         .nids = r->sub_id != 0,
                         .id = r->sub_id};
        sh->epoch++;
        sh->budget--;
        outq_offer(sh, NULL, batch[i], &c);
        message_unref(batch[i]);
    }
    return done;
}

bool replay_run(struct shard *sh)
{
    struct replay *list = sh->replays;
    bool more = false;
    int left = TURN_REPLAY / BATCH;

    /* Each in its turn, those that are not over to the end of the list. */
    sh->replays = NULL;
    sh->replays_last = &sh->replays;
    while (list != NULL) {
        struct replay *r = list;
        bool over = false;

        list = r->next;
        r->next = NULL;
        if (r->client == NULL) {
            over = true;
        } else if (has_room(sh, r->client) && left > 0 && sh->budget > 0) {
            left--;
            over = step(sh, r);
            more = more || !over;
        } else {
            more = more || has_room(sh, r->client);
        }
        if (over) {
            replay_free(r);
        } else {
            replay_start(sh, r);
        }
    }
    return more;
}
