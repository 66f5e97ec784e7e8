/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pvcalls.c - a PV Calls v1 device: its command ring, and the table of the
 * sockets that the guest has named.
 *
 * Theory of operation
 * ===================
 *
 * Every request is copied out of the ring once and answered exactly once: at
 * once, or later if it is a CONNECT (kept in its socket) or a parked ACCEPT or
 * POLL.  A request that cannot be carried out costs itself an error and
 * nothing else.  Only a ring index that cannot be ends the device.
 *
 * Ids are whatever 64-bit number the guest likes; they are looked up in a
 * table and mean nothing else.  SOCKET enters an id.  BIND and CONNECT enter
 * one that is not there, because SOCKET is advisory and because a frontend
 * that lost its backend repeats only what had an effect.
 *
 * Answers are written as they come; the notification is sent once at the end
 * of each callback (pvc_flush()), and only if the frontend asked for it.
 */
#include "backend/sockets/pvcalls-impl.h"

#include <errno.h>
#include <inttypes.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/coverage.h"
#include "lib/vlog.h"

COVERAGE_DEFINE(pvcalls_command);
COVERAGE_DEFINE(pvcalls_command_unknown);
COVERAGE_DEFINE(pvcalls_answer_error);
COVERAGE_DEFINE(pvcalls_notify_command);
COVERAGE_DEFINE(pvcalls_limit);

/* Puts the answer to request 'req_id' in the ring: 'error' is 0 or a positive
 * errno.  The notification waits for pvc_flush(). */
void
pvc_respond(struct pvc_dev *dev, uint32_t req_id, uint32_t cmd, uint64_t id,
            int error)
{
    struct pvcalls_response rsp = {
        .req_id = req_id, .cmd = cmd, .ret = -error, .id = id};

    if (error && error != EAGAIN) {
        COVERAGE_INC(pvcalls_answer_error);
    }
    dev->notify |= ring_back_respond(&dev->ring, &rsp);
}

/* Notifies the guest of answers, if it wants that.  Call it at the end of each
 * callback that may have answered. */
void
pvc_flush(struct pvc_dev *dev)
{
    if (dev->notify) {
        dev->notify = false;
        COVERAGE_INC(pvcalls_notify_command);
        worker_port_notify(dev->w, &dev->port);
    }
}

/* Sockets. */

struct pvc_sock *
pvc_sock_find(const struct pvc_dev *dev, uint64_t id)
{
    return idmap_find(&dev->ids, id);
}

/* Enters 'id' as a new socket.  EEXIST, ENOMEM; ENOBUFS: the guest has as many
 * as it may have. */
int
pvc_sock_create(struct pvc_dev *dev, uint64_t id, struct pvc_sock **ret)
{
    struct pvc_sock *sock;
    int error;

    if (pvc_sock_find(dev, id)) {
        return EEXIST;
    }
    if (dev->n_socks >= dev->w->opt.max_sockets) {
        COVERAGE_INC(pvcalls_limit);
        return ENOBUFS;
    }
    sock = calloc(1, sizeof *sock);
    if (!sock) {
        return ENOMEM;
    }
    error = idmap_add(&dev->ids, id, sock);
    if (error) {
        free(sock);
        return error;
    }
    sock->dev = dev;
    sock->id = id;
    sock->fd = -1;
    list_init(&sock->parked);
    worker_task_init(&sock->task, pvc_active_run, sock);
    list_push_back(&dev->socks, &sock->link);
    dev->n_socks++;
    *ret = sock;
    return 0;
}

/* Gives 'sock' a descriptor.  0 or a positive errno. */
int
pvc_sock_open(struct pvc_sock *sock)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return errno;
    }
    sock->fd = fd;
    return 0;
}

void
pvc_sock_close_fd(struct pvc_sock *sock)
{
    loop_del_fd(sock->dev->w->loop, sock->handle);
    sock->handle = NULL;
    if (sock->fd >= 0) {
        close(sock->fd);
        sock->fd = -1;
    }
}

/* Frees 'sock', closing its descriptor and unmapping its ring if it has one.
 * What is parked on it must have been answered, unless the device ends. */
void
pvc_sock_destroy(struct pvc_sock *sock)
{
    struct pvc_dev *dev = sock->dev;

    worker_task_cancel(&sock->task);
    pvc_sock_close_fd(sock);
    pvc_ring_put(sock->ring, false);
    idmap_remove(&dev->ids, sock->id);
    list_remove(&sock->link);
    dev->n_socks--;
    free(sock);
}

/* SOCKET.  Returns 0 or a positive errno for the answer. */
static int
pvc_socket__(struct pvc_dev *dev, const struct pvcalls_request *req)
{
    struct pvc_sock *sock;

    if (req->u.socket.domain != AF_INET) {
        return EAFNOSUPPORT;
    }
    if (req->u.socket.type != SOCK_STREAM) {
        return ESOCKTNOSUPPORT;
    }
    if (req->u.socket.protocol != 0) {
        return EPROTONOSUPPORT;
    }
    return pvc_sock_create(dev, req->u.socket.id, &sock);
}

