/* SPDX-License-Identifier: Apache-2.0 */
/* What a v5 message may come with, and that anything else is found. */
#include "bench/load/alias.h"
#include "bench/load/extras.h"
#include "tests/support/unit.h"

static const struct extras_want want = {.publisher = 7, .seq = 1234567, .subscription_id = 300};

struct block {
    uint8_t p[EXTRAS_MAX + 32];
    size_t n;
};

static struct block block_of(uint32_t publisher, uint64_t seq)
{
    struct block b;
    size_t at;

    b.n = extras_put(b.p, publisher, seq, &at);
    CU_ASSERT(b.n <= EXTRAS_MAX);
    b.n += prop_put_varint(b.p + b.n, PROP_SUBSCRIPTION_ID, want.subscription_id);
    return b;
}

/* As a receiver sees it. */
static const char *judge(const struct block *b, const struct extras_want *w)
{
    uint8_t in[EXTRAS_MAX + 40];
    struct publish m = {.qos = 0};
    size_t used;
    size_t in_n;
    const char *why = NULL;

    used = b->n < 128 ? 1 : 2;
    in[0] = (uint8_t)(b->n | (used == 2 ? 0x80u : 0u));
    in[1] = (uint8_t)(b->n >> 7);
    memcpy(in + used, b->p, b->n);
    in_n = used + b->n;
    UNIT_NEED(props_decode(&m.props, span_of(in, in_n), PROPS_PUBLISH, &used, &why) == DEC_OK);
    return extras_judge(&m, w);
}

static void test_unchanged(void)
{
    struct block b = block_of(7, 1234567);

    CU_ASSERT_PTR_NULL(judge(&b, &want));
}

/* Every byte of every value and key: none may change unseen. */
static void test_every_byte_counts(void)
{
    struct block good = block_of(7, 1234567);
    struct prop_item item;

    for (size_t at = 0; props_next(span_of(good.p, good.n), &at, &item);) {
        struct span parts[2] = {item.key, item.value};

        for (unsigned part = 0; part < 2; part++) {
            for (size_t i = 0; i < parts[part].n; i++) {
                struct block b = good;
                uint8_t *p = b.p + (parts[part].p - good.p) + i;

                if (*p < 0x80) { /* it has to stay UTF-8 */
                    *p ^= 1;
                    if (*p == 0) {
                        *p = 2;
                    }
                    CU_ASSERT_PTR_NOT_NULL(judge(&b, &want));
                }
            }
        }
    }
}

static void test_another_message(void)
{
    struct block publisher = block_of(8, 1234567);
    struct block number = block_of(7, 1234568);

    CU_ASSERT_PTR_NOT_NULL(judge(&publisher, &want));
    CU_ASSERT_PTR_NOT_NULL(judge(&number, &want));
}

/* The block without its which-th property `id`; where to put that again is the caller's. */
static struct block without(const struct block *b, enum mqtt_prop id, unsigned which,
                            struct span *removed)
{
    struct block out = {.n = 0};
    struct prop_item item;

    for (size_t at = 0; props_next(span_of(b->p, b->n), &at, &item);) {
        if (item.id == id && which-- == 0) {
            *removed = item.whole;
        } else {
            memcpy(out.p + out.n, item.whole.p, item.whole.n);
            out.n += item.whole.n;
        }
    }
    return out;
}

static void test_missing_and_twice(void)
{
    static const enum mqtt_prop ids[] = {PROP_CONTENT_TYPE, PROP_CORRELATION_DATA,
                                         PROP_MESSAGE_EXPIRY, PROP_SUBSCRIPTION_ID,
                                         PROP_USER_PROPERTY};
    struct block good = block_of(7, 1234567);

    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        struct span removed = SPAN_NULL;
        struct block b = without(&good, ids[i], 0, &removed);

        CU_ASSERT_PTR_NOT_NULL(judge(&b, &want));
        if (ids[i] == PROP_SUBSCRIPTION_ID || ids[i] == PROP_USER_PROPERTY) {
            b = good;
            memcpy(b.p + b.n, removed.p, removed.n);
            b.n += removed.n;
            CU_ASSERT_PTR_NOT_NULL(judge(&b, &want));
        }
    }
}

