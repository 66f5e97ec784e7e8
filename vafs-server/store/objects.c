/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Putting and getting objects: where names, index, segments and cache meet.
 * See store.h. */

#include <errno.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "vafs-server/store/store-private.h"

COVERAGE_DEFINE(store_put);
COVERAGE_DEFINE(store_put_existed);
COVERAGE_DEFINE(store_put_delta);
COVERAGE_DEFINE(store_put_repaired);
COVERAGE_DEFINE(store_get);
COVERAGE_DEFINE(store_get_miss);
COVERAGE_DEFINE(store_object_damaged);

/* A read of a range looks at so much first, hoping that it is the head. */
#define OBJECTS_HEAD_GUESS 256

int
store_check_writable__(const struct store *store)
{
    if (store->flags & STORE_READ_ONLY) {
        return EROFS;
    }
    return health_get(&store->health) ? EIO : 0;
}

/* Damaged objects. */

static bool
store_is_damaged__(struct store *store, const struct store_id *id)
{
    bool found = false;
    unsigned n;

    n = MIN(__atomic_load_n(&store->n_damaged, __ATOMIC_ACQUIRE),
            STORE_DAMAGED_MAX);
    if (n) {
        pthread_mutex_lock(&store->damaged_mutex);
        for (unsigned i = 0; i < n && !found; i++) {
            found = store_id_equal(&store->damaged[i], id);
        }
        pthread_mutex_unlock(&store->damaged_mutex);
    }
    return found;
}

static void
store_note_damaged__(struct store *store, const struct store_id *id)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(10, 10);
    char hex[STORE_ID_HEX_SIZE];

    COVERAGE_INC(store_object_damaged);
    STORE_COUNT(store, n_damaged, 1);
    if (!store_is_damaged__(store, id)) {
        store_id_to_hex(id, hex);
        vlog_warn_rl(&rl, "object %s is damaged on disk", hex);
        pthread_mutex_lock(&store->damaged_mutex);
        store->damaged[store->n_damaged % STORE_DAMAGED_MAX] = *id;
        __atomic_store_n(&store->n_damaged, store->n_damaged + 1,
                         __ATOMIC_RELEASE);
        pthread_mutex_unlock(&store->damaged_mutex);
    }
}

static void
store_forget_damaged__(struct store *store, const struct store_id *id)
{
    pthread_mutex_lock(&store->damaged_mutex);
    for (unsigned i = 0; i < STORE_DAMAGED_MAX; i++) {
        if (store_id_equal(&store->damaged[i], id)) {
            memset(&store->damaged[i], 0, sizeof store->damaged[i]);
        }
    }
    pthread_mutex_unlock(&store->damaged_mutex);
}

/* Looking up. */

bool
store_is_gone__(struct store *store, uint64_t pack)
{
    return !segments_find(store->segs, pack) &&
           !index_claims(store->index, pack);
}

int
store_find__(struct store *store, const struct store_id *id, bool transient,
             struct index_entry *entry, struct segment **ret_seg)
{
    struct segment *seg;
    int error;

    error = index_find(store->index, id, transient, entry);
    if (error) {
        return error;
    }
    seg = segments_find(store->segs, entry->pack);
    if (!seg) {
        struct index_entry now;

        /* It may just have been moved. */
        error = index_find(store->index, id, transient, &now);
        if (!error && now.pack != entry->pack) {
            return store_find__(store, id, transient, entry, ret_seg);
        }
        return error                                     ? error
               : index_claims(store->index, entry->pack) ? EBADMSG
                                                         : ENOENT;
    }
    if (ret_seg) {
        *ret_seg = seg;
    }
    return 0;
}

/* Reading. */

/* Reads the object 'id' for use as a base. */
static int
store_get_base__(struct store *store, const struct store_id *id, uint8_t kind,
                 struct object **ret)
{
    struct index_entry entry;
    int error;

    error = store_find__(store, id, false, &entry, NULL);
    if (!error && entry.location & LOC_DELTA) {
        error = EBADMSG; /* Chains are never written. */
    }
    if (!error) {
        error = store_get(store, id, kind, ret);
    }
    return error == ENOENT ? EBADMSG : error;
}

