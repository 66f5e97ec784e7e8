/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object store, function by function. */

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "lib/util.h"
#include "tests/unit/store-helper.h"
#include "vafs-server/store/crc32c.h"
#include "vafs-server/store/format.h"

static struct memfs *fs;
static struct store_options options;

static void
setup(void)
{
    fs = memfs_create();
    store_helper_options(&options, fs);
    cr_assert_eq(store_create("mem", &options), 0);
}

static void
teardown(void)
{
    memfs_destroy(fs);
}

static struct store *
open_store(unsigned flags)
{
    struct store *store;

    cr_assert_eq(store_open("mem", flags, &options, &store), 0);
    if (!(flags & STORE_READ_ONLY)) {
        cr_assert_eq(journal_replay(store_journal(store), NULL, NULL, NULL),
                     0);
    }
    return store;
}

TestSuite(store, .init = setup, .fini = teardown, .timeout = 120);

Test(store, crc32c_known_value)
{
    cr_assert_eq(crc32c(0, "123456789", 9), 0xe3069283);
    cr_assert_eq(crc32c_portable(0, "123456789", 9), 0xe3069283);
    cr_assert_eq(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
}

Test(store, hex_round_trip)
{
    struct store_id id, back;
    char hex[STORE_ID_HEX_SIZE];

    for (size_t i = 0; i < sizeof id.bytes; i++) {
        id.bytes[i] = (uint8_t) (i * 37);
    }
    store_id_to_hex(&id, hex);
    cr_assert_eq(store_id_from_hex(hex, &back), 0);
    cr_assert(store_id_equal(&id, &back));
    hex[5] = 'x';
    cr_assert_eq(store_id_from_hex(hex, &back), EINVAL);
    cr_assert_eq(store_id_from_hex("12", &back), EINVAL);
}

Test(store, create_refuses)
{
    struct store_options o = options;
    struct memfs *other = memfs_create();
    struct store *store;
    int file;

    cr_assert_eq(store_create("mem", &options), EEXIST);
    o.files = memfs_layer(other);
    cr_assert_eq(store_open("mem", 0, &o, &store), ENOENT);
    o.segment_size = 1;
    cr_assert_eq(store_create("mem", &o), EINVAL);
    o.segment_size = 65536;
    cr_assert_eq(
        o.files->ops->open(o.files, "x", FILE_WRITE | FILE_CREATE, &file), 0);
    o.files->ops->close(o.files, file);
    cr_assert_eq(store_create("mem", &o), ENOTEMPTY);
    memfs_destroy(other);
}

Test(store, double_open_is_busy)
{
    struct store *a = open_store(0), *b;

    cr_assert_eq(store_open("mem", 0, &options, &b), EBUSY);
    cr_assert_eq(store_open("mem", STORE_READ_ONLY, &options, &b), EBUSY);
    cr_assert_eq(store_close(a), 0);
    a = open_store(STORE_READ_ONLY);
    b = open_store(STORE_READ_ONLY);
    cr_assert_eq(store_close(a), 0);
    cr_assert_eq(store_close(b), 0);
}

/* Everything, several times over, with reopening by close, by crash of the
 * process, and with the index lost. */
Test(store, put_get_reopen)
{
    enum { N = 400 };
    static struct store_id ids[N];
    struct store *store = open_store(STORE_NO_THREAD);
    struct store_stats stats;

    for (unsigned n = 0; n < N; n++) {
        cr_assert_eq(store_helper_put(store, n, NULL, &ids[n]), 0);
        cr_assert_eq(store_helper_check(store, n, &ids[n]), 0);
    }
    store_get_stats(store, &stats);
    cr_assert_eq(stats.n_puts, N);
    cr_assert_gt(stats.n_segments, 4);
    cr_assert_gt(stats.n_put_delta, N / 4);
    cr_assert_gt(coverage_read("store_index_flush"), 0);
    cr_assert_gt(coverage_read("store_index_merge"), 0);
    cr_assert_gt(coverage_read("store_segment_sealed"), 0);
    for (int round = 0; round < 4; round++) {
        if (round == 1) {
            store_abandon(store);
            store = open_store(0);
        } else if (round == 2) {
            cr_assert_eq(store_close(store), 0);
            store = open_store(STORE_REBUILD);
        } else if (round == 3) {
            cr_assert_eq(store_close(store), 0);
            store = open_store(STORE_READ_ONLY);
        }
        for (unsigned n = 0; n < N; n++) {
            cr_assert_eq(store_helper_check(store, n, &ids[n]), 0,
                         "round %d n %u", round, n);
        }
        cr_assert_eq(store_helper_verify(store, true), 0);
    }
    cr_assert_eq(store_close(store), 0);
}

Test(store, put_twice_writes_nothing)
{
    struct store *store = open_store(0);
    struct store_put put = {
        .data = "hello", .size = 5, .kind = STORE_DATA, .format = 1};
    struct store_needs needs = {.n = 0};
    struct store_id first;
    uint64_t position;

    cr_assert_eq(store_put(store, &put, &needs), 0);
    cr_assert(!put.existed);
    cr_assert_eq(needs.n, 1);
    first = put.id;
    position = put.position;
    cr_assert_eq(store_sync_needs(store, &needs), 0);
    cr_assert_eq(needs.n, 0);
    cr_assert_eq(store_put(store, &put, &needs), 0);
    cr_assert(put.existed);
    cr_assert_eq(put.position, position);
    cr_assert(store_id_equal(&put.id, &first));
    cr_assert_eq(needs.n, 0, "it is durable");

    /* Kind and format are part of the name. */
    put.kind = STORE_NODE;
    cr_assert_eq(store_put(store, &put, &needs), 0);
    cr_assert(!put.existed);
    put.format = 2;
    cr_assert_eq(store_put(store, &put, &needs), 0);
    cr_assert(!put.existed);
    store_needs_clear(&needs);
    cr_assert_eq(store_close(store), 0);
}

Test(store, dedup_hit_that_is_not_durable_is_needed)
{
    struct store *store = open_store(0);
    struct store_needs a = {.n = 0}, b = {.n = 0};
    struct store_info info;
    struct store_id id;

    cr_assert_eq(store_helper_put(store, 9, &a, &id), 0);
    cr_assert_eq(store_helper_put(store, 9, &b, &id), 0);
    cr_assert_eq(b.n, 1);
    cr_assert_eq(store_has(store, &id, &info), 0);
    cr_assert(!info.durable);
    cr_assert_eq(store_sync_needs(store, &b), 0);
    cr_assert_eq(store_has(store, &id, &info), 0);
    cr_assert(info.durable);
    store_needs_clear(&a);

    /* The same after the process died and nothing was synced. */
    cr_assert_eq(store_helper_put(store, 25, &a, &id), 0);
    store_needs_clear(&a);
    store_abandon(store);
    store = open_store(0);
    cr_assert_eq(store_helper_put(store, 25, &b, &id), 0);
    cr_assert_eq(b.n, 1);
    store_needs_clear(&b);
    cr_assert_eq(store_close(store), 0);
}

Test(store, get_errors)
{
    struct store *store = open_store(0);
    struct store_id id, none;
    struct object *object;

    memset(&none, 7, sizeof none);
    cr_assert_eq(store_get(store, &none, 0, &object), ENOENT);
    cr_assert_eq(store_has(store, &none, NULL), ENOENT);
    cr_assert_eq(store_helper_put(store, 8, NULL, &id), 0);
    cr_assert_eq(store_get(store, &id, STORE_VERSION, &object), EBADMSG);
    cr_assert_eq(store_get_cached(store, &none, 0, &object), EAGAIN);
    cr_assert_eq(store_close(store), 0);
}

Test(store, get_batch)
{
    struct store *store = open_store(0);
    struct store_id ids[4];
    struct object *objects[4];
    int errors[4];

    memset(ids, 1, sizeof ids);
    cr_assert_eq(store_helper_put(store, 40, NULL, &ids[3]), 0);
    cr_assert_eq(store_helper_put(store, 50, NULL, &ids[1]), 0);
    cr_assert_eq(store_get_batch(store, ids, 4, 0, objects, errors), ENOENT);
    cr_assert_eq(errors[0], ENOENT);
    cr_assert_eq(errors[1], 0);
    cr_assert_eq(errors[2], ENOENT);
    cr_assert_eq(errors[3], 0);
    for (int i = 0; i < 4; i++) {
        object_unref(objects[i]);
    }
    cr_assert_eq(store_close(store), 0);
}

Test(store, ranges)
{
    struct store *store;
    struct store_put put = {.kind = STORE_DATA, .format = 1, .size = 65536};
    static uint8_t content[65536], part[65536];
    size_t n;

    for (size_t i = 0; i < sizeof content; i++) {
        content[i] = (uint8_t) (i >> 8 ^ i % 7);
    }
    put.data = content;
    options.record_cache = 0;
    store = open_store(0);
    for (int raw = 0; raw < 2; raw++) {
        content[0] = (uint8_t) raw;
        put.flags = raw ? STORE_PUT_RAW : 0;
        cr_assert_eq(store_put(store, &put, NULL), 0);
        for (size_t offset = 0; offset <= 65536; offset += 4093) {
            for (size_t size = 1; size < 65536; size = size * 5 + 1) {
                size_t want = MIN(size, 65536 - offset);

                memset(part, 0xee, sizeof part);
                cr_assert_eq(store_get_range(store, &put.id, STORE_DATA,
                                             offset, part, size, &n),
                             0);
                cr_assert_eq(n, want);
                cr_assert(!memcmp(part, content + offset, n));
            }
        }
        cr_assert_eq(
            store_get_range(store, &put.id, STORE_DATA, 70000, part, 10, &n),
            0);
        cr_assert_eq(n, 0);
    }
    cr_assert_eq(store_close(store), 0);
}

/* A chain of versions of one node: each is a difference from a full one. */
Test(store, deltas_are_one_step)
{
    struct store *store;
    struct store_put put = {.kind = STORE_NODE, .format = 1, .size = 8192};
    struct store_id base;
    struct store_stats stats;
    uint8_t content[8192];
    uint32_t x = 1;

    for (size_t i = 0; i < sizeof content; i++) {
        x = x * 1103515245 + 12345;
        content[i] = (uint8_t) (x >> 16) & 63;
    }
    put.data = content;
    options.node_cache = 0;
    store = open_store(0);
    for (unsigned i = 0; i < 200; i++) {
        for (unsigned j = 0; j < 16; j++) {
            content[40 * i + j] = (uint8_t) (i * 7 + j * j + 64);
        }
        put.base = i ? &base : NULL;
        cr_assert_eq(store_put(store, &put, NULL), 0);
        base = put.id;
    }
    store_get_stats(store, &stats);
    cr_assert_gt(stats.n_put_delta, 150);
    cr_assert_lt(stats.n_put_delta, 199, "new bases when a delta gets large");
    cr_assert_lt(stats.put_stored_bytes, stats.put_plain_bytes / 4);
    cr_assert_eq(store_helper_verify(store, true), 0);
    cr_assert_eq(store_close(store), 0);
}

Test(store, transient_vanishes)
{
    struct store *store = open_store(STORE_NO_THREAD);
    struct store_put put = {.data = "gone",
                            .size = 4,
                            .kind = STORE_DATA,
                            .format = 1,
                            .flags = STORE_PUT_TRANSIENT};
    struct store_needs needs = {.n = 0};
    struct object *object;

    cr_assert_eq(store_put(store, &put, &needs), 0);
    cr_assert_eq(needs.n, 0);
    cr_assert_eq(store_get(store, &put.id, 0, &object), 0);
    object_unref(object);
    put.flags = 0;
    cr_assert_eq(store_put(store, &put, &needs), 0);
    cr_assert(!put.existed, "a transient copy does not serve a durable put");
    put.data = "also";
    put.flags = STORE_PUT_TRANSIENT;
    cr_assert_eq(store_put(store, &put, &needs), 0);
    store_needs_clear(&needs);
    cr_assert_eq(store_close(store), 0);
    store = open_store(STORE_NO_THREAD);
    cr_assert_eq(store_get(store, &put.id, 0, &object), ENOENT);
    cr_assert_eq(store_helper_verify(store, true), 0);
    cr_assert_eq(store_close(store), 0);
}

Test(store, root_survives)
{
    struct store *store = open_store(0);
    struct store_root root, back;

    memset(&root, 0, sizeof root);
    memset(&root.id, 3, sizeof root.id);
    root.journal_tail = journal_tail(store_journal(store));
    cr_assert_eq(store_set_root(store, &root), ENOENT);
    cr_assert_eq(store_helper_put(store, 77, NULL, &root.id), 0);
    memset(root.opaque, 0xa5, sizeof root.opaque);
    cr_assert_eq(store_set_root(store, &root), 0);
    store_abandon(store);
    for (int slot = 0; slot < 3; slot++) {
        store = open_store(0);
        store_get_root(store, &back);
        cr_assert(store_id_equal(&back.id, &root.id));
        cr_assert(!memcmp(back.opaque, root.opaque, sizeof root.opaque));
        cr_assert_eq(store_helper_check(store, 77, &back.id), 0);
        cr_assert_eq(store_close(store), 0);
    }
}

/* The journal. */

struct seen {
    uint64_t first, n;
    unsigned stop;
};

static int
see(void *seen_, const struct journal_record *r)
{
    struct seen *seen = seen_;
    uint64_t number = get_le64(r->body);

    if (!seen->n) {
        seen->first = number;
    }
    cr_assert_eq(number, seen->first + seen->n, "in order without a gap");
    cr_assert_eq(r->type, 1 + number % 200);
    cr_assert_eq(r->size, 8 + number * 13 % 9000);
    for (size_t i = 8; i < r->size; i++) {
        cr_assert_eq(r->body[i], (uint8_t) number);
    }
    seen->n++;
    return seen->stop && seen->n >= seen->stop ? ECANCELED : 0;
}

static int
log_number(struct store *store, uint64_t number, unsigned flags,
           uint64_t *ret_lsn)
{
    uint8_t body[9000], head[8];
    struct iovec iov[3] = {
        {.iov_base = head, .iov_len = 8},
        {.iov_base = NULL, .iov_len = 0},
        {.iov_base = body, .iov_len = number * 13 % 9000},
    };

    put_le64(head, number);
    memset(body, (uint8_t) number, sizeof body);
    return journal_append(store_journal(store), 1 + number % 200, iov, 3,
                          flags, ret_lsn);
}

Test(store, journal_replays_what_was_committed)
{
    struct store *store = open_store(0);
    struct seen seen;
    uint64_t lsn = 0, n = 0, count;

    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 5; i++, n++) {
            cr_assert_eq(log_number(store, n, 0, &lsn), 0);
        }
        cr_assert_eq(journal_commit(store_journal(store), lsn), 0);
        cr_assert_eq(journal_durable(store_journal(store)), lsn);
        store_abandon(store);
        cr_assert_eq(store_open("mem", 0, &options, &store), 0);
        memset(&seen, 0, sizeof seen);
        cr_assert_eq(journal_append(store_journal(store), 1, NULL, 0, 0, &lsn),
                     EINVAL, "not replayed yet");
        cr_assert_eq(journal_replay(store_journal(store), see, &seen, &count),
                     0);
        cr_assert_eq(seen.n, n);
        cr_assert_eq(count, n);
    }
    cr_assert_eq(journal_commit(store_journal(store), lsn + 1000000), EINVAL);
    cr_assert_eq(store_close(store), 0);

    /* A clean close keeps what was not trimmed. */
    cr_assert_eq(store_open("mem", 0, &options, &store), 0);
    memset(&seen, 0, sizeof seen);
    seen.stop = 3;
    cr_assert_eq(journal_replay(store_journal(store), see, &seen, NULL),
                 ECANCELED);
    store_abandon(store);
}

