/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vafs-server/branch in memory, as small as can be: what the 9P server's unit
 * tests and fuzz target stand on.  Linear searches, one lock for all.
 *
 * 'fake_wait' makes calls answer EAGAIN under file_set_nowait() now and then,
 * as a cold cache does; 'fake_fsync_gate' holds file_fsync() back. */

#include "tests/unit/fake-branch.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "lib/clock.h"
#include "lib/list.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/branch/file.h"

#define SIZE_LIMIT (8u << 20) /* Content beyond it is not kept: ENOSPC. */

struct entry {
    struct list link; /* In dir->entries. */
    uint64_t cookie;
    struct file *file;
    size_t len;
    char name[256];
};

struct xattr {
    struct list link;
    char *name;
    size_t name_len, size;
    char *value;
};

struct file {
    struct file_attr attr;
    unsigned int n_refs;
    struct list entries, xattrs;
    struct file *parent; /* Of directories. */
    char *data;
    size_t capacity;
};

struct branch {
    int unused;
};

static struct branch branch_main;
static struct file *root;
static uint64_t next_ino = 1, next_cookie = 3;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static __thread bool is_nowait;
int fake_wait;
static unsigned int n_calls;
pthread_mutex_t fake_fsync_gate = PTHREAD_MUTEX_INITIALIZER;
unsigned int fake_n_files;

void
file_set_nowait(bool nowait)
{
    is_nowait = nowait;
}

/* Whether this call is one that would wait. */
static bool
would_wait(void)
{
    unsigned int n = __atomic_add_fetch(&n_calls, 1, __ATOMIC_RELAXED);

    return is_nowait && fake_wait && n % fake_wait == 0;
}

#define ENTER()                     \
    do {                            \
        if (would_wait()) {         \
            return EAGAIN;          \
        }                           \
        pthread_mutex_lock(&mutex); \
    } while (0)

static int
leave(int error)
{
    pthread_mutex_unlock(&mutex);
    return error;
}

static struct file *
new_file(uint32_t mode, const struct file_cred *cred)
{
    struct file *f = calloc(1, sizeof *f);

    list_init(&f->entries);
    list_init(&f->xattrs);
    f->attr.ino = next_ino++;
    f->attr.gen = 77;
    f->attr.mode = mode;
    f->attr.uid = cred ? cred->uid : 0;
    f->attr.gid = cred ? cred->gid : 0;
    f->attr.nlink = S_ISDIR(mode) ? 2 : 1;
    f->attr.atime = f->attr.mtime = f->attr.ctime = f->attr.btime =
        clock_real_ns();
    f->n_refs = 1; /* The names' together. */
    fake_n_files++;
    return f;
}

static void
changed(struct file *f)
{
    f->attr.data_version++;
    f->attr.mtime = f->attr.ctime = clock_real_ns();
}

static void
unref__(struct file *f)
{
    if (--f->n_refs) {
        return;
    }
    while (!list_is_empty(&f->entries)) {
        free(CONTAINER_OF(list_pop_front(&f->entries), struct entry, link));
    }
    while (!list_is_empty(&f->xattrs)) {
        struct xattr *x =
            CONTAINER_OF(list_pop_front(&f->xattrs), struct xattr, link);

        free(x->name);
        free(x->value);
        free(x);
    }
    fake_n_files--;
    free(f->data);
    free(f);
}

int
branch_open(struct catalogue *c UNUSED, const char *name,
            struct branch **ret_branch)
{
    if (strcmp(name, "main")) {
        return ENOENT;
    }
    if (!root) {
        root = new_file(S_IFDIR | 0755, NULL);
        root->parent = root;
    }
    *ret_branch = &branch_main;
    return 0;
}

void
branch_close(struct branch *b UNUSED)
{
}

uint64_t
branch_id(const struct branch *b UNUSED)
{
    return 1;
}

int
branch_statfs(struct branch *b UNUSED, struct branch_statfs *ret)
{
    *ret = (struct branch_statfs){4096, 1000, 500, 500, 1000, 500, 1, 255};
    return 0;
}

