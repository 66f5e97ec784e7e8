/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pvcalls-impl.h - what the files of the PV Calls backend share.
 *
 *   pvcalls.c    the device: command ring, dispatch, answers, statistics
 *   passive.c    BIND, LISTEN, ACCEPT, POLL and what is parked
 *   active.c     CONNECT, RELEASE and the bytes between ring and socket
 *   dataring.c   mapping of data rings and their reuse
 *   addr.c       which addresses a guest may name
 */
#ifndef BACKEND_SOCKETS_PVCALLS_IMPL_H
#define BACKEND_SOCKETS_PVCALLS_IMPL_H 1

#include <netinet/in.h>

#include "backend/worker.h"
#include "lib/ring.h"

/* Answer to what nobody knows: Linux's internal number, as the specification
 * has it.  The frontend maps it. */
#define PVC_ENOTSUP PVCALLS_ENOTSUPP

/* Parked requests (ACCEPT, POLL): above PARK_SCARCE every POLL that is older
 * than PVCALLS_POLL_MS is ended; from PARK_FULL on the oldest POLL, or else
 * ACCEPT, is ended once PARK_MIN_MS old, so that other commands find a slot.
 */
#define PVC_PARK_SCARCE 16
#define PVC_PARK_FULL 28
#define PVC_PARK_MIN_MS 20

/* Rings kept mapped for reuse. */
#define PVC_REUSE_MAX 64

/* Bytes moved for one socket in one direction before others get their turn. */
#define PVC_BUDGET (256 * 1024)

/* How long the rest of a released socket may take. */
#define PVC_LINGER_MS 60000

/* What each is charged besides its bytes, so that their number is bounded as
 * well. */
#define PVC_LINGER_COST 4096

/* Commands handled in one go. */
#define PVC_COMMAND_BUDGET 64

struct pvc_dev;
struct pvc_sock;

/* A mapped data ring with its event channel. */
struct pvc_ring {
    struct list link; /* In dev->reuse, or empty. */
    struct pvc_dev *dev;
    struct pvc_sock *sock; /* NULL while kept for reuse. */
    uint32_t ref;          /* Of the indexes page. */
    uint32_t evtchn;       /* The guest's port. */
    uint32_t order;
    uint32_t *refs; /* Of the 2^order data pages. */
    struct hv_grant *indexes_grant, *data_grant;
    struct pvcalls_indexes *indexes;
    uint8_t *data;
    struct worker_port port;
};

/* PVC_NEW: known by SOCKET only, or a failed CONNECT.
 * PVC_BOUND: has a descriptor with a name.
 * PVC_LISTENING: terminal but for RELEASE.
 * PVC_CONNECTING: has a ring; CONNECT is unanswered.
 * PVC_ACTIVE: has a ring; bytes flow.  Terminal but for RELEASE. */
enum pvc_state {
    PVC_NEW,
    PVC_BOUND,
    PVC_LISTENING,
    PVC_CONNECTING,
    PVC_ACTIVE,
};

struct pvc_sock {
    struct list link; /* In dev->socks. */
    struct pvc_dev *dev;
    uint64_t id;
    enum pvc_state state;
    int fd;
    struct loop_fd *handle;
    struct worker_task task;

    /* PVC_LISTENING. */
    struct list parked; /* Of "struct pvc_parked"s, by age. */

    /* PVC_CONNECTING. */
    uint32_t connect_req_id;

    /* PVC_CONNECTING, PVC_ACTIVE. */
    struct pvc_ring *ring;
    struct ring_bytes in;  /* To the guest: we produce. */
    struct ring_bytes out; /* From the guest: we consume. */
    bool readable;         /* recv() may have something. */
    bool writable;         /* send() may take something. */
    bool peer_closed;      /* Short reads do not mean "empty" any more. */
    bool in_done;          /* in_error is set. */
    bool out_done;         /* out_error is set, or shut down. */
    bool out_shut;         /* By the guest (half close). */
    int error;             /* What broke the connection, positive. */
    uint64_t n_in, n_out;  /* Bytes. */
};

