/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object store: the lowest floor of VAFS.  It knows immutable objects, a
 * journal and one root; trees, branches and files are built on top of it.
 *
 * Theory of operation
 * -------------------
 *
 * A store is a directory:
 *
 *     superblock     two slots of 4 KiB, written alternately
 *     journal        ring of pre-written chunks, see journal.h
 *     seg/PACK       append-only segments of objects, sealed with a footer
 *     idx/NNN        sorted runs: id -> place; idx/manifest lists them
 *
 * Superblock, journal and segments are the truth.  The index and every cache
 * are derived and may be deleted: the next open rebuilds the index.
 *
 * An *object* is an immutable string of bytes with a kind.  Its name is
 * SHA-256(kind byte, format byte, content).  How it is stored (plain,
 * compressed, as a difference from another object) is no part of the name.
 * Putting an object that is there already writes nothing.
 *
 * An object that was put is *not durable* until store_sync() or
 * store_sync_needs() has returned 0; after a crash it may be gone.  What must
 * survive at once goes into the journal.  The order that BRANCH's checkpoint
 * obeys is: put children, put parents, sync, then name the root in a journal
 * record or by store_set_root().
 *
 * Positions: every record has a 64-bit logical position.  Objects of one
 * class that were put later have a higher one, and compaction keeps it, so
 * "older than" can be decided for ever.
 *
 * Damage: a record is delivered only if its checksums and its name agree with
 * what was asked for.  Otherwise EBADMSG is returned, never wrong bytes; the
 * next put of that object writes a fresh copy.
 *
 * Broken: when a write or fdatasync of segment, journal or superblock fails
 * with anything but ENOSPC the store is *broken*: reads go on, every put,
 * sync, commit and set_root fails with EIO until it is closed.  Nothing is
 * retried, since the kernel has dropped the dirty pages.
 *
 * Threads: every function may be called from any thread at any time between
 * open and close, except where it says otherwise.  Nothing calls back into
 * the caller but callbacks passed to the same call.
 *
 * Errors are 0 or a positive errno.  ENOMEM is an ordinary error everywhere
 * and leaves the store usable. */

#ifndef VAFS_STORE_STORE_H
#define VAFS_STORE_STORE_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct file_layer;
struct journal;
struct object;
struct store;

#define STORE_CHECKED __attribute__((warn_unused_result))

/* Names. */

struct store_id {
    uint8_t bytes[32];
};

#define STORE_ID_HEX_SIZE 65

/* The all-zero id names nothing: a hole, "no base", "no root". */
static inline bool
store_id_is_zero(const struct store_id *id)
{
    static const struct store_id zero;

    return !memcmp(id, &zero, sizeof zero);
}

static inline bool
store_id_equal(const struct store_id *a, const struct store_id *b)
{
    return !memcmp(a, b, sizeof *a);
}

void store_id_to_hex(const struct store_id *, char hex[STORE_ID_HEX_SIZE]);
int store_id_from_hex(const char *hex, struct store_id *) STORE_CHECKED;

/* Kinds.  0 is never used, 5-127 are reserved, 128-255 are private. */
enum store_kind {
    STORE_DATA = 1,    /* one record of a file */
    STORE_NODE = 2,    /* node of a tree */
    STORE_VERSION = 3, /* root of a version */
    STORE_CHANGES = 4, /* list of what a version changed; reserved */
};

/* Classes of segments. */
enum store_class {
    STORE_CLASS_NODE = 0,      /* nodes, versions, changes */
    STORE_CLASS_DATA = 1,      /* file data */
    STORE_CLASS_TRANSIENT = 2, /* gone at the next open */
    STORE_N_CLASSES
};

/* Limits. */
#define STORE_RECORD_SIZE 65536u    /* default of a store's record size */
#define STORE_OBJECT_MAX (1u << 20) /* no object is larger */
#define STORE_ROOT_OPAQUE 512       /* the user's bytes in the superblock */

/* Opening and closing. */

