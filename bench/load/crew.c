/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/crew.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/load/drive.h"

#define PARENT_NAP_US 20000u

struct worker {
    struct result r; /* the worker's until it has ended, then the parent's */
    pid_t pid;
    bool ended;
    _Atomic uint64_t count; /* for progress */
};

/*
 * Shared memory. `count` and `through` are relaxed: each is one number that only grows, and a poke
 * (a system call on both sides) follows a change of the latter. `arrived`, `failed` and `ended` are
 * rare: sequentially consistent. A result is read after waitpid() of who wrote it.
 */
struct crew {
    uint32_t n;
    uint32_t publishers;
    _Atomic uint32_t arrived; /* at all meetings so far */
    atomic_bool failed;
    atomic_bool ended;    /* worker 0 has published all, and all is through */
    int poke[2];          /* worker 0 reads [0], the others write [1] */
    struct conn listener; /* worker 0's, on poke[0] */
    struct worker workers[WORKERS_MAX];
    _Atomic uint64_t through[]; /* [worker][publisher] */
};

static void *shared_zalloc(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        die("no shared memory: %s", strerror(errno));
    }
    return p;
}

/* --- within a worker --- */

void crew_meet(struct run *run)
{
    struct crew *crew = run->crew;

    if (crew == NULL) {
        return;
    }
    run->meetings++;
    atomic_fetch_add(&crew->arrived, 1);
    while (atomic_load(&crew->arrived) < run->meetings * crew->n && !atomic_load(&crew->failed)) {
        loop_turn(&run->loop, 1);
    }
}

void crew_tell(struct run *run)
{
    struct crew *crew = run->crew;

    if (crew == NULL) {
        return;
    }
    if (run->progress.count != NULL) {
        atomic_store_explicit(&crew->workers[run->worker].count, *run->progress.count,
                              memory_order_relaxed);
    }
    if (run->r.failures == 0 && atomic_load(&crew->failed)) {
        run_fail(run, "worker %u gives up: another one failed", run->worker);
    }
}

static _Atomic uint64_t *through_at(const struct run *run, uint32_t worker, uint32_t publisher)
{
    return &run->crew->through[(size_t)worker * run->crew->publishers + publisher];
}

void crew_set_through(struct run *run, uint32_t publisher, uint64_t through)
{
    atomic_store_explicit(through_at(run, run->worker, publisher), through, memory_order_relaxed);
}

