/* SPDX-License-Identifier: Apache-2.0 */
/* config_set.c - from the text of one value to its field: by type, and for the keys that are
 * special. */
#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <syslog.h>

#include "server/codec/utf8.h"
#include "server/config_parser.h"

/* Decimal digits only; false on anything else or more than 64 bits. */
static bool to_number(const char *s, uint64_t *out)
{
    uint64_t n = 0;

    if (*s == '\0') {
        return false;
    }
    for (; *s != '\0'; s++) {
        unsigned digit = (unsigned)(unsigned char)*s - '0';

        if (digit > 9 || n > (UINT64_MAX - digit) / 10) {
            return false;
        }
        n = n * 10 + digit;
    }
    *out = n;
    return true;
}

/* Takes a unit off the end of the text; 0 if there is none of `units`. */
static char cut_unit(char *value, const char *units)
{
    size_t n = strlen(value);
    char unit;

    if (n < 2 || strchr(units, value[n - 1]) == NULL) {
        return 0;
    }
    unit = value[n - 1];
    value[n - 1] = '\0';
    return unit;
}

static bool in_range(struct config_parser *p, uint64_t n, uint64_t factor, uint64_t *out)
{
    uint64_t min = p->at.key->min;
    uint64_t max = p->at.key->max;

    if (n > max / factor || n * factor < min) {
        return config_fail(p, "has to be %llu to %llu", (unsigned long long)min,
                           (unsigned long long)max);
    }
    *out = n * factor;
    return true;
}

static bool parse_number(struct config_parser *p, const char *value, uint64_t *out)
{
    uint64_t n;

    if (!to_number(value, &n)) {
        return config_fail(p, "'%s' is not a number", value);
    }
    return in_range(p, n, 1, out);
}

static bool parse_bytes(struct config_parser *p, char *value, uint64_t *out)
{
    uint64_t factor = 1;
    uint64_t n;

    switch (cut_unit(value, "kKmMgG")) {
    case 'k':
    case 'K':
        factor = (uint64_t)1 << 10;
        break;
    case 'm':
    case 'M':
        factor = (uint64_t)1 << 20;
        break;
    case 'g':
    case 'G':
        factor = (uint64_t)1 << 30;
        break;
    default:
        break;
    }
    if (!to_number(value, &n)) {
        return config_fail(p, "'%s' is not a size", value);
    }
    return in_range(p, n, factor, out);
}

static bool parse_expiry(struct config_parser *p, char *value, uint64_t *out)
{
    uint64_t days = 0;
    uint64_t n;
    char unit = cut_unit(value, "hdwmy");

    switch (unit) {
    case 'd':
        days = 1;
        break;
    case 'w':
        days = 7;
        break;
    case 'm':
        days = 30;
        break;
    case 'y':
        days = 365;
        break;
    default:
        break;
    }
    if (unit == 0 || !to_number(value, &n) || n == 0) {
        return config_fail(p, "has to be a number and h, d, w, m or y");
    }
    return in_range(p, n, unit == 'h' ? 3600 : days * 86400, out);
}

static bool parse_bool(struct config_parser *p, const char *value, bool *out)
{
    bool yes = strcasecmp(value, "true") == 0 || strcmp(value, "1") == 0;

    if (!yes && strcasecmp(value, "false") != 0 && strcmp(value, "0") != 0) {
        return config_fail(p, "'%s' is neither true nor false", value);
    }
    *out = yes;
    return true;
}

static bool replace_string(struct config_parser *p, char **field, const char *value)
{
    char *copy = strdup(value);

    if (copy == NULL) {
        return config_fail(p, "out of memory");
    }
    free(*field);
    *field = copy;
    return true;
}

static bool check_utf8(struct config_parser *p, const char *value)
{
    const unsigned found = utf8_scan(span_str(value)) & (UTF8_ILL_FORMED | UTF8_CONTROL);

    if (strlen(value) > UINT16_MAX / 2) { /* and more follows it in what a packet holds 65,535 of */
        return config_fail(p, "is longer than %d bytes", UINT16_MAX / 2);
    }
    if (found == 0) {
        return true;
    }
    return config_fail(p, (found & UTF8_ILL_FORMED) != 0 ? "is not valid UTF-8"
                                                         : "has control characters in it");
}

