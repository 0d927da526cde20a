/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish.h - PUBLISH of all versions.
 */
#ifndef NOCTULE_CODEC_PUBLISH_H
#define NOCTULE_CODEC_PUBLISH_H

#include "server/codec/props.h"

struct publish {
    struct span topic; /* empty only in v5 with an alias */
    struct span payload;
    struct props props; /* v5 */
    uint16_t packet_id; /* 0 when qos is 0 */
    uint8_t qos;
    bool dup;
    bool retain;
    bool topic_known;  /* see publish_decode_known() */
    bool has_controls; /* in a string: control characters or noncharacters; the caller's to judge */
};

/*
 * QoS 3 [MQTT-3.3.1-4], DUP with QoS 0 [MQTT-3.3.1-2] (v5 and 3.1.1; ignored for 3.1), packet id 0
 * [MQTT-2.2.1-3], a topic that is not UTF-8, empty without an alias, or with wildcards
 * [MQTT-3.3.2-2] are refused. A response topic with wildcards: DEC_TOPIC_NAME [MQTT-3.3.2-14].
 * subscription ids from a client: DEC_PROTOCOL [MQTT-3.3.4-6], unless from_server. from_server:
 * also decodes what servers send (several subscription ids), for our own clients.
 */
enum dec_rc publish_decode(struct publish *out, struct span body, uint8_t flags,
                           enum mqtt_version v, bool from_server, const char **why);
/*
 * The same for a packet from a client, when `known` is the topic of an earlier one that was found
 * valid: an equal one is not looked at again, and topic_known says so. Messages come in runs of one
 * topic.
 */
enum dec_rc publish_decode_known(struct publish *out, struct span body, uint8_t flags,
                                 enum mqtt_version v, struct span known, const char **why);

/*
 * Whole packet size for these parts; props is the encoded block without its length (ignored
 * for 3.x). SIZE_MAX when they are more than any packet holds (a head may grow on its way from
 * client to client).
 */
size_t publish_size(enum mqtt_version v, uint8_t qos, size_t topic_n, size_t props_n,
                    size_t payload_n);

/*
 * Writes everything up to the payload (fixed header, topic, packet id, properties); the payload
 * follows. The caller has room for publish_size() less the payload. *packet_id_at becomes the
 * offset of the two id bytes (0 for QoS 0), so that one encoding serves many receivers.
 */
size_t publish_encode_head(uint8_t *p, const struct publish *m, struct span props,
                           enum mqtt_version v, size_t *packet_id_at);

#endif
