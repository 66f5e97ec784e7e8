/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pvfront.h - PV Calls v1 frontend in user space: connect, listen, accept,
 * send and receive through a backend, over hv/hv.h (real Xen or local).  The
 * seed of a library; the tests and the hostile peer are its first users.
 *
 * Theory of operation
 * ===================
 *
 * Nothing here blocks but what takes a time-out; those calls wait for events
 * of the `struct hv` in pvfront_wait() and handle whatever comes meanwhile.
 * One thread; all event channels of the hv must belong to one pvfront, or the
 * caller reads them itself and passes foreign ones on (pvfront_event()).
 *
 * The backend is not trusted: responses must match an outstanding request of
 * their kind, indices are checked, and a backend at fault breaks the device
 * (every call fails with EPROTO from then on).
 *
 * A ring whose socket was closed goes to a pool and is used again (RELEASE
 * with reuse=1); its grants stay until the device ends.
 */
#ifndef FRONTEND_SOCKETS_USER_PVFRONT_H
#define FRONTEND_SOCKETS_USER_PVFRONT_H 1

#include <netinet/in.h>

#include "hv/hv.h"
#include "lib/list.h"
#include "lib/ring.h"

/* A data ring of ours. */
struct pvfront_ring {
    struct list link; /* In the pool. */
    struct hv_pages *indexes_pages, *data_pages;
    struct pvcalls_indexes *indexes;
    uint8_t *data;
    uint32_t order, ref, port;
};

/* An outstanding request. */
struct pvfront_pending {
    bool in_use, is_done;
    uint32_t req_id, cmd;
    struct pvcalls_response rsp;
};

struct pvfront {
    struct hv *hv;
    uint16_t backend;
    struct hv_pages *pages;
    struct ring_front ring;
    uint32_t ring_ref, port;
    uint32_t generation; /* Makes request ids unique. */
    uint64_t next_id;
    bool is_quiet, has_half_close; /* Extensions, set by the caller. */
    bool is_broken;
    struct pvfront_pending pending[PVCALLS_N_SLOTS];
    struct list pool; /* Of "struct pvfront_ring"s. */
    unsigned int n_rings;
    uint64_t n_notify, n_event;
};

/* A socket with a data ring, or a listener without. */
struct pvfront_sock {
    struct pvfront *front;
    uint64_t id;
    struct pvfront_ring *ring; /* NULL: listener. */
    struct ring_bytes in, out;
    struct pvfront_pending *pending; /* CONNECT, ACCEPT or POLL. */
};

int
pvfront_create(struct hv *, uint16_t backend, struct pvfront **ret) NODISCARD;
void pvfront_destroy(struct pvfront *);
int pvfront_wait(struct pvfront *, int timeout_ms);

/* Raw requests. */
int pvfront_submit(struct pvfront *, struct pvcalls_request *,
                   struct pvfront_pending **ret) NODISCARD;
int pvfront_finish(struct pvfront *, struct pvfront_pending *, int timeout_ms);
int pvfront_call(struct pvfront *, struct pvcalls_request *, int timeout_ms);

/* Rings. */
int pvfront_ring_get(struct pvfront *, uint32_t order,
                     struct pvfront_ring **ret) NODISCARD;
void pvfront_ring_put(struct pvfront *, struct pvfront_ring *, bool pool);

/* Sockets.  All return 0 or a positive errno; ETIMEDOUT where time is up. */
int pvfront_connect_start(struct pvfront *, const struct sockaddr_in *,
                          uint32_t order, struct pvfront_sock **ret) NODISCARD;
int pvfront_connect_finish(struct pvfront_sock *, int timeout_ms) NODISCARD;
int
pvfront_connect(struct pvfront *, const struct sockaddr_in *, uint32_t order,
                int timeout_ms, struct pvfront_sock **ret) NODISCARD;
int
pvfront_listen(struct pvfront *, const struct sockaddr_in *, uint32_t backlog,
               int timeout_ms, struct pvfront_sock **ret) NODISCARD;
int pvfront_accept_start(struct pvfront_sock *listener, uint32_t order,
                         struct pvfront_sock **ret) NODISCARD;
int pvfront_accept_finish(struct pvfront_sock *, int timeout_ms) NODISCARD;
int pvfront_accept(struct pvfront_sock *listener, uint32_t order,
                   int timeout_ms, struct pvfront_sock **ret) NODISCARD;
int pvfront_poll(struct pvfront_sock *listener, int timeout_ms) NODISCARD;
int pvfront_close(struct pvfront_sock *, bool reuse, int timeout_ms);

ssize_t pvfront_send(struct pvfront_sock *, const void *buf, size_t size);
ssize_t pvfront_recv(struct pvfront_sock *, void *buf, size_t size);
int pvfront_shutdown(struct pvfront_sock *);

#endif /* frontend/sockets/user/pvfront.h */
