/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests about one file: open, read, write, fsync, attributes, extended
 * attributes, locks; and statfs. */

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "lib/clock.h"
#include "lib/coverage.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/branch/file.h"
#include "vafs-server/ninep/session.h"

COVERAGE_DEFINE(ninep_lock_parked);
COVERAGE_DEFINE(ninep_lock_deadlock);
COVERAGE_DEFINE(ninep_count_clamped);

/* What stdio and cp take as the size of their buffers: large, since each read
 * of theirs is a round trip. */
#define BLOCK_SIZE 65536

/* Tlopen. */

static int
lopen_prepare(struct request *req)
{
    uint32_t flags = req->t.tlopen.flags;
    uint32_t access = flags & NINEP_O_ACCMODE;
    uint32_t type;
    int error = ops_get_fid(req, req->t.tlopen.fid, &req->fid);

    if (error) {
        return error;
    }
    if (req->fid->state != FID_WALKED) {
        return EBADF;
    }
    if (access == NINEP_O_ACCMODE) {
        return EINVAL;
    }
    type = file_type(req->fid->file);
    if (S_ISDIR(type)) {
        return access == NINEP_O_RDONLY ? 0 : EISDIR;
    }
    if (flags & NINEP_O_DIRECTORY) {
        return ENOTDIR;
    }
    if (S_ISLNK(type)) {
        return ELOOP;
    }
    if (!S_ISREG(type)) {
        return ENXIO; /* Devices and fifos live in the guest's kernel. */
    }
    return (access != NINEP_O_RDONLY || flags & NINEP_O_TRUNC) &&
                   req->fid->mount->read_only
               ? EROFS
               : 0;
}

static int
lopen_exec(struct request *req)
{
    struct file_setattr attr = {.mask = FILE_SET_SIZE};

    if (req->t.tlopen.flags & NINEP_O_TRUNC &&
        S_ISREG(file_type(req->fid->file))) {
        return file_setattr(req->fid->file, &attr);
    }
    return 0;
}

static int
lopen_finish(struct request *req)
{
    struct fid *fid = req->fid;

    if (fid->state != FID_WALKED) {
        return EBADF;
    }
    fid->state = FID_OPEN;
    fid->flags = req->t.tlopen.flags;
    req->r.ropen.qid = fid_make_qid(fid->mount, fid->file);
    req->r.ropen.iounit = req->session->msize - 24;
    return 0;
}

/* Tread. */

static int
read_prepare(struct request *req)
{
    struct session *s = req->session;
    struct fid *fid = fid_find(&s->fids, req->t.tread.fid);
    uint64_t offset = req->t.tread.offset;

    if (!fid) {
        return EBADF;
    }
    req->fid = fid_ref(fid);
    /* Before any buffer is touched: never more than a message holds, and
     * never beyond the largest file, so that 'offset' + 'count' cannot wrap.
     */
    req->count = MIN(req->t.tread.count, s->msize - NINEP_IO_HEADER_SIZE);
    if (req->count < req->t.tread.count) {
        COVERAGE_INC(ninep_count_clamped);
    }
    if (fid->state == FID_XATTR_READ) {
        uint64_t left =
            offset < fid->xattr_size ? fid->xattr_size - offset : 0;

        req->count = MIN(req->count, left);
        return 0;
    }
    if (!fid_is_readable(fid)) {
        return EBADF;
    }
    if (S_ISDIR(file_type(fid->file))) {
        return EISDIR;
    }
    req->count =
        MIN(req->count, offset < FILE_SIZE_MAX ? FILE_SIZE_MAX - offset : 0);
    return 0;
}

static bool
read_is_slow(const struct request *req)
{
    return req->count > INLINE_DATA_MAX && req->fid->state == FID_OPEN;
}

static int
read_exec(struct request *req)
{
    struct fid *fid = req->fid;
    uint8_t *p = req->out + NINEP_IO_HEADER_SIZE;
    size_t n = req->count;
    int error = 0;

    if (fid->state == FID_XATTR_READ) {
        if (n) {
            memcpy(p, fid->xattr + req->t.tread.offset, n);
        }
    } else if (n) {
        error = file_read(fid->file, p, n, req->t.tread.offset, &n);
    }
    req->r.rread.data.s = p;
    req->r.rread.data.len = n;
    return error;
}

/* Twrite. */

static int
write_xattr(struct request *req, struct fid *fid)
{
    uint64_t offset = req->t.twrite.offset;
    uint32_t n = req->t.twrite.data.len;

    /* In order, as Linux sends it: then what came is known by its length. */
    if (offset != fid->xattr_done || n > fid->xattr_size - offset) {
        return n > fid->xattr_size ? ENOSPC : EINVAL;
    }
    if (n) {
        memcpy(fid->xattr + offset, req->t.twrite.data.s, n);
    }
    fid->xattr_done += n;
    req->r.rwrite.count = n;
    return 0;
}

