/* SPDX-License-Identifier: Apache-2.0 */
/* make_store DIR: a store with the effect of 3000 random units, closed. */
#include "tests/support/store_model.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    const struct store_options o = {.dir = argc == 2 ? argv[1] : "",
                                    .state_map = 1u << 28,
                                    .journal_map = 1u << 27,
                                    .fold_records = 300,
                                    .ballast = 1u << 16};
    struct model *m = model_create(77);
    struct store *s;
    char err[512];

    if (argc != 2 || store_open(&o, &s, err, sizeof(err)) != ST_OK) {
        fprintf(stderr, "usage: make_store DIR\n");
        return 1;
    }
    model_run(m, s, 3000, 50);
    store_close(&s);
    model_destroy(m);
    return 0;
}
