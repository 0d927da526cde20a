/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - noctule-bench: drives a broker with many clients and checks every message that comes
 * back.
 *
 * Exit code: 0 all checks held, 1 one failed, 2 wrong use or no way to start.
 */
#include <arpa/inet.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/load/crew.h"

#define OTHER_DESCRIPTORS 64u /* than connections: epoll, /proc, standard streams */

/* To the most that is allowed, which has to be enough for a process's share of the connections. */
static void raise_descriptor_limit(const struct options *o)
{
    uint64_t need = scenario_connections(o) / o->workers + OTHER_DESCRIPTORS;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < need) {
        die("%llu descriptors are needed in a process, %llu are allowed (ulimit -Hn)",
            (unsigned long long)need, (unsigned long long)limit.rlim_cur);
    }
}

static void resolve(struct run *run, const struct options *o)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)&run->address.sa;

    if (!address_parse(&run->address, o->host, o->port)) {
        die("%s: no such address", o->host);
    }
    if (o->sources > 1 &&
        (in->sin_family != AF_INET || (ntohl(in->sin_addr.s_addr) >> IN_CLASSA_NSHIFT) != 127)) {
        die("--sources above 1, or above 28,000 connections: only to 127.0.0.0/8");
    }
}

/* In this process. */
static void run_alone(struct run *run, const struct scenario *s)
{
    loop_init(&run->loop);
    loop_set_sources(&run->loop, run->o->sources, 0);
    s->run(run);
    loop_fini(&run->loop);
}

int main(int argc, char **argv)
{
    static struct run run;
    struct options o;
    const struct scenario *s;

    options_parse(&o, argc, argv);
    s = scenario_find(o.scenario);
    raise_descriptor_limit(&o);
    run.o = &o;
    run.id = (uint32_t)(clock_ns() ^ ((uint64_t)getpid() << 16));
    resolve(&run, &o);
    progress_init(&run.progress);
    if (o.workers > 1) {
        crew_run(&run, s);
    } else {
        run_alone(&run, s);
    }
    if (s->conclude != NULL) {
        s->conclude(&run);
    }
    report_print(&run, s->unit);
    return run.r.failures > 0 ? 1 : 0;
}
