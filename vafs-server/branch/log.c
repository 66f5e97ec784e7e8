/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What goes into the journal, and fsync.
 *
 * What is not logged yet is on lists: of each layer, the changes of names (and
 * of all that must agree with them: link counts, directories' times, new and
 * deleted inodes); of each inode and layer, the inode's own changes (content,
 * size, times, extended attributes).  An fsync logs all lists of names and the
 * lists of its file, in one change that a replay takes whole or not at all.
 * So the order within a list does not matter, and a key is logged with its
 * newest value.
 *
 * Attributes of another file that happen to be on a list of names are logged
 * as LOG_ATTR if that file has own changes that are not: a replay then takes
 * its size from what is below, so a file is never extended by what was not
 * written.  A file that a rename put in another's place has its own changes
 * logged with the names ('carry').
 *
 * Bodies of records (integers are varints):
 *
 *     CHANGE      branch, epoch 0, layer's number, number of the change,
 *                 flags; then items
 *     CHECKPOINT  branch, sequence; 32-byte id of the version
 *     LEASE       first inode number that is not leased
 *     FREEZE      branch, sequence, time, cause */

#include "vafs-server/branch/branch-private.h"

#include <stdlib.h>

#define LOG_HEADER_MAX (5 * VARINT_MAX)
#define SETTLE_LIMIT 131072
/* From this much unlogged data on, syncfs makes a version instead. */
#define SYNCFS_LOG_MAX (4u << 20)

/* A change under construction: bodies of one or more records, one behind the
 * other. */
struct builder {
    uint8_t *data;
    size_t size, allocated;
    size_t *start; /* Of each record's items. */
    size_t n, n_allocated;
    size_t max; /* Bytes of items in a record. */
    int error;
};

static void
builder_destroy(struct builder *b)
{
    free(b->data);
    free(b->start);
}

/* Room for an item of up to 'size' bytes; NULL after an error. */
static uint8_t *
builder_room(struct builder *b, size_t size)
{
    if (b->error) {
        return NULL;
    }
    if (size > b->max) {
        b->error = EMSGSIZE;
        return NULL;
    }
    if (b->size + size > b->allocated) {
        size_t more = MAX(b->size + size, 2 * b->allocated + 4096);
        uint8_t *data = realloc(b->data, more);

        if (!data) {
            b->error = ENOMEM;
            return NULL;
        }
        b->data = data;
        b->allocated = more;
    }
    if (!b->n || b->size - b->start[b->n - 1] + size > b->max) {
        if (b->n == b->n_allocated) {
            size_t more = 2 * b->n_allocated + 4;
            size_t *start = realloc(b->start, more * sizeof *start);

            if (!start) {
                b->error = ENOMEM;
                return NULL;
            }
            b->start = start;
            b->n_allocated = more;
        }
        b->start[b->n++] = b->size;
    }
    return b->data + b->size;
}

static uint8_t *
put_key(uint8_t *p, const struct tree_key *key)
{
    unsigned int n = tree_key_encode(key, p + 1);

    *p = n;
    return p + 1 + n;
}

static void
add_value(struct builder *b, uint8_t op, const struct tree_key *key,
          const void *data, size_t size)
{
    uint8_t *p = builder_room(b, 2 + TREE_KEY_MAX + VARINT_MAX + size);

    if (p) {
        *p++ = op;
        p = put_key(p, key);
        p = varint_put(p, size);
        memcpy(p, data, size);
        b->size = p + size - b->data;
    }
}

static void
add_remove(struct builder *b, const struct tree_key *key)
{
    uint8_t *p = builder_room(b, 2 + TREE_KEY_MAX);

    if (p) {
        *p++ = LOG_REMOVE;
        b->size = put_key(p, key) - b->data;
    }
}

static void
add_range(struct builder *b, const struct range *range)
{
    uint8_t *p = builder_room(b, 1 + 48);

    if (p) {
        *p++ = LOG_RANGE;
        put_be64(p, range->lo.hi);
        put_be64(p + 8, range->lo.mid);
        put_be64(p + 16, range->lo.lo);
        put_be64(p + 24, range->hi.hi);
        put_be64(p + 32, range->hi.mid);
        put_be64(p + 40, range->hi.lo);
        b->size = p + 48 - b->data;
    }
}

