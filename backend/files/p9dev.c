/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * p9dev.c - a Xen 9pfs device: carries 9P messages between its rings and the
 * connection to vafsd.
 *
 * Theory of operation
 * ===================
 *
 * We do not understand files.  Of a message only the header is looked at; the
 * body goes from ring memory to the connection (sendmsg) and back (recvmsg)
 * without passing through ours.  The guest can change a body while it is being
 * sent: vafsd decodes what it received and has no second look at the ring.
 *
 * Requests.  The header is copied out once, checked (7 <= size <= limit), and
 * that copy is sent.  A message is begun only when all of it is in the ring,
 * so that a ring with half a message holds up nobody.  The limit is the
 * negotiated msize and never more than a ring's half; a message beyond it, a
 * tag that is in flight, or an index that cannot be ends the device.
 *
 * Four kinds of message are looked at a little further, because framing and
 * tags depend on them:
 *
 *   Tversion  msize is lowered to what the smallest ring can carry, or vafsd
 *             could send what no ring takes.  Nothing else is sent until the
 *             answer is there: it voids all tags in flight.
 *   Rversion  its msize is the limit from now on.
 *   Tflush    oldtag is remembered ...
 *   Rflush    ... and is free again, whether it was answered or not.
 *
 * Responses.  A response goes to the ring that brought the request; the map
 * from tag to ring is private.  It is begun only when all of it fits in the
 * ring, is received into the free part, and in_prod moves when it is complete:
 * frontends copy a response as soon as they see its header.  While one ring is
 * full nothing is read from the connection, so vafsd feels the back-pressure,
 * of this guest only.
 *
 * Each receive also asks for the header of the next message, so that a stream
 * of responses costs one system call each.  If only one request is in flight,
 * as with a program that waits for each answer, the ring is known beforehand
 * and header and body are received in one call, too.
 */
#include "backend/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/files/p9frame.h"
#include "lib/coverage.h"
#include "lib/ring.h"
#include "lib/vlog.h"
#include "wire/xen9pfs.h"

COVERAGE_DEFINE(p9_request);
COVERAGE_DEFINE(p9_response);
COVERAGE_DEFINE(p9_bytes_out);
COVERAGE_DEFINE(p9_bytes_in);
COVERAGE_DEFINE(p9_send);
COVERAGE_DEFINE(p9_recv);
COVERAGE_DEFINE(p9_notify_response);
COVERAGE_DEFINE(p9_notify_space);
COVERAGE_DEFINE(p9_in_full);
COVERAGE_DEFINE(p9_vafs_blocked);
COVERAGE_DEFINE(p9_budget);

/* Requests sent in one go. */
#define P9_BATCH 16
/* Bytes moved in one direction before others get their turn. */
#define P9_BUDGET (1024 * 1024)

struct p9_dev;

BUILD_ASSERT(P9FRAME_MAX_RINGS >= WP_MAX_RINGS);

struct p9_ring {
    struct p9_dev *dev;
    uint32_t order;
    struct hv_grant *intf_grant, *data_grant;
    struct xen9pfs_intf *intf;
    struct ring_bytes in;  /* Responses: we produce. */
    struct ring_bytes out; /* Requests: we consume. */
    struct worker_port port;
};

/* A request whose header was taken from a ring. */
struct p9_request {
    uint8_t head[P9FRAME_HEAD_MAX]; /* What is sent in place of the ring's. */
    uint32_t head_size;
    uint32_t size; /* Of the whole message. */
};

struct p9_dev {
    struct worker_device up;
    struct worker *w;
    char path[WP_PATH_SIZE];
    int fd; /* To vafsd. */
    struct loop_fd *handle;
    bool readable, writable, peer_closed;
    struct worker_task task;

    struct p9_ring rings[WP_MAX_RINGS];
    uint32_t n_rings;
    struct p9frame frame; /* Limits and tags. */

    /* Requests being sent, all from one ring. */
    struct p9_request batch[P9_BATCH];
    unsigned int n_batch;
    struct p9_ring *batch_ring;
    uint32_t batch_done; /* Bytes of batch[0] already sent. */
    uint32_t next_ring;  /* To be looked at first. */

    /* The response being received. */
    uint8_t head[P9FRAME_HEAD_MAX];
    uint32_t n_head;
    struct p9_ring *rx_ring; /* NULL: none; the head is not complete. */
    uint32_t rx_size, rx_done;
    bool rx_blocked; /* Waits for space in rx_ring. */

