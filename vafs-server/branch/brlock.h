/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Big-reader lock: readers touch only a counter that is (nearly) their own,
 * the writer waits for all of them.  Sections must be short and must not
 * sleep.  Writers exclude each other by a mutex outside. */

#ifndef VAFS_BRANCH_BRLOCK_H
#define VAFS_BRANCH_BRLOCK_H 1

#include <sched.h>
#include <stdint.h>

#define BRLOCK_SLOTS 16

struct brlock {
    struct {
        unsigned int readers;
        char pad[60];
    } slot[BRLOCK_SLOTS];
    unsigned int writer;
};

/* The calling thread's slot; in edge.c. */
unsigned int brlock_slot__(void);

static inline void
brlock_read_lock(struct brlock *lock)
{
    unsigned int *readers = &lock->slot[brlock_slot__()].readers;

    for (;;) {
        __atomic_fetch_add(readers, 1, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&lock->writer, __ATOMIC_SEQ_CST)) {
            return;
        }
        __atomic_fetch_sub(readers, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&lock->writer, __ATOMIC_RELAXED)) {
            sched_yield();
        }
    }
}

static inline void
brlock_read_unlock(struct brlock *lock)
{
    __atomic_fetch_sub(&lock->slot[brlock_slot__()].readers, 1,
                       __ATOMIC_RELEASE);
}

static inline void
brlock_write_lock(struct brlock *lock)
{
    __atomic_store_n(&lock->writer, 1, __ATOMIC_SEQ_CST);
    for (unsigned int i = 0; i < BRLOCK_SLOTS; i++) {
        while (__atomic_load_n(&lock->slot[i].readers, __ATOMIC_SEQ_CST)) {
            sched_yield();
        }
    }
}

static inline void
brlock_write_unlock(struct brlock *lock)
{
    __atomic_store_n(&lock->writer, 0, __ATOMIC_SEQ_CST);
}

#endif /* vafs-server/branch/brlock.h */
