/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Keys of a tree: (inode, kind, subkey), ordered as bytes.
 *
 * On disk a key is 7 bytes big-endian, inode (48 bits) and kind (8 bits), and
 * a subkey of 0, 8 or 16 bytes, also big-endian; a kind always has the same
 * length of subkey.  In memory it is three integers, which compare in the same
 * order. */

#ifndef VAFS_TREE_KEY_H
#define VAFS_TREE_KEY_H 1

#include <stdbool.h>
#include <stdint.h>

#include "lib/util.h"

/* Kinds.  6-15 and 19-31 are free for this program, 32-127 reserved (default
 * ACL, digest for fs-verity, project quota, case folding, whiteout, ...),
 * 128-255 private. */
enum tree_kind {
    TREE_ATTR = 0,     /* Attributes of the inode. */
    TREE_RECORD = 1,   /* subkey: index.  A piece of the content. */
    TREE_LINK = 2,     /* subkey: directory, cookie.  A further name. */
    TREE_XATTR = 3,    /* subkey: hash of the name. */
    TREE_ENTRY = 4,    /* subkey: cookie.  An entry of a directory. */
    TREE_ORPHAN = 5,   /* Of inode 0, subkey: inode.  Open without a name. */
    TREE_BRANCH = 16,  /* Catalogue, "inode" = branch. */
    TREE_VERSION = 17, /* Catalogue, "inode" = branch, subkey: sequence. */
    TREE_COUNTER = 18, /* Catalogue, of inode 0, subkey: which. */
};

struct tree_key {
    uint64_t hi;  /* inode << 8 | kind */
    uint64_t mid; /* First 8 bytes of the subkey, or 0. */
    uint64_t lo;  /* Last 8 bytes of the subkey, or 0. */
};

#define TREE_INO_MAX ((UINT64_C(1) << 48) - 1)

/* Bytes of a key on disk: at most this, at least TREE_KEY_MIN. */
#define TREE_KEY_MIN 7
#define TREE_KEY_MAX 23

static inline struct tree_key
tree_key(uint64_t ino, enum tree_kind kind, uint64_t mid, uint64_t lo)
{
    return (struct tree_key){ino << 8 | kind, mid, lo};
}

static inline uint64_t
tree_key_ino(const struct tree_key *key)
{
    return key->hi >> 8;
}

static inline uint8_t
tree_key_kind(const struct tree_key *key)
{
    return key->hi & 0xff;
}

static inline int
tree_key_cmp(const struct tree_key *a, const struct tree_key *b)
{
    if (a->hi != b->hi) {
        return a->hi < b->hi ? -1 : 1;
    }
    if (a->mid != b->mid) {
        return a->mid < b->mid ? -1 : 1;
    }
    return a->lo < b->lo ? -1 : a->lo > b->lo;
}

static inline bool
tree_key_less(const struct tree_key *a, const struct tree_key *b)
{
    return tree_key_cmp(a, b) < 0;
}

static inline bool
tree_key_equal(const struct tree_key *a, const struct tree_key *b)
{
    return a->hi == b->hi && a->mid == b->mid && a->lo == b->lo;
}

/* The least key greater than 'key'. */
static inline struct tree_key
tree_key_next(struct tree_key key)
{
    if (!++key.lo && !++key.mid) {
        key.hi++;
    }
    return key;
}

/* Greater than every key on disk. */
#define TREE_KEY_END ((struct tree_key){UINT64_MAX, UINT64_MAX, UINT64_MAX})

/* Length of the subkey of 'kind' in bytes. */
static inline unsigned int
tree_kind_subkey(uint8_t kind)
{
    switch (kind) {
    case TREE_ATTR:
    case TREE_BRANCH:
        return 0;
    case TREE_LINK:
        return 16;
    default:
        return 8;
    }
}

/* Writes 'key' to 'out'; returns the number of bytes. */
static inline unsigned int
tree_key_encode(const struct tree_key *key, uint8_t out[TREE_KEY_MAX])
{
    unsigned int sub = tree_kind_subkey(tree_key_kind(key));
    uint8_t hi[8];

    put_be64(hi, key->hi);
    memcpy(out, hi + 1, 7);
    if (sub) {
        put_be64(out + 7, key->mid);
        if (sub > 8) {
            put_be64(out + 15, key->lo);
        }
    }
    return 7 + sub;
}

/* Reads the 'size' bytes at 'in'; false if no key has that size. */
static inline bool
tree_key_decode(const uint8_t *in, size_t size, struct tree_key *key)
{
    if (size != 7 && size != 15 && size != 23) {
        return false;
    }
    key->hi = (uint64_t) get_be32(in) << 24 | in[4] << 16 | in[5] << 8 | in[6];
    key->mid = size >= 15 ? get_be64(in + 7) : 0;
    key->lo = size == 23 ? get_be64(in + 15) : 0;
    return size == 7 + tree_kind_subkey(key->hi & 0xff);
}

#endif /* vafs-server/tree/key.h */
