/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/drive.h"

#include <stdlib.h>

#define OPEN_WINDOW 60000u     /* open loop; below the number of packet identifiers */
#define TURN_NS     100000000u /* longest wait: to look at the clock */

struct marks {
    bool moved;    /* on the list */
    bool behind;   /* something of it is not acknowledged or not through */
    bool unsent;   /* it has not sent all of its count */
    uint64_t wave; /* lockstep: the last one it has sent its window of */
};

struct drive {
    struct run *run;
    const struct drive_plan *plan;
    uint32_t n;      /* publishers */
    uint32_t *moved; /* list of those to look at */
    uint32_t moved_n;
    struct marks *marks;
    uint32_t behind; /* how many are marked */
    uint32_t unsent;
    uint32_t window;
    uint64_t begin_ns;
    uint64_t end_ns;
    uint64_t wave; /* lockstep: all publishers' windows that are under way together */
    uint64_t due;  /* open loop: messages of all publishers that are due */
    uint64_t all;  /* open loop: so many are to be sent in all */
    bool more;     /* new messages may be sent */
};

uint32_t drive_window(const struct options *o)
{
    return o->rate > 0 ? OPEN_WINDOW : o->window;
}

/* --- what is to be looked at --- */

static void list(struct drive *d, uint32_t publisher)
{
    if (!d->marks[publisher].moved) {
        d->marks[publisher].moved = true;
        d->moved[d->moved_n++] = publisher;
    }
}

void drive_moved(struct run *run, uint32_t publisher)
{
    if (run->drive != NULL) {
        list(run->drive, publisher);
    }
}

void drive_acked(struct client *c)
{
    struct herd *h = c->owner;

    run_event(h->run);
    drive_moved(h->run, (uint32_t)(c - h->clients));
}

static void list_all(struct drive *d)
{
    for (uint32_t i = 0; i < d->n; i++) {
        list(d, i);
    }
}

/* --- open loop --- */

static uint64_t due_ns(const struct drive *d, uint64_t k)
{
    return d->begin_ns + (uint64_t)((double)k * 1e9 / d->run->o->rate);
}

/* How many of the first k messages are this publisher's. */
static uint64_t share(const struct drive *d, uint64_t k, uint32_t publisher)
{
    return (k + d->n - 1 - publisher) / d->n;
}

static void list_due(struct drive *d)
{
    uint64_t now = clock_ns();
    uint64_t due = (uint64_t)((double)(now - d->begin_ns) / 1e9 * d->run->o->rate) + 1;
    uint64_t first = d->due;

    d->run->loop.now_ns = now;
    d->due = due < d->all ? due : d->all;
    if (d->due - first >= d->n) {
        list_all(d);
        return;
    }
    for (uint64_t k = first; k < d->due; k++) {
        list(d, (uint32_t)(k % d->n));
    }
}

/* --- sending --- */

static bool by_count(const struct drive *d)
{
    return d->plan->count != 0 || d->plan->rounds != 0;
}

static uint64_t count_of(const struct drive *d, uint32_t publisher)
{
    if (d->plan->rounds != 0) {
        return d->plan->rounds * d->plan->publishers->clients[publisher].stream.topics_n;
    }
    return d->plan->count != 0 ? d->plan->count : UINT64_MAX;
}

/* The number below which a publisher may send now. */
static uint64_t limit_of(const struct drive *d, uint32_t publisher, uint64_t through)
{
    const struct client *c = &d->plan->publishers->clients[publisher];
    const struct stream *s = &c->stream;
    uint32_t window = s->qos > 0 && c->receive_max < d->window ? c->receive_max : d->window;
    uint64_t limit = (s->done < through ? s->done : through) + window;

    if (!d->more || c->conn.fd < 0 ||
        (d->run->o->lockstep && d->marks[publisher].wave == d->wave)) {
        return s->next;
    }
    if (limit > count_of(d, publisher)) {
        limit = count_of(d, publisher);
    }
    if (d->run->o->rate > 0 && limit > share(d, d->due, publisher)) {
        limit = share(d, d->due, publisher);
    }
    return limit;
}

static void mark(bool *marked, uint32_t *n, bool wanted)
{
    *n += (uint32_t)wanted - (uint32_t)*marked;
    *marked = wanted;
}

