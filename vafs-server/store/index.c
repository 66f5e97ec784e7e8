/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The index: memtables and runs; see index.h. */

#include "vafs-server/store/index.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "lib/vlog.h"
#include "vafs-server/store/index-private.h"

COVERAGE_DEFINE(store_index_flush);
COVERAGE_DEFINE(store_index_merge);
COVERAGE_DEFINE(store_index_damaged);

#define INDEX_FAN_IN 8
#define INDEX_MEMTABLE_MIN 4096u

struct run_set *
run_set_create__(uint32_t n)
{
    struct run_set *set = calloc(1, sizeof *set + n * sizeof set->runs[0]);

    if (set) {
        set->refs = 1;
        set->n = n;
    }
    return set;
}

void
run_set_unref__(struct run_set *set)
{
    if (set && __atomic_fetch_sub(&set->refs, 1, __ATOMIC_ACQ_REL) == 1) {
        for (uint32_t i = 0; i < set->n; i++) {
            run_unref(set->runs[i]);
        }
        free(set);
    }
}

int
index_create(struct file_layer *files, struct health *health,
             struct segments *segs, const uint8_t uuid[16], size_t memory,
             struct index **ret)
{
    struct index *index = calloc(1, sizeof *index);

    if (!index) {
        return ENOMEM;
    }
    index->files = files;
    index->health = health;
    index->segs = segs;
    memcpy(index->uuid, uuid, sizeof index->uuid);
    index->memory = memory;
    pthread_rwlock_init(&index->lock, NULL);
    index->active = memtable_create();
    index->transient = memtable_create();
    index->runs = run_set_create__(0);
    if (!index->active || !index->transient || !index->runs) {
        index_destroy(index);
        return ENOMEM;
    }
    *ret = index;
    return 0;
}

void
index_destroy(struct index *index)
{
    if (index) {
        memtable_destroy(index->active);
        memtable_destroy(index->frozen);
        memtable_destroy(index->transient);
        run_set_unref__(index->runs);
        manifest_destroy(&index->manifest);
        free(index->pending);
        pthread_rwlock_destroy(&index->lock);
        free(index);
    }
}

/* Bytes that a new run's filter may take in memory. */
size_t
index_filter_budget__(const struct run_set *set, size_t memory)
{
    size_t used = 0;

    for (uint32_t i = 0; i < set->n; i++) {
        used += set->runs[i] ? run_memory(set->runs[i]) : 0;
    }
    return used < memory / 2 ? memory / 2 - used : 0;
}

/* Something derived is damaged: makes the next open build it anew. */
static void
index_note_damage__(struct index *index, const char *what)
{
    bool was = __atomic_exchange_n(&index->damaged, true, __ATOMIC_ACQ_REL);

    if (!was) {
        COVERAGE_INC(store_index_damaged);
        vlog_err("%s is damaged; the index will be built anew", what);
        if (!index->segs->read_only) {
            /* Failure leaves a manifest that the same damage finds again. */
            index->files->ops->unlink(index->files, "idx/manifest");
        }
    }
}

int
index_load(struct index *index)
{
    struct run_set *set;
    int error;

    error = manifest_read(index->files, index->uuid, &index->manifest);
    if (error) {
        return error;
    }
    set = run_set_create__(index->manifest.n_runs);
    if (!set) {
        return ENOMEM;
    }
    for (uint32_t i = 0; i < set->n && !error; i++) {
        error =
            run_open(index->files, index->uuid, index->manifest.runs[i].number,
                     index_filter_budget__(set, index->memory), &set->runs[i]);
    }
    if (error) {
        uint64_t next_run = index->manifest.next_run;

        run_set_unref__(set);
        manifest_destroy(&index->manifest);
        index->manifest.next_run = next_run;
        return error == ENOENT ? EBADMSG : error;
    }
    run_set_unref__(index->runs);
    index->runs = set;
    return 0;
}

const struct manifest_segment *
index_covered(const struct index *index, uint64_t pack)
{
    return manifest_find(&index->manifest, pack);
}

struct index_clean_aux {
    struct index *index;
    int error;
};

static int
index_clean_cb__(void *aux_, const char *entry)
{
    struct index_clean_aux *aux = aux_;
    struct index *index = aux->index;
    char name[RUN_NAME_SIZE];
    uint64_t number;
    char *end;

    number = strtoull(entry, &end, 16);
    if (*end || end - entry != 16) {
        return 0; /* The manifest, or none of ours. */
    }
    if (number >= index->manifest.next_run) {
        index->manifest.next_run = number + 1;
    }
    for (uint32_t i = 0; i < index->manifest.n_runs; i++) {
        if (index->manifest.runs[i].number == number) {
            return 0;
        }
    }
    run_name(number, name);
    return index->files->ops->unlink(index->files, name);
}