int
file_root(struct branch *b UNUSED, struct file **ret_file)
{
    *ret_file = file_ref(root);
    return 0;
}

struct file *
file_ref(struct file *f)
{
    __atomic_fetch_add(&f->n_refs, 1, __ATOMIC_RELAXED);
    return f;
}

void
file_unref(struct file *f)
{
    if (f) {
        pthread_mutex_lock(&mutex);
        unref__(f);
        pthread_mutex_unlock(&mutex);
    }
}

uint64_t
file_ino(const struct file *f)
{
    return f->attr.ino;
}

uint32_t
file_type(const struct file *f)
{
    return f->attr.mode & S_IFMT;
}

static struct entry *
find(struct file *dir, const char *name, size_t len)
{
    struct entry *e;

    LIST_FOR_EACH (e, link, &dir->entries) {
        if (e->len == len && !memcmp(e->name, name, len)) {
            return e;
        }
    }
    return NULL;
}

static int
check(struct file *dir, const char *name, size_t len)
{
    if (!S_ISDIR(dir->attr.mode)) {
        return ENOTDIR;
    }
    if (len > 255) {
        return ENAMETOOLONG;
    }
    if (!len || memchr(name, '/', len) || memchr(name, 0, len) ||
        (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))) {
        return EINVAL;
    }
    return dir->attr.nlink ? 0 : ENOENT;
}

int
file_lookup(struct file *dir, const char *name, size_t len,
            struct file **ret_file)
{
    struct entry *e;

    ENTER();
    if (!S_ISDIR(dir->attr.mode)) {
        return leave(ENOTDIR);
    }
    if (len == 1 && *name == '.') {
        *ret_file = file_ref(dir);
        return leave(0);
    }
    if (len == 2 && !memcmp(name, "..", 2)) {
        if (!dir->attr.nlink) {
            return leave(ENOENT);
        }
        *ret_file = file_ref(dir->parent);
        return leave(0);
    }
    e = find(dir, name, len);
    if (e) {
        *ret_file = file_ref(e->file);
    }
    return leave(e ? 0 : ENOENT);
}

static struct entry *
find_parent(struct file *dir, struct file *f, struct file **ret_dir)
{
    struct entry *e, *found;

    LIST_FOR_EACH (e, link, &dir->entries) {
        if (e->file == f) {
            *ret_dir = dir;
            return e;
        }
        found = S_ISDIR(e->file->attr.mode) ? find_parent(e->file, f, ret_dir)
                                            : NULL;
        if (found) {
            return found;
        }
    }
    return NULL;
}

int
file_name(struct file *f, struct file **ret_dir, char name[FILE_NAME_MAX],
          size_t *ret_len)
{
    struct entry *e;
    struct file *dir;

    ENTER();
    e = find_parent(root, f, &dir);
    if (!e) {
        return leave(ENOENT);
    }
    memcpy(name, e->name, e->len);
    *ret_len = e->len;
    *ret_dir = file_ref(dir);
    return leave(0);
}

static void
add(struct file *dir, const char *name, size_t len, struct file *f)
{
    struct entry *e = calloc(1, sizeof *e);

    e->file = f;
    e->cookie = next_cookie++;
    e->len = len;
    memcpy(e->name, name, len);
    list_push_back(&dir->entries, &e->link);
    if (S_ISDIR(f->attr.mode)) {
        f->parent = dir;
        dir->attr.nlink++;
    }
    changed(dir);
}

static int
make(struct file *dir, const char *name, size_t len, uint32_t mode,
     const struct file_cred *cred, struct file **ret_file)
{
    int error = check(dir, name, len);
    struct file *f;

    if (!error && find(dir, name, len)) {
        error = EEXIST;
    }
    if (error) {
        return error;
    }
    f = new_file(mode, cred);
    add(dir, name, len, f);
    if (ret_file) {
        *ret_file = file_ref(f);
    }
    return 0;
}

int
file_create(struct file *dir, const char *name, size_t len, uint32_t mode,
            const struct file_cred *cred, struct file **ret_file)
{
    ENTER();
    return leave(make(dir, name, len, S_IFREG | mode, cred, ret_file));
}

