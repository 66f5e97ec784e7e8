/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vafs ls, cat, put, get: single files and directories. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "tools/vafs/vafs.h"

/* One transfer between the server and a local file. */
#define CHUNK (4u << 20)

static void
fail(const struct vafs_address *a, int error)
{
    vafs_error("%s: %s", a->text, strerror(error));
}

/* ls. */

struct ls {
    const struct vafs_options *options;
    struct ninep_client *c;
    bool is_long, all, self;
    json_t *array; /* With --json. */
};

struct entry {
    char *name;
    struct ninep_qid qid;
};

static int
compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct entry *) a)->name,
                  ((const struct entry *) b)->name);
}

static void
free_entries(struct entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(entries[i].name);
    }
    free(entries);
}

/* All entries of the open directory 'fid' but "." and "..", by name. */
static int
read_entries(struct ninep_client *c, uint32_t fid, struct entry **ret,
             size_t *ret_n)
{
    struct entry *entries = NULL;
    size_t n = 0, capacity = 0;
    uint64_t cookie = 0;
    int error;

    for (;;) {
        struct ninep_data data;
        struct ninep_dirent d;
        uint32_t pos = 0;

        error = ninep_readdir(c, fid, cookie, 1 << 18, &data);
        if (error || !data.len) {
            break;
        }
        while (!ninep_dirent_get(&data, &pos, &d)) {
            cookie = d.cookie;
            if (ninep_str_equals(d.name, ".") ||
                ninep_str_equals(d.name, "..")) {
                continue;
            }
            if (n == capacity) {
                struct entry *p;

                capacity = capacity * 2 + 64;
                p = realloc(entries, capacity * sizeof *p);
                if (!p) {
                    free_entries(entries, n);
                    return ENOMEM;
                }
                entries = p;
            }
            entries[n].qid = d.qid;
            entries[n].name = strndup(d.name.s, d.name.len);
            if (!entries[n].name) {
                free_entries(entries, n);
                return ENOMEM;
            }
            n++;
        }
    }
    if (error) {
        free_entries(entries, n);
        return error;
    }
    if (n) {
        qsort(entries, n, sizeof *entries, compare_entries);
    }
    *ret = entries;
    *ret_n = n;
    return 0;
}

static void
format_mode(uint32_t mode, char out[11])
{
    static const char types[] = "?pc?d?b?-?l?s???";

    out[0] = types[mode >> 12 & 15];
    for (int i = 0; i < 9; i++) {
        out[i + 1] = mode & 0400 >> i ? "rwx"[i % 3] : '-';
    }
    if (mode & S_ISUID) {
        out[3] = mode & S_IXUSR ? 's' : 'S';
    }
    if (mode & S_ISGID) {
        out[6] = mode & S_IXGRP ? 's' : 'S';
    }
    if (mode & S_ISVTX) {
        out[9] = mode & S_IXOTH ? 't' : 'T';
    }
    out[10] = '\0';
}

/* A name for people: what is not printable is shown as '?'. */
static void
print_name(const char *name)
{
    for (; *name; name++) {
        putchar((unsigned char) *name < ' ' || *name == 127 ? '?' : *name);
    }
}

static void
ls_json(struct ls *ls, const char *name, const struct ninep_attr *a,
        const char *target)
{
    json_t *json;
    char mode[11];

    format_mode(a->mode, mode);
    json = json_pack(
        "{ss% ss sI sI sI sI sI sI sf}", "name", name, strlen(name), "mode",
        mode, "inode", (json_int_t) a->qid.path, "links",
        (json_int_t) a->nlink, "uid", (json_int_t) a->uid, "gid",
        (json_int_t) a->gid, "size", (json_int_t) a->size, "blocks",
        (json_int_t) a->blocks, "mtime",
        (double) (int64_t) a->mtime.sec + (double) a->mtime.nsec / 1e9);
    if (!json) { /* The name is no UTF-8. */
        return;
    }
    if (S_ISLNK(a->mode)) {
        json_object_set_new(json, "target", json_string_nocheck(target));
    }
    json_array_append_new(ls->array, json);
}

