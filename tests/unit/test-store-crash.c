/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The store after every power failure, every failing call and every flipped
 * bit.
 *
 * The workload puts objects, syncs, logs, commits and sets roots, and notes
 * with memfs_mark() what has been acknowledged.  Whatever image a failure may
 * leave, the store must open, deliver all that was acknowledged and nothing
 * wrong, pass its own verification, and go on working. */

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "lib/util.h"
#include "lib/vlog.h"
#include "tests/crash/crash.h"
#include "tests/unit/store-helper.h"
#include "vafs-server/store/superblock.h"

/* With CRASH_FULL in the environment the whole is run, as the crash tier does
 * (but every bit only with CRASH_DEEP, too); without, enough to fit into a
 * minute under sanitizers. */
#define N_STEPS 60
#define N_STEPS_QUICK 22
#define N_OBJECTS 160

/* What holds once step 'i' has been acknowledged. */
struct step {
    unsigned n_durable; /* Objects 0..n-1 are durable. */
    uint64_t n_logged;  /* Journal records 0..n-1 are. */
    uint64_t n_trimmed; /* Of these the first n are trimmed. */
    unsigned root;      /* Object that is root, plus 1. */
};

struct model {
    struct store_id ids[N_OBJECTS];
    unsigned n_put;
    uint64_t n_appended;
    uint64_t lsns[1024];
    struct step steps[N_STEPS + 2];
    unsigned n_steps;
};

static struct memfs *fs;
static struct store_options options;

static void
setup(void)
{
    fs = memfs_create();
    store_helper_options(&options, fs);
    options.reserve = 4096;
    options.index_memory = 4 * 8192;
    cr_assert_eq(vlog_set_level("off"), 0);
    cr_assert_eq(store_create("mem", &options), 0);
}

static void
teardown(void)
{
    memfs_destroy(fs);
}

TestSuite(store_crash, .init = setup, .fini = teardown, .timeout = 600);

static int
log_next(struct store *store, struct model *m, uint64_t *lsn)
{
    uint8_t body[3000];
    struct iovec iov = {.iov_base = body,
                        .iov_len = 8 + m->n_appended * 577 % 2900};
    int error;

    memset(body, (int) m->n_appended, sizeof body);
    put_le64(body, m->n_appended);
    error =
        journal_append(store_journal(store), 7, &iov, 1, JOURNAL_URGENT, lsn);
    if (!error) {
        m->lsns[m->n_appended++] = *lsn;
    }
    return error;
}

/* Does step 'i'; what it acknowledges goes to m->steps[i + 1]. */
static int
do_step(struct store *store, struct model *m, unsigned i)
{
    struct step next = m->steps[i];
    struct store_needs needs = {.n = 0};
    struct store_root root;
    uint64_t lsn = 0;
    int error = 0;

    for (unsigned j = 0; j < 1 + i % 4 && m->n_put < N_OBJECTS && !error;
         j++) {
        error = store_helper_put(store, m->n_put, &needs, &m->ids[m->n_put]);
        m->n_put += !error;
    }
    if (!error && i % 3 != 1) {
        error = log_next(store, m, &lsn);
    }
    if (!error && i % 5 == 2) {
        error = store_sync(store);
        next.n_durable = m->n_put;
    }
    if (!error && i % 3 == 0) {
        error = journal_commit(store_journal(store), lsn);
        next.n_logged = m->n_appended;
    }
    if (!error && i % 8 == 7) {
        memset(&root, 0, sizeof root);
        root.id = m->ids[m->n_put - 1];
        memset(root.opaque, (int) m->n_put, sizeof root.opaque);
        next.n_trimmed = m->n_appended - 1;
        root.journal_tail = m->lsns[next.n_trimmed - 1];
        error = store_set_root(store, &root);
        next.root = m->n_put;
        next.n_durable = m->n_put;
        next.n_logged = MAX(next.n_logged, next.n_trimmed);
    }
    store_needs_clear(&needs);
    if (!error) {
        m->steps[i + 1] = next;
        m->n_steps = i + 1;
    }
    return error;
}

