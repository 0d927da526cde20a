/* SPDX-License-Identifier: Apache-2.0 */
#include "server/post/post.h"

#include <assert.h>
#include <stdlib.h>

bool post_init(struct post *p, unsigned index, unsigned n)
{
    assert(index < n);
    p->mailbox.event_fd = -1;
    p->index = index;
    p->inbox = NULL;
    p->bundles = calloc(n, sizeof(*p->bundles));
    atomic_init(&p->more, 0);
    if (p->bundles == NULL || !mailbox_init(&p->mailbox)) {
        free(p->bundles);
        p->bundles = NULL;
        return false;
    }
    return true;
}

void post_fini(struct post *p)
{
    if (p->bundles == NULL) {
        return;
    }
    mailbox_fini(&p->mailbox);
    free(p->bundles);
    p->bundles = NULL;
}

void post_send(struct post *from, const struct post *to, struct post_item *item)
{
    struct post_bundle *b = post_bundle(from, to);

    assert(item->fn != NULL);
    item->mail.next = NULL;
    b->growing = NULL;
    if (b->first == NULL) {
        b->first = &item->mail;
    } else {
        b->last->next = &item->mail;
    }
    b->last = &item->mail;
    b->n++;
}

void post_deliver(struct post *to, struct post_item *item)
{
    assert(item->fn != NULL);
    mailbox_push(&to->mailbox, &item->mail);
}

void post_flush(struct post *from, struct post *to)
{
    struct post_bundle *b = post_bundle(from, to);

    if (b->first == NULL) {
        return;
    }
    if (b->more > 0) {
        atomic_fetch_add_explicit(&to->more, b->more, memory_order_relaxed);
    }
    mailbox_push_chain(&to->mailbox, b->first, b->last, b->n);
    *b = (struct post_bundle){.first = NULL};
}

bool post_fetch(struct post *p)
{
    size_t n;

    assert(p->inbox == NULL);
    p->inbox = mailbox_take(&p->mailbox, &n);
    return p->inbox != NULL;
}

struct post_item *post_take(struct post *p)
{
    struct mail *m = p->inbox;

    assert(m != NULL);
    p->inbox = m->next;
    return (struct post_item *)m;
}

void post_put_back(struct post *p, struct post_item *item)
{
    item->mail.next = p->inbox;
    p->inbox = &item->mail;
}

size_t post_depth(const struct post *p)
{
    return mailbox_depth(&p->mailbox) + atomic_load_explicit(&p->more, memory_order_relaxed);
}
