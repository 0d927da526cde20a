/* SPDX-License-Identifier: Apache-2.0 */
/* noctule-store: looks after a store that no broker has open. */
#include "storage/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_OK, EXIT_BREACHES, EXIT_USAGE, EXIT_FAILED };

static const char usage[] =
    "usage: noctule-store check DIR         look for damage; changes nothing\n"
    "       noctule-store check --repair DIR   save what can be saved of a damaged store, and say\n"
    "                                       what is lost; the damaged files are kept\n"
    "       noctule-store dump DIR          every record as a line of text\n"
    "       noctule-store compact DIR       give free pages back to the file system\n"
    "       noctule-store backup DIR TO     copy into the new directory TO, compacted\n"
    "\n"
    "DIR is what persistence_location names; it must not be in use by a broker.\n"
    "Exit status: 0 good, 1 the store breaks rules, 2 usage, 3 it could not be done.\n";

static void print_line(void *arg, const char *line)
{
    (void)arg;
    puts(line);
}

static int failed(const char *err)
{
    fflush(stdout);
    fprintf(stderr, "noctule-store: %s\n", err);
    return EXIT_FAILED;
}

static int run_check(const char *dir)
{
    char err[512];
    const long n = check_store(dir, print_line, NULL, err, sizeof(err));

    if (n < 0) {
        return failed(err);
    }
    printf("%s: %ld breaches\n", dir, n);
    return n == 0 ? EXIT_OK : EXIT_BREACHES;
}

static int run_repair(const char *dir)
{
    char err[512];
    const int rc = check_repair(dir, print_line, NULL, err, sizeof(err));

    if (rc < 0) {
        return failed(err);
    }
    printf("%s: %s\n", dir, rc == 0 ? "nothing is damaged" : "repaired");
    return EXIT_OK;
}

static int run_dump(const char *dir)
{
    char err[512];

    return check_dump(dir, print_line, NULL, err, sizeof(err)) == 0 ? EXIT_OK : failed(err);
}

static int run_backup(const char *dir, const char *to)
{
    char err[512];

    return check_copy(dir, to, err, sizeof(err)) == 0 ? EXIT_OK : failed(err);
}

/* The copy is whole before anything of the old store is touched, and either name always leads to
 * one. */
static int run_compact(const char *given)
{
    const size_t n = strlen(given);
    char dir[4096];
    char to[4096 + 16];
    char old[4096 + 16];
    int rc;

    snprintf(dir, sizeof(dir), "%s", given);
    for (size_t i = n < sizeof(dir) ? n : sizeof(dir) - 1; i > 1 && dir[i - 1] == '/'; i--) {
        dir[i - 1] = '\0';
    }
    snprintf(to, sizeof(to), "%s.compacted", dir);
    snprintf(old, sizeof(old), "%s.before", dir);
    rc = run_backup(dir, to);
    if (rc != EXIT_OK) {
        return rc;
    }
    if (rename(dir, old) != 0 || rename(to, dir) != 0) {
        return failed(strerror(errno));
    }
    printf("%s is compacted; the store as it was is in %s and may be removed\n", dir, old);
    return EXIT_OK;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (argc == 2 && (strcmp(what, "-h") == 0 || strcmp(what, "--help") == 0)) {
        fputs(usage, stdout);
        return EXIT_OK;
    }
    if (argc == 3 && strcmp(what, "check") == 0) {
        return run_check(argv[2]);
    }
    if (argc == 4 && strcmp(what, "check") == 0 && strcmp(argv[2], "--repair") == 0) {
        return run_repair(argv[3]);
    }
    if (argc == 3 && strcmp(what, "dump") == 0) {
        return run_dump(argv[2]);
    }
    if (argc == 3 && strcmp(what, "compact") == 0) {
        return run_compact(argv[2]);
    }
    if (argc == 4 && strcmp(what, "backup") == 0) {
        return run_backup(argv[2], argv[3]);
    }
    fputs(usage, stderr);
    return EXIT_USAGE;
}