void crew_poke(struct run *run)
{
    /* A full pipe has pokes enough in it. What was set before is seen by who reads this byte. */
    (void)!send(run->crew->poke[1], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

uint64_t crew_through(const struct run *run, uint32_t publisher)
{
    uint64_t least = UINT64_MAX;

    for (uint32_t w = 1; run->crew != NULL && w < run->crew->n; w++) {
        uint64_t v = atomic_load_explicit(through_at(run, w, publisher), memory_order_relaxed);

        least = v < least ? v : least;
    }
    return least;
}

static size_t on_poke(struct conn *c, struct span in)
{
    struct run *run = (struct run *)((char *)c->loop - offsetof(struct run, loop));

    for (uint32_t p = 0; p < run->crew->publishers; p++) {
        drive_moved(run, p);
    }
    run_event(run);
    return in.n;
}

static void on_poke_closed(struct conn *c, const char *why)
{
    (void)c;
    (void)why;
}

void crew_listen(struct run *run)
{
    static const struct conn_ops ops = {.bytes = on_poke, .closed = on_poke_closed};

    if (run->crew != NULL && run->worker == 0) {
        conn_adopt(&run->crew->listener, &run->loop, run->crew->poke[0], &ops);
    }
}

void crew_end(struct run *run)
{
    if (run->crew != NULL) {
        atomic_store(&run->crew->ended, true);
    }
}

bool crew_has_ended(const struct run *run)
{
    return atomic_load(&run->crew->ended) || atomic_load(&run->crew->failed);
}

/* --- shares --- */

static uint32_t part(uint32_t all, uint32_t worker, uint32_t workers)
{
    return all / workers + (worker < all % workers);
}

/* This worker's options; first_client is what the workers before it have. */
static void take_share(struct run *run, struct options *o, uint32_t worker, uint32_t workers)
{
    if (strcmp(o->scenario, "fanout") == 0) {
        for (uint32_t w = 0; w < worker; w++) {
            run->first_client += part(o->subscribers, w, workers);
        }
        o->subscribers = part(o->subscribers, worker, workers);
        return;
    }
    o->rate *= (double)part(o->clients, worker, workers) / o->clients;
    o->clients = part(o->clients, worker, workers);
    if (strcmp(o->scenario, "p2p") == 0) {
        o->publishers = o->subscribers = o->clients;
    }
    run->id += worker; /* topics and client ids of its own */
}

_Noreturn static void work(struct run *run, const struct scenario *s, uint32_t worker)
{
    struct options mine = *run->o;
    struct crew *crew = run->crew;

    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    take_share(run, &mine, worker, crew->n);
    run->o = &mine;
    run->worker = worker;
    run->progress.next_ns = UINT64_MAX; /* the parent shows it */
    loop_init(&run->loop);
    loop_set_sources(&run->loop, mine.sources, worker);
    s->run(run);
    loop_fini(&run->loop);
    crew->workers[worker].r = run->r;
    if (run->r.failures > 0) {
        atomic_store(&crew->failed, true);
    }
    fflush(NULL);
    _exit(run->r.failures > 0 ? 1 : 0);
}

/* --- the parent --- */

static void add(struct result *sum, const struct result *r)
{
    sum->sent += r->sent;
    sum->delivered += r->delivered;
    sum->repeated += r->repeated;
    sum->failures += r->failures;
    sum->done += r->done;
    sum->seconds = r->seconds > sum->seconds ? r->seconds : sum->seconds;
    sum->rate_reached += r->rate_reached;
    sum->own_cpu_ns += r->own_cpu_ns;
    sum->sent_by_alias += r->sent_by_alias;
    sum->received_by_alias += r->received_by_alias;
    sum->connections += r->connections;
    histogram_merge(&sum->latency, &r->latency);
}

static void start_all(struct run *run, const struct scenario *s)
{
    struct crew *crew = run->crew;

    fflush(NULL);
    for (uint32_t w = 0; w < crew->n; w++) {
        pid_t pid = fork();

        if (pid < 0) {
            die("fork: %s", strerror(errno));
        }
        if (pid == 0) {
            work(run, s, w);
        }
        crew->workers[w].pid = pid; /* shared: not by the child */
    }
}

/* How many have not ended. */
static uint32_t reap(struct run *run)
{
    struct crew *crew = run->crew;
    uint32_t left = 0;

    for (uint32_t w = 0; w < crew->n; w++) {
        struct worker *k = &crew->workers[w];
        int status;

        if (!k->ended && waitpid(k->pid, &status, WNOHANG) == k->pid) {
            k->ended = true;
            if (!WIFEXITED(status) || WEXITSTATUS(status) > 1) {
                atomic_store(&crew->failed, true);
                run_fail(run, "worker %u ended early", w);
            }
        }
        left += !k->ended;
    }
    return left;
}

static void watch(struct run *run)
{
    struct crew *crew = run->crew;
    uint64_t count = 0;

    progress_phase(&run->progress, "running", "in all", &count);
    while (reap(run) > 0) {
        usleep(PARENT_NAP_US);
        count = 0;
        for (uint32_t w = 0; w < crew->n; w++) {
            count += atomic_load_explicit(&crew->workers[w].count, memory_order_relaxed);
        }
        progress_tick(&run->progress, clock_ns());
    }
}

void crew_run(struct run *run, const struct scenario *s)
{
    const struct options *o = run->o;
    size_t size =
        sizeof(struct crew) + (size_t)o->workers * (o->publishers + 1u) * sizeof(_Atomic uint64_t);
    struct crew *crew = shared_zalloc(size);

    crew->n = o->workers;
    crew->publishers = o->publishers;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, crew->poke) != 0) {
        die("socketpair: %s", strerror(errno));
    }
    run->crew = crew;
    start_all(run, s);
    watch(run);
    for (uint32_t w = 0; w < crew->n; w++) {
        add(&run->r, &crew->workers[w].r);
    }
    run->r.before = crew->workers[0].r.before;
    run->r.after = crew->workers[0].r.after;
    close(crew->poke[0]);
    close(crew->poke[1]);
    (void)munmap(crew, size);
    run->crew = NULL;
}
