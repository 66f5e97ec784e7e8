/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tree_merge(): a new tree from an old one and a sorted stream of changes.
 *
 * Two halves.  The *reader* walks the old tree in key order; a subtree that no
 * change touches is handed over whole, without being read, and one that a
 * removed range covers is dropped the same way.  The *writer* has a buffer of
 * cells for each level.  Cells pile up until there is enough for two nodes, or
 * until a whole subtree comes by, which cuts the piles below its level; what
 * would then become a node under a third full is joined with that subtree's
 * first node instead, by opening it. */

#include "vafs-server/tree/tree.h"

#include <errno.h>
#include <stdlib.h>

#define NODE_HEADER 8
#define CELL_MAX (1 + TREE_KEY_MAX + TREE_VALUE_MAX)
/* Below this a node is joined with its neighbour when there is one. */
#define NODE_MIN (TREE_NODE_MAX / 3)
/* What is cut off a long pile: leaves room for a few insertions. */
#define NODE_FILL (TREE_NODE_MAX * 15 / 16)
/* A pile is cut when it passes this. */
#define PILE_MAX (2 * TREE_NODE_MAX)
#define PILE_CELLS (PILE_MAX / 8)

/* Cells that wait for being made a node at one level. */
struct pile {
    unsigned int n;
    size_t size;                    /* Bytes of a node of all of them. */
    uint16_t start[PILE_CELLS + 1]; /* Of each cell in 'bytes'. */
    uint8_t bytes[PILE_MAX + 2 * CELL_MAX];
    struct store_id hint; /* The old node that was opened last here. */
};

struct merge {
    const struct tree *base;
    const struct tree_changes *changes;
    struct store_needs *needs;
    struct tree_merge_stats *stats;

    bool points_end, ranges_end;
    struct tree_key point;
    const uint8_t *value;
    size_t value_size;
    struct tree_key lo, hi;

    struct pile *pile[TREE_LEVELS];
};

static int add_cell(struct merge *, unsigned int level,
                    const struct tree_key *, const void *value, size_t size);

static struct pile *
get_pile(struct merge *m, unsigned int level)
{
    if (level < TREE_LEVELS && !m->pile[level]) {
        struct pile *pile = malloc(sizeof *pile);

        if (pile) {
            pile->n = 0;
            pile->size = NODE_HEADER;
            pile->start[0] = 0;
            memset(&pile->hint, 0, sizeof pile->hint);
            m->pile[level] = pile;
        }
    }
    return level < TREE_LEVELS ? m->pile[level] : NULL;
}

static void
pile_key(const struct pile *pile, unsigned int i, struct tree_key *key)
{
    const uint8_t *cell = pile->bytes + pile->start[i];

    tree_key_decode(cell + 1, cell[0], key);
}

/* Puts a node of the first 'n' cells of the pile and forgets these. */
static int
put_node(struct merge *m, unsigned int level, unsigned int n,
         struct tree_key *ret_key, struct store_id *ret_id)
{
    struct pile *pile = m->pile[level];
    uint8_t node[TREE_NODE_MAX];
    size_t bytes = pile->start[n];
    size_t size = NODE_HEADER + 2 * n + bytes;
    struct store_put put = {
        .data = node,
        .size = size,
        .kind = STORE_NODE,
        .format = TREE_NODE_FORMAT,
        .base = store_id_is_zero(&pile->hint) ? NULL : &pile->hint,
    };
    int error;

    node[0] = level;
    node[1] = 0;
    put_le16(node + 2, n);
    put_le32(node + 4, 0);
    for (unsigned int i = 0; i < n; i++) {
        put_le16(node + NODE_HEADER + 2 * i,
                 NODE_HEADER + 2 * n + pile->start[i]);
    }
    memcpy(node + NODE_HEADER + 2 * n, pile->bytes, bytes);
    error = store_put(m->base->store, &put, m->needs);
    if (error) {
        return error;
    }
    m->stats->n_written++;
    pile_key(pile, 0, ret_key);
    *ret_id = put.id;

    memmove(pile->bytes, pile->bytes + bytes, pile->start[pile->n] - bytes);
    for (unsigned int i = n; i <= pile->n; i++) {
        pile->start[i - n] = pile->start[i] - bytes;
    }
    pile->n -= n;
    pile->size -= bytes + 2 * n;
    memset(&pile->hint, 0, sizeof pile->hint);
    return 0;
}

/* How many cells of the pile make a node of about 'target' bytes. */
static unsigned int
count_cells(const struct pile *pile, size_t target)
{
    unsigned int n = 0;

    while (n < pile->n &&
           NODE_HEADER + 2 * (n + 1) + pile->start[n + 1] <= target) {
        n++;
    }
    return MAX(n, 1);
}

