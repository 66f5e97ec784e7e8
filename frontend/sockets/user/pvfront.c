/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pvfront.c - see pvfront.h.
 */
#include "frontend/sockets/user/pvfront.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "lib/clock.h"

static void
pvfront_notify__(struct pvfront *f, uint32_t port)
{
    f->n_notify++;
    hv_evtchn_notify(f->hv, port);
}

/* Allocates the command ring and its event channel for 'backend'.  Returns 0
 * and the frontend in '*ret', whose 'ring_ref' and 'port' the caller makes
 * known, or a positive errno. */
int
pvfront_create(struct hv *hv, uint16_t backend, struct pvfront **ret)
{
    struct pvfront *f = calloc(1, sizeof *f);
    void *mem;
    int error;

    if (!f) {
        return ENOMEM;
    }
    f->hv = hv;
    f->backend = backend;
    f->next_id = 1;
    list_init(&f->pool);
    error =
        hv_pages_alloc(hv, backend, 1, true, &f->ring_ref, &mem, &f->pages);
    if (error) {
        free(f);
        return error;
    }
    error = hv_evtchn_alloc_unbound(hv, backend, &f->port);
    if (error) {
        hv_pages_free(f->pages);
        free(f);
        return error;
    }
    ring_front_init(&f->ring, mem);
    *ret = f;
    return 0;
}

static void
pvfront_ring_destroy__(struct pvfront *f, struct pvfront_ring *r)
{
    list_remove(&r->link);
    hv_evtchn_unbind(f->hv, r->port);
    hv_pages_free(r->data_pages);
    hv_pages_free(r->indexes_pages);
    free(r);
    f->n_rings--;
}

/* Frees 'f' and its pool.  Sockets must have been closed. */
void
pvfront_destroy(struct pvfront *f)
{
    if (!f) {
        return;
    }
    while (!list_is_empty(&f->pool)) {
        pvfront_ring_destroy__(
            f, CONTAINER_OF(list_front(&f->pool), struct pvfront_ring, link));
    }
    hv_evtchn_unbind(f->hv, f->port);
    hv_pages_free(f->pages);
    free(f);
}

/* Requests. */

static void
pvfront_take_responses__(struct pvfront *f)
{
    struct pvcalls_response rsp;

    while (!f->is_broken) {
        struct pvfront_pending *p;
        int error = ring_front_take(&f->ring, &rsp);

        if (error == EAGAIN) {
            if (ring_front_sleep(&f->ring)) {
                return;
            }
            continue;
        }
        p = &f->pending[rsp.req_id % PVCALLS_N_SLOTS];
        if (error || !p->in_use || p->is_done || p->req_id != rsp.req_id ||
            p->cmd != rsp.cmd) {
            f->is_broken = true;
            return;
        }
        p->rsp = rsp;
        p->is_done = true;
    }
}

/* Handles what has come and waits for it at most 'timeout_ms' (-1: without
 * end).  Returns 0, or ETIMEDOUT if no event came. */
int
pvfront_wait(struct pvfront *f, int timeout_ms)
{
    struct pollfd pfd = {.fd = hv_evtchn_fd(f->hv), .events = POLLIN};
    uint32_t ports[64];
    size_t n = 0;

    if (poll(&pfd, 1, timeout_ms) > 0) {
        if (!hv_evtchn_read(f->hv, ports, ARRAY_SIZE(ports), &n) && n) {
            f->n_event += n;
            hv_evtchn_unmask(f->hv, ports, n);
        }
    }
    pvfront_take_responses__(f);
    return n ? 0 : ETIMEDOUT;
}

/* Puts 'req', filling in req_id, and stores what to wait for in '*ret'; give
 * that to pvfront_finish().  EAGAIN: all slots are in use. */
int
pvfront_submit(struct pvfront *f, struct pvcalls_request *req,
               struct pvfront_pending **ret)
{
    bool notify;
    size_t i;
    int error;

    if (f->is_broken) {
        return EPROTO;
    }
    pvfront_take_responses__(f);
    for (i = 0; i < ARRAY_SIZE(f->pending) && f->pending[i].in_use; i++) {
        continue;
    }
    if (i == ARRAY_SIZE(f->pending)) {
        return EAGAIN;
    }
    req->req_id = f->generation++ * PVCALLS_N_SLOTS + i;
    error = ring_front_put(&f->ring, req, &notify);
    if (error) {
        return error;
    }
    f->pending[i] = (struct pvfront_pending){
        .in_use = true, .req_id = req->req_id, .cmd = req->cmd};
    if (notify) {
        pvfront_notify__(f, f->port);
    }
    *ret = &f->pending[i];
    return 0;
}

