/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 9P2000.L codec, driven by one table (see codec.h).
 *
 * Trust boundary: decoding works on bytes that a guest wrote.  A 'struct
 * reader' is the only thing that touches them; each take_*() checks what is
 * left first and, once anything failed, everything after it fails too.  The
 * caller has copied the message to private memory, so that nothing changes
 * between the check and the use. */

#include "lib/ninep/codec.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/util.h"

/* Kinds of field.  NAME is a STR that must be one component of a path. */
enum kind {
    K_END = 0,
    K_U8,
    K_U16,
    K_U32,
    K_U64,
    K_U32_OPT, /* May be missing at the end of the message: then 0. */
    K_STR,
    K_NAME,
    K_QID,
    K_TIME,
    K_DATA,
    K_NAMES, /* twalk.n and twalk.names. */
    K_QIDS,  /* rwalk.n and rwalk.qids. */
};

struct field {
    uint16_t offset; /* In struct ninep_msg. */
    uint8_t kind;
    const char *name;
};

struct message {
    const char *name;
    const struct field *fields;
};

#define F(KIND, MEMBER, NAME)                              \
    {                                                      \
        offsetof(struct ninep_msg, MEMBER), K_##KIND, NAME \
    }
#define FIELDS(...)        \
    (const struct field[]) \
    {                      \
        __VA_ARGS__,       \
        {                  \
            0, K_END, NULL \
        }                  \
    }
#define NOTHING            \
    (const struct field[]) \
    {                      \
        {                  \
            0, K_END, NULL \
        }                  \
    }
#define FID FIELDS(F(U32, fid.fid, "fid"))
#define QID FIELDS(F(QID, rqid.qid, "qid"))
#define OPENED FIELDS(F(QID, ropen.qid, "qid"), F(U32, ropen.iounit, "iounit"))
#define READ                                                         \
    FIELDS(F(U32, tread.fid, "fid"), F(U64, tread.offset, "offset"), \
           F(U32, tread.count, "count"))
#define DATA FIELDS(F(DATA, rread.data, "data"))
#define VERSION \
    FIELDS(F(U32, version.msize, "msize"), F(STR, version.version, "version"))

