/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.h - an MQTT client that checks what the broker does to it.
 *
 * Publishing is a stream of numbered messages. The packet identifier is computed from the number,
 * what is unacknowledged is a range of numbers, and the payload can be built again from it: a
 * message costs no memory, and a session is resumed (PUBLISH with DUP, PUBREL) after any loss of
 * the connection.
 *
 * Acknowledgements must come in the order of what they answer [MQTT-4.6.0-2, -3, -4]; a QoS 2
 * message is delivered once however often it is repeated [MQTT-4.3.3-2].
 *
 * Ownership  a client is the caller's; it stays in place until the loop is done with it. id and the
 * stream's topics are borrowed. Failure    what the broker does wrong is told to ops->wrong() with
 * a static text.
 */
#ifndef NOCTULE_BENCH_CLIENT_H
#define NOCTULE_BENCH_CLIENT_H

#include "bench/load/loop.h"
#include "server/codec/connect.h"
#include "server/codec/publish.h"
#include "server/codec/subscribe.h"

struct client;

struct client_ops {
    void (*connected)(struct client *c, bool session_present);
    void (*subscribed)(struct client *c);
    /* A message: QoS 2 repetitions are filtered already. */
    void (*message)(struct client *c, const struct publish *m);
    void (*acked)(struct client *c); /* stream.done or stream.received moved */
    void (*closed)(struct client *c, const char *why);
    void (*wrong)(struct client *c, const char *what);
};

enum client_state {
    CLIENT_CLOSED,
    CLIENT_OPENING, /* up to CONNACK */
    CLIENT_UP,
};

/* What goes in front of each payload. */
struct stream_head {
    uint8_t *p; /* fixed header, topic, identifier, properties */
    size_t n;
    size_t packet_id_at;
};

struct stream {
    struct stream_head *heads; /* message s goes to topic s % topics */
    uint32_t topics;
    uint32_t publisher; /* stamped into each payload */
    uint8_t qos;
    uint32_t payload_n;
    uint32_t run; /* id of this run */
    /* done <= received <= next. QoS 0: all the same. QoS 1: done = received. */
    uint64_t next;     /* number of the next new message */
    uint64_t received; /* QoS 2: PUBRECs that came */
    uint64_t done;     /* acknowledged to the end */
    uint64_t resumes;  /* how often the unacknowledged were sent again */
};

struct client {
    struct conn conn; /* first: the loop hands it back */
    const struct client_ops *ops;
    void *owner;
    const char *id;
    struct stream stream;
    uint64_t *taken;  /* incoming QoS 2 identifiers between PUBREC and PUBREL, a bit each; made when
                         needed */
    uint64_t repeats; /* QoS 2 repetitions suppressed */
    uint64_t received_n; /* PUBLISH packets, all */
    struct connect_will will;
    enum client_state state;
    enum mqtt_version version;
    uint16_t keep_alive_s;
    bool clean;
    bool has_will;
};

/* Message sizes below this cannot carry the stamp. */
#define STAMP_MIN 24u
struct stamp {
    uint32_t run;
    uint32_t publisher;
    uint64_t seq;
    uint64_t time_ns;
};
/* false: not one of ours, or bytes changed on the way. */
bool stamp_read(struct stamp *out, struct span payload);

/* topics: names, copied. Message sizes are payload_n from then on. */
void stream_init(struct stream *s, enum mqtt_version v, const char *const *topics, uint32_t n,
                 uint8_t qos, bool retain, uint32_t payload_n, uint32_t publisher, uint32_t run);
void stream_fini(struct stream *s);

/* Starts to connect; connected() or closed() tells. Without a client id of its own: c->id = "". */
bool client_open(struct client *c, struct loop *l, const struct address *to);
void client_subscribe(struct client *c, const char *const *filters, uint32_t n, uint8_t qos);
/* Sends the stream's next message. */
void client_publish(struct client *c);
/* Sends a single QoS 0 message outside the stream. */
void client_publish_once(struct client *c, const char *topic, struct span payload, bool retain);
/* DISCONNECT (unless reset), then the end. closed() is not called. */
void client_close(struct client *c, bool clean);
/* Forgets the session on our side. */
void client_forget(struct client *c);
void client_fini(struct client *c);

#endif
