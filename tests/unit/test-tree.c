/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Trees: merging against a reference, form of nodes, encodings of values. */

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "tests/unit/store-helper.h"
#include "vafs-server/tree/siphash.h"
#include "vafs-server/tree/tree.h"
#include "vafs-server/tree/value.h"

/* A sorted array that does what a tree should. */
struct item {
    struct tree_key key;
    size_t size;
    uint8_t data[TREE_VALUE_MAX];
};

struct reference {
    struct item *item;
    size_t n, max;
};

struct change {
    bool range;
    bool remove;
    struct tree_key hi;
    struct item item;
};

static uint64_t seed;

static uint32_t
rnd(void)
{
    seed =
        seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return seed >> 33;
}

static size_t
lower(const struct reference *ref, const struct tree_key *key)
{
    size_t i = 0;

    while (i < ref->n && tree_key_less(&ref->item[i].key, key)) {
        i++;
    }
    return i;
}

static void
ref_remove_range(struct reference *ref, const struct tree_key *lo,
                 const struct tree_key *hi)
{
    size_t a = lower(ref, lo), b = lower(ref, hi);

    if (a < b) {
        memmove(ref->item + a, ref->item + b,
                (ref->n - b) * sizeof *ref->item);
        ref->n -= b - a;
    }
}

static void
ref_put(struct reference *ref, const struct item *item)
{
    size_t i = lower(ref, &item->key);

    if (i == ref->n || !tree_key_equal(&ref->item[i].key, &item->key)) {
        if (ref->n == ref->max) {
            ref->max = 2 * ref->max + 64;
            ref->item = realloc(ref->item, ref->max * sizeof *ref->item);
        }
        memmove(ref->item + i + 1, ref->item + i,
                (ref->n - i) * sizeof *ref->item);
        ref->n++;
    }
    ref->item[i] = *item;
}

/* Streams for tree_merge(). */
struct stream {
    struct reference *puts; /* size SIZE_MAX: removal. */
    struct tree_key (*range)[2];
    size_t n_ranges, i, r;
};

static int
next_point(void *s_, struct tree_key *key, const uint8_t **value, size_t *size,
           bool *end)
{
    struct stream *s = s_;

    *end = s->i == s->puts->n;
    if (!*end) {
        struct item *item = &s->puts->item[s->i++];

        *key = item->key;
        *value = item->size == SIZE_MAX ? NULL : item->data;
        *size = item->size;
    }
    return 0;
}

static int
next_range(void *s_, struct tree_key *lo, struct tree_key *hi, bool *end)
{
    struct stream *s = s_;

    *end = s->r == s->n_ranges;
    if (!*end) {
        *lo = s->range[s->r][0];
        *hi = s->range[s->r][1];
        s->r++;
    }
    return 0;
}

static struct tree_key
random_key(uint64_t n_inodes)
{
    uint64_t ino = 1 + rnd() % n_inodes;

    switch (rnd() % 4) {
    case 0:
        return tree_key(ino, TREE_ATTR, 0, 0);
    case 1:
        return tree_key(ino, TREE_LINK, rnd() % 50, rnd());
    case 2:
        return tree_key(ino, TREE_ENTRY, rnd() % 100, 0);
    default:
        return tree_key(ino, TREE_RECORD, rnd() % 20, 0);
    }
}

static void
random_item(struct item *item, uint64_t n_inodes)
{
    item->key = random_key(n_inodes);
    item->size = rnd() % 10 ? rnd() % 100 : rnd() % (TREE_VALUE_MAX + 1);
    for (size_t i = 0; i < item->size; i++) {
        item->data[i] = rnd();
    }
}

/* Checks all nodes; returns how many leaves. */
static size_t
check_node(struct store *store, const struct store_id *id, int level)
{
    struct object *node;
    size_t n = 0;

    cr_assert_eq(tree_node_get(store, id, level, &node), 0);
    cr_assert_null(tree_node_check(node));
    if (!tree_node_level(node)) {
        object_unref(node);
        return 1;
    }
    for (unsigned int i = 0; i < tree_node_n(node); i++) {
        struct tree_key key;
        const uint8_t *value;
        struct store_id child;
        size_t size;

        cr_assert_eq(tree_node_cell(node, i, &key, &value, &size), 0);
        memcpy(&child, value, sizeof child);
        n += check_node(store, &child, tree_node_level(node) - 1);
    }
    object_unref(node);
    return n;
}

