/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Content of files: reading.  A record of the content is put together from
 * the pages that the layers have and the value below them; records that are
 * absent are holes, and a record that is shorter than it could be ends with
 * zeros. */

#include "vafs-server/branch/branch-private.h"

#include <stdlib.h>

/* From this size on a read does not go through the cache of records. */
#define DIRECT_READ 32768

static int
get_object(struct store *store, const struct store_id *id, struct object **ret)
{
    int error = store_get_cached(store, id, STORE_DATA, ret);

    if (error == EAGAIN && !file_nowait) {
        error = store_get(store, id, STORE_DATA, ret);
    }
    return error;
}

int
content_read(struct catalogue *cat, const struct tree_content *content,
             void *buf, size_t offset, size_t size)
{
    struct object *object;
    size_t n = 0;
    int error;

    if (offset < content->size) {
        n = MIN(size, content->size - offset);
    }
    memset((uint8_t *) buf + n, 0, size - n);
    if (!n) {
        return 0;
    }
    if (content->inlined) {
        memcpy(buf, content->data + offset, n);
        return 0;
    }
    if (n >= DIRECT_READ && !file_nowait) {
        error =
            store_get_cached(cat->store, &content->id, STORE_DATA, &object);
        if (error == EAGAIN) {
            size_t got;

            error = store_get_range(cat->store, &content->id, STORE_DATA,
                                    offset, buf, n, &got);
            if (!error && got != n) {
                error = EIO;
            }
            return error == ENOENT || error == EBADMSG ? EIO : error;
        }
    } else {
        error = get_object(cat->store, &content->id, &object);
    }
    if (error) {
        return error == ENOENT || error == EBADMSG ? EIO : error;
    }
    if (object->size < offset + n) {
        error = EIO;
    } else {
        memcpy(buf, object->data + offset, n);
    }
    object_unref(object);
    return error;
}

/* A record's value, copied. */
struct source {
    bool found; /* Else ask the tree. */
    bool hole;
    struct edge_value value;
};

static void
source_from_val(struct source *source, const struct val *val)
{
    source->found = true;
    source->hole = val->type == VAL_TOMB;
    if (!source->hole) {
        source->value.size = val->size;
        memcpy(source->value.data, val->data, val->size);
    }
}

/* Copies the pages that the layers have of [offset, offset + size), sets their
 * bits in '*done', and finds what is below them. */
static void
read_layers(struct layer *const *layers, unsigned int n_layers,
            const struct tree_key *key, uint8_t *buf, size_t offset,
            size_t size, uint64_t *done, struct source *source)
{
    source->found = source->hole = false;
    for (unsigned int i = 0; i < n_layers && !source->found; i++) {
        struct val *val = layer_find(layers[i], key);

        if (!val) {
            if (layer_covers(layers[i], key)) {
                source->found = source->hole = true;
            }
            continue;
        }
        if (val->type != VAL_PAGES) {
            source_from_val(source, val);
            continue;
        }
        for (size_t p = offset / PAGE_SIZE__; p * PAGE_SIZE__ < offset + size;
             p++) {
            const struct val_pages *pages = val_pages(val);
            size_t lo = MAX(offset, p * PAGE_SIZE__);
            size_t hi = MIN(offset + size, (p + 1) * PAGE_SIZE__);

            if (pages->present & ~*done & UINT64_C(1) << p) {
                memcpy(buf + (lo - offset),
                       pages->page[p] + (lo - p * PAGE_SIZE__), hi - lo);
                *done |= UINT64_C(1) << p;
            }
        }
        if (val_pages(val)->base) {
            source_from_val(source, val_pages(val)->base);
        }
    }
}

/* Fills what 'done' lacks from 'content' (NULL: a hole). */
static int
read_rest(struct catalogue *cat, const struct tree_content *content,
          uint8_t *buf, size_t offset, size_t size, uint64_t done)
{
    size_t at = offset;

    while (at < offset + size) {
        size_t end = at;
        int error;

        while (end < offset + size && !(done >> (end / PAGE_SIZE__) & 1)) {
            end =
                MIN(offset + size, ROUND_DOWN(end, PAGE_SIZE__) + PAGE_SIZE__);
        }
        if (end > at && content) {
            error =
                content_read(cat, content, buf + (at - offset), at, end - at);
            if (error) {
                return error;
            }
        } else if (end > at) {
            memset(buf + (at - offset), 0, end - at);
        } else {
            end = ROUND_DOWN(at, PAGE_SIZE__) + PAGE_SIZE__;
        }
        at = end;
    }
    return 0;
}