/* Waits for the answer to 'p'.  Returns what it says as a positive errno and
 * forgets 'p'; or ETIMEDOUT (or EPROTO for a broken backend), and then 'p' is
 * still outstanding. */
int
pvfront_finish(struct pvfront *f, struct pvfront_pending *p, int timeout_ms)
{
    uint64_t deadline = clock_mono_ns() + timeout_ms * NSEC_PER_MSEC;

    for (;;) {
        uint64_t now;

        pvfront_take_responses__(f);
        if (p->is_done) {
            p->in_use = p->is_done = false;
            return -p->rsp.ret;
        }
        if (f->is_broken) {
            return EPROTO;
        }
        now = clock_mono_ns();
        if (now >= deadline) {
            return ETIMEDOUT;
        }
        pvfront_wait(f, (deadline - now) / NSEC_PER_MSEC + 1);
    }
}

/* pvfront_submit() and pvfront_finish(). */
int
pvfront_call(struct pvfront *f, struct pvcalls_request *req, int timeout_ms)
{
    struct pvfront_pending *p;
    int error = pvfront_submit(f, req, &p);

    return error ? error : pvfront_finish(f, p, timeout_ms);
}

/* Rings. */

static int
pvfront_ring_create__(struct pvfront *f, uint32_t order,
                      struct pvfront_ring **ret)
{
    struct pvfront_ring *r = calloc(1, sizeof *r);
    uint32_t refs[1u << PVCALLS_MAX_ORDER];
    void *mem;
    int error;

    if (!r) {
        return ENOMEM;
    }
    list_init(&r->link);
    r->order = order;
    error = hv_pages_alloc(f->hv, f->backend, 1, true, &r->ref, &mem,
                           &r->indexes_pages);
    if (error) {
        free(r);
        return error;
    }
    r->indexes = mem;
    error = hv_pages_alloc(f->hv, f->backend, 1u << order, true, refs, &mem,
                           &r->data_pages);
    if (!error) {
        r->data = mem;
        error = hv_evtchn_alloc_unbound(f->hv, f->backend, &r->port);
    }
    if (error) {
        hv_pages_free(r->data_pages);
        hv_pages_free(r->indexes_pages);
        free(r);
        return error;
    }
    for (uint32_t i = 0; i < 1u << order; i++) {
        ring_store(&r->indexes->ref[i], refs[i]);
    }
    ring_store(&r->indexes->ring_order, order);
    f->n_rings++;
    *ret = r;
    return 0;
}

/* Takes a ring of 2^'order' pages from the pool, or makes one. */
int
pvfront_ring_get(struct pvfront *f, uint32_t order, struct pvfront_ring **ret)
{
    struct pvfront_ring *r;

    LIST_FOR_EACH (r, link, &f->pool) {
        if (r->order == order) {
            list_remove(&r->link);
            /* A session begins with indices and errors 0. */
            memset((void *) r->indexes, 0,
                   offsetof(struct pvcalls_indexes, ring_order));
            ring_mb();
            *ret = r;
            return 0;
        }
    }
    return pvfront_ring_create__(f, order, ret);
}

/* Gives 'r' back: to the pool, or for good. */
void
pvfront_ring_put(struct pvfront *f, struct pvfront_ring *r, bool pool)
{
    if (!r) {
        return;
    }
    if (pool) {
        list_push_front(&f->pool, &r->link);
    } else {
        pvfront_ring_destroy__(f, r);
    }
}

/* Sockets. */

static struct pvfront_sock *
pvfront_sock_create__(struct pvfront *f)
{
    struct pvfront_sock *s = calloc(1, sizeof *s);

    if (s) {
        s->front = f;
        s->id = f->next_id++;
    }
    return s;
}

static int
pvfront_attach__(struct pvfront_sock *s, uint32_t order)
{
    struct pvfront_ring *r;
    uint32_t half = pvcalls_half_size(order);
    int error = pvfront_ring_get(s->front, order, &r);

    if (error) {
        return error;
    }
    s->ring = r;
    ring_bytes_init(&s->in, &r->indexes->in_prod, &r->indexes->in_cons,
                    r->data, half);
    ring_bytes_init(&s->out, &r->indexes->out_prod, &r->indexes->out_cons,
                    r->data + half, half);
    return 0;
}

