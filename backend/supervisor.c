/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Guests and devices of the supervisor: gathers facts, asks xenbus_decide(),
 * carries out what it says.  See backend/supervisor.h and backend/xenbus.h.
 *
 * Trust: what frontends write to xenstore is doubted (store_read_geometry());
 * what a guest's worker says is trusted no further than its guest.  The
 * supervisor never maps a guest's memory.
 */
#include "backend/supervisor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/coverage.h"
#include "lib/guest-hello.h"
#include "lib/vlog.h"

COVERAGE_DEFINE(sup_watch_event);
COVERAGE_DEFINE(sup_device_new);
COVERAGE_DEFINE(sup_device_connect);
COVERAGE_DEFINE(sup_device_connected);
COVERAGE_DEFINE(sup_device_failed);
COVERAGE_DEFINE(sup_device_deleted);
COVERAGE_DEFINE(sup_frontend_invalid);
COVERAGE_DEFINE(sup_vafsd_unreachable);
COVERAGE_DEFINE(sup_no_progress);

/* Back-off of a device that cannot connect. */
#define RETRY_MIN (250 * NSEC_PER_MSEC)
#define RETRY_MAX (8 * NSEC_PER_SEC)

/* How long a device waits for news of a worker, which has time-outs of its
 * own. */
#define WORKER_PATIENCE (60 * NSEC_PER_SEC)

/* No chain of decisions is longer; more means that writes have no effect. */
#define MAX_ACTIONS 16

/* Watch events that are taken at a time: a guest that writes to its nodes all
 * the time must not keep the loop from the others. */
#define MAX_EVENTS 256

/* For lines on what a guest can make happen again and again. */
static struct vlog_rate_limit life_rl = VLOG_RATE_LIMIT_INIT(120, 60);

/* ## Guests ## */

struct guest *
supervisor_find_guest(struct supervisor *sup, uint16_t domid)
{
    struct guest *guest;

    LIST_FOR_EACH (guest, link, &sup->guests) {
        if (guest->domid == domid) {
            return guest;
        }
    }
    return NULL;
}

/* Finds the guest 'domid' or creates it.  NULL: no memory. */
struct guest *
supervisor_get_guest(struct supervisor *sup, uint16_t domid)
{
    struct guest *guest = supervisor_find_guest(sup, domid);

    if (guest) {
        return guest;
    }
    guest = calloc(1, sizeof *guest);
    if (!guest) {
        return NULL;
    }
    guest->sup = sup;
    guest->domid = domid;
    guest->pidfd = guest->control = -1;
    list_init(&guest->devices);
    list_init(&guest->stats);
    loop_timer_init(&guest->worker_timer, NULL, NULL);
    list_push_back(&sup->guests, &guest->link);
    store_identify(guest);
    return guest;
}

struct device *
guest_find_device(struct guest *guest, enum wp_kind kind, uint32_t devid)
{
    struct device *dev;

    LIST_FOR_EACH (dev, link, &guest->devices) {
        if (dev->type->kind == kind && dev->devid == devid) {
            return dev;
        }
    }
    return NULL;
}

static void
guest_free(struct guest *guest)
{
    loop_timer_cancel(&guest->worker_timer);
    list_remove(&guest->link);
    free(guest);
}

void
guest_drop_if_idle(struct guest *guest)
{
    if (!list_is_empty(&guest->devices)) {
        return;
    }
    if (guest->worker == WORKER_NONE) {
        guest_free(guest);
    } else if (guest->worker == WORKER_READY) {
        worker_quit(guest);
    }
}

void
guest_run(struct guest *guest)
{
    struct device *dev, *next;

    LIST_FOR_EACH_SAFE (dev, next, link, &guest->devices) {
        dev->is_dirty = true;
        dev->facts.retry_at = 0;
        device_run(dev);
    }
    guest_drop_if_idle(guest);
}

/* ## Devices ## */

static void
device_free(struct device *dev)
{
    store_unwatch(dev);
    loop_timer_cancel(&dev->timer);
    list_remove(&dev->link);
    free(dev->front_path);
    free(dev);
}

