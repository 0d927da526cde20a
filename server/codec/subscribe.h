/* SPDX-License-Identifier: Apache-2.0 */
/*
 * subscribe.h - SUBSCRIBE, UNSUBSCRIBE and their answers.
 *
 * Decoding checks the whole packet once, then the filters are walked without further errors:
 *
 *     if (subscribe_decode(&s, body, v, &why) == DEC_OK)
 *         while (subscribe_next(&s, &item)) ...
 */
#ifndef NOCTULE_CODEC_SUBSCRIBE_H
#define NOCTULE_CODEC_SUBSCRIBE_H

#include "server/codec/props.h"

struct subscribe {
    uint16_t packet_id;
    struct props props; /* v5 */
    size_t count;       /* filters in the packet, at least 1 [MQTT-3.8.3-2] */
    struct span rest;   /* what subscribe_next() has not given yet */
    bool options;       /* SUBSCRIBE: an option byte behind each filter */
    bool has_controls;  /* in a string: control characters or noncharacters */
};

struct subscribe_item {
    struct span filter; /* UTF-8 checked, not empty; wildcard placement is routing's
                           topic_filter_is_valid() */
    uint8_t qos;
    bool no_local;            /* v5 */
    bool retain_as_published; /* v5 */
    uint8_t retain_handling;  /* v5: 0, 1, 2 */
};

/* Option byte: reserved bits are malformed, QoS 3 and retain handling 3 a protocol error; 3.x allows the QoS bits only.
 */
enum dec_rc subscribe_decode(struct subscribe *out, struct span body, enum mqtt_version v,
                             const char **why);
enum dec_rc unsubscribe_decode(struct subscribe *out, struct span body, enum mqtt_version v,
                               const char **why);
bool subscribe_next(struct subscribe *s, struct subscribe_item *out);

/* codes: one per filter, in order. props: encoded block without its length (v5 only). 0: cap too
 * small. */
size_t suback_encode(uint8_t *p, size_t cap, enum mqtt_version v, uint16_t packet_id,
                     struct span props, const uint8_t *codes, size_t n);
/* 3.x carries no codes. */
size_t unsuback_encode(uint8_t *p, size_t cap, enum mqtt_version v, uint16_t packet_id,
                       struct span props, const uint8_t *codes, size_t n);

/* For clients of ours. */
size_t subscribe_encode(uint8_t *p, size_t cap, enum mqtt_version v, uint16_t packet_id,
                        struct span props, const struct subscribe_item *items, size_t n);
size_t unsubscribe_encode(uint8_t *p, size_t cap, enum mqtt_version v, uint16_t packet_id,
                          struct span props, const struct subscribe_item *items, size_t n);
struct suback {
    uint16_t packet_id;
    struct props props;
    struct span codes;
};
enum dec_rc suback_decode(struct suback *out, struct span body, enum mqtt_version v,
                          const char **why);
enum dec_rc unsuback_decode(struct suback *out, struct span body, enum mqtt_version v,
                            const char **why);

#endif
