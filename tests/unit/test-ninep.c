/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 9P2000.L codec: every message there and back, cut short at every byte,
 * with every length field made absurd; names; directory entries. */

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "lib/ninep/codec.h"

static const uint8_t types[] = {
    NINEP_RLERROR,    NINEP_TSTATFS,      NINEP_RSTATFS,      NINEP_TLOPEN,
    NINEP_RLOPEN,     NINEP_TLCREATE,     NINEP_RLCREATE,     NINEP_TSYMLINK,
    NINEP_RSYMLINK,   NINEP_TMKNOD,       NINEP_RMKNOD,       NINEP_TRENAME,
    NINEP_RRENAME,    NINEP_TREADLINK,    NINEP_RREADLINK,    NINEP_TGETATTR,
    NINEP_RGETATTR,   NINEP_TSETATTR,     NINEP_RSETATTR,     NINEP_TXATTRWALK,
    NINEP_RXATTRWALK, NINEP_TXATTRCREATE, NINEP_RXATTRCREATE, NINEP_TREADDIR,
    NINEP_RREADDIR,   NINEP_TFSYNC,       NINEP_RFSYNC,       NINEP_TLOCK,
    NINEP_RLOCK,      NINEP_TGETLOCK,     NINEP_RGETLOCK,     NINEP_TLINK,
    NINEP_RLINK,      NINEP_TMKDIR,       NINEP_RMKDIR,       NINEP_TRENAMEAT,
    NINEP_RRENAMEAT,  NINEP_TUNLINKAT,    NINEP_RUNLINKAT,    NINEP_TVERSION,
    NINEP_RVERSION,   NINEP_TAUTH,        NINEP_RAUTH,        NINEP_TATTACH,
    NINEP_RATTACH,    NINEP_TFLUSH,       NINEP_RFLUSH,       NINEP_TWALK,
    NINEP_RWALK,      NINEP_TREAD,        NINEP_RREAD,        NINEP_TWRITE,
    NINEP_RWRITE,     NINEP_TCLUNK,       NINEP_RCLUNK,       NINEP_TREMOVE,
    NINEP_RREMOVE,
};

/* A valid message of 'type', made by decoding bytes in which every string is
 * one of two letters: sizes are found by trying. */
static size_t
make(uint8_t type, uint8_t *buf, size_t capacity)
{
    /* Bytes 2 0 'a' 'b' would be a string; fields of fixed size take
     * anything.  So a body of zeros is right for all but names, and the walk
     * has no names then.  For names a body is written by hand. */
    struct ninep_msg m;
    size_t size = 0;

    memset(&m, 0, sizeof m);
    m.type = type;
    m.tag = 0x1234;
    switch (type) {
    case NINEP_TLCREATE:
        m.tlcreate.name = ninep_str("ab");
        break;
    case NINEP_TSYMLINK:
        m.tsymlink.name = ninep_str("ab");
        m.tsymlink.target = ninep_str("../x/y");
        break;
    case NINEP_TMKNOD:
        m.tmknod.name = ninep_str("ab");
        break;
    case NINEP_TRENAME:
        m.trename.name = ninep_str("ab");
        break;
    case NINEP_TLINK:
        m.tlink.name = ninep_str("ab");
        break;
    case NINEP_TMKDIR:
        m.tmkdir.name = ninep_str("ab");
        break;
    case NINEP_TRENAMEAT:
        m.trenameat.oldname = ninep_str("ab");
        m.trenameat.newname = ninep_str("cd");
        break;
    case NINEP_TUNLINKAT:
        m.tunlinkat.name = ninep_str("ab");
        break;
    case NINEP_TWALK:
        m.twalk.n = 16;
        for (int i = 0; i < 16; i++) {
            m.twalk.names[i] = ninep_str("name");
        }
        break;
    case NINEP_RWALK:
        m.rwalk.n = 16;
        break;
    case NINEP_TVERSION:
    case NINEP_RVERSION:
        m.version.version = ninep_str("9P2000.L");
        break;
    case NINEP_TATTACH:
    case NINEP_TAUTH:
        m.tattach.uname = ninep_str("root");
        m.tattach.aname = ninep_str("branch/main");
        break;
    case NINEP_TWRITE:
        m.twrite.data = (struct ninep_data){"hello", 5};
        break;
    case NINEP_RREAD:
    case NINEP_RREADDIR:
        m.rread.data = (struct ninep_data){"hello", 5};
        break;
    case NINEP_TLOCK:
    case NINEP_TGETLOCK:
    case NINEP_RGETLOCK:
        m.lock.client_id = ninep_str("debian");
        break;
    case NINEP_RREADLINK:
        m.rreadlink.target = ninep_str("to");
        break;
    case NINEP_TXATTRWALK:
        m.txattrwalk.name = ninep_str("user.x");
        break;
    case NINEP_TXATTRCREATE:
        m.txattrcreate.name = ninep_str("user.x");
        break;
    }
    cr_assert_eq(ninep_encode(&m, buf, capacity, &size), 0, "%s",
                 ninep_type_name(type));
    return size;
}

