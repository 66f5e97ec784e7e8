/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A file layer in memory for tests; see memfs.h. */

#include "tests/crash/memfs-private.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/util.h"

static void *
memfs_check__(void *p)
{
    if (!p) {
        abort();
    }
    return p;
}

static struct memfs *
memfs_cast__(struct file_layer *layer)
{
    return CONTAINER_OF(layer, struct memfs, layer);
}

/* Faults and recording. */

/* Is this operation to fail?  With the mutex held. */
static int
memfs_fault__(struct memfs *fs, unsigned op)
{
    if (!(fs->fail_mask & op) || !fs->fail_nth) {
        return 0;
    }
    if (fs->fail_nth > 1) {
        fs->fail_nth--;
        return 0;
    }
    fs->failed = true;
    if (!fs->fail_forever) {
        fs->fail_nth = 0;
    }
    return fs->fail_error;
}

static struct memfs_record *
memfs_note__(struct memfs *fs, enum memfs_record_type type)
{
    static struct memfs_record dummy;
    struct memfs_record *r;

    if (!fs->recording) {
        return &dummy;
    }
    if (fs->n_records == fs->allocated_records) {
        fs->allocated_records = MAX(2 * fs->allocated_records, 256);
        fs->records = memfs_check__(
            realloc(fs->records, fs->allocated_records * sizeof *r));
    }
    r = &fs->records[fs->n_records++];
    memset(r, 0, sizeof *r);
    r->type = type;
    return r;
}

static void
memfs_set_name__(char to[MEMFS_NAME_MAX], const char *name)
{
    if ((size_t) snprintf(to, MEMFS_NAME_MAX, "%s", name) >= MEMFS_NAME_MAX) {
        abort();
    }
}

/* Inodes and names. */

static void
memfs_inode_unref__(struct memfs_inode *inode)
{
    if (inode && !--inode->refs) {
        free(inode->data);
        free(inode);
    }
}

static void
memfs_resize__(struct memfs_inode *inode, size_t size)
{
    if (size > inode->allocated) {
        inode->allocated = MAX(size, 2 * inode->allocated);
        inode->data = memfs_check__(realloc(inode->data, inode->allocated));
    }
    if (size > inode->size) {
        memset(inode->data + inode->size, 0, size - inode->size);
    }
    inode->size = size;
}

static void
memfs_write__(struct memfs_inode *inode, uint64_t offset, const void *data,
              size_t size)
{
    if (offset + size > inode->size) {
        memfs_resize__(inode, offset + size);
    }
    if (size) {
        memcpy(inode->data + offset, data, size);
    }
}

static struct memfs_name *
memfs_find__(struct memfs *fs, const char *name)
{
    for (size_t i = 0; i < fs->n_names; i++) {
        if (!strcmp(fs->names[i].name, name)) {
            return &fs->names[i];
        }
    }
    return NULL;
}

static void
memfs_add_name__(struct memfs *fs, const char *name, struct memfs_inode *inode)
{
    fs->names = memfs_check__(
        realloc(fs->names, (fs->n_names + 1) * sizeof *fs->names));
    memfs_set_name__(fs->names[fs->n_names].name, name);
    fs->names[fs->n_names++].inode = inode;
    if (inode) {
        inode->refs++;
    }
}

static void
memfs_remove_name__(struct memfs *fs, struct memfs_name *n)
{
    memfs_inode_unref__(n->inode);
    *n = fs->names[--fs->n_names];
}

static struct memfs_inode *
memfs_new_inode__(struct memfs *fs, unsigned number)
{
    struct memfs_inode *inode = memfs_check__(calloc(1, sizeof *inode));

    inode->number = number;
    return inode;
}

static void
memfs_rename__(struct memfs *fs, const char *from, const char *to)
{
    struct memfs_name *n = memfs_find__(fs, to);

    if (n) {
        memfs_remove_name__(fs, n);
    }
    n = memfs_find__(fs, from);
    if (n) {
        memfs_set_name__(n->name, to);
    }
}

static bool
memfs_in_dir__(const char *name, const char *dir)
{
    size_t n = strlen(dir);

    return n ? !strncmp(name, dir, n) && name[n] == '/' : !strchr(name, '/');
}

