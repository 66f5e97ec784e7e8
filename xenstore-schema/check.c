/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * check.c - compares a copy of a xenstore with the tables.
 *
 * Theory of operation
 * ===================
 *
 * The unit is the directory of a device at one end.  For each directory that
 * the tree has (a device that neither end created is nobody's fault), every
 * definition of its side is applied:
 *
 *   - presence: a node with from=STATE must be there while the end's state is
 *     STATE to Connected; an end that is closing may already have taken its
 *     nodes back;
 *   - type of the value;
 *   - the rules, some of which look at the other end;
 *   - permissions, where the copy has them: the owner is the domain whose home
 *     the node is in, the other end can read it, nobody else can write it.
 *
 * Then the two states are compared.  What lies in a directory that the caller
 * was not allowed to read is neither present nor missing: rules about it are
 * not applied.  Nodes that the tables do not know are notes, not violations.
 *
 * Work is bounded by the size of the tree times the number of definitions.
 */
#include "xenstore-schema/schema.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#define DIR_SIZE 96 /* Longest directory of a device and a NUL. */

struct check {
    const struct xs_tree *tree;
    void (*cb)(const struct xs_violation *, void *aux);
    void *aux;
    struct xs_check_result result;

    /* The directory at hand. */
    struct xs_place place;
    char dir[DIR_SIZE];
    char other[DIR_SIZE]; /* "" if the backend's cannot be told. */
    bool other_known;     /* False if 'other' is hidden from us. */
    uint64_t state;       /* XS_N_STATES if missing or not a state. */
};

static void
report(struct check *, bool note, const char *path, const char *rule,
       const char *found, const char *want, ...) PRINTF_FORMAT(6, 7);

/* Reports one violation, or a note, on 'path', or on the directory at hand if
 * that is NULL; 'found' is the value found, or NULL for a missing node. */
static void
report(struct check *c, bool note, const char *path, const char *rule,
       const char *found, const char *want, ...)
{
    struct xs_violation v = {.path = path ? path : c->dir,
                             .rule = rule,
                             .found = found,
                             .note = note};
    char text[512];
    va_list args;

    va_start(args, want);
    vsnprintf(text, sizeof text, want, args);
    va_end(args);
    v.want = text;
    if (note) {
        c->result.n_notes++;
    } else {
        c->result.n_violations++;
    }
    c->cb(&v, c->aux);
}

/* Path of node 'name' of the end at hand, or of the other one. */
static void
node_path(const char *dir, const char *name, char *ret, size_t size)
{
    snprintf(ret, size, "%s/%s", dir, name);
}

static bool
list_has(const char *list, const char *item)
{
    size_t size = strlen(item);

    while (*list) {
        size_t n = strcspn(list, ",");

        if (n == size && !strncmp(list, item, n)) {
            return true;
        }
        list += n + (list[n] == ',');
    }
    return false;
}

static bool
list_is_good(const char *list)
{
    size_t n = strlen(list);

    return n && list[0] != ',' && list[n - 1] != ',' && !strstr(list, ",,");
}

/* Says in 'ret' which values 'def' allows. */
static void
describe_type(const struct xs_node_def *def, char *ret, size_t size)
{
    static const char *const texts[] = {
        [XS_TYPE_PATH] = "an absolute path without a slash at its end",
        [XS_TYPE_STRING] = "a string",
        [XS_TYPE_INTEGER] = "a decimal number",
        [XS_TYPE_GNTREF] = "a grant reference, a decimal number",
        [XS_TYPE_EVTCHN] = "an event channel port, a decimal number from 1 on",
        [XS_TYPE_DOMID] = "a domid, a decimal number up to 32751",
        [XS_TYPE_STATE] = "a xenbus state, 0 to 8",
        [XS_TYPE_LIST] = "a list of items with single commas between them",
    };
    size_t i, n;

    if (def->type == XS_TYPE_ENUM) {
        n = snprintf(ret, size, "one of");
        for (i = 0; def->choices[i] && n < size; i++) {
            n += snprintf(ret + n, size - n, "%s \"%s\"", i ? "," : "",
                          def->choices[i]);
        }
    } else if (def->max) {
        snprintf(ret, size, "a decimal number from %llu to %llu",
                 (unsigned long long) def->min, (unsigned long long) def->max);
    } else {
        snprintf(ret, size, "%s", texts[def->type]);
    }
}

/* Whether 'value' is one that 'def' allows; numbers come back in '*number'. */
static bool
type_is_good(const struct xs_node_def *def, const char *value,
             uint64_t *number)
{
    size_t n = strlen(value), i;

    switch (def->type) {
    case XS_TYPE_PATH:
        return value[0] == '/' && n > 1 && value[n - 1] != '/' &&
               !strstr(value, "//");
    case XS_TYPE_STRING:
        return true;
    case XS_TYPE_INTEGER:
        return !xs_parse_uint(value, UINT64_MAX, number) &&
               (!def->max || (*number >= def->min && *number <= def->max));
    case XS_TYPE_GNTREF:
        return !xs_parse_uint(value, UINT32_MAX, number);
    case XS_TYPE_EVTCHN:
        return !xs_parse_uint(value, UINT32_MAX, number) && *number > 0;
    case XS_TYPE_DOMID:
        return !xs_parse_uint(value, XS_DOMID_MAX, number);
    case XS_TYPE_STATE:
        return !xs_parse_uint(value, XS_N_STATES - 1, number);
    case XS_TYPE_LIST:
        return list_is_good(value);
    case XS_TYPE_ENUM:
        for (i = 0; def->choices[i]; i++) {
            if (!strcmp(def->choices[i], value)) {
                return true;
            }
        }
        return false;
    }
    return false;
}

/* Checks the pointer to the other end: it names the directory that belongs to
 * this device, and that one exists and points back. */
static void
check_is_path(struct check *c, const char *path, const char *value)
{
    bool front = c->place.side == XS_SIDE_FRONT;
    struct xs_place p;
    char back[DIR_SIZE + 16];
    const char *pointer;

    if (!xs_place_parse(value, &p) || p.node[0] || p.side == c->place.side ||
        p.frontend != c->place.frontend || p.devid != c->place.devid ||
        strcmp(p.device, c->place.device)) {
        if (front) {
            report(c, false, path, "is-path", value,
                   "/local/domain/BACKEND/backend/%s/%u/%u", c->place.device,
                   c->place.frontend, c->place.devid);
        } else {
            report(c, false, path, "is-path", value,
                   "/local/domain/%u/device/%s/%u", c->place.frontend,
                   c->place.device, c->place.devid);
        }
        return;
    }
    if (xs_tree_is_hidden(c->tree, value)) {
        return;
    }
    if (!xs_tree_has_dir(c->tree, value)) {
        report(c, false, path, "is-path", value,
               "a directory that exists; one end is left over");
        return;
    }
    node_path(value, front ? "frontend" : "backend", back, sizeof back);
    pointer = xs_tree_value(c->tree, back);
    if (pointer && strcmp(pointer, c->dir)) {
        report(c, false, path, "is-path", value,
               "an end that points back here; its pointer is \"%.200s\"",
               pointer);
    }
}

/* Checks one of the rules that compare with a node of the other end. */
static void
check_against_other(struct check *c, const struct xs_rule *rule,
                    const char *path, const char *value, uint64_t number)
{
    char other[DIR_SIZE + 64];
    const char *limit;
    uint64_t max;

    if (!c->other[0] || !c->other_known) {
        return;
    }
    node_path(c->other, rule->arg, other, sizeof other);
    limit = xs_tree_value(c->tree, other);
    if (rule->kind == XS_RULE_ELEMENT_OF) {
        if (limit && list_is_good(limit) && !list_has(limit, value)) {
            report(c, false, path, "element-of", value,
                   "an item of the other end's %s, which is \"%.200s\"",
                   rule->arg, limit);
        }
    } else if (limit && !xs_parse_uint(limit, UINT64_MAX, &max) &&
               number > max) {
        report(c, false, path, "at-most", value,
               "no more than the other end's %s, which is %llu", rule->arg,
               (unsigned long long) max);
    } else if (!limit && rule->kind == XS_RULE_AT_MOST) {
        report(c, false, path, "at-most", value,
               "no such node as long as the other end has no %s", rule->arg);
    }
}

/* Domid in whose home the other end is, as the path of it says. */
static bool
other_domid(const struct check *c, unsigned *ret)
{
    struct xs_place p;

    if (c->place.side == XS_SIDE_BACK) {
        *ret = c->place.frontend;
        return true;
    }
    if (c->other[0] && xs_place_parse(c->other, &p)) {
        *ret = p.domid;
        return true;
    }
    return false;
}

/* Checks the permissions of 'e' if the tree has them. */
static void
check_perms(struct check *c, const struct xs_entry *e)
{
    unsigned owner, peer = 0, id;
    bool peer_known = other_domid(c, &peer) && c->other_known;
    char mode, others;
    const char *p = e->perms;
    bool peer_reads = false;
    int n;

    if (!p) {
        return;
    }
    if (sscanf(p, "%c%u%n", &others, &owner, &n) != 2) {
        report(c, false, e->path, "permissions", p, "a list such as n1,r2");
        return;
    }
    if (owner != c->place.domid) {
        report(c, false, e->path, "permissions", p,
               "owner %u, the domain whose home this is", c->place.domid);
    }
    if (others == 'w' || others == 'b') {
        report(c, false, e->path, "permissions", p,
               "no right to write for everybody");
    }
    peer_reads = others == 'r' || others == 'b' || owner == peer || peer == 0;
    for (p += n; sscanf(p, ",%c%u%n", &mode, &id, &n) == 2; p += n) {
        if ((mode == 'w' || mode == 'b') && id != owner && id != 0) {
            report(c, false, e->path, "permissions", e->perms,
                   "no right to write for domain %u", id);
        }
        if (id == peer && (mode == 'r' || mode == 'b')) {
            peer_reads = true;
        }
    }
    if (peer_known && !peer_reads) {
        report(c, false, e->path, "permissions", e->perms,
               "a right to read for domain %u, the other end", peer);
    }
}

/* Checks that node 'e', of definition 'def', is as it should be. */
static void
check_node(struct check *c, const struct xs_node_def *def,
           const struct xs_entry *e)
{
    const char *value = e->value;
    uint64_t number = 0;
    char text[160];
    unsigned domid;
    size_t i;

    c->result.n_nodes++;
    check_perms(c, e);
    if (!type_is_good(def, value, &number)) {
        describe_type(def, text, sizeof text);
        report(c, false, e->path, "type", value, "%s", text);
        return;
    }
    for (i = 0; i < def->n_rules; i++) {
        const struct xs_rule *rule = &def->rules[i];

        switch (rule->kind) {
        case XS_RULE_IS_PATH:
            check_is_path(c, e->path, value);
            break;
        case XS_RULE_IS_DOMID:
            if (other_domid(c, &domid) && domid != number) {
                report(c, false, e->path, "is-domid", value,
                       "%u, the domain of the other end", domid);
            }
            break;
        case XS_RULE_CONTAINS:
            if (!list_has(value, rule->arg)) {
                report(c, false, e->path, "contains", value,
                       "a list with the item \"%s\"", rule->arg);
            }
            break;
        case XS_RULE_ELEMENT_OF:
        case XS_RULE_AT_MOST:
            check_against_other(c, rule, e->path, value, number);
            break;
        case XS_RULE_ONE_FOR_EACH:
        case XS_RULE_UNIQUE:
            break; /* Rules of the family: check_family(). */
        }
    }
}

/* Whether a node of 'def' must be there now. */
static bool
is_required(const struct check *c, const struct xs_node_def *def)
{
    return def->from == 0 || (def->from > 0 && c->state < XS_N_STATES &&
                              c->state >= (uint64_t) def->from &&
                              c->state <= XS_STATE_CONNECTED);
}

static const char *
writers(const struct xs_node_def *def)
{
    return def->by & XS_BY_TOOLSTACK  ? "the toolstack"
           : def->by & XS_BY_FRONTEND ? "the frontend"
                                      : "the backend";
}

static void
report_missing(struct check *c, const struct xs_node_def *def,
               const char *path)
{
    if (def->from > 0) {
        report(c, false, path, "missing", NULL,
               "written by %s before it went to state %d (%s)", writers(def),
               def->from, xs_state_name(def->from));
    } else {
        report(c, false, path, "missing", NULL,
               "written by %s with the directory", writers(def));
    }
}

/* Reports nodes of numbered definition 'def' that have the same value. */
static void
check_unique(struct check *c, const struct xs_node_def *def,
             const struct xs_entry *const *family, size_t n)
{
    size_t i, j;

    for (i = 0; i < n; i++) {
        for (j = 0; j < i; j++) {
            if (!strcmp(family[i]->value, family[j]->value)) {
                report(c, false, family[i]->path, "unique", family[i]->value,
                       "another value than %s%zu has", def->name, j);
                break;
            }
        }
    }
}

/* Checks all nodes of numbered definition 'def': as many as the node that the
 * rule names says, and no more.  Looks at 256 at most. */
static void
check_family(struct check *c, const struct xs_node_def *def)
{
    enum { MAX_FAMILY = 256 };
    const struct xs_entry *family[MAX_FAMILY];
    const char *count_name = NULL, *count_value;
    uint64_t want = MAX_FAMILY, i;
    size_t n_family = 0, k;
    bool is_unique = false;
    char path[DIR_SIZE + 64];

    for (k = 0; k < def->n_rules; k++) {
        if (def->rules[k].kind == XS_RULE_ONE_FOR_EACH) {
            count_name = def->rules[k].arg;
        }
        is_unique |= def->rules[k].kind == XS_RULE_UNIQUE;
    }
    if (count_name) {
        node_path(c->dir, count_name, path, sizeof path);
        count_value = xs_tree_value(c->tree, path);
        if (!count_value || xs_parse_uint(count_value, MAX_FAMILY, &want)) {
            return; /* Said at the count itself. */
        }
    }
    for (i = 0; i < MAX_FAMILY; i++) {
        const struct xs_entry *e;

        snprintf(path, sizeof path, "%s/%s%u", c->dir, def->name,
                 (unsigned) i);
        e = xs_tree_get(c->tree, path);
        if (e) {
            check_node(c, def, e);
        }
        if (e && i >= want) {
            report(c, false, path, "one-for-each", e->value,
                   "no such node: %s is %llu", count_name,
                   (unsigned long long) want);
        } else if (!e && i < want && is_required(c, def)) {
            report_missing(c, def, path);
        } else if (e && is_unique && n_family == i) {
            family[n_family++] = e;
        }
    }
    check_unique(c, def, family, n_family);
}

/* Notes what lies in the directory and is in no table. */
static void
note_unknown(struct check *c)
{
    size_t n, i, first = xs_tree_below(c->tree, c->dir, &n);

    for (i = first; i < first + n; i++) {
        const struct xs_entry *e = &c->tree->entries[i];
        const char *name = e->path + strlen(c->dir) + 1;

        if (!xs_node_find(c->place.device, c->place.side, name)) {
            report(c, true, e->path, "unknown", e->value,
                   "a node of nodes.md; both ends ignore this one");
        }
    }
}

/* Compares the states of both ends, once per device: at the backend. */
static void
check_states(struct check *c)
{
    char path[DIR_SIZE + 16];
    const char *value;
    uint64_t front;

    if (c->place.side != XS_SIDE_BACK || !c->other_known ||
        c->state >= XS_N_STATES) {
        return;
    }
    node_path(c->other, "state", path, sizeof path);
    value = xs_tree_value(c->tree, path);
    if (!value || xs_parse_uint(value, XS_N_STATES - 1, &front)) {
        return;
    }
    if (front == XS_STATE_CONNECTED && c->state < XS_STATE_CONNECTED) {
        report(c, false, path, "state", value,
               "a backend in state 4 (Connected) first; it is in %llu (%s)",
               (unsigned long long) c->state, xs_state_name(c->state));
    } else if (c->state == XS_STATE_CONNECTED &&
               front < XS_STATE_INITIALISED) {
        node_path(c->dir, "state", path, sizeof path);
        report(c, false, path, "state", "4",
               "a frontend in state 3 or more first; it is in %llu (%s)",
               (unsigned long long) front, xs_state_name(front));
    }
}

/* Finds the other end's directory: the path of a backend tells it, a frontend
 * must be believed. */
static void
find_other(struct check *c)
{
    char path[DIR_SIZE + 16];
    const char *value;
    struct xs_place p;

    c->other[0] = '\0';
    if (c->place.side == XS_SIDE_BACK) {
        snprintf(c->other, sizeof c->other, "/local/domain/%u/device/%s/%u",
                 c->place.frontend, c->place.device, c->place.devid);
    } else {
        node_path(c->dir, "backend", path, sizeof path);
        value = xs_tree_value(c->tree, path);
        if (value && xs_place_parse(value, &p) && !p.node[0] &&
            p.side == XS_SIDE_BACK && strlen(value) < sizeof c->other) {
            strcpy(c->other, value);
        }
    }
    c->other_known = c->other[0] && !xs_tree_is_hidden(c->tree, c->other) &&
                     xs_tree_has_dir(c->tree, c->other);
}

static void
check_directory(struct check *c)
{
    char path[DIR_SIZE + 64];
    const char *state;
    size_t i;

    c->result.n_devices++;
    find_other(c);
    node_path(c->dir, "state", path, sizeof path);
    state = xs_tree_value(c->tree, path);
    if (!state || xs_parse_uint(state, XS_N_STATES - 1, &c->state)) {
        c->state = XS_N_STATES;
    }
    for (i = 0; i < n_xs_node_defs; i++) {
        const struct xs_node_def *def = &xs_node_defs[i];
        const struct xs_entry *e;

        if (def->side != c->place.side ||
            strcmp(def->device, c->place.device)) {
            continue;
        }
        if (def->numbered) {
            check_family(c, def);
            continue;
        }
        node_path(c->dir, def->name, path, sizeof path);
        e = xs_tree_get(c->tree, path);
        if (e) {
            check_node(c, def, e);
        } else if (is_required(c, def) && !xs_tree_is_hidden(c->tree, path)) {
            report_missing(c, def, path);
        }
    }
    check_states(c);
    note_unknown(c);
}

/* Checks every device in 'tree', which is sealed, calls 'cb' for each
 * violation and note (what it points to is gone after the call), and stores
 * the counts in '*ret'. */
void
xs_check(const struct xs_tree *tree,
         void (*cb)(const struct xs_violation *, void *aux), void *aux,
         struct xs_check_result *ret)
{
    struct check c = {.tree = tree, .cb = cb, .aux = aux};
    char last[DIR_SIZE] = "";
    size_t i;

    for (i = 0; i < tree->n; i++) {
        const char *path = tree->entries[i].path;
        size_t size;

        if (!xs_place_parse(path, &c.place)) {
            continue;
        }
        size = c.place.node - path;
        while (size && path[size - 1] == '/') {
            size--;
        }
        if (size >= sizeof c.dir) {
            continue; /* Cannot be: its parts are all short. */
        }
        memcpy(c.dir, path, size);
        c.dir[size] = '\0';
        if (strcmp(c.dir, last)) {
            strcpy(last, c.dir);
            check_directory(&c);
        }
    }
    *ret = c.result;
}
