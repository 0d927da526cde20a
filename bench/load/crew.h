/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crew.h - one run spread over processes, where it needs more connections than one process may have
 * or more CPU than one thread gives.
 *
 * The parent forks the workers, each runs the scenario with its share of the connections, leaves
 * its result in shared memory and ends; the parent adds them up. What is measured begins and ends
 * together. p2p, idle and connect fall apart into independent runs; in a fanout worker 0 has the
 * publishers, and the others tell it how far their receivers are.
 *
 * Failure    a worker whose check fails, that dies or cannot start makes the run a failed one;
 * nobody waits for it any more.
 */
#ifndef NOCTULE_BENCH_CREW_H
#define NOCTULE_BENCH_CREW_H

#include "bench/load/scenario.h"

#define WORKERS_MAX 64u

/* Runs the scenario in run->o->workers processes; run->r is what they found together. */
void crew_run(struct run *run, const struct scenario *s);

/* --- within a worker; without a crew all of it is trivial --- */

/* Turns the loop until all workers are here. */
void crew_meet(struct run *run);
/* At each turn: tells the parent how far this worker is, for the progress line; and gives up, as a
 * failure, when another worker has failed. */
void crew_tell(struct run *run);

/* --- a fanout: worker 0 publishes --- */

static inline bool crew_is_receiver(const struct run *run)
{
    return run->crew != NULL && run->worker > 0;
}
/* A receiver's: the publisher's numbers below `through` came to all of mine ... */
void crew_set_through(struct run *run, uint32_t publisher, uint64_t through);
/* ... and worker 0 should look. */
void crew_poke(struct run *run);
/* Worker 0's: how far the other workers are. */
uint64_t crew_through(const struct run *run, uint32_t publisher);
/* Worker 0's: calls drive_moved() for every publisher when somebody pokes. */
void crew_listen(struct run *run);
/* Worker 0's: all is published and through. */
void crew_end(struct run *run);
/* A receiver's: whether it is, or somebody failed. */
bool crew_has_ended(const struct run *run);

#endif
