/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A layer: an ordered set of changes to a tree, in memory.
 *
 * A branch's edge is a stack of layers over its newest version: one *active*,
 * which takes the changes, and *frozen* ones, which a checkpoint merges into
 * new versions.  A layer's number is the sequence of the version that it will
 * become.
 *
 * A layer says about a key one of
 *
 *   nothing      ask the layer below
 *   a value      the key has it
 *   a tombstone  the key is absent; either its own, or that of a range
 *   pages        (only keys of kind RECORD) some 4 KiB pages of the record are
 *                these; the rest comes from 'base' if that is set, else from
 *                below
 *
 * A range tombstone counts less than what the same layer says about a single
 * key, because removing a range also forgets the layer's single keys in it.
 *
 * Every change is on a list of what the journal does not have yet (log.c).
 * Not thread-safe: the branch's locks protect the active layer, a frozen one
 * does not change but for these lists. */

#ifndef VAFS_BRANCH_LAYER_H
#define VAFS_BRANCH_LAYER_H 1

#include "lib/list.h"
#include "vafs-server/branch/arena.h"
#include "vafs-server/branch/kmap.h"

enum val_type {
    VAL_VALUE,
    VAL_TOMB,
    VAL_PAGES,
};

struct val {
    struct list unlogged; /* Empty if the journal has it. */
    struct tree_key key;
    uint32_t size; /* VAL_VALUE: of 'data'. */
    uint32_t cap;  /* Bytes allocated for 'data'. */
    uint8_t type;
    bool keep_size; /* Attributes whose size is the one below (replay). */
    uint8_t data[] __attribute__((aligned(8))); /* Also val_pages. */
};

/* Stands for a page of zeros that takes no memory. */
extern uint8_t page_zero[];

struct val_pages {
    struct list in_layer;
    struct val *base; /* VAL_VALUE or VAL_TOMB of this layer, or NULL. */
    uint64_t present; /* Bit for each page. */
    uint64_t unlogged;
    bool base_unlogged;
    uint8_t *page[]; /* Of the pool, or page_zero. */
};

#define PAGES_MAX 64

static inline struct val_pages *
val_pages(const struct val *val)
{
    return (struct val_pages *) (void *) val->data;
}

/* A removed range on a list of unlogged changes. */
struct range {
    struct list node;
    struct tree_key lo, hi;
};

struct layer {
    uint64_t number;
    struct arena arena;
    struct kmap points;   /* To struct val. */
    struct kmap ranges;   /* lo -> struct range, disjoint. */
    struct list pages;    /* Of struct val_pages. */
    unsigned int n_pages; /* Pages in a record. */
    struct page_pool *pool;
    uint64_t page_bytes; /* In real pages. */

    bool dirty; /* Holds more than access times. */

    /* Changes of names and what goes with them that are not logged. */
    struct list ns_vals;   /* Of struct val. */
    struct list ns_ranges; /* Of struct range. */
    size_t n_ns;

    /* Inodes with unlogged changes of their own: struct unlogged. */
    struct list unlogged;

    /* Where the journal's first record about this layer begins. */
    uint64_t first_lsn;

    /* Counters when it was frozen. */
    uint64_t n_inodes, stored, max_ino;
    uint64_t time;
    unsigned int cause;
};

/* Makes an empty layer for records of 'n_pages' pages. */
int layer_create(uint64_t number, unsigned int n_pages, struct page_pool *,
                 struct layer **ret) NODISCARD;
void layer_destroy(struct layer *); /* Accepts NULL. */

/* Arena bytes that putting a value of 'size' may take. */
#define LAYER_PUT_MAX(SIZE) \
    (sizeof(struct val) + (SIZE) + 64 + KMAP_INSERT_MAX)
#define LAYER_RANGE_MAX (2 * sizeof(struct range) + 64 + KMAP_INSERT_MAX)
#define LAYER_PAGES_MAX(N_PAGES)                                              \
    (2 * sizeof(struct val) + sizeof(struct val_pages) + 8 * (N_PAGES) + 64 + \
     KMAP_INSERT_MAX)

/* What the layer says about 'key' alone, or NULL. */
static inline struct val *
layer_find(const struct layer *layer, const struct tree_key *key)
{
    return kmap_find(&layer->points, key);
}

/* Whether a removed range covers 'key'. */
bool layer_covers(const struct layer *, const struct tree_key *);

/* Changes.  The arena has been prepared. */
struct val *layer_put(struct layer *, const struct tree_key *,
                      const void *data, size_t size);
struct val *layer_remove(struct layer *, const struct tree_key *);
void layer_remove_range(struct layer *, const struct tree_key *lo,
                        const struct tree_key *hi);
/* The pages of 'key', which the layer may have had or not. */
struct val *layer_pages(struct layer *, const struct tree_key *);
/* Sets page 'i'; takes over 'page'. */
void
layer_set_page(struct layer *, struct val *, unsigned int i, uint8_t *page);

/* Bytes that the layer holds. */
static inline uint64_t
layer_bytes(const struct layer *layer)
{
    return layer->arena.size + layer->page_bytes;
}

#endif /* vafs-server/branch/layer.h */
