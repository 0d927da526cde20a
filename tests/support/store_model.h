/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_model.h - what a store should hold: random units from a seed, their effect in plain memory,
 * and the comparison with a store.
 *
 * Units are a total order here (one submitter). After any crash the store must hold exactly what a
 * prefix of them makes, and that prefix must reach to the last one acknowledged. Most units carry a
 * retained message "marker" with their number, which says where the prefix ends.
 *
 * Threads    model_next() and model_check(): one thread. Answers come from the store's.
 */
#ifndef NOCTULE_TESTS_STORE_MODEL_H
#define NOCTULE_TESTS_STORE_MODEL_H

#include "storage/store.h"

#include <stdatomic.h>

struct model;

struct model_unit {
    struct store_unit unit;
    struct model *model;
    uint32_t index; /* from 1 */
    bool marked;
    struct store_op ops[16];
    char memory[8192]; /* names and marker */
    size_t used;
};

struct model *model_create(uint64_t seed);
void model_destroy(struct model *m);

/* The next random unit; kept until model_destroy(). Its done() counts the answer. */
struct model_unit *model_next(struct model *m);
/* Units 1..n have been answered ST_OK; n, seq_cst. */
uint32_t model_acked(const struct model *m);
uint32_t model_made(const struct model *m);
/* Answers that were not ST_OK. */
uint32_t model_failed(const struct model *m);
/* Called for each answer, on the store's thread, before it is counted; may be NULL. */
void model_on_ack(struct model *m, void (*fn)(void *arg, uint32_t index), void *arg);

/*
 * Compares: the prefix that the store holds, at least lo and at most hi units; -1 and a line on
 * stderr where it is none. The history is cut there: what comes next builds on it.
 */
int64_t model_check(struct model *m, struct store *s, uint32_t lo, uint32_t hi);
void model_cut(struct model *m, uint32_t n);
/* Only the queues, of a store that is running, after model_wait(): what is not folded yet counts.
 */
bool model_check_queues(struct model *m, struct store *s);

/* Submits n units and waits for the answers; at most `flight` are on their way. */
void model_run(struct model *m, struct store *s, uint32_t n, uint32_t flight);
void model_wait(struct model *m);

/* The bytes a body or retained message of this id has. */
struct store_bytes model_bytes(uint64_t id, char *buf, size_t cap);

#endif
