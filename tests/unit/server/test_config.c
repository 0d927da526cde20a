/* SPDX-License-Identifier: Apache-2.0 */
/* test_config.c - what the configuration file says is what the broker gets, or the start ends with
 * the place. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "server/config.h"
#include "server/config_table.h"
#include "tests/support/unit.h"

static char err[512];

/* The configuration of a text that has to be good. */
static struct config *good_with(const char *text, const struct config_overrides *o)
{
    struct config *c = NULL;

    if (config_parse(text, strlen(text), "F", o, &c, err, sizeof(err)) != 0) {
        fprintf(stderr, "%s\n", err);
        unit_die(__FILE__, __LINE__, text);
    }
    return c;
}

static struct config *good(const char *text)
{
    return good_with(text, NULL);
}

/* The text has to be refused with exactly this message. */
static void bad(const char *text, const char *message)
{
    struct config *c = NULL;

    CU_ASSERT_EQUAL(config_parse(text, strlen(text), "F", NULL, &c, err, sizeof(err)), 1);
    CU_ASSERT_PTR_NULL(c);
    if (strcmp(err, message) != 0) {
        fprintf(stderr, "expected '%s', got '%s'\n", message, err);
    }
    CU_ASSERT_STRING_EQUAL(err, message);
    config_free(&c);
}

static bool warned(const struct config *c, const char *part)
{
    for (size_t i = 0; i < c->nwarnings; i++) {
        if (strstr(c->warnings[i], part) != NULL) {
            return true;
        }
    }
    return false;
}

