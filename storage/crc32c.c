/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/crc32c.h"

#include <string.h>

/* Of every 4-bit value, for the reflected polynomial 0x82f63b78. */
static const uint32_t nibble[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = data;

    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = (crc >> 4) ^ nibble[crc & 15];
        crc = (crc >> 4) ^ nibble[crc & 15];
    }
    return ~crc;
}

#if defined(__x86_64__)
#define LANE       4096u
#define LANE_SHIFT 0x35d73a62u /* x^(8 * LANE) modulo the polynomial */

/* A product of polynomials modulo 0x82f63b78, both reflected. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;

    for (int i = 0; i < 32; i++) {
        product ^= b & (0u - (a >> 31));
        a <<= 1;
        b = (b >> 1) ^ (0x82f63b78u & (0u - (b & 1)));
    }
    return product;
}

/* The instruction answers three cycles later and takes one: three parts side by side cost what one
 * does, and are put together by what as many zero bytes behind them would have made of each. */
__attribute__((target("sse4.2"))) static uint64_t three_lanes(uint64_t a, const uint8_t *p)
{
    uint64_t b = 0;
    uint64_t c = 0;

    for (size_t i = 0; i < LANE; i += 8) {
        uint64_t v[3];
        memcpy(&v[0], p + i, 8);
        memcpy(&v[1], p + LANE + i, 8);
        memcpy(&v[2], p + (size_t)2 * LANE + i, 8);
        a = __builtin_ia32_crc32di(a, v[0]);
        b = __builtin_ia32_crc32di(b, v[1]);
        c = __builtin_ia32_crc32di(c, v[2]);
    }
    b ^= multiply(LANE_SHIFT, (uint32_t)a);
    return c ^ multiply(LANE_SHIFT, (uint32_t)b);
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *p,
                                                                 size_t n)
{
    uint64_t c = ~crc;

    for (; n >= (size_t)3 * LANE; n -= (size_t)3 * LANE, p += (size_t)3 * LANE) {
        c = three_lanes(c, p);
    }
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        c = __builtin_ia32_crc32di(c, v);
    }
    for (; n > 0; n--, p++) {
        c = __builtin_ia32_crc32qi((uint32_t)c, *p);
    }
    return ~(uint32_t)c;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t n)
{
    if (__builtin_cpu_supports("sse4.2")) {
        return by_instruction(crc, data, n);
    }
    return crc32c_portable(crc, data, n);
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t n)
{
    return crc32c_portable(crc, data, n);
}
#endif
