/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tmpdir.h - a directory of its own for a test, below TMPDIR or /tmp.
 *
 * Ownership  the caller's, to be removed by tmpdir_remove(), which removes all that is in it.
 */
#ifndef NOCTULE_TESTS_TMPDIR_H
#define NOCTULE_TESTS_TMPDIR_H

#include <stdbool.h>
#include <stddef.h>

struct tmpdir {
    char path[512];
};

/* Ends the process with a message where it cannot be made. */
void tmpdir_make(struct tmpdir *t);
void tmpdir_remove(struct tmpdir *t);
/* A file's whole content, malloc'd; NULL: it cannot be read. */
unsigned char *tmpdir_read(const char *path, size_t *n);
/* Writes a file of these bytes; ends the process where it cannot. */
void tmpdir_write(const char *path, const void *data, size_t n);

#endif
