/* SPDX-License-Identifier: GPL-2.0-or-later */
/* POSIX file operations on a branch (see branch.h), as a 9P server or a tool
 * wants them.
 *
 * A 'struct file' is an open inode: a counted reference to (branch, inode,
 * generation), never to a path and never to a name.  It goes on being usable
 * when its last name is gone; the inode is deleted when its last 'struct file'
 * goes.  Any number of threads may use one handle at the same time.
 *
 * Permissions are not checked here (the guest's kernel does that, or whoever
 * stands above), types and names are.  Names are bytes, 1 to 255 of them,
 * without '/' and NUL; "." and ".." are accepted by file_lookup() only.
 *
 * Errors common to all: EINVAL bad name or argument, ENAMETOOLONG, ENOTDIR
 * 'dir' is no directory, ENOENT (also: 'dir' itself has been removed), ESTALE
 * the file is no longer in the branch at all, EROFS, ENOSPC, EIO (the store is
 * broken or an object is damaged), ENOMEM, EXDEV handles of two branches. */

#ifndef VAFS_BRANCH_FILE_H
#define VAFS_BRANCH_FILE_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/util.h"

struct branch;
struct file;

#define FILE_NAME_MAX 255
#define FILE_SYMLINK_MAX 4095
#define FILE_XATTR_NAME_MAX 255
#define FILE_XATTR_SIZE_MAX 65536
#define FILE_LINK_MAX 1000000000
#define FILE_SIZE_MAX (UINT64_C(1) << 60)

/* Who does it: owner and group of what is made. */
struct file_cred {
    uint32_t uid;
    uint32_t gid;
};

struct file_attr {
    uint64_t ino; /* 48 bits. */
    uint32_t gen;
    uint32_t mode; /* Linux values, type included. */
    uint32_t nlink;
    uint32_t uid;
    uint32_t gid;
    uint64_t rdev; /* Linux encoding as given to file_mknod(). */
    uint64_t size;
    uint64_t blocks; /* Of 512 bytes. */
    int64_t atime;   /* Nanoseconds since 1970, here and below. */
    int64_t mtime;
    int64_t ctime;
    int64_t btime;
    uint64_t data_version; /* Grows with each change of the inode. */
    uint64_t changed;      /* Sequence of the version that it last changed
                            * in, as of now. */
};

/* Bits of file_setattr(), equal to those of 9P2000.L's Tsetattr. */
enum {
    FILE_SET_MODE = 0x1,
    FILE_SET_UID = 0x2,
    FILE_SET_GID = 0x4,
    FILE_SET_SIZE = 0x8,
    FILE_SET_ATIME = 0x10, /* To 'atime' if _ATIME_SET, else now. */
    FILE_SET_MTIME = 0x20, /* To 'mtime' if _MTIME_SET, else now. */
    FILE_SET_CTIME = 0x40, /* Always to now. */
    FILE_SET_ATIME_SET = 0x80,
    FILE_SET_MTIME_SET = 0x100,
};

struct file_setattr {
    uint32_t mask; /* FILE_SET_*. */
    uint32_t mode; /* Permission bits; a type in it is ignored. */
    uint32_t uid;
    uint32_t gid;
    uint64_t size;
    int64_t atime;
    int64_t mtime;
};

/* Makes the calling thread's calls fail with EAGAIN, before anything is
 * changed, instead of waiting for the disk, for room or for somebody who does.
 * A caller with one loop repeats such a call in another thread.  Not for
 * file_fsync(), branch_syncfs() and what is in branch.h: those always wait. */
void file_set_nowait(bool);

/* Handles. */

/* The root directory of 'branch'. */
int file_root(struct branch *, struct file **ret_file) NODISCARD;

/* The file (inode, generation), to find an open file again after a reconnect.
 * 'gen' 0 matches any.  ESTALE if there is none such. */
int file_by_inode(struct branch *, uint64_t ino, uint32_t gen,
                  struct file **ret_file) NODISCARD;

/* One more reference; returns 'file'. */
struct file *file_ref(struct file *);

/* Drops a reference.  NULL is accepted.  May delete the inode. */
void file_unref(struct file *);

