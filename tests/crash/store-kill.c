/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A process that uses a store is killed again and again; what it had been
 * promised must be there.
 *
 *     store-kill DIRECTORY [ROUNDS]
 *
 * The child puts objects by number, syncs, logs numbers and commits, and tells
 * through a pipe what has been acknowledged.  (Killing a process loses nothing
 * that the kernel has; the enumeration of power failures is elsewhere.  This
 * one has real files, real threads and real timing.) */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/util.h"
#include "lib/vlog.h"
#include "vafs-server/store/journal.h"
#include "vafs-server/store/store.h"

struct promise {
    uint64_t n_durable; /* Objects 0..n-1. */
    uint64_t n_logged;  /* Records 0..n-1. */
};

static struct store_options options;
static const char *dir;

static void
check(int error, const char *what)
{
    if (error) {
        printf("not ok - store-kill: %s: %s\n", what, strerror(error));
        exit(EXIT_FAILURE);
    }
}

/* Content number 'n'; a rare one is large. */
static size_t
content(uint64_t n, uint8_t data[65536])
{
    size_t size = n % 50 ? 200 + n * 31 % 3000 : 65536;

    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t) (i * (n + 3) >> 4);
    }
    put_le64(data, n);
    return size;
}

static int
replay_cb(void *next_, const struct journal_record *r)
{
    uint64_t *next = next_;
    uint64_t number = get_le64(r->body);

    if (*next && number != *next) {
        return EILSEQ;
    }
    *next = number + 1;
    return 0;
}

static struct store *
open_store(uint64_t *n_logged)
{
    struct store *store;

    check(store_open(dir, 0, &options, &store), "open");
    *n_logged = 0;
    check(journal_replay(store_journal(store), replay_cb, n_logged, NULL),
          "replay");
    return store;
}

static void
child(int pipe_fd, struct promise p)
{
    static uint8_t data[65536];
    struct store_needs needs = {.n = 0};
    struct store_root root;
    uint64_t n = p.n_durable, lsn = 0, logged;
    struct store *store = open_store(&logged);

    memset(&root, 0, sizeof root);
    for (logged = MAX(logged, p.n_logged);; n++) {
        struct store_put put = {.data = data, .kind = STORE_NODE, .format = 1};
        struct iovec iov = {.iov_base = data, .iov_len = 8};
        int error;

        put.size = content(n, data);
        check(store_put(store, &put, &needs), "put");
        put_le64(data, logged);
        error = journal_append(store_journal(store), 1, &iov, 1,
                               JOURNAL_URGENT, &lsn);
        if (!error) {
            logged++;
        }
        if (error == ENOBUFS || n % 997 == 996) {
            /* Keep the last record: it tells the number to go on with. */
            root.id = put.id;
            check(store_set_root(store, &root), "set root");
            p.n_durable = n + 1;
        } else {
            check(error, "append");
            root.journal_tail = journal_head(store_journal(store)) - 48;
        }
        if (n % 7 == 0) {
            check(store_sync_needs(store, &needs), "sync");
            p.n_durable = n + 1;
        }
        if (n % 3 == 0) {
            check(journal_commit(store_journal(store), lsn), "commit");
            p.n_logged = logged;
        }
        check(write_full(pipe_fd, &p, sizeof p), "write");
    }
}

static void
check_round(const struct promise *p)
{
    static uint8_t data[65536];
    uint64_t n_logged;
    struct store *store = open_store(&n_logged);

    check(n_logged >= p->n_logged ? 0 : ENODATA, "committed records");
    for (uint64_t n = 0; n < p->n_durable; n++) {
        size_t size = content(n, data);
        struct object *object;
        struct store_id id;

        /* All of the last ones, some of the old ones. */
        if (n + 3000 < p->n_durable && n % 61) {
            continue;
        }
        check(store_hash(STORE_NODE, 1, data, size, &id), "hash");
        check(store_get(store, &id, STORE_NODE, &object), "get");
        check(object->size == size && !memcmp(object->data, data, size)
                  ? 0
                  : EILSEQ,
              "content");
        object_unref(object);
    }
    check(store_verify(store, NULL, NULL, NULL), "verify");
    store_abandon(store);
}

int
main(int argc, char *argv[])
{
    int n_rounds = argc > 2 ? atoi(argv[2]) : 20;
    struct promise p = {.n_durable = 0};

    if (argc < 2) {
        fprintf(stderr, "usage: store-kill DIRECTORY [ROUNDS]\n");
        return EXIT_FAILURE;
    }
    vlog_init("store-kill");
    dir = argv[1];
    store_options_init(&options, 8 << 20);
    options.segment_size = 1 << 20;
    options.journal_chunk = 65536;
    options.journal_max = 16 * 65536;
    options.index_memory = 1 << 20;
    check(store_create(dir, &options), "create");
    for (int round = 0; round < n_rounds; round++) {
        struct promise got;
        int fds[2];
        pid_t pid;

        check(pipe(fds) ? errno : 0, "pipe");
        pid = fork();
        check(pid < 0 ? errno : 0, "fork");
        if (!pid) {
            close(fds[0]);
            child(fds[1], p);
        }
        close(fds[1]);
        /* Killed after so many promises, which takes no clock. */
        for (int i = 0; i < 200 + round * 1237 % 2500; i++) {
            check(read_full(fds[0], &got, sizeof got), "child died");
            p = got;
        }
        kill(pid, SIGKILL);
        while (!read_full(fds[0], &got, sizeof got)) {
            p = got;
        }
        waitpid(pid, NULL, 0);
        close(fds[0]);
        check_round(&p);
    }
    printf("ok - store-kill: %d rounds, %llu objects, %llu records\n",
           n_rounds, (unsigned long long) p.n_durable,
           (unsigned long long) p.n_logged);
    return EXIT_SUCCESS;
}