/* Puts one node of about 'target' bytes and enters it one level up. */
static int
cut(struct merge *m, unsigned int level, size_t target)
{
    struct tree_key key;
    struct store_id id;
    int error;

    error = put_node(m, level, count_cells(m->pile[level], target), &key, &id);
    return error ? error : add_cell(m, level + 1, &key, &id, sizeof id);
}

/* Makes nodes, equally full, of the whole pile. */
static int
flush_pile(struct merge *m, unsigned int level)
{
    struct pile *pile = m->pile[level];

    while (pile->n) {
        size_t nodes = DIV_ROUND_UP(pile->size, TREE_NODE_MAX);
        size_t target = TREE_NODE_MAX;
        int error;

        if (nodes > 1) {
            target = MIN(TREE_NODE_MAX, pile->size / nodes + CELL_MAX / 8);
        }
        error = cut(m, level, target);
        if (error) {
            return error;
        }
    }
    return 0;
}

static int
add_cell(struct merge *m, unsigned int level, const struct tree_key *key,
         const void *value, size_t size)
{
    struct pile *pile = get_pile(m, level);
    uint8_t *cell;
    size_t n;

    if (!pile) {
        return level < TREE_LEVELS ? ENOMEM : EFBIG;
    }
    if (size > TREE_VALUE_MAX) {
        return E2BIG;
    }
    cell = pile->bytes + pile->start[pile->n];
    n = tree_key_encode(key, cell + 1);
    cell[0] = n;
    memcpy(cell + 1 + n, value, size);
    pile->n++;
    pile->start[pile->n] = pile->start[pile->n - 1] + 1 + n + size;
    pile->size += 2 + 1 + n + size;
    if (pile->size > PILE_MAX || pile->n == PILE_CELLS) {
        return cut(m, level, NODE_FILL);
    }
    return 0;
}

static int
open_node(struct merge *m, const struct store_id *id, unsigned int level,
          struct object **ret)
{
    struct pile *pile = get_pile(m, level);
    int error;

    if (!pile) {
        return ENOMEM;
    }
    error = tree_node_get(m->base->store, id, level, ret);
    if (!error) {
        m->stats->n_read++;
        pile->hint = *id;
    }
    return error;
}

/* Enters the unchanged old node 'id' of 'level', whose cells begin at 'key'.
 */
static int
add_subtree(struct merge *m, unsigned int level, const struct tree_key *key,
            const struct store_id *id)
{
    struct object *node;
    unsigned int i;
    int error = 0;

    for (unsigned int l = 0; l <= level && !error; l++) {
        struct pile *pile = m->pile[l];

        if (!pile || !pile->n) {
            continue;
        }
        if (pile->size >= NODE_MIN) {
            error = flush_pile(m, l);
            continue;
        }
        /* Too little for a node: join it with what comes. */
        error = open_node(m, id, level, &node);
        for (i = 0; !error && i < tree_node_n(node); i++) {
            struct tree_key k;
            const uint8_t *value;
            struct store_id child;
            size_t size;

            error = tree_node_cell(node, i, &k, &value, &size);
            if (error) {
                break;
            }
            if (!level) {
                error = add_cell(m, 0, &k, value, size);
            } else if (size != sizeof child) {
                error = EBADMSG;
            } else {
                memcpy(&child, value, sizeof child);
                error = add_subtree(m, level - 1, &k, &child);
            }
            if (error) {
                object_unref(node);
                return error;
            }
        }
        if (!error) {
            object_unref(node);
        }
        return error;
    }
    return error ? error : add_cell(m, level + 1, key, id, sizeof *id);
}

static int
next_point(struct merge *m)
{
    m->stats->n_points++;
    return m->changes->next_point(m->changes->aux, &m->point, &m->value,
                                  &m->value_size, &m->points_end);
}

/* Goes on to the first range that ends after 'key'. */
static int
skip_ranges(struct merge *m, const struct tree_key *key)
{
    int error = 0;

    while (!error && !m->ranges_end && tree_key_cmp(&m->hi, key) <= 0) {
        error = m->changes->next_range(m->changes->aux, &m->lo, &m->hi,
                                       &m->ranges_end);
    }
    return error;
}

/* Enters the points below 'hi' (all, if NULL). */
static int
add_points(struct merge *m, const struct tree_key *hi)
{
    int error = 0;

    while (!error && !m->points_end && (!hi || tree_key_less(&m->point, hi))) {
        if (m->value) {
            error = add_cell(m, 0, &m->point, m->value, m->value_size);
        }
        if (!error) {
            error = next_point(m);
        }
    }
    return error;
}