static const struct message messages[128] = {
    [NINEP_RLERROR] = {"Rlerror", FIELDS(F(U32, rlerror.ecode, "ecode"))},
    [NINEP_TSTATFS] = {"Tstatfs", FID},
    [NINEP_RSTATFS] = {"Rstatfs", FIELDS(F(U32, rstatfs.type, "type"),
                                         F(U32, rstatfs.bsize, "bsize"),
                                         F(U64, rstatfs.blocks, "blocks"),
                                         F(U64, rstatfs.bfree, "bfree"),
                                         F(U64, rstatfs.bavail, "bavail"),
                                         F(U64, rstatfs.files, "files"),
                                         F(U64, rstatfs.ffree, "ffree"),
                                         F(U64, rstatfs.fsid, "fsid"),
                                         F(U32, rstatfs.namelen, "namelen"))},
    [NINEP_TLOPEN] = {"Tlopen", FIELDS(F(U32, tlopen.fid, "fid"),
                                       F(U32, tlopen.flags, "flags"))},
    [NINEP_RLOPEN] = {"Rlopen", OPENED},
    [NINEP_TLCREATE] = {"Tlcreate", FIELDS(F(U32, tlcreate.fid, "fid"),
                                           F(NAME, tlcreate.name, "name"),
                                           F(U32, tlcreate.flags, "flags"),
                                           F(U32, tlcreate.mode, "mode"),
                                           F(U32, tlcreate.gid, "gid"))},
    [NINEP_RLCREATE] = {"Rlcreate", OPENED},
    [NINEP_TSYMLINK] = {"Tsymlink", FIELDS(F(U32, tsymlink.dfid, "dfid"),
                                           F(NAME, tsymlink.name, "name"),
                                           F(STR, tsymlink.target, "target"),
                                           F(U32, tsymlink.gid, "gid"))},
    [NINEP_RSYMLINK] = {"Rsymlink", QID},
    [NINEP_TMKNOD] = {"Tmknod", FIELDS(F(U32, tmknod.dfid, "dfid"),
                                       F(NAME, tmknod.name, "name"),
                                       F(U32, tmknod.mode, "mode"),
                                       F(U32, tmknod.major, "major"),
                                       F(U32, tmknod.minor, "minor"),
                                       F(U32, tmknod.gid, "gid"))},
    [NINEP_RMKNOD] = {"Rmknod", QID},
    [NINEP_TRENAME] = {"Trename", FIELDS(F(U32, trename.fid, "fid"),
                                         F(U32, trename.dfid, "dfid"),
                                         F(NAME, trename.name, "name"))},
    [NINEP_RRENAME] = {"Rrename", NOTHING},
    [NINEP_TREADLINK] = {"Treadlink", FID},
    [NINEP_RREADLINK] = {"Rreadlink",
                         FIELDS(F(STR, rreadlink.target, "target"))},
    [NINEP_TGETATTR] = {"Tgetattr", FIELDS(F(U32, tgetattr.fid, "fid"),
                                           F(U64, tgetattr.mask, "mask"))},
    [NINEP_RGETATTR] =
        {"Rgetattr",
         FIELDS(F(U64, rgetattr.valid, "valid"), F(QID, rgetattr.qid, "qid"),
                F(U32, rgetattr.mode, "mode"), F(U32, rgetattr.uid, "uid"),
                F(U32, rgetattr.gid, "gid"), F(U64, rgetattr.nlink, "nlink"),
                F(U64, rgetattr.rdev, "rdev"), F(U64, rgetattr.size, "size"),
                F(U64, rgetattr.blksize, "blksize"),
                F(U64, rgetattr.blocks, "blocks"),
                F(TIME, rgetattr.atime, "atime"),
                F(TIME, rgetattr.mtime, "mtime"),
                F(TIME, rgetattr.ctime, "ctime"),
                F(TIME, rgetattr.btime, "btime"), F(U64, rgetattr.gen, "gen"),
                F(U64, rgetattr.data_version, "data_version"))},
    [NINEP_TSETATTR] = {"Tsetattr", FIELDS(F(U32, tsetattr.fid, "fid"),
                                           F(U32, tsetattr.valid, "valid"),
                                           F(U32, tsetattr.mode, "mode"),
                                           F(U32, tsetattr.uid, "uid"),
                                           F(U32, tsetattr.gid, "gid"),
                                           F(U64, tsetattr.size, "size"),
                                           F(TIME, tsetattr.atime, "atime"),
                                           F(TIME, tsetattr.mtime, "mtime"))},
    [NINEP_RSETATTR] = {"Rsetattr", NOTHING},
    [NINEP_TXATTRWALK] = {"Txattrwalk",
                          FIELDS(F(U32, txattrwalk.fid, "fid"),
                                 F(U32, txattrwalk.newfid, "newfid"),
                                 F(STR, txattrwalk.name, "name"))},
    [NINEP_RXATTRWALK] = {"Rxattrwalk",
                          FIELDS(F(U64, rxattrwalk.size, "size"))},
    [NINEP_TXATTRCREATE] = {"Txattrcreate",
                            FIELDS(F(U32, txattrcreate.fid, "fid"),
                                   F(STR, txattrcreate.name, "name"),
                                   F(U64, txattrcreate.size, "size"),
                                   F(U32, txattrcreate.flags, "flags"))},
    [NINEP_RXATTRCREATE] = {"Rxattrcreate", NOTHING},
    [NINEP_TREADDIR] = {"Treaddir", READ},
    [NINEP_RREADDIR] = {"Rreaddir", DATA},
    [NINEP_TFSYNC] = {"Tfsync",
                      FIELDS(F(U32, tfsync.fid, "fid"),
                             F(U32_OPT, tfsync.datasync, "datasync"))},
    [NINEP_RFSYNC] = {"Rfsync", NOTHING},
    [NINEP_TLOCK] = {"Tlock",
                     FIELDS(F(U32, lock.fid, "fid"), F(U8, lock.type, "type"),
                            F(U32, lock.flags, "flags"),
                            F(U64, lock.start, "start"),
                            F(U64, lock.length, "length"),
                            F(U32, lock.proc_id, "proc_id"),
                            F(STR, lock.client_id, "client_id"))},
    [NINEP_RLOCK] = {"Rlock", FIELDS(F(U8, rlock.status, "status"))},
    [NINEP_TGETLOCK] = {"Tgetlock",
                        FIELDS(F(U32, lock.fid, "fid"),
                               F(U8, lock.type, "type"),
                               F(U64, lock.start, "start"),
                               F(U64, lock.length, "length"),
                               F(U32, lock.proc_id, "proc_id"),
                               F(STR, lock.client_id, "client_id"))},
    [NINEP_RGETLOCK] = {"Rgetlock",
                        FIELDS(F(U8, lock.type, "type"),
                               F(U64, lock.start, "start"),
                               F(U64, lock.length, "length"),
                               F(U32, lock.proc_id, "proc_id"),
                               F(STR, lock.client_id, "client_id"))},
    [NINEP_TLINK] = {"Tlink", FIELDS(F(U32, tlink.dfid, "dfid"),
                                     F(U32, tlink.fid, "fid"),
                                     F(NAME, tlink.name, "name"))},
    [NINEP_RLINK] = {"Rlink", NOTHING},
    [NINEP_TMKDIR] = {"Tmkdir", FIELDS(F(U32, tmkdir.dfid, "dfid"),
                                       F(NAME, tmkdir.name, "name"),
                                       F(U32, tmkdir.mode, "mode"),
                                       F(U32, tmkdir.gid, "gid"))},
    [NINEP_RMKDIR] = {"Rmkdir", QID},
    [NINEP_TRENAMEAT] = {"Trenameat",
                         FIELDS(F(U32, trenameat.olddfid, "olddfid"),
                                F(NAME, trenameat.oldname, "oldname"),
                                F(U32, trenameat.newdfid, "newdfid"),
                                F(NAME, trenameat.newname, "newname"))},
    [NINEP_RRENAMEAT] = {"Rrenameat", NOTHING},
    [NINEP_TUNLINKAT] = {"Tunlinkat",
                         FIELDS(F(U32, tunlinkat.dfid, "dfid"),
                                F(NAME, tunlinkat.name, "name"),
                                F(U32, tunlinkat.flags, "flags"))},
    [NINEP_RUNLINKAT] = {"Runlinkat", NOTHING},
    [NINEP_TVERSION] = {"Tversion", VERSION},
    [NINEP_RVERSION] = {"Rversion", VERSION},
    [NINEP_TAUTH] = {"Tauth", FIELDS(F(U32, tattach.afid, "afid"),
                                     F(STR, tattach.uname, "uname"),
                                     F(STR, tattach.aname, "aname"),
                                     F(U32, tattach.n_uname, "n_uname"))},
    [NINEP_RAUTH] = {"Rauth", QID},
    [NINEP_TATTACH] = {"Tattach", FIELDS(F(U32, tattach.fid, "fid"),
                                         F(U32, tattach.afid, "afid"),
                                         F(STR, tattach.uname, "uname"),
                                         F(STR, tattach.aname, "aname"),
                                         F(U32, tattach.n_uname, "n_uname"))},
    [NINEP_RATTACH] = {"Rattach", QID},
    [NINEP_TFLUSH] = {"Tflush", FIELDS(F(U16, tflush.oldtag, "oldtag"))},
    [NINEP_RFLUSH] = {"Rflush", NOTHING},
    [NINEP_TWALK] = {"Twalk", FIELDS(F(U32, twalk.fid, "fid"),
                                     F(U32, twalk.newfid, "newfid"),
                                     F(NAMES, twalk.n, "names"))},
    [NINEP_RWALK] = {"Rwalk", FIELDS(F(QIDS, rwalk.n, "qids"))},
    [NINEP_TREAD] = {"Tread", READ},
    [NINEP_RREAD] = {"Rread", DATA},
    [NINEP_TWRITE] = {"Twrite", FIELDS(F(U32, twrite.fid, "fid"),
                                       F(U64, twrite.offset, "offset"),
                                       F(DATA, twrite.data, "data"))},
    [NINEP_RWRITE] = {"Rwrite", FIELDS(F(U32, rwrite.count, "count"))},
    [NINEP_TCLUNK] = {"Tclunk", FID},
    [NINEP_RCLUNK] = {"Rclunk", NOTHING},
    [NINEP_TREMOVE] = {"Tremove", FID},
    [NINEP_RREMOVE] = {"Rremove", NOTHING},
};

