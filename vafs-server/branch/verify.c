/* SPDX-License-Identifier: GPL-2.0-or-later */
/* branch_verify(): the check of all trees.
 *
 * Two passes over each version.  The first goes through its nodes, those that
 * an earlier version had being skipped, and looks at their form and at the
 * records that they name.  The second, on the newest version and on up to
 * OLD_MAX older ones, spread evenly, reads all keys in order and checks what
 * they mean together; it remembers some 60 bytes for each inode. */

#include "vafs-server/branch/branch-private.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define OLD_MAX 8
#define ERRORS_SHOWN 1000

/* What is known of an inode. */
struct known {
    uint64_t ino;
    uint64_t parent, cookie;
    uint64_t size, stored;        /* As the attributes say. */
    uint64_t n_entries, n_stored; /* As counted. */
    uint32_t nlink, n_names, n_links, n_subdirs;
    uint16_t type, entry_type; /* S_IFMT bits; 0: not seen. */
    bool orphan;
    uint8_t mark; /* Of the walk up: 0 new, 1 on the way, 2 leads to root. */
};

struct verify {
    struct catalogue *cat;
    struct branch *branch;
    bool read_data;
    void (*report)(const char *message, void *aux);
    void (*progress)(const struct branch_verify_stats *, void *aux);
    void *aux;
    struct branch_verify_stats *stats;

    /* Ids of nodes and records that were looked at: a hash table. */
    struct store_id *seen;
    size_t n_seen, max_seen;

    /* The second pass. */
    uint64_t sequence;
    struct tree tree;
    struct known *known; /* Hash table by inode number. */
    size_t n_known, max_known;
};

static void PRINTF_FORMAT(2, 3) wrong(struct verify *v, const char *fmt, ...)
{
    char text[512];
    int n;
    va_list args;

    if (v->stats->n_errors++ >= ERRORS_SHOWN) {
        return;
    }
    n = snprintf(text, sizeof text, "branch %s version %" PRIu64 ": ",
                 v->branch->id ? v->branch->name : "(catalogue)", v->sequence);
    va_start(args, fmt);
    vsnprintf(text + n, sizeof text - n, fmt, args);
    va_end(args);
    v->report(text, v->aux);
}

static void
tick(struct verify *v)
{
    uint64_t n = v->stats->n_nodes + v->stats->n_records + v->stats->n_inodes;

    if (v->progress && !(n & 4095)) {
        v->progress(v->stats, v->aux);
    }
}

/* Adds 'id' to those seen: 0 it is new, EEXIST, ENOMEM. */
static int
see(struct verify *v, const struct store_id *id)
{
    size_t i;

    if (2 * v->n_seen >= v->max_seen) {
        size_t max = v->max_seen ? 2 * v->max_seen : 4096;
        struct store_id *new = calloc(max, sizeof *new);

        if (!new) {
            return ENOMEM;
        }
        for (size_t j = 0; j < v->max_seen; j++) {
            if (!store_id_is_zero(&v->seen[j])) {
                i = get_le64(v->seen[j].bytes) & (max - 1);
                while (!store_id_is_zero(&new[i])) {
                    i = (i + 1) & (max - 1);
                }
                new[i] = v->seen[j];
            }
        }
        free(v->seen);
        v->seen = new;
        v->max_seen = max;
    }
    i = get_le64(id->bytes) & (v->max_seen - 1);
    while (!store_id_is_zero(&v->seen[i])) {
        if (store_id_equal(&v->seen[i], id)) {
            return EEXIST;
        }
        i = (i + 1) & (v->max_seen - 1);
    }
    v->seen[i] = *id;
    v->n_seen++;
    return 0;
}

