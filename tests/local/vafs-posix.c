/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What POSIX promises of files, asked of a 9P2000.L server message by message.
 *
 * usage: vafs-posix ADDRESS ANAME [--peer]
 *
 * With --peer the server is somebody else's (diod): that checks our client,
 * and leaves out what only ours does. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/ninep/client.h"
#include "tests/local/vafs-tap.h"

static const char *address, *aname;
static bool is_peer;
static struct ninep_client *c; /* Root fid 0, directory of this run 1. */
static const char *dir_name;

static struct ninep_client *
open_client(uint32_t uid, uint32_t msize)
{
    struct ninep_client *client;
    int error = ninep_client_connect(address, &client);

    if (!error) {
        error = ninep_client_version(client, msize);
    }
    if (!error) {
        error = ninep_attach(client, 0, "root", aname, uid, NULL);
    }
    if (!error && dir_name) {
        error = ninep_walk(client, 0, 1, 1, &dir_name, NULL, NULL);
    }
    if (error) {
        printf("Bail out! cannot connect to %s: %s\n", address,
               strerror(error));
        exit(1);
    }
    return client;
}

/* A new fid for 'path' below the run's directory. */
static int
walk(struct ninep_client *client, const char *path, uint32_t *fid)
{
    return ninep_walk_path(client, 1, path, fid, NULL);
}

static int
create_open(struct ninep_client *client, const char *name, uint32_t flags,
            uint32_t *fid)
{
    int error = walk(client, "", fid);

    if (!error) {
        error = ninep_lcreate(client, *fid, name, flags, 0644, 0, NULL);
    }
    return error;
}

static int
put(const char *name, const char *text)
{
    uint32_t fid;
    int error = create_open(c, name, NINEP_O_RDWR, &fid);

    if (!error) {
        error = ninep_write_all(c, fid, 0, text, strlen(text));
        ninep_release(c, fid);
    }
    return error;
}

static int
open_file(struct ninep_client *client, const char *path, uint32_t flags,
          uint32_t *fid)
{
    int error = walk(client, path, fid);

    if (!error) {
        error = ninep_lopen(client, *fid, flags, NULL, NULL);
        if (error) {
            ninep_release(client, *fid);
        }
    }
    return error;
}

/* Whether 'path' holds exactly 'text'. */
static bool
holds(const char *path, const char *text)
{
    char buf[65536];
    size_t n = 0;
    uint32_t fid;

    if (open_file(c, path, NINEP_O_RDONLY, &fid)) {
        return false;
    }
    if (ninep_read_all(c, fid, 0, buf, sizeof buf, &n)) {
        n = SIZE_MAX;
    }
    ninep_release(c, fid);
    return n == strlen(text) && !memcmp(buf, text, n);
}

static struct ninep_attr
stat_of(const char *path)
{
    struct ninep_attr attr = {.mode = 0};
    uint32_t fid;

    if (!walk(c, path, &fid)) {
        if (ninep_getattr(c, fid, NINEP_GETATTR_ALL, &attr)) {
            attr.mode = 0;
        }
        ninep_release(c, fid);
    }
    return attr;
}

static int
exists(const char *path)
{
    uint32_t fid;
    int error = walk(c, path, &fid);

    if (!error) {
        ninep_release(c, fid);
    }
    return error;
}

static void
test_version(void)
{
    struct ninep_client *client;
    struct ninep_msg t = {.type = NINEP_TVERSION}, r;
    struct ninep_qid qid;

    if (!FINE(ninep_client_connect(address, &client), "connect")) {
        exit(1);
    }
    t.version.msize = 65536;
    t.version.version = ninep_str("9P2000.u");
    if (!is_peer) {
        FINE(ninep_client_call(client, &t, &r),
             "Tversion 9P2000.u is answered");
        OK(ninep_str_equals(r.version.version, "unknown"),
           "9P2000.u is declined as unknown");
        ERR(ninep_attach(client, 0, "root", aname, 0, NULL), EPROTO,
            "nothing is served without a version");
        t.version.version = ninep_str("9P2000.L.lift");
        FINE(ninep_client_call(client, &t, &r), "Tversion 9P2000.L.lift");
        OK(ninep_str_equals(r.version.version, "9P2000.L"),
           "an extension that is not spoken is declined to 9P2000.L");
        t.version.version = ninep_str("9P2000.L");
        t.version.msize = 100;
        ERR(ninep_client_call(client, &t, &r), EMSGSIZE,
            "an msize of 100 is refused");
        FINE(ninep_client_version(client, 0x7fffffff), "a huge msize");
        OK(ninep_client_msize(client) == NINEP_MSIZE_MAX,
           "is lowered to 1 MiB");
    }
    FINE(ninep_client_version(client, 8192), "msize 8192");
    OK(ninep_client_msize(client) == 8192, "msize 8192 is kept");
    FINE(ninep_attach(client, 5, "root", aname, 0, &qid), "attach");
    OK(qid.type == NINEP_QTDIR, "the root is a directory");
    if (!is_peer) {
        ERR(ninep_attach(client, 5, "root", aname, 0, &qid), EBADF,
            "attach to a fid in use");
        FINE(ninep_client_version(client, 8192), "version again");
        ERR(ninep_clunk(client, 5), EBADF, "a new version clunks all fids");
    }
    ninep_client_close(client);
}

static void
test_create(void)
{
    struct ninep_qid qid, qid2;
    struct ninep_attr attr;
    uint32_t fid, fid2;

    FINE(walk(c, "", &fid), "clone a fid");
    FINE(
        ninep_lcreate(c, fid, "a", NINEP_O_RDWR | NINEP_O_EXCL, 0640, 7, &qid),
        "create");
    FINE(ninep_write_all(c, fid, 0, "hello", 5), "write");
    FINE(ninep_getattr(c, fid, NINEP_GETATTR_ALL, &attr), "getattr");
    OK(attr.mode == (S_IFREG | 0640), "mode is %o", attr.mode);
    OK(attr.gid == 7 && attr.uid == 0, "owner and group");
    OK(attr.size == 5 && attr.nlink == 1, "size and links");
    OK(attr.qid.path == qid.path, "one qid");
    if (!is_peer) {
        OK(attr.valid == NINEP_GETATTR_ALL, "everything is valid");
        OK(attr.btime.sec && attr.gen, "btime and generation are filled");
        OK(qid.version == 0, "qid.version is 0");
    }
    FINE(walk(c, "a", &fid2), "walk to it");
    FINE(ninep_lopen(c, fid2, NINEP_O_RDONLY, &qid2, NULL), "open it");
    OK(qid2.path == qid.path, "the same qid");
    ninep_release(c, fid);
    ninep_release(c, fid2);
    OK(holds("a", "hello"), "content");
    FINE(walk(c, "", &fid), "clone");
    ERR(ninep_lcreate(c, fid, "a", NINEP_O_RDWR | NINEP_O_EXCL, 0644, 0, NULL),
        EEXIST, "exclusive create of an existing name");
    FINE(ninep_lcreate(c, fid, "a", NINEP_O_RDWR | NINEP_O_TRUNC, 0644, 0,
                       NULL),
         "create without O_EXCL opens");
    ninep_release(c, fid);
    OK(holds("a", ""), "and O_TRUNC truncates");
}

