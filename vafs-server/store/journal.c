/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The journal; see journal.h, and format.h for the layout.
 *
 * One mutex protects everything but the buffer that the leader writes, which
 * is the leader's while 'flushing' is set.  The mutex is held during I/O only
 * when the ring grows by a chunk.
 *
 * An LSN in the header of a chunk, or too near to its end for a record's
 * header, means the next place where a record can begin; journal_norm__()
 * gives that. */

#include "vafs-server/store/journal-private.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "vafs-server/store/codec.h"
#include "vafs-server/store/crc32c.h"

COVERAGE_DEFINE(journal_append);
COVERAGE_DEFINE(journal_commit);
COVERAGE_DEFINE(journal_sync);
COVERAGE_DEFINE(journal_full);
COVERAGE_DEFINE(journal_grow);

uint64_t
journal_norm__(const struct journal *j, uint64_t lsn)
{
    uint64_t offset = lsn % j->chunk_size;

    if (offset < JCHUNK_HEADER_SIZE) {
        return lsn - offset + JCHUNK_HEADER_SIZE;
    }
    if (j->chunk_size - offset < JREC_HEADER_SIZE) {
        return lsn - offset + j->chunk_size + JCHUNK_HEADER_SIZE;
    }
    return lsn;
}

uint32_t
journal_place__(const struct journal *j, uint64_t number)
{
    for (uint32_t i = 0; i < j->n_chunks; i++) {
        if (j->chunks[i] == number) {
            return i;
        }
    }
    return UINT32_MAX;
}

int
journal_set_n_chunks__(struct journal *j, uint32_t n)
{
    uint64_t *chunks = realloc(j->chunks, (n + 1) * sizeof *chunks);

    if (!chunks) {
        return ENOMEM;
    }
    for (uint32_t i = j->n_chunks; i < n; i++) {
        chunks[i] = JOURNAL_FREE;
    }
    j->chunks = chunks;
    j->n_chunks = n;
    return 0;
}

uint32_t
journal_crc__(uint64_t lsn, const uint8_t header[JREC_HEADER_SIZE],
              const void *body, size_t size)
{
    static const uint8_t zero[4];
    uint8_t place[8];
    uint32_t crc;

    put_le64(place, lsn);
    crc = crc32c(0, place, sizeof place);
    crc = crc32c(crc, header, JREC_OFS_CRC);
    crc = crc32c(crc, zero, sizeof zero);
    crc =
        crc32c(crc, header + JREC_OFS_PREV, JREC_HEADER_SIZE - JREC_OFS_PREV);
    return crc32c(crc, body, size);
}

int
journal_create(struct file_layer *files, struct health *health,
               const struct superblock *sb, uint64_t max, unsigned flags,
               struct journal **ret)
{
    struct journal *j = calloc(1, sizeof *j);
    int error;

    if (!j) {
        return ENOMEM;
    }
    j->files = files;
    j->health = health;
    j->read_only = flags & STORE_READ_ONLY;
    j->accept_damage = flags & STORE_ACCEPT_DAMAGE;
    memcpy(j->uuid, sb->uuid, sizeof j->uuid);
    j->incarnation = sb->incarnation;
    j->chunk_size = sb->chunk_size;
    j->n_chunks_max = (uint32_t) MAX(max / sb->chunk_size, JOURNAL_CHUNKS_MIN);
    j->tail = j->head = j->durable = sb->root.journal_tail;
    j->sequence = j->tail_sequence = sb->tail_sequence;
    j->crc = j->tail_crc = sb->tail_crc;
    pthread_mutex_init(&j->mutex, NULL);
    pthread_cond_init(&j->cond, NULL);
    j->file = -1;
    error = files->ops->open(files, "journal",
                             j->read_only ? 0 : FILE_WRITE | FILE_CREATE,
                             &j->file);
    if (!error) {
        error = journal_load_chunks__(j);
    }
    if (error) {
        journal_destroy(j);
        return error;
    }
    *ret = j;
    return 0;
}

