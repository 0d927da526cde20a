/* SPDX-License-Identifier: Apache-2.0 */
#include "server/codec/utf8.h"
#include "tests/unit/codec/hex.h"

/* Character sequences at the edges of Unicode's table 3-7. */
static const struct {
    const char *hex;
    bool ok;
} sequences[] = {
    {"01", true},
    {"7f", true},
    {"c280", true},
    {"dfbf", true},
    {"e0a080", true},
    {"e0bfbf", true},
    {"e18080", true},
    {"ecbfbf", true},
    {"ed8080", true},
    {"ed9fbf", true},
    {"ee8080", true},
    {"efbfbf", true},
    {"efbbbf", true},
    {"efb790", true},
    {"efbfbe", true}, /* BOM and noncharacters stay */
    {"f0908080", true},
    {"f0bfbfbf", true},
    {"f1808080", true},
    {"f3bfbfbf", true},
    {"f4808080", true},
    {"f48fbfbf", true},
    /* tails alone, heads alone, bytes that are neither */
    {"80", false},
    {"bf", false},
    {"c2", false},
    {"df", false},
    {"e0a0", false},
    {"ef", false},
    {"efbf", false},
    {"f09080", false},
    {"f090", false},
    {"f4", false},
    {"fe", false},
    {"ff", false},
    /* a tail missing in the middle */
    {"c241", false},
    {"c2c2", false},
    {"e08041", false},
    {"e141bf", false},
    {"e1bf41", false},
    {"f19041bf", false},
    {"f190bf41", false},
    {"f141bfbf", false},
    {"c3c0", false},
    {"e18100", false},
    /* overlong */
    {"c080", false},
    {"c0af", false},
    {"c1bf", false},
    {"e08080", false},
    {"e09fbf", false},
    {"f0808080", false},
    {"f08fbfbf", false},
    /* surrogates: single, and a pair of them */
    {"eda080", false},
    {"edafbf", false},
    {"edb080", false},
    {"edbfbf", false},
    {"eda081edb080", false},
    /* above U+10FFFF, and the five and six byte forms of old */
    {"f4908080", false},
    {"f5808080", false},
    {"f7bfbfbf", false},
    {"f888808080", false},
    {"fc8480808080", false},
};

/* In every alignment to the eight-byte steps: behind 0-17 letters, with 0-9 letters behind. */
static void test_sequences(void)
{
    for (size_t i = 0; i < sizeof(sequences) / sizeof(sequences[0]); i++) {
        struct bytes seq = bytes_of(sequences[i].hex);

        for (size_t before = 0; before < 18; before++) {
            for (size_t after = 0; after < 10; after++) {
                struct bytes s = bytes_fill(before + seq.n + after, 'x');

                memcpy(s.p + before, seq.p, seq.n);
                CHECK(sequences[i].hex, utf8_is_valid(bytes_span(s)) == sequences[i].ok);
                CHECK(sequences[i].hex, utf8_is_valid_payload(bytes_span(s)) == sequences[i].ok);
                CHECK(sequences[i].hex,
                      utf8_scan(bytes_span(s)) == (sequences[i].ok ? 0 : UTF8_ILL_FORMED));
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