static void
test_walk(void)
{
    const char *two[] = {"d", "e"}, *bad[] = {"d", "none", "x"};
    const char *up[] = {"..", "..", "..", ".."};
    struct ninep_qid qids[16], root;
    struct ninep_attr attr;
    unsigned int n = 99;
    char deep[16 * 21 + 1] = "";
    uint32_t fid;

    FINE(ninep_mkdir(c, 1, "d", 0755, 0, NULL), "mkdir");
    FINE(walk(c, "d", &fid), "walk");
    FINE(ninep_mkdir(c, fid, "e", 0755, 0, NULL), "mkdir below");
    ninep_release(c, fid);
    FINE(ninep_walk(c, 1, 50, 2, two, &n, qids), "walk of two names");
    FINE(ninep_clunk(c, 50), "clunk");
    ERR(ninep_walk(c, 1, 50, 3, bad, &n, qids), ENOENT,
        "walk past a missing name");
    OK(n == 1, "says how far it came");
    ERR(ninep_clunk(c, 50), EBADF, "and makes no fid");
    ERR(ninep_walk(c, 1, 50, 1, &bad[1], NULL, NULL), ENOENT,
        "walk to a missing name");
    ERR(ninep_walk(c, 777, 50, 1, two, NULL, NULL), EBADF, "walk from no fid");
    FINE(put("plain", "x"), "put");
    ERR(exists("plain/x"), is_peer ? ENOTDIR : ENOENT,
        "a file has nothing below (partial walk)");
    FINE(ninep_getattr(c, 0, NINEP_GETATTR_ALL, &attr), "getattr of root");
    root = attr.qid;
    if (!is_peer) {
        FINE(ninep_walk(c, 0, 50, 4, up, NULL, qids), "walk .. of the root");
        OK(qids[0].path == root.path && qids[3].path == root.path,
           "stays in the root");
        FINE(ninep_clunk(c, 50), "clunk");
        ERR(ninep_walk(c, 1, 1, 1, &bad[1], NULL, NULL), ENOENT,
            "failed walk onto itself");
        FINE(ninep_getattr(c, 1, NINEP_GETATTR_ALL, &attr),
             "leaves the fid alone");
    }
    for (int i = 0; i < 20; i++) {
        FINE(ninep_walk_path(c, 1, deep, &fid, NULL), "walk %d deep", i);
        FINE(ninep_mkdir(c, fid, "L", 0755, 0, NULL), "mkdir");
        ninep_release(c, fid);
        strcat(deep, "/L");
    }
    FINE(exists(deep), "a path longer than one walk");
}

static void
test_names(void)
{
    static const char *const names[] = {"a/b", "/", ""};
    char longest[257];
    uint32_t fid;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        FINE(walk(c, "", &fid), "clone");
        int error =
            ninep_lcreate(c, fid, names[i], NINEP_O_RDWR, 0644, 0, NULL);

        OK(error == EINVAL || error == ENOENT || error == EISDIR,
           "create of \"%s\" fails (%s)", names[i], strerror(error));
        ninep_release(c, fid);
        if (!is_peer) {
            ERR(ninep_mkdir(c, 1, names[i], 0755, 0, NULL), EINVAL,
                "mkdir of \"%s\"", names[i]);
            ERR(ninep_unlinkat(c, 1, names[i], 0), EINVAL, "unlink of \"%s\"",
                names[i]);
            ERR(ninep_renameat(c, 1, "a", 1, names[i]), EINVAL,
                "rename to \"%s\"", names[i]);
        }
    }
    if (is_peer) {
        return;
    }
    for (int i = 1; i <= 2; i++) {
        const char *dots = &".."[2 - i];

        OK(ninep_mkdir(c, 1, dots, 0755, 0, NULL) != 0, "mkdir of %s", dots);
        OK(ninep_unlinkat(c, 1, dots, 0) != 0, "unlink of %s", dots);
        OK(ninep_unlinkat(c, 1, dots, NINEP_AT_REMOVEDIR) != 0, "rmdir of %s",
           dots);
        OK(ninep_renameat(c, 1, dots, 1, "dots") != 0, "rename of %s", dots);
        OK(ninep_renameat(c, 1, "d", 1, dots) != 0, "rename to %s", dots);
        OK(ninep_link(c, 1, 1, dots) != 0, "link to %s", dots);
    }
    memset(longest, 'n', 256);
    longest[256] = '\0';
    ERR(ninep_mkdir(c, 1, longest, 0755, 0, NULL), ENAMETOOLONG,
        "mkdir of 256 bytes");
    ERR(ninep_walk(c, 1, 50, 1, (const char *[]){longest}, NULL, NULL),
        ENAMETOOLONG, "walk to 256 bytes");
    longest[255] = '\0';
    FINE(ninep_mkdir(c, 1, longest, 0755, 0, NULL), "mkdir of 255 bytes");
    FINE(ninep_unlinkat(c, 1, longest, NINEP_AT_REMOVEDIR), "and rmdir");
    FINE(ninep_mkdir(c, 1, "\xff\x01 \xc3", 0755, 0, NULL), "names are bytes");
    FINE(ninep_unlinkat(c, 1, "\xff\x01 \xc3", NINEP_AT_REMOVEDIR),
         "and rmdir");
}