static const struct message *
find_message(uint8_t type)
{
    return (type < ARRAY_SIZE(messages) && messages[type].fields
                ? &messages[type]
                : NULL);
}

const char *
ninep_type_name(uint8_t type)
{
    const struct message *m = find_message(type);

    return m ? m->name : "?";
}

size_t
ninep_data_offset(uint8_t type)
{
    switch (type) {
    case NINEP_RREAD:
    case NINEP_RREADDIR:
        return NINEP_IO_HEADER_SIZE;
    case NINEP_TWRITE:
        return NINEP_TWRITE_HEADER_SIZE;
    default:
        return 0;
    }
}

/* Decoding. */

struct reader {
    const uint8_t *p;
    size_t left;
    int error; /* First failure; sticky. */
    const char *reason;
};

static void
fail(struct reader *r, int error, const char *reason)
{
    if (!r->error) {
        r->error = error;
        r->reason = reason;
    }
}

/* Takes 'n' bytes; NULL if they are not there. */
static const uint8_t *
take(struct reader *r, size_t n)
{
    const uint8_t *p = r->p;

    if (r->error) {
        return NULL;
    }
    if (n > r->left) {
        fail(r, EBADMSG, "the message ends inside a field");
        return NULL;
    }
    r->p += n;
    r->left -= n;
    return p;
}

