/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * active.c - CONNECT, RELEASE, and the bytes between data ring and socket.
 *
 * Theory of operation
 * ===================
 *
 * The kernel copies straight between ring memory and the real socket.  The
 * socket is in the epoll set edge-triggered, once and for all; 'readable' and
 * 'writable' remember what epoll said until the kernel says EAGAIN.  So a peer
 * that stops reading costs nothing: the ring fills, and we look at the socket
 * again when epoll reports an edge.
 *
 * When we sleep on a direction:
 *
 *   out  ring empty (the guest notifies), or socket not writable (epoll does)
 *   in   socket not readable (epoll), or ring completely full (the guest)
 *
 * With the quiet extension the guest notifies in just these cases, and so do
 * we; without it everybody notifies always.  See lib/ring.h for why nothing is
 * lost.
 *
 * End of stream.  in_error is set to -ENOTCONN for FIN and to the error for
 * RST and the like, once all data before it are in the ring; an error of the
 * connection sets out_error too.  The kernel reports an error once only and
 * then answers as after an orderly close, so whoever meets it first (send or
 * receive) keeps it in 'error' for the other.
 *
 * Release.  Bytes that the guest has put in the out ring are still sent: as
 * much as the socket takes at once, the rest is copied and sent in the
 * background (bounded in time, and in bytes over all sockets).  If that bound
 * is reached the connection is reset instead of ending as if it were complete.
 */
#include "backend/sockets/pvcalls-impl.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/coverage.h"

COVERAGE_DEFINE(pvcalls_bytes_in);
COVERAGE_DEFINE(pvcalls_bytes_out);
COVERAGE_DEFINE(pvcalls_recv);
COVERAGE_DEFINE(pvcalls_send);
COVERAGE_DEFINE(pvcalls_notify_in);
COVERAGE_DEFINE(pvcalls_notify_out);
COVERAGE_DEFINE(pvcalls_budget);
COVERAGE_DEFINE(pvcalls_eof);
COVERAGE_DEFINE(pvcalls_reset);
COVERAGE_DEFINE(pvcalls_connected);
COVERAGE_DEFINE(pvcalls_connect_failed);
COVERAGE_DEFINE(pvcalls_connect_aborted);
COVERAGE_DEFINE(pvcalls_linger);
COVERAGE_DEFINE(pvcalls_linger_dropped);

#define ACTIVE_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)

static void pvc_active_cb__(uint32_t events, void *sock);
static void pvc_connect_done__(struct pvc_sock *, int error);

static bool
pvc_is_quiet__(const struct pvc_sock *sock)
{
    return sock->dev->flags & WP_PVCALLS_QUIET;
}

static void
pvc_attach_ring__(struct pvc_sock *sock, struct pvc_ring *ring)
{
    struct pvcalls_indexes *x = ring->indexes;
    uint32_t half = pvcalls_half_size(ring->order);

    sock->ring = ring;
    ring_bytes_init(&sock->in, &x->in_prod, &x->in_cons, ring->data, half);
    ring_bytes_init(&sock->out, &x->out_prod, &x->out_cons, ring->data + half,
                    half);
}