Test(store, journal_wraps_and_pushes_back)
{
    struct store *store = open_store(0);
    struct store_root root;
    struct store_stats stats;
    uint64_t n = 0, first = 0, lsn = 0, lsns[4096], used, limit;
    struct seen seen;
    int error;

    memset(&root, 0, sizeof root);
    for (int round = 0; round < 20; round++) {
        /* Fill. */
        while (!(error = log_number(store, n, 0, &lsn))) {
            lsns[n % 4096] = lsn;
            n++;
        }
        cr_assert_eq(error, ENOBUFS);
        cr_assert_eq(log_number(store, n, JOURNAL_URGENT, &lsn), 0);
        lsns[n % 4096] = lsn;
        n++;
        cr_assert_eq(journal_commit(store_journal(store), lsn), 0);
        journal_usage(store_journal(store), &used, &limit);
        cr_assert_geq(used, limit);

        /* Reopen: nothing live was overwritten. */
        store_abandon(store);
        cr_assert_eq(store_open("mem", 0, &options, &store), 0);
        memset(&seen, 0, sizeof seen);
        cr_assert_eq(journal_replay(store_journal(store), see, &seen, NULL),
                     0);
        cr_assert_eq(seen.first, first);
        cr_assert_eq(seen.n, n - first);

        /* Free all but the last few. */
        first = n - (uint64_t) round % 3;
        root.journal_tail = lsns[(first - 1) % 4096];
        cr_assert_eq(store_set_root(store, &root), 0);
        cr_assert_eq(journal_tail(store_journal(store)), root.journal_tail);
    }
    store_get_stats(store, &stats);
    cr_assert_eq(stats.journal_size, options.journal_max);

    root.journal_tail = journal_head(store_journal(store));
    cr_assert_eq(store_set_root(store, &root), 0);
    cr_assert_eq(store_close(store), 0);
    {
        size_t size;

        cr_assert(memfs_data(fs, "journal", &size));
        cr_assert_eq(size, 0, "a clean close shrinks the journal");
    }
    store = open_store(0);
    store_get_stats(store, &stats);
    cr_assert_eq(stats.journal_used, 0);
    cr_assert_eq(log_number(store, 5, 0, &lsn), 0);
    cr_assert_eq(journal_commit(store_journal(store), lsn), 0);
    store_abandon(store);
    cr_assert_eq(store_open("mem", 0, &options, &store), 0);
    memset(&seen, 0, sizeof seen);
    cr_assert_eq(journal_replay(store_journal(store), see, &seen, NULL), 0);
    cr_assert_eq(seen.n, 1);
    cr_assert_eq(seen.first, 5);
    store_abandon(store);
}

