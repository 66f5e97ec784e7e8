/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One function per 9P2000.L message, on top of the connection (client.h). */

#include "lib/ninep/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"

static int
call_qid(struct ninep_client *c, struct ninep_msg *t,
         struct ninep_qid *ret_qid)
{
    struct ninep_msg r;
    int error = ninep_client_call(c, t, &r);

    if (!error && ret_qid) {
        *ret_qid = r.rqid.qid;
    }
    return error;
}

static int
call_empty(struct ninep_client *c, struct ninep_msg *t)
{
    struct ninep_msg r;

    return ninep_client_call(c, t, &r);
}

int
ninep_attach(struct ninep_client *c, uint32_t fid, const char *uname,
             const char *aname, uint32_t n_uname, struct ninep_qid *ret_qid)
{
    struct ninep_msg t = {.type = NINEP_TATTACH};

    t.tattach.fid = fid;
    t.tattach.afid = NINEP_NOFID;
    t.tattach.uname = ninep_str(uname);
    t.tattach.aname = ninep_str(aname);
    t.tattach.n_uname = n_uname;
    return call_qid(c, &t, ret_qid);
}

int
ninep_walk(struct ninep_client *c, uint32_t fid, uint32_t newfid,
           unsigned int n, const char *const names[], unsigned int *ret_n,
           struct ninep_qid *ret_qids)
{
    struct ninep_msg t = {.type = NINEP_TWALK}, r;
    int error;

    if (n > NINEP_MAX_WALK) {
        return EINVAL;
    }
    t.twalk.fid = fid;
    t.twalk.newfid = newfid;
    t.twalk.n = n;
    for (unsigned int i = 0; i < n; i++) {
        t.twalk.names[i] = ninep_str(names[i]);
    }
    error = ninep_client_call(c, &t, &r);
    if (error) {
        return error;
    }
    if (ret_n) {
        *ret_n = r.rwalk.n;
    }
    if (ret_qids) {
        memcpy(ret_qids, r.rwalk.qids, r.rwalk.n * sizeof *ret_qids);
    }
    return r.rwalk.n == n ? 0 : ENOENT;
}

/* Splits up to 16 components off '*path'. */
static int
next_names(const char **path, struct ninep_str names[], uint16_t *n)
{
    *n = 0;
    while (*n < NINEP_MAX_WALK) {
        size_t len;

        *path += strspn(*path, "/");
        len = strcspn(*path, "/");
        if (!len) {
            break;
        }
        if (len > NINEP_NAME_MAX) {
            return ENAMETOOLONG;
        }
        names[(*n)++] = (struct ninep_str){*path, len};
        *path += len;
    }
    return 0;
}

int
ninep_walk_path(struct ninep_client *c, uint32_t fid, const char *path,
                uint32_t *ret_fid, struct ninep_qid *ret_qid)
{
    uint32_t newfid = ninep_client_new_fid(c);
    bool started = false;
    int error;

    do {
        struct ninep_msg t = {.type = NINEP_TWALK}, r;

        t.twalk.fid = started ? newfid : fid;
        t.twalk.newfid = newfid;
        error = next_names(&path, t.twalk.names, &t.twalk.n);
        if (!error) {
            error = ninep_client_call(c, &t, &r);
        }
        if (!error && r.rwalk.n < t.twalk.n) {
            error = ENOENT;
        }
        if (error) {
            if (started) {
                ninep_release(c, newfid);
            } else {
                ninep_client_free_fid(c, newfid);
            }
            return error;
        }
        if (ret_qid && r.rwalk.n) {
            *ret_qid = r.rwalk.qids[r.rwalk.n - 1];
        }
        started = true;
    } while (path[strspn(path, "/")]);
    *ret_fid = newfid;
    return 0;
}

int
ninep_clunk(struct ninep_client *c, uint32_t fid)
{
    struct ninep_msg t = {.type = NINEP_TCLUNK};

    t.fid.fid = fid;
    return call_empty(c, &t);
}

void
ninep_release(struct ninep_client *c, uint32_t fid)
{
    int error = ninep_clunk(c, fid);

    if (!error) {
        ninep_client_free_fid(c, fid);
    }
}

int
ninep_remove(struct ninep_client *c, uint32_t fid)
{
    struct ninep_msg t = {.type = NINEP_TREMOVE};

    t.fid.fid = fid;
    return call_empty(c, &t);
}

int
ninep_lopen(struct ninep_client *c, uint32_t fid, uint32_t flags,
            struct ninep_qid *ret_qid, uint32_t *ret_iounit)
{
    struct ninep_msg t = {.type = NINEP_TLOPEN}, r;
    int error;

