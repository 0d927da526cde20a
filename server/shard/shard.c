/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread of a shard.
 *
 * One turn: wait (or only look, when there is work left), note which sockets are ready, mail,
 * timers, paused work, packets of ready connections, then write every touched connection once and
 * end those that are doomed. Each step has a limit; what is left keeps the next wait at zero.
 */
#include "server/shard/ticket.h"

#include "routing/rcu.h"
#include "server/base/rng.h"
#include "storage/slice.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define MATCH_CACHE_SLOTS 16384u
#define FILTERS_PER_SLOT  2u /* of the match caches of all shards together, where that is more */
#define MAIL_PER_TURN     4096

/* ---- mail ---- */

static void flush_bundles(struct shard *sh)
{
    for (unsigned i = 0; i < sh->b->nshards; i++) {
        post_flush(&sh->post, &sh->b->shards[i]->post);
    }
}

/* True: more is there. */
static bool read_mail(struct shard *sh)
{
    bool looks_ahead = ahead_of_mail_is_worthwhile(sh);
    struct ahead_mail ahead = {0};
    int left = MAIL_PER_TURN;

    while (left > 0 && sh->budget > 0) {
        struct post_item *item;

        if (sh->post.inbox == NULL) {
            if (!post_fetch(&sh->post)) {
                return false;
            }
            sh->lodge.turns++;
        }
        if (looks_ahead && ahead.last == NULL) {
            ahead_mail_begin(sh, &ahead, sh->post.inbox);
        } else if (looks_ahead) {
            ahead_mail_step(sh, &ahead);
        }
        item = post_take(&sh->post);
        left--;
        item->fn(sh, item);
    }
    return true;
}

struct connect_mail {
    struct post_item mail;
    struct handover *h;
};

static void connect_mail(struct shard *sh, struct post_item *m)
{
    struct handover *h = ((struct connect_mail *)m)->h;

    free(m);
    (void)handle_connect(sh, h);
}

void shard_give(struct shard *sh, struct handover *h)
{
    struct connect_mail *m = malloc(sizeof(*m));

    if (m == NULL) {
        handover_drop(h);
        return;
    }
    m->mail.fn = connect_mail;
    m->h = h;
    post_deliver(&sh->post, &m->mail);
}

struct publish_mail {
    struct post_item mail;
    struct message *msg;
};

static void publish_mail(struct shard *sh, struct post_item *m)
{
    struct route r = {.msg = ((struct publish_mail *)m)->msg};

    free(m);
    if (!route_publish(sh, &r)) {
        shard_count(sh, METRIC_DROPPED_MEMORY, 1);
    }
}

void shard_publish(struct shard *sh, struct message *msg)
{
    struct publish_mail *m = malloc(sizeof(*m));

    if (m == NULL) {
        message_unref(msg);
        return;
    }
    m->mail.fn = publish_mail;
    m->msg = msg;
    post_deliver(&sh->post, &m->mail);
}

/* ---- connections ---- */

static void linger(struct shard *sh, struct link *l)
{
    size_t got;
    enum conn_rc rc = conn_discard(&l->conn, sh->scratch, READ_SCRATCH, &got);

    shard_count(sh, METRIC_BYTES_RECEIVED, (int64_t)got);
    if (rc == CONN_EOF || rc == CONN_ERROR) {
        link_free(sh, l);
    }
}

static void note_event(struct shard *sh, struct link *l, uint32_t events)
{
    if (l->state == LINK_LINGERING) {
        linger(sh, l);
        return;
    }
    if ((events & (EPOLLIN | LOOP_ENDED)) != 0) {
        l->readable = true;
        l->conn.ended = l->conn.ended || (events & LOOP_ENDED) != 0;
        link_ready(sh, l);
    }
    if ((events & EPOLLOUT) != 0 && l->conn.blocked) {
        l->conn.blocked = false;
        link_dirty(sh, l);
    }
}

