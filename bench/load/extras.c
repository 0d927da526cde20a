/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/extras.h"

#include <stdio.h>

#define CONTENT_TYPE "application/x-noctule-bench"
#define KEY          "bench"

/* Different for every publisher, so that a mix-up shows. */
static struct span user_value(char text[32], uint32_t publisher, unsigned which)
{
    int n = which == 0 ? snprintf(text, 32, "first of %u", publisher)
                       : snprintf(text, 32, "2 %08x \xc3\xa9", publisher);

    return span_of(text, (size_t)n);
}

void extras_correlation(uint8_t *p, uint32_t publisher, uint64_t seq)
{
    memcpy(p, &publisher, sizeof(publisher));
    memcpy(p + sizeof(publisher), &seq, sizeof(seq));
}

size_t extras_put(uint8_t *p, uint32_t publisher, uint64_t seq, size_t *correlation_at)
{
    uint8_t data[EXTRAS_CORRELATION];
    char text[32];
    size_t n = prop_put_string(p, PROP_CONTENT_TYPE, span_str(CONTENT_TYPE));

    extras_correlation(data, publisher, seq);
    n += prop_put_pair(p + n, span_str(KEY), user_value(text, publisher, 0));
    n += prop_put_string(p + n, PROP_CORRELATION_DATA, span_of(data, sizeof(data)));
    *correlation_at = n - sizeof(data);
    n += prop_put_pair(p + n, span_str(KEY), user_value(text, publisher, 1));
    return n + prop_put_u32(p + n, PROP_MESSAGE_EXPIRY, EXTRAS_EXPIRY_S);
}

static bool user_property_is(const struct prop_item *item, uint32_t publisher, unsigned which)
{
    char text[32];

    return span_eq(item->key, span_str(KEY)) &&
           span_eq(item->value, user_value(text, publisher, which));
}

/* What may come several times: user properties and subscription identifiers. */
static const char *judge_lists(const struct publish *m, const struct extras_want *want)
{
    unsigned users = 0;
    unsigned ids = 0;
    struct prop_item item;

    for (size_t at = 0; props_next(m->props.raw, &at, &item);) {
        if (item.id == PROP_USER_PROPERTY) {
            if (users == 2 || !user_property_is(&item, want->publisher, users)) {
                return "user properties changed or out of order";
            }
            users++;
        } else if (item.id == PROP_SUBSCRIPTION_ID) {
            if (item.number != want->subscription_id) {
                return "a subscription identifier that is not ours";
            }
            ids++;
        }
    }
    if (users != 2) {
        return "user properties missing";
    }
    return ids == (want->subscription_id != 0) ? NULL : "subscription identifier missing or twice";
}

/* The broker counts whole seconds by a clock of its own: one more or less is rounding. */
static bool expiry_is_right(const struct props *p, uint32_t age_s)
{
    return props_has(p, PROP_MESSAGE_EXPIRY) && p->message_expiry_s <= EXTRAS_EXPIRY_S &&
           p->message_expiry_s + age_s + 2 >= EXTRAS_EXPIRY_S;
}

const char *extras_judge(const struct publish *m, const struct extras_want *want)
{
    static const uint64_t known = 1ull << PROP_CONTENT_TYPE | 1ull << PROP_CORRELATION_DATA |
                                  1ull << PROP_USER_PROPERTY | 1ull << PROP_MESSAGE_EXPIRY |
                                  1ull << PROP_SUBSCRIPTION_ID | 1ull << PROP_TOPIC_ALIAS;
    uint8_t data[EXTRAS_CORRELATION];

    if ((m->props.present & ~known) != 0) {
        return "a property that was not sent";
    }
    if (!span_eq(m->props.content_type, span_str(CONTENT_TYPE))) {
        return "content type changed";
    }
    extras_correlation(data, want->publisher, want->seq);
    if (!span_eq(m->props.correlation_data, span_of(data, sizeof(data)))) {
        return "correlation data changed";
    }
    if (!expiry_is_right(&m->props, want->age_s)) {
        return "message expiry larger than sent, or less than the time that passed";
    }
    return judge_lists(m, want);
}
