/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A request's life: decode, prepare, execute here or on the pool, answer
 * (theory of operation in session.h). */

#include <errno.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "lib/vlog.h"
#include "vafs-server/branch/file.h"
#include "vafs-server/ninep/session.h"

COVERAGE_DEFINE(ninep_request);
COVERAGE_DEFINE(ninep_error);
COVERAGE_DEFINE(ninep_bad_message);
COVERAGE_DEFINE(ninep_unknown_type);
COVERAGE_DEFINE(ninep_bad_name);
COVERAGE_DEFINE(ninep_no_version);
COVERAGE_DEFINE(ninep_on_pool);
COVERAGE_DEFINE(ninep_would_wait);
COVERAGE_DEFINE(ninep_flush_cancelled);

/* Requests kept for reuse. */
#define MAX_FREE 64

static struct request *
request_new(struct session *s)
{
    struct server *server = s->server;
    struct request *req;

    if (!list_is_empty(&server->free_requests)) {
        req = CONTAINER_OF(list_pop_front(&server->free_requests),
                           struct request, link);
        server->n_free_requests--;
    } else {
        req = malloc(sizeof *req);
        if (!req) {
            return NULL;
        }
    }
    /* Not 't' and 'r', which are large and written before they are read. */
    memset(req, 0, offsetof(struct request, t));
    memset((char *) req + offsetof(struct request, out), 0,
           sizeof *req - offsetof(struct request, out));
    list_init(&req->link);
    list_init(&req->flushes);
    req->session = s;
    return req;
}

static void
unlist(struct request *req)
{
    if (req->is_listed) {
        list_remove(&req->link);
        req->is_listed = false;
    }
}

/* Frees 'req' and whatever it still holds; no answer is sent. */
void
request_free(struct request *req)
{
    struct session *s = req->session;
    struct server *server = s->server;

    unlist(req);
    while (!list_is_empty(&req->flushes)) {
        request_free(
            CONTAINER_OF(list_front(&req->flushes), struct request, link));
    }
    list_remove(&req->link); /* From another's 'flushes'. */
    fid_unref(req->fid);
    fid_unref(req->fid2);
    file_unref(req->file);
    mount_unref(req->mount);
    free(req->xattr);
    if (req->owns_out) {
        session_account(s, -(ssize_t) req->out_capacity);
        free(req->out);
    }
    if (req->buf) {
        session_account(s, -(ssize_t) req->buf_size);
        free(req->buf);
    }
    if (server->n_free_requests < MAX_FREE) {
        list_push_front(&server->free_requests, &req->link);
        server->n_free_requests++;
    } else {
        free(req);
    }
}

/* Frees the requests that are kept for reuse. */
void
request_trim(struct server *server)
{
    while (!list_is_empty(&server->free_requests)) {
        free(CONTAINER_OF(list_pop_front(&server->free_requests),
                          struct request, link));
    }
    server->n_free_requests = 0;
}

/* The most that the answer to 'req' can need. */
static size_t
reply_bound(const struct request *req)
{
    switch (req->t.type) {
    case NINEP_TREAD:
    case NINEP_TREADDIR:
        return NINEP_IO_HEADER_SIZE + (size_t) req->count;
    default:
        return SMALL_REPLY_SIZE;
    }
}

/* Answers 'req' with 'error' or 'req->r', and frees it. */
void
request_complete(struct request *req, int error)
{
    struct session *s = req->session;
    struct server *server = s->server;
    uint8_t small[64];
    size_t size = 0;

    if (!error && req->op && req->op->finish) {
        error = req->op->finish(req);
    }
    if (error) {
        COVERAGE_INC(ninep_error);
        req->r.type = NINEP_RLERROR;
        req->r.rlerror.ecode = error;
    } else {
        req->r.type = req->t.type + 1;
    }
    req->r.tag = req->t.tag;
    if (!req->out) {
        req->out = small;
        req->out_capacity = sizeof small;
    }
    if (ninep_encode(&req->r, req->out, req->out_capacity, &size)) {
        /* reply_bound() is wrong.  An answer there must be. */
        vlog_err("%s: the answer to %s does not fit", s->name,
                 ninep_type_name(req->t.type));
        req->r.type = NINEP_RLERROR;
        req->r.rlerror.ecode = EIO;
        if (ninep_encode(&req->r, req->out, req->out_capacity, &size)) {
            session_kill(s, "an answer does not fit");
        }
    }
    if (req->out == server->out + server->out_size) {
        server->out_size += size;
    } else {
        session_send(s, req->out, size);
    }
    s->n_done++;
    server->n_requests++;
    unlist(req);
    while (!list_is_empty(&req->flushes)) {
        struct request *flush =
            CONTAINER_OF(list_pop_front(&req->flushes), struct request, link);

        flush->op = NULL;
        request_complete(flush, 0);
    }
    request_free(req);
}

/* The pool. */

static void
run_on_pool(struct pool_job *job)
{
    struct request *req = CONTAINER_OF(job, struct request, job);

    req->error = req->op->exec(req);
}

static void
pool_done(struct pool_job *job)
{
    struct request *req = CONTAINER_OF(job, struct request, job);
    struct session *s = req->session;
    struct server *server = s->server;

    s->n_on_pool--;
    req->is_on_pool = false;
    if (req->is_aborted) {
        request_free(req);
    } else {
        request_complete(req, req->error);
    }
    if (s->state == SESSION_RESET && !s->n_on_pool) {
        session_finish_reset(s);
    }
    if (s->state == SESSION_CLOSED) {
        if (!s->n_on_pool) {
            session_free(s);
        }
    } else {
        session_update(s);
    }
    session_reap(server);
}

