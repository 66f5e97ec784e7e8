/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Index runs: immutable files of entries sorted by id. */

#ifndef VAFS_STORE_RUN_H
#define VAFS_STORE_RUN_H 1

#include "vafs-server/store/file.h"
#include "vafs-server/store/memtable.h"

#define RUN_NAME_SIZE 24

void run_name(uint64_t number, char name[RUN_NAME_SIZE]);

/* An open run. */
struct run {
    unsigned refs; /* Atomic. */
    struct file_layer *files;
    uint64_t number, n;
    uint32_t tier, n_blocks, n_filter, n_keys;
    int file;
    uint64_t *keys;  /* First 8 bytes of each block's first id. */
    uint8_t *filter; /* NULL: read from the file when needed. */
};

/* Opens run 'number' of store 'uuid' and loads its keys, and its filter if
 * that takes no more than 'filter_max' bytes.  EBADMSG: damaged. */
int run_open(struct file_layer *, const uint8_t uuid[16], uint64_t number,
             size_t filter_max, struct run **) NODISCARD;
struct run *run_ref(struct run *);
void run_unref(struct run *); /* Accepts NULL. */
size_t run_memory(const struct run *);
uint64_t run_bytes(const struct run *);

/* 0, ENOENT, EBADMSG, or why it cannot be read. */
int run_find(struct run *, const struct store_id *,
             struct index_entry *) NODISCARD;

/* Reads all entries in order. */
struct run_cursor {
    struct run *run;
    uint8_t *buffer;
    uint64_t next; /* Number of the entry that comes next. */
    uint32_t first_block, n_buffered;
};
int run_cursor_init(struct run_cursor *, struct run *) NODISCARD;
void run_cursor_destroy(struct run_cursor *);
/* ENOENT at the end. */
int run_cursor_next(struct run_cursor *, struct index_entry *) NODISCARD;

/* Writes a run; entries are added by rising id, at most 'n_max'. */
struct run_writer;
int run_writer_create(struct file_layer *, const uint8_t uuid[16],
                      uint64_t number, uint32_t tier, uint64_t n_max,
                      struct run_writer **) NODISCARD;
int run_writer_add(struct run_writer *, const struct index_entry *) NODISCARD;
/* Writes the rest and syncs the file (not the directory). */
int run_writer_finish(struct run_writer *) NODISCARD;
/* Frees 'writer'; removes the file unless it was finished. */
void run_writer_destroy(struct run_writer *);

#endif /* vafs-server/store/run.h */
