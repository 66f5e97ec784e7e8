/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Segments read from end to end: scanning, footers, recovery, sealing.  See
 * segment.h. */

#include "vafs-server/store/segment.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "lib/vlog.h"

COVERAGE_DEFINE(store_segment_gap);
COVERAGE_DEFINE(store_segment_sealed);
COVERAGE_DEFINE(store_footer_damaged);

/* A window onto a file: two of the largest records. */
#define SCAN_BUFFER (REC_SIZE_MAX + (256u << 10))

struct scan_window {
    struct segments *segs;
    struct segment *seg;
    uint8_t *buffer;
    uint32_t start, n; /* Bytes of the file in 'buffer'. */
    uint32_t to;
    size_t allocated;
};

/* Makes '*ret' point to as much as there is, up to 'size' bytes, at 'offset',
 * and returns that in '*ret_n'. */
static int
scan_look__(struct scan_window *w, uint32_t offset, size_t size,
            const uint8_t **ret, size_t *ret_n)
{
    size_t want = MIN(size, (size_t) (w->to - offset));

    if (offset < w->start || offset + want > w->start + w->n) {
        size_t n, fill = MIN(w->allocated, (size_t) (w->to - offset));
        int error;

        error = segment_acquire(w->segs, w->seg);
        if (error) {
            return error;
        }
        error = file_pread(w->segs->files, w->seg->file, w->buffer, fill,
                           offset, &n);
        segment_release(w->segs, w->seg);
        if (error) {
            return error;
        }
        w->start = offset;
        w->n = (uint32_t) n;
    }
    *ret = w->buffer + (offset - w->start);
    *ret_n = MIN(want, (size_t) (w->start + w->n - offset));
    return 0;
}

/* 0, EBADMSG (no valid head here), or why it cannot be read. */
static int
scan_parse__(struct scan_window *w, uint32_t offset, struct codec_record *r,
             const uint8_t **ret_payload)
{
    const uint8_t *p;
    size_t n;
    int error;

    error = scan_look__(w, offset, REC_HEAD_MAX, &p, &n);
    if (error) {
        return error;
    }
    error = codec_parse(p, n, w->seg->salt, r);
    if (error) {
        return EBADMSG;
    }
    error = scan_look__(w, offset, r->size, &p, &n);
    if (error) {
        return error;
    }
    if (n < r->size || codec_parse(p, n, w->seg->salt, r)) {
        return EBADMSG; /* Cut off. */
    }
    *ret_payload = p + r->head_size;
    return 0;
}

/* Moves '*offset' to the next place that could be a record. */
static int
scan_skip__(struct scan_window *w, uint32_t *offset)
{
    uint32_t at = *offset + REC_ALIGN;

    while (at < w->to) {
        const uint8_t *p;
        size_t n;
        int error;

        error = scan_look__(w, at, w->allocated, &p, &n);
        if (error) {
            return error;
        }
        if (n < REC_HEADER_SIZE) {
            break;
        }
        for (size_t i = 0; i + REC_HEADER_SIZE <= n; i += REC_ALIGN) {
            if (get_le32(p + i) == REC_MAGIC) {
                *offset = at + (uint32_t) i;
                return 0;
            }
        }
        at +=
            (uint32_t) ROUND_DOWN(n - REC_HEADER_SIZE, REC_ALIGN) + REC_ALIGN;
    }
    *offset = w->to;
    return 0;
}