    uint64_t n_requests, n_responses;
};

static void p9_run__(void *dev);

static void
p9_fail_index__(struct p9_ring *ring, const char *which)
{
    worker_device_fail(&ring->dev->up, EPROTO, "impossible %s of ring %td",
                       which, ring - ring->dev->rings);
}

/* Requests. */

/* Takes the next request of 'ring' that lies 'skip' bytes behind out_cons, if
 * it is complete, into '*r'.  'used' bytes are in the ring.  Returns whether
 * there was one. */
static bool
p9_take_request__(struct p9_ring *ring, uint32_t skip, uint32_t used,
                  struct p9_request *r)
{
    struct p9_dev *dev = ring->dev;
    const char *error;
    uint32_t more;

    if (used - skip < XEN9PFS_HEADER_SIZE) {
        return false;
    }
    ring_bytes_copy_out(&ring->out, skip, r->head, XEN9PFS_HEADER_SIZE);
    error = p9frame_check_size(&dev->frame, r->head, ring->out.size, &r->size);
    if (error) {
        worker_device_fail(&dev->up, EPROTO, "request of %u bytes: %s",
                           r->size, error);
        return false;
    }
    if (used - skip < r->size) {
        return false;
    }
    /* For some kinds the head is longer than the header. */
    more = p9frame_request_head(r->head, r->size) - XEN9PFS_HEADER_SIZE;
    r->head_size = XEN9PFS_HEADER_SIZE + more;
    ring_bytes_copy_out(&ring->out, skip + XEN9PFS_HEADER_SIZE,
                        r->head + XEN9PFS_HEADER_SIZE, more);
    error =
        p9frame_request(&dev->frame, r->head, r->head_size, ring - dev->rings);
    if (error) {
        worker_device_fail(&dev->up, EPROTO, "request with tag %u: %s",
                           get_le16(r->head + 5), error);
        return false;
    }
    dev->n_requests++;
    COVERAGE_INC(p9_request);
    return true;
}

/* Fills the batch from 'ring'.  Returns whether there is something in it. */
static bool
p9_fill_batch__(struct p9_ring *ring)
{
    struct p9_dev *dev = ring->dev;
    uint32_t used, skip = 0;

    if (ring_bytes_used(&ring->out, &used)) {
        p9_fail_index__(ring, "out_prod");
        return false;
    }
    while (dev->n_batch < P9_BATCH && !p9frame_is_resetting(&dev->frame) &&
           p9_take_request__(ring, skip, used, &dev->batch[dev->n_batch])) {
        skip += dev->batch[dev->n_batch++].size;
    }
    dev->batch_ring = ring;
    dev->batch_done = 0;
    return dev->n_batch > 0 && !dev->up.is_failed;
}

/* Stores the pieces of the batch in 'iov' and returns their number. */
static int
p9_batch_iov__(struct p9_dev *dev, struct iovec iov[3 * P9_BATCH])
{
    uint32_t done = dev->batch_done;
    uint32_t pos = 0; /* Behind out_cons. */
    int n = 0;

    for (unsigned int i = 0; i < dev->n_batch; i++) {
        struct p9_request *r = &dev->batch[i];

        if (done < r->head_size) {
            iov[n].iov_base = r->head + done;
            iov[n++].iov_len = r->head_size - done;
            pos += r->head_size - done;
            done = r->head_size;
        }
        n += ring_bytes_used_iov(&dev->batch_ring->out, pos, r->size - done,
                                 &iov[n]);
        pos += r->size - done;
        done = 0;
    }
    return n;
}

/* 'n' bytes of the batch were sent. */
static void
p9_batch_sent__(struct p9_dev *dev, uint32_t n)
{
    struct p9_ring *ring = dev->batch_ring;
    unsigned int done = 0;

    dev->batch_done += n;
    while (done < dev->n_batch && dev->batch_done >= dev->batch[done].size) {
        dev->batch_done -= dev->batch[done++].size;
    }
    dev->n_batch -= done;
    memmove(dev->batch, dev->batch + done, dev->n_batch * sizeof *dev->batch);
    if (ring_bytes_consume(&ring->out, n,
                           MIN(dev->frame.msize, ring->out.size), 0)) {
        COVERAGE_INC(p9_notify_space);
        worker_port_notify(dev->w, &ring->port);
    }
}

