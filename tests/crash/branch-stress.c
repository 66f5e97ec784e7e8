/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Many threads on one branch, and kill -9 in the middle of that.
 *
 *     branch-stress threads SECONDS   a store in memory, 6 threads and the
 *                                     checkpoint thread; then everything is
 *                                     compared and verified (also for TSan)
 *     branch-stress kill DIR ROUNDS   a child works in DIR and reports what is
 *                                     durable; it is killed; what it had
 *                                     reported must be there
 *
 * A file's content tells its own number and length, so that any mixture is
 * seen.  Output is TAP. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/vlog.h"
#include "tests/crash/memfs.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/branch/file.h"
#include "vafs-server/store/journal.h"
#include "vafs-server/store/store.h"

#define N_THREADS 6
#define N_NAMES 40
#define SIZE_MAX__ 150000

static const struct file_cred cred = {1, 1};
static struct store *store;
static struct catalogue *cat;
static struct branch *branch;
static struct file *root, *shared;
static unsigned stop;
static unsigned n_failures;

static void PRINTF_FORMAT(1, 2) fail(const char *fmt, ...)
{
    va_list args;

    __atomic_fetch_add(&n_failures, 1, __ATOMIC_RELAXED);
    fprintf(stdout, "# ");
    va_start(args, fmt);
    vfprintf(stdout, fmt, args);
    va_end(args);
    fprintf(stdout, "\n");
}

static void
check(int error, const char *what)
{
    if (error) {
        printf("Bail out! %s: %s\n", what, strerror(error));
        exit(1);
    }
}

static uint32_t
rnd(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return *state >> 33;
}

/* Content 'version' of file 'number': each 8 bytes say which they are. */
static void
fill(uint8_t *buf, size_t size, uint32_t number, uint32_t version)
{
    for (size_t i = 0; i + 8 <= size; i += 8) {
        put_le32(buf + i, number * 2654435761u + version);
        put_le32(buf + i + 4, i);
    }
}

static size_t
size_of(uint32_t number, uint32_t version)
{
    static const size_t sizes[] = {8,     400,   512,   4096,
                                   20000, 65536, 70000, 140000};

    return sizes[(number + version) % 8];
}

static bool
is_content(const uint8_t *buf, size_t size, uint32_t number, uint32_t version)
{
    if (size != size_of(number, version)) {
        return false;
    }
    for (size_t i = 0; i + 8 <= size; i += 8) {
        if (get_le32(buf + i) != number * 2654435761u + version ||
            get_le32(buf + i + 4) != i) {
            return false;
        }
    }
    return true;
}

static void
report(const char *message, void *aux)
{
    fail("%s", message);
}

static void
verify(void)
{
    struct branch_verify_stats stats;

    check(branch_verify(cat, true, report, NULL, NULL, &stats), "verify");
}

static void
open_store(const char *dir, struct store_options *options, bool create)
{
    struct catalogue_options co = {.memory = 32 << 20, .checkpoint_ms = 50};

    if (create) {
        check(store_create(dir, options), dir);
        check(store_open(dir, 0, options, &store), "store_open");
        check(journal_replay(store_journal(store), NULL, NULL, NULL),
              "replay");
        check(catalogue_create(store, 0, 0), "catalogue_create");
        check(store_close(store), "store_close");
    }
    check(store_open(dir, 0, options, &store), "store_open");
    check(catalogue_open(store, &co, &cat), "catalogue_open");
    check(branch_open(cat, "main", &branch), "branch_open");
    check(file_root(branch, &root), "root");
}

static void
close_store(void)
{
    file_unref(root);
    branch_close(branch);
    check(catalogue_close(cat), "catalogue_close");
    check(store_close(store), "store_close");
}

/* Threads. */

struct worker {
    unsigned id;
    uint64_t state, n_ops;
    struct file *dir;
    uint32_t version[N_NAMES]; /* Of each of its files; 0: absent. */
    uint8_t buf[SIZE_MAX__];
};