Test(store, journal_limits)
{
    struct store *store = open_store(0);
    size_t max = journal_body_max(store_journal(store));
    uint8_t *body = calloc(1, max + 1);
    struct iovec iov = {.iov_base = body, .iov_len = max};
    struct store_root root;
    uint64_t lsn;

    cr_assert_eq(max, JOURNAL_BODY_MAX(65536));
    cr_assert_eq(journal_append(store_journal(store), 1, &iov, 1, 0, &lsn), 0);
    iov.iov_len++;
    cr_assert_eq(journal_append(store_journal(store), 1, &iov, 1, 0, &lsn),
                 EMSGSIZE);
    cr_assert_eq(journal_append(store_journal(store), 0, &iov, 0, 0, &lsn),
                 EINVAL);
    memset(&root, 0, sizeof root);
    root.journal_tail = lsn + 8;
    cr_assert_eq(store_set_root(store, &root), EINVAL);
    free(body);
    cr_assert_eq(store_close(store), 0);
}

/* Threads. */

struct worker {
    struct store *store;
    unsigned first;
    int error;
};

static void *
work(void *worker_)
{
    struct worker *w = worker_;
    struct store_needs needs = {.n = 0};

    for (unsigned i = 0; i < 200 && !w->error; i++) {
        unsigned n = (w->first + i) % 240; /* Overlaps with the others. */
        struct store_id id;
        uint64_t lsn;

        w->error = store_helper_put(w->store, n, &needs, &id);
        if (!w->error) {
            w->error = store_helper_check(w->store, n, &id);
        }
        if (!w->error && i % 20 == 0) {
            w->error = store_sync_needs(w->store, &needs);
        }
        if (!w->error) {
            struct iovec iov = {.iov_base = &n, .iov_len = sizeof n};

            w->error =
                journal_append(store_journal(w->store), 1, &iov, 1, 0, &lsn);
        }
        if (!w->error) {
            w->error = journal_commit(store_journal(w->store), lsn);
        }
    }
    store_needs_clear(&needs);
    return NULL;
}

