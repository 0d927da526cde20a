/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scenarios of test_v5_clients.py with Eclipse Paho for C (the synchronous client).
 * Usage: paho5 ADDRESS qos|properties|session|will|shared|refused; prints "ok".
 */
#include <MQTTClient.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 20000

static const char *address;

static void need(int ok, const char *what, int value)
{
    if (!ok) {
        fprintf(stderr, "%s: %d\n", what, value);
        exit(1);
    }
}

static void add_int(MQTTProperties *props, enum MQTTPropertyCodes which, unsigned value)
{
    MQTTProperty p = {.identifier = which};

    p.value.integer4 = value;
    if (which == MQTTPROPERTY_CODE_RECEIVE_MAXIMUM ||
        which == MQTTPROPERTY_CODE_TOPIC_ALIAS_MAXIMUM || which == MQTTPROPERTY_CODE_TOPIC_ALIAS) {
        p.value.integer2 = (unsigned short)value;
    } else if (which == MQTTPROPERTY_CODE_PAYLOAD_FORMAT_INDICATOR) {
        p.value.byte = (unsigned char)value;
    }
    need(MQTTProperties_add(props, &p) == 0, "property", (int)which);
}

static MQTTLenString text(const char *s)
{
    return (MQTTLenString){(int)strlen(s), (char *)s};
}

static void add_text(MQTTProperties *props, enum MQTTPropertyCodes which, const char *a,
                     const char *b)
{
    MQTTProperty p = {.identifier = which};

    p.value.data = text(a);
    if (b != NULL) {
        p.value.value = text(b);
    }
    need(MQTTProperties_add(props, &p) == 0, "property", (int)which);
}

static const char *get_text(MQTTProperties *props, enum MQTTPropertyCodes which)
{
    static char found[256];
    MQTTProperty *p = MQTTProperties_getProperty(props, which);

    need(p != NULL, "no property", (int)which);
    snprintf(found, sizeof(found), "%.*s", p->value.data.len, p->value.data.data);
    return found;
}

struct options {
    int clean;
    int expiry;
    const char *will_topic;
    int will_delay;
};

static MQTTClient connect_as(const char *id, struct options o)
{
    MQTTClient_createOptions create = MQTTClient_createOptions_initializer;
    MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer5;
    MQTTClient_willOptions will = MQTTClient_willOptions_initializer;
    MQTTProperties props = MQTTProperties_initializer;
    MQTTProperties will_props = MQTTProperties_initializer;
    MQTTResponse r;
    MQTTClient c;
    int rc;

    create.MQTTVersion = MQTTVERSION_5;
    rc = MQTTClient_createWithOptions(&c, address, id, MQTTCLIENT_PERSISTENCE_NONE, NULL, &create);
    need(rc == MQTTCLIENT_SUCCESS, "create", rc);
    options.cleanstart = o.clean;
    options.MQTTVersion = MQTTVERSION_5;
    options.connectTimeout = PATIENCE_MS / 1000;
    if (o.expiry > 0) {
        add_int(&props, MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, (unsigned)o.expiry);
    }
    if (o.will_topic != NULL) {
        will.topicName = o.will_topic;
        will.message = "gone";
        will.qos = 1;
        options.will = &will;
        add_int(&will_props, MQTTPROPERTY_CODE_WILL_DELAY_INTERVAL, (unsigned)o.will_delay);
        add_text(&will_props, MQTTPROPERTY_CODE_CONTENT_TYPE, "text/will", NULL);
    }
    r = MQTTClient_connect5(c, &options, &props, o.will_topic == NULL ? NULL : &will_props);
    need(r.reasonCode == MQTTREASONCODE_SUCCESS, "connect", r.reasonCode);
    MQTTResponse_free(r);
    MQTTProperties_free(&props);
    MQTTProperties_free(&will_props);
    return c;
}

static void subscribe(MQTTClient c, const char *filter, int qos, int want)
{
    MQTTResponse r = MQTTClient_subscribe5(c, filter, qos, NULL, NULL);

    need((int)r.reasonCode == want, "subscribe", r.reasonCode);
    MQTTResponse_free(r);
}

static void publish(MQTTClient c, const char *topic, const char *payload, int qos, int retained,
                    MQTTProperties *props)
{
    MQTTClient_message m = MQTTClient_message_initializer;
    MQTTClient_deliveryToken token;
    MQTTResponse r;

    m.payload = (void *)payload;
    m.payloadlen = (int)strlen(payload);
    m.qos = qos;
    m.retained = retained;
    if (props != NULL) {
        m.properties = *props;
    }
    r = MQTTClient_publishMessage5(c, topic, &m, &token);
    need(r.reasonCode == MQTTREASONCODE_SUCCESS, "publish", r.reasonCode);
    MQTTResponse_free(r);
    if (qos > 0) {
        int rc = MQTTClient_waitForCompletion(c, token, PATIENCE_MS);
        need(rc == MQTTCLIENT_SUCCESS, "no acknowledgement", rc);
    }
}

