/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - command line, signals, exit code. What the broker is made of is setup.c's affair. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "noctule_version.h"
#include "server/base/log.h"
#include "server/config.h"
#include "server/setup.h"

enum action {
    ACTION_RUN,
    ACTION_TEST,
    ACTION_HELP,
    ACTION_VERSION,
    ACTION_REFERENCE,
    ACTION_MISUSE
};

struct command_line {
    enum action action;
    const char *file; /* -c */
    struct config_overrides overrides;
};

/* Configurations stay until the end: after a reload a thread may still look at an older one. */
struct loaded {
    struct config *config;
    struct loaded *older;
};

static void print_help(FILE *f)
{
    fputs("noctule " NOCTULE_VERSION " - an MQTT broker\n"
          "\n"
          "usage: noctule [-c FILE] [-p PORT] [-v] [-d] [-h] [--test-config] [--version]\n"
          "\n"
          "  -c, --config FILE    read this configuration file\n"
          "  -p, --port PORT      listen on this port instead of 1883; may be repeated; has no "
          "effect\n"
          "                       where the file names listeners\n"
          "  -v, --verbose        log everything, and to stderr\n"
          "  -d, --daemon         run in the background\n"
          "  -h, --help           print this\n"
          "  --test-config        check the configuration; exit status 0 or 1\n"
          "  --version            print the version\n"
          "  --config-reference   print the keys of the configuration file as roff\n"
          "\n"
          "Without a file the broker listens on the loopback only, for anonymous clients.\n"
          "See noctule(8) and noctule.conf(5).\n",
          f);
}

static bool add_port(struct config_overrides *o, const char *text)
{
    char *end;
    long port;

    errno = 0;
    port = strtol(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || port < 1 || port > UINT16_MAX) {
        fprintf(stderr, "noctule: -p: '%s' is not a port number\n", text);
        return false;
    }
    if (o->nports == CONFIG_CLI_PORTS) {
        fprintf(stderr, "noctule: -p: at most %d ports\n", CONFIG_CLI_PORTS);
        return false;
    }
    o->ports[o->nports++] = (uint16_t)port;
    return true;
}

static void read_option(struct command_line *cl, int option)
{
    switch (option) {
    case 'c':
        cl->file = optarg;
        break;
    case 'p':
        cl->action = add_port(&cl->overrides, optarg) ? cl->action : ACTION_MISUSE;
        break;
    case 'v':
        cl->overrides.verbose = true;
        break;
    case 'd':
        cl->overrides.daemon = true;
        break;
    case 'h':
        cl->action = ACTION_HELP;
        break;
    case 't':
        cl->action = ACTION_TEST;
        break;
    case 'V':
        cl->action = ACTION_VERSION;
        break;
    case 'r':
        cl->action = ACTION_REFERENCE;
        break;
    default: /* getopt has said what is wrong */
        cl->action = ACTION_MISUSE;
        break;
    }
}

static struct command_line read_command_line(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},     {"config-file", required_argument, NULL, 'c'},
        {"port", required_argument, NULL, 'p'},       {"verbose", no_argument, NULL, 'v'},
        {"daemon", no_argument, NULL, 'd'},           {"help", no_argument, NULL, 'h'},
        {"test-config", no_argument, NULL, 't'},      {"version", no_argument, NULL, 'V'},
        {"config-reference", no_argument, NULL, 'r'}, {NULL, 0, NULL, 0}};
    struct command_line cl = {.action = ACTION_RUN};
    int option;

    do {
        option = getopt_long(argc, argv, "c:p:vdh", options, NULL);
        if (option != -1) {
            read_option(&cl, option);
        }
    } while (option != -1 && cl.action != ACTION_MISUSE);
    if (cl.action == ACTION_RUN && optind < argc) {
        fprintf(stderr, "noctule: '%s': no such option\n", argv[optind]);
        cl.action = ACTION_MISUSE;
    }
    return cl;
}

/* --- the process --- */

/* Blocked in every thread and taken by sigwait() here: no handler, no interrupted system call. */
static void signals_block(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR1);
    sigaddset(set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, set, NULL);
    signal(SIGPIPE, SIG_IGN); /* a write to a closed socket is an error code, not an end */
}