Test(store, threads)
{
    struct worker workers[4];
    pthread_t threads[4];
    struct store *store;
    uint64_t n;

    options.node_cache = options.record_cache = 65536;
    store = open_store(0);
    for (int i = 0; i < 4; i++) {
        workers[i] = (struct worker){.store = store, .first = 60u * i};
        cr_assert_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        cr_assert_eq(workers[i].error, 0);
    }
    cr_assert_eq(store_helper_verify(store, true), 0);
    store_abandon(store);
    cr_assert_eq(store_open("mem", 0, &options, &store), 0);
    cr_assert_eq(journal_replay(store_journal(store), NULL, NULL, &n), 0);
    cr_assert_eq(n, 800);
    cr_assert_eq(store_helper_verify(store, true), 0);
    cr_assert_eq(store_close(store), 0);
}

/* Full disk. */

Test(store, full_disk_is_clean)
{
    struct store *store = open_store(STORE_NO_THREAD);
    static struct store_id ids[2000];
    unsigned n = 0;
    int error;

    memfs_set_capacity(fs, 1 << 20);
    while (!(error = store_helper_put(store, n, NULL, &ids[n]))) {
        n++;
    }
    cr_assert_eq(error, ENOSPC);
    cr_assert_eq(store_broken(store), 0);
    for (unsigned i = 0; i < n; i++) {
        cr_assert_eq(store_helper_check(store, i, &ids[i]), 0);
    }
    cr_assert_eq(store_sync(store), 0);
    memfs_set_capacity(fs, 2 << 20);
    cr_assert_eq(store_helper_put(store, n, NULL, &ids[n]), 0);
    cr_assert_eq(store_helper_verify(store, true), 0);
    cr_assert_eq(store_close(store), 0);
}