int
file_mkdir(struct file *dir, const char *name, size_t len, uint32_t mode,
           const struct file_cred *cred, struct file **ret_file)
{
    ENTER();
    return leave(make(dir, name, len, S_IFDIR | mode, cred, ret_file));
}

int
file_symlink(struct file *dir, const char *name, size_t len,
             const char *target, size_t target_len,
             const struct file_cred *cred, struct file **ret_file)
{
    int error;

    ENTER();
    error = make(dir, name, len, S_IFLNK | 0777, cred, ret_file);
    if (!error) {
        (*ret_file)->data = malloc(target_len);
        memcpy((*ret_file)->data, target, target_len);
        (*ret_file)->attr.size = target_len;
    }
    return leave(error);
}

int
file_mknod(struct file *dir, const char *name, size_t len, uint32_t mode,
           uint64_t rdev, const struct file_cred *cred, struct file **ret_file)
{
    int error;

    ENTER();
    switch (mode & S_IFMT) {
    case 0:
        mode |= S_IFREG;
    case S_IFREG:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
        break;
    default:
        return leave(EINVAL);
    }
    error = make(dir, name, len, mode, cred, ret_file);
    if (!error) {
        (*ret_file)->attr.rdev = rdev;
    }
    return leave(error);
}

int
file_link(struct file *dir, const char *name, size_t len, struct file *f)
{
    int error;

    ENTER();
    error = check(dir, name, len);
    if (!error && S_ISDIR(f->attr.mode)) {
        error = EPERM;
    } else if (!error && !f->attr.nlink) {
        error = ENOENT;
    } else if (!error && find(dir, name, len)) {
        error = EEXIST;
    }
    if (!error) {
        add(dir, name, len, f);
        f->attr.nlink++;
    }
    return leave(error);
}

static void
drop(struct file *dir, struct entry *e)
{
    struct file *f = e->file;

    list_remove(&e->link);
    free(e);
    changed(dir);
    if (S_ISDIR(f->attr.mode)) {
        dir->attr.nlink--;
        f->attr.nlink = 0;
    } else {
        f->attr.nlink--;
    }
    if (!f->attr.nlink) {
        unref__(f);
    }
}

static int
remove_name(struct file *dir, const char *name, size_t len, bool is_dir)
{
    int error = check(dir, name, len);
    struct entry *e = error ? NULL : find(dir, name, len);

    if (error) {
        return error;
    }
    if (!e) {
        return ENOENT;
    }
    if (S_ISDIR(e->file->attr.mode) != is_dir) {
        return is_dir ? ENOTDIR : EISDIR;
    }
    if (is_dir && !list_is_empty(&e->file->entries)) {
        return ENOTEMPTY;
    }
    drop(dir, e);
    return 0;
}

int
file_unlink(struct file *dir, const char *name, size_t len, unsigned int flags)
{
    ENTER();
    return leave(remove_name(dir, name, len, flags != 0));
}

int
file_remove(struct file *f)
{
    struct file *dir;
    struct entry *e;

    ENTER();
    e = find_parent(root, f, &dir);
    return leave(e ? remove_name(dir, e->name, e->len, S_ISDIR(f->attr.mode))
                   : ENOENT);
}

static bool
is_above(struct file *dir, struct file *f)
{
    while (f != dir && f != root) {
        f = f->parent;
    }
    return f == dir;
}

static int
rename__(struct file *old_dir, const char *old_name, size_t old_len,
         struct file *new_dir, const char *new_name, size_t new_len)
{
    struct entry *e, *victim;
    struct file *f;
    int error = check(old_dir, old_name, old_len);

