/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The catalogue: making, opening and closing it, its branches and versions.
 *
 * It is branch 0, an ordinary tree without files.  Its keys:
 *
 *     (branch, BRANCH)             name, root, head
 *     (branch, VERSION, sequence)  time, cause, counters, id
 *     (0, COUNTER, 1)              first inode number not leased
 *     (0, COUNTER, 2)              next number of a branch
 *
 * Its version object is the store's root. */

#include "vafs-server/branch/branch-private.h"

#include <stdlib.h>
#include <sys/random.h>

#define MEMORY_DEFAULT (UINT64_C(256) << 20)
#define FIRST_BRANCH 1
#define FIRST_INODE 1

/* Making a store's first versions. */

struct item {
    struct tree_key key;
    uint8_t value[512];
    size_t size;
};

struct items {
    const struct item *item;
    unsigned int n, i;
};

static int
next_item(void *items_, struct tree_key *key, const uint8_t **value,
          size_t *size, bool *end)
{
    struct items *items = items_;

    *end = items->i == items->n;
    if (!*end) {
        const struct item *item = &items->item[items->i++];

        *key = item->key;
        *value = item->value;
        *size = item->size;
    }
    return 0;
}

static int
no_range(void *aux, struct tree_key *lo, struct tree_key *hi, bool *end)
{
    *end = true;
    return 0;
}

/* Makes a version of the sorted 'items'. */
static int
first_version(struct store *store, const struct item *item, unsigned int n,
              struct tree_version *version, struct store_id *ret_id)
{
    struct items items = {item, n, 0};
    struct tree_changes changes = {next_item, no_range, &items};
    struct tree empty = {.store = store}, tree;
    struct tree_merge_stats stats;
    int error;

    error = tree_merge(&empty, &changes, NULL, &tree, &stats);
    if (!error) {
        version->root = tree.root;
        error = tree_version_put(store, version, NULL, ret_id);
    }
    return error;
}

int
catalogue_create(struct store *store, uint32_t uid, uint32_t gid)
{
    uint64_t now = clock_real_ns();
    struct tree_version main_version = {
        .branch = FIRST_BRANCH,
        .sequence = 1,
        .time = now,
        .cause = BRANCH_CAUSE_INIT,
        .n_inodes = 1,
        .root_ino = FIRST_INODE,
        .max_ino = FIRST_INODE,
    };
    struct tree_version self_version = {
        .sequence = 1, .time = now, .cause = BRANCH_CAUSE_INIT};
    struct tree_attr root = {
        .gen = 1,
        .mode = S_IFDIR | 0755,
        .nlink = 2,
        .uid = uid,
        .gid = gid,
        .btime = now,
        .mtime = now,
        .ctime = now,
        .atime = now,
        .changed = 1,
        .parent = FIRST_INODE,
    };
    struct tree_branch branch = {
        .root_ino = FIRST_INODE, .sequence = 1, .name = "main", .name_len = 4};
    struct tree_version_entry entry = {
        .time = now, .cause = BRANCH_CAUSE_INIT, .n_inodes = 1};
    struct item items[4];
    struct store_root store_root;
    struct store_id id;
    int error;

    if (getrandom(root.lineage, sizeof root.lineage, 0) !=
        sizeof root.lineage) {
        return EIO;
    }
    memcpy(main_version.lineage, root.lineage, sizeof root.lineage);
    items[0].key = tree_key(FIRST_INODE, TREE_ATTR, 0, 0);
    items[0].size = tree_attr_encode(&root, items[0].value);
    error = first_version(store, items, 1, &main_version, &branch.head);
    if (error) {
        return error;
    }

    entry.id = branch.head;
    items[0].key = tree_key(0, TREE_COUNTER, COUNTER_INODE, 0);
    items[0].size =
        varint_put(items[0].value, FIRST_INODE + 1) - items[0].value;
    items[1].key = tree_key(0, TREE_COUNTER, COUNTER_BRANCH, 0);
    items[1].size =
        varint_put(items[1].value, FIRST_BRANCH + 1) - items[1].value;
    items[2].key = tree_key(FIRST_BRANCH, TREE_BRANCH, 0, 0);
    items[2].size = tree_branch_encode(&branch, items[2].value);
    items[3].key = tree_key(FIRST_BRANCH, TREE_VERSION, 1, 0);
    items[3].size = tree_version_entry_encode(&entry, items[3].value);
    error = first_version(store, items, 4, &self_version, &id);
    if (error) {
        return error;
    }
    store_get_root(store, &store_root);
    store_root.id = id;
    store_root.journal_tail = journal_tail(store_journal(store));
    return store_set_root(store, &store_root);
}