static uint64_t
take_int(struct reader *r, size_t n)
{
    const uint8_t *p = take(r, n);

    if (!p) {
        return 0;
    }
    switch (n) {
    case 1:
        return *p;
    case 2:
        return get_le16(p);
    case 4:
        return get_le32(p);
    default:
        return get_le64(p);
    }
}

static void
take_str(struct reader *r, struct ninep_str *out)
{
    uint16_t len = take_int(r, 2);
    const uint8_t *p = take(r, len);

    out->s = p ? (const char *) p : "";
    out->len = p ? len : 0;
    if (p && memchr(p, '\0', len)) {
        fail(r, EINVAL, "a string contains a NUL byte");
    }
}

int
ninep_check_name(const char *name, size_t len)
{
    if (!len || memchr(name, '\0', len) || memchr(name, '/', len)) {
        return EINVAL;
    }
    return len > NINEP_NAME_MAX ? ENAMETOOLONG : 0;
}

static void
take_name(struct reader *r, struct ninep_str *out)
{
    int error;

    take_str(r, out);
    if (!r->error) {
        error = ninep_check_name(out->s, out->len);
        if (error == ENAMETOOLONG) {
            fail(r, error, "a name has more than 255 bytes");
        } else if (error) {
            fail(r, error, "a name is empty or contains a slash");
        }
    }
}

static void
take_qid(struct reader *r, struct ninep_qid *out)
{
    out->type = take_int(r, 1);
    out->version = take_int(r, 4);
    out->path = take_int(r, 8);
}

static void
take_array(struct reader *r, enum kind kind, struct ninep_msg *msg)
{
    uint16_t n = take_int(r, 2);

    if (n > NINEP_MAX_WALK) {
        fail(r, EINVAL, "a walk has more than 16 names");
        n = 0;
    }
    for (unsigned int i = 0; i < n; i++) {
        if (kind == K_NAMES) {
            take_name(r, &msg->twalk.names[i]);
        } else {
            take_qid(r, &msg->rwalk.qids[i]);
        }
    }
    if (kind == K_NAMES) {
        msg->twalk.n = n;
    } else {
        msg->rwalk.n = n;
    }
}

static void
take_field(struct reader *r, const struct field *f, struct ninep_msg *msg)
{
    void *out = (char *) msg + f->offset;

    switch ((enum kind) f->kind) {
    case K_U8:
        *(uint8_t *) out = take_int(r, 1);
        break;
    case K_U16:
        *(uint16_t *) out = take_int(r, 2);
        break;
    case K_U32:
        *(uint32_t *) out = take_int(r, 4);
        break;
    case K_U32_OPT:
        *(uint32_t *) out = r->left ? take_int(r, 4) : 0;
        break;
    case K_U64:
        *(uint64_t *) out = take_int(r, 8);
        break;
    case K_STR:
        take_str(r, out);
        break;
    case K_NAME:
        take_name(r, out);
        break;
    case K_QID:
        take_qid(r, out);
        break;
    case K_TIME:
        ((struct ninep_time *) out)->sec = take_int(r, 8);
        ((struct ninep_time *) out)->nsec = take_int(r, 8);
        break;
    case K_DATA: {
        struct ninep_data *data = out;

        data->len = take_int(r, 4);
        data->s = take(r, data->len);
        break;
    }
    case K_NAMES:
    case K_QIDS:
        take_array(r, f->kind, msg);
        break;
    case K_END:
        break;
    }
}

