/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Entries of directories, for name.c, rename.c and dir.c. */

#ifndef VAFS_BRANCH_NAME_H
#define VAFS_BRANCH_NAME_H 1

#include "vafs-server/branch/branch-private.h"

/* A place in a directory. */
struct place {
    struct file *dir;
    uint64_t cookie;
};

/* What name_find() found. */
struct found {
    uint64_t cookie; /* Of the entry; if absent: the one to use for it. */
    uint64_t ino;
    uint8_t type;
};

/* Whether 'name' can be a name in 'dir'. */
int name_check(struct file *dir, const char *name, size_t len) NODISCARD;

/* Looks 'name' up in 'dir'.  On ENOENT 'ret->cookie' is set all the same
 * (ENOSPC: too many equal hashes). */
int name_find(struct file *dir, const char *name, size_t len,
              struct found *ret) NODISCARD;

/* Writes the entry; edge locked. */
void name_put(const struct place *, const char *name, size_t len,
              const struct file *target);
void name_remove(const struct place *);

/* If the name of 'file' at 'place' is its first one and there are more: finds
 * one that is to become the first ('*ret_dir' 0: none is needed). */
int name_find_other(struct file *, const struct place *, uint64_t *ret_dir,
                    uint64_t *ret_cookie) NODISCARD;

/* The inode loses its name at 'place'; 'other' is from name_find_other().  If
 * that was the last it is deleted or becomes an orphan.  Edge locked. */
void name_lose(struct file *, const struct place *, uint64_t other_dir,
               uint64_t other_cookie, int64_t now);

/* The directory's times and counters after a change of its entries. */
void
name_dir_changed(struct file *dir, int d_entries, int d_links, int64_t now);

static inline bool
is_dir(const struct file *file)
{
    return file->type == S_IFDIR;
}

static inline bool
at_place(const struct file *file, const struct place *place)
{
    return file->attr.parent == place->dir->ino &&
           file->attr.cookie == place->cookie;
}

#endif /* vafs-server/branch/name.h */
