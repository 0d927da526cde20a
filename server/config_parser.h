/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_parser.h - what the files behind config.h share while one configuration is read.
 *
 * Threads    one.
 * Ownership  the parser lives on config_load()'s stack; `c` becomes the caller's at the end.
 */
#ifndef NOCTULE_CONFIG_PARSER_H
#define NOCTULE_CONFIG_PARSER_H

#include "server/config.h"
#include "server/config_table.h"

#define CONFIG_KEYS_MAX 96 /* rows of all tables together; checked at every load */

/* A listener being configured, and which of its keys the file has named. */
struct config_scope {
    struct listener_config l;
    bool seen[CONFIG_KEYS_MAX];
};

/* What is being read. It goes and comes as a whole: an included file has its own, and whatever
 * became of that file, its includer goes on with the one from before. */
struct config_place {
    const char *file;             /* NULL: defaults */
    unsigned line;                /* 1..; 0: no line */
    const struct config_key *key; /* never NULL while a value is being set */
    size_t ordinal;               /* of key in all tables */
};

struct config_parser {
    struct config *c;
    struct config_scope *scopes; /* [0]: the default listener */
    size_t nscopes;
    size_t cur;                 /* the scope listener keys go to */
    bool seen[CONFIG_KEYS_MAX]; /* keys of the whole broker */
    struct config_place at;
    const struct config_file *files; /* not NULL: these, and nothing of the disk */
    size_t nfiles;
    bool included; /* in a file of include_dir */
    bool per_listener_key_seen;
    bool default_open; /* port or bind_address was given */
    bool log_none;
    bool log_dest_set;
    bool log_type_set;
    char *err;
    size_t cap;
};

/* Writes "FILE:LINE: KEY: reason"; always false. */
bool config_fail(struct config_parser *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Adds to config->warnings; false and an error when there is no memory. */
bool config_warn(struct config_parser *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Sets p->at.key's field from the text, which it may change. */
bool config_set(struct config_parser *p, char *value);

/* A new scope with the defaults of the listener keys; it becomes the current one. */
bool config_scope_add(struct config_parser *p);

/* Reads a whole text, line by line, and leaves p->at as it was. */
bool config_read_text(struct config_parser *p, const char *name, const char *text, size_t n);

/* The same of a file, of the disk or of p->files. */
bool config_read_file(struct config_parser *p, const char *path);

bool config_listener_copy(struct listener_config *out, const struct listener_config *in);
void config_listener_fini(struct listener_config *l);

/* What the machine, or the control group of the process, has. */
uint64_t config_machine_memory(void); /* bytes */
uint32_t config_machine_cpus(void);   /* 1.. */

#endif
