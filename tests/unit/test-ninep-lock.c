/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Byte-range locks: splitting, conflicts, waiting, deadlocks, freeing; and a
 * random run against a map of bytes. */

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "vafs-server/ninep/lock.h"

static const struct lock_key key = {1, 100}, key2 = {1, 101};
static int sessions[4];
static struct lock_quota quotas[4];

static struct lock_owner
owner(int session, uint32_t pid)
{
    return (struct lock_owner){
        .session = &sessions[session],
        .quota = &quotas[session],
        .client_id = {"host", 4},
        .proc_id = pid,
    };
}

static int
set(struct lock_table *t, const struct lock_key *k, int session, uint32_t pid,
    uint8_t type, uint64_t start, uint64_t length)
{
    struct lock_owner o = owner(session, pid);
    struct lock_range r;

    cr_assert_eq(lock_range_init(&r, type, start, length), 0);
    return lock_set(t, k, &o, &r, &sessions[session], NULL, NULL, NULL);
}

struct wait {
    int n_called;
    int error;
    struct lock_waiter *waiter;
};

static void
granted(int error, void *wait_)
{
    struct wait *wait = wait_;

    wait->n_called++;
    wait->error = error;
}

static int
wait_for(struct lock_table *t, const struct lock_key *k, int session,
         uint32_t pid, uint8_t type, uint64_t start, uint64_t length,
         struct wait *wait)
{
    struct lock_owner o = owner(session, pid);
    struct lock_range r;

    memset(wait, 0, sizeof *wait);
    cr_assert_eq(lock_range_init(&r, type, start, length), 0);
    return lock_set(t, k, &o, &r, &sessions[session], granted, wait,
                    &wait->waiter);
}

#define R NINEP_LOCK_RDLCK
#define W NINEP_LOCK_WRLCK
#define U NINEP_LOCK_UNLCK

Test(lock, ranges)
{
    struct lock_range r;

    cr_assert_eq(lock_range_init(&r, W, 0, 0), 0);
    cr_assert_eq(r.end, UINT64_MAX);
    cr_assert_eq(lock_range_init(&r, W, 5, 1), 0);
    cr_assert_eq(r.end, 5);
    cr_assert_eq(lock_range_init(&r, W, UINT64_MAX, 1), 0);
    cr_assert_eq(r.end, UINT64_MAX);
    cr_assert_eq(lock_range_init(&r, W, UINT64_MAX, 2), EOVERFLOW);
    cr_assert_eq(lock_range_init(&r, 3, 0, 1), EINVAL);
}

Test(lock, conflicts)
{
    struct lock_table *t;

    cr_assert_eq(lock_table_create(&t), 0);
    cr_assert_eq(set(t, &key, 0, 1, R, 0, 10), 0);
    cr_assert_eq(set(t, &key, 1, 1, R, 5, 10), 0);
    cr_assert_eq(set(t, &key, 1, 1, W, 5, 1), EAGAIN);
    cr_assert_eq(set(t, &key, 1, 1, W, 10, 1), 0);
    cr_assert_eq(set(t, &key2, 1, 1, W, 0, 0), 0, "another file");
    cr_assert_eq(set(t, &key, 0, 2, W, 5, 1), EAGAIN, "another process");
    cr_assert_eq(set(t, &key, 0, 1, U, 5, 1), 0);
    cr_assert_eq(set(t, &key, 1, 1, W, 5, 1), 0, "after the split");
    cr_assert_eq(set(t, &key, 2, 1, R, 4, 1), 0);
    lock_release_session(t, &sessions[0]);
    lock_release_session(t, &sessions[1]);
    cr_assert_eq(lock_count(t), 1);
    lock_release_session(t, &sessions[2]);
    cr_assert_eq(lock_count(t), 0);
    lock_table_destroy(t);
}

