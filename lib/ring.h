/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ring.h - the two kinds of ring that our protocols have, for both ends of
 * each: the command ring (PV Calls) and the byte ring (PV Calls data, 9pfs).
 * Works on mapped memory and knows no Xen: mapping and notifying are the
 * caller's, who is told here whether a notification is needed.
 *
 * Theory of operation
 * ===================
 *
 * Trust boundary.  Everything behind a `struct ring_u32 *` and in the data
 * area can be changed by the peer at any moment.  Own indices are private and
 * the authority; they are written out and never read back.  The peer's index
 * is fetched once, checked against the private one, and only the checked copy
 * is used.  EPROTO is the verdict on a peer whose index cannot be; the session
 * ends then, and the counters ring_bogus_index and ring_bogus_request say so.
 *
 * Data are never looked at here.  The caller gets iovecs of the filled or free
 * part, hands them to the kernel (sendmsg, recvmsg), and says how much went.
 *
 * Notifications.  Nobody needs to be woken who must look again before it
 * sleeps:
 *
 *   - After the producer's index moved, the consumer may sleep only if it had
 *     consumed all that was there before, i.e. if its index, read after a full
 *     barrier, equals our old one.  Otherwise it has yet to publish an index
 *     and to look at ours, in that order, and will find the new data.
 *   - After the consumer's index moved, the producer may sleep only if it had
 *     found less than 'want' bytes free, i.e. if its index, read after a full
 *     barrier, is within 'want' of our old one plus the size.  A PV Calls
 *     producer waits for one byte, a 9pfs producer for a whole message.  Such
 *     a ring is 'stalled' until the producer was notified, which may wait
 *     until enough is free to be worth it.
 *   - The command ring has event indices for the same purpose.
 */
#ifndef LIB_RING_H
#define LIB_RING_H 1

#include <sys/uio.h>

#include "lib/util.h"
#include "wire/pvcalls.h"
#include "wire/ring.h"

/* ## Byte ring: one direction, one end ## */

struct ring_bytes {
    struct ring_u32 *prod_shared; /* In the interface page. */
    struct ring_u32 *cons_shared;
    uint8_t *data;
    uint32_t size; /* Bytes, a power of two. */
    uint32_t prod; /* Own index, or the last checked copy of the peer's. */
    uint32_t cons;
    bool stalled; /* Consumer: the producer may wait for a notification. */
};

void ring_bytes_init(struct ring_bytes *, struct ring_u32 *prod_shared,
                     struct ring_u32 *cons_shared, void *data, uint32_t size);

int ring_bytes_free(struct ring_bytes *, uint32_t *ret_n) NODISCARD;
int ring_bytes_free_iov(const struct ring_bytes *, uint32_t skip, uint32_t n,
                        struct iovec iov[2]);
bool ring_bytes_produce(struct ring_bytes *, uint32_t n) NODISCARD;

int ring_bytes_used(struct ring_bytes *, uint32_t *ret_n) NODISCARD;
int ring_bytes_used_iov(const struct ring_bytes *, uint32_t skip, uint32_t n,
                        struct iovec iov[2]);
bool ring_bytes_consume(struct ring_bytes *, uint32_t n, uint32_t want,
                        uint32_t wake) NODISCARD;

void ring_bytes_copy_out(const struct ring_bytes *, uint32_t skip, void *dst,
                         uint32_t n);
void ring_bytes_copy_in(struct ring_bytes *, uint32_t skip, const void *src,
                        uint32_t n);

/* Cheap look, for polling: may the peer have moved its index since it was last
 * fetched?  Nothing may be concluded from the answer but that one should look
 * properly. */
bool ring_bytes_peer_produced(const struct ring_bytes *);
bool ring_bytes_peer_consumed(const struct ring_bytes *);

/* ## Command ring, back end ## */

struct ring_back {
    struct pvcalls_sring *sring;
    uint32_t req_cons; /* Requests taken. */
    uint32_t rsp_prod; /* Responses given. */
};

void ring_back_init(struct ring_back *, struct pvcalls_sring *);
int ring_back_take(struct ring_back *, struct pvcalls_request *ret) NODISCARD;
bool ring_back_sleep(struct ring_back *) NODISCARD;
bool ring_back_respond(struct ring_back *,
                       const struct pvcalls_response *) NODISCARD;
bool ring_back_peer_produced(const struct ring_back *);

/* ## Command ring, front end ## */

struct ring_front {
    struct pvcalls_sring *sring;
    uint32_t req_prod; /* Requests given. */
    uint32_t rsp_cons; /* Responses taken. */
};

void ring_front_init(struct ring_front *, struct pvcalls_sring *);
int ring_front_put(struct ring_front *, const struct pvcalls_request *,
                   bool *ret_notify) NODISCARD;
int
ring_front_take(struct ring_front *, struct pvcalls_response *ret) NODISCARD;
bool ring_front_sleep(struct ring_front *) NODISCARD;

#endif /* lib/ring.h */
