/* SPDX-License-Identifier: Apache-2.0 */
/* words.h - random topics and filters from a fixed seed, over few levels and labels so that they
 * meet often. */
#ifndef NOCTULE_TESTS_WORDS_H
#define NOCTULE_TESTS_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WORDS_MAX 64 /* bytes of the longest text, with its NUL */

/* splitmix64 */
static inline uint64_t words_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline uint32_t words_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(words_next(state) % n);
}

/* 1..5 levels; as a filter with wildcards. Labels include the empty one, '$', and bytes beside '/'
 * in order. */
static inline size_t words_text(uint64_t *state, bool is_filter, char *buf)
{
    static const char *const labels[] = {"a", "b",  "ab", "a!",       "$s",
                                         "",  "a.", "a0", "\xc3\xa4", "b"};
    uint32_t levels = 1 + words_below(state, 5);

    buf[0] = '\0';
    for (uint32_t i = 0; i < levels; i++) {
        uint32_t wild = is_filter ? words_below(state, 8) : 7;

        if (i > 0) {
            strcat(buf, "/");
        }
        if (wild == 0) {
            strcat(buf, "#");
            break;
        }
        strcat(buf, wild <= 2 ? "+" : labels[words_below(state, sizeof(labels) / sizeof(*labels))]);
    }
    if (buf[0] == '\0') { /* one empty level is no topic [MQTT-4.7.3-1] */
        strcat(buf, "a");
    }
    return strlen(buf);
}

#endif
