/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PUBLISH from a client: checked, made a message, routed, answered.
 *
 * Above the memory limit, or with a target's mailbox too deep, a publisher is left unread for a
 * while first; the packet stays where it is. Then the policy acts: QoS 0 is dropped, QoS 1 and 2
 * are refused (0x97; a 3.x client, which cannot be told, is disconnected unacknowledged and sends
 * again).
 */
#include "server/shard/ticket.h"

#include <stdlib.h>

#include "routing/topic.h"
#include "server/base/sys_topic.h"
#include "server/codec/utf8.h"

/* What is decided about a publish before it is routed. */
struct verdict {
    enum mqtt_reason reason; /* 0: route it */
    const char *close;       /* not NULL: the connection ends, for this */
};

/* ---- topic aliases ---- */

/* Sets or uses the alias; false: the connection is being closed. */
static bool resolve_alias(struct shard *sh, struct link *l, struct publish *p)
{
    uint16_t alias = p->props.topic_alias;
    char **slot;
    size_t n = p->topic.n;

    if (l->v5 == NULL || !props_has(&p->props, PROP_TOPIC_ALIAS)) {
        return true;
    }
    if (alias == 0 || alias > l->v5->alias_in_max) { /* [MQTT-3.3.2-8, 9] */
        link_close(sh, l, RC_TOPIC_ALIAS_INVALID, "topic alias 0 or above the maximum");
        return false;
    }
    if (l->v5->alias_in == NULL) {
        l->v5->alias_in = calloc(l->v5->alias_in_max, sizeof(char *));
        if (l->v5->alias_in == NULL) {
            link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
            return false;
        }
    }
    slot = &l->v5->alias_in[alias - 1];
    if (n == 0) {
        if (*slot == NULL) {
            link_close(sh, l, RC_PROTOCOL_ERROR, "topic alias that was not set");
            return false;
        }
        p->topic = span_of(*slot + 2, (size_t)((uint8_t)(*slot)[0] << 8 | (uint8_t)(*slot)[1]));
        return true;
    }
    free(*slot);
    *slot = malloc(n + 2);
    if (*slot == NULL) {
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        return false;
    }
    (*slot)[0] = (char)(n >> 8);
    (*slot)[1] = (char)n;
    memcpy(*slot + 2, p->topic.p, n);
    return true;
}

/* From here on its topic is the one that is used. False: the connection is being closed. */
static bool use_mount(struct shard *sh, struct link *l, struct publish *p)
{
    if (listener_conf(l->listener)->mount_point == NULL) {
        return true;
    }
    p->topic_known = false;
    if (!mount_topic(sh, l, p->topic, &p->topic)) {
        link_close(sh, l, RC_TOPIC_NAME_INVALID, "topic too long with the mount point");
        return false;
    }
    return true;
}

/* ---- back-pressure ---- */

/* True: go on. False: paused, or acted on. */
static bool admit(struct shard *sh, struct link *l)
{
    bool pressure = atomic_load_explicit(&sh->b->memory_pressure, memory_order_relaxed);

    if (!pressure && !sh->backlog) {
        l->had_pause = false;
        return true;
    }
    if (!l->had_pause) {
        l->had_pause = true;
        shard_count(sh, METRIC_PAUSED_MEMORY, 1);
        link_pause(sh, l, sh->now_ms + PAUSE_MAX_MS);
        return false;
    }
    return true;
}

static struct verdict over_memory(struct shard *sh, const struct link *l, const struct publish *p)
{
    if (!atomic_load_explicit(&sh->b->memory_pressure, memory_order_relaxed)) {
        return (struct verdict){RC_SUCCESS, NULL};
    }
    shard_count(sh, METRIC_DROPPED_MEMORY, 1);
    log_limited(sh->b->log, LOGL_WARNING, LOGR_MEMORY,
                "memory_limit reached: messages of " CLIENT_FMT " are dropped or refused",
                CLIENT_ARGS(l->client));
    if (p->qos > 0 && l->version != MQTT_5) {
        return (struct verdict){RC_QUOTA_EXCEEDED, "memory_limit reached"};
    }
    return (struct verdict){RC_QUOTA_EXCEEDED, NULL};
}

/* ---- checks ---- */

static unsigned max_qos(const struct link *l)
{
    return l->v5 == NULL ? (unsigned)listener_conf(l->listener)->max_qos : l->v5->in_max_qos;
}

static struct verdict judge(struct shard *sh, const struct link *l, const struct publish *p)
{
    const struct config *cfg = sh->cfg;

