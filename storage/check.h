/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - what noctule-store does with a store that no broker has open.
 *
 * All of them lock the store for as long as they work and refuse one that is in use. On failure err
 * has a sentence. None of them changes the store.
 */
#ifndef NOCTULE_STORAGE_CHECK_H
#define NOCTULE_STORAGE_CHECK_H

#include <stddef.h>

/* A line of text, without its end; valid during the call. */
typedef void (*check_line_fn)(void *arg, const char *line);

/* Every rule of FORMAT.md, "Consistency"; fn gets a line for each breach (the first 100). The
 * number of breaches; -1: it could not be done. */
long check_store(const char *dir, check_line_fn fn, void *arg, char *err, size_t cap);

/* A line for every record of `state`, then of the journal above the folded-to number. -1: failed.
 */
int check_dump(const char *dir, check_line_fn fn, void *arg, char *err, size_t cap);

/* A compacted copy in a new directory `to`. -1: failed. */
int check_copy(const char *dir, const char *to, char *err, size_t cap);

#endif