/* Fills the batch from the next ring that has a request. */
static bool
p9_next_batch__(struct p9_dev *dev)
{
    for (uint32_t i = 0; i < dev->n_rings; i++) {
        struct p9_ring *ring =
            &dev->rings[(dev->next_ring + i) % dev->n_rings];

        if (p9_fill_batch__(ring)) {
            dev->next_ring = (ring - dev->rings + 1) % dev->n_rings;
            return true;
        }
        if (dev->up.is_failed) {
            return false;
        }
    }
    return false;
}

/* Sends requests.  Returns true if it stopped because of the budget. */
static bool
p9_run_out__(struct p9_dev *dev)
{
    size_t total = 0;

    while (dev->writable && (dev->n_batch || p9_next_batch__(dev))) {
        struct iovec iov[3 * P9_BATCH];
        struct msghdr msg = {.msg_iov = iov};
        ssize_t n;

        if (total >= P9_BUDGET) {
            COVERAGE_INC(p9_budget);
            return true;
        }
        msg.msg_iovlen = p9_batch_iov__(dev, iov);
        COVERAGE_INC(p9_send);
        n = sendmsg(dev->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            COVERAGE_ADD(p9_bytes_out, n);
            p9_batch_sent__(dev, n);
            total += n;
        } else if (errno == EAGAIN) {
            COVERAGE_INC(p9_vafs_blocked);
            dev->writable = false;
        } else if (errno != EINTR) {
            worker_device_fail(&dev->up, errno, "sending to vafsd: %s",
                               strerror(errno));
        }
        if (dev->up.is_failed) {
            break;
        }
    }
    return false;
}

/* Responses. */

/* Receives up to 'n_iov' pieces; maintains 'readable'.  Returns the number of
 * bytes, or 0 if there is nothing now or the device has failed. */
static size_t
p9_recv__(struct p9_dev *dev, struct iovec *iov, int n_iov)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n_iov};
    size_t want = 0;
    ssize_t n;

    for (int i = 0; i < n_iov; i++) {
        want += iov[i].iov_len;
    }
    COVERAGE_INC(p9_recv);
    do {
        n = recvmsg(dev->fd, &msg, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        if ((size_t) n < want && !dev->peer_closed) {
            /* The queue was emptied; more will be a new edge. */
            dev->readable = false;
        }
        return n;
    }
    if (!n) {
        worker_device_fail(&dev->up, EPIPE, "vafsd closed the connection");
    } else if (errno == EAGAIN) {
        dev->readable = false;
    } else {
        worker_device_fail(&dev->up, errno, "receiving from vafsd: %s",
                           strerror(errno));
    }
    return 0;
}

/* The head is complete: finds the ring.  False if the device has failed. */
static bool
p9_begin_response__(struct p9_dev *dev)
{
    const char *error;
    int ring;

    error = p9frame_response(&dev->frame, dev->head, &ring, &dev->rx_size);
    if (!error && dev->rx_size > dev->rings[ring].in.size) {
        error = "longer than the ring";
    }
    if (error) {
        worker_device_fail(&dev->up, EPROTO, "response from vafsd: %s", error);
        return false;
    }
    dev->rx_ring = &dev->rings[ring];
    dev->rx_done = 0;
    return true;
}

/* Receives the answer to the only request in flight in one go: the header to
 * private memory, the body to where it belongs in its ring.  Returns false,
 * having done nothing, where the usual way must be taken. */
static bool
p9_recv_only__(struct p9_dev *dev)
{
    int only = p9frame_only_ring(&dev->frame);
    struct p9_ring *ring;
    struct iovec iov[3];
    uint32_t space;
    size_t n;
    int n_iov;

    if (only < 0 || dev->n_head) {
        return false;
    }
    ring = &dev->rings[only];
    if (ring_bytes_free(&ring->in, &space) || space < dev->frame.msize) {
        return false;
    }
    iov[0].iov_base = dev->head;
    iov[0].iov_len = XEN9PFS_HEADER_SIZE;
    n_iov =
        ring_bytes_free_iov(&ring->in, XEN9PFS_HEADER_SIZE,
                            dev->frame.msize - XEN9PFS_HEADER_SIZE, &iov[1]);
    n = p9_recv__(dev, iov, 1 + n_iov);
    dev->n_head = MIN(n, XEN9PFS_HEADER_SIZE);
    if (dev->n_head < XEN9PFS_HEADER_SIZE || !p9_begin_response__(dev)) {
        return true;
    }
    if (n > dev->rx_size) {
        worker_device_fail(&dev->up, EPROTO,
                           "response from vafsd: a tag that is not in flight");
        return true;
    }
    ring_bytes_copy_in(&ring->in, 0, dev->head, XEN9PFS_HEADER_SIZE);
    dev->n_head = 0;
    dev->rx_done = n;
    return true;
}

