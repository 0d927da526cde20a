/* SPDX-License-Identifier: Apache-2.0 */
/* The fast scan says what a slow one by the definition of UTF-8 (RFC 3629, 3) says. */
#include "server/codec/utf8.h"
#include "tests/fuzz/fuzz.h"

/* One character by arithmetic: its value from the bits, then whether these bytes were the shortest
 * for it. */
static size_t read_char(const uint8_t *p, size_t n, uint32_t *value)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = 1;

    *value = p[0];
    if (p[0] >= 0x80) {
        size = p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
        *value = p[0] & (size == 2 ? 0x1fu : size == 3 ? 0x0fu : 0x07u);
    }
    if (size == 0 || size > n) {
        return 0;
    }
    for (size_t i = 1; i < size; i++) {
        if (p[i] >> 6 != 2) {
            return 0;
        }
        *value = *value << 6 | (p[i] & 0x3fu);
    }
    if (*value < least[size] || *value > 0x10ffff || (*value >= 0xd800 && *value <= 0xdfff)) {
        return 0;
    }
    return size;
}

static int is_control(uint32_t value)
{
    return (value >= 1 && value <= 0x1f) || (value >= 0x7f && value <= 0x9f) ||
           (value >= 0xfdd0 && value <= 0xfdef) || (value & 0xfffe) == 0xfffe;
}

static unsigned slow_scan(const uint8_t *p, size_t n)
{
    unsigned found = 0;
    uint32_t value;

    for (size_t at = 0; at < n;) {
        const size_t size = read_char(p + at, n - at, &value);

        if (size == 0) {
            return found | UTF8_ILL_FORMED;
        }
        found |= value == 0 ? UTF8_NUL : 0;
        found |= is_control(value) ? UTF8_CONTROL : 0;
        found |= value == '+' || value == '#' ? UTF8_WILDCARD : 0;
        at += size;
    }
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct span s = span_of(data, size);
    const unsigned found = slow_scan(data, size);

    FUZZ_CHECK(utf8_scan(s) == found);
    FUZZ_CHECK(utf8_scan_text(s) == (found & ~UTF8_WILDCARD));
    FUZZ_CHECK(utf8_is_valid(s) == ((found & (UTF8_NUL | UTF8_ILL_FORMED)) == 0));
    FUZZ_CHECK(utf8_is_valid_payload(s) == ((found & UTF8_ILL_FORMED) == 0));
    return 0;
}
