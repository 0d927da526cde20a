/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - reads the lines, then settles what depends on several keys: which listeners there are,
 * who may be anonymous, limits by situation, what the machine has.
 */
#include "server/config.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>

#include "server/config_parser.h"

/* --- messages --- */

static void one_line(char *s)
{
    for (; *s != '\0'; s++) {
        if (iscntrl((unsigned char)*s)) {
            *s = '?';
        }
    }
}

bool config_fail(struct config_parser *p, const char *fmt, ...)
{
    size_t n = 0;
    va_list ap;

    if (p->cap == 0) {
        return false;
    }
    if (p->at.line > 0) {
        n = (size_t)snprintf(p->err, p->cap, "%s:%u: ", p->at.file, p->at.line);
    }
    if (p->at.key != NULL && n < p->cap) {
        n += (size_t)snprintf(p->err + n, p->cap - n, "%s: ", p->at.key->name);
    }
    if (n < p->cap) {
        va_start(ap, fmt);
        vsnprintf(p->err + n, p->cap - n, fmt, ap);
        va_end(ap);
    }
    one_line(p->err);
    return false;
}

bool config_warn(struct config_parser *p, const char *fmt, ...)
{
    struct config *c = p->c;
    char **more = realloc(c->warnings, (c->nwarnings + 1) * sizeof(*more));
    char *text = NULL;
    va_list ap;
    int n;

    if (more == NULL) {
        return config_fail(p, "out of memory");
    }
    c->warnings = more;
    va_start(ap, fmt);
    n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0) {
        return config_fail(p, "out of memory");
    }
    one_line(text);
    c->warnings[c->nwarnings++] = text;
    return true;
}

/* --- keys and their defaults --- */

static bool find_key(struct config_parser *p, const char *name)
{
    p->at.ordinal = 0;
    for (size_t g = 0; g < config_ngroups; g++) {
        for (size_t i = 0; i < config_groups[g].nkeys; i++, p->at.ordinal++) {
            if (strcmp(config_groups[g].keys[i].name, name) == 0) {
                p->at.key = &config_groups[g].keys[i];
                return true;
            }
        }
    }
    p->at.key = NULL;
    return false;
}

static bool name_matches(const char *pattern, const char *name)
{
    size_t n = strlen(pattern);

    return pattern[n - 1] == '*' ? strncmp(pattern, name, n - 1) == 0 : strcmp(pattern, name) == 0;
}

static bool fail_unknown(struct config_parser *p, const char *name)
{
    for (size_t i = 0; i < config_nrefused; i++) {
        if (name_matches(config_refused_keys[i].name, name)) {
            return config_fail(p, "%s: %s", name, config_refused_keys[i].why);
        }
    }
    return config_fail(p, "%.64s: unknown key", name);
}

/* Runs the defaults of the listener keys, or of all others, through their setters. */
static bool set_defaults(struct config_parser *p, bool of_listener)
{
    const struct config_place before = p->at;
    bool ok = true;

    p->at.ordinal = 0;
    for (size_t g = 0; ok && g < config_ngroups; g++) {
        for (size_t i = 0; ok && i < config_groups[g].nkeys; i++, p->at.ordinal++) {
            char value[64];

            p->at.key = &config_groups[g].keys[i];
            if (p->at.key->dflt != NULL &&
                ((p->at.key->flags & CONFIG_LISTENER) != 0) == of_listener) {
                snprintf(value, sizeof(value), "%s", p->at.key->dflt);
                ok = config_set(p, value);
            }
        }
    }
    p->at = before;
    return ok;
}

bool config_scope_add(struct config_parser *p)
{
    struct config_scope *more = realloc(p->scopes, (p->nscopes + 1) * sizeof(*more));
    struct config_scope *s;

    if (more == NULL) {
        return config_fail(p, "out of memory");
    }
    p->scopes = more;
    p->cur = p->nscopes++;
    s = &p->scopes[p->cur];
    *s = (struct config_scope){
        .l = {.socket_domain = AF_UNSPEC, .accept_protocol_versions = CONFIG_ACCEPT_ALL}};
    if (!set_defaults(p, true)) {
        return false;
    }
    memset(s->seen, 0, sizeof(s->seen)); /* only the file's own lines count as seen */
    return true;
}

/* --- lines --- */

