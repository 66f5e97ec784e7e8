/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of the store share; see store-helper.h. */

#include "tests/unit/store-helper.h"

#include <errno.h>
#include <stdlib.h>

void
store_helper_options(struct store_options *o, struct memfs *fs)
{
    store_options_init(o, 1 << 20);
    o->segment_size = 65536;
    o->journal_chunk = 65536;
    o->journal_max = 4 * 65536;
    o->reserve = 16384;
    o->index_memory = 4 * 32768;
    o->files = memfs_layer(fs);
}

static uint32_t
store_helper_random__(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

uint8_t *
store_helper_content(unsigned n, size_t *ret_size, uint8_t *ret_kind)
{
    static const size_t sizes[] = {0, 1, 300, 4000, 8192, 16384, 20000, 40000};
    unsigned family = n / 8;
    size_t size = sizes[family % 8];
    uint32_t state = family + 1;
    uint8_t *p = malloc(size + 8);

    if (!p) {
        abort();
    }
    for (size_t i = 0; i < size; i++) {
        uint32_t r = store_helper_random__(&state);

        /* Every third family cannot be compressed. */
        p[i] = family % 3 ? "abcdefgh"[r % 8] : (uint8_t) r;
    }
    /* What tells the members apart. */
    if (size >= 300) {
        memcpy(p + size / 2, &n, sizeof n);
    } else {
        memcpy(p + size, &n, sizeof n);
        size += sizeof n;
    }
    *ret_size = size;
    *ret_kind = family & 1 ? STORE_DATA : STORE_NODE;
    return p;
}

int
store_helper_put(struct store *store, unsigned n, struct store_needs *needs,
                 struct store_id *ret_id)
{
    struct store_put put;
    struct store_id base;
    uint8_t *content;
    int error;

    memset(&put, 0, sizeof put);
    content = store_helper_content(n, &put.size, &put.kind);
    put.data = content;
    put.format = 1;
    if (n % 8) {
        uint8_t *left, kind;
        size_t size;

        left = store_helper_content(n - 1, &size, &kind);
        put.base = store_hash(kind, 1, left, size, &base) ? NULL : &base;
        free(left);
    }
    error = store_put(store, &put, needs);
    free(content);
    if (!error && ret_id) {
        *ret_id = put.id;
    }
    return error;
}

int
store_helper_check(struct store *store, unsigned n, const struct store_id *id)
{
    struct object *object;
    uint8_t *content, kind;
    size_t size;
    int error;

    error = store_get(store, id, 0, &object);
    if (error) {
        return error;
    }
    content = store_helper_content(n, &size, &kind);
    if (object->size != size || memcmp(object->data, content, size) ||
        object->kind != kind || object->format != 1) {
        error = EILSEQ;
    }
    if (!error && size) {
        size_t offset = size / 3, got = 0;
        uint8_t part[5000];

        error =
            store_get_range(store, id, kind, offset, part, sizeof part, &got);
        if (!error && (got != (size - offset < sizeof part ? size - offset
                                                           : sizeof part) ||
                       memcmp(part, content + offset, got))) {
            error = EILSEQ;
        }
    }
    object_unref(object);
    free(content);
    return error;
}

static void
store_helper_error__(void *aux, const struct store_error *error)
{
    if (*(bool *) aux) {
        fprintf(stderr, "segment %llx at %u: %s\n",
                (unsigned long long) error->pack, error->offset, error->what);
    }
}

int
store_helper_verify(struct store *store, bool loud)
{
    return store_verify(store, NULL, store_helper_error__, &loud);
}
