/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retained.h - the index of retained messages: topic -> message, in stripes, with replay by filter.
 *
 * Under a topic's stripe lock a retained publish takes the next number of one counter, changes the
 * index, and is handed to the store and to every interested shard, so that index, disk and wire
 * agree on who was last. A new subscription is put into the tree first, then reads
 * retained_counter() (seq_cst both), replays messages up to that number and takes live ones only
 * above it: nothing missed, nothing twice.
 *
 * Each stripe keeps its topics in an order that treats '/' as the smallest byte, so that a level's
 * children are one run; a filter walks it by seeking, visiting about as many entries as it returns.
 *
 * The index may hold stubs (message.h): then the body is in the store only, and who replays it has
 * it read there. Limits and statistics count it all the same.
 *
 * Threads    any. Between retained_lock() and retained_unlock() only short, non-blocking work.
 * Ownership  the index holds one reference for each message in it.
 * Errors     RETAINED_NOMEM, RETAINED_FULL (count or bytes): index unchanged.
 */
#ifndef NOCTULE_ROUTING_RETAINED_H
#define NOCTULE_ROUTING_RETAINED_H

#include "routing/message.h"

enum retained_rc {
    RETAINED_SET,     /* new topic */
    RETAINED_CHANGED, /* replaced what was there */
    RETAINED_CLEARED, /* empty payload [MQTT-3.3.1-6] and something was there */
    RETAINED_NOTHING, /* empty payload and nothing was there */
    RETAINED_FULL,
    RETAINED_NOMEM,
};

struct retained;
struct retained_stripe;

/* Limits: 0 means none; messages that are the broker's own count for neither. nstripes is a power
 * of two. */
struct retained *retained_create(unsigned nstripes, uint64_t max_count, uint64_t max_bytes,
                                 uint64_t seed);
void retained_destroy(struct retained *r);
/* Others from now on, for what is put from now on; any thread. */
void retained_set_limits(struct retained *r, uint64_t max_count, uint64_t max_bytes);

/* Locks the topic's stripe. */
struct retained_stripe *retained_lock(struct retained *r, const char *topic, size_t n);
/* The next number; for a message about to be set under this lock. */
uint64_t retained_take_number(struct retained_stripe *s);
/* m->topic, m->number are set; takes its own reference unless the payload is empty. */
enum retained_rc retained_put(struct retained_stripe *s, struct message *m)
    __attribute__((warn_unused_result));
void retained_unlock(struct retained_stripe *s);

/*
 * retained_put() for each of v[0, n), which are messages with a payload and were in an index
 * before: references as there, but no limits, which are for new ones. Works through one stripe
 * after the other, so that what it searches stays in the caches: with a million topics a put costs
 * half. False: no memory, some are missing.
 */
bool retained_put_all(struct retained *r, struct message **v, size_t n)
    __attribute__((warn_unused_result));

uint64_t retained_counter(const struct retained *r);
/* At start, with messages that carry numbers of an earlier run: the next one is above `number`. */
void retained_go_on_from(struct retained *r, uint64_t number);

/* The store has m: a stub takes its place, unless another message has it already. No memory: m
 * stays. */
void retained_move_out(struct retained *r, struct message *m);
/* Whether m, or its stub, is still the message of its topic. */
bool retained_is_current(struct retained *r, const struct message *m);

/* ---- replay ---- */
/* Owns a copy of the filter and a reference to the message it has reached. */
struct retained_cursor;

struct retained_cursor *retained_cursor_create(const char *filter, size_t n, uint64_t up_to_number);
void retained_cursor_destroy(struct retained_cursor *c);
/*
 * Up to max messages that match, number not above up_to_number, a reference each for the caller;
 * *done: nothing left. Work per call is bounded (a stripe's lock is held for a few hundred steps at
 * most), so 0 messages with *done false is possible. A message that has expired at now_ms is
 * skipped.
 */
size_t retained_next(struct retained *r, struct retained_cursor *c, int64_t now_ms,
                     struct message **out, size_t max, bool *done);

/* fn is told of every message that expires, under its stripe's lock: before anything newer of the
 * topic is handed to the store. Once, before other threads use the index. */
void retained_on_expiry(struct retained *r, void (*fn)(void *arg, struct message *m), void *arg);
/* Removes up to max messages expired at now_ms, going round; returns how many. For a slow timer. */
size_t retained_expire(struct retained *r, int64_t now_ms, size_t max);

struct retained_stats {
    uint64_t count;
    uint64_t bytes;
};
void retained_stats(const struct retained *r, struct retained_stats *out);

#endif