    if (!p->topic_known &&
        !topic_name_is_valid((const char *)p->topic.p, p->topic.n, cfg->max_topic_levels)) {
        return (struct verdict){RC_TOPIC_NAME_INVALID, "invalid topic name"};
    }
    if (p->qos > max_qos(l)) {
        return (struct verdict){RC_QOS_NOT_SUPPORTED, "QoS above the listener's max_qos"};
    }
    if (p->retain && !(l->v5 == NULL ? cfg->retain_available : l->v5->in_retain)) {
        return (struct verdict){RC_RETAIN_NOT_SUPPORTED,
                                "retained message, retain_available is false"};
    }
    if (!p->topic_known && sys_topic_is_reserved(p->topic)) {
        return (struct verdict){RC_NOT_AUTHORIZED, NULL};
    }
    if (cfg->message_size_limit != 0 && p->payload.n > cfg->message_size_limit) {
        shard_count(sh, METRIC_DROPPED_TOO_LARGE, 1);
        return (struct verdict){RC_QUOTA_EXCEEDED, NULL}; /* 0x95 is not a code of PUBACK */
    }
    if (p->props.payload_format == 1 && !utf8_is_valid_payload(p->payload)) {
        return (struct verdict){RC_PAYLOAD_FORMAT_INVALID, NULL}; /* [MQTT-3.3.2-5] */
    }
    return over_memory(sh, l, p);
}

/* ---- from packet to message ---- */

static struct message *message_from(struct shard *sh, struct link *l, const struct publish *p)
{
    uint8_t small[1024];
    uint8_t *scratch = small;
    const struct span topic = p->topic;
    size_t props_n = 0;
    struct message *m = NULL;

    assert(topic.n <= TOPIC_MAX); /* judged, with its mount point */
    if (p->props.raw.n > sizeof(small)) {
        scratch = malloc(p->props.raw.n);
        if (scratch == NULL) {
            return NULL;
        }
    }
    if (p->props.raw.n > 0) {
        props_n = props_to_forward(&p->props, scratch);
    }
    if (!p->retain) {
        m = message_lend(sh->message, sizeof(sh->message), topic.p, topic.n, p->payload.p,
                         p->payload.n, scratch, props_n);
    }
    if (m == NULL) {
        m = message_create(topic.p, topic.n, p->payload.p, p->payload.n, scratch, props_n);
    }
    if (scratch != small) {
        free(scratch);
    }
    if (m == NULL) {
        return NULL;
    }
    m->qos = p->qos;
    m->retain = p->retain;
    m->origin = l->client->uid;
    if (props_has(&p->props, PROP_MESSAGE_EXPIRY)) {
        m->expires_ms = sh->now_ms + (int64_t)p->props.message_expiry_s * 1000;
    }
    return m;
}

/* Answers a publish that is not routed. */
static void refuse(struct shard *sh, struct link *l, const struct publish *p, struct verdict v)
{
    if (v.close != NULL) {
        link_close(sh, l, v.reason, v.close);
        return;
    }
    /* 3.x has no way to refuse: acknowledged and dropped, as its users expect. */
    if (p->qos == 1) {
        link_ack(sh, l, MQTT_PUBACK, p->packet_id, v.reason);
    } else if (p->qos == 2) {
        link_ack(sh, l, MQTT_PUBREC, p->packet_id, v.reason);
        if (l->version != MQTT_5 && idset_add(&l->client->in_ids, p->packet_id) == NULL) {
            link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        }
    }
}

/* A PUBLISH whose id is held: its message was routed before [MQTT-4.3.3-10]; only PUBREC is said
 * again. */
static void repeat(struct shard *sh, struct link *l, struct in_id *e)
{
    struct ticket *t = e->ticket;

    if (t == NULL) {
        link_ack(sh, l, MQTT_PUBREC, e->packet_id, RC_SUCCESS);
        return;
    }
    if (t->slot != NULL && t->slot->link == l) {
        return; /* its PUBREC is on its way */
    }
    /* Came over a connection that has gone, before the store had it: this one waits for the same
     * ticket. */
    free(t->slot);
    t->slot = link_slot(sh, l, MQTT_PUBREC, e->packet_id, RC_SUCCESS, NULL, 0);
}

/* The client's quota of unanswered messages; false: it has broken it. */
static bool count_inbound(struct shard *sh, struct link *l, const struct publish *p)
{
    if (l->v5 == NULL || p->qos == 0) {
        return true;
    }
    if (l->v5->inbound >= l->v5->in_receive_maximum) {
        link_close(sh, l, RC_RECEIVE_MAXIMUM_EXCEEDED, "receive maximum exceeded");
        return false;
    }
    l->v5->inbound++;
    return true;
}

