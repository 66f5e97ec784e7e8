/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random operations on a branch and on a directory of the host, which must
 * answer the same and look the same afterwards; with checkpoints, restarts and
 * kills in between.  After a kill, what syncfs made durable must be there. */

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/unit/branch-helper.h"

static struct fixture fx;
static char host[64]; /* The host's directory. */
static uint64_t seed;

static uint32_t
rnd(uint32_t n)
{
    return fixture_random(&seed) % n;
}

static void
setup(void)
{
    /* Link counts of directories as ours: tmpfs. */
    strcpy(host, "/dev/shm/test-branch-XXXXXX");
    cr_assert_not_null(mkdtemp(host));
    umask(0);
}

static void
teardown(void)
{
    char command[128];

    fixture_destroy(&fx);
    snprintf(command, sizeof command, "rm -rf %s", host);
    cr_assert_eq(system(command), 0);
}

TestSuite(branch_model, .init = setup, .fini = teardown, .timeout = 600);

/* A random path of up to three names out of few, so that they meet. */
static void
random_path(char *path)
{
    unsigned n = 1 + rnd(3);

    path[0] = '\0';
    for (unsigned i = 0; i < n; i++) {
        sprintf(path + strlen(path), "%s%c", i ? "/" : "", 'a' + rnd(5));
    }
}

/* Finds 'path' as the host's kernel does where all links dangle. */
static int
find(const char *path, struct file **ret)
{
    for (const char *p = strchr(path, '/'); p; p = strchr(p + 1, '/')) {
        char prefix[PATH_MAX];
        struct file *file;
        bool is_link;
        int error;

        snprintf(prefix, sizeof prefix, "%.*s", (int) (p - path), path);
        error = fixture_find(&fx, prefix, &file);
        if (error) {
            return error;
        }
        is_link = S_ISLNK(file_type(file));
        file_unref(file);
        if (is_link) {
            return ENOENT;
        }
    }
    return fixture_find(&fx, path, ret);
}

/* The directory and last name of 'path'. */
static int
find_parent(const char *path, struct file **dir, const char **name)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int error;

    *name = slash ? slash + 1 : path;
    snprintf(parent, sizeof parent, "%.*s", slash ? (int) (slash - path) : 0,
             path);
    error = find(parent, dir);
    if (!error && !S_ISDIR(file_type(*dir))) {
        error = S_ISLNK(file_type(*dir)) ? ENOENT : ENOTDIR;
    }
    return error;
}

static void
host_path(char *out, const char *path)
{
    snprintf(out, PATH_MAX, "%s/%s", host, path);
}

static int
result(int rc)
{
    return rc < 0 ? errno : 0;
}

static void
random_data(uint8_t *buf, size_t n)
{
    uint32_t x = rnd(UINT32_MAX);

    for (size_t i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        buf[i] = x >> 24;
    }
}

/* Operations that make or remove names. */
static void
name_op(void)
{
    char path[64], path2[64], h[PATH_MAX], h2[PATH_MAX];
    struct file *dir = NULL, *dir2 = NULL, *file = NULL;
    const char *name, *name2;
    int mine, theirs, fd;
    unsigned op = rnd(9);
    unsigned flags = 0;

    random_path(path);
    random_path(path2);
    host_path(h, path);
    host_path(h2, path2);
    mine = find_parent(path, &dir, &name);
    switch (op) {
    case 0:
    case 1:
        mine =
            mine ? mine : file_create(dir, S(name), 0640, &fixture_cred, NULL);
        fd = open(h, O_CREAT | O_EXCL | O_RDWR, 0640);
        theirs = result(fd);
        close(fd);
        break;
    case 2:
        mine =
            mine ? mine : file_mkdir(dir, S(name), 0750, &fixture_cred, NULL);
        theirs = result(mkdir(h, 0750));
        break;
    case 3:
        mine = mine ? mine
                    : file_symlink(dir, S(name), S("nowhere"), &fixture_cred,
                                   NULL);
        theirs = result(symlink("nowhere", h));
        break;
    case 4:
        mine = mine ? mine : file_unlink(dir, S(name), 0);
        theirs = result(unlink(h));
        break;
    case 5:
        mine = mine ? mine : file_unlink(dir, S(name), AT_REMOVEDIR);
        theirs = result(rmdir(h));
        break;
    case 6:
        mine = mine ? mine : file_lookup(dir, S(name), &file);
        if (!mine) {
            mine = find_parent(path2, &dir2, &name2);
        }
        mine = mine ? mine : file_link(dir2, S(name2), file);
        theirs = result(link(h, h2));
        if (theirs == EEXIST && mine == EPERM) {
            mine = EEXIST; /* Which is checked first differs. */
        }
        break;
    default:
        flags = rnd(4)   ? 0
                : rnd(2) ? FILE_RENAME_NOREPLACE
                         : FILE_RENAME_EXCHANGE;
        if (!mine) {
            mine = find_parent(path2, &dir2, &name2);
        }
        mine = mine ? mine : file_rename(dir, S(name), dir2, S(name2), flags);
        theirs =
            result(syscall(SYS_renameat2, AT_FDCWD, h, AT_FDCWD, h2, flags));
    }
    cr_assert_eq(mine, theirs, "op %u %s %s flags %u: %s, host %s", op, path,
                 path2, flags, strerror(mine), strerror(theirs));
    file_unref(dir);
    file_unref(dir2);
    file_unref(file);
}

