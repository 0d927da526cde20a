/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chaos.c - a mixed load with everything that makes sessions move, and a check of every promise
 * kept.
 *
 *   steady publishers    QoS 0, 1, 2; always connected
 *   roaming publishers   QoS 1, 2; clean_session=false; drop, resume with DUP, take themselves over
 *   observers            always connected; get every message of all publishers
 *   durable subscribers  clean_session=false; away now and then; get every QoS 1 and 2 message,
 * also those sent meanwhile: QoS 1 in order with allowed repetitions, QoS 2 exactly once retained
 * publisher   numbers on a few retained topics watchers             subscribe to those topics now
 * and then: the first message is not older than what was acknowledged before SUBSCRIBE, and then no
 * number is missed or comes twice drifters             few client ids for many connections:
 * takeovers, wills, clean and durable, wildcards; get only what they subscribed to
 *
 * The broker must not limit queues (max_queued_messages 0). Everything is decided by --seed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/bench.h"
#include "bench/load/track.h"

#define STEADY    6u
#define ROAMING   4u
#define SOURCES   (STEADY + ROAMING)
#define OBSERVERS 3u
#define DURABLE   6u
#define TOPICS    8u /* retained */
#define WATCHERS  6u
#define MS        1000000u

enum role { PUBLISHER, SUBSCRIBER, RETAINER, WATCHER, DRIFTER };

struct actor {
    struct chaos *chaos;
    struct client slots[2]; /* the second one during a takeover */
    uint32_t now;           /* the slot in use */
    enum role role;
    uint32_t index;     /* within its role; publishers: their number */
    bool durable;       /* clean_session=false, moves about */
    bool seen;          /* was connected before: the session must be there */
    bool settled;       /* connected, and subscribed where it subscribes */
    uint64_t next_ns;   /* when it does something again */
    uint64_t opened_ns; /* start of the connection attempt */
    uint64_t old_ns;    /* when it was taken over; 0: the old connection is gone */
    char id[40];
    char will_topic[40];
    struct track tracks[SOURCES]; /* subscribers */
    uint64_t floor[TOPICS];       /* watchers: acknowledged before SUBSCRIBE */
    uint64_t expected[TOPICS];    /* watchers: the number due; 0: none came yet */
};

struct chaos {
    struct run *run;
    struct actor *actors;
    uint32_t n;
    struct actor *sources[SOURCES];
    struct actor *retainer;
    uint64_t random;
    uint64_t begin_ns;
    bool ending; /* everyone stays, nothing new is sent */
    uint64_t takeovers;
    uint64_t drops;
    uint64_t watched;
    uint64_t drifted;
};

