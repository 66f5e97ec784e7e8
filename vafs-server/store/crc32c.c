/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CRC-32C for the journal, by instruction or by table. */

#include "vafs-server/store/crc32c.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

static uint32_t crc32c_table[256];
static bool crc32c_have_instruction;
static pthread_once_t crc32c_once = PTHREAD_ONCE_INIT;

static void
crc32c_init__(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t x = i;

        for (int bit = 0; bit < 8; bit++) {
            x = x >> 1 ^ (x & 1 ? 0x82f63b78u : 0);
        }
        crc32c_table[i] = x;
    }
#if defined(__x86_64__)
    crc32c_have_instruction = __builtin_cpu_supports("sse4.2");
#endif
}

static uint32_t
crc32c_by_table__(uint32_t x, const uint8_t *p, size_t size)
{
    while (size--) {
        x = x >> 8 ^ crc32c_table[(x ^ *p++) & 255];
    }
    return x;
}

uint32_t
crc32c_portable(uint32_t crc, const void *data, size_t size)
{
    pthread_once(&crc32c_once, crc32c_init__);
    return ~crc32c_by_table__(~crc, data, size);
}

#if defined(__x86_64__)
static __attribute__((target("sse4.2"))) uint32_t
crc32c_by_instruction__(uint32_t x, const uint8_t *p, size_t size)
{
    uint64_t x64 = x;

    while (size >= 8) {
        uint64_t word;

        memcpy(&word, p, sizeof word);
        x64 = __builtin_ia32_crc32di(x64, word);
        p += 8;
        size -= 8;
    }
    x = (uint32_t) x64;
    while (size--) {
        x = __builtin_ia32_crc32qi(x, *p++);
    }
    return x;
}
#endif

uint32_t
crc32c(uint32_t crc, const void *data, size_t size)
{
    pthread_once(&crc32c_once, crc32c_init__);
#if defined(__x86_64__)
    if (crc32c_have_instruction) {
        return ~crc32c_by_instruction__(~crc, data, size);
    }
#endif
    return ~crc32c_by_table__(~crc, data, size);
}