    t.tlopen.fid = fid;
    t.tlopen.flags = flags;
    error = ninep_client_call(c, &t, &r);
    if (!error && ret_qid) {
        *ret_qid = r.ropen.qid;
    }
    if (!error && ret_iounit) {
        *ret_iounit = r.ropen.iounit;
    }
    return error;
}

int
ninep_lcreate(struct ninep_client *c, uint32_t fid, const char *name,
              uint32_t flags, uint32_t mode, uint32_t gid,
              struct ninep_qid *ret_qid)
{
    struct ninep_msg t = {.type = NINEP_TLCREATE}, r;
    int error;

    t.tlcreate.fid = fid;
    t.tlcreate.name = ninep_str(name);
    t.tlcreate.flags = flags;
    t.tlcreate.mode = mode;
    t.tlcreate.gid = gid;
    error = ninep_client_call(c, &t, &r);
    if (!error && ret_qid) {
        *ret_qid = r.ropen.qid;
    }
    return error;
}

int
ninep_symlink(struct ninep_client *c, uint32_t dfid, const char *name,
              const char *target, uint32_t gid, struct ninep_qid *ret_qid)
{
    struct ninep_msg t = {.type = NINEP_TSYMLINK};

    t.tsymlink.dfid = dfid;
    t.tsymlink.name = ninep_str(name);
    t.tsymlink.target = ninep_str(target);
    t.tsymlink.gid = gid;
    return call_qid(c, &t, ret_qid);
}

int
ninep_mknod(struct ninep_client *c, uint32_t dfid, const char *name,
            uint32_t mode, uint32_t major, uint32_t minor, uint32_t gid,
            struct ninep_qid *ret_qid)
{
    struct ninep_msg t = {.type = NINEP_TMKNOD};

    t.tmknod.dfid = dfid;
    t.tmknod.name = ninep_str(name);
    t.tmknod.mode = mode;
    t.tmknod.major = major;
    t.tmknod.minor = minor;
    t.tmknod.gid = gid;
    return call_qid(c, &t, ret_qid);
}

int
ninep_mkdir(struct ninep_client *c, uint32_t dfid, const char *name,
            uint32_t mode, uint32_t gid, struct ninep_qid *ret_qid)
{
    struct ninep_msg t = {.type = NINEP_TMKDIR};

    t.tmkdir.dfid = dfid;
    t.tmkdir.name = ninep_str(name);
    t.tmkdir.mode = mode;
    t.tmkdir.gid = gid;
    return call_qid(c, &t, ret_qid);
}

int
ninep_link(struct ninep_client *c, uint32_t dfid, uint32_t fid,
           const char *name)
{
    struct ninep_msg t = {.type = NINEP_TLINK};

    t.tlink.dfid = dfid;
    t.tlink.fid = fid;
    t.tlink.name = ninep_str(name);
    return call_empty(c, &t);
}

int
ninep_rename(struct ninep_client *c, uint32_t fid, uint32_t dfid,
             const char *name)
{
    struct ninep_msg t = {.type = NINEP_TRENAME};

    t.trename.fid = fid;
    t.trename.dfid = dfid;
    t.trename.name = ninep_str(name);
    return call_empty(c, &t);
}

int
ninep_renameat(struct ninep_client *c, uint32_t olddfid, const char *oldname,
               uint32_t newdfid, const char *newname)
{
    struct ninep_msg t = {.type = NINEP_TRENAMEAT};

    t.trenameat.olddfid = olddfid;
    t.trenameat.oldname = ninep_str(oldname);
    t.trenameat.newdfid = newdfid;
    t.trenameat.newname = ninep_str(newname);
    return call_empty(c, &t);
}

int
ninep_unlinkat(struct ninep_client *c, uint32_t dfid, const char *name,
               uint32_t flags)
{
    struct ninep_msg t = {.type = NINEP_TUNLINKAT};

    t.tunlinkat.dfid = dfid;
    t.tunlinkat.name = ninep_str(name);
    t.tunlinkat.flags = flags;
    return call_empty(c, &t);
}

int
ninep_readlink(struct ninep_client *c, uint32_t fid, char *buf, size_t size)
{
    struct ninep_msg t = {.type = NINEP_TREADLINK}, r;
    int error;

    t.fid.fid = fid;
    error = ninep_client_call(c, &t, &r);
    if (!error && size) {
        size_t n = MIN(r.rreadlink.target.len, size - 1);

        memcpy(buf, r.rreadlink.target.s, n);
        buf[n] = '\0';
    }
    return error;
}

int
ninep_getattr(struct ninep_client *c, uint32_t fid, uint64_t mask,
              struct ninep_attr *ret)
{
    struct ninep_msg t = {.type = NINEP_TGETATTR}, r;
    int error;

    t.tgetattr.fid = fid;
    t.tgetattr.mask = mask;
    error = ninep_client_call(c, &t, &r);
    if (!error) {
        *ret = r.rgetattr;
    }
    return error;
}

