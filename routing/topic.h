/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic.h - topic names and topic filters: validity and matching. Pure.
 *
 * UTF-8 was checked by the codec; here are the rules of MQTT 4.7.
 */
#ifndef NOCTULE_ROUTING_TOPIC_H
#define NOCTULE_ROUTING_TOPIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOPIC_MAX 65535u /* bytes [MQTT-4.7.3-3] */

/* 1..65535 bytes, no wildcards [MQTT-3.3.2-2], no U+0000 [MQTT-4.7.3-2], at most
 * max_separators '/'. */
bool topic_name_is_valid(const char *t, size_t n, unsigned max_separators);

/* '#' alone in the last level, '+' alone in its level [MQTT-4.7.1-2,3]; else as names. Not for
 * "$share". */
bool topic_filter_is_valid(const char *f, size_t n, unsigned max_separators);

/* Whether a valid filter matches a valid name; '$' rule of [MQTT-4.7.2-1] included. */
bool topic_matches(const char *filter, size_t fn, const char *topic, size_t tn);

/*
 * Splits "$share/{name}/{filter}". is_shared: the filter starts with "$share/". false with
 * *is_shared set: a malformed one [MQTT-4.8.2-1,2].
 */
bool topic_split_shared(const char *f, size_t n, bool *is_shared, const char **group,
                        size_t *group_n, const char **filter, size_t *filter_n);

#endif
