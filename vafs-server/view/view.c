/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Attach names and mounts (see view.h). */

#include "vafs-server/view/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/util.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/branch/file.h"

#define DEFAULT_BRANCH "main"
/* Space 0 is that of a view's root mount, so that a guest's st_ino stays
 * small and equal over remounts. */
#define ROOT_SPACE 0

struct view {
    struct catalogue *catalogue;
};

static int
refuse(int error, const char *reason, const char **ret_reason)
{
    if (ret_reason) {
        *ret_reason = reason;
    }
    return error;
}

/* [A-Za-z0-9._-]+, with single slashes between levels. */
static bool
is_name(const char *s, size_t len)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz"
                                  "0123456789._-";

    for (size_t i = 0; i < len; i++) {
        if (s[i] == '/' ? !i || i == len - 1 || s[i - 1] == '/'
                        : !s[i] || !strchr(allowed, s[i])) {
            return false;
        }
    }
    return len > 0;
}

/* Copies the path 'len' bytes at 's' to 'out' without superfluous slashes. */
static int
copy_subdir(const char *s, size_t len, char *out, const char **ret_reason)
{
    size_t n = 0;

    while (len) {
        const char *slash = memchr(s, '/', len);
        size_t part = slash ? (size_t) (slash - s) : len;

        if ((part == 1 && s[0] == '.') ||
            (part == 2 && s[0] == '.' && s[1] == '.')) {
            return refuse(EINVAL, "the subdirectory contains '.' or '..'",
                          ret_reason);
        }
        if (part > FILE_NAME_MAX) {
            return refuse(ENAMETOOLONG,
                          "a component of the subdirectory is too long",
                          ret_reason);
        }
        if (part) {
            if (n) {
                out[n++] = '/';
            }
            memcpy(out + n, s, part);
            n += part;
        }
        s += part + (slash != NULL);
        len -= part + (slash != NULL);
    }
    out[n] = '\0';
    return 0;
}

static int
parse_kind(const char *s, size_t len, struct view_name *out,
           const char **ret_reason)
{
    const char *at = memchr(s, '@', len);
    size_t n = at ? (size_t) (at - s) : len;

    if (n > 7 && !memcmp(s, "branch/", 7)) {
        s += 7;
        n -= 7;
        len -= 7;
    } else if (n > 5 && !memcmp(s, "view/", 5)) {
        s += 5;
        n -= 5;
        len -= 5;
        out->is_view = true;
    } else {
        return refuse(EINVAL,
                      "the name must begin with branch/ or view/, or be a "
                      "path that begins with a slash",
                      ret_reason);
    }
    if (n > VIEW_NAME_MAX || len - n > VIEW_NAME_MAX) {
        return refuse(ENAMETOOLONG, "the name is too long", ret_reason);
    }
    if (!is_name(s, n)) {
        return refuse(EINVAL,
                      "a name consists of letters, digits, '.', '_', '-' and "
                      "single slashes",
                      ret_reason);
    }
    memcpy(out->branch, s, n);
    if (at) {
        if (len - n == 1 || out->is_view) {
            return refuse(EINVAL,
                          "'@' must follow a branch and be followed "
                          "by a version",
                          ret_reason);
        }
        memcpy(out->version, s + n + 1, len - n - 1);
    }
    return 0;
}

int
view_name_parse(const char *text, size_t size, struct view_name *ret,
                const char **ret_reason)
{
    struct view_name name = {.read_only = false};
    const char *colon;
    int error;

    if (size > VIEW_ATTACH_MAX) {
        return refuse(ENAMETOOLONG, "the attach name is too long", ret_reason);
    }
    if (memchr(text, '\0', size)) {
        return refuse(EINVAL, "the attach name contains a NUL byte",
                      ret_reason);
    }
    if (size >= 3 && !memcmp(text + size - 3, "+ro", 3)) {
        name.read_only = true;
        size -= 3;
    }
    if (size && *text == '/') {
        error = copy_subdir(text, size, name.subdir, ret_reason);
    } else {
        colon = memchr(text, ':', size);
        if (colon) {
            size_t rest = size - (colon + 1 - text);

            if (rest && colon[1] != '/') {
                return refuse(EINVAL, "a slash must follow the colon",
                              ret_reason);
            }
            error = copy_subdir(colon + 1, rest, name.subdir, ret_reason);
            size = colon - text;
        } else {
            error = 0;
        }
        if (!error && size) {
            error = parse_kind(text, size, &name, ret_reason);
        }
    }
    if (!error) {
        *ret = name;
    }
    return error;
}

/* Whether the path 'inner' is 'outer' or lies below it. */
static bool
is_below(const char *outer, const char *inner)
{
    size_t n = strlen(outer);

    return !n || (!strncmp(outer, inner, n) && (!inner[n] || inner[n] == '/'));
}

/* A name that does not say means the default branch. */
static const char *
branch_of(const struct view_name *name)
{
    return name->branch[0] ? name->branch : DEFAULT_BRANCH;
}

int
view_name_narrow(const struct view_name *bound, const struct view_name *asked,
                 struct view_name *ret, const char **ret_reason)
{
    struct view_name name = *bound;

