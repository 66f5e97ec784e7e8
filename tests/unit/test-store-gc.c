/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Garbage collection of the store: what roots lead to stays readable, the rest
 * gives its space back, whatever happens meanwhile. */

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "lib/util.h"
#include "lib/vlog.h"
#include "tests/crash/crash.h"
#include "tests/unit/store-helper.h"
#include "vafs-server/store/gc.h"

/* A world of trees: tree 't' has a root node, FANOUT nodes below it, and these
 * have FANOUT data objects each.  Neighbouring trees share some of them, and
 * each object is put with that of the tree before as base. */
#define N_TREES 24
#define FANOUT 5

struct world {
    struct store_id roots[N_TREES];
    bool alive[N_TREES];
};

static struct memfs *fs;
static struct store_options options;
static struct world world;

static void
setup(void)
{
    fs = memfs_create();
    store_helper_options(&options, fs);
    memset(&world, 0, sizeof world);
    cr_assert_eq(vlog_set_level("off"), 0);
    cr_assert_eq(store_create("mem", &options), 0);
}

static void
teardown(void)
{
    memfs_destroy(fs);
}

TestSuite(store_gc, .init = setup, .fini = teardown, .timeout = 300);

static struct store *
open_store(unsigned flags)
{
    struct store *store;

    cr_assert_eq(store_open("mem", flags, &options, &store), 0);
    cr_assert_eq(journal_replay(store_journal(store), NULL, NULL, NULL), 0);
    return store;
}

/* Trees. */

static size_t
data_content(unsigned tree, unsigned i, unsigned j, uint8_t *p)
{
    /* One of FANOUT is the same in all trees of four. */
    unsigned version = j ? tree : tree / 4;
    unsigned family = i * FANOUT + j;
    uint32_t state = family * 7919 + 1;
    size_t size = 600 + family * 211;

    for (size_t k = 0; k < size; k++) {
        state = state * 1664525 + 1013904223;
        p[k] = (uint8_t) (state >> 16);
    }
    memcpy(p + size / 2, &version, sizeof version);
    return size;
}

static int
put_one(struct store *store, uint8_t kind, const void *data, size_t size,
        const struct store_id *base, struct store_id *ret)
{
    struct store_put put;
    int error;

    memset(&put, 0, sizeof put);
    put.data = data;
    put.size = size;
    put.kind = kind;
    put.format = 1;
    put.base = base;
    error = store_put(store, &put, NULL);
    *ret = put.id;
    return error;
}

/* A node: kind of the children, their number, their ids, the tree's number. */
static size_t
node_content(uint8_t *p, uint8_t kind, const struct store_id ids[FANOUT],
             unsigned tree)
{
    p[0] = kind;
    p[1] = FANOUT;
    memcpy(p + 2, ids, FANOUT * sizeof *ids);
    put_le32(p + 2 + FANOUT * sizeof *ids, tree);
    return 2 + FANOUT * sizeof *ids + 4;
}

static int
build_tree(struct store *store, unsigned tree, struct store_id *ret_root)
{
    struct store_id nodes[FANOUT], ids[FANOUT], base;
    uint8_t p[16384];
    size_t size;
    int error = 0;

    for (unsigned i = 0; i < FANOUT && !error; i++) {
        for (unsigned j = 0; j < FANOUT && !error; j++) {
            if (tree) {
                size = data_content(tree - 1, i, j, p);
                error = store_hash(STORE_DATA, 1, p, size, &base);
            }
            size = data_content(tree, i, j, p);
            error = error ? error
                          : put_one(store, STORE_DATA, p, size,
                                    tree ? &base : NULL, &ids[j]);
        }
        if (!error) {
            size = node_content(p, STORE_DATA, ids, i);
            error = put_one(store, STORE_NODE, p, size, i ? &nodes[0] : NULL,
                            &nodes[i]);
        }
    }
    if (!error) {
        size = node_content(p, STORE_NODE, nodes, tree);
        error = put_one(store, STORE_NODE, p, size, NULL, ret_root);
    }
    return error;
}

