/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Branches and files: rules of POSIX one by one, durability, back-pressure,
 * failures of the disk. */

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "lib/clock.h"
#include "lib/vlog.h"
#include "tests/unit/branch-helper.h"
#include "vafs-server/branch/branch-private.h"

static struct fixture fx;

static void
setup(void)
{
    fixture_create(&fx, 65536);
}

static void
teardown(void)
{
    fixture_destroy(&fx);
}

TestSuite(branch, .init = setup, .fini = teardown, .timeout = 300);

static struct file *
find(const char *path)
{
    struct file *file;
    int error = fixture_find(&fx, path, &file);

    cr_assert_eq(error, 0, "%s: %s", path, strerror(error));
    return file;
}

static struct file_attr
attr_of(const char *path)
{
    struct file *file = find(path);
    struct file_attr attr;

    cr_assert_eq(file_getattr(file, &attr), 0);
    file_unref(file);
    return attr;
}

static void
make(const char *name)
{
    cr_assert_eq(file_create(fx.root, S(name), 0644, &fixture_cred, NULL), 0);
}

static void
make_dir(const char *name)
{
    cr_assert_eq(file_mkdir(fx.root, S(name), 0755, &fixture_cred, NULL), 0);
}

static void
write_text(const char *path, const char *text)
{
    struct file *file = find(path);

    cr_assert_eq(file_write(file, text, strlen(text), 0, 0, NULL), 0);
    file_unref(file);
}

static void
expect_text(const char *path, const char *text)
{
    struct file *file = find(path);
    char buf[200];
    size_t n;

    cr_assert_eq(file_read(file, buf, sizeof buf, 0, &n), 0);
    cr_assert_eq(n, strlen(text), "%s has %zu bytes", path, n);
    cr_assert(!memcmp(buf, text, n));
    file_unref(file);
}

static void
reopen_after_kill(void)
{
    int error;

    fixture_kill(&fx);
    error = fixture_open(&fx);
    cr_assert_eq(error, 0, "%s", strerror(error));
}

Test(branch, names_that_cannot_be)
{
    char long_name[300];
    struct file *file;

    memset(long_name, 'x', sizeof long_name);
    const struct {
        const char *name;
        size_t len;
        int error;
    } t[] = {
        {"", 0, EINVAL},
        {"a/b", 3, EINVAL},
        {"/", 1, EINVAL},
        {"a\0b", 3, EINVAL},
        {long_name, 256, ENAMETOOLONG},
        {long_name, 300, ENAMETOOLONG},
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        cr_assert_eq(file_create(fx.root, t[i].name, t[i].len, 0644,
                                 &fixture_cred, NULL),
                     t[i].error);
        cr_assert_eq(file_mkdir(fx.root, t[i].name, t[i].len, 0644,
                                &fixture_cred, NULL),
                     t[i].error);
        cr_assert_eq(file_lookup(fx.root, t[i].name, t[i].len, &file),
                     t[i].error);
        cr_assert_eq(file_unlink(fx.root, t[i].name, t[i].len, 0), t[i].error);
    }
    cr_assert_eq(
        file_create(fx.root, long_name, 255, 0644, &fixture_cred, NULL), 0);
    cr_assert_eq(file_create(fx.root, S("."), 0644, &fixture_cred, NULL),
                 EEXIST);
    cr_assert_eq(file_mkdir(fx.root, S(".."), 0644, &fixture_cred, NULL),
                 EEXIST);
    cr_assert_eq(file_unlink(fx.root, S("."), AT_REMOVEDIR), EINVAL);
    cr_assert_eq(file_unlink(fx.root, S(".."), AT_REMOVEDIR), ENOTEMPTY);
    make("f");
    file = find("f");
    cr_assert_eq(file_create(file, S("x"), 0644, &fixture_cred, NULL),
                 ENOTDIR);
    cr_assert_eq(file_link(fx.root, S("f"), file), EEXIST);
    file_unref(file);
    cr_assert_eq(file_lookup(fx.root, S("."), &file), 0);
    cr_assert_eq(file_ino(file), file_ino(fx.root));
    file_unref(file);
    cr_assert_eq(file_lookup(fx.root, S(".."), &file), 0);
    cr_assert_eq(file_ino(file), file_ino(fx.root));
    file_unref(file);
}

Test(branch, rename_rules)
{
    static const struct {
        const char *from, *to;
        unsigned flags;
        int error;
    } t[] = {
        {"none", "x", 0, ENOENT},
        {"file", "dir", 0, EISDIR},
        {"dir", "file", 0, ENOTDIR},
        {"dir", "full", 0, ENOTEMPTY},
        {"full", "full/sub/x", 0, EINVAL},
        {"full", "full/x", 0, EINVAL},
        {"full/sub", "full", 0, ENOTEMPTY},
        {"file", "file", 0, 0},
        {"file", "file2", FILE_RENAME_NOREPLACE, EEXIST},
        {"file", "none", FILE_RENAME_EXCHANGE, ENOENT},
        {"full/sub", "full", FILE_RENAME_EXCHANGE, EINVAL},
        {"file", "x", 8, EINVAL},
        {"file", "x", 3, EINVAL},
        {"file", "full", FILE_RENAME_EXCHANGE, 0},
        {"file", "full", FILE_RENAME_EXCHANGE, 0},
        {"full", "dir", 0, 0},
        {"file", "file2", 0, 0},
    };
    struct file *full;

    make("file");
    make("file2");
    make_dir("dir");
    make_dir("full");
    full = find("full");
    cr_assert_eq(file_mkdir(full, S("sub"), 0755, &fixture_cred, NULL), 0);
    file_unref(full);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        const char *names[2] = {t[i].from, t[i].to};
        struct file *dir[2];
        const char *last[2];
        int error;

        for (int k = 0; k < 2; k++) {
            char parent[100];
            const char *slash = strrchr(names[k], '/');

            snprintf(parent, sizeof parent, "%.*s",
                     slash ? (int) (slash - names[k]) : 0, names[k]);
            last[k] = slash ? slash + 1 : names[k];
            dir[k] = find(parent);
        }
        error =
            file_rename(dir[0], S(last[0]), dir[1], S(last[1]), t[i].flags);
        cr_assert_eq(error, t[i].error, "%zu: %s", i, strerror(error));
        file_unref(dir[0]);
        file_unref(dir[1]);
    }
    cr_assert_eq(attr_of("").nlink, 3);
    cr_assert_eq(attr_of("dir").nlink, 3);
    cr_assert_eq(fixture_verify(&fx), 0);
}