/* Changes of branch 0 that follow from journal records of other kinds. */

static int
put_self(struct catalogue *cat, const struct tree_key *key, const void *data,
         size_t size, uint64_t lsn)
{
    struct branch *self = cat->self;
    struct layer *layer;
    int error;

    pthread_mutex_lock(&self->mutex);
    layer = self->layer[0];
    error = arena_prepare(&layer->arena, EDGE_PUT_MAX(size));
    if (!error) {
        edge_lock(self);
        edge_put_quiet(self, key, data, size);
        layer->dirty = true;
        layer->first_lsn = MIN(layer->first_lsn, lsn);
        edge_unlock(self);
    }
    pthread_mutex_unlock(&self->mutex);
    return error;
}

int
catalogue_put_counter(struct catalogue *cat, uint64_t which, uint64_t value,
                      uint64_t lsn)
{
    struct tree_key key = tree_key(0, TREE_COUNTER, which, 0);
    uint8_t data[VARINT_MAX];

    return put_self(cat, &key, data, varint_put(data, value) - data, lsn);
}

int
catalogue_put_version(struct branch *branch, const struct tree_version *v,
                      const struct store_id *id, uint64_t lsn)
{
    struct catalogue *cat = branch->cat;
    struct tree_branch b = {
        .root_ino = branch->root_ino,
        .sequence = v->sequence,
        .head = *id,
        .name = branch->name,
        .name_len = strlen(branch->name),
    };
    struct tree_version_entry entry = {
        .time = v->time,
        .cause = v->cause,
        .n_inodes = v->n_inodes,
        .stored = v->stored,
        .id = *id,
    };
    uint8_t data[TREE_BRANCH_MAX];
    struct tree_key key;
    int error;

    key = tree_key(branch->id, TREE_BRANCH, 0, 0);
    error = put_self(cat, &key, data, tree_branch_encode(&b, data), lsn);
    if (!error) {
        key = tree_key(branch->id, TREE_VERSION, v->sequence, 0);
        error = put_self(cat, &key, data,
                         tree_version_entry_encode(&entry, data), lsn);
    }
    return error;
}

/* Opening. */

struct branch *
catalogue_branch(struct catalogue *cat, uint64_t id)
{
    struct branch *branch;

    LIST_FOR_EACH (branch, in_cat, &cat->branches) {
        if (branch->id == id) {
            return branch;
        }
    }
    return NULL;
}

static void
branch_destroy(struct branch *branch)
{
    if (branch->n_layers) {
        branch_drop_layers(branch, branch->n_layers);
    }
    inode_table_destroy(branch);
    list_remove(&branch->in_cat);
    pthread_mutex_destroy(&branch->mutex);
    free(branch);
}

/* Adds the branch whose newest version is 'id' to the list. */
static int
add_branch(struct catalogue *cat, uint64_t branch_id, const char *name,
           size_t name_len, const struct store_id *id,
           struct branch **ret_branch)
{
    struct branch *branch = calloc(1, sizeof *branch);
    int error;