enum store_open_flags {
    STORE_READ_ONLY = 1 << 0, /* writes nothing, not even a torn tail's end */
    STORE_NO_THREAD = 1 << 1, /* index upkeep runs inside put: for tests */
    STORE_ACCEPT_DAMAGE = 1 << 3, /* go on with what of a damaged journal can
                                   * be read: for repair by a person */
    STORE_REBUILD = 1 << 2,       /* forget the index and scan all segments */
};

/* Fill with store_options_init(), then change what is wanted. */
struct store_options {
    /* Used by store_create(), kept in the superblock, read-only later. */
    uint32_t record_size;   /* bytes, power of two, 4 KiB..1 MiB */
    uint32_t segment_size;  /* bytes, 64 KiB..64 MiB */
    uint32_t journal_chunk; /* bytes, power of two, 64 KiB..4 MiB */

    /* Used by store_open(). */
    uint64_t journal_max; /* bytes that the ring may grow to */
    size_t node_cache;    /* bytes of plain objects other than data kept */
    size_t record_cache;  /* bytes of plain data objects kept */
    size_t index_memory;  /* memtable, block tables and filters */
    uint32_t reserve;     /* bytes allocated ahead of each open segment */
    /* zstd level for nodes and differences; 0 stores everything raw.  Full
     * data records are at most at level 1, so that writing is quick. */
    int level;

    /* NULL: the directory itself.  Otherwise all I/O goes through this
     * layer (the caller's; it must outlive the store): tests put recorders
     * and fault injectors here.  'dir' is then only a name for messages. */
    struct file_layer *files;
};

/* Defaults for a process that may use 'memory' bytes in all ('--memory'). */
void store_options_init(struct store_options *, size_t memory);

/* Makes an empty store in 'dir', which is created if absent and must be
 * empty otherwise (ENOTEMPTY; EEXIST if it holds a store). */
int store_create(const char *dir, const struct store_options *) STORE_CHECKED;

/* Opens a store.  EBUSY if another process has it (readers share), ENOENT if
 * there is none, EPROTONOSUPPORT if it was written by a newer version,
 * EBADMSG if both superblock slots are damaged.  Unless read-only, the journal
 * must be replayed with journal_replay() before anything is appended. */
int store_open(const char *dir, unsigned flags, const struct store_options *,
               struct store **ret_store) STORE_CHECKED;

/* Syncs, writes the index out, shrinks the journal if all of it was trimmed,
 * and frees 'store', whatever happens; accepts NULL.  Returns the first error.
 * All objects must have been given back.  Without a preceding sync +
 * set_root, what only the journal holds stays there and is replayed. */
int store_close(struct store *);

/* Frees 'store' without writing anything, as after a crash. */
void store_abandon(struct store *);

bool store_is_read_only(const struct store *);

/* 0, or the errno of the failure that made the store broken. */
int store_broken(const struct store *);

uint32_t store_record_size(const struct store *);
const uint8_t *store_uuid(const struct store *); /* 16 bytes */
uint64_t store_incarnation(const struct store *);

/* Objects. */

/* An object in memory, plain, immutable, counted.  Taken from the cache or
 * read; give it back with object_unref(). */
struct object {
    const uint8_t *data;
    size_t size;
    struct store_id id;
    uint8_t kind;
    uint8_t format;
    /* More follows; private to cache.c. */
};

struct object *object_ref(struct object *);
void object_unref(struct object *); /* Accepts NULL. */

/* Which segments must be synced before something may be called durable.
 * Filled by put (for written objects and for dedup hits that are not durable
 * yet), used by one thread at a time.  Initialise with zeros; running out of
 * memory degrades to "all". */
struct store_need {
    uint64_t pack;
    uint32_t end;
};

struct store_needs {
    bool all;
    size_t n, allocated;
    struct store_need *v;
};

void store_needs_clear(struct store_needs *);
void store_needs_merge(struct store_needs *, const struct store_needs *);

enum store_put_flags {
    STORE_PUT_RAW = 1 << 0,       /* do not compress: the queue is long */
    STORE_PUT_TRANSIENT = 1 << 1, /* class TRANSIENT */
};

