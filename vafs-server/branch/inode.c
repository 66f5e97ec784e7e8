/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 'struct file': the inodes that somebody holds, that have unlogged changes,
 * or that were used lately.  There is one object for an inode, so its cached
 * attributes are always the newest.
 *
 * An inode without a name is deleted by whoever drops its last reference. */

#include "vafs-server/branch/branch-private.h"

#include <stdlib.h>

#include "vafs-server/tree/siphash.h"

#define LRU_MAX 4096
#define BUCKETS_MIN 1024

void
inode_table_init(struct branch *branch)
{
    pthread_mutex_init(&branch->table_mutex, NULL);
    pthread_cond_init(&branch->loaded, NULL);
    list_init(&branch->lru);
}

static struct file **
bucket(struct branch *branch, uint64_t ino)
{
    return &branch->bucket[ino * UINT64_C(0x9e3779b97f4a7c15) >> 32 &
                           (branch->n_buckets - 1)];
}

static int
table_grow(struct branch *branch)
{
    size_t n_old = branch->n_buckets;
    struct file **old = branch->bucket, **new;
    size_t n_new = n_old ? 2 * n_old : BUCKETS_MIN;

    if (branch->n_files < n_old) {
        return 0;
    }
    new = calloc(n_new, sizeof *new);
    if (!new) {
        return n_old ? 0 : ENOMEM;
    }
    branch->bucket = new;
    branch->n_buckets = n_new;
    for (size_t i = 0; i < n_old; i++) {
        while (old[i]) {
            struct file *file = old[i];
            struct file **b = bucket(branch, file->ino);

            old[i] = file->hash_next;
            file->hash_next = *b;
            *b = file;
        }
    }
    free(old);
    return 0;
}

static struct file *
table_find(struct branch *branch, uint64_t ino)
{
    struct file *file;

    if (!branch->n_buckets) {
        return NULL;
    }
    for (file = *bucket(branch, ino); file; file = file->hash_next) {
        if (file->ino == ino) {
            return file;
        }
    }
    return NULL;
}

static void
table_remove(struct file *file)
{
    struct file **p = bucket(file->branch, file->ino);

    while (*p != file) {
        p = &(*p)->hash_next;
    }
    *p = file->hash_next;
    file->branch->n_files--;
    if (!list_is_empty(&file->lru)) {
        list_remove(&file->lru);
        file->branch->n_lru--;
    }
}

static int
file_new(struct branch *branch, uint64_t ino, struct file **ret)
{
    struct file *file;
    struct file **b;
    int error = table_grow(branch);

    if (error) {
        return error;
    }
    file = calloc(1, sizeof *file);
    if (!file) {
        return ENOMEM;
    }
    file->branch = branch;
    file->ino = ino;
    file->refs = 1;
    list_init(&file->lru);
    list_init(&file->unlogged);
    list_init(&file->carry);
    pthread_rwlock_init(&file->data_lock, NULL);
    pthread_mutex_init(&file->sync_lock, NULL);
    b = bucket(branch, ino);
    file->hash_next = *b;
    *b = file;
    branch->n_files++;
    *ret = file;
    return 0;
}

static void
file_free(struct file *file)
{
    pthread_rwlock_destroy(&file->data_lock);
    pthread_mutex_destroy(&file->sync_lock);
    store_needs_clear(&file->needs);
    free(file);
}

/* The inode has no more references and no pins: keep it a while, or free it.
 * table_mutex held. */
static void
retire(struct file *file)
{
    struct branch *branch = file->branch;

    if (file->state != FILE_READY) {
        if (file->state == FILE_DELETING) {
            table_remove(file);
        }
        file_free(file);
        return;
    }
    list_push_back(&branch->lru, &file->lru);
    branch->n_lru++;
    if (branch->n_lru > LRU_MAX) {
        struct file *old =
            CONTAINER_OF(list_front(&branch->lru), struct file, lru);

        table_remove(old);
        file_free(old);
    }
}

void
inode_table_destroy(struct branch *branch)
{
    for (size_t i = 0; i < branch->n_buckets; i++) {
        while (branch->bucket[i]) {
            struct file *file = branch->bucket[i];

            table_remove(file);
            file_free(file);
        }
    }
    free(branch->bucket);
    pthread_mutex_destroy(&branch->table_mutex);
    pthread_cond_destroy(&branch->loaded);
}

static int
load(struct file *file)
{
    struct tree_key key = tree_key(file->ino, TREE_ATTR, 0, 0);
    struct edge_value value;
    int error = edge_get(file->branch, &key, &value);

    if (!error) {
        error = tree_attr_decode(value.data, value.size, &file->attr);
        error = error ? EIO : 0;
    }
    file->gen = file->attr.gen;
    file->type = file->attr.mode & S_IFMT;
    return error == ENOENT ? ESTALE : error;
}

