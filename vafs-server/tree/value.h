/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the values of a tree mean, and the version object.
 *
 * All encodings are canonical: one byte string for a value.  Integers are
 * varints (7 bits a byte, low first, top bit "more follows", shortest form) if
 * nothing else is said.
 *
 * ATTR     format byte 1; varint mask; for each bit set in the mask, from the
 *          lowest, one varint.  Bits are enum tree_attr_field; a field that is
 *          absent has its default, and one that has its default is absent.
 *          Fields of unknown bits are kept when a value is changed.
 * RECORD   byte 0, content (up to TREE_INLINE_MAX bytes); or byte 1, 32-byte
 * id of a data object, varint size of it.  Content ends where the file ends;
 * what is missing before that is zeros. LINK     nothing. XATTR    varint size
 * of name, name; then as RECORD.  The key's subkey is the SipHash of the name
 * in its upper 55 bits of 63, as for entries. ENTRY    format byte 1; type
 * (DT_*); varint inode; varint since; name. ORPHAN   nothing. BRANCH   format
 * byte 1; varints: flags 0, root inode, head's sequence; the head's 32-byte
 * id; the name. VERSION  format byte 1; varints: time, cause, inodes, stored
 * size; id. COUNTER  varint. */

#ifndef VAFS_TREE_VALUE_H
#define VAFS_TREE_VALUE_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/util.h"
#include "vafs-server/store/store.h"

/* Content up to this many bytes is kept in the tree. */
#define TREE_INLINE_MAX 512
#define TREE_NAME_MAX 255
/* Extended attributes' values up to this. */
#define TREE_XATTR_INLINE_MAX 1024

/* Varints. */
#define VARINT_MAX 10
uint8_t *varint_put(uint8_t *, uint64_t);
/* NULL if 'p' holds no canonical varint before 'end'. */
const uint8_t *varint_get(const uint8_t *p, const uint8_t *end, uint64_t *);

enum tree_attr_field {
    TREE_A_GEN,
    TREE_A_MODE,
    TREE_A_NLINK,
    TREE_A_UID,
    TREE_A_GID,
    TREE_A_RDEV,
    TREE_A_SIZE,   /* Directories: number of entries. */
    TREE_A_STORED, /* Bytes of content that is no hole. */
    TREE_A_BTIME,  /* ns since 1970, zigzag. */
    TREE_A_MTIME,  /* Difference to btime, zigzag, as the next two. */
    TREE_A_CTIME,
    TREE_A_ATIME,
    TREE_A_DATA_VERSION,
    TREE_A_CHANGED,    /* Sequence of the version that changed it. */
    TREE_A_PARENT,     /* Directory that holds it; root: itself. */
    TREE_A_COOKIE,     /* Of the entry there. */
    TREE_A_LINEAGE_LO, /* Key of the name hash, in the root only. */
    TREE_A_LINEAGE_HI,
    TREE_A_N_KNOWN
};

/* Fields of the future: at most this many and this many bytes are carried. */
#define TREE_ATTR_UNKNOWN_MAX 64

struct tree_attr {
    uint32_t gen;
    uint32_t mode;
    uint32_t nlink;
    uint32_t uid;
    uint32_t gid;
    uint64_t rdev;
    uint64_t size;
    uint64_t stored;
    int64_t btime, mtime, ctime, atime;
    uint64_t data_version;
    uint64_t changed;
    uint64_t parent; /* 0: no name. */
    uint64_t cookie;
    uint64_t lineage[2];

    uint64_t unknown_mask;
    uint8_t unknown_size;
    uint8_t unknown[TREE_ATTR_UNKNOWN_MAX];
};

#define TREE_ATTR_MAX \
    (1 + VARINT_MAX + TREE_A_N_KNOWN * VARINT_MAX + TREE_ATTR_UNKNOWN_MAX)

/* Returns the number of bytes. */
size_t tree_attr_encode(const struct tree_attr *, uint8_t out[TREE_ATTR_MAX]);
int tree_attr_decode(const void *, size_t, struct tree_attr *) NODISCARD;

struct tree_entry {
    uint8_t type; /* DT_*. */
    uint64_t ino;
    uint64_t since;
    const char *name; /* When decoded: points into the value. */
    size_t name_len;
};

#define TREE_ENTRY_MAX (2 + 2 * VARINT_MAX + TREE_NAME_MAX)

size_t
tree_entry_encode(const struct tree_entry *, uint8_t out[TREE_ENTRY_MAX]);
int tree_entry_decode(const void *, size_t, struct tree_entry *) NODISCARD;

/* Content: inline or by reference. */
struct tree_content {
    bool inlined;
    struct store_id id;  /* If not inlined. */
    const uint8_t *data; /* If inlined; points into the value. */
    size_t size;
};

#define TREE_CONTENT_REF_MAX (1 + 32 + VARINT_MAX)
#define TREE_RECORD_MAX (1 + TREE_INLINE_MAX)

size_t tree_content_encode(const struct tree_content *, uint8_t *out);
int tree_content_decode(const void *, size_t, struct tree_content *) NODISCARD;

#define TREE_XATTR_MAX (VARINT_MAX + TREE_NAME_MAX + 1 + TREE_XATTR_INLINE_MAX)

size_t tree_xattr_encode(const char *name, size_t name_len,
                         const struct tree_content *, uint8_t *out);
int tree_xattr_decode(const void *, size_t, const char **name,
                      size_t *name_len, struct tree_content *) NODISCARD;

struct tree_branch {
    uint64_t flags;
    uint64_t root_ino;
    uint64_t sequence;
    struct store_id head;
    const char *name;
    size_t name_len;
};

#define TREE_BRANCH_MAX (1 + 3 * VARINT_MAX + 32 + TREE_NAME_MAX)

size_t tree_branch_encode(const struct tree_branch *, uint8_t *out);
int tree_branch_decode(const void *, size_t, struct tree_branch *) NODISCARD;

struct tree_version_entry {
    uint64_t time;
    uint64_t cause;
    uint64_t n_inodes;
    uint64_t stored;
    struct store_id id;
};

#define TREE_VERSION_ENTRY_MAX (1 + 4 * VARINT_MAX + 32)

size_t
tree_version_entry_encode(const struct tree_version_entry *, uint8_t *out);
int tree_version_entry_decode(const void *, size_t,
                              struct tree_version_entry *) NODISCARD;

/* The version object: kind STORE_VERSION, format 1, 152 bytes, little-endian:
 *
 *     offset  size  field
 *          0    32  root node's id, zero if the tree is empty
 *         32    32  id of the version before, zero if none; may dangle
 *         64     8  branch
 *         72     8  sequence
 *         80     8  time, ns since 1970
 *         88     8  cause
 *         96     8  inodes in the tree
 *        104     8  bytes of content stored, holes not counted
 *        112     8  root inode
 *        120     8  highest inode number
 *        128    16  key of the name hash
 *        144     8  0 */
#define TREE_VERSION_SIZE 152
#define TREE_VERSION_FORMAT 1

struct tree_version {
    struct store_id root;
    struct store_id parent;
    uint64_t branch;
    uint64_t sequence;
    uint64_t time;
    uint64_t cause;
    uint64_t n_inodes;
    uint64_t stored;
    uint64_t root_ino;
    uint64_t max_ino;
    uint64_t lineage[2];
};

int tree_version_put(struct store *, const struct tree_version *,
                     struct store_needs *, struct store_id *ret) NODISCARD;
int tree_version_get(struct store *, const struct store_id *,
                     struct tree_version *ret) NODISCARD;

#endif /* vafs-server/tree/value.h */
