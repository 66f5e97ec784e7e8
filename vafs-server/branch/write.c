/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Content of files: writing, truncating, making holes.
 *
 * What is written goes into pages of the active layer, which are made outside
 * the branch's lock and swapped in under it: a page never changes while
 * somebody can see it, so a layer may be frozen at any moment.  A record that
 * one call covers, or that has become full, is made an object at once
 * (write-behind), so that a long sequential write needs little memory.  A file
 * of up to 512 bytes never has pages.
 *
 * 'stored' of the attributes is the sum over the records that are present of
 * what of each lies within the file's size. */

#include "vafs-server/branch/branch-private.h"

#include <stdlib.h>

/* One call's worth of records under one lock. */
#define WRITE_MAX (1u << 20)

/* What becomes of one record. */
struct plan {
    uint64_t index;
    bool was_present;
    bool remove; /* It becomes a hole. */
    bool value;  /* It becomes 'content'. */
    struct tree_content content;
    uint8_t inlined[TREE_INLINE_MAX];
    unsigned int first, n; /* Else these pages are replaced. */
    uint8_t *page[PAGES_MAX];
};

static uint64_t
record_size(const struct file *file)
{
    return UINT64_C(1) << file->branch->cat->record_shift;
}

/* Bytes of record 'index' within a file of 'size'. */
static uint64_t
record_len(const struct file *file, uint64_t index, uint64_t size)
{
    uint64_t start = index << file->branch->cat->record_shift;

    return start >= size ? 0 : MIN(record_size(file), size - start);
}

static int
was_present(struct file *file, uint64_t index, bool *ret)
{
    if (!record_len(file, index, file->attr.size)) {
        *ret = false;
        return 0;
    }
    return data_present(file, index, ret);
}

static void
plan_drop(struct file *file, struct plan *plan)
{
    for (unsigned int i = 0; i < plan->n; i++) {
        if (plan->page[i] && plan->page[i] != page_zero) {
            page_free(&file->branch->cat->pool, plan->page[i]);
        }
    }
    plan->n = 0;
}

/* Puts 'size' bytes as an object, with the record that the newest version has
 * there as a hint. */
static int
put_record(struct file *file, uint64_t index, const void *data, size_t size,
           struct store_needs *needs, struct tree_content *content)
{
    struct branch *branch = file->branch;
    struct tree_key key = tree_key(file->ino, TREE_RECORD, index, 0);
    struct store_put put = {.data = data, .size = size, .kind = STORE_DATA};
    struct tree_content old;
    struct tree_value value;
    struct store_id base_id;
    struct tree base;
    int error;

    if (record_len(file, index, file->attr.size)) {
        brlock_read_lock(&branch->lock);
        base = branch->base;
        brlock_read_unlock(&branch->lock);
        error = tree_get(&base, &key, &value);
        if (!error) {
            if (!tree_content_decode(value.data, value.size, &old) &&
                !old.inlined) {
                base_id = old.id;
                put.base = &base_id;
            }
            tree_value_release(&value);
        } else if (error != ENOENT) {
            return error == EBADMSG ? EIO : error;
        }
    }
    error = store_put(branch->cat->store, &put, needs);
    if (!error) {
        __atomic_fetch_add(&branch->cat->put_bytes, size, __ATOMIC_RELAXED);
        content->inlined = false;
        content->id = put.id;
        content->size = size;
    }
    return error;
}

/* Plans writing 'n' bytes at 'in' of record 'index'; 'size' is the file's size
 * afterwards.  'buf' NULL writes zeros. */
static int
plan_record(struct file *file, uint64_t index, const uint8_t *buf, size_t in,
            size_t n, uint64_t size, struct store_needs *needs,
            struct plan *plan)
{
    struct catalogue *cat = file->branch->cat;
    size_t old_len = record_len(file, index, file->attr.size);
    size_t new_len = record_len(file, index, size);
    int error;

    plan->index = index;
    plan->remove = plan->value = false;
    plan->n = 0;
    error = was_present(file, index, &plan->was_present);
    if (error) {
        return error;
    }
    if (!index && size <= TREE_INLINE_MAX) {
        memset(plan->inlined, 0, new_len);
        if (plan->was_present) {
            error = data_read_record(file, 0, plan->inlined, 0,
                                     MIN(old_len, new_len));
        }
        if (buf) {
            memcpy(plan->inlined + in, buf, n);
        } else {
            memset(plan->inlined + in, 0, n);
        }
        plan->content.inlined = true;
        plan->content.data = plan->inlined;
        plan->content.size = new_len;
        plan->value = true;
        return error;
    }
    if (buf && !in && n == record_size(file) && !file_nowait) {
        plan->value = true;
        return put_record(file, index, buf, n, needs, &plan->content);
    }