struct replay {
    const struct model *m;
    uint64_t first, n;
    bool wrong;
};

static int
replay_cb(void *replay_, const struct journal_record *r)
{
    struct replay *replay = replay_;
    uint64_t number = r->size >= 8 ? get_le64(r->body) : UINT64_MAX;

    if (!replay->n) {
        replay->first = number;
    }
    replay->wrong |= r->type != 7 || number != replay->first + replay->n ||
                     r->size != 8 + number * 577 % 2900;
    for (size_t i = 8; i < r->size; i++) {
        replay->wrong |= r->body[i] != (uint8_t) number;
    }
    replay->n++;
    return 0;
}

/* Checks a store that was just opened against what 'step' says must hold.
 * Returns NULL or what is wrong. */
static const char *
check_store(struct store *store, const struct model *m,
            const struct step *step)
{
    struct replay replay = {.m = m};
    struct store_root root;

    if (journal_replay(store_journal(store), replay_cb, &replay, NULL)) {
        return "replay fails";
    }
    if (replay.wrong) {
        return "replay delivers something wrong";
    }
    /* What was committed was replayed, unless a root trimmed it, which may be
     * a later root than the one acknowledged. */
    store_get_root(store, &root);
    if (replay.n ? replay.first + replay.n < step->n_logged ||
                       (replay.first &&
                        root.journal_tail < m->lsns[replay.first - 1])
                 : step->n_logged &&
                       root.journal_tail < m->lsns[step->n_logged - 1]) {
        return "a committed record is missing";
    }
    for (unsigned n = 0; n < m->n_put; n++) {
        int error = store_helper_check(store, n, &m->ids[n]);

        if (error && (error != ENOENT || n < step->n_durable)) {
            return error == ENOENT ? "a durable object is missing"
                                   : "an object is delivered wrong or damaged";
        }
    }
    if (store_id_is_zero(&root.id)) {
        if (step->root) {
            return "the root is lost";
        }
    } else {
        unsigned n = root.opaque[0];

        if (n < step->root || n > m->n_put ||
            !store_id_equal(&root.id, &m->ids[n - 1])) {
            return "the root is wrong";
        }
        if (store_helper_check(store, n - 1, &root.id)) {
            return "the root's object is missing";
        }
    }
    return store_helper_verify(store, false) ? "verification fails" : NULL;
}

/* The store goes on: puts, logs, and all is there after another open. */
static const char *
check_goes_on(struct store **store, struct model *m, struct store_options *o)
{
    struct store_id id;
    uint64_t lsn, head = journal_head(store_journal(*store)), n;
    struct iovec iov = {.iov_base = "more", .iov_len = 4};
    int error;

    error = store_helper_put(*store, 1000, NULL, &id);
    if (!error) {
        error = store_sync(*store);
    }
    if (!error) {
        error = journal_append(store_journal(*store), 9, &iov, 1,
                               JOURNAL_URGENT, &lsn);
    }
    if (!error) {
        error = journal_commit(store_journal(*store), lsn);
    }
    if (error || lsn <= head) {
        return "the store does not go on";
    }
    store_abandon(*store);
    *store = NULL;
    if (store_open("mem", STORE_NO_THREAD, o, store) ||
        journal_replay(store_journal(*store), NULL, NULL, &n) ||
        journal_head(store_journal(*store)) != lsn) {
        return "what was logged after the crash is lost";
    }
    return store_helper_check(*store, 1000, &id)
               ? "what was put after the crash is lost"
               : NULL;
}

struct crash_aux {
    struct model *m;
    size_t n;
};

