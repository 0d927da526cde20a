/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_include.c - where the text of a configuration comes from: files of the disk or of memory,
 * and the directories that include_dir names.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/config_parser.h"

#define FILE_SIZE_MAX ((size_t)16 * 1024 * 1024)

static char *slurp(FILE *f, size_t *n)
{
    char *text = NULL;
    size_t cap = 0;

    *n = 0;
    do {
        if (*n == cap) {
            size_t next = cap == 0 ? 65536 : cap * 2;
            char *more = next <= FILE_SIZE_MAX ? realloc(text, next) : NULL;

            if (more == NULL) {
                free(text);
                errno = next <= FILE_SIZE_MAX ? ENOMEM : EFBIG;
                return NULL;
            }
            text = more;
            cap = next;
        }
        *n += fread(text + *n, 1, cap - *n, f);
    } while (!feof(f) && !ferror(f));
    if (ferror(f)) {
        free(text);
        return NULL;
    }
    return text;
}

static bool read_disk(struct config_parser *p, const char *path)
{
    FILE *f = fopen(path, "re");
    char *text = NULL;
    size_t n;
    bool ok;

    if (f != NULL) {
        text = slurp(f, &n);
    }
    if (text == NULL) {
        ok = config_fail(p, "%s: %s", path, strerror(errno));
    } else {
        ok = config_read_text(p, path, text, n);
    }
    free(text);
    if (f != NULL) {
        fclose(f);
    }
    return ok;
}

bool config_read_file(struct config_parser *p, const char *path)
{
    if (p->files == NULL) {
        return read_disk(p, path);
    }
    for (size_t i = 0; i < p->nfiles; i++) {
        if (strcmp(p->files[i].path, path) == 0) {
            return config_read_text(p, path, p->files[i].text, p->files[i].n);
        }
    }
    return config_fail(p, "%s: %s", path, strerror(ENOENT));
}

/* --- the names of a directory --- */

/* As mosquitto sorts: letters without regard to case, and a capital before the same small letter.
 */
static int by_name(const void *a, const void *b)
{
    const char *x = *(char *const *)a;
    const char *y = *(char *const *)b;

    for (; *x != '\0' && *y != '\0'; x++, y++) {
        int upper = toupper((unsigned char)*x) - toupper((unsigned char)*y);

        if (upper != 0 || *x != *y) {
            return upper != 0 ? upper : (unsigned char)*x - (unsigned char)*y;
        }
    }
    return (unsigned char)*x - (unsigned char)*y;
}

static bool is_conf(const char *name)
{
    size_t n = strlen(name);

    return n > 5 && strcmp(name + n - 5, ".conf") == 0;
}

struct names {
    char **v;
    size_t n;
};

static void names_fini(struct names *names)
{
    for (size_t i = 0; i < names->n; i++) {
        free(names->v[i]);
    }
    free(names->v);
    *names = (struct names){0};
}

/* False: out of memory. Only names of files to read are kept. */
static bool names_add(struct names *names, const char *name)
{
    char **more;

    if (!is_conf(name)) {
        return true;
    }
    more = realloc(names->v, (names->n + 1) * sizeof(*more));
    if (more == NULL) {
        return false;
    }
    names->v = more;
    names->v[names->n] = strdup(name);
    return names->v[names->n] != NULL && ++names->n > 0;
}

static bool list_disk(struct config_parser *p, const char *dir, struct names *names)
{
    DIR *d = opendir(dir);
    bool ok = d != NULL || config_fail(p, "%s: %s", dir, strerror(errno));

    while (ok) {
        const struct dirent *entry;

        errno = 0;
        entry = readdir(d);
        if (entry == NULL) {
            ok = errno == 0 || config_fail(p, "%s: %s", dir, strerror(errno));
            break;
        }
        ok = names_add(names, entry->d_name) || config_fail(p, "out of memory");
    }
    if (d != NULL) {
        closedir(d);
    }
    return ok;
}

static bool list_memory(struct config_parser *p, const char *dir, struct names *names)
{
    size_t len = strlen(dir);
    bool found = false;

    for (size_t i = 1; i < p->nfiles; i++) {
        const char *path = p->files[i].path;

        if (strncmp(path, dir, len) == 0 && path[len] == '/') {
            found = true;
            if (!names_add(names, path + len + 1)) {
                return config_fail(p, "out of memory");
            }
        }
    }
    return found || config_fail(p, "%s: %s", dir, strerror(ENOENT));
}

/* --- include_dir --- */

static bool read_included(struct config_parser *p, const char *dir, const char *name)
{
    char *path = NULL;
    size_t cur = p->cur;
    bool ok;

    if (asprintf(&path, "%s/%s", dir, name) < 0) {
        return config_fail(p, "out of memory");
    }
    p->included = true;
    p->cur =
        0; /* a file starts at the default listener, and leaves the including file where it was */
    ok = config_read_file(p, path);
    p->included = false;
    p->cur = cur;
    free(path);
    return ok;
}

bool config_set_include_dir(struct config_parser *p, char *value)
{
    struct names names = {0};
    bool ok;

    if (p->included) {
        return config_fail(p, "not in an included file");
    }
    ok = p->files != NULL ? list_memory(p, value, &names) : list_disk(p, value, &names);
    if (names.n > 1) {
        qsort(names.v, names.n, sizeof(*names.v), by_name);
    }
    for (size_t i = 0; ok && i < names.n; i++) {
        ok = read_included(p, value, names.v[i]);
    }
    names_fini(&names);
    return ok;
}
