/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vafs export: a tree of a branch to a directory or a tar archive.
 *
 * Both ends of libarchive take the same entries, so one walk serves both.
 * Further names of one inode are found by its qid. */

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/clock.h"
#include "tools/vafs/vafs.h"

#define CHUNK (1u << 20)
#define N_BUCKETS 4096

/* The first name of a file that has several. */
struct seen {
    struct seen *next;
    uint64_t qid;
    char path[];
};

struct export
{
    const struct vafs_options *options;
    struct ninep_client *c;
    struct archive *archive;
    bool is_disk;
    struct vafs_progress progress;
    struct seen *seen[N_BUCKETS];
    char *buf; /* CHUNK bytes. */
    struct ninep_attr root;
    uint64_t n_files, n_dirs, n_other, n_links, bytes, n_errors;
};

static void
complain(struct export *ex, const char *path, const char *text)
{
    vafs_progress_end(&ex->progress);
    vafs_error("%s: %s", path, text);
    ex->n_errors++;
}

static const char *
find_seen(struct export *ex, uint64_t qid)
{
    for (struct seen *s = ex->seen[qid % N_BUCKETS]; s; s = s->next) {
        if (s->qid == qid) {
            return s->path;
        }
    }
    return NULL;
}

static int
add_seen(struct export *ex, uint64_t qid, const char *path)
{
    struct seen *s = malloc(sizeof *s + strlen(path) + 1);

    if (!s) {
        return ENOMEM;
    }
    s->qid = qid;
    strcpy(s->path, path);
    s->next = ex->seen[qid % N_BUCKETS];
    ex->seen[qid % N_BUCKETS] = s;
    return 0;
}

static int
add_xattrs(struct export *ex, uint32_t fid, struct archive_entry *e)
{
    static char names[1 << 18], value[65536];
    size_t size, n;
    int error = ninep_getxattr(ex->c, fid, "", names, sizeof names, &size);

    for (size_t i = 0; !error && i < size; i += strlen(names + i) + 1) {
        error = ninep_getxattr(ex->c, fid, names + i, value, sizeof value, &n);
        if (!error) {
            archive_entry_xattr_add_entry(e, names + i, value, n);
        }
    }
    return error == EOPNOTSUPP ? 0 : error;
}

static int
fill_entry(struct export *ex, uint32_t fid, const char *path,
           const struct ninep_attr *a, struct archive_entry *e)
{
    const char *first;
    int error = 0;

    archive_entry_set_pathname(e, path);
    archive_entry_set_mode(e, a->mode);
    archive_entry_set_uid(e, a->uid);
    archive_entry_set_gid(e, a->gid);
    archive_entry_set_mtime(e, a->mtime.sec, a->mtime.nsec);
    archive_entry_set_atime(e, a->atime.sec, a->atime.nsec);
    archive_entry_set_size(e, S_ISREG(a->mode) ? a->size : 0);
    if (S_ISCHR(a->mode) || S_ISBLK(a->mode)) {
        archive_entry_set_rdevmajor(e, major(a->rdev));
        archive_entry_set_rdevminor(e, minor(a->rdev));
    }
    if (S_ISLNK(a->mode)) {
        char target[4096];

        error = ninep_readlink(ex->c, fid, target, sizeof target);
        if (!error) {
            archive_entry_set_symlink(e, target);
        }
    }
    if (!error && !S_ISDIR(a->mode) && a->nlink > 1) {
        first = find_seen(ex, a->qid.path);
        if (first) {
            archive_entry_set_hardlink(e, first);
            archive_entry_unset_size(e);
            return 0;
        }
        error = add_seen(ex, a->qid.path, path);
    }
    return error ? error : add_xattrs(ex, fid, e);
}

