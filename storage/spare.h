/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spare.h - memory that folded generations leave to the next ones. Several generations a second
 * come and go under load, and a page that the kernel gives costs more than what is written on it.
 *
 * Threads    any; its lock is the innermost one.  Ownership  a block is the caller's from take to
 * give.  Errors  NULL: no memory.  Every function takes NULL for `s`: then nothing is kept.
 */
#ifndef NOCTULE_STORAGE_SPARE_H
#define NOCTULE_STORAGE_SPARE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of data in a block; both kinds are kept, blocks of other sizes are not. */
#define SPARE_SMALL (65536u - 64u)
#define SPARE_LARGE ((4u << 20) + 65536u - 64u)

struct block {
    struct block *next;  /* the owner's: a list, the newest first, */
    struct block *newer; /* and back */
    size_t size, used;   /* bytes of data */
    _Alignas(64) uint8_t data[];
};

struct spare {
    pthread_mutex_t lock;
    struct block *small, *large;
    void *table; /* an array of so many bytes, */
    size_t table_bytes;
    size_t bytes; /* in all */
    size_t limit; /* no more is kept */
};

void spare_init(struct spare *s, size_t limit);
void spare_fini(struct spare *s);
/* What is kept goes back to the allocator. */
void spare_empty(struct spare *s);

/* Not zeroed; used is 0. */
struct block *spare_take(struct spare *s, size_t size) __attribute__((warn_unused_result));
/* A list by `next`; NULL is fine. */
void spare_give(struct spare *s, struct block *list);

/* An array that was given back, zeroed, and its bytes; NULL: there is none, *bytes stays. */
void *spare_take_table(struct spare *s, size_t *bytes);
void spare_give_table(struct spare *s, void *table, size_t bytes);

#endif
