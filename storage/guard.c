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
#define WHAT_SEGV      ": damaged: its pages lead nowhere\n"

static struct sigaction before_bus, before_segv;  /* written before a handler can run */
static _Thread_local const char *volatile inside; /* the file */

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
static void say(char *line, const char *file, const char *what)
{
    char *end = line + strlen(line);

    memcpy(end, what, strlen(what));
    end += strlen(what);
    if (write(STDERR_FILENO, file, (size_t)(end - file)) < 0) {
        return; /* nobody listens; the status tells it, too */
    }
}

static void end_if_ours(const void *address, int status)
{
    struct lines l = {.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
    char line[LINE_MAX_BYTES + sizeof(WHAT_SEGV)];

    while (l.fd >= 0 && next_line(&l, line, LINE_MAX_BYTES)) {
        const char *file = file_in(line, (uintptr_t)address);
        if (file != NULL) {
            say(line, file, WHAT);
            _exit(status);
        }
    }
    if (l.fd >= 0) {
        close(l.fd);
    }
}

/* Not ours: it happens again as soon as the handler returns, or is sent again. */
static void pass_on(int sig, const siginfo_t *info)
{
    (void)sigaction(sig, sig == SIGBUS ? &before_bus : &before_segv, NULL);
    if (info->si_code <= 0) {
        raise(sig);
    }
}

static void fault(int sig, const siginfo_t *info, int status)
{
    char line[LINE_MAX_BYTES + sizeof(WHAT_SEGV)];

    if (sig == SIGSEGV && inside != NULL && info->si_code > 0 && strlen(inside) < LINE_MAX_BYTES) {
        memcpy(line, inside, strlen(inside) + 1);
        say(line, line, WHAT_SEGV);
        _exit(status);
    }
    if (sig == SIGBUS) {
        end_if_ours(info->si_addr, status);
    }
    pass_on(sig, info);
}

static void at_start(int sig, siginfo_t *info, void *context)
{
    (void)context;
    fault(sig, info, EXIT_DAMAGED_AT_START);
}

static void serving(int sig, siginfo_t *info, void *context)
{
    (void)context;
    fault(sig, info, EXIT_DAMAGED);
}

static void install_for(int sig, void (*fn)(int, siginfo_t *, void *), struct sigaction *before)
{
    const struct sigaction a = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO};
    struct sigaction old;

    (void)sigaction(sig, NULL, &old); /* cannot fail with a signal that exists */
    if (old.sa_sigaction != at_start && old.sa_sigaction != serving) {
        *before = old;
    }
    (void)sigaction(sig, &a, NULL);
}

static void install(void (*fn)(int, siginfo_t *, void *))
{
    install_for(SIGBUS, fn, &before_bus);
    install_for(SIGSEGV, fn, &before_segv);
}

const char *guard_enter(const char *file)
{
    const char *before = inside;

    inside = file;
    return before;
}

void guard_start(void)
{
    install(at_start);
}

void guard_serve(void)
{
    install(serving);
}
