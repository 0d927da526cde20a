/* SPDX-License-Identifier: Apache-2.0 */
/* PUBACK, PUBREC, PUBREL and PUBCOMP from a client. */
#include "server/shard/ticket.h"

static bool decode(struct shard *sh, struct link *l, struct span body, enum mqtt_type type,
                   struct ack *out)
{
    const char *why = NULL;
    enum dec_rc rc = ack_decode(out, body, type, l->version, &why);

    if (rc != DEC_OK) {
        handle_malformed(sh, l, rc, why);
    }
    return rc == DEC_OK;
}

/* The message this acknowledges, if it is one that was sent and waits for this type. NULL: nothing
 * to do. */
static struct out_msg *awaited(struct shard *sh, struct link *l, const struct ack *a,
                               enum out_state state)
{
    struct out_msg *o = outq_find(l->client, a->packet_id);

    if (o == NULL || !o->sent) {
        return NULL; /* late or twice: harmless */
    }
    if (o->state != (uint8_t)state) {
        link_close(sh, l, RC_PROTOCOL_ERROR, "acknowledgement of another QoS");
        return NULL;
    }
    return o;
}

void handle_puback(struct shard *sh, struct link *l, struct span body)
{
    struct ack a;
    struct out_msg *o;

    if (!decode(sh, l, body, MQTT_PUBACK, &a)) {
        return;
    }
    o = awaited(sh, l, &a, OUT_WAIT_PUBACK);
    if (o != NULL) { /* also with a reason of 0x80 and above: it was received and will not be sent
                        again */
        outq_done(sh, l->client, o);
        outq_pump(sh, l->client);
    }
}

void handle_pubrec(struct shard *sh, struct link *l, struct span body)
{
    struct ack a;
    struct out_msg *o;

    if (!decode(sh, l, body, MQTT_PUBREC, &a)) {
        return;
    }
    o = outq_find(l->client, a.packet_id);
    if (o == NULL || !o->sent) {
        if (outq_is_loading(l->client)) {
            return; /* perhaps still on disk: it will be resumed */
        }
        /* Not ours any more: PUBREL lets the client forget it [MQTT-4.3.3-4]. */
        if (a.reason < RC_UNSPECIFIED_ERROR) {
            link_ack(sh, l, MQTT_PUBREL, a.packet_id, RC_PACKET_ID_NOT_FOUND);
        }
        return;
    }
    if (o->state == OUT_WAIT_PUBCOMP) {
        link_ack(sh, l, MQTT_PUBREL, a.packet_id, RC_SUCCESS);
        return;
    }
    o = awaited(sh, l, &a, OUT_WAIT_PUBREC);
    if (o == NULL) {
        return;
    }
    if (a.reason >= RC_UNSPECIFIED_ERROR) { /* refused: over [MQTT-4.3.3-4] */
        outq_done(sh, l->client, o);
        outq_pump(sh, l->client);
        return;
    }
    outq_received(sh, l->client, o);
}

void handle_pubcomp(struct shard *sh, struct link *l, struct span body)
{
    struct ack a;
    struct out_msg *o;

    if (!decode(sh, l, body, MQTT_PUBCOMP, &a)) {
        return;
    }
    o = awaited(sh, l, &a, OUT_WAIT_PUBCOMP);
    if (o != NULL) {
        outq_done(sh, l->client, o);
        outq_pump(sh, l->client);
    }
}

void handle_pubrel(struct shard *sh, struct link *l, struct span body)
{
    struct client *c = l->client;
    struct ack a;
    struct store_op *op;

    if (!decode(sh, l, body, MQTT_PUBREL, &a)) {
        return;
    }
    if (idset_find(&c->in_ids, a.packet_id) == NULL) {
        /* A PUBCOMP that was lost, or an id of before a restart [MQTT-4.3.3-11]. */
        link_ack(sh, l, MQTT_PUBCOMP, a.packet_id, RC_PACKET_ID_NOT_FOUND);
        return;
    }
    if (!sh->keeps || !c->stored) {
        idset_remove(&c->in_ids, a.packet_id);
        link_ack(sh, l, MQTT_PUBCOMP, a.packet_id, RC_SUCCESS);
        return;
    }
    /* Released on disk first: else the next message under this id is taken for a repeat after a
     * crash. */
    op = ticket_lazy(sh, ST_INBOUND_DEL);
    if (op == NULL) { /* the id stays, the PUBREL comes again */
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        return;
    }
    idset_remove(&c->in_ids, a.packet_id);
    op->session = client_session(c);
    op->packet_id = a.packet_id;
    ticket_released(sh, op->session, a.packet_id);
    ticket_lazy_slot(sh, l, link_slot(sh, l, MQTT_PUBCOMP, a.packet_id, RC_SUCCESS, NULL, 0));
}
