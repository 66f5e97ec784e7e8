/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed hash whose collisions
 * cannot be manufactured without the key. */

#ifndef VAFS_TREE_SIPHASH_H
#define VAFS_TREE_SIPHASH_H 1

#include <stddef.h>
#include <stdint.h>

uint64_t siphash24(const uint64_t key[2], const void *data, size_t size);

#endif /* vafs-server/tree/siphash.h */
