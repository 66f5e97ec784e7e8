/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * File semantics as programs see them, for the lab's file cases.  Each test
 * works in the folder it is given and leaves it empty.  'filetest' without
 * arguments lists what it can do. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define CHECK(COND, ...)                                             \
    do {                                                             \
        if (!(COND)) {                                               \
            int error__ = errno;                                     \
            printf("FAILED at line %d: ", __LINE__);                 \
            printf(__VA_ARGS__);                                     \
            printf(" (errno %d, %s)\n", error__, strerror(error__)); \
            exit(1);                                                 \
        }                                                            \
    } while (0)

static uint64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void
make_file(const char *name, const char *text)
{
    int fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0644);

    CHECK(fd >= 0, "create %s", name);
    CHECK(write(fd, text, strlen(text)) == (ssize_t) strlen(text), "write");
    CHECK(!close(fd), "close");
}

static void
want_file(const char *name, const char *text)
{
    char buf[4096];
    int fd = open(name, O_RDONLY);
    ssize_t n;

    CHECK(fd >= 0, "open %s", name);
    n = read(fd, buf, sizeof buf);
    CHECK(n == (ssize_t) strlen(text) && !memcmp(buf, text, n),
          "%s: %zd bytes, wanted '%s'", name, n, text);
    close(fd);
}

static int
n_links(const char *name)
{
    struct stat st;

    return lstat(name, &st) ? -errno : (int) st.st_nlink;
}

static void
check_links(void)
{
    char buf[64];
    ssize_t n;

    make_file("a", "one");
    CHECK(!link("a", "b"), "link");
    CHECK(n_links("a") == 2 && n_links("b") == 2, "link count");
    make_file("b", "two");
    want_file("a", "two");
    CHECK(link("a", "b") == -1 && errno == EEXIST, "link to a taken name");
    CHECK(!unlink("a"), "unlink");
    CHECK(n_links("b") == 1, "link count after unlink");
    want_file("b", "two");
    CHECK(!unlink("b"), "unlink");

    CHECK(!symlink("nowhere/at all", "s"), "symlink");
    n = readlink("s", buf, sizeof buf);
    CHECK(n == 14 && !memcmp(buf, "nowhere/at all", 14), "readlink");
    CHECK(open("s", O_RDONLY) == -1 && errno == ENOENT, "dangling symlink");
    CHECK(!unlink("s"), "unlink symlink");
    CHECK(!mkdir("d", 0755) && !symlink("d", "s"), "symlink to folder");
    make_file("s/x", "through");
    want_file("d/x", "through");
    CHECK(rmdir("d") == -1 && errno == ENOTEMPTY, "rmdir of a full folder");
    CHECK(!unlink("d/x") && !rmdir("d") && !unlink("s"), "clean");
}

static void
check_rename(void)
{
    char buf[8];
    int fd;

    make_file("old", "old");
    make_file("new", "new");
    fd = open("new", O_RDWR);
    CHECK(fd >= 0, "open");
    CHECK(!rename("old", "new"), "rename over an open file");
    want_file("new", "old");
    CHECK(pread(fd, buf, 8, 0) == 3 && !memcmp(buf, "new", 3),
          "the open file is still the old one");
    CHECK(pwrite(fd, "NEW", 3, 0) == 3, "write to it");
    CHECK(pread(fd, buf, 8, 0) == 3 && !memcmp(buf, "NEW", 3), "read it");
    close(fd);
    want_file("new", "old");

    CHECK(!mkdir("d1", 0755) && !mkdir("d2", 0755), "mkdir");
    make_file("d1/f", "f");
    CHECK(!rename("d1/f", "d2/g"), "rename between folders");
    want_file("d2/g", "f");
    CHECK(n_links("d1/f") == -ENOENT, "old name");
    CHECK(!rename("d1", "d2/d3"), "rename a folder into another");
    CHECK(rename("d2", "d2/d3/x") == -1 && errno == EINVAL,
          "a folder into itself");
    CHECK(n_links("d2") == 3, "links of a folder: %d", n_links("d2"));
    CHECK(!rmdir("d2/d3") && !unlink("d2/g") && !rmdir("d2") && !unlink("new"),
          "clean");
}

