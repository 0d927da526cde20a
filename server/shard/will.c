/* SPDX-License-Identifier: Apache-2.0 */
#include "server/shard/ticket.h"

#include <stdlib.h>

/* The will's properties as a message carries them: without delay and expiry [MQTT-3.1.3-10 ff.]. */
size_t props_to_forward(const struct props *p, uint8_t *out)
{
    struct prop_item item;
    size_t at = 0;
    size_t n = 0;

    while (props_next(p->raw, &at, &item)) {
        switch (item.id) {
        case PROP_PAYLOAD_FORMAT:
        case PROP_CONTENT_TYPE:
        case PROP_RESPONSE_TOPIC:
        case PROP_CORRELATION_DATA:
        case PROP_USER_PROPERTY:
            memcpy(out + n, item.whole.p, item.whole.n);
            n += item.whole.n;
            break;
        default: /* expiry counts down, alias and delay are the sender's own */
            break;
        }
    }
    return n;
}

struct will *will_create(const struct connect *c, const struct link *l)
{
    const char *mount = listener_conf(l->listener)->mount_point;
    size_t mount_n = mount == NULL ? 0 : strlen(mount);
    const struct connect_will *w = &c->will;
    struct will *will = calloc(1, sizeof(*will));
    uint8_t *scratch = malloc(mount_n + w->topic.n + w->props.raw.n + 1);
    size_t props_n;

    if (will == NULL || scratch == NULL) {
        goto fail;
    }
    if (mount_n > 0) {
        memcpy(scratch, mount, mount_n);
    }
    memcpy(scratch + mount_n, w->topic.p, w->topic.n);
    props_n = props_to_forward(&w->props, scratch + mount_n + w->topic.n);
    will->msg = message_create(scratch, mount_n + w->topic.n, w->payload.p, w->payload.n,
                               scratch + mount_n + w->topic.n, props_n);
    if (will->msg == NULL) {
        goto fail;
    }
    will->msg->qos = w->qos;
    will->msg->retain = w->retain;
    will->delay_s = w->props.will_delay_s;
    will->expiry_s = props_has(&w->props, PROP_MESSAGE_EXPIRY) ? w->props.message_expiry_s : 0;
    will->expires = props_has(&w->props, PROP_MESSAGE_EXPIRY);
    free(scratch);
    return will;
fail:
    free(scratch);
    free(will);
    return NULL;
}

void will_free(struct will **w)
{
    if (*w != NULL) {
        if ((*w)->msg != NULL) {
            message_unref((*w)->msg);
        }
        free(*w);
        *w = NULL;
    }
}

/* Sends it; what the store has under `stored` goes in the same unit (0: nothing). */
static void publish(struct shard *sh, struct will **w, uint64_t origin, uint64_t stored)
{
    struct route r = {.will_of = stored};

    r.msg = (*w)->msg;
    (*w)->msg = NULL;
    r.msg->origin = origin;
    if ((*w)->expires) { /* its time begins now */
        r.msg->expires_ms = sh->now_ms + (int64_t)(*w)->expiry_s * 1000;
    }
    will_free(w);
    shard_count(sh, METRIC_WILLS_SENT, 1);
    if (!route_publish(sh, &r)) {
        shard_count(sh, METRIC_DROPPED_MEMORY, 1);
    }
}

void will_publish(struct shard *sh, struct client *c)
{
    if (c->will != NULL) {
        publish(sh, &c->will, c->uid, c->uid);
    }
}

static void orphan_due(void *owner, struct timer *t)
{
    struct orphan_will *o = (struct orphan_will *)t;

    publish(owner, &o->will, 0, o->id);
}

bool will_orphan(struct shard *sh, struct will *w, uint64_t id, int64_t due_ms)
{
    struct orphan_will *o = calloc(1, sizeof(*o));

    if (o == NULL) {
        return false;
    }
    o->will = w;
    o->id = id;
    o->timer.fn = orphan_due;
    o->next = sh->orphans;
    sh->orphans = o;
    timer_set(&sh->wheel, &o->timer, due_ms);
    return true;
}

void will_fini(struct shard *sh)
{
    while (sh->orphans != NULL) {
        struct orphan_will *o = sh->orphans;
        sh->orphans = o->next;
        timer_cancel(&sh->wheel, &o->timer);
        will_free(&o->will); /* stays in the store if it was not sent */
        free(o);
    }
}