int
segment_scan(struct segments *segs, struct segment *seg, uint32_t from,
             uint32_t to, const struct segment_scan *scan, uint32_t *ret_end)
{
    struct scan_window w = {.segs = segs, .seg = seg, .to = to};
    uint32_t offset = from, end = from;
    int error = 0;

    if (to <= from) {
        *ret_end = from;
        return 0;
    }
    /* Small segments, small windows: tests and idle stores. */
    w.allocated = MIN(SCAN_BUFFER, MAX(to - from, 4096u));
    w.buffer = malloc(w.allocated);
    if (!w.buffer) {
        return ENOMEM;
    }
    w.start = from;
    while (!error && offset < to) {
        struct codec_record r;
        const uint8_t *payload;
        bool bad = false;

        error = scan_parse__(&w, offset, &r, &payload);
        if (!error) {
            bad = codec_check(&r, payload);
        }
        if (error == EBADMSG || (bad && !scan->want_bad)) {
            error = scan_skip__(&w, &offset);
            continue;
        }
        if (error) {
            break;
        }
        if (offset > end) {
            COVERAGE_INC(store_segment_gap);
            if (scan->gap) {
                scan->gap(scan->aux, seg, end, offset - end);
            }
        }
        error = scan->cb(scan->aux, seg, offset, &r, payload, bad);
        offset += (uint32_t) r.size;
        end = offset;
    }
    free(w.buffer);
    if (!error) {
        *ret_end = end;
    }
    return error;
}

uint32_t
segment_location(const struct codec_record *r, enum store_class class)
{
    return (uint32_t) (r->size / REC_ALIGN) |
           (uint32_t) MIN(r->kind, 15) << 24 |
           (r->encoding == REC_DELTA ? LOC_DELTA : 0) |
           (class == STORE_CLASS_TRANSIENT ? LOC_TRANSIENT : 0);
}

int
segment_check_header(struct segments *segs, struct segment *seg,
                     enum store_class *ret_class)
{
    uint8_t header[SEG_HEADER_SIZE];
    int error;

    error = segment_read(segs, seg, header, sizeof header, 0);
    if (error) {
        return error;
    }
    if (get_le64(header + SEG_OFS_MAGIC) != SEG_MAGIC ||
        get_le64(header + SEG_OFS_SUM) != codec_sum(header, SEG_OFS_SUM, 0) ||
        header[SEG_OFS_FORMAT] != SEG_FORMAT ||
        header[SEG_OFS_CLASS] >= STORE_N_CLASSES ||
        memcmp(header + SEG_OFS_UUID, segs->uuid, sizeof segs->uuid) ||
        get_le64(header + SEG_OFS_PACK) != seg->pack) {
        return EBADMSG;
    }
    *ret_class = header[SEG_OFS_CLASS];
    return 0;
}

int
segment_learn_generation(struct segments *segs, struct segment *seg)
{
    uint8_t data[SEG_HEADER_SIZE + REC_HEAD_MAX];
    enum store_class class;
    struct codec_record r;
    size_t n;
    int error;

    error = segment_check_header(segs, seg, &class);
    if (error && error != EBADMSG) {
        return error;
    }
    if (segment_acquire(segs, seg)) {
        return 0; /* segment_recover() will say why. */
    }
    if (file_pread(segs->files, seg->file, data, sizeof data, 0, &n)) {
        n = 0;
    }
    segment_release(segs, seg);
    if (!error) {
        seg->generation = n > SEG_OFS_GENERATION && data[SEG_OFS_GENERATION] <
                                                        SEGMENT_N_GENERATIONS
                              ? data[SEG_OFS_GENERATION]
                              : SEGMENT_PUT;
    } else if (n > SEG_HEADER_SIZE &&
               !codec_parse(data + SEG_HEADER_SIZE, n - SEG_HEADER_SIZE,
                            seg->salt, &r) &&
               r.position !=
                   ((seg->pack & PACK_COUNTER_MASK) << SEG_POSITION_SHIFT) +
                       SEG_HEADER_SIZE) {
        /* A record that keeps its position was moved. */
        seg->generation =
            r.encoding == REC_DELTA ? SEGMENT_DELTAS : SEGMENT_WHOLE;
    }
    return 0;
}

/* Footers. */

