/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The inside of 'struct index', for index.c and index-rebuild.c. */

#ifndef VAFS_STORE_INDEX_PRIVATE_H
#define VAFS_STORE_INDEX_PRIVATE_H 1

#include "vafs-server/store/index.h"
#include "vafs-server/store/run.h"

/* An immutable list of runs, oldest first. */
struct run_set {
    unsigned refs; /* Atomic. */
    uint32_t n;
    struct run *runs[];
};

struct index {
    struct file_layer *files;
    struct health *health;
    struct segments *segs;
    uint8_t uuid[16];
    size_t memory;

    pthread_rwlock_t lock; /* Protects the pointers; not what they point to. */
    struct memtable *active, *frozen, *transient;
    struct run_set *runs;

    /* Upkeep's own. */
    struct manifest manifest; /* As on disk. */
    /* What runs and 'frozen' cover together. */
    struct manifest_segment *pending;
    uint32_t n_pending;
    bool no_manifest; /* There was no room for one. */
    bool damaged;     /* Atomic. */
};

struct run_set *run_set_create__(uint32_t n);
void run_set_unref__(struct run_set *); /* Accepts NULL. */

size_t index_memtable_limit__(const struct index *);
/* Bytes that a new run's filter may take in memory. */
size_t index_filter_budget__(const struct run_set *, size_t memory);
/* Notes in 'pending' how far the segments go now, under all class mutexes. */
int index_capture__(struct index *) NODISCARD;
int index_sync_pending__(struct index *) NODISCARD;
/* Writes 'frozen' as run 'number' of tier 0. */
int index_write_run__(struct index *, uint64_t number) NODISCARD;
/* A new set: the present one with runs ['first', 'first' + 'n') replaced by
 * 'run' (taken over; may be NULL).  NULL: no memory. */
struct run_set *
index_replace__(struct index *, uint32_t first, uint32_t n, struct run *);
/* Writes a manifest with the runs of 'set' and 'pending' and makes both
 * current.  'drop_frozen': the frozen memtable is in these runs. */
int
index_publish__(struct index *, struct run_set *, bool drop_frozen) NODISCARD;
void index_unlink_run__(struct index *, uint64_t number);

#endif /* vafs-server/store/index-private.h */
