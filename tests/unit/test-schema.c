/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test-schema.c - xenstore-schema: the parsers and the checker.  A dump as the
 * toolstack, a Linux guest and our backend leave it is clean; then one node at
 * a time is changed and exactly the expected violation must come.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "xenstore-names.h"
#include "xenstore-schema/schema.h"

#define PF "/local/domain/2/device/pvcalls/0/"
#define PB "/local/domain/1/backend/pvcalls/2/0/"
#define NF "/local/domain/2/device/9pfs/0/"
#define NB "/local/domain/1/backend/9pfs/2/0/"

static const char good[] =
    "/local/domain/0/name = \"Domain-0\"\t(n0,r1)\n" PF
    "backend = \"/local/domain/1/backend/pvcalls/2/0\"   (n2,r1)\n" PF
    "backend-id = \"1\"   (n2,r1)\n" PF "state = \"4\"   (n2,r1)\n" PF
    "version = \"1\"   (n2,r1)\n" PF "ring-ref = \"8\"   (n2,r1)\n" PF
    "port = \"12\"   (n2,r1)\n" PB
    "frontend = \"/local/domain/2/device/pvcalls/0\"   (n1,r2)\n" PB
    "frontend-id = \"2\"   (n1,r2)\n" PB "online = \"1\"   (n1,r2)\n" PB
    "state = \"4\"   (n1,r2)\n" PB "versions = \"1\"   (n1,r2)\n" PB
    "max-page-order = \"9\"   (n1,r2)\n" PB
    "function-calls = \"1\"   (n1,r2)\n" NF
    "backend = \"/local/domain/1/backend/9pfs/2/0\"   (n2,r1)\n" NF
    "backend-id = \"1\"   (n2,r1)\n" NF "state = \"4\"   (n2,r1)\n" NF
    "tag = \"root\"   (n2,r1)\n" NF "version = \"1\"   (n2,r1)\n" NF
    "num-rings = \"2\"   (n2,r1)\n" NF "ring-ref0 = \"100\"   (n2,r1)\n" NF
    "ring-ref1 = \"101\"   (n2,r1)\n" NF
    "event-channel-0 = \"20\"   (n2,r1)\n" NF
    "event-channel-1 = \"21\"   (n2,r1)\n" NB
    "frontend = \"/local/domain/2/device/9pfs/0\"   (n1,r2)\n" NB
    "frontend-id = \"2\"   (n1,r2)\n" NB "online = \"1\"   (n1,r2)\n" NB
    "state = \"4\"   (n1,r2)\n" NB "path = \"branch/main\"   (n1,r2)\n" NB
    "security_model = \"none\"   (n1,r2)\n" NB
    "versions = \"1\"   (n1,r2)\n" NB "max-rings = \"4\"   (n1,r2)\n" NB
    "max-ring-page-order = \"9\"   (n1,r2)\n";

static void
parse(struct xs_tree *tree, const char *dump)
{
    FILE *file = fmemopen((char *) dump, strlen(dump), "r");
    size_t line;

    xs_tree_init(tree);
    cr_assert_eq(xs_tree_parse_dump(tree, file, &line), 0);
    fclose(file);
}

/* What xs_check() said: "PATH RULE" lines, violations only or notes only. */
struct said {
    char violations[4096];
    char notes[1024];
};

static void
say(const struct xs_violation *v, void *said_)
{
    struct said *said = said_;
    char *to = v->note ? said->notes : said->violations;
    size_t size = v->note ? sizeof said->notes : sizeof said->violations;
    size_t n = strlen(to);

    cr_assert(v->want && *v->want);
    snprintf(to + n, size - n, "%s %s\n", v->path, v->rule);
}

static struct xs_check_result
check(const struct xs_tree *tree, struct said *said)
{
    struct xs_check_result result;

    memset(said, 0, sizeof *said);
    xs_check(tree, say, said, &result);
    return result;
}

/* 'good' with the node 'path' given 'value' (added if missing), or removed if
 * 'value' is NULL, and with 'perms' if that is not NULL. */