static void
check_equal(struct tree *tree, const struct reference *ref)
{
    struct tree_key start = {0, 0, 0};
    struct tree_cursor cursor;
    size_t i = 0, bytes = 0;

    tree_cursor_init(&cursor, tree);
    cr_assert_eq(tree_cursor_seek(&cursor, &start), 0);
    while (tree_cursor_valid(&cursor)) {
        cr_assert_lt(i, ref->n);
        cr_assert(tree_key_equal(&cursor.key, &ref->item[i].key));
        cr_assert_eq(cursor.size, ref->item[i].size);
        cr_assert(!memcmp(cursor.data, ref->item[i].data, cursor.size));
        bytes += cursor.size + 20;
        i++;
        cr_assert_eq(tree_cursor_next(&cursor), 0);
    }
    cr_assert_eq(i, ref->n);
    tree_cursor_destroy(&cursor);

    for (int k = 0; k < 50; k++) {
        struct tree_key key = random_key(60);
        struct tree_value value;
        size_t at = lower(ref, &key);
        bool there = at < ref->n && tree_key_equal(&ref->item[at].key, &key);
        int error = tree_get(tree, &key, &value);

        cr_assert_eq(error, there ? 0 : ENOENT);
        if (!error) {
            cr_assert_eq(value.size, ref->item[at].size);
            tree_value_release(&value);
        }
        cr_assert_eq(tree_cursor_seek(&cursor, &key), 0);
        cr_assert_eq(tree_cursor_valid(&cursor), at < ref->n);
        if (at < ref->n) {
            cr_assert(tree_key_equal(&cursor.key, &ref->item[at].key));
        }
        tree_cursor_destroy(&cursor);
    }
    if (ref->n) {
        size_t leaves = check_node(tree->store, &tree->root, -1);

        /* No worse than a third full on average, and a bit for the edge. */
        cr_assert_leq(leaves, 3 * bytes / TREE_NODE_MAX + 3,
                      "%zu leaves for %zu bytes", leaves, bytes);
    }
}

static void
run(struct store *store, unsigned rounds, unsigned max_changes)
{
    struct reference ref = {0};
    struct tree tree = {.store = store};

    for (unsigned round = 0; round < rounds; round++) {
        struct reference puts = {0};
        struct tree_key range[8][2];
        struct stream stream = {.puts = &puts, .range = range};
        struct tree_changes changes = {next_point, next_range, &stream};
        struct tree_merge_stats stats;
        struct store_needs needs = {0};
        unsigned n = rnd() % max_changes;
        struct tree_key last = {0, 0, 0};

        /* Ranges in order, whole inodes mostly. */
        for (unsigned i = 0; i < rnd() % 4; i++) {
            uint64_t ino = tree_key_ino(&last) + rnd() % 10;
            struct tree_key lo = tree_key(ino, rnd() % 6, rnd() % 20, 0);
            struct tree_key hi = tree_key(ino + 1 + rnd() % 4, 0, 0, 0);

            if (tree_key_less(&last, &lo)) {
                range[stream.n_ranges][0] = lo;
                range[stream.n_ranges][1] = hi;
                stream.n_ranges++;
                last = hi;
                ref_remove_range(&ref, &lo, &hi);
            }
        }
        for (unsigned i = 0; i < n; i++) {
            struct item item;

            random_item(&item, 60);
            if (rnd() % 3 == 0) {
                if (ref.n && rnd() % 2) {
                    item.key = ref.item[rnd() % ref.n].key;
                }
                item.size = SIZE_MAX;
            }
            ref_put(&puts, &item);
        }
        for (size_t i = 0; i < puts.n; i++) {
            struct tree_key hi = tree_key_next(puts.item[i].key);

            if (puts.item[i].size == SIZE_MAX) {
                ref_remove_range(&ref, &puts.item[i].key, &hi);
            } else {
                ref_put(&ref, &puts.item[i]);
            }
        }
        cr_assert_eq(tree_merge(&tree, &changes, &needs, &tree, &stats), 0);
        store_needs_clear(&needs);
        check_equal(&tree, &ref);
        free(puts.item);
    }
    free(ref.item);
}

static struct memfs *fs;
static struct store *store;

static void
setup(void)
{
    struct store_options options;

    fs = memfs_create();
    store_options_init(&options, 16 << 20);
    options.segment_size = 1 << 20;
    options.files = memfs_layer(fs);
    cr_assert_eq(store_create("mem", &options), 0);
    cr_assert_eq(store_open("mem", STORE_NO_THREAD, &options, &store), 0);
}

static void
teardown(void)
{
    store_abandon(store);
    memfs_destroy(fs);
}

TestSuite(tree, .init = setup, .fini = teardown, .timeout = 300);

Test(tree, merge_small_changes)
{
    seed = 1;
    run(store, 150, 12);
}

Test(tree, merge_large_changes)
{
    seed = 2;
    run(store, 25, 800);
}