static bool
all_done(size_t offset, size_t size, uint64_t done)
{
    for (size_t p = offset / PAGE_SIZE__; p * PAGE_SIZE__ < offset + size;
         p++) {
        if (!(done >> p & 1)) {
            return false;
        }
    }
    return true;
}

static int
read_below(struct catalogue *cat, const struct tree *base,
           const struct tree_key *key, struct source *source, uint8_t *buf,
           size_t offset, size_t size, uint64_t done, struct store_id *ret_id)
{
    struct tree_content content;
    struct tree_value value;
    int error;

    if (!source->found && (ret_id || !all_done(offset, size, done))) {
        error = tree_get(base, key, &value);
        if (error == ENOENT) {
            source->hole = true;
        } else if (error) {
            return error == EBADMSG ? EIO : error;
        } else {
            if (value.size > sizeof source->value.data) {
                tree_value_release(&value);
                return EIO;
            }
            source->value.size = value.size;
            memcpy(source->value.data, value.data, value.size);
            tree_value_release(&value);
        }
        source->found = true;
    }
    if (source->found && !source->hole) {
        if (tree_content_decode(source->value.data, source->value.size,
                                &content)) {
            return EIO;
        }
        if (ret_id && !content.inlined) {
            *ret_id = content.id;
        }
        return read_rest(cat, &content, buf, offset, size, done);
    }
    return read_rest(cat, NULL, buf, offset, size, done);
}

int
data_read_record(struct file *file, uint64_t index, void *buf, size_t offset,
                 size_t size)
{
    struct branch *branch = file->branch;
    struct tree_key key = tree_key(file->ino, TREE_RECORD, index, 0);
    struct source source;
    struct tree base;
    uint64_t done = 0;

    brlock_read_lock(&branch->lock);
    read_layers(branch->layer, branch->n_layers, &key, buf, offset, size,
                &done, &source);
    base = branch->base;
    brlock_read_unlock(&branch->lock);
    return read_below(branch->cat, &base, &key, &source, buf, offset, size,
                      done, NULL);
}

int
checkpoint_compose(struct branch *branch, struct layer *const *layers,
                   unsigned int n, const struct tree *base,
                   const struct tree_key *key, void *buf,
                   struct store_id *ret_base)
{
    size_t size = (size_t) 1 << branch->cat->record_shift;
    struct source source;
    uint64_t done = 0;

    read_layers(layers, n, key, buf, 0, size, &done, &source);
    return read_below(branch->cat, base, key, &source, buf, 0, size, done,
                      ret_base);
}

int
data_read(struct file *file, void *buf, size_t size, uint64_t offset)
{
    unsigned int shift = file->branch->cat->record_shift;
    uint64_t mask = (UINT64_C(1) << shift) - 1;

    while (size) {
        size_t in = offset & mask;
        size_t n = MIN(size, mask + 1 - in);
        int error = data_read_record(file, offset >> shift, buf, in, n);

        if (error) {
            return error;
        }
        buf = (uint8_t *) buf + n;
        offset += n;
        size -= n;
    }
    return 0;
}

int
data_present(struct file *file, uint64_t index, bool *ret)
{
    struct branch *branch = file->branch;
    struct tree_key key = tree_key(file->ino, TREE_RECORD, index, 0);
    struct tree_value value;
    struct tree base;
    bool found = false;
    int error;

    brlock_read_lock(&branch->lock);
    base = branch->base;
    for (unsigned int i = 0; i < branch->n_layers && !found; i++) {
        struct val *val = layer_find(branch->layer[i], &key);

        if (val || layer_covers(branch->layer[i], &key)) {
            *ret = val && val->type != VAL_TOMB;
            found = true;
        }
    }
    brlock_read_unlock(&branch->lock);
    if (found) {
        return 0;
    }
    error = tree_get(&base, &key, &value);
    if (!error) {
        tree_value_release(&value);
    }
    if (!error || error == ENOENT) {
        *ret = !error;
        return 0;
    }
    return error == EBADMSG ? EIO : error;
}

