/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The broker's registry; see hv/registry.h.
 */
#include "hv/registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/list.h"
#include "lib/util.h"

enum { MAX_PERMS = 8 };

struct node {
    struct list link; /* In the parent's 'children', oldest first. */
    struct node *parent;
    struct list children;
    char *name;
    char *value;
    struct hv_xs_perm perms[MAX_PERMS];
    size_t n_perms;
};

/* A change that a transaction made, for the watches. */
struct change {
    struct list link;
    bool is_removal;
    char path[];
};

struct txn {
    struct list link;
    void *owner;
    hv_xs_txn id;
    uint64_t base; /* 'generation' of the registry when it began. */
    struct node *root;
    struct list changes;
};

struct watch {
    struct list link;
    void *owner;
    uint16_t domid;
    size_t skip; /* Bytes of the home directory before a relative path. */
    char *path;  /* Absolute, or "@...". */
    char *token;
};

struct registry {
    registry_fire_cb *fire;
    void *aux;
    struct node *root;
    uint64_t generation; /* Counts changes of 'root'. */
    hv_xs_txn last_txn;
    struct list txns;
    struct list watches;
};

/* ## Nodes ## */

static void
node_destroy(struct node *node)
{
    if (node) {
        struct node *child, *next;

        LIST_FOR_EACH_SAFE (child, next, link, &node->children) {
            node_destroy(child);
        }
        list_remove(&node->link);
        free(node->name);
        free(node->value);
        free(node);
    }
}

static struct node *
node_create(struct node *parent, const char *name, size_t name_len,
            const char *value)
{
    struct node *node = calloc(1, sizeof *node);

    if (!node) {
        return NULL;
    }
    list_init(&node->link);
    list_init(&node->children);
    node->name = strndup(name, name_len);
    node->value = strdup(value);
    if (!node->name || !node->value) {
        node_destroy(node);
        return NULL;
    }
    if (parent) {
        node->parent = parent;
        memcpy(node->perms, parent->perms, sizeof node->perms);
        node->n_perms = parent->n_perms;
        list_push_back(&parent->children, &node->link);
    }
    return node;
}

static struct node *
node_clone(const struct node *from, struct node *parent)
{
    struct node *node =
        node_create(parent, from->name, strlen(from->name), from->value);
    struct node *child;

    if (!node) {
        return NULL;
    }
    memcpy(node->perms, from->perms, sizeof node->perms);
    node->n_perms = from->n_perms;
    LIST_FOR_EACH (child, link, &from->children) {
        if (!node_clone(child, node)) {
            node_destroy(node);
            return NULL;
        }
    }
    return node;
}

static uint32_t
node_count(const struct node *node)
{
    struct node *child;
    uint32_t n = 1;

    LIST_FOR_EACH (child, link, &node->children) {
        n += node_count(child);
    }
    return n;
}

static struct node *
node_child(const struct node *node, const char *name, size_t len)
{
    struct node *child;

    LIST_FOR_EACH (child, link, &node->children) {
        if (strlen(child->name) == len && !memcmp(child->name, name, len)) {
            return child;
        }
    }
    return NULL;
}

/* Finds 'path' (absolute and well-formed) below 'root'.  If it is missing,
 * returns NULL and stores the last ancestor in '*ret_last' and what is left of
 * the path in '*ret_rest'. */
static struct node *
node_lookup(struct node *root, const char *path, struct node **ret_last,
            const char **ret_rest)
{
    struct node *node = root;

    for (path++; *path;) {
        size_t len = strcspn(path, "/");
        struct node *child = node_child(node, path, len);

        if (!child) {
            *ret_last = node;
            *ret_rest = path;
            return NULL;
        }
        node = child;
        path += len;
        path += *path == '/';
    }
    *ret_last = node;
    *ret_rest = path;
    return node;
}