/* The memory and the "named already" mark that p->at.key stands for at this place of the file. */
static void *target(struct config_parser *p, bool **seen)
{
    const struct config_key *key = p->at.key;

    if ((key->flags & CONFIG_LISTENER) != 0) {
        *seen = &p->scopes[p->cur].seen[p->at.ordinal];
        return (char *)&p->scopes[p->cur].l + key->offset;
    }
    if ((key->flags & CONFIG_PER_LISTENER) != 0 && p->c->per_listener_settings) {
        *seen = &p->scopes[p->cur].seen[p->at.ordinal];
        return (char *)&p->scopes[p->cur].l + key->listener_offset;
    }
    *seen = &p->seen[p->at.ordinal];
    return (char *)p->c + key->offset;
}

static bool set_string(struct config_parser *p, char **field, bool seen, const char *value)
{
    if (seen) {
        return config_fail(p, "is given twice");
    }
    if ((p->at.key->flags & CONFIG_UTF8) != 0 && !check_utf8(p, value)) {
        return false;
    }
    return replace_string(p, field, value);
}

/* A key without a field: its value has to be of its type all the same. */
static bool set_nothing(struct config_parser *p, const char *value)
{
    bool flag;
    uint64_t n;
    bool ok = true;

    if (p->at.key->type == CONFIG_BOOL) {
        ok = parse_bool(p, value, &flag);
    } else if (p->at.key->type == CONFIG_UINT) {
        ok = parse_number(p, value, &n);
    }
    if (ok && !p->seen[p->at.ordinal]) {
        ok = config_warn(p, "%s:%u: %s: accepted without effect: %s", p->at.file, p->at.line,
                         p->at.key->name, p->at.key->help);
    }
    p->seen[p->at.ordinal] = true;
    return ok;
}

static bool set_number(struct config_parser *p, void *field, char *value)
{
    uint64_t n = 0;
    bool ok;

    switch (p->at.key->type) {
    case CONFIG_COUNT:
        ok = strcmp(value, "-1") == 0 || parse_number(p, value, &n);
        break;
    case CONFIG_BYTES32:
    case CONFIG_BYTES:
        ok = parse_bytes(p, value, &n);
        break;
    case CONFIG_EXPIRY:
        ok = parse_expiry(p, value, &n);
        break;
    default:
        ok = parse_number(p, value, &n);
        break;
    }
    if (ok && (p->at.key->type == CONFIG_UINT64 || p->at.key->type == CONFIG_BYTES ||
               p->at.key->type == CONFIG_EXPIRY)) {
        memcpy(field, &n, sizeof(n));
    } else if (ok) {
        uint32_t small = (uint32_t)n; /* the rows' ranges end below 2^32 */

        memcpy(field, &small, sizeof(small));
    }
    return ok;
}

bool config_set(struct config_parser *p, char *value)
{
    const struct config_key *key = p->at.key;
    bool *seen;
    void *field;
    bool ok;

    if ((key->flags & CONFIG_NO_EFFECT) != 0) {
        return set_nothing(p, value);
    }
    field = target(p, &seen);
    switch (key->type) {
    case CONFIG_BOOL:
        ok = parse_bool(p, value, field);
        break;
    case CONFIG_STRING:
        ok = set_string(p, field, *seen, value);
        break;
    case CONFIG_SPECIAL:
        ok = key->set(p, value);
        assert(p->at.key == key);
        field = target(p, &seen); /* a new listener moves the scopes */
        break;
    default:
        ok = set_number(p, field, value);
        break;
    }
    *seen = true;
    p->per_listener_key_seen |= (key->flags & CONFIG_PER_LISTENER) != 0;
    return ok;
}

/* --- special keys --- */

bool config_set_per_listener(struct config_parser *p, char *value)
{
    bool on = false;

    if (!parse_bool(p, value, &on)) {
        return false;
    }
    if (on != p->c->per_listener_settings && p->per_listener_key_seen) {
        return config_fail(p, "has to come before allow_anonymous, allow_zero_length_clientid and "
                              "auto_id_prefix");
    }
    p->c->per_listener_settings = on;
    return true;
}

static bool parse_port(struct config_parser *p, const char *value, uint16_t *out)
{
    uint64_t n;

    if (!to_number(value, &n) || n > UINT16_MAX) {
        return config_fail(p, "'%s' is not a port number", value);
    }
    *out = (uint16_t)n;
    return true;
}

static bool same_place(const struct listener_config *l, uint16_t port, const char *where)
{
    const char *mine = l->unix_path != NULL ? l->unix_path : l->address;

    if (l->port != port || (mine == NULL) != (where == NULL)) {
        return false;
    }
    return mine == NULL || strcmp(mine, where) == 0;
}

