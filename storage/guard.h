/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.h - what happens when a page of a data file cannot be read.
 *
 * The files are mapped: a page that the disk does not give, or that a damaged page points to behind
 * the end of the file, is a SIGBUS in the thread that looks. Nothing can be acknowledged from then
 * on; the process says which file it was and ends. A SIGBUS elsewhere does what it did before.
 *
 * Threads    any; one setting for the process, that of the last call.
 */
#ifndef NOCTULE_STORAGE_GUARD_H
#define NOCTULE_STORAGE_GUARD_H

#define EXIT_DAMAGED_AT_START 1
#define EXIT_DAMAGED          74 /* EX_IOERR */

void guard_start(void); /* the status is EXIT_DAMAGED_AT_START */
void guard_serve(void); /* EXIT_DAMAGED */

#endif