static int
pvfront_announce__(struct pvfront_sock *s, int timeout_ms)
{
    struct pvcalls_request req = {.cmd = PVCALLS_SOCKET};

    req.u.socket.id = s->id;
    req.u.socket.domain = AF_INET;
    req.u.socket.type = SOCK_STREAM;
    return pvfront_call(s->front, &req, timeout_ms);
}

/* Asks for a connection to 'sin' over a ring of 2^'order' pages.  On success
 * the caller owns '*ret' and completes it with pvfront_connect_finish(), or
 * gives up with pvfront_close(). */
int
pvfront_connect_start(struct pvfront *f, const struct sockaddr_in *sin,
                      uint32_t order, struct pvfront_sock **ret)
{
    struct pvfront_sock *s = pvfront_sock_create__(f);
    struct pvcalls_request req = {.cmd = PVCALLS_CONNECT};
    int error;

    if (!s) {
        return ENOMEM;
    }
    error = pvfront_announce__(s, 10000);
    if (!error) {
        error = pvfront_attach__(s, order);
    }
    if (!error) {
        req.u.connect.id = s->id;
        memcpy(req.u.connect.addr, sin, sizeof *sin);
        req.u.connect.len = sizeof *sin;
        req.u.connect.ref = s->ring->ref;
        req.u.connect.evtchn = s->ring->port;
        error = pvfront_submit(f, &req, &s->pending);
    }
    if (error) {
        pvfront_ring_put(f, s->ring, false);
        free(s);
        return error;
    }
    *ret = s;
    return 0;
}

/* Waits for the connection.  An error other than ETIMEDOUT is final; the
 * caller still closes the socket. */
int
pvfront_connect_finish(struct pvfront_sock *s, int timeout_ms)
{
    int error = pvfront_finish(s->front, s->pending, timeout_ms);

    if (error != ETIMEDOUT) {
        s->pending = NULL;
    }
    return error;
}

int
pvfront_connect(struct pvfront *f, const struct sockaddr_in *sin,
                uint32_t order, int timeout_ms, struct pvfront_sock **ret)
{
    struct pvfront_sock *s;
    int error = pvfront_connect_start(f, sin, order, &s);

    if (error) {
        return error;
    }
    error = pvfront_connect_finish(s, timeout_ms);
    if (error) {
        pvfront_close(s, false, timeout_ms);
        return error;
    }
    *ret = s;
    return 0;
}

/* Makes a listener on 'sin'. */
int
pvfront_listen(struct pvfront *f, const struct sockaddr_in *sin,
               uint32_t backlog, int timeout_ms, struct pvfront_sock **ret)
{
    struct pvfront_sock *s = pvfront_sock_create__(f);
    struct pvcalls_request req;
    int error;

    if (!s) {
        return ENOMEM;
    }
    error = pvfront_announce__(s, timeout_ms);
    if (error) {
        free(s);
        return error;
    }
    memset(&req, 0, sizeof req);
    req.cmd = PVCALLS_BIND;
    req.u.bind.id = s->id;
    memcpy(req.u.bind.addr, sin, sizeof *sin);
    req.u.bind.len = sizeof *sin;
    error = pvfront_call(f, &req, timeout_ms);
    if (!error) {
        memset(&req, 0, sizeof req);
        req.cmd = PVCALLS_LISTEN;
        req.u.listen.id = s->id;
        req.u.listen.backlog = backlog;
        error = pvfront_call(f, &req, timeout_ms);
    }
    if (error) {
        pvfront_close(s, false, timeout_ms);
        return error;
    }
    *ret = s;
    return 0;
}

/* Asks for the next connection of 'listener'.  As pvfront_connect_start(). */
int
pvfront_accept_start(struct pvfront_sock *listener, uint32_t order,
                     struct pvfront_sock **ret)
{
    struct pvfront *f = listener->front;
    struct pvfront_sock *s = pvfront_sock_create__(f);
    struct pvcalls_request req = {.cmd = PVCALLS_ACCEPT};
    int error;

    if (!s) {
        return ENOMEM;
    }
    error = pvfront_attach__(s, order);
    if (!error) {
        req.u.accept.id = listener->id;
        req.u.accept.id_new = s->id;
        req.u.accept.ref = s->ring->ref;
        req.u.accept.evtchn = s->ring->port;
        error = pvfront_submit(f, &req, &s->pending);
    }
    if (error) {
        pvfront_ring_put(f, s->ring, false);
        free(s);
        return error;
    }
    *ret = s;
    return 0;
}

/* Waits for the connection.  On an error other than ETIMEDOUT the socket is
 * gone. */
