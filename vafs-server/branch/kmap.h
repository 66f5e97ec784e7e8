/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An ordered map in memory from tree keys to pointers: a B+tree whose nodes
 * come from an arena (about 40 bytes for a key).  Not thread-safe; many may
 * read while nobody writes. */

#ifndef VAFS_BRANCH_KMAP_H
#define VAFS_BRANCH_KMAP_H 1

#include "vafs-server/branch/arena.h"
#include "vafs-server/tree/key.h"

#define KMAP_FANOUT 32
#define KMAP_LEVELS 12

struct kmap_leaf {
    unsigned int n;
    struct kmap_leaf *prev, *next;
    struct tree_key key[KMAP_FANOUT];
    void *value[KMAP_FANOUT];
};

struct kmap_inner {
    unsigned int n;
    struct tree_key key[KMAP_FANOUT]; /* Least key of each child; [0] unused */
    void *child[KMAP_FANOUT];
};

struct kmap {
    struct arena *arena;
    void *root;
    unsigned int height; /* 0: empty, 1: the root is a leaf. */
    size_t n;
};

/* Arena bytes that one insertion may need. */
#define KMAP_INSERT_MAX \
    (2 * (sizeof(struct kmap_leaf) + 3 * sizeof(struct kmap_inner)))

void kmap_init(struct kmap *, struct arena *);
void *kmap_find(const struct kmap *, const struct tree_key *);

/* The place of 'key', whose value is NULL if it was absent: set it then. */
void **kmap_insert(struct kmap *, const struct tree_key *);

/* Removes 'key' if it is there, and returns its value. */
void *kmap_remove(struct kmap *, const struct tree_key *);

/* A place in the map; 'leaf' NULL: behind the end. */
struct kmap_iter {
    struct kmap_leaf *leaf;
    unsigned int i;
};

/* To the first key not less than 'key'; to the last one not greater. */
void
kmap_seek(const struct kmap *, const struct tree_key *, struct kmap_iter *);
void kmap_seek_last(const struct kmap *, const struct tree_key *,
                    struct kmap_iter *);

static inline void
kmap_next(struct kmap_iter *iter)
{
    if (++iter->i >= iter->leaf->n) {
        iter->leaf = iter->leaf->next;
        iter->i = 0;
    }
}

static inline const struct tree_key *
kmap_key(const struct kmap_iter *iter)
{
    return &iter->leaf->key[iter->i];
}

static inline void *
kmap_value(const struct kmap_iter *iter)
{
    return iter->leaf->value[iter->i];
}

#endif /* vafs-server/branch/kmap.h */
