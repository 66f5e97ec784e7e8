/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * lint.c - `xenlift lint`: names each node that is not as
 * xenlift-xenstore(7) says.
 */
#include "tools/xenlift/xenlift.h"

#include <poll.h>
#include <stdlib.h>

/* A live xenstore changes while it is read: a violation counts only if it is
 * still there after this time.  Drivers take well under a tenth of it from one
 * write to the next. */
#define SETTLE_MS 500

static void
collect(const struct xs_violation *v, void *list)
{
    json_t *found = v->found ? json_printable(v->found) : json_null();

    json_array_append_new(list,
                          json_pack("{s:o, s:s, s:o, s:o, s:b}", "path",
                                    json_printable(v->path), "rule", v->rule,
                                    "found", found, "want",
                                    json_printable(v->want), "note", v->note));
}

/* Loads and checks once.  The list of what was found goes to '*ret_list'. */
static int
check_once(const struct xenlift_options *o, struct xs_check_result *result,
           json_t **ret_list)
{
    struct xs_tree tree;
    json_t *list;
    int error;

    xs_tree_init(&tree);
    error = xenlift_load(o, &tree);
    if (!error) {
        list = json_array();
        xs_check(&tree, collect, list, result);
        *ret_list = list;
    }
    xs_tree_destroy(&tree);
    return error;
}

static void
print_one(const json_t *v)
{
    const char *found = json_string_value(json_object_get(v, "found"));

    printf("%s: %s%s\n", json_string_value(json_object_get(v, "path")),
           json_string_value(json_object_get(v, "rule")),
           json_is_true(json_object_get(v, "note")) ? " (note)" : "");
    if (found) {
        printf("    found \"%s\"\n", found);
    }
    printf("    %s%s\n", found ? "want  " : "not there; ",
           json_string_value(json_object_get(v, "want")));
}

static void
print_text(const struct xenlift_options *o, const json_t *list,
           const struct xs_check_result *r)
{
    const json_t *v;
    size_t i;

    json_array_foreach(list, i, v)
    {
        if (o->notes || !json_is_true(json_object_get(v, "note"))) {
            print_one(v);
        }
    }
    printf("%zu device directories, %zu nodes: %zu violation%s", r->n_devices,
           r->n_nodes, r->n_violations, r->n_violations == 1 ? "" : "s");
    if (r->n_notes) {
        printf(", %zu note%s%s", r->n_notes, r->n_notes == 1 ? "" : "s",
               o->notes ? "" : " (--notes shows them)");
    }
    putchar('\n');
}

int
xenlift_lint(const struct xenlift_options *o, int argc, char *argv[])
{
    struct xs_check_result result;
    json_t *list;

    if (check_once(o, &result, &list)) {
        return XENLIFT_USAGE;
    }
    if (result.n_violations && !o->dump) {
        json_decref(list);
        poll(NULL, 0, SETTLE_MS);
        if (check_once(o, &result, &list)) {
            return XENLIFT_USAGE;
        }
    }
    if (o->json) {
        int status =
            print_json(json_pack("{s:I, s:I, s:I, s:I, s:o}", "devices",
                                 (json_int_t) result.n_devices, "nodes",
                                 (json_int_t) result.n_nodes, "violations",
                                 (json_int_t) result.n_violations, "notes",
                                 (json_int_t) result.n_notes, "found", list));

        return status                ? status
               : result.n_violations ? XENLIFT_BAD
                                     : XENLIFT_OK;
    }
    print_text(o, list, &result);
    json_decref(list);
    return result.n_violations ? XENLIFT_BAD : XENLIFT_OK;
}