void
journal_destroy(struct journal *j)
{
    if (j) {
        if (j->file >= 0) {
            j->files->ops->close(j->files, j->file);
        }
        pthread_mutex_destroy(&j->mutex);
        pthread_cond_destroy(&j->cond);
        free(j->chunks);
        free(j->in.data);
        free(j->out.data);
        free(j);
    }
}

/* Room. */

/* Adds a chunk of zeros to the file and syncs it, so that later writes into
 * it allocate nothing. */
static int
journal_grow__(struct journal *j)
{
    static const uint8_t zeros[16384];
    uint64_t offset = (uint64_t) j->n_chunks * j->chunk_size;
    struct iovec iov[4];
    int error = 0;

    for (size_t i = 0; i < ARRAY_SIZE(iov); i++) {
        iov[i].iov_base = (void *) zeros;
        iov[i].iov_len = sizeof zeros;
    }
    for (uint32_t done = 0; done < j->chunk_size && !error;
         done += sizeof zeros * ARRAY_SIZE(iov)) {
        error = j->files->ops->pwritev(j->files, j->file, iov, ARRAY_SIZE(iov),
                                       offset + done);
    }
    if (!error) {
        error = j->files->ops->datasync(j->files, j->file);
        if (error) {
            health_break(j->health, error, "growing the journal");
            return EIO;
        }
        error = journal_set_n_chunks__(j, j->n_chunks + 1);
    }
    if (error == ENOSPC || error == EDQUOT) {
        return ENOBUFS; /* A checkpoint makes room without growing. */
    }
    if (error && error != ENOMEM) {
        health_break(j->health, error, "growing the journal");
        return EIO;
    }
    if (!error) {
        COVERAGE_INC(journal_grow);
    }
    return error;
}

static void
journal_free_chunks__(struct journal *j)
{
    for (uint32_t i = 0; i < j->n_chunks; i++) {
        if (j->chunks[i] < j->tail / j->chunk_size) {
            j->chunks[i] = JOURNAL_FREE;
        }
    }
}

/* Gives chunk 'number' a place. */
static int
journal_take_chunk__(struct journal *j, uint64_t number, unsigned flags)
{
    uint32_t n_free = j->n_chunks_max - MIN(j->n_chunks, j->n_chunks_max);
    uint32_t reserve = MAX(j->n_chunks_max / 8, 1u);
    uint32_t place;

    for (uint32_t i = 0; i < j->n_chunks; i++) {
        n_free += j->chunks[i] == JOURNAL_FREE;
    }
    if (n_free <= (flags & JOURNAL_URGENT ? 0 : reserve)) {
        COVERAGE_INC(journal_full);
        return ENOBUFS;
    }
    place = journal_place__(j, JOURNAL_FREE);
    if (place == UINT32_MAX) {
        int error = journal_grow__(j);

        if (error) {
            return error;
        }
        place = j->n_chunks - 1;
    }
    j->chunks[place] = number;
    return 0;
}

/* Flushing. */

static int
journal_write_out__(struct journal *j, const struct journal_buffer *b)
{
    for (int i = 0; i < b->n_pieces; i++) {
        uint64_t lsn = b->pieces[i].lsn;
        size_t start = b->pieces[i].offset;
        size_t end = i + 1 < b->n_pieces ? b->pieces[i + 1].offset : b->n;
        uint32_t place;
        int error;

        pthread_mutex_lock(&j->mutex);
        place = journal_place__(j, lsn / j->chunk_size);
        pthread_mutex_unlock(&j->mutex);
        error = file_pwrite(j->files, j->file, b->data + start, end - start,
                            (uint64_t) place * j->chunk_size +
                                lsn % j->chunk_size);
        if (error) {
            return error;
        }
    }
    return 0;
}

/* Writes, and syncs if 'sync', all that was appended.  'flushing' is false
 * and the mutex is held, but is dropped meanwhile. */