static void raise_fd_limit(struct log *log)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0) {
        return;
    }
    if (lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &lim) != 0 || getrlimit(RLIMIT_NOFILE, &lim) != 0) {
            log_warning(log, "file descriptors: the limit cannot be raised: %m");
            return;
        }
    }
    log_info(log, "file descriptors: at most %llu", (unsigned long long)lim.rlim_cur);
}

static bool become(struct log *log, const struct passwd *pw)
{
    if (initgroups(pw->pw_name, pw->pw_gid) != 0 || setgid(pw->pw_gid) != 0 ||
        setuid(pw->pw_uid) != 0) {
        log_error(log, "user %s: %m", pw->pw_name);
        return false;
    }
    prctl(PR_SET_DUMPABLE,
          1); /* cleared by the change of user; a core of a crash is worth having */
    log_info(log, "running as user %s", pw->pw_name);
    return true;
}

/* After the listeners are open: ports below 1024 and files of root are still to be had until then.
 */
static bool drop_privileges(struct log *log, const struct config *config)
{
    const struct passwd *pw;

    if (geteuid() != 0 || strcmp(config->user, "root") == 0) {
        return true;
    }
    pw = getpwnam(config->user);
    if (pw != NULL) {
        return become(log, pw);
    }
    if (config->user_set) {
        log_error(log, "user %s: there is no such user", config->user);
        return false;
    }
    log_warning(log, "there is no user %s: running as root", config->user);
    return true;
}

static bool write_pid_file(struct log *log, const char *path)
{
    FILE *f;
    bool ok;

    if (path == NULL) {
        return true;
    }
    f = fopen(path, "we");
    ok = f != NULL && fprintf(f, "%ld\n", (long)getpid()) > 0;
    if (f != NULL && fclose(f) != 0) {
        ok = false;
    }
    if (!ok) {
        log_error(log, "pid_file %s: %m", path);
    }
    return ok;
}

/* --- the background --- */

/*
 * The parent waits for one byte, the child's exit code or 0 when it serves, so that "noctule -d"
 * ends with the truth. Returns in the child with the descriptor to report to; -1: not a daemon.
 */
static int daemonise(void)
{
    int ends[2];
    unsigned char code = 1;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) != 0) {
        fprintf(stderr, "noctule: -d: %s\n", strerror(errno));
        exit(1);
    }
    pid = fork();
    if (pid < 0) {
        fprintf(stderr, "noctule: -d: %s\n", strerror(errno));
        exit(1);
    }
    if (pid == 0) {
        close(ends[0]);
        setsid();
        return ends[1];
    }
    close(ends[1]);
    if (read(ends[0], &code, 1) != 1) {
        code = 1; /* died before it could say */
    }
    _exit(code);
}

static void report(int *fd, int code)
{
    unsigned char byte = (unsigned char)code;

    if (*fd >= 0) {
        if (write(*fd, &byte, 1) != 1) {
            exit(1);
        }
        close(*fd);
        *fd = -1;
    }
}

/* Messages of the start have been seen by then; a daemon keeps no terminal busy. */
static void leave_terminal(const struct config *config)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0) {
        return;
    }
    dup2(null, STDIN_FILENO);
    if ((config->log_dest & LOG_TO_STDOUT) == 0) {
        dup2(null, STDOUT_FILENO);
    }
    if ((config->log_dest & LOG_TO_STDERR) == 0) {
        dup2(null, STDERR_FILENO);
    }
    close(null);
}

/* --- running --- */

static void log_warnings(struct log *log, const struct config *config)
{
    for (size_t i = 0; i < config->nwarnings; i++) {
        log_warning(log, "%s", config->warnings[i]);
    }
}

/* A file that cannot be taken over changes nothing; the log says so, as loudly as it can. */
static void reload(const struct command_line *cl, struct broker *broker, struct log *log,
                   struct loaded **running)
{
    struct loaded *next = calloc(1, sizeof(*next));
    char text[512] = "out of memory";

    if (next == NULL ||
        config_load(cl->file, &cl->overrides, &next->config, text, sizeof(text)) != 0 ||
        !config_keep_running((*running)->config, next->config, text, sizeof(text))) {
        log_error(log, "reload: %s; the running configuration stays", text);
        goto fail;
    }
    if (text[0] != '\0') {
        log_warning(log, "reload: %s: changes with a restart only", text);
    }
    log_warnings(log, next->config);
    if (setup_reload(broker, next->config) != 0) {
        log_error(log, "reload failed; the running configuration stays");
        goto fail;
    }
    log_set_levels(log, next->config->log_dest != 0 ? next->config->log_type : 0);
    log_info(log, "configuration loaded anew");
    next->older = *running;
    *running = next;
    return;
fail:
    if (next != NULL) {
        config_free(&next->config);
        free(next);
    }
}

