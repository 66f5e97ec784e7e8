/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checking a whole store, and walking all its objects.  See store.h. */

#include <errno.h>
#include <stdlib.h>

#include "vafs-server/store/store-private.h"

struct verify {
    struct store *store;
    bool (*progress)(void *aux, const struct store_progress *);
    void (*error)(void *aux, const struct store_error *);
    void *aux;
    struct store_progress sums;

    /* The footer of the segment being looked at. */
    uint8_t *footer; /* Offset and location of each entry, and its id. */
    uint32_t n_footer, footer_allocated, next_footer;
    bool has_footer, footer_bad;
};

static void
verify_report__(struct verify *v, enum store_problem problem,
                const struct segment *seg, uint32_t offset,
                const struct store_id *id, const char *what)
{
    struct store_error error = {.problem = problem,
                                .pack = seg ? seg->pack : 0,
                                .offset = offset,
                                .what = what};

    if (id) {
        error.id = *id;
    }
    v->sums.n_errors++;
    if (v->error) {
        v->error(v->aux, &error);
    }
}

/* Is there a sound head of a record of this name at the entry's place? */
static int
verify_place__(struct verify *v, const struct index_entry *entry)
{
    struct segment *seg = segments_find(v->store->segs, entry->pack);
    size_t n = MIN(LOC_LENGTH(entry->location), (size_t) REC_HEAD_MAX);
    uint8_t head[REC_HEAD_MAX];
    struct codec_record r;
    int error;

    if (!seg || n < REC_HEADER_SIZE) {
        return EBADMSG;
    }
    error = segment_read(v->store->segs, seg, head, n, entry->offset);
    if (error) {
        return error;
    }
    if (codec_parse(head, n, seg->salt, &r) ||
        r.size != LOC_LENGTH(entry->location) ||
        !store_id_equal(&r.id, &entry->id)) {
        return EBADMSG;
    }
    return 0;
}

/* Can the record be found by its name? */
static int
verify_indexed__(struct verify *v, const struct segment *seg, uint32_t offset,
                 const struct codec_record *r)
{
    struct index_entry entry;
    int error;

    error = index_find(v->store->index, &r->id, true, &entry);
    if (!error && (entry.pack != seg->pack || entry.offset != offset)) {
        if (store_is_gone__(v->store, entry.pack)) {
            return 0; /* The copy that counted was dead. */
        }
        error = verify_place__(v, &entry);
    }
    if (error == ENOENT || error == EBADMSG) {
        verify_report__(v, STORE_BAD_INDEX, seg, offset, &r->id,
                        error == ENOENT
                            ? "the index does not know this object"
                            : "the index points to a wrong place for this "
                              "object");
        error = 0;
    }
    return error;
}

/* Unpacks a record and compares its content with its name. */
static int
verify_content__(struct verify *v, const struct segment *seg, uint32_t offset,
                 const struct codec_record *r, const uint8_t *payload)
{
    struct object *base = NULL;
    struct store_id id;
    uint8_t *plain;
    int error = 0;

    if (r->encoding == REC_DELTA) {
        error = store_get(v->store, &r->base, r->kind, &base);
        if (!error && !store_id_is_zero(object_base(base))) {
            error = EBADMSG;
        }
        if (error == ENOENT || error == EBADMSG) {
            object_unref(base);
            verify_report__(v, STORE_BAD_BASE, seg, offset, &r->id,
                            "the object that this one is a difference from "
                            "is missing or damaged");
            return 0;
        }
    }
    plain = error ? NULL : malloc((size_t) r->plain + 1);
    if (!error && !plain) {
        error = ENOMEM;
    }
    if (!error) {
        error = codec_unpack(r, payload, base, plain);
    }
    if (!error) {
        error = codec_hash(r->kind, r->format, plain, r->plain, &id);
    }
    if (error == EBADMSG || (!error && !store_id_equal(&id, &r->id))) {
        verify_report__(v, STORE_BAD_CONTENT, seg, offset, &r->id,
                        "the content does not have this name");
        error = 0;
    }
    object_unref(base);
    free(plain);
    return error;
}

/* A delta that outlived its base, and therefore counts for nothing?  A crash
 * can do that, and so can garbage collection if both are dead and only the
 * base was in a segment that was removed. */
static bool
verify_is_orphan__(struct verify *v, const struct codec_record *r)
{
    struct index_entry entry;

    return r->encoding == REC_DELTA &&
           store_find__(v->store, &r->base, true, &entry, NULL) == ENOENT;
}

