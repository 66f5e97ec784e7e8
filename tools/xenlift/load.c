/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * load.c - copies the part of xenstore that belongs to our devices, from a
 * dump or through hv/.
 *
 * Domain 0 sees everything.  A driver domain may not list /local/domain, but
 * it owns its backend directories and may read the other ends of them; a guest
 * likewise from its side.  So the walk begins with the domains that can be
 * listed, or with the own domain, and follows each device to its other end.
 */
#include "tools/xenlift/xenlift.h"

#include <errno.h>
#include <stdlib.h>

#include "hv/hv.h"

struct load {
    struct hv *hv;
    struct xs_tree *tree;
};

/* As much of a device as anybody could mean; deeper is not read. */
#define MAX_DEPTH 3

static void
format_perms(struct hv *hv, const char *path, char *ret, size_t size)
{
    static const char letters[] = {'n', 'r', 'w', 'b'};
    struct hv_xs_perm *perms;
    size_t n, i, used = 0;

    ret[0] = '\0';
    if (hv_xs_get_perms(hv, HV_XS_NONE, path, &perms, &n)) {
        return;
    }
    for (i = 0; i < n && used < size; i++) {
        used += snprintf(ret + used, size - used, "%s%c%u", i ? "," : "",
                         letters[perms[i].bits & 3], perms[i].domid);
    }
    free(perms);
}

/* Copies node 'path' alone.  Returns 0 also if it is not there or not for us,
 * in which case it is hidden. */
static int
load_node(struct load *load, const char *path)
{
    char perms[256];
    char *value;
    int error;

    error = hv_xs_read(load->hv, HV_XS_NONE, path, &value);
    if (error == ENOENT) {
        return 0;
    } else if (error == EACCES) {
        return xs_tree_hide(load->tree, path);
    } else if (error) {
        return error;
    }
    format_perms(load->hv, path, perms, sizeof perms);
    error = xs_tree_add(load->tree, path, value, perms[0] ? perms : NULL);
    free(value);
    return error;
}

/* Copies 'path' and what is below it. */
static int
load_below(struct load *load, const char *path, int depth)
{
    char **names;
    size_t n, i;
    int error;

    error = load_node(load, path);
    if (error || depth >= MAX_DEPTH) {
        return error;
    }
    error = hv_xs_directory(load->hv, HV_XS_NONE, path, &names, &n);
    if (error) {
        return error == ENOENT || error == EACCES ? 0 : error;
    }
    for (i = 0; i < n && !error; i++) {
        char *child;

        if (asprintf(&child, "%s/%s", path, names[i]) < 0) {
            error = ENOMEM;
            break;
        }
        error = load_below(load, child, depth + 1);
        free(child);
    }
    hv_xs_names_free(names, n);
    return error;
}

/* Copies the directories of all our devices in the home of 'domid', both
 * sides, with the errors that drivers left. */
static int
load_domain(struct load *load, unsigned domid)
{
    static const char *const plain[] = {"name", "vm"};
    static const char *const prefixes[] = {"", "error/"};
    char path[128];
    size_t i, j;
    int error;

    for (i = 0; i < ARRAY_SIZE(plain); i++) {
        snprintf(path, sizeof path, "/local/domain/%u/%s", domid, plain[i]);
        error = load_node(load, path);
        if (error) {
            return error;
        }
    }
    for (i = 0; i < ARRAY_SIZE(prefixes); i++) {
        for (j = 0; j < n_xs_type_defs; j++) {
            const struct xs_type_def *def = &xs_type_defs[j];

            snprintf(path, sizeof path, "/local/domain/%u/%sbackend/%s", domid,
                     prefixes[i], def->back_type);
            error = load_below(load, path, 0);
            if (!error && !strcmp(def->device, def->back_type)) {
                snprintf(path, sizeof path, "/local/domain/%u/%sdevice/%s",
                         domid, prefixes[i], def->device);
                error = load_below(load, path, 0);
            }
            if (error) {
                return error;
            }
        }
    }
    return 0;
}

/* Copies the other end of each device that is in the tree so far, where the
 * domain of that end was not walked. */
static int
load_other_ends(struct load *load)
{
    size_t n = load->tree->n, i;
    int error = 0;

    for (i = 0; i < n && !error; i++) {
        const struct xs_entry *e = &load->tree->entries[i];
        struct xs_place p, other;
        char *value;

        if (!xs_place_parse(e->path, &p) ||
            strcmp(p.node, p.side == XS_SIDE_FRONT ? "backend" : "frontend") ||
            !xs_place_parse(e->value, &other) || other.node[0]) {
            continue;
        }
        value = strdup(e->value); /* The array may move below. */
        error = value ? load_below(load, value, MAX_DEPTH - 1) : ENOMEM;
        free(value);
        if (!error) {
            char path[64];

            snprintf(path, sizeof path, "/local/domain/%u/name", other.domid);
            error = load_node(load, path);
        }
    }
    return error;
}

static int
load_live(struct load *load)
{
    char **names;
    uint16_t own;
    size_t n, i;
    int error;

    error = hv_xs_directory(load->hv, HV_XS_NONE, "/local/domain", &names, &n);
    if (error == EACCES || error == ENOENT) {
        error = hv_domid(load->hv, &own);
        if (!error) {
            error = load_domain(load, own);
        }
        if (!error) {
            error = load_other_ends(load);
        }
        return error;
    } else if (error) {
        return error;
    }
    for (i = 0; i < n && !error; i++) {
        uint64_t domid;

        if (!xs_parse_uint(names[i], XS_DOMID_MAX, &domid)) {
            error = load_domain(load, domid);
        }
    }
    hv_xs_names_free(names, n);
    return error;
}

static int
load_dump(const char *name, struct xs_tree *tree)
{
    FILE *file = strcmp(name, "-") ? fopen(name, "r") : stdin;
    size_t line = 0;
    int error;

    if (!file) {
        error = errno;
        complain("%s: %s", name, strerror(error));
        return error;
    }
    error = xs_tree_parse_dump(tree, file, &line);
    if (error == EINVAL) {
        complain("%s:%zu: not a line of xenstore-ls -f", name, line);
    } else if (error) {
        complain("%s: %s", name, strerror(error));
    }
    if (file != stdin) {
        fclose(file);
    }
    return error;
}

/* Fills 'tree', which is initialized, with what 'o' names, and seals it.  On
 * failure says why and returns a positive errno; the caller destroys 'tree'
 * in any case. */
int
xenlift_load(const struct xenlift_options *o, struct xs_tree *tree)
{
    struct load load = {.tree = tree};
    int error;

    if (o->dump) {
        return load_dump(o->dump, tree);
    }
    error = hv_open(o->hv, HV_STORE, &load.hv);
    if (error) {
        complain("cannot open xenstore of %s: %s", o->hv, strerror(error));
        return error;
    }
    error = load_live(&load);
    if (error) {
        complain("cannot read xenstore of %s: %s", o->hv, strerror(error));
    }
    hv_close(load.hv);
    xs_tree_seal(tree);
    return error;
}
