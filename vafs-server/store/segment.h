/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Segments: append-only files of records.
 *
 * Theory of operation
 * -------------------
 *
 * One segment of each class is *open*; records are appended to it under the
 * class's mutex.  'end' is where the next record goes and moves only after a
 * record is written and entered in the index, so that bytes below 'end' never
 * change and are read without a lock.  When a record does not fit, the segment
 * is *full* and a new one is opened; upkeep *seals* a full one, which means:
 * sync it, write a footer that lists its records, cut it behind the footer,
 * sync again.  Sealed files never change.
 *
 * 'durable' is the place up to which fdatasync has succeeded.  Space ahead of
 * 'end' is allocated in steps; store_reserve() makes it more, if need be in
 * *spares*, which are empty segments allocated in full.
 *
 * After a crash a segment is scanned from where the index covers it.  The
 * last valid record ends it, and what follows is cut off.  A damaged place
 * with valid records behind it is skipped: it may be decay, and what was
 * durable behind it must not be lost. */

#ifndef VAFS_STORE_SEGMENT_H
#define VAFS_STORE_SEGMENT_H 1

#include <pthread.h>

#include "lib/list.h"
#include "vafs-server/store/codec.h"
#include "vafs-server/store/file.h"
#include "vafs-server/store/health.h"
#include "vafs-server/store/superblock.h"

#define SEGMENT_NAME_SIZE 24

enum segment_state {
    SEGMENT_OPEN,   /* Being appended to, or a spare. */
    SEGMENT_FULL,   /* Waits for its footer. */
    SEGMENT_SEALED, /* Has it; final. */
};

/* Who wrote a segment.  What garbage collection moves may be the base of
 * differences in segments with lower packs, so what it wrote counts as older
 * than everything else, and its whole objects as older than its differences:
 * in that order, WHOLE, DELTAS, PUT, a base always comes first. */
enum segment_generation {
    SEGMENT_PUT = 0,    /* Puts. */
    SEGMENT_WHOLE = 1,  /* Garbage collection; no differences. */
    SEGMENT_DELTAS = 2, /* The same; differences from objects in WHOLE. */
    SEGMENT_N_GENERATIONS
};

/* The writing end of a class and generation.  SEGMENT_PUT: the class. */
#define SEGMENT_APPENDER(GENERATION, CLASS) \
    ((enum store_class)((GENERATION) *STORE_N_CLASSES + (CLASS)))
#define SEGMENT_N_APPENDERS (SEGMENT_N_GENERATIONS * STORE_N_CLASSES)

struct segment {
    uint64_t pack, salt;
    enum store_class class;
    enum segment_state state; /* Under the mutex of 'struct segments'. */
    uint8_t generation;       /* enum segment_generation; likewise. */
    bool header_damaged;      /* Set before others see it. */
    bool named;               /* Its directory entry is durable. */
    uint32_t end, durable;    /* Atomic. */
    uint32_t allocated;       /* Under the class's mutex. */
    pthread_mutex_t sync_mutex;
    /* Under the mutex of 'struct segments'. */
    int file; /* -1: closed. */
    unsigned n_users;
    struct list idle; /* In 'idle' if open and unused. */
    bool gone;        /* Collected: not in the table any more. */
    struct segment *next_gone;
    /* Changed under the store's gc_lock held for writing. */
    bool old;       /* Was full when the collection that runs began. */
    bool condemned; /* Atomic; being swept: takes no new references. */
};

/* One class's writing end. */
struct segment_appender {
    pthread_mutex_t mutex;
    struct segment *open; /* Or NULL. */
    struct segment **spares;
    size_t n_spares;
    uint64_t reserved; /* With overhead. */
};

/* All segments of a store. */
struct segments {
    struct file_layer *files;
    struct health *health;
    uint8_t uuid[16], secret[16];
    uint32_t segment_size, reserve;
    uint16_t writer;
    bool read_only;
    struct segment_appender appenders[SEGMENT_N_APPENDERS];

    pthread_mutex_t mutex; /* Innermost; protects all below. */
    struct segment **all;  /* By pack. */
    size_t n, allocated;
    uint64_t next_pack;
    struct list idle; /* Open files without users, oldest first. */
    size_t n_open;
    struct segment *gone; /* Kept till the end: somebody may look at them. */
    bool new_full;        /* Atomic. */
    uint64_t n_syncs;     /* Atomic. */
};

/* Where a record is. */
struct segment_place {
    uint64_t pack, position;
    uint32_t offset, size;
};

int segments_create(struct file_layer *, struct health *,
                    const struct superblock *, uint32_t reserve,
                    bool read_only, struct segments **) NODISCARD;
void segments_destroy(struct segments *); /* Accepts NULL. */

/* Takes note of all segments in the directory.  Their 'end' is 0 until
 * segment_recover(). */