/* May the files grow by 'bytes'? */
static bool
memfs_has_room__(struct memfs *fs, const struct memfs_inode *inode,
                 uint64_t new_size)
{
    uint64_t sum = 0;

    if (!fs->capacity || new_size <= inode->size) {
        return true;
    }
    for (size_t i = 0; i < fs->n_names; i++) {
        if (fs->names[i].inode) {
            sum += ROUND_UP(fs->names[i].inode->size, 4096);
        }
    }
    return sum - ROUND_UP(inode->size, 4096) + ROUND_UP(new_size, 4096) <=
           fs->capacity;
}

/* The layer's operations. */

static int
memfs_open(struct file_layer *layer, const char *name, unsigned flags,
           int *ret_file)
{
    struct memfs *fs = memfs_cast__(layer);
    struct memfs_handle *h = NULL;
    struct memfs_name *n;
    int error;

    pthread_mutex_lock(&fs->mutex);
    error = memfs_fault__(fs, MEMFS_OPEN);
    n = memfs_find__(fs, name);
    if (!error && n && flags & FILE_EXCL) {
        error = EEXIST;
    } else if (!error && n && !n->inode) {
        error = EISDIR;
    } else if (!error && !n && !(flags & FILE_CREATE)) {
        error = ENOENT;
    }
    if (!error) {
        if (!n) {
            struct memfs_record *r = memfs_note__(fs, REC_CREATE);

            memfs_set_name__(r->name, name);
            r->inode = fs->next_inode;
            memfs_add_name__(fs, name,
                             memfs_new_inode__(fs, fs->next_inode++));
            n = memfs_find__(fs, name);
        }
        for (size_t i = 0; i < fs->n_handles && !h; i++) {
            h = fs->handles[i].used ? NULL : &fs->handles[i];
        }
        if (!h) {
            fs->handles = memfs_check__(realloc(
                fs->handles, (fs->n_handles + 1) * sizeof *fs->handles));
            h = &fs->handles[fs->n_handles++];
        }
        h->used = true;
        h->locked = false;
        h->writable = flags & FILE_WRITE;
        h->inode = n->inode;
        h->inode->refs++;
        *ret_file = (int) (h - fs->handles);
    }
    pthread_mutex_unlock(&fs->mutex);
    return error;
}

static struct memfs_handle *
memfs_handle__(struct memfs *fs, int file)
{
    if (file < 0 || (size_t) file >= fs->n_handles ||
        !fs->handles[file].used) {
        abort(); /* The store used a file that is not open. */
    }
    return &fs->handles[file];
}

static void
memfs_close(struct file_layer *layer, int file)
{
    struct memfs *fs = memfs_cast__(layer);
    struct memfs_handle *h;

    pthread_mutex_lock(&fs->mutex);
    h = memfs_handle__(fs, file);
    memfs_inode_unref__(h->inode);
    memset(h, 0, sizeof *h);
    pthread_mutex_unlock(&fs->mutex);
}

static int
memfs_pread(struct file_layer *layer, int file, void *buffer, size_t size,
            uint64_t offset, size_t *ret_n)
{
    struct memfs *fs = memfs_cast__(layer);
    struct memfs_inode *inode;
    int error;

    pthread_mutex_lock(&fs->mutex);
    inode = memfs_handle__(fs, file)->inode;
    error = memfs_fault__(fs, MEMFS_READ);
    if (!error) {
        *ret_n = offset < inode->size ? MIN(size, inode->size - offset) : 0;
        if (*ret_n) {
            memcpy(buffer, inode->data + offset, *ret_n);
        }
    }
    pthread_mutex_unlock(&fs->mutex);
    return error;
}

static int
memfs_pwritev(struct file_layer *layer, int file, const struct iovec *iov,
              int n_iov, uint64_t offset)
{
    struct memfs *fs = memfs_cast__(layer);
    struct memfs_handle *h;
    struct memfs_record *r;
    size_t size = 0, done = 0;
    uint8_t *data;
    int error;

    for (int i = 0; i < n_iov; i++) {
        size += iov[i].iov_len;
    }
    data = memfs_check__(malloc(size + 1));
    for (int i = 0; i < n_iov; i++) {
        if (iov[i].iov_len) {
            memcpy(data + done, iov[i].iov_base, iov[i].iov_len);
            done += iov[i].iov_len;
        }
    }
    pthread_mutex_lock(&fs->mutex);
    h = memfs_handle__(fs, file);
    if (!h->writable) {
        abort(); /* A read-only store writes. */
    }
    error = memfs_fault__(fs, MEMFS_WRITE);
    if (!error && !memfs_has_room__(fs, h->inode, offset + size)) {
        error = ENOSPC;
    }
    if (error) {
        size /= 2;
    }
    if (!error || memfs_has_room__(fs, h->inode, offset + size)) {
        memfs_write__(h->inode, offset, data, size);
        r = memfs_note__(fs, REC_WRITE);
        r->inode = h->inode->number;
        r->offset = offset;
        r->size = size;
        if (fs->recording) {
            r->data = data;
            data = NULL;
        }
    }
    pthread_mutex_unlock(&fs->mutex);
    free(data);
    return error;
}

