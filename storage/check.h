/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - what noctule-store does with a store that no broker has open.
 *
 * All of them lock the store for as long as they work and refuse one that is in use. On failure err
 * has a sentence. None of them but check_repair() changes the store.
 */
#ifndef NOCTULE_STORAGE_CHECK_H
#define NOCTULE_STORAGE_CHECK_H

#include "storage/store.h"

#include <stddef.h>

/* A line of text, without its end; valid during the call. */
typedef void (*check_line_fn)(void *arg, const char *line);

/* Every rule of FORMAT.md, "Consistency"; fn gets a line for each breach (the first 100). The
 * number of breaches; -1: it could not be done. */
long check_store(const char *dir, check_line_fn fn, void *arg, char *err, size_t cap);

/*
 * What can be saved of a damaged store takes its place (salvage.h); fn gets a line for each damage,
 * each loss, session by session, and the place of the damaged files. 1: done; 0: nothing is
 * damaged, and nothing has changed; -1: it could not be done, and nothing has changed.
 */
int check_repair(const char *dir, check_line_fn fn, void *arg, char *err, size_t cap);

/* As text: what is not printable as \xHH, cut at 200 bytes. */
void check_quote(char *out, size_t cap, struct store_bytes b);

/* A line for every record of `state`, then of the journal above the folded-to number. -1: failed.
 */
int check_dump(const char *dir, check_line_fn fn, void *arg, char *err, size_t cap);

/* A compacted copy in a new directory `to`. -1: failed. */
int check_copy(const char *dir, const char *to, char *err, size_t cap);

#endif