static void
read_back(struct worker *w, unsigned i)
{
    struct file *file;
    char name[20];
    size_t n;
    int error;

    sprintf(name, "f%u", i);
    error = file_lookup(w->dir, name, strlen(name), &file);
    if (error != (w->version[i] ? 0 : ENOENT)) {
        fail("worker %u: %s: %s", w->id, name, strerror(error));
        return;
    }
    if (error) {
        return;
    }
    check(file_read(file, w->buf, sizeof w->buf, 0, &n), "read");
    if (!is_content(w->buf, n, w->id * N_NAMES + i, w->version[i])) {
        fail("worker %u: %s: wrong content of %zu bytes", w->id, name, n);
    }
    file_unref(file);
}

static void
rewrite(struct worker *w, unsigned i)
{
    struct file_setattr set = {.mask = FILE_SET_SIZE};
    uint32_t number = w->id * N_NAMES + i, version = w->version[i] + 1;
    size_t size = size_of(number, version), done = 0;
    struct file *file;
    char name[20];
    int error;

    sprintf(name, "f%u", i);
    error = file_lookup(w->dir, name, strlen(name), &file);
    if (error == ENOENT) {
        error = file_create(w->dir, name, strlen(name), 0644, &cred, &file);
    }
    check(error, name);
    fill(w->buf, size, number, version);
    check(file_setattr(file, &set), "truncate");
    while (done < size) {
        size_t n = 1 + rnd(&w->state) % 50000;

        n = MIN(n, size - done);
        check(file_write(file, w->buf + done, n, 0, FILE_WRITE_APPEND, NULL),
              "write");
        done += n;
    }
    w->version[i] = version;
    if (rnd(&w->state) % 8 == 0) {
        check(file_fsync(file, false), "fsync");
    }
    file_unref(file);
}

static bool
count_cb(const struct file_dirent *d, void *n)
{
    ++*(unsigned *) n;
    return true;
}

static void *
work(void *w_)
{
    struct worker *w = w_;

    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        unsigned i = rnd(&w->state) % N_NAMES, j = rnd(&w->state) % N_NAMES;
        unsigned n = 0;
        char name[20], name2[20];
        uint8_t line[16];
        int error;

        sprintf(name, "f%u", i);
        sprintf(name2, "s%u", rnd(&w->state) % 10);
        switch (rnd(&w->state) % 8) {
        case 0:
        case 1:
        case 2:
            rewrite(w, i);
            break;
        case 3:
            error = file_unlink(w->dir, name, strlen(name), 0);
            if (error != (w->version[i] ? 0 : ENOENT)) {
                fail("unlink %s: %s", name, strerror(error));
            }
            w->version[i] = 0;
            break;
        case 4: /* All meet in one directory. */
            error =
                file_create(shared, name2, strlen(name2), 0644, &cred, NULL);
            if (error && error != EEXIST) {
                fail("create: %s", strerror(error));
            }
            error = file_rename(shared, name2, strlen(name2), root, "x", 1, 0);
            if (error && error != ENOENT) {
                fail("rename: %s", strerror(error));
            }
            break;
        case 5: /* Appending is atomic. */
            put_le64(line, w->id);
            put_le64(line + 8, w->n_ops);
            {
                struct file *file;

                check(file_lookup(root, "log", 3, &file), "log");
                check(file_write(file, line, 16, 0, FILE_WRITE_APPEND, NULL),
                      "append");
                file_unref(file);
            }
            break;
        case 6:
            check(file_readdir(w->dir, 0, count_cb, &n), "readdir");
            break;
        default:
            read_back(w, j);
        }
        w->n_ops++;
    }
    return NULL;
}

static void
check_log(struct worker *workers)
{
    uint64_t last[N_THREADS] = {0};
    struct file_attr attr;
    struct file *file;
    uint8_t line[16];
    size_t n;

    check(file_lookup(root, "log", 3, &file), "log");
    check(file_getattr(file, &attr), "getattr");
    if (attr.size % 16) {
        fail("log has %llu bytes", (unsigned long long) attr.size);
    }
    for (uint64_t at = 0; at < attr.size; at += 16) {
        uint64_t id;

        check(file_read(file, line, 16, at, &n), "read");
        id = get_le64(line);
        if (id >= N_THREADS || get_le64(line + 8) < last[id]) {
            fail("log is broken at %llu", (unsigned long long) at);
            break;
        }
        last[id] = get_le64(line + 8);
    }
    file_unref(file);
}