static void
pvc_set_options__(int fd)
{
    int on = 1;

    /* What a program writes in one go arrives in the ring in one go; there is
     * nothing to gain from Nagle's waiting, and version 1 cannot carry the
     * option. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Makes 'sock', which is new, an active one with the connected descriptor 'fd'
 * and 'ring', which it takes over on success.  0 or a positive errno. */
int
pvc_activate(struct pvc_sock *sock, int fd, struct pvc_ring *ring)
{
    int error = loop_add_fd(sock->dev->w->loop, fd, ACTIVE_EVENTS,
                            pvc_active_cb__, sock, &sock->handle);

    if (error) {
        return error;
    }
    pvc_set_options__(fd);
    sock->fd = fd;
    sock->state = PVC_ACTIVE;
    sock->readable = sock->writable = true;
    pvc_attach_ring__(sock, ring);
    ring->sock = sock;
    worker_task_queue(sock->dev->w, &sock->task);
    return 0;
}

/* CONNECT. */

/* Begins to connect 'sock', which has its ring.  Returns 0 if it succeeded,
 * EINPROGRESS if it goes on, or another positive errno. */
static int
pvc_connect_begin__(struct pvc_sock *sock, const struct sockaddr_in *sin)
{
    int error = sock->state == PVC_BOUND ? 0 : pvc_sock_open(sock);

    if (error) {
        return error;
    }
    pvc_set_options__(sock->fd);
    if (connect(sock->fd, (const struct sockaddr *) sin, sizeof *sin) &&
        errno != EINPROGRESS) {
        return errno;
    }
    /* Even if it stands already: the edge that epoll reports for a descriptor
     * just added completes it. */
    error = loop_add_fd(sock->dev->w->loop, sock->fd, ACTIVE_EVENTS,
                        pvc_active_cb__, sock, &sock->handle);
    return error ? error : EINPROGRESS;
}

/* Checks 'req' and finds or enters its socket.  Returns 0 or a positive errno
 * for the answer, which then has cost nothing else: a bound socket stays
 * bound, an id that was not known is not known. */
static int
pvc_connect_prepare__(struct pvc_dev *dev, const struct pvcalls_request *req,
                      struct sockaddr_in *sin, struct pvc_sock **ret)
{
    struct pvc_sock *sock = pvc_sock_find(dev, req->u.connect.id);
    bool is_new = !sock;
    struct pvc_ring *ring;
    int error;

    error = pvc_addr_parse(req->u.connect.addr, req->u.connect.len, sin);
    if (!error) {
        error = pvc_addr_may_connect(dev->w, sin);
    }
    if (!error && sock) {
        error = sock->state == PVC_CONNECTING  ? EALREADY
                : sock->state == PVC_ACTIVE    ? EISCONN
                : sock->state == PVC_LISTENING ? EINVAL
                                               : 0;
    }
    if (!error && is_new) {
        error = pvc_sock_create(dev, req->u.connect.id, &sock);
    }
    if (error) {
        return error;
    }
    error =
        pvc_ring_get(dev, req->u.connect.ref, req->u.connect.evtchn, &ring);
    if (error) {
        if (is_new) {
            pvc_sock_destroy(sock);
        }
        return error;
    }
    pvc_attach_ring__(sock, ring);
    *ret = sock;
    return 0;
}

/* CONNECT.  Answers now or when the connection stands or has failed. */
void
pvc_connect(struct pvc_dev *dev, const struct pvcalls_request *req)
{
    struct pvc_sock *sock;
    struct sockaddr_in sin;
    int error = pvc_connect_prepare__(dev, req, &sin, &sock);

    if (error) {
        pvc_respond(dev, req->req_id, req->cmd, req->u.connect.id, error);
        return;
    }
    sock->connect_req_id = req->req_id;
    error = pvc_connect_begin__(sock, &sin);
    if (error == EINPROGRESS) {
        sock->state = PVC_CONNECTING;
    } else {
        pvc_connect_done__(sock, error);
    }
}

/* Answers the CONNECT of 'sock': active if 'error' is 0, else as if it had
 * never been tried, so that the guest may try again. */
static void
pvc_connect_done__(struct pvc_sock *sock, int error)
{
    struct pvc_dev *dev = sock->dev;

    if (error) {
        COVERAGE_INC(pvcalls_connect_failed);
        pvc_sock_close_fd(sock);
        pvc_ring_put(sock->ring, false);
        sock->ring = NULL;
        sock->state = PVC_NEW;
    } else {
        COVERAGE_INC(pvcalls_connected);
        sock->state = PVC_ACTIVE;
        sock->writable = true;
        sock->ring->sock = sock;
    }
    pvc_respond(dev, sock->connect_req_id, PVCALLS_CONNECT, sock->id, error);
    pvc_flush(dev);
}

static int
pvc_socket_error__(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) ? errno : error;
}

/* Ends of stream. */

static void
pvc_set_in_error__(struct pvc_sock *sock, int error)
{
    if (!sock->in_done) {
        sock->in_done = true;
        ring_publish(&sock->ring->indexes->in_error, -error);
        ring_mb();
        COVERAGE_INC(pvcalls_notify_in);
        worker_port_notify(sock->dev->w, &sock->ring->port);
    }
}

static void
pvc_set_out_error__(struct pvc_sock *sock, int error)
{
    if (!sock->out_done) {
        sock->out_done = true;
        ring_publish(&sock->ring->indexes->out_error, -error);
        ring_mb();
        COVERAGE_INC(pvcalls_notify_out);
        worker_port_notify(sock->dev->w, &sock->ring->port);
    }
}