/* Unpacks a delta.  'record' lies in this thread's read buffer, which reading
 * the base will use, so it is moved. */
static int
store_unpack_delta__(struct store *store, const struct codec_record *r,
                     const uint8_t *record, uint8_t *plain)
{
    struct codec_record moved;
    struct object *base;
    uint8_t *copy;
    int error;

    copy = malloc(r->size);
    if (!copy) {
        return ENOMEM;
    }
    memcpy(copy, record, r->size);
    moved = *r;
    moved.table = copy + (r->table - record);
    error = store_get_base__(store, &r->base, r->kind, &base);
    if (!error) {
        error = codec_unpack(&moved, copy + moved.head_size, base, plain);
        object_unref(base);
    }
    free(copy);
    return error;
}

int
store_read__(struct store *store, const struct index_entry *entry,
             struct object **ret)
{
    size_t size = LOC_LENGTH(entry->location);
    struct object *object;
    struct codec_record r;
    struct segment *seg;
    uint8_t *buffer, *plain;
    int error;

    seg = segments_find(store->segs, entry->pack);
    if (!seg) {
        return EBADMSG;
    }
    buffer = codec_read_buffer(size);
    if (!buffer) {
        return ENOMEM;
    }
    error = segment_read(store->segs, seg, buffer, size, entry->offset);
    if (error) {
        return error;
    }
    error = codec_parse(buffer, size, seg->salt, &r);
    if (error || r.size != size || !store_id_equal(&r.id, &entry->id)) {
        return EBADMSG;
    }
    object = object_create(&r.id, r.kind, r.format, r.plain, &plain);
    if (!object) {
        return ENOMEM;
    }
    if (r.encoding == REC_DELTA) {
        object_set_base(object, &r.base);
        error = store_unpack_delta__(store, &r, buffer, plain);
    } else {
        error = codec_unpack(&r, buffer + r.head_size, NULL, plain);
    }
    if (error) {
        object_unref(object);
        return error;
    }
    *ret = object;
    return 0;
}

int
store_get(struct store *store, const struct store_id *id, uint8_t kind,
          struct object **ret)
{
    struct index_entry entry;
    struct object *object;
    int error;

    COVERAGE_INC(store_get);
    STORE_COUNT(store, n_gets, 1);
    object = cache_get(store->cache, id);
    if (object) {
        STORE_COUNT(store, n_get_hits, 1);
    } else {
        COVERAGE_INC(store_get_miss);
        do {
            error = store_find__(store, id, true, &entry, NULL);
            if (error) {
                break;
            }
            error = store_read__(store, &entry, &object);
            /* Again if it was moved meanwhile. */
        } while (error == EBADMSG && store_is_gone__(store, entry.pack));
        if (error == EBADMSG) {
            store_note_damaged__(store, id);
        }
        if (error) {
            return error;
        }
        cache_put(store->cache, object);
    }
    if (kind && object->kind != kind) {
        object_unref(object);
        return EBADMSG;
    }
    STORE_COUNT(store, get_bytes, object->size);
    *ret = object;
    return 0;
}

int
store_get_cached(struct store *store, const struct store_id *id, uint8_t kind,
                 struct object **ret)
{
    struct object *object = cache_get(store->cache, id);

    if (!object) {
        return EAGAIN;
    }
    if (kind && object->kind != kind) {
        object_unref(object);
        return EBADMSG;
    }
    STORE_COUNT(store, n_gets, 1);
    STORE_COUNT(store, n_get_hits, 1);
    STORE_COUNT(store, get_bytes, object->size);
    *ret = object;
    return 0;
}

struct get_order {
    struct index_entry entry;
    size_t index;
};

static int
get_order_compare__(const void *a_, const void *b_)
{
    const struct get_order *a = a_, *b = b_;

    if (a->entry.pack != b->entry.pack) {
        return a->entry.pack < b->entry.pack ? -1 : 1;
    }
    return (a->entry.offset > b->entry.offset) -
           (a->entry.offset < b->entry.offset);
}

