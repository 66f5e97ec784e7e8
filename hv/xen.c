/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hv/hv.h on a real Xen: the devices of the Linux kernel by their ioctls, and
 * libxenstore.  The only file that includes headers of libxen*.
 *
 * The devices are driven directly and not through libxengnttab and
 * libxenevtchn, because those cannot be given a descriptor that another
 * process has opened, which is how a worker gets by without privileges.
 *
 * gntdev: IOCTL_GNTDEV_MAP_GRANT_REF only notes the references; the
 * hypervisor is asked at mmap(), which is where a bad reference fails.  One
 * range is one mapping and is unmapped as a whole, first munmap() and then
 * IOCTL_GNTDEV_UNMAP_GRANT_REF.
 *
 * evtchn: read() gives ports that the kernel then keeps masked until they are
 * written back, just the contract of hv_evtchn_read() and _unmask().
 */
#include "hv/hv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/evtchn.h>
#include <xen/gntalloc.h>
#include <xen/gntdev.h>
#include <xenstore.h>

#include "hv/provider.h"
#include "lib/util.h"

#define DEV_GNTDEV "/dev/xen/gntdev"
#define DEV_GNTALLOC "/dev/xen/gntalloc"
#define DEV_EVTCHN "/dev/xen/evtchn"

struct xen_hv {
    struct hv up;
    int gntdev; /* -1 = not open, likewise below. */
    int gntalloc;
    int evtchn;
    struct xs_handle *xs; /* NULL = not open. */
};

struct xen_grant {
    struct hv_grant up;
    int gntdev; /* Not owned. */
    uint32_t n;
    uint64_t index; /* Of the range in the device, an offset for mmap(). */
    void *mem;      /* NULL = not attached. */
};

struct xen_pages {
    struct hv_pages up;
    int gntalloc; /* Not owned. */
    uint32_t n;
    uint64_t index;
    void *mem;
};

static struct xen_hv *
xen_hv_cast(const struct hv *hv)
{
    return CONTAINER_OF(hv, struct xen_hv, up);
}

static int
open_device(const char *name, int flags, int *ret_fd)
{
    int fd = open(name, O_RDWR | O_CLOEXEC | flags);

    if (fd < 0) {
        return errno;
    }
    *ret_fd = fd;
    return 0;
}

