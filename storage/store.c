/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

uint32_t store_group(const void *text, size_t n)
{
    const uint32_t group = (uint32_t)XXH3_64bits(text, n);

    return group == 0 ? 1 : group;
}

void store_close(struct store **sp)
{
    if (*sp != NULL) {
        (*sp)->ops->close(*sp);
        *sp = NULL;
    }
}

bool store_keeps(const struct store *s)
{
    return s != NULL && s->ops->keeps(s);
}

enum store_rc store_submit(struct store *s, struct store_unit *u)
{
    struct store_chain c = {.newest = NULL};

    store_chain_add(&c, u);
    return store_submit_chain(s, &c);
}

enum store_rc store_submit_chain(struct store *s, const struct store_chain *c)
{
    return s == NULL ? ST_CLOSED : s->ops->submit(s, c);
}

void store_stats(struct store *s, struct store_stats *out)
{
    *out = (struct store_stats){.pending = 0};
    if (s != NULL) {
        s->ops->stats(s, out);
    }
}

uint64_t store_first_free_id(const struct store *s)
{
    return s->ops->first_free_id == NULL ? 1 : s->ops->first_free_id(s);
}

enum store_rc store_load(struct store *s, const struct store_load *l)
{
    return s->ops->load == NULL ? ST_OK : s->ops->load(s, l);
}

enum store_rc store_read(struct store *s, struct store_page *p)
{
    p->rc = ST_OK;
    p->more = false;
    p->n = 0;
    p->entries = NULL;
    p->memory = NULL;
    return s == NULL || s->ops->read == NULL ? ST_CLOSED : s->ops->read(s, p);
}

void store_page_free(struct store_page *p)
{
    free(p->entries);
    free(p->memory);
    p->entries = NULL;
    p->memory = NULL;
    p->n = 0;
}

enum store_rc store_fetch_retained(struct store *s, struct store_fetch *f)
{
    f->rc = ST_OK;
    f->memory = NULL;
    return s == NULL || s->ops->fetch == NULL ? ST_CLOSED : s->ops->fetch(s, f);
}

void store_fetch_free(struct store_fetch *f)
{
    free(f->memory);
    f->memory = NULL;
}

enum store_rc store_backup(struct store *s, const char *to_dir, char *err, size_t cap)
{
    if (s->ops->backup == NULL) {
        snprintf(err, cap, "this store keeps nothing");
        return ST_CLOSED;
    }
    return s->ops->backup(s, to_dir, err, cap);
}

enum store_rc store_health(const struct store *s)
{
    if (s == NULL) {
        return ST_CLOSED;
    }
    return s->ops->health == NULL ? ST_OK : s->ops->health(s);
}

const char *store_trouble(const struct store *s)
{
    return s == NULL || s->ops->trouble == NULL ? "" : s->ops->trouble(s);
}
