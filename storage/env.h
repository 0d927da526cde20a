/* SPDX-License-Identifier: Apache-2.0 */
/*
 * env.h - one LMDB environment of the store: opening, its checks, its ballast; and the lock that
 * keeps a second process out.
 *
 * Flags      default sync and MDB_NOTLS, nothing else: no flag is cheaper and safe against a power
 * cut. Map   reserved once and never resized: a resize under a reader is a crash.
 *
 * Ballast    removals need free pages too, so a full disk could not be drained. The file is kept
 * allocated past its last page; when that cannot be topped up, the environment is low and
 * new work has to be refused. What has been taken already and is still to be written here (the
 * journal's backlog, for `state`) is held back beside the ballast: a fold, or the recovery after
 * a crash, never needs room that is not ours.
 *
 * Threads    the one that writes to the environment; env_top_up() and env_is_low() any.
 */
#ifndef NOCTULE_STORAGE_ENV_H
#define NOCTULE_STORAGE_ENV_H

#include "storage/store.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

struct env {
    MDB_env *mdb;
    char *file;           /* its data file, for messages */
    char *full;           /* a sentence for when there is no room */
    uint64_t ballast;     /* bytes */
    pthread_mutex_t room; /* of the next four */
    uint64_t has, needs;  /* bytes, when it was topped up last: there, to be held back */
    uint64_t reserved_to; /* the file is allocated up to here */
    int64_t retry_ms;     /* monotonic: not to be topped up again before */
    uint64_t short_size;  /* its length when it was opened, if that was too short */
    bool padded;          /* it was, by a few pages, and was made longer */
    bool serving;         /* opened and in use: damage found from now on is no failed start */
    _Atomic bool low;     /* relaxed: a hint, nothing else is read after it */
};

/* dir is made if missing. ballast: 0: by the size of the file system. *fresh: the environment holds
 * nothing yet. On failure err has a sentence. */
enum store_rc env_open(struct env *e, const char *dir, uint64_t map, uint64_t ballast, bool *fresh,
                       char *err, size_t cap) __attribute__((warn_unused_result));
void env_close(struct env *e); /* zeroed is fine */

/*
 * LMDB need not write the last pages that it counts, so after a crash a file may be a little short.
 * An orderly stop makes it long enough for the commit that marks the stop (false: it could not);
 * a file that is short after one has lost something, whatever it was (false, and err says so).
 */
bool env_make_whole(struct env *e);
bool env_is_whole(struct env *e, char *err, size_t cap);
/* A file that was made longer when it was opened gets the length it had: it is refused. */
void env_unpad(struct env *e);

/* After a commit, and from time to time when low. need: bytes to be held back beside the ballast.
 */
void env_top_up(struct env *e, uint64_t need);
bool env_is_low(const struct env *e);
/* What there was for it and what it needs, when it was topped up last: bytes. */
void env_room(struct env *e, uint64_t *has, uint64_t *needs);
/* All of it but a little is given back to the file system, for another environment that has to be
 * written now. */
void env_give_back(struct env *e);

/* mdb_txn_commit(); a write that was cut short is ENOSPC, where LMDB says EIO. */
int env_commit(MDB_txn *txn) __attribute__((warn_unused_result));

/* What an error of LMDB means: ST_NOSPACE, ST_NOMEM or ST_IO. */
enum store_rc env_rc(int mdb_rc);

/* The lock on a store's directory (made if missing); -1: not to be had, err says why. */
int env_lock(const char *dir, char *err, size_t cap);
/* Writes the process id into it; changes its modification time. */
void env_lock_sign(int fd);

#endif
