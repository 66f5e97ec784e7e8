/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A 9P2000.L client: one connection, used by one thread at a time.
 *
 * Two ways to use it, freely mixed:
 *
 *   - synchronous: ninep_walk(), ninep_read(), ... send one request and wait
 *     for its answer;
 *   - pipelined: ninep_client_send() any number of requests (up to
 *     NINEP_CLIENT_MAX_PENDING), then ninep_client_wait() for each.
 *
 * Functions return 0 or a positive errno: the server's (Rlerror), or of the
 * connection: ECONNRESET (closed by the server), EBADMSG (an answer that makes
 * no sense; the connection is dead then, too).
 *
 * Fids are numbers that the caller may choose, or take from
 * ninep_client_new_fid(). */
#ifndef LIB_NINEP_CLIENT_H
#define LIB_NINEP_CLIENT_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/ninep/codec.h"
#include "lib/util.h"

struct ninep_client;

#define NINEP_CLIENT_MAX_PENDING 256

/* Connects to 'address': "unix:PATH", a PATH with a slash in it, or
 * "tcp:HOST:PORT".  Does not speak yet: see ninep_client_version(). */
int
ninep_client_connect(const char *address, struct ninep_client **ret) NODISCARD;

/* Uses the stream socket (or socket-like) 'fd', which the client then owns,
 * also if this fails. */
int ninep_client_from_fd(int fd, struct ninep_client **ret) NODISCARD;

/* Closes.  What is outstanding is forgotten.  NULL is accepted. */
void ninep_client_close(struct ninep_client *);

/* The connection's descriptor, still owned by the client. */
int ninep_client_fd(const struct ninep_client *);

/* Negotiates 9P2000.L with at most 'msize' (0: NINEP_MSIZE_MAX).
 * EPROTONOSUPPORT: the server does not speak it. */
int ninep_client_version(struct ninep_client *, uint32_t msize) NODISCARD;
uint32_t ninep_client_msize(const struct ninep_client *);

uint32_t ninep_client_new_fid(struct ninep_client *);

/* Gives 'fid' back for ninep_client_new_fid().  Does not clunk. */
void ninep_client_free_fid(struct ninep_client *, uint32_t fid);

/* Sends '*msg', setting its tag, and stores the tag in '*ret_tag'.  May only
 * be buffered until the next wait or flush.  EAGAIN: too many are
 * outstanding. */
int ninep_client_send(struct ninep_client *, struct ninep_msg *msg,
                      uint16_t *ret_tag) NODISCARD;

/* Pushes out what was buffered. */
int ninep_client_push(struct ninep_client *) NODISCARD;

/* Waits for the answer to 'tag'.  '*reply' points into the client's memory,
 * until the next call on this client.  An Rlerror is returned as its errno,
 * an answer of another kind than the request's as EBADMSG. */
int ninep_client_wait(struct ninep_client *, uint16_t tag,
                      struct ninep_msg *reply) NODISCARD;

/* As ninep_client_wait(), but gives up after 'timeout_ms' with ETIMEDOUT; the
 * request stays outstanding. */
int ninep_client_wait_ms(struct ninep_client *, uint16_t tag, int timeout_ms,
                         struct ninep_msg *reply) NODISCARD;

/* Sends '*msg' and waits. */
int ninep_client_call(struct ninep_client *, struct ninep_msg *msg,
                      struct ninep_msg *reply) NODISCARD;

/* Writes 'size' raw bytes, for tests that misbehave. */
int ninep_client_send_raw(struct ninep_client *, const void *,
                          size_t size) NODISCARD;

/* One function per message.  'name' arguments are NUL-terminated; fids are
 * the caller's.  '*ret_qid' may be NULL. */
int ninep_attach(struct ninep_client *, uint32_t fid, const char *uname,
                 const char *aname, uint32_t n_uname,
                 struct ninep_qid *ret_qid) NODISCARD;

/* Walks the 'n' (up to 16) names.  '*ret_n' (may be NULL) is how many were
 * walked.  ENOENT if it is fewer than 'n': 'newfid' does not exist then. */
int ninep_walk(struct ninep_client *, uint32_t fid, uint32_t newfid,
               unsigned int n, const char *const names[], unsigned int *ret_n,
               struct ninep_qid *ret_qids) NODISCARD;

/* Walks a path of any length, "/" or "" for a clone; takes a new fid for it.
 * Symbolic links are not followed. */
int ninep_walk_path(struct ninep_client *, uint32_t fid, const char *path,
                    uint32_t *ret_fid, struct ninep_qid *ret_qid) NODISCARD;

