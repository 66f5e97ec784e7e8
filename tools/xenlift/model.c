/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * model.c - domains and their devices as one JSON value, from what the
 * hypervisor and xenstore say.
 *
 *    [{"domid", "name", "uuid", "state", "type", "vcpus", "memory_kib",
 *      "devices": [{"kind", "devid", "type", "backend", "front_state",
 *                   "back_state", "online", "front": {NODE: VALUE},
 *                   "back": {NODE: VALUE}, "front_error", "back_error"}]}]
 *
 * What is not known is null.  A device stands at the domain of its frontend,
 * also if that domain is gone and only the backend's directory is left.
 */
#include "tools/xenlift/xenlift.h"

#include <stdlib.h>

#include "hv/hv.h"
#include "xenstore-names.h"

static json_t *
find_domain(json_t *domains, unsigned domid)
{
    json_t *d;
    size_t i;

    json_array_foreach(domains, i, d)
    {
        if (json_integer_value(json_object_get(d, "domid")) == domid) {
            return d;
        }
    }
    d = json_pack("{s:i, s:n, s:n, s:n, s:n, s:n, s:n, s:[]}", "domid",
                  (int) domid, "name", "uuid", "state", "type", "vcpus",
                  "memory_kib", "devices");
    json_array_append_new(domains, d);
    return d;
}

/* Finds or makes the device of frontend 'place->frontend'; 'backend' is the
 * domain and 'type' the type of its backend. */
static json_t *
find_device(json_t *domains, const struct xs_place *place, unsigned backend,
            const char *type)
{
    json_t *domain = find_domain(domains, place->frontend);
    json_t *devices = json_object_get(domain, "devices"), *d;
    size_t i;

    json_array_foreach(devices, i, d)
    {
        if (!strcmp(json_string_value(json_object_get(d, "type")), type) &&
            json_integer_value(json_object_get(d, "devid")) == place->devid &&
            json_integer_value(json_object_get(d, "backend")) == backend) {
            return d;
        }
    }
    d = json_pack("{s:s, s:I, s:s, s:i, s:n, s:n, s:n, s:{}, s:{}}", "kind",
                  place->device, "devid", (json_int_t) place->devid, "type",
                  type, "backend", (int) backend, "front_state", "back_state",
                  "online", "front", "back");
    json_array_append_new(devices, d);
    return d;
}

/* Sets 'key' of 'object' to the number 'value', or to null if it is none. */
static void
set_number(json_t *object, const char *key, const char *value)
{
    uint64_t number;

    json_object_set_new(object, key,
                        xs_parse_uint(value, INT64_MAX, &number)
                            ? json_null()
                            : json_integer(number));
}

static void
add_error(json_t *device, const struct xs_tree *tree, const struct xs_place *p,
          const char *key)
{
    char path[128];
    const char *value;

    if (p->side == XS_SIDE_FRONT) {
        snprintf(path, sizeof path, XS_FRONT_ERROR_FMT, p->domid, p->type,
                 p->devid);
    } else {
        snprintf(path, sizeof path, XS_BACK_ERROR_FMT, p->domid, p->type,
                 p->frontend, p->devid);
    }
    value = xs_tree_value(tree, path);
    if (value) {
        json_object_set_new(device, key, json_printable(value));
    }
}

/* Takes the node 'e', which stands in the directory of a device at 'p'. */
static void
add_node(json_t *domains, const struct xs_tree *tree, const struct xs_place *p,
         const struct xs_entry *e)
{
    bool front = p->side == XS_SIDE_FRONT;
    unsigned backend = p->domid;
    const char *type = p->type;
    struct xs_place other;
    json_t *device;

    if (front) {
        char path[128];
        const char *value;

        snprintf(path, sizeof path, XS_FRONT_DIR_FMT "/backend", p->domid,
                 p->type, p->devid);
        value = xs_tree_value(tree, path);
        if (!value || !xs_place_parse(value, &other) ||
            other.side != XS_SIDE_BACK) {
            return; /* Nobody's; lint says so. */
        }
        backend = other.domid;
        type = other.type;
    }
    device = find_device(domains, p, backend, type);
    if (!strcmp(p->node, "state")) {
        set_number(device, front ? "front_state" : "back_state", e->value);
        add_error(device, tree, p, front ? "front_error" : "back_error");
    } else if (!front && !strcmp(p->node, "online")) {
        set_number(device, "online", e->value);
    } else if (strcmp(p->node, "backend") && strcmp(p->node, "backend-id") &&
               strcmp(p->node, "frontend") && strcmp(p->node, "frontend-id")) {
        char *name = printable(p->node);

        json_object_set_new(json_object_get(device, front ? "front" : "back"),
                            name, json_printable(e->value));
        free(name);
    }
}