    error = error ? error : check(new_dir, new_name, new_len);
    if (error) {
        return error;
    }
    e = find(old_dir, old_name, old_len);
    victim = find(new_dir, new_name, new_len);
    if (!e) {
        return ENOENT;
    }
    f = e->file;
    if (S_ISDIR(f->attr.mode) && is_above(f, new_dir)) {
        return EINVAL;
    }
    if (victim && victim->file == f) {
        return 0;
    }
    if (victim) {
        if (S_ISDIR(victim->file->attr.mode) != S_ISDIR(f->attr.mode)) {
            return S_ISDIR(f->attr.mode) ? ENOTDIR : EISDIR;
        }
        if (!list_is_empty(&victim->file->entries)) {
            return ENOTEMPTY;
        }
        drop(new_dir, victim);
    }
    list_remove(&e->link);
    free(e);
    if (S_ISDIR(f->attr.mode)) {
        old_dir->attr.nlink--;
    }
    changed(old_dir);
    add(new_dir, new_name, new_len, f);
    return 0;
}

int
file_rename(struct file *old_dir, const char *old_name, size_t old_len,
            struct file *new_dir, const char *new_name, size_t new_len,
            unsigned int flags UNUSED)
{
    ENTER();
    return leave(
        rename__(old_dir, old_name, old_len, new_dir, new_name, new_len));
}

int
file_readdir(struct file *dir, uint64_t cookie,
             bool (*emit)(const struct file_dirent *, void *aux), void *aux)
{
    struct entry *e;

    ENTER();
    if (cookie < 1 &&
        !emit(&(struct file_dirent){dir->attr.ino, 1, DT_DIR, ".", 1}, aux)) {
        return leave(0);
    }
    if (cookie < 2 &&
        !emit(&(struct file_dirent){dir->parent->attr.ino, 2, DT_DIR, "..", 2},
              aux)) {
        return leave(0);
    }
    LIST_FOR_EACH (e, link, &dir->entries) {
        if (e->cookie > cookie &&
            !emit(&(struct file_dirent){e->file->attr.ino, e->cookie,
                                        e->file->attr.mode >> 12, e->name,
                                        e->len},
                  aux)) {
            break;
        }
    }
    return leave(0);
}

int
file_getattr(struct file *f, struct file_attr *ret_attr)
{
    ENTER();
    *ret_attr = f->attr;
    return leave(0);
}

static int
set_size(struct file *f, uint64_t size)
{
    if (!S_ISREG(f->attr.mode)) {
        return S_ISDIR(f->attr.mode) ? EISDIR : EINVAL;
    }
    if (size > FILE_SIZE_MAX) {
        return EFBIG;
    }
    if (size < f->capacity) {
        memset(f->data + size, 0, f->capacity - size);
    }
    f->attr.size = size;
    return 0;
}

int
file_setattr(struct file *f, const struct file_setattr *s)
{
    int error = 0;

    ENTER();
    if (s->mask & FILE_SET_SIZE) {
        error = set_size(f, s->size);
    }
    if (error) {
        return leave(error);
    }
    if (s->mask & FILE_SET_MODE) {
        f->attr.mode = (f->attr.mode & S_IFMT) | (s->mode & 07777);
    }
    f->attr.uid = s->mask & FILE_SET_UID ? s->uid : f->attr.uid;
    f->attr.gid = s->mask & FILE_SET_GID ? s->gid : f->attr.gid;
    if (s->mask & FILE_SET_SIZE) {
        changed(f);
    }
    if (s->mask & FILE_SET_ATIME) {
        f->attr.atime = s->mask & FILE_SET_ATIME_SET
                            ? s->atime
                            : (int64_t) clock_real_ns();
    }
    if (s->mask & FILE_SET_MTIME) {
        f->attr.mtime = s->mask & FILE_SET_MTIME_SET
                            ? s->mtime
                            : (int64_t) clock_real_ns();
    }
    f->attr.data_version++;
    return leave(0);
}

int
file_readlink(struct file *f, char *buf, size_t size, size_t *ret_len)
{
    ENTER();
    if (!S_ISLNK(f->attr.mode)) {
        return leave(EINVAL);
    }
    *ret_len = MIN(size, f->attr.size);
    memcpy(buf, f->data, *ret_len);
    return leave(0);
}

