/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Index runs; see run.h, and format.h for the layout.
 *
 * The keys (8 bytes for 85 entries) are in memory, so a look-up reads one
 * block of 4 KiB, through the kernel's page cache.  The Bloom filter (10 bits
 * an entry, all bits of an entry in one line of 64 bytes) mostly spares that
 * for an id that is not in the run.  Ids are hashes, so their bytes serve as
 * hash values: 0-7 order the run, 8-15 choose the line, 16-23 the bits. */

#include "vafs-server/store/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "vafs-server/store/codec.h"

COVERAGE_DEFINE(store_run_block_read);
COVERAGE_DEFINE(store_run_damaged);
COVERAGE_DEFINE(store_run_filter_false);

#define RUN_FILTER_HASHES 6
#define RUN_FILTER_BITS_PER_ENTRY 10
#define RUN_BUFFER_BLOCKS 16

void
run_name(uint64_t number, char name[RUN_NAME_SIZE])
{
    snprintf(name, RUN_NAME_SIZE, "idx/%016" PRIx64, number);
}

static uint64_t
run_block_sum__(uint64_t number, uint32_t block, const uint8_t *data)
{
    return codec_sum(data, RUN_SUM_OFS, number << 32 | block);
}

static uint64_t
run_key__(const struct store_id *id)
{
    return get_be64(id->bytes);
}

/* The line of the filter, counted through all filter blocks. */
static uint64_t
run_filter_line__(const struct store_id *id, uint64_t n_lines)
{
    return get_le64(id->bytes + 8) % n_lines;
}

static void
run_filter_set__(uint8_t *line, const struct store_id *id)
{
    uint64_t h = get_le64(id->bytes + 16);

    for (int i = 0; i < RUN_FILTER_HASHES; i++, h >>= 9) {
        line[(h & 511) / 8] |= 1 << (h & 7);
    }
}

static bool
run_filter_test__(const uint8_t *line, const struct store_id *id)
{
    uint64_t h = get_le64(id->bytes + 16);

    for (int i = 0; i < RUN_FILTER_HASHES; i++, h >>= 9) {
        if (!(line[(h & 511) / 8] & 1 << (h & 7))) {
            return false;
        }
    }
    return true;
}

static int
run_read_block__(struct run *run, uint32_t block, uint8_t *data)
{
    int error;

    error = file_pread_all(run->files, run->file, data, RUN_BLOCK_SIZE,
                           (uint64_t) block * RUN_BLOCK_SIZE);
    if (!error && get_le64(data + RUN_SUM_OFS) !=
                      run_block_sum__(run->number, block, data)) {
        error = EBADMSG;
    }
    if (error == EBADMSG) {
        COVERAGE_INC(store_run_damaged);
    }
    return error;
}

static int
run_load_header__(struct run *run, const uint8_t uuid[16])
{
    uint8_t block[RUN_BLOCK_SIZE];
    uint64_t size;
    int error;

    error = run_read_block__(run, 0, block);
    if (error) {
        return error;
    }
    run->n = get_le64(block + RUN_OFS_N);
    run->n_blocks = get_le32(block + RUN_OFS_N_BLOCKS);
    run->n_filter = get_le32(block + RUN_OFS_N_FILTER);
    run->n_keys = get_le32(block + RUN_OFS_N_KEYS);
    run->tier = block[RUN_OFS_TIER];
    error = run->files->ops->size(run->files, run->file, &size);
    if (error) {
        return error;
    }
    if (get_le64(block + RUN_OFS_MAGIC) != RUN_MAGIC ||
        block[RUN_OFS_FORMAT] != RUN_FORMAT ||
        memcmp(block + RUN_OFS_UUID, uuid, 16) ||
        get_le64(block + RUN_OFS_NUMBER) != run->number ||
        run->n_blocks != DIV_ROUND_UP(run->n, RUN_ENTRIES) ||
        run->n_keys != DIV_ROUND_UP(run->n_blocks, RUN_KEYS) ||
        !run->n_filter ||
        size != ((uint64_t) 1 + run->n_blocks + run->n_filter + run->n_keys) *
                    RUN_BLOCK_SIZE) {
        return EBADMSG;
    }
    return 0;
}