static bool
is_zero(const char *p, size_t n)
{
    return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* Writes the open file's content; on disk, what is zero becomes a hole. */
static int
copy_data(struct export *ex, uint32_t fid, const struct ninep_attr *a,
          const char *path)
{
    for (uint64_t offset = 0; offset < a->size;) {
        size_t want = MIN(CHUNK, a->size - offset), n = 0;
        la_ssize_t rc = 0;
        int error = ninep_read_all(ex->c, fid, offset, ex->buf, want, &n);

        if (error) {
            return error;
        }
        /* It may have shrunk meanwhile: the archive has its size already. */
        memset(ex->buf + n, 0, want - n);
        if (!ex->is_disk) {
            rc = archive_write_data(ex->archive, ex->buf, want);
        } else if (!is_zero(ex->buf, want)) {
            rc = archive_write_data_block(ex->archive, ex->buf, want, offset);
        }
        if (rc < 0) {
            complain(ex, path, archive_error_string(ex->archive));
            return EIO;
        }
        offset += want;
        ex->bytes += want;
        vafs_progress_show(&ex->progress, "%llu files, %llu MB",
                           (unsigned long long) ex->n_files,
                           (unsigned long long) (ex->bytes / 1000000));
    }
    return 0;
}

static int export_tree(struct export *ex, uint32_t fid, const char *path);

static int
export_children(struct export *ex, uint32_t fid, const char *path)
{
    uint64_t cookie = 0;
    struct ninep_data data;
    char *copy = malloc(1 << 16);
    uint32_t dir;
    int error = copy ? ninep_walk_path(ex->c, fid, "", &dir, NULL) : ENOMEM;

    if (error) {
        free(copy);
        return error;
    }
    error = ninep_lopen(ex->c, dir, NINEP_O_RDONLY, NULL, NULL);
    while (!error) {
        struct ninep_dirent d;
        uint32_t pos = 0;

        error = ninep_readdir(ex->c, dir, cookie, 1 << 16, &data);
        if (error || !data.len) {
            break;
        }
        /* The calls below use the client's buffer. */
        memcpy(copy, data.s, data.len);
        data.s = copy;
        while (!error && !ninep_dirent_get(&data, &pos, &d)) {
            char *child;
            uint32_t child_fid;

            cookie = d.cookie;
            if (ninep_str_equals(d.name, ".") ||
                ninep_str_equals(d.name, "..")) {
                continue;
            }
            if (asprintf(&child, "%s/%.*s", path, d.name.len, d.name.s) < 0) {
                error = ENOMEM;
                break;
            }
            error = ninep_walk_path(ex->c, fid, strrchr(child, '/') + 1,
                                    &child_fid, NULL);
            if (!error) {
                error = export_tree(ex, child_fid, child);
                ninep_release(ex->c, child_fid);
            } else if (error == ENOENT) {
                error = 0; /* It went meanwhile. */
            }
            free(child);
        }
    }
    ninep_release(ex->c, dir);
    free(copy);
    return error;
}

/* Writes what 'fid' names as 'path'; its children after it. */
static int
export_tree(struct export *ex, uint32_t fid, const char *path)
{
    struct archive_entry *e = archive_entry_new();
    struct ninep_attr a;
    int rc, error = e ? 0 : ENOMEM;

    if (!error) {
        error = ninep_getattr(ex->c, fid, NINEP_GETATTR_ALL, &a);
    }
    if (!error && !ex->root.mode) {
        ex->root = a;
    }
    if (!error) {
        error = fill_entry(ex, fid, path, &a, e);
    }
    if (error) {
        archive_entry_free(e);
        return error;
    }
    rc = archive_write_header(ex->archive, e);
    /* In an archive, a warning is that a name is no UTF-8: it is kept as it
     * is. */
    if (rc < (ex->is_disk ? ARCHIVE_OK : ARCHIVE_WARN)) {
        complain(ex, path, archive_error_string(ex->archive));
        error = rc < ARCHIVE_WARN ? EIO : 0;
    }
    if (!error && archive_entry_hardlink(e)) {
        ex->n_links++;
    } else if (!error && S_ISREG(a.mode)) {
        ex->n_files++;
        error = ninep_lopen(ex->c, fid, NINEP_O_RDONLY, NULL, NULL);
        if (!error) {
            error = copy_data(ex, fid, &a, path);
        }
    } else if (!error) {
        *(S_ISDIR(a.mode) ? &ex->n_dirs : &ex->n_other) += 1;
    }
    if (!error && archive_write_finish_entry(ex->archive) < ARCHIVE_WARN) {
        complain(ex, path, archive_error_string(ex->archive));
    }
    archive_entry_free(e);
    if (!error && S_ISDIR(a.mode)) {
        error = export_children(ex, fid, path);
    }
    return error;
}

static bool
is_archive_name(const char *name)
{
    static const char *const ends[] = {".tar",    ".tgz",     ".tar.gz",
                                       ".tar.xz", ".tar.zst", ".tar.bz2"};
    size_t n = strlen(name);

    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        size_t m = strlen(ends[i]);

        if (n >= m && !strcmp(name + n - m, ends[i])) {
            return true;
        }
    }
    return !strcmp(name, "-");
}

static bool
open_archive(struct export *ex, const char *name)
{
    const char *dot = strrchr(name, '.');
    bool is_stdout = !strcmp(name, "-");

    ex->archive = archive_write_new();
    archive_write_set_format_pax_restricted(ex->archive);
    if (is_stdout || !strcmp(dot, ".tar")) {
        archive_write_add_filter_none(ex->archive);
    } else if (!strcmp(dot, ".zst")) {
        archive_write_add_filter_zstd(ex->archive);
    } else if (!strcmp(dot, ".xz")) {
        archive_write_add_filter_xz(ex->archive);
    } else if (!strcmp(dot, ".bz2")) {
        archive_write_add_filter_bzip2(ex->archive);
    } else {
        archive_write_add_filter_gzip(ex->archive);
    }
    return archive_write_open_filename(ex->archive, is_stdout ? NULL : name) ==
           ARCHIVE_OK;
}