int
pvfront_accept_finish(struct pvfront_sock *s, int timeout_ms)
{
    int error = pvfront_finish(s->front, s->pending, timeout_ms);

    if (error == ETIMEDOUT) {
        return error;
    }
    s->pending = NULL;
    if (error) {
        pvfront_ring_put(s->front, s->ring, false);
        free(s);
    }
    return error;
}

int
pvfront_accept(struct pvfront_sock *listener, uint32_t order, int timeout_ms,
               struct pvfront_sock **ret)
{
    struct pvfront_sock *s;
    int error = pvfront_accept_start(listener, order, &s);

    if (error) {
        return error;
    }
    error = pvfront_accept_finish(s, timeout_ms);
    if (!error) {
        *ret = s;
    }
    return error;
}

/* Waits until a connection waits on 'listener'.  ETIMEDOUT, EAGAIN (by the
 * backend: ask again). */
int
pvfront_poll(struct pvfront_sock *listener, int timeout_ms)
{
    struct pvcalls_request req = {.cmd = PVCALLS_POLL};
    int error;

    if (!listener->pending) {
        req.u.poll.id = listener->id;
        error = pvfront_submit(listener->front, &req, &listener->pending);
        if (error) {
            return error;
        }
    }
    error = pvfront_finish(listener->front, listener->pending, timeout_ms);
    if (error != ETIMEDOUT) {
        listener->pending = NULL;
    }
    return error;
}

/* Releases 's' and frees it; its ring goes to the pool if 'reuse'.  Returns
 * what the backend said. */
int
pvfront_close(struct pvfront_sock *s, bool reuse, int timeout_ms)
{
    struct pvfront *f = s->front;
    struct pvcalls_request req = {.cmd = PVCALLS_RELEASE};
    int error;

    req.u.release.id = s->id;
    req.u.release.reuse = reuse && s->ring;
    error = pvfront_call(f, &req, timeout_ms);
    if (s->pending && !error) {
        /* The release ended it. */
        pvfront_finish(f, s->pending, timeout_ms);
    }
    pvfront_ring_put(f, s->ring, reuse && !error);
    free(s);
    return error;
}

/* Puts up to 'size' bytes in the out ring.  Returns their number, -EAGAIN if
 * there is no space, or the connection's error as a negative errno. */
ssize_t
pvfront_send(struct pvfront_sock *s, const void *buf, size_t size)
{
    uint32_t space, n;
    int32_t error = ring_fetch(&s->ring->indexes->out_error);

    if (error) {
        return error < 0 ? error : -EPROTO;
    }
    if (ring_bytes_free(&s->out, &space)) {
        s->front->is_broken = true;
        return -EPROTO;
    }
    n = MIN(space, size);
    if (!n) {
        return -EAGAIN;
    }
    ring_bytes_copy_in(&s->out, 0, buf, n);
    if (ring_bytes_produce(&s->out, n) || !s->front->is_quiet) {
        pvfront_notify__(s->front, s->ring->port);
    }
    return n;
}

/* Takes up to 'size' bytes from the in ring.  Returns their number, 0 at the
 * end of the stream, -EAGAIN if there are none yet, or the connection's error
 * as a negative errno. */
ssize_t
pvfront_recv(struct pvfront_sock *s, void *buf, size_t size)
{
    /* Read before the index: what it stands behind is then visible. */
    int32_t error = ring_fetch(&s->ring->indexes->in_error);
    struct iovec iov[2];
    uint32_t used, n;
    uint8_t *p = buf;
    bool notify;

    ring_rmb();
    if (ring_bytes_used(&s->in, &used)) {
        s->front->is_broken = true;
        return -EPROTO;
    }
    n = MIN(used, size);
    if (!n) {
        return !error ? -EAGAIN : error == -ENOTCONN ? 0 : error;
    }
    for (int i = 0, n_iov = ring_bytes_used_iov(&s->in, 0, n, iov); i < n_iov;
         i++) {
        memcpy(p, iov[i].iov_base, iov[i].iov_len);
        p += iov[i].iov_len;
    }
    notify = ring_bytes_consume(&s->in, n, 1, s->in.size / 2);
    if (notify || !s->front->is_quiet) {
        pvfront_notify__(s->front, s->ring->port);
    }
    return n;
}

/* Ends our side of the connection after what was sent.  EOPNOTSUPP: the
 * extension half-close is not in force. */
int
pvfront_shutdown(struct pvfront_sock *s)
{
    if (!s->front->has_half_close) {
        return EOPNOTSUPP;
    }
    ring_publish(&s->ring->indexes->out_shut, 1);
    ring_mb();
    pvfront_notify__(s->front, s->ring->port);
    return 0;
}