int
file_read(struct file *f, void *buf, size_t size, uint64_t offset,
          size_t *ret_n)
{
    size_t n;

    ENTER();
    n = offset < f->attr.size ? MIN(size, f->attr.size - offset) : 0;
    memset(buf, 0, n);
    if (offset < f->capacity) {
        memcpy(buf, f->data + offset, MIN(n, f->capacity - offset));
    }
    *ret_n = n;
    return leave(0);
}

int
file_write(struct file *f, const void *buf, size_t size, uint64_t offset,
           unsigned int flags, size_t *ret_n)
{
    ENTER();
    if (flags & FILE_WRITE_APPEND) {
        offset = f->attr.size;
    }
    if (offset > FILE_SIZE_MAX || size > FILE_SIZE_MAX - offset) {
        return leave(EFBIG);
    }
    if (offset + size <= SIZE_LIMIT && offset + size > f->capacity) {
        size_t capacity = ROUND_UP(offset + size, 4096);

        f->data = realloc(f->data, capacity);
        memset(f->data + f->capacity, 0, capacity - f->capacity);
        f->capacity = capacity;
    }
    if (offset + size <= f->capacity) {
        memcpy(f->data + offset, buf, size);
    }
    f->attr.size = MAX(f->attr.size, offset + size);
    if (!(flags & FILE_WRITE_KEEP_SUID)) {
        f->attr.mode &= ~(S_ISUID | S_ISGID);
    }
    changed(f);
    if (ret_n) {
        *ret_n = size;
    }
    return leave(0);
}

static struct xattr *
find_xattr(struct file *f, const char *name, size_t len)
{
    struct xattr *x;

    LIST_FOR_EACH (x, link, &f->xattrs) {
        if (x->name_len == len && !memcmp(x->name, name, len)) {
            return x;
        }
    }
    return NULL;
}

static int
give(const char *value, size_t have, void *buf, size_t size, size_t *ret_size)
{
    if (size && size < have) {
        return ERANGE;
    }
    if (size) {
        memcpy(buf, value, have);
    }
    *ret_size = have;
    return 0;
}

int
file_getxattr(struct file *f, const char *name, size_t len, void *buf,
              size_t size, size_t *ret_size)
{
    struct xattr *x;

    ENTER();
    x = find_xattr(f, name, len);
    return leave(x ? give(x->value, x->size, buf, size, ret_size) : ENODATA);
}

int
file_setxattr(struct file *f, const char *name, size_t len, const void *value,
              size_t size, unsigned int flags)
{
    struct xattr *x;

    ENTER();
    x = find_xattr(f, name, len);
    if (x && flags & XATTR_CREATE) {
        return leave(EEXIST);
    }
    if (!x && flags & XATTR_REPLACE) {
        return leave(ENODATA);
    }
    if (!x) {
        x = calloc(1, sizeof *x);
        x->name = strndup(name, len);
        x->name_len = len;
        list_push_back(&f->xattrs, &x->link);
    }
    free(x->value);
    x->value = malloc(size ? size : 1);
    memcpy(x->value, value, size);
    x->size = size;
    return leave(0);
}

int
file_listxattr(struct file *f, char *buf, size_t size, size_t *ret_size)
{
    char *all = malloc(1 << 20);
    size_t n = 0;
    struct xattr *x;
    int error;

    if (would_wait()) {
        free(all);
        return EAGAIN;
    }
    pthread_mutex_lock(&mutex);
    LIST_FOR_EACH (x, link, &f->xattrs) {
        memcpy(all + n, x->name, x->name_len + 1);
        n += x->name_len + 1;
        if (n > (1 << 20) - 1000) {
            break;
        }
    }
    error = give(all, n, buf, size, ret_size);
    free(all);
    return leave(error);
}

int
file_removexattr(struct file *f, const char *name, size_t len)
{
    struct xattr *x;

    ENTER();
    x = find_xattr(f, name, len);
    if (x) {
        list_remove(&x->link);
        free(x->name);
        free(x->value);
        free(x);
    }
    return leave(x ? 0 : ENODATA);
}

int
file_fsync(struct file *f UNUSED, bool datasync UNUSED)
{
    pthread_mutex_lock(&fake_fsync_gate);
    pthread_mutex_unlock(&fake_fsync_gate);
    return 0;
}
