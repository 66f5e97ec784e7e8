/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The superblock; see superblock.h and format.h. */

#include "vafs-server/store/superblock.h"

#include <errno.h>

#include "vafs-server/store/codec.h"

#define SB_HASH_SHA256 1

void
superblock_encode(const struct superblock *sb, uint8_t slot[SB_SLOT_SIZE])
{
    memset(slot, 0, SB_SLOT_SIZE);
    put_le64(slot + SB_OFS_MAGIC, SB_MAGIC);
    put_le16(slot + SB_OFS_MAJOR, SB_MAJOR);
    put_le16(slot + SB_OFS_MINOR, MAX(sb->minor, SB_MINOR));
    slot[SB_OFS_HASH] = SB_HASH_SHA256;
    put_le32(slot + SB_OFS_COMPAT, sb->compat);
    put_le32(slot + SB_OFS_RO_COMPAT, sb->ro_compat);
    put_le32(slot + SB_OFS_INCOMPAT, sb->incompat);
    put_le32(slot + SB_OFS_RECORD_SIZE, sb->record_size);
    memcpy(slot + SB_OFS_UUID, sb->uuid, sizeof sb->uuid);
    put_le64(slot + SB_OFS_GENERATION, sb->generation);
    put_le64(slot + SB_OFS_INCARNATION, sb->incarnation);
    put_le64(slot + SB_OFS_CREATED, sb->created);
    put_le32(slot + SB_OFS_SEGMENT_SIZE, sb->segment_size);
    put_le32(slot + SB_OFS_CHUNK_SIZE, sb->chunk_size);
    put_le64(slot + SB_OFS_TAIL, sb->root.journal_tail);
    put_le64(slot + SB_OFS_TAIL_SEQUENCE, sb->tail_sequence);
    put_le32(slot + SB_OFS_TAIL_CRC, sb->tail_crc);
    memcpy(slot + SB_OFS_SECRET, sb->secret, sizeof sb->secret);
    memcpy(slot + SB_OFS_ROOT_ID, &sb->root.id, sizeof sb->root.id);
    put_le64(slot + SB_OFS_ROOT_PACK, sb->root_pack);
    put_le32(slot + SB_OFS_ROOT_OFFSET, sb->root_offset);
    put_le32(slot + SB_OFS_ROOT_LENGTH, sb->root_length);
    put_le64(slot + SB_OFS_NEXT_PACK, sb->next_pack);
    put_le64(slot + SB_OFS_GC_WATERMARK, sb->gc_watermark);
    put_le64(slot + SB_OFS_GC_EPOCH, sb->gc_epoch);
    put_le16(slot + SB_OFS_WRITER, sb->writer);
    memcpy(slot + SB_OFS_OPAQUE, sb->root.opaque, sizeof sb->root.opaque);
    put_le64(slot + SB_OFS_SUM, codec_sum(slot, SB_OFS_SUM, 0));
}

static bool
superblock_size_is_valid__(uint32_t size, uint32_t min, uint32_t max)
{
    return size >= min && size <= max;
}

