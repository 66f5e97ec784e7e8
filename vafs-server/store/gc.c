/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Garbage collection: marking, choosing, sweeping; see gc.h. */

#include "vafs-server/store/gc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/random.h>

#include "lib/coverage.h"
#include "vafs-server/store/store-private.h"

COVERAGE_DEFINE(store_gc);
COVERAGE_DEFINE(store_gc_touched);
COVERAGE_DEFINE(store_gc_condemned_hit);
COVERAGE_DEFINE(store_gc_segment_removed);
COVERAGE_DEFINE(store_gc_segment_failed);
COVERAGE_DEFINE(store_gc_baseless_hit);

#define GC_FILTER_BITS_PER_OBJECT 10
#define GC_FILTER_HASHES 6
#define GC_FILTER_LINE 64 /* Bytes. */

/* A set of names, exact.  Half of a name is enough: it has 128 bits. */
struct gc_set {
    uint64_t (*slots)[2]; /* All zero: free. */
    size_t n, allocated;  /* A power of two, or 0. */
};

/* An object whose children are to be marked. */
struct gc_pending {
    struct store_id id;
    uint8_t kind;
};

struct gc_candidate {
    struct segment *seg;
    uint64_t live;
};

struct store_gc {
    struct store *store;
    const struct store_gc_user *user;
    struct store_gc_result result;

    uint8_t *filter; /* Names of what is kept. */
    uint64_t n_lines, seed;
    struct gc_set visited;
    struct gc_pending *stack;
    size_t n_stack, stack_allocated;
    bool draining;

    pthread_mutex_t touched_mutex;
    struct gc_set touched;
    bool lost_touch; /* No memory to note one: nothing may be swept. */

    struct gc_candidate *candidates;
    size_t n_candidates;

    uint8_t *record;          /* REC_SIZE_MAX bytes. */
    struct store_needs needs; /* Of the copies. */
    uint64_t live;            /* Sum over a segment. */
};

/* Sets. */

static size_t
gc_set_slot__(const struct gc_set *set, const uint64_t key[2])
{
    size_t i = key[0] & (set->allocated - 1);

    while ((set->slots[i][0] || set->slots[i][1]) &&
           (set->slots[i][0] != key[0] || set->slots[i][1] != key[1])) {
        i = (i + 1) & (set->allocated - 1);
    }
    return i;
}

static int
gc_set_grow__(struct gc_set *set)
{
    struct gc_set new = {.n = set->n,
                         .allocated = MAX(2 * set->allocated, 1024)};

    new.slots = calloc(new.allocated, sizeof *new.slots);
    if (!new.slots) {
        return ENOMEM;
    }
    for (size_t i = 0; i < set->allocated; i++) {
        if (set->slots[i][0] || set->slots[i][1]) {
            memcpy(new.slots[gc_set_slot__(&new, set->slots[i])],
                   set->slots[i], sizeof *set->slots);
        }
    }
    free(set->slots);
    *set = new;
    return 0;
}

static void
gc_set_key__(const struct store_id *id, uint64_t key[2])
{
    memcpy(key, id->bytes, 16);
    key[1] |= !key[0] && !key[1];
}

/* 0, EEXIST or ENOMEM. */
static int
gc_set_add__(struct gc_set *set, const struct store_id *id)
{
    uint64_t key[2];
    size_t i;

    if (set->n >= set->allocated / 4 * 3) {
        int error = gc_set_grow__(set);

        if (error) {
            return error;
        }
    }
    gc_set_key__(id, key);
    i = gc_set_slot__(set, key);
    if (set->slots[i][0] || set->slots[i][1]) {
        return EEXIST;
    }
    memcpy(set->slots[i], key, sizeof key);
    set->n++;
    return 0;
}

static bool
gc_set_has__(const struct gc_set *set, const struct store_id *id)
{
    uint64_t key[2];
    size_t i;

    if (!set->n) {
        return false;
    }
    gc_set_key__(id, key);
    i = gc_set_slot__(set, key);
    return set->slots[i][0] || set->slots[i][1];
}

/* What is kept. */

static uint8_t *
gc_filter_line__(const struct store_gc *gc, const struct store_id *id,
                 uint64_t *bits)
{
    uint64_t line = codec_sum(id, sizeof *id, gc->seed) % gc->n_lines;

    *bits = codec_sum(id, sizeof *id, ~gc->seed);
    return gc->filter + line * GC_FILTER_LINE;
}