/* A copy whose end is guarded by the sanitizer. */
static void *
exact(const void *p, size_t n)
{
    void *copy = malloc(n ? n : 1);

    memcpy(copy, p, n);
    return copy;
}

Test(ninep, roundtrip)
{
    for (size_t i = 0; i < sizeof types; i++) {
        uint8_t buf[1024], again[1024];
        size_t size = make(types[i], buf, sizeof buf), size2 = 0;
        struct ninep_msg m;
        const char *reason = "";
        char text[2048];

        cr_assert_eq(ninep_decode(buf, size, &m, &reason), 0, "%s: %s",
                     ninep_type_name(types[i]), reason);
        cr_assert_eq(m.type, types[i]);
        cr_assert_eq(m.tag, 0x1234);
        cr_assert_eq(ninep_encode(&m, again, sizeof again, &size2), 0);
        cr_assert_eq(size, size2);
        cr_assert_arr_eq(buf, again, size);
        cr_assert_gt(strlen(ninep_format(&m, text, sizeof text)), 5);
        /* Printing into too little is cut, not overrun. */
        for (size_t n = 1; n < 40; n++) {
            char *small = malloc(n);

            ninep_format(&m, small, n);
            cr_assert_lt(strlen(small), n);
            free(small);
        }
    }
}

Test(ninep, encode_needs_room)
{
    for (size_t i = 0; i < sizeof types; i++) {
        uint8_t buf[1024];
        size_t size = make(types[i], buf, sizeof buf), size2;
        struct ninep_msg m;

        cr_assert_eq(ninep_decode(buf, size, &m, NULL), 0);
        for (size_t n = 0; n < size; n++) {
            uint8_t *small = malloc(n ? n : 1);

            cr_assert_eq(ninep_encode(&m, small, n, &size2), EMSGSIZE);
            free(small);
        }
    }
}

Test(ninep, truncated)
{
    for (size_t i = 0; i < sizeof types; i++) {
        uint8_t buf[1024];
        size_t size = make(types[i], buf, sizeof buf);

        for (size_t n = 0; n < size; n++) {
            uint8_t *cut = exact(buf, n);
            const char *reason = NULL;
            struct ninep_msg m;
            int error;

            /* The size field tells the truth about the cut message. */
            if (n >= 4) {
                put_le32(cut, n);
            }
            error = ninep_decode(cut, n, &m, &reason);
            /* Old clients send Tfsync without its last field. */
            if (types[i] == NINEP_TFSYNC && n == 11) {
                cr_assert_eq(error, 0);
            } else {
                cr_assert_eq(error, EBADMSG, "%s cut at %zu: %d",
                             ninep_type_name(types[i]), n, error);
                cr_assert_not_null(reason);
            }
            free(cut);
        }
    }
}

