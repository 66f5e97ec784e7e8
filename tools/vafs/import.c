/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vafs import: a directory or a tar archive into a branch.
 *
 * libarchive gives entries in both cases.  Each is put under its path:
 * directories on the way are made as needed, and the fids of the current path
 * are kept, since neighbours in an archive mostly share it.  What exists with
 * the same type keeps its inode and is changed to be like the entry; what has
 * another type is replaced.  Modes and times of directories are set at the
 * end, when nothing changes them any more.
 *
 * Answers to the last messages of a file (attributes, clunk) are not waited
 * for one by one: up to MAX_LATER are collected later. */

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"
#include "tools/vafs/vafs.h"

#define MAX_DEPTH 512
#define MAX_LATER 64

/* A directory whose attributes are set at the end. */
struct directory {
    char *path;
    struct ninep_setattr set;
};

struct later {
    uint16_t tag;
    uint32_t fid_to_free; /* After a clunk; or NINEP_NOFID. */
};

struct import {
    const struct vafs_options *options;
    struct ninep_client *c;
    struct archive *archive;
    struct vafs_progress progress;

    /* The current path: names and fids; level 0 is the target itself. */
    char *names[MAX_DEPTH];
    uint32_t fids[MAX_DEPTH];
    int depth;

    struct directory *directories;
    size_t n_directories, directories_capacity;

    struct later later[MAX_LATER];
    unsigned int n_later;

    uint64_t n_files, n_dirs, n_links, n_other, bytes, n_skipped, n_errors;
};

static void PRINTF_FORMAT(3, 4)
    complain(struct import *im, const char *path, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    vafs_progress_end(&im->progress);
    vafs_error("%s: %s", path, text);
    im->n_errors++;
}

/* Requests whose answers are looked at later. */

static void
collect(struct import *im)
{
    for (unsigned int i = 0; i < im->n_later; i++) {
        struct ninep_msg r;
        int error = ninep_client_wait(im->c, im->later[i].tag, &r);

        if (error) {
            complain(im, "attributes", "%s", strerror(error));
        }
        if (im->later[i].fid_to_free != NINEP_NOFID) {
            ninep_client_free_fid(im->c, im->later[i].fid_to_free);
        }
    }
    im->n_later = 0;
}

static int
send_later(struct import *im, struct ninep_msg *msg, uint32_t fid_to_free)
{
    uint16_t tag;
    int error;

    if (im->n_later == MAX_LATER) {
        collect(im);
    }
    error = ninep_client_send(im->c, msg, &tag);
    if (!error) {
        im->later[im->n_later++] = (struct later){tag, fid_to_free};
    }
    return error;
}

static int
clunk_later(struct import *im, uint32_t fid)
{
    struct ninep_msg t = {.type = NINEP_TCLUNK};

    t.fid.fid = fid;
    return send_later(im, &t, fid);
}

/* The current path. */

static void
pop(struct import *im, int depth)
{
    while (im->depth > depth) {
        free(im->names[im->depth]);
        if (clunk_later(im, im->fids[im->depth])) {
            /* The connection is gone, which shows soon. */
        }
        im->depth--;
    }
}

static int
push(struct import *im, const char *name, size_t len)
{
    uint32_t dir = im->fids[im->depth], fid;
    char *copy = strndup(name, len);
    struct ninep_qid qid = {.type = NINEP_QTDIR};
    int error;

    if (!copy || im->depth + 1 == MAX_DEPTH) {
        free(copy);
        return copy ? ELOOP : ENOMEM;
    }
    error = ninep_walk_path(im->c, dir, copy, &fid, &qid);
    if (!error && qid.type != NINEP_QTDIR) {
        /* A link to a directory or a file is in the way.  It is not
         * followed: that could lead anywhere. */
        ninep_release(im->c, fid);
        error = ninep_unlinkat(im->c, dir, copy, 0);
        error = error ? error : ENOENT;
    }
    if (error == ENOENT) {
        error = ninep_mkdir(im->c, dir, copy, 0755, 0, NULL);
        if (!error) {
            error = ninep_walk_path(im->c, dir, copy, &fid, NULL);
        }
    }
    if (error) {
        free(copy);
        return error;
    }
    im->depth++;
    im->names[im->depth] = copy;
    im->fids[im->depth] = fid;
    return 0;
}

/* Makes the current path that of the directory part of 'path', and points
 * '*ret_name' to the last component, "" for the target itself.  EINVAL: the
 * path contains "..". */
