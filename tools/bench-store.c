/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench-store: figures of the object store alone.
 *
 *     bench-store [--json] DIRECTORY
 *
 * makes a store in DIRECTORY (which must not exist or be empty; it is left
 * there), and measures putting, getting, and the rate of group commits.  Sizes
 * are small enough for the page cache: what is measured is the code and the
 * disk's flush, not the disk's throughput. */

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/clock.h"
#include "lib/util.h"
#include "lib/vlog.h"
#include "vafs-server/store/journal.h"
#include "vafs-server/store/store.h"

#define RECORD 65536
#define NODE 8192
#define N_RECORDS 4096
#define N_NODES 20000
#define COMMIT_NS (2 * NSEC_PER_SEC)

static struct store *store;
static struct store_id records[N_RECORDS], nodes[N_NODES];
static bool json, json_more;

static void
check(int error, const char *what)
{
    if (error) {
        fprintf(stderr, "bench-store: %s: %s\n", what, strerror(error));
        exit(EXIT_FAILURE);
    }
}

static void
report(const char *name, double value, const char *unit)
{
    if (json) {
        printf("%s{\"name\": \"%s\", \"unit\": \"%s\", \"value\": %.3f}",
               json_more ? ",\n " : "[", name, unit, value);
        json_more = true;
    } else {
        printf("%-44s %12.1f %s\n", name, value, unit);
    }
    fflush(stdout);
}

static double
seconds(uint64_t start)
{
    return (double) (clock_mono_ns() - start) / NSEC_PER_SEC;
}

/* Text-like bytes that zstd takes to about half; 'seed' makes them differ. */
static void
fill(uint8_t *p, size_t size, uint64_t seed, bool random)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15 + 1;

    for (size_t i = 0; i < size; i += 8) {
        uint64_t word;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        word = random ? x : (x & 0x0f0f0f0f0f0f0f0f) + 0x6161616161616161;
        memcpy(p + i, &word, 8);
    }
}

static void
put(const uint8_t *data, size_t size, uint8_t kind, unsigned flags,
    const struct store_id *base, struct store_id *ret)
{
    struct store_put p = {.data = data,
                          .size = size,
                          .kind = kind,
                          .format = 1,
                          .flags = flags,
                          .base = base};

    check(store_put(store, &p, NULL), "put");
    *ret = p.id;
}

static void
bench_put_records(const char *name, uint64_t seed, bool random, unsigned flags)
{
    static uint8_t data[RECORD];
    uint64_t ns = 0;

    for (int i = 0; i < N_RECORDS; i++) {
        uint64_t start;

        fill(data, sizeof data, seed + i, random);
        start = clock_mono_ns();
        put(data, sizeof data, STORE_DATA, flags, NULL, &records[i]);
        ns += clock_mono_ns() - start;
    }
    report(name, (double) N_RECORDS * RECORD / ns * 1e3, "MB/s");
}

static void
bench_put_again(uint64_t seed)
{
    static uint8_t data[RECORD];
    uint64_t ns = 0;

    for (int i = 0; i < N_RECORDS; i++) {
        uint64_t start;
        struct store_id id;

        fill(data, sizeof data, seed + i, true);
        start = clock_mono_ns();
        put(data, sizeof data, STORE_DATA, 0, NULL, &id);
        ns += clock_mono_ns() - start;
    }
    report("put 64 KiB that is there already", (double) ns / N_RECORDS / 1e3,
           "us");
}

static void
bench_put_nodes(void)
{
    static uint8_t data[NODE];
    struct store_stats before, after;
    uint64_t ns = 0;

    fill(data, sizeof data, 99, false);
    store_get_stats(store, &before);
    for (int i = 0; i < N_NODES; i++) {
        uint64_t start = clock_mono_ns();

        memcpy(data + i * 40 % (NODE - 8), &i, sizeof i);
        put(data, sizeof data, STORE_NODE, 0, i ? &nodes[i - 1] : NULL,
            &nodes[i]);
        ns += clock_mono_ns() - start;
    }
    store_get_stats(store, &after);
    report("put 8 KiB node with its predecessor as base",
           (double) ns / N_NODES / 1e3, "us");
    report("  stored for each",
           (double) (after.put_stored_bytes - before.put_stored_bytes) /
               N_NODES,
           "bytes");
}

static void
bench_get(const char *name, const struct store_id *ids, int n, uint8_t kind)
{
    uint64_t start = clock_mono_ns();

    for (int i = 0; i < n; i++) {
        struct object *object;

        check(store_get(store, &ids[(i * 7919) % n], kind, &object), "get");
        object_unref(object);
    }
    report(name, seconds(start) / n * 1e6, "us");
}

static void
bench_get_range(void)
{
    uint64_t start = clock_mono_ns();
    uint8_t page[4096];

    for (int i = 0; i < N_RECORDS; i++) {
        size_t n;

        check(store_get_range(store, &records[(i * 7919) % N_RECORDS],
                              STORE_DATA, (size_t) (i % 16) * 4096, page,
                              sizeof page, &n),
              "get range");
    }
    report("get 4 KiB of a 64 KiB record", seconds(start) / N_RECORDS * 1e6,
           "us");
}

/* Group commit. */

struct committer {
    pthread_t thread;
    uint64_t until, n, ns_max;
};