/* Commands. */

static void
pvc_dispatch__(struct pvc_dev *dev, const struct pvcalls_request *req)
{
    uint64_t id = req->u.poll.id; /* At the same place in all commands. */

    COVERAGE_INC(pvcalls_command);
    switch (req->cmd) {
    case PVCALLS_SOCKET:
        pvc_respond(dev, req->req_id, req->cmd, id, pvc_socket__(dev, req));
        break;
    case PVCALLS_CONNECT:
        pvc_connect(dev, req);
        break;
    case PVCALLS_RELEASE:
        pvc_release(dev, req);
        break;
    case PVCALLS_BIND:
        pvc_respond(dev, req->req_id, req->cmd, id, pvc_bind(dev, req));
        break;
    case PVCALLS_LISTEN:
        pvc_respond(dev, req->req_id, req->cmd, id, pvc_listen(dev, req));
        break;
    case PVCALLS_ACCEPT:
        pvc_accept(dev, req);
        break;
    case PVCALLS_POLL:
        pvc_poll(dev, req);
        break;
    default:
        COVERAGE_INC(pvcalls_command_unknown);
        pvc_respond(dev, req->req_id, req->cmd, id, PVC_ENOTSUP);
        break;
    }
}

/* Handles the requests in the ring, up to the budget.  Returns whether there
 * was one. */
static bool
pvc_run_commands__(struct pvc_dev *dev)
{
    struct pvcalls_request req;
    int n = 0;

    while (!dev->up.is_failed) {
        int error;

        if (n >= PVC_COMMAND_BUDGET) {
            worker_task_queue(dev->w, &dev->task);
            break;
        }
        error = ring_back_take(&dev->ring, &req);
        if (error == EAGAIN) {
            if (ring_back_sleep(&dev->ring)) {
                break;
            }
        } else if (error) {
            worker_device_fail(&dev->up, error,
                               "impossible request index in the command ring");
        } else {
            pvc_dispatch__(dev, &req);
            n++;
        }
    }
    if (!dev->up.is_failed) {
        pvc_flush(dev);
    }
    return n > 0;
}

static void
pvc_task__(void *dev)
{
    pvc_run_commands__(dev);
}

static bool
pvc_event__(void *dev)
{
    return pvc_run_commands__(dev);
}

static bool
pvc_peek__(const void *dev_)
{
    const struct pvc_dev *dev = dev_;

    return !dev->up.is_failed && ring_back_peer_produced(&dev->ring);
}

/* Device. */

static void
pvc_destroy__(struct worker_device *up)
{
    struct pvc_dev *dev = CONTAINER_OF(up, struct pvc_dev, up);

    loop_timer_cancel(&dev->park_timer);
    worker_task_cancel(&dev->task);
    for (size_t i = 0; i < ARRAY_SIZE(dev->park); i++) {
        /* Free ones have no ring. */
        pvc_ring_put(dev->park[i].sock ? dev->park[i].ring : NULL, false);
    }
    while (!list_is_empty(&dev->socks)) {
        pvc_sock_destroy(
            CONTAINER_OF(list_front(&dev->socks), struct pvc_sock, link));
    }
    while (!list_is_empty(&dev->reuse)) {
        pvc_ring_destroy(
            CONTAINER_OF(list_front(&dev->reuse), struct pvc_ring, link));
    }
    while (!list_is_empty(&dev->lingering)) {
        pvc_linger_destroy(CONTAINER_OF(list_front(&dev->lingering),
                                        struct pvc_linger, link));
    }
    worker_port_unbind(dev->w, &dev->port);
    hv_grant_release(dev->grant);
    idmap_destroy(&dev->ids);
    free(dev);
}

static const char *
pvc_state_name__(enum pvc_state state)
{
    switch (state) {
    case PVC_NEW:
        return "new";
    case PVC_BOUND:
        return "bound";
    case PVC_LISTENING:
        return "listening";
    case PVC_CONNECTING:
        return "connecting";
    case PVC_ACTIVE:
        return "active";
    }
    return "?";
}

static void
pvc_rings_json__(const struct worker_device *up, json_t *object)
{
    const struct pvc_dev *dev = CONTAINER_OF(up, const struct pvc_dev, up);

    json_object_set_new(object, "sockets", json_integer(dev->n_socks));
    json_object_set_new(object, "pages", json_integer(dev->n_pages));
    json_object_set_new(object, "parked", json_integer(dev->n_parked));
    json_object_set_new(object, "kept_rings", json_integer(dev->n_reuse));
    json_object_set_new(object, "linger_bytes",
                        json_integer(dev->linger_bytes));
    json_object_set_new(object, "rings",
                        json_pack("[{s:s, s:I, s:I}]", "name", "commands",
                                  "requests", (json_int_t) dev->ring.req_cons,
                                  "responses",
                                  (json_int_t) dev->ring.rsp_prod));
}

