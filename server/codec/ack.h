/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ack.h - PUBACK, PUBREC, PUBREL, PUBCOMP.
 */
#ifndef NOCTULE_CODEC_ACK_H
#define NOCTULE_CODEC_ACK_H

#include "server/codec/props.h"

struct ack {
    uint16_t packet_id;
    enum mqtt_reason reason; /* 0 for 3.x and when left out */
    struct span props;       /* v5: the block as it came, behind its length; found valid */
};

/* Packet id 0 is refused; v5: only the reason codes listed for `type` [MQTT-3.4.2-1 ff.]. */
enum dec_rc ack_decode(struct ack *out, struct span body, enum mqtt_type type, enum mqtt_version v,
                       const char **why);

#define ACK_MAX 5u /* bytes, without properties */

/* The short form (4 bytes) for reason 0 and for 3.x; 5 bytes with a reason. */
size_t ack_encode(uint8_t *p, enum mqtt_type type, enum mqtt_version v, uint16_t packet_id,
                  enum mqtt_reason reason);
/* v5 with properties (encoded, without their length); 0: cap too small. */
size_t ack_encode_props(uint8_t *p, size_t cap, enum mqtt_type type, uint16_t packet_id,
                        enum mqtt_reason reason, struct span props);

#endif
