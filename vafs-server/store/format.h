/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a store looks like on disk, to the byte.  docs/vafs-format.5 says the
 * same in prose.
 *
 * All integers are little-endian.  Bytes called zero are written as zero and
 * refused otherwise where a later meaning could change what is read.  Every
 * structure begins with a magic number and a format byte; a format byte from
 * the future is refused.  Offsets are written out as enums instead of structs
 * so that no compiler's padding is part of the format. */

#ifndef VAFS_STORE_FORMAT_H
#define VAFS_STORE_FORMAT_H 1

#include "lib/util.h"

/* Superblock: file "superblock", two slots.  The valid one with the higher
 * generation counts. */
#define SB_SLOT_SIZE 4096
#define SB_MAGIC UINT64_C(0x31424553464156fe) /* FE "VAFSEB1" */
#define SB_MAJOR 1
#define SB_MINOR 0

/* Feature words.  An unknown bit in INCOMPAT: refuse; in RO_COMPAT: open
 * read-only; in COMPAT: go on. */
#define SB_KNOWN_INCOMPAT 0u
#define SB_KNOWN_RO_COMPAT 0u

enum sb_layout {
    SB_OFS_MAGIC = 0,
    SB_OFS_MAJOR = 8,          /* 16 bits */
    SB_OFS_MINOR = 10,         /* 16 bits */
    SB_OFS_HASH = 12,          /* 8 bits: 1 = SHA-256 */
    SB_OFS_COMPAT = 16,        /* 32 bits */
    SB_OFS_RO_COMPAT = 20,     /* 32 bits */
    SB_OFS_INCOMPAT = 24,      /* 32 bits */
    SB_OFS_RECORD_SIZE = 28,   /* 32 bits */
    SB_OFS_UUID = 32,          /* 16 bytes */
    SB_OFS_GENERATION = 48,    /* of the slot */
    SB_OFS_INCARNATION = 56,   /* of the last writing open */
    SB_OFS_CREATED = 64,       /* ns since 1970 */
    SB_OFS_SEGMENT_SIZE = 72,  /* 32 bits */
    SB_OFS_CHUNK_SIZE = 76,    /* 32 bits, of the journal */
    SB_OFS_TAIL = 80,          /* LSN */
    SB_OFS_TAIL_SEQUENCE = 88, /* of the record at the tail */
    SB_OFS_SECRET = 96,        /* 16 bytes: salts are made from it */
    SB_OFS_TAIL_CRC = 112,     /* 32 bits: CRC of the record before it */
    SB_OFS_ROOT_ID = 128,      /* 32 bytes */
    SB_OFS_ROOT_PACK = 160,    /* where the root's record was */
    SB_OFS_ROOT_OFFSET = 168,  /* 32 bits */
    SB_OFS_ROOT_LENGTH = 172,  /* 32 bits */
    SB_OFS_NEXT_PACK = 176,    /* no pack at or above existed yet */
    SB_OFS_WRITER = 184,       /* 16 bits: this server's part of pack ids */
    SB_OFS_GC_WATERMARK = 192, /* position; the last collection looked below */
    SB_OFS_GC_EPOCH = 200,     /* number of collections */
    SB_OFS_OPAQUE = 512,       /* 512 bytes of the store's user */
    SB_OFS_SUM = 4088,         /* XXH3-64 of bytes 0..4087 */
};

/* Segments: file "seg/PACK", PACK in 16 hexadecimal digits.  A header, then
 * records, each at a multiple of 8, then, once sealed, a footer that ends the
 * file.  An open segment may be followed by zeros. */
#define SEG_HEADER_SIZE 256
#define SEG_MAGIC UINT64_C(0x314745535346415e) /* 5E "AFSSEG1" */
#define SEG_FORMAT 1
#define SEG_SIZE_MAX (64u << 20)
/* Logical position of offset O in the pack with counter C is C << 26 | O. */
#define SEG_POSITION_SHIFT 26
#define PACK_COUNTER_MASK ((UINT64_C(1) << 48) - 1)

