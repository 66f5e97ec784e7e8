/* SPDX-License-Identifier: GPL-2.0-or-later */
/* file_rename(): one change under the branch's mutex, whatever it moves. */

#include "vafs-server/branch/name.h"

struct renaming {
    struct place old, new;
    struct file *source;
    struct file *target; /* What is replaced or exchanged, or NULL. */
    const char *old_name, *new_name;
    size_t old_len, new_len;
    uint64_t other_dir, other_cookie; /* Of 'target'. */
};

/* Whether 'dir' is 'top' or below it: 0 or EINVAL. */
static int
check_not_below(struct file *dir, struct file *top)
{
    struct file *at = file_ref(dir);
    int error = 0;

    for (;;) {
        struct file *parent;

        if (at == top) {
            error = EINVAL;
            break;
        }
        if (at->attr.parent == at->ino) {
            break;
        }
        error = inode_get(dir->branch, at->attr.parent, &parent);
        if (error) {
            break;
        }
        file_unref(at);
        at = parent;
    }
    file_unref(at);
    return error == ESTALE ? EIO : error;
}

/* POSIX's rules; 'r->source' and 'r->target' are known. */
static int
check(const struct renaming *r, unsigned int flags)
{
    struct file *source = r->source, *target = r->target;
    int error = 0;

    if (flags & FILE_RENAME_NOREPLACE && target) {
        return EEXIST;
    }
    if (flags & FILE_RENAME_EXCHANGE && !target) {
        return ENOENT;
    }
    if (is_dir(source) && r->new.dir != r->old.dir) {
        error = check_not_below(r->new.dir, source);
    }
    if (!error && target && is_dir(target) && r->new.dir != r->old.dir) {
        error = check_not_below(r->old.dir, target);
        if (error == EINVAL && !(flags & FILE_RENAME_EXCHANGE)) {
            error = ENOTEMPTY;
        }
    }
    if (error || !target || flags & FILE_RENAME_EXCHANGE) {
        return error;
    }
    if (is_dir(target)) {
        return !is_dir(source) ? EISDIR : target->attr.size ? ENOTEMPTY : 0;
    }
    return is_dir(source) ? ENOTDIR : 0;
}

/* 'file' goes from one place to another; its entry is written elsewhere. */
static void
move(struct file *file, const struct place *from, const struct place *to,
     int64_t now)
{
    struct branch *branch = file->branch;

    if (at_place(file, from)) {
        file->attr.parent = to->dir->ino;
        file->attr.cookie = to->cookie;
    } else {
        struct tree_key key =
            tree_key(file->ino, TREE_LINK, from->dir->ino, from->cookie);

        edge_remove(branch, EDGE_NAMES, &key);
        key = tree_key(file->ino, TREE_LINK, to->dir->ino, to->cookie);
        edge_put(branch, EDGE_NAMES, &key, "", 0);
    }
    file->attr.ctime = now;
    file->attr.data_version++;
    inode_put_attr(file, EDGE_NAMES);
}

static void
exchange(const struct renaming *r, int64_t now)
{
    int d = is_dir(r->target) - is_dir(r->source);

    name_put(&r->old, r->old_name, r->old_len, r->target);
    name_put(&r->new, r->new_name, r->new_len, r->source);
    move(r->source, &r->old, &r->new, now);
    move(r->target, &r->new, &r->old, now);
    if (r->old.dir == r->new.dir) {
        d = 0;
    }
    name_dir_changed(r->old.dir, 0, d, now);
    if (r->new.dir != r->old.dir) {
        name_dir_changed(r->new.dir, 0, -d, now);
    }
}

static void
replace(const struct renaming *r, int64_t now)
{
    struct branch *branch = r->source->branch;
    int moved_dirs = is_dir(r->source);
    int lost_dirs = r->target && is_dir(r->target);

    if (r->target) {
        name_lose(r->target, &r->new, r->other_dir, r->other_cookie, now);
        if (r->source->type == S_IFREG && list_is_empty(&r->source->carry) &&
            !list_is_empty(&r->source->unlogged)) {
            /* Who replaces a file this way expects that a crash leaves the old
             * content or the new one: the data goes with the name. */
            list_push_back(&branch->carry, &r->source->carry);
            inode_pin(r->source);
        }
    }
    name_remove(&r->old);
    name_put(&r->new, r->new_name, r->new_len, r->source);
    move(r->source, &r->old, &r->new, now);
    if (r->old.dir == r->new.dir) {
        name_dir_changed(r->old.dir, r->target ? -1 : 0, -lost_dirs, now);
    } else {
        name_dir_changed(r->old.dir, -1, -moved_dirs, now);
        name_dir_changed(r->new.dir, r->target ? 0 : 1, moved_dirs - lost_dirs,
                         now);
    }
}

static int
rename_locked(struct renaming *r, unsigned int flags)
{
    struct branch *branch = r->old.dir->branch;
    int64_t now = clock_real_ns();
    struct found found;
    int error;

    if (!r->old.dir->attr.nlink || !r->new.dir->attr.nlink) {
        return ENOENT;
    }
    error = name_find(r->old.dir, r->old_name, r->old_len, &found);
    if (!error) {
        r->old.cookie = found.cookie;
        error = inode_get(branch, found.ino, &r->source);
    }
    if (error) {
        return error == ESTALE ? EIO : error;
    }
    error = name_find(r->new.dir, r->new_name, r->new_len, &found);
    r->new.cookie = found.cookie;
    if (!error) {
        error = inode_get(branch, found.ino, &r->target);
    }
    if (error && error != ENOENT) {
        return error == ESTALE ? EIO : error;
    }
    if (r->source == r->target) {
        return flags & FILE_RENAME_NOREPLACE ? EEXIST : 0;
    }
    error = check(r, flags);
    if (!error && r->target && !(flags & FILE_RENAME_EXCHANGE)) {
        error = name_find_other(r->target, &r->new, &r->other_dir,
                                &r->other_cookie);
    }
    if (error) {
        return error;
    }

    edge_lock(branch);
    if (flags & FILE_RENAME_EXCHANGE) {
        exchange(r, now);
    } else {
        replace(r, now);
    }
    edge_unlock(branch);
    return 0;
}

static bool
is_dot(const char *name, size_t len)
{
    return len <= 2 && name[0] == '.' && name[len - 1] == '.';
}

int
file_rename(struct file *old_dir, const char *old_name, size_t old_len,
            struct file *new_dir, const char *new_name, size_t new_len,
            unsigned int flags)
{
    struct renaming r = {
        .old.dir = old_dir,
        .new.dir = new_dir,
        .old_name = old_name,
        .old_len = old_len,
        .new_name = new_name,
        .new_len = new_len,
    };
    int error;

    if (old_dir->branch != new_dir->branch) {
        return EXDEV;
    }
    if (flags & ~(FILE_RENAME_NOREPLACE | FILE_RENAME_EXCHANGE) ||
        flags == (FILE_RENAME_NOREPLACE | FILE_RENAME_EXCHANGE)) {
        return EINVAL;
    }
    error = name_check(old_dir, old_name, old_len);
    if (!error) {
        error = name_check(new_dir, new_name, new_len);
    }
    if (!error && (is_dot(old_name, old_len) || is_dot(new_name, new_len))) {
        error = EBUSY;
    }
    if (!error) {
        error = checkpoint_throttle(old_dir->branch);
    }
    if (!error) {
        error = edge_begin(old_dir->branch, EDGE_NAMES_MAX);
    }
    if (!error) {
        error = rename_locked(&r, flags);
        edge_end(old_dir->branch);
    }
    file_unref(r.source);
    file_unref(r.target);
    return error;
}
