/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Printing a store's structures, for people.  See store.h. */

#include <errno.h>
#include <inttypes.h>

#include "vafs-server/store/store-private.h"

struct dump {
    struct store *store;
    FILE *stream;
};

static const char *dump_class__(enum store_class class)
{
    return class == STORE_CLASS_NODE   ? "node"
           : class == STORE_CLASS_DATA ? "data"
                                       : "transient";
}

static void
dump_uuid__(FILE *f, const uint8_t uuid[16])
{
    for (int i = 0; i < 16; i++) {
        fprintf(f, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                uuid[i]);
    }
}

static void
dump_superblock__(struct store *store, FILE *f)
{
    char hex[STORE_ID_HEX_SIZE];
    struct superblock sb;

    pthread_mutex_lock(&store->sb_mutex);
    sb = store->sb;
    pthread_mutex_unlock(&store->sb_mutex);
    store_id_to_hex(&sb.root.id, hex);
    fprintf(f, "superblock: format %d.%u, uuid ", SB_MAJOR, sb.minor);
    dump_uuid__(f, sb.uuid);
    fprintf(f,
            "\n  generation %" PRIu64 ", incarnation %016" PRIx64
            ", damaged slots %d\n"
            "  features compatible %08x, read-only %08x, incompatible %08x\n"
            "  record %u, segment %u, journal chunk %u bytes\n"
            "  root %s at %016" PRIx64 ":%u, %u bytes\n"
            "  journal tail %" PRIu64 ", sequence %" PRIu64 ", crc %08x\n"
            "  next pack %016" PRIx64 "\n",
            sb.generation, sb.incarnation, store->sb_n_bad, sb.compat,
            sb.ro_compat, sb.incompat, sb.record_size, sb.segment_size,
            sb.chunk_size, hex, sb.root_pack, sb.root_offset, sb.root_length,
            sb.root.journal_tail, sb.tail_sequence, sb.tail_crc, sb.next_pack);
}

static int
dump_record__(void *d_, const struct segment *seg, uint32_t offset,
              const struct codec_record *r, const uint8_t *payload, bool bad)
{
    static const char *const encodings[] = {"raw", "zstd", "delta"};
    struct dump *d = d_;
    char hex[STORE_ID_HEX_SIZE];

    store_id_to_hex(&r->id, hex);
    fprintf(d->stream,
            "  %8u %s kind %u/%u %s domain %u plain %u stored %u position "
            "%" PRIu64 "%s",
            offset, hex, r->kind, r->format, encodings[r->encoding], r->domain,
            r->plain, r->stored, r->position, bad ? " DAMAGED" : "");
    if (r->encoding == REC_DELTA) {
        store_id_to_hex(&r->base, hex);
        fprintf(d->stream, " base %s", hex);
    }
    putc('\n', d->stream);
    return ferror(d->stream) ? EIO : 0;
}

static void
dump_gap__(void *d_, const struct segment *seg, uint32_t offset, uint32_t size)
{
    struct dump *d = d_;

    fprintf(d->stream, "  %8u DAMAGED: %u bytes without a valid record\n",
            offset, size);
}

static int
dump_segments__(struct store *store, bool records, FILE *f)
{
    struct dump d = {.store = store, .stream = f};
    struct segment_scan scan = {
        .cb = dump_record__, .gap = dump_gap__, .aux = &d, .want_bad = true};
    struct segment *seg;
    int error = 0;

    for (seg = NULL; !error && (seg = segments_after(store->segs, seg));) {
        uint32_t end = __atomic_load_n(&seg->end, __ATOMIC_ACQUIRE);

        fprintf(f, "segment %016" PRIx64 ": %s, %s, end %u, durable %u\n",
                seg->pack, dump_class__(seg->class),
                seg->state == SEGMENT_OPEN   ? "open"
                : seg->state == SEGMENT_FULL ? "full"
                                             : "sealed",
                end, __atomic_load_n(&seg->durable, __ATOMIC_ACQUIRE));
        if (records && end > SEG_HEADER_SIZE) {
            error = segment_scan(store->segs, seg, SEG_HEADER_SIZE, end, &scan,
                                 &end);
        }
    }
    return error;
}

static int
dump_entry__(void *f_, const struct index_entry *entry)
{
    char hex[STORE_ID_HEX_SIZE];
    FILE *f = f_;

    store_id_to_hex(&entry->id, hex);
    fprintf(f, "  %s at %016" PRIx64 ":%u, %u bytes, kind %u%s\n", hex,
            entry->pack, entry->offset, LOC_LENGTH(entry->location),
            LOC_KIND(entry->location),
            entry->location & LOC_DELTA ? ", delta" : "");
    return ferror(f) ? EIO : 0;
}

int
store_dump(struct store *store, unsigned parts, FILE *f)
{
    int error = 0;

    if (parts & STORE_DUMP_SUPERBLOCK) {
        dump_superblock__(store, f);
    }
    if (parts & (STORE_DUMP_SEGMENTS | STORE_DUMP_RECORDS)) {
        error = dump_segments__(store, parts & STORE_DUMP_RECORDS, f);
    }
    if (!error && parts & STORE_DUMP_INDEX) {
        struct index_stats s;

        index_get_stats(store->index, &s);
        fprintf(f,
                "index: %" PRIu64 " runs, %" PRIu64 " entries, %" PRIu64
                " bytes, %" PRIu64 " entries in memory\n",
                s.n_runs, s.n_entries, s.bytes, s.n_memtable);
        error = index_for_each(store->index, dump_entry__, f);
    }
    if (!error && parts & STORE_DUMP_JOURNAL) {
        struct journal_stats s;

        journal_get_stats(store->journal, &s);
        fprintf(f,
                "journal: tail %" PRIu64 ", head %" PRIu64 ", %" PRIu64
                " bytes of at most %" PRIu64 "\n",
                journal_tail(store->journal), journal_head(store->journal),
                s.size, s.max);
    }
    return error ? error : ferror(f) ? EIO : 0;
}
