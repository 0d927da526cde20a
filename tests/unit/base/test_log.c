/* SPDX-License-Identifier: Apache-2.0 */
/* test_log.c - lines arrive once and in order, floods are cut, and nobody ever waits for a
 * destination. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "server/base/log.h"
#include "tests/support/unit.h"

static char path[] = "/tmp/noctule-log-XXXXXX";

static void make_file(void)
{
    int fd = mkstemp(path);

    UNIT_NEED(fd >= 0);
    close(fd);
}

static struct log *open_log(unsigned dests, unsigned levels)
{
    struct log_options o = {.dests = dests, .levels = levels, .file = path, .facility = LOG_DAEMON};
    struct log *l = NULL;
    char err[256];

    UNIT_NEED(log_open(&l, &o, err, sizeof(err)) == 0);
    return l;
}

/* All of the file, NUL-terminated; the caller frees. */
static char *contents(const char *name)
{
    FILE *f = fopen(name, "re");
    char *text = calloc(1, 4 << 20);

    UNIT_NEED(f != NULL && text != NULL);
    UNIT_NEED(fread(text, 1, (4 << 20) - 1, f) < (4 << 20) - 1);
    fclose(f);
    return text;
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;

    for (const char *p = strstr(text, part); p != NULL; p = strstr(p + 1, part)) {
        n++;
    }
    return n;
}

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void test_lines_in_order(void)
{
    struct log *l;
    char *text;

    make_file();
    l = open_log(LOG_TO_FILE, LOGL_DEFAULT);
    errno = ENOENT;
    log_error(l, "one %d: %m", 1);
    CU_ASSERT_EQUAL(errno, ENOENT);
    log_info(l, "two");
    log_warning(l, "%s", "");
    log_notice(l, "three\n\x1b[2J\x7f");
    log_close(&l);
    CU_ASSERT_PTR_NULL(l);
    text = contents(path);
    CU_ASSERT_STRING_EQUAL(text, "one 1: No such file or directory\ntwo\nthree??[2J?\n");
    free(text);
    unlink(path);
}

static int evaluated;

static int evaluate(void)
{
    return ++evaluated;
}

static void test_levels(void)
{
    struct log *l;
    char *text;

    make_file();
    l = open_log(LOG_TO_FILE, LOGL_ERROR);
    log_debug(l, "%d", evaluate());
    log_subscribe(l, "%d", evaluate());
    CU_ASSERT_EQUAL(evaluated, 0);
    log_write(l, LOGL_DEBUG, LOGR_NONE, "also not");
    log_error(l, "%d", evaluate());
    log_set_levels(l, LOGL_DEBUG);
    log_debug(l, "now");
    log_error(l, "%d", evaluate());
    log_close(&l);
    CU_ASSERT_EQUAL(evaluated, 1);
    text = contents(path);
    CU_ASSERT_STRING_EQUAL(text, "1\nnow\n");
    free(text);
    unlink(path);
}

static void test_null_is_silent(void)
{
    struct log *l = NULL;

    log_error(l, "%d", evaluate());
    log_write(l, LOGL_ERROR, LOGR_NET, "x");
    log_reopen(l);
    log_set_levels(l, LOGL_ALL);
    log_close(&l);
    CU_ASSERT_EQUAL(evaluated, 0);
    CU_ASSERT_EQUAL(log_dropped(l), 0);
}

static void test_long_lines_are_cut(void)
{
    struct log *l;
    char *text;
    char big[5000];

    memset(big, 'x', sizeof(big));
    big[sizeof(big) - 1] = '\0';
    make_file();
    l = open_log(LOG_TO_FILE, LOGL_ALL);
    log_debug(l, "%s", big);
    log_debug(l, "next");
    log_close(&l);
    text = contents(path);
    CU_ASSERT_EQUAL(strlen(text), 1023 + 1 + 5);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "x...\nnext\n"));
    free(text);
    unlink(path);
}

static void test_timestamps(void)
{
    struct log_options o = {
        .dests = LOG_TO_FILE, .levels = LOGL_ALL, .file = path, .timestamp = true};
    time_t before = time(NULL);
    struct log *l = NULL;
    char err[256];
    char *text;
    long long stamp;

    make_file();
    UNIT_NEED(log_open(&l, &o, err, sizeof(err)) == 0);
    log_info(l, "plain");
    log_close(&l);
    o.timestamp_format = "<%Y>";
    UNIT_NEED(log_open(&l, &o, err, sizeof(err)) == 0);
    log_info(l, "year");
    log_close(&l);
    text = contents(path);
    CU_ASSERT_EQUAL(sscanf(text, "%lld: plain\n<2", &stamp), 1);
    CU_ASSERT_TRUE(stamp >= before && stamp <= time(NULL));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, ">: year\n"));
    free(text);
    unlink(path);
}

