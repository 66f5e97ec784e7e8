/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The superblock: two slots, written alternately. */

#ifndef VAFS_STORE_SUPERBLOCK_H
#define VAFS_STORE_SUPERBLOCK_H 1

#include "vafs-server/store/file.h"
#include "vafs-server/store/format.h"
#include "vafs-server/store/store.h"

struct superblock {
    uint64_t generation, incarnation, created, next_pack;
    uint32_t compat, ro_compat, incompat;
    uint32_t record_size, segment_size, chunk_size;
    uint16_t minor, writer;
    uint8_t uuid[16], secret[16];
    struct store_root root;
    uint64_t tail_sequence;
    uint32_t tail_crc;
    uint64_t root_pack; /* A hint: where the root's record was. */
    uint32_t root_offset, root_length;
    uint64_t gc_watermark, gc_epoch;
};

/* Reads the newest valid slot.  EBADMSG: none; EPROTONOSUPPORT: from a newer
 * program.  '*ret_n_bad' becomes the number of damaged slots; a slot never
 * written does not count. */
int superblock_read(struct file_layer *, int file, struct superblock *,
                    int *ret_n_bad) NODISCARD;

/* Increases the generation and writes and syncs the slot that is not the
 * newest.  On error nothing is known about that slot, and the other one still
 * holds. */
int
superblock_write(struct file_layer *, int file, struct superblock *) NODISCARD;

/* For store_create(): both slots, so that either may be damaged. */
void superblock_encode(const struct superblock *, uint8_t slot[SB_SLOT_SIZE]);

#endif /* vafs-server/store/superblock.h */
