/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ring.c - see ring.h.
 *
 * The fetch helpers are separate functions and not inlined, so that a test can
 * disassemble each and count its loads of shared memory.
 */
#include "lib/ring.h"

#include <errno.h>

#include "lib/coverage.h"

COVERAGE_DEFINE(ring_bogus_index);
COVERAGE_DEFINE(ring_bogus_request);

/* Loads the peer's index once. */
uint32_t __attribute__((noinline)) ring_load_index__(const struct ring_u32 *);

/* Copies the request or response with index 'idx' to private memory, each
 * word once. */
void __attribute__((noinline))
ring_load_request__(struct pvcalls_request *, const struct pvcalls_sring *,
                    uint32_t idx);
void __attribute__((noinline))
ring_load_response__(struct pvcalls_response *, const struct pvcalls_sring *,
                     uint32_t idx);

uint32_t
ring_load_index__(const struct ring_u32 *field)
{
    return ring_fetch(field);
}

void
ring_load_request__(struct pvcalls_request *ret,
                    const struct pvcalls_sring *sring, uint32_t idx)
{
    pvcalls_request_fetch(ret, sring, idx);
}

void
ring_load_response__(struct pvcalls_response *ret,
                     const struct pvcalls_sring *sring, uint32_t idx)
{
    pvcalls_response_fetch(ret, sring, idx);
}

/* Byte ring. */

/* Initializes one end of one direction, empty, both indices 0: whoever begins
 * a session with a ring zeroes its interface page first.  Writes nothing to
 * shared memory.  'size' must be a power of two. */
void
ring_bytes_init(struct ring_bytes *r, struct ring_u32 *prod_shared,
                struct ring_u32 *cons_shared, void *data, uint32_t size)
{
    r->prod_shared = prod_shared;
    r->cons_shared = cons_shared;
    r->data = data;
    r->size = size;
    r->prod = r->cons = 0;
    r->stalled = false;
}

/* For the producer: fetches the consumer's index and stores the bytes of free
 * space in '*ret_n'.  EPROTO: the consumer's index cannot be. */
int
ring_bytes_free(struct ring_bytes *r, uint32_t *ret_n)
{
    uint32_t cons = ring_load_index__(r->cons_shared);

    /* The consumer has read what it gave back before we overwrite it. */
    ring_mb();
    /* It may only move forward, and not past what was produced. */
    if (!ring_is_sane(r->prod, cons, r->size) ||
        !ring_is_sane(cons, r->cons, ring_used(r->prod, r->cons))) {
        COVERAGE_INC(ring_bogus_index);
        return EPROTO;
    }
    r->cons = cons;
    *ret_n = ring_free(r->prod, cons, r->size);
    return 0;
}

/* For the consumer: fetches the producer's index and stores the bytes that
 * wait in '*ret_n'.  EPROTO: the producer's index cannot be. */
int
ring_bytes_used(struct ring_bytes *r, uint32_t *ret_n)
{
    uint32_t prod = ring_load_index__(r->prod_shared);

    ring_rmb();
    /* What was once produced cannot be taken back. */
    if (!ring_is_sane(prod, r->cons, r->size) ||
        ring_used(prod, r->cons) < ring_used(r->prod, r->cons)) {
        COVERAGE_INC(ring_bogus_index);
        return EPROTO;
    }
    r->prod = prod;
    *ret_n = ring_used(prod, r->cons);
    return 0;
}

static int
ring_bytes_iov__(const struct ring_bytes *r, uint32_t idx, uint32_t n,
                 struct iovec iov[2])
{
    uint32_t first = ring_contiguous(idx, n, r->size);

    if (!n) {
        return 0;
    }
    iov[0].iov_base = r->data + ring_offset(idx, r->size);
    iov[0].iov_len = first;
    if (first == n) {
        return 1;
    }
    iov[1].iov_base = r->data;
    iov[1].iov_len = n - first;
    return 2;
}