static void
device_on_timer(void *dev_)
{
    struct device *dev = dev_;
    struct guest *guest = dev->guest;

    dev->is_dirty = true;
    device_run(dev);
    guest_drop_if_idle(guest);
}

/* Takes in the device of 'type' that stands in xenstore, if it is new, and
 * marks it dirty. */
static void
device_found(struct supervisor *sup, const struct device_type *type,
             uint16_t domid, uint32_t devid)
{
    struct guest *guest = supervisor_get_guest(sup, domid);
    struct device *dev;

    if (!guest) {
        return;
    }
    dev = guest_find_device(guest, type->kind, devid);
    if (!dev) {
        dev = calloc(1, sizeof *dev);
        if (!dev) {
            guest_drop_if_idle(guest);
            return;
        }
        COVERAGE_INC(sup_device_new);
        dev->guest = guest;
        dev->type = type;
        dev->devid = devid;
        loop_timer_init(&dev->timer, device_on_timer, dev);
        list_push_back(&guest->devices, &dev->link);
        vlog_info_rl(&life_rl, "d%u %s/%u: new device", domid, type->back,
                     devid);
    }
    if (dev->type == type) {
        dev->is_dirty = true;
    }
}

void
device_set_error(struct device *dev, const char *fmt, ...)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(60, 20);
    char text[sizeof dev->error];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!strcmp(text, dev->error)) {
        /* A retry that fails as the last time is not news. */
        return;
    }
    strcpy(dev->error, text);
    vlog_warn_rl(&rl, "d%u %s/%u: %s", dev->guest->domid, dev->type->back,
                 dev->devid, text);
    store_set_error(dev);
}

static void
device_retry_later(struct device *dev)
{
    uint64_t wait = RETRY_MIN << MIN(dev->n_retries, 8u);

    dev->n_retries++;
    dev->facts.retry_at = clock_mono_ns() + MIN(wait, RETRY_MAX);
}

/* Connects to vafsd and tells it who the guest is and what 'dev' may see. */
static int
connect_vafsd(struct device *dev, int *ret_fd)
{
    const struct supervisor_options *options = dev->guest->sup->options;
    struct guest_hello hello;
    char *path;
    int error, fd = -1;

    error = store_read_path(dev, &path);
    if (error) {
        device_set_error(dev, "cannot read node path: %s", strerror(error));
        return error;
    }
    if (!guest_hello_init(&hello, dev->guest->domid, dev->guest->uuid, path)) {
        device_set_error(dev, "node path is longer than %d bytes",
                         GUEST_HELLO_ATTACH_MAX);
        free(path);
        return ENAMETOOLONG;
    }
    snprintf(dev->geometry.p9.path, sizeof dev->geometry.p9.path, "%s", path);
    free(path);

    error = unix_connect(options->vafsd, SOCK_STREAM | SOCK_NONBLOCK, &fd);
    if (!error) {
        /* A fresh socket has room for that. */
        ssize_t n = send(fd, &hello, sizeof hello, MSG_NOSIGNAL);

        if (n != (ssize_t) sizeof hello) {
            error = n < 0 ? errno : EIO;
            close(fd);
        }
    }
    if (error) {
        COVERAGE_INC(sup_vafsd_unreachable);
        device_set_error(dev, "cannot reach vafsd at %s: %s; will try again",
                         options->vafsd, strerror(error));
        return error;
    }
    *ret_fd = fd;
    return 0;
}

