/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The allocations of liblmdb, which is linked dynamically, count and fail as well: a program that
 * defines malloc() has every library call it, and the caller's address says who asks. glibc only,
 * and not with a sanitizer, which has an allocator of its own.
 */
#include "tests/support/fault.h"

#include <errno.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t n);

static uintptr_t code, code_end; /* of liblmdb; set before main() */

static int find_lmdb(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    for (int i = 0; strstr(info->dlpi_name, "liblmdb") != NULL && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        if (ph->p_type == PT_LOAD && (ph->p_flags & PF_X) != 0) {
            code = info->dlpi_addr + ph->p_vaddr;
            code_end = code + ph->p_memsz;
        }
    }
    return 0;
}

__attribute__((constructor)) static void find(void)
{
    dl_iterate_phdr(find_lmdb, NULL);
}

static bool fails(const void *caller)
{
    const uintptr_t at = (uintptr_t)caller;

    return at >= code && at < code_end && fault_is_due();
}

void *malloc(size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}