/* For values that cannot contain it: "true # why" is true. */
static void cut_comment(char *value)
{
    for (char *c = value; *c != '\0'; c++) {
        if (*c == '#' && (c == value || isblank((unsigned char)c[-1]))) {
            *c = '\0';
            break;
        }
    }
    for (size_t n = strlen(value); n > 0 && isblank((unsigned char)value[n - 1]); n--) {
        value[n - 1] = '\0';
    }
}

/* `line` ends with a NUL and is ours to change. */
static bool read_line(struct config_parser *p, char *line, size_t n)
{
    char *value;

    p->at.key = NULL;
    if (memchr(line, '\0', n) != NULL) {
        return config_fail(p, "there is a NUL byte in the line");
    }
    while (n > 0 && isspace((unsigned char)line[n - 1])) {
        line[--n] = '\0';
    }
    line += strspn(line, " \t");
    if (*line == '\0' || *line == '#') {
        return true;
    }
    value = line + strcspn(line, " \t");
    if (*value != '\0') {
        *value++ = '\0';
        value += strspn(value, " \t");
    }
    if (!find_key(p, line)) {
        return fail_unknown(p, line);
    }
    if (p->at.key->type != CONFIG_STRING && (p->at.key->flags & CONFIG_TEXT) == 0) {
        cut_comment(value);
    }
    return *value != '\0' ? config_set(p, value) : config_fail(p, "has no value");
}

bool config_read_text(struct config_parser *p, const char *name, const char *text, size_t n)
{
    const struct config_place before = p->at;
    size_t at =
        n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; /* an editor's byte order mark */
    bool ok = true;

    p->at = (struct config_place){.file = name};
    while (ok && at < n) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t len = end == NULL ? n - at : (size_t)(end - (text + at));
        char *copy = malloc(len + 1);

        p->at.line++;
        if (copy == NULL) {
            ok = config_fail(p, "out of memory");
            break;
        }
        memcpy(copy, text + at, len);
        copy[len] = '\0';
        ok = read_line(p, copy, len);
        free(copy);
        at += len + 1;
    }
    p->at = before; /* also after a failure: an include_dir line is still being set */
    return ok;
}

/* --- settling --- */

static bool key_seen(const struct config_parser *p, const char *name, const struct config_scope *s)
{
    struct config_parser q = *p;

    return find_key(&q, name) && (s != NULL ? s->seen[q.at.ordinal] : p->seen[q.at.ordinal]);
}

static bool copy_string(char **out, const char *in)
{
    *out = in == NULL ? NULL : strdup(in);
    return in == NULL || *out != NULL;
}

void config_listener_fini(struct listener_config *l)
{
    free(l->address);
    free(l->unix_path);
    free(l->bind_interface);
    free(l->mount_point);
    free(l->auto_id_prefix);
    *l = (struct listener_config){0};
}

bool config_listener_copy(struct listener_config *out, const struct listener_config *in)
{
    bool ok;

    *out = *in;
    ok = copy_string(&out->address, in->address);
    ok &= copy_string(&out->unix_path, in->unix_path);
    ok &= copy_string(&out->bind_interface, in->bind_interface);
    ok &= copy_string(&out->mount_point, in->mount_point);
    ok &= copy_string(&out->auto_id_prefix, in->auto_id_prefix);
    if (!ok) {
        config_listener_fini(out);
    }
    return ok;
}

/* The keys that belong to the listener or to the broker, whichever per_listener_settings says. */
static bool settle_scope(struct config_parser *p, struct config_scope *s)
{
    const struct config *c = p->c;
    bool own = c->per_listener_settings;

    if (s->l.durability == CONFIG_DURABILITY_DEFAULT) {
        s->l.durability = c->durability;
    }
    if (key_seen(p, "listener_allow_anonymous", s)) {
        s->l.allow_anonymous = s->l.listener_allow_anonymous;
    } else if (!(own && key_seen(p, "allow_anonymous", s))) {
        s->l.allow_anonymous = c->allow_anonymous;
    }
    if (!(own && key_seen(p, "allow_zero_length_clientid", s))) {
        s->l.allow_zero_length_clientid = c->allow_zero_length_clientid;
    }
    return s->l.auto_id_prefix != NULL || copy_string(&s->l.auto_id_prefix, c->auto_id_prefix) ||
           config_fail(p, "out of memory");
}

