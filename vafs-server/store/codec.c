/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between plain objects and the bytes of a record; see codec.h.
 *
 * Blocks of 16 KiB are compressed one by one, so that reading 4 KiB of a
 * 64 KiB record unpacks a quarter of it.  A block that does not get smaller is
 * stored as it is.  If the first one saves less than 6 % the content is taken
 * for incompressible and the others are not tried.
 *
 * A delta is one zstd frame whose prefix is the base's content.  The base is
 * always stored in full (store.c sees to that), so that a read needs at most
 * two records. */

#include "vafs-server/store/codec.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <xxhash.h>
#include <zstd.h>

/* Buffers above this are given back after use. */
#define CODEC_KEEP (256u << 10)

struct codec_thread {
    EVP_MD_CTX *md;
    ZSTD_CCtx *cctx;
    ZSTD_DCtx *dctx;
    uint8_t *buffer, *read_buffer;
    size_t buffer_size, read_size;
};

static pthread_key_t codec_key;
static pthread_once_t codec_once = PTHREAD_ONCE_INIT;
static int codec_key_error;

static void
codec_thread_destroy__(void *thread_)
{
    struct codec_thread *thread = thread_;

    EVP_MD_CTX_free(thread->md);
    ZSTD_freeCCtx(thread->cctx);
    ZSTD_freeDCtx(thread->dctx);
    free(thread->buffer);
    free(thread->read_buffer);
    free(thread);
}

static void
codec_init__(void)
{
    codec_key_error = pthread_key_create(&codec_key, codec_thread_destroy__);
}

/* This thread's contexts, or NULL without memory. */
static struct codec_thread *
codec_thread__(void)
{
    struct codec_thread *thread;

    pthread_once(&codec_once, codec_init__);
    if (codec_key_error) {
        return NULL;
    }
    thread = pthread_getspecific(codec_key);
    if (!thread) {
        thread = calloc(1, sizeof *thread);
        if (thread && pthread_setspecific(codec_key, thread)) {
            free(thread);
            thread = NULL;
        }
    }
    return thread;
}

static int
codec_grow__(uint8_t **buffer, size_t *allocated, size_t size)
{
    size_t want =
        size <= CODEC_KEEP ? MAX(ROUND_UP(size, 16384), 32768) : size;

    /* A buffer that one huge object made is not kept for small ones. */
    if (*allocated < size || (*allocated > CODEC_KEEP && want <= CODEC_KEEP)) {
        uint8_t *p = malloc(want);

        if (!p) {
            return ENOMEM;
        }
        free(*buffer);
        *buffer = p;
        *allocated = want;
    }
    return 0;
}

uint8_t *
codec_read_buffer(size_t size)
{
    struct codec_thread *thread = codec_thread__();

    if (!thread ||
        codec_grow__(&thread->read_buffer, &thread->read_size, size)) {
        return NULL;
    }
    return thread->read_buffer;
}

uint64_t
codec_sum(const void *data, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, size, seed);
}

int
codec_hash(uint8_t kind, uint8_t format, const void *data, size_t size,
           struct store_id *id)
{
    struct codec_thread *thread = codec_thread__();
    uint8_t head[2] = {kind, format};

    if (!thread) {
        return ENOMEM;
    }
    if (!thread->md) {
        thread->md = EVP_MD_CTX_new();
        if (!thread->md) {
            return ENOMEM;
        }
    }
    if (!EVP_DigestInit_ex(thread->md, EVP_sha256(), NULL) ||
        !EVP_DigestUpdate(thread->md, head, sizeof head) ||
        (size && !EVP_DigestUpdate(thread->md, data, size)) ||
        !EVP_DigestFinal_ex(thread->md, id->bytes, NULL)) {
        return ENOMEM;
    }
    return 0;
}

static uint32_t
codec_n_blocks__(size_t size)
{
    return (uint32_t) DIV_ROUND_UP(size, (size_t) REC_BLOCK_SIZE);
}

static void
codec_put_entry__(uint8_t *entry, const uint8_t *stored, size_t size, bool raw)
{
    put_le32(entry, (uint32_t) size | (raw ? REC_ENTRY_RAW : 0));
    put_le64(entry + 4, codec_sum(stored, size, 0));
}