static void
close_fd(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

static void
xen_close(struct hv *hv_)
{
    struct xen_hv *hv = xen_hv_cast(hv_);

    if (hv->xs) {
        xs_close(hv->xs);
    }
    close_fd(hv->gntdev);
    close_fd(hv->gntalloc);
    close_fd(hv->evtchn);
    free(hv);
}

static struct xen_hv *
xen_hv_new(void)
{
    struct xen_hv *hv = calloc(1, sizeof *hv);

    if (hv) {
        hv->up.class = &hv_xen_class;
        hv->gntdev = hv->gntalloc = hv->evtchn = -1;
    }
    return hv;
}

static int
xen_open(const char *arg, unsigned flags, struct hv **ret_hv)
{
    struct xen_hv *hv;
    int error = 0;

    if (*arg) {
        return EINVAL;
    }
    hv = xen_hv_new();
    if (!hv) {
        return ENOMEM;
    }
    if (flags & HV_GRANT) {
        error = open_device(DEV_GNTDEV, 0, &hv->gntdev);
    }
    if (!error && flags & HV_ALLOC) {
        error = open_device(DEV_GNTALLOC, 0, &hv->gntalloc);
    }
    if (!error && flags & HV_EVTCHN) {
        error = open_device(DEV_EVTCHN, O_NONBLOCK, &hv->evtchn);
    }
    if (!error && flags & HV_STORE) {
        hv->xs = xs_open(XS_UNWATCH_FILTER);
        if (!hv->xs) {
            error = errno ? errno : ENXIO;
        }
    }
    if (error) {
        xen_close(&hv->up);
        return error;
    }
    *ret_hv = &hv->up;
    return 0;
}

static int
xen_adopt(const char *arg, int grant_fd, int evtchn_fd, struct hv **ret_hv)
{
    struct xen_hv *hv;
    int flags;

    if (*arg) {
        return EINVAL;
    }
    flags = fcntl(evtchn_fd, F_GETFL);
    if (flags < 0 || fcntl(evtchn_fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        return errno;
    }
    hv = xen_hv_new();
    if (!hv) {
        return ENOMEM;
    }
    hv->gntdev = grant_fd;
    hv->evtchn = evtchn_fd;
    *ret_hv = &hv->up;
    return 0;
}

static int
xen_open_worker_fds(struct hv *hv UNUSED, uint16_t peer, int *ret_grant_fd,
                    int *ret_evtchn_fd)
{
    struct ioctl_evtchn_restrict_domid restrict_domid = {.domid = peer};
    int grant_fd = -1, evtchn_fd = -1, error;

    error = open_device(DEV_GNTDEV, 0, &grant_fd);
    if (error) {
        return error;
    }
    error = open_device(DEV_EVTCHN, O_NONBLOCK, &evtchn_fd);
    if (error) {
        close(grant_fd);
        return error;
    }
    if (ioctl(evtchn_fd, IOCTL_EVTCHN_RESTRICT_DOMID, &restrict_domid) < 0) {
        error = errno;
        close(grant_fd);
        close(evtchn_fd);
        return error;
    }
    *ret_grant_fd = grant_fd;
    *ret_evtchn_fd = evtchn_fd;
    return 0;
}

/* ## Grants ## */

static int
xen_grant_prepare(struct hv *hv, uint16_t domid, const uint32_t refs[],
                  size_t n, struct hv_grant **ret_grant)
{
    struct ioctl_gntdev_map_grant_ref *map;
    struct xen_grant *grant;
    int error = 0;

    grant = calloc(1, sizeof *grant);
    map = calloc(1, sizeof *map + n * sizeof map->refs[0]);
    if (!grant || !map) {
        free(grant);
        free(map);
        return ENOMEM;
    }
    map->count = n;
    for (size_t i = 0; i < n; i++) {
        map->refs[i].domid = domid;
        map->refs[i].ref = refs[i];
    }
    grant->up.class = &hv_xen_class;
    grant->gntdev = xen_hv_cast(hv)->gntdev;
    if (ioctl(grant->gntdev, IOCTL_GNTDEV_MAP_GRANT_REF, map) < 0) {
        error = errno;
        free(grant);
    } else {
        grant->n = n;
        grant->index = map->index;
        *ret_grant = &grant->up;
    }
    free(map);
    return error;
}

static struct xen_grant *
xen_grant_cast(const struct hv_grant *grant)
{
    return CONTAINER_OF(grant, struct xen_grant, up);
}

static int
xen_grant_location(const struct hv_grant *grant_, int *ret_fd,
                   uint64_t *ret_offset)
{
    const struct xen_grant *grant = xen_grant_cast(grant_);

    *ret_fd = grant->gntdev;
    *ret_offset = grant->index;
    return 0;
}

static int
xen_grant_attach(struct hv_grant *grant_, void **ret_mem)
{
    struct xen_grant *grant = xen_grant_cast(grant_);
    void *mem;

    if (grant->mem) {
        return EBUSY;
    }
    mem = mmap(NULL, (size_t) grant->n * HV_PAGE_SIZE, PROT_READ | PROT_WRITE,
               MAP_SHARED, grant->gntdev, grant->index);
    if (mem == MAP_FAILED) {
        return errno;
    }
    *ret_mem = grant->mem = mem;
    return 0;
}

static void
xen_grant_detach(struct hv_grant *grant_)
{
    struct xen_grant *grant = xen_grant_cast(grant_);

    if (grant->mem) {
        munmap(grant->mem, (size_t) grant->n * HV_PAGE_SIZE);
        grant->mem = NULL;
    }
}

static void
xen_grant_release(struct hv_grant *grant_)
{
    struct xen_grant *grant = xen_grant_cast(grant_);
    struct ioctl_gntdev_unmap_grant_ref unmap = {
        .index = grant->index,
        .count = grant->n,
    };

    ioctl(grant->gntdev, IOCTL_GNTDEV_UNMAP_GRANT_REF, &unmap);
    free(grant);
}

static void
dealloc_pages(int gntalloc, uint64_t index, uint32_t n)
{
    struct ioctl_gntalloc_dealloc_gref dealloc = {
        .index = index,
        .count = n,
    };

    ioctl(gntalloc, IOCTL_GNTALLOC_DEALLOC_GREF, &dealloc);
}

static int
xen_pages_alloc(struct hv *hv, uint16_t domid, size_t n, bool writable,
                uint32_t refs[], void **ret_mem, struct hv_pages **ret_pages)
{
    int gntalloc = xen_hv_cast(hv)->gntalloc;
    struct ioctl_gntalloc_alloc_gref *alloc;
    struct xen_pages *pages;
    int error = 0;
    void *mem;

    alloc = calloc(1, sizeof *alloc + n * sizeof alloc->gref_ids[0]);
    pages = calloc(1, sizeof *pages);
    if (!alloc || !pages) {
        error = ENOMEM;
        goto out;
    }
    alloc->domid = domid;
    alloc->flags = writable ? GNTALLOC_FLAG_WRITABLE : 0;
    alloc->count = n;
    if (ioctl(gntalloc, IOCTL_GNTALLOC_ALLOC_GREF, alloc) < 0) {
        error = errno;
        goto out;
    }
    mem = mmap(NULL, n * HV_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
               gntalloc, alloc->index);
    if (mem == MAP_FAILED) {
        error = errno;
        dealloc_pages(gntalloc, alloc->index, n);
        goto out;
    }
    pages->up.class = &hv_xen_class;
    pages->gntalloc = gntalloc;
    pages->n = n;
    pages->index = alloc->index;
    pages->mem = mem;
    for (size_t i = 0; i < n; i++) {
        refs[i] = alloc->gref_ids[i];
    }
    *ret_mem = mem;
    *ret_pages = &pages->up;
    pages = NULL;
out:
    free(alloc);
    free(pages);
    return error;
}

static void
xen_pages_free(struct hv_pages *pages_)
{
    struct xen_pages *pages = CONTAINER_OF(pages_, struct xen_pages, up);

    munmap(pages->mem, (size_t) pages->n * HV_PAGE_SIZE);
    dealloc_pages(pages->gntalloc, pages->index, pages->n);
    free(pages);
}

/* ## Event channels ## */

static int
xen_evtchn_fd(const struct hv *hv)
{
    return xen_hv_cast(hv)->evtchn;
}

static int
xen_evtchn_bind_interdomain(struct hv *hv, uint16_t domid,
                            uint32_t remote_port, uint32_t *ret_port)
{
    struct ioctl_evtchn_bind_interdomain bind = {
        .remote_domain = domid,
        .remote_port = remote_port,
    };
    int port =
        ioctl(xen_hv_cast(hv)->evtchn, IOCTL_EVTCHN_BIND_INTERDOMAIN, &bind);

    if (port < 0) {
        return errno;
    }
    *ret_port = port;
    return 0;
}

static int
xen_evtchn_alloc_unbound(struct hv *hv, uint16_t domid, uint32_t *ret_port)
{
    struct ioctl_evtchn_bind_unbound_port bind = {.remote_domain = domid};
    int port =
        ioctl(xen_hv_cast(hv)->evtchn, IOCTL_EVTCHN_BIND_UNBOUND_PORT, &bind);

    if (port < 0) {
        return errno;
    }
    *ret_port = port;
    return 0;
}

static void
xen_evtchn_unbind(struct hv *hv, uint32_t port)
{
    struct ioctl_evtchn_unbind unbind = {.port = port};

    ioctl(xen_hv_cast(hv)->evtchn, IOCTL_EVTCHN_UNBIND, &unbind);
}

static int
xen_evtchn_notify(struct hv *hv, uint32_t port)
{
    struct ioctl_evtchn_notify notify = {.port = port};

    if (ioctl(xen_hv_cast(hv)->evtchn, IOCTL_EVTCHN_NOTIFY, &notify) < 0) {
        return errno;
    }
    return 0;
}

static int
xen_evtchn_read(struct hv *hv, uint32_t ports[], size_t max, size_t *ret_n)
{
    ssize_t n = read(xen_hv_cast(hv)->evtchn, ports, max * sizeof *ports);

    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            return errno;
        }
        n = 0;
    }
    *ret_n = n / sizeof *ports;
    return 0;
}

