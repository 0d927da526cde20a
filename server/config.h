/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - the configuration file, checked and immutable.
 *
 * The syntax is mosquitto.conf's: `key value` lines, `#` comments. The keys, their types, defaults,
 * ranges and help are rows of config_table.c, which also prints the manual's reference. A field is
 * named as its key, with underscores for dots. Keys that name a feature this version does not have
 * are refused, never ignored: an ignored password file would be an open door.
 *
 * Threads    any, once loaded: nothing changes it. A reload makes another one.
 * Ownership  the caller owns a loaded config and ends it by config_free(); all strings are its own.
 * Errors     0, or 1 (the exit code) with "FILE:LINE: KEY: reason" in err.
 */
#ifndef NOCTULE_CONFIG_H
#define NOCTULE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "server/base/log.h"

/* Bits of listener_config.accept_protocol_versions. */
#define CONFIG_ACCEPT_V3  (1u << 3) /* 3.1 */
#define CONFIG_ACCEPT_V4  (1u << 4) /* 3.1.1 */
#define CONFIG_ACCEPT_V5  (1u << 5)
#define CONFIG_ACCEPT_ALL (CONFIG_ACCEPT_V3 | CONFIG_ACCEPT_V4 | CONFIG_ACCEPT_V5)

#define CONFIG_PORT_DEFAULT 1883
#define CONFIG_CLI_PORTS    10
#define CONFIG_MAX_PACKET                                                                          \
    268435460u /* fixed header of 5 bytes and a remaining length of 268,435,455 */
#define CONFIG_UNIX_PATH_MAX  107 /* bytes of sun_path without its NUL */
#define CONFIG_MAX_SHARDS     256 /* clients hash into that many partitions */
#define CONFIG_MAX_ACCEPTORS  64
#define CONFIG_LOG_FACILITIES 8

enum config_durability {
    CONFIG_DURABILITY_DEFAULT, /* a listener: as the general key says */
    CONFIG_DURABILITY_DISK,    /* acknowledgements wait for the store's commit */
    CONFIG_DURABILITY_MEMORY,  /* they leave at once, the store follows */
};

struct listener_config {
    uint16_t port;        /* TCP; 0 for a unix socket */
    char *address;        /* host name or IP address to bind to; NULL: all */
    char *unix_path;      /* not NULL: a unix socket, and no TCP */
    char *bind_interface; /* NULL: any */
    int socket_domain;    /* AF_UNSPEC (both), AF_INET or AF_INET6 */
    bool optional; /* one half of the loopback pair: it may fail to bind if the other half works */
    uint32_t max_connections; /* 0: no limit of its own */
    uint32_t max_qos;         /* 0..2; maximum_qos is the same key */
    uint32_t max_topic_alias;
    uint32_t max_topic_alias_broker;
    char *mount_point; /* NULL: none */
    bool use_username_as_clientid;
    unsigned accept_protocol_versions; /* set of CONFIG_ACCEPT_ */
    bool allow_anonymous; /* resolved: listener_allow_anonymous, allow_anonymous, default */
    bool allow_zero_length_clientid;   /* resolved by per_listener_settings */
    char *auto_id_prefix;              /* resolved by per_listener_settings; may be "" */
    bool listener_allow_anonymous;     /* as written; allow_anonymous above is what counts */
    enum config_durability durability; /* resolved: listener_durability, durability */
};

struct config {
    struct listener_config *listeners; /* at least one */
    size_t nlisteners;

    /* General */
    bool per_listener_settings;
    bool allow_anonymous;            /* as written or the default; listeners[] has what counts */
    bool allow_zero_length_clientid; /* the same */
    char *auto_id_prefix;            /* the same */
    char *clientid_prefixes;         /* NULL: any client id */
    bool retain_available;
    bool check_retain_source;
    bool accept_control_characters;
    uint32_t sys_interval; /* seconds; 0: no $SYS topics */
    bool set_tcp_nodelay;
    bool queue_qos0_messages;
    bool upgrade_outgoing_qos;
    uint32_t max_keepalive; /* seconds; 0: no limit */
    char *user;
    bool user_set;  /* the file names the user: it has to exist */
    char *pid_file; /* NULL: none */