Test(tree, merge_shares_what_is_untouched)
{
    struct reference ref = {0}, one = {0};
    struct stream stream = {.puts = &ref};
    struct tree_changes changes = {next_point, next_range, &stream};
    struct tree_merge_stats stats;
    struct tree tree = {.store = store}, next;
    unsigned int height;

    for (unsigned i = 0; i < 40000; i++) {
        struct item item = {.key = tree_key(i + 1, TREE_ATTR, 0, 0),
                            .size = 50};

        memset(item.data, i, item.size);
        if (ref.n == ref.max) {
            ref.max = 2 * ref.max + 64;
            ref.item = realloc(ref.item, ref.max * sizeof *ref.item);
        }
        ref.item[ref.n++] = item;
    }
    cr_assert_eq(tree_merge(&tree, &changes, NULL, &tree, &stats), 0);
    cr_assert_eq(tree_height(&tree, &height), 0);
    cr_assert_eq(height, 3);

    /* One change writes one path. */
    ref.item[7777].data[0] ^= 1;
    ref_put(&one, &ref.item[7777]);
    stream = (struct stream){.puts = &one};
    cr_assert_eq(tree_merge(&tree, &changes, NULL, &next, &stats), 0);
    cr_assert_eq(stats.n_written, height);
    cr_assert_eq(stats.n_read, height);

    /* No change gives the same tree. */
    stream = (struct stream){.puts = &(struct reference){0}};
    cr_assert_eq(tree_merge(&next, &changes, NULL, &tree, &stats), 0);
    cr_assert(store_id_equal(&tree.root, &next.root));

    /* A range drops subtrees unread: the two edges of it are read only. */
    {
        struct tree_key range[1][2] = {
            {tree_key(100, 0, 0, 0), tree_key(39900, 0, 0, 0)}};

        stream = (struct stream){
            .puts = &(struct reference){0}, .range = range, .n_ranges = 1};
        cr_assert_eq(tree_merge(&tree, &changes, NULL, &next, &stats), 0);
        cr_assert_leq(stats.n_read, 8, "%lu", (unsigned long) stats.n_read);
    }
    /* All removed: the empty tree. */
    {
        struct tree_key range[1][2] = {
            {tree_key(0, 0, 0, 0), tree_key(99999, 0, 0, 0)}};

        stream = (struct stream){
            .puts = &(struct reference){0}, .range = range, .n_ranges = 1};
        cr_assert_eq(tree_merge(&tree, &changes, NULL, &next, &stats), 0);
        cr_assert(store_id_is_zero(&next.root));
    }
    free(ref.item);
    free(one.item);
}

/* Every node with one byte changed is refused or reads within bounds. */
Test(tree, malformed_nodes_are_survived)
{
    struct reference puts = {0};
    struct stream stream = {.puts = &puts};
    struct tree_changes changes = {next_point, next_range, &stream};
    struct tree_merge_stats stats;
    struct tree tree = {.store = store};
    struct object *node;
    uint8_t *copy;
    size_t size;

    seed = 3;
    for (unsigned i = 0; i < 30; i++) {
        struct item item;

        random_item(&item, 10);
        item.size = MIN(item.size, 60);
        ref_put(&puts, &item);
    }
    cr_assert_eq(tree_merge(&tree, &changes, NULL, &tree, &stats), 0);
    cr_assert_eq(store_get(store, &tree.root, STORE_NODE, &node), 0);
    size = node->size;
    copy = malloc(size);
    for (unsigned i = 0; i < 4000; i++) {
        struct store_put put = {.data = copy,
                                .size = size,
                                .kind = STORE_NODE,
                                .format = TREE_NODE_FORMAT};
        struct tree bad = {.store = store};
        struct tree_cursor cursor;
        struct tree_key start = {0, 0, 0};
        struct tree_value value;
        struct tree_key key = random_key(10);
        unsigned int n = 0;

        memcpy(copy, node->data, size);
        copy[i < size && i < 300 ? i : rnd() % size] ^= 1 << rnd() % 8;
        cr_assert_eq(store_put(store, &put, NULL), 0);
        bad.root = put.id;
        if (!tree_get(&bad, &key, &value)) {
            tree_value_release(&value);
        }
        tree_cursor_init(&cursor, &bad);
        if (!tree_cursor_seek(&cursor, &start)) {
            while (tree_cursor_valid(&cursor) && n++ < 10000) {
                if (tree_cursor_next(&cursor)) {
                    break;
                }
            }
        }
        tree_cursor_destroy(&cursor);
    }
    free(copy);
    free(puts.item);
    object_unref(node);
}