static void
add_page(struct builder *b, const struct tree_key *key, unsigned int i,
         const uint8_t *page)
{
    bool zero = page == page_zero;
    uint8_t *p =
        builder_room(b, 2 + TREE_KEY_MAX + 2 * VARINT_MAX + PAGE_SIZE__);

    if (p) {
        *p++ = LOG_PAGES;
        p = put_key(p, key);
        p = varint_put(p, UINT64_C(1) << i);
        p = varint_put(p, zero ? UINT64_C(1) << i : 0);
        if (!zero) {
            memcpy(p, page, PAGE_SIZE__);
            p += PAGE_SIZE__;
        }
        b->size = p - b->data;
    }
}

/* Adds a record key that layer[at] has. */
static void
add_record(struct builder *b, struct branch *branch, unsigned int at,
           const struct val *val)
{
    uint64_t hidden = 0;

    for (unsigned int i = 0; i < at; i++) {
        struct val *above = layer_find(branch->layer[i], &val->key);

        if (above ? above->type != VAL_PAGES || val_pages(above)->base
                  : layer_covers(branch->layer[i], &val->key)) {
            return; /* Replaced, and that is logged or on a list. */
        }
        if (above) {
            hidden |= val_pages(above)->present;
        }
    }
    if (val->type == VAL_VALUE) {
        add_value(b, LOG_PUT, &val->key, val->data, val->size);
    } else if (val->type == VAL_TOMB) {
        add_remove(b, &val->key);
    } else {
        const struct val_pages *pages = val_pages(val);

        if (pages->base && pages->base_unlogged) {
            if (pages->base->type == VAL_VALUE) {
                add_value(b, LOG_PUT, &val->key, pages->base->data,
                          pages->base->size);
            } else {
                add_remove(b, &val->key);
            }
        }
        for (unsigned int i = 0; i < PAGES_MAX; i++) {
            if (pages->unlogged & ~hidden & UINT64_C(1) << i) {
                add_page(b, &val->key, i, pages->page[i]);
            }
        }
    }
}

/* The newest that the layers say about the key of 'val', which layer[at] has;
 * NULL if a range removes it. */
static struct val *
newest(struct branch *branch, unsigned int at, struct val *val)
{
    for (unsigned int i = 0; i < at; i++) {
        struct val *above = layer_find(branch->layer[i], &val->key);

        if (above) {
            return above;
        }
        if (layer_covers(branch->layer[i], &val->key)) {
            return NULL;
        }
    }
    return val;
}

/* Adds a key that layer[at] has: with its newest value. */
static void
add_val(struct builder *b, struct branch *branch, unsigned int at,
        struct val *val, const struct file *file)
{
    struct unlogged *u;

    if (tree_key_kind(&val->key) == TREE_RECORD) {
        add_record(b, branch, at, val);
        return;
    }
    val = newest(branch, at, val);
    if (!val) {
        return;
    }
    if (val->type == VAL_TOMB) {
        add_remove(b, &val->key);
    } else if (tree_key_kind(&val->key) == TREE_ATTR &&
               inode_holds_back(branch, tree_key_ino(&val->key), file, &u)) {
        add_value(b, LOG_ATTR, &val->key, val->data, val->size);
    } else {
        add_value(b, LOG_PUT, &val->key, val->data, val->size);
    }
}

/* Whether the own changes of the file of 'u' are part of the log. */
static bool
selected(const struct unlogged *u, const struct file *file)
{
    return u->file == file || inode_is_carried(u->file);
}

