/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Puts the floors of vafs-server on top of each other (see engine.h). */

#include "vafs-server/engine.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/vlog.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/ninep/server.h"
#include "vafs-server/store/journal.h"
#include "vafs-server/store/store.h"
#include "vafs-server/view/view.h"

const char *
engine_explain(int error)
{
    switch (error) {
    case ENOENT:
        return "there is no store: make one with 'vafs init DIR'";
    case EBUSY:
        return "another process has the store open: if it is vafsd, talk to "
               "it with --run-dir instead of --store";
    case EEXIST:
        return "there is a store already";
    case ENOTEMPTY:
        return "the directory is not empty";
    case EPROTONOSUPPORT:
        return "the store was written by a newer version";
    case EBADMSG:
        return "the store is damaged: 'vafs verify' says where";
    case EACCES:
    case EPERM:
        return "no permission";
    default:
        return strerror(error);
    }
}

int
engine_init(const char *dir, const char **ret_reason)
{
    struct store_options options;
    struct store *store;
    int error, e;

    store_options_init(&options, ENGINE_DEFAULT_MEMORY);
    error = store_create(dir, &options);
    if (!error) {
        error = store_open(dir, 0, &options, &store);
    }
    if (!error) {
        /* The journal, empty as it is, takes nothing before this. */
        error = journal_replay(store_journal(store), NULL, NULL, NULL);
        if (!error) {
            error = catalogue_create(store, geteuid(), getegid());
        }
        e = store_close(store);
        error = error ? error : e;
    }
    if (error) {
        *ret_reason = engine_explain(error);
    }
    return error;
}

int
engine_open(struct engine *engine, struct loop *loop, const char *dir,
            const struct engine_options *options, const char **ret_reason)
{
    uint64_t memory =
        options->memory ? options->memory : ENGINE_DEFAULT_MEMORY;
    struct store_options so;
    struct catalogue_options co = {
        .memory = memory,
        .checkpoint_ms = options->checkpoint_ms,
        .read_only = options->read_only,
    };
    struct server_options no = {.memory = memory / 8};
    int error;

    memset(engine, 0, sizeof *engine);
    /* Many threads, each with an arena of its own, would hold much memory
     * that nobody uses. */
    mallopt(M_ARENA_MAX, 2);
    store_options_init(&so, memory);
    so.files = options->files;
    error = store_open(dir, options->read_only ? STORE_READ_ONLY : 0, &so,
                       &engine->store);
    if (!error) {
        error = catalogue_open(engine->store, &co, &engine->catalogue);
    }
    if (!error) {
        error = view_create(engine->catalogue, &engine->view);
    }
    if (!error) {
        error = server_create(loop, engine->view, &no, &engine->server);
    }
    if (error) {
        *ret_reason = engine_explain(error);
        engine_close(engine);
    }
    return error;
}

int
engine_close(struct engine *engine)
{
    int error = 0, e;

    server_destroy(engine->server);
    view_destroy(engine->view);
    if (engine->catalogue) {
        error = catalogue_close(engine->catalogue);
    }
    if (engine->store) {
        e = store_close(engine->store);
        error = error ? error : e;
    }
    memset(engine, 0, sizeof *engine);
    return error;
}

/* Verification. */

struct verify {
    const struct engine_verify_cbs *cbs;
    uint64_t n_errors, n_objects, bytes;
};

static bool
store_progress_cb(void *v_, const struct store_progress *p)
{
    struct verify *v = v_;

    v->n_objects = p->n_objects;
    v->bytes = p->done;
    v->cbs->progress("objects", p->done, p->total, v->cbs->aux);
    return true;
}

static void
store_error_cb(void *v_, const struct store_error *e)
{
    struct verify *v = v_;
    char hex[STORE_ID_HEX_SIZE], text[256];

    v->n_errors++;
    store_id_to_hex(&e->id, hex);
    snprintf(text, sizeof text, "segment %016llx offset %u object %.16s: %s",
             (unsigned long long) e->pack, e->offset, hex, e->what);
    v->cbs->report(text, v->cbs->aux);
}