Test(lock, waiting)
{
    struct lock_table *t;
    struct wait w1, w2, w3;

    cr_assert_eq(lock_table_create(&t), 0);
    cr_assert_eq(set(t, &key, 0, 1, W, 0, 10), 0);
    cr_assert_eq(wait_for(t, &key, 1, 1, R, 0, 5, &w1), EINPROGRESS);
    cr_assert_eq(wait_for(t, &key, 2, 1, R, 5, 5, &w2), EINPROGRESS);
    cr_assert_eq(wait_for(t, &key, 3, 1, W, 5, 5, &w3), EINPROGRESS);
    cr_assert_eq(lock_count_waiters(t), 3);
    cr_assert_eq(set(t, &key, 0, 1, U, 0, 3), 0);
    cr_assert_eq(w1.n_called, 0, "part of it is still locked");
    cr_assert_eq(set(t, &key, 0, 1, R, 0, 10), 0, "downgrade");
    cr_assert_eq(w1.n_called, 1);
    cr_assert_eq(w2.n_called, 1);
    cr_assert_eq(w3.n_called, 0);
    lock_release_session(t, &sessions[2]);
    cr_assert_eq(w3.n_called, 0);
    lock_cancel(t, w3.waiter);
    lock_release_session(t, &sessions[0]);
    cr_assert_eq(w3.n_called, 0, "cancelled");
    lock_release_fid(t, &key, &sessions[1]);
    cr_assert_eq(lock_count(t), 0);
    cr_assert_eq(lock_count_waiters(t), 0);
    lock_table_destroy(t);
}

Test(lock, deadlock)
{
    struct lock_table *t;
    struct wait w1, w2, w3;

    cr_assert_eq(lock_table_create(&t), 0);
    cr_assert_eq(set(t, &key, 0, 1, W, 0, 1), 0);
    cr_assert_eq(set(t, &key, 1, 1, W, 1, 1), 0);
    cr_assert_eq(set(t, &key2, 2, 1, W, 0, 1), 0);
    cr_assert_eq(wait_for(t, &key, 0, 1, W, 1, 1, &w1), EINPROGRESS);
    cr_assert_eq(wait_for(t, &key, 1, 1, W, 0, 1, &w2), EDEADLK);
    cr_assert_eq(wait_for(t, &key2, 1, 1, W, 0, 1, &w2), EINPROGRESS);
    cr_assert_eq(wait_for(t, &key, 2, 1, W, 0, 1, &w3), EDEADLK,
                 "over three owners and two files");
    lock_release_session(t, &sessions[2]);
    cr_assert_eq(w2.n_called, 1);
    cr_assert_eq(w2.error, 0);
    lock_release_session(t, &sessions[1]);
    cr_assert_eq(w1.n_called, 1);
    lock_table_destroy(t);
}

/* Four owners, 32 bytes, against an array. */
Test(lock, model)
{
    uint8_t model[4][32] = {{0}}; /* 0 none, 1 read, 2 write. */
    struct lock_table *t;

    srand(1);
    cr_assert_eq(lock_table_create(&t), 0);
    for (int i = 0; i < 20000; i++) {
        int who = rand() % 4, start = rand() % 32;
        int length = 1 + rand() % (32 - start);
        uint8_t type = rand() % 3;
        bool conflict = false;
        struct lock_owner o = owner(who, 9), other;
        struct lock_range r, found;

        cr_assert_eq(lock_range_init(&r, type, start, length), 0);
        for (int j = 0; type != U && j < 4; j++) {
            for (int k = start; j != who && k < start + length; k++) {
                conflict |= model[j][k] == 2 || (model[j][k] && type == W);
            }
        }
        cr_assert_eq(lock_test(t, &key, &o, &r, &found, &other), conflict);
        cr_assert_eq(set(t, &key, who, 9, type, start, length),
                     conflict ? EAGAIN : 0);
        if (!conflict) {
            memset(&model[who][start],
                   type == U   ? 0
                   : type == R ? 1
                               : 2,
                   length);
        }
    }
    for (int i = 0; i < 4; i++) {
        lock_release_session(t, &sessions[i]);
    }
    cr_assert_eq(lock_count(t), 0);
    lock_table_destroy(t);
}

/* One session cannot take all locks from the others. */
Test(lock, quota)
{
    struct lock_table *t;
    int n = 0;

    cr_assert_eq(lock_table_create(&t), 0);
    while (!set(t, &key, 0, 1, W, 2 * n, 1)) {
        n++;
    }
    cr_assert_gt(n, 1000);
    cr_assert_lt(n, 10000);
    cr_assert_eq(set(t, &key, 1, 1, W, 1000001, 1), 0, "others go on");
    cr_assert_eq(set(t, &key, 0, 1, U, 0, 2), 0, "unlocking always goes");
    cr_assert_eq(set(t, &key, 0, 1, W, 0, 1), 0);
    lock_release_session(t, &sessions[0]);
    cr_assert_eq(quotas[0].n, 0);
    cr_assert_eq(quotas[1].n, 1);
    lock_release_session(t, &sessions[1]);
    lock_table_destroy(t);
}
