/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests about names: create, mkdir, symlink, mknod, link, rename, unlink,
 * readlink, readdir. */

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "vafs-server/branch/file.h"
#include "vafs-server/ninep/session.h"

/* Finds the directory fid 'number' of a request that changes something. */
static int
get_writable(struct request *req, uint32_t number, struct fid **ret)
{
    int error = ops_get_fid(req, number, ret);

    return !error && (*ret)->mount->read_only ? EROFS : error;
}

static struct file_cred
cred_of(const struct request *req, uint32_t gid)
{
    return (struct file_cred){.uid = req->fid->uid, .gid = gid};
}

static int
answer_qid(struct request *req, int error)
{
    if (!error) {
        req->r.rqid.qid = fid_make_qid(req->fid->mount, req->file);
    }
    return error;
}

/* Tlcreate. */

static int
lcreate_prepare(struct request *req)
{
    int error = get_writable(req, req->t.tlcreate.fid, &req->fid);

    if (error) {
        return error;
    }
    return req->fid->state == FID_WALKED ? 0 : EBADF;
}

/* Somebody else made the name meanwhile, and O_EXCL was not asked for. */
static int
open_existing(struct request *req)
{
    struct ninep_str name = req->t.tlcreate.name;
    struct file *file;
    int error = file_lookup(req->fid->file, name.s, name.len, &file);

    if (error) {
        return error;
    }
    if (!S_ISREG(file_type(file))) {
        error = S_ISDIR(file_type(file)) ? EISDIR : EEXIST;
    } else if (req->t.tlcreate.flags & NINEP_O_TRUNC) {
        struct file_setattr attr = {.mask = FILE_SET_SIZE};

        error = file_setattr(file, &attr);
    }
    if (error) {
        file_unref(file);
    } else {
        req->file = file;
    }
    return error;
}

static int
lcreate_exec(struct request *req)
{
    struct file_cred cred = cred_of(req, req->t.tlcreate.gid);
    struct ninep_str name = req->t.tlcreate.name;
    int error = file_create(req->fid->file, name.s, name.len,
                            req->t.tlcreate.mode & 07777, &cred, &req->file);

    if (error == EEXIST && !(req->t.tlcreate.flags & NINEP_O_EXCL)) {
        error = open_existing(req);
    }
    return error;
}

static int
lcreate_finish(struct request *req)
{
    struct fid_table *fids = &req->session->fids;
    struct fid *fid;
    int error;

    fid = fid_find(fids, req->t.tlcreate.fid);
    if (fid != req->fid) {
        return EBADF; /* Clunked while we were on the pool. */
    }
    fid_remove(fids, fid);
    error = fid_new(fids, req->t.tlcreate.fid, req->file, req->fid->mount,
                    req->fid->uid, &fid);
    if (error) {
        return error;
    }
    fid->state = FID_OPEN;
    fid->flags = req->t.tlcreate.flags;
    req->r.ropen.qid = fid_make_qid(fid->mount, fid->file);
    req->r.ropen.iounit = req->session->msize - 24;
    return 0;
}

/* Tmkdir, Tsymlink, Tmknod. */

static int
mkdir_prepare(struct request *req)
{
    return get_writable(req, req->t.tmkdir.dfid, &req->fid);
}

static int
mkdir_exec(struct request *req)
{
    struct file_cred cred = cred_of(req, req->t.tmkdir.gid);
    struct ninep_str name = req->t.tmkdir.name;

    return answer_qid(req, file_mkdir(req->fid->file, name.s, name.len,
                                      req->t.tmkdir.mode & 07777, &cred,
                                      &req->file));
}

static int
symlink_prepare(struct request *req)
{
    return get_writable(req, req->t.tsymlink.dfid, &req->fid);
}

static int
symlink_exec(struct request *req)
{
    struct file_cred cred = cred_of(req, req->t.tsymlink.gid);
    struct ninep_str name = req->t.tsymlink.name;
    struct ninep_str target = req->t.tsymlink.target;

    if (!target.len) {
        return ENOENT;
    }
    if (target.len > FILE_SYMLINK_MAX) {
        return ENAMETOOLONG;
    }
    return answer_qid(req,
                      file_symlink(req->fid->file, name.s, name.len, target.s,
                                   target.len, &cred, &req->file));
}

static int
mknod_prepare(struct request *req)
{
    return get_writable(req, req->t.tmknod.dfid, &req->fid);
}

static int
mknod_exec(struct request *req)
{
    struct file_cred cred = cred_of(req, req->t.tmknod.gid);
    struct ninep_str name = req->t.tmknod.name;
    uint32_t mode = req->t.tmknod.mode;
    uint64_t rdev = 0;

    if (S_ISCHR(mode) || S_ISBLK(mode)) {
        rdev = makedev(req->t.tmknod.major, req->t.tmknod.minor);
    }
    return answer_qid(req, file_mknod(req->fid->file, name.s, name.len, mode,
                                      rdev, &cred, &req->file));
}

/* Tlink, Trename, Trenameat, Tunlinkat. */

static int
link_prepare(struct request *req)
{
    int error = get_writable(req, req->t.tlink.dfid, &req->fid);

    return error ? error : ops_get_fid(req, req->t.tlink.fid, &req->fid2);
}

static int
link_exec(struct request *req)
{
    struct ninep_str name = req->t.tlink.name;

    return file_link(req->fid->file, name.s, name.len, req->fid2->file);
}

static int
rename_prepare(struct request *req)
{
    int error = get_writable(req, req->t.trename.fid, &req->fid);

    return error ? error : get_writable(req, req->t.trename.dfid, &req->fid2);
}

/* Renames whatever name the file has: the protocol's old form, which knows no
 * other.  Linux uses it only with servers that refuse Trenameat. */