static int
xen_evtchn_unmask(struct hv *hv, const uint32_t ports[], size_t n)
{
    ssize_t size = n * sizeof *ports;
    ssize_t written = write(xen_hv_cast(hv)->evtchn, ports, size);

    if (written < 0) {
        return errno;
    }
    return written == size ? 0 : EIO;
}

/* ## xenstore ## */

/* What libxenstore left in 'errno'; it says ENOENT and the like, and a closed
 * connection as EBADF or EPIPE among others. */
static int
xs_error(void)
{
    return errno ? errno : EIO;
}

static int
xen_xs_read(struct hv *hv, hv_xs_txn txn, const char *path, char **ret_value)
{
    unsigned int len;
    char *value = xs_read(xen_hv_cast(hv)->xs, txn, path, &len);

    if (!value) {
        return xs_error();
    }
    *ret_value = value;
    return 0;
}

static int
xen_domid(struct hv *hv, uint16_t *ret_domid)
{
    uint64_t domid;
    int error =
        hv_xs_read_uint(hv, HV_XS_NONE, "domid", HV_DOMID_INVALID - 1, &domid);

    if (error) {
        return error == ENOENT ? EAGAIN : error;
    }
    *ret_domid = domid;
    return 0;
}

static int
xen_xs_write(struct hv *hv, hv_xs_txn txn, const char *path, const char *value)
{
    bool ok = xs_write(xen_hv_cast(hv)->xs, txn, path, value, strlen(value));

    return ok ? 0 : xs_error();
}