static bool
crash_check(void *aux_, struct memfs *image, uint64_t acknowledged,
            const char *what)
{
    struct crash_aux *aux = aux_;
    struct store_options o = options;
    const char *wrong;
    struct store *store = NULL;
    int error;

    o.files = memfs_layer(image);
    error = store_open("mem", STORE_NO_THREAD, &o, &store);
    if (error) {
        cr_expect(false, "%s: open: %s", what, strerror(error));
        return false;
    }
    wrong = check_store(store, aux->m, &aux->m->steps[acknowledged]);
    if (!wrong) {
        wrong = check_goes_on(&store, aux->m, &o);
    }
    /* Every fourth image also goes through a clean close. */
    if (!wrong && ++aux->n % 4 == 0) {
        error = store_close(store);
        store = NULL;
        wrong = error ? "close fails" : NULL;
    }
    store_abandon(store);
    cr_expect_null(wrong, "%s (step %llu): %s", what,
                   (unsigned long long) acknowledged, wrong);
    return !wrong;
}

static void
run_workload(struct model *m, unsigned n_steps, bool reopen)
{
    struct store *store;

    cr_assert_eq(store_open("mem", STORE_NO_THREAD, &options, &store), 0);
    cr_assert_eq(journal_replay(store_journal(store), NULL, NULL, NULL), 0);
    for (unsigned i = 0; i < n_steps; i++) {
        cr_assert_eq(do_step(store, m, i), 0, "step %u", i);
        memfs_mark(fs, i + 1);
        if (reopen && i % 20 == 19) {
            /* In turn by crash of the process and by clean close. */
            if (i % 40 == 19) {
                store_abandon(store);
            } else {
                cr_assert_eq(store_close(store), 0);
            }
            cr_assert_eq(store_open("mem", STORE_NO_THREAD, &options, &store),
                         0);
            cr_assert_eq(
                journal_replay(store_journal(store), NULL, NULL, NULL), 0);
        }
    }
    cr_assert_eq(store_close(store), 0);
    memfs_mark(fs, n_steps);
}

Test(store_crash, every_power_failure)
{
    static struct model m;
    struct crash_aux aux = {.m = &m};
    bool full = getenv("CRASH_FULL") != NULL;
    size_t n;

    memfs_record(fs);
    run_workload(&m, full ? N_STEPS : N_STEPS_QUICK, true);
    n = crash_enumerate(fs, full ? CRASH_FULL : CRASH_QUICK, crash_check, &aux,
                        NULL);
    cr_log_info("%zu images of %zu operations", n, memfs_n_recorded(fs));
    cr_assert_gt(n, 1000);
}

/* A creation that is cut off leaves either no store or a whole one. */
static bool
create_check(void *aux, struct memfs *image, uint64_t acknowledged,
             const char *what)
{
    struct store_options o = options;
    struct store *store;
    int error;

    o.files = memfs_layer(image);
    error = store_open("mem", 0, &o, &store);
    if (error == ENOENT && !acknowledged) {
        cr_expect_eq(store_create("mem", &o), 0, "%s: again", what);
        error = store_open("mem", 0, &o, &store);
    }
    cr_expect_eq(error, 0, "%s: %s", what, strerror(error));
    if (!error) {
        store_abandon(store);
    }
    return !error;
}

Test(store_crash, creation)
{
    struct memfs *empty = memfs_create();
    struct store_options o = options;

    o.files = memfs_layer(empty);
    memfs_record(empty);
    cr_assert_eq(store_create("mem", &o), 0);
    memfs_mark(empty, 1);
    cr_assert_gt(crash_enumerate(empty, CRASH_FULL, create_check, NULL, NULL),
                 5);
    memfs_destroy(empty);
}

