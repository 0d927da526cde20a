/* SPDX-License-Identifier: Apache-2.0 */
/* What vanishes within a batch, and within a generation. */
#include "storage/batch.h"
#include "storage/gen.h"
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY(id)                                                                                   \
    {                                                                                              \
        .kind = ST_BODY_PUT, .body = id, .name = {"t", 1}, .data = { "payload", 7 }                \
    }
#define PUT(s, q, id)                                                                              \
    {                                                                                              \
        .kind = ST_ENTRY_PUT, .session = s, .seq = q, .body = id                                   \
    }
#define STEP(s, q, pid)                                                                            \
    {                                                                                              \
        .kind = ST_ENTRY_STEP, .session = s, .seq = q, .packet_id = pid                            \
    }
#define DEL(s, q)                                                                                  \
    {                                                                                              \
        .kind = ST_ENTRY_DEL, .session = s, .seq = q                                               \
    }
#define SUB(s, f)                                                                                  \
    {                                                                                              \
        .kind = ST_SUB_PUT, .session = s, .name = { f, sizeof(f) - 1 }                             \
    }
#define UNSUB(s, f)                                                                                \
    {                                                                                              \
        .kind = ST_SUB_DEL, .session = s, .name = { f, sizeof(f) - 1 }                             \
    }

static const char letters[ST_OP_KINDS + 1] = "SEsubpadIiRrWw";

/* The group as text: a letter for each record (see above) and what it is about. */
static char *run(const struct store_op *ops, const uint32_t *units, uint32_t nunits)
{
    static char text[512];
    struct batch b = {0};
    struct group g = {.number = 1};
    uint8_t *buf;
    const uint8_t *p;
    struct store_op op;
    size_t n = 0;

    for (uint32_t i = 0; i < nunits; i++) {
        struct store_unit *u = calloc(1, sizeof(*u));
        UNIT_NEED(u != NULL);
        u->ops = (struct store_op *)(uintptr_t)ops;
        u->nops = units[i];
        UNIT_NEED(batch_add(&b, u));
        ops += units[i];
        free(u);
    }
    buf = malloc(batch_group_max(&b));
    UNIT_NEED(buf != NULL && batch_seal(&b, 0, &g, buf) == ST_OK);
    text[0] = '\0';
    for (p = buf + GROUP_HEADER; g.records > 0 && p != buf + g.length;) {
        UNIT_NEED(record_decode(&p, buf + g.length, &op));
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%c%llu", n == 0 ? "" : " ",
                              letters[op.kind],
                              (unsigned long long)(op.kind == ST_BODY_PUT ? op.body
                                                   : op.seq != 0          ? op.seq
                                                                          : op.session));
    }
    free(buf);
    batch_fini(&b);
    return text;
}

