/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extras.h - the properties that each message carries under --properties, and what has to come of
 * them: content type, two user properties of the same name, correlation data with publisher and
 * number, message expiry.
 *
 * Unchanged, and user properties in order [MQTT-3.3.2-15 to -20]; the expiry less the seconds the
 * broker had it, no more [MQTT-3.3.2-6]. Different properties may come in any order: only that of
 * user properties means something.
 */
#ifndef NOCTULE_BENCH_EXTRAS_H
#define NOCTULE_BENCH_EXTRAS_H

#include "server/codec/publish.h"

#define EXTRAS_MAX         160u
#define EXTRAS_EXPIRY_S    3600u
#define EXTRAS_CORRELATION 12u

/* Encodes the block; returns its size, *correlation_at is where the data's bytes stand in it. */
size_t extras_put(uint8_t *p, uint32_t publisher, uint64_t seq, size_t *correlation_at);
/* The correlation data of one message: EXTRAS_CORRELATION bytes. */
void extras_correlation(uint8_t *p, uint32_t publisher, uint64_t seq);

struct extras_want {
    uint32_t publisher;
    uint64_t seq;
    uint32_t age_s;           /* whole seconds since it was sent */
    uint32_t subscription_id; /* exactly this one, 0: none */
};
/* NULL, or what is wrong. */
const char *extras_judge(const struct publish *m, const struct extras_want *want);

#endif