static MQTTClient_message *expect(MQTTClient c, const char *topic, const char *payload, int qos)
{
    MQTTClient_message *m = NULL;
    char *got = NULL;
    int n = 0;
    int rc = MQTTClient_receive(c, &got, &n, &m, PATIENCE_MS);

    need(rc == MQTTCLIENT_SUCCESS && m != NULL, "receive", rc);
    if (strcmp(got, topic) != 0 || m->payloadlen != (int)strlen(payload) ||
        memcmp(m->payload, payload, strlen(payload)) != 0 || m->qos != qos) {
        fprintf(stderr, "got %s %.*s %d, expected %s %s %d\n", got, m->payloadlen,
                (char *)m->payload, m->qos, topic, payload, qos);
        exit(1);
    }
    MQTTClient_free(got);
    return m;
}

static void expect_and_free(MQTTClient c, const char *topic, const char *payload, int qos)
{
    MQTTClient_message *m = expect(c, topic, payload, qos);

    MQTTClient_freeMessage(&m);
}

static void expect_nothing(MQTTClient c, unsigned long ms)
{
    MQTTClient_message *m = NULL;
    char *topic = NULL;
    int n = 0;

    (void)MQTTClient_receive(c, &topic, &n, &m, ms);
    need(m == NULL, "got something", 0);
}

static void leave(MQTTClient c, enum MQTTReasonCodes reason)
{
    int rc = MQTTClient_disconnect5(c, PATIENCE_MS, reason, NULL);

    need(rc == MQTTCLIENT_SUCCESS, "disconnect", rc);
    MQTTClient_destroy(&c);
}

static const struct options fresh = {.clean = 1};

static void qos(void)
{
    MQTTClient s = connect_as("pc-s", fresh);
    MQTTClient p = connect_as("pc-p", fresh);

    subscribe(s, "pc/qos/+", 2, 2);
    for (int q = 0; q < 3; q++) {
        for (int i = 0; i < 30; i++) {
            char payload[16];
            snprintf(payload, sizeof(payload), "%d-%d", q, i);
            publish(p, "pc/qos/t", payload, q, 0, NULL);
            expect_and_free(s, "pc/qos/t", payload, q);
        }
    }
    publish(p, "pc/nobody", "x", 1, 0, NULL);
    leave(s, MQTTREASONCODE_SUCCESS);
    leave(p, MQTTREASONCODE_SUCCESS);
}

static void properties(void)
{
    MQTTClient s = connect_as("pc-s", fresh);
    MQTTClient p = connect_as("pc-p", fresh);
    MQTTProperties props = MQTTProperties_initializer;
    MQTTClient_message *m;

    subscribe(s, "pc/props", 1, 1);
    add_int(&props, MQTTPROPERTY_CODE_PAYLOAD_FORMAT_INDICATOR, 1);
    add_int(&props, MQTTPROPERTY_CODE_MESSAGE_EXPIRY_INTERVAL, 1000);
    add_text(&props, MQTTPROPERTY_CODE_CONTENT_TYPE, "text/plain", NULL);
    add_text(&props, MQTTPROPERTY_CODE_RESPONSE_TOPIC, "pc/answer", NULL);
    add_text(&props, MQTTPROPERTY_CODE_CORRELATION_DATA, "c-1", NULL);
    add_text(&props, MQTTPROPERTY_CODE_USER_PROPERTY, "k", "1");
    add_text(&props, MQTTPROPERTY_CODE_USER_PROPERTY, "k", "2");
    publish(p, "pc/props", "x", 1, 0, &props);
    m = expect(s, "pc/props", "x", 1);
    need(strcmp(get_text(&m->properties, MQTTPROPERTY_CODE_CONTENT_TYPE), "text/plain") == 0,
         "content type", 0);
    need(strcmp(get_text(&m->properties, MQTTPROPERTY_CODE_RESPONSE_TOPIC), "pc/answer") == 0,
         "response topic", 0);
    need(strcmp(get_text(&m->properties, MQTTPROPERTY_CODE_CORRELATION_DATA), "c-1") == 0,
         "correlation data", 0);
    need(MQTTProperties_propertyCount(&m->properties, MQTTPROPERTY_CODE_USER_PROPERTY) == 2,
         "user properties", 0);
    need(MQTTProperties_getNumericValue(&m->properties, MQTTPROPERTY_CODE_MESSAGE_EXPIRY_INTERVAL) >
             990,
         "expiry", 0);
    MQTTClient_freeMessage(&m);
    MQTTProperties_free(&props);
    leave(s, MQTTREASONCODE_SUCCESS);
    leave(p, MQTTREASONCODE_SUCCESS);
}

