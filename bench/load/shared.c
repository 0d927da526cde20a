/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared.c - publishers to groups of members: `$share/gI/...`, members dealt out over the groups.
 *
 * Each message comes exactly once to each group, to whichever member; a member gets each
 * publisher's numbers rising. The closed loop waits for the lowest number that some group has not
 * got, so that a window of bits for each publisher and group knows what came. Nobody reconnects and
 * all members are equal, so that all of a group get the same share, within 10 %.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/common.h"
#include "bench/load/seqset.h"

struct shared {
    struct herd publishers;
    struct herd members; /* member i is of group i % groups */
    struct seqset *came; /* [group][publisher] */
    uint64_t *next;      /* [member][publisher]: number after the last one */
    uint64_t *messages;  /* [member] */
};

static struct shared *shared_of_member(struct client *c)
{
    return (struct shared *)((char *)c->owner - offsetof(struct shared, members));
}

static uint32_t group_of(struct client *c)
{
    struct shared *sh = shared_of_member(c);

    return (uint32_t)(c - sh->members.clients) % sh->members.run->o->groups;
}

static void member_connected(struct client *c, bool session_present)
{
    struct run *run = herd_run(c);
    char filter[64];
    char text[96];
    const char *filters[1] = {text};

    (void)session_present;
    publisher_filter(filter, sizeof(filter), run, ALL_PUBLISHERS);
    snprintf(text, sizeof(text), "$share/g%u/%s", group_of(c), filter);
    c->subscription_id = run->o->properties ? group_of(c) + 1 : 0;
    client_subscribe(c, filters, 1, run->o->qos);
}

static void member_subscribed(struct client *c)
{
    herd_up(c->owner);
}

/* Exactly once to the group, rising at the member. */
static void check_number(struct shared *sh, struct client *c, const struct stamp *s)
{
    struct run *run = herd_run(c);
    uint32_t publishers = sh->publishers.n;
    size_t member = (size_t)(c - sh->members.clients);
    uint64_t *next = &sh->next[member * publishers + s->publisher];
    struct seqset *came = &sh->came[(size_t)group_of(c) * publishers + s->publisher];
    uint64_t base = came->base;
    enum seqset_rc rc = seqset_add(came, s->seq);

    if (rc != SEQSET_NEW || s->seq >= sh->publishers.clients[s->publisher].stream.next) {
        run_fail(run, "%s: publisher %u: number %" PRIu64 " %s group g%u", c->id, s->publisher,
                 s->seq, rc == SEQSET_DOUBLED ? "came again to" : "was not sent yet, but came to",
                 group_of(c));
    }
    if (s->seq < *next) {
        run_fail(run, "%s: publisher %u: number %" PRIu64 " came after %" PRIu64, c->id,
                 s->publisher, s->seq, *next - 1);
    }
    if (came->base != base) {
        drive_moved(run, s->publisher);
    }
    *next = s->seq + 1;
    sh->messages[member]++;
}

static void member_message(struct client *c, const struct publish *m)
{
    struct shared *sh = shared_of_member(c);
    struct run *run = herd_run(c);
    struct stamp s;

    if (!message_stamp(&sh->publishers, c, m, &s)) {
        return;
    }
    check_number(sh, c, &s);
    message_check(run, c, m, &s, &sh->publishers.clients[s.publisher].stream);
    run_delivered(run, &s);
}

static const struct client_ops member_ops = {.connected = member_connected,
                                             .subscribed = member_subscribed,
                                             .message = member_message,
                                             .acked = herd_none,
                                             .closed = herd_closed,
                                             .wrong = herd_wrong};

/* --- the run --- */

static void shared_init(struct shared *sh, struct run *run)
{
    const struct options *o = run->o;
    size_t sets = (size_t)o->groups * o->publishers;

    *sh = (struct shared){.came = calloc(sets, sizeof(*sh->came))};
    sh->next = calloc((size_t)o->subscribers * o->publishers, sizeof(*sh->next));
    sh->messages = calloc(o->subscribers, sizeof(*sh->messages));
    if (sh->came == NULL || sh->next == NULL || sh->messages == NULL) {
        die("out of memory");
    }
    for (size_t i = 0; i < sets; i++) {
        seqset_init(&sh->came[i], drive_window(o));
    }
    herd_init(&sh->publishers, run, o->publishers, "p", &herd_publisher_ops);
    herd_init(&sh->members, run, o->subscribers, "m", &member_ops);
    for (uint32_t i = 0; i < o->publishers; i++) {
        publisher_stream(&sh->publishers.clients[i], run, i);
    }
}

static void shared_fini(struct shared *sh, const struct options *o)
{
    for (size_t i = 0; i < (size_t)o->groups * o->publishers; i++) {
        seqset_fini(&sh->came[i]);
    }
    herd_fini(&sh->publishers);
    herd_fini(&sh->members);
    free(sh->came);
    free(sh->next);
    free(sh->messages);
}

/* The numbers of a publisher below this came to every group. */
static uint64_t through(const void *context, uint32_t publisher)
{
    const struct shared *sh = context;
    uint64_t least = UINT64_MAX;

    for (uint32_t g = 0; g < sh->members.run->o->groups; g++) {
        uint64_t base = sh->came[(size_t)g * sh->publishers.n + publisher].base;

        least = base < least ? base : least;
    }
    return least;
}

/* What is missing, by its lowest number: a run that ended well misses nothing. */
static void report_missing(const struct shared *sh, struct run *run)
{
    for (uint32_t g = 0; g < run->o->groups; g++) {
        for (uint32_t p = 0; p < sh->publishers.n; p++) {
            uint64_t base = sh->came[(size_t)g * sh->publishers.n + p].base;

            if (base < sh->publishers.clients[p].stream.next) {
                run_fail(run, "group g%u: publisher %u: number %" PRIu64 " never came", g, p, base);
            }
        }
    }
}

static void judge_fairness(const struct shared *sh, struct run *run)
{
    uint32_t groups = run->o->groups;
    struct spread all = {.n = 0};
    double worst = 1;
    bool judged = true;

    for (uint32_t g = 0; g < groups; g++) {
        struct spread s = {.n = 0};

        for (uint32_t i = g; i < sh->members.n; i += groups) {
            spread_add(&s, sh->messages[i]);
            spread_add(&all, sh->messages[i]);
        }
        worst = spread_ratio(&s) < worst ? spread_ratio(&s) : worst;
        if (!spread_is_judged(&s)) {
            judged = false;
        } else if (!spread_is_fair(&s) && run->r.failures == 0) {
            run_fail(run, "group g%u is not fair: %" PRIu64 " to %" PRIu64 " messages a member", g,
                     s.min, s.max);
        }
    }
    run_note(run,
             ",\"groups\":%u,\"member_min\":%" PRIu64 ",\"member_max\":%" PRIu64
             ",\"fairness\":%.3f,\"fairness_judged\":%s",
             groups, all.min, all.max, worst, judged ? "true" : "false");
}

void shared_run(struct run *run)
{
    struct shared sh;

    shared_init(&sh, run);
    if (herd_pair_up(&sh.members, &sh.publishers)) {
        const struct drive_plan plan = {.publishers = &sh.publishers,
                                        .through = through,
                                        .context = &sh,
                                        .count = run->o->count};

        herd_drive(&plan);
        report_missing(&sh, run);
    }
    judge_fairness(&sh, run);
    herd_pair_end(&sh.members, &sh.publishers);
    shared_fini(&sh, run->o);
}
