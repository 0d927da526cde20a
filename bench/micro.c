/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/micro.h"

#include <linux/perf_event.h>
#include <malloc.h>
#include <string.h>
#include <sys/random.h>
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

/* In place of the kernel's: hash tables are seeded by it, and their chains cost instructions. */
ssize_t getrandom(void *p, size_t n, unsigned flags)
{
    static uint64_t state = MICRO_SEED;
    uint8_t *at = p;

    (void)flags;
    for (size_t i = 0; i < n; i++) {
        at[i] = (uint8_t)micro_random(&state);
    }
    return (ssize_t)n;
}

bool micro_wants_counts(int argc, char **argv)
{
    return argc == 2 && strcmp(argv[1], "--counts") == 0;
}

/* ---- cases ---- */

/* Of the case that runs. */
static struct {
    int count_fd;
    unsigned cases;
    bool running;
    double ns, instructions;
} now;

void micro_begin(const char *bench)
{
    now.count_fd = micro_count_open();
    now.cases = 0;
    printf("{\"bench\": \"%s\", \"cases\": {", bench);
}

void micro_end(void)
{
    puts("}}");
    if (now.count_fd >= 0) {
        close(now.count_fd);
    }
}

/* Callgrind counts between entry and exit of this function... */
__attribute__((noipa)) static void micro_counted(void (*fn)(void *arg, unsigned n), void *arg,
                                                 unsigned n)
{
    double count = micro_count_read(now.count_fd);
    double begin = micro_cpu_ns();

    fn(arg, n);
    now.ns += micro_cpu_ns() - begin;
    now.instructions += micro_count_read(now.count_fd) - count;
}

void micro_timed(void (*fn)(void *arg, unsigned n), void *arg, unsigned n)
{
    if (now.running) {
        micro_counted(fn, arg, n);
    } else {
        fn(arg, n);
    }
}

/* ... and writes what it has counted at the exit of this one. */
__attribute__((noipa)) static void micro_case_over(const char *name, unsigned ops)
{
    printf("%s\"%s\": {\"ops\": %u, \"ns\": %.1f", now.cases++ > 0 ? ", " : "", name, ops,
           now.ns / ops);
    if (now.count_fd >= 0) {
        printf(", \"instructions\": %.1f", now.instructions / ops);
    }
    putchar('}');
}

void micro_case(const char *name, unsigned ops, void (*run)(void *arg, unsigned ops), void *arg)
{
    now.ns = now.instructions = 0;
    now.running = true;
    run(arg, ops);
    now.running = false;
    micro_case_over(name, ops);
}

struct simple {
    void (*fn)(void *arg, unsigned ops);
    void *arg;
};

static void run_simple(void *arg, unsigned ops)
{
    const struct simple *s = arg;

    micro_timed(s->fn, s->arg, ops);
}

void micro_simple(const char *name, unsigned ops, void (*fn)(void *arg, unsigned ops), void *arg)
{
    struct simple s = {fn, arg};

    micro_case(name, ops, run_simple, &s);
}
