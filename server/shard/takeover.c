/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CONNECT whose client id has a connection: that one ends first [MQTT-3.1.4-3], but not before
 * what its client had sent over it is handled. Clients that change networks write, close and
 * connect again at once; their last messages and their DISCONNECT lie in the old socket then.
 *
 * The handover waits with the old connection, which is read on until its socket has ended. One that
 * had nothing to read is idle, or its client has gone without a word: looked at EMPTY_LOOKS times
 * it is over. One that had, or is in the middle of a packet, may have more in the peer's kernel,
 * which moves up when there is room: it is looked at once more when nothing has come for QUIET_MS.
 *
 * What the peer sends meanwhile does not count, so it is no more than TAKEOVER_BYTES, and it is no
 * longer than TAKEOVER_MS. That time is one of turns as well: a shard that had no processor for a
 * while comes to its timers before it has read anything, and has to look TAKEOVER_LOOKS times in
 * any case. Where it may not read, since the publisher is paused, time alone ends the wait; whoever
 * waits for the store with its CONNACK gets the time that the store gets.
 *
 * Then, or when it ends for a reason of its own, the old connection is closed and reaped, and the
 * new CONNECT is handled as one without a rival.
 *
 * Several may wait for one connection, in the order of their stamps. The first of them takes the
 * others along: they wait for its connection next, which has the same right to be read.
 */
#include "server/shard/internal.h"

#define TAKEOVER_MS    (2 * PAUSE_MAX_MS) /* a pause is over by then, and what is behind it read */
#define TAKEOVER_LOOKS 64u                /* turns */
#define TAKEOVER_BYTES ((size_t)16 << 20) /* more than the buffers of both kernels hold */
#define EMPTY_LOOKS    2u                 /* turns */
#define QUIET_MS       20

static void finish(struct shard *sh, struct link *l)
{
    shard_count(sh, METRIC_CLIENTS_TAKEN_OVER, 1);
    log_limited(sh->b->log, LOGL_NOTICE, LOGR_CONNECTION,
                "client " CLIENT_FMT " already connected, closing old connection",
                CLIENT_ARGS(l->client));
    link_close(sh, l, RC_SESSION_TAKEN_OVER, NULL);
}

/* It has read what was there, and is not kept from handling it. */
static bool is_through(const struct link *l)
{
    return l->state == LINK_OPEN && !l->is_paused && l->progress == NULL && !l->unparsed &&
           (!l->readable || l->takers->left == 0);
}

static void wait_for(struct shard *sh, struct link *l, struct handover *takers)
{
    takers->left = TAKEOVER_BYTES;
    takers->looks = 0;
    takers->empty_looks = 0;
    takers->until_ms = sh->now_ms + (l->state == LINK_CONNECTING ? STORE_PAUSE_MS : TAKEOVER_MS);
    l->takers = takers;
    l->is_taken = true;
    timer_set(&sh->wheel, &l->timer, takers->until_ms);
    l->readable = true;
    link_ready(sh, l);
}

/* Into the list, in the order of stamps; mostly it is the last. */
static struct handover *insert(struct handover *first, struct handover *h)
{
    struct handover **at = &first;

    if (first->last->stamp < h->stamp) {
        first->last->next = h;
        first->last = h;
        return first;
    }
    while ((*at)->stamp < h->stamp) {
        at = &(*at)->next;
    }
    h->next = *at;
    h->last = first->last;
    h->left = first->left; /* it may become the first */
    h->looks = first->looks;
    h->empty_looks = first->empty_looks;
    h->until_ms = first->until_ms;
    *at = h;
    return first;
}

static void release(struct shard *sh, struct handover *takers)
{
    takers->chain_next = NULL;
    *sh->takers_last = takers;
    sh->takers_last = &takers->chain_next;
}

void takeover_begin(struct shard *sh, struct link *l, struct handover *h)
{
    h->next = NULL;
    h->last = h;
    if (l->is_taken) {
        l->takers = insert(l->takers, h);
    } else if (l->state == LINK_OPEN || l->state == LINK_CONNECTING) {
        wait_for(sh, l, h);
    } else { /* it ends in this turn */
        assert(l->state == LINK_CLOSING);
        release(sh, h);
    }
}

void takeover_count(struct link *l, size_t got)
{
    struct handover *h = l->takers;

    assert(l->is_taken);
    h->left -= got < h->left ? got : h->left;
    if (got > 0) {
        h->empty_looks = 0;
    }
}

/* Whether it is over, with all that was found handled. */
static bool is_over(const struct link *l)
{
    const struct handover *h = l->takers;

    return is_through(l) && (h->left == 0 || h->empty_looks == EMPTY_LOOKS);
}

static bool is_overdue(const struct shard *sh, const struct handover *h)
{
    return sh->now_ms >= h->until_ms && h->looks >= TAKEOVER_LOOKS;
}

void takeover_look(struct shard *sh, struct link *l)
{
    struct handover *h = l->takers;

    if (h->looks++ == 0) { /* the time to read begins now */
        h->until_ms = sh->now_ms + TAKEOVER_MS;
        timer_set(&sh->wheel, &l->timer, h->until_ms);
    }
    if (is_through(l)) {
        h->empty_looks++;
    }
    if (is_over(l) || is_overdue(sh, h)) {
        finish(sh, l);
    } else if (is_through(l) && (h->left < TAKEOVER_BYTES || l->conn.tail_n > 0)) {
        timer_set(&sh->wheel, &l->timer, sh->now_ms + QUIET_MS);
    } else if (is_through(l)) {
        l->readable = true; /* looked at once more, in the next turn */
    }
}

void takeover_expire(struct shard *sh, struct link *l)
{
    struct handover *h = l->takers;
    const int64_t next_ms = sh->now_ms + TIMER_TICK_MS;

    if (is_through(l)) { /* it has been quiet */
        l->readable = true;
        link_ready(sh, l);
    }
    if (sh->now_ms >= h->until_ms && !l->is_ready) { /* kept from being read */
        finish(sh, l);
        return;
    }
    timer_set(&sh->wheel, &l->timer, h->until_ms > next_ms ? h->until_ms : next_ms);
}

void takeover_release(struct shard *sh, struct link *l)
{
    release(sh, l->takers);
    l->takers = NULL;
    l->is_taken = false;
}

/* The first goes on as a CONNECT without a rival; the others wait for its connection. */
static void run_chain(struct shard *sh, struct handover *h)
{
    while (h != NULL) {
        struct handover *rest = h->next;
        struct handover *last = h->last;
        struct link *l = handle_connect(sh, h);

        if (rest != NULL) {
            rest->last = last;
        }
        if (rest != NULL && l != NULL && l->state != LINK_CLOSING) {
            wait_for(sh, l, rest);
            return;
        }
        h = rest;
    }
}

void takeover_run(struct shard *sh)
{
    struct handover *list = sh->takers;

    sh->takers = NULL;
    sh->takers_last = &sh->takers;
    while (list != NULL) {
        struct handover *h = list;
        list = h->chain_next;
        run_chain(sh, h);
    }
}

void takeover_drop_all(struct shard *sh)
{
    while (sh->takers != NULL) {
        struct handover *h = sh->takers;

        sh->takers = h->chain_next;
        while (h != NULL) {
            struct handover *next = h->next;
            handover_drop(h);
            h = next;
        }
    }
    sh->takers_last = &sh->takers;
}