int
store_get_batch(struct store *store, const struct store_id ids[], size_t n,
                uint8_t kind, struct object *ret_objects[], int errors[])
{
    struct get_order *order = malloc((n + 1) * sizeof *order);
    int first = 0;

    for (size_t i = 0; i < n; i++) {
        ret_objects[i] = NULL;
        if (order) {
            order[i].index = i;
            if (index_find(store->index, &ids[i], true, &order[i].entry)) {
                memset(&order[i].entry, 0, sizeof order[i].entry);
            }
        }
    }
    if (order) {
        qsort(order, n, sizeof *order, get_order_compare__);
    }
    for (size_t i = 0; i < n; i++) {
        size_t j = order ? order[i].index : i;

        errors[j] = store_get(store, &ids[j], kind, &ret_objects[j]);
        first = first ? first : errors[j];
    }
    free(order);
    return first;
}

/* Copies the part of block 'index' that lies in ['from', 'to'). */
static int
store_copy_block__(const struct codec_record *r, uint32_t index,
                   const uint8_t *stored, size_t from, size_t to,
                   uint8_t *buffer)
{
    uint8_t plain[REC_BLOCK_SIZE];
    size_t start = (size_t) index * REC_BLOCK_SIZE;
    struct codec_block b;
    size_t begin, end;
    int error;

    codec_block(r, index, &b);
    begin = MAX(from, start);
    end = MIN(to, start + b.plain);
    error = codec_unpack_block(&b, stored, plain);
    if (!error) {
        memcpy(buffer + (begin - from), plain + (begin - start), end - begin);
    }
    return error;
}

int
store_read_head__(struct store *store, struct segment *seg,
                  const struct index_entry *entry, uint8_t head[REC_HEAD_MAX],
                  struct codec_record *r)
{
    size_t size = LOC_LENGTH(entry->location);
    size_t n = MIN(size, (size_t) OBJECTS_HEAD_GUESS);
    int error;

    error = segment_read(store->segs, seg, head, n, entry->offset);
    if (!error) {
        error = codec_parse(head, n, seg->salt, r);
    }
    if (error == ENODATA && n < size) {
        n = MIN(size, (size_t) REC_HEAD_MAX);
        error = segment_read(store->segs, seg, head, n, entry->offset);
        if (!error) {
            error = codec_parse(head, n, seg->salt, r);
        }
    }
    if (!error && (r->size != size || !store_id_equal(&r->id, &entry->id))) {
        error = EBADMSG;
    }
    return error == ENODATA ? EBADMSG : error;
}

static int
store_read_range__(struct store *store, const struct index_entry *entry,
                   uint8_t kind, size_t offset, uint8_t *buffer, size_t size,
                   size_t *ret_n)
{
    uint8_t head[REC_HEAD_MAX], *stored;
    uint32_t first, last;
    struct codec_block b, e;
    struct codec_record r;
    struct segment *seg;
    size_t end;
    int error;

    seg = segments_find(store->segs, entry->pack);
    if (!seg) {
        return EBADMSG;
    }
    error = store_read_head__(store, seg, entry, head, &r);
    if (error) {
        return error;
    }
    if (kind && r.kind != kind) {
        return EBADMSG;
    }
    end = MIN((size_t) r.plain, offset + size);
    if (offset >= end) {
        *ret_n = 0;
        return 0;
    }
    first = (uint32_t) (offset / REC_BLOCK_SIZE);
    last = (uint32_t) ((end - 1) / REC_BLOCK_SIZE);
    codec_block(&r, first, &b);
    codec_block(&r, last, &e);
    stored = codec_read_buffer(e.offset + e.stored - b.offset);
    if (!stored) {
        return ENOMEM;
    }
    error =
        segment_read(store->segs, seg, stored, e.offset + e.stored - b.offset,
                     entry->offset + r.head_size + b.offset);
    for (uint32_t i = first; i <= last && !error; i++) {
        struct codec_block block;

        codec_block(&r, i, &block);
        error = store_copy_block__(&r, i, stored + (block.offset - b.offset),
                                   offset, end, buffer);
    }
    if (!error) {
        *ret_n = end - offset;
    }
    return error;
}

