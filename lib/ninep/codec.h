/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 9P2000.L messages as C structures: one table describes all of them, and
 * decoding, encoding and printing follow it.
 *
 * Decoding does not allocate: strings and data point into the message's
 * buffer, which must stay as long as the structure is used.  Every length is
 * checked against what is left before it is used, every message must be
 * consumed to its last byte, and strings never contain a NUL.  What is right
 * in form may still be wrong in meaning; that is checked by who acts on it. */
#ifndef LIB_NINEP_CODEC_H
#define LIB_NINEP_CODEC_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lib/util.h"
#include "wire/ninep.h"

/* A string inside a message, not NUL-terminated. */
struct ninep_str {
    const char *s;
    uint16_t len;
};

struct ninep_qid {
    uint64_t path;
    uint32_t version;
    uint8_t type; /* NINEP_QT*. */
};

struct ninep_time {
    uint64_t sec;
    uint64_t nsec;
};

/* Counted bytes.  When encoding, 's' may be NULL: then the bytes are taken to
 * stand already where they belong (ninep_data_offset()). */
struct ninep_data {
    const void *s;
    uint32_t len;
};

struct ninep_attr {
    uint64_t valid; /* NINEP_GETATTR_*. */
    struct ninep_qid qid;
    uint32_t mode, uid, gid;
    uint64_t nlink, rdev, size, blksize, blocks;
    struct ninep_time atime, mtime, ctime, btime;
    uint64_t gen, data_version;
};

struct ninep_statfs {
    uint32_t type, bsize;
    uint64_t blocks, bfree, bavail, files, ffree, fsid;
    uint32_t namelen;
};

struct ninep_setattr {
    uint32_t fid, valid, mode, uid, gid; /* 'valid': NINEP_SETATTR_*. */
    uint64_t size;
    struct ninep_time atime, mtime;
};

struct ninep_lock {
    uint32_t fid;
    uint8_t type;           /* NINEP_LOCK_{RDLCK,WRLCK,UNLCK}. */
    uint32_t flags;         /* NINEP_LOCK_FLAGS_*; not in getlock. */
    uint64_t start, length; /* 'length' 0: to the end. */
    uint32_t proc_id;
    struct ninep_str client_id;
};

/* Any message.  The member to use follows from 'type'; messages without a
 * body have none. */
struct ninep_msg {
    uint8_t type;
    uint16_t tag;
    union {
        struct {
            uint32_t ecode;
        } rlerror;
        struct {
            uint32_t fid;
        } fid; /* Tstatfs, Treadlink, Tclunk, Tremove. */
        struct ninep_statfs rstatfs;
        struct {
            uint32_t fid, flags;
        } tlopen;
        struct {
            struct ninep_qid qid;
            uint32_t iounit;
        } ropen; /* Rlopen, Rlcreate. */
        struct {
            uint32_t fid;
            struct ninep_str name;
            uint32_t flags, mode, gid;
        } tlcreate;
        struct {
            uint32_t dfid;
            struct ninep_str name, target;
            uint32_t gid;
        } tsymlink;
        struct {
            struct ninep_qid qid;
        } rqid; /* Rsymlink, Rmknod, Rmkdir, Rauth, Rattach. */
        struct {
            uint32_t dfid;
            struct ninep_str name;
            uint32_t mode, major, minor, gid;
        } tmknod;
        struct {
            uint32_t fid, dfid;
            struct ninep_str name;
        } trename;
        struct {
            struct ninep_str target;
        } rreadlink;
        struct {
            uint32_t fid;
            uint64_t mask;
        } tgetattr;
        struct ninep_attr rgetattr;
        struct ninep_setattr tsetattr;
        struct {
            uint32_t fid, newfid;
            struct ninep_str name;
        } txattrwalk;
        struct {
            uint64_t size;
        } rxattrwalk;
        struct {
            uint32_t fid;
            struct ninep_str name;
            uint64_t size;
            uint32_t flags;
        } txattrcreate;
        struct {
            uint32_t fid;
            uint64_t offset;
            uint32_t count;
        } tread; /* Tread, Treaddir. */
        struct {
            struct ninep_data data;
        } rread; /* Rread, Rreaddir. */
        struct {
            uint32_t fid, datasync;
        } tfsync;
        struct ninep_lock lock; /* Tlock, Tgetlock, Rgetlock. */
        struct {
            uint8_t status;
        } rlock;
        struct {
            uint32_t dfid, fid;
            struct ninep_str name;
        } tlink;
        struct {
            uint32_t dfid;
            struct ninep_str name;
            uint32_t mode, gid;
        } tmkdir;
        struct {
            uint32_t olddfid;
            struct ninep_str oldname;
            uint32_t newdfid;
            struct ninep_str newname;
        } trenameat;
        struct {
            uint32_t dfid;
            struct ninep_str name;
            uint32_t flags;
        } tunlinkat;
        struct {
            uint32_t msize;
            struct ninep_str version;
        } version; /* Tversion, Rversion. */
        struct {
            uint32_t fid; /* Tattach only. */
            uint32_t afid;
            struct ninep_str uname, aname;
            uint32_t n_uname;
        } tattach; /* Tauth, Tattach. */
        struct {
            uint16_t oldtag;
        } tflush;
        struct {
            uint32_t fid, newfid;
            uint16_t n;
            struct ninep_str names[NINEP_MAX_WALK];
        } twalk;
        struct {
            uint16_t n;
            struct ninep_qid qids[NINEP_MAX_WALK];
        } rwalk;
        struct {
            uint32_t fid;
            uint64_t offset;
            struct ninep_data data;
        } twrite;
        struct {
            uint32_t count;
        } rwrite;
    };
};