/* Completes the head of the next response and finds its ring. */
static void
p9_recv_head__(struct p9_dev *dev)
{
    uint32_t head_size = dev->n_head < XEN9PFS_HEADER_SIZE
                             ? XEN9PFS_HEADER_SIZE
                             : p9frame_response_head(dev->head);

    if (dev->n_head < head_size) {
        struct iovec iov = {.iov_base = dev->head + dev->n_head,
                            .iov_len = head_size - dev->n_head};

        dev->n_head += p9_recv__(dev, &iov, 1);
        if (dev->up.is_failed || dev->n_head < head_size ||
            dev->n_head < p9frame_response_head(dev->head)) {
            return;
        }
    }
    p9_begin_response__(dev);
}

/* Waits for space and puts the head in the ring.  True if it is there. */
static bool
p9_place_head__(struct p9_dev *dev)
{
    uint32_t space;

    if (ring_bytes_free(&dev->rx_ring->in, &space)) {
        p9_fail_index__(dev->rx_ring, "in_cons");
        return false;
    }
    if (space < dev->rx_size) {
        if (!dev->rx_blocked) {
            COVERAGE_INC(p9_in_full);
        }
        dev->rx_blocked = true;
        return false;
    }
    dev->rx_blocked = false;
    ring_bytes_copy_in(&dev->rx_ring->in, 0, dev->head, dev->n_head);
    dev->rx_done = dev->n_head;
    dev->n_head = 0;
    return true;
}

/* Receives (the rest of) the body and perhaps the next header. */
static void
p9_recv_body__(struct p9_dev *dev)
{
    struct p9_ring *ring = dev->rx_ring;
    uint32_t left = dev->rx_size - dev->rx_done;
    struct iovec iov[3];
    size_t n;
    int n_iov;

    n_iov = ring_bytes_free_iov(&ring->in, dev->rx_done, left, iov);
    iov[n_iov].iov_base = dev->head;
    iov[n_iov++].iov_len = XEN9PFS_HEADER_SIZE;
    n = p9_recv__(dev, iov, n_iov);
    if (n > left) {
        dev->n_head = n - left;
        n = left;
    }
    dev->rx_done += n;
}

static void
p9_publish__(struct p9_dev *dev)
{
    struct p9_ring *ring = dev->rx_ring;
    bool notify = ring_bytes_produce(&ring->in, dev->rx_size);

#if !defined(__x86_64__) && !defined(__i386__)
    /* Linux's frontend has no full barrier between giving space back and
     * looking for the next response; on x86 the wake-up in between is one. */
    notify = true;
#endif
    if (notify) {
        COVERAGE_INC(p9_notify_response);
        worker_port_notify(dev->w, &ring->port);
    }
    COVERAGE_INC(p9_response);
    COVERAGE_ADD(p9_bytes_in, dev->rx_size);
    dev->n_responses++;
    dev->rx_ring = NULL;
}

/* Receives responses.  Returns true if it stopped because of the budget. */
static bool
p9_run_in__(struct p9_dev *dev)
{
    size_t total = 0;

    while (!dev->up.is_failed) {
        if (dev->rx_ring && !dev->rx_done && !p9_place_head__(dev)) {
            break;
        }
        if (dev->rx_ring && dev->rx_done == dev->rx_size) {
            total += dev->rx_size;
            p9_publish__(dev);
            continue;
        }
        /* A head may be complete already and need no receive. */
        if (!dev->readable &&
            (dev->rx_ring || dev->n_head < XEN9PFS_HEADER_SIZE ||
             dev->n_head < p9frame_response_head(dev->head))) {
            break;
        }
        if (total >= P9_BUDGET) {
            COVERAGE_INC(p9_budget);
            return true;
        }
        if (dev->rx_ring) {
            p9_recv_body__(dev);
        } else if (!p9_recv_only__(dev)) {
            p9_recv_head__(dev);
        }
    }
    return false;
}

/* Events. */

