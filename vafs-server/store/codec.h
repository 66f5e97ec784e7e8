/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between plain objects and the bytes of a record: names, compression,
 * differences, checksums.  No I/O and no locks; each thread has its own
 * contexts and buffer. */

#ifndef VAFS_STORE_CODEC_H
#define VAFS_STORE_CODEC_H 1

#include "vafs-server/store/format.h"
#include "vafs-server/store/store.h"

/* A record's header and extension, parsed and verified. */
struct codec_record {
    uint8_t kind, format, encoding;
    uint32_t domain, stored, plain;
    uint64_t position;
    struct store_id id, base; /* 'base' is zero unless a delta. */
    uint32_t n_blocks;
    const uint8_t *table; /* 'n_blocks' entries, in the caller's buffer. */
    size_t head_size;     /* Header and extension. */
    size_t size;          /* The whole record, with padding. */
};

/* What to encode. */
struct codec_input {
    const void *data;
    size_t size;
    uint8_t kind, format;
    uint32_t domain;
    const struct store_id *id;
    int level; /* 0: raw. */
    int delta_level;
    /* The base, plain, or NULL, and how large a delta may be to be used. */
    const struct object *base;
    size_t delta_max;
};

/* Encodes into this thread's buffer; '*ret_data' is valid until this thread's
 * next call here.  Position and header checksum are left to codec_seal(). */
int codec_encode(const struct codec_input *, uint8_t **ret_data,
                 size_t *ret_size, bool *ret_delta) NODISCARD;
void codec_seal(uint8_t *data, uint64_t position, uint64_t salt);

/* Parses the record that begins at 'data'.  EBADMSG: it is none, or damaged.
 * ENODATA: 'size' ends within the head; more is needed. */
int codec_parse(const uint8_t *data, size_t size, uint64_t salt,
                struct codec_record *) NODISCARD;

/* Where block 'index' lies in the payload, and its sizes. */
struct codec_block {
    size_t offset, stored, plain;
    bool raw;
    uint64_t sum;
};
void
codec_block(const struct codec_record *, uint32_t index, struct codec_block *);

/* Checks and unpacks one block of a record that is no delta. */
int codec_unpack_block(const struct codec_block *, const uint8_t *stored,
                       uint8_t *plain) NODISCARD;

/* Checks and unpacks the whole payload.  'base' only for a delta. */
int codec_unpack(const struct codec_record *, const uint8_t *payload,
                 const struct object *base, uint8_t *plain) NODISCARD;

/* Checks the payload's checksums only. */
int codec_check(const struct codec_record *, const uint8_t *payload) NODISCARD;

/* Name of an object. */
int codec_hash(uint8_t kind, uint8_t format, const void *data, size_t size,
               struct store_id *) NODISCARD;

/* XXH3-64. */
uint64_t codec_sum(const void *data, size_t size, uint64_t seed);

/* A buffer of this thread for reading records, at least 'size' bytes, valid
 * until its next call of this function.  NULL: no memory. */
uint8_t *codec_read_buffer(size_t size);

#endif /* vafs-server/store/codec.h */
