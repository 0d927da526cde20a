/* SPDX-License-Identifier: Apache-2.0 */
/*
 * churn.c - clients that subscribe and unsubscribe as fast as they get their answers, beside steady
 * pairs whose every message is checked and whose latency is the run's.
 *
 * A client subscribes to its --filters, a third each exact, with `+` and with `#`, then
 * unsubscribes from them, and again. They share the first levels with the pairs' topics but match
 * none of them: a churning client must not get a message. In 5.0 an UNSUBACK has to say that each
 * filter was there.
 *
 * The pairs publish at a low rate (open loop), so that the broker's CPU is nearly all the churn's.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/flow.h"

struct churner {
    uint32_t at;      /* filters answered in this half */
    uint32_t pending; /* filters in the packet under way */
    bool leaving;     /* unsubscribes */
    bool answered;    /* at least once */
};

struct churn {
    struct herd herd;
    struct churner *churners; /* as the herd's clients */
    uint32_t filters;         /* of each */
};

static struct churn *churn_of(struct client *c)
{
    return (struct churn *)((char *)c->owner - offsetof(struct churn, herd));
}

static void filter_name(char *out, size_t cap, const struct run *run, uint32_t number)
{
    static const char *const kinds[] = {"", "/+", "/#"};
    char pattern[64];

    snprintf(pattern, sizeof(pattern), "bench/%08x/churn/" NUMBER_MARK "%s", run->id,
             kinds[number % 3]);
    number_name(out, cap, pattern, number);
}

/* The next packet of filters, of this half or of the other one. */
static void go_on(struct churn *ch, struct client *c)
{
    uint32_t index = (uint32_t)(c - ch->herd.clients);
    struct churner *a = &ch->churners[index];
    char text[FILTERS_MAX][64];
    const char *filters[FILTERS_MAX];

    if (a->at == ch->filters) {
        a->at = 0;
        a->leaving = !a->leaving;
    }
    a->pending = ch->filters - a->at < FILTERS_MAX ? ch->filters - a->at : FILTERS_MAX;
    for (uint32_t i = 0; i < a->pending; i++) {
        filter_name(text[i], sizeof(text[i]), ch->herd.run, index * ch->filters + a->at + i);
        filters[i] = text[i];
    }
    if (a->leaving) {
        client_unsubscribe(c, filters, a->pending);
    } else {
        client_subscribe(c, filters, a->pending, ch->herd.run->o->qos);
    }
}

static void churner_answered(struct client *c)
{
    struct churn *ch = churn_of(c);
    struct churner *a = &ch->churners[c - ch->herd.clients];

    a->at += a->pending;
    a->answered = true;
    if (!ch->herd.run->over) {
        ch->herd.run->r.done += a->pending;
        go_on(ch, c);
    }
}

static void churner_connected(struct client *c, bool session_present)
{
    (void)session_present;
    herd_up(c->owner);
}

static void churner_message(struct client *c, const struct publish *m)
{
    (void)m;
    herd_wrong(c, "a message though none of its filters matches one");
}

static const struct client_ops churner_ops = {.connected = churner_connected,
                                              .subscribed = churner_answered,
                                              .message = churner_message,
                                              .acked = herd_none,
                                              .closed = herd_closed,
                                              .wrong = herd_wrong,
                                              .unsubscribed = churner_answered};

/* --- the run --- */

static void start_all(struct churn *ch)
{
    for (uint32_t i = 0; i < ch->herd.n; i++) {
        go_on(ch, &ch->herd.clients[i]);
    }
}

/* Each client has to have got on: nobody may be starved by the others. */
static void judge(struct churn *ch)
{
    struct run *run = ch->herd.run;

    for (uint32_t i = 0; i < ch->herd.n && run->r.failures == 0; i++) {
        if (!ch->churners[i].answered) {
            run_fail(run, "%s: no answer to its first SUBSCRIBE", ch->herd.clients[i].id);
        }
    }
}

void churn_run(struct run *run)
{
    struct churn ch = {.filters = run->o->filters};
    struct flow f;
    const struct drive_plan plan = {.publishers = &f.publishers,
                                    .through = flow_through,
                                    .context = &f,
                                    .count = run->o->count};

    ch.churners = calloc(run->o->clients, sizeof(*ch.churners));
    if (ch.churners == NULL) {
        die("out of memory");
    }
    herd_init(&ch.herd, run, run->o->clients, "c", &churner_ops);
    flow_init(&f, run, true);
    herd_connect(&ch.herd);
    if (herd_pair_up(&f.subscribers, &f.publishers)) {
        run->r.connections += ch.herd.up;
        start_all(&ch);
        herd_drive(&plan);
        judge(&ch);
    }
    if (run->o->durable) {
        herd_discard(&ch.herd);
    }
    herd_pair_end(&f.subscribers, &f.publishers);
    flow_fini(&f);
    herd_fini(&ch.herd);
    free(ch.churners);
}
