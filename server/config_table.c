/* SPDX-License-Identifier: Apache-2.0 */
/* config_table.c - see config_table.h. Only rows here; what they mean to the broker is their
 * readers' affair. */
#include "server/config_table.h"

#include <stdint.h>

/* The field's offset, and a compile error if its type is not the one the row's setter writes. */
#define SAME_TYPE(s, f, type)                                                                      \
    (0 * sizeof(char[__builtin_types_compatible_p(__typeof__(((struct s *)0)->f), type) ? 1 : -1]))
#define AT(s, f, type) offsetof(struct s, f) + SAME_TYPE(s, f, type)

#define U32(f)      AT(config, f, uint32_t)
#define U64(f)      AT(config, f, uint64_t)
#define FLAG(f)     AT(config, f, bool)
#define TEXT(f)     AT(config, f, char *)
#define L_U32(f)    AT(listener_config, f, uint32_t)
#define L_FLAG(f)   AT(listener_config, f, bool)
#define L_TEXT(f)   AT(listener_config, f, char *)
#define RELOAD      CONFIG_RELOAD
#define OURS        CONFIG_OURS
#define NO_EFFECT   CONFIG_NO_EFFECT
#define GIB         ((uint64_t)1 << 30)
#define ALL_BYTES   ((uint64_t)1 << 50)
#define HOW_MANY(a) (sizeof(a) / sizeof((a)[0]))

