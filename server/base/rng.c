/* SPDX-License-Identifier: Apache-2.0 */
#include "server/base/rng.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

void rng_bytes(void *p, size_t n)
{
    uint8_t *at = p;

    while (n > 0) {
        ssize_t got = getrandom(at, n, 0);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            abort(); /* a predictable key would be worse than no broker */
        }
        at += got;
        n -= (size_t)got;
    }
}

uint64_t rng_u64(void)
{
    uint64_t v;

    rng_bytes(&v, sizeof(v));
    return v;
}

void rng_uuid(char out[RNG_UUID_SIZE])
{
    uint8_t b[16];

    rng_bytes(b, sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(out, RNG_UUID_SIZE,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
}
