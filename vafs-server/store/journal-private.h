/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What store.c uses of the journal beyond journal.h. */

#ifndef VAFS_STORE_JOURNAL_PRIVATE_H
#define VAFS_STORE_JOURNAL_PRIVATE_H 1

#include "vafs-server/store/file.h"
#include "vafs-server/store/health.h"
#include "vafs-server/store/journal.h"
#include "vafs-server/store/superblock.h"

/* LSN of the first record of a new store. */
#define JOURNAL_FIRST_LSN JCHUNK_HEADER_SIZE

int
journal_create(struct file_layer *, struct health *, const struct superblock *,
               uint64_t max, bool read_only, struct journal **) NODISCARD;
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

#endif /* vafs-server/store/journal-private.h */
