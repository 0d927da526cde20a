/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/state.h"
#include "tests/support/tmpdir.h"
#include "tests/support/unit.h"

#include <stdlib.h>
#include <string.h>

struct fixture {
    struct tmpdir dir;
    struct state s;
    MDB_txn *txn;
    struct scratch tmp;
};

static void up(struct fixture *f)
{
    char err[256];
    bool fresh;

    *f = (struct fixture){0};
    tmpdir_make(&f->dir);
    UNIT_NEED(env_open(&f->s.env, f->dir.path, 1u << 28, 65536, &fresh, err, sizeof(err)) == ST_OK);
    CU_ASSERT_TRUE(fresh);
    UNIT_NEED(mdb_txn_begin(f->s.env.mdb, NULL, 0, &f->txn) == 0);
    UNIT_NEED(state_tables(&f->s, f->txn, MDB_CREATE) == 0);
}

static void down(struct fixture *f)
{
    mdb_txn_abort(f->txn);
    env_close(&f->s.env);
    scratch_free(&f->tmp);
    tmpdir_remove(&f->dir);
}

static size_t entries(struct fixture *f, MDB_dbi dbi)
{
    MDB_stat st;

    UNIT_NEED(mdb_stat(f->txn, dbi, &st) == 0);
    return st.ms_entries;
}

/* Sizes around those of one, two and more pieces, each replaced by each. */
static void test_objects(void)
{
    static const size_t sizes[] = {0, 1, 1995, 1996, 1997, 3996, 3997, 70000};
    static uint8_t a[70000], b[70000];
    const uint8_t k[8] = {1};
    struct fixture f;
    MDB_val whole;

    up(&f);
    memset(a, 'a', sizeof(a));
    memset(b, 'b', sizeof(b));
    for (size_t i = 0; i < 8; i++) {
        for (size_t j = 0; j < 8; j++) {
            CU_ASSERT_EQUAL(object_put(f.txn, f.s.bodies, k, 8, a, sizes[i], false), 0);
            CU_ASSERT_EQUAL(object_put(f.txn, f.s.bodies, k, 8, b, sizes[j], false), 0);
            CU_ASSERT_EQUAL(object_get(f.txn, f.s.bodies, k, 8, &f.tmp, &whole), 0);
            CU_ASSERT_EQUAL(whole.mv_size, sizes[j]);
            CU_ASSERT(memcmp(whole.mv_data, b, sizes[j]) == 0);
            CU_ASSERT_EQUAL(object_del(f.txn, f.s.bodies, k, 8), 0);
            CU_ASSERT_EQUAL(entries(&f, f.s.bodies), 0);
        }
    }
    CU_ASSERT_EQUAL(object_get(f.txn, f.s.bodies, k, 8, &f.tmp, &whole), MDB_NOTFOUND);
    CU_ASSERT_EQUAL(object_del(f.txn, f.s.bodies, k, 8), MDB_NOTFOUND);
    down(&f);
}

static void test_patch_and_lost_piece(void)
{
    static uint8_t a[5000];
    const uint8_t k[8] = {1};
    uint8_t third[12] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
    MDB_val key = {sizeof(third), third};
    const uint8_t none[8] = {0};
    struct fixture f;
    MDB_cursor *cur;
    MDB_val whole;

    up(&f);
    memset(a, 'a', sizeof(a));
    CU_ASSERT_EQUAL(object_put(f.txn, f.s.bodies, k, 8, a, sizeof(a), false), 0);
    UNIT_NEED(mdb_cursor_open(f.txn, f.s.bodies, &cur) == 0);
    CU_ASSERT_EQUAL(object_patch(cur, k, 8, (const uint8_t *)"zz", 2), 0);
    CU_ASSERT_EQUAL(object_peek(cur, k, 8, &whole), 0);
    CU_ASSERT(whole.mv_size < sizeof(a) && memcmp(whole.mv_data, "zzaa", 4) == 0);
    CU_ASSERT_EQUAL(object_peek(cur, none, 8, &whole), MDB_NOTFOUND);
    mdb_cursor_close(cur);
    CU_ASSERT_EQUAL(object_get(f.txn, f.s.bodies, k, 8, &f.tmp, &whole), 0);
    CU_ASSERT(whole.mv_size == sizeof(a) && memcmp(whole.mv_data, "zzaa", 4) == 0);
    CU_ASSERT_EQUAL(object_put(f.txn, f.s.bodies, k, 8, a, 10, true), MDB_KEYEXIST);
    CU_ASSERT_EQUAL(mdb_del(f.txn, f.s.bodies, &key, NULL), 0);
    CU_ASSERT_EQUAL(object_get(f.txn, f.s.bodies, k, 8, &f.tmp, &whole), MDB_CORRUPTED);
    down(&f);
}