static void
check_unlinked(void)
{
    struct stat st;
    char buf[16];
    int fd = open("gone", O_CREAT | O_RDWR, 0600);

    CHECK(fd >= 0 && write(fd, "before", 6) == 6, "create");
    CHECK(!unlink("gone"), "unlink");
    CHECK(n_links("gone") == -ENOENT, "name");
    CHECK(write(fd, " after", 6) == 6, "write");
    CHECK(!fstat(fd, &st) && st.st_size == 12, "fstat");
    CHECK(pread(fd, buf, 16, 0) == 12 && !memcmp(buf, "before after", 12),
          "read");
    CHECK(!ftruncate(fd, 3), "ftruncate");
    CHECK(!fstat(fd, &st) && st.st_size == 3, "size %ld", (long) st.st_size);
    CHECK(!fsync(fd), "fsync");
    CHECK(!close(fd), "close");
}

static void
check_sparse(void)
{
    char buf[4096];
    char zero[4096] = "";
    struct stat st;
    off_t far = 5ll << 30;
    int fd = open("sparse", O_CREAT | O_RDWR, 0644);

    CHECK(fd >= 0 && pwrite(fd, "end", 3, far) == 3, "write far");
    CHECK(!fstat(fd, &st) && st.st_size == far + 3, "size");
    CHECK(st.st_blocks < 100000, "blocks %ld", (long) st.st_blocks);
    CHECK(pread(fd, buf, 4096, far / 2) == 4096 && !memcmp(buf, zero, 4096),
          "hole");
    CHECK(pread(fd, buf, 16, far) == 3 && !memcmp(buf, "end", 3), "end");
    CHECK(!ftruncate(fd, 10) && !ftruncate(fd, 100000), "truncate");
    CHECK(pread(fd, buf, 4096, 0) == 4096 && !memcmp(buf, zero, 4096),
          "what a truncation cut off must not come back");
    close(fd);
    CHECK(!unlink("sparse"), "unlink");
}

static void
check_append(void)
{
    enum { LINES = 400 };
    int seen[2] = {0, 0};
    char line[16];
    FILE *f;

    unlink("log");
    for (int p = 0; p < 2; p++) {
        if (!fork()) {
            int fd = open("log", O_CREAT | O_WRONLY | O_APPEND, 0644);

            for (int i = 0; i < LINES; i++) {
                snprintf(line, sizeof line, "%d %08d\n", p, i);
                if (write(fd, line, 11) != 11) {
                    _exit(1);
                }
            }
            _exit(0);
        }
    }
    for (int p = 0; p < 2; p++) {
        int status;

        CHECK(wait(&status) > 0 && !status, "writer");
    }
    f = fopen("log", "r");
    CHECK(f, "open");
    while (fgets(line, sizeof line, f)) {
        int p, i;

        CHECK(sscanf(line, "%d %d", &p, &i) == 2 && (p == 0 || p == 1) &&
                  i == seen[p],
              "line '%s' after %d", line, seen[p]);
        seen[p]++;
    }
    fclose(f);
    CHECK(seen[0] == LINES && seen[1] == LINES, "%d and %d lines", seen[0],
          seen[1]);
    CHECK(!unlink("log"), "unlink");
}

static void
check_xattrs(void)
{
    char buf[8192], big[4000];
    ssize_t n;

    make_file("x", "x");
    CHECK(!setxattr("x", "user.one", "1", 1, 0), "setxattr");
    memset(big, 'b', sizeof big);
    CHECK(!setxattr("x", "user.big", big, sizeof big, 0), "big");
    CHECK(setxattr("x", "user.one", "2", 1, XATTR_CREATE) == -1 &&
              errno == EEXIST,
          "XATTR_CREATE");
    CHECK(!setxattr("x", "user.one", "two", 3, XATTR_REPLACE), "replace");
    n = getxattr("x", "user.one", buf, sizeof buf);
    CHECK(n == 3 && !memcmp(buf, "two", 3), "getxattr %zd", n);
    n = getxattr("x", "user.big", buf, sizeof buf);
    CHECK(n == sizeof big && !memcmp(buf, big, n), "big %zd", n);
    n = listxattr("x", buf, sizeof buf);
    CHECK(n == 18, "listxattr %zd", n);
    CHECK(!removexattr("x", "user.one"), "removexattr");
    CHECK(getxattr("x", "user.one", buf, sizeof buf) == -1 && errno == ENODATA,
          "removed");
    CHECK(!unlink("x"), "unlink");
}