static int
xen_xs_mkdir(struct hv *hv, hv_xs_txn txn, const char *path)
{
    return xs_mkdir(xen_hv_cast(hv)->xs, txn, path) ? 0 : xs_error();
}

static int
xen_xs_rm(struct hv *hv, hv_xs_txn txn, const char *path)
{
    return xs_rm(xen_hv_cast(hv)->xs, txn, path) ? 0 : xs_error();
}

static int
xen_xs_directory(struct hv *hv, hv_xs_txn txn, const char *path,
                 char ***ret_names, size_t *ret_n)
{
    unsigned int n;
    char **names = xs_directory(xen_hv_cast(hv)->xs, txn, path, &n);
    char **copy;

    if (!names) {
        return xs_error();
    }
    /* libxenstore gives one block; the interface promises single strings. */
    copy = calloc(n ? n : 1, sizeof *copy);
    for (unsigned int i = 0; copy && i < n; i++) {
        copy[i] = strdup(names[i]);
        if (!copy[i]) {
            hv_xs_names_free(copy, i);
            copy = NULL;
        }
    }
    free(names);
    if (!copy) {
        return ENOMEM;
    }
    *ret_names = copy;
    *ret_n = n;
    return 0;
}

static int
xen_xs_get_perms(struct hv *hv, hv_xs_txn txn, const char *path,
                 struct hv_xs_perm **ret_perms, size_t *ret_n)
{
    unsigned int n;
    struct xs_permissions *xs_perms;
    struct hv_xs_perm *perms;

    xs_perms = xs_get_permissions(xen_hv_cast(hv)->xs, txn, path, &n);
    if (!xs_perms) {
        return xs_error();
    }
    perms = calloc(n ? n : 1, sizeof *perms);
    for (unsigned int i = 0; perms && i < n; i++) {
        perms[i].domid = xs_perms[i].id;
        perms[i].bits =
            xs_perms[i].perms & (HV_XS_PERM_READ | HV_XS_PERM_WRITE);
    }
    free(xs_perms);
    if (!perms) {
        return ENOMEM;
    }
    *ret_perms = perms;
    *ret_n = n;
    return 0;
}

static int
xen_xs_set_perms(struct hv *hv, hv_xs_txn txn, const char *path,
                 const struct hv_xs_perm perms[], size_t n)
{
    struct xs_permissions *xs_perms = calloc(n, sizeof *xs_perms);
    bool ok;

    BUILD_ASSERT(HV_XS_PERM_READ == XS_PERM_READ);
    BUILD_ASSERT(HV_XS_PERM_WRITE == XS_PERM_WRITE);
    if (!xs_perms) {
        return ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        xs_perms[i].id = perms[i].domid;
        xs_perms[i].perms = perms[i].bits;
    }
    ok = xs_set_permissions(xen_hv_cast(hv)->xs, txn, path, xs_perms, n);
    free(xs_perms);
    return ok ? 0 : xs_error();
}