/* The connection is broken.  All data that came before have been received.
 * out_error is written first, so that a guest that sees the one sees both, and
 * one notification tells of both. */
static void
pvc_set_broken__(struct pvc_sock *sock, int error)
{
    COVERAGE_INC(pvcalls_reset);
    sock->error = error;
    if (!sock->out_done) {
        sock->out_done = true;
        ring_publish(&sock->ring->indexes->out_error, -error);
    }
    pvc_set_in_error__(sock, error);
}

/* Bytes. */

static void
pvc_fail_index__(struct pvc_sock *sock, const char *which)
{
    worker_device_fail(&sock->dev->up, EPROTO,
                       "impossible %s index in the data ring of socket "
                       "%#llx",
                       which, (unsigned long long) sock->id);
}

/* The out ring is empty: has the guest shut down its side? */
static void
pvc_check_shut__(struct pvc_sock *sock)
{
    uint32_t used;

    if (!(sock->dev->flags & WP_PVCALLS_HALF_CLOSE) ||
        !ring_fetch(&sock->ring->indexes->out_shut)) {
        return;
    }
    /* It was written after the last byte, so look again for bytes. */
    ring_rmb();
    if (!ring_bytes_used(&sock->out, &used) && !used) {
        sock->out_shut = sock->out_done = true;
        shutdown(sock->fd, SHUT_WR);
    }
}

/* Sends what the out ring holds, at most 'budget' bytes.  Returns true if it
 * stopped because of the budget. */
static bool
pvc_run_out__(struct pvc_sock *sock, size_t budget)
{
    size_t total = 0;

    while (!sock->out_done && sock->writable) {
        struct iovec iov[2];
        struct msghdr msg = {.msg_iov = iov};
        uint32_t used;
        ssize_t n;
        bool notify;

        if (ring_bytes_used(&sock->out, &used)) {
            pvc_fail_index__(sock, "out_prod");
            return false;
        }
        if (!used) {
            pvc_check_shut__(sock);
            return false;
        }
        if (total >= budget) {
            COVERAGE_INC(pvcalls_budget);
            return true;
        }
        msg.msg_iovlen = ring_bytes_used_iov(&sock->out, 0, used, iov);
        COVERAGE_INC(pvcalls_send);
        n = sendmsg(sock->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EAGAIN) {
                sock->writable = false;
            } else if (errno != EINTR) {
                if (!sock->error) {
                    sock->error = errno;
                }
                pvc_set_out_error__(sock, sock->error);
                /* What came before the error is still to be received, and
                 * then the reader hears of it too. */
                sock->readable = true;
            }
            continue;
        }
        total += n;
        sock->n_out += n;
        COVERAGE_ADD(pvcalls_bytes_out, n);
        notify = ring_bytes_consume(&sock->out, n, 1, sock->out.size / 2);
        if (notify || !pvc_is_quiet__(sock)) {
            COVERAGE_INC(pvcalls_notify_out);
            worker_port_notify(sock->dev->w, &sock->ring->port);
        }
        /* A short count does not say that the socket is full to the brim: only
         * EAGAIN arms the next edge for certain. */
    }
    return false;
}

/* Receives into the free part of the in ring, at most 'budget' bytes.  Returns
 * true if it stopped because of the budget. */
static bool
pvc_run_in__(struct pvc_sock *sock, size_t budget)
{
    size_t total = 0;

    while (!sock->in_done && sock->readable) {
        struct iovec iov[2];
        struct msghdr msg = {.msg_iov = iov};
        uint32_t space;
        ssize_t n;
        bool notify;

        if (ring_bytes_free(&sock->in, &space)) {
            pvc_fail_index__(sock, "in_cons");
            return false;
        }
        if (!space) {
            return false;
        }
        if (total >= budget) {
            COVERAGE_INC(pvcalls_budget);
            return true;
        }
        msg.msg_iovlen = ring_bytes_free_iov(&sock->in, 0, space, iov);
        COVERAGE_INC(pvcalls_recv);
        n = recvmsg(sock->fd, &msg, MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EAGAIN) {
                sock->readable = false;
            } else if (errno != EINTR) {
                pvc_set_broken__(sock, sock->error ? sock->error : errno);
            }
            continue;
        }
        if (!n) {
            if (sock->error) {
                pvc_set_broken__(sock, sock->error);
            } else {
                COVERAGE_INC(pvcalls_eof);
                pvc_set_in_error__(sock, ENOTCONN);
            }
            return false;
        }
        total += n;
        sock->n_in += n;
        COVERAGE_ADD(pvcalls_bytes_in, n);
        notify = ring_bytes_produce(&sock->in, n);
        if (notify || !pvc_is_quiet__(sock)) {
            COVERAGE_INC(pvcalls_notify_in);
            worker_port_notify(sock->dev->w, &sock->ring->port);
        }
        if (n < space && !sock->peer_closed) {
            /* The queue was emptied; more will be a new edge. */
            sock->readable = false;
        }
    }
    return false;
}

