/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file layer that fails when told to (see fault.h). */

#include "vafs-server/fault.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "lib/vlog.h"
#include "vafs-server/store/file.h"

COVERAGE_DEFINE(fault_injected);

enum operation {
    OP_OPEN,
    OP_PREAD,
    OP_PWRITEV,
    OP_DATASYNC,
    OP_TRUNCATE,
    OP_ALLOCATE,
    OP_RENAME,
    OP_SYNC_DIR,
    N_OPS
};

static const char *const names[N_OPS] = {"open",     "pread",    "pwritev",
                                         "datasync", "truncate", "allocate",
                                         "rename",   "sync_dir"};

struct fault {
    unsigned int left; /* Calls until it fails; 0: never. */
    int error;
    bool sticky;
};

struct fault_layer {
    struct file_layer up;
    struct file_layer *below;
    pthread_mutex_t mutex;
    struct fault faults[N_OPS];
};

/* The error that this call is to fail with, or 0. */
static int
draw(struct file_layer *layer, enum operation op)
{
    struct fault_layer *fl = CONTAINER_OF(layer, struct fault_layer, up);
    struct fault *f = &fl->faults[op];
    int error = 0;

    pthread_mutex_lock(&fl->mutex);
    if (f->left && !--f->left) {
        error = f->error;
        f->left = f->sticky;
    }
    pthread_mutex_unlock(&fl->mutex);
    if (error) {
        COVERAGE_INC(fault_injected);
        vlog_info("fault: %s fails with \"%s\"", names[op], strerror(error));
    }
    return error;
}

#define BELOW(LAYER) (CONTAINER_OF(LAYER, struct fault_layer, up)->below)
#define PASS(LAYER, OP, CALL, ...) \
    int error = draw(LAYER, OP);   \
    return error ? error : BELOW(LAYER)->ops->CALL(BELOW(LAYER), __VA_ARGS__)

static int
fl_open(struct file_layer *l, const char *name, unsigned flags, int *ret_file)
{
    PASS(l, OP_OPEN, open, name, flags, ret_file);
}

static void
fl_close(struct file_layer *l, int file)
{
    BELOW(l)->ops->close(BELOW(l), file);
}

static int
fl_pread(struct file_layer *l, int file, void *buf, size_t size,
         uint64_t offset, size_t *ret_n)
{
    PASS(l, OP_PREAD, pread, file, buf, size, offset, ret_n);
}

static int
fl_pwritev(struct file_layer *l, int file, const struct iovec *iov, int n_iov,
           uint64_t offset)
{
    PASS(l, OP_PWRITEV, pwritev, file, iov, n_iov, offset);
}

static int
fl_datasync(struct file_layer *l, int file)
{
    PASS(l, OP_DATASYNC, datasync, file);
}

static int
fl_truncate(struct file_layer *l, int file, uint64_t size)
{
    PASS(l, OP_TRUNCATE, truncate, file, size);
}

static int
fl_allocate(struct file_layer *l, int file, uint64_t offset, uint64_t size)
{
    PASS(l, OP_ALLOCATE, allocate, file, offset, size);
}

static int
fl_size(struct file_layer *l, int file, uint64_t *ret_size)
{
    return BELOW(l)->ops->size(BELOW(l), file, ret_size);
}

static int
fl_lock(struct file_layer *l, int file, bool exclusive)
{
    return BELOW(l)->ops->lock(BELOW(l), file, exclusive);
}

static int
fl_mkdir(struct file_layer *l, const char *name)
{
    return BELOW(l)->ops->mkdir(BELOW(l), name);
}

static int
fl_rename(struct file_layer *l, const char *from, const char *to)
{
    PASS(l, OP_RENAME, rename, from, to);
}

static int
fl_unlink(struct file_layer *l, const char *name)
{
    return BELOW(l)->ops->unlink(BELOW(l), name);
}

static int
fl_sync_dir(struct file_layer *l, const char *name)
{
    PASS(l, OP_SYNC_DIR, sync_dir, name);
}

static int
fl_list(struct file_layer *l, const char *name,
        int (*cb)(void *aux, const char *entry), void *aux)
{
    return BELOW(l)->ops->list(BELOW(l), name, cb, aux);
}

static int
fl_space(struct file_layer *l, uint64_t *ret_total, uint64_t *ret_available)
{
    return BELOW(l)->ops->space(BELOW(l), ret_total, ret_available);
}

static void
fl_destroy(struct file_layer *l)
{
    struct fault_layer *fl = CONTAINER_OF(l, struct fault_layer, up);

    file_layer_destroy(fl->below);
    pthread_mutex_destroy(&fl->mutex);
    free(fl);
}

static const struct file_ops fault_ops = {
    .open = fl_open,
    .close = fl_close,
    .pread = fl_pread,
    .pwritev = fl_pwritev,
    .datasync = fl_datasync,
    .truncate = fl_truncate,
    .allocate = fl_allocate,
    .size = fl_size,
    .lock = fl_lock,
    .mkdir = fl_mkdir,
    .rename = fl_rename,
    .unlink = fl_unlink,
    .sync_dir = fl_sync_dir,
    .list = fl_list,
    .space = fl_space,
    .destroy = fl_destroy,
};

int
fault_layer_create(struct file_layer *below, struct file_layer **ret)
{
    struct fault_layer *fl = calloc(1, sizeof *fl);

    if (!fl) {
        return ENOMEM;
    }
    fl->up.ops = &fault_ops;
    fl->below = below;
    pthread_mutex_init(&fl->mutex, NULL);
    *ret = &fl->up;
    return 0;
}

int
fault_set(struct file_layer *layer, const char *operation, unsigned int n,
          int error, bool sticky)
{
    struct fault_layer *fl = CONTAINER_OF(layer, struct fault_layer, up);

    for (int i = 0; i < N_OPS; i++) {
        if (!strcmp(operation, names[i])) {
            pthread_mutex_lock(&fl->mutex);
            fl->faults[i] = (struct fault){n, error, sticky};
            pthread_mutex_unlock(&fl->mutex);
            return 0;
        }
    }
    return EINVAL;
}