    plan->first = in / PAGE_SIZE__;
    for (size_t at = in; at < in + n;) {
        size_t start = ROUND_DOWN(at, PAGE_SIZE__);
        size_t end = MIN(in + n, start + PAGE_SIZE__);
        bool whole = at == start && end == start + PAGE_SIZE__;
        /* What of the page the old content has beyond what is written. */
        bool old = !whole && plan->was_present && old_len > start;
        uint8_t *page;

        if (!buf && !old) {
            plan->page[plan->n++] = page_zero;
            at = end;
            continue;
        }
        page = page_alloc(&cat->pool);
        if (!page) {
            return ENOMEM;
        }
        plan->page[plan->n++] = page;
        if (old) {
            size_t keep = MIN(old_len - start, PAGE_SIZE__);

            error = data_read_record(file, index, page, start, keep);
            if (error) {
                return error;
            }
            memset(page + keep, 0, PAGE_SIZE__ - keep);
        } else if (!whole) {
            memset(page, 0, PAGE_SIZE__);
        }
        if (buf) {
            memcpy(page + (at - start), buf + (at - in), end - at);
        } else {
            memset(page + (at - start), 0, end - at);
        }
        at = end;
    }
    return 0;
}

static size_t
plan_arena(const struct file *file, const struct plan *plan)
{
    return plan->value || plan->remove
               ? EDGE_PUT_MAX(TREE_RECORD_MAX)
               : EDGE_PUT_MAX(0) + LAYER_PAGES_MAX(file->branch->cat->n_pages);
}

/* Carries a plan out; edge locked.  Returns true if the record has all its
 * pages now. */
static bool
apply(struct file *file, struct plan *plan)
{
    struct branch *branch = file->branch;
    struct layer *layer = branch->layer[0];
    struct tree_key key = tree_key(file->ino, TREE_RECORD, plan->index, 0);
    uint8_t data[TREE_RECORD_MAX];
    struct val *val;

    if (plan->remove) {
        edge_remove(branch, file, &key);
        return false;
    }
    if (plan->value) {
        edge_put(branch, file, &key, data,
                 tree_content_encode(&plan->content, data));
        return false;
    }
    val = layer_pages(layer, &key);
    for (unsigned int i = 0; i < plan->n; i++) {
        layer_set_page(layer, val, plan->first + i, plan->page[i]);
    }
    plan->n = 0; /* They are the layer's now. */
    edge_list(branch, file, val);
    return val_pages(val)->present == UINT64_MAX >> (64 - layer->n_pages);
}

/* By how much 'stored' changes when the plans are carried out and the size
 * becomes 'size'.  Growth of the last record of before is included. */
static int
stored_delta(struct file *file, const struct plan *plans, unsigned int n,
             uint64_t size, int64_t *ret)
{
    uint64_t old_size = file->attr.size;
    int64_t delta = 0;
    uint64_t last;
    bool last_seen = !old_size || old_size == size;

    last = old_size ? (old_size - 1) >> file->branch->cat->record_shift : 0;
    for (unsigned int i = 0; i < n; i++) {
        if (plans[i].was_present) {
            delta -= record_len(file, plans[i].index, old_size);
        }
        if (!plans[i].remove) {
            delta += record_len(file, plans[i].index, size);
        }
        last_seen = last_seen || plans[i].index == last;
    }
    if (!last_seen && size > old_size) {
        bool present;
        int error = was_present(file, last, &present);

        if (error) {
            return error;
        }
        if (present) {
            delta += record_len(file, last, size) -
                     record_len(file, last, old_size);
        }
    }
    *ret = delta;
    return 0;
}

/* Makes an object of a record whose pages are complete.  The data lock is
 * held exclusively.  Failure does no harm: a checkpoint will do it. */
static void
write_behind(struct file *file, uint64_t index)
{
    struct branch *branch = file->branch;
    struct tree_key key = tree_key(file->ino, TREE_RECORD, index, 0);
    struct store_needs needs = {0};
    size_t size = record_size(file);
    struct tree_content content;
    uint8_t data[TREE_RECORD_MAX];
    uint8_t *buf;
    int error;

    if (record_len(file, index, file->attr.size) != size) {
        return;
    }
    buf = malloc(size);
    error = buf ? data_read_record(file, index, buf, 0, size) : ENOMEM;
    if (!error) {
        error = put_record(file, index, buf, size, &needs, &content);
    }
    free(buf);
    if (!error) {
        error = edge_begin(branch, EDGE_PUT_MAX(sizeof data));
    }
    if (!error) {
        struct val *val = layer_find(branch->layer[0], &key);

        store_needs_merge(&file->needs, &needs);
        /* If it has been frozen meanwhile the checkpoint finds the object
         * stored already. */
        if (val && val->type == VAL_PAGES) {
            edge_lock(branch);
            edge_put(branch, file, &key, data,
                     tree_content_encode(&content, data));
            edge_unlock(branch);
        }
        edge_end(branch);
    }
    store_needs_clear(&needs);
}

