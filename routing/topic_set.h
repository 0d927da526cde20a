/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_set.h - messages in the order of their topics, '/' sorting as the smallest byte, so that a
 * topic is followed by everything below it.
 *
 * A directory of leaves of up to TOPIC_LEAF pointers, both sorted. Finding a topic is a binary
 * search over the directory (it keeps short separators of its own) and a look at one byte of hash
 * for each entry of the leaf, so the messages themselves are hardly touched.
 *
 * Threads    none of its own: the caller locks.
 * Ownership  pointers only; references are the caller's.
 * Errors     topic_set_add: no memory; the set is unchanged.
 */
#ifndef NOCTULE_ROUTING_TOPIC_SET_H
#define NOCTULE_ROUTING_TOPIC_SET_H

#include "routing/message.h"

#define TOPIC_LEAF 69u

struct topic_leaf {
    uint16_t n;
    uint8_t prints[TOPIC_LEAF]; /* a byte of each topic's hash */
    int64_t soonest_ms;         /* nothing in here expires before; INT64_MAX: nothing at all */
    struct message *messages[TOPIC_LEAF];
};

struct topic_sep; /* a text that is above everything to the left and not above anything to the right
                   */

struct topic_dir_entry {
    struct topic_sep *sep; /* owned; NULL for the first leaf */
    struct topic_leaf *leaf;
};

struct topic_set {
    struct topic_dir_entry *dir;
    uint32_t n, cap;
    size_t bytes; /* memory taken, without the messages */
};

/* A text to seek to, in two parts so that nothing has to be put together. */
struct topic_key {
    const char *a, *b;
    size_t an, bn;
};

struct topic_pos {
    uint32_t leaf, at;
};

/* < 0, 0, > 0 */
int topic_compare(const char *a, size_t an, const char *b, size_t bn);
int topic_key_compare(const struct topic_key *k, const char *t, size_t n);

/* A set begins as {0}. */
void topic_set_fini(struct topic_set *s);

/* The topic's message, and its position until the set changes; or NULL. */
struct message *topic_set_find(const struct topic_set *s, uint64_t hash, const char *topic,
                               size_t n, struct topic_pos *p);
/* The topic is not in the set. */
bool topic_set_add(struct topic_set *s, uint64_t hash, struct message *m)
    __attribute__((warn_unused_result));
/* m has the topic of the message at p. */
void topic_set_replace(struct topic_set *s, struct topic_pos p, struct message *m);
void topic_set_remove(struct topic_set *s, struct topic_pos p);

/* The first position whose topic is not below k, or at the end. */
struct topic_pos topic_set_seek(const struct topic_set *s, const struct topic_key *k);
/* The message at p (which moves on to the next leaf where one ends), or NULL at the end. */
struct message *topic_set_at(const struct topic_set *s, struct topic_pos *p);

/*
 * Takes up to max messages that have expired at now_ms out of at most *leaves leaves from *at on;
 * both move on. At the end *at is at the number of leaves.
 */
size_t topic_set_expire(struct topic_set *s, uint32_t *at, uint32_t *leaves, int64_t now_ms,
                        struct message **out, size_t max);

#endif