static void
parse_changed(struct xs_tree *tree, const char *path, const char *value,
              const char *perms)
{
    size_t i;

    parse(tree, good);
    for (i = 0; i < tree->n; i++) {
        struct xs_entry *e = &tree->entries[i];

        if (!strcmp(e->path, path)) {
            if (!value) {
                free(e->path);
                free(e->value);
                free(e->perms);
                memmove(e, e + 1, (--tree->n - i) * sizeof *e);
                return;
            }
            free(e->value);
            e->value = strdup(value);
            if (perms) {
                free(e->perms);
                e->perms = strdup(perms);
            }
            return;
        }
    }
    cr_assert_not_null(value, "%s is not there", path);
    cr_assert_eq(xs_tree_add(tree, path, value, perms), 0);
    xs_tree_seal(tree);
}

Test(schema, good_dump_is_clean)
{
    struct xs_check_result result;
    struct xs_tree tree;
    struct said said;

    parse(&tree, good);
    result = check(&tree, &said);
    cr_assert_str_eq(said.violations, "");
    cr_assert_str_eq(said.notes, "");
    cr_assert_eq(result.n_devices, 4);
    cr_assert_eq(result.n_nodes, 32);
    xs_tree_destroy(&tree);
}

Test(schema, each_violation_is_named)
{
    static const struct {
        const char *path, *value, *perms, *said;
    } rows[] = {
        /* Types. */
        {PF "ring-ref", "x", NULL, PF "ring-ref type\n"},
        {PF "ring-ref", "4294967296", NULL, PF "ring-ref type\n"},
        {PF "ring-ref", "08", NULL, PF "ring-ref type\n"},
        {PF "ring-ref", "", NULL, PF "ring-ref type\n"},
        {PF "ring-ref", "4294967295", NULL, ""},
        {PF "port", "0", NULL, PF "port type\n"},
        {PF "port", "-1", NULL, PF "port type\n"},
        {PF "state", "9", NULL, PF "state type\n"},
        {PB "online", "2", NULL, PB "online type\n"},
        {PB "max-page-order", "10", NULL, PB "max-page-order type\n"},
        {PB "max-page-order", "0", NULL, PB "max-page-order type\n"},
        {PB "function-calls", "3", NULL, PB "function-calls type\n"},
        {PB "versions", "1,,2", NULL, PB "versions type\n"},
        {NB "security_model", "mapped", NULL, NB "security_model type\n"},
        {NB "max-space", "1G", NULL, NB "max-space type\n"},
        {NB "max-space", "1024", NULL, ""},
        /* Presence. */
        {PF "version", NULL, NULL, PF "version missing\n"},
        {PB "versions", NULL, NULL, PB "versions missing\n"},
        {PB "online", NULL, NULL, PB "online missing\n"},
        {NF "ring-ref1", NULL, NULL, NF "ring-ref1 missing\n"},
        {NF "event-channel-0", NULL, NULL, NF "event-channel-0 missing\n"},
        {NB "path", NULL, NULL, NB "path missing\n"},
        /* Rules. */
        {PF "backend", "/local/domain/1/backend/pvcalls/3/0", NULL,
         PB "frontend is-path\n" PF "backend is-path\n"},
        {PF "backend", "/local/domain/1/backend/9pfs/2/0", NULL,
         PB "frontend is-path\n" PF "backend is-path\n"},
        {PF "backend", "/local/domain/3/backend/pvcalls/2/0", NULL,
         PB "frontend is-path\n" PF "backend is-path\n" PF
            "backend-id is-domid\n"},
        {PF "backend-id", "7", NULL, PF "backend-id is-domid\n"},
        {PB "frontend-id", "7", NULL, PB "frontend-id is-domid\n"},
        {PB "versions", "2", NULL,
         PB "versions contains\n" PF "version element-of\n"},
        {PB "versions", "1,2", NULL, ""},
        {NF "num-rings", "1", NULL,
         NF "ring-ref1 one-for-each\n" NF "event-channel-1 one-for-each\n"},
        {NF "num-rings", "5", NULL, NULL},
        {NF "ring-ref1", "100", NULL, NF "ring-ref1 unique\n"},
        {NF "event-channel-1", "20", NULL, NF "event-channel-1 unique\n"},
        {PF "lift-num-queues", "2", NULL, PF "lift-num-queues at-most\n"},
        /* States against each other. */
        {PB "state", "2", NULL, PF "state state\n"},
        {PF "state", "2", NULL, PB "state state\n"},
        {PF "state", "6", NULL, ""},
        /* Permissions. */
        {PF "port", "12", "n2", PF "port permissions\n"},
        {PF "port", "12", "b2", PF "port permissions\n"},
        {PF "port", "12", "n2,r1,w3", PF "port permissions\n"},
        {PF "port", "12", "n5,r1", PF "port permissions\n"},
        {PF "port", "12", "n2,r7,r1", ""},
        {PF "port", "12", "?", PF "port permissions\n"},
    };
    size_t i;

    for (i = 0; i < ARRAY_SIZE(rows); i++) {
        struct xs_tree tree;
        struct said said;

        parse_changed(&tree, rows[i].path, rows[i].value, rows[i].perms);
        check(&tree, &said);
        if (rows[i].said) {
            cr_assert_str_eq(
                said.violations, rows[i].said, "%s=%s: %s", rows[i].path,
                rows[i].value ? rows[i].value : "(none)", said.violations);
        } else {
            cr_assert_not_null(
                strstr(said.violations, NF "num-rings at-most\n"));
            cr_assert_not_null(
                strstr(said.violations, NF "ring-ref4 missing\n"));
        }
        xs_tree_destroy(&tree);
    }
}