static const struct config_key general[] = {
    {.name = "per_listener_settings",
     .type = CONFIG_SPECIAL,
     .set = config_set_per_listener,
     .value = "true|false",
     .dflt_text = "false",
     .help =
         "With true, allow_anonymous, allow_zero_length_clientid and auto_id_prefix belong to the "
         "listener they stand below instead of to the whole broker. Has to come before them."},
    {.name = "allow_anonymous",
     .type = CONFIG_BOOL,
     .flags = RELOAD | CONFIG_PER_LISTENER,
     .offset = FLAG(allow_anonymous),
     .listener_offset = L_FLAG(allow_anonymous),
     .dflt_text = "false; true if no listener is configured, when only this machine can connect",
     .help = "Whether clients may connect without a user name."},
    {.name = "allow_zero_length_clientid",
     .type = CONFIG_BOOL,
     .flags = RELOAD | CONFIG_PER_LISTENER,
     .offset = FLAG(allow_zero_length_clientid),
     .listener_offset = L_FLAG(allow_zero_length_clientid),
     .dflt = "true",
     .help = "Whether a client may leave its client id empty and have one made by the broker."},
    {.name = "auto_id_prefix",
     .type = CONFIG_STRING,
     .flags = RELOAD | CONFIG_PER_LISTENER | CONFIG_UTF8,
     .offset = TEXT(auto_id_prefix),
     .listener_offset = L_TEXT(auto_id_prefix),
     .dflt = "auto-",
     .help = "What client ids made by the broker begin with; a UUID follows."},
    {.name = "clientid_prefixes",
     .type = CONFIG_STRING,
     .flags = RELOAD | CONFIG_UTF8,
     .offset = TEXT(clientid_prefixes),
     .dflt_text = "every client id",
     .help =
         "Only client ids that begin like this may connect; for clients that leave theirs empty "
         "auto_id_prefix has to begin like this."},
    {.name = "retain_available",
     .type = CONFIG_BOOL,
     .flags = RELOAD,
     .offset = FLAG(retain_available),
     .dflt = "true",
     .help = "With false, a client that publishes with the retain flag is disconnected."},
    {.name = "check_retain_source",
     .type = CONFIG_BOOL,
     .flags = RELOAD,
     .offset = FLAG(check_retain_source),
     .dflt = "true",
     .help = "Whether the right of the client that set a retained message to publish it is checked "
             "again when "
             "the message is delivered."},
    {.name = "accept_control_characters",
     .type = CONFIG_BOOL,
     .flags = RELOAD | OURS,
     .offset = FLAG(accept_control_characters),
     .dflt = "false",
     .help =
         "Whether topics, filters, client ids, user names and string properties may hold control "
         "characters (U+0001 to U+001F, U+007F to U+009F) and the noncharacters of Unicode. "
         "With false a packet that has one is malformed, as for mosquitto, whose client "
         "library ends its connection when it receives one. Set it to true to remove a "
         "retained message that has one in its topic from an earlier time."},
    {.name = "sys_interval",
     .type = CONFIG_SECONDS,
     .flags = RELOAD,
     .offset = U32(sys_interval),
     .dflt = "10",
     .max = 65535,
     .help = "How often the topics below $SYS are published; 0: never."},
    {.name = "set_tcp_nodelay",
     .type = CONFIG_BOOL,
     .flags = RELOAD,
     .offset = FLAG(set_tcp_nodelay),
     .dflt = "true",
     .help = "Sets TCP_NODELAY on the connections of clients. mosquitto's default is false; here "
             "output is gathered "
             "before it is written, so that there is nothing to gain from Nagle's algorithm."},
    {.name = "queue_qos0_messages",
     .type = CONFIG_BOOL,
     .flags = RELOAD,
     .offset = FLAG(queue_qos0_messages),
     .dflt = "false",
     .help =
         "Whether QoS 0 messages are kept for a disconnected client as those of QoS 1 and 2 are."},
    {.name = "upgrade_outgoing_qos",
     .type = CONFIG_BOOL,
     .flags = RELOAD,
     .offset = FLAG(upgrade_outgoing_qos),
     .dflt = "false",
     .help = "Deliver at the QoS of the subscription even if the message was published with a "
             "lower one."},
    {.name = "max_keepalive",
     .type = CONFIG_SPECIAL,
     .set = config_set_max_keepalive,
     .flags = RELOAD,
     .offset = U32(max_keepalive),
     .value = "seconds",
     .dflt = "0",
     .max = 65535,
     .help = "The longest keep-alive time a client may have: 10 to 65535, or 0 for no limit. A "
             "client of MQTT 5.0 "
             "that asks for more is given this one; an older one is refused."},
    {.name = "user",
     .type = CONFIG_STRING,
     .offset = TEXT(user),
     .dflt = "noctule",
     .help = "When started by root, become this user and take its groups. If the key is not set "
             "and there is no such "
             "user, the broker warns and stays root. As \\(lquser root\\(rq it stays root by "
             "intention."},
    {.name = "pid_file",
     .type = CONFIG_STRING,
     .offset = TEXT(pid_file),
     .dflt_text = "none",
     .help = "File the process id is written to; it is removed at the end."},
    {.name = "include_dir",
     .type = CONFIG_SPECIAL,
     .flags = CONFIG_TEXT,
     .set = config_set_include_dir,
     .value = "directory",
     .dflt_text = "none",
     .help = "Reads all files of the directory that end in .conf, sorted by name, capital before "
             "small letters of the "
             "same kind. May be repeated; not inside an included file."},
};

