/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading the journal at open; see journal.h.  Nothing here runs beside
 * another call, so there are no locks. */

#include "vafs-server/store/journal-private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "vafs-server/store/codec.h"

COVERAGE_DEFINE(journal_replayed);
COVERAGE_DEFINE(journal_damaged);

/* Reads which chunks the file holds.  Of two that claim the same number, the
 * later incarnation's counts; if that is wrong the chain will tell. */
int
journal_load_chunks__(struct journal *j)
{
    uint64_t size, *incarnations;
    uint32_t n;
    int error;

    error = j->files->ops->size(j->files, j->file, &size);
    if (error) {
        return error;
    }
    n = (uint32_t) (size / j->chunk_size);
    error = journal_set_n_chunks__(j, n);
    if (error) {
        return error;
    }
    incarnations = calloc(n + 1, sizeof *incarnations);
    if (!incarnations) {
        return ENOMEM;
    }
    for (uint32_t i = 0; i < n && !error; i++) {
        uint8_t head[JCHUNK_HEADER_SIZE];
        uint32_t other;
        uint64_t number;

        error = file_pread_all(j->files, j->file, head, sizeof head,
                               (uint64_t) i * j->chunk_size);
        if (error || get_le64(head + JCHUNK_OFS_MAGIC) != JCHUNK_MAGIC ||
            get_le64(head + JCHUNK_OFS_SUM) !=
                codec_sum(head, JCHUNK_OFS_SUM, 0) ||
            head[JCHUNK_OFS_FORMAT] != JCHUNK_FORMAT ||
            memcmp(head + JCHUNK_OFS_UUID, j->uuid, sizeof j->uuid)) {
            continue;
        }
        number = get_le64(head + JCHUNK_OFS_NUMBER);
        incarnations[i] = get_le64(head + JCHUNK_OFS_INCARNATION);
        other = journal_place__(j, number);
        if (other != UINT32_MAX) {
            if (incarnations[other] > incarnations[i]) {
                continue;
            }
            j->chunks[other] = JOURNAL_FREE;
        }
        j->chunks[i] = number;
    }
    free(incarnations);
    return error;
}

/* Is there a record at 'lsn' that continues the chain?  'p' are the 'left'
 * bytes of the chunk from there. */
static bool
journal_is_next__(const struct journal *j, uint64_t lsn, const uint8_t *p,
                  size_t left)
{
    uint32_t length = get_le32(p + JREC_OFS_LENGTH);
    bool pad = p[JREC_OFS_TYPE] == JREC_PAD;

    return get_le32(p + JREC_OFS_MAGIC) == JREC_MAGIC &&
           p[JREC_OFS_FORMAT] == JREC_FORMAT &&
           !get_le16(p + JREC_OFS_FLAGS) &&
           get_le64(p + JREC_OFS_SEQUENCE) == j->sequence &&
           get_le32(p + JREC_OFS_PREV) == j->crc &&
           length <= left - JREC_HEADER_SIZE &&
           get_le32(p + JREC_OFS_CRC) ==
               journal_crc__(lsn, p, p + JREC_HEADER_SIZE, pad ? 0 : length);
}

/* Replays one chunk from j->head on.  ENOENT: the chain ends in it. */
static int
journal_replay_chunk__(struct journal *j, const uint8_t *chunk,
                       int (*cb)(void *aux, const struct journal_record *),
                       void *aux, uint64_t *n)
{
    uint64_t number = j->head / j->chunk_size;

    while (j->head / j->chunk_size == number) {
        uint64_t offset = j->head % j->chunk_size;
        const uint8_t *p = chunk + offset;
        uint32_t length;

        if (!journal_is_next__(j, j->head, p, j->chunk_size - offset)) {
            return ENOENT;
        }
        length = get_le32(p + JREC_OFS_LENGTH);
        if (p[JREC_OFS_TYPE] != JREC_PAD) {
            struct journal_record r = {
                .type = p[JREC_OFS_TYPE],
                .start = j->head,
                .end = j->head + ROUND_UP(JREC_HEADER_SIZE + length, 8u),
                .incarnation = get_le64(p + JREC_OFS_INCARNATION),
                .sequence = j->sequence,
                .body = p + JREC_HEADER_SIZE,
                .size = length,
            };
            int error = cb ? cb(aux, &r) : 0;

            if (error) {
                return error == ENOENT ? EINVAL : error;
            }
            ++*n;
        }
        j->crc = get_le32(p + JREC_OFS_CRC);
        j->sequence++;
        j->head = journal_norm__(
            j, j->head + ROUND_UP(JREC_HEADER_SIZE + length, 8u));
    }
    return 0;
}

/* Looks for the place of chunk 'number' among those whose header does not say
 * what they hold: if that was damaged, its first record still continues the
 * chain. */