static struct known *
get_known(struct verify *v, uint64_t ino)
{
    size_t i;

    if (2 * v->n_known >= v->max_known) {
        size_t max = v->max_known ? 2 * v->max_known : 1024;
        struct known *new = calloc(max, sizeof *new);

        if (!new) {
            return NULL;
        }
        for (size_t j = 0; j < v->max_known; j++) {
            if (v->known[j].ino) {
                i = v->known[j].ino * UINT64_C(0x9e3779b97f4a7c15) >> 20 &
                    (max - 1);
                while (new[i].ino) {
                    i = (i + 1) & (max - 1);
                }
                new[i] = v->known[j];
            }
        }
        free(v->known);
        v->known = new;
        v->max_known = max;
    }
    i = ino * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (v->max_known - 1);
    while (v->known[i].ino && v->known[i].ino != ino) {
        i = (i + 1) & (v->max_known - 1);
    }
    if (!v->known[i].ino) {
        v->known[i].ino = ino;
        v->n_known++;
    }
    return &v->known[i];
}

/* As get_known(), but NULL if nothing is known of it. */
static struct known *
find_known(struct verify *v, uint64_t ino)
{
    size_t i;

    if (!v->max_known || !ino) {
        return NULL;
    }
    i = ino * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (v->max_known - 1);
    while (v->known[i].ino && v->known[i].ino != ino) {
        i = (i + 1) & (v->max_known - 1);
    }
    return v->known[i].ino ? &v->known[i] : NULL;
}

/* First pass. */

static int
check_object(struct verify *v, uint64_t ino, const struct tree_content *c)
{
    struct object *object;
    size_t size = c->size;
    int error;

    if (c->inlined) {
        return 0;
    }
    error = see(v, &c->id);
    if (error) {
        return error == EEXIST ? 0 : error;
    }
    v->stats->n_records++;
    tick(v);
    if (v->read_data) {
        error = store_get(v->cat->store, &c->id, STORE_DATA, &object);
        if (!error) {
            size = object->size;
            object_unref(object);
        }
    } else {
        error = store_has(v->cat->store, &c->id, NULL);
    }
    if (error == ENOENT || error == EBADMSG || error == EIO) {
        char hex[STORE_ID_HEX_SIZE];

        store_id_to_hex(&c->id, hex);
        wrong(v, "inode %" PRIu64 ": record %.16s is %s", ino, hex,
              error == ENOENT ? "not in the store" : "damaged");
        return 0;
    }
    if (!error && size != c->size) {
        wrong(v,
              "inode %" PRIu64 ": a record's size is not what the tree says",
              ino);
    }
    return error;
}

static int
check_item(struct verify *v, const struct tree_key *key, const uint8_t *data,
           size_t size)
{
    uint64_t ino = tree_key_ino(key);
    struct tree_content content;
    const char *name;
    size_t len;

    if (tree_key_kind(key) == TREE_RECORD) {
        if (tree_content_decode(data, size, &content)) {
            wrong(v, "inode %" PRIu64 ": malformed record reference", ino);
            return 0;
        }
        return check_object(v, ino, &content);
    }
    if (tree_key_kind(key) == TREE_XATTR) {
        if (tree_xattr_decode(data, size, &name, &len, &content)) {
            wrong(v, "inode %" PRIu64 ": malformed extended attribute", ino);
            return 0;
        }
        return check_object(v, ino, &content);
    }
    return 0;
}

static int
check_nodes(struct verify *v, const struct store_id *id, int level)
{
    struct object *node;
    const char *why;
    int error = see(v, id);

    if (error) {
        return error == EEXIST ? 0 : error;
    }
    error = tree_node_get(v->cat->store, id, level, &node);
    if (error == EBADMSG || error == EIO) {
        char hex[STORE_ID_HEX_SIZE];

        store_id_to_hex(id, hex);
        wrong(v, "node %.16s is damaged or missing", hex);
        return 0;
    }
    if (error) {
        return error;
    }
    v->stats->n_nodes++;
    tick(v);
    why = tree_node_check(node);
    if (why) {
        wrong(v, "%s", why);
    }
    for (unsigned int i = 0; !why && !error && i < tree_node_n(node); i++) {
        struct tree_key key;
        const uint8_t *data;
        size_t size;

        error = tree_node_cell(node, i, &key, &data, &size);
        if (!error && tree_node_level(node)) {
            struct store_id child;

            memcpy(&child, data, sizeof child);
            error = check_nodes(v, &child, tree_node_level(node) - 1);
        } else if (!error) {
            error = check_item(v, &key, data, size);
        }
    }
    object_unref(node);
    return error;
}