/* A request whose answer waits for a connection.  There are as many as slots
 * in the ring, because each holds one. */
struct pvc_parked {
    struct list age;  /* In dev->parked_polls, _accepts or _free. */
    struct list link; /* In sock->parked. */
    struct pvc_sock *sock;
    uint32_t cmd; /* PVCALLS_ACCEPT or PVCALLS_POLL. */
    uint32_t req_id;
    uint64_t id_new;       /* ACCEPT. */
    struct pvc_ring *ring; /* ACCEPT. */
    uint64_t since;        /* clock_mono_ns(). */
};

/* What is left of a released socket. */
struct pvc_linger {
    struct list link; /* In dev->lingering. */
    struct pvc_dev *dev;
    int fd;
    struct loop_fd *handle;
    struct loop_timer timer;
    uint8_t *data;
    size_t size, done;
};

struct pvc_dev {
    struct worker_device up;
    struct worker *w;
    uint32_t flags; /* enum wp_pvcalls_flags. */
    uint32_t max_order;

    struct hv_grant *grant;
    struct ring_back ring;
    struct worker_port port;
    struct worker_task task;
    bool notify; /* Answers were given that the guest must hear of. */

    struct idmap ids;  /* To "struct pvc_sock". */
    struct list socks; /* All of them. */
    uint32_t n_socks;
    uint32_t n_pages; /* Mapped for data rings. */

    struct pvc_parked park[PVCALLS_N_SLOTS];
    struct list parked_polls;   /* By age. */
    struct list parked_accepts; /* By age. */
    struct list parked_free;
    unsigned int n_parked;
    struct loop_timer park_timer;

    struct list reuse; /* Of "struct pvc_ring"s, last used first. */
    unsigned int n_reuse;

    struct list lingering;
    size_t linger_bytes;
};

/* pvcalls.c */
void pvc_respond(struct pvc_dev *, uint32_t req_id, uint32_t cmd, uint64_t id,
                 int error);
void pvc_flush(struct pvc_dev *);
int pvc_sock_create(struct pvc_dev *, uint64_t id,
                    struct pvc_sock **ret) NODISCARD;
void pvc_sock_destroy(struct pvc_sock *);
struct pvc_sock *pvc_sock_find(const struct pvc_dev *, uint64_t id);
int pvc_sock_open(struct pvc_sock *) NODISCARD;
void pvc_sock_close_fd(struct pvc_sock *);

/* passive.c */
int pvc_bind(struct pvc_dev *, const struct pvcalls_request *);
int pvc_listen(struct pvc_dev *, const struct pvcalls_request *);
void pvc_accept(struct pvc_dev *, const struct pvcalls_request *);
void pvc_poll(struct pvc_dev *, const struct pvcalls_request *);
void pvc_unpark_all(struct pvc_sock *, int error);
void pvc_park_timer_cb(void *dev);

/* active.c */
void pvc_connect(struct pvc_dev *, const struct pvcalls_request *);
void pvc_release(struct pvc_dev *, const struct pvcalls_request *);
int pvc_activate(struct pvc_sock *, int fd, struct pvc_ring *) NODISCARD;
void pvc_active_run(void *sock);
bool pvc_active_event(struct pvc_sock *);
bool pvc_active_peek(const struct pvc_sock *);
void pvc_linger_destroy(struct pvc_linger *);

/* dataring.c */
int pvc_ring_get(struct pvc_dev *, uint32_t ref, uint32_t evtchn,
                 struct pvc_ring **ret) NODISCARD;
void pvc_ring_put(struct pvc_ring *, bool reuse);
void pvc_ring_destroy(struct pvc_ring *);

/* addr.c */
int pvc_addr_parse(const uint8_t bytes[PVCALLS_ADDR_SIZE], uint32_t len,
                   struct sockaddr_in *ret) NODISCARD;
int pvc_addr_may_connect(const struct worker *,
                         const struct sockaddr_in *) NODISCARD;
int
pvc_addr_may_bind(const struct worker *, const struct sockaddr_in *) NODISCARD;

#endif /* backend/sockets/pvcalls-impl.h */
