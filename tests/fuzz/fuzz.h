/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz.h - what the fuzz targets share.
 *
 * A target takes bytes of any kind, must not crash on them, and checks a property of what came out.
 * It runs under libFuzzer, and under replay.c with the files of its corpus.
 */
#ifndef NOCTULE_TESTS_FUZZ_H
#define NOCTULE_TESTS_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "server/base/span.h"
#include "server/codec/dec.h"
#include "server/codec/mqtt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process where a property does not hold: that is a finding. */
#define FUZZ_CHECK(cond)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* The first byte of an input says how the others are meant; bits 0 and 1 are the version. */
static inline enum mqtt_version fuzz_version(uint8_t how)
{
    static const enum mqtt_version versions[4] = {MQTT_3_1, MQTT_3_1_1, MQTT_5, MQTT_5};

    return versions[how & 3u];
}

/* A view that a decoder gave lies within the packet. */
static inline void fuzz_check_view(struct span view, struct span body)
{
    if (view.n > 0) {
        FUZZ_CHECK(view.p >= body.p && view.n <= body.n);
        FUZZ_CHECK((size_t)(view.p - body.p) <= body.n - view.n);
    }
}

/* Room for an encoder that it may fill to the last byte. */
static inline uint8_t *fuzz_room(size_t n)
{
    uint8_t *p = malloc(n);

    FUZZ_CHECK(p != NULL);
    return p;
}

#endif
