/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/utf8.h"
#include "tests/unit/codec/hex.h"

/* Character sequences at the edges of Unicode's table 3-7. */
static const struct {
    const char *hex;
    unsigned found;
} sequences[] = {
    {"01", UTF8_CONTROL},
    {"1f", UTF8_CONTROL},
    {"20", 0},
    {"7e", 0},
    {"7f", UTF8_CONTROL},
    {"c280", UTF8_CONTROL},
    {"c29f", UTF8_CONTROL},
    {"c2a0", 0},
    {"d09f", 0},
    {"dfbf", 0},
    {"e0a080", 0},
    {"e0bfbf", 0},
    {"e18080", 0},
    {"ecbfbf", 0},
    {"ed8080", 0},
    {"ed9fbf", 0},
    {"ee8080", 0},
    {"efbfbd", 0},
    {"efbfbf", UTF8_CONTROL},
    {"efbbbf", 0},
    {"efb78f", 0},
    {"efb790", UTF8_CONTROL},
    {"efb7af", UTF8_CONTROL},
    {"efb7b0", 0},
    {"efbfbe", UTF8_CONTROL},
    {"f0908080", 0},
    {"f09fbfbd", 0},
    {"f09fbfbe", UTF8_CONTROL},
    {"f0afbebf", 0},
    {"f0bfbfbf", UTF8_CONTROL},
    {"f1808080", 0},
    {"f3bfbfbf", UTF8_CONTROL},
    {"f4808080", 0},
    {"f48fbfbf", UTF8_CONTROL},
    /* tails alone, heads alone, bytes that are neither */
    {"80", UTF8_ILL_FORMED},
    {"bf", UTF8_ILL_FORMED},
    {"c2", UTF8_ILL_FORMED},
    {"df", UTF8_ILL_FORMED},
    {"e0a0", UTF8_ILL_FORMED},
    {"ef", UTF8_ILL_FORMED},
    {"efbf", UTF8_ILL_FORMED},
    {"f09080", UTF8_ILL_FORMED},
    {"f090", UTF8_ILL_FORMED},
    {"f4", UTF8_ILL_FORMED},
    {"fe", UTF8_ILL_FORMED},
    {"ff", UTF8_ILL_FORMED},
    /* a tail missing in the middle */
    {"c241", UTF8_ILL_FORMED},
    {"c2c2", UTF8_ILL_FORMED},
    {"e08041", UTF8_ILL_FORMED},
    {"e141bf", UTF8_ILL_FORMED},
    {"e1bf41", UTF8_ILL_FORMED},
    {"f19041bf", UTF8_ILL_FORMED},
    {"f190bf41", UTF8_ILL_FORMED},
    {"f141bfbf", UTF8_ILL_FORMED},
    {"c3c0", UTF8_ILL_FORMED},
    {"e18100", UTF8_ILL_FORMED},
    /* overlong */
    {"c080", UTF8_ILL_FORMED},
    {"c0af", UTF8_ILL_FORMED},
    {"c1bf", UTF8_ILL_FORMED},
    {"e08080", UTF8_ILL_FORMED},
    {"e09fbf", UTF8_ILL_FORMED},
    {"f0808080", UTF8_ILL_FORMED},
    {"f08fbfbf", UTF8_ILL_FORMED},
    /* surrogates: single, and a pair of them */
    {"eda080", UTF8_ILL_FORMED},
    {"edafbf", UTF8_ILL_FORMED},
    {"edb080", UTF8_ILL_FORMED},
    {"edbfbf", UTF8_ILL_FORMED},
    {"eda081edb080", UTF8_ILL_FORMED},
    /* above U+10FFFF, and the five and six byte forms of old */
    {"f4908080", UTF8_ILL_FORMED},
    {"f5808080", UTF8_ILL_FORMED},
    {"f7bfbfbf", UTF8_ILL_FORMED},
    {"f888808080", UTF8_ILL_FORMED},
    {"fc8480808080", UTF8_ILL_FORMED},
};

/* In every alignment to the eight-byte steps: behind 0-17 letters, with 0-9 letters behind. */
static void test_sequences(void)
{
    for (size_t i = 0; i < sizeof(sequences) / sizeof(sequences[0]); i++) {
        struct bytes seq = bytes_of(sequences[i].hex);
        const unsigned found = sequences[i].found;
        const bool ok = found != UTF8_ILL_FORMED;

        for (size_t before = 0; before < 18; before++) {
            for (size_t after = 0; after < 10; after++) {
                struct bytes s = bytes_fill(before + seq.n + after, 'x');

                memcpy(s.p + before, seq.p, seq.n);
                CHECK(sequences[i].hex, utf8_is_valid(bytes_span(s)) == ok);
                CHECK(sequences[i].hex, utf8_is_valid_payload(bytes_span(s)) == ok);
                CHECK(sequences[i].hex, utf8_scan(bytes_span(s)) == found);
                bytes_free(&s);
            }
        }
        bytes_free(&seq);
    }
}