    if (!branch) {
        return ENOMEM;
    }
    branch->cat = cat;
    branch->id = branch_id;
    memcpy(branch->name, name, name_len);
    branch->base.store = cat->store;
    branch->head_id = *id;
    pthread_mutex_init(&branch->mutex, NULL);
    list_init(&branch->carry);
    inode_table_init(branch);
    list_push_back(&cat->branches, &branch->in_cat);
    error = tree_version_get(cat->store, id, &branch->head);
    if (!error && branch->head.branch != branch_id) {
        error = EBADMSG;
    }
    if (!error) {
        error = layer_create(branch->head.sequence + 1, cat->n_pages,
                             &cat->pool, &branch->layer[0]);
    }
    if (error) {
        branch_destroy(branch);
        return error;
    }
    branch->n_layers = 1;
    branch->base.root = branch->head.root;
    branch->n_inodes = branch->head.n_inodes;
    branch->stored = branch->head.stored;
    branch->root_ino = branch->head.root_ino;
    branch->max_ino = branch->head.max_ino;
    memcpy(branch->lineage, branch->head.lineage, sizeof branch->lineage);
    *ret_branch = branch;
    return 0;
}

/* Reads the counter and the branches from branch 0's newest version. */
static int
load(struct catalogue *cat)
{
    struct tree_key key = tree_key(0, TREE_COUNTER, COUNTER_INODE, 0);
    struct store_root root;
    struct tree_cursor cursor;
    struct tree_value value;
    uint64_t next;
    int error;

    store_get_root(cat->store, &root);
    if (store_id_is_zero(&root.id)) {
        return ENOENT;
    }
    error = add_branch(cat, 0, "", 0, &root.id, &cat->self);
    if (!error) {
        error = tree_get(&cat->self->base, &key, &value);
    }
    if (error) {
        return error;
    }
    if (!varint_get(value.data, value.data + value.size, &next)) {
        error = EBADMSG;
    }
    tree_value_release(&value);
    cat->next_ino = cat->lease_end = next;

    tree_cursor_init(&cursor, &cat->self->base);
    key = tree_key(1, TREE_BRANCH, 0, 0);
    if (!error) {
        error = tree_cursor_seek(&cursor, &key);
    }
    while (!error && tree_cursor_valid(&cursor)) {
        struct tree_branch b;
        struct branch *branch;

        if (tree_key_kind(&cursor.key) == TREE_BRANCH) {
            error = tree_branch_decode(cursor.data, cursor.size, &b);
            if (!error) {
                error = add_branch(cat, tree_key_ino(&cursor.key), b.name,
                                   b.name_len, &b.head, &branch);
            }
        }
        if (!error) {
            key = tree_key(tree_key_ino(&cursor.key) + 1, TREE_BRANCH, 0, 0);
            error = tree_cursor_seek(&cursor, &key);
        }
    }
    tree_cursor_destroy(&cursor);
    return error;
}

static int
reap_orphans(struct branch *branch)
{
    struct tree_key lo = tree_key(0, TREE_ORPHAN, 0, 0);
    struct tree_key hi = tree_key(0, TREE_ORPHAN + 1, 0, 0);
    struct edge_scan *scan = edge_scan_new(branch, &lo, &hi);
    int error;

    if (!scan) {
        return ENOMEM;
    }
    do {
        error = edge_scan_next(scan);
        for (unsigned int i = 0; i < scan->n && !error; i++) {
            error = inode_reap(branch, scan->item[i].key.mid);
        }
    } while (!error && scan->n);
    free(scan);
    return error;
}

static void
catalogue_free(struct catalogue *cat)
{
    while (!list_is_empty(&cat->branches)) {
        branch_destroy(
            CONTAINER_OF(list_front(&cat->branches), struct branch, in_cat));
    }
    page_pool_destroy(&cat->pool);
    pthread_mutex_destroy(&cat->checkpoint_mutex);
    pthread_mutex_destroy(&cat->mutex);
    pthread_mutex_destroy(&cat->lease_mutex);
    pthread_mutex_destroy(&cat->thread_mutex);
    pthread_cond_destroy(&cat->wake);
    pthread_cond_destroy(&cat->relieved);
    free(cat);
}

static int
start(struct catalogue *cat)
{
    struct branch *branch;
    int error;

    if (cat->options.read_only) {
        return 0;
    }
    LIST_FOR_EACH (branch, in_cat, &cat->branches) {
        if (branch != cat->self) {
            error = reap_orphans(branch);
            if (error) {
                return error;
            }
        }
    }
    if (!cat->options.no_thread) {
        error = pthread_create(&cat->thread, NULL, checkpoint_thread, cat);
        cat->have_thread = !error;
        return error;
    }
    return 0;
}

