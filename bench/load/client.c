/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/client.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/load/extras.h"
#include "bench/load/plain.h"
#include "server/codec/ack.h"
#include "server/codec/frame.h"

#define MAX_PACKET (64u * 1024u * 1024u)
#define IDS        65535u /* packet identifiers 1..65535 */
#define SUB_ID     65535u /* SUBSCRIBE's; streams never have that many in flight */

/* --- payload --- */

static uint8_t fill_of(uint32_t publisher, uint64_t seq)
{
    return (uint8_t)(publisher * 31u + seq);
}

/* Without a payload there is nothing to stamp: a retained message is cleared. */
static void stamp_write(uint8_t *p, size_t n, const struct stamp *s)
{
    if (n == 0) {
        return;
    }
    memcpy(p, s, sizeof(*s));
    memset(p + sizeof(*s), fill_of(s->publisher, s->seq), n - sizeof(*s));
}

bool stamp_read(struct stamp *out, struct span payload)
{
    uint8_t fill;

    if (payload.n < STAMP_MIN) {
        return false;
    }
    memcpy(out, payload.p, sizeof(*out));
    fill = fill_of(out->publisher, out->seq);
    /* First, last and one in the middle: a cut, shifted or mixed up payload shows. */
    return payload.n == STAMP_MIN ||
           (payload.p[STAMP_MIN] == fill && payload.p[payload.n - 1] == fill &&
            payload.p[(STAMP_MIN + payload.n) / 2] == fill);
}

/* --- stream --- */

/* alias: 0 for none. props: the block without it. */
static void head_init(struct stream_head *h, struct publish *m, enum mqtt_version v,
                      struct span props, uint16_t alias, size_t correlation_at)
{
    uint8_t block[EXTRAS_MAX + 8];
    size_t n = alias != 0 ? prop_put_u16(block, PROP_TOPIC_ALIAS, alias) : 0;

    if (props.n > 0) {
        memcpy(block + n, props.p, props.n);
    }
    n += props.n;
    h->p = malloc(publish_size(v, m->qos, m->topic.n, n, 0) + MQTT_MAX_FIXED_HEADER);
    if (h->p == NULL) {
        die("out of memory");
    }
    h->n = publish_encode_head(h->p, m, span_of(block, n), v, &h->packet_id_at);
    /* The properties end the head. */
    h->correlation_at = props.n > 0 ? h->n - props.n + correlation_at : 0;
}

static void topic_init(struct stream_topic *t, const struct stream_form *form, const char *name,
                       uint32_t publisher, uint16_t alias)
{
    /* The head encoder takes lengths only from the payload. */
    static const uint8_t none[1];
    struct publish m = {
        .topic = span_str(name), .packet_id = 1, .qos = form->qos, .retain = form->retain};
    uint8_t extras[EXTRAS_MAX];
    size_t at = 0;
    struct span props =
        span_of(extras, form->properties ? extras_put(extras, publisher, 0, &at) : 0);
    struct stream_head *plain = &t->heads[HEAD_PLAIN];
    size_t first = 1;

    m.payload = (struct span){none, form->payload_n};
    head_init(plain, &m, form->version, props, 0, at);
    while (plain->p[first++] & 0x80) {}
    t->name = span_of(plain->p + first + 2, m.topic.n);
    if (alias != 0) {
        head_init(&t->heads[HEAD_ALIAS_SET], &m, form->version, props, alias, at);
        m.topic = span_str("");
        head_init(&t->heads[HEAD_ALIAS_ONLY], &m, form->version, props, alias, at);
    }
}

void stream_init(struct stream *s, const struct stream_form *form, const char *const *topics,
                 uint32_t n, uint32_t publisher, uint32_t run)
{
    *s = (struct stream){.topics_n = n,
                         .publisher = publisher,
                         .qos = form->qos,
                         .aliases = form->aliases,
                         .payload_n = form->payload_n,
                         .run = run};
    s->topics = calloc(n, sizeof(*s->topics));
    if (s->topics == NULL) {
        die("out of memory");
    }
    for (uint32_t i = 0; i < n; i++) {
        topic_init(&s->topics[i], form, topics[i], publisher,
                   i < form->aliases ? (uint16_t)(i + 1) : 0);
    }
}

