/* SPDX-License-Identifier: MIT
 *
 * Xen PV Calls, version 1: what lies in the command ring, the indexes page and
 * the data ring, to the byte.  Shared by the kernel module, the backend and
 * the user-space frontend.  Follows Xen's xen/include/public/io/pvcalls.h
 * where that and the text of the specification differ.
 *
 * One device has one command ring (a page) and, for each active socket, an
 * indexes page and a data ring of 2^order pages with an event channel each.
 * All numbers are little-endian.  Padding has no meaning: senders write 0,
 * receivers ignore it.
 */

#ifndef WIRE_PVCALLS_H
#define WIRE_PVCALLS_H 1

#include "wire/ring.h"

#define PVCALLS_PAGE_SIZE 4096u

#define PVCALLS_VERSION "1"        /* Node "versions" and "version". */
#define PVCALLS_FUNCTION_CALLS "1" /* Node "function-calls". */

/* Commands. */
enum pvcalls_cmd {
    PVCALLS_SOCKET = 0,  /* Announces an id.  Creates nothing by itself. */
    PVCALLS_CONNECT = 1, /* Answered when the connection stands or failed. */
    PVCALLS_RELEASE = 2, /* Ends an id, listening or connected. */
    PVCALLS_BIND = 3,
    PVCALLS_LISTEN = 4,
    PVCALLS_ACCEPT = 5, /* Answered when a connection has come. */
    PVCALLS_POLL = 6,   /* Answered when a connection waits; listeners only. */
    PVCALLS_N_CMDS
};

/* An address: 'struct sockaddr_in' in its first 16 bytes. */
#define PVCALLS_ADDR_SIZE 28u
#define PVCALLS_ADDR_LEN_MIN 16u /* sizeof(struct sockaddr_in) */

/* Request, 64 bytes: one slot. */
struct pvcalls_request {
    uint32_t req_id; /* Frontend's cookie, echoed. */
    uint32_t cmd;    /* enum pvcalls_cmd. */
    union {
        uint8_t bytes[56];
        struct {
            uint64_t id;
            uint32_t domain;   /* AF_INET = 2. */
            uint32_t type;     /* SOCK_STREAM = 1. */
            uint32_t protocol; /* 0. */
            uint32_t pad;
        } socket;
        struct {
            uint64_t id;
            uint8_t addr[PVCALLS_ADDR_SIZE];
            uint32_t len;
            uint32_t flags; /* Reserved, 0. */
            uint32_t ref;   /* Grant of the indexes page. */
            uint32_t evtchn;
            uint32_t pad;
        } connect;
        struct {
            uint64_t id;
            uint8_t reuse; /* Ring and event channel will come again. */
            uint8_t pad[7];
        } release;
        struct {
            uint64_t id;
            uint8_t addr[PVCALLS_ADDR_SIZE];
            uint32_t len;
        } bind;
        struct {
            uint64_t id;
            uint32_t backlog;
            uint32_t pad;
        } listen;
        struct {
            uint64_t id;     /* The listener. */
            uint64_t id_new; /* What the connection will be called. */
            uint32_t ref;
            uint32_t evtchn;
        } accept;
        struct {
            uint64_t id;
        } poll;
    } u;
};

/* Response, 24 bytes at the begin of a 64-byte slot.  'cmd' is echoed. */
struct pvcalls_response {
    uint32_t req_id;
    uint32_t cmd;
    int32_t ret; /* 0 or negative errno in Linux's numbers. */
    uint32_t pad;
    uint64_t id; /* The request's id. */
};

/* Linux's internal "not supported".  Backends of others may send it; a
 * program must never see it: map it to -EOPNOTSUPP. */
#define PVCALLS_ENOTSUPP 524

/* Command ring: one page. */
#define PVCALLS_N_SLOTS 32u
#define PVCALLS_SLOT_WORDS 8u
#define PVCALLS_RESPONSE_WORDS 3u

/* How many slots may wait with an ACCEPT or a POLL at a time, so that the
 * other commands always find one. */
#define PVCALLS_MAX_PARKED 24u

/* A parked POLL is ended with -EAGAIN by our backend after this long, so that
 * a frontend can rotate many listeners over few slots. */
#define PVCALLS_POLL_MS 250u

struct pvcalls_sring {
    struct ring_u32 req_prod;  /* Frontend writes. */
    struct ring_u32 req_event; /* Backend writes: wake me at this req_prod. */
    struct ring_u32 rsp_prod;  /* Backend writes. */
    struct ring_u32 rsp_event; /* Frontend writes: wake me at this rsp_prod. */
    uint8_t pad[48];
    struct ring_u64 slot[PVCALLS_N_SLOTS][PVCALLS_SLOT_WORDS];
};

/* Data ring: 2^order pages, first half 'in', second half 'out'. */
#define PVCALLS_MIN_ORDER 1u
#define PVCALLS_MAX_ORDER 9u

/* Bytes of each direction of a data ring. */
static inline uint32_t
pvcalls_half_size(unsigned int order)
{
    return (PVCALLS_PAGE_SIZE / 2) << order;
}

/* Indexes page: one per active socket.  "in" runs from backend to frontend,
 * "out" from frontend to backend.  The errors are written by the backend
 * (negative errno; -ENOTCONN in in_error: orderly end of stream) once all data
 * before the error is in the ring. */