static int
run_load_keys__(struct run *run)
{
    run->keys = malloc(run->n_blocks * sizeof *run->keys + 1);
    if (!run->keys) {
        return ENOMEM;
    }
    for (uint32_t i = 0; i < run->n_keys; i++) {
        uint8_t block[RUN_BLOCK_SIZE];
        uint32_t n = MIN(run->n_blocks - i * RUN_KEYS, (uint32_t) RUN_KEYS);
        int error;

        error = run_read_block__(run, 1 + run->n_blocks + run->n_filter + i,
                                 block);
        if (error) {
            return error;
        }
        memcpy(run->keys + (size_t) i * RUN_KEYS, block,
               n * sizeof *run->keys);
    }
    return 0;
}

static int
run_load_filter__(struct run *run, size_t max)
{
    size_t size = (size_t) run->n_filter * RUN_BLOCK_SIZE;

    if (size > max) {
        return 0;
    }
    run->filter = malloc(size);
    if (!run->filter) {
        return 0; /* Slower, works. */
    }
    for (uint32_t i = 0; i < run->n_filter; i++) {
        int error =
            run_read_block__(run, 1 + run->n_blocks + i,
                             run->filter + (size_t) i * RUN_BLOCK_SIZE);

        if (error) {
            return error;
        }
    }
    return 0;
}

int
run_open(struct file_layer *files, const uint8_t uuid[16], uint64_t number,
         size_t filter_max, struct run **ret)
{
    char name[RUN_NAME_SIZE];
    struct run *run;
    int error;

    run = calloc(1, sizeof *run);
    if (!run) {
        return ENOMEM;
    }
    run->refs = 1;
    run->files = files;
    run->number = number;
    run_name(number, name);
    error = files->ops->open(files, name, 0, &run->file);
    if (error) {
        free(run);
        return error;
    }
    error = run_load_header__(run, uuid);
    if (!error) {
        error = run_load_keys__(run);
    }
    if (!error) {
        error = run_load_filter__(run, filter_max);
    }
    if (error) {
        run_unref(run);
        return error;
    }
    *ret = run;
    return 0;
}

struct run *
run_ref(struct run *run)
{
    __atomic_fetch_add(&run->refs, 1, __ATOMIC_RELAXED);
    return run;
}

void
run_unref(struct run *run)
{
    if (run && __atomic_fetch_sub(&run->refs, 1, __ATOMIC_ACQ_REL) == 1) {
        run->files->ops->close(run->files, run->file);
        free(run->keys);
        free(run->filter);
        free(run);
    }
}

size_t
run_memory(const struct run *run)
{
    return sizeof *run + run->n_blocks * sizeof *run->keys +
           (run->filter ? (size_t) run->n_filter * RUN_BLOCK_SIZE : 0);
}

uint64_t
run_bytes(const struct run *run)
{
    return ((uint64_t) 1 + run->n_blocks + run->n_filter + run->n_keys) *
           RUN_BLOCK_SIZE;
}

/* Sets '*ret' to whether the run may hold 'id'. */
static int
run_may_hold__(struct run *run, const struct store_id *id, bool *ret)
{
    uint64_t line =
        run_filter_line__(id, (uint64_t) run->n_filter * RUN_FILTER_LINES);
    uint32_t block = (uint32_t) (line / RUN_FILTER_LINES);
    size_t offset = line % RUN_FILTER_LINES * 64;

    if (run->filter) {
        *ret = run_filter_test__(
            run->filter + (size_t) block * RUN_BLOCK_SIZE + offset, id);
    } else {
        uint8_t data[RUN_BLOCK_SIZE];
        int error = run_read_block__(run, 1 + run->n_blocks + block, data);

        if (error) {
            return error;
        }
        *ret = run_filter_test__(data + offset, id);
    }
    return 0;
}

/* The first block that can hold 'key': the last that begins below it. */
static uint32_t
run_first_block__(const struct run *run, uint64_t key)
{
    uint32_t low = 0, high = run->n_blocks;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (run->keys[mid] < key) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low ? low - 1 : 0;
}

static uint32_t
run_entries_in__(const struct run *run, uint32_t block)
{
    return (uint32_t) MIN(run->n - (uint64_t) block * RUN_ENTRIES,
                          (uint64_t) RUN_ENTRIES);
}