void stream_init_numbers(struct stream *s, const struct stream_form *form, const char *pattern,
                         struct stream_numbers numbers, uint32_t topics_n, uint32_t publisher,
                         uint32_t run)
{
    struct stream_numbers *n = &s->numbers;

    stream_init(s, form, &pattern, 1, publisher, run);
    s->topics_n = topics_n;
    *n = (struct stream_numbers){.first = numbers.first, .step = numbers.step, .all = numbers.all};
    n->name_at = (uint16_t)(s->topics[0].name.p - s->topics[0].heads[HEAD_PLAIN].p);
    for (const char *at = pattern; (at = strstr(at, NUMBER_MARK)) != NULL; at += NUMBER_DIGITS) {
        if (n->places == NUMBER_PLACES_MAX) {
            die("too many numbers in a topic");
        }
        n->places_at[n->places++] = (uint16_t)(at - pattern);
    }
}

/* Two digits at a time. */
static void number_text(char out[NUMBER_DIGITS], uint32_t v)
{
    static const char pairs[] = "0001020304050607080910111213141516171819"
                                "2021222324252627282930313233343536373839"
                                "4041424344454647484950515253545556575859"
                                "6061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";

    for (int at = (int)NUMBER_DIGITS - 2; at >= 0; at -= 2) {
        memcpy(out + at, pairs + (size_t)(v % 100u) * 2, 2);
        v /= 100u;
    }
}

void number_name(char *out, size_t cap, const char *pattern, uint32_t number)
{
    char text[NUMBER_DIGITS];
    int n = snprintf(out, cap, "%s", pattern);

    if (n < 0 || (size_t)n >= cap) {
        die("%s: too long", pattern);
    }
    number_text(text, number);
    for (char *at = out; (at = strstr(at, NUMBER_MARK)) != NULL;) {
        memcpy(at, text, NUMBER_DIGITS);
    }
}

static void put_number(const struct stream *s, uint8_t *name, uint64_t seq)
{
    const struct stream_numbers *n = &s->numbers;
    char text[NUMBER_DIGITS];

    number_text(text, stream_number_of(s, seq));
    for (unsigned i = 0; i < n->places; i++) {
        memcpy(name + n->places_at[i], text, NUMBER_DIGITS);
    }
}

/* The message's place in .topics. A division is dear, and most streams have one topic. */
static uint32_t name_of(const struct stream *s, uint64_t seq)
{
    return s->numbers.places > 0 || s->topics_n == 1 ? 0 : (uint32_t)(seq % s->topics_n);
}

struct span stream_topic_of(struct stream *s, uint64_t seq)
{
    if (s->numbers.places == 0) {
        return s->topics[name_of(s, seq)].name;
    }
    put_number(s, s->topics[0].heads[HEAD_PLAIN].p + s->numbers.name_at, seq);
    return s->topics[0].name;
}

void stream_keep_times(struct stream *s, uint32_t window)
{
    s->sent_mask = 1;
    while (s->sent_mask < window) {
        s->sent_mask *= 2;
    }
    s->sent_ns = calloc(s->sent_mask, sizeof(*s->sent_ns));
    if (s->sent_ns == NULL) {
        die("out of memory");
    }
    s->sent_mask--;
}

uint64_t stream_acked_sent_ns(const struct stream *s)
{
    return s->sent_ns[(s->done - 1) & s->sent_mask];
}

/* How many there are in .topics. */
static uint32_t names_n(const struct stream *s)
{
    return s->numbers.places > 0 ? 1 : s->topics_n;
}

void stream_fini(struct stream *s)
{
    for (uint32_t i = 0; i < names_n(s); i++) {
        for (unsigned form = 0; form < HEAD_FORMS; form++) {
            free(s->topics[i].heads[form].p);
        }
    }
    free(s->topics);
    free(s->sent_ns);
    *s = (struct stream){.topics_n = 0};
}

static uint16_t id_of(uint64_t seq)
{
    return (uint16_t)(seq % (IDS - 1) + 1);
}

