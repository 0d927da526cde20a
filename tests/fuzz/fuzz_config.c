/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_config.c - any bytes as a configuration file: refused with a message, or a configuration
 * that holds.
 *
 * A line "%NAME" begins another file, d/NAME, so that "include_dir d" has something to read.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(int cond)
{
    if (!cond) {
        abort();
    }
}

static void check(const struct config *c)
{
    need(c->nlisteners > 0);
    need(c->shards >= 1 && c->shards <= CONFIG_MAX_SHARDS);
    need(c->acceptors >= 1 && c->memory_limit > 0 && c->max_topic_levels > 0);
    need(c->max_inflight_messages >= 1 && c->max_inflight_messages <= UINT16_MAX);
    need((c->log_dest & LOG_TO_FILE) == 0 || c->log_file != NULL);
    for (size_t i = 0; i < c->nlisteners; i++) {
        const struct listener_config *l = &c->listeners[i];

        need((l->port == 0) == (l->unix_path != NULL));
        need(l->max_qos <= 2 && l->auto_id_prefix != NULL);
        need(l->accept_protocol_versions != 0);
    }
}

#define FILES_MAX 8
#define NAME_CAP  32

/* The main file and a folder, cut out of the input. */
struct folder {
    struct config_file files[FILES_MAX];
    char names[FILES_MAX][NAME_CAP];
    size_t n;
};

/* The end of what begins at `at`: where the next line with '%' at its start begins, or the end. */
static size_t file_end(const char *text, size_t at, size_t size)
{
    for (; at < size; at++) {
        if (text[at] == '%' && (at == 0 || text[at - 1] == '\n')) {
            break;
        }
    }
    return at;
}

static void cut(struct folder *f, const char *text, size_t size)
{
    size_t at = file_end(text, 0, size);

    f->files[0] = (struct config_file){.path = "fuzz", .text = text, .n = at};
    for (f->n = 1; at < size && f->n < FILES_MAX; f->n++) {
        const char *eol = memchr(text + at, '\n', size - at);
        size_t start = eol == NULL ? size : (size_t)(eol - text) + 1;
        size_t name = (eol == NULL ? size : start - 1) - (at + 1);

        snprintf(f->names[f->n], NAME_CAP, "d/%.*s", (int)(name < 24 ? name : 24), text + at + 1);
        at = file_end(text, start, size);
        f->files[f->n] = (struct config_file){f->names[f->n], text + start, at - start};
    }
}

static int parse(const struct folder *f, struct config **c, char *err, size_t cap)
{
    return config_parse_files(f->files, f->n, NULL, c, err, cap);
}

/* A configuration that was read once reads the same again: nothing needs a restart. */
static void check_reload(const struct config *c, const struct folder *f)
{
    struct config *again;
    char names[64];
    char err[64];

    need(parse(f, &again, err, sizeof(err)) == 0);
    need(config_keep_running(c, again, names, sizeof(names)) && names[0] == '\0');
    config_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct folder f;
    struct config *c;
    char err[96];

    memset(err, 'x', sizeof(err));
    cut(&f, (const char *)data, size);
    if (parse(&f, &c, err, sizeof(err)) == 0) {
        check(c);
        check_reload(c, &f);
        config_free(&c);
    } else {
        need(c == NULL && memchr(err, '\0', sizeof(err)) != NULL && strlen(err) > 0);
        need(strchr(err, '\n') == NULL);
    }
    return 0;
}
