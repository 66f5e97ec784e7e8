/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Keys of a branch: reading through the stack of layers and the tree below,
 * and changing the active layer.  See branch-private.h. */

#include "vafs-server/branch/branch-private.h"

#include <stdlib.h>

__thread bool file_nowait;

unsigned int
brlock_slot__(void)
{
    static unsigned int next;
    static __thread unsigned int mine;

    if (!mine) {
        mine = 1 + __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
    }
    return mine % BRLOCK_SLOTS;
}

void
file_set_nowait(bool nowait)
{
    file_nowait = tree_nowait = nowait;
}

/* What the layers say: 0 and a value, ENOENT absent, EAGAIN nothing. */
static int
layers_get(const struct branch *branch, const struct tree_key *key,
           struct edge_value *ret)
{
    for (unsigned int i = 0; i < branch->n_layers; i++) {
        struct val *val = layer_find(branch->layer[i], key);

        if (val && val->type == VAL_VALUE) {
            ret->size = val->size;
            memcpy(ret->data, val->data, val->size);
            return 0;
        }
        if (val || layer_covers(branch->layer[i], key)) {
            return ENOENT;
        }
    }
    return EAGAIN;
}

int
edge_get(struct branch *branch, const struct tree_key *key,
         struct edge_value *ret)
{
    struct tree_value value;
    struct tree base;
    int error;

    brlock_read_lock(&branch->lock);
    error = layers_get(branch, key, ret);
    base = branch->base;
    brlock_read_unlock(&branch->lock);
    if (error != EAGAIN) {
        return error;
    }

    error = tree_get(&base, key, &value);
    if (!error) {
        if (value.size > sizeof ret->data) {
            error = EBADMSG;
        } else {
            ret->size = value.size;
            memcpy(ret->data, value.data, value.size);
        }
        tree_value_release(&value);
    }
    return error == EBADMSG ? EIO : error;
}

/* Scanning. */

struct edge_scan *
edge_scan_new(struct branch *branch, const struct tree_key *lo,
              const struct tree_key *hi)
{
    struct edge_scan *scan = malloc(sizeof *scan);

    if (scan) {
        scan->branch = branch;
        edge_scan_restart(scan, lo, hi);
    }
    return scan;
}

void
edge_scan_restart(struct edge_scan *scan, const struct tree_key *lo,
                  const struct tree_key *hi)
{
    scan->next = *lo;
    scan->hi = *hi;
    scan->end = false;
    scan->n = 0;
}

/* A batch of the tree's items: keys in order with their values. */
struct base_batch {
    unsigned int n, i;
    struct tree_key hi; /* The batch is complete up to here. */
    size_t used;
    struct edge_item item[EDGE_BATCH];
    uint8_t bytes[EDGE_BATCH * 512 + TREE_VALUE_MAX];
};

static int
read_base(const struct edge_scan *scan, const struct tree *base,
          struct base_batch *batch)
{
    struct tree_cursor cursor;
    int error;

    batch->n = batch->i = 0;
    batch->used = 0;
    batch->hi = scan->hi;
    tree_cursor_init(&cursor, base);
    error = tree_cursor_seek(&cursor, &scan->next);
    while (!error && tree_cursor_valid(&cursor) &&
           tree_key_less(&cursor.key, &scan->hi)) {
        struct edge_item *item = &batch->item[batch->n];

        if (batch->n == EDGE_BATCH ||
            batch->used + cursor.size > sizeof batch->bytes) {
            batch->hi = cursor.key;
            break;
        }
        if (cursor.size > TREE_VALUE_MAX) {
            error = EBADMSG;
            break;
        }
        item->key = cursor.key;
        item->offset = batch->used;
        item->size = cursor.size;
        memcpy(batch->bytes + batch->used, cursor.data, cursor.size);
        batch->used += cursor.size;
        batch->n++;
        error = tree_cursor_next(&cursor);
    }
    tree_cursor_destroy(&cursor);
    return error == EBADMSG ? EIO : error;
}

