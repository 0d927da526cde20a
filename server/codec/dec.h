/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dec.h - what every decoder answers.
 *
 * Decoders are pure: bytes in, views out. Views point into the packet's body and live as long as
 * it. Only form is judged; meaning (packet id in use, aliases, limits, rights) is the shard's.
 * `why` is set, on anything but DEC_OK, to a static string for the log.
 */
#ifndef NOCTULE_CODEC_DEC_H
#define NOCTULE_CODEC_DEC_H

enum dec_rc {
    DEC_OK,
    DEC_MALFORMED,           /* 0x81; v3: close */
    DEC_PROTOCOL,            /* 0x82; v3: close */
    DEC_UNSUPPORTED_VERSION, /* CONNECT only: protocol name is fine, the level is not one of ours */
    DEC_BAD_PROTOCOL_NAME,   /* CONNECT only: neither MQTT nor MQIsdp; close without an answer */
    DEC_TOPIC_FILTER,        /* 0x8F: a filter of no length (v3: close) */
    DEC_TOPIC_NAME, /* 0x90: likewise a topic name or response topic, or one with wildcards */
};

#endif
