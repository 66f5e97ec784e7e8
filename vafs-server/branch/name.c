/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names: looking up, making, linking and removing entries.
 *
 * An entry's key is (directory, ENTRY, cookie); the cookie is 55 bits of the
 * name's hash and 8 that tell names with equal hash apart.  Cookies 0 to 2 are
 * not used: 1 is ".", 2 is "..".
 *
 * An inode knows its names: the first in its attributes (parent, cookie), the
 * others as keys (inode, LINK, directory, cookie). */

#include "vafs-server/branch/name.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>

#define COOKIE_MIN 3

int
name_check(struct file *dir, const char *name, size_t len)
{
    if (!is_dir(dir)) {
        return ENOTDIR;
    }
    if (len > FILE_NAME_MAX) {
        return ENAMETOOLONG;
    }
    if (!len || memchr(name, '/', len) || memchr(name, '\0', len)) {
        return EINVAL;
    }
    return 0;
}

static bool
is_dot(const char *name, size_t len)
{
    return (len == 1 && name[0] == '.') ||
           (len == 2 && name[0] == '.' && name[1] == '.');
}

/* The cookies among the 256 possible ones that some layer or the tree says
 * anything about; up to 'max'. */
static int
candidates(struct branch *branch, const struct tree_key *lo,
           const struct tree_key *hi, uint64_t cookie[], unsigned int max,
           unsigned int *ret_n)
{
    struct tree_cursor cursor;
    struct tree base;
    unsigned int n = 0;
    int error;

    brlock_read_lock(&branch->lock);
    base = branch->base;
    for (unsigned int i = 0; i < branch->n_layers; i++) {
        struct kmap_iter iter;

        kmap_seek(&branch->layer[i]->points, lo, &iter);
        while (n < max && iter.leaf && tree_key_less(kmap_key(&iter), hi)) {
            cookie[n++] = kmap_key(&iter)->mid;
            kmap_next(&iter);
        }
    }
    brlock_read_unlock(&branch->lock);

    tree_cursor_init(&cursor, &base);
    error = tree_cursor_seek(&cursor, lo);
    while (!error && n < max && tree_cursor_valid(&cursor) &&
           tree_key_less(&cursor.key, hi)) {
        cookie[n++] = cursor.key.mid;
        error = tree_cursor_next(&cursor);
    }
    tree_cursor_destroy(&cursor);
    *ret_n = n;
    return error == EBADMSG ? EIO : error;
}

/* Whether the entry at 'cookie' has this name: 0, ENOENT there is none, EEXIST
 * it has another name. */
static int
probe(struct file *dir, uint64_t cookie, const char *name, size_t len,
      struct found *ret)
{
    struct tree_key key = tree_key(dir->ino, TREE_ENTRY, cookie, 0);
    struct edge_value value;
    struct tree_entry entry;
    int error = edge_get(dir->branch, &key, &value);

    if (error) {
        return error;
    }
    if (tree_entry_decode(value.data, value.size, &entry)) {
        return EIO;
    }
    if (entry.name_len != len || memcmp(entry.name, name, len)) {
        return EEXIST;
    }
    ret->cookie = cookie;
    ret->ino = entry.ino;
    ret->type = entry.type;
    return 0;
}

int
name_find(struct file *dir, const char *name, size_t len, struct found *ret)
{
    uint64_t hash = name_hash(dir->branch, name, len);
    uint64_t first = MAX(hash, COOKIE_MIN);
    struct tree_key lo = tree_key(dir->ino, TREE_ENTRY, hash, 0);
    struct tree_key hi = tree_key(dir->ino, TREE_ENTRY, hash + 256, 0);
    uint64_t cookie[LAYERS_MAX * 256];
    uint64_t used[4] = {0};
    unsigned int n;
    int error;

    error = probe(dir, first, name, len, ret);
    if (error != ENOENT && error != EEXIST) {
        return error;
    }
    error = candidates(dir->branch, &lo, &hi, cookie, ARRAY_SIZE(cookie), &n);
    if (error) {
        return error;
    }
    for (unsigned int i = 0; i < n; i++) {
        error = probe(dir, cookie[i], name, len, ret);
        if (error == EEXIST) {
            used[(cookie[i] & 255) / 64] |= UINT64_C(1) << (cookie[i] % 64);
        } else if (error != ENOENT) {
            return error;
        }
    }
    for (uint64_t c = first; c < hash + 256; c++) {
        if (!(used[(c & 255) / 64] >> (c % 64) & 1)) {
            ret->cookie = c;
            return ENOENT;
        }
    }
    return ENOSPC;
}

