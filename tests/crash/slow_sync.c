/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slow_sync.c - a disk whose syncs take their time: loaded before the C library (LD_PRELOAD), it
 * lets fdatasync(), fsync() and msync() of the broker wait first for NOCTULE_SLOW_SYNC_US
 * microseconds. Nothing is lost or reordered; what waits for a commit waits longer, so that a kill
 * hits the window between an answer and its commit, if there is one.
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static void wait_first(void)
{
    const char *text = getenv("NOCTULE_SLOW_SYNC_US");
    long us = text == NULL ? 0 : atol(text);
    struct timespec left = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

    while (us > 0 && nanosleep(&left, &left) != 0) {}
}

static int (*next_of(const char *name))(int)
{
    union {
        void *object;
        int (*function)(int);
    } found = {.object = dlsym(RTLD_NEXT, name)};

    return found.function;
}

int fdatasync(int fd)
{
    wait_first();
    return next_of("fdatasync")(fd);
}

int fsync(int fd)
{
    wait_first();
    return next_of("fsync")(fd);
}

int msync(void *at, size_t n, int flags)
{
    union {
        void *object;
        int (*function)(void *, size_t, int);
    } found = {.object = dlsym(RTLD_NEXT, "msync")};

    wait_first();
    return found.function(at, n, flags);
}