static int
memfs_datasync(struct file_layer *layer, int file)
{
    struct memfs *fs = memfs_cast__(layer);
    int error;

    pthread_mutex_lock(&fs->mutex);
    error = memfs_fault__(fs, MEMFS_SYNC);
    if (!error) {
        memfs_note__(fs, REC_SYNC)->inode =
            memfs_handle__(fs, file)->inode->number;
    }
    pthread_mutex_unlock(&fs->mutex);
    return error;
}

static int
memfs_truncate(struct file_layer *layer, int file, uint64_t size)
{
    struct memfs *fs = memfs_cast__(layer);
    struct memfs_inode *inode;
    int error;

    pthread_mutex_lock(&fs->mutex);
    inode = memfs_handle__(fs, file)->inode;
    error = memfs_fault__(fs, MEMFS_RESIZE);
    if (!error && !memfs_has_room__(fs, inode, size)) {
        error = ENOSPC;
    }
    if (!error && size != inode->size) {
        struct memfs_record *r = memfs_note__(fs, REC_TRUNCATE);

        r->inode = inode->number;
        r->size = size;
        memfs_resize__(inode, size);
    }
    pthread_mutex_unlock(&fs->mutex);
    return error;
}

static int
memfs_allocate(struct file_layer *layer, int file, uint64_t offset,
               uint64_t size)
{
    struct memfs *fs = memfs_cast__(layer);
    struct memfs_inode *inode;
    int error;

    pthread_mutex_lock(&fs->mutex);
    inode = memfs_handle__(fs, file)->inode;
    error = memfs_fault__(fs, MEMFS_RESIZE);
    if (!error && !memfs_has_room__(fs, inode, offset + size)) {
        error = ENOSPC;
    }
    if (!error && offset + size > inode->size) {
        struct memfs_record *r = memfs_note__(fs, REC_ALLOCATE);

        r->inode = inode->number;
        r->size = offset + size;
        memfs_resize__(inode, offset + size);
    }
    pthread_mutex_unlock(&fs->mutex);
    return error;
}

static int
memfs_size(struct file_layer *layer, int file, uint64_t *ret_size)
{
    struct memfs *fs = memfs_cast__(layer);

    pthread_mutex_lock(&fs->mutex);
    *ret_size = memfs_handle__(fs, file)->inode->size;
    pthread_mutex_unlock(&fs->mutex);
    return 0;
}

static int
memfs_lock(struct file_layer *layer, int file, bool exclusive)
{
    struct memfs *fs = memfs_cast__(layer);
    struct memfs_handle *h;
    int error = 0;

    pthread_mutex_lock(&fs->mutex);
    h = memfs_handle__(fs, file);
    for (size_t i = 0; i < fs->n_handles; i++) {
        struct memfs_handle *o = &fs->handles[i];

        if (o != h && o->used && o->inode == h->inode && o->locked &&
            (exclusive || o->writable)) {
            error = EBUSY;
        }
    }
    h->locked = !error;
    pthread_mutex_unlock(&fs->mutex);
    return error;
}

static int
memfs_mkdir(struct file_layer *layer, const char *name)
{
    struct memfs *fs = memfs_cast__(layer);
    int error;

    pthread_mutex_lock(&fs->mutex);
    error = memfs_fault__(fs, MEMFS_NAMES);
    if (!error && !memfs_find__(fs, name)) {
        memfs_set_name__(memfs_note__(fs, REC_MKDIR)->name, name);
        memfs_add_name__(fs, name, NULL);
    }
    pthread_mutex_unlock(&fs->mutex);
    return error;
}