Test(value, siphash_vectors)
{
    /* From the authors' reference: key 00..0f, input 00, 00 01, ... */
    static const uint64_t expected[] = {
        UINT64_C(0x726fdb47dd0e0e31), UINT64_C(0x74f839c593dc67fd),
        UINT64_C(0x0d6c8009d9a94f5a), UINT64_C(0x85676696d7fb7e2d),
        UINT64_C(0xcf2794e0277187b7), UINT64_C(0x18765564cd99a68d),
        UINT64_C(0xcbc9466e58fee3ce), UINT64_C(0xab0200f58b01d137),
        UINT64_C(0x93f5f5799a932462), UINT64_C(0x9e0082df0ba9e4b0),
    };
    uint8_t bytes[16];
    uint64_t key[2];

    for (unsigned i = 0; i < 16; i++) {
        bytes[i] = i;
    }
    memcpy(key, bytes, sizeof key);
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        cr_assert_eq(siphash24(key, bytes, i), expected[i]);
    }
}

Test(value, varints_are_canonical)
{
    static const uint64_t values[] = {
        0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX - 1, UINT64_MAX};
    static const uint8_t bad[][11] = {
        {0x80, 0x00},
        {0xff, 0x00},
        {0x80},
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02},
        {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01},
    };
    static const size_t bad_size[] = {2, 2, 1, 10, 11};

    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        uint8_t buf[VARINT_MAX];
        uint8_t *end = varint_put(buf, values[i]);
        uint64_t x;

        cr_assert_eq(varint_get(buf, end, &x), end);
        cr_assert_eq(x, values[i]);
        for (uint8_t *cut = buf; cut < end; cut++) {
            cr_assert_null(varint_get(buf, cut, &x));
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t x;

        cr_assert_null(varint_get(bad[i], bad[i] + bad_size[i], &x));
    }
}

Test(value, attributes_are_canonical)
{
    seed = 4;
    for (unsigned i = 0; i < 40000; i++) {
        struct tree_attr a = {0}, b;
        uint8_t data[TREE_ATTR_MAX], again[TREE_ATTR_MAX];
        size_t size;

        a.gen = rnd() % 2 ? rnd() : 0;
        a.mode = rnd();
        a.nlink = rnd() % 3;
        a.uid = rnd() % 2 * 1000;
        a.gid = UINT32_MAX;
        a.size = rnd() % 2 ? UINT64_C(1) << rnd() % 61 : 0;
        a.stored = rnd();
        a.btime = (int64_t) ((uint64_t) rnd() << 32 | rnd());
        a.mtime = a.btime + (int64_t) rnd() - 1000000;
        a.ctime = rnd() % 2 ? a.btime : INT64_MIN;
        a.atime = rnd() % 2 ? INT64_MAX : -1;
        a.data_version = rnd();
        a.parent = rnd();
        a.cookie = rnd();
        size = tree_attr_encode(&a, data);
        cr_assert_eq(tree_attr_decode(data, size, &b), 0);
        cr_assert_eq(tree_attr_encode(&b, again), size);
        cr_assert(!memcmp(data, again, size));
        cr_assert_eq(a.atime, b.atime);
        cr_assert_eq(a.ctime, b.ctime);
        cr_assert_eq(a.size, b.size);

        /* What decodes is canonical, whatever it is. */
        data[rnd() % size] ^= 1 << rnd() % 8;
        if (!tree_attr_decode(data, size, &b)) {
            cr_assert_eq(tree_attr_encode(&b, again), size);
            cr_assert(!memcmp(data, again, size));
        }
    }
}

Test(value, unknown_attribute_fields_are_kept)
{
    struct tree_attr a = {.mode = 0100644, .nlink = 1};
    uint8_t data[TREE_ATTR_MAX], out[TREE_ATTR_MAX], *p;
    uint8_t old[TREE_ATTR_MAX];
    size_t n;

    n = tree_attr_encode(&a, old);
    data[0] = 1;
    p = varint_put(data + 1, (UINT64_C(1) << TREE_A_MODE) |
                                 (UINT64_C(1) << TREE_A_NLINK) |
                                 (UINT64_C(1) << 40));
    p = varint_put(p, 0100644);
    p = varint_put(p, 1);
    p = varint_put(p, 123456);
    cr_assert_gt((size_t) (p - data), n);
    cr_assert_eq(tree_attr_decode(data, p - data, &a), 0);
    a.nlink = 2;
    n = tree_attr_encode(&a, out);
    cr_assert_eq(n, (size_t) (p - data));
    cr_assert_eq(tree_attr_decode(out, n, &a), 0);
    cr_assert_eq(a.nlink, 2);
    cr_assert_eq(a.unknown_mask, UINT64_C(1) << 40);
}
