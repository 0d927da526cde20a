/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unit.h - one executable holds several tests; ctest runs each in a process of its own.
 *
 *     static void test_overlap(void) { CU_ASSERT_EQUAL(...); }
 *
 *     UNIT_TESTS = {
 *         UNIT_TEST(overlap)
 *         UNIT_TEST(dollar_topics)
 *     UNIT_TESTS_END
 *
 * CMake reads the names from the lines that start with four spaces and UNIT_TEST(.
 */
#ifndef NOCTULE_TESTS_UNIT_H
#define NOCTULE_TESTS_UNIT_H

#include <CUnit/CUnit.h>

struct unit_test {
    const char *name;
    void (*fn)(void);
};

extern const struct unit_test unit_tests[];

#define UNIT_TESTS      const struct unit_test unit_tests[]
#define UNIT_TEST(name) {#name, test_##name},
#define UNIT_TESTS_END                                                                             \
    {NULL, NULL}                                                                                   \
    }                                                                                              \
    ;

/* Ends the process with a message: for set-up that has to work. */
#define UNIT_NEED(cond)                                                                            \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            unit_die(__FILE__, __LINE__, #cond);                                                   \
        }                                                                                          \
    } while (0)
_Noreturn void unit_die(const char *file, int line, const char *what);

#endif