static const struct config_key limits[] = {
    {.name = "max_inflight_messages",
     .type = CONFIG_UINT,
     .flags = RELOAD,
     .offset = U32(max_inflight_messages),
     .dflt = "1024",
     .max = 65535,
     .help = "QoS 1 and 2 messages on their way to one client at a time, and the Receive Maximum "
             "the broker states; 0 "
             "means 65535. mosquitto's default is 20."},
    {.name = "max_inflight_bytes",
     .type = CONFIG_BYTES,
     .flags = RELOAD,
     .offset = U64(max_inflight_bytes),
     .dflt = "0",
     .max = ALL_BYTES,
     .help = "The same in bytes of payload; one message may always be on its way. 0: no limit."},
    {.name = "max_queued_messages",
     .type = CONFIG_UINT,
     .flags = RELOAD,
     .offset = U32(max_queued_messages),
     .dflt_text = "1000, or 0",
     .max = UINT32_MAX,
     .help = "Messages that wait for one client, beside those on their way; the default is 1000 "
             "without and 0 with persistence. What comes on top is "
             "dropped and counted. "
             "0: no limit but max_queued_bytes."},
    {.name = "max_queued_bytes",
     .type = CONFIG_BYTES,
     .flags = RELOAD,
     .offset = U64(max_queued_bytes),
     .dflt = "256M",
     .max = ALL_BYTES,
     .help = "The same in bytes of memory, those on their way included: each message takes its "
             "topic, payload "
             "and properties and some 100 bytes. 0: no limit."},
    {.name = "max_packet_size",
     .type = CONFIG_SPECIAL,
     .set = config_set_max_packet_size,
     .flags = RELOAD,
     .offset = U32(max_packet_size),
     .value = "bytes",
     .dflt = "0",
     .max = CONFIG_MAX_PACKET,
     .help = "The largest packet a client may send, 20 at least; 0: as large as the protocol "
             "allows, 268435460."},
    {.name = "message_size_limit",
     .type = CONFIG_BYTES32,
     .flags = RELOAD,
     .offset = U32(message_size_limit),
     .dflt = "0",
     .max = CONFIG_MAX_PACKET,
     .help = "The largest payload of a message; a larger one is answered but not delivered, and a "
             "CONNECT "
             "with a larger will is refused. 0: no limit."},
    {.name = "memory_limit",
     .type = CONFIG_BYTES,
     .flags = RELOAD,
     .offset = U64(memory_limit),
     .dflt = "0",
     .max = ALL_BYTES,
     .help =
         "Memory for messages, queues and retained messages of all clients together. At the "
         "limit publishers are "
         "slowed down, then QoS 0 messages are dropped and others refused, and connections that "
         "hold much and do not read are closed, one at a time. 0: half of the memory of the "
         "machine, or of the control group if that has less."},
    {.name = "max_topic_levels",
     .type = CONFIG_UINT,
     .flags = RELOAD | OURS,
     .offset = U32(max_topic_levels),
     .dflt = "200",
     .min = 1,
     .max = 65535,
     .help =
         "Separators (\\(lq/\\(rq) a topic or a filter may have. mosquitto's limit is 200, fixed."},
    {.name = "max_subscriptions_per_client",
     .type = CONFIG_UINT,
     .flags = RELOAD | OURS,
     .offset = U32(max_subscriptions_per_client),
     .dflt = "1000000",
     .max = UINT32_MAX,
     .help =
         "Subscriptions one session may have; more are answered with a failure code. 0: no limit."},
    {.name = "max_retained_messages",
     .type = CONFIG_UINT64,
     .flags = RELOAD | OURS,
     .offset = U64(max_retained_messages),
     .dflt = "0",
     .max = UINT32_MAX,
     .help = "Retained messages of all topics. Existing ones can still be replaced. 0: no limit "
             "but memory_limit."},
    {.name = "max_retained_bytes",
     .type = CONFIG_BYTES,
     .flags = RELOAD | OURS,
     .offset = U64(max_retained_bytes),
     .dflt = "0",
     .max = ALL_BYTES,
     .help = "The same in bytes of topics and payloads. 0: no limit but memory_limit."},
    {.name = "retained_memory_size",
     .type = CONFIG_BYTES,
     .flags = RELOAD | OURS,
     .offset = U64(retained_memory_size),
     .dflt = "1K",
     .max = GIB,
     .help = "With persistence, a retained message with more bytes of payload and properties than "
             "this is kept on disk only; its topic stays in memory. A subscription that "
             "asks for it has it read there."},
    {.name = "max_connect_size",
     .type = CONFIG_BYTES32,
     .flags = RELOAD | OURS,
     .offset = U32(max_connect_size),
     .dflt = "256k",
     .min = 64,
     .max = CONFIG_MAX_PACKET,
     .help = "The largest CONNECT packet, the payload of its will included: what a client may make "
             "the broker hold "
             "before anyone knows it."},
    {.name = "output_buffer_limit",
     .type = CONFIG_BYTES,
     .flags = RELOAD | OURS,
     .offset = U64(output_buffer_limit),
     .dflt = "256k",
     .min = 4096,
     .max = GIB,
     .help = "Bytes that may wait for a connection that does not read; further messages wait in "
             "the session's queue, "
             "QoS 0 ones are dropped and counted."},
    {.name = "connect_timeout",
     .type = CONFIG_SECONDS,
     .flags = RELOAD | OURS,
     .offset = U32(connect_timeout),
     .dflt = "10",
     .min = 1,
     .max = 3600,
     .help = "How long after a connection was accepted its CONNECT has to be complete."},
    {.name = "max_connections_pending",
     .type = CONFIG_UINT,
     .flags = RELOAD | OURS,
     .offset = U32(max_connections_pending),
     .dflt = "20000",
     .min = 1,
     .max = 10000000,
     .help = "Connections that have not sent their CONNECT yet; with so many no more are accepted "
             "until "
             "one of them has, or connect_timeout has ended it."},
};