Test(branch, rename_of_directories_moves_dotdot)
{
    struct file *a, *b, *d, *parent;

    make_dir("a");
    make_dir("b");
    a = find("a");
    b = find("b");
    cr_assert_eq(file_mkdir(a, S("d"), 0755, &fixture_cred, &d), 0);
    cr_assert_eq(attr_of("a").nlink, 3);
    cr_assert_eq(file_rename(a, S("d"), b, S("e"), 0), 0);
    cr_assert_eq(attr_of("a").nlink, 2);
    cr_assert_eq(attr_of("b").nlink, 3);
    cr_assert_eq(file_parent(d, &parent), 0);
    cr_assert_eq(file_ino(parent), file_ino(b));
    file_unref(parent);
    /* b is above d now. */
    cr_assert_eq(file_rename(fx.root, S("b"), d, S("x"), 0), EINVAL);
    file_unref(a);
    file_unref(b);
    file_unref(d);
}

Test(branch, links_and_counts)
{
    struct file *file, *dir;
    char path[PATH_MAX];

    make("a");
    make_dir("d");
    file = find("a");
    dir = find("d");
    cr_assert_eq(file_link(dir, S("b"), file), 0);
    cr_assert_eq(file_link(fx.root, S("c"), file), 0);
    cr_assert_eq(file_link(fx.root, S("e"), dir), EPERM);
    cr_assert_eq(attr_of("a").nlink, 3);
    cr_assert_eq(attr_of("d/b").ino, attr_of("c").ino);
    /* The first name goes: another one takes its place. */
    cr_assert_eq(file_unlink(fx.root, S("a"), 0), 0);
    cr_assert_eq(file_path(file, path, sizeof path), 0);
    cr_assert(!strcmp(path, "/d/b") || !strcmp(path, "/c"), "%s", path);
    cr_assert_eq(fixture_verify(&fx), 0);
    cr_assert_eq(file_unlink(fx.root, S("c"), 0), 0);
    cr_assert_eq(file_path(file, path, sizeof path), 0);
    cr_assert_str_eq(path, "/d/b");
    /* Renaming one name of a file over another does nothing. */
    cr_assert_eq(file_link(fx.root, S("c"), file), 0);
    cr_assert_eq(file_rename(fx.root, S("c"), dir, S("b"), 0), 0);
    cr_assert_eq(attr_of("c").nlink, 2);
    cr_assert_eq(file_unlink(fx.root, S("c"), 0), 0);
    cr_assert_eq(file_remove(file), 0);
    cr_assert_eq(file_path(file, path, sizeof path), ENOENT);
    cr_assert_eq(file_link(fx.root, S("c"), file), ENOENT);
    cr_assert_eq(file_path(fx.root, path, sizeof path), 0);
    cr_assert_str_eq(path, "/");
    cr_assert_eq(file_remove(fx.root), EBUSY);
    file_unref(file);
    file_unref(dir);
}

Test(branch, open_files_outlive_their_names)
{
    struct branch_stats stats;
    struct file *file, *dir;
    struct file_attr attr;
    uint64_t ino;
    char buf[10];
    size_t n;

    make("f");
    write_text("f", "content");
    file = find("f");
    ino = file_ino(file);
    cr_assert_eq(file_unlink(fx.root, S("f"), 0), 0);
    cr_assert_eq(file_getattr(file, &attr), 0);
    cr_assert_eq(attr.nlink, 0);
    /* Whatever a checkpoint does below. */
    cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
    cr_assert_eq(file_read(file, buf, sizeof buf, 0, &n), 0);
    cr_assert_eq(n, 7);
    cr_assert_eq(file_write(file, "CON", 3, 0, 0, NULL), 0);
    cr_assert_eq(file_read(file, buf, 7, 0, &n), 0);
    cr_assert(!memcmp(buf, "CONtent", 7));
    branch_get_stats(fx.branch, &stats);
    cr_assert_eq(stats.n_orphans, 1);
    cr_assert_eq(fixture_verify(&fx), 0);
    file_unref(file);
    branch_get_stats(fx.branch, &stats);
    cr_assert_eq(stats.n_orphans, 0);
    cr_assert_eq(file_by_inode(fx.branch, ino, 0, &file), ESTALE);
    cr_assert_eq(fixture_verify(&fx), 0);

    /* A directory that is gone takes no new names. */
    make_dir("d");
    dir = find("d");
    cr_assert_eq(file_unlink(fx.root, S("d"), AT_REMOVEDIR), 0);
    cr_assert_eq(file_create(dir, S("x"), 0644, &fixture_cred, NULL), ENOENT);
    cr_assert_eq(file_lookup(dir, S("x"), &file), ENOENT);
    file_unref(dir);
}

