/* SPDX-License-Identifier: Apache-2.0 */
/* The durable store as a whole: what was acknowledged is there after a stop and after a crash. */
#include "tests/support/store_model.h"
#include "tests/support/tmpdir.h"
#include "tests/support/unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct store_options small(const struct tmpdir *t)
{
    return (struct store_options){.dir = t->path,
                                  .state_map = 1u << 30,
                                  .journal_map = 1u << 28,
                                  .fold_records = 300,
                                  .fold_slice = 17,
                                  .ballast = 1u << 20};
}

static struct store *open_it(const struct store_options *o)
{
    struct store *s;
    char err[512];

    if (store_open(o, &s, err, sizeof(err)) != ST_OK) {
        fprintf(stderr, "%s\n", err);
        UNIT_NEED(false);
    }
    return s;
}

static void test_model_through_restarts(void)
{
    struct tmpdir t;
    struct model *m = model_create(1);

    tmpdir_make(&t);
    for (unsigned round = 0; round < 6; round++) {
        struct store_options o = small(&t);
        o.fold_records = round % 2 == 0 ? 300 : 1000000;
        struct store *s = open_it(&o);
        const uint32_t n = model_made(m);

        CU_ASSERT_EQUAL(model_check(m, s, n, n), n);
        model_run(m, s, 1500, 1 + round * 20);
        CU_ASSERT_EQUAL(model_failed(m), 0);
        store_close(&s);
    }
    model_destroy(m);
    tmpdir_remove(&t);
}

/* Pages while records are unfolded, being folded, and folded. */
static void test_pages_merge(void)
{
    struct tmpdir t;
    struct model *m = model_create(2);
    struct store_options o;
    struct store *s;
    struct store_stats st;

    tmpdir_make(&t);
    o = small(&t);
    s = open_it(&o);
    for (unsigned i = 0; i < 200; i++) {
        model_run(m, s, 40, 40);
        CU_ASSERT_TRUE(model_check_queues(m, s));
    }
    store_stats(s, &st);
    CU_ASSERT(st.folds > 10);
    CU_ASSERT(st.annihilated > 0);
    store_close(&s);
    model_destroy(m);
    tmpdir_remove(&t);
}

/* ---- kill -9 ---- */

static void share_ack(void *arg, uint32_t index)
{
    atomic_store((_Atomic uint32_t *)arg, index);
}

_Noreturn static void run_child(const struct store_options *o, struct model *m,
                                _Atomic uint32_t *acked)
{
    struct store *s = open_it(o);

    model_on_ack(m, share_ack, acked);
    for (;;) {
        model_run(m, s, 50, 20);
    }
}

/* The child makes the same units as this process, from the same model, until it is killed. */
static void kill_once(struct model *m, const struct store_options *o, _Atomic uint32_t *acked,
                      unsigned ms)
{
    pid_t pid;
    struct store *s;
    int status;
    int64_t k;
    uint32_t last;

    fflush(NULL);
    atomic_store(acked, model_made(m));
    pid = fork();
    UNIT_NEED(pid >= 0);
    if (pid == 0) {
        run_child(o, m, acked);
    }
    nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    last = atomic_load(acked);
    while (model_made(m) < last + 100) {
        model_next(m);
    }
    s = open_it(o);
    k = model_check(m, s, last, model_made(m));
    CU_ASSERT(k >= last);
    model_cut(m, k < 0 ? last : (uint32_t)k);
    store_close(&s);
}

static void test_kills(void)
{
    struct tmpdir t;
    struct model *m = model_create(3);
    struct store_options o;
    _Atomic uint32_t *acked =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    UNIT_NEED(acked != MAP_FAILED);
    tmpdir_make(&t);
    o = small(&t);
    for (unsigned i = 0; i < 15; i++) {
        kill_once(m, &o, acked, 10 + i * 7 % 60);
    }
    CU_ASSERT(model_made(m) > 500);
    munmap(acked, 4096);
    model_destroy(m);
    tmpdir_remove(&t);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(model_through_restarts)
    UNIT_TEST(pages_merge)
    UNIT_TEST(kills)
UNIT_TESTS_END
