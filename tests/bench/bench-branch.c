/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Times of file operations directly on a branch, without 9P: what the floor
 * below the server costs.  'bench-branch DIR [N]' makes a store in DIR (which
 * must not exist) and prints microseconds for an operation. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/vlog.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/branch/file.h"
#include "vafs-server/store/journal.h"
#include "vafs-server/store/store.h"

static uint64_t started;
static const struct file_cred cred = {0, 0};

static void
check(int error, const char *what)
{
    if (error) {
        fprintf(stderr, "%s: %s\n", what, strerror(error));
        exit(1);
    }
}

static void
begin(void)
{
    started = clock_mono_ns();
}

static void
end(const char *what, uint64_t n)
{
    uint64_t ns = clock_mono_ns() - started;

    printf("%-28s %9.2f us  (%llu, %.3f s)\n", what, ns / 1e3 / n,
           (unsigned long long) n, ns / 1e9);
    fflush(stdout);
}

static bool
count(const struct file_dirent *d, void *n)
{
    ++*(uint64_t *) n;
    return true;
}

static void
memory(const char *when)
{
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");

    while (f && fgets(line, sizeof line, f)) {
        if (!strncmp(line, "RssAnon", 7)) {
            printf("  %s %s", when, line);
        }
    }
    if (f) {
        fclose(f);
    }
}