static void flush_dirty(struct shard *sh)
{
    while (sh->dirty != NULL) {
        struct link *l = sh->dirty;
        sh->dirty = l->dirty_next;
        sh->ndirty--;
        l->is_dirty = false;
        if (l->state == LINK_GONE) {
            link_forget(l);
        } else if (l->state != LINK_CLOSING && l->state != LINK_LINGERING) {
            link_flush(sh, l);
        }
    }
}

/* One connection's share of the turn: all that is left if no other waits. True: it has more. */
static bool read_link(struct shard *sh, struct link *l, bool others_wait)
{
    int64_t rest = others_wait && sh->budget > LINK_SHARE ? sh->budget - LINK_SHARE : 0;
    bool more;

    sh->budget -= rest;
    more = link_parse(sh, l);
    sh->budget += rest;
    return more;
}

static struct link *take_ready(struct shard *sh)
{
    struct link *l = sh->ready;

    sh->ready = l->ready_next;
    if (sh->ready == NULL) {
        sh->ready_last = &sh->ready;
    }
    l->is_ready = false;
    sh->nready--;
    return l;
}

/* Parses what is ready, each connection once. Who was not served for want of budget is first in the
 * next turn, who has more is last. True: there are such. */
static bool read_ready(struct shard *sh)
{
    for (uint32_t n = sh->nready; n > 0 && sh->budget > 0; n--) {
        struct link *l = take_ready(sh);

        if (l->state == LINK_GONE) {
            link_forget(l);
        } else if (read_link(sh, l, n > 1)) {
            link_ready(sh, l);
        }
        if (sh->ndirty >= TURN_FLUSH) {
            flush_dirty(sh);
        }
    }
    return sh->ready != NULL;
}

static void resume_paused(struct shard *sh)
{
    struct link *list = sh->paused;
    bool pressure = atomic_load_explicit(&sh->b->memory_pressure, memory_order_relaxed);

    sh->paused = NULL;
    while (list != NULL) {
        struct link *l = list;
        list = l->paused_next;
        l->is_paused = false;
        bool hold =
            pressure || sh->backlog || (l->store_pause && store_health(sh->b->store) != ST_OK);
        if (hold && sh->now_ms < l->pause_until_ms && l->state == LINK_OPEN) {
            link_pause(sh, l, l->pause_until_ms);
            continue;
        }
        l->unparsed = true;
        link_touch_keepalive(sh, l);
        link_ready(sh, l);
    }
}

/* Who is about to end waits for nothing. One pass for all of them: thousands may be paused. */
static void unpause_doomed(struct shard *sh)
{
    struct link **at = &sh->paused;

    while (*at != NULL) {
        struct link *l = *at;
        if (l->state == LINK_CLOSING) {
            *at = l->paused_next;
            l->is_paused = false;
        } else {
            at = &l->paused_next;
        }
    }
}

static void reap_doomed(struct shard *sh)
{
    while (sh->doomed != NULL) { /* the end of some may doom others */
        struct link *list = sh->doomed;

        sh->doomed = NULL;
        unpause_doomed(sh);
        while (list != NULL) {
            struct link *l = list;
            list = l->doomed_next;
            link_reap(sh, l);
        }
    }
}

/* A target's mailbox is far behind: publishers here rest a little. Looked at once a turn. */
static bool has_backlog(const struct shard *sh)
{
    for (unsigned i = 0; i < sh->b->nshards; i++) {
        const struct shard *to = sh->b->shards[i];
        if (i != sh->index && post_depth(&to->post) > MAILBOX_HIGH) {
            return true;
        }
    }
    return false;
}

/* ---- turns ---- */

static int wait_ms(struct shard *sh)
{
    int ms;
    int held;

    if (sh->work_left || sh->post.inbox != NULL) {
        return 0;
    }
    if (sh->paused != NULL || sh->relief.since_ms != 0) {
        return TIMER_TICK_MS;
    }
    ms = timer_wheel_wait_ms(&sh->wheel, sh->now_ms);
    held = ticket_wait_ms(sh);
    return held >= 0 && (ms < 0 || held < ms) ? held : ms;
}