static void
test_links(void)
{
    struct ninep_attr attr;
    uint32_t fid, dfid;

    FINE(put("one", "shared"), "put");
    FINE(walk(c, "one", &fid), "walk");
    FINE(ninep_link(c, 1, fid, "two"), "link");
    OK(stat_of("two").nlink == 2, "two links");
    OK(stat_of("two").qid.path == stat_of("one").qid.path, "one inode");
    ERR(ninep_link(c, 1, fid, "two"), EEXIST, "link over a name");
    FINE(ninep_unlinkat(c, 1, "one", 0), "unlink one");
    OK(holds("two", "shared"), "the other keeps the content");
    OK(stat_of("two").nlink == 1, "one link");
    ninep_release(c, fid);
    FINE(walk(c, "d", &dfid), "walk");
    OK(ninep_link(c, 1, dfid, "dirlink") == EPERM, "no link to a directory");
    ninep_release(c, dfid);
    FINE(ninep_symlink(c, 1, "sym", "../target/of it", 3, NULL), "symlink");
    FINE(walk(c, "sym", &fid), "walk");
    {
        char buf[100];

        FINE(ninep_readlink(c, fid, buf, sizeof buf), "readlink");
        OK(!strcmp(buf, "../target/of it"), "target");
    }
    FINE(ninep_getattr(c, fid, NINEP_GETATTR_ALL, &attr), "getattr");
    OK(S_ISLNK(attr.mode) && attr.size == 15, "mode and size of a symlink");
    OK(attr.qid.type == NINEP_QTSYMLINK, "qid type of a symlink");
    ninep_release(c, fid);
    FINE(walk(c, "two", &fid), "walk");
    ERR(ninep_readlink(c, fid, (char[4]){0}, 4), EINVAL, "readlink of a file");
    ninep_release(c, fid);
    FINE(ninep_mknod(c, 1, "fifo", S_IFIFO | 0600, 0, 0, 0, NULL), "mkfifo");
    OK(S_ISFIFO(stat_of("fifo").mode), "is a fifo");
    if (!is_peer || geteuid() == 0) {
        FINE(ninep_mknod(c, 1, "null", S_IFCHR | 0666, 1, 3, 0, NULL),
             "mknod of a device");
        OK(stat_of("null").rdev == makedev(1, 3), "its number");
    }
    if (!is_peer) {
        FINE(walk(c, "null", &fid), "walk");
        ERR(ninep_lopen(c, fid, NINEP_O_RDONLY, NULL, NULL), ENXIO,
            "a device is not opened here");
        ninep_release(c, fid);
    }
}

static void
test_rename(void)
{
    uint32_t fid, dfid, fid2;
    char buf[16];
    uint32_t n;

    FINE(put("old", "old"), "put");
    FINE(put("new", "new"), "put");
    FINE(open_file(c, "new", NINEP_O_RDONLY, &fid), "open the victim");
    FINE(ninep_renameat(c, 1, "old", 1, "new"), "rename over an open file");
    OK(holds("new", "old"), "the name has the new content");
    FINE(ninep_read(c, fid, 0, buf, sizeof buf, &n), "read the victim");
    OK(n == 3 && !memcmp(buf, "new", 3), "the open file has the old");
    ninep_release(c, fid);
    ERR(exists("old"), ENOENT, "the old name is gone");
    FINE(walk(c, "d", &dfid), "walk to d");
    FINE(ninep_renameat(c, 1, "new", dfid, "moved"), "into a directory");
    OK(holds("d/moved", "old"), "is there");
    FINE(walk(c, "d/moved", &fid), "walk");
    FINE(ninep_rename(c, fid, 1, "back"), "Trename by fid");
    OK(holds("back", "old"), "is back");
    ninep_release(c, fid);
    FINE(walk(c, "d/e", &fid2), "walk to d/e");
    ERR(ninep_renameat(c, 1, "d", fid2, "loop"), EINVAL,
        "a directory into itself");
    ERR(ninep_renameat(c, 1, "none", 1, "x"), ENOENT, "rename of nothing");
    ERR(ninep_renameat(c, 1, "back", 1, "d"), EISDIR, "file over directory");
    ERR(ninep_renameat(c, 1, "d", 1, "back"), ENOTDIR, "directory over file");
    FINE(ninep_mkdir(c, 1, "empty", 0755, 0, NULL), "mkdir");
    int error = ninep_renameat(c, 1, "empty", 1, "d");

    OK(error == ENOTEMPTY || error == EEXIST, "over a full directory");
    FINE(ninep_renameat(c, dfid, "e", 1, "empty"), "over an empty one");
    FINE(ninep_getattr(c, fid2, NINEP_GETATTR_ALL,
                       &(struct ninep_attr){.mode = 0}),
         "the fid moved along");
    FINE(ninep_renameat(c, 1, "empty", dfid, "e"), "and back");
    ninep_release(c, fid2);
    ninep_release(c, dfid);
    FINE(walk(c, "back", &fid), "walk");
    FINE(ninep_link(c, 1, fid, "back2"), "link");
    ninep_release(c, fid);
    FINE(ninep_renameat(c, 1, "back", 1, "back2"), "two names of one inode");
    OK(!exists("back") && !exists("back2"), "both stay");
}

static void
test_unlink(void)
{
    struct ninep_setattr set = {.valid = NINEP_SETATTR_SIZE, .size = 2};
    struct ninep_attr attr;
    uint32_t fid, dfid;
    char buf[16];
    uint32_t n;
    int error;

    FINE(create_open(c, "gone", NINEP_O_RDWR, &fid), "create");
    FINE(ninep_write_all(c, fid, 0, "abc", 3), "write");
    FINE(ninep_unlinkat(c, 1, "gone", 0), "unlink while open");
    ERR(exists("gone"), ENOENT, "the name is gone");
    FINE(ninep_write_all(c, fid, 3, "def", 3), "write on");
    FINE(ninep_read(c, fid, 0, buf, sizeof buf, &n), "read on");
    OK(n == 6 && !memcmp(buf, "abcdef", 6), "the content");
    FINE(ninep_getattr(c, fid, NINEP_GETATTR_ALL, &attr), "getattr");
    OK(attr.nlink == 0 && attr.size == 6, "no links, size 6");
    set.fid = fid;
    FINE(ninep_setattr(c, &set), "truncate");
    FINE(ninep_getattr(c, fid, NINEP_GETATTR_ALL, &attr), "getattr");
    OK(attr.size == 2, "size 2");
    FINE(ninep_fsync(c, fid, false), "fsync");
    if (!is_peer) {
        OK(ninep_link(c, 1, fid, "again") == ENOENT,
           "no new name for what has none");
    }
    FINE(ninep_clunk(c, fid), "clunk");
    ERR(ninep_unlinkat(c, 1, "none", 0), ENOENT, "unlink of nothing");
    error = ninep_unlinkat(c, 1, "d", 0);
    OK(error == EISDIR || error == EPERM, "unlink of a directory");
    ERR(ninep_unlinkat(c, 1, "a", NINEP_AT_REMOVEDIR), ENOTDIR,
        "rmdir of a file");
    error = ninep_unlinkat(c, 1, "d", NINEP_AT_REMOVEDIR);
    OK(error == ENOTEMPTY || error == EEXIST, "rmdir of a full directory");
    FINE(ninep_mkdir(c, 1, "rm", 0700, 0, NULL), "mkdir");
    FINE(open_file(c, "rm", NINEP_O_RDONLY, &dfid), "open it");
    FINE(ninep_unlinkat(c, 1, "rm", NINEP_AT_REMOVEDIR), "rmdir while open");
    error = ninep_mkdir(c, dfid, "x", 0700, 0, NULL);
    ERR(error, ENOENT, "nothing can be made in it");
    ninep_release(c, dfid);
    FINE(put("rmv", "x"), "put");
    FINE(walk(c, "rmv", &fid), "walk");
    FINE(ninep_remove(c, fid), "Tremove");
    ERR(ninep_clunk(c, fid), EBADF, "clunks the fid");
    ERR(exists("rmv"), ENOENT, "removes the file");
    FINE(walk(c, "d", &fid), "walk");
    OK(ninep_remove(c, fid) != 0, "Tremove of a full directory fails");
    ERR(ninep_clunk(c, fid), EBADF, "and clunks the fid, too");
    if (!is_peer) {
        ERR(ninep_unlinkat(c, 1, "a", 0x100), EINVAL, "unknown flags");
    }
}