/* Moves what can be moved. */
void
pvc_active_run(void *sock_)
{
    struct pvc_sock *sock = sock_;
    struct pvc_dev *dev = sock->dev;
    bool again;

    if (dev->up.is_failed || sock->state != PVC_ACTIVE) {
        return;
    }
    again = pvc_run_out__(sock, PVC_BUDGET);
    if (!dev->up.is_failed) {
        again |= pvc_run_in__(sock, PVC_BUDGET);
    }
    if (again && !dev->up.is_failed) {
        worker_task_queue(dev->w, &sock->task);
    }
}

/* The guest sent an event for 'sock'.  Returns whether it brought news. */
bool
pvc_active_event(struct pvc_sock *sock)
{
    uint32_t in_cons = sock->in.cons, out_prod = sock->out.prod;
    bool shut = sock->out_shut;

    if (sock->dev->up.is_failed || sock->state != PVC_ACTIVE) {
        return false;
    }
    /* Also where nothing can be moved now, an index that cannot be ends the
     * device. */
    if (!pvc_active_peek(sock) &&
        !(sock->dev->flags & WP_PVCALLS_HALF_CLOSE)) {
        return false;
    }
    pvc_active_run(sock);
    if (!sock->dev->up.is_failed) {
        uint32_t n;

        if (ring_bytes_free(&sock->in, &n)) {
            pvc_fail_index__(sock, "in_cons");
        } else if (ring_bytes_used(&sock->out, &n)) {
            pvc_fail_index__(sock, "out_prod");
        }
    }
    return in_cons != sock->in.cons || out_prod != sock->out.prod ||
           shut != sock->out_shut;
}

/* Whether the guest has moved an index. */
bool
pvc_active_peek(const struct pvc_sock *sock)
{
    return sock->state == PVC_ACTIVE &&
           (ring_bytes_peer_produced(&sock->out) ||
            ring_bytes_peer_consumed(&sock->in));
}

/* epoll reports an edge. */
static void
pvc_active_cb__(uint32_t events, void *sock_)
{
    struct pvc_sock *sock = sock_;
    struct pvc_dev *dev = sock->dev;

    if (dev->up.is_failed) {
        return;
    }
    dev->w->had_work = true;
    if (sock->state == PVC_CONNECTING) {
        if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
            return;
        }
        pvc_connect_done__(sock, pvc_socket_error__(sock->fd));
        if (sock->state != PVC_ACTIVE) {
            return;
        }
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP | EPOLLPRI)) {
        sock->readable = true;
    }
    if (events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP | EPOLLPRI)) {
        /* Also at an urgent mark a receive ends short of the queue's end. */
        sock->peer_closed = true;
    }
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        sock->writable = true;
    }
    if (events & (EPOLLERR | EPOLLHUP) && sock->in_done && !sock->out_done) {
        /* Nobody receives any more, and perhaps nobody sends: the writer must
         * hear of it all the same. */
        int error = pvc_socket_error__(sock->fd);

        if (error) {
            sock->error = error;
            pvc_set_out_error__(sock, error);
        }
    }
    pvc_active_run(sock);
}

/* RELEASE. */

/* Frees what is left of a released socket. */
void
pvc_linger_destroy(struct pvc_linger *l)
{
    loop_timer_cancel(&l->timer);
    loop_del_fd(l->dev->w->loop, l->handle);
    close(l->fd);
    list_remove(&l->link);
    l->dev->linger_bytes -= l->size + PVC_LINGER_COST;
    free(l->data);
    free(l);
}