/* Of all shards that this thread runs. */
static int longest_wait_ms(struct shard *sh)
{
    int ms = wait_ms(sh);

    for (unsigned i = 0; i < sh->lodge.nguests && ms != 0; i++) {
        struct shard *guest = sh->lodge.guests[i];
        int own;
        guest->now_ms = sh->now_ms; /* it had no turn if there was nothing to do */
        own = wait_ms(guest);
        ms = own >= 0 && (ms < 0 || own < ms) ? own : ms;
    }
    return ms;
}

/* Arms the mailboxes of all shards that this thread runs; false: one holds mail. */
static bool prepare_sleep(struct shard *sh)
{
    bool sleep = mailbox_prepare_sleep(&sh->post.mailbox);

    for (unsigned i = 0; i < sh->lodge.nguests && sleep; i++) {
        sleep = mailbox_prepare_sleep(&sh->lodge.guests[i]->post.mailbox);
    }
    return sleep;
}

/* The guests' mailboxes; its own is the turn's. Before any turn: what shards of one thread push to
 * each other wakes nobody. */
static void guests_awake(struct shard *sh)
{
    for (unsigned i = 0; i < sh->lodge.nguests; i++) {
        mailbox_awake(&sh->lodge.guests[i]->post.mailbox, false);
    }
}

/* Few while enough connections are ready that a turn does not come to their end: the kernel keeps
 * the others in their order as well, and looks at each socket when it reports it. Reported early,
 * it is out of the processor's caches again when it is read. */
static int look_for_events(struct shard *sh)
{
    return loop_look(&sh->loop, sh->nready < READY_ENOUGH ? LOOP_EVENTS : EVENTS_LEAST);
}

static int wait_events(struct shard *sh)
{
    int ms = longest_wait_ms(sh);
    int n;

    sh->lodge.gauge.waits++;
    if (ms == 0) {
        n = look_for_events(sh);
        rcu_quiescent();
        return n;
    }
    if (!prepare_sleep(sh)) {
        mailbox_awake(&sh->post.mailbox, false);
        guests_awake(sh);
        rcu_quiescent();
        return look_for_events(sh);
    }
    sh->lodge.gauge.sleeps++;
    rcu_offline();
    n = loop_wait(&sh->loop, ms);
    rcu_online();
    guests_awake(sh);
    return n;
}

static void add_budget(struct shard *sh, int64_t n)
{
    sh->budget = (sh->budget > 0 ? sh->budget : 0) + n;
}

static void take_config(struct shard *sh)
{
    const struct config *cfg = atomic_load_explicit(&sh->b->config, memory_order_acquire);

    if (cfg != sh->cfg) {
        sh->cfg = cfg;
        sh->known_topic_n = 0;
    }
}

/* Of the n events of its loop, and of everything else. */
static void take_turn(struct shard *sh, int n)
{
    bool mail = false;
    bool own = false;
    bool left;

    sh->now_ms = clock_now_ms(sh->b->clock);
    take_config(sh);
    for (int i = 0; i < n; i++) {
        struct epoll_event *ev = &sh->loop.events[i];
        if (ev->data.ptr == sh) {
            mail = true;
        } else if (is_shard_tag(ev->data.ptr)) {
            shard_of_tag(ev->data.ptr)->lodge.has_events = true;
        } else {
            note_event(sh, ev->data.ptr, ev->events);
            own = true;
        }
    }
    mailbox_awake(&sh->post.mailbox, mail);
    sh->lodge.turns += own;
    sh->backlog = has_backlog(sh);
    if (sh->paused != NULL) {
        resume_paused(sh);
    }
    left = timer_wheel_advance(&sh->wheel, sh->now_ms, sh, TURN_TIMERS);
    /* Each kind of work has its share and what the ones before it left: none starves another. */
    sh->budget = TURN_JOBS;
    left = deliver_jobs(sh) || left;
    add_budget(sh, TURN_MAIL);
    left = read_mail(sh) || left;
    add_budget(sh, TURN_SOCKETS);
    left = read_ready(sh) || left;
    if (sh->replays != NULL) {
        left = replay_run(sh) || left;
    }
    left = relief_run(sh) || left;
    ticket_run_gone(sh);
    ticket_flush_chain(sh); /* the store begins while we write */
    flush_bundles(sh);
    flush_dirty(sh);
    reap_doomed(sh); /* may publish wills */
    takeover_run(sh);
    ticket_run_gone(sh);
    ticket_expire(sh);
    ticket_flush_lazy(sh);
    flush_bundles(sh);
    flush_dirty(sh);
    left = client_bury(sh) || left;
    sh->work_left = left || sh->doomed != NULL || sh->ready != NULL || sh->jobs != NULL;
}

