/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plain.h - the common message, with a topic and without properties, decoded for little: a
 * generator that costs less leaves more of the machine to the broker.
 */
#ifndef NOCTULE_BENCH_PLAIN_H
#define NOCTULE_BENCH_PLAIN_H

#include "server/codec/frame.h"
#include "server/codec/publish.h"

static inline uint16_t plain_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

/*
 * false: another kind of message, or something wrong with it; publish_decode() tells. The topic's
 * form is not looked at, since scenarios compare it with the one they sent. Of m only the fields of
 * 3.1.1 are written: its properties have to be zero already.
 */
bool plain_publish(struct publish *m, const struct frame *f, enum mqtt_version v);

#endif