static void
add_tree(json_t *domains, const struct xs_tree *tree)
{
    static const char home[] = "/local/domain/";
    size_t i;

    for (i = 0; i < tree->n; i++) {
        const struct xs_entry *e = &tree->entries[i];
        char number[8] = "", rest[8] = "";
        struct xs_place p;
        uint64_t domid;

        if (xs_place_parse(e->path, &p)) {
            if (p.node[0]) {
                add_node(domains, tree, &p, e);
            }
            continue;
        }
        if (!strncmp(e->path, home, sizeof home - 1) &&
            sscanf(e->path + sizeof home - 1, "%7[0-9]/%7s", number, rest) ==
                2 &&
            !xs_parse_uint(number, XS_DOMID_MAX, &domid)) {
            json_t *d = find_domain(domains, domid);

            if (!strcmp(rest, "name")) {
                json_object_set_new(d, "name", json_printable(e->value));
            } else if (!strcmp(rest, "vm") && !strncmp(e->value, "/vm/", 4)) {
                json_object_set_new(d, "uuid", json_printable(e->value + 4));
            }
        }
    }
}

static const char *
domain_state(uint32_t flags)
{
    return flags & HV_DOMAIN_DYING      ? "dying"
           : flags & HV_DOMAIN_SHUTDOWN ? "shut down"
           : flags & HV_DOMAIN_PAUSED   ? "paused"
           : flags & HV_DOMAIN_BLOCKED  ? "idle"
                                        : "running";
}

/* Adds what the hypervisor says, if this domain may ask it. */
static void
add_domains(json_t *domains, const struct xenlift_options *o)
{
    struct hv_domain *list;
    size_t n, i;
    json_t *d;

    if (o->dump || hv_domains(o->hv, &list, &n)) {
        return;
    }
    for (i = 0; i < n; i++) {
        json_object_update_new(
            find_domain(domains, list[i].domid),
            json_pack("{s:s, s:s, s:i, s:I}", "state",
                      domain_state(list[i].flags), "type",
                      list[i].flags & HV_DOMAIN_HVM ? "hvm" : "pv", "vcpus",
                      (int) list[i].n_vcpus, "memory_kib",
                      (json_int_t) list[i].n_pages * (HV_PAGE_SIZE / 1024)));
    }
    free(list);
    json_array_foreach(domains, i, d)
    {
        if (json_is_null(json_object_get(d, "state"))) {
            json_object_set_new(d, "state", json_string("gone"));
        }
    }
}

static int
compare_domains(const void *a_, const void *b_)
{
    const json_t *const *a = a_, *const *b = b_;
    json_int_t x = json_integer_value(json_object_get(*a, "domid"));
    json_int_t y = json_integer_value(json_object_get(*b, "domid"));

    return x < y ? -1 : x > y;
}

/* Sorts the array 'domains' by domid, in place. */
static void
sort_domains(json_t *domains)
{
    size_t n = json_array_size(domains), i;
    json_t **all = calloc(n + 1, sizeof *all);

    if (!all) {
        return;
    }
    for (i = 0; i < n; i++) {
        all[i] = json_incref(json_array_get(domains, i));
    }
    qsort(all, n, sizeof *all, compare_domains);
    json_array_clear(domains);
    for (i = 0; i < n; i++) {
        json_array_append_new(domains, all[i]);
    }
    free(all);
}

/* Stores the model in '*ret' (json_decref() by the caller).  On failure says
 * why and returns a positive errno. */
int
xenlift_model(const struct xenlift_options *o, json_t **ret)
{
    struct xs_tree tree;
    json_t *domains;
    int error;

    xs_tree_init(&tree);
    error = xenlift_load(o, &tree);
    if (!error) {
        domains = json_array();
        add_tree(domains, &tree);
        add_domains(domains, o);
        sort_domains(domains);
        *ret = domains;
    }
    xs_tree_destroy(&tree);
    return error;
}