int segments_load(struct segments *) NODISCARD;

/* Finds the end of segment 'index' (in order of packs) and calls 'cb' for
 * each record from 'covered' on.  To be called for all, in order, before
 * anything else is done with them. */
typedef int
segment_entry_cb(void *aux, const struct segment *, uint32_t offset,
                 uint32_t location, const struct store_id *);
int
segment_recover(struct segments *, struct segment *, uint32_t covered,
                bool covered_sealed, segment_entry_cb *, void *aux) NODISCARD;

/* After the last segment_recover(): chooses the open segments, removes empty
 * and transient ones. */
int segments_start(struct segments *) NODISCARD;

struct segment *segments_find(struct segments *, uint64_t pack);
size_t segments_count(struct segments *);
/* The next segment by pack after 'segment' (NULL: the first), or NULL.  To go
 * through all, while others add and remove some. */
struct segment *segments_after(struct segments *, const struct segment *);
/* Removes a segment and its file.  Who reads from it now may go on; later
 * reads fail with EBADMSG. */
int segments_collect(struct segments *, struct segment *) NODISCARD;
/* Declares the open segment of an appender full, if it holds anything. */
void segments_roll(struct segments *, enum store_class appender);
uint64_t segments_next_pack(struct segments *);

void segment_name(uint64_t pack, char name[SEGMENT_NAME_SIZE]);

/* Holds the segment's file open meanwhile. */
int segment_acquire(struct segments *, struct segment *) NODISCARD;
void segment_release(struct segments *, struct segment *);

/* Reading.  EBADMSG if the file is shorter or gone. */
int segment_read(struct segments *, struct segment *, void *, size_t size,
                 uint64_t offset) NODISCARD;

/* Appending.  Between lock and unlock: append writes a record (which must be
 * sealed by no one yet; checksum and, but for copies of garbage collection,
 * which keep theirs, position are filled in) at the end, and publish moves
 * the end behind it.  Here a class stands for an appender. */
void segments_lock(struct segments *, enum store_class);
void segments_unlock(struct segments *, enum store_class);
int segments_append(struct segments *, enum store_class, uint8_t *record,
                    size_t size, struct segment_place *) NODISCARD;
void segments_publish(struct segments *, enum store_class,
                      const struct segment_place *);

/* True once when a segment became full since the last call. */
bool segments_take_full(struct segments *);

int segment_sync(struct segments *, struct segment *, uint32_t end) NODISCARD;
int segments_sync_all(struct segments *) NODISCARD;
uint64_t segments_n_syncs(const struct segments *);

/* Writes the footers of all full segments. */
int segments_seal_full(struct segments *) NODISCARD;

/* Cuts allocated space off the open segments, for a clean close. */
int segments_trim(struct segments *) NODISCARD;

int segments_reserve(struct segments *, enum store_class,
                     uint64_t bytes) NODISCARD;
void segments_unreserve(struct segments *, enum store_class, uint64_t bytes);
uint64_t segments_reserved(struct segments *);

/* Calls 'cb' for each record in ['from', 'to').  'payload' is what follows
 * the head; 'bad' says that its checksums fail (then it is delivered only if
 * 'want_bad').  'gap' is called for damaged places between records, if not
 * NULL.  '*ret_end' becomes the end of the last good record, or 'from'. */
struct segment_scan {
    int (*cb)(void *aux, const struct segment *, uint32_t offset,
              const struct codec_record *, const uint8_t *payload, bool bad);
    void (*gap)(void *aux, const struct segment *, uint32_t offset,
                uint32_t size);
    void *aux;
    bool want_bad;
};
int
segment_scan(struct segments *, struct segment *, uint32_t from, uint32_t to,
             const struct segment_scan *, uint32_t *ret_end) NODISCARD;

/* Reads the footer and calls 'cb' for each entry.  ENOENT: there is none;
 * EBADMSG: its table is damaged.  '*ret_end' is where records end. */
int
segment_read_footer(struct segments *, struct segment *, segment_entry_cb *,
                    void *aux, uint32_t *ret_end) NODISCARD;

/* Calls 'cb' for each good record, by footer or by scan, up to the end as it
 * is now. */
int segment_entries(struct segments *, struct segment *, segment_entry_cb *,
                    void *aux) NODISCARD;

/* Length and flags of a record, as in footers and index. */
uint32_t segment_location(const struct codec_record *, enum store_class);

/* Finds out the generation, before segment_recover(). */
int segment_learn_generation(struct segments *, struct segment *) NODISCARD;
/* Checks the header on disk. */
int segment_check_header(struct segments *, struct segment *,
                         enum store_class *ret_class) NODISCARD;
/* Writes it anew: all that matters in it is known otherwise. */
int segment_repair_header(struct segments *, struct segment *) NODISCARD;

#endif /* vafs-server/store/segment.h */
