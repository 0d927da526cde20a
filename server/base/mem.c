/* SPDX-License-Identifier: Apache-2.0 */
#include "server/base/mem.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Present when jemalloc, or a sanitizer's allocator, is linked in. */
extern int mallctl(const char *name, void *oldp, size_t *oldlenp, void *newp, size_t newlen)
    __attribute__((weak));
extern size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static uint64_t jemalloc_in_use(void)
{
    uint64_t epoch = 1;
    size_t n = sizeof(epoch);
    size_t allocated = 0;

    /* jemalloc's statistics stand still until the epoch is moved. */
    mallctl("epoch", &epoch, &n, &epoch, n);
    n = sizeof(allocated);
    mallctl("stats.allocated", &allocated, &n, NULL, 0);
    return allocated;
}

uint64_t mem_in_use(void)
{
    struct mallinfo2 mi;

    if (mallctl != NULL) {
        return jemalloc_in_use();
    }
    if (__sanitizer_get_current_allocated_bytes != NULL) {
        return __sanitizer_get_current_allocated_bytes();
    }
    mi = mallinfo2();
    return mi.uordblks + mi.hblkhd;
}

void mem_give_back(void)
{
    if (mallctl != NULL) {
        mallctl("arena.4096.decay", NULL, NULL, NULL, 0); /* 4096: all of them */
    }
}

static uint64_t read_limit(const char *path)
{
    char text[64] = "";
    FILE *f = fopen(path, "re");
    unsigned long long v;

    if (f == NULL) {
        return UINT64_MAX;
    }
    if (fgets(text, sizeof(text), f) == NULL) {
        text[0] = '\0';
    }
    fclose(f);
    v = strtoull(text, NULL, 10); /* "max" reads as 0 */
    return v == 0 ? UINT64_MAX : v;
}

uint64_t mem_available_to_process(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page = sysconf(_SC_PAGESIZE);
    uint64_t machine = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;
    char line[512];
    char path[640];
    FILE *f = fopen("/proc/self/cgroup", "re");
    uint64_t group = UINT64_MAX;

    if (f != NULL) {
        while (fgets(line, sizeof(line), f) != NULL) {
            if (strncmp(line, "0::", 3) == 0) {
                line[strcspn(line, "\n")] = '\0';
                snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", line + 3);
                group = read_limit(path);
            }
        }
        fclose(f);
    }
    return group < machine ? group : machine;
}