static void session(void)
{
    MQTTClient s = connect_as("pc-dur", (struct options){.clean = 1, .expiry = 100});
    MQTTClient p = connect_as("pc-p", fresh);

    subscribe(s, "pc/dur", 2, 2);
    leave(s, MQTTREASONCODE_SUCCESS);
    for (int i = 0; i < 40; i++) {
        char payload[16];
        snprintf(payload, sizeof(payload), "%d", i);
        publish(p, "pc/dur", payload, 1 + i % 2, 0, NULL);
    }
    s = connect_as("pc-dur", (struct options){.expiry = 0});
    for (int i = 0; i < 40;
         i++) { /* QoS 1 may overtake here: the client gives QoS 2 out at PUBREL */
        MQTTClient_message *m = NULL;
        char *topic = NULL;
        int n = 0;
        int rc = MQTTClient_receive(s, &topic, &n, &m, PATIENCE_MS);
        need(rc == MQTTCLIENT_SUCCESS && m != NULL, "queued", i);
        MQTTClient_free(topic);
        MQTTClient_freeMessage(&m);
    }
    expect_nothing(s, 300);
    leave(s, MQTTREASONCODE_SUCCESS);
    s = connect_as("pc-dur", (struct options){.clean = 0});
    publish(p, "pc/dur", "late", 1, 0, NULL); /* the subscription went with the session */
    expect_nothing(s, 300);
    leave(s, MQTTREASONCODE_SUCCESS);
    leave(p, MQTTREASONCODE_SUCCESS);
}

static void will(void)
{
    MQTTClient s = connect_as("pc-s", fresh);
    MQTTClient dying;
    MQTTClient_message *m;

    subscribe(s, "pc/will", 1, 1);
    dying = connect_as("pc-w", (struct options){.clean = 1, .will_topic = "pc/will"});
    leave(dying, MQTTREASONCODE_SUCCESS);
    expect_nothing(s, 300);
    dying = connect_as(
        "pc-w",
        (struct options){.clean = 1, .expiry = 60, .will_topic = "pc/will", .will_delay = 1});
    leave(dying, MQTTREASONCODE_DISCONNECT_WITH_WILL_MESSAGE);
    expect_nothing(s, 400);
    m = expect(s, "pc/will", "gone", 1);
    need(strcmp(get_text(&m->properties, MQTTPROPERTY_CODE_CONTENT_TYPE), "text/will") == 0,
         "content type", 0);
    MQTTClient_freeMessage(&m);
    leave(s, MQTTREASONCODE_SUCCESS);
}

static void shared(void)
{
    MQTTClient a = connect_as("pc-a", fresh);
    MQTTClient b = connect_as("pc-b", fresh);
    MQTTClient p = connect_as("pc-p", fresh);
    int counts[2] = {0, 0};

    subscribe(a, "$share/g/pc/sh", 1, 1);
    subscribe(b, "$share/g/pc/sh", 1, 1);
    for (int i = 0; i < 20; i++) {
        publish(p, "pc/sh", "x", 1, 0, NULL);
    }
    for (int i = 0; i < 2; i++) {
        for (int n = 0; n < 10; n++, counts[i]++) {
            expect_and_free(i == 0 ? a : b, "pc/sh", "x", 1);
        }
    }
    need(counts[0] + counts[1] == 20, "count", counts[0] + counts[1]);
    expect_nothing(a, 200);
    leave(a, MQTTREASONCODE_SUCCESS);
    leave(b, MQTTREASONCODE_SUCCESS);
    leave(p, MQTTREASONCODE_SUCCESS);
}

static void refused(void)
{
    MQTTClient c = connect_as("pc-r", fresh);

    subscribe(c, "a/#/b", 1, MQTTREASONCODE_TOPIC_FILTER_INVALID);
    publish(c, "$SYS/broker/uptime", "x", 1, 0, NULL);
    leave(c, MQTTREASONCODE_SUCCESS);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } scenarios[] = {{"qos", qos},   {"properties", properties}, {"session", session},
                     {"will", will}, {"shared", shared},         {"refused", refused}};

    need(argc == 3, "usage", argc);
    address = argv[1];
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        if (strcmp(argv[2], scenarios[i].name) == 0) {
            scenarios[i].run();
            puts("ok");
            return 0;
        }
    }
    fprintf(stderr, "no scenario %s\n", argv[2]);
    return 2;
}
