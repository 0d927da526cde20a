/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scenarios of test_v5_clients.py with libmosquitto.
 * Usage: mosq5 PORT qos|properties|session|takeover|limits; prints "ok".
 */
#include <mosquitto.h>
#include <mqtt_protocol.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PATIENCE_S 20
#define MESSAGES   256

struct message {
    char topic[32];
    char payload[32];
    int qos;
    bool retain;
    char content_type[32];
    char user[64]; /* all pairs, k=v; */
    unsigned subscription_id;
    unsigned expiry_s;
};

struct client {
    struct mosquitto *m;
    bool connected;
    bool present;
    int connack;
    int disconnect; /* reason; -1: none yet */
    int granted;
    int acks;
    int last_ack;
    unsigned receive_maximum, alias_maximum;
    struct message inbox[MESSAGES];
    int got, taken;
};

static int port;

static void need(bool ok, const char *what, int value)
{
    if (!ok) {
        fprintf(stderr, "%s: %d\n", what, value);
        exit(1);
    }
}

static void on_connect(struct mosquitto *m, void *arg, int rc, int flags,
                       const mosquitto_property *props)
{
    struct client *c = arg;
    uint16_t v;

    (void)m;
    c->connected = true;
    c->connack = rc;
    c->present = (flags & 1) != 0;
    if (mosquitto_property_read_int16(props, MQTT_PROP_RECEIVE_MAXIMUM, &v, false) != NULL) {
        c->receive_maximum = v;
    }
    if (mosquitto_property_read_int16(props, MQTT_PROP_TOPIC_ALIAS_MAXIMUM, &v, false) != NULL) {
        c->alias_maximum = v;
    }
}

static void on_disconnect(struct mosquitto *m, void *arg, int rc, const mosquitto_property *props)
{
    (void)m;
    (void)props;
    ((struct client *)arg)->disconnect = rc;
}

static void on_subscribe(struct mosquitto *m, void *arg, int mid, int n, const int *granted,
                         const mosquitto_property *props)
{
    (void)m;
    (void)mid;
    (void)n;
    (void)props;
    ((struct client *)arg)->granted = granted[0];
}

static void on_publish(struct mosquitto *m, void *arg, int mid, int rc,
                       const mosquitto_property *props)
{
    struct client *c = arg;

    (void)m;
    (void)mid;
    (void)props;
    c->acks++;
    c->last_ack = rc;
}

static void read_props(struct message *to, const mosquitto_property *props)
{
    const mosquitto_property *p = props;
    char *name = NULL;
    char *value = NULL;

    if (mosquitto_property_read_string(props, MQTT_PROP_CONTENT_TYPE, &value, false) != NULL) {
        snprintf(to->content_type, sizeof(to->content_type), "%s", value);
        free(value);
    }
    (void)mosquitto_property_read_varint(props, MQTT_PROP_SUBSCRIPTION_IDENTIFIER,
                                         &to->subscription_id, false);
    (void)mosquitto_property_read_int32(props, MQTT_PROP_MESSAGE_EXPIRY_INTERVAL, &to->expiry_s,
                                        false);
    for (bool skip = false;; skip = true) {
        size_t n = strlen(to->user);
        p = mosquitto_property_read_string_pair(p, MQTT_PROP_USER_PROPERTY, &name, &value, skip);
        if (p == NULL) {
            return;
        }
        snprintf(to->user + n, sizeof(to->user) - n, "%s=%s;", name, value);
        free(name);
        free(value);
    }
}

static void on_message(struct mosquitto *m, void *arg, const struct mosquitto_message *msg,
                       const mosquitto_property *props)
{
    struct client *c = arg;
    struct message *to = &c->inbox[c->got];

    (void)m;
    need(c->got < MESSAGES, "too many messages", c->got);
    snprintf(to->topic, sizeof(to->topic), "%s", msg->topic);
    snprintf(to->payload, sizeof(to->payload), "%.*s", msg->payloadlen, (char *)msg->payload);
    to->qos = msg->qos;
    to->retain = msg->retain;
    read_props(to, props);
    c->got++;
}

/* Runs the loops of both (b may be NULL) until *what differs from `from`, or for ms. */
static bool run(struct client *a, struct client *b, const int *what, int from, int ms)
{
    struct timespec begin;
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        (void)mosquitto_loop(a->m, 5, 1);
        if (b != NULL) {
            (void)mosquitto_loop(b->m, 5, 1);
        }
        if (what != NULL && *what != from) {
            return true;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < ms);
    return false;
}

