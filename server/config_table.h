/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_table.h - the keys of the configuration file as rows: one table per part of the broker.
 *
 * A row drives parsing, default, range, reload and the manual page. The default is text and goes
 * through the same setter as a line of the file, so what the manual says is what happens.
 */
#ifndef NOCTULE_CONFIG_TABLE_H
#define NOCTULE_CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/config.h"

enum config_type {
    CONFIG_BOOL,    /* bool: true, false, 1, 0 */
    CONFIG_UINT,    /* uint32_t */
    CONFIG_COUNT,   /* uint32_t; -1 means 0, no limit */
    CONFIG_UINT64,  /* uint64_t */
    CONFIG_SECONDS, /* uint32_t */
    CONFIG_MS,      /* uint32_t */
    CONFIG_BYTES32, /* uint32_t; suffix k, M or G */
    CONFIG_BYTES,   /* uint64_t; the same */
    CONFIG_EXPIRY,  /* uint64_t seconds from a number and h, d, w, m or y */
    CONFIG_STRING,  /* char *, the rest of the line; only once */
    CONFIG_SPECIAL, /* set() does it */
};

enum config_flag {
    CONFIG_RELOAD = 1 << 0,       /* taken over by SIGHUP */
    CONFIG_LISTENER = 1 << 1,     /* the field is the current listener's */
    CONFIG_PER_LISTENER = 1 << 2, /* the same with per_listener_settings true */
    CONFIG_OURS = 1 << 3,         /* not known to mosquitto */
    CONFIG_NO_EFFECT = 1 << 4,    /* accepted with one warning: `help` says why */
    CONFIG_UTF8 = 1 << 5,         /* a string that clients see */
    CONFIG_TEXT = 1 << 6,         /* the value may contain " #": no comment is cut off */
};

struct config_parser; /* config.c */

/* Reads `value` (writable, trimmed); false with a reason in the parser. */
typedef bool (*config_set_fn)(struct config_parser *p, char *value);

struct config_key {
    const char *name;
    enum config_type type;
    unsigned flags;         /* set of enum config_flag */
    size_t offset;          /* of the field in struct config, or with CONFIG_LISTENER in struct
                               listener_config */
    size_t listener_offset; /* CONFIG_PER_LISTENER: the field in struct listener_config */
    const char *dflt;       /* NULL: the field stays zero or NULL */
    uint64_t min;           /* of numbers */
    uint64_t max;
    config_set_fn set;     /* CONFIG_SPECIAL */
    const char *value;     /* how the manual names the value; NULL: by type */
    const char *dflt_text; /* how the manual says the default where dflt cannot */
    const char *help;      /* roff text */
};

struct config_group {
    const char *title;
    const char *intro; /* roff text or NULL */
    const struct config_key *keys;
    size_t nkeys;
    bool summary; /* the manual shows the group as a table first */
};

extern const struct config_group config_groups[];
extern const size_t config_ngroups;

/* Keys of features that are not there; a name that ends with '*' stands for all with that
 * beginning. */
struct config_refused {
    const char *name;
    const char *why;
};
extern const struct config_refused config_refused_keys[];
extern const size_t config_nrefused;

/* The setters of CONFIG_SPECIAL rows, in config.c. */
bool config_set_per_listener(struct config_parser *p, char *value);
bool config_set_listener(struct config_parser *p, char *value);
bool config_set_port(struct config_parser *p, char *value);
bool config_set_bind_address(struct config_parser *p, char *value);
bool config_set_socket_domain(struct config_parser *p, char *value);
bool config_set_protocol(struct config_parser *p, char *value);
bool config_set_accept_versions(struct config_parser *p, char *value);
bool config_set_persistence_damaged(struct config_parser *p, char *value);
bool config_set_durability(struct config_parser *p, char *value);
bool config_set_listener_durability(struct config_parser *p, char *value);
bool config_set_max_keepalive(struct config_parser *p, char *value);
bool config_set_mount_point(struct config_parser *p, char *value);
bool config_set_max_packet_size(struct config_parser *p, char *value);
bool config_set_log_dest(struct config_parser *p, char *value);
bool config_set_log_type(struct config_parser *p, char *value);
bool config_set_log_facility(struct config_parser *p, char *value);
bool config_set_include_dir(struct config_parser *p, char *value);

#endif