static const struct config_key store[] = {
    {.name = "persistence",
     .type = CONFIG_BOOL,
     .offset = FLAG(persistence),
     .dflt = "false",
     .help = "Whether sessions, queued and retained messages survive the end of the process."},
    {.name = "persistence_location",
     .type = CONFIG_STRING,
     .offset = TEXT(persistence_location),
     .dflt_text = "the working directory",
     .help = "The directory of the store."},
    {.name = "persistence_damaged",
     .type = CONFIG_SPECIAL,
     .flags = OURS,
     .set = config_set_persistence_damaged,
     .value = "refuse|serve",
     .dflt_text = "refuse",
     .help =
         "What a start does with a damaged store. refuse: it ends with what is damaged, and "
         "noctule-store check --repair saves what can be saved. serve: every start reads the "
         "whole store, repairs it like that command where it is damaged, logs what is lost and "
         "counts it in noctule/store/lost, and keeps the damaged files. Damage that is met later "
         "ends the broker either way, with status 74."},
    {.name = "persistence_reserve",
     .type = CONFIG_BYTES,
     .flags = OURS,
     .offset = U64(persistence_reserve),
     .dflt = "0",
     .min = 0,
     .max = GIB,
     .help = "Bytes of disk held back in each of the two files of the store, so that what is queued "
             "can still be delivered and removed when the disk is full; less than three quarters of "
             "that left, and new work is refused. 0: 64 MB or 2 % of the file system, whichever is "
             "less, and at least 4 MB."},
    {.name = "persistence_file",
     .type = CONFIG_STRING,
     .flags = NO_EFFECT,
     .help = "the store is a directory, see persistence_location"},
    {.name = "persistent_client_expiration",
     .type = CONFIG_EXPIRY,
     .flags = RELOAD,
     .offset = U64(persistent_client_expiration),
     .value = "number[h|d|w|m|y]",
     .dflt_text = "never",
     .max = UINT32_MAX,
     .help = "Ends sessions whose client has not been back for so many hours, days, weeks, months "
             "(30 days) or years "
             "(365 days)."},
    {.name = "autosave_interval",
     .type = CONFIG_UINT,
     .flags = NO_EFFECT,
     .max = UINT32_MAX,
     .help = "what is acknowledged is stored already"},
    {.name = "autosave_on_changes",
     .type = CONFIG_BOOL,
     .flags = NO_EFFECT,
     .help = "what is acknowledged is stored already"},
    {.name = "retained_persistence",
     .type = CONFIG_BOOL,
     .flags = NO_EFFECT,
     .help = "retained messages are stored as persistence says"},
    {.name = "durability",
     .type = CONFIG_SPECIAL,
     .flags = OURS,
     .set = config_set_durability,
     .value = "disk|memory",
     .dflt_text = "disk",
     .help = "What acknowledgements wait for with persistence true: the synced commit of what they "
             "acknowledge, or nothing; then the store follows within milliseconds, and a crash may "
             "lose what was acknowledged in them."},
    {.name = "will_grace",
     .type = CONFIG_SECONDS,
     .flags = OURS,
     .offset = U32(will_grace),
     .dflt = "10",
     .max = 86400,
     .help = "After a start, how long the will of a client that was connected before waits for it "
             "to come "
             "back, at least; its own delay may be longer. 0: it is sent at once."},
    {.name = "store_delay",
     .type = CONFIG_MS,
     .flags = OURS,
     .offset = U32(store_delay),
     .dflt = "0",
     .max = 60000,
     .help = "For tests: the store in memory waits so long before it reports a group as stored, as "
             "a disk would."},
};

