/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * p9front.h - 9pfs frontend transport in user space, for tests: puts whole
 * messages into rings and takes whole messages out, as Linux's does.
 */
#ifndef TESTS_PEERS_P9FRONT_H
#define TESTS_PEERS_P9FRONT_H 1

#include "hv/hv.h"
#include "lib/ring.h"
#include "wire/xen9pfs.h"

#define P9FRONT_MAX_RINGS 8

struct p9front_ring {
    struct hv_pages *intf_pages, *data_pages;
    struct xen9pfs_intf *intf;
    struct ring_bytes in, out;
    uint32_t order, ref, port;
};

struct p9front {
    struct hv *hv;
    uint32_t n_rings;
    struct p9front_ring rings[P9FRONT_MAX_RINGS];
    uint64_t n_notify, n_event;
};

int p9front_create(struct hv *, uint16_t backend, uint32_t n_rings,
                   uint32_t order, struct p9front **ret) NODISCARD;
void p9front_destroy(struct p9front *);
int p9front_put(struct p9front *, uint32_t ring, const void *msg,
                uint32_t size) NODISCARD;
int p9front_take(struct p9front *, uint32_t ring, void *msg, uint32_t max,
                 uint32_t *ret_size) NODISCARD;
bool p9front_wait(struct p9front *, int timeout_ms);

#endif /* tests/peers/p9front.h */