/* 0 if all of the tree below 'root' is there and right. */
static int
check_tree(struct store *store, unsigned tree, const struct store_id *root)
{
    struct object *top, *node, *data;
    uint8_t p[16384];
    int error;

    error = store_get(store, root, STORE_NODE, &top);
    if (error) {
        return error;
    }
    for (unsigned i = 0; i < FANOUT && !error; i++) {
        struct store_id id;

        memcpy(&id, top->data + 2 + i * sizeof id, sizeof id);
        error = store_get(store, &id, STORE_NODE, &node);
        for (unsigned j = 0; j < FANOUT && !error; j++) {
            size_t size = data_content(tree, i, j, p), n = 0;
            uint8_t part[100];

            memcpy(&id, node->data + 2 + j * sizeof id, sizeof id);
            error = store_get(store, &id, STORE_DATA, &data);
            if (!error) {
                if (data->size != size || memcmp(data->data, p, size)) {
                    error = EILSEQ;
                }
                object_unref(data);
            }
            if (!error) {
                error = store_get_range(store, &id, STORE_DATA, size / 2, part,
                                        sizeof part, &n);
            }
            if (!error &&
                (n != sizeof part || memcmp(part, p + size / 2, n))) {
                error = EILSEQ;
            }
            if (error || j == FANOUT - 1) {
                object_unref(node);
            }
        }
    }
    object_unref(top);
    return error;
}

static int
mark_roots(void *world_, struct store_gc *gc)
{
    const struct world *w = world_;

    for (unsigned t = 0; t < N_TREES; t++) {
        int error =
            w->alive[t] ? store_gc_mark(gc, &w->roots[t], STORE_NODE) : 0;

        if (error) {
            return error;
        }
    }
    return 0;
}

static int
mark_children(void *aux, struct store_gc *gc, const struct object *object)
{
    for (unsigned i = 0; i < object->data[1]; i++) {
        struct store_id id;
        int error;

        memcpy(&id, object->data + 2 + i * sizeof id, sizeof id);
        error = store_gc_mark(gc, &id, object->data[0]);
        if (error) {
            return error;
        }
    }
    return 0;
}

static const struct store_gc_user user = {
    .roots = mark_roots,
    .children = mark_children,
    .aux = &world,
};

static void
build_world(struct store *store, unsigned n)
{
    for (unsigned t = 0; t < n; t++) {
        cr_assert_eq(build_tree(store, t, &world.roots[t]), 0);
        world.alive[t] = true;
    }
}

static void
keep_every(unsigned n)
{
    for (unsigned t = 0; t < N_TREES; t++) {
        world.alive[t] = world.alive[t] && t % n == n - 1;
    }
}

static int
check_world(struct store *store, const struct world *w)
{
    for (unsigned t = 0; t < N_TREES; t++) {
        int error = w->alive[t] ? check_tree(store, t, &w->roots[t]) : 0;

        if (error) {
            return error;
        }
    }
    return 0;
}

static uint64_t
segment_bytes(struct store *store)
{
    struct store_stats s;

    store_get_stats(store, &s);
    return s.segment_bytes;
}

/* Tests. */

Test(store_gc, returns_dead_and_keeps_live)
{
    struct store *store = open_store(STORE_NO_THREAD);
    struct store_gc_result result, dry;
    uint64_t before;

    build_world(store, N_TREES);
    keep_every(6);
    before = segment_bytes(store);
    cr_assert_eq(store_gc(store, STORE_GC_ROLL, &user, &result), 0);
    cr_assert_eq(result.n_failed, 0);
    cr_assert_gt(result.n_removed, 0);
    cr_assert_lt(segment_bytes(store), before * 3 / 4);
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_eq(store_helper_verify(store, true), 0);
    cr_assert_neq(store_has(store, &world.roots[0], NULL), 0);

    /* From the disk, then with an index made anew, in use and at open. */
    cr_assert_eq(store_close(store), 0);
    store = open_store(STORE_NO_THREAD);
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_eq(store_helper_verify(store, true), 0);
    cr_assert_eq(store_rebuild_index(store), 0);
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_eq(store_helper_verify(store, true), 0);
    cr_assert_eq(store_close(store), 0);
    store = open_store(STORE_NO_THREAD | STORE_REBUILD);
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_eq(store_helper_verify(store, true), 0);

    /* Again, after more has died: what was moved is moved again. */
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned t = 0; t < N_TREES; t++) {
            world.alive[t] = t == 23 || (t == 11 && round < 2);
        }
        cr_assert_eq(
            store_gc(store, STORE_GC_DRY_RUN | STORE_GC_ROLL, &user, &dry), 0);
        cr_assert_eq(dry.n_removed, 0);
        cr_assert_eq(store_gc(store, STORE_GC_ROLL, &user, &result), 0);
        cr_assert_eq(result.n_failed, 0);
        cr_assert_eq(result.epoch, 2 + round);
        cr_assert_eq(check_world(store, &world), 0);
    }
    cr_assert_eq(store_close(store), 0);
    store = open_store(STORE_NO_THREAD | STORE_REBUILD);
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_eq(store_helper_verify(store, true), 0);

    /* Nothing alive: nothing left but what is open and what the filter took
     * for something else. */
    memset(world.alive, 0, sizeof world.alive);
    cr_assert_eq(store_gc(store, STORE_GC_ROLL, &user, &result), 0);
    cr_assert_lt(segment_bytes(store), 65536);
    build_world(store, 3);
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_eq(store_close(store), 0);
}