static void start(struct client *c, const char *id, bool clean, unsigned expiry_s)
{
    mosquitto_property *props = NULL;
    int rc;

    memset(c, 0, sizeof(*c));
    c->disconnect = -1;
    c->connack = -1;
    c->m = mosquitto_new(id, clean, c);
    need(c->m != NULL, "mosquitto_new", 0);
    mosquitto_int_option(c->m, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
    mosquitto_int_option(c->m, MOSQ_OPT_RECEIVE_MAXIMUM, 20);
    mosquitto_connect_v5_callback_set(c->m, on_connect);
    mosquitto_disconnect_v5_callback_set(c->m, on_disconnect);
    mosquitto_subscribe_v5_callback_set(c->m, on_subscribe);
    mosquitto_publish_v5_callback_set(c->m, on_publish);
    mosquitto_message_v5_callback_set(c->m, on_message);
    if (expiry_s > 0) {
        mosquitto_property_add_int32(&props, MQTT_PROP_SESSION_EXPIRY_INTERVAL, expiry_s);
    }
    rc = mosquitto_connect_bind_v5(c->m, "127.0.0.1", port, 60, NULL, props);
    need(rc == MOSQ_ERR_SUCCESS, "connect", rc);
    mosquitto_property_free_all(&props);
    need(run(c, NULL, &c->connack, -1, PATIENCE_S * 1000) && c->connack == 0, "CONNACK",
         c->connack);
}

static void end(struct client *c)
{
    (void)mosquitto_disconnect_v5(c->m, 0, NULL);
    (void)run(c, NULL, &c->disconnect, -1, 2000);
    mosquitto_destroy(c->m);
}

static void subscribe(struct client *c, const char *filter, int qos, int options, unsigned id,
                      int want)
{
    mosquitto_property *props = NULL;
    int rc;

    if (id != 0) {
        mosquitto_property_add_varint(&props, MQTT_PROP_SUBSCRIPTION_IDENTIFIER, id);
    }
    c->granted = -1;
    rc = mosquitto_subscribe_v5(c->m, NULL, filter, qos, options, props);
    need(rc == MOSQ_ERR_SUCCESS, "subscribe", rc);
    mosquitto_property_free_all(&props);
    need(run(c, NULL, &c->granted, -1, PATIENCE_S * 1000) && c->granted == want, "granted",
         c->granted);
}

static void publish(struct client *c, struct client *beside, const char *topic, const char *payload,
                    int qos, bool retain, const mosquitto_property *props, int want)
{
    int before = c->acks;
    int rc =
        mosquitto_publish_v5(c->m, NULL, topic, (int)strlen(payload), payload, qos, retain, props);

    need(rc == MOSQ_ERR_SUCCESS, "publish", rc);
    need(run(c, beside, &c->acks, before, PATIENCE_S * 1000), "no acknowledgement", 0);
    need(c->last_ack == want, "reason", c->last_ack);
}

static struct message *expect(struct client *c, const char *topic, const char *payload, int qos)
{
    struct message *m = &c->inbox[c->taken];

    if (c->taken == c->got) {
        need(run(c, NULL, &c->got, c->got, PATIENCE_S * 1000), "no message", c->got);
    }
    c->taken++;
    if (strcmp(m->topic, topic) != 0 || strcmp(m->payload, payload) != 0 || m->qos != qos) {
        fprintf(stderr, "got %s %s %d, expected %s %s %d\n", m->topic, m->payload, m->qos, topic,
                payload, qos);
        exit(1);
    }
    return m;
}

static void expect_nothing(struct client *c)
{
    (void)run(c, NULL, NULL, 0, 300);
    need(c->got == c->taken, "got more", c->got - c->taken);
}

static void qos(void)
{
    struct client s;
    struct client p;

    start(&s, "lm-s", true, 0);
    start(&p, "lm-p", true, 0);
    subscribe(&s, "lm/qos/+", 2, 0, 0, 2);
    for (int q = 0; q < 3; q++) {
        for (int i = 0; i < 30; i++) {
            char payload[16];
            snprintf(payload, sizeof(payload), "%d-%d", q, i);
            publish(&p, &s, "lm/qos/t", payload, q, false, NULL, 0);
            (void)expect(&s, "lm/qos/t", payload, q);
        }
    }
    publish(&p, NULL, "lm/nobody", "x", 1, false, NULL, MQTT_RC_NO_MATCHING_SUBSCRIBERS);
    publish(&p, NULL, "$SYS/broker/uptime", "x", 1, false, NULL, MQTT_RC_NOT_AUTHORIZED);
    end(&s);
    end(&p);
}

static void properties(void)
{
    mosquitto_property *props = NULL;
    struct client s;
    struct message *m;

    start(&s, "lm-s", true, 0);
    mosquitto_property_add_string(&props, MQTT_PROP_CONTENT_TYPE, "text/plain");
    mosquitto_property_add_int32(&props, MQTT_PROP_MESSAGE_EXPIRY_INTERVAL, 1000);
    mosquitto_property_add_string_pair(&props, MQTT_PROP_USER_PROPERTY, "k", "1");
    mosquitto_property_add_string_pair(&props, MQTT_PROP_USER_PROPERTY, "k", "2");
    publish(&s, NULL, "lm/props", "kept", 1, true, props, MQTT_RC_NO_MATCHING_SUBSCRIBERS);
    subscribe(&s, "lm/props", 1, MQTT_SUB_OPT_NO_LOCAL | MQTT_SUB_OPT_RETAIN_AS_PUBLISHED, 7, 1);
    m = expect(&s, "lm/props", "kept", 1);
    need(m->retain && m->subscription_id == 7 && m->expiry_s > 990, "properties", (int)m->expiry_s);
    need(strcmp(m->content_type, "text/plain") == 0 && strcmp(m->user, "k=1;k=2;") == 0, m->user,
         0);
    publish(&s, NULL, "lm/props", "mine", 1, false, props, 0);
    expect_nothing(&s); /* no local */
    subscribe(&s, "lm/props", 1, MQTT_SUB_OPT_SEND_RETAIN_NEW, 8, 1);
    expect_nothing(&s);
    publish(&s, NULL, "lm/props", "", 1, true, NULL, 0);
    m = expect(&s, "lm/props", "", 1);
    need(m->subscription_id == 8 && !m->retain, "changed options", (int)m->subscription_id);
    mosquitto_property_free_all(&props);
    end(&s);
}

static void session(void)
{
    struct client s;
    struct client p;

    start(&s, "lm-dur", true, 100);
    need(!s.present, "present", 1);
    subscribe(&s, "lm/dur", 1, 0, 0, 1);
    end(&s);
    start(&p, "lm-p", true, 0);
    for (int i = 0; i < 60; i++) {
        char payload[16];
        snprintf(payload, sizeof(payload), "%d", i);
        publish(&p, NULL, "lm/dur", payload, 1, false, NULL, 0);
    }
    start(&s, "lm-dur", false, 0);
    need(s.present, "not present", 0);
    for (int i = 0; i < 60; i++) {
        char payload[16];
        snprintf(payload, sizeof(payload), "%d", i);
        (void)expect(&s, "lm/dur", payload, 1);
    }
    expect_nothing(&s);
    end(&s);
    start(&s, "lm-dur", false, 0);
    need(!s.present, "present after its end", 1);
    end(&s);
    end(&p);
}

static void takeover(void)
{
    struct client a;
    struct client b;

    start(&a, "lm-over", true, 100);
    start(&b, "lm-over", false, 100);
    need(b.present, "not present", 0);
    need(run(&a, &b, &a.disconnect, -1, PATIENCE_S * 1000), "not disconnected", 0);
    need(a.disconnect == MQTT_RC_SESSION_TAKEN_OVER, "reason", a.disconnect);
    mosquitto_destroy(a.m);
    end(&b);
}

/* What the broker says of itself. */
static void limits(void)
{
    struct client c;

    start(&c, "lm-limits", true, 0);
    need(c.receive_maximum > 0, "receive maximum", 0);
    need(c.alias_maximum == 10, "topic alias maximum", (int)c.alias_maximum);
    subscribe(&c, "$share/g/lm/x", 1, 0, 0, 1);
    end(&c);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } scenarios[] = {{"qos", qos},
                     {"properties", properties},
                     {"session", session},
                     {"takeover", takeover},
                     {"limits", limits}};

    need(argc == 3, "usage", argc);
    port = atoi(argv[1]);
    mosquitto_lib_init();
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        if (strcmp(argv[2], scenarios[i].name) == 0) {
            scenarios[i].run();
            mosquitto_lib_cleanup();
            puts("ok");
            return 0;
        }
    }
    fprintf(stderr, "no scenario %s\n", argv[2]);
    return 2;
}
