/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * passive.c - BIND, LISTEN, ACCEPT and POLL.
 *
 * Theory of operation
 * ===================
 *
 * ACCEPT and POLL on a listener without a connection are *parked*: they have
 * no answer yet and hold a slot of the command ring.  There are 32 slots, so
 * many listeners could stall their guest.  While more than PVC_PARK_SCARCE are
 * parked, each POLL is ended with EAGAIN when PVCALLS_POLL_MS old, and from
 * PVC_PARK_FULL on the oldest POLL, or ACCEPT if there is no POLL, already
 * when PVC_PARK_MIN_MS old; the frontend then lets another listener have the
 * slot. With few listeners nothing is ever ended and no timer runs.
 *
 * A parked ACCEPT has its data ring mapped already: a bad one costs its
 * request an error at once, and no connection is ever taken from the backlog
 * that could not be handed over.
 *
 * A listener is in the epoll set all the time but asks for events only while
 * something is parked on it: nobody else wants to know.
 */
#include "backend/sockets/pvcalls-impl.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/coverage.h"

COVERAGE_DEFINE(pvcalls_accepted);
COVERAGE_DEFINE(pvcalls_parked);
COVERAGE_DEFINE(pvcalls_park_expired);

/* Errors of accept() that are about the connection that was to be accepted,
 * not about the listener; as many in a row and we look again later. */
#define ACCEPT_RETRIES 16

/* Binds 'fd' so that a port whose only users are connections of an earlier
 * server in TIME_WAIT is free, as it is for every server that sets
 * SO_REUSEADDR (an option that version 1 cannot carry), while two sockets that
 * are bound but do not listen yet still exclude each other. */
static int
pvc_bind_fd__(int fd, const struct sockaddr_in *sin)
{
    int on = 1, off = 0;
    int error;

    if (!bind(fd, (const struct sockaddr *) sin, sizeof *sin)) {
        return 0;
    }
    if (errno != EADDRINUSE) {
        return errno;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    error = bind(fd, (const struct sockaddr *) sin, sizeof *sin) ? errno : 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof off);
    return error;
}

/* BIND.  Returns 0 or a positive errno for the answer. */
int
pvc_bind(struct pvc_dev *dev, const struct pvcalls_request *req)
{
    struct pvc_sock *sock = pvc_sock_find(dev, req->u.bind.id);
    struct sockaddr_in sin;
    int error;

    error = pvc_addr_parse(req->u.bind.addr, req->u.bind.len, &sin);
    if (!error) {
        error = pvc_addr_may_bind(dev->w, &sin);
    }
    if (!error && sock && sock->state != PVC_NEW) {
        error = EINVAL;
    }
    if (!error && !sock) {
        error = pvc_sock_create(dev, req->u.bind.id, &sock);
    }
    if (!error) {
        error = pvc_sock_open(sock);
    }
    if (error) {
        return error;
    }
    error = pvc_bind_fd__(sock->fd, &sin);
    if (error) {
        pvc_sock_close_fd(sock);
        return error;
    }
    sock->state = PVC_BOUND;
    return 0;
}

static void pvc_listener_cb__(uint32_t events, void *sock);

