/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reason.h - which packets of 5.0 may carry which reason code [MQTT 5.0, 2.4]: what decoders judge
 * by, and what an encoder is given. Clients end a connection that says another, and some of them
 * themselves.
 */
#ifndef NOCTULE_CODEC_REASON_H
#define NOCTULE_CODEC_REASON_H

#include <stdbool.h>

#include "server/codec/mqtt.h"

extern const uint16_t reason_packets[256]; /* for each code a bit for each type */

static inline bool reason_is_allowed(enum mqtt_type type, uint8_t reason)
{
    return (reason_packets[reason] >> type & 1u) != 0;
}

#endif
