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
 * Ownership  a client is the caller's; it stays in place until the loop is done with it. id is
 *            borrowed.
 * Failure    what the broker does wrong is told to ops->wrong() with a static text.
 */
#ifndef NOCTULE_BENCH_CLIENT_H
#define NOCTULE_BENCH_CLIENT_H

#include "bench/load/alias.h"
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
    void (*acked)(struct client *c);                   /* stream.done or stream.received moved */
    void (*closed)(struct client *c, const char *why); /* NULL: after client_disconnect() */
    void (*wrong)(struct client *c, const char *what);
    void (*unsubscribed)(struct client *c); /* by those that unsubscribe; else NULL */
    void (*ponged)(struct client *c);       /* by those that ping; else NULL */
};

enum client_state {
    CLIENT_CLOSED,
    CLIENT_OPENING, /* up to CONNACK */
    CLIENT_UP,
    CLIENT_LEAVING, /* DISCONNECT is sent, the broker has to close */
};

/* What goes in front of each payload, encoded once; the numbers are put in for each message. */
struct stream_head {
    uint8_t *p; /* fixed header, topic, identifier, properties */
    size_t n;
    size_t packet_id_at;
    size_t correlation_at; /* 0: no correlation data */
};

enum head_form {
    HEAD_PLAIN,
    HEAD_ALIAS_SET, /* topic and alias */
    HEAD_ALIAS_ONLY,
    HEAD_FORMS,
};

struct stream_topic {
    struct span name;                     /* within the plain head */
    struct stream_head heads[HEAD_FORMS]; /* the last two for the first `aliases` topics */
    bool alias_known;                     /* set on this connection */
};

/* How a stream's messages look. */
struct stream_form {
    enum mqtt_version version;
    uint8_t qos;
    bool retain;
    bool properties;  /* extras.h, v5 */
    uint16_t aliases; /* so many of the topics get an alias if the broker takes as many, v5 */
    uint32_t payload_n;
};

/*
 * Topics that differ only in a number: one head, into which the number is written for each message.
 * So a million topics cost no memory. The pattern has NUMBER_DIGITS question marks wherever the
 * number goes.
 */
#define NUMBER_DIGITS     8u
#define NUMBER_MARK       "????????"
#define NUMBER_PLACES_MAX 4u
struct stream_numbers {
    uint32_t first; /* message s goes to number (first + s % topics_n * step) % all */
    uint32_t step;
    uint32_t all;
    uint16_t places_at[NUMBER_PLACES_MAX]; /* within the name */
    uint16_t places;                       /* 0: topics have names of their own */
    uint16_t name_at;                      /* within the head */
};

struct stream {
    struct stream_topic *topics; /* message s goes to topic s % topics_n */
    uint32_t topics_n;
    struct stream_numbers numbers;
    uint32_t publisher; /* stamped into each payload */
    uint8_t qos;
    uint16_t aliases;
    uint32_t payload_n;
    uint32_t run; /* id of this run */
    /* done <= received <= next. QoS 0: all the same. QoS 1: done = received. */
    uint64_t next;     /* number of the next new message */
    uint64_t received; /* QoS 2: PUBRECs that came */
    uint64_t done;     /* acknowledged to the end */
    uint64_t counted;  /* of next: those that are in the run's sum */
    uint64_t resumes;  /* how often the unacknowledged were sent again */
    uint64_t by_alias; /* messages sent with the alias alone */
    uint64_t timed;    /* of done: those whose time was looked at */
    uint64_t *sent_ns; /* ring of the times of the unacknowledged, when they are wanted */
    uint64_t sent_mask;
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
    uint64_t received_n;        /* PUBLISH packets, all */
    struct alias_table aliases; /* the broker's; .max is announced (v5) */
    uint32_t subscription_id;   /* v5: goes with SUBSCRIBE, 0: none */
    uint16_t alias_max;         /* v5: the broker's, from CONNACK */
    uint16_t receive_max;       /* the broker's: unacknowledged messages of QoS > 0 it takes */
    struct connect_will will;
    enum client_state state;
    enum mqtt_version version;
    uint16_t keep_alive_s;
    bool clean;
    bool has_will;
    bool wants_retain; /* what it receives has to have the retain flag; else it must not */
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

/* topics: names, copied. */
void stream_init(struct stream *s, const struct stream_form *form, const char *const *topics,
                 uint32_t n, uint32_t publisher, uint32_t run);
/* topics_n topics named by one pattern, copied. No aliases. From numbers only first, step and all.
 */
void stream_init_numbers(struct stream *s, const struct stream_form *form, const char *pattern,
                         struct stream_numbers numbers, uint32_t topics_n, uint32_t publisher,
                         uint32_t run);
/* Writes a pattern with its number put in. */
void number_name(char *out, size_t cap, const char *pattern, uint32_t number);
static inline uint32_t stream_number_of(const struct stream *s, uint64_t seq)
{
    const struct stream_numbers *n = &s->numbers;

    return (uint32_t)((n->first + seq % s->topics_n * n->step) % n->all);
}
/* Keeps when messages were sent, for at most `window` unacknowledged. */
void stream_keep_times(struct stream *s, uint32_t window);
/* From acked(): when the message acknowledged last was sent. */
uint64_t stream_acked_sent_ns(const struct stream *s);
/* The topic of a message, until the next call. */
struct span stream_topic_of(struct stream *s, uint64_t seq);
void stream_fini(struct stream *s);

/* Starts to connect; connected() or closed() tells. Without a client id of its own: c->id = "". */
bool client_open(struct client *c, struct loop *l, const struct address *to);
/* One SUBSCRIBE or UNSUBSCRIBE at a time, of at most so many filters. */
#define FILTERS_MAX 100u
void client_subscribe(struct client *c, const char *const *filters, uint32_t n, uint8_t qos);
void client_unsubscribe(struct client *c, const char *const *filters, uint32_t n);
void client_ping(struct client *c);
/* DISCONNECT; the broker has to close, and closed() tells. */
void client_disconnect(struct client *c);
/* Sends the stream's next message, stamped with the time or with the one it was meant for. */
void client_publish(struct client *c);
void client_publish_at(struct client *c, uint64_t time_ns);
/* Sends a single QoS 0 message outside the stream. */
void client_publish_once(struct client *c, const char *topic, struct span payload, bool retain);
/* DISCONNECT (unless reset), then the end. closed() is not called. */
void client_close(struct client *c, bool clean);
/* Forgets the session on our side. */
void client_forget(struct client *c);
void client_fini(struct client *c);

#endif