static int
enter(struct import *im, const char *path, const char **ret_name)
{
    int depth = 0;
    bool same = true;

    for (;;) {
        size_t len;
        const char *rest;

        path += strspn(path, "/");
        len = strcspn(path, "/");
        rest = path + len + strspn(path + len, "/");
        if (len == 2 && !memcmp(path, "..", 2)) {
            return EINVAL;
        }
        if (len == 1 && *path == '.') {
            path += len;
            if (!*path) {
                path = "";
                break;
            }
            continue;
        }
        if (!*rest) {
            break;
        }
        if (same && depth < im->depth &&
            !strncmp(im->names[depth + 1], path, len) &&
            !im->names[depth + 1][len]) {
            depth++;
        } else {
            int error;

            if (same) {
                pop(im, depth);
                same = false;
            }
            error = push(im, path, len);
            if (error) {
                return error;
            }
            depth++;
        }
        path += len;
    }
    if (same) {
        pop(im, depth);
    }
    *ret_name = path;
    return 0;
}

/* Entries. */

static struct ninep_setattr
attributes(struct archive_entry *e, uint32_t fid)
{
    struct ninep_setattr set = {
        .fid = fid,
        .valid = NINEP_SETATTR_MODE | NINEP_SETATTR_UID | NINEP_SETATTR_GID,
        .mode = archive_entry_perm(e),
        .uid = archive_entry_uid(e),
        .gid = archive_entry_gid(e),
    };

    if (archive_entry_mtime_is_set(e)) {
        set.valid |= NINEP_SETATTR_MTIME | NINEP_SETATTR_MTIME_SET;
        set.mtime = (struct ninep_time){archive_entry_mtime(e),
                                        archive_entry_mtime_nsec(e)};
    }
    if (archive_entry_atime_is_set(e)) {
        set.valid |= NINEP_SETATTR_ATIME | NINEP_SETATTR_ATIME_SET;
        set.atime = (struct ninep_time){archive_entry_atime(e),
                                        archive_entry_atime_nsec(e)};
    }
    return set;
}

static int
put_xattrs(struct import *im, struct archive_entry *e, uint32_t fid)
{
    const char *name;
    const void *value;
    size_t size;
    int error = 0;

    archive_entry_xattr_reset(e);
    while (!error &&
           archive_entry_xattr_next(e, &name, &value, &size) == ARCHIVE_OK) {
        error = ninep_setxattr(im->c, fid, name, value, size, 0);
    }
    return error;
}

/* The attributes of what 'fid' names, and its clunk, without waiting. */
static int
finish(struct import *im, struct archive_entry *e, uint32_t fid)
{
    struct ninep_msg t = {.type = NINEP_TSETATTR};
    int error = put_xattrs(im, e, fid);

    t.tsetattr = attributes(e, fid);
    if (S_ISLNK(archive_entry_mode(e))) {
        t.tsetattr.valid &= ~NINEP_SETATTR_MODE;
    }
    if (!error) {
        error = send_later(im, &t, NINEP_NOFID);
    }
    if (!error) {
        error = clunk_later(im, fid);
    }
    return error;
}

static int
put_data(struct import *im, struct archive_entry *e, uint32_t fid, bool is_new)
{
    struct ninep_setattr set = {.fid = fid, .valid = NINEP_SETATTR_SIZE};
    uint64_t end = 0;
    int error = 0;

    if (!is_new) {
        /* Only what the entry has not; equal content costs nothing. */
        set.size = 0;
        error = ninep_setattr(im->c, &set);
    }
    while (!error) {
        const void *buf;
        size_t size;
        la_int64_t offset;
        int rc = archive_read_data_block(im->archive, &buf, &size, &offset);

        if (rc == ARCHIVE_EOF) {
            break;
        }
        if (rc < ARCHIVE_WARN) {
            complain(im, archive_entry_pathname(e), "%s",
                     archive_error_string(im->archive));
            return EIO;
        }
        error = ninep_write_all(im->c, fid, offset, buf, size);
        if (size) { /* A hole at the end comes as an empty block. */
            end = offset + size;
        }
        im->bytes += size;
        vafs_progress_show(&im->progress, "%llu files, %llu MB",
                           (unsigned long long) im->n_files,
                           (unsigned long long) (im->bytes / 1000000));
    }
    if (!error && archive_entry_size_is_set(e) &&
        (uint64_t) archive_entry_size(e) > end) {
        set.size = archive_entry_size(e); /* It ends with a hole. */
        error = ninep_setattr(im->c, &set);
    }
    return error;
}