/* The head to send on this connection, which may set an alias. */
static const struct stream_head *head_of(struct client *c, uint64_t seq)
{
    struct stream *s = &c->stream;
    uint32_t at = name_of(s, seq);
    struct stream_topic *t = &s->topics[at];

    if (at >= s->aliases || at >= c->alias_max) {
        return &t->heads[HEAD_PLAIN];
    }
    if (!t->alias_known) {
        t->alias_known = true;
        return &t->heads[HEAD_ALIAS_SET];
    }
    s->by_alias++;
    return &t->heads[HEAD_ALIAS_ONLY];
}

static void put_message(struct client *c, uint64_t seq, uint64_t time_ns, bool dup)
{
    const struct stream_head *h = head_of(c, seq);
    const struct stream *s = &c->stream;
    struct stamp stamp = {s->run, s->publisher, seq, time_ns};
    uint8_t *p = conn_room(&c->conn, h->n + s->payload_n);

    memcpy(p, h->p, h->n);
    if (s->numbers.places > 0) {
        put_number(s, p + s->numbers.name_at, seq);
    }
    if (s->qos > 0) {
        uint16_t id = id_of(seq);

        p[h->packet_id_at] = (uint8_t)(id >> 8);
        p[h->packet_id_at + 1] = (uint8_t)id;
        if (dup) {
            p[0] |= 0x08;
        }
    }
    if (h->correlation_at != 0) {
        extras_correlation(p + h->correlation_at, s->publisher, seq);
    }
    if (s->sent_ns != NULL) {
        s->sent_ns[seq & s->sent_mask] = time_ns;
    }
    stamp_write(p + h->n, s->payload_n, &stamp);
    c->conn.out.n += h->n + s->payload_n;
}

static void put_ack(struct client *c, enum mqtt_type type, uint16_t id)
{
    uint8_t *p = conn_room(&c->conn, ACK_MAX);

    c->conn.out.n += ack_encode(p, type, c->version, id, RC_SUCCESS);
}

void client_publish(struct client *c)
{
    client_publish_at(c, c->conn.loop->now_ns);
}

void client_publish_at(struct client *c, uint64_t time_ns)
{
    put_message(c, c->stream.next++, time_ns, false);
    if (c->stream.qos == 0) {
        c->stream.received = c->stream.done = c->stream.next;
    }
}

/* [MQTT-4.4.0-1]: PUBREL for what had its PUBREC, PUBLISH with DUP for the rest, both in order. */
static void stream_resume(struct client *c)
{
    struct stream *s = &c->stream;

    if (s->done < s->next) {
        s->resumes++;
    }
    for (uint64_t seq = s->done; seq < s->received; seq++) {
        put_ack(c, MQTT_PUBREL, id_of(seq));
    }
    for (uint64_t seq = s->received; seq < s->next; seq++) {
        put_message(c, seq, c->conn.loop->now_ns, true);
    }
}

void client_publish_once(struct client *c, const char *topic, struct span payload, bool retain)
{
    struct publish m = {.topic = span_str(topic), .payload = payload, .retain = retain};
    size_t total = publish_size(c->version, 0, m.topic.n, 0, payload.n);
    uint8_t *p = conn_room(&c->conn, total);
    size_t id_at;
    size_t n = publish_encode_head(p, &m, SPAN_NULL, c->version, &id_at);

    if (payload.n > 0) {
        memcpy(p + n, payload.p, payload.n);
    }
    c->conn.out.n += n + payload.n;
}

/* --- incoming --- */

static void wrong(struct client *c, const char *what)
{
    c->ops->wrong(c, what);
}

/* Marks the identifier; false when it was marked. */
static bool take_id(struct client *c, uint16_t id)
{
    uint64_t bit = (uint64_t)1 << (id & 63u);

    if (c->taken == NULL) {
        c->taken = calloc(65536 / 64, sizeof(*c->taken));
        if (c->taken == NULL) {
            die("out of memory");
        }
    }
    if (c->taken[id >> 6] & bit) {
        return false;
    }
    c->taken[id >> 6] |= bit;
    return true;
}