static bool
node_permits(const struct node *node, uint16_t domid, unsigned bits)
{
    if (!domid || node->perms[0].domid == domid) {
        return true;
    }
    for (size_t i = 1; i < node->n_perms; i++) {
        if (node->perms[i].domid == domid) {
            return (node->perms[i].bits & bits) == bits;
        }
    }
    return (node->perms[0].bits & bits) == bits;
}

/* ## Paths, transactions ## */

/* Makes '*ret_path', to be freed, absolute from 'path'. */
static int
make_absolute(uint16_t domid, const char *path, char **ret_path,
              size_t *ret_skip)
{
    char home[32] = "";
    char *abs;

    if (!*path) {
        return EINVAL;
    }
    if (*path != '/' && *path != '@') {
        snprintf(home, sizeof home, "/local/domain/%u/", domid);
    }
    for (const char *p = path; *p; p++) {
        bool good = ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("-/_@", *p));

        if (!good || (*p == '/' && (p[1] == '/' || (!p[1] && p != path)))) {
            return EINVAL;
        }
    }
    if (asprintf(&abs, "%s%s", home, path) < 0) {
        return ENOMEM;
    }
    if (strlen(abs) > HV_XS_PATH_MAX) {
        free(abs);
        return EINVAL;
    }
    *ret_path = abs;
    *ret_skip = strlen(home);
    return 0;
}

static struct txn *
find_txn(struct registry *reg, void *owner, hv_xs_txn id)
{
    struct txn *txn;

    LIST_FOR_EACH (txn, link, &reg->txns) {
        if (txn->id == id && txn->owner == owner) {
            return txn;
        }
    }
    return NULL;
}

static void
txn_destroy(struct txn *txn)
{
    list_remove(&txn->link);
    while (!list_is_empty(&txn->changes)) {
        free(CONTAINER_OF(list_pop_front(&txn->changes), struct change, link));
    }
    node_destroy(txn->root);
    free(txn);
}

/* ## Watches ## */

/* True if 'path' is 'dir' or stands below it. */
static bool
is_below(const char *dir, const char *path)
{
    size_t n = strlen(dir);

    return (!strcmp(dir, "/") ||
            (!strncmp(dir, path, n) && (!path[n] || path[n] == '/')));
}

/* True if 'domid' may read 'path' below 'root', or, if it does not exist, its
 * nearest ancestor. */
static bool
may_see(struct node *root, uint16_t domid, const char *path)
{
    struct node *last;
    const char *rest;

    node_lookup(root, path, &last, &rest);
    return node_permits(last, domid, HV_XS_PERM_READ);
}

/* Fires what watches 'path'.  'other' is a second state of the tree, or NULL:
 * who may read the node in either may know that it changed. */
static void
fire(struct registry *reg, struct node *other, const char *path,
     bool is_removal)
{
    struct watch *w, *next;

    LIST_FOR_EACH_SAFE (w, next, link, &reg->watches) {
        const char *what;

        if (*w->path == '@') {
            continue;
        } else if (is_below(w->path, path)) {
            what = path;
        } else if (is_removal && is_below(path, w->path)) {
            what = w->path;
        } else {
            continue;
        }
        if (may_see(reg->root, w->domid, what) ||
            (other && may_see(other, w->domid, what))) {
            reg->fire(w->owner, what + w->skip, w->token, reg->aux);
        }
    }
}

/* Notes that 'path' is being changed, before a removal and after any other
 * change. */
static int
changed(struct registry *reg, struct txn *txn, const char *path,
        bool is_removal)
{
    if (txn) {
        struct change *change = malloc(sizeof *change + strlen(path) + 1);

        if (!change) {
            return ENOMEM;
        }
        change->is_removal = is_removal;
        strcpy(change->path, path);
        list_push_back(&txn->changes, &change->link);
    } else {
        reg->generation++;
        fire(reg, NULL, path, is_removal);
    }
    return 0;
}

/* ## Operations ## */

