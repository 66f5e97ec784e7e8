/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Immutable B+trees of (key, value) in a store's objects.
 *
 * Theory of operation
 * -------------------
 *
 * A tree is named by the id of its root node, so it never changes; a new
 * version is made by tree_merge(), which streams a sorted list of changes
 * into an old one and shares every subtree that no change touches.  Equal
 * subtrees of two trees are recognised by their ids.
 *
 * Node, an object of kind STORE_NODE and format 1, at most 8192 bytes, all
 * integers little-endian:
 *
 *     offset  size  field
 *          0     1  level: 0 leaf, else height above the leaves
 *          1     1  0
 *          2     2  n, number of cells, at least 1
 *          4     4  key domain of the children, 0
 *          8    2n  offset of each cell from the start of the node
 *       8+2n        cells, in key order, without gaps
 *
 * A cell is a byte with the key's length, the key (key.h), and the value,
 * which extends to the next cell.  In an inner node the value is the 32-byte
 * id of the child that holds the keys from this key on up to the next cell's;
 * the first cell's key is a lower bound of the whole node's at the time it was
 * made, smaller keys inserted later go there too.
 *
 * A leaf's values are at most TREE_VALUE_MAX bytes, so at least three fit.
 *
 * Nodes are searched in place in the store's cache.  Every access checks
 * bounds, since a node that came from elsewhere has a right name and may yet
 * be malformed (EBADMSG); sorting is checked by tree_node_check().
 *
 * The balance is kept by the writer: nodes are at most full, and a node under
 * a third is joined with its right neighbour when the merge passes it, except
 * at the right edge. */

#ifndef VAFS_TREE_TREE_H
#define VAFS_TREE_TREE_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/util.h"
#include "vafs-server/store/store.h"
#include "vafs-server/tree/key.h"

#define TREE_NODE_MAX 8192
#define TREE_VALUE_MAX 2048
#define TREE_LEVELS 16
#define TREE_NODE_FORMAT 1

/* A tree.  The root id zero is the empty tree.  Copy it as you like. */
struct tree {
    struct store *store;
    struct store_id root;
};

/* While this is true in a thread, its reads fail with EAGAIN where they would
 * have to wait for the disk. */
extern __thread bool tree_nowait;

/* A value inside a node that it keeps in memory; release it. */
struct tree_value {
    const uint8_t *data;
    size_t size;
    struct object *node;
};

/* Looks 'key' up.  ENOENT. */
int tree_get(const struct tree *, const struct tree_key *key,
             struct tree_value *ret) NODISCARD;
void tree_value_release(struct tree_value *);

/* Levels of the tree, 0 if empty. */
int tree_height(const struct tree *, unsigned int *ret) NODISCARD;

/* An iterator. */
struct tree_cursor {
    struct tree tree;
    unsigned int depth; /* Levels in use; 0: at the end. */
    struct {
        struct object *node;
        unsigned int i;
    } level[TREE_LEVELS];
    /* The item under the cursor, if 'depth' is not 0. */
    struct tree_key key;
    const uint8_t *data;
    size_t size;
};

void tree_cursor_init(struct tree_cursor *, const struct tree *);
/* Goes to the first item with a key not less than 'key'. */
int tree_cursor_seek(struct tree_cursor *, const struct tree_key *) NODISCARD;
int tree_cursor_next(struct tree_cursor *) NODISCARD;
static inline bool
tree_cursor_valid(const struct tree_cursor *cursor)
{
    return cursor->depth != 0;
}
void tree_cursor_destroy(struct tree_cursor *);

/* Where tree_merge() takes the changes from: two sorted streams.  A point
 * (put or removal) holds against a range that covers it.
 *
 * 'next_point' sets '*key' and '*value', '*size'; '*value' NULL removes; the
 * bytes stay valid until the next call.  'next_range' gives disjoint ranges
 * [lo, hi) of keys to remove.  Both set '*end' to true when there is no more.
 * The current changes are those last returned. */
struct tree_changes {
    int (*next_point)(void *aux, struct tree_key *key, const uint8_t **value,
                      size_t *size, bool *end);
    int (*next_range)(void *aux, struct tree_key *lo, struct tree_key *hi,
                      bool *end);
    void *aux;
};

struct tree_merge_stats {
    uint64_t n_written; /* Nodes put. */
    uint64_t n_read;    /* Nodes of the old tree read. */
    uint64_t n_points;
};

/* Makes the tree that results from 'changes' on 'base'.  Puts nodes bottom-up,
 * so that children are older than parents; 'needs' collects what must be
 * synced before '*ret' may be called durable. */
int tree_merge(const struct tree *base, const struct tree_changes *,
               struct store_needs *, struct tree *ret,
               struct tree_merge_stats *) NODISCARD;

/* Nodes, for those who check and walk. */

static inline unsigned int
tree_node_level(const struct object *node)
{
    return node->data[0];
}

static inline unsigned int
tree_node_n(const struct object *node)
{
    return get_le16(node->data + 2);
}

/* Fetches a node.  'level' is what it must have, or -1. */
int tree_node_get(struct store *, const struct store_id *, int level,
                  struct object **ret) NODISCARD;

/* Cell 'i' of 'node'; EBADMSG. */
int
tree_node_cell(const struct object *node, unsigned int i, struct tree_key *key,
               const uint8_t **value, size_t *size) NODISCARD;

/* Why 'node' is malformed, or NULL. */
const char *tree_node_check(const struct object *node);

#endif /* vafs-server/tree/tree.h */