/* What was reserved can be written, whatever else fills the disk. */
Test(store, reserve_holds)
{
    struct store *store = open_store(STORE_NO_THREAD);
    struct store_put put = {.kind = STORE_DATA, .format = 1, .size = 20000};
    static uint8_t content[20000];
    uint32_t x = 1;

    put.data = content;
    cr_assert_eq(store_reserve(store, STORE_CLASS_DATA, 20 * 20000), 0);
    cr_assert_eq(store_reserve(store, STORE_CLASS_NODE, 3 * 8192), 0);
    memfs_set_capacity(fs, 1); /* Nothing more will grow. */
    cr_assert_eq(store_reserve(store, STORE_CLASS_DATA, 1 << 20), ENOSPC);
    for (int i = 0; i < 20; i++) {
        for (size_t j = 0; j < sizeof content; j++) {
            x = x * 1103515245 + 12345;
            content[j] = (uint8_t) (x >> 16);
        }
        cr_assert_eq(store_put(store, &put, NULL), 0, "put %d", i);
        store_unreserve(store, STORE_CLASS_DATA, 20000);
    }
    put.kind = STORE_NODE;
    put.size = 8192;
    for (int i = 0; i < 3; i++) {
        content[0]++;
        cr_assert_eq(store_put(store, &put, NULL), 0, "node %d", i);
    }
    store_unreserve(store, STORE_CLASS_NODE, 3 * 8192);
    cr_assert_eq(store_sync(store), 0);
    memfs_set_capacity(fs, 0);
    cr_assert_eq(store_helper_verify(store, true), 0);
    cr_assert_eq(store_close(store), 0);
}

