/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_acceptor.h - an acceptor without a thread, for fuzz_conn.c: its turns are asked for, its
 * connections come from there, and nothing waits.
 */
#ifndef NOCTULE_TESTS_FUZZ_ACCEPTOR_H
#define NOCTULE_TESTS_FUZZ_ACCEPTOR_H

#include "server/net/acceptor.h"

struct acceptor *fuzz_acceptor_create(const struct acceptor_env *env);
void fuzz_acceptor_destroy(struct acceptor *a);
/* As after accept(); the transport's state comes with it. */
void fuzz_acceptor_take(struct acceptor *a, struct listener *l, int fd, const struct transport *tr,
                        void *tr_state);
/* tag: what fuzz_loop_add() was told. */
void fuzz_acceptor_event(struct acceptor *a, void *tag, uint32_t events);
/* What time brings. */
void fuzz_acceptor_turn(struct acceptor *a);
/* The rules of its connections' buffers. */
void fuzz_acceptor_check(const struct acceptor *a);

/* fuzz_conn.c's, in the place of loop_add() and loop_del(): nobody waits for descriptors. */
bool fuzz_loop_add(void *owner, int fd, void *tag);
void fuzz_loop_del(int fd);
void fuzz_conn_check(const struct conn *c, size_t scratch, bool may_be_full);

#endif
