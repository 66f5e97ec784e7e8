/* SPDX-License-Identifier: MIT
 *
 * Checked access to memory that a peer can write at any time, and the index
 * arithmetic of the rings that live in it.  Used by the kernel module, the
 * backend and the user-space frontend; knows no Xen.
 *
 * Theory of operation
 * ===================
 *
 * Goals: (a) a plain read or write of a shared field does not compile, so a
 * double fetch cannot be written by accident; (b) every fetch is one load into
 * private memory; (c) the barriers of both worlds are in one place.
 *
 * A shared index is a 'struct ring_u32'.  Being a struct, it can be neither
 * compared nor added nor assigned to an integer; ring_fetch() and
 * ring_publish() are the only way to the number inside.  Shared records are
 * arrays of 'struct ring_u64' and are copied by ring_fetch_words() and
 * ring_publish_words(), which load or store each word exactly once.
 *
 * What a fetch returns is a *hint by the peer*.  The private copy of our own
 * index is the authority: keep it in a local structure, write it out, never
 * read it back.  The peer's index is good only if ring_is_sane() says so; if
 * not, the session ends.
 *
 * Indices are free-running unsigned 32-bit counters; sizes are powers of two
 * up to 2^31.  prod == cons means empty, prod - cons == size means full.
 *
 * Order of events (each arrow is one barrier):
 *
 *    producer                          consumer
 *    fetch cons                        fetch prod
 *      -> ring_mb()                      -> ring_rmb()
 *    copy data in                      copy data out
 *      -> ring_wmb()                     -> ring_mb()
 *    publish prod                      publish cons
 *      -> ring_mb()                      -> ring_mb()
 *    is the peer asleep? notify        is the peer asleep? notify
 */

#ifndef WIRE_RING_H
#define WIRE_RING_H 1

#ifdef __KERNEL__
#include <linux/types.h>
#include <asm/barrier.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

/* A 32-bit field that the peer can read or write at any time. */
struct ring_u32 {
    uint32_t shared__;
};

/* A 64-bit piece of a record that the peer can read or write at any time. */
struct ring_u64 {
    uint64_t shared__;
};

_Static_assert(sizeof(struct ring_u32) == 4, "ring_u32 is 4 bytes");
_Static_assert(sizeof(struct ring_u64) == 8, "ring_u64 is 8 bytes");

/* Barriers between a virtual machine and another: needed on a guest with one
 * processor too, therefore the kernel's virt_ kind and not smp_. */
#ifdef __KERNEL__
#define ring_mb() virt_mb()
#define ring_rmb() virt_rmb()
#define ring_wmb() virt_wmb()
#else
#define ring_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define ring_rmb() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define ring_wmb() __atomic_thread_fence(__ATOMIC_RELEASE)
#endif

/* A test may define this before the first inclusion, to something that
 * answers differently each time: then every double fetch becomes a failure. */
#ifndef RING_LOAD32
#define RING_LOAD32(P) (*(const volatile uint32_t *) (P))
#endif
#ifndef RING_LOAD64
#define RING_LOAD64(P) (*(const volatile uint64_t *) (P))
#endif

/* Loads '*f' once.  No barrier: the caller needs the right one anyway. */
static inline uint32_t
ring_fetch(const struct ring_u32 *f)
{
    return RING_LOAD32(&f->shared__);
}

/* Stores 'value' in '*f' once.  No barrier. */
static inline void
ring_store(struct ring_u32 *f, uint32_t value)
{
    *(volatile uint32_t *) &f->shared__ = value;
}

/* Stores 'value' in '*f' so that everything we wrote before is seen first:
 * for the producer's index. */
static inline void
ring_publish(struct ring_u32 *f, uint32_t value)
{
    ring_wmb();
    ring_store(f, value);
}

/* Stores 'value' in '*f' after every load and store before it is done: for
 * the consumer's index, which allows the peer to overwrite what we read. */
static inline void
ring_release(struct ring_u32 *f, uint32_t value)
{
    ring_mb();
    ring_store(f, value);
}

/* Copies 'n' 64-bit words of a shared record to private memory 'dst', which
 * must be aligned to 8 bytes.  Each word is loaded once. */
static inline void
ring_fetch_words(void *dst, const struct ring_u64 *src, unsigned int n)
{
    uint64_t *out = (uint64_t *) dst;
    unsigned int i;

    for (i = 0; i < n; i++) {
        out[i] = RING_LOAD64(&src[i].shared__);
    }
}

/* Copies 'n' 64-bit words from private memory 'src' to a shared record. */
static inline void
ring_publish_words(struct ring_u64 *dst, const void *src, unsigned int n)
{
    const uint64_t *in = (const uint64_t *) src;
    unsigned int i;

    for (i = 0; i < n; i++) {
        *(volatile uint64_t *) &dst[i].shared__ = in[i];
    }
}

/* What lies between the indices: bytes or entries not yet consumed. */
static inline uint32_t
ring_used(uint32_t prod, uint32_t cons)
{
    return prod - cons;
}

/* True if 'prod' and 'cons', one of them fetched from the peer, can be the
 * indices of a ring of 'size'.  False is fatal for the session. */
static inline bool
ring_is_sane(uint32_t prod, uint32_t cons, uint32_t size)
{
    return prod - cons <= size;
}

/* Room left, for indices that passed ring_is_sane(). */
static inline uint32_t
ring_free(uint32_t prod, uint32_t cons, uint32_t size)
{
    return size - (prod - cons);
}

/* Where index 'idx' lies in a ring of 'size' (a power of two). */
static inline uint32_t
ring_offset(uint32_t idx, uint32_t size)
{
    return idx & (size - 1);
}

/* How many of 'n' bytes (n <= size) from 'idx' on lie in one piece; the rest
 * begins at offset 0. */
static inline uint32_t
ring_contiguous(uint32_t idx, uint32_t n, uint32_t size)
{
    uint32_t to_end = size - ring_offset(idx, size);

    return n < to_end ? n : to_end;
}

/* Event index rule of Xen's ring.h.  We moved a producer index from 'old' to
 * 'new_'; the peer asked by 'event' to be woken when the index reaches that
 * value.  True if it was passed just now.
 *
 *    ring_publish(&ring->req_prod, new_);
 *    ring_mb();
 *    if (ring_must_notify(ring_fetch(&ring->req_event), new_, old)) ...
 */
static inline bool
ring_must_notify(uint32_t event, uint32_t new_, uint32_t old)
{
    return (uint32_t) (new_ - event) < (uint32_t) (new_ - old);
}

#endif /* wire/ring.h */