static int
ls_one(struct ls *ls, uint32_t fid, const char *name)
{
    struct ninep_attr a;
    char mode[11], when[32], target[4096] = "";
    struct tm tm;
    time_t t;
    int error;

    if (!ls->is_long && !ls->array) {
        print_name(name);
        putchar('\n');
        return 0;
    }
    error = ninep_getattr(ls->c, fid, NINEP_GETATTR_ALL, &a);
    if (!error && S_ISLNK(a.mode)) {
        error = ninep_readlink(ls->c, fid, target, sizeof target);
    }
    if (error) {
        return error;
    }
    if (ls->array) {
        ls_json(ls, name, &a, target);
        return 0;
    }
    format_mode(a.mode, mode);
    t = a.mtime.sec;
    localtime_r(&t, &tm);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M", &tm);
    printf("%s %3llu %5u %5u ", mode, (unsigned long long) a.nlink, a.uid,
           a.gid);
    if (S_ISCHR(a.mode) || S_ISBLK(a.mode)) {
        printf("%5u,%4u", major(a.rdev), minor(a.rdev));
    } else {
        printf("%10llu", (unsigned long long) a.size);
    }
    printf(" %s ", when);
    print_name(name);
    if (*target) {
        printf(" -> ");
        print_name(target);
    }
    putchar('\n');
    return 0;
}

static int
ls_directory(struct ls *ls, uint32_t fid)
{
    struct entry *entries;
    size_t n;
    int error = ninep_lopen(ls->c, fid, NINEP_O_RDONLY, NULL, NULL);

    if (!error) {
        error = read_entries(ls->c, fid, &entries, &n);
    }
    if (error) {
        return error;
    }
    for (size_t i = 0; i < n && !error; i++) {
        uint32_t child;

        if (entries[i].name[0] == '.' && !ls->all) {
            continue;
        }
        if (!ls->is_long && !ls->array) {
            error = ls_one(ls, 0, entries[i].name);
            continue;
        }
        error = ninep_walk_path(ls->c, fid, entries[i].name, &child, NULL);
        if (!error) {
            error = ls_one(ls, child, entries[i].name);
            ninep_release(ls->c, child);
        } else if (error == ENOENT) {
            error = 0; /* It went meanwhile. */
        }
    }
    free_entries(entries, n);
    return error;
}

static int
ls_address(struct ls *ls, const struct vafs_address *a)
{
    struct ninep_attr attr;
    uint32_t fid;
    int error = ninep_walk_path(ls->c, 0, a->path, &fid, NULL);

    if (!error) {
        error = ninep_getattr(ls->c, fid, NINEP_GETATTR_ALL, &attr);
        if (!error) {
            error = S_ISDIR(attr.mode) && !ls->self ? ls_directory(ls, fid)
                                                    : ls_one(ls, fid, a->path);
        }
        ninep_release(ls->c, fid);
    }
    return error;
}

int
vafs_cmd_ls(const struct vafs_options *options, int argc, char *argv[])
{
    struct ls ls = {.options = options};
    int rc = VAFS_OK;
    int c;

    while ((c = getopt(argc, argv, "lad")) != -1) {
        switch (c) {
        case 'l':
            ls.is_long = true;
            break;
        case 'a':
            ls.all = true;
            break;
        case 'd':
            ls.self = true;
            break;
        default:
            return VAFS_USAGE;
        }
    }
    if (optind == argc) {
        return VAFS_USAGE;
    }
    if (options->json) {
        ls.array = json_array();
        ls.all = true;
    }
    for (int i = optind; i < argc; i++) {
        struct vafs_access *access;
        struct vafs_address a;
        int error;

        if (!vafs_address_parse(argv[i], &a) ||
            !vafs_access_open(options, &a, false, &access)) {
            rc = VAFS_FAILED;
            continue;
        }
        ls.c = vafs_client(access);
        if (argc - optind > 1 && !options->json) {
            printf("%s%s:\n", i > optind ? "\n" : "", argv[i]);
        }
        error = ls_address(&ls, &a);
        if (error) {
            fail(&a, error);
        }
        if (!vafs_access_close(access) || error) {
            rc = VAFS_FAILED;
        }
    }
    vafs_print_json(ls.array);
    return rc;
}

