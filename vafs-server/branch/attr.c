/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Attributes of inodes. */

#include "vafs-server/branch/branch-private.h"

#define ATIME_OLD (INT64_C(24) * 3600 * (int64_t) NSEC_PER_SEC)

int
file_getattr(struct file *file, struct file_attr *ret)
{
    struct branch *branch = file->branch;
    const struct tree_attr *a = &file->attr;

    brlock_read_lock(&branch->lock);
    *ret = (struct file_attr){
        .ino = file->ino,
        .gen = file->gen,
        .mode = a->mode,
        .nlink = a->nlink,
        .uid = a->uid,
        .gid = a->gid,
        .rdev = a->rdev,
        .size = a->size,
        .blocks = DIV_ROUND_UP(a->stored, 512),
        .atime = a->atime,
        .mtime = a->mtime,
        .ctime = a->ctime,
        .btime = a->btime,
        .data_version = a->data_version,
        .changed = a->changed,
    };
    brlock_read_unlock(&branch->lock);
    return 0;
}

/* Applies all but the size. */
void
attr_apply(struct tree_attr *a, const struct file_setattr *set, int64_t now)
{
    uint32_t mask = set->mask;

    if (mask & FILE_SET_UID) {
        a->uid = set->uid;
    }
    if (mask & FILE_SET_GID) {
        a->gid = set->gid;
    }
    if (mask & FILE_SET_MODE) {
        a->mode = (a->mode & S_IFMT) | (set->mode & 07777);
    } else if (mask & (FILE_SET_UID | FILE_SET_GID) && !S_ISDIR(a->mode)) {
        a->mode &= ~S_ISUID;
        if (a->mode & S_IXGRP) {
            a->mode &= ~S_ISGID;
        }
    }
    if (mask & FILE_SET_ATIME) {
        a->atime = mask & FILE_SET_ATIME_SET ? set->atime : now;
    }
    if (mask & FILE_SET_MTIME) {
        a->mtime = mask & FILE_SET_MTIME_SET ? set->mtime : now;
    }
    a->ctime = now;
    a->data_version++;
}

int
file_setattr(struct file *file, const struct file_setattr *set)
{
    struct branch *branch = file->branch;
    int error;

    if (!(set->mask & 0x1ff)) {
        return 0;
    }
    error = checkpoint_throttle(branch);
    if (error) {
        return error;
    }
    if (set->mask & FILE_SET_SIZE) {
        if (file->type != S_IFREG) {
            return file->type == S_IFDIR ? EISDIR : EINVAL;
        }
        if (set->size > FILE_SIZE_MAX) {
            return EFBIG;
        }
        if (file_nowait) {
            if (pthread_rwlock_trywrlock(&file->data_lock)) {
                return EAGAIN;
            }
        } else {
            pthread_rwlock_wrlock(&file->data_lock);
        }
        error = data_set_size(file, set->size, set);
        pthread_rwlock_unlock(&file->data_lock);
        return error;
    }

    error = edge_begin(branch, EDGE_PUT_MAX(TREE_ATTR_MAX));
    if (!error) {
        edge_lock(branch);
        attr_apply(&file->attr, set, clock_real_ns());
        inode_put_attr(file, file->type == S_IFDIR ? EDGE_NAMES : file);
        edge_unlock(branch);
        edge_end(branch);
    }
    return error;
}

/* The rule of relatime. */
bool
attr_atime_due(const struct tree_attr *a, int64_t now)
{
    return a->atime <= a->mtime || a->atime <= a->ctime ||
           now - a->atime >= ATIME_OLD;
}
