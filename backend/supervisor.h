/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the files of the supervisor share.
 *
 *   xenliftd.c            options, start and end
 *   supervisor.c          guests and devices, runs backend/xenbus.c's actions
 *   supervisor-store.c    reads and writes xenstore
 *   supervisor-worker.c   starts, adopts and talks to workers
 *   supervisor-ctl.c      control socket
 *
 * Everything runs in one thread.  A `struct guest` exists as long as it has
 * devices or a worker; a `struct device` as long as its backend directory or
 * something that the worker holds of it.
 */
#ifndef BACKEND_SUPERVISOR_H
#define BACKEND_SUPERVISOR_H 1

#include <jansson.h>
#include <signal.h>

#include "backend/worker-protocol.h"
#include "backend/xenbus.h"
#include "hv/hv.h"
#include "lib/ctl.h"
#include "lib/list.h"
#include "lib/loop.h"

struct guest;

/* A backend type in xenstore, and which kind of device stands behind it. */
struct device_type {
    const char *back;  /* "backend/THIS/...". */
    const char *front; /* "device/THIS/...". */
    enum wp_kind kind;
};

struct device {
    struct list link; /* In the guest's 'devices'. */
    struct guest *guest;
    const struct device_type *type;
    uint32_t devid;
    bool is_dirty;   /* Facts are to be gathered again. */
    bool is_watched; /* A watch on 'front_path'/state is set. */
    char *front_path;
    struct xenbus_facts facts;
    uint32_t generation;             /* Of the last WP_DEVICE_ADD. */
    unsigned n_retries;              /* In a row, for the back-off. */
    char error[WP_REASON_SIZE + 64]; /* "" = none. */
    union wp_geometry geometry;      /* As connected. */
    struct loop_timer timer;
};

enum worker_state {
    WORKER_NONE,
    WORKER_STARTING, /* WP_HELLO was sent. */
    WORKER_SYNCING,  /* WP_HELLO_REPLY came, not yet all of its devices. */
    WORKER_READY,
    WORKER_QUITTING, /* WP_QUIT was sent, or it was killed. */
};

struct guest {
    struct list link; /* In the supervisor's 'guests'. */
    struct supervisor *sup;
    uint16_t domid;
    bool is_gone; /* The hypervisor says so. */
    uint8_t uuid[16];
    char name[64];
    struct list devices;

    /* The worker. */
    enum worker_state worker;
    bool is_adopted, is_child;
    pid_t pid;
    int pidfd; /* -1 = none. */
    struct loop_fd *pidfd_handle;
    int control; /* -1 = none. */
    struct loop_fd *control_handle;
    unsigned n_to_sync;
    uint64_t started_at; /* Monotonic ns. */
    uint64_t start_not_before;
    unsigned n_crashes;             /* In a row. */
    struct loop_timer worker_timer; /* Hello and quit must not take long. */
    struct list stats; /* Of "struct stats_call", in the order of asking. */
};

struct supervisor_options {
    const char *hv_spec;
    const char *run_dir;
    const char *worker_path;
    const char *user;
    unsigned user_base; /* 0, or the worker of guest N has uid this + N. */
    const char *vafsd;  /* Path of guest.sock. */
    const char *worker_args[32];
    size_t n_worker_args;
    bool serve_pvcalls, serve_9pfs, serve_xen_9pfs;
    unsigned pvcalls_page_order;
    unsigned p9_ring_order;
};

struct supervisor {
    const struct supervisor_options *options;
    struct loop *loop;
    struct hv *hv;
    uint16_t domid;
    struct loop_fd *xs_handle;
    struct loop_timer more_events; /* The budget was not enough. */
    struct list guests;
    uint32_t last_generation, last_seq;
    bool is_broken; /* xenstore is lost: end. */
    struct ctl_server *ctl;
};

/* ## supervisor.c ## */

int supervisor_create(struct loop *, const struct supervisor_options *,
                      struct supervisor **ret_sup) NODISCARD;
void supervisor_destroy(struct supervisor *);

struct guest *supervisor_find_guest(struct supervisor *, uint16_t domid);
struct guest *supervisor_get_guest(struct supervisor *, uint16_t domid);
struct device *guest_find_device(struct guest *, enum wp_kind, uint32_t devid);

/* Gathers the facts of 'dev' and acts until there is nothing to do.  May free
 * 'dev', never its guest. */
void device_run(struct device *dev);

/* Notes that the link of 'dev' is now 'link' and acts on it.  May free 'dev'
 * and its guest. */
void device_set_link(struct device *dev, enum xenbus_link link);

/* Makes 'text' the device's error: log line, xenstore node. */
void
device_set_error(struct device *dev, const char *fmt, ...) PRINTF_FORMAT(2, 3);

/* Runs all devices of 'guest', also those that wait for a retry, then drops
 * it if it has become idle. */
void guest_run(struct guest *);

/* Ends the worker of a guest that has no devices, and frees the guest when
 * there is neither. */
void guest_drop_if_idle(struct guest *);

/* ## supervisor-store.c ## */

int store_watch(struct supervisor *) NODISCARD;
void store_gather(struct device *);
int store_publish(struct device *) NODISCARD;
int store_set_state(struct device *, enum xenbus_state) NODISCARD;
int store_delete(struct device *) NODISCARD;
void store_set_error(struct device *);
void store_clear_error(struct device *);
void store_unwatch(struct device *);

/* Reads what the frontend of 'dev' wrote into '*ret_geometry'.  EINVAL: it is
 * wrong, and 'why', of 'size' bytes, says in which way. */
int store_read_geometry(struct device *, union wp_geometry *ret_geometry,
                        char *why, size_t size) NODISCARD;

/* Reads the attach name of 9pfs device 'dev', to be freed. */
int store_read_path(struct device *, char **ret_path) NODISCARD;

/* Fills in name and UUID of 'guest', as far as this domain may read them. */
void store_identify(struct guest *);

/* Calls 'cb' for each device that stands in our backend directories. */
typedef void store_scan_cb(struct supervisor *, const struct device_type *,
                           uint16_t domid, uint32_t devid);
void store_scan(struct supervisor *, store_scan_cb *);

/* Says that type xen_9pfs is served here, where it is: libxl would start a
 * daemon for it otherwise. */
void store_announce(struct supervisor *);

/* Removes error nodes of devices that are no more. */
void store_clean_errors(struct supervisor *);

/* ## supervisor-worker.c ## */

/* Adopts the workers that an earlier supervisor has left. */
void worker_adopt_all(struct supervisor *);

/* Starts a worker for 'guest' if it has none.  0: it is ready; EAGAIN: wait,
 * guest_run() will be called, or until 'guest->start_not_before'. */
int worker_get(struct guest *) NODISCARD;

int worker_add_device(struct device *, int fd) NODISCARD;

/* True if the worker will answer; false if there is none. */
bool worker_remove_device(struct device *);

/* Sets how much the worker of 'guest' logs. */
int worker_set_log_level(struct guest *, const char *level) NODISCARD;

void worker_quit(struct guest *);
int worker_kill(struct guest *) NODISCARD;

/* Lets go of the worker of 'guest' without ending it. */
void worker_abandon(struct guest *);

/* Asks for statistics; 'cb' is called once, with NULL on failure, before the
 * guest is freed. */
typedef void worker_stats_cb(struct guest *, json_t *json, void *aux);
int worker_ask(struct guest *, enum wp_stats_what, worker_stats_cb *,
               void *aux) NODISCARD;

/* ## supervisor-ctl.c ## */

int supervisor_ctl_create(struct supervisor *) NODISCARD;

#endif /* backend/supervisor.h */
