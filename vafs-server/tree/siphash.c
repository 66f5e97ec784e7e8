/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See siphash.h. */

#include "vafs-server/tree/siphash.h"

#include "lib/util.h"

static inline uint64_t
rotl(uint64_t x, unsigned int n)
{
    return x << n | x >> (64 - n);
}

static inline void
round__(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

uint64_t
siphash24(const uint64_t key[2], const void *data_, size_t size)
{
    const uint8_t *data = data_;
    uint64_t v[4] = {
        key[0] ^ UINT64_C(0x736f6d6570736575),
        key[1] ^ UINT64_C(0x646f72616e646f6d),
        key[0] ^ UINT64_C(0x6c7967656e657261),
        key[1] ^ UINT64_C(0x7465646279746573),
    };
    uint64_t last = (uint64_t) size << 56;
    size_t i;

    for (i = 0; i + 8 <= size; i += 8) {
        uint64_t m = get_le64(data + i);

        v[3] ^= m;
        round__(v);
        round__(v);
        v[0] ^= m;
    }
    for (size_t j = i; j < size; j++) {
        last |= (uint64_t) data[j] << (8 * (j - i));
    }
    v[3] ^= last;
    round__(v);
    round__(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (i = 0; i < 4; i++) {
        round__(v);
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
