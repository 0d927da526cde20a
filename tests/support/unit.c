/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/unit.h"

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void unit_die(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: set-up failed: %s\n", file, line, what);
    abort();
}

/* Without an argument all tests run; with one, that test only. Exit 1 on a failed assertion, 2 on misuse. */
int main(int argc, char **argv)
{
    CU_pSuite suite;
    unsigned added = 0;
    unsigned failed;

    if (CU_initialize_registry() != CUE_SUCCESS) {
        return 2;
    }
    suite = CU_add_suite(argv[0], NULL, NULL);
    for (const struct unit_test *t = unit_tests; suite != NULL && t->name != NULL; t++) {
        if ((argc < 2 || strcmp(argv[1], t->name) == 0) && CU_add_test(suite, t->name, t->fn) != NULL) {
            added++;
        }
    }
    if (added == 0) {
        fprintf(stderr, "%s: no test named '%s'\n", argv[0], argc < 2 ? "" : argv[1]);
        return 2;
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    failed = CU_get_number_of_failures();
    CU_cleanup_registry();
    return failed == 0 ? 0 : 1;
}