/* Second pass. */

/* The inode that the entry at (dir, cookie) leads to, 0 if there is none. */
static uint64_t
entry_target(struct verify *v, uint64_t dir, uint64_t cookie)
{
    struct tree_key key = tree_key(dir, TREE_ENTRY, cookie, 0);
    struct tree_value value;
    struct tree_entry entry;
    uint64_t ino = 0;

    if (!tree_get(&v->tree, &key, &value)) {
        if (!tree_entry_decode(value.data, value.size, &entry)) {
            ino = entry.ino;
        }
        tree_value_release(&value);
    }
    return ino;
}

static int
know_attr(struct verify *v, uint64_t ino, const uint8_t *data, size_t size)
{
    struct tree_attr attr;
    uint8_t again[TREE_ATTR_MAX];
    struct known *k = get_known(v, ino);

    if (!k) {
        return ENOMEM;
    }
    v->stats->n_inodes++;
    tick(v);
    if (tree_attr_decode(data, size, &attr)) {
        wrong(v, "inode %" PRIu64 ": malformed attributes", ino);
        return 0;
    }
    if (tree_attr_encode(&attr, again) != size || memcmp(again, data, size)) {
        wrong(v, "inode %" PRIu64 ": attributes are not in canonical form",
              ino);
    }
    k->type = attr.mode & S_IFMT;
    k->nlink = attr.nlink;
    k->parent = attr.parent;
    k->cookie = attr.cookie;
    k->size = attr.size;
    k->stored = attr.stored;
    if (!k->type) {
        wrong(v, "inode %" PRIu64 " has no type", ino);
    }
    return 0;
}

static int
know_entry(struct verify *v, const struct tree_key *key, const uint8_t *data,
           size_t size)
{
    uint64_t dir = tree_key_ino(key);
    struct tree_entry entry;
    struct known *k;

    v->stats->n_entries++;
    if (tree_entry_decode(data, size, &entry)) {
        wrong(v, "directory %" PRIu64 ": malformed entry", dir);
        return 0;
    }
    if ((key->mid & ~UINT64_C(255)) !=
        name_hash(v->branch, entry.name, entry.name_len)) {
        wrong(v, "directory %" PRIu64 ": '%.*s' is not where its hash is", dir,
              (int) entry.name_len, entry.name);
    }
    k = get_known(v, dir);
    if (!k) {
        return ENOMEM;
    }
    if (k->type != S_IFDIR) {
        wrong(v, "inode %" PRIu64 " has entries and is no directory", dir);
    }
    k->n_entries++;
    k->n_subdirs += entry.type == DT_DIR;
    k = get_known(v, entry.ino);
    if (!k) {
        return ENOMEM;
    }
    k->n_names++;
    k->entry_type = DTTOIF(entry.type);
    return 0;
}

static int
know_item(struct verify *v, const struct tree_key *key, const uint8_t *data,
          size_t size)
{
    uint64_t ino = tree_key_ino(key);
    unsigned int shift = v->cat->record_shift;
    struct known *k;

    switch (tree_key_kind(key)) {
    case TREE_ATTR:
        return know_attr(v, ino, data, size);
    case TREE_ENTRY:
        return know_entry(v, key, data, size);
    case TREE_ORPHAN:
        k = get_known(v, key->mid);
        if (!k) {
            return ENOMEM;
        }
        k->orphan = true;
        return 0;
    default:
        break;
    }
    k = get_known(v, ino);
    if (!k) {
        return ENOMEM;
    }
    if (!k->type) {
        wrong(v, "inode %" PRIu64 " has keys and no attributes", ino);
    } else if (tree_key_kind(key) == TREE_LINK) {
        k->n_links++;
        if (entry_target(v, key->mid, key->lo) != ino) {
            wrong(v, "inode %" PRIu64 ": a further name does not lead to it",
                  ino);
        }
    } else if (tree_key_kind(key) == TREE_RECORD) {
        uint64_t start = key->mid << shift;

        if (k->type == S_IFDIR || start >= k->size) {
            wrong(v, "inode %" PRIu64 ": record behind the end of the file",
                  ino);
        } else {
            k->n_stored += MIN(UINT64_C(1) << shift, k->size - start);
        }
    }
    return 0;
}

