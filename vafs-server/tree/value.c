/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Encoding and decoding of values, see value.h. */

#include "vafs-server/tree/value.h"

#include <errno.h>

#include "vafs-server/tree/key.h"

uint8_t *
varint_put(uint8_t *p, uint64_t x)
{
    while (x >= 0x80) {
        *p++ = x | 0x80;
        x >>= 7;
    }
    *p++ = x;
    return p;
}

const uint8_t *
varint_get(const uint8_t *p, const uint8_t *end, uint64_t *ret)
{
    uint64_t x = 0;

    for (unsigned int shift = 0; p < end && shift < 64; shift += 7) {
        uint8_t b = *p++;

        if (shift == 63 && b > 1) {
            return NULL;
        }
        x |= (uint64_t) (b & 0x7f) << shift;
        if (!(b & 0x80)) {
            if (!b && shift) {
                return NULL; /* Not the shortest form. */
            }
            *ret = x;
            return p;
        }
    }
    return NULL;
}

static uint64_t
zigzag(int64_t x)
{
    return (uint64_t) x << 1 ^ (uint64_t) (x >> 63);
}

static int64_t
unzigzag(uint64_t x)
{
    return (int64_t) (x >> 1) ^ -(int64_t) (x & 1);
}

/* Attributes. */

static void
attr_to_fields(const struct tree_attr *a, uint64_t f[TREE_A_N_KNOWN])
{
    f[TREE_A_GEN] = a->gen;
    f[TREE_A_MODE] = a->mode;
    f[TREE_A_NLINK] = a->nlink;
    f[TREE_A_UID] = a->uid;
    f[TREE_A_GID] = a->gid;
    f[TREE_A_RDEV] = a->rdev;
    f[TREE_A_SIZE] = a->size;
    f[TREE_A_STORED] = a->stored;
    f[TREE_A_BTIME] = zigzag(a->btime);
    f[TREE_A_MTIME] = zigzag((uint64_t) a->mtime - (uint64_t) a->btime);
    f[TREE_A_CTIME] = zigzag((uint64_t) a->ctime - (uint64_t) a->btime);
    f[TREE_A_ATIME] = zigzag((uint64_t) a->atime - (uint64_t) a->btime);
    f[TREE_A_DATA_VERSION] = a->data_version;
    f[TREE_A_CHANGED] = a->changed;
    f[TREE_A_PARENT] = a->parent;
    f[TREE_A_COOKIE] = a->cookie;
    f[TREE_A_LINEAGE_LO] = a->lineage[0];
    f[TREE_A_LINEAGE_HI] = a->lineage[1];
}

size_t
tree_attr_encode(const struct tree_attr *a, uint8_t out[TREE_ATTR_MAX])
{
    uint64_t f[TREE_A_N_KNOWN], mask = a->unknown_mask;
    uint8_t *p = out;

    attr_to_fields(a, f);
    for (unsigned int i = 0; i < TREE_A_N_KNOWN; i++) {
        mask |= (uint64_t) (f[i] != 0) << i;
    }
    *p++ = 1;
    p = varint_put(p, mask);
    for (unsigned int i = 0; i < TREE_A_N_KNOWN; i++) {
        if (f[i]) {
            p = varint_put(p, f[i]);
        }
    }
    memcpy(p, a->unknown, a->unknown_size);
    return p + a->unknown_size - out;
}