void
name_put(const struct place *place, const char *name, size_t len,
         const struct file *target)
{
    struct branch *branch = place->dir->branch;
    struct tree_key key =
        tree_key(place->dir->ino, TREE_ENTRY, place->cookie, 0);
    struct tree_entry entry = {
        .type = IFTODT(target->type),
        .ino = target->ino,
        .since = branch->layer[0]->number,
        .name = name,
        .name_len = len,
    };
    uint8_t data[TREE_ENTRY_MAX];

    edge_put(branch, EDGE_NAMES, &key, data, tree_entry_encode(&entry, data));
}

void
name_remove(const struct place *place)
{
    struct tree_key key =
        tree_key(place->dir->ino, TREE_ENTRY, place->cookie, 0);

    edge_remove(place->dir->branch, EDGE_NAMES, &key);
}

void
name_dir_changed(struct file *dir, int d_entries, int d_links, int64_t now)
{
    dir->attr.size += d_entries;
    dir->attr.nlink += d_links;
    dir->attr.mtime = dir->attr.ctime = now;
    dir->attr.data_version++;
    inode_put_attr(dir, EDGE_NAMES);
}

int
name_find_other(struct file *file, const struct place *place,
                uint64_t *ret_dir_ino, uint64_t *ret_cookie)
{
    struct tree_key lo = tree_key(file->ino, TREE_LINK, 0, 0);
    struct tree_key hi = tree_key(file->ino, TREE_LINK + 1, 0, 0);
    struct edge_scan *scan;
    int error;

    *ret_dir_ino = 0;
    if (is_dir(file) || file->attr.nlink < 2 || !at_place(file, place)) {
        return 0;
    }
    scan = edge_scan_new(file->branch, &lo, &hi);
    if (!scan) {
        return ENOMEM;
    }
    error = edge_scan_next(scan);
    if (!error && !scan->n) {
        error = EIO;
    }
    if (!error) {
        *ret_dir_ino = scan->item[0].key.mid;
        *ret_cookie = scan->item[0].key.lo;
    }
    free(scan);
    return error;
}

void
name_lose(struct file *file, const struct place *place, uint64_t other_dir,
          uint64_t other_cookie, int64_t now)
{
    struct branch *branch = file->branch;

    if (!at_place(file, place)) {
        struct tree_key key =
            tree_key(file->ino, TREE_LINK, place->dir->ino, place->cookie);

        edge_remove(branch, EDGE_NAMES, &key);
    } else {
        if (other_dir) {
            struct tree_key key =
                tree_key(file->ino, TREE_LINK, other_dir, other_cookie);

            edge_remove(branch, EDGE_NAMES, &key);
        }
        file->attr.parent = other_dir;
        file->attr.cookie = other_dir ? other_cookie : 0;
    }
    file->attr.nlink = is_dir(file) ? 0 : file->attr.nlink - 1;
    file->attr.ctime = now;
    file->attr.data_version++;
    if (file->attr.nlink) {
        inode_put_attr(file, EDGE_NAMES);
    } else if (inode_claim(file)) {
        inode_remove_keys(file);
    } else {
        struct tree_key key = tree_key(0, TREE_ORPHAN, file->ino, 0);

        inode_put_attr(file, EDGE_NAMES);
        edge_put(branch, EDGE_NAMES, &key, "", 0);
        branch->stats.n_orphans++;
    }
}

/* Looking up. */

int
file_lookup(struct file *dir, const char *name, size_t len,
            struct file **ret_file)
{
    struct found found;
    int error = name_check(dir, name, len);

    if (error) {
        return error;
    }
    if (len == 1 && name[0] == '.') {
        *ret_file = file_ref(dir);
        return 0;
    }
    if (is_dot(name, len)) {
        return file_parent(dir, ret_file);
    }
    for (unsigned int i = 0; i < 100; i++) {
        error = name_find(dir, name, len, &found);
        if (error) {
            return error;
        }
        error = inode_get(dir->branch, found.ino, ret_file);
        if (error != ESTALE) {
            return error;
        }
        /* Removed between the two: look again. */
    }
    return EIO;
}

