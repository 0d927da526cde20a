/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/spare.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct block) == 64, "sizes of blocks count the header");

void spare_init(struct spare *s, size_t limit)
{
    *s = (struct spare){.limit = limit};
    pthread_mutex_init(&s->lock, NULL);
}

static void free_list(struct block *b)
{
    while (b != NULL) {
        struct block *next = b->next;
        free(b);
        b = next;
    }
}

void spare_empty(struct spare *s)
{
    struct block *small;
    struct block *large;
    void *table;

    pthread_mutex_lock(&s->lock);
    small = s->small;
    large = s->large;
    table = s->table;
    s->small = s->large = NULL;
    s->table = NULL;
    s->table_bytes = s->bytes = 0;
    pthread_mutex_unlock(&s->lock);
    free_list(small);
    free_list(large);
    free(table);
}

void spare_fini(struct spare *s)
{
    spare_empty(s);
    pthread_mutex_destroy(&s->lock);
}

static struct block **list_of(struct spare *s, size_t size)
{
    return size == SPARE_SMALL ? &s->small : size == SPARE_LARGE ? &s->large : NULL;
}

struct block *spare_take(struct spare *s, size_t size)
{
    struct block **list = s == NULL ? NULL : list_of(s, size);
    struct block *b = NULL;

    if (list != NULL) {
        pthread_mutex_lock(&s->lock);
        b = *list;
        if (b != NULL) {
            *list = b->next;
            s->bytes -= size;
        }
        pthread_mutex_unlock(&s->lock);
    }
    b = b != NULL ? b : malloc(sizeof(*b) + size);
    if (b != NULL) {
        *b = (struct block){.size = size};
    }
    return b;
}

void spare_give(struct spare *s, struct block *b)
{
    struct block *rest = NULL;

    if (s == NULL) {
        free_list(b);
        return;
    }
    pthread_mutex_lock(&s->lock);
    while (b != NULL) {
        struct block *next = b->next;
        struct block **list = list_of(s, b->size);
        if (list == NULL || s->bytes + b->size > s->limit) {
            list = &rest;
        } else {
            s->bytes += b->size;
        }
        b->next = *list;
        *list = b;
        b = next;
    }
    pthread_mutex_unlock(&s->lock);
    free_list(rest);
}

void *spare_take_table(struct spare *s, size_t *bytes)
{
    void *table;
    size_t n;

    if (s == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&s->lock);
    table = s->table;
    n = s->table_bytes;
    s->bytes -= n;
    s->table = NULL;
    s->table_bytes = 0;
    pthread_mutex_unlock(&s->lock);
    if (table != NULL) {
        memset(table, 0, n);
        *bytes = n;
    }
    return table;
}

void spare_give_table(struct spare *s, void *table, size_t bytes)
{
    void *old = table;

    if (s != NULL) {
        pthread_mutex_lock(&s->lock);
        if (s->bytes - s->table_bytes + bytes <= s->limit) { /* the last one's size is likeliest */
            old = s->table;
            s->bytes += bytes - s->table_bytes;
            s->table = table;
            s->table_bytes = bytes;
        }
        pthread_mutex_unlock(&s->lock);
    }
    free(old);
}