static void
test_io(void)
{
    static char big[3 << 20], back[3 << 20];
    struct ninep_setattr set = {.valid = NINEP_SETATTR_SIZE};
    struct ninep_attr attr;
    struct ninep_msg t = {.type = NINEP_TREAD}, r;
    uint32_t fid, n;
    size_t got = 0;

    for (size_t i = 0; i < sizeof big; i++) {
        big[i] = i * 7 + (i >> 8);
    }
    FINE(create_open(c, "big", NINEP_O_RDWR, &fid), "create");
    FINE(ninep_write_all(c, fid, 0, big, sizeof big), "write 3 MiB");
    FINE(ninep_read_all(c, fid, 0, back, sizeof back, &got), "read 3 MiB");
    OK(got == sizeof big && !memcmp(big, back, got), "are equal");
    FINE(ninep_read_all(c, fid, 1000001, back, 100000, &got), "read inside");
    OK(got == 100000 && !memcmp(big + 1000001, back, got), "are equal");
    FINE(ninep_read(c, fid, sizeof big, back, 10, &n), "read at the end");
    OK(n == 0, "gives nothing");
    FINE(ninep_read(c, fid, sizeof big - 3, back, 10, &n), "read over it");
    OK(n == 3, "gives 3 bytes");
    if (!is_peer) {
        /* diod 1.0.24 dies of this one. */
        t.tread.fid = fid;
        t.tread.count = UINT32_MAX;
        FINE(ninep_client_call(c, &t, &r), "Tread of 4 GiB");
        OK(r.rread.data.len <= ninep_client_msize(c) - 11, "is clamped");
        t.tread.offset = UINT64_MAX - 5;
        FINE(ninep_client_call(c, &t, &r), "Tread at the end of numbers");
        OK(r.rread.data.len == 0, "gives nothing");
        ERR(ninep_write(c, fid, UINT64_MAX - 2, big, 10, &n), EFBIG,
            "Twrite at the end of numbers");
    }
    set.fid = fid;
    set.size = 10;
    FINE(ninep_setattr(c, &set), "truncate");
    set.size = 20;
    FINE(ninep_setattr(c, &set), "extend");
    FINE(ninep_read_all(c, fid, 0, back, 100, &got), "read");
    OK(got == 20 && !memcmp(back, big, 10) &&
           !memcmp(back + 10, "\0\0\0\0\0\0\0\0\0", 10),
       "zeros after the cut");
    ninep_release(c, fid);

    FINE(create_open(c, "sparse", NINEP_O_RDWR, &fid), "create");
    FINE(ninep_write(c, fid, UINT64_C(1) << 40, "x", 1, &n), "write at 1 TiB");
    FINE(ninep_getattr(c, fid, NINEP_GETATTR_ALL, &attr), "getattr");
    OK(attr.size == (UINT64_C(1) << 40) + 1 && attr.blocks < 2048,
       "large and sparse");
    FINE(ninep_read(c, fid, UINT64_C(1) << 39, back, 100, &n),
         "read the hole");
    OK(n == 100 && !memcmp(back, (char[100]){0}, 100), "zeros");
    ninep_release(c, fid);

    FINE(open_file(c, "a", NINEP_O_RDONLY, &fid), "open for reading");
    ERR(ninep_write(c, fid, 0, "x", 1, &n), EBADF, "write is refused");
    ninep_release(c, fid);
    FINE(open_file(c, "a", NINEP_O_WRONLY, &fid), "open for writing");
    ERR(ninep_read(c, fid, 0, back, 1, &n), EBADF, "read is refused");
    ninep_release(c, fid);
    FINE(walk(c, "a", &fid), "walk");
    ERR(ninep_read(c, fid, 0, back, 1, &n), EBADF, "read without open");
    ninep_release(c, fid);
    if (!is_peer) {
        ERR(open_file(c, "d", NINEP_O_RDWR, &fid), EISDIR,
            "open a directory for writing");
        ERR(open_file(c, "a", NINEP_O_DIRECTORY, &fid), ENOTDIR,
            "open a file as directory");
        FINE(open_file(c, "d", NINEP_O_RDONLY, &fid), "open a directory");
        ERR(ninep_read(c, fid, 0, back, 1, &n), EISDIR, "read a directory");
        ninep_release(c, fid);
    }
}

static void
test_append(void)
{
    struct ninep_client *other = open_client(0, 65536);
    struct ninep_attr attr;
    uint32_t f1, f2, n;
    char buf[4096];
    size_t got = 0;
    int n_a = 0, n_b = 0;

    FINE(create_open(c, "log", NINEP_O_WRONLY | NINEP_O_APPEND, &f1),
         "create for appending");
    FINE(open_file(other, "log", NINEP_O_WRONLY | NINEP_O_APPEND, &f2),
         "open in a second client");
    for (int i = 0; i < 100; i++) {
        if (ninep_write(c, f1, 0, "aaaa\n", 5, &n) ||
            ninep_write(other, f2, 0, "bbbb\n", 5, &n)) {
            break;
        }
    }
    FINE(ninep_getattr(c, f1, NINEP_GETATTR_ALL, &attr), "getattr");
    OK(attr.size == 1000, "nothing was overwritten (%llu)",
       (unsigned long long) attr.size);
    ninep_release(c, f1);
    ninep_release(other, f2);
    FINE(open_file(other, "log", NINEP_O_RDONLY, &f2), "open");
    FINE(ninep_read_all(other, f2, 0, buf, sizeof buf, &got), "read");
    for (size_t i = 0; i + 5 <= got; i += 5) {
        n_a += !memcmp(buf + i, "aaaa\n", 5);
        n_b += !memcmp(buf + i, "bbbb\n", 5);
    }
    OK(n_a == 100 && n_b == 100, "all lines whole: %d, %d", n_a, n_b);
    ninep_client_close(other);
}