static void
get_parent(struct file *file, uint64_t *ino, uint64_t *cookie)
{
    brlock_read_lock(&file->branch->lock);
    *ino = file->attr.parent;
    *cookie = file->attr.cookie;
    brlock_read_unlock(&file->branch->lock);
}

int
file_parent(struct file *file, struct file **ret_dir)
{
    uint64_t ino, cookie;
    int error;

    do {
        get_parent(file, &ino, &cookie);
        if (!ino) {
            return ENOENT;
        }
        if (ino == file->ino) {
            *ret_dir = file_ref(file);
            return 0;
        }
        error = inode_get(file->branch, ino, ret_dir);
    } while (error == ESTALE);
    return error;
}

int
file_name(struct file *file, struct file **ret_dir, char name[FILE_NAME_MAX],
          size_t *ret_len)
{
    for (unsigned int i = 0; i < 100; i++) {
        uint64_t ino, cookie;
        struct tree_key key;
        struct edge_value value;
        struct tree_entry entry;
        int error;

        get_parent(file, &ino, &cookie);
        if (!ino) {
            return ENOENT;
        }
        if (ino == file->ino) {
            return EBUSY;
        }
        key = tree_key(ino, TREE_ENTRY, cookie, 0);
        error = edge_get(file->branch, &key, &value);
        if (error == ENOENT) {
            continue; /* It has been renamed in between. */
        }
        if (error) {
            return error;
        }
        if (tree_entry_decode(value.data, value.size, &entry)) {
            return EIO;
        }
        if (entry.ino != file->ino) {
            continue;
        }
        error = inode_get(file->branch, ino, ret_dir);
        if (!error) {
            memcpy(name, entry.name, entry.name_len);
            *ret_len = entry.name_len;
        }
        if (error != ESTALE) {
            return error;
        }
    }
    return EIO;
}

int
file_path(struct file *file, char *buf, size_t size)
{
    size_t at = size;
    int error = 0;

    if (size < 2) {
        return ERANGE;
    }
    buf[--at] = '\0';
    file = file_ref(file);
    for (;;) {
        char name[FILE_NAME_MAX];
        struct file *dir;
        size_t len;

        error = file_name(file, &dir, name, &len);
        if (error) {
            break;
        }
        file_unref(file);
        file = dir;
        if (len + 1 > at) {
            error = ERANGE;
            break;
        }
        at -= len + 1;
        buf[at] = '/';
        memcpy(buf + at + 1, name, len);
    }
    file_unref(file);
    if (error != EBUSY) {
        return error;
    }
    if (at == size - 1) {
        buf[--at] = '/';
    }
    memmove(buf, buf + at, size - at);
    return 0;
}

/* Making. */

struct making {
    uint32_t mode;
    uint64_t rdev;
    const struct tree_content *content; /* Of a symbolic link. */
    uint64_t size;
};

static void
make_attr(struct file *dir, const struct making *making,
          const struct file_cred *cred, uint64_t cookie,
          struct tree_attr *attr)
{
    memset(attr, 0, sizeof *attr);
    do {
        if (getrandom(&attr->gen, sizeof attr->gen, 0) != sizeof attr->gen) {
            attr->gen = clock_mono_ns();
        }
    } while (!attr->gen);
    attr->mode = making->mode;
    attr->nlink = S_ISDIR(making->mode) ? 2 : 1;
    attr->uid = cred->uid;
    attr->gid = cred->gid;
    if (dir->attr.mode & S_ISGID) {
        attr->gid = dir->attr.gid;
        if (S_ISDIR(making->mode)) {
            attr->mode |= S_ISGID;
        }
    }
    attr->rdev = making->rdev;
    attr->size = attr->stored = making->size;
    attr->btime = attr->mtime = attr->ctime = attr->atime = clock_real_ns();
    attr->parent = dir->ino;
    attr->cookie = cookie;
}

/* Makes the new inode in 'dir'; the branch's mutex is held. */
static int
make_locked(struct file *dir, const char *name, size_t len,
            const struct making *making, const struct file_cred *cred,
            struct file **ret_file)
{
    struct branch *branch = dir->branch;
    struct place place = {.dir = dir};
    struct tree_attr attr;
    struct found found;
    struct file *file;
    uint64_t ino;
    int error;