static void
verify_footer_entry__(struct verify *v, const struct segment *seg,
                      uint32_t offset, const struct codec_record *r)
{
    const uint8_t *e = v->footer + (size_t) v->next_footer * FOOT_ENTRY_SIZE;

    if (!v->has_footer || v->footer_bad) {
        return;
    }
    /* Records that are damaged now were sound when the footer was written. */
    while (v->next_footer < v->n_footer && get_le32(e + 32) < offset) {
        v->next_footer++;
        e += FOOT_ENTRY_SIZE;
    }
    if (v->next_footer == v->n_footer || memcmp(e, &r->id, sizeof r->id) ||
        get_le32(e + 32) != offset ||
        get_le32(e + 36) != segment_location(r, seg->class)) {
        v->footer_bad = true;
        verify_report__(v, STORE_BAD_FOOTER, seg, offset, &r->id,
                        "the footer disagrees with this record");
        return;
    }
    v->next_footer++;
}

static int
verify_record__(void *v_, const struct segment *seg, uint32_t offset,
                const struct codec_record *r, const uint8_t *payload, bool bad)
{
    struct verify *v = v_;
    int error;

    v->sums.n_objects++;
    v->sums.done += r->size;
    verify_footer_entry__(v, seg, offset, r);
    if (bad) {
        verify_report__(v, STORE_BAD_RECORD, seg, offset, &r->id,
                        "stored bytes fail their checksum");
        return 0;
    }
    if (verify_is_orphan__(v, r)) {
        return 0;
    }
    error = verify_content__(v, seg, offset, r, payload);
    if (!error) {
        error = verify_indexed__(v, seg, offset, r);
    }
    if (!error && v->progress && !(v->sums.n_objects & 63) &&
        !v->progress(v->aux, &v->sums)) {
        error = ECANCELED;
    }
    return error;
}

/* No valid record in ['offset', 'offset' + 'size').  That is an error only if
 * one was there: footer and index (see verify_entry__()) say that.  A crash
 * can leave such a gap, where a later record got to disk and an earlier one,
 * of which nobody was promised anything, did not. */
static void
verify_gap__(void *v_, const struct segment *seg, uint32_t offset,
             uint32_t size)
{
    struct verify *v = v_;

    for (uint32_t i = 0; v->has_footer && i < v->n_footer; i++) {
        const uint8_t *e = v->footer + (size_t) i * FOOT_ENTRY_SIZE;
        uint32_t at = get_le32(e + 32);

        if (at >= offset && at < offset + size) {
            struct store_id id;

            memcpy(&id, e, sizeof id);
            verify_report__(v, STORE_BAD_RECORD, seg, at, &id,
                            "this record is damaged");
        }
    }
}

static int
verify_footer_cb__(void *v_, const struct segment *seg, uint32_t offset,
                   uint32_t location, const struct store_id *id)
{
    struct verify *v = v_;
    uint8_t *e;

    if (v->n_footer == v->footer_allocated) {
        uint32_t n = MAX(2 * v->footer_allocated, 256);
        uint8_t *p = realloc(v->footer, (size_t) n * FOOT_ENTRY_SIZE);

        if (!p) {
            return ENOMEM;
        }
        v->footer = p;
        v->footer_allocated = n;
    }
    e = v->footer + (size_t) v->n_footer++ * FOOT_ENTRY_SIZE;
    memcpy(e, id, sizeof *id);
    put_le32(e + 32, offset);
    put_le32(e + 36, location);
    return 0;
}

static int
verify_segment__(struct verify *v, struct segment *seg)
{
    struct segments *segs = v->store->segs;
    struct segment_scan scan = {.cb = verify_record__,
                                .gap = verify_gap__,
                                .aux = v,
                                .want_bad = true};
    uint32_t end = __atomic_load_n(&seg->end, __ATOMIC_ACQUIRE), footer_end;
    enum store_class class;
    bool sealed;
    int error;

    if (end <= SEG_HEADER_SIZE) {
        return 0;
    }
    error = segment_check_header(segs, seg, &class);
    if (error == EBADMSG || (!error && class != seg->class)) {
        verify_report__(v, STORE_BAD_SEGMENT, seg, 0, NULL,
                        "the segment's header is damaged");
    } else if (error) {
        return error;
    }
    pthread_mutex_lock(&segs->mutex);
    sealed = seg->state == SEGMENT_SEALED;
    pthread_mutex_unlock(&segs->mutex);
    v->n_footer = v->next_footer = 0;
    v->has_footer = v->footer_bad = false;
    if (sealed) {
        error =
            segment_read_footer(segs, seg, verify_footer_cb__, v, &footer_end);
        v->has_footer = !error;
        if (error == ENOENT || error == EBADMSG) {
            verify_report__(v, STORE_BAD_FOOTER, seg, end, NULL,
                            "the footer is damaged");
        } else if (error) {
            return error;
        }
    }
    error = segment_scan(segs, seg, SEG_HEADER_SIZE, end, &scan, &footer_end);
    if (!error && footer_end < end) {
        verify_gap__(v, seg, footer_end, end - footer_end);
    }
    return error;
}

