/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handler finds the file by the address, in /proc/self/maps: no state of its own, and nothing
 * but calls that a signal handler may make.
 */
#include "storage/guard.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4352 /* a path and what stands before it */
#define DATA_FILE      "/data.mdb"
#define WHAT           ": damaged: a page cannot be read\n"

struct lines {
    int fd;
    size_t n, at;
    char buf[2048];
};

/* The next line without its end, cut to cap; false: there is none. */
static bool next_line(struct lines *l, char *line, size_t cap)
{
    size_t used = 0;

    for (;;) {
        char c;
        if (l->at == l->n) {
            const ssize_t n = read(l->fd, l->buf, sizeof(l->buf));
            if (n <= 0) {
                return false;
            }
            l->n = (size_t)n;
            l->at = 0;
        }
        c = l->buf[l->at++];
        if (c == '\n') {
            line[used] = '\0';
            return true;
        }
        if (used + 1 < cap) {
            line[used++] = c;
        }
    }
}

/* A number in hexadecimal; *p behind it and the character that follows. */
static uintptr_t hex(const char **p)
{
    uintptr_t v = 0;

    for (; **p != '\0'; ++*p) {
        const char c = **p;
        if (c >= '0' && c <= '9') {
            v = v * 16 + (uintptr_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            v = v * 16 + (uintptr_t)(c - 'a' + 10);
        } else {
            ++*p;
            break;
        }
    }
    return v;
}

/* "from-to flags offset device inode   path" */
static const char *file_in(const char *line, uintptr_t address)
{
    const char *p = line;
    const uintptr_t from = hex(&p);
    const uintptr_t to = hex(&p);
    const char *path = strchr(p, '/');
    size_t n;

    if (address < from || address >= to || path == NULL) {
        return NULL;
    }
    n = strlen(path);
    return n > strlen(DATA_FILE) && strcmp(path + n - strlen(DATA_FILE), DATA_FILE) == 0 ? path
                                                                                         : NULL;
}

/* In one piece: another thread may meet such a page at the same time. */
static void say(char *line, const char *file)
{
    char *end = line + strlen(line);

    memcpy(end, WHAT, sizeof(WHAT) - 1);
    end += sizeof(WHAT) - 1;
    if (write(STDERR_FILENO, file, (size_t)(end - file)) < 0) {
        return; /* nobody listens; the status tells it, too */
    }
}

static void end_if_ours(const void *address, int status)
{
    struct lines l = {.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
    char line[LINE_MAX_BYTES + sizeof(WHAT)];

    while (l.fd >= 0 && next_line(&l, line, LINE_MAX_BYTES)) {
        const char *file = file_in(line, (uintptr_t)address);
        if (file != NULL) {
            say(line, file);
            _exit(status);
        }
    }
    signal(SIGBUS, SIG_DFL); /* not ours: it happens again as soon as this returns */
    if (l.fd >= 0) {
        close(l.fd);
    }
}

static void at_start(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)context;
    end_if_ours(info->si_addr, EXIT_DAMAGED_AT_START);
}

static void serving(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)context;
    end_if_ours(info->si_addr, EXIT_DAMAGED);
}

static void install(void (*fn)(int, siginfo_t *, void *))
{
    struct sigaction a = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO};

    sigemptyset(&a.sa_mask);
    (void)sigaction(SIGBUS, &a, NULL); /* cannot fail with a signal that exists */
}

void guard_start(void)
{
    install(at_start);
}

void guard_serve(void)
{
    install(serving);
}