/* What an operation works on. */
struct op {
    struct txn *txn; /* Or NULL. */
    struct node *root;
    char *path;        /* Absolute, to be freed. */
    struct node *node; /* Or NULL if missing. */
    struct node *last;
    const char *rest;
};

static int
op_begin(struct registry *reg, void *owner, uint16_t domid, hv_xs_txn id,
         const char *path, struct op *op)
{
    size_t skip;
    int error;

    op->txn = NULL;
    op->root = reg->root;
    if (id) {
        op->txn = find_txn(reg, owner, id);
        if (!op->txn) {
            return ENOENT;
        }
        op->root = op->txn->root;
    }
    error =
        *path == '@' ? EINVAL : make_absolute(domid, path, &op->path, &skip);
    if (!error) {
        op->node = node_lookup(op->root, op->path, &op->last, &op->rest);
    }
    return error;
}

/* As op_begin() for a node that must exist and permit 'bits'. */
static int
op_begin_existing(struct registry *reg, void *owner, uint16_t domid,
                  hv_xs_txn id, const char *path, unsigned bits, struct op *op)
{
    int error = op_begin(reg, owner, domid, id, path, op);

    if (error) {
        return error;
    }
    /* As xenstored: whether a node exists is told only to those who may read
     * what is above it. */
    if (!node_permits(op->last, domid, bits)) {
        error = EACCES;
    } else if (!op->node) {
        error = ENOENT;
    }
    if (error) {
        free(op->path);
    }
    return error;
}

int
registry_read(struct registry *reg, void *owner, uint16_t domid, hv_xs_txn id,
              const char *path, const char **ret_value)
{
    struct op op;
    int error =
        op_begin_existing(reg, owner, domid, id, path, HV_XS_PERM_READ, &op);

    if (!error) {
        *ret_value = op.node->value;
        free(op.path);
    }
    return error;
}

/* Creates the missing nodes of 'op'. */
static int
create_missing(struct op *op, uint16_t domid)
{
    struct node *first = NULL, *node = op->last;
    const char *p = op->rest;

    while (*p) {
        size_t len = strcspn(p, "/");
        struct node *child = node_create(node, p, len, "");

        if (!child) {
            node_destroy(first);
            return ENOMEM;
        }
        /* As xenstored: whoever creates a node owns it. */
        if (domid) {
            child->perms[0].domid = domid;
        }
        if (!first) {
            first = child;
        }
        node = child;
        p += len;
        p += *p == '/';
    }
    op->node = node;
    return 0;
}

static int
write_node(struct registry *reg, void *owner, uint16_t domid, hv_xs_txn id,
           const char *path, const char *value)
{
    struct op op;
    int error = op_begin(reg, owner, domid, id, path, &op);

    if (error) {
        return error;
    }
    if (!node_permits(op.last, domid, HV_XS_PERM_WRITE)) {
        error = EACCES;
    } else if (!op.node || value) {
        if (!op.node) {
            error = create_missing(&op, domid);
        }
        if (!error && value) {
            char *copy = strdup(value);

            if (copy) {
                free(op.node->value);
                op.node->value = copy;
            } else {
                error = ENOMEM;
            }
        }
        if (!error) {
            error = changed(reg, op.txn, op.path, false);
        }
    }
    free(op.path);
    return error;
}

int
registry_write(struct registry *reg, void *owner, uint16_t domid, hv_xs_txn id,
               const char *path, const char *value)
{
    return write_node(reg, owner, domid, id, path, value);
}

int
registry_mkdir(struct registry *reg, void *owner, uint16_t domid, hv_xs_txn id,
               const char *path)
{
    return write_node(reg, owner, domid, id, path, NULL);
}