static void turn(struct shard *sh)
{
    take_turn(sh, wait_events(sh));
}

static void guest_turn(struct shard *guest)
{
    int n = guest->lodge.has_events ? loop_wait(&guest->loop, 0) : 0;

    guest->lodge.has_events = false;
    take_turn(guest, n);
    guest->lodge.turn_ms = guest->now_ms;
}

/* Time alone is a reason as well: what it paused waits for that, however busy its host is. */
static bool has_turn(struct shard *guest)
{
    return guest->lodge.has_events || mailbox_depth(&guest->post.mailbox) > 0 ||
           guest->now_ms - guest->lodge.turn_ms >= TIMER_TICK_MS || wait_ms(guest) == 0;
}

static void guests_turns(struct shard *sh)
{
    unsigned i = 0;

    while (i < sh->lodge.nguests) {
        struct shard *guest = sh->lodge.guests[i];
        /* acquire: as in run(). */
        if (atomic_load_explicit(&guest->stop, memory_order_acquire)) {
            lodge_send_home(sh, i);
            continue;
        }
        guest->now_ms = sh->now_ms;
        if (has_turn(guest)) {
            guest_turn(guest);
        }
        i++;
    }
}

static void *run(void *arg)
{
    struct shard *sh = arg;

    thread_short_slice(); /* messages and the store's answers wait for it where others compute */
    rcu_register();
    /* acquire: partner of the release in shard_ask_to_stop(). */
    while (!atomic_load_explicit(&sh->stop, memory_order_acquire)) {
        turn(sh);
        guests_turns(sh);
        lodge_look(sh);
    }
    lodge_end(sh);
    rcu_unregister();
    return NULL;
}

/* ---- life ---- */

struct shard *shard_create(struct broker_shared *b, unsigned index)
{
    struct shard *sh = aligned_alloc(64, (sizeof(*sh) + 63) / 64 * 64);

    if (sh == NULL) {
        return NULL;
    }
    memset(sh, 0, sizeof(*sh));
    sh->b = b;
    sh->cfg = atomic_load_explicit(&b->config, memory_order_acquire);
    sh->index = index;
    sh->keeps = store_keeps(b->store);
    sh->spills = sh->cfg->persistence;
    sh->now_ms = clock_now_ms(b->clock);
    sh->loop.epoll_fd = -1;
    sh->ready_last = &sh->ready;
    sh->jobs_last = &sh->jobs;
    sh->takers_last = &sh->takers;
    sh->replays_last = &sh->replays;
    timer_wheel_init(&sh->wheel, sh->now_ms);
    sh->onward = calloc(b->nshards, sizeof(*sh->onward));
    sh->scratch = malloc(READ_SCRATCH + TOPIC_TEXT_MAX);
    sh->subs = subscribers_create(b->tree, index, rng_u64());
    sh->cache = match_cache_create(b->tree, MATCH_CACHE_SLOTS,
                                   (size_t)FILTERS_PER_SLOT * b->nshards, rng_u64());
    if (sh->onward == NULL || sh->scratch == NULL || sh->subs == NULL || sh->cache == NULL ||
        !clients_init(sh) || !lodge_init(sh) || !loop_init(&sh->loop) ||
        !post_init(&sh->post, index, b->nshards) ||
        !loop_add(&sh->loop, sh->post.mailbox.event_fd, LOOP_READ, sh)) {
        const int why = errno;
        shard_destroy(sh);
        errno = why;
        return NULL;
    }
    return sh;
}

