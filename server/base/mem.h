/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem.h - how much memory the process has in use, as its allocator counts it.
 *
 * The process-wide budget rests on this figure instead of on counters along the path of a message:
 * it costs nothing there and forgets nothing. Threads    any; meant for one slow caller (some tens
 * of microseconds a call).
 */
#ifndef NOCTULE_BASE_MEM_H
#define NOCTULE_BASE_MEM_H

#include <stdint.h>

/* Bytes allocated and not freed: from jemalloc, the sanitizer's or the C library's allocator. */
uint64_t mem_in_use(void);

/* Pages that have been free for a while go back to the system, also those of threads that sleep: once
 * a second is enough. Does nothing where the allocator cannot. */
void mem_give_back(void);

/* Memory the process may have: the smaller of the machine's and its control group's (bytes). */
uint64_t mem_available_to_process(void);

#endif