Test(branch, orphans_are_reaped_after_a_kill)
{
    struct branch_stats stats;
    struct file *file;

    make("f");
    write_text("f", "content");
    file = find("f");
    cr_assert_eq(file_unlink(fx.root, S("f"), 0), 0);
    cr_assert_eq(file_fsync(file, false), 0);
    branch_get_stats(fx.branch, &stats);
    cr_assert_eq(stats.n_inodes, 2);
    {
        /* As a kill would, with the file open. */
        struct memfs *copy = memfs_clone(fx.fs);

        file_unref(file);
        fixture_kill(&fx);
        memfs_destroy(fx.fs);
        fx.fs = copy;
        fx.options.files = memfs_layer(copy);
    }
    cr_assert_eq(fixture_open(&fx), 0);
    branch_get_stats(fx.branch, &stats);
    cr_assert_eq(stats.n_inodes, 1);
    cr_assert_eq(fixture_verify(&fx), 0);
}

Test(branch, owner_group_and_mode)
{
    const struct file_cred other = {7, 8};
    struct file_setattr set = {0};
    struct file *dir, *file;

    make_dir("d");
    dir = find("d");
    set.mask = FILE_SET_MODE | FILE_SET_GID;
    set.mode = 02775;
    set.gid = 55;
    cr_assert_eq(file_setattr(dir, &set), 0);
    cr_assert_eq(file_create(dir, S("f"), 0644, &other, NULL), 0);
    cr_assert_eq(file_mkdir(dir, S("s"), 0755, &other, NULL), 0);
    cr_assert_eq(attr_of("d/f").gid, 55);
    cr_assert_eq(attr_of("d/f").uid, 7);
    cr_assert_eq(attr_of("d/f").mode, S_IFREG | 0644);
    cr_assert_eq(attr_of("d/s").gid, 55);
    cr_assert_eq(attr_of("d/s").mode, S_IFDIR | 02755);

    file = find("d/f");
    set.mask = FILE_SET_MODE;
    set.mode = 06755;
    cr_assert_eq(file_setattr(file, &set), 0);
    cr_assert_eq(file_write(file, "x", 1, 0, FILE_WRITE_KEEP_SUID, NULL), 0);
    cr_assert_eq(attr_of("d/f").mode, S_IFREG | 06755);
    cr_assert_eq(file_write(file, "x", 1, 0, 0, NULL), 0);
    cr_assert_eq(attr_of("d/f").mode, S_IFREG | 0755);
    set.mode = 06745; /* No group execution: mandatory locking's bit. */
    cr_assert_eq(file_setattr(file, &set), 0);
    cr_assert_eq(file_write(file, "x", 1, 0, 0, NULL), 0);
    cr_assert_eq(attr_of("d/f").mode, S_IFREG | 02745);
    set.mode = 06755;
    cr_assert_eq(file_setattr(file, &set), 0);
    set.mask = FILE_SET_UID;
    set.uid = 9;
    cr_assert_eq(file_setattr(file, &set), 0);
    cr_assert_eq(attr_of("d/f").mode, S_IFREG | 0755);
    cr_assert_eq(attr_of("d/f").uid, 9);
    file_unref(file);
    file_unref(dir);
}

Test(branch, times)
{
    struct file_attr before, after;
    struct file_setattr set = {0};
    struct file *file;
    char buf[4];
    size_t n;

    make("f");
    before = attr_of("f");
    cr_assert_eq(before.atime, before.btime);
    cr_assert_eq(attr_of("").mtime, before.mtime);
    write_text("f", "abc");
    after = attr_of("f");
    cr_assert_gt(after.mtime, before.mtime);
    cr_assert_eq(after.mtime, after.ctime);
    cr_assert_gt(after.data_version, before.data_version);
    cr_assert_eq(after.btime, before.btime);

    file = find("f");
    cr_assert_eq(file_read(file, buf, 3, 0, &n), 0);
    before = attr_of("f");
    cr_assert_geq(before.atime, before.mtime); /* relatime */
    cr_assert_eq(file_read(file, buf, 3, 0, &n), 0);
    cr_assert_eq(attr_of("f").atime, before.atime);

    set.mask = FILE_SET_ATIME | FILE_SET_ATIME_SET | FILE_SET_MTIME |
               FILE_SET_MTIME_SET;
    set.atime = -5;
    set.mtime = INT64_C(4000000000) * 1000000000;
    cr_assert_eq(file_setattr(file, &set), 0);
    cr_assert_eq(attr_of("f").atime, -5);
    cr_assert_eq(attr_of("f").mtime, set.mtime);
    cr_assert_gt(attr_of("f").ctime, before.ctime);
    set.mask = FILE_SET_MTIME;
    cr_assert_eq(file_setattr(file, &set), 0);
    cr_assert_lt(attr_of("f").mtime, set.mtime);
    file_unref(file);

    /* Names change directories' times. */
    before = attr_of("");
    cr_assert_eq(file_unlink(fx.root, S("f"), 0), 0);
    cr_assert_gt(attr_of("").mtime, before.mtime);
}

Test(branch, access_times_make_no_version)
{
    struct branch_version a, b;
    struct file *file;
    char buf[3];
    size_t n;

    make("f");
    write_text("f", "abc");
    cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
    cr_assert_eq(branch_head(fx.branch, &a), 0);
    file = find("f");
    cr_assert_eq(file_read(file, buf, 3, 0, &n), 0);
    cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
    cr_assert_eq(branch_head(fx.branch, &b), 0);
    cr_assert_eq(a.sequence, b.sequence);
    file_unref(file);
}

