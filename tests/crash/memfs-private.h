/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The inside of memfs, for crash.c. */

#ifndef TESTS_CRASH_MEMFS_PRIVATE_H
#define TESTS_CRASH_MEMFS_PRIVATE_H 1

#include <pthread.h>

#include "tests/crash/memfs.h"

#define MEMFS_NAME_MAX 64

struct memfs_inode {
    unsigned refs; /* Names and open files. */
    unsigned number;
    uint8_t *data;
    size_t size, allocated;
};

struct memfs_name {
    char name[MEMFS_NAME_MAX];
    struct memfs_inode *inode; /* NULL: a directory. */
};

enum memfs_record_type {
    REC_WRITE,
    REC_TRUNCATE,
    REC_ALLOCATE,
    REC_SYNC,
    REC_CREATE,
    REC_MKDIR,
    REC_RENAME,
    REC_UNLINK,
    REC_SYNC_DIR,
    REC_MARK,
};

struct memfs_record {
    enum memfs_record_type type;
    unsigned inode;        /* WRITE, TRUNCATE, ALLOCATE, SYNC, CREATE */
    uint64_t offset, size; /* MARK: the value is in 'offset' */
    uint8_t *data;         /* WRITE */
    char name[MEMFS_NAME_MAX], to[MEMFS_NAME_MAX];
};

struct memfs_handle {
    struct memfs_inode *inode;
    bool writable, locked, used;
};

struct memfs {
    struct file_layer layer;
    pthread_mutex_t mutex;
    struct memfs_name *names;
    size_t n_names;
    struct memfs_handle *handles;
    size_t n_handles;
    unsigned next_inode;
    uint64_t capacity;

    unsigned fail_mask, fail_nth;
    int fail_error;
    bool fail_forever, failed;

    bool recording;
    struct memfs *start; /* Content when recording began. */
    struct memfs_record *records;
    size_t n_records, allocated_records;
};

/* Applies a record to 'fs', of a write only the first 'limit' bytes. */
void memfs_apply(struct memfs *fs, const struct memfs_record *, size_t limit);

#endif /* tests/crash/memfs-private.h */