int
ninep_setattr(struct ninep_client *c, const struct ninep_setattr *attr)
{
    struct ninep_msg t = {.type = NINEP_TSETATTR};

    t.tsetattr = *attr;
    return call_empty(c, &t);
}

int
ninep_statfs(struct ninep_client *c, uint32_t fid, struct ninep_statfs *ret)
{
    struct ninep_msg t = {.type = NINEP_TSTATFS}, r;
    int error;

    t.fid.fid = fid;
    error = ninep_client_call(c, &t, &r);
    if (!error) {
        *ret = r.rstatfs;
    }
    return error;
}

/* The most data that one message carries.  24 is Linux's P9_IOHDRSZ, one more
 * than the largest header: diod refuses what would use that last byte. */
static uint32_t
clamp_count(struct ninep_client *c, uint32_t count)
{
    return MIN(count, ninep_client_msize(c) - 24);
}
BUILD_ASSERT(24 >= NINEP_TWRITE_HEADER_SIZE);

static int
send_read(struct ninep_client *c, uint32_t fid, uint64_t offset,
          uint32_t count, uint16_t *ret_tag)
{
    struct ninep_msg t = {.type = NINEP_TREAD};

    t.tread.fid = fid;
    t.tread.offset = offset;
    t.tread.count = clamp_count(c, count);
    return ninep_client_send(c, &t, ret_tag);
}

static int
wait_read(struct ninep_client *c, uint16_t tag, void *buf, uint32_t count,
          uint32_t *ret_n)
{
    struct ninep_msg r;
    int error = ninep_client_wait(c, tag, &r);

    if (error) {
        return error;
    }
    if (r.rread.data.len > count) {
        return EBADMSG;
    }
    memcpy(buf, r.rread.data.s, r.rread.data.len);
    *ret_n = r.rread.data.len;
    return 0;
}

int
ninep_read(struct ninep_client *c, uint32_t fid, uint64_t offset, void *buf,
           uint32_t count, uint32_t *ret_n)
{
    uint16_t tag;
    int error = send_read(c, fid, offset, count, &tag);

    return error ? error : wait_read(c, tag, buf, count, ret_n);
}

static int
send_write(struct ninep_client *c, uint32_t fid, uint64_t offset,
           const void *buf, uint32_t count, uint16_t *ret_tag)
{
    struct ninep_msg t = {.type = NINEP_TWRITE};

    t.twrite.fid = fid;
    t.twrite.offset = offset;
    t.twrite.data.s = buf;
    t.twrite.data.len = clamp_count(c, count);
    return ninep_client_send(c, &t, ret_tag);
}

int
ninep_write(struct ninep_client *c, uint32_t fid, uint64_t offset,
            const void *buf, uint32_t count, uint32_t *ret_n)
{
    struct ninep_msg r;
    uint16_t tag;
    int error = send_write(c, fid, offset, buf, count, &tag);

    if (!error) {
        error = ninep_client_wait(c, tag, &r);
    }
    if (!error) {
        *ret_n = r.rwrite.count;
    }
    return error;
}

/* Sequential transfers keep this many messages on their way. */
#define WINDOW 8

struct transfer {
    uint16_t tag;
    size_t pos;
    uint32_t count;
};

int
ninep_read_all(struct ninep_client *c, uint32_t fid, uint64_t offset,
               void *buf, size_t size, size_t *ret_n)
{
    struct transfer window[WINDOW];
    uint32_t unit = clamp_count(c, 1u << 18);
    size_t sent = 0, done = 0;
    unsigned int first = 0, n = 0;
    bool end = false;
    int error = 0;

    while (n || (!end && !error && sent < size)) {
        struct transfer *t;
        uint32_t got;
        int e;

        while (!end && !error && n < WINDOW && sent < size) {
            t = &window[(first + n) % WINDOW];
            t->pos = sent;
            t->count = MIN(unit, size - sent);
            error = send_read(c, fid, offset + sent, t->count, &t->tag);
            if (!error) {
                sent += t->count;
                n++;
            }
        }
        if (!n) {
            break;
        }
        t = &window[first];
        first = (first + 1) % WINDOW;
        n--;
        e = wait_read(c, t->tag, (char *) buf + t->pos, t->count, &got);
        error = error ? error : e;
        if (!e && !end) {
            done = t->pos + got;
            end = got < t->count;
        }
    }
    if (!error) {
        *ret_n = done;
    }
    return error;
}

