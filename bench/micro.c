/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/micro.h"

#include <linux/perf_event.h>
#include <malloc.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* jemalloc's, where it is linked: the glibc figure knows nothing of it. */
int mallctl(const char *name, void *old, size_t *old_n, void *new, size_t new_n)
    __attribute__((weak));

int micro_count_open(void)
{
    struct perf_event_attr a;

    memset(&a, 0, sizeof(a));
    a.size = sizeof(a);
    a.type = PERF_TYPE_HARDWARE;
    a.config = PERF_COUNT_HW_INSTRUCTIONS;
    a.exclude_kernel = 1;
    a.exclude_hv = 1;
    return (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
}

double micro_count_read(int fd)
{
    uint64_t n = 0;

    if (fd < 0 || read(fd, &n, sizeof(n)) != (ssize_t)sizeof(n)) {
        return 0;
    }
    return (double)n;
}

size_t micro_heap_bytes(void)
{
    struct mallinfo2 mi;

    if (mallctl != NULL) {
        uint64_t epoch = 1;
        size_t n = 0;
        size_t size = sizeof(n);

        (void)mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch));
        if (mallctl("stats.allocated", &n, &size, NULL, 0) == 0) {
            return n;
        }
    }
    mi = mallinfo2();
    return mi.uordblks + mi.hblkhd;
}