static int
rename_exec(struct request *req)
{
    struct ninep_str name = req->t.trename.name;
    char old[FILE_NAME_MAX];
    size_t old_len;
    struct file *dir;
    int error;

    if (file_ino(req->fid->file) == file_ino(req->fid->mount->root)) {
        return EBUSY;
    }
    error = file_name(req->fid->file, &dir, old, &old_len);
    if (!error) {
        error = file_rename(dir, old, old_len, req->fid2->file, name.s,
                            name.len, 0);
        file_unref(dir);
    }
    return error;
}

static int
renameat_prepare(struct request *req)
{
    int error = get_writable(req, req->t.trenameat.olddfid, &req->fid);

    return error ? error
                 : get_writable(req, req->t.trenameat.newdfid, &req->fid2);
}

static int
renameat_exec(struct request *req)
{
    struct ninep_str old = req->t.trenameat.oldname;
    struct ninep_str new = req->t.trenameat.newname;

    return file_rename(req->fid->file, old.s, old.len, req->fid2->file, new.s,
                       new.len, 0);
}

static int
unlinkat_prepare(struct request *req)
{
    return get_writable(req, req->t.tunlinkat.dfid, &req->fid);
}

static int
unlinkat_exec(struct request *req)
{
    struct ninep_str name = req->t.tunlinkat.name;
    uint32_t flags = req->t.tunlinkat.flags;

    if (flags & ~NINEP_AT_REMOVEDIR) {
        return EINVAL;
    }
    return file_unlink(req->fid->file, name.s, name.len, flags);
}

/* Treadlink. */

static int
readlink_prepare(struct request *req)
{
    return ops_get_fid(req, req->t.fid.fid, &req->fid);
}

static int
readlink_exec(struct request *req)
{
    /* Straight to where the answer has it: after header and length. */
    char *p = (char *) req->out + NINEP_HEADER_SIZE + 2;
    size_t n;
    int error = file_readlink(req->fid->file, p, FILE_SYMLINK_MAX, &n);

    if (!error) {
        req->r.rreadlink.target = (struct ninep_str){p, n};
    }
    return error;
}
BUILD_ASSERT(SMALL_REPLY_SIZE >= NINEP_HEADER_SIZE + 2 + FILE_SYMLINK_MAX);

/* Treaddir. */

static int
readdir_prepare(struct request *req)
{
    int error = ops_get_fid(req, req->t.tread.fid, &req->fid);

    if (error) {
        return error;
    }
    if (!S_ISDIR(file_type(req->fid->file))) {
        return ENOTDIR;
    }
    if (!fid_is_readable(req->fid)) {
        return EBADF;
    }
    if (req->t.tread.offset >> 63) {
        return EINVAL; /* No cookie has the top bit. */
    }
    req->count =
        MIN(req->t.tread.count, req->session->msize - NINEP_IO_HEADER_SIZE);
    return 0;
}

struct readdir_aux {
    struct request *req;
    uint32_t size;
    bool is_full;
};

static uint8_t
qid_type(uint8_t d_type)
{
    return d_type == DT_DIR   ? NINEP_QTDIR
           : d_type == DT_LNK ? NINEP_QTSYMLINK
                              : NINEP_QTFILE;
}

static bool
readdir_emit(const struct file_dirent *e, void *aux_)
{
    struct readdir_aux *aux = aux_;
    struct request *req = aux->req;
    struct mount *mount = req->fid->mount;
    uint64_t ino = e->ino;
    struct ninep_dirent d = {
        .cookie = e->cookie,
        .type = e->type,
        .name = {e->name, e->name_len},
    };

    if (e->name_len == 2 && !memcmp(e->name, "..", 2) &&
        file_ino(req->fid->file) == file_ino(mount->root)) {
        ino = file_ino(mount->root); /* What is above is not shown. */
    }
    d.qid.type = qid_type(e->type);
    d.qid.path = mount_qid_path(mount, ino);
    if (!ninep_dirent_put(req->out + NINEP_IO_HEADER_SIZE, req->count,
                          &aux->size, &d)) {
        aux->is_full = true;
        return false;
    }
    return true;
}

static int
readdir_exec(struct request *req)
{
    struct readdir_aux aux = {.req = req};
    int error =
        file_readdir(req->fid->file, req->t.tread.offset, readdir_emit, &aux);

    if (error) {
        return error;
    }
    if (aux.is_full && !aux.size) {
        return EINVAL; /* Nothing would mean the end. */
    }
    req->r.rread.data.s = NULL; /* It stands there already. */
    req->r.rread.data.len = aux.size;
    return 0;
}

const struct op ops_tree[128] = {
    [NINEP_TLCREATE] = {lcreate_prepare, lcreate_exec, lcreate_finish, NULL},
    [NINEP_TSYMLINK] = {symlink_prepare, symlink_exec, NULL, NULL},
    [NINEP_TMKNOD] = {mknod_prepare, mknod_exec, NULL, NULL},
    [NINEP_TMKDIR] = {mkdir_prepare, mkdir_exec, NULL, NULL},
    [NINEP_TLINK] = {link_prepare, link_exec, NULL, NULL},
    [NINEP_TRENAME] = {rename_prepare, rename_exec, NULL, NULL},
    [NINEP_TRENAMEAT] = {renameat_prepare, renameat_exec, NULL, NULL},
    [NINEP_TUNLINKAT] = {unlinkat_prepare, unlinkat_exec, NULL, NULL},
    [NINEP_TREADLINK] = {readlink_prepare, readlink_exec, NULL, NULL},
    [NINEP_TREADDIR] = {readdir_prepare, readdir_exec, NULL, NULL},
};