static int
journal_flush__(struct journal *j, bool sync)
{
    struct journal_buffer b = j->in;
    uint64_t target = j->head, target_sequence = j->sequence;
    int error;

    j->in = j->out;
    j->in.n = 0;
    j->in.n_pieces = 0;
    j->out = b;
    j->flushing = true;
    pthread_mutex_unlock(&j->mutex);

    error = journal_write_out__(j, &j->out);
    if (!error && sync) {
        error = j->files->ops->datasync(j->files, j->file);
    }
    if (error) {
        health_break(j->health, error, "writing the journal");
        error = EIO;
    }

    pthread_mutex_lock(&j->mutex);
    if (j->out.allocated > JOURNAL_BUFFER_KEEP) {
        free(j->out.data);
        memset(&j->out, 0, sizeof j->out);
    }
    if (!error && sync) {
        j->durable = target;
        j->durable_sequence = target_sequence;
        j->n_syncs++;
        COVERAGE_INC(journal_sync);
    }
    j->flushing = false;
    pthread_cond_broadcast(&j->cond);
    return error;
}

int
journal_commit(struct journal *j, uint64_t lsn)
{
    int error = 0;

    pthread_mutex_lock(&j->mutex);
    if (lsn > j->head) {
        error = EINVAL;
    }
    j->n_commits++;
    COVERAGE_INC(journal_commit);
    while (!error && j->durable < lsn) {
        if (health_get(j->health)) {
            error = EIO;
        } else if (j->read_only || !j->ready) {
            error = EROFS;
        } else if (j->flushing) {
            pthread_cond_wait(&j->cond, &j->mutex);
        } else {
            error = journal_flush__(j, true);
        }
    }
    pthread_mutex_unlock(&j->mutex);
    return error;
}

/* Appending. */

static int
journal_buffer_room__(struct journal_buffer *b, size_t size)
{
    size_t want = b->n + size;

    if (want > b->allocated) {
        size_t n = MAX(b->allocated, 16384);
        uint8_t *data;

        while (n < want) {
            n *= 2;
        }
        data = realloc(b->data, n);
        if (!data) {
            return ENOMEM;
        }
        b->data = data;
        b->allocated = n;
    }
    return 0;
}

static void
journal_buffer_piece__(struct journal_buffer *b, uint64_t lsn)
{
    b->pieces[b->n_pieces].lsn = lsn;
    b->pieces[b->n_pieces].offset = b->n;
    b->n_pieces++;
}

/* Fills in a record's header at the end of the buffer, whose body (if any)
 * already stands behind it, and moves on. */
static void
journal_put_record__(struct journal *j, uint8_t type, size_t length,
                     size_t covered)
{
    uint8_t *p = j->in.data + j->in.n;

    memset(p, 0, JREC_HEADER_SIZE);
    put_le32(p + JREC_OFS_MAGIC, JREC_MAGIC);
    p[JREC_OFS_FORMAT] = JREC_FORMAT;
    p[JREC_OFS_TYPE] = type;
    put_le32(p + JREC_OFS_LENGTH, (uint32_t) length);
    put_le32(p + JREC_OFS_PREV, j->crc);
    put_le32(p + JREC_OFS_UNSYNCED,
             (uint32_t) MIN(j->sequence - j->durable_sequence, UINT32_MAX));
    put_le64(p + JREC_OFS_INCARNATION, j->incarnation);
    put_le64(p + JREC_OFS_SEQUENCE, j->sequence++);
    j->crc = journal_crc__(j->head, p, p + JREC_HEADER_SIZE, covered);
    put_le32(p + JREC_OFS_CRC, j->crc);
    j->in.n += ROUND_UP(JREC_HEADER_SIZE + covered, (size_t) JREC_ALIGN);
    j->head += ROUND_UP(JREC_HEADER_SIZE + length, (size_t) JREC_ALIGN);
}

static void
journal_put_chunk_header__(struct journal *j, uint64_t number)
{
    uint8_t *p = j->in.data + j->in.n;

    memset(p, 0, JCHUNK_HEADER_SIZE);
    put_le64(p + JCHUNK_OFS_MAGIC, JCHUNK_MAGIC);
    p[JCHUNK_OFS_FORMAT] = JCHUNK_FORMAT;
    memcpy(p + JCHUNK_OFS_UUID, j->uuid, sizeof j->uuid);
    put_le64(p + JCHUNK_OFS_NUMBER, number);
    put_le64(p + JCHUNK_OFS_INCARNATION, j->incarnation);
    put_le64(p + JCHUNK_OFS_SUM, codec_sum(p, JCHUNK_OFS_SUM, 0));
    j->in.n += JCHUNK_HEADER_SIZE;
}