/* Smallest window that covers 'size' bytes. */
static int
codec_window__(size_t size)
{
    int log = 10;

    while (log < 22 && ((size_t) 1 << log) < size) {
        log++;
    }
    return log;
}

/* Writes the delta frame to 'out'.  '*ret_n' becomes 0 if a delta is not
 * worth it. */
static int
codec_encode_delta__(struct codec_thread *thread, const struct codec_input *in,
                     uint8_t *out, size_t *ret_n)
{
    size_t n;

    *ret_n = 0;
    if (!in->base || !in->delta_max || !in->size || in->level <= 0) {
        return 0;
    }
    ZSTD_CCtx_reset(thread->cctx, ZSTD_reset_session_and_parameters);
    ZSTD_CCtx_setParameter(thread->cctx, ZSTD_c_compressionLevel,
                           in->delta_level);
    ZSTD_CCtx_setParameter(thread->cctx, ZSTD_c_windowLog,
                           codec_window__(in->size + in->base->size));
    n = ZSTD_CCtx_refPrefix(thread->cctx, in->base->data, in->base->size);
    if (!ZSTD_isError(n)) {
        n = ZSTD_compress2(thread->cctx, out, in->delta_max, in->data,
                           in->size);
    }
    if (ZSTD_isError(n)) {
        /* Mostly "destination too small": not alike enough.  Whatever it was,
         * storing in full is right. */
        return 0;
    }
    *ret_n = n;
    return 0;
}

/* Writes the blocks to 'out' and their entries to 'table', and returns the
 * bytes written.  '*encoding' becomes REC_RAW if none was compressed. */
static size_t
codec_encode_blocks__(struct codec_thread *thread,
                      const struct codec_input *in, uint8_t *table,
                      uint8_t *out, uint8_t *encoding)
{
    bool try = in->level > 0;
    const uint8_t *p = in->data;
    size_t left = in->size, n_out = 0;

    *encoding = REC_RAW;
    if (try) {
        ZSTD_CCtx_reset(thread->cctx, ZSTD_reset_session_and_parameters);
        ZSTD_CCtx_setParameter(thread->cctx, ZSTD_c_compressionLevel,
                               in->level);
    }
    for (uint32_t i = 0; left; i++) {
        size_t plain = MIN(left, (size_t) REC_BLOCK_SIZE);
        size_t n = plain;
        bool raw = true;

        if (try) {
            n = ZSTD_compress2(thread->cctx, out + n_out, plain, p, plain);
            raw = ZSTD_isError(n) || n >= plain;
            if (!i && (raw || n > plain - plain / 16)) {
                try = false;
                raw = true;
            }
        }
        if (raw) {
            n = plain;
            memcpy(out + n_out, p, n);
        } else {
            *encoding = REC_BLOCKS;
        }
        codec_put_entry__(table + i * REC_ENTRY_SIZE, out + n_out, n, raw);
        n_out += n;
        p += plain;
        left -= plain;
    }
    return n_out;
}

int
codec_encode(const struct codec_input *in, uint8_t **ret_data,
             size_t *ret_size, bool *ret_delta)
{
    struct codec_thread *thread = codec_thread__();
    uint32_t n_blocks = codec_n_blocks__(in->size);
    size_t room, head_size, stored, total;
    uint8_t *data, encoding;
    int error;

    /* The largest head there can be, and a delta may need base and entry
     * where content has no block at all. */
    room = REC_HEADER_SIZE + 32 + (n_blocks + 1) * REC_ENTRY_SIZE +
           MAX(in->size, in->delta_max) + REC_ALIGN;
    if (!thread) {
        return ENOMEM;
    }
    if (in->level > 0 && !thread->cctx) {
        thread->cctx = ZSTD_createCCtx();
        if (!thread->cctx) {
            return ENOMEM;
        }
    }
    error = codec_grow__(&thread->buffer, &thread->buffer_size, room);
    if (error) {
        return error;
    }
    data = thread->buffer;

    head_size = REC_HEADER_SIZE + 32 + REC_ENTRY_SIZE;
    error = codec_encode_delta__(thread, in, data + head_size, &stored);
    if (error) {
        return error;
    }
    if (stored) {
        encoding = REC_DELTA;
        memcpy(data + REC_HEADER_SIZE, &in->base->id, 32);
        codec_put_entry__(data + REC_HEADER_SIZE + 32, data + head_size,
                          stored, false);
    } else {
        head_size = REC_HEADER_SIZE + n_blocks * REC_ENTRY_SIZE;
        stored = codec_encode_blocks__(thread, in, data + REC_HEADER_SIZE,
                                       data + head_size, &encoding);
    }

    memset(data, 0, REC_HEADER_SIZE);
    put_le32(data + REC_OFS_MAGIC, REC_MAGIC);
    data[REC_OFS_FORMAT] = REC_FORMAT;
    data[REC_OFS_KIND] = in->kind;
    data[REC_OFS_OBJECT_FORMAT] = in->format;
    data[REC_OFS_ENCODING] = encoding;
    put_le32(data + REC_OFS_DOMAIN, in->domain);
    put_le32(data + REC_OFS_STORED, (uint32_t) stored);
    put_le32(data + REC_OFS_PLAIN, (uint32_t) in->size);
    memcpy(data + REC_OFS_ID, in->id, sizeof *in->id);

    total = ROUND_UP(head_size + stored, (size_t) REC_ALIGN);
    memset(data + head_size + stored, 0, total - head_size - stored);
    *ret_data = data;
    *ret_size = total;
    *ret_delta = encoding == REC_DELTA;
    return 0;
}