int ninep_clunk(struct ninep_client *, uint32_t fid) NODISCARD;

/* Clunks and frees the number, ignoring errors. */
void ninep_release(struct ninep_client *, uint32_t fid);

int ninep_remove(struct ninep_client *, uint32_t fid) NODISCARD;
int ninep_lopen(struct ninep_client *, uint32_t fid, uint32_t flags,
                struct ninep_qid *ret_qid, uint32_t *ret_iounit) NODISCARD;
int ninep_lcreate(struct ninep_client *, uint32_t fid, const char *name,
                  uint32_t flags, uint32_t mode, uint32_t gid,
                  struct ninep_qid *ret_qid) NODISCARD;
int ninep_symlink(struct ninep_client *, uint32_t dfid, const char *name,
                  const char *target, uint32_t gid,
                  struct ninep_qid *ret_qid) NODISCARD;
int ninep_mknod(struct ninep_client *, uint32_t dfid, const char *name,
                uint32_t mode, uint32_t major, uint32_t minor, uint32_t gid,
                struct ninep_qid *ret_qid) NODISCARD;
int
ninep_mkdir(struct ninep_client *, uint32_t dfid, const char *name,
            uint32_t mode, uint32_t gid, struct ninep_qid *ret_qid) NODISCARD;
int ninep_link(struct ninep_client *, uint32_t dfid, uint32_t fid,
               const char *name) NODISCARD;
int ninep_rename(struct ninep_client *, uint32_t fid, uint32_t dfid,
                 const char *name) NODISCARD;
int
ninep_renameat(struct ninep_client *, uint32_t olddfid, const char *oldname,
               uint32_t newdfid, const char *newname) NODISCARD;
int ninep_unlinkat(struct ninep_client *, uint32_t dfid, const char *name,
                   uint32_t flags) NODISCARD;

/* The target, NUL-terminated and cut at 'size' - 1. */
int ninep_readlink(struct ninep_client *, uint32_t fid, char *buf,
                   size_t size) NODISCARD;
int ninep_getattr(struct ninep_client *, uint32_t fid, uint64_t mask,
                  struct ninep_attr *ret) NODISCARD;
int
ninep_setattr(struct ninep_client *, const struct ninep_setattr *) NODISCARD;
int ninep_statfs(struct ninep_client *, uint32_t fid,
                 struct ninep_statfs *ret) NODISCARD;

/* One Tread or Twrite each; clamped to msize.  '*ret_n' is what was done. */
int ninep_read(struct ninep_client *, uint32_t fid, uint64_t offset, void *buf,
               uint32_t count, uint32_t *ret_n) NODISCARD;
int ninep_write(struct ninep_client *, uint32_t fid, uint64_t offset,
                const void *buf, uint32_t count, uint32_t *ret_n) NODISCARD;

/* As many messages as it takes, several at once.  The read ends at the end
 * of the file. */
int ninep_read_all(struct ninep_client *, uint32_t fid, uint64_t offset,
                   void *buf, size_t size, size_t *ret_n) NODISCARD;
int ninep_write_all(struct ninep_client *, uint32_t fid, uint64_t offset,
                    const void *buf, size_t size) NODISCARD;

/* One Treaddir: '*ret_data' is for ninep_dirent_get() and valid until the
 * next call on this client. */
int ninep_readdir(struct ninep_client *, uint32_t fid, uint64_t cookie,
                  uint32_t count, struct ninep_data *ret_data) NODISCARD;
int ninep_fsync(struct ninep_client *, uint32_t fid, bool datasync) NODISCARD;

/* '*ret_status' is NINEP_LOCK_*. */
int ninep_lock(struct ninep_client *, const struct ninep_lock *,
               uint8_t *ret_status) NODISCARD;
int ninep_getlock(struct ninep_client *, const struct ninep_lock *,
                  struct ninep_lock *ret) NODISCARD;
int ninep_flush(struct ninep_client *, uint16_t oldtag) NODISCARD;

/* The value of attribute 'name', or the list of names if it is "".  ERANGE
 * if it is longer than 'size'; '*ret_size' is right also then. */
int ninep_getxattr(struct ninep_client *, uint32_t fid, const char *name,
                   void *buf, size_t size, size_t *ret_size) NODISCARD;

/* Sets 'name'.  'size' 0 and 'flags' NINEP_XATTR_REPLACE removes it, as Linux
 * asks for it. */
int ninep_setxattr(struct ninep_client *, uint32_t fid, const char *name,
                   const void *value, size_t size, uint32_t flags) NODISCARD;

#endif /* lib/ninep/client.h */