Test(branch, sparse_files)
{
    struct file_setattr set = {.mask = FILE_SET_SIZE};
    static uint8_t buf[200000];
    struct file *file;
    uint64_t at;
    size_t n;

    make("f");
    file = find("f");
    set.size = UINT64_C(1) << 50;
    cr_assert_eq(file_setattr(file, &set), 0);
    cr_assert_eq(attr_of("f").size, UINT64_C(1) << 50);
    cr_assert_eq(attr_of("f").blocks, 0);
    cr_assert_eq(file_write(file, "x", 1, UINT64_C(1) << 40, 0, NULL), 0);
    cr_assert_eq(attr_of("f").blocks, 65536 / 512);
    cr_assert_eq(file_seek(file, 0, false, &at), 0);
    cr_assert_eq(at, UINT64_C(1) << 40);
    cr_assert_eq(file_seek(file, 0, true, &at), 0);
    cr_assert_eq(at, 0);
    cr_assert_eq(file_seek(file, at + (UINT64_C(1) << 40), true, &at), 0);
    cr_assert_eq(at, (UINT64_C(1) << 40) + 65536);
    cr_assert_eq(file_seek(file, at, false, &at), ENXIO);
    cr_assert_eq(
        file_read(file, buf, sizeof buf, (UINT64_C(1) << 40) - 100000, &n), 0);
    for (size_t i = 0; i < sizeof buf; i++) {
        cr_assert_eq(buf[i], i == 100000 ? 'x' : 0);
    }
    set.size = FILE_SIZE_MAX + 1;
    cr_assert_eq(file_setattr(file, &set), EFBIG);
    cr_assert_eq(file_write(file, "xy", 2, FILE_SIZE_MAX - 1, 0, NULL), EFBIG);
    cr_assert_eq(file_write(file, "xy", 2, UINT64_MAX - 1, 0, NULL), EFBIG);
    cr_assert_eq(file_write(file, "x", 1, FILE_SIZE_MAX - 1, 0, NULL), 0);
    cr_assert_eq(file_read(file, buf, 10, UINT64_MAX, &n), 0);
    cr_assert_eq(n, 0);
    set.size = 0;
    cr_assert_eq(file_setattr(file, &set), 0);
    cr_assert_eq(attr_of("f").blocks, 0);
    file_unref(file);
    cr_assert_eq(fixture_verify(&fx), 0);
}

Test(branch, symbolic_links_and_nodes)
{
    static const size_t sizes[] = {1, 512, 513, 4095};
    char target[5000], buf[5000];
    struct file *file;
    size_t n;

    memset(target, 't', sizeof target);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        char name[20];

        sprintf(name, "l%zu", sizes[i]);
        cr_assert_eq(file_symlink(fx.root, S(name), target, sizes[i],
                                  &fixture_cred, &file),
                     0);
        cr_assert_eq(file_fsync(file, false), 0);
        file_unref(file);
    }
    cr_assert_eq(
        file_symlink(fx.root, S("x"), target, 4096, &fixture_cred, NULL),
        ENAMETOOLONG);
    cr_assert_eq(file_symlink(fx.root, S("x"), target, 0, &fixture_cred, NULL),
                 ENOENT);
    cr_assert_eq(file_mknod(fx.root, S("dev"), S_IFCHR | 0600, 0x103,
                            &fixture_cred, NULL),
                 0);
    cr_assert_eq(
        file_mknod(fx.root, S("pipe"), S_IFIFO | 0600, 5, &fixture_cred, NULL),
        0);
    cr_assert_eq(file_mknod(fx.root, S("sock"), S_IFSOCK | 0600, 0,
                            &fixture_cred, NULL),
                 0);
    cr_assert_eq(
        file_mknod(fx.root, S("bad"), S_IFDIR | 0600, 0, &fixture_cred, NULL),
        EINVAL);
    cr_assert_eq(branch_syncfs(fx.branch), 0);
    reopen_after_kill();
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        char name[20];

        sprintf(name, "l%zu", sizes[i]);
        file = find(name);
        cr_assert_eq(file_readlink(file, buf, sizeof buf, &n), 0);
        cr_assert_eq(n, sizes[i]);
        cr_assert(!memcmp(buf, target, n));
        cr_assert_eq(file_readlink(file, buf, 1, &n), 0);
        cr_assert_eq(n, 1);
        cr_assert_eq(file_read(file, buf, 1, 0, &n), EINVAL);
        file_unref(file);
    }
    cr_assert_eq(attr_of("dev").rdev, 0x103);
    cr_assert_eq(attr_of("pipe").rdev, 0);
    cr_assert_eq(attr_of("pipe").mode, S_IFIFO | 0600);
    cr_assert_eq(fixture_verify(&fx), 0);
}