static int
run_threads(unsigned seconds)
{
    static struct worker workers[N_THREADS];
    struct memfs *fs = memfs_create();
    struct store_options options;
    pthread_t thread[N_THREADS];
    uint64_t until, n_ops = 0;
    unsigned tick = 0;

    store_options_init(&options, 32 << 20);
    options.segment_size = 4 << 20;
    options.files = memfs_layer(fs);
    open_store("mem", &options, true);
    check(file_mkdir(root, "shared", 6, 0755, &cred, &shared), "mkdir");
    check(file_create(root, "log", 3, 0644, &cred, NULL), "create");
    for (unsigned i = 0; i < N_THREADS; i++) {
        char name[20];

        workers[i].id = i;
        workers[i].state = i + 1;
        sprintf(name, "d%u", i);
        check(
            file_mkdir(root, name, strlen(name), 0755, &cred, &workers[i].dir),
            "mkdir");
        check(pthread_create(&thread[i], NULL, work, &workers[i]), "thread");
    }
    until = clock_mono_ns() + seconds * NSEC_PER_SEC;
    while (clock_mono_ns() < until) {
        usleep(20000);
        if (tick % 7 == 3) {
            check(branch_syncfs(branch), "syncfs");
        } else if (tick % 7 == 5) {
            check(branch_checkpoint(branch), "checkpoint");
        }
        tick++;
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < N_THREADS; i++) {
        pthread_join(thread[i], NULL);
        n_ops += workers[i].n_ops;
    }
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < N_THREADS; i++) {
            for (unsigned k = 0; k < N_NAMES; k++) {
                read_back(&workers[i], k);
            }
        }
        check_log(workers);
        verify();
        for (unsigned i = 0; i < N_THREADS; i++) {
            file_unref(workers[i].dir);
        }
        file_unref(shared);
        shared = NULL;
        close_store();
        if (round) {
            break;
        }
        open_store("mem", &options, false);
        for (unsigned i = 0; i < N_THREADS; i++) {
            char name[20];

            sprintf(name, "d%u", i);
            check(file_lookup(root, name, strlen(name), &workers[i].dir),
                  name);
        }
    }
    memfs_destroy(fs);
    printf("# %llu operations\n", (unsigned long long) n_ops);
    printf("%sok 1 - %u threads on one branch\n", n_failures ? "not " : "",
           N_THREADS);
    printf("1..1\n");
    return n_failures != 0;
}

/* kill -9. */

/* What the child says: file 'number' is durable with 'version' (0: absent). */
struct said {
    uint32_t number, version;
};

static void
child(const char *dir, int fd, uint64_t seed, uint32_t *version)
{
    static uint8_t buf[SIZE_MAX__];
    struct store_options options;

    store_options_init(&options, 32 << 20);
    open_store(dir, &options, false);
    for (;;) {
        uint32_t i = rnd(&seed) % N_NAMES;
        uint32_t v = version[i] + 1;
        size_t size = size_of(i, v);
        struct said said = {i, v};
        struct file *file;
        char name[20], tmp[20];
        int error;

        sprintf(name, "f%u", i);
        sprintf(tmp, "t%u", i);
        switch (rnd(&seed) % 3) {
        case 0: /* Written aside and put in its place. */
            error = file_create(root, tmp, strlen(tmp), 0644, &cred, &file);
            if (error == EEXIST) {
                check(file_unlink(root, tmp, strlen(tmp), 0), "unlink");
                continue;
            }
            check(error, "create");
            fill(buf, size, i, v);
            check(file_write(file, buf, size, 0, 0, NULL), "write");
            check(file_fsync(file, false), "fsync");
            file_unref(file);
            check(file_rename(root, tmp, strlen(tmp), root, name, strlen(name),
                              0),
                  "rename");
            check(file_fsync(root, false), "fsync");
            break;
        case 1:
            error = file_unlink(root, name, strlen(name), 0);
            if (error == ENOENT) {
                continue;
            }
            check(error, "unlink");
            check(rnd(&seed) % 2 ? file_fsync(root, false)
                                 : branch_syncfs(branch),
                  "sync");
            version[i] = v;
            said.version = v | UINT32_C(1) << 31;
            break;
        default: /* Noise that nobody waits for. */
            error = file_create(root, "noise", 5, 0644, &cred, &file);
            if (error == EEXIST) {
                check(file_unlink(root, "noise", 5, 0), "unlink");
                continue;
            }
            check(error, "create");
            memset(buf, 'n', sizeof buf);
            check(
                file_write(file, buf, 1 + rnd(&seed) % sizeof buf, 0, 0, NULL),
                "write");
            file_unref(file);
            continue;
        }
        version[i] = v;
        if (write(fd, &said, sizeof said) != sizeof said) {
            _exit(0);
        }
    }
}

