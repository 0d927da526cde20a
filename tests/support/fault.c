/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fault.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);

/* Per thread, so that the thread of deferred frees and the like neither counts nor fails. */
static _Thread_local unsigned left; /* allocations until the one that fails; 0: disarmed */
static _Thread_local bool for_good;
static _Thread_local bool struck;
static _Thread_local bool is_held;

static _Thread_local bool exempt; /* armed the others */
static _Atomic long others_left;  /* as `left`; below 1: disarmed */
static _Atomic bool others_struck;

void fault_set(unsigned n)
{
    left = n;
    for_good = false;
    struck = false;
}

void fault_set_from(unsigned n)
{
    fault_set(n);
    for_good = true;
}

void fault_set_others(unsigned n)
{
    fault_set(0);
    exempt = true;
    atomic_store(&others_struck, false);
    atomic_store(&others_left, (long)n);
}

void fault_hold(bool held)
{
    is_held = held;
}

bool fault_clear(void)
{
    left = 0;
    exempt = false;
    atomic_store(&others_left, 0);
    return atomic_exchange(&others_struck, false) || struck;
}

static bool is_due_elsewhere(void)
{
    if (exempt || atomic_load(&others_left) <= 0 || atomic_fetch_sub(&others_left, 1) != 1) {
        return false;
    }
    atomic_store(&others_struck, true);
    errno = ENOMEM;
    return true;
}

static bool is_due(void)
{
    if (left == 0 || is_held || (left > 1 && left-- > 0)) {
        return is_due_elsewhere();
    }
    if (!for_good) {
        left = 0;
    }
    struck = true;
    errno = ENOMEM;
    return true;
}

bool fault_is_due(void)
{
    return is_due();
}

void *__wrap_malloc(size_t n)
{
    return is_due() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return is_due() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return is_due() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return is_due() ? NULL : __real_aligned_alloc(align, n);
}