struct store_put {
    /* In. */
    const void *data;
    size_t size;     /* 0..STORE_OBJECT_MAX */
    uint8_t kind;    /* enum store_kind */
    uint8_t format;  /* of the content; part of the name */
    uint32_t domain; /* key domain, 0 = plain SHA-256; others refused now */
    unsigned flags;
    /* An object that this one probably resembles (the node it replaces, the
     * record that was there before), or NULL.  A hint: if the difference is
     * small it is stored instead of the content.  May itself be a delta. */
    const struct store_id *base;

    /* Out, on success. */
    struct store_id id;
    uint64_t position; /* of the copy that counts */
    bool existed;      /* nothing was written */
};

/* Stores one object, or 'n' in order (the first error stops; earlier ones
 * stay).  'needs' may be NULL.  ENOSPC: the disk is full, the store is
 * unharmed.  EIO: broken.  EROFS: read-only. */
int store_put(struct store *, struct store_put *,
              struct store_needs *) STORE_CHECKED;
int store_put_batch(struct store *, struct store_put[], size_t n,
                    struct store_needs *) STORE_CHECKED;

/* The name that store_put() would give; pure. */
int store_hash(uint8_t kind, uint8_t format, const void *data, size_t size,
               struct store_id *ret_id) STORE_CHECKED;

/* Fetches the object 'id', which must be of 'kind' (0: any).  ENOENT: not in
 * the store.  EBADMSG: damaged or of another kind.  EIO: cannot be read. */
int store_get(struct store *, const struct store_id *, uint8_t kind,
              struct object **ret_object) STORE_CHECKED;

/* Like store_get(), but does no I/O: EAGAIN if the object is not in the cache
 * (whether it is in the store or not). */
int store_get_cached(struct store *, const struct store_id *, uint8_t kind,
                     struct object **ret_object) STORE_CHECKED;

/* Like 'n' times store_get(); ret_objects[i] is NULL where errors[i] is not
 * 0.  Returns the first error.  Reads in order of place. */
int store_get_batch(struct store *, const struct store_id[], size_t n,
                    uint8_t kind, struct object *ret_objects[],
                    int errors[]) STORE_CHECKED;

/* Copies up to 'size' bytes at 'offset' of object 'id' into 'buffer' and the
 * number copied (less only at the object's end) into '*ret_n'.  Unpacks only
 * the 16 KiB blocks touched and does not fill the cache. */
int store_get_range(struct store *, const struct store_id *, uint8_t kind,
                    size_t offset, void *buffer, size_t size,
                    size_t *ret_n) STORE_CHECKED;

/* 0 if the object is there, ENOENT if not, else why that is unknown.  Looks
 * in the index only.  '*ret' may be NULL. */
struct store_info {
    uint64_t pack;        /* 16-bit writer, 48-bit counter */
    uint32_t offset;      /* of the record in the segment */
    uint32_t stored_size; /* bytes of the record, header included */
    uint32_t plain_size;  /* 0 = unknown without reading */
    uint8_t kind;
    bool delta;
    bool durable;
};
int store_has(struct store *, const struct store_id *,
              struct store_info *) STORE_CHECKED;

/* Makes everything put before the call durable / what 'needs' names (which is
 * then cleared).  One fdatasync for each segment concerned. */
int store_sync(struct store *) STORE_CHECKED;
int store_sync_needs(struct store *, struct store_needs *) STORE_CHECKED;

/* Full disk.  store_reserve() allocates, on disk, room for 'bytes' more of
 * class 'class' (plain bytes; overhead is added), so that a later put cannot
 * fail with ENOSPC as long as no more than the reserved is put.  Call it
 * before a write is acknowledged.  store_unreserve() gives room back after
 * the data was put or dropped.  ENOSPC: no room, nothing reserved. */
int
store_reserve(struct store *, enum store_class, uint64_t bytes) STORE_CHECKED;
void store_unreserve(struct store *, enum store_class, uint64_t bytes);