static int
memfs_rename(struct file_layer *layer, const char *from, const char *to)
{
    struct memfs *fs = memfs_cast__(layer);
    int error;

    pthread_mutex_lock(&fs->mutex);
    error = memfs_fault__(fs, MEMFS_NAMES);
    if (!error && !memfs_find__(fs, from)) {
        error = ENOENT;
    }
    if (!error) {
        struct memfs_record *r = memfs_note__(fs, REC_RENAME);

        memfs_set_name__(r->name, from);
        memfs_set_name__(r->to, to);
        memfs_rename__(fs, from, to);
    }
    pthread_mutex_unlock(&fs->mutex);
    return error;
}

static int
memfs_unlink(struct file_layer *layer, const char *name)
{
    struct memfs *fs = memfs_cast__(layer);
    struct memfs_name *n;
    int error;

    pthread_mutex_lock(&fs->mutex);
    error = memfs_fault__(fs, MEMFS_NAMES);
    n = memfs_find__(fs, name);
    if (!error && (!n || !n->inode)) {
        error = ENOENT;
    }
    if (!error) {
        memfs_set_name__(memfs_note__(fs, REC_UNLINK)->name, name);
        memfs_remove_name__(fs, n);
    }
    pthread_mutex_unlock(&fs->mutex);
    return error;
}

static int
memfs_sync_dir(struct file_layer *layer, const char *name)
{
    struct memfs *fs = memfs_cast__(layer);
    int error;

    pthread_mutex_lock(&fs->mutex);
    error = memfs_fault__(fs, MEMFS_SYNC);
    if (!error) {
        memfs_set_name__(memfs_note__(fs, REC_SYNC_DIR)->name, name);
    }
    pthread_mutex_unlock(&fs->mutex);
    return error;
}

static int
memfs_list(struct file_layer *layer, const char *dir,
           int (*cb)(void *aux, const char *entry), void *aux)
{
    struct memfs *fs = memfs_cast__(layer);
    struct memfs_name *names;
    size_t n;
    int error;

    /* A copy, since 'cb' may remove names. */
    pthread_mutex_lock(&fs->mutex);
    error = memfs_fault__(fs, MEMFS_NAMES);
    n = fs->n_names;
    names = memfs_check__(malloc(n * sizeof *names + 1));
    if (n) {
        memcpy(names, fs->names, n * sizeof *names);
    }
    pthread_mutex_unlock(&fs->mutex);
    for (size_t i = 0; i < n && !error; i++) {
        if (memfs_in_dir__(names[i].name, dir)) {
            const char *slash = strchr(names[i].name, '/');

            error = cb(aux, slash ? slash + 1 : names[i].name);
        }
    }
    free(names);
    return error;
}

static int
memfs_space(struct file_layer *layer, uint64_t *ret_total,
            uint64_t *ret_available)
{
    struct memfs *fs = memfs_cast__(layer);

    *ret_total = fs->capacity ? fs->capacity : UINT64_C(1) << 40;
    *ret_available = *ret_total;
    return 0;
}

static void
memfs_layer_destroy(struct file_layer *layer)
{
    /* Belongs to the test. */
}

static const struct file_ops memfs_ops = {
    .open = memfs_open,
    .close = memfs_close,
    .pread = memfs_pread,
    .pwritev = memfs_pwritev,
    .datasync = memfs_datasync,
    .truncate = memfs_truncate,
    .allocate = memfs_allocate,
    .size = memfs_size,
    .lock = memfs_lock,
    .mkdir = memfs_mkdir,
    .rename = memfs_rename,
    .unlink = memfs_unlink,
    .sync_dir = memfs_sync_dir,
    .list = memfs_list,
    .space = memfs_space,
    .destroy = memfs_layer_destroy,
};

struct memfs *
memfs_create(void)
{
    struct memfs *fs = memfs_check__(calloc(1, sizeof *fs));

    /* Images come and go by the thousand; their memory should stay. */
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);

    fs->layer.ops = &memfs_ops;
    fs->next_inode = 1;
    pthread_mutex_init(&fs->mutex, NULL);
    return fs;
}

void
memfs_destroy(struct memfs *fs)
{
    if (!fs) {
        return;
    }
    for (size_t i = 0; i < fs->n_handles; i++) {
        memfs_inode_unref__(fs->handles[i].inode);
    }
    while (fs->n_names) {
        memfs_remove_name__(fs, &fs->names[0]);
    }
    for (size_t i = 0; i < fs->n_records; i++) {
        free(fs->records[i].data);
    }
    memfs_destroy(fs->start);
    pthread_mutex_destroy(&fs->mutex);
    free(fs->names);
    free(fs->handles);
    free(fs->records);
    free(fs);
}