/* Size of header and extension by the header's fields, or 0 if these are
 * impossible. */
static size_t
codec_head_size__(const uint8_t *data)
{
    uint8_t encoding = data[REC_OFS_ENCODING];
    uint32_t plain = get_le32(data + REC_OFS_PLAIN);
    uint32_t stored = get_le32(data + REC_OFS_STORED);

    if (get_le32(data + REC_OFS_MAGIC) != REC_MAGIC ||
        data[REC_OFS_FORMAT] != REC_FORMAT || plain > STORE_OBJECT_MAX ||
        stored > STORE_OBJECT_MAX || encoding > REC_DELTA) {
        return 0;
    }
    return encoding == REC_DELTA
               ? REC_HEADER_SIZE + 32 + REC_ENTRY_SIZE
               : REC_HEADER_SIZE + codec_n_blocks__(plain) * REC_ENTRY_SIZE;
}

static uint64_t
codec_head_sum__(const uint8_t *data, size_t head_size, uint64_t salt)
{
    uint64_t sum = codec_sum(data, REC_OFS_SUM, salt);

    return codec_sum(data + REC_HEADER_SIZE, head_size - REC_HEADER_SIZE, sum);
}

void
codec_seal(uint8_t *data, uint64_t position, uint64_t salt)
{
    put_le64(data + REC_OFS_POSITION, position);
    put_le64(data + REC_OFS_SUM,
             codec_head_sum__(data, codec_head_size__(data), salt));
}

/* Do the block lengths add up, and could the encoder have written them? */
static bool
codec_table_is_valid__(const struct codec_record *r)
{
    uint32_t n_compressed = 0;
    size_t sum = 0;

    for (uint32_t i = 0; i < r->n_blocks; i++) {
        uint32_t word = get_le32(r->table + i * REC_ENTRY_SIZE);
        size_t stored = word & ~REC_ENTRY_RAW;
        size_t plain = MIN(r->plain - (size_t) i * REC_BLOCK_SIZE,
                           (size_t) REC_BLOCK_SIZE);
        bool raw = word & REC_ENTRY_RAW;

        if (r->encoding == REC_DELTA) {
            plain = stored + 1;
        }
        if (raw ? stored != plain : stored >= plain) {
            return false;
        }
        n_compressed += !raw;
        sum += stored;
    }
    return sum == r->stored && (n_compressed > 0) == (r->encoding != REC_RAW);
}

int
codec_parse(const uint8_t *data, size_t size, uint64_t salt,
            struct codec_record *ret)
{
    struct codec_record r;