/* The n-th operation of each kind fails, once or from then on. */
static void
check_fault(unsigned mask, int fault, bool forever)
{
    unsigned n_steps = getenv("CRASH_FULL") ? 30 : 16;

    for (unsigned nth = 1;; nth++) {
        static struct model m;
        struct memfs *copy = memfs_clone(fs);
        struct store_options o = options;
        struct store *store = NULL;
        const char *wrong;
        bool failed;
        int error;

        memset(&m, 0, sizeof m);
        o.files = memfs_layer(copy);
        memfs_fail(copy, mask, nth, fault, forever);
        error = store_open("mem", STORE_NO_THREAD, &o, &store);
        if (!error) {
            error = journal_replay(store_journal(store), NULL, NULL, NULL);
        }
        for (unsigned i = 0; i < n_steps && !error; i++) {
            error = do_step(store, &m, i);
        }
        failed = memfs_has_failed(copy);
        cr_assert(failed || !error, "an error without a fault");
        if (error && store) {
            /* After a failed change nothing is promised but the truth. */
            for (unsigned n = 0; n < m.n_put; n++) {
                int e = store_helper_check(store, n, &m.ids[n]);

                cr_assert(e == 0 || (forever && mask & MEMFS_READ) ||
                              (e == ENOENT && n >= m.n_put),
                          "object %u: %s", n, strerror(e));
            }
            if (store_broken(store)) {
                struct store_put put = {
                    .data = "x", .size = 1, .kind = STORE_DATA, .format = 200};

                cr_assert_eq(store_put(store, &put, NULL), EIO);
                cr_assert_eq(store_sync(store), EIO);
            }
        }
        /* The disk is well again; what was acknowledged must be there. */
        store_abandon(store);
        memfs_fail(copy, 0, 0, 0, false);
        error = store_open("mem", STORE_NO_THREAD, &o, &store);
        cr_assert_eq(error, 0, "mask %u nth %u: reopen: %s", mask, nth,
                     strerror(error));
        wrong = check_store(store, &m, &m.steps[m.n_steps]);
        cr_assert_null(wrong, "mask %u nth %u: %s", mask, nth, wrong);
        store_abandon(store);
        memfs_destroy(copy);
        if (!failed) {
            cr_log_info("mask %u: %u faults", mask, nth - 1);
            cr_assert_gt(nth, 1);
            break;
        }
    }
}

Test(store_crash, every_failing_write)
{
    check_fault(MEMFS_WRITE, EIO, false);
}

Test(store_crash, every_write_enospc)
{
    check_fault(MEMFS_WRITE | MEMFS_RESIZE, ENOSPC, false);
}

Test(store_crash, every_write_enospc_forever)
{
    check_fault(MEMFS_WRITE | MEMFS_RESIZE, ENOSPC, true);
}

Test(store_crash, every_failing_sync)
{
    check_fault(MEMFS_SYNC, EIO, false);
}

Test(store_crash, every_failing_name)
{
    check_fault(MEMFS_NAMES | MEMFS_OPEN, EIO, false);
}

Test(store_crash, every_failing_resize)
{
    check_fault(MEMFS_RESIZE, EIO, false);
}

/* One bit of each byte of each file is flipped.  Wrong data is never
 * delivered; damage of a derived file costs nothing. */
static void
check_flip(const struct model *m, struct memfs *copy, const char *name,
           size_t offset, uint64_t n_logged)
{
    struct replay replay = {.m = m};
    struct store_options o = options;
    struct store *store;
    int error;

    o.files = memfs_layer(copy);
    error = store_open("mem", STORE_NO_THREAD, &o, &store);
    if (error) {
        /* The incompatible-features word and the like may refuse. */
        cr_assert(!strcmp(name, "superblock"), "%s at %zu: open: %s", name,
                  offset, strerror(error));
        return;
    }
    error = journal_replay(store_journal(store), replay_cb, &replay, NULL);
    cr_assert(!error || (error == EBADMSG && !strcmp(name, "journal")),
              "%s at %zu: replay: %s", name, offset, strerror(error));
    cr_assert(!replay.wrong, "%s at %zu: replay: wrong data", name, offset);
    /* Damage of the last batch cannot be told from a crash. */
    cr_assert(error || replay.first + replay.n >= n_logged,
              "%s at %zu: record %llu lost silently", name, offset,
              (unsigned long long) (replay.first + replay.n));
    for (unsigned n = 0; n < m->n_put; n++) {
        error = store_helper_check(store, n, &m->ids[n]);
        cr_assert(error != EILSEQ, "%s at %zu: wrong data", name, offset);
        cr_assert(!error || !strncmp(name, "seg/", 4) ||
                      (!strncmp(name, "idx/", 4) && error == EBADMSG),
                  "%s at %zu: object %u: %s", name, offset, n,
                  strerror(error));
    }
    store_abandon(store);

    /* After damage of the index was met, the next open heals it. */
    if (!strncmp(name, "idx/", 4)) {
        error = store_open("mem", STORE_NO_THREAD, &o, &store);
        cr_assert_eq(error, 0);
        for (unsigned n = 0; n < m->n_put; n++) {
            cr_assert_eq(store_helper_check(store, n, &m->ids[n]), 0,
                         "%s at %zu: not healed", name, offset);
        }
        store_abandon(store);
    }
}