/* Reads and checks the trailer.  ENOENT: there is none. */
static int
footer_read_trailer__(struct segments *segs, struct segment *seg,
                      uint8_t trailer[FOOT_TRAILER_SIZE], uint32_t *ret_end,
                      uint32_t *ret_n)
{
    uint64_t size;
    uint32_t end, n;
    int error;

    error = segment_acquire(segs, seg);
    if (error) {
        return error;
    }
    error = segs->files->ops->size(segs->files, seg->file, &size);
    segment_release(segs, seg);
    if (error) {
        return error;
    }
    if (size < SEG_HEADER_SIZE + FOOT_TRAILER_SIZE || size > UINT32_MAX) {
        return ENOENT;
    }
    error = segment_read(segs, seg, trailer, FOOT_TRAILER_SIZE,
                         size - FOOT_TRAILER_SIZE);
    if (error) {
        return error;
    }
    end = get_le32(trailer + FOOT_OFS_END);
    n = get_le32(trailer + FOOT_OFS_N);
    if (get_le64(trailer + FOOT_OFS_MAGIC) != FOOT_MAGIC ||
        get_le64(trailer + FOOT_OFS_SUM) !=
            codec_sum(trailer, FOOT_OFS_SUM, seg->salt) ||
        trailer[FOOT_OFS_FORMAT] != FOOT_FORMAT ||
        get_le64(trailer + FOOT_OFS_PACK) != seg->pack ||
        (uint64_t) end + (uint64_t) n * FOOT_ENTRY_SIZE + FOOT_TRAILER_SIZE !=
            size) {
        return ENOENT;
    }
    *ret_end = end;
    *ret_n = n;
    return 0;
}

int
segment_read_footer(struct segments *segs, struct segment *seg,
                    segment_entry_cb *cb, void *aux, uint32_t *ret_end)
{
    uint8_t trailer[FOOT_TRAILER_SIZE], *table;
    uint32_t end, n;
    int error;

    error = footer_read_trailer__(segs, seg, trailer, &end, &n);
    if (error) {
        return error;
    }
    *ret_end = end;
    if (!cb) {
        return 0;
    }
    table = malloc((size_t) n * FOOT_ENTRY_SIZE + 1);
    if (!table) {
        return ENOMEM;
    }
    error = segment_read(segs, seg, table, (size_t) n * FOOT_ENTRY_SIZE, end);
    if (!error && codec_sum(table, (size_t) n * FOOT_ENTRY_SIZE, seg->salt) !=
                      get_le64(trailer + FOOT_OFS_SUM_TABLE)) {
        error = EBADMSG;
    }
    for (uint32_t i = 0; i < n && !error; i++) {
        const uint8_t *e = table + (size_t) i * FOOT_ENTRY_SIZE;
        struct store_id id;

        memcpy(&id, e, sizeof id);
        error = cb(aux, seg, get_le32(e + 32), get_le32(e + 36), &id);
    }
    free(table);
    return error;
}

/* Gathers footer entries and writes them in pieces. */
struct footer_writer {
    struct segments *segs;
    struct segment *seg;
    uint8_t *table;
    uint32_t n, allocated;
};

static int
footer_writer_cb__(void *writer_, const struct segment *seg, uint32_t offset,
                   const struct codec_record *r, const uint8_t *payload,
                   bool bad)
{
    struct footer_writer *w = writer_;
    uint8_t *e;

    if (w->n == w->allocated) {
        uint32_t n = MAX(2 * w->allocated, 64);
        uint8_t *table = realloc(w->table, (size_t) n * FOOT_ENTRY_SIZE);

        if (!table) {
            return ENOMEM;
        }
        w->table = table;
        w->allocated = n;
    }
    e = w->table + (size_t) w->n++ * FOOT_ENTRY_SIZE;
    memcpy(e, &r->id, 32);
    put_le32(e + 32, offset);
    put_le32(e + 36, segment_location(r, seg->class));
    return 0;
}

static int
footer_write__(struct segments *segs, struct segment *seg,
               struct footer_writer *w)
{
    uint8_t trailer[FOOT_TRAILER_SIZE];
    size_t table_size = (size_t) w->n * FOOT_ENTRY_SIZE;
    struct iovec iov[2] = {
        {.iov_base = w->table, .iov_len = table_size},
        {.iov_base = trailer, .iov_len = sizeof trailer},
    };
    int error;