static void
gc_keep__(struct store_gc *gc, const struct store_id *id)
{
    uint64_t bits;
    uint8_t *line = gc_filter_line__(gc, id, &bits);

    for (int i = 0; i < GC_FILTER_HASHES; i++, bits >>= 9) {
        line[(bits & 511) / 8] |= (uint8_t) (1 << (bits & 7));
    }
}

/* Is the object to be kept, as far as is known now? */
static bool
gc_is_kept__(struct store_gc *gc, const struct store_id *id)
{
    uint64_t bits;
    const uint8_t *line = gc_filter_line__(gc, id, &bits);
    bool kept = true;

    for (int i = 0; i < GC_FILTER_HASHES && kept; i++, bits >>= 9) {
        kept = line[(bits & 511) / 8] & 1 << (bits & 7);
    }
    if (!kept) {
        pthread_mutex_lock(&gc->touched_mutex);
        kept = gc->lost_touch || gc_set_has__(&gc->touched, id);
        pthread_mutex_unlock(&gc->touched_mutex);
    }
    return kept;
}

/* What puts ask. */

void
gc_init__(struct store *store)
{
    pthread_rwlockattr_t attr;

    pthread_mutex_init(&store->gc_mutex, NULL);
    /* Puts come without end; a collection must get its turn. */
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(
        &attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&store->gc_lock, &attr);
    pthread_rwlockattr_destroy(&attr);
}

void
gc_destroy__(struct store *store)
{
    pthread_mutex_destroy(&store->gc_mutex);
    pthread_rwlock_destroy(&store->gc_lock);
}

bool
gc_hold__(struct store *store, const struct store_id *id, struct segment *seg)
{
    struct store_gc *gc = store->gc;

    if (!gc || !seg->old) {
        return true;
    }
    if (__atomic_load_n(&seg->condemned, __ATOMIC_ACQUIRE)) {
        COVERAGE_INC(store_gc_condemned_hit);
        return false;
    }
    pthread_mutex_lock(&gc->touched_mutex);
    if (gc_set_add__(&gc->touched, id) == ENOMEM) {
        gc->lost_touch = true;
    }
    pthread_mutex_unlock(&gc->touched_mutex);
    COVERAGE_INC(store_gc_touched);
    return true;
}

bool
gc_hold_entry__(struct store *store, const struct index_entry *entry,
                struct segment *seg)
{
    if (entry->location & LOC_DELTA) {
        uint8_t head[REC_HEAD_MAX];
        struct index_entry base;
        struct segment *base_seg;
        struct codec_record r;

        if (store_read_head__(store, seg, entry, head, &r) ||
            store_find__(store, &r.base, false, &base, &base_seg) ||
            base.location & LOC_DELTA ||
            !gc_hold__(store, &r.base, base_seg)) {
            COVERAGE_INC(store_gc_baseless_hit);
            return false;
        }
    }
    return gc_hold__(store, &entry->id, seg);
}

/* Marking. */

static int
gc_push__(struct store_gc *gc, const struct store_id *id, uint8_t kind)
{
    if (gc->n_stack == gc->stack_allocated) {
        size_t n = MAX(2 * gc->stack_allocated, 256);
        struct gc_pending *p = realloc(gc->stack, n * sizeof *p);

        if (!p) {
            return ENOMEM;
        }
        gc->stack = p;
        gc->stack_allocated = n;
    }
    gc->stack[gc->n_stack].id = *id;
    gc->stack[gc->n_stack++].kind = kind;
    return 0;
}

static int
gc_check_go_on__(const struct store_gc *gc)
{
    return gc->user->go_on && !gc->user->go_on(gc->user->aux) ? ECANCELED : 0;
}

/* Visits all that is on the stack and what that leads to. */
static int
gc_drain__(struct store_gc *gc)
{
    int error = 0;

    gc->draining = true;
    while (gc->n_stack && !error) {
        struct gc_pending p = gc->stack[--gc->n_stack];
        struct object *object;

        error = store_get(gc->store, &p.id, p.kind, &object);
        if (!error) {
            gc->result.n_nodes++;
            error = gc->user->children(gc->user->aux, gc, object);
            object_unref(object);
        }
        if (!error && !(gc->result.n_nodes & 255)) {
            error = gc_check_go_on__(gc);
        }
    }
    gc->draining = false;
    return error;
}