/* Reads the header of a message: 'buf' holds at least NINEP_HEADER_SIZE
 * bytes.  Returns the size that the message claims, which the caller has yet
 * to check. */
static inline uint32_t
ninep_peek_size(const void *buf)
{
    return get_le32(buf);
}

static inline uint8_t
ninep_peek_type(const void *buf)
{
    return ((const uint8_t *) buf)[4];
}

static inline uint16_t
ninep_peek_tag(const void *buf)
{
    return get_le16((const uint8_t *) buf + 5);
}

/* Decodes the 'size' bytes at 'buf', a whole message with its header, into
 * '*msg', whose type and tag are set even on failure if there is a header.
 *
 * Returns 0, or
 *   EBADMSG       too short, too long, or the size field differs from 'size'
 *   EOPNOTSUPP    the message's number is not one of 9P2000.L
 *   EINVAL        a string contains NUL, a name is empty or contains '/'
 *   ENAMETOOLONG  a name has more than NINEP_NAME_MAX bytes
 * and then, in '*ret_reason' if that is not NULL, a sentence. */
int ninep_decode(const void *buf, size_t size, struct ninep_msg *msg,
                 const char **ret_reason) NODISCARD;

/* Encodes '*msg' into 'buf' of 'capacity' bytes.  '*ret_size' is the whole
 * message's size.  EMSGSIZE: it does not fit.  EOPNOTSUPP: no such type. */
int ninep_encode(const struct ninep_msg *msg, void *buf, size_t capacity,
                 size_t *ret_size) NODISCARD;

/* Offset in a message of 'type' (Rread, Rreaddir, Twrite) at which the data
 * begins, 0 for others. */
size_t ninep_data_offset(uint8_t type);

/* "Twalk" and so on; "T200?" style for what is unknown is not attempted:
 * returns "?". */
const char *ninep_type_name(uint8_t type);

/* Writes a message for logs, cut at 'size', NUL-terminated.  Bytes that are
 * not printable come out as \xx.  Returns 'out'. */
char *ninep_format(const struct ninep_msg *msg, char *out, size_t size);

/* One entry of Rreaddir. */
struct ninep_dirent {
    struct ninep_qid qid;
    uint64_t cookie;
    uint8_t type; /* DT_*. */
    struct ninep_str name;
};

/* Takes the next entry from 'data' at '*pos' and moves '*pos'.  Returns 0,
 * ENOENT at the end, EBADMSG. */
int ninep_dirent_get(const struct ninep_data *data, uint32_t *pos,
                     struct ninep_dirent *ret) NODISCARD;

/* Appends an entry at 'buf' + '*pos' and moves '*pos'.  False if it does not
 * fit within 'capacity'. */
bool ninep_dirent_put(void *buf, uint32_t capacity, uint32_t *pos,
                      const struct ninep_dirent *) NODISCARD;

/* Checks a file name as the codec does: 0, EINVAL, ENAMETOOLONG. */
int ninep_check_name(const char *name, size_t len) NODISCARD;

/* A NUL-terminated string as a message's string, cut at 65535 bytes. */
struct ninep_str ninep_str(const char *);

static inline bool
ninep_str_equals(struct ninep_str a, const char *b)
{
    return strlen(b) == a.len && !memcmp(a.s, b, a.len);
}

static inline bool
ninep_type_is_request(uint8_t type)
{
    return !(type & 1);
}

#endif /* lib/ninep/codec.h */
