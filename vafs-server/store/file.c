/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file layer on a real directory; see file.h. */

#include "vafs-server/store/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/util.h"

struct file_real {
    struct file_layer layer;
    int dir; /* Descriptor of the store's directory. */
};

static struct file_real *
file_real_cast(struct file_layer *layer)
{
    return CONTAINER_OF(layer, struct file_real, layer);
}

static int
file_real_open(struct file_layer *layer, const char *name, unsigned flags,
               int *ret_file)
{
    int oflags = O_CLOEXEC | O_NOFOLLOW;
    int fd;

    oflags |= flags & FILE_WRITE ? O_RDWR : O_RDONLY;
    oflags |= flags & FILE_CREATE ? O_CREAT : 0;
    oflags |= flags & FILE_EXCL ? O_EXCL : 0;
    fd = openat(file_real_cast(layer)->dir, name, oflags, 0600);
    if (fd < 0) {
        return errno;
    }
    *ret_file = fd;
    return 0;
}

static void
file_real_close(struct file_layer *layer, int file)
{
    close(file);
}

static int
file_real_pread(struct file_layer *layer, int file, void *buffer, size_t size,
                uint64_t offset, size_t *ret_n)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = pread(file, (char *) buffer + done, size - done,
                          (off_t) (offset + done));

        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno;
        }
        if (!n) {
            break;
        }
        done += (size_t) n;
    }
    *ret_n = done;
    return 0;
}

static int
file_real_pwritev(struct file_layer *layer, int file, const struct iovec *iov,
                  int n_iov, uint64_t offset)
{
    size_t skip = 0; /* Bytes of iov[0] already written. */

    while (n_iov) {
        ssize_t n;

        if (skip == iov->iov_len) {
            iov++;
            n_iov--;
            skip = 0;
            continue;
        }
        if (skip) {
            n = pwrite(file, (char *) iov->iov_base + skip,
                       iov->iov_len - skip, (off_t) offset);
        } else {
            n = pwritev(file, iov, MIN(n_iov, IOV_MAX), (off_t) offset);
        }
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno;
        }
        if (!n) {
            return EIO;
        }
        offset += (uint64_t) n;
        while (n) {
            size_t left = iov->iov_len - skip;

            if ((size_t) n < left) {
                skip += (size_t) n;
                break;
            }
            n -= (ssize_t) left;
            iov++;
            n_iov--;
            skip = 0;
        }
    }
    return 0;
}

static int
file_real_datasync(struct file_layer *layer, int file)
{
    /* Not repeated on EINTR: what the kernel did then is not specified, and a
     * second call might succeed without having written anything. */
    return fdatasync(file) ? errno : 0;
}

