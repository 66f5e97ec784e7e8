/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading trees: nodes, look-up, cursor.  See tree.h; merge.c writes. */

#include "vafs-server/tree/tree.h"

#include <errno.h>

#define NODE_HEADER 8

__thread bool tree_nowait;

int
tree_node_get(struct store *store, const struct store_id *id, int level,
              struct object **ret)
{
    struct object *node;
    int error;

    error = tree_nowait ? store_get_cached(store, id, STORE_NODE, &node)
                        : store_get(store, id, STORE_NODE, &node);
    if (error) {
        /* A node that a tree names must be there. */
        return error == ENOENT ? EBADMSG : error;
    }
    if (node->format != TREE_NODE_FORMAT || node->size < NODE_HEADER ||
        node->size > TREE_NODE_MAX || !tree_node_n(node) ||
        NODE_HEADER + 2 * tree_node_n(node) > node->size ||
        tree_node_level(node) >= TREE_LEVELS ||
        (level >= 0 && tree_node_level(node) != (unsigned int) level)) {
        object_unref(node);
        return EBADMSG;
    }
    *ret = node;
    return 0;
}

int
tree_node_cell(const struct object *node, unsigned int i, struct tree_key *key,
               const uint8_t **value, size_t *size)
{
    const uint8_t *data = node->data;
    unsigned int n = tree_node_n(node);
    size_t start, end, key_size;

    start = get_le16(data + NODE_HEADER + 2 * i);
    end = i + 1 < n ? get_le16(data + NODE_HEADER + 2 * (i + 1)) : node->size;
    if (start >= end || end > node->size) {
        return EBADMSG;
    }
    key_size = data[start];
    if (key_size > end - start - 1 ||
        !tree_key_decode(data + start + 1, key_size, key)) {
        return EBADMSG;
    }
    *value = data + start + 1 + key_size;
    *size = end - start - 1 - key_size;
    return 0;
}

const char *
tree_node_check(const struct object *node)
{
    unsigned int n = tree_node_n(node);
    size_t expected = NODE_HEADER + 2 * n;
    struct tree_key key, last = {0, 0, 0};

    if (node->data[1] || get_le32(node->data + 4)) {
        return "node's reserved bytes are not 0";
    }
    for (unsigned int i = 0; i < n; i++) {
        const uint8_t *value;
        size_t size;

        if (get_le16(node->data + NODE_HEADER + 2 * i) != expected) {
            return "node's cells have gaps or overlap";
        }
        if (tree_node_cell(node, i, &key, &value, &size)) {
            return "node's cell is malformed";
        }
        if (i && !tree_key_less(&last, &key)) {
            return "node's keys are not in order";
        }
        if (tree_node_level(node) && size != sizeof(struct store_id)) {
            return "inner node's value is no id";
        }
        last = key;
        expected = value + size - node->data;
    }
    return NULL;
}

/* Sets '*ret' to the number of cells whose key is less than 'key', or, if
 * 'or_equal', not greater. */