int
store_get_range(struct store *store, const struct store_id *id, uint8_t kind,
                size_t offset, void *buffer, size_t size, size_t *ret_n)
{
    struct index_entry entry;
    struct object *object;
    int error;

    size = MIN(size, (size_t) STORE_OBJECT_MAX);
    object = cache_get(store->cache, id);
    if (!object) {
    again:
        error = store_find__(store, id, true, &entry, NULL);
        if (error) {
            return error;
        }
        if (!(entry.location & LOC_DELTA)) {
            STORE_COUNT(store, n_gets, 1);
            error = store_read_range__(store, &entry, kind, offset, buffer,
                                       size, ret_n);
            if (error == EBADMSG && store_is_gone__(store, entry.pack)) {
                goto again; /* It was moved. */
            }
            if (error == EBADMSG) {
                store_note_damaged__(store, id);
            }
            return error;
        }
    } else {
        object_unref(object);
    }
    error = store_get(store, id, kind, &object);
    if (error) {
        return error;
    }
    *ret_n = offset < object->size ? MIN(size, object->size - offset) : 0;
    if (*ret_n) {
        memcpy(buffer, object->data + offset, *ret_n);
    }
    object_unref(object);
    return 0;
}

static void
store_fill_info__(struct store *store, const struct index_entry *entry,
                  struct store_info *info)
{
    struct segment *seg = segments_find(store->segs, entry->pack);

    memset(info, 0, sizeof *info);
    info->pack = entry->pack;
    info->offset = entry->offset;
    info->stored_size = LOC_LENGTH(entry->location);
    info->kind = LOC_KIND(entry->location);
    info->delta = entry->location & LOC_DELTA;
    info->durable = seg && __atomic_load_n(&seg->durable, __ATOMIC_ACQUIRE) >=
                               entry->offset + info->stored_size;
}

int
store_has(struct store *store, const struct store_id *id,
          struct store_info *ret)
{
    struct index_entry entry;
    int error;

    error = store_find__(store, id, true, &entry, NULL);
    if (!error && ret) {
        store_fill_info__(store, &entry, ret);
    }
    return error;
}

/* Needs. */

void
store_needs_clear(struct store_needs *needs)
{
    free(needs->v);
    memset(needs, 0, sizeof *needs);
}

static void
store_needs_add__(struct store_needs *needs, uint64_t pack, uint32_t end)
{
    for (size_t i = needs->n; i--;) {
        if (needs->v[i].pack == pack) {
            needs->v[i].end = MAX(needs->v[i].end, end);
            return;
        }
    }
    if (needs->n == needs->allocated) {
        size_t n = MAX(2 * needs->allocated, 8);
        struct store_need *v = realloc(needs->v, n * sizeof *v);

        if (!v) {
            needs->all = true;
            return;
        }
        needs->v = v;
        needs->allocated = n;
    }
    needs->v[needs->n].pack = pack;
    needs->v[needs->n].end = end;
    needs->n++;
}

void
store_needs_merge(struct store_needs *needs, const struct store_needs *other)
{
    needs->all = needs->all || other->all;
    for (size_t i = 0; i < other->n; i++) {
        store_needs_add__(needs, other->v[i].pack, other->v[i].end);
    }
}

/* Putting. */

int
store_hash(uint8_t kind, uint8_t format, const void *data, size_t size,
           struct store_id *ret)
{
    return codec_hash(kind, format, data, size, ret);
}

static enum store_class
store_class_of__(const struct store_put *put)
{
    return put->flags & STORE_PUT_TRANSIENT ? STORE_CLASS_TRANSIENT
           : put->kind == STORE_DATA        ? STORE_CLASS_DATA
                                            : STORE_CLASS_NODE;
}

/* The object is there already, at 'entry'. */
static void
store_put_existed__(struct store *store, const struct index_entry *entry,
                    const struct segment *seg, struct store_put *put,
                    struct store_needs *needs)
{
    uint32_t end = entry->offset + LOC_LENGTH(entry->location);

    put->existed = true;
    put->position = ((entry->pack & PACK_COUNTER_MASK) << SEG_POSITION_SHIFT) +
                    entry->offset;
    if (needs && !(entry->location & LOC_TRANSIENT) &&
        __atomic_load_n(&seg->durable, __ATOMIC_ACQUIRE) < end) {
        store_needs_add__(needs, entry->pack, end);
    }
    COVERAGE_INC(store_put_existed);
    STORE_COUNT(store, n_put_existed, 1);
}