enum seg_layout {
    SEG_OFS_MAGIC = 0,
    SEG_OFS_FORMAT = 8,
    SEG_OFS_CLASS = 9,       /* enum store_class */
    SEG_OFS_GENERATION = 10, /* enum segment_generation */
    SEG_OFS_UUID = 16,       /* of the store */
    SEG_OFS_PACK = 32,
    SEG_OFS_BASE = 40, /* position of offset 0 */
    SEG_OFS_CREATED = 56,
    SEG_OFS_SUM = 248, /* XXH3-64 of bytes 0..247 */
};

/* Record.  The salt, XXH3-64 of the superblock's secret with the pack as
 * seed, makes it impossible for the author of the content to forge something
 * that a scan after damage would take for a record.  It is not in the segment,
 * so that a damaged segment header costs nothing. */
#define REC_MAGIC 0x4a424f56u /* "VOBJ" */
#define REC_FORMAT 1
#define REC_HEADER_SIZE 72
#define REC_ALIGN 8

enum rec_encoding {
    REC_RAW = 0,    /* blocks of 16 KiB, as they are */
    REC_BLOCKS = 1, /* blocks of 16 KiB, each zstd or as it is */
    REC_DELTA = 2,  /* one zstd frame with the base's content as prefix */
};

enum rec_flags {
    REC_F_CRYPTO = 1 << 0, /* 64 bytes of cipher, key, nonce, tag; reserved */
};
#define REC_CRYPTO_SIZE 64

enum rec_layout {
    REC_OFS_MAGIC = 0,
    REC_OFS_FORMAT = 4,
    REC_OFS_KIND = 5,
    REC_OFS_OBJECT_FORMAT = 6,
    REC_OFS_ENCODING = 7,
    REC_OFS_DOMAIN = 8,
    REC_OFS_FLAGS = 12,    /* 16 bits */
    REC_OFS_ZERO = 14,     /* 16 bits */
    REC_OFS_STORED = 16,   /* bytes after header and extension */
    REC_OFS_PLAIN = 20,    /* bytes of the object */
    REC_OFS_POSITION = 24, /* logical; compaction keeps it */
    REC_OFS_ID = 32,
    REC_OFS_SUM = 64, /* XXH3-64, seed salt, of bytes 0..63 and extension */
};
/* Extension, in this order: crypto (if flagged), base id of 32 bytes (if
 * delta), one entry for each block (delta: exactly one). */
#define REC_BLOCK_SIZE 16384u
#define REC_ENTRY_SIZE 12
#define REC_ENTRY_RAW 0x80000000u /* in the length: not compressed */
/* Entry: 32-bit stored length and flag, XXH3-64 of the stored block. */

#define REC_BLOCKS_MAX ((1u << 20) / REC_BLOCK_SIZE)
#define REC_EXTENSION_MAX \
    (REC_CRYPTO_SIZE + 32 + REC_BLOCKS_MAX * REC_ENTRY_SIZE)
#define REC_HEAD_MAX (REC_HEADER_SIZE + REC_EXTENSION_MAX)
#define REC_SIZE_MAX ROUND_UP(REC_HEAD_MAX + (1u << 20), REC_ALIGN)

/* Footer: an entry of 40 bytes for each record, then the trailer. */
#define FOOT_ENTRY_SIZE 40 /* id 32, offset 4, length and flags 4 */
#define FOOT_TRAILER_SIZE 64
#define FOOT_MAGIC UINT64_C(0x31544f4f4656415f) /* 5F "AVFOOT1" */
#define FOOT_FORMAT 1

enum foot_layout {
    FOOT_OFS_MAGIC = 0,
    FOOT_OFS_FORMAT = 8,
    FOOT_OFS_PACK = 16,
    FOOT_OFS_END = 24,       /* 32 bits: where records end, entries begin */
    FOOT_OFS_N = 28,         /* 32 bits: entries */
    FOOT_OFS_SUM_TABLE = 32, /* XXH3-64, seed salt, of the entries */
    FOOT_OFS_DEAD = 40,      /* reserved for GC, zero */
    FOOT_OFS_SUM = 56,       /* XXH3-64, seed salt, of bytes 0..55 */
};

/* Length and flags, in footers and in the index. */
#define LOC_LENGTH(X) (((X) &0xffffffu) * REC_ALIGN)
#define LOC_KIND(X) (((X) >> 24) & 15) /* 15: a private kind */
#define LOC_DELTA (1u << 28)
#define LOC_TRANSIENT (1u << 29)