static int
put_file(struct import *im, struct archive_entry *e, const char *name)
{
    uint32_t dir = im->fids[im->depth], fid;
    struct ninep_qid qid;
    bool is_new = true;
    int error = ninep_walk_path(im->c, dir, "", &fid, NULL);

    if (error) {
        return error;
    }
    error = ninep_lcreate(im->c, fid, name, NINEP_O_RDWR | NINEP_O_EXCL, 0600,
                          0, NULL);
    if (error == EEXIST) {
        is_new = false;
        ninep_release(im->c, fid);
        error = ninep_walk_path(im->c, dir, name, &fid, &qid);
        if (!error && qid.type == NINEP_QTFILE) {
            error = ninep_lopen(im->c, fid, NINEP_O_RDWR, NULL, NULL);
        } else if (!error) {
            error = EEXIST;
        }
        if (error == EEXIST || error == ENXIO) {
            /* Something else has the name. */
            ninep_release(im->c, fid);
            error = ninep_unlinkat(im->c, dir, name,
                                   qid.type == NINEP_QTDIR ? NINEP_AT_REMOVEDIR
                                                           : 0);
            return error ? error : put_file(im, e, name);
        }
    }
    if (!error) {
        error = put_data(im, e, fid, is_new);
    }
    if (error) {
        ninep_release(im->c, fid);
        return error;
    }
    im->n_files++;
    return finish(im, e, fid);
}

static int
remember_directory(struct import *im, struct archive_entry *e)
{
    struct directory *d;

    if (im->n_directories == im->directories_capacity) {
        size_t n = im->directories_capacity * 2 + 64;
        struct directory *p = realloc(im->directories, n * sizeof *p);

        if (!p) {
            return ENOMEM;
        }
        im->directories = p;
        im->directories_capacity = n;
    }
    d = &im->directories[im->n_directories];
    d->path = strdup(archive_entry_pathname(e));
    d->set = attributes(e, 0);
    if (!d->path) {
        return ENOMEM;
    }
    im->n_directories++;
    return 0;
}

static int
put_directory(struct import *im, struct archive_entry *e, const char *name)
{
    size_t len = strcspn(name, "/");
    int error = len ? push(im, name, len) : 0;

    if (!error) {
        error = put_xattrs(im, e, im->fids[im->depth]);
    }
    if (!error) {
        error = remember_directory(im, e);
    }
    im->n_dirs += !error;
    return error;
}

/* Makes 'name' (nothing is there) a symbolic link or a special file. */
static int
make_node(struct import *im, struct archive_entry *e, uint32_t dir,
          const char *name)
{
    uint32_t mode = archive_entry_mode(e);

    if (S_ISLNK(mode)) {
        return ninep_symlink(im->c, dir, name, archive_entry_symlink(e), 0,
                             NULL);
    }
    return ninep_mknod(im->c, dir, name, mode, archive_entry_rdevmajor(e),
                       archive_entry_rdevminor(e), 0, NULL);
}

static int
put_node(struct import *im, struct archive_entry *e, const char *name)
{
    uint32_t dir = im->fids[im->depth], fid;
    int error = make_node(im, e, dir, name);

    if (error == EEXIST) {
        char target[4096] = "";

        error = ninep_walk_path(im->c, dir, name, &fid, NULL);
        if (!error && S_ISLNK(archive_entry_mode(e)) &&
            !ninep_readlink(im->c, fid, target, sizeof target) &&
            !strcmp(target, archive_entry_symlink(e))) {
            im->n_other++;
            return finish(im, e, fid); /* It is so already. */
        }
        if (!error) {
            ninep_release(im->c, fid);
            error = ninep_unlinkat(im->c, dir, name, 0);
        }
        if (!error) {
            error = make_node(im, e, dir, name);
        }
    }
    if (!error) {
        error = ninep_walk_path(im->c, dir, name, &fid, NULL);
    }
    if (error) {
        return error;
    }
    im->n_other++;
    return finish(im, e, fid);
}

static int
put_link(struct import *im, struct archive_entry *e, const char *name)
{
    const char *target = archive_entry_hardlink(e);
    uint32_t dir = im->fids[im->depth], fid, old;
    struct ninep_qid qid = {.path = 0}, old_qid = {.path = 0};
    int error;

    while (!strncmp(target, "./", 2)) {
        target += 2;
    }
    error = ninep_walk_path(im->c, im->fids[0], target, &fid, &qid);
    if (error) {
        return error;
    }
    if (!ninep_walk_path(im->c, dir, name, &old, &old_qid)) {
        ninep_release(im->c, old);
        if (old_qid.path != qid.path) {
            error = ninep_unlinkat(im->c, dir, name, 0);
        }
    }
    if (!error && old_qid.path != qid.path) {
        error = ninep_link(im->c, dir, fid, name);
    }
    ninep_release(im->c, fid);
    im->n_links += !error;
    return error;
}