static bool check_unix_path(struct config_parser *p, const char *path)
{
    unsigned char addr[sizeof(struct in6_addr)];

    if (path == NULL || inet_pton(AF_INET, path, addr) == 1 ||
        inet_pton(AF_INET6, path, addr) == 1) {
        return config_fail(p, "port 0 needs the path of a unix socket");
    }
    if (strlen(path) > CONFIG_UNIX_PATH_MAX) {
        return config_fail(p, "the path is longer than %d bytes", CONFIG_UNIX_PATH_MAX);
    }
    return true;
}

bool config_set_listener(struct config_parser *p, char *value)
{
    char *where = value + strcspn(value, " \t");
    struct listener_config *l;
    uint16_t port = 0;

    if (*where != '\0') {
        *where++ = '\0';
        where += strspn(where, " \t");
    } else {
        where = NULL;
    }
    if (!parse_port(p, value, &port) || (port == 0 && !check_unix_path(p, where))) {
        return false;
    }
    if (port != 0 && where != NULL && strpbrk(where, " \t") != NULL) {
        return config_fail(p, "one address at most");
    }
    for (size_t i = 1; i < p->nscopes; i++) {
        if (same_place(&p->scopes[i].l, port, where)) {
            return config_fail(p, "is given twice");
        }
    }
    if (!config_scope_add(p)) {
        return false;
    }
    l = &p->scopes[p->cur].l;
    l->port = port;
    return where == NULL || replace_string(p, port == 0 ? &l->unix_path : &l->address, where);
}

bool config_set_port(struct config_parser *p, char *value)
{
    if (!parse_port(p, value, &p->scopes[0].l.port)) {
        return false;
    }
    if (p->scopes[0].l.port == 0) {
        return config_fail(p, "has to be 1 to 65535");
    }
    p->default_open = true;
    return true;
}

bool config_set_bind_address(struct config_parser *p, char *value)
{
    if (p->scopes[0].l.address != NULL) {
        return config_fail(p, "is given twice");
    }
    p->default_open = true;
    return replace_string(p, &p->scopes[0].l.address, value);
}

bool config_set_socket_domain(struct config_parser *p, char *value)
{
    int *domain = &p->scopes[p->cur].l.socket_domain;

    if (strcmp(value, "ipv4") == 0) {
        *domain = AF_INET;
    } else if (strcmp(value, "ipv6") == 0) {
        *domain = AF_INET6;
    } else {
        return config_fail(p, "has to be ipv4 or ipv6");
    }
    return true;
}

bool config_set_protocol(struct config_parser *p, char *value)
{
    if (strcmp(value, "websockets") == 0) {
        return config_fail(p, "this version has no WebSocket");
    }
    return strcmp(value, "mqtt") == 0 || config_fail(p, "has to be mqtt");
}

bool config_set_accept_versions(struct config_parser *p, char *value)
{
    unsigned versions = 0;
    char *save = NULL;

    for (char *v = strtok_r(value, ", \t", &save); v != NULL; v = strtok_r(NULL, ", \t", &save)) {
        if (strlen(v) != 1 || *v < '3' || *v > '5') {
            return config_fail(p, "'%s' is none of 3, 4, 5", v);
        }
        versions |= 1u << (unsigned)(*v - '0');
    }
    p->scopes[p->cur].l.accept_protocol_versions = versions;
    return versions != 0 || config_fail(p, "has to name 3, 4 or 5");
}

static bool parse_durability(struct config_parser *p, const char *value,
                             enum config_durability *out)
{
    if (strcmp(value, "disk") == 0) {
        *out = CONFIG_DURABILITY_DISK;
    } else if (strcmp(value, "memory") == 0) {
        *out = CONFIG_DURABILITY_MEMORY;
    } else {
        return config_fail(p, "has to be disk or memory");
    }
    return true;
}

bool config_set_persistence_damaged(struct config_parser *p, char *value)
{
    p->c->serve_damaged = strcmp(value, "serve") == 0;
    return p->c->serve_damaged || strcmp(value, "refuse") == 0 ||
           config_fail(p, "has to be refuse or serve");
}

bool config_set_durability(struct config_parser *p, char *value)
{
    return parse_durability(p, value, &p->c->durability);
}

bool config_set_listener_durability(struct config_parser *p, char *value)
{
    return parse_durability(p, value, &p->scopes[p->cur].l.durability);
}