int
store_gc_mark(struct store_gc *gc, const struct store_id *id, uint8_t kind)
{
    int error;

    if (store_id_is_zero(id)) {
        return 0;
    }
    gc_keep__(gc, id);
    if (kind == STORE_DATA) {
        return 0;
    }
    error = gc_set_add__(&gc->visited, id);
    if (error) {
        return error == EEXIST ? 0 : error;
    }
    error = gc_push__(gc, id, kind);
    return error || gc->draining ? error : gc_drain__(gc);
}

/* The records of a segment. */

struct gc_scan {
    struct store_gc *gc;
    segment_entry_cb *cb;
    bool damaged;
};

static int
gc_scan_record__(void *scan_, const struct segment *seg, uint32_t offset,
                 const struct codec_record *r, const uint8_t *payload,
                 bool bad)
{
    struct gc_scan *scan = scan_;

    return bad ? EBADMSG
               : scan->cb(scan->gc, seg, offset,
                          segment_location(r, seg->class), &r->id);
}

static void
gc_scan_gap__(void *scan_, const struct segment *seg, uint32_t offset,
              uint32_t size)
{
    struct gc_scan *scan = scan_;

    scan->damaged = true;
}

/* Calls 'cb' for each record of an old segment.  EBADMSG: damage makes it
 * uncertain which there are. */
static int
gc_entries__(struct store_gc *gc, struct segment *seg, segment_entry_cb *cb)
{
    struct segments *segs = gc->store->segs;
    struct gc_scan aux = {.gc = gc, .cb = cb};
    struct segment_scan scan = {.cb = gc_scan_record__,
                                .gap = gc_scan_gap__,
                                .aux = &aux,
                                .want_bad = true};
    bool sealed;
    uint32_t end;
    int error;

    pthread_mutex_lock(&segs->mutex);
    sealed = seg->state == SEGMENT_SEALED;
    pthread_mutex_unlock(&segs->mutex);
    if (sealed) {
        error = segment_read_footer(segs, seg, cb, gc, &end);
        return error == ENOENT ? EBADMSG : error;
    }
    /* A full disk has no room for footers. */
    error = segment_scan(segs, seg, SEG_HEADER_SIZE, seg->end, &scan, &end);
    return error ? error : aux.damaged || end < seg->end ? EBADMSG : 0;
}

/* Choosing. */

static int
gc_weigh_entry__(void *gc_, const struct segment *seg, uint32_t offset,
                 uint32_t location, const struct store_id *id)
{
    struct store_gc *gc = gc_;
    struct index_entry entry;
    int error = 0;

    if (gc_is_kept__(gc, id)) {
        error = index_find(gc->store->index, id, false, &entry);
        if (!error && entry.pack == seg->pack && entry.offset == offset) {
            gc->live += LOC_LENGTH(location);
        }
    }
    return error == ENOENT ? 0 : error;
}

static int
gc_candidate_compare__(const void *a_, const void *b_)
{
    const struct gc_candidate *a = a_, *b = b_;

    return a->live != b->live
               ? (a->live > b->live ? 1 : -1)
               : (a->seg->pack > b->seg->pack) - (a->seg->pack < b->seg->pack);
}

static int
gc_choose__(struct store_gc *gc)
{
    struct segments *segs = gc->store->segs;
    struct segment *seg;

    gc->candidates = calloc(segments_count(segs) + 1, sizeof *gc->candidates);
    if (!gc->candidates) {
        return ENOMEM;
    }
    for (seg = NULL; (seg = segments_after(segs, seg));) {
        uint64_t all = seg->end - SEG_HEADER_SIZE;
        int error;

        if (!seg->old) {
            continue;
        }
        gc->live = 0;
        error = gc_entries__(gc, seg, gc_weigh_entry__);
        if (error == EBADMSG) {
            continue; /* Without its list, nobody knows what is lost. */
        }
        error = error ? error : gc_check_go_on__(gc);
        if (error) {
            return error;
        }
        gc->result.n_segments++;
        gc->result.live_bytes += gc->live;
        gc->result.dead_bytes += all - gc->live;
        if (gc->live < all / 2) {
            gc->candidates[gc->n_candidates].seg = seg;
            gc->candidates[gc->n_candidates++].live = gc->live;
            *(gc->live ? &gc->result.n_sparse : &gc->result.n_dead) += 1;
        }
    }
    qsort(gc->candidates, gc->n_candidates, sizeof *gc->candidates,
          gc_candidate_compare__);
    return 0;
}