/* LISTEN.  Returns 0 or a positive errno for the answer. */
int
pvc_listen(struct pvc_dev *dev, const struct pvcalls_request *req)
{
    struct pvc_sock *sock = pvc_sock_find(dev, req->u.listen.id);
    int backlog = MIN(req->u.listen.backlog, 4096);
    int on = 1;
    int error;

    if (!sock) {
        return ENOTSOCK;
    }
    if (sock->state != PVC_BOUND && sock->state != PVC_LISTENING) {
        return EINVAL;
    }
    /* Before listen(), which validates the port once more and would find the
     * connections in TIME_WAIT that bind() was told to overlook.  Connections
     * inherit it, and must have it for a later server to bind. */
    setsockopt(sock->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (listen(sock->fd, backlog)) {
        return errno;
    }
    if (sock->state == PVC_LISTENING) {
        return 0;
    }
    error = loop_add_fd(dev->w->loop, sock->fd, 0, pvc_listener_cb__, sock,
                        &sock->handle);
    if (error) {
        return error;
    }
    sock->state = PVC_LISTENING;
    return 0;
}

/* Parking. */

/* The parked request that is ended next, and when; NULL if all may stay. */
static struct pvc_parked *
pvc_park_victim__(const struct pvc_dev *dev, uint64_t *ret_when)
{
    bool is_full = dev->n_parked >= PVC_PARK_FULL;
    const struct list *list = &dev->parked_polls;
    struct pvc_parked *p;

    if (dev->n_parked <= PVC_PARK_SCARCE) {
        return NULL;
    }
    if (list_is_empty(list)) {
        if (!is_full) {
            return NULL;
        }
        list = &dev->parked_accepts;
    }
    p = CONTAINER_OF(list_front(list), struct pvc_parked, age);
    *ret_when = p->since +
                (is_full ? PVC_PARK_MIN_MS : PVCALLS_POLL_MS) * NSEC_PER_MSEC;
    return p;
}

static void
pvc_park_set_timer__(struct pvc_dev *dev)
{
    uint64_t when;

    if (pvc_park_victim__(dev, &when)) {
        loop_timer_set_abs(dev->w->loop, &dev->park_timer, when);
    } else {
        loop_timer_cancel(&dev->park_timer);
    }
}

static void
pvc_park__(struct pvc_sock *sock, const struct pvcalls_request *req,
           struct pvc_ring *ring)
{
    struct pvc_dev *dev = sock->dev;
    /* There is a free one: each stands for a slot of the ring, and
     * ring_back_take() lets no more requests be unanswered. */
    struct pvc_parked *p = CONTAINER_OF(list_pop_front(&dev->parked_free),
                                        struct pvc_parked, age);

    p->sock = sock;
    p->cmd = req->cmd;
    p->req_id = req->req_id;
    p->id_new = req->cmd == PVCALLS_ACCEPT ? req->u.accept.id_new : 0;
    p->ring = ring;
    p->since = clock_mono_ns();
    list_push_back(req->cmd == PVCALLS_POLL ? &dev->parked_polls
                                            : &dev->parked_accepts,
                   &p->age);
    list_push_back(&sock->parked, &p->link);
    dev->n_parked++;
    COVERAGE_INC(pvcalls_parked);
    loop_mod_fd(dev->w->loop, sock->handle, EPOLLIN);
    pvc_park_set_timer__(dev);
}

static void
pvc_parked_free__(struct pvc_parked *p)
{
    struct pvc_sock *sock = p->sock;
    struct pvc_dev *dev = sock->dev;

    list_remove(&p->link);
    list_remove(&p->age);
    list_push_back(&dev->parked_free, &p->age);
    p->sock = NULL;
    p->ring = NULL;
    dev->n_parked--;
    if (list_is_empty(&sock->parked)) {
        loop_mod_fd(dev->w->loop, sock->handle, 0);
    }
    pvc_park_set_timer__(dev);
}

/* Answers 'p' with 'error' and forgets it. */
static void
pvc_unpark__(struct pvc_parked *p, int error)
{
    struct pvc_sock *sock = p->sock;

    /* Unmapped before the answer: the frontend may free the pages then. */
    pvc_ring_put(p->ring, false);
    pvc_respond(sock->dev, p->req_id, p->cmd, sock->id, error);
    pvc_parked_free__(p);
}

/* Answers all that is parked on 'sock' with 'error'. */
void
pvc_unpark_all(struct pvc_sock *sock, int error)
{
    while (!list_is_empty(&sock->parked)) {
        pvc_unpark__(
            CONTAINER_OF(list_front(&sock->parked), struct pvc_parked, link),
            error);
    }
}

/* Ends what has been parked for too long while slots are scarce. */
void
pvc_park_timer_cb(void *dev_)
{
    struct pvc_dev *dev = dev_;
    uint64_t now = clock_mono_ns(), when;
    struct pvc_parked *p;

    while ((p = pvc_park_victim__(dev, &when)) && when <= now) {
        COVERAGE_INC(pvcalls_park_expired);
        pvc_unpark__(p, EAGAIN);
    }
    pvc_park_set_timer__(dev);
    pvc_flush(dev);
}

/* Accepting. */

/* Takes a connection from the backlog of 'sock'.  Returns 0 or a positive
 * errno, EAGAIN if there is none. */
static int
pvc_accept_fd__(const struct pvc_sock *sock, int *ret_fd)
{
    for (int i = 0; i < ACCEPT_RETRIES; i++) {
        int fd = accept4(sock->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            *ret_fd = fd;
            return 0;
        }
        switch (errno) {
        case EAGAIN:
        case EMFILE:
        case ENFILE:
        case ENOMEM:
        case ENOBUFS:
        case EINVAL:
            return errno;
        default:
            /* ECONNABORTED, or an error of the network that was pending on
             * the new connection: the next one may be good. */
            break;
        }
    }
    return EAGAIN;
}

/* Makes connection 'fd' the socket 'id_new' with 'ring', both of which it
 * takes over.  Returns 0 or a positive errno for the answer. */
static int
pvc_accept_finish__(struct pvc_dev *dev, uint64_t id_new, int fd,
                    struct pvc_ring *ring)
{
    struct pvc_sock *sock;
    int error = pvc_sock_create(dev, id_new, &sock);

    if (!error) {
        error = pvc_activate(sock, fd, ring);
        if (!error) {
            COVERAGE_INC(pvcalls_accepted);
            return 0;
        }
        pvc_sock_destroy(sock);
    }
    close(fd);
    pvc_ring_put(ring, false);
    return error;
}

/* ACCEPT.  Answers or parks. */
void
pvc_accept(struct pvc_dev *dev, const struct pvcalls_request *req)
{
    struct pvc_sock *sock = pvc_sock_find(dev, req->u.accept.id);
    struct pvc_ring *ring = NULL;
    int fd, error;

    if (!sock) {
        error = ENOTSOCK;
    } else if (sock->state != PVC_LISTENING) {
        error = EINVAL;
    } else if (pvc_sock_find(dev, req->u.accept.id_new)) {
        error = EEXIST;
    } else if (dev->n_socks >= dev->w->opt.max_sockets) {
        error = ENOBUFS;
    } else {
        error =
            pvc_ring_get(dev, req->u.accept.ref, req->u.accept.evtchn, &ring);
    }
    if (error) {
        pvc_respond(dev, req->req_id, req->cmd, req->u.accept.id, error);
        return;
    }
    /* First come, first served. */
    error = list_is_empty(&sock->parked) ? pvc_accept_fd__(sock, &fd) : EAGAIN;
    if (error == EAGAIN) {
        pvc_park__(sock, req, ring);
        return;
    }
    if (error) {
        pvc_ring_put(ring, false);
    } else {
        error = pvc_accept_finish__(dev, req->u.accept.id_new, fd, ring);
    }
    pvc_respond(dev, req->req_id, req->cmd, req->u.accept.id, error);
}

static bool
pvc_is_pending__(const struct pvc_sock *sock)
{
    struct pollfd pfd = {.fd = sock->fd, .events = POLLIN};

    return poll(&pfd, 1, 0) > 0;
}

/* POLL.  Answers or parks. */
void
pvc_poll(struct pvc_dev *dev, const struct pvcalls_request *req)
{
    struct pvc_sock *sock = pvc_sock_find(dev, req->u.poll.id);

    if (!sock || sock->state != PVC_LISTENING) {
        pvc_respond(dev, req->req_id, req->cmd, req->u.poll.id,
                    sock ? EINVAL : ENOTSOCK);
    } else if (pvc_is_pending__(sock)) {
        pvc_respond(dev, req->req_id, req->cmd, req->u.poll.id, 0);
    } else {
        pvc_park__(sock, req, NULL);
    }
}

/* A connection waits on 'sock': answers what is parked there. */
static void
pvc_listener_cb__(uint32_t events UNUSED, void *sock_)
{
    struct pvc_sock *sock = sock_;
    struct pvc_dev *dev = sock->dev;
    struct pvc_parked *p, *next;

    if (dev->up.is_failed) {
        return;
    }
    dev->w->had_work = true;
    LIST_FOR_EACH_SAFE (p, next, link, &sock->parked) {
        int fd, error;

        if (p->cmd != PVCALLS_ACCEPT) {
            continue;
        }
        error = pvc_accept_fd__(sock, &fd);
        if (error == EAGAIN) {
            break;
        }
        if (!error) {
            error = pvc_accept_finish__(dev, p->id_new, fd, p->ring);
            p->ring = NULL; /* Taken over in both cases. */
        }
        pvc_unpark__(p, error);
    }
    if (!list_is_empty(&sock->parked) && pvc_is_pending__(sock)) {
        LIST_FOR_EACH_SAFE (p, next, link, &sock->parked) {
            if (p->cmd == PVCALLS_POLL) {
                pvc_unpark__(p, 0);
            }
        }
    }
    pvc_flush(dev);
}