/* Whether the way up from 'k' ends at the root. */
static bool
leads_up(struct verify *v, struct known *k)
{
    struct known *at = k, *next;
    bool good = true;

    while (at->mark == 0 && at->parent != at->ino) {
        at->mark = 1;
        next = find_known(v, at->parent);
        if (!next || next->type != S_IFDIR) {
            good = false;
            break;
        }
        at = next;
    }
    good = good && at->mark != 1;
    if (at->parent == at->ino && at->ino != v->branch->root_ino) {
        good = false;
    }
    for (at = k; at && at->mark == 1; at = find_known(v, at->parent)) {
        at->mark = 2;
    }
    return good;
}

static void
check_known(struct verify *v, struct known *k)
{
    bool root = k->ino == v->branch->root_ino;

    if (!k->type) {
        wrong(v, "an entry leads to inode %" PRIu64 ", which is absent",
              k->ino);
        return;
    }
    if (k->entry_type && k->entry_type != k->type) {
        wrong(v, "inode %" PRIu64 ": its entry shows another type", k->ino);
    }
    if (k->type == S_IFDIR) {
        if (k->n_names != (root || k->orphan ? 0 : 1)) {
            wrong(v, "directory %" PRIu64 " has %" PRIu32 " names", k->ino,
                  k->n_names);
        }
        if (k->nlink != (k->orphan ? 0 : 2 + k->n_subdirs)) {
            wrong(v,
                  "directory %" PRIu64 ": link count %" PRIu32 " with %" PRIu32
                  " subdirectories",
                  k->ino, k->nlink, k->n_subdirs);
        }
        if (k->size != k->n_entries) {
            wrong(v,
                  "directory %" PRIu64 " has %" PRIu64
                  " entries, its attributes say %" PRIu64,
                  k->ino, k->n_entries, k->size);
        }
    } else {
        if (k->nlink != k->n_names) {
            wrong(v,
                  "inode %" PRIu64 ": link count %" PRIu32 ", %" PRIu32
                  " names",
                  k->ino, k->nlink, k->n_names);
        }
        if (k->nlink && k->n_links + 1 != k->nlink) {
            wrong(v,
                  "inode %" PRIu64 ": %" PRIu32 " further names recorded, "
                  "link count %" PRIu32,
                  k->ino, k->n_links, k->nlink);
        }
        if (k->stored != k->n_stored) {
            wrong(v,
                  "inode %" PRIu64 ": %" PRIu64 " bytes stored, its "
                  "attributes say %" PRIu64,
                  k->ino, k->n_stored, k->stored);
        }
    }
    if (k->orphan != !k->nlink) {
        wrong(v, "inode %" PRIu64 ": orphan key and link count disagree",
              k->ino);
    }
    if (root ? k->parent != k->ino
             : k->nlink && entry_target(v, k->parent, k->cookie) != k->ino) {
        wrong(v, "inode %" PRIu64 ": its parent link does not lead to it",
              k->ino);
    } else if (k->nlink && !leads_up(v, k)) {
        wrong(v, "inode %" PRIu64 ": the way up does not end at the root",
              k->ino);
    }
}

