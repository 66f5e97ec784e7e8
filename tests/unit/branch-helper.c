/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See branch-helper.h. */

#include "tests/unit/branch-helper.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/vlog.h"
#include "vafs-server/store/journal.h"

const struct file_cred fixture_cred = {1000, 100};

static void
must(int error, const char *what)
{
    if (error) {
        fprintf(stderr, "%s: %s\n", what, strerror(error));
        abort();
    }
}

void
fixture_create(struct fixture *fx, uint32_t record_size)
{
    memset(fx, 0, sizeof *fx);
    must(vlog_set_level("warn"), "vlog");
    fx->fs = memfs_create();
    store_options_init(&fx->options, 8 << 20);
    fx->options.record_size = record_size;
    fx->options.segment_size = 1 << 20;
    fx->options.journal_chunk = 65536;
    fx->options.journal_max = 64 * 65536;
    fx->options.reserve = 65536;
    fx->options.files = memfs_layer(fx->fs);
    fx->cat_options.memory = 64 << 20;
    fx->cat_options.no_thread = true;
    must(store_create("mem", &fx->options), "store_create");
    must(store_open("mem", STORE_NO_THREAD, &fx->options, &fx->store),
         "store_open");
    must(journal_replay(store_journal(fx->store), NULL, NULL, NULL),
         "journal_replay");
    must(catalogue_create(fx->store, 0, 0), "catalogue_create");
    must(store_close(fx->store), "store_close");
    must(fixture_open(fx), "open");
}

int
fixture_open(struct fixture *fx)
{
    int error;

    fx->store = NULL;
    fx->cat = NULL;
    fx->branch = NULL;
    fx->root = NULL;
    error = store_open("mem", STORE_NO_THREAD, &fx->options, &fx->store);
    if (!error) {
        error = catalogue_open(fx->store, &fx->cat_options, &fx->cat);
    }
    if (!error) {
        error = branch_open(fx->cat, "main", &fx->branch);
    }
    if (!error) {
        error = file_root(fx->branch, &fx->root);
    }
    return error;
}

int
fixture_close(struct fixture *fx)
{
    int error, e;

    file_unref(fx->root);
    branch_close(fx->branch);
    error = catalogue_close(fx->cat);
    e = store_close(fx->store);
    fx->store = NULL;
    return error ? error : e;
}

void
fixture_kill(struct fixture *fx)
{
    struct memfs *copy = memfs_clone(fx->fs);
    int error;

    file_unref(fx->root);
    branch_close(fx->branch);
    /* Whatever closing writes goes to the old one. */
    error = catalogue_close(fx->cat);
    (void) error;
    store_abandon(fx->store);
    fx->store = NULL;
    memfs_destroy(fx->fs);
    fx->fs = copy;
    fx->options.files = memfs_layer(copy);
}

void
fixture_destroy(struct fixture *fx)
{
    if (fx->store) {
        fixture_kill(fx);
    }
    memfs_destroy(fx->fs);
}

static void
report(const char *message, void *aux)
{
    fprintf(stderr, "# verify: %s\n", message);
}

uint64_t
fixture_verify(struct fixture *fx)
{
    struct branch_verify_stats stats;
    int error = branch_verify(fx->cat, true, report, NULL, NULL, &stats);

    if (error) {
        fprintf(stderr, "# verify: %s\n", strerror(error));
        return UINT64_MAX;
    }
    return stats.n_errors;
}

int
fixture_find(struct fixture *fx, const char *path, struct file **ret)
{
    struct file *at = file_ref(fx->root), *next;

    while (*path) {
        size_t n = strcspn(path, "/");
        int error = file_lookup(at, path, n, &next);

        file_unref(at);
        if (error) {
            return error;
        }
        at = next;
        path += n;
        path += *path == '/';
    }
    *ret = at;
    return 0;
}

uint32_t
fixture_random(uint64_t *state)
{
    *state =
        *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}
