/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * schema.h - what nodes.md says about xenstore, as tables, and a checker that
 * compares a copy of a xenstore with it.
 *
 * Knows no hypervisor: the copy is a `struct xs_tree` that somebody filled
 * from a dump or from a live xenstore.  All values come from domains that
 * nobody trusts; they are only ever compared, never executed or believed.
 */
#ifndef XENSTORE_SCHEMA_SCHEMA_H
#define XENSTORE_SCHEMA_SCHEMA_H 1

#include <stdio.h>

#include "lib/util.h"

/* ## The tables ## */

enum xs_side { XS_SIDE_FRONT, XS_SIDE_BACK };

enum xs_type {
    XS_TYPE_PATH,
    XS_TYPE_STRING,
    XS_TYPE_INTEGER, /* With 'min' and 'max' unless both are 0. */
    XS_TYPE_GNTREF,
    XS_TYPE_EVTCHN,
    XS_TYPE_DOMID,
    XS_TYPE_STATE,
    XS_TYPE_LIST,
    XS_TYPE_ENUM, /* One of 'choices'. */
};

enum xs_by {
    XS_BY_TOOLSTACK = 1 << 0,
    XS_BY_FRONTEND = 1 << 1,
    XS_BY_BACKEND = 1 << 2,
};

enum xs_rule_kind {
    XS_RULE_IS_PATH,
    XS_RULE_IS_DOMID,
    XS_RULE_CONTAINS,
    XS_RULE_ELEMENT_OF,
    XS_RULE_AT_MOST,
    XS_RULE_ONE_FOR_EACH,
    XS_RULE_UNIQUE,
};

struct xs_rule {
    enum xs_rule_kind kind;
    const char *arg; /* Item or name of a node; NULL for some kinds. */
};

/* One node of a device's directory. */
struct xs_node_def {
    const char *device; /* "pvcalls" or "9pfs". */
    enum xs_side side;
    const char *name; /* Without the number at its end if 'numbered'. */
    enum xs_type type;
    bool numbered;
    uint64_t min, max;
    const char *const *choices; /* NULL-terminated. */
    const struct xs_rule *rules;
    size_t n_rules;
    unsigned by; /* enum xs_by. */
    int from;    /* Must be there from this state on; -1: optional. */
    bool reserved;
};

/* The type of backend 'back_type' serves frontends of type 'device'. */
struct xs_type_def {
    const char *device;
    const char *back_type;
};

extern const struct xs_node_def xs_node_defs[];
extern const size_t n_xs_node_defs;
extern const struct xs_type_def xs_type_defs[];
extern const size_t n_xs_type_defs;

#define XS_N_STATES 9
#define XS_STATE_INITIALISING 1
#define XS_STATE_INIT_WAIT 2
#define XS_STATE_INITIALISED 3
#define XS_STATE_CONNECTED 4
#define XS_STATE_CLOSING 5
#define XS_STATE_CLOSED 6

#define XS_DOMID_MAX 0x7fefu /* Below DOMID_FIRST_RESERVED. */

const char *xs_state_name(uint64_t state);
const struct xs_node_def *
xs_node_find(const char *device, enum xs_side, const char *name);
int xs_parse_uint(const char *s, uint64_t max, uint64_t *ret) NODISCARD;

/* ## Where a node of a device is ## */

struct xs_place {
    enum xs_side side;
    unsigned domid;     /* Domain in whose home the directory is. */
    char type[16];      /* As in the path: "pvcalls", "9pfs", "xen_9pfs". */
    const char *device; /* Type of the frontend, from the tables. */
    unsigned frontend;  /* Domid of the frontend (= domid for FRONT). */
    unsigned devid;
    const char *node; /* In the path that was parsed; "" for the directory. */
};

bool xs_place_parse(const char *path, struct xs_place *ret);

/* ## A copy of a xenstore ## */

struct xs_entry {
    char *path;
    char *value;
    char *perms; /* "n1,r2", or NULL if not known. */
};

struct xs_tree {
    struct xs_entry *entries; /* Sorted by path once xs_tree_seal() ran. */
    size_t n, allocated;
    char **hidden; /* Directories that could not be read. */
    size_t n_hidden;
};

void xs_tree_init(struct xs_tree *);
void xs_tree_destroy(struct xs_tree *);
int xs_tree_add(struct xs_tree *, const char *path, const char *value,
                const char *perms) NODISCARD;
int xs_tree_hide(struct xs_tree *, const char *path) NODISCARD;
void xs_tree_seal(struct xs_tree *);
const struct xs_entry *xs_tree_get(const struct xs_tree *, const char *path);
const char *xs_tree_value(const struct xs_tree *, const char *path);
bool xs_tree_has_dir(const struct xs_tree *, const char *path);
size_t xs_tree_below(const struct xs_tree *, const char *path, size_t *ret_n);
bool xs_tree_is_hidden(const struct xs_tree *, const char *path);
int xs_tree_parse_dump(struct xs_tree *, FILE *, size_t *ret_line) NODISCARD;

/* ## The checker ## */

struct xs_violation {
    const char *path;
    const char *rule;  /* One word: "type", "missing", "is-path", ... */
    const char *found; /* A clause: "is \"x\"". */
    const char *want;  /* What would be right, a clause. */
    bool note;         /* Worth saying, but allowed. */
};

struct xs_check_result {
    size_t n_devices; /* Directories of devices that were looked at. */
    size_t n_nodes;
    size_t n_violations; /* Without the notes. */
    size_t n_notes;
};

void xs_check(const struct xs_tree *,
              void (*cb)(const struct xs_violation *, void *aux), void *aux,
              struct xs_check_result *ret);

#endif /* xenstore-schema/schema.h */
