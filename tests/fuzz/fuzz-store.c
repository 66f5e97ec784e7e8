/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fuzz target: what the store reads from its files.  The first byte chooses
 * the structure; its checksums are made right, so that fields that are absurd
 * but well sealed get as far as they can.  Whatever comes, nothing outside a
 * buffer is touched; a record that unpacks and is encoded again without
 * compression comes back the same. */

#include <errno.h>
#include <stdlib.h>

#include "lib/vlog.h"
#include "tests/crash/memfs.h"
#include "tests/fuzz/fuzz.h"
#include "vafs-server/store/cache.h"
#include "vafs-server/store/codec.h"
#include "vafs-server/store/manifest.h"
#include "vafs-server/store/run.h"
#include "vafs-server/store/superblock.h"

#define SALT 12345

static const uint8_t uuid[16];

int
LLVMFuzzerInitialize(int *argc UNUSED, char ***argv UNUSED)
{
    return vlog_set_level("off");
}

/* Writes 'data' as file 'name'. */
static struct memfs *
file_with(const char *name, const uint8_t *data, size_t size)
{
    struct memfs *fs = memfs_create();
    struct file_layer *files = memfs_layer(fs);
    int file;

    if (files->ops->open(files, name, FILE_WRITE | FILE_CREATE, &file) ||
        file_pwrite(files, file, data, size, 0)) {
        abort();
    }
    files->ops->close(files, file);
    return fs;
}

/* Makes the sums of the blocks right as far as lengths lead. */
static void
seal_blocks(uint8_t *data, size_t size, size_t table, size_t n, size_t payload)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t *e = data + table + i * REC_ENTRY_SIZE;
        size_t stored = get_le32(e) & ~REC_ENTRY_RAW;

        if (payload + stored > size) {
            break;
        }
        put_le64(e + 4, codec_sum(data + payload, stored, 0));
        payload += stored;
    }
}

static void
fuzz_record(uint8_t *data, size_t size)
{
    uint32_t n_blocks;
    struct codec_record r;
    bool delta;
    size_t head;

    if (size < REC_HEADER_SIZE) {
        if (codec_parse(data, size, SALT, &r) != ENODATA) {
            abort();
        }
        return;
    }
    put_le32(data + REC_OFS_MAGIC, REC_MAGIC);
    data[REC_OFS_FORMAT] = REC_FORMAT;
    put_le32(data + REC_OFS_FLAGS, 0);
    data[REC_OFS_ENCODING] %= 4;
    put_le32(data + REC_OFS_PLAIN, get_le32(data + REC_OFS_PLAIN) & 0x3ffff);
    delta = data[REC_OFS_ENCODING] == REC_DELTA;
    n_blocks =
        delta ? 1
              : DIV_ROUND_UP(get_le32(data + REC_OFS_PLAIN), REC_BLOCK_SIZE);
    head = REC_HEADER_SIZE + (delta ? 32 : 0) + n_blocks * REC_ENTRY_SIZE;
    if (head <= size && data[REC_OFS_ENCODING] <= REC_DELTA &&
        get_le32(data + REC_OFS_STORED) <= STORE_OBJECT_MAX) {
        seal_blocks(data, size, head - n_blocks * REC_ENTRY_SIZE, n_blocks,
                    head);
        codec_seal(data, 77, SALT);
    }
    if (!codec_parse(data, size, SALT, &r) && r.size <= size) {
        uint8_t *base_data, *plain = malloc((size_t) r.plain + 1);
        struct object *base =
            object_create(&r.base, r.kind, r.format, 4096, &base_data);

        if (!plain || !base) {
            abort();
        }
        memset(base_data, 'b', 4096);
        if (!codec_unpack(&r, data + r.head_size, base, plain) &&
            r.encoding == REC_RAW) {
            struct codec_input in = {.data = plain,
                                     .size = r.plain,
                                     .kind = r.kind,
                                     .format = r.format,
                                     .domain = r.domain,
                                     .id = &r.id};
            uint8_t *again;
            size_t n;
            bool is_delta;

            if (codec_encode(&in, &again, &n, &is_delta)) {
                abort();
            }
            codec_seal(again, r.position, SALT);
            /* All but the padding, which nobody reads. */
            if (n != r.size || memcmp(again, data, r.head_size + r.stored)) {
                abort();
            }
        }
        object_unref(base);
        free(plain);
    }
}

