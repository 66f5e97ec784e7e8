/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * worker.h - what the parts of xenlift-guest share: event ports, tasks with a
 * budget, and devices.  backend/worker-core.c implements the first two,
 * backend/worker-control.c the last.
 *
 * Theory of operation
 * ===================
 *
 * One thread, one epoll loop.  A round is: handle what epoll reported, run the
 * tasks that were queued before the round, tear down devices that failed, and
 * sleep if no task is left.
 *
 * Budget.  No callback works longer than its budget; one that is not done
 * queues its task and goes on in the next round, behind everybody else.
 *
 * Ports.  A port that fired is masked and is unmasked only before the worker
 * sleeps (late end-of-interrupt): what the guest sends while we are awake
 * causes no interrupt here, because we look at the rings anyway.  A port whose
 * events bring no work is spurious; after a burst it stays masked for some
 * time, so that a guest cannot keep us busy with notifications alone.
 *
 * Polling.  With poll_max_ns the worker spins before it sleeps: it peeks at
 * the rings that were active last and asks epoll without waiting.  The window
 * adapts: it grows when work came soon after the worker had gone to sleep and
 * collapses when a whole window brought nothing, so an idle or slow guest does
 * not burn a processor.
 *
 * Devices.  A device that finds its guest (or vafsd) at fault calls
 * worker_device_fail() and returns; it must then do nothing more.  Teardown
 * happens at the end of the round, when no callback of the device is on the
 * stack.
 */
#ifndef BACKEND_WORKER_H
#define BACKEND_WORKER_H 1

#include <jansson.h>

#include "backend/idmap.h"
#include "backend/worker-protocol.h"
#include "hv/hv.h"
#include "lib/list.h"
#include "lib/loop.h"

struct worker_options {
    const char *hv_spec;
    const char *user;
    uint64_t poll_max_ns; /* Longest spin before sleep; 0: none. */
    uint32_t max_sockets; /* Of the guest, in all states. */
    uint32_t max_pages;   /* Mapped for data rings. */
    uint32_t max_linger;  /* Bytes kept for sockets already released. */
    uint32_t msize_max;   /* Longest 9P message. */
    bool allow_loopback;  /* May reach the driver domain's own 127/8. */
};

struct worker {
    struct worker_options opt;
    uint16_t domid;
    uint8_t uuid[16];
    char name[64]; /* Of the guest, for the log. */

    struct hv *hv;
    struct loop *loop;
    struct loop_fd *evtchn_handle;
    struct loop_fd *hangup; /* Of the grant device; NULL on Xen. */
    struct idmap ports;     /* Local port to "struct worker_port". */
    struct list runq;       /* Of "struct worker_task"s. */
    struct list masked;     /* Ports to unmask before sleep. */
    struct list penalty;    /* Ports that stay masked for some time. */
    struct loop_timer penalty_timer;
    struct list hot; /* Ports to peek at while spinning. */
    unsigned int n_hot;
    bool had_work;    /* In this round. */
    uint64_t poll_ns; /* Window of this moment. */

    struct list devices; /* Of "struct worker_device"s. */
    bool any_failed;     /* Some device waits for its teardown. */
    bool quit;

    /* backend/worker-control.c. */
    int control_fd;
    struct loop_fd *control_handle;
    int listen_fd;
    struct loop_fd *listen_handle;
};

/* ## Tasks ## */

struct worker_task {
    struct list link;
    void (*run)(void *aux);
    void *aux;
};

void worker_task_init(struct worker_task *, void (*run)(void *), void *aux);
void worker_task_queue(struct worker *, struct worker_task *);
void worker_task_cancel(struct worker_task *);

/* ## Event ports ## */

struct worker_port {
    struct list link; /* In 'masked' or 'penalty'. */
    struct list hot;  /* In 'hot'. */
    uint32_t port;    /* Ours; 0: not bound. */
    unsigned int n_spurious;
    /* Handles an event; returns whether it brought anything new. */
    bool (*event)(void *aux);
    /* Whether a look at shared memory says that 'event' is worth a call. */
    bool (*peek)(const void *aux);
    void *aux;
};

void worker_port_init(struct worker_port *, bool (*event)(void *),
                      bool (*peek)(const void *), void *aux);
int worker_port_bind(struct worker *, struct worker_port *,
                     uint32_t remote_port) NODISCARD;
void worker_port_unbind(struct worker *, struct worker_port *);
void worker_port_notify(struct worker *, struct worker_port *);

/* ## Core ## */

int worker_core_init(struct worker *) NODISCARD;
void worker_core_destroy(struct worker *);
void worker_core_run(struct worker *);

/* ## Devices ## */

struct worker_device;

struct worker_device_class {
    /* Unmaps, unbinds and closes everything, and frees the device. */
    void (*destroy)(struct worker_device *);
    /* Adds members to 'object' for WP_STATS_RINGS. */
    void (*rings)(const struct worker_device *, json_t *object);
    /* Appends objects to 'array' for WP_STATS_SESSIONS. */
    void (*sessions)(const struct worker_device *, json_t *array);
};

/* Embedded as first member. */
struct worker_device {
    struct list link;
    struct worker *worker;
    const struct worker_device_class *class;
    bool is_failed; /* Nothing is done for it any more. */
    int error;
    char reason[WP_REASON_SIZE];
};

void worker_device_init(struct worker_device *, struct worker *,
                        const struct worker_device_class *);
void worker_device_fail(struct worker_device *, int error, const char *fmt,
                        ...) PRINTF_FORMAT(3, 4);

/* backend/sockets/pvcalls.c, backend/files/p9dev.c.  On failure a sentence is
 * in 'reason'. */
int pvcalls_create(struct worker *, const struct wp_pvcalls *,
                   struct worker_device **ret,
                   char reason[WP_REASON_SIZE]) NODISCARD;
int p9dev_create(struct worker *, const struct wp_9pfs *, int vafs_fd,
                 struct worker_device **ret,
                 char reason[WP_REASON_SIZE]) NODISCARD;

/* ## Control connection ## */

int
worker_control_init(struct worker *, int control_fd, int listen_fd) NODISCARD;
void worker_control_destroy(struct worker *);
void worker_control_reap(struct worker *);

#endif /* backend/worker.h */
