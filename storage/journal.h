/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal.h - what was acknowledged, in order: append a group and know it is on disk, read the
 * groups back, remove them from the head. The store knows no more of it than this, so that
 * another log can take its place.
 *
 * Threads    append: the store thread. scan: before it starts.
 */
#ifndef NOCTULE_STORAGE_JOURNAL_H
#define NOCTULE_STORAGE_JOURNAL_H

#include "storage/env.h"

struct journal {
    struct env env;
    MDB_dbi meta, log;
    uint64_t next_key; /* of the next piece */
    bool old;          /* of an older version: the next group brings the new one */
};

/*
 * One transaction: the n bytes of a group (a sealed one; n 0: none), and the removal of some groups
 * whose keys are below trim_to. On 0 it is on disk; otherwise nothing has changed.
 */
int journal_append(struct journal *j, const uint8_t *group, size_t n, uint64_t trim_to,
                   bool *trim_more);

/*
 * Every group with a number above `after`, in order; buf is malloc'd and becomes the callee's;
 * next_key is the key behind its last piece. false from fn ends the scan (with ENOMEM).
 * MDB_CORRUPTED: what says what. Sets j->next_key.
 */
typedef bool (*journal_fn)(void *arg, uint8_t *buf, uint32_t n, uint64_t next_key);
int journal_scan(struct journal *j, uint64_t after, journal_fn fn, void *arg, char *what,
                 size_t cap);

#endif
