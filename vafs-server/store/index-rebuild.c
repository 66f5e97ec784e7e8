/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Building the index anew while the store is in use; see index.h.
 *
 * All segments are read as far as they go at the start, into an index of its
 * own that writes runs of tier 0 as its memtable fills but no manifest.  Then
 * the real index gets these runs and a manifest that says so.  Its memtable
 * stays: what was put meanwhile is there.  Runs that were written in vain are
 * removed, here or at the next open. */

#include "vafs-server/store/index-private.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "lib/vlog.h"

COVERAGE_DEFINE(store_index_rebuilt_online);

struct rebuild {
    struct index *index, *built;
    index_accept_cb *accept;
    void *aux;
    uint32_t covered; /* Of the segment that is read. */
};

/* Writes what is in the memtable of 'built' into a run. */
static int
rebuild_spill__(struct index *built)
{
    uint64_t number = built->manifest.next_run++;
    struct memtable *active = memtable_create();
    struct run_set *set = NULL;
    struct run *run = NULL;
    int error;

    if (!active) {
        return ENOMEM;
    }
    built->frozen = built->active;
    built->active = active;
    error = index_write_run__(built, number);
    if (!error) {
        error =
            run_open(built->files, built->uuid, number,
                     index_filter_budget__(built->runs, built->memory), &run);
    }
    if (!error) {
        set = index_replace__(built, built->runs->n, 0, run);
        error = set ? 0 : ENOMEM;
    }
    if (error) {
        run_unref(run);
        return error;
    }
    run_set_unref__(built->runs);
    built->runs = set;
    memtable_destroy(built->frozen);
    built->frozen = NULL;
    return 0;
}

static int
rebuild_entry__(void *r_, const struct segment *seg, uint32_t offset,
                uint32_t location, const struct store_id *id)
{
    struct rebuild *r = r_;
    struct index_entry other, entry = {.id = *id,
                                       .pack = seg->pack,
                                       .offset = offset,
                                       .location = location};
    int error;

    if (offset >= r->covered) {
        return 0; /* Came later; is in the memtable. */
    }
    if (__atomic_load_n(&seg->condemned, __ATOMIC_ACQUIRE) &&
        !index_find(r->built, id, false, &other)) {
        return 0; /* The copy that was made of it counts. */
    }
    error = r->accept(r->aux, r->built, &entry);
    if (!error) {
        error = index_insert(r->built, &entry);
    } else if (error == ENOENT) {
        error = 0;
    }
    if (!error &&
        memtable_memory(r->built->active) > index_memtable_limit__(r->built)) {
        error = rebuild_spill__(r->built);
    }
    return error;
}

static int
rebuild_capture__(struct index *index)
{
    int error;

    for (int i = 0; i < SEGMENT_N_APPENDERS; i++) {
        segments_lock(index->segs, i);
    }
    error = index_capture__(index);
    for (int i = SEGMENT_N_APPENDERS; i--;) {
        segments_unlock(index->segs, i);
    }
    return error;
}

/* Reads the segments of one generation. */
static int
rebuild_fill_generation__(struct rebuild *r, int generation)
{
    struct index *index = r->index;
    int error = 0;

    for (uint32_t i = 0; i < index->n_pending && !error; i++) {
        struct segment *seg =
            segments_find(index->segs, index->pending[i].pack);

        if (index->pending[i].generation != generation) {
            continue;
        }
        r->covered = index->pending[i].covered;
        if (seg) {
            error = segment_entries(index->segs, seg, rebuild_entry__, r);
        }
    }
    return error;
}

static int
rebuild_fill__(struct rebuild *r)
{
    int error;

    /* Bases first. */
    error = rebuild_fill_generation__(r, SEGMENT_WHOLE);
    if (!error) {
        error = rebuild_fill_generation__(r, SEGMENT_DELTAS);
    }
    if (!error) {
        error = rebuild_fill_generation__(r, SEGMENT_PUT);
    }
    if (!error && memtable_count(r->built->active)) {
        error = rebuild_spill__(r->built);
    }
    return error;
}

int
index_rebuild(struct index *index, index_accept_cb *accept, void *aux)
{
    struct rebuild r = {.index = index, .accept = accept, .aux = aux};
    struct manifest_segment *pending = index->pending;
    uint32_t n_pending = index->n_pending;
    struct run_set *old;
    bool damaged;
    int error;

    error = index_create(index->files, index->health, index->segs, index->uuid,
                         index->memory, &r.built);
    if (error) {
        return error;
    }
    r.built->manifest.next_run = index->manifest.next_run;
    index->pending = NULL;
    index->n_pending = 0;
    error = rebuild_capture__(index);
    if (!error) {
        error = index_sync_pending__(index);
    }
    if (!error) {
        error = rebuild_fill__(&r);
    }
    index->manifest.next_run = r.built->manifest.next_run;
    if (!error) {
        struct run_set *set = r.built->runs;

        /* Held until the files of the old runs are removed. */
        old = index->runs;
        __atomic_fetch_add(&old->refs, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&set->refs, 1, __ATOMIC_RELAXED);
        damaged =
            __atomic_exchange_n(&index->damaged, false, __ATOMIC_ACQ_REL);
        error = index_publish__(index, set, true);
        if (error) {
            __atomic_store_n(&index->damaged, damaged, __ATOMIC_RELEASE);
            run_set_unref__(set);
        } else {
            for (uint32_t i = 0; i < old->n; i++) {
                index_unlink_run__(index, old->runs[i]->number);
            }
            COVERAGE_INC(store_index_rebuilt_online);
            vlog_info("the index has been built anew");
        }
        run_set_unref__(old);
    }
    if (error) {
        for (uint32_t i = 0; i < r.built->runs->n; i++) {
            index_unlink_run__(index, r.built->runs->runs[i]->number);
        }
        /* A frozen memtable that waits goes with what was noted then. */
        free(index->pending);
        index->pending = pending;
        index->n_pending = n_pending;
    } else {
        free(pending);
    }
    index_destroy(r.built);
    return error;
}