int
catalogue_open(struct store *store, const struct catalogue_options *options,
               struct catalogue **ret_catalogue)
{
    struct catalogue *cat = calloc(1, sizeof *cat);
    uint32_t record_size = store_record_size(store);
    pthread_condattr_t attr;
    int error;

    if (!cat) {
        return ENOMEM;
    }
    if (options) {
        cat->options = *options;
    }
    if (!cat->options.memory) {
        cat->options.memory = MEMORY_DEFAULT;
    }
    if (!cat->options.checkpoint_ms) {
        cat->options.checkpoint_ms = 5000;
    }
    cat->store = store;
    cat->journal = store_journal(store);
    cat->record_shift = __builtin_ctz(record_size);
    cat->n_pages = record_size / PAGE_SIZE__;
    cat->budget = cat->options.memory / 4;
    cat->fsid = get_le64(store_uuid(store));
    if (cat->n_pages < 1 || cat->n_pages > PAGES_MAX) {
        free(cat);
        return EINVAL;
    }
    /* Twice the budget, since a replay may need more than it was. */
    error = page_pool_init(&cat->pool, 2 * cat->budget + (16u << 20));
    if (error) {
        free(cat);
        return error;
    }
    list_init(&cat->branches);
    pthread_mutex_init(&cat->checkpoint_mutex, NULL);
    pthread_mutex_init(&cat->mutex, NULL);
    pthread_mutex_init(&cat->lease_mutex, NULL);
    pthread_mutex_init(&cat->thread_mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&cat->wake, &attr);
    pthread_cond_init(&cat->relieved, &attr);
    pthread_condattr_destroy(&attr);

    error = load(cat);
    if (!error) {
        error = replay(cat);
    }
    if (!error) {
        error = start(cat);
    }
    if (error) {
        catalogue_free(cat);
        return error == EBADMSG ? EIO : error;
    }
    *ret_catalogue = cat;
    return 0;
}

int
catalogue_close(struct catalogue *cat)
{
    int error = 0;

    if (!cat) {
        return 0;
    }
    if (cat->have_thread) {
        pthread_mutex_lock(&cat->thread_mutex);
        cat->stop = true;
        pthread_cond_broadcast(&cat->wake);
        pthread_cond_broadcast(&cat->relieved);
        pthread_mutex_unlock(&cat->thread_mutex);
        pthread_join(cat->thread, NULL);
    }
    if (!cat->options.read_only && !cat->options.close_dirty) {
        if (cat->next_ino != cat->lease_end) {
            /* What was leased and not used goes back. */
            error = catalogue_put_counter(cat, COUNTER_INODE, cat->next_ino,
                                          UINT64_MAX);
        }
        if (!error) {
            error = checkpoint_all(cat, BRANCH_CAUSE_CLOSE);
        }
        checkpoint_unreserve(cat);
    }
    catalogue_free(cat);
    return error;
}

/* Branches. */

int
catalogue_list(struct catalogue *cat,
               bool (*emit)(const char *name, uint64_t id, void *aux),
               void *aux)
{
    struct branch *branch;

    LIST_FOR_EACH (branch, in_cat, &cat->branches) {
        if (branch != cat->self && !emit(branch->name, branch->id, aux)) {
            break;
        }
    }
    return 0;
}

int
branch_open(struct catalogue *cat, const char *name,
            struct branch **ret_branch)
{
    struct branch *branch;
    int error = ENOENT;

    pthread_mutex_lock(&cat->mutex);
    LIST_FOR_EACH (branch, in_cat, &cat->branches) {
        if (branch != cat->self && !strcmp(branch->name, name)) {
            branch->refs++;
            *ret_branch = branch;
            error = 0;
            break;
        }
    }
    pthread_mutex_unlock(&cat->mutex);
    return error;
}

void
branch_close(struct branch *branch)
{
    if (branch) {
        pthread_mutex_lock(&branch->cat->mutex);
        branch->refs--;
        pthread_mutex_unlock(&branch->cat->mutex);
    }
}