static bool is(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static void test_defaults_without_file(void)
{
    struct config *c = NULL;

    CU_ASSERT_EQUAL(config_load(NULL, NULL, &c, err, sizeof(err)), 0);
    UNIT_NEED(c != NULL);
    CU_ASSERT_TRUE(c->local_only);
    CU_ASSERT_EQUAL(c->nlisteners, 2);
    CU_ASSERT_STRING_EQUAL(c->listeners[0].address, "127.0.0.1");
    CU_ASSERT_STRING_EQUAL(c->listeners[1].address, "::1");
    for (size_t i = 0; i < c->nlisteners; i++) {
        CU_ASSERT_EQUAL(c->listeners[i].port, 1883);
        CU_ASSERT_TRUE(c->listeners[i].optional);
        CU_ASSERT_TRUE(c->listeners[i].allow_anonymous);
        CU_ASSERT_TRUE(c->listeners[i].allow_zero_length_clientid);
        CU_ASSERT_STRING_EQUAL(c->listeners[i].auto_id_prefix, "auto-");
        CU_ASSERT_EQUAL(c->listeners[i].max_qos, 2);
        CU_ASSERT_EQUAL(c->listeners[i].max_connections, 0);
        CU_ASSERT_EQUAL(c->listeners[i].max_topic_alias, 10);
        CU_ASSERT_EQUAL(c->listeners[i].accept_protocol_versions, CONFIG_ACCEPT_ALL);
    }
    CU_ASSERT_EQUAL(c->nwarnings, 0);
    CU_ASSERT_FALSE(c->persistence);
    CU_ASSERT_EQUAL(c->max_queued_messages, 1000);
    CU_ASSERT_EQUAL(c->max_queued_bytes, 256u << 20);
    CU_ASSERT_EQUAL(c->max_inflight_messages, 1024);
    CU_ASSERT_EQUAL(c->max_topic_levels, 200);
    CU_ASSERT_EQUAL(c->sys_interval, 10);
    CU_ASSERT_EQUAL(c->persistent_client_expiration, 0);
    CU_ASSERT_TRUE(c->memory_limit > 0);
    CU_ASSERT_TRUE(c->shards >= 1 && c->shards <= CONFIG_MAX_SHARDS);
    CU_ASSERT_TRUE(c->acceptors >= 1 && c->acceptors <= CONFIG_MAX_ACCEPTORS);
    CU_ASSERT_EQUAL(c->log_dest, LOG_TO_STDERR);
    CU_ASSERT_EQUAL(c->log_type, LOGL_DEFAULT);
    CU_ASSERT_EQUAL(c->log_facility, LOG_DAEMON);
    CU_ASSERT_STRING_EQUAL(c->user, "noctule");
    CU_ASSERT_FALSE(c->user_set);
    config_free(&c);
    CU_ASSERT_PTR_NULL(c);
}

static void test_persistence(void)
{
    struct config *c = good("max_inflight_messages 0\n");

    CU_ASSERT_EQUAL(c->max_inflight_messages, 65535);
    CU_ASSERT_TRUE(warned(c, "persistence is not set"));
    config_free(&c);
    c = good("persistence false\n");
    CU_ASSERT_EQUAL(c->nwarnings, 0);
    config_free(&c);
    c = good("persistence true\npersistence_location /var/lib/x y\n");
    CU_ASSERT_EQUAL(c->max_queued_messages, 0);
    CU_ASSERT_STRING_EQUAL(c->persistence_location, "/var/lib/x y");
    CU_ASSERT_EQUAL(c->nwarnings, 0);
    CU_ASSERT_EQUAL(c->listeners[0].durability, CONFIG_DURABILITY_DISK);
    config_free(&c);
    c = good("persistence true\ndurability memory\nlistener 1883\nlistener 1884\n"
             "listener_durability disk\n");
    CU_ASSERT_EQUAL(c->listeners[0].durability, CONFIG_DURABILITY_MEMORY);
    CU_ASSERT_EQUAL(c->listeners[1].durability, CONFIG_DURABILITY_DISK);
    config_free(&c);
    c = good("max_queued_messages 7\npersistence true\n");
    CU_ASSERT_EQUAL(c->max_queued_messages, 7);
    config_free(&c);
}

static void test_types(void)
{
    struct config *c = good("retain_available 0\n"
                            "upgrade_outgoing_qos TRUE\n"
                            "sys_interval 65535\n"
                            "max_queued_bytes 12345678901\n"
                            "max_retained_bytes 3G\n"
                            "max_inflight_bytes 2m\n"
                            "max_connect_size 64k\n"
                            "max_packet_size 20\n"
                            "max_keepalive 10\n"
                            "auto_id_prefix my # prefix\n"
                            "shards 7\nacceptors 3\n"
                            "user root\n"
                            "store_delay 25\n");

    CU_ASSERT_FALSE(c->retain_available);
    CU_ASSERT_TRUE(c->upgrade_outgoing_qos);
    CU_ASSERT_EQUAL(c->sys_interval, 65535);
    CU_ASSERT_EQUAL(c->max_queued_bytes, 12345678901);
    CU_ASSERT_EQUAL(c->max_retained_bytes, (uint64_t)3 << 30);
    CU_ASSERT_EQUAL(c->max_inflight_bytes, 2 << 20);
    CU_ASSERT_EQUAL(c->max_connect_size, 65536);
    CU_ASSERT_EQUAL(c->max_packet_size, 20);
    CU_ASSERT_EQUAL(c->max_keepalive, 10);
    CU_ASSERT_STRING_EQUAL(c->listeners[0].auto_id_prefix, "my # prefix");
    CU_ASSERT_EQUAL(c->shards, 7);
    CU_ASSERT_EQUAL(c->acceptors, 3);
    CU_ASSERT_TRUE(c->user_set);
    CU_ASSERT_EQUAL(c->store_delay, 25);
    config_free(&c);
}

static void test_expiry(void)
{
    static const struct {
        const char *text;
        uint64_t s;
    } rows[] = {{"3h", 3 * 3600},
                {"14d", 14 * 86400},
                {"2w", 14 * 86400},
                {"2m", 60 * 86400},
                {"1y", 365 * 86400}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[64];
        struct config *c;

        snprintf(text, sizeof(text), "persistent_client_expiration %s", rows[i].text);
        c = good(text);
        CU_ASSERT_EQUAL(c->persistent_client_expiration, rows[i].s);
        config_free(&c);
    }
#define EXPIRY "F:1: persistent_client_expiration: "
    bad("persistent_client_expiration 5", EXPIRY "has to be a number and h, d, w, m or y");
    bad("persistent_client_expiration 0d", EXPIRY "has to be a number and h, d, w, m or y");
    bad("persistent_client_expiration w", EXPIRY "has to be a number and h, d, w, m or y");
    bad("persistent_client_expiration 999999y", EXPIRY "has to be 0 to 4294967295");
}

static void test_errors_name_the_place(void)
{
    bad("\n# x\nfoo bar\n", "F:3: foo: unknown key");
    bad("persistence", "F:1: persistence: has no value");
    bad("persistence   # true", "F:1: persistence: has no value");
    bad("persistence maybe", "F:1: persistence: 'maybe' is neither true nor false");
    bad("persistence true false", "F:1: persistence: 'true false' is neither true nor false");
    bad("sys_interval x", "F:1: sys_interval: 'x' is not a number");
    bad("sys_interval -1", "F:1: sys_interval: '-1' is not a number");
    bad("sys_interval 65536", "F:1: sys_interval: has to be 0 to 65535");
    bad("sys_interval 99999999999999999999",
        "F:1: sys_interval: '99999999999999999999' is not a number");
    bad("max_queued_bytes 5x", "F:1: max_queued_bytes: '5x' is not a size");
    bad("max_queued_bytes k", "F:1: max_queued_bytes: 'k' is not a size");
    bad("max_connect_size 1G", "F:1: max_connect_size: has to be 64 to 268435460");
    bad("max_connect_size 18446744073709551615G",
        "F:1: max_connect_size: has to be 64 to 268435460");
    bad("max_packet_size 19", "F:1: max_packet_size: has to be 0 or 20 to 268435460");
    bad("max_keepalive 9", "F:1: max_keepalive: has to be 0 or 10 to 65535");
    bad("shards 257", "F:1: shards: has to be 0 to 256");
    bad("pid_file a\npid_file b", "F:2: pid_file: is given twice");
    bad("auto_id_prefix \xff", "F:1: auto_id_prefix: is not valid UTF-8");
    bad("auto_id_prefix a\x1b[1m", "F:1: auto_id_prefix: has control characters in it");
    bad("fo\x1bo bar", "F:1: fo?o: unknown key");
    bad("include_dir /tmp", "F:1: include_dir: /tmp: No such file or directory");
    bad("log_dest tape",
        "F:1: log_dest: 'tape' is none of stderr, stdout, syslog, file PATH, none");
    bad("log_dest file", "F:1: log_dest: file needs a path");
    bad("log_dest file a\nlog_dest file b", "F:2: log_dest: one file at most");
    bad("log_type loud", "F:1: log_type: 'loud' is no type of log line");
    bad("log_facility 8", "F:1: log_facility: has to be 0 to 7");
}

static void test_nul_byte(void)
{
    static const char text[] = "persistence true\nuser a\0b\n";
    struct config *c = NULL;

    CU_ASSERT_EQUAL(config_parse(text, sizeof(text) - 1, "F", NULL, &c, err, sizeof(err)), 1);
    CU_ASSERT_STRING_EQUAL(err, "F:2: there is a NUL byte in the line");
}

static void test_short_error_buffer(void)
{
    char tiny[8];
    struct config *c = NULL;

    CU_ASSERT_EQUAL(config_parse("foo bar", 7, "F", NULL, &c, tiny, sizeof(tiny)), 1);
    CU_ASSERT_STRING_EQUAL(tiny, "F:1: fo");
    CU_ASSERT_EQUAL(config_parse("foo bar", 7, "F", NULL, &c, NULL, 0), 1);
}

/* An ignored password file is an open door: what is not there is refused by name. */
static void test_refused_keys(void)
{
    static const char *const keys[] = {"password_file",
                                       "acl_file",
                                       "psk_file",
                                       "cafile",
                                       "certfile",
                                       "keyfile",
                                       "tls_version",
                                       "ciphers_tls1.3",
                                       "http_dir",
                                       "plugin",
                                       "plugin_opt_x",
                                       "auth_plugin",
                                       "auth_opt_db",
                                       "connection",
                                       "address",
                                       "topic",
                                       "bridge_insecure",
                                       "remote_password",
                                       "local_username",
                                       "crlfile",
                                       "tls_engine",
                                       "require_certificate",
                                       "enable_proxy_protocol"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        char text[64];
        char start[64];
        struct config *c = NULL;

        snprintf(text, sizeof(text), "%s x", keys[i]);
        snprintf(start, sizeof(start), "F:1: %s: ", keys[i]);
        CU_ASSERT_EQUAL(config_parse(text, strlen(text), "F", NULL, &c, err, sizeof(err)), 1);
        CU_ASSERT_EQUAL(strncmp(err, start, strlen(start)), 0);
        CU_ASSERT_PTR_NULL(strstr(err, "unknown key"));
    }
    bad("protocol websockets", "F:1: protocol: this version has no WebSocket");
    bad("protocol telnet", "F:1: protocol: has to be mqtt");
}

static void test_no_effect_said_once(void)
{
    struct config *c = good("persistence false\nautosave_interval 5\nautosave_interval 6\n"
                            "retry_interval 20\nlog_dest topic\n");

    CU_ASSERT_EQUAL(c->nwarnings, 3);
    CU_ASSERT_TRUE(warned(c, "F:2: autosave_interval: accepted without effect"));
    CU_ASSERT_TRUE(warned(c, "F:4: retry_interval: accepted without effect"));
    CU_ASSERT_TRUE(warned(c, "F:5: log_dest: this version does not log to 'topic'"));
    CU_ASSERT_EQUAL(c->log_dest, LOG_TO_STDERR);
    config_free(&c);
    bad("autosave_interval often", "F:1: autosave_interval: 'often' is not a number");
}

static void test_lines(void)
{
    struct config *c = good("\xef\xbb\xbfpersistence true\r\n"
                            "\r\n"
                            "   # a comment\r\n"
                            "\tsys_interval\t 5 \t# why\r\n"
                            "pid_file /run/a b#c # d  \r\n"
                            "max_keepalive 60");

    CU_ASSERT_TRUE(c->persistence);
    CU_ASSERT_EQUAL(c->sys_interval, 5);
    CU_ASSERT_STRING_EQUAL(c->pid_file, "/run/a b#c # d");
    CU_ASSERT_EQUAL(c->max_keepalive, 60);
    config_free(&c);
    c = good("");
    CU_ASSERT_EQUAL(c->nlisteners, 2);
    config_free(&c);
}

static void test_listeners(void)
{
    struct config *c = good("listener 1883\n"
                            "max_connections 5\n"
                            "maximum_qos 1\n"
                            "listener 1884 localhost\n"
                            "socket_domain ipv6\n"
                            "bind_interface lo\n"
                            "accept_protocol_versions 4, 5\n"
                            "max_connections -1\n"
                            "mount_point a b/\n"
                            "use_username_as_clientid true\n"
                            "listener 0 /run/noctule/a b.sock\n"
                            "max_topic_alias 0\n"
                            "max_topic_alias_broker 65535\n");

    CU_ASSERT_FALSE(c->local_only);
    CU_ASSERT_EQUAL_FATAL(c->nlisteners, 3);
    CU_ASSERT_EQUAL(c->listeners[0].port, 1883);
    CU_ASSERT_PTR_NULL(c->listeners[0].address);
    CU_ASSERT_EQUAL(c->listeners[0].max_connections, 5);
    CU_ASSERT_EQUAL(c->listeners[0].max_qos, 1);
    CU_ASSERT_FALSE(c->listeners[0].optional);
    CU_ASSERT_FALSE(c->listeners[0].allow_anonymous);
    CU_ASSERT_STRING_EQUAL(c->listeners[1].address, "localhost");
    CU_ASSERT_EQUAL(c->listeners[1].socket_domain, AF_INET6);
    CU_ASSERT_STRING_EQUAL(c->listeners[1].bind_interface, "lo");
    CU_ASSERT_EQUAL(c->listeners[1].accept_protocol_versions, CONFIG_ACCEPT_V4 | CONFIG_ACCEPT_V5);
    CU_ASSERT_EQUAL(c->listeners[1].max_connections, 0);
    CU_ASSERT_EQUAL(c->listeners[1].max_qos, 2);
    CU_ASSERT_STRING_EQUAL(c->listeners[1].mount_point, "a b/");
    CU_ASSERT_TRUE(c->listeners[1].use_username_as_clientid);
    CU_ASSERT_EQUAL(c->listeners[2].port, 0);
    CU_ASSERT_STRING_EQUAL(c->listeners[2].unix_path, "/run/noctule/a b.sock");
    CU_ASSERT_PTR_NULL(c->listeners[2].address);
    CU_ASSERT_EQUAL(c->listeners[2].max_topic_alias, 0);
    CU_ASSERT_EQUAL(c->listeners[2].max_topic_alias_broker, 65535);
    config_free(&c);
}

static void test_listener_errors(void)
{
    char path[256] = "listener 0 /";

    bad("listener", "F:1: listener: has no value");
    bad("listener x", "F:1: listener: 'x' is not a port number");
    bad("listener 65536", "F:1: listener: '65536' is not a port number");
    bad("listener 0", "F:1: listener: port 0 needs the path of a unix socket");
    bad("listener 0 127.0.0.1", "F:1: listener: port 0 needs the path of a unix socket");
    bad("listener 1 a b", "F:1: listener: one address at most");
    bad("listener 1 a\nlistener 1\nlistener 1 a", "F:3: listener: is given twice");
    bad("port 0", "F:1: port: has to be 1 to 65535");
    bad("socket_domain ipx", "F:1: socket_domain: has to be ipv4 or ipv6");
    bad("max_qos 3", "F:1: max_qos: has to be 0 to 2");
    bad("max_connections -2", "F:1: max_connections: '-2' is not a number");
    bad("accept_protocol_versions 6", "F:1: accept_protocol_versions: '6' is none of 3, 4, 5");
    bad("accept_protocol_versions ,", "F:1: accept_protocol_versions: has to name 3, 4 or 5");
    bad("mount_point a/#",
        "F:1: mount_point: has to be a topic without wildcards that does not begin with $");
    bad("mount_point $SYS/a",
        "F:1: mount_point: has to be a topic without wildcards that does not begin with $");
    memset(path + strlen(path), 'a', CONFIG_UNIX_PATH_MAX);
    bad(path, "F:1: listener: the path is longer than 107 bytes");
}

static void test_default_listener(void)
{
    struct config *c = good("bind_address 10.0.0.1\nmax_connections 9\nport 1999\nlistener 1884\n");

    CU_ASSERT_EQUAL_FATAL(c->nlisteners, 2);
    CU_ASSERT_STRING_EQUAL(c->listeners[0].address, "10.0.0.1");
    CU_ASSERT_EQUAL(c->listeners[0].port, 1999);
    CU_ASSERT_EQUAL(c->listeners[0].max_connections, 9);
    CU_ASSERT_FALSE(c->listeners[0].allow_anonymous);
    CU_ASSERT_EQUAL(c->listeners[1].port, 1884);
    CU_ASSERT_EQUAL(c->listeners[1].max_connections, 0);
    config_free(&c);

    c = good("max_connections 9\nlistener 1884\n");
    CU_ASSERT_EQUAL(c->nlisteners, 1);
    CU_ASSERT_TRUE(warned(c, "max_connections: stands before the first listener line"));
    config_free(&c);

    c = good("max_connections 9\nsocket_domain ipv4\n"); /* still the loopback, with that limit */
    CU_ASSERT_EQUAL_FATAL(c->nlisteners, 1);
    CU_ASSERT_STRING_EQUAL(c->listeners[0].address, "127.0.0.1");
    CU_ASSERT_EQUAL(c->listeners[0].max_connections, 9);
    CU_ASSERT_FALSE(c->listeners[0].optional);
    config_free(&c);
}

static void test_command_line_ports(void)
{
    struct config_overrides o = {.ports = {2000, 2001}, .nports = 2};
    struct config *c = good_with("persistence false\n", &o);

    CU_ASSERT_TRUE(c->local_only);
    CU_ASSERT_EQUAL_FATAL(c->nlisteners, 4);
    CU_ASSERT_EQUAL(c->listeners[0].port, 2000);
    CU_ASSERT_EQUAL(c->listeners[3].port, 2001);
    CU_ASSERT_TRUE(c->listeners[3].allow_anonymous);
    config_free(&c);

    o.nports = 1;
    c = good_with("port 1999\n", &o);
    CU_ASSERT_EQUAL_FATAL(c->nlisteners, 1);
    CU_ASSERT_EQUAL(c->listeners[0].port, 2000);
    CU_ASSERT_FALSE(c->listeners[0].allow_anonymous);
    config_free(&c);

    c = good_with("listener 1999\nlistener 2000\n", &o);
    CU_ASSERT_EQUAL_FATAL(c->nlisteners, 2);
    CU_ASSERT_EQUAL(c->listeners[0].port, 1999);
    CU_ASSERT_EQUAL(c->listeners[1].port, 2000);
    CU_ASSERT_TRUE(warned(c, "-p 2000: has no effect: the configuration file names its listeners"));
    config_free(&c);

    c = good_with("port 1998\nlistener 2000\n", &o);
    CU_ASSERT_EQUAL_FATAL(c->nlisteners, 2);
    CU_ASSERT_EQUAL(c->listeners[0].port, 1998);
    CU_ASSERT_EQUAL(c->listeners[1].port, 2000);
    CU_ASSERT_TRUE(warned(c, "-p 2000: has no effect"));
    config_free(&c);
}

static void check_anonymous(const char *text, bool first, bool second)
{
    struct config *c = good(text);

    CU_ASSERT_EQUAL_FATAL(c->nlisteners, 2);
    CU_ASSERT_EQUAL(c->listeners[0].allow_anonymous, first);
    CU_ASSERT_EQUAL(c->listeners[1].allow_anonymous, second);
    config_free(&c);
}

static void test_anonymous(void)
{
    check_anonymous("allow_anonymous false\n", false, false);
    check_anonymous("listener 1\nlistener 2\n", false, false);
    check_anonymous("listener 1\nlistener 2\nallow_anonymous true\n", true, true);
    check_anonymous("per_listener_settings true\nlistener 1\nlistener 2\nallow_anonymous true\n",
                    false, true);
    check_anonymous("per_listener_settings true\nlistener 1\nallow_anonymous true\nlistener 2\n",
                    true, false);
    check_anonymous("listener 1\nlistener_allow_anonymous true\nlistener 2\n", true, false);
    check_anonymous(
        "allow_anonymous true\nlistener 1\nlistener_allow_anonymous false\nlistener 2\n", false,
        true);
    bad("allow_anonymous true\nper_listener_settings true",
        "F:2: per_listener_settings: has to come before allow_anonymous, "
        "allow_zero_length_clientid and auto_id_prefix");
}

static void test_per_listener_ids(void)
{
    struct config *c = good("per_listener_settings true\n"
                            "listener 1\nauto_id_prefix one-\nallow_zero_length_clientid false\n"
                            "listener 2\n");

    CU_ASSERT_EQUAL_FATAL(c->nlisteners, 2);
    CU_ASSERT_STRING_EQUAL(c->listeners[0].auto_id_prefix, "one-");
    CU_ASSERT_FALSE(c->listeners[0].allow_zero_length_clientid);
    CU_ASSERT_STRING_EQUAL(c->listeners[1].auto_id_prefix, "auto-");
    CU_ASSERT_TRUE(c->listeners[1].allow_zero_length_clientid);
    config_free(&c);

    c = good("auto_id_prefix all-\nlistener 1\nlistener 2\nallow_zero_length_clientid false\n");
    CU_ASSERT_STRING_EQUAL(c->listeners[0].auto_id_prefix, "all-");
    CU_ASSERT_FALSE(c->listeners[0].allow_zero_length_clientid);
    config_free(&c);
}

static void test_log(void)
{
    struct config_overrides verbose = {.verbose = true};
    struct config_overrides daemon = {.daemon = true};
    struct config *c = good("log_dest syslog\nlog_dest file /tmp/a b.log\nlog_type error\n"
                            "log_type subscribe\nlog_timestamp false\nlog_facility 5\n"
                            "log_timestamp_format %H:%M\n");
    struct log_options o = config_log_options(c);

    CU_ASSERT_EQUAL(o.dests, LOG_TO_SYSLOG | LOG_TO_FILE);
    CU_ASSERT_EQUAL(o.levels, LOGL_ERROR | LOGL_SUBSCRIBE);
    CU_ASSERT_STRING_EQUAL(o.file, "/tmp/a b.log");
    CU_ASSERT_FALSE(o.timestamp);
    CU_ASSERT_STRING_EQUAL(o.timestamp_format, "%H:%M");
    CU_ASSERT_EQUAL(o.facility, LOG_LOCAL5);
    config_free(&c);

    c = good("log_dest none\nlog_dest stdout\nlog_type none\n");
    CU_ASSERT_EQUAL(c->log_dest, 0);
    CU_ASSERT_EQUAL(c->log_type, 0);
    config_free(&c);

    c = good_with("log_dest none\nlog_type error\n", &verbose);
    CU_ASSERT_EQUAL(c->log_dest, LOG_TO_STDERR);
    CU_ASSERT_EQUAL(c->log_type, LOGL_ALL);
    config_free(&c);

    c = good_with("", &daemon);
    CU_ASSERT_EQUAL(c->log_dest, LOG_TO_SYSLOG);
    config_free(&c);
}

/* --- files --- */

static char dir[] = "/tmp/noctule-config-XXXXXX";

static void put(const char *name, const char *text)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "we");
    UNIT_NEED(f != NULL);
    UNIT_NEED(fputs(text, f) >= 0);
    UNIT_NEED(fclose(f) == 0);
}

