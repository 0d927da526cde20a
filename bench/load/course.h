/* SPDX-License-Identifier: Apache-2.0 */
/*
 * course.h - which of a publisher's numbers a receiver has to get, when each topic goes to some
 * receivers only.
 *
 * A publisher goes round its topics, so a receiver's numbers repeat with that cycle: a sorted list
 * of places in it. The next number due is then one addition, and a message that is lost, doubled,
 * out of order or for somebody else is not the one due.
 *
 * Failure    out of memory ends the program.
 */
#ifndef NOCTULE_BENCH_COURSE_H
#define NOCTULE_BENCH_COURSE_H

#include <stdbool.h>
#include <stdint.h>

struct stream;

struct course {
    const uint32_t *places; /* within the publisher's cycle, rising */
    uint32_t n;
    uint32_t at;    /* the place due */
    uint64_t base;  /* number at which the cycle began */
    uint32_t cycle; /* topics of the publisher */
};

/* The number due next, UINT64_MAX when none ever comes. */
static inline uint64_t course_due(const struct course *c)
{
    return c->n > 0 ? c->base + c->places[c->at] : UINT64_MAX;
}

/* The number due came. */
static inline void course_step(struct course *c)
{
    if (++c->at == c->n) {
        c->at = 0;
        c->base += c->cycle;
    }
}

/* The course of every receiver with every publisher. */
struct courses {
    struct course *of; /* [receiver][publisher] */
    uint32_t *places;
    uint32_t receivers;
    uint32_t publishers;
};

/* The k-th of the receivers of a topic (0 .. each - 1, all different). */
typedef uint32_t (*receiver_fn)(const void *context, uint32_t topic, uint32_t k);

/* Topics are those of the publishers' streams, by number. */
struct courses_form {
    uint32_t receivers;
    uint32_t publishers;
    uint32_t each; /* receivers of a topic */
    const struct stream *(*stream)(const void *context, uint32_t publisher);
    receiver_fn receiver;
    const void *context;
};
void courses_init(struct courses *cs, const struct courses_form *form);
void courses_fini(struct courses *cs);

static inline struct course *courses_at(const struct courses *cs, uint32_t receiver,
                                        uint32_t publisher)
{
    return &cs->of[(uint64_t)receiver * cs->publishers + publisher];
}

#endif