static void
p9_run__(void *dev_)
{
    struct p9_dev *dev = dev_;
    bool was_resetting, again;

    if (dev->up.is_failed) {
        return;
    }
    again = p9_run_out__(dev);
    was_resetting = p9frame_is_resetting(&dev->frame);
    again |= !dev->up.is_failed && p9_run_in__(dev);
    /* The answer to Tversion lets requests through that were held. */
    again |= was_resetting && !p9frame_is_resetting(&dev->frame);
    if (again && !dev->up.is_failed) {
        worker_task_queue(dev->w, &dev->task);
    }
}

static bool
p9_event__(void *ring_)
{
    struct p9_ring *ring = ring_;
    struct p9_dev *dev = ring->dev;
    uint32_t in_cons = ring->in.cons, out_prod = ring->out.prod;
    uint32_t n;

    p9_run__(dev);
    /* Also where nothing can be moved now, an index that cannot be ends the
     * device. */
    if (!dev->up.is_failed && ring_bytes_free(&ring->in, &n)) {
        p9_fail_index__(ring, "in_cons");
    }
    if (!dev->up.is_failed && ring_bytes_used(&ring->out, &n)) {
        p9_fail_index__(ring, "out_prod");
    }
    return in_cons != ring->in.cons || out_prod != ring->out.prod;
}

static bool
p9_peek__(const void *ring_)
{
    const struct p9_ring *ring = ring_;

    return !ring->dev->up.is_failed && (ring_bytes_peer_produced(&ring->out) ||
                                        ring_bytes_peer_consumed(&ring->in));
}

static void
p9_socket_cb__(uint32_t events, void *dev_)
{
    struct p9_dev *dev = dev_;

    if (dev->up.is_failed) {
        return;
    }
    dev->w->had_work = true;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) {
        dev->readable = true;
    }
    if (events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) {
        dev->peer_closed = true;
    }
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        dev->writable = true;
    }
    p9_run__(dev);
}

/* Device. */

static void
p9_destroy__(struct worker_device *up)
{
    struct p9_dev *dev = CONTAINER_OF(up, struct p9_dev, up);

    worker_task_cancel(&dev->task);
    for (uint32_t i = 0; i < dev->n_rings; i++) {
        struct p9_ring *ring = &dev->rings[i];

        worker_port_unbind(dev->w, &ring->port);
        hv_grant_release(ring->data_grant);
        hv_grant_release(ring->intf_grant);
    }
    loop_del_fd(dev->w->loop, dev->handle);
    close(dev->fd);
    p9frame_destroy(&dev->frame);
    free(dev);
}

static void
p9_rings_json__(const struct worker_device *up, json_t *object)
{
    const struct p9_dev *dev = CONTAINER_OF(up, const struct p9_dev, up);
    json_t *rings = json_array();

    for (uint32_t i = 0; i < dev->n_rings; i++) {
        const struct p9_ring *r = &dev->rings[i];

        json_array_append_new(
            rings, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "name",
                             (json_int_t) i, "order", (json_int_t) r->order,
                             "in_prod", (json_int_t) r->in.prod, "in_cons",
                             (json_int_t) r->in.cons, "out_prod",
                             (json_int_t) r->out.prod, "out_cons",
                             (json_int_t) r->out.cons));
    }
    json_object_set_new(object, "rings", rings);
}

static void
p9_sessions_json__(const struct worker_device *up, json_t *array)
{
    const struct p9_dev *dev = CONTAINER_OF(up, const struct p9_dev, up);

    json_array_append_new(
        array, json_pack("{s:s, s:I, s:I, s:I, s:I}", "path", dev->path,
                         "msize", (json_int_t) dev->frame.msize, "in_flight",
                         (json_int_t) dev->frame.n_in_flight, "requests",
                         (json_int_t) dev->n_requests, "responses",
                         (json_int_t) dev->n_responses));
}

static const struct worker_device_class p9_class = {
    .destroy = p9_destroy__,
    .rings = p9_rings_json__,
    .sessions = p9_sessions_json__,
};