static void
tree_report_cb(const char *message, void *v_)
{
    struct verify *v = v_;

    v->cbs->report(message, v->cbs->aux);
}

static void
tree_progress_cb(const struct branch_verify_stats *st, void *v_)
{
    struct verify *v = v_;

    v->cbs->progress("trees", st->n_nodes, 0, v->cbs->aux);
}

int
engine_verify(struct engine *engine, bool read_data,
              const struct engine_verify_cbs *cbs, json_t **ret_result)
{
    struct branch_verify_stats st = {.n_nodes = 0};
    struct verify v = {.cbs = cbs};
    json_t *json;
    int error =
        store_verify(engine->store, store_progress_cb, store_error_cb, &v);

    if (error && error != EBADMSG) {
        return error;
    }
    /* The objects' content has just been checked. */
    error = branch_verify(engine->catalogue, read_data, tree_report_cb,
                          tree_progress_cb, &v, &st);
    if (error) {
        return error;
    }
    json = json_pack(
        "{sI sI sI sI sI sI sI sI}", "errors",
        (json_int_t) (v.n_errors + st.n_errors), "objects",
        (json_int_t) v.n_objects, "bytes", (json_int_t) v.bytes, "versions",
        (json_int_t) st.n_versions, "nodes", (json_int_t) st.n_nodes,
        "records", (json_int_t) st.n_records, "inodes",
        (json_int_t) st.n_inodes, "entries", (json_int_t) st.n_entries);
    if (!json) {
        return ENOMEM;
    }
    *ret_result = json;
    return 0;
}

/* Figures. */

static json_t *
store_json(struct store *store)
{
    struct store_stats s;
    struct store_space space = {0, 0};

    store_get_stats(store, &s);
    if (store_space(store, &space)) {
        /* Zeros say that it is not known. */
    }
#define I(NAME) #NAME, (json_int_t) s.NAME
    return json_pack(
        "{sI sI sI sI sI sI sI sI sI sI sI sI sI sI sI sI sI sI sI sI sI sI "
        "sI sI sI}",
        I(n_segments), I(segment_bytes), I(n_runs), I(index_bytes),
        I(n_index_entries), I(journal_used), I(journal_size), I(journal_max),
        I(n_puts), I(n_put_existed), I(n_put_delta), I(put_plain_bytes),
        I(put_stored_bytes), I(n_gets), I(n_get_hits), I(n_get_bytes),
        I(n_damaged), I(n_syncs), I(n_commits), I(n_journal_syncs),
        I(node_cache_bytes), I(record_cache_bytes), I(broken), "disk_total",
        (json_int_t) space.total, "disk_available",
        (json_int_t) space.available);
#undef I
}

struct branches {
    struct engine *engine;
    json_t *array;
};

static bool
branch_json_cb(const char *name, uint64_t id, void *aux_)
{
    struct branches *aux = aux_;
    struct branch_stats s;
    struct branch *branch;

    if (branch_open(aux->engine->catalogue, name, &branch)) {
        return true;
    }
    branch_get_stats(branch, &s);
    branch_close(branch);
#define I(NAME) #NAME, (json_int_t) s.NAME
    json_array_append_new(
        aux->array,
        json_pack("{ss sI sI sI sI sI sI sI sI sI sI sI sI sI}", "name", name,
                  "id", (json_int_t) id, I(n_inodes), I(stored_size),
                  I(dirty_keys), I(dirty_size), I(frozen_layers),
                  I(open_inodes), I(n_orphans), I(n_changes), I(n_fsyncs),
                  I(n_checkpoints), I(sequence), I(tree_height)));
#undef I
    return true;
}

json_t *
engine_stats_json(struct engine *engine)
{
    struct branches aux = {engine, json_array()};
    json_t *json = json_object();

    if (catalogue_list(engine->catalogue, branch_json_cb, &aux)) {
        vlog_warn("cannot list the branches");
    }
    json_object_set_new(json, "server", server_stats_json(engine->server));
    json_object_set_new(json, "store", store_json(engine->store));
    json_object_set_new(json, "branches", aux.array);
    return json;
}
