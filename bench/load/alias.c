/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/alias.h"

#include <stdlib.h>

#include "bench/load/loop.h"

static struct span copy(struct span s)
{
    uint8_t *p = malloc(s.n);

    if (p == NULL) {
        die("out of memory");
    }
    memcpy(p, s.p, s.n);
    return span_of(p, s.n);
}

const char *alias_resolve(struct alias_table *t, struct publish *m)
{
    uint16_t alias = m->props.topic_alias;
    struct span *name;

    if (!props_has(&m->props, PROP_TOPIC_ALIAS)) {
        return NULL;
    }
    if (alias == 0 || alias > t->max) {
        return "topic alias 0 or above the maximum announced";
    }
    if (t->names == NULL && (t->names = calloc(t->max, sizeof(*t->names))) == NULL) {
        die("out of memory");
    }
    name = &t->names[alias - 1];
    if (m->topic.n > 0) {
        free((void *)name->p);
        *name = copy(m->topic);
    } else if (name->n == 0) {
        return "topic alias that was not set";
    } else {
        t->used++;
        m->topic = *name;
    }
    return NULL;
}

void alias_forget(struct alias_table *t)
{
    for (uint32_t i = 0; t->names != NULL && i < t->max; i++) {
        free((void *)t->names[i].p);
    }
    free(t->names);
    t->names = NULL;
}
