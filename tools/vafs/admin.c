/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vafs init, verify, stats, checkpoint: the store as a whole. */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/ctl.h"
#include "lib/loop.h"
#include "tools/vafs/vafs.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/engine.h"
#include "vafs-server/store/store.h"

int
vafs_cmd_init(const struct vafs_options *options, int argc, char *argv[])
{
    const char *dir = argc == 2 ? argv[1] : options->store;
    const char *reason = "";

    if (argc > 2 || !dir) {
        return VAFS_USAGE;
    }
    if (engine_init(dir, &reason)) {
        vafs_error("%s: %s", dir, reason);
        return VAFS_FAILED;
    }
    if (options->json) {
        vafs_print_json(json_pack("{ss}", "store", dir));
    } else if (!options->quiet) {
        printf("%s is an empty store with branch main.  Serve it with "
               "'vafsd %s'.\n",
               dir, dir);
    }
    return VAFS_OK;
}

/* Calls a running vafsd.  Prints and returns NULL on failure. */
static json_t *
call(const struct vafs_options *options, const char *method,
     void (*progress)(const json_t *, void *aux), void *aux)
{
    const char *argv[] = {method};
    char path[4096];
    char *text = NULL;
    json_t *result = NULL;
    int error;

    if (!vafs_ctl_path(options, path, sizeof path)) {
        return NULL;
    }
    error = ctl_call(path, 1, argv, progress, aux, &result, &text);
    if (error) {
        vafs_error("%s: %s", method, text ? text : strerror(error));
        free(text);
        return NULL;
    }
    return result;
}

/* Opens a closed store.  'read_only' leaves every byte as it is. */
static bool
open_engine(const struct vafs_options *options, bool read_only,
            struct loop **loop, struct engine *engine)
{
    struct engine_options eo = {.read_only = read_only};
    const char *reason = "out of memory";
    int error = loop_create(loop);

    if (!error) {
        error = engine_open(engine, *loop, options->store, &eo, &reason);
        if (error) {
            loop_destroy(*loop);
        }
    }
    if (error) {
        vafs_error("%s: %s", options->store, reason);
    }
    return !error;
}

static bool
close_engine(struct loop *loop, struct engine *engine)
{
    int error = engine_close(engine);

    loop_destroy(loop);
    if (error) {
        vafs_error("closing the store failed: %s", strerror(error));
    }
    return !error;
}

/* verify. */

struct verify {
    struct vafs_progress progress;
    uint64_t n_reported;
};

static void
show_progress(struct verify *v, const char *phase, uint64_t done,
              uint64_t total)
{
    if (total) {
        vafs_progress_show(&v->progress, "%s %.0f %%", phase,
                           100.0 * done / total);
    } else {
        vafs_progress_show(&v->progress, "%s %llu", phase,
                           (unsigned long long) done);
    }
}

static void
remote_progress(const json_t *json, void *v)
{
    show_progress(v, json_string_value(json_object_get(json, "phase")),
                  json_integer_value(json_object_get(json, "done")),
                  json_integer_value(json_object_get(json, "total")));
}

static void
local_progress(const char *phase, uint64_t done, uint64_t total, void *v)
{
    show_progress(v, phase, done, total);
}

static void
local_report(const char *message, void *v_)
{
    struct verify *v = v_;

    vafs_progress_end(&v->progress);
    vafs_error("%s", message);
    v->n_reported++;
}

static int
rebuild(const char *dir)
{
    struct store_options so;
    struct store *store;
    int error, e;

    store_options_init(&so, ENGINE_DEFAULT_MEMORY);
    error = store_open(dir, STORE_REBUILD, &so, &store);
    if (!error) {
        e = store_close(store);
        error = error ? error : e;
    }
    if (error) {
        vafs_error("%s: cannot rebuild the index: %s", dir,
                   engine_explain(error));
    }
    return error;
}

static json_t *
verify_offline(const struct vafs_options *options, struct verify *v)
{
    struct engine_verify_cbs cbs = {local_report, local_progress, v};
    struct engine engine;
    struct loop *loop;
    json_t *result = NULL;
    int error;

    if (!open_engine(options, true, &loop, &engine)) {
        return NULL;
    }
    error = engine_verify(&engine, true, &cbs, &result);
    vafs_progress_end(&v->progress);
    if (error) {
        vafs_error("%s: cannot be read: %s", options->store, strerror(error));
    }
    close_engine(loop, &engine);
    return error ? NULL : result;
}

