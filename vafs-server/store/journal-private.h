/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What store.c uses of the journal beyond journal.h. */

#ifndef VAFS_STORE_JOURNAL_PRIVATE_H
#define VAFS_STORE_JOURNAL_PRIVATE_H 1

#include <pthread.h>

#include "vafs-server/store/file.h"
#include "vafs-server/store/health.h"
#include "vafs-server/store/journal.h"
#include "vafs-server/store/superblock.h"

/* LSN of the first record of a new store. */
#define JOURNAL_FIRST_LSN JCHUNK_HEADER_SIZE

#define JOURNAL_FREE UINT64_MAX
#define JOURNAL_CHUNKS_MIN 4
#define JOURNAL_PIECES 8
/* What a buffer may hold before an append writes it out. */
#define JOURNAL_BUFFER_MAX (1u << 20)
#define JOURNAL_BUFFER_KEEP (256u << 10)

/* Bytes to be written: pieces that are each contiguous in one chunk. */
struct journal_buffer {
    uint8_t *data;
    size_t n, allocated;
    struct {
        uint64_t lsn;
        size_t offset; /* In 'data'; ends where the next begins. */
    } pieces[JOURNAL_PIECES];
    int n_pieces;
};

struct journal {
    struct file_layer *files;
    struct health *health;
    int file;
    bool read_only, accept_damage;
    uint8_t uuid[16];
    uint64_t incarnation;
    uint32_t chunk_size;
    uint32_t n_chunks_max;

    pthread_mutex_t mutex;
    pthread_cond_t cond; /* A flush has ended. */
    uint64_t *chunks;    /* Which chunk number each place holds. */
    uint32_t n_chunks;
    uint64_t tail, head, durable;
    uint64_t sequence;         /* Of the next record. */
    uint64_t durable_sequence; /* Records below are durable. */
    uint32_t crc;              /* Of the last record. */
    uint64_t tail_sequence;
    uint32_t tail_crc;
    bool ready;    /* Replayed. */
    bool flushing; /* Somebody writes 'out'. */
    struct journal_buffer in, out;
    uint64_t n_commits, n_syncs;
};

/* 'flags' are those of store_open(). */
int
journal_create(struct file_layer *, struct health *, const struct superblock *,
               uint64_t max, unsigned flags, struct journal **) NODISCARD;
void journal_destroy(struct journal *); /* Accepts NULL. */

/* What the superblock must say so that replay begins at 'lsn': sequence of
 * the record there and CRC of the one before.  Commits what is needed.
 * EINVAL: 'lsn' is not between tail and head. */
int journal_locate(struct journal *, uint64_t lsn, uint64_t *ret_sequence,
                   uint32_t *ret_crc) NODISCARD;

/* The superblock says so now: frees what lies before. */
void journal_trimmed(struct journal *, uint64_t lsn);

/* If no record is live, returns true and the tail that the superblock must
 * get before journal_shrink() may empty the file. */
bool journal_can_shrink(struct journal *, uint64_t *ret_tail);
int journal_shrink(struct journal *) NODISCARD;

struct journal_stats {
    uint64_t used, size, max, n_commits, n_syncs;
};
void journal_get_stats(struct journal *, struct journal_stats *);

/* Shared by journal.c and journal-replay.c. */

/* Where the next record at or after 'lsn' can begin. */
uint64_t journal_norm__(const struct journal *, uint64_t lsn);
/* The place that holds chunk 'number', or UINT32_MAX. */
uint32_t journal_place__(const struct journal *, uint64_t number);
int journal_set_n_chunks__(struct journal *, uint32_t n) NODISCARD;
uint32_t journal_crc__(uint64_t lsn, const uint8_t header[JREC_HEADER_SIZE],
                       const void *body, size_t size);
/* Reads which chunks the file holds. */
int journal_load_chunks__(struct journal *) NODISCARD;

#endif /* vafs-server/store/journal-private.h */