bool config_set_max_keepalive(struct config_parser *p, char *value)
{
    uint64_t n;

    if (!parse_number(p, value, &n)) {
        return false;
    }
    if (n > 0 && n < 10) {
        return config_fail(p, "has to be 0 or 10 to 65535");
    }
    p->c->max_keepalive = (uint32_t)n;
    return true;
}

bool config_set_mount_point(struct config_parser *p, char *value)
{
    char **field = &p->scopes[p->cur].l.mount_point;

    if (*field != NULL) {
        return config_fail(p, "is given twice");
    }
    if (strpbrk(value, "+#") != NULL || *value == '$') {
        return config_fail(p, "has to be a topic without wildcards that does not begin with $");
    }
    return check_utf8(p, value) && replace_string(p, field, value);
}

bool config_set_max_packet_size(struct config_parser *p, char *value)
{
    uint64_t n;

    if (!parse_bytes(p, value, &n)) {
        return false;
    }
    if (n > 0 && n < 20) {
        return config_fail(p, "has to be 0 or 20 to %u", CONFIG_MAX_PACKET);
    }
    p->c->max_packet_size = (uint32_t)n;
    return true;
}

static bool set_log_file(struct config_parser *p, const char *path)
{
    path += strspn(path, " \t");
    if (*path == '\0') {
        return config_fail(p, "file needs a path");
    }
    if (p->c->log_file != NULL) {
        return config_fail(p, "one file at most");
    }
    p->c->log_dest |= LOG_TO_FILE;
    return replace_string(p, &p->c->log_file, path);
}

bool config_set_log_dest(struct config_parser *p, char *value)
{
    static const struct {
        const char *name;
        unsigned dest;
    } dests[] = {{"stderr", LOG_TO_STDERR}, {"stdout", LOG_TO_STDOUT}, {"syslog", LOG_TO_SYSLOG}};

    if (strcmp(value, "topic") == 0 || strcmp(value, "dlt") == 0) {
        return config_warn(p, "%s:%u: log_dest: this version does not log to '%s'", p->at.file,
                           p->at.line, value);
    }
    p->log_dest_set = true;
    if (strcmp(value, "none") == 0) {
        p->log_none = true;
        return true;
    }
    if (strncmp(value, "file", 4) == 0 && (value[4] == '\0' || isblank((unsigned char)value[4]))) {
        return set_log_file(p, value + 4);
    }
    for (size_t i = 0; i < sizeof(dests) / sizeof(dests[0]); i++) {
        if (strcmp(value, dests[i].name) == 0) {
            p->c->log_dest |= dests[i].dest;
            return true;
        }
    }
    return config_fail(p, "'%s' is none of stderr, stdout, syslog, file PATH, none", value);
}

bool config_set_log_type(struct config_parser *p, char *value)
{
    static const struct {
        const char *name;
        unsigned levels;
    } types[] = {{"error", LOGL_ERROR},
                 {"warning", LOGL_WARNING},
                 {"notice", LOGL_NOTICE},
                 {"information", LOGL_INFO},
                 {"debug", LOGL_DEBUG},
                 {"subscribe", LOGL_SUBSCRIBE},
                 {"unsubscribe", LOGL_UNSUBSCRIBE},
                 {"internal", 0},
                 {"websockets", 0},
                 {"none", 0},
                 {"all", LOGL_ALL}};

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(value, types[i].name) == 0) {
            /* The first line takes the place of the default. "none" takes back what was named so
             * far. */
            if (!p->log_type_set || strcmp(value, "none") == 0) {
                p->c->log_type = 0;
            }
            p->c->log_type |= types[i].levels;
            p->log_type_set = true;
            return true;
        }
    }
    return config_fail(p, "'%s' is no type of log line", value);
}

bool config_set_log_facility(struct config_parser *p, char *value)
{
    static const int facilities[CONFIG_LOG_FACILITIES] = {LOG_LOCAL0, LOG_LOCAL1, LOG_LOCAL2,
                                                          LOG_LOCAL3, LOG_LOCAL4, LOG_LOCAL5,
                                                          LOG_LOCAL6, LOG_LOCAL7};
    uint64_t n;

    if (!to_number(value, &n) || n >= CONFIG_LOG_FACILITIES) {
        return config_fail(p, "has to be 0 to %d", CONFIG_LOG_FACILITIES - 1);
    }
    p->c->log_facility = facilities[n];
    return true;
}
