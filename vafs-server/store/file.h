/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file layer: all I/O of the store goes through these few calls, so that
 * a recorder, a fault injector or a file system in memory can stand below it.
 *
 * A layer is bound to one store's directory; names are relative to it
 * ("superblock", "seg/0000000000000001").  Files are small integers that mean
 * something to the layer only.  Reads and writes are whole: a short transfer
 * is the layer's business to continue, except at the end of the file.
 *
 * Every function returns 0 or a positive errno. */

#ifndef VAFS_STORE_FILE_H
#define VAFS_STORE_FILE_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct file_layer;

enum file_flags {
    FILE_WRITE = 1 << 0,  /* else read-only */
    FILE_CREATE = 1 << 1, /* make it if absent */
    FILE_EXCL = 1 << 2,   /* with CREATE: EEXIST if present */
};

struct file_ops {
    int (*open)(struct file_layer *, const char *name, unsigned flags,
                int *ret_file);
    void (*close)(struct file_layer *, int file);
    /* '*ret_n' is less than 'size' only at the end of the file. */
    int (*pread)(struct file_layer *, int file, void *, size_t size,
                 uint64_t offset, size_t *ret_n);
    /* All or an error; after an error any prefix may have been written. */
    int (*pwritev)(struct file_layer *, int file, const struct iovec *,
                   int n_iov, uint64_t offset);
    int (*datasync)(struct file_layer *, int file);
    int (*truncate)(struct file_layer *, int file, uint64_t size);
    /* Allocates blocks and, if needed, grows the file; the new part reads as
     * zeros. */
    int (*allocate)(struct file_layer *, int file, uint64_t offset,
                    uint64_t size);
    int (*size)(struct file_layer *, int file, uint64_t *ret_size);
    /* Whole-file lock, not waiting: EBUSY. */
    int (*lock)(struct file_layer *, int file, bool exclusive);

    int (*mkdir)(struct file_layer *, const char *name); /* EEXIST is 0. */
    int (*rename)(struct file_layer *, const char *from, const char *to);
    int (*unlink)(struct file_layer *, const char *name);
    /* Makes creations, renames and removals in 'name' ("" is the store's own
     * directory) durable. */
    int (*sync_dir)(struct file_layer *, const char *name);
    /* Calls 'cb' for each name in directory 'name', in no order. */
    int (*list)(struct file_layer *, const char *name,
                int (*cb)(void *aux, const char *entry), void *aux);
    int (*space)(struct file_layer *, uint64_t *ret_total,
                 uint64_t *ret_available);
    void (*destroy)(struct file_layer *);
};

/* Embedded at the start of each implementation. */
struct file_layer {
    const struct file_ops *ops;
};

/* The real one, on directory 'dir', which is created (one level) if
 * 'create'. */
int
file_layer_create(const char *dir, bool create, struct file_layer **ret_layer)
    __attribute__((warn_unused_result));
void file_layer_destroy(struct file_layer *); /* Accepts NULL. */

/* Shorthands. */
int
file_pread(struct file_layer *, int file, void *, size_t size, uint64_t offset,
           size_t *ret_n) __attribute__((warn_unused_result));
/* EBADMSG if the file ends before 'size' bytes. */
int file_pread_all(struct file_layer *, int file, void *, size_t size,
                   uint64_t offset) __attribute__((warn_unused_result));
int file_pwrite(struct file_layer *, int file, const void *, size_t size,
                uint64_t offset) __attribute__((warn_unused_result));

#endif /* vafs-server/store/file.h */