static void serve(const struct command_line *cl, const sigset_t *set, struct broker *broker,
                  struct log *log, struct loaded **running)
{
    int sig = 0;

    while (sig != SIGTERM && sig != SIGINT) {
        if (sigwait(set, &sig) != 0) {
            continue;
        }
        if (sig == SIGHUP) {
            log_reopen(log);
            reload(cl, broker, log, running);
        } else if (sig == SIGUSR1 || sig == SIGUSR2) {
            log_info(log, "signal %s: nothing to do: what is acknowledged is stored",
                     sigabbrev_np(sig));
        }
    }
    log_info(log, "signal %s: stopping", sigabbrev_np(sig));
}

static int start(const struct config *config, struct log *log, struct broker **broker)
{
    int rc;

    log_info(log, "noctule " NOCTULE_VERSION " starting: %u shards, %u acceptors", config->shards,
             config->acceptors);
    raise_fd_limit(log);
    log_warnings(log, config);
    rc = setup_start(config, log, broker);
    if (rc != 0) {
        return rc;
    }
    if (!write_pid_file(log, config->pid_file) || !drop_privileges(log, config)) {
        setup_stop(*broker);
        return 1;
    }
    return 0;
}

static int run(const struct command_line *cl, struct loaded **running)
{
    struct config *config = (*running)->config;
    struct log_options options = config_log_options(config);
    int parent = cl->overrides.daemon ? daemonise() : -1;
    struct broker *broker = NULL;
    struct log *log;
    char err[512];
    sigset_t set;
    int rc;

    signals_block(&set);
    if (log_open(&log, &options, err, sizeof(err)) != 0) {
        fprintf(stderr, "noctule: %s\n", err);
        report(&parent, 1);
        return 1;
    }
    rc = start(config, log, &broker);
    if (rc == 0) {
        if (parent >= 0) {
            leave_terminal(config);
        }
        report(&parent, 0);
        serve(cl, &set, broker, log, running);
        rc = setup_stop(broker);
        if (config->pid_file != NULL) {
            unlink(config->pid_file); /* may fail for want of rights after the change of user */
        }
        log_info(log, "noctule " NOCTULE_VERSION " stopped");
    }
    log_close(&log);
    report(&parent, rc);
    return rc;
}

static void free_loaded(struct loaded *l)
{
    while (l != NULL) {
        struct loaded *older = l->older;

        config_free(&l->config);
        free(l);
        l = older;
    }
}

static int with_config(const struct command_line *cl)
{
    struct loaded *running = calloc(1, sizeof(*running));
    char err[512];
    int rc;

    if (running == NULL) {
        fputs("noctule: out of memory\n", stderr);
        return 1;
    }
    rc = config_load(cl->file, &cl->overrides, &running->config, err, sizeof(err));
    if (rc != 0) {
        fprintf(stderr, "noctule: %s\n", err);
    } else if (cl->action == ACTION_TEST) {
        for (size_t i = 0; i < running->config->nwarnings; i++) {
            fprintf(stderr, "noctule: warning: %s\n", running->config->warnings[i]);
        }
        puts("configuration is valid");
    } else {
        rc = run(cl, &running);
    }
    free_loaded(running);
    return rc;
}

int main(int argc, char **argv)
{
    struct command_line cl = read_command_line(argc, argv);

    /* Without jemalloc: glibc would reserve 64 MB of addresses for every thread. */
    mallopt(M_ARENA_MAX, 1);
    switch (cl.action) {
    case ACTION_RUN:
    case ACTION_TEST:
        return with_config(&cl);
    case ACTION_HELP:
        print_help(stdout);
        return 0;
    case ACTION_VERSION:
        puts("noctule " NOCTULE_VERSION);
        return 0;
    case ACTION_REFERENCE:
        config_print_reference(stdout);
        return 0;
    case ACTION_MISUSE:
        break;
    }
    print_help(stderr);
    return 1;
}
