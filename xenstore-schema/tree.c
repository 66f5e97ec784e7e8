/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tree.c - a copy of a xenstore: a sorted array of paths, filled by a caller
 * or from the output of `xenstore-ls -f` (with -p for the permissions).
 */
#include "xenstore-schema/schema.h"

#include <errno.h>
#include <stdlib.h>

/* Xen's own limits are far below; a dump that goes beyond is none. */
#define MAX_ENTRIES (4u << 20)

void
xs_tree_init(struct xs_tree *tree)
{
    memset(tree, 0, sizeof *tree);
}

void
xs_tree_destroy(struct xs_tree *tree)
{
    size_t i;

    for (i = 0; i < tree->n; i++) {
        free(tree->entries[i].path);
        free(tree->entries[i].value);
        free(tree->entries[i].perms);
    }
    for (i = 0; i < tree->n_hidden; i++) {
        free(tree->hidden[i]);
    }
    free(tree->entries);
    free(tree->hidden);
    xs_tree_init(tree);
}

/* Adds node 'path' with 'value' and 'perms' ("n1,r2", or NULL if not known).
 * Copies all three.  Returns 0, ENOMEM, or EFBIG. */
int
xs_tree_add(struct xs_tree *tree, const char *path, const char *value,
            const char *perms)
{
    struct xs_entry e;

    if (tree->n >= MAX_ENTRIES) {
        return EFBIG;
    }
    if (tree->n >= tree->allocated) {
        size_t allocated = tree->allocated ? tree->allocated * 2 : 64;
        struct xs_entry *entries;

        entries = realloc(tree->entries, allocated * sizeof *entries);
        if (!entries) {
            return ENOMEM;
        }
        tree->entries = entries;
        tree->allocated = allocated;
    }
    e.path = strdup(path);
    e.value = strdup(value);
    e.perms = perms ? strdup(perms) : NULL;
    if (!e.path || !e.value || (perms && !e.perms)) {
        free(e.path);
        free(e.value);
        free(e.perms);
        return ENOMEM;
    }
    tree->entries[tree->n++] = e;
    return 0;
}

/* Says that what is at and below 'path' could not be read, so that nothing
 * can be said about it. */
int
xs_tree_hide(struct xs_tree *tree, const char *path)
{
    char **hidden;

    hidden = realloc(tree->hidden, (tree->n_hidden + 1) * sizeof *hidden);
    if (!hidden) {
        return ENOMEM;
    }
    tree->hidden = hidden;
    hidden[tree->n_hidden] = strdup(path);
    if (!hidden[tree->n_hidden]) {
        return ENOMEM;
    }
    tree->n_hidden++;
    return 0;
}

static int
compare_entries(const void *a_, const void *b_)
{
    const struct xs_entry *a = a_, *b = b_;

    return strcmp(a->path, b->path);
}

/* Sorts 'tree' and drops second entries of the same path.  Needed before
 * anything is looked up. */
void
xs_tree_seal(struct xs_tree *tree)
{
    size_t i, n = 0;

    if (!tree->n) {
        return;
    }
    qsort(tree->entries, tree->n, sizeof *tree->entries, compare_entries);
    for (i = 0; i < tree->n; i++) {
        struct xs_entry *e = &tree->entries[i];

        if (n && !strcmp(tree->entries[n - 1].path, e->path)) {
            free(e->path);
            free(e->value);
            free(e->perms);
        } else {
            tree->entries[n++] = *e;
        }
    }
    tree->n = n;
}