static int
check_meaning(struct verify *v, const struct tree_version *version)
{
    static const struct tree_key start = {0, 0, 0};
    struct tree_cursor cursor;
    uint64_t n = 0, stored = 0;
    int error;

    v->tree = (struct tree){v->cat->store, version->root};
    tree_cursor_init(&cursor, &v->tree);
    error = tree_cursor_seek(&cursor, &start);
    while (!error && tree_cursor_valid(&cursor)) {
        error = know_item(v, &cursor.key, cursor.data, cursor.size);
        if (!error) {
            error = tree_cursor_next(&cursor);
        }
    }
    tree_cursor_destroy(&cursor);
    for (size_t i = 0; !error && i < v->max_known; i++) {
        if (v->known[i].ino) {
            struct known *k = &v->known[i];

            n += k->type != 0;
            stored += k->n_stored;
            check_known(v, k);
        }
    }
    if (!error && (n != version->n_inodes || stored != version->stored)) {
        wrong(v,
              "%" PRIu64 " inodes and %" PRIu64 " bytes, the version says "
              "%" PRIu64 " and %" PRIu64,
              n, stored, version->n_inodes, version->stored);
    }
    free(v->known);
    v->known = NULL;
    v->n_known = v->max_known = 0;
    return error == EBADMSG ? 0 : error; /* Reported by the first pass. */
}

/* Versions. */

struct version_list {
    struct branch_version *version;
    size_t n, max;
    bool failed;
};

static bool
add_version(const struct branch_version *version, void *list_)
{
    struct version_list *list = list_;

    if (list->n == list->max) {
        size_t max = 2 * list->max + 64;
        struct branch_version *new = realloc(list->version, max * sizeof *new);

        if (!new) {
            list->failed = true;
            return false;
        }
        list->version = new;
        list->max = max;
    }
    list->version[list->n++] = *version;
    return true;
}

static int
verify_version(struct verify *v, const struct branch_version *bv, bool meaning)
{
    struct tree_version version;
    struct store_id id;
    int error;

    v->sequence = bv->sequence;
    v->stats->n_versions++;
    memcpy(&id, bv->id, sizeof id);
    error = tree_version_get(v->cat->store, &id, &version);
    if (error == ENOENT || error == EBADMSG || error == EIO) {
        wrong(v, "version object is damaged or missing");
        return 0;
    }
    if (error) {
        return error;
    }
    if (version.branch != v->branch->id || version.sequence != bv->sequence) {
        wrong(v, "version object is another's");
    }
    if (!store_id_is_zero(&version.root)) {
        error = check_nodes(v, &version.root, -1);
    }
    return error || !meaning ? error : check_meaning(v, &version);
}

static int
verify_branch(struct verify *v)
{
    struct version_list list = {0};
    size_t step;
    int error;

    error = branch_versions(v->branch, add_version, &list);
    if (!error && list.failed) {
        error = ENOMEM;
    }
    step = MAX(1, list.n / OLD_MAX);
    for (size_t i = 0; i < list.n && !error; i++) {
        error = verify_version(v, &list.version[i],
                               i + 1 == list.n || !(i % step));
    }
    free(list.version);
    return error;
}

int
branch_verify(struct catalogue *cat, bool read_data,
              void (*report)(const char *message, void *aux),
              void (*progress)(const struct branch_verify_stats *, void *aux),
              void *aux, struct branch_verify_stats *ret)
{
    struct verify v = {
        .cat = cat,
        .read_data = read_data,
        .report = report,
        .progress = progress,
        .aux = aux,
        .stats = ret,
    };
    struct branch_version self;
    int error = 0;

    memset(ret, 0, sizeof *ret);
    if (!cat->options.read_only) {
        /* So that what is in the edge is looked at as well. */
        error = catalogue_checkpoint(cat);
    }
    if (!error) {
        v.branch = cat->self;
        error = branch_head(cat->self, &self);
    }
    if (!error) {
        error = verify_version(&v, &self, false);
    }
    LIST_FOR_EACH (v.branch, in_cat, &cat->branches) {
        if (v.branch != cat->self && !error) {
            error = verify_branch(&v);
        }
    }
    free(v.seen);
    return error;
}
