/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See fake-branch.c. */
#ifndef TESTS_UNIT_FAKE_BRANCH_H
#define TESTS_UNIT_FAKE_BRANCH_H 1

#include <pthread.h>

/* Every 'fake_wait'-th call under nowait says EAGAIN; 0: none. */
extern int fake_wait;
/* Whoever holds it stops all fsyncs. */
extern pthread_mutex_t fake_fsync_gate;
/* Inodes that exist. */
extern unsigned int fake_n_files;

#endif /* tests/unit/fake-branch.h */