static void take_message(struct client *c, const struct publish *m)
{
    c->received_n++;
    if (m->qos == 2 && !take_id(c, m->packet_id)) {
        c->repeats++;
        if (!m->dup) {
            wrong(c, "packet identifier used again before PUBREL, without DUP");
        }
    } else {
        c->ops->message(c, m);
    }
    if (m->qos > 0 && c->conn.fd >= 0) {
        put_ack(c, m->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, m->packet_id);
    }
}

/* plain: zeroed once for all packets of a read. */
static void on_publish(struct client *c, const struct frame *f, struct publish *plain)
{
    struct publish m;
    const char *why = NULL;

    if (plain_publish(plain, f, c->version)) {
        take_message(c, plain);
        return;
    }
    if (publish_decode(&m, f->body, f->flags, c->version, true, &why) == DEC_OK) {
        why = alias_resolve(&c->aliases, &m);
    }
    if (why != NULL) {
        wrong(c, why);
        return;
    }
    take_message(c, &m);
}

static void on_pubrel(struct client *c, uint16_t id)
{
    if (c->taken != NULL) {
        c->taken[id >> 6] &= ~((uint64_t)1 << (id & 63u));
    }
    put_ack(c, MQTT_PUBCOMP, id);
}

static void on_pubrec(struct client *c, uint16_t id)
{
    struct stream *s = &c->stream;

    if (s->qos != 2 || s->received >= s->next || id != id_of(s->received)) {
        wrong(c, "PUBREC out of order or for nothing");
        return;
    }
    s->received++;
    put_ack(c, MQTT_PUBREL, id);
    c->ops->acked(c);
}

/* PUBACK and PUBCOMP: the end of the oldest. */
static void on_done(struct client *c, uint8_t qos, uint16_t id)
{
    struct stream *s = &c->stream;

    if (s->qos != qos || s->done >= (qos == 2 ? s->received : s->next) || id != id_of(s->done)) {
        wrong(c, qos == 2 ? "PUBCOMP out of order or for nothing"
                          : "PUBACK out of order or for nothing");
        return;
    }
    s->done++;
    if (qos == 1) {
        s->received = s->done;
    }
    c->ops->acked(c);
}

static void act_on_ack(struct client *c, enum mqtt_type type, uint16_t id)
{
    if (type == MQTT_PUBREC) {
        on_pubrec(c, id);
    } else if (type == MQTT_PUBREL) {
        on_pubrel(c, id);
    } else {
        on_done(c, type == MQTT_PUBCOMP ? 2 : 1, id);
    }
}

static void on_ack(struct client *c, const struct frame *f)
{
    struct ack a;
    const char *why = NULL;

    /* The usual one: an identifier, and success. */
    if (f->body.n == 2 && plain_u16(f->body.p) != 0 &&
        f->flags == (f->type == MQTT_PUBREL ? 2u : 0u)) {
        act_on_ack(c, f->type, plain_u16(f->body.p));
        return;
    }
    if (ack_decode(&a, f->body, f->type, c->version, &why) != DEC_OK) {
        wrong(c, why);
        return;
    }
    /* A PUBREL sent again may find its identifier released: the PUBCOMP was lost with the
     * connection. */
    if (a.reason >= RC_UNSPECIFIED_ERROR &&
        !(f->type == MQTT_PUBCOMP && a.reason == RC_PACKET_ID_NOT_FOUND && c->stream.resumes > 0)) {
        wrong(c, "acknowledgement with an error");
    }
    act_on_ack(c, f->type, a.packet_id);
}

/* What the broker takes on this connection; no alias of an earlier one holds. */
static void take_limits(struct client *c, const struct props *p)
{
    c->alias_max = p->topic_alias_maximum;
    c->receive_max = props_has(p, PROP_RECEIVE_MAXIMUM) ? p->receive_maximum : UINT16_MAX;
    for (uint32_t i = 0; i < names_n(&c->stream); i++) {
        c->stream.topics[i].alias_known = false;
    }
    alias_forget(&c->aliases);
}

static void on_connack(struct client *c, const struct frame *f)
{
    struct connack a;
    const char *why = NULL;

    if (c->state != CLIENT_OPENING || connack_decode(&a, f->body, c->version, &why) != DEC_OK) {
        wrong(c, "CONNACK malformed or not asked for");
        return;
    }
    if (a.reason != 0) {
        wrong(c, "CONNACK refuses");
        return;
    }
    c->state = CLIENT_UP;
    take_limits(c, &a.props);
    if (c->version == MQTT_3_1 ? c->clean : !a.session_present) { /* 3.1 cannot tell */
        client_forget(c);
    }
    stream_resume(c);
    c->ops->connected(c, a.session_present);
}