Test(branch, extended_attributes)
{
    static char value[65536], got[65536];
    struct file *file;
    char list[100];
    size_t n;

    memset(value, 'v', sizeof value);
    make("f");
    file = find("f");
    cr_assert_eq(file_getxattr(file, S("user.a"), NULL, 0, &n), ENODATA);
    cr_assert_eq(file_setxattr(file, S("user.a"), "1", 1, 2), ENODATA);
    cr_assert_eq(file_setxattr(file, S("user.a"), "1", 1, 1), 0);
    cr_assert_eq(file_setxattr(file, S("user.a"), "2", 1, 1), EEXIST);
    cr_assert_eq(file_setxattr(file, S("user.empty"), "", 0, 0), 0);
    cr_assert_eq(file_setxattr(file, S("user.big"), value, 65536, 0), 0);
    cr_assert_eq(file_setxattr(file, S("user.big"), value, 65537, 0), E2BIG);
    cr_assert_eq(file_setxattr(file, S("user.mid"), value, 1024, 0), 0);
    cr_assert_eq(file_setxattr(file, "", 0, "x", 1, 0), ERANGE);
    cr_assert_eq(file_fsync(file, false), 0);
    file_unref(file);
    reopen_after_kill();
    file = find("f");
    cr_assert_eq(file_getxattr(file, S("user.a"), got, 10, &n), 0);
    cr_assert(n == 1 && got[0] == '1');
    cr_assert_eq(file_getxattr(file, S("user.empty"), got, 10, &n), 0);
    cr_assert_eq(n, 0);
    cr_assert_eq(file_getxattr(file, S("user.big"), got, 100, &n), ERANGE);
    cr_assert_eq(file_getxattr(file, S("user.big"), got, 65536, &n), 0);
    cr_assert(n == 65536 && !memcmp(got, value, n));
    cr_assert_eq(file_getxattr(file, S("user.mid"), NULL, 0, &n), 0);
    cr_assert_eq(n, 1024);
    cr_assert_eq(file_listxattr(file, NULL, 0, &n), 0);
    cr_assert_eq(n, strlen("user.a") + strlen("user.empty") +
                        strlen("user.big") + strlen("user.mid") + 4);
    cr_assert_eq(file_listxattr(file, list, 5, &n), ERANGE);
    cr_assert_eq(file_listxattr(file, list, sizeof list, &n), 0);
    cr_assert_eq(file_removexattr(file, S("user.a")), 0);
    cr_assert_eq(file_removexattr(file, S("user.a")), ENODATA);
    cr_assert_eq(file_getxattr(file, S("user.a"), NULL, 0, &n), ENODATA);
    file_unref(file);
    cr_assert_eq(fixture_verify(&fx), 0);
    cr_assert_eq(file_unlink(fx.root, S("f"), 0), 0);
    cr_assert_eq(fixture_verify(&fx), 0);
}

/* Reading a directory. */

struct scan {
    unsigned seen[3000];
    uint64_t cookie;
    unsigned left; /* Entries that fit into this answer. */
    unsigned n;
};

static bool
scan_cb(const struct file_dirent *d, void *scan_)
{
    struct scan *scan = scan_;
    char name[20];

    if (!scan->left--) {
        return false;
    }
    cr_assert_gt(d->cookie, scan->cookie);
    cr_assert_lt(d->cookie, UINT64_C(1) << 63);
    scan->cookie = d->cookie;
    scan->n++;
    if (d->name[0] == 'f') {
        memcpy(name, d->name, d->name_len);
        name[d->name_len] = '\0';
        scan->seen[atoi(name + 1)]++;
    }
    return true;
}

Test(branch, readdir_of_a_changing_directory)
{
    struct scan scan = {.cookie = 0};
    unsigned n_answers = 0;
    char name[20];

    /* f0 to f999 stay, others come and go, in edge and tree. */
    for (unsigned i = 0; i < 1500; i++) {
        sprintf(name, "f%u", i);
        make(name);
        if (i == 700) {
            cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
        }
    }
    for (;;) {
        uint64_t before = scan.cookie;

        scan.left = 37;
        cr_assert_eq(file_readdir(fx.root, scan.cookie, scan_cb, &scan), 0);
        if (scan.cookie == before) {
            break;
        }
        n_answers++;
        for (unsigned k = 0; k < 20; k++) {
            unsigned i = 1000 + (n_answers * 20 + k) % 500;

            sprintf(name, "f%u", i);
            cr_assert_eq(file_unlink(fx.root, S(name), 0), 0);
            sprintf(name, "f%u", 1500 + (n_answers * 20 + k) % 1500);
            if (file_create(fx.root, S(name), 0644, &fixture_cred, NULL)) {
                /* There already. */
            }
            sprintf(name, "f%u", i);
            make(name);
        }
        if (n_answers % 5 == 0) {
            cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
        }
        if (n_answers == 12) {
            /* Cookies stay valid over a restart. */
            cr_assert_eq(fixture_close(&fx), 0);
            cr_assert_eq(fixture_open(&fx), 0);
        }
    }
    for (unsigned i = 0; i < 1000; i++) {
        cr_assert_eq(scan.seen[i], 1, "f%u was seen %u times", i,
                     scan.seen[i]);
    }
    for (unsigned i = 1000; i < 3000; i++) {
        cr_assert_leq(scan.seen[i], 1);
    }
    cr_assert_eq(file_readdir(fx.root, UINT64_MAX, scan_cb, &scan), EINVAL);
}

/* Durability. */

Test(branch, fsync_keeps_what_it_should)
{
    struct file *file;

    make("a");
    write_text("a", "first");
    file = find("a");
    cr_assert_eq(file_fsync(file, false), 0);
    make("b"); /* Later, not synced. */
    file_unref(file);
    reopen_after_kill();
    expect_text("a", "first");
    cr_assert_eq(file_lookup(fx.root, S("b"), &file), ENOENT);
    cr_assert_eq(fixture_verify(&fx), 0);
}

