/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a guest in the supervisor's tests can make its worker do, by the first
 * word of the page that it grants.
 */
#ifndef TESTS_LOCAL_SUP_WORKER_H
#define TESTS_LOCAL_SUP_WORKER_H 1

enum sup_demand {
    SUP_SERVE = 0,
    SUP_CRASH = 1,       /* Abort when the device is added. */
    SUP_FAIL = 2,        /* Refuse the device. */
    SUP_NONSENSE = 3,    /* Send a message that is too short. */
    SUP_SILENT = 4,      /* Never answer. */
    SUP_IGNORE_QUIT = 5, /* Do not end when asked to. */
    SUP_DESCRIPTORS = 6, /* Serve, but send descriptors to the supervisor. */
    SUP_GARBAGE = 7,     /* Serve, but send random messages before. */
};

#endif /* tests/local/sup-worker.h */
