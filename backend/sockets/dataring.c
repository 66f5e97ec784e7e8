/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * dataring.c - mapping a data ring: the indexes page, the pages it names, and
 * the event channel.
 *
 * The order and the references are read once, into a `struct pvc_ring`, and
 * only that copy is used, also for unmapping.  A ring that the guest says it
 * will use again is kept, mapped and bound, and found by the reference of its
 * indexes page; it is used only if order, references and event channel are
 * still the same, else it is unmapped and the new one mapped in its place.
 */
#include "backend/sockets/pvcalls-impl.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/coverage.h"

COVERAGE_DEFINE(pvcalls_ring_map);
COVERAGE_DEFINE(pvcalls_ring_reuse);
COVERAGE_DEFINE(pvcalls_ring_bad);

static bool
pvc_ring_event__(void *ring_)
{
    struct pvc_ring *ring = ring_;

    return ring->sock ? pvc_active_event(ring->sock) : false;
}

static bool
pvc_ring_peek__(const void *ring_)
{
    const struct pvc_ring *ring = ring_;

    return ring->sock && pvc_active_peek(ring->sock);
}

/* Unmaps and unbinds 'ring', which may be NULL, and frees it. */
void
pvc_ring_destroy(struct pvc_ring *ring)
{
    struct pvc_dev *dev;

    if (!ring) {
        return;
    }
    dev = ring->dev;
    if (!list_is_empty(&ring->link)) {
        list_remove(&ring->link);
        dev->n_reuse--;
    }
    worker_port_unbind(dev->w, &ring->port);
    if (ring->data_grant) {
        hv_grant_release(ring->data_grant);
        dev->n_pages -= 1u << ring->order;
    }
    if (ring->indexes_grant) {
        hv_grant_release(ring->indexes_grant);
        dev->n_pages--;
    }
    free(ring->refs);
    free(ring);
}

/* Reads the geometry from the mapped indexes page, once.  EINVAL: the order is
 * not one that we announced. */
static int
pvc_ring_geometry__(const struct pvc_dev *dev,
                    const struct pvcalls_indexes *indexes, uint32_t *ret_order,
                    uint32_t **ret_refs)
{
    uint32_t order = ring_fetch(&indexes->ring_order);
    uint32_t *refs;

    ring_rmb();
    if (order < PVCALLS_MIN_ORDER || order > dev->max_order) {
        return EINVAL;
    }
    refs = malloc(sizeof *refs << order);
    if (!refs) {
        return ENOMEM;
    }
    for (uint32_t i = 0; i < 1u << order; i++) {
        refs[i] = ring_fetch(&indexes->ref[i]);
    }
    *ret_order = order;
    *ret_refs = refs;
    return 0;
}

static struct pvc_ring *
pvc_ring_find__(struct pvc_dev *dev, uint32_t ref)
{
    struct pvc_ring *ring;

    LIST_FOR_EACH (ring, link, &dev->reuse) {
        if (ring->ref == ref) {
            return ring;
        }
    }
    return NULL;
}

/* Whether the kept 'ring' is still what the guest now says. */
static bool
pvc_ring_matches__(const struct pvc_ring *ring, uint32_t evtchn)
{
    uint32_t order;
    uint32_t *refs;
    bool same;

    if (ring->evtchn != evtchn ||
        pvc_ring_geometry__(ring->dev, ring->indexes, &order, &refs)) {
        return false;
    }
    same = order == ring->order &&
           !memcmp(refs, ring->refs, sizeof *refs << order);
    free(refs);
    return same;
}

/* Whether 'n' more pages may be mapped; lets go of kept rings for it. */
static bool
pvc_ring_charge__(struct pvc_dev *dev, uint32_t n)
{
    while (dev->n_pages + n > dev->w->opt.max_pages) {
        if (list_is_empty(&dev->reuse)) {
            return false;
        }
        pvc_ring_destroy(
            CONTAINER_OF(list_back(&dev->reuse), struct pvc_ring, link));
    }
    return true;
}

static int
pvc_ring_map__(struct pvc_ring *ring)
{
    struct pvc_dev *dev = ring->dev;
    struct worker *w = dev->w;
    void *mem;
    int error;

    if (!pvc_ring_charge__(dev, 1)) {
        return ENOBUFS;
    }
    error = hv_grant_map(w->hv, w->domid, &ring->ref, 1, &ring->indexes_grant,
                         &mem);
    if (error) {
        return error;
    }
    dev->n_pages++;
    ring->indexes = mem;
    error = pvc_ring_geometry__(dev, ring->indexes, &ring->order, &ring->refs);
    if (error) {
        return error;
    }
    if (!pvc_ring_charge__(dev, 1u << ring->order)) {
        return ENOBUFS;
    }
    error = hv_grant_map(w->hv, w->domid, ring->refs, 1u << ring->order,
                         &ring->data_grant, &mem);
    if (error) {
        return error;
    }
    dev->n_pages += 1u << ring->order;
    ring->data = mem;
    return worker_port_bind(w, &ring->port, ring->evtchn);
}

/* Maps the data ring whose indexes page is 'ref' and binds the guest's port
 * 'evtchn'.  Returns 0 and the ring in '*ret', to be given back with
 * pvc_ring_put(), or a positive errno: EINVAL for references, order or port
 * that are not good, ENOBUFS for a limit. */
int
pvc_ring_get(struct pvc_dev *dev, uint32_t ref, uint32_t evtchn,
             struct pvc_ring **ret)
{
    struct pvc_ring *ring = pvc_ring_find__(dev, ref);
    int error;

    if (ring) {
        if (pvc_ring_matches__(ring, evtchn)) {
            list_remove(&ring->link);
            dev->n_reuse--;
            COVERAGE_INC(pvcalls_ring_reuse);
            *ret = ring;
            return 0;
        }
        pvc_ring_destroy(ring);
    }
    ring = calloc(1, sizeof *ring);
    if (!ring) {
        return ENOMEM;
    }
    list_init(&ring->link);
    ring->dev = dev;
    ring->ref = ref;
    ring->evtchn = evtchn;
    worker_port_init(&ring->port, pvc_ring_event__, pvc_ring_peek__, ring);
    error = pvc_ring_map__(ring);
    if (error) {
        COVERAGE_INC(pvcalls_ring_bad);
        pvc_ring_destroy(ring);
        /* What a bad reference or port is called differs by hypervisor. */
        return error == ENOMEM || error == ENOBUFS ? error : EINVAL;
    }
    COVERAGE_INC(pvcalls_ring_map);
    *ret = ring;
    return 0;
}

/* Gives 'ring' back, which may be NULL: keeps it if 'reuse', else unmaps it
 * before returning. */
void
pvc_ring_put(struct pvc_ring *ring, bool reuse)
{
    struct pvc_dev *dev;

    if (!ring) {
        return;
    }
    dev = ring->dev;
    ring->sock = NULL;
    if (!reuse || pvc_ring_find__(dev, ring->ref)) {
        pvc_ring_destroy(ring);
        return;
    }
    if (dev->n_reuse >= PVC_REUSE_MAX) {
        pvc_ring_destroy(
            CONTAINER_OF(list_back(&dev->reuse), struct pvc_ring, link));
    }
    list_push_front(&dev->reuse, &ring->link);
    dev->n_reuse++;
}