Test(branch, fsync_of_one_file_does_not_lengthen_another)
{
    struct file *a, *b;

    make("a");
    make("b");
    write_text("b", "not synced");
    a = find("a");
    b = find("b");
    /* Makes b's attributes part of the names' changes. */
    cr_assert_eq(file_link(fx.root, S("c"), b), 0);
    cr_assert_eq(file_fsync(a, false), 0);
    file_unref(a);
    file_unref(b);
    reopen_after_kill();
    cr_assert_eq(attr_of("b").size, 0);
    cr_assert_eq(attr_of("b").nlink, 2);
    cr_assert_eq(fixture_verify(&fx), 0);
    /* And the same when the size is in the tree. */
    write_text("b", "synced now");
    cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
    write_text("b", "longer, and again not synced");
    b = find("b");
    cr_assert_eq(file_unlink(fx.root, S("c"), 0), 0);
    file_unref(b);
    cr_assert_eq(file_fsync(fx.root, false), 0);
    reopen_after_kill();
    expect_text("b", "synced now");
    cr_assert_eq(attr_of("b").nlink, 1);
    cr_assert_eq(fixture_verify(&fx), 0);
}

/* The same while the file's newest attributes are in two layers, of which the
 * upper one has them for the access time only. */
Test(branch, sizes_are_logged_across_layers)
{
    struct file *a, *b;
    char buf[10];
    size_t n;

    make("a");
    make("b");
    write_text("b", "first");
    a = find("a");
    b = find("b");
    pthread_mutex_lock(&fx.branch->mutex);
    cr_assert_eq(branch_freeze(fx.branch, BRANCH_CAUSE_TIMER), 0);
    pthread_mutex_unlock(&fx.branch->mutex);
    cr_assert_eq(file_read(b, buf, sizeof buf, 0, &n), 0);
    cr_assert_eq(file_fsync(a, false), 0);
    cr_assert_eq(file_fsync(b, false), 0);
    /* And again with pages in both. */
    cr_assert_eq(file_write(b, "F", 1, 0, 0, NULL), 0);
    cr_assert_eq(file_write(b, "!", 1, 5, 0, NULL), 0);
    cr_assert_eq(file_fsync(a, false), 0);
    cr_assert_eq(file_fsync(b, false), 0);
    file_unref(a);
    file_unref(b);
    reopen_after_kill();
    expect_text("b", "First!");
    cr_assert_eq(fixture_verify(&fx), 0);
}

Test(branch, rename_over_a_file_takes_the_data_along)
{
    static char big[300000];
    struct file *file;
    struct file_attr attr;

    make("target");
    write_text("target", "old");
    cr_assert_eq(branch_syncfs(fx.branch), 0);
    make("tmp");
    write_text("tmp", "new content");
    cr_assert_eq(file_rename(fx.root, S("tmp"), fx.root, S("target"), 0), 0);
    cr_assert_eq(file_fsync(fx.root, false), 0);
    reopen_after_kill();
    expect_text("target", "new content");

    /* The same with more than goes into the journal inline. */
    memset(big, 'B', sizeof big);
    make("tmp");
    file = find("tmp");
    cr_assert_eq(file_write(file, big, sizeof big, 0, 0, NULL), 0);
    file_unref(file);
    cr_assert_eq(file_rename(fx.root, S("tmp"), fx.root, S("target"), 0), 0);
    cr_assert_eq(file_fsync(fx.root, false), 0);
    reopen_after_kill();
    attr = attr_of("target");
    cr_assert_eq(attr.size, sizeof big);
    cr_assert_eq(fixture_verify(&fx), 0);
}

Test(branch, inode_numbers_are_never_given_twice)
{
    uint64_t last = 0;

    for (unsigned round = 0; round < 30; round++) {
        struct file *file;
        char name[20];

        for (unsigned i = 0; i < 50; i++) {
            sprintf(name, "f%u-%u", round, i);
            cr_assert_eq(
                file_create(fx.root, S(name), 0644, &fixture_cred, &file), 0);
            cr_assert_gt(file_ino(file), last);
            last = file_ino(file);
            if (i == 20) {
                cr_assert_eq(file_fsync(file, false), 0);
                last = file_ino(file);
            }
            file_unref(file);
        }
        if (round % 3 == 0) {
            cr_assert_eq(fixture_close(&fx), 0);
            cr_assert_eq(fixture_open(&fx), 0);
        } else {
            /* Numbers given after the last sync may be given again: nobody
             * can have seen their files since. */
            if (round % 3 == 1) {
                cr_assert_eq(branch_syncfs(fx.branch), 0);
            } else {
                last -= 29;
            }
            reopen_after_kill();
        }
    }
}

Test(branch, versions_are_listed)
{
    struct branch_version head;
    uint64_t sequence;

    cr_assert_eq(branch_head(fx.branch, &head), 0);
    cr_assert_eq(head.sequence, 1);
    cr_assert_eq(head.n_inodes, 1);
    make("a");
    write_text("a", "0123456789");
    cr_assert_eq(branch_checkpoint(fx.branch), 0);
    cr_assert_eq(branch_checkpoint(fx.branch), 0); /* Nothing to do. */
    cr_assert_eq(branch_head(fx.branch, &head), 0);
    sequence = head.sequence;
    cr_assert_eq(sequence, 2);
    cr_assert_eq(head.n_inodes, 2);
    cr_assert_eq(head.stored_size, 10);
    cr_assert_eq(head.cause, BRANCH_CAUSE_ASKED);
    make("b");
    cr_assert_eq(fixture_close(&fx), 0);
    cr_assert_eq(fixture_open(&fx), 0);
    cr_assert_eq(branch_head(fx.branch, &head), 0);
    cr_assert_eq(head.sequence, 3);
    cr_assert_eq(head.cause, BRANCH_CAUSE_CLOSE);
}