static void drop(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    UNIT_NEED(remove(path) == 0);
}

static int load(const char *name, struct config **c)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return config_load(path, NULL, c, err, sizeof(err));
}

/* A main file that includes two files wherever the directory is. */
static void put_main(const char *after)
{
    char text[256];

    snprintf(text, sizeof(text), "listener 1\ninclude_dir %s/d\n%s", dir, after);
    put("main", text);
}

static void make_dirs(void)
{
    char path[64];

    UNIT_NEED(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/d", dir);
    UNIT_NEED(mkdir(path, 0700) == 0);
}

static void test_include_dir(void)
{
    struct config *c = NULL;

    make_dirs();
    put("d/b.conf", "sys_interval 3\nlistener 23\n");
    put("d/B.conf", "sys_interval 2\nlistener 22\n");
    put("d/a.conf", "sys_interval 1\nlistener 21\n");
    put("d/c.txt", "this is not read\n");
    put_main("max_connections 4\n");
    CU_ASSERT_EQUAL(load("main", &c), 0);
    UNIT_NEED(c != NULL);
    CU_ASSERT_EQUAL(c->sys_interval, 3); /* a, B, b: the last wins */
    CU_ASSERT_EQUAL_FATAL(c->nlisteners, 4);
    CU_ASSERT_EQUAL(c->listeners[1].port, 21);
    CU_ASSERT_EQUAL(c->listeners[2].port, 22);
    CU_ASSERT_EQUAL(c->listeners[3].port, 23);
    CU_ASSERT_EQUAL(c->listeners[0].max_connections,
                    4); /* the main file is still at its listener */
    config_free(&c);

    put("d/B.conf", "\nsys_interval x\n");
    CU_ASSERT_EQUAL(load("main", &c), 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err, "/d/B.conf:2: sys_interval: 'x' is not a number"));

    put("d/B.conf", "password_file x\n");
    CU_ASSERT_EQUAL(load("main", &c), 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err, "/d/B.conf:1: password_file: "));

    put("d/B.conf", "include_dir /tmp\n");
    CU_ASSERT_EQUAL(load("main", &c), 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err, "/d/B.conf:1: include_dir: not in an included file"));

    put_main("foo bar\n");
    put("d/B.conf", "");
    CU_ASSERT_EQUAL(load("main", &c), 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err, "/main:3: foo: unknown key"));
    drop("d/a.conf");
    drop("d/b.conf");
    drop("d/B.conf");
    drop("d/c.txt");
    drop("d");
    put_main("");
    CU_ASSERT_EQUAL(load("main", &c), 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err, "/main:2: include_dir: "));
    CU_ASSERT_PTR_NOT_NULL(strstr(err, "No such file or directory"));
    drop("main");
    rmdir(dir);
}