int
registry_rm(struct registry *reg, void *owner, uint16_t domid, hv_xs_txn id,
            const char *path)
{
    struct op op;
    int error =
        op_begin_existing(reg, owner, domid, id, path, HV_XS_PERM_WRITE, &op);

    if (error) {
        return error;
    }
    if (op.node == op.root) {
        error = EINVAL;
    } else if (!node_permits(op.node->parent, domid, HV_XS_PERM_WRITE)) {
        error = EACCES;
    } else {
        error = changed(reg, op.txn, op.path, true);
        if (!error) {
            node_destroy(op.node);
        }
    }
    free(op.path);
    return error;
}

int
registry_directory(struct registry *reg, void *owner, uint16_t domid,
                   hv_xs_txn id, const char *path, char **ret_names,
                   size_t *ret_size)
{
    struct op op;
    struct node *child;
    size_t size = 0, ofs = 0;
    char *names;
    int error =
        op_begin_existing(reg, owner, domid, id, path, HV_XS_PERM_READ, &op);

    if (error) {
        return error;
    }
    free(op.path);
    LIST_FOR_EACH (child, link, &op.node->children) {
        size += strlen(child->name) + 1;
    }
    names = malloc(size ? size : 1);
    if (!names) {
        return ENOMEM;
    }
    LIST_FOR_EACH (child, link, &op.node->children) {
        strcpy(names + ofs, child->name);
        ofs += strlen(child->name) + 1;
    }
    *ret_names = names;
    *ret_size = size;
    return 0;
}

int
registry_get_perms(struct registry *reg, void *owner, uint16_t domid,
                   hv_xs_txn id, const char *path,
                   const struct hv_xs_perm **ret_perms, size_t *ret_n)
{
    struct op op;
    int error =
        op_begin_existing(reg, owner, domid, id, path, HV_XS_PERM_READ, &op);

    if (!error) {
        *ret_perms = op.node->perms;
        *ret_n = op.node->n_perms;
        free(op.path);
    }
    return error;
}

int
registry_set_perms(struct registry *reg, void *owner, uint16_t domid,
                   hv_xs_txn id, const char *path,
                   const struct hv_xs_perm perms[], size_t n)
{
    struct op op;
    int error;

    if (!n || n > MAX_PERMS) {
        return EINVAL;
    }
    error =
        op_begin_existing(reg, owner, domid, id, path, HV_XS_PERM_NONE, &op);
    if (error) {
        return error;
    }
    /* Only the owner may, and only domain 0 may give a node away. */
    if (domid &&
        (op.node->perms[0].domid != domid || perms[0].domid != domid)) {
        error = EACCES;
    } else {
        memcpy(op.node->perms, perms, n * sizeof *perms);
        op.node->n_perms = n;
        error = changed(reg, op.txn, op.path, false);
    }
    free(op.path);
    return error;
}

int
registry_txn_start(struct registry *reg, void *owner, hv_xs_txn *ret_txn)
{
    struct txn *txn = calloc(1, sizeof *txn);

    if (!txn) {
        return ENOMEM;
    }
    txn->root = node_clone(reg->root, NULL);
    if (!txn->root) {
        free(txn);
        return ENOMEM;
    }
    txn->owner = owner;
    txn->base = reg->generation;
    txn->id = ++reg->last_txn;
    list_init(&txn->changes);
    list_push_back(&reg->txns, &txn->link);
    *ret_txn = txn->id;
    return 0;
}

int
registry_txn_end(struct registry *reg, void *owner, hv_xs_txn id, bool commit)
{
    struct txn *txn = find_txn(reg, owner, id);
    int error = 0;

    if (!txn) {
        return ENOENT;
    }
    if (commit && !list_is_empty(&txn->changes)) {
        if (txn->base != reg->generation) {
            error = EAGAIN;
        } else {
            struct node *old = reg->root;
            struct change *change;

            reg->root = txn->root;
            txn->root = old;
            reg->generation++;
            LIST_FOR_EACH (change, link, &txn->changes) {
                fire(reg, old, change->path, change->is_removal);
            }
        }
    }
    txn_destroy(txn);
    return error;
}