static int
journal_find_chunk__(struct journal *j, uint64_t number, uint8_t *chunk,
                     uint32_t *ret_place)
{
    uint64_t lsn = number * j->chunk_size + JCHUNK_HEADER_SIZE;

    for (uint32_t i = 0; i < j->n_chunks; i++) {
        int error;

        if (j->chunks[i] != JOURNAL_FREE) {
            continue;
        }
        error = file_pread_all(j->files, j->file, chunk, j->chunk_size,
                               (uint64_t) i * j->chunk_size);
        if (error) {
            return error;
        }
        if (journal_is_next__(j, lsn, chunk + JCHUNK_HEADER_SIZE,
                              j->chunk_size - JCHUNK_HEADER_SIZE)) {
            vlog_warn("the header of a chunk of the journal is damaged");
            j->chunks[i] = number;
            *ret_place = i;
            return 0;
        }
    }
    return ENOENT;
}

/* Does a record in 'chunk' (number 'number', from 'offset' on) prove that the
 * record that is missing at the head was durable once? */
static bool
journal_chunk_proves__(const struct journal *j, uint64_t number,
                       const uint8_t *chunk, uint64_t offset)
{
    for (; offset + JREC_HEADER_SIZE <= j->chunk_size; offset += JREC_ALIGN) {
        const uint8_t *p = chunk + offset;
        uint32_t length = get_le32(p + JREC_OFS_LENGTH);
        uint64_t sequence = get_le64(p + JREC_OFS_SEQUENCE);

        if (get_le32(p + JREC_OFS_MAGIC) == JREC_MAGIC &&
            p[JREC_OFS_FORMAT] == JREC_FORMAT &&
            length <= j->chunk_size - offset - JREC_HEADER_SIZE &&
            sequence > j->sequence &&
            sequence - get_le32(p + JREC_OFS_UNSYNCED) > j->sequence &&
            get_le32(p + JREC_OFS_CRC) ==
                journal_crc__(number * j->chunk_size + offset, p,
                              p + JREC_HEADER_SIZE,
                              p[JREC_OFS_TYPE] == JREC_PAD ? 0 : length)) {
            return true;
        }
    }
    return false;
}

/* The chain has ended.  Was it cut by a crash (0) or by damage (EBADMSG)? */
static int
journal_check_end__(struct journal *j, uint8_t *chunk)
{
    uint64_t number = j->head / j->chunk_size;

    for (uint32_t i = 0; i < j->n_chunks; i++) {
        uint64_t offset = JCHUNK_HEADER_SIZE;
        int error;

        if (j->chunks[i] == JOURNAL_FREE || j->chunks[i] < number) {
            continue;
        }
        error = file_pread_all(j->files, j->file, chunk, j->chunk_size,
                               (uint64_t) i * j->chunk_size);
        if (error) {
            return error;
        }
        if (j->chunks[i] == number) {
            offset = j->head % j->chunk_size;
        }
        if (journal_chunk_proves__(j, j->chunks[i], chunk, offset)) {
            COVERAGE_INC(journal_damaged);
            vlog_err("the journal is damaged: record %" PRIu64 " at %" PRIu64
                     " was durable and cannot be read",
                     j->sequence, j->head);
            return EBADMSG;
        }
    }
    return 0;
}

/* Replays all chunks from j->head on. */
static int
journal_replay__(struct journal *j, uint8_t *chunk,
                 int (*cb)(void *aux, const struct journal_record *),
                 void *aux, uint64_t *n)
{
    int error = 0;

    while (!error) {
        uint64_t number = j->head / j->chunk_size;
        uint32_t place = journal_place__(j, number);

        if (place == UINT32_MAX) {
            error = journal_find_chunk__(j, number, chunk, &place);
            if (error) {
                break;
            }
        }
        error = file_pread_all(j->files, j->file, chunk, j->chunk_size,
                               (uint64_t) place * j->chunk_size);
        if (!error) {
            error = journal_replay_chunk__(j, chunk, cb, aux, n);
        }
    }
    if (error == ENOENT) {
        error = j->accept_damage ? 0 : journal_check_end__(j, chunk);
    }
    return error;
}

int
journal_replay(struct journal *j,
               int (*cb)(void *aux, const struct journal_record *), void *aux,
               uint64_t *ret_n)
{
    uint8_t *chunk;
    uint64_t n = 0;
    int error;

    if (j->ready) {
        return EINVAL;
    }
    j->head = journal_norm__(j, j->tail);
    j->sequence = j->tail_sequence;
    j->crc = j->tail_crc;
    if (journal_place__(j, j->head / j->chunk_size) == UINT32_MAX) {
        /* All before was trimmed, or lost; go on where nothing stale is. */
        j->head = journal_norm__(
            j, ROUND_UP(j->head - JCHUNK_HEADER_SIZE, j->chunk_size));
    }
    chunk = malloc(j->chunk_size);
    if (!chunk) {
        return ENOMEM;
    }
    error = journal_replay__(j, chunk, cb, aux, &n);
    free(chunk);
    if (error) {
        return error;
    }
    /* Places that hold nothing live are free. */
    for (uint32_t i = 0; i < j->n_chunks; i++) {
        if (j->chunks[i] < j->tail / j->chunk_size ||
            j->chunks[i] > j->head / j->chunk_size) {
            j->chunks[i] = JOURNAL_FREE;
        }
    }
    /* What was read may be in the page cache only: the next commit syncs. */
    j->durable = j->tail;
    j->durable_sequence = j->tail_sequence;
    j->ready = true;
    COVERAGE_ADD(journal_replayed, n);
    if (ret_n) {
        *ret_n = n;
    }
    return 0;
}
