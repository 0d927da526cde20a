/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy of an open store. The fold is paused, so that `state` stands still at one folded-to number
 * and the journal keeps every group above it; `state` is copied first, then the journal, whose
 * groups may by then be newer: they are simply replayed. Commits go on all the while.
 */
#include "storage/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int copy_env(struct env *e, const char *to, const char *name)
{
    char *dir;
    int fd;
    int rc;

    if (asprintf(&dir, "%s/%s", to, name) < 0) {
        return ENOMEM;
    }
    rc = mkdir(dir, 0750) == 0 ? mdb_env_copy2(e->mdb, dir, MDB_CP_COMPACT) : errno;
    fd = rc == 0 ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (rc == 0 && (fd < 0 || syncfs(fd) != 0)) { /* LMDB does not sync a copy */
        rc = errno;
    }
    if (fd >= 0) {
        close(fd);
    }
    free(dir);
    return rc;
}

/* The copy is made under another name first: what has its name is whole. */
static enum store_rc copy_both(struct durable *d, const char *to, char *err, size_t cap)
{
    char *part;
    int rc;

    if (asprintf(&part, "%s.part", to) < 0) {
        snprintf(err, cap, "out of memory");
        return ST_NOMEM;
    }
    rc = access(to, F_OK) == 0 ? EEXIST : mkdir(part, 0750) == 0 ? 0 : errno;
    if (rc == 0) {
        rc = copy_env(&d->state.env, part, "state");
    }
    if (rc == 0) {
        rc = copy_env(&d->journal.env, part, "journal");
    }
    if (rc == 0 && rename(part, to) != 0) {
        rc = errno;
    }
    if (rc != 0) {
        snprintf(err, cap, "%s: %s", rc == EEXIST ? to : part, mdb_strerror(rc));
    }
    free(part);
    return env_rc(rc);
}

enum store_rc backup_run(struct store *s, const char *to, char *err, size_t cap)
{
    struct durable *d = (struct durable *)s;
    enum store_rc rc;

    pthread_mutex_lock(&d->gens_lock);
    d->fold_paused++;
    while (d->fold_busy) {
        pthread_cond_wait(&d->folded, &d->gens_lock);
    }
    pthread_mutex_unlock(&d->gens_lock);
    rc = copy_both(d, to, err, cap);
    pthread_mutex_lock(&d->gens_lock);
    d->fold_paused--;
    pthread_cond_signal(&d->fold_wake);
    pthread_mutex_unlock(&d->gens_lock);
    return rc;
}