int
ninep_decode(const void *buf, size_t size, struct ninep_msg *msg,
             const char **ret_reason)
{
    struct reader r = {.p = buf, .left = size};
    const struct message *m;

    msg->type = 0;
    msg->tag = NINEP_NOTAG;
    if (size < NINEP_HEADER_SIZE || ninep_peek_size(buf) != size) {
        fail(&r, EBADMSG, "the size field is not the message's size");
        goto out;
    }
    take(&r, 4);
    msg->type = take_int(&r, 1);
    msg->tag = take_int(&r, 2);
    m = find_message(msg->type);
    if (!m) {
        fail(&r, EOPNOTSUPP, "the message's type is unknown");
        goto out;
    }
    for (const struct field *f = m->fields; f->kind && !r.error; f++) {
        take_field(&r, f, msg);
    }
    if (!r.error && r.left) {
        fail(&r, EBADMSG, "bytes follow the last field");
    }
out:
    if (r.error && ret_reason) {
        *ret_reason = r.reason;
    }
    return r.error;
}

/* Encoding. */

struct writer {
    uint8_t *p;
    size_t left;
    bool overflow;
};

static uint8_t *
room(struct writer *w, size_t n)
{
    uint8_t *p = w->p;

    if (w->overflow || n > w->left) {
        w->overflow = true;
        return NULL;
    }
    w->p += n;
    w->left -= n;
    return p;
}

static void
put_int(struct writer *w, size_t n, uint64_t v)
{
    uint8_t *p = room(w, n);

    if (!p) {
        return;
    }
    switch (n) {
    case 1:
        *p = v;
        break;
    case 2:
        put_le16(p, v);
        break;
    case 4:
        put_le32(p, v);
        break;
    default:
        put_le64(p, v);
        break;
    }
}

static void
put_str(struct writer *w, const struct ninep_str *s)
{
    uint8_t *p;

    put_int(w, 2, s->len);
    p = room(w, s->len);
    if (p && s->len && s->s != (const char *) p) {
        memcpy(p, s->s, s->len);
    }
}

static void
put_qid(struct writer *w, const struct ninep_qid *qid)
{
    put_int(w, 1, qid->type);
    put_int(w, 4, qid->version);
    put_int(w, 8, qid->path);
}

static void
put_data(struct writer *w, const struct ninep_data *data)
{
    uint8_t *p;

    put_int(w, 4, data->len);
    p = room(w, data->len);
    if (p && data->s && data->s != p && data->len) {
        memcpy(p, data->s, data->len);
    }
}

static void
put_array(struct writer *w, enum kind kind, const struct ninep_msg *msg)
{
    uint16_t n =
        MIN(kind == K_NAMES ? msg->twalk.n : msg->rwalk.n, NINEP_MAX_WALK);

    put_int(w, 2, n);
    for (unsigned int i = 0; i < n; i++) {
        if (kind == K_NAMES) {
            put_str(w, &msg->twalk.names[i]);
        } else {
            put_qid(w, &msg->rwalk.qids[i]);
        }
    }
}

static void
put_field(struct writer *w, const struct field *f, const struct ninep_msg *msg)
{
    const void *in = (const char *) msg + f->offset;

    switch ((enum kind) f->kind) {
    case K_U8:
        put_int(w, 1, *(const uint8_t *) in);
        break;
    case K_U16:
        put_int(w, 2, *(const uint16_t *) in);
        break;
    case K_U32:
    case K_U32_OPT:
        put_int(w, 4, *(const uint32_t *) in);
        break;
    case K_U64:
        put_int(w, 8, *(const uint64_t *) in);
        break;
    case K_STR:
    case K_NAME:
        put_str(w, in);
        break;
    case K_QID:
        put_qid(w, in);
        break;
    case K_TIME:
        put_int(w, 8, ((const struct ninep_time *) in)->sec);
        put_int(w, 8, ((const struct ninep_time *) in)->nsec);
        break;
    case K_DATA:
        put_data(w, in);
        break;
    case K_NAMES:
    case K_QIDS:
        put_array(w, f->kind, msg);
        break;
    case K_END:
        break;
    }
}

int
ninep_encode(const struct ninep_msg *msg, void *buf, size_t capacity,
             size_t *ret_size)
{
    struct writer w = {.p = buf, .left = MIN(capacity, UINT32_MAX)};
    const struct message *m = find_message(msg->type);
    size_t size;

    if (!m) {
        return EOPNOTSUPP;
    }
    put_int(&w, 4, 0);
    put_int(&w, 1, msg->type);
    put_int(&w, 2, msg->tag);
    for (const struct field *f = m->fields; f->kind; f++) {
        put_field(&w, f, msg);
    }
    if (w.overflow) {
        return EMSGSIZE;
    }
    size = w.p - (uint8_t *) buf;
    put_le32(buf, size);
    *ret_size = size;
    return 0;
}

