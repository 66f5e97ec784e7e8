/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fids: a session's numbers for files.
 *
 * A fid holds a file (an open inode, vafs-server/branch/file.h) and the mount
 * that it was reached through, never a name or a path: it goes on working when
 * the names are gone.  The table and everything in a fid but its reference
 * count belong to the loop's thread; a request that is on the pool holds a
 * reference, and uses only what never changes ('file', 'mount', 'uid'): where
 * the protocol gives a number to another file (Tlcreate, Twalk onto itself),
 * a new fid takes the number.
 *
 *   FID_WALKED       names a file; can be walked from, opened, ...
 *   FID_OPEN         after Tlopen or Tlcreate: can be read or written as
 *                    'flags' say
 *   FID_XATTR_READ   made by Txattrwalk: reads give 'xattr'
 *   FID_XATTR_WRITE  made by Txattrcreate: writes gather in 'xattr', and the
 *                    clunk sets the attribute */
#ifndef VAFS_NINEP_FID_H
#define VAFS_NINEP_FID_H 1

#include <stdint.h>

#include "lib/list.h"
#include "lib/ninep/codec.h"
#include "lib/util.h"

struct file;
struct mount;

enum fid_state { FID_WALKED, FID_OPEN, FID_XATTR_READ, FID_XATTR_WRITE };

struct fid {
    struct list link; /* In its table's bucket. */
    uint32_t number;
    unsigned int n_refs; /* Atomic. */
    enum fid_state state;
    uint32_t flags; /* NINEP_O_*, when open. */
    uint32_t uid;   /* From the attach. */
    bool has_locks; /* A Tlock was granted through it. */
    struct file *file;
    struct mount *mount;

    /* Extended attributes only. */
    char *xattr;
    uint32_t xattr_size; /* Of 'xattr'. */
    uint32_t xattr_done; /* Bytes written so far. */
    uint32_t xattr_flags;
    char *xattr_name; /* NUL-terminated. */
};

struct fid_table {
    struct list *buckets;
    size_t n_buckets; /* A power of 2. */
    size_t n;
    uint64_t secret;    /* Odd. */
    size_t xattr_bytes; /* Held for values of extended attributes. */
};

/* A session's fids are bounded; EMFILE beyond.  Linux keeps one for each name
 * in its directory cache. */
#define FID_MAX (1u << 19)

/* Bytes that a session's fids may hold for values of extended attributes;
 * ENOMEM beyond.  A client has one or two such fids at a time. */
#define FID_XATTR_BYTES_MAX ((size_t) 4 << 20)

int fid_table_init(struct fid_table *) NODISCARD;

/* Drops all fids. */
void fid_table_destroy(struct fid_table *);

/* The fid with 'number', or NULL.  No reference is added. */
struct fid *fid_find(const struct fid_table *, uint32_t number);

/* Makes a fid of 'number' in state FID_WALKED, with references to 'file' and
 * 'mount' of its own.  EBADF: the number is taken or reserved. */
int fid_new(struct fid_table *, uint32_t number, struct file *file,
            struct mount *mount, uint32_t uid, struct fid **ret) NODISCARD;

/* Takes 'fid' out of the table and drops the table's reference. */
void fid_remove(struct fid_table *, struct fid *);

struct fid *fid_ref(struct fid *);

/* NULL is accepted. */
void fid_unref(struct fid *);

/* The qid of 'file' in 'mount'. */
struct ninep_qid
fid_make_qid(const struct mount *mount, const struct file *file);

static inline bool
fid_is_readable(const struct fid *fid)
{
    return fid->state == FID_OPEN &&
           (fid->flags & NINEP_O_ACCMODE) != NINEP_O_WRONLY;
}

static inline bool
fid_is_writable(const struct fid *fid)
{
    return fid->state == FID_OPEN &&
           (fid->flags & NINEP_O_ACCMODE) != NINEP_O_RDONLY;
}

#endif /* vafs-server/ninep/fid.h */
