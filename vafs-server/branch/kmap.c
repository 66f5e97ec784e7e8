/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See kmap.h.  Nodes split when full (at the right edge all stays left, since
 * keys often come in order) and vanish when empty; they are not joined, since
 * a layer lives for seconds. */

#include "vafs-server/branch/kmap.h"

struct path {
    struct kmap_inner *node[KMAP_LEVELS];
    unsigned int i[KMAP_LEVELS];
};

void
kmap_init(struct kmap *map, struct arena *arena)
{
    memset(map, 0, sizeof *map);
    map->arena = arena;
}

/* Number of keys in key[0..n) that are less than 'key' (or not greater). */
static inline unsigned int
search(const struct tree_key *keys, unsigned int lo, unsigned int n,
       const struct tree_key *key, bool or_equal)
{
    unsigned int hi = n;

    while (lo < hi) {
        unsigned int mid = (lo + hi) / 2;
        int cmp = tree_key_cmp(&keys[mid], key);

        if (cmp < 0 || (or_equal && !cmp)) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* The leaf responsible for 'key'; fills 'path' if not NULL.  The map is not
 * empty. */
static struct kmap_leaf *
find_leaf(const struct kmap *map, const struct tree_key *key,
          struct path *path)
{
    void *p = map->root;

    for (unsigned int level = map->height - 1; level; level--) {
        struct kmap_inner *inner = p;
        unsigned int i = search(inner->key, 1, inner->n, key, true) - 1;

        if (path) {
            path->node[level] = inner;
            path->i[level] = i;
        }
        p = inner->child[i];
    }
    return p;
}

void *
kmap_find(const struct kmap *map, const struct tree_key *key)
{
    struct kmap_leaf *leaf;
    unsigned int i;

    if (!map->height) {
        return NULL;
    }
    leaf = find_leaf(map, key, NULL);
    i = search(leaf->key, 0, leaf->n, key, false);
    return i < leaf->n && tree_key_equal(&leaf->key[i], key) ? leaf->value[i]
                                                             : NULL;
}

/* Puts 'child' with least key 'key' behind path->i[level] at 'level'. */
static void
insert_child(struct kmap *map, struct path *path, unsigned int level,
             const struct tree_key *key, void *child)
{
    struct kmap_inner *inner, *right;
    unsigned int i;

    if (level == map->height) {
        inner = arena_alloc(map->arena, sizeof *inner);
        inner->n = 2;
        inner->child[0] = map->root;
        inner->key[1] = *key;
        inner->child[1] = child;
        map->root = inner;
        map->height++;
        return;
    }
    inner = path->node[level];
    i = path->i[level] + 1;
    if (inner->n == KMAP_FANOUT) {
        unsigned int keep = i == KMAP_FANOUT ? KMAP_FANOUT : KMAP_FANOUT / 2;
        struct tree_key right_key;

        right = arena_alloc(map->arena, sizeof *right);
        right->n = KMAP_FANOUT - keep;
        memcpy(right->key, inner->key + keep, right->n * sizeof *right->key);
        memcpy(right->child, inner->child + keep,
               right->n * sizeof *right->child);
        inner->n = keep;
        right_key = right->n ? right->key[0] : *key;
        if (i > keep || !right->n) {
            inner = right;
            i -= keep;
        }
        memmove(inner->key + i + 1, inner->key + i,
                (inner->n - i) * sizeof *inner->key);
        memmove(inner->child + i + 1, inner->child + i,
                (inner->n - i) * sizeof *inner->child);
        inner->key[i] = *key;
        inner->child[i] = child;
        inner->n++;
        insert_child(map, path, level + 1, &right_key, right);
        return;
    }
    memmove(inner->key + i + 1, inner->key + i,
            (inner->n - i) * sizeof *inner->key);
    memmove(inner->child + i + 1, inner->child + i,
            (inner->n - i) * sizeof *inner->child);
    inner->key[i] = *key;
    inner->child[i] = child;
    inner->n++;
}

static void **
leaf_insert(struct kmap_leaf *leaf, unsigned int i, const struct tree_key *key)
{
    memmove(leaf->key + i + 1, leaf->key + i,
            (leaf->n - i) * sizeof *leaf->key);
    memmove(leaf->value + i + 1, leaf->value + i,
            (leaf->n - i) * sizeof *leaf->value);
    leaf->key[i] = *key;
    leaf->value[i] = NULL;
    leaf->n++;
    return &leaf->value[i];
}

void **
kmap_insert(struct kmap *map, const struct tree_key *key)
{
    struct path path;
    struct kmap_leaf *leaf, *right;
    unsigned int i, keep;
    void **place;

    if (!map->height) {
        leaf = arena_alloc(map->arena, sizeof *leaf);
        leaf->n = 0;
        leaf->prev = leaf->next = NULL;
        map->root = leaf;
        map->height = 1;
    }
    leaf = find_leaf(map, key, &path);
    i = search(leaf->key, 0, leaf->n, key, false);
    if (i < leaf->n && tree_key_equal(&leaf->key[i], key)) {
        return &leaf->value[i];
    }
    map->n++;
    if (leaf->n < KMAP_FANOUT) {
        return leaf_insert(leaf, i, key);
    }

    keep = i == KMAP_FANOUT ? KMAP_FANOUT : KMAP_FANOUT / 2;
    right = arena_alloc(map->arena, sizeof *right);
    right->n = KMAP_FANOUT - keep;
    memcpy(right->key, leaf->key + keep, right->n * sizeof *right->key);
    memcpy(right->value, leaf->value + keep, right->n * sizeof *right->value);
    leaf->n = keep;
    right->prev = leaf;
    right->next = leaf->next;
    if (right->next) {
        right->next->prev = right;
    }
    leaf->next = right;
    place = i > keep || !right->n ? leaf_insert(right, i - keep, key)
                                  : leaf_insert(leaf, i, key);
    insert_child(map, &path, 1, &right->key[0], right);
    return place;
}

static void
remove_child(struct kmap *map, struct path *path, unsigned int level)
{
    struct kmap_inner *inner;
    unsigned int i;

    if (level == map->height) {
        map->root = NULL;
        map->height = 0;
        return;
    }
    inner = path->node[level];
    i = path->i[level];
    memmove(inner->key + i, inner->key + i + 1,
            (inner->n - i - 1) * sizeof *inner->key);
    memmove(inner->child + i, inner->child + i + 1,
            (inner->n - i - 1) * sizeof *inner->child);
    if (!--inner->n) {
        remove_child(map, path, level + 1);
        arena_free(map->arena, inner, sizeof *inner);
    }
}

void *
kmap_remove(struct kmap *map, const struct tree_key *key)
{
    struct path path;
    struct kmap_leaf *leaf;
    unsigned int i;
    void *value;

    if (!map->height) {
        return NULL;
    }
    leaf = find_leaf(map, key, &path);
    i = search(leaf->key, 0, leaf->n, key, false);
    if (i == leaf->n || !tree_key_equal(&leaf->key[i], key)) {
        return NULL;
    }
    value = leaf->value[i];
    memmove(leaf->key + i, leaf->key + i + 1,
            (leaf->n - i - 1) * sizeof *leaf->key);
    memmove(leaf->value + i, leaf->value + i + 1,
            (leaf->n - i - 1) * sizeof *leaf->value);
    map->n--;
    if (!--leaf->n) {
        if (leaf->prev) {
            leaf->prev->next = leaf->next;
        }
        if (leaf->next) {
            leaf->next->prev = leaf->prev;
        }
        remove_child(map, &path, 1);
        arena_free(map->arena, leaf, sizeof *leaf);
    }
    return value;
}

void
kmap_seek(const struct kmap *map, const struct tree_key *key,
          struct kmap_iter *iter)
{
    iter->leaf = NULL;
    iter->i = 0;
    if (map->height) {
        iter->leaf = find_leaf(map, key, NULL);
        iter->i = search(iter->leaf->key, 0, iter->leaf->n, key, false);
        if (iter->i == iter->leaf->n) {
            iter->leaf = iter->leaf->next;
            iter->i = 0;
        }
    }
}

void
kmap_seek_last(const struct kmap *map, const struct tree_key *key,
               struct kmap_iter *iter)
{
    iter->leaf = NULL;
    iter->i = 0;
    if (map->height) {
        iter->leaf = find_leaf(map, key, NULL);
        iter->i = search(iter->leaf->key, 0, iter->leaf->n, key, true);
        if (iter->i) {
            iter->i--;
        } else {
            iter->leaf = iter->leaf->prev;
            iter->i = iter->leaf ? iter->leaf->n - 1 : 0;
        }
    }
}
