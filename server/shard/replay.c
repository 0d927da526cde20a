/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retained messages for new subscriptions, in slices: after their SUBACK, as fast as the client
 * takes them.
 *
 * A client with replays to come has a set, which is the shard's to go round: one step of its first
 * replay at a time. So a client with 100,000 of them is one entry there, and one that does not read
 * costs one look a turn.
 *
 * Stubs among the messages found make a batch: the store's reader fetches their bodies, as many as
 * FETCH_BYTES allow, while the set rests; then all of them are sent, in the order in which they
 * were found. Meanwhile a message may have been replaced, and its successor, whose number is above
 * the replay's, may have been sent already as a live one: what is not the message of its topic any
 * more is left out. It is asked in the same turn in which it is sent; a live message that replaces
 * it later comes by later mail.
 *
 * Failure modes: the session ends or unsubscribes while a batch is under way - the answer is
 * dropped; the store cannot read - the connection is closed, as for queues.
 */
#include "server/shard/internal.h"

#include <stdlib.h>

#define QUEUE_HIGH  64u /* messages waiting in the session before its replays rest */
#define BATCH       32u
#define STEPS       64 /* of a turn, over all clients; most find few messages */
#define LOOK_COST   7  /* of a turn: a look at all stripes takes as long as so many copies */
#define FETCH_BYTES (256u * 1024u) /* of bodies read together; one is always */

struct replay {
    struct replay *next;
    struct retained_cursor *cursor;
    struct message *first; /* found when the subscription was made, a reference; NULL: none */
    uint64_t filter_id;
    uint32_t sub_id;
    uint8_t qos;
};

/* Messages of the index, stubs among them, on their way to one client. */
struct batch {
    struct post_item mail;
    struct store_fetch fetch;
    struct shard *shard;
    struct replay_set *set; /* NULL: the session has ended meanwhile */
    bool under_way;
    bool last;                     /* the replay is over behind it */
    uint32_t n, at;                /* messages, of these sent or left out */
    uint32_t ready;                /* up to here the bodies are there, or will be with the answer */
    struct message *msg[BATCH];    /* a reference each, up to `at` given back */
    struct store_kept kept[BATCH]; /* bodies of the stubs among [at, ready) */
};

struct replay_set {
    struct replay_set *next; /* in the shard's list */
    struct client *client;   /* NULL: the session has ended */
    struct replay *first, **last;
    struct batch *batch; /* of the first; NULL: none */
};

static void clear(struct replay *r)
{
    if (r->first != NULL) {
        message_unref(r->first);
    }
    retained_cursor_destroy(r->cursor);
}

/* Most filters find nothing; that is seen here, so that no replay waits for its turn to see it. */
bool replay_create(struct shard *sh, struct sub *sub, struct replay **out)
{
    char *filter = (char *)sh->scratch + READ_SCRATCH;
    size_t n = sub_filter_text(sub, filter, TOPIC_TEXT_MAX);
    struct replay found = {.cursor = retained_cursor_create(filter, n, sub->floor)};
    struct replay *r;
    bool done;

    *out = NULL;
    if (found.cursor == NULL) {
        return false;
    }
    sh->budget -= LOOK_COST;
    if (retained_next(sh->b->retained, found.cursor, sh->now_ms, &found.first, 1, &done) == 0 &&
        done) {
        retained_cursor_destroy(found.cursor);
        return true;
    }
    r = malloc(sizeof(*r));
    if (r == NULL) {
        clear(&found);
        return false;
    }
    *r = found;
    r->filter_id = filter_subs_id(sub->filter);
    r->sub_id = sub->id;
    r->qos = sub->qos;
    *out = r;
    return true;
}