static void on_suback(struct client *c, const struct frame *f)
{
    struct suback s;
    const char *why = NULL;

    if (suback_decode(&s, f->body, c->version, &why) != DEC_OK || s.packet_id != SUB_ID) {
        wrong(c, "SUBACK malformed or for nothing");
        return;
    }
    for (size_t i = 0; i < s.codes.n; i++) {
        if (s.codes.p[i] > 2) {
            wrong(c, "SUBSCRIBE refused");
        }
    }
    c->ops->subscribed(c);
}

static void on_unsuback(struct client *c, const struct frame *f)
{
    struct suback s;
    const char *why = NULL;

    if (c->ops->unsubscribed == NULL || unsuback_decode(&s, f->body, c->version, &why) != DEC_OK ||
        s.packet_id != SUB_ID) {
        wrong(c, "UNSUBACK malformed or for nothing");
        return;
    }
    for (size_t i = 0; i < s.codes.n; i++) {
        if (s.codes.p[i] != 0) { /* v5: nothing was there to remove, or an error */
            wrong(c, "UNSUBSCRIBE refused, or of a filter that was not subscribed");
        }
    }
    c->ops->unsubscribed(c);
}

static void on_pingresp(struct client *c)
{
    if (c->ops->ponged == NULL) {
        wrong(c, "PINGRESP for nothing");
        return;
    }
    c->ops->ponged(c);
}

/* v5: who is taken over is told so; the close that follows is judged by the scenario. */
static void on_disconnect(struct client *c, const struct frame *f)
{
    struct disconnect d;
    const char *why = NULL;

    if (c->version != MQTT_5 || disconnect_decode(&d, f->body, c->version, &why) != DEC_OK ||
        d.reason != RC_SESSION_TAKEN_OVER) {
        wrong(c, "DISCONNECT from the broker");
    }
}

static void on_packet(struct client *c, const struct frame *f, struct publish *plain)
{
    switch (f->type) {
    case MQTT_PUBLISH:
        on_publish(c, f, plain);
        return;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        on_ack(c, f);
        return;
    case MQTT_CONNACK:
        on_connack(c, f);
        return;
    case MQTT_SUBACK:
        on_suback(c, f);
        return;
    case MQTT_UNSUBACK:
        on_unsuback(c, f);
        return;
    case MQTT_PINGRESP:
        on_pingresp(c);
        return;
    case MQTT_DISCONNECT:
        on_disconnect(c, f);
        return;
    case MQTT_RESERVED:
    case MQTT_CONNECT:
    case MQTT_SUBSCRIBE:
    case MQTT_UNSUBSCRIBE:
    case MQTT_PINGREQ:
    case MQTT_AUTH:
        wrong(c, "packet a broker does not send");
        return;
    }
}

static size_t on_bytes(struct conn *conn, struct span in)
{
    struct client *c = (struct client *)conn;
    size_t used = 0;
    struct publish plain = {.qos = 0};
    struct frame f;
    const char *why = NULL;

    while (c->conn.fd >= 0) {
        enum frame_rc rc =
            frame_next((struct span){in.p + used, in.n - used}, MAX_PACKET, &f, &why);

        if (rc == FRAME_NEED_MORE) {
            break;
        }
        if (rc != FRAME_OK) {
            wrong(c, why != NULL ? why : "malformed packet");
            return in.n;
        }
        on_packet(c, &f, &plain);
        used += f.total;
    }
    return used;
}

/* --- life --- */