/* A frontend that has only just been created has written nothing yet. */
Test(schema, nodes_are_due_by_state)
{
    struct xs_tree tree;
    struct said said;

    parse(&tree, PF "backend = \"/local/domain/1/backend/pvcalls/2/0\"\n" PF
                    "backend-id = \"1\"\n" PF "state = \"1\"\n" PB
                    "frontend = \"/local/domain/2/device/pvcalls/0\"\n" PB
                    "frontend-id = \"2\"\n" PB "online = \"1\"\n" PB
                    "state = \"2\"\n");
    check(&tree, &said);
    cr_assert_str_eq(said.violations,
                     PB "versions missing\n" PB "max-page-order missing\n" PB
                        "function-calls missing\n");
    xs_tree_destroy(&tree);
}

/* Half a device is an error only where the other half could be seen. */
Test(schema, left_over_and_hidden)
{
    static const char half[] =
        PB "frontend = \"/local/domain/2/device/pvcalls/0\"\n" PB
           "frontend-id = \"2\"\n" PB "online = \"1\"\n" PB "state = \"1\"\n";
    struct xs_tree tree;
    struct said said;

    parse(&tree, half);
    check(&tree, &said);
    cr_assert_str_eq(said.violations, PB "frontend is-path\n");
    cr_assert_eq(xs_tree_hide(&tree, "/local/domain/2"), 0);
    check(&tree, &said);
    cr_assert_str_eq(said.violations, "");
    cr_assert(!xs_tree_is_hidden(&tree, "/local/domain/22"));
    xs_tree_destroy(&tree);
}

Test(schema, unknown_nodes_are_notes)
{
    struct xs_tree tree;
    struct said said;

    parse_changed(&tree, PB "hotplug-status", "connected", "n1,r2");
    check(&tree, &said);
    cr_assert_str_eq(said.violations, "");
    cr_assert_str_eq(said.notes, PB "hotplug-status unknown\n");
    xs_tree_destroy(&tree);
}

/* What a guest can write cannot hurt the checker. */
Test(schema, hostile_values)
{
    char *big = malloc(100001);
    static const char *const paths[] = {
        PF "backend", PF "state",     PF "ring-ref", NF "num-rings",
        NF "tag",     NF "ring-ref0", NF "version",
    };
    static const char *const values[] = {
        "%s%n%s",
        "/local/domain/99999999999999999999/device/pvcalls/0",
        "256",
        "18446744073709551615",
        "18446744073709551616",
        ",",
        "/",
        "/local/domain/1/backend/pvcalls/2/0/",
        "\n\"\\",
    };
    size_t i, j;

    memset(big, '1', 100000);
    big[100000] = '\0';
    for (i = 0; i < ARRAY_SIZE(paths); i++) {
        for (j = 0; j <= ARRAY_SIZE(values); j++) {
            struct xs_tree tree;
            struct said said;

            parse_changed(&tree, paths[i],
                          j < ARRAY_SIZE(values) ? values[j] : big, NULL);
            check(&tree, &said);
            xs_tree_destroy(&tree);
        }
    }
    free(big);
}