/* Bytes of the file system below the store; for statfs. */
struct store_space {
    uint64_t total, available;
};
int store_space(struct store *, struct store_space *) STORE_CHECKED;

/* The root. */

struct store_root {
    struct store_id id; /* catalogue's version object; zero: none yet */
    /* The journal is replayed from here: what ends at or before this place
     * is no longer needed.  A value that journal_append() returned, or
     * journal_tail() to leave it. */
    uint64_t journal_tail;
    uint8_t opaque[STORE_ROOT_OPAQUE]; /* the user's; not looked at */
};

/* Makes 'root' the root, durably and atomically: syncs all segments, writes
 * the next superblock slot, syncs it, then frees the journal before the
 * tail.  ENOENT if 'root->id' is not in the store. */
int store_set_root(struct store *, const struct store_root *) STORE_CHECKED;

/* What the last store_set_root() wrote, or as found at open. */
void store_get_root(struct store *, struct store_root *);

/* The journal of this store; see journal.h. */
struct journal *store_journal(struct store *);

/* Checking and looking. */

enum store_problem {
    STORE_BAD_SEGMENT, /* a segment's header is damaged or missing */
    STORE_BAD_RECORD,  /* a record's header or blocks fail their checksum */
    STORE_BAD_CONTENT, /* content does not have the name it is stored by */
    STORE_BAD_BASE,    /* a delta's base is absent, damaged or a delta */
    STORE_BAD_FOOTER,  /* footer disagrees with the records */
    STORE_BAD_INDEX,   /* index misses an object or points elsewhere */
};

struct store_error {
    enum store_problem problem;
    uint64_t pack;
    uint32_t offset;
    struct store_id id; /* zero if unknown */
    const char *what;   /* sentence */
};

struct store_progress {
    uint64_t done, total; /* bytes of segments */
    uint64_t n_objects, n_errors;
};

/* Reads everything and checks it: checksums, SHA-256 of every object, bases,
 * footers, index against segments.  'progress' (may be NULL) returns false to
 * stop (ECANCELED).  Returns 0 if sound, EBADMSG if not, else why it could
 * not look.  The store may be in use. */
int store_verify(struct store *,
                 bool (*progress)(void *aux, const struct store_progress *),
                 void (*error)(void *aux, const struct store_error *),
                 void *aux) STORE_CHECKED;

/* Makes the index anew from the segments.  The store may be in use. */
int store_rebuild_index(struct store *) STORE_CHECKED;

struct store_stats {
    uint64_t n_segments, segment_bytes; /* bytes of records written */
    uint64_t n_runs, index_bytes, n_index_entries, n_memtable;
    uint64_t journal_used, journal_size, journal_max;
    uint64_t n_puts, n_put_existed, n_put_delta, put_plain_bytes;
    uint64_t put_stored_bytes;
    uint64_t n_gets, n_get_hits, n_get_bytes, n_damaged;
    uint64_t n_syncs, n_segment_syncs, n_commits, n_journal_syncs;
    uint64_t node_cache_bytes, record_cache_bytes, index_memory_bytes;
    uint64_t reserved_bytes;
    int broken;
};
void store_get_stats(struct store *, struct store_stats *);

/* Calls 'cb' for the newest copy of every object of 'kind' (0: any), in order
 * of segments and places.  A nonzero result stops and is returned. */
int store_for_each(struct store *, uint8_t kind,
                   int (*cb)(void *aux, const struct store_id *,
                             const struct store_info *),
                   void *aux) STORE_CHECKED;

enum store_dump_parts {
    STORE_DUMP_SUPERBLOCK = 1 << 0,
    STORE_DUMP_SEGMENTS = 1 << 1, /* one line for each segment */
    STORE_DUMP_RECORDS = 1 << 2,  /* one line for each record */
    STORE_DUMP_INDEX = 1 << 3,
    STORE_DUMP_JOURNAL = 1 << 4,
    STORE_DUMP_ALL = 31,
};

/* Prints the structures of the store, for people. */
int store_dump(struct store *, unsigned parts, FILE *) STORE_CHECKED;

#endif /* vafs-server/store/store.h */