/* Operations on one file. */
static void
file_op(void)
{
    static uint8_t buf[300000];
    char path[64], h[PATH_MAX];
    struct file_setattr set = {0};
    struct file *file = NULL;
    struct stat st;
    unsigned op = rnd(7);
    size_t n = rnd(4) ? rnd(5000) : rnd(sizeof buf);
    uint64_t offset = rnd(3) ? rnd(20000) : rnd(400000);
    int mine, theirs, fd;

    random_path(path);
    host_path(h, path);
    mine = find(path, &file);
    theirs = result(lstat(h, &st));
    cr_assert_eq(mine, theirs, "%s: %s, host %s", path, strerror(mine),
                 strerror(theirs));
    if (mine) {
        return;
    }
    cr_assert_eq(file_type(file), st.st_mode & S_IFMT);
    if (op == 0) {
        set.mask = FILE_SET_MODE;
        set.mode = 0400 | rnd(0400);
        if (!S_ISLNK(st.st_mode)) {
            cr_assert_eq(file_setattr(file, &set), 0);
            cr_assert_eq(chmod(h, set.mode), 0);
        }
    } else if (S_ISREG(st.st_mode)) {
        fd = open(h, O_RDWR);
        cr_assert_geq(fd, 0);
        random_data(buf, n);
        if (op == 1) {
            set.mask = FILE_SET_SIZE;
            set.size = rnd(3) ? offset : rnd(700);
            cr_assert_eq(file_setattr(file, &set), 0);
            cr_assert_eq(ftruncate(fd, set.size), 0);
        } else if (op == 2) {
            cr_assert_eq(file_punch(file, offset, n), 0);
            if (n) {
                cr_assert_eq(
                    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              offset, n),
                    0);
            }
        } else if (op == 3) {
            uint64_t end = lseek(fd, 0, SEEK_END);

            n = n % 9000;
            cr_assert_eq(
                file_write(file, buf, n, 12345, FILE_WRITE_APPEND, NULL), 0);
            cr_assert_eq(pwrite(fd, buf, n, end), (ssize_t) n);
        } else {
            cr_assert_eq(file_write(file, buf, n, offset, 0, NULL), 0);
            cr_assert_eq(pwrite(fd, buf, n, offset), (ssize_t) n);
        }
        close(fd);
    }
    if (rnd(20) == 0) {
        cr_assert_eq(file_fsync(file, rnd(2)), 0);
    }
    file_unref(file);
}

struct listing {
    struct {
        char name[256];
        uint64_t ino;
        uint8_t type;
    } entry[64];
    unsigned n;
};

static bool
list_cb(const struct file_dirent *d, void *list_)
{
    struct listing *list = list_;

    cr_assert_lt(list->n, 64);
    memcpy(list->entry[list->n].name, d->name, d->name_len);
    list->entry[list->n].name[d->name_len] = '\0';
    list->entry[list->n].ino = d->ino;
    list->entry[list->n].type = d->type;
    list->n++;
    return true;
}