static void
watch_destroy(struct watch *w)
{
    list_remove(&w->link);
    free(w->path);
    free(w->token);
    free(w);
}

static struct watch *
find_watch(struct registry *reg, void *owner, const char *abs,
           const char *token)
{
    struct watch *w;

    LIST_FOR_EACH (w, link, &reg->watches) {
        if (w->owner == owner && !strcmp(w->path, abs) &&
            !strcmp(w->token, token)) {
            return w;
        }
    }
    return NULL;
}

int
registry_watch(struct registry *reg, void *owner, uint16_t domid,
               const char *path, const char *token)
{
    struct watch *w;
    size_t skip;
    char *abs;
    int error = make_absolute(domid, path, &abs, &skip);

    if (error) {
        return error;
    }
    if (find_watch(reg, owner, abs, token)) {
        free(abs);
        return EEXIST;
    }
    w = calloc(1, sizeof *w);
    if (!w) {
        free(abs);
        return ENOMEM;
    }
    list_init(&w->link);
    w->owner = owner;
    w->domid = domid;
    w->skip = skip;
    w->path = abs;
    w->token = strdup(token);
    if (!w->token) {
        watch_destroy(w);
        return ENOMEM;
    }
    list_push_back(&reg->watches, &w->link);
    reg->fire(owner, abs + skip, token, reg->aux);
    return 0;
}

int
registry_unwatch(struct registry *reg, void *owner, uint16_t domid,
                 const char *path, const char *token)
{
    struct watch *w;
    size_t skip;
    char *abs;
    int error = make_absolute(domid, path, &abs, &skip);

    if (error) {
        return error;
    }
    w = find_watch(reg, owner, abs, token);
    free(abs);
    if (!w) {
        return ENOENT;
    }
    watch_destroy(w);
    return 0;
}

void
registry_fire_special(struct registry *reg, const char *name)
{
    struct watch *w, *next;

    LIST_FOR_EACH_SAFE (w, next, link, &reg->watches) {
        /* As xenstored's default: privileged domains only. */
        if (!strcmp(w->path, name) && !w->domid) {
            reg->fire(w->owner, name, w->token, reg->aux);
        }
    }
}

void
registry_forget_owner(struct registry *reg, void *owner)
{
    struct watch *w, *next_watch;
    struct txn *txn, *next_txn;

    LIST_FOR_EACH_SAFE (w, next_watch, link, &reg->watches) {
        if (w->owner == owner) {
            watch_destroy(w);
        }
    }
    LIST_FOR_EACH_SAFE (txn, next_txn, link, &reg->txns) {
        if (txn->owner == owner) {
            txn_destroy(txn);
        }
    }
}

void
registry_count(const struct registry *reg, uint32_t *ret_n_nodes,
               uint32_t *ret_n_watches)
{
    struct watch *w;

    *ret_n_nodes = node_count(reg->root);
    *ret_n_watches = 0;
    LIST_FOR_EACH (w, link, &reg->watches) {
        ++*ret_n_watches;
    }
}

struct registry *
registry_create(registry_fire_cb *fire_cb, void *aux)
{
    struct registry *reg = calloc(1, sizeof *reg);

    if (!reg) {
        return NULL;
    }
    reg->root = node_create(NULL, "", 0, "");
    if (!reg->root) {
        free(reg);
        return NULL;
    }
    reg->root->n_perms = 1;
    reg->fire = fire_cb;
    reg->aux = aux;
    list_init(&reg->txns);
    list_init(&reg->watches);
    return reg;
}

void
registry_destroy(struct registry *reg)
{
    if (reg) {
        while (!list_is_empty(&reg->watches)) {
            watch_destroy(
                CONTAINER_OF(list_front(&reg->watches), struct watch, link));
        }
        while (!list_is_empty(&reg->txns)) {
            txn_destroy(
                CONTAINER_OF(list_front(&reg->txns), struct txn, link));
        }
        node_destroy(reg->root);
        free(reg);
    }
}
