/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.h - the pages of an LMDB file, looked at before LMDB does.
 *
 * LMDB trusts what it reads: a damaged page makes it follow numbers out of the file, loop, end the
 * process, or find nothing where something was. So every page of every tree is checked first: it is
 * in the file, says its own number, is used once, and not as well in the list of free ones; its
 * rows fill it without a gap and their keys ascend, between those of the page above; the trees have
 * as many pages and rows as they say. What rows hold is not looked at, nor the pages that a value
 * has for itself: rows have checksums (state.h).
 *
 * Written from what a file of LMDB 0.9 (data version 1) looks like; FORMAT.md, "Pages".
 *
 * Threads    any, one at a time. It keeps no state outside.
 */
#ifndef NOCTULE_STORAGE_PAGES_H
#define NOCTULE_STORAGE_PAGES_H

#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>

/* Both may be NULL. Valid during the call. */
struct pages_visit {
    void *arg;
    /* A row of a table; val.mv_data is NULL where the pages of a large value are not good. table is
     * NULL for pages that no tree leads to any more, and that are not free either. */
    void (*row)(void *arg, const char *table, MDB_val key, MDB_val val);
    /* A sentence for each damage. from, to: keys between which rows of the table are lost, as far
     * as that is known (size 0: from the first on, to the last). */
    void (*damage)(void *arg, const char *table, const char *what, MDB_val from, MDB_val to);
    uint64_t *cut_off; /* so many bytes of pages that nobody uses are missing at the end */
    bool stale; /* orphaned pages are given even where it is not known which pages are free */
    bool all; /* of every large value its page is read; the orphaned pages are given, too */
};

/*
 * Looks at the file. 0: it is good, or empty; MDB_CORRUPTED: it is not, and err has the first
 * sentence; or an errno, with a sentence in err as well. visit may be NULL.
 */
int pages_check(const char *file, const struct pages_visit *visit, char *err, size_t cap);

#endif