int
tree_attr_decode(const void *data, size_t size, struct tree_attr *a)
{
    const uint8_t *p = data, *end = p + size, *unknown;
    uint64_t f[TREE_A_N_KNOWN] = {0}, mask, x;

    if (!size || *p++ != 1 || !(p = varint_get(p, end, &mask))) {
        return EBADMSG;
    }
    for (unsigned int i = 0; i < TREE_A_N_KNOWN; i++) {
        if (mask >> i & 1) {
            p = varint_get(p, end, &f[i]);
            if (!p || !f[i]) {
                return EBADMSG;
            }
        }
    }
    unknown = p;
    for (unsigned int i = TREE_A_N_KNOWN; i < 64; i++) {
        if (mask >> i & 1) {
            p = varint_get(p, end, &x);
            if (!p || !x) {
                return EBADMSG;
            }
        }
    }
    if (p != end || p - unknown > TREE_ATTR_UNKNOWN_MAX ||
        (f[TREE_A_GEN] | f[TREE_A_MODE] | f[TREE_A_NLINK] | f[TREE_A_UID] |
         f[TREE_A_GID]) > UINT32_MAX ||
        f[TREE_A_PARENT] > TREE_INO_MAX) {
        return EBADMSG;
    }
    a->gen = f[TREE_A_GEN];
    a->mode = f[TREE_A_MODE];
    a->nlink = f[TREE_A_NLINK];
    a->uid = f[TREE_A_UID];
    a->gid = f[TREE_A_GID];
    a->rdev = f[TREE_A_RDEV];
    a->size = f[TREE_A_SIZE];
    a->stored = f[TREE_A_STORED];
    a->btime = unzigzag(f[TREE_A_BTIME]);
    a->mtime = (uint64_t) a->btime + unzigzag(f[TREE_A_MTIME]);
    a->ctime = (uint64_t) a->btime + unzigzag(f[TREE_A_CTIME]);
    a->atime = (uint64_t) a->btime + unzigzag(f[TREE_A_ATIME]);
    a->data_version = f[TREE_A_DATA_VERSION];
    a->changed = f[TREE_A_CHANGED];
    a->parent = f[TREE_A_PARENT];
    a->cookie = f[TREE_A_COOKIE];
    a->lineage[0] = f[TREE_A_LINEAGE_LO];
    a->lineage[1] = f[TREE_A_LINEAGE_HI];
    a->unknown_mask = mask >> TREE_A_N_KNOWN << TREE_A_N_KNOWN;
    a->unknown_size = p - unknown;
    memcpy(a->unknown, unknown, a->unknown_size);
    return 0;
}

/* Entries. */

size_t
tree_entry_encode(const struct tree_entry *e, uint8_t out[TREE_ENTRY_MAX])
{
    uint8_t *p = out;

    *p++ = 1;
    *p++ = e->type;
    p = varint_put(p, e->ino);
    p = varint_put(p, e->since);
    memcpy(p, e->name, e->name_len);
    return p + e->name_len - out;
}

int
tree_entry_decode(const void *data, size_t size, struct tree_entry *e)
{
    const uint8_t *p = data, *end = p + size;

    if (size < 2 || p[0] != 1) {
        return EBADMSG;
    }
    e->type = p[1];
    p = varint_get(p + 2, end, &e->ino);
    p = p ? varint_get(p, end, &e->since) : NULL;
    if (!p || p == end || end - p > TREE_NAME_MAX || !e->ino ||
        e->ino > TREE_INO_MAX) {
        return EBADMSG;
    }
    e->name = (const char *) p;
    e->name_len = end - p;
    return memchr(p, '/', end - p) || memchr(p, '\0', end - p) ? EBADMSG : 0;
}

/* Content. */

size_t
tree_content_encode(const struct tree_content *c, uint8_t *out)
{
    if (c->inlined) {
        out[0] = 0;
        memcpy(out + 1, c->data, c->size);
        return 1 + c->size;
    }
    out[0] = 1;
    memcpy(out + 1, &c->id, sizeof c->id);
    return varint_put(out + 33, c->size) - out;
}

int
tree_content_decode(const void *data, size_t size, struct tree_content *c)
{
    const uint8_t *p = data;
    uint64_t n;

    if (!size) {
        return EBADMSG;
    }
    if (p[0] == 0) {
        c->inlined = true;
        c->data = p + 1;
        c->size = size - 1;
        return 0;
    }
    if (p[0] != 1 || size < 34 ||
        varint_get(p + 33, p + size, &n) != p + size || n > STORE_OBJECT_MAX) {
        return EBADMSG;
    }
    c->inlined = false;
    c->data = NULL;
    memcpy(&c->id, p + 1, sizeof c->id);
    c->size = n;
    return 0;
}

size_t
tree_xattr_encode(const char *name, size_t name_len,
                  const struct tree_content *c, uint8_t *out)
{
    uint8_t *p = varint_put(out, name_len);

    memcpy(p, name, name_len);
    p += name_len;
    return p + tree_content_encode(c, p) - out;
}

int
tree_xattr_decode(const void *data, size_t size, const char **name,
                  size_t *name_len, struct tree_content *c)
{
    const uint8_t *p = data, *end = p + size;
    uint64_t n;

    p = varint_get(p, end, &n);
    if (!p || !n || n > TREE_NAME_MAX || n > (size_t) (end - p)) {
        return EBADMSG;
    }
    *name = (const char *) p;
    *name_len = n;
    return tree_content_decode(p + n, end - p - n, c);
}