/* 0, ENOENT (slot never written), EBADMSG or EPROTONOSUPPORT. */
static int
superblock_decode__(const uint8_t slot[SB_SLOT_SIZE], struct superblock *sb)
{
    static const uint8_t zeros[SB_SLOT_SIZE];

    if (!memcmp(slot, zeros, SB_SLOT_SIZE)) {
        return ENOENT;
    }
    if (get_le64(slot + SB_OFS_MAGIC) != SB_MAGIC ||
        get_le64(slot + SB_OFS_SUM) != codec_sum(slot, SB_OFS_SUM, 0)) {
        return EBADMSG;
    }
    if (get_le16(slot + SB_OFS_MAJOR) != SB_MAJOR ||
        slot[SB_OFS_HASH] != SB_HASH_SHA256 ||
        get_le32(slot + SB_OFS_INCOMPAT) & ~SB_KNOWN_INCOMPAT) {
        return EPROTONOSUPPORT;
    }
    memset(sb, 0, sizeof *sb);
    sb->minor = get_le16(slot + SB_OFS_MINOR);
    sb->compat = get_le32(slot + SB_OFS_COMPAT);
    sb->ro_compat = get_le32(slot + SB_OFS_RO_COMPAT);
    sb->incompat = get_le32(slot + SB_OFS_INCOMPAT);
    sb->record_size = get_le32(slot + SB_OFS_RECORD_SIZE);
    memcpy(sb->uuid, slot + SB_OFS_UUID, sizeof sb->uuid);
    sb->generation = get_le64(slot + SB_OFS_GENERATION);
    sb->incarnation = get_le64(slot + SB_OFS_INCARNATION);
    sb->created = get_le64(slot + SB_OFS_CREATED);
    sb->segment_size = get_le32(slot + SB_OFS_SEGMENT_SIZE);
    sb->chunk_size = get_le32(slot + SB_OFS_CHUNK_SIZE);
    sb->root.journal_tail = get_le64(slot + SB_OFS_TAIL);
    sb->tail_sequence = get_le64(slot + SB_OFS_TAIL_SEQUENCE);
    sb->tail_crc = get_le32(slot + SB_OFS_TAIL_CRC);
    memcpy(sb->secret, slot + SB_OFS_SECRET, sizeof sb->secret);
    memcpy(&sb->root.id, slot + SB_OFS_ROOT_ID, sizeof sb->root.id);
    sb->root_pack = get_le64(slot + SB_OFS_ROOT_PACK);
    sb->root_offset = get_le32(slot + SB_OFS_ROOT_OFFSET);
    sb->root_length = get_le32(slot + SB_OFS_ROOT_LENGTH);
    sb->next_pack = get_le64(slot + SB_OFS_NEXT_PACK);
    sb->gc_watermark = get_le64(slot + SB_OFS_GC_WATERMARK);
    sb->gc_epoch = get_le64(slot + SB_OFS_GC_EPOCH);
    sb->writer = get_le16(slot + SB_OFS_WRITER);
    memcpy(sb->root.opaque, slot + SB_OFS_OPAQUE, sizeof sb->root.opaque);
    if (!superblock_size_is_valid__(sb->record_size, 4096, STORE_OBJECT_MAX) ||
        !superblock_size_is_valid__(sb->segment_size, 65536, SEG_SIZE_MAX) ||
        !superblock_size_is_valid__(sb->chunk_size, 65536, 4u << 20) ||
        !IS_POW2(sb->chunk_size)) {
        return EBADMSG;
    }
    return 0;
}

int
superblock_read(struct file_layer *files, int file, struct superblock *ret,
                int *ret_n_bad)
{
    uint8_t slot[SB_SLOT_SIZE];
    struct superblock sb[2];
    int errors[2];

    *ret_n_bad = 0;
    for (int i = 0; i < 2; i++) {
        size_t n;
        int error;

        memset(slot, 0, sizeof slot);
        error = file_pread(files, file, slot, sizeof slot,
                           (uint64_t) i * SB_SLOT_SIZE, &n);
        if (error) {
            return error;
        }
        errors[i] = superblock_decode__(slot, &sb[i]);
        *ret_n_bad += errors[i] == EBADMSG;
    }
    /* A newer program wrote here: what the older slot says is stale. */
    if (errors[0] == EPROTONOSUPPORT || errors[1] == EPROTONOSUPPORT) {
        return EPROTONOSUPPORT;
    }
    if (errors[0] && errors[1]) {
        return EBADMSG;
    }
    *ret = errors[0]   ? sb[1]
           : errors[1] ? sb[0]
                       : sb[sb[1].generation > sb[0].generation];
    return 0;
}

int
superblock_write(struct file_layer *files, int file, struct superblock *sb)
{
    uint8_t slot[SB_SLOT_SIZE];
    int error;

    sb->generation++;
    superblock_encode(sb, slot);
    error = file_pwrite(files, file, slot, sizeof slot,
                        (sb->generation & 1) * SB_SLOT_SIZE);
    return error ? error : files->ops->datasync(files, file);
}