static int
gc_base_entry__(void *gc_, const struct segment *seg_, uint32_t offset,
                uint32_t location, const struct store_id *id)
{
    struct store_gc *gc = gc_;
    struct index_entry entry = {
        .id = *id, .pack = seg_->pack, .offset = offset, .location = location};
    struct segment *seg = segments_find(gc->store->segs, seg_->pack);
    uint8_t head[REC_HEAD_MAX];
    struct codec_record r;
    int error;

    if (!(location & LOC_DELTA) || !seg ||
        (seg->old && !gc_is_kept__(gc, id))) {
        return 0;
    }
    error = store_read_head__(gc->store, seg, &entry, head, &r);
    if (!error) {
        gc_keep__(gc, &r.base);
    }
    return error == EBADMSG ? 0 : error; /* Damaged: lost anyway. */
}

/* Keeps what is needed to unpack what is kept.  Puts that come later see to it
 * themselves. */
static int
gc_keep_bases__(struct store_gc *gc)
{
    struct segments *segs = gc->store->segs;
    struct segment *seg;
    int error = 0;

    for (seg = NULL; !error && (seg = segments_after(segs, seg));) {
        if (seg->class != STORE_CLASS_TRANSIENT &&
            __atomic_load_n(&seg->end, __ATOMIC_ACQUIRE) > SEG_HEADER_SIZE) {
            error = segment_entries(segs, seg, gc_base_entry__, gc);
            error = error ? error : gc_check_go_on__(gc);
        }
    }
    return error;
}

/* Sweeping. */

static int
gc_append__(struct store_gc *gc, const struct segment *from,
            const struct index_entry *old, size_t size)
{
    bool delta = old->location & LOC_DELTA;
    enum store_class appender =
        SEGMENT_APPENDER(delta ? SEGMENT_DELTAS : SEGMENT_WHOLE, from->class);
    struct segments *segs = gc->store->segs;
    struct segment_place place;
    struct index_entry entry = *old;
    int error;

    segments_lock(segs, appender);
    error = segments_append(segs, appender, gc->record, size, &place);
    if (!error) {
        entry.pack = place.pack;
        entry.offset = place.offset;
        error = index_insert(gc->store->index, &entry);
    }
    if (!error) {
        segments_publish(segs, appender, &place);
    }
    segments_unlock(segs, appender);
    if (!error) {
        struct store_need need = {.pack = place.pack,
                                  .end = place.offset + place.size};
        struct store_needs needs = {.n = 1, .v = &need};

        store_needs_merge(&gc->needs, &needs);
        gc->result.n_copied++;
        gc->result.copied_bytes += size;
    }
    return error;
}

/* Copies the record at 'entry', in 'seg', which is no difference or whose base
 * has been moved to WHOLE. */
static int
gc_copy_record__(struct store_gc *gc, struct segment *seg,
                 const struct index_entry *entry)
{
    size_t size = LOC_LENGTH(entry->location);
    struct codec_record r;
    int error;

    if (size > REC_SIZE_MAX) {
        return EBADMSG;
    }
    error =
        segment_read(gc->store->segs, seg, gc->record, size, entry->offset);
    if (!error) {
        error = codec_parse(gc->record, size, seg->salt, &r);
    }
    if (!error && (r.size != size || !store_id_equal(&r.id, &entry->id) ||
                   codec_check(&r, gc->record + r.head_size))) {
        error = EBADMSG;
    }
    if (error) {
        return error == ENODATA ? EBADMSG : error;
    }
    return gc_append__(gc, seg, entry, size);
}

