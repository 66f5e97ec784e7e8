/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * p9front.c - see p9front.h.
 */
#include "tests/peers/p9front.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

static int
p9front_ring_create(struct p9front *f, uint16_t backend,
                    struct p9front_ring *r, uint32_t order)
{
    uint32_t refs[1u << XEN9PFS_MAX_ORDER];
    uint32_t half = xen9pfs_half_size(order);
    void *mem;
    int error;

    error =
        hv_pages_alloc(f->hv, backend, 1, true, &r->ref, &mem, &r->intf_pages);
    if (error) {
        return error;
    }
    r->intf = mem;
    error = hv_pages_alloc(f->hv, backend, 1u << order, true, refs, &mem,
                           &r->data_pages);
    if (error) {
        return error;
    }
    for (uint32_t i = 0; i < 1u << order; i++) {
        ring_store(&r->intf->ref[i], refs[i]);
    }
    ring_store(&r->intf->ring_order, order);
    r->order = order;
    ring_bytes_init(&r->in, &r->intf->in_prod, &r->intf->in_cons, mem, half);
    ring_bytes_init(&r->out, &r->intf->out_prod, &r->intf->out_cons,
                    (char *) mem + half, half);
    return hv_evtchn_alloc_unbound(f->hv, backend, &r->port);
}

/* Makes 'n_rings' rings of 2^'order' pages for 'backend'. */
int
p9front_create(struct hv *hv, uint16_t backend, uint32_t n_rings,
               uint32_t order, struct p9front **ret)
{
    struct p9front *f = calloc(1, sizeof *f);

    if (!f) {
        return ENOMEM;
    }
    f->hv = hv;
    f->n_rings = n_rings;
    for (uint32_t i = 0; i < n_rings; i++) {
        int error = p9front_ring_create(f, backend, &f->rings[i], order);

        if (error) {
            p9front_destroy(f);
            return error;
        }
    }
    *ret = f;
    return 0;
}

void
p9front_destroy(struct p9front *f)
{
    if (!f) {
        return;
    }
    for (uint32_t i = 0; i < f->n_rings; i++) {
        struct p9front_ring *r = &f->rings[i];

        if (r->port) {
            hv_evtchn_unbind(f->hv, r->port);
        }
        hv_pages_free(r->data_pages);
        hv_pages_free(r->intf_pages);
    }
    free(f);
}

/* Puts a message.  EAGAIN: it does not fit now. */
int
p9front_put(struct p9front *f, uint32_t ring, const void *msg, uint32_t size)
{
    struct p9front_ring *r = &f->rings[ring];
    uint32_t space;
    int error = ring_bytes_free(&r->out, &space);

    if (error) {
        return error;
    }
    if (space < size) {
        return EAGAIN;
    }
    ring_bytes_copy_in(&r->out, 0, msg, size);
    /* Linux notifies always; this is what would do. */
    if (ring_bytes_produce(&r->out, size)) {
        f->n_notify++;
        hv_evtchn_notify(f->hv, r->port);
    }
    return 0;
}

/* Takes a message into 'msg'.  EAGAIN: there is none.  EPROTO: the backend
 * published a part of one. */
int
p9front_take(struct p9front *f, uint32_t ring, void *msg, uint32_t max,
             uint32_t *ret_size)
{
    struct p9front_ring *r = &f->rings[ring];
    struct iovec iov[2];
    uint32_t used, size;
    uint8_t head[7], *p = msg;
    int error = ring_bytes_used(&r->in, &used);

    if (error) {
        return error;
    }
    if (!used) {
        return EAGAIN;
    }
    if (used < sizeof head) {
        return EPROTO;
    }
    ring_bytes_copy_out(&r->in, 0, head, sizeof head);
    size = get_le32(head);
    if (size < sizeof head || size > used || size > max) {
        return EPROTO;
    }
    for (int i = 0, n = ring_bytes_used_iov(&r->in, 0, size, iov); i < n;
         i++) {
        memcpy(p, iov[i].iov_base, iov[i].iov_len);
        p += iov[i].iov_len;
    }
    /* Any space may be what the backend waits for. */
    if (ring_bytes_consume(&r->in, size, r->in.size, 0)) {
        f->n_notify++;
        hv_evtchn_notify(f->hv, r->port);
    }
    *ret_size = size;
    return 0;
}

/* Waits for an event.  False if none came. */
bool
p9front_wait(struct p9front *f, int timeout_ms)
{
    struct pollfd pfd = {.fd = hv_evtchn_fd(f->hv), .events = POLLIN};
    uint32_t ports[16];
    size_t n = 0;

    if (poll(&pfd, 1, timeout_ms) > 0 &&
        !hv_evtchn_read(f->hv, ports, ARRAY_SIZE(ports), &n) && n) {
        f->n_event += n;
        hv_evtchn_unmask(f->hv, ports, n);
    }
    return n > 0;
}