Test(store_crash, every_flipped_bit)
{
    static struct model m;
    struct store *store;
    size_t n_flips = 0, total = 0;
    uint64_t n_logged = 0, last = 0;
    unsigned step = getenv("CRASH_DEEP") ? 1 : getenv("CRASH_FULL") ? 5 : 97;

    cr_assert_eq(store_open("mem", STORE_NO_THREAD, &options, &store), 0);
    cr_assert_eq(journal_replay(store_journal(store), NULL, NULL, NULL), 0);
    for (unsigned i = 0; i < 8; i++) {
        cr_assert_eq(do_step(store, &m, i), 0);
    }
    for (unsigned i = 0; i < 40; i++) {
        uint64_t lsn;

        cr_assert_eq(log_next(store, &m, &lsn), 0);
        if (i % 4 == 3) {
            n_logged = last;
            last = m.n_appended;
            cr_assert_eq(journal_commit(store_journal(store), lsn), 0);
        }
    }
    cr_assert_eq(store_close(store), 0);

    for (size_t i = 0; memfs_name(fs, i); i++) {
        char name[64];
        size_t size;

        snprintf(name, sizeof name, "%s", memfs_name(fs, i));
        memfs_data(fs, name, &size);
        total += size;
        for (size_t offset = i % step; offset < size; offset += step) {
            struct memfs *copy = memfs_clone(fs);

            memfs_data(copy, name, &size)[offset] ^= 1 << (offset % 8);
            check_flip(&m, copy, name, offset, n_logged);
            memfs_destroy(copy);
            n_flips++;
        }
    }
    cr_log_info("%zu flips in %zu bytes", n_flips, total);
    cr_assert_gt(n_flips, 1000);
}

/* Verification names what is damaged, and a put repairs it. */
Test(store_crash, repair_by_put)
{
    struct store *store;
    struct store_id id;
    struct store_info info;
    struct object *object;
    char name[32];
    size_t size;

    options.node_cache = options.record_cache = 0;
    cr_assert_eq(store_open("mem", STORE_NO_THREAD, &options, &store), 0);
    cr_assert_eq(store_helper_put(store, 40, NULL, &id), 0);
    cr_assert_eq(store_sync(store), 0);
    cr_assert_eq(store_has(store, &id, &info), 0);
    snprintf(name, sizeof name, "seg/%016llx", (unsigned long long) info.pack);
    memfs_data(fs, name, &size)[info.offset + info.stored_size - 20] ^= 4;
    cr_assert_eq(store_get(store, &id, 0, &object), EBADMSG);
    cr_assert_eq(store_helper_verify(store, false), EBADMSG);
    cr_assert_eq(store_helper_put(store, 40, NULL, &id), 0);
    cr_assert_eq(store_helper_check(store, 40, &id), 0);
    store_abandon(store);
    cr_assert_eq(store_open("mem", STORE_NO_THREAD, &options, &store), 0);
    cr_assert_eq(store_helper_check(store, 40, &id), 0);
    store_abandon(store);
}