    memset(trailer, 0, sizeof trailer);
    put_le64(trailer + FOOT_OFS_MAGIC, FOOT_MAGIC);
    trailer[FOOT_OFS_FORMAT] = FOOT_FORMAT;
    put_le64(trailer + FOOT_OFS_PACK, seg->pack);
    put_le32(trailer + FOOT_OFS_END, seg->end);
    put_le32(trailer + FOOT_OFS_N, w->n);
    put_le64(trailer + FOOT_OFS_SUM_TABLE,
             codec_sum(w->table, table_size, seg->salt));
    put_le64(trailer + FOOT_OFS_SUM,
             codec_sum(trailer, FOOT_OFS_SUM, seg->salt));

    error = segment_acquire(segs, seg);
    if (error) {
        return error;
    }
    error = segs->files->ops->truncate(segs->files, seg->file, seg->end);
    if (!error) {
        error = segs->files->ops->pwritev(segs->files, seg->file, iov, 2,
                                          seg->end);
    }
    if (!error) {
        error = segs->files->ops->datasync(segs->files, seg->file);
        if (error) {
            health_break(segs->health, error, "syncing a footer");
        }
    }
    segment_release(segs, seg);
    return error;
}

/* Seals a full segment.  On failure it stays full and is tried again later:
 * the footer is a convenience. */
static int
segment_seal__(struct segments *segs, struct segment *seg)
{
    struct footer_writer w = {.segs = segs, .seg = seg};
    struct segment_scan scan = {
        .cb = footer_writer_cb__, .aux = &w, .want_bad = true};
    uint32_t end;
    int error;

    /* A valid footer says that all records before it are durable. */
    error = segment_sync(segs, seg, seg->end);
    if (!error) {
        error =
            segment_scan(segs, seg, SEG_HEADER_SIZE, seg->end, &scan, &end);
    }
    if (!error) {
        error = footer_write__(segs, seg, &w);
    }
    free(w.table);
    if (error) {
        return error;
    }
    pthread_mutex_lock(&segs->mutex);
    seg->state = SEGMENT_SEALED;
    pthread_mutex_unlock(&segs->mutex);
    COVERAGE_INC(store_segment_sealed);
    return 0;
}

int
segments_seal_full(struct segments *segs)
{
    struct segment *seg;

    for (seg = NULL; (seg = segments_after(segs, seg));) {
        bool full;
        int error;

        pthread_mutex_lock(&segs->mutex);
        full = seg->state == SEGMENT_FULL;
        pthread_mutex_unlock(&segs->mutex);
        if (full && seg->class != STORE_CLASS_TRANSIENT) {
            error = segment_seal__(segs, seg);
            if (error) {
                return error;
            }
        }
    }
    return 0;
}

struct entries_aux {
    segment_entry_cb *cb;
    void *aux;
};

static int
entries_record__(void *aux_, const struct segment *seg, uint32_t offset,
                 const struct codec_record *r, const uint8_t *payload,
                 bool bad)
{
    struct entries_aux *aux = aux_;

    return aux->cb(aux->aux, seg, offset, segment_location(r, seg->class),
                   &r->id);
}

int
segment_entries(struct segments *segs, struct segment *seg,
                segment_entry_cb *cb, void *aux_)
{
    uint32_t end = __atomic_load_n(&seg->end, __ATOMIC_ACQUIRE);
    struct entries_aux aux = {.cb = cb, .aux = aux_};
    struct segment_scan scan = {.cb = entries_record__, .aux = &aux};
    bool sealed;
    int error = ENOENT;

    pthread_mutex_lock(&segs->mutex);
    sealed = seg->state == SEGMENT_SEALED;
    pthread_mutex_unlock(&segs->mutex);
    if (sealed) {
        error = segment_read_footer(segs, seg, cb, aux_, &end);
    }
    if (error == ENOENT || error == EBADMSG) {
        error = segment_scan(segs, seg, SEG_HEADER_SIZE, end, &scan, &end);
    }
    return error;
}

/* Recovery. */

struct recover_aux {
    struct segment *seg;
    uint32_t covered;
    segment_entry_cb *cb;
    void *aux;
    bool first;
};