static json_int_t
integer(const json_t *json, const char *key)
{
    return json_integer_value(json_object_get(json, key));
}

int
vafs_cmd_verify(const struct vafs_options *options, int argc, char *argv[])
{
    static const struct option long_options[] = {
        {"rebuild", no_argument, NULL, 'r'}, {NULL, 0, NULL, 0}};
    struct verify v = {.n_reported = 0};
    bool with_rebuild = false;
    json_t *result, *message;
    json_int_t n_errors;
    size_t i;
    int c;

    while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (c != 'r') {
            return VAFS_USAGE;
        }
        with_rebuild = true;
    }
    if (optind != argc) {
        return VAFS_USAGE;
    }
    if (with_rebuild && !vafs_is_offline(options)) {
        vafs_error("--rebuild needs a closed store: --store DIR");
        return VAFS_USAGE;
    }
    if (with_rebuild && rebuild(options->store)) {
        return VAFS_FAILED;
    }
    vafs_progress_start(&v.progress, options, "verifying:");
    result = vafs_is_offline(options)
                 ? verify_offline(options, &v)
                 : call(options, "verify", remote_progress, &v);
    vafs_progress_end(&v.progress);
    if (!result) {
        return VAFS_FAILED;
    }
    n_errors = integer(result, "errors");
    if (options->json) {
        vafs_print_json(result);
        return n_errors ? VAFS_FAILED : VAFS_OK;
    }
    json_array_foreach(json_object_get(result, "messages"), i, message)
    {
        vafs_error("%s", json_string_value(message));
    }
    printf("%lld objects (%lld bytes), %lld versions, %lld nodes, %lld "
           "inodes: ",
           (long long) integer(result, "objects"),
           (long long) integer(result, "bytes"),
           (long long) integer(result, "versions"),
           (long long) integer(result, "nodes"),
           (long long) integer(result, "inodes"));
    if (n_errors) {
        printf("%lld ERRORS\n", (long long) n_errors);
    } else {
        printf("clean\n");
    }
    json_decref(result);
    return n_errors ? VAFS_FAILED : VAFS_OK;
}

/* stats. */

static void
print_table(const char *title, const json_t *object)
{
    const char *key;
    json_t *value;

    printf("%s\n", title);
    json_object_foreach((json_t *) object, key, value)
    {
        if (json_is_string(value)) {
            printf("  %-22s %s\n", key, json_string_value(value));
        } else if (json_is_integer(value)) {
            printf("  %-22s %lld\n", key,
                   (long long) json_integer_value(value));
        }
    }
}

int
vafs_cmd_stats(const struct vafs_options *options, int argc,
               char *argv[] UNUSED)
{
    struct engine engine;
    struct loop *loop;
    json_t *json, *branch;
    size_t i;

    if (argc != 1) {
        return VAFS_USAGE;
    }
    if (vafs_is_offline(options)) {
        if (!open_engine(options, true, &loop, &engine)) {
            return VAFS_FAILED;
        }
        json = engine_stats_json(&engine);
        close_engine(loop, &engine);
    } else {
        json = call(options, "stats", NULL, NULL);
    }
    if (!json) {
        return VAFS_FAILED;
    }
    if (options->json) {
        vafs_print_json(json);
        return VAFS_OK;
    }
    print_table("server", json_object_get(json, "server"));
    print_table("store", json_object_get(json, "store"));
    json_array_foreach(json_object_get(json, "branches"), i, branch)
    {
        print_table("branch", branch);
    }
    json_decref(json);
    return VAFS_OK;
}

/* checkpoint. */

int
vafs_cmd_checkpoint(const struct vafs_options *options, int argc,
                    char *argv[] UNUSED)
{
    struct engine engine;
    struct loop *loop;
    json_t *json;
    int error;

    if (argc != 1) {
        return VAFS_USAGE;
    }
    if (vafs_is_offline(options)) {
        if (!open_engine(options, false, &loop, &engine)) {
            return VAFS_FAILED;
        }
        error = catalogue_checkpoint(engine.catalogue);
        if (error) {
            vafs_error("checkpoint: %s", strerror(error));
        }
        return close_engine(loop, &engine) && !error ? VAFS_OK : VAFS_FAILED;
    }
    json = call(options, "checkpoint", NULL, NULL);
    if (!json) {
        return VAFS_FAILED;
    }
    if (options->json) {
        vafs_print_json(json);
    } else {
        json_decref(json);
    }
    return VAFS_OK;
}
