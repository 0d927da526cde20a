/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/conn.h"
#include "tests/support/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define SCRATCH 4096u

static struct conn conn;
static int peer;
static uint8_t scratch[SCRATCH];

static void open_pair(void)
{
    int fds[2];

    UNIT_NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    conn_init(&conn, fds[0], &transport_tcp);
    peer = fds[1];
}

static void close_pair(void)
{
    conn_fini(&conn);
    if (peer >= 0) {
        close(peer);
    }
}

static void send_bytes(const char *s, size_t n)
{
    UNIT_NEED(write(peer, s, n) == (ssize_t)n);
}

static void test_reads_and_keeps_a_tail(void)
{
    struct span in;
    size_t got;
    bool drained;

    open_pair();
    CU_ASSERT_EQUAL(conn_read(&conn, scratch, SCRATCH, &in, &got, &drained), CONN_AGAIN);
    send_bytes("abcde", 5);
    CU_ASSERT_EQUAL(conn_read(&conn, scratch, SCRATCH, &in, &got, &drained), CONN_OK);
    CU_ASSERT(got == 5 && in.n == 5 && drained);
    CU_ASSERT_TRUE(conn_keep(&conn, span_of(in.p + 3, 2), 10)); /* "de" is a partial packet */
    CU_ASSERT_TRUE(span_eq(conn_kept(&conn), span_str("de")));
    send_bytes("fgh", 3);
    CU_ASSERT_EQUAL(conn_read(&conn, scratch, SCRATCH, &in, &got, &drained), CONN_OK);
    CU_ASSERT_TRUE(span_eq(in, span_str("defgh")));
    CU_ASSERT_TRUE(conn_keep(&conn, SPAN_NULL, 0));
    CU_ASSERT_PTR_NULL(conn.tail); /* idle connections hold no buffer */
    close(peer);
    peer = -1;
    CU_ASSERT_EQUAL(conn_read(&conn, scratch, SCRATCH, &in, &got, &drained), CONN_EOF);
    close_pair();
}

/* What was announced costs nothing before it comes. */
static void test_large_packet_grows_with_what_came(void)
{
    enum { TOTAL = 1000000 };
    uint8_t *sent = malloc(TOTAL);
    size_t at = 0;
    size_t kept = 0;

    UNIT_NEED(sent != NULL);
    for (size_t i = 0; i < TOTAL; i++) {
        sent[i] = (uint8_t)(i * 7 + i / 251);
    }
    open_pair();
    while (kept < TOTAL) {
        struct span in;
        size_t got;
        bool drained;
        size_t n = TOTAL - at < 3000 ? TOTAL - at : 3000;

        send_bytes((const char *)sent + at, n);
        at += n;
        CU_ASSERT_EQUAL_FATAL(conn_read(&conn, scratch, SCRATCH, &in, &got, &drained), CONN_OK);
        kept = in.n;
        if (kept < TOTAL) {
            CU_ASSERT_TRUE_FATAL(conn_keep(&conn, in, TOTAL));
            CU_ASSERT_FATAL(conn.tail_cap <= 2 * kept + 65536);
        } else {
            CU_ASSERT_EQUAL(memcmp(in.p, sent, TOTAL), 0);
            CU_ASSERT_TRUE(conn_keep(&conn, SPAN_NULL, 0));
        }
        /* A read may have been short: empty the socket. */
        while (kept < at && kept < TOTAL) {
            CU_ASSERT_EQUAL_FATAL(conn_read(&conn, scratch, SCRATCH, &in, &got, &drained), CONN_OK);
            kept = in.n;
            if (kept < TOTAL) {
                CU_ASSERT_TRUE_FATAL(conn_keep(&conn, in, TOTAL));
            } else {
                CU_ASSERT_EQUAL(memcmp(in.p, sent, TOTAL), 0);
            }
        }
    }
    close_pair();
    free(sent);
}

/* Wherever a packet is cut, there is room for more of it: in the tail, or behind it in the scratch
 * buffer. */