/* Stores in 'iov' where 'n' bytes go that are produced after 'skip' others.
 * 'skip' + 'n' must not exceed what ring_bytes_free() said.  Returns the
 * number of pieces, 0 to 2. */
int
ring_bytes_free_iov(const struct ring_bytes *r, uint32_t skip, uint32_t n,
                    struct iovec iov[2])
{
    return ring_bytes_iov__(r, r->prod + skip, n, iov);
}

/* Stores in 'iov' where 'n' bytes lie that come after 'skip' others.  'skip' +
 * 'n' must not exceed what ring_bytes_used() said.  Returns the number of
 * pieces, 0 to 2. */
int
ring_bytes_used_iov(const struct ring_bytes *r, uint32_t skip, uint32_t n,
                    struct iovec iov[2])
{
    return ring_bytes_iov__(r, r->cons + skip, n, iov);
}

/* Publishes 'n' bytes written into the free space.  True if the consumer may
 * be asleep and must be notified. */
bool
ring_bytes_produce(struct ring_bytes *r, uint32_t n)
{
    uint32_t old = r->prod;

    r->prod += n;
    ring_publish(r->prod_shared, r->prod);
    ring_mb();
    return ring_load_index__(r->cons_shared) == old;
}

/* Gives 'n' bytes back to the producer, which is supposed to sleep only while
 * less than 'want' bytes (1 <= want <= size) are free, and not to mind being
 * woken only when 'wake' bytes are (wake <= size / 2).  True if it must be
 * notified now. */
bool
ring_bytes_consume(struct ring_bytes *r, uint32_t n, uint32_t want,
                   uint32_t wake)
{
    uint32_t old = r->cons;
    uint32_t prod;

    r->cons += n;
    ring_release(r->cons_shared, r->cons);
    ring_mb();
    prod = ring_load_index__(r->prod_shared);
    /* A bogus index is dealt with by the next ring_bytes_used(). */
    if (ring_used(prod, old) > r->size - want) {
        r->stalled = true;
    }
    if (r->stalled && ring_used(prod, r->cons) <= r->size - wake) {
        r->stalled = false;
        return true;
    }
    return false;
}

/* Copies 'n' bytes that come after 'skip' others from the filled part to
 * private memory, once. */
void
ring_bytes_copy_out(const struct ring_bytes *r, uint32_t skip, void *dst,
                    uint32_t n)
{
    const volatile uint8_t *data = r->data;
    uint8_t *out = dst;

    /* Byte by byte and volatile: meant for headers, where the compiler must
     * not read anything twice. */
    for (uint32_t i = 0; i < n; i++) {
        out[i] = data[ring_offset(r->cons + skip + i, r->size)];
    }
    __asm__ __volatile__("" ::: "memory");
}

/* Copies 'n' bytes from private memory into the free part, after 'skip'
 * others. */
void
ring_bytes_copy_in(struct ring_bytes *r, uint32_t skip, const void *src,
                   uint32_t n)
{
    struct iovec iov[2];
    int n_iov = ring_bytes_free_iov(r, skip, n, iov);
    const uint8_t *p = src;

    for (int i = 0; i < n_iov; i++) {
        memcpy(iov[i].iov_base, p, iov[i].iov_len);
        p += iov[i].iov_len;
    }
}

bool
ring_bytes_peer_produced(const struct ring_bytes *r)
{
    return ring_fetch(r->prod_shared) != r->prod;
}

bool
ring_bytes_peer_consumed(const struct ring_bytes *r)
{
    return ring_fetch(r->cons_shared) != r->cons;
}

/* Command ring, back end. */

void
ring_back_init(struct ring_back *r, struct pvcalls_sring *sring)
{
    r->sring = sring;
    r->req_cons = r->rsp_prod = 0;
}

/* Takes the next request, copied once, into '*ret'.  EAGAIN: there is none.
 * EPROTO: more requests are said to be there than can be unanswered. */