    if (!dir->attr.nlink) {
        return ENOENT;
    }
    error = name_find(dir, name, len, &found);
    if (error != ENOENT) {
        return error ? error : EEXIST;
    }
    if (S_ISDIR(making->mode) && dir->attr.nlink >= FILE_LINK_MAX) {
        return EMLINK;
    }
    error = inode_number(branch->cat, &ino);
    if (error) {
        return error;
    }
    place.cookie = found.cookie;
    make_attr(dir, making, cred, found.cookie, &attr);
    error = inode_new(branch, ino, &attr, &file);
    if (error) {
        return error;
    }

    edge_lock(branch);
    name_put(&place, name, len, file);
    inode_put_attr(file, EDGE_NAMES);
    if (making->content) {
        struct tree_key key = tree_key(ino, TREE_RECORD, 0, 0);
        uint8_t data[TREE_RECORD_MAX];

        edge_put(branch, EDGE_NAMES, &key, data,
                 tree_content_encode(making->content, data));
    }
    name_dir_changed(dir, 1, S_ISDIR(making->mode), attr.btime);
    branch->n_inodes++;
    branch->stored += attr.stored;
    branch->max_ino = MAX(branch->max_ino, ino);
    edge_unlock(branch);
    *ret_file = file;
    return 0;
}

static int
make(struct file *dir, const char *name, size_t len,
     const struct making *making, const struct file_cred *cred,
     struct file **ret_file)
{
    struct file *file;
    int error;

    error = name_check(dir, name, len);
    if (!error && is_dot(name, len)) {
        error = EEXIST;
    }
    if (!error) {
        error = checkpoint_throttle(dir->branch);
    }
    if (!error) {
        error = edge_begin(dir->branch, EDGE_NAMES_MAX);
    }
    if (error) {
        return error;
    }
    error = make_locked(dir, name, len, making, cred, &file);
    edge_end(dir->branch);
    if (!error) {
        if (ret_file) {
            *ret_file = file;
        } else {
            file_unref(file);
        }
    }
    return error;
}

int
file_create(struct file *dir, const char *name, size_t name_len, uint32_t mode,
            const struct file_cred *cred, struct file **ret_file)
{
    struct making making = {.mode = S_IFREG | (mode & 07777)};

    return make(dir, name, name_len, &making, cred, ret_file);
}

int
file_mkdir(struct file *dir, const char *name, size_t name_len, uint32_t mode,
           const struct file_cred *cred, struct file **ret_file)
{
    struct making making = {.mode = S_IFDIR | (mode & 07777)};

    return make(dir, name, name_len, &making, cred, ret_file);
}

int
file_mknod(struct file *dir, const char *name, size_t name_len, uint32_t mode,
           uint64_t rdev, const struct file_cred *cred, struct file **ret_file)
{
    struct making making = {.mode = mode & (S_IFMT | 07777)};

    switch (mode & S_IFMT) {
    case 0:
        making.mode |= S_IFREG;
        break;
    case S_IFREG:
    case S_IFIFO:
    case S_IFSOCK:
        break;
    case S_IFCHR:
    case S_IFBLK:
        making.rdev = rdev;
        break;
    default:
        return EINVAL;
    }
    return make(dir, name, name_len, &making, cred, ret_file);
}

int
file_symlink(struct file *dir, const char *name, size_t name_len,
             const char *target, size_t target_len,
             const struct file_cred *cred, struct file **ret_file)
{
    struct catalogue *cat = dir->branch->cat;
    struct tree_content content = {
        .inlined = true,
        .data = (const uint8_t *) target,
        .size = target_len,
    };
    struct making making = {
        .mode = S_IFLNK | 0777,
        .content = &content,
        .size = target_len,
    };

    if (!target_len || memchr(target, '\0', target_len)) {
        return target_len ? EINVAL : ENOENT;
    }
    if (target_len > FILE_SYMLINK_MAX) {
        return ENAMETOOLONG;
    }
    if (target_len > TREE_INLINE_MAX) {
        struct store_needs needs = {0};
        struct store_put put = {
            .data = target, .size = target_len, .kind = STORE_DATA};
        int error = cat->options.read_only
                        ? EROFS
                        : store_put(cat->store, &put, &needs);

        /* Rare, so be simple: durable before the name can be. */
        if (!error) {
            error = store_sync_needs(cat->store, &needs);
        }
        store_needs_clear(&needs);
        if (error) {
            return error;
        }
        content.inlined = false;
        content.id = put.id;
    }
    return make(dir, name, name_len, &making, cred, ret_file);
}