static int
write_prepare(struct request *req)
{
    struct fid *fid = fid_find(&req->session->fids, req->t.twrite.fid);
    uint64_t offset = req->t.twrite.offset;
    uint32_t n = req->t.twrite.data.len;

    if (!fid) {
        return EBADF;
    }
    req->fid = fid_ref(fid);
    if (fid->state == FID_XATTR_WRITE) {
        return write_xattr(req, fid);
    }
    if (!fid_is_writable(fid)) {
        return EBADF;
    }
    if (fid->flags & NINEP_O_APPEND) {
        req->flags |= FILE_WRITE_APPEND; /* 'offset' is ignored. */
    } else if (offset > FILE_SIZE_MAX || n > FILE_SIZE_MAX - offset) {
        return EFBIG;
    }
    if (!fid->uid) {
        req->flags |= FILE_WRITE_KEEP_SUID;
    }
    if (fid->flags & NINEP_O_SYNC) {
        req->flags |= FILE_WRITE_SYNC;
    } else if (fid->flags & NINEP_O_DSYNC) {
        req->flags |= FILE_WRITE_DSYNC;
    }
    return 0;
}

static bool
write_is_slow(const struct request *req)
{
    return req->flags & (FILE_WRITE_SYNC | FILE_WRITE_DSYNC) ||
           (req->t.twrite.data.len > INLINE_DATA_MAX &&
            req->fid->state == FID_OPEN);
}

static int
write_exec(struct request *req)
{
    struct ninep_data *data = &req->t.twrite.data;
    size_t n = 0;
    int error = 0;

    if (req->fid->state == FID_XATTR_WRITE) {
        return 0; /* Done. */
    }
    if (data->len) {
        error = file_write(req->fid->file, data->s, data->len,
                           req->t.twrite.offset, req->flags, &n);
    }
    req->r.rwrite.count = n;
    return error;
}

/* Tfsync. */

static int
fsync_prepare(struct request *req)
{
    return ops_get_fid(req, req->t.tfsync.fid, &req->fid);
}

static bool
always_slow(const struct request *req UNUSED)
{
    return true;
}

static int
fsync_exec(struct request *req)
{
    return file_fsync(req->fid->file, req->t.tfsync.datasync);
}

/* Tgetattr, Tsetattr. */

static struct ninep_time
to_wire(int64_t ns)
{
    int64_t sec = ns / (int64_t) NSEC_PER_SEC;
    int64_t rest = ns % (int64_t) NSEC_PER_SEC;

    if (rest < 0) {
        sec--;
        rest += NSEC_PER_SEC;
    }
    return (struct ninep_time){sec, rest};
}

/* EINVAL: no such time; what does not fit into 64 bits of nanoseconds is cut
 * to what does, as other file systems do. */
static int
from_wire(struct ninep_time t, int64_t *ret)
{
    int64_t sec = t.sec;
    const int64_t limit = INT64_MAX / (int64_t) NSEC_PER_SEC - 1;

    if (t.nsec >= NSEC_PER_SEC) {
        return EINVAL;
    }
    sec = MIN(MAX(sec, -limit), limit);
    *ret = sec * (int64_t) NSEC_PER_SEC + (int64_t) t.nsec;
    return 0;
}

static int
getattr_prepare(struct request *req)
{
    return ops_get_fid(req, req->t.tgetattr.fid, &req->fid);
}

static int
getattr_exec(struct request *req)
{
    struct file_attr a;
    int error = file_getattr(req->fid->file, &a);

    if (error) {
        return error;
    }
    req->r.rgetattr = (struct ninep_attr){
        .valid = req->t.tgetattr.mask & NINEP_GETATTR_ALL,
        .qid = fid_make_qid(req->fid->mount, req->fid->file),
        .mode = a.mode,
        .uid = a.uid,
        .gid = a.gid,
        .nlink = a.nlink,
        .rdev = a.rdev,
        .size = a.size,
        .blksize = BLOCK_SIZE,
        .blocks = a.blocks,
        .atime = to_wire(a.atime),
        .mtime = to_wire(a.mtime),
        .ctime = to_wire(a.ctime),
        .btime = to_wire(a.btime),
        .gen = a.gen,
        .data_version = a.data_version,
    };
    return 0;
}

static int
setattr_prepare(struct request *req)
{
    int error = ops_get_fid(req, req->t.tsetattr.fid, &req->fid);

    return !error && req->fid->mount->read_only ? EROFS : error;
}