static void
check_files(const uint32_t *version)
{
    static uint8_t buf[SIZE_MAX__];
    unsigned n_missing = 0;

    for (uint32_t i = 0; i < N_NAMES; i++) {
        uint32_t said = version[i] & ~(UINT32_C(1) << 31);
        bool gone = !said || version[i] >> 31;
        struct file *file;
        char name[20];
        size_t n;
        int error;

        sprintf(name, "f%u", i);
        error = file_lookup(root, name, strlen(name), &file);
        if (error == ENOENT) {
            /* One unlink may have got through without an answer. */
            if (!gone && n_missing++) {
                fail("%s: version %u is lost", name, said);
            }
            continue;
        }
        check(error, name);
        check(file_read(file, buf, sizeof buf, 0, &n), "read");
        if (!(!gone && is_content(buf, n, i, said)) &&
            !is_content(buf, n, i, said + 1)) {
            fail("%s: %zu bytes are neither version %u nor %u", name, n, said,
                 said + 1);
        }
        file_unref(file);
    }
}

/* As the child's numbers go on where the branch stands. */
static void
adopt(uint32_t *version)
{
    static uint8_t buf[SIZE_MAX__];

    for (uint32_t i = 0; i < N_NAMES; i++) {
        uint32_t said = version[i] & ~(UINT32_C(1) << 31);
        struct file *file;
        char name[20];
        size_t n;

        sprintf(name, "f%u", i);
        version[i] = said;
        if (!file_lookup(root, name, strlen(name), &file)) {
            check(file_read(file, buf, sizeof buf, 0, &n), "read");
            if (is_content(buf, n, i, said + 1)) {
                version[i] = said + 1;
            }
            file_unref(file);
        } else {
            version[i] = said | UINT32_C(1) << 31;
        }
    }
}

static int
run_kill(const char *dir, unsigned rounds)
{
    uint32_t version[N_NAMES] = {0};
    uint64_t seed = clock_real_ns(), n_said = 0;
    struct store_options options;

    store_options_init(&options, 32 << 20);
    open_store(dir, &options, true);
    close_store();
    for (unsigned round = 0; round < rounds; round++) {
        uint32_t start[N_NAMES];
        struct said said;
        int fds[2];
        pid_t pid;
        uint64_t until;

        for (unsigned i = 0; i < N_NAMES; i++) {
            start[i] = version[i] & ~(UINT32_C(1) << 31);
        }
        check(pipe(fds) ? errno : 0, "pipe");
        pid = fork();
        if (!pid) {
            close(fds[0]);
            child(dir, fds[1], seed + round, start);
        }
        close(fds[1]);
        until = 50000 + rnd(&seed) % 400000;
        usleep(until);
        kill(pid, SIGKILL);
        while (read(fds[0], &said, sizeof said) == sizeof said) {
            version[said.number] = said.version;
            n_said++;
        }
        close(fds[0]);
        waitpid(pid, NULL, 0);

        open_store(dir, &options, false);
        check_files(version);
        adopt(version);
        if (round % 5 == 0) {
            verify();
        }
        close_store();
    }
    printf("# %llu durable changes\n", (unsigned long long) n_said);
    printf("%sok 1 - %u kills\n", n_failures ? "not " : "", rounds);
    printf("1..1\n");
    return n_failures != 0;
}

int
main(int argc, char *argv[])
{
    vlog_init("branch-stress");
    if (vlog_set_level("warn")) {
        return 1;
    }
    if (argc == 3 && !strcmp(argv[1], "threads")) {
        return run_threads(atoi(argv[2]));
    }
    if (argc == 4 && !strcmp(argv[1], "kill")) {
        return run_kill(argv[2], atoi(argv[3]));
    }
    fprintf(stderr, "usage: branch-stress threads SECONDS\n"
                    "       branch-stress kill DIR ROUNDS\n");
    return 1;
}
