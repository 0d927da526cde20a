/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/plain.h"

bool plain_publish(struct publish *m, const struct frame *f, enum mqtt_version v)
{
    const uint8_t *p = f->body.p;
    size_t n = f->body.n;
    size_t topic_n = n >= 2 ? plain_u16(p) : 0;
    uint8_t qos = (f->flags >> 1) & 3u;
    size_t id_at = 2 + topic_n;
    size_t props_at = id_at + (qos > 0 ? 2 : 0);
    size_t payload_at = props_at + (v == MQTT_5 ? 1 : 0);

    if (topic_n == 0 || qos == 3 || (qos == 0 && (f->flags & 8u)) || n < payload_at ||
        (v == MQTT_5 && p[props_at] != 0)) {
        return false;
    }
    m->packet_id = qos > 0 ? plain_u16(p + id_at) : 0;
    if (qos > 0 && m->packet_id == 0) {
        return false;
    }
    m->topic = (struct span){p + 2, topic_n};
    m->payload = (struct span){p + payload_at, n - payload_at};
    m->qos = qos;
    m->dup = f->flags & 8u;
    m->retain = f->flags & 1u;
    return true;
}