static void
check_mmap(void)
{
    struct stat st;
    char *map;
    int fd;

    fd = open("m", O_CREAT | O_RDWR, 0644);
    CHECK(fd >= 0, "create");
    for (int i = 0; i < 64; i++) {
        char block[4096];

        memset(block, 'A' + i % 26, sizeof block);
        CHECK(write(fd, block, sizeof block) == sizeof block, "write");
    }
    close(fd);
    fd = open("m", O_RDONLY);
    map = mmap(NULL, 64 * 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(map != MAP_FAILED, "mmap");
    for (int i = 63; i >= 0; i--) {
        CHECK(map[i * 4096 + 17] == 'A' + i % 26, "page %d", i);
    }
    munmap(map, 64 * 4096);
    CHECK(!fstat(fd, &st) && st.st_size == 64 * 4096, "size");
    close(fd);
    CHECK(!unlink("m"), "unlink");
}

static void
check_attributes(void)
{
    struct timespec times[2] = {{.tv_sec = 1000000000, .tv_nsec = 5},
                                {.tv_sec = 1100000000, .tv_nsec = 7}};
    struct stat st;

    make_file("t", "t");
    CHECK(!chmod("t", 04751), "chmod");
    CHECK(!utimensat(AT_FDCWD, "t", times, 0), "utimensat");
    CHECK(!stat("t", &st) && (st.st_mode & 07777) == 04751, "mode %o",
          st.st_mode);
    /* Linux's 9p cuts times that a program sets to whole seconds. */
    CHECK(st.st_mtim.tv_sec == 1100000000 &&
              (st.st_mtim.tv_nsec == 7 || st.st_mtim.tv_nsec == 0),
          "mtime");
    if (!geteuid()) {
        CHECK(!chown("t", 1234, 4321), "chown");
        CHECK(!stat("t", &st) && st.st_uid == 1234 && st.st_gid == 4321,
              "owner");
        CHECK(!mknod("fifo", S_IFIFO | 0600, 0), "mkfifo");
        CHECK(!stat("fifo", &st) && S_ISFIFO(st.st_mode), "fifo");
        CHECK(!unlink("fifo"), "unlink");
    }
    CHECK(!truncate("t", 100), "truncate");
    CHECK(!stat("t", &st) && st.st_size == 100, "size");
    CHECK(open("t", O_CREAT | O_EXCL | O_WRONLY, 0600) == -1 &&
              errno == EEXIST,
          "O_EXCL");
    CHECK(!unlink("t"), "unlink");
    CHECK(open("t/x", O_CREAT | O_WRONLY, 0600) == -1 && errno == ENOENT,
          "no folder");
}

static void
check_folder(void)
{
    enum { N = 700 };
    bool seen[N] = {false};
    struct dirent *entry;
    char name[300];
    int count = 0;
    DIR *dir;

    CHECK(!mkdir("many", 0755), "mkdir");
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "many/file-%d", i);
        close(open(name, O_CREAT | O_WRONLY, 0644));
    }
    dir = opendir("many");
    CHECK(dir, "opendir");
    while ((entry = readdir(dir))) {
        int i;

        if (sscanf(entry->d_name, "file-%d", &i) == 1) {
            CHECK(i >= 0 && i < N && !seen[i], "%s twice", entry->d_name);
            seen[i] = true;
            count++;
            /* Changing what is being read must neither repeat nor skip. */
            snprintf(name, sizeof name, "many/%s", entry->d_name);
            CHECK(!unlink(name), "unlink %s", name);
        }
    }
    closedir(dir);
    CHECK(count == N, "%d of %d entries", count, N);
    CHECK(!rmdir("many"), "rmdir");
    memset(name, 'n', 255);
    name[255] = '\0';
    make_file(name, "long");
    want_file(name, "long");
    CHECK(!unlink(name), "unlink");
    memset(name, 'n', 256);
    name[256] = '\0';
    CHECK(open(name, O_CREAT | O_WRONLY, 0600) == -1 && errno == ENAMETOOLONG,
          "256 bytes");
}

