/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sys_topic.h - topics that clients may not publish to: $share/... and $SYS/..., but for the state
 * topics of bridges. Pure.
 */
#ifndef NOCTULE_BASE_SYS_TOPIC_H
#define NOCTULE_BASE_SYS_TOPIC_H

#include "server/base/span.h"

#define SYS_TOPIC_PREFIX       "$SYS/"
#define SYS_TOPIC_STATE_PREFIX "$SYS/broker/connection/"
#define SYS_TOPIC_SHARE_PREFIX "$share/" /* only filters begin so */
#define SYS_TOPIC_STATE_SUFFIX "/state"

static inline bool sys_topic_begins(struct span s, const char *with)
{
    size_t n = strlen(with);

    return s.n >= n && memcmp(s.p, with, n) == 0;
}

static inline bool sys_topic_is_reserved(struct span topic)
{
    size_t prefix_n = strlen(SYS_TOPIC_STATE_PREFIX);
    size_t suffix_n = strlen(SYS_TOPIC_STATE_SUFFIX);

    if (topic.n == 0 || topic.p[0] != '$') {
        return false;
    }
    if (sys_topic_begins(topic, SYS_TOPIC_SHARE_PREFIX)) {
        return true;
    }
    if (!sys_topic_begins(topic, SYS_TOPIC_PREFIX)) {
        return false;
    }
    return !(sys_topic_begins(topic, SYS_TOPIC_STATE_PREFIX) && topic.n > prefix_n + suffix_n &&
             memcmp(topic.p + topic.n - suffix_n, SYS_TOPIC_STATE_SUFFIX, suffix_n) == 0);
}

#endif