static int
merge_leaf(struct merge *m, const struct object *node,
           const struct tree_key *hi)
{
    for (unsigned int i = 0; i < tree_node_n(node); i++) {
        struct tree_key key;
        const uint8_t *value;
        size_t size;
        int error = tree_node_cell(node, i, &key, &value, &size);

        if (!error) {
            error = add_points(m, &key);
        }
        if (!error) {
            error = skip_ranges(m, &key);
        }
        if (error) {
            return error;
        }
        if ((!m->points_end && tree_key_equal(&m->point, &key)) ||
            (!m->ranges_end && tree_key_cmp(&m->lo, &key) <= 0)) {
            /* Replaced or removed. */
            continue;
        }
        error = add_cell(m, 0, &key, value, size);
        if (error) {
            return error;
        }
    }
    return add_points(m, hi);
}

/* Merges the old node 'id', responsible for the keys in ['lo', 'hi'), with the
 * changes there.  'hi' NULL: no limit. */
static int
merge_node(struct merge *m, const struct store_id *id, unsigned int level,
           const struct tree_key *lo, const struct tree_key *hi)
{
    struct object *node;
    unsigned int n;
    int error = open_node(m, id, level, &node);

    if (error) {
        return error;
    }
    if (!level) {
        error = merge_leaf(m, node, hi);
        object_unref(node);
        return error;
    }
    n = tree_node_n(node);
    for (unsigned int i = 0; i < n && !error; i++) {
        struct tree_key first, next, clo;
        const uint8_t *value, *next_value;
        const struct tree_key *chi = hi;
        struct store_id child;
        size_t size;
        bool touched;

        error = tree_node_cell(node, i, &first, &value, &size);
        if (!error && i + 1 < n) {
            size_t next_size;

            error =
                tree_node_cell(node, i + 1, &next, &next_value, &next_size);
            chi = &next;
        }
        if (!error && size != sizeof child) {
            error = EBADMSG;
        }
        clo = i ? first : *lo;
        if (!error) {
            error = skip_ranges(m, &clo);
        }
        if (error) {
            break;
        }
        memcpy(&child, value, sizeof child);
        touched = !m->points_end && (!chi || tree_key_less(&m->point, chi));
        if (!m->ranges_end && (!chi || tree_key_less(&m->lo, chi))) {
            if (tree_key_cmp(&m->lo, &clo) <= 0 && chi &&
                tree_key_cmp(&m->hi, chi) >= 0) {
                /* All of the child is removed: it need not be read. */
                error = add_points(m, chi);
                continue;
            }
            touched = true;
        }
        error = touched ? merge_node(m, &child, level - 1, &clo, chi)
                        : add_subtree(m, level - 1, &first, &child);
    }
    object_unref(node);
    return error;
}

/* Makes nodes of all that is left and finds the root. */
static int
finish(struct merge *m, struct store_id *root)
{
    for (unsigned int level = 0; level < TREE_LEVELS; level++) {
        struct pile *pile = m->pile[level];
        bool top = true;
        int error;

        for (unsigned int l = level + 1; l < TREE_LEVELS; l++) {
            top = top && (!m->pile[l] || !m->pile[l]->n);
        }
        if (!pile || !pile->n) {
            if (top) {
                memset(root, 0, sizeof *root);
                return 0;
            }
            continue;
        }
        if (top && level && pile->n == 1) {
            memcpy(root, pile->bytes + pile->start[1] - sizeof *root,
                   sizeof *root);
            return 0;
        }
        if (top && pile->size <= TREE_NODE_MAX) {
            struct tree_key key;

            return put_node(m, level, pile->n, &key, root);
        }
        error = flush_pile(m, level);
        if (error) {
            return error;
        }
    }
    return EFBIG;
}

int
tree_merge(const struct tree *base, const struct tree_changes *changes,
           struct store_needs *needs, struct tree *ret,
           struct tree_merge_stats *stats)
{
    static const struct tree_key start = {0, 0, 0};
    struct merge m = {
        .base = base, .changes = changes, .needs = needs, .stats = stats};
    struct store_id root;
    unsigned int height;
    int error;

    memset(stats, 0, sizeof *stats);
    error = next_point(&m);
    if (!error) {
        error = changes->next_range(changes->aux, &m.lo, &m.hi, &m.ranges_end);
    }
    if (!error) {
        error = tree_height(base, &height);
    }
    if (!error) {
        error = height ? merge_node(&m, &base->root, height - 1, &start, NULL)
                       : add_points(&m, NULL);
    }
    if (!error) {
        error = finish(&m, &root);
    }
    for (unsigned int i = 0; i < TREE_LEVELS; i++) {
        free(m.pile[i]);
    }
    if (!error) {
        ret->store = base->store;
        ret->root = root;
    }
    return error;
}