int
inode_get(struct branch *branch, uint64_t ino, struct file **ret)
{
    struct file *file;
    int error;

    pthread_mutex_lock(&branch->table_mutex);
again:
    file = table_find(branch, ino);
    if (file) {
        if (file->state == FILE_DELETING) {
            pthread_mutex_unlock(&branch->table_mutex);
            return ESTALE;
        }
        if (file->state == FILE_LOADING && file_nowait) {
            pthread_mutex_unlock(&branch->table_mutex);
            return EAGAIN;
        }
        if (!file->refs++ && !list_is_empty(&file->lru)) {
            list_remove(&file->lru);
            branch->n_lru--;
        }
        while (file->state == FILE_LOADING) {
            pthread_cond_wait(&branch->loaded, &branch->table_mutex);
        }
        if (file->state == FILE_FAILED) {
            if (!--file->refs) {
                file_free(file);
            }
            goto again; /* This thread may be one that can wait. */
        }
        pthread_mutex_unlock(&branch->table_mutex);
        *ret = file;
        return 0;
    }

    error = file_new(branch, ino, &file);
    if (error) {
        pthread_mutex_unlock(&branch->table_mutex);
        return error;
    }
    file->state = FILE_LOADING;
    pthread_mutex_unlock(&branch->table_mutex);

    error = load(file);

    pthread_mutex_lock(&branch->table_mutex);
    if (error) {
        table_remove(file);
        file->state = FILE_FAILED;
        if (!--file->refs) {
            file_free(file);
        }
    } else {
        file->state = FILE_READY;
        *ret = file;
    }
    pthread_cond_broadcast(&branch->loaded);
    pthread_mutex_unlock(&branch->table_mutex);
    return error;
}

int
inode_new(struct branch *branch, uint64_t ino, const struct tree_attr *attr,
          struct file **ret)
{
    int error;

    pthread_mutex_lock(&branch->table_mutex);
    error = file_new(branch, ino, ret);
    if (!error) {
        (*ret)->attr = *attr;
        (*ret)->gen = attr->gen;
        (*ret)->type = attr->mode & S_IFMT;
        (*ret)->state = FILE_READY;
    }
    pthread_mutex_unlock(&branch->table_mutex);
    return error;
}

void
inode_abort(struct file *file)
{
    struct branch *branch = file->branch;

    pthread_mutex_lock(&branch->table_mutex);
    table_remove(file);
    pthread_mutex_unlock(&branch->table_mutex);
    file_free(file);
}

bool
inode_holds_back(struct branch *branch, uint64_t ino, const struct file *but,
                 struct unlogged **ret_list)
{
    struct file *file;
    struct unlogged *u;
    bool held = false;

    pthread_mutex_lock(&branch->table_mutex);
    file = table_find(branch, ino);
    if (file && file != but && !inode_is_carried(file)) {
        /* Who has an element in this list is pinned. */
        LIST_FOR_EACH (u, in_file, &file->unlogged) {
            held =
                held || !list_is_empty(&u->vals) || !list_is_empty(&u->ranges);
            *ret_list = u;
        }
    }
    pthread_mutex_unlock(&branch->table_mutex);
    return held;
}

bool
inode_claim(struct file *file)
{
    struct branch *branch = file->branch;
    bool claimed;

    pthread_mutex_lock(&branch->table_mutex);
    claimed = file->refs == 1;
    if (claimed) {
        file->state = FILE_DELETING;
    }
    pthread_mutex_unlock(&branch->table_mutex);
    return claimed;
}

void
inode_pin(struct file *file)
{
    pthread_mutex_lock(&file->branch->table_mutex);
    file->pins++;
    pthread_mutex_unlock(&file->branch->table_mutex);
}

void
inode_unpin(struct file *file)
{
    struct branch *branch = file->branch;

    pthread_mutex_lock(&branch->table_mutex);
    if (!--file->pins && !file->refs) {
        retire(file);
    }
    pthread_mutex_unlock(&branch->table_mutex);
}

void
inode_put_attr(struct file *file, struct file *owner)
{
    struct tree_key key = tree_key(file->ino, TREE_ATTR, 0, 0);
    uint8_t data[TREE_ATTR_MAX];

    file->attr.changed = file->branch->layer[0]->number;
    edge_put(file->branch, owner, &key, data,
             tree_attr_encode(&file->attr, data));
}