struct pvcalls_indexes {
    struct ring_u32 in_cons;  /* Frontend writes. */
    struct ring_u32 in_prod;  /* Backend writes. */
    struct ring_u32 in_error; /* Backend writes; an int32_t. */
    uint8_t pad1[52];
    struct ring_u32 out_cons;  /* Backend writes. */
    struct ring_u32 out_prod;  /* Frontend writes. */
    struct ring_u32 out_error; /* Backend writes; an int32_t. */
    struct ring_u32 out_shut;  /* Extension half-close, see below. */
    uint8_t pad2[48];
    struct ring_u32 ring_order; /* Frontend writes, once. */
    struct ring_u32 ref[(PVCALLS_PAGE_SIZE - 132) / 4];
};

/* Two small extensions, each in force only if *both* ends announce it by a
 * node of this name with the value "1" in their own directory.
 *
 * feature-quiet: both ends re-read the peer's index after publishing their own
 * and a ring_mb() before they sleep, and sleep only for an empty (data) or a
 * completely full (space) ring.  So on data rings a producer notifies only if
 * the peer had consumed everything before, and a consumer only if the ring had
 * been full and is now at least half free.  Errors are always notified.
 *
 * feature-half-close: the frontend stores 1 in 'out_shut' after its last byte
 * and notifies; the backend shuts down its socket for writing once it has
 * consumed all.  Without it 'out_shut' is padding. */
#define PVCALLS_FEATURE_QUIET "feature-quiet"
#define PVCALLS_FEATURE_HALF_CLOSE "feature-half-close"

#define PVCALLS_ASSERT_AT(T, F, OFS) \
    _Static_assert(__builtin_offsetof(T, F) == (OFS), #T "." #F " at " #OFS)

_Static_assert(sizeof(struct pvcalls_request) == 64, "request is 64 bytes");
_Static_assert(sizeof(struct pvcalls_response) == 24, "response is 24 bytes");
_Static_assert(sizeof(struct pvcalls_sring) == 2112, "sring fits a page");
_Static_assert(sizeof(struct pvcalls_indexes) == PVCALLS_PAGE_SIZE,
               "indexes fill a page");
_Static_assert(PVCALLS_SLOT_WORDS * 8 == sizeof(struct pvcalls_request),
               "a slot holds a request");
_Static_assert(PVCALLS_RESPONSE_WORDS * 8 == sizeof(struct pvcalls_response),
               "words of a response");
_Static_assert((1u << PVCALLS_MAX_ORDER) <=
                   (PVCALLS_PAGE_SIZE - 132) / sizeof(struct ring_u32),
               "the references of the largest ring fit");

PVCALLS_ASSERT_AT(struct pvcalls_request, req_id, 0);
PVCALLS_ASSERT_AT(struct pvcalls_request, cmd, 4);
PVCALLS_ASSERT_AT(struct pvcalls_request, u, 8);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.socket.id, 8);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.socket.domain, 16);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.socket.type, 20);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.socket.protocol, 24);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.connect.id, 8);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.connect.addr, 16);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.connect.len, 44);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.connect.flags, 48);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.connect.ref, 52);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.connect.evtchn, 56);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.release.reuse, 16);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.bind.addr, 16);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.bind.len, 44);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.listen.backlog, 16);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.accept.id_new, 16);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.accept.ref, 24);
PVCALLS_ASSERT_AT(struct pvcalls_request, u.accept.evtchn, 28);
PVCALLS_ASSERT_AT(struct pvcalls_response, ret, 8);
PVCALLS_ASSERT_AT(struct pvcalls_response, id, 16);
PVCALLS_ASSERT_AT(struct pvcalls_sring, rsp_prod, 8);
PVCALLS_ASSERT_AT(struct pvcalls_sring, slot, 64);
PVCALLS_ASSERT_AT(struct pvcalls_indexes, in_error, 8);
PVCALLS_ASSERT_AT(struct pvcalls_indexes, out_cons, 64);
PVCALLS_ASSERT_AT(struct pvcalls_indexes, out_prod, 68);
PVCALLS_ASSERT_AT(struct pvcalls_indexes, out_error, 72);
PVCALLS_ASSERT_AT(struct pvcalls_indexes, out_shut, 76);
PVCALLS_ASSERT_AT(struct pvcalls_indexes, ring_order, 128);
PVCALLS_ASSERT_AT(struct pvcalls_indexes, ref, 132);

/* The command ring's request in slot of index 'idx', copied out once. */
static inline void
pvcalls_request_fetch(struct pvcalls_request *ret,
                      const struct pvcalls_sring *ring, uint32_t idx)
{
    ring_fetch_words(ret, ring->slot[idx & (PVCALLS_N_SLOTS - 1)],
                     PVCALLS_SLOT_WORDS);
}

static inline void
pvcalls_request_put(struct pvcalls_sring *ring, uint32_t idx,
                    const struct pvcalls_request *req)
{
    ring_publish_words(ring->slot[idx & (PVCALLS_N_SLOTS - 1)], req,
                       PVCALLS_SLOT_WORDS);
}

static inline void
pvcalls_response_fetch(struct pvcalls_response *ret,
                       const struct pvcalls_sring *ring, uint32_t idx)
{
    ring_fetch_words(ret, ring->slot[idx & (PVCALLS_N_SLOTS - 1)],
                     PVCALLS_RESPONSE_WORDS);
}

static inline void
pvcalls_response_put(struct pvcalls_sring *ring, uint32_t idx,
                     const struct pvcalls_response *rsp)
{
    ring_publish_words(ring->slot[idx & (PVCALLS_N_SLOTS - 1)], rsp,
                       PVCALLS_RESPONSE_WORDS);
}

#endif /* wire/pvcalls.h */