static void
check_locks(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_start = 10, .l_len = 10};
    int fd = open("l", O_CREAT | O_RDWR, 0644);
    int status;

    CHECK(fd >= 0 && !fcntl(fd, F_SETLK, &lock), "lock");
    if (!fork()) {
        struct flock other = {.l_type = F_WRLCK, .l_start = 15, .l_len = 1};
        int again = open("l", O_RDWR);

        if (fcntl(again, F_SETLK, &other) != -1 ||
            (errno != EAGAIN && errno != EACCES)) {
            _exit(1);
        }
        other.l_start = 20;
        _exit(fcntl(again, F_SETLK, &other) ? 2 : 0);
    }
    CHECK(wait(&status) > 0 && !status, "locks: status %x", status);
    close(fd);
    CHECK(!unlink("l"), "unlink");
}

/* semantics: all of the above */
static int
cmd_semantics(char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } checks[] = {
        {"links", check_links},       {"rename", check_rename},
        {"unlinked", check_unlinked}, {"sparse", check_sparse},
        {"append", check_append},     {"xattrs", check_xattrs},
        {"mmap", check_mmap},         {"attributes", check_attributes},
        {"folder", check_folder},     {"locks", check_locks},
    };
    int failed = 0;

    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        uint64_t start = now_ns();
        int status;

        fflush(stdout);
        if (!fork()) {
            checks[i].run();
            exit(0);
        }
        wait(&status);
        failed += !!status;
        printf("%s: %s, %.1f s\n", checks[i].name, status ? "FAILED" : "ok",
               (now_ns() - start) / 1e9);
    }
    return failed ? 1 : 0;
}

/* fsx SEED OPS: random operations on one file against a copy in memory */
static int
cmd_fsx(char **argv)
{
    enum { MAX = 400000 };
    static unsigned char good[MAX], buf[MAX];
    unsigned int seed = atoi(argv[0]);
    int ops = atoi(argv[1]);
    size_t size = 0;
    int fd = open("fsx", O_CREAT | O_TRUNC | O_RDWR, 0644);

    CHECK(fd >= 0, "create");
    for (int i = 0; i < ops; i++) {
        size_t offset = rand_r(&seed) % MAX;
        size_t length = rand_r(&seed) % (rand_r(&seed) % 4 ? 5000 : 100000);
        struct stat st;
        ssize_t n;
        char *map;

        if (offset + length > MAX) {
            length = MAX - offset;
        }
        switch (rand_r(&seed) % 10) {
        case 0:
        case 1:
        case 2:
            for (size_t j = 0; j < length; j++) {
                good[offset + j] = i + j * 31 + 1;
            }
            n = pwrite(fd, good + offset, length, offset);
            CHECK(n == (ssize_t) length, "op %d: write %zu at %zu gives %zd",
                  i, length, offset, n);
            if (length && offset + length > size) {
                size = offset + length;
            }
            break;
        case 3:
            size = offset;
            memset(good + size, 0, MAX - size);
            CHECK(!ftruncate(fd, size), "op %d: truncate", i);
            break;
        case 4:
            close(fd);
            fd = open("fsx", O_RDWR);
            CHECK(fd >= 0, "op %d: open", i);
            break;
        case 5:
            CHECK(!fsync(fd), "op %d: fsync", i);
            break;
        case 6:
            if (size) {
                map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
                CHECK(map != MAP_FAILED, "op %d: mmap", i);
                CHECK(!memcmp(map, good, size), "op %d: mapped content", i);
                munmap(map, size);
            }
            break;
        default:
            n = pread(fd, buf, length, offset);
            CHECK(n == (ssize_t) (offset >= size           ? 0
                                  : length < size - offset ? length
                                                           : size - offset),
                  "op %d: read %zu at %zu of %zu gives %zd", i, length, offset,
                  size, n);
            CHECK(!memcmp(buf, good + offset, n), "op %d: content at %zu", i,
                  offset);
        }
        CHECK(!fstat(fd, &st) && (size_t) st.st_size == size,
              "op %d: size %ld, wanted %zu", i, (long) st.st_size, size);
    }
    close(fd);
    CHECK(!unlink("fsx"), "unlink");
    printf("%d operations, seed %s\n", ops, argv[0]);
    return 0;
}