static int
gc_copy__(struct store_gc *gc, struct segment *seg,
          const struct index_entry *entry)
{
    if (entry->location & LOC_DELTA) {
        uint8_t head[REC_HEAD_MAX];
        struct index_entry base;
        struct segment *base_seg;
        struct codec_record r;
        int error;

        error = store_read_head__(gc->store, seg, entry, head, &r);
        if (!error) {
            error = store_find__(gc->store, &r.base, false, &base, &base_seg);
        }
        if (error == ENOENT) {
            /* It was never kept, so neither is this: the filter took it for
             * something else since. */
            return 0;
        }
        if (!error && base.location & LOC_DELTA) {
            error = EBADMSG;
        }
        if (!error && base_seg->generation != SEGMENT_WHOLE) {
            error = gc_copy_record__(gc, base_seg, &base);
        }
        if (error) {
            return error;
        }
    }
    return gc_copy_record__(gc, seg, entry);
}

static int
gc_sweep_entry__(void *gc_, const struct segment *seg_, uint32_t offset,
                 uint32_t location, const struct store_id *id)
{
    struct store_gc *gc = gc_;
    struct index_entry entry;
    struct segment *seg;
    int error;

    if (!gc_is_kept__(gc, id)) {
        return 0;
    }
    error = store_find__(gc->store, id, false, &entry, &seg);
    if (error) {
        return error == ENOENT ? 0 : error;
    }
    return entry.pack == seg_->pack && entry.offset == offset
               ? gc_copy__(gc, seg, &entry)
               : 0;
}

static void
gc_condemn__(struct store_gc *gc, struct segment *seg, bool condemned)
{
    pthread_rwlock_wrlock(&gc->store->gc_lock);
    __atomic_store_n(&seg->condemned, condemned, __ATOMIC_RELEASE);
    pthread_rwlock_unlock(&gc->store->gc_lock);
}

/* Makes the copies durable, and the segment a thing of the past. */
static int
gc_remove__(struct store_gc *gc, struct segment *seg)
{
    struct store *store = gc->store;
    int error;

    error = store_sync_needs(store, &gc->needs);
    if (!error) {
        pthread_mutex_lock(&store->upkeep_mutex);
        error = index_forget(store->index, seg->pack);
        if (!error) {
            error = segments_collect(store->segs, seg);
        }
        pthread_mutex_unlock(&store->upkeep_mutex);
    }
    return error;
}

static int
gc_sweep_segment__(struct store_gc *gc, struct segment *seg)
{
    int error;

    gc_condemn__(gc, seg, true);
    /* Differences in it may have been put lately. */
    error = segment_sync(gc->store->segs, seg, seg->end);
    if (!error) {
        error = gc_entries__(gc, seg, gc_sweep_entry__);
    }
    if (!error && gc->lost_touch) {
        error = ENOMEM;
    }
    if (!error) {
        error = gc_remove__(gc, seg);
    }
    if (error) {
        gc_condemn__(gc, seg, false);
        COVERAGE_INC(store_gc_segment_failed);
    } else {
        COVERAGE_INC(store_gc_segment_removed);
    }
    return error;
}

static int
gc_sweep__(struct store_gc *gc)
{
    for (size_t i = 0; i < gc->n_candidates; i++) {
        struct segment *seg = gc->candidates[i].seg;
        int error = gc_check_go_on__(gc);

        if (error) {
            return error;
        }
        error = gc_sweep_segment__(gc, seg);
        if (!error) {
            gc->result.n_removed++;
            gc->result.removed_bytes += seg->end;
        } else {
            vlog_warn("segment %016" PRIx64 " cannot be collected: %s",
                      seg->pack, strerror(error));
            gc->result.n_failed++;
            gc->result.error = error;
        }
        error = store_check_writable__(gc->store);
        if (error) {
            return error;
        }
        upkeep_kick(gc->store);
    }
    pthread_mutex_lock(&gc->store->upkeep_mutex);
    if (index_forget(gc->store->index, 0)) {
        /* Then the next flush does. */
    }
    pthread_mutex_unlock(&gc->store->upkeep_mutex);
    return 0;
}

/* Begin and end. */

/* Says on disk that a collection begins, and that no number of a segment that
 * was given up to now is to be given again. */
static int
gc_write_epoch__(struct store_gc *gc)
{
    struct store *store = gc->store;
    struct superblock sb;
    int error;

    pthread_mutex_lock(&store->sb_mutex);
    sb = store->sb;
    sb.next_pack = segments_next_pack(store->segs);
    sb.gc_watermark = (sb.next_pack & PACK_COUNTER_MASK) << SEG_POSITION_SHIFT;
    sb.gc_epoch++;
    error = superblock_write(store->files, store->sb_file, &sb);
    if (error) {
        health_break(&store->health, error, "writing the superblock");
        error = EIO;
    } else {
        store->sb = sb;
        gc->result.epoch = sb.gc_epoch;
    }
    pthread_mutex_unlock(&store->sb_mutex);
    return error;
}