int
index_clean(struct index *index)
{
    struct index_clean_aux aux = {.index = index};

    return index->files->ops->list(index->files, "idx", index_clean_cb__,
                                   &aux);
}

/* Looking up. */

bool
index_find_new(struct index *index, const struct store_id *id, bool transient,
               struct index_entry *ret)
{
    bool found;

    pthread_rwlock_rdlock(&index->lock);
    found = memtable_find(index->active, id, ret) ||
            (index->frozen && memtable_find(index->frozen, id, ret)) ||
            (transient && memtable_find(index->transient, id, ret));
    pthread_rwlock_unlock(&index->lock);
    return found;
}

int
index_find(struct index *index, const struct store_id *id, bool transient,
           struct index_entry *ret)
{
    struct run_set *set;
    int error = ENOENT;

    pthread_rwlock_rdlock(&index->lock);
    if (memtable_find(index->active, id, ret) ||
        (index->frozen && memtable_find(index->frozen, id, ret))) {
        pthread_rwlock_unlock(&index->lock);
        return 0;
    }
    set = index->runs;
    __atomic_fetch_add(&set->refs, 1, __ATOMIC_RELAXED);
    pthread_rwlock_unlock(&index->lock);

    for (uint32_t i = set->n; i-- && error == ENOENT;) {
        error = run_find(set->runs[i], id, ret);
    }
    run_set_unref__(set);
    if (error == EBADMSG) {
        index_note_damage__(index, "an index run");
    }
    if (error == ENOENT && transient &&
        memtable_find(index->transient, id, ret)) {
        error = 0;
    }
    return error;
}

int
index_insert(struct index *index, const struct index_entry *entry)
{
    int error;

    pthread_rwlock_rdlock(&index->lock);
    error = memtable_insert(entry->location & LOC_TRANSIENT ? index->transient
                                                            : index->active,
                            entry);
    pthread_rwlock_unlock(&index->lock);
    return error;
}

/* Flushing. */

bool
index_is_damaged(const struct index *index)
{
    return __atomic_load_n(&index->damaged, __ATOMIC_ACQUIRE);
}

size_t
index_memtable_limit__(const struct index *index)
{
    return MAX(index->memory / 4, (size_t) INDEX_MEMTABLE_MIN);
}

bool
index_wants_flush(struct index *index)
{
    size_t limit = index_memtable_limit__(index);
    bool wants;

    pthread_rwlock_rdlock(&index->lock);
    wants = index->frozen || memtable_memory(index->active) > limit;
    pthread_rwlock_unlock(&index->lock);
    return wants;
}

/* Notes how far the segments go now.  All class mutexes are held. */
int
index_capture__(struct index *index)
{
    struct manifest_segment *pending;
    size_t n = segments_count(index->segs);
    struct segment *seg = NULL;
    uint32_t n_pending = 0;

    pending = calloc(n + 1, sizeof *pending);
    if (!pending) {
        return ENOMEM;
    }
    while (n_pending < n && (seg = segments_after(index->segs, seg))) {
        struct manifest_segment *p = &pending[n_pending];

        if (seg->class == STORE_CLASS_TRANSIENT ||
            seg->end <= SEG_HEADER_SIZE) {
            continue;
        }
        p->pack = seg->pack;
        p->covered = seg->end;
        p->class = seg->class;
        p->generation = seg->generation;
        pthread_mutex_lock(&index->segs->mutex);
        p->sealed = seg->state == SEGMENT_SEALED;
        pthread_mutex_unlock(&index->segs->mutex);
        n_pending++;
    }
    free(index->pending);
    index->pending = pending;
    index->n_pending = n_pending;
    return 0;
}

static int
index_freeze__(struct index *index)
{
    struct memtable *active = memtable_create();
    int error;

    if (!active) {
        return ENOMEM;
    }
    for (int i = 0; i < SEGMENT_N_APPENDERS; i++) {
        segments_lock(index->segs, i);
    }
    error = index_capture__(index);
    if (!error) {
        pthread_rwlock_wrlock(&index->lock);
        index->frozen = index->active;
        index->active = active;
        pthread_rwlock_unlock(&index->lock);
    }
    for (int i = SEGMENT_N_APPENDERS; i--;) {
        segments_unlock(index->segs, i);
    }
    if (error) {
        memtable_destroy(active);
    }
    return error;
}