    /* Limits; 0 means none unless said otherwise */
    uint32_t max_inflight_messages; /* 1..65535, resolved */
    uint64_t max_inflight_bytes;
    uint32_t max_queued_messages;
    uint64_t max_queued_bytes;
    uint32_t max_packet_size;    /* bytes of the whole packet */
    uint32_t message_size_limit; /* bytes of payload */
    uint64_t memory_limit;       /* bytes, resolved: never 0 */
    uint32_t max_topic_levels;   /* separators, 1.. */
    uint32_t max_subscriptions_per_client;
    uint64_t max_retained_messages;
    uint64_t max_retained_bytes;
    uint64_t retained_memory_size;
    uint32_t max_connect_size; /* bytes */
    uint64_t output_buffer_limit;
    uint32_t connect_timeout; /* seconds */
    uint32_t max_connections_pending;

    /* Store */
    bool persistence;
    bool serve_damaged;                /* persistence_damaged serve */
    uint64_t persistence_reserve;      /* bytes; 0: by the size of the file system */
    enum config_durability durability; /* as written or the default; listeners[] has what counts */
    char *persistence_location;        /* NULL: the working directory */
    uint64_t persistent_client_expiration; /* seconds; 0: never */
    uint32_t store_delay;                  /* milliseconds */
    uint32_t will_grace;                   /* seconds */

    /* Threads */
    uint32_t shards;    /* resolved: 1.. */
    uint32_t acceptors; /* resolved: 1.. */

    /* Log */
    unsigned log_dest; /* set of enum log_dest */
    char *log_file;    /* of `log_dest file` */
    unsigned log_type; /* set of enum log_level */
    bool log_timestamp;
    char *log_timestamp_format; /* NULL: seconds since 1970 */
    int log_facility;           /* syslog's LOG_DAEMON or LOG_LOCAL0.. */
    bool connection_messages;

    bool local_only; /* no listener named: loopback only */
    char **warnings; /* what the caller should log once, as WARNING */
    size_t nwarnings;
};

/* From the command line; what is set wins over the file. */
struct config_overrides {
    uint16_t ports[CONFIG_CLI_PORTS]; /* -p */
    size_t nports;
    bool verbose; /* -v: every log_type, and to stderr as well */
    bool daemon;  /* -d: without a log_dest, syslog instead of stderr */
};

/* path may be NULL: defaults. overrides may be NULL. *out is NULL on error. */
int config_load(const char *path, const struct config_overrides *overrides, struct config **out,
                char *err, size_t cap) __attribute__((warn_unused_result));

/* A file in memory. */
struct config_file {
    const char *path;
    const char *text;
    size_t n; /* bytes of text */
};

/* The same from memory, for tests and the fuzzer: files[0] is the main file, and include_dir finds
 * what of the rest is in its directory. Nothing of the disk is read. */
int config_parse_files(const struct config_file *files, size_t nfiles,
                       const struct config_overrides *overrides, struct config **out, char *err,
                       size_t cap) __attribute__((warn_unused_result));

/* The same of one file; `name` stands for it in messages. */
int config_parse(const char *text, size_t n, const char *name,
                 const struct config_overrides *overrides, struct config **out, char *err,
                 size_t cap) __attribute__((warn_unused_result));

void config_free(struct config **config);

/* Views into config: valid as long as it lives. */
struct log_options config_log_options(const struct config *config);

/* Prepares a reloaded configuration to take the place of the running one: what only a restart can
 * change keeps its running value in `loaded`, listeners in their order; names says what differs
 * ("listener, shards") or is
 * "". False: out of memory, and `loaded` is good for config_free() only. */
bool config_keep_running(const struct config *running, struct config *loaded, char *names,
                         size_t cap) __attribute__((warn_unused_result));

/* The keys as roff, for noctule.conf(5). */
void config_print_reference(FILE *f);

#endif