/* One special byte at every position of strings of every length up to 40. */
static void check_byte(uint8_t byte, unsigned found)
{
    for (size_t n = 1; n <= 40; n++) {
        for (size_t at = 0; at < n; at++) {
            struct bytes s = bytes_fill(n, 'x');

            s.p[at] = byte;
            CU_ASSERT_EQUAL(utf8_scan(bytes_span(s)), found);
            CU_ASSERT_EQUAL(utf8_scan_text(bytes_span(s)), found & ~UTF8_WILDCARD);
            CU_ASSERT_EQUAL(utf8_is_valid(bytes_span(s)), byte != 0 && byte < 0x80);
            CU_ASSERT_EQUAL(utf8_is_valid_payload(bytes_span(s)), byte < 0x80);
            bytes_free(&s);
        }
    }
}

static void test_every_byte(void)
{
    for (unsigned b = 0; b < 256; b++) {
        unsigned found = b == 0 ? UTF8_NUL : b >= 0x80 ? UTF8_ILL_FORMED : 0;

        if (b == '+' || b == '#') {
            found = UTF8_WILDCARD;
        } else if ((b > 0 && b < 0x20) || b == 0x7f) {
            found = UTF8_CONTROL;
        }
        check_byte((uint8_t)b, found);
    }
}

static void test_empty(void)
{
    CU_ASSERT_TRUE(utf8_is_valid(SPAN_NULL));
    CU_ASSERT_TRUE(utf8_is_valid_payload(SPAN_NULL));
    CU_ASSERT_EQUAL(utf8_scan(SPAN_NULL), 0);
}

static const struct {
    const char *hex;
    unsigned found;
} mixed[] = {
    {"'a/+/#'", UTF8_WILDCARD},
    {"'temperature/' c3a4 '/#'", UTF8_WILDCARD},
    {"'+' 00", UTF8_WILDCARD | UTF8_NUL},
    {"e282ac '/' 00 '/+/abcdefghijkl'", UTF8_WILDCARD | UTF8_NUL},
    {"'abcdefgh+' 80", UTF8_WILDCARD | UTF8_ILL_FORMED},
    {"'abcdefgh' 80 '+'", UTF8_ILL_FORMED}, /* the scan ended before */
    {"00 ff", UTF8_NUL | UTF8_ILL_FORMED},
    {"'a' 09 '/+/abcdefghijkl' 00", UTF8_WILDCARD | UTF8_NUL | UTF8_CONTROL},
    {"'abcdefgh' efbfbe '/+'", UTF8_WILDCARD | UTF8_CONTROL},
    {"'abcdefg' e282ac e282ac e282ac", 0}, /* characters across the steps */
    {"f09f9880 f09f9880 f09f9880", 0},
    {"e282ac e282ac 'abcdefgh' e282ac '#'", UTF8_WILDCARD},
};

static void test_mixed(void)
{
    for (size_t i = 0; i < sizeof(mixed) / sizeof(mixed[0]); i++) {
        struct bytes s = bytes_of(mixed[i].hex);

        CHECK(mixed[i].hex, utf8_scan(bytes_span(s)) == mixed[i].found);
        CHECK(mixed[i].hex, utf8_is_valid(bytes_span(s)) ==
                                ((mixed[i].found & (UTF8_NUL | UTF8_ILL_FORMED)) == 0));
        bytes_free(&s);
    }
}

static bool is_control(uint32_t cp)
{
    return (cp >= 1 && cp <= 0x1f) || (cp >= 0x7f && cp <= 0x9f) ||
           (cp >= 0xfdd0 && cp <= 0xfdef) || (cp & 0xfffe) == 0xfffe;
}

/* Every code point, encoded by the definition: all but U+0000 and the surrogates are allowed. */
static void test_every_code_point(void)
{
    unsigned wrong = 0;

    for (uint32_t cp = 0; cp <= 0x110000; cp++) {
        uint8_t s[4];
        size_t n;

        if (cp < 0x80) {
            n = 1;
            s[0] = (uint8_t)cp;
        } else if (cp < 0x800) {
            n = 2;
            s[0] = (uint8_t)(0xc0 | cp >> 6);
        } else if (cp < 0x10000) {
            n = 3;
            s[0] = (uint8_t)(0xe0 | cp >> 12);
        } else {
            n = 4;
            s[0] = (uint8_t)(0xf0 | cp >> 18);
        }
        for (size_t i = 1; i < n; i++) {
            s[i] = (uint8_t)(0x80 | (cp >> (6 * (n - 1 - i)) & 0x3f));
        }
        wrong += utf8_is_valid(span_of(s, n)) !=
                 (cp != 0 && cp < 0x110000 && (cp < 0xd800 || cp > 0xdfff));
        wrong += cp < 0x110000 && (cp < 0xd800 || cp > 0xdfff) &&
                 ((utf8_scan(span_of(s, n)) & UTF8_CONTROL) != 0) != is_control(cp);
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* clang-format off */
UNIT_TESTS = {
    UNIT_TEST(sequences)
    UNIT_TEST(every_byte)
    UNIT_TEST(empty)
    UNIT_TEST(mixed)
    UNIT_TEST(every_code_point)
UNIT_TESTS_END