static void on_opened(struct conn *conn)
{
    struct client *c = (struct client *)conn;
    struct connect m = {.version = c->version,
                        .clean = c->clean,
                        .has_will = c->has_will,
                        .keep_alive_s = c->keep_alive_s,
                        .client_id = span_str(c->id),
                        .will = c->will};
    size_t cap = 128 + m.client_id.n + c->will.topic.n + c->will.payload.n;
    uint8_t props[16];
    uint8_t *p = conn_room(conn, cap);
    size_t n = 0;

    if (c->version == MQTT_5 && !c->clean) {
        n += prop_put_u32(props, PROP_SESSION_EXPIRY, MQTT_SESSION_NEVER_EXPIRES);
    }
    if (c->version == MQTT_5 && c->aliases.max > 0) {
        n += prop_put_u16(props + n, PROP_TOPIC_ALIAS_MAXIMUM, c->aliases.max);
    }
    m.props.raw = span_of(props, n);
    n = connect_encode(p, cap, &m);
    if (n == 0) {
        die("CONNECT does not fit");
    }
    conn->out.n += n;
}

static void on_closed(struct conn *conn, const char *why)
{
    struct client *c = (struct client *)conn;
    bool wanted = c->state == CLIENT_LEAVING;

    c->state = CLIENT_CLOSED;
    c->ops->closed(c, wanted ? NULL : why);
}

static const struct conn_ops client_conn_ops = {on_opened, on_bytes, on_closed};

bool client_open(struct client *c, struct loop *l, const struct address *to)
{
    c->state = CLIENT_OPENING;
    if (!conn_open(&c->conn, l, to, &client_conn_ops)) {
        c->state = CLIENT_CLOSED;
        return false;
    }
    return true;
}

/* Returns the room that a packet of these filters needs. */
static size_t fill_items(struct subscribe_item *items, const char *const *filters, uint32_t n,
                         uint8_t qos)
{
    size_t cap = 32;

    if (n > FILTERS_MAX) {
        die("too many filters in one packet");
    }
    for (uint32_t i = 0; i < n; i++) {
        items[i] = (struct subscribe_item){.filter = span_str(filters[i]), .qos = qos};
        cap += items[i].filter.n + 3;
    }
    return cap;
}

void client_subscribe(struct client *c, const char *const *filters, uint32_t n, uint8_t qos)
{
    struct subscribe_item items[FILTERS_MAX];
    uint8_t props[8];
    size_t props_n = 0;
    size_t cap = fill_items(items, filters, n, qos);
    size_t used;

    if (c->version == MQTT_5 && c->subscription_id != 0) {
        props_n = prop_put_varint(props, PROP_SUBSCRIPTION_ID, c->subscription_id);
    }
    used = subscribe_encode(conn_room(&c->conn, cap), cap, c->version, SUB_ID,
                            span_of(props, props_n), items, n);
    if (used == 0) {
        die("SUBSCRIBE does not fit");
    }
    c->conn.out.n += used;
}

void client_unsubscribe(struct client *c, const char *const *filters, uint32_t n)
{
    struct subscribe_item items[FILTERS_MAX];
    size_t cap = fill_items(items, filters, n, 0);
    size_t used =
        unsubscribe_encode(conn_room(&c->conn, cap), cap, c->version, SUB_ID, SPAN_NULL, items, n);

    if (used == 0) {
        die("UNSUBSCRIBE does not fit");
    }
    c->conn.out.n += used;
}

/* A packet without a body. */
static void put_bare(struct client *c, enum mqtt_type type)
{
    uint8_t *p = conn_room(&c->conn, 2);

    p[0] = (uint8_t)((unsigned)type << 4);
    p[1] = 0;
    c->conn.out.n += 2;
}

void client_ping(struct client *c)
{
    put_bare(c, MQTT_PINGREQ);
}

void client_disconnect(struct client *c)
{
    put_bare(c, MQTT_DISCONNECT);
    c->state = CLIENT_LEAVING;
}

void client_close(struct client *c, bool clean)
{
    if (clean && c->state == CLIENT_UP) {
        put_bare(c, MQTT_DISCONNECT);
        loop_flush(c->conn.loop);
    }
    conn_close(&c->conn, !clean);
    c->state = CLIENT_CLOSED;
}

void client_forget(struct client *c)
{
    free(c->taken);
    c->taken = NULL;
}

void client_fini(struct client *c)
{
    conn_close(&c->conn, false);
    c->state = CLIENT_CLOSED;
    client_forget(c);
    alias_forget(&c->aliases);
    stream_fini(&c->stream);
}
