/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame.h - fixed header and remaining length: bytes -> one whole packet, "need more", or an error.
 *
 * Pure; no allocation. Both protocol families share this layer.
 */
#ifndef NOCTULE_CODEC_FRAME_H
#define NOCTULE_CODEC_FRAME_H

#include "server/base/span.h"
#include "server/codec/mqtt.h"

enum frame_rc {
    FRAME_OK,
    FRAME_NEED_MORE, /* out->total is the packet's whole size where it is known already, else 0 */
    FRAME_MALFORMED, /* type 0, wrong flags [MQTT-2.1.3-1], length over four bytes or not shortest,
                        PINGREQ or PINGRESP with a body */
    FRAME_TOO_LARGE, /* total is above max_total; out->total says how large */
};

struct frame {
    enum mqtt_type type;
    uint8_t flags;    /* low four bits of the first byte */
    struct span body; /* after the remaining length */
    size_t total;     /* bytes the whole packet takes, fixed header included */
};

/*
 * Looks at the start of `in`. max_total: largest packet accepted, fixed header included (bytes).
 * The flags of every type but PUBLISH are checked here against the reserved values. A length not in
 * its shortest form is malformed [MQTT-1.5.5-1], for 3.x as well.
 */
enum frame_rc frame_next(struct span in, size_t max_total, struct frame *out, const char **why);

/*
 * The same for a connection that is known to be 3.1, which has no reserved flags: bits it does not
 * use are ignored, and a repeated PUBREL, SUBSCRIBE or UNSUBSCRIBE carries DUP [MQTT 3.1, 2.1].
 * AUTH is refused.
 */
enum frame_rc frame_next_31(struct span in, size_t max_total, struct frame *out, const char **why);

/* Writes a fixed header to p (room for MQTT_MAX_FIXED_HEADER); returns its bytes. */
size_t frame_put_header(uint8_t *p, uint8_t first_byte, uint32_t remaining);

/* Bytes of the variable byte integer for v (1-4), and its encoding. v: MQTT_MAX_REMAINING_LENGTH at
 * most. */
size_t varint_size(uint32_t v);
size_t varint_put(uint8_t *p, uint32_t v);

#endif
