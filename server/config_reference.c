/* SPDX-License-Identifier: Apache-2.0 */
/* config_reference.c - the rows of config_table.c as roff, the middle part of noctule.conf(5). */
#include <string.h>

#include "server/config_table.h"

static const char *value_name(const struct config_key *k)
{
    if (k->value != NULL) {
        return k->value;
    }
    switch (k->type) {
    case CONFIG_BOOL:
        return "true|false";
    case CONFIG_UINT:
    case CONFIG_COUNT:
    case CONFIG_UINT64:
        return "number";
    case CONFIG_SECONDS:
        return "seconds";
    case CONFIG_MS:
        return "milliseconds";
    case CONFIG_BYTES32:
    case CONFIG_BYTES:
        return "bytes";
    case CONFIG_EXPIRY:
        return "duration";
    case CONFIG_STRING:
    case CONFIG_SPECIAL:
        break;
    }
    return "text";
}

/* roff takes a bare "-" for a hyphen, which cannot be pasted, and a leading dot or quote for a
 * request. */
static void print_text(FILE *f, const char *s)
{
    for (; *s != '\0'; s++) {
        if (*s == '-') {
            fputs("\\-", f);
        } else {
            fputc(*s, f);
        }
    }
}

static const char *dflt_name(const struct config_key *k)
{
    return k->dflt_text != NULL ? k->dflt_text : k->dflt != NULL ? k->dflt : "none";
}

static bool has_range(const struct config_key *k)
{
    switch (k->type) {
    case CONFIG_UINT:
    case CONFIG_COUNT:
    case CONFIG_UINT64:
    case CONFIG_SECONDS:
    case CONFIG_MS:
    case CONFIG_BYTES32:
    case CONFIG_BYTES:
        return true;
    default:
        return false;
    }
}

static void print_range(FILE *f, const struct config_key *k)
{
    if (k->max >= UINT32_MAX) {
        fprintf(f, "%llu and above", (unsigned long long)k->min);
    } else {
        fprintf(f, "%llu to %llu", (unsigned long long)k->min, (unsigned long long)k->max);
    }
}

static void print_table(FILE *f, const struct config_group *g)
{
    fputs(".PP\n.TS\nl l l.\n\\fBkey\\fR\t\\fBdefault\\fR\t\\fBrange\\fR\n", f);
    for (size_t i = 0; i < g->nkeys; i++) {
        const struct config_key *k = &g->keys[i];

        fprintf(f, "%s\t%s\t", k->name, dflt_name(k));
        print_range(f, k);
        fputc('\n', f);
    }
    fputs(".TE\n", f);
}

static void print_key(FILE *f, const struct config_key *k)
{
    fprintf(f, ".TP\n\\fB%s\\fR \\fI", k->name);
    print_text(f, value_name(k));
    fputs("\\fR\n", f);
    if ((k->flags & CONFIG_NO_EFFECT) != 0) {
        fputs("Accepted without effect: ", f);
        print_text(f, k->help);
        fputs(".\n", f);
        return;
    }
    print_text(f, k->help);
    fputs("\nDefault: ", f);
    print_text(f, dflt_name(k));
    fputs(".\n", f);
    if (has_range(k)) {
        fputs("Range: ", f);
        print_range(f, k);
        fputs(".\n", f);
    }
    if ((k->flags & CONFIG_RELOAD) != 0) {
        fputs("Read again at SIGHUP.\n", f);
    }
    if ((k->flags & CONFIG_OURS) != 0) {
        fputs("Not known to mosquitto.\n", f);
    }
}

void config_print_reference(FILE *f)
{
    for (size_t g = 0; g < config_ngroups; g++) {
        const struct config_group *group = &config_groups[g];

        fprintf(f, ".SH %s\n", group->title);
        if (group->intro != NULL) {
            print_text(f, group->intro);
            fputc('\n', f);
        }
        if (group->summary) {
            print_table(f, group);
        }
        for (size_t i = 0; i < group->nkeys; i++) {
            print_key(f, &group->keys[i]);
        }
    }
    fputs(".SH REFUSED KEYS\nThese keys of mosquitto name something this version does not have. "
          "They end "
          "the start with a message, since ignoring them would be dangerous.\n",
          f);
    for (size_t i = 0; i < config_nrefused; i++) {
        fputs(".TP\n\\fB", f);
        print_text(f, config_refused_keys[i].name);
        fputs("\\fR\n", f);
        print_text(f, config_refused_keys[i].why);
        fputs(".\n", f);
    }
}