static void
pvc_reset_fd__(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

static void
pvc_linger_cb__(uint32_t events UNUSED, void *l_)
{
    struct pvc_linger *l = l_;

    for (size_t total = 0; l->done < l->size && total < PVC_BUDGET;) {
        ssize_t n = send(l->fd, l->data + l->done, l->size - l->done,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                pvc_linger_destroy(l);
            }
            return;
        }
        l->done += n;
        total += n;
    }
    if (l->done == l->size) {
        pvc_linger_destroy(l);
    }
}

static void
pvc_linger_timeout__(void *l_)
{
    struct pvc_linger *l = l_;

    COVERAGE_INC(pvcalls_linger_dropped);
    pvc_reset_fd__(l->fd);
    pvc_linger_destroy(l);
}

/* Takes over the descriptor of 'sock' and the 'left' bytes in its out ring.
 * False if it cannot. */
static bool
pvc_linger_start__(struct pvc_sock *sock, uint32_t left)
{
    struct pvc_dev *dev = sock->dev;
    struct pvc_linger *l;
    struct iovec iov[2];
    size_t ofs = 0;

    if (dev->linger_bytes + left + PVC_LINGER_COST > dev->w->opt.max_linger) {
        return false;
    }
    l = calloc(1, sizeof *l);
    if (!l) {
        return false;
    }
    l->data = malloc(left);
    if (!l->data) {
        free(l);
        return false;
    }
    for (int i = 0, n = ring_bytes_used_iov(&sock->out, 0, left, iov); i < n;
         i++) {
        memcpy(l->data + ofs, iov[i].iov_base, iov[i].iov_len);
        ofs += iov[i].iov_len;
    }
    l->dev = dev;
    l->size = left;
    loop_del_fd(dev->w->loop, sock->handle);
    sock->handle = NULL;
    if (loop_add_fd(dev->w->loop, sock->fd, EPOLLOUT, pvc_linger_cb__, l,
                    &l->handle)) {
        free(l->data);
        free(l);
        return false;
    }
    l->fd = sock->fd;
    sock->fd = -1;
    dev->linger_bytes += left + PVC_LINGER_COST;
    list_push_back(&dev->lingering, &l->link);
    loop_timer_init(&l->timer, pvc_linger_timeout__, l);
    loop_timer_set_ms(dev->w->loop, &l->timer, PVC_LINGER_MS);
    COVERAGE_INC(pvcalls_linger);
    return true;
}

/* Sees to it that what the guest wrote before RELEASE is sent. */
static void
pvc_drain__(struct pvc_sock *sock)
{
    uint32_t left;

    /* A guest that goes on producing does not hold us here. */
    pvc_run_out__(sock, sock->out.size);
    if (sock->dev->up.is_failed || sock->out_done ||
        ring_bytes_used(&sock->out, &left) || !left) {
        return;
    }
    if (!pvc_linger_start__(sock, left)) {
        COVERAGE_INC(pvcalls_linger_dropped);
        pvc_reset_fd__(sock->fd);
    }
}

/* RELEASE.  Answers when nothing of the socket is mapped any more. */
void
pvc_release(struct pvc_dev *dev, const struct pvcalls_request *req)
{
    struct pvc_sock *sock = pvc_sock_find(dev, req->u.release.id);
    struct pvc_ring *ring;

    if (!sock) {
        pvc_respond(dev, req->req_id, req->cmd, req->u.release.id, ENOTSOCK);
        return;
    }
    switch (sock->state) {
    case PVC_LISTENING:
        pvc_unpark_all(sock, ECONNABORTED);
        break;
    case PVC_CONNECTING:
        COVERAGE_INC(pvcalls_connect_aborted);
        pvc_connect_done__(sock, ECONNABORTED);
        break;
    case PVC_ACTIVE:
        pvc_drain__(sock);
        if (dev->up.is_failed) {
            return;
        }
        break;
    case PVC_NEW:
    case PVC_BOUND:
        break;
    }
    ring = sock->ring;
    sock->ring = NULL;
    pvc_sock_destroy(sock);
    pvc_ring_put(ring, req->u.release.reuse);
    pvc_respond(dev, req->req_id, req->cmd, req->u.release.id, 0);
}
