/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sessions of the 9P server: reading, framing, writing, ending (theory of
 * operation in session.h). */

#include "vafs-server/ninep/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/coverage.h"
#include "lib/loop.h"
#include "lib/vlog.h"
#include "vafs-server/branch/branch.h"

COVERAGE_DEFINE(ninep_bad_size);
COVERAGE_DEFINE(ninep_bad_hello);
COVERAGE_DEFINE(ninep_short_send);
COVERAGE_DEFINE(ninep_paused);
COVERAGE_DEFINE(ninep_session_open);
COVERAGE_DEFINE(ninep_session_close);

static struct vlog_rate_limit session_rl = VLOG_RATE_LIMIT_INIT(30, 20);

/* Adds 'n' (or takes away, if negative) to what the session holds. */
void
session_account(struct session *s, ssize_t n)
{
    s->n_bytes += n;
    s->server->n_bytes += n;
}

/* Whether nothing may be read or begun for now. */
bool
session_is_paused(const struct session *s)
{
    size_t queued = s->queue_end - s->queue_start;

    return s->state == SESSION_RESET || s->n_on_pool >= MAX_ON_POOL ||
           queued > (size_t) s->msize + 65536 ||
           (s->n_bytes && s->server->n_bytes > s->server->max_bytes);
}

/* Marks the session to be closed, for the given reason (a constant string),
 * when whoever is using it has returned to the loop. */
void
session_kill(struct session *s, const char *why)
{
    if (!s->is_dead) {
        s->is_dead = true;
        s->why_dead = why;
        s->server->has_dead = true;
    }
}

/* Closes the sessions that are marked. */
void
session_reap(struct server *server)
{
    while (server->has_dead) {
        struct session *s, *next;

        server->has_dead = false;
        LIST_FOR_EACH_SAFE (s, next, link, &server->sessions) {
            if (s->is_dead && s->state != SESSION_CLOSED) {
                session_close(s);
            }
        }
    }
}

/* Output. */

static void
enqueue(struct session *s, const uint8_t *p, size_t size)
{
    size_t have = s->queue_end - s->queue_start;

    if (s->queue_capacity - s->queue_end < size) {
        size_t capacity = MAX(ROUND_UP(have + size, 65536), 65536);
        uint8_t *queue = malloc(capacity);

        if (!queue) {
            session_kill(s, "out of memory for answers");
            return;
        }
        if (have) {
            memcpy(queue, s->queue + s->queue_start, have);
        }
        session_account(s, (ssize_t) capacity - (ssize_t) s->queue_capacity);
        free(s->queue);
        s->queue = queue;
        s->queue_capacity = capacity;
        s->queue_start = 0;
        s->queue_end = have;
    }
    memcpy(s->queue + s->queue_end, p, size);
    s->queue_end += size;
}

/* Sends 'size' bytes, whole answers, or queues what the socket does not
 * take. */