static bool
run_search_block__(const struct run *run, uint32_t block, const uint8_t *data,
                   const struct store_id *id, struct index_entry *ret)
{
    uint32_t low = 0, high = run_entries_in__(run, block);

    while (low < high) {
        uint32_t mid = (low + high) / 2;
        int cmp = memcmp(data + mid * RUN_ENTRY_SIZE, id, sizeof *id);

        if (!cmp) {
            memcpy(ret, data + mid * RUN_ENTRY_SIZE, sizeof *ret);
            return true;
        }
        if (cmp < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return false;
}

int
run_find(struct run *run, const struct store_id *id, struct index_entry *ret)
{
    uint64_t key = run_key__(id);
    bool may = true;
    int error;

    error = run_may_hold__(run, id, &may);
    if (error || !may) {
        return error ? error : ENOENT;
    }
    for (uint32_t block = run_first_block__(run, key);
         block < run->n_blocks && run->keys[block] <= key; block++) {
        uint8_t data[RUN_BLOCK_SIZE];

        COVERAGE_INC(store_run_block_read);
        error = run_read_block__(run, 1 + block, data);
        if (error) {
            return error;
        }
        if (run_search_block__(run, block, data, id, ret)) {
            return 0;
        }
    }
    COVERAGE_INC(store_run_filter_false);
    return ENOENT;
}

int
run_cursor_init(struct run_cursor *cursor, struct run *run)
{
    memset(cursor, 0, sizeof *cursor);
    cursor->run = run;
    cursor->buffer = malloc(RUN_BUFFER_BLOCKS * RUN_BLOCK_SIZE);
    return cursor->buffer ? 0 : ENOMEM;
}

void
run_cursor_destroy(struct run_cursor *cursor)
{
    free(cursor->buffer);
    cursor->buffer = NULL;
}

int
run_cursor_next(struct run_cursor *cursor, struct index_entry *ret)
{
    uint32_t block = (uint32_t) (cursor->next / RUN_ENTRIES);
    uint32_t index = (uint32_t) (cursor->next % RUN_ENTRIES);

    if (cursor->next >= cursor->run->n) {
        return ENOENT;
    }
    if (block >= cursor->first_block + cursor->n_buffered) {
        uint32_t n =
            MIN(cursor->run->n_blocks - block, (uint32_t) RUN_BUFFER_BLOCKS);

        for (uint32_t i = 0; i < n; i++) {
            int error =
                run_read_block__(cursor->run, 1 + block + i,
                                 cursor->buffer + (size_t) i * RUN_BLOCK_SIZE);

            if (error) {
                return error;
            }
        }
        cursor->first_block = block;
        cursor->n_buffered = n;
    }
    memcpy(ret,
           cursor->buffer +
               (size_t) (block - cursor->first_block) * RUN_BLOCK_SIZE +
               index * RUN_ENTRY_SIZE,
           sizeof *ret);
    cursor->next++;
    return 0;
}

/* Writing. */

struct run_writer {
    struct file_layer *files;
    uint8_t uuid[16];
    uint64_t number, n;
    uint32_t tier, n_blocks, n_filter;
    int file;
    bool finished;
    uint8_t *filter;
    uint64_t *keys;
    uint8_t *buffer;     /* Blocks not yet written. */
    uint32_t n_buffered; /* Full ones in it. */
    uint32_t n_in_block; /* Entries in the one after these. */
};

int
run_writer_create(struct file_layer *files, const uint8_t uuid[16],
                  uint64_t number, uint32_t tier, uint64_t n_max,
                  struct run_writer **ret)
{
    uint64_t lines =
        DIV_ROUND_UP(MAX(n_max, 1) * RUN_FILTER_BITS_PER_ENTRY, 512);
    struct run_writer *w = calloc(1, sizeof *w);
    char name[RUN_NAME_SIZE];
    int error = ENOMEM;

    if (!w) {
        return ENOMEM;
    }
    w->files = files;
    memcpy(w->uuid, uuid, sizeof w->uuid);
    w->number = number;
    w->tier = tier;
    w->n_filter = (uint32_t) DIV_ROUND_UP(lines, (uint64_t) RUN_FILTER_LINES);
    w->filter = calloc(w->n_filter, RUN_BLOCK_SIZE);
    w->keys = malloc(DIV_ROUND_UP(n_max, RUN_ENTRIES) * sizeof *w->keys + 1);
    w->buffer = calloc(RUN_BUFFER_BLOCKS, RUN_BLOCK_SIZE);
    if (w->filter && w->keys && w->buffer) {
        run_name(number, name);
        error =
            files->ops->open(files, name, FILE_WRITE | FILE_CREATE, &w->file);
        if (!error) {
            error = files->ops->truncate(files, w->file, 0);
            if (!error) {
                *ret = w;
                return 0;
            }
            files->ops->close(files, w->file);
        }
    }
    free(w->filter);
    free(w->keys);
    free(w->buffer);
    free(w);
    return error;
}

static int
run_writer_write__(struct run_writer *w, uint32_t block, uint8_t *data,
                   uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *p = data + (size_t) i * RUN_BLOCK_SIZE;

        put_le64(p + RUN_SUM_OFS, run_block_sum__(w->number, block + i, p));
    }
    return file_pwrite(w->files, w->file, data, (size_t) n * RUN_BLOCK_SIZE,
                       (uint64_t) block * RUN_BLOCK_SIZE);
}

static int
run_writer_flush__(struct run_writer *w)
{
    int error = run_writer_write__(w, 1 + w->n_blocks - w->n_buffered,
                                   w->buffer, w->n_buffered);

    memset(w->buffer, 0, RUN_BUFFER_BLOCKS * RUN_BLOCK_SIZE);
    w->n_buffered = 0;
    return error;
}

static int
run_writer_end_block__(struct run_writer *w)
{
    w->n_in_block = 0;
    w->n_buffered++;
    w->n_blocks++;
    return w->n_buffered == RUN_BUFFER_BLOCKS ? run_writer_flush__(w) : 0;
}

int
run_writer_add(struct run_writer *w, const struct index_entry *entry)
{
    uint64_t line = run_filter_line__(&entry->id, (uint64_t) w->n_filter *
                                                      RUN_FILTER_LINES);

    run_filter_set__(w->filter + line / RUN_FILTER_LINES * RUN_BLOCK_SIZE +
                         line % RUN_FILTER_LINES * 64,
                     &entry->id);
    if (!w->n_in_block) {
        w->keys[w->n_blocks] = run_key__(&entry->id);
    }
    memcpy(w->buffer + (size_t) w->n_buffered * RUN_BLOCK_SIZE +
               w->n_in_block * RUN_ENTRY_SIZE,
           entry, sizeof *entry);
    w->n++;
    return ++w->n_in_block == RUN_ENTRIES ? run_writer_end_block__(w) : 0;
}

static int
run_writer_write_keys__(struct run_writer *w, uint32_t n_keys)
{
    for (uint32_t i = 0; i < n_keys; i++) {
        uint8_t block[RUN_BLOCK_SIZE];
        uint32_t n = MIN(w->n_blocks - i * RUN_KEYS, (uint32_t) RUN_KEYS);
        int error;

        memset(block, 0, sizeof block);
        memcpy(block, w->keys + (size_t) i * RUN_KEYS, n * sizeof *w->keys);
        error =
            run_writer_write__(w, 1 + w->n_blocks + w->n_filter + i, block, 1);
        if (error) {
            return error;
        }
    }
    return 0;
}

int
run_writer_finish(struct run_writer *w)
{
    uint8_t header[RUN_BLOCK_SIZE];
    uint32_t n_keys;
    int error = 0;

    if (w->n_in_block) {
        error = run_writer_end_block__(w);
    }
    if (!error && w->n_buffered) {
        error = run_writer_flush__(w);
    }
    if (!error) {
        error = run_writer_write__(w, 1 + w->n_blocks, w->filter, w->n_filter);
    }
    n_keys = DIV_ROUND_UP(w->n_blocks, (uint32_t) RUN_KEYS);
    if (!error) {
        error = run_writer_write_keys__(w, n_keys);
    }
    if (error) {
        return error;
    }
    memset(header, 0, sizeof header);
    put_le64(header + RUN_OFS_MAGIC, RUN_MAGIC);
    header[RUN_OFS_FORMAT] = RUN_FORMAT;
    header[RUN_OFS_TIER] = (uint8_t) w->tier;
    memcpy(header + RUN_OFS_UUID, w->uuid, sizeof w->uuid);
    put_le64(header + RUN_OFS_NUMBER, w->number);
    put_le64(header + RUN_OFS_N, w->n);
    put_le32(header + RUN_OFS_N_BLOCKS, w->n_blocks);
    put_le32(header + RUN_OFS_N_FILTER, w->n_filter);
    put_le32(header + RUN_OFS_N_KEYS, n_keys);
    error = run_writer_write__(w, 0, header, 1);
    if (!error) {
        error = w->files->ops->datasync(w->files, w->file);
    }
    w->finished = !error;
    return error;
}

void
run_writer_destroy(struct run_writer *w)
{
    char name[RUN_NAME_SIZE];

    if (!w) {
        return;
    }
    w->files->ops->close(w->files, w->file);
    if (!w->finished) {
        run_name(w->number, name);
        w->files->ops->unlink(w->files, name);
    }
    free(w->filter);
    free(w->keys);
    free(w->buffer);
    free(w);
}