const char *
branch_name(const struct branch *branch)
{
    return branch->name;
}

uint64_t
branch_id(const struct branch *branch)
{
    return branch->id;
}

int
branch_versions(struct branch *branch,
                bool (*emit)(const struct branch_version *, void *aux),
                void *aux)
{
    struct tree_key lo = tree_key(branch->id, TREE_VERSION, 0, 0);
    struct tree_key hi = tree_key(branch->id, TREE_VERSION + 1, 0, 0);
    struct edge_scan *scan = edge_scan_new(branch->cat->self, &lo, &hi);
    bool more = true;
    int error;

    if (!scan) {
        return ENOMEM;
    }
    do {
        error = edge_scan_next(scan);
        for (unsigned int i = 0; i < scan->n && !error && more; i++) {
            struct edge_item *item = &scan->item[i];
            struct tree_version_entry e;
            struct branch_version v;

            error = tree_version_entry_decode(scan->bytes + item->offset,
                                              item->size, &e);
            if (error) {
                error = EIO;
                break;
            }
            v.sequence = item->key.mid;
            memcpy(v.id, e.id.bytes, sizeof v.id);
            v.time_ns = e.time;
            v.cause = e.cause;
            v.n_inodes = e.n_inodes;
            v.stored_size = e.stored;
            more = emit(&v, aux);
        }
    } while (!error && scan->n && more);
    free(scan);
    return error;
}

int
branch_head(struct branch *branch, struct branch_version *ret)
{
    pthread_mutex_lock(&branch->mutex);
    ret->sequence = branch->head.sequence;
    memcpy(ret->id, branch->head_id.bytes, sizeof ret->id);
    ret->time_ns = branch->head.time;
    ret->cause = branch->head.cause;
    ret->n_inodes = branch->head.n_inodes;
    ret->stored_size = branch->head.stored;
    pthread_mutex_unlock(&branch->mutex);
    return 0;
}

int
branch_statfs(struct branch *branch, struct branch_statfs *ret)
{
    struct store_space space;
    uint64_t own, room;
    int error = store_space(branch->cat->store, &space);

    if (error) {
        return error;
    }
    brlock_read_lock(&branch->lock);
    own = branch->stored;
    ret->files = branch->n_inodes;
    brlock_read_unlock(&branch->lock);
    /* An empty file takes some 200 bytes. */
    room = MIN(space.available / 256, TREE_INO_MAX - branch->max_ino);
    ret->bsize = PAGE_SIZE__;
    ret->bfree = ret->bavail = space.available / PAGE_SIZE__;
    ret->blocks = DIV_ROUND_UP(own, PAGE_SIZE__) + ret->bfree;
    ret->ffree = room;
    ret->files += room;
    ret->fsid = branch->cat->fsid ^ branch->id;
    ret->namelen = FILE_NAME_MAX;
    return 0;
}

void
branch_get_stats(struct branch *branch, struct branch_stats *ret)
{
    unsigned int height = 0;
    struct tree base;

    memset(ret, 0, sizeof *ret);
    pthread_mutex_lock(&branch->mutex);
    ret->n_inodes = branch->n_inodes;
    ret->stored_size = branch->stored;
    for (unsigned int i = 0; i < branch->n_layers; i++) {
        ret->dirty_keys += branch->layer[i]->points.n;
    }
    ret->dirty_size = branch->dirty;
    ret->frozen_layers = branch->n_layers - 1;
    ret->n_orphans = branch->stats.n_orphans;
    ret->n_changes = branch->stats.n_changes;
    ret->n_fsyncs = branch->stats.n_fsyncs;
    ret->n_checkpoints = branch->stats.n_checkpoints;
    ret->sequence = branch->head.sequence;
    base = branch->base;
    pthread_mutex_unlock(&branch->mutex);
    pthread_mutex_lock(&branch->table_mutex);
    ret->open_inodes = branch->n_files - branch->n_lru;
    pthread_mutex_unlock(&branch->table_mutex);
    if (!tree_height(&base, &height)) {
        ret->tree_height = height;
    }
}