struct writing {
    struct plan *plans;
    unsigned int n;
    struct store_needs needs;
    uint64_t size; /* Of the file afterwards. */
};

/* Carries all plans out as one change.  'set' (or NULL) are further
 * attributes; 'clear' are mode bits that go. */
static int
commit(struct file *file, struct writing *w, int64_t more_stored,
       const struct tree_key *remove_from, const struct file_setattr *set,
       uint32_t clear, uint64_t *full, unsigned int *n_full)
{
    struct branch *branch = file->branch;
    size_t arena = EDGE_PUT_MAX(TREE_ATTR_MAX) + 2 * EDGE_RANGE_MAX;
    int64_t delta = 0, now = clock_real_ns();
    int error;

    *n_full = 0;
    error = stored_delta(file, w->plans, w->n, w->size, &delta);
    for (unsigned int i = 0; i < w->n; i++) {
        arena += plan_arena(file, &w->plans[i]);
    }
    if (!error) {
        error = edge_begin(branch, arena);
    }
    if (error) {
        return error;
    }
    delta += more_stored;
    store_needs_merge(&file->needs, &w->needs);
    edge_lock(branch);
    if (remove_from) {
        struct tree_key hi = tree_key(file->ino, TREE_RECORD + 1, 0, 0);

        edge_remove_range(branch, file, remove_from, &hi);
    }
    for (unsigned int i = 0; i < w->n; i++) {
        if (apply(file, &w->plans[i])) {
            full[(*n_full)++] = w->plans[i].index;
        }
    }
    file->attr.size = w->size;
    file->attr.stored += delta;
    branch->stored += delta;
    file->attr.mode &= ~clear;
    if (set) {
        attr_apply(&file->attr, set, now);
    } else {
        file->attr.data_version++;
    }
    if (!set || !(set->mask & FILE_SET_MTIME)) {
        file->attr.mtime = now;
    }
    file->attr.ctime = now;
    inode_put_attr(file, file);
    edge_unlock(branch);
    edge_end(branch);
    return 0;
}

static void
writing_destroy(struct file *file, struct writing *w)
{
    for (unsigned int i = 0; i < w->n; i++) {
        plan_drop(file, &w->plans[i]);
    }
    free(w->plans);
    store_needs_clear(&w->needs);
}

/* Writes at most WRITE_MAX bytes; the data lock is held exclusively.  'buf'
 * NULL writes zeros. */
static int
write_some(struct file *file, const uint8_t *buf, size_t n, uint64_t offset,
           uint32_t clear)
{
    unsigned int shift = file->branch->cat->record_shift;
    uint64_t first = offset >> shift, last = (offset + n - 1) >> shift;
    struct writing w = {.size = MAX(file->attr.size, offset + n)};
    uint64_t full[WRITE_MAX / PAGE_SIZE__ + 2];
    unsigned int n_full = 0;
    int error = 0;

    w.plans = malloc((last - first + 1) * sizeof *w.plans);
    if (!w.plans) {
        return ENOMEM;
    }
    for (uint64_t index = first; index <= last && !error; index++) {
        uint64_t start = MAX(offset, index << shift);
        uint64_t end = MIN(offset + n, (index + 1) << shift);

        error = plan_record(file, index, buf ? buf + (start - offset) : NULL,
                            start - (index << shift), end - start, w.size,
                            &w.needs, &w.plans[w.n++]);
    }
    if (!error) {
        error = commit(file, &w, 0, NULL, NULL, clear, full, &n_full);
    }
    writing_destroy(file, &w);
    for (unsigned int i = 0; i < n_full && !error && !file_nowait; i++) {
        write_behind(file, full[i]);
    }
    return error;
}

/* Mode bits that a write by somebody without privileges clears. */
static uint32_t
suid_bits(const struct file *file)
{
    uint32_t bits = file->attr.mode & S_ISUID;

    if ((file->attr.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP)) {
        bits |= S_ISGID;
    }
    return bits;
}

