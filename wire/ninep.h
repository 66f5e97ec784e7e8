/* SPDX-License-Identifier: MIT */
/* 9P2000.L: every message number, size, mask and flag that is on the wire.
 *
 * After the protocol text of the diod project ("9P2000.L protocol overview")
 * and the values that Linux's fs/9p uses.  Integers are little-endian, a
 * string is a 16-bit length and that many bytes without a NUL, a qid is
 * type[1] version[4] path[8].  Each message begins with
 *
 *     size[4] type[1] tag[2]
 *
 * where size counts itself.  A T message has an even number, its answer is
 * the number after it; NINEP_RLERROR answers any of them. */
#ifndef WIRE_NINEP_H
#define WIRE_NINEP_H 1

#define NINEP_VERSION_L "9P2000.L"
#define NINEP_VERSION_UNKNOWN "unknown"

/* Message numbers and, after each, the body. */
#define NINEP_RLERROR 7 /* ecode[4] */
#define NINEP_TSTATFS 8 /* fid[4] */
#define NINEP_RSTATFS                                                      \
    9                     /* type[4] bsize[4] blocks[8] bfree[8] bavail[8] \
                           * files[8] ffree[8] fsid[8] namelen[4] */
#define NINEP_TLOPEN 12   /* fid[4] flags[4] */
#define NINEP_RLOPEN 13   /* qid[13] iounit[4] */
#define NINEP_TLCREATE 14 /* fid[4] name[s] flags[4] mode[4] gid[4] */
#define NINEP_RLCREATE 15 /* qid[13] iounit[4] */
#define NINEP_TSYMLINK 16 /* dfid[4] name[s] symtgt[s] gid[4] */
#define NINEP_RSYMLINK 17 /* qid[13] */
#define NINEP_TMKNOD                                                    \
    18                     /* dfid[4] name[s] mode[4] major[4] minor[4] \
                            * gid[4] */
#define NINEP_RMKNOD 19    /* qid[13] */
#define NINEP_TRENAME 20   /* fid[4] dfid[4] name[s] */
#define NINEP_RRENAME 21   /* */
#define NINEP_TREADLINK 22 /* fid[4] */
#define NINEP_RREADLINK 23 /* target[s] */
#define NINEP_TGETATTR 24  /* fid[4] request_mask[8] */
#define NINEP_RGETATTR                                  \
    25 /* valid[8] qid[13] mode[4] uid[4] gid[4]        \
        * nlink[8] rdev[8] size[8] blksize[8] blocks[8] \
        * atime[8+8] mtime[8+8] ctime[8+8] btime[8+8]   \
        * gen[8] data_version[8] */
#define NINEP_TSETATTR                                                       \
    26                      /* fid[4] valid[4] mode[4] uid[4] gid[4] size[8] \
                             * atime[8+8] mtime[8+8] */
#define NINEP_RSETATTR 27   /* */
#define NINEP_TXATTRWALK 30 /* fid[4] newfid[4] name[s] */
#define NINEP_RXATTRWALK 31 /* size[8] */
#define NINEP_TXATTRCREATE 32 /* fid[4] name[s] attr_size[8] flags[4] */
#define NINEP_RXATTRCREATE 33 /* */
#define NINEP_TREADDIR 40     /* fid[4] offset[8] count[4] */
#define NINEP_RREADDIR                                       \
    41                  /* count[4] data[count]; an entry is \
                         * qid[13] offset[8] type[1] name[s] */
#define NINEP_TFSYNC 50 /* fid[4] datasync[4] (old clients: fid[4]) */
#define NINEP_RFSYNC 51 /* */
#define NINEP_TLOCK                                                  \
    52                 /* fid[4] type[1] flags[4] start[8] length[8] \
                        * proc_id[4] client_id[s] */
#define NINEP_RLOCK 53 /* status[1] */
#define NINEP_TGETLOCK                                 \
    54 /* fid[4] type[1] start[8] length[8] proc_id[4] \
        * client_id[s] */
#define NINEP_RGETLOCK                                           \
    55                  /* type[1] start[8] length[8] proc_id[4] \
                         * client_id[s] */
#define NINEP_TLINK 70  /* dfid[4] fid[4] name[s] */
#define NINEP_RLINK 71  /* */
#define NINEP_TMKDIR 72 /* dfid[4] name[s] mode[4] gid[4] */
#define NINEP_RMKDIR 73 /* qid[13] */
#define NINEP_TRENAMEAT                                            \
    74                     /* olddirfid[4] oldname[s] newdirfid[4] \
                            * newname[s] */
#define NINEP_RRENAMEAT 75 /* */
#define NINEP_TUNLINKAT 76 /* dirfd[4] name[s] flags[4] */
#define NINEP_RUNLINKAT 77 /* */
#define NINEP_TVERSION 100 /* msize[4] version[s] */
#define NINEP_RVERSION 101 /* msize[4] version[s] */
#define NINEP_TAUTH 102    /* afid[4] uname[s] aname[s] n_uname[4] */
#define NINEP_RAUTH 103    /* aqid[13] */
#define NINEP_TATTACH 104  /* fid[4] afid[4] uname[s] aname[s] n_uname[4] */
#define NINEP_RATTACH 105  /* qid[13] */
#define NINEP_TFLUSH 108   /* oldtag[2] */
#define NINEP_RFLUSH 109   /* */
#define NINEP_TWALK 110    /* fid[4] newfid[4] nwname[2] nwname*(name[s]) */
#define NINEP_RWALK 111    /* nwqid[2] nwqid*(qid[13]) */
#define NINEP_TREAD 116    /* fid[4] offset[8] count[4] */
#define NINEP_RREAD 117    /* count[4] data[count] */
#define NINEP_TWRITE 118   /* fid[4] offset[8] count[4] data[count] */
#define NINEP_RWRITE 119   /* count[4] */
#define NINEP_TCLUNK 120   /* fid[4] */
#define NINEP_RCLUNK 121   /* */
#define NINEP_TREMOVE 122  /* fid[4] */
#define NINEP_RREMOVE 123  /* */

