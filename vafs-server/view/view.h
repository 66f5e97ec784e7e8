/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Attach names, and the mounts that they lead to.
 *
 *     [branch/NAME[@VERSION]][:/SUBDIR][+ro]        view/NAME...
 *
 * An empty name means the only view that the asker may see.  Today a store has
 * one branch, "main", and no views: any other name is ENOENT.
 *
 * A guest's session is bound to a name that the toolstack wrote (see
 * lib/guest-hello.h).  What the guest itself says can only narrow it: a
 * subdirectory below the bound one, read-only instead of writable.
 *
 * A 'struct mount' is a part of a branch as one attach shows it: its root, who
 * may write, and the space that its qids lie in.  Fids hold mounts by
 * reference, so that a mount lives as long as the last fid in it.  Mounts are
 * immutable; references are counted atomically. */
#ifndef VAFS_VIEW_VIEW_H
#define VAFS_VIEW_VIEW_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/util.h"

struct branch;
struct catalogue;
struct file;
struct view;

#define VIEW_NAME_MAX 255
#define VIEW_ATTACH_MAX 1023

/* An attach name, taken apart. */
struct view_name {
    char branch[VIEW_NAME_MAX + 1];   /* "" if the name does not say. */
    char version[VIEW_NAME_MAX + 1];  /* "" = the live branch. */
    char subdir[VIEW_ATTACH_MAX + 1]; /* "a/b", without slashes around. */
    bool is_view;                     /* 'branch' is the name of a view. */
    bool read_only;
};

/* Takes 'size' bytes at 'text' apart.  On EINVAL or ENAMETOOLONG,
 * '*ret_reason' (if not NULL) is a sentence. */
int view_name_parse(const char *text, size_t size, struct view_name *ret,
                    const char **ret_reason) NODISCARD;

/* Narrows 'bound' by 'asked' into '*ret' (which may be either of them).
 * EACCES: 'asked' names something that is not below 'bound'. */
int
view_name_narrow(const struct view_name *bound, const struct view_name *asked,
                 struct view_name *ret, const char **ret_reason) NODISCARD;

/* The views over the branches of 'catalogue', which stays the caller's. */
int view_create(struct catalogue *, struct view **ret) NODISCARD;
void view_destroy(struct view *);

struct mount {
    unsigned int n_refs; /* Atomic. */
    struct branch *branch;
    struct file *root;
    bool read_only;
    bool is_whole;  /* 'root' is the branch's root. */
    uint16_t space; /* Upper 16 bits of qid.path. */
};

/* Opens what 'name' names.  ENOENT, ENOTDIR; '*ret_reason' as above. */
int view_mount(struct view *, const struct view_name *name, struct mount **ret,
               const char **ret_reason) NODISCARD;

struct mount *mount_ref(struct mount *);
void mount_unref(struct mount *);

/* The parent of the directory 'dir' as seen in 'mount': ".." of the root is
 * the root, and so is that of a directory that was moved out of the mount. */
int
mount_parent(struct mount *, struct file *dir, struct file **ret) NODISCARD;

/* qid.path of inode 'ino' in 'mount'. */
static inline uint64_t
mount_qid_path(const struct mount *mount, uint64_t ino)
{
    return (uint64_t) mount->space << 48 | ino;
}

#endif /* vafs-server/view/view.h */