/* The main file's folder in memory; the included file is what each row says. */
static int parse_included(const char *main, const char *included, struct config **c)
{
    const struct config_file files[] = {{"main", main, strlen(main)},
                                        {"d/b.conf", included, strlen(included)},
                                        {"d/a.conf", "sys_interval 1\n", 15},
                                        {"d/a.txt", "not read\n", 9}};

    return config_parse_files(files, 4, NULL, c, err, sizeof(err));
}

/* Whatever is wrong in an included file is told with its place there; the including line, which is
 * still being set, takes no harm. */
static void test_errors_in_an_included_file(void)
{
    static const struct {
        const char *text;
        const char *message;
    } rows[] = {
        {"foo bar\n", "d/b.conf:1: foo: unknown key"},
        {"\n\nsys_intervall 3\n", "d/b.conf:3: sys_intervall: unknown key"},
        {"password_file x\n", "d/b.conf:1: password_file: "},
        {"persistence\n", "d/b.conf:1: persistence: has no value"},
        {"sys_interval x\n", "d/b.conf:1: sys_interval: 'x' is not a number"},
        {"include_dir d\n", "d/b.conf:1: include_dir: not in an included file"},
        {"listener 1\nlistener 1\n", "d/b.conf:2: listener: is given twice"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct config *c = NULL;

        CU_ASSERT_EQUAL(parse_included("listener 2\ninclude_dir d\n", rows[i].text, &c), 1);
        CU_ASSERT_PTR_NULL(c);
        if (strncmp(err, rows[i].message, strlen(rows[i].message)) != 0) {
            fprintf(stderr, "expected '%s', got '%s'\n", rows[i].message, err);
        }
        CU_ASSERT_EQUAL(strncmp(err, rows[i].message, strlen(rows[i].message)), 0);
    }
}

static void test_folder_in_memory(void)
{
    struct config *c = NULL;

    CU_ASSERT_EQUAL(parse_included("include_dir d\nsys_interval x\n", "# nothing\n", &c), 1);
    CU_ASSERT_STRING_EQUAL(err, "main:2: sys_interval: 'x' is not a number");
    CU_ASSERT_EQUAL(parse_included("include_dir e\n", "", &c), 1);
    CU_ASSERT_STRING_EQUAL(err, "main:1: include_dir: e: No such file or directory");
    CU_ASSERT_EQUAL(parse_included("sys_interval 9\ninclude_dir d\n", "listener 7\n", &c), 0);
    UNIT_NEED(c != NULL);
    CU_ASSERT_EQUAL(c->sys_interval, 1);
    CU_ASSERT_EQUAL(c->listeners[0].port, 7);
    config_free(&c);
}

static void test_unreadable_files(void)
{
    struct config *c = NULL;

    CU_ASSERT_EQUAL(config_load("/nonexistent/x", NULL, &c, err, sizeof(err)), 1);
    CU_ASSERT_STRING_EQUAL(err, "/nonexistent/x: No such file or directory");
    CU_ASSERT_EQUAL(config_load("/", NULL, &c, err, sizeof(err)), 1);
    CU_ASSERT_STRING_EQUAL(err, "/: Is a directory");
    CU_ASSERT_EQUAL(config_load("/dev/zero", NULL, &c, err, sizeof(err)), 1);
    CU_ASSERT_STRING_EQUAL(err, "/dev/zero: File too large");
}

/* --- reload --- */

static void test_reload(void)
{
    struct config *running = good("shards 2\nlistener 1\nmount_point a\nlistener 2\nuser x\n"
                                  "log_dest stdout\n");
    struct config *loaded = good("shards 3\nlistener 2\nmount_point b\nsys_interval 7\n"
                                 "allow_anonymous true\nlistener 5\nlistener 1\n"
                                 "max_connections 8\n");
    char names[200];

    CU_ASSERT_TRUE(config_keep_running(running, loaded, names, sizeof(names)));
    CU_ASSERT_STRING_EQUAL(names, "user, shards, log_dest, max_connections, mount_point, "
                                  "mount_point, listener");
    CU_ASSERT_EQUAL(loaded->shards, 2);
    CU_ASSERT_STRING_EQUAL(loaded->user, "x");
    CU_ASSERT_EQUAL(loaded->log_dest, LOG_TO_STDOUT);
    CU_ASSERT_EQUAL(loaded->sys_interval, 7);
    CU_ASSERT_EQUAL_FATAL(loaded->nlisteners, 2);
    CU_ASSERT_EQUAL(loaded->listeners[0].port, 1);
    CU_ASSERT_EQUAL(loaded->listeners[0].max_connections, 0);
    CU_ASSERT_TRUE(is(loaded->listeners[0].mount_point, "a"));
    CU_ASSERT_EQUAL(loaded->listeners[1].port, 2);
    CU_ASSERT_TRUE(is(loaded->listeners[1].mount_point, NULL));
    CU_ASSERT_TRUE(loaded->listeners[0].allow_anonymous);
    CU_ASSERT_TRUE(loaded->listeners[1].allow_anonymous);
    config_free(&running);
    CU_ASSERT_STRING_EQUAL(loaded->user, "x"); /* its own copy */
    config_free(&loaded);
}

static void test_reload_of_the_same(void)
{
    static const char text[] = "listener 1\nlistener 0 /x\nmount_point a\npid_file p\n";
    struct config *running = good(text);
    struct config *loaded = good(text);
    char names[200] = "?";

    CU_ASSERT_TRUE(config_keep_running(running, loaded, names, sizeof(names)));
    CU_ASSERT_STRING_EQUAL(names, "");
    config_free(&running);
    config_free(&loaded);
}

/* Every key of the tables is in the manual, and every default passes its own range. */
static void test_reference(void)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    UNIT_NEED(f != NULL);
    config_print_reference(f);
    UNIT_NEED(fclose(f) == 0);
    for (size_t g = 0; g < config_ngroups; g++) {
        for (size_t i = 0; i < config_groups[g].nkeys; i++) {
            const struct config_key *k = &config_groups[g].keys[i];
            char head[96];
            char line[128];

            snprintf(head, sizeof(head), "\n\\fB%s\\fR ", k->name);
            CU_ASSERT_PTR_NOT_NULL(strstr(text, head));
            CU_ASSERT_TRUE(k->help != NULL && k->help[0] != '\0');
            if (k->dflt != NULL) {
                struct config *c;

                snprintf(line, sizeof(line), "%s %s\n", k->name, k->dflt);
                c = good(line);
                config_free(&c);
            }
        }
    }
    free(text);
}

UNIT_TESTS = {
    UNIT_TEST(defaults_without_file)
    UNIT_TEST(persistence)
    UNIT_TEST(types)
    UNIT_TEST(expiry)
    UNIT_TEST(errors_name_the_place)
    UNIT_TEST(nul_byte)
    UNIT_TEST(short_error_buffer)
    UNIT_TEST(refused_keys)
    UNIT_TEST(no_effect_said_once)
    UNIT_TEST(lines)
    UNIT_TEST(listeners)
    UNIT_TEST(listener_errors)
    UNIT_TEST(default_listener)
    UNIT_TEST(command_line_ports)
    UNIT_TEST(anonymous)
    UNIT_TEST(per_listener_ids)
    UNIT_TEST(log)
    UNIT_TEST(include_dir)
    UNIT_TEST(errors_in_an_included_file)
    UNIT_TEST(folder_in_memory)
    UNIT_TEST(unreadable_files)
    UNIT_TEST(reload)
    UNIT_TEST(reload_of_the_same)
    UNIT_TEST(reference)
UNIT_TESTS_END