/* Sets the access time if relatime wants it; never waits for anybody. */
static void
touch(struct file *file)
{
    struct branch *branch = file->branch;
    int64_t now = clock_real_ns();
    bool due;

    brlock_read_lock(&branch->lock);
    due = attr_atime_due(&file->attr, now);
    brlock_read_unlock(&branch->lock);
    if (!due || branch->cat->options.read_only ||
        __atomic_load_n(&branch->dirty, __ATOMIC_RELAXED) >
            branch->cat->budget / 2 ||
        pthread_mutex_trylock(&branch->mutex)) {
        return;
    }
    if (!arena_prepare(&branch->layer[0]->arena,
                       EDGE_PUT_MAX(TREE_ATTR_MAX))) {
        struct tree_key key = tree_key(file->ino, TREE_ATTR, 0, 0);
        uint8_t data[TREE_ATTR_MAX];

        edge_lock(branch);
        file->attr.atime = now;
        edge_put_quiet(branch, &key, data,
                       tree_attr_encode(&file->attr, data));
        if (layer_bytes(branch->layer[0]) > branch->cat->budget / 8) {
            /* So many that they are worth a version. */
            branch->layer[0]->dirty = true;
        }
        edge_unlock(branch);
    }
    edge_end(branch);
}

static int
lock_shared(struct file *file)
{
    if (file_nowait) {
        return pthread_rwlock_tryrdlock(&file->data_lock) ? EAGAIN : 0;
    }
    pthread_rwlock_rdlock(&file->data_lock);
    return 0;
}

int
file_read(struct file *file, void *buf, size_t size, uint64_t offset,
          size_t *ret_n)
{
    int error;

    if (file->type != S_IFREG) {
        return file->type == S_IFDIR ? EISDIR : EINVAL;
    }
    error = lock_shared(file);
    if (error) {
        return error;
    }
    if (offset >= file->attr.size) {
        size = 0;
    } else {
        size = MIN(size, file->attr.size - offset);
    }
    error = data_read(file, buf, size, offset);
    pthread_rwlock_unlock(&file->data_lock);
    if (!error) {
        *ret_n = size;
        if (size) {
            touch(file);
        }
    }
    return error;
}

int
file_readlink(struct file *file, char *buf, size_t size, size_t *ret_len)
{
    int error;

    if (file->type != S_IFLNK) {
        return EINVAL;
    }
    size = MIN(size, file->attr.size);
    error = data_read(file, buf, size, 0);
    if (!error) {
        *ret_len = size;
    }
    return error;
}

/* Finds the first record at or after 'index' that is there (or, if 'hole',
 * that is not). */
static int
find_record(struct file *file, uint64_t index, bool hole, uint64_t *ret)
{
    struct tree_key lo = tree_key(file->ino, TREE_RECORD, index, 0);
    struct tree_key hi = tree_key(file->ino, TREE_RECORD + 1, 0, 0);
    struct edge_scan *scan = edge_scan_new(file->branch, &lo, &hi);
    uint64_t next = index;
    int error;

    if (!scan) {
        return ENOMEM;
    }
    do {
        error = edge_scan_next(scan);
        for (unsigned int i = 0; i < scan->n && !error; i++) {
            uint64_t at = scan->item[i].key.mid;

            if (!hole) {
                *ret = at;
                free(scan);
                return 0;
            }
            if (at != next) {
                *ret = next;
                free(scan);
                return 0;
            }
            next = at + 1;
        }
    } while (!error && scan->n);
    free(scan);
    if (!error && hole) {
        *ret = next;
        return 0;
    }
    return error ? error : ENXIO;
}

int
file_seek(struct file *file, uint64_t offset, bool hole, uint64_t *ret_offset)
{
    unsigned int shift = file->branch->cat->record_shift;
    uint64_t index, at;
    int error;

    if (file->type != S_IFREG) {
        return EINVAL;
    }
    error = lock_shared(file);
    if (error) {
        return error;
    }
    if (offset >= file->attr.size) {
        error = ENXIO;
    } else {
        error = find_record(file, offset >> shift, hole, &index);
    }
    if (!error) {
        at = MAX(offset, index << shift);
        if (hole) {
            at = MIN(at, file->attr.size);
        }
        *ret_offset = at;
    }
    pthread_rwlock_unlock(&file->data_lock);
    return error;
}
