/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The journal: a ring of records on disk with group commit.  One for each
 * store, see store_journal().
 *
 * Theory of operation
 * -------------------
 *
 * A record is appended to a buffer in memory and gets a place, its *LSN*:
 * 64-bit, in bytes, only ever growing, also across opens.  An LSN given out
 * here always means "just past that record".  journal_commit(lsn) returns
 * when everything up to 'lsn' is on disk.  The first thread that comes
 * becomes leader: it takes all that was appended so far, writes it with one
 * pwrite and one fdatasync and wakes the others; who comes meanwhile is in
 * the next batch.  There is no timer and no thread.
 *
 * The file consists of chunks.  A chunk has a header that says which part of
 * the LSN space it holds now, so the ring can grow at any time, by a chunk
 * that is written with zeros and synced before it is used.  A record lies in
 * one chunk; the rest of a chunk that is too short is skipped.
 *
 * Each record's CRC-32C covers its LSN, header, body, and the header holds
 * the CRC of the record before it and the incarnation (random for each open).
 * So records of an earlier lap, or of a future that a crash cut off, never
 * continue the chain.  Replay stops at the first record that does not.
 *
 * Space is freed by store_set_root() with a later journal_tail, whole chunks
 * at a time.  Live records are never overwritten: when no chunk is free and
 * the ring may not grow, journal_append() says ENOBUFS, and the caller must
 * checkpoint.  Appends with JOURNAL_URGENT may use a last part of the ring
 * (an eighth, at least one chunk) so that the checkpoint itself can log. */

#ifndef VAFS_STORE_JOURNAL_H
#define VAFS_STORE_JOURNAL_H 1

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct journal;

/* Body of one record.  Split larger changes. */
#define JOURNAL_BODY_MAX(chunk) ((chunk) / 4)

enum journal_flags {
    JOURNAL_URGENT = 1 << 0,
};

struct journal_record {
    uint8_t type;         /* 1..255, the user's */
    uint64_t start;       /* LSN where it begins */
    uint64_t end;         /* LSN just past it */
    uint64_t incarnation; /* of the open that wrote it */
    uint64_t sequence;    /* 1 more than the record before */
    const uint8_t *body;  /* valid during the callback */
    size_t size;
};

/* Calls 'cb' for each record from the tail on, in order, and makes the journal
 * ready for appending behind the last.  To be called once after store_open(),
 * before any append, by one thread.  A nonzero result of 'cb' stops, is
 * returned, and leaves the journal closed for appending.  'cb' may be NULL.
 * '*ret_n' (may be NULL) becomes the number of records.  EBADMSG: a record
 * that had been durable is damaged (a later one proves it), all before it have
 * been delivered; see STORE_ACCEPT_DAMAGE.  Damage of the last batch that was
 * committed looks like a crash before that commit and is not noticed. */
int
journal_replay(struct journal *,
               int (*cb)(void *aux, const struct journal_record *), void *aux,
               uint64_t *ret_n) __attribute__((warn_unused_result));

/* The largest body that journal_append() takes: a quarter of a chunk, so 1 MiB
 * by default. */
size_t journal_body_max(const struct journal *);

/* Appends a record of 'type' (1..255), whose body is the concatenation of
 * 'iov', in memory only.  '*ret_lsn' becomes the place just past it.  ENOBUFS:
 * the ring is full, checkpoint and come back; EMSGSIZE: body too large; EIO:
 * the store is broken; EROFS; EINVAL: not replayed yet. */
int journal_append(struct journal *, uint8_t type, const struct iovec *iov,
                   int n_iov, unsigned flags, uint64_t *ret_lsn)
    __attribute__((warn_unused_result));

/* Waits until everything up to 'lsn' (from journal_append()) is durable.  EIO:
 * the store is broken and it may not be. */
int journal_commit(struct journal *, uint64_t lsn)
    __attribute__((warn_unused_result));

/* Where replay would begin; the place past the newest record; the place up to
 * which all is durable. */
uint64_t journal_tail(struct journal *);
uint64_t journal_head(struct journal *);
uint64_t journal_durable(struct journal *);

/* Bytes between tail and head, and how many there may be before ordinary
 * appends get ENOBUFS: for back-pressure long before that. */
void journal_usage(struct journal *, uint64_t *ret_used, uint64_t *ret_limit);

#endif /* vafs-server/store/journal.h */