static int
file_real_truncate(struct file_layer *layer, int file, uint64_t size)
{
    while (ftruncate(file, (off_t) size)) {
        if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

static int
file_real_allocate(struct file_layer *layer, int file, uint64_t offset,
                   uint64_t size)
{
    while (fallocate(file, 0, (off_t) offset, (off_t) size)) {
        if (errno == EOPNOTSUPP) {
            /* A file system without reserves: grow it at least, so that
             * readers of the tail see zeros. */
            struct stat st;

            if (fstat(file, &st)) {
                return errno;
            }
            return (uint64_t) st.st_size >= offset + size
                       ? 0
                       : file_real_truncate(layer, file, offset + size);
        }
        if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

static int
file_real_size(struct file_layer *layer, int file, uint64_t *ret_size)
{
    struct stat st;

    if (fstat(file, &st)) {
        return errno;
    }
    *ret_size = (uint64_t) st.st_size;
    return 0;
}

static int
file_real_lock(struct file_layer *layer, int file, bool exclusive)
{
    /* flock() belongs to the open file, so it also keeps out a second open in
     * this process. */
    while (flock(file, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB)) {
        if (errno != EINTR) {
            return errno == EWOULDBLOCK ? EBUSY : errno;
        }
    }
    return 0;
}

static int
file_real_mkdir(struct file_layer *layer, const char *name)
{
    if (mkdirat(file_real_cast(layer)->dir, name, 0700) && errno != EEXIST) {
        return errno;
    }
    return 0;
}

static int
file_real_rename(struct file_layer *layer, const char *from, const char *to)
{
    int dir = file_real_cast(layer)->dir;

    return renameat(dir, from, dir, to) ? errno : 0;
}

static int
file_real_unlink(struct file_layer *layer, const char *name)
{
    return unlinkat(file_real_cast(layer)->dir, name, 0) ? errno : 0;
}

static int
file_real_open_dir__(struct file_layer *layer, const char *name, int *ret_fd)
{
    int fd = openat(file_real_cast(layer)->dir, *name ? name : ".",
                    O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        return errno;
    }
    *ret_fd = fd;
    return 0;
}

static int
file_real_sync_dir(struct file_layer *layer, const char *name)
{
    int error, fd = -1;

    error = file_real_open_dir__(layer, name, &fd);
    if (error) {
        return error;
    }
    error = fsync(fd) ? errno : 0;
    close(fd);
    return error;
}

static int
file_real_list(struct file_layer *layer, const char *name,
               int (*cb)(void *aux, const char *entry), void *aux)
{
    struct dirent *de;
    int error, fd = -1;
    DIR *dir;

    error = file_real_open_dir__(layer, name, &fd);
    if (error) {
        return error;
    }
    dir = fdopendir(fd);
    if (!dir) {
        error = errno;
        close(fd);
        return error;
    }
    while (!error) {
        errno = 0;
        de = readdir(dir);
        if (!de) {
            error = errno;
            break;
        }
        if (strcmp(de->d_name, ".") && strcmp(de->d_name, "..")) {
            error = cb(aux, de->d_name);
        }
    }
    closedir(dir);
    return error;
}

static int
file_real_space(struct file_layer *layer, uint64_t *ret_total,
                uint64_t *ret_available)
{
    struct statvfs st;

    if (fstatvfs(file_real_cast(layer)->dir, &st)) {
        return errno;
    }
    *ret_total = (uint64_t) st.f_blocks * st.f_frsize;
    *ret_available = (uint64_t) st.f_bavail * st.f_frsize;
    return 0;
}

static void
file_real_destroy(struct file_layer *layer)
{
    struct file_real *real = file_real_cast(layer);

    close(real->dir);
    free(real);
}

static const struct file_ops file_real_ops = {
    .open = file_real_open,
    .close = file_real_close,
    .pread = file_real_pread,
    .pwritev = file_real_pwritev,
    .datasync = file_real_datasync,
    .truncate = file_real_truncate,
    .allocate = file_real_allocate,
    .size = file_real_size,
    .lock = file_real_lock,
    .mkdir = file_real_mkdir,
    .rename = file_real_rename,
    .unlink = file_real_unlink,
    .sync_dir = file_real_sync_dir,
    .list = file_real_list,
    .space = file_real_space,
    .destroy = file_real_destroy,
};

int
file_layer_create(const char *dir, bool create, struct file_layer **ret_layer)
{
    struct file_real *real;

    if (create && mkdir(dir, 0700) && errno != EEXIST) {
        return errno;
    }
    real = malloc(sizeof *real);
    if (!real) {
        return ENOMEM;
    }
    real->layer.ops = &file_real_ops;
    real->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (real->dir < 0) {
        int error = errno;

        free(real);
        return error;
    }
    *ret_layer = &real->layer;
    return 0;
}

void
file_layer_destroy(struct file_layer *layer)
{
    if (layer) {
        layer->ops->destroy(layer);
    }
}

int
file_pread(struct file_layer *layer, int file, void *buffer, size_t size,
           uint64_t offset, size_t *ret_n)
{
    return layer->ops->pread(layer, file, buffer, size, offset, ret_n);
}

int
file_pread_all(struct file_layer *layer, int file, void *buffer, size_t size,
               uint64_t offset)
{
    size_t n;
    int error;

    error = layer->ops->pread(layer, file, buffer, size, offset, &n);
    return error ? error : n == size ? 0 : EBADMSG;
}

int
file_pwrite(struct file_layer *layer, int file, const void *buffer,
            size_t size, uint64_t offset)
{
    struct iovec iov = {.iov_base = (void *) buffer, .iov_len = size};

    return layer->ops->pwritev(layer, file, &iov, 1, offset);
}