/* splitmix64 */
static uint64_t draw(struct chaos *ch, uint64_t below)
{
    uint64_t z = (ch->random += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static struct client *client_of(struct actor *a)
{
    return &a->slots[a->now];
}

static uint8_t source_qos(uint32_t index)
{
    return index < STEADY ? (uint8_t)(index % 3) : (uint8_t)(1 + index % 2);
}

static void progress(struct actor *a)
{
    a->chaos->run->last_event_ns = a->chaos->run->loop.now_ns;
}

/* --- opening and leaving --- */

static void actor_open(struct actor *a)
{
    struct chaos *ch = a->chaos;

    a->settled = false;
    a->opened_ns = clock_ns();
    if (!client_open(client_of(a), &ch->run->loop, &ch->run->address)) {
        run_fail(ch->run, "%s: cannot connect", a->id);
    }
}

/* The session's state moves to a second connection; what still comes on the first one is not looked
 * at. */
static void actor_take_over(struct actor *a)
{
    struct client *old = client_of(a);
    struct client *fresh = &a->slots[1 - a->now];

    fresh->stream = old->stream;
    fresh->taken = old->taken;
    old->stream = (struct stream){.topics_n = 0};
    old->taken = NULL;
    old->conn.discard = true;
    a->now = 1 - a->now;
    a->old_ns = clock_ns();
    a->chaos->takeovers++;
    actor_open(a);
}

static void actor_drop(struct actor *a)
{
    struct client *c = client_of(a);
    uint64_t how = draw(a->chaos, 3);

    if (how == 0) {
        conn_close(&c->conn, false); /* FIN without DISCONNECT */
        c->state = CLIENT_CLOSED;
    } else {
        client_close(c, how == 1);
    }
    a->settled = false;
    a->chaos->drops++;
}

/* --- what all have in common --- */

static void on_wrong(struct client *c, const char *what)
{
    struct actor *a = c->owner;

    run_fail(a->chaos->run, "%s: %s", a->id, what);
}

static void on_acked(struct client *c)
{
    progress(c->owner);
}

static void on_closed(struct client *c, const char *why)
{
    struct actor *a = c->owner;

    if (c != client_of(a)) {
        a->old_ns = 0; /* taken over, as it should be */
        return;
    }
    if (a->role != DRIFTER) {
        run_fail(a->chaos->run, "%s: %s", a->id, why);
    }
    a->settled = false;
    a->next_ns = clock_ns() + draw(a->chaos, 50) * MS;
}

static void subscribe_source(struct client *c)
{
    char filter[40];
    const char *filters[1] = {filter};
    struct actor *a = c->owner;

    snprintf(filter, sizeof(filter), "c/%08x/+", a->chaos->run->id);
    client_subscribe(c, filters, 1, 2);
}

static void subscribe_retained(struct client *c)
{
    struct actor *a = c->owner;
    uint64_t done = client_of(a->chaos->retainer)->stream.done;
    char filter[40];
    const char *filters[1] = {filter};

    for (uint32_t k = 0; k < TOPICS; k++) {
        a->floor[k] = done / TOPICS + (k < done % TOPICS);
        a->expected[k] = 0;
    }
    snprintf(filter, sizeof(filter), draw(a->chaos, 2) == 0 ? "r/%08x/+" : "r/%08x/#",
             a->chaos->run->id);
    client_subscribe(c, filters, 1, 1);
}

/* Each of the few ids has its kind of filters, so that a session's old ones are those of its next
 * user. */
static uint32_t drifter_kind(const struct client *c)
{
    return (uint32_t)(c->id[strlen(c->id) - 1] - '0') % 4;
}

static void subscribe_drifter(struct client *c)
{
    static const char kinds[4] = {'c', 'c', 'n', 'w'};
    static const char *const rests[4] = {"#", "1", "+/x", "#"};
    struct actor *a = c->owner;
    char filter[40];
    char topic[40];
    const char *filters[1] = {filter};

    snprintf(filter, sizeof(filter), "%c/%08x/%s", kinds[drifter_kind(c)], a->chaos->run->id,
             rests[drifter_kind(c)]);
    client_subscribe(c, filters, 1, (uint8_t)draw(a->chaos, 3));
    snprintf(topic, sizeof(topic), "n/%08x/%c/x", a->chaos->run->id, c->id[strlen(c->id) - 1]);
    client_publish_once(c, topic, span_str("noise"), false);
}

static void on_connected(struct client *c, bool session_present)
{
    struct actor *a = c->owner;

    progress(a);
    if (c->version != MQTT_3_1 && a->role != DRIFTER &&
        session_present != (a->durable && a->seen)) {
        run_fail(a->chaos->run, "%s: session present is %d", a->id, session_present);
    }
    a->settled = a->role == PUBLISHER || a->role == RETAINER || (a->role == SUBSCRIBER && a->seen);
    if (a->role == SUBSCRIBER && !a->seen) {
        subscribe_source(c);
    } else if (a->role == WATCHER) {
        subscribe_retained(c);
    } else if (a->role == DRIFTER) {
        subscribe_drifter(c);
    }
    a->seen = true;
}

static void on_subscribed(struct client *c)
{
    struct actor *a = c->owner;

    a->settled = true;
    a->next_ns = clock_ns() + (20 + draw(a->chaos, 300)) * MS;
}

/* --- messages --- */

static void subscriber_message(struct actor *a, const struct publish *m, const struct stamp *s)
{
    struct run *run = a->chaos->run;
    struct track_rule rule = {.gaps_allowed = m->qos == 0 && a->durable,
                              .dup = m->qos == 1 && m->dup,
                              .publisher_resumed = m->qos == 1 && s->publisher >= STEADY};
    enum track_rc rc;

    if (s->publisher >= SOURCES || m->qos != source_qos(s->publisher) || m->retain) {
        run_fail(run, "%s: publisher %u, QoS %u, retain %d", a->id, s->publisher, m->qos,
                 m->retain);
        return;
    }
    rc = track_step(&a->tracks[s->publisher], s->seq, rule);
    if (rc == TRACK_REPEATED) {
        run->r.repeated++;
    } else if (rc != TRACK_NEW) {
        run_fail(run, "%s: publisher %u, QoS %u: %s, at number %" PRIu64 "%s", a->id, s->publisher,
                 m->qos, track_text(rc), s->seq, m->dup ? " (DUP)" : "");
    } else {
        progress(a);
        if (!a->durable) {
            histogram_add(&run->r.latency, run->loop.now_ns - s->time_ns);
        }
    }
}

static void watcher_message(struct actor *a, const struct publish *m, const struct stamp *s)
{
    struct run *run = a->chaos->run;
    uint32_t k = (uint32_t)(s->seq % TOPICS);
    uint64_t number = s->seq / TOPICS;
    char topic[40];
    int n = snprintf(topic, sizeof(topic), "r/%08x/%u", run->id, k);

    if (s->publisher != SOURCES || !span_eq(m->topic, span_of(topic, (size_t)n))) {
        run_fail(run, "%s: misdelivered", a->id);
    } else if (a->expected[k] == 0 && number + 1 < a->floor[k]) {
        run_fail(run,
                 "%s: %s: retained number %" PRIu64 " is older than %" PRIu64
                 ", acknowledged before",
                 a->id, topic, number, a->floor[k] - 1);
    } else if (a->expected[k] != 0 && (number != a->expected[k] || m->retain)) {
        run_fail(run, "%s: %s: number %" PRIu64 " (retain %d) came, %" PRIu64 " expected", a->id,
                 topic, number, m->retain, a->expected[k]);
    }
    a->expected[k] = number + 1;
}

static void drifter_message(struct actor *a, struct client *c, const struct publish *m)
{
    static const char kinds[4] = {'c', 'c', 'n', 'w'};
    uint32_t kind = drifter_kind(c);
    char run_id[16];

    snprintf(run_id, sizeof(run_id), "/%08x/", a->chaos->run->id);
    if (m->topic.n < 12 || m->topic.p[0] != (uint8_t)kinds[kind] ||
        memcmp(m->topic.p + 1, run_id, 10) != 0 ||
        (kind == 1 && (m->topic.n != 12 || m->topic.p[11] != '1'))) {
        run_fail(a->chaos->run, "%s: misdelivered: %.*s", c->id, (int)m->topic.n,
                 (const char *)m->topic.p);
    }
}

static void on_message(struct client *c, const struct publish *m)
{
    struct actor *a = c->owner;
    struct run *run = a->chaos->run;
    struct stamp s;

    run->r.delivered++;
    if (a->role == DRIFTER) {
        drifter_message(a, c, m);
        return;
    }
    if (!stamp_read(&s, m->payload) || s.run != run->id) {
        run_fail(run, "%s: payload damaged or of another run", a->id);
    } else if (a->role == SUBSCRIBER) {
        subscriber_message(a, m, &s);
    } else if (a->role == WATCHER) {
        watcher_message(a, m, &s);
    } else {
        run_fail(run, "%s: a message to one who subscribed to nothing", a->id);
    }
}

static const struct client_ops actor_ops = {.connected = on_connected,
                                            .subscribed = on_subscribed,
                                            .message = on_message,
                                            .acked = on_acked,
                                            .closed = on_closed,
                                            .wrong = on_wrong};

/* --- cast --- */

static struct actor *cast(struct chaos *ch, enum role role, uint32_t index, const char *name,
                          bool durable)
{
    struct actor *a = &ch->actors[ch->n++];

    a->chaos = ch;
    a->role = role;
    a->index = index;
    a->durable = durable;
    snprintf(a->id, sizeof(a->id), "%s-%08x-%u", name, ch->run->id, index);
    for (uint32_t i = 0; i < 2; i++) {
        a->slots[i] = (struct client){.ops = &actor_ops,
                                      .owner = a,
                                      .id = a->id,
                                      .version = ch->run->o->version,
                                      .clean = !durable};
        a->slots[i].conn.fd = -1;
    }
    a->next_ns = clock_ns() + draw(ch, 200) * MS;
    return a;
}

static void cast_source(struct chaos *ch, uint32_t i)
{
    struct actor *a = cast(ch, PUBLISHER, i, i < STEADY ? "steady" : "roaming", i >= STEADY);
    struct stream_form form = {.version = ch->run->o->version, .payload_n = ch->run->o->payload_n};
    char topic[40];
    const char *topics[1] = {topic};

    ch->sources[i] = a;
    snprintf(topic, sizeof(topic), "c/%08x/%u", ch->run->id, i);
    form.qos = source_qos(i);
    stream_init(&a->slots[0].stream, &form, topics, 1, i, ch->run->id);
}

static void cast_retainer(struct chaos *ch)
{
    struct stream_form form = {.version = ch->run->o->version,
                               .qos = 1,
                               .retain = true,
                               .payload_n = ch->run->o->payload_n};
    char text[TOPICS][40];
    const char *topics[TOPICS];

    ch->retainer = cast(ch, RETAINER, 0, "retainer", false);
    for (uint32_t k = 0; k < TOPICS; k++) {
        snprintf(text[k], sizeof(text[k]), "r/%08x/%u", ch->run->id, k);
        topics[k] = text[k];
    }
    stream_init(&ch->retainer->slots[0].stream, &form, topics, TOPICS, SOURCES, ch->run->id);
}

static void cast_all(struct chaos *ch)
{
    uint32_t drifters = ch->run->o->clients > 1 ? ch->run->o->clients : 20;

    ch->actors =
        calloc(SOURCES + OBSERVERS + DURABLE + WATCHERS + 1 + drifters, sizeof(*ch->actors));
    if (ch->actors == NULL) {
        die("out of memory");
    }
    for (uint32_t i = 0; i < OBSERVERS; i++) {
        cast(ch, SUBSCRIBER, i, "observer", false);
    }
    for (uint32_t i = 0; i < DURABLE; i++) {
        cast(ch, SUBSCRIBER, i, "durable", true);
    }
    for (uint32_t i = 0; i < SOURCES; i++) {
        cast_source(ch, i);
    }
    cast_retainer(ch);
    for (uint32_t i = 0; i < WATCHERS; i++) {
        cast(ch, WATCHER, i, "watcher", false);
    }
    for (uint32_t i = 0; i < drifters; i++) {
        cast(ch, DRIFTER, i, "drifter", false);
    }
}

/* --- the script --- */

static void drifter_act(struct actor *a)
{
    struct chaos *ch = a->chaos;
    struct client *c = client_of(a);

    if (c->state != CLIENT_CLOSED) {
        actor_drop(a);
        a->next_ns = clock_ns() + draw(ch, 60) * MS;
        return;
    }
    if (ch->ending) {
        return;
    }
    snprintf(a->id, sizeof(a->id), "drifter-%08x-%u", ch->run->id, (uint32_t)draw(ch, 8));
    snprintf(a->will_topic, sizeof(a->will_topic), "w/%08x/%c", ch->run->id,
             a->id[strlen(a->id) - 1]);
    client_forget(c); /* another may have used the session meanwhile */
    c->clean = draw(ch, 2) == 0;
    c->has_will = draw(ch, 2) == 0;
    c->will = (struct connect_will){
        .topic = span_str(a->will_topic), .payload = span_str("gone"), .qos = (uint8_t)draw(ch, 3)};
    ch->drifted++;
    actor_open(a);
    a->next_ns = clock_ns() + (20 + draw(ch, 300)) * MS;
}

static void watcher_act(struct actor *a)
{
    struct chaos *ch = a->chaos;

    if (client_of(a)->state == CLIENT_CLOSED) {
        if (!ch->ending) {
            actor_open(a);
            a->next_ns = UINT64_MAX; /* until SUBACK */
        }
        return;
    }
    for (uint32_t k = 0; k < TOPICS; k++) {
        if (a->floor[k] > 0 && a->expected[k] == 0) {
            if (clock_ns() - a->opened_ns > (uint64_t)(ch->run->o->timeout_s * 1e9)) {
                run_fail(ch->run, "%s: no retained message of topic %u", a->id, k);
            }
            return; /* the replay has not come yet */
        }
    }
    actor_drop(a);
    ch->watched++;
    a->next_ns = clock_ns() + draw(ch, 50) * MS;
}

/* A few messages at once, so that the connection ends with some on their way. */
static void burst(struct actor *a)
{
    struct client *c = client_of(a);

    for (uint64_t n = draw(a->chaos, 8); n > 0; n--) {
        if (c->stream.next < c->stream.done + a->chaos->run->o->window) {
            client_publish(c);
        }
    }
    loop_flush(&a->chaos->run->loop);
}

static void durable_act(struct actor *a)
{
    struct chaos *ch = a->chaos;

    a->next_ns = clock_ns() + draw(ch, 250) * MS;
    if (client_of(a)->state == CLIENT_CLOSED) {
        actor_open(a);
    } else if (!ch->ending && a->settled && a->old_ns == 0) {
        if (a->role == PUBLISHER) {
            burst(a);
        }
        if (client_of(a)->state != CLIENT_UP) {
            return; /* the burst found it closed: complained of already */
        }
        if (draw(ch, 3) == 0) {
            actor_take_over(a);
        } else {
            actor_drop(a);
        }
    }
}

static void check_old(struct actor *a, uint64_t now)
{
    if (a->old_ns != 0 && now - a->old_ns > (uint64_t)(a->chaos->run->o->timeout_s * 1e9)) {
        run_fail(a->chaos->run, "%s: taken over, but the old connection stays", a->id);
        a->old_ns = 0;
    }
}

static void act(struct chaos *ch)
{
    for (uint32_t i = 0; i < ch->n; i++) {
        struct actor *a = &ch->actors[i];
        uint64_t now = clock_ns();

        check_old(a, now);
        if (now < a->next_ns) {
            continue;
        }
        if (a->role == DRIFTER) {
            drifter_act(a);
        } else if (a->role == WATCHER) {
            watcher_act(a);
        } else if (a->durable) {
            durable_act(a);
        }
    }
}

/* How far every observer is with a publisher's messages. */
static uint64_t observed(const struct chaos *ch, uint32_t source)
{
    uint64_t least = UINT64_MAX;

    for (uint32_t i = 0; i < OBSERVERS; i++) {
        uint64_t top = ch->actors[i].tracks[source].top;

        least = top < least ? top : least;
    }
    return least;
}

static void publish_due(struct chaos *ch, struct actor *a, uint64_t through)
{
    struct client *c = client_of(a);
    const struct options *o = ch->run->o;
    uint64_t due = (uint64_t)((double)(ch->run->loop.now_ns - ch->begin_ns) / 1e9 * o->rate);

    while (c->state == CLIENT_UP && c->stream.next < due &&
           c->stream.next < c->stream.done + o->window && c->stream.next < through + o->window) {
        client_publish(c);
    }
}

static void publish_all(struct chaos *ch)
{
    for (uint32_t i = 0; i < SOURCES; i++) {
        publish_due(ch, ch->sources[i], observed(ch, i));
    }
    publish_due(ch, ch->retainer, UINT64_MAX / 2);
    loop_flush(&ch->run->loop);
}

/* True when all is acknowledged and every subscriber has what it must have. */
static bool complete(struct chaos *ch)
{
    for (uint32_t p = 0; p < SOURCES; p++) {
        const struct stream *s = &client_of(ch->sources[p])->stream;

        if (s->done < s->next) {
            return false;
        }
        for (uint32_t i = 0; i < OBSERVERS + DURABLE; i++) {
            if (ch->actors[i].tracks[p].top < s->next && !(s->qos == 0 && ch->actors[i].durable)) {
                return false;
            }
        }
    }
    return client_of(ch->retainer)->stream.done == client_of(ch->retainer)->stream.next;
}

static void complain_of_missing(struct chaos *ch)
{
    for (uint32_t p = 0; p < SOURCES; p++) {
        const struct stream *s = &client_of(ch->sources[p])->stream;

        if (s->done < s->next) {
            run_fail(ch->run, "%s: %" PRIu64 " of %" PRIu64 " acknowledged", ch->sources[p]->id,
                     s->done, s->next);
        }
        for (uint32_t i = 0; i < OBSERVERS + DURABLE; i++) {
            struct actor *a = &ch->actors[i];

            if (a->tracks[p].top < s->next && !(s->qos == 0 && a->durable)) {
                run_fail(ch->run, "%s: publisher %u, QoS %u: only %" PRIu64 " of %" PRIu64 " came",
                         a->id, p, s->qos, a->tracks[p].top, s->next);
            }
        }
    }
}

/* Subscribers first: what is published counts from the first message on. */
static void open_the_steady(struct chaos *ch)
{
    uint64_t end = clock_ns() + (uint64_t)(ch->run->o->timeout_s * 1e9);
    bool up = false;

    for (uint32_t i = 0; i < OBSERVERS + DURABLE + SOURCES + 1; i++) {
        actor_open(&ch->actors[i]);
    }
    while (!up && ch->run->r.failures == 0) {
        loop_turn(&ch->run->loop, 10);
        up = true;
        for (uint32_t i = 0; i < OBSERVERS + DURABLE + SOURCES + 1; i++) {
            up = up && ch->actors[i].settled;
        }
        if (clock_ns() > end) {
            run_fail(ch->run, "not all are connected in time");
        }
    }
}

static void play(struct chaos *ch)
{
    struct run *run = ch->run;
    uint64_t end = clock_ns() + (uint64_t)(run->o->seconds * 1e9);
    uint64_t patience = (uint64_t)(run->o->timeout_s * 1e9);

    ch->begin_ns = run->last_event_ns = clock_ns();
    while (run->r.failures == 0 && !(ch->ending && complete(ch))) {
        act(ch);
        if (!ch->ending) {
            publish_all(ch);
        }
        loop_turn(&run->loop, 2);
        ch->ending = run->loop.now_ns > end;
        if (run->loop.now_ns - run->last_event_ns > patience) {
            run_fail(run, "no progress for %.0f s", run->o->timeout_s);
            complain_of_missing(ch);
        }
    }
    /* What comes now is doubled. */
    for (end = clock_ns() + 200u * MS; clock_ns() < end && run->r.failures == 0;) {
        act(ch);
        loop_turn(&run->loop, 10);
    }
}

static void chaos_end(struct chaos *ch)
{
    uint64_t resumes = 0;

    for (uint32_t i = 0; i < ch->n; i++) {
        struct actor *a = &ch->actors[i];

        ch->run->r.sent += client_of(a)->stream.next;
        resumes += client_of(a)->stream.resumes;
        client_close(client_of(a), true);
        client_fini(&a->slots[0]);
        client_fini(&a->slots[1]);
    }
    run_note(ch->run,
             ",\"takeovers\":%" PRIu64 ",\"drops\":%" PRIu64 ",\"resumes\":%" PRIu64
             ",\"watched\":%" PRIu64 ",\"drifted\":%" PRIu64 ",\"seed\":%" PRIu64,
             ch->takeovers, ch->drops, resumes, ch->watched, ch->drifted, ch->run->o->seed);
    free(ch->actors);
}

void chaos_run(struct run *run)
{
    struct chaos ch = {.run = run, .random = run->o->seed};

    cast_all(&ch);
    run->r.connections = ch.n;
    open_the_steady(&ch);
    run_measure_begin(run);
    if (run->r.failures == 0) {
        play(&ch);
    }
    run_measure_end(run);
    if (run->r.failures > 0) {
        fprintf(stderr, "chaos: --seed %" PRIu64 "\n", run->o->seed);
    }
    chaos_end(&ch);
}