Test(store_gc, finds_nothing_to_do)
{
    struct store *store = open_store(STORE_NO_THREAD);
    struct store_gc_result result;
    uint64_t before;

    build_world(store, N_TREES);
    before = segment_bytes(store);
    cr_assert_eq(store_gc(store, STORE_GC_ROLL, &user, &result), 0);
    cr_assert_eq(result.n_removed, 0);
    cr_assert_eq(result.n_copied, 0);
    cr_assert_leq(segment_bytes(store), before);
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_eq(store_close(store), 0);
}

Test(store_gc, removes_nothing_if_something_is_missing)
{
    struct store *store = open_store(STORE_NO_THREAD);
    struct store_gc_result result;
    struct store_id none;

    build_world(store, N_TREES);
    keep_every(6);
    memset(&none, 7, sizeof none);
    world.roots[0] = none;
    world.alive[0] = true;
    cr_assert_eq(store_gc(store, STORE_GC_ROLL, &user, &result), ENOENT);
    cr_assert_eq(result.n_removed, 0);
    world.alive[0] = false;
    for (unsigned t = 1; t < N_TREES; t++) {
        cr_assert_eq(check_tree(store, t, &world.roots[t]), 0);
    }
    cr_assert_eq(store_close(store), 0);
}

/* Puts trees again while the collection marks: they must survive it. */
struct resurrect {
    struct store *store;
    bool done;
};

static int
resurrect_children(void *aux, struct store_gc *gc, const struct object *object)
{
    struct resurrect *r = aux;
    struct store_id root;

    if (!r->done) {
        r->done = true;
        for (unsigned t = 0; t < N_TREES; t += 5) {
            cr_assert_eq(build_tree(r->store, t, &root), 0);
            cr_assert(store_id_equal(&root, &world.roots[t]));
        }
    }
    return mark_children(NULL, gc, object);
}

static int
resurrect_roots(void *aux, struct store_gc *gc)
{
    return mark_roots(&world, gc);
}

Test(store_gc, keeps_what_is_put_again_meanwhile)
{
    struct store *store = open_store(STORE_NO_THREAD);
    struct resurrect r = {.store = store};
    struct store_gc_user u = {
        .roots = resurrect_roots, .children = resurrect_children, .aux = &r};
    struct store_gc_result result;

    build_world(store, N_TREES);
    keep_every(6);
    cr_assert_eq(store_gc(store, STORE_GC_ROLL, &u, &result), 0);
    cr_assert_gt(result.n_removed, 0);
    for (unsigned t = 0; t < N_TREES; t += 5) {
        world.alive[t] = true;
    }
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_eq(store_close(store), 0);
    store = open_store(STORE_NO_THREAD | STORE_REBUILD);
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_eq(store_helper_verify(store, true), 0);
    cr_assert_eq(store_close(store), 0);
}

/* Threads put and read trees while collections run one after the other. */
struct race {
    struct store *store;
    pthread_rwlock_t lock; /* Read: from put to becoming a root. */
    bool stop;
    unsigned n_put, n_wrong;
};