    if (size < REC_HEADER_SIZE) {
        return ENODATA;
    }
    r.head_size = codec_head_size__(data);
    if (!r.head_size) {
        return EBADMSG;
    }
    if (size < r.head_size) {
        return ENODATA;
    }
    if (get_le64(data + REC_OFS_SUM) !=
            codec_head_sum__(data, r.head_size, salt) ||
        get_le32(data + REC_OFS_FLAGS)) { /* Flags and zero. */
        return EBADMSG;
    }
    r.kind = data[REC_OFS_KIND];
    r.format = data[REC_OFS_OBJECT_FORMAT];
    r.encoding = data[REC_OFS_ENCODING];
    r.domain = get_le32(data + REC_OFS_DOMAIN);
    r.stored = get_le32(data + REC_OFS_STORED);
    r.plain = get_le32(data + REC_OFS_PLAIN);
    r.position = get_le64(data + REC_OFS_POSITION);
    memcpy(&r.id, data + REC_OFS_ID, sizeof r.id);
    memset(&r.base, 0, sizeof r.base);
    r.table = data + REC_HEADER_SIZE;
    r.n_blocks = codec_n_blocks__(r.plain);
    if (r.encoding == REC_DELTA) {
        memcpy(&r.base, r.table, sizeof r.base);
        r.table += sizeof r.base;
        r.n_blocks = 1;
    }
    r.size = ROUND_UP(r.head_size + r.stored, (size_t) REC_ALIGN);
    if (!codec_table_is_valid__(&r)) {
        return EBADMSG;
    }
    *ret = r;
    return 0;
}

void
codec_block(const struct codec_record *r, uint32_t index,
            struct codec_block *b)
{
    b->offset = 0;
    for (uint32_t i = 0; i < index; i++) {
        b->offset += get_le32(r->table + i * REC_ENTRY_SIZE) & ~REC_ENTRY_RAW;
    }
    b->stored = get_le32(r->table + index * REC_ENTRY_SIZE) & ~REC_ENTRY_RAW;
    b->raw = get_le32(r->table + index * REC_ENTRY_SIZE) & REC_ENTRY_RAW;
    b->sum = get_le64(r->table + index * REC_ENTRY_SIZE + 4);
    b->plain = r->encoding == REC_DELTA
                   ? r->plain
                   : MIN(r->plain - (size_t) index * REC_BLOCK_SIZE,
                         (size_t) REC_BLOCK_SIZE);
}

static int
codec_unpack_frame__(const struct codec_block *b, const uint8_t *stored,
                     const struct object *base, uint8_t *plain)
{
    struct codec_thread *thread = codec_thread__();
    size_t n;

    if (!thread) {
        return ENOMEM;
    }
    if (!thread->dctx) {
        thread->dctx = ZSTD_createDCtx();
        if (!thread->dctx) {
            return ENOMEM;
        }
    }
    ZSTD_DCtx_reset(thread->dctx, ZSTD_reset_session_only);
    if (base && ZSTD_isError(ZSTD_DCtx_refPrefix(thread->dctx, base->data,
                                                 base->size))) {
        return ENOMEM;
    }
    n = ZSTD_decompressDCtx(thread->dctx, plain, b->plain, stored, b->stored);
    return n == b->plain ? 0 : EBADMSG;
}

int
codec_unpack_block(const struct codec_block *b, const uint8_t *stored,
                   uint8_t *plain)
{
    if (codec_sum(stored, b->stored, 0) != b->sum) {
        return EBADMSG;
    }
    if (b->raw) {
        memcpy(plain, stored, b->stored);
        return 0;
    }
    return codec_unpack_frame__(b, stored, NULL, plain);
}

int
codec_unpack(const struct codec_record *r, const uint8_t *payload,
             const struct object *base, uint8_t *plain)
{
    struct codec_block b;
    int error = 0;

    if (r->encoding == REC_DELTA) {
        codec_block(r, 0, &b);
        return codec_sum(payload, b.stored, 0) == b.sum
                   ? codec_unpack_frame__(&b, payload, base, plain)
                   : EBADMSG;
    }
    for (uint32_t i = 0; i < r->n_blocks && !error; i++) {
        codec_block(r, i, &b);
        error = codec_unpack_block(&b, payload + b.offset,
                                   plain + (size_t) i * REC_BLOCK_SIZE);
    }
    return error;
}

int
codec_check(const struct codec_record *r, const uint8_t *payload)
{
    for (uint32_t i = 0; i < r->n_blocks; i++) {
        struct codec_block b;

        codec_block(r, i, &b);
        if (codec_sum(payload + b.offset, b.stored, 0) != b.sum) {
            return EBADMSG;
        }
    }
    return 0;
}
