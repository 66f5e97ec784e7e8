/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Byte-range locks between sessions, with POSIX meaning.
 *
 * An owner is (session, client_id, proc_id): Linux sends its host name as
 * client_id, and two guests of one name must not share locks.  Locks of one
 * owner replace and split each other; locks of different owners conflict if
 * they overlap and one of them is for writing.  A request that may block is
 * parked without a thread until it is granted, cancelled or would close a
 * cycle of waiting owners (EDEADLK).
 *
 * Everything here is for the loop's thread. */
#ifndef VAFS_NINEP_LOCK_H
#define VAFS_NINEP_LOCK_H 1

#include <stdint.h>

#include "lib/list.h"
#include "lib/ninep/codec.h"
#include "lib/util.h"

struct lock_table;

/* Which file: (branch, inode). */
struct lock_key {
    uint64_t branch;
    uint64_t ino;
};

/* Longest client_id: a host name, in Linux. */
#define LOCK_CLIENT_MAX 64

/* How many locks a session has, so that no session can take all that there
 * are from others.  Zeroed at first, and then this module's. */
struct lock_quota {
    unsigned int n;
};

/* Who: 'session' and 'fid' are only compared.  'client_id' is copied.  'quota'
 * (or NULL) lives until the session's locks are released. */
struct lock_owner {
    const void *session;
    struct lock_quota *quota;
    struct ninep_str client_id;
    uint32_t proc_id;
};

struct lock_range {
    uint8_t type;        /* NINEP_LOCK_{RDLCK,WRLCK,UNLCK}. */
    uint64_t start, end; /* 'end' is the last byte; UINT64_MAX: no end. */
};

/* A parked request: what is called when it is granted (0) or fails. */
typedef void lock_cb(int error, void *aux);
struct lock_waiter;

int lock_table_create(struct lock_table **ret) NODISCARD;
void lock_table_destroy(struct lock_table *);

/* Makes a range from the wire's form.  EINVAL, EOVERFLOW. */
int lock_range_init(struct lock_range *, uint8_t type, uint64_t start,
                    uint64_t length) NODISCARD;

/* Locks or unlocks.  Returns 0; EAGAIN if another owner's lock is in the way;
 * ENOLCK; ENOMEM.
 *
 * With 'cb', a request that conflicts is parked instead: EINPROGRESS and the
 * waiter in '*ret_waiter', valid until 'cb' was called or lock_cancel().
 * EDEADLK: waiting would never end.
 *
 * 'fid' is remembered with the lock for lock_release_fid(). */
int
lock_set(struct lock_table *, const struct lock_key *,
         const struct lock_owner *, const struct lock_range *, const void *fid,
         lock_cb *cb, void *aux, struct lock_waiter **ret_waiter) NODISCARD;

/* Takes a parked request away, without calling its 'cb'. */
void lock_cancel(struct lock_table *, struct lock_waiter *);

/* The first lock that would conflict with 'range' of 'owner': true, its range
 * and owner ('client_id' points into the table). */
bool lock_test(struct lock_table *, const struct lock_key *,
               const struct lock_owner *, const struct lock_range *range,
               struct lock_range *ret_range, struct lock_owner *ret_owner);

/* Frees the locks that were taken through 'fid' on 'key'.  Granting those who
 * waited may call their 'cb's. */
void lock_release_fid(struct lock_table *, const struct lock_key *,
                      const void *fid);

/* Frees all locks of 'session' and drops what it has parked. */
void lock_release_session(struct lock_table *, const void *session);

/* Numbers for statistics. */
unsigned int lock_count(const struct lock_table *);
unsigned int lock_count_waiters(const struct lock_table *);

#endif /* vafs-server/ninep/lock.h */
