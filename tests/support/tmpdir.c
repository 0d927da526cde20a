/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tmpdir.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void need(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        abort();
    }
}

void tmpdir_make(struct tmpdir *t)
{
    const char *base = getenv("TMPDIR");

    snprintf(t->path, sizeof(t->path), "%s/noctule-test-XXXXXX", base == NULL ? "/tmp" : base);
    need(mkdtemp(t->path) != NULL, t->path);
}

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *ftw)
{
    (void)st;
    (void)what;
    (void)ftw;
    return remove(path);
}

void tmpdir_remove(struct tmpdir *t)
{
    if (t->path[0] != '\0') {
        nftw(t->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        t->path[0] = '\0';
    }
}

unsigned char *tmpdir_read(const char *path, size_t *n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    unsigned char *p = NULL;

    if (fd >= 0 && fstat(fd, &st) == 0) {
        p = malloc((size_t)st.st_size + 1);
        if (p != NULL && read(fd, p, (size_t)st.st_size) != st.st_size) {
            free(p);
            p = NULL;
        }
        *n = (size_t)st.st_size;
    }
    if (fd >= 0) {
        close(fd);
    }
    return p;
}

void tmpdir_write(const char *path, const void *data, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);

    need(fd >= 0 && write(fd, data, n) == (ssize_t)n, path);
    close(fd);
}