static void
test_attr(void)
{
    struct ninep_setattr set = {.valid = NINEP_SETATTR_MODE, .mode = 0751};
    struct ninep_attr before, attr;
    uint32_t fid;

    FINE(put("attr", "x"), "put");
    FINE(walk(c, "attr", &fid), "walk");
    set.fid = fid;
    FINE(ninep_setattr(c, &set), "chmod");
    set.valid = NINEP_SETATTR_UID | NINEP_SETATTR_GID;
    set.uid = 1234;
    set.gid = 5678;
    FINE(ninep_setattr(c, &set), "chown");
    set.valid = NINEP_SETATTR_ATIME | NINEP_SETATTR_ATIME_SET |
                NINEP_SETATTR_MTIME | NINEP_SETATTR_MTIME_SET;
    set.atime = (struct ninep_time){1000000000, 123456789};
    set.mtime = (struct ninep_time){1100000000, 999999999};
    FINE(ninep_setattr(c, &set), "utimensat");
    before = stat_of("attr");
    OK(before.mode == (S_IFREG | 0751), "mode");
    OK(before.uid == 1234 && before.gid == 5678, "owner");
    OK(before.atime.sec == 1000000000 && before.atime.nsec == 123456789,
       "atime");
    OK(before.mtime.sec == 1100000000 && before.mtime.nsec == 999999999,
       "mtime");
    set.valid = NINEP_SETATTR_MTIME;
    FINE(ninep_setattr(c, &set), "touch");
    attr = stat_of("attr");
    OK(attr.mtime.sec > before.mtime.sec, "mtime is now");
    OK(attr.atime.sec == before.atime.sec, "atime is kept");
    if (!is_peer) {
        OK(attr.data_version > before.data_version, "data_version grows");
        set.valid = NINEP_SETATTR_MTIME | NINEP_SETATTR_MTIME_SET;
        set.mtime.nsec = 1000000000;
        ERR(ninep_setattr(c, &set), EINVAL, "no such nanosecond");
        set.mtime = (struct ninep_time){(uint64_t) -5, 500000000};
        FINE(ninep_setattr(c, &set), "a time before 1970");
        attr = stat_of("attr");
        OK(attr.mtime.sec == (uint64_t) -5 && attr.mtime.nsec == 500000000,
           "is kept");
        set.valid = NINEP_SETATTR_SIZE;
        set.size = UINT64_MAX;
        OK(ninep_setattr(c, &set) != 0, "a size of 2^64 - 1 is refused");
    }
    ninep_release(c, fid);
}

/* Set-user-id bits go when another than root writes. */
static void
test_suid(void)
{
    struct ninep_client *user;
    struct ninep_setattr set = {.valid = NINEP_SETATTR_MODE, .mode = 06777};
    uint32_t fid, n;

    if (is_peer) {
        return;
    }
    user = open_client(1000, 65536);
    FINE(put("suid", "x"), "put");
    FINE(walk(c, "suid", &fid), "walk");
    set.fid = fid;
    FINE(ninep_setattr(c, &set), "chmod 6777");
    FINE(ninep_lopen(c, fid, NINEP_O_WRONLY, NULL, NULL), "open");
    FINE(ninep_write(c, fid, 0, "y", 1, &n), "root writes");
    ninep_release(c, fid);
    OK((stat_of("suid").mode & 07777) == 06777, "the bits stay");
    FINE(open_file(user, "suid", NINEP_O_WRONLY, &fid), "a user opens");
    FINE(ninep_write(user, fid, 0, "z", 1, &n), "and writes");
    OK((stat_of("suid").mode & 07777) == 0777, "the bits go");
    ninep_release(user, fid);
    FINE(create_open(user, "mine", NINEP_O_WRONLY, &fid), "the user creates");
    OK(stat_of("mine").uid == 1000, "and owns it");
    ninep_client_close(user);
}

struct seen {
    int n[1200];
    int n_total, n_dots, n_wrong;
};

static void
scan(struct ninep_client *client, uint32_t fid, uint32_t count,
     struct seen *seen, void (*between)(int round))
{
    uint64_t cookie = 0;

    memset(seen, 0, sizeof *seen);
    for (int round = 0;; round++) {
        struct ninep_data data;
        struct ninep_dirent d;
        uint32_t pos = 0;
        int error = ninep_readdir(client, fid, cookie, count, &data);

        if (error || !data.len) {
            seen->n_wrong += error != 0;
            return;
        }
        while (!ninep_dirent_get(&data, &pos, &d)) {
            cookie = d.cookie;
            seen->n_total++;
            if (d.name.s[0] == '.') {
                seen->n_dots++;
            } else if (d.name.len == 5 && d.name.s[0] == 'f') {
                int i = atoi((char[5]){d.name.s[1], d.name.s[2], d.name.s[3],
                                       d.name.s[4]});

                seen->n[i % 1200]++;
                seen->n_wrong += d.type != DT_REG;
            }
            seen->n_wrong += cookie >> 63;
        }
        if (between) {
            between(round);
        }
    }
}

static uint32_t many_dir;

/* Removes and adds names while the directory is read. */
static void
disturb(int round)
{
    char name[16];
    uint32_t fid;

    if (round < 40) {
        snprintf(name, sizeof name, "f%04d", 700 + round);
        OK(!ninep_unlinkat(c, many_dir, name, 0), "unlink %s in a scan", name);
        snprintf(name, sizeof name, "g%04d", round);
        if (!ninep_walk_path(c, many_dir, "", &fid, NULL)) {
            OK(!ninep_lcreate(c, fid, name, NINEP_O_RDWR, 0644, 0, NULL),
               "create %s in a scan", name);
            ninep_release(c, fid);
        }
    }
}