static bool add_listener(struct config_parser *p, const struct config_scope *s, uint16_t port,
                         const char *address)
{
    struct config *c = p->c;
    struct listener_config *more = realloc(c->listeners, (c->nlisteners + 1) * sizeof(*more));
    struct listener_config *l;

    if (more == NULL) {
        return config_fail(p, "out of memory");
    }
    c->listeners = more;
    l = &more[c->nlisteners];
    if (!config_listener_copy(l, &s->l)) {
        return config_fail(p, "out of memory");
    }
    c->nlisteners++;
    l->port = port;
    if (address != NULL) {
        free(l->address);
        return copy_string(&l->address, address) || config_fail(p, "out of memory");
    }
    return true;
}

/* The two ends of the loopback; on a machine without IPv6 the broker lives with the other one. */
static bool add_loopback(struct config_parser *p, uint16_t port)
{
    static const struct {
        int domain;
        const char *address;
    } ends[] = {{AF_INET, "127.0.0.1"}, {AF_INET6, "::1"}};
    int only = p->scopes[0].l.socket_domain;
    bool ok = true;

    for (size_t i = 0; ok && i < 2; i++) {
        if (only == AF_UNSPEC || only == ends[i].domain) {
            ok = add_listener(p, &p->scopes[0], port, ends[i].address);
            if (ok) {
                p->c->listeners[p->c->nlisteners - 1].optional = only == AF_UNSPEC;
            }
        }
    }
    return ok;
}

static bool warn_lost_keys(struct config_parser *p)
{
    bool ok = true;
    size_t ordinal = 0;

    for (size_t g = 0; g < config_ngroups; g++) {
        for (size_t i = 0; ok && i < config_groups[g].nkeys; i++, ordinal++) {
            if (p->scopes[0].seen[ordinal]) {
                ok = config_warn(p,
                                 "%s: stands before the first listener line and has no effect: the "
                                 "default listener is not open",
                                 config_groups[g].keys[i].name);
            }
        }
    }
    return ok;
}

static bool settle_listeners(struct config_parser *p, const struct config_overrides *o)
{
    bool open = p->default_open;
    uint16_t file_port = p->scopes[0].l.port != 0 ? p->scopes[0].l.port : CONFIG_PORT_DEFAULT;
    bool use_file =
        o->nports == 0 || p->nscopes > 1; /* mosquitto, too, has no -p beside listeners */
    const uint16_t *ports = use_file ? &file_port : o->ports;
    size_t nports = use_file ? 1 : o->nports;
    bool ok = true;

    if (o->nports > 0 && use_file) {
        ok = config_warn(p, "-p %u: has no effect: the configuration file names its listeners",
                         o->ports[0]);
    }
    p->c->local_only = !open && p->nscopes == 1;
    if (!key_seen(p, "allow_anonymous", NULL)) {
        p->c->allow_anonymous = p->c->local_only;
    }
    for (size_t i = 0; ok && i < p->nscopes; i++) {
        ok = settle_scope(p, &p->scopes[i]);
    }
    for (size_t i = 0; ok && i < nports && (open || p->c->local_only); i++) {
        ok = open ? add_listener(p, &p->scopes[0], ports[i], NULL) : add_loopback(p, ports[i]);
    }
    for (size_t i = 1; ok && i < p->nscopes; i++) {
        ok = add_listener(p, &p->scopes[i], p->scopes[i].l.port, NULL);
    }
    return ok && (open || p->c->local_only || warn_lost_keys(p));
}

static void settle_log(struct config_parser *p, const struct config_overrides *o)
{
    struct config *c = p->c;

    if (p->log_none) {
        c->log_dest = 0;
    } else if (!p->log_dest_set) {
        c->log_dest = o->daemon ? LOG_TO_SYSLOG : LOG_TO_STDERR;
    }
    if (o->verbose) {
        c->log_type = LOGL_ALL;
        c->log_dest |= LOG_TO_STDERR;
    }
}

static void settle_limits(struct config_parser *p)
{
    struct config *c = p->c;

    if (c->durability == CONFIG_DURABILITY_DEFAULT) {
        c->durability = CONFIG_DURABILITY_DISK;
    }
    if (c->max_inflight_messages == 0) {
        c->max_inflight_messages = UINT16_MAX;
    }
    if (!key_seen(p, "max_queued_messages", NULL)) {
        c->max_queued_messages = c->persistence ? 0 : 1000;
    }
    if (c->memory_limit == 0) {
        c->memory_limit = config_machine_memory() / 2;
    }
    if (c->shards == 0) {
        c->shards = config_machine_cpus();
        c->shards = c->shards < CONFIG_MAX_SHARDS ? c->shards : CONFIG_MAX_SHARDS;
    }
    if (c->acceptors == 0) {
        c->acceptors = config_machine_cpus() / 4;
        c->acceptors = c->acceptors < CONFIG_MAX_ACCEPTORS ? c->acceptors : CONFIG_MAX_ACCEPTORS;
        c->acceptors = c->acceptors > 0 ? c->acceptors : 1;
    }
}

