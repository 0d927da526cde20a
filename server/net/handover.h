/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handover.h - a connection on its way from an acceptor to a shard, with its decoded CONNECT.
 *
 * Ownership  one allocation plus the connection and `bytes`; the receiver owns all and calls
 * handover_free() after taking the connection out (fd -1 then).
 */
#ifndef NOCTULE_NET_HANDOVER_H
#define NOCTULE_NET_HANDOVER_H

#include "server/codec/connect.h"
#include "server/net/conn.h"
#include "server/net/listener.h"

#include <netinet/in.h>

struct peer {
    sa_family_t family; /* AF_INET, AF_INET6 or AF_UNIX */
    uint16_t port;      /* host order */
    union {
        struct in_addr v4;
        struct in6_addr v6;
    } addr;
};

#define PEER_TEXT 64u
/* "192.0.2.1:4711", "[2001:db8::1]:4711" or "unix". */
void peer_text(const struct peer *p, char out[PEER_TEXT]);

struct handover {
    struct conn conn;
    struct listener *listener;
    struct peer peer;
    uint64_t stamp;         /* order in which CONNECTs were complete, process wide */
    uint8_t *bytes;         /* everything read so far; connect's views point in here */
    size_t bytes_n;         /* bytes */
    size_t connect_n;       /* of these, the CONNECT packet */
    struct connect connect; /* checked */
    bool id_assigned;       /* the client id was made here */
    struct span client_id;  /* final: in `bytes` or in id[] */
    /* The shard's, while it waits for the connection it takes over, see takeover.c: */
    struct handover *next;       /* waits behind it for the same connection */
    struct handover *last;       /* of the first: the end of that list */
    struct handover *chain_next; /* of the first, in the shard's list: another such list */
    size_t left;                 /* of the first: bytes of that connection to be read at most */
    int64_t until_ms;            /* of the first: when its wait ends in any case */
    unsigned looks;              /* of the first: turns in which that connection was read */
    unsigned empty_looks;        /* of the first: of these, the last ones that found nothing */
    char id[];
};

/* NULL is fine. */
void handover_free(struct handover *h);
/* Likewise, with the connection that was counted for it: it will not be one. */
void handover_drop(struct handover *h);

#endif