/* Directory entries. */

int
ninep_dirent_get(const struct ninep_data *data, uint32_t *pos,
                 struct ninep_dirent *ret)
{
    struct reader r;

    if (*pos >= data->len) {
        return ENOENT;
    }
    r = (struct reader){.p = (const uint8_t *) data->s + *pos,
                        .left = data->len - *pos};
    take_qid(&r, &ret->qid);
    ret->cookie = take_int(&r, 8);
    ret->type = take_int(&r, 1);
    take_str(&r, &ret->name);
    if (r.error) {
        return EBADMSG;
    }
    *pos = data->len - r.left;
    return 0;
}

bool
ninep_dirent_put(void *buf, uint32_t capacity, uint32_t *pos,
                 const struct ninep_dirent *d)
{
    struct writer w = {.p = (uint8_t *) buf + *pos, .left = capacity - *pos};

    put_qid(&w, &d->qid);
    put_int(&w, 8, d->cookie);
    put_int(&w, 1, d->type);
    put_str(&w, &d->name);
    if (w.overflow) {
        return false;
    }
    *pos = capacity - w.left;
    return true;
}

struct ninep_str
ninep_str(const char *s)
{
    return (struct ninep_str){s, MIN(strlen(s), UINT16_MAX)};
}

/* Printing. */

struct printer {
    char *p;
    size_t left; /* Without the terminating NUL. */
};

static void
    PRINTF_FORMAT(2, 3) say(struct printer *pr, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(pr->p, pr->left + 1, format, args);
    va_end(args);
    n = MIN(MAX(n, 0), (int) MIN(pr->left, INT32_MAX));
    pr->p += n;
    pr->left -= n;
}

static void
say_str(struct printer *pr, const struct ninep_str *s)
{
    say(pr, "\"");
    for (unsigned int i = 0; i < MIN(s->len, 64); i++) {
        unsigned char c = s->s[i];

        if (c < ' ' || c > '~' || c == '"' || c == '\\') {
            say(pr, "\\%02x", c);
        } else {
            say(pr, "%c", c);
        }
    }
    say(pr, "%s", s->len > 64 ? "...\"" : "\"");
}

static void
say_field(struct printer *pr, const struct field *f,
          const struct ninep_msg *msg)
{
    const void *in = (const char *) msg + f->offset;

    switch ((enum kind) f->kind) {
    case K_U8:
        say(pr, "%u", *(const uint8_t *) in);
        break;
    case K_U16:
        say(pr, "%u", *(const uint16_t *) in);
        break;
    case K_U32:
    case K_U32_OPT:
        say(pr, "%u", *(const uint32_t *) in);
        break;
    case K_U64:
        say(pr, "%llu", (unsigned long long) *(const uint64_t *) in);
        break;
    case K_STR:
    case K_NAME:
        say_str(pr, in);
        break;
    case K_QID: {
        const struct ninep_qid *q = in;

        say(pr, "(%02x %u %llu)", q->type, q->version,
            (unsigned long long) q->path);
        break;
    }
    case K_TIME:
        say(pr, "%llu.%09llu",
            (unsigned long long) ((const struct ninep_time *) in)->sec,
            (unsigned long long) ((const struct ninep_time *) in)->nsec);
        break;
    case K_DATA:
        say(pr, "[%u]", ((const struct ninep_data *) in)->len);
        break;
    case K_NAMES:
        for (unsigned int i = 0; i < msg->twalk.n; i++) {
            say(pr, "%s", i ? " " : "");
            say_str(pr, &msg->twalk.names[i]);
        }
        break;
    case K_QIDS:
        say(pr, "[%u]", msg->rwalk.n);
        break;
    case K_END:
        break;
    }
}

char *
ninep_format(const struct ninep_msg *msg, char *out, size_t size)
{
    const struct message *m = find_message(msg->type);
    struct printer pr = {out, size ? size - 1 : 0};

    if (!size) {
        return out;
    }
    *out = '\0';
    if (!m) {
        say(&pr, "type %u tag %u", msg->type, msg->tag);
        return out;
    }
    say(&pr, "%s tag %u", m->name, msg->tag);
    for (const struct field *f = m->fields; f->kind; f++) {
        say(&pr, " %s ", f->name);
        say_field(&pr, f, msg);
    }
    return out;
}