int
index_sync_pending__(struct index *index)
{
    for (uint32_t i = 0; i < index->n_pending; i++) {
        struct segment *seg =
            segments_find(index->segs, index->pending[i].pack);
        int error =
            seg ? segment_sync(index->segs, seg, index->pending[i].covered)
                : 0;

        if (error) {
            return error;
        }
    }
    return 0;
}

int
index_write_run__(struct index *index, uint64_t number)
{
    struct index_entry *entries;
    struct run_writer *writer;
    size_t n;
    int error;

    error = memtable_sorted(index->frozen, &entries, &n);
    if (error) {
        return error;
    }
    error =
        run_writer_create(index->files, index->uuid, number, 0, n, &writer);
    if (!error) {
        for (size_t i = 0; i < n && !error; i++) {
            error = run_writer_add(writer, &entries[i]);
        }
        if (!error) {
            error = run_writer_finish(writer);
        }
        run_writer_destroy(writer);
    }
    free(entries);
    return error;
}

/* Writes a manifest with the runs of 'set' and 'pending' and makes both
 * current.  'drop_frozen': the frozen memtable is in these runs. */
int
index_publish__(struct index *index, struct run_set *set, bool drop_frozen)
{
    struct manifest m = {.next_run = index->manifest.next_run,
                         .n_runs = set->n,
                         .segments = index->pending,
                         .n_segments = index->n_pending};
    struct run_set *old_set;
    struct memtable *frozen = NULL;
    int error;

    m.runs = calloc(set->n + 1, sizeof *m.runs);
    if (!m.runs) {
        return ENOMEM;
    }
    for (uint32_t i = 0; i < set->n; i++) {
        m.runs[i].number = set->runs[i]->number;
        m.runs[i].tier = set->runs[i]->tier;
    }
    if (__atomic_load_n(&index->damaged, __ATOMIC_ACQUIRE)) {
        error = EBADMSG; /* The manifest must stay away. */
    } else {
        error = manifest_write(index->files, index->uuid, &m);
    }
    if (error) {
        free(m.runs);
        return error;
    }
    index->no_manifest = false;
    /* 'pending' now belongs to the manifest. */
    pthread_rwlock_wrlock(&index->lock);
    free(index->manifest.runs);
    free(index->manifest.segments);
    index->manifest = m;
    index->pending = NULL;
    index->n_pending = 0;
    old_set = index->runs;
    index->runs = set;
    if (drop_frozen) {
        frozen = index->frozen;
        index->frozen = NULL;
    }
    pthread_rwlock_unlock(&index->lock);
    run_set_unref__(old_set);
    memtable_destroy(frozen);
    return 0;
}

/* A new set: the present one with runs ['first', 'first' + 'n') replaced by
 * 'run' (taken over; may be NULL). */
struct run_set *
index_replace__(struct index *index, uint32_t first, uint32_t n,
                struct run *run)
{
    struct run_set *old = index->runs, *set;
    uint32_t n_new = old->n - n + (run != NULL), j = 0;

    set = run_set_create__(n_new);
    if (set) {
        for (uint32_t i = 0; i < first; i++) {
            set->runs[j++] = run_ref(old->runs[i]);
        }
        if (run) {
            set->runs[j++] = run;
        }
        for (uint32_t i = first + n; i < old->n; i++) {
            set->runs[j++] = run_ref(old->runs[i]);
        }
    }
    return set;
}

void
index_unlink_run__(struct index *index, uint64_t number)
{
    char name[RUN_NAME_SIZE];

    run_name(number, name);
    /* If this fails, index_clean() gets it at the next open. */
    index->files->ops->unlink(index->files, name);
}

int
index_flush(struct index *index)
{
    struct run_set *set = NULL;
    struct run *run = NULL;
    uint64_t number;
    int error;

    if (health_get(index->health)) {
        return EIO;
    }
    if (!index->frozen) {
        error = index_freeze__(index);
        if (error) {
            return error;
        }
    }
    error = index_sync_pending__(index);
    if (error) {
        return error;
    }
    number = index->manifest.next_run++;
    if (memtable_count(index->frozen)) {
        error = index_write_run__(index, number);
        if (!error) {
            error = run_open(index->files, index->uuid, number,
                             index_filter_budget__(index->runs, index->memory),
                             &run);
        }
    }
    if (!error) {
        set = index_replace__(index, index->runs->n, 0, run);
        error = set ? index_publish__(index, set, true) : ENOMEM;
        if (set) {
            run = NULL; /* The set's. */
        }
    }
    if (error) {
        run_set_unref__(set);
        run_unref(run);
        index_unlink_run__(index, number);
    } else {
        COVERAGE_INC(store_index_flush);
    }
    return error;
}

