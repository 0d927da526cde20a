/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slice.h - the scheduler's slice of threads that an answer waits for.
 *
 * The default slice makes most syncs wait for a tick when all cores are busy, and messages on
 * their way through a shard's thread as well. Newer kernels (6.12) give a thread of the normal
 * class a shorter one, without privilege and without a larger share; elsewhere nothing changes.
 */
#ifndef NOCTULE_STORAGE_SLICE_H
#define NOCTULE_STORAGE_SLICE_H

/* 100 us for the calling thread. */
void thread_short_slice(void);

#endif
