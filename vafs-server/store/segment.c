/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Segments: the table of them, reading, appending, syncing, reserving.  See
 * segment.h; scanning and sealing are in segment-scan.c.
 *
 * Locks: an appender's mutex, then a segment's sync_mutex, then the table's
 * mutex. */

#include "vafs-server/store/segment.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "lib/clock.h"
#include "lib/coverage.h"
#include "lib/vlog.h"

COVERAGE_DEFINE(store_segment_created);
COVERAGE_DEFINE(store_segment_sync);

/* Files kept open though nobody reads them. */
#define SEGMENTS_MAX_OPEN 200

void
segment_name(uint64_t pack, char name[SEGMENT_NAME_SIZE])
{
    snprintf(name, SEGMENT_NAME_SIZE, "seg/%016" PRIx64, pack);
}

static struct segment *
segment_create__(const struct segments *segs, uint64_t pack)
{
    struct segment *seg = calloc(1, sizeof *seg);

    if (seg) {
        seg->pack = pack;
        seg->salt = codec_sum(segs->secret, sizeof segs->secret, pack);
        seg->file = -1;
        list_init(&seg->idle);
        pthread_mutex_init(&seg->sync_mutex, NULL);
    }
    return seg;
}

static void
segment_free__(struct segment *seg)
{
    pthread_mutex_destroy(&seg->sync_mutex);
    free(seg);
}

int
segments_create(struct file_layer *files, struct health *health,
                const struct superblock *sb, uint32_t reserve, bool read_only,
                struct segments **ret)
{
    struct segments *segs = calloc(1, sizeof *segs);

    if (!segs) {
        return ENOMEM;
    }
    segs->files = files;
    segs->health = health;
    memcpy(segs->uuid, sb->uuid, sizeof segs->uuid);
    memcpy(segs->secret, sb->secret, sizeof segs->secret);
    segs->segment_size = sb->segment_size;
    segs->writer = sb->writer;
    segs->next_pack = (uint64_t) sb->writer << 48 | 1;
    segs->next_pack = MAX(segs->next_pack, sb->next_pack);
    segs->reserve = MAX(ROUND_UP(reserve, 4096u), 4096u);
    segs->read_only = read_only;
    list_init(&segs->idle);
    pthread_mutex_init(&segs->mutex, NULL);
    for (size_t i = 0; i < SEGMENT_N_APPENDERS; i++) {
        pthread_mutex_init(&segs->appenders[i].mutex, NULL);
    }
    *ret = segs;
    return 0;
}

void
segments_destroy(struct segments *segs)
{
    if (!segs) {
        return;
    }
    for (size_t i = 0; i < segs->n; i++) {
        struct segment *seg = segs->all[i];

        if (seg->file >= 0) {
            segs->files->ops->close(segs->files, seg->file);
        }
        segment_free__(seg);
    }
    while (segs->gone) {
        struct segment *seg = segs->gone;

        segs->gone = seg->next_gone;
        if (seg->file >= 0) {
            segs->files->ops->close(segs->files, seg->file);
        }
        segment_free__(seg);
    }
    for (size_t i = 0; i < SEGMENT_N_APPENDERS; i++) {
        pthread_mutex_destroy(&segs->appenders[i].mutex);
        free(segs->appenders[i].spares);
    }
    pthread_mutex_destroy(&segs->mutex);
    free(segs->all);
    free(segs);
}