Test(ninep, trailing_bytes_and_wrong_size)
{
    for (size_t i = 0; i < sizeof types; i++) {
        uint8_t buf[1024] = {0};
        size_t size = make(types[i], buf, sizeof buf);
        struct ninep_msg m;

        cr_assert_eq(ninep_decode(buf, size + 1, &m, NULL), EBADMSG);
        put_le32(buf, size + 1);
        cr_assert_eq(ninep_decode(buf, size, &m, NULL), EBADMSG);
        cr_assert_eq(ninep_decode(buf, size + 1, &m, NULL), EBADMSG);
        put_le32(buf, 0xffffffff);
        cr_assert_eq(ninep_decode(buf, size, &m, NULL), EBADMSG);
    }
}

/* Every pair and every four bytes of every message made huge: lengths among
 * them point far beyond the end.  The sanitizer watches. */
Test(ninep, absurd_lengths)
{
    for (size_t i = 0; i < sizeof types; i++) {
        uint8_t buf[1024];
        size_t size = make(types[i], buf, sizeof buf);

        for (size_t at = 7; at < size; at++) {
            for (int width = 1; width <= 4; width++) {
                uint8_t *bad = exact(buf, size);
                struct ninep_msg m;
                char text[512];

                for (int k = 0; k < width && at + k < size; k++) {
                    bad[at + k] = 0xff;
                }
                if (!ninep_decode(bad, size, &m, NULL)) {
                    ninep_format(&m, text, sizeof text);
                }
                free(bad);
            }
        }
    }
}

/* Bytes of a fixed generator behind every type, also those that do not
 * exist. */
Test(ninep, noise)
{
    uint64_t x = 88172645463325252u;

    for (int round = 0; round < 40000; round++) {
        size_t size = 7 + round % 200;
        uint8_t *buf = malloc(size);
        struct ninep_msg m;

        for (size_t i = 0; i < size; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            /* Mostly small numbers, so that lengths are often possible. */
            buf[i] = x & 0x300 ? x & 3 : x;
        }
        put_le32(buf, size);
        buf[4] = round / 200;
        if (!ninep_decode(buf, size, &m, NULL)) {
            uint8_t again[512];
            size_t size2;

            cr_assert_eq(ninep_encode(&m, again, sizeof again, &size2), 0);
            cr_assert(size2 == size || m.type == NINEP_TFSYNC);
            cr_assert_arr_eq(buf + 4, again + 4, MIN(size, size2) - 4);
        }
        free(buf);
    }
}

Test(ninep, unknown_types)
{
    for (unsigned int type = 0; type < 256; type++) {
        uint8_t buf[7] = {7, 0, 0, 0, type, 1, 0};
        struct ninep_msg m;
        bool known = memchr(types, type, sizeof types);
        int error = ninep_decode(buf, sizeof buf, &m, NULL);

        cr_assert_eq(error == EOPNOTSUPP, !known, "type %u", type);
        cr_assert_eq(m.tag, 1);
        cr_assert_eq(m.type, type);
    }
}

static int
decode_mkdir(const char *name, size_t len)
{
    uint8_t buf[1024];
    size_t size;
    struct ninep_msg m = {.type = NINEP_TMKDIR};

    m.tmkdir.name = (struct ninep_str){name, len};
    cr_assert_eq(ninep_encode(&m, buf, sizeof buf, &size), 0);
    return ninep_decode(buf, size, &m, NULL);
}

