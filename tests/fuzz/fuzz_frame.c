/* SPDX-License-Identifier: Apache-2.0 */
/* Four bytes of limit, then a stream of packets. What is taken off it encodes to the same header.
 */
#include "server/codec/frame.h"
#include "tests/fuzz/fuzz.h"

static void check_frame(struct span in, const struct frame *f)
{
    uint8_t header[MQTT_MAX_FIXED_HEADER];
    struct frame again;
    const char *why = NULL;
    const size_t n = frame_put_header(header, in.p[0], (uint32_t)f->body.n);

    FUZZ_CHECK(f->total <= in.n);
    FUZZ_CHECK(f->total == n + f->body.n);
    FUZZ_CHECK(f->body.p == in.p + n);
    FUZZ_CHECK(memcmp(header, in.p, n) == 0);
    /* A byte less asks for that byte; and the limit is kept to the byte. */
    FUZZ_CHECK(frame_next(span_of(in.p, f->total - 1), SIZE_MAX, &again, &why) == FRAME_NEED_MORE);
    FUZZ_CHECK(again.total == f->total || again.total == 0);
    FUZZ_CHECK(frame_next(in, f->total - 1, &again, &why) == FRAME_TOO_LARGE);
    if (f->type != MQTT_AUTH) {
        FUZZ_CHECK(frame_next_31(in, f->total, &again, &why) == FRAME_OK);
        FUZZ_CHECK(again.total == f->total && again.flags == f->flags);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span in;
    uint32_t limit;

    if (size < sizeof(limit)) {
        return 0;
    }
    memcpy(&limit, data, sizeof(limit));
    in = span_of(data + sizeof(limit), size - sizeof(limit));
    for (;;) {
        struct frame f;
        const char *why = NULL;
        const enum frame_rc rc = frame_next(in, limit, &f, &why);

        FUZZ_CHECK((why != NULL) == (rc == FRAME_MALFORMED || rc == FRAME_TOO_LARGE));
        FUZZ_CHECK(rc != FRAME_NEED_MORE || f.total == 0 || (f.total > in.n && f.total <= limit));
        FUZZ_CHECK(rc != FRAME_TOO_LARGE || f.total > limit);
        if (rc != FRAME_OK) {
            return 0;
        }
        check_frame(in, &f);
        in = span_of(in.p + f.total, in.n - f.total);
    }
}
