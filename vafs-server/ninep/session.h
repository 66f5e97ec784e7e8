/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the 9P server share: server, session, request.  Nobody
 * outside vafs-server/ninep includes this; see server.h.
 *
 * Theory of operation
 * ===================
 *
 * One thread, the loop's, owns all protocol state: sessions, fids, locks,
 * outstanding requests.  A request is an object with three steps:
 *
 *   prepare   on the loop: find the fids, check what is asked
 *   exec      anywhere: the calls into vafs-server/branch, nothing else
 *   finish    on the loop: change fids
 *
 * exec normally runs on the loop, too: a wake-up of another thread costs more
 * than most operations.  There it may not wait: file_set_nowait() makes
 * whatever would (a cold read, a full dirty budget) fail with EAGAIN before
 * it has changed anything, and exec is called again on the pool.  What is
 * known to wait (fsync, synchronous writes) or to be long (bulk data) goes to
 * the pool at once, and the session goes on with its
 * next requests meanwhile; 9P lets answers come in any order.  Three things
 * are in order: Rflush comes after the answer to what it flushes, Rversion
 * after everything from before it has ended, and a request is begun after
 * those that came before it.
 *
 * Bytes.  All sessions read into one scratch buffer of the server; whole
 * messages are decoded and executed where they lie there.  What is left of a
 * message that has not come whole goes to a buffer of its own size.  Answers
 * are encoded into one scratch buffer and written with one call when the
 * batch is done; what the socket does not take goes to the session's queue.
 * So an idle session has no buffers.
 *
 * Limits.  A session whose peer does not read, that has many requests on the
 * pool, or that uses memory while the server has used up its budget, is not
 * read from until that has changed (session_is_paused()).  A session that
 * holds no memory may always go on, so that the budget cannot deadlock.
 *
 * Trust.  Everything after the hello on the guest socket, and everything on
 * the plain socket, is untrusted.  A message whose size field is impossible
 * ends the session, since the stream cannot be read on; any other bad message
 * is answered with Rlerror. */
#ifndef VAFS_NINEP_SESSION_H
#define VAFS_NINEP_SESSION_H 1

#include <sys/types.h>

#include "lib/guest-hello.h"
#include "lib/list.h"
#include "lib/ninep/codec.h"
#include "lib/util.h"
#include "vafs-server/ninep/fid.h"
#include "vafs-server/ninep/lock.h"
#include "vafs-server/ninep/pool.h"
#include "vafs-server/view/view.h"

/* One read from a socket takes at most this much. */
#define SCRATCH_IN_SIZE (256 * 1024)
/* Holds at least one answer of the largest msize. */
#define SCRATCH_OUT_SIZE (NINEP_MSIZE_MAX + 256 * 1024)
/* Requests of one session that may be on the pool at a time. */
#define MAX_ON_POOL 64
/* Requests of one session that may wait for locks. */
#define MAX_PARKED 1024
/* Data messages larger than this are executed on the pool. */
#define INLINE_DATA_MAX (128 * 1024)
/* Room for the answer to anything that carries no data: the longest is
 * Rreadlink. */
#define SMALL_REPLY_SIZE (NINEP_HEADER_SIZE + 2 + 4096)

struct server {
    struct loop *loop;
    struct view *view;
    struct pool *pool;
    struct lock_table *locks;
    struct list sessions;
    struct list listeners;
    struct list free_requests;
    unsigned int n_free_requests;
    unsigned int n_sessions, max_sessions;
    uint64_t next_session_id;
    uint8_t *in;  /* SCRATCH_IN_SIZE bytes. */
    uint8_t *out; /* SCRATCH_OUT_SIZE bytes, 'out_size' of them used. */
    size_t out_size;
    size_t n_bytes, max_bytes; /* In buffers of all sessions. */
    uint64_t n_requests;       /* Since the start. */
    bool has_dead;             /* A session is to be closed. */
};

enum session_state {
    SESSION_HELLO,  /* Guest socket: the hello has not come whole. */
    SESSION_NEW,    /* No Tversion yet: anything else is refused. */
    SESSION_READY,  /* 'msize' is agreed. */
    SESSION_RESET,  /* 'version_req' waits until the pool is done with us;
                     * nothing is read. */
    SESSION_CLOSED, /* Descriptor closed; freed when the pool is done.
                     * Terminal. */
};