static int
node_search(const struct object *node, const struct tree_key *key,
            bool or_equal, unsigned int *ret)
{
    unsigned int lo = 0, hi = tree_node_n(node);

    while (lo < hi) {
        unsigned int mid = (lo + hi) / 2;
        struct tree_key k;
        const uint8_t *value;
        size_t size;
        int error, cmp;

        error = tree_node_cell(node, mid, &k, &value, &size);
        if (error) {
            return error;
        }
        cmp = tree_key_cmp(&k, key);
        if (cmp < 0 || (or_equal && !cmp)) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    *ret = lo;
    return 0;
}

/* The id of child 'i' of inner 'node'. */
static int
node_child(const struct object *node, unsigned int i, struct store_id *id)
{
    struct tree_key key;
    const uint8_t *value;
    size_t size;
    int error = tree_node_cell(node, i, &key, &value, &size);

    if (error) {
        return error;
    }
    if (size != sizeof *id) {
        return EBADMSG;
    }
    memcpy(id, value, sizeof *id);
    return 0;
}

int
tree_get(const struct tree *tree, const struct tree_key *key,
         struct tree_value *ret)
{
    struct store_id id = tree->root;
    int level = -1;

    if (store_id_is_zero(&id)) {
        return ENOENT;
    }
    for (;;) {
        struct object *node;
        unsigned int i = 0;
        int error = tree_node_get(tree->store, &id, level, &node);

        if (error) {
            return error;
        }
        level = tree_node_level(node);
        if (!level) {
            struct tree_key k;

            error = node_search(node, key, false, &i);
            if (!error && i == tree_node_n(node)) {
                error = ENOENT;
            }
            if (!error) {
                error = tree_node_cell(node, i, &k, &ret->data, &ret->size);
            }
            if (!error && !tree_key_equal(&k, key)) {
                error = ENOENT;
            }
            if (error) {
                object_unref(node);
                return error;
            }
            ret->node = node;
            return 0;
        }
        error = node_search(node, key, true, &i);
        if (!error) {
            error = node_child(node, i ? i - 1 : 0, &id);
        }
        object_unref(node);
        if (error) {
            return error;
        }
        level--;
    }
}

void
tree_value_release(struct tree_value *value)
{
    object_unref(value->node);
    value->node = NULL;
}

int
tree_height(const struct tree *tree, unsigned int *ret)
{
    struct object *node;
    int error;

    if (store_id_is_zero(&tree->root)) {
        *ret = 0;
        return 0;
    }
    error = tree_node_get(tree->store, &tree->root, -1, &node);
    if (!error) {
        *ret = tree_node_level(node) + 1;
        object_unref(node);
    }
    return error;
}

void
tree_cursor_init(struct tree_cursor *cursor, const struct tree *tree)
{
    cursor->tree = *tree;
    cursor->depth = 0;
}

void
tree_cursor_destroy(struct tree_cursor *cursor)
{
    while (cursor->depth) {
        object_unref(cursor->level[--cursor->depth].node);
    }
}

/* Goes down from node 'id', which is at level 'level' (-1: the root), always
 * to the first child, or to where 'key' leads if that is not NULL. */
static int
cursor_descend(struct tree_cursor *cursor, struct store_id id, int level,
               const struct tree_key *key)
{
    for (;;) {
        struct object *node;
        unsigned int i = 0;
        int error;

        if (cursor->depth == TREE_LEVELS) {
            return EBADMSG;
        }
        error = tree_node_get(cursor->tree.store, &id, level, &node);
        if (error) {
            return error;
        }
        level = tree_node_level(node);
        if (key) {
            error = node_search(node, key, level > 0, &i);
            if (level && i) {
                i--;
            }
        }
        cursor->level[cursor->depth].node = node;
        cursor->level[cursor->depth].i = i;
        cursor->depth++;
        if (error || !level) {
            return error;
        }
        error = node_child(node, i, &id);
        if (error) {
            return error;
        }
        level--;
    }
}

/* Makes the cursor stand on an item, going on to the next leaf if it stands
 * behind the last of one. */
static int
cursor_settle(struct tree_cursor *cursor)
{
    while (cursor->depth) {
        struct object *node = cursor->level[cursor->depth - 1].node;
        unsigned int i = cursor->level[cursor->depth - 1].i;
        struct store_id id;
        int error;

        if (i < tree_node_n(node)) {
            if (!tree_node_level(node)) {
                return tree_node_cell(node, i, &cursor->key, &cursor->data,
                                      &cursor->size);
            }
            error = node_child(node, i, &id);
            if (!error) {
                error = cursor_descend(cursor, id, tree_node_level(node) - 1,
                                       NULL);
            }
            if (error) {
                return error;
            }
            continue;
        }
        object_unref(node);
        cursor->depth--;
        if (cursor->depth) {
            cursor->level[cursor->depth - 1].i++;
        }
    }
    return 0;
}

int
tree_cursor_seek(struct tree_cursor *cursor, const struct tree_key *key)
{
    int error;

    tree_cursor_destroy(cursor);
    if (store_id_is_zero(&cursor->tree.root)) {
        return 0;
    }
    error = cursor_descend(cursor, cursor->tree.root, -1, key);
    if (!error) {
        error = cursor_settle(cursor);
    }
    if (error) {
        tree_cursor_destroy(cursor);
    }
    return error;
}

int
tree_cursor_next(struct tree_cursor *cursor)
{
    int error;

    cursor->level[cursor->depth - 1].i++;
    error = cursor_settle(cursor);
    if (error) {
        tree_cursor_destroy(cursor);
    }
    return error;
}