static bool
scan_emit(struct edge_scan *scan, size_t *used, const struct tree_key *key,
          const uint8_t *data, size_t size, bool pages)
{
    struct edge_item *item = &scan->item[scan->n];

    if (*used + size > sizeof scan->bytes) {
        return false;
    }
    item->key = *key;
    item->offset = *used;
    item->size = size;
    item->pages = pages;
    memcpy(scan->bytes + *used, data, size);
    *used += size;
    scan->n++;
    return true;
}

/* Merges the layers with 'batch' into 'scan'; branch locked for reading. */
static void
merge_layers(struct edge_scan *scan, struct base_batch *batch)
{
    struct branch *branch = scan->branch;
    struct kmap_iter iter[LAYERS_MAX];
    size_t used = 0;

    for (unsigned int i = 0; i < branch->n_layers; i++) {
        kmap_seek(&branch->layer[i]->points, &scan->next, &iter[i]);
    }
    /* The limit bounds the time that writers are kept waiting. */
    for (unsigned int examined = 0; examined < 1024; examined++) {
        const struct tree_key *least = NULL;
        struct edge_item *base;
        struct tree_key key;
        struct val *val = NULL;
        bool covered = false;

        for (unsigned int i = 0; i < branch->n_layers; i++) {
            if (iter[i].leaf &&
                (!least || tree_key_less(kmap_key(&iter[i]), least))) {
                least = kmap_key(&iter[i]);
            }
        }
        base = batch->i < batch->n ? &batch->item[batch->i] : NULL;
        if (base && (!least || tree_key_less(&base->key, least))) {
            least = &base->key;
        }
        if (!least || !tree_key_less(least, &batch->hi)) {
            scan->next = batch->hi;
            scan->end = !tree_key_less(&scan->next, &scan->hi);
            return;
        }
        key = *least;

        for (unsigned int i = 0; i < branch->n_layers; i++) {
            struct val *v = NULL;

            if (iter[i].leaf && tree_key_equal(kmap_key(&iter[i]), &key)) {
                v = kmap_value(&iter[i]);
            }
            if (!val && !covered) {
                val = v;
                covered = !v && layer_covers(branch->layer[i], &key);
            }
        }
        if (val && val->type != VAL_TOMB) {
            bool pages = val->type == VAL_PAGES;

            if (scan->n == EDGE_BATCH ||
                !scan_emit(scan, &used, &key, val->data, pages ? 0 : val->size,
                           pages)) {
                scan->next = key;
                return;
            }
        } else if (!val && !covered && base &&
                   tree_key_equal(&base->key, &key)) {
            if (scan->n == EDGE_BATCH ||
                !scan_emit(scan, &used, &key, batch->bytes + base->offset,
                           base->size, false)) {
                scan->next = key;
                return;
            }
        }

        for (unsigned int i = 0; i < branch->n_layers; i++) {
            if (iter[i].leaf && tree_key_equal(kmap_key(&iter[i]), &key)) {
                kmap_next(&iter[i]);
            }
        }
        if (base && tree_key_equal(&base->key, &key)) {
            batch->i++;
        }
        scan->next = tree_key_next(key);
    }
}

int
edge_scan_next(struct edge_scan *scan)
{
    struct branch *branch = scan->branch;
    struct base_batch batch;

    scan->n = 0;
    while (!scan->n && !scan->end) {
        uint64_t generation;
        struct tree base;
        int error;

        if (!tree_key_less(&scan->next, &scan->hi)) {
            scan->end = true;
            return 0;
        }
        brlock_read_lock(&branch->lock);
        base = branch->base;
        generation = branch->stack_generation;
        brlock_read_unlock(&branch->lock);

        error = read_base(scan, &base, &batch);
        if (error) {
            return error;
        }

        brlock_read_lock(&branch->lock);
        if (generation == branch->stack_generation) {
            merge_layers(scan, &batch);
        }
        brlock_read_unlock(&branch->lock);
    }
    return 0;
}