static void replay_free(struct replay *r)
{
    clear(r);
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

/* Its client subscribes again on its next connection. */
static void lose(struct shard *sh, struct client *c, int64_t n)
{
    shard_count(sh, METRIC_DROPPED_MEMORY, n);
    if (c->link != NULL) {
        link_close(sh, c->link, RC_UNSPECIFIED_ERROR, "out of memory");
    }
}

void replay_start(struct shard *sh, struct client *c, struct replay *list)
{
    struct replay_set *s;

    if (list == NULL) {
        return;
    }
    s = set_of(sh, c);
    if (s == NULL) {
        lose(sh, c, 1);
        replay_cancel_list(list);
        return;
    }
    *s->last = list;
    while (*s->last != NULL) {
        s->last = &(*s->last)->next;
    }
}

static void batch_free(struct batch *b)
{
    for (uint32_t i = b->at; i < b->n; i++) {
        message_unref(b->msg[i]);
    }
    store_fetch_free(&b->fetch);
    free(b);
}

/* What is under way is freed when it arrives. */
static void batch_forget(struct replay_set *s)
{
    struct batch *b = s->batch;

    s->batch = NULL;
    if (b != NULL && b->under_way) {
        b->set = NULL;
    } else if (b != NULL) {
        batch_free(b);
    }
}

void replay_forget(struct client *c)
{
    if (c->replays != NULL) { /* freed when its turn comes */
        batch_forget(c->replays);
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

/* ---- bodies from the store ---- */

static void batch_arrived(struct shard *sh, struct post_item *m)
{
    struct batch *b = (struct batch *)m;

    b->under_way = false;
    if (b->set == NULL) {
        batch_free(b);
    } else if (b->fetch.rc != ST_OK) {
        struct client *c = b->set->client;

        log_limited(sh->b->log, LOGL_ERROR, LOGR_STORE,
                    "client " CLIENT_FMT ": retained messages cannot be read from the store",
                    CLIENT_ARGS(c));
        b->ready = b->at; /* asked for again by the next connection, if the session goes on */
        if (c->link != NULL) {
            link_close(sh, c->link, RC_IMPLEMENTATION_SPECIFIC, NULL);
        }
    }
}

/* On the store's thread. */
static void batch_done(struct store_fetch *f)
{
    struct batch *b = (struct batch *)((char *)f - offsetof(struct batch, fetch));

    b->mail.fn = batch_arrived;
    post_deliver(&b->shard->post, &b->mail);
}

/* Asks for the bodies of the next stubs; without stubs all is ready. */
static void batch_ask(struct shard *sh, struct batch *b)
{
    uint64_t bytes = 0;

    store_fetch_free(&b->fetch);
    b->fetch = (struct store_fetch){.done = batch_done, .kept = b->kept};
    for (b->ready = b->at; b->ready < b->n; b->ready++) {
        const struct message *m = b->msg[b->ready];

        if (!m->is_stub) {
            continue;
        }
        bytes += m->stub_n;
        if (b->fetch.n > 0 && bytes > FETCH_BYTES) {
            break;
        }
        b->kept[b->fetch.n++] = (struct store_kept){.name = {message_topic(m), m->topic_n}};
    }
    if (b->fetch.n == 0) {
        return;
    }
    b->under_way = true;
    if (store_fetch_retained(sh->b->store, &b->fetch) != ST_OK) {
        b->under_way = false; /* the store is being closed, and so are we */
        b->ready = b->at;
    }
}

static struct batch *batch_create(struct shard *sh, struct replay_set *s, struct message **v,
                                  size_t n, bool last)
{
    struct batch *b = calloc(1, sizeof(*b));

    if (b == NULL) {
        return NULL;
    }
    b->shard = sh;
    b->set = s;
    b->last = last;
    b->n = (uint32_t)n;
    memcpy(b->msg, v, n * sizeof(*v));
    return b;
}

/* The message with its body; a reference of its own. NULL: none to send. */
static struct message *with_body(struct shard *sh, struct client *c, struct message *m,
                                 const struct store_kept *k)
{
    struct message *whole;

    if (!m->is_stub) {
        message_ref(m, 1);
        return m;
    }
    if (!k->found || k->seq != m->number) { /* never, while the index has the stub */
        log_limited(sh->b->log, LOGL_ERROR, LOGR_STORE,
                    "a retained message is not in the store: %.*s", (int)m->topic_n,
                    message_topic(m));
        return NULL;
    }
    whole =
        message_create(message_topic(m), m->topic_n, k->data.p, k->data.n, k->props.p, k->props.n);
    if (whole == NULL) {
        lose(sh, c, 1);
        return NULL;
    }
    whole->qos = m->qos;
    whole->retain = true;
    whole->number = m->number;
    whole->expires_ms = m->expires_ms;
    return whole;
}

/* ---- sending ---- */

static void send_one(struct shard *sh, struct client *client, const struct replay *r,
                     struct message *m)
{
    struct copy c = {.client = client,
                     .qos = delivery_qos(sh, r->qos, m),
                     .retain = true, /* [MQTT-3.3.1-8] */
                     .nids = r->sub_id != 0,
                     .id = r->sub_id};

    sh->budget--;
    outq_offer(sh, NULL, m, &c);
}

/* What has arrived. */
static void batch_send(struct shard *sh, struct replay_set *s)
{
    struct batch *b = s->batch;
    const struct store_kept *k = b->kept;

    for (; b->at < b->ready; b->at++) {
        struct message *m = b->msg[b->at];
        const bool gone = (m->expires_ms != 0 && m->expires_ms <= sh->now_ms) ||
                          !retained_is_current(sh->b->retained, m);
        struct message *whole = gone ? NULL : with_body(sh, s->client, m, k);

        k += m->is_stub;
        if (whole != NULL) {
            send_one(sh, s->client, s->first, whole);
            message_unref(whole);
        }
        message_unref(m);
    }
}

static void next_replay(struct replay_set *s)
{
    struct replay *r = s->first;

    s->first = r->next;
    if (s->first == NULL) {
        s->last = &s->first;
    }
    replay_free(r);
}

static bool has_stub(struct message *const *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (v[i]->is_stub) {
            return true;
        }
    }
    return false;
}

/* What was found when the subscription was made, unless it was replaced since. */
static size_t take_first(struct shard *sh, struct replay *r, struct message **v)
{
    struct message *m = r->first;

    r->first = NULL;
    if (m == NULL) {
        return 0;
    }
    if (!retained_is_current(sh->b->retained, m)) {
        message_unref(m);
        return 0;
    }
    v[0] = m;
    return 1;
}

/* The next messages of the first replay of the set, which goes when it is over. */
static void find_more(struct shard *sh, struct replay_set *s)
{
    struct message *v[BATCH];
    bool done;
    size_t n = take_first(sh, s->first, v);

    n += retained_next(sh->b->retained, s->first->cursor, sh->now_ms, v + n, BATCH - n, &done);
    if (has_stub(v, n)) {
        s->batch = batch_create(sh, s, v, n, done);
        if (s->batch != NULL) {
            return;
        }
        lose(sh, s->client, (int64_t)n);
    } else {
        for (size_t i = 0; i < n; i++) {
            send_one(sh, s->client, s->first, v[i]);
        }
    }
    for (size_t i = 0; i < n; i++) {
        message_unref(v[i]);
    }
    if (done) {
        next_replay(s);
    }
}

/* One batch of the first replay of the set, or what there is of it. */
static void step(struct shard *sh, struct replay_set *s)
{
    struct batch *b = s->batch;

    sh->budget--;
    if (subscribers_of_owner(sh->subs, (uintptr_t)s->client, s->first->filter_id) == NULL) {
        batch_forget(s); /* an UNSUBSCRIBE meanwhile ends it */
        next_replay(s);
        return;
    }
    if (b == NULL) {
        find_more(sh, s);
        return;
    }
    batch_send(sh, s);
    if (b->at < b->n) {
        batch_ask(sh, b);
        return;
    }
    s->batch = NULL;
    if (b->last) {
        next_replay(s);
    }
    batch_free(b);
}

/* Steps of one set as far as it goes; *left counts them down. True: it could go on. */
static bool run_set(struct shard *sh, struct replay_set *s, int *left)
{
    while (s->first != NULL && (s->batch == NULL || !s->batch->under_way) &&
           has_room(sh, s->client)) {
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
        batch_forget(s);
        replay_cancel_list(s->first);
        free(s);
    }
}
