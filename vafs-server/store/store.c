/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object store: making, opening, closing, roots, syncing.  See store.h for
 * the whole, store-private.h for the other files. */

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "lib/clock.h"
#include "lib/coverage.h"
#include "vafs-server/store/store-private.h"

COVERAGE_DEFINE(store_open);
COVERAGE_DEFINE(store_index_rebuilt);
COVERAGE_DEFINE(store_root_set);
COVERAGE_DEFINE(store_superblock_damaged);

#define SB_NAME "superblock"
#define SB_TEMPORARY "superblock.new"

/* Names. */

void
store_id_to_hex(const struct store_id *id, char hex[STORE_ID_HEX_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < sizeof id->bytes; i++) {
        hex[2 * i] = digits[id->bytes[i] >> 4];
        hex[2 * i + 1] = digits[id->bytes[i] & 15];
    }
    hex[STORE_ID_HEX_SIZE - 1] = '\0';
}

static int
store_hex_digit__(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

int
store_id_from_hex(const char *hex, struct store_id *ret)
{
    struct store_id id;

    if (strlen(hex) != STORE_ID_HEX_SIZE - 1) {
        return EINVAL;
    }
    for (size_t i = 0; i < sizeof id.bytes; i++) {
        int high = store_hex_digit__(hex[2 * i]);
        int low = store_hex_digit__(hex[2 * i + 1]);

        if (high < 0 || low < 0) {
            return EINVAL;
        }
        id.bytes[i] = (uint8_t) (high << 4 | low);
    }
    *ret = id;
    return 0;
}

/* Options. */

void
store_options_init(struct store_options *o, size_t memory)
{
    memset(o, 0, sizeof *o);
    o->record_size = STORE_RECORD_SIZE;
    o->segment_size = SEG_SIZE_MAX;
    o->journal_chunk = 4u << 20;
    /* The shares of a process's memory: 96, 24 and 24 MiB of 256, with a
     * little less for a process of 64, whose code and sessions take as much.
     * The ring is twice the dirty budget, which is a quarter. */
    o->node_cache = memory >= 128u << 20 ? memory / 8 * 3 : memory / 4;
    o->record_cache = memory >= 128u << 20 ? memory / 32 * 3 : memory / 16;
    o->index_memory = memory >= 128u << 20 ? memory / 32 * 3 : memory / 8;
    o->journal_max = memory / 2;
    o->reserve = 4u << 20;
    o->level = 3;
}

/* Creating. */

static int
store_create_check_cb__(void *aux, const char *name)
{
    static const char *const ours[] = {"seg", "idx", "journal", SB_TEMPORARY,
                                       "lost+found"};

    /* What an interrupted creation left is as good as nothing. */
    for (size_t i = 0; i < ARRAY_SIZE(ours); i++) {
        if (!strcmp(name, ours[i])) {
            return 0;
        }
    }
    return strcmp(name, SB_NAME) ? ENOTEMPTY : EEXIST;
}

static int
store_create_superblock__(struct file_layer *files,
                          const struct store_options *o)
{
    struct superblock sb;
    uint8_t slots[2 * SB_SLOT_SIZE];
    int error, file;

    memset(&sb, 0, sizeof sb);
    sb.generation = 1;
    sb.created = clock_real_ns();
    sb.next_pack = 1;
    sb.record_size = o->record_size;
    sb.segment_size = o->segment_size;
    sb.chunk_size = o->journal_chunk;
    sb.root.journal_tail = JOURNAL_FIRST_LSN;
    sb.tail_sequence = 1;
    if (getrandom(sb.uuid, sizeof sb.uuid, 0) != sizeof sb.uuid ||
        getrandom(sb.secret, sizeof sb.secret, 0) != sizeof sb.secret) {
        return EIO;
    }
    sb.uuid[6] = (sb.uuid[6] & 0x0f) | 0x40; /* Version 4, variant 1. */
    sb.uuid[8] = (sb.uuid[8] & 0x3f) | 0x80;
    superblock_encode(&sb, slots + SB_SLOT_SIZE);
    sb.generation = 0;
    superblock_encode(&sb, slots);

    error =
        files->ops->open(files, SB_TEMPORARY, FILE_WRITE | FILE_CREATE, &file);
    if (error) {
        return error;
    }
    error = file_pwrite(files, file, slots, sizeof slots, 0);
    if (!error) {
        error = files->ops->datasync(files, file);
    }
    files->ops->close(files, file);
    if (!error) {
        error = files->ops->rename(files, SB_TEMPORARY, SB_NAME);
    }
    return error ? error : files->ops->sync_dir(files, "");
}

static int
store_create__(struct file_layer *files, const struct store_options *o)
{
    int error, file;

    if (!IS_POW2(o->record_size) || o->record_size < 4096 ||
        o->record_size > STORE_OBJECT_MAX || o->segment_size < 65536 ||
        o->segment_size > SEG_SIZE_MAX || !IS_POW2(o->journal_chunk) ||
        o->journal_chunk < 65536 || o->journal_chunk > 4u << 20) {
        return EINVAL;
    }
    error = files->ops->list(files, "", store_create_check_cb__, NULL);
    if (!error) {
        error = files->ops->mkdir(files, "seg");
    }
    if (!error) {
        error = files->ops->mkdir(files, "idx");
    }
    if (!error) {
        error = files->ops->open(files, "journal", FILE_WRITE | FILE_CREATE,
                                 &file);
    }
    if (!error) {
        files->ops->close(files, file);
        error = files->ops->sync_dir(files, "");
    }
    /* The store exists when its superblock has its name. */
    return error ? error : store_create_superblock__(files, o);
}

int
store_create(const char *dir, const struct store_options *o)
{
    struct file_layer *files = o->files;
    int error = 0;

    if (!files) {
        error = file_layer_create(dir, true, &files);
    }
    if (!error) {
        error = store_create__(files, o);
        if (!o->files) {
            file_layer_destroy(files);
        }
    }
    return error;
}

/* Opening. */

static void
store_free__(struct store *store)
{
    upkeep_stop(store);
    cache_destroy(store->cache);
    journal_destroy(store->journal);
    index_destroy(store->index);
    segments_destroy(store->segs);
    if (store->sb_file >= 0) {
        store->files->ops->close(store->files, store->sb_file);
    }
    if (store->own_files) {
        file_layer_destroy(store->files);
    }
    pthread_mutex_destroy(&store->sb_mutex);
    gc_destroy__(store);
    pthread_mutex_destroy(&store->damaged_mutex);
    pthread_mutex_destroy(&store->upkeep_mutex);
    pthread_mutex_destroy(&store->thread_mutex);
    pthread_cond_destroy(&store->thread_cond);
    free(store);
}

/* Opens, locks and reads the superblock. */
static int
store_open_superblock__(struct store *store)
{
    bool read_only = store->flags & STORE_READ_ONLY;
    int error;

    error = store->files->ops->open(
        store->files, SB_NAME, read_only ? 0 : FILE_WRITE, &store->sb_file);
    if (error) {
        store->sb_file = -1;
        return error;
    }
    error = store->files->ops->lock(store->files, store->sb_file, !read_only);
    if (!error) {
        error = superblock_read(store->files, store->sb_file, &store->sb,
                                &store->sb_n_bad);
    }
    if (error) {
        return error;
    }
    if (store->sb_n_bad) {
        COVERAGE_INC(store_superblock_damaged);
        vlog_warn("one slot of the superblock is damaged; the other counts");
    }
    if (store->sb.ro_compat & ~SB_KNOWN_RO_COMPAT) {
        store->flags |= STORE_READ_ONLY;
    }
    if (!(store->flags & STORE_READ_ONLY)) {
        uint32_t random;

        if (getrandom(&random, sizeof random, 0) != sizeof random) {
            return EIO;
        }
        /* Later opens are greater, and none can be guessed. */
        store->sb.incarnation =
            ((store->sb.incarnation >> 32) + 1) << 32 | random;
    }
    return 0;
}

/* Is the object there that the delta at 'entry' is a difference from?  A crash
 * can lose the base and keep the delta, if neither was promised to anyone;
 * then the delta must not answer for its object. */
static int
store_recover_base__(struct store *store, struct index *index,
                     const struct index_entry *entry)
{
    uint8_t head[REC_HEAD_MAX];
    struct index_entry base;
    struct codec_record r;
    int error;

    error = store_read_head__(store, segments_find(store->segs, entry->pack),
                              entry, head, &r);
    if (!error) {
        error = index_find(index, &r.base, false, &base);
        if (!error && base.location & LOC_DELTA) {
            error = EBADMSG;
        }
    }
    return error;
}

/* Was the object that a scan found in 'seg' entered before, from a segment
 * that counts as newer?  So it is with segments that a collection was about to
 * remove. */
static bool
store_recover_is_superseded__(struct store *store, const struct segment *seg,
                              const struct store_id *id)
{
    struct index_entry now;
    struct segment *other;

    if (index_find(store->index, id, false, &now)) {
        return false;
    }
    other = segments_find(store->segs, now.pack);
    return other &&
           (other->generation != SEGMENT_PUT || other->pack > seg->pack);
}

/* Enters a record that a scan or footer showed.  Bases come before what
 * depends on them. */
static int
store_recover_cb__(void *store_, const struct segment *seg, uint32_t offset,
                   uint32_t location, const struct store_id *id)
{
    struct store *store = store_;
    struct index_entry entry = {
        .id = *id, .pack = seg->pack, .offset = offset, .location = location};

    if (seg->class == STORE_CLASS_TRANSIENT ||
        (store->recovers_leftover &&
         store_recover_is_superseded__(store, seg, id))) {
        return 0;
    }
    if (location & LOC_DELTA) {
        int error = store_recover_base__(store, store->index, &entry);

        if (error) {
            return error == ENOENT || error == EBADMSG ? 0 : error;
        }
    }
    return index_insert(store->index, &entry);
}

/* Scans all segments of 'generation' that the index does not cover.
 * 'newest' is the last that it covered. */
static int
store_recover_generation__(struct store *store, int generation,
                           uint64_t newest)
{
    struct segment *seg;

    for (seg = NULL; (seg = segments_after(store->segs, seg));) {
        const struct manifest_segment *m =
            index_covered(store->index, seg->pack);
        int error;

        if (seg->generation != generation) {
            continue;
        }
        if (m) {
            seg->class = m->class;
        }
        store->recovers_leftover = !m && seg->pack < newest;
        error = segment_recover(store->segs, seg, m ? m->covered : 0,
                                m && m->sealed, store_recover_cb__, store);
        /* A rebuild must not hold the whole index in memory.  Segments not
         * yet looked at have no end, so the manifest does not claim them. */
        if (!error && !(store->flags & STORE_READ_ONLY) &&
            index_wants_flush(store->index)) {
            error = index_flush(store->index);
            if (!error) {
                error = index_merge(store->index);
            }
        }
        if (error) {
            return error;
        }
    }
    return 0;
}

/* Scans all segments that the index does not cover, bases before what depends
 * on them (see enum segment_generation). */
static int
store_recover__(struct store *store)
{
    static const int order[] = {SEGMENT_WHOLE, SEGMENT_DELTAS, SEGMENT_PUT};
    uint64_t newest = 0;
    struct segment *seg;
    int error = 0;

    for (seg = NULL; (seg = segments_after(store->segs, seg)) && !error;) {
        const struct manifest_segment *m =
            index_covered(store->index, seg->pack);

        if (m) {
            seg->generation = m->generation;
            newest = seg->pack;
        } else {
            error = segment_learn_generation(store->segs, seg);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(order) && !error; i++) {
        error = store_recover_generation__(store, order[i], newest);
    }
    return error;
}

static int
store_open_index__(struct store *store)
{
    bool rebuild = store->flags & STORE_REBUILD;
    int error = 0;

    if (!(store->flags & STORE_READ_ONLY)) {
        error = store->files->ops->mkdir(store->files, "idx");
        if (error) {
            return error;
        }
    }
    if (!rebuild) {
        error = index_load(store->index);
        if (error == ENOENT || error == EBADMSG) {
            if (error == EBADMSG) {
                vlog_warn("the index is damaged and is built anew");
            }
            rebuild = true;
            error = 0;
        }
    }
    if (rebuild) {
        COVERAGE_INC(store_index_rebuilt);
    }
    if (!error && !(store->flags & STORE_READ_ONLY)) {
        error = index_clean(store->index);
    }
    return error ? error : store_recover__(store);
}

static int
store_open_parts__(struct store *store, const struct store_options *o)
{
    bool read_only;
    int error;

    error = store_open_superblock__(store);
    if (error) {
        return error;
    }
    read_only = store->flags & STORE_READ_ONLY;
    error = segments_create(store->files, &store->health, &store->sb,
                            o->reserve, read_only, &store->segs);
    if (!error) {
        error = segments_load(store->segs);
    }
    if (!error) {
        error = index_create(store->files, &store->health, store->segs,
                             store->sb.uuid, o->index_memory, &store->index);
    }
    if (!error) {
        error = store_open_index__(store);
    }
    if (!error) {
        error = segments_start(store->segs);
    }
    if (!error) {
        error = journal_create(store->files, &store->health, &store->sb,
                               o->journal_max, store->flags, &store->journal);
    }
    if (!error && !read_only) {
        /* The incarnation must be known before a record bears it. */
        error = superblock_write(store->files, store->sb_file, &store->sb);
        /* That was the slot that is not the newest: a damaged one is whole
         * again. */
        store->sb_n_bad = 0;
    }
    return error;
}

int
store_open(const char *dir, unsigned flags, const struct store_options *o,
           struct store **ret)
{
    struct store *store = calloc(1, sizeof *store);
    int error = 0;

    if (!store) {
        return ENOMEM;
    }
    store->flags = flags;
    store->level = o->level;
    store->sb_file = -1;
    pthread_mutex_init(&store->sb_mutex, NULL);
    gc_init__(store);
    pthread_mutex_init(&store->damaged_mutex, NULL);
    pthread_mutex_init(&store->upkeep_mutex, NULL);
    pthread_mutex_init(&store->thread_mutex, NULL);
    pthread_cond_init(&store->thread_cond, NULL);
    store->files = o->files;
    if (!store->files) {
        error = file_layer_create(dir, false, &store->files);
        store->own_files = !error;
    }
    if (!error) {
        error = store_open_parts__(store, o);
    }
    if (!error) {
        store->cache = cache_create(o->node_cache, o->record_cache);
        error = store->cache ? upkeep_start(store) : ENOMEM;
    }
    if (error) {
        store_free__(store);
        return error;
    }
    COVERAGE_INC(store_open);
    upkeep_kick(store);
    *ret = store;
    return 0;
}

/* Closing. */

/* Empties the journal file if none of it is needed. */
static int
store_shrink_journal__(struct store *store)
{
    uint64_t tail;
    int error;

    if (!journal_can_shrink(store->journal, &tail)) {
        return 0;
    }
    store->sb.root.journal_tail = tail;
    error = superblock_write(store->files, store->sb_file, &store->sb);
    return error ? error : journal_shrink(store->journal);
}

int
store_close(struct store *store)
{
    int error = 0;

    if (!store) {
        return 0;
    }
    upkeep_stop(store);
    if (!(store->flags & STORE_READ_ONLY)) {
        error = health_get(&store->health) ? EIO : store_sync(store);
        if (!error) {
            error = upkeep_finish(store);
        }
        if (!error) {
            error = segments_trim(store->segs);
        }
        if (!error) {
            error = store_shrink_journal__(store);
        }
    }
    store_free__(store);
    return error;
}

void
store_abandon(struct store *store)
{
    if (store) {
        store_free__(store);
    }
}

/* Properties. */

bool
store_is_read_only(const struct store *store)
{
    return store->flags & STORE_READ_ONLY;
}

int
store_broken(const struct store *store)
{
    return health_get(&store->health);
}

uint32_t
store_record_size(const struct store *store)
{
    return store->sb.record_size;
}

const uint8_t *
store_uuid(const struct store *store)
{
    return store->sb.uuid;
}

uint64_t
store_incarnation(const struct store *store)
{
    return store->sb.incarnation;
}

struct journal *
store_journal(struct store *store)
{
    return store->journal;
}

int
store_space(struct store *store, struct store_space *ret)
{
    return store->files->ops->space(store->files, &ret->total,
                                    &ret->available);
}

/* Syncing and reserving. */

int
store_sync(struct store *store)
{
    int error = store_check_writable__(store);

    STORE_COUNT(store, n_syncs, 1);
    return error ? error : segments_sync_all(store->segs);
}

int
store_sync_needs(struct store *store, struct store_needs *needs)
{
    int error = store_check_writable__(store);

    STORE_COUNT(store, n_syncs, 1);
    if (!error && needs->all) {
        error = segments_sync_all(store->segs);
    } else {
        for (size_t i = 0; i < needs->n && !error; i++) {
            struct segment *seg = segments_find(store->segs, needs->v[i].pack);

            if (seg) {
                error = segment_sync(store->segs, seg, needs->v[i].end);
            }
        }
    }
    if (!error) {
        store_needs_clear(needs);
    }
    return error;
}

int
store_reserve(struct store *store, enum store_class class, uint64_t bytes)
{
    int error = store_check_writable__(store);

    return error ? error : segments_reserve(store->segs, class, bytes);
}

void
store_unreserve(struct store *store, enum store_class class, uint64_t bytes)
{
    segments_unreserve(store->segs, class, bytes);
}

/* The root. */

static int
store_set_root__(struct store *store, const struct store_root *root)
{
    struct superblock sb = store->sb;
    struct index_entry entry;
    int error;

    memset(&entry, 0, sizeof entry);
    if (!store_id_is_zero(&root->id)) {
        error = index_find(store->index, &root->id, false, &entry);
        if (error) {
            return error;
        }
    }
    error = segments_sync_all(store->segs);
    if (!error) {
        error = journal_locate(store->journal, root->journal_tail,
                               &sb.tail_sequence, &sb.tail_crc);
    }
    if (error) {
        return error;
    }
    sb.root = *root;
    sb.root_pack = entry.pack;
    sb.root_offset = entry.offset;
    sb.root_length = LOC_LENGTH(entry.location);
    sb.next_pack = segments_next_pack(store->segs);
    error = superblock_write(store->files, store->sb_file, &sb);
    if (error) {
        health_break(&store->health, error, "writing the superblock");
        return EIO;
    }
    store->sb = sb;
    journal_trimmed(store->journal, root->journal_tail);
    COVERAGE_INC(store_root_set);
    return 0;
}

int
store_set_root(struct store *store, const struct store_root *root)
{
    int error = store_check_writable__(store);

    if (!error) {
        pthread_mutex_lock(&store->sb_mutex);
        error = store_set_root__(store, root);
        pthread_mutex_unlock(&store->sb_mutex);
    }
    return error;
}

void
store_get_root(struct store *store, struct store_root *ret)
{
    pthread_mutex_lock(&store->sb_mutex);
    *ret = store->sb.root;
    pthread_mutex_unlock(&store->sb_mutex);
}

/* Index. */

static int
store_accept_cb__(void *store_, struct index *built,
                  const struct index_entry *entry)
{
    int error = 0;

    if (entry->location & LOC_DELTA) {
        error = store_recover_base__(store_, built, entry);
    }
    return error == EBADMSG ? ENOENT : error;
}

int
store_rebuild_index__(struct store *store)
{
    return index_rebuild(store->index, store_accept_cb__, store);
}

int
store_rebuild_index(struct store *store)
{
    int error = store_check_writable__(store);

    if (!error) {
        pthread_mutex_lock(&store->upkeep_mutex);
        error = store_rebuild_index__(store);
        pthread_mutex_unlock(&store->upkeep_mutex);
    }
    return error;
}

/* Figures. */

void
store_get_stats(struct store *store, struct store_stats *ret)
{
    const struct store_counters *c = &store->counters;
    struct index_stats index;
    struct journal_stats journal;
    struct store_stats s;
    struct segment *seg;
    size_t nodes, records;

    memset(&s, 0, sizeof s);
    for (seg = NULL; (seg = segments_after(store->segs, seg));) {
        s.n_segments++;
        s.segment_bytes += __atomic_load_n(&seg->end, __ATOMIC_ACQUIRE);
    }
    index_get_stats(store->index, &index);
    s.n_runs = index.n_runs;
    s.index_bytes = index.bytes;
    s.n_index_entries = index.n_entries;
    s.n_memtable = index.n_memtable;
    s.index_memory_bytes = index.memory;
    journal_get_stats(store->journal, &journal);
    s.journal_used = journal.used;
    s.journal_size = journal.size;
    s.journal_max = journal.max;
    s.n_commits = journal.n_commits;
    s.n_journal_syncs = journal.n_syncs;
    cache_usage(store->cache, &nodes, &records);
    s.node_cache_bytes = nodes;
    s.record_cache_bytes = records;
    s.reserved_bytes = segments_reserved(store->segs);
    s.n_segment_syncs = segments_n_syncs(store->segs);
    s.n_puts = __atomic_load_n(&c->n_puts, __ATOMIC_RELAXED);
    s.n_put_existed = __atomic_load_n(&c->n_put_existed, __ATOMIC_RELAXED);
    s.n_put_delta = __atomic_load_n(&c->n_put_delta, __ATOMIC_RELAXED);
    s.put_plain_bytes = __atomic_load_n(&c->put_plain, __ATOMIC_RELAXED);
    s.put_stored_bytes = __atomic_load_n(&c->put_stored, __ATOMIC_RELAXED);
    s.n_gets = __atomic_load_n(&c->n_gets, __ATOMIC_RELAXED);
    s.n_get_hits = __atomic_load_n(&c->n_get_hits, __ATOMIC_RELAXED);
    s.n_get_bytes = __atomic_load_n(&c->get_bytes, __ATOMIC_RELAXED);
    s.n_damaged = __atomic_load_n(&c->n_damaged, __ATOMIC_RELAXED);
    s.n_syncs = __atomic_load_n(&c->n_syncs, __ATOMIC_RELAXED);
    s.broken = health_get(&store->health);
    *ret = s;
}
