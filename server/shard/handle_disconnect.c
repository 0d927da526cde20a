/* SPDX-License-Identifier: Apache-2.0 */
/* DISCONNECT and PINGREQ from a client. */
#include "server/shard/ticket.h"

/* v5: a new expiry for the session; false: not allowed [MQTT-3.14.2-2]. */
static bool change_expiry(struct shard *sh, struct link *l, const struct props *p)
{
    struct client *c = l->client;
    uint64_t limit = sh->cfg->persistent_client_expiration;

    if (!props_has(p, PROP_SESSION_EXPIRY)) {
        return true;
    }
    if (!c->durable && p->session_expiry_s > 0) {
        link_close(sh, l, RC_PROTOCOL_ERROR, "session expiry raised from 0 at DISCONNECT");
        return false;
    }
    c->expiry_s = p->session_expiry_s;
    if (limit != 0 && c->expiry_s > limit) {
        c->expiry_s = (uint32_t)limit;
    }
    c->durable = c->expiry_s > 0; /* 0: the session ends with the connection */
    return true;
}

void handle_disconnect(struct shard *sh, struct link *l, struct span body)
{
    struct disconnect d;
    const char *why = NULL;
    enum dec_rc rc = disconnect_decode(&d, body, l->version, &why);

    if (rc != DEC_OK) {
        handle_malformed(sh, l, rc, why);
        return;
    }
    if (!change_expiry(sh, l, &d.props)) {
        return;
    }
    /* Only a normal disconnection deletes the will [MQTT-3.14.4-3]. */
    l->orderly = d.reason == RC_SUCCESS;
    l->said_goodbye = true;
    if (sh->cfg->connection_messages) {
        log_limited(sh->b->log, LOGL_NOTICE, LOGR_CONNECTION, "client " CLIENT_FMT " disconnected",
                    CLIENT_ARGS(l->client));
    }
    link_close(sh, l, RC_SUCCESS, NULL);
}

void handle_pingreq(struct shard *sh, struct link *l)
{
    static const uint8_t pingresp[] = {MQTT_PINGRESP << 4, 0};

    /* Never behind answers that wait for the disk: it says that we live. */
    if (!conn_out_copy(&l->conn, pingresp, sizeof(pingresp))) {
        link_close(sh, l, RC_UNSPECIFIED_ERROR, "out of memory");
        return;
    }
    shard_count(sh, METRIC_MESSAGES_SENT, 1);
    link_dirty(sh, l);
}