/* Rank of the first segment whose pack is not below 'pack'. */
static size_t
segments_rank__(const struct segments *segs, uint64_t pack)
{
    size_t low = 0, high = segs->n;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (segs->all[mid]->pack < pack) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* Adds a segment to the table, under the table's mutex or before threads. */
static int
segments_insert__(struct segments *segs, struct segment *seg)
{
    size_t rank = segments_rank__(segs, seg->pack);

    if (segs->n == segs->allocated) {
        size_t n = MAX(2 * segs->allocated, 16);
        struct segment **all = realloc(segs->all, n * sizeof *all);

        if (!all) {
            return ENOMEM;
        }
        segs->all = all;
        segs->allocated = n;
    }
    memmove(&segs->all[rank + 1], &segs->all[rank],
            (segs->n - rank) * sizeof *segs->all);
    segs->all[rank] = seg;
    segs->n++;
    segs->next_pack = MAX(segs->next_pack, seg->pack + 1);
    return 0;
}

static void
segments_remove__(struct segments *segs, struct segment *seg)
{
    size_t rank = segments_rank__(segs, seg->pack);

    memmove(&segs->all[rank], &segs->all[rank + 1],
            (segs->n - rank - 1) * sizeof *segs->all);
    segs->n--;
    list_remove(&seg->idle);
    if (seg->file >= 0) {
        segs->files->ops->close(segs->files, seg->file);
        segs->n_open--;
    }
    segment_free__(seg);
}

static int
segments_load_cb__(void *segs, const char *name)
{
    struct segment *seg;
    uint64_t pack;
    char *end;
    int error;

    pack = strtoull(name, &end, 16);
    if (*end || end - name != 16) {
        return 0; /* Not ours. */
    }
    seg = segment_create__(segs, pack);
    if (!seg) {
        return ENOMEM;
    }
    error = segments_insert__(segs, seg);
    if (error) {
        segment_free__(seg);
    }
    return error;
}

int
segments_load(struct segments *segs)
{
    return segs->files->ops->list(segs->files, "seg", segments_load_cb__,
                                  segs);
}

struct segment *
segments_find(struct segments *segs, uint64_t pack)
{
    struct segment *seg = NULL;
    size_t rank;

    pthread_mutex_lock(&segs->mutex);
    rank = segments_rank__(segs, pack);
    if (rank < segs->n && segs->all[rank]->pack == pack) {
        seg = segs->all[rank];
    }
    pthread_mutex_unlock(&segs->mutex);
    return seg;
}

size_t
segments_count(struct segments *segs)
{
    size_t n;

    pthread_mutex_lock(&segs->mutex);
    n = segs->n;
    pthread_mutex_unlock(&segs->mutex);
    return n;
}

struct segment *
segments_after(struct segments *segs, const struct segment *prev)
{
    struct segment *seg;
    size_t rank;

    pthread_mutex_lock(&segs->mutex);
    rank = prev ? segments_rank__(segs, prev->pack + 1) : 0;
    seg = rank < segs->n ? segs->all[rank] : NULL;
    pthread_mutex_unlock(&segs->mutex);
    return seg;
}

uint64_t
segments_next_pack(struct segments *segs)
{
    uint64_t pack;

    pthread_mutex_lock(&segs->mutex);
    pack = segs->next_pack;
    pthread_mutex_unlock(&segs->mutex);
    return pack;
}

/* Files. */

int
segment_acquire(struct segments *segs, struct segment *seg)
{
    int error = 0;

    pthread_mutex_lock(&segs->mutex);
    if (seg->file < 0 && seg->gone) {
        error = ENOENT;
    } else if (seg->file < 0) {
        char name[SEGMENT_NAME_SIZE];
        int file;

        segment_name(seg->pack, name);
        error = segs->files->ops->open(
            segs->files, name, segs->read_only ? 0 : FILE_WRITE, &file);
        if (!error) {
            seg->file = file;
            segs->n_open++;
        }
    }
    if (!error) {
        seg->n_users++;
        list_remove(&seg->idle);
    }
    pthread_mutex_unlock(&segs->mutex);
    return error;
}

void
segment_release(struct segments *segs, struct segment *seg)
{
    pthread_mutex_lock(&segs->mutex);
    if (!--seg->n_users && seg->gone) {
        segs->files->ops->close(segs->files, seg->file);
        seg->file = -1;
        segs->n_open--;
    } else if (!seg->n_users) {
        list_push_back(&segs->idle, &seg->idle);
        if (segs->n_open > SEGMENTS_MAX_OPEN) {
            struct segment *victim = CONTAINER_OF(list_pop_front(&segs->idle),
                                                  struct segment, idle);

            segs->files->ops->close(segs->files, victim->file);
            victim->file = -1;
            segs->n_open--;
        }
    }
    pthread_mutex_unlock(&segs->mutex);
}

int
segment_read(struct segments *segs, struct segment *seg, void *buffer,
             size_t size, uint64_t offset)
{
    int error = segment_acquire(segs, seg);

    if (error) {
        /* A segment that is gone is damage, like one that is short. */
        return error == ENOENT ? EBADMSG : error;
    }
    error = file_pread_all(segs->files, seg->file, buffer, size, offset);
    segment_release(segs, seg);
    return error;
}

/* Appending. */

void
segments_lock(struct segments *segs, enum store_class class)
{
    pthread_mutex_lock(&segs->appenders[class].mutex);
}

void
segments_unlock(struct segments *segs, enum store_class class)
{
    pthread_mutex_unlock(&segs->appenders[class].mutex);
}

/* A failed write: ENOSPC (and quota) leaves the store as it was. */
static int
segments_failed__(struct segments *segs, int error, const char *what)
{
    if (error == ENOSPC || error == EDQUOT) {
        return ENOSPC;
    }
    if (error != ENOMEM) {
        health_break(segs->health, error, what);
        return EIO;
    }
    return error;
}

static void
segment_write_header__(const struct segments *segs, const struct segment *seg,
                       uint8_t header[SEG_HEADER_SIZE])
{
    memset(header, 0, SEG_HEADER_SIZE);
    put_le64(header + SEG_OFS_MAGIC, SEG_MAGIC);
    header[SEG_OFS_FORMAT] = SEG_FORMAT;
    header[SEG_OFS_CLASS] = seg->class;
    header[SEG_OFS_GENERATION] = seg->generation;
    memcpy(header + SEG_OFS_UUID, segs->uuid, sizeof segs->uuid);
    put_le64(header + SEG_OFS_PACK, seg->pack);
    put_le64(header + SEG_OFS_BASE, (seg->pack & PACK_COUNTER_MASK)
                                        << SEG_POSITION_SHIFT);
    put_le64(header + SEG_OFS_CREATED, clock_real_ns());
    put_le64(header + SEG_OFS_SUM, codec_sum(header, SEG_OFS_SUM, 0));
}

int
segment_repair_header(struct segments *segs, struct segment *seg)
{
    uint8_t header[SEG_HEADER_SIZE];
    int error;

    segment_write_header__(segs, seg, header);
    error = segment_acquire(segs, seg);
    if (error) {
        return error;
    }
    error = file_pwrite(segs->files, seg->file, header, sizeof header, 0);
    segment_release(segs, seg);
    if (!error) {
        seg->header_damaged = false;
    }
    return error;
}

/* Makes and opens the file of an empty segment with '*allocate' bytes, or
 * fewer if 'shrink' and the disk is full. */
static int
segment_make_file__(struct segments *segs, const struct segment *seg,
                    uint32_t *allocate, bool shrink, int *ret_file)
{
    const struct file_ops *ops = segs->files->ops;
    uint8_t header[SEG_HEADER_SIZE];
    char name[SEGMENT_NAME_SIZE];
    int error, file;

    segment_name(seg->pack, name);
    error = ops->open(segs->files, name, FILE_WRITE | FILE_CREATE | FILE_EXCL,
                      &file);
    if (error) {
        return error;
    }
    segment_write_header__(segs, seg, header);
    error = ops->allocate(segs->files, file, 0, *allocate);
    if (error == ENOSPC && shrink) {
        *allocate = 4096;
        error = ops->allocate(segs->files, file, 0, *allocate);
    }
    if (!error) {
        error = file_pwrite(segs->files, file, header, sizeof header, 0);
    }
    if (error) {
        ops->close(segs->files, file);
        /* If that fails too, the file stays, empty, until the next open. */
        ops->unlink(segs->files, name);
        return error;
    }
    *ret_file = file;
    return 0;
}

/* Makes an empty segment and holds its file open.  Others see it only when it
 * is complete. */
static int
segments_new__(struct segments *segs, enum store_class class,
               uint32_t allocate, bool shrink, struct segment **ret)
{
    struct segment *seg;
    int error, file;

    pthread_mutex_lock(&segs->mutex);
    seg = segment_create__(segs, segs->next_pack);
    segs->next_pack += seg != NULL;
    pthread_mutex_unlock(&segs->mutex);
    if (!seg) {
        return ENOMEM;
    }
    seg->class = class % STORE_N_CLASSES;
    seg->generation = (uint8_t) (class / STORE_N_CLASSES);
    seg->end = SEG_HEADER_SIZE;
    error = segment_make_file__(segs, seg, &allocate, shrink, &file);
    if (error) {
        segment_free__(seg);
        return segments_failed__(segs, error, "making a segment");
    }
    seg->allocated = allocate;
    seg->file = file;
    seg->n_users = 1;

    pthread_mutex_lock(&segs->mutex);
    error = segments_insert__(segs, seg);
    segs->n_open += !error;
    pthread_mutex_unlock(&segs->mutex);
    if (error) {
        char name[SEGMENT_NAME_SIZE];

        segs->files->ops->close(segs->files, file);
        segment_name(seg->pack, name);
        segs->files->ops->unlink(segs->files, name);
        segment_free__(seg);
        return error;
    }
    COVERAGE_INC(store_segment_created);
    *ret = seg;
    return 0;
}

/* Declares the open segment full; upkeep will seal it. */
static void
segments_close_open__(struct segments *segs, struct segment_appender *app)
{
    struct segment *seg = app->open;

    app->open = NULL;
    pthread_mutex_lock(&segs->mutex);
    seg->state = SEGMENT_FULL;
    __atomic_store_n(&segs->new_full, true, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&segs->mutex);
    segment_release(segs, seg);
}

/* Makes sure that there is an open segment with room for 'size' bytes. */
static int
segments_make_room__(struct segments *segs, enum store_class class,
                     size_t size)
{
    struct segment_appender *app = &segs->appenders[class];
    struct segment *seg = app->open;
    uint32_t want, step;
    int error;

    if (seg && seg->end > SEG_HEADER_SIZE &&
        seg->end + size > segs->segment_size) {
        segments_close_open__(segs, app);
        seg = NULL;
    }
    if (!seg) {
        if (app->n_spares) {
            seg = app->spares[0];
            memmove(app->spares, app->spares + 1,
                    --app->n_spares * sizeof *app->spares);
        } else {
            error = segments_new__(segs, class,
                                   MIN(segs->reserve, segs->segment_size),
                                   true, &seg);
            if (error) {
                return error;
            }
        }
        app->open = seg;
    }
    if (seg->end + size <= seg->allocated) {
        return 0;
    }
    want = ROUND_UP(seg->end + (uint32_t) size, 4096u);
    step = MAX(want, MIN(seg->allocated + segs->reserve, segs->segment_size));
    error = segs->files->ops->allocate(segs->files, seg->file, seg->allocated,
                                       step - seg->allocated);
    if (error == ENOSPC && step > want) {
        step = want;
        error = segs->files->ops->allocate(
            segs->files, seg->file, seg->allocated, step - seg->allocated);
    }
    if (error) {
        return segments_failed__(segs, error, "growing a segment");
    }
    seg->allocated = step;
    return 0;
}

int
segments_append(struct segments *segs, enum store_class class, uint8_t *record,
                size_t size, struct segment_place *place)
{
    struct segment_appender *app = &segs->appenders[class];
    struct segment *seg;
    int error;

    if (health_get(segs->health)) {
        return EIO;
    }
    error = segments_make_room__(segs, class, size);
    if (error) {
        return error;
    }
    seg = app->open;
    place->pack = seg->pack;
    place->offset = seg->end;
    place->size = (uint32_t) size;
    place->position =
        ((seg->pack & PACK_COUNTER_MASK) << SEG_POSITION_SHIFT) + seg->end;
    if (seg->generation != SEGMENT_PUT) {
        place->position = get_le64(record + REC_OFS_POSITION);
    }
    codec_seal(record, place->position, seg->salt);
    error = file_pwrite(segs->files, seg->file, record, size, seg->end);
    return error ? segments_failed__(segs, error, "writing a segment") : 0;
}

void
segments_publish(struct segments *segs, enum store_class class,
                 const struct segment_place *place)
{
    struct segment *seg = segs->appenders[class].open;

    __atomic_store_n(&seg->end, place->offset + place->size, __ATOMIC_RELEASE);
}

bool
segments_take_full(struct segments *segs)
{
    return __atomic_exchange_n(&segs->new_full, false, __ATOMIC_ACQ_REL);
}

/* Syncing. */

/* Syncs one segment. */
static int
segment_sync__(struct segments *segs, struct segment *seg, uint32_t end)
{
    uint32_t now;
    int error = 0;

    if (health_get(segs->health)) {
        return EIO;
    }
    /* Who waits here is mostly served by the sync it waited for. */
    pthread_mutex_lock(&seg->sync_mutex);
    if (__atomic_load_n(&seg->durable, __ATOMIC_ACQUIRE) < end) {
        error = segment_acquire(segs, seg);
        if (!error) {
            now = __atomic_load_n(&seg->end, __ATOMIC_ACQUIRE);
            error = segs->files->ops->datasync(segs->files, seg->file);
            if (!error && !seg->named) {
                error = segs->files->ops->sync_dir(segs->files, "seg");
            }
            segment_release(segs, seg);
        }
        if (error) {
            health_break(segs->health, error, "syncing a segment");
            error = EIO;
        } else {
            seg->named = true;
            __atomic_store_n(&seg->durable, now, __ATOMIC_RELEASE);
            __atomic_fetch_add(&segs->n_syncs, 1, __ATOMIC_RELAXED);
            COVERAGE_INC(store_segment_sync);
        }
    }
    pthread_mutex_unlock(&seg->sync_mutex);
    return error;
}

/* The newest segment of the class of 'seg' that is older and not empty. */
static struct segment *
segment_older__(struct segments *segs, const struct segment *seg)
{
    struct segment *older = NULL;
    size_t rank;

    pthread_mutex_lock(&segs->mutex);
    rank = segments_rank__(segs, seg->pack);
    while (!older && rank--) {
        struct segment *s = segs->all[rank];

        if (s->class == seg->class &&
            __atomic_load_n(&s->end, __ATOMIC_ACQUIRE) > SEG_HEADER_SIZE) {
            older = s;
        }
    }
    pthread_mutex_unlock(&segs->mutex);
    return older;
}

int
segment_sync(struct segments *segs, struct segment *seg, uint32_t end)
{
    struct segment *older;

    if (__atomic_load_n(&seg->durable, __ATOMIC_ACQUIRE) >= end) {
        return 0;
    }
    /* Durable is always a beginning of the class's stream, since a delta is
     * worth nothing without its base, which may be in an older segment. */
    older = segment_older__(segs, seg);
    if (older) {
        int error = segment_sync(
            segs, older, __atomic_load_n(&older->end, __ATOMIC_ACQUIRE));

        if (error) {
            return error;
        }
    }
    return segment_sync__(segs, seg, end);
}

int
segments_sync_all(struct segments *segs)
{
    struct segment *seg;

    for (seg = NULL; (seg = segments_after(segs, seg));) {
        uint32_t end = __atomic_load_n(&seg->end, __ATOMIC_ACQUIRE);
        int error;

        /* An empty segment holds nothing that anyone could need, and a
         * transient one nothing that may be needed after a crash. */
        if (end <= SEG_HEADER_SIZE || seg->class == STORE_CLASS_TRANSIENT) {
            continue;
        }
        error = segment_sync(segs, seg, end);
        if (error) {
            return error;
        }
    }
    return 0;
}

uint64_t
segments_n_syncs(const struct segments *segs)
{
    return __atomic_load_n(&segs->n_syncs, __ATOMIC_RELAXED);
}

/* Reserving. */

/* Bytes on disk that 'bytes' of objects may take: heads of 84 to 136 bytes are
 * a quarter of the smallest objects that count. */
static uint64_t
segments_overhead__(uint64_t bytes)
{
    return bytes + bytes / 4 + 4096;
}

/* What of 'bytes' allocated at the end of a segment can surely be used: the
 * rest may be too short for the next record. */
static uint64_t
segments_usable__(const struct segments *segs, uint64_t bytes)
{
    return bytes - MIN(bytes, MIN(segs->segment_size / 4, 65536u + 4096));
}

/* Room that an appender has allocated ahead. */
static uint64_t
segments_ahead__(const struct segments *segs,
                 const struct segment_appender *app)
{
    uint64_t ahead = 0;

    if (app->open) {
        ahead = segments_usable__(segs, app->open->allocated - app->open->end);
    }
    for (size_t i = 0; i < app->n_spares; i++) {
        ahead += segments_usable__(segs, app->spares[i]->allocated -
                                             SEG_HEADER_SIZE);
    }
    return ahead;
}

/* Allocates one step more.  ENOSPC if the disk is full. */
static int
segments_reserve_more__(struct segments *segs, enum store_class class)
{
    struct segment_appender *app = &segs->appenders[class];
    struct segment *seg = app->open, **spares;
    int error;

    if (seg && seg->allocated < segs->segment_size) {
        uint32_t step =
            MIN(segs->reserve, segs->segment_size - seg->allocated);

        error = segs->files->ops->allocate(segs->files, seg->file,
                                           seg->allocated, step);
        if (error) {
            return segments_failed__(segs, error, "reserving space");
        }
        seg->allocated += step;
        return 0;
    }
    spares = realloc(app->spares, (app->n_spares + 1) * sizeof *spares);
    if (!spares) {
        return ENOMEM;
    }
    app->spares = spares;
    error = segments_new__(segs, class, segs->segment_size, false, &seg);
    if (!error) {
        app->spares[app->n_spares++] = seg;
    }
    return error;
}

int
segments_reserve(struct segments *segs, enum store_class class, uint64_t bytes)
{
    struct segment_appender *app = &segs->appenders[class];
    uint64_t want;
    int error = 0;

    if (health_get(segs->health)) {
        return EIO;
    }
    pthread_mutex_lock(&app->mutex);
    want = app->reserved + segments_overhead__(bytes);
    while (!error && segments_ahead__(segs, app) < want) {
        error = segments_reserve_more__(segs, class);
    }
    if (!error) {
        app->reserved = want;
    }
    pthread_mutex_unlock(&app->mutex);
    return error;
}

void
segments_unreserve(struct segments *segs, enum store_class class,
                   uint64_t bytes)
{
    struct segment_appender *app = &segs->appenders[class];

    pthread_mutex_lock(&app->mutex);
    app->reserved -= MIN(app->reserved, segments_overhead__(bytes));
    pthread_mutex_unlock(&app->mutex);
}

uint64_t
segments_reserved(struct segments *segs)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < SEGMENT_N_APPENDERS; i++) {
        pthread_mutex_lock(&segs->appenders[i].mutex);
        sum += segs->appenders[i].reserved;
        pthread_mutex_unlock(&segs->appenders[i].mutex);
    }
    return sum;
}