static int
lock_exclusive(struct file *file)
{
    if (file_nowait) {
        return pthread_rwlock_trywrlock(&file->data_lock) ? EAGAIN : 0;
    }
    pthread_rwlock_wrlock(&file->data_lock);
    return 0;
}

int
file_write(struct file *file, const void *buf, size_t size, uint64_t offset,
           unsigned int flags, size_t *ret_n)
{
    bool sync = flags & (FILE_WRITE_SYNC | FILE_WRITE_DSYNC);
    size_t done = 0;
    int error;

    if (file->type != S_IFREG) {
        return file->type == S_IFDIR ? EISDIR : EINVAL;
    }
    if (file_nowait && (sync || size > WRITE_MAX)) {
        return EAGAIN;
    }
    error = checkpoint_throttle(file->branch);
    if (!error) {
        error = lock_exclusive(file);
    }
    if (error) {
        return error;
    }
    if (flags & FILE_WRITE_APPEND) {
        offset = file->attr.size;
    }
    if (file_nowait && size &&
        offset >> file->branch->cat->record_shift !=
            (offset + size) >> file->branch->cat->record_shift) {
        /* It may fill a record, which then is hashed and packed. */
        pthread_rwlock_unlock(&file->data_lock);
        return EAGAIN;
    }
    if (offset > FILE_SIZE_MAX || size > FILE_SIZE_MAX - offset) {
        error = EFBIG;
    }
    while (!error && done < size) {
        size_t n = MIN(size - done, WRITE_MAX);

        error =
            write_some(file, (const uint8_t *) buf + done, n, offset + done,
                       flags & FILE_WRITE_KEEP_SUID ? 0 : suid_bits(file));
        done += error ? 0 : n;
    }
    pthread_rwlock_unlock(&file->data_lock);
    if (done) {
        /* More than WRITE_MAX at once may have been written in part. */
        error = 0;
    }
    if (!error && sync) {
        error = file_fsync(file, !(flags & FILE_WRITE_SYNC));
    }
    if (!error && ret_n) {
        *ret_n = done;
    }
    return error;
}

/* Bytes stored in records from 'first' on. */
static int
sum_stored(struct file *file, uint64_t first, uint64_t end, int64_t *ret)
{
    struct tree_key lo = tree_key(file->ino, TREE_RECORD, first, 0);
    struct tree_key hi = tree_key(file->ino, TREE_RECORD, end, 0);
    struct edge_scan *scan = edge_scan_new(file->branch, &lo, &hi);
    int64_t sum = 0;
    int error;

    if (!scan) {
        return ENOMEM;
    }
    do {
        error = edge_scan_next(scan);
        for (unsigned int i = 0; i < scan->n && !error; i++) {
            sum += record_len(file, scan->item[i].key.mid, file->attr.size);
        }
    } while (!error && scan->n);
    free(scan);
    *ret = sum;
    return error;
}

int
data_set_size(struct file *file, uint64_t size, const struct file_setattr *set)
{
    struct branch *branch = file->branch;
    unsigned int shift = branch->cat->record_shift;
    uint64_t old = file->attr.size,
             keep = DIV_ROUND_UP(size, record_size(file));
    struct tree_key from = tree_key(file->ino, TREE_RECORD, keep, 0);
    struct writing w = {.size = size};
    int64_t removed = 0;
    uint64_t full[1];
    unsigned int n_full;
    bool present;
    int error = 0;

    w.plans = calloc(1, sizeof *w.plans);
    if (!w.plans) {
        return ENOMEM;
    }
    if (size < old) {
        if (!size) {
            removed = file->attr.stored;
        } else {
            error = sum_stored(file, keep, UINT64_MAX, &removed);
        }
        if (!error && size & (record_size(file) - 1)) {
            /* What is cut off within the last record must read as zeros if
             * the file grows again. */
            uint64_t index = size >> shift;
            size_t in = size - (index << shift);

            error = was_present(file, index, &present);
            if (!error && present) {
                w.n = 1;
                error = plan_record(file, index, NULL, in,
                                    index || size > TREE_INLINE_MAX
                                        ? record_len(file, index, old) - in
                                        : 0,
                                    size, &w.needs, &w.plans[0]);
            }
        }
    }
    if (!error) {
        error = commit(file, &w, -removed, size < old ? &from : NULL, set, 0,
                       full, &n_full);
    }
    writing_destroy(file, &w);
    return error;
}

/* Zeros [from, to), which lies in one record, if that is present. */
static int
zero_part(struct file *file, uint64_t from, uint64_t to)
{
    uint64_t index = from >> file->branch->cat->record_shift;
    bool present;
    int error;

    if (from >= to) {
        return 0;
    }
    error = was_present(file, index, &present);
    return error || !present ? error
                             : write_some(file, NULL, to - from, from, 0);
}

