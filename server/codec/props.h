/* SPDX-License-Identifier: Apache-2.0 */
/*
 * props.h - the property table of MQTT 5.0 (2.2.2): one pass that checks and picks out.
 *
 * Ownership  views into the packet body.
 * Errors     an identifier unknown or not allowed in the packet, a value cut short: DEC_MALFORMED;
 *            one twice (but user property and, in PUBLISH to a client, subscription identifier), a
 *            value outside its range (receive maximum 0, boolean over 1, subscription id
 *            0), authentication data without a method: DEC_PROTOCOL.
 */
#ifndef NOCTULE_CODEC_PROPS_H
#define NOCTULE_CODEC_PROPS_H

#include "server/base/span.h"
#include "server/codec/dec.h"
#include "server/codec/mqtt.h"

/* Where a property block stands: decides what is allowed in it. Wills are a place of their own. */
enum prop_place {
    PROPS_CONNECT,
    PROPS_WILL,
    PROPS_CONNACK,
    PROPS_PUBLISH,
    PROPS_PUBACK, /* PUBACK, PUBREC, PUBREL, PUBCOMP */
    PROPS_SUBSCRIBE,
    PROPS_SUBACK, /* SUBACK, UNSUBACK */
    PROPS_UNSUBSCRIBE,
    PROPS_DISCONNECT,
    PROPS_AUTH,
};

struct props {
    struct span raw;  /* the block after its length, for forwarding in order of arrival */
    uint64_t present; /* bit (1 << identifier) for every property there */
    uint32_t message_expiry_s;
    uint32_t session_expiry_s;
    uint32_t will_delay_s;
    uint32_t maximum_packet_size;
    uint32_t subscription_id; /* SUBSCRIBE's, or the first one of a PUBLISH */
    uint16_t server_keep_alive_s;
    uint16_t receive_maximum;
    uint16_t topic_alias_maximum;
    uint16_t topic_alias;
    uint8_t payload_format;
    uint8_t request_problem_info;
    uint8_t request_response_info;
    uint8_t maximum_qos;
    uint8_t retain_available;
    uint8_t wildcard_available;
    uint8_t subscription_id_available;
    uint8_t shared_available;
    bool has_controls; /* in a string: control characters or noncharacters */
    struct span content_type;
    struct span response_topic;
    struct span correlation_data;
    struct span assigned_client_id;
    struct span auth_method;
    struct span auth_data;
    struct span response_info;
    struct span server_reference;
    struct span reason_string;
};

static inline bool props_has(const struct props *p, enum mqtt_prop id)
{
    return (p->present >> id) & 1u;
}

/*
 * Decodes a property block (length included) from the front of `in`; *used becomes the bytes it
 * took. A zeroed struct is what an absent block means.
 */
enum dec_rc props_decode(struct props *out, struct span in, enum prop_place place, size_t *used,
                         const char **why);

/*
 * Walks a block that props_decode() accepted. *at starts at 0; false at the end. `whole` is the
 * property's own bytes, identifier included; `key`/`value` are set for strings, binary data and
 * user properties, `number` for integers.
 */
struct prop_item {
    enum mqtt_prop id;
    struct span whole;
    struct span key;
    struct span value;
    uint32_t number;
};
bool props_next(struct span raw, size_t *at, struct prop_item *out);

/*
 * Encoding: appends one property; returns the bytes written. The caller has room: strings take 3 +
 * n, user properties 5 + key + value, integers at most 5.
 */
size_t prop_put_byte(uint8_t *p, enum mqtt_prop id, uint8_t v);
size_t prop_put_u16(uint8_t *p, enum mqtt_prop id, uint16_t v);
size_t prop_put_u32(uint8_t *p, enum mqtt_prop id, uint32_t v);
size_t prop_put_varint(uint8_t *p, enum mqtt_prop id, uint32_t v);
size_t prop_put_string(uint8_t *p, enum mqtt_prop id, struct span s);
size_t prop_put_pair(uint8_t *p, struct span key, struct span value);

#endif
