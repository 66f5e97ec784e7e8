/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CRC-32C (Castagnoli), as RFC 3720 defines it. */

#ifndef VAFS_STORE_CRC32C_H
#define VAFS_STORE_CRC32C_H 1

#include <stddef.h>
#include <stdint.h>

/* Continues 'crc' (0 to begin) over 'size' bytes at 'data'.  Uses the SSE 4.2
 * instruction where the processor has it. */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

/* The same by table on every machine; for tests. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size);

#endif /* vafs-server/store/crc32c.h */
