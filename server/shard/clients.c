/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of a shard's sessions, by client id.
 *
 * The upper bits of an id's hash choose a segment, the lower ones a bucket in it. A segment doubles
 * on its own: with a million sessions a growth moves four thousand of them, not all in one turn.
 */
#include "server/shard/internal.h"

#include <stdlib.h>

#define SEGMENT_FIRST 4u /* buckets */

bool clients_init(struct shard *sh)
{
    sh->clients = calloc(CLIENT_SEGMENTS, sizeof(*sh->clients));
    return sh->clients != NULL;
}

static uint32_t id_hash(const struct shard *sh, struct span id)
{
    /* The key's upper half: the lower bits chose the shard and are alike here. */
    return (uint32_t)(hash_span(id, sh->b->hash_key) >> 32);
}

static struct client_segment *segment_of(const struct shard *sh, uint32_t hash)
{
    return &sh->clients[hash / (UINT32_MAX / CLIENT_SEGMENTS + 1u)];
}

static struct client **bucket_of(const struct client_segment *s, uint32_t hash)
{
    return &s->buckets[hash & (s->cap - 1u)];
}

struct client *clients_of_hash(const struct shard *sh, uint32_t hash)
{
    const struct client_segment *s = segment_of(sh, hash);

    return s->cap == 0 ? NULL : *bucket_of(s, hash);
}

struct client *client_find(struct shard *sh, struct span id)
{
    const uint32_t hash = id_hash(sh, id);

    for (struct client *c = clients_of_hash(sh, hash); c != NULL; c = c->hash_next) {
        if (c->id_hash == hash && span_eq(client_id(c), id)) {
            return c;
        }
    }
    return NULL;
}

static void put(struct client_segment *s, struct client *c)
{
    struct client **b = bucket_of(s, c->id_hash);

    c->hash_next = *b;
    *b = c;
}

/* False: no memory; the segment is as it was. */
static bool grow(struct client_segment *s, uint32_t cap)
{
    const struct client_segment old = *s;
    struct client **bigger = calloc(cap, sizeof(*bigger));

    if (bigger == NULL) {
        return false;
    }
    s->buckets = bigger;
    s->cap = cap;
    for (uint32_t i = 0; i < old.cap; i++) {
        while (old.buckets[i] != NULL) {
            struct client *c = old.buckets[i];
            old.buckets[i] = c->hash_next;
            put(s, c);
        }
    }
    free(old.buckets);
    return true;
}

void clients_reserve(struct shard *sh, uint64_t n)
{
    uint32_t cap = SEGMENT_FIRST;

    while ((uint64_t)cap * CLIENT_SEGMENTS < n && cap < UINT32_C(1) << 22) {
        cap *= 2;
    }
    for (uint32_t i = 0; i < CLIENT_SEGMENTS && n > 0; i++) {
        if (sh->clients[i].cap < cap && !grow(&sh->clients[i], cap)) {
            return; /* they grow as sessions come */
        }
    }
}

bool clients_put(struct shard *sh, struct client *c)
{
    struct client_segment *s;

    c->id_hash = id_hash(sh, client_id(c));
    s = segment_of(sh, c->id_hash);
    /* A segment that cannot grow stays as it is: slower, not wrong. */
    if (s->n >= s->cap && !grow(s, s->cap == 0 ? SEGMENT_FIRST : s->cap * 2) && s->cap == 0) {
        return false;
    }
    put(s, c);
    s->n++;
    sh->clients_n++;
    return true;
}

void clients_remove(struct shard *sh, struct client *c)
{
    struct client_segment *s = segment_of(sh, c->id_hash);
    struct client **at = bucket_of(s, c->id_hash);

    while (*at != c) {
        at = &(*at)->hash_next;
    }
    *at = c->hash_next;
    s->n--;
    sh->clients_n--;
}

bool clients_walk_next(const struct shard *sh, struct clients_walk *w, struct client **first)
{
    const struct client_segment *s;

    while (w->segment < CLIENT_SEGMENTS) {
        s = &sh->clients[w->segment];
        if (w->cap != s->cap) { /* entered, or nobody is where he was */
            w->cap = s->cap;
            w->at = 0;
        }
        if (w->at < s->cap) {
            *first = s->buckets[w->at++];
            return true;
        }
        w->segment++;
        w->cap = 0;
    }
    return false;
}

void clients_fini(struct shard *sh)
{
    for (uint32_t i = 0; i < CLIENT_SEGMENTS; i++) {
        const struct client_segment *s = &sh->clients[i];
        for (uint32_t at = 0; at < s->cap; at++) {
            while (s->buckets[at] != NULL) {
                client_end(sh, s->buckets[at]);
            }
        }
    }
    while (client_bury(sh)) {}
    for (uint32_t i = 0; i < CLIENT_SEGMENTS; i++) {
        free(sh->clients[i].buckets);
    }
    free(sh->clients);
    sh->clients = NULL;
}