struct session {
    struct list link; /* In server->sessions. */
    struct server *server;
    uint64_t id;
    enum session_state state;
    int fd;
    struct loop_fd *loop_fd;
    bool is_guest;
    bool is_dead; /* To be closed as soon as nobody is using it. */
    const char *why_dead;
    uid_t peer_uid; /* Plain sessions. */
    struct guest_hello hello;
    struct view_name bound; /* Guests: what attaches are narrowed to. */
    char name[64];          /* For log lines. */
    uint32_t msize;
    struct fid_table fids;
    struct lock_quota locks;

    struct list requests; /* On the pool or parked. */
    unsigned int n_on_pool, n_parked;

    /* Input.  'head' holds less than a header; 'partial' a message of
     * 'partial_size' bytes of which 'partial_have' are there; 'backlog' bytes
     * that came but may not be looked at yet. */
    uint8_t head[NINEP_HEADER_SIZE];
    size_t head_have;
    uint8_t *partial;
    size_t partial_size, partial_have;
    uint8_t *backlog;
    size_t backlog_size;
    struct request *version_req; /* In SESSION_RESET. */

    /* Output that the socket did not take: [queue_start, queue_end). */
    uint8_t *queue;
    size_t queue_start, queue_end, queue_capacity;

    /* In 'queue' and in requests on the pool: what goes away by itself, so
     * that waiting for less of it makes sense.  'partial' and 'backlog' are
     * bounded by their sizes. */
    size_t n_bytes;
    uint64_t n_done, bytes_in, bytes_out;
};

struct request;

/* What is known of a message type. */
struct op {
    /* Any of them may be NULL.  EINPROGRESS from 'prepare': parked. */
    int (*prepare)(struct request *);
    int (*exec)(struct request *);
    int (*finish)(struct request *);
    /* Whether 'exec' is for the pool. */
    bool (*is_slow)(const struct request *);
};

struct request {
    struct pool_job job;
    struct list link; /* In session->requests or server->free_requests. */
    struct session *session;
    const struct op *op;
    uint8_t *buf; /* The message, if it is the request's own. */
    size_t buf_size;
    struct ninep_msg t, r;

    /* The answer is encoded to 'out', data of reads goes there at once. */
    uint8_t *out;
    size_t out_capacity;
    bool owns_out;

    bool is_listed; /* In session->requests. */
    bool is_on_pool;
    bool is_aborted;     /* No answer is wanted any more. */
    int error;           /* Of 'exec' on the pool. */
    struct list flushes; /* Tflush requests that wait for this one. */
    struct lock_waiter *waiter;

    /* Set by 'prepare'. */
    struct fid *fid, *fid2; /* References. */
    uint32_t flags;
    uint32_t count;
    struct lock_key lock_key;

    /* Set by 'exec', consumed by 'finish' or dropped. */
    struct file *file;
    struct mount *mount;
    char *xattr;
    size_t xattr_size;
};

/* session.c */
int session_create(struct server *, int fd, bool is_guest) NODISCARD;
void session_abort_all(struct session *);
void session_kill(struct session *, const char *why);
void session_reap(struct server *);
void session_send(struct session *, const void *, size_t size);
void session_close(struct session *);
bool session_is_paused(const struct session *);
void session_update(struct session *);
void session_account(struct session *, ssize_t n);
void session_finish_reset(struct session *);
void session_free(struct session *);

/* request.c */
void request_dispatch(struct session *, const uint8_t *buf, size_t size,
                      uint8_t *owned);
void request_complete(struct request *, int error);
void request_free(struct request *);
void request_drop_parked(struct session *, const struct fid *fid);
struct request *request_find(struct session *, uint16_t tag);
void request_trim(struct server *);

/* ops-*.c.  NULL: the type is unknown, or no request. */
const struct op *ops_find(uint8_t type);
extern const struct op ops_tree[128], ops_io[128], ops_session[128];
int ops_get_fid(struct request *, uint32_t number, struct fid **ret) NODISCARD;
int ops_clunk(struct session *, struct fid *fid);

#endif /* vafs-server/ninep/session.h */