/* Without a header, the first record tells the class. */
static void
recover_class__(struct recover_aux *aux, uint8_t kind)
{
    if (aux->first && aux->seg->header_damaged) {
        aux->seg->class =
            kind == STORE_DATA ? STORE_CLASS_DATA : STORE_CLASS_NODE;
    }
    aux->first = false;
}

static int
recover_entry__(void *aux_, const struct segment *seg, uint32_t offset,
                uint32_t location, const struct store_id *id)
{
    struct recover_aux *aux = aux_;

    recover_class__(aux, LOC_KIND(location));
    return offset < aux->covered
               ? 0
               : aux->cb(aux->aux, seg, offset, location, id);
}

static int
recover_record__(void *aux_, const struct segment *seg, uint32_t offset,
                 const struct codec_record *r, const uint8_t *payload,
                 bool bad)
{
    struct recover_aux *aux = aux_;

    recover_class__(aux, r->kind);
    return aux->cb(aux->aux, seg, offset, segment_location(r, seg->class),
                   &r->id);
}

static void
recover_gap__(void *aux, const struct segment *seg, uint32_t offset,
              uint32_t size)
{
    vlog_warn("segment %016" PRIx64 ": %u damaged bytes at %u, skipped",
              seg->pack, size, offset);
}

/* Cuts off what follows the last valid record. */
static int
recover_cut__(struct segments *segs, struct segment *seg, uint64_t size)
{
    int error;

    seg->allocated = (uint32_t) MIN(size, UINT32_MAX);
    if (segs->read_only || size <= seg->end) {
        return 0;
    }
    error = segment_acquire(segs, seg);
    if (!error) {
        error = segs->files->ops->truncate(segs->files, seg->file, seg->end);
        segment_release(segs, seg);
        seg->allocated = seg->end;
    }
    return error;
}

/* Finds end and state of a segment by its footer or by a scan. */
static int
recover_end__(struct segments *segs, struct segment *seg,
              struct recover_aux *aux)
{
    struct segment_scan scan = {
        .cb = recover_record__, .gap = recover_gap__, .aux = aux};
    uint64_t size;
    uint32_t end = 0;
    int error;

    error = segment_read_footer(segs, seg, recover_entry__, aux, &end);
    if (!error) {
        seg->end = end;
        seg->state = SEGMENT_SEALED;
        return 0;
    }
    if (error == EBADMSG) {
        COVERAGE_INC(store_footer_damaged);
    } else if (error != ENOENT) {
        return error;
    }

    error = segment_acquire(segs, seg);
    if (error) {
        return error;
    }
    error = segs->files->ops->size(segs->files, seg->file, &size);
    segment_release(segs, seg);
    if (error) {
        return error;
    }
    error =
        segment_scan(segs, seg, MAX(aux->covered, (uint32_t) SEG_HEADER_SIZE),
                     (uint32_t) MIN(size, UINT32_MAX), &scan, &end);
    if (error) {
        return error;
    }
    seg->end = end;
    seg->state = SEGMENT_OPEN;
    return recover_cut__(segs, seg, size);
}

int
segment_recover(struct segments *segs, struct segment *seg, uint32_t covered,
                bool covered_sealed, segment_entry_cb *cb, void *aux_)
{
    struct recover_aux aux = {
        .seg = seg, .covered = covered, .cb = cb, .aux = aux_, .first = true};
    int error;

    seg->named = covered > 0;
    seg->durable = covered;
    if (covered_sealed) {
        /* Nothing to learn from it; its file is not even opened. */
        seg->end = covered;
        seg->state = SEGMENT_SEALED;
        return 0;
    }
    error = segment_check_header(segs, seg, &seg->class);
    if (error && error != EBADMSG) {
        return error;
    }
    seg->header_damaged = error;
    /* Damage, or a crash before the header but after a record got to disk. */
    if (error && covered) {
        aux.first = false; /* The index knows the class. */
    }
    error = recover_end__(segs, seg, &aux);
    if (!error && seg->header_damaged && !segs->read_only &&
        seg->end > SEG_HEADER_SIZE) {
        error = segment_repair_header(segs, seg);
    }
    return error;
}