static void
test_readdir(void)
{
    struct ninep_client *other = open_client(0, 65536);
    static struct seen seen;
    struct ninep_data data;
    uint32_t fid, dfid;
    int bad = 0;

    FINE(ninep_mkdir(c, 1, "many", 0755, 0, NULL), "mkdir");
    FINE(walk(c, "many", &many_dir), "walk");
    for (int i = 0; i < 1000; i++) {
        char name[16];

        snprintf(name, sizeof name, "f%04d", i);
        bad += ninep_walk_path(c, many_dir, "", &fid, NULL) != 0;
        bad += ninep_lcreate(c, fid, name, NINEP_O_RDWR, 0644, 0, NULL) != 0;
        ninep_release(c, fid);
    }
    OK(!bad, "create 1000 files");
    FINE(open_file(other, "many", NINEP_O_RDONLY, &dfid), "open");
    scan(other, dfid, 1 << 20, &seen, NULL);
    for (int i = 0; i < 1000; i++) {
        bad += seen.n[i] != 1;
    }
    OK(!bad && seen.n_dots == 2 && !seen.n_wrong && seen.n_total == 1002,
       "each is seen once (%d wrong, %d in all)", bad, seen.n_total);
    scan(other, dfid, 500, &seen, NULL);
    for (int i = 0; i < 1000; i++) {
        bad += seen.n[i] != 1;
    }
    OK(!bad && !seen.n_wrong, "also in small bites");
    if (!is_peer) {
        scan(other, dfid, 900, &seen, disturb);
        for (int i = 0; i < 700; i++) {
            bad += seen.n[i] != 1;
        }
        for (int i = 740; i < 1000; i++) {
            bad += seen.n[i] != 1;
        }
        for (int i = 700; i < 740; i++) {
            bad += seen.n[i] > 1;
        }
        OK(!bad && !seen.n_wrong,
           "what stays is seen once in a scan "
           "while others come and go (%d)",
           bad);
        ERR(ninep_readdir(other, dfid, 0, 10, &data), EINVAL,
            "too small a count");
        ERR(ninep_readdir(other, dfid, UINT64_MAX, 1000, &data), EINVAL,
            "no such cookie");
        ERR(ninep_readdir(c, many_dir, 0, 1000, &data), EBADF,
            "readdir without open");
        FINE(open_file(other, "a", NINEP_O_RDONLY, &fid), "open a file");
        ERR(ninep_readdir(other, fid, 0, 1000, &data), ENOTDIR,
            "readdir of a file");
        OK(stat_of("many").nlink == 2, "links of a directory");
    }
    ninep_client_close(other);
    ninep_release(c, many_dir);
}

static void
test_xattr(void)
{
    static char big[65536], back[65536];
    char buf[1024];
    uint32_t fid, fid2, n;
    size_t size = 0;
    struct ninep_msg t = {.type = NINEP_TXATTRCREATE}, r;

    if (is_peer) {
        return; /* The host's file system may not have them. */
    }
    FINE(put("xattr", "x"), "put");
    FINE(walk(c, "xattr", &fid), "walk");
    FINE(ninep_setxattr(c, fid, "user.a", "value", 5, 0), "setxattr");
    FINE(ninep_getxattr(c, fid, "user.a", buf, sizeof buf, &size), "getxattr");
    OK(size == 5 && !memcmp(buf, "value", 5), "value");
    ERR(ninep_setxattr(c, fid, "user.a", "v", 1, NINEP_XATTR_CREATE), EEXIST,
        "XATTR_CREATE of what exists");
    ERR(ninep_setxattr(c, fid, "user.b", "v", 1, NINEP_XATTR_REPLACE), ENODATA,
        "XATTR_REPLACE of nothing");
    FINE(ninep_setxattr(c, fid, "user.b", "", 0, 0), "an empty value");
    FINE(ninep_getxattr(c, fid, "user.b", buf, sizeof buf, &size), "get it");
    OK(size == 0, "is empty");
    FINE(ninep_getxattr(c, fid, "", buf, sizeof buf, &size), "list");
    OK(size == 14 && (!memcmp(buf, "user.a\0user.b", 14) ||
                      !memcmp(buf, "user.b\0user.a", 14)),
       "both names");
    FINE(ninep_setxattr(c, fid, "user.b", NULL, 0, NINEP_XATTR_REPLACE),
         "remove");
    ERR(ninep_getxattr(c, fid, "user.b", buf, sizeof buf, &size), ENODATA,
        "is gone");
    for (size_t i = 0; i < sizeof big; i++) {
        big[i] = i ^ i >> 8;
    }
    FINE(ninep_setxattr(c, fid, "user.big", big, sizeof big, 0), "64 KiB");
    FINE(ninep_getxattr(c, fid, "user.big", back, sizeof back, &size),
         "get it");
    OK(size == sizeof big && !memcmp(big, back, size), "are equal");
    FINE(walk(c, "xattr", &fid2), "walk");
    t.txattrcreate.fid = fid2;
    t.txattrcreate.name = ninep_str("user.c");
    t.txattrcreate.size = 65537;
    ERR(ninep_client_call(c, &t, &r), E2BIG, "more is refused");
    t.txattrcreate.size = 10;
    FINE(ninep_client_call(c, &t, &r), "Txattrcreate");
    FINE(ninep_write(c, fid2, 0, "abc", 3, &n), "write a part");
    OK(ninep_write(c, fid2, 3, "0123456789", 10, &n) != 0,
       "more than was announced");
    ERR(ninep_clunk(c, fid2), EINVAL, "clunk of an unfinished value");
    ERR(ninep_getxattr(c, fid, "user.c", buf, sizeof buf, &size), ENODATA,
        "nothing was set");
    ninep_release(c, fid);
}

static struct ninep_lock
lock_of(uint32_t fid, uint8_t type, uint64_t start, uint64_t length,
        uint32_t proc_id)
{
    return (struct ninep_lock){.fid = fid,
                               .type = type,
                               .start = start,
                               .length = length,
                               .proc_id = proc_id,
                               .client_id = ninep_str("debian")};
}