static void
fuzz_superblock(const uint8_t *data, size_t size)
{
    uint8_t slots[2 * SB_SLOT_SIZE] = {0}, again[SB_SLOT_SIZE];
    struct superblock sb;
    struct memfs *fs;
    int file, n_bad;

    memcpy(slots, data, MIN(size, sizeof slots));
    for (int i = 0; i < 2; i++) {
        uint8_t *slot = slots + i * SB_SLOT_SIZE;

        put_le64(slot, SB_MAGIC);
        put_le16(slot + SB_OFS_MAJOR, SB_MAJOR);
        slot[SB_OFS_HASH] = 1;
        put_le64(slot + SB_OFS_SUM, codec_sum(slot, SB_OFS_SUM, 0));
    }
    fs = file_with("superblock", slots, sizeof slots);
    if (memfs_layer(fs)->ops->open(memfs_layer(fs), "superblock", 0, &file)) {
        abort();
    }
    if (!superblock_read(memfs_layer(fs), file, &sb, &n_bad)) {
        superblock_encode(&sb, again);
    }
    memfs_layer(fs)->ops->close(memfs_layer(fs), file);
    memfs_destroy(fs);
}

static void
fuzz_manifest(uint8_t *data, size_t size)
{
    struct manifest m;
    struct memfs *fs;

    if (size >= MAN_HEADER_SIZE) {
        put_le64(data, MAN_MAGIC);
        data[MAN_OFS_FORMAT] = MAN_FORMAT;
        memcpy(data + MAN_OFS_UUID, uuid, sizeof uuid);
        put_le64(data + MAN_OFS_SUM,
                 codec_sum(data + MAN_HEADER_SIZE, size - MAN_HEADER_SIZE,
                           codec_sum(data, MAN_OFS_SUM, 0)));
    }
    fs = file_with("idx/manifest", data, size);
    if (!manifest_read(memfs_layer(fs), uuid, &m)) {
        manifest_find(&m, 1);
        manifest_destroy(&m);
    }
    memfs_destroy(fs);
}

static void
fuzz_run(const uint8_t *data, size_t size)
{
    size_t n = MAX(size / RUN_BLOCK_SIZE, 3) * RUN_BLOCK_SIZE;
    uint8_t *blocks = calloc(1, n);
    struct index_entry entry;
    struct run_cursor cursor;
    struct memfs *fs;
    struct run *run;
    struct store_id id;

    if (!blocks) {
        abort();
    }
    memcpy(blocks, data, MIN(size, n));
    put_le64(blocks, RUN_MAGIC);
    blocks[RUN_OFS_FORMAT] = RUN_FORMAT;
    memcpy(blocks + RUN_OFS_UUID, uuid, sizeof uuid);
    put_le64(blocks + RUN_OFS_NUMBER, 1);
    for (size_t i = 0; i < n / RUN_BLOCK_SIZE; i++) {
        uint8_t *b = blocks + i * RUN_BLOCK_SIZE;

        put_le64(b + RUN_SUM_OFS,
                 codec_sum(b, RUN_SUM_OFS, UINT64_C(1) << 32 | i));
    }
    fs = file_with("idx/0000000000000001", blocks, n);
    if (!run_open(memfs_layer(fs), uuid, 1, size & 1 ? 0 : 1 << 20, &run)) {
        memcpy(&id, blocks + RUN_BLOCK_SIZE, sizeof id);
        if (!run_find(run, &id, &entry) && !run->n) {
            abort();
        }
        memset(&id, 0xee, sizeof id);
        if (!run_find(run, &id, &entry) && !run->n) {
            abort();
        }
        if (!run_cursor_init(&cursor, run)) {
            while (!run_cursor_next(&cursor, &entry)) {
                continue;
            }
            run_cursor_destroy(&cursor);
        }
        run_unref(run);
    }
    memfs_destroy(fs);
    free(blocks);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy;

    if (!size) {
        return 0;
    }
    copy = malloc(size > 1 ? size - 1 : 1);
    if (!copy) {
        return 0;
    }
    memcpy(copy, data + 1, size - 1);
    switch (data[0] % 4) {
    case 0:
        fuzz_record(copy, size - 1);
        break;
    case 1:
        fuzz_superblock(copy, size - 1);
        break;
    case 2:
        fuzz_manifest(copy, size - 1);
        break;
    case 3:
        fuzz_run(copy, size - 1);
        break;
    }
    free(copy);
    return 0;
}