/* Has the object been proven to be what its name says?  If not, proves it, so
 * that damage cannot spread through deltas. */
static bool
store_prove__(struct object *object)
{
    struct store_id id;

    if (object_is_proven(object)) {
        return true;
    }
    if (codec_hash(object->kind, object->format, object->data, object->size,
                   &id) ||
        !store_id_equal(&id, &object->id)) {
        return false;
    }
    object_set_proven(object);
    return true;
}

/* Finds what 'put' can be stored as a difference from: the base that was
 * given or, if that is a delta itself, its base.  NULL: nothing, whatever the
 * reason.  '*delta_max' becomes how large a delta may be. */
static struct object *
store_find_base__(struct store *store, const struct store_put *put,
                  const struct store_id *id, size_t *delta_max)
{
    struct index_entry entry;
    struct segment *seg;
    struct object *base;

    if (!put->base || store_id_is_zero(put->base) || !store->level ||
        put->size < 64 || put->flags & (STORE_PUT_RAW | STORE_PUT_TRANSIENT) ||
        store_get(store, put->base, put->kind, &base)) {
        return NULL;
    }
    if (!store_id_is_zero(object_base(base))) {
        struct object *full;
        int error = store_get(store, object_base(base), put->kind, &full);

        object_unref(base);
        if (error) {
            return NULL;
        }
        base = full;
    }
    /* The size of the base on disk estimates what 'put' would take in full. */
    if (!store_id_is_zero(object_base(base)) || !base->size ||
        store_id_equal(&base->id, id) ||
        store_find__(store, &base->id, false, &entry, &seg) ||
        entry.location & LOC_DELTA || !store_prove__(base) ||
        !gc_hold__(store, &base->id, seg)) {
        object_unref(base);
        return NULL;
    }
    *delta_max = (size_t) ((uint64_t) LOC_LENGTH(entry.location) * put->size /
                           base->size / (put->kind == STORE_DATA ? 2 : 4));
    *delta_max = MIN(*delta_max, put->size);
    return base;
}

/* Offers what was just written to the cache: nodes are read again soon. */
static void
store_cache_new__(struct store *store, const struct store_put *put,
                  const struct object *base, bool delta)
{
    struct object *object;
    uint8_t *plain;

    if (put->kind == STORE_DATA) {
        return;
    }
    object =
        object_create(&put->id, put->kind, put->format, put->size, &plain);
    if (object) {
        memcpy(plain, put->data, put->size);
        if (delta) {
            object_set_base(object, &base->id);
        }
        object_set_proven(object);
        cache_put(store->cache, object);
        object_unref(object);
    }
}

/* Appends the encoded record, unless another thread was faster. */
static int
store_append__(struct store *store, struct store_put *put, uint8_t *data,
               size_t size, bool delta, bool fresh, struct store_needs *needs)
{
    enum store_class class = store_class_of__(put);
    struct segment_place place;
    struct index_entry entry;
    struct segment *seg;
    int error;

    segments_lock(store->segs, class);
    if (!fresh &&
        index_find_new(store->index, &put->id, class == STORE_CLASS_TRANSIENT,
                       &entry) &&
        (seg = segments_find(store->segs, entry.pack)) &&
        gc_hold__(store, &put->id, seg)) {
        segments_unlock(store->segs, class);
        store_put_existed__(store, &entry, seg, put, needs);
        return 0;
    }
    error = segments_append(store->segs, class, data, size, &place);
    if (!error) {
        entry.id = put->id;
        entry.pack = place.pack;
        entry.offset = place.offset;
        entry.location = (uint32_t) (size / REC_ALIGN) |
                         (uint32_t) MIN(put->kind, 15) << 24 |
                         (delta ? LOC_DELTA : 0) |
                         (class == STORE_CLASS_TRANSIENT ? LOC_TRANSIENT : 0);
        error = index_insert(store->index, &entry);
    }
    if (!error) {
        segments_publish(store->segs, class, &place);
    }
    segments_unlock(store->segs, class);
    if (error) {
        return error;
    }
    put->existed = false;
    put->position = place.position;
    if (needs && class != STORE_CLASS_TRANSIENT) {
        store_needs_add__(needs, place.pack, place.offset + place.size);
    }
    STORE_COUNT(store, put_stored, size);
    return 0;
}

