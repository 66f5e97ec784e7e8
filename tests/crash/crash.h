/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every state in which a power failure may leave a store.
 *
 * A workload runs on a recording memfs.  The enumerator then goes through the
 * record and, for a failure after each operation, builds images: what was
 * synced is there; of what was not, all is there, or nothing, or all but one,
 * or only the last one, or the last write is torn at a sector.  Names that
 * were made, changed or removed are durable after a sync of their directory;
 * before, those of the time after some point are lost.
 *
 * Nothing is assumed about an order between files, nor that a datasync makes a
 * file's name durable. */

#ifndef TESTS_CRASH_CRASH_H
#define TESTS_CRASH_CRASH_H 1

#include "tests/crash/memfs.h"

enum crash_effort {
    CRASH_QUICK, /* All but one: only just before a sync. */
    CRASH_FULL,  /* After every operation. */
};

/* Looks at one image.  'acknowledged' is the value of the last memfs_mark()
 * before the failure, 0 if none; 'what' describes the image.  Returns false
 * to stop. */
typedef bool crash_cb(void *aux, struct memfs *image, uint64_t acknowledged,
                      const char *what);

/* Calls 'cb' for each image; returns how many there were.  '*ret_stopped' (may
 * be NULL) becomes true if 'cb' stopped. */
size_t crash_enumerate(struct memfs *recorded, enum crash_effort, crash_cb *,
                       void *aux, bool *ret_stopped);

#endif /* tests/crash/crash.h */