static int
setattr_exec(struct request *req)
{
    const struct ninep_setattr *t = &req->t.tsetattr;
    struct file_setattr attr = {
        .mask = t->valid & 0x1ff,
        .mode = t->mode & 07777,
        .uid = t->uid,
        .gid = t->gid,
        .size = t->size,
    };
    int error = 0;

    if (t->valid & NINEP_SETATTR_ATIME_SET) {
        error = from_wire(t->atime, &attr.atime);
    }
    if (!error && t->valid & NINEP_SETATTR_MTIME_SET) {
        error = from_wire(t->mtime, &attr.mtime);
    }
    return error ? error : file_setattr(req->fid->file, &attr);
}
BUILD_ASSERT(FILE_SET_MODE == NINEP_SETATTR_MODE);
BUILD_ASSERT(FILE_SET_CTIME == NINEP_SETATTR_CTIME);
BUILD_ASSERT(FILE_SET_MTIME_SET == NINEP_SETATTR_MTIME_SET);

/* Txattrwalk, Txattrcreate. */

static int
xattrwalk_prepare(struct request *req)
{
    uint32_t newfid = req->t.txattrwalk.newfid;
    int error = ops_get_fid(req, req->t.txattrwalk.fid, &req->fid);

    if (error) {
        return error;
    }
    return newfid == NINEP_NOFID || fid_find(&req->session->fids, newfid)
               ? EBADF
               : 0;
}

static int
fetch_xattr(struct request *req, char *buf, size_t size, size_t *ret_size)
{
    struct ninep_str name = req->t.txattrwalk.name;

    return name.len ? file_getxattr(req->fid->file, name.s, name.len, buf,
                                    size, ret_size)
                    : file_listxattr(req->fid->file, buf, size, ret_size);
}

static int
xattrwalk_exec(struct request *req)
{
    int error;

    do {
        size_t size;

        error = fetch_xattr(req, NULL, 0, &size);
        if (error || !size) {
            break;
        }
        free(req->xattr);
        req->xattr = malloc(size);
        if (!req->xattr) {
            return ENOMEM;
        }
        /* ERANGE: it has grown in between. */
        error = fetch_xattr(req, req->xattr, size, &req->xattr_size);
    } while (error == ERANGE);
    return error;
}

static int
xattrwalk_finish(struct request *req)
{
    struct fid_table *fids = &req->session->fids;
    struct fid *fid;
    int error;

    if (req->xattr_size > FID_XATTR_BYTES_MAX - fids->xattr_bytes) {
        return ENOMEM;
    }
    error = fid_new(fids, req->t.txattrwalk.newfid, req->fid->file,
                    req->fid->mount, req->fid->uid, &fid);

    if (error) {
        return error;
    }
    fid->state = FID_XATTR_READ;
    fid->xattr = req->xattr;
    fid->xattr_size = req->xattr_size;
    fids->xattr_bytes += req->xattr_size;
    req->xattr = NULL;
    req->r.rxattrwalk.size = req->xattr_size;
    return 0;
}

static int
xattrcreate_prepare(struct request *req)
{
    struct ninep_str name = req->t.txattrcreate.name;
    uint64_t size = req->t.txattrcreate.size;
    uint32_t flags = req->t.txattrcreate.flags;
    struct fid_table *fids = &req->session->fids;
    struct fid *fid;
    int error = ops_get_fid(req, req->t.txattrcreate.fid, &req->fid);

    if (error) {
        return error;
    }
    if (req->fid->mount->read_only) {
        return EROFS;
    }
    if (req->fid->state != FID_WALKED) {
        return EBADF;
    }
    if (!name.len || flags & ~(NINEP_XATTR_CREATE | NINEP_XATTR_REPLACE)) {
        return EINVAL;
    }
    if (name.len > FILE_XATTR_NAME_MAX) {
        return ERANGE;
    }
    if (size > FILE_XATTR_SIZE_MAX) {
        return E2BIG;
    }
    if (size > FID_XATTR_BYTES_MAX - fids->xattr_bytes) {
        return ENOMEM;
    }
    /* A new fid takes the number: see fid.h. */
    fid_remove(fids, req->fid);
    error = fid_new(fids, req->t.txattrcreate.fid, req->fid->file,
                    req->fid->mount, req->fid->uid, &fid);
    if (error) {
        return error;
    }
    fid->state = FID_XATTR_WRITE;
    fid->xattr_size = size;
    fids->xattr_bytes += size;
    fid->xattr_flags = flags;
    fid->xattr = malloc(MAX(size, 1));
    fid->xattr_name = strndup(name.s, name.len);
    if (!fid->xattr || !fid->xattr_name) {
        fid_remove(fids, fid);
        return ENOMEM;
    }
    return 0;
}

/* Tlock, Tgetlock. */

