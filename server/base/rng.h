/* SPDX-License-Identifier: Apache-2.0 */
/* rng.h - random bytes from the kernel: hash keys, assigned client ids. Any thread; never fails
 * (aborts). */
#ifndef NOCTULE_BASE_RNG_H
#define NOCTULE_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

void rng_bytes(void *p, size_t n);
uint64_t rng_u64(void);

#define RNG_UUID_SIZE 37u               /* 36 characters and NUL */
void rng_uuid(char out[RNG_UUID_SIZE]); /* version 4 */

#endif