static int
xen_xs_txn_start(struct hv *hv, hv_xs_txn *ret_txn)
{
    xs_transaction_t txn = xs_transaction_start(xen_hv_cast(hv)->xs);

    if (txn == XBT_NULL) {
        return xs_error();
    }
    *ret_txn = txn;
    return 0;
}

static int
xen_xs_txn_end(struct hv *hv, hv_xs_txn txn, bool commit)
{
    return (xs_transaction_end(xen_hv_cast(hv)->xs, txn, !commit)
                ? 0
                : xs_error());
}

static int
xen_xs_watch(struct hv *hv, const char *path, const char *token)
{
    return xs_watch(xen_hv_cast(hv)->xs, path, token) ? 0 : xs_error();
}

static int
xen_xs_unwatch(struct hv *hv, const char *path, const char *token)
{
    return xs_unwatch(xen_hv_cast(hv)->xs, path, token) ? 0 : xs_error();
}

static int
xen_xs_fd(const struct hv *hv)
{
    return xs_fileno(xen_hv_cast(hv)->xs);
}

static int
xen_xs_next_event(struct hv *hv, char **ret_path, char **ret_token)
{
    char **event;
    char *path, *token;

    errno = 0;
    event = xs_check_watch(xen_hv_cast(hv)->xs);
    if (!event) {
        return errno == EAGAIN || errno == ENOMEM ? errno : ECONNRESET;
    }
    path = strdup(event[XS_WATCH_PATH]);
    token = strdup(event[XS_WATCH_TOKEN]);
    free(event);
    if (!path || !token) {
        free(path);
        free(token);
        return ENOMEM;
    }
    *ret_path = path;
    *ret_token = token;
    return 0;
}

static int
xen_domain_exists(struct hv *hv, uint16_t domid, bool *ret_exists)
{
    bool exists;

    /* libxenstore tells an error and "no" apart by errno only. */
    errno = 0;
    exists = xs_is_domain_introduced(xen_hv_cast(hv)->xs, domid);
    if (!exists && errno && errno != ENOENT) {
        return errno;
    }
    *ret_exists = exists;
    return 0;
}

static const struct hv_store_class xen_store_class = {
    .domid = xen_domid,
    .xs_read = xen_xs_read,
    .xs_write = xen_xs_write,
    .xs_mkdir = xen_xs_mkdir,
    .xs_rm = xen_xs_rm,
    .xs_directory = xen_xs_directory,
    .xs_get_perms = xen_xs_get_perms,
    .xs_set_perms = xen_xs_set_perms,
    .xs_txn_start = xen_xs_txn_start,
    .xs_txn_end = xen_xs_txn_end,
    .xs_watch = xen_xs_watch,
    .xs_unwatch = xen_xs_unwatch,
    .xs_fd = xen_xs_fd,
    .xs_next_event = xen_xs_next_event,
    .domain_exists = xen_domain_exists,
};

const struct hv_class hv_xen_class = {
    .name = "xen",
    .open = xen_open,
    .adopt = xen_adopt,
    .close = xen_close,
    .open_worker_fds = xen_open_worker_fds,
    .grant_prepare = xen_grant_prepare,
    .grant_location = xen_grant_location,
    .grant_attach = xen_grant_attach,
    .grant_detach = xen_grant_detach,
    .grant_release = xen_grant_release,
    .pages_alloc = xen_pages_alloc,
    .pages_free = xen_pages_free,
    .evtchn_fd = xen_evtchn_fd,
    .evtchn_bind_interdomain = xen_evtchn_bind_interdomain,
    .evtchn_alloc_unbound = xen_evtchn_alloc_unbound,
    .evtchn_unbind = xen_evtchn_unbind,
    .evtchn_notify = xen_evtchn_notify,
    .evtchn_read = xen_evtchn_read,
    .evtchn_unmask = xen_evtchn_unmask,
    .store = &xen_store_class,
};