/* Index of the first entry whose path is not less than 'path'. */
static size_t
lower_bound(const struct xs_tree *tree, const char *path)
{
    size_t low = 0, high = tree->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (strcmp(tree->entries[mid].path, path) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* The entry of 'path', or NULL. */
const struct xs_entry *
xs_tree_get(const struct xs_tree *tree, const char *path)
{
    size_t i = lower_bound(tree, path);

    return i < tree->n && !strcmp(tree->entries[i].path, path)
               ? &tree->entries[i]
               : NULL;
}

/* The value of 'path', or NULL if there is no such node. */
const char *
xs_tree_value(const struct xs_tree *tree, const char *path)
{
    const struct xs_entry *e = xs_tree_get(tree, path);

    return e ? e->value : NULL;
}

/* Stores in '*ret_n' how many entries lie below 'path' and returns the index
 * of the first; they are neighbours. */
size_t
xs_tree_below(const struct xs_tree *tree, const char *path, size_t *ret_n)
{
    size_t size = strlen(path), first, i;
    char *prefix = malloc(size + 2);

    *ret_n = 0;
    if (!prefix) {
        return 0;
    }
    memcpy(prefix, path, size);
    memcpy(prefix + size, "/", 2);
    first = lower_bound(tree, prefix);
    for (i = first; i < tree->n; i++) {
        if (strncmp(tree->entries[i].path, prefix, size + 1)) {
            break;
        }
    }
    free(prefix);
    *ret_n = i - first;
    return first;
}

/* Whether 'path' is there, as a node or because something lies below it. */
bool
xs_tree_has_dir(const struct xs_tree *tree, const char *path)
{
    size_t n;

    if (xs_tree_get(tree, path)) {
        return true;
    }
    xs_tree_below(tree, path, &n);
    return n > 0;
}

/* Whether 'path' lies at or below a directory that could not be read. */
bool
xs_tree_is_hidden(const struct xs_tree *tree, const char *path)
{
    size_t i;

    for (i = 0; i < tree->n_hidden; i++) {
        size_t size = strlen(tree->hidden[i]);

        if (!strncmp(path, tree->hidden[i], size) &&
            (!path[size] || path[size] == '/')) {
            return true;
        }
    }
    return false;
}

/* Undoes in place the escapes of xenstore-ls: \t \n \r \\ \xHH \OOO. */
static bool
unescape(char *s)
{
    char *out = s;

    while (*s) {
        int n = 0;
        unsigned c;

        if (*s != '\\') {
            *out++ = *s++;
            continue;
        }
        s++;
        switch (*s) {
        case 't':
            c = '\t', n = 1;
            break;
        case 'n':
            c = '\n', n = 1;
            break;
        case 'r':
            c = '\r', n = 1;
            break;
        case '\\':
        case '"':
            c = (unsigned char) *s, n = 1;
            break;
        default:
            if (sscanf(s, "x%2x%n", &c, &n) != 1 &&
                sscanf(s, "%3o%n", &c, &n) != 1) {
                return false;
            }
        }
        s += n;
        *out++ = (char) c;
    }
    *out = '\0';
    return true;
}

/* Parses one line, 'PATH = "VALUE"' and maybe '   (PERMS)', in place. */
static int
parse_line(struct xs_tree *tree, char *line)
{
    char *value, *end, *perms = NULL;

    line[strcspn(line, "\n")] = '\0';
    if (!*line) {
        return 0;
    }
    value = strstr(line, " = \"");
    end = strrchr(line, '"');
    if (line[0] != '/' || !value || end < value + 4) {
        return EINVAL;
    }
    *value = *end = '\0';
    value += 4;
    end += 1 + strspn(end + 1, " \t");
    if (*end == '(') {
        perms = end + 1;
        end = strchr(perms, ')');
        if (!end) {
            return EINVAL;
        }
        *end++ = '\0';
    }
    if (*end || !unescape(value)) {
        return EINVAL;
    }
    return xs_tree_add(tree, line, value, perms);
}

/* Fills 'tree' from 'file', the output of `xenstore-ls -f` or `-f -p`.
 * Returns 0; on error EINVAL (not such output), ENOMEM, EFBIG or what reading
 * failed with, and the number of the line in '*ret_line'. */
int
xs_tree_parse_dump(struct xs_tree *tree, FILE *file, size_t *ret_line)
{
    char *line = NULL;
    size_t size = 0, n = 0;
    int error = 0;

    errno = 0;
    while (!error && getline(&line, &size, file) >= 0) {
        n++;
        error = parse_line(tree, line);
    }
    if (!error && ferror(file)) {
        error = errno ? errno : EIO;
    }
    free(line);
    if (error) {
        *ret_line = n;
        return error;
    }
    xs_tree_seal(tree);
    return 0;
}