/* Where an object that exists is, if that may stand for a new put. */
static int
store_find_for_put__(struct store *store, const struct store_put *put,
                     bool *fresh, struct index_entry *entry,
                     struct segment **ret_seg)
{
    int error;

    *fresh = store_is_damaged__(store, &put->id);
    if (*fresh) {
        return ENOENT;
    }
    error = index_find(store->index, &put->id,
                       put->flags & STORE_PUT_TRANSIENT, entry);
    if (!error) {
        *ret_seg = segments_find(store->segs, entry->pack);
        *fresh = !*ret_seg || !gc_hold_entry__(store, entry, *ret_seg);
        return *fresh ? ENOENT : 0;
    }
    /* An index that cannot be read makes copies, not failures. */
    return error == ENOMEM ? error : ENOENT;
}

/* Data is compressed quickly now and well later, by compaction. */
static int
store_level_of__(const struct store *store, const struct store_put *put)
{
    return put->flags & STORE_PUT_RAW ? 0
           : put->kind == STORE_DATA  ? MIN(store->level, 1)
                                      : store->level;
}

/* Puts an object whose name is known, under gc_lock. */
static int
store_put__(struct store *store, struct store_put *put,
            struct store_needs *needs)
{
    struct object *base = NULL;
    struct index_entry entry;
    struct segment *seg;
    size_t size, delta_max = 0;
    bool delta, fresh;
    uint8_t *data;
    int error;

    error = store_find_for_put__(store, put, &fresh, &entry, &seg);
    if (error != ENOENT) {
        if (!error) {
            store_put_existed__(store, &entry, seg, put, needs);
        }
        return error;
    }

    base = fresh ? NULL : store_find_base__(store, put, &put->id, &delta_max);
    error = codec_encode(
        &(struct codec_input){
            .data = put->data,
            .size = put->size,
            .kind = put->kind,
            .format = put->format,
            .domain = put->domain,
            .id = &put->id,
            .level = store_level_of__(store, put),
            .delta_level = store->level,
            .base = base,
            .delta_max = delta_max,
        },
        &data, &size, &delta);
    if (!error) {
        error = store_append__(store, put, data, size, delta, fresh, needs);
    }
    if (!error) {
        if (!put->existed) {
            store_cache_new__(store, put, base, delta);
            STORE_COUNT(store, n_put_delta, delta);
            COVERAGE_ADD(store_put_delta, delta);
        }
        if (fresh && store_is_damaged__(store, &put->id)) {
            store_forget_damaged__(store, &put->id);
            COVERAGE_INC(store_put_repaired);
        }
    }
    object_unref(base);
    return error;
}

int
store_put(struct store *store, struct store_put *put,
          struct store_needs *needs)
{
    int error;

    if (!put->kind || put->size > STORE_OBJECT_MAX) {
        return EINVAL;
    }
    if (put->domain) {
        return EOPNOTSUPP;
    }
    error = store_check_writable__(store);
    if (!error) {
        error =
            codec_hash(put->kind, put->format, put->data, put->size, &put->id);
    }
    if (error) {
        return error;
    }
    COVERAGE_INC(store_put);
    STORE_COUNT(store, n_puts, 1);
    STORE_COUNT(store, put_plain, put->size);
    pthread_rwlock_rdlock(&store->gc_lock);
    error = store_put__(store, put, needs);
    pthread_rwlock_unlock(&store->gc_lock);
    if (!error && !put->existed) {
        upkeep_kick(store);
    }
    return error;
}

int
store_put_batch(struct store *store, struct store_put puts[], size_t n,
                struct store_needs *needs)
{
    for (size_t i = 0; i < n; i++) {
        int error = store_put(store, &puts[i], needs);

        if (error) {
            return error;
        }
    }
    return 0;
}
