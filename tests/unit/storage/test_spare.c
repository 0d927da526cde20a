/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that one generation leaves to the next. */
#include "storage/gen.h"
#include "tests/support/unit.h"

#include <stdlib.h>
#include <string.h>

static void test_blocks(void)
{
    struct spare s;
    struct block *a;
    struct block *b;

    spare_init(&s, 3 * SPARE_SMALL);
    a = spare_take(&s, SPARE_SMALL);
    b = spare_take(&s, SPARE_SMALL);
    UNIT_NEED(a != NULL && b != NULL && a != b);
    a->next = b;
    a->used = 5;
    spare_give(&s, a);
    CU_ASSERT_EQUAL(s.bytes, 2 * SPARE_SMALL);
    b = spare_take(&s, SPARE_LARGE);
    UNIT_NEED(b != NULL && b != a && b->size == SPARE_LARGE);
    spare_give(&s, b); /* above the limit: not kept */
    CU_ASSERT_EQUAL(s.bytes, 2 * SPARE_SMALL);
    b = spare_take(&s, 100);
    UNIT_NEED(b != NULL && b->size == 100);
    spare_give(&s, b); /* of no size that is kept */
    CU_ASSERT_EQUAL(s.bytes, 2 * SPARE_SMALL);
    b = spare_take(&s, SPARE_SMALL);
    UNIT_NEED(b != NULL);
    CU_ASSERT(b->used == 0 && b->next == NULL && b->newer == NULL);
    CU_ASSERT_EQUAL(s.bytes, SPARE_SMALL);
    spare_give(&s, b);
    spare_empty(&s);
    CU_ASSERT(s.bytes == 0 && s.small == NULL);
    spare_fini(&s);
}

static void test_table(void)
{
    struct spare s;
    size_t n = 7;
    uint8_t *t;

    spare_init(&s, 1000);
    CU_ASSERT_PTR_NULL(spare_take_table(&s, &n));
    CU_ASSERT_EQUAL(n, 7); /* the caller's own size stands */
    t = malloc(100);
    UNIT_NEED(t != NULL);
    memset(t, 0xff, 100);
    spare_give_table(&s, t, 100);
    spare_give_table(&s, malloc(2000), 2000); /* above the limit */
    CU_ASSERT_EQUAL(s.bytes, 100);
    t = spare_take_table(&s, &n);
    UNIT_NEED(t != NULL);
    CU_ASSERT(n == 100 && s.bytes == 0);
    CU_ASSERT(t[0] == 0 && t[99] == 0);
    spare_give_table(&s, t, 100);
    spare_fini(&s);
}

#define ENTRIES 3000u

static enum gen_rc add(struct gen *g, const struct store_op *op, uint64_t number)
{
    struct gen_op one = {.op = op, .at = GROUP_HEADER, .hash = gen_hash(op->session)};
    struct group h = {.number = number, .records = 1};
    uint8_t *buf = gen_room(g, GROUP_HEADER + record_size(op));

    UNIT_NEED(buf != NULL);
    h.length = (uint32_t)(record_encode(buf + GROUP_HEADER, op) - buf);
    group_seal(buf, &h);
    return gen_add_ops(g, buf, h.length, number + 1, &one, 0, NULL);
}

/* Arrays that grow, also beyond what lies in blocks; twice, the second time in used memory. */
static void test_generations(void)
{
    struct spare s;

    spare_init(&s, 64u << 20);
    for (int round = 0; round < 2; round++) {
        struct gen *g = gen_create(&s);
        const struct gen_session *gs;

        UNIT_NEED(g != NULL);
        for (uint64_t i = 0; i < ENTRIES; i++) {
            const struct store_op many = {.kind = ST_ENTRY_PUT, .session = 1, .seq = i + 1};
            const struct store_op few = {.kind = ST_ENTRY_DEL, .session = 2 + i % 300, .seq = i};
            UNIT_NEED(add(g, &many, 2 * i + 1) == GEN_OK && add(g, &few, 2 * i + 2) == GEN_OK);
        }
        gs = gen_find(g, 1);
        UNIT_NEED(gs != NULL && gs->puts.n == ENTRIES && gs->olds.n == 0);
        CU_ASSERT(gs->record == NULL && !gs->ended && gs->ninbound == 0);
        for (uint32_t i = 0; i < ENTRIES; i++) {
            CU_ASSERT(gs->puts.v[i].seq == i + 1 && !gs->puts.v[i].dead);
        }
        for (uint64_t k = 2; k < 302; k++) {
            gs = gen_find(g, k);
            UNIT_NEED(gs != NULL && gs->puts.n == 0 && gs->olds.n == ENTRIES / 300);
            CU_ASSERT(gs->olds.v[9].seq == k - 2 + 2700 && gs->olds.v[9].what == GEN_DEL);
        }
        gen_unref(g);
        CU_ASSERT(s.bytes > SPARE_LARGE);
    }
    spare_fini(&s);
}

/* A group that was encoded in a generation that has been frozen since. */
static void test_other_generation(void)
{
    const struct store_op op = {.kind = ST_ENTRY_PUT, .session = 1, .seq = 9, .flags = 3};
    struct gen_op one = {.op = &op, .at = GROUP_HEADER, .hash = gen_hash(1)};
    struct group h = {.number = 1, .records = 1};
    struct gen *a = gen_create(NULL);
    struct gen *b = gen_create(NULL);
    uint8_t *buf;

    UNIT_NEED(a != NULL && b != NULL);
    buf = gen_room(a, 200);
    UNIT_NEED(buf != NULL);
    h.length = (uint32_t)(record_encode(buf + GROUP_HEADER, &op) - buf);
    group_seal(buf, &h);
    UNIT_NEED(gen_add_ops(b, buf, h.length, 2, &one, 0, NULL) == GEN_OK);
    CU_ASSERT(a->last == 0 && b->last == 1 && b->bytes == h.length);
    gen_unref(a);
    UNIT_NEED(gen_find(b, 1) != NULL);
    CU_ASSERT_EQUAL(gen_find(b, 1)->puts.v[0].flags, 3);
    gen_unref(b);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(blocks)
    UNIT_TEST(table)
    UNIT_TEST(generations)
    UNIT_TEST(other_generation)
UNIT_TESTS_END
