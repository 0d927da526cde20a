/* SPDX-License-Identifier: Apache-2.0 */
/* config_machine.c - how much machine there is for this process: defaults follow from it. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/config_parser.h"

#define CPUS_MAX 8192

uint32_t config_machine_cpus(void)
{
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
    int n = 1;

    if (set != NULL && sched_getaffinity(0, CPU_ALLOC_SIZE(CPUS_MAX), set) == 0) {
        n = CPU_COUNT_S(CPU_ALLOC_SIZE(CPUS_MAX), set);
    }
    CPU_FREE(set);
    return n > 0 ? (uint32_t)n : 1;
}

/* The number in a file; UINT64_MAX if there is none ("max", no such file). */
static uint64_t number_in(const char *path)
{
    FILE *f = fopen(path, "re");
    unsigned long long n;
    bool ok;

    if (f == NULL) {
        return UINT64_MAX;
    }
    ok = fscanf(f, "%20llu", &n) == 1;
    fclose(f);
    return ok ? n : UINT64_MAX;
}

/* The process's group in the unified hierarchy, "/" if there is none. */
static void own_cgroup(char *out, size_t cap)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[512];

    snprintf(out, cap, "/");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "0::/", 4) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(out, cap, "%s", line + 3);
        }
    }
    if (f != NULL) {
        fclose(f);
    }
}

/* A group is bound by every group above it. */
static uint64_t cgroup_memory(void)
{
    uint64_t least = number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes"); /* version 1 */
    char group[512];
    char path[600];

    own_cgroup(group, sizeof(group));
    for (;;) {
        uint64_t n;
        char *slash = strrchr(group, '/');

        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", group);
        n = number_in(path);
        least = n < least ? n : least;
        if (slash == NULL) {
            return least;
        }
        *slash = '\0';
    }
}

uint64_t config_machine_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long size = sysconf(_SC_PAGESIZE);
    uint64_t machine = pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : (uint64_t)1 << 30;
    uint64_t group = cgroup_memory();
    uint64_t least = group < machine ? group : machine;

    return least > 2 ? least : 2; /* half of it is never 0, which would mean "no limit" */
}