/* Changing. */

int
edge_begin(struct branch *branch, size_t bytes)
{
    int error;

    if (branch->cat->options.read_only) {
        return EROFS;
    }
    if (file_nowait) {
        if (pthread_mutex_trylock(&branch->mutex)) {
            return EAGAIN;
        }
    } else {
        pthread_mutex_lock(&branch->mutex);
    }
    error = store_broken(branch->cat->store) ? EIO : 0;
    if (!error) {
        error = arena_prepare(&branch->layer[0]->arena, bytes);
    }
    if (error) {
        pthread_mutex_unlock(&branch->mutex);
    }
    return error;
}

void
edge_end(struct branch *branch)
{
    checkpoint_update_dirty(branch);
    pthread_mutex_unlock(&branch->mutex);
}

void
edge_lock(struct branch *branch)
{
    brlock_write_lock(&branch->lock);
}

void
edge_unlock(struct branch *branch)
{
    brlock_write_unlock(&branch->lock);
}

/* The unlogged changes of 'file' in the active layer. */
static struct unlogged *
own_list(struct branch *branch, struct file *file)
{
    struct layer *layer = branch->layer[0];
    struct unlogged *u;

    if (!list_is_empty(&file->unlogged)) {
        u = CONTAINER_OF(list_back(&file->unlogged), struct unlogged, in_file);
        if (u->layer == layer) {
            return u;
        }
    }
    u = arena_alloc(&layer->arena, sizeof *u);
    u->file = file;
    u->layer = layer;
    list_init(&u->vals);
    list_init(&u->ranges);
    list_push_back(&file->unlogged, &u->in_file);
    list_push_back(&layer->unlogged, &u->in_layer);
    inode_pin(file);
    return u;
}

void
edge_list(struct branch *branch, struct file *owner, struct val *val)
{
    struct layer *layer = branch->layer[0];

    layer->dirty = true;
    if (owner == EDGE_NAMES) {
        list_remove(&val->unlogged);
        list_push_back(&layer->ns_vals, &val->unlogged);
        layer->n_ns++;
    } else if (list_is_empty(&val->unlogged)) {
        /* What is on the list of names already stays there: an entry must
         * never be logged without its inode. */
        list_push_back(&own_list(branch, owner)->vals, &val->unlogged);
    }
}

void
edge_put(struct branch *branch, struct file *owner, const struct tree_key *key,
         const void *data, size_t size)
{
    edge_list(branch, owner, layer_put(branch->layer[0], key, data, size));
}

void
edge_remove(struct branch *branch, struct file *owner,
            const struct tree_key *key)
{
    edge_list(branch, owner, layer_remove(branch->layer[0], key));
}

void
edge_put_quiet(struct branch *branch, const struct tree_key *key,
               const void *data, size_t size)
{
    layer_put(branch->layer[0], key, data, size);
}

void
edge_remove_range(struct branch *branch, struct file *owner,
                  const struct tree_key *lo, const struct tree_key *hi)
{
    struct layer *layer = branch->layer[0];
    struct range *range, *last = NULL;
    struct list *list;

    layer_remove_range(layer, lo, hi);
    layer->dirty = true;
    list = owner == EDGE_NAMES ? &layer->ns_ranges
                               : &own_list(branch, owner)->ranges;
    /* Files made one after the other are often removed so. */
    if (!list_is_empty(list)) {
        last = CONTAINER_OF(list_back(list), struct range, node);
        if (tree_key_equal(&last->hi, lo)) {
            last->hi = *hi;
            return;
        }
    }
    range = arena_alloc(&layer->arena, sizeof *range);
    range->lo = *lo;
    range->hi = *hi;
    list_push_back(list, &range->node);
    if (owner == EDGE_NAMES) {
        layer->n_ns++;
    }
}