static bool
open_destination(struct export *ex, const char *name)
{
    if (is_archive_name(name)) {
        if (!open_archive(ex, name)) {
            vafs_error("%s: %s", name, archive_error_string(ex->archive));
            return false;
        }
        return true;
    }
    if ((mkdir(name, 0777) && errno != EEXIST) || chdir(name)) {
        vafs_error("%s: %s", name, strerror(errno));
        return false;
    }
    ex->is_disk = true;
    ex->archive = archive_write_disk_new();
    archive_write_disk_set_options(
        ex->archive, ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_PERM |
                         ARCHIVE_EXTRACT_XATTR | ARCHIVE_EXTRACT_UNLINK |
                         ARCHIVE_EXTRACT_SECURE_NODOTDOT |
                         ARCHIVE_EXTRACT_SECURE_SYMLINKS |
                         (geteuid() ? 0 : ARCHIVE_EXTRACT_OWNER));
    return true;
}

/* libarchive gives all directories their attributes at the end, but for ".".
 */
static void
finish_root(struct export *ex)
{
    struct timespec times[2] = {
        {ex->root.atime.sec, ex->root.atime.nsec},
        {ex->root.mtime.sec, ex->root.mtime.nsec},
    };

    if (!S_ISDIR(ex->root.mode)) {
        return;
    }
    if ((!geteuid() && chown(".", ex->root.uid, ex->root.gid)) ||
        chmod(".", ex->root.mode & 07777) ||
        utimensat(AT_FDCWD, ".", times, 0)) {
        complain(ex, ".", strerror(errno));
    }
}

static void
report(struct export *ex, bool to_stdout)
{
    double s =
        (double) (clock_mono_ns() - ex->progress.start_ns) / NSEC_PER_SEC;
    FILE *out = to_stdout ? stderr : stdout;
    char size[32];

    if (ex->options->json && !to_stdout) {
        vafs_print_json(json_pack(
            "{sI sI sI sI sI sI sf}", "files", (json_int_t) ex->n_files,
            "directories", (json_int_t) ex->n_dirs, "links",
            (json_int_t) ex->n_links, "other", (json_int_t) ex->n_other,
            "bytes", (json_int_t) ex->bytes, "errors",
            (json_int_t) ex->n_errors, "seconds", s));
    } else if (!ex->options->quiet) {
        fprintf(out,
                "exported %llu files (%s), %llu directories, %llu links, "
                "%llu others in %.1f s\n",
                (unsigned long long) ex->n_files,
                vafs_format_size(ex->bytes, size),
                (unsigned long long) ex->n_dirs,
                (unsigned long long) ex->n_links,
                (unsigned long long) ex->n_other, s);
    }
}

static void
export_free(struct export *ex)
{
    for (size_t i = 0; i < N_BUCKETS; i++) {
        while (ex->seen[i]) {
            struct seen *next = ex->seen[i]->next;

            free(ex->seen[i]);
            ex->seen[i] = next;
        }
    }
    archive_write_free(ex->archive);
    free(ex->buf);
    free(ex);
}

int
vafs_cmd_export(const struct vafs_options *options, int argc, char *argv[])
{
    struct export *ex;
    struct vafs_access *access;
    struct vafs_address a;
    uint32_t fid;
    int rc, error;

    if (argc != 3) {
        return VAFS_USAGE;
    }
    ex = calloc(1, sizeof *ex);
    if (!ex || !(ex->buf = malloc(CHUNK)) ||
        !vafs_address_parse(argv[1], &a) ||
        !vafs_access_open(options, &a, false, &access)) {
        free(ex ? ex->buf : NULL);
        free(ex);
        return VAFS_FAILED;
    }
    ex->options = options;
    ex->c = vafs_client(access);
    error = ninep_walk_path(ex->c, 0, a.path, &fid, NULL);
    if (error) {
        vafs_error("%s: %s", a.text, strerror(error));
    } else if (!open_destination(ex, argv[2])) {
        error = EIO;
    } else {
        vafs_progress_start(&ex->progress, options, "exporting:");
        error = export_tree(ex, fid, ".");
        if (error) {
            complain(ex, a.text, strerror(error));
        }
        if (archive_write_close(ex->archive) != ARCHIVE_OK) {
            complain(ex, argv[2], archive_error_string(ex->archive));
        }
        if (ex->is_disk && !error) {
            finish_root(ex);
        }
        vafs_progress_end(&ex->progress);
        report(ex, !strcmp(argv[2], "-"));
    }
    rc = !error && !ex->n_errors ? VAFS_OK : VAFS_FAILED;
    export_free(ex);
    return vafs_access_close(access) ? rc : VAFS_FAILED;
}
