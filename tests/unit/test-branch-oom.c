/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A branch when memory runs out: the n-th allocation fails, for every n.  An
 * operation either works, or says ENOMEM, has changed nothing and works when
 * it is tried again.  The linker redirects the allocations of our code. */

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/vlog.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/branch/file.h"
#include "vafs-server/store/journal.h"
#include "vafs-server/store/store.h"

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void *__real_mmap(void *, size_t, int, int, int, off_t);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
void *__wrap_mmap(void *, size_t, int, int, int, off_t);

static unsigned countdown; /* 0: never fail. */
static bool has_failed;

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
__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
    return fails() ? MAP_FAILED
                   : __real_mmap(addr, size, prot, flags, fd, offset);
}

static char dir[64];
static unsigned nth;
static const struct file_cred cred = {1, 1};

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

static bool
count(const struct file_dirent *d, void *n)
{
    ++*(unsigned *) n;
    return true;
}

static void
report(const char *message, void *aux)
{
    cr_log_error("%s", message);
}

static void
work(struct catalogue *cat)
{
    static uint8_t buf[150000], back[150000];
    struct file_setattr set = {.mask = FILE_SET_SIZE, .size = 70000};
    struct branch_verify_stats stats;
    struct branch *branch;
    struct file *root, *d, *f, *g;
    unsigned entries = 0;
    size_t n = 0;

    memset(buf, 'x', sizeof buf);
    RETRY(branch_open(cat, "main", &branch));
    RETRY(file_root(branch, &root));
    RETRY(file_mkdir(root, "d", 1, 0755, &cred, &d));
    RETRY(file_create(d, "f", 1, 0644, &cred, &f));
    RETRY(file_write(f, buf, sizeof buf, 100, 0, NULL));
    RETRY(file_fsync(f, false));
    RETRY(file_setattr(f, &set));
    RETRY(file_setxattr(f, "user.x", 6, buf, 3000, 0));
    RETRY(file_link(root, "l", 1, f));
    RETRY(catalogue_checkpoint(cat));
    RETRY(file_write(f, "y", 1, 0, 0, NULL));
    RETRY(file_punch(f, 0, 65536));
    RETRY(file_create(root, "g", 1, 0644, &cred, &g));
    RETRY(file_write(g, "abc", 3, 0, 0, NULL));
    RETRY(file_rename(root, "g", 1, root, "l", 1, 0));
    RETRY(file_fsync(root, false));
    RETRY(file_readdir(d, 0, count, (entries = 0, &entries)));
    cr_assert_eq(entries, 3);
    RETRY(file_read(f, back, sizeof back, 0, &n));
    cr_assert_eq(n, 70000);
    for (size_t i = 0; i < n; i++) {
        cr_assert_eq(back[i], i < 65536 ? 0 : 'x');
    }
    RETRY(file_getxattr(f, "user.x", 6, back, sizeof back, &n));
    cr_assert_eq(n, 3000);
    RETRY(file_unlink(d, "f", 1, 0));
    RETRY(branch_syncfs(branch));
    file_unref(f);
    file_unref(g);
    file_unref(d);
    file_unref(root);
    RETRY(branch_checkpoint(branch));
    countdown = 0;
    cr_assert_eq(branch_verify(cat, true, report, NULL, NULL, &stats), 0);
    cr_assert_eq(stats.n_errors, 0, "nth %u", nth);
    branch_close(branch);
}

Test(branch_oom, every_allocation_fails_once, .timeout = 600)
{
    struct catalogue_options co = {.memory = 32 << 20, .no_thread = true};
    bool more = true;

    cr_assert_eq(vlog_set_level("off"), 0);
    for (nth = 1; more; nth++) {
        struct store_options options;
        struct catalogue *cat;
        struct store *store;

        strcpy(dir, "/dev/shm/test-branch-oom-XXXXXX");
        cr_assert_not_null(mkdtemp(dir));
        store_options_init(&options, 32 << 20);
        options.segment_size = 1 << 20;
        options.journal_chunk = 65536;
        options.journal_max = 4 << 20;
        options.reserve = 65536;
        cr_assert_eq(store_create(dir, &options), 0);
        cr_assert_eq(store_open(dir, STORE_NO_THREAD, &options, &store), 0);
        cr_assert_eq(journal_replay(store_journal(store), NULL, NULL, NULL),
                     0);
        cr_assert_eq(catalogue_create(store, 0, 0), 0);
        cr_assert_eq(store_close(store), 0);
        cr_assert_eq(store_open(dir, STORE_NO_THREAD, &options, &store), 0);
        cr_assert_eq(catalogue_open(store, &co, &cat), 0);
        has_failed = false;
        countdown = nth;
        work(cat);
        more = has_failed;
        cr_assert_eq(catalogue_close(cat), 0);
        cr_assert_eq(store_close(store), 0);
        /* And opening again, of what is there. */
        cr_assert_eq(store_open(dir, STORE_NO_THREAD, &options, &store), 0);
        countdown = nth % 40;
        if (!catalogue_open(store, &co, &cat)) {
            countdown = 0;
            cr_assert_eq(catalogue_close(cat), 0);
        }
        countdown = 0;
        store_abandon(store);
        nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
    fprintf(stderr, "# %u allocations\n", nth);
    cr_assert_gt(nth, 50);
}