/* Does each entry lead somewhere? */
static int
verify_entry__(void *v_, const struct index_entry *entry)
{
    struct verify *v = v_;
    int error = verify_place__(v, entry);

    if (error && store_is_gone__(v->store, entry->pack)) {
        return 0;
    }
    if (error == EBADMSG) {
        struct index_entry now;

        /* An older entry may be superseded; then it does not matter. */
        if (index_find(v->store->index, &entry->id, true, &now) ||
            (now.pack == entry->pack && now.offset == entry->offset)) {
            verify_report__(v, STORE_BAD_INDEX,
                            segments_find(v->store->segs, entry->pack),
                            entry->offset, &entry->id,
                            "the index names a place where this object is "
                            "not");
        }
        error = 0;
    }
    return error;
}

int
store_verify(struct store *store,
             bool (*progress)(void *aux, const struct store_progress *),
             void (*error_cb)(void *aux, const struct store_error *),
             void *aux)
{
    struct verify v = {
        .store = store, .progress = progress, .error = error_cb, .aux = aux};
    struct segment *seg;
    int error = 0;

    for (seg = NULL; (seg = segments_after(store->segs, seg));) {
        uint32_t end = __atomic_load_n(&seg->end, __ATOMIC_ACQUIRE);

        v.sums.total += end > SEG_HEADER_SIZE ? end - SEG_HEADER_SIZE : 0;
    }
    for (seg = NULL; !error && (seg = segments_after(store->segs, seg));) {
        error = verify_segment__(&v, seg);
        error = store_is_gone__(store, seg->pack) ? 0 : error;
    }
    if (!error) {
        error = index_for_each(store->index, verify_entry__, &v);
        if (error == EBADMSG) {
            verify_report__(&v, STORE_BAD_INDEX, NULL, 0, NULL,
                            "an index run is damaged");
            error = 0;
        }
    }
    free(v.footer);
    if (!error && progress && !progress(aux, &v.sums)) {
        error = ECANCELED;
    }
    return error ? error : v.sums.n_errors ? EBADMSG : 0;
}

/* Walking. */

struct walk {
    struct store *store;
    uint8_t kind;
    int (*cb)(void *aux, const struct store_id *, const struct store_info *);
    void *aux;
};

static int
walk_record__(void *w_, const struct segment *seg, uint32_t offset,
              const struct codec_record *r, const uint8_t *payload, bool bad)
{
    struct walk *w = w_;
    struct index_entry entry;
    struct store_info info;
    int error;

    if (w->kind && r->kind != w->kind) {
        return 0;
    }
    error = index_find(w->store->index, &r->id, true, &entry);
    if (error == ENOENT ||
        (!error && (entry.pack != seg->pack || entry.offset != offset))) {
        return 0; /* Another copy counts. */
    }
    if (error) {
        return error;
    }
    memset(&info, 0, sizeof info);
    info.pack = seg->pack;
    info.offset = offset;
    info.stored_size = (uint32_t) r->size;
    info.plain_size = r->plain;
    info.kind = r->kind;
    info.delta = r->encoding == REC_DELTA;
    info.durable =
        __atomic_load_n(&seg->durable, __ATOMIC_ACQUIRE) >= offset + r->size;
    return w->cb(w->aux, &r->id, &info);
}

int
store_for_each(struct store *store, uint8_t kind,
               int (*cb)(void *aux, const struct store_id *,
                         const struct store_info *),
               void *aux)
{
    struct walk w = {.store = store, .kind = kind, .cb = cb, .aux = aux};
    struct segment_scan scan = {
        .cb = walk_record__, .aux = &w, .want_bad = true};
    struct segment *seg;
    int error = 0;

    for (seg = NULL; !error && (seg = segments_after(store->segs, seg));) {
        uint32_t end = __atomic_load_n(&seg->end, __ATOMIC_ACQUIRE);

        if (end > SEG_HEADER_SIZE) {
            error = segment_scan(store->segs, seg, SEG_HEADER_SIZE, end, &scan,
                                 &end);
            error = store_is_gone__(store, seg->pack) ? 0 : error;
        }
    }
    return error;
}
