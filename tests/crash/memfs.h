/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A file layer in memory for tests of the store: it can fail on demand, be
 * full, be copied, and record what is done to it so that every state in which
 * a power failure may leave it can be built (see crash.h).
 *
 * One directory with sub-directories of one level.  Thread safe. */

#ifndef TESTS_CRASH_MEMFS_H
#define TESTS_CRASH_MEMFS_H 1

#include "vafs-server/store/file.h"

struct memfs;

/* An empty one.  Aborts without memory: it is for tests. */
struct memfs *memfs_create(void);
void memfs_destroy(struct memfs *);
struct memfs *memfs_clone(struct memfs *); /* Content only. */

/* For 'struct store_options'. */
struct file_layer *memfs_layer(struct memfs *);

/* Which operations a fault concerns. */
enum memfs_op_mask {
    MEMFS_OPEN = 1 << 0,
    MEMFS_READ = 1 << 1,
    MEMFS_WRITE = 1 << 2,
    MEMFS_SYNC = 1 << 3,   /* datasync and sync_dir */
    MEMFS_RESIZE = 1 << 4, /* truncate and allocate */
    MEMFS_NAMES = 1 << 5,  /* mkdir, rename, unlink, list */
    MEMFS_ALL = 63,
    MEMFS_CHANGES = MEMFS_WRITE | MEMFS_SYNC | MEMFS_RESIZE | MEMFS_NAMES,
};

/* The 'nth' (from 1) operation of 'mask' from now on fails with 'error', and
 * if 'forever' all later ones.  A write that fails has written the first half.
 * nth = 0: no more faults. */
void memfs_fail(struct memfs *, unsigned mask, unsigned nth, int error,
                bool forever);
/* Whether the fault was met. */
bool memfs_has_failed(struct memfs *);

/* Files may take so much together, in pages; 0: without limit. */
void memfs_set_capacity(struct memfs *, uint64_t bytes);

/* The content of a file, to look at and to damage; NULL if there is none.
 * Valid until the file is changed. */
uint8_t *memfs_data(struct memfs *, const char *name, size_t *ret_size);
/* The 'index'th file's name, or NULL after the last. */
const char *memfs_name(struct memfs *, size_t index);

/* Begins to record.  What is there now counts as durable. */
void memfs_record(struct memfs *);
size_t memfs_n_recorded(struct memfs *);
/* Notes in the record that 'value' has been acknowledged. */
void memfs_mark(struct memfs *, uint64_t value);

#endif /* tests/crash/memfs.h */