/* Segments that are collected. */

bool
index_claims(struct index *index, uint64_t pack)
{
    bool claims;

    pthread_rwlock_rdlock(&index->lock);
    claims = manifest_find(&index->manifest, pack) != NULL;
    pthread_rwlock_unlock(&index->lock);
    return claims;
}

/* Copies 'n' segments but for 'pack'; returns how many. */
static uint32_t
index_without__(const struct manifest_segment *from, uint32_t n, uint64_t pack,
                struct manifest_segment *to)
{
    uint32_t n_to = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (from[i].pack != pack) {
            to[n_to++] = from[i];
        }
    }
    return n_to;
}

int
index_forget(struct index *index, uint64_t pack)
{
    struct manifest m = index->manifest;
    struct manifest_segment *old = m.segments;
    int error;

    if (index->pending) {
        index->n_pending = index_without__(index->pending, index->n_pending,
                                           pack, index->pending);
    }
    if (index_is_damaged(index)) {
        return EBADMSG;
    }
    if (!manifest_find(&m, pack) && !index->no_manifest) {
        return 0;
    }
    m.segments = calloc(m.n_segments + 1, sizeof *m.segments);
    if (!m.segments) {
        return ENOMEM;
    }
    m.n_segments = index_without__(old, m.n_segments, pack, m.segments);
    error = manifest_write(index->files, index->uuid, &m);
    if (error == ENOSPC) {
        /* Removing the old one forgets everything, and makes room. */
        error = index->files->ops->unlink(index->files, "idx/manifest");
        error = error == ENOENT ? 0 : error;
        if (!error) {
            error = index->files->ops->sync_dir(index->files, "idx");
        }
        index->no_manifest = true;
    } else if (!error) {
        index->no_manifest = false;
    }
    if (error) {
        free(m.segments);
        return error;
    }
    pthread_rwlock_wrlock(&index->lock);
    index->manifest = m;
    pthread_rwlock_unlock(&index->lock);
    free(old);
    return 0;
}

/* Merging. */

/* The oldest run of a tier that has INDEX_FAN_IN runs, or UINT32_MAX. */
static uint32_t
index_full_tier__(const struct run_set *set)
{
    for (uint32_t first = 0; first + INDEX_FAN_IN <= set->n; first++) {
        uint32_t n = 1;

        while (first + n < set->n &&
               set->runs[first + n]->tier == set->runs[first]->tier) {
            n++;
        }
        if (n >= INDEX_FAN_IN) {
            return first;
        }
        first += n - 1;
    }
    return UINT32_MAX;
}

/* Copies the entries of 'n' runs, the newest of equal ids, to 'writer'. */
static int
index_merge_entries__(struct run *const *runs, struct run_writer *writer)
{
    struct run_cursor cursors[INDEX_FAN_IN];
    struct index_entry heads[INDEX_FAN_IN];
    bool live[INDEX_FAN_IN];
    int error = 0;

    memset(cursors, 0, sizeof cursors);
    for (int i = 0; i < INDEX_FAN_IN && !error; i++) {
        error = run_cursor_init(&cursors[i], runs[i]);
        if (!error) {
            error = run_cursor_next(&cursors[i], &heads[i]);
            live[i] = !error;
            error = error == ENOENT ? 0 : error;
        }
    }
    while (!error) {
        int best = -1;

        for (int i = 0; i < INDEX_FAN_IN; i++) {
            if (live[i] && (best < 0 || memcmp(&heads[i].id, &heads[best].id,
                                               sizeof heads[i].id) <= 0)) {
                best = i;
            }
        }
        if (best < 0) {
            break;
        }
        error = run_writer_add(writer, &heads[best]);
        for (int i = 0; i <= best && !error; i++) {
            if (live[i] &&
                (i == best || store_id_equal(&heads[i].id, &heads[best].id))) {
                if (i == best) {
                    continue;
                }
                error = run_cursor_next(&cursors[i], &heads[i]);
                live[i] = !error;
                error = error == ENOENT ? 0 : error;
            }
        }
        if (!error) {
            error = run_cursor_next(&cursors[best], &heads[best]);
            live[best] = !error;
            error = error == ENOENT ? 0 : error;
        }
    }
    for (int i = 0; i < INDEX_FAN_IN; i++) {
        run_cursor_destroy(&cursors[i]);
    }
    return error;
}