int
ring_back_take(struct ring_back *r, struct pvcalls_request *ret)
{
    uint32_t prod = ring_load_index__(&r->sring->req_prod);

    ring_rmb();
    /* Slots are shared by requests and responses, so what counts is the
     * distance to the last response, not to the last request taken; and the
     * index may not fall behind what was taken. */
    if (!ring_is_sane(prod, r->rsp_prod, PVCALLS_N_SLOTS) ||
        ring_used(prod, r->rsp_prod) < ring_used(r->req_cons, r->rsp_prod)) {
        COVERAGE_INC(ring_bogus_request);
        return EPROTO;
    }
    if (prod == r->req_cons) {
        return EAGAIN;
    }
    ring_load_request__(ret, r->sring, r->req_cons);
    r->req_cons++;
    return 0;
}

/* Asks to be notified of the next request.  False if one came meanwhile: then
 * take it instead of sleeping. */
bool
ring_back_sleep(struct ring_back *r)
{
    ring_store(&r->sring->req_event, r->req_cons + 1);
    ring_mb();
    return ring_load_index__(&r->sring->req_prod) == r->req_cons;
}

/* Gives a response to one of the requests taken.  True if the front end asked
 * to be notified. */
bool
ring_back_respond(struct ring_back *r, const struct pvcalls_response *rsp)
{
    uint32_t old = r->rsp_prod;

    pvcalls_response_put(r->sring, old, rsp);
    r->rsp_prod = old + 1;
    ring_publish(&r->sring->rsp_prod, r->rsp_prod);
    ring_mb();
    return ring_must_notify(ring_load_index__(&r->sring->rsp_event),
                            r->rsp_prod, old);
}

bool
ring_back_peer_produced(const struct ring_back *r)
{
    return ring_fetch(&r->sring->req_prod) != r->req_cons;
}

/* Command ring, front end. */

/* Initializes the front end of a zeroed page and sets the event indices. */
void
ring_front_init(struct ring_front *r, struct pvcalls_sring *sring)
{
    r->sring = sring;
    r->req_prod = r->rsp_cons = 0;
    ring_store(&sring->req_event, 1);
    ring_store(&sring->rsp_event, 1);
}

/* Puts a request.  EAGAIN: 32 are unanswered. */
int
ring_front_put(struct ring_front *r, const struct pvcalls_request *req,
               bool *ret_notify)
{
    uint32_t old = r->req_prod;

    if (ring_used(old, r->rsp_cons) >= PVCALLS_N_SLOTS) {
        return EAGAIN;
    }
    pvcalls_request_put(r->sring, old, req);
    r->req_prod = old + 1;
    ring_publish(&r->sring->req_prod, r->req_prod);
    ring_mb();
    *ret_notify = ring_must_notify(ring_load_index__(&r->sring->req_event),
                                   r->req_prod, old);
    return 0;
}

/* Takes the next response into '*ret'.  EAGAIN: there is none.  EPROTO: more
 * responses than requests. */
int
ring_front_take(struct ring_front *r, struct pvcalls_response *ret)
{
    uint32_t prod = ring_load_index__(&r->sring->rsp_prod);

    ring_rmb();
    if (!ring_is_sane(prod, r->rsp_cons,
                      ring_used(r->req_prod, r->rsp_cons))) {
        COVERAGE_INC(ring_bogus_index);
        return EPROTO;
    }
    if (prod == r->rsp_cons) {
        return EAGAIN;
    }
    ring_load_response__(ret, r->sring, r->rsp_cons);
    r->rsp_cons++;
    return 0;
}

/* Asks to be notified of the next response.  False if one came meanwhile. */
bool
ring_front_sleep(struct ring_front *r)
{
    ring_store(&r->sring->rsp_event, r->rsp_cons + 1);
    ring_mb();
    return ring_load_index__(&r->sring->rsp_prod) == r->rsp_cons;
}