/* Start and end. */

void
segments_roll(struct segments *segs, enum store_class class)
{
    struct segment_appender *app = &segs->appenders[class];

    pthread_mutex_lock(&app->mutex);
    if (app->open && app->open->end > SEG_HEADER_SIZE) {
        segments_close_open__(segs, app);
    }
    pthread_mutex_unlock(&app->mutex);
}

int
segments_collect(struct segments *segs, struct segment *seg)
{
    char name[SEGMENT_NAME_SIZE];
    size_t rank;
    int error;

    pthread_mutex_lock(&segs->mutex);
    rank = segments_rank__(segs, seg->pack);
    memmove(&segs->all[rank], &segs->all[rank + 1],
            (segs->n - rank - 1) * sizeof *segs->all);
    segs->n--;
    list_remove(&seg->idle);
    seg->gone = true;
    seg->next_gone = segs->gone;
    segs->gone = seg;
    if (seg->file >= 0 && !seg->n_users) {
        segs->files->ops->close(segs->files, seg->file);
        seg->file = -1;
        segs->n_open--;
    }
    pthread_mutex_unlock(&segs->mutex);
    segment_name(seg->pack, name);
    /* If this fails the next open finds it again, as something that no index
     * covers. */
    error = segs->files->ops->unlink(segs->files, name);
    return error == ENOENT ? 0 : error;
}