/* Makes head a place where a record of 'size' bytes can go; the buffer has
 * room for it, a pad and a chunk header.  Changes nothing on failure. */
static int
journal_make_place__(struct journal *j, size_t size, unsigned flags)
{
    uint64_t head = journal_norm__(j, j->head);
    uint64_t number = head / j->chunk_size;
    bool fresh = journal_place__(j, number) == UINT32_MAX;
    int error;

    if (!fresh && head % j->chunk_size + size > j->chunk_size) {
        number++;
        error = journal_take_chunk__(j, number, flags);
        if (error) {
            return error;
        }
        if (!j->in.n_pieces) {
            journal_buffer_piece__(&j->in, head);
        }
        journal_put_record__(
            j, JREC_PAD,
            j->chunk_size - head % j->chunk_size - JREC_HEADER_SIZE, 0);
        head = journal_norm__(j, j->head);
    } else if (fresh) {
        error = journal_take_chunk__(j, number, flags);
        if (error) {
            return error;
        }
    } else {
        j->head = head;
        if (!j->in.n_pieces) {
            journal_buffer_piece__(&j->in, head);
        }
        return 0;
    }
    j->head = number * j->chunk_size;
    journal_buffer_piece__(&j->in, j->head);
    journal_put_chunk_header__(j, number);
    j->head += JCHUNK_HEADER_SIZE;
    return 0;
}

static int
journal_append__(struct journal *j, uint8_t type, const struct iovec *iov,
                 int n_iov, size_t length, unsigned flags)
{
    size_t size = ROUND_UP(JREC_HEADER_SIZE + length, (size_t) JREC_ALIGN);
    uint8_t *p;
    int error;

    error = journal_buffer_room__(&j->in, JREC_HEADER_SIZE +
                                              JCHUNK_HEADER_SIZE + size);
    if (!error) {
        error = journal_make_place__(j, size, flags);
    }
    if (error) {
        return error;
    }
    p = j->in.data + j->in.n + JREC_HEADER_SIZE;
    for (int i = 0; i < n_iov; i++) {
        if (iov[i].iov_len) {
            memcpy(p, iov[i].iov_base, iov[i].iov_len);
            p += iov[i].iov_len;
        }
    }
    memset(p, 0, size - JREC_HEADER_SIZE - length);
    journal_put_record__(j, type, length, length);
    COVERAGE_INC(journal_append);
    return 0;
}

int
journal_append(struct journal *j, uint8_t type, const struct iovec *iov,
               int n_iov, unsigned flags, uint64_t *ret_lsn)
{
    size_t length = 0;
    int error = 0;

    for (int i = 0; i < n_iov; i++) {
        length += iov[i].iov_len;
    }
    if (!type) {
        return EINVAL;
    }
    if (length > journal_body_max(j)) {
        return EMSGSIZE;
    }
    pthread_mutex_lock(&j->mutex);
    /* An append may begin one piece, or two where it leaves a chunk. */
    while (!error && !health_get(j->health) &&
           (j->in.n_pieces + 2 > JOURNAL_PIECES ||
            j->in.n > JOURNAL_BUFFER_MAX)) {
        if (j->flushing) {
            pthread_cond_wait(&j->cond, &j->mutex);
        } else {
            error = journal_flush__(j, false);
        }
    }
    if (health_get(j->health)) {
        error = EIO;
    } else if (j->read_only) {
        error = EROFS;
    } else if (!j->ready) {
        error = EINVAL;
    }
    if (!error) {
        error = journal_append__(j, type, iov, n_iov, length, flags);
    }
    if (!error) {
        *ret_lsn = j->head;
    }
    pthread_mutex_unlock(&j->mutex);
    return error;
}

/* Trimming. */