static struct store_op retained(const char *name, uint64_t seq)
{
    return (struct store_op){.kind = ST_RETAINED_PUT, .seq = seq, .name = {name, strlen(name)}};
}

static struct store_bytes name_of(const char *s)
{
    return (struct store_bytes){s, strlen(s)};
}

static unsigned seen_names(struct fixture *f)
{
    uint8_t k[OBJECT_KEY] = {0};
    bool started = false;
    unsigned seen = 0;
    MDB_cursor *cur;
    MDB_val whole;

    UNIT_NEED(mdb_cursor_open(f->txn, f->s.retained, &cur) == 0);
    while (object_next(cur, k, RETAINED_KEY, &f->tmp, &whole, &started) == 0) {
        const uint8_t *p = whole.mv_data;
        struct store_op op;
        UNIT_NEED(record_decode(&p, p + whole.mv_size, &op));
        seen |= 1u << (((const char *)op.name.p)[0] - 'a');
    }
    mdb_cursor_close(cur);
    return seen;
}

/* All names under one hash: each is found, replaced and removed as if it were alone. */
static void test_collisions(void)
{
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    struct fixture f;

    up(&f);
    f.s.name_mask = 0;
    for (unsigned i = 0; i < 5; i++) {
        struct store_op op = retained(names[i], i + 1);
        CU_ASSERT_EQUAL(state_retained_put(&f.s, f.txn, &op, &f.tmp), 0);
        CU_ASSERT_EQUAL(state_retained_put(&f.s, f.txn, &op, &f.tmp), 0);
    }
    CU_ASSERT_EQUAL(entries(&f, f.s.retained), 5);
    CU_ASSERT_EQUAL(seen_names(&f), 0x1f);
    CU_ASSERT_EQUAL(state_retained_del(&f.s, f.txn, name_of("b"), &f.tmp),
                    0); /* e takes its place */
    CU_ASSERT_EQUAL(seen_names(&f), 0x1d);
    CU_ASSERT_EQUAL(state_retained_del(&f.s, f.txn, name_of("b"), &f.tmp), MDB_NOTFOUND);
    CU_ASSERT_EQUAL(state_retained_del(&f.s, f.txn, name_of("d"), &f.tmp), 0); /* the last one */
    CU_ASSERT_EQUAL(seen_names(&f), 0x15);
    CU_ASSERT_EQUAL(state_retained_del(&f.s, f.txn, name_of("a"), &f.tmp), 0);
    CU_ASSERT_EQUAL(state_retained_del(&f.s, f.txn, name_of("c"), &f.tmp), 0);
    CU_ASSERT_EQUAL(state_retained_del(&f.s, f.txn, name_of("e"), &f.tmp), 0);
    CU_ASSERT_EQUAL(entries(&f, f.s.retained), 0);
    down(&f);
}

static void test_long_names(void)
{
    static char text[65535];
    struct fixture f;
    struct store_op op = {.kind = ST_SUB_PUT, .session = 9, .flags = 2, .name = {text, 65535}};

    up(&f);
    memset(text, 'x', sizeof(text));
    CU_ASSERT_EQUAL(state_sub_put(&f.s, f.txn, &op, &f.tmp), 0);
    CU_ASSERT(entries(&f, f.s.subs) > 30);
    op.name.n--;
    CU_ASSERT_EQUAL(state_sub_put(&f.s, f.txn, &op, &f.tmp), 0);
    CU_ASSERT_EQUAL(state_sub_del(&f.s, f.txn, 9, op.name, &f.tmp), 0);
    op.name.n++;
    CU_ASSERT_EQUAL(state_sub_del(&f.s, f.txn, 8, op.name, &f.tmp), MDB_NOTFOUND);
    CU_ASSERT_EQUAL(state_sub_del(&f.s, f.txn, 9, op.name, &f.tmp), 0);
    CU_ASSERT_EQUAL(entries(&f, f.s.subs), 0);
    down(&f);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(objects)
    UNIT_TEST(patch_and_lost_piece)
    UNIT_TEST(collisions)
    UNIT_TEST(long_names)
UNIT_TESTS_END
