/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests about the session and its fids: version, auth, attach, flush, walk,
 * clunk, remove; and the table of all requests. */

#include <errno.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "lib/loop.h"
#include "lib/vlog.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/branch/file.h"
#include "vafs-server/ninep/session.h"

COVERAGE_DEFINE(ninep_version);
COVERAGE_DEFINE(ninep_attach_refused);
COVERAGE_DEFINE(ninep_flush);

const struct op *
ops_find(uint8_t type)
{
    static const struct op *const tables[] = {ops_session, ops_tree, ops_io};

    for (size_t i = 0; type < 128 && i < ARRAY_SIZE(tables); i++) {
        const struct op *op = &tables[i][type];

        if (op->prepare || op->exec) {
            return op;
        }
    }
    return NULL;
}

/* Finds fid 'number' and puts a reference into '*ret', one of the request's
 * members.  EBADF also for fids of extended attributes, with which nothing
 * can be done but read, write and clunk. */
int
ops_get_fid(struct request *req, uint32_t number, struct fid **ret)
{
    struct fid *fid = fid_find(&req->session->fids, number);

    if (!fid || fid->state == FID_XATTR_READ ||
        fid->state == FID_XATTR_WRITE) {
        return EBADF;
    }
    *ret = fid_ref(fid);
    return 0;
}

/* Tversion. */

static bool
is_ours(struct ninep_str version)
{
    size_t n = strlen(NINEP_VERSION_L);

    /* What follows a period is an extension that we may decline. */
    return version.len >= n && !memcmp(version.s, NINEP_VERSION_L, n) &&
           (version.len == n || version.s[n] == '.');
}

static int
version_prepare(struct request *req)
{
    struct session *s = req->session;
    struct server *server = s->server;
    size_t size = server->out_size;
    uint32_t msize = MIN(req->t.version.msize, NINEP_MSIZE_MAX);
    bool ok = is_ours(req->t.version.version);

    COVERAGE_INC(ninep_version);
    if (msize < NINEP_MSIZE_MIN) {
        return EMSGSIZE;
    }
    /* The answers to what came before go out before. */
    server->out_size = 0;
    session_send(s, server->out, size);

    req->r.version.msize = msize;
    req->r.version.version =
        ninep_str(ok ? NINEP_VERSION_L : NINEP_VERSION_UNKNOWN);
    s->version_req = req;
    session_abort_all(s);
    if (s->n_on_pool) {
        s->state = SESSION_RESET;
    } else {
        session_finish_reset(s);
    }
    return EINPROGRESS;
}

/* Tauth, Tattach. */

static int
auth_prepare(struct request *req UNUSED)
{
    /* An error is how a server says that no authentication is needed.  diod's
     * clients go on after this one only. */
    return ENOENT;
}

static int
refuse_attach(struct request *req, int error, const char *reason)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(10, 10);
    struct ninep_str aname = req->t.tattach.aname;

    COVERAGE_INC(ninep_attach_refused);
    vlog_warn_rl(&rl, "%s: attach to \"%.*s\" refused: %s", req->session->name,
                 MIN(aname.len, 200), aname.s, reason);
    return error;
}

static int
attach_prepare(struct request *req)
{
    struct session *s = req->session;

    if (req->t.tattach.afid != NINEP_NOFID) {
        return EBADF; /* There are no authentication fids. */
    }
    if (req->t.tattach.fid == NINEP_NOFID ||
        fid_find(&s->fids, req->t.tattach.fid)) {
        return EBADF;
    }
    return 0;
}

static int
attach_exec(struct request *req)
{
    struct session *s = req->session;
    struct ninep_str aname = req->t.tattach.aname;
    const char *reason = "";
    struct view_name name;
    int error;

    error = view_name_parse(aname.s, aname.len, &name, &reason);
    if (!error && s->is_guest) {
        error = view_name_narrow(&s->bound, &name, &name, &reason);
    }
    if (!error) {
        error = view_mount(s->server->view, &name, &req->mount, &reason);
    }
    return error && error != EAGAIN ? refuse_attach(req, error, reason)
                                    : error;
}

/* The user that the fid acts as, which owns what it makes.  The guest's kernel
 * says it in n_uname; the guest is trusted with its own users. */
static uint32_t
attach_uid(const struct request *req)
{
    const struct session *s = req->session;
    uint32_t uid = req->t.tattach.n_uname;

    if (uid != NINEP_NONUNAME) {
        return uid;
    }
    if (ninep_str_equals(req->t.tattach.uname, "root")) {
        return 0;
    }
    return s->peer_uid != (uid_t) -1 && !s->is_guest ? s->peer_uid : 65534;
}

static int
attach_finish(struct request *req)
{
    struct fid *fid;
    int error = fid_new(&req->session->fids, req->t.tattach.fid,
                        req->mount->root, req->mount, attach_uid(req), &fid);

    if (!error) {
        req->r.rqid.qid = fid_make_qid(req->mount, req->mount->root);
    }
    return error;
}

/* Tflush. */