int
journal_locate(struct journal *j, uint64_t lsn, uint64_t *ret_sequence,
               uint32_t *ret_crc)
{
    uint8_t header[JREC_HEADER_SIZE];
    uint32_t place;
    uint64_t norm;
    int error = 0;

    pthread_mutex_lock(&j->mutex);
    if (!j->ready || lsn < j->tail || lsn > j->head) {
        pthread_mutex_unlock(&j->mutex);
        return EINVAL;
    }
    norm = journal_norm__(j, lsn);
    while (!error && j->durable < j->head &&
           (norm >= j->durable || lsn > j->durable)) {
        if (health_get(j->health)) {
            error = EIO;
        } else if (j->flushing) {
            pthread_cond_wait(&j->cond, &j->mutex);
        } else {
            error = journal_flush__(j, true);
        }
    }
    if (!error && norm >= journal_norm__(j, j->head)) {
        *ret_sequence = j->sequence;
        *ret_crc = j->crc;
        pthread_mutex_unlock(&j->mutex);
        return 0;
    }
    place = journal_place__(j, norm / j->chunk_size);
    pthread_mutex_unlock(&j->mutex);
    if (error) {
        return error;
    }
    error = file_pread_all(j->files, j->file, header, sizeof header,
                           (uint64_t) place * j->chunk_size +
                               norm % j->chunk_size);
    if (error) {
        return error;
    }
    if (get_le32(header + JREC_OFS_MAGIC) != JREC_MAGIC) {
        return EINVAL; /* Not the end of a record. */
    }
    *ret_sequence = get_le64(header + JREC_OFS_SEQUENCE);
    *ret_crc = get_le32(header + JREC_OFS_PREV);
    return 0;
}

void
journal_trimmed(struct journal *j, uint64_t lsn)
{
    pthread_mutex_lock(&j->mutex);
    j->tail = MAX(j->tail, lsn);
    journal_free_chunks__(j);
    pthread_mutex_unlock(&j->mutex);
}

bool
journal_can_shrink(struct journal *j, uint64_t *ret_tail)
{
    bool can;

    pthread_mutex_lock(&j->mutex);
    can = j->ready && !j->read_only && j->n_chunks && j->tail == j->head;
    if (can) {
        /* A chunk that never was: nothing stale can be found there. */
        *ret_tail =
            ROUND_UP(j->head, (uint64_t) j->chunk_size) + JCHUNK_HEADER_SIZE;
    }
    pthread_mutex_unlock(&j->mutex);
    return can;
}

int
journal_shrink(struct journal *j)
{
    return j->files->ops->truncate(j->files, j->file, 0);
}

/* Looking. */

size_t
journal_body_max(const struct journal *j)
{
    return JOURNAL_BODY_MAX(j->chunk_size);
}

uint64_t
journal_tail(struct journal *j)
{
    uint64_t lsn;

    pthread_mutex_lock(&j->mutex);
    lsn = j->tail;
    pthread_mutex_unlock(&j->mutex);
    return lsn;
}

uint64_t
journal_head(struct journal *j)
{
    uint64_t lsn;

    pthread_mutex_lock(&j->mutex);
    lsn = j->head;
    pthread_mutex_unlock(&j->mutex);
    return lsn;
}

uint64_t
journal_durable(struct journal *j)
{
    uint64_t lsn;

    pthread_mutex_lock(&j->mutex);
    lsn = j->durable;
    pthread_mutex_unlock(&j->mutex);
    return lsn;
}

void
journal_usage(struct journal *j, uint64_t *ret_used, uint64_t *ret_limit)
{
    pthread_mutex_lock(&j->mutex);
    *ret_used = j->head - j->tail;
    *ret_limit =
        (uint64_t) (j->n_chunks_max - 1 - MAX(j->n_chunks_max / 8, 1u)) *
        j->chunk_size;
    pthread_mutex_unlock(&j->mutex);
}

void
journal_get_stats(struct journal *j, struct journal_stats *stats)
{
    pthread_mutex_lock(&j->mutex);
    stats->used = j->head - j->tail;
    stats->size = (uint64_t) j->n_chunks * j->chunk_size;
    stats->max = (uint64_t) j->n_chunks_max * j->chunk_size;
    stats->n_commits = j->n_commits;
    stats->n_syncs = j->n_syncs;
    pthread_mutex_unlock(&j->mutex);
}