static void *
commit_thread(void *committer_)
{
    struct committer *c = committer_;
    uint8_t body[256];
    struct iovec iov = {.iov_base = body, .iov_len = sizeof body};

    memset(body, 'x', sizeof body);
    while (clock_mono_ns() < c->until) {
        uint64_t lsn, start = clock_mono_ns(), ns;
        int error = journal_append(store_journal(store), 1, &iov, 1, 0, &lsn);

        if (error == ENOBUFS) {
            struct store_root root;

            memset(&root, 0, sizeof root);
            root.journal_tail = journal_durable(store_journal(store));
            error = store_set_root(store, &root);
            check(error == EINVAL ? 0 : error, "set root");
            continue;
        }
        check(error, "append");
        check(journal_commit(store_journal(store), lsn), "commit");
        ns = clock_mono_ns() - start;
        c->ns_max = MAX(c->ns_max, ns);
        c->n++;
    }
    return NULL;
}

static void
bench_commit(int n_threads)
{
    struct committer *c = calloc(n_threads, sizeof *c);
    struct store_stats before, after;
    uint64_t n = 0, ns_max = 0, until = clock_mono_ns() + COMMIT_NS;
    char name[64];

    check(c ? 0 : ENOMEM, "commit");
    store_get_stats(store, &before);
    for (int i = 0; i < n_threads; i++) {
        c[i].until = until;
        check(pthread_create(&c[i].thread, NULL, commit_thread, &c[i]),
              "thread");
    }
    for (int i = 0; i < n_threads; i++) {
        pthread_join(c[i].thread, NULL);
        n += c[i].n;
        ns_max = MAX(ns_max, c[i].ns_max);
    }
    store_get_stats(store, &after);
    snprintf(name, sizeof name, "commits of 256 bytes, %d threads", n_threads);
    report(name, (double) n / COMMIT_NS * 1e9, "1/s");
    snprintf(name, sizeof name, "  fdatasyncs, %d threads", n_threads);
    report(name,
           (double) (after.n_journal_syncs - before.n_journal_syncs) /
               COMMIT_NS * 1e9,
           "1/s");
    snprintf(name, sizeof name, "  longest, %d threads", n_threads);
    report(name, ns_max / 1e3, "us");
    free(c);
}

static int
ignore_record(void *aux, const struct journal_record *r)
{
    return 0;
}

static void
bench_reopen(const char *dir, const struct store_options *o)
{
    struct store_stats stats;
    uint64_t start, n;

    store_abandon(store);
    start = clock_mono_ns();
    check(store_open(dir, 0, o, &store), "open");
    report("open after a crash", seconds(start) * 1e3, "ms");
    start = clock_mono_ns();
    check(journal_replay(store_journal(store), ignore_record, NULL, &n),
          "replay");
    store_get_stats(store, &stats);
    report("replay of the journal", seconds(start) * 1e3, "ms");
    report("  records", (double) n, "");
    start = clock_mono_ns();
    check(store_rebuild_index(store), "rebuild");
    report("index built anew", seconds(start) * 1e3, "ms");
    start = clock_mono_ns();
    check(store_verify(store, NULL, NULL, NULL), "verify");
    report("verify", (double) stats.segment_bytes / seconds(start) / 1e6,
           "MB/s");
    start = clock_mono_ns();
    check(store_close(store), "close");
    report("close", seconds(start) * 1e3, "ms");
}

int
main(int argc, char *argv[])
{
    static const struct option longopts[] = {
        {"json", no_argument, NULL, 'j'},
        {NULL, 0, NULL, 0},
    };
    struct store_options o;
    const char *dir;
    uint64_t start;
    int c;

    vlog_init("bench-store");
    while ((c = getopt_long(argc, argv, "", longopts, NULL)) >= 0) {
        json |= c == 'j';
        if (c == '?') {
            return EXIT_FAILURE;
        }
    }
    if (argc - optind != 1) {
        fprintf(stderr, "usage: bench-store [--json] DIRECTORY\n");
        return EXIT_FAILURE;
    }
    dir = argv[optind];
    store_options_init(&o, 256u << 20);
    check(store_create(dir, &o), dir);
    check(store_open(dir, 0, &o, &store), dir);
    check(journal_replay(store_journal(store), NULL, NULL, NULL), "replay");

    bench_put_records("put 64 KiB, compressible, zstd-3", 0, false, 0);
    bench_put_records("put 64 KiB, compressible, stored raw", 1 << 20, false,
                      STORE_PUT_RAW);
    bench_put_records("put 64 KiB, random", 2 << 20, true, 0);
    bench_put_again(2 << 20);
    start = clock_mono_ns();
    check(store_sync(store), "sync");
    report("sync of these", seconds(start) * 1e3, "ms");
    bench_get("get 64 KiB, raw", records, N_RECORDS, STORE_DATA);
    bench_put_records("put 64 KiB, compressible, once more", 3 << 20, false,
                      0);
    bench_get("get 64 KiB, zstd", records, N_RECORDS, STORE_DATA);
    bench_get_range();
    bench_put_nodes();
    bench_get("get 8 KiB node, cached", nodes + N_NODES - 1000, 1000,
              STORE_NODE);
    bench_get("get 8 KiB node, cold or not", nodes, N_NODES, STORE_NODE);
    bench_commit(1);
    bench_commit(4);
    bench_commit(16);
    bench_commit(64);
    bench_reopen(dir, &o);
    if (json) {
        printf("]\n");
    }
    return EXIT_SUCCESS;
}