/* Maps ring 'i' of 'geometry'.  0, or a positive errno and a sentence. */
static int
p9_map_ring__(struct p9_dev *dev, const struct wp_9pfs *geometry, uint32_t i,
              char reason[WP_REASON_SIZE])
{
    struct worker *w = dev->w;
    struct p9_ring *ring = &dev->rings[i];
    uint32_t refs[1u << XEN9PFS_MAX_ORDER];
    uint32_t half;
    void *mem;
    int error;

    error = hv_grant_map(w->hv, w->domid, &geometry->ring_ref[i], 1,
                         &ring->intf_grant, &mem);
    if (error) {
        snprintf(reason, WP_REASON_SIZE, "cannot map ring-ref%u %u: %s", i,
                 geometry->ring_ref[i], strerror(error));
        return error;
    }
    ring->intf = mem;
    ring->order = ring_fetch(&ring->intf->ring_order);
    ring_rmb();
    if (ring->order < XEN9PFS_MIN_ORDER || ring->order > XEN9PFS_MAX_ORDER ||
        ring->order > geometry->max_ring_page_order) {
        snprintf(reason, WP_REASON_SIZE, "ring %u has order %u, not 1..%u", i,
                 ring->order, geometry->max_ring_page_order);
        return EINVAL;
    }
    for (uint32_t j = 0; j < 1u << ring->order; j++) {
        refs[j] = ring_fetch(&ring->intf->ref[j]);
    }
    error = hv_grant_map(w->hv, w->domid, refs, 1u << ring->order,
                         &ring->data_grant, &mem);
    if (error) {
        snprintf(reason, WP_REASON_SIZE, "cannot map the pages of ring %u: %s",
                 i, strerror(error));
        return error;
    }
    half = xen9pfs_half_size(ring->order);
    ring_bytes_init(&ring->in, &ring->intf->in_prod, &ring->intf->in_cons, mem,
                    half);
    ring_bytes_init(&ring->out, &ring->intf->out_prod, &ring->intf->out_cons,
                    (uint8_t *) mem + half, half);
    error = worker_port_bind(w, &ring->port, geometry->port[i]);
    if (error) {
        snprintf(reason, WP_REASON_SIZE, "cannot bind event-channel-%u %u: %s",
                 i, geometry->port[i], strerror(error));
    }
    return error;
}

static int
p9_map_rings__(struct p9_dev *dev, const struct wp_9pfs *geometry,
               char reason[WP_REASON_SIZE])
{
    uint32_t smallest = UINT32_MAX;

    for (uint32_t i = 0; i < dev->n_rings; i++) {
        int error = p9_map_ring__(dev, geometry, i, reason);

        if (error) {
            return error;
        }
        smallest = MIN(smallest, dev->rings[i].in.size);
    }
    p9frame_set_max(&dev->frame, MIN(smallest, dev->w->opt.msize_max));
    return 0;
}

/* Maps the rings of 'geometry' and begins to carry messages between them and
 * 'vafs_fd', which it takes over in any case.  Returns 0 and the device in
 * '*ret', or a positive errno and a sentence in 'reason'. */
int
p9dev_create(struct worker *w, const struct wp_9pfs *geometry, int vafs_fd,
             struct worker_device **ret, char reason[WP_REASON_SIZE])
{
    struct p9_dev *dev;
    int error;

    if (geometry->n_rings < 1 || geometry->n_rings > WP_MAX_RINGS) {
        snprintf(reason, WP_REASON_SIZE, "%u rings", geometry->n_rings);
        close(vafs_fd);
        return EINVAL;
    }
    dev = calloc(1, sizeof *dev);
    if (!dev || p9frame_init(&dev->frame)) {
        snprintf(reason, WP_REASON_SIZE, "no memory for the device");
        free(dev);
        close(vafs_fd);
        return ENOMEM;
    }
    worker_device_init(&dev->up, w, &p9_class);
    dev->w = w;
    dev->fd = vafs_fd;
    memcpy(dev->path, geometry->path, sizeof dev->path - 1);
    worker_task_init(&dev->task, p9_run__, dev);
    dev->n_rings = geometry->n_rings;
    for (uint32_t i = 0; i < dev->n_rings; i++) {
        dev->rings[i].dev = dev;
        worker_port_init(&dev->rings[i].port, p9_event__, p9_peek__,
                         &dev->rings[i]);
    }
    error = p9_map_rings__(dev, geometry, reason);
    if (!error) {
        error = loop_add_fd(w->loop, vafs_fd,
                            EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                            p9_socket_cb__, dev, &dev->handle);
        if (error) {
            snprintf(reason, WP_REASON_SIZE, "epoll: %s", strerror(error));
        }
    }
    if (error) {
        p9_destroy__(&dev->up);
        return error;
    }
    worker_task_queue(w, &dev->task);
    *ret = &dev->up;
    return 0;
}