/* cat, get. */

/* Copies the open file 'fid' to 'fd'. */
static int
copy_out(struct ninep_client *c, uint32_t fid, int fd, uint64_t *ret_size)
{
    char *buf = malloc(CHUNK);
    uint64_t offset = 0;
    int error = buf ? 0 : ENOMEM;

    while (!error) {
        size_t n = 0;

        error = ninep_read_all(c, fid, offset, buf, CHUNK, &n);
        if (!error && n) {
            error = write_full(fd, buf, n);
        }
        offset += n;
        if (n < CHUNK) {
            break;
        }
    }
    free(buf);
    if (ret_size) {
        *ret_size = offset;
    }
    return error;
}

static int
open_path(struct ninep_client *c, const char *path, uint32_t *fid)
{
    int error = ninep_walk_path(c, 0, path, fid, NULL);

    if (!error) {
        error = ninep_lopen(c, *fid, NINEP_O_RDONLY, NULL, NULL);
        if (error) {
            ninep_release(c, *fid);
        }
    }
    return error;
}

int
vafs_cmd_cat(const struct vafs_options *options, int argc, char *argv[])
{
    int rc = VAFS_OK;

    if (argc < 2) {
        return VAFS_USAGE;
    }
    for (int i = 1; i < argc; i++) {
        struct vafs_access *access;
        struct vafs_address a;
        uint32_t fid;
        int error;

        if (!vafs_address_parse(argv[i], &a) ||
            !vafs_access_open(options, &a, false, &access)) {
            rc = VAFS_FAILED;
            continue;
        }
        error = open_path(vafs_client(access), a.path, &fid);
        if (!error) {
            error = copy_out(vafs_client(access), fid, STDOUT_FILENO, NULL);
            ninep_release(vafs_client(access), fid);
        }
        if (error) {
            fail(&a, error);
        }
        if (!vafs_access_close(access) || error) {
            rc = VAFS_FAILED;
        }
    }
    return rc;
}

/* The last component of 'path', in 'buf'. */
static const char *
last_name(const char *path, char *buf, size_t size)
{
    snprintf(buf, size, "%s", path);
    return basename(buf);
}

static int
get_to(struct ninep_client *c, uint32_t fid, const char *to, const char *path,
       uint64_t *size)
{
    char name[8192], buf[4096];
    struct ninep_attr attr;
    struct stat st;
    int fd, error;

    if (!strcmp(to, "-")) {
        return copy_out(c, fid, STDOUT_FILENO, size);
    }
    error = ninep_getattr(c, fid, NINEP_GETATTR_ALL, &attr);
    if (error) {
        return error;
    }
    if (!stat(to, &st) && S_ISDIR(st.st_mode)) {
        snprintf(name, sizeof name, "%s/%s", to,
                 last_name(path, buf, sizeof buf));
        to = name;
    }
    fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, attr.mode & 0777);
    if (fd < 0) {
        error = errno;
        vafs_error("%s: %s", to, strerror(error));
        return error;
    }
    error = copy_out(c, fid, fd, size);
    if (close(fd) && !error) {
        error = errno;
    }
    return error;
}

int
vafs_cmd_get(const struct vafs_options *options, int argc, char *argv[])
{
    struct vafs_access *access;
    struct vafs_address a;
    uint64_t size = 0;
    uint32_t fid;
    int error;

    if (argc < 2 || argc > 3) {
        return VAFS_USAGE;
    }
    if (!vafs_address_parse(argv[1], &a) ||
        !vafs_access_open(options, &a, false, &access)) {
        return VAFS_FAILED;
    }
    error = open_path(vafs_client(access), a.path, &fid);
    if (!error) {
        error = get_to(vafs_client(access), fid, argc > 2 ? argv[2] : ".",
                       a.path, &size);
        ninep_release(vafs_client(access), fid);
    }
    if (error) {
        fail(&a, error);
    } else if (options->json) {
        vafs_print_json(json_pack("{sI}", "bytes", (json_int_t) size));
    }
    return vafs_access_close(access) && !error ? VAFS_OK : VAFS_FAILED;
}

/* put. */

