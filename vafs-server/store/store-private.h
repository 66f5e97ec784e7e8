/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The inside of 'struct store', for the files that make it up: store.c
 * (opening, roots, syncing), objects.c (put and get), upkeep.c (index in the
 * background), verify.c, dump.c. */

#ifndef VAFS_STORE_STORE_PRIVATE_H
#define VAFS_STORE_STORE_PRIVATE_H 1

#include "vafs-server/store/cache.h"
#include "vafs-server/store/index.h"
#include "vafs-server/store/journal-private.h"

#define STORE_DAMAGED_MAX 256

struct store_counters {
    uint64_t n_puts, n_put_existed, n_put_delta, put_plain, put_stored;
    uint64_t n_gets, n_get_hits, get_bytes, n_damaged, n_syncs;
};

struct store {
    struct file_layer *files;
    bool own_files;
    unsigned flags; /* enum store_open_flags. */
    int level;
    struct health health;
    struct segments *segs;
    struct index *index;
    struct journal *journal;
    struct cache *cache;

    /* The superblock as last written. */
    pthread_mutex_t sb_mutex;
    struct superblock sb;
    int sb_file;
    int sb_n_bad;

    /* Objects whose copy failed its check: a put writes a fresh one. */
    pthread_mutex_t damaged_mutex;
    struct store_id damaged[STORE_DAMAGED_MAX];
    unsigned n_damaged; /* Atomic; ever noted, so a ring. */

    /* Upkeep. */
    pthread_mutex_t upkeep_mutex; /* One at a time. */
    pthread_mutex_t thread_mutex; /* Protects the next ones. */
    pthread_cond_t thread_cond;
    pthread_t thread;
    bool thread_runs, thread_stop, thread_kicked;
    uint64_t upkeep_retry; /* clock_mono_ns() before which not to try. */

    bool recovers_leftover; /* While opening. */

    /* Garbage collection; see gc.h.  A put holds the lock for reading from
     * its look-up until its record is published. */
    pthread_mutex_t gc_mutex; /* One at a time. */
    pthread_rwlock_t gc_lock;
    struct store_gc *gc; /* The one that runs, or NULL. */

    struct store_counters counters; /* Atomic, relaxed. */
};

#define STORE_COUNT(STORE, COUNTER, N) \
    __atomic_fetch_add(&(STORE)->counters.COUNTER, N, __ATOMIC_RELAXED)

/* 0, or why changes are impossible. */
int store_check_writable__(const struct store *) NODISCARD;

/* Looks an object up, like index_find(), and its segment (unless 'ret_seg' is
 * NULL).  Entries of segments that were collected do not count.  EBADMSG: the
 * segment is lost. */
int store_find__(struct store *, const struct store_id *, bool transient,
                 struct index_entry *, struct segment **ret_seg) NODISCARD;
/* Was the segment 'pack' collected? */
bool store_is_gone__(struct store *, uint64_t pack);

void gc_init__(struct store *);
void gc_destroy__(struct store *);
/* Under gc_lock: may something new refer to object 'id' in 'seg'?  If so and
 * a collection runs, it will keep it. */
bool gc_hold__(struct store *, const struct store_id *, struct segment *);
/* The same, for an entry; asks for the base of a difference, too. */
bool
gc_hold_entry__(struct store *, const struct index_entry *, struct segment *);

/* Reads the object at 'entry', whole and checked, past the cache. */
int store_read__(struct store *, const struct index_entry *,
                 struct object **) NODISCARD;

/* Reads the head of the record at 'entry', which is in 'seg', into 'head'. */
int store_read_head__(struct store *, struct segment *seg,
                      const struct index_entry *, uint8_t head[REC_HEAD_MAX],
                      struct codec_record *) NODISCARD;

/* store_rebuild_index() for who holds upkeep_mutex. */
int store_rebuild_index__(struct store *) NODISCARD;

int upkeep_start(struct store *) NODISCARD;
void upkeep_stop(struct store *);
/* After a put: does, or has done, what is due. */
void upkeep_kick(struct store *);
/* Does all now: seals, flushes, merges. */
int upkeep_finish(struct store *) NODISCARD;

#endif /* vafs-server/store/store-private.h */
