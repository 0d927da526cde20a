/* SPDX-License-Identifier: Apache-2.0 */
/*
 * salvage.h - what can be saved of a damaged store, made a new one that takes its place.
 *
 * Every row is taken whose page and checksum are good, also from pages that no tree leads to any
 * more; the groups of the journal that are whole are folded on top; what belongs to nothing any
 * more goes, and the counts are made anew. Nothing is written to the damaged files. The new ones
 * are made beside them and take their names in one step for each environment; all is in the new
 * `state`, which comes first, so a crash in between loses nothing. The damaged ones are kept.
 *
 * The caller holds the store's lock (env_lock()).
 */
#ifndef NOCTULE_STORAGE_SALVAGE_H
#define NOCTULE_STORAGE_SALVAGE_H

#include "storage/check.h"

#include <stdbool.h>
#include <stdint.h>

struct salvage_loss {
    uint64_t sessions, messages, subs, inbound, wills, retained;
    uint64_t groups; /* of the journal: what they held is not known */
    uint64_t rows;   /* of all tables, whoever's they were */
};

/* Reads the whole store. 1: something is damaged; 0: nothing; -1: it could not be read. */
int salvage_look(const char *dir, check_line_fn fn, void *arg, char *err, size_t cap);

/* fn gets a line for each damage and each loss, and where the damaged files are. false: nothing has
 * changed, and err has a sentence. */
bool salvage_run(const char *dir, check_line_fn fn, void *arg, struct salvage_loss *loss, char *err,
                 size_t cap);

#endif