/* Opens 'path' for writing, making it if it is not there; if it is a
 * directory, the name of 'source' in it. */
static int
open_target(struct ninep_client *c, const char *path, const char *source,
            uint32_t mode, uint32_t *ret_fid)
{
    char buf[4096], name_buf[4096];
    const char *name;
    struct ninep_qid qid = {.type = NINEP_QTDIR};
    uint32_t fid, child;
    int error = ninep_walk_path(c, 0, path, &fid, &qid);

    if (!error && qid.type != NINEP_QTDIR) {
        error =
            ninep_lopen(c, fid, NINEP_O_WRONLY | NINEP_O_TRUNC, NULL, NULL);
        *ret_fid = fid;
        return error;
    }
    if (!error) {
        name = last_name(source, name_buf, sizeof name_buf);
        if (!strcmp(source, "-")) {
            ninep_release(c, fid);
            return EISDIR;
        }
        /* What is there already gets new content. */
        if (!ninep_walk_path(c, fid, name, &child, NULL)) {
            ninep_release(c, fid);
            *ret_fid = child;
            return ninep_lopen(c, child, NINEP_O_WRONLY | NINEP_O_TRUNC, NULL,
                               NULL);
        }
    } else if (error == ENOENT) {
        name = last_name(path, name_buf, sizeof name_buf);
        snprintf(buf, sizeof buf, "%s", path);
        error = ninep_walk_path(c, 0, dirname(buf), &fid, NULL);
    } else {
        return error;
    }
    if (!error) {
        error =
            ninep_lcreate(c, fid, name, NINEP_O_WRONLY, mode, getegid(), NULL);
        *ret_fid = fid;
    }
    return error;
}

static int
copy_in(struct ninep_client *c, int fd, uint32_t fid, uint64_t *ret_size)
{
    char *buf = malloc(CHUNK);
    uint64_t offset = 0;
    int error = buf ? 0 : ENOMEM;

    while (!error) {
        ssize_t n = read(fd, buf, CHUNK);

        if (n < 0) {
            error = errno == EINTR ? 0 : errno;
            continue;
        }
        if (!n) {
            break;
        }
        error = ninep_write_all(c, fid, offset, buf, n);
        offset += n;
    }
    free(buf);
    *ret_size = offset;
    return error ? error : ninep_fsync(c, fid, false);
}

int
vafs_cmd_put(const struct vafs_options *options, int argc, char *argv[])
{
    struct vafs_access *access;
    struct vafs_address a;
    const char *source;
    uint32_t mode = 0644, fid;
    bool mode_given = false;
    struct stat st;
    uint64_t size = 0;
    int fd, c, error;

    while ((c = getopt(argc, argv, "m:")) != -1) {
        if (c != 'm') {
            return VAFS_USAGE;
        }
        mode = strtoul(optarg, NULL, 8) & 07777;
        mode_given = true;
    }
    if (argc - optind != 2) {
        return VAFS_USAGE;
    }
    source = argv[optind];
    fd = strcmp(source, "-") ? open(source, O_RDONLY | O_CLOEXEC)
                             : STDIN_FILENO;
    if (fd < 0 || fstat(fd, &st)) {
        vafs_error("%s: %s", source, strerror(errno));
        return VAFS_FAILED;
    }
    if (S_ISDIR(st.st_mode)) {
        vafs_error("%s is a directory: use 'vafs import'", source);
        return VAFS_FAILED;
    }
    if (!mode_given && S_ISREG(st.st_mode)) {
        mode = st.st_mode & 07777;
    }
    if (!vafs_address_parse(argv[optind + 1], &a) ||
        !vafs_access_open(options, &a, true, &access)) {
        return VAFS_FAILED;
    }
    error = open_target(vafs_client(access), a.path, source, mode, &fid);
    if (!error) {
        error = copy_in(vafs_client(access), fd, fid, &size);
        ninep_release(vafs_client(access), fid);
    }
    if (error) {
        fail(&a, error);
    } else if (options->json) {
        vafs_print_json(json_pack("{sI}", "bytes", (json_int_t) size));
    }
    close(fd);
    return vafs_access_close(access) && !error ? VAFS_OK : VAFS_FAILED;
}