static void test_kept_has_room(void)
{
    static uint8_t bytes[2 * CONN_SCRATCH];
    static const size_t wants[] = {
        2, 100, CONN_SCRATCH, CONN_SCRATCH + 1, 2 * CONN_SCRATCH + 1, 268435460};
    static const size_t cuts[] = {1, CONN_SCRATCH - 1, CONN_SCRATCH, CONN_SCRATCH + 1,
                                  2 * CONN_SCRATCH};

    open_pair();
    for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++) {
        for (size_t j = 0; j < sizeof(cuts) / sizeof(cuts[0]) && cuts[j] < wants[i]; j++) {
            const size_t n = cuts[j];
            CU_ASSERT_TRUE_FATAL(conn_keep(&conn, span_of(bytes, n), wants[i]));
            CU_ASSERT(conn.tail_n == n && (conn.tail_cap > n || n < CONN_SCRATCH));
            CU_ASSERT(conn.tail_cap <= wants[i] && conn.tail_cap <= 2 * n + CONN_SCRATCH);
            /* The same again, from where it lies: a read that brought nothing to use. */
            CU_ASSERT_TRUE_FATAL(conn_keep(&conn, conn_kept(&conn), wants[i]));
            CU_ASSERT(conn.tail_n == n && (conn.tail_cap > n || n < CONN_SCRATCH));
        }
    }
    close_pair();
}

/* A caller that reads on without conn_keep(): the full tail, larger than the scratch buffer, is not
 * copied there. */
static void test_full_tail_is_not_read_on(void)
{
    enum { TAIL = 100000 };
    uint8_t *bytes = calloc(1, TAIL);
    size_t got;
    struct span in;
    bool drained;
    enum conn_rc rc;

    UNIT_NEED(bytes != NULL);
    open_pair();
    CU_ASSERT_TRUE_FATAL(conn_keep(&conn, span_of(bytes, 70000), TAIL));
    CU_ASSERT_FATAL(conn.tail_cap > SCRATCH && conn.tail_n == 70000);
    do {
        send_bytes((const char *)bytes, 3000);
        rc = conn_read(&conn, scratch, SCRATCH, &in, &got, &drained);
        CU_ASSERT_FATAL(conn.tail_n <= conn.tail_cap);
    } while (rc == CONN_OK);
    CU_ASSERT_EQUAL(rc, CONN_NOMEM);
    CU_ASSERT_EQUAL(conn.tail_n, conn.tail_cap);
    close_pair();
    free(bytes);
}

static void test_discard_keeps_nothing(void)
{
    size_t got;

    open_pair();
    CU_ASSERT_TRUE_FATAL(conn_keep(&conn, span_str("begun"), 1000000));
    send_bytes("the rest", 8);
    CU_ASSERT_EQUAL(conn_discard(&conn, scratch, SCRATCH, &got), CONN_OK);
    CU_ASSERT_EQUAL(got, 8);
    CU_ASSERT_PTR_NULL(conn.tail);
    CU_ASSERT_EQUAL(conn_kept(&conn).n, 0);
    CU_ASSERT_EQUAL(conn_discard(&conn, scratch, SCRATCH, &got), CONN_AGAIN);
    CU_ASSERT_EQUAL(got, 0);
    close(peer);
    peer = -1;
    CU_ASSERT_EQUAL(conn_discard(&conn, scratch, SCRATCH, &got), CONN_EOF);
    close_pair();
}

static unsigned released;

static void release(void *owner)
{
    CU_ASSERT_PTR_EQUAL(owner, &released);
    released++;
}

static size_t drain(uint8_t *p, size_t cap)
{
    size_t n = 0;
    ssize_t r;

    while (n < cap && (r = read(peer, p + n, cap - n)) > 0) {
        n += (size_t)r;
    }
    return n;
}

