/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/topic.h"

#include <string.h>

static bool separators_within(const char *t, size_t n, unsigned max)
{
    size_t separators = 0;

    for (const char *p = t; (p = memchr(p, '/', (size_t)(t + n - p))) != NULL; p++) {
        separators++;
    }
    return separators <= max;
}

#define ONES UINT64_C(0x0101010101010101)
#define LOWS UINT64_C(0x7f7f7f7f7f7f7f7f)

/* The high bit of each byte of w that is c, and no other bit. */
static uint64_t bytes_that_are(uint64_t w, char c)
{
    const uint64_t x = w ^ (ONES * (uint8_t)c);

    return ~(((x & LOWS) + LOWS) | x | LOWS);
}

/* Eight bytes at a time: each topic that differs from the one before is looked through here. */
bool topic_name_is_valid(const char *t, size_t n, unsigned max_separators)
{
    size_t separators = 0;
    uint64_t forbidden = 0;
    size_t i = 0;

    if (n == 0 || n > TOPIC_MAX) {
        return false;
    }
    for (; n - i >= sizeof(uint64_t); i += sizeof(uint64_t)) {
        uint64_t w;

        memcpy(&w, t + i, sizeof(w));
        forbidden |= bytes_that_are(w, '+') | bytes_that_are(w, '#') | bytes_that_are(w, '\0');
        separators += ((bytes_that_are(w, '/') >> 7) * ONES) >> 56;
    }
    for (; i < n; i++) {
        forbidden |= t[i] == '+' || t[i] == '#' || t[i] == '\0';
        separators += t[i] == '/';
    }
    return forbidden == 0 && separators <= max_separators;
}

/* A wildcard fills its level; '#' also ends the filter. */
static bool wildcard_is_alone(const char *f, size_t n, size_t at)
{
    if (at > 0 && f[at - 1] != '/') {
        return false;
    }
    return at + 1 == n || (f[at] == '+' && f[at + 1] == '/');
}

bool topic_filter_is_valid(const char *f, size_t n, unsigned max_separators)
{
    if (n == 0 || n > TOPIC_MAX || memchr(f, '\0', n) != NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if ((f[i] == '+' || f[i] == '#') && !wildcard_is_alone(f, n, i)) {
            return false;
        }
    }
    return separators_within(f, n, max_separators);
}

bool topic_matches(const char *filter, size_t fn, const char *topic, size_t tn)
{
    const char *f = filter;
    const char *t = topic;
    const char *f_end = filter + fn;
    const char *t_end = topic + tn;

    if (tn > 0 && topic[0] == '$' && fn > 0 && (filter[0] == '+' || filter[0] == '#')) {
        return false; /* [MQTT-4.7.2-1] */
    }
    while (f < f_end) {
        if (*f == '#') {
            return true;
        }
        if (*f == '+') {
            while (t < t_end && *t != '/') {
                t++;
            }
            f++;
        } else if (t < t_end && *f == *t) {
            f++;
            t++;
        } else {
            /* "sport/#" also matches "sport" [MQTT-4.7.1-2] */
            return t == t_end && f_end - f == 2 && f[0] == '/' && f[1] == '#';
        }
    }
    return t == t_end;
}

static const char share_prefix[] = "$share/";

bool topic_split_shared(const char *f, size_t n, bool *is_shared, const char **group,
                        size_t *group_n, const char **filter, size_t *filter_n)
{
    const size_t prefix_n = sizeof(share_prefix) - 1;
    const char *name = f + prefix_n;
    const char *slash;

    *group = NULL;
    *group_n = 0;
    *filter = f;
    *filter_n = n;
    *is_shared = n >= prefix_n && memcmp(f, share_prefix, prefix_n) == 0;
    if (!*is_shared) {
        return true;
    }
    slash = memchr(name, '/', n - prefix_n);
    if (slash == NULL || slash == name || slash + 1 == f + n) {
        return false; /* [MQTT-4.8.2-1]: a name, a '/' and a filter, none of them empty */
    }
    *group_n = (size_t)(slash - name);
    if (memchr(name, '+', *group_n) != NULL || memchr(name, '#', *group_n) != NULL) {
        *group_n = 0;
        return false; /* [MQTT-4.8.2-2] */
    }
    *group = name;
    *filter = slash + 1;
    *filter_n = (size_t)(f + n - *filter);
    return true;
}