int
main(int argc, char *argv[])
{
    struct store_options options;
    struct catalogue_options co = {0};
    struct store *store;
    struct catalogue *cat;
    struct branch *branch;
    struct file *root, *dir = NULL, *file;
    uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 0) : 100000, got = 0;
    static uint8_t buf[1 << 20];
    char name[32];
    size_t len;

    if (argc < 2) {
        fprintf(stderr, "usage: bench-branch DIR [N]\n");
        return 1;
    }
    vlog_init("bench-branch");
    store_options_init(&options, 256 << 20);
    check(store_create(argv[1], &options), argv[1]);
    check(store_open(argv[1], 0, &options, &store), "store_open");
    check(journal_replay(store_journal(store), NULL, NULL, NULL), "replay");
    check(catalogue_create(store, 0, 0), "catalogue_create");
    check(store_close(store), "store_close");
    check(store_open(argv[1], 0, &options, &store), "store_open");
    check(catalogue_open(store, &co, &cat), "catalogue_open");
    check(branch_open(cat, "main", &branch), "branch_open");
    check(file_root(branch, &root), "root");
    memory("at start");

    begin();
    for (uint64_t i = 0; i < n; i++) {
        if (i % 1000 == 0) {
            file_unref(dir);
            len = sprintf(name, "d%llu", (unsigned long long) i / 1000);
            check(file_mkdir(root, name, len, 0755, &cred, &dir), "mkdir");
        }
        len = sprintf(name, "f%llu", (unsigned long long) i);
        check(file_create(dir, name, len, 0644, &cred, NULL), "create");
    }
    end("create", n);
    begin();
    for (uint64_t i = 0; i < n; i++) {
        struct file_attr attr;

        if (i % 1000 == 0) {
            file_unref(dir);
            len = sprintf(name, "d%llu", (unsigned long long) i / 1000);
            check(file_lookup(root, name, len, &dir), "lookup");
        }
        len = sprintf(name, "f%llu", (unsigned long long) i);
        check(file_lookup(dir, name, len, &file), "lookup");
        check(file_getattr(file, &attr), "getattr");
        file_unref(file);
    }
    end("lookup + getattr, edge", n);
    begin();
    check(catalogue_checkpoint(cat), "checkpoint");
    end("checkpoint", 1);
    for (int round = 0; round < 2; round++) {
        begin();
        for (uint64_t i = 0; i < n; i++) {
            struct file_attr attr;

            if (i % 1000 == 0) {
                file_unref(dir);
                len = sprintf(name, "d%llu", (unsigned long long) i / 1000);
                check(file_lookup(root, name, len, &dir), "lookup");
            }
            len = sprintf(name, "f%llu", (unsigned long long) i);
            check(file_lookup(dir, name, len, &file), "lookup");
            check(file_getattr(file, &attr), "getattr");
            file_unref(file);
        }
        end(round ? "lookup + getattr, warm" : "lookup + getattr, tree", n);
    }
    begin();
    for (uint64_t i = 0; i < n / 1000; i++) {
        len = sprintf(name, "d%llu", (unsigned long long) i);
        check(file_lookup(root, name, len, &file), "lookup");
        check(file_readdir(file, 0, count, &got), "readdir");
        file_unref(file);
    }
    end("readdir, an entry", got);
    memory("after the tree");

    begin();
    for (uint64_t i = 0; i < n; i++) {
        if (i % 1000 == 0) {
            file_unref(dir);
            len = sprintf(name, "d%llu", (unsigned long long) i / 1000);
            check(file_lookup(root, name, len, &dir), "lookup");
        }
        len = sprintf(name, "f%llu", (unsigned long long) i);
        check(file_lookup(dir, name, len, &file), "lookup");
        snprintf((char *) buf, 301, "%0300llu", (unsigned long long) i);
        check(file_write(file, buf, 300, 0, 0, NULL), "write");
        file_unref(file);
    }
    end("lookup + write 300 B", n);
    begin();
    check(catalogue_checkpoint(cat), "checkpoint");
    end("checkpoint", 1);

    check(file_create(root, "big", 3, 0644, &cred, &file), "create");
    for (size_t i = 0; i < sizeof buf; i++) {
        buf[i] = i * 2654435761u >> 13;
    }
    begin();
    for (int i = 0; i < 256; i++) {
        memcpy(buf, &i, sizeof i);
        memcpy(buf + 70000, &i, sizeof i);
        check(file_write(file, buf, sizeof buf, (uint64_t) i << 20, 0, NULL),
              "write");
    }
    end("write 1 MiB", 256);
    begin();
    check(file_fsync(file, false), "fsync");
    end("fsync", 1);
    begin();
    for (int i = 0; i < 256; i++) {
        check(file_read(file, buf, sizeof buf, (uint64_t) i << 20, &len),
              "read");
    }
    end("read 1 MiB", 256);
    begin();
    for (int i = 0; i < 65536; i++) {
        check(file_read(file, buf, 4096, (uint64_t) i << 12, &len), "read");
    }
    end("read 4 KiB in order", 65536);
    begin();
    for (int i = 0; i < 16384; i++) {
        check(file_write(file, buf, 4096, ((uint64_t) i * 7919 % 65536) << 12,
                         0, NULL),
              "write");
    }
    end("write 4 KiB at random", 16384);
    begin();
    for (int i = 0; i < 1000; i++) {
        check(file_write(file, buf, 4096, ((uint64_t) i * 7919 % 65536) << 12,
                         FILE_WRITE_DSYNC, NULL),
              "write");
    }
    end("write 4 KiB, O_DSYNC", 1000);
    file_unref(file);
    memory("after the file");

    begin();
    for (uint64_t i = 0; i < n; i++) {
        if (i % 1000 == 0) {
            file_unref(dir);
            len = sprintf(name, "d%llu", (unsigned long long) i / 1000);
            check(file_lookup(root, name, len, &dir), "lookup");
        }
        len = sprintf(name, "f%llu", (unsigned long long) i);
        check(file_unlink(dir, name, len, 0), "unlink");
    }
    end("unlink", n);
    begin();
    check(catalogue_checkpoint(cat), "checkpoint");
    end("checkpoint", 1);
    memory("at the end");

    file_unref(dir);
    file_unref(root);
    branch_close(branch);
    check(catalogue_close(cat), "catalogue_close");
    check(store_close(store), "store_close");
    return 0;
}