/* synced COUNT: writes and fsyncs files, and says so after each */
static int
cmd_synced(char **argv)
{
    int count = atoi(argv[0]);

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < count; i++) {
        char name[32], text[64];
        int dir = open(".", O_RDONLY | O_DIRECTORY);
        int fd;

        snprintf(name, sizeof name, "synced-%d", i);
        snprintf(text, sizeof text, "content of %d\n", i * 7919);
        fd = open(name, O_CREAT | O_WRONLY, 0644);
        if (fd < 0 || write(fd, text, strlen(text)) < 0 || fsync(fd) ||
            fsync(dir)) {
            return 1;
        }
        close(fd);
        close(dir);
        printf("%d\n", i);
    }
    return 0;
}

/* ---- Measurements: one number on standard output, operations per second
 * or MB/s. ---- */

static int
cmd_bench(char **argv)
{
    const char *what = argv[0];
    int count = atoi(argv[1]);
    static char block[131072];
    char name[64];
    uint64_t start;
    struct stat st;
    int fd;

    memset(block, 'z', sizeof block);
    start = now_ns();
    if (!strcmp(what, "create")) {
        for (int i = 0; i < count; i++) {
            snprintf(name, sizeof name, "bench-%d", i);
            fd = open(name, O_CREAT | O_WRONLY, 0644);
            CHECK(fd >= 0 && write(fd, block, 1000) == 1000 && !close(fd),
                  "create");
        }
    } else if (!strcmp(what, "stat")) {
        for (int i = 0; i < count; i++) {
            snprintf(name, sizeof name, "bench-%d", i);
            CHECK(!stat(name, &st), "stat");
        }
    } else if (!strcmp(what, "read")) {
        for (int i = 0; i < count; i++) {
            snprintf(name, sizeof name, "bench-%d", i);
            fd = open(name, O_RDONLY);
            CHECK(fd >= 0 && read(fd, block, 4096) == 1000, "read");
            close(fd);
        }
    } else if (!strcmp(what, "remove")) {
        for (int i = 0; i < count; i++) {
            snprintf(name, sizeof name, "bench-%d", i);
            CHECK(!unlink(name), "unlink");
        }
    } else if (!strcmp(what, "seqwrite")) {
        fd = open("bench-big", O_CREAT | O_TRUNC | O_WRONLY, 0644);
        for (int i = 0; i < count * 8; i++) {
            CHECK(write(fd, block, sizeof block) == sizeof block, "write");
        }
        CHECK(!fsync(fd) && !close(fd), "close");
        count = count * 1048576 / 1000000;
    } else if (!strcmp(what, "seqread")) {
        fd = open("bench-big", O_RDONLY);
        for (int i = 0; i < count * 8; i++) {
            CHECK(read(fd, block, sizeof block) == sizeof block, "read");
        }
        close(fd);
        count = count * 1048576 / 1000000;
    } else {
        return 2;
    }
    printf("%.2f\n", count / ((now_ns() - start) / 1e9));
    return 0;
}

static const struct command {
    const char *name;
    int n_args;
    int (*run)(char **argv);
    const char *usage;
} commands[] = {
    {"semantics", 0, cmd_semantics, ""},
    {"fsx", 2, cmd_fsx, "SEED OPERATIONS"},
    {"synced", 1, cmd_synced, "COUNT"},
    {"bench", 2, cmd_bench, "create|stat|read|remove|seqwrite|seqread N"},
};

int
main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct command *c = &commands[i];

        if (argc >= 3 && !strcmp(argv[1], c->name) && argc - 3 == c->n_args) {
            CHECK(!chdir(argv[2]), "chdir %s", argv[2]);
            return c->run(argv + 3);
        }
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        printf("filetest %s FOLDER %s\n", commands[i].name, commands[i].usage);
    }
    return 2;
}