    name.read_only = bound->read_only || asked->read_only;
    if (!asked->branch[0]) {
        size_t n = strlen(bound->subdir), m = strlen(asked->subdir);

        if (n + 1 + m > VIEW_ATTACH_MAX) {
            return refuse(ENAMETOOLONG, "the subdirectory is too long",
                          ret_reason);
        }
        if (m) {
            if (n) {
                name.subdir[n++] = '/';
            }
            memcpy(name.subdir + n, asked->subdir, m + 1);
        }
    } else if (asked->is_view != bound->is_view ||
               strcmp(branch_of(bound), branch_of(asked)) ||
               strcmp(bound->version, asked->version) ||
               !is_below(bound->subdir, asked->subdir)) {
        return refuse(EACCES,
                      "the name lies outside what the session is bound to",
                      ret_reason);
    } else {
        memcpy(name.subdir, asked->subdir, sizeof name.subdir);
    }
    *ret = name;
    return 0;
}

int
view_create(struct catalogue *catalogue, struct view **ret)
{
    struct view *view = malloc(sizeof *view);

    if (!view) {
        return ENOMEM;
    }
    view->catalogue = catalogue;
    *ret = view;
    return 0;
}

void
view_destroy(struct view *view)
{
    free(view);
}

/* Walks 'path' from the root of 'branch'.  Symbolic links are not followed:
 * they would lead to ENOTDIR. */
static int
walk_subdir(struct branch *branch, const char *path, struct file **ret)
{
    struct file *file;
    int error = file_root(branch, &file);

    while (!error && *path) {
        size_t n = strcspn(path, "/");
        struct file *next;

        error = file_lookup(file, path, n, &next);
        file_unref(file);
        file = error ? NULL : next;
        path += n + (path[n] == '/');
    }
    if (!error && !S_ISDIR(file_type(file))) {
        error = ENOTDIR;
        file_unref(file);
    }
    if (!error) {
        *ret = file;
    }
    return error;
}

int
view_mount(struct view *view, const struct view_name *name, struct mount **ret,
           const char **ret_reason)
{
    struct mount *mount;
    int error;

    if (name->is_view) {
        return refuse(ENOENT, "there is no such view", ret_reason);
    }
    if (name->version[0]) {
        return refuse(ENOENT, "there is no such version", ret_reason);
    }
    mount = calloc(1, sizeof *mount);
    if (!mount) {
        return refuse(ENOMEM, "out of memory", ret_reason);
    }
    mount->n_refs = 1;
    mount->read_only = name->read_only;
    mount->is_whole = !name->subdir[0];
    mount->space = ROOT_SPACE;
    error = branch_open(view->catalogue, branch_of(name), &mount->branch);
    if (error) {
        free(mount);
        return refuse(error,
                      error == ENOENT ? "there is no such branch"
                                      : "the branch cannot be opened",
                      ret_reason);
    }
    error = walk_subdir(mount->branch, name->subdir, &mount->root);
    if (error) {
        branch_close(mount->branch);
        free(mount);
        return refuse(error,
                      error == ENOENT    ? "there is no such subdirectory"
                      : error == ENOTDIR ? "the subdirectory is no directory"
                                         : "the subdirectory cannot be read",
                      ret_reason);
    }
    *ret = mount;
    return 0;
}

struct mount *
mount_ref(struct mount *mount)
{
    __atomic_fetch_add(&mount->n_refs, 1, __ATOMIC_RELAXED);
    return mount;
}

void
mount_unref(struct mount *mount)
{
    if (mount &&
        __atomic_sub_fetch(&mount->n_refs, 1, __ATOMIC_ACQ_REL) == 0) {
        file_unref(mount->root);
        branch_close(mount->branch);
        free(mount);
    }
}

/* Whether 'dir' is the root of 'mount' or lies below it. */
static int
is_inside(struct mount *mount, struct file *dir, bool *ret)
{
    uint64_t root = file_ino(mount->root);
    struct file *file = file_ref(dir);
    int error = 0;

    for (;;) {
        struct file *parent;

        if (file_ino(file) == root) {
            *ret = true;
            break;
        }
        error = file_lookup(file, "..", 2, &parent);
        if (error) {
            break;
        }
        if (file_ino(parent) == file_ino(file)) {
            file_unref(parent);
            *ret = false; /* The branch's root. */
            break;
        }
        file_unref(file);
        file = parent;
    }
    file_unref(file);
    return error;
}

int
mount_parent(struct mount *mount, struct file *dir, struct file **ret)
{
    struct file *parent;
    bool inside = true;
    int error;

    if (file_ino(dir) == file_ino(mount->root)) {
        *ret = file_ref(mount->root);
        return 0;
    }
    error = file_lookup(dir, "..", 2, &parent);
    if (error) {
        return error;
    }
    if (!mount->is_whole) {
        error = is_inside(mount, parent, &inside);
        if (error || !inside) {
            file_unref(parent);
            parent = error ? NULL : file_ref(mount->root);
        }
    }
    if (!error) {
        *ret = parent;
    }
    return error;
}