static const struct config_key threads[] = {
    {.name = "shards",
     .type = CONFIG_UINT,
     .flags = OURS,
     .offset = U32(shards),
     .dflt = "0",
     .max = CONFIG_MAX_SHARDS,
     .help = "Threads that serve the clients; 0: as many as CPUs the process may use. May change "
             "at any restart."},
    {.name = "acceptors",
     .type = CONFIG_UINT,
     .flags = OURS,
     .offset = U32(acceptors),
     .dflt = "0",
     .max = CONFIG_MAX_ACCEPTORS,
     .help =
         "Threads that take connections up to their CONNECT; 0: one for four CPUs, one at least."},
};

static const struct config_key logging[] = {
    {.name = "log_dest",
     .type = CONFIG_SPECIAL,
     .flags = CONFIG_TEXT,
     .set = config_set_log_dest,
     .value = "stderr|stdout|syslog|file PATH|none",
     .dflt_text = "stderr; syslog with -d",
     .help = "Where the log goes; may be repeated, with one file at most. The file is opened anew "
             "by SIGHUP. "
             "\\(lqtopic\\(rq and \\(lqdlt\\(rq have no effect yet and cause a warning."},
    {.name = "log_type",
     .type = CONFIG_SPECIAL,
     .flags = RELOAD,
     .set = config_set_log_type,
     .value = "error|warning|notice|information|debug|subscribe|unsubscribe|all|none",
     .dflt_text = "error, warning, notice and information",
     .help = "What is logged; may be repeated. \\(lqinternal\\(rq and \\(lqwebsockets\\(rq are "
             "accepted and empty."},
    {.name = "log_timestamp",
     .type = CONFIG_BOOL,
     .offset = FLAG(log_timestamp),
     .dflt = "true",
     .help = "Whether lines begin with the time (not in syslog, which has its own)."},
    {.name = "log_timestamp_format",
     .type = CONFIG_STRING,
     .offset = TEXT(log_timestamp_format),
     .dflt_text = "seconds since 1970",
     .help = "The format of the time as in strftime(3), e.g. %Y-%m-%dT%H:%M:%S."},
    {.name = "log_facility",
     .type = CONFIG_SPECIAL,
     .set = config_set_log_facility,
     .value = "0..7",
     .dflt_text = "daemon",
     .help = "The facility for syslog, local0 to local7."},
    {.name = "connection_messages",
     .type = CONFIG_BOOL,
     .flags = RELOAD,
     .offset = FLAG(connection_messages),
     .dflt = "true",
     .help = "Whether clients that connect and disconnect are logged."},
    {.name = "websockets_log_level",
     .type = CONFIG_UINT,
     .flags = NO_EFFECT,
     .max = UINT32_MAX,
     .help = "there is no libwebsockets here; see log_type"},
    {.name = "websockets_headers_size",
     .type = CONFIG_UINT,
     .flags = NO_EFFECT,
     .max = UINT32_MAX,
     .help = "there is no libwebsockets here"},
};