/* Carries out XENBUS_CONNECT. */
static void
device_connect(struct device *dev)
{
    char why[WP_REASON_SIZE];
    int fd = -1;
    int error;

    error = store_read_geometry(dev, &dev->geometry, why, sizeof why);
    if (error) {
        COVERAGE_INC(sup_frontend_invalid);
        device_set_error(dev, "frontend: %s", why);
        dev->facts.link = XENBUS_LINK_FAILED;
        return;
    }
    error = worker_get(dev->guest);
    if (error == EAGAIN) {
        /* guest_run() comes when the worker is ready, unless it may not even
         * be started yet. */
        dev->facts.retry_at = (dev->guest->worker == WORKER_NONE
                                   ? dev->guest->start_not_before
                                   : clock_mono_ns() + WORKER_PATIENCE);
        return;
    }
    if (error) {
        device_set_error(dev, "cannot start worker: %s", strerror(error));
        device_retry_later(dev);
        return;
    }
    if (dev->type->kind == WP_KIND_9PFS) {
        error = connect_vafsd(dev, &fd);
        if (error) {
            device_retry_later(dev);
            return;
        }
    }
    dev->generation = ++dev->guest->sup->last_generation;
    error = worker_add_device(dev, fd);
    if (fd >= 0) {
        close(fd);
    }
    if (error) {
        device_set_error(dev, "cannot tell worker: %s", strerror(error));
        device_retry_later(dev);
        return;
    }
    COVERAGE_INC(sup_device_connect);
    dev->facts.link = XENBUS_LINK_ADDING;
}

static int
device_set_state(struct device *dev, enum xenbus_state state)
{
    int error = store_set_state(dev, state);

    if (!error) {
        vlog_info_rl(&life_rl, "d%u %s/%u: %s, frontend %s", dev->guest->domid,
                     dev->type->back, dev->devid, xenbus_state_name(state),
                     xenbus_state_name(dev->facts.front));
        if (state == XENBUS_CONNECTED) {
            COVERAGE_INC(sup_device_connected);
            dev->n_retries = 0;
            store_clear_error(dev);
        }
    }
    return error;
}

/* Derives the facts that have to do with time. */
static void
note_times(struct device *dev, uint64_t now)
{
    struct xenbus_facts *f = &dev->facts;
    bool is_unwanted = !f->online || !f->front_exists;

    if (!is_unwanted) {
        f->ending_at = 0;
    } else if (!f->ending_at) {
        f->ending_at = now;
    }
    if (!is_unwanted || f->back != XENBUS_CLOSED) {
        f->closed_at = 0;
    } else if (!f->closed_at) {
        f->closed_at = now;
    }
}

/* Carries out 'action'.  Returns true to decide again, false to wait. */
static bool
device_act(struct device *dev, const struct xenbus_action *action)
{
    int error = 0;

    switch (action->type) {
    case XENBUS_WAIT:
        if (action->wake_at) {
            loop_timer_set_abs(dev->guest->sup->loop, &dev->timer,
                               action->wake_at);
        }
        return false;
    case XENBUS_PUBLISH:
        dev->facts.retry_at = 0;
        store_clear_error(dev);
        error = store_publish(dev);
        if (!error) {
            vlog_info_rl(&life_rl, "d%u %s/%u: InitWait", dev->guest->domid,
                         dev->type->back, dev->devid);
        }
        break;
    case XENBUS_CONNECT:
        device_connect(dev);
        break;
    case XENBUS_DISCONNECT:
        dev->facts.link = (worker_remove_device(dev) ? XENBUS_LINK_REMOVING
                                                     : XENBUS_LINK_NONE);
        break;
    case XENBUS_SET_STATE:
        error = device_set_state(dev, action->state);
        break;
    case XENBUS_DELETE:
        error = store_delete(dev);
        break;
    case XENBUS_FORGET:
        store_clear_error(dev);
        break;
    }
    if (error) {
        static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(60, 20);

        vlog_warn_rl(&rl, "d%u %s/%u: cannot write to xenstore: %s",
                     dev->guest->domid, dev->type->back, dev->devid,
                     strerror(error));
        device_retry_later(dev);
        loop_timer_set_abs(dev->guest->sup->loop, &dev->timer,
                           dev->facts.retry_at);
        return false;
    }
    return true;
}