static void serve(struct drive *d, uint32_t publisher)
{
    struct client *c = &d->plan->publishers->clients[publisher];
    struct stream *s = &c->stream;
    uint64_t through = d->plan->through(d->plan->context, publisher);
    uint64_t limit = limit_of(d, publisher, through);

    d->marks[publisher].moved = false;
    d->marks[publisher].wave = d->wave;
    while (s->next < limit) {
        if (d->run->o->rate > 0) {
            client_publish_at(c, due_ns(d, s->next * d->n + publisher));
        } else {
            client_publish(c);
        }
    }
    if (s->next > s->counted && d->plan->sent != NULL) {
        d->plan->sent(d->plan->context, publisher);
    }
    d->run->r.sent += s->next - s->counted;
    s->counted = s->next;
    mark(&d->marks[publisher].behind, &d->behind, s->done != s->next || through != s->next);
    mark(&d->marks[publisher].unsent, &d->unsent, by_count(d) && s->next < count_of(d, publisher));
}

static void serve_listed(struct drive *d)
{
    if (d->run->o->rate > 0 && d->more) {
        list_due(d);
    }
    while (d->moved_n > 0) {
        serve(d, d->moved[--d->moved_n]);
    }
}

/* All of the last wave is through: everybody sends a window. */
static void next_wave(struct drive *d)
{
    if (d->run->o->lockstep && d->more && d->behind == 0) {
        d->wave++;
        list_all(d);
        serve_listed(d);
    }
}

/* --- the run --- */

static bool is_complete(const struct drive *d)
{
    return d->behind == 0 && (by_count(d) ? d->unsent == 0 : !d->more);
}

static uint64_t wait_ns(const struct drive *d)
{
    uint64_t now = d->run->loop.now_ns;
    uint64_t until = now + TURN_NS;

    if (!by_count(d) && d->more && d->end_ns < until) {
        until = d->end_ns;
    }
    if (d->run->o->rate > 0 && d->more && d->due < d->all && due_ns(d, d->due) < until) {
        until = due_ns(d, d->due);
    }
    return until > now ? until - now : 0;
}

/* The end of sending by time: everybody's marks have to be set anew. */
static void watch_clock(struct drive *d)
{
    if (d->more && !by_count(d) && d->run->loop.now_ns >= d->end_ns) {
        serve_listed(d); /* open loop: what was due before the end, however late this turn is */
        d->more = false;
        list_all(d);
    }
    if (d->behind == 0) {
        run_event(d->run); /* a slow open loop: nothing is owed */
    }
}

static void drive_init(struct drive *d, struct run *run, const struct drive_plan *plan)
{
    const struct options *o = run->o;
    uint32_t n = plan->publishers->n;
    uint64_t now = clock_ns();

    *d = (struct drive){.run = run,
                        .plan = plan,
                        .n = n,
                        .window = drive_window(o),
                        .begin_ns = now,
                        .end_ns = now + (uint64_t)(o->seconds * 1e9),
                        .more = true};
    d->all = plan->count != 0 ? plan->count * n : (uint64_t)(o->rate * o->seconds);
    d->moved = calloc(n, sizeof(*d->moved));
    d->marks = calloc(n, sizeof(*d->marks));
    if (d->moved == NULL || d->marks == NULL) {
        die("out of memory");
    }
    run->loop.now_ns = now;
    run->drive = d;
    list_all(d);
}

static void drive_fini(struct drive *d)
{
    d->run->drive = NULL;
    free(d->moved);
    free(d->marks);
}

void drive_run(struct run *run, const struct drive_plan *plan)
{
    struct drive d;
    uint64_t sent = run->r.sent;
    uint64_t failures = run->r.failures;

    drive_init(&d, run, plan);
    run_event(run);
    while (run->r.failures == failures) {
        serve_listed(&d);
        if (is_complete(&d)) {
            break;
        }
        next_wave(&d);
        run_turn(run, wait_ns(&d));
        watch_clock(&d);
        if (run_is_stuck(run)) {
            run_fail(run, "no message for %.0f s: something is lost", run->o->timeout_s);
        }
    }
    if (run->o->rate > 0) {
        run->r.rate_reached =
            (double)(run->r.sent - sent) * 1e9 / (double)(clock_ns() - d.begin_ns);
    }
    drive_fini(&d);
}
