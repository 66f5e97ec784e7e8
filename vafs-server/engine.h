/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The floors of vafs-server put on top of each other: store, catalogue, view
 * and 9P server in one process.  vafsd runs it on its loop; the vafs command
 * runs it on a thread, to work on a closed store as it works on a server. */
#ifndef VAFS_ENGINE_H
#define VAFS_ENGINE_H 1

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/util.h"

struct catalogue;
struct file_layer;
struct loop;
struct server;
struct store;
struct view;

#define ENGINE_DEFAULT_MEMORY (UINT64_C(256) << 20)

struct engine_options {
    uint64_t memory;            /* Bytes; 0: ENGINE_DEFAULT_MEMORY. */
    unsigned int checkpoint_ms; /* 0: the catalogue's default. */
    bool read_only;
    struct file_layer *files; /* For fault injection; or NULL. */
};

struct engine {
    struct store *store;
    struct catalogue *catalogue;
    struct view *view;
    struct server *server;
};

/* Makes a store with an empty branch 'main' in 'dir'.  On failure
 * '*ret_reason' is a sentence. */
int engine_init(const char *dir, const char **ret_reason) NODISCARD;

/* Opens the store in 'dir' and serves it on 'loop' (nothing listens yet:
 * server_listen()). */
int
engine_open(struct engine *, struct loop *, const char *dir,
            const struct engine_options *, const char **ret_reason) NODISCARD;

/* Ends sessions, makes the last checkpoint, closes.  Idempotent.  Returns the
 * first error; what was fsynced is safe in any case. */
int engine_close(struct engine *);

/* Checks the whole store: objects (if 'read_data' is false only those of
 * trees), trees, counters.  Blocks; for any thread.  'report' gets a sentence
 * for each thing wrong, 'progress' the part that is done, in 1/1000.
 * '*ret_result' gets figures.  Returns 0 if it could look at everything,
 * whatever it found: "errors" in the result. */
struct engine_verify_cbs {
    void (*report)(const char *message, void *aux);
    void (*progress)(const char *phase, uint64_t done, uint64_t total,
                     void *aux);
    void *aux;
};
int
engine_verify(struct engine *, bool read_data,
              const struct engine_verify_cbs *, json_t **ret_result) NODISCARD;

/* All figures for "stats". */
json_t *engine_stats_json(struct engine *);

/* What an errno of opening a store means, and what to do. */
const char *engine_explain(int error);

#endif /* vafs-server/engine.h */
