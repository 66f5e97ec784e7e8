/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The index: id -> place.  Derived from the segments.
 *
 * Theory of operation
 * -------------------
 *
 * New entries go to the *active* memtable.  When that has grown to its share
 * of the budget it becomes the *frozen* one, a new active one takes over, and
 * upkeep writes the frozen one out as a run of tier 0; eight runs of a tier
 * are merged into one of the next.  A look-up asks active, frozen, and the
 * runs from the newest to the oldest, so the newest copy of an object counts.
 *
 * An entry goes into a run only after its segment is durable up to it.  The
 * manifest says for each segment how far the runs cover it; at open, the rest
 * is scanned into the memtable.  A crash at any point thus loses nothing:
 * runs that no manifest names are removed.
 *
 * A damaged run or manifest makes the index *damaged*: look-ups that need the
 * damaged place fail with EBADMSG, the manifest is removed, and upkeep, or the
 * next open, builds the index anew from the segments.
 *
 * Entries of transient segments never leave memory. */

#ifndef VAFS_STORE_INDEX_H
#define VAFS_STORE_INDEX_H 1

#include "vafs-server/store/manifest.h"
#include "vafs-server/store/memtable.h"
#include "vafs-server/store/segment.h"

struct index;

int
index_create(struct file_layer *, struct health *, struct segments *,
             const uint8_t uuid[16], size_t memory, struct index **) NODISCARD;
void index_destroy(struct index *); /* Accepts NULL. */

/* Reads the manifest and opens the runs.  ENOENT or EBADMSG: the index must
 * be built anew, and is empty now. */
int index_load(struct index *) NODISCARD;
/* What the runs cover of 'pack'; NULL: nothing. */
const struct manifest_segment *
index_covered(const struct index *, uint64_t pack);
/* Removes files that are no part of the index. */
int index_clean(struct index *) NODISCARD;

/* 0, ENOENT, EBADMSG, ENOMEM, or why it cannot be read.  Entries of transient
 * segments are found only if 'transient'. */
int index_find(struct index *, const struct store_id *, bool transient,
               struct index_entry *) NODISCARD;
/* Looks in memory only: for a second look under the class's mutex. */
bool index_find_new(struct index *, const struct store_id *, bool transient,
                    struct index_entry *);
/* Under the class's mutex, between append and publish. */
int index_insert(struct index *, const struct index_entry *) NODISCARD;

/* Says durably that no record of 'pack' counts any more, which then may be
 * removed: entries for it that are in runs mean nothing.  On a full disk this
 * may cost the manifest; the next call, or flush, writes one again ('pack' 0
 * forgets nothing).  The thread that flushes. */
int index_forget(struct index *, uint64_t pack) NODISCARD;
/* Does the manifest say that there are records of 'pack'?  If it does and the
 * segment is not there, it was lost, else it was collected. */
bool index_claims(struct index *, uint64_t pack);

/* A run turned out to be damaged. */
bool index_is_damaged(const struct index *);
/* Builds new runs from all segments, beside the old ones, and changes over.
 * 'accept' returns ENOENT for an entry that must not count; it may look bases
 * up in 'built', which is what there is of the new index.  The thread that
 * flushes; others may go on. */
typedef int
index_accept_cb(void *aux, struct index *built, const struct index_entry *);
int index_rebuild(struct index *, index_accept_cb *, void *aux) NODISCARD;

bool index_wants_flush(struct index *);
/* Writes all that is in memory now into a run and the manifest.  One thread
 * at a time. */
int index_flush(struct index *) NODISCARD;
/* Merges until no tier is full.  The same thread. */
int index_merge(struct index *) NODISCARD;

struct index_stats {
    uint64_t n_runs, bytes, n_entries, n_memtable, memory;
};
void index_get_stats(struct index *, struct index_stats *);

/* Calls 'cb' for each entry of each run, oldest run first, then for each in
 * memory.  For verify: EBADMSG if a run is damaged. */
int index_for_each(struct index *,
                   int (*cb)(void *aux, const struct index_entry *),
                   void *aux) NODISCARD;

#endif /* vafs-server/store/index.h */