static int
flush_prepare(struct request *req)
{
    struct session *s = req->session;
    struct request *old = request_find(s, req->t.tflush.oldtag);

    COVERAGE_INC(ninep_flush);
    if (!old) {
        return 0; /* Answered already, or never there. */
    }
    if (old->waiter) {
        lock_cancel(s->server->locks, old->waiter);
        old->waiter = NULL;
        s->n_parked--;
        request_free(old);
        return 0;
    }
    if (pool_cancel(s->server->pool, &old->job)) {
        s->n_on_pool--;
        request_free(old);
        return 0;
    }
    list_push_back(&old->flushes, &req->link);
    return EINPROGRESS;
}

/* Twalk. */

static int
walk_prepare(struct request *req)
{
    uint32_t newfid = req->t.twalk.newfid;
    int error = ops_get_fid(req, req->t.twalk.fid, &req->fid);

    if (error) {
        return error;
    }
    if (newfid == NINEP_NOFID) {
        return EBADF;
    }
    if (newfid != req->t.twalk.fid) {
        return fid_find(&req->session->fids, newfid) ? EBADF : 0;
    }
    /* An open file stays what it is. */
    return req->fid->state == FID_OPEN ? EBADF : 0;
}

static int
walk_exec(struct request *req)
{
    struct mount *mount = req->fid->mount;
    struct file *file = file_ref(req->fid->file);
    uint16_t n;

    for (n = 0; n < req->t.twalk.n; n++) {
        struct ninep_str name = req->t.twalk.names[n];
        struct file *next;
        int error = name.len == 2 && !memcmp(name.s, "..", 2)
                        ? mount_parent(mount, file, &next)
                        : file_lookup(file, name.s, name.len, &next);

        if (error) {
            file_unref(file);
            if (!n || error == EAGAIN) {
                return error;
            }
            file = NULL; /* Part of the way: no fid, but an answer. */
            break;
        }
        file_unref(file);
        file = next;
        req->r.rwalk.qids[n] = fid_make_qid(mount, file);
    }
    req->r.rwalk.n = n;
    req->file = file;
    return 0;
}

static int
walk_finish(struct request *req)
{
    struct fid_table *fids = &req->session->fids;
    struct fid *fid, *old;

    if (!req->file) {
        return 0;
    }
    if (req->t.twalk.newfid == req->t.twalk.fid) {
        old = fid_find(fids, req->t.twalk.fid);
        if (old) {
            fid_remove(fids, old);
        }
    }
    return fid_new(fids, req->t.twalk.newfid, req->file, req->fid->mount,
                   req->fid->uid, &fid);
}

/* Tclunk, Tremove. */

/* Takes 'fid' out of the session, its locks with it.  The caller holds a
 * reference. */
static void
forget(struct session *s, struct fid *fid)
{
    request_drop_parked(s, fid);
    if (fid->has_locks) {
        struct lock_key key = {branch_id(fid->mount->branch),
                               file_ino(fid->file)};

        lock_release_fid(s->server->locks, &key, fid);
    }
    fid_remove(&s->fids, fid);
}

static int
clunk_prepare(struct request *req)
{
    struct fid *fid = fid_find(&req->session->fids, req->t.fid.fid);

    if (!fid) {
        return EBADF;
    }
    req->fid = fid_ref(fid);
    forget(req->session, fid);
    return 0;
}

static int
clunk_exec(struct request *req)
{
    struct fid *fid = req->fid;

    if (fid->state != FID_XATTR_WRITE) {
        return 0;
    }
    if (fid->xattr_done != fid->xattr_size) {
        return EINVAL; /* Not all of the value came: nothing is set. */
    }
    if (!fid->xattr_size && fid->xattr_flags == NINEP_XATTR_REPLACE) {
        /* How Linux says removexattr(). */
        return file_removexattr(fid->file, fid->xattr_name,
                                strlen(fid->xattr_name));
    }
    return file_setxattr(fid->file, fid->xattr_name, strlen(fid->xattr_name),
                         fid->xattr, fid->xattr_size, fid->xattr_flags);
}

static int
remove_exec(struct request *req)
{
    struct fid *fid = req->fid;

    if (fid->state == FID_XATTR_READ || fid->state == FID_XATTR_WRITE) {
        return EBADF;
    }
    if (fid->mount->read_only) {
        return EROFS;
    }
    if (file_ino(fid->file) == file_ino(fid->mount->root)) {
        return EBUSY;
    }
    return file_remove(fid->file);
}

const struct op ops_session[128] = {
    [NINEP_TVERSION] = {.prepare = version_prepare},
    [NINEP_TAUTH] = {.prepare = auth_prepare},
    [NINEP_TATTACH] = {attach_prepare, attach_exec, attach_finish, NULL},
    [NINEP_TFLUSH] = {.prepare = flush_prepare},
    [NINEP_TWALK] = {walk_prepare, walk_exec, walk_finish, NULL},
    [NINEP_TCLUNK] = {clunk_prepare, clunk_exec, NULL, NULL},
    /* The fid goes, whether or not the file does. */
    [NINEP_TREMOVE] = {clunk_prepare, remove_exec, NULL, NULL},
};