/* Constant properties: no lock, no I/O. */
struct branch *file_branch(const struct file *);
uint64_t file_ino(const struct file *);
uint32_t file_gen(const struct file *);
uint32_t file_type(const struct file *); /* S_IFMT bits of the mode. */

/* Names. */

/* Finds 'name' in 'dir'.  "." gives 'dir', ".." its parent (the root's is the
 * root). */
int file_lookup(struct file *dir, const char *name, size_t name_len,
                struct file **ret_file) NODISCARD;

/* The directory that holds 'file' by (one of) its name(s); the root's is the
 * root.  ENOENT: it has no name. */
int file_parent(struct file *, struct file **ret_dir) NODISCARD;

/* Writes the path of 'file' from the branch's root ("/" for the root itself),
 * NUL-terminated, into 'buf'.  ENOENT: it has no name.  ERANGE: 'size' is too
 * small. */
int file_path(struct file *, char *buf, size_t size) NODISCARD;

/* The directory and name of (one of) the names of 'file', for operations that
 * know it by handle only.  '*ret_len' is the length of 'name', which is not
 * NUL-terminated.  ENOENT: it has no name; EBUSY: it is the root. */
int file_name(struct file *, struct file **ret_dir, char name[FILE_NAME_MAX],
              size_t *ret_len) NODISCARD;

/* Makes a regular file.  EEXIST.  'mode' is used as is (no umask).  The
 * group is 'cred->gid', or that of 'dir' if it has S_ISGID.  'ret_file' may be
 * NULL, here and below. */
int
file_create(struct file *dir, const char *name, size_t name_len, uint32_t mode,
            const struct file_cred *cred, struct file **ret_file) NODISCARD;

/* Makes a directory; it inherits S_ISGID. */
int
file_mkdir(struct file *dir, const char *name, size_t name_len, uint32_t mode,
           const struct file_cred *cred, struct file **ret_file) NODISCARD;

/* Makes a symbolic link to 'target' (1 to FILE_SYMLINK_MAX bytes). */
int
file_symlink(struct file *dir, const char *name, size_t name_len,
             const char *target, size_t target_len,
             const struct file_cred *cred, struct file **ret_file) NODISCARD;

/* Makes a node of the type in 'mode': S_IFREG (or 0), S_IFIFO, S_IFSOCK,
 * S_IFCHR or S_IFBLK, for which 'rdev' is kept as is. */
int file_mknod(struct file *dir, const char *name, size_t name_len,
               uint32_t mode, uint64_t rdev, const struct file_cred *cred,
               struct file **ret_file) NODISCARD;

/* Gives 'file' the further name 'name' in 'dir'.  EEXIST, EPERM (a
 * directory), EMLINK, ENOENT ('file' has no name left). */
int file_link(struct file *dir, const char *name, size_t name_len,
              struct file *file) NODISCARD;

/* Removes a name.  'flags': 0 removes anything but a directory (EISDIR),
 * AT_REMOVEDIR (0x200) an empty directory (ENOTDIR, ENOTEMPTY). */
int file_unlink(struct file *dir, const char *name, size_t name_len,
                unsigned int flags) NODISCARD;

/* Removes whatever name 'file' has (Tremove): as file_unlink() in its parent.
 * EBUSY for the root. */
int file_remove(struct file *file) NODISCARD;

/* Moves 'old_name' of 'old_dir' to 'new_name' of 'new_dir', replacing what is
 * there, atomically.  Two names of one inode: nothing happens, 0.  EINVAL a
 * directory into its own subtree; EISDIR, ENOTDIR type of what is replaced;
 * ENOTEMPTY. 'flags': 0, FILE_RENAME_NOREPLACE (EEXIST) or
 * FILE_RENAME_EXCHANGE (both exist and are swapped), Linux's values. */
enum {
    FILE_RENAME_NOREPLACE = 1,
    FILE_RENAME_EXCHANGE = 2,
};
int
file_rename(struct file *old_dir, const char *old_name, size_t old_name_len,
            struct file *new_dir, const char *new_name, size_t new_name_len,
            unsigned int flags) NODISCARD;

/* One entry as file_readdir() shows it. */
struct file_dirent {
    uint64_t ino;
    uint64_t cookie;  /* Continue after this entry with it; top bit is 0. */
    uint8_t type;     /* DT_REG etc. */
    const char *name; /* Not NUL-terminated; valid during the call. */
    size_t name_len;
};

