/* SPDX-License-Identifier: Apache-2.0 */
#include "server/shard/ticket.h"
#include "tests/support/unit.h"

#include <stdlib.h>

/* Against a plain array, over all ids, with a fixed seed. */
static void test_like_a_set(void)
{
    static bool in[65536];
    struct idset s = {0};
    uint32_t n = 0;
    unsigned wrong = 0;

    srand(11);
    for (int i = 0; i < 400000; i++) {
        /* Few ids at first, then all: growing, shifting, wrapping. */
        uint16_t id = (uint16_t)(1 + rand() % (i < 100000 ? 40 : 65535));
        if (in[id]) {
            wrong += idset_find(&s, id) == NULL || idset_find(&s, id)->packet_id != id;
            idset_remove(&s, id);
            n--;
        } else {
            wrong += idset_find(&s, id) != NULL;
            UNIT_NEED(idset_add(&s, id) != NULL);
            n++;
        }
        in[id] = !in[id];
        wrong += idset_count(&s) != n;
    }
    CU_ASSERT_EQUAL(wrong, 0);
    for (uint32_t id = 1; id < 65536; id++) {
        wrong += (idset_find(&s, (uint16_t)id) != NULL) != in[id];
        idset_remove(&s, (uint16_t)id); /* also those that are not there */
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(idset_count(&s), 0);
    CU_ASSERT_PTR_NULL(s.slots); /* an empty set holds no memory */
}

static void test_all_ids(void)
{
    struct idset s = {0};

    for (uint32_t id = 1; id < 65536; id++) {
        UNIT_NEED(idset_add(&s, (uint16_t)id) != NULL);
    }
    CU_ASSERT_EQUAL(idset_count(&s), 65535);
    idset_free(&s);
    CU_ASSERT_PTR_NULL(s.slots);
}

/* A ticket and an entry let go of each other, whichever goes first. */
static void test_tickets_let_go(void)
{
    struct ticket t = {0};
    struct idset s = {0};

    idset_add(&s, 7)->ticket = &t;
    t.inbound = &s;
    idset_remove(&s, 7);
    CU_ASSERT_PTR_NULL(t.inbound);
    idset_add(&s, 8)->ticket = &t;
    t.inbound = &s;
    idset_free(&s);
    CU_ASSERT_PTR_NULL(t.inbound);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(like_a_set)
    UNIT_TEST(all_ids)
    UNIT_TEST(tickets_let_go)
UNIT_TESTS_END