struct memfs *
memfs_clone(struct memfs *fs)
{
    struct memfs *clone = memfs_create();

    pthread_mutex_lock(&fs->mutex);
    clone->next_inode = fs->next_inode;
    for (size_t i = 0; i < fs->n_names; i++) {
        struct memfs_inode *inode = NULL;

        if (fs->names[i].inode) {
            inode = memfs_new_inode__(clone, fs->names[i].inode->number);
            memfs_write__(inode, 0, fs->names[i].inode->data,
                          fs->names[i].inode->size);
        }
        memfs_add_name__(clone, fs->names[i].name, inode);
    }
    pthread_mutex_unlock(&fs->mutex);
    return clone;
}

struct file_layer *
memfs_layer(struct memfs *fs)
{
    return &fs->layer;
}

void
memfs_fail(struct memfs *fs, unsigned mask, unsigned nth, int error,
           bool forever)
{
    pthread_mutex_lock(&fs->mutex);
    fs->fail_mask = mask;
    fs->fail_nth = nth;
    fs->fail_error = error;
    fs->fail_forever = forever;
    fs->failed = false;
    pthread_mutex_unlock(&fs->mutex);
}

bool
memfs_has_failed(struct memfs *fs)
{
    return fs->failed;
}

void
memfs_set_capacity(struct memfs *fs, uint64_t bytes)
{
    fs->capacity = bytes;
}

uint8_t *
memfs_data(struct memfs *fs, const char *name, size_t *ret_size)
{
    struct memfs_name *n = memfs_find__(fs, name);

    if (!n || !n->inode) {
        return NULL;
    }
    *ret_size = n->inode->size;
    return n->inode->data;
}

const char *
memfs_name(struct memfs *fs, size_t index)
{
    for (size_t i = 0; i < fs->n_names; i++) {
        if (fs->names[i].inode && !index--) {
            return fs->names[i].name;
        }
    }
    return NULL;
}

void
memfs_record(struct memfs *fs)
{
    fs->start = memfs_clone(fs);
    fs->recording = true;
}

size_t
memfs_n_recorded(struct memfs *fs)
{
    return fs->n_records;
}

void
memfs_mark(struct memfs *fs, uint64_t value)
{
    pthread_mutex_lock(&fs->mutex);
    memfs_note__(fs, REC_MARK)->offset = value;
    pthread_mutex_unlock(&fs->mutex);
}

/* Finds an inode by number, also one whose name was lost. */
static struct memfs_inode *
memfs_by_number__(struct memfs *fs, unsigned number)
{
    for (size_t i = 0; i < fs->n_names; i++) {
        if (fs->names[i].inode && fs->names[i].inode->number == number) {
            return fs->names[i].inode;
        }
    }
    return NULL;
}

void
memfs_apply(struct memfs *fs, const struct memfs_record *r, size_t limit)
{
    struct memfs_inode *inode = memfs_by_number__(fs, r->inode);
    struct memfs_name *n = memfs_find__(fs, r->name);

    switch (r->type) {
    case REC_WRITE:
        if (inode) {
            memfs_write__(inode, r->offset, r->data, MIN(r->size, limit));
        }
        break;
    case REC_TRUNCATE:
        if (inode) {
            memfs_resize__(inode, r->size);
        }
        break;
    case REC_ALLOCATE:
        if (inode && r->size > inode->size) {
            memfs_resize__(inode, r->size);
        }
        break;
    case REC_CREATE:
        if (n) {
            memfs_remove_name__(fs, n);
        }
        memfs_add_name__(fs, r->name, memfs_new_inode__(fs, r->inode));
        fs->next_inode = MAX(fs->next_inode, r->inode + 1);
        break;
    case REC_MKDIR:
        if (!n) {
            memfs_add_name__(fs, r->name, NULL);
        }
        break;
    case REC_RENAME:
        memfs_rename__(fs, r->name, r->to);
        break;
    case REC_UNLINK:
        if (n) {
            memfs_remove_name__(fs, n);
        }
        break;
    case REC_SYNC:
    case REC_SYNC_DIR:
    case REC_MARK:
        break;
    }
}