/* Unlinks the file of 'seg' and forgets it. */
static int
segments_unlink__(struct segments *segs, struct segment *seg)
{
    char name[SEGMENT_NAME_SIZE];
    int error;

    segment_name(seg->pack, name);
    error = segs->files->ops->unlink(segs->files, name);
    if (!error || error == ENOENT) {
        pthread_mutex_lock(&segs->mutex);
        segments_remove__(segs, seg);
        pthread_mutex_unlock(&segs->mutex);
        error = 0;
    }
    return error;
}

int
segments_start(struct segments *segs)
{
    size_t i = 0;

    if (segs->read_only) {
        return 0;
    }
    while (i < segs->n) {
        struct segment *seg = segs->all[i];
        struct segment_appender *app =
            &segs->appenders[SEGMENT_APPENDER(seg->generation, seg->class)];
        int error = 0;

        if (seg->class == STORE_CLASS_TRANSIENT ||
            (seg->end <= SEG_HEADER_SIZE && !seg->durable)) {
            error = segments_unlink__(segs, seg);
            if (error) {
                return error;
            }
            continue;
        }
        if (seg->state == SEGMENT_OPEN) {
            /* The newest open one of a class goes on. */
            if (app->open) {
                segments_close_open__(segs, app);
            }
            if (seg->header_damaged || seg->end >= segs->segment_size) {
                seg->state = SEGMENT_FULL;
                __atomic_store_n(&segs->new_full, true, __ATOMIC_RELEASE);
            } else {
                error = segment_acquire(segs, seg);
                if (error) {
                    return error;
                }
                app->open = seg;
            }
        }
        i++;
    }
    return 0;
}

int
segments_trim(struct segments *segs)
{
    int error = 0;

    for (size_t i = 0; i < SEGMENT_N_APPENDERS; i++) {
        struct segment_appender *app = &segs->appenders[i];
        int e = 0;

        pthread_mutex_lock(&app->mutex);
        app->reserved = 0;
        while (!e && app->n_spares) {
            struct segment *spare = app->spares[--app->n_spares];

            segment_release(segs, spare);
            e = segments_unlink__(segs, spare);
        }
        if (!e && app->open && app->open->allocated > app->open->end) {
            e = segs->files->ops->truncate(segs->files, app->open->file,
                                           app->open->end);
            app->open->allocated = app->open->end;
        }
        pthread_mutex_unlock(&app->mutex);
        error = error ? error : e;
    }
    return error;
}
