/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message as bytes for one receiver. Small packets without anything of the receiver's own but the
 * packet id are put together by copying the message's parts, which lie there as the packet has
 * them; large payloads are not copied at all, the output queue borrows them.
 */
#include "server/shard/internal.h"

#include <stdlib.h>

#define SUB_ID_MAX 5u    /* identifier and four bytes */
#define HEADER_MAX 5u    /* first byte and remaining length */
#define PLAIN_MAX  1024u /* topic, payload and properties */

/*
 * The topic as the receiver is to see it: without its listener's mount point. False: it is not
 * below that. Filter "#" is "site/#" for the broker, which matches "site" as well; and a session
 * may come back over another listener.
 */
static bool topic_for(const struct link *l, const struct message *m, struct span *out)
{
    const char *mount = listener_conf(l->listener)->mount_point;
    const size_t n = mount == NULL ? 0 : strlen(mount);

    *out = span_of(message_topic(m), m->topic_n);
    if (n == 0) {
        return true;
    }
    if (out->n <= n || memcmp(out->p, mount, n) != 0) {
        return false;
    }
    *out = span_of(out->p + n, out->n - n);
    return true;
}

static void release_message(void *m)
{
    message_unref(m);
}

static bool put_payload(struct link *l, struct message *m)
{
    if (m->payload_n < BORROW_MIN) {
        return conn_out_copy(&l->conn, message_payload(m), m->payload_n);
    }
    message_ref(m, 1);
    if (!conn_out_borrow(&l->conn, message_payload(m), m->payload_n, release_message, m)) {
        message_unref(m);
        return false;
    }
    return true;
}

/* The receiver's alias for this topic; *name stays true where the name has to be sent along. 0:
 * none. */
static uint16_t alias_for(struct link *l, struct span topic, bool *name)
{
    struct link5 *v5 = l->v5;
    uint64_t hash;
    uint32_t i;

    *name = true;
    if (v5 == NULL || v5->alias_out == NULL) {
        return 0;
    }
    hash = hash_span(topic, 0) | 1;
    for (i = (uint32_t)hash & (v5->alias_out_cap - 1); v5->alias_out[i].alias != 0;
         i = (i + 1) & (v5->alias_out_cap - 1)) {
        struct alias_out *a = &v5->alias_out[i];
        if (a->hash == hash && a->topic_n == topic.n && memcmp(a->topic, topic.p, topic.n) == 0) {
            *name = false;
            return a->alias;
        }
    }
    /* The first topics get an alias and keep it: no state to take back. */
    if (v5->alias_out_n >= v5->alias_out_max) {
        return 0;
    }
    v5->alias_out[i].topic = malloc(topic.n == 0 ? 1 : topic.n);
    if (v5->alias_out[i].topic == NULL) {
        return 0;
    }
    memcpy(v5->alias_out[i].topic, topic.p, topic.n);
    v5->alias_out[i].topic_n = (uint16_t)topic.n;
    v5->alias_out[i].hash = hash;
    v5->alias_out[i].alias = ++v5->alias_out_n;
    return v5->alias_out[i].alias;
}

/* Seconds left, at least 1, of a message that has not expired. */
static uint32_t expiry_left(const struct shard *sh, const struct message *m)
{
    int64_t ms = m->expires_ms - sh->now_ms;

    /* To the nearest: shards look at the clock at different moments, and more than came in must not
     * go out. */
    return ms < 1500 ? 1 : (uint32_t)((ms + 500) / 1000);
}

/* v5 properties in our order: subscription identifiers, alias, what came along, expiry [COMPAT: as
 * peers send them]. */
static size_t put_props(struct shard *sh, const struct encode *e, uint16_t alias, uint8_t *p)
{
    const struct message *m = e->msg;
    uint8_t *at = p;

    for (uint32_t i = 0; i < e->nids; i++) {
        at += prop_put_varint(at, PROP_SUBSCRIPTION_ID, e->ids[i]);
    }
    if (alias != 0) {
        at += prop_put_u16(at, PROP_TOPIC_ALIAS, alias);
    }
    if (m->props_n > 0) {
        memcpy(at, message_props(m), m->props_n);
        at += m->props_n;
    }
    if (m->expires_ms != 0) {
        at += prop_put_u32(at, PROP_MESSAGE_EXPIRY, expiry_left(sh, m));
    }
    return (size_t)(at - p);
}

static bool too_large(const struct link *l, size_t n)
{
    return n > MQTT_MAX_REMAINING_LENGTH || link_too_large(l, n);
}