static bool settle_store(struct config_parser *p, bool from_file)
{
    if (from_file && !key_seen(p, "persistence", NULL)) {
        return config_warn(p, "persistence is not set: sessions, queued and retained messages are "
                              "lost when the broker stops");
    }
    return true;
}

static bool settle(struct config_parser *p, const struct config_overrides *o, bool from_file)
{
    p->at.key = NULL;
    p->at.line = 0;
    p->c->user_set = key_seen(p, "user", NULL);
    settle_log(p, o);
    settle_limits(p);
    return settle_listeners(p, o) && settle_store(p, from_file);
}

/* --- load and free --- */

static size_t count_keys(void)
{
    size_t n = 0;

    for (size_t g = 0; g < config_ngroups; g++) {
        n += config_groups[g].nkeys;
    }
    return n;
}

static bool parser_init(struct config_parser *p)
{
    bool ok;

    if (count_keys() > CONFIG_KEYS_MAX) {
        return config_fail(p, "CONFIG_KEYS_MAX is too small");
    }
    p->c = calloc(1, sizeof(*p->c));
    if (p->c == NULL) {
        return config_fail(p, "out of memory");
    }
    p->c->log_type = LOGL_DEFAULT;
    p->c->log_facility = LOG_DAEMON;
    ok = set_defaults(p, false) && config_scope_add(p);
    memset(p->seen, 0, sizeof(p->seen));
    p->per_listener_key_seen = false;
    return ok;
}

static int parser_finish(struct config_parser *p, bool ok, struct config **out)
{
    for (size_t i = 0; i < p->nscopes; i++) {
        config_listener_fini(&p->scopes[i].l);
    }
    free(p->scopes);
    if (!ok) {
        config_free(&p->c);
    }
    *out = p->c;
    return ok ? 0 : 1;
}

/* Once the parser has a name for the main file, of the disk or of p->files. */
static int load(struct config_parser *p, const char *path, const struct config_overrides *overrides,
                struct config **out)
{
    const struct config_overrides none = {.nports = 0};
    bool ok = parser_init(p) && (path == NULL || config_read_file(p, path)) &&
              settle(p, overrides != NULL ? overrides : &none, path != NULL);

    return parser_finish(p, ok, out);
}

int config_load(const char *path, const struct config_overrides *overrides, struct config **out,
                char *err, size_t cap)
{
    struct config_parser p = {.err = err, .cap = cap};

    return load(&p, path, overrides, out);
}

int config_parse_files(const struct config_file *files, size_t nfiles,
                       const struct config_overrides *overrides, struct config **out, char *err,
                       size_t cap)
{
    struct config_parser p = {.err = err, .cap = cap, .files = files, .nfiles = nfiles};

    assert(nfiles > 0);
    return load(&p, files[0].path, overrides, out);
}

int config_parse(const char *text, size_t n, const char *name,
                 const struct config_overrides *overrides, struct config **out, char *err,
                 size_t cap)
{
    const struct config_file file = {.path = name, .text = text, .n = n};

    return config_parse_files(&file, 1, overrides, out, err, cap);
}

void config_free(struct config **config)
{
    struct config *c = *config;

    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->nlisteners; i++) {
        config_listener_fini(&c->listeners[i]);
    }
    free(c->listeners);
    free(c->auto_id_prefix);
    free(c->clientid_prefixes);
    free(c->user);
    free(c->pid_file);
    free(c->persistence_location);
    free(c->log_file);
    free(c->log_timestamp_format);
    for (size_t i = 0; i < c->nwarnings; i++) {
        free(c->warnings[i]);
    }
    free(c->warnings);
    free(c);
    *config = NULL;
}

struct log_options config_log_options(const struct config *config)
{
    return (struct log_options){.dests = config->log_dest,
                                .levels = config->log_type,
                                .file = config->log_file,
                                .timestamp = config->log_timestamp,
                                .timestamp_format = config->log_timestamp_format,
                                .facility = config->log_facility};
}