Test(schema, parse_uint)
{
    static const struct {
        const char *s;
        uint64_t max;
        int error;
        uint64_t value;
    } rows[] = {
        {"0", 0, 0, 0},
        {"1", 0, EINVAL, 0},
        {"7", 7, 0, 7},
        {"8", 7, EINVAL, 0},
        {"10", 9, EINVAL, 0},
        {"4294967295", UINT32_MAX, 0, UINT32_MAX},
        {"4294967296", UINT32_MAX, EINVAL, 0},
        {"18446744073709551615", UINT64_MAX, 0, UINT64_MAX},
        {"18446744073709551616", UINT64_MAX, EINVAL, 0},
        {"", 9, EINVAL, 0},
        {"00", 9, EINVAL, 0},
        {"+1", 9, EINVAL, 0},
        {" 1", 9, EINVAL, 0},
        {"1 ", 9, EINVAL, 0},
    };
    size_t i;

    for (i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t value = 0;

        cr_assert_eq(xs_parse_uint(rows[i].s, rows[i].max, &value),
                     rows[i].error, "\"%s\"", rows[i].s);
        cr_assert_eq(value, rows[i].value);
    }
}

Test(schema, places)
{
    struct xs_place p;

    cr_assert(xs_place_parse("/local/domain/1/backend/xen_9pfs/2/3/path", &p));
    cr_assert(p.side == XS_SIDE_BACK && p.domid == 1 && p.frontend == 2 &&
              p.devid == 3);
    cr_assert_str_eq(p.device, "9pfs");
    cr_assert_str_eq(p.type, "xen_9pfs");
    cr_assert_str_eq(p.node, "path");
    cr_assert(xs_place_parse("/local/domain/2/device/pvcalls/0", &p));
    cr_assert(p.side == XS_SIDE_FRONT && p.frontend == 2);
    cr_assert_str_eq(p.node, "");
    cr_assert(!xs_place_parse("/local/domain/2/device/xen_9pfs/0", &p));
    cr_assert(!xs_place_parse("/local/domain/2/device/vif/0", &p));
    cr_assert(!xs_place_parse("/local/domain/2/device/pvcalls", &p));
    cr_assert(!xs_place_parse("/local/domain/-2/device/pvcalls/0", &p));
    cr_assert(!xs_place_parse("/local/domain/40000/device/pvcalls/0", &p));
    cr_assert(!xs_place_parse("/local/domain//device/pvcalls/0", &p));
}

Test(schema, dump_lines)
{
    struct xs_tree tree;
    size_t line = 0;
    FILE *file;
    static const char bad[] = "/a = \"1\"\nnonsense\n";

    parse(&tree, "/a = \"tab\\tnl\\nback\\\\ \\x1f\\012\"\n"
                 "/a/b = \"say \"hi\" = \"there\"\"   (n0,r3)\n\n");
    cr_assert_str_eq(xs_tree_value(&tree, "/a"), "tab\tnl\nback\\ \x1f\n");
    cr_assert_str_eq(xs_tree_value(&tree, "/a/b"), "say \"hi\" = \"there\"");
    cr_assert_str_eq(xs_tree_get(&tree, "/a/b")->perms, "n0,r3");
    cr_assert(xs_tree_has_dir(&tree, "/a") && !xs_tree_has_dir(&tree, "/b"));
    xs_tree_destroy(&tree);

    file = fmemopen((char *) bad, strlen(bad), "r");
    xs_tree_init(&tree);
    cr_assert_eq(xs_tree_parse_dump(&tree, file, &line), EINVAL);
    cr_assert_eq(line, 2);
    fclose(file);
    xs_tree_destroy(&tree);
}

/* The names that C code uses and the tables come from the same lines. */
Test(schema, names_are_in_the_tables)
{
    const struct xs_node_def *def;

    def = xs_node_find(XS_PVCALLS_FRONT_TYPE, XS_SIDE_BACK,
                       XS_PVCALLS_BACK_MAX_PAGE_ORDER);
    cr_assert_not_null(def);
    cr_assert_eq(def->max, XS_PVCALLS_BACK_MAX_PAGE_ORDER_MAX);
    cr_assert_eq(def->from, XS_STATE_INIT_WAIT);
    cr_assert_not_null(
        xs_node_find(XS_9PFS_FRONT_TYPE, XS_SIDE_FRONT, "ring-ref0"));
    cr_assert_null(
        xs_node_find(XS_9PFS_FRONT_TYPE, XS_SIDE_FRONT, "ring-ref"));
    cr_assert_null(
        xs_node_find(XS_9PFS_FRONT_TYPE, XS_SIDE_FRONT, "ring-ref00"));
}