/* Calls 'emit' for the entries of 'dir' after 'cookie' (0: from the start; "."
 * has 1, ".." has 2), until it returns false: that entry does not count as
 * delivered.  Entries that exist during a whole scan are seen exactly once,
 * whatever changes beside them; cookies stay valid over restarts.  'emit' runs
 * without locks held. */
int file_readdir(struct file *dir, uint64_t cookie,
                 bool (*emit)(const struct file_dirent *, void *aux),
                 void *aux) NODISCARD;

/* Attributes. */

int file_getattr(struct file *, struct file_attr *ret_attr) NODISCARD;

/* Changes attributes together, atomically.  Changing the owner or group of a
 * file that is no directory clears its S_ISUID, and S_ISGID if group
 * execution is set, unless the mode is given too.  EINVAL/EISDIR size of
 * something that is no regular file, EFBIG. */
int file_setattr(struct file *, const struct file_setattr *) NODISCARD;

/* The target of a symbolic link, not NUL-terminated, cut at 'size';
 * '*ret_len' its length (as far as it was copied).  EINVAL: no link. */
int file_readlink(struct file *, char *buf, size_t size,
                  size_t *ret_len) NODISCARD;

/* Content of regular files (EISDIR, EINVAL for others). */

/* Reads up to 'size' bytes at 'offset'; '*ret_n' is less only at the end of
 * the file.  A read never sees half of one file_write().  The access time
 * follows relatime and is not by itself a change. */
int file_read(struct file *, void *buf, size_t size, uint64_t offset,
              size_t *ret_n) NODISCARD;

enum {
    /* Write at the end of the file, whatever 'offset' says. */
    FILE_WRITE_APPEND = 1,
    /* The writer is privileged: keep S_ISUID and S_ISGID. */
    FILE_WRITE_KEEP_SUID = 2,
    /* Durable before it returns: content and what is needed to find it
     * (O_DSYNC), or everything (O_SYNC). */
    FILE_WRITE_DSYNC = 4,
    FILE_WRITE_SYNC = 8,
};

/* Writes 'size' bytes at 'offset', whole or (with an error) not at all;
 * '*ret_n' is 'size' then and may be NULL.  Atomic against other reads and
 * writes. */
int file_write(struct file *, const void *buf, size_t size, uint64_t offset,
               unsigned int flags, size_t *ret_n) NODISCARD;

/* Makes a hole of [offset, offset + size) within the file's size. */
int file_punch(struct file *, uint64_t offset, uint64_t size) NODISCARD;

/* The start of the next data (or, if 'hole', hole) at or after 'offset', as
 * SEEK_DATA and SEEK_HOLE: ENXIO beyond the end.  Granularity is the page of 4
 * KiB or coarser. */
int file_seek(struct file *, uint64_t offset, bool hole,
              uint64_t *ret_offset) NODISCARD;

/* Extended attributes.  Names are kept with their prefix ("user.x"). */

/* '*ret_size' is the value's size.  If 'size' is 0 nothing is copied; ERANGE
 * if 'size' is smaller than the value.  ENODATA: no such attribute. */
int file_getxattr(struct file *, const char *name, size_t name_len, void *buf,
                  size_t size, size_t *ret_size) NODISCARD;

/* 'flags': 0, XATTR_CREATE 1 (EEXIST), XATTR_REPLACE 2 (ENODATA).  E2BIG. */
int
file_setxattr(struct file *, const char *name, size_t name_len,
              const void *value, size_t size, unsigned int flags) NODISCARD;

/* The names, each followed by a NUL, as listxattr(2).  Sizes as above. */
int file_listxattr(struct file *, char *buf, size_t size,
                   size_t *ret_size) NODISCARD;

int
file_removexattr(struct file *, const char *name, size_t name_len) NODISCARD;

/* Durability. */

/* Everything that was done to 'file' before the call is durable after it, and
 * all changes of names in the branch that were done before as well.  One group
 * commit.  'datasync' leaves out attributes that are not needed to read the
 * content. */
int file_fsync(struct file *, bool datasync) NODISCARD;

#endif /* vafs-server/branch/file.h */
