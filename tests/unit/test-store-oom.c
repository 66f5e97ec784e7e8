/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The store when memory runs out: the n-th allocation fails, for every n.  An
 * operation either works or says ENOMEM, works when it is tried again, and
 * nothing is lost.  The linker redirects the allocations of our code (not of
 * the shared libraries) to the functions below. */

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/vlog.h"
#include "vafs-server/store/journal.h"
#include "vafs-server/store/store.h"

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void *__real_aligned_alloc(size_t, size_t);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
void *__wrap_aligned_alloc(size_t, size_t);

static __thread unsigned countdown; /* 0: never fail. */
static __thread bool has_failed;

static bool
fails(void)
{
    if (countdown && !--countdown) {
        has_failed = true;
        return true;
    }
    return false;
}

void *
__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *p, size_t size)
{
    return fails() ? NULL : __real_realloc(p, size);
}

void *
__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

#define N_OBJECTS 60

static uint8_t contents[N_OBJECTS][6000];
static struct store_id ids[N_OBJECTS];
static char dir[64];

static int
remove_entry(const char *path, const struct stat *st, int flag,
             struct FTW *ftw)
{
    return remove(path);
}

/* Calls EXPR; if it fails for want of memory, once more. */
#define RETRY(EXPR)                                                    \
    do {                                                               \
        int error_ = EXPR;                                             \
                                                                       \
        if (error_) {                                                  \
            cr_assert_eq(error_, ENOMEM, "nth %u: %s: %s", nth, #EXPR, \
                         strerror(error_));                            \
            cr_assert(has_failed);                                     \
            error_ = EXPR;                                             \
        }                                                              \
        cr_assert_eq(error_, 0, "nth %u: %s: %s", nth, #EXPR,          \
                     strerror(error_));                                \
    } while (0)

static int
put(struct store *store, unsigned n, struct store_needs *needs)
{
    struct store_put p = {.data = contents[n],
                          .size = sizeof contents[n],
                          .kind = n % 2 ? STORE_NODE : STORE_DATA,
                          .format = 1,
                          .base = n >= 2 ? &ids[n - 2] : NULL};
    int error = store_put(store, &p, needs);

    if (!error) {
        ids[n] = p.id;
    }
    return error;
}

static int
check(struct store *store, unsigned n)
{
    struct object *object;
    int error = store_get(store, &ids[n], 0, &object);

    if (!error) {
        error = object->size == sizeof contents[n] &&
                        !memcmp(object->data, contents[n], object->size)
                    ? 0
                    : EILSEQ;
        object_unref(object);
    }
    return error;
}

static void
round_trip(unsigned nth, const struct store_options *o)
{
    struct store_needs needs = {.n = 0};
    struct store *store = NULL;
    struct store_root root;
    uint64_t lsn;

    countdown = nth;
    has_failed = false;
    RETRY(store_create(dir, o));
    RETRY(store_open(dir, STORE_NO_THREAD, o, &store));
    RETRY(journal_replay(store_journal(store), NULL, NULL, NULL));
    for (unsigned n = 0; n < N_OBJECTS; n++) {
        struct iovec iov = {.iov_base = contents[n], .iov_len = 3000};

        RETRY(put(store, n, &needs));
        RETRY(check(store, n));
        RETRY(journal_append(store_journal(store), 1, &iov, 1, 0, &lsn));
        if (n % 10 == 9) {
            RETRY(store_sync_needs(store, &needs));
            RETRY(journal_commit(store_journal(store), lsn));
            memset(&root, 0, sizeof root);
            root.id = ids[n];
            root.journal_tail = lsn;
            RETRY(store_set_root(store, &root));
        }
    }
    RETRY(store_reserve(store, STORE_CLASS_DATA, 100000));
    RETRY(store_verify(store, NULL, NULL, NULL));
    store_needs_clear(&needs);
    if (nth % 3) {
        int error = store_close(store);

        cr_assert(!error || (error == ENOMEM && has_failed));
    } else {
        store_abandon(store);
    }
    RETRY(store_open(dir, STORE_NO_THREAD, o, &store));
    countdown = 0;
    for (unsigned n = 0; n < N_OBJECTS; n++) {
        cr_assert_eq(check(store, n), 0);
    }
    cr_assert_eq(store_verify(store, NULL, NULL, NULL), 0);
    store_abandon(store);
}

Test(store_oom, every_failing_allocation, .timeout = 300)
{
    struct store_options o;
    unsigned nth;

    cr_assert_eq(vlog_set_level("off"), 0);
    snprintf(dir, sizeof dir, "%s/store-oom-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    cr_assert(mkdtemp(dir));
    store_options_init(&o, 1 << 20);
    o.segment_size = 65536;
    o.journal_chunk = 65536;
    o.journal_max = 8 * 65536;
    o.reserve = 16384;
    o.index_memory = 4 * 8192;
    o.node_cache = o.record_cache = 32768;
    for (unsigned n = 0; n < N_OBJECTS; n++) {
        for (unsigned i = 0; i < sizeof contents[n]; i++) {
            contents[n][i] = (uint8_t) (i * i >> 5 ^ (i % 100 == n % 100) * n);
        }
        memcpy(contents[n], &n, sizeof n);
    }
    for (nth = 1;; nth++) {
        round_trip(nth, &o);
        cr_assert_eq(nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
        if (!has_failed) {
            break;
        }
    }
    cr_log_info("%u allocations", nth - 1);
    cr_assert_gt(nth, 100);
}