/* The store has no room: 0x97 for v5; a 3.x client, which cannot be told, is unread for a while and
 * then goes. */
static void store_is_full(struct shard *sh, struct link *l, const struct publish *p)
{
    shard_count(sh, METRIC_REFUSED_STORE, 1);
    log_limited(sh->b->log, LOGL_WARNING, LOGR_STORE, "messages are refused: %s",
                store_trouble(sh->b->store));
    if (l->version == MQTT_5) {
        refuse(sh, l, p, (struct verdict){RC_QUOTA_EXCEEDED, NULL});
    } else if (!l->store_pause || sh->now_ms >= l->pause_until_ms + STORE_PAUSE_MS) {
        l->store_pause = true; /* the first for long */
        link_pause(sh, l, sh->now_ms + STORE_PAUSE_MS);
    } else if (sh->now_ms < l->pause_until_ms) { /* some were taken in between: its time runs on */
        link_pause(sh, l, l->pause_until_ms);
    } else {
        link_close(sh, l, RC_QUOTA_EXCEEDED, "the store has had no room for too long");
    }
}

/* At once: nothing of it has to be stored. */
static void acknowledge(struct shard *sh, struct link *l, const struct publish *p,
                        const struct route *r)
{
    enum mqtt_reason reason = r->matched ? RC_SUCCESS : RC_NO_MATCHING_SUBSCRIBERS;

    if (r->dropped && !r->taken && !r->retained && l->version == MQTT_5) {
        reason = RC_QUOTA_EXCEEDED;
        if (p->qos == 2) {
            idset_remove(&l->client->in_ids, p->packet_id); /* over with its PUBREC */
        }
    }
    link_ack(sh, l, p->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, p->packet_id, reason);
}

static void route(struct shard *sh, struct link *l, const struct publish *p)
{
    struct route r = {
        .publisher = l->client, .link = l, .packet_id = p->packet_id, .known = p->topic_known};

    r.msg = message_from(sh, l, p);
    if (r.msg == NULL || (p->qos == 2 && idset_add(&l->client->in_ids, p->packet_id) == NULL)) {
        route_drop(&r);
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        return;
    }
    if (!route_publish(sh, &r)) {
        if (p->qos == 2) {
            idset_remove(&l->client->in_ids, p->packet_id);
        }
        if (r.refused) {
            store_is_full(sh, l, p);
        } else {
            link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        }
        return;
    }
    if (p->qos > 0 && !r.ticketed) {
        acknowledge(sh, l, p, &r);
    }
}

/* What it was checked for depends on nothing but the configuration. */
static void remember_topic(struct shard *sh, struct publish *p)
{
    if (!p->topic_known && p->topic.n <= sizeof(sh->known_topic)) {
        memcpy(sh->known_topic, p->topic.p, p->topic.n);
        sh->known_topic_n = p->topic.n;
        sh->known_mark = 0;
        p->topic_known = true;
    }
}

/* What a client that may publish has sent, in its proper form. */
static void take(struct shard *sh, struct link *l, struct publish *p)
{
    struct verdict v;
    struct in_id *held;

    if (!resolve_alias(sh, l, p) || !use_mount(sh, l, p)) {
        return;
    }
    held = p->qos == 2 ? idset_find(&l->client->in_ids, p->packet_id) : NULL;
    if (held != NULL) {
        repeat(sh, l, held);
        return;
    }
    if (!count_inbound(sh, l, p)) {
        return;
    }
    v = judge(sh, l, p);
    if (v.reason != RC_SUCCESS) {
        refuse(sh, l, p, v);
        return;
    }
    remember_topic(sh, p);
    route(sh, l, p);
}

void handle_publish(struct shard *sh, struct link *l, struct span body, uint8_t flags)
{
    struct publish p;
    const char *why = NULL;
    enum dec_rc rc;

    if (!admit(sh, l)) {
        return;
    }
    rc = publish_decode_known(&p, body, flags, l->version,
                              span_of(sh->known_topic, sh->known_topic_n), &why);
    if (rc != DEC_OK) {
        handle_malformed(sh, l, rc, why);
        return;
    }
    if (p.has_controls && handle_controls(sh, l)) {
        return;
    }
    sh->budget--;
    take(sh, l, &p);
    if (!l->is_paused) { /* else the same packet comes again */
        shard_count(sh, METRIC_PUBLISH_RECEIVED, 1);
        shard_count(sh, METRIC_PUBLISH_BYTES_RECEIVED, (int64_t)p.payload.n);
    }
}
