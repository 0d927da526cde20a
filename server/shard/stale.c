/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages that expire while their session is away leave its queue: else they fill it, and what
 * lives is refused.
 *
 * Each queue knows when the first of its messages expires, and has a timer for that. What is in
 * memory is walked through then; what is on disk is read in pages, the next one when the one before
 * has been looked through. A queue that was read is not read again before a time that grows with
 * its length. Where a client reads, the queue is drained anyway and what has expired goes by the
 * way.
 *
 * Not known is what a queue holds that was found at the start: one that is full is looked through
 * once, and each is when it refuses a message.
 */
#include "server/shard/ticket.h"

#define STALE_TICK_MS  100    /* a timer for several */
#define STALE_AGAIN_MS 1000   /* between two looks at one queue, and */
#define STALE_ENTRIES  100u   /* a millisecond more for so many that were read */
#define STALE_WALK     65536u /* messages in memory looked at in one go */

static void stale_timer(void *owner, struct timer *t);

void stale_init(struct client *c)
{
    c->out->stale = (struct stale){.timer.fn = stale_timer, .client = c, .first_ms = INT64_MAX};
}

static void set_timer(struct shard *sh, struct stale *st, int64_t at_ms)
{
    at_ms = at_ms < st->next_ms ? st->next_ms : at_ms;
    timer_set(&sh->wheel, &st->timer, at_ms + STALE_TICK_MS);
}

void stale_note(struct shard *sh, struct client *c, int64_t expires_ms)
{
    struct stale *st = &c->out->stale;

    if (expires_ms != 0 && expires_ms < st->first_ms) {
        st->first_ms = expires_ms;
        set_timer(sh, st, expires_ms);
    }
}

static bool is_stale(const struct shard *sh, int64_t expires_ms)
{
    return expires_ms != 0 && expires_ms <= sh->now_ms;
}

/* Looks through one list; *first_ms becomes when the first of those that stay expires, if that is
 * earlier. */
static bool walk(struct shard *sh, struct client *c, struct out_list *l, int64_t *first_ms)
{
    uint32_t left = STALE_WALK;
    bool any = false;
    struct out_msg *next;

    for (struct out_msg *o = l->first; o != NULL && left > 0; o = next, left--) {
        const int64_t at = o->msg == NULL ? 0 : o->msg->expires_ms;
        next = o->next;
        if (is_stale(sh, at)) {
            shard_count(sh, METRIC_DROPPED_EXPIRED, 1);
            outq_discard(sh, c, l, o);
            any = true;
        } else if (at != 0 && at < *first_ms) {
            *first_ms = at;
        }
    }
    return any;
}

static bool walk_memory(struct shard *sh, struct client *c)
{
    struct outq *q = c->out;
    bool any = walk(sh, c, &q->queue, &q->stale.first_ms);

    return walk(sh, c, &q->disk.fresh, &q->stale.first_ms) || any;
}

/* All is looked at; the next time is when the first of what is left expires. */
static void end_look(struct shard *sh, struct stale *st)
{
    st->next_ms = sh->now_ms + STALE_AGAIN_MS + (int64_t)(st->read / STALE_ENTRIES);
    if (st->first_ms != INT64_MAX) {
        set_timer(sh, st, st->first_ms);
    }
}

static void look(struct shard *sh, struct client *c)
{
    struct outq *q = c->out;

    q->stale.first_ms = INT64_MAX;
    q->stale.read = 0;
    (void)walk_memory(sh, c);
    if (c->link != NULL || q->disk.count == 0) {
        end_look(sh, &q->stale);
    } else if (!spill_sweep(sh, c, q->disk.from)) { /* not now: tried again */
        q->stale.first_ms = sh->now_ms;
        end_look(sh, &q->stale);
    }
}

static void stale_timer(void *owner, struct timer *t)
{
    struct stale *st = (struct stale *)((char *)t - offsetof(struct stale, timer));

    look(owner, st->client);
}

bool stale_make_room(struct shard *sh, struct client *c)
{
    struct stale *st = &c->out->stale;
    bool any;

    if (sh->now_ms < st->next_ms) {
        return false; /* looked at a moment ago */
    }
    any = st->first_ms <= sh->now_ms && walk_memory(sh, c);
    if (c->link == NULL && c->out->disk.count > 0 && c->out->disk.page == NULL) {
        look(sh, c);
    } else {
        st->next_ms = sh->now_ms + STALE_TICK_MS;
    }
    return any;
}

void stale_swept(struct shard *sh, struct client *c, const struct store_page *p, uint64_t to)
{
    struct outq *q = c->out;
    uint64_t next = p->from_seq;
    bool more = p->more && p->n > 0;

    for (uint32_t i = 0; i < p->n; i++) {
        const struct store_entry *e = &p->entries[i];
        if (e->seq >= to) { /* still in memory, or spilled since */
            more = false;
            break;
        }
        next = e->seq + 1;
        if (is_stale(sh, e->expires_ms) && e->packet_id == 0 && e->seq >= q->disk.from) {
            shard_count(sh, METRIC_DROPPED_EXPIRED, 1);
            spill_drop_entry(sh, c, e);
            q->disk.count -= q->disk.count > 0;
        } else if (e->expires_ms != 0 && e->packet_id == 0 && e->expires_ms < q->stale.first_ms) {
            q->stale.first_ms = e->expires_ms;
        }
    }
    q->stale.read += p->n;
    sh->budget -= p->n;
    if (!more || c->link != NULL || !spill_sweep(sh, c, next)) {
        end_look(sh, &q->stale);
    }
}