/* Catalogue. */

size_t
tree_branch_encode(const struct tree_branch *b, uint8_t *out)
{
    uint8_t *p = out;

    *p++ = 1;
    p = varint_put(p, b->flags);
    p = varint_put(p, b->root_ino);
    p = varint_put(p, b->sequence);
    memcpy(p, &b->head, sizeof b->head);
    p += sizeof b->head;
    memcpy(p, b->name, b->name_len);
    return p + b->name_len - out;
}

int
tree_branch_decode(const void *data, size_t size, struct tree_branch *b)
{
    const uint8_t *p = data, *end = p + size;

    if (!size || *p++ != 1) {
        return EBADMSG;
    }
    p = varint_get(p, end, &b->flags);
    p = p ? varint_get(p, end, &b->root_ino) : NULL;
    p = p ? varint_get(p, end, &b->sequence) : NULL;
    if (!p || end - p < 33 || end - p > 32 + TREE_NAME_MAX) {
        return EBADMSG;
    }
    memcpy(&b->head, p, sizeof b->head);
    b->name = (const char *) p + sizeof b->head;
    b->name_len = end - p - sizeof b->head;
    return 0;
}

size_t
tree_version_entry_encode(const struct tree_version_entry *v, uint8_t *out)
{
    uint8_t *p = out;

    *p++ = 1;
    p = varint_put(p, v->time);
    p = varint_put(p, v->cause);
    p = varint_put(p, v->n_inodes);
    p = varint_put(p, v->stored);
    memcpy(p, &v->id, sizeof v->id);
    return p + sizeof v->id - out;
}

int
tree_version_entry_decode(const void *data, size_t size,
                          struct tree_version_entry *v)
{
    const uint8_t *p = data, *end = p + size;

    if (!size || *p++ != 1) {
        return EBADMSG;
    }
    p = varint_get(p, end, &v->time);
    p = p ? varint_get(p, end, &v->cause) : NULL;
    p = p ? varint_get(p, end, &v->n_inodes) : NULL;
    p = p ? varint_get(p, end, &v->stored) : NULL;
    if (!p || end - p != sizeof v->id) {
        return EBADMSG;
    }
    memcpy(&v->id, p, sizeof v->id);
    return 0;
}

/* Version objects. */

int
tree_version_put(struct store *store, const struct tree_version *v,
                 struct store_needs *needs, struct store_id *ret)
{
    const uint64_t field[11] = {
        v->branch,     v->sequence,   v->time,     v->cause,
        v->n_inodes,   v->stored,     v->root_ino, v->max_ino,
        v->lineage[0], v->lineage[1], 0,
    };
    uint8_t data[TREE_VERSION_SIZE];
    struct store_put put = {
        .data = data,
        .size = sizeof data,
        .kind = STORE_VERSION,
        .format = TREE_VERSION_FORMAT,
    };
    int error;

    memcpy(data, &v->root, 32);
    memcpy(data + 32, &v->parent, 32);
    for (unsigned int i = 0; i < ARRAY_SIZE(field); i++) {
        put_le64(data + 64 + 8 * i, field[i]);
    }
    error = store_put(store, &put, needs);
    if (!error) {
        *ret = put.id;
    }
    return error;
}

int
tree_version_get(struct store *store, const struct store_id *id,
                 struct tree_version *v)
{
    struct object *object;
    uint64_t field[11];
    int error = store_get(store, id, STORE_VERSION, &object);

    if (error) {
        return error;
    }
    if (object->size != TREE_VERSION_SIZE ||
        object->format != TREE_VERSION_FORMAT) {
        object_unref(object);
        return EBADMSG;
    }
    memcpy(&v->root, object->data, 32);
    memcpy(&v->parent, object->data + 32, 32);
    for (unsigned int i = 0; i < ARRAY_SIZE(field); i++) {
        field[i] = get_le64(object->data + 64 + 8 * i);
    }
    object_unref(object);
    v->branch = field[0];
    v->sequence = field[1];
    v->time = field[2];
    v->cause = field[3];
    v->n_inodes = field[4];
    v->stored = field[5];
    v->root_ino = field[6];
    v->max_ino = field[7];
    v->lineage[0] = field[8];
    v->lineage[1] = field[9];
    return field[10] ? EBADMSG : 0;
}