static const struct config_key listeners[] = {
    {.name = "listener",
     .type = CONFIG_SPECIAL,
     .set = config_set_listener,
     .value = "port [address]",
     .dflt_text = "none",
     .help = "Opens a listener on a TCP port, at all addresses or the one given (host name or IP "
             "address), or with "
             "\\(lqlistener 0 PATH\\(rq on a unix socket. The keys of this section that follow are "
             "its own."},
    {.name = "port",
     .type = CONFIG_SPECIAL,
     .set = config_set_port,
     .value = "port",
     .dflt_text = "1883",
     .help = "Opens the default listener on this port; listener is the better way. The keys of "
             "this section that "
             "stand before the first listener line are the default listener's."},
    {.name = "bind_address",
     .type = CONFIG_SPECIAL,
     .set = config_set_bind_address,
     .value = "address",
     .dflt_text = "all",
     .help = "Opens the default listener on this address."},
    {.name = "bind_interface",
     .type = CONFIG_STRING,
     .flags = CONFIG_LISTENER,
     .offset = L_TEXT(bind_interface),
     .dflt_text = "any",
     .help = "Only connections that come in over this network interface."},
    {.name = "socket_domain",
     .type = CONFIG_SPECIAL,
     .flags = CONFIG_LISTENER,
     .set = config_set_socket_domain,
     .value = "ipv4|ipv6",
     .dflt_text = "both",
     .help = "The only IP version to listen with."},
    {.name = "protocol",
     .type = CONFIG_SPECIAL,
     .flags = CONFIG_LISTENER,
     .set = config_set_protocol,
     .value = "mqtt",
     .dflt_text = "mqtt",
     .help = "What is spoken on the listener; \\(lqwebsockets\\(rq is refused by this version."},
    {.name = "max_connections",
     .type = CONFIG_COUNT,
     .flags = CONFIG_LISTENER,
     .offset = L_U32(max_connections),
     .dflt = "-1",
     .max = INT32_MAX,
     .help = "Connections the listener may have; -1 or 0: no limit but that of file descriptors."},
    {.name = "max_qos",
     .type = CONFIG_UINT,
     .flags = CONFIG_LISTENER,
     .offset = L_U32(max_qos),
     .dflt = "2",
     .max = 2,
     .help = "The highest QoS clients of the listener may publish with."},
    {.name = "maximum_qos",
     .type = CONFIG_UINT,
     .flags = CONFIG_LISTENER,
     .offset = L_U32(max_qos),
     .dflt = "2",
     .max = 2,
     .help = "The same as max_qos."},
    {.name = "max_topic_alias",
     .type = CONFIG_UINT,
     .flags = CONFIG_LISTENER,
     .offset = L_U32(max_topic_alias),
     .dflt = "10",
     .max = 65535,
     .help = "Topic aliases a client may use towards the broker; 0: none."},
    {.name = "max_topic_alias_broker",
     .type = CONFIG_UINT,
     .flags = CONFIG_LISTENER,
     .offset = L_U32(max_topic_alias_broker),
     .dflt = "10",
     .max = 65535,
     .help = "Topic aliases the broker uses towards a client, if that allows as many; 0: none."},
    {.name = "mount_point",
     .type = CONFIG_SPECIAL,
     .flags = CONFIG_LISTENER | CONFIG_TEXT,
     .set = config_set_mount_point,
     .value = "prefix",
     .dflt_text = "none",
     .help = "Put before all topics and filters of the listener's clients, and taken off what they "
             "receive: they see "
             "the part of the topics that begins like this, and only that."},
    {.name = "use_username_as_clientid",
     .type = CONFIG_BOOL,
     .flags = CONFIG_LISTENER,
     .offset = L_FLAG(use_username_as_clientid),
     .dflt = "false",
     .help = "The user name takes the place of the client id; clients without one are refused."},
    {.name = "accept_protocol_versions",
     .type = CONFIG_SPECIAL,
     .flags = CONFIG_LISTENER,
     .set = config_set_accept_versions,
     .value = "3,4,5",
     .dflt_text = "all",
     .help = "The versions of MQTT that are accepted, with commas: 3 (3.1), 4 (3.1.1), 5 (5.0)."},
    {.name = "listener_durability",
     .type = CONFIG_SPECIAL,
     .flags = CONFIG_LISTENER | CONFIG_OURS,
     .set = config_set_listener_durability,
     .value = "disk|memory",
     .dflt_text = "as durability",
     .help = "durability for the clients of this listener."},
    {.name = "listener_allow_anonymous",
     .type = CONFIG_BOOL,
     .flags = CONFIG_LISTENER | RELOAD,
     .offset = L_FLAG(listener_allow_anonymous),
     .dflt_text = "as allow_anonymous",
     .help = "allow_anonymous for this listener alone, whatever per_listener_settings says."},
};