/* The calls may straddle the end of a second, so a second portion may pass. */
static void test_rate_limit(void)
{
    struct log *l;
    char *text;
    size_t passed;
    unsigned left = 0;

    make_file();
    l = open_log(LOG_TO_FILE, LOGL_DEFAULT);
    for (int i = 0; i < 500; i++) {
        log_limited(l, LOGL_NOTICE, LOGR_REFUSED, "refused %d;", i);
        log_limited(l, LOGL_NOTICE, LOGR_NONE, "free %d;", i);
    }
    log_limited(l, LOGL_NOTICE, LOGR_NET, "another reason");
    log_close(&l);
    text = contents(path);
    passed = count(text, "refused ");
    CU_ASSERT_TRUE(passed >= LOG_LINES_PER_SECOND && passed <= 2 * LOG_LINES_PER_SECOND);
    for (const char *p = strstr(text, "\n"); p != NULL; p = strstr(p + 1, "\n")) {
        unsigned n;

        if (sscanf(p, "\n%u similar lines left out (refused)", &n) == 1) {
            left += n;
        }
    }
    CU_ASSERT_EQUAL(passed + left, 500);
    CU_ASSERT_EQUAL(count(text, "free "), 500);
    CU_ASSERT_EQUAL(count(text, "another reason"), 1);
    free(text);
    unlink(path);
}

/* What was left out is said within about a second, although no further line comes. */
static void test_left_out_is_said(void)
{
    struct log *l;
    bool said = false;

    make_file();
    l = open_log(LOG_TO_FILE, LOGL_DEFAULT);
    for (int i = 0; i < 50; i++) {
        log_limited(l, LOGL_NOTICE, LOGR_MEMORY, "low");
    }
    for (int i = 0; i < 100 && !said; i++) {
        char *text;

        usleep(100000);
        text = contents(path);
        said = strstr(text, "similar lines left out (memory)") != NULL;
        free(text);
    }
    CU_ASSERT_TRUE(said);
    log_close(&l);
    unlink(path);
}

/* No control of a terminal gets through, of one byte or of two; letters do. */
static void test_controls(void)
{
    struct log *l;
    char *text;

    make_file();
    l = open_log(LOG_TO_FILE, LOGL_DEFAULT);
    log_notice(l, "<\x1b[31m|\x7f|\xc2\x9b" "31m|\xc2\x80|\xc2\x9f|\xc2\xa0|\xc3\xa4>");
    log_close(&l);
    text = contents(path);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "<?[31m|?|??31m|??|??|\xc2\xa0|\xc3\xa4>"));
    free(text);
    unlink(path);
}