static void
collect(struct builder *b, struct branch *branch, const struct file *file)
{
    for (unsigned int at = branch->n_layers; at-- > 0;) {
        struct layer *layer = branch->layer[at];
        struct unlogged *u;
        struct range *range;
        struct val *val;

        LIST_FOR_EACH (range, node, &layer->ns_ranges) {
            add_range(b, range);
        }
        LIST_FOR_EACH (u, in_layer, &layer->unlogged) {
            if (selected(u, file)) {
                LIST_FOR_EACH (range, node, &u->ranges) {
                    add_range(b, range);
                }
            }
        }
        LIST_FOR_EACH (val, unlogged, &layer->ns_vals) {
            add_val(b, branch, at, val, file);
        }
        LIST_FOR_EACH (u, in_layer, &layer->unlogged) {
            if (selected(u, file)) {
                LIST_FOR_EACH (val, unlogged, &u->vals) {
                    add_val(b, branch, at, val, file);
                }
            }
        }
    }
}

static void
mark_logged(struct val *val)
{
    list_remove(&val->unlogged);
    if (val->type == VAL_PAGES) {
        val_pages(val)->unlogged = 0;
        val_pages(val)->base_unlogged = false;
    }
}

/* Empties the lists that collect() went through. */
static void
forget(struct branch *branch, const struct file *file)
{
    struct file *carried, *next;

    for (unsigned int at = branch->n_layers; at-- > 0;) {
        struct layer *layer = branch->layer[at];
        struct unlogged *u;

        list_init(&layer->ns_ranges);
        layer->n_ns = 0;
        while (!list_is_empty(&layer->ns_vals)) {
            struct val *val = CONTAINER_OF(list_front(&layer->ns_vals),
                                           struct val, unlogged);

            mark_logged(val);
            if (tree_key_kind(&val->key) == TREE_ATTR &&
                inode_holds_back(branch, tree_key_ino(&val->key), file, &u)) {
                /* Its size is still to be logged, with the newest value.
                 * That is never in an older layer than the changes that hold
                 * it back, so it outlives their list. */
                val = newest(branch, at, val);
                if (val && list_is_empty(&val->unlogged)) {
                    list_push_back(&u->vals, &val->unlogged);
                }
            }
        }
        LIST_FOR_EACH (u, in_layer, &layer->unlogged) {
            if (selected(u, file)) {
                list_init(&u->ranges);
                while (!list_is_empty(&u->vals)) {
                    mark_logged(CONTAINER_OF(list_front(&u->vals), struct val,
                                             unlogged));
                }
            }
        }
    }
    LIST_FOR_EACH_SAFE (carried, next, carry, &branch->carry) {
        if (carried == file || inode_is_carried(carried)) {
            list_remove(&carried->carry);
            inode_unpin(carried);
        }
    }
}

/* Appends the records of a change; mutex held. */
static int
append(struct branch *branch, const struct builder *b, uint64_t *ret_lsn)
{
    struct layer *layer = branch->layer[0];
    struct journal *journal = branch->cat->journal;
    uint64_t start = journal_head(journal);

    branch->txn++;
    for (size_t i = 0; i < b->n; i++) {
        size_t end = i + 1 < b->n ? b->start[i + 1] : b->size;
        uint8_t header[LOG_HEADER_MAX], *p = header;
        struct iovec iov[2];
        int error;

        p = varint_put(p, branch->id);
        p = varint_put(p, 0);
        p = varint_put(p, layer->number);
        p = varint_put(p, branch->txn);
        p = varint_put(p, i + 1 < b->n ? LOG_MORE : 0);
        iov[0] = (struct iovec){header, p - header};
        iov[1] = (struct iovec){b->data + b->start[i], end - b->start[i]};
        error = journal_append(journal, LOG_CHANGE, iov, 2, 0, ret_lsn);
        if (error) {
            /* What was appended is an unfinished change: replay skips it. */
            return error;
        }
    }
    layer->first_lsn = MIN(layer->first_lsn, start);
    branch->stats.n_changes++;
    return 0;
}

int
log_append(struct branch *branch, struct file *file, uint64_t *ret_lsn)
{
    struct builder b = {.max = journal_body_max(branch->cat->journal) -
                               LOG_HEADER_MAX};
    int error;

    pthread_mutex_lock(&branch->mutex);
    collect(&b, branch, file);
    error = b.error;
    if (!error && b.n) {
        error = append(branch, &b, &branch->last_lsn);
    }
    if (!error && branch->unrooted) {
        error = ENOBUFS;
    }
    if (!error) {
        forget(branch, file);
        *ret_lsn = branch->last_lsn;
    }
    pthread_mutex_unlock(&branch->mutex);
    builder_destroy(&b);
    return error;
}