static const struct config_key obsolete[] = {
    {.name = "allow_duplicate_messages",
     .type = CONFIG_BOOL,
     .flags = NO_EFFECT,
     .help = "a client with overlapping subscriptions gets one copy"},
    {.name = "retry_interval",
     .type = CONFIG_UINT,
     .flags = NO_EFFECT,
     .max = UINT32_MAX,
     .help = "messages are repeated when a client comes back, as the standard says"},
    {.name = "store_clean_interval",
     .type = CONFIG_UINT,
     .flags = NO_EFFECT,
     .max = UINT32_MAX,
     .help = "messages are freed with their last use"},
};

const struct config_group config_groups[] = {
    {"GENERAL", NULL, general, HOW_MANY(general), false},
    {"LIMITS",
     "Everything the broker keeps is bounded. Sizes are in bytes; a suffix k, M or G multiplies by "
     "1024, its square or its cube.",
     limits, HOW_MANY(limits), true},
    {"STORE", NULL, store, HOW_MANY(store), false},
    {"THREADS", NULL, threads, HOW_MANY(threads), false},
    {"LOG", NULL, logging, HOW_MANY(logging), false},
    {"LISTENERS",
     "Without listener, port or bind_address the broker listens on the loopback only, at 127.0.0.1 "
     "and "
     "::1, and anonymous clients may connect.",
     listeners, HOW_MANY(listeners), false},
    {"OBSOLETE", NULL, obsolete, HOW_MANY(obsolete), false},
};
const size_t config_ngroups = HOW_MANY(config_groups);

#define NO_TLS     "this version has no TLS"
#define NO_LOGINS  "this version has no logins and no access rules"
#define NO_WS      "this version has no WebSocket"
#define NO_BRIDGES "this version has no bridges"
#define NO_PLUGINS                                                                                 \
    "there are no plugins here; use password_file and acl_file once this broker has them"

const struct config_refused config_refused_keys[] = {
    {"acl_file", NO_LOGINS},
    {"password_file", NO_LOGINS},
    {"psk_file", NO_TLS},
    {"acl_check_subscribe", NO_LOGINS},
    {"plugin*", NO_PLUGINS},
    {"global_plugin", NO_PLUGINS},
    {"auth_plugin*", NO_PLUGINS},
    {"auth_opt_*", NO_PLUGINS},
    {"http_dir", NO_WS},
    {"websockets_origin", NO_WS},
    {"enable_proxy_protocol", "this version does not read the PROXY protocol"},
    {"cafile", NO_TLS},
    {"capath", NO_TLS},
    {"certfile", NO_TLS},
    {"keyfile", NO_TLS},
    {"tls_version", NO_TLS},
    {"ciphers", NO_TLS},
    {"ciphers_tls1.3", NO_TLS},
    {"dhparamfile", NO_TLS},
    {"crlfile", NO_TLS},
    {"require_certificate", NO_TLS},
    {"use_identity_as_username", NO_TLS},
    {"use_subject_as_username", NO_TLS},
    {"psk_hint", NO_TLS},
    {"tls_engine*",
     "OpenSSL engines are not supported; give the key as a file once this broker has TLS"},
    {"tls_keyform", NO_TLS},
    {"connection", NO_BRIDGES},
    {"address", NO_BRIDGES},
    {"addresses", NO_BRIDGES},
    {"topic", NO_BRIDGES},
    {"bridge_*", NO_BRIDGES},
    {"remote_*", NO_BRIDGES},
    {"local_*", NO_BRIDGES},
    {"clientid", NO_BRIDGES},
    {"username", NO_BRIDGES},
    {"password", NO_BRIDGES},
    {"cleansession", NO_BRIDGES},
    {"idle_timeout", NO_BRIDGES},
    {"keepalive_interval", NO_BRIDGES},
    {"notifications*", NO_BRIDGES},
    {"notification_topic", NO_BRIDGES},
    {"restart_timeout", NO_BRIDGES},
    {"round_robin", NO_BRIDGES},
    {"start_type", NO_BRIDGES},
    {"threshold", NO_BRIDGES},
    {"try_private", NO_BRIDGES},
};
const size_t config_nrefused = HOW_MANY(config_refused_keys);