static int
put_entry(struct import *im, struct archive_entry *e)
{
    const char *path = archive_entry_pathname(e);
    const char *name;
    uint32_t mode = archive_entry_mode(e);
    char last[NINEP_NAME_MAX + 1];
    size_t len;
    int error = path ? enter(im, path, &name) : EINVAL;

    if (error == EINVAL) {
        complain(im, path ? path : "?", "a path with '..' is not taken");
        return 0;
    }
    if (error) {
        return error;
    }
    len = strcspn(name, "/");
    if (len > NINEP_NAME_MAX) {
        return ENAMETOOLONG;
    }
    memcpy(last, name, len);
    last[len] = '\0';
    if (archive_entry_hardlink(e)) {
        return put_link(im, e, last);
    }
    if (S_ISDIR(mode)) {
        return put_directory(im, e, last);
    }
    if (!len) {
        return EINVAL;
    }
    if (S_ISREG(mode)) {
        return put_file(im, e, last);
    }
    if (S_ISSOCK(mode)) {
        im->n_skipped++; /* As tar does: it means nothing elsewhere. */
        return 0;
    }
    return put_node(im, e, last);
}

/* Gives directories their attributes, unless all is lost anyway. */
static void
finish_directories(struct import *im, bool apply)
{
    /* The innermost came last. */
    for (size_t i = im->n_directories; i-- > 0;) {
        struct directory *d = &im->directories[i];
        uint32_t fid;
        int error =
            apply ? ninep_walk_path(im->c, im->fids[0], d->path, &fid, NULL)
                  : 0;

        if (apply && !error) {
            d->set.fid = fid;
            error = ninep_setattr(im->c, &d->set);
            ninep_release(im->c, fid);
        }
        if (error) {
            complain(im, d->path, "%s", strerror(error));
        }
        free(d->path);
    }
    free(im->directories);
}

/* Reading. */

static int
import_entries(struct import *im, bool is_disk)
{
    struct archive_entry_linkresolver *resolver =
        archive_entry_linkresolver_new();
    struct archive_entry *e = archive_entry_new();
    int rc, error = 0;

    archive_entry_linkresolver_set_strategy(resolver,
                                            ARCHIVE_FORMAT_TAR_USTAR);
    while (!error) {
        struct archive_entry *spare = NULL, *entry = e;

        rc = archive_read_next_header2(im->archive, e);
        if (rc == ARCHIVE_EOF) {
            break;
        }
        if (rc < ARCHIVE_WARN) {
            complain(im, "archive", "%s", archive_error_string(im->archive));
            error = rc == ARCHIVE_FATAL ? EIO : 0;
            continue;
        }
        if (is_disk) {
            archive_read_disk_descend(im->archive);
            /* Finds further names of one file, which tar says itself. */
            archive_entry_linkify(resolver, &entry, &spare);
        }
        if (entry) {
            error = put_entry(im, entry);
        }
        if (error) {
            complain(im, archive_entry_pathname(e), "%s", strerror(error));
            /* One bad file does not end it, a dead connection does. */
            error = error == ECONNRESET || error == EPIPE || error == ENOSPC ||
                            error == EROFS || error == EBADMSG
                        ? error
                        : 0;
        }
        vafs_progress_show(&im->progress, "%llu files, %llu MB",
                           (unsigned long long) im->n_files,
                           (unsigned long long) (im->bytes / 1000000));
    }
    archive_entry_free(e);
    archive_entry_linkresolver_free(resolver);
    return error;
}

static bool
open_source(struct import *im, const char *source, bool one_fs,
            bool *ret_is_disk)
{
    struct stat st;
    int rc;

    *ret_is_disk = false;
    if (strcmp(source, "-")) {
        if (stat(source, &st)) {
            vafs_error("%s: %s", source, strerror(errno));
            return false;
        }
        *ret_is_disk = S_ISDIR(st.st_mode);
    }
    if (*ret_is_disk) {
        /* From inside, so that paths are relative to it. */
        if (chdir(source)) {
            vafs_error("%s: %s", source, strerror(errno));
            return false;
        }
        im->archive = archive_read_disk_new();
        archive_read_disk_set_symlink_physical(im->archive);
        archive_read_disk_set_behavior(
            im->archive,
            ARCHIVE_READDISK_NO_FFLAGS | ARCHIVE_READDISK_NO_ACL |
                (one_fs ? ARCHIVE_READDISK_NO_TRAVERSE_MOUNTS : 0));
        rc = archive_read_disk_open(im->archive, ".");
    } else {
        im->archive = archive_read_new();
        archive_read_support_filter_all(im->archive);
        archive_read_support_format_all(im->archive);
        rc = archive_read_open_filename(
            im->archive, strcmp(source, "-") ? source : NULL, 1 << 18);
    }
    if (rc != ARCHIVE_OK) {
        vafs_error("%s: %s", source, archive_error_string(im->archive));
        archive_read_free(im->archive);
        return false;
    }
    return true;
}

