/* SPDX-License-Identifier: MIT
 *
 * Xen 9pfs transport, version 1: what lies in a ring's interface page and in
 * its data pages, to the byte.  Follows Xen's xen/include/public/io/9pfs.h
 * where that and the pictures in the specification differ.
 *
 * A device has one or more rings; each has an interface page, 2^order data
 * pages and an event channel.  "in" runs from backend to frontend (responses),
 * "out" from frontend to backend (requests).  Indices are free-running and
 * move by bytes; messages are plain 9P and may wrap around the end.
 */

#ifndef WIRE_XEN9PFS_H
#define WIRE_XEN9PFS_H 1

#include "wire/ring.h"

#define XEN9PFS_PAGE_SIZE 4096u
#define XEN9PFS_VERSION "1" /* Nodes "versions" and "version". */

#define XEN9PFS_MIN_ORDER 1u
#define XEN9PFS_MAX_ORDER 9u

struct xen9pfs_intf {
    struct ring_u32 in_cons; /* Frontend writes. */
    struct ring_u32 in_prod; /* Backend writes, by whole messages only. */
    uint8_t pad1[56];
    struct ring_u32 out_cons; /* Backend writes. */
    struct ring_u32 out_prod; /* Frontend writes. */
    uint8_t pad2[56];
    struct ring_u32 ring_order; /* Frontend writes, once. */
    struct ring_u32 ref[(XEN9PFS_PAGE_SIZE - 132) / 4];
};

_Static_assert(sizeof(struct xen9pfs_intf) == XEN9PFS_PAGE_SIZE,
               "interface fills a page");
_Static_assert(__builtin_offsetof(struct xen9pfs_intf, in_prod) == 4, "4");
_Static_assert(__builtin_offsetof(struct xen9pfs_intf, out_cons) == 64, "64");
_Static_assert(__builtin_offsetof(struct xen9pfs_intf, out_prod) == 68, "68");
_Static_assert(__builtin_offsetof(struct xen9pfs_intf, ring_order) == 128,
               "128");
_Static_assert(__builtin_offsetof(struct xen9pfs_intf, ref) == 132, "132");
_Static_assert((1u << XEN9PFS_MAX_ORDER) <=
                   (XEN9PFS_PAGE_SIZE - 132) / sizeof(struct ring_u32),
               "the references of the largest ring fit");

/* Bytes of each direction: the longest message that a ring can carry. */
static inline uint32_t
xen9pfs_half_size(unsigned int order)
{
    return (XEN9PFS_PAGE_SIZE / 2) << order;
}

/* Header of every 9P message: size[4] type[1] tag[2]. */
#define XEN9PFS_HEADER_SIZE 7u
#define XEN9PFS_NOTAG 0xffffu

#endif /* wire/xen9pfs.h */
