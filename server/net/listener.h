/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listener.h - the sockets of one `listener` of the configuration.
 *
 * Threads    listener_open/close: start and end. conf and connections: any.
 * Ownership  listener_open() makes the sockets; the configuration is borrowed (all configurations
 * loaded live until the broker ends).
 */
#ifndef NOCTULE_NET_LISTENER_H
#define NOCTULE_NET_LISTENER_H

#include "server/config.h"

#include <stdatomic.h>

#define LISTENER_FDS 8

struct listener {
    /* Changed by a reload (release); readers acquire, so that they see what it points to. */
    const struct listener_config *_Atomic conf;
    int fds[LISTENER_FDS];
    unsigned nfds;
    unsigned index;
    _Atomic uint32_t connections; /* accepted and not closed; relaxed: only a limit rests on it */
    char *unix_path;              /* removed at close */
};

static inline const struct listener_config *listener_conf(struct listener *l)
{
    return atomic_load_explicit(&l->conf, memory_order_acquire);
}

/* 0, or -1 with a sentence in err. Every address that could be bound is logged. */
int listener_open(struct listener *l, const struct listener_config *conf, unsigned index,
                  const struct config *config, struct log *log, char *err, size_t cap)
    __attribute__((warn_unused_result));
void listener_close(struct listener *l);

#endif