static void
pvc_name_json__(json_t *o, const char *key, int fd,
                int (*get)(int, struct sockaddr *, socklen_t *))
{
    struct sockaddr_in sin;
    socklen_t len = sizeof sin;
    char ip[INET_ADDRSTRLEN], text[INET_ADDRSTRLEN + 8];

    if (fd < 0 || get(fd, (struct sockaddr *) &sin, &len) ||
        sin.sin_family != AF_INET) {
        return;
    }
    inet_ntop(AF_INET, &sin.sin_addr, ip, sizeof ip);
    snprintf(text, sizeof text, "%s:%u", ip, ntohs(sin.sin_port));
    json_object_set_new(o, key, json_string(text));
}

static int
pvc_getsockname__(int fd, struct sockaddr *sa, socklen_t *len)
{
    return getsockname(fd, sa, len);
}

static int
pvc_getpeername__(int fd, struct sockaddr *sa, socklen_t *len)
{
    return getpeername(fd, sa, len);
}

static void
pvc_sessions_json__(const struct worker_device *up, json_t *array)
{
    const struct pvc_dev *dev = CONTAINER_OF(up, const struct pvc_dev, up);
    const struct pvc_sock *sock;

    LIST_FOR_EACH (sock, link, &dev->socks) {
        char id[24];
        json_t *o = json_object();

        snprintf(id, sizeof id, "%#" PRIx64, sock->id);
        json_object_set_new(o, "id", json_string(id));
        json_object_set_new(o, "state",
                            json_string(pvc_state_name__(sock->state)));
        pvc_name_json__(o, "local", sock->fd, pvc_getsockname__);
        pvc_name_json__(o, "peer", sock->fd, pvc_getpeername__);
        if (sock->ring) {
            json_object_set_new(o, "order", json_integer(sock->ring->order));
            json_object_set_new(o, "in", json_integer(sock->n_in));
            json_object_set_new(o, "out", json_integer(sock->n_out));
        }
        json_array_append_new(array, o);
    }
}

static const struct worker_device_class pvc_class = {
    .destroy = pvc_destroy__,
    .rings = pvc_rings_json__,
    .sessions = pvc_sessions_json__,
};

/* Maps the command ring and begins to serve it.  Returns 0 and the device in
 * '*ret', or a positive errno and a sentence in 'reason'. */
int
pvcalls_create(struct worker *w, const struct wp_pvcalls *geometry,
               struct worker_device **ret, char reason[WP_REASON_SIZE])
{
    struct pvc_dev *dev;
    void *mem;
    int error;

    if (geometry->max_page_order < PVCALLS_MIN_ORDER ||
        geometry->max_page_order > PVCALLS_MAX_ORDER) {
        snprintf(reason, WP_REASON_SIZE, "max-page-order %u is not in 1..9",
                 geometry->max_page_order);
        return EINVAL;
    }
    dev = calloc(1, sizeof *dev);
    if (!dev) {
        snprintf(reason, WP_REASON_SIZE, "no memory for the device");
        return ENOMEM;
    }
    worker_device_init(&dev->up, w, &pvc_class);
    dev->w = w;
    dev->flags = geometry->flags;
    dev->max_order = geometry->max_page_order;
    idmap_init(&dev->ids);
    list_init(&dev->socks);
    list_init(&dev->parked_polls);
    list_init(&dev->parked_accepts);
    list_init(&dev->parked_free);
    list_init(&dev->reuse);
    list_init(&dev->lingering);
    for (size_t i = 0; i < ARRAY_SIZE(dev->park); i++) {
        list_push_back(&dev->parked_free, &dev->park[i].age);
        list_init(&dev->park[i].link);
    }
    loop_timer_init(&dev->park_timer, pvc_park_timer_cb, dev);
    worker_task_init(&dev->task, pvc_task__, dev);
    worker_port_init(&dev->port, pvc_event__, pvc_peek__, dev);

    error = hv_grant_map(w->hv, w->domid, &geometry->ring_ref, 1, &dev->grant,
                         &mem);
    if (error) {
        snprintf(reason, WP_REASON_SIZE, "cannot map ring-ref %u: %s",
                 geometry->ring_ref, strerror(error));
        pvc_destroy__(&dev->up);
        return error;
    }
    ring_back_init(&dev->ring, mem);
    error = worker_port_bind(w, &dev->port, geometry->port);
    if (error) {
        snprintf(reason, WP_REASON_SIZE, "cannot bind port %u: %s",
                 geometry->port, strerror(error));
        pvc_destroy__(&dev->up);
        return error;
    }
    /* What may be in the ring already. */
    worker_task_queue(w, &dev->task);
    *ret = &dev->up;
    return 0;
}