static void test_order_of_user_properties(void)
{
    struct block good = block_of(7, 1234567);
    struct span first = SPAN_NULL;
    struct block b = without(&good, PROP_USER_PROPERTY, 0, &first);

    memcpy(b.p + b.n, first.p, first.n);
    b.n += first.n;
    CU_ASSERT_STRING_EQUAL(judge(&b, &want), "user properties changed or out of order");
}

static void test_a_property_more(void)
{
    struct block b = block_of(7, 1234567);

    b.n += prop_put_byte(b.p + b.n, PROP_PAYLOAD_FORMAT, 0);
    CU_ASSERT_STRING_EQUAL(judge(&b, &want), "a property that was not sent");
}

static void test_subscription_id(void)
{
    struct block b = block_of(7, 1234567);
    struct extras_want other = want;

    other.subscription_id = 301;
    CU_ASSERT_PTR_NOT_NULL(judge(&b, &other));
    other.subscription_id = 0;
    CU_ASSERT_PTR_NOT_NULL(judge(&b, &other));
}

static void test_expiry(void)
{
    struct block good = block_of(7, 1234567);
    struct span removed = SPAN_NULL;
    struct block b = without(&good, PROP_MESSAGE_EXPIRY, 0, &removed);
    struct extras_want late = want;
    size_t at = b.n;

    b.n += prop_put_u32(b.p + at, PROP_MESSAGE_EXPIRY, EXTRAS_EXPIRY_S + 1);
    CU_ASSERT_PTR_NOT_NULL(judge(&b, &want));
    (void)prop_put_u32(b.p + at, PROP_MESSAGE_EXPIRY, EXTRAS_EXPIRY_S - 10);
    CU_ASSERT_PTR_NOT_NULL(judge(&b, &want));
    late.age_s = 9;
    CU_ASSERT_PTR_NULL(judge(&b, &late));
}

/* --- topic aliases --- */

static struct publish aliased(const char *topic, uint16_t alias)
{
    struct publish m = {.topic = span_str(topic)};

    m.props.topic_alias = alias;
    m.props.present = 1ull << PROP_TOPIC_ALIAS;
    return m;
}

static const char *resolve(struct alias_table *t, const char *topic, uint16_t alias,
                           const char *meant)
{
    struct publish m = aliased(topic, alias);
    const char *wrong = alias_resolve(t, &m);

    if (wrong == NULL) {
        CU_ASSERT(span_eq(m.topic, span_str(meant)));
    }
    return wrong;
}

static void test_aliases(void)
{
    struct alias_table t = {.max = 3};

    CU_ASSERT_PTR_NULL(resolve(&t, "a", 1, "a"));
    CU_ASSERT_PTR_NULL(resolve(&t, "b/long/one", 3, "b/long/one"));
    CU_ASSERT_PTR_NULL(resolve(&t, "", 1, "a"));
    CU_ASSERT_PTR_NULL(resolve(&t, "", 3, "b/long/one"));
    CU_ASSERT_PTR_NULL(resolve(&t, "c", 1, "c"));
    CU_ASSERT_PTR_NULL(resolve(&t, "", 1, "c"));
    CU_ASSERT_EQUAL(t.used, 3);
    alias_forget(&t);
}

static void test_aliases_that_are_wrong(void)
{
    struct alias_table t = {.max = 3};
    struct alias_table none = {.max = 0};

    CU_ASSERT_PTR_NOT_NULL(resolve(&t, "", 2, ""));
    CU_ASSERT_PTR_NOT_NULL(resolve(&t, "a", 0, ""));
    CU_ASSERT_PTR_NOT_NULL(resolve(&t, "a", 4, ""));
    CU_ASSERT_PTR_NOT_NULL(resolve(&none, "a", 1, ""));
    CU_ASSERT_PTR_NULL(resolve(&t, "a", 2, "a"));
    alias_forget(&t);
    CU_ASSERT_PTR_NOT_NULL(resolve(&t, "", 2, ""));
    alias_forget(&t);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(unchanged)
    UNIT_TEST(every_byte_counts)
    UNIT_TEST(another_message)
    UNIT_TEST(missing_and_twice)
    UNIT_TEST(order_of_user_properties)
    UNIT_TEST(a_property_more)
    UNIT_TEST(subscription_id)
    UNIT_TEST(expiry)
    UNIT_TEST(aliases)
    UNIT_TEST(aliases_that_are_wrong)
UNIT_TESTS_END