static void *
race_thread(void *race_)
{
    struct race *race = race_;
    unsigned state = (unsigned) (uintptr_t) pthread_self() >> 12;

    while (!__atomic_load_n(&race->stop, __ATOMIC_RELAXED)) {
        struct store_id root;
        unsigned t;

        state = state * 1664525 + 1013904223;
        t = (state >> 12) % N_TREES;
        pthread_rwlock_rdlock(&race->lock);
        if (build_tree(race->store, t, &root)) {
            __atomic_fetch_add(&race->n_wrong, 1, __ATOMIC_RELAXED);
        }
        __atomic_store_n(&world.alive[t], true, __ATOMIC_RELEASE);
        if (check_tree(race->store, t, &root)) {
            __atomic_fetch_add(&race->n_wrong, 1, __ATOMIC_RELAXED);
        }
        pthread_rwlock_unlock(&race->lock);
        __atomic_fetch_add(&race->n_put, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static int
race_grace(void *race_)
{
    struct race *race = race_;

    /* Who builds a tree now has made it a root afterwards. */
    pthread_rwlock_wrlock(&race->lock);
    pthread_rwlock_unlock(&race->lock);
    return 0;
}

static int
race_roots(void *aux, struct store_gc *gc)
{
    return mark_roots(&world, gc);
}

Test(store_gc, races_with_puts)
{
    struct race race = {.lock =
                            PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP};
    struct store_gc_user u = {.grace = race_grace,
                              .roots = race_roots,
                              .children = mark_children,
                              .aux = &race};
    unsigned n_removed = 0;
    pthread_t threads[2];

    options.node_cache = options.record_cache = 4096;
    race.store = open_store(0);
    build_world(race.store, N_TREES);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, race_thread, &race), 0);
    }
    for (unsigned round = 0; round < 20; round++) {
        struct store_gc_result result;
        int error;

        /* Some die; whoever is building one just now makes it live again. */
        pthread_rwlock_wrlock(&race.lock);
        for (unsigned t = 0; t < N_TREES; t++) {
            world.alive[t] = world.alive[t] && (t * 7 + round) % 5 == 0;
        }
        pthread_rwlock_unlock(&race.lock);
        error = store_gc(race.store, STORE_GC_ROLL, &u, &result);
        cr_expect_eq(error, 0, "round %u: %s", round, strerror(error));
        cr_expect_eq(result.n_failed, 0);
        n_removed += (unsigned) result.n_removed;
    }
    __atomic_store_n(&race.stop, true, __ATOMIC_RELAXED);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_eq(race.n_wrong, 0, "%u of %u are wrong", race.n_wrong,
                 race.n_put);
    cr_assert_gt(n_removed, 0);
    cr_assert_eq(check_world(race.store, &world), 0);
    cr_assert_eq(store_close(race.store), 0);
    race.store = open_store(STORE_NO_THREAD | STORE_REBUILD);
    cr_assert_eq(check_world(race.store, &world), 0);
    cr_assert_eq(store_helper_verify(race.store, true), 0);
    cr_assert_eq(store_close(race.store), 0);
}

/* Puts blobs until the disk is full; returns how many. */
static unsigned
fill_disk(struct store *store)
{
    unsigned n = 0;
    int error = 0;

    while (!error) {
        uint8_t p[4096];
        struct store_id id;
        uint32_t state = n * 7717 + 3;

        for (size_t k = 0; k < sizeof p; k++) {
            state = state * 1664525 + 1013904223;
            p[k] = (uint8_t) (state >> 16);
        }
        error = put_one(store, STORE_DATA, p, sizeof p, NULL, &id);
        n += !error;
        cr_assert_lt(n, 1000);
    }
    cr_assert_eq(error, ENOSPC);
    return n;
}

Test(store_gc, makes_room_on_a_full_disk)
{
    struct store *store = open_store(STORE_NO_THREAD);
    struct store_gc_result result;
    unsigned n;

    build_world(store, 2);
    memfs_set_capacity(fs, 1 << 20);
    n = fill_disk(store);
    cr_assert_gt(n, 100);
    cr_assert_eq(store_gc(store, 0, &user, &result), 0);
    cr_assert_gt(result.n_removed, 0);
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_gt(fill_disk(store), n / 2);
    cr_assert_eq(store_gc(store, 0, &user, &result), 0);
    cr_assert_gt(result.n_removed, 0);
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_eq(store_close(store), 0);
    store = open_store(STORE_NO_THREAD | STORE_REBUILD);
    cr_assert_eq(check_world(store, &world), 0);
    cr_assert_eq(store_helper_verify(store, true), 0);
    cr_assert_eq(store_close(store), 0);
}

/* Failures. */