void
inode_remove_keys(struct file *file)
{
    struct branch *branch = file->branch;
    struct unlogged *u;
    struct tree_key lo, hi;

    inode_range(file->ino, &lo, &hi);
    edge_remove_range(branch, EDGE_NAMES, &lo, &hi);
    branch->n_inodes--;
    branch->stored -= file->attr.stored;
    LIST_FOR_EACH (u, in_file, &file->unlogged) {
        /* Frozen layers' values stay where they are; they need not be logged
         * any more. */
        list_init(&u->ranges);
        while (!list_is_empty(&u->vals)) {
            list_pop_front(&u->vals);
        }
    }
    if (!list_is_empty(&file->carry)) {
        list_remove(&file->carry);
        inode_unpin(file);
    }
}

/* Deletes an inode that has neither names nor references.  If that fails it
 * stays an orphan and is reaped at the next open. */
static void delete (struct file *file)
{
    struct branch *branch = file->branch;
    struct tree_key key = tree_key(0, TREE_ORPHAN, file->ino, 0);
    bool nowait = file_nowait;

    file_set_nowait(false);
    if (!edge_begin(branch, EDGE_NAMES_MAX)) {
        edge_lock(branch);
        inode_remove_keys(file);
        edge_remove(branch, EDGE_NAMES, &key);
        branch->stats.n_orphans--;
        edge_unlock(branch);
        edge_end(branch);
    }
    file_set_nowait(nowait);
}

int
inode_reap(struct branch *branch, uint64_t ino)
{
    struct tree_key key = tree_key(0, TREE_ORPHAN, ino, 0);
    struct file *file;
    int error = inode_get(branch, ino, &file);

    if (!error && !file->attr.nlink) {
        branch->stats.n_orphans++;
        file_unref(file); /* Deletes it. */
        return 0;
    }
    if (!error) {
        file_unref(file);
    }
    if (!error || error == ESTALE) {
        /* A key without meaning. */
        error = edge_begin(branch, EDGE_NAMES_MAX);
        if (!error) {
            edge_lock(branch);
            edge_remove(branch, EDGE_NAMES, &key);
            edge_unlock(branch);
            edge_end(branch);
        }
    }
    return error;
}

struct file *
file_ref(struct file *file)
{
    pthread_mutex_lock(&file->branch->table_mutex);
    file->refs++;
    pthread_mutex_unlock(&file->branch->table_mutex);
    return file;
}

void
file_unref(struct file *file)
{
    struct branch *branch;

    if (!file) {
        return;
    }
    branch = file->branch;
    pthread_mutex_lock(&branch->table_mutex);
    if (file->refs == 1 && file->state == FILE_READY && !file->attr.nlink) {
        file->state = FILE_DELETING;
        pthread_mutex_unlock(&branch->table_mutex);
        delete (file);
        pthread_mutex_lock(&branch->table_mutex);
    }
    if (!--file->refs && !file->pins) {
        retire(file);
    }
    pthread_mutex_unlock(&branch->table_mutex);
}

/* Numbers. */

#define LEASE_FIRST 256
#define LEASE_MAX 65536

int
inode_number(struct catalogue *cat, uint64_t *ret)
{
    int error = 0;

    pthread_mutex_lock(&cat->lease_mutex);
    if (cat->next_ino == cat->lease_end) {
        uint64_t size = cat->lease_size ? cat->lease_size : LEASE_FIRST;

        if (cat->lease_end + size > TREE_INO_MAX) {
            error = ENOSPC;
        } else {
            error = log_lease(cat, cat->lease_end + size);
        }
        if (!error) {
            cat->lease_end += size;
            cat->lease_size = MIN(2 * size, LEASE_MAX);
        }
    }
    if (!error) {
        *ret = cat->next_ino++;
    }
    pthread_mutex_unlock(&cat->lease_mutex);
    return error;
}

/* Handles. */

int
file_root(struct branch *branch, struct file **ret_file)
{
    return inode_get(branch, branch->root_ino, ret_file);
}

int
file_by_inode(struct branch *branch, uint64_t ino, uint32_t gen,
              struct file **ret_file)
{
    struct file *file;
    int error;

    if (!ino || ino > TREE_INO_MAX) {
        return ESTALE;
    }
    error = inode_get(branch, ino, &file);
    if (!error && gen && gen != file->gen) {
        file_unref(file);
        error = ESTALE;
    }
    if (!error) {
        *ret_file = file;
    }
    return error;
}

struct branch *
file_branch(const struct file *file)
{
    return file->branch;
}

uint64_t
file_ino(const struct file *file)
{
    return file->ino;
}

uint32_t
file_gen(const struct file *file)
{
    return file->gen;
}

uint32_t
file_type(const struct file *file)
{
    return file->type;
}

uint64_t
name_hash(const struct branch *branch, const void *name, size_t size)
{
    uint64_t hash = siphash24(branch->lineage, name, size) >> 1;

    return hash >> 8 << 8;
}
