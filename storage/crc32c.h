/* SPDX-License-Identifier: Apache-2.0 */
/* crc32c.h - CRC-32C (Castagnoli), by the processor's instruction where it has one. Pure. */
#ifndef NOCTULE_STORAGE_CRC32C_H
#define NOCTULE_STORAGE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* crc: 0, or the result for the bytes before these. */
uint32_t crc32c(uint32_t crc, const void *data, size_t n);
/* The same without the instruction; for tests. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t n);

#endif
