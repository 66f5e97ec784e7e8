/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See layer.h. */

#include "vafs-server/branch/layer.h"

#include <errno.h>
#include <stdlib.h>

uint8_t page_zero[PAGE_SIZE__];

int
layer_create(uint64_t number, unsigned int n_pages, struct page_pool *pool,
             struct layer **ret)
{
    struct layer *layer = calloc(1, sizeof *layer);

    if (!layer) {
        return ENOMEM;
    }
    layer->number = number;
    layer->n_pages = n_pages;
    layer->pool = pool;
    arena_init(&layer->arena);
    kmap_init(&layer->points, &layer->arena);
    kmap_init(&layer->ranges, &layer->arena);
    list_init(&layer->pages);
    list_init(&layer->ns_vals);
    list_init(&layer->ns_ranges);
    list_init(&layer->unlogged);
    layer->first_lsn = UINT64_MAX;
    *ret = layer;
    return 0;
}

static void
drop_pages(struct layer *layer, struct val_pages *pages)
{
    for (unsigned int i = 0; i < layer->n_pages; i++) {
        if (pages->present >> i & 1 && pages->page[i] != page_zero) {
            page_free(layer->pool, pages->page[i]);
            layer->page_bytes -= PAGE_SIZE__;
        }
    }
    list_remove(&pages->in_layer);
}

void
layer_destroy(struct layer *layer)
{
    struct val_pages *pages, *next;

    if (!layer) {
        return;
    }
    LIST_FOR_EACH_SAFE (pages, next, in_layer, &layer->pages) {
        drop_pages(layer, pages);
    }
    arena_destroy(&layer->arena);
    free(layer);
}

bool
layer_covers(const struct layer *layer, const struct tree_key *key)
{
    struct kmap_iter iter;
    struct range *range;

    if (!layer->ranges.n) {
        return false;
    }
    kmap_seek_last(&layer->ranges, key, &iter);
    if (!iter.leaf) {
        return false;
    }
    range = kmap_value(&iter);
    return tree_key_less(key, &range->hi);
}

static struct val *
new_val(struct layer *layer, const struct tree_key *key, enum val_type type,
        size_t cap)
{
    struct val *val;

    cap = ROUND_UP(sizeof *val + cap, 16) - sizeof *val;
    val = arena_alloc(&layer->arena, sizeof *val + cap);
    list_init(&val->unlogged);
    val->key = *key;
    val->type = type;
    val->keep_size = false;
    val->size = 0;
    val->cap = cap;
    return val;
}

/* 'new' takes the place of 'old' on its list. */
static void
take_place(struct val *old, struct val *new)
{
    if (!list_is_empty(&old->unlogged)) {
        list_insert(&old->unlogged, &new->unlogged);
        list_remove(&old->unlogged);
    }
}

static void
free_val(struct layer *layer, struct val *val)
{
    if (val->type == VAL_PAGES) {
        struct val_pages *pages = val_pages(val);

        drop_pages(layer, pages);
        if (pages->base) {
            free_val(layer, pages->base);
        }
    }
    list_remove(&val->unlogged);
    arena_free(&layer->arena, val, sizeof *val + val->cap);
}

struct val *
layer_put(struct layer *layer, const struct tree_key *key, const void *data,
          size_t size)
{
    void **place = kmap_insert(&layer->points, key);
    struct val *val = *place;

    if (!val || val->type == VAL_PAGES || val->cap < size) {
        struct val *new = new_val(layer, key, VAL_VALUE, size);

        if (val) {
            take_place(val, new);
            free_val(layer, val);
        }
        *place = val = new;
    }
    val->type = VAL_VALUE;
    val->keep_size = false;
    val->size = size;
    memcpy(val->data, data, size);
    return val;
}

struct val *
layer_remove(struct layer *layer, const struct tree_key *key)
{
    void **place = kmap_insert(&layer->points, key);
    struct val *val = *place;

    if (!val || val->type == VAL_PAGES) {
        struct val *new = new_val(layer, key, VAL_TOMB, 0);

        if (val) {
            take_place(val, new);
            free_val(layer, val);
        }
        *place = val = new;
    }
    val->type = VAL_TOMB;
    val->size = 0;
    return val;
}

void
layer_remove_range(struct layer *layer, const struct tree_key *lo_,
                   const struct tree_key *hi_)
{
    struct tree_key lo = *lo_, hi = *hi_;
    struct kmap_iter iter;
    struct range *range;
    void **place;

    for (;;) {
        struct tree_key key;

        kmap_seek(&layer->points, &lo, &iter);
        if (!iter.leaf || !tree_key_less(kmap_key(&iter), &hi)) {
            break;
        }
        key = *kmap_key(&iter);
        free_val(layer, kmap_remove(&layer->points, &key));
    }

    /* Unite with ranges that overlap or touch. */
    kmap_seek_last(&layer->ranges, &lo, &iter);
    if (iter.leaf) {
        range = kmap_value(&iter);
        if (tree_key_cmp(&range->hi, &hi) >= 0) {
            return;
        }
        if (tree_key_cmp(&range->hi, &lo) >= 0) {
            lo = range->lo;
        }
    }
    for (;;) {
        struct tree_key key;

        kmap_seek(&layer->ranges, &lo, &iter);
        if (!iter.leaf || tree_key_less(&hi, kmap_key(&iter))) {
            break;
        }
        key = *kmap_key(&iter);
        range = kmap_remove(&layer->ranges, &key);
        if (tree_key_less(&hi, &range->hi)) {
            hi = range->hi;
        }
        arena_free(&layer->arena, range, sizeof *range);
    }
    range = arena_alloc(&layer->arena, sizeof *range);
    list_init(&range->node);
    range->lo = lo;
    range->hi = hi;
    place = kmap_insert(&layer->ranges, &lo);
    *place = range;
}

struct val *
layer_pages(struct layer *layer, const struct tree_key *key)
{
    void **place = kmap_insert(&layer->points, key);
    struct val *val = *place, *base = NULL;
    struct val_pages *pages;

    if (val && val->type == VAL_PAGES) {
        return val;
    }
    if (val) {
        base = val;
    } else if (layer_covers(layer, key)) {
        base = new_val(layer, key, VAL_TOMB, 0);
    }
    val = new_val(layer, key, VAL_PAGES,
                  sizeof *pages + layer->n_pages * sizeof pages->page[0]);
    pages = val_pages(val);
    pages->present = pages->unlogged = 0;
    pages->base = base;
    /* A range that makes a tombstone of the base is on a list itself. */
    pages->base_unlogged = base && !list_is_empty(&base->unlogged);
    list_push_back(&layer->pages, &pages->in_layer);
    if (base) {
        take_place(base, val);
    }
    *place = val;
    return val;
}

void
layer_set_page(struct layer *layer, struct val *val, unsigned int i,
               uint8_t *page)
{
    struct val_pages *pages = val_pages(val);

    if (pages->present >> i & 1) {
        if (pages->page[i] != page_zero) {
            page_free(layer->pool, pages->page[i]);
            layer->page_bytes -= PAGE_SIZE__;
        }
    }
    pages->present |= UINT64_C(1) << i;
    pages->unlogged |= UINT64_C(1) << i;
    pages->page[i] = page;
    if (page != page_zero) {
        layer->page_bytes += PAGE_SIZE__;
    }
}
