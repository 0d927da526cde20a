/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.h - what happens when a page of a data file cannot be read.
 *
 * The files are mapped: a page that the disk does not give, or that a damaged page points to behind
 * the end of the file, is a SIGBUS in the thread that looks; one that was damaged while the store
 * was open makes LMDB follow numbers to anywhere, which is a SIGSEGV of a thread that is inside the
 * store. Nothing can be acknowledged from then on; the process says which file it was and ends.
 * Either signal elsewhere does what it did before.
 *
 * Threads    any; one setting for the process, that of the last call. Inside: each thread its own.
 */
#ifndef NOCTULE_STORAGE_GUARD_H
#define NOCTULE_STORAGE_GUARD_H

#define EXIT_DAMAGED_AT_START 1
#define EXIT_DAMAGED          74 /* EX_IOERR */

void guard_start(void); /* the status is EXIT_DAMAGED_AT_START */
void guard_serve(void); /* EXIT_DAMAGED */

/* The thread is inside this file of the store from here on, and a fault is the store's; NULL: it
 * has left. Where it was before. */
const char *guard_enter(const char *file);

#endif