Test(store, dump_and_walk)
{
    struct store *store = open_store(STORE_NO_THREAD);
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);

    for (unsigned n = 0; n < 100; n++) {
        cr_assert_eq(store_helper_put(store, n, NULL, NULL), 0);
    }
    cr_assert_eq(store_dump(store, STORE_DUMP_ALL, f), 0);
    fclose(f);
    cr_assert(strstr(text, "superblock: format 1.0"));
    cr_assert(strstr(text, "delta"));
    free(text);
    cr_assert_eq(store_rebuild_index(store), 0);
    cr_assert_eq(store_helper_verify(store, true), 0);
    cr_assert_eq(store_close(store), 0);
}

/* A run decays while the store is in use: upkeep replaces it. */
Test(store, index_heals_in_use)
{
    enum { N = 100 };
    static struct store_id ids[N];
    struct store *store = open_store(STORE_NO_THREAD);
    unsigned n_bad = 0;
    uint64_t n_rebuilt;

    for (unsigned n = 0; n < N; n++) {
        cr_assert_eq(store_helper_put(store, n, NULL, &ids[n]), 0);
    }
    cr_assert_eq(store_close(store), 0);
    options.node_cache = options.record_cache = 0;
    store = open_store(STORE_NO_THREAD);
    for (size_t i = 0; memfs_name(fs, i); i++) {
        if (!strncmp(memfs_name(fs, i), "idx/0", 5)) {
            size_t size;

            memfs_data(fs, memfs_name(fs, i), &size)[RUN_BLOCK_SIZE + 50] ^= 1;
        }
    }
    for (unsigned n = 0; n < N; n++) {
        int error = store_helper_check(store, n, &ids[n]);

        cr_assert(!error || error == EBADMSG);
        n_bad += error != 0;
    }
    cr_assert_gt(n_bad, 0);
    n_rebuilt = coverage_read("store_index_rebuilt_online");
    cr_assert_eq(store_helper_put(store, 500, NULL, NULL), 0);
    cr_assert_eq(coverage_read("store_index_rebuilt_online"), n_rebuilt + 1);
    for (unsigned n = 0; n < N; n++) {
        cr_assert_eq(store_helper_check(store, n, &ids[n]), 0);
    }
    cr_assert_eq(store_helper_verify(store, true), 0);
    store_abandon(store);
    store = open_store(STORE_NO_THREAD);
    cr_assert_eq(store_helper_verify(store, true), 0);
    for (unsigned n = 0; n < N; n++) {
        cr_assert_eq(store_helper_check(store, n, &ids[n]), 0);
    }
    cr_assert_eq(store_close(store), 0);
}