/* Limits and failures. */

Test(branch, the_budget_forces_checkpoints)
{
    static char buf[65536 + 100];
    struct branch_stats stats;
    struct file *file;

    cr_assert_eq(fixture_close(&fx), 0);
    fx.cat_options.memory = 16 << 20; /* 4 MiB dirty. */
    cr_assert_eq(fixture_open(&fx), 0);
    make("f");
    file = find("f");
    for (unsigned i = 0; i < 400; i++) {
        memset(buf, i, sizeof buf);
        /* Never whole records, so that nothing leaves early. */
        cr_assert_eq(
            file_write(file, buf, 40000, (uint64_t) i * 65536 + 5, 0, NULL),
            0);
        branch_get_stats(fx.branch, &stats);
        cr_assert_leq(stats.dirty_size, 6u << 20);
    }
    branch_get_stats(fx.branch, &stats);
    cr_assert_gt(stats.n_checkpoints, 3);
    file_unref(file);
    cr_assert_eq(fixture_verify(&fx), 0);
}

Test(branch, a_full_journal_forces_checkpoints)
{
    static char buf[4096];
    struct branch_stats stats;
    struct file *file;

    make("f");
    file = find("f");
    for (unsigned i = 0; i < 3000; i++) {
        memset(buf, i, sizeof buf);
        cr_assert_eq(file_write(file, buf, sizeof buf, i % 16 * 4096,
                                FILE_WRITE_DSYNC, NULL),
                     0);
    }
    branch_get_stats(fx.branch, &stats);
    cr_assert_gt(stats.n_checkpoints, 1);
    file_unref(file);
    cr_assert_eq(fixture_verify(&fx), 0);
}

Test(branch, a_broken_disk_is_told)
{
    struct file *file;

    make("f");
    write_text("f", "kept");
    cr_assert_eq(branch_syncfs(fx.branch), 0);
    write_text("f", "lost");
    file = find("f");
    cr_assert_eq(vlog_set_level("off"), 0);
    memfs_fail(fx.fs, MEMFS_SYNC, 1, EIO, true);
    cr_assert_eq(file_fsync(file, false), EIO);
    memfs_fail(fx.fs, 0, 0, 0, false);
    /* It stays broken; reading goes on. */
    cr_assert_eq(file_fsync(file, false), EIO);
    cr_assert_eq(file_create(fx.root, S("g"), 0644, &fixture_cred, NULL), EIO);
    expect_text("f", "lost");
    file_unref(file);
    reopen_after_kill();
    file = find("f");
    file_unref(file);
    cr_assert_eq(fixture_verify(&fx), 0);
}

Test(branch, a_full_disk_is_told_and_harmless)
{
    static char buf[40000];
    uint64_t state = 1;
    struct file *file;
    int error = 0;
    unsigned i;
    size_t n;

    cr_assert_eq(vlog_set_level("off"), 0);
    make("f");
    write_text("f", "kept");
    cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
    memfs_set_capacity(fx.fs, 24 << 20);
    file = find("f");
    for (i = 1; i < 2000 && !error; i++) {
        for (size_t k = 0; k < sizeof buf; k += 4) {
            uint32_t x = fixture_random(&state);

            memcpy(buf + k, &x, 4);
        }
        error =
            file_write(file, buf, sizeof buf, (uint64_t) i * 65536, 0, NULL);
    }
    cr_assert_eq(error, ENOSPC, "%s after %u", strerror(error), i);
    cr_assert_eq(store_broken(fx.store), 0);
    /* What was answered can be kept, and removing makes no trouble. */
    cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
    cr_assert_eq(file_unlink(fx.root, S("f"), 0), 0);
    cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
    memfs_set_capacity(fx.fs, 0);
    cr_assert_eq(file_read(file, buf, 4, 0, &n), 0);
    cr_assert(n == 4 && !memcmp(buf, "kept", 4));
    cr_assert_eq(file_write(file, "x", 1, 0, 0, NULL), 0);
    file_unref(file);
    make("g");
    cr_assert_eq(fixture_verify(&fx), 0);
}

Test(branch, read_only)
{
    struct file *file;
    char buf[10];
    size_t n;

    make("f");
    write_text("f", "abc");
    cr_assert_eq(branch_syncfs(fx.branch), 0);
    fixture_kill(&fx);
    fx.cat_options.read_only = true;
    cr_assert_eq(fixture_open(&fx), 0);
    file = find("f");
    cr_assert_eq(file_read(file, buf, 10, 0, &n), 0);
    cr_assert_eq(n, 3);
    cr_assert_eq(file_write(file, "x", 1, 0, 0, NULL), EROFS);
    cr_assert_eq(file_create(fx.root, S("g"), 0644, &fixture_cred, NULL),
                 EROFS);
    cr_assert_eq(file_unlink(fx.root, S("f"), 0), EROFS);
    cr_assert_eq(catalogue_checkpoint(fx.cat), EROFS);
    file_unref(file);
    cr_assert_eq(fixture_close(&fx), 0);
    fx.cat_options.read_only = false;
    cr_assert_eq(fixture_open(&fx), 0);
    expect_text("f", "abc");
}