static const char *
check_image(struct memfs *image, unsigned flags, bool again)
{
    struct store_options o = options;
    struct store *store = NULL;
    const char *wrong = NULL;
    struct store_id root;

    o.files = memfs_layer(image);
    if (store_open("mem", STORE_NO_THREAD | flags, &o, &store)) {
        return "open fails";
    }
    if (journal_replay(store_journal(store), NULL, NULL, NULL)) {
        wrong = "replay fails";
    } else if (check_world(store, &world)) {
        wrong = "something live is lost";
    } else if (store_helper_verify(store, true)) {
        wrong = "verification fails";
    } else if (again && (store_gc(store, STORE_GC_ROLL, &user, NULL) ||
                         check_world(store, &world))) {
        wrong = "the next collection goes wrong";
    } else if (again &&
               (build_tree(store, 2, &root) || check_tree(store, 2, &root))) {
        wrong = "what was dead cannot be put again";
    }
    if (wrong) {
        store_abandon(store);
    } else if (store_close(store)) {
        wrong = "close fails";
    }
    return wrong;
}

static bool
crash_check(void *n_, struct memfs *image, uint64_t acknowledged,
            const char *what)
{
    size_t *n = n_;
    const char *wrong;

    wrong = check_image(image, *n % 3 ? 0 : STORE_REBUILD, *n % 2);
    if (!wrong && *n % 4 == 3) {
        wrong = check_image(image, STORE_REBUILD, false);
    }
    ++*n;
    cr_expect_null(wrong, "%s: %s", what, wrong);
    return !wrong;
}

Test(store_gc, every_power_failure)
{
    bool full = getenv("CRASH_FULL") != NULL;
    struct store *store = open_store(STORE_NO_THREAD);
    struct store_gc_result result;
    size_t n, i = 0;

    build_world(store, full ? N_TREES : 12);
    keep_every(6);
    cr_assert_eq(store_close(store), 0);
    store = open_store(STORE_NO_THREAD);
    memfs_record(fs);
    cr_assert_eq(store_gc(store, STORE_GC_ROLL, &user, &result), 0);
    cr_assert_gt(result.n_removed, 0);
    cr_assert_gt(result.n_copied, 0);
    /* A second one, of what the first has moved. */
    world.alive[5] = false;
    cr_assert_eq(store_gc(store, STORE_GC_ROLL, &user, &result), 0);
    cr_assert_eq(store_close(store), 0);
    n = crash_enumerate(fs, full ? CRASH_FULL : CRASH_QUICK, crash_check, &i,
                        NULL);
    cr_log_info("%zu images of %zu operations", n, memfs_n_recorded(fs));
    cr_assert_gt(n, 100);
}

Test(store_gc, every_failing_call)
{
    static const struct {
        unsigned mask;
        int error;
    } faults[] = {
        {MEMFS_CHANGES, EIO},
        {MEMFS_WRITE | MEMFS_RESIZE, ENOSPC},
        {MEMFS_READ | MEMFS_OPEN, EIO},
    };
    struct store *store = open_store(STORE_NO_THREAD);
    struct memfs *before;

    build_world(store, 12);
    keep_every(6);
    cr_assert_eq(store_close(store), 0);
    before = memfs_clone(fs);
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        for (unsigned nth = 1;; nth += 1 + nth / 16) {
            struct memfs *image = memfs_clone(before);
            struct store_options o = options;
            const char *wrong;
            bool failed;

            o.files = memfs_layer(image);
            cr_assert_eq(store_open("mem", STORE_NO_THREAD, &o, &store), 0);
            cr_assert_eq(
                journal_replay(store_journal(store), NULL, NULL, NULL), 0);
            memfs_fail(image, faults[i].mask, nth, faults[i].error, false);
            if (store_gc(store, STORE_GC_ROLL, &user, NULL)) {
                /* As it may be. */
            }
            failed = memfs_has_failed(image);
            memfs_fail(image, 0, 0, 0, false);
            cr_expect_eq(check_world(store, &world), 0, "%zu, call %u", i,
                         nth);
            store_abandon(store);
            wrong = check_image(image, 0, nth % 2);
            cr_assert_null(wrong, "%zu, call %u: %s", i, nth, wrong);
            memfs_destroy(image);
            if (!failed) {
                break;
            }
        }
    }
    memfs_destroy(before);
}