/* The general way: everything the receiver may need. */
static enum encode_rc encode_any(struct shard *sh, struct link *l, const struct encode *e)
{
    struct message *m = e->msg;
    struct publish pub = {.payload = span_of(message_payload(m), m->payload_n),
                          .packet_id = e->packet_id,
                          .qos = e->qos,
                          .dup = e->dup,
                          .retain = e->retain};
    struct span topic;
    uint8_t small[512];
    uint8_t *props = small;
    size_t props_n = 0;
    size_t total;
    size_t id_at;
    uint8_t *p;
    enum encode_rc rc = ENCODE_OK;

    if (!topic_for(l, m, &topic)) {
        return ENCODE_DROPPED;
    }
    pub.topic = topic;
    if (l->version == MQTT_5) {
        size_t need = (size_t)e->nids * SUB_ID_MAX + 3 + m->props_n + 5;
        bool name = true;
        uint16_t alias = 0;
        /* An alias is given only with a packet that is sent for certain: judged by the size with
         * the name. */
        if (!too_large(l, publish_size(MQTT_5, e->qos, topic.n, need, m->payload_n))) {
            alias = alias_for(l, topic, &name);
        }
        props = need <= sizeof(small) ? small : malloc(need);
        if (props == NULL) {
            link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
            return ENCODE_NOMEM;
        }
        props_n = put_props(sh, e, alias, props);
        if (!name) {
            pub.topic = SPAN_NULL;
        }
    }
    total = publish_size(l->version, e->qos, pub.topic.n, props_n, m->payload_n);
    if (too_large(l, total)) {
        shard_count(sh, METRIC_DROPPED_TOO_LARGE, 1);
        rc = ENCODE_DROPPED;
        goto out;
    }
    p = conn_out_room(&l->conn, total - m->payload_n);
    if (p != NULL) {
        conn_out_add(&l->conn,
                     publish_encode_head(p, &pub, span_of(props, props_n), l->version, &id_at));
    }
    if (p == NULL || !put_payload(l, m)) {
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        rc = ENCODE_NOMEM;
    }
out:
    if (props != small) {
        free(props);
    }
    return rc;
}

/* Nothing of the receiver's own but the packet id, and small enough to be copied. */
static bool is_plain(const struct link *l, const struct encode *e)
{
    const struct message *m = e->msg;

    return l->plain_out && !e->dup && e->nids == 0 &&
           (l->version != MQTT_5 || m->expires_ms == 0) &&
           message_size(m) <= sizeof(*m) + PLAIN_MAX;
}

/* A message holds its topic as the packet does, with the length in front. */
static bool encode_plain(struct link *l, const struct encode *e)
{
    const struct message *m = e->msg;
    bool v5 = l->version == MQTT_5;
    size_t head = 2u + m->topic_n;
    size_t remaining = head + (e->qos > 0 ? 2u : 0u) + m->payload_n +
                       (v5 ? varint_size(m->props_n) + m->props_n : 0);
    uint8_t *start = conn_out_room(&l->conn, HEADER_MAX + remaining);
    uint8_t *p = start;

    if (p == NULL) {
        return false;
    }
    p += frame_put_header(
        p, (uint8_t)(MQTT_PUBLISH << 4 | (unsigned)e->qos << 1 | (e->retain ? 1u : 0u)),
        (uint32_t)remaining);
    memcpy(p, m->data, head);
    p += head;
    if (e->qos > 0) {
        *p++ = (uint8_t)(e->packet_id >> 8);
        *p++ = (uint8_t)e->packet_id;
    }
    if (v5) {
        p += varint_put(p, m->props_n);
        memcpy(p, message_props(m), m->props_n);
        p += m->props_n;
    }
    memcpy(p, message_payload(m), m->payload_n);
    conn_out_add(&l->conn, (size_t)(p - start) + m->payload_n);
    return true;
}

enum encode_rc encode_publish(struct shard *sh, struct link *l, const struct encode *e)
{
    enum encode_rc rc = ENCODE_OK;

    if (!is_plain(l, e)) {
        rc = encode_any(sh, l, e);
    } else if (!encode_plain(l, e)) {
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        rc = ENCODE_NOMEM;
    }
    if (rc == ENCODE_OK) {
        shard_count(sh, METRIC_PUBLISH_SENT, 1);
        shard_count(sh, METRIC_MESSAGES_SENT, 1);
        shard_count(sh, METRIC_PUBLISH_BYTES_SENT, e->msg->payload_n);
        link_dirty(sh, l);
    }
    return rc;
}