int
log_lease(struct catalogue *cat, uint64_t end)
{
    uint8_t body[VARINT_MAX];
    struct iovec iov = {body, varint_put(body, end) - body};
    uint64_t start = journal_head(cat->journal), lsn;
    int error;

    error =
        journal_append(cat->journal, LOG_LEASE, &iov, 1, JOURNAL_URGENT, &lsn);
    return error ? error
                 : catalogue_put_counter(cat, COUNTER_INODE, end, start);
}

int
log_checkpoint(struct branch *branch, uint64_t sequence,
               const struct store_id *id, uint64_t *ret_start,
               uint64_t *ret_lsn)
{
    uint8_t body[2 * VARINT_MAX + sizeof *id], *p = body;
    struct iovec iov = {body, 0};

    p = varint_put(p, branch->id);
    p = varint_put(p, sequence);
    memcpy(p, id, sizeof *id);
    iov.iov_len = p + sizeof *id - body;
    *ret_start = journal_head(branch->cat->journal);
    return journal_append(branch->cat->journal, LOG_CHECKPOINT, &iov, 1,
                          JOURNAL_URGENT, ret_lsn);
}

int
log_freeze(struct branch *branch, const struct layer *layer, uint64_t *ret_lsn)
{
    uint8_t body[4 * VARINT_MAX], *p = body;
    struct iovec iov = {body, 0};

    p = varint_put(p, branch->id);
    p = varint_put(p, layer->number);
    p = varint_put(p, layer->time);
    p = varint_put(p, layer->cause);
    iov.iov_len = p - body;
    return journal_append(branch->cat->journal, LOG_FREEZE, &iov, 1,
                          JOURNAL_URGENT, ret_lsn);
}

/* fsync. */

/* Makes the file's own changes ready for being logged: much data becomes
 * objects, and objects become durable.  The data lock is held. */
static int
prepare(struct file *file)
{
    struct branch *branch = file->branch;
    struct store_needs needs = {0};
    bool nothing;
    int error;

    /* Who comes second must wait until the first has synced. */
    pthread_mutex_lock(&file->sync_lock);
    error = data_settle(file, SETTLE_LIMIT);
    pthread_mutex_lock(&branch->mutex);
    nothing = !file->needs.n && !file->needs.all;
    store_needs_merge(&needs, &file->needs);
    pthread_mutex_unlock(&branch->mutex);
    if (!error && !nothing) {
        error = store_sync_needs(branch->cat->store, &needs);
        if (!error) {
            pthread_mutex_lock(&branch->mutex);
            store_needs_clear(&file->needs);
            pthread_mutex_unlock(&branch->mutex);
        }
    }
    store_needs_clear(&needs);
    pthread_mutex_unlock(&file->sync_lock);
    return error;
}

/* References to the files whose data goes with the names. */
static int
get_carried(struct branch *branch, struct file *but, struct file ***ret,
            size_t *ret_n)
{
    struct file *file, **files = NULL;
    size_t n = 0;
    int error = 0;

    pthread_mutex_lock(&branch->mutex);
    LIST_FOR_EACH (file, carry, &branch->carry) {
        n++;
    }
    if (n) {
        files = malloc(n * sizeof *files);
        error = files ? 0 : ENOMEM;
        n = 0;
        LIST_FOR_EACH (file, carry, &branch->carry) {
            if (files && file != but) {
                files[n++] = file_ref(file);
            }
        }
    }
    pthread_mutex_unlock(&branch->mutex);
    *ret = files;
    *ret_n = n;
    return error;
}