static void
compare_content(struct file *file, const char *h, size_t size)
{
    uint8_t *a = malloc(size + 10), *b = malloc(size + 10);
    int fd = open(h, O_RDONLY);
    size_t n = 0;

    cr_assert_eq(file_read(file, a, size + 10, 0, &n), 0);
    cr_assert_eq(n, size);
    cr_assert_eq(pread(fd, b, size + 10, 0), (ssize_t) size);
    for (size_t i = 0; i < size; i++) {
        cr_assert_eq(a[i], b[i], "%s: byte %zu of %zu is %02x, not %02x", h, i,
                     size, a[i], b[i]);
    }
    close(fd);
    free(a);
    free(b);
}

static void
compare(const char *path, struct file *dir)
{
    struct listing list = {.n = 0};
    char h[PATH_MAX];
    struct dirent *d;
    unsigned n_host = 0;
    DIR *stream;

    host_path(h, path);
    stream = opendir(h);
    cr_assert_not_null(stream);
    while ((d = readdir(stream))) {
        n_host++;
    }
    closedir(stream);
    cr_assert_eq(file_readdir(dir, 0, list_cb, &list), 0);
    cr_assert_eq(list.n, n_host, "%s: %u entries, host %u", path, list.n,
                 n_host);
    for (unsigned i = 2; i < list.n; i++) {
        struct file_attr attr;
        struct file *file;
        struct stat st;
        char sub[512], full[PATH_MAX], expected[PATH_MAX];

        snprintf(sub, sizeof sub, "%s%s%s", path, *path ? "/" : "",
                 list.entry[i].name);
        host_path(h, sub);
        cr_assert_eq(lstat(h, &st), 0, "%s is not on the host", sub);
        cr_assert_eq(file_lookup(dir, S(list.entry[i].name), &file), 0);
        cr_assert_eq(file_getattr(file, &attr), 0);
        cr_assert_eq(attr.ino, list.entry[i].ino);
        cr_assert_eq(IFTODT(attr.mode), list.entry[i].type);
        cr_assert_eq(attr.mode, st.st_mode, "%s: mode %o, host %o", sub,
                     attr.mode, st.st_mode);
        cr_assert_eq(attr.nlink, st.st_nlink, "%s: %u links, host %u", sub,
                     attr.nlink, (unsigned) st.st_nlink);
        if (attr.nlink == 1 || S_ISDIR(attr.mode)) {
            cr_assert_eq(file_path(file, full, sizeof full), 0);
            snprintf(expected, sizeof expected, "/%s", sub);
            cr_assert_str_eq(full, expected);
        }
        if (S_ISDIR(attr.mode)) {
            compare(sub, file);
        } else {
            cr_assert_eq(
                attr.size, (uint64_t) st.st_size, "%s: size %lu, host %lu",
                sub, (unsigned long) attr.size, (unsigned long) st.st_size);
        }
        if (S_ISREG(attr.mode)) {
            cr_assert_eq(access(h, R_OK), 0);
            compare_content(file, h, attr.size);
        }
        file_unref(file);
    }
}

static void
reopen(void)
{
    int error = fixture_open(&fx);

    cr_assert_eq(error, 0, "open: %s", strerror(error));
}

static void
run(unsigned n, uint32_t record_size)
{
    fixture_create(&fx, record_size);
    for (unsigned i = 0; i < n; i++) {
        if (rnd(2)) {
            name_op();
        } else {
            file_op();
        }
        switch (rnd(150)) {
        case 0:
            cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
            break;
        case 1:
            cr_assert_eq(branch_syncfs(fx.branch), 0);
            if (rnd(2)) {
                fixture_kill(&fx);
                reopen();
            }
            break;
        case 2:
            cr_assert_eq(fixture_close(&fx), 0);
            reopen();
            break;
        case 3:
            cr_assert_eq(branch_checkpoint(fx.branch), 0);
            fixture_kill(&fx);
            reopen();
            break;
        case 4:
            compare("", fx.root);
            break;
        default:
            break;
        }
    }
    compare("", fx.root);
    cr_assert_eq(fixture_verify(&fx), 0);
    cr_assert_eq(fixture_close(&fx), 0);
    reopen();
    compare("", fx.root);
}

Test(branch_model, records_of_64k)
{
    seed = 11;
    run(12000, 65536);
}

Test(branch_model, records_of_4k)
{
    seed = 12;
    run(6000, 4096);
}

Test(branch_model, another_seed)
{
    const char *s = getenv("TEST_SEED");

    seed = s ? strtoull(s, NULL, 0) : 13;
    run(6000, 16384);
}
