/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records one after the other. Each that is accepted lies within the input and encodes to the very
 * bytes it was decoded from; a body without its time, as version 1 wrote it, gets a byte for that.
 */
#include "storage/record.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

#define OLD_BODY 5

static void check_bytes(struct store_bytes b, const uint8_t *data, size_t size)
{
    fuzz_check_view(span_of(b.p, b.n), span_of(data, size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *p = data;
    const uint8_t *end = data + size;
    struct store_op op;
    struct group g;

    while (p != end) {
        const uint8_t *start = p;
        uint8_t *room;
        size_t n;

        if (!record_decode(&p, end, &op)) {
            FUZZ_CHECK(p == start);
            break;
        }
        FUZZ_CHECK(p > start && p <= end);
        check_bytes(op.name, data, size);
        check_bytes(op.props, data, size);
        check_bytes(op.data, data, size);
        n = record_size(&op);
        FUZZ_CHECK(n == (size_t)(p - start) + (*start == OLD_BODY));
        room = fuzz_room(n);
        FUZZ_CHECK(record_encode(room, &op) == room + n);
        FUZZ_CHECK(*start == OLD_BODY || memcmp(room, start, n) == 0);
        free(room);
    }
    if (group_open(data, size, &g)) {
        FUZZ_CHECK(g.length == size);
    }
    return 0;
}