void
device_run(struct device *dev)
{
    if (dev->guest->worker == WORKER_SYNCING ||
        (dev->guest->worker == WORKER_STARTING && dev->guest->is_adopted)) {
        /* What the worker has is not known yet; guest_run() will come. */
        return;
    }
    loop_timer_cancel(&dev->timer);
    for (int i = 0; i < MAX_ACTIONS; i++) {
        struct xenbus_action action;
        uint64_t now = clock_mono_ns();

        if (dev->is_dirty) {
            dev->is_dirty = false;
            store_gather(dev);
            if (dev->guest->is_gone) {
                dev->facts.front_exists = false;
            }
        }
        note_times(dev, now);
        action = xenbus_decide(&dev->facts, now);
        if (!device_act(dev, &action)) {
            return;
        }
        if (action.type == XENBUS_FORGET || action.type == XENBUS_DELETE) {
            COVERAGE_INC(sup_device_deleted);
            vlog_info_rl(&life_rl, "d%u %s/%u: device is gone",
                         dev->guest->domid, dev->type->back, dev->devid);
            device_free(dev);
            return;
        }
        if (action.type != XENBUS_CONNECT &&
            action.type != XENBUS_DISCONNECT) {
            dev->is_dirty = true;
        }
    }
    COVERAGE_INC(sup_no_progress);
    device_retry_later(dev);
    loop_timer_set_abs(dev->guest->sup->loop, &dev->timer,
                       dev->facts.retry_at);
}

void
device_set_link(struct device *dev, enum xenbus_link link)
{
    struct guest *guest = dev->guest;

    if (link == XENBUS_LINK_FAILED) {
        COVERAGE_INC(sup_device_failed);
    }
    dev->facts.link = link;
    dev->is_dirty = true;
    device_run(dev);
    guest_drop_if_idle(guest);
}

/* ## Events of xenstore ## */

static void
run_dirty(struct supervisor *sup)
{
    struct guest *guest, *next_guest;

    LIST_FOR_EACH_SAFE (guest, next_guest, link, &sup->guests) {
        struct device *dev, *next_dev;

        LIST_FOR_EACH_SAFE (dev, next_dev, link, &guest->devices) {
            if (dev->is_dirty) {
                device_run(dev);
            }
        }
        guest_drop_if_idle(guest);
    }
}

/* @releaseDomain does not say which domain has gone. */
static void
check_domains(struct supervisor *sup)
{
    struct guest *guest;

    LIST_FOR_EACH (guest, link, &sup->guests) {
        bool exists;

        if (!hv_domain_exists(sup->hv, guest->domid, &exists) && !exists &&
            !guest->is_gone) {
            struct device *dev;

            vlog_info("d%u: domain is gone", guest->domid);
            guest->is_gone = true;
            LIST_FOR_EACH (dev, link, &guest->devices) {
                dev->is_dirty = true;
            }
        }
    }
}

/* Marks what the watch event means.  Tokens: "back" for our own directories,
 * "release", and "f KIND DOMID DEVID" for a frontend's state. */
static bool
note_event(struct supervisor *sup, const char *path, const char *token)
{
    unsigned kind, domid, devid;
    char type[32];

    if (sscanf(token, "f %u %u %u", &kind, &domid, &devid) == 3) {
        struct guest *guest = supervisor_find_guest(sup, domid);
        struct device *dev =
            guest ? guest_find_device(guest, kind, devid) : NULL;

        if (dev) {
            dev->is_dirty = true;
        }
        return false;
    }
    if (!strcmp(token, "release")) {
        check_domains(sup);
        return false;
    }
    if (sscanf(path, "backend/%31[^/]/%u/%u", type, &domid, &devid) == 3) {
        struct guest *guest = supervisor_find_guest(sup, domid);
        struct device *dev;

        if (guest) {
            LIST_FOR_EACH (dev, link, &guest->devices) {
                if (!strcmp(dev->type->back, type) && dev->devid == devid) {
                    dev->is_dirty = true;
                    return false;
                }
            }
        }
    }
    return true; /* Something new: look at all. */
}