static int
index_merge_runs__(struct index *index, struct run *const *runs,
                   uint64_t number)
{
    struct run_writer *writer;
    uint64_t n = 0;
    int error;

    for (int i = 0; i < INDEX_FAN_IN; i++) {
        n += runs[i]->n;
    }
    error = run_writer_create(index->files, index->uuid, number,
                              runs[0]->tier + 1, n, &writer);
    if (!error) {
        error = index_merge_entries__(runs, writer);
        if (!error) {
            error = run_writer_finish(writer);
        }
        run_writer_destroy(writer);
    }
    return error;
}

/* Merges the tier whose oldest run is 'first'. */
static int
index_merge_tier__(struct index *index, uint32_t first)
{
    uint64_t number = index->manifest.next_run++, old[INDEX_FAN_IN];
    struct run_set *set = NULL;
    struct run *run = NULL;
    int error;

    for (int i = 0; i < INDEX_FAN_IN; i++) {
        old[i] = index->runs->runs[first + i]->number;
    }
    error = index_merge_runs__(index, &index->runs->runs[first], number);
    if (!error) {
        error =
            run_open(index->files, index->uuid, number,
                     index_filter_budget__(index->runs, index->memory), &run);
    }
    if (!error) {
        /* What the manifest covers does not change. */
        size_t n = index->manifest.n_segments;

        index->pending = calloc(n + 1, sizeof *index->pending);
        set = index_replace__(index, first, INDEX_FAN_IN, run);
        error = index->pending && set ? 0 : ENOMEM;
        run = set ? NULL : run;
        if (index->pending && n) {
            memcpy(index->pending, index->manifest.segments,
                   n * sizeof *index->pending);
            index->n_pending = (uint32_t) n;
        }
    }
    if (!error) {
        error = index_publish__(index, set, false);
    }
    if (error) {
        free(index->pending);
        index->pending = NULL;
        index->n_pending = 0;
        run_set_unref__(set);
        run_unref(run);
        index_unlink_run__(index, number);
        if (error == EBADMSG) {
            index_note_damage__(index, "an index run");
        }
        return error;
    }
    for (int i = 0; i < INDEX_FAN_IN; i++) {
        index_unlink_run__(index, old[i]);
    }
    COVERAGE_INC(store_index_merge);
    return 0;
}

int
index_merge(struct index *index)
{
    uint32_t first;

    /* A frozen memtable that could not be written owns 'pending'. */
    while (!index->frozen && !health_get(index->health) &&
           (first = index_full_tier__(index->runs)) != UINT32_MAX) {
        int error = index_merge_tier__(index, first);

        if (error) {
            return error;
        }
    }
    return 0;
}

/* Looking. */

void
index_get_stats(struct index *index, struct index_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    pthread_rwlock_rdlock(&index->lock);
    stats->n_memtable = memtable_count(index->active) +
                        memtable_count(index->transient) +
                        (index->frozen ? memtable_count(index->frozen) : 0);
    stats->memory = memtable_memory(index->active) +
                    memtable_memory(index->transient) +
                    (index->frozen ? memtable_memory(index->frozen) : 0);
    stats->n_runs = index->runs->n;
    for (uint32_t i = 0; i < index->runs->n; i++) {
        stats->bytes += run_bytes(index->runs->runs[i]);
        stats->n_entries += index->runs->runs[i]->n;
        stats->memory += run_memory(index->runs->runs[i]);
    }
    pthread_rwlock_unlock(&index->lock);
}

static int
index_for_each_in_run__(struct run *run,
                        int (*cb)(void *aux, const struct index_entry *),
                        void *aux)
{
    struct run_cursor cursor;
    struct index_entry entry;
    int error;

    error = run_cursor_init(&cursor, run);
    while (!error && !(error = run_cursor_next(&cursor, &entry))) {
        error = cb(aux, &entry);
    }
    run_cursor_destroy(&cursor);
    return error == ENOENT ? 0 : error;
}

int
index_for_each(struct index *index,
               int (*cb)(void *aux, const struct index_entry *), void *aux)
{
    struct index_entry *all[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    struct run_set *set;
    int error;

    pthread_rwlock_rdlock(&index->lock);
    set = index->runs;
    __atomic_fetch_add(&set->refs, 1, __ATOMIC_RELAXED);
    error = index->frozen ? memtable_sorted(index->frozen, &all[0], &n[0]) : 0;
    error = error ? error : memtable_sorted(index->active, &all[1], &n[1]);
    pthread_rwlock_unlock(&index->lock);

    for (uint32_t i = 0; i < set->n && !error; i++) {
        error = index_for_each_in_run__(set->runs[i], cb, aux);
    }
    for (int i = 0; i < 2; i++) {
        for (size_t j = 0; j < n[i] && !error; j++) {
            error = cb(aux, &all[i][j]);
        }
        free(all[i]);
    }
    run_set_unref__(set);
    return error;
}