int
file_fsync(struct file *file, bool datasync)
{
    struct branch *branch = file->branch;
    struct catalogue *cat = branch->cat;
    struct file **carried;
    size_t n_carried;
    uint64_t lsn = 0;
    bool nowait = file_nowait;
    int error;

    if (cat->options.read_only) {
        return 0;
    }
    file_set_nowait(false);
    __atomic_fetch_add(&branch->stats.n_fsyncs, 1, __ATOMIC_RELAXED);

    /* Content that is being logged must not change meanwhile.  Readers are
     * preferred by these locks, so holding several shared is safe. */
    error = get_carried(branch, file, &carried, &n_carried);
    pthread_rwlock_rdlock(&file->data_lock);
    for (size_t i = 0; i < n_carried; i++) {
        pthread_rwlock_rdlock(&carried[i]->data_lock);
    }
    if (!error) {
        error = prepare(file);
    }
    for (size_t i = 0; i < n_carried && !error; i++) {
        error = prepare(carried[i]);
    }
    if (!error) {
        error = log_append(branch, file, &lsn);
    }
    for (size_t i = 0; i < n_carried; i++) {
        pthread_rwlock_unlock(&carried[i]->data_lock);
        file_unref(carried[i]);
    }
    free(carried);
    pthread_rwlock_unlock(&file->data_lock);

    if (error == ENOBUFS) {
        error = checkpoint_all(cat, BRANCH_CAUSE_SPACE);
    } else if (!error) {
        error = journal_commit(cat->journal, lsn);
    }
    file_set_nowait(nowait);
    return error;
}

/* Bytes of dirty pages in all layers; mutex held. */
static uint64_t
dirty_pages(const struct branch *branch)
{
    uint64_t sum = 0;

    for (unsigned int i = 0; i < branch->n_layers; i++) {
        sum += branch->layer[i]->page_bytes;
    }
    return sum;
}

/* References to the files with own changes that are not logged. */
static int
get_dirty(struct branch *branch, struct file ***ret, size_t *ret_n)
{
    struct file **files = NULL;
    size_t n = 0, max = 0;

    pthread_mutex_lock(&branch->mutex);
    for (unsigned int i = 0; i < branch->n_layers; i++) {
        struct unlogged *u;

        LIST_FOR_EACH (u, in_layer, &branch->layer[i]->unlogged) {
            if (list_is_empty(&u->vals) && list_is_empty(&u->ranges)) {
                continue;
            }
            if (n == max) {
                size_t more = 2 * max + 64;
                struct file **new = realloc(files, more * sizeof *files);

                if (!new) {
                    pthread_mutex_unlock(&branch->mutex);
                    while (n) {
                        file_unref(files[--n]);
                    }
                    free(files);
                    return ENOMEM;
                }
                files = new;
                max = more;
            }
            files[n++] = file_ref(u->file);
        }
    }
    pthread_mutex_unlock(&branch->mutex);
    *ret = files;
    *ret_n = n;
    return 0;
}

/* Appends everything, file by file. */
static int
append_all(struct branch *branch, uint64_t *ret_lsn)
{
    struct file **files;
    size_t n;
    int error;

    error = get_dirty(branch, &files, &n);
    if (error) {
        return error;
    }
    /* One flush of the segments for all, so that each file's finds nothing to
     * do. */
    error = store_sync(branch->cat->store);
    for (size_t i = 0; i < n; i++) {
        if (!error) {
            pthread_rwlock_rdlock(&files[i]->data_lock);
            error = prepare(files[i]);
            if (!error) {
                error = log_append(branch, files[i], ret_lsn);
            }
            pthread_rwlock_unlock(&files[i]->data_lock);
        }
        file_unref(files[i]);
    }
    free(files);
    return error ? error : log_append(branch, NULL, ret_lsn);
}

int
branch_syncfs(struct branch *branch)
{
    struct catalogue *cat = branch->cat;
    bool nowait = file_nowait;
    uint64_t lsn, size;
    int error;

    if (cat->options.read_only) {
        return 0;
    }
    file_set_nowait(false);
    pthread_mutex_lock(&branch->mutex);
    size = dirty_pages(branch);
    pthread_mutex_unlock(&branch->mutex);
    error = size > SYNCFS_LOG_MAX ? ENOBUFS : append_all(branch, &lsn);
    error = error == ENOBUFS ? checkpoint_all(cat, BRANCH_CAUSE_SPACE)
            : error          ? error
                             : journal_commit(cat->journal, lsn);
    file_set_nowait(nowait);
    return error;
}