bool shard_start(struct shard *sh)
{
    pthread_attr_t attr;
    char name[16];
    int rc;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    rc = pthread_create(&sh->thread, &attr, run, sh);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        errno = rc;
        return false;
    }
    sh->started = true;
    snprintf(name, sizeof(name), "shard-%u", sh->index);
    pthread_setname_np(sh->thread, name);
    return true;
}

static void wake_up(struct shard *sh, struct post_item *m)
{
    (void)sh;
    free(m);
}

void shard_ask_to_stop(struct shard *sh)
{
    struct post_item *m = malloc(sizeof(*m));

    atomic_store_explicit(&sh->stop, true, memory_order_release);
    if (m != NULL) {
        m->fn = wake_up;
        post_deliver(&sh->post, m);
    }
    lodge_stop(sh);
}

void shard_join(struct shard *sh)
{
    if (sh->started) {
        pthread_join(sh->thread, NULL);
        sh->started = false;
    }
}

const struct metrics *shard_metrics(const struct shard *sh)
{
    return &sh->metrics;
}

/* The last turns, on the thread that stops the broker: say goodbye, answer what the store still
 * holds. */
void shard_close_clients(struct shard *sh, enum mqtt_reason reason)
{
    struct clients_walk walk = {0};
    struct client *c;

    while (clients_walk_next(sh, &walk, &c)) {
        for (; c != NULL; c = c->hash_next) {
            if (c->link != NULL) {
                c->link->orderly = true; /* a shut-down is no reason for wills */
                c->link->said_goodbye = true;
                will_free(
                    &c->will); /* stays in the store: published if its client does not come back */
                link_close(sh, c->link, reason, NULL);
            }
        }
    }
    reap_doomed(sh);
    takeover_drop_all(sh);
}

void shard_forget_store(struct shard *sh)
{
    ticket_flush(sh);
    sh->keeps = false;
    sh->spills = false;
    sh->ending = true;
}

bool shard_has_mail(const struct shard *sh)
{
    return sh->post.inbox != NULL || post_depth(&sh->post) > 0;
}

void shard_drain_mail(struct shard *sh)
{
    do {
        sh->budget = INT64_MAX;
    } while (read_mail(sh));
    while (client_bury(sh)) {} /* what is left of a large fan-out is not for those who have gone */
    (void)deliver_jobs(sh);
    ticket_run_gone(sh);
    flush_dirty(sh); /* also lest each of 100,000 that end is looked for in a list of them */
    reap_doomed(sh);
    ticket_flush(sh);
    flush_bundles(sh);
}

static void free_jobs(struct shard *sh)
{
    sh->budget = INT64_MAX;
    (void)deliver_jobs(sh);
}

void shard_destroy(struct shard *sh)
{
    if (sh == NULL) {
        return;
    }
    while (sh->lingering != NULL) {
        link_free(sh, sh->lingering);
    }
    while (sh->ready != NULL) { /* connections that have gone: all have */
        struct link *l = take_ready(sh);
        assert(l->state == LINK_GONE);
        link_forget(l);
    }
    flush_dirty(sh); /* likewise */
    sh->ending = true;
    if (sh->clients != NULL) {
        free_jobs(sh);
        clients_fini(sh);
        replay_fini(sh);
        will_fini(sh);
    }
    for (unsigned i = 0; i < ROUTED; i++) {
        if (sh->routed[i] != NULL) {
            match_unref(sh->routed[i]);
        }
    }
    if (sh->cache != NULL) {
        match_cache_destroy(sh->cache);
    }
    if (sh->subs != NULL) {
        subscribers_destroy(sh->subs);
    }
    post_fini(&sh->post);
    loop_fini(&sh->loop);
    lodge_fini(sh);
    outq_free_spare(sh);
    ticket_free_spare(sh);
    free(sh->onward);
    free(sh->copies);
    free(sh->ids);
    free(sh->scratch);
    free(sh);
}