/* Linking. */

static int
link_locked(struct file *dir, const char *name, size_t len, struct file *file)
{
    struct branch *branch = dir->branch;
    struct place place = {.dir = dir};
    struct tree_key key;
    struct found found;
    int64_t now = clock_real_ns();
    int error;

    if (!dir->attr.nlink || !file->attr.nlink) {
        return ENOENT;
    }
    if (file->attr.nlink >= FILE_LINK_MAX) {
        return EMLINK;
    }
    error = name_find(dir, name, len, &found);
    if (error != ENOENT) {
        return error ? error : EEXIST;
    }
    place.cookie = found.cookie;
    key = tree_key(file->ino, TREE_LINK, dir->ino, found.cookie);

    edge_lock(branch);
    name_put(&place, name, len, file);
    edge_put(branch, EDGE_NAMES, &key, "", 0);
    file->attr.nlink++;
    file->attr.ctime = now;
    file->attr.data_version++;
    inode_put_attr(file, EDGE_NAMES);
    name_dir_changed(dir, 1, 0, now);
    edge_unlock(branch);
    return 0;
}

int
file_link(struct file *dir, const char *name, size_t name_len,
          struct file *file)
{
    int error;

    if (dir->branch != file->branch) {
        return EXDEV;
    }
    error = name_check(dir, name, name_len);
    if (!error && is_dir(file)) {
        error = EPERM;
    }
    if (!error && is_dot(name, name_len)) {
        error = EEXIST;
    }
    if (!error) {
        error = checkpoint_throttle(dir->branch);
    }
    if (!error) {
        error = edge_begin(dir->branch, EDGE_NAMES_MAX);
    }
    if (!error) {
        error = link_locked(dir, name, name_len, file);
        edge_end(dir->branch);
    }
    return error;
}

/* Removing. */

static int
unlink_locked(struct file *dir, const char *name, size_t len,
              unsigned int flags, struct file **ret_file)
{
    struct branch *branch = dir->branch;
    struct place place = {.dir = dir};
    uint64_t other_dir, other_cookie = 0;
    int64_t now = clock_real_ns();
    struct found found;
    struct file *file;
    int error;

    error = name_find(dir, name, len, &found);
    if (!error) {
        error = inode_get(branch, found.ino, &file);
    }
    if (error) {
        return error == ESTALE ? EIO : error;
    }
    *ret_file = file;
    if (flags & AT_REMOVEDIR) {
        if (!is_dir(file)) {
            return ENOTDIR;
        }
        if (file->attr.size) {
            return ENOTEMPTY;
        }
    } else if (is_dir(file)) {
        return EISDIR;
    }
    place.cookie = found.cookie;
    error = name_find_other(file, &place, &other_dir, &other_cookie);
    if (error) {
        return error;
    }

    edge_lock(branch);
    name_remove(&place);
    name_lose(file, &place, other_dir, other_cookie, now);
    name_dir_changed(dir, -1, is_dir(file) ? -1 : 0, now);
    edge_unlock(branch);
    return 0;
}

int
file_unlink(struct file *dir, const char *name, size_t name_len,
            unsigned int flags)
{
    struct file *file = NULL;
    int error;

    if (flags & ~AT_REMOVEDIR) {
        return EINVAL;
    }
    error = name_check(dir, name, name_len);
    if (!error && is_dot(name, name_len)) {
        error = !(flags & AT_REMOVEDIR) ? EISDIR
                : name_len == 1         ? EINVAL
                                        : ENOTEMPTY;
    }
    if (!error) {
        error = edge_begin(dir->branch, EDGE_NAMES_MAX);
    }
    if (!error) {
        error = unlink_locked(dir, name, name_len, flags, &file);
        edge_end(dir->branch);
    }
    file_unref(file);
    return error;
}

int
file_remove(struct file *file)
{
    char name[FILE_NAME_MAX];
    struct file *dir;
    size_t len;
    int error;

    error = file_name(file, &dir, name, &len);
    if (!error) {
        error = file_unlink(dir, name, len, is_dir(file) ? AT_REMOVEDIR : 0);
        file_unref(dir);
    }
    return error;
}