/* Gives 'req' memory of its own: 'owned' if that is not NULL, else a copy of
 * the message. */
static int
own_message(struct request *req, const uint8_t *buf, size_t size,
            uint8_t *owned)
{
    if (!owned) {
        owned = malloc(size);
        if (!owned) {
            return ENOMEM;
        }
        memcpy(owned, buf, size);
    }
    req->buf = owned;
    req->buf_size = size;
    session_account(req->session, size);
    /* The strings in 't' point to the old place. */
    return ninep_decode(req->buf, size, &req->t, NULL);
}

/* Moves 'req' to the pool.  On failure it can be executed here instead. */
static int
to_pool(struct request *req, const uint8_t *buf, size_t size, uint8_t **owned)
{
    struct session *s = req->session;
    size_t bound = reply_bound(req);
    uint8_t *out = malloc(bound);
    int error;

    if (!out) {
        return ENOMEM;
    }
    error = own_message(req, buf, size, *owned);
    if (error) {
        free(out);
        return error;
    }
    *owned = NULL;
    req->out = out;
    req->out_capacity = bound;
    req->owns_out = true;
    session_account(s, bound);
    req->job.run = run_on_pool;
    req->job.done = pool_done;
    list_init(&req->job.link);
    error = pool_submit(s->server->pool, &req->job);
    if (error) {
        return error; /* It keeps its buffers, which do no harm. */
    }
    COVERAGE_INC(ninep_on_pool);
    req->is_on_pool = true;
    req->is_listed = true;
    list_push_back(&s->requests, &req->link);
    s->n_on_pool++;
    return 0;
}

/* Points 'req->out' into the scratch buffer, emptied first if need be. */
static void
use_scratch(struct request *req)
{
    struct session *s = req->session;
    struct server *server = s->server;
    size_t bound = reply_bound(req);

    if (SCRATCH_OUT_SIZE - server->out_size < bound) {
        size_t size = server->out_size;

        server->out_size = 0;
        session_send(s, server->out, size);
    }
    req->out = server->out + server->out_size;
    req->out_capacity = bound;
}

static void
execute(struct request *req, const uint8_t *buf, size_t size, uint8_t **owned)
{
    const struct op *op = req->op;
    int error = 0;

    if (op->prepare) {
        error = op->prepare(req);
        if (error == EINPROGRESS) {
            return;
        }
    }
    if (!error && op->exec) {
        if (op->is_slow && op->is_slow(req) &&
            !to_pool(req, buf, size, owned)) {
            return;
        }
        if (!req->out) {
            use_scratch(req);
        }
        file_set_nowait(true);
        error = op->exec(req);
        file_set_nowait(false);
        if (error == EAGAIN) {
            COVERAGE_INC(ninep_would_wait);
            if (!req->owns_out) { /* Else the pool is out of order. */
                req->out = NULL;
                if (!to_pool(req, buf, size, owned)) {
                    return;
                }
                if (!req->out) {
                    use_scratch(req);
                }
            }
            error = op->exec(req);
        }
    }
    if (!req->out) {
        use_scratch(req);
    }
    request_complete(req, error);
}

static int
explain(struct session *s, const struct ninep_msg *msg, int error,
        const char *reason)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(10, 5);

    switch (error) {
    case EOPNOTSUPP:
        COVERAGE_INC(ninep_unknown_type);
        break;
    case EINVAL:
    case ENAMETOOLONG:
        /* Programs in the guest can cause these through its kernel only in
         * part; they are not worth a line each. */
        COVERAGE_INC(ninep_bad_name);
        return error;
    default:
        COVERAGE_INC(ninep_bad_message);
        error = EINVAL;
        break;
    }
    vlog_warn_rl(&rl, "%s: bad message of type %u: %s", s->name, msg->type,
                 reason);
    return error;
}

/* Executes the message of 'size' bytes at 'buf'.  'owned' is NULL or equal to
 * 'buf', which is then the callee's to free. */
void
request_dispatch(struct session *s, const uint8_t *buf, size_t size,
                 uint8_t *owned)
{
    struct request *req = request_new(s);
    const char *reason = NULL;
    int error;

    if (!req) {
        session_kill(s, "out of memory for a request");
        free(owned);
        return;
    }
    COVERAGE_INC(ninep_request);
    error = ninep_decode(buf, size, &req->t, &reason);
    if (!error) {
        req->op = ops_find(req->t.type);
        if (!req->op) {
            error = EOPNOTSUPP;
            reason = "the message is an answer, not a request";
        }
    }
    if (error) {
        error = explain(s, &req->t, error, reason);
    } else if (s->state == SESSION_NEW && req->t.type != NINEP_TVERSION) {
        COVERAGE_INC(ninep_no_version);
        error = EPROTO;
    }
    if (error) {
        use_scratch(req);
        req->op = NULL;
        request_complete(req, error);
    } else {
        execute(req, buf, size, &owned);
    }
    free(owned);
}

/* The outstanding request with 'tag', or NULL. */
struct request *
request_find(struct session *s, uint16_t tag)
{
    struct request *req;

    LIST_FOR_EACH (req, link, &s->requests) {
        if (req->t.tag == tag && !req->is_aborted) {
            return req;
        }
    }
    return NULL;
}

/* Ends the requests that wait for a lock through 'fid', which is going. */
void
request_drop_parked(struct session *s, const struct fid *fid)
{
    struct request *req, *next;

    LIST_FOR_EACH_SAFE (req, next, link, &s->requests) {
        if (req->waiter && req->fid == fid) {
            lock_cancel(s->server->locks, req->waiter);
            req->waiter = NULL;
            s->n_parked--;
            request_complete(req, EBADF);
        }
    }
}
