/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_reload.c - which part of a newly read configuration may take the place of the running one.
 *
 * Happy path: all keys that differ carry CONFIG_RELOAD, and `loaded` stays as it is. Every other
 * key keeps its running value and is named, so that the broker never runs on a mixture nobody asked
 * for unsaid.
 */
#include <stdlib.h>
#include <string.h>

#include "server/config_parser.h"

struct names {
    char *p;
    size_t cap;
    bool any;
};

static void add_name(struct names *n, const char *name)
{
    size_t used = n->cap > 0 ? strlen(n->p) : 0;

    if (n->cap > 0) {
        snprintf(n->p + used, n->cap - used, "%s%s", n->any ? ", " : "", name);
    }
    n->any = true;
}

static bool same_string(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static size_t size_of(enum config_type type)
{
    switch (type) {
    case CONFIG_BOOL:
        return sizeof(bool);
    case CONFIG_UINT64:
    case CONFIG_BYTES:
    case CONFIG_EXPIRY:
        return sizeof(uint64_t);
    case CONFIG_STRING:
        return sizeof(char *);
    case CONFIG_SPECIAL:
        return 0;
    default:
        return sizeof(uint32_t);
    }
}

static bool differs(const struct config_key *k, const char *running, const char *loaded)
{
    if (k->type == CONFIG_STRING) {
        char *const *r = (char *const *)(const void *)(running + k->offset);
        char *const *l = (char *const *)(const void *)(loaded + k->offset);

        return !same_string(*r, *l);
    }
    return memcmp(running + k->offset, loaded + k->offset, size_of(k->type)) != 0;
}

static bool keep_string(char *const *running, char **loaded)
{
    char *copy = NULL;

    if (*running != NULL) {
        copy = strdup(*running);
        if (copy == NULL) {
            return false;
        }
    }
    free(*loaded);
    *loaded = copy;
    return true;
}

static bool keep_field(const struct config_key *k, const char *running, char *loaded)
{
    if (k->type == CONFIG_STRING) {
        return keep_string((char *const *)(const void *)(running + k->offset),
                           (char **)(void *)(loaded + k->offset));
    }
    memcpy(loaded + k->offset, running + k->offset, size_of(k->type));
    return true;
}

/* Rows of the whole broker (keep) or of one listener (only named: the running listener stays
 * whole). */
static bool each_row(bool of_listener, const void *running, void *loaded, struct names *names)
{
    bool ok = true;

    for (size_t g = 0; g < config_ngroups; g++) {
        for (size_t i = 0; ok && i < config_groups[g].nkeys; i++) {
            const struct config_key *k = &config_groups[g].keys[i];

            if ((k->flags & (CONFIG_RELOAD | CONFIG_NO_EFFECT)) == 0 &&
                ((k->flags & CONFIG_LISTENER) != 0) == of_listener && differs(k, running, loaded)) {
                add_name(names, k->name);
                ok = of_listener || keep_field(k, running, loaded);
            }
        }
    }
    return ok;
}

static bool keep_log(const struct config *running, struct config *loaded, struct names *names)
{
    if (loaded->log_dest != running->log_dest ||
        !same_string(loaded->log_file, running->log_file)) {
        add_name(names, "log_dest");
    }
    if (loaded->log_facility != running->log_facility) {
        add_name(names, "log_facility");
    }
    loaded->log_dest = running->log_dest;
    loaded->log_facility = running->log_facility;
    return keep_string(&running->log_file, &loaded->log_file);
}

static bool same_listener(const struct listener_config *a, const struct listener_config *b)
{
    return a->port == b->port && same_string(a->address, b->address) &&
           same_string(a->unix_path, b->unix_path);
}

static struct listener_config *find_listener(struct config *c, const struct listener_config *like)
{
    for (size_t i = 0; i < c->nlisteners; i++) {
        if (same_listener(&c->listeners[i], like)) {
            return &c->listeners[i];
        }
    }
    return NULL;
}

/* The running listener, with what a reload may change about it: who may connect. */
static bool merge_listener(struct listener_config *out, const struct listener_config *running,
                           struct listener_config *now, struct names *names)
{
    if (!config_listener_copy(out, running)) {
        return false;
    }
    each_row(true, running, now, names);
    if (now->socket_domain != running->socket_domain) {
        add_name(names, "socket_domain");
    }
    if (now->accept_protocol_versions != running->accept_protocol_versions) {
        add_name(names, "accept_protocol_versions");
    }
    if (!same_string(now->mount_point, running->mount_point)) {
        add_name(names, "mount_point");
    }
    out->allow_anonymous = now->allow_anonymous;
    out->listener_allow_anonymous = now->listener_allow_anonymous;
    out->allow_zero_length_clientid = now->allow_zero_length_clientid;
    return keep_string(&now->auto_id_prefix, &out->auto_id_prefix);
}

/* Sockets stay as they are: the result has the running listeners, in their order. */
static bool keep_listeners(const struct config *running, struct config *loaded, struct names *names)
{
    struct listener_config *list = calloc(running->nlisteners, sizeof(*list));
    bool same = running->nlisteners == loaded->nlisteners;
    bool ok = list != NULL;

    for (size_t i = 0; ok && i < running->nlisteners; i++) {
        const struct listener_config *r = &running->listeners[i];
        struct listener_config *now = find_listener(loaded, r);

        same = same && now != NULL;
        ok = now == NULL ? config_listener_copy(&list[i], r)
                         : merge_listener(&list[i], r, now, names);
    }
    if (!same) {
        add_name(names, "listener");
    }
    for (size_t i = 0; i < loaded->nlisteners; i++) {
        config_listener_fini(&loaded->listeners[i]);
    }
    free(loaded->listeners);
    loaded->listeners = list;
    loaded->nlisteners = list != NULL ? running->nlisteners : 0;
    loaded->local_only = running->local_only;
    return ok;
}

bool config_keep_running(const struct config *running, struct config *loaded, char *names,
                         size_t cap)
{
    struct names n = {.p = names, .cap = cap};

    if (cap > 0) {
        names[0] = '\0';
    }
    return each_row(false, running, loaded, &n) && keep_log(running, loaded, &n) &&
           keep_listeners(running, loaded, &n);
}
