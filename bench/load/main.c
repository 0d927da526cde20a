/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - noctule-bench: drives a broker with many clients and checks every message that comes
 * back.
 *
 * Exit code: 0 all checks held, 1 one failed, 2 wrong use or no way to start.
 */
#include <sys/resource.h>
#include <unistd.h>

#include "bench/load/scenario.h"

static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    static struct run run;
    struct options o;

    options_parse(&o, argc, argv);
    raise_descriptor_limit();
    run.o = &o;
    run.id = (uint32_t)(clock_ns() ^ ((uint64_t)getpid() << 16));
    if (!address_parse(&run.address, o.host, o.port)) {
        die("%s: no such address", o.host);
    }
    loop_init(&run.loop);
    progress_init(&run.progress);
    scenario_find(o.scenario)->run(&run);
    loop_fini(&run.loop);
    report_print(&run);
    return run.r.failures > 0 ? 1 : 0;
}
