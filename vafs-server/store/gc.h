/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Garbage collection: finds out which objects nothing leads to any more and
 * gives their space back.
 *
 * Theory of operation
 * -------------------
 *
 * The store knows no trees, so its user says what the roots are and what an
 * object refers to.  One collection goes like this:
 *
 * 1. Begin.  All segments that are full now become *old*, and the superblock
 *    takes the watermark and the next epoch.  Only old segments are ever
 *    touched.  From here on a put that finds its object in an old segment, or
 *    stores a difference from an object in one, adds that to the *touched*
 *    objects before it returns.
 * 2. Grace.  The user waits until whatever it put before is reachable from its
 *    roots, or is put again.
 * 3. Mark.  All objects that the roots lead to are *kept*.
 * 4. Choose.  Old segments with no kept object, and those of which less than
 *    half is kept, are candidates.
 * 5. Bases.  What kept objects are stored as differences from is kept, too.
 * 6. Sweep, one segment after the other, the emptiest first.  It is
 *    *condemned*: for a put, an object in it is not there.  What is kept or
 *    touched is copied to segments of the generations WHOLE and DELTAS, with
 *    the position it had, and entered in the index; the copies are synced; the
 *    index's manifest forgets the segment; its file is removed.
 *
 * Readers are not stopped.  One that has looked up a place in a segment that
 * is then removed looks up again.  A put holds gc_lock for reading from its
 * look-up until it is done, and condemning takes it for writing, so that no
 * put refers to what it saw before without its being among the touched.
 *
 * Index entries of a removed segment stay in runs until these are merged.
 * They mean nothing, since neither the segment is there nor does the manifest
 * claim that it is; that tells them from a segment that was lost.  Numbers of
 * segments are never used again: the superblock of step 1 says so.
 *
 * A difference that is dead may outlive its base, where it lies in a segment
 * that is not swept.  Therefore a put counts a difference as present only if
 * its base is.
 *
 * Crashes.  Until its file is removed, a segment is whole, so that a crash
 * leaves a segment more, never an object less.  A segment that the manifest
 * forgot but whose file is still there is found at the next open like one
 * that was never covered, and the next collection sweeps it.
 *
 * Errors.  Nothing is removed unless marking has seen everything that the
 * roots lead to: an object that is missing or damaged there ends the
 * collection.  A segment that cannot be swept (ENOSPC, damage) stays as it
 * is, and the others are swept all the same.  Empty ones come first and need
 * no space, those with little left next, so that a nearly full disk gets air.
 *
 * Memory.  Kept objects are noted in a blocked Bloom filter, 10 bits for each
 * object of the store; about 1 % of the garbage stays until a later round,
 * which has another seed.  Which nodes have been visited must be known
 * exactly (a false "visited" would lose what lies below), which takes up to
 * 32 bytes for each live node.
 *
 * Not done: minor collections of the young alone, passes over parts of the
 * name space when memory is short, segments kept free in reserve. */

#ifndef VAFS_STORE_GC_H
#define VAFS_STORE_GC_H 1

#include "vafs-server/store/store.h"

struct store_gc;

/* What the store's user knows.  Each returns 0 or a positive errno, which ends
 * the collection and is returned. */
struct store_gc_user {
    /* Returns when everything that was put before the call is reachable from
     * what 'roots' will name, or will be put again before it is relied upon.
     * May be NULL. */
    int (*grace)(void *aux);
    /* Calls store_gc_mark() for each root. */
    int (*roots)(void *aux, struct store_gc *);
    /* Calls store_gc_mark() for each object that 'object', which is no data,
     * refers to. */
    int (*children)(void *aux, struct store_gc *, const struct object *);
    /* May be NULL.  False: stop, ECANCELED. */
    bool (*go_on)(void *aux);
    void *aux;
};

enum store_gc_flags {
    STORE_GC_DRY_RUN = 1 << 0, /* Only find out what would be done. */
    STORE_GC_ROLL = 1 << 1,    /* End the open segments first, so that they
                                * take part. */
};

struct store_gc_result {
    uint64_t epoch;
    uint64_t n_nodes;    /* visited: nodes, versions and the like */
    uint64_t n_segments; /* old ones looked at */
    uint64_t live_bytes, dead_bytes; /* records in these */
    uint64_t n_dead, n_sparse; /* segments without kept objects, with few */
    uint64_t n_removed;        /* segments that were removed */
    uint64_t n_copied, copied_bytes, removed_bytes;
    uint64_t n_failed; /* segments that could not be swept */
    int error;         /* why the last of these could not, or 0 */
};

/* Runs one collection; EBUSY if one runs.  From any thread, beside everything
 * but store_close().  'flags' of enum store_gc_flags.  '*ret' (may be NULL)
 * is filled in even after an error, as far as it went. */
int store_gc(struct store *, unsigned flags, const struct store_gc_user *,
             struct store_gc_result *ret) STORE_CHECKED;

/* To be called by 'roots' and 'children': object 'id', of 'kind', is alive.
 * The zero id is nothing.  ENOENT, EBADMSG: it, or what it leads to, is
 * missing or damaged. */
int store_gc_mark(struct store_gc *, const struct store_id *id,
                  uint8_t kind) STORE_CHECKED;

#endif /* vafs-server/store/gc.h */