/* Sizes and reserved values. */
#define NINEP_HEADER_SIZE 7
#define NINEP_QID_SIZE 13
#define NINEP_IO_HEADER_SIZE 11     /* Header and count of Rread, Rreaddir. */
#define NINEP_TWRITE_HEADER_SIZE 23 /* Header, fid, offset, count. */
#define NINEP_DIRENT_SIZE 24    /* An entry of Rreaddir without its name. */
#define NINEP_RGETATTR_SIZE 160 /* With header. */
#define NINEP_MAX_WALK 16
#define NINEP_NAME_MAX 255 /* Bytes of one name. */
#define NINEP_NOTAG 0xffffu
#define NINEP_NOFID 0xffffffffu
#define NINEP_NONUNAME 0xffffffffu
#define NINEP_MSIZE_MIN 4096u /* Less is refused. */
#define NINEP_MSIZE_MAX (1u << 20)

/* qid.type. */
#define NINEP_QTDIR 0x80
#define NINEP_QTAPPEND 0x40
#define NINEP_QTEXCL 0x20
#define NINEP_QTAUTH 0x08
#define NINEP_QTTMP 0x04
#define NINEP_QTSYMLINK 0x02
#define NINEP_QTFILE 0x00

/* Flags of Tlopen and Tlcreate: Linux's generic values, whatever the host
 * has. */
#define NINEP_O_ACCMODE 00000003u
#define NINEP_O_RDONLY 00000000u
#define NINEP_O_WRONLY 00000001u
#define NINEP_O_RDWR 00000002u
#define NINEP_O_CREAT 00000100u
#define NINEP_O_EXCL 00000200u
#define NINEP_O_NOCTTY 00000400u
#define NINEP_O_TRUNC 00001000u
#define NINEP_O_APPEND 00002000u
#define NINEP_O_NONBLOCK 00004000u
#define NINEP_O_DSYNC 00010000u
#define NINEP_O_FASYNC 00020000u
#define NINEP_O_DIRECT 00040000u
#define NINEP_O_LARGEFILE 00100000u
#define NINEP_O_DIRECTORY 00200000u
#define NINEP_O_NOFOLLOW 00400000u
#define NINEP_O_NOATIME 01000000u
#define NINEP_O_CLOEXEC 02000000u
#define NINEP_O_SYNC 04000000u

/* Masks of Tgetattr and Rgetattr. */
#define NINEP_GETATTR_MODE 0x00000001ull
#define NINEP_GETATTR_NLINK 0x00000002ull
#define NINEP_GETATTR_UID 0x00000004ull
#define NINEP_GETATTR_GID 0x00000008ull
#define NINEP_GETATTR_RDEV 0x00000010ull
#define NINEP_GETATTR_ATIME 0x00000020ull
#define NINEP_GETATTR_MTIME 0x00000040ull
#define NINEP_GETATTR_CTIME 0x00000080ull
#define NINEP_GETATTR_INO 0x00000100ull
#define NINEP_GETATTR_SIZE 0x00000200ull
#define NINEP_GETATTR_BLOCKS 0x00000400ull
#define NINEP_GETATTR_BTIME 0x00000800ull
#define NINEP_GETATTR_GEN 0x00001000ull
#define NINEP_GETATTR_DATA_VERSION 0x00002000ull
#define NINEP_GETATTR_BASIC 0x000007ffull
#define NINEP_GETATTR_ALL 0x00003fffull

/* Mask of Tsetattr. */
#define NINEP_SETATTR_MODE 0x00000001u
#define NINEP_SETATTR_UID 0x00000002u
#define NINEP_SETATTR_GID 0x00000004u
#define NINEP_SETATTR_SIZE 0x00000008u
#define NINEP_SETATTR_ATIME 0x00000010u
#define NINEP_SETATTR_MTIME 0x00000020u
#define NINEP_SETATTR_CTIME 0x00000040u
#define NINEP_SETATTR_ATIME_SET 0x00000080u /* Client's; else server's. */
#define NINEP_SETATTR_MTIME_SET 0x00000100u

/* Tunlinkat: the server's AT_REMOVEDIR, whatever the client's is. */
#define NINEP_AT_REMOVEDIR 0x200u

/* Txattrcreate: as setxattr(2). */
#define NINEP_XATTR_CREATE 1u
#define NINEP_XATTR_REPLACE 2u

/* Locks. */
#define NINEP_LOCK_RDLCK 0
#define NINEP_LOCK_WRLCK 1
#define NINEP_LOCK_UNLCK 2
#define NINEP_LOCK_FLAGS_BLOCK 1u
#define NINEP_LOCK_FLAGS_RECLAIM 2u
#define NINEP_LOCK_SUCCESS 0
#define NINEP_LOCK_BLOCKED 1
#define NINEP_LOCK_ERROR 2
#define NINEP_LOCK_GRACE 3

/* Rstatfs.type: what Linux's own client reports for any 9P file system. */
#define NINEP_V9FS_MAGIC 0x01021997u

#endif /* WIRE_NINEP_H */