static void test_output_in_order(void)
{
    static uint8_t large[300000];
    static uint8_t out[400000];
    size_t written;
    size_t n = 0;
    enum conn_rc rc = CONN_AGAIN;

    memset(large, 'L', sizeof(large));
    open_pair();
    CU_ASSERT_TRUE(conn_out_copy(&conn, "head", 4));
    CU_ASSERT_TRUE(conn_out_borrow(&conn, large, sizeof(large), release, &released));
    for (int i = 0; i < 1000; i++) {
        CU_ASSERT_TRUE_FATAL(conn_out_copy(&conn, "tail", 4));
    }
    CU_ASSERT_EQUAL(conn.out_n, 4 + sizeof(large) + 4000);
    while (rc == CONN_AGAIN) { /* more than a socket takes */
        rc = conn_flush(&conn, &written);
        n += drain(out + n, sizeof(out) - n);
    }
    CU_ASSERT_EQUAL(rc, CONN_OK);
    CU_ASSERT_EQUAL(n, 4 + sizeof(large) + 4000);
    CU_ASSERT_EQUAL(memcmp(out, "headL", 5), 0);
    CU_ASSERT_EQUAL(memcmp(out + 4 + sizeof(large) - 1, "Ltailtail", 9), 0);
    CU_ASSERT_EQUAL(released, 1);
    CU_ASSERT_PTR_NULL(conn.out_first);
    close_pair();
}

static void test_blocked_and_given_up(void)
{
    static uint8_t large[4000000];
    size_t written;

    released = 0;
    open_pair();
    CU_ASSERT_TRUE(conn_out_borrow(&conn, large, sizeof(large), release, &released));
    CU_ASSERT_EQUAL(conn_flush(&conn, &written), CONN_AGAIN);
    CU_ASSERT_TRUE(conn.blocked);
    CU_ASSERT(written > 0 && conn.out_n == sizeof(large) - written);
    CU_ASSERT_EQUAL(released, 0);
    close(peer);
    peer = -1;
    CU_ASSERT_EQUAL(conn_flush(&conn, &written), CONN_ERROR); /* EPIPE, no signal */
    close_pair();
    CU_ASSERT_EQUAL(released, 1); /* given up with the connection */
}

/* Puts n small pieces; returns the chunks they lie in, after they have left. */
static unsigned chunks_of(size_t n)
{
    static uint8_t out[100000];
    unsigned chunks = 0;
    size_t written;

    for (size_t i = 0; i < n; i++) {
        CU_ASSERT_TRUE_FATAL(conn_out_copy(&conn, "piece of output", 15));
    }
    for (const struct out_chunk *ch = conn.out_first; ch != NULL; ch = ch->next) {
        chunks++;
    }
    CU_ASSERT_EQUAL(conn_flush(&conn, &written), CONN_OK);
    CU_ASSERT_EQUAL(written, n * 15);
    CU_ASSERT_EQUAL(drain(out, sizeof(out)), n * 15);
    return chunks;
}

static void test_room_for_what_left_lately(void)
{
    static const uint8_t large[20000];
    size_t written;

    open_pair();
    CU_ASSERT(chunks_of(500) > 1);
    CU_ASSERT_EQUAL(chunks_of(500), 1);
    for (int i = 0; i < 10; i++) { /* small ones: it goes back by and by */
        CU_ASSERT_EQUAL(chunks_of(1), 1);
    }
    CU_ASSERT_EQUAL(conn.first_level, 0);
    CU_ASSERT(chunks_of(500) > 1);
    CU_ASSERT(chunks_of(5000) > 1); /* more than a first chunk ever has */
    CU_ASSERT(chunks_of(5000) > 1);
    for (int i = 0; i < 10; i++) { /* borrowed bytes need no room */
        static uint8_t out[sizeof(large)];
        CU_ASSERT_TRUE(conn_out_borrow(&conn, large, sizeof(large), release, &released));
        CU_ASSERT_EQUAL(conn_flush(&conn, &written), CONN_OK);
        CU_ASSERT_EQUAL(drain(out, sizeof(out)), sizeof(large));
    }
    CU_ASSERT_EQUAL(conn.first_level, 0);
    close_pair();
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(reads_and_keeps_a_tail)
    UNIT_TEST(full_tail_is_not_read_on)
    UNIT_TEST(discard_keeps_nothing)
    UNIT_TEST(large_packet_grows_with_what_came)
    UNIT_TEST(kept_has_room)
    UNIT_TEST(output_in_order)
    UNIT_TEST(blocked_and_given_up)
    UNIT_TEST(room_for_what_left_lately)
UNIT_TESTS_END