/* Index run: file "idx/NNN", NNN in 16 hexadecimal digits.  A header block,
 * entry blocks, filter blocks, first-key blocks; 4 KiB each. */
#define RUN_BLOCK_SIZE 4096
#define RUN_ENTRY_SIZE 48 /* id 32, pack 8, offset 4, length and flags 4 */
#define RUN_ENTRIES ((RUN_BLOCK_SIZE - 8) / RUN_ENTRY_SIZE)
#define RUN_SUM_OFS 4088 /* XXH3-64 of the block, seed = its number */
#define RUN_FILTER_BITS ((RUN_SUM_OFS / 64) * 512)
#define RUN_FILTER_LINES (RUN_SUM_OFS / 64)
#define RUN_KEYS (RUN_SUM_OFS / 8)
#define RUN_MAGIC UINT64_C(0x314e555253464156) /* "VAFSRUN1" */
#define RUN_FORMAT 1

enum run_layout {
    RUN_OFS_MAGIC = 0,
    RUN_OFS_FORMAT = 8,
    RUN_OFS_TIER = 9,
    RUN_OFS_UUID = 16,
    RUN_OFS_NUMBER = 32,
    RUN_OFS_N = 40,        /* entries */
    RUN_OFS_N_BLOCKS = 48, /* 32 bits each */
    RUN_OFS_N_FILTER = 52,
    RUN_OFS_N_KEYS = 56,
};

/* Manifest: file "idx/manifest": header, runs (oldest first), segments. */
#define MAN_MAGIC UINT64_C(0x314e414d53464156) /* "VAFSMAN1" */
#define MAN_FORMAT 1
#define MAN_HEADER_SIZE 64
#define MAN_RUN_SIZE 16 /* number 8, tier 4, zero 4 */
#define MAN_SEGMENT_SIZE \
    16 /* pack 8, covered 4, class, sealed, generation, zero: 1 */

enum man_layout {
    MAN_OFS_MAGIC = 0,
    MAN_OFS_FORMAT = 8,
    MAN_OFS_UUID = 16,
    MAN_OFS_N_RUNS = 32,     /* 32 bits */
    MAN_OFS_N_SEGMENTS = 36, /* 32 bits */
    MAN_OFS_NEXT_RUN = 40,
    MAN_OFS_SUM = 56, /* XXH3-64 of bytes 0..55, chained over the rest */
};

/* Journal: file "journal", chunks one after the other.  Which part of the LSN
 * space a chunk holds is in its header: LSN = number * chunk size + offset in
 * the chunk. */
#define JCHUNK_HEADER_SIZE 64
#define JCHUNK_MAGIC UINT64_C(0x314b484353464156) /* "VAFSCHK1" */
#define JCHUNK_FORMAT 1

enum jchunk_layout {
    JCHUNK_OFS_MAGIC = 0,
    JCHUNK_OFS_FORMAT = 8,
    JCHUNK_OFS_UUID = 16,
    JCHUNK_OFS_NUMBER = 32,
    JCHUNK_OFS_INCARNATION = 40,
    JCHUNK_OFS_SUM = 56, /* XXH3-64 of bytes 0..55 */
};

#define JREC_MAGIC 0x524a5641u /* "AVJR" */
#define JREC_FORMAT 1
#define JREC_HEADER_SIZE 40
#define JREC_ALIGN 8
#define JREC_PAD                                                \
    0 /* type: the rest of the chunk is unused, and not covered \
       */

enum jrec_layout {
    JREC_OFS_MAGIC = 0,
    JREC_OFS_FORMAT = 4,
    JREC_OFS_TYPE = 5,
    JREC_OFS_FLAGS = 6,  /* 16 bits, zero */
    JREC_OFS_LENGTH = 8, /* of the body, without padding */
    JREC_OFS_CRC = 12,   /* CRC-32C of LSN, header with CRC = 0, body */
    JREC_OFS_PREV = 16,  /* CRC field of the record before, 0 for the first */
    /* 32 bits: how many records before this one were not yet durable when it
     * was written.  A record missing from before these was lost to damage, not
     * to a crash. */
    JREC_OFS_UNSYNCED = 20,
    JREC_OFS_INCARNATION = 24,
    JREC_OFS_SEQUENCE = 32,
};

#endif /* vafs-server/store/format.h */
