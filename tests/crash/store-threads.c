/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threads use one store at once for some seconds; to be run under TSan.
 *
 *     store-threads [SECONDS]
 *
 * Workers put, get, read ranges, log and commit; one thread sets roots, one
 * verifies and takes figures.  Then the store is left without a close, opened
 * again, and must hold all that was committed. */

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/clock.h"
#include "lib/util.h"
#include "lib/vlog.h"
#include "tests/unit/store-helper.h"

#define N_WORKERS 4
#define N_CONTENTS 400

static struct store *store;
static uint64_t until;
static uint64_t n_committed, n_objects; /* Atomic. */

static void
check(int error, const char *what)
{
    if (error) {
        printf("not ok - store-threads: %s: %s\n", what, strerror(error));
        exit(EXIT_FAILURE);
    }
}

static void
commit(unsigned n)
{
    struct iovec iov = {.iov_base = &n, .iov_len = sizeof n};
    uint64_t lsn;
    int error;

    error = journal_append(store_journal(store), 1, &iov, 1, 0, &lsn);
    if (error == ENOBUFS) {
        return; /* The other thread will make room. */
    }
    check(error, "append");
    check(journal_commit(store_journal(store), lsn), "commit");
    __atomic_fetch_add(&n_committed, 1, __ATOMIC_RELAXED);
}

static void *
worker(void *seed_)
{
    unsigned seed = *(unsigned *) seed_;
    struct store_needs needs = {.n = 0};

    while (clock_mono_ns() < until) {
        unsigned n = (seed = seed * 1103515245 + 12345) >> 8;
        struct store_id id;

        n %= N_CONTENTS;
        check(store_helper_put(store, n, &needs, &id), "put");
        check(store_helper_check(store, n, &id), "check");
        if (seed >> 28 == 3) {
            check(store_sync_needs(store, &needs), "sync");
        }
        if (seed >> 28 < 8) {
            commit(n);
        }
        __atomic_fetch_add(&n_objects, 1, __ATOMIC_RELAXED);
    }
    store_needs_clear(&needs);
    return NULL;
}

static void *
root_setter(void *aux)
{
    while (clock_mono_ns() < until) {
        struct store_root root;
        int error;

        memset(&root, 0, sizeof root);
        check(store_helper_put(store, 7, NULL, &root.id), "put");
        root.journal_tail = journal_head(store_journal(store));
        error = store_set_root(store, &root);
        check(error, "set root");
        store_get_root(store, &root);
    }
    return NULL;
}

static void *
looker(void *aux)
{
    while (clock_mono_ns() < until) {
        struct store_stats stats;
        uint64_t used, limit;

        store_get_stats(store, &stats);
        journal_usage(store_journal(store), &used, &limit);
        check(store_reserve(store, STORE_CLASS_DATA, 50000), "reserve");
        check(store_helper_verify(store, true), "verify");
        check(store_rebuild_index(store), "rebuild");
        store_unreserve(store, STORE_CLASS_DATA, 50000);
    }
    return NULL;
}

int
main(int argc, char *argv[])
{
    unsigned seeds[N_WORKERS];
    pthread_t threads[N_WORKERS + 2];
    struct memfs *fs = memfs_create();
    struct store_options o;
    uint64_t head;

    vlog_init("store-threads");
    store_helper_options(&o, fs);
    o.node_cache = o.record_cache = 100000;
    check(store_create("mem", &o), "create");
    check(store_open("mem", 0, &o, &store), "open");
    check(journal_replay(store_journal(store), NULL, NULL, NULL), "replay");
    until = clock_mono_ns() + (argc > 1 ? atoi(argv[1]) : 5) * NSEC_PER_SEC;
    for (unsigned i = 0; i < N_WORKERS; i++) {
        seeds[i] = i + 1;
        check(pthread_create(&threads[i], NULL, worker, &seeds[i]), "thread");
    }
    check(pthread_create(&threads[N_WORKERS], NULL, root_setter, NULL),
          "thread");
    check(pthread_create(&threads[N_WORKERS + 1], NULL, looker, NULL),
          "thread");
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    head = journal_head(store_journal(store));
    store_abandon(store);

    check(store_open("mem", 0, &o, &store), "open again");
    check(journal_replay(store_journal(store), NULL, NULL, NULL), "replay");
    /* All appends were committed, so the journal ends where it did. */
    check(journal_head(store_journal(store)) == head ? 0 : EILSEQ, "head");
    check(store_helper_verify(store, true), "verify");
    check(store_close(store), "close");
    memfs_destroy(fs);
    printf("ok - store-threads: %llu puts, %llu commits\n",
           (unsigned long long) n_objects, (unsigned long long) n_committed);
    return n_objects && n_committed ? EXIT_SUCCESS : EXIT_FAILURE;
}