static void
mark_all_dirty(struct supervisor *sup)
{
    struct guest *guest;

    LIST_FOR_EACH (guest, link, &sup->guests) {
        struct device *dev;

        LIST_FOR_EACH (dev, link, &guest->devices) {
            dev->is_dirty = true;
        }
    }
}

static void
take_events(void *sup_)
{
    struct supervisor *sup = sup_;
    bool rescan = false;
    char *path, *token;
    int error = 0;

    for (int i = 0; i < MAX_EVENTS; i++) {
        error = hv_xs_next_event(sup->hv, &path, &token);
        if (error) {
            break;
        }
        COVERAGE_INC(sup_watch_event);
        vlog_dbg("watch %s (%s)", path, token);
        rescan = note_event(sup, path, token) || rescan;
        free(path);
        free(token);
    }
    if (error && error != EAGAIN) {
        vlog_err("lost xenstore: %s", strerror(error));
        sup->is_broken = true;
        loop_stop(sup->loop);
        return;
    }
    if (rescan) {
        /* A directory of a type or guest came or went. */
        mark_all_dirty(sup);
        store_scan(sup, device_found);
    }
    run_dirty(sup);
    if (!error) {
        /* libxenstore does not promise that its descriptor stays readable. */
        loop_timer_set_abs(sup->loop, &sup->more_events, 1);
    }
}

static void
supervisor_on_xenstore(uint32_t events UNUSED, void *sup)
{
    take_events(sup);
}

/* ## Start and end ## */

int
supervisor_create(struct loop *loop, const struct supervisor_options *options,
                  struct supervisor **ret_sup)
{
    struct supervisor *sup = calloc(1, sizeof *sup);
    int error;

    if (!sup) {
        return ENOMEM;
    }
    sup->options = options;
    sup->loop = loop;
    list_init(&sup->guests);
    loop_timer_init(&sup->more_events, take_events, sup);
    error = hv_open(options->hv_spec, HV_STORE, &sup->hv);
    if (error) {
        vlog_err("cannot open hypervisor \"%s\": %s", options->hv_spec,
                 strerror(error));
        goto error;
    }
    error = hv_domid(sup->hv, &sup->domid);
    if (error) {
        vlog_err("xenstore does not say the own domain id: %s",
                 strerror(error));
        goto error;
    }
    error = supervisor_ctl_create(sup);
    if (error) {
        vlog_err("cannot create control socket in %s: %s", options->run_dir,
                 strerror(error));
        goto error;
    }
    /* First what runs already, so that it is not started twice. */
    worker_adopt_all(sup);
    error = store_watch(sup);
    if (error) {
        vlog_err("cannot watch xenstore: %s", strerror(error));
        goto error;
    }
    error = loop_add_fd(loop, hv_xs_fd(sup->hv), EPOLLIN,
                        supervisor_on_xenstore, sup, &sup->xs_handle);
    if (error) {
        goto error;
    }
    store_announce(sup);
    store_clean_errors(sup);
    store_scan(sup, device_found);
    run_dirty(sup);
    vlog_info("serving from domain %u, hypervisor %s", sup->domid,
              hv_name(sup->hv));
    *ret_sup = sup;
    return 0;

error:
    supervisor_destroy(sup);
    return error;
}

/* Lets go of everything.  Workers go on: the next supervisor adopts them. */
void
supervisor_destroy(struct supervisor *sup)
{
    if (!sup) {
        return;
    }
    while (!list_is_empty(&sup->guests)) {
        struct guest *guest =
            CONTAINER_OF(list_front(&sup->guests), struct guest, link);
        struct device *dev, *next;

        worker_abandon(guest);
        LIST_FOR_EACH_SAFE (dev, next, link, &guest->devices) {
            device_free(dev);
        }
        guest_free(guest);
    }
    ctl_server_destroy(sup->ctl);
    loop_timer_cancel(&sup->more_events);
    if (sup->xs_handle) {
        loop_del_fd(sup->loop, sup->xs_handle);
    }
    hv_close(sup->hv);
    free(sup);
}