Test(ninep, names)
{
    static char longest[300];

    memset(longest, 'x', sizeof longest);
    cr_assert_eq(decode_mkdir("a", 1), 0);
    cr_assert_eq(decode_mkdir("..", 2), 0); /* In form it is a name. */
    cr_assert_eq(decode_mkdir("\xff\xfe", 2), 0);
    cr_assert_eq(decode_mkdir(longest, 255), 0);
    cr_assert_eq(decode_mkdir(longest, 256), ENAMETOOLONG);
    cr_assert_eq(decode_mkdir("", 0), EINVAL);
    cr_assert_eq(decode_mkdir("a/b", 3), EINVAL);
    cr_assert_eq(decode_mkdir("/", 1), EINVAL);
    cr_assert_eq(decode_mkdir("a\0b", 3), EINVAL);
    cr_assert_eq(decode_mkdir("\0", 1), EINVAL);
}

Test(ninep, walk_of_17_names)
{
    uint8_t buf[256] = {0};
    size_t n = 7 + 4 + 4 + 2;
    struct ninep_msg m;

    buf[4] = NINEP_TWALK;
    buf[15] = 17;
    for (int i = 0; i < 17; i++) {
        buf[n] = 1;
        buf[n + 2] = 'a';
        n += 3;
    }
    put_le32(buf, n);
    cr_assert_eq(ninep_decode(buf, n, &m, NULL), EINVAL);
}

Test(ninep, dirents)
{
    uint8_t buf[256];
    uint32_t pos = 0, end;
    struct ninep_dirent d = {.qid = {42, 0, 0x80},
                             .cookie = 7,
                             .type = 4,
                             .name = ninep_str("name")},
                        got;
    struct ninep_data data;

    cr_assert(ninep_dirent_put(buf, sizeof buf, &pos, &d));
    cr_assert_eq(pos, NINEP_DIRENT_SIZE + 4);
    cr_assert(ninep_dirent_put(buf, sizeof buf, &pos, &d));
    end = pos;
    cr_assert_not(ninep_dirent_put(buf, end + 10, &pos, &d));
    cr_assert_eq(pos, end, "what does not fit changes nothing");
    data = (struct ninep_data){buf, end};
    pos = 0;
    cr_assert_eq(ninep_dirent_get(&data, &pos, &got), 0);
    cr_assert_eq(got.cookie, 7);
    cr_assert_eq(got.qid.path, 42);
    cr_assert(ninep_str_equals(got.name, "name"));
    cr_assert_eq(ninep_dirent_get(&data, &pos, &got), 0);
    cr_assert_eq(ninep_dirent_get(&data, &pos, &got), ENOENT);
    for (uint32_t n = 1; n < end; n++) {
        data = (struct ninep_data){exact(buf, n), n};
        pos = 0;
        while (!ninep_dirent_get(&data, &pos, &got)) {
            continue;
        }
        free((void *) data.s);
    }
}

/* Offsets of the wire, by hand: what diod and Linux see. */
Test(ninep, wire_layout)
{
    uint8_t buf[256];
    size_t size;
    struct ninep_msg m = {.type = NINEP_TWRITE, .tag = 0x0201};

    m.twrite.fid = 0x06050403;
    m.twrite.offset = 0x0e0d0c0b0a090807;
    m.twrite.data = (struct ninep_data){"xyz", 3};
    cr_assert_eq(ninep_encode(&m, buf, sizeof buf, &size), 0);
    cr_assert_eq(size, NINEP_TWRITE_HEADER_SIZE + 3);
    cr_assert_arr_eq(
        buf, ((uint8_t[]){26, 0,  0,  0,  118, 1,  2, 3, 4, 5, 6,   7,   8,
                          9,  10, 11, 12, 13,  14, 3, 0, 0, 0, 'x', 'y', 'z'}),
        26);
    cr_assert_eq(ninep_data_offset(NINEP_TWRITE), NINEP_TWRITE_HEADER_SIZE);
    memset(&m, 0, sizeof m);
    m.type = NINEP_RGETATTR;
    cr_assert_eq(ninep_encode(&m, buf, sizeof buf, &size), 0);
    cr_assert_eq(size, NINEP_RGETATTR_SIZE);
}