/* Seals what is full, and before that, if 'roll', declares the open segments
 * full. */
static int
gc_seal__(struct store *store, bool roll)
{
    int error;

    for (int i = 0; i < SEGMENT_N_APPENDERS; i++) {
        if (roll && i % STORE_N_CLASSES != STORE_CLASS_TRANSIENT) {
            segments_roll(store->segs, i);
        }
    }
    pthread_mutex_lock(&store->upkeep_mutex);
    error = segments_seal_full(store->segs);
    pthread_mutex_unlock(&store->upkeep_mutex);
    return error == ENOSPC ? 0 : error;
}

static int
gc_make_filter__(struct store_gc *gc)
{
    struct index_stats stats;
    uint64_t n;

    index_get_stats(gc->store->index, &stats);
    n = stats.n_entries + stats.n_memtable + 1024;
    gc->n_lines = n * GC_FILTER_BITS_PER_OBJECT / (GC_FILTER_LINE * 8) + 1;
    gc->filter = calloc(gc->n_lines, GC_FILTER_LINE);
    gc->record = malloc(REC_SIZE_MAX);
    if (!gc->filter || !gc->record) {
        return ENOMEM;
    }
    return getrandom(&gc->seed, sizeof gc->seed, 0) == sizeof gc->seed ? 0
                                                                       : EIO;
}

/* Shows the collection to puts, and what is old. */
static void
gc_attach__(struct store_gc *gc)
{
    struct segments *segs = gc->store->segs;
    struct segment *seg;

    pthread_rwlock_wrlock(&gc->store->gc_lock);
    for (seg = NULL; (seg = segments_after(segs, seg));) {
        pthread_mutex_lock(&segs->mutex);
        seg->old =
            seg->state != SEGMENT_OPEN && seg->class != STORE_CLASS_TRANSIENT;
        pthread_mutex_unlock(&segs->mutex);
    }
    gc->store->gc = gc;
    pthread_rwlock_unlock(&gc->store->gc_lock);
}

static void
gc_detach__(struct store_gc *gc)
{
    pthread_rwlock_wrlock(&gc->store->gc_lock);
    gc->store->gc = NULL;
    pthread_rwlock_unlock(&gc->store->gc_lock);
}

static int
gc_run__(struct store_gc *gc, unsigned flags)
{
    const struct store_gc_user *user = gc->user;
    bool dry = flags & STORE_GC_DRY_RUN;
    int error = 0;

    if (!dry) {
        error = gc_seal__(gc->store, flags & STORE_GC_ROLL);
        error = error ? error : gc_write_epoch__(gc);
    }
    error = error ? error : gc_make_filter__(gc);
    if (error) {
        return error;
    }
    gc_attach__(gc);
    if (user->grace) {
        error = user->grace(user->aux);
    }
    error = error ? error : user->roots(user->aux, gc);
    error = error ? error : gc_choose__(gc);
    if (!dry) {
        error = error ? error : gc_keep_bases__(gc);
        error = error ? error : gc_sweep__(gc);
    }
    gc_detach__(gc);
    return error;
}

int
store_gc(struct store *store, unsigned flags, const struct store_gc_user *user,
         struct store_gc_result *ret)
{
    struct store_gc gc = {.store = store, .user = user};
    int error = store_check_writable__(store);

    if (error) {
        return error;
    }
    if (pthread_mutex_trylock(&store->gc_mutex)) {
        return EBUSY;
    }
    COVERAGE_INC(store_gc);
    pthread_mutex_init(&gc.touched_mutex, NULL);
    error = gc_run__(&gc, flags);
    pthread_mutex_destroy(&gc.touched_mutex);
    pthread_mutex_unlock(&store->gc_mutex);
    store_needs_clear(&gc.needs);
    free(gc.filter);
    free(gc.record);
    free(gc.visited.slots);
    free(gc.touched.slots);
    free(gc.stack);
    free(gc.candidates);
    if (ret) {
        *ret = gc.result;
    }
    return error;
}