static void
report(struct import *im)
{
    double s =
        (double) (clock_mono_ns() - im->progress.start_ns) / NSEC_PER_SEC;
    char size[32];

    if (im->options->json) {
        vafs_print_json(json_pack(
            "{sI sI sI sI sI sI sI sf}", "files", (json_int_t) im->n_files,
            "directories", (json_int_t) im->n_dirs, "links",
            (json_int_t) im->n_links, "other", (json_int_t) im->n_other,
            "skipped", (json_int_t) im->n_skipped, "bytes",
            (json_int_t) im->bytes, "errors", (json_int_t) im->n_errors,
            "seconds", s));
    } else if (!im->options->quiet) {
        printf("imported %llu files (%s), %llu directories, %llu links, %llu "
               "others in %.1f s",
               (unsigned long long) im->n_files,
               vafs_format_size(im->bytes, size),
               (unsigned long long) im->n_dirs,
               (unsigned long long) im->n_links,
               (unsigned long long) im->n_other, s);
        if (im->n_skipped) {
            printf(", %llu sockets skipped",
                   (unsigned long long) im->n_skipped);
        }
        if (im->n_errors) {
            printf(", %llu errors", (unsigned long long) im->n_errors);
        }
        putchar('\n');
    }
}

/* Walks to the target, making it if need be. */
static int
open_target(struct import *im, const char *path)
{
    struct ninep_qid qid = {.type = NINEP_QTDIR};
    int error = ninep_walk_path(im->c, 0, path, &im->fids[0], &qid);
    const char *name;

    if (error == ENOENT) {
        char *inner;

        /* Every directory on the way, as mkdir -p does. */
        if (asprintf(&inner, "%s/x", path) < 0) {
            return ENOMEM;
        }
        error = ninep_walk_path(im->c, 0, "", &im->fids[0], NULL);
        if (!error) {
            error = enter(im, inner, &name);
        }
        free(inner);
        if (!error) {
            uint32_t fid = im->fids[im->depth];

            /* The innermost becomes level 0. */
            free(im->names[im->depth--]);
            pop(im, 0);
            ninep_release(im->c, im->fids[0]);
            im->fids[0] = fid;
        }
    } else if (!error && qid.type != NINEP_QTDIR) {
        error = ENOTDIR;
    }
    return error;
}

int
vafs_cmd_import(const struct vafs_options *options, int argc, char *argv[])
{
    struct import *im;
    struct vafs_access *access;
    struct vafs_address a;
    bool one_fs = false, is_disk;
    int c, rc, error;

    while ((c = getopt(argc, argv, "x")) != -1) {
        if (c != 'x') {
            return VAFS_USAGE;
        }
        one_fs = true;
    }
    if (argc - optind != 2) {
        return VAFS_USAGE;
    }
    im = calloc(1, sizeof *im);
    if (!im || !vafs_address_parse(argv[optind + 1], &a) ||
        !vafs_access_open(options, &a, true, &access)) {
        free(im);
        return VAFS_FAILED;
    }
    im->options = options;
    im->c = vafs_client(access);
    vafs_progress_start(&im->progress, options, "importing:");
    error = open_target(im, a.path);
    if (error) {
        vafs_error("%s: %s", a.text, strerror(error));
    } else if (!open_source(im, argv[optind], one_fs, &is_disk)) {
        error = ENOENT;
    } else {
        error = import_entries(im, is_disk);
        collect(im);
        finish_directories(im, !error);
        pop(im, 0);
        collect(im);
        if (!error) {
            /* Durable when we say that it is done. */
            error = ninep_fsync(im->c, im->fids[0], false);
            if (error) {
                vafs_error("fsync: %s", strerror(error));
            }
        }
        archive_read_free(im->archive);
        vafs_progress_end(&im->progress);
        report(im);
    }
    rc = !error && !im->n_errors ? VAFS_OK : VAFS_FAILED;
    free(im);
    return vafs_access_close(access) ? rc : VAFS_FAILED;
}