static void
test_locks(void)
{
    struct ninep_client *other;
    struct ninep_lock lock, got;
    struct ninep_msg t = {.type = NINEP_TLOCK}, r;
    uint32_t f1, f2, f3;
    uint16_t tag, tag2;
    uint8_t status = 99;

    if (is_peer) {
        return;
    }
    other = open_client(0, 65536);
    FINE(put("lock", "0123456789"), "put");
    FINE(open_file(c, "lock", NINEP_O_RDWR, &f1), "open");
    FINE(open_file(other, "lock", NINEP_O_RDWR, &f2), "open in another");
    lock = lock_of(f1, NINEP_LOCK_WRLCK, 0, 10, 42);
    FINE(ninep_lock(c, &lock, &status), "lock");
    OK(status == NINEP_LOCK_SUCCESS, "is granted");
    lock = lock_of(f2, NINEP_LOCK_RDLCK, 5, 1, 42);
    FINE(ninep_lock(other, &lock, &status), "same client_id and proc_id in "
                                            "another session");
    OK(status == NINEP_LOCK_BLOCKED, "is another owner");
    FINE(ninep_getlock(other, &lock, &got), "getlock");
    OK(got.type == NINEP_LOCK_WRLCK && got.start == 0 && got.length == 10 &&
           got.proc_id == 42,
       "shows the lock");
    lock = lock_of(f2, NINEP_LOCK_WRLCK, 10, 0, 42);
    FINE(ninep_lock(other, &lock, &status), "lock beside it");
    OK(status == NINEP_LOCK_SUCCESS, "is granted");
    lock = lock_of(f1, NINEP_LOCK_UNLCK, 3, 4, 42);
    FINE(ninep_lock(c, &lock, &status), "unlock the middle");
    lock = lock_of(f2, NINEP_LOCK_WRLCK, 3, 4, 42);
    FINE(ninep_lock(other, &lock, &status), "lock the middle");
    OK(status == NINEP_LOCK_SUCCESS, "is granted");
    lock = lock_of(f2, NINEP_LOCK_WRLCK, 2, 1, 42);
    FINE(ninep_lock(other, &lock, &status), "lock before the middle");
    OK(status == NINEP_LOCK_BLOCKED, "is not");

    /* Waiting, and being let in. */
    t.lock = lock_of(f2, NINEP_LOCK_WRLCK, 0, 3, 42);
    t.lock.flags = NINEP_LOCK_FLAGS_BLOCK;
    FINE(ninep_client_send(other, &t, &tag), "a blocking lock");
    ERR(ninep_client_wait_ms(other, tag, 100, &r), ETIMEDOUT, "waits");
    FINE(ninep_getattr(other, f2, NINEP_GETATTR_ALL,
                       &(struct ninep_attr){.mode = 0}),
         "while the session goes on");
    lock = lock_of(f1, NINEP_LOCK_WRLCK, 3, 4, 42);
    lock.flags = NINEP_LOCK_FLAGS_BLOCK;
    ERR(ninep_lock(c, &lock, &status), EDEADLK,
        "waiting for the waiter is a deadlock");
    lock = lock_of(f1, NINEP_LOCK_UNLCK, 0, 0, 42);
    FINE(ninep_lock(c, &lock, &status), "unlock");
    FINE(ninep_client_wait_ms(other, tag, 5000, &r), "lets the other in");
    OK(r.rlock.status == NINEP_LOCK_SUCCESS, "it has the lock");

    /* Flush of a waiting request. */
    t.lock = lock_of(f1, NINEP_LOCK_WRLCK, 0, 1, 43);
    t.lock.flags = NINEP_LOCK_FLAGS_BLOCK;
    FINE(ninep_client_send(c, &t, &tag), "a blocking lock");
    FINE(ninep_flush(c, tag), "flush");
    ERR(ninep_client_wait_ms(c, tag, 100, &r), ETIMEDOUT, "drops the request");
    /* The end of a session frees. */
    FINE(open_file(c, "lock", NINEP_O_RDWR, &f3), "open");
    t.lock = lock_of(f3, NINEP_LOCK_WRLCK, 0, 0, 44);
    t.lock.flags = NINEP_LOCK_FLAGS_BLOCK;
    FINE(ninep_client_send(c, &t, &tag2), "a blocking lock");
    ERR(ninep_client_wait_ms(c, tag2, 50, &r), ETIMEDOUT, "waits");
    ninep_client_close(other);
    FINE(ninep_client_wait_ms(c, tag2, 5000, &r),
         "the end of a session frees its locks");
    /* So does the clunk. */
    lock = lock_of(f1, NINEP_LOCK_WRLCK, 0, 0, 45);
    FINE(ninep_lock(c, &lock, &status), "lock");
    OK(status == NINEP_LOCK_BLOCKED, "is held");
    ninep_release(c, f3);
    FINE(ninep_lock(c, &lock, &status), "lock after the clunk");
    OK(status == NINEP_LOCK_SUCCESS, "is free");
    lock.type = 7;
    ERR(ninep_lock(c, &lock, &status), EINVAL, "no such type");
    lock = lock_of(f1, NINEP_LOCK_RDLCK, UINT64_MAX - 1, 5, 45);
    ERR(ninep_lock(c, &lock, &status), EOVERFLOW, "a range that wraps");
    ninep_release(c, f1);
}

static void
test_misc(void)
{
    struct ninep_msg t = {.type = NINEP_TAUTH}, r;
    struct ninep_statfs st;
    uint32_t fid;
    uint16_t tags[200];
    int bad = 0;

    FINE(ninep_statfs(c, 1, &st), "statfs");
    OK(st.bsize && st.blocks && st.namelen == 255, "figures");
    t.tattach.afid = 60;
    t.tattach.uname = ninep_str("root");
    t.tattach.aname = ninep_str(aname);
    if (!is_peer) {
        OK(ninep_client_call(c, &t, &r) != 0, "no authentication is needed");
        OK(st.type == NINEP_V9FS_MAGIC, "type");
    }
    FINE(ninep_flush(c, 0x1234), "flush of nothing");
    OK(ninep_clunk(c, 4711) != 0, "clunk of nothing");
    FINE(open_file(c, "a", NINEP_O_RDWR, &fid), "open");
    for (size_t i = 0; i < ARRAY_SIZE(tags); i++) {
        struct ninep_msg w = {.type = i % 3 ? NINEP_TWRITE : NINEP_TFSYNC};

        if (i % 3) {
            w.twrite.fid = fid;
            w.twrite.offset = i;
            w.twrite.data = (struct ninep_data){"x", 1};
        } else {
            w.tfsync.fid = fid;
            w.tfsync.datasync = 0;
        }
        bad += ninep_client_send(c, &w, &tags[i]) != 0;
    }
    for (size_t i = ARRAY_SIZE(tags); i-- > 0;) {
        bad += ninep_client_wait(c, tags[i], &r) != 0;
    }
    OK(!bad, "200 requests at once, answers taken backwards");
    {
        struct ninep_msg s = {.type = NINEP_TFSYNC};
        uint16_t tag;

        s.tfsync.fid = fid;
        s.tfsync.datasync = 1;
        FINE(ninep_client_send(c, &s, &tag), "fsync");
        FINE(ninep_flush(c, tag), "flushed");
        /* Either it was answered before Rflush, or never. */
        int error = ninep_client_wait_ms(c, tag, 0, &r);

        OK(error == 0 || error == ETIMEDOUT, "answered before or not at all");
    }
    ninep_release(c, fid);
}