/* Finds fid and owner of a lock request. */
static int
get_lock(struct request *req, struct lock_owner *owner,
         struct lock_range *range)
{
    const struct ninep_lock *t = &req->t.lock;
    int error = ops_get_fid(req, t->fid, &req->fid);

    if (error) {
        return error;
    }
    if (t->client_id.len > LOCK_CLIENT_MAX) {
        return EINVAL; /* Tgetlock would not even fit into its answer. */
    }
    req->lock_key.branch = branch_id(req->fid->mount->branch);
    req->lock_key.ino = file_ino(req->fid->file);
    owner->session = req->session;
    owner->quota = &req->session->locks;
    owner->client_id = t->client_id;
    owner->proc_id = t->proc_id;
    return lock_range_init(range, t->type, t->start, t->length);
}

static void
lock_granted(int error, void *req_)
{
    struct request *req = req_;

    req->waiter = NULL;
    req->session->n_parked--;
    req->fid->has_locks = true;
    req->r.rlock.status = NINEP_LOCK_SUCCESS;
    request_complete(req, error);
}

static int
lock_prepare(struct request *req)
{
    struct session *s = req->session;
    struct lock_owner owner;
    struct lock_range range;
    int error = get_lock(req, &owner, &range);
    bool wait;

    if (error) {
        return error;
    }
    wait = req->t.lock.flags & NINEP_LOCK_FLAGS_BLOCK;
    if (wait && s->n_parked >= MAX_PARKED) {
        return ENOLCK;
    }
    error = lock_set(s->server->locks, &req->lock_key, &owner, &range,
                     req->fid, wait ? lock_granted : NULL, req, &req->waiter);
    switch (error) {
    case 0:
        req->fid->has_locks = true;
        req->r.rlock.status = NINEP_LOCK_SUCCESS;
        return 0;
    case EAGAIN:
        req->r.rlock.status = NINEP_LOCK_BLOCKED;
        return 0;
    case EINPROGRESS:
        COVERAGE_INC(ninep_lock_parked);
        req->is_listed = true;
        list_push_back(&s->requests, &req->link);
        s->n_parked++;
        return EINPROGRESS;
    case EDEADLK:
        COVERAGE_INC(ninep_lock_deadlock);
        return error;
    default:
        return error;
    }
}

static int
getlock_prepare(struct request *req)
{
    struct lock_owner owner, other;
    struct lock_range range, found;
    struct ninep_lock *r = &req->r.lock;
    int error = get_lock(req, &owner, &range);

    if (error) {
        return error;
    }
    *r = req->t.lock;
    if (lock_test(req->session->server->locks, &req->lock_key, &owner, &range,
                  &found, &other)) {
        r->type = found.type;
        r->start = found.start;
        r->length = found.end == UINT64_MAX ? 0 : found.end - found.start + 1;
        r->proc_id = other.proc_id;
        r->client_id = other.client_id;
    } else {
        r->type = NINEP_LOCK_UNLCK;
    }
    return 0;
}

/* Tstatfs. */

static int
statfs_prepare(struct request *req)
{
    return ops_get_fid(req, req->t.fid.fid, &req->fid);
}

static int
statfs_exec(struct request *req)
{
    struct branch_statfs st;
    int error = branch_statfs(req->fid->mount->branch, &st);

    if (!error) {
        req->r.rstatfs = (struct ninep_statfs){
            .type = NINEP_V9FS_MAGIC,
            .bsize = st.bsize,
            .blocks = st.blocks,
            .bfree = st.bfree,
            .bavail = st.bavail,
            .files = st.files,
            .ffree = st.ffree,
            .fsid = st.fsid,
            .namelen = st.namelen,
        };
    }
    return error;
}

const struct op ops_io[128] = {
    [NINEP_TLOPEN] = {lopen_prepare, lopen_exec, lopen_finish, NULL},
    [NINEP_TREAD] = {read_prepare, read_exec, NULL, read_is_slow},
    [NINEP_TWRITE] = {write_prepare, write_exec, NULL, write_is_slow},
    [NINEP_TFSYNC] = {fsync_prepare, fsync_exec, NULL, always_slow},
    [NINEP_TGETATTR] = {getattr_prepare, getattr_exec, NULL, NULL},
    [NINEP_TSETATTR] = {setattr_prepare, setattr_exec, NULL, NULL},
    [NINEP_TXATTRWALK] = {xattrwalk_prepare, xattrwalk_exec, xattrwalk_finish,
                          NULL},
    [NINEP_TXATTRCREATE] = {.prepare = xattrcreate_prepare},
    [NINEP_TLOCK] = {.prepare = lock_prepare},
    [NINEP_TGETLOCK] = {.prepare = getlock_prepare},
    [NINEP_TSTATFS] = {statfs_prepare, statfs_exec, NULL, NULL},
};
