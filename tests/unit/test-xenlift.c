/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test-xenlift.c - tools/xenlift on a live registry: what is read from domain
 * 0 and from a driver domain, what lint says, and the model behind list.
 */
#include <stdio.h>
#include <stdlib.h>
#include <pthread.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "hv/broker.h"
#include "hv/hv.h"
#include "tools/xenlift/xenlift.h"

static char dir[] = "/tmp/test-xenlift-XXXXXX";
static struct loop *loop;
static struct broker *broker;
static pthread_t thread;
static struct hv *dom0;
static char spec0[64], spec1[64];

static void *
run_broker(void *aux UNUSED)
{
    loop_run(loop);
    return NULL;
}

/* Creates or changes a node of 'owner' that 'reader' may read. */
static void
put(unsigned owner, unsigned reader, const char *path, const char *value)
{
    const struct hv_xs_perm perms[] = {{owner, HV_XS_PERM_NONE},
                                       {reader, HV_XS_PERM_READ}};

    cr_assert_eq(hv_xs_write(dom0, HV_XS_NONE, path, value), 0, "%s", path);
    cr_assert_eq(hv_xs_set_perms(dom0, HV_XS_NONE, path, perms, 2), 0);
}

#define F "/local/domain/2/device/pvcalls/0"
#define B "/local/domain/1/backend/pvcalls/2/0"

static void
setup(void)
{
    cr_assert(mkdtemp(dir));
    cr_assert_eq(loop_create(&loop), 0);
    cr_assert_eq(broker_create(loop, dir, &broker), 0);
    cr_assert_eq(pthread_create(&thread, NULL, run_broker, NULL), 0);
    snprintf(spec0, sizeof spec0, "local:%s@0", dir);
    snprintf(spec1, sizeof spec1, "local:%s@1", dir);
    cr_assert_eq(hv_open(spec0, HV_STORE, &dom0), 0);
    cr_assert_eq(hv_local_domain_create(dom0, 1, "drv", NULL), 0);
    cr_assert_eq(hv_local_domain_create(
                     dom0, 2, "web", "9d3c6f43-22f1-4b1c-8a59-5f40b2c7a6e1"),
                 0);
    put(2, 1, F, "");
    put(2, 1, F "/backend", B);
    put(2, 1, F "/backend-id", "1");
    put(2, 1, F "/state", "1");
    put(1, 2, B, "");
    put(1, 2, B "/frontend", F);
    put(1, 2, B "/frontend-id", "2");
    put(1, 2, B "/online", "1");
    put(1, 2, B "/state", "2");
    put(1, 2, B "/versions", "1");
    put(1, 2, B "/max-page-order", "9");
    put(1, 2, B "/function-calls", "1");
}

static void
teardown(void)
{
    hv_close(dom0);
    loop_stop(loop);
    pthread_join(thread, NULL);
    broker_destroy(broker);
    loop_destroy(loop);
    rmdir(dir);
}

TestSuite(xenlift, .init = setup, .fini = teardown);

static void
say(const struct xs_violation *v, void *said)
{
    if (!v->note) {
        snprintf((char *) said + strlen(said), 512 - strlen(said), "%s %s\n",
                 v->path, v->rule);
    }
}

/* Loads as 'spec' sees it and returns what lint says, in a static buffer. */
static const char *
lint(const char *spec, size_t n_devices)
{
    const struct xenlift_options o = {.hv = spec};
    struct xs_check_result result;
    static char said[512];
    struct xs_tree tree;

    said[0] = '\0';
    xs_tree_init(&tree);
    cr_assert_eq(xenlift_load(&o, &tree), 0);
    xs_check(&tree, say, said, &result);
    cr_expect_eq(result.n_devices, n_devices, "%zu", result.n_devices);
    xs_tree_destroy(&tree);
    return said;
}

Test(xenlift, both_domains_see_the_device)
{
    cr_expect_str_eq(lint(spec0, 2), "");
    cr_expect_str_eq(lint(spec1, 2), "");
}

Test(xenlift, violations_of_a_live_registry)
{
    put(1, 2, B "/max-page-order", "many");
    put(2, 1, F "/ring-ref", "x");
    cr_expect_str_eq(lint(spec0, 2),
                     B "/max-page-order type\n" F "/ring-ref type\n");
    cr_expect_str_eq(lint(spec1, 2),
                     B "/max-page-order type\n" F "/ring-ref type\n");
    /* Permissions are part of the copy. */
    put(1, 2, B "/max-page-order", "9");
    put(2, 3, F "/ring-ref", "8");
    cr_expect_str_eq(lint(spec0, 2), F "/ring-ref permissions\n");
}

/* libxl removes the frontend of a destroyed guest and leaves a driver domain's
 * directory to that domain. */
Test(xenlift, left_over_backend)
{
    cr_assert_eq(hv_xs_rm(dom0, HV_XS_NONE, "/local/domain/2"), 0);
    cr_expect_str_eq(lint(spec0, 1), B "/frontend is-path\n");
}

Test(xenlift, model)
{
    const struct xenlift_options o = {.hv = spec0};
    json_t *domains, *web, *dev;

    put(2, 1, F "/state", "3");
    put(2, 1, F "/port", "\x1b[2J");
    cr_assert_eq(xenlift_model(&o, &domains), 0);
    web = json_array_get(domains, json_array_size(domains) - 1);
    cr_expect_eq(json_integer_value(json_object_get(web, "domid")), 2);
    cr_expect_str_eq(json_string_value(json_object_get(web, "name")), "web");
    cr_expect_str_eq(json_string_value(json_object_get(web, "uuid")),
                     "9d3c6f43-22f1-4b1c-8a59-5f40b2c7a6e1");
    dev = json_array_get(json_object_get(web, "devices"), 0);
    cr_assert(dev);
    cr_expect_eq(json_integer_value(json_object_get(dev, "backend")), 1);
    cr_expect_eq(json_integer_value(json_object_get(dev, "front_state")), 3);
    cr_expect_eq(json_integer_value(json_object_get(dev, "back_state")), 2);
    /* A guest does not speak to the terminal. */
    cr_expect_str_eq(json_string_value(json_object_get(
                         json_object_get(dev, "front"), "port")),
                     "?[2J");
    json_decref(domains);
}

Test(xenlift, nothing_to_read)
{
    const struct xenlift_options wrong[] = {
        {.hv = "local:/nonexistent"},
        {.hv = "vmware"},
        {.dump = "/nonexistent"},
    };
    struct xs_tree tree;
    size_t i;

    for (i = 0; i < ARRAY_SIZE(wrong); i++) {
        xs_tree_init(&tree);
        cr_expect_neq(xenlift_load(&wrong[i], &tree), 0);
        xs_tree_destroy(&tree);
    }
}