/* Removes the records [first, end). */
static int
remove_records(struct file *file, uint64_t first, uint64_t end)
{
    struct tree_key lo = tree_key(file->ino, TREE_RECORD, first, 0);
    struct tree_key hi = tree_key(file->ino, TREE_RECORD, end, 0);
    struct branch *branch = file->branch;
    int64_t removed, now = clock_real_ns();
    int error;

    error = sum_stored(file, first, end, &removed);
    if (!error) {
        error =
            edge_begin(branch, EDGE_RANGE_MAX + EDGE_PUT_MAX(TREE_ATTR_MAX));
    }
    if (error) {
        return error;
    }
    edge_lock(branch);
    edge_remove_range(branch, file, &lo, &hi);
    file->attr.stored -= removed;
    branch->stored -= removed;
    file->attr.mtime = file->attr.ctime = now;
    file->attr.data_version++;
    inode_put_attr(file, file);
    edge_unlock(branch);
    edge_end(branch);
    return 0;
}

int
file_punch(struct file *file, uint64_t offset, uint64_t size)
{
    uint64_t rs, end, first, last;
    int error;

    if (file->type != S_IFREG) {
        return file->type == S_IFDIR ? EISDIR : EINVAL;
    }
    error = checkpoint_throttle(file->branch);
    if (!error) {
        error = lock_exclusive(file);
    }
    if (error) {
        return error;
    }
    rs = record_size(file);
    if (offset < file->attr.size && size) {
        end =
            size > file->attr.size - offset ? file->attr.size : offset + size;
        first = DIV_ROUND_UP(offset, rs);
        /* The end of the file counts as the end of its last record. */
        last = end == file->attr.size ? DIV_ROUND_UP(end, rs) : end / rs;
        if (first >= last) {
            error = zero_part(file, offset, end);
        } else {
            error = zero_part(file, offset, first * rs);
            if (!error) {
                error = remove_records(file, first, last);
            }
            if (!error) {
                error = zero_part(file, last * rs, end);
            }
        }
    }
    pthread_rwlock_unlock(&file->data_lock);
    return error;
}

/* Before an fsync: much data becomes objects, which then go into the journal
 * by name. */

static int
settle_record(struct file *file, uint64_t index)
{
    struct branch *branch = file->branch;
    struct tree_key key = tree_key(file->ino, TREE_RECORD, index, 0);
    size_t size = record_len(file, index, file->attr.size);
    struct store_needs needs = {0};
    struct tree_content content;
    uint8_t data[TREE_RECORD_MAX];
    uint8_t *buf;
    bool present;
    int error;

    error = was_present(file, index, &present);
    if (error || !present) {
        return error; /* Cut off or made a hole since. */
    }
    buf = malloc(size);
    error = buf ? data_read_record(file, index, buf, 0, size) : ENOMEM;
    if (!error) {
        error = put_record(file, index, buf, size, &needs, &content);
    }
    if (!error) {
        error = edge_begin(branch, EDGE_PUT_MAX(sizeof data));
    }
    if (!error) {
        store_needs_merge(&file->needs, &needs);
        edge_lock(branch);
        edge_put(branch, file, &key, data,
                 tree_content_encode(&content, data));
        edge_unlock(branch);
        edge_end(branch);
    }
    free(buf);
    store_needs_clear(&needs);
    return error;
}

int
data_settle(struct file *file, uint64_t limit)
{
    struct branch *branch = file->branch;
    uint64_t *index = NULL;
    size_t n = 0, allocated = 0, pages = 0;
    struct unlogged *u;
    struct val *val;
    int error = 0;

    pthread_mutex_lock(&branch->mutex);
    LIST_FOR_EACH (u, in_file, &file->unlogged) {
        LIST_FOR_EACH (val, unlogged, &u->vals) {
            if (val->type != VAL_PAGES) {
                continue;
            }
            pages += __builtin_popcountll(val_pages(val)->unlogged);
            if (n == allocated) {
                size_t more = MAX(64, 2 * allocated);
                uint64_t *new = realloc(index, more * sizeof *index);

                if (!new) {
                    error = ENOMEM;
                    goto out;
                }
                index = new;
                allocated = more;
            }
            index[n++] = val->key.mid;
        }
    }
out:
    pthread_mutex_unlock(&branch->mutex);
    if (pages * PAGE_SIZE__ > limit) {
        for (size_t i = 0; i < n && !error; i++) {
            error = settle_record(file, index[i]);
        }
    }
    free(index);
    return error;
}