#define RUN(ops, ...)                                                                              \
    run(ops, (const uint32_t[]){__VA_ARGS__},                                                      \
        sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void test_entries(void)
{
    const struct store_op gone[] = {BODY(5), PUT(1, 1, 5), PUT(2, 1, 5), DEL(1, 1), DEL(2, 1)};
    const struct store_op one_left[] = {BODY(5), PUT(1, 1, 5), PUT(2, 2, 5), DEL(1, 1)};
    const struct store_op steps[] = {BODY(5), PUT(1, 1, 5), STEP(1, 1, 9), DEL(1, 1)};
    const struct store_op old[] = {STEP(1, 7, 9), STEP(1, 7, 10), DEL(1, 7)};
    const struct store_op late_step[] = {DEL(1, 7), STEP(1, 7, 9)};
    const struct store_op twice[] = {BODY(5), PUT(1, 1, 5), DEL(1, 1), DEL(1, 1)};

    CU_ASSERT_STRING_EQUAL(RUN(gone, 3, 1, 1), "");
    CU_ASSERT_STRING_EQUAL(RUN(one_left, 3, 1), "b5 p2");
    CU_ASSERT_STRING_EQUAL(RUN(steps, 2, 1, 1), "");
    CU_ASSERT_STRING_EQUAL(RUN(steps, 2, 1), "b5 p1 a1");
    CU_ASSERT_STRING_EQUAL(RUN(old, 1, 1), "a7");    /* the last step wins */
    CU_ASSERT_STRING_EQUAL(RUN(old, 1, 1, 1), "d7"); /* an older entry's removal is kept */
    CU_ASSERT_STRING_EQUAL(RUN(late_step, 1, 1), "d7");
    CU_ASSERT_STRING_EQUAL(RUN(twice, 2, 1, 1), "");
}

static void test_bodies_stand_before_entries(void)
{
    const struct store_op two[] = {BODY(5), BODY(6), PUT(1, 1, 6), PUT(1, 2, 5), PUT(2, 3, 6)};
    const struct store_op unused[] = {BODY(5), PUT(1, 1, 4)};

    CU_ASSERT_STRING_EQUAL(RUN(two, 5), "b5 p2 b6 p3 p1");
    CU_ASSERT_STRING_EQUAL(RUN(unused, 2), "p1"); /* nobody of the unit refers to body 5 */
}

/* For all other keys the last one wins, and a removal is always kept. */
static void test_last_wins(void)
{
    const struct store_op subs[] = {SUB(1, "a"), SUB(1, "b"), UNSUB(1, "a"), SUB(2, "a")};
    const struct store_op again[] = {UNSUB(1, "a"), SUB(1, "a"), UNSUB(1, "a")};
    const struct store_op ids[] = {{.kind = ST_INBOUND_PUT, .session = 1, .packet_id = 3},
                                   {.kind = ST_INBOUND_DEL, .session = 1, .packet_id = 3},
                                   {.kind = ST_INBOUND_PUT, .session = 1, .packet_id = 4}};
    const struct store_op retained[] = {
        {.kind = ST_RETAINED_PUT, .seq = 1, .name = {"t", 1}},
        {.kind = ST_RETAINED_PUT, .seq = 2, .name = {"t", 1}},
        {.kind = ST_RETAINED_PUT, .seq = 3, .name = {"u", 1}},
        {.kind = ST_RETAINED_DEL, .seq = 4, .name = {"t", 1}},
    };
    const struct store_op sessions[] = {{.kind = ST_SESSION_PUT, .session = 1},
                                        {.kind = ST_SESSION_PUT, .session = 1, .number = 5},
                                        {.kind = ST_SESSION_END, .session = 1},
                                        {.kind = ST_SESSION_PUT, .session = 1}};
    const struct store_op wills[] = {{.kind = ST_WILL_PUT, .session = 1, .name = {"a", 1}},
                                     {.kind = ST_WILL_PUT, .session = 1, .name = {"b", 1}},
                                     {.kind = ST_WILL_DEL, .session = 1}};

    CU_ASSERT_STRING_EQUAL(RUN(subs, 4), "s1 u1 s2");
    CU_ASSERT_STRING_EQUAL(RUN(again, 1, 1, 1), "u1");
    CU_ASSERT_STRING_EQUAL(RUN(ids, 3), "i1 I1");
    CU_ASSERT_STRING_EQUAL(RUN(retained, 4), "R3 r4");
    CU_ASSERT_STRING_EQUAL(RUN(sessions, 1, 1), "S1");
    CU_ASSERT_STRING_EQUAL(RUN(sessions, 1, 1, 1, 1), "E1"); /* nothing comes after an end */
    CU_ASSERT_STRING_EQUAL(RUN(wills, 1, 1), "W1");
    CU_ASSERT_STRING_EQUAL(RUN(wills, 3), "w1");
}

/* A batch that is used again after a large one forgets what was in it. */
static void test_reset(void)
{
    struct batch b = {0};
    struct store_op *ops = calloc(3000, sizeof(*ops));
    struct store_unit u = {.ops = ops, .nops = 3000};
    struct store_op del = DEL(1, 5);
    struct store_unit one = {.ops = &del, .nops = 1};

    UNIT_NEED(ops != NULL);
    for (uint32_t i = 0; i < 3000; i++) {
        ops[i] = (struct store_op)PUT(1, i, 1);
    }
    UNIT_NEED(batch_add(&b, &u));
    for (int i = 0; i < 3; i++) {
        batch_reset(&b);
        UNIT_NEED(batch_add(&b, &one));
        CU_ASSERT_EQUAL(b.dead, 0);
        CU_ASSERT_EQUAL(b.n, 1);
    }
    CU_ASSERT_EQUAL(b.free_id, 2);
    batch_fini(&b);
    free(ops);
}

static void to_gen(struct gen *g, uint64_t number, const struct store_op *ops, uint32_t n)
{
    struct batch b = {0};
    struct store_unit u = {.ops = (struct store_op *)(uintptr_t)ops, .nops = n};
    struct group group = {.number = number};
    uint8_t *buf;

    UNIT_NEED(batch_add(&b, &u));
    buf = malloc(batch_group_max(&b));
    UNIT_NEED(buf != NULL && batch_seal(&b, 0, &group, buf) == ST_OK && group.records > 0);
    CU_ASSERT_EQUAL(gen_add(g, buf, group.length, number + 1), GEN_OK);
    batch_fini(&b);
}

static void test_generation(void)
{
    const struct store_op first[] = {BODY(5), PUT(1, 3, 5), PUT(1, 1, 5), PUT(2, 1, 5)};
    const struct store_op second[] = {DEL(1, 3), STEP(2, 1, 77), DEL(1, 100), STEP(1, 50, 3)};
    struct gen *g = gen_create(NULL);
    const struct gen_session *s;

    UNIT_NEED(g != NULL);
    to_gen(g, 1, first, 4);
    to_gen(g, 2, second, 4);
    CU_ASSERT(g->first == 1 && g->last == 2 && g->records == 8 && g->next_key == 3);
    s = gen_find(g, 1);
    UNIT_NEED(s != NULL && s->puts.n == 2 && s->olds.n == 2);
    CU_ASSERT(s->puts.v[0].seq == 1 && !s->puts.v[0].dead && s->puts.v[0].born != NULL);
    CU_ASSERT(s->puts.v[1].seq == 3 && s->puts.v[1].dead);
    CU_ASSERT(s->puts.v[0].born->live == 2 && s->puts.v[0].born->id == 5);
    CU_ASSERT(s->olds.v[0].seq == 50 && s->olds.v[0].what == GEN_STEP);
    CU_ASSERT(s->olds.v[1].seq == 100 && s->olds.v[1].what == GEN_DEL);
    s = gen_find(g, 2);
    UNIT_NEED(s != NULL);
    CU_ASSERT(s->puts.v[0].packet_id == 77);
    CU_ASSERT_PTR_NULL(gen_find(g, 3));
    gen_unref(g);
}

static enum gen_rc add_ops(struct gen *g, const struct store_op *ops, uint32_t n,
                           struct gen *resting)
{
    struct batch b = {0};
    struct store_unit u = {.ops = (struct store_op *)(uintptr_t)ops, .nops = n};
    struct group group = {.number = g->last + 1};
    uint8_t *buf;
    enum gen_rc rc;

    UNIT_NEED(batch_add(&b, &u));
    buf = gen_room(g, batch_group_max(&b));
    UNIT_NEED(buf != NULL && batch_seal(&b, 0, &group, buf) == ST_OK && group.records == n);
    rc = gen_add_ops(g, buf, group.length, group.number + 1, b.left, 0, resting);
    batch_fini(&b);
    return rc;
}

/* What is removed while the generation rests is never folded, and neither is its removal. */
static void test_rest(void)
{
    const struct store_op before[] = {BODY(5),      PUT(1, 1, 5), BODY(6),      PUT(1, 2, 6),
                                      PUT(2, 1, 6), BODY(7),      PUT(3, 1, 7), PUT(4, 1, 9)};
    const struct store_op first[] = {STEP(3, 1, 9)};
    const struct store_op then[] = {DEL(1, 1), DEL(1, 2), DEL(3, 1), DEL(4, 1), DEL(5, 1)};
    struct gen *a = gen_create(NULL);
    struct gen *b = gen_create(NULL);
    const struct gen_session *s;

    UNIT_NEED(a != NULL && b != NULL);
    UNIT_NEED(add_ops(a, before, 8, NULL) == GEN_OK);
    UNIT_NEED(add_ops(b, first, 1, a) == GEN_OK);
    UNIT_NEED(add_ops(b, then, 5, a) == GEN_OK);
    s = gen_find(a, 1);
    UNIT_NEED(s != NULL && s->puts.n == 2);
    CU_ASSERT(s->puts.v[0].dead && s->puts.v[0].born->live == 0);
    CU_ASSERT(!s->puts.v[1].dead && s->puts.v[1].born->live == 2); /* two have the body */
    CU_ASSERT_EQUAL(s->live, 1);
    s = gen_find(b, 1);
    UNIT_NEED(s != NULL && s->puts.n == 0 && s->olds.n == 1);
    CU_ASSERT(s->olds.v[0].seq == 2 && s->olds.v[0].what == GEN_DEL);
    s = gen_find(a, 3);
    UNIT_NEED(s != NULL);
    CU_ASSERT(s->puts.v[0].dead && s->live == 0);
    s = gen_find(b, 3);
    UNIT_NEED(s != NULL && s->olds.n == 1);
    CU_ASSERT_EQUAL(s->olds.v[0].what, GEN_DEL); /* not the step */
    s = gen_find(a, 4);
    UNIT_NEED(s != NULL && gen_find(b, 4) != NULL);
    CU_ASSERT(!s->puts.v[0].dead && gen_find(b, 4)->olds.n == 1); /* its body is elsewhere */
    UNIT_NEED(gen_find(b, 5) != NULL);
    CU_ASSERT_EQUAL(gen_find(b, 5)->olds.n, 1);
    gen_unref(a);
    gen_unref(b);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(entries)
    UNIT_TEST(bodies_stand_before_entries)
    UNIT_TEST(last_wins)
    UNIT_TEST(reset)
    UNIT_TEST(generation)
    UNIT_TEST(rest)
UNIT_TESTS_END
