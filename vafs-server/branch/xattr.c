/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Extended attributes: keys (inode, XATTR, hash of the name); names with equal
 * hash get the next free number, as entries of directories do.  Values over
 * TREE_XATTR_INLINE_MAX are objects of their own. */

#include "vafs-server/branch/branch-private.h"

#include <stdlib.h>

static struct tree_key
xattr_key(struct file *file, uint64_t cookie)
{
    return tree_key(file->ino, TREE_XATTR, cookie, 0);
}

/* Finds the attribute: 0 with its key and value, or ENODATA with the key for a
 * new one. */
static int
xattr_find(struct file *file, const char *name, size_t len,
           struct tree_key *key, struct edge_value *value,
           struct tree_content *content)
{
    uint64_t hash = name_hash(file->branch, name, len);
    uint64_t unused = UINT64_MAX;

    if (!len) {
        return ERANGE;
    }
    if (len > FILE_XATTR_NAME_MAX) {
        return ERANGE;
    }
    if (memchr(name, '\0', len)) {
        return EINVAL;
    }
    /* Removal may leave gaps, so a few places beyond a gap are looked at:
     * equal hashes of 55 bits do not happen by themselves. */
    for (uint64_t cookie = hash; cookie < hash + 4; cookie++) {
        const char *n;
        size_t n_len;
        int error;

        *key = xattr_key(file, cookie);
        error = edge_get(file->branch, key, value);
        if (error == ENOENT) {
            unused = MIN(unused, cookie);
            continue;
        }
        if (!error &&
            tree_xattr_decode(value->data, value->size, &n, &n_len, content)) {
            error = EIO;
        }
        if (error) {
            return error;
        }
        if (n_len == len && !memcmp(n, name, len)) {
            return 0;
        }
    }
    if (unused == UINT64_MAX) {
        return ENOSPC;
    }
    *key = xattr_key(file, unused);
    return ENODATA;
}

int
file_getxattr(struct file *file, const char *name, size_t name_len, void *buf,
              size_t size, size_t *ret_size)
{
    struct tree_content content;
    struct edge_value value;
    struct tree_key key;
    int error;

    error = xattr_find(file, name, name_len, &key, &value, &content);
    if (error) {
        return error;
    }
    if (size) {
        if (size < content.size) {
            return ERANGE;
        }
        error =
            content_read(file->branch->cat, &content, buf, 0, content.size);
    }
    if (!error) {
        *ret_size = content.size;
    }
    return error;
}

/* Puts or (value NULL) removes; 'content' is what to put. */
static int
change(struct file *file, const char *name, size_t name_len,
       const struct tree_content *content, unsigned int flags)
{
    struct branch *branch = file->branch;
    uint8_t data[TREE_XATTR_MAX];
    struct tree_content old;
    struct edge_value value;
    struct tree_key key;
    int error;

    error = edge_begin(branch, EDGE_PUT_MAX(sizeof data) +
                                   EDGE_PUT_MAX(TREE_ATTR_MAX));
    if (error) {
        return error;
    }
    error = xattr_find(file, name, name_len, &key, &value, &old);
    if (content) {
        if (!error && flags & 1) {
            error = EEXIST;
        } else if (error == ENODATA && !(flags & 2)) {
            error = 0;
        }
    }
    if (!error) {
        edge_lock(branch);
        if (content) {
            edge_put(branch, file, &key, data,
                     tree_xattr_encode(name, name_len, content, data));
        } else {
            edge_remove(branch, file, &key);
        }
        file->attr.ctime = clock_real_ns();
        file->attr.data_version++;
        inode_put_attr(file, file);
        edge_unlock(branch);
    }
    edge_end(branch);
    return error;
}

int
file_setxattr(struct file *file, const char *name, size_t name_len,
              const void *value, size_t size, unsigned int flags)
{
    struct catalogue *cat = file->branch->cat;
    struct tree_content content = {
        .inlined = true, .data = value, .size = size};
    int error;

    if (flags & ~3u || flags == 3) {
        return EINVAL;
    }
    if (size > FILE_XATTR_SIZE_MAX) {
        return E2BIG;
    }
    error = checkpoint_throttle(file->branch);
    if (!error && size > TREE_XATTR_INLINE_MAX) {
        struct store_needs needs = {0};
        struct store_put put = {
            .data = value, .size = size, .kind = STORE_DATA};

        if (cat->options.read_only) {
            return EROFS;
        }
        if (file_nowait) {
            return EAGAIN;
        }
        error = store_put(cat->store, &put, &needs);
        if (!error) {
            error = store_sync_needs(cat->store, &needs);
        }
        store_needs_clear(&needs);
        content.inlined = false;
        content.id = put.id;
    }
    return error ? error : change(file, name, name_len, &content, flags);
}

int
file_removexattr(struct file *file, const char *name, size_t name_len)
{
    return change(file, name, name_len, NULL, 0);
}

int
file_listxattr(struct file *file, char *buf, size_t size, size_t *ret_size)
{
    struct tree_key lo = tree_key(file->ino, TREE_XATTR, 0, 0);
    struct tree_key hi = tree_key(file->ino, TREE_XATTR + 1, 0, 0);
    struct edge_scan *scan = edge_scan_new(file->branch, &lo, &hi);
    size_t used = 0;
    int error;

    if (!scan) {
        return ENOMEM;
    }
    do {
        error = edge_scan_next(scan);
        for (unsigned int i = 0; i < scan->n && !error; i++) {
            struct edge_item *item = &scan->item[i];
            struct tree_content content;
            const char *name;
            size_t len;

            if (tree_xattr_decode(scan->bytes + item->offset, item->size,
                                  &name, &len, &content)) {
                error = EIO;
            } else if (size && used + len + 1 > size) {
                error = ERANGE;
            } else {
                if (size) {
                    memcpy(buf + used, name, len);
                    buf[used + len] = '\0';
                }
                used += len + 1;
            }
        }
    } while (!error && scan->n);
    free(scan);
    if (!error) {
        *ret_size = used;
    }
    return error;
}