/* Descriptor 2 becomes a pipe that nobody reads. */
static int stuff_stderr(int *old)
{
    int ends[2];

    UNIT_NEED(pipe2(ends, O_CLOEXEC) == 0);
    *old = dup(STDERR_FILENO);
    UNIT_NEED(*old >= 0 && dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    close(ends[1]);
    return ends[0];
}

static void test_nobody_reads(void)
{
    struct log *l;
    int64_t start;
    int old;
    int rd = stuff_stderr(&old);

    l = open_log(LOG_TO_STDERR, LOGL_ALL);
    start = now_ms();
    for (int i = 0; i < 100000; i++) {
        log_debug(l, "line %d of a hundred thousand that nobody reads", i);
    }
    CU_ASSERT_TRUE(now_ms() - start < 30000);
    CU_ASSERT_TRUE(log_dropped(l) > 50000);
    start = now_ms();
    log_close(&l); /* the pipe is still full */
    CU_ASSERT_TRUE(now_ms() - start < 10000);
    dup2(old, STDERR_FILENO);
    close(old);
    close(rd);
}

struct reader {
    int fd;
    char *text;
    size_t n;
};

static void *read_all(void *arg)
{
    struct reader *r = arg;
    ssize_t n;

    while ((n = read(r->fd, r->text + r->n, (4 << 20) - r->n - 1)) > 0) {
        r->n += (size_t)n;
    }
    r->text[r->n] = '\0';
    return NULL;
}

static void test_dropped_is_said(void)
{
    struct reader r = {.text = malloc(4 << 20)};
    struct log *l;
    pthread_t thread;
    unsigned dropped = 0;
    const char *said;
    int old;

    UNIT_NEED(r.text != NULL);
    r.fd = stuff_stderr(&old);
    l = open_log(LOG_TO_STDERR, LOGL_ALL);
    for (int i = 0; i < 20000; i++) {
        log_debug(l, "line %d goes into a pipe that is read late", i);
    }
    CU_ASSERT_TRUE(log_dropped(l) > 0);
    UNIT_NEED(pthread_create(&thread, NULL, read_all, &r) == 0);
    log_close(&l);
    dup2(old, STDERR_FILENO); /* the pipe's last writer is gone */
    close(old);
    pthread_join(thread, NULL);
    said = strstr(r.text, " log lines dropped: nobody took them in time");
    CU_ASSERT_PTR_NOT_NULL_FATAL(said);
    while (said > r.text && said[-1] != '\n') {
        said--;
    }
    CU_ASSERT_EQUAL(sscanf(said, "%u", &dropped), 1);
    CU_ASSERT_EQUAL(count(r.text, "is read late"), 20000 - dropped);
    close(r.fd);
    free(r.text);
}

static void test_reopen(void)
{
    struct log *l;
    char rotated[64];
    char *text;

    make_file();
    snprintf(rotated, sizeof(rotated), "%s.1", path);
    l = open_log(LOG_TO_FILE, LOGL_ALL);
    log_info(l, "before");
    UNIT_NEED(rename(path, rotated) == 0);
    log_reopen(l);
    for (int i = 0; i < 600 && access(path, F_OK) != 0; i++) {
        usleep(10000);
    }
    log_info(l, "after");
    log_close(&l);
    text = contents(rotated);
    CU_ASSERT_STRING_EQUAL(text, "before\n");
    free(text);
    text = contents(path);
    CU_ASSERT_STRING_EQUAL(text, "after\n");
    free(text);
    unlink(path);
    unlink(rotated);
}

static void test_open_fails(void)
{
    struct log_options o = {
        .dests = LOG_TO_FILE, .levels = LOGL_ALL, .file = "/nonexistent/noctule.log"};
    struct log *l = (struct log *)&o;
    char err[256];

    CU_ASSERT_EQUAL(log_open(&l, &o, err, sizeof(err)), -1);
    CU_ASSERT_PTR_NULL(l);
    CU_ASSERT_STRING_EQUAL(err, "log file /nonexistent/noctule.log: No such file or directory");
}

#define THREADS 4
#define EACH    500

struct writer {
    struct log *l;
    int id;
};

static void *write_lines(void *arg)
{
    const struct writer *w = arg;

    for (int i = 0; i < EACH; i++) {
        log_info(w->l, "thread %d line %d.", w->id, i);
        log_limited(w->l, LOGL_NOTICE, LOGR_CLIENT_ERROR, "limited");
        if (i % 50 == 0) {
            usleep(1000);
        }
    }
    return NULL;
}

static void test_many_threads(void)
{
    struct writer w[THREADS];
    pthread_t threads[THREADS];
    int next[THREADS] = {0};
    struct log *l;
    char *text;

    make_file();
    l = open_log(LOG_TO_FILE, LOGL_ALL);
    for (int i = 0; i < THREADS; i++) {
        w[i] = (struct writer){l, i};
        UNIT_NEED(pthread_create(&threads[i], NULL, write_lines, &w[i]) == 0);
    }
    log_reopen(l);
    log_set_levels(l, LOGL_ALL);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    CU_ASSERT_EQUAL(log_dropped(l), 0);
    log_close(&l);
    text = contents(path);
    for (char *p = text; p != NULL && *p != '\0'; p = strchr(p, '\n') + 1) {
        int id;
        int line;

        if (sscanf(p, "thread %d line %d.", &id, &line) == 2) {
            CU_ASSERT_FATAL(id >= 0 && id < THREADS);
            CU_ASSERT_EQUAL(line, next[id]);
            next[id]++;
        }
    }
    for (int i = 0; i < THREADS; i++) {
        CU_ASSERT_EQUAL(next[i], EACH);
    }
    free(text);
    unlink(path);
}

UNIT_TESTS = {
    UNIT_TEST(lines_in_order)
    UNIT_TEST(levels)
    UNIT_TEST(null_is_silent)
    UNIT_TEST(long_lines_are_cut)
    UNIT_TEST(timestamps)
    UNIT_TEST(rate_limit)
    UNIT_TEST(left_out_is_said)
    UNIT_TEST(controls)
    UNIT_TEST(nobody_reads)
    UNIT_TEST(dropped_is_said)
    UNIT_TEST(reopen)
    UNIT_TEST(open_fails)
    UNIT_TEST(many_threads)
UNIT_TESTS_END