/* Attach names. */
static void
test_attach(void)
{
    struct ninep_client *client;
    struct ninep_attr attr;
    struct ninep_qid qid, up;
    char name[300];
    uint32_t fid;

    if (is_peer) {
        return;
    }
    FINE(ninep_client_connect(address, &client), "connect");
    FINE(ninep_client_version(client, 0), "version");
    FINE(ninep_attach(client, 0, "root", "branch/main", 0, NULL),
         "branch/main");
    ERR(ninep_attach(client, 1, "root", "branch/none", 0, NULL), ENOENT,
        "no such branch");
    ERR(ninep_attach(client, 1, "root", "view/none", 0, NULL), ENOENT,
        "no such view");
    ERR(ninep_attach(client, 1, "root", "branch/main@3", 0, NULL), ENOENT,
        "no such version");
    ERR(ninep_attach(client, 1, "root", "what", 0, NULL), EINVAL,
        "no such kind");
    ERR(ninep_attach(client, 1, "root", "branch/main:/../x", 0, NULL), EINVAL,
        "no .. in a subdirectory");
    ERR(ninep_attach(client, 1, "root", "branch/main:/none", 0, NULL), ENOENT,
        "no such subdirectory");
    snprintf(name, sizeof name, "branch/main:/%s/plain", dir_name);
    ERR(ninep_attach(client, 1, "root", name, 0, NULL), ENOTDIR,
        "a file as root");
    snprintf(name, sizeof name, "branch/main:/%s/d+ro", dir_name);
    FINE(ninep_attach(client, 1, "root", name, 0, &qid),
         "a subdirectory, read-only");
    FINE(ninep_walk(client, 1, 2, 1, (const char *[]){".."}, NULL, &up),
         "walk ..");
    OK(up.path == qid.path, "stays in the subdirectory");
    ERR(ninep_mkdir(client, 1, "x", 0755, 0, NULL), EROFS, "is read-only");
    FINE(ninep_getattr(client, 1, NINEP_GETATTR_ALL, &attr), "getattr");
    ERR(ninep_setattr(client, &(struct ninep_setattr){.fid = 1, .valid = 1}),
        EROFS, "chmod");
    FINE(ninep_walk_path(client, 1, "e", &fid, NULL), "walk inside");
    FINE(ninep_walk_path(client, fid, "..", &fid, &up), "and back");
    OK(up.path == qid.path, "to the root");
    snprintf(name, sizeof name, "/%s/d", dir_name);
    FINE(ninep_attach(client, 9, "root", name, 0, &up), "a bare path");
    OK(up.path == qid.path, "names the same");
    ninep_client_close(client);
}

/* Messages that no client sends. */
static void
test_hostile(void)
{
    struct ninep_client *client;
    uint8_t raw[64];
    struct ninep_msg r;
    uint32_t fid;
    int error;

    if (is_peer) {
        return;
    }
    client = open_client(0, 8192);
    {
        struct ninep_msg t = {.type = NINEP_TCLUNK};
        uint16_t tag;

        /* An unknown type under a tag that the client waits for. */
        t.fid.fid = 4711;
        FINE(ninep_client_send(client, &t, &tag), "send");
        ERR(ninep_client_wait(client, tag, &r), EBADF, "clunk");
        FINE(ninep_client_send(client, &t, &tag), "send");
        ERR(ninep_client_wait(client, tag, &r), EBADF, "clunk");
    }
    put_le32(raw, 7);
    raw[4] = 200;
    put_le16(raw + 5, 300);
    FINE(ninep_client_send_raw(client, raw, 7), "an unknown type");
    usleep(20000);
    {
        uint8_t answer[64];
        ssize_t n = read(ninep_client_fd(client), answer, sizeof answer);

        OK(n == 11 && answer[4] == NINEP_RLERROR &&
               get_le16(answer + 5) == 300 &&
               get_le32(answer + 7) == EOPNOTSUPP,
           "is answered with EOPNOTSUPP");
        put_le32(raw, 9);
        raw[4] = NINEP_TCLUNK;
        FINE(ninep_client_send_raw(client, raw, 9), "a message cut short");
        usleep(20000);
        n = read(ninep_client_fd(client), answer, sizeof answer);
        OK(n == 11 && answer[4] == NINEP_RLERROR &&
               get_le32(answer + 7) == EINVAL,
           "is answered with EINVAL");
    }
    FINE(ninep_walk_path(client, 1, "", &fid, NULL), "the session goes on");
    put_le32(raw, 8193);
    FINE(ninep_client_send_raw(client, raw, 7), "larger than msize");
    error = ninep_walk_path(client, 1, "", &fid, NULL);
    OK(error == ECONNRESET || error == EPIPE, "ends the session");
    ninep_client_close(client);
    client = open_client(0, 8192);
    put_le32(raw, 3);
    FINE(ninep_client_send_raw(client, raw, 7), "smaller than its header");
    error = ninep_walk_path(client, 1, "", &fid, NULL);
    OK(error == ECONNRESET || error == EPIPE, "ends the session");
    ninep_client_close(client);
    FINE(exists("a"), "others notice nothing");
}

/* A client that sends and does not read: the server stops reading from it and
 * serves others. */
static void
test_deaf(void)
{
    struct ninep_client *client;
    struct ninep_msg t = {.type = NINEP_TREAD};
    uint8_t msg[64];
    size_t size, sent = 0;
    uint32_t fid;
    int fd;

    if (is_peer) {
        return;
    }
    client = open_client(0, 1 << 20);
    FINE(open_file(client, "sparse", NINEP_O_RDONLY, &fid), "open");
    t.tread.fid = fid;
    t.tread.count = 1 << 20;
    t.tag = 7;
    FINE(ninep_encode(&t, msg, sizeof msg, &size), "encode");
    fd = ninep_client_fd(client);
    /* 20 GiB of answers asked for. */
    for (int i = 0; i < 20000; i++) {
        ssize_t n = send(fd, msg, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0) {
            struct pollfd pfd = {.fd = fd, .events = POLLOUT};

            if (poll(&pfd, 1, 200) <= 0) {
                break;
            }
            continue;
        }
        sent += n;
    }
    OK(true, "%zu bytes of requests were taken", sent);
    FINE(exists("a"), "others are served");
    ninep_client_close(client);
}

int
main(int argc, char *argv[])
{
    char name[64];
    static const struct {
        const char *name;
        void (*run)(void);
        /* diod 1.0.24 has no Tunlinkat and Trenameat, and answers EIO where
         * a fid is unknown. */
        bool peer;
    } tests[] = {
        {"create", test_create, true},   {"walk", test_walk, false},
        {"names", test_names, false},    {"links", test_links, false},
        {"rename", test_rename, false},  {"unlink", test_unlink, false},
        {"io", test_io, true},           {"append", test_append, true},
        {"attr", test_attr, true},       {"suid", test_suid, false},
        {"readdir", test_readdir, true}, {"xattr", test_xattr, false},
        {"locks", test_locks, false},    {"misc", test_misc, true},
        {"attach", test_attach, false},  {"hostile", test_hostile, false},
        {"deaf", test_deaf, false},
    };

    if (argc < 3) {
        fprintf(stderr, "usage: vafs-posix ADDRESS ANAME [--peer]\n");
        return 2;
    }
    address = argv[1];
    aname = argv[2];
    is_peer = argc > 3 && !strcmp(argv[3], "--peer");
    test_version();
    snprintf(name, sizeof name, "posix-%d", (int) getpid());
    c = open_client(0, 65536);
    if (!FINE(ninep_mkdir(c, 0, name, 0755, 0, NULL), "mkdir of the run")) {
        return tap_end();
    }
    ninep_client_close(c);
    dir_name = name;
    c = open_client(0, 65536);
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        if (!is_peer || tests[i].peer) {
            printf("# %s\n", tests[i].name);
            tests[i].run();
        }
    }
    ninep_client_close(c);
    return tap_end();
}
