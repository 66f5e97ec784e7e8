/* SPDX-License-Identifier: GPL-2.0-or-later */
/* file_readdir(). */

#include "vafs-server/branch/name.h"

#include <dirent.h>
#include <stdlib.h>

/* "." and "..". */
static bool
emit_dots(struct file *dir, uint64_t cookie,
          bool (*emit)(const struct file_dirent *, void *aux), void *aux)
{
    struct file_dirent d = {.type = DT_DIR, .name = ".."};

    if (cookie < 1) {
        d.ino = dir->ino;
        d.cookie = 1;
        d.name_len = 1;
        if (!emit(&d, aux)) {
            return false;
        }
    }
    if (cookie < 2) {
        brlock_read_lock(&dir->branch->lock);
        d.ino = dir->attr.parent ? dir->attr.parent : dir->ino;
        brlock_read_unlock(&dir->branch->lock);
        d.cookie = 2;
        d.name_len = 2;
        return emit(&d, aux);
    }
    return true;
}

static int
emit_entries(struct edge_scan *scan,
             bool (*emit)(const struct file_dirent *, void *aux), void *aux)
{
    do {
        int error = edge_scan_next(scan);

        if (error) {
            return error;
        }
        for (unsigned int i = 0; i < scan->n; i++) {
            struct edge_item *item = &scan->item[i];
            struct file_dirent d;
            struct tree_entry entry;

            if (tree_entry_decode(scan->bytes + item->offset, item->size,
                                  &entry)) {
                return EIO;
            }
            d.ino = entry.ino;
            d.cookie = item->key.mid;
            d.type = entry.type;
            d.name = entry.name;
            d.name_len = entry.name_len;
            if (!emit(&d, aux)) {
                return 0;
            }
        }
    } while (scan->n);
    return 0;
}

int
file_readdir(struct file *dir, uint64_t cookie,
             bool (*emit)(const struct file_dirent *, void *aux), void *aux)
{
    struct tree_key lo = tree_key(dir->ino, TREE_ENTRY, cookie + 1, 0);
    struct tree_key hi = tree_key(dir->ino, TREE_ENTRY + 1, 0, 0);
    struct edge_scan *scan;
    int error;

    if (!is_dir(dir)) {
        return ENOTDIR;
    }
    if (cookie >= UINT64_C(1) << 63) {
        return EINVAL;
    }
    if (!emit_dots(dir, cookie, emit, aux)) {
        return 0;
    }
    scan = edge_scan_new(dir->branch, &lo, &hi);
    if (!scan) {
        return ENOMEM;
    }
    error = emit_entries(scan, emit, aux);
    free(scan);
    return error;
}
