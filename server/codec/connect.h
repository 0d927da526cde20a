/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connect.h - CONNECT, CONNACK, DISCONNECT and AUTH of all three versions.
 *
 * Ownership  decoded views point into the body.  Encoders write to memory the caller provides and
 *            return the bytes written, 0 when `cap` is too small.
 */
#ifndef NOCTULE_CODEC_CONNECT_H
#define NOCTULE_CODEC_CONNECT_H

#include "server/codec/props.h"

struct connect_will {
    struct span topic;
    struct span payload;
    struct props props; /* v5 */
    uint8_t qos;
    bool retain;
};

struct connect {
    /* Set as soon as the level is known, also when the answer is an error; for a level not
     * supported the 3.x whose CONNACK can say so [MQTT-3.1.2-2]. */
    enum mqtt_version version;
    bool bridge; /* high bit of the level: 0x83, 0x84 */
    bool clean;  /* Clean Session / Clean Start */
    bool has_will;
    bool has_username;
    bool has_password;
    bool has_controls; /* in a string: control characters or noncharacters */
    uint16_t keep_alive_s;
    struct span client_id;
    struct span username;
    struct span password;
    struct connect_will will;
    struct props props; /* v5 */
};

/*
 * Checks every flag and field: name and level [MQTT-3.1.2-1,2], reserved flag 0 [MQTT-3.1.2-3],
 * will QoS [MQTT-3.1.2-11,12], will flags without a will, password without user name in 3.x
 * [MQTT-3.1.2-22 of 3.1.1], strings, will topic (no wildcards, not empty), nothing behind the last
 * field. 3.1 is taken at its word: the reserved flag is not looked at, and a user name or password
 * announced may be missing at the end of the packet (has_username, has_password become false). The
 * level is accepted as 3 with MQIsdp, 4 or 5 with MQTT, 0x83 and 0x84 likewise; any other with a
 * right name: DEC_UNSUPPORTED_VERSION.
 */
enum dec_rc connect_decode(struct connect *out, struct span body, const char **why);

/* 3.x. session_present is not sent to 3.1 [byte is reserved there]. Always 4 bytes. */
size_t connack3_encode(uint8_t *p, size_t cap, bool session_present, enum mqtt3_connack rc);
/* v5; props: encoded properties without their length, may be empty. */
size_t connack5_encode(uint8_t *p, size_t cap, bool session_present, enum mqtt_reason rc,
                       struct span props);

struct connack {
    bool session_present;
    uint8_t reason; /* return code of 3.x, reason code of v5 */
    struct props props;
};
enum dec_rc connack_decode(struct connack *out, struct span body, enum mqtt_version v,
                           const char **why);

/* For clients of ours (load generator, tests, later bridges). */
size_t connect_encode(uint8_t *p, size_t cap, const struct connect *c);

struct disconnect {
    enum mqtt_reason reason; /* 0 for 3.x and when left out */
    struct props props;
};
enum dec_rc disconnect_decode(struct disconnect *out, struct span body, enum mqtt_version v,
                              const char **why);
/* v5 only: a server of 3.x has no DISCONNECT. reason 0 without properties takes the 2-byte form. */
size_t disconnect5_encode(uint8_t *p, size_t cap, enum mqtt_reason reason, struct span props);

struct auth {
    enum mqtt_reason reason;
    struct props props;
};
enum dec_rc auth_decode(struct auth *out, struct span body, const char **why);
size_t auth_encode(uint8_t *p, size_t cap, enum mqtt_reason reason, struct span props);

#endif