int
ninep_write_all(struct ninep_client *c, uint32_t fid, uint64_t offset,
                const void *buf, size_t size)
{
    struct transfer window[WINDOW];
    uint32_t unit = clamp_count(c, 1u << 18);
    size_t sent = 0;
    unsigned int first = 0, n = 0;
    int error = 0;

    while (n || (!error && sent < size)) {
        struct ninep_msg r;
        struct transfer *t;
        int e;

        while (!error && n < WINDOW && sent < size) {
            t = &window[(first + n) % WINDOW];
            t->pos = sent;
            t->count = MIN(unit, size - sent);
            error = send_write(c, fid, offset + sent,
                               (const char *) buf + sent, t->count, &t->tag);
            if (!error) {
                sent += t->count;
                n++;
            }
        }
        if (!n) {
            break;
        }
        t = &window[first];
        first = (first + 1) % WINDOW;
        n--;
        e = ninep_client_wait(c, t->tag, &r);
        if (!e && r.rwrite.count < t->count) {
            uint32_t got = 0;

            /* A short write is the server's right: the rest again. */
            for (uint32_t k = r.rwrite.count; !e && k < t->count; k += got) {
                e = ninep_write(c, fid, offset + t->pos + k,
                                (const char *) buf + t->pos + k, t->count - k,
                                &got);
                if (!e && !got) {
                    e = EIO;
                }
            }
        }
        error = error ? error : e;
    }
    return error;
}

int
ninep_readdir(struct ninep_client *c, uint32_t fid, uint64_t cookie,
              uint32_t count, struct ninep_data *ret_data)
{
    struct ninep_msg t = {.type = NINEP_TREADDIR}, r;
    int error;

    t.tread.fid = fid;
    t.tread.offset = cookie;
    t.tread.count = clamp_count(c, count);
    error = ninep_client_call(c, &t, &r);
    if (!error) {
        *ret_data = r.rread.data;
    }
    return error;
}

int
ninep_fsync(struct ninep_client *c, uint32_t fid, bool datasync)
{
    struct ninep_msg t = {.type = NINEP_TFSYNC};

    t.tfsync.fid = fid;
    t.tfsync.datasync = datasync;
    return call_empty(c, &t);
}

int
ninep_lock(struct ninep_client *c, const struct ninep_lock *lock,
           uint8_t *ret_status)
{
    struct ninep_msg t = {.type = NINEP_TLOCK}, r;
    int error;

    t.lock = *lock;
    error = ninep_client_call(c, &t, &r);
    if (!error) {
        *ret_status = r.rlock.status;
    }
    return error;
}

int
ninep_getlock(struct ninep_client *c, const struct ninep_lock *lock,
              struct ninep_lock *ret)
{
    struct ninep_msg t = {.type = NINEP_TGETLOCK}, r;
    int error;

    t.lock = *lock;
    error = ninep_client_call(c, &t, &r);
    if (!error) {
        *ret = r.lock;
        ret->fid = lock->fid;
        ret->flags = 0;
    }
    return error;
}

int
ninep_flush(struct ninep_client *c, uint16_t oldtag)
{
    struct ninep_msg t = {.type = NINEP_TFLUSH};

    t.tflush.oldtag = oldtag;
    return call_empty(c, &t);
}

int
ninep_getxattr(struct ninep_client *c, uint32_t fid, const char *name,
               void *buf, size_t size, size_t *ret_size)
{
    struct ninep_msg t = {.type = NINEP_TXATTRWALK}, r;
    uint32_t newfid = ninep_client_new_fid(c);
    int error;

    t.txattrwalk.fid = fid;
    t.txattrwalk.newfid = newfid;
    t.txattrwalk.name = ninep_str(name);
    error = ninep_client_call(c, &t, &r);
    if (error) {
        ninep_client_free_fid(c, newfid);
        return error;
    }
    *ret_size = r.rxattrwalk.size;
    if (*ret_size > size) {
        error = ERANGE;
    } else if (*ret_size) {
        error = ninep_read_all(c, newfid, 0, buf, *ret_size, ret_size);
    }
    ninep_release(c, newfid);
    return error;
}

int
ninep_setxattr(struct ninep_client *c, uint32_t fid, const char *name,
               const void *value, size_t size, uint32_t flags)
{
    struct ninep_msg t = {.type = NINEP_TXATTRCREATE};
    uint32_t newfid;
    int error;

    error = ninep_walk_path(c, fid, "", &newfid, NULL);
    if (error) {
        return error;
    }
    t.txattrcreate.fid = newfid;
    t.txattrcreate.name = ninep_str(name);
    t.txattrcreate.size = size;
    t.txattrcreate.flags = flags;
    error = call_empty(c, &t);
    if (!error && size) {
        error = ninep_write_all(c, newfid, 0, value, size);
    }
    /* It takes effect, and fails, at the clunk. */
    if (error) {
        ninep_release(c, newfid);
    } else {
        error = ninep_clunk(c, newfid);
        ninep_client_free_fid(c, newfid);
    }
    return error;
}