void
session_send(struct session *s, const void *p_, size_t size)
{
    const uint8_t *p = p_;

    if (!size || s->is_dead || s->state == SESSION_CLOSED) {
        return;
    }
    s->bytes_out += size;
    if (s->queue_start == s->queue_end) {
        ssize_t n;

        do {
            n = send(s->fd, p, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        } while (n < 0 && errno == EINTR);
        if (n < 0 && errno != EAGAIN) {
            session_kill(s, "the peer is gone");
            return;
        }
        n = MAX(n, 0);
        p += n;
        size -= n;
    }
    if (size) {
        COVERAGE_INC(ninep_short_send);
        enqueue(s, p, size);
        if (s->loop_fd) {
            loop_mod_fd(s->server->loop, s->loop_fd,
                        (session_is_paused(s) || s->backlog ? 0 : EPOLLIN) |
                            EPOLLOUT);
        }
    }
}

static void
free_queue(struct session *s)
{
    session_account(s, -(ssize_t) s->queue_capacity);
    free(s->queue);
    s->queue = NULL;
    s->queue_start = s->queue_end = s->queue_capacity = 0;
}

static void
session_writable(struct session *s)
{
    while (s->queue_start < s->queue_end) {
        ssize_t n =
            send(s->fd, s->queue + s->queue_start,
                 s->queue_end - s->queue_start, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n > 0) {
            s->queue_start += n;
        } else if (n < 0 && errno == EAGAIN) {
            return;
        } else if (n < 0 && errno != EINTR) {
            session_kill(s, "the peer is gone");
            return;
        }
    }
    free_queue(s);
}

/* Input. */

/* Keeps the beginning of a message that has not come whole. */
static void
keep_partial(struct session *s, const uint8_t *p, size_t n)
{
    if (n < NINEP_HEADER_SIZE) {
        memcpy(s->head, p, n);
        s->head_have = n;
        return;
    }
    s->partial_size = ninep_peek_size(p);
    s->partial = malloc(s->partial_size);
    if (!s->partial) {
        session_kill(s, "out of memory for a message");
        return;
    }
    memcpy(s->partial, p, n);
    s->partial_have = n;
}

static void
keep_backlog(struct session *s, const uint8_t *p, size_t n)
{
    COVERAGE_INC(ninep_paused);
    s->backlog = malloc(n);
    if (!s->backlog) {
        session_kill(s, "out of memory for requests");
        return;
    }
    memcpy(s->backlog, p, n);
    s->backlog_size = n;
}

/* Executes what is whole of the 'n' bytes at 'p', keeps the rest. */
static void
process(struct session *s, const uint8_t *p, size_t n)
{
    while (n && !s->is_dead) {
        uint32_t size;

        if (session_is_paused(s)) {
            keep_backlog(s, p, n);
            return;
        }
        if (n < NINEP_HEADER_SIZE) {
            keep_partial(s, p, n);
            return;
        }
        size = ninep_peek_size(p);
        if (size < NINEP_HEADER_SIZE || size > s->msize) {
            COVERAGE_INC(ninep_bad_size);
            session_kill(s, size < NINEP_HEADER_SIZE
                                ? "a message's size is less than its header"
                                : "a message is larger than msize");
            return;
        }
        if (n < size) {
            keep_partial(s, p, n);
            return;
        }
        request_dispatch(s, p, size, NULL);
        p += size;
        n -= size;
    }
}

/* Sends the answers of a batch. */
static void
send_batch(struct session *s)
{
    struct server *server = s->server;
    size_t size = server->out_size;

    server->out_size = 0;
    session_send(s, server->out, size);
}

/* Reads once.  Returns the bytes, 0 if there are none; kills at the end. */
static size_t
receive(struct session *s, struct iovec *iov, int n_iov)
{
    ssize_t n;

    do {
        n = readv(s->fd, iov, n_iov);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        return 0;
    }
    if (n <= 0) {
        session_kill(s, n ? "the connection failed" : "the peer closed");
        return 0;
    }
    s->bytes_in += n;
    return n;
}

/* Reads into the rest of 's->partial' and on into the scratch buffer. */
static void
session_readable(struct session *s)
{
    struct server *server = s->server;
    size_t rest = s->partial ? s->partial_size - s->partial_have : 0;
    struct iovec iov[2] = {
        {s->partial ? s->partial + s->partial_have : NULL, rest},
        {server->in + s->head_have, SCRATCH_IN_SIZE - s->head_have},
    };
    size_t n;

    n = receive(s, rest ? iov : iov + 1, rest ? 2 : 1);
    if (!n) {
        return;
    }
    if (rest) {
        size_t k = MIN(n, rest);

        s->partial_have += k;
        n -= k;
        if (k == rest) {
            uint8_t *buf = s->partial;

            s->partial = NULL;
            request_dispatch(s, buf, s->partial_size, buf);
        }
    } else {
        memcpy(server->in, s->head, s->head_have);
        n += s->head_have;
        s->head_have = 0;
    }
    process(s, server->in, n);
    send_batch(s);
}

/* Takes up what was put aside, and tells epoll what to wait for. */
void
session_update(struct session *s)
{
    if (s->is_dead || s->state == SESSION_CLOSED) {
        return;
    }
    if (s->backlog && !session_is_paused(s)) {
        uint8_t *backlog = s->backlog;

        s->backlog = NULL;
        process(s, backlog, s->backlog_size);
        free(backlog);
        send_batch(s);
    }
    if (!s->is_dead) {
        loop_mod_fd(s->server->loop, s->loop_fd,
                    (session_is_paused(s) || s->backlog ? 0 : EPOLLIN) |
                        (s->queue_start < s->queue_end ? EPOLLOUT : 0));
    }
}

/* The hello. */

static void
accept_hello(struct session *s)
{
    const char *reason = guest_hello_validate(&s->hello);

    if (!reason && view_name_parse(s->hello.attach, strlen(s->hello.attach),
                                   &s->bound, &reason)) {
        /* 'reason' says what is wrong with it. */
    } else if (!reason) {
        snprintf(s->name, sizeof s->name, "session %llu (domain %u)",
                 (unsigned long long) s->id, guest_hello_domid(&s->hello));
        s->state = SESSION_NEW;
        vlog_info_rl(&session_rl, "%s: guest session, bound to \"%s\"",
                     s->name, s->hello.attach);
        return;
    }
    COVERAGE_INC(ninep_bad_hello);
    session_kill(s, reason);
}

static void
read_hello(struct session *s)
{
    struct iovec iov = {(char *) &s->hello + s->head_have,
                        sizeof s->hello - s->head_have};
    size_t n = receive(s, &iov, 1);

    s->head_have += n;
    if (s->head_have == sizeof s->hello) {
        s->head_have = 0;
        accept_hello(s);
    }
}

static void
session_cb(uint32_t events, void *s_)
{
    struct session *s = s_;
    struct server *server = s->server;

    if (events & EPOLLOUT) {
        session_writable(s);
    }
    /* Never past a backlog, which came first.  session_update() takes that up.
     */
    if (events & EPOLLIN && !s->is_dead && !session_is_paused(s) &&
        !s->backlog) {
        if (s->state == SESSION_HELLO) {
            read_hello(s);
        } else {
            session_readable(s);
        }
    } else if (events & (EPOLLERR | EPOLLHUP)) {
        session_kill(s, "the peer closed");
    }
    session_update(s);
    session_reap(server);
}

/* Birth and death. */

static void
name_plain(struct session *s)
{
    struct ucred cred;
    socklen_t len = sizeof cred;

    s->peer_uid = (uid_t) -1;
    if (!getsockopt(s->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) &&
        cred.pid > 0) {
        s->peer_uid = cred.uid;
        snprintf(s->name, sizeof s->name, "session %llu (uid %u, pid %d)",
                 (unsigned long long) s->id, cred.uid, (int) cred.pid);
    } else {
        snprintf(s->name, sizeof s->name, "session %llu",
                 (unsigned long long) s->id);
    }
}

/* Makes a session of 'fd', which it owns from now on, also on failure. */
int
session_create(struct server *server, int fd, bool is_guest)
{
    struct session *s = calloc(1, sizeof *s);
    int error;

    if (!s || fid_table_init(&s->fids)) {
        free(s);
        close(fd);
        return ENOMEM;
    }
    s->server = server;
    s->id = ++server->next_session_id;
    s->state = is_guest ? SESSION_HELLO : SESSION_NEW;
    s->fd = fd;
    s->is_guest = is_guest;
    s->msize = 8192; /* Until Tversion says more. */
    list_init(&s->requests);
    name_plain(s);
    error = loop_add_fd(server->loop, fd, EPOLLIN, session_cb, s, &s->loop_fd);
    if (error) {
        fid_table_destroy(&s->fids);
        free(s);
        close(fd);
        return error;
    }
    list_push_back(&server->sessions, &s->link);
    server->n_sessions++;
    COVERAGE_INC(ninep_session_open);
    vlog_dbg("%s: opened", s->name);
    return 0;
}

/* Aborts what is outstanding: parked requests end, those that no thread has
 * begun end, those that run are marked and will end without an answer. */
void
session_abort_all(struct session *s)
{
    struct request *req, *next;

    lock_release_session(s->server->locks, s);
    LIST_FOR_EACH_SAFE (req, next, link, &s->requests) {
        req->waiter = NULL;
        req->is_aborted = true;
        if (!req->is_on_pool) {
            request_free(req);
        } else if (pool_cancel(s->server->pool, &req->job)) {
            s->n_on_pool--;
            request_free(req);
        }
    }
    s->n_parked = 0;
}

/* After the last old request: the new life of the session begins. */
void
session_finish_reset(struct session *s)
{
    struct request *req = s->version_req;

    s->version_req = NULL;
    fid_table_destroy(&s->fids);
    if (fid_table_init(&s->fids)) {
        session_kill(s, "out of memory for fids");
        request_free(req);
        return;
    }
    if (req->r.version.version.len == strlen(NINEP_VERSION_L)) {
        s->msize = req->r.version.msize;
        s->state = SESSION_READY;
    } else {
        s->state = SESSION_NEW;
    }
    request_complete(req, 0);
}

/* Closes the connection and drops all that the session holds. */
void
session_close(struct session *s)
{
    if (s->is_guest || s->why_dead == NULL ||
        strcmp(s->why_dead, "the peer closed")) {
        vlog_info_rl(&session_rl, "%s: closed: %s", s->name,
                     s->why_dead ? s->why_dead : "the server stops");
    }
    COVERAGE_INC(ninep_session_close);
    loop_del_fd(s->server->loop, s->loop_fd);
    s->loop_fd = NULL;
    close(s->fd);
    s->fd = -1;
    s->is_dead = true;
    s->state = SESSION_CLOSED;
    if (s->version_req) {
        request_free(s->version_req);
        s->version_req = NULL;
    }
    session_abort_all(s);
    fid_table_destroy(&s->fids);
    free(s->partial);
    s->partial = NULL;
    free(s->backlog);
    s->backlog = NULL;
    free_queue(s);
    if (!s->n_on_pool) {
        session_free(s);
    }
}

/* The end: closed, and nothing on the pool. */
void
session_free(struct session *s)
{
    list_remove(&s->link);
    s->server->n_sessions--;
    free(s);
}
