/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault.h - fails the n-th allocation: link noctule_test_fault, which wraps malloc, calloc, realloc
 * and aligned_alloc of everything that is linked statically.
 *
 *     for (unsigned n = 1;; n++) {
 *         fault_set(n);
 *         rc = thing_under_test();
 *         if (!fault_clear()) { break; }    // it did not come to an n-th allocation
 *         ... rc says so, nothing has changed ...
 *     }
 *
 * Threads    counts the allocations of the thread that armed it only; fault_set_others() those of
 * all the others, for what has threads of its own. Arm and clear on one thread.
 */
#ifndef NOCTULE_TESTS_FAULT_H
#define NOCTULE_TESTS_FAULT_H

#include <stdbool.h>

/* The n-th allocation from now fails (n = 1: the next), those after it succeed again. */
void fault_set(unsigned n);

/* As fault_set(), but every allocation from the n-th on fails. */
void fault_set_from(unsigned n);

/* As fault_set(), but counts and fails on all threads together but this one. */
void fault_set_others(unsigned n);

/* Disarms; whether an allocation was failed. */
bool fault_clear(void);

/* What the test itself does on this thread in between is not counted, or is again. */
void fault_hold(bool held);

/* For an allocator of a library that is linked dynamically (fault_lmdb.c): whether this one is to
 * fail. */
bool fault_is_due(void);

#endif
