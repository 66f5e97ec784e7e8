/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fuzz target: values and nodes of trees.  The first byte chooses the
 * structure.  Nothing outside the buffer is touched, and what decodes is
 * canonical: encoding it again gives the same bytes. */

#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vafs-server/tree/tree.h"
#include "vafs-server/tree/value.h"

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return 0;
}

static void
same(const uint8_t *data, size_t size, const uint8_t *again, size_t n)
{
    if (n != size || memcmp(data, again, n)) {
        abort();
    }
}

static void
try_node(const uint8_t *data, size_t size)
{
    struct object node = {.data = data, .size = size};
    uint8_t key[TREE_KEY_MAX];

    /* What tree_node_get() checks before it lets a node in. */
    if (size < 8 || size > TREE_NODE_MAX || !tree_node_n(&node) ||
        8 + 2 * tree_node_n(&node) > size) {
        return;
    }
    for (unsigned i = 0; i < tree_node_n(&node); i++) {
        struct tree_key k;
        const uint8_t *value;
        size_t value_size;

        if (!tree_node_cell(&node, i, &k, &value, &value_size)) {
            if (value < data || value_size > size ||
                value + value_size > data + size) {
                abort();
            }
            size_t n = tree_key_encode(&k, key);

            same(value - n, n, key, n);
        }
    }
    (void) tree_node_check(&node);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t again[TREE_VALUE_MAX * 2];
    struct tree_attr attr;
    struct tree_entry entry;
    struct tree_content content;
    struct tree_branch branch;
    struct tree_version_entry version;
    const char *name;
    size_t len;
    uint8_t *copy;
    uint8_t kind;

    if (!size || size > TREE_NODE_MAX + 1) {
        return 0;
    }
    kind = *data++;
    size--;
    /* Of its own size, so that a sanitizer sees what goes beyond. */
    copy = malloc(size + !size);
    if (!copy) {
        return 0;
    }
    memcpy(copy, data, size);
    if (kind % 7 == 0) {
        try_node(copy, size);
    } else if (size <= TREE_VALUE_MAX) {
        switch (kind % 7) {
        case 1:
            if (!tree_attr_decode(copy, size, &attr)) {
                same(copy, size, again, tree_attr_encode(&attr, again));
            }
            break;
        case 2:
            if (!tree_entry_decode(copy, size, &entry)) {
                same(copy, size, again, tree_entry_encode(&entry, again));
            }
            break;
        case 3:
            if (!tree_content_decode(copy, size, &content)) {
                same(copy, size, again, tree_content_encode(&content, again));
            }
            break;
        case 4:
            if (!tree_xattr_decode(copy, size, &name, &len, &content)) {
                same(copy, size, again,
                     tree_xattr_encode(name, len, &content, again));
            }
            break;
        case 5:
            if (!tree_branch_decode(copy, size, &branch)) {
                same(copy, size, again, tree_branch_encode(&branch, again));
            }
            break;
        default:
            if (!tree_version_entry_decode(copy, size, &version)) {
                same(copy, size, again,
                     tree_version_entry_encode(&version, again));
            }
        }
    }
    free(copy);
    return 0;
}