Test(branch, nowait_never_changes_half)
{
    static char buf[70000];
    struct file *file;

    make("f");
    cr_assert_eq(fixture_close(&fx), 0);
    cr_assert_eq(fixture_open(&fx), 0);
    file_set_nowait(true);
    /* Whatever is not cached says so. */
    while (file_lookup(fx.root, S("f"), &file) == EAGAIN) {
        file_set_nowait(false);
        cr_assert_eq(file_lookup(fx.root, S("f"), &file), 0);
        file_unref(file);
        file_set_nowait(true);
    }
    cr_assert_eq(file_write(file, buf, sizeof buf, 0, 0, NULL), EAGAIN);
    /* The first write has to make room on the disk. */
    cr_assert_eq(file_write(file, buf, 100, 0, 0, NULL), EAGAIN);
    file_set_nowait(false);
    cr_assert_eq(attr_of("f").size, 0);
    cr_assert_eq(file_write(file, buf, 100, 0, 0, NULL), 0);
    file_set_nowait(true);
    cr_assert_eq(file_write(file, buf, 100, 100, 0, NULL), 0);
    file_set_nowait(false);
    cr_assert_eq(attr_of("f").size, 200);
    file_unref(file);
}

/* branch_verify() must find what is wrong. */

enum harm {
    NO_HARM,
    LOST_ENTRY,
    LOST_INODE,
    WRONG_NLINK,
    WRONG_TYPE,
    WRONG_PARENT,
    WRONG_STORED,
    LOST_RECORD,
    FOREIGN_RECORD,
    RECORD_BEYOND_END,
    LOST_LINK,
    ORPHAN_WITH_NAME,
    CYCLE,
    WRONG_COUNTER,
    N_HARMS
};

static void
do_harm(enum harm harm, struct file *f, struct file *d, struct file *e)
{
    struct tree_key attr_key = tree_key(file_ino(f), TREE_ATTR, 0, 0);
    struct tree_key entry_key =
        tree_key(file_ino(d), TREE_ENTRY, f->attr.cookie, 0);
    struct tree_key record_key = tree_key(file_ino(f), TREE_RECORD, 0, 0);
    struct tree_key key;
    struct tree_content content = {.size = 70000};
    struct tree_entry entry = {.type = DT_DIR,
                               .ino = file_ino(f),
                               .since = 1,
                               .name = "f",
                               .name_len = 1};
    uint8_t data[TREE_ENTRY_MAX];

    cr_assert_eq(edge_begin(fx.branch, 65536), 0);
    edge_lock(fx.branch);
    switch (harm) {
    case LOST_ENTRY:
        edge_remove(fx.branch, EDGE_NAMES, &entry_key);
        break;
    case LOST_INODE:
        edge_remove(fx.branch, EDGE_NAMES, &attr_key);
        break;
    case WRONG_NLINK:
        f->attr.nlink++;
        break;
    case WRONG_TYPE:
        edge_put(fx.branch, EDGE_NAMES, &entry_key, data,
                 tree_entry_encode(&entry, data));
        break;
    case WRONG_PARENT:
        f->attr.parent = file_ino(fx.root);
        break;
    case WRONG_STORED:
        f->attr.stored++;
        break;
    case LOST_RECORD:
        edge_remove(fx.branch, EDGE_NAMES, &record_key);
        break;
    case FOREIGN_RECORD:
        memset(&content.id, 7, sizeof content.id);
        edge_put(fx.branch, EDGE_NAMES, &record_key, data,
                 tree_content_encode(&content, data));
        break;
    case RECORD_BEYOND_END:
        key = tree_key(file_ino(f), TREE_RECORD, 9, 0);
        edge_put(fx.branch, EDGE_NAMES, &key, "\0x", 2);
        break;
    case LOST_LINK:
        key = tree_key(file_ino(e), TREE_LINK, file_ino(d), 0);
        edge_remove_range(fx.branch, EDGE_NAMES, &key,
                          &(struct tree_key){key.hi + 1, 0, 0});
        break;
    case ORPHAN_WITH_NAME:
        key = tree_key(0, TREE_ORPHAN, file_ino(f), 0);
        edge_put(fx.branch, EDGE_NAMES, &key, "", 0);
        break;
    case CYCLE:
        d->attr.parent = file_ino(d);
        break;
    case WRONG_COUNTER:
        fx.branch->n_inodes++;
        edge_put(fx.branch, EDGE_NAMES, &entry_key, data, 0);
        edge_remove(fx.branch, EDGE_NAMES, &entry_key);
        entry.type = DT_REG;
        edge_put(fx.branch, EDGE_NAMES, &entry_key, data,
                 tree_entry_encode(&entry, data));
        break;
    default:
        break;
    }
    if (harm != LOST_INODE) {
        inode_put_attr(f, EDGE_NAMES);
    }
    inode_put_attr(d, EDGE_NAMES);
    edge_unlock(fx.branch);
    edge_end(fx.branch);
}

Test(branch, verify_finds_harm)
{
    for (enum harm harm = 0; harm < N_HARMS; harm++) {
        struct file *d, *f, *e;
        uint64_t n;

        fixture_destroy(&fx);
        fixture_create(&fx, 65536);
        make_dir("d");
        d = find("d");
        cr_assert_eq(file_create(d, S("f"), 0644, &fixture_cred, &f), 0);
        cr_assert_eq(file_write(f, "content", 7, 0, 0, NULL), 0);
        make("e");
        e = find("e");
        cr_assert_eq(file_link(d, S("e2"), e), 0);
        cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
        do_harm(harm, f, d, e);
        n = fixture_verify(&fx);
        if (harm == NO_HARM) {
            cr_assert_eq(n, 0);
        } else {
            cr_assert(n > 0 && n < 10, "harm %d: %lu found", harm,
                      (unsigned long) n);
        }
        file_unref(d);
        file_unref(e);
        file_unref(f);
    }
}
